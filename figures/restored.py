"""Pictures of posteriors: the measurement, several draws given it, and the truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .axes import bins, dots, finite_range, histogram, legend, limits, names, spread, ticks
from .canvas import BLUE, GREY, INK, PALE, RED, Array, array, pixels, place, save, style
from .images import colours, enlarge, tile
from .planar import planar_frame

HIDDEN = "#c9d8e6"  # the colour of pixels that were not measured
SHOWN = 300  # the largest number of unknown values that are drawn against their truth
PANELS = 6  # the largest number of columns that have a panel each


@style()
def restored_images(
    truth: Array | None, measured: Array, draws: Array, path: Path, seen: Array | None = None, levels: int | None = None
) -> Path:
    """Draws a row for each image: the truth, its measurement, up to five draws, and the mean and std of all draws.

    Arguments:
        truth, measured: (N, C, H, W) in data units; three channels are shown as colours, otherwise the first is. The
            truth is None where it is unknown.
        draws: (N, draws, C, H, W) in data units.
        seen: (N, C, H, W), whether a value was measured; pixels without a measured value are covered. None covers none.
        levels: the number L of integer levels, which sets the scale to 0 ... L; None for the range of the truth, or of
            the draws where the truth is None. The std has its own scale, from 0 to its maximum.
    """
    draws, measured = array(draws), array(measured)
    mean, std = draws.mean(1), draws.std(1)
    shown = draws[:, :5]
    low, high = finite_range(array(truth) if truth is not None else draws) if levels is None else (0, levels)
    top = finite_range(std)[1]
    if draws.shape[2] != 3:
        measured, shown, mean, std = measured[:, :1], shown[:, :, :1], mean[:, :1], std[:, :1]
    # the columns of the sheet, each (N, H, W, 3)
    count, height, width = len(draws), *draws.shape[3:]
    shown_measured = colours(measured, low, high)
    if seen is not None:
        hidden = (array(seen) == 0).all(1)[..., None]
        shown_measured = np.where(hidden, to_rgb(HIDDEN), shown_measured)
    columns = [("measured", shown_measured)]
    if truth is not None:
        whole = array(truth)
        columns.insert(0, ("truth", colours(whole if whole.shape[1] == 3 else whole[:, :1], low, high)))
    columns += [(f"draw {k + 1}", colours(shown[:, k], low, high)) for k in range(shown.shape[1])]
    columns += [("mean", colours(mean, low, high)), ("std", colours(std, 0, top or 1))]

    factor = max(1, round(120 / max(height, width)))
    sheets = np.stack([pictures for _, pictures in columns], 1).reshape(-1, height, width, 3)
    gap = (8, max(6, 100 - factor * width))
    mosaic = tile(enlarge(sheets, factor), count, len(columns), gap=gap)
    shrink = min(1.0, 2200 / max(mosaic.shape))
    tall, wide = shrink * mosaic.shape[0], shrink * mosaic.shape[1]
    margin, top_margin = 30, 50
    figure = pixels(2 * margin + wide, margin + tall + top_margin)
    axes = place(figure, margin, margin, wide, tall)
    axes.imshow(mosaic, interpolation="nearest" if shrink == 1 else "antialiased")
    centres = (factor * width - 1) / 2 + (factor * width + gap[1]) * np.arange(len(columns))
    axes.set_xticks(centres, [name for name, _ in columns])
    axes.set_yticks([])
    axes.tick_params(bottom=False, labeltop=True, labelbottom=False, pad=0)
    axes.spines[:].set_visible(False)
    return save(figure, path)


@style()
def restored_planar(
    draws: Array,
    data: Array,
    path: Path,
    truth: Array | None = None,
    exact: Array | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Draws a column for each of up to 4 points: its draws in the plane, and a histogram of the less certain
    coordinate.

    Arguments:
        draws: (N, draws, 2) in data units.
        data: (M, 2), drawn pale beneath; they set the frame.
        truth: (N, 2), or None where it is unknown.
        exact: (N, K, 2), K draws from the exact posterior, or None where it is unknown.
        labels: the names of the two columns.
    """
    draws, data = array(draws)[:4], array(data)
    frame, axis_names = planar_frame(data), names(labels, 2)
    figure = Figure(figsize=(1.9 * len(draws) + 0.7, 4.3), layout="constrained")
    panels = figure.subplots(2, len(draws), squeeze=False)
    for n, (above, below) in enumerate(panels.T):
        dots(above, data, frame, PALE, "data", alpha=0.8, size=1.2)
        dots(above, draws[n], frame, BLUE, "draws", alpha=0.6, size=1.2, zorder=3)
        if truth is not None:
            above.plot(*array(truth)[n], "x", color=RED, ms=6, mew=1.4, ls="", label="truth", zorder=4)
        above.set(xlim=frame[0], ylim=frame[1], xlabel=axis_names[0])
        above.xaxis.set_major_locator(ticks(4))
        above.yaxis.set_major_locator(ticks(5))
        axis = int(draws[n].std(0).argmax())
        edges = np.linspace(*frame[axis], max(16, bins(draws.shape[1])) + 1)
        heights = histogram(draws[n][:, axis], edges)
        below.stairs(heights, edges, fill=True, color=BLUE, alpha=0.5)
        top = heights.max(initial=0.0)
        if exact is not None:
            heights = histogram(array(exact)[n][:, axis], edges)
            below.stairs(heights, edges, color=INK, lw=1.0)
            top = max(top, heights.max(initial=0.0))
        if truth is not None:
            below.axvline(array(truth)[n, axis], color=RED, lw=1.0)
        below.set(xlim=frame[axis], ylim=(0, 1.08 * (top or 1)), xlabel=axis_names[axis])
        below.xaxis.set_major_locator(ticks(4))
        below.yaxis.set_major_locator(ticks(4))
        if n:
            above.tick_params(labelleft=False)
    panels[0, 0].set_ylabel(axis_names[1])
    panels[1, 0].set_ylabel("density")
    mark = {"ls": "", "marker": "o", "ms": 4, "mew": 0}
    handles = [Line2D([], [], **mark, color=PALE, label="data"), Line2D([], [], **mark, color=BLUE, label="draws")]
    if exact is not None:
        handles.append(Line2D([], [], color=INK, lw=1.0, label="exact posterior"))
    if truth is not None:
        handles.append(Line2D([], [], color=RED, marker="x", ms=5, mew=1.4, ls="", label="truth"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), handletextpad=0.4)
    return save(figure, path)


