"""Data of whole numbers 0 ... L-1 (L grey levels, say; not noise levels): the check of arrays, and their tensors."""

import numpy as np
import torch
from torch import Tensor


def as_levels(values: np.ndarray, levels: int | None, where: str, points: bool = False) -> np.ndarray:
    """Returns the values, booleans as 0 and 1 and others in their own dtype.

    Raises a ValueError unless the values are whole numbers 0 ... levels-1, and levels is in 2 ... 65536.

    Arguments:
        levels: the number L of levels; None allows all values.
        where: the source of the values, for messages.
        points: True if the values are points for a network that exists already, so that its data set decides the
            levels; False if they are the data set itself. It changes the messages only.
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


def integers(levels: int) -> torch.dtype:
    """Returns the dtype in which data of so many levels are kept: uint8 up to 256 levels, else int32."""
    return torch.uint8 if levels <= 256 else torch.int32


def as_tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Returns values as a tensor of the same shape; torch takes neither the byte order nor every stride of a file."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=str(dtype).removeprefix("torch.")))
