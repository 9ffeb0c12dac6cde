r"""The pictures a run leaves behind: what was drawn beside what it should look like.

Every function takes numpy arrays or tensors and a path, writes a PNG there and returns the path. Held-out data are grey
and lie beneath, what the model made is blue. Frames and colour scales come from the *data* (from quantiles, where they
are continuous), never from the samples, so that a sampler that diverged is seen as one: samples that fall outside the
frame, infinite ones and NaNs among them, are counted in the legend. A pixel that is not finite is painted red.

Figures are built from ``matplotlib.figure.Figure``: no pyplot, no display, no global state but the style's context.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

DPI = 200
INK, GREY, PALE, BLUE, RED = "#262626", "#8c8c8c", "#c9c9c9", "#2a6fb0", "#c8452f"
DENSITY = "magma"  # lightness grows evenly along it
LENGTHS = ListedColormap(matplotlib.colormaps[DENSITY](np.linspace(0.08, 0.84, 256)))  # the part that shows on white

Array = np.ndarray | torch.Tensor

SUMMARY = {  # the metrics a sweep is judged by, the most telling first, and what their axes say
    "bits_per_dim": "bits / dimension",
    "nll_nats": "negative log-likelihood (nats)",
    "gap_nats": "gap to the exact NLL (nats)",
    "sliced_wasserstein": "sliced Wasserstein",
    "held_out_loss": "held-out loss",
    "nfe": "network calls (NFE)",
    "seconds": "seconds",
}


def style() -> Any:
    """The look of every picture, as a context or a decorator."""
    return matplotlib.rc_context(
        {
            "figure.facecolor": "white",
            "font.family": "DejaVu Sans",
            "font.size": 8,
            "text.color": INK,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "axes.linewidth": 0.6,
            "axes.titlesize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.titlepad": 6,
            "axes.formatter.limits": (-4, 5),
            "axes.formatter.use_mathtext": True,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 3,
            "ytick.major.size": 3,
            "xtick.minor.size": 1.5,
            "ytick.minor.size": 1.5,
            "grid.color": "#e8e8e8",
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.2,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "legend.handlelength": 1.4,
            "legend.borderaxespad": 0.2,
        }
    )


# ---- pictures of images ----


@style()
def image_grid(
    samples: Array,
    data: Array,
    path: Path,
    levels: int | None = None,
    title: str | None = None,
    panels: tuple[str, str] = ("samples", "data"),
) -> Path:
    """Samples and held-out data side by side on one scale, up to 8 x 8 pictures each; fewer columns for wide pictures.

    Arguments:
        samples, data: (N, C, H, W) and (M, C, H, W) in data units. Three channels are shown as colours, of any other
            number the first. The data on show are the first ones, as many as there are places.
        levels: the number L of integer levels, which sets the scale to 0 ... L-1 and rounds samples down to the integer
            they stand for; None for continuous data, whose range is the scale.
        panels: the headings of the two sides.
    """
    samples, data = array(samples), array(data if levels is None else data[:64])
    channels, height, width = data.shape[1:]
    columns = np.clip(round(math.sqrt(min(64, max(1, len(samples))) * height / width)), 1, 8).item()
    rows = np.clip(math.ceil(len(samples) / columns), 1, 8).item()
    samples, shown = samples[: rows * columns], data[: rows * columns]
    if channels != 3:
        samples, shown, data = samples[:, :1], shown[:, :1], data[:, :1]
    if levels is None:
        low, high = finite_range(data)
    else:
        low, high, samples, shown = 0, max(1, levels - 1), np.floor(samples), np.floor(shown)

    # whole pixels of the screen for each of a picture's, so that all are equally large
    factor = max(1, 640 // max(columns * width, rows * height))
    mosaics = [tile(enlarge(colours(x, low, high), factor), rows, columns, (4, 4)) for x in (samples, shown)]
    broken = int((~np.isfinite(samples)).any((1, 2, 3)).sum())
    channel = "" if channels in (1, 3) else f", channel 1 of {channels}"
    headings = (counted(panels[0], broken, len(samples), "not finite") + channel, panels[1] + channel)
    bar = levels is None and channels != 3

    tall, wide = mosaics[0].shape[:2]
    shrink = min(1.0, 1600 / max(tall, wide))
    tall, wide = tall * shrink, wide * shrink
    panel = max(wide, 420)  # room for the heading over a narrow panel
    margin, gap, top = 30, 50, 60 if title is None else 110
    figure = pixels(2 * margin + 2 * panel + gap + (110 if bar else 0), margin + tall + top)
    for left, mosaic, heading in zip((margin, margin + panel + gap), mosaics, headings, strict=True):
        axes = place(figure, left + (panel - wide) / 2, margin, wide, tall)
        axes.imshow(mosaic, interpolation="nearest" if shrink == 1 else "antialiased")
        axes.set(title=heading, xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=PALE, linewidth=0.5, position=("outward", 1))
    if bar:
        scale = matplotlib.cm.ScalarMappable(Normalize(low, high), "gray")
        cax = place(figure, margin + panel + gap + (panel + wide) / 2 + 25, margin, 16, tall)
        figure.colorbar(scale, cax=cax).outline.set_visible(False)
    if title is not None:
        figure.suptitle(title, y=1 - 20 / (DPI * figure.get_figheight()), va="top", fontsize=10)
    return save(figure, path)


@style()
def film_strip(states: Sequence[Array], times: Array | Sequence[float], path: Path) -> Path:
    """One batch on its way from noise to data: a row a picture (up to 8), a column a time (up to 11 of those given).

    Arguments:
        states: arrays (n, C, H, W) divided by their standard deviation (alpha^2 s_d^2 + sigma^2)^(1/2), so that noise
            and data are of one size; the grey scale, and each colour's, runs over [-2, 2].
        times: as many times, falling from T.
    """
    chosen = np.unique(np.linspace(0, len(states) - 1, min(11, len(states))).round().astype(int))
    frames = [array(states[i])[:8] for i in chosen]
    n, channels, height, width = frames[0].shape
    frames = [colours(x if channels == 3 else x[:, :1], -2, 2) for x in frames]
    factor = math.ceil(116 / max(height, width))
    pictures = enlarge(np.stack(frames, 1).reshape(-1, height, width, 3), factor)  # row by row: picture, then time
    gap = max(4, 124 - factor * width)  # room for the times over narrow pictures
    mosaic = tile(pictures, n, len(frames), (4, gap))

    shrink = min(1.0, 2200 / max(mosaic.shape))
    tall, wide = shrink * mosaic.shape[0], shrink * mosaic.shape[1]
    margin, top = 30 + gap // 2, 50
    figure = pixels(2 * margin + wide, 30 + tall + top)
    axes = place(figure, margin, 30, wide, tall)
    axes.imshow(mosaic, interpolation="nearest" if shrink == 1 else "antialiased")
    centres = (factor * width - 1) / 2 + (factor * width + gap) * np.arange(len(frames))
    axes.set_xticks(centres, [time_label(t) for t in array(times)[chosen]])
    axes.set_yticks([])
    axes.tick_params(bottom=False, labeltop=True, labelbottom=False, pad=0)
    axes.spines[:].set_visible(False)
    return save(figure, path)


# ---- points, paths and fields in the plane ----


@style()
def planar_samples(samples: Array, data: Array, path: Path, labels: Sequence[str] | None = None) -> Path:
    """Samples (N, 2) over data (M, 2) in one frame, set by the data; up to 20,000 points of each are drawn."""
    samples, data = array(samples), array(data)
    frame = planar_frame(data if len(data) else samples)
    figure, axes = planar_figure(frame, labels)
    dots(axes, data, frame, PALE, "data", alpha=0.8, size=1.5)
    dots(axes, samples, frame, BLUE, counted("samples", outside(samples, frame), len(samples)), alpha=0.6, zorder=3)
    legend(axes)
    return save(figure, path)


@style()
def density(
    grid_x: Array,
    grid_y: Array,
    log_prob: Array,
    path: Path,
    true_log_prob: Array | None = None,
    points: Array | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """The density exp(log_prob) over a rectangle, beside the exact one where it is known, on one colour scale.

    Arguments:
        grid_x, grid_y: coordinates (nx,) and (ny,) of the columns and rows, evenly spaced.
        log_prob, true_log_prob: (ny, nx) log-densities in nats. The scale ends at the 99.9 % quantile of the exact
            density, or of the model's where that is all there is; the bar's tip says when something lies above.
        points: (N, 2) to be drawn over the model's density.
    """
    grid_x, grid_y = array(grid_x), array(grid_y)
    with np.errstate(over="ignore"):
        heights = [np.exp(array(x).astype(np.float64)) for x in (log_prob, true_log_prob) if x is not None]
    known = heights[-1][np.isfinite(heights[-1])]
    top = np.quantile(known, 0.999) if known.size else 0.0
    top = float(top or known.max(initial=0.0) or 1.0)  # a density that is one narrow peak, or nowhere any
    above = any(np.nanmax(h, initial=0.0) > 1.001 * top for h in heights)

    frame, _ = cells(grid_x, grid_y)
    figure, panels = planar_figure(frame, labels, columns=len(heights), bar=True)
    for axes, height, name in zip(np.atleast_1d(panels), heights, ("model", "exact"), strict=False):
        image = axes.imshow(
            np.minimum(height, 1e3 * top),
            cmap=DENSITY,
            vmin=0,
            vmax=top,
            origin="lower",
            extent=frame.ravel(),
            aspect=axes.get_aspect(),
            interpolation="nearest",
        )
        axes.spines[:].set_visible(False)
        if len(heights) == 2:
            axes.set_title(name)
    if points is not None:
        dots(np.atleast_1d(panels)[0], array(points), frame, "white", "points", alpha=0.5, zorder=3)
    bar = figure.colorbar(image, ax=panels, label="density", extend="max" if above else "neither", aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    return save(figure, path)


@style()
def trajectories(
    paths: Array,
    path: Path,
    data: Array | None = None,
    times: Array | Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Paths from noise (hollow circles) to data (dots): in the plane, or for 1-D data through time; the first 100.

    Arguments:
        paths: (steps + 1, n, 2) or (steps + 1, n, 1), scaled by the caller so that noise and data are of like size.
        data: (M, 2) or (M, 1) on the same scale, drawn pale beneath; for 1-D data their histogram at the right edge.
        times: (steps + 1,) falling from T, the x axis of 1-D paths; the step's number without them.
    """
    paths = array(paths)[:, :100]
    if paths.ndim != 3 or paths.shape[2] not in (1, 2):
        raise ValueError(f"paths must be (steps + 1, n, 1) or (steps + 1, n, 2), not {paths.shape}")
    data = None if data is None else array(data).reshape(-1, paths.shape[2])
    cloud = paths.reshape(-1, paths.shape[2])
    frame = np.stack([limits(column, 0.005) for column in cloud.T])
    if data is not None:
        wider = np.stack([limits(column) for column in data.T])
        frame = np.stack((np.minimum(frame[:, 0], wider[:, 0]), np.maximum(frame[:, 1], wider[:, 1])), 1)

    if paths.shape[2] == 1:
        steps = np.arange(len(paths)) if times is None else array(times)
        frame = np.concatenate((np.array([[steps.min(), steps.max()]]), frame))
        paths = np.stack((np.broadcast_to(steps[:, None], paths.shape[:2]), paths[..., 0]), 2)
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes, margin = figure.subplots(1, 2, width_ratios=(5, 1), sharey=True)
        axes.set(xlabel="step" if times is None else "time $t$", ylabel=names(labels, 1)[0], ylim=frame[1])
        space = 0.03 * max(np.ptp(frame[0]), 1e-12)
        falling = len(steps) > 1 and steps[0] > steps[-1]
        axes.set_xlim(*(frame[0] + (-space, space))[:: -1 if falling else 1])
        edges = np.linspace(*frame[1], 31)
        sideways = {"fill": True, "orientation": "horizontal"}
        if data is not None:
            margin.stairs(histogram(data, edges), edges, color=PALE, **sideways)
            axes.fill_between([], [], color=PALE, label="data")  # for the legend
        margin.stairs(histogram(paths[-1, :, 1], edges), edges, color=BLUE, alpha=0.4, **sideways)
        margin.set_axis_off()
    else:
        figure, axes = planar_figure(frame, labels)
        if data is not None:
            dots(axes, data, frame, PALE, "data", alpha=0.6)

    reach = 5 * np.ptp(frame, axis=1)  # far outside the frame, yet small enough to draw
    lines = np.clip(paths, frame[:, 0] - reach, frame[:, 1] + reach).swapaxes(0, 1)
    axes.add_collection(LineCollection(list(lines), colors=INK, linewidths=0.4, alpha=0.45), autolim=False)
    ring = {"marker": "o", "ls": "", "ms": 3.2, "mfc": "white", "mec": GREY, "mew": 0.7}
    axes.plot(*lines[:, 0].T, **ring, label="noise", zorder=3)
    axes.plot(*lines[:, -1].T, "o", color=BLUE, ms=3.2, mew=0, label="samples", zorder=4)
    legend(axes)
    return save(figure, path)


