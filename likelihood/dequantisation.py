r"""The probability of integers under a density: dequantisation.

The integer vector k has the mass that the density p puts on its bin, the cube of side 1 in data units at k. With any
density q on that bin, and K independent draws from it,

.. math::
    \log P(k) = \log\int_{\mathrm{bin}} p(x)\,dx \;\ge\; \mathbb E\Bigl[\log\frac1K\sum_{j=1}^K w_j\Bigr],
    \qquad w_j = \frac{p(x_j)}{q(x_j \mid k)}, \quad x_j \sim q(\cdot \mid k).

K = 1 is the plain bound (Theis et al., arXiv 1511.01844); it grows with K and tends to log P(k) (importance weighting:
Burda et al., arXiv 1509.00519; for dequantisation Hoogeboom et al., arXiv 2001.11235). How loose it is depends on q:

* **Uniform**: q = 1 in data units. A model that was trained on k + u, u ~ U[0, 1)^D, knows no more than that.
* **Truncated normal** (Zheng et al., arXiv 2305.03935): the bin at the noise level eps, with x_c the bin's centre in
  model units and h its half width (h may differ from coordinate to coordinate),

  .. math:: x = \alpha x_c + \sigma z, \qquad z \sim N(0, 1) \text{ truncated to } [-\tau, \tau], \qquad
            \tau = \alpha h / \sigma,

  .. math:: \log q(x \mid k) = -\sum_i \Bigl[\tfrac12 z_i^2 + \tfrac12\log 2\pi\sigma^2
            + \log\operatorname{erf}(\tau_i/\sqrt2)\Bigr].

  It is what the forward SDE makes of data at the centres, cut off at the bin's edge, and so it fits a model that was
  trained on the centres (``training.dequantise=none``). The noise of eps is part of q: x is scored by p_eps itself, and
  no correction of the start, nor its error, is left. A small tau is the uniform density again.

For both, log q is taken at the points drawn, also for K = 1 where its mean, minus the entropy, has a closed form: where
q is near to p, the two logarithms rise and fall together, and their difference varies less.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.sde_lib import SDE

from .likelihood import Likelihood


@dataclass(frozen=True)
class Dequantised:
    """A point of each example's bin.

    Attributes:
        x: as the likelihood takes it, in model units, shape (B, *).
        r: the same point in data units, shape (B, *), k <= r < k + 1.
        log_q: log q(x | k) in nats, a density in model units, shape (B,).
    """

    x: Tensor
    r: Tensor
    log_q: Tensor


@dataclass(frozen=True)
class Dequantisation(ABC):
    """Which points of its bin stand for an integer, and what they weigh.

    Arguments:
        samples: the number K of points; each is scored, at K times the price.

    Attributes:
        title: its name in the output.
        training: the ``training.dequantise`` of the networks that it is the bound for.
    """

    samples: int = 1
    title: ClassVar[str]
    training: ClassVar[str]

    def __post_init__(self):
        if self.samples < 1:
            raise ValueError(f"`samples`={self.samples} must be at least 1; type `samples`=1")

    @property
    def bound(self) -> str:
        """What the number is, in words."""
        return f"{self.title} dequantisation, {self.samples} sample{'s' if self.samples > 1 else ''}: at most log P"

    def scored_by(self, likelihood: Likelihood) -> Likelihood:
        """The likelihood that scores the points."""
        return likelihood

    @abstractmethod
    def draw(self, sde: SDE, data: Data, k: Tensor, u: Tensor) -> Dequantised:
        """A point of every bin, from the integers k (B, *) and uniform numbers u in [0, 1) of that shape, float64."""


@dataclass(frozen=True)
class UniformDequantisation(Dequantisation):
    """Any point of the bin is as likely as any other.

    Arguments:
        samples: the number K of points; each is scored, at K times the price.
    """

    title: ClassVar[str] = "uniform"
    training: ClassVar[str] = "uniform"

    def draw(self, sde: SDE, data: Data, k: Tensor, u: Tensor) -> Dequantised:
        r = data.dequantise(k, u)
        return Dequantised(data.encode(r), r, torch.full((len(k),), -data.log_det, dtype=torch.float64))


@dataclass(frozen=True)
class TruncatedNormalDequantisation(Dequantisation):
    """The noise that the SDE adds by eps, truncated at the bin's edge.

    Arguments:
        samples: the number K of points; each is scored, at K times the price.
    """

    title: ClassVar[str] = "truncated-normal"
    training: ClassVar[str] = "none"

    def scored_by(self, likelihood: Likelihood) -> Likelihood:
        """By p_eps, whatever the likelihood's start: the noise of eps is in the points already."""
        return replace(likelihood, start="plain")

    def draw(self, sde: SDE, data: Data, k: Tensor, u: Tensor) -> Dequantised:
        eps = torch.tensor(sde.eps, dtype=torch.float64)
        alpha, sigma = sde.alpha(eps), sde.sigma(eps)
        centre = data.dequantise(k.double(), torch.full_like(u, 0.5))
        half_width = 0.5 / data.scale.expand(data.shape)
        z, log_density = truncated_normal(u, alpha * half_width / sigma)
        return Dequantised(
            alpha * data.encode(centre) + sigma * z,
            centre + sigma / alpha * data.scale * z,
            (log_density - sigma.log()).flatten(1).sum(1),
        )


def truncated_normal(u: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """z ~ N(0, 1) truncated to [-tau, tau], by its inverse distribution function at u in [0, 1), and log q(z)."""
    mass = torch.special.erf(tau / math.sqrt(2))
    u = u.clamp_min(2.0**-53)  # where the mass rounds to 1, u = 0 would be -inf
    z = math.sqrt(2) * torch.special.erfinv((2 * u - 1) * mass)
    z = torch.minimum(torch.maximum(z, -tau), tau)
    return z, -0.5 * z.square() - 0.5 * math.log(2 * math.pi) - mass.log()


def log_mean(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """The log of the mean of K weights, (K, B) to (B,), and the share that each has in it, (K, B)."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights)), torch.softmax(log_weights, 0)
