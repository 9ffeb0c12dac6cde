"""Pictures of codes: data, the noise to which the probability flow maps them, and the data decoded from it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap, hsv_to_rgb
from matplotlib.figure import Figure

from .axes import bins, counted, dots, finite_range, histogram, legend, limits, names, outside, spread, ticks
from .canvas import BLUE, INK, PALE, Array, array, pixels, place, save, style
from .images import colours, enlarge, tile
from .planar import planar_frame

HUES = np.stack([np.linspace(0, 1, 256), np.full(256, 0.7), np.full(256, 0.8)], axis=1)
WHEEL = ListedColormap(hsv_to_rgb(HUES))  # for angles: its first and last colours are the same, and none is white


@style()
def image_codes(x: Array, z: Array, back: Array, path: Path, levels: int | None = None) -> Path:
    """Draws images, their codes and the images decoded from these, a row each, up to 12 columns.

    Arguments:
        x, back: (N, C, H, W) in data units. Three channels are shown as colours, otherwise the first channel is shown.
        z: their codes in units of the prior's standard deviation; the scale runs over [-2, 2].
        levels: the number L of integer levels, which sets the data's scale to 0 ... L; None for the range of x.
    """
    x, z, back = (array(v)[:12] for v in (x, z, back))
    count, channels, height, width = x.shape
    if channels != 3:
        x, z, back = x[:, :1], z[:, :1], back[:, :1]
    low, high = finite_range(x) if levels is None else (0, levels)
    rows = np.concatenate([colours(x, low, high), colours(z, -2, 2), colours(back, low, high)])
    factor = max(1, round(120 / max(height, width)))
    mosaic = tile(enlarge(rows, factor), 3, count, gap=(8, 4))

    shrink = min(1.0, 2200 / max(mosaic.shape))
    tall, wide = shrink * mosaic.shape[0], shrink * mosaic.shape[1]
    left, margin = 110, 20
    figure = pixels(left + wide + margin, tall + 2 * margin)
    axes = place(figure, left, margin, wide, tall)
    axes.imshow(mosaic, interpolation="nearest" if shrink == 1 else "antialiased")
    pitch = factor * height + 8
    axes.set_yticks((factor * height - 1) / 2 + pitch * np.arange(3), ["data", "code", "back"])
    axes.set_xticks([])
    axes.tick_params(left=False)
    axes.spines[:].set_visible(False)
    return save(figure, path)


@style()
def planar_codes(x: Array, z: Array, path: Path, labels: Sequence[str] | None = None) -> Path:
    """Draws data x (N, 2) beside their codes z (N, 2) in units of the prior's standard deviation, the first 20,000.

    A point and its code have the same colour, by the code's angle. The circles hold 39 %, 86 % and 99 % of N(0, I).
    """
    x, z = array(x)[:20_000], array(z)[:20_000]
    angle = np.arctan2(z[:, 1], z[:, 0])
    reach = 3.8
    frames = planar_frame(x), np.array([[-reach, reach]] * 2)
    figure = Figure(figsize=(6.6, 3.5), layout="constrained")
    panels = figure.subplots(1, 2)
    size = np.clip(60 / np.sqrt(max(1, len(x))), 1.3, 4.5) ** 2
    axis_names = names(labels, 2), ["$z_1 / \\sigma(T)$", "$z_2 / \\sigma(T)$"]
    for axes, points, frame, title, words in zip(panels, (x, z), frames, ("data", "codes"), axis_names, strict=True):
        title = counted(title, outside(points, frame), len(points))
        drawn = np.isfinite(points).all(1)
        look = {"cmap": WHEEL, "vmin": -np.pi, "vmax": np.pi, "s": size, "linewidths": 0, "alpha": 0.8}
        axes.scatter(*points[drawn].T, c=angle[drawn], zorder=2, **look)
        axes.set(title=title, xlim=frame[0], ylim=frame[1], xlabel=words[0], ylabel=words[1])
        steep = np.ptp(frame[1]) / np.ptp(frame[0])
        axes.set_aspect("equal" if 0.25 <= steep <= 4 else "auto")
        axes.xaxis.set_major_locator(ticks(6))
        axes.yaxis.set_major_locator(ticks(6))
    turn = np.linspace(0, 2 * np.pi, 200)
    for radius in (1, 2, 3):
        panels[1].plot(radius * np.cos(turn), radius * np.sin(turn), color=PALE, lw=0.7, zorder=1)
    return save(figure, path)


@style()
def code_histogram(z: Array, path: Path) -> Path:
    """Draws a histogram of all coordinates of the codes z (N, *), in units of the prior's standard deviation, under the
    normal density.
    """
    z = array(z).ravel()
    frame = np.array([min(-3.8, limits(z)[0]), max(3.8, limits(z)[1])])
    edges = np.linspace(*frame, bins(len(z)) + 1)
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.subplots()
    heights = histogram(z, edges)
    label = counted("codes", outside(z, frame), len(z))
    axes.stairs(heights, edges, fill=True, color=BLUE, alpha=0.5, label=label)
    at = np.linspace(*frame, 400)
    axes.plot(at, np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi), color=INK, ls="--", label="N(0, 1)")
    axes.set(xlim=frame, ylim=(0, 1.06 * max(0.4, min(heights.max(initial=0.0), 2.0))))
    axes.set(xlabel="$z / \\sigma(T)$, all coordinates", ylabel="density")
    legend(axes)
    return save(figure, path)


@style()
def code_identity(
    mine: Array, theirs: Array, path: Path, pictures: Array | None = None, levels: int | None = None
) -> Path:
    """Draws two networks' codes of the same points, coordinate against coordinate, and a histogram of their differences
    beside that of the differences between the codes of different points (of one point, the same again).

    Arguments:
        mine, theirs: (N, *) in units of their priors' standard deviations; up to 20,000 coordinates are drawn as dots.
        pictures: the points where they are images, (N, C, H, W) in data units; the first 12 are shown above, with both
            codes.
        levels: the number L of the pictures' integer levels; None for continuous ones.
    """
    mine, theirs = array(mine), array(theirs)
    mosaic = None if pictures is None else both_codes(array(pictures), mine, theirs, levels)
    shrink = 1.0 if mosaic is None else min(1.0, 2200 / max(mosaic.shape))
    tall, wide = (0, 0) if mosaic is None else (shrink * mosaic.shape[0], shrink * mosaic.shape[1])
    left, margin, side, below = 110, 30, 560, 110
    width = max(wide, 2 * side + 150)
    figure = pixels(left + width + margin, tall + (40 if tall else 0) + side + below + 70)
    if mosaic is not None:
        axes = place(figure, left, side + below + 70, wide, tall)
        axes.imshow(mosaic, interpolation="nearest" if shrink == 1 else "antialiased")
        pitch = (mosaic.shape[0] + 8) / 3
        axes.set_yticks((pitch - 9) / 2 + pitch * np.arange(3), ["data", "code", "other's"])
        axes.set_xticks([])
        axes.tick_params(left=False)
        axes.spines[:].set_visible(False)

    # coordinate against coordinate
    a, b = mine.reshape(len(mine), -1), theirs.reshape(len(theirs), -1)
    shown = spread(a.size, 20_000)
    points, reach = np.stack((a.ravel()[shown], b.ravel()[shown]), 1), 3.8
    frame = np.array([[-reach, reach]] * 2)
    axes = place(figure, left, below, side, side)
    axes.plot(frame[0], frame[0], color=PALE, lw=0.8, zorder=1)
    dots(axes, points, frame, BLUE, counted("coordinates", outside(points, frame), len(points)), alpha=0.5, zorder=2)
    axes.set(xlim=frame[0], ylim=frame[1], xlabel="$z / \\sigma(T)$", ylabel="the other network's")
    legend(axes)

    # differences, beside those of codes of different points
    axes = place(figure, left + width - side, below, side, side)
    unrelated = (a - np.roll(b, len(b) // 2, axis=0)).ravel()
    edges = np.linspace(-4.5, 4.5, 91)
    axes.stairs(histogram(unrelated, edges), edges, fill=True, color=PALE, label="of different points")
    heights = histogram((a - b).ravel(), edges)
    axes.stairs(heights, edges, color=BLUE, lw=1.2, label="of the same point")
    axes.set(xlim=edges[[0, -1]], ylim=(0, 1.06 * max(0.4, heights.max(initial=0.0))))
    axes.set(xlabel="difference of a coordinate", ylabel="density")
    legend(axes)
    return save(figure, path)


def both_codes(pictures: np.ndarray, mine: np.ndarray, theirs: np.ndarray, levels: int | None) -> np.ndarray:
    """Returns a sheet (H, W, 3) of pictures over their two codes, three rows of up to 12."""
    pictures, mine, theirs = pictures[:12], mine[:12], theirs[:12]
    count, channels, height, width = pictures.shape
    if channels != 3:
        pictures, mine, theirs = pictures[:, :1], mine[:, :1], theirs[:, :1]
    low, high = finite_range(pictures) if levels is None else (0, levels)
    rows = np.concatenate([colours(pictures, low, high), colours(mine, -2, 2), colours(theirs, -2, 2)])
    return tile(enlarge(rows, max(1, round(120 / max(height, width)))), 3, count, gap=(8, 4))
