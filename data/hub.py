"""Finds the pictures of a data set of the Hugging Face Hub, by its name, through the `datasets` library."""

import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scoresde.data.encoded import Encoded
from scoresde.data.listing import listed
from scoresde.data.picture_tables import classes, image_column, label_column
from scoresde.data.splits import AUTO, TEST, TRAIN, VALIDATION, kind

BLOCK = 1000  # rows that are read at a time


def from_hub(
    name: str, subset: str | None, split: str | None, test_split: str | None, column: str | None, labels: str | None
) -> tuple[Encoded, Encoded | None, str, list[str]]:
    """Reads a data set of the Hub.

    Arguments:
        name: such as ylecun/mnist.
        subset: its configuration, where it has several.
        split: the split to train on, in any capitals; auto and None for train.
        test_split: the split to hold out, in any capitals. None holds out test or else validation beside a training
            split, none beside test, and test beside any other split, if there is one.
        column, labels: the columns of images and of classes, as for tables.

    Returns:
        the training pictures; the held-out ones, or None if no split is held out; a hash of the fingerprints that the
        library gives these splits; and notes on what was taken and left out.

    Raises:
        FileNotFoundError: there is no such data set, or it cannot be fetched.
        ValueError: there is no such split or column, both splits are the same, or the columns leave a choice.
        ImportError: the library is not installed.
    """
    splits = loaded(name, subset)
    training, held_out, notes = chosen_splits(name, list(splits), split, test_split)
    parts = [training] if held_out is None else [training, held_out]
    content = hashlib.sha256("\n".join(splits[part]._fingerprint for part in parts).encode()).hexdigest()
    pictures = []
    for part in parts:
        encoded, note = encoded_split(name, part, splits[part], column, labels)
        pictures.append(encoded)
        if note is not None and note not in notes:
            notes.append(note)
    return pictures[0], pictures[1] if held_out else None, content, notes


def loaded(name: str, subset: str | None) -> Any:
    """Returns the splits of a data set by their names, from the Hub, or from the library's cache if the Hub is not
    reachable.

    Raises:
        FileNotFoundError, ImportError: as :func:`from_hub`.
    """
    if not reachable():  # the library then looks in its cache at once
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"data.path={name} is no folder, and the Hub needs: pip install -e .[images]") from error
    try:
        return datasets.load_dataset(name, subset)
    except Exception as error:  # the Hub, the network and the data set's files each have errors of their own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"`path`={name} is neither a folder ({Path(name).absolute()}) nor could it be had from the Hub: "
            f"{reason}; type `path`=FOLDER, a folder with a copy of its parquet files, or come back with a network "
            f"(and logged in, where the Hub asks for terms to be accepted). Samples of a checkpoint need no data: "
            f"data=unseen data.shape=[3,32,32]"
        ) from error


def chosen_splits(
    name: str, splits: list[str], split: str | None, test_split: str | None
) -> tuple[str, str | None, list[str]]:
    """Returns the split to train on, the one to hold out or None, and notes; arguments as in :func:`from_hub`."""
    by_lower_case = {name.lower(): name for name in splits}
    split = "train" if split in (None, AUTO) else split
    training = by_lower_case.get(split.lower())
    usual = {TRAIN: (TEST, VALIDATION), TEST: ()}.get(kind(split), (TEST,))
    candidates = (name for word in usual for name in splits if kind(name) == word and name != training)
    held_out = next(candidates, None) if test_split is None else by_lower_case.get(test_split.lower())
    for key, part, requested in (("split", training, split), ("test_split", held_out, test_split)):
        if part is None and requested is not None:
            raise ValueError(f"`{key}`={requested}: {name} has no such split, it has {', '.join(splits)}")
    if training == held_out:
        raise ValueError(f"`split`={split} and `test_split`={test_split} are the same: type another name")
    notes = [f"trained on: {training}"] + ([f"held out: {held_out}"] if held_out else [])
    left_out = [part for part in splits if part not in (training, held_out)]
    return training, held_out, notes + ([f"left out: {listed(left_out)}"] if left_out else [])


def encoded_split(
    name: str, part: str, rows: Any, column: str | None, labels: str | None
) -> tuple[Encoded, str | None]:
    """Returns the pictures of one split, and a note on its classes; None without a column of classes.

    Arguments:
        name: the data set.
        part: the name of the split.
        rows: the split, a data set of the library.
        column, labels: as in :func:`from_hub`.
    """
    import datasets

    holds_images = [key for key, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    where = f"`path`={name}"
    chosen = image_column(column, holds_images, rows.column_names, where)
    named = label_column(labels, rows.column_names, where)
    labels_of_rows, note = None, None
    if named is not None:
        values = rows.select_columns(named).with_format("arrow")[:][named]
        labels_of_rows, reason = classes([values], named, labels is not None, where)
        note = f"classes: the column {named}" if labels_of_rows is not None else f"no classes: {reason}"
    rows = rows.select_columns(chosen).cast_column(chosen, datasets.Image(decode=False)).with_format("arrow")
    return Encoded(len(rows), Cells(name, part, rows, chosen), labels_of_rows), note


@dataclass(frozen=True)
class Cells:
    """The cells of a split's column of images.

    Called with a row's number, it returns the cell's name, its bytes and None: the bytes must hold one picture
    (:class:`scoresde.data.encoded.Encoded`).

    Attributes:
        name: the data set.
        part: the split.
        rows: the rows of the split, as arrow tables.
        column: the column of images.
        block: the block of BLOCK rows read last, by its number; to read a single row takes as long as to decode it.
    """

    name: str
    part: str
    rows: Any
    column: str
    block: dict[int, list] = field(default_factory=dict)

    def __call__(self, i: int) -> tuple[str, Any, None]:
        k, j = divmod(i, BLOCK)
        if k not in self.block:
            self.block.clear()
            self.block[k] = self.rows[BLOCK * k : BLOCK * (k + 1)][self.column].to_pylist()
        cell = self.block[k][j]
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise ValueError(f"`path`={self.name}: row {i} of {self.part} holds no bytes of an image: leave it out")
        where = f"`path`={self.name}: row {i} of {self.part} ({cell['path'] or self.column})"
        return where, Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"], None


def reachable() -> bool:
    """Returns whether the Hub answers; its library would try six times, for 25 seconds, before it gives up."""
    try:
        urllib.request.urlopen(os.environ.get("HF_ENDPOINT") or "https://huggingface.co", timeout=10).close()
    except urllib.error.HTTPError:  # an answer too
        return True
    except (OSError, ValueError):
        return False
    return True
