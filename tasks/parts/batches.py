"""Batches of the points that a task scores, or of the samples that it draws, with their noise and progress."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from scoresde.sde_lib import BlockNoise

Advance = Callable[..., None]
"""Moves a progress bar to so many points; see :func:`scoresde.tasks.parts.progress.progress`."""


@dataclass(frozen=True)
class Batch:
    """The points numbered first ... first + size - 1.

    Attributes:
        on_step: moves the progress bar; a solver calls it with the share of this batch's work that is done.
    """

    first: int
    size: int
    on_step: Callable[[float], None] = lambda share: None

    @property
    def rows(self) -> slice:
        """The places of these points among all points."""
        return slice(self.first, self.first + self.size)

    def noise(self, seed: int, shape: tuple[int, ...], dtype: torch.dtype, device: str, stream: str) -> BlockNoise:
        """Returns noise for these points, each of the ``shape``; it does not depend on the division into batches."""
        return BlockNoise(seed, self.first, self.size, shape, dtype, device, stream)


def batches(count: int, size: int, advance: Advance | None = None, skip: int = 0) -> Iterator[Batch]:
    """Yields batches of up to ``size`` of ``count`` points, in order, and moves a progress bar after each.

    Arguments:
        advance: moves the bar; None without a bar.
        skip: the number of first points that are left out.
    """
    move: Advance = advance or (lambda *arguments: None)
    for first in range(skip, count, size):
        number = min(size, count - first)
        yield Batch(first, number, lambda share, first=first, number=number: move(first, number, share))
        move(first + number)


def check_batch(batch: int) -> None:
    """Raises a ValueError for a batch without a point."""
    if batch < 1:
        raise ValueError(f"`batch`={batch} must be at least 1; type `batch`=1024")
