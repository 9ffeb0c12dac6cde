r"""One picture: from the bytes of a file to whole numbers 0 ... L-1, upright, shown on white, cropped and resized.

Pictures of up to 8 bits a channel stay PIL's from end to end. Pictures of more are read whole: PIL's colour modes hold
8 bits and keep the high byte of each number; read again with the two bytes exchanged they keep the low byte, so that

.. math:: k = 256\, k_{high} + k_{low}.

These are then cropped and resized as arrays, channel by channel in float32, which holds every integer below 2^24.
"""

import logging
import math
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np

MODES = {"rgb": "RGB", "grey": "L"}
GREY = ("1", "L", "LA", "La")
# formats whose files PIL recognises but cannot read by itself
FOREIGN = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
DEEP = ("PNG", "TIFF", "PPM")  # formats that are read with more than 8 bits a channel
ANIMATED = ("AVIF", "FLI", "GIF", "MPO", "PNG", "WEBP")
LARGE = 2**27  # pixels above which a picture must be plausible before memory is taken for it
DENSEST = 1100  # bytes of pixels a byte of a file: deflate and LZW reach about 1030
REDUCED, MASK = 1, 4  # bits of a TIFF page's NewSubfileType: copies of another page
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def pillow() -> tuple[Any, Any]:
    """Returns PIL's modules Image and ImageOps; imported only where images are read."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("reading images needs pillow: pip install -e .[images]") from error
    return Image, ImageOps


@cache
def suffixes() -> frozenset[str]:
    """Returns the suffixes, in small letters, of the files that the installed PIL can read."""
    Image, _ = pillow()
    Image.init()
    readable = {name for name in Image.OPEN if name not in FOREIGN} | {"MPO"}  # which the format JPEG opens
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


@contextmanager
def quiet() -> Iterator[list]:
    """Lifts PIL's own limit on sizes, in whose place :func:`plausible` stands, and collects its warnings."""
    Image, _ = pillow()
    limit, log = Image.MAX_IMAGE_PIXELS, logging.getLogger("PIL")
    Image.MAX_IMAGE_PIXELS, level = None, log.level
    log.setLevel(logging.CRITICAL)  # what it reports is raised as well
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield warned
    finally:
        Image.MAX_IMAGE_PIXELS = limit
        log.setLevel(level)


class naming:
    """Turns whatever PIL raises on a damaged file into a ValueError that names it."""

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


class Opened:
    """The pages of one file's bytes, as PIL images that are not yet decoded.

    Arguments:
        name: of the file, for messages.
        content: its bytes, or a buffer of them.
    """

    def __init__(self, name: str, content: Any):
        self.name, self.content = name, content
        self._images: dict[bool, Any] = {}

    def page(self, number: int, again: bool = False) -> Any:
        """Returns a page by its number from 0; with ``again`` independent of what was loaded before."""
        if len(self.content) == 0:
            raise ValueError(f"{self.name} is empty (0 bytes): save it anew or leave it out")
        with naming(self.name):
            image = self._images.get(again)
            if image is None:
                image = self._images[again] = pillow()[0].open(BytesIO(self.content))
            if image.tell() != number:
                image.seek(number)
        return image

    def pages(self) -> tuple[list[int], int]:
        """Returns the numbers of a TIFF's pages that are pictures, and how many are copies of others (reduced, masks).

        Raises:
            ValueError: where the pages have several sizes, as a pyramid's or those of a picture and its thumbnail.
        """
        image = self.page(0)
        with naming(self.name):
            count = image.n_frames
        if count == 1:
            return [0], 0
        found, sizes = [], []
        for number in range(count):
            image = self.page(number)
            if not image.tag_v2.get(254, 0) & (REDUCED | MASK):
                found.append(number)
                sizes.append(image.size)
        if not found:
            raise ValueError(f"{self.name}: each of its {count} pages is marked as a copy of another: save it anew")
        for number, size in zip(found, sizes):
            if size != sizes[0]:
                raise ValueError(
                    f"{self.name}: page {number + 1} is {size[0]} x {size[1]} pixels and page {found[0] + 1} is "
                    f"{sizes[0][0]} x {sizes[0][1]} (a thumbnail, a pyramid?): save each picture as a file of its own"
                )
        return found, count - len(found)


