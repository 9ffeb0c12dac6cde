"""Score models: networks, their parameterisations, the exact score of a mixture, and classifiers."""

if __name__ == "models":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

from .adm import ADM
from .bits import Bits
from .classifier import Classifier, GuidedByClassifier, MLPClassifier, UNetClassifier
from .clock import Clock
from .conditional import ConditionalScore
from .diffusers_unet import DiffusersUNet
from .dit import DiT
from .energy import EnergyGradient
from .features import FeatureCNN, FeatureMLP
from .mlp import MLP
from .ncsnpp import NCSNpp
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
    "ADM",
    "DiT",
    "NCSNpp",
    "DiffusersUNet",
    "Clock",
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
