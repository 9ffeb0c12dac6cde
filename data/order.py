"""The random order in which a data set keeps its examples, so that its first n examples are a random subset.

Files are often ordered: class by class, day by day, sorted by a column. The first n rows of such a file may all be of
its first class. :class:`scoresde.data.Data` therefore puts its examples into this random order once, unless they are in
a random order already. A subset is then a prefix: random, seeded, and contained in every larger subset.
"""

import torch
from torch import Tensor


def order(count: int) -> Tensor:
    """Returns the permutation of 0 ... count - 1, (count,) int64; it depends only on ``count``."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def subset(rows: Tensor, count: int | None) -> Tensor:
    """Returns ``count`` rows of a user's tensor (N, *), drawn at random but in the tensor's own order; all rows if
    count is None, 0 or at least N.
    """
    return rows if not count or count >= len(rows) else rows[order(len(rows))[:count].sort().values]
