"""The one random order of examples, from which every subset of them is taken.

Files stand in an order: class by class, day by day, sorted by a column. The first n rows of such a file are a sample of
its first class. :class:`scoresde.data.Data` therefore puts its examples into this order once, and a subset is a prefix
of it: a seeded random subset, and the larger of two holds the smaller.
"""

import torch
from torch import Tensor


def order(count: int) -> Tensor:
    """The permutation of 0 ... count - 1, (count,) int64; a function of ``count`` alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def subset(rows: Tensor, count: int | None) -> Tensor:
    """Returns ``count`` rows of a user's tensor (N, *), drawn at random and kept in the user's sequence; all rows where
    count is None or at least N.
    """
    return rows if not count or count >= len(rows) else rows[order(len(rows))[:count].sort().values]
