r"""UniPC: an exponential predictor and an exponential corrector on one evaluation a step (arXiv 2302.04867).

The predictor of order p is :class:`scoresde.samplers.Exponential`'s at eta = 0: the integral of the polynomial through
the last p denoised values. Once D is evaluated at the predicted x_s, the corrector of order p + 1 repeats the step that
led there with this value as one more node, tau = 1. The next step starts from the corrected x, and D is not evaluated
there, so that N steps cost N evaluations; the last prediction is not corrected.

Both are linear, and the correction is a combination of denoised values,

.. math::
    x^{corr}_t = x_t + \alpha_t \sum_j (w^{corr}_j - w^{pred}_j)\,D_j, \qquad
    x_s = \frac{\sigma_s}{\sigma_t} x^{corr}_t + \alpha_s \sum_j w^{next}_j\,D_j,

so that the two together are one linear multistep formula in the denoised values D_j, with the weights

.. math:: w_j = w^{next}_j + e^{-h}\,(w^{corr}_j - w^{pred}_j) \quad \text{in units of } \alpha_s .

This is data prediction with the paper's B_2(h) = e^h - 1, taken at minus the step h of the half log-SNR. B_2 drops out
of the published linear system wherever the system is solved in full. It matters only with two nodes, where the
published weight is one half (:func:`scoresde.samplers.exponential.exponential_weights`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from scoresde.sde_lib import SDE

from .exponential import exponential_weights
from .multistep import Multistep


@dataclass(frozen=True)
class UniPC(Multistep):
    """A predictor of order p and a corrector of order p + 1 at one evaluation a step.

    Arguments:
        order: p, 2 or 3. On the mixture oracle 3 is better from about 20 steps on.
    """

    order: int = 3

    def __post_init__(self):
        if self.order not in (2, 3):
            raise ValueError(f"`order`={self.order} must be 2 or 3; type `order`=3")

    @property
    def depth(self) -> int:
        return self.order + 1

    def coefficients(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        return 1 / alpha, sigma.square() / alpha, sde.sigma(s) / sigma, sde.alpha(s), torch.zeros_like(t)

    def exponent(self, h: Tensor) -> Tensor:
        return h

    def integrate(self, tau: Tensor, h: Tensor) -> Tensor:
        return exponential_weights(tau, h)

    def weights(self, clock: Tensor, m: int) -> Tensor:
        predicted = self.predictor(clock, m)
        if m == 1:
            return predicted  # the first step: there is no prediction to correct
        corrected = self.of_step(clock, m, back=1)
        h = clock.diff()[m - 1 :, None]
        return predicted + corrected - torch.exp(-h) * pad(self.predictor(clock[:-1], m - 1), (1, 0))

    def predictor(self, clock: Tensor, m: int) -> Tensor:
        """Returns the predictor's weights for m values, of which it uses the newest ``order``; shape (n - m + 1, m)."""
        used = min(m, self.order)
        return pad(self.of_step(clock, used, back=0)[m - used :], (0, m - used))
