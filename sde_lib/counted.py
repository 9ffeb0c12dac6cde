"""Counting network evaluations at the only place where they happen: the call of the score."""

from collections.abc import Callable, Iterable

from torch import Tensor

from .affine import Affine, affine, combinations
from .base import SDE, ScoreFn
from .frame import under
from .rows import of_rows


class Counted:
    """A score that counts.

    ``calls`` is how often it was called, ``evaluations`` how many samples it was called on in all: a solver in
    which each sample has its own step size costs a different number of evaluations for each. A score whose call takes
    several evaluations of networks, as guided ones do, says so by an attribute ``cost``.
    """

    def __init__(self, score: ScoreFn, parent: "Counted | None" = None):
        self.score, self.parent, self.calls, self.evaluations = score, parent, 0, 0
        self.cost = getattr(score, "cost", 1)
        if hasattr(score, "given"):
            self.given = lambda y: Counted(score.given(y), parent=self)
        if hasattr(score, "of_rows"):
            self.of_rows = lambda rows: Counted(of_rows(score, rows), parent=self)

    def counts(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The function, each of whose calls is an evaluation at its first argument."""

        def counted(x: Tensor, *rest) -> Tensor:
            self.count(self.cost * len(x))
            return function(x, *rest)

        return counted

    def count(self, evaluations: int) -> None:
        self.calls += 1
        self.evaluations += evaluations
        if self.parent is not None:
            self.parent.count(evaluations)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.count(self.cost * len(x))
        return self.score(x, t)

    def under(self, sde: SDE, other: SDE) -> "Counted":
        """The score read under another SDE, counted here too; see :func:`scoresde.sde_lib.frame.under`."""
        return Counted(under(sde, self.score, other), parent=self)

    def affine(self, times: Iterable[float]) -> Affine:
        """The score's own, counted; see :func:`scoresde.sde_lib.affine`."""
        return self.counts(affine(self.score, times))

    def combinations(self, *arguments) -> list[Callable[[Tensor], Tensor]]:
        """The score's own, counted; see :func:`scoresde.sde_lib.affine.combinations`."""
        return [self.counts(each) for each in combinations(self.score, *arguments)]
