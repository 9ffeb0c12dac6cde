"""Numbers from a .npy, .npz, .csv or .parquet file, as one finite numeric array.

A column that is not numeric, a missing value, a pickled object or an ambiguous choice raises an error that names the
file, the column or the array if there is one, and what to do. (Where the caller allows missing values, they are NaN.)
The notes say what was taken, left out and reinterpreted.
"""

import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scoresde.data.csv_table import CsvTable
from scoresde.data.listing import counted
from scoresde.data.numpy_file import NumpyFile
from scoresde.data.parquet_table import ParquetTable

log = logging.getLogger(__name__)

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")
COLUMN_NAMES = {"x": "columns", "y": "y_columns"}
"""The arrays of a run's .npz with the names of the columns of points and of numbers y."""

Key = str | list[str | int] | None
Source = CsvTable | ParquetTable | NumpyFile


class Numbers(NamedTuple):
    """Numbers read from a file.

    Attributes:
        values: an array of integers, unsigned integers, floats or booleans, not empty, with at least one axis. All
            values are finite, or NaN where that is allowed.
        names: the names of the chosen columns; None if the file names none.
        table: True for .csv and .parquet, False for .npy and .npz.
        notes: how the file was understood, and what was left out.
    """

    values: np.ndarray
    names: list[str] | None
    table: bool
    notes: list[str]


def open_file(
    path: str,
    option: str,
    header: bool | str = "auto",
    names: list[str] | None = None,
    text: str | bool | None = None,
    gaps: bool = False,
    header_key: str | None = None,
) -> Source:
    """Opens a .npy, .npz, .csv or .parquet file.

    Arguments:
        path: the file.
        option: the config key of the path, such as data.path, with which every error starts.
        header, names, text, gaps, header_key: used for .csv only; see :class:`scoresde.data.csv_table.CsvTable`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, damaged or of another kind, or ``header`` is a bool for a file that is no .csv.
        ImportError: a .parquet file without pyarrow.
    """
    file = existing_file(path, option)
    where, suffix = f"{option}={file}", file.suffix.lower()
    if header not in ("auto", "named") and suffix != ".csv":
        key = header_key or "header"
        raise ValueError(f"{key}={str(header).lower()} applies to .csv files only, {file} is not one: type {key}=auto")
    if suffix == ".csv":
        return CsvTable(file, where, header, names, text, gaps, header_key)
    return ParquetTable(file, where) if suffix == ".parquet" else NumpyFile(file, where)


def numbers_of(
    source: Source,
    key: Key,
    preferred: Key = None,
    missing: bool = False,
    excluded: str | None = None,
    choice: str | None = None,
    label_key: str | None = None,
) -> Numbers:
    """Reads the numbers of an opened file.

    Arguments:
        source: the file.
        key: the name of the array in an .npz; names of columns of a table, as a list or separated by commas.
        preferred: the name, or names, taken if ``key`` is None and the file is a table with names or an .npz of several
            arrays.
        missing: whether NaNs are allowed.
        excluded: a column or an array that is skipped unless ``key`` names it.
        choice: the config key of ``key``, such as data.key; None if there is no such config key, and the file must then
            be unambiguous.
        label_key: the config key of the label's column, for the error on a column of words; None if there is none.

    Raises:
        ValueError: a chosen column or array is missing, ambiguous, damaged, empty, not numeric or not finite.
    """
    if source.table:
        values, names, notes = columns_of(source, key, preferred, excluded, choice, label_key)
    else:
        values, names, notes = array_of(source, key, preferred, excluded, choice)
    if values.dtype.kind not in "biuf":
        remedy = "save real numbers"
        if values.dtype.names:
            remedy = "save its fields as columns, with numpy.lib.recfunctions.structured_to_unstructured(array)"
        raise ValueError(f"{source.where} holds values of type {values.dtype}: {remedy}")
    if values.size == 0 or values.ndim == 0:
        raise ValueError(f"{source.where} holds no rows (an array of shape {values.shape}): save some")
    refuse_nonfinite(values, names, source.where, missing)
    return Numbers(values, names, source.table, notes)


