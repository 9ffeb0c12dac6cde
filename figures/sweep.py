"""The picture of a sweep: a row for each job, a panel for each metric."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import in_unit, ticks
from .canvas import BLUE, RED, is_number, save, style

SUMMARY = {  # the metrics that a sweep is compared by, the most important first, and the labels of their axes
    "bits_per_dim": "bits / dimension",
    "nll_nats": "negative log-likelihood (nats)",
    "gap_nats": "gap to the exact NLL (nats)",
    "sliced_wasserstein": "sliced Wasserstein",
    "held_out_loss": "held-out loss",
    "nfe": "network calls (NFE)",
    "seconds": "seconds",
}


@style()
def summary_plot(rows: Sequence[Mapping[str, Any]], path: Path, metric: str | None = None) -> Path:
    """Draws a row for each job and a panel for each metric, with error bars.

    The panels are those of ``metric`` and of the first metrics of SUMMARY that any job has, up to 4.

    Arguments:
        rows: a dict for each job: "choices" ("sde=ve sampler=em"), "status" ("ok" or another word), and its metrics;
            the standard error of ``nll_nats`` is ``nll_nats_stderr`` or ``nll_stderr``, and so for every metric.
            Choices that all of several jobs share are left out.
        metric: the metric of the first panel; None for the order of SUMMARY.
    """
    preferred = dict.fromkeys([*([metric] if metric else []), *SUMMARY])
    shown = [key for key in preferred if any(is_number(row.get(key)) for row in rows)][:4]
    labels = job_labels(rows)
    left = min(5.0, 0.4 + 0.062 * max(map(len, labels), default=0))
    columns, height = max(1, len(shown)), max(1, len(rows))
    figure = Figure(figsize=(left + 1.8 * columns, 0.75 + 0.2 * height), layout="constrained")
    panels = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for axes, key in zip(panels[: len(shown)], shown, strict=True):
        panel(axes, rows, key)
    for y, row in enumerate(rows):
        if not ok(row):
            word(panels[0], 0.04, y, "failed", ha="left")
    if not shown:
        panels[0].set_xticks([])
    for axes in panels:
        axes.set_ylim(height - 0.4, -0.6)  # the first job on top
        axes.grid(axis="both")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_yticks(np.arange(len(rows)), labels)
    return save(figure, path)


def panel(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """Draws one metric of every job, with its error bar; a value that is not finite is written as a word."""
    values = np.array([row[key] if is_number(row.get(key)) and ok(row) else np.nan for row in rows], dtype=float)
    short = f"{key.rsplit('_', 1)[0]}_stderr"
    errors = [row.get(f"{key}_stderr", row.get(short)) for row in rows]
    errors = np.array([e if is_number(e) and math.isfinite(e) else 0.0 for e in errors], dtype=float)
    drawn, places = np.isfinite(values), np.arange(len(rows))
    low, high = values[drawn].min(initial=math.inf), values[drawn].max(initial=0.0)
    if low > 0 and high > 30 * low:
        axes.set_xscale("log")
    bars = {"fmt": "o", "ms": 4, "mew": 0, "color": BLUE, "ecolor": BLUE, "elinewidth": 1.0}
    axes.errorbar(values[drawn], places[drawn], xerr=errors[drawn], **bars)
    for y in places[~drawn]:
        if ok(rows[y]) and is_number(rows[y].get(key)):
            word(axes, 0.5, y, repr(float(rows[y][key])), ha="center")
    units = {row.get("distance_unit") for row in rows if ok(row)}
    unit = units.pop() if key.startswith("sliced_wasserstein") and len(units) == 1 else None
    axes.set_xlabel(in_unit(SUMMARY.get(key, key.replace("_", " ")), unit))
    axes.margins(x=0.12)
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(ticks(4))


def word(axes: Axes, x: float, y: float, text: str, ha: str) -> None:
    """Writes a word in a job's row, in place of a value; x is 0 at the left of the panel and 1 at the right."""
    axes.text(x, y, text, transform=axes.get_yaxis_transform(), ha=ha, va="center", color=RED, size=7)


def job_labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns for each job the choices that not all of several jobs share, or its number, in at most 72 characters."""
    choices = [str(row.get("choices", "")).split() for row in rows]
    shared = set.intersection(*map(set, choices)) if len(rows) > 1 else set()
    labels = [" ".join(word for word in words if word not in shared) for words in choices]
    labels = [label or f"job {row.get('job', k)}" for k, (label, row) in enumerate(zip(labels, rows, strict=True))]
    return [label if len(label) <= 72 else f"{label[:35]} … {label[-34:]}" for label in labels]


def ok(row: Mapping[str, Any]) -> bool:
    """Returns whether the job succeeded."""
    return row.get("status", "ok") == "ok"
