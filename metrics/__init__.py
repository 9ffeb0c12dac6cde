"""Distances between samples, coverage, classes and memorisation, computed from tensors in the unit of their values."""

if __name__ == "metrics":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

from .classes import class_shares, classifier_score, confident
from .coverage import Classes, Coverage, belonging, mode_coverage
from .frechet import frechet_distance, gaussian_distance
from .kernel import kernel_distance
from .labels import judge
from .memorisation import Cells, CopyingTest, copying_test, mann_whitney, nearest
from .support import Support, density_coverage, precision_recall, support_of
from .two_sample import mmd, sliced_wasserstein
from .values import Values

__all__ = [
    "sliced_wasserstein",
    "mmd",
    "frechet_distance",
    "gaussian_distance",
    "kernel_distance",
    "precision_recall",
    "density_coverage",
    "support_of",
    "Support",
    "classifier_score",
    "class_shares",
    "confident",
    "Values",
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
]
