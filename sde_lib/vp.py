r"""The variance-preserving SDE, which scales the data down as noise is added and so preserves unit variance.

.. math::
    dx = -\tfrac12\beta(t)\,x\,dt + \sqrt{\beta(t)}\,dw, \qquad
    \beta(t) = \beta_{min} + t\,(\beta_{max} - \beta_{min})/T

(arXiv 2011.13456, eq. 11, with T = 1). With :math:`B(t) = \int_0^t\beta`, :math:`\alpha = e^{-B/2}` and
:math:`\sigma^2 = 1 - e^{-B}`.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .base import SDE, check_interval


@dataclass(frozen=True)
class LinearBeta:
    """beta(t) = beta_min + t (beta_max - beta_min) / T, its integral B(t), and the inverse of B."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    T: float = 1.0

    def check(self, eps: float) -> None:
        """Raises a ValueError for rates that are not positive and finite, that fall in t, or that leave nothing of the
        data at eps.
        """
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise ValueError(
                f"`beta_min`={self.beta_min} must be positive and at most `beta_max`={self.beta_max}; "
                f"published: `beta_min`=0.1 `beta_max`=20"
            )
        if not self.integral(eps) <= 10:  # alpha(eps) = exp(-B(eps)/2)
            raise ValueError(
                f"`beta_max`={self.beta_max} leaves nothing of the data at `eps`={eps}; "
                f"published: `beta_min`=0.1 `beta_max`=20"
            )

    def beta(self, t: Tensor) -> Tensor:
        return self.beta_min + t * ((self.beta_max - self.beta_min) / self.T)

    def integral(self, t: Tensor) -> Tensor:
        return t * (self.beta_min + t * ((self.beta_max - self.beta_min) / (2 * self.T)))

    def inverse(self, B: Tensor) -> Tensor:
        """Returns the t with the integral B(t) = B."""
        slope = (self.beta_max - self.beta_min) / self.T
        return 2 * B / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * B))


@dataclass(frozen=True)
class VP(SDE):
    """The limit of the DDPM chain (arXiv 2011.13456, eq. 11).

    Arguments:
        beta_min, beta_max: the rate beta at t = 0 and at t = T.
        T: the time at which data have become noise.
        eps: the published end of sampling, where sigma is 0.0105 at the default betas.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    T: float = 1.0
    eps: float = 1e-3

    def __post_init__(self):
        check_interval(self.T, self.eps)
        self.schedule.check(self.eps)

    @cached_property
    def schedule(self) -> LinearBeta:
        return LinearBeta(self.beta_min, self.beta_max, self.T)

    def f(self, t: Tensor) -> Tensor:
        return -0.5 * self.schedule.beta(t)

    def g(self, t: Tensor) -> Tensor:
        return self.schedule.beta(t).sqrt()

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.schedule.integral(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.expm1(-self.schedule.integral(t)).neg().sqrt()

    def half_log_snr(self, t: Tensor) -> Tensor:
        B = self.schedule.integral(t)
        return -0.5 * (B + torch.expm1(-B).neg().log())  # log(expm1(B)) would overflow

    def time(self, half_log_snr: Tensor) -> Tensor:
        return self.schedule.inverse(torch.nn.functional.softplus(-2 * half_log_snr))
