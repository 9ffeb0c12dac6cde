r"""The priors of codes: N(0, I), or a score SDE in the latent space.

The bound of a VAE contains the prior in one term, the divergence KL(q(z|x) || p(z)). For p = N(0, I) and q = N(m, s^2)
it has a closed form,

.. math:: \mathrm{KL} = \tfrac12 \sum_i \bigl(m_i^2 + s_i^2 - 1 - \log s_i^2\bigr) .

For a score SDE the divergence is the *cross-entropy* of q and the SDE's density minus the entropy of q. The entropy has
a closed form too. A code enters the SDE at eps, with the kernel's noise added: with k = sigma(eps)/alpha(eps) the
posterior is q = N(m, s^2 + k^2), and the prior is the density of z = x_eps/alpha(eps), so that the bound needs no extra
term between 0 and eps. Then (Vahdat, Kreis and Kautz, arXiv 2106.05931; Song et al., arXiv 2101.09258), with the number
D of latents,

.. math::
    -\mathbb E\log p(z) \le \tfrac D2\log\bigl(2\pi e k^2\bigr)
    + \tfrac12\int_{eps}^T g^2\,\mathbb E\Bigl\|s_\theta(z_t, t) - \nabla\log q(z_t\mid z_0)\Bigr\|^2 dt
    + \mathbb E\,\mathrm{KL}\bigl(q(z_T\mid z_0)\,\|\,N(0, \sigma(T)^2 I)\bigr) .

z_0 is the code before the noise of std k is added, and p is the density of the reverse SDE. With the exact score the
mean of the right-hand side over all codes is the entropy of the noisy codes plus the divergence of their distribution
at T from the prior there, and exceeds that of the left-hand side by at most this divergence. The middle term is the
denoising loss with likelihood weighting: D times the range of log(alpha/sigma) times
:class:`scoresde.training.DenoisingScoreMatching` over :class:`scoresde.training.levels.LogSNR`. It is differentiable in
z_0, and so trains an encoder too. :meth:`ScorePrior.log_prob` computes the density without a bound, by the
probability-flow ODE (:mod:`scoresde.likelihood`).

The score is *mixed* (2106.05931): for each latent it is a learnt mixture of the network's score and that of N(0, I)
under the SDE,

.. math:: s = -(1 - a)\,\frac{x}{\alpha^2 + \sigma^2} + a\,s_\theta(x, t), \qquad a = \operatorname{logit}^{-1}(b)
          \in (0, 1)^D .
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scoresde.likelihood import Likelihood
from scoresde.models import Parameterisation, ScoreModel
from scoresde.samplers import Sampler
from scoresde.sde_lib import SDE, Draws, per_sample
from scoresde.training import DenoisingScoreMatching

START = 0.0  # the initial b: both scores have weight 1/2. From b <= -2 on, mostly N(0, I), the network hardly learns


class Prior(nn.Module, ABC):
    """The prior distribution of codes z (B, D).

    Attributes:
        blur: k, the std of the noise that the prior adds to every code; 0 for a prior that is no SDE.
        dim: the dimension D of the codes that the prior is made for; None for any.
    """

    blur: float = 0.0
    dim: int | None = None

    @abstractmethod
    def divergence(
        self,
        mean: Tensor,
        log_std: Tensor,
        z: Tensor,
        unit: Tensor | None = None,
        noise: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Returns KL(N(mean, std^2 + blur^2) || p) in nats, or an unbiased estimate of an upper bound, (B, D) to (B,).

        Arguments:
            mean, log_std: of the posterior before the blur, (B, D).
            z: draws of N(mean, std^2), (B, D), differentiable in mean and log_std.
            unit, noise: the random numbers of the estimate: the quantile of the noise level, (B,), and normals, (B, D).
            draws: the source of unit and noise if they are not given; None for fresh ones.
        """

    @abstractmethod
    def log_prob(self, z: Tensor, likelihood: Likelihood, on_step: Callable[[float], None] | None = None) -> Tensor:
        """Returns log p(z) in nats, (B, D) to (B,), float64.

        Arguments:
            likelihood: solves the ODE of a score prior; of ``start="plain"``, since z has the noise at eps already.
        """

    @abstractmethod
    def draw(
        self,
        sampler: Sampler,
        normals: Callable[[], Tensor],
        randn_like: Callable[[Tensor], Tensor],
        on_step: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Draws codes (B, D), from ``normals()`` (B, D) at the start and the noise of the sampler's steps."""


class StandardNormal(Prior):
    """The prior N(0, I)."""

    def __init__(self):  # the constructor's signature is the configuration's schema; nn.Module's would be taken
        super().__init__()

    def divergence(self, mean: Tensor, log_std: Tensor, z=None, unit=None, noise=None, draws=None) -> Tensor:
        return 0.5 * (mean.square() + torch.exp(2 * log_std) - 1 - 2 * log_std).sum(1)

    def log_prob(self, z: Tensor, likelihood: Likelihood | None = None, on_step=None) -> Tensor:
        z = z.double()
        return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))

    def draw(self, sampler: Sampler, normals, randn_like, on_step=None) -> Tensor:
        return normals()


