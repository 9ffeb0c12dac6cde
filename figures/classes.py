"""Pictures of samples by class (of images a row for each class, in the plane a colour) and of a classifier's errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .axes import dots, finite_range, legend, spread
from .canvas import BLUE, GREY, INK, PALE, Array, array, pixels, place, save, style
from .images import colours, enlarge, tile
from .planar import planar_figure, planar_frame

ROWS, COLUMNS = 10, 10  # of each sheet


@style()
def class_grid(
    samples: Array,
    y: Array,
    data: Array,
    data_y: Array,
    classes: Sequence[str],
    path: Path,
    levels: int | None = None,
    accuracy: Mapping[int, float] | None = None,
) -> Path:
    """Draws a row for each class of the samples, up to ten classes picked evenly: up to ten of its samples beside as
    many of its data.

    Arguments:
        samples, data: (N, C, H, W) and (M, C, H, W) in data units; three channels are shown as colours, otherwise the
            first channel is shown.
        y, data_y: the classes (N,) and (M,), as indices of ``classes``.
        levels: the number L of integer levels, which sets the scale to 0 ... L-1; None for the range of ``data``.
        accuracy: by class, the share of its samples that a classifier assigns to it, written beside the row.
    """
    sides = [(array(samples), array(y).astype(int)), (array(data), array(data_y).astype(int))]
    present = np.unique(sides[0][1])
    present = present[spread(len(present), ROWS)]
    if sides[0][0].shape[1] != 3:
        sides = [(x[:, :1], labels) for x, labels in sides]
    low, high = finite_range(sides[1][0]) if levels is None else (0, max(1, levels - 1))
    height, width = sides[0][0].shape[2:]
    columns = min(COLUMNS, max(int((sides[0][1] == k).sum()) for k in present))
    factor = max(1, 640 // max(columns * width, len(present) * height))
    # the sheets of the samples and of the data, a row for each class; the rest of a row is white
    mosaics = []
    for x, labels in sides:
        blank = np.ones((height * factor, width * factor, 3))
        rows = [enlarge(colours(x[labels == k][:columns], low, high), factor) for k in present]
        rows = [np.concatenate([row, np.broadcast_to(blank, (columns - len(row), *blank.shape))]) for row in rows]
        mosaics.append(tile(np.concatenate(rows), len(present), columns, gap=(4, 4)))

    # the figure, in pixels
    tall, wide = mosaics[0].shape[:2]
    shrink = min(1.0, 1600 / max(tall, wide))
    tall, wide = tall * shrink, wide * shrink
    panel, names, gap, margin, top = max(wide, 300), 130, 150 if accuracy else 60, 30, 60
    figure = pixels(names + 2 * panel + gap + margin, margin + tall + top)
    for left, mosaic, heading in zip((names, names + panel + gap), mosaics, ("samples", "data"), strict=True):
        axes = place(figure, left, margin, wide, tall)
        axes.imshow(mosaic, interpolation="nearest" if shrink == 1 else "antialiased")
        axes.set(title=heading, xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=PALE, linewidth=0.5, position=("outward", 1))
        if left == names:
            step = mosaic.shape[0] / len(present)
            for row, k in enumerate(present):
                beside = {"va": "center", "color": INK, "fontsize": 8}
                name = classes[k] if len(classes[k]) <= 9 else f"{classes[k][:8]}…"
                axes.text(-0.02 * mosaic.shape[1], (row + 0.5) * step, name, ha="right", **beside)
                if accuracy and k in accuracy:
                    axes.text(
                        1.02 * mosaic.shape[1], (row + 0.5) * step, f"{100 * accuracy[k]:.0f} %", ha="left", **beside
                    )
    return save(figure, path)


@style()
def class_scatter(
    samples: Array, y: Array, data: Array, classes: Sequence[str], path: Path, labels: Sequence[str] | None = None
) -> Path:
    """Draws samples (N, 2) coloured by their class y (N,) over data (M, 2); after ten classes the colours repeat.

    Arguments:
        classes: the names of the classes.
        labels: the names of the two axes.
    """
    samples, y, data = array(samples), array(y).astype(int), array(data)
    frame = planar_frame(data)
    figure, axes = planar_figure(frame, labels)
    dots(axes, data, frame, PALE, "data", alpha=0.8, size=1.5)
    present, palette = np.unique(y), matplotlib.colormaps["tab10"]
    for k in present:
        name = f"given {classes[k]}" if len(present) <= 5 else classes[k]
        dots(axes, samples[y == k], frame, palette(int(k) % 10), name, alpha=0.6, zorder=3)
    legend(axes)
    return save(figure, path)


@style()
def classifier_curve(
    ratio: Sequence[float],
    accuracy: Sequence[float],
    cross_entropy: Sequence[float],
    largest: float,
    entropy: float,
    path: Path,
) -> Path:
    """Draws a classifier's accuracy and its cross-entropy in nats against the noise-to-signal ratio.

    Arguments:
        ratio: the noise-to-signal ratios sigma/alpha.
        largest, entropy: the share of the largest class and the entropy of the shares: the accuracy and the
            cross-entropy of a classifier that ignores its input, drawn as lines.
    """
    figure = Figure(figsize=(6.6, 2.6), layout="constrained")
    shown = (("accuracy", accuracy, largest), ("cross-entropy, nats", cross_entropy, entropy))
    for axes, (name, values, floor) in zip(figure.subplots(1, 2), shown, strict=True):
        axes.axhline(floor, color=GREY, lw=0.9, ls="--", label="by the classes' shares alone")
        axes.plot(ratio, values, color=BLUE, marker="o", ms=2.5, label="classifier")
        axes.set(xscale="log", xlabel="$\\sigma/\\alpha$", ylabel=name, ylim=(0, None))
        legend(axes)
    return save(figure, path)
