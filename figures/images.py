"""Draws two sets of images side by side, and film strips from noise to data; makes the sheets of all image pictures."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import Normalize, to_rgb

from .axes import counted, finite_range, spread, time_label
from .canvas import PALE, RED, Array, array, pixels, place, save, style

FRAME = 116  # the least length of a film frame's longer side, in screen pixels before the film is shrunk to fit
LABEL = 124  # the width that a time above a frame needs, in screen pixels


@style()
def image_grid(
    samples: Array, data: Array, path: Path, levels: int | None = None, panels: tuple[str, str] = ("samples", "data")
) -> Path:
    """Draws two sets of images side by side with the same range of values.

    Each side has at most 8 x 8 cells; wide images get fewer columns.

    Arguments:
        samples, data: the images on the left, (N, C, H, W), and on the right, (M, C, H, W), in data units. Three
            channels are shown as colours, otherwise the first channel is shown. As many images as there are cells are
            shown, in order.
        levels: the number L of integer levels. Values 0 ... L-1 map to black ... white, and values are rounded down. If
            None, the finite range of ``data`` maps to black ... white.
        panels: the headings of the two sides.
    """
    samples = array(samples)
    data = array(data if levels is None else data[:64])  # the range needs all the data only if values are continuous
    channels, height, width = data.shape[1:]
    count = min(64, max(1, len(samples)))
    columns = min(8, max(1, round(math.sqrt(count * height / width))))  # the sheet is nearly square
    rows = min(8, max(1, math.ceil(len(samples) / columns)))
    samples, shown = samples[: rows * columns], data[: rows * columns]
    if channels != 3:
        samples, shown, data = samples[:, :1], shown[:, :1], data[:, :1]
    if levels is None:
        low, high = finite_range(data)
    else:
        low, high, samples, shown = 0, max(1, levels - 1), np.floor(samples), np.floor(shown)

    # each image pixel covers factor x factor screen pixels
    factor = max(1, 640 // max(columns * width, rows * height))
    pictures = [enlarge(colours(x, low, high), factor) for x in (samples, shown)]
    mosaics = [tile(x, rows, columns, gap=(4, 4)) for x in pictures]
    broken = int((~np.isfinite(samples)).any((1, 2, 3)).sum())
    channel = "" if channels in (1, 3) else f", channel 1 of {channels}"
    headings = (counted(panels[0], broken, len(samples), "not finite") + channel, panels[1] + channel)
    bar = levels is None and channels != 3  # three channels have no common grey bar

    # the figure, in screen pixels
    tall, wide = mosaics[0].shape[:2]
    shrink = min(1.0, 1600 / max(tall, wide))
    tall, wide = tall * shrink, wide * shrink
    panel = max(wide, 420)  # room for the heading over a narrow panel
    margin, gap, top = 30, 50, 60
    figure = pixels(2 * margin + 2 * panel + gap + (110 if bar else 0), margin + tall + top)
    for left, mosaic, heading in zip((margin, margin + panel + gap), mosaics, headings, strict=True):
        axes = place(figure, left + (panel - wide) / 2, margin, wide, tall)
        axes.imshow(mosaic, interpolation="nearest" if shrink == 1 else "antialiased")
        axes.set(title=heading, xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=PALE, linewidth=0.5, position=("outward", 1))
    if bar:
        scale = matplotlib.cm.ScalarMappable(Normalize(low, high), "gray")
        cax = place(figure, margin + panel + gap + (panel + wide) / 2 + 25, margin, 16, tall)
        figure.colorbar(scale, cax=cax).outline.set_visible(False)
    return save(figure, path)


@style()
def film_strip(states: Sequence[Array], times: Array | Sequence[float], path: Path, columns: int = 11) -> Path:
    """Draws the paths of one batch from noise to data: one row per image (at most 8), one column per chosen time.

    Arguments:
        states: arrays (n, C, H, W) in model units, divided by the marginal std (alpha^2 s_d^2 + sigma^2)^(1/2), so that
            all times have unit std. Values in [-2, 2] map to black ... white, channel by channel if there are three;
            otherwise the first channel is shown.
        times: the time of each state, falling from T.
        columns: the largest number of times shown, picked evenly with both ends.
    """
    chosen = spread(len(states), columns)
    frames = [array(states[i])[:8] for i in chosen]
    n, channels, height, width = frames[0].shape
    frames = [colours(x if channels == 3 else x[:, :1], -2, 2) for x in frames]
    factor = math.ceil(FRAME / max(height, width))
    pictures = enlarge(np.stack(frames, 1).reshape(-1, height, width, 3), factor)  # order: image, then time
    gap = max(4, LABEL - factor * width)  # room for the times over narrow images
    mosaic = tile(pictures, n, len(frames), gap=(4, gap))

    shrink = min(1.0, 2200 / max(mosaic.shape))
    tall, wide = shrink * mosaic.shape[0], shrink * mosaic.shape[1]
    margin, top = 30 + gap // 2, 50
    figure = pixels(2 * margin + wide, 30 + tall + top)
    axes = place(figure, margin, 30, wide, tall)
    axes.imshow(mosaic, interpolation="nearest" if shrink == 1 else "antialiased")
    centres = (factor * width - 1) / 2 + (factor * width + gap) * np.arange(len(frames))
    axes.set_xticks(centres, [time_label(t) for t in array(times)[chosen]])
    axes.set_yticks([])
    axes.tick_params(bottom=False, labeltop=True, labelbottom=False, pad=0)
    axes.spines[:].set_visible(False)
    return save(figure, path)


def colours(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """Maps (N, 1 or 3, H, W) to (N, H, W, 3) in [0, 1], clipped at low and high; a pixel that is not finite is red."""
    images = np.moveaxis(images, 1, -1)
    rgb = np.clip((images - low) / (high - low), 0, 1)
    return np.where(np.isfinite(images).all(-1, keepdims=True), rgb, to_rgb(RED))


def enlarge(images: np.ndarray, factor: int) -> np.ndarray:
    """Returns (N, H, W, 3) with each pixel repeated as a square of factor x factor."""
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def tile(images: np.ndarray, rows: int, columns: int, gap: tuple[int, int]) -> np.ndarray:
    """Returns a sheet (height, width, 3) with the images (N, H, W, 3) row by row, ``gap`` pixels (vertical, horizontal)
    apart; the rest is white.
    """
    height, width = images.shape[1] + gap[0], images.shape[2] + gap[1]
    sheet = np.ones((rows * height - gap[0], columns * width - gap[1], 3))
    for k, image in enumerate(images):
        top, left = k // columns * height, k % columns * width
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet
