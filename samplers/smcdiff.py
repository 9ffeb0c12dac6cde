r"""Replacement with weighted particles: SMCDiff (arXiv 2206.04119), for any linear measurement, with or without noise.

In :math:`w = x/\alpha` the forward process of every SDE here only adds noise, of variance :math:`\tau =
(\sigma/\alpha)^2`. A measurement y = A x_0 + s n with noise gives :math:`A^+ y`, which has in each direction of the row
space of A, of eigenvalue :math:`\lambda`, the law of the forward process at the variance :math:`\mu = s^2/\lambda`. So
we draw one forward path of w in the row space, from :math:`A^+ y` at :math:`\mu` to T; it is drawn backwards, once for
all P particles of a measurement,

.. math::
    w^y_s \sim N\Bigl(A^+y + \tfrac{\tau_s - \mu}{\tau_t - \mu}(w^y_t - A^+y),\
    \tfrac{(\tau_s - \mu)(\tau_t - \tau_s)}{\tau_t - \mu}\Bigr),

where s < t are two times of the grid. Each particle takes the reverse process's step given its denoised
:math:`\hat x`,

.. math::
    w_s \sim N\Bigl(\hat x + \tfrac{\tau_s}{\tau_t}(w_t - \hat x),\ V\Bigr), \qquad
    V = \tfrac{\tau_s(\tau_t - \tau_s)}{\tau_t} + \Bigl(1 - \tfrac{\tau_s}{\tau_t}\Bigr)^2 r, \qquad
    r = \frac{q^2 \tau_t}{q^2 + \tau_t}

(V is exact for data N(0, q^2 I)). The particle is weighted by the density of :math:`w^y_s` under this step, and its
measured part is replaced by :math:`w^y_s`. In a direction whose :math:`\mu` lies between :math:`\tau_t` and
:math:`\tau_s` the particle is weighted and replaced at :math:`\mu`, and goes on to :math:`\tau_s` as unmeasured.

The path's noise is independent of the rest of x_0. So the particles are draws from :math:`p(x_0 \mid y)` itself in the
limit of many particles and steps: no likelihood is approximated, no gradient is taken, and the network is evaluated
only at data with forward noise. Draws therefore stay bounded for data with heavy tails, where a guidance multiplies by
the large Jacobian of the score.

The particles of a measurement are resampled where their effective number is below ``share`` P. At every time their law
is :math:`p_s(x \mid w^y_s)`, whose score in the null space of A is the prior's. A Langevin corrector that moves x in
the null space only leaves this law as it is, and separates particles that resampling has made equal.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn, affine, of_rows

from .auto import Auto
from .conditioner import Conditioner, Held
from .grid import Grid, LogSNR
from .guidance import check_sigma_data
from .last import Last, finish
from .measurement import Measurement
from .operators import Operator
from .particles import Particles
from .pc import Film, OnStep, PredictorCorrector, Sampler
from .step import Step


@dataclass(frozen=True)
class Path:
    """The forward path of a measurement, and the particles' steps along it.

    In the methods t and s < t are values of tau, ``e`` are eigenvalues of A^T A, and ``path`` is w^y.

    Attributes:
        operator: A of every particle.
        target: A^+ y of every particle.
        variance: s^2, the variance of the measurement's noise.
        q: the std of the data.
    """

    operator: Operator
    target: Tensor
    variance: float
    q: float

    def mu(self, e: Tensor) -> Tensor:
        """Returns mu, the variance of A^+ y in the directions of these eigenvalues."""
        return self.variance / torch.where(e > 0, e, 1.0)

    def measured(self, e: Tensor, tau: float) -> Tensor:
        """Returns 1 for measured directions whose path reaches down to tau (mu < tau), else 0."""
        return ((e > 0) & (self.mu(e) < tau)).to(e.dtype)

    def r(self, t: float) -> float:
        """Returns r, the variance of x_0 given w_t, for data N(0, q^2)."""
        return self.q**2 * t / (self.q**2 + t)

    def spread(self, t: float, s: Tensor | float) -> Tensor | float:
        """Returns V of the step from t to s."""
        return s * (t - s) / t + (1 - s / t) ** 2 * self.r(t)

    def start(self, w: Tensor, tau: float, z: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the path and the particles at T.

        Arguments:
            w: draws of the prior over alpha(T), one for each particle.
            tau: the value of tau at T.
            z, own: standard normals, of the path and of each particle.
        """
        f = self.operator.function
        path = self.target + f(lambda e: (tau - self.mu(e)).clamp_min(0).sqrt(), z)
        w = w + f(lambda e: self.measured(e, tau), path - w)
        if not self.variance:
            return path, w
        # directions with more noise in y than in x_T: the draw of the prior is conditioned on y
        noisier = lambda e: ((e > 0) & (self.mu(e) >= tau)).to(e.dtype)  # noqa: E731
        drawn = f(lambda e: noisier(e) * tau / self.mu(e).clamp_min(tau), self.target)
        drawn = drawn + f(lambda e: noisier(e) * (tau - tau**2 / self.mu(e).clamp_min(tau)).sqrt(), own)
        return path, w + f(noisier, -w) + drawn

    def step(
        self, w: Tensor, path: Tensor, denoised: Tensor, t: float, s: float, z: Tensor, own: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the particles and the path at s, (B, *), and the change of the log-weights, (B,).

        Arguments:
            w, path, denoised: at t, (B, *).
            z, own: standard normals, of the path and of each particle, (B, *).
        """
        f, mean = self.operator.function, denoised + s / t * (w - denoised)

        def on(e: Tensor) -> Tensor:
            """Returns 1 for directions that are still on the path at s, else 0."""
            return self.measured(e, s)

        def left(e: Tensor) -> Tensor:
            """Returns (s - mu)/(t - mu), the share of the way from w^y_t to A^+ y that is left at s."""
            return on(e) * (s - self.mu(e)) / (t - self.mu(e)).clamp_min(torch.finfo(e.dtype).tiny)

        path = self.target + f(left, path - self.target) + f(lambda e: (left(e) * (t - s)).sqrt(), z)
        # the weight, and the particles with their measured part on the path
        away = f(lambda e: on(e) / self.spread(t, s) ** 0.5, path - mean)
        change = -0.5 * away.flatten(1).square().sum(1)
        new = mean + self.spread(t, s) ** 0.5 * own
        new = new + f(on, path - new)
        if not self.variance:
            return new, path, change

        # directions that leave the path between t and s, at mu
        def off(e: Tensor) -> Tensor:
            """Returns 1 for these directions, else 0."""
            return self.measured(e, t) - on(e)

        def stop(e: Tensor) -> Tensor:
            """Returns mu, clamped to [s, t] for all other directions."""
            return self.mu(e).clamp(s, t)

        def spread(e: Tensor) -> Tensor:
            """Returns V of the step from t to mu, kept above 0: it is 0 at mu = t."""
            return self.spread(t, stop(e)).clamp_min(1e-6 * t)

        def left_open(e: Tensor) -> Tensor:
            """Returns the variance of x_0 given w_t and w_mu, for data N(0, q^2)."""
            return self.r(t) * (stop(e) * (t - stop(e)) / t).clamp_min(0) / spread(e)

        away = f(lambda e: off(e) / spread(e).sqrt(), self.target - denoised)
        away = away - f(lambda e: off(e) / spread(e).sqrt() * stop(e) / t, w - denoised)
        change = change - 0.5 * away.flatten(1).square().sum(1)
        # the denoised x given w_mu = A^+ y too, and the step from mu to s
        updated = denoised + f(lambda e: off(e) * (1 - stop(e) / t) * self.r(t) / spread(e).sqrt(), away)
        beyond = updated + f(lambda e: s / stop(e), self.target - updated)
        beyond = beyond + f(
            lambda e: (s * (stop(e) - s) / stop(e) + (1 - s / stop(e)) ** 2 * left_open(e)).clamp_min(0).sqrt(), own
        )
        return new + f(off, beyond - new), path, change

    def held(self, x: Tensor, tau: float, own: Tensor) -> Tensor:
        """Returns x_0 with the directions that are still on the path at the last tau drawn from N(A^+ y, mu).

        Arguments:
            x: the particles after the step to the data, (B, *).
            own: standard normals of each particle, (B, *).
        """
        f = self.operator.function
        noise = f(lambda e: self.measured(e, tau) * self.mu(e).sqrt(), own) if self.variance else 0.0
        return x + f(lambda e: self.measured(e, tau), self.target - x) + noise


@dataclass(frozen=True, eq=False)
class ReplacedParticles(Sampler):
    """Weighted steps for groups of ``measurement.draws`` samples; see the module's text.

    Attributes:
        grid, steps: the time grid and its number of steps; see :class:`SMCDiff`.
        corrector: one step of the sampler's corrector, taken ``count`` times after each step, or None.
        measurement: the batch's measurement, whole groups of draws.
        copies: the number of particles for each draw.
        share: particles are resampled where their effective number is below this share of them.
        q: the std of the data.
        last: the particles' step from eps to the data; see :mod:`scoresde.samplers.last`.
    """

    grid: Grid
    steps: int
    corrector: Step | None
    count: int
    measurement: Measurement
    copies: int
    share: float
    q: float
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
        times = self.grid(sde, self.steps)
        alpha, sigma = sde.alpha(times), sde.sigma(times)
        tau, alpha, sigma, times = (column.tolist() for column in ((sigma / alpha).square(), alpha, sigma, times))
        evaluate = affine(score, times)
        path = Path(y.operator, y.target, y.noise**2, self.q)
        rows = self.corrector.prepare(sde, self.grid(sde, self.steps)) if self.corrector else []

        w = cloud.start(x, sde.prior_std) / alpha[0]
        at_path, w = path.start(w, tau[0], cloud.shared(), cloud.normals() if path.variance else w)
        log_weights = torch.zeros(cloud.groups, cloud.count, dtype=torch.float64, device=x.device)
        frames = {round(share * self.steps) for share in film.shares} if film else set()
        if film:
            film.add(sde.T, x)
        for n in range(self.steps):
            pick, log_weights = cloud.resample(log_weights, self.share)
            w = w[pick]
            denoised = evaluate(w * alpha[n], times[n], 1 / alpha[n], sigma[n] ** 2 / alpha[n])
            w, at_path, change = path.step(w, at_path, denoised, tau[n], tau[n + 1], cloud.shared(), cloud.normals())
            log_weights = log_weights + change.double().reshape(log_weights.shape)
            for _ in range(self.count if rows else 0):  # the corrector, in the null space of A
                moved = w * alpha[n + 1]
                moved, _, _ = self.corrector(
                    rows[n], evaluate, moved, [cloud.normals() for _ in range(self.corrector.draws(rows[n]))], None
                )
                w = w + y.operator.function(lambda e: (e == 0).to(e.dtype), moved / alpha[n + 1] - w)
            if n + 1 in frames:
                film.add(times[n + 1], alpha[n + 1] * w[:: self.copies])
            if on_step:
                on_step((n + 1) / self.steps)
        w = w * alpha[-1]
        w = finish(self.last, sde, score, w)
        return path.held(w, tau[-1], cloud.normals())[cloud.choose(log_weights, cloud.draws)].reshape(x.shape)


@dataclass(frozen=True)
class SMCDiff(Conditioner):
    """Replacement with weighted particles, for any sampler; see the module's text.

    Of a predictor-corrector it takes the grid, the corrector and the number of steps, if this is above ``steps``. Other
    samplers give none of these: the grid has then ``steps`` equal steps in log-SNR, and there is no corrector. The last
    step is the sampler's, or ``flow`` if it has none. The predictor is the conditioner's own, since a weight needs the
    density of a step.

    Arguments:
        particles: P, the number of particles for a measurement, rounded up to a multiple of its draws.
        steps: the least number of steps.
        share: particles are resampled where their effective number is below this share of P.
        sigma_data: q, the std of the data for which a step's variance is exact.
    """

    particles: int = 256
    steps: int = 128
    share: float = 0.5
    sigma_data: float = 1.0

    def __post_init__(self):
        if self.particles < 2:
            raise ValueError(f"`particles`={self.particles} must be at least 2; type `particles`=256")
        if self.steps < 1:
            raise ValueError(f"`steps`={self.steps} must be at least 1; type `steps`=128")
        if not 0 < self.share <= 1:
            raise ValueError(f"`share`={self.share} must be above 0 and at most 1; type `share`=0.5")
        check_sigma_data(self.sigma_data)

    def load(self, draws: int) -> int:
        return -(-self.particles // draws)

    def condition(
        self, sampler: Sampler, sde: SDE, score: ScoreFn, measurement: Measurement
    ) -> tuple[Sampler, ScoreFn]:
        grid, steps, corrector = self.plan(sampler)
        count = getattr(corrector, "count", 1)
        weighted = ReplacedParticles(
            grid,
            steps,
            replace(corrector, count=1) if count > 1 else corrector,
            count,
            measurement,
            self.load(measurement.draws),
            self.share,
            self.sigma_data,
            getattr(sampler, "last", "flow"),
        )
        return Held(weighted, measurement), score

    def plan(self, sampler: Sampler) -> tuple[Grid, int, Step | None]:
        """Returns the grid, the number of steps and the corrector to use with a sampler."""
        sampler = sampler.choice if isinstance(sampler, Auto) else sampler
        if isinstance(sampler, PredictorCorrector):
            return sampler.grid, max(self.steps, sampler.steps), sampler.corrector
        return LogSNR(), self.steps, None

    def remedy(self, vectors: bool) -> str:
        kind = "vectors" if vectors else "images"
        return (
            f"its particles follow the network's own law, so that task=sample draws such values too: train longer, for "
            f"example with training.{kind}.steps=10000 (training.steps= where training is not auto)"
        )

    def describe(self, sampler: Sampler, draws: int) -> str:
        grid, steps, corrector = self.plan(sampler)
        beside = f" and {corrector}" if corrector else ""
        return (
            f"{self.load(draws) * draws} weighted particles for each point, {steps} steps of their own on {grid}"
            f"{beside}"
        )
