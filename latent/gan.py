r"""The generative adversarial network, with the loss that does not saturate and a gradient penalty on real data.

.. math::
    L_D &= \mathbb E\,\zeta(-D(x)) + \mathbb E\,\zeta(D(G(z))) + \tfrac\gamma2\,\mathbb E\,\|\nabla D(x)\|^2 \\
    L_G &= \mathbb E\,\zeta(-D(G(z))), \qquad \zeta(a) = \log(1 + e^a)

(Goodfellow et al., arXiv 1406.2661; the penalty, under which the game converges near its equilibrium, Mescheder et al.,
arXiv 1801.04406). Both players are updated at once: we minimise the sum L_D + L_G, where L_D has no gradient in the
generator and L_G none in the discriminator. So a GAN is one loss of one network, and is trained, stored, resumed and
averaged like any other. At the equilibrium D = 0 and the sum, without a penalty then, is 3 log 2.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from scoresde.sde_lib import SDE, Draws
from scoresde.training import Loss
from scoresde.training.loss import draws_or_fresh

from .model import LatentModel, check_latent
from .networks import Networks, without_gradients
from .prior import StandardNormal


class GAN(LatentModel):
    """A generator and a discriminator.

    Arguments:
        shape: of one example.
        latent: the number of latents; codes are N(0, I).
        networks: makes both networks.
    """

    def __init__(self, shape: list[int] | tuple[int, ...], latent: int, networks: Networks):
        super().__init__()
        check_latent(latent)
        self.shape, self.latent = tuple(shape), latent
        self.generator = networks.decoder(latent, 1, self.shape)
        self.discriminator = networks.encoder(self.shape, 1)
        self.prior = StandardNormal()

    def generate(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """Returns G(z), (B, *shape), in model units; ``u`` is ignored, since the generator is deterministic."""
        return self.generator(z)[:, 0]


@dataclass(frozen=True)
class Adversarial(Loss):
    """The loss L_D + L_G.

    Arguments:
        penalty: gamma, twice the weight of the squared gradient on real data.
    """

    of: ClassVar[type] = GAN  # the class of models that this loss trains

    penalty: float = 0.1

    def __post_init__(self):
        if not 0 <= self.penalty < math.inf:
            raise ValueError(f"`penalty`={self.penalty} must be at least 0 and finite; type `penalty`=0.1")

    def __call__(self, sde: SDE | None, score: GAN, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        """Returns the loss of each example x_0 (B, *), (B,), of the GAN ``score``; ``sde`` is ignored."""
        z = draws_or_fresh(draws, x_0).normal("code", x_0, (score.latent,))
        fake = score.generate(z)
        train = torch.is_grad_enabled()
        with torch.enable_grad():  # the penalty is a gradient, also when the loss is only evaluated
            real = x_0.detach().requires_grad_()
            D_real = score.discriminator(real)[:, 0]
            (slope,) = torch.autograd.grad(D_real.sum(), real, create_graph=train)
        D_fake = score.discriminator(fake.detach())[:, 0]
        penalty = 0.5 * self.penalty * slope.square().flatten(1).sum(1)
        D_generator = without_gradients(score.discriminator, fake)[:, 0]
        return functional.softplus(-D_real) + functional.softplus(D_fake) + penalty + functional.softplus(-D_generator)
