"""The picture of averages of the weights: each length's measures, compared with those of the training's own average."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from .axes import legend, ticks
from .canvas import BLUE, GREY, RED, save, style


@style()
def average_lengths(
    widths: np.ndarray, panels: Sequence[tuple[str, np.ndarray, np.ndarray]], best: int, path: Path
) -> Path:
    """Draws a panel for each measure: for each length the mean over the points of its difference to the training's own
    average, with its standard error where there are several points.

    Arguments:
        widths: the lengths (K,), sigma_rel, in ascending order.
        panels: for each measure its name, its values (K, N) on N points, and those of the training's own average (N,).
        best: the index of the chosen length, drawn red.
    """
    figure = Figure(figsize=(4.6, 0.5 + 1.75 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (name, values, own) in zip(axes, panels, strict=True):
        count = values.shape[1]
        with np.errstate(invalid="ignore"):  # values that are not finite are not drawn
            change = values - own
            mean, bar = change.mean(1), change.std(1, ddof=1) / math.sqrt(count) if count > 1 else None
        line = {"color": BLUE, "fmt": "o-", "ms": 3.5, "mew": 0, "lw": 1, "elinewidth": 0.8}
        panel.axhline(0, color=GREY, lw=1, ls=(0, (4, 2)), label=f"the training's own average, {own.mean():.4g}")
        panel.errorbar(widths, mean, yerr=bar, **line)
        panel.plot(
            widths[best], mean[best], "o", color=RED, ms=5.5, mew=0, zorder=5,
            label=f"the best, {values[best].mean():.4g}",
        )  # fmt: skip
        panel.set_ylabel(f"change of\n{name}")
        panel.yaxis.set_major_locator(ticks(5))
        panel.grid(axis="y")
        legend(panel)
    last = axes[-1]
    last.set_xscale("log")
    shown = widths[[0]]
    for width in widths[1:]:  # only widths whose labels do not touch
        shown = np.append(shown, width) if width / shown[-1] > 1.3 else shown
    last.xaxis.set_major_locator(FixedLocator(shown))
    last.xaxis.set_minor_locator(NullLocator())
    last.set_xticks(shown, [f"{width:g}" for width in shown])
    last.set_xlabel(r"length of the average, $\sigma_{rel}$ (share of the training)")
    figure.align_ylabels()
    return save(figure, path)
