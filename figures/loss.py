"""Pictures of a training: its losses, and likelihoods along it, against the step."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import legend, ticks
from .canvas import BLUE, GREY, RED, Array, array, is_number, save, style


@style()
def loss_curve(events: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draws training and held-out loss against the step, with the learning rate beneath where it was recorded.

    A long training loss is also drawn as its running mean.

    Arguments:
        events: each with ``step`` and some of ``loss``, ``held_out_loss`` and ``rate``; missing and not finite values
            are left out.
    """
    loss, held_out, rate = (series(events, key) for key in ("loss", "held_out_loss", "rate"))
    figure = Figure(figsize=(4.8, 3.6 if len(rate) else 2.9), layout="constrained")
    axes, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1)) if len(rate) else (figure.subplots(), None)
    if len(loss):
        width = max(1, len(loss) // 50)  # of the running mean
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
    elif values.size:
        steps = np.concatenate((loss[:, 0], held_out[:, 0]))
        show_after_the_fall(axes, values, values[steps > steps.max() / 4])
    else:
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


@style()
def overfitting_curve(
    steps: Array, train: Array, held_out: Array, events: Sequence[Mapping[str, Any]], path: Path, label: str
) -> Path:
    """Draws the negative log-likelihood of training and of held-out data along a training, over the losses.

    Arguments:
        steps: (K,), the numbers of updates after which points were scored.
        train, held_out: (K, N) and (K, M), the negative log-likelihood of each point; bands are two standard errors of
            the mean on either side, and a ring marks the least held-out mean.
        events: the events of the training, with ``step`` and some of ``loss``, drawn as its running mean, and
            ``held_out_loss``.
        label: the name and unit of the likelihoods, for the axis.
    """
    steps, loss, beside = array(steps), series(events, "loss"), series(events, "held_out_loss")
    rows = 2 if len(loss) or len(beside) else 1
    figure = Figure(figsize=(4.8, 2.2 + 1.7 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=(3, 2)[:rows])[:, 0]
    for values, colour, name in ((train, BLUE, "training data"), (held_out, RED, "held-out data")):
        values = array(values)
        mean, error = values.mean(1), values.std(1) / math.sqrt(max(1, values.shape[1] - 1))
        panels[0].fill_between(steps, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.15, lw=0)
        panels[0].plot(steps, mean, "o-", color=colour, ms=3.2, lw=1.0, mew=0, label=name)
        if colour == RED and np.isfinite(mean).any():
            best = int(np.nanargmin(mean))
            panels[0].plot(steps[best], mean[best], "o", ms=7, mfc="none", mec=RED, mew=0.9, label="its best")
    later = np.concatenate([array(v).mean(1)[len(steps) // 4 :] for v in (train, held_out)])
    means = np.concatenate([array(v).mean(1) for v in (train, held_out)])
    show_after_the_fall(panels[0], means, later)
    panels[0].set_ylabel(label)
    legend(panels[0])
    if rows == 2:
        if len(loss):
            width = max(1, len(loss) // 50)
            mean = np.convolve(loss[:, 1], np.full(width, 1 / width), "valid")
            panels[1].plot(loss[width // 2 :, 0][: len(mean)], mean, color=BLUE, lw=1.2)
        if len(beside):
            panels[1].plot(*beside.T, "o-", color=RED, ms=2.6, lw=0.6, mew=0)
        values = np.concatenate((loss[:, 1], beside[:, 1]))
        if values.min() > 0 and values.max() > 10 * values.min():
            panels[1].set_yscale("log")
        panels[1].set_ylabel("loss")
    for axes in panels:
        axes.grid(axis="y")
    panels[-1].set_xlabel("step")
    figure.align_ylabels()
    return save(figure, path)


def show_after_the_fall(axes: Axes, values: Array, later: Array) -> None:
    """Sets the limits of :func:`after_the_fall`, where there are some."""
    if (limits := after_the_fall(values, later)) is not None:
        axes.set_ylim(limits)


def after_the_fall(values: Array, later: Array) -> tuple[float, float] | None:
    """Returns the limits of an axis that show the later ones of all values, if the first ones would flatten them to
    less than a quarter of the axis; else None, as where the later ones are all equal or one of them is not finite.
    """
    finite = values[np.isfinite(values)]
    if not len(later) or not np.isfinite(later).all() or not np.ptp(finite) > 4 * np.ptp(later) > 0:
        return None
    return later.min() - 0.15 * np.ptp(later), later.max() + 0.6 * np.ptp(later)


def series(events: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Returns the steps at which a key was recorded with a finite value, and these values, (n, 2)."""
    found = [(event["step"], event[key]) for event in events if "step" in event and is_number(event.get(key))]
    return np.array([pair for pair in found if math.isfinite(pair[1])], dtype=float).reshape(-1, 2)
