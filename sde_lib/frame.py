r"""The map from any linear SDE to the cosine SDE, under which probability flows are solved by default.

.. math:: y = x / \sqrt{\alpha^2 + \sigma^2}, \qquad \theta = \arctan(\sigma/\alpha)

carries the marginals p_t of any SDE of :mod:`scoresde.sde_lib.base` to those of :class:`scoresde.sde_lib.Cosine` at the
time theta, and with them the score, s_y = S s_x with S = sqrt(alpha^2 + sigma^2). So all SDEs share one probability
flow, with different clocks t and scales S. It is solved in theta, where it is smooth: for data of unit variance
dy/dtheta has at most unit variance; for data N(0, I) y is constant, and for a single point it moves along an ellipse.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .affine import combinations
from .base import SDE, ScoreFn, per_sample
from .cosine import Cosine
from .rows import by_rows, of_rows


@dataclass(frozen=True)
class Frame:
    """A problem (SDE, score) for y that is solved in place of the original problem for x, with x = scale(t) y.

    Attributes:
        sde: the SDE of y.
        score: the score of y under it; it takes times in float64 whatever the precision of y.
        original: the SDE of x.
    """

    sde: SDE
    score: ScoreFn
    original: SDE

    def scale(self, t: float) -> float:
        """Returns x / y at the original SDE's time t."""
        if self.sde is self.original:
            return 1.0
        moment = torch.tensor(t, dtype=torch.float64)
        return float(torch.hypot(self.original.alpha(moment), self.original.sigma(moment)))

    def time(self, t: float) -> float:
        """Returns the original SDE's time in [eps, T] at the time t of this frame's SDE."""
        if self.sde is self.original:
            return t
        half_log_snr = self.sde.half_log_snr(torch.tensor(t, dtype=torch.float64))
        return min(max(float(self.original.time(half_log_snr)), self.original.eps), self.original.T)


class Flow:
    """The probability flow dy/dt = f y - g^2/2 score as a field of :func:`scoresde.sde_lib.integrate`.

    Arguments:
        sde, score: the problem, in its frame.
        shape: the shape of one sample; the field's rows are samples, flattened.
        dtype: the dtype in which the score is evaluated, whatever the precision of the rows.
    """

    def __init__(self, sde: SDE, score: ScoreFn, shape: tuple[int, ...], dtype: torch.dtype):
        self.sde, self.score, self.shape, self.dtype = sde, score, shape, dtype

    def stages(self, t: Tensor) -> list[Callable[[Tensor, Tensor], Tensor]]:
        """Returns m functions (y, rows) -> dy/dt, one for each row of t (m, b); see ``Field`` of sde_lib/ode.py."""

        def velocity(combination: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda y, rows: combination(y.reshape(-1, *self.shape).to(self.dtype), rows).flatten(1).to(y.dtype)

        def late(t: Tensor, A: Tensor, C: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
            """Returns a combination that is made once the rows are given, as a condition for each sample requires."""
            return lambda x, rows: combinations(of_rows(self.score, rows), t[None], A[None], C[None], self.dtype)[0](x)

        def early(combination: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda x, rows: combination(x)

        A, C = self.sde.f(t), -0.5 * self.sde.g(t).square()
        if hasattr(self.score, "of_rows"):
            return [velocity(late(*moment)) for moment in zip(t, A, C, strict=True)]
        return [velocity(early(combination)) for combination in combinations(self.score, t, A, C, self.dtype)]

    def __call__(self, y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """Returns dy/dt at y (b, n) and t (b,), for these b rows of the batch."""
        return self.stages(t[None])[0](y, rows)


CLOCKS = ("angle", "t")


def check_clock(clock: str) -> None:
    """Refuses a clock that is neither ``angle`` nor ``t``, naming it as a constructor's own key."""
    if clock not in CLOCKS:
        raise ValueError(f"`clock`={clock} must be {' or '.join(CLOCKS)}")


def frame(sde: SDE, score: ScoreFn, clock: str) -> Frame:
    """Returns the problem unchanged (``clock="t"``) or mapped to the cosine SDE (``clock="angle"``), in which case its
    times are angles.
    """
    if clock == "t":
        return Frame(sde, by_rows(score, lambda score: lambda x, t: score(x, t.to(x.dtype))), sde)
    ends = torch.tensor([sde.eps, sde.T], dtype=torch.float64)
    eps, T = torch.atan2(sde.sigma(ends), sde.alpha(ends)).tolist()
    cosine = Cosine(T=min(T, math.nextafter(math.pi / 2, 0)), eps=eps)  # atan2 may round to pi/2, which Cosine refuses
    return Frame(cosine, under(sde, score, cosine), sde)


def under(sde: SDE, score: ScoreFn, other: SDE) -> ScoreFn:
    """Returns a score under one SDE as a score under another, evaluated at equal sigma/alpha.

    The result takes times in any precision. A callable without a method ``under`` is evaluated in its SDE's [eps, T]
    only, at the nearer end for levels outside.

    Arguments:
        sde, other: the SDE of the given score, and that of the result.
        score: any callable (x, t) -> score; its method ``under(sde, other)``, if it has one, is used.
    """
    own = getattr(score, "under", None)
    if own is not None:
        return own(sde, other)

    def read(score: ScoreFn) -> ScoreFn:
        def evaluate(y: Tensor, t: Tensor) -> Tensor:
            time = sde.time(other.half_log_snr(t)).clamp(sde.eps, sde.T)
            scale = per_sample(sde.alpha(time) / other.alpha(t), y).to(y.dtype)
            return scale * score(scale * y, time.to(y.dtype))

        return evaluate

    return by_rows(score, read)
