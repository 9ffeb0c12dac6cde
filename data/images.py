r"""Images: a data set of the Hugging Face Hub by its name, a folder of parquet or image files, or one such file.

Pixels are integers k = 0 ... L-1, (N, C, H, W), by default of L = 256 levels. With uniform dequantisation k + u lies in
[0, L), which the units m = s = L/2 map to [-1, 1).

Local files are read directly, without a second copy in a cache. A path that does not exist and does not look like a
file is taken for a name on the Hub, which the `datasets` library reads. Decoding uses one thread: for small images most
time is spent in Python, where threads wait for one another (docs/results.md).

Image files are taken in the order of their contents' hashes, not of their names, so that the split, and with it the
network, depends only on their contents and classes.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from scoresde.data.base import Data, at_least, fraction
from scoresde.data.decoded import decoded_once
from scoresde.data.encoded import Encoded, decode
from scoresde.data.files import sha256
from scoresde.data.folder_classes import classes_of_folders, without_links
from scoresde.data.hub import from_hub
from scoresde.data.listing import File, counted, listed, listing
from scoresde.data.picture import MODES, Wanted
from scoresde.data.picture_file import TIFF, Opened
from scoresde.data.picture_tables import from_tables
from scoresde.data.pillow import quiet, suffixes
from scoresde.data.splits import parts


class Images(Data):
    """Images, all of one size, as integers (N, C, H, W): uint8 up to 256 levels, int32 above.

    Arguments:
        path: a folder, a file of parquet or of TIFF pages, or the name of a data set on the Hub, such as ylecun/mnist.
            A folder holds either parquet files or image files of any kind that PIL reads, in any subfolders, also
            linked ones. Every page of a TIFF is an image, without reduced copies and masks; an animation counts as its
            first frame.
        split: the split to train on, in any capitals: a folder, the start of parquet files' names, or a split on the
            Hub. auto is the split called train: folders are splits if all at the top (or all one below it) are named
            like splits, such as train/ and Test/; parquet files belong to the split that their names begin with. Other
            folders are classes, but names of splits beside other folders are refused, and ``split`` must say. null: no
            name means a split (on the Hub: train).
        test_split: the held-out split. By default it is, beside the split train, the one called test or else
            validation; beside other splits test. Without one a random part of the training images is held out.
        column: the column of images in a table; by default the only one that holds images.
        size: the side of the square, or [height, width], that every image is brought to: it is cropped round its centre
            to that aspect ratio, then resized (bicubic, with antialiasing). By default images keep their size.
        channels: rgb or grey; auto takes those of the first image, and refuses a mixture.
        test_fraction: the part of the training images held out where there is no held-out split, above 0 and below 1.
        limit: the largest number of images of each part, drawn at random; by default all.
        seed: the seed of the split and of the draw of ``limit``.
        subset: the configuration of a data set on the Hub that has several.
        labels: the column of a table that holds the classes, whole numbers, booleans or words; by default the one
            called label, where it holds one for every row.
        crop: the side of the square, or [height, width], that is cut out round the centre of every image, before
            ``size``.
        flip: whether training mirrors each image left to right with probability 1/2; held-out images are never
            mirrored. Not for images whose mirror image means something else, such as digits.
        cache: a folder that caches decoded pixels if decoding took long; None for no cache.
        levels: the number L of levels, 2 ... 65536, if the files' own numbers are wanted: 65536 keeps 16 bits a channel
            (PNG, TIFF, PPM), 4096 the 12 bits of a camera, 2 a mask of 0 and 1. By default 256: images of fewer bits
            are then spread over it, and those of more are refused.

    Without ``labels`` the classes of image files are the names of their subfolders, where there are several and every
    file is in one.

    Transparent pixels are shown on white. ``notes`` says what was taken, left out or converted.

    Raises:
        FileNotFoundError, ValueError: with the key to change and what to type, or the file that cannot be read.
        ImportError: with the packages to install: pillow, pyarrow or datasets.
    """

    conditional_keys: ClassVar[tuple[str, ...]] = ("labels",)

    def __init__(
        self,
        path: str | None = None,
        split: str | None = "auto",
        test_split: str | None = None,
        column: str | None = None,
        size: int | list[int] | None = None,
        channels: Literal["auto", "rgb", "grey"] = "auto",
        test_fraction: float = 0.1,
        limit: int | None = None,
        seed: int = 0,
        subset: str | None = None,
        labels: str | None = None,
        crop: int | list[int] | None = None,
        flip: bool = False,
        cache: str | None = None,
        levels: int | None = None,
    ):
        if path is None:
            raise ValueError("`path` is not set: type `path`=FOLDER or a name on the Hub, `path`=ylecun/mnist")
        fraction("test_fraction", test_fraction)
        at_least("seed", seed, 0, 0)
        if limit is not None:
            at_least("limit", limit, 1, 1000)
        wanted = wanted_of(channels, crop, size, levels)

        folder = Path(path).expanduser().absolute()
        if folder.exists():
            train, test, self._content, notes = from_files(folder, split, test_split, column, labels)
        elif path.startswith((".", "/", "~")) or path.count("/") > 1 or looks_like_a_file(folder):
            raise FileNotFoundError(f"`path`={path}: there is no folder {folder}")
        else:
            train, test, self._content, notes = from_hub(path, subset, split, test_split, column, labels)
        files = train.files + (0 if test is None else test.files)
        total = train.count + (0 if test is None else test.count)

        test, rows, test_rows = drawn_rows(train, test, test_fraction, limit, seed, path)
        train, test, withheld = without_withheld(train, test)
        labels_of_parts, self.class_names, unlike = labels_of(train, test, rows, test_rows)
        images = [(train, int(i)) for i in rows] + [(test, int(i)) for i in test_rows]
        crop, size = wanted.crop, wanted.size
        key = [self._content, split, test_split, column, size, crop, channels, test_fraction, limit, seed, levels]
        pixels, done = decoded_once(cache, json.dumps(key), lambda: decode(images, wanted))
        pixels = torch.from_numpy(pixels)
        levels = levels or 256
        super().__init__(pixels[: len(rows)], pixels[len(rows) :], levels / 2, levels / 2, levels, *labels_of_parts)
        self.flip = flip
        part = f"{len(images)} of " * (len(images) < total)
        taken = part + counted(total, f"{'grey' if pixels.shape[1] == 1 else 'rgb'} image")
        whole = f"{taken} of {pixels.shape[3]} x {pixels.shape[2]} pixels"
        if levels != 256:
            done = [f"values {int(pixels.min())} ... {int(pixels.max())} of {levels} levels", *done]
        notes = [*notes, *withheld, *unlike, *done, *copies(self.train, self.test)]
        self.notes = (f"{whole} from {counted(files, 'file')}", *notes)

    def fingerprint(self) -> str:
        return self._content


def wanted_of(channels: str, crop: int | list[int] | None, size: int | list[int] | None, levels: int | None) -> Wanted:
    """Checks the keys and returns what pictures are converted to, with ``crop`` and ``size`` as [height, width]."""
    if channels not in ("auto", *MODES):
        raise ValueError(f"`channels`={channels} must be auto, rgb or grey: type `channels`=auto")
    if levels is not None and not 2 <= levels <= 65536:
        raise ValueError(f"`levels`={levels} must be in 2 ... 65536: type `levels`=65536 for 16 bits a channel")
    size, crop = ((side, side) if isinstance(side, int) else side for side in (size, crop))
    for key, sides in (("size", size), ("crop", crop)):
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise ValueError(f"`{key}`={sides} must be one side or [height,width], at least 1: type `{key}`=32")
    return Wanted(channels, crop, size, levels)


def drawn_rows(
    train: Encoded, test: Encoded | None, test_fraction: float, limit: int | None, seed: int, path: str
) -> tuple[Encoded, np.ndarray, np.ndarray]:
    """Draws which pictures are trained on and which are held out.

    Arguments:
        test: the held-out pictures; None to hold out a part of the training pictures.
        limit: the largest number of each part; None for all.
        path: as the user typed it, for the error.

    Returns:
        the source of the held-out pictures, which is ``train`` where there is no other; and the numbers of the training
        and of the held-out pictures in their sources, in ascending order, in which files are read fastest.

    Raises:
        ValueError: there is one picture, and none to hold out.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(train.count)
    if test is None:
        if train.count < 2:
            raise ValueError(
                f"`path`={path} holds {train.count} image: one to train on and one to hold out are the least"
            )
        held_out = min(max(1, round(train.count * test_fraction)), train.count - 1)
        test, rows, test_rows = train, rows[held_out:], rows[:held_out]
    else:
        test_rows = rng.permutation(test.count)
    return test, np.sort(rows[:limit]), np.sort(test_rows[:limit])


