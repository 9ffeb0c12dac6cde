r"""The squared Frechet distance between two samples, from their means and covariances.

.. math::
    d^2 = |m_1 - m_2|^2 + \mathrm{tr}\bigl(C_1 + C_2 - 2\,(C_1 C_2)^{1/2}\bigr),

the squared 2-Wasserstein distance between the Gaussians N(m_1, C_1) and N(m_2, C_2). For a network's features it is the
FID of Heusel et al. (arXiv 1706.08500) only if the network is their Inception. Like the FID, both functions named
``distance`` here return d^2 and not d.

The trace of (C_1 C_2)^{1/2} is the sum of the singular values of C_1^{1/2} C_2^{1/2}, with each root from a symmetric
eigendecomposition. We take no root of the unsymmetric product C_1 C_2, because that fails for singular covariances,
such as those of samples with no more points than features, or with a feature that is always 0.

The estimate from samples is biased upwards, more so for fewer samples: compare distances only at equal counts.
"""

import torch
from torch import Tensor


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Returns d^2 between samples x (N, *) and y (M, *), in the square of their unit; computed in float64.

    Raises:
        ValueError: x and y differ in the number of values, or one has fewer than 2 points.
    """
    x, y = x.flatten(1).double(), y.flatten(1).double()
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"the samples have {x.shape[1]} and {y.shape[1]} values each; a distance needs equal numbers")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a covariance needs 2 points at least, and the samples have {len(x)} and {len(y)}")
    return gaussian_distance(*mean_and_covariance(x), *mean_and_covariance(y))


def mean_and_covariance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean (D,) and the unbiased covariance (D, D) of x (N, D), float64."""
    mean = x.double().mean(0)
    covariance = mean.new_zeros(x.shape[1], x.shape[1])
    for block in x.split(4096):  # avoids a centred copy of all of x
        centred = block.double() - mean
        covariance += centred.T @ centred
    return mean, covariance / (len(x) - 1)


def gaussian_distance(m_1: Tensor, c_1: Tensor, m_2: Tensor, c_2: Tensor) -> float:
    """Returns d^2 between Gaussians with means (D,) and covariances (D, D), which may be singular."""
    m_1, c_1, m_2, c_2 = (moment.double() for moment in (m_1, c_1, m_2, c_2))
    cross = torch.linalg.svdvals(root(c_1) @ root(c_2)).sum()
    square = (m_1 - m_2).square().sum() + c_1.trace() + c_2.trace() - 2 * cross
    return float(square.clamp_min(0.0))  # for equal Gaussians only rounding errors remain, which may be negative


def root(covariance: Tensor) -> Tensor:
    """Returns the symmetric root (D, D) of a covariance (D, D); eigenvalues within rounding of 0 count as 0."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    least = len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    values = torch.where(values > least, values, 0.0)
    return vectors * values.sqrt() @ vectors.T
