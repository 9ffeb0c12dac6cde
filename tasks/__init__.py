"""What a run does, and what it leaves on disk."""

if __name__ == "tasks":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

from .binary import Binary
from .bound import Bound
from .classifier import TrainClassifier
from .elbo import Elbo
from .ema import EMALength
from .encode import Encode
from .evaluate import Evaluate
from .export import Export
from .generators import Generators
from .interpolate import Interpolate
from .likelihood import LikelihoodTask
from .low_density import LowDensity
from .manifold import Manifold
from .memorisation import Memorisation
from .modes import Modes
from .overfitting import Overfitting
from .record import Record
from .restore import Restore
from .sample import Sample
from .task import Along, Averaged, Features, Given, Job, Network, Networks, Sampled, Task
from .train import Train
from .work_precision import WorkPrecision

__all__ = [
    "Train",
    "TrainClassifier",
    "Sample",
    "LikelihoodTask",
    "Encode",
    "Elbo",
    "EMALength",
    "Generators",
    "Evaluate",
    "Interpolate",
    "Bound",
    "Binary",
    "Memorisation",
    "Modes",
    "Manifold",
    "LowDensity",
    "Overfitting",
    "Restore",
    "WorkPrecision",
    "Export",
    "Record",
    "Task",
    "Job",
    "Networks",
    "Network",
    "Along",
    "Averaged",
    "Sampled",
    "Features",
    "Given",
]
