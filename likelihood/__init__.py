"""Exact log p(x), in nats."""

from .likelihood import Likelihood, LogLikelihood

__all__ = ["Likelihood", "LogLikelihood"]