class MixedScore(nn.Module):
    """A mixture of the score of N(0, I) and that of a network, with a learnt weight a for each latent.

    Arguments:
        model: the network read as a score under its SDE.
        dim: the number of latents.
    """

    def __init__(self, model: ScoreModel, dim: int):
        super().__init__()
        self.model = model
        self.logit = nn.Parameter(torch.full((dim,), START))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the score at x (B, D) and t (B,), of x's shape."""
        sde, share = self.model.sde, torch.sigmoid(self.logit)
        variance = per_sample(sde.alpha(t).square() + sde.sigma(t).square(), x).to(x.dtype)
        return share * self.model(x, t) - (1 - share) * x / variance


class ScorePrior(Prior):
    """A score SDE as the prior.

    Arguments:
        sde: any SDE.
        net: a network F(x, c) of vectors (D,), such as the MLP; its layer ``net.last`` gives D.
        parameterisation: how the network's output gives a score.
        mixed: True to mix the network's score with that of N(0, I).
    """

    def __init__(self, sde: SDE, net: nn.Module, parameterisation: Parameterisation, mixed: bool = True):
        super().__init__()
        self.sde, self.matching, self.dim = sde, DenoisingScoreMatching(), net.last.out_features
        model = ScoreModel(sde, net, parameterisation)
        self.score = MixedScore(model, self.dim) if mixed else model
        eps, T = (torch.tensor(t, dtype=torch.float64) for t in (sde.eps, sde.T))
        self.at_eps = float(sde.alpha(eps))
        self.blur = float(sde.sigma(eps)) / self.at_eps
        self.at_T = float(sde.alpha(T))
        self.range = float(sde.half_log_snr(eps) - sde.half_log_snr(T))

    def cross_entropy(
        self, z: Tensor, unit: Tensor | None = None, noise: Tensor | None = None, draws: Draws | None = None
    ) -> Tensor:
        """Returns an unbiased estimate of an upper bound of -E log p(z + blur * noise) in nats, z (B, D) to (B,)."""
        dim, sde, matching = z.shape[1], self.sde, self.matching
        if unit is None:
            loss = matching(sde, self.score, z, draws)
        else:
            t = matching.levels.times(sde, unit)
            loss = matching.objective(sde, self.score, sde.perturb(z, t, noise), t, noise)
        at_eps = 0.5 * dim * math.log(2 * math.pi * math.e * self.blur**2)
        at_T = 0.5 * (self.at_T / sde.prior_std) ** 2 * z.square().sum(1)
        return at_eps + dim * self.range * loss + at_T

    def divergence(self, mean: Tensor, log_std: Tensor, z: Tensor, unit=None, noise=None, draws=None) -> Tensor:
        return self.cross_entropy(z, unit, noise, draws) - entropy(log_std, self.blur)

    def log_prob(self, z: Tensor, likelihood: Likelihood, on_step=None) -> Tensor:
        """Returns the log-density of z = x_eps / alpha(eps) in nats, (B,), by the probability-flow ODE."""
        scored = likelihood(self.sde, self.score, self.at_eps * z, on_step=on_step)
        return scored.model_log_prob + z.shape[1] * math.log(self.at_eps)

    def draw(self, sampler: Sampler, normals, randn_like, on_step=None) -> Tensor:
        return sampler(self.sde, self.score, normals() * self.sde.prior_std, randn_like, on_step=on_step)


def entropy(log_std: Tensor, blur: float = 0.0) -> Tensor:
    """Returns the entropy of N(m, std^2 + blur^2) in nats, (B, D) to (B,)."""
    return 0.5 * (math.log(2 * math.pi * math.e) + torch.log(torch.exp(2 * log_std) + blur**2)).sum(1)
