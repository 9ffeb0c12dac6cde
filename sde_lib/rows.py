"""Scores that hold a value for each sample: a label, a measurement.

A solver with a step size for each sample asks for the scores of some rows of the batch, once others have arrived. A
score with a value for each sample has a method ``of_rows(rows)``, the score of those rows, and whoever leaves rows out
calls it; any other callable is the score of all of them.
"""

from collections.abc import Callable

from torch import Tensor

from .base import ScoreFn


def of_rows(score: ScoreFn, rows: Tensor) -> ScoreFn:
    """The score of some rows of the batch, by their numbers (b,)."""
    own = getattr(score, "of_rows", None)
    return score if own is None else own(rows)


def by_rows(score: ScoreFn, wrap: Callable[[ScoreFn], ScoreFn]) -> ScoreFn:
    """``wrap(score)``, which can be asked for some rows if the score can."""
    wrapped = wrap(score)
    if hasattr(score, "of_rows"):
        wrapped.of_rows = lambda rows: by_rows(score.of_rows(rows), wrap)
    return wrapped
