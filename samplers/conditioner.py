r"""Sampling from p(x_0 | y) with a score of p(x_0): what a measurement does to a sampler and to its score.

By Bayes' rule the score that the reverse SDE needs is :math:`\nabla\log p_t(x) + \nabla\log p(y \mid x_t = x)`, and a
sampler run on it draws from the posterior. So a conditioner hands back a sampler and a score; samplers know nothing of
measurements.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn

from .measurement import Measurement
from .pc import Film, OnStep, Sampler


class Conditioner(ABC):
    """Makes a sampler of the prior one of the posterior."""

    @abstractmethod
    def condition(
        self, sampler: Sampler, sde: SDE, score: ScoreFn, measurement: Measurement
    ) -> tuple[Sampler, ScoreFn]:
        """The sampler to run and the score to run it on, for the batch that the measurement is of.

        Raises:
            ValueError: where a sampler or a measurement does not go with it.
        """

    def load(self, draws: int) -> int:
        """How many samples the network sees at a time for each that is drawn, ``draws`` of one measurement."""
        return 1

    def describe(self, sampler: Sampler, draws: int) -> str:
        """Returns in words what it makes of a sampler where that is more than the sampler's own steps, else nothing."""
        return ""

    def remedy(self, vectors: bool) -> str:
        """Returns what to type where its draws leave the range of the data."""
        return "type conditioner=smcdiff" if vectors else "type conditioner=projection sampler=pc"


@dataclass(frozen=True, eq=False)
class Held(Sampler):
    """A sampler whose samples agree with an exact measurement when they arrive."""

    sampler: Sampler
    measurement: Measurement

    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor],
        on_step: OnStep | None = None,
        film: Film | None = None,
    ) -> Tensor:
        return self.measurement.hold(self.sampler(sde, score, x, randn_like, on_step, film))
