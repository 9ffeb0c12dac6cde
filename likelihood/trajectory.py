"""The probability flow and the integral of its divergence, as :func:`scoresde.sde_lib.integrate` takes them.

The divergence is integrated in one of two ways: beside the state, which :class:`DivergenceFlow` then moves
(:class:`Augmented`); or after each accepted step of a state that :class:`scoresde.sde_lib.frame.Flow` moves, at nodes
along its interpolant (:class:`AtNodes`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Probes, divergence, of_rows
from scoresde.sde_lib.divergence import Control
from scoresde.sde_lib.frame import Frame
from scoresde.sde_lib.ode import Step
from scoresde.sde_lib.quadrature import gauss_legendre

LONGEST = 1.0  # in half log-SNR: at least four nodes a factor e of sigma/alpha
TINY = 1e-9  # added to the longest step: next to T it would round to 0
NODES = list(zip(*(column.tolist() for column in gauss_legendre(4)), strict=True))  # (node, weight) on [0, 1]


@dataclass(frozen=True)
class DivergenceFlow:
    """The velocity v = f y - g^2/2 score of the probability flow, and its divergence.

    Attributes:
        problem: the frame in which the flow is solved.
        probes: how the divergence is computed, by n = ``probes.estimates(D)`` estimates.
        control: maps times t (b,) to the control variate of random probes, or to None.
        shape: the shape of one sample.
        dtype: the dtype in which the score is evaluated.
    """

    problem: Frame
    probes: Probes
    control: Callable[[Tensor], Control | None]
    shape: torch.Size
    dtype: torch.dtype

    @property
    def dim(self) -> int:
        return self.shape.numel()

    def __call__(self, y: Tensor, t: Tensor, rows: Tensor, vectors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the velocity at y (b, D), and the estimates of its divergence, (n, b).

        Arguments:
            t: times in the frame, (b,).
            rows: which samples of the batch these are, (b,).
            vectors: the random probes of the whole batch, (k, B, *); None for the exact trace.
        """
        at = y.reshape(-1, *self.shape).to(self.dtype)
        control = self.control(t) if vectors is not None else None
        own = None if vectors is None else vectors[:, rows]
        score = of_rows(self.problem.score, rows)
        s, div = divergence(lambda u: score(u, t), at, self.probes, own, control)
        s, div = s.flatten(1).to(y.dtype), div.to(y.dtype)
        f, half_g2 = self.problem.sde.f(t), 0.5 * self.problem.sde.g(t).square()
        return f[:, None] * y - half_g2[:, None] * s, f * self.dim - half_g2 * div


@dataclass(frozen=True)
class Augmented:
    """The right-hand side of the state (y, integrals of the divergence), (b, D + n), with fixed probes."""

    flow: DivergenceFlow
    vectors: Tensor | None

    def __call__(self, y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        velocity, div = self.flow(y[:, : self.flow.dim], t, rows, self.vectors)
        return torch.cat([velocity, div.T], dim=1)

    def norm(self, error: Tensor) -> Tensor:
        """Maps scaled errors (b, D + n) to the larger of the state's rms error and the integral's error, (b,): one mean
        over both would hide the integral's in many dimensions. With random probes only the state's counts.
        """
        state = error[:, : self.flow.dim].square().mean(1).sqrt()
        if self.vectors is not None:  # steps that depend on random probes would bias the estimates
            return state
        return torch.maximum(state, error[:, self.flow.dim :].abs().amax(1))


@dataclass(frozen=True)
class AtNodes:
    """The integral of the divergence over accepted steps, by four Gauss-Legendre nodes a step.

    Attributes:
        flow: the velocity and its divergence.
        draw: returns the random probes of the whole batch for one node, (k, B, *).
        independent: whether ``draw`` returns new probes for each node, so that the nodes' variances add up.
    """

    flow: DivergenceFlow
    draw: Callable[[], Tensor]
    independent: bool

    def __call__(self, step: Step) -> Tensor:
        """Returns the integral's estimates over a step, (b, n), and behind them, if the nodes are independent, the sums
        of their variances and of the squares of these, (b, n + 2).

        Every round of trial steps draws for the whole batch, also one that accepts none, so that no sample's probes
        depend on the other samples.
        """
        dim = self.flow.dim
        total = step.y.new_zeros(len(step.rows), self.flow.probes.estimates(dim))
        variances = step.y.new_zeros(2, len(step.rows))
        for share, weight in NODES:
            vectors = self.draw()
            if len(step.rows) == 0:
                continue
            div = self.estimates(step, share, vectors)
            size = weight * step.h.to(step.y.dtype)
            total = total + size[:, None] * div.T
            if self.independent:
                variances = variances + with_square((size * self.flow.probes.stderr(div, dim)).square())
        return torch.cat([total, variances.T], 1) if self.independent else total

    def estimates(self, step: Step, share: float, vectors: Tensor) -> Tensor:
        """Returns the estimates of the divergence at a share in [0, 1] of a step, (n, b).

        Raises:
            FloatingPointError: the score or its divergence is not finite.
        """
        problem = self.flow.problem
        t = (step.t + share * step.h).clamp(problem.sde.eps, problem.sde.T)
        velocity, div = self.flow(step.state(share), t, step.rows, vectors)
        lost = ~(velocity.isfinite().all(1) & div.isfinite().all(0))
        if bool(lost.any()):
            which = int(lost.nonzero()[0])
            raise FloatingPointError(
                f"the score or its divergence is not finite for sample {int(step.rows[which])} at "
                f"t={problem.time(float(t[which])):.4g}; try a larger sde.eps"
            )
        return div


def longest_step(sde: SDE, t: Tensor) -> Tensor:
    """Returns the step from t (b,) over which sigma/alpha grows by a factor e, but not beyond T (to 1e-9). Without
    this limit a step could miss a change of the divergence where x stands still, which the state's error does not show.
    """
    return sde.time(sde.half_log_snr(t) - LONGEST).clamp_max(sde.T) - t + TINY


def with_square(variance: Tensor) -> Tensor:
    """Stacks a variance (B,) and its square, (2, B)."""
    return torch.stack([variance, variance.square()])
