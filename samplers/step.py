"""What a predictor and a corrector have in common: a step from t to s, its coefficients computed before the loop."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from sde_lib import SDE, ScoreFn


class Step(ABC):
    """A pure function over the interval t -> s, s < t.

    ``normals`` is how many standard normals of x's shape the step takes. ``memory`` is a multistep method's history,
    None at first, handed back and forth.
    """

    normals: int = 1

    @abstractmethod
    def prepare(self, sde: SDE, grid: Tensor) -> list[Any]:
        """The rows of all N steps of a falling grid of N + 1 times (float64): plain numbers, so that the loop computes
        none.
        """

    @abstractmethod
    def __call__(self, row: Any, score: ScoreFn, x: Tensor, z: list[Tensor], memory: Any) -> tuple[Tensor, Tensor, Any]:
        """(x_s, mean, memory) from x (B, *) and the normals z; mean is x_s less its last noise."""


def at(t: float, x: Tensor) -> Tensor:
    """The time t for every sample of x, shape (B,): one number in memory, expanded."""
    return torch.full((1,), t, dtype=x.dtype, device=x.device).expand(len(x))
