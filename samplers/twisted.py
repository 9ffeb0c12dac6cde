r"""The twisted diffusion sampler (arXiv 2306.17775): guided draws, weighted so that many of them are the posterior.

P particles a measurement. Each takes the predictor's step on the guided score (PiGDM's), and is weighted for what that
changed. With the twist :math:`\tilde p_t(y \mid x) = N(y;\, A\hat x(x),\ r A A^T + s^2 I)`,

.. math::
    w \leftarrow w\;\frac{\tilde p_s(y \mid x_s)}{\tilde p_t(y \mid x_t)}\;
    \frac{N(x_s;\ A x_t + C s_\theta,\ N^2)}{N(x_s;\ A x_t + C (s_\theta + \nabla\log\tilde p_t),\ N^2)},

and where few particles carry the weight (an effective number below ``share`` P), they are drawn anew in proportion to
it, by one uniform number for all (systematic resampling). At the end the draws are picked by their weight. With P
growing they are exact draws from what the predictor's own steps make of the prior, conditioned on y; no approximation
of the posterior's score is left but in how fast P must grow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sde_lib import SDE, ScoreFn, at

from .conditioner import Conditioner, Held
from .grid import Grid
from .guidance import PiGDM, check_sigma_data, state
from .last import Last, finish
from .measurement import Measurement
from .pc import Film, OnStep, PredictorCorrector, Sampler
from .predictors import Predictor


@dataclass(frozen=True)
class Particle:
    """What a weighted step asks of x_t: the score, the twist's gradient, its logarithm, and the denoised x."""

    score: Tensor
    term: Tensor
    log_twist: Tensor
    denoised: Tensor


@dataclass(frozen=True, eq=False)
class TwistedSampler(Sampler):
    """Weighted steps of one predictor for groups of ``measurement.draws`` samples; see the module's text.

    Attributes:
        grid, steps, predictor: of the sampler that is conditioned.
        measurement: of the batch, whole groups of draws.
        twist: the guidance of the particles.
        copies: particles for each draw.
        share: of the particles that must carry weight.
        last: the particles' step from eps to the data; see :mod:`samplers.last`.
    """

    grid: Grid
    steps: int
    predictor: Predictor
    measurement: Measurement
    twist: PiGDM
    copies: int
    share: float
    last: Last

    @torch.no_grad()
    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor],
        on_step: OnStep | None = None,
        film: Film | None = None,
    ) -> Tensor:
        draws, shape = self.measurement.draws, x.shape[1:]
        groups = len(x) // draws
        particles = draws * self.copies
        # a draw's copies stand together: particle p of a group belongs to draw p // copies
        numbers = torch.arange(len(x), device=x.device).repeat_interleave(self.copies)
        y = self.measurement.rows(numbers)

        def normals() -> Tensor:
            return torch.stack([randn_like(x) for _ in range(self.copies)], 1).flatten(0, 1)

        def look(x: Tensor, t: float) -> Particle:
            here = state(sde, score, x, at(t, x))
            r = self.twist.variance(here.alpha, here.sigma)
            log_twist = y.log_prob(here.denoised, r)
            return Particle(here.score, self.twist.term(here, y), log_twist, here.denoised)

        def resampled(log_weights: Tensor, uniform: Tensor, count: int) -> Tensor:
            """Numbers of ``count`` particles a group, in proportion to their weights."""
            share = torch.softmax(log_weights.double(), 1).cumsum(1)
            places = (torch.arange(count, device=x.device) + uniform.double()[:, None]) / count
            chosen = torch.searchsorted(share / share[:, -1:], places).clamp_max(particles - 1)
            return (chosen + particles * torch.arange(groups, device=x.device)[:, None]).flatten()

        def uniform() -> Tensor:
            """One number in [0, 1) for each group."""
            return torch.special.ndtr(randn_like(x)[::draws].flatten(1)[:, 0].double())

        grid = self.grid(sde, self.steps)
        rows = self.predictor.prepare(sde, grid)
        cloud = torch.stack([x, *(randn_like(x) * sde.prior_std for _ in range(self.copies - 1))], 1).flatten(0, 1)
        now = look(cloud, float(grid[0]))
        log_weights = now.log_twist.reshape(groups, particles)
        if film:
            film.add(sde.T, x)
        frames = {round(share * self.steps) for share in film.shares} if film else set()
        for n, (_, A, C, N) in enumerate(rows):
            share = torch.softmax(log_weights, 1)
            poor = 1 / share.square().sum(1) < self.share * particles
            chosen = resampled(log_weights, uniform(), particles)
            stay = torch.arange(len(cloud), device=x.device)
            pick = torch.where(poor.repeat_interleave(particles), chosen, stay)
            log_weights = torch.where(poor[:, None], 0.0, log_weights)
            cloud, score_now, term, twist = (each[pick] for each in (cloud, now.score, now.term, now.log_twist))
            noise, pushed = N * normals(), C * term
            cloud = A * cloud + C * score_now + pushed + noise
            now = look(cloud, float(grid[n + 1]))
            # the step's own density over the guided one's, and the twists
            ratio = (noise.square() - (noise + pushed).square()).flatten(1).sum(1) / (2 * N**2)
            log_weights = log_weights + (now.log_twist - twist + ratio).reshape(groups, particles)
            if n + 1 in frames:
                film.add(float(grid[n + 1]), cloud[:: self.copies])
            if on_step:
                on_step((n + 1) / self.steps)
        cloud = finish(self.last, sde, lambda x, t: now.score + now.term, cloud)
        return cloud[resampled(log_weights, uniform(), draws)].reshape(-1, *shape)


@dataclass(frozen=True)
class TDS(Conditioner):
    """The twisted diffusion sampler, on the steps of a sampler with one predictor and no corrector.

    Arguments:
        particles: how many a measurement; at least as many as are drawn of it.
        share: of the particles that must carry weight, or they are drawn anew.
        sigma_data: of the twist, as in :class:`PiGDM`.
    """

    particles: int = 64
    share: float = 0.5
    sigma_data: float = 1.0

    def __post_init__(self):
        if self.particles < 2:
            raise ValueError(
                f"conditioner.particles={self.particles} must be at least 2; type conditioner.particles=64"
            )
        if not 0 < self.share <= 1:
            raise ValueError(
                f"conditioner.share={self.share} must be above 0 and at most 1; type conditioner.share=0.5"
            )
        check_sigma_data(self.sigma_data)

    def load(self, draws: int) -> int:
        return -(-self.particles // draws)

    def condition(
        self, sampler: Sampler, sde: SDE, score: ScoreFn, measurement: Measurement
    ) -> tuple[Sampler, ScoreFn]:
        predictor = getattr(sampler, "predictor", None)
        if (
            not isinstance(sampler, PredictorCorrector)
            or sampler.corrector is not None
            or not isinstance(predictor, Predictor)
        ):
            raise ValueError(
                "conditioner=tds weights the steps of one predictor with noise, and no corrector; type "
                "sampler=ancestral, sampler=em or sampler=reverse_diffusion"
            )
        twisted = TwistedSampler(
            sampler.grid,
            sampler.steps,
            predictor,
            measurement,
            PiGDM(self.sigma_data),
            self.load(measurement.draws),
            self.share,
            sampler.last,
        )
        return Held(twisted, measurement), score
