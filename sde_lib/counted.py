"""Counts network evaluations by wrapping the score, so that no solver has to count its own."""

from collections.abc import Callable, Iterable

from torch import Tensor

from .affine import Affine, affine, combinations
from .base import SDE, ScoreFn
from .frame import under
from .rows import of_rows


class Counted:
    """A score that counts its evaluations, and those of the scores that ``given``, ``of_rows`` and ``under`` return.

    Arguments:
        score: the score to wrap; ``given`` and ``of_rows`` are there if it has them.
        parent: the count that grows with this one.

    Attributes:
        calls: the number of calls.
        evaluations: the number of samples in all calls, times ``cost``; a solver with a step size for each sample
            evaluates each sample a different number of times.
        cost: the network evaluations of one sample in one call: the score's attribute of that name, or 1; guided scores
            take several.
    """

    def __init__(self, score: ScoreFn, parent: "Counted | None" = None):
        self.score, self.parent, self.calls, self.evaluations = score, parent, 0, 0
        self.cost = getattr(score, "cost", 1)
        if hasattr(score, "given"):
            self.given = lambda y: Counted(score.given(y), parent=self)
        if hasattr(score, "of_rows"):
            self.of_rows = lambda rows: Counted(of_rows(score, rows), parent=self)

    def counts(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Wraps a function of x (B, *) and other arguments so that a call counts as an evaluation at x."""

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
        """Returns the score under another SDE, which counts here too; see :func:`scoresde.sde_lib.frame.under`."""
        return Counted(under(sde, self.score, other), parent=self)

    def affine(self, times: Iterable[float]) -> Affine:
        """Returns the score's affine function, counted; see :func:`scoresde.sde_lib.affine`."""
        return self.counts(affine(self.score, times))

    def combinations(self, *arguments) -> list[Callable[[Tensor], Tensor]]:
        """Returns the score's combinations, counted; see :func:`scoresde.sde_lib.affine.combinations`."""
        return [self.counts(combination) for combination in combinations(self.score, *arguments)]
