r"""Reads the numbers of pictures of more than 8 bits a channel.

PIL's colour modes hold 8 bits a channel and keep the high byte of each number of two bytes. A second reading with the
two bytes exchanged keeps the low byte, so that

.. math:: k = 256\, k_{high} + k_{low}.
"""

import re
import sys
from collections import Counter
from typing import Any

import numpy as np

from scoresde.data.picture_file import Opened, upright
from scoresde.data.picture_range import raw_mode
from scoresde.data.pillow import naming

DEEP = ("PNG", "TIFF", "PPM")  # formats that are read with more than 8 bits a channel
COLOUR = ("RGB", "RGBA")
PHOTOMETRIC, PLANAR, EXTRA_SAMPLES = 262, 284, 338  # tags of TIFF


def deep(opened: Opened, number: int, white: int, done: Counter) -> tuple[np.ndarray, str]:
    """Returns the numbers (H, W, C), int32, of a picture of more than 8 bits a channel, and rgb or grey.

    Arguments:
        opened: the file.
        number: the page, from 0.
        white: the value of the white that transparent pixels are shown on.
        done: counts of conversions, to which this picture's are added.

    Raises:
        ValueError: PIL cannot read the picture, or not in more than 8 bits.
    """
    name, image = opened.name, opened.page(number)
    refuse_unreadable(image, name)
    with naming(name):
        if image.format == "PPM":
            return ppm_values(image, opened.content)
        key = image.info.get("transparency")  # the colour that a PNG declares transparent
        values, alpha, premultiplied = two_bytes(opened, number, image, done)
    if key is not None and alpha is None and not isinstance(key, bytes):
        alpha = np.where((values == np.array(key)).all(-1), 0, 65535)
    if alpha is not None:
        opacity = alpha[..., None] / 65535
        shown = (values if premultiplied else values * opacity) + (1 - opacity) * white
        values = np.rint(shown).astype(np.int32)
        done["with transparency, shown on white"] += 1
    return values, "grey" if values.shape[-1] == 1 else "rgb"


def refuse_unreadable(image: Any, name: str) -> None:
    """Raises a ValueError for a picture whose low bytes PIL cannot read, or reads wrongly."""
    if image.format not in DEEP:
        raise ValueError(
            f"{name} has more than 8 bits a channel, of which PIL reads 8 in a {image.format} file: save it as PNG or "
            f"TIFF"
        )
    if image.format == "TIFF":
        if image.tag_v2.get(PHOTOMETRIC) == 0:
            raise ValueError(f"{name} has more than 8 bits a channel and shows 0 as white: save it with 0 as black")
        compressed = image.tile and image.tile[0][0] == "libtiff"
        if image.tag_v2.get(PLANAR) == 2 and compressed and image.mode in COLOUR:
            raise ValueError(
                f"{name} has more than 8 bits a channel and holds each channel by itself (planar), compressed: save it "
                f"without compression, or with its channels side by side"
            )
    if image.mode not in COLOUR and not image.mode.startswith("I"):
        raise ValueError(
            f"{name} has more than 8 bits a channel in the colours {image.mode}: save it as rgb or grey, or convert it "
            f"to 8 bits"
        )


def two_bytes(opened: Opened, number: int, image: Any, done: Counter) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Returns the numbers (H, W, C) of a PNG or TIFF page, int32; its opacity 0 ... 65535 (H, W), or None; and whether
    the file's numbers are multiplied by the opacity.
    """
    if image.mode.startswith("I"):
        return np.asarray(upright(image, done)).astype(np.int32)[..., None], None, False
    if raw_mode(image).startswith("LA"):  # four bytes a pixel, which PIL hands out as they are
        retile(image, lambda given: "RGBA")
        pair = np.asarray(upright(image, done)).astype(np.int32)
        return pair[..., :1] * 256 + pair[..., 1:2], pair[..., 2] * 256 + pair[..., 3], False
    premultiplied = image.format == "TIFF" and 1 in image.tag_v2.get(EXTRA_SAMPLES, ())  # 1: associated alpha
    halves = []  # the high bytes, then the low ones
    for order in "BL" if big_endian(image) else "LB":
        half = image if not halves else opened.page(number, again=True)
        # RGBA in place of RGBa, which PIL would divide by the opacity
        retile(half, lambda given, order=order: f"{given.partition(';')[0].replace('a', 'A')};16{order}")
        halves.append(np.asarray(upright(half, Counter() if halves else done)).astype(np.int32))
    values = halves[0] * 256 + halves[1]
    if values.shape[-1] == 4:
        return values[..., :3], values[..., 3], premultiplied
    return values, None, premultiplied


def retile(image: Any, raw: Any) -> None:
    """Makes PIL decode a picture's bytes in another order; ``raw`` maps PIL's name for an order to that of another."""
    image.tile = [
        entry._replace(args=raw(entry[3]) if isinstance(entry[3], str) else (raw(entry[3][0]), *entry[3][1:]))
        for entry in image.tile
    ]


def big_endian(image: Any) -> bool:
    """Returns whether a number's high byte comes first in the bytes that PIL's decoder reads."""
    if image.format != "TIFF":
        return True
    if image.tile[0][0] == "libtiff":  # which hands out the machine's own order
        return sys.byteorder == "big"
    return image.tag_v2.prefix == b"MM"


def ppm_values(image: Any, content: Any) -> tuple[np.ndarray, str]:
    """Returns the numbers (H, W, C), int32, of a PGM or PPM file as the file holds them, and rgb or grey; PIL would
    rescale them. Raises an OSError if some are missing.
    """
    codec, _, offset, _ = image.tile[0]
    channels = 3 if image.mode == "RGB" else 1
    count = image.width * image.height * channels
    data = bytes(memoryview(content)[offset:])
    if codec == "ppm_plain":
        values = np.array(re.sub(rb"#[^\r\n]*", b"", data).split()[:count], dtype=np.int32)
    else:
        values = np.frombuffer(data, ">u2", min(count, len(data) // 2)).astype(np.int32)
    if len(values) < count:
        raise OSError("image file is truncated")
    return values.reshape(image.height, image.width, channels), "grey" if channels == 1 else "rgb"
