"""What a run does, and what it leaves on disk."""

from .encode import Encode
from .interpolate import Interpolate
from .likelihood import LikelihoodTask
from .memorisation import Memorisation
from .overfitting import Overfitting
from .record import Record
from .sample import Sample
from .train import Train
from .work_precision import WorkPrecision

__all__ = [
    "Train",
    "Sample",
    "LikelihoodTask",
    "Encode",
    "Interpolate",
    "Memorisation",
    "Overfitting",
    "WorkPrecision",
    "Record",
]
