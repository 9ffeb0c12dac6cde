"""Pictures of error against work: a column for each SDE, a line for each method and score.

A method has the same colour in every panel; the lines of the oracle are solid, those of a network dashed.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from .axes import in_unit
from .canvas import GREY, INK, PALE, is_number, save, style

COOL = ("#08306b", "#2a6fb0", "#3aa6b9", "#1b7837", "#66a61e", "#6a51a3", "#b49ad6", "#5f7d8c")
WARM = ("#c8452f", "#e6ab02", "#7f0000", "#ff7f2a", "#c51b7d", "#f29ac0", "#8c510a", "#bf9b7a")
MARKS = "osD^v<>pP*Xh"
DASHES = {"oracle": "-", "network": (0, (3.5, 1.5))}
EXACT_FLOW = "exact_flow"  # the method of the rows whose error is the score's own, without that of a solver

Row = Mapping[str, Any]


@style()
def work_precision(
    rows: Sequence[Row], path: Path, count: int, band: tuple[float, float] | None = None, unit: str | None = None
) -> Path:
    """Draws for samplers the distance to data over evaluations and over seconds, and the distance to the exact flow.

    Methods with a distance to the exact flow, which are those without noise, have cold colours, the others warm ones.

    Arguments:
        rows: the rows of work_precision.csv.
        count: the number of samples that the seconds are for.
        band: the mean and the upper end of the distance of equally many real data; None for no band.
        unit: the unit of distances to data, ``data`` or ``std``; None for none.
    """
    evaluations, seconds = "evaluations a sample (NFE)", f"seconds for {count:,} samples, one thread"
    distance = in_unit("sliced Wasserstein", unit).replace(" (", "\n(")
    panels = [
        ("nfe", "sliced_wasserstein", distance, evaluations),
        ("seconds", "sliced_wasserstein", distance, seconds),
        ("nfe", "endpoint_rms", "rms distance to the\nexact flow (model units)", evaluations),
    ]
    runs = [row for row in rows if row["method"] != EXACT_FLOW]
    noiseless = {row["method"] for row in runs if drawable(row, "endpoint_rms")}
    looks = choose_looks([row["method"] for row in runs], noiseless)
    figure, grid = canvas(runs, panels, looks)
    for axes, sde, (x, y, *_) in each_panel(grid, runs, panels):
        if y == "sliced_wasserstein":
            if band:
                axes.axhspan(1e-300, band[1], color=PALE, alpha=0.45, lw=0)
                axes.axhline(band[0], color=GREY, lw=0.6)
            for row in rows:  # a network's own error, the same for every solver
                if row["method"] == EXACT_FLOW and row["sde"] == sde and row["score"] != "oracle" and drawable(row, y):
                    axes.axhline(row[y], color=INK, lw=0.8, ls=DASHES["network"])
        lines(axes, [row for row in runs if row["sde"] == sde], x, y, looks)
    for row_of_axes, (_, y, *_) in zip(grid, panels, strict=True):
        errors = [row[y] for row in runs if drawable(row, y)]
        if y == "sliced_wasserstein" and errors:
            low = 0.7 * min(errors)
            frame(row_of_axes, low, min(1.5 * max(errors), 100 * band[1] if band else 1e3 * low))
        elif errors:
            frame(row_of_axes, 0.5 * min(errors), min(max(errors) * 2, 30))
    if band:
        text = {"transform": grid[0, -1].get_yaxis_transform(), "ha": "right", "va": "bottom", "size": 6, "color": INK}
        grid[0, -1].text(1.0, band[1], "as real data", **text)
    return save(figure, path)


@style()
def likelihood_precision(rows: Sequence[Row], path: Path, points: int) -> Path:
    """Draws for likelihoods the solver's error over evaluations and over seconds, and the whole error of log p.

    Panels without values are left out. Methods with a standard error of random probes have warm colours, the others
    cold ones.

    Arguments:
        rows: the rows of likelihood_precision.csv.
        points: the number of points that the seconds are for.
    """
    evaluations, seconds = "evaluations a point (NFE)", f"seconds for {points:,} points, one thread"
    solver, whole = "solver's error\nof log p (nats)", "whole error\nof log p (nats)"
    panels = [
        ("nfe", "solver_error_mean_nats", solver, evaluations),
        ("seconds", "solver_error_mean_nats", solver, seconds),
        ("nfe", "truth_error_mean_nats", whole, evaluations),
    ]
    panels = [panel for panel in panels if any(drawable(row, panel[1]) for row in rows)] or panels[:1]
    random = {row["method"] for row in rows if drawable(row, "probe_stderr_nats") and row["probe_stderr_nats"] > 0}
    looks = choose_looks([row["method"] for row in rows], {row["method"] for row in rows} - random)
    figure, grid = canvas(rows, panels, looks)
    for axes, sde, (x, y, *_) in each_panel(grid, rows, panels):
        lines(axes, [row for row in rows if row["sde"] == sde], x, y, looks)
    for row_of_axes, (_, y, *_) in zip(grid, panels, strict=True):
        if errors := [row[y] for row in rows if drawable(row, y)]:
            frame(row_of_axes, 0.5 * min(errors), min(max(errors) * 2, 100))
    return save(figure, path)


def drawable(row: Row, key: str) -> bool:
    """Returns whether a row has a value that a logarithmic axis can show."""
    return is_number(row.get(key)) and 0 < row[key] < math.inf


def choose_looks(methods: Sequence[str], noiseless: set[str]) -> dict[str, dict]:
    """Returns the colour and the mark of every method: cold colours for those in ``noiseless``, warm for the others."""
    looks: dict[str, dict] = {}
    for method in sorted(dict.fromkeys(methods), key=lambda name: name in noiseless):
        cold = method in noiseless
        place = sum((name in noiseless) == cold for name in looks)
        colours = COOL if cold else WARM
        looks[method] = {"color": colours[place % len(colours)], "marker": MARKS[place % len(MARKS)]}
    return looks


def canvas(rows: Sequence[Row], panels: Sequence[tuple], looks: Mapping[str, dict]) -> tuple[Figure, np.ndarray]:
    """Returns a figure with a legend, and its panels (panels, SDEs), a row for each of ``panels`` (x key, y key, y
    label, x label).
    """
    sdes = list(dict.fromkeys(row["sde"] for row in rows))
    figure = Figure(figsize=(1.9 * len(sdes) + 2.05, 1.75 * len(panels) + 0.2), layout="constrained")
    grid = figure.subplots(len(panels), len(sdes), sharex="row", sharey="row", squeeze=False)
    for axes, sde in zip(grid[0], sdes, strict=True):
        axes.set_title(sde)
    for row_of_axes, (_, _, label, work) in zip(grid, panels, strict=True):
        row_of_axes[0].set_ylabel(label)
        # under the middle of the row, which for an even number of columns is a gap
        row_of_axes[(len(sdes) - 1) // 2].set_xlabel(work, x=0.5 if len(sdes) % 2 else 1.05)
        for axes in row_of_axes:
            axes.set(xscale="log", yscale="log")
            axes.grid(which="major")
    handles = [Line2D([], [], ms=3.5, mew=0, lw=1, label=method, **look) for method, look in looks.items()]
    scores = list(dict.fromkeys(row["score"] for row in rows))
    if len(scores) > 1:
        handles += [Line2D([], [], color=INK, ls=DASHES[score], lw=1, label=score) for score in scores]
    figure.legend(handles=handles, loc="outside right upper", handlelength=2.2, labelspacing=0.45)
    return figure, grid


def each_panel(grid: np.ndarray, rows: Sequence[Row], panels: Sequence[tuple]):
    """Yields (axes, SDE, panel) for all axes of the grid, where a panel is an element of ``panels``."""
    sdes = dict.fromkeys(row["sde"] for row in rows)
    for row_of_axes, panel in zip(grid, panels, strict=True):
        for axes, sde in zip(row_of_axes, sdes, strict=True):
            yield axes, sde, panel


def lines(axes: Axes, rows: Sequence[Row], x: str, y: str, looks: Mapping[str, dict]) -> None:
    """Draws a line for each method and score through the values of the keys x and y, in ascending order of x."""
    for method, look in looks.items():
        for score, dashes in DASHES.items():
            own = [row for row in rows if row["method"] == method and row["score"] == score]
            points = sorted((row[x], row[y]) for row in own if drawable(row, x) and drawable(row, y))
            if points:
                axes.plot(*zip(*points, strict=True), ls=dashes, lw=0.9, ms=2.6, mew=0, **look)


def frame(row_of_axes: np.ndarray, low: float, high: float) -> None:
    """Sets the y limits of a row of panels, which span a factor of 10 at least; large errors may lie outside, so that
    small ones can be compared.
    """
    for axes in row_of_axes:
        axes.set_ylim(low, max(high, 10 * low))
        axes.yaxis.set_major_locator(LogLocator(numticks=8))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
