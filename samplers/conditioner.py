r"""Sampling from p(x_0 | y) with a score of p(x_0): how a measurement changes a sampler and its score.

By Bayes' rule the score that the reverse SDE needs is :math:`\nabla\log p_t(x) + \nabla\log p(y \mid x_t = x)`, and a
sampler run on this score draws from the posterior. Guidance computes the second term, in general approximately; other
conditioners change the steps of the sampler or replace it by particles. So a conditioner returns a sampler and a score,
and samplers need no code for measurements.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn

from .measurement import Measurement
from .pc import Film, OnStep, Sampler


class Conditioner(ABC):
    """Turns a sampler of the prior into one of the posterior."""

    @abstractmethod
    def condition(
        self, sampler: Sampler, sde: SDE, score: ScoreFn, measurement: Measurement
    ) -> tuple[Sampler, ScoreFn]:
        """Returns the sampler to run and the score to run it on, for the batch of the measurement.

        Raises:
            ValueError: the sampler or the measurement does not work with this conditioner.
        """

    def load(self, draws: int) -> int:
        """Returns the number of samples in the network's batch for each of the ``draws`` of one measurement."""
        return 1

    def describe(self, sampler: Sampler, draws: int) -> str:
        """Returns a description, for the log, of a conditioned sampler with steps of its own; else ``""``."""
        return ""

    def remedy(self, vectors: bool) -> str:
        """Returns what to type if draws leave the range of the data; ``vectors`` is False for images."""
        return "type conditioner=smcdiff" if vectors else "type conditioner=projection sampler=pc"


@dataclass(frozen=True, eq=False)
class Held(Sampler):
    """A sampler whose samples are moved, after its last step, to agree with an exact measurement."""

    sampler: Sampler
    measurement: Measurement

    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: OnStep | None = None,
        film: Film | None = None,
    ) -> Tensor:
        return self.measurement.hold(self.sampler(sde, score, x, randn_like, on_step, film))
