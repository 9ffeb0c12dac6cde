r"""Curves in the plane with noise: moons, swiss roll, two spirals.

With a parameter t of density w(t) on [t_0, t_1], a curve c(t) and a noise of density n,

.. math:: p(r) = \int_{t_0}^{t_1} n(r - c(t))\, w(t)\, dt \approx \sum_j w_j\, n(r - c(t_j)).

The nodes t_j are Gauss-Legendre's, sixteen on each panel of equal length along the curve. On a panel as long as four
standard deviations of the noise the rule is exact to float64 for points near the curve. For points far from it on the
outside of a bend or beyond an end, where the integrand is sharper, it loses digits: 0.4 of 5,003 nats at 100 standard
deviations beyond an end of the moons. The sum is a mixture: for Gaussian noise the formulas are those of
:mod:`scoresde.data.mixture`, and the mean and standard deviation of the shape are the mixture's.

The spirals' noise is Gaussian plus uniform on a square of side a, so that along each axis, with v the distance from the
square's centre and :math:`\Phi` the normal distribution function,

.. math:: n(v) = \frac1a \Bigl[\Phi\Bigl(\frac{a/2 - v}{\sigma}\Bigr) - \Phi\Bigl(\frac{-a/2 - v}{\sigma}\Bigr)\Bigr].

The conventions are those of FFJORD's toy data (arXiv 1810.01367).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from scoresde.data.base import at_least
from scoresde.data.mixture import isotropic_log_prob, isotropic_moments
from scoresde.data.planar import SHARPEST
from scoresde.data.synthetic import Synthetic


def nodes_along(
    curve: Callable[[np.ndarray], np.ndarray], start: float, stop: float, panel: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns nodes t_j and weights, (J,) each, of Gauss-Legendre quadrature in t, on panels of about the given length.

    Arguments:
        curve: maps t (N,) to points (N, 2).
        start, stop: the range of t.
        panel: the length of a panel along the curve.
    """
    t = np.linspace(start, stop, 4097)
    length = np.append(0.0, np.linalg.norm(np.diff(curve(t), axis=0), axis=1).cumsum())
    panels = math.ceil(length[-1] / panel)
    edges = np.interp(np.linspace(0, length[-1], panels + 1), length, t)
    node, weight = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + node)).ravel(), (half * weight).ravel()


class Moons(Synthetic):
    """Two interleaved half circles with Gaussian noise: scikit-learn's moons, times 2, shifted by (-1, -0.2).

    Arguments:
        count, test_count, seed: numbers of training and held-out examples, and the seed of the draws.
        noise: standard deviation of the noise for circles of radius 1; it is twice as large in data units.
    """

    def __init__(self, count: int = 200_000, test_count: int = 10_000, noise: float = 0.1, seed: int = 0):
        at_least("noise", noise, SHARPEST, 0.1)
        self.noise = 2 * noise
        t, weight = nodes_along(self.upper, 0, math.pi, 4 * self.noise)
        self.centres = torch.from_numpy(np.concatenate((self.upper(t), self.lower(t))))
        self.weights = torch.from_numpy(np.tile(weight / (2 * math.pi), 2))
        self.stds = torch.full_like(self.weights, self.noise)
        mean, std = isotropic_moments(self.weights, self.centres, self.stds)
        super().__init__(count, test_count, seed, (2,), mean, std, width=self.centres.numel())

    @staticmethod
    def upper(t: np.ndarray) -> np.ndarray:
        """Returns the points (N, 2) of the upper half circle at angles t (N,)."""
        return np.stack((2 * np.cos(t) - 1, 2 * np.sin(t) - 0.2), 1)

    @staticmethod
    def lower(t: np.ndarray) -> np.ndarray:
        """Returns the points (N, 2) of the lower half circle at angles t (N,)."""
        return np.stack((1 - 2 * np.cos(t), 0.8 - 2 * np.sin(t)), 1)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        t = rng.uniform(0, math.pi, count)
        upper = rng.random((count, 1)) < 0.5
        moon = np.where(upper, self.upper(t), self.lower(t))
        return moon + self.noise * rng.standard_normal((count, 2)), np.where(upper[:, 0], 0, 1)

    def log_density(self, r: Tensor) -> Tensor:
        return isotropic_log_prob(r, self.weights, self.centres, self.stds)

    def marginal_log_prob(self, y: Tensor, columns: list[int]) -> Tensor:
        return isotropic_log_prob(y, self.weights, self.centres[:, columns], self.stds)


