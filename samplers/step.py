"""What a predictor and a corrector have in common: a step from t to s, its coefficients computed before the loop."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from scoresde.sde_lib import SDE, Affine


class Step(ABC):
    """A pure function over the interval t -> s, s < t.

    ``normals`` is how many standard normals of x's shape each step takes; where that depends on the row, ``draws(row)``
    says so. ``memory`` is a multistep method's history, None at first, handed back and forth.
    """

    normals: int = 1

    @abstractmethod
    def prepare(self, sde: SDE, grid: Tensor) -> list[Any]:
        """The rows of all N steps of a falling grid of N + 1 times (float64): plain numbers, so that the loop computes
        none.
        """

    def times(self, sde: SDE, grid: Tensor) -> list[float]:
        """The times at which the steps evaluate the score; a step that looks inside the interval says so here."""
        return grid.tolist()

    def draws(self, row: Any) -> int:
        """How many normals the step of a row takes."""
        return self.normals

    @abstractmethod
    def __call__(self, row: Any, score: Affine, x: Tensor, z: list[Tensor], memory: Any) -> tuple[Tensor, Tensor, Any]:
        """(x_s, mean, memory) from x (B, *) and the normals z; mean is x_s less its last noise.

        ``score(x, t, A, C)`` is A x + C score(x, t) at a plain number t, the same for all samples; see
        :func:`scoresde.sde_lib.affine`.
        """
