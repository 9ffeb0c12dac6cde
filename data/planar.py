r"""Shapes in the plane with a closed-form density: checkerboard, eight Gaussians, rings.

Constants and names of these and of the shapes in :mod:`scoresde.data.curves` and :mod:`scoresde.data.pinwheel` follow
the toy data of FFJORD (arXiv 1810.01367), so that pictures and entropies compare with published ones. A perfect model's
negative log-likelihood is the differential entropy, in nats and data units, here at the default ``noise``:

    8gaussians 2.832, checkerboard ln 32, moons 2.394, pinwheel 2.318, rings 2.623, swissroll 2.670, 2spirals 2.645

A ring of radius R, its angle uniform, with Gaussian noise of standard deviation :math:`\sigma` has at distance
:math:`\rho` from the centre the density (I_0 is the modified Bessel function)

.. math:: p(r) = \frac{1}{2\pi\sigma^2} \exp\Bigl(-\frac{\rho^2 + R^2}{2\sigma^2}\Bigr) I_0(\rho R/\sigma^2),

written below with :math:`e^{-z} I_0(z)`, which neither overflows nor underflows.
"""

import math

import numpy as np
import torch
from torch import Tensor

from scoresde.data.base import at_least
from scoresde.data.mixture import component_log_prob, isotropic_log_prob
from scoresde.data.synthetic import Synthetic

# the least `noise` of a shape: without noise a curve has no density, and quadrature along curves costs 1/noise
SHARPEST = 0.001


class Checkerboard(Synthetic):
    """Uniform on the 8 black cells, each 2 x 2, of a board [-4, 4]^2.

    Arguments:
        count, test_count, seed: numbers of training and held-out examples, and the seed of the draws.
    """

    def __init__(self, count: int = 200_000, test_count: int = 10_000, seed: int = 0):
        # each coordinate is uniform on [-4, 4], of variance 8^2 / 12
        super().__init__(count, test_count, seed, (2,), 0.0, 4 / math.sqrt(3), width=2)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        column = rng.integers(0, 4, count)
        row = 2 * rng.integers(0, 2, count) + column % 2
        # a fine lattice that float32 holds exactly, so that no point is rounded onto the edge of its cell
        inside = (rng.integers(0, 2**20, (count, 2)) + 0.5) / 2**20
        return 2 * (np.stack((column, row), 1) + inside) - 4, None

    def log_density(self, r: Tensor) -> Tensor:
        black = (torch.floor(r / 2).sum(1) % 2 == 0) & (r.abs() < 4).all(1)
        return torch.where(black, -math.log(32), -math.inf).to(r.dtype)


class EightGaussians(Synthetic):
    """Eight Gaussians with their centres on a circle of radius 4, everything divided by 1.414.

    Arguments:
        count, test_count, seed: numbers of training and held-out examples, and the seed of the draws.
        noise: standard deviation of each Gaussian before the division, at least 0.001.
    """

    def __init__(self, count: int = 200_000, test_count: int = 10_000, noise: float = 0.5, seed: int = 0):
        at_least("noise", noise, SHARPEST, 0.5)
        angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
        self.weights = torch.full((8,), 1 / 8, dtype=torch.float64)
        self.means = 4 / 1.414 * torch.stack((angle.cos(), angle.sin()), 1)
        self.stds = torch.full((8,), noise / 1.414, dtype=torch.float64)
        super().__init__(count, test_count, seed, (2,), 0.0, math.sqrt(4**2 / 2 + noise**2) / 1.414, width=16)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        k = rng.integers(0, 8, count)
        return self.means.numpy()[k] + self.stds[0].item() * rng.standard_normal((count, 2)), k

    def log_density(self, r: Tensor) -> Tensor:
        return isotropic_log_prob(r, self.weights, self.means, self.stds)

    def marginal_log_prob(self, y: Tensor, columns: list[int]) -> Tensor:
        return isotropic_log_prob(y, self.weights, self.means[:, columns], self.stds)

    def class_log_prob(self, r: Tensor, k: Tensor) -> Tensor:
        return component_log_prob(r, k, self.means, self.stds)

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weights, self.means / self.scale, self.stds / self.scale


class Rings(Synthetic):
    """Four concentric circles of radii 3, 2.25, 1.5 and 0.75, equally likely, with Gaussian noise.

    Arguments:
        count, test_count, seed: numbers of training and held-out examples, and the seed of the draws.
        noise: standard deviation of the noise in each coordinate, in data units, at least 0.001.
    """

    def __init__(self, count: int = 200_000, test_count: int = 10_000, noise: float = 0.08, seed: int = 0):
        at_least("noise", noise, SHARPEST, 0.08)
        self.noise = noise
        self.radii = torch.tensor([3, 2.25, 1.5, 0.75], dtype=torch.float64)
        std = math.sqrt(self.radii.square().mean() / 2 + noise**2)
        super().__init__(count, test_count, seed, (2,), 0.0, std, width=4)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        k, angle = rng.choice(len(self.radii), count), rng.uniform(0, 2 * math.pi, count)
        circle = self.radii.numpy()[k, None] * np.stack((np.cos(angle), np.sin(angle)), 1)
        return circle + self.noise * rng.standard_normal((count, 2)), k

    def log_density(self, r: Tensor) -> Tensor:
        rho, variance = r.norm(dim=1)[:, None], self.noise**2
        log_ring = -(rho - self.radii).square() / (2 * variance) + torch.special.i0e(rho * self.radii / variance).log()
        return torch.logsumexp(log_ring, 1) - math.log(len(self.radii) * 2 * math.pi * variance)