class SwissRoll(Synthetic):
    """The roll (t cos t, t sin t) with t uniform on [1.5 pi, 4.5 pi] and Gaussian noise, everything divided by 5.

    Arguments:
        count, test_count, seed: numbers of training and held-out examples, and the seed of the draws.
        noise: standard deviation of the noise before the division.
    """

    def __init__(self, count: int = 200_000, test_count: int = 10_000, noise: float = 1.0, seed: int = 0):
        at_least("noise", noise, SHARPEST, 1.0)
        self.noise = noise / 5
        t, weight = nodes_along(self.curve, 1.5 * math.pi, 4.5 * math.pi, 4 * self.noise)
        self.centres = torch.from_numpy(self.curve(t))
        self.weights = torch.from_numpy(weight / (3 * math.pi))
        self.stds = torch.full_like(self.weights, self.noise)
        mean, std = isotropic_moments(self.weights, self.centres, self.stds)
        super().__init__(count, test_count, seed, (2,), mean, std, width=self.centres.numel())

    @staticmethod
    def curve(t: np.ndarray) -> np.ndarray:
        """Returns the points (N, 2) of the roll at t (N,)."""
        return np.stack((t * np.cos(t), t * np.sin(t)), 1) / 5

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        roll = self.curve(1.5 * math.pi * (1 + 2 * rng.random(count)))
        return roll + self.noise * rng.standard_normal((count, 2)), None

    def log_density(self, r: Tensor) -> Tensor:
        return isotropic_log_prob(r, self.weights, self.centres, self.stds)

    def marginal_log_prob(self, y: Tensor, columns: list[int]) -> Tensor:
        return isotropic_log_prob(y, self.weights, self.centres[:, columns], self.stds)


class TwoSpirals(Synthetic):
    """Two spirals, r and -r, equally likely.

    One is the curve (-t cos t, t sin t) / 3 with t = 3 pi sqrt(u) and u uniform on [0, 1], plus a point uniform on the
    square [0, 1/6]^2. Gaussian noise is added last.

    Arguments:
        count, test_count, seed: numbers of training and held-out examples, and the seed of the draws.
        noise: standard deviation of the Gaussian noise.
    """

    side = 1 / 6  # the side a of the square

    def __init__(self, count: int = 200_000, test_count: int = 10_000, noise: float = 0.1, seed: int = 0):
        at_least("noise", noise, SHARPEST, 0.1)
        self.noise = noise
        t, weight = nodes_along(self.curve, 0, 3 * math.pi, 4 * noise)
        centre = self.curve(t) + self.side / 2
        self.centres = torch.from_numpy(np.concatenate((centre, -centre)))
        self.weights = torch.from_numpy(np.tile(weight * t / (3 * math.pi) ** 2, 2))
        spread = torch.full_like(self.weights, math.sqrt(self.side**2 / 12 + noise**2))
        _, std = isotropic_moments(self.weights, self.centres, spread)
        super().__init__(count, test_count, seed, (2,), 0.0, std, width=self.centres.numel())

    @staticmethod
    def curve(t: np.ndarray) -> np.ndarray:
        """Returns the points (N, 2) of one spiral at t (N,)."""
        return np.stack((-t * np.cos(t), t * np.sin(t)), 1) / 3

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        arm = self.curve(3 * math.pi * np.sqrt(rng.random(count))) + self.side * rng.random((count, 2))
        first = rng.random((count, 1)) < 0.5
        spiral = np.where(first, arm, -arm) + self.noise * rng.standard_normal((count, 2))
        return spiral, np.where(first[:, 0], 0, 1)

    def log_density(self, r: Tensor) -> Tensor:
        v = (r[:, None] - self.centres).abs() / self.noise
        h = self.side / (2 * self.noise)
        kernel = (torch.erf((h - v) / math.sqrt(2)) + torch.erf((h + v) / math.sqrt(2))).prod(-1) / (2 * self.side) ** 2
        density = kernel @ self.weights
        faint = density < 1e-6  # differences of erf are fast and exact near the spirals; far away they cancel
        return density.log().masked_scatter(faint, self.log_tail(v[faint], h))

    def log_tail(self, v: Tensor, h: float) -> Tensor:
        """Returns log p in nats, (B,), by log_ndtr: for points where differences of erf cancel.

        Arguments:
            v: (B, J, 2) distances to the squares' centres along each axis, in units of the noise's standard deviation.
            h: half the side of a square, in the same unit.
        """
        near, far = torch.special.log_ndtr(h - v), torch.special.log_ndtr(-h - v)
        log_kernel = (near + torch.log1p(-(far - near).exp())).sum(-1) - 2 * math.log(self.side)
        return torch.logsumexp(self.weights.log() + log_kernel, 1)
