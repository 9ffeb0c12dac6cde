"""Decodes compressed pictures, from files or from the cells of tables, into one array."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scoresde.data.picture import Wanted, read
from scoresde.data.picture_file import Opened
from scoresde.data.pillow import quiet


@dataclass(frozen=True)
class Encoded:
    """The compressed pictures of one split.

    Attributes:
        count: the number of pictures.
        read: returns for picture i its name, the bytes that hold it, and the number of its page there, from 0, or None
            if the bytes must hold one page.
        labels: the class labels (count,), whole numbers or words; None without any.
        files: the number of files that the pictures come from.
    """

    count: int
    read: Callable[[int], tuple[str, Any, int | None]]
    labels: np.ndarray | None
    files: int = 1


@dataclass
class Seen:
    """The conversions, sizes and warnings of all pictures so far, for the notes.

    Attributes:
        done: for each conversion, in words, the number of pictures.
        smallest, largest: the sizes (width, height) of the smallest and the largest picture.
        warnings: the number of pictures that PIL warned of.
        first_warning: the name of the first of them, and the warning.
    """

    done: Counter = field(default_factory=Counter)
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None
    warnings: int = 0
    first_warning: str = ""

    def add(self, size: tuple[int, int]) -> None:
        """Takes the size (width, height) of one more picture into account; sizes compare by their areas."""
        area = size[0] * size[1]
        if self.smallest is None or area < self.smallest[0] * self.smallest[1]:
            self.smallest = size
        if self.largest is None or area > self.largest[0] * self.largest[1]:
            self.largest = size

    def notes(self, count: int, wanted: Wanted) -> list[str]:
        """Returns a clause for each conversion, with how many of ``count`` pictures had it, and clauses on cropping,
        resizing and warnings.
        """
        clauses = [f"{'all' if n == count else n} {what}" for what, n in self.done.items()]
        if wanted.crop is not None:
            clauses.append(f"all cropped to {wanted.crop[1]} x {wanted.crop[0]} round the centre")
        if wanted.size is not None and (self.smallest, self.largest) != (tuple(wanted.size[::-1]),) * 2:
            sizes = " ... ".join(f"{w} x {h}" for w, h in dict.fromkeys((self.smallest, self.largest)))
            clauses.append(f"cropped and resized from {sizes} pixels")
        if self.warnings:
            clauses.append(f"{self.warnings} read with a warning (first {self.first_warning})")
        return clauses


def decode(images: list[tuple[Encoded, int]], wanted: Wanted) -> tuple[np.ndarray, list[str]]:
    """Decodes pictures into one array.

    Arguments:
        images: for each picture its source and its number there.
        wanted: the form that they are converted to. Where it leaves the colours or the size open, all pictures must
            have those of the first.

    Returns:
        the pictures (N, C, H, W), uint8, or int32 of more than 256 levels; and notes on how they were converted.

    Raises:
        ValueError: with the name of the picture that cannot be read or does not agree with the first.
    """
    pixels, first, opened, seen = None, None, None, Seen()
    with quiet() as warned:
        for n, (source, i) in enumerate(images):
            name, content, number = source.read(i)
            if opened is None or content is not opened.content:  # not a further page of the same file
                opened = Opened(name, content)
            opened.name = name
            picture = read(opened, number or 0, wanted, seen.done, single=number is None)
            if warned:
                seen.warnings += 1
                # errors get the key's place, data., in front; notes do not
                where = name.replace("`path`=", "data.path=", 1)
                seen.first_warning = seen.first_warning or f"{where}: {warned[0].message}".splitlines()[0]
                warned.clear()
            first = first or (name, picture)
            agree(*first, name, picture, wanted)
            seen.add(picture.size)
            if pixels is None:
                pixels = np.empty((len(images), *picture.values.shape), picture.values.dtype)
            pixels[n] = picture.values
    return pixels, seen.notes(len(images), wanted)


def agree(name: str, first: Any, other_name: str, other: Any, wanted: Wanted) -> None:
    """Raises a ValueError unless another picture has the depth of the first, and its colours and size where ``wanted``
    leaves them open.
    """
    if wanted.channels == "auto" and other.colour != first.colour:
        raise ValueError(
            f"{name} is {first.colour} and {other_name} is {other.colour}: type `channels`=rgb or `channels`=grey"
        )
    if wanted.size is None and other.size != first.size:
        raise ValueError(
            f"{name} is {first.size[0]} x {first.size[1]} pixels and {other_name} is {other.size[0]} x "
            f"{other.size[1]}: type `size`={min(*other.size, *first.size)} to crop and resize every image"
        )
    if (other.top > 255) != (first.top > 255):
        raise ValueError(
            f"{name} has values up to {first.top} a channel and {other_name} up to {other.top}: convert them to the "
            f"same number of bits"
        )
