"""Checksums of the files that a store keeps, each in a file ``NAME.sha256`` beside it, for ``sha256sum --check``.

A file is written under another name. Its checksum is put in place, and then the file is renamed: so a new file is whole
or absent, and never without its checksum. Flipped bits, which most formats do not notice, are found when it is read.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from scoresde.data.files import sha256


def write(path: Path, save: Callable[[BinaryIO], object]) -> None:
    """Writes a file and its checksum.

    Arguments:
        save: writes the content to an open file.

    Raises:
        OSError: it cannot be written; an earlier file of this name may be without a checksum that fits.
    """
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            save(file)
        add(path, sha256(partial))
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def add(path: Path, total: str) -> None:
    """Writes the checksum of a file; ``total`` is the hash of its content."""
    beside = checksum_of(path)
    partial = partial_of(beside)
    partial.write_bytes(line(path, total))
    partial.replace(beside)


def verify(path: Path) -> bool:
    """Returns True for a file that is what was written, and False for one of an earlier version, without a checksum.

    Raises:
        ValueError: the file or its checksum is damaged.
        OSError: the file is absent or cannot be read.
    """
    try:
        written = checksum_of(path).read_bytes()
    except FileNotFoundError:
        return False
    if written != line(path, sha256(path)):
        raise ValueError(f"its sha256 differs from {checksum_of(path).name}")
    return True


def remove(path: Path) -> None:
    """Removes a file and its checksum, where they are there."""
    path.unlink(missing_ok=True)
    checksum_of(path).unlink(missing_ok=True)


def checksum_of(path: Path) -> Path:
    """Returns the path of a file's checksum."""
    return path.with_name(f"{path.name}.sha256")


def partial_of(path: Path) -> Path:
    """Returns the path under which this process writes a file before it is renamed."""
    return path.with_name(f".partial-{os.getpid()}-{path.name}")


def line(path: Path, total: str) -> bytes:
    """Returns the content of a checksum's file, with the file's name, so that files that change places are found."""
    return f"{total}  {path.name}\n".encode()
