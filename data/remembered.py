"""A data set whose examples are elsewhere: its units and statistics, as a stored network keeps them."""

from typing import Any

import torch
from torch import Tensor

from scoresde.data.base import Data

Moments = tuple[Tensor, Tensor, Tensor, float]


class Remembered(Data):
    """The units and the statistics of a data set, without its examples.

    Arguments:
        shape: of one example.
        shift, scale, levels: as for :class:`scoresde.data.Data`.
        names: the names of the columns of vectors; None without names.
        std: :attr:`Data.std` of the data set; None where it was not kept.
        moments: :meth:`Data.moments` of the data set; None where they were not kept.
        condition: the condition of p(x | y), with the names and units of y and no examples; None for data of p(x).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        shift: Tensor | float,
        scale: Tensor | float,
        levels: int | None = None,
        names: list[str] | None = None,
        std: float | None = None,
        moments: Moments | None = None,
        condition: Any = None,
    ):
        none = torch.empty(0, *shape)
        super().__init__(none, none, shift, scale, levels, shuffle=False)
        self.names, self.kept_std, self.kept_moments, self.condition = names, std, moments, condition

    @property
    def std(self) -> float:
        """The standard deviation of a coordinate in model units; raises a ValueError where it was not kept."""
        if self.kept_std is None:
            raise ValueError(
                "the data's standard deviation was not kept with this network, and its data cannot be read again; put "
                "them back in their place, or choose a sampler that does not need it, such as sampler=em"
            )
        return self.kept_std

    def moments(self) -> Moments | None:
        return self.kept_moments

    def labels(self) -> list[str] | None:
        return self.names
