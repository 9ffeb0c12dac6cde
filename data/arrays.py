r"""The user's own numbers: vectors or images from a .npy, .npz, .csv or .parquet file.

The columns of vectors have units of their own (centimetres beside counts): m and s are the training part's mean and
standard deviation, column by column. Pixels share one unit: continuous images have one m and one s. Integers of L
levels, after uniform dequantisation in [0, L), are mapped to [-1, 1) by m = s = L/2.

Values are kept in torch's default type, float32, or as float64 where a column varies so little around a large mean
(times in seconds, say) that float32 would not show it. Training batches are centred before they become float32.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scoresde.data.axes import as_examples
from scoresde.data.base import Data, at_least, fraction, typed
from scoresde.data.files import names_in, numbers_of, open_file, sha256
from scoresde.data.labels import read_labels
from scoresde.data.levels import as_tensor, checked_levels, integer_dtype


class Arrays(Data):
    """Vectors (N, D) or images (N, C, H, W) from a file, with a random part of the rows held out.

    An array of one axis holds N vectors of one number, of two axes vectors, of three axes grey images (N, H, W). Four
    axes are (N, C, H, W) or (N, H, W, C). :func:`scoresde.data.axes.by_sizes` finds the order; where several are
    possible, ``axes`` or ``shape`` must decide. ``shape`` makes each example one of that shape.

    Arguments:
        path: the file.
        key: the name of the array in an .npz of several; names of columns of a .csv or .parquet, or their numbers where
            the file has no header, by default all but ``labels`` and pandas' index.
        test_fraction: the held-out part of the rows, above 0 and below 1.
        seed: the seed of the split.
        levels: the number L of levels if the values are integers 0 ... L-1; by default 256 for images of uint8, 2 for
            images of booleans, and None, which is continuous, for everything else.
        shape: the shape of one example, [D] or [C, H, W]; by default the file's.
        axes: the order of the array's axes, a letter each: n for the examples, c for channels or columns, h for height,
            w for width, such as nhwc; by default found from the sizes.
        labels: the column of a table (its number, where the table has no header) or the array of an .npz that holds the
            examples' class labels: whole numbers, words, booleans or dates; by default there are none.
        header: whether the first row of a .csv holds the columns' names; by default found by
            :mod:`scoresde.data.header`.

    Raises:
        FileNotFoundError, ValueError: with the key to change and what to type.
        ImportError: a .parquet file without pyarrow.
    """

    def __init__(
        self,
        path: str | None = None,
        key: str | list[str | int] | None = None,
        test_fraction: float = 0.1,
        seed: int = 0,
        levels: int | None = None,
        shape: list[int] | None = None,
        axes: str | None = None,
        labels: str | int | None = None,
        header: bool | Literal["auto"] = "auto",
    ):
        if path is None:
            raise ValueError("`path` is not set: type `path`=points.npy (or .npz, .csv, .parquet)")
        fraction("test_fraction", test_fraction)
        at_least("seed", seed, 0, 0)
        labels = None if labels is None else str(labels)
        names = names_in(key) + ([] if labels is None else [labels])
        source = open_file(path, "`path`", header, names, labels, header_key="`header`")
        values, names, table, notes = numbers_of(source, key, excluded=labels, choice="`key`", label_key="`labels`")
        self._file, self._key_is_none, self._header = source.file, key is None, header
        self._key_names, self._content_hash, where = names_in(key), sha256(source.file), source.where
        self._label_column = labels
        if table and axes not in (None, "nc"):
            raise ValueError(f"`axes`={axes} is for .npy and .npz, the rows of {where} are examples: type `axes`=null")
        values, said = as_examples(values, axes, shape, where)
        self.notes = (*notes, *(() if table and shape is None else (said,)))
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
        if labels is not None:
            classes, self.class_names, notes = read_labels(source, labels, len(values))
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

    def without(self, columns: list[int]) -> str | None:
        """Returns the data.key= that leaves these columns of the examples out; None for a .npy or .npz, for examples
        that are no vectors, and where no column would be left.
        """
        if len(self.shape) != 1 or self._file.suffix.lower() in (".npy", ".npz"):
            return None
        names = self._key_names or self._column_names
        if names is None:  # the columns of a .csv without a header are named by their numbers
            names = [str(j) for j in range(self.dim + (self._label_column is not None)) if str(j) != self._label_column]
        kept = [names[j] for j in range(self.dim) if j not in columns]
        return typed("data.key", kept) if kept else None

    def given(self, columns: list[int]) -> str | None:
        """Returns the data.condition= of these columns; None where ``data.key`` chose an array
        or columns without names, and as in :meth:`Data.given`.
        """
        suffix = self._file.suffix.lower()
        if suffix != ".npy" and not self._key_is_none and (suffix == ".npz" or self._column_names is None):
            return None
        return super().given(columns)

    def condition_values(self, keys: list[str | int]) -> tuple[Tensor, Tensor, list[str], list[int]]:
        """Returns the numbers y that the keys name: columns of the examples, or columns and arrays of the file that are
        no part of the examples; see :meth:`Data.condition_values`.
        """
        if self._file.suffix.lower() == ".npy" or len(self.shape) == 1 and self._key_is_none:
            return super().condition_values(keys)
        inside = [str(key) for key in keys if str(key) in self._key_names]
        if inside and len(self.shape) == 1 and len(inside) == len(keys) and self._column_names:
            return super().condition_values(keys)
        if inside:
            raise ValueError(
                f"data.condition={keys}: {', '.join(inside)} {'are' if len(inside) > 1 else 'is'} in "
                f"data.key, among what is learnt; leave {'them' if len(inside) > 1 else 'it'} out of data.key"
            )
        if len(set(map(str, keys))) < len(keys):
            raise ValueError(f"data.condition={keys} names a column twice")
        table = self._file.suffix.lower() != ".npz"
        parts, titles = [], []
        # the columns of a table are read at once, the arrays of an .npz one by one
        for chosen in [[str(key) for key in keys]] if table else keys:
            source = open_file(
                str(self._file), "data.path", self._header, [str(key) for key in keys], header_key="data.header"
            )
            values, columns, _, _ = numbers_of(source, chosen, choice="data.condition", label_key="data.labels")
            if values.ndim > 2:
                raise ValueError(
                    f"data.condition={keys}: {chosen} has the shape {values.shape} in {self._file}: save one row of "
                    f"numbers an example, of shape (N, C)"
                )
            values = values.reshape(len(values), -1)
            if len(values) != sum(map(len, self._rows)):
                raise ValueError(
                    f"data.condition={keys}: {chosen} has {len(values)} rows in {self._file}, the examples are "
                    f"{sum(map(len, self._rows))}"
                )
            parts.append(values)
            if table:
                titles += columns or list(chosen)
            else:
                titles += [str(chosen)] if values.shape[1] == 1 else [f"{chosen}[{j}]" for j in range(values.shape[1])]
        values = torch.from_numpy(np.concatenate(parts, 1).astype(np.float64))
        return *(values[rows] for rows in self._rows), titles, []


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
            f"from the training part's mean: correct it in the file, or leave that row out"
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
                f"rescale it in the file"
            )
        if not fine[j]:
            remedy = "subtract its mean in the file" if own is np.float64 else "save the file as float64"
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
