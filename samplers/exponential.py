r"""Exponential multistep methods on the denoised data: DDIM, DPM-Solver++ and their forms for the reverse SDE.

lambda is the half log-SNR. With the denoised :math:`D = (x + \sigma^2 s_\theta)/\alpha` the reverse process with
stochasticity eta (``SDE.reverse(score, eta)``) is linear in x except for D, and its exact solution from t to s is

.. math::
    x_s = \frac{\sigma_s}{\sigma_t} e^{-\eta^2 h} x_t
        + \alpha_s H \int_0^1 e^{-H (1 - \tau)} D\,d\tau
        + \sigma_s \sqrt{1 - e^{-2 \eta^2 h}}\; z,

    h = \lambda_s - \lambda_t, \qquad H = (1 + \eta^2)\,h, \qquad \tau = (\lambda - \lambda_t)/h .

D is replaced by the polynomial in tau through its last values, whose integral has a closed form:

.. math:: M_k = H\int_0^1 e^{-H(1-\tau)} \tau^k d\tau, \qquad M_0 = 1 - e^{-H}, \qquad M_k = 1 - \tfrac{k}{H} M_{k-1}.

===============  =====  =======================================================================================
``order``        eta    published as
===============  =====  =======================================================================================
1                0      DDIM (arXiv 2010.02502, eq. 12), DPM-Solver++ 1
1                1      ancestral sampling (DDPM): :class:`scoresde.samplers.Ancestral`
1                any    the exponential Euler-Maruyama method
2                0      DPM-Solver++ 2M (arXiv 2211.01095, algorithm 2)
2                1      SDE-DPM-Solver++ 2M (arXiv 2211.01095)
3                0      DPM-Solver++ 3M, with the second difference's factor 2 that published code lacks (without it
                        the method converges at order 2)
===============  =====  =======================================================================================

A polynomial through two values is weighted as published, with M_0/2 in place of M_1: the order is the same, and a long
step extrapolates less (measured on the mixture oracle: the median error is a quarter smaller).

``order`` is the order of convergence at eta = 0. With eta > 0 the means keep it, but the noise that enters during a
step limits the weak order to 2. The eta of the DDIM paper has the same two ends, 0 and 1, and other processes between
them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE

from .multistep import Multistep


@dataclass(frozen=True)
class Exponential(Multistep):
    """DDIM, ancestral sampling, DPM-Solver++ and SDE-DPM-Solver++ in one; see the module's table.

    Arguments:
        order: 1, 2 or 3: the number of denoised values that the polynomial goes through.
        eta: the stochasticity, at least 0: 0 for the probability flow, 1 for the reverse SDE.
    """

    order: int = 2
    eta: float = 0.0

    def __post_init__(self):
        if self.order not in (1, 2, 3):
            raise ValueError(f"`order`={self.order} must be 1, 2 or 3; for a higher one type sampler/predictor=deis")
        if not (math.isfinite(self.eta) and self.eta >= 0):
            raise ValueError(
                f"`eta`={self.eta} must be at least 0 and finite; type `eta`=0 for the "
                f"probability flow, `eta`=1 for the reverse SDE"
            )

    @property
    def normals(self) -> int:
        return 1 if self.eta else 0

    @property
    def depth(self) -> int:
        return self.order

    def coefficients(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        decay = self.eta**2 * (sde.half_log_snr(s) - sde.half_log_snr(t))  # eta^2 h
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        c = sde.sigma(s) / sigma * torch.exp(-decay)
        N = sde.sigma(s) * torch.expm1(-2 * decay).neg().sqrt()
        return 1 / alpha, sigma.square() / alpha, c, sde.alpha(s), N

    def exponent(self, h: Tensor) -> Tensor:
        return (1 + self.eta**2) * h

    def integrate(self, tau: Tensor, h: Tensor) -> Tensor:
        return exponential_weights(tau, self.exponent(h))


def moments(H: Tensor, count: int) -> Tensor:
    """Returns M_k = H int_0^1 e^{-H (1 - tau)} tau^k dtau for k < count, (n,) to (n, count), accurate for every H."""
    upwards = [torch.expm1(-H).neg()]
    for k in range(1, count):
        upwards.append(1 - k / H * upwards[-1])
    downwards, M = [], torch.zeros_like(H)  # M_20 = 0: its error is divided by 20!/k! on the way
    for k in range(20, 0, -1):
        M = (1 - M) * H / k
        downwards.append(M)
    # each upward step multiplies the rounding error by k/H, each downward step by H/k
    return torch.where(H[:, None].abs() < 1, torch.stack(downwards[: -count - 1 : -1], 1), torch.stack(upwards, 1))


def exponential_weights(tau: Tensor, H: Tensor) -> Tensor:
    """Returns the weights w of the values at nodes tau: sum_j w_j tau_j^k = M_k, k < m, with M_0/2 for M_1 if m = 2.

    Shapes: tau (n, m) and H (n,) to (n, m), for n steps with m nodes each.
    """
    k = torch.arange(tau.shape[1])
    M = moments(H, len(k))
    if len(k) == 2:
        M[:, 1] = M[:, 0] / 2  # as published; see the module's text
    return torch.linalg.solve(tau[:, None] ** k[:, None], M)
