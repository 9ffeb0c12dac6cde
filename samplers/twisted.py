r"""The twisted diffusion sampler (arXiv 2306.17775): guided particles, weighted so that many have the posterior's law.

Each measurement has P particles. A particle takes the predictor's step on the guided score (PiGDM's), and its weight w
corrects for the guidance. A, C and N of the step are those of :mod:`scoresde.samplers.predictors`. With the twist
:math:`\tilde p_t(y \mid x) = N(y;\, A\hat x(x),\ r A A^T + s^2 I)`,

.. math::
    w \leftarrow w\;\frac{\tilde p_s(y \mid x_s)}{\tilde p_t(y \mid x_t)}\;
    \frac{N(x_s;\ A x_t + C s_\theta,\ N^2)}{N(x_s;\ A x_t + C (s_\theta + \nabla\log\tilde p_t),\ N^2)},

and where the effective number of particles is below ``share`` P, they are resampled in proportion to their weights, by
one uniform number for all (systematic resampling). At the end the draws are picked in proportion to the weights. In the
limit of large P their x at eps is drawn from the law of the predictor's own steps, weighted by the twist at eps. How
well the guided score approximates the posterior's then decides only how large P must be.
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
    """The values at all particles x_t that a weighted step needs.

    Attributes:
        score: the prior's score, (B copies, *).
        term: the bounded gradient of the log-twist, (B copies, *).
        log_twist: log N(y; A x_hat, r A A^T + s^2 I) up to a constant, (B copies,).
    """

    score: Tensor
    term: Tensor
    log_twist: Tensor


@dataclass(frozen=True, eq=False)
class TwistedSampler(Sampler):
    """Weighted steps of one predictor for groups of ``measurement.draws`` samples; see the module's text.

    Attributes:
        grid, steps, predictor: those of the sampler that is conditioned.
        measurement: the batch's measurement, whole groups of draws.
        twist: gives the variance r and the unbounded gradient of the log-twist.
        bound: the largest norm of the guidance's term in units of sqrt(D)/sigma, or None.
        copies: the number of particles for each draw.
        share: particles are resampled where their effective number is below this share of them.
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
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: OnStep | None = None,
        film: Film | None = None,
    ) -> Tensor:
        cloud = Particles(x, self.measurement.draws, self.copies, randn_like)
        score, y = of_rows(score, cloud.rows), self.measurement.rows(cloud.rows)

        def values_at(x: Tensor, t: float) -> Particle:
            state_t = state(sde, score, x, expand_to_batch(t, x))
            r = self.twist.variance(state_t.alpha, state_t.sigma)
            log_twist = y.log_prob(state_t.denoised, r)
            return Particle(state_t.score, bounded(self.twist.term(state_t, y), state_t, self.bound), log_twist)

        grid = self.grid(sde, self.steps)
        rows = self.predictor.prepare(sde, grid)
        particles = cloud.start(x, sde.prior_std)
        now = values_at(particles, float(grid[0]))
        log_weights = now.log_twist.double().reshape(cloud.groups, cloud.count)
        if film:
            film.add(sde.T, x)
        frames = {round(share * self.steps) for share in film.shares} if film else set()
        for n, (_, A, C, N) in enumerate(rows):
            pick, log_weights = cloud.resample(log_weights, self.share)
            x_t, score_t, term, twist = (column[pick] for column in (particles, now.score, now.term, now.log_twist))
            noise, pushed = N * cloud.normals(), C * term
            particles = A * x_t + C * score_t + pushed + noise
            now = values_at(particles, float(grid[n + 1]))
            # log of the density of the step without guidance over that with it
            ratio = (noise.square() - (noise + pushed).square()).flatten(1).sum(1) / (2 * N**2)
            log_weights = log_weights + (now.log_twist - twist + ratio).double().reshape(log_weights.shape)
            if n + 1 in frames:
                film.add(float(grid[n + 1]), particles[:: self.copies])
            if on_step:
                on_step((n + 1) / self.steps)
        # ``now`` holds the guided score at eps
        particles = finish(self.last, sde, lambda x, t: now.score + now.term, particles)
        return particles[cloud.choose(log_weights, cloud.draws)].reshape(x.shape)


@dataclass(frozen=True)
class TDS(Conditioner):
    """The twisted diffusion sampler, on the steps of a sampler with one predictor and no corrector.

    Arguments:
        particles: P, the number of particles for a measurement, rounded up to a multiple of its draws.
        share: particles are resampled where their effective number is below this share of P.
        sigma_data: q of the twist's r, as in :class:`scoresde.samplers.PiGDM`.
        bound: the largest norm of the guidance's term in units of sqrt(D)/sigma, None for no bound; the weights account
            for it.
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
