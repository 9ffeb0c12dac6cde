r"""The reverse SDE with a step size for each sample (arXiv 2105.14080), its noise never thrown away.

Euler-Maruyama and the improved Euler step share one Brownian increment, and their difference is the local error:

.. math::
    x' &= \rho\,x + E\,M(x, t) + \alpha_s V_s\,\Delta W, \qquad
    x'' = x' + \tfrac12 E\,[M(x', s) - M(x, t)], \\
    e &= \frac{1}{\sqrt d}\Bigl\|\frac{x'' - x'}{\max(atol,\ rtol\,\max(|x'|, \rho\,|x'_{prev}|))}\Bigr\|_2 .

(The published error has no rho: of a long step down from much noise it sees little, x'_prev being large.) A step with
e <= 1 ends in x'', and the next has the size theta h e^-r, five times the last at most. The variables are those of
:mod:`scoresde.samplers.additive` at eta = 1, in which the noise is additive: V = (sigma/alpha)^2 + q^2, the clock is
1/V, Delta W ~ N(0, 1/V_s - 1/V_t), M = x/alpha + alpha V score, rho = alpha_s V_s/(alpha_t V_t) and E = alpha_s (1 -
V_s/V_t). So noise itself is never an error, and what a rejection must keep is a plain Brownian motion. Step sizes are
measured as shares of the way from T to eps (``SDE.even``), which needs no inverse of the clock. q is the data's std: a
step down from pure noise then lands where the data lie, and has the error it should have. (With q = 0 it lands in their
middle, where the score may vanish and no error be seen; with a large q the score's linear part must be followed at
three to four times the price.)

**Rejection with memory** (Rackauckas and Nie 2017, doi 10.3934/dcdsb.2017133). Whether a step is rejected depends on
its noise. To draw another after a rejection is to sample from the noises that are not rejected: a bias that no
tolerance cures, largest in few dimensions, where a single coordinate decides. So a rejected increment stays: it goes
on the sample's stack, and a shorter step takes its part of it from the Brownian bridge,

.. math:: \Delta W' \sim N\Bigl(\tfrac{c'}{c}\,\Delta W,\ \tfrac{c'(c - c')}{c}\Bigr)

with c, c' the clock's time of both, the remainder waiting on the stack. No step goes past the end of the top.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn, of_rows, per_sample

from .additive import variance
from .last import Last, check_last, finish
from .pc import Film, OnStep, Sampler

FIRST, SMALLEST = 0.01, 1e-12  # steps as shares of the way: the first, and the one that means that none is small enough
NOTCHES = (
    4  # step sizes change by powers of 2^(1/4): the rounding of a score leaves them, and so the noise, as they are
)


class Memory:
    """The Brownian increments that are known ahead of each sample: one stack a sample, the top is the next to come.

    Arguments:
        x: shape (b, n), as the increments will be.
        dtype: of moments.
    """

    def __init__(self, x: Tensor, dtype: torch.dtype):
        self.depth = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.ends = torch.zeros(len(x), 4, dtype=dtype, device=x.device)
        self.increments = x.new_zeros(len(x), 4, x.shape[1])

    @property
    def known(self) -> Tensor:
        """Whether anything is known of a sample's noise, shape (b,)."""
        return self.depth > 0

    @property
    def top(self) -> tuple[Tensor, Tensor]:
        return torch.arange(len(self.depth), device=self.depth.device), (self.depth - 1).clamp_min(0)

    def end(self, otherwise: float) -> Tensor:
        """The moment to which the top reaches, or another where nothing is known, shape (b,)."""
        return torch.where(self.known, self.ends[self.top], otherwise)

    def take(self, share: Tensor, span: Tensor, z: Tensor) -> Tensor:
        """The increments of steps that last ``span`` of the clock, ``share`` of the top, shapes (b,); z is (b, n).

        Where nothing is known they are drawn afresh; else bridged, and what is left of the top stays.
        """
        known, whole = self.known[:, None], self.increments[self.top]
        fraction = share[:, None].to(z.dtype)
        std = torch.sqrt(span * torch.where(self.known, 1 - share, 1.0))[:, None].to(z.dtype)
        taken = torch.where(known, fraction * whole, 0.0) + std * z
        self.increments[self.top] = whole - taken
        self.depth = self.depth - (self.known & (share >= 1)).long()
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
        """Forgets the samples that have arrived."""
        self.depth, self.ends, self.increments = self.depth[stay], self.ends[stay], self.increments[stay]


