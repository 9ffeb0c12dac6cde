"""The score of some rows of a batch, for scores with a condition for each sample: a class label, a measurement.

A solver with a step size for each sample evaluates only the rows of the batch that have not reached the end. A score
with a condition for each sample has a method ``of_rows(rows)``, which returns the score of those rows; any other
callable is the score of any rows.
"""

from collections.abc import Callable

from torch import Tensor

from .base import ScoreFn


def of_rows(score: ScoreFn, rows: Tensor) -> ScoreFn:
    """Returns the score of some rows of the batch, given by their numbers (b,)."""
    own = getattr(score, "of_rows", None)
    return score if own is None else own(rows)


def by_rows(score: ScoreFn, wrap: Callable[[ScoreFn], ScoreFn]) -> ScoreFn:
    """Returns ``wrap(score)``; it has a method ``of_rows`` if the score has one, which wraps the score of the rows."""
    wrapped = wrap(score)
    if hasattr(score, "of_rows"):
        wrapped.of_rows = lambda rows: by_rows(score.of_rows(rows), wrap)
    return wrapped
