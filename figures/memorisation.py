"""Pictures of memorisation: samples beside their nearest training and held-out examples, and the distances."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from .axes import counted, dots, finite_range, legend, outside
from .canvas import BLUE, INK, PALE, RED, Array, array, pixels, place, save, style
from .images import colours, enlarge, tile
from .planar import planar_figure, planar_frame


@style()
def distances(held_out: Array, samples: Array, copies: Array, path: Path) -> Path:
    """Draws the share of points that lie nearer to the training data than each distance.

    A curve above that of held-out data belongs to points that lie nearer than new data do.

    Arguments:
        held_out, samples, copies: the distances of held-out data, of samples and of slightly changed copies of training
            data to the nearest training example, (N,) each, where N may differ.
    """
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    looks = (("held out", held_out, {"color": INK, "ls": "--"}), ("samples", samples, {"color": BLUE, "lw": 1.6}))
    ends = []
    for name, values, look in (*looks, ("copies (control)", copies, {"color": RED, "lw": 1.0})):
        values = np.sort(array(values))
        finite = values[np.isfinite(values)]
        ends.append(np.quantile(finite, 0.995) if finite.size else 0.0)
        shares = np.arange(1, len(values) + 1) / max(1, len(values))
        axes.step(np.concatenate(([0], values)), np.concatenate(([0], shares)), where="post", label=name, **look)
    axes.set(xlim=(0, 1.05 * max(ends[:2]) or 1.0), ylim=(0, 1.02))
    axes.set(xlabel="distance to the nearest training example", ylabel="share of points nearer than that")
    axes.grid(axis="y")
    legend(axes)
    return save(figure, path)


@style()
def triples(
    samples: Array, train: Array, held_out: Array, ratios: Array, path: Path, levels: int | None = None
) -> Path:
    """Draws each of up to 24 samples beside its nearest training and its nearest held-out example, in the order given.

    Arguments:
        samples, train, held_out: (N, C, H, W) in data units. Three channels are shown as colours, otherwise the first
            channel is shown.
        ratios: (N,), the distance to the training example over that to the held-out one, written beneath.
        levels: the number L of integer levels, which sets the scale to 0 ... L-1; None for the range of the training
            examples that are shown.
    """
    samples, train, held_out, ratios = (array(v)[:24] for v in (samples, train, held_out, ratios))
    count, channels, height, width = samples.shape
    if channels != 3:
        samples, train, held_out = samples[:, :1], train[:, :1], held_out[:, :1]
    low, high = finite_range(train) if levels is None else (0, max(1, levels - 1))
    columns = min(4, count)
    rows = -(-count // columns)
    factor = max(1, round(112 / max(height, width)))
    shown = [enlarge(colours(v, low, high), factor) for v in (samples, train, held_out)]
    tall, wide = factor * height, 3 * factor * width + 8
    shrink = min(1.0, 2400 / (columns * (wide + 50) + 80), 2400 / (rows * (tall + 46) + 80))
    figure = pixels(60 + shrink * columns * (wide + 50), 100 + rows * (shrink * tall + 46))
    _, full = np.round(figure.get_size_inches() * figure.dpi)
    for k in range(count):
        row, column = divmod(k, columns)
        left = 30 + shrink * column * (wide + 50)
        bottom = full - 60 - (row + 1) * (shrink * tall + 46) + 46
        axes = place(figure, left, bottom, shrink * wide, shrink * tall)
        mosaic = tile(np.stack([v[k] for v in shown]), 1, 3, gap=(4, 4))
        axes.imshow(mosaic, interpolation="nearest" if shrink == 1 else "antialiased")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_xlabel(f"ratio {ratios[k]:.2f}", labelpad=2, fontsize=7)
        if row == 0:
            axes.set_title("sample | training | held out", fontsize=7, pad=4)
    return save(figure, path)


@style()
def planar_pairs(samples: Array, nearest: Array, train: Array, path: Path, labels: Sequence[str] | None = None) -> Path:
    """Draws up to 2,000 samples (N, 2), joined to their nearest training examples (N, 2), over training data (M, 2)."""
    samples, nearest, train = array(samples)[:2000], array(nearest)[:2000], array(train)
    frame = planar_frame(train)
    figure, axes = planar_figure(frame, labels)
    dots(axes, train, frame, PALE, "training data", alpha=0.8, size=1.4)
    drawn = ((samples >= frame[:, 0]) & (samples <= frame[:, 1])).all(1)
    lines = np.stack((samples[drawn], nearest[drawn]), 1)
    axes.add_collection(LineCollection(list(lines), colors=INK, linewidths=0.5, alpha=0.6, zorder=2), autolim=False)
    name = counted("samples", outside(samples, frame), len(samples))
    dots(axes, samples, frame, BLUE, name, alpha=0.7, size=0.8, zorder=3)
    legend(axes)
    return save(figure, path)
