"""Samples that are drawn once and kept: a larger count adds to them, a killed run goes on where it was.

    FOLDER/samples-<hash>/description.yaml            what decides them
    FOLDER/samples-<hash>/000000000-000000512.npz     x of the samples numbered 0 ... 511, in the data's own units; the
                                                      evaluations and the seconds that they cost

Sample number i is a function of what decides all of them and of i (:mod:`scoresde.sde_lib.noise`), so that they can be
drawn in any pieces. Each file is written under another name and then renamed: it is whole or absent. A lock on the
folder makes a second run wait for the first, and take what that one drew.
"""

import contextlib
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock, Timeout

from scoresde.training.store import digest

log = logging.getLogger(__name__)

Draw = Callable[[int, int], tuple[np.ndarray, int]]
"""(first, size) -> the samples numbered first ... first + size - 1, (size, *), and how many evaluations they took."""


@dataclass(frozen=True)
class Kept:
    """Samples, and what they cost.

    Attributes:
        x: (N, *), as files hold them.
        evaluations: of the network for all of them.
        seconds: that drawing them took, whichever runs did.
        drawn: how many of them this run drew.
    """

    x: np.ndarray
    evaluations: int
    seconds: float
    drawn: int


class Gallery:
    """The samples of one description.

    Arguments:
        root: the folder in which theirs is, or will be.
        described: plain values, what decides them.
    """

    def __init__(self, root: Path | str, described: dict[str, Any]):
        self.described = described
        self.folder = Path(root) / f"samples-{digest(described)}"

    def obtain(self, count: int, piece: int, draw: Draw, clock: Callable[[], float]) -> Kept:
        """The first ``count`` samples: those that are there, and the rest drawn, a file for each ``piece`` of them.

        Raises:
            OSError: the folder cannot be written.
        """
        if (there := self.found(count)) is not None:
            return there
        try:
            with self.lock():
                for stale in self.folder.glob(".partial-*"):  # a killed run's
                    stale.unlink()
                found = self.read(count, mend=True)  # by the process that was waited for
                first = there = sum(len(x) for x, _, _ in found)
                if there:
                    log.info("%s of %s samples were drawn before: %s", f"{there:,}", f"{count:,}", self.folder)
                while first < count:
                    size, began = min(piece, count - first), clock()
                    x, evaluations = draw(first, size)
                    found.append((x, evaluations, clock() - began))
                    self.write(first, *found[-1])
                    first += size
        except OSError as error:
            raise OSError(
                f"the samples' folder {self.folder} cannot be written ({error.strerror or error}); choose another "
                f"place with store=FOLDER, or copy the network of checkpoint= to where you may write"
            ) from error
        return gather(found, count, count - there)

    def found(self, count: int) -> Kept | None:
        """The first ``count`` samples where all of them were drawn before."""
        found = self.read(count)
        if sum(len(x) for x, _, _ in found) < count:
            return None
        log.info("found %s samples that were drawn before in %s", f"{count:,}", self.folder)
        return gather(found, count, 0)

    @contextlib.contextmanager
    def lock(self):
        """Within it this process alone draws; another one is waited for."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another process is drawing these samples (%s); waiting for it", self.folder)
            lock.acquire()
        try:
            text = self.folder / "description.yaml"
            if not text.exists():
                text.write_text(yaml.safe_dump(self.described, sort_keys=False))
            yield
        finally:
            lock.release()

    def read(self, count: int, mend: bool = False) -> list[tuple[np.ndarray, int, float]]:
        """The files that hold the first ``count`` samples, as far as there are any: x, evaluations and seconds of each.

        ``mend`` removes a file that is not what was written, and those after it; it wants the lock.
        """
        found, first = [], 0
        for path in sorted(self.folder.glob("[0-9]*.npz")):
            if first >= count:
                break
            try:
                with np.load(path) as file:
                    x, cost = file["x"], (int(file["evaluations"]), float(file["seconds"]))
                if path.name != name_of(first, len(x)):
                    raise ValueError(f"it should begin at sample {first}")
            except FileNotFoundError:  # mended by another process
                break
            except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
                if not mend:
                    break
                log.warning("%s is not what was written (%s): it is drawn again, with those after it", path, error)
                for damaged in sorted(self.folder.glob("[0-9]*.npz")):
                    if damaged.name >= path.name:
                        damaged.unlink()
                break
            found.append((x, *cost))
            first += len(x)
        return found

    def write(self, first: int, x: np.ndarray, evaluations: int, seconds: float) -> None:
        final = self.folder / name_of(first, len(x))
        partial = self.folder / f".partial-{final.name}"
        np.savez(partial, x=x, evaluations=evaluations, seconds=seconds)
        partial.replace(final)


def name_of(first: int, size: int) -> str:
    """Of the file of so many samples from one on."""
    return f"{first:09d}-{first + size:09d}.npz"


def gather(found: list[tuple[np.ndarray, int, float]], count: int, drawn: int) -> Kept:
    """One set of samples; where there are more than were asked for, the cost is its share."""
    x = np.concatenate([part for part, _, _ in found])
    share = count / len(x)
    return Kept(x[:count], sum(e for _, e, _ in found) * share, share * sum(s for _, _, s in found), drawn)