@style()
def restored_vectors(draws: Array, unknown: Array, scale: tuple[Array, Array], path: Path, truth: Array) -> Path:
    """Draws the draws' mean and central 80 % against the truth, and the histogram of the truth's rank among the draws.

    Arguments:
        draws: (N, draws, D) in data units.
        unknown: (N, D), whether a value is unknown; up to 300 unknown values are shown on the left, all on the right.
        scale: the data's shift and scale, (D,) each: values are shown in units of the data's std.
        truth: (N, D) in data units.
    """
    draws, unknown = array(draws), array(unknown).astype(bool)
    shift, unit = (array(each) for each in scale)
    standard, real = (draws - shift) / unit, (array(truth) - shift) / unit
    mean, low, high = central(standard)
    places = np.flatnonzero(unknown.ravel())
    pick = places[spread(len(places), SHOWN)]
    figure = Figure(figsize=(6.6, 3.3), layout="constrained")
    panels = figure.subplots(1, 2)
    across = real.ravel()[pick]
    count = f" ({len(pick)} of {len(places):,})" if len(pick) < len(places) else ""
    label = f"mean, central 80 %{count}"
    intervals(panels[0], across, *(values.ravel()[pick] for values in (mean, low, high)), label)
    frame = limits(across)
    panels[0].plot(frame, frame, color=INK, ls="--", lw=0.8)
    panels[0].set(xlim=frame, xlabel="truth (stds of the data)", ylabel="draws (stds of the data)")
    panels[0].xaxis.set_major_locator(ticks(5))
    legend(panels[0])
    total = draws.shape[1]
    # one of total + 1 values in (0, 1), all equally likely if the draws are from the posterior
    rank = ((standard < real[:, None]).sum(1).ravel()[places] + 0.5) / (total + 1)
    edges = np.linspace(0, 1, min(10, total + 1) + 1)
    panels[1].stairs(histogram(rank, edges), edges, fill=True, color=BLUE, alpha=0.5, label="rank of the truth")
    panels[1].axhline(1, color=GREY, ls="--", lw=0.8)
    panels[1].set(xlim=(0, 1), xlabel="share of the draws below the truth", ylabel="density")
    legend(panels[1])
    return save(figure, path)


