"""The values of a point as its features, for comparisons without a network (``task=evaluate``)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Values:
    """Features of vectors, and of images that are compared without a network: the values themselves.

    Attributes:
        title: the name of these features in metrics.
    """

    title: ClassVar[str] = "values"

    def features(self, x: Tensor) -> Tensor:
        """Maps (B, *) to (B, D)."""
        return x.flatten(1)
