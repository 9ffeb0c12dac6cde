r"""Solvers of dy/dt = field(y, t) for a batch of independent problems.

``method="tsit5"``, the default, and ``method="dopri5"`` are our own: an embedded Runge-Kutta pair of orders 5 and 4
(Tsitouras 2011; Dormand and Prince 1980) with a step size, an error estimate and a PI controller *for each sample*. A
sample's path therefore does not depend on the other samples, and finished samples leave the batch. The error of a trial
step of size h is

.. math:: e = \Bigl\|\frac{h \sum_i (b_i - \hat b_i) k_i}{atol + rtol\,\max(|y_n|, |y_{n+1}|)}\Bigr\|,

it is accepted where :math:`e \le 1`, and the next step is :math:`0.84\,h\, e_n^{-0.6/5}\, e_{n-1}^{0.1/5}`, within
[0.2, 5] h (Hairer, Norsett and Wanner I, II.4). After a rejection the factor :math:`e_{n-1}^{0.1/5}` is left out, and
the step after the repeated one does not grow. The exponents in volume II, IV.2, are 0.7 and 0.4, and the factor is 0.9.
With our values the oracle's likelihoods need up to 15 % fewer evaluations than with those for the same worst error, and
one step in 180 is rejected.

``method="torchdiffeq.NAME"`` is the reference: a torchdiffeq method of ``METHODS``, with one step size for the whole
batch. Its adaptive methods get a norm that takes the worst sample and not the mean. No solver evaluates outside
[t0, t1], where sigma(t) may not exist.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .tableaux import PAIRS, Pair

Field = Callable[[Tensor, Tensor, Tensor], Tensor]
"""field(y, t, rows) returns dy/dt (b, n) for y (b, n), t (b,) in float64 (float32 on mps) and the rows' numbers in the
batch, (b,).

A field may have a method ``stages(t)``, which maps the moments of a step's stages after the first, t (m, b), to m
functions (y, rows) -> dy/dt, so that terms which depend only on time are computed once a step.
"""

Along = Callable[["Step"], Tensor]
"""Maps the accepted steps of one round, one trial step of every running sample, to their contributions to an integral,
(b, m).

It is called for rounds without an accepted step too, so that its random draws do not depend on other samples. With
``differentiable`` it must draw nothing: it is called for the rounds with a step, and again in the backward pass.
"""

Norm = Callable[[Tensor], Tensor]
"""Maps scaled errors (b, n) to one number a sample, (b,)."""


class Visit:
    """The states of the first ``count`` samples at some moments, filled while the solver runs.

    Arguments:
        shares: the moments, as shares in [0, 1] of the interval from t0 to t1.
        y: the state at t0, (B, n).
        count: the number of samples.

    Attributes:
        states: (moments, count, n).
    """

    def __init__(self, shares: list[float], y: Tensor, count: int):
        self.shares = torch.tensor(shares, dtype=torch.float64, device="cpu")
        self.states = y[:count].expand(len(shares), -1, -1).clone()


ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4")
METHODS = ("tsit5", "dopri5", *(f"torchdiffeq.{name}" for name in ADAPTIVE + FIXED))

STEPPED = tuple(f"torchdiffeq.{name}" for name in FIXED)
SOLVER_KEYS = {"steps": ("method", STEPPED)} | dict.fromkeys(
    ("rtol", "atol"), ("method", tuple(name for name in METHODS if name not in STEPPED))
)
"""The keys that some methods do without, by name: ``method``, and the methods that read the key. The attribute
``only_with`` of classes that have these keys.
"""


def rms(error: Tensor) -> Tensor:
    """Returns the root mean square over each sample's values, (b,), for errors (b, n)."""
    return error.square().mean(1).sqrt()


def check_solver(method: str, rtol: float, atol: float, steps: int) -> None:
    """Raises a ValueError for settings that no solver here takes, naming them as a constructor's own keys."""
    if method not in METHODS:
        raise ValueError(f"`method`={method} is no ODE solver here; choose one of {', '.join(METHODS)}")
    for key, value in (("rtol", rtol), ("atol", atol)):
        if not 0 < value < 1:
            raise ValueError(f"`{key}`={value} must lie between 0 and 1; type for example `{key}`=1e-5")
    if steps < 1:
        raise ValueError(
            f"`steps`={steps} must be at least 1; it is the number of steps of a method without error control"
        )


