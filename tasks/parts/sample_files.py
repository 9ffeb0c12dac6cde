"""Samples as files that other programs open: a table of vectors, or a picture for each image."""

import csv
from pathlib import Path
from typing import Literal

import numpy as np

from scoresde.data import Data

from .record import Record

Format = Literal["csv", "parquet", "png"]


def check_format(kind: Format | None, data: Data) -> None:
    """Refuses a format that cannot hold samples of these data.

    Raises:
        ValueError: names the format and what to type.
        ImportError: parquet without pyarrow.
    """
    vectors = len(data.shape) == 1
    if kind in ("csv", "parquet") and not vectors:
        raise ValueError(
            f"task.format={kind} is for vectors, and these data have the shape {tuple(data.shape)}; type "
            f"task.format=png for pictures, or leave it out for samples.npz"
        )
    if kind == "png" and (vectors or data.shape[0] not in (1, 3) or data.levels is None or data.levels > 256):
        levels = "continuous" if data.levels is None else f"of {data.levels} levels"
        raise ValueError(
            f"task.format=png is for grey or colour images of up to 256 levels, and these data have the shape "
            f"{tuple(data.shape)} and are {levels}; "
            + ("type task.format=csv, or " if vectors else "")
            + "leave it out for samples.npz"
        )
    if kind == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ImportError(
                "task.format=parquet needs pyarrow: pip install -e .[images], or type task.format=csv"
            ) from None


def write_samples(kind: Format, data: Data, arrays: dict[str, np.ndarray], record: Record) -> Path:
    """Writes samples.csv, samples.parquet or the folder samples of 0.png, 1.png, ..., and returns its path.

    A table has the columns of y, if there are such, and then those of x. Columns without names are called by their
    numbers, and the class label is called y. Numbers have every digit, so that the same are read.

    Arguments:
        arrays: x (N, *), and y and the names of columns if samples.npz has them.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        if kind == "png":
            return write_pictures(record.path("samples"), arrays["x"], data.levels)
        path = record.path(f"samples.{kind}")
        columns = table_of(arrays)
        (write_csv if kind == "csv" else write_parquet)(path, columns)
        return path
    except OSError as error:
        raise record.unwritable(error) from error


def table_of(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the columns of samples by their names, each (N,)."""
    x, y = arrays["x"], arrays.get("y")
    names = [str(name) for name in arrays.get("columns", range(x.shape[1]))]
    columns = {}
    if y is not None and y.ndim == 1:
        columns["class label" if "y" in names else "y"] = y
    elif y is not None:
        titles = arrays["y_columns"].tolist()
        columns |= {f"given {name}" if name in names else name: y[:, j] for j, name in enumerate(titles)}
    return columns | {name: x[:, j] for j, name in enumerate(names)}


def write_csv(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Writes columns as a csv file with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def write_parquet(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Writes columns as a parquet file."""
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({name: pyarrow.array(column) for name, column in columns.items()}), path)


def write_pictures(folder: Path, x: np.ndarray, levels: int) -> Path:
    """Writes integers 0 ... levels - 1 of shape (N, C, H, W) as pictures of bytes, and returns their folder."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    if levels != 256:
        x = np.round(x * (255 / (levels - 1))).astype(np.uint8)
    digits = len(str(len(x) - 1))  # so that names sort as numbers do
    for i, picture in enumerate(x):
        pixels = picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, -1)
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{i:0{digits}d}.png")
    return folder
