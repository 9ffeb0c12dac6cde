"""Numbers from a file: .npy, .npz, .csv and .parquet become one finite numeric array, or an error that says why not.

Nothing is guessed that could change the data: a column that is not numeric, a missing value, a pickled object or a
choice left open is an error that names the file, the column and what to type.
"""

import csv
import hashlib
import warnings
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np

MISSING = {"", "na", "n/a", "null", "none"}  # cells of a csv file that mean "no value"; float() reads nan by itself
SUFFIXES = (".npy", ".npz", ".csv", ".parquet")


Key = str | list[str | int] | None


def read_numbers(
    path: str,
    key: Key,
    option: str,
    preferred: Key = None,
    missing: bool = False,
    leave: str | None = None,
    choice: str | None = None,
) -> tuple[np.ndarray, list[str] | None]:
    """The array in a file, and the names of its columns where the file has them.

    Arguments:
        path: a .npy, .npz, .csv or .parquet file. A csv file is UTF-8 text, its cells separated by tabs, semicolons,
            commas or blanks; its first row is a header if any cell of it is not a number.
        key: name of the array in an .npz; names of columns of a table, as a list or separated by commas.
        option: what the user typed the path for, such as data.path; it opens every error.
        preferred: the key to take where none is given and the file has names to choose from.
        missing: whether NaNs are let through.
        leave: name of a column or an array that is not taken unless the key names it.
        choice: what the user types the key for, such as data.key; None where the file must hold nothing else.

    Returns:
        an array of integers, unsigned integers, floats or booleans, finite (or NaN, where that may be), of at least one
        axis and one value.
    """
    file = existing_file(path, option)
    where = f"{option}={file}"
    if file.suffix.lower() == ".npy":
        if key is not None:
            raise ValueError(f"{where} holds one array without a name: type {choice}=null")
        values, names = read_npy(file, where), None
    elif file.suffix.lower() == ".npz":
        values, names = read_npz(file, key, where, preferred, leave, choice), None
    elif file.suffix.lower() == ".csv":
        values, names = read_csv(file, key, where, preferred, leave, choice)
    else:
        values, names = read_parquet(file, preferred if key is None else key, where, leave, choice)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{where} holds values of type {values.dtype}: save real numbers")
    if values.size == 0 or values.ndim == 0:
        raise ValueError(f"{where} holds no rows (an array of shape {values.shape}): save some")
    refuse_nonfinite(values, names, where, missing)
    return values, names


def existing_file(path: str, option: str) -> Path:
    """The absolute path of a file that exists, in a format that can be read."""
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
    """Raises a ValueError that counts the NaNs and infinities and says in which columns and in which first row; with
    ``missing`` NaNs pass.
    """
    bad = np.isinf(values) if missing else ~np.isfinite(values)
    if not bad.any():
        return
    row = int(bad.reshape(len(bad), -1).any(1).argmax())
    column = ""
    if values.ndim == 2:
        found = [repr(names[j]) if names else str(j) for j in np.flatnonzero(bad.any(0))]
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        column = f"in column{'s' * (len(found) > 1)} {', '.join(found[:5])}{more}, "
    verb = "value is" if bad.sum() == 1 else "values are"
    raise ValueError(
        f"{where}: {bad.sum()} {verb} missing, NaN or infinite, {column}the first in row {row} (rows count from 0): "
        "fill them in or leave those rows out"
    )


def read_npy(file: Path, where: str) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)  # a pickle could run any code
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{where} is not a plain numpy array (damaged, or pickled objects, which are never read): "
            "save numbers with np.save(path, array)"
        ) from error


def chosen(choice: str | None, names: list[str]) -> str:
    """What to do to have these columns or arrays and no others."""
    return f"save a file of {', '.join(names)} alone" if choice is None else f"type {choice}=[{','.join(names)}]"


def read_npz(
    file: Path, key: Key, where: str, preferred: Key, leave: str | None = None, choice: str | None = None
) -> np.ndarray:
    if isinstance(key, list) and len(key) != 1:
        raise ValueError(f"{choice}={key} must name one array of {file}: type {choice}=NAME")
    key = key[0] if isinstance(key, list) else key
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            if key is None:
                names = [name for name in names if name != leave]
                key = names[0] if len(names) == 1 else preferred if preferred in names else None
            if key in names:
                return archive[key]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{where} is not an archive of plain numpy arrays (damaged, or pickled objects, which are never read): "
            "save numbers with np.savez(path, x=array)"
        ) from error
    if not names:
        raise ValueError(f"{where} holds no arrays")
    if key is None:
        remedy = f"call one of them {preferred}" if preferred else chosen(choice, names[:1])
        raise ValueError(f"{where} holds the arrays {', '.join(names)}: {remedy}")
    raise ValueError(
        f"{choice or where}={key}: {file} holds no such array, it has {', '.join(names)}: {chosen(choice, names[:1])}"
    )