@dataclass(frozen=True)
class AdaptiveSDE(Sampler):
    """Solves the reverse SDE from T to eps, each sample at its own pace.

    A sample's path does not depend on its batch mates: every round takes one normal of the whole batch's shape, of
    which a sample uses its own row.

    Arguments:
        rtol, atol: the tolerances of the local error. Published: atol=0.0078, 1/128, for images in [-1, 1].
        safety: theta, the share of the step size that the error would allow.
        exponent: r, how the step size follows the error.
        sigma_data: q, the std of the Gaussian on which every step is exact; ``auto`` in the yaml takes the data's.
        last: the step from eps to the data, ``flow``, ``tweedie`` or ``none``; see :mod:`scoresde.samplers.last`.
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

    def clock(self, tau_t: Tensor, tau_s: Tensor) -> Tensor:
        """1/V_s - 1/V_t, without cancellation."""
        return (tau_t - tau_s) / ((tau_t + self.sigma_data**2) * (tau_s + self.sigma_data**2))

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
        start, result = x, torch.empty_like(x)
        scroll = Scroll(self, sde, film, x) if film else None
        rows = torch.arange(len(x), device=x.device)
        precision = torch.float32 if x.device.type == "mps" else torch.float64
        u = torch.zeros(len(x), dtype=precision, device=x.device)  # the share of the way that is done
        t = torch.full_like(u, sde.T)
        h, previous, memory = torch.full_like(u, FIRST), x, Memory(x.flatten(1), precision)

        def coefficients(*columns: Tensor) -> tuple[Tensor, ...]:
            """Numbers of each sample, shape (b,), as factors of x."""
            return tuple(per_sample(each, x) for each in torch.stack(columns).to(x.dtype))

        alpha, tau = sde.alpha(t), variance(sde, t)
        size = alpha * (tau + self.sigma_data**2)  # alpha V, by which v is x
        A, C = coefficients(1 / alpha, size)
        M = torch.addcmul(A * x, C, score(x, t.to(x.dtype)))
        while len(rows):
            z = randn_like(start)[rows]
            limit = memory.end(1.0)
            v = torch.where(u + h < limit - 1e-6 * h, u + h, limit)  # no sliver is left by rounding
            s, tau_limit = sde.even(v), variance(sde, sde.even(limit))
            alpha, tau_s = sde.alpha(s), variance(sde, s)
            size_s, span = alpha * (tau_s + self.sigma_data**2), self.clock(tau, tau_s)
            share = torch.where(v < limit, (span / self.clock(tau, tau_limit)).clamp_max(1.0), 1.0)
            increment = memory.take(share, span, z.flatten(1)).reshape(x.shape)

            rho, E, n, A = coefficients(size_s / size, size_s * span, size_s, 1 / alpha)
            base, noise, moment = rho * x, n * increment, s.to(x.dtype)
            euler = torch.addcmul(base + noise, E, M)
            M_s = torch.addcmul(A * euler, n, of_rows(score, rows)(euler, moment))
            difference = 0.5 * E * (M_s - M)
            scale = (self.rtol * torch.maximum(euler.abs(), (rho * previous).abs())).clamp_min(self.atol)
            error = (difference / scale).flatten(1).square().mean(1).sqrt().to(precision)
            accepted = error <= 1  # a NaN is a rejection
            if not bool((accepted | (v - u > SMALLEST)).all()):
                worst = int((~accepted & (v - u <= SMALLEST)).nonzero()[0])
                raise FloatingPointError(
                    f"the reverse SDE cannot be solved for sample {int(rows[worst])}: at t={float(t[worst]):.4g} no "
                    f"step is small enough (the score is not finite or not smooth there); try a larger sde.eps, "
                    f"sampler.rtol or sampler.atol"
                )

            error = torch.where(error.isfinite(), error, 1e10).clamp_min(1e-10)
            factor = (self.safety * error**-self.exponent).clamp(0.2, 5.0)
            h = (v - u) * torch.exp2(torch.floor(NOTCHES * torch.log2(factor)) / NOTCHES)
            arrived = accepted & (v >= 1)
            yes, heun = per_sample(accepted, x), euler + difference
            if scroll:
                scroll.add(rows, accepted, (u, v), t, s, base, heun, noise)
            memory.put_back(~accepted, v, increment.flatten(1))
            x, previous = torch.where(yes, heun, x), torch.where(yes, euler, previous)
            u, t, tau, size = (torch.where(accepted, *each) for each in ((v, u), (s, t), (tau_s, tau), (size_s, size)))
            if bool(arrived.any()):
                result[rows[arrived]] = x[arrived]
                stay = ~arrived
                rows, u, t, tau, size, h, x, previous, M, accepted, A, n, moment = (
                    each[stay] for each in (rows, u, t, tau, size, h, x, previous, M, accepted, A, n, moment)
                )
                memory.keep(stay)
            new = accepted.nonzero()[:, 0]
            if len(new):  # a rejected step's first evaluation still holds
                fresh = x[new]
                M = M.index_copy(
                    0, new, torch.addcmul(A[new] * fresh, n[new], of_rows(score, rows[new])(fresh, moment[new]))
                )
            if on_step:
                on_step(1 - float((1 - u).sum()) / len(result))
        if scroll:
            scroll.show()
        return finish(self.last, sde, score, result)


class Scroll:
    """The film of samples that do not keep step.

    Inside a step, after a share c of its clock, a sample is shown where the same step would have put it with sqrt(c) of
    the same noise: right in law at each moment, which the chord is not, and at no draw that would change the samples.
    """

    def __init__(self, sampler: AdaptiveSDE, sde: SDE, film: Film, x: Tensor):
        self.sampler, self.sde, self.film = sampler, sde, film
        self.moments = [*sde.even(torch.tensor(film.shares[:-1], dtype=torch.float64)).tolist(), sde.eps]
        self.states = x[: film.rows].expand(len(self.moments), *[-1] * x.ndim).clone()

    def add(
        self,
        rows: Tensor,
        accepted: Tensor,
        shares: tuple[Tensor, Tensor],
        t: Tensor,
        s: Tensor,
        start: Tensor,
        end: Tensor,
        noise: Tensor,
    ) -> None:
        """Notes accepted steps from t to s, at these shares of the way, which began at ``start``, rescaled to s, and
        took ``noise``.
        """
        watched, (u, v) = accepted & (rows < self.states.shape[1]), shares
        for reached, moment, state in zip(self.film.shares, self.moments, self.states, strict=True):
            inside = (watched & (u < reached) & (reached <= v)).nonzero()[:, 0]
            if len(inside):
                tau_t, tau_s, tau = (
                    variance(self.sde, each) for each in (t[inside], s[inside], torch.full_like(t[inside], moment))
                )
                clock, q2 = self.sampler.clock, self.sampler.sigma_data**2
                share = torch.where(reached < v[inside], clock(tau_t, tau) / clock(tau_t, tau_s), 1.0)
                alpha = self.sde.alpha(torch.full_like(tau, moment)) / self.sde.alpha(s[inside])
                share, scale = (
                    per_sample(each.to(end.dtype), end[inside]) for each in (share, alpha * (tau + q2) / (tau_s + q2))
                )
                drawn = torch.lerp(start[inside], (end - noise)[inside], share) + share.sqrt() * noise[inside]
                state[rows[inside]] = scale * drawn

    def show(self) -> None:
        for moment, state in zip(self.moments, self.states, strict=True):
            self.film.add(moment, state)
