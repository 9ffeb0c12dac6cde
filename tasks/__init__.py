"""The tasks (each says what a run does and what it leaves on disk), their contract, and the record of a run."""

if __name__ == "tasks":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

from scoresde.tasks.parts.record import Record
from scoresde.tasks.studies.binary import Binary
from scoresde.tasks.studies.classifier import TrainClassifier
from scoresde.tasks.studies.elbo import Elbo
from scoresde.tasks.studies.generators import Generators
from scoresde.tasks.studies.low_density import LowDensity
from scoresde.tasks.studies.manifold import Manifold
from scoresde.tasks.studies.modes import Modes
from scoresde.tasks.studies.overfitting import Overfitting
from scoresde.tasks.studies.work_precision import WorkPrecision

from .bound import Bound
from .ema import EMALength
from .encode import Encode
from .evaluate import Evaluate
from .export import Export
from .interpolate import Interpolate
from .likelihood import LikelihoodTask
from .memorisation import Memorisation
from .restore import Restore
from .sample import Sample
from .task import Along, Averaged, Features, Given, Job, Network, Networks, Sampled, Task
from .train import Train

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
