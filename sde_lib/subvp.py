r"""The sub-VP SDE: VP's drift with less noise; at every t its variance is the square of VP's.

.. math:: dx = -\tfrac12\beta(t)\,x\,dt + \sqrt{\beta(t)\,(1 - e^{-2B(t)})}\,dw, \qquad B(t) = \int_0^t\beta

(arXiv 2011.13456, eq. 12). :math:`\alpha = e^{-B/2}` and :math:`\sigma = 1 - e^{-B}`, without a square root.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .base import SDE, check_interval
from .vp import LinearBeta


@dataclass(frozen=True)
class SubVP(SDE):
    """The sub-variance-preserving SDE (arXiv 2011.13456, eq. 12), which has the best likelihoods in that paper.

    Arguments:
        beta_min, beta_max: the rate beta at t = 0 and at t = T.
        T: the time at which data have become noise.
        eps: the published end of sampling, where sigma is 1.1e-4 at the default betas.
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
        return (self.schedule.beta(t) * torch.expm1(-2 * self.schedule.integral(t)).neg()).sqrt()

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.schedule.integral(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.expm1(-self.schedule.integral(t)).neg()

    def half_log_snr(self, t: Tensor) -> Tensor:
        B = self.schedule.integral(t)
        return -0.5 * B - torch.expm1(-B).neg().log()

    def time(self, half_log_snr: Tensor) -> Tensor:
        # exp(lambda) = e^{-B/2} / (1 - e^{-B}) = 1 / (2 sinh(B/2))
        return self.schedule.inverse(2 * torch.asinh(0.5 * torch.exp(-half_log_snr)))
