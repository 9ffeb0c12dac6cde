r"""Sampling by the probability-flow ODE (arXiv 2011.13456, eq. 13): noise in, samples out, no randomness on the way.

.. math:: \frac{dx}{dt} = f(t)\,x - \tfrac12 g(t)^2\,\nabla_x\log p_t(x), \qquad \text{from } T \text{ to } eps
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sde_lib import SDE, ScoreFn, at, integrate
from sde_lib.ode import Visit, check_solver

from .pc import Film, OnStep, Sampler


@dataclass(frozen=True)
class ProbabilityFlow(Sampler):
    """Solves the probability-flow ODE from T to eps.

    Arguments:
        method: ``dopri5`` (a step size for each sample) or ``torchdiffeq.NAME``; see :mod:`sde_lib.ode`.
        rtol, atol: tolerances of the local error; published 1e-5.
        steps: the number of steps of a torchdiffeq method without error control.
        denoise: whether a last evaluation takes off the noise that is left at eps.
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int = 100
    denoise: bool = True

    def __post_init__(self):
        try:
            check_solver(self.method, self.rtol, self.atol, self.steps)
        except ValueError as error:
            raise ValueError(f"sampler.{error}") from None

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
        flow, shape = sde.reverse(score, eta=0.0), x.shape

        def field(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            return flow.drift(y.reshape(-1, *shape[1:]), t).flatten(1)

        start = x.flatten(1)
        visit = Visit(film.shares, start, film.rows) if film else None
        x = integrate(
            field,
            start,
            sde.T,
            sde.eps,
            method=self.method,
            rtol=self.rtol,
            atol=self.atol,
            steps=self.steps,
            on_step=on_step,
            visit=visit,
        ).reshape(shape)
        if film:
            for share, state in zip(film.shares, visit.states, strict=True):
                film.add(sde.T + share * (sde.eps - sde.T), state.reshape(-1, *shape[1:]))
        return sde.denoise(score, x, at(sde.eps, x)) if self.denoise else x