def read_csv(
    file: Path, key: Key, where: str, preferred: Key, leave: str | None = None, choice: str | None = None
) -> tuple[np.ndarray, list[str] | None]:
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            blank, first = next(((n, line) for n, line in enumerate(stream) if line.strip()), (0, ""))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text: save it as UTF-8") from error
    delimiter = next((mark for mark in "\t;," if mark in first), None)
    cells = split_row(first, delimiter)
    header = any(number(cell) is None for cell in cells)
    names = [cell.strip() for cell in cells] if header else [str(j) for j in range(len(cells))]
    key = preferred if key is None and header else key
    columns = [names.index(name) for name in chosen_columns(names, key, where, leave, choice)]
    skip = blank + header
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about a file without rows, which is an error further on
            values = np.loadtxt(
                file,
                delimiter=delimiter,
                skiprows=skip,
                usecols=None if key is None and leave is None else columns,
                ndmin=2,
                encoding="utf-8-sig",
                comments=None,
                quotechar='"',
            )
    except ValueError:
        values = read_csv_by_cell(file, delimiter, skip, names, columns, where, choice)
    if values.size and values.shape[1] != len(columns):
        raise ValueError(f"{where}: the rows have {values.shape[1]} cells, the header has {len(names)}")
    return values, [names[j] for j in columns] if header else None


def read_csv_by_cell(
    file: Path,
    delimiter: str | None,
    skip: int,
    names: list[str],
    columns: list[int],
    where: str,
    choice: str | None = None,
) -> np.ndarray:
    """The chosen columns (N, D) with NaN for missing cells; slow, for files that numpy refuses: it can say why."""
    rows, text = [], {}
    with open(file, newline="", encoding="utf-8-sig") as stream:
        lines = stream.read().splitlines()
    for line, cells in ((n, split_row(row, delimiter)) for n, row in enumerate(lines, 1) if n > skip and row.strip()):
        if len(cells) != len(names):
            raise ValueError(f"{where}: line {line} has {len(cells)} cells, the first line has {len(names)}")
        numbers = [number(cell) for cell in cells]
        text.update({j: (line, cells[j]) for j, value in enumerate(numbers) if value is None and j not in text})
        rows.append([np.nan if numbers[j] is None else numbers[j] for j in columns])
    wrong = next((j for j in columns if j in text), None)
    if wrong is not None:
        refuse_column(names, wrong, f"line {text[wrong][0]} holds {text[wrong][1]!r}", set(text), where, choice)
    return np.array(rows, dtype=np.float64)


def split_row(row: str, delimiter: str | None) -> list[str]:
    return row.split() if delimiter is None else next(csv.reader([row], delimiter=delimiter, skipinitialspace=True))


def number(cell: str) -> float | None:
    """The number in a cell, NaN if the cell says that there is none, None if it holds something else."""
    try:
        return float("nan" if cell.strip().lower() in MISSING else cell)
    except ValueError:
        return None


def import_parquet(where: str) -> ModuleType:
    """The module pyarrow.parquet, or an error that says where it is to be had."""
    try:
        import pyarrow.parquet

        return pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{where}: reading parquet needs pyarrow: pip install -e .[images]") from error


