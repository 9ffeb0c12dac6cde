"""Pictures in the cells of parquet files, and their classes."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from scoresde.data.encoded import Encoded
from scoresde.data.labels import ABSENT
from scoresde.data.listing import File, counted, listed
from scoresde.data.parquet_table import reason_of


def from_tables(files: list[File], column: str | None, labels: str | None, where: str) -> tuple[Encoded, list[str]]:
    """Reads the tables of one split.

    Arguments:
        files: parquet files, each with the columns that are read; the first decides which these are.
        column: the column of pictures, bytes or a pair {bytes, path}; None for the only one there is.
        labels: the column of classes; None for the one called label, where it holds classes.
        where: what the user typed, for messages.

    Returns:
        the pictures, and notes on the classes and on what was left out.

    Raises:
        ValueError: a file is damaged or lacks a column, no file holds a row, or the columns of pictures or classes
            cannot be found.
        ImportError: pyarrow is not installed.
    """
    schema = schema_of(files[0], where)
    named = label_column(labels, schema.names, where)
    column = image_column(column, [f.name for f in schema if holds_pictures(f.type)], schema.names, where)
    needed = list(dict.fromkeys([column, *([named] if named else [])]))
    tables = [columns_of(file, needed, files[0], where) for file in files]
    count = sum(map(len, tables))
    if count == 0:
        raise ValueError(f"{where}: {files[0].local} holds no rows")
    cells = cells_of(files, tables, column, where)

    labels_of_rows, notes = None, []
    if named is not None:
        labels_of_rows, reason = classes([table[named] for table in tables], named, labels is not None, where)
        notes.append(f"classes: the column {named}" if labels_of_rows is not None else f"no classes: {reason}")
    others = [name for name in schema.names if name not in needed]
    if others:
        notes.append(f"{counted(len(others), 'other column')} left out ({listed(others)})")
    return Encoded(count, cells, labels_of_rows, len(files)), notes


def columns_of(file: File, wanted: list[str], first: File, where: str) -> Any:
    """Returns the columns called ``wanted`` of a file, as a table of pyarrow; ``first`` is a file that has them, for
    the error.
    """
    pyarrow = import_arrow()
    lacking = [name for name in wanted if name not in schema_of(file, where).names]
    if lacking:
        raise ValueError(f"{where}: {file.local} has no column {lacking[0]!r}, and {first.local} has one")
    try:
        stored = pyarrow.parquet.ParquetFile(file.path)
        pieces = [stored.read_row_group(k, columns=wanted) for k in range(stored.num_row_groups)]
        return pyarrow.concat_tables([stored.schema_arrow.empty_table().select(wanted), *pieces])
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{where}: {file.local} is not a parquet file, or a damaged one ({reason_of(error)})"
        ) from error


@dataclass(frozen=True)
class Cells:
    """The cells of a column of pictures in the tables of a split.

    Called with a row's number, counted over all files, it returns the cell's name, its bytes and None: the bytes must
    hold one picture (:class:`scoresde.data.encoded.Encoded`).

    Attributes:
        column: the column's name.
        where: what the user typed, for messages.
        chunks: the cells' bytes, in chunks.
        paths: the cells' paths, chunk by chunk; None where they have none.
        origins: the file of each chunk, and the row there with which it begins.
        starts: the number of the first row of each chunk, and the number of all rows.
    """

    column: str
    where: str
    chunks: list[Any]
    paths: list[Any]
    origins: list[tuple[str, int]]
    starts: list[int]

    def __call__(self, i: int) -> tuple[str, Any, None]:
        k = bisect_right(self.starts, i) - 1
        j = i - self.starts[k]
        cell, path = self.chunks[k][j], None if self.paths[k] is None else self.paths[k][j].as_py()
        table, row = self.origins[k]
        name = f"{self.where}: row {row + j} of {table} ({path or self.column})"
        if not cell.is_valid:
            raise ValueError(
                f"{name}: row {row + j} of column {self.column!r} holds no bytes of an image: leave it out"
            )
        return name, cell.as_buffer(), None


def cells_of(files: list[File], tables: list[Any], column: str, where: str) -> Cells:
    """Returns the cells of a column of pictures, of all files; ``tables`` are the tables of the files, in order."""
    pyarrow = import_arrow()
    chunks, paths, origins = [], [], []
    for file, table in zip(files, tables):
        if not holds_pictures(table.schema.field(column).type):
            raise ValueError(
                f"{where}: column {column!r} of {file.local} holds no images, that of {files[0].local} does"
            )
        row = 0
        for chunk in table[column].chunks:
            if pyarrow.types.is_dictionary(chunk.type):
                chunk = chunk.dictionary_decode()
            pair = pyarrow.types.is_struct(chunk.type)
            chunks.append(chunk.field("bytes") if pair else chunk)
            paths.append(chunk.field("path") if pair and chunk.type.get_field_index("path") >= 0 else None)
            origins.append((file.local, row))
            row += len(chunk)
    return Cells(column, where, chunks, paths, origins, list(accumulate(map(len, chunks), initial=0)))


def import_arrow() -> Any:
    """Returns the module pyarrow with pyarrow.parquet, or raises an ImportError that says how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("reading parquet needs pyarrow: pip install -e .[images]") from error
    return pyarrow