def columns_of(
    source: CsvTable | ParquetTable,
    key: Key,
    preferred: Key,
    excluded: str | None,
    choice: str | None,
    label_key: str | None,
) -> tuple[np.ndarray, list[str] | None, list[str]]:
    """Returns the chosen columns (N, D) of a table, their names (None where the file names none), and notes; arguments
    as in :func:`numbers_of`.
    """
    key = preferred if key is None and source.named else key  # columns without names cannot be preferred
    skipped = {excluded, *source.index}
    chosen = chosen_columns(source.names, key, source.where, skipped, choice)
    columns = [source.names.index(name) for name in chosen]
    faults = {j: fault for j in columns if (fault := source.fault(j)) is not None}
    if faults:
        first = next(iter(faults))
        numeric = [name for j, name in enumerate(source.names) if name not in skipped and source.fault(j) is None]
        remedy = chosen_by(choice, numeric) if numeric else "no column of it is numeric"
        if label_key is not None:
            remedy += f"; if it is a label, {label_key}={source.names[first]}"
        raise ValueError(f"{source.where}: column {source.names[first]!r} is not numeric ({faults[first]}): {remedy}")
    values = source.numbers(columns)
    if values.dtype.kind == "f" and isinstance(source, CsvTable):
        for name, column in zip(chosen, values.T, strict=True):
            if np.nanmax(np.abs(column), initial=0) > 2**53 and (column == np.floor(column)).all():
                source.notes.append(f"integers of column {name} beyond 2^53 rounded to float64")
    left_out = [name for name in source.names if name not in chosen and name != excluded]
    left_out = [f"{name}: pandas' index" if name in source.index else name for name in left_out]
    names = chosen if source.named else None
    which = f" ({first_names(chosen)})" if names or left_out else ""
    size = f"{counted(len(values), 'row')} of {counted(len(chosen), 'column')}"
    notes = [f"{size}{which} from {source.file.name}", *source.notes]
    if left_out:
        notes.append(f"{counted(len(left_out), 'column')} left out ({first_names(left_out)})")
    return values, names, notes


def array_of(
    source: NumpyFile, key: Key, preferred: Key, excluded: str | None, choice: str | None
) -> tuple[np.ndarray, list[str] | None, list[str]]:
    """Returns the chosen array of a .npy or .npz file, the names of its columns (None where the file names none), and
    notes; arguments as in :func:`numbers_of`.
    """
    if source.single:
        if key is not None:
            remedy = f"type {choice}=null" if choice else f"save an .npz with an array called {key}"
            raise ValueError(f"{source.where} holds one array without a name: {remedy}")
        values = source.array()
        return values, None, [f"an array of shape {values.shape} and type {values.dtype} from {source.file.name}"]
    if isinstance(key, list) and len(key) != 1:
        remedy = f"type {choice}=NAME" if choice else "name one"
        raise ValueError(f"{choice or source.where}={key} must name one array of {source.file}: {remedy}")
    key = str(key[0]) if isinstance(key, list) else key
    names = source.names
    if not names:
        raise ValueError(f"{source.where} holds no arrays")
    if key is None:
        names = [name for name in names if name not in (excluded, *COLUMN_NAMES.values())] or names
        if len(names) == 1:
            key = names[0]
        elif preferred in names:
            key = preferred
    if key is None:
        remedy = f"call one of them {preferred}" if preferred else chosen_by(choice, names[:1])
        raise ValueError(f"{source.where} holds the arrays {', '.join(names)}: {remedy}")
    if key not in names:
        raise ValueError(
            f"{choice or source.where}={key}: {source.file} holds no such array, it has {', '.join(names)}: "
            f"{chosen_by(choice, names[:1])}"
        )
    values = source.array(key)
    notes = [f"array {key} of shape {values.shape} and type {values.dtype} from {source.file.name}"]
    columns = column_names(source, key, values)
    read = (key, excluded, *([] if columns is None else COLUMN_NAMES.values()))
    if left_out := [name for name in source.names if name not in read]:
        notes.append(f"{counted(len(left_out), 'array')} left out ({first_names(left_out)})")
    return values, columns, notes


def column_names(source: NumpyFile, key: str, values: np.ndarray) -> list[str] | None:
    """Returns the names of an array's columns, which a run writes beside it; None where the file holds none that fit.

    Arguments:
        key: the name of the array.
        values: the array.
    """
    beside = COLUMN_NAMES["y" if key == "y" else "x"]
    if values.ndim != 2 or beside not in source.names:
        return None
    names = source.array(beside)
    fits = names.dtype.kind == "U" and names.shape == values.shape[1:] and len(set(names.tolist())) == len(names)
    return names.tolist() if fits else None


