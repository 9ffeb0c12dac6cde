r"""Mixtures of isotropic Gaussians, in any dimension and shape.

.. math::
    p(r) = \sum_k w_k\, N(r;\, \mu_k,\, s_k^2 I), \qquad
    m = \sum_k w_k \mu_k, \qquad
    s^2 = \sum_k w_k \Bigl(\tfrac{1}{D}\|\mu_k - m\|^2 + s_k^2\Bigr).

Model units subtract the mean m and divide by one number s, the standard deviation with all coordinates pooled. A scale
for each coordinate would turn the isotropic components into ellipsoids; one scale keeps them isotropic, the case in
which :mod:`scoresde.models.oracle` has the perturbed density and its score in closed form under any SDE.
"""

import math

import numpy as np
import torch
from torch import Tensor

from scoresde.data.synthetic import Synthetic


def isotropic_log_prob(r: Tensor, weights: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """Returns log p(r) in nats: r (B, D), weights (K,) of sum 1, means (K, D), stds (K,) to (B,)."""
    square = (r[:, None] - means).square().sum(-1)
    log_kernel = -square / (2 * stds.square()) - r.shape[1] * (stds * math.sqrt(2 * math.pi)).log()
    return torch.logsumexp(weights.log() + log_kernel, 1)


def component_log_prob(r: Tensor, k: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """Returns log N(r; mu_k, s_k^2 I) in nats for points r (B, *), each with its own k (B,): (B,) in float64."""
    r, k = r.to("cpu", torch.float64).flatten(1), k.cpu()
    z = (r - means[k]) / stds[k, None]
    return -0.5 * z.square().sum(1) - r.shape[1] * (stds[k] * math.sqrt(2 * math.pi)).log()


def isotropic_moments(weights: Tensor, means: Tensor, stds: Tensor) -> tuple[Tensor, float]:
    """Returns the mean (D,) and the pooled standard deviation of a mixture: weights (K,), means (K, D), stds (K,)."""
    mean = weights @ means
    return mean, math.sqrt(weights @ ((means - mean).square().mean(1) + stds.square()))


class Mixture(Synthetic):
    """A mixture of K isotropic Gaussians in D dimensions.

    Arguments:
        weights: K positive, finite numbers; they are divided by their sum.
        means: K lists of D finite numbers, in data units; one number stands for a constant vector.
        stds: K positive, finite numbers, the standard deviation of every coordinate, in data units.
        count, test_count, seed: numbers of training and held-out examples, and the seed of the draws.
        shape: the shape of one example, with product D; by default (D,) with the length of the first mean, or (1,) if
            that is a number.

    Raises:
        ValueError: the lists are empty or of different lengths, a number is outside its range, or a mean does not fit
            the shape.
    """

    def __init__(
        self,
        weights: list[float],
        means: list[list[float]] | list[float],
        stds: list[float],
        count: int = 200_000,
        test_count: int = 10_000,
        seed: int = 0,
        shape: list[int] | None = None,
    ):
        if not len(weights) == len(means) == len(stds) > 0:
            lengths = f"{len(weights)} weights, {len(means)} means and {len(stds)} stds"
            raise ValueError(f"`weights`, `means` and `stds` must be of one length, not {lengths}")
        for key, values in (("weights", weights), ("stds", stds)):
            if not all(0 < value < math.inf for value in values):
                raise ValueError(f"`{key}`={list(values)} must all be positive: type a number above 0 for each")
        if shape is not None and (len(shape) == 0 or min(shape) < 1):
            raise ValueError(f"`shape`={list(shape)} must hold sizes of at least 1: type `shape`=[3,8,6]")
        shape = tuple(shape or np.shape(means[0]) or (1,))
        dim = math.prod(shape)
        rows = [[mean] * dim if np.ndim(mean) == 0 else list(mean) for mean in means]
        for k, row in enumerate(rows):
            if len(row) != dim:
                raise ValueError(
                    f"`means`[{k}] has {len(row)} numbers, an example of shape {shape} has {dim}: "
                    f"type {dim} numbers, or one number for a constant vector"
                )
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.weights = self.weights / self.weights.sum()
        self.means = torch.tensor(rows, dtype=torch.float64)
        if not bool(self.means.isfinite().all()):
            raise ValueError(f"`means`={means} must be finite numbers")
        self.stds = torch.tensor(stds, dtype=torch.float64)
        mean, std = isotropic_moments(self.weights, self.means, self.stds)
        super().__init__(count, test_count, seed, shape, mean.reshape(shape), std, width=self.means.numel())

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        k = rng.choice(len(self.weights), size=count, p=self.weights.numpy())
        noise = rng.standard_normal((count, self.means.shape[1]))
        return self.means.numpy()[k] + self.stds.numpy()[k, None] * noise, k

    def log_density(self, r: Tensor) -> Tensor:
        return isotropic_log_prob(r, self.weights, self.means, self.stds)

    def marginal_log_prob(self, y: Tensor, columns: list[int]) -> Tensor:
        return isotropic_log_prob(y, self.weights, self.means[:, columns], self.stds)

    def class_log_prob(self, r: Tensor, k: Tensor) -> Tensor:
        return component_log_prob(r, k, self.means, self.stds)

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weights, (self.means - self.shift.flatten()) / self.scale, self.stds / self.scale
