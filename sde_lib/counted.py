"""Counting network evaluations at the only place where they happen: the call of the score."""

from torch import Tensor

from .base import ScoreFn


class Counted:
    """A score that counts.

    ``calls`` is how often it was called, ``evaluations`` how many samples it was called on in all: a solver in
    which each sample has its own step size costs a different number of evaluations for each.
    """

    def __init__(self, score: ScoreFn):
        self.score, self.calls, self.evaluations = score, 0, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        self.evaluations += len(x)
        return self.score(x, t)
