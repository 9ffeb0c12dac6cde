r"""Denoising score matching: a network that predicts the noise has learnt the score.

.. math::
    L(\theta) = \mathbb E_t\,\lambda(t)\,\mathbb E_{x_0, z}\,\|s_\theta(\alpha x_0 + \sigma z, t) + z/\sigma\|^2

(Vincent 2011, doi 10.1162/NECO_a_00142; arXiv 2011.13456, eq. 7). The minimiser is the score of the perturbed
density p_t, whatever the weight. Two weights are the field's:

* ``sigma2``: lambda = sigma^2 with t uniform on [eps, T], the published one: each level's error has unit size.
* ``likelihood``: lambda = g^2, for which L bounds the Kullback-Leibler divergence of the model from the data, and
  with it the negative log-likelihood (arXiv 2101.09258, theorem 1). Since g^2/sigma^2 = -2 d(lambda)/dt with lambda
  the half log-SNR, drawing t *uniformly in log-SNR* turns the weight into sigma^2 again,

  .. math:: \int_{eps}^T g^2\,\|s_\theta + z/\sigma\|^2\,dt = 2\int \|\sigma s_\theta + z\|^2\,d\lambda,

  with low variance under every SDE and no table of an importance density (section 5.1 there).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sde_lib import SDE, ScoreFn, per_sample


class Loss(ABC):
    """(sde, score, x_0) -> one loss a sample."""

    @abstractmethod
    def __call__(self, sde: SDE, score: ScoreFn, x_0: Tensor) -> Tensor:
        """The loss of each sample of x_0 (B, *), shape (B,); it draws from torch's global generator."""


@dataclass(frozen=True)
class DenoisingScoreMatching(Loss):
    """The squared error of sigma times the score, the mean over the D values of a sample.

    With ``likelihood`` the integral above is D times twice the range of lambda times this loss, which is left at
    unit size so that one clipping threshold and one learning rate fit every SDE.

    Arguments:
        weighting: ``sigma2`` or ``likelihood``; see the module's text.
        stratified: whether the times of a batch are spread evenly, t_i = (i + u)/B with one shared u, in random
            order: the same expectation with less variance (arXiv 2107.00630, appendix I.1).
    """

    weighting: Literal["sigma2", "likelihood"] = "likelihood"
    stratified: bool = True

    def __post_init__(self):
        if self.weighting not in ("sigma2", "likelihood"):
            raise ValueError(f"training.loss.weighting={self.weighting} must be sigma2 or likelihood")

    def times(self, sde: SDE, x_0: Tensor) -> Tensor:
        """Times (B,) for the samples of x_0 (B, *)."""
        count = len(x_0)
        unit = torch.rand(1 if self.stratified else count, dtype=x_0.dtype, device=x_0.device)
        if self.stratified:
            unit = (torch.arange(count, dtype=x_0.dtype, device=x_0.device) + unit) / count
        if self.weighting == "sigma2":
            return sde.eps + (sde.T - sde.eps) * unit
        start, stop = sde.half_log_snr(torch.tensor([sde.T, sde.eps], dtype=x_0.dtype, device=x_0.device))
        return sde.time(start + (stop - start) * unit).clamp(sde.eps, sde.T)

    def __call__(self, sde: SDE, score: ScoreFn, x_0: Tensor) -> Tensor:
        t, z = self.times(sde, x_0), torch.randn_like(x_0)
        residual = per_sample(sde.sigma(t), x_0) * score(sde.perturb(x_0, t, z), t) + z
        return residual.square().flatten(1).mean(1)
