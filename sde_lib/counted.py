"""Counting network evaluations at the only place where they happen: the call of the score."""

from collections.abc import Iterable

from torch import Tensor

from .affine import Affine, affine
from .base import ScoreFn


class Counted:
    """A score that counts.

    ``calls`` is how often it was called, ``evaluations`` how many samples it was called on in all: a solver in
    which each sample has its own step size costs a different number of evaluations for each.
    """

    def __init__(self, score: ScoreFn):
        self.score, self.calls, self.evaluations = score, 0, 0

    def count(self, x: Tensor) -> None:
        self.calls += 1
        self.evaluations += len(x)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.count(x)
        return self.score(x, t)

    def affine(self, times: Iterable[float]) -> Affine:
        """The score's own, counted; see :func:`sde_lib.affine`."""
        evaluate = affine(self.score, times)

        def counted(x: Tensor, t: float, A: float = 0.0, C: float = 1.0) -> Tensor:
            self.count(x)
            return evaluate(x, t, A, C)

        return counted
