"""Solving the reverse SDE: from a score and noise to samples."""

from .correctors import Langevin
from .grid import Grid, Karras, LogSNR, Uniform
from .ode import ProbabilityFlow
from .pc import Film, PredictorCorrector, Sampler
from .predictors import Ancestral, EulerMaruyama, Predictor, Rescale, ReverseDiffusion
from .step import Step

__all__ = [
    "Sampler",
    "Film",
    "PredictorCorrector",
    "ProbabilityFlow",
    "Step",
    "Predictor",
    "EulerMaruyama",
    "ReverseDiffusion",
    "Rescale",
    "Ancestral",
    "Langevin",
    "Grid",
    "Uniform",
    "LogSNR",
    "Karras",
]
