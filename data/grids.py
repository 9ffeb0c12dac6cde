"""Grids: continuous values that lie at equal distances, such as prices to the cent or readings of an instrument."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from scoresde.data.base import Data

FINEST = 2**20  # the most steps in a column's range: a finer grid may be floating point's own
MOST_STEPS = 65536  # the largest number that ``data.levels`` takes


@dataclass(frozen=True)
class Grid:
    """All values as r = low + k step with whole numbers k.

    Attributes:
        low, step: in data units, with D entries for vectors; with one entry for images, and where all values are whole
            numbers 0 ... 65535.
        levels: the largest k plus 1, and at least 2.
    """

    low: list[float]
    step: list[float]
    levels: int

    @property
    def whole(self) -> bool:
        """True if low and step make all values whole numbers one apart."""
        return all(each == 1 for each in self.step) and all(each == math.floor(each) for each in self.low)

    @property
    def counts(self) -> bool:
        """True if the values are the whole numbers k themselves."""
        return self.whole and all(each == 0 for each in self.low)


def common_grid(data: Data) -> Grid | None:
    """Returns the grid on which all values of both parts lie, of one low and step for each column of vectors or for all
    values of images; None where :func:`grid_of` finds none, or one of more levels than ``data.levels`` takes.

    For data of p(x | y) it is the joint's grid, since ``data.levels`` is for the joint's columns.
    """
    data = getattr(data, "joint", data)
    rows, eps = torch.cat([data.train, data.test]).double(), rounding(data)
    low, high = float(rows.min()), float(rows.max())
    if low >= 0 and high < MOST_STEPS and bool((rows == rows.floor()).all()):
        return Grid([0.0], [1.0], max(2, int(high) + 1))
    columns = rows.flatten(1).T.numpy() if len(data.shape) == 1 else [rows.flatten().numpy()]
    grids = []
    for column in columns:
        grid = grid_of(column, eps)
        if grid is None:
            return None
        grids.append((*grid, round((column.max() - grid[0]) / grid[1]) + 1))
    lows, steps, counts = zip(*grids, strict=True)
    return Grid(list(lows), list(steps), max(2, *counts)) if max(counts) <= MOST_STEPS else None


def rounding(data: Data) -> float:
    """Returns the relative size of a rounding error in the type that holds the examples; 0 for integers."""
    return torch.finfo(data.train.dtype).eps if data.train.is_floating_point() else 0.0


def grid_of(values: np.ndarray, eps: float) -> tuple[float, float] | None:
    """Returns (low, step) with all values low + k step, k whole, up to the tolerance of :func:`on_grid`; None where no
    step that is tried fits.

    The smallest gap between two values, adjusted to divide their range, is tried first, then those of the steps 1, 0.1
    ... 1e-6 that are no larger. A grid of more than FINEST steps does not count. A constant has the step 1.

    Arguments:
        values: (N,), float64.
        eps: the relative rounding error of a value; gaps of up to 16 of these errors are ignored.
    """
    values = np.unique(values)
    low, size = float(values[0]), float(np.abs(values[[0, -1]]).max())
    if values[0] == values[-1]:
        return low, 1.0
    gaps = np.diff(values)
    gaps = gaps[gaps > 16 * eps * size]
    if not len(gaps):
        return None
    spread, finest = float(values[-1]) - low, float(gaps.min())
    if spread / finest > FINEST:
        return None
    step = spread / round(spread / finest)  # the rounding of the one gap is divided by their number
    if on_grid(values, low, step, eps * size):
        return low, step
    for step in (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6):
        if size / step * eps > 0.01 or spread / step > FINEST:
            break
        # a coarser step than the finest gap has several values on one point
        if step <= 1.02 * finest and on_grid(values, low, step, eps * size):
            return low, step
    return None


def on_grid(values: np.ndarray, low: float, step: float, rounding: float) -> bool:
    """Returns whether all values are low + k step, k whole, up to a hundredth of a step and four times ``rounding``,
    the absolute rounding error of a value.
    """
    steps = (values - low) / step
    return bool((np.abs(steps - np.round(steps)) <= 0.01 + 4 * rounding / step).all())
