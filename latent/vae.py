r"""The variational autoencoder: an encoder q(z|x), a decoder p(x|z), a prior p(z).

.. math::
    \log p(x) \ge \underbrace{\mathbb E_{q(z|x)}\log p(x\mid z)}_{\text{reconstruction}}
              - \underbrace{\mathrm{KL}\bigl(q(z\mid x)\,\|\,p(z)\bigr)}_{\text{fit to the prior}}

(Kingma and Welling, arXiv 1312.6114). With w_j = p(x|z_j) p(z_j)/q(z_j|x) for K independent draws, the bound

.. math:: \log p(x) \ge \mathbb E\log\frac1K\sum_j w_j

grows with K and tends to log p(x) (Burda et al., arXiv 1509.00519); K = 1 is the bound above. q = N(m(x), s(x)^2) is
diagonal, and the prior's blur is added to its variance (:mod:`scoresde.latent.prior`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.likelihood import Likelihood

from .model import LatentModel, check_latent
from .networks import Networks
from .observation import Observation
from .prior import Prior, StandardNormal


@dataclass(frozen=True)
class Terms:
    """The terms of the bound at each point, in nats, (B,): on log p(x) in model units, or on log P of integers.

    Attributes:
        reconstruction: E log p(x|z), the mean over the draws.
        divergence: KL(q || p): the closed form for N(0, I); another prior adds the mean over the draws of
            log N(z; 0, I) - log p(z).
        importance: the importance-weighted bound of all draws.
        denoising: KL(q || p) by the denoising bound of a score prior; for N(0, I) the closed form again.
    """

    reconstruction: Tensor
    divergence: Tensor
    importance: Tensor
    denoising: Tensor

    @property
    def bound(self) -> Tensor:
        """The bound with K = 1, the mean over the draws, (B,)."""
        return self.reconstruction - self.divergence


class VAE(LatentModel):
    """The encoder, the decoder and the prior.

    Arguments:
        shape: of one example.
        latent: the number of latents.
        networks: makes the encoder and the decoder.
        observation: p(x|z).
        prior: p(z).
    """

    def __init__(
        self,
        shape: list[int] | tuple[int, ...],
        latent: int,
        networks: Networks,
        observation: Observation,
        prior: Prior,
    ):
        super().__init__()
        check_latent(latent)
        if prior.dim not in (None, latent):
            raise ValueError(
                f"`prior.net.shape`=[{prior.dim}] is not the number of latents, `latent`={latent}; type "
                f"`prior.net.shape`=[{latent}]"
            )
        self.shape, self.latent = tuple(shape), latent
        self.encoder = networks.encoder(self.shape, 2 * latent)
        self.decoder = networks.decoder(latent, observation.parameters, self.shape)
        self.observation, self.prior = observation, prior

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean and the log std of q(z|x) before the prior's blur, each (B, latent)."""
        mean, log_std = self.encoder(x).chunk(2, dim=1)
        return mean, log_std.clamp(-8, 4)

    def decode(self, z: Tensor) -> Tensor:
        """Returns E[x|z] in model units, (B, *), for z (B, latent)."""
        return self.observation.mean(self.decoder(z))

    def generate(self, z: Tensor, u: Tensor) -> Tensor:
        return self.observation.sample(self.decoder(z), u)

    def reconstruction(self, x: Tensor, z: Tensor) -> Tensor:
        """Returns log p(x|z) in nats, (B,)."""
        return self.observation.log_prob(x, self.decoder(z))

    def code(self, x: Tensor, noise: Tensor) -> Tensor:
        """Draws from q(z|x) before the prior's blur, (B, latent), with the normals ``noise`` of that shape."""
        mean, log_std = self.encode(x)
        return mean + log_std.exp() * noise

    @torch.no_grad()
    def terms(
        self,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor],
        rand: Callable[[], Tensor],
        likelihood: Likelihood | None = None,
        samples: int = 1,
        levels: int = 16,
        on_step: Callable[[float], None] | None = None,
    ) -> Terms:
        """Returns estimates of the terms of the bound at x (B, *) in model units.

        Arguments:
            randn_like: the source of normals of the shape of a code.
            rand: the source of uniform numbers (B, 1); called once, for the denoising bound.
            likelihood: computes log p(z) of a score prior.
            samples: the number of draws of q(z|x).
            levels: the number of noise levels of each draw at which its denoising bound is estimated, stratified.
            on_step: called with the share of the work on log p(z) of a score prior.
        """
        mean, log_std = self.encode(x)
        std = (torch.exp(2 * log_std) + self.prior.blur**2).sqrt()
        normal = torch.distributions.Normal(mean, std)
        log_p_x, log_p_z, log_n_z, log_q, denoising = [], [], [], [], []
        standard = StandardNormal()
        levels, u = levels if self.prior.blur else 1, rand()[:, 0]
        # all codes are drawn first, so that they are the same under every prior
        drawn = [randn_like(mean) for _ in range(samples)]
        for draw, noise in enumerate(drawn):
            z, start = mean + std * noise, mean + log_std.exp() * noise
            log_p_x.append(self.reconstruction(x, z).double())
            log_q.append(normal.log_prob(z).double().sum(1))
            progress = None if on_step is None else lambda share, draw=draw: on_step((draw + share) / samples)
            log_p_z.append(self.prior.log_prob(z, likelihood, progress))
            log_n_z.append(standard.log_prob(z))
            for level in range(levels):
                unit = ((level + u) / levels).clamp_max(1 - torch.finfo(u.dtype).eps)
                denoising.append(self.prior.divergence(mean, log_std, start, unit, randn_like(mean)).double())
        reconstruction, log_p_z, log_q = torch.stack(log_p_x), torch.stack(log_p_z), torch.stack(log_q)
        # KL(q || p) = KL(q || N) + E[log N - log p]: the first has a closed form, and the second varies little
        closed = standard.divergence(mean.double(), std.double().log())
        divergence = closed + (torch.stack(log_n_z) - log_p_z).mean(0)
        importance = torch.logsumexp(reconstruction + log_p_z - log_q, 0) - math.log(samples)
        denoising = torch.stack(denoising).mean(0)
        return Terms(reconstruction.mean(0), divergence, importance, denoising)
