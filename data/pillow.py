"""PIL, the library that decodes pictures: imports it on demand, collects its warnings, names files in its errors."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# formats whose files PIL recognises but cannot read by itself
FOREIGN = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}


def pillow() -> tuple[Any, Any]:
    """Returns PIL's modules Image and ImageOps, imported only where images are read."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("reading images needs pillow: pip install -e .[images]") from error
    return Image, ImageOps


@cache
def suffixes() -> frozenset[str]:
    """Returns the suffixes, in lower case, of the files that the installed PIL can read."""
    Image, _ = pillow()
    Image.init()
    readable = {name for name in Image.OPEN if name not in FOREIGN} | {"MPO"}  # which the format JPEG opens
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


@contextmanager
def quiet() -> Iterator[list]:
    """Collects warnings in the list that it yields, silences PIL's log, and lifts PIL's limit on sizes, which
    :func:`scoresde.data.picture_size.plausible` replaces.
    """
    Image, _ = pillow()
    limit, log = Image.MAX_IMAGE_PIXELS, logging.getLogger("PIL")
    Image.MAX_IMAGE_PIXELS, level = None, log.level
    log.setLevel(logging.CRITICAL)  # what PIL logs as an error it raises as well
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield warned
    finally:
        Image.MAX_IMAGE_PIXELS = limit
        log.setLevel(level)


class naming:
    """A context that turns any error, such as PIL's on a damaged file, into a ValueError that names the file."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception):
            return
        if isinstance(error, MemoryError):
            reason = "the memory is too small for it"
        elif type(error).__name__ == "UnidentifiedImageError":
            reason = "no format that PIL knows"
        else:
            reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{self.name} cannot be read as an image ({reason}): save it anew or leave it out") from error
