"""The score: networks, what their output means, and the exact score of a mixture."""

from .bits import Bits
from .classifier import Classifier, GuidedByClassifier, MLPClassifier, UNetClassifier
from .conditional import ConditionalScore
from .energy import EnergyGradient
from .features import FeatureCNN, FeatureMLP
from .mlp import MLP
from .oracle import Oracle
from .parameterisation import EDM, Denoiser, Noise, Parameterisation, Score, Unscaled, Velocity
from .refinenet import RefineNet
from .score import ScoreModel
from .unet import UNet

__all__ = [
    "ScoreModel",
    "Parameterisation",
    "Score",
    "Noise",
    "Denoiser",
    "Velocity",
    "Unscaled",
    "EDM",
    "Bits",
    "MLP",
    "UNet",
    "RefineNet",
    "EnergyGradient",
    "Oracle",
    "ConditionalScore",
    "Classifier",
    "GuidedByClassifier",
    "MLPClassifier",
    "UNetClassifier",
    "FeatureCNN",
    "FeatureMLP",
]
