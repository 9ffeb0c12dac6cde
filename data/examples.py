r"""Vectors or images with a random part held out, and examples from memory: arrays, tensors and data frames.

The columns of vectors have units of their own (centimetres beside counts): m and s are the training part's mean and
standard deviation, column by column. Pixels share one unit: continuous images have one m and one s. Integers of L
levels, after uniform dequantisation in [0, L), are mapped to [-1, 1) by m = s = L/2.

Values are kept in torch's default type, float32, or as float64 where a column varies so little around a large mean
(times in seconds, say) that float32 would not show it. Training batches are centred before they become float32.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoresde.data.axes import as_examples
from scoresde.data.base import Data, at_least, fraction
from scoresde.data.files import refuse_nonfinite
from scoresde.data.labels import classes_of_texts, written
from scoresde.data.levels import as_tensor, checked_levels, integer_dtype


class Labels(NamedTuple):
    """The class labels of N rows.

    Attributes:
        classes: (N,), int64.
        names: the name of each class; None for classes without names.
        notes: how they were read.
    """

    classes: np.ndarray
    names: list[str] | None
    notes: list[str]


class Examples(Data):
    """Vectors (N, D) or images (N, C, H, W) that are in memory, with a random part of the rows held out.

    An array of one axis holds N vectors of one number, of two axes vectors, of three axes grey images (N, H, W). Four
    axes are (N, C, H, W) or (N, H, W, C). :func:`scoresde.data.axes.by_sizes` finds the order; where several are
    possible, ``axes`` or ``shape`` must decide. ``shape`` makes each example one of that shape. An array is split as a
    file of the same array is by :class:`scoresde.data.Arrays`, and its columns or pixels get the same units.

    Arguments:
        values: an array, a tensor, nested lists, or a data frame (pandas, polars) whose columns are numbers.
        names: the names of the columns; by default those of a data frame.
        labels: the class label of each row, (N,), of any type; or the name of the data frame's column that holds it,
            which is then no part of the examples.
        test_fraction, seed, levels, shape, axes: as for :class:`scoresde.data.Arrays`.

    Raises:
        ValueError: the values are not finite numbers, or an argument does not fit them.
    """

    def __init__(
        self,
        values: Any,
        names: list[str] | None = None,
        labels: Any = None,
        test_fraction: float = 0.1,
        seed: int = 0,
        levels: int | None = None,
        shape: list[int] | None = None,
        axes: str | None = None,
    ):
        self.check_split(test_fraction, seed)
        values, found, labels = numbers_in(values, labels)
        names = found if names is None else [str(name) for name in names]
        if names is not None and (values.ndim != 2 or len(names) != values.shape[1]):
            raise ValueError(
                f"`names` are {len(names)}, for an array of shape {values.shape}; give one for each column"
            )
        self._content_hash = hash_of(values, names, labels)
        read = None if labels is None else (lambda count: labels_in(labels, count))
        self.hold(values, names, read, "the examples", [], test_fraction, seed, levels, shape, axes, True)

    def check_split(self, test_fraction: float, seed: int) -> None:
        """Raises a ValueError for a share that holds out all rows or none, or a negative seed."""
        fraction("test_fraction", test_fraction)
        at_least("seed", seed, 0, 0)

    def hold(
        self,
        values: np.ndarray,
        names: list[str] | None,
        read: Callable[[int], Labels] | None,
        where: str,
        notes: list[str],
        test_fraction: float,
        seed: int,
        levels: int | None,
        shape: list[int] | None,
        axes: str | None,
        silent: bool,
    ) -> None:
        """Splits the values, and gives them units.

        Arguments:
            values: finite numbers, an array of one axis or more.
            names: the names of the columns; None without names.
            read: returns the labels of so many rows; None without labels.
            where: what holds the values, with which an error starts.
            notes: how the values were read.
            test_fraction, seed, levels, shape, axes: the constructor's.
            silent: whether the order of the axes goes without a note.
        """
        values, said = as_examples(values, axes, shape, where)
        self.notes = (*notes, *(() if silent else (said,)))
        if len(values) < 2:
            raise ValueError(f"{where} holds {len(values)} example: one to train on and one to hold out are the least")
        if levels is None and values.ndim == 4:
            levels = {"bool": 2, "uint8": 256}.get(values.dtype.name)
        values = checked_levels(values, levels, where)

        held_out = min(max(1, round(len(values) * test_fraction)), len(values) - 1)
        order = np.random.default_rng(seed).permutation(len(values))
        self._rows = order[held_out:], order[:held_out]
        train, test = (values[rows] for rows in self._rows)
        labels_of_parts = (None, None)
        if read is not None:
            classes, self.class_names, notes = read(len(values))
            self.notes += tuple(notes)
            labels_of_parts = tuple(torch.from_numpy(classes[rows]) for rows in self._rows)
        self._column_names = names if values.ndim == 2 and names and len(names) == values.shape[1] else None
        if levels is not None:
            shift = scale = levels / 2
            dtype = integer_dtype(levels)
        else:
            shift, scale, dtype = units(train, self._column_names, where)
            refuse_far(test, shift, scale, self._column_names, where)
        train, test = as_tensor(train, dtype), as_tensor(test, dtype)
        super().__init__(train, test, shift, scale, levels, *labels_of_parts, shuffle=False)  # the split is random

    def labels(self) -> list[str] | None:
        return self._column_names

    def fingerprint(self) -> str:
        return self._content_hash


def numbers_in(x: Any, labels: Any = None) -> tuple[np.ndarray, list[str] | None, Any]:
    """Returns what the user has in memory as an array of finite numbers, the names of its columns, and the labels.

    Arguments:
        x: an array, a tensor, nested lists or a data frame.
        labels: as for :class:`Examples`; the values of the column where it names one.

    Raises:
        ValueError: a value is no finite number, or ``labels`` names no column.
    """
    names = None
    if is_frame(x):
        names = [str(name) for name in x.columns]
        if isinstance(labels, str):
            if labels not in names:
                raise ValueError(f"`labels`={labels}: there is no such column; the columns are {', '.join(names)}")
            column = list(x.columns)[names.index(labels)]
            labels, x = np.asarray(x[column]), x[[each for each in x.columns if str(each) != labels]]
            names = [str(name) for name in x.columns]
        refuse_words(x, names)
    elif isinstance(labels, str):
        raise ValueError(f"`labels`={labels} names a column, and only a data frame has names: give the labels, (N,)")
    values = as_array(x)
    refuse_nonfinite(values, names, "the examples")
    return values, names, labels


def is_frame(x: Any) -> bool:
    """Returns whether x is a data frame, of whichever library."""
    return hasattr(x, "columns") and hasattr(x, "to_numpy") and hasattr(x, "shape")


def refuse_words(frame: Any, names: list[str]) -> None:
    """Raises a ValueError for a data frame with a column that is not numeric, or with two columns of one name."""
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the data frame has two columns called {repeated!r}: give every column a name of its own")
    for name, column in zip(names, frame.columns, strict=True):
        kind = np.asarray(frame[column]).dtype
        if kind.kind not in "biuf":
            numeric = [
                n for n, c in zip(names, frame.columns, strict=True) if np.asarray(frame[c]).dtype.kind in "biuf"
            ]
            raise ValueError(
                f"column {name!r} is not numeric (its type is {kind}): leave it out"
                + (f", x[{numeric}]" if numeric else "")
                + f", or give it as labels={name!r} if it is a class"
            )


def as_array(x: Any, missing: bool = False) -> np.ndarray:
    """Returns an array, a tensor, nested lists or a data frame of numbers as a numpy array; a copy, unless it is a
    tensor's or an array's own memory.

    Arguments:
        missing: whether missing values of a data frame (pandas' NA) are allowed; they become NaN.

    Raises:
        ValueError: it holds no numbers, or none at all.
    """
    if isinstance(x, Tensor):
        values = x.detach().cpu().numpy() if x.dtype != torch.bfloat16 else x.detach().cpu().float().numpy()
    elif is_frame(x):
        columns = [column_of(x, name, missing) for name in x.columns]
        values = np.column_stack(columns) if columns else np.empty((0, 0))
    else:
        try:
            values = np.asarray(x)
        except ValueError:
            raise ValueError("the rows are of different lengths: give an array (N, D) or (N, C, H, W)") from None
    if values.dtype.kind not in "biuf":
        raise ValueError(f"the values are of type {values.dtype}: give real numbers, an array (N, D) or (N, C, H, W)")
    if values.ndim == 0 or values.size == 0:
        raise ValueError(f"there are no examples in an array of shape {values.shape}: give (N, D) or (N, C, H, W)")
    return values


def column_of(frame: Any, name: Any, missing: bool) -> np.ndarray:
    """Returns a column of a data frame, (N,); with ``missing``, pandas' NA in it become NaN."""
    values = np.asarray(frame[name])
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan) if missing and values.dtype.kind == "O" else values


