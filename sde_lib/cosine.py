r"""The variance-preserving SDE on the quarter circle, whose time is the angle between data and noise.

.. math::
    dx = -\tan(t)\,x\,dt + \sqrt{2\tan t}\,dw, \qquad \alpha = \cos t, \quad \sigma = \sin t,
    \quad \frac\sigma\alpha = \tan t

This is the cosine schedule of Nichol and Dhariwal (arXiv 2102.09672, eq. 17) in continuous time; eps plays the role of
its offset. Along the probability flow, dx/dt is the mean, given x_t, of the velocity alpha z - sigma x_0 of Salimans
and Ho (arXiv 2202.00512, appendix D). For data of unit variance the velocity has unit variance at every time. Therefore
the ODE sampler and the likelihoods by default map the flow of every other SDE to this one, and solve it there
(:mod:`scoresde.sde_lib.frame`).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import SDE, check_interval


@dataclass(frozen=True)
class Cosine(SDE):
    """alpha = cos t, sigma = sin t (arXiv 2102.09672, eq. 17).

    Arguments:
        T: the last angle, below pi/2; at T = 1.55 the noise-to-signal ratio tan(T) is 48, about VE's.
        eps: the first angle; at eps = 0.0105 sigma is that of VP at VP's default eps.
    """

    T: float = 1.55
    eps: float = 0.0105

    def __post_init__(self):
        check_interval(self.T, self.eps)
        if not self.T < math.pi / 2:
            raise ValueError(f"`T`={self.T} must lie below pi/2, where the data are gone; type for example `T`=1.55")

    def f(self, t: Tensor) -> Tensor:
        return -torch.tan(t)

    def g(self, t: Tensor) -> Tensor:
        return torch.sqrt(2 * torch.tan(t))

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(t)

    def half_log_snr(self, t: Tensor) -> Tensor:
        return -torch.log(torch.tan(t))

    def time(self, half_log_snr: Tensor) -> Tensor:
        return torch.atan(torch.exp(-half_log_snr))
