"""Exact log p(x), in nats, and the variational bound; of integers, a bound on log P."""

from .binary import BinaryBound
from .bound import BoundTerms, VariationalBound, bin_edges
from .dequantisation import Dequantisation, TruncatedNormalDequantisation, UniformDequantisation
from .immse import IMMSE, DenoisingEstimate
from .likelihood import Likelihood, LogLikelihood

__all__ = [
    "Likelihood",
    "LogLikelihood",
    "Dequantisation",
    "UniformDequantisation",
    "TruncatedNormalDequantisation",
    "IMMSE",
    "DenoisingEstimate",
    "VariationalBound",
    "BoundTerms",
    "BinaryBound",
    "bin_edges",
]
