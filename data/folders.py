"""A folder of pictures or tables: its files, its splits and its classes.

Folders named like splits (train, Training, TEST, val, ...) are splits only where no other reading is possible: if all
folders at the top have such names, or all folders one below the top, each class with splits of its own. Otherwise the
folders at the top are classes, whatever their names: a folder of buses and a folder of trains are two. Where a training
and a held-out name stand beside other folders, both readings are likely and ``data.split`` has to decide.
"""

import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

AUTO = "auto"
TRAIN, TEST, VALIDATION = "train", "test", "validation"
NAMES = {
    **dict.fromkeys(("train", "training", "trainset"), TRAIN),
    **dict.fromkeys(("test", "testing", "testset"), TEST),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation", "valset"), VALIDATION),
}
FILLERS = {"data", "dataset", "image", "images", "img", "imgs", "part", "pictures", "set", "split"}


@dataclass(frozen=True)
class File:
    """A file.

    Attributes:
        path: the absolute path.
        local: the path below the folder that the user named, with slashes.
        folders: the folders on that path; for a file of a split, without the split's folder.
    """

    path: Path
    local: str
    folders: tuple[str, ...] = ()


def listed(names: Collection[str], most: int = 3) -> str:
    """Returns the first names, separated by commas."""
    return ", ".join(list(names)[:most]) + (", ..." if len(names) > most else "")


def counted(count: int, what: str, more: str = "") -> str:
    """Returns a number with its noun, "1 hidden file", "2 hidden files"; ``more`` is an irregular plural."""
    return f"{count} {what if count == 1 else more or what + 's'}"


# ---- files ------------------------------------------------------------------------------------------------------


@dataclass
class Listing:
    """The files below a folder that can be read, and the names of those left out."""

    tables: list[File] = field(default_factory=list)
    pictures: list[File] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    linked: bool = False

    @property
    def count(self) -> int:
        """The number of files that can be read."""
        return len(self.tables) + len(self.pictures)

    def notes(self) -> list[str]:
        """Returns a clause for each kind of file left out."""
        kinds = (
            (self.hidden, "hidden file or folder", "hidden files or folders"),
            (self.other, "other file", "other files"),
            (self.broken, "broken link", "broken links"),
            (self.loops, "link to a folder above it", "links to folders above them"),
            (self.empty, "folder without images", "folders without images"),
        )
        return [f"{counted(len(names), one, more)} left out ({listed(names)})" for names, one, more in kinds if names]


def listing(folder: Path, suffixes: Callable[[], Collection[str]]) -> Listing:
    """Lists the files of a folder, of its subfolders and of linked folders; or the one file, if the path is a file.

    Arguments:
        folder: an absolute path.
        suffixes: returns the suffixes of pictures; called only where there are files that are not tables.

    Raises:
        ValueError: if a folder cannot be read.
    """
    found = Listing()
    if folder.is_file():
        suffix = folder.suffix.lower()
        if suffix != ".parquet" and suffix not in suffixes():
            found.other.append(folder.name)
        else:
            (found.tables if suffix == ".parquet" else found.pictures).append(File(folder, folder.name))
    else:
        walk(folder, (), (), found, suffixes)
    return found


def walk(
    folder: Path,
    folders: tuple[str, ...],
    above: tuple[str, ...],
    found: Listing,
    suffixes: Callable[[], Collection[str]],
) -> None:
    """Adds the files of a folder and of those below it.

    Arguments:
        folders: the names of the folders from the top to this one.
        above: the real paths of the folders above; a link to one of them would be a cycle.
    """
    real = os.path.realpath(folder)
    if real in above:
        found.loops.append("/".join(folders))
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"`path`: the folder {folder} cannot be read ({error.strerror})") from error
    for entry in entries:
        path, local = Path(entry.path), "/".join((*folders, entry.name))
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself
            is_folder = is_file = False
        suffix = path.suffix.lower()
        found.linked = found.linked or entry.is_symlink()
        if entry.name.startswith("."):
            found.hidden.append(local)
        elif is_folder:
            before, within = found.count, len(found.empty)
            walk(path, (*folders, entry.name), (*above, real), found, suffixes)
            if found.count == before and local not in found.loops:
                found.empty[within:] = [local]  # in place of the folders in it
        elif not is_file:
            (found.broken if entry.is_symlink() else found.other).append(local)
        elif suffix == ".parquet":
            found.tables.append(File(path, local, folders))
        elif suffix in suffixes():
            found.pictures.append(File(path, local, folders))
        else:
            found.other.append(local)


