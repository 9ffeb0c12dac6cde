"""The size of a picture: whether its header can be right, cropping and resizing."""

import os
from typing import Any

import numpy as np

from scoresde.data.pillow import pillow

LARGE = 2**27  # pixels above which a picture must be plausible before memory is taken for it
# the most bytes of pixels that a byte of a compressed file may stand for: deflate reaches about 1030, and other codecs
# more for a picture of one colour, which is then refused as nearly empty
DENSEST = 1100


def plausible(image: Any, content: Any, name: str) -> None:
    """Raises a ValueError for a picture without pixels, and for one of more than LARGE pixels if its header claims more
    than its bytes or the memory can hold.

    Without this check a file of sixty bytes could claim a million times a million pixels, and memory for them.

    Arguments:
        image: a PIL image that is not yet decoded.
        content: the bytes of its file.
        name: the file, for messages.
    """
    width, height = image.size
    if min(width, height) < 1:
        raise ValueError(f"{name} has {width} x {height} pixels: save it anew or leave it out")
    if width * height <= LARGE:
        return
    bits = {"1": 1, "L": 8, "P": 8, "LA": 16, "PA": 16, "RGB": 24}.get(image.mode, 16 if "16" in image.mode else 32)
    size = width * height * bits / 8
    codecs = {entry[0] for entry in image.tile}
    if size > len(content) * (1 if codecs == {"raw"} else DENSEST):
        raise ValueError(
            f"{name} claims {width} x {height} pixels and has {len(content)} bytes: it is damaged, or nearly empty; "
            f"save it anew or leave it out"
        )
    taken = width * height * (1 if image.mode in ("1", "L", "P") else 2 if "16" in image.mode else 4)
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return
    if 2 * taken > memory:  # PIL's image, and a copy of it
        raise ValueError(
            f"{name} has {width} x {height} pixels, which take {2 * taken / 1e9:.0f} GB, and the memory has "
            f"{memory / 1e9:.0f} GB: cut it into parts or save it smaller"
        )


def centre(size: tuple[int, int], shape: Any, name: str) -> tuple[int, int, int, int]:
    """Returns the box (left, top, right, bottom) of ``shape`` [height, width] round the centre of a picture (W, H);
    raises a ValueError if the picture is smaller.
    """
    height, width = shape
    if size[0] < width or size[1] < height:
        raise ValueError(
            f"`crop`={[height, width]}: {name} has {size[1]} x {size[0]} pixels: type a smaller `crop`, or leave it out"
        )
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def largest_part(size: tuple[int, int], shape: Any) -> tuple[int, int, int, int]:
    """Returns the box of the largest part round the centre with the aspect ratio of ``shape`` [height, width], up to
    rounding to whole pixels.
    """
    height, width = shape
    scale = min(size[0] / width, size[1] / height)
    w, h = max(1, round(scale * width)), max(1, round(scale * height))
    left, top = (size[0] - w) // 2, (size[1] - h) // 2
    return left, top, left + w, top + h


def bicubic() -> Any:
    """Returns PIL's constant for bicubic resampling."""
    return pillow()[0].Resampling.BICUBIC


def part(values: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Returns the part of values (H, W, C) in a box (left, top, right, bottom)."""
    return values[box[1] : box[3], box[0] : box[2]]


def resized(values: np.ndarray, height: int, width: int, top: int) -> np.ndarray:
    """Returns integers (H, W, C) at another size: bicubic in float32, then rounded and clipped to 0 ... top."""
    if values.shape[:2] == (height, width):
        return values
    Image, _ = pillow()
    planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in np.moveaxis(values, -1, 0)]
    planes = [np.asarray(plane.resize((width, height), bicubic())) for plane in planes]
    return np.rint(np.stack(planes, -1)).clip(0, top).astype(np.int32)