def existing_file(path: str, option: str) -> Path:
    """Returns the absolute path of a file; raises a ValueError or a FileNotFoundError unless it exists, is not empty
    and has one of SUFFIXES.
    """
    if not path.strip():
        raise ValueError(f"{option}={path} is empty: type {option}=points.npy (or .npz, .csv, .parquet)")
    file = Path(path).expanduser().absolute()
    if file.is_dir():
        raise ValueError(f"{option}={file} is a folder: name a file in it (for a folder of images type data=images)")
    if not file.exists():
        raise FileNotFoundError(f"{option}={path}: there is no file {file}")
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{option}={file} ends in '{file.suffix}': files ending in {', '.join(SUFFIXES)} can be read")
    if file.stat().st_size == 0:
        raise ValueError(f"{option}={file} is empty (0 bytes)")
    return file


def refuse_nonfinite(values: np.ndarray, names: list[str] | None, where: str, missing: bool = False) -> None:
    """Raises a ValueError for NaNs and infinities, with their number, their columns if values are (N, D), and the first
    row.

    Arguments:
        values: (N, *).
        names: the names of the columns; None if they have none.
        where: the start of the error.
        missing: whether NaNs are allowed.
    """
    bad = np.isinf(values) if missing else ~np.isfinite(values)
    if not bad.any():
        return
    row = int(bad.reshape(len(bad), -1).any(1).argmax())
    column = ""
    if values.ndim == 2:
        columns = [repr(names[j]) if names else str(j) for j in np.flatnonzero(bad.any(0))]
        more = f" and {len(columns) - 5} more" if len(columns) > 5 else ""
        column = f"in column{'s' * (len(columns) > 1)} {', '.join(columns[:5])}{more}, "
    verb = "value is" if bad.sum() == 1 else "values are"
    fault = "infinite" if missing else "missing, NaN or infinite"
    raise ValueError(
        f"{where}: {bad.sum()} {verb} {fault}, {column}the first in row {row} (rows count from 0): "
        "remove the rows or fill in the values"
    )


def chosen_by(choice: str | None, names: list[str]) -> str:
    """Returns an error's advice on how to select these columns or arrays; ``choice`` as in :func:`numbers_of`."""
    return f"save a file of {', '.join(names)} alone" if choice is None else f"type {choice}=[{','.join(names)}]"


def chosen_columns(
    names: list[str], key: Key, where: str, skipped: set[str | None], choice: str | None = None
) -> list[str]:
    """Returns the names of the columns that the key names, or of all except ``skipped`` if it is None.

    Raises:
        ValueError: the key names no column, an absent one or one twice; columns have no name of their own; or there are
            none.
    """
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(f"{where}: two columns are called {duplicates[0]!r}: give every column a name of its own")
    if key is None:
        if "" in names:  # pandas writes row numbers in a column without a name
            named = [name for name in names if name]
            remedy = chosen_by(choice, named)
            raise ValueError(f"{where}: column {names.index('')} has no name (row numbers?): {remedy}")
        if not names:
            raise ValueError(f"{where} has no columns")
        return [name for name in names if name not in skipped]
    wanted = names_in(key)
    if not wanted:
        columns = [name for name in names if name not in skipped]
        raise ValueError(f"{choice or where}={key} names no column: {chosen_by(choice, columns)}")
    for name in wanted:
        if name not in names:
            raise ValueError(f"{where} has no column {name!r}; its columns are {', '.join(names)}")
    if repeated := next((name for name in wanted if wanted.count(name) > 1), None):
        raise ValueError(f"{choice or where}={','.join(wanted)} names the column {repeated!r} twice: name it once")
    return wanted


def names_in(key: Key) -> list[str]:
    """Returns the names in a key, which is a list or a comma-separated string."""
    if key is None:
        return []
    return [name.strip() for name in key.split(",")] if isinstance(key, str) else [str(name) for name in key]


def first_names(names: list[str]) -> str:
    """Returns the first twelve names, separated by commas."""
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def report(where: str, notes: list[str]) -> None:
    """Logs the notes on a file that is not the training data, such as the file of ``points=``."""
    log.info("%s: %s", where, "; ".join(notes))


def sha256(file: Path) -> str:
    """Returns the hash of a file's content, in hexadecimal."""
    total = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(2**20):
            total.update(block)
    return total.hexdigest()
