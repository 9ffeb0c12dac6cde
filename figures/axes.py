"""Axes: limits, points outside them, dots, histograms, names, ticks and legends."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

# ---- limits ----


def finite_range(values: np.ndarray) -> tuple[float, float]:
    """Returns the smallest and the largest finite value; 0.5 less and more where they are equal; (0, 1) without any."""
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def limits(values: np.ndarray, tail: float = 0.001) -> np.ndarray:
    """Returns an axis' limits (2,): the range of the finite values without the share ``tail`` on either side, plus 7 %
    of it on either side.

    Where the range is empty, the larger of 0.5 and 1 % of the value is added instead; without finite values the range
    is [-1, 1].
    """
    values = values[np.isfinite(values)].astype(np.float64)
    low, high = np.quantile(values, (tail, 1 - tail)) if values.size else (-1.0, 1.0)
    margin = 0.07 * (high - low) or max(0.5, 0.01 * abs(low))
    return np.array([low - margin, high + margin])


def outside(points: np.ndarray, frame: np.ndarray) -> int:
    """Returns how many points (N, D) or numbers (N,) lie outside the limits (D, 2) or (2,); a NaN does."""
    inside = (points >= frame[..., 0]) & (points <= frame[..., 1])
    if points.ndim == 2:
        inside = inside.all(1)
    return len(points) - int(inside.sum())


def spread(total: int, most: int) -> np.ndarray:
    """Returns at most ``most`` numbers picked evenly out of 0 ... total - 1: two or more with both ends, one is 0."""
    return np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int))


def counted(name: str, few: int, total: int, what: str = "outside") -> str:
    """Returns a name for a legend: ``name (few of total what)``, or ``name`` alone where few is 0."""
    return f"{name} ({few:,} of {total:,} {what})" if few else name


# ---- marks ----


def dots(
    axes: Axes, points: np.ndarray, frame: np.ndarray, colour: str, label: str, alpha: float, size: float = 1.0, **more
) -> None:
    """Draws the first 20,000 points (N, 2), less those outside the frame (2, 2); the more there are, the smaller."""
    points = points[:20_000]
    points = points[((points >= frame[:, 0]) & (points <= frame[:, 1])).all(1)]
    diameter = size * np.clip(60 / math.sqrt(max(1, len(points))), 1.3, 4.5)
    axes.plot(*points.T, "o", color=colour, ms=diameter, mew=0, alpha=alpha, label=label, **more)


def bins(count: int) -> int:
    """Returns the number of bins of a histogram of ``count`` values."""
    return int(np.clip(2 * count ** (1 / 3), 8, 80))


def histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns the density in each of the bins between ``edges``; values outside all bins count in the total, so that
    the area is then below one.
    """
    values = values.ravel()
    return np.histogram(values[np.isfinite(values)], edges)[0] / (max(1, len(values)) * np.diff(edges))


# ---- text ----


def names(labels: Sequence[str] | None, dim: int) -> list[str]:
    """Returns the names of ``dim`` axes: the labels, or x_1, x_2, ..., or x where there is only one."""
    if labels:
        return list(labels)
    return ["$x$"] if dim == 1 else [f"$x_{{{i + 1}}}$" for i in range(dim)]


UNITS = {"data": "data units", "std": "stds of the columns"}
"""The values of ``Data.distance_unit`` as an axis shows them."""


def in_unit(name: str, unit: str | None) -> str:
    """Returns the name of a distance with its unit, ``data`` or ``std``; unchanged where the unit is None."""
    return f"{name} ({UNITS[unit]})" if unit else name


def time_label(t: float) -> str:
    """Returns a short label for a time, such as t = 1.00, t = 0.02, t = 1e-5, t = 80."""
    if t and abs(t) < 0.00995:
        mantissa, exponent = f"{t:.0e}".split("e")
        return f"t = {mantissa}e{int(exponent)}"
    return f"t = {t:.2f}" if abs(t) < 9.995 else f"t = {t:.0f}"


def ticks(count: int) -> MaxNLocator:
    """Returns a locator of at most ``count`` intervals between round numbers."""
    return MaxNLocator(count, steps=[1, 2, 5, 10])


def legend(axes: Axes) -> None:
    """Puts a legend above the axes, where it hides nothing; its round marks are of one size and opaque."""
    columns = 3 if len(axes.get_legend_handles_labels()[0]) <= 3 else 2
    box = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, handletextpad=0.4, columnspacing=1.4)
    for handle in box.legend_handles:
        if isinstance(handle, Line2D) and handle.get_marker() == "o":
            handle.set(alpha=1, markersize=4)
