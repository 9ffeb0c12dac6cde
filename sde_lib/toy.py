r"""The toy SDE sigma(t) dw with sigma(t) = s^t: the shortest SDE, and the file to copy for a new one.

.. math:: dx = s^t\,dw, \qquad \sigma(t)^2 = \int_0^t s^{2u}\,du = \frac{s^{2t} - 1}{2\log s}

The usual name of this SDE, sigma(t) dw, calls the diffusion sigma; in this package the diffusion is ``g`` and ``sigma``
is the kernel's standard deviation. Unlike VE it starts from the clean data: sigma(0) = 0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import LARGEST, SDE, check_interval


@dataclass(frozen=True)
class Toy(SDE):
    """dx = s^t dw.

    Arguments:
        s: the base, above 1 and at most 1e6; sigma(1) = 9.8 at s = 25.
        T: the time at which data have become noise.
        eps: where the score is first trusted; at s = 25 sigma(1e-4) is 0.01, VE's default sigma_min.
    """

    s: float = 25.0
    T: float = 1.0
    eps: float = 1e-4

    def __post_init__(self):
        check_interval(self.T, self.eps)
        if not 1 < self.s <= LARGEST:
            raise ValueError(f"`s`={self.s} must exceed 1 and be at most {LARGEST:g}; the usual choice is `s`=25")

    def f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def g(self, t: Tensor) -> Tensor:
        return torch.exp(math.log(self.s) * t)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        rate = 2 * math.log(self.s)
        return (torch.expm1(rate * t) / rate).sqrt()

    def time(self, half_log_snr: Tensor) -> Tensor:
        rate = 2 * math.log(self.s)
        return torch.log1p(rate * torch.exp(-2 * half_log_snr)) / rate
