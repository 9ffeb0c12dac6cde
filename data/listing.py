"""The files below a folder: pictures, tables, and what is left out."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class File:
    """A file below the folder that the user named.

    Attributes:
        path: the absolute path.
        local: the path below that folder, with slashes.
        folders: the folders on the local path; after :func:`scoresde.data.splits.parts`, without the split's folder.
    """

    path: Path
    local: str
    folders: tuple[str, ...] = ()


@dataclass
class Listing:
    """The files below a folder that can be read, and the local paths of what is left out.

    Attributes:
        tables, pictures: the files that can be read: parquet files, and files with a suffix that PIL reads.
        hidden: files and folders whose names begin with a point.
        other: other files.
        broken: links to what does not exist, or to themselves.
        loops: links to a folder above the link.
        empty: folders without tables and pictures; of those in one another, the topmost.
        linked: whether any entry is a symbolic link.
    """

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
        """Returns a clause for each kind of entry left out."""
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
        folder: the absolute path of a folder or a file.
        suffixes: returns the suffixes of pictures, in lower case; called only where there are files that are no tables.

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
    """Adds the files of a folder and of the folders in it to ``found``.

    Arguments:
        folders: the names of the folders from the top to this one.
        above: the real paths of the folders above; a link to one of them would be a cycle.
        found: the listing.
        suffixes: as in :func:`listing`.
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


def listed(names: Collection[str], most: int = 3) -> str:
    """Returns the first ``most`` names, separated by commas."""
    return ", ".join(list(names)[:most]) + (", ..." if len(names) > most else "")


def counted(count: int, what: str, more: str = "") -> str:
    """Returns a number with its noun, "1 hidden file", "2 hidden files"; ``more`` is an irregular plural."""
    return f"{count} {what if count == 1 else more or what + 's'}"
