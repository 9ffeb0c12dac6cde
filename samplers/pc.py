r"""Predictor-corrector sampling (arXiv 2011.13456, algorithm 1).

From x_T ~ N(0, sigma(T)^2 I), every step of the grid moves x from t to s with the predictor, then pulls it towards
p_s with the corrector. Without a corrector it is Euler-Maruyama (or ancestral, or reverse-diffusion) sampling. With a
predictor that only rescales it is annealed Langevin dynamics (Song and Ermon, arXiv 1907.05600, algorithm 1), and the
grid is its ladder of noise levels. (The published code corrects first and predicts second. The order here is the one
printed in the paper, so that the last corrector works at eps, where the samples are read.)

The steps end at eps, where x still has noise of std sigma(eps); ``last`` is the step from there to the data
(:mod:`scoresde.samplers.last`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn, affine

from .grid import Grid
from .last import Last, check_last, finish
from .step import Step

OnStep = Callable[[float], None]
"""A function that a sampler calls with the share of the way that is done, for progress bars."""


class Film:
    """The states of the first ``rows`` samples at ``frames`` moments spread evenly over the way, both ends included.

    The sampler fills ``times`` and ``states``. A film changes no sample.
    """

    def __init__(self, rows: int = 8, frames: int = 11):
        self.rows, self.frames = rows, frames
        self.times: list[float] = []
        self.states: list[Tensor] = []

    @property
    def shares(self) -> list[float]:
        """The moments as shares of the way, from 0 to 1."""
        return [i / (self.frames - 1) for i in range(self.frames)]

    def add(self, t: float, x: Tensor) -> None:
        self.times.append(t)
        self.states.append(x[: self.rows].clone())


class Sampler(ABC):
    """Turns noise into samples: (sde, score, x_T, randn_like) -> x_0.

    Attributes:
        one_level: whether the score is evaluated at one noise level only.
    """

    one_level: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor],
        on_step: OnStep | None = None,
        film: Film | None = None,
    ) -> Tensor:
        """Returns samples of shape (B, *) in model units.

        Arguments:
            score: any callable (x, t) -> score.
            x: draws from the prior N(0, sigma(T)^2 I), shape (B, *).
            randn_like: the source of standard normals, called once for each that is needed.
            on_step: called with the share of the way that is done.
            film: keeps some states on the way.
        """


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """A grid, a predictor, a corrector; see the module's text.

    Arguments:
        grid: the spacing of the steps.
        steps: the number of steps N.
        predictor: the step t -> s, or None to use only a corrector.
        corrector: the step at s, or None.
        last: the step from eps to the data, ``flow``, ``tweedie`` or ``none``; see :mod:`scoresde.samplers.last`.
    """

    grid: Grid
    steps: int = 1000
    predictor: Step | None = None
    corrector: Step | None = None
    last: Last = "flow"

    def __post_init__(self):
        check_last(self.last)
        if self.steps < 1:
            raise ValueError(f"`steps`={self.steps} must be at least 1; the published samplers take `steps`=1000")
        if self.predictor is None and self.corrector is None:
            raise ValueError(
                "the sampler has neither a predictor nor a corrector; type for example sampler/predictor=ancestral"
            )

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
        grid = self.grid(sde, self.steps)
        steps = [step for step in (self.predictor, self.corrector) if step is not None]
        parts = [(step, step.prepare(sde, grid)) for step in steps]
        evaluate = affine(score, [t for step in steps for t in step.times(sde, grid)])
        memories = [None] * len(parts)
        frames = {round(share * self.steps) for share in film.shares} if film else set()
        if film:
            film.add(sde.T, x)
        for n in range(self.steps):
            for i, (step, rows) in enumerate(parts):
                z = [randn_like(x) for _ in range(step.draws(rows[n]))]
                x, _, memories[i] = step(rows[n], evaluate, x, z, memories[i])
            if n + 1 in frames:
                film.add(float(grid[n + 1]), x)
            if on_step:
                on_step((n + 1) / self.steps)
        return finish(self.last, sde, score, x)
