r"""The kernel distance: the squared maximum mean discrepancy with the cubic kernel of KID.

.. math::
    k(x, y) = \Bigl(\frac{x \cdot y}{D} + 1\Bigr)^3, \qquad
    \mathrm{MMD}^2 = \mathbb E\,k(x, x') + \mathbb E\,k(y, y') - 2\,\mathbb E\,k(x, y)

for points of D values (Binkowski et al., arXiv 1801.01401). The estimate takes all pairs of different points. It is
unbiased for any counts, so that, unlike the Frechet distance, its floor is only its own noise; for two samples of one
law it may be below 0.

Its standard error is the jackknife's over the subsets that leave one point out, computed from the row sums of the
kernel without evaluating a subset. For two equal laws it is too large by up to a root of 2.
"""

import math

from torch import Tensor

BLOCK = 1024  # 1024 x 4096 entries of the kernel are in memory at once


def kernel_distance(x: Tensor, y: Tensor, within: Tensor | None = None) -> tuple[float, float]:
    """Returns MMD^2 between samples x (N, *) and y (M, *), and its standard error.

    Arguments:
        within: ``rows(y)``, if it is computed already.

    Raises:
        ValueError: x and y differ in the number of values, or one has fewer than 3 points.
    """
    x, y = x.flatten(1).double(), y.flatten(1).double()
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"the samples have {x.shape[1]} and {y.shape[1]} values each; a distance needs equal numbers")
    n, m = len(x), len(y)
    if min(n, m) < 3:
        raise ValueError(f"the kernel distance needs 3 points at least, and the samples have {n} and {m}")
    a, b, (c, d) = rows(x), rows(y) if within is None else within, sums(x, y)
    within_x, within_y, between = a.sum(), b.sum(), c.sum()
    value = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)
    # the estimate without one point of x, (N,), and without one of y, (M,), up to a constant each
    without_x = (within_x - 2 * a) / ((n - 1) * (n - 2)) - 2 * (between - c) / ((n - 1) * m)
    without_y = (within_y - 2 * b) / ((m - 1) * (m - 2)) - 2 * (between - d) / (n * (m - 1))
    variance = sum((len(v) - 1) * v.var(correction=0) for v in (without_x, without_y))
    return float(value), math.sqrt(float(variance))


def rows(x: Tensor) -> Tensor:
    """Returns the sums of the kernel between each of x (N, *) and all others, (N,)."""
    x = x.flatten(1).double()
    return sums(x, x)[0] - (x.square().sum(1) / x.shape[1] + 1) ** 3


def sums(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the row sums (N,) and the column sums (M,) of the kernel between x (N, D) and y (M, D)."""
    across, columns = x.new_zeros(len(x)), y.new_zeros(len(y))
    for i in range(0, len(x), BLOCK):
        for j in range(0, len(y), 4 * BLOCK):
            at, to = slice(i, i + BLOCK), slice(j, j + 4 * BLOCK)
            k = (x[at] @ y[to].T).div_(x.shape[1]).add_(1).pow_(3)
            across[at] += k.sum(1)
            columns[to] += k.sum(0)
    return across, columns
