"""A parquet file as a table of typed columns.

Real numbers and booleans are read as numbers; whole numbers, booleans, words, dates and times may be labels.
"""

import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np


class ParquetTable:
    """The columns of a parquet file.

    Arguments:
        file: the file.
        where: the start of every error, such as ``data.path=/home/me/a.parquet``.

    Attributes:
        names, named, rows, notes: as for :class:`scoresde.data.csv_table.CsvTable`.
        index: the names of the columns of pandas' index; they are read only if a key names them.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: the file is no parquet file, or a damaged one.
    """

    table = named = True

    def __init__(self, file: Path, where: str):
        self.file, self.where, parquet = file, where, import_parquet()
        import pyarrow

        try:
            self.opened = parquet.ParquetFile(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{where} is not a parquet file, or a damaged one") from error
        self.schema, self.rows = self.opened.schema_arrow, self.opened.metadata.num_rows
        self.names, self.notes = list(self.schema.names), []
        self.index = index_of(self.schema)

    def fault(self, j: int) -> str | None:
        """Returns why a column is not numeric, in a clause; None if it is numeric."""
        kind = self.schema.field(j).type
        return None if is_number(value_type(kind)) else f"its type is {kind}"

    def column(self, j: int):
        """Returns a column as one pyarrow array, decoded where it is stored as a dictionary or as runs; raises a
        ValueError if it is damaged.
        """
        import pyarrow

        name = self.names[j]
        try:
            table = self.opened.read(columns=[name])
            column = table.column(table.schema.get_field_index(name)).combine_chunks()
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(
                f"{self.where}: column {name!r} cannot be read ({reason_of(error)}): the file is damaged"
            ) from error
        kind = value_type(self.schema.field(j).type)
        return column if column.type == kind else column.cast(kind)

    def numbers(self, columns: list[int]) -> np.ndarray:
        """Returns numeric columns (N, D), NaN where a value is missing.

        Notes decimals, which become float64, and integers beyond 2^53 of a column without gaps that become floats.
        """
        import pyarrow

        kinds, arrays = pyarrow.types, []
        for j in columns:
            column = self.column(j)
            if kinds.is_decimal(column.type):
                column = column.cast(pyarrow.float64())
                self.notes.append(f"decimals of column {self.names[j]} rounded to float64")
            if kinds.is_boolean(column.type):
                column = column.cast(pyarrow.uint8())
            # integers have no NaN: to_numpy makes floats of them where a value is missing
            arrays.append(column.to_numpy(zero_copy_only=False))
        if not arrays:
            return np.empty((self.rows, 0))
        common_type = np.result_type(*arrays)
        for j, array in zip(columns, arrays, strict=True):
            # int64 beside floats becomes float64, which holds integers up to 2^53
            if array.dtype.kind in "iu" and common_type.kind == "f" and beyond_exact(array):
                self.notes.append(f"integers of column {self.names[j]} beyond 2^53 rounded to float64")
        return np.stack(arrays, 1)

    def values(self, j: int, said: str) -> np.ndarray | list:
        """Returns a column as labels: an array of numbers without gaps, or a list of words, numbers, booleans and None.

        Dates and times are words; timestamps without a time zone that are all midnight are written as dates.

        Arguments:
            j: the number of the column.
            said: the start of an error.

        Raises:
            ValueError: the column holds lists, structs or durations, or is damaged.
        """
        import pyarrow

        kinds, column = pyarrow.types, self.column(j)
        if kinds.is_nested(column.type) or kinds.is_duration(column.type):
            raise ValueError(
                f"{said}: column {self.names[j]!r} of {self.where} has the type {column.type}: save words or whole "
                f"numbers"
            )
        if kinds.is_temporal(column.type):
            texts = column.cast(pyarrow.string()).to_pylist()
            midnight = all(text is None or re.search(r" 00:00:00(\.0*)?$", text) for text in texts)
            return [text and text.split(" ")[0] if midnight else text for text in texts]
        if column.null_count == 0 and (kinds.is_integer(column.type) or kinds.is_floating(column.type)):
            return column.to_numpy(zero_copy_only=False)
        return column.to_pylist()


def reason_of(error: Exception) -> str:
    """Returns the first line of pyarrow's message."""
    return (str(error) or type(error).__name__).splitlines()[0]


def beyond_exact(values: np.ndarray) -> bool:
    """Returns whether an array holds integers that float64 may round."""
    return bool(values.size) and max(int(values.max()), -int(values.min())) > 2**53


def value_type(kind):
    """Returns the type of a column's values, also where they are encoded as a dictionary or as runs."""
    import pyarrow

    encoded = pyarrow.types.is_dictionary(kind) or pyarrow.types.is_run_end_encoded(kind)
    return kind.value_type if encoded else kind


def is_number(kind) -> bool:
    """Returns whether a type of pyarrow holds real numbers or booleans."""
    import pyarrow

    tests = (pyarrow.types.is_integer, pyarrow.types.is_floating, pyarrow.types.is_decimal, pyarrow.types.is_boolean)
    return any(test(kind) for test in tests)


def index_of(schema) -> set[str]:
    """Returns the columns that pandas wrote for a table's index."""
    found = {name for name in schema.names if name.startswith("__index_level_")}
    try:
        index = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
    except (KeyError, ValueError, TypeError):
        return found
    return found | {name for name in index if isinstance(name, str)}


def import_parquet() -> ModuleType:
    """Returns the module pyarrow.parquet, or raises an ImportError that says how to install it."""
    try:
        import pyarrow.parquet

        return pyarrow.parquet
    except ImportError as error:
        raise ImportError("reading parquet needs pyarrow: pip install -e .[images]") from error
