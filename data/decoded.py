"""The cache of decoded pixels: where decoding took long, the next run reads the pixels from a file, once its checksum
fits.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from scoresde.data import checksum

log = logging.getLogger(__name__)

LONG = 5.0  # seconds of decoding from which on the pixels are cached


def decoded_once(
    folder: str | None, key: str, decode: Callable[[], tuple[np.ndarray, list[str]]]
) -> tuple[np.ndarray, list[str]]:
    """Returns the array and the notes of ``decode()``, or those that an earlier call cached.

    Arguments:
        folder: the cache; None for no cache.
        key: everything that the array depends on; its hash names the file.
        decode: returns the array and the notes; called only if the cache has none, or a file that is damaged or, of an
            earlier version, without a checksum. Such a file is written anew.
    """
    path = None if folder is None else Path(folder) / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.npy"
    unusable = path is not None and path.exists()
    if unusable:
        try:
            if not checksum.verify(path):
                raise ValueError("it has no checksum")
            with path.open("rb") as file:  # two arrays, one after the other
                return np.load(file, allow_pickle=False), np.load(file, allow_pickle=False).tolist()
        except (OSError, ValueError, EOFError) as error:
            log.warning("%s cannot be used (%s): the images are decoded anew", path, error)
    started = time.monotonic()
    pixels, notes = decode()
    seconds = time.monotonic() - started
    if path is None or (seconds < LONG and not unusable):
        return pixels, notes

    def save(file: BinaryIO) -> None:
        np.save(file, pixels)
        np.save(file, np.array(notes, dtype=str))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checksum.write(path, save)
    except OSError as error:  # the cache is optional: a full disk does not stop a run
        log.warning("the decoded pixels could not be kept in %s (%s)", path, error.strerror or error)
        return pixels, notes
    log.info(
        "decoding took %.0f s: the pixels are kept in %s (%.0f MB), which may be removed; data.cache=null keeps none",
        seconds,
        path,
        pixels.nbytes / 1e6,
    )
    return pixels, notes
