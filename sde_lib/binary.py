r"""The binomial chain, which replaces bits by coin tosses step by step.

For bits x in {-1, 1} every step keeps a bit with probability 1 - beta_n and otherwise tosses a fair coin for it,

.. math::
    \mathbb E[x_n \mid x_{n-1}] = (1 - \beta_n)\,x_{n-1}, \qquad
    \mathbb E[x_n \mid x_0] = k_n x_0, \quad k_n = \prod_{m\le n}(1 - \beta_m)

(arXiv 1503.03585, appendix on binomial diffusion, written there for bits 0 and 1), independently for each bit. At T
each bit is a fair coin but for a bias k_T. By Bayes' rule the posterior is

.. math::
    q(x_m \mid x_n, x_0) = \frac{(1 + k_m x_0 x_m)\,(1 + \kappa\,x_n x_m)}{2\,(1 + k_n x_0 x_n)}, \qquad
    m < n, \quad \kappa = k_n/k_m ,

and the reverse step is its mean over the network's distribution of x_0 given x_n, a probability for each bit,

.. math:: p(x_m \mid x_n) = \sum_{x_0 = \pm1} p(x_0 \mid x_n)\,q(x_m \mid x_n, x_0) .

The network returns log-odds. As in a Gaussian chain, alpha = k_n and sigma^2 = 1 - k_n^2 are the factor of the mean and
the variance of x_n given x_0, so a network that takes log(sigma/alpha) as its noise level works here too.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .base import check_interval, per_sample
from .betas import Betas, InverseBetas, betas_of


@dataclass(frozen=True)
class BinaryChain:
    """A chain of T steps of bits in {-1, 1}.

    It is no SDE. Its time counts steps; alpha(n) and sigma(n) are the factor of the mean and the standard deviation of
    x_n given x_0, as those of an SDE are.

    Arguments:
        schedule: the betas; by default those with k_n = 1 - n/T for n < T (arXiv 1503.03585).
        T: the number of steps.
        eps: the first time at which a network is trained; by default the first step.
    """

    schedule: Betas = field(default_factory=InverseBetas)
    T: float = 1000.0
    eps: float = 1.0

    def __post_init__(self):
        self.betas  # noqa: B018 (refuses steps and schedules that do not go together)
        check_interval(self.T, self.eps)

    @cached_property
    def betas(self) -> Tensor:
        """beta_1 ... beta_T, shape (T,), float64."""
        # the network's noise level, log(sigma/alpha), must be finite
        return betas_of(self.schedule, self.T, most=1 - 2**-20)

    @cached_property
    def kept(self) -> Tensor:
        """k_0 ... k_T, shape (T + 1,), float64."""
        return torch.cat([torch.ones(1, dtype=torch.float64), torch.log1p(-self.betas).cumsum(0).exp()])

    def keep(self, n: Tensor) -> Tensor:
        """Returns k_n at whole times n, in the shape of n, float64; on the CPU for mps, which has no float64."""
        table = self.kept if n.device.type == "mps" else self.kept.to(n.device)
        return table[n.round().long().clamp(0, int(self.T)).to(table.device)]

    def alpha(self, t: Tensor) -> Tensor:
        """k_t, the factor of the mean of x_t given x_0."""
        return self.keep(t).to(t)

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - k_t^2), the standard deviation of x_t given x_0."""
        k = self.keep(t)
        return ((1 - k) * (1 + k)).sqrt().to(t)

    @property
    def prior_std(self) -> float:
        """The standard deviation of a fair coin."""
        return 1.0

    def perturb(self, x_0: Tensor, n: Tensor, z: Tensor) -> Tensor:
        """Returns x_n given x_0 (B, *) at n (B,); z (B, *), standard normal, decides the tosses."""
        stays = 0.5 * (1 + per_sample(self.keep(n), x_0))
        return torch.where(torch.special.ndtr(z.to(stays)) < stays, x_0, -x_0)

    def log_posterior(self, m: Tensor, n: Tensor, x_0: Tensor, x_n: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log q(x_m = 1 | x_n, x_0) and log q(x_m = -1 | x_n, x_0), (B, *) in float64; m < n are (B,)."""
        k_m, k_n = (per_sample(self.keep(step), x_n) for step in (m, n))

        def log_factor(k: Tensor, agree: Tensor) -> Tensor:
            """Returns log(1 + k) where two bits agree, else log(1 - k): two logarithms a row, not one a bit."""
            return torch.where(agree, torch.log1p(k), torch.log1p(-k))

        norm, kappa = math.log(2) + log_factor(k_n, x_0 == x_n), k_n / k_m
        up, down = (log_factor(k_m, x_0 == bit) + log_factor(kappa, x_n == bit) - norm for bit in (1, -1))
        return up, down

    def log_reverse(self, m: Tensor, n: Tensor, x_n: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log p(x_m = 1 | x_n) and log p(x_m = -1 | x_n), (B, *) in float64, from the log-odds of x_0 = 1."""
        ones = torch.ones_like(x_n)
        if_up, if_down = self.log_posterior(m, n, ones, x_n), self.log_posterior(m, n, -ones, x_n)
        logits = logits.to(if_up[0])
        log_x_0 = logsigmoid(logits), logsigmoid(-logits)
        up, down = (torch.logaddexp(log_x_0[0] + a, log_x_0[1] + b) for a, b in zip(if_up, if_down, strict=True))
        return up, down

    def reverse(self, m: Tensor, n: Tensor, x_n: Tensor, logits: Tensor) -> Tensor:
        """Returns p(x_m = 1 | x_n), (B, *) in float64, from the log-odds of x_0 = 1; it takes no logarithms."""
        k_m, k_n = (per_sample(self.keep(step), x_n) for step in (m, n))
        p_up, drift = torch.sigmoid(logits.to(k_m)), k_n / k_m * x_n
        # the posterior's mean of x_m given x_n and x_0 = 1, and given x_0 = -1
        if_up, if_down = ((bit * k_m + drift) / (1 + bit * k_n * x_n) for bit in (1, -1))
        return 0.5 + 0.5 * (p_up * if_up + (1 - p_up) * if_down)

    def kl(self, m: Tensor, n: Tensor, x_0: Tensor, x_n: Tensor, logits: Tensor) -> Tensor:
        """Returns KL(q(x_m | x_n, x_0) || p(x_m | x_n)) in nats, (B,); for m = 0 it is -log p(x_0 | x_n)."""
        q, p = self.log_posterior(m, n, x_0, x_n), self.log_reverse(m, n, x_n, logits)
        parts = (torch.where(a.isfinite(), a.exp() * (a - b), 0.0) for a, b in zip(q, p, strict=True))
        return sum(parts).flatten(1).sum(1)

    def prior_kl(self, x_0: Tensor) -> Tensor:
        """Returns KL(q(x_T | x_0) || fair coins) in nats, (B,), for x_0 (B, *)."""
        k = self.kept[-1]
        per_bit = 0.5 * ((1 + k) * torch.log1p(k) + (1 - k) * torch.log1p(-k))
        return torch.full((len(x_0),), float(per_bit) * x_0[0].numel(), dtype=torch.float64, device=x_0.device)


def bits_of(x: Tensor) -> Tensor:
    """Returns the signs of x, -1 and 1; ValueError unless all values have one magnitude, above 0."""
    size = x.abs()
    if not bool((size == size.max()).all() & (size > 0).all()):
        raise ValueError(
            "sde=binary takes bits, and these data are not two numbers -a and a: choose data of two levels, such as "
            "data=heartbeat, or data=arrays data.levels=2, and type training.dequantise=none, which keeps them at two"
        )
    return x.sign()
