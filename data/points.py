"""Reads the user's own points, conditions y and measurements, and checks that each has the expected shape."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scoresde.data.files import numbers_of, open_file, report
from scoresde.data.levels import as_tensor, checked_levels, integer_dtype

CHANNELS_LAST, GREY, PLAIN = "(H, W, C)", "(H, W)", ""  # axes of a point in a file, as notes name them; PLAIN: as ours


def read_points(
    path: str,
    shape: tuple[int, ...],
    levels: int | None = None,
    labels: list[str] | None = None,
    key: str = "points",
    missing: bool = False,
    content: Literal["points", "conditions", "measurements"] = "points",
    quiet: bool = False,
) -> Tensor:
    """Reads points in data units and logs which array, columns and order of axes were taken.

    Arguments:
        path: a .npy, .npz, .csv or .parquet file of one point or several. An array may hold images as (N, H, W, C), and
            grey ones as (N, H, W); a row of a table holds the D numbers of one point.
        shape: of one point (of the data, of y, or of a measurement).
        levels: the number L of integer values 0 ... L-1; None for continuous values.
        labels: the names of the data's columns, in order; for conditions, of the numbers in y. Columns of a table with
            a header are found by these names. None: all columns are taken as they stand.
        key: the config key that named the file, for messages.
        missing: whether NaN, or empty cells in a table, are allowed.
        content: what the file holds. From an .npz with several arrays, points are read from x, conditions and
            measurements from y. Measurements without an array y are read from x.
        quiet: True logs nothing, for a file that was read before.

    Returns:
        the points, shape (N, *shape), float64, or integers if the data have levels and no value is missing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, its points are not of ``shape`` (the message names both shapes) or not of
            the levels, or it holds another number of rows of y than of x.
        ImportError: a .parquet file without pyarrow.
    """
    source = open_file(path, key, names=labels, gaps=missing)
    from_y = content == "conditions" or (content == "measurements" and "y" in source.names)
    numbers = numbers_of(source, None, labels if source.table else "y" if from_y else "x", missing)
    of_y = f"y's ({', '.join(labels or [])})"
    owner = {"points": "the data's", "conditions": of_y, "measurements": "the measurement's"}[content]
    values, note = as_points(numbers.values, shape, numbers.table, source.where, owner)
    # an .npz that also holds x must have one row of y for each row of x, unless y is one condition, without an axis N
    if content == "conditions" and not source.table and "x" in source.names and len(values) == len(numbers.values):
        x = np.atleast_1d(source.array("x"))
        one_point = len(values) == 1 and x.ndim == 1  # x is one point, without an axis N
        if len(x) != len(values) and not one_point:
            raise ValueError(f"{source.where} holds {len(values)} rows of y for {len(x)} of x")
    if not quiet:
        report(source.where, [*numbers.notes, note])
    gaps = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
    if gaps.any():
        filled = checked_levels(np.where(gaps, 0, values), levels, source.where, points=True)
        return as_tensor(np.where(gaps, np.nan, filled), torch.float64)
    dtype = torch.float64 if levels is None else integer_dtype(levels)
    return as_tensor(checked_levels(values, levels, source.where, points=True), dtype)


def as_points(
    values: np.ndarray, shape: tuple[int, ...], table: bool, where: str, owner: str
) -> tuple[np.ndarray, str]:
    """Returns the array of a file as points (N, *shape), and a note on their number and order of axes.

    Arguments:
        values: the array.
        shape: the shape of one point.
        table: whether the file is a table, whose rows may be points of any shape.
        where: the file, with which an error message starts.
        owner: the owner of the shape, such as ``the data's``, for the error.

    Raises:
        ValueError: the array holds no points of this shape.
    """
    if table and values.shape[1] == math.prod(shape):
        note = f"{len(values)} point{'s' * (len(values) != 1)} of shape {shape}"
        note += f", each a row of {values.shape[1]} numbers" if len(shape) > 1 else ""
        return values.reshape(-1, *shape), note
    orders = [] if table else [(PLAIN, shape)]
    if len(shape) == 3 and not table:
        channels_last = (*shape[1:], shape[0])
        if channels_last != shape:  # identical shapes need no transposing
            orders.append((CHANNELS_LAST, channels_last))
        if shape[0] == 1:
            orders.append((GREY, shape[1:]))
    elif shape == (1,) and not table:
        orders.append((PLAIN, ()))
    for order, shape_in_file in orders:
        for single_point in (True, False):
            if (values.shape if single_point else values.shape[1:]) != shape_in_file:
                continue
            points = values[None] if single_point else values
            points = np.moveaxis(points, -1, 1) if order == CHANNELS_LAST else points.reshape(-1, *shape)
            note = f"{len(points)} point{'s' * (len(points) != 1)} of shape {shape}"
            return points, note + (f", axes read as {order}" if order else "")
    remedy = f"save an array of shape (N, {', '.join(map(str, shape))})"
    if table:
        remedy = f"save rows of {math.prod(shape)} numbers"
    raise ValueError(
        f"{where} holds {len(values)} points of shape {values.shape[1:]}, {owner} shape is {shape}: {remedy}"
    )
