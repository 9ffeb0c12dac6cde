"""The pages of a picture file, as PIL images, and the turning of one of them upright."""

from collections import Counter
from io import BytesIO
from typing import Any

from scoresde.data.pillow import naming, pillow

REDUCED, MASK = 1, 4  # bits of a TIFF page's NewSubfileType (tag 254): it is a reduced copy or a mask of another page
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the first bytes of a TIFF file


class Opened:
    """The pages of one file's bytes, as PIL images.

    One image stands for all pages: it shows the page that was asked for last, still decoded if that page was.

    Arguments:
        name: the file, for messages.
        content: its bytes, or a buffer of them.
    """

    def __init__(self, name: str, content: Any):
        self.name, self.content = name, content
        self._images: dict[bool, Any] = {}

    def page(self, number: int, again: bool = False) -> Any:
        """Returns a page as a PIL image; raises a ValueError that names the file if it cannot be opened.

        Arguments:
            number: the page, from 0.
            again: whether to return a second image of it, which is decoded separately.
        """
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
        """Returns which pages of a TIFF are pictures, and how many are not: reduced copies and masks of others. A
        single page is always a picture.

        Raises:
            ValueError: the pictures have several sizes, such as those of a pyramid, or no page is a picture; or the
                file cannot be read.
        """
        image = self.page(0)
        with naming(self.name):
            count = image.n_frames
        if count == 1:
            return [0], 0
        pictures, sizes = [], []
        for number in range(count):
            image = self.page(number)
            if not image.tag_v2.get(254, 0) & (REDUCED | MASK):
                pictures.append(number)
                sizes.append(image.size)
        if not pictures:
            raise ValueError(f"{self.name}: each of its {count} pages is marked as a copy of another: save it anew")
        for number, size in zip(pictures, sizes):
            if size != sizes[0]:
                raise ValueError(
                    f"{self.name}: page {number + 1} is {size[0]} x {size[1]} pixels and page {pictures[0] + 1} is "
                    f"{sizes[0][0]} x {sizes[0][1]} (a thumbnail, a pyramid?): save each picture as a file of its own"
                )
        return pictures, count - len(pictures)


def upright(image: Any, done: Counter) -> Any:
    """Returns a PIL image, decoded and turned as its EXIF orientation (tag 274) says; counts the turn in ``done``."""
    turned = image.format == "TIFF" and image.tag_v2.get(274, 1) != 1  # PIL turns these as it loads them
    image.load()
    bare = image.format == "PNG" and not image.info  # no EXIF, and searching for one takes time
    if not bare and image.getexif().get(274, 1) != 1:
        image, turned = pillow()[1].exif_transpose(image), True
    if turned:
        done["turned upright as their EXIF says"] += 1
    return image
