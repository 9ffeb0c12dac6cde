r"""The log-density of an energy network without an ODE: the network's own, less its log-normaliser.

An energy's score is a gradient field, s = grad u with u(x, t) the network's unnormalised log-density, so that

.. math:: \log p_t(x) = u(x, t) - \log Z(t), \qquad Z = \int e^u\,dx = \mathbb E_q\,e^{u(x) - \log q(x)} .

Z is estimated by importance sampling. The proposal q is a kernel density estimate of p_eps from a subset of the data,
mixed with a wide Gaussian, so that it covers all regions in which p has mass. The estimate is refused if the weights'
effective sample size is too small, as it is in more than a few dimensions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn

from .crosscheck import CrossCheck, Estimate

WIDE = 0.1  # the share of q that is the wide Gaussian, of twice the data's std
KERNELS = 1000  # the most points of the data that are centres of kernels


@dataclass(frozen=True)
class EnergyDensity(CrossCheck):
    """(sde, score, x) -> log p_eps(x) of a score with an unnormalised log-density, ``score.log_density(x, t)``.

    Arguments:
        draws: the number of points of q that estimate Z.
        least: the smallest effective sample size that is accepted.
        reference: points of the data in model units, (N, *); ``auto`` in the yaml takes training data.
        seed: the seed of q's points; the same for every batch.
    """

    draws: int = 20_000
    least: float = 100.0
    reference: Tensor | None = None
    seed: int = 0

    start: ClassVar[str] = "plain"
    apart: ClassVar[bool] = False  # all points share one normaliser
    same: ClassVar[dict[str, str]] = {"start": "plain"}

    def __post_init__(self):
        if not 100 <= self.draws <= 10**7:
            raise ValueError(f"`draws`={self.draws} must lie in [100, 10000000]; type `draws`=20000")
        if not 1 <= self.least <= self.draws:
            raise ValueError(f"`least`={self.least} must lie in [1, `draws`]; type `least`=100")

    @torch.no_grad()
    def log_normaliser(self, sde: SDE, score: ScoreFn, like: Tensor) -> tuple[float, float, float]:
        """Returns log Z(eps), its standard error and the effective sample size, for points like those of ``like``
        (B, *).

        Raises:
            ValueError: ``reference`` is missing, the score has no energy, or the effective sample size is too small.
        """
        if self.reference is None:
            raise ValueError(
                "task.crosscheck.reference is missing: points of the data; type task.crosscheck.reference=auto"
            )
        shape, dim = like.shape[1:], like.shape[1:].numel()
        generator = torch.Generator().manual_seed(self.seed)
        eps = torch.tensor(sde.eps, dtype=torch.float64)
        alpha, sigma = float(sde.alpha(eps)), float(sde.sigma(eps))
        # the proposal
        data = self.reference.flatten(1).double()
        picked = torch.randperm(len(data), generator=generator)[:KERNELS]
        mean, std = alpha * data.mean(0), alpha * data.std(0).clamp_min(1e-3)
        centres = alpha * data[picked]
        # Silverman's rule for the kernels, in each coordinate's own scale, widened by the noise of p_eps
        width = ((4 / ((dim + 2) * len(centres))) ** (2 / (dim + 4)) * std.square() + sigma**2).sqrt()

        # draws from it
        z = torch.randn(self.draws, dim, dtype=torch.float64, generator=generator)
        wide = torch.rand(self.draws, generator=generator) < WIDE
        centre = centres[torch.randint(len(centres), (self.draws,), generator=generator)]
        points = torch.where(wide[:, None], mean + 2 * std * z, centre + width * z)

        # their weights e^u / q
        log_weights = []
        for part in points.split(max(1, 2**22 // (len(centres) * dim))):  # bounds the memory of the kernels
            kernels = normal(part[:, None], centres, width).logsumexp(1) - math.log(len(centres))
            log_q = torch.logaddexp(kernels + math.log(1 - WIDE), normal(part, mean, 2 * std) + math.log(WIDE))
            x = part.reshape(-1, *shape).to(like)
            log_weights.append(log_density(score, x, torch.full_like(x.flatten(1)[:, 0], sde.eps)) - log_q)
        log_weights = torch.cat(log_weights)
        weights = (log_weights - log_weights.max()).exp()
        size = float(weights.sum().square() / weights.square().sum())
        if not size >= self.least:
            raise ValueError(
                f"task/crosscheck=energy: the normaliser of this energy cannot be estimated in {dim} dimensions: the "
                f"effective sample size of {self.draws} draws is {size:.1f}, below task.crosscheck.least={self.least}; "
                f"leave the cross-check out, or try a larger task.crosscheck.draws"
            )
        log_z = float(log_weights.max() + weights.mean().log())
        return log_z, float(weights.std() / weights.mean()) / math.sqrt(self.draws), size

    @torch.no_grad()
    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: Callable[[float], None] | None = None,
    ) -> Estimate:
        """Returns log p_eps at x, shape (B, *), in model units; on the CPU.

        Arguments:
            randn_like: ignored; ``seed`` decides the draws from q.
            on_step: called once, at the end.

        Raises:
            ValueError: Z cannot be estimated; see :meth:`log_normaliser`.
        """
        log_z, stderr, _ = self.log_normaliser(sde, score, x)
        t = torch.full_like(x.flatten(1)[:, 0], sde.eps)
        log_prob = log_density(score, x, t) - log_z
        if on_step:
            on_step(1.0)
        return Estimate(log_prob, torch.full_like(log_prob, stderr), self.draws / len(x) + 1, shared=True)


def log_density(score: ScoreFn, x: Tensor, t: Tensor) -> Tensor:
    """Returns u(x, t) in float64 on the CPU, shape (B,); ValueError for a score without an energy."""
    if not hasattr(score, "log_density"):
        raise ValueError(
            "task/crosscheck=energy needs a network with an energy; type model=energy_mlp or model=energy_unet"
        )
    return score.log_density(x, t).double().cpu()


def normal(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Returns log N(x; mean, diag(std^2)) for x (..., D), shape (...,)."""
    return (-0.5 * ((x - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)
