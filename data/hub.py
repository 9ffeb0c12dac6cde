"""Pictures of a data set of the Hugging Face Hub, by its name."""

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from scoresde.data.encoded import Encoded
from scoresde.data.folders import AUTO, TEST, TRAIN, VALIDATION, kind, listed
from scoresde.data.picture_tables import classes, image_column, label_column


def from_hub(
    name: str, subset: str | None, split: str | None, test_split: str | None, column: str | None, labels: str | None
) -> tuple[Encoded, Encoded | None, str, list[str]]:
    """Reads a data set of the Hub.

    Arguments:
        name: such as ylecun/mnist.
        subset: its configuration, where it has several.
        split, test_split: names of splits, in any capitals; auto and None for train, and for test or else validation.
        column, labels: as of tables.

    Returns:
        the training pictures; the held-out ones if they are a split; the Hub's own fingerprint of both; and what was
        left out, a clause each.
    """
    if not reachable():  # then the library knows at once that there is nothing but what it has fetched before
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"data.path={name} is no folder, and the Hub needs: pip install -e .[images]") from error
    try:
        splits = datasets.load_dataset(name, subset)
    except Exception as error:  # the Hub, the network and the data set's files each have errors of their own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"`path`={name} is neither a folder ({Path(name).absolute()}) nor could it be had from the Hub: "
            f"{reason}; type `path`=FOLDER, a folder with a copy of its parquet files, or come back with a network "
            f"(and logged in, where the Hub asks for terms to be accepted). Samples of a checkpoint need no data: "
            f"data=unseen data.shape=[3,32,32]"
        ) from error
    there = {each.lower(): each for each in splits}
    split = "train" if split in (None, AUTO) else split
    training = there.get(split.lower())
    usual = {TRAIN: (TEST, VALIDATION), TEST: ()}.get(kind(split), (TEST,))
    found = (each for word in usual for each in splits if kind(each) == word and each != training)
    held_out = next(found, None) if test_split is None else there.get(test_split.lower())
    for key, part, asked in (("split", training, split), ("test_split", held_out, test_split)):
        if part is None and asked is not None:
            raise ValueError(f"`{key}`={asked}: {name} has no such split, it has {', '.join(splits)}")
    if training == held_out:
        raise ValueError(f"`split`={split} and `test_split`={test_split} are the same: type another name")
    notes = [f"trained on: {training}"] + ([f"held out: {held_out}"] if held_out else [])
    left = [each for each in splits if each not in (training, held_out)]
    notes += [f"left out: {listed(left)}"] if left else []

    def encoded(part: str) -> Encoded:
        rows = splits[part]
        holds_images = [key for key, feature in rows.features.items() if isinstance(feature, datasets.Image)]
        chosen = image_column(column, holds_images, rows.column_names, f"`path`={name}")
        named = label_column(labels, rows.column_names, f"`path`={name}")
        known = None
        if named is not None:
            values = rows.select_columns(named).with_format("arrow")[:][named]
            known, reason = classes([values], named, labels is not None, f"`path`={name}")
            note = f"classes: the column {named}" if known is not None else f"no classes: {reason}"
            if note not in notes:
                notes.append(note)
        rows = rows.select_columns(chosen).cast_column(chosen, datasets.Image(decode=False)).with_format("arrow")
        block: dict[int, list] = {}  # a thousand rows at a time, since a row by itself takes as long as decoding it

        def read(i: int) -> tuple[str, Any, None]:
            k, j = divmod(i, 1000)
            if k not in block:
                block.clear()
                block[k] = rows[1000 * k : 1000 * (k + 1)][chosen].to_pylist()
            cell = block[k][j]
            where = f"`path`={name}: row {i} of {part} ({cell['path'] or chosen})" if cell else ""
            if cell is None or (cell["bytes"] is None and cell["path"] is None):
                raise ValueError(f"`path`={name}: row {i} of {part} holds no bytes of an image: leave it out")
            content = Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]
            return where, content, None

        return Encoded(len(rows), read, known)

    parts = [training] if held_out is None else [training, held_out]
    content = hashlib.sha256("\n".join(splits[part]._fingerprint for part in parts).encode()).hexdigest()
    return encoded(training), encoded(held_out) if held_out else None, content, notes


def reachable() -> bool:
    """Whether the Hub answers; its own library asks six times with growing pauses, 25 seconds, before it gives up."""
    try:
        urllib.request.urlopen(os.environ.get("HF_ENDPOINT") or "https://huggingface.co", timeout=10).close()
    except urllib.error.HTTPError:  # an answer
        return True
    except (OSError, ValueError):
        return False
    return True
