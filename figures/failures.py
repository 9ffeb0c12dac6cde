"""Pictures of where score matching with little or no noise fails: off a manifold, and where data are rare."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .axes import legend
from .canvas import BLUE, GREY, INK, RED, Array, array, save, style

COLOURS = (RED, BLUE, GREY, INK)


@style()
def manifold(
    losses: Mapping[str, list[tuple[int, float]]],
    across: Array,
    curves: Mapping[str, tuple[Array, Array | None]],
    path: Path,
) -> Path:
    """Draws each network's loss along the training, and the component of its score across the line of the data.

    Arguments:
        losses: by the network's name, pairs (step, loss).
        across: signed distances from the line (N,).
        curves: by the network's name, the component (N,), and the exact one (N,) at its noise level, or None for a
            network not trained at one level of noise.
    """
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    largest = max(abs(loss) for events in losses.values() for _, loss in events)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(losses)}
    for name, events in losses.items():
        left.plot(*np.array(events).T, color=colours[name], label=name.replace("_", " "))
    left.set_yscale("symlog", linthresh=10)
    left.set_ylim(-3 * largest, None)
    left.set_xlabel("updates")
    left.set_ylabel("sliced score matching loss")
    legend(left)
    # the scale is that of the networks with an exact score; without noise a score diverges
    with_exact = [curve for curve, exact in curves.values() if exact is not None]
    height = 1.3 * max(np.abs(array(curve)).max() for curve in with_exact) if with_exact else None
    for name, (curve, exact) in curves.items():
        right.plot(across, array(curve), color=colours[name], label=name.replace("_", " "))
        if exact is not None:
            right.plot(across, array(exact), color=INK, lw=1, ls=(0, (2, 2)), label="exact, with this noise", zorder=4)
    if height:
        right.set_ylim(-height, height)
    right.axhline(0, color=GREY, lw=0.6)
    right.set_xlabel("distance from the line")
    right.set_ylabel("score across the line")
    legend(right)
    return save(figure, path)


@style()
def low_density(grid_x: Array, grid_y: Array, panels: Mapping[str, tuple[Array, Array, Array]], path: Path) -> Path:
    """Draws for each network the relative error of its score over the plane under contours of the density, and the
    error by density.

    Arguments:
        grid_x, grid_y: the coordinates (nx,) and (ny,) of the columns and rows.
        panels: by the network's name, the error (ny, nx) in [0, 1]; the log-density (ny, nx) in nats; and the mean
            errors (K,) of K groups of equally many points, from the densest part of the plane to the emptiest.
    """
    figure = Figure(figsize=(3.0 * len(panels) + 0.7, 4.8), layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False, height_ratios=[1.9, 1])
    extent = (grid_x[0], grid_x[-1], grid_y[0], grid_y[-1])
    for column, (name, (error, density, bins)) in enumerate(panels.items()):
        top, bottom = axes[0, column], axes[1, column]
        image = top.imshow(error, origin="lower", extent=extent, vmin=0, vmax=1, cmap="magma_r")
        contours = array(density).max() - np.array([8.0, 4.5, 2.0])  # nats below the largest log-density
        top.contour(grid_x, grid_y, density, levels=contours, colors=INK, linewidths=0.6, linestyles="solid")
        top.set_title(name.replace("_", " "))
        top.set_xticks([])
        top.set_yticks([])
        places = (np.arange(len(bins)) + 0.5) / len(bins)
        bottom.plot(places, bins, "o-", color=BLUE, ms=3)
        bottom.set_ylim(0, 1)
        bottom.set_xlim(0, 1)
        bottom.set_xticks([0, 1], ["densest", "emptiest"])
        bottom.set_yticks([0, 0.5, 1] if column == 0 else [])
    axes[1, 0].set_ylabel("relative error")
    bar = figure.colorbar(image, ax=axes[0], label="relative error of the score", aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    return save(figure, path)
