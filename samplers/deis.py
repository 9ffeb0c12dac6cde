r"""Exponential Adams-Bashforth methods (DEIS) of any order, on predicted noise.

.. math::
    x_s = \frac{\alpha_s}{\alpha_t} x_t
        - \sigma_s h \sum_{j<k} e_j \int_0^1 e^{h (1 - \tau)}\,\ell_j(\tau)\,d\tau, \qquad
    \tau = (\lambda - \lambda_t)/h, \quad h = \lambda_s - \lambda_t,

with the half log-SNR :math:`\lambda = \log(\alpha/\sigma)`, the predicted noise e_j = -sigma score at the last k times
and the Lagrange polynomials l_j in lambda through these times. This is DEIS (arXiv 2204.13902), except that the
polynomials there are in t. With lambda the result does not depend on how the SDE parameterises time; under VP it is a
little better, under VE the two are the same. Order 1 is DDIM.

We extrapolate the noise and not the data. In data prediction the integrand's weight e^{-h (1 - tau)} is largest at the
end of the step, where extrapolation is worst; in noise prediction e^{h (1 - tau)} is largest at its start. (Measured on
the mixture oracle with 8 to 24 steps: the median error is about half of data prediction's at order 2 and a fifth at
order 3. In the worst tenth, the samples on a ridge between two modes, the two are alike.) Errors are smaller still if
the velocity is extrapolated (:class:`scoresde.samplers.AdamsBashforth`). Strong guidance makes high orders unstable;
for it arXiv 2211.01095 uses data prediction instead (:class:`scoresde.samplers.Exponential`).

The integrals are computed by 32-point Gauss-Legendre quadrature. It stays accurate for short steps, where closed forms
with powers of 1/h lose their digits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE

from .multistep import NODES, WEIGHTS, ExtrapolatingMultistep, lagrange


@dataclass(frozen=True)
class DEIS(ExtrapolatingMultistep):
    """The exponential Adams-Bashforth method.

    Arguments:
        order: the number of predictions that the polynomial goes through. Orders above 4 help only with many steps.
    """

    def coefficients(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        """Returns (A, C, c, q_s, N) of :mod:`scoresde.samplers.multistep`.

        A = 0 and C = -sigma_t give the predicted noise, c = alpha_s/alpha_t, q_s = sigma_s, and no noise is added.
        """
        zero = torch.zeros_like(t)
        return zero, -sde.sigma(t), sde.alpha(s) / sde.alpha(t), sde.sigma(s), zero

    def exponent(self, h: Tensor) -> Tensor:
        """Returns H = -h: x/sigma grows by the factor e^h over a step."""
        return -h

    def integrate(self, tau: Tensor, h: Tensor) -> Tensor:
        """Returns the weights -h int_0^1 e^{h (1 - u)} l_j(u) du, for the polynomials l_j of the nodes tau."""
        h = h[:, None]
        return (lagrange(tau) * (-h * torch.exp(h * (1 - NODES)) * WEIGHTS)[:, None]).sum(-1)
