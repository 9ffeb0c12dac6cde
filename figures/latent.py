"""Pictures that compare latent-variable models by samples, codes and bounds, and generators of all kinds by samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import bins, dots, histogram, in_unit, legend, limits
from .canvas import BLUE, GREY, INK, PALE, RED, Array, array, save, style
from .images import colours, enlarge, tile
from .planar import planar_frame

TITLES = {
    "modes_found": "modes found",
    "variation": "variation of shares",
    "good": "good samples",
    "sliced_wasserstein": "sliced $W_2$",
}


@style()
def bounds(panels: Mapping[str, Mapping[str, Any]], data: Array, path: Path, unit: str, levels: int | None) -> Path:
    """Draws a column of data, with the two terms of each bound below, and a column for each model: above its samples,
    below the codes of held-out data and of the prior.

    Arguments:
        panels: by the model's name, ``samples`` (N, *) in data units; ``codes`` of data (M, 1 or 2) and codes ``drawn``
            from the prior (K, 1 or 2); the one or two ``latents``, numbers of columns of the codes, that these are; and
            its ``bound``, the sum of ``reconstruction`` and ``divergence``.
        data: held-out data (N, *) in data units; of images up to 64 are shown.
        unit: the unit of the bound and of its terms.
        levels: the number of levels of integer images; None for continuous data.
    """
    columns = 1 + len(panels)
    figure = Figure(figsize=(2.3 * columns + 0.3, 5.0), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    data = array(data)
    examples(axes[0, 0], data, data, levels, PALE)
    axes[0, 0].set_title("held-out data")
    for column, (name, panel) in enumerate(panels.items(), start=1):
        examples(axes[0, column], array(panel["samples"]), data, levels, BLUE)
        axes[0, column].set_title(f"{name.replace('_', ' ')}: {panel['bound']:.3f} {unit}")
        plane(axes[1, column], array(panel["codes"]), array(panel["drawn"]), panel["latents"], column == 1)
    terms(axes[1, 0], panels, unit)
    return save(figure, path)


def examples(axes: Axes, x: np.ndarray, data: np.ndarray, levels: int | None, colour: str) -> None:
    """Draws examples x: up to 64 images as a sheet, vectors by their first two columns as dots over the data, and
    vectors of one number as a histogram.

    Arguments:
        x: (N, *) in data units.
        data: (M, *), which set the frame and, where ``levels`` is None, the colour scale.
        levels: the number of levels of integer images; None for the range of the data.
        colour: that of the dots or the histogram; PALE where x are the data themselves, whose histogram is grey.
    """
    axes.set_xticks([])
    axes.set_yticks([])
    if x.ndim == 4:
        low, high = (0, max(1, levels - 1)) if levels else (np.nanmin(data), np.nanmax(data))
        side = 8 if len(x) >= 64 else max(1, int(np.sqrt(len(x))))
        sheet = colours(x[: side**2] if x.shape[1] == 3 else x[: side**2, :1], low, high)
        factor = max(1, 240 // (side * max(x.shape[2:])))
        axes.imshow(tile(enlarge(sheet, factor), side, side, (2, 2)), interpolation="antialiased")
        axes.spines[:].set_visible(False)
        return
    if x.shape[1] == 1:
        frame = limits(data[:, 0])
        edges = np.linspace(*frame, bins(len(data)) + 1)
        axes.stairs(histogram(x, edges), edges, color=colour if colour != PALE else GREY)
        axes.set_xlim(frame)
        return
    frame = planar_frame(data[:, :2])
    dots(axes, data[:, :2], frame, PALE, None, alpha=0.8, size=1.5)
    if colour != PALE:
        dots(axes, x[:, :2], frame, colour, None, alpha=0.5, zorder=3)
    axes.set(xlim=frame[0], ylim=frame[1], aspect="equal")


def plane(axes: Axes, codes: np.ndarray, drawn: np.ndarray, latents: list[int], first: bool) -> None:
    """Draws codes of data (M, 1 or 2) and codes drawn from the prior (K, 1 or 2): two numbers as dots, one as a
    histogram. The first panel has a legend too.
    """
    if codes.shape[1] == 1:
        frame = limits(codes[:, 0])
        edges = np.linspace(*frame, bins(len(codes)) + 1)
        axes.stairs(histogram(codes, edges), edges, fill=True, color=PALE, label="codes of data")
        axes.stairs(histogram(drawn, edges), edges, color=BLUE, label="prior")
        axes.set_yticks([])
    else:
        frame = planar_frame(codes)
        width = np.ptp(frame, axis=1).max() / 2  # the frame is made a square
        frame = frame.mean(1, keepdims=True) + np.array([-width, width])
        dots(axes, drawn, frame, BLUE, "prior", alpha=0.4)
        dots(axes, codes, frame, INK, "codes of data", alpha=0.5, size=0.6, zorder=3)
        axes.set(xlim=frame[0], ylim=frame[1], aspect="equal")
        axes.set_ylabel(f"latent {latents[1] + 1}")
    axes.set_xlabel(f"latent {latents[0] + 1}")
    if first:
        legend(axes)


def terms(axes: Axes, panels: Mapping[str, Mapping[str, Any]], unit: str) -> None:
    """Draws the two terms of each bound as one bar: the second starts where the first ends."""
    for k, (name, panel) in enumerate(panels.items()):
        look = {"color": INK, "ha": "left", "va": "bottom", "fontsize": 7}
        start, bound = panel["reconstruction"], panel["bound"]
        axes.barh(-k, start, 0.3, color=PALE, label="reconstruction" if k == 0 else None)
        axes.barh(-k, panel["divergence"], 0.3, left=start, color=BLUE, label="fit to the prior" if k == 0 else None)
        axes.plot([bound, bound], [-k - 0.22, -k + 0.22], color=INK, lw=1.4)
        text = f"{name.replace('_', ' ')}: {start:.3f} + {panel['divergence']:.3f}"
        axes.text(0.0, -k + 0.2, text, transform=axes.get_yaxis_transform(), **look)
    axes.set_ylim(-len(panels) + 0.5, 0.6)
    axes.set_yticks([])
    axes.set_xlabel(f"{unit} (line: the bound)")
    legend(axes)


@style()
def generators(
    samples: Mapping[str, Array],
    data: Array,
    table: Mapping[str, list[Mapping[str, Any]]],
    floor: Mapping[str, float],
    modes: int,
    path: Path,
    levels: int | None,
    unit: str | None = None,
) -> Path:
    """Draws samples of each model's first training beside the data, and below, for each measure, a dot a training with
    the floor as a line.

    Arguments:
        samples: by the model's name, (N, *) in data units.
        data: held-out data (M, *) in data units.
        table: by the model's name, the measures of each training by their names.
        floor: the measures of training data by their names; a measure without a floor is not drawn.
        modes: the number of modes of the data.
        levels: the number of levels of integer images; None for continuous data.
        unit: the unit of distances to data, ``data`` or ``std``; None for none.
    """
    order = ("modes_found", "variation", "good", "precision", "recall", "sliced_wasserstein")
    shown = [key for key in order if key in floor]
    columns = 1 + len(samples)
    figure = Figure(figsize=(1.75 * columns + 0.2, 4.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.05])
    top = above.subplots(1, columns)
    examples(top[0], array(data), array(data), levels, PALE)
    top[0].set_title("held-out data")
    for axes, (name, x) in zip(top[1:], samples.items(), strict=True):
        examples(axes, array(x), array(data), levels, BLUE)
        axes.set_title(name.replace("_", " "))
    names = list(table)
    for axes, key in zip(below.subplots(1, len(shown)), shown, strict=True):
        for k, name in enumerate(names):
            values = np.array([row[key] for row in table[name]], dtype=np.float64)
            places = k + 0.5 * (np.arange(len(values)) - (len(values) - 1) / 2) / max(1, len(values))
            missed = np.array([row["modes_found"] < modes for row in table[name]])
            axes.plot(places[~missed], values[~missed], "o", color=BLUE, ms=3, mew=0, alpha=0.8)
            axes.plot(places[missed], values[missed], "o", color=RED, ms=3, mew=0, alpha=0.8)
        axes.axhline(floor[key], color=INK, lw=1, ls=(0, (3, 2)))
        title = TITLES.get(key, key)
        axes.set_title(in_unit(title, unit) if key == "sliced_wasserstein" else title, fontsize=8)
        axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=60)
        axes.set_xlim(-0.6, len(names) - 0.4)
        most = {"modes_found": 1.06 * modes, "good": 1.06, "precision": 1.06, "recall": 1.06}
        axes.set_ylim(0, most.get(key))
        axes.tick_params(axis="x", length=0)
    below.supxlabel("a dot a training, red where it missed a mode; line: training data", fontsize=7)
    return save(figure, path)
