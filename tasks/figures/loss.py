"""The picture of a training: its losses against the step."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .axes import ticks
from .canvas import BLUE, GREY, RED, is_number, save, style


@style()
def loss_curve(events: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Training and held-out loss against the step, with the learning rate beneath where it was recorded.

    ``events`` carry ``step`` and some of ``loss``, ``held_out_loss`` and ``rate``; what is missing or not finite is
    left out, and a long training loss is also drawn as its running mean.
    """
    loss, held_out, rate = (series(events, key) for key in ("loss", "held_out_loss", "rate"))
    figure = Figure(figsize=(4.8, 3.6 if len(rate) else 2.9), layout="constrained")
    axes, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1)) if len(rate) else (figure.subplots(), None)
    if len(loss):
        width = max(1, len(loss) // 50)
        raw = {"lw": 0.8, "label": "training"} if width == 1 else {"lw": 0.6, "alpha": 0.3}
        axes.plot(*loss.T, color=BLUE, marker="o" if len(loss) == 1 else None, ms=3, **raw)
        if width > 1:
            mean = np.convolve(loss[:, 1], np.full(width, 1 / width), "valid")
            axes.plot(loss[width // 2 :, 0][: len(mean)], mean, color=BLUE, lw=1.4, label="training (running mean)")
    if len(held_out):
        axes.plot(*held_out.T, "o-", color=RED, ms=3.2, lw=0.6, mew=0, label="held out")
    values = np.concatenate((loss[:, 1], held_out[:, 1]))
    if values.size and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
    elif not values.size:
        axes.text(0.5, 0.5, "no finite loss was recorded", transform=axes.transAxes, ha="center", color=GREY)
    axes.grid(axis="y")
    axes.set_ylabel("loss")
    if values.size:
        axes.legend(loc="upper right")
    if lower is not None:
        lower.plot(*rate.T, color=GREY, lw=1.0, marker="o" if len(rate) == 1 else None, ms=3)
        lower.set(ylabel="rate", ylim=(0, 1.15 * max(rate[:, 1].max(), 1e-12)))
        lower.yaxis.set_major_locator(ticks(2))
    (axes if lower is None else lower).set_xlabel("step")
    figure.align_ylabels()
    return save(figure, path)


def series(events: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """(n, 2): the steps at which the key was recorded, and its finite values."""
    found = [(event["step"], event[key]) for event in events if "step" in event and is_number(event.get(key))]
    return np.array([pair for pair in found if math.isfinite(pair[1])], dtype=float).reshape(-1, 2)
