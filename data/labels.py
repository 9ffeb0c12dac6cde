"""Class labels of a file's rows, of any type.

Labels that are all whole numbers within int64 stay numbers. All others become words, but numbers with a fraction are
refused where no label is a word.
"""

from decimal import Decimal

import numpy as np

from scoresde.data.csv_table import CsvTable
from scoresde.data.numerals import CODE, MISSING, number, whole
from scoresde.data.numpy_file import NumpyFile
from scoresde.data.parquet_table import ParquetTable

Source = CsvTable | ParquetTable | NumpyFile
ABSENT = {"", "nan", "nat", "<na>"}  # words, in lower case, that always mean a missing label


def read_labels(source: Source, name: str, count: int) -> tuple[np.ndarray, list[str] | None, list[str]]:
    """Reads the class labels of a file's rows.

    Labels that are all whole numbers are compared by value: 1 and 1.0 are one class, and so are 1e30 and its digits.
    All others (words, bytes, dates, codes with leading zeros) are compared by text, without the spaces around it. An
    empty cell is an error. ``none``, ``null`` and ``NA`` are classes, but missing values beside numbers, or where they
    are the only cells of a csv file's column without quotes.

    Arguments:
        source: the opened file.
        name: the name of a table's column, or its number where the table has no header; or the name of an array of an
            .npz.
        count: the number of labels that an array must hold.

    Returns:
        the classes (N,), int64; the words, each class being the index of its word, or None for whole numbers within
        int64, which are the classes; and notes on what was taken.

    Raises:
        ValueError: with the key ``labels`` and the file.
    """
    said = f"`labels`={name}"
    if not source.table and source.single:
        raise ValueError(f"{said}: {source.file} holds one array without a name; save x and labels as an .npz")
    if source.names.count(name) != 1:
        lacks = "has several columns of this name" if name in source.names else "has no such column or array"
        raise ValueError(f"{said}: {source.where} {lacks}; it has {', '.join(source.names)}")
    if source.table:
        j = source.names.index(name)
        values = source.words(j) if isinstance(source, CsvTable) else source.values(j, said)
    else:
        values = source.array(name, said)
        if values.shape != (count,) and values.shape != (count, 1):
            raise ValueError(
                f"{said} has the shape {values.shape} in {source.where}, and there are {count} examples: save one "
                f"label an example, of shape ({count},)"
            )
        values = values.reshape(-1)
    try:
        texts = written(values)
        refuse_missing(texts, source, name)
        classes, names = classes_of_texts(texts, name)
    except ValueError as error:
        raise ValueError(f"{said}: {source.where}: {error}") from error
    return classes, names, notes_of(texts, name, classes, names)


def read_words(source: Source, column: str) -> list[str | bool]:
    """Reads the labels of a file as they are written: words, or booleans where all labels are booleans.

    Arguments:
        source: the opened file.
        column: the name of the array or column that holds the labels, where there are several.

    Raises:
        ValueError: there are several and not exactly one has the name; or a row has no label, several, or one of
            another type.
    """
    if not source.table:
        values = source.array(None if source.single else only(source, column))
        values = values[None] if values.ndim == 0 else values
        if values.ndim > 1 and values.size != len(values):
            raise ValueError(f"{source.where} holds labels of shape {values.shape}: save one a row, of shape (N,)")
        values = values.reshape(-1)
        if values.dtype.kind == "b":
            return values.tolist()
    else:
        j = source.names.index(only(source, column))
        values = source.words(j) if isinstance(source, CsvTable) else source.values(j, source.where)
        if isinstance(values, list) and all(isinstance(value, bool) for value in values):
            return values
    try:
        texts = written(values)
    except ValueError as error:
        raise ValueError(f"{source.where}: {error}") from error
    if None in texts or "" in texts:
        row = next(i for i, text in enumerate(texts) if not text)
        raise ValueError(f"{source.where}: row {row} holds no label (rows count from 0): fill it in or leave it out")
    return texts


def only(source: Source, column: str) -> str:
    """Returns the name of the only column or array, or ``column`` where there are several; raises a ValueError unless
    exactly one of several is called so.
    """
    if len(source.names) == 1:
        return source.names[0]
    if source.names.count(column) != 1:
        kind = "columns" if source.table else "arrays"
        raise ValueError(f"{source.where} has the {kind} {', '.join(source.names)}: call one of them {column}")
    return column