def without_withheld(train: Encoded, test: Encoded) -> tuple[Encoded, Encoded, list[str]]:
    """Returns both parts, without labels if all labels of one part are negative, as withheld ones are; and notes."""
    notes = []
    for part, name in ((train, "training"), (test, "held-out")):
        if part.labels is not None and part.labels.dtype.kind == "i" and (part.labels < 0).all():
            notes.append(f"the {name} images' labels are withheld (all {part.labels[0]})")
            train, test = replace(train, labels=None), replace(test, labels=None)
    return train, test, notes


def labels_of(
    train: Encoded, test: Encoded, rows: np.ndarray, test_rows: np.ndarray
) -> tuple[tuple[Tensor | None, Tensor | None], list[str] | None, list[str]]:
    """Returns the class labels of the chosen pictures of both parts, int64; the names of the classes, or None where the
    labels are whole numbers; and notes. There are no labels unless both parts have labels of one kind.
    """
    if train.labels is not None and test.labels is not None and train.labels.dtype.kind == test.labels.dtype.kind:
        picked, names = [train.labels[rows], test.labels[test_rows]], None
        if train.labels.dtype.kind == "U":
            words, numbers = np.unique(np.concatenate(picked), return_inverse=True)
            names, picked = words.tolist(), np.split(numbers.astype(np.int64), [len(rows)])
        return (torch.from_numpy(picked[0]), torch.from_numpy(picked[1])), names, []
    notes = []
    if train.labels is not None or test.labels is not None:
        notes = ["no classes: the training and the held-out images do not both have some of one kind"]
    return (None, None), None, notes


