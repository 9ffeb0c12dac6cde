"""Finds the splits of a folder of pictures or tables.

The folders of pictures may be splits or classes. Folders named like splits (train, Training, TEST, val, ...) are splits
if all folders at the top have such names, or all folders one below the top, a training and a held-out name among them:
each class then has splits of its own. Otherwise the folders at the top are classes, whatever their names: bus/ and
train/ are two classes. Where a training and a held-out name stand beside other folders, or folders named like splits
beside pictures in no folder, both readings are likely and ``data.split`` has to decide.

The split of a table is the one that its file's name begins with (train-00000-of-00001), or that of a folder.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from scoresde.data.listing import File, counted, listed

AUTO = "auto"
TRAIN, TEST, VALIDATION = "train", "test", "validation"
# the first words of names that mean a split, and the words that may follow them
NAMES = {
    **dict.fromkeys(("train", "training", "trainset"), TRAIN),
    **dict.fromkeys(("test", "testing", "testset"), TEST),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation", "valset"), VALIDATION),
}
FILLERS = {"data", "dataset", "image", "images", "img", "imgs", "part", "pictures", "set", "split"}


@dataclass(frozen=True)
class Parts:
    """The files of two splits.

    Attributes:
        training: the files to train on.
        held_out: the held-out files; empty where there are none, and a part of the training pictures is held out later.
        notes: what was understood and what was left out, a clause each.
    """

    training: list[File]
    held_out: list[File]
    notes: list[str] = field(default_factory=list)


def kind(name: str) -> str | None:
    """Returns train, test or validation for a folder with such a name (Train, TESTING, val2017, train_images), else
    None.
    """
    first, *rest = re.findall("[a-z]+", name.lower()) or [""]
    return NAMES.get(first) if name[:1].isalpha() and set(rest) <= FILLERS else None


def table_kind(file: File) -> str | None:
    """Returns train, test or validation, the split that a table's name begins with (train-00000-of-00001,
    Train.parquet), or that of the innermost folder named like a split; None for none.
    """
    first = re.match("[a-z]*", file.path.name.lower())[0]
    return NAMES.get(first) or next((kind(name) for name in reversed(file.folders) if kind(name)), None)


def parts(files: list[File], tables: bool, split: str | None, test_split: str | None, folder: Path) -> Parts:
    """Divides files into a training and a held-out split.

    Arguments:
        files: all tables, or all pictures, of a folder.
        tables: whether they are tables.
        split: the name of the split to train on, in any capitals; ``auto`` for train, by the rules in the module's
            text, or for all files that ``test_split`` does not hold out where none is called so; None for no split, so
            that all files that are not held out are trained on.
        test_split: the name of the split to hold out. If there are splits, None holds out test or else validation
            beside train, none beside test, and test beside any other split.
        folder: the folder that the user named, for messages.

    Raises:
        ValueError: if no file or folder has a requested name, two readings are possible, both keys name one split, or
            there is nothing to train on.
    """
    requested = {key: name for key, name in (("split", split), ("test_split", test_split)) if name not in (None, AUTO)}
    single_file = len(files) == 1 and not files[0].folders
    if not requested and (split is None or single_file):
        return Parts(files, [])
    depth, groups = table_groups(files, requested, folder) if tables else folder_groups(files, requested, folder)
    if not groups:
        return Parts(files, [])
    kinds = {name: table_kind(group[0]) if tables else kind(name) for name, group in groups.items()}

    held_out = [] if test_split is None else [name for name in groups if called(groups[name], test_split, depth)]
    if "split" in requested:
        training = [name for name in groups if called(groups[name], split, depth)]
    else:
        training = [name for name in groups if kinds[name] == TRAIN and name not in held_out and split == AUTO]
    all_others = not training and test_split is not None  # all files that are not held out, each folder a class
    if all_others:
        training = [name for name in groups if name not in held_out]
    if test_split is None:
        # beside train test or validation is held out, beside test nothing, beside any other split test
        usual = {TRAIN: (TEST, VALIDATION), TEST: ()}.get(TRAIN if split == AUTO else kind(split), (TEST,))
        candidates = ([name for name in groups if kinds[name] == word and name not in training] for word in usual)
        held_out = next(filter(None, candidates), [])
    if not training:
        raise ValueError(
            f"`path`={folder} holds {listed(groups)} to be held out and nothing to train on: type "
            f"`split`={next(iter(groups))} to train on it, or `split`=null if no name means a split"
        )
    if shared := set(training) & set(held_out):
        raise ValueError(
            f"`split`={split} and `test_split`={test_split} both name {listed(sorted(shared))} in {folder}: type "
            f"names that have nothing in common"
        )
    notes = []
    left_out = [name for name in groups if name not in {*training, *held_out}]
    for verb, names in (("trained on", training), ("held out", held_out), ("left out", left_out)):
        if names:
            notes.append(f"{verb}: {listed(names)} ({counted(sum(len(groups[name]) for name in names), 'file')})")

    train_files, test_files = ([file for name in names for file in groups[name]] for names in (training, held_out))
    return Parts(train_files if all_others else below_split(train_files, depth), below_split(test_files, depth), notes)


def below_split(files: list[File], depth: int | None) -> list[File]:
    """Returns the files without the folder of their split among ``folders``.

    Arguments:
        depth: the place of that folder, 0 at the top; None for tables, which keep all folders.
    """
    if depth is None:
        return files
    return [replace(file, folders=file.folders[:depth] + file.folders[depth + 1 :]) for file in files]


def called(group: list[File], name: str, depth: int | None) -> bool:
    """Returns whether a group of files has a name, in any capitals: that of its folder at a depth; or, where the depth
    is None, the start of a table's name or any of its folders.
    """
    name, file = name.lower(), group[0]
    if depth is not None:
        return file.folders[depth : depth + 1] != () and file.folders[depth].lower() == name
    return file.path.name.lower().startswith(name) or name in map(str.lower, file.folders)


def folder_groups(
    files: list[File], requested: dict[str, str], folder: Path
) -> tuple[int | None, dict[str, list[File]]]:
    """Returns the depth at which folders are splits, 0 at the top, and the files by their folder at that depth; None
    and {} where nothing is a split.

    Arguments:
        requested: ``split`` and ``test_split`` where the user named them.
    """
    if requested:
        deepest = max(len(file.folders) for file in files)
        levels = [{file.folders[d].lower() for file in files if len(file.folders) > d} for d in range(deepest)]
        depth = next(
            (d for d, names in enumerate(levels) if {name.lower() for name in requested.values()} <= names), None
        )
        for key, name in requested.items():
            if depth is None and (len(requested) == 1 or not any(name.lower() in names for names in levels)):
                missing(key, name, sorted({name for file in files for name in file.folders}), folder)
        if depth is None:
            both_keys = " and ".join(f"`{key}`={name}" for key, name in requested.items())
            raise ValueError(
                f"{both_keys}: these folders of {folder} lie at different depths: name the folder that holds both in "
                f"`path`"
            )
    else:
        depth = split_depth(files, folder)
        if depth is None:
            return None, {}
    groups: dict[str, list[File]] = {}
    for file in files:
        name = "/".join(file.folders[depth : depth + 1]) or file.local
        groups.setdefault(name, []).append(file)
    return depth, groups


def table_groups(files: list[File], requested: dict[str, str], folder: Path) -> tuple[None, dict[str, list[File]]]:
    """Returns None, for no depth, and each table by its name as a group of its own; {} where no name means a split.

    Arguments:
        requested: ``split`` and ``test_split`` where the user named them.
    """
    groups = {file.local: [file] for file in files}
    for key, name in requested.items():
        if not any(called(group, name, None) for group in groups.values()):
            missing(key, name, list(groups), folder)
    words = {table_kind(file) for file in files}
    if not requested:
        if words == {None}:
            return None, {}
        if None in words and (TRAIN not in words or len(words) == 2):
            unclear([file.local for file in files], folder)
    return None, groups


def missing(key: str, name: str, names: list[str], folder: Path) -> None:
    """Raises a ValueError for a split that is not there, with the names that are."""
    holds = f"it holds {listed(names, 5)}" if names else "it holds no folders"
    raise ValueError(
        f"`{key}`={name}: no file or subfolder of {folder} is called so; {holds}: type "
        f"`{key}`={'NAME, the start of a name' if names else 'auto' if key == 'split' else 'null'}"
    )


def unclear(names: Collection[str], folder: Path) -> None:
    """Raises a ValueError for names of which some look like splits and others do not."""
    raise ValueError(
        f"`path`={folder} holds {listed(names, 8)}, some of which are named like splits: type `split`=NAME "
        f"and `test_split`=NAME to say which are, or `split`=null if none is"
    )


def split_depth(files: list[File], folder: Path) -> int | None:
    """Returns the depth at which folders are splits (0 at the top), or None; raises a ValueError where two readings are
    likely. A folder that holds all others and is not named like a split is skipped.
    """
    depth = 0
    while (found := level(files, depth))[1] and len(found[0]) == 1 and found[2] == {None}:
        depth += 1
    names, complete, words = found
    if names and complete and None not in words:
        return depth
    if both(words) or (names and None not in words):
        # beside other folders, or beside pictures that lie in none
        unclear(sorted(names) + ["pictures in no folder"] * (not complete), folder)
    below, complete_below, words = level(files, depth + 1)
    if both(words):
        if complete_below and None not in words:
            return depth + 1
        unclear([f".../{name}" for name in sorted(below)], folder)
    return None


def level(files: list[File], depth: int) -> tuple[set[str], bool, set[str | None]]:
    """Returns the names of the folders at a depth; whether each file lies in one; and which splits the names mean, None
    among them for a name that means none.
    """
    names = {file.folders[depth] for file in files if len(file.folders) > depth}
    return names, all(len(file.folders) > depth for file in files), {kind(name) for name in names}


def both(words: set[str | None]) -> bool:
    """Returns whether the splits ``words`` include one to train on and one to hold out."""
    return TRAIN in words and bool(words & {TEST, VALIDATION})