def written(values: np.ndarray | list) -> list[str | None]:
    """Returns labels of any type as text, None where one is missing.

    Raises:
        ValueError: for values that are neither words, real numbers, booleans nor dates, or bytes that are not UTF-8.
    """
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        texts = {value: text_of(value) for value in set(values)}
        return [texts[value] for value in values]
    if isinstance(values, list):
        return [text_of(value) for value in values]
    kind = values.dtype.kind
    if kind == "M":
        return [None if np.isnat(value) else str(value) for value in values]
    if kind == "f":
        return [text_of(value) for value in values]  # the text of numpy's scalars is the shortest
    if kind in "biuSUT":
        return [text_of(value) for value in values.tolist()]
    raise ValueError(f"it holds values of type {values.dtype}: save words, with array.astype(str), or whole numbers")


def text_of(value: object) -> str | None:
    """Returns one label as text, a whole number without decimals where int64 holds it, a boolean as 0 or 1; None where
    it is missing.

    Raises:
        ValueError: bytes are not UTF-8.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        try:
            return value.decode().strip()
        except UnicodeDecodeError:
            raise ValueError(f"it holds the bytes {value!r}, which are not UTF-8: save words") from None
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float | np.floating | Decimal):
        if value != value:
            return None
        near = abs(float(value)) < 2**63  # compared as float, since float16 cannot hold 2^63
        return str(int(value)) if near and value == int(value) else str(value)
    return str(value)


def refuse_missing(texts: list[str | None], source: Source, name: str) -> None:
    """Raises a ValueError with the number of rows without a label, if there are some.

    Arguments:
        texts: the labels, None where one is missing.
        source, name: as in :func:`read_labels`.
    """
    kinds = {text for text in texts if text is not None}
    absent = {text for text in kinds if text.lower() in ABSENT}
    unsure = {text for text in kinds - absent if text.lower() in MISSING}  # words such as none
    rest = kinds - absent - unsure
    among_numbers = bool(rest) and all(number(text) is not None for text in rest)
    if unsure and (among_numbers or isinstance(source, CsvTable) and source.unquoted(source.names.index(name), unsure)):
        absent |= unsure
    if missing := sum(text is None or text in absent for text in texts):
        row = next(i for i, text in enumerate(texts) if text is None or text in absent)
        raise ValueError(
            f"{missing} row{'s have' if missing > 1 else ' has'} no label, the first is row {row} (rows count from 0): "
            f"leave those rows out, or write a word for them"
        )


def classes_of_texts(texts: list[str], name: str) -> tuple[np.ndarray, list[str] | None]:
    """Returns the classes of labels (N,), int64, and the names of the classes; None for whole numbers within int64.

    Raises:
        ValueError: the labels are numbers, and some are not whole.
    """
    if all(text.lower() not in MISSING and number(text) is not None for text in set(texts)):
        values = {text: whole(text) for text in set(texts)}
        if wrong := next((text for text in texts if values[text] is None), None):
            raise ValueError(
                f"it holds {wrong}, and labels are words or whole numbers; to learn p(x | y) for numbers type "
                f"data.condition=[{name}]"
            )
        if all(-(2**63) <= value < 2**63 for value in values.values()):
            return np.array([values[text] for text in texts], dtype=np.int64), None
        names: dict[int, str] = {}
        for text in texts:
            names.setdefault(values[text], text)
        order = sorted(names)
        places = {value: k for k, value in enumerate(order)}
        return np.array([places[values[text]] for text in texts]), [names[value] for value in order]
    words, classes = np.unique(np.array(texts), return_inverse=True)
    return classes.astype(np.int64), words.tolist()


def notes_of(texts: list[str], name: str, classes: np.ndarray, names: list[str] | None) -> list[str]:
    """Returns notes on how the labels were read."""
    kinds = names or [str(value) for value in np.unique(classes).tolist()]
    shown = ", ".join(kinds[:6]) + (", ..." if len(kinds) > 6 else "")
    kind = "whole numbers" if names is None else "words"
    notes = [f"labels from {name}: {len(kinds)} class{'es' if len(kinds) > 1 else ''}, {kind} ({shown})"]
    for word in kinds if names else ():
        if word.lower() in MISSING:
            notes.append(f"the word {word} is a class of {texts.count(word)} rows and no missing value")
    if names and any(CODE.fullmatch(word) for word in kinds):
        notes.append("labels with leading zeros are words")
    elif names and all(whole(word) is not None for word in kinds):
        notes.append("labels beyond int64 are words")
    return notes
