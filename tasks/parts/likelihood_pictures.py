"""Pictures of log p in task=likelihood: the density over a plane, and the most and the least likely images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data, subset
from scoresde.sde_lib import SDE, ScoreFn

from .conditions import encoded
from .record import Record
from .scoring import Scoring

CELLS = 72  # along each side of a picture of a density


def ranking(data: Data, result: dict[str, Tensor], record: Record) -> Path:
    """Draws the images with the largest and those with the smallest log p, up to 64 of either.

    Arguments:
        result: of :meth:`Scoring.score`.
    """
    from scoresde import figures

    order = result["log_prob"].argsort(descending=True)
    half = min(64, (len(order) + 1) // 2)
    best, worst = (result["x"][index] for index in (order[:half], order[-half:].flip(0)))
    panels = ("most likely", "least likely")
    return figures.image_grid(best, worst, record.path("likelihood.png"), levels=data.levels, panels=panels)


def heat_map(
    scoring: Scoring,
    sde: SDE,
    score: ScoreFn,
    data: Data,
    record: Record,
    points: Tensor | None = None,
    y: Tensor | None = None,
) -> Path:
    """Draws the learned density on a rectangle around the held-out data, beside the exact density if it is known.

    Data of two columns are drawn in their plane, given the one y that all points share if there is a condition. Data of
    one column given one number are drawn as p(x | y), where each column of the picture is a density over x.

    Arguments:
        points: the user's own points (N, *) in data units, of which up to 500 are drawn too; None to draw none.
        y: of each point, (N,) or (N, C), of which a plane takes the first; None without a condition.
    """
    from scoresde import figures

    y_is_an_axis = data.dim == 1
    shown = data.test[:100_000].double()  # torch.quantile takes no more than 16 million numbers
    if y_is_an_axis:
        shown = torch.cat([data.condition.test[: len(shown)], shown], 1)
        points = None if points is None else torch.cat([y, points.double()], 1)
    axes = axes_around(shown, tail=0.005 if y_is_an_axis else 0.0)
    grid = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1).reshape(-1, 2)
    if y_is_an_axis:
        x, y = grid[:, 1:], grid[:, :1]
    else:
        x, y = grid, None if y is None else y[:1].expand(len(grid), *y.shape[1:])
    coarse = replace(scoring, likelihood=replace(scoring.likelihood, rtol=1e-3, atol=1e-3))  # enough for a picture
    found = coarse.score(sde, score, data, x, encoded(data, y), what="density", dequantise=False)
    truth, labels = data.true_log_prob(x, y), data.labels()
    if y_is_an_axis:
        labels = [f"given {data.condition.titles[0]}", (labels or ["$x$"])[0]]
    return figures.density(
        *axes,
        found["log_prob"].reshape(CELLS, CELLS),
        record.path("density.png"),
        true_log_prob=None if truth is None else truth.reshape(CELLS, CELLS),
        points=None if points is None else np.asarray(subset(points, 500)),
        labels=labels,
    )


def axes_around(points: Tensor, tail: float) -> list[Tensor]:
    """Returns the coordinates of a grid, (CELLS,) for each of two axes, that covers the points (N, 2) with a margin; a
    share ``tail`` of the points on each side is left out.
    """
    low, high = points.quantile(tail, dim=0), points.quantile(1 - tail, dim=0)
    margin = 0.05 * (high - low)
    return [
        torch.linspace(float(a), float(b), CELLS, dtype=torch.float64)
        for a, b in zip(low - margin, high + margin, strict=True)
    ]
