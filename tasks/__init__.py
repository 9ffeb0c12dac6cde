"""What a run does, and what it leaves on disk."""

from .encode import Encode
from .likelihood import LikelihoodTask
from .record import Record
from .restore import Restore
from .sample import Sample
from .train import Train
from .work_precision import WorkPrecision

__all__ = ["Train", "Sample", "LikelihoodTask", "Encode", "Restore", "WorkPrecision", "Record"]
