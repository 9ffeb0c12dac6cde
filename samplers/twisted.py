r"""The twisted diffusion sampler (arXiv 2306.17775): guided particles, weighted so that many have the posterior's law.

Each measurement has P particles. Each particle takes the predictor's step on the guided score (PiGDM's), and its weight
corrects for the guidance. With the twist :math:`\tilde p_t(y \mid x) = N(y;\, A\hat x(x),\ r A A^T + s^2 I)`,

.. math::
    w \leftarrow w\;\frac{\tilde p_s(y \mid x_s)}{\tilde p_t(y \mid x_t)}\;
    \frac{N(x_s;\ A x_t + C s_\theta,\ N^2)}{N(x_s;\ A x_t + C (s_\theta + \nabla\log\tilde p_t),\ N^2)},

and where the effective number of particles is below ``share`` P, they are resampled in proportion to their weights, by
one uniform number for all (systematic resampling). At the end the draws are picked in proportion to the weights. In the
limit of large P they are exact draws from the law of the predictor's own steps, conditioned on y. The approximation of
the posterior's score then matters only for the P that is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn, expand_to_batch, of_rows

from .conditioner import Conditioner, Held
from .grid import Grid
from .guidance import BOUND, PiGDM, bounded, check_bound, check_sigma_data, state
from .last import Last, finish
from .measurement import Measurement
from .particles import Particles
from .pc import Film, OnStep, PredictorCorrector, Sampler
from .predictors import Predictor


@dataclass(frozen=True)
class Particle:
    """The values at x_t that a weighted step needs: the score, the gradient of the log-twist, and the log-twist."""

    score: Tensor
    term: Tensor
    log_twist: Tensor


@dataclass(frozen=True, eq=False)
class TwistedSampler(Sampler):
    """Weighted steps of one predictor for groups of ``measurement.draws`` samples; see the module's text.

    Attributes:
        grid, steps, predictor: those of the sampler that is conditioned.
        measurement: the batch's measurement, whole groups of draws.
        twist: the guidance of the particles.
        bound: the largest norm of the guidance's term in units of sqrt(D)/sigma, or None.
        copies: the number of particles for each draw.
        share: the effective share of particles below which they are resampled.
        last: the particles' step from eps to the data; see :mod:`scoresde.samplers.last`.
    """

    grid: Grid
    steps: int
    predictor: Predictor
    measurement: Measurement
    twist: PiGDM
    bound: float | None
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
        cloud = Particles(x, self.measurement.draws, self.copies, randn_like)
        score, y = of_rows(score, cloud.rows), self.measurement.rows(cloud.rows)

        def look(x: Tensor, t: float) -> Particle:
            here = state(sde, score, x, expand_to_batch(t, x))
            r = self.twist.variance(here.alpha, here.sigma)
            log_twist = y.log_prob(here.denoised, r)
            return Particle(here.score, bounded(self.twist.term(here, y), here, self.bound), log_twist)

        grid = self.grid(sde, self.steps)
        rows = self.predictor.prepare(sde, grid)
        state_now = cloud.start(x, sde.prior_std)
        now = look(state_now, float(grid[0]))
        log_weights = now.log_twist.double().reshape(cloud.groups, cloud.count)
        if film:
            film.add(sde.T, x)
        frames = {round(share * self.steps) for share in film.shares} if film else set()
        for n, (_, A, C, N) in enumerate(rows):
            pick, log_weights = cloud.resample(log_weights, self.share)
            here, score_now, term, twist = (each[pick] for each in (state_now, now.score, now.term, now.log_twist))
            noise, pushed = N * cloud.normals(), C * term
            state_now = A * here + C * score_now + pushed + noise
            now = look(state_now, float(grid[n + 1]))
            # the density of the step without guidance over that with it, and the ratio of the twists
            ratio = (noise.square() - (noise + pushed).square()).flatten(1).sum(1) / (2 * N**2)
            log_weights = log_weights + (now.log_twist - twist + ratio).double().reshape(log_weights.shape)
            if n + 1 in frames:
                film.add(float(grid[n + 1]), state_now[:: self.copies])
            if on_step:
                on_step((n + 1) / self.steps)
        state_now = finish(self.last, sde, lambda x, t: now.score + now.term, state_now)
        return state_now[cloud.choose(log_weights, cloud.draws)].reshape(x.shape)


@dataclass(frozen=True)
class TDS(Conditioner):
    """The twisted diffusion sampler, on the steps of a sampler with one predictor and no corrector.

    Arguments:
        particles: the number of particles for a measurement; at least as many as are drawn of it.
        share: the effective share of particles below which they are resampled.
        sigma_data: that of the twist, as in :class:`PiGDM`.
        bound: the largest norm of the guidance's term in units of sqrt(D)/sigma; the weights account for it.
    """

    particles: int = 64
    share: float = 0.5
    sigma_data: float = 1.0
    bound: float | None = BOUND

    def __post_init__(self):
        check_bound(self.bound)
        if self.particles < 2:
            raise ValueError(f"`particles`={self.particles} must be at least 2; type `particles`=64")
        if not 0 < self.share <= 1:
            raise ValueError(f"`share`={self.share} must be above 0 and at most 1; type `share`=0.5")
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
                "sampler=ancestral, sampler=em or sampler=reverse_diffusion, or conditioner=smcdiff for any sampler"
            )
        twisted = TwistedSampler(
            sampler.grid,
            sampler.steps,
            predictor,
            measurement,
            PiGDM(self.sigma_data, bound=None),
            self.bound,
            self.load(measurement.draws),
            self.share,
            sampler.last,
        )
        return Held(twisted, measurement), score
