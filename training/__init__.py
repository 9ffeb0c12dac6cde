"""Training: losses, noise levels, the training loop, averages of the weights, checkpoints and the store."""

if __name__ == "training":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

from . import journal, levels, posthoc, store
from .binary import BinaryLoss
from .classification import CrossEntropy, Recognition
from .ema import EMA
from .levels import Levels
from .loss import (
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    ImplicitScoreMatching,
    Loss,
    ScoreMatching,
    SlicedScoreMatching,
)
from .posthoc import Snapshots
from .recipe import Recipe
from .store import Store
from .trainer import Trainer

__all__ = [
    "Trainer",
    "Recipe",
    "Loss",
    "ScoreMatching",
    "DenoisingScoreMatching",
    "ExplicitScoreMatching",
    "ImplicitScoreMatching",
    "SlicedScoreMatching",
    "BinaryLoss",
    "CrossEntropy",
    "Recognition",
    "Levels",
    "levels",
    "EMA",
    "Snapshots",
    "Store",
    "journal",
    "posthoc",
    "store",
]