def schema_of(file: File, where: str) -> Any:
    """Returns the schema of a parquet file."""
    pyarrow = import_arrow()
    try:
        return pyarrow.parquet.read_schema(file.path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{where}: {file.local} is not a parquet file, or a damaged one ({reason_of(error)})"
        ) from error


def holds_pictures(kind: Any) -> bool:
    """Returns whether a column of this type may hold pictures: bytes, or structs with a field called bytes."""
    import pyarrow

    kinds = pyarrow.types
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    if kinds.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and holds_pictures(kind.field("bytes").type)
    return kinds.is_binary(kind) or kinds.is_large_binary(kind) or str(kind) == "binary_view"


def label_column(labels: str | None, names: list[str], where: str) -> str | None:
    """Returns the column of classes: the requested one, or else the one called label; None if there is none."""
    if labels is None:
        return "label" if "label" in names else None
    if labels not in names:
        raise ValueError(f"`labels`={labels}: {where} has no such column, it has {listed(names, 50)}")
    return labels


def classes(columns: list[Any], name: str, required: bool, where: str) -> tuple[np.ndarray | None, str]:
    """Returns the classes in a column: whole numbers, booleans as 0 and 1, or words, such as dates.

    Arguments:
        columns: the column's parts, one a file, as chunked arrays of pyarrow.
        name: the column's name.
        required: whether the user named the column. If not, there are no classes where the column holds something else,
            or nothing in some rows.
        where: what the user typed, for messages.

    Returns:
        the classes (N,), int64 or words, and ""; or None and the reason why there are none.

    Raises:
        ValueError: if the user named a column that does not hold one class a row.
    """
    missing = sum(column.null_count for column in columns)
    parts = [] if missing else [class_values(column) for column in columns]
    for part in parts:
        if part is not None and part.dtype.kind == "U":
            missing += sum(word.strip().lower() in ABSENT for word in part.tolist())
    if missing:
        total = sum(map(len, columns))
        reason = f"{missing} of {total} rows have nothing in the column {name}"
        if required:
            raise ValueError(f"`labels`={name}: {reason} of {where}: leave those rows out")
        return None, reason
    kinds = {part.dtype.kind for part in parts if part is not None}
    if any(part is None for part in parts) or len(kinds) > 1:
        if required:
            raise ValueError(
                f"`labels`={name}: this column of {where} holds neither whole numbers nor truths nor words: name a "
                f"column that does"
            )
        return None, f"the column {name} holds neither whole numbers nor truths nor words"
    return np.concatenate(parts), ""


def class_values(column: Any) -> np.ndarray | None:
    """Returns a column's values as int64 or as words; None where they are neither.

    Dates, bytes of UTF-8 and integers beyond int64 become words; floats and decimals must be whole and below 2^53.
    """
    import pyarrow

    kinds, kind = pyarrow.types, column.type
    if kinds.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if kinds.is_boolean(kind):
        column = column.cast(pyarrow.int8())
    elif kinds.is_decimal(kind) or kinds.is_floating(kind):
        values = np.array([float(value) for value in column.to_pylist()])
        whole = np.isfinite(values).all() and (values == np.floor(values)).all() and (np.abs(values) < 2**53).all()
        return values.astype(np.int64) if whole else None
    elif kinds.is_string(kind) or kinds.is_large_string(kind) or str(kind) == "string_view":
        return np.array(column.to_pylist(), dtype=str)
    elif kinds.is_date(kind) or kinds.is_timestamp(kind):
        return np.array(column.cast(pyarrow.string()).to_pylist(), dtype=str)
    elif kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind):
        try:
            return np.array([value.decode() for value in column.to_pylist()], dtype=str)
        except UnicodeDecodeError:
            return None
    elif not kinds.is_integer(kind):
        return None
    try:
        return column.cast(pyarrow.int64()).to_numpy().astype(np.int64)
    except pyarrow.ArrowInvalid:  # uint64 above 2^63
        return np.array([str(value) for value in column.to_pylist()], dtype=str)


def image_column(column: str | None, holds_images: list[str], names: list[str], where: str) -> str:
    """Returns the column of images: the requested one, or the only one there is."""
    if column is not None and column not in names:
        raise ValueError(f"`column`={column}: {where} has the columns {', '.join(names)}: type one of them")
    if column is not None and column not in holds_images:
        raise ValueError(f"`column`={column} of {where} holds no images; those that do: {holds_images or 'none'}")
    if column is None and len(holds_images) != 1:
        found = f"the columns {', '.join(holds_images)} hold images" if holds_images else "no column holds images"
        raise ValueError(f"{where}: {found} (of {', '.join(names)}): type `column`=NAME")
    return column or holds_images[0]
