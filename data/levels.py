"""Integers of L levels in arrays, and arrays as tensors."""

import numpy as np
import torch
from torch import Tensor


def as_levels(values: np.ndarray, levels: int | None, where: str) -> np.ndarray:
    """The values, booleans as 0 and 1, refused unless they are integers 0 ... levels-1; with levels None all pass."""
    values = values.astype(np.uint8) if values.dtype.kind == "b" else values
    if levels is None:
        return values
    if not 2 <= levels <= 65536:
        raise ValueError(f"data.levels={levels} must be in 2 ... 65536: type data.levels=256")
    low, high = values.min(), values.max()
    if low < 0 or high > levels - 1:
        remedy = f"type data.levels={int(high) + 1}" if low >= 0 else "shift the values to start at 0"
        raise ValueError(
            f"{where} holds values {low} ... {high}, data.levels={levels} allows 0 ... {levels - 1}: {remedy}"
        )
    if values.dtype.kind == "f" and not (values == np.floor(values)).all():
        example = values[values != np.floor(values)][0]
        raise ValueError(
            f"{where} holds {example}, data.levels={levels} allows integers only: "
            "type data.levels=null to take the values as continuous"
        )
    return values


def integers(levels: int) -> torch.dtype:
    """The smallest type that holds so many levels."""
    return torch.uint8 if levels <= 256 else torch.int32


def as_tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    """The values, which a file may hold in any order of axes and of bytes, as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=str(dtype).removeprefix("torch.")))
