"""Data of L integer levels 0 ... L-1 (``data.levels``): checks them, and names the dtype that holds them.

Levels are here the values of the data, such as the 256 grey levels of a picture; :mod:`scoresde.training.levels` is
about noise levels.
"""

import numpy as np
import torch
from torch import Tensor


def checked_levels(values: np.ndarray, levels: int | None, where: str, points: bool = False) -> np.ndarray:
    """Returns the values, with booleans as 0 and 1; raises a ValueError unless all are whole numbers 0 ... levels-1.

    Arguments:
        values: of any shape and number type; floats are returned as floats.
        levels: the number L of levels, 2 ... 65536; None allows all values.
        where: the name of the file, for the errors.
        points: whether the values are points to evaluate, for which the levels of the network's data are fixed. Errors
            then ask for other points; otherwise they propose other ``levels`` or shifted values.
    """
    values = values.astype(np.uint8) if values.dtype.kind == "b" else values
    if levels is None:
        return values
    key = "data.levels" if points else "`levels`"
    if not 2 <= levels <= 65536:
        raise ValueError(f"{key}={levels} must be in 2 ... 65536: type {key}=256")
    own = f"give points of whole numbers 0 ... {levels - 1}, as the data are"
    if values.dtype.kind == "f" and not (whole := values == np.floor(values)).all():
        raise ValueError(
            f"{where} holds {values[~whole][0]}, {key}={levels} allows integers only: "
            + (own if points else f"type {key}=null to take the values as continuous")
        )
    low, high = values.min(), values.max()
    if low < 0 or high > levels - 1:
        remedy = "shift the values to start at 0"
        if low >= 0:
            remedy = f"type {key}={int(high) + 1 if high < 65536 else 'null to take the values as continuous'}"
        raise ValueError(
            f"{where} holds values {low} ... {high}, {key}={levels} allows 0 ... {levels - 1}: "
            + (own if points else remedy)
        )
    return values


def integer_dtype(levels: int) -> torch.dtype:
    """Returns the dtype in which data of so many levels are kept: uint8 where it holds them, else int32."""
    return torch.uint8 if levels <= 256 else torch.int32


def as_tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Returns values of any memory layout and byte order, as files may hold them, as a tensor of the dtype."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=str(dtype).removeprefix("torch.")))
