"""The shape and units of data without examples, for a trained network whose data are not available."""

import torch
from torch import Tensor

from scoresde.data.base import Data


class Unseen(Data):
    """Images of 8 bits a channel without examples: enough to draw samples from a network trained on such images.

    Arguments:
        shape: [C, H, W] of one image.
        std: the standard deviation of the pixels in model units, which stands for that of the training data wherever it
            is needed, such as for ``parameterisation.sigma_data=auto``; 0.5 is typical of photographs.

    The units are those of :class:`scoresde.data.Images`: k + u = 128 x + 128.

    Raises:
        ValueError: the shape or the standard deviation is not positive, or the shape is not [C, H, W].
    """

    def __init__(self, shape: list[int] | None = None, std: float = 0.5):
        if shape is None or len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"`shape`={shape} must be [channels,height,width]: type `shape`=[3,32,32]")
        if not std > 0:
            raise ValueError(f"`std`={std} must be positive: type `std`=0.5")
        none = torch.empty(0, *shape, dtype=torch.uint8)
        super().__init__(none, none, 128, 128, levels=256)
        self.spread = std

    @property
    def std(self) -> float:
        return self.spread

    def moments(self) -> tuple[Tensor, Tensor, Tensor, float]:
        """Returns the moments of N(0, std^2 I) as :meth:`Data.moments` does, with one direction."""
        mean = torch.zeros(self.dim, dtype=torch.float64)
        first = torch.eye(self.dim, 1, dtype=torch.float64)
        return mean, torch.full((1,), self.spread**2, dtype=torch.float64), first, self.spread**2

    def largest_distance(self) -> float:
        """Raises a ValueError: without examples there are no distances."""
        raise ValueError("data=unseen has no examples and so no distances: type sde.sigma_max=NUMBER, or name the data")
