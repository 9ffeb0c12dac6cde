r"""Dequantisation: bounds the probability of integers under a density.

The probability P(k) of an integer vector k is the mass of the density p on the bin of k, the unit cube of all x with
k_i <= x_i < k_i + 1 in data units. With any density q on the bin, and K independent draws x_j from q,

.. math::
    \log P(k) = \log\int_{\mathrm{bin}} p(x)\,dx \;\ge\; \mathbb E\Bigl[\log\frac1K\sum_{j=1}^K w_j\Bigr],
    \qquad w_j = \frac{p(x_j)}{q(x_j \mid k)}, \quad x_j \sim q(\cdot \mid k).

K = 1 is the plain bound (Theis et al., arXiv 1511.01844). The bound grows with K and tends to log P(k) (importance
weighting: Burda et al., arXiv 1509.00519; for dequantisation Hoogeboom et al., arXiv 2001.11235). Its gap depends on q:

* **Uniform**: q = 1 in data units. It fits a model that was trained on k + u, u ~ U[0, 1)^D.
* **Truncated normal** (Zheng et al., arXiv 2305.03935): q is a density of points at time eps. With the bin's centre x_c
  and half width h in model units (h may differ between coordinates), and alpha and sigma at eps,

  .. math:: x = \alpha x_c + \sigma z, \qquad z \sim N(0, 1) \text{ truncated to } [-\tau, \tau], \qquad
            \tau = \alpha h / \sigma,

  .. math:: \log q(x \mid k) = -\sum_i \Bigl[\tfrac12 z_i^2 + \tfrac12\log 2\pi\sigma^2
            + \log\operatorname{erf}(\tau_i/\sqrt2)\Bigr].

  It is the forward SDE's kernel at the bin's centre, truncated at the bin's edge, and so it fits a model that was
  trained on the centres (``training.dequantise=none``). Since q contains the noise at eps, x is scored by p_eps itself,
  and needs no correction from eps to 0, which would have an error. For small tau q is the uniform density.

Both evaluate log q at the drawn points. For K = 1 we could use the mean of log q instead, which is minus the entropy of
q and has a closed form. We do not, because log p and log q vary together where q is close to p, and their difference
varies less.
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
    """One point in each example's bin.

    Attributes:
        x: the point that is scored, in model units, shape (B, *); a point at eps under a truncated normal.
        r: the point of the bin in data units, shape (B, *), k <= r < k + 1: decoded from x, or from x/alpha if x is a
            point at eps.
        log_q: log q(x | k) in nats, a density in model units, shape (B,).
    """

    x: Tensor
    r: Tensor
    log_q: Tensor


@dataclass(frozen=True)
class Dequantisation(ABC):
    """The distribution q of the points that stand for an integer in its bin.

    Arguments:
        samples: the number K of points; each is scored, so the cost is K times that of one.

    Attributes:
        title: the name of the dequantisation in the output.
        training: the value of ``training.dequantise`` with which the networks that q fits were trained.
    """

    samples: int = 1
    title: ClassVar[str]
    training: ClassVar[str]

    def __post_init__(self):
        if self.samples < 1:
            raise ValueError(f"`samples`={self.samples} must be at least 1; type `samples`=1")

    @property
    def bound(self) -> str:
        """The description of the bound in the output."""
        return f"{self.title} dequantisation, {self.samples} sample{'s' if self.samples > 1 else ''}: at most log P"

    def scored_by(self, likelihood: Likelihood) -> Likelihood:
        """Returns the likelihood that scores the points."""
        return likelihood

    @abstractmethod
    def draw(self, sde: SDE, data: Data, k: Tensor, u: Tensor) -> Dequantised:
        """Draws a point of every bin, from integers k (B, *) and uniform numbers u in [0, 1) of that shape, float64."""


@dataclass(frozen=True)
class UniformDequantisation(Dequantisation):
    """The uniform density on the bin.

    Arguments:
        samples: the number K of points; each is scored, so the cost is K times that of one.
    """

    title: ClassVar[str] = "uniform"
    training: ClassVar[str] = "uniform"

    def draw(self, sde: SDE, data: Data, k: Tensor, u: Tensor) -> Dequantised:
        r = data.dequantise(k, u)
        return Dequantised(data.encode(r), r, torch.full((len(k),), -data.log_det, dtype=torch.float64))


@dataclass(frozen=True)
class TruncatedNormalDequantisation(Dequantisation):
    """The SDE's kernel at eps from the bin's centre, truncated at the bin's edge.

    Arguments:
        samples: the number K of points; each is scored, so the cost is K times that of one.
    """

    title: ClassVar[str] = "truncated-normal"
    training: ClassVar[str] = "none"

    def scored_by(self, likelihood: Likelihood) -> Likelihood:
        """Returns the likelihood with ``start="plain"``, p_eps: the points contain the noise of eps already."""
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
    """Returns z ~ N(0, 1) truncated to [-tau, tau], the quantile at each u in [0, 1), and its log-density; both of u's
    shape, (B, *), for tau (*).
    """
    mass = torch.special.erf(tau / math.sqrt(2))
    u = u.clamp_min(2.0**-53)  # where the mass rounds to 1, u = 0 would give -tau, however far out
    z = math.sqrt(2) * torch.special.erfinv((2 * u - 1) * mass)
    z = torch.minimum(torch.maximum(z, -tau), tau)
    return z, -0.5 * z.square() - 0.5 * math.log(2 * math.pi) - mass.log()


def log_mean(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the log of the mean of K weights, (K, B) to (B,), and each weight's share of the sum, (K, B)."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights)), torch.softmax(log_weights, 0)
