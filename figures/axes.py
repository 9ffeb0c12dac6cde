"""Axes and what stands on them: where they end, what falls outside, dots, histograms, names, ticks and legends."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

# ---- where they end ----


def finite_range(values: np.ndarray) -> tuple[float, float]:
    """The smallest and largest finite value, apart by more than nothing."""
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def limits(values: np.ndarray, tail: float = 0.001) -> np.ndarray:
    """An axis' ends (2,): the finite values less a tail on either side, and a margin."""
    values = values[np.isfinite(values)].astype(np.float64)
    low, high = np.quantile(values, (tail, 1 - tail)) if values.size else (-1.0, 1.0)
    margin = 0.07 * (high - low) or max(0.5, 0.01 * abs(low))
    return np.array([low - margin, high + margin])


def outside(points: np.ndarray, frame: np.ndarray) -> int:
    """How many of (N, D) or (N,) lie outside the limits (D, 2) or (2,); a NaN does."""
    inside = (points >= frame[..., 0]) & (points <= frame[..., 1])
    if points.ndim == 2:
        inside = inside.all(1)
    return len(points) - int(inside.sum())


def spread(total: int, most: int) -> np.ndarray:
    """The numbers, at most so many, of those that are picked evenly out of 0 ... total - 1, both ends included."""
    return np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int))


def counted(name: str, few: int, total: int, what: str = "outside") -> str:
    """The name for a legend, and how many of them are not to be seen."""
    return f"{name} ({few:,} of {total:,} {what})" if few else name


# ---- what stands on them ----


def dots(
    axes: Axes, points: np.ndarray, frame: np.ndarray, colour: str, label: str, alpha: float, size: float = 1.0, **more
) -> None:
    """The points (N, 2) inside the frame, up to 20,000 of them, the smaller the more they are."""
    points = points[:20_000]
    points = points[((points >= frame[:, 0]) & (points <= frame[:, 1])).all(1)]
    diameter = size * np.clip(60 / math.sqrt(max(1, len(points))), 1.3, 4.5)
    axes.plot(*points.T, "o", color=colour, ms=diameter, mew=0, alpha=alpha, label=label, **more)


def bins(count: int) -> int:
    """How many bins a histogram of so many values has."""
    return int(np.clip(2 * count ** (1 / 3), 8, 80))


def histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The density in each bin; values outside all of them count in the total, so the area is then less than one."""
    values = values.ravel()
    return np.histogram(values[np.isfinite(values)], edges)[0] / (max(1, len(values)) * np.diff(edges))


# ---- what is written at them ----


def names(labels: Sequence[str] | None, dim: int) -> list[str]:
    """What the axes are called: the labels given, or x_1, x_2, ..., or x where there is one alone."""
    if labels:
        return list(labels)
    return ["$x$"] if dim == 1 else [f"$x_{{{i + 1}}}$" for i in range(dim)]


UNITS = {"data": "data units", "std": "stds of the columns"}
"""What the words of ``Data.distance_unit`` are called on an axis."""


def in_unit(name: str, unit: str | None) -> str:
    """The name of a distance with its unit, ``data`` or ``std``; as it is where none is known."""
    return f"{name} ({UNITS[unit]})" if unit else name


def time_label(t: float) -> str:
    """t = 1.00, t = 0.02, t = 1e-5, t = 80: as short as it can be told apart."""
    if t and abs(t) < 0.00995:
        mantissa, exponent = f"{t:.0e}".split("e")
        return f"t = {mantissa}e{int(exponent)}"
    return f"t = {t:.2f}" if abs(t) < 9.995 else f"t = {t:.0f}"


def ticks(count: int) -> MaxNLocator:
    """At most so many intervals between round numbers."""
    return MaxNLocator(count, steps=[1, 2, 5, 10])


def legend(axes: Axes) -> None:
    """A legend above the axes, where it hides nothing, its marks large and solid."""
    columns = 3 if len(axes.get_legend_handles_labels()[0]) <= 3 else 2
    box = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, handletextpad=0.4, columnspacing=1.4)
    for handle in box.legend_handles:
        if isinstance(handle, Line2D) and handle.get_marker() == "o":
            handle.set(alpha=1, markersize=4)
