"""How far two samples are from each other, and from copies; it works on the numbers that it is given."""

from .coverage import Classes, Coverage, belonging, mode_coverage, precision_recall
from .labels import judge
from .memorisation import Cells, CopyingTest, copying_test, mann_whitney, nearest
from .two_sample import mmd, sliced_wasserstein

__all__ = [
    "sliced_wasserstein",
    "mmd",
    "nearest",
    "copying_test",
    "mann_whitney",
    "Cells",
    "CopyingTest",
    "judge",
    "Coverage",
    "Classes",
    "belonging",
    "mode_coverage",
    "precision_recall",
]
