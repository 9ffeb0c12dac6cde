"""Linear SDEs that perturb data and their reversal, a chain for bits, and the numerical methods and random numbers that
the other packages share.
"""

if __name__ == "sde_lib":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

from .affine import Affine, affine, combinations, expand_to_batch
from .base import SDE, ReverseSDE, ScoreFn, per_sample
from .betas import Betas, CosineBetas, InverseBetas, LinearBetas
from .binary import BinaryChain
from .chain import Chain
from .cosine import Cosine
from .counted import Counted
from .custom import Custom
from .divergence import BasisVectors, ExactUpTo, Gaussian, HutchPP, Orthogonal, Probes, Rademacher, divergence
from .draws import Ahead, Draws
from .dropout import Dropout, Masks, recomputed
from .edm import EDM
from .frame import Frame, frame, under
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
    "EDM",
    "Custom",
    "Chain",
    "BinaryChain",
    "Betas",
    "LinearBetas",
    "CosineBetas",
    "InverseBetas",
    "Frame",
    "frame",
    "under",
    "Affine",
    "affine",
    "combinations",
    "expand_to_batch",
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
    "Draws",
    "Ahead",
    "Dropout",
    "Masks",
    "recomputed",
]
