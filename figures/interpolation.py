"""Pictures of paths through latent codes: strips of images, paths in the plane, or coordinate by coordinate."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from .axes import dots, finite_range, limits, names, spread, ticks
from .canvas import BLUE, GREY, INK, PALE, Array, array, pixels, place, save, style
from .images import colours, enlarge, tile
from .planar import planar_frame


@style()
def strips(x: Array, ends: Array, path: Path, levels: int | None = None) -> Path:
    """Draws up to 8 paths of images, a row each; the data at the ends of a path stand apart at the sides.

    Arguments:
        x: (N, frames, C, H, W) in data units, of which up to 13 frames are shown, picked evenly. Three channels are
            shown as colours, otherwise the first channel is shown.
        ends: (N, through, C, H, W), the data on the path; the first and the last are shown.
        levels: the number L of integer levels, which sets the scale to 0 ... L-1 and rounds down to integers; None for
            the ends' own range.
    """
    x, ends = array(x)[:8], array(ends)[:8]
    x, ends = x[:, spread(x.shape[1], 13)], ends[:, [0, -1]]
    rows, frames, channels, height, width = x.shape
    if channels != 3:
        x, ends = x[:, :, :1], ends[:, :, :1]
    low, high = finite_range(ends) if levels is None else (0, max(1, levels - 1))
    if levels is not None:
        x, ends = np.floor(x), np.floor(ends)
    factor = max(1, round(112 / max(height, width)))
    parts = []
    for part in (ends[:, :1], x, ends[:, 1:]):
        pictures = colours(part.reshape(-1, *part.shape[2:]), low, high)
        parts.append(tile(enlarge(pictures, factor), rows, part.shape[1], gap=(10, 4)))
    gap = np.ones((parts[0].shape[0], 24, 3))
    mosaic = np.concatenate([parts[0], gap, parts[1], gap, parts[2]], 1)

    shrink = min(1.0, 2400 / max(mosaic.shape))
    tall, wide = shrink * mosaic.shape[0], shrink * mosaic.shape[1]
    figure = pixels(60 + wide, 30 + tall + 56)
    axes = place(figure, 30, 30, wide, tall)
    axes.imshow(mosaic, interpolation="nearest" if shrink == 1 else "antialiased")
    side, inner = parts[0].shape[1], parts[1].shape[1]
    middle = side + 24 + (inner - 1) / 2
    centres = [(side - 1) / 2, middle, side + inner + 48 + (side - 1) / 2]
    axes.set_xticks(centres, ["data", "decoded from the codes between", "data"])
    axes.set_yticks([])
    axes.tick_params(bottom=False, labeltop=True, labelbottom=False, pad=2)
    axes.spines[:].set_visible(False)
    return save(figure, path)


@style()
def planar_paths(x: Array, z: Array, data: Array, path: Path, stops: int, labels: Sequence[str] | None = None) -> Path:
    """Draws up to 100 paths of codes over circles that hold 39 %, 86 % and 99 % of N(0, I), and the decoded paths.

    Arguments:
        x: the decoded paths (N, frames, 2) in data units.
        z: the paths of codes (N, frames, 2) in units of the prior's standard deviation.
        data: (M, 2) in data units, drawn pale beneath the decoded paths.
        stops: the number of frames from one data point on a path to the next; the frames at data points are large
            hollow dots.
    """
    x, z, data = array(x)[:100], array(z)[:100], array(data)
    figure = Figure(figsize=(6.6, 3.5), layout="constrained")
    panels = figure.subplots(1, 2)
    turn, reach = np.linspace(0, 2 * np.pi, 200), 3.8
    for radius in (1, 2, 3):
        panels[0].plot(radius * np.cos(turn), radius * np.sin(turn), color=PALE, lw=0.7, zorder=1)
    frames = np.array([[-reach, reach]] * 2), planar_frame(data if len(data) else x.reshape(-1, 2))
    dots(panels[1], data, frames[1], PALE, "data", alpha=0.6)
    words = ["$z_1 / \\sigma(T)$", "$z_2 / \\sigma(T)$"], names(labels, 2)
    titles = "paths of codes", "the same, decoded"
    for axes, paths, frame, title, word in zip(panels, (z, x), frames, titles, words, strict=True):
        far = 5 * np.ptp(frame, axis=1)
        drawn = np.clip(paths, frame[:, 0] - far, frame[:, 1] + far)  # NaN leaves a gap
        axes.add_collection(LineCollection(list(drawn), colors=INK, linewidths=0.6, alpha=0.6, zorder=2), autolim=False)
        axes.plot(*drawn.reshape(-1, 2).T, "o", color=BLUE, ms=1.8, mew=0, zorder=3)
        axes.plot(*drawn[:, ::stops].reshape(-1, 2).T, "o", ms=4, mfc="white", mec=BLUE, mew=0.9, zorder=4)
        axes.set(title=title, xlim=frame[0], ylim=frame[1], xlabel=word[0], ylabel=word[1])
        axes.set_aspect("equal" if 0.25 <= np.ptp(frame[1]) / np.ptp(frame[0]) <= 4 else "auto")
        axes.xaxis.set_major_locator(ticks(6))
        axes.yaxis.set_major_locator(ticks(6))
    return save(figure, path)


@style()
def coordinate_paths(
    x: Array, ends: Array, u: Array, data: Array, path: Path, labels: Sequence[str] | None = None
) -> Path:
    """Draws up to 20 paths of vectors, a panel for each of the first 6 coordinates.

    Arguments:
        x: (N, frames, D) in data units.
        u: (frames,) the places of the frames along the paths.
        ends: (N, through, D), the data on the paths, hollow dots at u = 0, 1, 2, ...
        data: (M, D) in data units; the grey band holds the middle 98 %.
    """
    x, ends, u, data = array(x)[:20], array(ends)[:20], array(u), array(data)
    total = x.shape[2]
    count = min(6, total)
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(3.6, 2.3 * columns), 0.4 + 2.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axes in panels.flat[count:]:
        axes.set_axis_off()
    for j, axes in enumerate(panels.flat[:count]):
        frame = limits(np.concatenate((data[:, j], ends[:, :, j].ravel())))
        finite = data[np.isfinite(data[:, j]), j]
        if len(finite):
            axes.axhspan(*np.quantile(finite, (0.01, 0.99)), color=PALE, alpha=0.4, lw=0)
        axes.plot(u, x[:, :, j].T, color=BLUE, lw=0.8, alpha=0.7)
        stops = np.broadcast_to(np.arange(ends.shape[1]), ends.shape[:2])
        axes.plot(stops.ravel(), ends[:, :, j].ravel(), "o", ms=3.2, mfc="white", mec=GREY, mew=0.7, zorder=3)
        axes.set(ylim=frame, ylabel=names(labels, total)[j])
        axes.yaxis.set_major_locator(ticks(4))
        if j >= count - columns:
            axes.set_xlabel("$u$")
    if total > count:
        figure.suptitle(f"columns 1 to {count} of {total}", fontsize=8)
    return save(figure, path)
