"""The interface of predictors and correctors: a step from t to s, with coefficients computed before the loop."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from scoresde.sde_lib import SDE, Affine


class Step(ABC):
    """A pure function over the interval t -> s, s < t.

    Attributes:
        normals: the number of standard normals of x's shape that each step takes; where it depends on the row,
            ``draws(row)`` returns it.
    """

    normals: int = 1

    @abstractmethod
    def prepare(self, sde: SDE, grid: Tensor) -> list[Any]:
        """Returns a row of coefficients for each of the N steps of a falling grid of N + 1 times (float64), as plain
        numbers.
        """

    def times(self, sde: SDE, grid: Tensor) -> list[float]:
        """Returns the times at which the steps evaluate the score; steps with evaluations inside (s, t) override it."""
        return grid.tolist()

    def draws(self, row: Any) -> int:
        """Returns the number of normals that the step of a row takes."""
        return self.normals

    @abstractmethod
    def __call__(self, row: Any, score: Affine, x: Tensor, z: list[Tensor], memory: Any) -> tuple[Tensor, Tensor, Any]:
        """Returns (x_s, mean, memory) from x (B, *); mean is x_s without its last noise.

        Arguments:
            row: the step's coefficients.
            score: ``score(x, t, A, C)`` is A x + C score(x, t) at a plain number t, the same for all samples; see
                :func:`scoresde.sde_lib.affine`.
            z: standard normals of x's shape, ``draws(row)`` of them.
            memory: a multistep method's history, as the last step returned it; None at the first.
        """