def looks_like_a_file(path: Path) -> bool:
    """Returns whether a path that does not exist looks like a file and not like a name on the Hub."""
    suffix = path.suffix.lower()
    return suffix == ".parquet" or (suffix != "" and suffix in suffixes())


def copies(train: Tensor, test: Tensor) -> list[str]:
    """Returns a note on how many held-out images equal a training image, if some do."""
    seen = {hash(image.tobytes()) for image in train.numpy()}
    count = sum(hash(image.tobytes()) in seen for image in test.numpy())
    return [f"{count} of {len(test)} held-out images equal a training image"] if count else []


def from_files(
    folder: Path, split: str | None, test_split: str | None, column: str | None, labels: str | None
) -> tuple[Encoded, Encoded | None, str, list[str]]:
    """Finds the images of a folder or a file; the arguments are those of :class:`Images`.

    Returns:
        the training images; the held-out ones, or None if they have no files of their own; a hash of all these files;
        and notes on what was understood and left out.

    Raises:
        ValueError: there are no images, or pictures beside tables; or the splits, columns or labels cannot be found.
    """
    where = f"`path`={folder}"
    entries = listing(folder, suffixes)
    tables = bool(entries.tables)
    if tables and entries.pictures:
        raise ValueError(f"{where} holds parquet files and image files: name a subfolder with one kind of them")
    if not tables and not entries.pictures:
        others = f" (it holds {listed(entries.other + entries.broken, 5)})" if entries.other or entries.broken else ""
        raise ValueError(
            f"{where} holds no images{others}: neither .parquet nor what PIL reads, such as .png, .jpg, .bmp, .tif, "
            f".webp, .ppm"
        )
    if labels is not None and not tables:
        raise ValueError(
            f"`labels`={labels}: {where} holds image files, whose classes are their subfolders: leave it out"
        )
    splits = parts(entries.tables if tables else entries.pictures, tables, split, test_split, folder)
    if tables:
        content = hashlib.sha256()
        for file in splits.training + splits.held_out:
            content.update(f"{file.local} {sha256(file.path)}\n".encode())
        train, notes = from_tables(splits.training, column, labels, where)
        test = None
        if splits.held_out:
            test, test_notes = from_tables(splits.held_out, column, labels, where)
            notes += [note for note in test_notes if note not in notes]
        return train, test, content.hexdigest(), [*splits.notes, *notes, *entries.notes()]

    words_of_files, notes = classes_of_folders(splits)
    if entries.linked:
        splits, words_of_files = without_links(splits, words_of_files)
    border = len(splits.training)
    words = [None] * border if words_of_files is None else words_of_files[:border]
    train, lines, left_out = from_pictures(splits.training, words)
    test = None
    if splits.held_out:
        words = [None] * len(splits.held_out) if words_of_files is None else words_of_files[border:]
        test, test_lines, test_left_out = from_pictures(splits.held_out, words)
        lines, left_out = [*lines, "held out", *test_lines], left_out + test_left_out
    if left_out:
        notes.append(f"{counted(left_out, 'TIFF page')} left out, reduced copies or masks of others")
    content = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return train, test, content, [*splits.notes, *notes, *entries.notes()]


