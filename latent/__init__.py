"""Latent-variable models: a VAE under two priors, and a GAN and a WAE to compare it with."""

if __name__ == "latent":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

from .gan import GAN, Adversarial
from .model import LatentModel
from .networks import Convolutional, Dense, Networks
from .objective import Bound, CodeMatching
from .observation import Categorical, DiscretisedLogistic, Gaussian, Observation
from .prior import MixedScore, Prior, ScorePrior, StandardNormal
from .vae import VAE, Terms
from .wae import WAE, WassersteinLoss

__all__ = [
    "LatentModel",
    "VAE",
    "Terms",
    "Bound",
    "CodeMatching",
    "Prior",
    "StandardNormal",
    "ScorePrior",
    "MixedScore",
    "Observation",
    "Gaussian",
    "DiscretisedLogistic",
    "Categorical",
    "Networks",
    "Dense",
    "Convolutional",
    "GAN",
    "Adversarial",
    "WAE",
    "WassersteinLoss",
]
