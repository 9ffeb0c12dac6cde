"""Reads one picture: from the bytes of a file to integers 0 ... L-1, upright, shown on white, cropped and resized.

Pictures of up to 8 bits a channel are PIL images until they are cropped and resized. Pictures of more bits, and those
of which the file's own numbers are wanted, become arrays first: these are resized channel by channel in float32, which
holds every integer below 2^24.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from scoresde.data.deep_picture import deep
from scoresde.data.picture_file import Opened, upright
from scoresde.data.picture_range import largest, refuse_beyond
from scoresde.data.picture_size import bicubic, centre, largest_part, part, plausible, resized
from scoresde.data.pillow import naming, pillow

MODES = {"rgb": "RGB", "grey": "L"}
GREY = ("1", "L", "LA", "La")  # PIL's modes of grey pictures of up to 8 bits
PALETTE = ("P", "PA")  # PIL's modes of pictures whose numbers are places in a palette of colours
# formats whose further frames are not further examples, mostly animations
ANIMATED = ("AVIF", "FLI", "GIF", "MPO", "PNG", "WEBP")


@dataclass(frozen=True)
class Wanted:
    """The form that pictures are converted to.

    Attributes:
        channels: auto, rgb or grey.
        crop: [height, width] that is cut out round the centre, or None.
        size: [height, width] that the rest is cropped and resized to, or None.
        levels: L, if the file's own numbers 0 ... L-1 are wanted; None and 256 for 8 bits, where 0 is black and 255
            white.
    """

    channels: str = "auto"
    crop: tuple[int, int] | list[int] | None = None
    size: tuple[int, int] | list[int] | None = None
    levels: int | None = None


@dataclass(frozen=True)
class Picture:
    """A picture as read.

    Attributes:
        values: (C, H, W), uint8, or int32 of more than 256 levels.
        colour: rgb or grey, as in the file.
        size: (width, height) of the picture upright, or of ``crop`` where there is one.
        top: the largest number that the file's format can hold, 255 for 8 bits.
    """

    values: np.ndarray
    colour: str
    size: tuple[int, int]
    top: int


def read(opened: Opened, number: int, wanted: Wanted, done: Counter, single: bool = False) -> Picture:
    """Reads one page.

    Arguments:
        opened: the file.
        number: the page, from 0.
        wanted: what it is converted to.
        done: for each conversion the number of pictures so far, to which this picture is added.
        single: whether to refuse a TIFF of several pages.

    Raises:
        ValueError: with the file's name, what is wrong and what to do.
    """
    name, image = opened.name, opened.page(number)
    plausible(image, opened.content, name)
    if image.mode.startswith("F"):
        raise ValueError(f"{name} holds floating-point numbers: save all pictures as one array for data=arrays")
    with naming(name):
        top = largest(image, opened.content)
        count_frames(image, done, single)
    refuse_levels(top, wanted, name)

    if top > 255:
        values, colour = deep(opened, number, wanted.levels - 1, done)
        return from_values(values, colour, top, wanted, done, name)
    own_numbers = wanted.levels not in (None, 256)  # the file's, which PIL spreads over 0 ... 255
    if own_numbers and image.mode in PALETTE:
        raise ValueError(
            f"`levels`={wanted.levels}: the numbers of {name} are places in a palette of colours: save it as grey or "
            f"rgb, or type `levels`=null"
        )
    with naming(name):
        image, colour = on_white(image, done)
        values = numbers(image, colour, top) if own_numbers else None
    if own_numbers:
        return from_values(values, colour, top, wanted, done, name)
    if top < 255:
        done[f"of values 0 ... {top}, spread over 0 ... 255"] += 1
    return from_image(image, colour, top, wanted, done, name)


def count_frames(image: Any, done: Counter, single: bool) -> None:
    """Counts a picture with further frames in a format of ANIMATED; raises an EOFError for a TIFF of several pages if
    ``single`` is set.
    """
    if not getattr(image, "is_animated", False):
        return
    if image.format in ANIMATED:
        done["with several frames, of which the first is taken"] += 1
    elif single and image.format == "TIFF":
        raise EOFError(f"it has {image.n_frames} pages and stands for one example")


def refuse_levels(top: int, wanted: Wanted, name: str) -> None:
    """Raises a ValueError unless the levels that are wanted fit ``top``, the largest number of the file's format."""
    if top > 255 and wanted.levels is None:
        raise ValueError(
            f"{name} has more than 8 bits a channel, values up to {top}: type `levels`={min(top + 1, 2**16)} to "
            f"keep them, or convert it to 8 bits"
        )
    if top <= 255 and wanted.levels is not None and wanted.levels > 256:
        raise ValueError(
            f"`levels`={wanted.levels} is for pictures of more than 8 bits a channel, and {name} has values up to "
            f"{top}: type `levels`=null"
        )


