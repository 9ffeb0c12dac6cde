"""Estimating the score: losses, the loop, checkpoints and the store."""

from . import journal, store
from .ema import EMA
from .loss import DenoisingScoreMatching, Loss
from .store import Store
from .trainer import Trainer

__all__ = ["Trainer", "Loss", "DenoisingScoreMatching", "EMA", "Store", "journal", "store"]
