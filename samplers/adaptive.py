r"""The reverse SDE with a step size for each sample (arXiv 2105.14080), which keeps the noise of rejected steps.

Euler-Maruyama and the improved Euler step share one Brownian increment, and their difference is the local error:

.. math::
    x' &= \rho\,x + E\,M(x, t) + \alpha_s V_s\,\Delta W, \qquad
    x'' = x' + \tfrac12 E\,[M(x', s) - M(x, t)], \\
    e &= \frac{1}{\sqrt d}\Bigl\|\frac{x'' - x'}{\max(atol,\ rtol\,\max(|x'|, \rho\,|x'_{prev}|))}\Bigr\|_2 .

x'_prev is the x' of the last accepted step. (The published error has no rho. Where much noise is left x'_prev is large,
and without rho it would hide the error of a long step.) A step with e <= 1 is accepted and ends in x''. The next step,
also after a rejection, has the size theta h e^-r, kept between about a fifth of h and five times h.

The variables are those of :mod:`scoresde.samplers.additive` at eta = 1, in which the noise is additive: V =
(sigma/alpha)^2 + q^2, the clock is 1/V, Delta W ~ N(0, 1/V_s - 1/V_t), M = x/alpha + alpha V score, rho = alpha_s
V_s/(alpha_t V_t) and E = alpha_s (1 - V_s/V_t). So noise by itself makes no error, and a rejection must only keep a
plain Brownian motion. Step sizes h are shares of the way from T to eps (``SDE.even``), which needs no inverse of the
clock. q is the data's std: a step from pure noise then ends where the data lie, and its error is seen. (With q = 0 the
step ends at their mean, where the score may vanish and the error with it. With a large q the steps must follow the
score's linear part, at three to four times the evaluations.)

**Rejection sampling with memory** (Rackauckas and Nie 2017, doi 10.3934/dcdsb.2017133). The rejection of a step depends
on its noise. If a rejection were followed by fresh noise, accepted noise would not be Gaussian: a bias at every
tolerance, largest in few dimensions, where a single coordinate decides. So a rejected increment goes on the sample's
stack, and a shorter step draws its own part of this increment from the Brownian bridge,

.. math:: \Delta W' \sim N\Bigl(\tfrac{c'}{c}\,\Delta W,\ \tfrac{c'(c - c')}{c}\Bigr)

with c and c' the durations, in the clock, of the increment and of the shorter step. The rest of the increment stays on
the stack. No step goes past the end of the top increment.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn, of_rows, per_sample

from .additive import noise_variance
from .last import Last, check_last, finish
from .pc import Film, OnStep, Sampler

# Step sizes as shares of the way: the first one, and the largest one whose rejection ends the run.
FIRST, SMALLEST = 0.01, 1e-12
# Step sizes change by powers of 2^(1/4), so that the rounding of a score seldom changes them, and with them the noise.
NOTCHES = 4


class NoiseStack:
    """The Brownian increments that rejected steps have left for later: one stack a sample, the next increment on top.

    Arguments:
        x: shape (b, n), as the increments will be.
        dtype: of the moments at which increments end. A moment is a share of the way from T to eps.
    """

    def __init__(self, x: Tensor, dtype: torch.dtype):
        self.depth = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.ends = torch.zeros(len(x), 4, dtype=dtype, device=x.device)
        self.increments = x.new_zeros(len(x), 4, x.shape[1])

    @property
    def filled(self) -> Tensor:
        """True for samples with an increment on their stack, shape (b,)."""
        return self.depth > 0

    @property
    def top(self) -> tuple[Tensor, Tensor]:
        """The index (sample, place) of each sample's top increment; place 0 where the stack is empty."""
        return torch.arange(len(self.depth), device=self.depth.device), (self.depth - 1).clamp_min(0)

    def end(self, otherwise: float) -> Tensor:
        """Returns the moment at which the top increment ends, ``otherwise`` where the stack is empty, shape (b,)."""
        return torch.where(self.filled, self.ends[self.top], otherwise)

    def take(self, share: Tensor, span: Tensor, z: Tensor) -> Tensor:
        """Returns the increments of steps that last ``span`` of the clock, ``share`` of the top increment.

        An empty stack gives a fresh increment. Otherwise the increment is drawn from the bridge, and the rest of the
        top increment stays on the stack.

        Arguments:
            share, span: shape (b,).
            z: standard normals, (b, n).
        """
        filled, whole = self.filled[:, None], self.increments[self.top]
        fraction = share[:, None].to(z.dtype)
        std = torch.sqrt(span * torch.where(self.filled, 1 - share, 1.0))[:, None].to(z.dtype)
        taken = torch.where(filled, fraction * whole, 0.0) + std * z
        self.increments[self.top] = whole - taken
        self.depth = self.depth - (self.filled & (share >= 1)).long()
        return taken

    def put_back(self, rejected: Tensor, end: Tensor, increment: Tensor) -> None:
        """Puts the increments of rejected steps, which would have ended at ``end``, back on top."""
        if int(self.depth.max()) == self.ends.shape[1]:
            self.ends = torch.cat([self.ends, torch.zeros_like(self.ends)], dim=1)
            self.increments = torch.cat([self.increments, torch.zeros_like(self.increments)], dim=1)
        row = rejected.nonzero()[:, 0]
        place = row, self.depth[row]
        self.ends[place], self.increments[place] = end[row], increment[row]
        self.depth = self.depth + rejected.long()

    def keep(self, stay: Tensor) -> None:
        """Drops the stacks of the samples that have arrived."""
        self.depth, self.ends, self.increments = self.depth[stay], self.ends[stay], self.increments[stay]


