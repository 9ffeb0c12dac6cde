"""The user's own numbers: vectors or images from a .npy, .npz, .csv or .parquet file."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scoresde.data.base import typed
from scoresde.data.examples import Examples, Labels
from scoresde.data.files import names_in, numbers_of, open_file, sha256
from scoresde.data.labels import read_labels


class Arrays(Examples):
    """Vectors (N, D) or images (N, C, H, W) from a file, with a random part of the rows held out; units and order of
    axes as in :class:`scoresde.data.Examples`.

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
        self.check_split(test_fraction, seed)
        labels = None if labels is None else str(labels)
        names = names_in(key) + ([] if labels is None else [labels])
        source = open_file(path, "`path`", header, names, labels, header_key="`header`")
        values, names, table, notes = numbers_of(source, key, excluded=labels, choice="`key`", label_key="`labels`")
        self._file, self._key_is_none, self._header = source.file, key is None, header
        self._key_names, self._content_hash, where = names_in(key), sha256(source.file), source.where
        self._label_column = labels
        if table and axes not in (None, "nc"):
            raise ValueError(f"`axes`={axes} is for .npy and .npz, the rows of {where} are examples: type `axes`=null")
        read = None if labels is None else (lambda count: Labels(*read_labels(source, labels, count)))
        silent = table and shape is None
        self.hold(values, names, read, where, notes, test_fraction, seed, levels, shape, axes, silent)

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
