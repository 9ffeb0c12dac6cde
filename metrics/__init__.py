"""How far two samples are from each other; it works on the numbers that it is given."""

from .two_sample import sliced_wasserstein

__all__ = ["sliced_wasserstein"]
