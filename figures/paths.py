"""Pictures of paths from noise to data: in the plane, or through time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from .axes import dots, histogram, legend, limits, names
from .canvas import BLUE, GREY, INK, PALE, Array, array, save, style
from .planar import planar_figure


@style()
def trajectories(
    paths: Array,
    path: Path,
    data: Array | None = None,
    times: Array | Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Draws the first 100 paths from noise (hollow circles) to data (dots): in the plane, or for 1-D data through time.

    Arguments:
        paths: (steps + 1, n, 2) or (steps + 1, n, 1), scaled by the caller so that all times have the data's std.
        data: (M, 2) or (M, 1) on the same scale, drawn pale beneath; for 1-D data as a histogram at the right edge.
        times: (steps + 1,) falling from T, the x axis of 1-D paths; by default the number of the step.

    Raises:
        ValueError: the paths have another shape.
    """
    paths = array(paths)[:, :100]
    if paths.ndim != 3 or paths.shape[2] not in (1, 2):
        raise ValueError(f"paths must be (steps + 1, n, 1) or (steps + 1, n, 2), not {paths.shape}")
    data = None if data is None else array(data).reshape(-1, paths.shape[2])
    frame = frame_of(paths, data)
    if paths.shape[2] == 1:
        steps = np.arange(len(paths)) if times is None else array(times)
        frame = np.concatenate(([[steps.min(), steps.max()]], frame))
        paths = np.stack((np.broadcast_to(steps[:, None], paths.shape[:2]), paths[..., 0]), 2)
        figure, axes = through_time(paths[-1, :, 1], data, steps, frame)
        axes.set(xlabel="step" if times is None else "time $t$", ylabel=names(labels, 1)[0])
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


def frame_of(paths: np.ndarray, data: np.ndarray | None) -> np.ndarray:
    """Returns limits (D, 2) that hold the paths (steps + 1, n, D) and the data (M, D), both without their tails."""
    frame = np.stack([limits(column, 0.005) for column in paths.reshape(-1, paths.shape[2]).T])
    if data is None:
        return frame
    wider = np.stack([limits(column) for column in data.T])
    return np.stack((np.minimum(frame[:, 0], wider[:, 0]), np.maximum(frame[:, 1], wider[:, 1])), 1)


def through_time(
    ends: np.ndarray, data: np.ndarray | None, steps: np.ndarray, frame: np.ndarray
) -> tuple[Figure, Axes]:
    """Returns a figure and its axes for paths of one number, noise at the left, and draws histograms at the right.

    Arguments:
        ends: (n,) the last values of the paths, for a histogram.
        data: (M, 1) for a histogram beneath; None for none.
        steps: (steps + 1,) the times or numbers of the steps.
        frame: the limits (2, 2) of the steps and of the values.
    """
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes, margin = figure.subplots(1, 2, width_ratios=(5, 1), sharey=True)
    space = 0.03 * max(np.ptp(frame[0]), 1e-12)
    first, last = frame[0, 0] - space, frame[0, 1] + space
    falling = len(steps) > 1 and steps[0] > steps[-1]
    axes.set(xlim=(last, first) if falling else (first, last), ylim=frame[1])
    edges = np.linspace(*frame[1], 31)
    sideways = {"fill": True, "orientation": "horizontal"}
    if data is not None:
        margin.stairs(histogram(data, edges), edges, color=PALE, **sideways)
        axes.fill_between([], [], color=PALE, label="data")  # for the legend
    margin.stairs(histogram(ends, edges), edges, color=BLUE, alpha=0.4, **sideways)
    margin.set_axis_off()
    return figure, axes