def labels_in(labels: Any, count: int) -> Labels:
    """Returns labels of any type, (N,), as classes; raises a ValueError unless there is one for each of N rows."""
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.shape not in ((count,), (count, 1)):
        raise ValueError(f"`labels` are of shape {values.shape} for {count} examples: give one for each, ({count},)")
    values = values.reshape(-1)
    try:
        texts = written(values.tolist() if values.dtype.kind == "O" else values)
        if None in texts or "" in texts:
            raise ValueError(f"row {next(i for i, text in enumerate(texts) if not text)} has none")
        return Labels(*classes_of_texts(texts, "labels"), [])
    except ValueError as error:
        raise ValueError(f"`labels`: {error}") from error


def hash_of(values: np.ndarray, names: list[str] | None, labels: Any) -> str:
    """Returns a hash of the content of examples, of the names of their columns and of their labels."""
    total = hashlib.sha256(f"{values.shape} {values.dtype.str} {names}".encode())
    total.update(np.ascontiguousarray(values))
    if labels is not None:
        total.update(str(written(np.asarray(labels).reshape(-1).tolist())).encode())
    return total.hexdigest()


FARTHEST = 1e18  # standard deviations from the mean; its square is still finite in float32


def refuse_far(test: np.ndarray, shift: Tensor, scale: Tensor, names: list[str] | None, where: str) -> None:
    """Raises a ValueError where a held-out value lies more than FARTHEST standard deviations from the training part's
    mean, near where squares overflow in float32.

    Arguments:
        test: the held-out examples (M, *) in data units.
        shift, scale: of the training part; see :func:`units`.
        names: the names of the columns; None without names.
        where: the start of the error.
    """
    with np.errstate(over="ignore"):
        far = np.abs(test.astype(np.float64) - shift.numpy()) / scale.numpy() > FARTHEST
    if far.any():
        at = tuple(np.argwhere(far)[0])
        column = f"column {names[at[1]]!r}" if names else f"column {at[1]}" if test.ndim == 2 else "a pixel"
        raise ValueError(
            f"{where}: {column} holds {test[at]:.3g} in a held-out row, more than {FARTHEST:.0e} standard deviations "
            f"from the training part's mean: correct it, or leave that row out"
        )