def read_parquet(
    file: Path, key: Key, where: str, leave: str | None = None, choice: str | None = None
) -> tuple[np.ndarray, list[str]]:
    parquet = import_parquet(where)
    import pyarrow

    try:
        schema = parquet.read_schema(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{where} is not a parquet file, or a damaged one") from error
    kinds = pyarrow.types
    names = [name for name in schema.names if not name.startswith("__index_level_")]  # so pandas calls its row numbers
    text = {
        j
        for j, name in enumerate(names)
        if not any(
            test(schema.field(name).type)
            for test in (kinds.is_integer, kinds.is_floating, kinds.is_decimal, kinds.is_boolean)
        )
    }
    columns = chosen_columns(names, key, where, leave, choice)
    wrong = next((names.index(name) for name in columns if names.index(name) in text), None)
    if wrong is not None:
        refuse_column(names, wrong, f"its type is {schema.field(names[wrong]).type}", text, where, choice)
    table = parquet.read_table(file, columns=columns)
    arrays = [table[name] for name in columns]
    arrays = [array.cast(pyarrow.float64()) if kinds.is_decimal(array.type) else array for array in arrays]
    # numpy's booleans and integers have no NaN; to_numpy makes floats or objects of them where a value is missing
    arrays = [array.cast(pyarrow.uint8()) if kinds.is_boolean(array.type) else array for array in arrays]
    return np.stack([array.to_numpy() for array in arrays], 1), columns


def read_labels(file: Path, name: str, count: int, where: str) -> tuple[np.ndarray, list[str] | None]:
    """The classes of a file's rows, whole numbers or words: (N,) int64, and the words in alphabetical order where they
    are words, a class the place of its own.

    Arguments:
        name: of a column of a table, or of an array of an .npz.
        count: how many rows there must be.
    """
    suffix = file.suffix.lower()
    if suffix == ".npy":
        raise ValueError(f"data.labels={name}: {file} holds one array without a name; save x and labels as an .npz")
    if suffix == ".npz":
        with np.load(file, allow_pickle=False) as archive:
            found = {each: archive[each] for each in archive.files if each == name}
            names = archive.files
    elif suffix == ".csv":
        with open(file, newline="", encoding="utf-8-sig") as stream:
            lines = [line for line in stream.read().splitlines() if line.strip()]
        delimiter = next((mark for mark in "\t;," if mark in lines[0]), None)
        names = [cell.strip() for cell in split_row(lines[0], delimiter)]
        place = names.index(name) if name in names else None
        for line in lines[1:]:
            if (cells := len(split_row(line, delimiter))) != len(names):
                raise ValueError(f"{where}: a row has {cells} cells and the first line {len(names)}: {line[:60]!r}")
        found = (
            {} if place is None else {name: np.array([split_row(row, delimiter)[place].strip() for row in lines[1:]])}
        )
    else:
        import pyarrow.parquet

        names = pyarrow.parquet.read_schema(file).names
        found = {
            each: pyarrow.parquet.read_table(file, columns=[each])[each].to_numpy() for each in names if each == name
        }
    if name not in found:
        raise ValueError(f"data.labels={name}: {where} has no such column or array; it has {', '.join(names)}")
    values = found[name]
    if values.shape != (count,):
        raise ValueError(f"data.labels={name} has the shape {values.shape} in {file}, and there are {count} examples")
    if values.dtype.kind in "OUS":
        text = np.array([str(value).strip() for value in values])
        if missing := int(sum(word.lower() in MISSING or word.lower() == "nan" for word in text)):
            raise ValueError(f"data.labels={name}: {missing} rows of {file} have no label; leave those rows out")
        numbers = [number(word) for word in text]
        if any(value is None for value in numbers):
            names, classes = np.unique(text, return_inverse=True)
            return classes.astype(np.int64), names.tolist()
        values = np.array(numbers, dtype=np.float64)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"data.labels={name}: {file} holds {values[~np.isfinite(values)][0]}, which is no label")
    if values.dtype.kind == "f" and not (values == np.floor(values)).all():
        raise ValueError(
            f"data.labels={name} of {file} holds {values[values != np.floor(values)][0]}, and labels are words or "
            f"whole numbers; to learn p(x | y) for numbers y type data.condition=[{name}]"
        )
    return values.astype(np.int64), None


def read_words(path: str, option: str, column: str) -> list[str | bool]:
    """What stands in one column of a file, row by row: words, whole numbers written without decimals, or truths.

    Arguments:
        path: a .npy file of one axis; an .npz or a parquet table with one column, or one of that name; a csv file of
            one cell a row, whose first row may be that name.
        option: what the user typed the path for.
        column: the name.
    """
    file = existing_file(path, option)
    where, suffix = f"{option}={file}", file.suffix.lower()
    if suffix == ".csv":
        with open(file, newline="", encoding="utf-8-sig") as stream:
            values = [cell.strip() for row in csv.reader(stream) for cell in row]
        values = values[values[:1] == [column] :]
    elif suffix == ".npy":
        values = read_npy(file, where).ravel().tolist()
    elif suffix == ".npz":
        values = read_npz(file, None, where, column).ravel().tolist()
    else:
        parquet = import_parquet(where)
        names = parquet.read_schema(file).names
        if len(names) != 1 and column not in names:
            raise ValueError(f"{where} has the columns {', '.join(names)}: call one of them {column}")
        name = names[0] if len(names) == 1 else column
        values = parquet.read_table(file, columns=[name])[name].to_pylist()
    return [value if isinstance(value, bool) else as_word(str(value).strip()) for value in values]


def as_word(cell: str) -> str:
    """The cell, without decimals if it is a whole number."""
    value = number(cell)
    return cell if value is None or not value.is_integer() else str(int(value))


def chosen_columns(
    names: list[str], key: Key, where: str, leave: str | None = None, choice: str | None = None
) -> list[str]:
    """The columns that the key names, by default all but the one to leave out."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: two columns are called {twice[0]!r}: give every column a name of its own")
    if key is None:
        if "" in names:  # as in tables that pandas wrote with their row numbers, which are no data
            named = [name for name in names if name]
            raise ValueError(f"{where}: column {names.index('')} has no name (row numbers?): {chosen(choice, named)}")
        if not names:
            raise ValueError(f"{where} has no columns")
        return [name for name in names if name != leave]
    wanted = [name.strip() for name in key.split(",")] if isinstance(key, str) else [str(name) for name in key]
    for name in wanted or [""]:
        if name not in names:
            raise ValueError(f"{where} has no column {name!r}; its columns are {', '.join(names)}")
    return wanted


def refuse_column(names: list[str], wrong: int, why: str, text: set[int], where: str, choice: str | None) -> None:
    numeric = [name for j, name in enumerate(names) if j not in text]
    remedy = chosen(choice, numeric) if numeric else "no column of it is numeric"
    remedy += "" if choice is None else f"; if it is a label, data.labels={names[wrong]}"
    raise ValueError(f"{where}: column {names[wrong]!r} is not numeric ({why}): {remedy}")


def sha256(file: Path) -> str:
    """The hash of a file's content, in hexadecimal."""
    total = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(2**20):
            total.update(block)
    return total.hexdigest()
