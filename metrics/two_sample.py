r"""Two-sample distances: sliced Wasserstein and the maximum mean discrepancy.

The squared sliced Wasserstein distance is the mean, over random directions, of the squared distance between the sorted
projections of two samples:

.. math:: SW_2^2 = \mathbb E_\theta \int_0^1 \bigl(F_{\theta}^{-1}(u) - G_{\theta}^{-1}(u)\bigr)^2\,du

(Bonneel et al. 2015, doi 10.1007/s10851-014-0506-3). Two samples of one distribution are not at distance 0: compare it
with the distance of two real samples of the same sizes.

The maximum mean discrepancy compares means of a kernel, within and between the samples,

.. math:: \mathrm{MMD}^2 = \mathbb E\,k(x, x') + \mathbb E\,k(y, y') - 2\,\mathbb E\,k(x, y), \qquad
          k(x, y) = \sum_{c} \frac{2 D c}{2 D c + \|x - y\|^2},

here with inverse multiquadratics, whose widths fit N(0, I) in D dimensions (Tolstikhin et al., arXiv 1711.01558). The
estimate leaves out the pairs of a point with itself. It has mean 0 for samples of one distribution, and may be
negative.
"""

import torch
from torch import Tensor

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def mmd(x: Tensor, y: Tensor, scales: tuple[float, ...] = SCALES) -> Tensor:
    """Returns the unbiased estimate of MMD^2 between x (N, *) and y (M, *), (), differentiable in both; for a single
    point the mean over the pairs within its sample is 0.

    Arguments:
        scales: the numbers c of the kernel.
    """
    x, y = x.flatten(1), y.flatten(1)
    widths = [2 * x.shape[1] * scale for scale in scales]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        square = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)
        return sum(width / (width + square) for width in widths)

    def within(a: Tensor) -> Tensor:
        k = kernel(a, a)
        return (k.sum() - k.diagonal().sum()) / max(1, len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


def sliced_wasserstein(x: Tensor, y: Tensor, directions: int = 200, seed: int = 0) -> float:
    """Returns SW_2 between samples x (N, *) and y (M, *), in the unit of their values; the directions are seeded.

    Raises:
        ValueError: x and y differ in the number of values.
    """
    x, y = x.flatten(1).double(), y.flatten(1).double()
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"the samples have {x.shape[1]} and {y.shape[1]} values each; a distance needs equal numbers")
    theta = torch.randn(x.shape[1], directions, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    theta = theta / theta.norm(dim=0)
    # the quantile functions are step functions: the integral is a finite sum over the union of their steps
    a, b = (x @ theta).sort(dim=0).values, (y @ theta).sort(dim=0).values
    edges = (
        torch.cat([torch.arange(1, len(a) + 1) / len(a), torch.arange(1, len(b) + 1) / len(b)]).double().sort().values
    )
    width = torch.diff(edges, prepend=edges.new_zeros(1))
    middle = edges - width / 2
    i, j = (middle * len(a)).long().clamp(max=len(a) - 1), (middle * len(b)).long().clamp(max=len(b) - 1)
    return float((width[:, None] * (a[i] - b[j]).square()).sum(0).mean().sqrt())
