r"""The losses of a VAE: :class:`Bound` trains all of it, :class:`CodeMatching` only a score SDE as the prior.

With a score SDE as the prior, the bound trains encoder, decoder and prior together (arXiv 2106.05931), since the
divergence from the prior is differentiable in the encoder's codes. Training only the prior, on the codes of a finished
VAE, is denoising score matching on codes.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Draws
from scoresde.training import DenoisingScoreMatching, Loss
from scoresde.training.loss import draws_or_fresh

from .vae import VAE


@dataclass(frozen=True)
class Bound(Loss):
    """An unbiased estimate of minus the bound in nats per value, from one code of each x:
    -(reconstruction - beta divergence)/D, with D the number of values of x.

    Arguments:
        beta: the weight of the divergence (beta-VAE: Higgins et al., 2017). 1 gives the bound itself, which a run
            reports whatever beta is.
    """

    of: ClassVar[type] = VAE  # the class of models that this loss trains

    beta: float = 1.0

    def __post_init__(self):
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"`beta`={self.beta} must be at least 0 and finite; type `beta`=1")

    def __call__(self, sde: SDE | None, score: VAE, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        """Returns the loss of each example x_0 (B, *), (B,), of the VAE ``score``; ``sde`` is ignored."""
        draws = draws_or_fresh(draws, x_0)
        mean, log_std = score.encode(x_0)
        z = mean + log_std.exp() * draws.normal("code", mean)
        # the decoder sees the prior's noise, which the divergence adds by itself
        blurred = z + score.prior.blur * draws.normal("blur", z) if score.prior.blur else z
        divergence = score.prior.divergence(mean, log_std, z, draws=draws)
        return (self.beta * divergence - score.reconstruction(x_0, blurred)) / x_0[0].numel()


@dataclass(frozen=True)
class CodeMatching(Loss):
    """Denoising score matching on codes; no gradient reaches the encoder, and the decoder is not evaluated.

    The codes are those for which the bound is reported: the encoder runs without its dropout, also in training.

    Arguments:
        matching: the loss of the codes, with its noise levels.
    """

    of: ClassVar[type] = VAE  # the class of models that this loss trains

    matching: DenoisingScoreMatching = field(default_factory=DenoisingScoreMatching)

    def __call__(self, sde: SDE | None, score: VAE, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        """Returns the loss of the code of each example x_0 (B, *), (B,); ``sde`` is ignored: the prior has its own.

        Raises:
            ValueError: the prior of the VAE ``score`` is N(0, I).
        """
        if not score.prior.blur:
            raise ValueError("loss=CodeMatching trains a score SDE as the prior, and this model's is N(0, I)")
        draws, training = draws_or_fresh(draws, x_0), score.encoder.training
        score.encoder.eval()
        with torch.no_grad():
            mean, log_std = score.encode(x_0)
            z = mean + log_std.exp() * draws.normal("code", mean)
        score.encoder.train(training)
        return self.matching(score.prior.sde, score.prior.score, z, draws)