@dataclass(frozen=True)
class Running:
    """The samples that have not arrived yet, one row each; numbers have shape (b,), x, previous and M (b, *).

    Attributes:
        rows: the samples' indices in the batch.
        u: the share of the way from T to eps that is done, from 0 to 1.
        t: the time.
        tau: (sigma/alpha)^2 at t.
        size: alpha V at t, which turns the noise of the clock into noise of x.
        h: the size of the next step as a share of the way.
        x: the sample at t.
        previous: Euler-Maruyama's result of the last accepted step, x'_prev.
        M: x/alpha + alpha V score at t.
    """

    rows: Tensor
    u: Tensor
    t: Tensor
    tau: Tensor
    size: Tensor
    h: Tensor
    x: Tensor
    previous: Tensor
    M: Tensor

    def keep(self, stay: Tensor) -> "Running":
        """Returns the state of some of the samples, by a mask (b,)."""
        return Running(*(getattr(self, field.name)[stay] for field in fields(self)))


@dataclass(frozen=True)
class Trial:
    """One step from t to s of every running sample, accepted or not; one row each.

    Attributes:
        u, t, tau, size: as in :class:`Running`, at s.
        increment: Delta W.
        base: rho x.
        noise: alpha_s V_s Delta W.
        euler: x', by Euler-Maruyama.
        difference: x'' - x'.
        A, C: M = A x + C score at s.
        error: e of the step, (b,).
        accepted: True for steps within the tolerance, (b,); an error that is NaN is a rejection.
    """

    u: Tensor
    t: Tensor
    tau: Tensor
    size: Tensor
    increment: Tensor
    base: Tensor
    noise: Tensor
    euler: Tensor
    difference: Tensor
    A: Tensor
    C: Tensor
    error: Tensor
    accepted: Tensor

    @property
    def heun(self) -> Tensor:
        """x'', the improved Euler step."""
        return self.euler + self.difference


