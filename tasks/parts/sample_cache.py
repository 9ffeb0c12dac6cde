"""A cache of samples: they are drawn once, a larger count adds to them, and a killed run resumes after its last file.

    FOLDER/samples-<hash>/description.yaml            the cache key: all that the samples depend on
    FOLDER/samples-<hash>/000000000-000000512.npz     x of the samples numbered 0 ... 511, in the data's own units; the
                                                      evaluations and the seconds that they cost
    FOLDER/samples-<hash>/*.npz.sha256                the checksum of each (:mod:`scoresde.data.checksum`)

Sample number i is a function of the cache key and of i (:mod:`scoresde.sde_lib.noise`), so samples can be drawn in any
pieces. Each file is whole or absent, and verified when it is read; one that is damaged is drawn again. A file without a
checksum, which an earlier version wrote, is verified by the CRC of its format and gets one. A lock on the folder makes
a second run wait for the first and use its samples.
"""

import contextlib
import logging
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock, Timeout

from scoresde.data import checksum
from scoresde.data.files import sha256
from scoresde.training.store import digest

log = logging.getLogger(__name__)

DAMAGED = (zipfile.BadZipFile, ValueError, KeyError, EOFError, RuntimeError, OverflowError, struct.error, zlib.error)
"""What reading a damaged .npz raises."""

Draw = Callable[[int, int], tuple[np.ndarray, int]]
"""Maps (first, size) to the samples numbered first ... first + size - 1, (size, *), and the evaluations they took."""


@dataclass(frozen=True)
class CachedSamples:
    """Samples, and what they cost.

    Attributes:
        x: (N, *), as files hold them.
        evaluations: the evaluations of the network for all of them. Where the last file holds more samples, those of
            all files are multiplied by the share of the samples returned.
        seconds: the time that drawing them took, in whichever runs; shared likewise.
        drawn: how many of them this run drew.
    """

    x: np.ndarray
    evaluations: float
    seconds: float
    drawn: int


class SampleCache:
    """The cached samples of one cache key.

    Arguments:
        root: the folder that holds their folder.
        described: the cache key, in plain values.
    """

    def __init__(self, root: Path | str, described: dict[str, Any]):
        self.described = described
        self.folder = Path(root) / f"samples-{digest(described)}"

    def obtain(self, count: int, piece: int, draw: Draw, clock: Callable[[], float]) -> CachedSamples:
        """Returns the first ``count`` samples. Those that are absent are drawn, and written ``piece`` samples a file.

        Arguments:
            draw: draws the samples numbered first ... first + size - 1; see :data:`Draw`.
            clock: returns the time in seconds.

        Raises:
            OSError: the folder cannot be written.
        """
        if (cached := self.found(count)) is not None:
            return cached
        try:
            with self.lock():
                for stale in self.folder.glob(".partial-*"):  # a killed run left it
                    stale.unlink()
                found = self.read(count, mend=True)  # again, since another process may have drawn meanwhile
                first = before = sum(len(x) for x, _, _ in found)
                if before:
                    log.info("%s of %s samples were drawn before: %s", f"{before:,}", f"{count:,}", self.folder)
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
        return gather(found, count, max(0, count - before))  # another process may have drawn more than count

    def found(self, count: int) -> CachedSamples | None:
        """Returns the first ``count`` samples if all of them are in the cache, and logs so; else None."""
        found = self.read(count)
        if sum(len(x) for x, _, _ in found) < count:
            return None
        log.info("found %s samples that were drawn before in %s", f"{count:,}", self.folder)
        return gather(found, count, 0)

    @contextlib.contextmanager
    def lock(self):
        """Locks the folder, so that one process draws at a time, and waits while another does; writes the cache key."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another process is drawing these samples (%s); waiting for it", self.folder)
            lock.acquire()
        try:
            self.describe()
            yield
        finally:
            lock.release()

    def describe(self) -> None:
        """Writes the cache key as description.yaml, where that is absent or not what was written."""
        path, text = self.folder / "description.yaml", yaml.safe_dump(self.described, sort_keys=False).encode()
        absent = not path.exists()
        if absent or path.read_bytes() != text:
            if not absent:
                log.warning("%s is not what was written: it is written anew", path)
            partial = self.folder / ".partial-description.yaml"
            partial.write_bytes(text)
            partial.replace(path)

    def read(self, count: int, mend: bool = False) -> list[tuple[np.ndarray, int, float]]:
        """Reads the files that hold the first ``count`` samples, up to the first that is absent or damaged; returns x,
        evaluations and seconds of each file.

        Arguments:
            mend: whether a damaged file and those after it are removed; the caller must hold the lock.
        """
        found, first = [], 0
        for path in sorted(self.folder.glob("[0-9]*.npz")):
            if first >= count:
                break
            try:
                summed = checksum.verify(path)
                if not summed:
                    require_crc(path)
                with np.load(path) as file:
                    x, cost = file["x"], (int(file["evaluations"]), float(file["seconds"]))
                if path.name != name_of(first, len(x)):
                    raise ValueError(f"it should begin at sample {first}")
                if not summed:
                    with contextlib.suppress(OSError):  # a read-only store stays as it is
                        checksum.add(path, sha256(path))
            except FileNotFoundError:  # another process removed it
                break
            except DAMAGED as error:
                if not mend:
                    break
                log.warning("%s is not what was written (%s): it is drawn again, with those after it", path, error)
                for damaged in sorted(self.folder.glob("[0-9]*.npz")):
                    if damaged.name >= path.name:
                        checksum.remove(damaged)
                break
            found.append((x, *cost))
            first += len(x)
        return found

    def write(self, first: int, x: np.ndarray, evaluations: int, seconds: float) -> None:
        """Writes the file of the samples from number ``first`` on."""
        values = {"x": x, "evaluations": evaluations, "seconds": seconds}
        checksum.write(self.folder / name_of(first, len(x)), lambda file: np.savez(file, **values))


def require_crc(path: Path) -> None:
    """Raises one of :data:`DAMAGED` unless each array of an .npz fits its CRC.

    numpy does not compare it if a damaged header makes an array shorter.
    """
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the CRC of {name} differs")


def name_of(first: int, size: int) -> str:
    """Returns the name of the file of ``size`` samples from number ``first`` on."""
    return f"{first:09d}-{first + size:09d}.npz"


def gather(found: list[tuple[np.ndarray, int, float]], count: int, drawn: int) -> CachedSamples:
    """Joins the samples of files and returns the first ``count`` of them, with their share of the cost.

    Arguments:
        found: x, evaluations and seconds of each file.
        drawn: the number of samples that this run drew.
    """
    x = np.concatenate([part for part, _, _ in found])
    share = count / len(x)
    evaluations, seconds = sum(e for _, e, _ in found), sum(s for _, _, s in found)
    return CachedSamples(x[:count], evaluations * share, share * seconds, drawn)
