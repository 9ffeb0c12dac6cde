r"""Precision, recall, density and coverage of samples, by nearest neighbours and in bounded memory.

With r_k(p) the distance of a point p to its k-th neighbour in its own set, and B(p) the ball of that radius around p,

.. math::
    \text{precision} &= \frac1N \#\{x:\ x \in \textstyle\bigcup_y B(y)\}, &
    \text{recall} &= \frac1M \#\{y:\ y \in \textstyle\bigcup_x B(x)\}, \\
    \text{density} &= \frac1{kN} \#\{(x, y):\ x \in B(y)\}, &
    \text{coverage} &= \frac1M \#\{y:\ \text{some } x \in B(y)\}

for samples x and data y (Kynkaanniemi et al., arXiv 1904.06991; Naeem et al., arXiv 2002.09797). Precision and density
fall for samples off the data, recall and coverage for data that are missed. An outlier has a large ball, which makes
precision too high; density counts the balls round each sample instead, and may exceed 1. For two equally large samples
of one law, density is 1 in the mean and coverage near 1 - 2^{-k}; precision and recall have no fixed value, so compare
them with those of real data.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

HELD = 2**21  # the largest number of distances in a block, unless one row has more


@dataclass(frozen=True)
class Support:
    """Precision, recall and coverage, in [0, 1], and density, at least 0."""

    precision: float
    recall: float
    density: float
    coverage: float


def support_of(
    x: Tensor, real: Tensor, ks: tuple[int, int] = (3, 5), of_real: tuple[Tensor, Tensor] | None = None
) -> Support:
    """Returns the four metrics of samples x (N, *) against real points (M, *), in one unit.

    Arguments:
        ks: two values of k: for precision and recall, and for density and coverage.
        of_real: the radii of the real points for both, ``radii(real, *ks)``, if they are computed already.

    Raises:
        ValueError: x and real differ in the number of values, or one has no more than max(ks) points.
    """
    x, real = x.flatten(1).double(), real.flatten(1).double()
    if x.shape[1] != real.shape[1]:
        raise ValueError(
            f"the samples have {x.shape[1]} and {real.shape[1]} values each; a distance needs equal numbers"
        )
    if min(len(x), len(real)) <= max(ks):
        raise ValueError(f"the support needs more than {max(ks)} points of either kind")
    near, wide = radii(real, *ks) if of_real is None else of_real
    (own,) = radii(x, ks[0])
    inside, pairs = 0, 0
    met, covered = (torch.zeros(len(real), dtype=torch.bool) for _ in range(2))
    for at, between in blocks(x, real):
        inside += int((between <= near).any(1).sum())
        met |= (between <= own[at, None]).any(0)
        within = between <= wide
        pairs += int(within.sum())
        covered |= within.any(0)
    recall, coverage = (float(reached.double().mean()) for reached in (met, covered))
    return Support(inside / len(x), recall, pairs / (ks[1] * len(x)), coverage)


def precision_recall(x: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """Returns (precision, recall) of samples x (N, *) against real points (M, *), in one unit."""
    support = support_of(x, real, (k, k))
    return support.precision, support.recall


def density_coverage(x: Tensor, real: Tensor, k: int = 5) -> tuple[float, float]:
    """Returns (density, coverage) of samples x (N, *) against real points (M, *), in one unit."""
    support = support_of(x, real, (k, k))
    return support.density, support.coverage


def radii(points: Tensor, *ks: int) -> tuple[Tensor, ...]:
    """Returns for each k the distance of each of the points (N, *) to its k-th neighbour among them, (N,)."""
    points = points.flatten(1).double()
    # the first neighbour is the point itself
    nearest = [between.topk(max(ks) + 1, dim=1, largest=False).values for _, between in blocks(points, points)]
    return tuple(torch.cat([distances[:, k] for distances in nearest]) for k in ks)


def blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields blocks of rows of x (N, D), each with its distances to all of y (M, D)."""
    rows = max(1, HELD // len(y))
    for first in range(0, len(x), rows):
        at = slice(first, first + rows)
        yield at, torch.cdist(x[at], y)
