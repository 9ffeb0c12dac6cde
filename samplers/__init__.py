"""Samplers, which turn a score and noise into samples, with their steps, time grids and temperature.

Also conditioners, which turn a sampler of p(x) into one of p(x | y), and the measurement operators that give y.
"""

if __name__ == "samplers":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

from .adams_bashforth import AdamsBashforth
from .adaptive import AdaptiveSDE
from .additive import SEA, ShARK
from .annealed import AnnealedLangevin
from .auto import Auto
from .binary import binary_ancestral
from .conditioner import Conditioner
from .correctors import Langevin
from .deis import DEIS
from .exponential import Exponential
from .grid import Angle, Centred, Grid, Karras, LogSNR, Quadratic, Uniform
from .guidance import DPS, MMPS, ExactPosterior, Guidance, PiGDM
from .heun import Heun
from .langevin import LangevinDynamics
from .last import Last, finish, width
from .masks import Box, Columns, Half, Mask, MaskFile, Masking, Missing, Random
from .measurement import Measurement, in_model_units
from .multistep import Multistep
from .ode import ProbabilityFlow
from .operators import Colourise, Deblur, Dense, Matrix, Operator, Superresolve, dense
from .pc import Film, PredictorCorrector, Sampler
from .predictors import Ancestral, EulerMaruyama, Predictor, Rescale, ReverseDiffusion
from .projection import Projection
from .restart import Restart
from .smcdiff import SMCDiff
from .step import Step
from .tempering import TemperedNoise, TemperedScore, Tempering
from .twisted import TDS
from .unipc import UniPC

__all__ = [
    "Sampler",
    "Film",
    "PredictorCorrector",
    "ProbabilityFlow",
    "AdaptiveSDE",
    "Auto",
    "Step",
    "Predictor",
    "EulerMaruyama",
    "ReverseDiffusion",
    "Rescale",
    "Ancestral",
    "Multistep",
    "Exponential",
    "UniPC",
    "DEIS",
    "AdamsBashforth",
    "Heun",
    "Restart",
    "SEA",
    "ShARK",
    "binary_ancestral",
    "Langevin",
    "LangevinDynamics",
    "AnnealedLangevin",
    "Grid",
    "Uniform",
    "Quadratic",
    "LogSNR",
    "Karras",
    "Centred",
    "Angle",
    "Last",
    "finish",
    "width",
    "Tempering",
    "TemperedNoise",
    "TemperedScore",
    "Conditioner",
    "Guidance",
    "DPS",
    "PiGDM",
    "MMPS",
    "ExactPosterior",
    "Projection",
    "TDS",
    "SMCDiff",
    "Measurement",
    "in_model_units",
    "Operator",
    "dense",
    "Dense",
    "Matrix",
    "Colourise",
    "Superresolve",
    "Deblur",
    "Masking",
    "Mask",
    "Missing",
    "Half",
    "Box",
    "Random",
    "Columns",
    "MaskFile",
]
