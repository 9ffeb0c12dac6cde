r"""How much of a sample lies where data do, and how much of the data it covers: by neighbours, in bounded memory.

With r_k(p) the distance of a point p to its k-th neighbour in its own set, and balls B(p) of that radius,

.. math::
    \text{precision} &= \frac1N \#\{x:\ x \in \textstyle\bigcup_y B(y)\}, &
    \text{recall} &= \frac1M \#\{y:\ y \in \textstyle\bigcup_x B(x)\}, \\
    \text{density} &= \frac1{kN} \#\{(x, y):\ x \in B(y)\}, &
    \text{coverage} &= \frac1M \#\{y:\ \text{some } x \in B(y)\}

for samples x and data y (Kynkaanniemi et al., arXiv 1904.06991; Naeem et al., arXiv 2002.09797). Precision and density
fall for samples that are off the data, recall and coverage where data are missed. One far datum has a large ball: it
makes precision too good, and density counts how many balls a sample lies in instead, so that it may exceed 1. Of two
samples of one law, equally large, density is 1 in the mean and coverage near 1 - 2^{-k}, precision and recall have no
value of their own: read them beside those of real data.
"""

import torch
from torch import Tensor

HELD = 2**21  # distances that are held at once


def precision_recall(x: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """(precision, recall) of samples x (N, *) beside real points (M, *), in one unit."""
    x, real = checked(x, real, k, "precision and recall")
    of_real, of_x = radii(real, k), radii(x, k)
    inside, covered = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for at, between in blocks(x, real):
        inside += int((between <= of_real).any(1).sum())
        covered |= (between <= of_x[at, None]).any(0)
    return inside / len(x), float(covered.double().mean())


def density_coverage(x: Tensor, real: Tensor, k: int = 5) -> tuple[float, float]:
    """(density, coverage) of samples x (N, *) beside real points (M, *), in one unit."""
    x, real = checked(x, real, k, "density and coverage")
    of_real = radii(real, k)
    pairs, covered = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for _, between in blocks(x, real):
        inside = between <= of_real
        pairs += int(inside.sum())
        covered |= inside.any(0)
    return pairs / (k * len(x)), float(covered.double().mean())


def checked(x: Tensor, real: Tensor, k: int, what: str) -> tuple[Tensor, Tensor]:
    """Both as rows of numbers, float64."""
    x, real = x.flatten(1).double(), real.flatten(1).double()
    if x.shape[1] != real.shape[1]:
        raise ValueError(
            f"the samples have {x.shape[1]} and {real.shape[1]} values each; a distance needs equal numbers"
        )
    if min(len(x), len(real)) <= k:
        raise ValueError(f"{what} need more than {k} points of either kind")
    return x, real


def blocks(x: Tensor, y: Tensor):
    """Distances between some rows of x (N, D) and all of y (M, D), and which rows they are."""
    rows = max(1, HELD // len(y))
    for first in range(0, len(x), rows):
        at = slice(first, first + rows)
        yield at, torch.cdist(x[at], y)


def radii(points: Tensor, k: int) -> Tensor:
    """The distance of each of the points (N, D) to its k-th neighbour among them, (N,)."""
    # the first neighbour is the point itself
    return torch.cat([between.kthvalue(k + 1, dim=1).values for _, between in blocks(points, points)])
