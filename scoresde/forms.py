"""What users give and get: numpy arrays, tensors or data frames, whichever they gave."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.data.examples import as_array, is_frame


class Form:
    """The kind of a user's array: results are returned in it.

    Arguments:
        like: what the user gave; None for numpy arrays.
    """

    def __init__(self, like: Any = None):
        self.frame = type(like) if is_frame(like) else None
        self.device = like.device if isinstance(like, Tensor) else None

    def array(self, values: np.ndarray | Tensor) -> Any:
        """Returns values of any shape as a numpy array, or as a tensor on the user's device if a tensor was given."""
        values = values.cpu().numpy() if isinstance(values, Tensor) else values
        return values if self.device is None else torch.from_numpy(values).to(self.device)

    def rows(self, values: np.ndarray | Tensor, names: list[str] | None) -> Any:
        """Returns examples (N, *) in the user's kind, a data frame if one was given and the columns have names."""
        if self.frame is None or names is None or values.ndim != 2:
            return self.array(values)
        values = values.cpu().numpy() if isinstance(values, Tensor) else values
        return self.frame(dict(zip(names, values.T, strict=True)))


def rows_of(x: Any, data: Data, missing: bool = False) -> Tensor:
    """Returns the user's points as a tensor (N, *) in data units: float64, or integers for data of levels.

    Of a data frame the data's columns are taken by their names, in any order.

    Arguments:
        missing: whether NaN, a value to fill in, is allowed; the result is then float64.

    Raises:
        ValueError: the points are not finite numbers of the data's shape, or not of its levels.
    """
    names, shape = data.labels(), data.shape
    if is_frame(x) and names is not None:
        columns = {str(column): column for column in x.columns}
        if absent := [name for name in names if name not in columns]:
            raise ValueError(
                f"the data frame has no column {', '.join(absent)}; the columns learnt are {', '.join(names)}"
            )
        x = x[[columns[name] for name in names]]
    values = as_array(x, missing)
    if values.ndim == 1 and shape == (1,):
        values = values[:, None]
    if values.shape[1:] != shape:
        one = f"; for one point give x[None], of shape {(1, *shape)}" if values.shape == shape else ""
        raise ValueError(f"the points are of shape {values.shape}, and examples of shape {shape}: give (N, *){one}")
    bad = np.isinf(values) if missing else ~np.isfinite(values)
    if bad.any():
        row = int(bad.reshape(len(bad), -1).any(1).argmax())
        kind, hint = ("infinite", "") if missing else ("NaN or infinite", ", or fill NaNs in with model.impute(x)")
        raise ValueError(f"{int(bad.sum())} values are {kind}, the first in row {row}; leave such rows out{hint}")
    if data.levels is None or missing:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
    whole = (values == np.floor(values)) & (values >= 0) & (values < data.levels)
    if not whole.all():
        raise ValueError(f"the points hold {values[~whole][0]}, and these data are integers 0 ... {data.levels - 1}")
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
