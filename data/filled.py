"""Writes a user's file of points again, with numbers in the place of its gaps and everything else as it was.

A csv is copied character by character but for the cells that are filled; a parquet file keeps its columns, their types
and its metadata, except that a column of whole numbers becomes one of float64 where a filled number is none.
"""

import re
from pathlib import Path

import numpy as np
import torch

from scoresde.data.csv_table import CsvTable
from scoresde.data.files import chosen_columns, numbers_of, open_file
from scoresde.data.order import subset
from scoresde.data.parquet_table import ParquetTable
from scoresde.data.points import as_points

BOM = b"\xef\xbb\xbf"


def write_filled(path: str, folder: Path, count: int | None, filled: np.ndarray, labels: list[str] | None) -> Path:
    """Writes ``filled.csv``, ``filled.parquet`` or, for a .npy or .npz, ``filled.npy``, and returns its path.

    Arguments:
        path: the file that :func:`scoresde.data.points.read_points` read.
        folder: where to write.
        count: how many of its points were filled, those of :func:`scoresde.data.order.subset`; None for all. The gaps
            of the others stay.
        filled: these points without gaps, (N, *) in data units; integers if the data are.
        labels: the names of the data's columns; None without names.

    Raises:
        OSError: the file cannot be written.
    """
    source = open_file(path, "points", names=labels, gaps=True)
    out = folder / f"filled{Path(path).suffix.lower() if source.table else '.npy'}"
    numbers = numbers_of(source, None, labels if source.table else "x", missing=True)
    if not source.table:
        points = as_points(numbers.values, filled.shape[1:], False, source.where, "the data's")[0].copy()
        rows = subset(torch.arange(len(points)), count).numpy()
        points[rows] = np.where(np.isnan(points[rows]), filled, points[rows])
        np.save(out, points)
        return out
    rows = subset(torch.arange(len(numbers.values)), count).numpy()
    gaps = np.zeros(numbers.values.shape, dtype=bool)
    gaps[rows] = np.isnan(numbers.values[rows])
    values = np.zeros(gaps.shape, dtype=filled.dtype)
    values[rows] = filled.reshape(len(filled), -1)
    wanted = labels if source.named else None
    columns = [
        source.names.index(name) for name in chosen_columns(source.names, wanted, source.where, {None, *source.index})
    ]
    write = write_csv if isinstance(source, CsvTable) else write_parquet
    write(source, out, columns, gaps, values)
    return out


def write_csv(source: CsvTable, out: Path, columns: list[int], gaps: np.ndarray, values: np.ndarray) -> None:
    """Copies a csv file with numbers in the place of the cells that are gaps.

    Arguments:
        columns: the number of the file's column for each of the D columns of ``gaps``.
        gaps: which values are filled, (N, D).
        values: (N, D); those at gaps are written.
    """
    comma = any(source.parsed(j)[1] == "," for j in columns)
    delimiter = source.lines.delimiter
    cell_or_mark = re.compile(r' *"(?:[^"]|"")*"[^{0}]*|[^{0}]+|{0}'.format(re.escape(delimiter)))
    with source.lines.open() as stream:
        lines = list(stream)
    last = source.lines.skipped
    with source.lines.open() as stream:
        for row, _ in enumerate(source.lines.cells(stream), -int(source.has_header)):
            first, last = last, source.lines.at
            if row < 0 or not gaps[row].any():
                continue
            while not lines[first].strip("\r\n" if delimiter == "\t" else None):  # blank lines above the row
                first += 1
            text = "".join(lines[first:last])
            content = text.strip() if delimiter == " " else text.rstrip("\r\n")
            before, _, after = text.partition(content)
            cells = split(content, cell_or_mark, delimiter)
            for j in np.flatnonzero(gaps[row]):
                cells[columns[j]] = number_text(values[row, j], comma, delimiter)
            lines[first:last] = [before + delimiter.join(cells) + after, *[""] * (last - first - 1)]
    with open(source.file, "rb") as stream:
        marked = stream.read(3) == BOM
    with open(out, "w", newline="", encoding="utf-8-sig" if marked else "utf-8") as stream:
        stream.writelines(lines)


def split(row: str, cell_or_mark: re.Pattern, delimiter: str) -> list[str]:
    """Returns the cells of a row as they are written, with their quotation marks and blanks; between cells that blanks
    divide, more than one blank counts as one.
    """
    if delimiter == " ":
        row = re.sub(" +", " ", row)
    cells = [""]
    for part in cell_or_mark.findall(row):
        if part == delimiter:
            cells.append("")
        else:
            cells[-1] += part
    return cells


def number_text(value: np.number, comma: bool, delimiter: str) -> str:
    """Returns a number as a cell of a csv file; every digit of it, so that the same number is read."""
    text = repr(value.item())
    text = text.replace(".", ",") if comma else text
    return f'"{text}"' if delimiter in text else text


def write_parquet(source: ParquetTable, out: Path, columns: list[int], gaps: np.ndarray, values: np.ndarray) -> None:
    """Copies a parquet file with numbers in the place of missing values; arguments as for :func:`write_csv`."""
    import pyarrow
    from pyarrow import parquet

    table, integers = source.opened.read(), values.dtype.kind in "iu"
    for j, missing, column in zip(columns, gaps.T, values.T, strict=True):
        if not missing.any():
            continue
        own = source.column(j)
        kinds = pyarrow.types
        keeps = kinds.is_floating(own.type) or integers and (kinds.is_integer(own.type) or kinds.is_boolean(own.type))
        own = own if keeps else own.cast(pyarrow.float64(), safe=False)
        empty = own.is_null().to_numpy(zero_copy_only=False) & ~missing  # of rows that count= left out
        known = np.array(own.fill_null(False if kinds.is_boolean(own.type) else 0).to_numpy(zero_copy_only=False))
        known[missing] = column[missing]
        field = table.schema.field(j).with_type(own.type).with_nullable(True)
        table = table.set_column(j, field, pyarrow.array(known, own.type, mask=empty))
    parquet.write_table(table, out)