def factors(x: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """Returns tensors of one number per sample, (b,), reshaped to broadcast over x (b, *), in the dtype of x."""
    return tuple(per_sample(column, x) for column in torch.stack(columns).to(x.dtype))


@dataclass(frozen=True)
class AdaptiveSDE(Sampler):
    """Solves the reverse SDE from T to eps with a step size for each sample.

    A sample's path does not depend on the other samples of its batch: every round draws standard normals of the whole
    batch's shape, and a sample uses its own row of them. A round tries one step of every running sample.

    Arguments:
        rtol, atol: the tolerances of the local error. Published: atol=0.0078, 1/128, for images in [-1, 1].
        safety: theta, the factor of the step size that the error would allow.
        exponent: r in the next step size, theta h e^-r.
        sigma_data: q, the std of the data N(0, q^2 I) for which every step is exact; ``auto`` in the yaml takes the
            data's std.
        last: the step from eps to the data, ``flow``, ``tweedie`` or ``none``; see :mod:`scoresde.samplers.last`.

    Raises:
        FloatingPointError: by a call, where even the smallest step of a sample is rejected.
    """

    rtol: float = 0.02
    atol: float = 0.0078
    safety: float = 0.9
    exponent: float = 0.9
    sigma_data: float = 1.0
    last: Last = "flow"

    def __post_init__(self):
        check_last(self.last)
        for key, default in (("rtol", 0.02), ("atol", 0.0078), ("safety", 0.9)):
            if not 0 < getattr(self, key) < 1:
                raise ValueError(
                    f"`{key}`={getattr(self, key)} must lie between 0 and 1; type for example `{key}`={default}"
                )
        if not 0 < self.exponent <= 1:
            raise ValueError(f"`exponent`={self.exponent} must be positive and at most 1; type `exponent`=0.9")
        if not 0 < self.sigma_data < torch.inf:
            raise ValueError(f"`sigma_data`={self.sigma_data} must be positive; type `sigma_data`=auto")

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
        result = torch.empty_like(x)
        recorder = Recorder(self, sde, film, x) if film else None
        state = self.begin(sde, score, x)
        stack = NoiseStack(x.flatten(1), state.u.dtype)
        while len(state.rows):
            trial = self.attempt(sde, score, state, stack, randn_like(x)[state.rows])
            accepted = trial.accepted
            refuse_tiny_steps(state, trial)
            if recorder:
                recorder.add(state, trial)
            stack.put_back(~accepted, trial.u, trial.increment.flatten(1))
            state = self.advance(score, state, trial)
            arrived = accepted & (trial.u >= 1)
            if bool(arrived.any()):
                result[state.rows[arrived]] = state.x[arrived]
                state = state.keep(~arrived)
                stack.keep(~arrived)
            if on_step:
                on_step(1 - float((1 - state.u).sum()) / len(result))
        if recorder:
            recorder.show()
        return finish(self.last, sde, score, result)

    def clock(self, tau_t: Tensor, tau_s: Tensor) -> Tensor:
        """Returns 1/V_s - 1/V_t, without cancellation."""
        return (tau_t - tau_s) / ((tau_t + self.sigma_data**2) * (tau_s + self.sigma_data**2))

    def begin(self, sde: SDE, score: ScoreFn, x: Tensor) -> Running:
        """Returns the state of the batch x (B, *) at T."""
        precision = torch.float32 if x.device.type == "mps" else torch.float64
        u = torch.zeros(len(x), dtype=precision, device=x.device)
        t = torch.full_like(u, sde.T)
        alpha, tau = sde.alpha(t), noise_variance(sde, t)
        size = alpha * (tau + self.sigma_data**2)
        A, C = factors(x, 1 / alpha, size)
        M = torch.addcmul(A * x, C, score(x, t.to(x.dtype)))
        return Running(torch.arange(len(x), device=x.device), u, t, tau, size, torch.full_like(u, FIRST), x, x, M)

    def attempt(self, sde: SDE, score: ScoreFn, state: Running, stack: NoiseStack, z: Tensor) -> Trial:
        """Returns a step of each sample, of size h or to the end of its top increment; z (b, *): standard normals."""
        x, limit = state.x, stack.end(1.0)
        u = torch.where(state.u + state.h < limit - 1e-6 * state.h, state.u + state.h, limit)  # no remnant of rounding
        s, tau_limit = sde.even(u), noise_variance(sde, sde.even(limit))
        alpha, tau = sde.alpha(s), noise_variance(sde, s)
        size, span = alpha * (tau + self.sigma_data**2), self.clock(state.tau, tau)
        share = torch.where(u < limit, (span / self.clock(state.tau, tau_limit)).clamp_max(1.0), 1.0)
        increment = stack.take(share, span, z.flatten(1)).reshape(x.shape)

        rho, E, C, A = factors(x, size / state.size, size * span, size, 1 / alpha)
        base, noise = rho * x, C * increment
        euler = torch.addcmul(base + noise, E, state.M)
        M = torch.addcmul(A * euler, C, of_rows(score, state.rows)(euler, s.to(x.dtype)))
        difference = 0.5 * E * (M - state.M)
        scale = (self.rtol * torch.maximum(euler.abs(), (rho * state.previous).abs())).clamp_min(self.atol)
        error = (difference / scale).flatten(1).square().mean(1).sqrt().to(state.u.dtype)
        return Trial(u, s, tau, size, increment, base, noise, euler, difference, A, C, error, error <= 1)

    def advance(self, score: ScoreFn, state: Running, trial: Trial) -> Running:
        """Returns the state after a trial: at s where the step is accepted, where it was otherwise."""
        accepted = trial.accepted
        taken = per_sample(accepted, state.x)
        x = torch.where(taken, trial.heun, state.x)
        # a rejected step's first evaluation still holds, and at eps none is needed
        new, M = (accepted & (trial.u < 1)).nonzero()[:, 0], state.M
        if len(new):
            fresh = x[new]
            value = of_rows(score, state.rows[new])(fresh, trial.t[new].to(x.dtype))
            M = M.index_copy(0, new, torch.addcmul(trial.A[new] * fresh, trial.C[new], value))
        return Running(
            rows=state.rows,
            u=torch.where(accepted, trial.u, state.u),
            t=torch.where(accepted, trial.t, state.t),
            tau=torch.where(accepted, trial.tau, state.tau),
            size=torch.where(accepted, trial.size, state.size),
            h=self.next_size(state, trial),
            x=x,
            previous=torch.where(taken, trial.euler, state.previous),
            M=M,
        )

    def next_size(self, state: Running, trial: Trial) -> Tensor:
        """Returns the size of every sample's next step as a share of the way, by the error of the last."""
        error = torch.where(trial.error.isfinite(), trial.error, 1e10).clamp_min(1e-10)
        factor = (self.safety * error**-self.exponent).clamp(0.2, 5.0)
        return (trial.u - state.u) * torch.exp2(torch.floor(NOTCHES * torch.log2(factor)) / NOTCHES)


def refuse_tiny_steps(state: Running, trial: Trial) -> None:
    """Raises a FloatingPointError where a step is rejected that is already as small as steps can be."""
    possible = trial.accepted | (trial.u - state.u > SMALLEST)
    if bool(possible.all()):
        return
    worst = int((~possible).nonzero()[0])
    raise FloatingPointError(
        f"the reverse SDE cannot be solved for sample {int(state.rows[worst])}: at t={float(state.t[worst]):.4g} no "
        f"step is small enough (the score is not finite or not smooth there); try a larger sde.eps, "
        f"sampler.rtol or sampler.atol"
    )


class Recorder:
    """Fills a film with samples that reach each of its moments in different rounds.

    Inside a step, after a share c of its duration, a sample is shown where a step to that moment would put it with
    sqrt(c) times the noise of the whole step. This gives the right law at each moment, which the chord between the two
    ends of the step does not, and needs no draw, which would change the samples.
    """

    def __init__(self, sampler: AdaptiveSDE, sde: SDE, film: Film, x: Tensor):
        self.sampler, self.sde, self.film = sampler, sde, film
        self.moments = [*sde.even(torch.tensor(film.shares[:-1], dtype=torch.float64)).tolist(), sde.eps]
        self.states = x[: film.rows].expand(len(self.moments), *[-1] * x.ndim).clone()

    def add(self, before: Running, trial: Trial) -> None:
        """Stores the samples whose accepted steps pass moments of the film, at these moments."""
        watched = trial.accepted & (before.rows < self.states.shape[1])
        for reached, moment, state in zip(self.film.shares, self.moments, self.states, strict=True):
            inside = (watched & (before.u < reached) & (reached <= trial.u)).nonzero()[:, 0]
            if len(inside):
                state[before.rows[inside]] = self.shown(before, trial, inside, reached, moment)

    def shown(self, before: Running, trial: Trial, inside: Tensor, reached: float, moment: float) -> Tensor:
        """Returns the samples of the rows ``inside`` at a moment within their steps.

        Arguments:
            inside: indices into the rows of ``before`` and ``trial``.
            reached, moment: the share of the way, and the time t there.
        """
        t, s, noise, end = before.t[inside], trial.t[inside], trial.noise[inside], trial.heun
        tau_t, tau_s, tau = (noise_variance(self.sde, time) for time in (t, s, torch.full_like(t, moment)))
        clock, q2 = self.sampler.clock, self.sampler.sigma_data**2
        share = torch.where(reached < trial.u[inside], clock(tau_t, tau) / clock(tau_t, tau_s), 1.0)
        alpha = self.sde.alpha(torch.full_like(tau, moment)) / self.sde.alpha(s)
        share, scale = (
            per_sample(column.to(end.dtype), end[inside]) for column in (share, alpha * (tau + q2) / (tau_s + q2))
        )
        drawn = torch.lerp(trial.base[inside], (end - trial.noise)[inside], share) + share.sqrt() * noise
        return scale * drawn

    def show(self) -> None:
        """Hands the states to the film."""
        for moment, state in zip(self.moments, self.states, strict=True):
            self.film.add(moment, state)
