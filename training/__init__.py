"""Estimating the score: losses, the loop, checkpoints and the store."""

from . import journal, store
from .binary import BinaryLoss
from .ema import EMA
from .loss import DenoisingScoreMatching, Loss
from .store import Store
from .trainer import Trainer

__all__ = ["Trainer", "Loss", "DenoisingScoreMatching", "BinaryLoss", "EMA", "Store", "journal", "store"]
