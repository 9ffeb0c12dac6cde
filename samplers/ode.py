r"""Sampling by the probability-flow ODE (arXiv 2011.13456, eq. 13), which draws no noise after the start.

.. math:: \frac{dx}{dt} = f(t)\,x - \tfrac12 g(t)^2\,\nabla_x\log p_t(x), \qquad \text{from } T \text{ to } eps

``clock=angle`` solves this ODE as the cosine SDE's, in theta = arctan(sigma/alpha) and y = x/sqrt(alpha^2 + sigma^2),
in which it is smooth (:mod:`scoresde.sde_lib.frame`); ``clock=t`` solves it in t and x.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn, frame, integrate
from scoresde.sde_lib.frame import Flow, check_clock
from scoresde.sde_lib.ode import SOLVER_KEYS, Visit, check_solver

from .last import Last, check_last, finish
from .pc import Film, OnStep, Sampler


@dataclass(frozen=True)
class ProbabilityFlow(Sampler):
    """Solves the probability-flow ODE from T to eps.

    Arguments:
        method: ``tsit5`` or ``dopri5`` (a step size for each sample) or ``torchdiffeq.NAME``; see
            :mod:`scoresde.sde_lib.ode`.
        clock: the variable of integration, ``angle`` or ``t``.
        rtol, atol: tolerances of the local error; published 1e-5.
        steps: the number of steps of a torchdiffeq method without error control.
        last: the step from eps to the data, ``flow``, ``tweedie`` or ``none``; see :mod:`scoresde.samplers.last`.

    Raises:
        FloatingPointError: by a call, where the score is not finite or no step is small enough.
    """

    only_with: ClassVar[dict] = SOLVER_KEYS

    method: str = "tsit5"
    clock: Literal["angle", "t"] = "angle"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int = 100
    last: Last = "flow"

    def __post_init__(self):
        check_last(self.last)
        check_clock(self.clock)
        check_solver(self.method, self.rtol, self.atol, self.steps)

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
        problem, shape = frame(sde, score, self.clock), x.shape  # in the variables of the clock
        start = x.flatten(1) / problem.scale(sde.T)
        visit = Visit(film.shares, start, film.rows) if film else None
        x = integrate(
            Flow(problem.sde, problem.score, shape[1:], x.dtype),
            start,
            problem.sde.T,
            problem.sde.eps,
            method=self.method,
            rtol=self.rtol,
            atol=self.atol,
            steps=self.steps,
            on_step=on_step,
            visit=visit,
        ).reshape(shape)
        x = x * problem.scale(sde.eps)
        if film:
            for share, state in zip(film.shares, visit.states, strict=True):
                t = problem.time(problem.sde.T + share * (problem.sde.eps - problem.sde.T))
                film.add(t, problem.scale(t) * state.reshape(-1, *shape[1:]))
        return finish(self.last, sde, score, x)
