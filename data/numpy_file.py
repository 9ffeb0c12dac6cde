"""A .npy or .npz file: one array without a name, or arrays by name. Pickled objects are never read."""

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

# what numpy and zipfile raise on a damaged header, an unknown compression or a damaged archive
DAMAGED = (ValueError, EOFError, OSError, KeyError, NotImplementedError, SyntaxError)
DAMAGED += (zipfile.BadZipFile, zlib.error, tokenize.TokenError)


class NumpyFile:
    """The arrays of a file.

    Arguments:
        file: the file.
        where: the start of every error, such as ``data.path=/home/me/a.npz``.

    Attributes:
        single: True for a .npy file, which holds one array without a name.
        names: the names of the arrays; empty for a .npy file.
        notes: always empty; the notes on an array are made by :func:`scoresde.data.files.array_of`.

    Raises:
        ValueError: an .npz cannot be opened.
    """

    table = named = False  # it has neither columns nor names of columns

    def __init__(self, file: Path, where: str):
        self.file, self.where, self.single, self.notes = file, where, file.suffix.lower() == ".npy", []
        self.names: list[str] = []
        if not self.single:
            try:
                with zipfile.ZipFile(file) as archive:
                    self.names = [name.removesuffix(".npy") for name in archive.namelist()]
            except DAMAGED as error:
                raise self.unreadable(None) from error

    def array(self, name: str | None = None, said: str | None = None) -> np.ndarray:
        """Returns the array of this name, or the only one of a .npy file.

        Arguments:
            name: the name in an .npz; None for a .npy file.
            said: the start of an error, before the file; None for none.

        Raises:
            ValueError: the array is absent or damaged, or holds pickled objects.
        """
        try:
            loaded = np.load(self.file, allow_pickle=False)  # a pickle could run any code
            if self.single:
                return loaded
            with loaded:
                values = loaded[name]
        except DAMAGED as error:
            raise self.unreadable(name, said) from error
        if not isinstance(values, np.ndarray):  # numpy returns the bytes of a member that is no .npy
            raise self.unreadable(name, said)
        return values

    def unreadable(self, name: str | None, said: str | None = None) -> ValueError:
        """Returns the error for a file, or one of its arrays, that cannot be read."""
        what = "the file" if name is None else f"array {name!r}"
        remedy = "np.save(path, array)" if self.single else f"np.savez(path, {name or 'x'}=array)"
        return ValueError(
            f"{f'{said}: ' if said else ''}{self.where}: {what} cannot be read (damaged, or pickled objects, which are "
            f"never read): save numbers with {remedy}, words as array.astype(str)"
        )
