"""Pictures of discrete chains: the terms of their variational bound, and the paths of rows of bits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from .axes import spread
from .canvas import BLUE, GREY, INK, PALE, RED, Array, array, save, style


@style()
def bound_terms(
    terms: Array, times: Array | None, path: Path, ode: float | None = None, unit: str = "bits a dimension"
) -> Path:
    """Draws the terms L_0, L_1, ..., L_N of a bound against their steps, and their running sum.

    The terms' scale is logarithmic: of those that are not positive, L_0 and L_N are numbers in the legend, and the
    others are left out.

    Arguments:
        terms: (N + 1,); a term between L_0 and L_N that was not computed is NaN, and the running sum interpolates it.
        times: t_1 ... t_N (N,), the places of L_0 ... L_{N-1} on a logarithmic scale, where L_N stands at t_N too; None
            for the numbers of the steps, 1 ... N.
        ode: the same points' value by the probability flow, a line to compare with.
        unit: the unit of all these values.
    """
    terms = array(terms).astype(np.float64)
    places = np.arange(1, len(terms)) if times is None else array(times)
    inner, seen = terms[1:-1], np.isfinite(terms[1:-1])
    filled = np.interp(np.arange(len(inner)), np.flatnonzero(seen), inner[seen]) if seen.any() else inner
    # each term
    figure = Figure(figsize=(6.6, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)

    def end_term(x: float, y: float, colour: str, mark: str, label: str) -> None:
        if y > 0:
            left.plot([x], [y], mark, color=colour, ms=5, mew=0, label=label, zorder=3)
        else:  # L_0 of continuous data, minus a log-density, may be negative, which a logarithmic scale cannot show
            left.plot([], [], mark, color=colour, ms=5, mew=0, label=f"{label} = {y:.3g}")

    shown = seen & (inner > 0)
    look = {"lw": 1.0} if len(inner) > 60 and seen.all() else {"lw": 0.6, "marker": "o", "ms": 2.4, "mew": 0}
    left.plot(places[1:][shown], inner[shown], color=BLUE, label="$L_{n-1}$", **look)
    end_term(places[0], terms[0], RED, "s", "$L_0$")
    end_term(places[-1], terms[-1], INK, "D", "$L_N$")
    left.set(xscale="linear" if times is None else "log", yscale="log", ylabel=unit)
    left.set_title("each term")
    left.legend(loc="best")

    # the running sum
    total = np.concatenate([[terms[0]], terms[0] + np.cumsum(filled)])
    right.plot(places, total, color=BLUE, lw=1.4, label="$L_0 + \\ldots + L_{n-1}$")
    whole = total[-1] + terms[-1]
    right.axhline(whole, color=INK, lw=0.8, ls=":")
    right.annotate(
        f"the bound, {whole:.3f}", (0, whole), (3, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
        fontsize=7,
    )  # fmt: skip
    if ode is not None:
        right.axhline(ode, color=RED, lw=0.8, ls="--")
        side = -9 if ode < whole else 10
        right.annotate(
            f"the ODE, {ode:.3f}", (0, ode), (3, side), xycoords=("axes fraction", "data"),
            textcoords="offset points", fontsize=7, color=RED,
        )  # fmt: skip
    right.set_title("summed from the data's side")
    low, high = min(total.min(), ode if ode is not None else np.inf), max(total.max(), whole, ode or whole)
    right.set_ylim(low - 0.06 * (high - low), high + 0.12 * (high - low))
    for axes in (left, right):
        axes.grid(axis="y")
        axes.set_xlabel("step $n$" if times is None else "$t_n$")
    return save(figure, path)


@style()
def bit_rows(
    samples: Array,
    data: Array,
    paths: Sequence[Array],
    moments: Sequence[float],
    path: Path,
    wrong: Array | None = None,
) -> Path:
    """Draws rows of bits: the paths of some samples from coins to data, samples, and real data.

    Arguments:
        samples, data: (N, L) and (M, L) of 0 and 1, the first 40 of each are shown.
        paths: for each moment the states (n, L) of 0 and 1 of n samples; the first three are shown, at up to 40
            moments.
        moments: the number of the step of each of these states.
        wrong: (N,), whether a sample is impossible under the data; these are red.
    """
    samples, data = array(samples)[:40], array(data)[:40]
    wrong = np.zeros(len(samples), dtype=bool) if wrong is None else np.asarray(wrong, dtype=bool)[: len(samples)]
    ways = np.stack([array(state)[:3] for state in paths])  # (moments, n, L)
    ways, chosen = ways[spread(len(ways), 40)], np.asarray(moments)[spread(len(ways), 40)]
    width = samples.shape[1]
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    panels = figure.subplots(1, ways.shape[1] + 2)

    def raster(axes: Axes, rows: np.ndarray, title: str, red: np.ndarray | None = None) -> None:
        shown = rows.copy() if red is None else np.where(red[:, None] & (rows > 0), 2, rows)
        axes.imshow(
            shown, cmap=ListedColormap(["white", INK, RED]), vmin=0, vmax=2, aspect="auto", interpolation="nearest"
        )
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set(visible=True, color=PALE)
        axes.set_xlabel(f"{width} bits", color=GREY, fontsize=7)

    for i, axes in enumerate(panels[:-2]):
        raster(axes, ways[:, i], "from coins to data" if ways.shape[1] == 1 else f"sample {i + 1}")
        if i == 0:
            marks = spread(len(ways), 6)
            axes.set_yticks(marks, [f"{chosen[m]:.0f}" for m in marks])
            axes.set_ylabel("step $n$")
    raster(panels[-2], samples, "samples", wrong)
    raster(panels[-1], data, "data")
    return save(figure, path)