@dataclass(frozen=True)
class Wanted:
    """How pictures are wanted.

    Attributes:
        channels: auto, rgb or grey.
        crop: [height, width] that is cut out round the centre, or None.
        size: [height, width] that the rest is cropped and resized to, or None.
        levels: L, if the file's own numbers 0 ... L-1 are wanted; None for 8 bits, of which 0 is black and 255 white.
    """

    channels: str = "auto"
    crop: tuple[int, int] | list[int] | None = None
    size: tuple[int, int] | list[int] | None = None
    levels: int | None = None


@dataclass(frozen=True)
class Picture:
    """A picture as read.

    Attributes:
        values: (C, H, W), uint8 or int32.
        colour: rgb or grey, as in the file.
        size: width and height in the file, of ``crop`` where that was asked for.
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
        number: of the page, from 0.
        wanted: what is to become of it.
        done: how often each reinterpretation was made so far; raised by this picture's.
        single: whether the file may have no other page.

    Raises:
        ValueError: with the file's name, what is wrong and what to type.
    """
    name = opened.name
    image = opened.page(number)
    plausible(image, opened.content, name)
    if image.mode.startswith("F"):
        raise ValueError(f"{name} holds floating-point numbers: save all pictures as one array for data=arrays")
    with naming(name):
        top = largest(image, opened.content)
        if getattr(image, "is_animated", False):
            if image.format in ANIMATED:
                done["with several frames, of which the first is taken"] += 1
            elif single and image.format == "TIFF":
                raise EOFError(f"it has {image.n_frames} pages and stands for one example")
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
    own = wanted.levels not in (None, 256)  # the file's numbers, which PIL would spread over 0 ... 255

    if top > 255:
        values, colour = deep(opened, number, wanted.levels - 1, done)
    else:
        palette = image.mode in ("P", "PA")
        if palette and own:
            raise ValueError(
                f"`levels`={wanted.levels}: the numbers of {name} are places in a palette of colours: save it as "
                f"grey or rgb, or type `levels`=null"
            )
        with naming(name):
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
        if own:
            values = np.asarray(image.convert(MODES[colour])).astype(np.int32)
            values = values[..., None] if values.ndim == 2 else values
            values = np.rint(values * (top / 255)).astype(np.int32)
        elif top < 255:
            done[f"of values 0 ... {top}, spread over 0 ... 255"] += 1
    channels = colour if wanted.channels == "auto" else wanted.channels
    if channels != colour:
        done["of colour, read as grey" if colour == "rgb" else "of greys, read as rgb"] += 1

    if not own and top <= 255:
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

    fits(values, wanted.levels, name)
    values = recoloured(values, channels)
    if wanted.crop is not None:
        values = part(values, centre(values.shape[1::-1], wanted.crop, name))
    size = values.shape[1::-1]
    if wanted.size is not None:
        values = resized(part(values, largest_part(size, wanted.size)), *wanted.size, wanted.levels - 1)
    kind = np.uint8 if wanted.levels <= 256 else np.int32
    return Picture(values.transpose(2, 0, 1).astype(kind), colour, size, top)


# ---- how large --------------------------------------------------------------------------------------------------


def plausible(image: Any, content: Any, name: str) -> None:
    """Refuses a picture whose header claims a size that its bytes cannot hold, or that memory cannot.

    A picture of a million times a million pixels takes sixty bytes of header; what follows shows whether it is there.
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
    if 2 * taken > memory:
        raise ValueError(
            f"{name} has {width} x {height} pixels, which take {2 * taken / 1e9:.0f} GB, and the memory has "
            f"{memory / 1e9:.0f} GB: cut it into parts or save it smaller"
        )


def centre(size: tuple[int, int], shape: Any, name: str) -> tuple[int, int, int, int]:
    """Returns the box (left, top, right, bottom) of shape [height, width] round the centre of a picture (W, H)."""
    height, width = shape
    if size[0] < width or size[1] < height:
        raise ValueError(
            f"`crop`={[height, width]}: {name} has {size[1]} x {size[0]} pixels: type a smaller `crop`, or leave it out"
        )
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def largest_part(size: tuple[int, int], shape: Any) -> tuple[int, int, int, int]:
    """Returns the box of the largest part round the centre that has the sides' ratio of ``shape`` [height, width]."""
    height, width = shape
    scale = min(size[0] / width, size[1] / height)
    w, h = max(1, round(scale * width)), max(1, round(scale * height))
    left, top = (size[0] - w) // 2, (size[1] - h) // 2
    return left, top, left + w, top + h


