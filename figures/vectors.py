"""Pictures of vectors: a histogram of vectors of one number, and a scatter matrix of vectors of several."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .axes import bins, counted, dots, histogram, legend, limits, names, outside, ticks
from .canvas import BLUE, GREY, INK, PALE, RED, Array, array, save, style


@style()
def histogram_1d(
    samples: Array | None,
    data: Array,
    path: Path,
    label: str | None = None,
    log_density: Mapping[str, tuple[Array, Array]] | None = None,
) -> Path:
    """Draws samples (N,) or (N, 1) over data of one dimension, both as densities.

    Arguments:
        samples: None to compare only densities.
        data: (M,) or (M, 1), which set the frame.
        label: the name of the number; None for x.
        log_density: curves as {"model": (x, log p), "exact": (x, log p)}, in nats, drawn in this order; up to three.
    """
    data = array(data).ravel()
    frame = limits(data)
    edges = np.linspace(*frame, bins(len(data)) + 1)
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.subplots()
    heights = histogram(data, edges)
    axes.stairs(heights, edges, fill=True, color=PALE, label="data")
    top = heights.max(initial=0.0)
    if samples is not None:
        samples = array(samples).ravel()
        heights = histogram(samples, edges)
        axes.stairs(heights, edges, color=BLUE, lw=1.2, label=counted("samples", outside(samples, frame), len(samples)))
        top = max(top, min(heights.max(initial=0.0), 1.5 * top))  # a few samples give peaks above any density
    looks = ({"color": RED}, {"color": INK, "ls": "--"}, {"color": GREY, "ls": ":"})
    curves = log_density or {}
    for (name, (x, values)), look in zip(curves.items(), looks[: len(curves)], strict=True):
        with np.errstate(over="ignore"):
            curve = np.exp(array(values).ravel().astype(np.float64))
        axes.plot(array(x).ravel(), np.minimum(curve, 1e3 * (top or 1)), label=name, **look)
        top = max(top, min(np.nanmax(curve, initial=0.0), 2 * top))
    axes.set(xlim=frame, ylim=(0, 1.06 * (top or 1)), xlabel=label or names(None, 1)[0], ylabel="density")
    legend(axes)
    return save(figure, path)


@style()
def pairs(samples: Array, data: Array, path: Path, labels: Sequence[str] | None = None) -> Path:
    """Draws the first 5 columns of samples (N, D) over data (M, D) as a lower triangle of scatter plots, with
    histograms on the diagonal; the data set the limits.
    """
    samples, data = array(samples), array(data)
    total = data.shape[1]
    size = min(5, total)
    samples, data = samples[:, :size], data[:, :size]
    frame = np.stack([limits(column) for column in data.T])
    side = 1.45 if size > 2 else 2.0
    figure = Figure(figsize=(side * size + 0.6, side * size + 0.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    panels = figure.subplots(size, size, squeeze=False)
    labels = names(labels, total)
    for (i, j), axes in np.ndenumerate(panels):
        if j > i:
            axes.set_axis_off()
            continue
        if i == j:
            diagonal(axes, samples[:, i], data[:, i], frame[i])
        else:
            both = frame[[j, i]]
            dots(axes, data[:, [j, i]], both, PALE, "data", alpha=0.8, size=1.4)
            dots(axes, samples[:, [j, i]], both, BLUE, "samples", alpha=0.5, size=0.8, zorder=3)
            axes.set_ylim(frame[i])
            axes.yaxis.set_major_locator(ticks(3))
        axes.set_xlim(frame[j])
        axes.xaxis.set_major_locator(ticks(3))
        # names and numbers only at the left and at the bottom
        if i == size - 1:
            axes.set_xlabel(labels[j])
        else:
            axes.tick_params(labelbottom=False)
        if j == 0 and i > 0:
            axes.set_ylabel(labels[i])
        elif i != j:
            axes.tick_params(labelleft=False)
    figure.align_labels()
    mark = {"ls": "", "marker": "o", "ms": 4, "mew": 0}
    name = counted("samples", outside(samples, frame), len(samples))
    handles = [Line2D([], [], **mark, color=PALE, label="data"), Line2D([], [], **mark, color=BLUE, label=name)]
    note = None if size == total else f"columns 1 to {size} of {total}"
    figure.legend(handles=handles, loc="upper right", title=note, title_fontsize=8, alignment="left", handletextpad=0.4)
    return save(figure, path)


def diagonal(axes: Axes, samples: np.ndarray, data: np.ndarray, frame: np.ndarray) -> None:
    """Draws the two histograms on the diagonal of a scatter matrix. The data set the scale, which samples raise by at
    most half."""
    edges = np.linspace(*frame, min(40, bins(len(data))) + 1)
    grey, blue = histogram(data, edges), histogram(samples, edges)
    axes.stairs(grey, edges, fill=True, color=PALE)
    axes.stairs(blue, edges, color=BLUE, lw=1.0)
    top = max(grey.max(initial=0.0), min(blue.max(initial=0.0), 1.5 * grey.max(initial=0.0)))
    axes.set(ylim=(0, 1.1 * (top or 1)), yticks=[])
    axes.spines["left"].set_visible(False)
