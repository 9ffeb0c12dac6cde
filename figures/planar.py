"""Pictures in the plane: points, a density, the score as arrows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from .axes import counted, dots, legend, limits, names, outside, spread, ticks, time_label
from .canvas import BLUE, DENSITY, LENGTHS, PALE, Array, array, save, style


@style()
def planar_samples(samples: Array, data: Array, path: Path, labels: Sequence[str] | None = None) -> Path:
    """Draws samples (N, 2) over data (M, 2), up to 20,000 points of each; the data, if any, set the frame."""
    samples, data = array(samples), array(data)
    frame = planar_frame(data if len(data) else samples)
    figure, axes = planar_figure(frame, labels)
    dots(axes, data, frame, PALE, "data", alpha=0.8, size=1.5)
    dots(axes, samples, frame, BLUE, counted("samples", outside(samples, frame), len(samples)), alpha=0.6, zorder=3)
    legend(axes)
    return save(figure, path)


@style()
def density(
    grid_x: Array,
    grid_y: Array,
    log_prob: Array,
    path: Path,
    true_log_prob: Array | None = None,
    points: Array | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Draws the density exp(log_prob) over a rectangle, beside the exact one where it is given, on one colour scale.

    Arguments:
        grid_x, grid_y: coordinates (nx,) and (ny,) of the columns and rows, evenly spaced.
        log_prob, true_log_prob: (ny, nx) log-densities in nats. The scale ends at the 99.9 % quantile of the exact
            density, or else of the model's; the colour bar has a tip where a value lies above.
        points: (N, 2), drawn over the model's density.
    """
    grid_x, grid_y = array(grid_x), array(grid_y)
    with np.errstate(over="ignore"):
        heights = [np.exp(array(x).astype(np.float64)) for x in (log_prob, true_log_prob) if x is not None]
    top = scale_of(heights[-1])
    above = any(np.nanmax(h, initial=0.0) > 1.001 * top for h in heights)

    frame, _ = cells(grid_x, grid_y)
    figure, panels = planar_figure(frame, labels, columns=len(heights), bar=True)
    for axes, height, name in zip(np.atleast_1d(panels), heights, ("model", "exact")[: len(heights)], strict=True):
        image = axes.imshow(
            np.minimum(height, 1e3 * top),
            cmap=DENSITY,
            vmin=0,
            vmax=top,
            origin="lower",
            extent=frame.ravel(),
            aspect=axes.get_aspect(),
            interpolation="nearest",
        )
        axes.spines[:].set_visible(False)
        if len(heights) == 2:
            axes.set_title(name)
    if points is not None:
        dots(np.atleast_1d(panels)[0], array(points), frame, "white", "points", alpha=0.5, zorder=3)
    bar = figure.colorbar(image, ax=panels, label="density", extend="max" if above else "neither", aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    return save(figure, path)


@style()
def score_field(
    points_x: Array,
    points_y: Array,
    fields: Sequence[Array],
    times: Array | Sequence[float],
    path: Path,
    data: Array | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Draws the score as arrows, a panel for each of up to 4 times.

    Colour is the length of the score, on one scale for all panels. The length of an arrow grows with the square root of
    the score's length up to the panel's 90 % quantile, so that weak scores are visible, and compares only within a
    panel. Scores that are 0 or not finite are not drawn.

    Arguments:
        points_x, points_y: ascending coordinates (nx,) and (ny,) of the columns and rows; 15 to 25 of each read well.
        fields: scores (ny, nx, 2), one for each of the times, per data unit.
        times: the times, of which up to 4 are picked evenly with both ends.
        data: (M, 2), drawn pale beneath.
    """
    points_x, points_y = array(points_x), array(points_y)
    chosen = spread(len(fields), 4)
    fields, times = [array(fields[i]).astype(np.float64) for i in chosen], array(times)[chosen]
    lengths = [np.linalg.norm(field, axis=-1) for field in fields]
    usable = np.concatenate([x[np.isfinite(x) & (x > 0)] for x in lengths])
    low, high = np.quantile(usable, (0.02, 0.98)) if usable.size else (1.0, 1.0)
    norm = LogNorm(low, max(high, 1.01 * low))

    frame, pitch = cells(points_x, points_y)
    x, y = np.meshgrid(points_x, points_y)
    figure, panels = planar_figure(frame, labels, columns=len(fields), bar=True)
    for axes, field, length, t in zip(np.atleast_1d(panels), fields, lengths, times, strict=True):
        if data is not None:
            dots(axes, array(data), frame, PALE, "data", alpha=0.6)
        drawn = np.isfinite(length) & (length > 0)
        arrows = arrows_of(field[drawn], length[drawn], pitch)
        image = axes.quiver(
            x[drawn],
            y[drawn],
            *arrows.T,
            length[drawn],
            cmap=LENGTHS,
            norm=norm,
            angles="xy",
            scale_units="xy",
            scale=1,
            pivot="mid",
            width=0.006,
            headwidth=4,
            headlength=4.5,
            headaxislength=4,
            zorder=3,
        )
        axes.set_title(time_label(t))
    bar = figure.colorbar(
        image, ax=panels, label="length of the score (1 / data unit)", extend="both", aspect=30, pad=0.02
    )
    bar.outline.set_visible(False)
    return save(figure, path)


def scale_of(density: np.ndarray) -> float:
    """Returns the end of a density's colour scale: its 99.9 % quantile; its maximum where that quantile is 0, as for
    one narrow peak.
    """
    finite = density[np.isfinite(density)]
    quantile = np.quantile(finite, 0.999) if finite.size else 0.0
    return float(quantile or finite.max(initial=0.0) or 1.0)  # 1 for a density that is 0 everywhere


def arrows_of(vectors: np.ndarray, lengths: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Returns arrows (n, 2) along the vectors (n, 2), from 0.3 to 0.95 of a cell long. They grow with the square root
    of the vectors' lengths, up to the 90 % quantile.

    Arguments:
        lengths: (n,) the lengths of the vectors.
        pitch: (2,) the width and height of a cell of the grid.
    """
    if not len(vectors):
        return vectors
    relative = np.sqrt(np.clip(lengths / np.quantile(lengths, 0.9), 0, 1))
    arrows = vectors / pitch  # in units of the grid, so that the longest fill cells of any aspect ratio
    return arrows * (((0.3 + 0.65 * relative) / np.linalg.norm(arrows, axis=1))[:, None] * pitch)


def planar_figure(
    frame: np.ndarray, labels: Sequence[str] | None, columns: int = 1, bar: bool = False
) -> tuple[Figure, Any]:
    """Returns a figure and its panels with the limits ``frame`` (2, 2): an array of axes, or axes if ``columns`` is 1.

    The panels are to scale unless one side of the frame is more than four times the other.

    Arguments:
        labels: the names of the two columns.
        columns: the number of panels, 1 ... 4.
        bar: whether to leave room for a colour bar.
    """
    across, up = np.ptp(frame, axis=1)
    to_scale = 0.25 <= up / across <= 4
    steep = up / across if to_scale else 0.8
    width = min((3.7, 3.1, 2.5, 2.1)[columns - 1], 4.2 / steep)
    height = width * steep
    figure = Figure(figsize=(columns * width + 0.5 + 0.7 * bar, height + 0.7), layout="compressed")
    panels = figure.subplots(1, columns, sharex=True, sharey=True)
    for k, axes in enumerate(np.atleast_1d(panels)):
        axes.set(xlim=frame[0], ylim=frame[1], aspect="equal" if to_scale else "auto")
        axes.set_xlabel(names(labels, 2)[0])
        axes.xaxis.set_major_locator(ticks(6))
        axes.yaxis.set_major_locator(ticks(6))
        if k == 0:
            axes.set_ylabel(names(labels, 2)[1])
        else:
            axes.tick_params(left=False)
    return figure, panels


def planar_frame(points: np.ndarray) -> np.ndarray:
    """Returns the limits (2, 2) of x and y for points (N, 2); see :func:`scoresde.figures.axes.limits`."""
    return np.stack([limits(column) for column in points.T])


def cells(grid_x: np.ndarray, grid_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the limits (2, 2) of the cells round a grid's points, and the width and height of a cell, (2,)."""
    pitch = np.array([np.ptp(x) / max(1, len(x) - 1) or 1.0 for x in (grid_x, grid_y)])
    ends = np.array([[x.min(), x.max()] for x in (grid_x, grid_y)])
    return ends + pitch[:, None] * (-0.5, 0.5), pitch