@style()
def score_field(
    points_x: Array,
    points_y: Array,
    fields: Sequence[Array],
    times: Array | Sequence[float],
    path: Path,
    data: Array | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """The score as arrows, a panel a time (up to 4 of those given).

    Colour is the length of the score, on one scale for all panels; an arrow's own length compares within a panel alone,
    and by its square root, so that weak scores can be read too.

    Arguments:
        points_x, points_y: coordinates (nx,) and (ny,) of the columns and rows; 15 to 25 of each read well.
        fields: scores (ny, nx, 2), one for each of the times.
        data: (M, 2), drawn pale beneath.
    """
    points_x, points_y = array(points_x), array(points_y)
    chosen = np.unique(np.linspace(0, len(fields) - 1, min(4, len(fields))).round().astype(int))
    fields, times = [array(fields[i]).astype(np.float64) for i in chosen], array(times)[chosen]
    lengths = [np.linalg.norm(field, axis=-1) for field in fields]
    usable = np.concatenate([x[np.isfinite(x) & (x > 0)] for x in lengths])
    low, high = np.quantile(usable, (0.02, 0.98)) if usable.size else (1.0, 1.0)
    norm = LogNorm(low, max(high, 1.01 * low))

    frame, pitch = cells(points_x, points_y)
    figure, panels = planar_figure(frame, labels, columns=len(fields), bar=True)
    for axes, field, length, t in zip(np.atleast_1d(panels), fields, lengths, times, strict=True):
        if data is not None:
            dots(axes, array(data), frame, PALE, "data", alpha=0.6)
        drawn = np.isfinite(length) & (length > 0)
        x, y = np.meshgrid(points_x, points_y)
        arrow = field[drawn] / pitch  # in units of the grid, so that the longest fill their cells also off scale
        relative = np.sqrt(np.clip(length[drawn] / np.quantile(length[drawn], 0.9), 0, 1)) if drawn.any() else 1.0
        arrow *= ((0.3 + 0.65 * relative) / np.linalg.norm(arrow, axis=1))[:, None] * pitch
        image = axes.quiver(
            x[drawn],
            y[drawn],
            *arrow.T,
            length[drawn],
            cmap=LENGTHS,
            norm=norm,
            angles="xy",
            scale_units="xy",
            scale=1,
            pivot="mid",
            width=0.006,
            headwidth=4,
            headlength=4.5,
            headaxislength=4,
            zorder=3,
        )
        axes.set_title(time_label(t))
    bar = figure.colorbar(image, ax=panels, label="length of the score", extend="both", aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    return save(figure, path)


# ---- vectors of other lengths ----


@style()
def histogram_1d(
    samples: Array | None,
    data: Array,
    path: Path,
    label: str | None = None,
    log_density: Mapping[str, tuple[Array, Array]] | None = None,
) -> Path:
    """Samples (N,) or (N, 1) over data of one dimension, both as densities.

    Arguments:
        samples: None where only densities are compared.
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
        top = max(top, min(heights.max(initial=0.0), 1.5 * top))  # a handful of samples towers over any density
    looks = ({"color": RED}, {"color": INK, "ls": "--"}, {"color": GREY, "ls": ":"})
    for (name, (x, values)), look in zip((log_density or {}).items(), looks, strict=False):
        with np.errstate(over="ignore"):
            curve = np.exp(array(values).ravel().astype(np.float64))
        axes.plot(array(x).ravel(), np.minimum(curve, 1e3 * (top or 1)), label=name, **look)
        top = max(top, min(np.nanmax(curve, initial=0.0), 2 * top))
    axes.set(xlim=frame, ylim=(0, 1.06 * (top or 1)), xlabel=label or names(None, 1)[0], ylabel="density")
    legend(axes)
    return save(figure, path)


@style()
def pairs(samples: Array, data: Array, path: Path, labels: Sequence[str] | None = None) -> Path:
    """A scatter matrix of samples (N, D) over data (M, D), the first columns, up to 5; histograms on the diagonal."""
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
    missed = outside(samples, frame)
    for i in range(size):
        for j in range(size):
            axes = panels[i, j]
            if j > i:
                axes.set_axis_off()
                continue
            if i == j:
                edges = np.linspace(*frame[i], min(40, bins(len(data))) + 1)
                heights = histogram(data[:, i], edges), histogram(samples[:, i], edges)
                axes.stairs(heights[0], edges, fill=True, color=PALE)
                axes.stairs(heights[1], edges, color=BLUE, lw=1.0)
                tops = [h.max(initial=0.0) for h in heights]
                axes.set(ylim=(0, 1.1 * (max(tops[0], min(tops[1], 1.5 * tops[0])) or 1)), yticks=[])
                axes.spines["left"].set_visible(False)
            else:
                both = frame[[j, i]]
                dots(axes, data[:, [j, i]], both, PALE, "data", alpha=0.8, size=1.4)
                dots(axes, samples[:, [j, i]], both, BLUE, "samples", alpha=0.5, size=0.8, zorder=3)
                axes.set_ylim(frame[i])
                axes.yaxis.set_major_locator(ticks(3))
            axes.set_xlim(frame[j])
            axes.xaxis.set_major_locator(ticks(3))
            if i == size - 1:
                axes.set_xlabel(labels[j])
            else:
                axes.tick_params(labelbottom=False)
            if j == 0 and i > 0:
                axes.set_ylabel(labels[i])
            elif i != j:
                axes.tick_params(labelleft=False)
    figure.align_labels()
    handles = [
        Line2D([], [], ls="", marker="o", ms=4, mew=0, color=PALE, label="data"),
        Line2D([], [], ls="", marker="o", ms=4, mew=0, color=BLUE, label=counted("samples", missed, len(samples))),
    ]
    note = None if size == total else f"columns 1 to {size} of {total}"
    figure.legend(handles=handles, loc="upper right", title=note, title_fontsize=8, alignment="left", handletextpad=0.4)
    return save(figure, path)


# ---- training and sweeps ----


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


@style()
def summary_plot(rows: Sequence[Mapping[str, Any]], path: Path, metric: str | None = None) -> Path:
    """A sweep at a glance: a row a job, a panel a metric (up to 4, the most telling first), with error bars.

    Arguments:
        rows: a dict a job: "choices" ("sde=ve sampler=em"), "status" ("ok" or else), and its metrics; a standard error
            is found as ``nll_stderr`` or ``nll_nats_stderr`` for ``nll_nats``. Choices shared by all jobs are left out.
        metric: the metric the sweep is about, which is then the first panel.
    """
    preferred = dict.fromkeys([*([metric] if metric else []), *SUMMARY])
    shown = [key for key in preferred if any(is_number(row.get(key)) for row in rows)][:4]
    count, height = len(rows), max(1, len(rows))
    labels = job_labels(rows)
    left = min(5.0, 0.4 + 0.062 * max(map(len, labels), default=0))
    figure = Figure(figsize=(left + 1.8 * max(1, len(shown)), 0.75 + 0.2 * height), layout="constrained")
    panels = figure.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
    places = np.arange(count)
    for axes, key in zip(panels, shown, strict=False):
        values = np.array([row[key] if is_number(row.get(key)) and ok(row) else np.nan for row in rows], dtype=float)
        short = f"{key.rsplit('_', 1)[0]}_stderr"
        errors = [row.get(f"{key}_stderr", row.get(short)) for row in rows]
        errors = np.array([e if is_number(e) and math.isfinite(e) else 0.0 for e in errors], dtype=float)
        drawn = np.isfinite(values)
        if (low := values[drawn].min(initial=math.inf)) > 0 and values[drawn].max(initial=0.0) > 30 * low:
            axes.set_xscale("log")
        bars = {"fmt": "o", "ms": 4, "mew": 0, "color": BLUE, "ecolor": BLUE, "elinewidth": 1.0}
        axes.errorbar(values[drawn], places[drawn], xerr=errors[drawn], **bars)
        for y in places[~drawn]:
            word = repr(float(rows[y][key])) if ok(rows[y]) and is_number(rows[y].get(key)) else ""
            axes.text(0.5, y, word, transform=axes.get_yaxis_transform(), ha="center", va="center", color=RED, size=7)
        axes.set_xlabel(SUMMARY.get(key, key.replace("_", " ")))
        axes.margins(x=0.12)
        if axes.get_xscale() == "linear":
            axes.xaxis.set_major_locator(ticks(4))
    for y, row in enumerate(rows):
        if not ok(row):
            text = {"ha": "left", "va": "center", "color": RED, "size": 7}
            panels[0].text(0.04, y, "failed", transform=panels[0].get_yaxis_transform(), **text)
    if not shown:
        panels[0].set_xticks([])
    for axes in panels:
        axes.set_ylim(height - 0.4, -0.6)  # the first job on top
        axes.grid(axis="both")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_yticks(places, labels)
    return save(figure, path)


# ---- what they share ----


def array(values: Any) -> np.ndarray:
    """Numbers as a numpy array of floats, whatever they came as and wherever they lay."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.double() if values.dtype == torch.float64 else values.float()
    values = np.asarray(values)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def save(figure: Figure, path: Path) -> Path:
    """Writes the figure as a PNG, the same bytes for the same figure, and returns the path."""
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
    return path


def pixels(width: float, height: float) -> Figure:
    """An empty figure of so many pixels."""
    return Figure(figsize=(round(width) / DPI, round(height) / DPI), dpi=DPI)


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels, on whole ones, so that an image of that size is shown pixel by pixel."""
    wide, tall = np.round(figure.get_size_inches() * DPI)
    return figure.add_axes((round(left) / wide, round(bottom) / tall, round(width) / wide, round(height) / tall))


def colours(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """(N, 1 or 3, H, W) to (N, H, W, 3) in [0, 1], clipped at low and high; a pixel that is not finite is red."""
    images = np.moveaxis(images, 1, -1)
    rgb = np.clip((images - low) / (high - low), 0, 1)
    return np.where(np.isfinite(images).all(-1, keepdims=True), rgb, to_rgb(RED))


def enlarge(images: np.ndarray, factor: int) -> np.ndarray:
    """Each pixel of (N, H, W, 3) as a square of factor x factor."""
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def tile(images: np.ndarray, rows: int, columns: int, gap: tuple[int, int]) -> np.ndarray:
    """(N, H, W, 3) laid out row by row on white, ``gap`` pixels (vertical, horizontal) apart; places may stay empty."""
    height, width = images.shape[1] + gap[0], images.shape[2] + gap[1]
    sheet = np.ones((rows * height - gap[0], columns * width - gap[1], 3))
    for k, image in enumerate(images):
        top, left = k // columns * height, k % columns * width
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def finite_range(values: np.ndarray) -> tuple[float, float]:
    """The smallest and largest finite value, apart by more than nothing."""
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def limits(values: np.ndarray, tail: float = 0.001) -> np.ndarray:
    """An axis' ends (2,): the finite values less a tail on either side, and a margin."""
    values = values[np.isfinite(values)].astype(np.float64)
    low, high = np.quantile(values, (tail, 1 - tail)) if values.size else (-1.0, 1.0)
    margin = 0.07 * (high - low) or max(0.5, 0.01 * abs(low))
    return np.array([low - margin, high + margin])


def planar_frame(points: np.ndarray) -> np.ndarray:
    """The limits (2, 2) of x and y for points (N, 2)."""
    return np.stack([limits(column) for column in points.T])


def cells(grid_x: np.ndarray, grid_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The limits (2, 2) of a grid's cells, its points their centres, and the width and height of one, (2,)."""
    pitch = np.array([np.ptp(x) / max(1, len(x) - 1) or 1.0 for x in (grid_x, grid_y)])
    ends = np.array([[x.min(), x.max()] for x in (grid_x, grid_y)])
    return ends + pitch[:, None] * (-0.5, 0.5), pitch


def outside(points: np.ndarray, frame: np.ndarray) -> int:
    """How many of (N, D) or (N,) lie outside the limits (D, 2) or (2,); a NaN does."""
    inside = (points >= frame[..., 0]) & (points <= frame[..., 1])
    return len(points) - int((inside.all(1) if points.ndim == 2 else inside).sum())


def counted(name: str, few: int, total: int, what: str = "outside") -> str:
    """The name for a legend, and how many of them are not to be seen."""
    return f"{name} ({few:,} of {total:,} {what})" if few else name


def names(labels: Sequence[str] | None, dim: int) -> list[str]:
    """What the axes are called: the labels given, or x_1, x_2, ..."""
    return list(labels) if labels else [f"$x_{{{i + 1}}}$" for i in range(dim)] if dim > 1 else ["$x$"]


def time_label(t: float) -> str:
    """t = 1.00, t = 0.02, t = 1e-5, t = 80: as short as it can be told apart."""
    if t and abs(t) < 0.00995:
        mantissa, exponent = f"{t:.0e}".split("e")
        return f"t = {mantissa}e{int(exponent)}"
    return f"t = {t:.2f}" if abs(t) < 9.995 else f"t = {t:.0f}"


def planar_figure(
    frame: np.ndarray, labels: Sequence[str] | None, columns: int = 1, bar: bool = False
) -> tuple[Figure, Any]:
    """A row of panels of the frame (2, 2), to scale unless one side is over four times the other."""
    across, up = np.ptp(frame, axis=1)
    to_scale = 0.25 <= up / across <= 4
    steep = up / across if to_scale else 0.8
    width = min((3.7, 3.1, 2.5, 2.1)[columns - 1], 4.2 / steep)
    height = width * steep
    figure = Figure(figsize=(columns * width + 0.5 + 0.7 * bar, height + 0.7), layout="compressed")
    panels = figure.subplots(1, columns, sharex=True, sharey=True)
    for k, axes in enumerate(np.atleast_1d(panels)):
        axes.set(xlim=frame[0], ylim=frame[1], aspect="equal" if to_scale else "auto")
        axes.set_xlabel(names(labels, 2)[0])
        axes.xaxis.set_major_locator(ticks(6))
        axes.yaxis.set_major_locator(ticks(6))
        if k == 0:
            axes.set_ylabel(names(labels, 2)[1])
        else:
            axes.tick_params(left=False)
    return figure, panels


def dots(
    axes: Axes, points: np.ndarray, frame: np.ndarray, colour: str, label: str, alpha: float, size: float = 1.0, **more
) -> None:
    """The points (N, 2) inside the frame, up to 20,000 of them, the smaller the more they are."""
    points = points[:20_000]
    points = points[((points >= frame[:, 0]) & (points <= frame[:, 1])).all(1)]
    diameter = size * np.clip(60 / math.sqrt(max(1, len(points))), 1.3, 4.5)
    axes.plot(*points.T, "o", color=colour, ms=diameter, mew=0, alpha=alpha, label=label, **more)


def legend(axes: Axes) -> None:
    """A legend above the axes, where it hides nothing, its marks large and solid."""
    columns = 3 if len(axes.get_legend_handles_labels()[0]) <= 3 else 2
    box = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, handletextpad=0.4, columnspacing=1.4)
    for handle in box.legend_handles:
        if isinstance(handle, Line2D) and handle.get_marker() == "o":
            handle.set(alpha=1, markersize=4)


def ticks(count: int) -> MaxNLocator:
    """At most so many intervals between round numbers."""
    return MaxNLocator(count, steps=[1, 2, 5, 10])


def bins(count: int) -> int:
    """How many bins a histogram of so many values has."""
    return int(np.clip(2 * count ** (1 / 3), 8, 80))


def histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The density in each bin; values outside all of them count in the total, so the area is then less than one."""
    values = values.ravel()
    return np.histogram(values[np.isfinite(values)], edges)[0] / (max(1, len(values)) * np.diff(edges))


def series(events: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """(n, 2): the steps at which the key was recorded, and its finite values."""
    found = [(event["step"], event[key]) for event in events if "step" in event and is_number(event.get(key))]
    return np.array([pair for pair in found if math.isfinite(pair[1])], dtype=float).reshape(-1, 2)


def is_number(value: Any) -> bool:
    """A real number, finite or not; a truth value is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def ok(row: Mapping[str, Any]) -> bool:
    """Whether the job ended well."""
    return row.get("status", "ok") == "ok"


def job_labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The choices of each job that not all jobs share, or its number, at most 72 characters."""
    choices = [str(row.get("choices", "")).split() for row in rows]
    shared = set.intersection(*map(set, choices)) if len(rows) > 1 else set()
    labels = [" ".join(word for word in words if word not in shared) for words in choices]
    labels = [label or f"job {row.get('job', k)}" for k, (label, row) in enumerate(zip(labels, rows, strict=True))]
    return [label if len(label) <= 72 else f"{label[:35]} … {label[-34:]}" for label in labels]