@style()
def restored_gaps(
    draws: Array, unknown: Array, scale: tuple[Array, Array], path: Path, labels: Sequence[str] | None = None
) -> Path:
    """Draws the draws' mean and central 80 % for unknown values, where the truth is not given.

    Up to 6 columns have a panel each, in the data's units; of more columns up to 24 share one panel, in stds of the
    data.

    Arguments:
        draws: (N, draws, D) in data units.
        unknown: (N, D), whether a value is unknown; of many values some are shown, picked evenly by row.
        scale: the data's shift and scale, (D,) each.
        labels: the names of the columns.
    """
    draws, unknown = array(draws), array(unknown).astype(bool)
    shift, unit = (array(each) for each in scale)
    columns, titles = np.flatnonzero(unknown.any(0)), names(labels, unknown.shape[1])
    if 0 < len(columns) <= PANELS:
        wide = min(3, len(columns))
        tall = -(-len(columns) // wide)
        figure = Figure(figsize=(2.4 * wide + 0.6, 2.2 * tall + 0.4), layout="constrained")
        panels = figure.subplots(tall, wide, squeeze=False).ravel()
        for axes in panels[len(columns) :]:
            axes.set_axis_off()
        for axes, j in zip(panels[: len(columns)], columns, strict=True):
            every = np.flatnonzero(unknown[:, j])
            rows = every[spread(len(every), 40)]
            places = np.arange(len(rows))
            intervals(axes, places, *central(draws[rows, :, j]))
            axes.axhline(shift[j], color=GREY, ls="--", lw=0.8)
            marked = spread(len(rows), 5)
            axes.set_xticks(marked, [str(row) for row in rows[marked]])
            axes.set(xlim=(-0.7, len(rows) - 0.3), xlabel="row of the points (from 0)", ylabel=titles[j])
            axes.set_title(part(len(rows), len(every)), fontsize=8)
            axes.yaxis.set_major_locator(ticks(5))
    else:
        shown = columns[spread(len(columns), 24)] if len(columns) else columns
        most = max(1, 160 // max(1, len(shown)))
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.subplots()
        count = 0
        for k, j in enumerate(shown):
            every = np.flatnonzero(unknown[:, j])
            rows = every[spread(len(every), most)]
            places = k + (np.arange(len(rows)) + 0.5) / len(rows) * 0.7 - 0.35
            intervals(axes, places, *central((draws[rows, :, j] - shift[j]) / unit[j]))
            count += len(rows)
        axes.axhline(0, color=GREY, ls="--", lw=0.8)
        long = max((len(titles[j]) for j in shown), default=0) > 5
        axes.set_xticks(
            range(len(shown)),
            [titles[j] for j in shown],
            rotation=45 if long else 0,
            ha="right" if long else "center",
            rotation_mode="anchor",
        )
        axes.tick_params(axis="x", length=0)
        axes.set(xlim=(-0.6, max(1, len(shown)) - 0.4), ylabel="draws (stds of the data)")
        some = f", {len(shown)} of {len(columns)} columns" if len(shown) < len(columns) else ""
        axes.set_title(f"{part(count, int(unknown.sum()))}{some}", fontsize=8)
    handles = [
        Line2D([], [], color=BLUE, marker="o", ms=2.5, mew=0, lw=0.8, label="mean and central 80 % of the draws"),
        Line2D([], [], color=GREY, ls="--", lw=0.8, label="mean of the data"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2 if figure.get_figwidth() > 4 else 1)
    return save(figure, path)


def central(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean and the ends of the central 80 % of the draws (N, draws, *), each (N, *)."""
    low, high = np.quantile(draws, (0.1, 0.9), axis=1)
    return draws.mean(1), low, high


def intervals(
    axes: Axes, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, label: str | None = None
) -> None:
    """Draws a vertical line from ``low`` to ``high`` and a dot at ``mean`` over each place x."""
    axes.vlines(x, low, high, color=BLUE, alpha=0.35, lw=0.8)
    axes.plot(x, mean, "o", color=BLUE, ms=2.5, mew=0, label=label)


def part(shown: int, total: int) -> str:
    """Returns how many unknown values are shown, such as ``40 of 1,200 unknown values``."""
    some = f"{shown:,} of " if shown < total else ""
    return f"{some}{total:,} unknown value{'s' * (total != 1)}"