@dataclass(frozen=True)
class Pages:
    """The pages of image files; called with an image's number, returns its name, its file's bytes and its page.

    Attributes:
        images: for each image its file, its page from 0, and the number of pages taken from the file.
        last: the bytes of the file read last, by its path: the pages of a file follow one another.
    """

    images: list[tuple[str, int, int]]
    last: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, i: int) -> tuple[str, Any, int]:
        path, number, count = self.images[i]
        if path not in self.last:
            self.last.clear()
            self.last[path] = Path(path).read_bytes()
        return path if count == 1 else f"{path}, page {number + 1}", self.last[path], number


def from_pictures(files: list[File], words: list[str | None]) -> tuple[Encoded, list[str], int]:
    """Finds the pages of image files.

    Arguments:
        files: the files of one split.
        words: for each file the name of its class, or None.

    Returns:
        the images, in the order of their files' hashes; a line of class and hash for each file, in that order; and the
        number of TIFF pages left out.
    """
    listed_pages, left_out = [], 0
    for file, word in zip(files, words):
        with open(file.path, "rb") as stream:
            paged = stream.read(4) in TIFF
        numbers = [0]
        if paged:
            with quiet():  # PIL repeats its warnings when the page is read
                numbers, copied = Opened(str(file.path), file.path.read_bytes()).pages()
            left_out += copied
        listed_pages.append((sha256(file.path), word or "", str(file.path), numbers))
    listed_pages.sort(key=lambda entry: entry[:3])
    images = [(path, number, len(numbers)) for _, _, path, numbers in listed_pages for number in numbers]
    classes_of_images = [word for _, word, _, numbers in listed_pages for _ in numbers]
    labels = np.array(classes_of_images) if any(classes_of_images) else None
    return (
        Encoded(len(images), Pages(images), labels, len(files)),
        [f"{word} {digest}" for digest, word, *_ in listed_pages],
        left_out,
    )
