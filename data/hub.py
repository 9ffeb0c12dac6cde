"""Pictures of a data set of the Hugging Face Hub, by its name."""

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
        split, test_split: names of splits, in any capitals; auto and None for train, and for test or else validation.
        column, labels: the columns of images and of classes, as for tables.

    Returns:
        the training pictures; the held-out ones if they are a split; the Hub's own fingerprint of both; and what was
        left out, a clause each.
    """
    splits = loaded(name, subset)
    training, held_out, notes = chosen_splits(name, list(splits), split, test_split)
    parts = [training] if held_out is None else [training, held_out]
    content = hashlib.sha256("\n".join(splits[part]._fingerprint for part in parts).encode()).hexdigest()
    found = []
    for part in parts:
        encoded, note = encoded_split(name, part, splits[part], column, labels)
        found.append(encoded)
        if note is not None and note not in notes:
            notes.append(note)
    return found[0], found[1] if held_out else None, content, notes


def loaded(name: str, subset: str | None) -> Any:
    """Returns the splits of a data set by their names, from the Hub or from what was fetched before."""
    if not reachable():  # the library then looks at once for what it has fetched before
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
    by_lower_case = {each.lower(): each for each in splits}
    split = "train" if split in (None, AUTO) else split
    training = by_lower_case.get(split.lower())
    usual = {TRAIN: (TEST, VALIDATION), TEST: ()}.get(kind(split), (TEST,))
    found = (each for word in usual for each in splits if kind(each) == word and each != training)
    held_out = next(found, None) if test_split is None else by_lower_case.get(test_split.lower())
    for key, part, requested in (("split", training, split), ("test_split", held_out, test_split)):
        if part is None and requested is not None:
            raise ValueError(f"`{key}`={requested}: {name} has no such split, it has {', '.join(splits)}")
    if training == held_out:
        raise ValueError(f"`split`={split} and `test_split`={test_split} are the same: type another name")
    notes = [f"trained on: {training}"] + ([f"held out: {held_out}"] if held_out else [])
    left = [each for each in splits if each not in (training, held_out)]
    return training, held_out, notes + ([f"left out: {listed(left)}"] if left else [])


def encoded_split(
    name: str, part: str, rows: Any, column: str | None, labels: str | None
) -> tuple[Encoded, str | None]:
    """Returns the pictures of one split, and a note on its classes."""
    import datasets

    holds_images = [key for key, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    where = f"`path`={name}"
    chosen = image_column(column, holds_images, rows.column_names, where)
    named = label_column(labels, rows.column_names, where)
    found, note = None, None
    if named is not None:
        values = rows.select_columns(named).with_format("arrow")[:][named]
        found, reason = classes([values], named, labels is not None, where)
        note = f"classes: the column {named}" if found is not None else f"no classes: {reason}"
    rows = rows.select_columns(chosen).cast_column(chosen, datasets.Image(decode=False)).with_format("arrow")
    return Encoded(len(rows), Cells(name, part, rows, chosen), found), note


@dataclass(frozen=True)
class Cells:
    """The cells of a split's column of images; called with a row's number, gives the cell's name and bytes.

    Attributes:
        name: the data set.
        part: the split.
        rows: its rows, as arrow tables.
        column: the column of images.
        block: the last thousand rows read, by their number; reading one row takes as long as decoding it.
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
