"""The largest number that a picture's file can hold in a channel; for some formats PIL's mode does not tell."""

import math
from typing import Any

import numpy as np


def largest(image: Any, content: Any) -> int:
    """Returns the largest number that a picture's file can hold in a channel, 255 for 8 bits.

    Arguments:
        image: a PIL image that is not yet decoded.
        content: the bytes of its file.
    """
    if image.mode == "1":
        return 1
    of_format = LARGEST.get(image.format)
    top = 255 if of_format is None else of_format(image, content)
    # PIL's modes I and I;16 hold more than 8 bits, whatever the header says
    return 2**16 - 1 if image.mode.startswith("I") and top <= 255 else top


def png_largest(image: Any, content: Any) -> int:
    """Reads the bits a channel in PIL's name of the raw bytes: 16, or 2 or 4 of grey."""
    raw = raw_mode(image) if image.tile else ""
    return 65535 if raw.endswith(";16B") else {"L;2": 3, "L;4": 15}.get(raw, 255)


def tiff_largest(image: Any, content: Any) -> int:
    """Reads the tag BitsPerSample (258)."""
    bits = image.tag_v2.get(258, (1,))
    return 255 if image.mode == "P" else 2 ** max(bits if isinstance(bits, tuple) else (bits,)) - 1


def ppm_largest(image: Any, content: Any) -> int:
    """Reads maxval, which PIL passes on to its decoder, but for a binary file's 255, and its 65535 of grey."""
    if image.mode == "1" or not image.tile:
        return 1
    codec, _, _, given = image.tile[0]
    if codec == "raw":
        return 2**16 - 1 if image.mode.startswith("I") else 255
    return int(given[-1])


def sgi_largest(image: Any, content: Any) -> int:
    """Reads the number of bytes a channel in the header."""
    return 2 ** (8 * bytes(memoryview(content)[3:4])[0]) - 1


def jpeg2000_largest(image: Any, content: Any) -> int:
    """Reads the precision of the first component in the codestream's SIZ marker (ISO/IEC 15444-1, A.5.1), if it lies in
    the first 64 KiB; else 8 bits.
    """
    head = bytes(memoryview(content)[: 2**16])
    start = head.find(b"\xff\x4f\xff\x51")
    return 2 ** ((head[start + 42] & 127) + 1) - 1 if 0 <= start < len(head) - 42 else 255


def avif_largest(image: Any, content: Any) -> int:
    """Reads 10 or 12 bits in two flags of the codec's configuration (av1C), if it lies in the first 64 KiB; else 8."""
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


def raw_mode(image: Any) -> str:
    """Returns PIL's name for the order of a picture's bytes in its file, such as RGB;16B."""
    given = image.tile[0][3]
    return given if isinstance(given, str) else given[0]


def refuse_beyond(values: np.ndarray, levels: int, name: str) -> None:
    """Raises a ValueError unless all values lie in 0 ... levels-1."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= levels:
        wrong = low if low < 0 else high
        remedy = "save all as one array for data=arrays"
        if low >= 0 and high < 2**16:
            remedy = f"type `levels`={2 ** math.ceil(math.log2(high + 1))}" + " or null" * (high < 256)
        raise ValueError(f"{name} holds the value {wrong}, `levels`={levels} allows 0 ... {levels - 1}: {remedy}")
