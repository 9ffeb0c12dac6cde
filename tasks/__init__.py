"""What a run does, and what it leaves on disk."""

from .likelihood import LikelihoodTask
from .record import Record
from .sample import Sample
from .train import Train

__all__ = ["Train", "Sample", "LikelihoodTask", "Record"]
