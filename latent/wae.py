r"""The Wasserstein autoencoder with an MMD penalty (Tolstikhin et al., arXiv 1711.01558).

.. math:: \mathbb E\,\|x - g(e(x))\|^2 + \lambda\,\mathrm{MMD}^2_k\bigl(e(x),\ z\bigr), \qquad z \sim N(0, I)

with the encoder e, a deterministic function, the decoder g and the weight lambda of the penalty. The penalty compares
the distribution of all codes with the prior; a VAE compares the posterior of each example with it. k is a sum of
inverse multiquadratics (:func:`scoresde.metrics.mmd`).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scoresde.metrics import mmd
from scoresde.sde_lib import SDE, Draws
from scoresde.training import Loss
from scoresde.training.loss import draws_or_fresh

from .model import LatentModel, check_latent
from .networks import Networks
from .prior import StandardNormal


class WAE(LatentModel):
    """A deterministic encoder and decoder.

    Arguments:
        shape: of one example.
        latent: the dimension of a code; the prior is N(0, I).
        networks: makes the encoder and the decoder.
    """

    def __init__(self, shape: list[int] | tuple[int, ...], latent: int, networks: Networks):
        super().__init__()
        check_latent(latent)
        self.shape, self.latent = tuple(shape), latent
        self.encoder = networks.encoder(self.shape, latent)
        self.decoder = networks.decoder(latent, 1, self.shape)  # one parameter per value: the mean
        self.prior = StandardNormal()

    def generate(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """Returns the decoded codes; ``u`` is ignored, since the decoder is deterministic."""
        return self.decoder(z)[:, 0]


@dataclass(frozen=True)
class WassersteinLoss(Loss):
    """The squared error of each example, plus the penalty of the batch.

    Arguments:
        penalty: lambda; the paper uses 10 for MNIST.
    """

    of: ClassVar[type] = WAE  # the class of models that this loss trains
    of_batch: ClassVar[bool] = True  # the penalty compares all codes of a batch

    penalty: float = 10.0

    def __post_init__(self):
        if not 0 <= self.penalty < math.inf:
            raise ValueError(f"`penalty`={self.penalty} must be at least 0 and finite; type `penalty`=10")

    def __call__(self, sde: SDE | None, score: WAE, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        """Returns the losses, shape (B,), of the autoencoder ``score``; ``sde`` is ignored.

        They are the squared error of each example in model units, summed over its values, plus lambda MMD^2, which is
        the same for the whole batch. MMD^2 is the unbiased estimate, and may be negative.
        """
        code = score.encoder(x_0)
        error = (score.generate(code) - x_0).square().flatten(1).sum(1)
        return error + self.penalty * mmd(code, draws_or_fresh(draws, x_0).normal("code", code))
