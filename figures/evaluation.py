"""The quality of samples on one page: metrics beside their floors, shares of classes, samples beside data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import in_unit, legend
from .canvas import BLUE, GREY, INK, PALE, Array, array, save, style
from .latent import examples

NAMES = {
    "sliced_wasserstein": "sliced $W_2$",
    "fid": "FID",
    "confident": "share over 90 % sure",
    "label_accuracy": "of the class asked for",
}
LISTED = 20  # the largest number of classes that are named
COLUMN = 42  # typographic points, the width of a column of numbers: eight characters, as -0.00466, and a gap


@style()
def evaluation(
    samples: Array,
    data: Array,
    metrics: Mapping[str, Any],
    shares: Mapping[str, np.ndarray],
    names: Sequence[str],
    path: Path,
    levels: int | None = None,
) -> Path:
    """Draws a bar for each metric with its floor as a line, how often each class is drawn, and samples beside data.

    Arguments:
        samples, data: (N, *) and (M, *) in data units.
        metrics: every KEY of a float with a KEY_floor is drawn, unless it begins with class_, with KEY_stderr as its
            error bar where there is one; ``distance_unit`` names the unit of distances.
        shares: the classes' shares (K,): ``class_shares`` of samples, ``class_shares_held_out`` and
            ``class_shares_train``; empty where there are no classes.
        names: the names of the classes.
        levels: the number of levels of integer images; None for the range of ``data``.
    """
    samples, data = array(samples), array(data)
    rows = [
        key
        for key in metrics
        if f"{key}_floor" in metrics and isinstance(metrics[key], float) and not key.startswith("class_")
    ]
    wide = samples.ndim == 4 and samples.shape[3] > 1.5 * samples.shape[2]
    figure = Figure(figsize=(9.2, 0.9 + 0.2 * len(rows) + (1.7 if shares else 0.0)), layout="constrained")
    figure.set_figheight(max(figure.get_figheight(), 3.2))
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1 if not wide else 1.25])
    panels = left.subplots(2 if shares else 1, 1, squeeze=False, height_ratios=[2.2, 1] if shares else [1])[:, 0]
    bars(panels[0], rows, metrics)
    if shares:
        classes(panels[1], shares, names)
    sides = right.subplots(1, 2)
    for axes, x, heading, colour in ((sides[0], samples, "samples", BLUE), (sides[1], data, "held-out data", PALE)):
        examples(axes, x, data, levels, colour)
        axes.set_title(heading)
    return save(figure, path)


def bars(axes: Axes, rows: Sequence[str], metrics: Mapping[str, Any]) -> None:
    """Draws a bar for each metric in ``rows`` and its floor, relative to the largest size of the value, the value plus
    its error and the floor, with the value and the floor as numbers beside it.
    """
    least = 0.0
    for k, key in enumerate(rows):
        value, floor, error = (float(metrics.get(f"{key}{end}", np.nan)) for end in ("", "_floor", "_stderr"))
        ends = [abs(v) for v in (value, floor, abs(value) + error) if np.isfinite(v)]
        largest = max(ends, default=0.0) or 1.0
        least = min(least, *(v / largest for v in (value, floor, value - error) if np.isfinite(v)))
        axes.barh(-k, value / largest, 0.55, color=BLUE, label="samples" if k == 0 else None)
        if np.isfinite(error):
            axes.plot([(value - error) / largest, (value + error) / largest], [-k, -k], color=GREY, lw=1.0)
        axes.plot(
            [floor / largest] * 2, [-k - 0.42, -k + 0.42], color=INK, lw=1.4, label="real data" if k == 0 else None
        )
        for column, (each, colour) in enumerate(((value, BLUE), (floor, INK)), 1):
            axes.annotate(
                number(each),
                (1, -k),
                xytext=(COLUMN * column, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                ha="right",
                fontsize=7,
                color=colour,
            )
    words = [NAMES.get(key, key.replace("_", " ")) for key in rows]
    words = [
        in_unit(word, metrics.get("distance_unit")) if key == "sliced_wasserstein" else word
        for key, word in zip(rows, words, strict=True)
    ]
    axes.set_yticks([-k for k in range(len(rows))], words)
    axes.set_xticks([])
    axes.axvline(0, color=GREY, lw=0.6)
    axes.set(xlim=(least - 0.03, 1.03), ylim=(-len(rows) + 0.4, 0.6))
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)
    legend(axes)


def number(value: float) -> str:
    """Returns a number with three digits, two in scientific notation, or a dash where it is not finite."""
    if not np.isfinite(value):
        return "–"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"


def classes(axes: Axes, shares: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Draws each class' share of the samples, and of held-out data, divided by its share of the training set."""
    truth = shares["class_shares_train"]
    in_training = truth > 0  # other classes have no ratio, and no bar
    ours, theirs = (shares[key][in_training] / truth[in_training] for key in ("class_shares", "class_shares_held_out"))
    places = np.arange(len(truth))
    axes.axhline(1, color=INK, lw=0.8, ls=(0, (3, 2)))
    axes.bar(places[in_training] - 0.2, ours, 0.38, color=BLUE, label="samples")
    axes.bar(places[in_training] + 0.2, theirs, 0.38, color=PALE, label="held out")
    shown = [f"{name[:7]}…" if len(name) > 8 else name for name in names]
    if len(shown) <= LISTED:
        long = max(map(len, shown), default=0) > 3
        axes.set_xticks(places, shown, rotation=45 if long else 0, ha="right" if long else "center")
    else:
        axes.set_xlabel("class")
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.7, len(truth) - 0.3)
    axes.set_ylabel("over training share")
    legend(axes)
