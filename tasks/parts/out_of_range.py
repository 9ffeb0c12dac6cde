"""Counts samples far outside the training part's range, since a few of them decide means, stds and distances."""

import logging

import torch
from torch import Tensor

from scoresde.data import Data

log = logging.getLogger(__name__)

OUT = 1.0  # how far outside the training part's range counts, in widths of it


def samples_out_of_range(r: Tensor, data: Data) -> dict[str, int]:
    """Counts the samples (N, *) in data units with a value that is not finite, or further outside the training part's
    range than that range is wide, and warns with the column's name. The range is that of the value's column; for images
    that of all pixels. Returns {} for integers, which are limited to their levels, and without a training part.
    """
    limits = None if data.levels else training_range(data)
    if limits is None:
        return {}
    out = (beyond(r.double(), limits, OUT) | ~r.isfinite())[:, None]  # as one draw of each point
    if count := count_draws(out):
        log.warning(
            "samples_out_of_range: %d of %d lie further outside the training part's range than it is wide: %s; a few "
            "may decide distances to data, means and stds",
            count,
            len(r),
            worst_column(data, r.double()[:, None], out, limits),
        )
    return {"samples_out_of_range": count}


def training_range(data: Data) -> tuple[Tensor, Tensor] | None:
    """Returns the least and the largest value of the training part in data units, of each column (D,) of vectors or of
    all pixels; None without a training part. An integer k counts as [k, k + 1). A constant column has no width, and
    gets its scale as width.
    """
    if not len(data.train):
        return None
    train = data.train.flatten(1) if len(data.shape) == 1 else data.train.reshape(-1, 1)
    low, high = train.amin(0).double(), train.amax(0).double()
    high = high + 1 if data.levels else high  # integers stand for [k, k + 1)
    half = torch.where(low == high, data.scale.flatten().expand(low.shape) / 2, 0.0)
    low, high = low - half, high + half
    return (low, high) if len(data.shape) == 1 else (low[0], high[0])


def beyond(x: Tensor, limits: tuple[Tensor, Tensor], widths: float) -> Tensor:
    """Returns which values of x lie outside the limits (low, high) by more than ``widths`` times high - low."""
    low, high = limits
    margin = widths * (high - low)
    return (x < low - margin) | (x > high + margin)


def count_draws(values: Tensor) -> int:
    """Counts the draws with a True in booleans (N, draws, *)."""
    return int(values.flatten(2).any(2).sum())


def worst_column(data: Data, x: Tensor, which: Tensor, limits: tuple[Tensor, Tensor]) -> str:
    """Returns words that name the column with the most chosen values, the farthest of these, and the training range.

    Arguments:
        x: draws (N, draws, *) in data units.
        which: the chosen values, booleans of the same shape.
        limits: of :func:`training_range`.
    """
    place, what = (...,), "pixels reach"  # the index of the column, or of all pixels
    if len(data.shape) == 1:
        j = int(which.sum((0, 1)).argmax())
        names = data.labels()
        place, what = (..., j), f"column {names[j] if names else j} reaches"
    values = x[place][which[place]]
    low, high = (float(limit[place[1:]] if len(place) > 1 else limit) for limit in limits)
    finite = values[values.isfinite()]
    size = (finite - (low + high) / 2).abs()
    reached = f"{float(finite[size.argmax()]):.3g}" if len(finite) == len(values) else "values that are not finite"
    return f"{what} {reached}, trained on {low:.3g} to {high:.3g}"