# ---- splits -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """The files of two splits.

    Attributes:
        training: the files to train on.
        held_out: the held-out files; empty where there are none, and a part of the training files is held out later.
        notes: what was understood and what was left out, a clause each.
    """

    training: list[File]
    held_out: list[File]
    notes: list[str] = field(default_factory=list)


def kind(name: str) -> str | None:
    """Returns train, test or validation for a folder with such a name: Train, TESTING, val2017, train_images."""
    first, *rest = re.findall("[a-z]+", name.lower()) or [""]
    return NAMES.get(first) if name[:1].isalpha() and set(rest) <= FILLERS else None


def table_kind(file: File) -> str | None:
    """Returns the split that a table's name begins with (train-00000-of-00001, Train.parquet), or its folder's."""
    first = re.match("[a-z]*", file.path.name.lower())[0]
    return NAMES.get(first) or next((kind(name) for name in reversed(file.folders) if kind(name)), None)


def parts(files: list[File], tables: bool, split: str | None, test_split: str | None, folder: Path) -> Parts:
    """Divides files into a training and a held-out split.

    Arguments:
        files: all tables, or all pictures, of a folder.
        tables: whether they are tables: the split of a table is the start of its name or a folder's name, that of a
            picture a folder's name.
        split: the name of the split to train on, in any capitals; auto as the module says; None if nothing is a split.
        test_split: the name of the split to hold out; by default test, or else validation, if there are splits.
        folder: the folder that the user named, for messages.

    Raises:
        ValueError: if no file or folder has a requested name, or two readings are possible.
    """
    requested = {key: name for key, name in (("split", split), ("test_split", test_split)) if name not in (None, AUTO)}
    one = len(files) == 1 and not files[0].folders
    if not requested and (split is None or one):
        return Parts(files, [])
    depth, groups = table_groups(files, requested, folder) if tables else folder_groups(files, requested, folder)
    if not groups:
        return Parts(files, [])
    kinds = {name: table_kind(some[0]) if tables else kind(name) for name, some in groups.items()}

    held_out = [] if test_split is None else [name for name in groups if called(groups[name], test_split, depth)]
    if "split" in requested:
        training = [name for name in groups if called(groups[name], split, depth)]
    else:
        training = [name for name in groups if kinds[name] == TRAIN and name not in held_out and split == AUTO]
    whole = not training and test_split is not None  # all files that are not held out, each folder a class
    if whole:
        training = [name for name in groups if name not in held_out]
    if test_split is None:
        usual = {TRAIN: (TEST, VALIDATION), TEST: ()}.get(TRAIN if split == AUTO else kind(split), (TEST,))
        found = ([name for name in groups if kinds[name] == word and name not in training] for word in usual)
        held_out = next(filter(None, found), [])
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
    left = [name for name in groups if name not in {*training, *held_out}]
    for verb, names in (("trained on", training), ("held out", held_out), ("left out", left)):
        if names:
            notes.append(f"{verb}: {listed(names)} ({counted(sum(len(groups[name]) for name in names), 'file')})")

    train_files, test_files = ([file for name in names for file in groups[name]] for names in (training, held_out))
    return Parts(train_files if whole else below_split(train_files, depth), below_split(test_files, depth), notes)


def below_split(files: list[File], depth: int | None) -> list[File]:
    """Returns the files without the folder of their split, which lies at a depth; None for tables without folders."""
    if depth is None:
        return files
    return [replace(file, folders=file.folders[:depth] + file.folders[depth + 1 :]) for file in files]


def called(some: list[File], name: str, depth: int | None) -> bool:
    """Returns whether a group of files has a name, in any capitals: its folder's, or the start of a table's own."""
    name = name.lower()
    if depth is not None:
        return some[0].folders[depth : depth + 1] != () and some[0].folders[depth].lower() == name
    return some[0].path.name.lower().startswith(name) or name in map(str.lower, some[0].folders)


def folder_groups(
    files: list[File], requested: dict[str, str], folder: Path
) -> tuple[int | None, dict[str, list[File]]]:
    """Returns the depth at which folders are splits, and the files by split; None and {} where nothing is a split."""
    if requested:
        deepest = max(len(file.folders) for file in files)
        levels = [{file.folders[d].lower() for file in files if len(file.folders) > d} for d in range(deepest)]
        depth = next(
            (d for d, names in enumerate(levels) if {name.lower() for name in requested.values()} <= names), None
        )
        for key, name in requested.items():
            if depth is None and (len(requested) == 1 or not any(name.lower() in names for names in levels)):
                missing(key, name, sorted({each for file in files for each in file.folders}), folder)
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
    """Returns None and the tables by name, or {} where no name means a split."""
    groups = {file.local: [file] for file in files}
    for key, name in requested.items():
        if not any(called(some, name, None) for some in groups.values()):
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
    """Returns the depth at which folders are splits (0 at the top), or None; a single folder above all is skipped."""
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
    """Returns the names of the folders at a depth, whether all files lie in one, and which splits the names mean."""
    names = {file.folders[depth] for file in files if len(file.folders) > depth}
    return names, all(len(file.folders) > depth for file in files), {kind(name) for name in names}


def both(words: set[str | None]) -> bool:
    """Returns whether there is a split to train on and one to hold out."""
    return TRAIN in words and bool(words & {TEST, VALIDATION})


# ---- classes ----------------------------------------------------------------------------------------------------


def classes(parts: Parts) -> tuple[list[str] | None, list[str]]:
    """Returns the class of each file, training before held-out ones, and notes.

    A class is the first folder below the split's in which the files differ. There are no classes (None) where some file
    lies in no such folder, or all lie in one.
    """
    files = parts.training + parts.held_out
    inner = [file.folders for file in files]
    while all(inner) and len({folders[0] for folders in inner}) == 1:
        inner = [folders[1:] for folders in inner]
    names = sorted({folders[0] for folders in inner if folders})
    if not names:
        return None, []
    if not all(inner):
        beside = sum(not folders for folders in inner)
        verb = "lies" if beside == 1 else "lie"
        return None, [f"no classes: {counted(beside, 'file')} {verb} beside the folders {listed(names)}"]
    labels = [folders[0] for folders in inner]
    notes = [f"{len(names)} classes, the folders {listed(names, 10)}"]
    if parts.held_out:
        training = set(labels[: len(parts.training)])
        for where, some in (("held out", set(labels[len(parts.training) :]) - training),
                            ("trained on", training - set(labels[len(parts.training) :]))):  # fmt: skip
            if some:
                notes.append(f"only {where}: {listed(sorted(some))}")
    return labels, notes


def once(parts: Parts, labels: list[str] | None) -> tuple[Parts, list[str] | None]:
    """Returns the parts with one entry for each file, without further links to it.

    Raises:
        ValueError: if a file is in two splits or two classes.
    """
    files, seen = parts.training + parts.held_out, {}
    for n, file in enumerate(files):
        stat = file.path.stat()
        seen.setdefault((stat.st_dev, stat.st_ino), []).append(n)
    border = len(parts.training)
    for same in seen.values():
        first = same[0]
        for n in same[1:]:
            both_splits = (n < border) != (first < border)
            if both_splits or (labels is not None and labels[n] != labels[first]):
                raise ValueError(
                    f"{files[first].local} and {files[n].local} in {files[n].path} are one file through a link, in two "
                    f"{'splits' if both_splits else 'classes'}: remove one of them"
                )
    kept = sorted(same[0] for same in seen.values())
    if len(kept) == len(files):
        return parts, labels
    further = counted(len(files) - len(kept), "further link to the same file", "further links to the same files")
    chosen = Parts(
        [files[n] for n in kept if n < border],
        [files[n] for n in kept if n >= border],
        [*parts.notes, f"{further} left out"],
    )
    return chosen, None if labels is None else [labels[n] for n in kept]
