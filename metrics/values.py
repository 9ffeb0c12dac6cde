"""The features of a point that are the point itself."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Values:
    """Points as rows of their values: what vectors are compared in, and pictures where no network should have a say.

    Attributes:
        title: what a metric calls them.
    """

    title: ClassVar[str] = "values"

    def features(self, x: Tensor) -> Tensor:
        """(B, *) to (B, D)."""
        return x.flatten(1)
