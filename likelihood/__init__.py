"""Exact log p(x), in nats; of integers, a bound on log P."""

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
]
