"""Log-densities of a score model in nats: log p(x) by the probability-flow ODE, estimates without an ODE to check it,
the variational bounds, and bounds on log P of integers.
"""

if __name__ == "likelihood":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

from .binary import BinaryBound
from .bound import BoundTerms, VariationalBound, bin_edges
from .crosscheck import CrossCheck, Estimate
from .dequantisation import Dequantisation, TruncatedNormalDequantisation, UniformDequantisation
from .energy import EnergyDensity
from .immse import IMMSE
from .likelihood import Likelihood, LogLikelihood

__all__ = [
    "Likelihood",
    "LogLikelihood",
    "Dequantisation",
    "UniformDequantisation",
    "TruncatedNormalDequantisation",
    "CrossCheck",
    "Estimate",
    "IMMSE",
    "EnergyDensity",
    "VariationalBound",
    "BoundTerms",
    "BinaryBound",
    "bin_edges",
]