def integrate(
    field: Field,
    y: Tensor,
    t0: float,
    t1: float,
    *,
    method: str = "tsit5",
    rtol: float | Tensor = 1e-5,
    atol: float = 1e-5,
    steps: int = 100,
    norm: Norm = rms,
    on_step: Callable[[float], None] | None = None,
    visit: Visit | None = None,
    along: Along | None = None,
    longest: Callable[[Tensor], Tensor] | None = None,
    differentiable: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Returns y at t1, from y (B, n) at t0.

    Arguments:
        field: the right-hand side; see :data:`Field`.
        method: ``"tsit5"`` or ``"dopri5"`` with a step for each sample, or ``"torchdiffeq.NAME"``.
        rtol, atol: the tolerances of the local error; see the module's formula. rtol may differ by column, (n,).
        steps: the number of steps of a torchdiffeq method without error control (euler, midpoint, heun2, heun3, rk4).
        norm: the norm of a sample's scaled errors.
        on_step: called with the share of the interval that is solved, in [0, 1], for progress.
        visit: receives the states at its moments; it does not change the steps.
        along: an integral along the solution that does not affect the steps; see :data:`Along`. The result is then
            (y, total), with total (B, m) the sum of its contributions. For tsit5 and dopri5.
        longest: maps t (b,) to the longest step that may start there, (b,): the integral may change where y is
            constant. For tsit5 and dopri5.
        differentiable: whether the result can be differentiated with respect to y and to the field's parameters. The
            steps are found first and then taken again, each with checkpointing: the gradient is that of the discrete
            solution, to rounding, and the memory is that of one step's evaluations and of one state a step.

    Raises:
        FloatingPointError: the field is not finite, or no step size is small enough.
        ValueError: a setting is out of range, or the method has no ``along``, ``longest`` or ``differentiable``.
    """
    check_solver(method, float(torch.as_tensor(rtol).max()), atol, steps)
    if differentiable:
        if method not in PAIRS:
            raise ValueError(f"method={method} has no gradient; type method=tsit5")
        path: Path = []
        with torch.no_grad():
            adaptive(PAIRS[method], field, y, t0, t1, rtol, atol, norm, on_step, visit, None, longest, path)
        return retrace(PAIRS[method], field, y, path, along)
    if method in PAIRS:
        return adaptive(PAIRS[method], field, y, t0, t1, rtol, atol, norm, on_step, visit, along, longest)
    if along is not None or longest is not None:
        raise ValueError(f"method={method} does not show its steps; type method=tsit5")
    return reference(field, y, t0, t1, method.removeprefix("torchdiffeq."), rtol, atol, steps, norm, on_step, visit)


SMALLEST = 1e-12  # a step of at most this share of the interval must not be rejected


def combine(weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    """Returns sum_i weights_i stages_i, accumulated in one new tensor."""
    terms = [(w, k) for w, k in zip(weights, stages) if w]
    total = terms[0][1] * terms[0][0]
    for weight, stage in terms[1:]:
        total.add_(stage, alpha=weight)
    return total


@dataclass(frozen=True)
class Step:
    """A step of some rows (b,), from t to t + h (b,) and from y to ``end`` (b, n), with dy/dt at its stages."""

    pair: Pair
    rows: Tensor
    t: Tensor
    h: Tensor
    y: Tensor
    end: Tensor
    stages: list[Tensor]

    def take(self, which: Tensor) -> "Step":
        """Returns the steps of some rows, given by an index or a mask."""
        stages = [k[which] for k in self.stages]
        return Step(self.pair, self.rows[which], self.t[which], self.h[which], self.y[which], self.end[which], stages)

    def state(self, share: float | Tensor) -> Tensor:
        """Returns y at t + share h, (b, n), to order 4; share is a number in [0, 1], or one for each row, (b, 1).

        It is the cubic Hermite interpolant, and u^2 (1 - u)^2 h times a combination of the stages (Hairer, Norsett and
        Wanner I, II.6, for dopri5; Tsitouras 2011 for tsit5).
        """
        u, h = share, self.h.to(self.y.dtype)[:, None]
        cubic = (1 + 2 * u) * (1 - u) ** 2 * self.y + u**2 * (3 - 2 * u) * self.end
        slopes = (1 - u) * self.stages[0] - u * self.stages[-1] + u * (1 - u) * combine(self.pair.dense, self.stages)
        return cubic + h * u * (1 - u) * slopes


Path = list[tuple[Tensor, Tensor, Tensor, tuple[float, float]]]
"""The accepted steps in order: the rows, their t, their step size h, and the interval."""


def runge_kutta(
    pair: Pair,
    field: Field,
    y: Tensor,
    t: Tensor,
    h: Tensor,
    rows: Tensor,
    interval: tuple[float, float],
    k: Tensor | None = None,
    count: int | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Returns the end of a step of size h (b,) from t (b,), and dy/dt at its stages.

    Arguments:
        rows: the rows' numbers in the batch, (b,).
        interval: the lower and the upper end, to which times are clamped.
        k: dy/dt at the start, if it has been evaluated.
        count: -1 to leave out the last stage, dy/dt at the end: the error, the next step and interpolation need it.
    """
    nodes = torch.tensor(pair.C[1:count], dtype=t.dtype, device=t.device)[:, None]
    moments = (t + nodes * h).clamp(*interval)
    if hasattr(field, "stages"):
        functions = field.stages(moments)
    else:
        functions = [lambda y, rows, moment=moment: field(y, moment, rows) for moment in moments]
    step = h.to(y.dtype)[:, None]
    stages = [field(y, t.clamp(*interval), rows) if k is None else k]
    for i, weights in enumerate(pair.A):
        trial = torch.addcmul(y, step, combine(weights, stages))
        if i < len(functions):
            stages.append(functions[i](trial, rows))
    return trial, stages


def retrace(
    pair: Pair, field: Field, y: Tensor, path: Path, along: Along | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Repeats the steps of a path as differentiable functions of y (B, n), with checkpointing.

    Returns y at the end, (B, n), and with ``along`` the sums of its contributions, (B, m), too.
    """
    count, total = len(y), None
    for rows, t, h, interval in path:

        def step(y: Tensor, rows=rows, t=t, h=h, interval=interval) -> tuple[Tensor, ...]:
            end, stages = runge_kutta(pair, field, y, t, h, rows, interval, count=None if along else -1)
            return (end, along(Step(pair, rows, t, h, y, end, stages))) if along else (end,)

        end, *part = checkpoint(step, y[rows], use_reentrant=False)
        y = y.index_copy(0, rows, end)
        if part:
            total = part[0].new_zeros(count, part[0].shape[1]) if total is None else total
            total = total.index_add(0, rows, part[0])
    if along is None:
        return y
    return y, y.new_zeros(count, 1) if total is None else total


@dataclass(frozen=True)
class Running:
    """The samples that have not reached t1; all of shape (b,) but y and k, (b, n).

    Time is measured by the share of the interval that is solved, from 0 to 1, whether t rises or falls.

    Attributes:
        rows: the samples' numbers in the batch.
        done: the share of the interval that is solved.
        k: dy/dt at y.
        h: the size of the next trial step, as a share of the interval.
        previous: the last accepted error, at least 1e-4; 1e-4 before the first.
        rejected: whether the last trial was rejected.
    """

    rows: Tensor
    done: Tensor
    y: Tensor
    k: Tensor
    h: Tensor
    previous: Tensor
    rejected: Tensor

    def keep(self, which: Tensor) -> "Running":
        """Returns the samples of a mask."""
        values = (self.rows, self.done, self.y, self.k, self.h, self.previous, self.rejected)
        return Running(*(v[which] for v in values))


@dataclass(frozen=True)
class Trial:
    """One trial step of every running sample, from y to ``end`` (b, n), with dy/dt at its stages: its size h as a share
    of the interval, its scaled error, and whether that is at most 1, (b,) each.
    """

    h: Tensor
    end: Tensor
    stages: list[Tensor]
    error: Tensor
    accepted: Tensor


@dataclass(frozen=True)
class Adaptive:
    """The trial steps and the step-size control of the module docstring, on the interval from t0 to t1."""

    pair: Pair
    field: Field
    t0: float
    t1: float
    rtol: float | Tensor
    atol: float
    norm: Norm
    longest: Callable[[Tensor], Tensor] | None

    @property
    def span(self) -> float:
        return self.t1 - self.t0

    @property
    def interval(self) -> tuple[float, float]:
        return min(self.t0, self.t1), max(self.t0, self.t1)

    def begin(self, y: Tensor) -> Running:
        """Returns the whole batch at t0, with a first step size for each sample."""
        clock = torch.float32 if y.device.type == "mps" else torch.float64
        rows = torch.arange(len(y), device=y.device)

        def call(y: Tensor, share: Tensor) -> Tensor:
            return self.field(y, (self.t0 + self.span * share).clamp(*self.interval), rows)

        done = torch.zeros(len(y), dtype=clock, device=y.device)
        k = call(y, done)
        slope = lambda y, share: self.span * call(y, share)  # dy/dshare  # noqa: E731
        h = first_step(slope, y, done, self.span * k, self.rtol, self.atol, self.norm)
        return Running(rows, done, y, k, h, torch.full_like(h, 1e-4), torch.zeros_like(h, dtype=torch.bool))

    def attempt(self, now: Running) -> Trial:
        """Returns a trial step of each sample.

        Raises:
            FloatingPointError: a step of at most ``SMALLEST`` is rejected.
        """
        t, h = self.t0 + self.span * now.done, torch.minimum(now.h, 1 - now.done)
        if self.longest is not None:
            h = torch.minimum(h, self.longest(t.clamp(*self.interval)) / abs(self.span))
        end, stages = runge_kutta(self.pair, self.field, now.y, t, self.span * h, now.rows, self.interval, now.k)
        scale = self.atol + self.rtol * torch.maximum(now.y.abs(), end.abs())
        step = (self.span * h).to(now.y.dtype)[:, None]
        error = self.norm(step * combine(self.pair.error, stages) / scale).to(h.dtype)
        accepted = error <= 1  # a NaN is a rejection
        if not bool((accepted | (h > SMALLEST)).all()):
            worst = int((~accepted & (h <= SMALLEST)).nonzero()[0])
            raise FloatingPointError(
                f"the ODE cannot be solved for sample {int(now.rows[worst])}: at t={float(t[worst]):.4g} no "
                f"step is small enough (the score is not finite or not smooth there); try a larger sde.eps or tolerance"
            )
        return Trial(h, end, stages, error, accepted)

    def taken(self, now: Running, trial: Trial) -> Step:
        """Returns the accepted steps, in t."""
        t, h = self.t0 + self.span * now.done, self.span * trial.h
        return Step(self.pair, now.rows, t, h, now.y, trial.end, trial.stages).take(trial.accepted)

    def moved(self, now: Running, trial: Trial) -> Running:
        """Returns the samples after their accepted steps, with the size of the next."""
        accepted = trial.accepted
        error = torch.where(trial.error.isfinite(), trial.error, 1e10).clamp_min(1e-10)
        factor = 0.84 * error ** (-0.6 / 5) * torch.where(accepted, now.previous, 1.0) ** (0.1 / 5)
        factor = factor.clamp(0.2, 5.0)
        grows = accepted & ~now.rejected  # no growth just after a rejection
        return Running(
            rows=now.rows,
            done=torch.where(accepted, now.done + trial.h, now.done),
            y=torch.where(accepted[:, None], trial.end, now.y),
            k=torch.where(accepted[:, None], trial.stages[-1], now.k),
            h=trial.h * torch.where(grows, factor, factor.clamp_max(1.0)),
            previous=torch.where(accepted, error.clamp_min(1e-4), now.previous),
            rejected=~accepted,
        )


def adaptive(
    pair: Pair,
    field: Field,
    y: Tensor,
    t0: float,
    t1: float,
    rtol: float | Tensor,
    atol: float,
    norm: Norm,
    on_step: Callable[[float], None] | None = None,
    visit: Visit | None = None,
    along: Along | None = None,
    longest: Callable[[Tensor], Tensor] | None = None,
    path: Path | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The per-sample adaptive solver of the module docstring.

    Arguments:
        path: a list to which the accepted steps are appended; the other arguments and the result are those of
            :func:`integrate`.
    """
    if t0 == t1 or len(y) == 0:
        nothing = y.new_zeros(len(y), 1)  # adds to sums of any width
        return y.clone() if along is None else (y.clone(), nothing)
    solver = Adaptive(pair, field, t0, t1, rtol, atol, norm, longest)
    now, result, total = solver.begin(y), torch.empty_like(y), None
    while len(now.rows):
        trial = solver.attempt(now)
        accepted = trial.accepted
        if path is not None or visit is not None or along is not None:
            taken = solver.taken(now, trial)
            if path is not None and len(taken.rows):
                path.append((taken.rows, taken.t, taken.h, solver.interval))
            if visit is not None:
                interpolate(visit, taken, now.done[accepted], trial.h[accepted])
            if along is not None:
                part = along(taken)
                total = part.new_zeros(len(result), part.shape[1]) if total is None else total
                total.index_add_(0, taken.rows, part)
        finished = accepted & (now.done + trial.h >= 1)
        now = solver.moved(now, trial)
        if bool(finished.any()):
            result[now.rows[finished]] = now.y[finished]
            now = now.keep(~finished)
        if on_step:
            on_step(1 - float((1 - now.done).sum()) / len(result))
    return result if along is None else (result, total)


def interpolate(visit: Visit, step: Step, done: Tensor, h: Tensor) -> None:
    """Stores the states of accepted steps at the moments in them; done and h (b,) are shares of the interval."""
    watched = step.rows < visit.states.shape[1]
    for moment, share in enumerate(visit.shares.tolist()):
        inside = (watched & (done < share) & (share <= done + h * (1 + 1e-12))).nonzero()[:, 0]
        if len(inside):
            part = step.take(inside)
            u = ((share - done[inside]) / h[inside])[:, None].to(part.y.dtype)
            visit.states[moment, part.rows] = part.state(u)


def first_step(slope, y: Tensor, done: Tensor, k: Tensor, rtol: float | Tensor, atol: float, norm: Norm) -> Tensor:
    """Returns a first step size for each sample, as a share of the interval (Hairer, Norsett and Wanner I, II.4, with
    the constants there: one Euler step estimates y'').

    Arguments:
        slope: maps y (b, n) and the share solved (b,) to dy/dshare.
        k: dy/dshare at y and ``done``.
    """
    scale = atol + rtol * y.abs()
    d0, d1 = norm(y / scale), norm(k / scale)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).clamp_max(1.0)
    d2 = norm((slope(y + h0[:, None] * k, done + h0.to(done.dtype)) - k) / scale) / h0
    steepest = torch.maximum(d1, d2)
    h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp_min(1e-6), (0.01 / steepest) ** (1 / 5))
    h = torch.minimum(100 * h0, h1)
    return torch.where(h.isfinite(), h, 1e-6).clamp(1e-9, 1.0).to(done.dtype)


