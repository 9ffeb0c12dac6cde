r"""Adams-Bashforth methods on the velocity, in the angle theta = arctan(sigma/alpha).

In :math:`y = x/S`, :math:`S = \sqrt{\alpha^2 + \sigma^2}`, the probability flow of every SDE is
(:mod:`scoresde.sde_lib.frame`)

.. math:: \frac{dy}{d\theta} = v = \cos\theta\,\varepsilon - \sin\theta\,D = -\tan\theta\,(y + S\,s_\theta(x, t)),

with the denoised D = (x + sigma^2 s_theta)/alpha and the predicted noise epsilon = -sigma s_theta; v is the velocity of
arXiv 2202.00512 (appendix D). The classical method of order k extrapolates v by the polynomial in theta through its
last k values v_j, with the Lagrange polynomials l_j and tau = (theta - theta_t)/h,

.. math:: y_s = y_t + h \sum_{j<k} v_j \int_0^1 \ell_j(\tau)\,d\tau, \qquad h = \theta_s - \theta_t .

The exponential methods solve the part that is linear in x exactly and extrapolate D or the noise, which is exact for
data at a single point. Extrapolating v is exact for data N(0, I), where v = 0. While the noise is not small, data of
unit variance are nearer to the second case, and a solver with few steps makes most of its error there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE

from .multistep import WEIGHTS, ExtrapolatingMultistep, lagrange


@dataclass(frozen=True)
class AdamsBashforth(ExtrapolatingMultistep):
    """The classical Adams-Bashforth method for dy/dtheta.

    Arguments:
        order: the number of velocities that the polynomial goes through. Orders above 4 help only with many steps.
    """

    def clock(self, sde: SDE, grid: Tensor) -> Tensor:
        return torch.atan2(sde.sigma(grid), sde.alpha(grid))

    def coefficients(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        S_t, S_s = (torch.hypot(sde.alpha(time), sde.sigma(time)) for time in (t, s))
        tangent = sde.sigma(t) / sde.alpha(t)
        return -tangent / S_t, -tangent * S_t, S_s / S_t, S_s, torch.zeros_like(t)

    def exponent(self, h: Tensor) -> Tensor:
        return torch.zeros_like(h)

    def integrate(self, tau: Tensor, h: Tensor) -> Tensor:
        return h[:, None] * (lagrange(tau) * WEIGHTS).sum(-1)
