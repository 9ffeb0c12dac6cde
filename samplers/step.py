"""The interface of predictors (t to s) and correctors (at s), whose coefficients are computed before the loop."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from scoresde.sde_lib import SDE, Affine


class Step(ABC):
    """A pure function of x and its noise that belongs to an interval t -> s of the grid, s < t.

    Attributes:
        normals: the number of tensors of standard normals, each of x's shape, that a step takes; 0 marks a
            deterministic method. A method whose steps differ in this number overrides :meth:`draws`.
    """

    normals: int = 1

    @abstractmethod
    def prepare(self, sde: SDE, grid: Tensor) -> list[Any]:
        """Returns one row of coefficients, plain numbers, for each of the N steps of a grid of N + 1 falling times.

        Arguments:
            grid: shape (N + 1,), float64.
        """

    def times(self, sde: SDE, grid: Tensor) -> list[float]:
        """Returns the times to prepare the score for: those of the grid, unless a method evaluates it at others."""
        return grid.tolist()

    def draws(self, row: Any) -> int:
        """Returns the number of tensors of normals that the step with these coefficients takes."""
        return self.normals

    @abstractmethod
    def __call__(self, row: Any, score: Affine, x: Tensor, z: list[Tensor], memory: Any) -> tuple[Tensor, Tensor, Any]:
        """Returns (x_s, mean, memory) from x (B, *); mean is x_s without its last noise.

        Arguments:
            row: the step's coefficients.
            score: ``score(x, t, A, C)`` is A x + C score(x, t) at a plain number t, the same for all samples; see
                :func:`scoresde.sde_lib.affine`.
            z: standard normals of x's shape, ``draws(row)`` of them.
            memory: a multistep method's history, as its previous step returned it; None at the first step.
        """