def on_white(image: Any, done: Counter) -> tuple[Any, str]:
    """Returns a PIL image of up to 8 bits, decoded, upright and opaque, and rgb or grey, the colours of the file."""
    palette = image.mode in PALETTE
    image = upright(image, done)
    colour = "grey" if image.mode in GREY else "rgb"
    if palette:
        done["with a palette, read as rgb"] += 1
    elif colour == "rgb" and image.mode not in ("RGB", "RGBA", "RGBX", "RGBa"):
        done[f"of the colours {image.mode}, converted to rgb"] += 1
    if image.has_transparency_data:
        canvas = pillow()[0].new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
        done["with transparency, shown on white"] += 1
    return image, colour


def numbers(image: Any, colour: str, top: int) -> np.ndarray:
    """Returns the numbers 0 ... top of a picture's file (H, W, C), int32, which PIL has spread over 0 ... 255."""
    values = np.asarray(image.convert(MODES[colour])).astype(np.int32)
    values = values[..., None] if values.ndim == 2 else values
    return np.rint(values * (top / 255)).astype(np.int32)


def channels_of(colour: str, wanted: Wanted, done: Counter) -> str:
    """Returns the channels that a picture is converted to, rgb or grey, and counts the conversion."""
    channels = colour if wanted.channels == "auto" else wanted.channels
    if channels != colour:
        done["of colour, read as grey" if colour == "rgb" else "of greys, read as rgb"] += 1
    return channels


def from_image(image: Any, colour: str, top: int, wanted: Wanted, done: Counter, name: str) -> Picture:
    """Returns the picture of an opaque PIL image of 8 bits: recoloured, cropped and resized by PIL."""
    channels = channels_of(colour, wanted, done)
    if wanted.crop is not None:
        image = image.crop(centre(image.size, wanted.crop, name))
    size = image.size
    with naming(name):
        image = image if image.mode == MODES[channels] else image.convert(MODES[channels])
        if wanted.size is not None:
            height, width = wanted.size
            image = image.crop(largest_part(image.size, wanted.size))
            image = image if image.size == (width, height) else image.resize((width, height), bicubic())
        values = np.asarray(image)
    values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return Picture(values, colour, size, top)


def from_values(values: np.ndarray, colour: str, top: int, wanted: Wanted, done: Counter, name: str) -> Picture:
    """Returns the picture of integers (H, W, C): recoloured, cropped and resized as arrays."""
    channels = channels_of(colour, wanted, done)
    refuse_beyond(values, wanted.levels, name)
    values = recoloured(values, channels)
    if wanted.crop is not None:
        values = part(values, centre(values.shape[1::-1], wanted.crop, name))
    size = values.shape[1::-1]
    if wanted.size is not None:
        values = resized(part(values, largest_part(size, wanted.size)), *wanted.size, wanted.levels - 1)
    kind = np.uint8 if wanted.levels <= 256 else np.int32
    return Picture(values.transpose(2, 0, 1).astype(kind), colour, size, top)


def recoloured(values: np.ndarray, channels: str) -> np.ndarray:
    """Returns values (H, W, C) as rgb or grey, grey by PIL's weights of red, green and blue (ITU-R 601-2)."""
    if channels == "rgb":
        return np.repeat(values, 3, -1) if values.shape[-1] == 1 else values
    if values.shape[-1] == 1:
        return values
    return (values.astype(np.int64) @ np.array([[19595], [38470], [7471]]) + 2**15 >> 16).astype(np.int32)
