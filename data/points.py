"""The user's own points and conditions: files whose rows must have one shape."""

import math

import numpy as np
import torch
from torch import Tensor

from scoresde.data.files import numbers_of, open_file, report
from scoresde.data.levels import as_levels, as_tensor, integers


def read_points(
    path: str,
    shape: tuple[int, ...],
    levels: int | None = None,
    labels: list[str] | None = None,
    key: str = "points",
    missing: bool = False,
    preferred: str = "x",
) -> Tensor:
    """Reads points in data units and logs how the file was understood.

    Arguments:
        path: a .npy, .npz, .csv or .parquet file of one point or several. Images may be (N, H, W, C), grey ones
            (N, H, W), and in a table rows of D numbers.
        shape, levels: those of the data.
        labels: the data's names of columns; a table with names is read in their order.
        key: the config key that named the file, for messages.
        missing: whether values may be NaN, and cells of a table empty.
        preferred: the name of the array to take from an .npz that holds several.

    Returns:
        the points, shape (N, *shape), float64, or integers if the data have levels and no value is missing.

    Raises:
        FileNotFoundError, ValueError: also for another shape; the error names both shapes.
    """
    source = open_file(path, key, names=labels, gaps=missing)
    found = numbers_of(source, None, labels if source.table else preferred, missing)
    if preferred == "y" and not source.table and "x" in source.names and len(source.array("x")) != len(found.values):
        raise ValueError(f"{source.where} holds {len(found.values)} rows of y for {len(source.array('x'))} of x")
    whose = "the data's" if preferred == "x" else f"y's ({', '.join(labels or [])})"
    values, said = as_points(found.values, shape, found.table, source.where, whose)
    report(source.where, [*found.notes, said])
    gaps = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
    if gaps.any():
        filled = as_levels(np.where(gaps, 0, values), levels, source.where, points=True)
        return as_tensor(np.where(gaps, np.nan, filled), torch.float64)
    dtype = torch.float64 if levels is None else integers(levels)
    return as_tensor(as_levels(values, levels, source.where, points=True), dtype)


def as_points(
    values: np.ndarray, shape: tuple[int, ...], table: bool, where: str, whose: str
) -> tuple[np.ndarray, str]:
    """Returns the array of a file as points (N, *shape), and a note on their number and the order of axes.

    Arguments:
        values: the array.
        shape: the shape of one point.
        table: whether the file is a table, whose rows may be points of any shape.
        where: the start of an error.
        whose: the owner of the shape, for the error.
    """
    if table and values.shape[1] == math.prod(shape):
        said = f"{len(values)} point{'s' * (len(values) != 1)} of shape {shape}"
        said += f", each a row of {values.shape[1]} numbers" if len(shape) > 1 else ""
        return values.reshape(-1, *shape), said
    orders = {} if table else {"": shape}
    if len(shape) == 3 and not table:
        orders |= {"(H, W, C)": (*shape[1:], shape[0])} if shape[0] != shape[1] or shape[1] != shape[2] else {}
        orders |= {"(H, W)": shape[1:]} if shape[0] == 1 else {}
    elif shape == (1,) and not table:
        orders |= {"one number": ()}
    for order, each in orders.items():
        for one in (True, False):
            if (values.shape if one else values.shape[1:]) != each:
                continue
            points = values[None] if one else values
            points = np.moveaxis(points, -1, 1) if order == "(H, W, C)" else points.reshape(-1, *shape)
            said = f"{len(points)} point{'s' * (len(points) != 1)} of shape {shape}"
            return points, said + (f", axes read as {order}" if order.startswith("(") else "")
    remedy = f"save an array of shape (N, {', '.join(map(str, shape))})"
    if table:
        remedy = f"save rows of {math.prod(shape)} numbers"
    raise ValueError(
        f"{where} holds {len(values)} points of shape {values.shape[1:]}, {whose} shape is {shape}: {remedy}"
    )