def units(train: np.ndarray, names: list[str] | None, where: str) -> tuple[Tensor, Tensor, torch.dtype]:
    """Returns the units of continuous examples (N, *), and the type to keep them in.

    Returns:
        the mean and the standard deviation, float64, (D,) for the columns of vectors or one number each for images,
        where a constant has its value and 1; and torch's default type if it resolves how every column varies, else
        float64.

    Raises:
        ValueError: the squares of a column overflow float64, or its standard deviation is too small for float64 or
            beside its values for the file's own type.
    """
    columns = train if train.ndim == 2 else train.reshape(-1, 1)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # numbers out of range are refused below
        mean, std = columns.mean(0, dtype=np.float64), columns.std(0, dtype=np.float64)
    low, high = columns.min(0), columns.max(0)
    size = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64)))
    # the file's precision; float16 counts as float32
    own = np.float32 if train.dtype.kind == "f" and train.dtype.itemsize < 8 else np.float64
    fine = resolves(own, std, size, low == high)
    for j in range(len(mean)):
        column = f"column {names[j]!r}" if names else f"column {j}" if train.ndim == 2 else "every pixel"
        if low[j] == high[j]:  # it has no density; conf/density.py checks what that means for a task
            mean[j], std[j], fine[j] = low[j], 1.0, True
            continue
        if not np.finfo(np.float64).tiny * 1000 <= std[j] < np.inf:
            raise ValueError(
                f"{where}: {column} reaches from {low[j]:.3g} to {high[j]:.3g}, beyond what floating point can square: "
                f"rescale it"
            )
        if not fine[j]:
            remedy = "subtract its mean" if own is np.float64 else "save it as float64"
            raise ValueError(
                f"{where}: {column} varies by {std[j]:.3g} around {mean[j]:.9g}, too little for {own.__name__} to "
                f"show: {remedy}"
            )
    default = torch.get_default_dtype()
    enough = resolves(str(default).removeprefix("torch."), std, size, low == high).all()
    dtype = default if enough else torch.float64
    if train.ndim == 2:
        return torch.from_numpy(mean), torch.from_numpy(std), dtype
    return torch.tensor(mean[0]), torch.tensor(std[0]), dtype


def resolves(dtype: Any, std: np.ndarray, size: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """Returns whether a floating-point type resolves how each column varies, (D,): its step at the column's largest
    value is a thousandth of the standard deviation or less, and it holds that value.

    Arguments:
        dtype: numpy's type, or its name.
        std, size: (D,) the columns' standard deviations, and their largest absolute values.
        constant: (D,) whether a column is constant, which any type that holds it resolves.
    """
    info = np.finfo(dtype)
    wide = (std >= 1000 * info.eps * size) & (std >= 1000 * float(info.tiny))
    return (wide | constant) & (size <= info.max)
