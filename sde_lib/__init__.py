"""Perturbing data with an SDE, and its reversal: the ground that everything else stands on."""

from .affine import Affine, affine, at
from .base import SDE, ReverseSDE, ScoreFn, per_sample
from .cosine import Cosine
from .counted import Counted
from .custom import Custom
from .divergence import BasisVectors, ExactUpTo, Gaussian, HutchPP, Orthogonal, Probes, Rademacher, divergence
from .frame import Frame, frame
from .noise import BlockNoise
from .ode import integrate
from .rows import of_rows
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
    "Frame",
    "frame",
    "Affine",
    "affine",
    "at",
    "of_rows",
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