def bicubic() -> Any:
    return pillow()[0].Resampling.BICUBIC


def part(values: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Returns the part of values (H, W, C) in a box (left, top, right, bottom)."""
    return values[box[1] : box[3], box[0] : box[2]]


def resized(values: np.ndarray, height: int, width: int, top: int) -> np.ndarray:
    """Returns integers (H, W, C) at another size: bicubic in float32, then rounded and held in 0 ... top."""
    if values.shape[:2] == (height, width):
        return values
    Image, _ = pillow()
    planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in np.moveaxis(values, -1, 0)]
    planes = [np.asarray(plane.resize((width, height), bicubic())) for plane in planes]
    return np.rint(np.stack(planes, -1)).clip(0, top).astype(np.int32)


# ---- more than 8 bits, or the file's own numbers ----------------------------------------------------------------


def largest(image: Any, content: Any) -> int:
    """Returns the largest number that a picture's file can hold a channel; PIL's mode says so of few formats."""
    if image.mode == "1":
        return 1
    kind = LARGEST.get(image.format)
    top = 255 if kind is None else kind(image, content)
    return 2**16 - 1 if image.mode.startswith("I") and top <= 255 else top


def png_largest(image: Any, content: Any) -> int:
    raw = raw_of(image) if image.tile else ""
    return 65535 if raw.endswith(";16B") else {"L;2": 3, "L;4": 15}.get(raw, 255)


def tiff_largest(image: Any, content: Any) -> int:
    bits = image.tag_v2.get(258, (1,))
    return 255 if image.mode == "P" else 2 ** max(bits if isinstance(bits, tuple) else (bits,)) - 1


def ppm_largest(image: Any, content: Any) -> int:
    if image.mode == "1" or not image.tile:
        return 1
    codec, _, _, given = image.tile[0]
    if codec == "raw":
        return 2**16 - 1 if image.mode.startswith("I") else 255
    return int(given[-1])


def sgi_largest(image: Any, content: Any) -> int:
    return 2 ** (8 * bytes(memoryview(content)[3:4])[0]) - 1


def jpeg2000_largest(image: Any, content: Any) -> int:
    """The precision of the first component, in the codestream's SIZ marker (ISO/IEC 15444-1, A.5.1)."""
    head = bytes(memoryview(content)[: 2**16])
    start = head.find(b"\xff\x4f\xff\x51")
    return 2 ** ((head[start + 42] & 127) + 1) - 1 if 0 <= start < len(head) - 42 else 255


def avif_largest(image: Any, content: Any) -> int:
    """10 or 12 bits, in two flags of the codec's configuration (av1C)."""
    head = bytes(memoryview(content)[: 2**16])
    start = head.find(b"av1C")
    flags = head[start + 6] if 0 <= start < len(head) - 6 else 0
    return 255 if not flags & 64 else 4095 if flags & 32 else 1023


LARGEST = {
    "PNG": png_largest,
    "TIFF": tiff_largest,
    "PPM": ppm_largest,
    "SGI": sgi_largest,
    "JPEG2000": jpeg2000_largest,
    "AVIF": avif_largest,
}


def deep(opened: Opened, number: int, white: int, done: Counter) -> tuple[np.ndarray, str]:
    """Returns the numbers (H, W, C), int32, of a picture of more than 8 bits a channel, and rgb or grey.

    Arguments:
        white: the value that transparent pixels are shown on.
    """
    name, image = opened.name, opened.page(number)
    if image.format not in DEEP:
        raise ValueError(
            f"{name} has more than 8 bits a channel, of which PIL reads 8 in a {image.format} file: save it as PNG or "
            f"TIFF"
        )
    if image.format == "TIFF":
        if image.tag_v2.get(262) == 0:
            raise ValueError(f"{name} has more than 8 bits a channel and shows 0 as white: save it with 0 as black")
        if (
            image.tag_v2.get(284) == 2
            and image.tile
            and image.tile[0][0] == "libtiff"
            and image.mode in ("RGB", "RGBA")
        ):
            raise ValueError(
                f"{name} has more than 8 bits a channel and holds each channel by itself (planar), compressed: save it "
                f"without compression, or with its channels side by side"
            )
    if image.mode not in ("RGB", "RGBA") and not image.mode.startswith("I"):
        raise ValueError(
            f"{name} has more than 8 bits a channel in the colours {image.mode}: save it as rgb or grey, or convert it "
            f"to 8 bits"
        )
    with naming(name):
        if image.format == "PPM":
            return ppm_values(image, opened.content)
        key, alpha, premultiplied = image.info.get("transparency"), None, False
        rawmode = raw_of(image)
        if image.mode.startswith("I"):
            values = np.asarray(upright(image, done)).astype(np.int32)[..., None]
        elif rawmode.startswith("LA"):  # four bytes a pixel, which PIL hands out as they are
            retile(image, lambda given: "RGBA")
            pair = np.asarray(upright(image, done)).astype(np.int32)
            values, alpha = pair[..., :1] * 256 + pair[..., 1:2], pair[..., 2] * 256 + pair[..., 3]
        else:
            premultiplied = image.format == "TIFF" and 1 in image.tag_v2.get(338, ())
            big = big_endian(image)
            halves = []
            for order in "BL" if big else "LB":
                half = image if not halves else opened.page(number, again=True)
                retile(half, lambda given, order=order: f"{given.partition(';')[0].replace('a', 'A')};16{order}")
                halves.append(np.asarray(upright(half, Counter() if halves else done)).astype(np.int32))
            values = halves[0] * 256 + halves[1]
            if values.shape[-1] == 4:
                values, alpha = values[..., :3], values[..., 3]
    if key is not None and alpha is None and not isinstance(key, bytes):
        alpha = np.where((values == np.array(key)).all(-1), 0, 65535)
    if alpha is not None:
        opacity = alpha[..., None] / 65535
        shown = (values if premultiplied else values * opacity) + (1 - opacity) * white
        values = np.rint(shown).astype(np.int32)
        done["with transparency, shown on white"] += 1
    return values, "grey" if values.shape[-1] == 1 else "rgb"


def raw_of(image: Any) -> str:
    """The order of a picture's bytes in its file, by PIL's name."""
    given = image.tile[0][3]
    return given if isinstance(given, str) else given[0]


def retile(image: Any, raw: Any) -> None:
    """Has a picture's bytes decoded in another order than its own."""
    image.tile = [
        entry._replace(args=raw(entry[3]) if isinstance(entry[3], str) else (raw(entry[3][0]), *entry[3][1:]))
        for entry in image.tile
    ]


def big_endian(image: Any) -> bool:
    """Whether a number's high byte comes first in what PIL's decoder is given."""
    if image.format != "TIFF":
        return True
    if image.tile[0][0] == "libtiff":  # which hands out the machine's own order
        return sys.byteorder == "big"
    return image.tag_v2.prefix == b"MM"


def upright(image: Any, done: Counter) -> Any:
    """Decodes a picture and turns it as its EXIF says."""
    turned = image.format == "TIFF" and image.tag_v2.get(274, 1) != 1  # PIL turns these as it loads them
    image.load()
    bare = image.format == "PNG" and not image.info  # looking for what is not there takes time
    if not bare and image.getexif().get(274, 1) != 1:
        image, turned = pillow()[1].exif_transpose(image), True
    if turned:
        done["turned upright as their EXIF says"] += 1
    return image


def ppm_values(image: Any, content: Any) -> tuple[np.ndarray, str]:
    """The numbers of a PGM or PPM file as they stand there; PIL spreads them over its own range."""
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


def fits(values: np.ndarray, levels: int, name: str) -> None:
    """Raises a ValueError unless all values lie in 0 ... levels-1."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= levels:
        wrong = low if low < 0 else high
        remedy = "save all as one array for data=arrays"
        if low >= 0 and high < 2**16:
            remedy = f"type `levels`={2 ** math.ceil(math.log2(high + 1))}" + " or null" * (high < 256)
        raise ValueError(f"{name} holds the value {wrong}, `levels`={levels} allows 0 ... {levels - 1}: {remedy}")


def recoloured(values: np.ndarray, channels: str) -> np.ndarray:
    """Returns values (H, W, C) as rgb or grey, by PIL's weights of red, green and blue (ITU-R 601-2)."""
    if channels == "rgb":
        return np.repeat(values, 3, -1) if values.shape[-1] == 1 else values
    if values.shape[-1] == 1:
        return values
    return (values.astype(np.int64) @ np.array([[19595], [38470], [7471]]) + 2**15 >> 16).astype(np.int32)