def reference(
    field: Field,
    y: Tensor,
    t0: float,
    t1: float,
    method: str,
    rtol,
    atol,
    steps,
    norm: Norm,
    on_step=None,
    visit: Visit | None = None,
) -> Tensor:
    """Returns torchdiffeq's solution at t1: times are clamped to [t0, t1], and adaptive methods take the worst sample's
    error. Raises a FloatingPointError if it finds none.

    Arguments:
        method: a method of torchdiffeq; the other arguments are those of :func:`integrate`.
    """
    from torchdiffeq import odeint

    low, high = min(t0, t1), max(t0, t1)
    clock = torch.float32 if y.device.type == "mps" else torch.float64
    rows = torch.arange(len(y), device=y.device)

    def right_hand_side(t: Tensor, y: Tensor) -> Tensor:
        t = t.to(clock).clamp(low, high)
        if on_step:
            on_step((float(t) - t0) / (t1 - t0))
        return field(y, t.expand(len(y)), rows)

    shares = [0.0, *(visit.shares.tolist() if visit is not None else []), 1.0]
    times = [t0 + (t1 - t0) * share for share in sorted(set(shares))]
    times = torch.tensor(times, dtype=clock, device=y.device)
    if method in ADAPTIVE:  # without step_t it steps past t1, where times are clamped, and interpolates back
        options = {"norm": lambda error: norm(error).max(), "step_t": times[-1:]}
    else:
        options = {"step_size": abs(t1 - t0) / steps}
    try:
        path = odeint(right_hand_side, y, times, rtol=rtol, atol=atol, method=method, options=options)
    except AssertionError as error:  # torchdiffeq's own "underflow in dt"
        raise FloatingPointError(
            f"torchdiffeq's {method} gave up: {error}; try method=tsit5 or a larger tolerance"
        ) from None
    if not math.isfinite(float(path[-1].sum())):
        raise FloatingPointError(f"torchdiffeq's {method} ended in values that are not finite; try method=tsit5")
    if visit is not None:
        order = sorted(set(shares))
        visit.states.copy_(path[[order.index(share) for share in visit.shares.tolist()], : visit.states.shape[1]])
    return path[-1]
