r"""Predictor-corrector sampling (arXiv 2011.13456, algorithm 1).

From x_T ~ N(0, sigma(T)^2 I), every step of the grid moves x from t to s with the predictor, then pulls it towards p_s
with the corrector. Without a corrector this is the predictor's own method, such as Euler-Maruyama, DDIM or Heun's. With
a predictor that only rescales it is annealed Langevin dynamics (Song and Ermon, arXiv 1907.05600, algorithm 1), and the
grid is its ladder of noise levels. (The published code corrects first and predicts second. The order here is the one
printed in the paper, so that the last corrector acts at eps and not one step before.)

The steps end at eps, where x still has noise of std sigma(eps). ``last`` is the step from eps to the data
(:mod:`scoresde.samplers.last`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, BlockNoise, ScoreFn, affine

from .grid import Grid
from .last import Last, check_last, finish
from .step import Step

STREAMS = ("prior", "sampler")
"""The streams of the noise from which samples start, and of that of a sampler's steps."""

OnStep = Callable[[float], None]
"""A function that a sampler calls with the share of its work that is done, in [0, 1], for progress bars."""


class Film:
    """Records the states of the first ``rows`` samples at up to ``frames`` moments, the first and the last included.

    The moments are evenly spaced in the sampler's steps, or in its own clock if its steps adapt. A sampler with fewer
    steps may record fewer moments. Recording changes no sample.

    Attributes:
        times: the times t of the recorded states.
        states: the recorded states, each (rows, *); the last one is taken before the step from eps to the data.
    """

    def __init__(self, rows: int = 8, frames: int = 11):
        self.rows, self.frames = rows, frames
        self.times: list[float] = []
        self.states: list[Tensor] = []

    @property
    def shares(self) -> list[float]:
        """The moments as shares of the sampler's way, from 0 (its start) to 1 (its end)."""
        return [i / (self.frames - 1) for i in range(self.frames)]

    def add(self, t: float, x: Tensor) -> None:
        """Records the first rows of the batch x (B, *) at time t; samplers call it."""
        self.times.append(t)
        self.states.append(x[: self.rows].clone())


class Sampler(ABC):
    """Turns noise into samples: (sde, score, x_T, randn_like) -> x_0.

    Attributes:
        one_level: whether the score is evaluated at one noise level only.
    """

    one_level: ClassVar[bool] = False

    def draw(
        self,
        sde: SDE,
        score: ScoreFn,
        shape: tuple[int, ...],
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draws samples from the prior's noise: of shape ``shape`` (N, *), in model units.

        Sample number i depends on the seed and on i, and not on N.

        Arguments:
            score: any callable (x, t) -> score.
            seed: the seed of all noise.
            dtype, device: the precision, and where the samples are drawn.
        """
        count, *one = shape
        start, noise = (BlockNoise(seed, 0, count, tuple(one), dtype, device, stream) for stream in STREAMS)
        return self(sde, score, start() * sde.prior_std, noise)

    @abstractmethod
    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: OnStep | None = None,
        film: Film | None = None,
    ) -> Tensor:
        """Returns samples of shape (B, *) in model units.

        Arguments:
            score: any callable (x, t) -> score.
            x: draws from the prior N(0, sigma(T)^2 I), shape (B, *).
            randn_like: the source of standard normals; every call ``randn_like(x)`` returns new ones of x's shape.
            on_step: called with the share of the work that is done.
            film: records some of the states on the way.
        """


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """Takes ``steps`` steps of a predictor and a corrector along a time grid; see the module's text.

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
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: OnStep | None = None,
        film: Film | None = None,
    ) -> Tensor:
        grid = self.grid(sde, self.steps)
        methods = [step for step in (self.predictor, self.corrector) if step is not None]
        prepared = [(step, step.prepare(sde, grid)) for step in methods]
        evaluate = affine(score, [t for step in methods for t in step.times(sde, grid)])
        memories = [None] * len(methods)
        frames = {round(share * self.steps) for share in film.shares} if film else set()  # numbers of finished steps
        if film:
            film.add(sde.T, x)
        for n in range(self.steps):
            for i, (step, rows) in enumerate(prepared):
                z = [randn_like(x) for _ in range(step.draws(rows[n]))]
                x, _, memories[i] = step(rows[n], evaluate, x, z, memories[i])
            if n + 1 in frames:
                film.add(float(grid[n + 1]), x)
            if on_step:
                on_step((n + 1) / self.steps)
        return finish(self.last, sde, score, x)
