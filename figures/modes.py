"""The picture of the share of samples in each mode of a mixture, for several samplers, beside the true shares."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .axes import dots
from .canvas import BLUE, GREY, INK, PALE, Array, array, save, style
from .planar import planar_frame


@style()
def mode_shares(
    truth: Array,
    shares: Mapping[str, Array],
    path: Path,
    points: Mapping[str, Array] | None = None,
    data: Array | None = None,
) -> Path:
    """Draws one column for each sampler.

    The upper row shows up to 20,000 samples over the data, in the frame of the data; samples outside it are not shown
    and not counted. The lower row shows one bar for each mode, of the mean share over the seeds, and a line at the true
    share.

    Arguments:
        truth: the true weights (K,).
        shares: by the sampler's name, the shares of its samples (seeds, K); an error bar is one standard deviation over
            the seeds, with the divisor ``seeds``.
        points: by the sampler's name, planar samples (N, 2); None for no upper row.
        data: planar points (M, 2), drawn under the samples; needed with ``points``.
    """
    truth, rows = array(truth), 1 if points is None else 2
    figure = Figure(figsize=(2.4 * len(shares) + 0.4, 2.2 if rows == 1 else 4.4), layout="constrained")
    panels = figure.subplots(rows, len(shares), squeeze=False, height_ratios=[1] if rows == 1 else [1.6, 1])
    frame = None if points is None else planar_frame(array(data))
    for column, (name, of_seeds) in enumerate(shares.items()):
        of_seeds, title = array(of_seeds), name.replace("_", " ")
        if points is not None:
            axes = panels[0, column]
            dots(axes, array(data), frame, PALE, None, alpha=0.8, size=1.5)
            dots(axes, array(points[name]), frame, BLUE, None, alpha=0.5, zorder=3)
            axes.set_xlim(frame[0])
            axes.set_ylim(frame[1])
            axes.set_aspect("equal")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(title)
        axes = panels[-1, column]
        if points is None:
            axes.set_title(title)
        place, mean = np.arange(len(truth)), of_seeds.mean(0)
        axes.bar(place, mean, 0.6, color=BLUE, yerr=of_seeds.std(0), ecolor=INK, error_kw={"lw": 1})
        axes.hlines(truth, place - 0.42, place + 0.42, color=INK, lw=1.4, zorder=4)
        for k, value in enumerate(mean):
            axes.text(k, 0.02, f"{value:.2f}", ha="center", va="bottom", color="white" if value > 0.12 else GREY)
        axes.set_ylim(0, 1)
        axes.set_xticks(place, [f"mode {k + 1}" for k in place] if len(truth) <= 4 else [str(k + 1) for k in place])
        axes.set_yticks([0, 0.5, 1] if column == 0 else [])
    panels[-1, 0].set_ylabel("share (line: true)")
    return save(figure, path)
