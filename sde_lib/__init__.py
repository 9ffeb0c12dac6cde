"""Perturbing data with an SDE, and its reversal: the ground that everything else stands on."""

from .affine import Affine, affine, at
from .base import SDE, ReverseSDE, ScoreFn, per_sample
from .betas import Betas, CosineBetas, InverseBetas, LinearBetas
from .binary import BinaryChain
from .chain import Chain
from .cosine import Cosine
from .counted import Counted
from .custom import Custom
from .divergence import BasisVectors, ExactUpTo, Gaussian, HutchPP, Orthogonal, Probes, Rademacher, divergence
from .frame import Frame, frame
from .noise import BlockNoise
from .ode import integrate
from .subvp import SubVP
from .toy import Toy
from .ve import VE
from .vp import VP

__all__ = [
    "SDE",
    "ReverseSDE",
    "ScoreFn",
    "per_sample",
    "VE",
    "VP",
    "SubVP",
    "Toy",
    "Cosine",
    "Custom",
    "Chain",
    "BinaryChain",
    "Betas",
    "LinearBetas",
    "CosineBetas",
    "InverseBetas",
    "Frame",
    "frame",
    "Affine",
    "affine",
    "at",
    "integrate",
    "divergence",
    "Probes",
    "BasisVectors",
    "Rademacher",
    "Gaussian",
    "Orthogonal",
    "HutchPP",
    "ExactUpTo",
    "Counted",
    "BlockNoise",
]
