r"""Images: any data set of the Hugging Face Hub by its name, a folder of parquet files, or a folder of image files.

Pixels are integers k = 0 ... 255 and stay uint8 (N, C, H, W) in memory; with uniform dequantisation k + u lies in
[0, 256), which the units m = s = 128 carry to [-1, 1).

Local files are read directly, without a second copy in a cache; a name that is not a folder goes to the `datasets`
library. Parquet files have the Hub's layout: a column of images, each either bytes or a pair {bytes, path}, in any
format that PIL reads, and perhaps an integer column called label. Decoding stays in one thread: of small images most
time is spent in Python, and threads only wait for one another there (docs/results.md).
"""

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from data.base import Data, at_least, fraction
from data.decoded import decoded_once
from data.files import sha256

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MODES = {"rgb": "RGB", "grey": "L"}


@dataclass(frozen=True)
class Encoded:
    """The compressed images of one split: how many, image i's name and bytes, labels (count,) if there are any, whole
    numbers or words.
    """

    count: int
    read: Callable[[int], tuple[str, bytes]]
    labels: np.ndarray | None


class Images(Data):
    """Images of 8 bits a channel, all of one size, as uint8 (N, C, H, W).

    Arguments:
        path: a folder, a .parquet file, or the name of a data set on the Hub, such as ylecun/mnist. A folder holds
            parquet files whose names start with the split's (train-00000.parquet), or image files, in any subfolders;
            a subfolder called like the split (train/) is that split.
        split: the split to train on. A folder in which nothing is called train or test is taken whole.
        test_split: the held-out split; by default the one called test, and where there is none, a random part of the
            training images.
        column: the column of images in a table; by default the only one that holds images.
        size: side of the square, or [height, width], that every image is brought to: it is cropped round its centre to
            that shape, then resized (bicubic, averaging where it shrinks). By default images keep their size.
        channels: rgb or grey; auto takes what the first image is, and refuses a mixture.
        test_fraction: part of the training images held out where there is no held-out split, above 0 and below 1.
        limit: use at most so many images, drawn at random, of each part; by default all.
        seed: seed of the split and of the limit's draw.
        subset: the configuration of a data set on the Hub that has several.
        labels: the column of a table that holds the classes, whole numbers, truths or words; by default the one called
            label, where it is there and holds whole numbers.
        crop: side of the square, or [height, width], that is cut out round the centre of every image, before ``size``.
        flip: whether training shows each image as it is or mirrored left to right, by chance; held-out images never
            are. Not for images in which that changes what they are, such as digits.
        cache: a folder in which decoded pixels are kept if decoding took long, so that the next run need not; None for
            none.

    Without ``labels`` the classes of image files are the names of the subfolders that they lie in, where there are
    several and every file is in one.

    Transparent pixels are shown on white. Images of 16 bits or floats are refused; see :class:`data.Arrays`.
    """

    told_keys: ClassVar[tuple[str, ...]] = ("labels",)

    def __init__(
        self,
        path: str | None = None,
        split: str = "train",
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
    ):
        if path is None:
            raise ValueError("data.path is not set: type data.path=FOLDER or a name on the Hub, data.path=ylecun/mnist")
        if channels not in ("auto", *MODES):
            raise ValueError(f"data.channels={channels} must be auto, rgb or grey: type data.channels=auto")
        fraction("test_fraction", test_fraction)
        at_least("seed", seed, 0, 0)
        if limit is not None:
            at_least("limit", limit, 1, 1000)
        size, crop = ((side, side) if isinstance(side, int) else side for side in (size, crop))
        for key, sides in (("size", size), ("crop", crop)):
            if sides is not None and (len(sides) != 2 or min(sides) < 1):
                raise ValueError(
                    f"data.{key}={sides} must be one side or [height,width], at least 1: type data.{key}=32"
                )

        folder = Path(path).expanduser().absolute()
        if folder.exists():
            train, test, self._content = from_files(folder, split, test_split, column, labels)
        elif path.startswith((".", "/", "~")) or path.count("/") > 1 or folder.suffix in (".parquet", *SUFFIXES):
            raise FileNotFoundError(f"data.path={path}: there is no folder {folder}")
        else:
            train, test, self._content = from_hub(path, subset, split, test_split, column, labels)

        rng = np.random.default_rng(seed)
        rows = rng.permutation(train.count)
        if test is None:
            if train.count < 2:
                raise ValueError(
                    f"data.path={path} holds {train.count} image: one to train on and one to hold out are the least"
                )
            held_out = min(max(1, round(train.count * test_fraction)), train.count - 1)
            test, rows, test_rows = train, rows[held_out:], rows[:held_out]
        else:
            test_rows = rng.permutation(test.count)
        rows, test_rows = np.sort(rows[:limit]), np.sort(test_rows[:limit])  # files are read fastest in their order

        known = (None, None)
        if train.labels is not None and test.labels is not None:
            classes = train.labels[rows], test.labels[test_rows]
            if train.labels.dtype.kind == "U":
                words, numbers = np.unique(np.concatenate(classes), return_inverse=True)
                self.class_names, classes = words.tolist(), np.split(numbers.astype(np.int64), [len(rows)])
            known = map(torch.from_numpy, classes)
        images = [(train, int(i)) for i in rows] + [(test, int(i)) for i in test_rows]
        shown = [self._content, split, test_split, column, size, crop, channels, test_fraction, limit, seed]
        pixels = torch.from_numpy(decoded_once(cache, json.dumps(shown), lambda: decode(images, size, channels, crop)))
        super().__init__(pixels[: len(rows)], pixels[len(rows) :], 128, 128, 256, *known)
        self.flip = flip

    def fingerprint(self) -> str:
        return self._content


def decode(
    images: list[tuple[Encoded, int]], size: list[int] | None, channels: str, crop: list[int] | None = None
) -> np.ndarray:
    """The images in one array (N, C, H, W) of uint8; the first decides what is left open, the others must agree."""
    Image, _ = pillow()
    pixels, first = None, None
    for n, (source, i) in enumerate(images):
        name, content = source.read(i)
        image = opened(name, content)
        colour = "grey" if image.mode in ("1", "L", "LA", "La") else "rgb"
        if image.has_transparency_data:
            canvas = Image.new("RGBA", image.size, "white")
            canvas.alpha_composite(image.convert("RGBA"))
            image = canvas
        if crop is not None:
            image = centre(image, *crop, name)
        first = first or (name, colour, image.size)
        if channels == "auto" and colour != first[1]:
            raise ValueError(
                f"{first[0]} is {first[1]} and {name} is {colour}: type data.channels=rgb or data.channels=grey"
            )
        if size is None and image.size != first[2]:
            raise ValueError(
                f"{first[0]} is {first[2][0]} x {first[2][1]} pixels and {name} is {image.size[0]} x {image.size[1]}: "
                f"type data.size={min(*image.size, *first[2])} to crop and resize every image"
            )
        mode = MODES[colour if channels == "auto" else channels]
        image = image if image.mode == mode else image.convert(mode)
        values = np.asarray(image if size is None else cropped(image, *size))
        values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
        if pixels is None:
            pixels = np.empty((len(images), *values.shape), np.uint8)
        pixels[n] = values
    return pixels


def cropped(image, height: int, width: int):
    """The largest part of this shape round the centre, resized: bicubic, over as many pixels as each new one covers."""
    Image, _ = pillow()
    scale = min(image.width / width, image.height / height)
    w, h = round(scale * width), round(scale * height)
    left, top = (image.width - w) // 2, (image.height - h) // 2
    part = image.crop((left, top, left + w, top + h))
    return part if part.size == (width, height) else part.resize((width, height), Image.Resampling.BICUBIC)


def centre(image, height: int, width: int, name: str):
    """The part of this size round the centre, pixel by pixel."""
    if image.width < width or image.height < height:
        raise ValueError(
            f"data.crop={[height, width]}: {name} has {image.height} x {image.width} pixels: type a smaller data.crop, "
            f"or leave it out"
        )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def pillow():
    """PIL's modules, asked for only where images are read."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("reading images needs pillow: pip install -e .[images]") from error
    return Image, ImageOps


def opened(name: str, content: bytes):
    """The PIL image in compressed bytes, upright."""
    Image, ImageOps = pillow()
    try:
        image = Image.open(BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as an image ({error}): save it anew or leave it out") from error
    if image.mode.startswith(("I", "F")):
        raise ValueError(
            f"{name} has more than 8 bits a pixel (PIL's mode {image.mode}): "
            "convert it to 8 bits, or save all as one array for data=arrays"
        )
    bare = image.format == "PNG" and not image.info  # most small images: to look for what is not there takes time
    turned = not bare and image.getexif().get(0x0112, 1) != 1  # the orientation that cameras write
    return ImageOps.exif_transpose(image) if turned else image


def from_files(
    folder: Path, split: str, test_split: str | None, column: str | None, labels: str | None
) -> tuple[Encoded, Encoded | None, str]:
    """The training images, the held-out ones if they have files of their own, and a hash of all these files."""
    where = f"data.path={folder}"
    found = [folder] if folder.is_file() else sorted(file for file in folder.rglob("*") if file.is_file())
    files = [file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    tables = [file for file in files if file.suffix.lower() == ".parquet"]
    pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
    if tables and pictures:
        raise ValueError(f"{where} holds parquet files and image files: name a subfolder with one kind of them")
    files = tables or pictures
    if not files:
        raise ValueError(f"{where} holds no images: neither .parquet nor {', '.join(SUFFIXES)}")
    if labels is not None and not tables:
        raise ValueError(
            f"data.labels={labels}: {where} holds image files, whose classes are their subfolders: leave it out"
        )

    def named(name: str) -> list[Path]:
        inside = ((file, file.relative_to(folder)) for file in files)
        return [file for file, local in inside if name in local.parts[:-1] or (tables and local.name.startswith(name))]

    def encoded(some: list[Path]) -> Encoded:
        return (
            from_tables(some, column, labels, where)
            if tables
            else from_pictures(some, folder, (split, test_split or "test"))
        )

    training = named(split)
    held_out = named(test_split or "test") if split != (test_split or "test") else []
    if not training and split == "train" and not held_out:
        training = files
    for key, name, found in (("split", split, training), ("test_split", test_split, held_out)):
        if name is not None and not found:
            some = ", ".join(str(file.relative_to(folder)) for file in files[:5])
            raise ValueError(
                f"data.{key}={name}: no file or subfolder of {folder} is called so; it holds {some}"
                f"{', ...' if len(files) > 5 else ''}: type data.{key}=NAME, the start of a name"
            )
    content = hashlib.sha256()
    for file in training + held_out:
        content.update(f"{file.relative_to(folder).as_posix()} {sha256(file)}\n".encode())
    return encoded(training), encoded(held_out) if held_out else None, content.hexdigest()


def from_pictures(files: list[Path], folder: Path, splits: tuple[str, str]) -> Encoded:
    """Image files; the first subfolder below the folder and the split's own is a picture's class."""
    inner = [[part for part in file.relative_to(folder).parts[:-1] if part not in splits] for file in files]
    classes = {parts[0] for parts in inner if parts}
    labels = np.array([parts[0] for parts in inner]) if all(inner) and len(classes) > 1 else None
    return Encoded(len(files), lambda i: (str(files[i]), files[i].read_bytes()), labels)


def from_tables(files: list[Path], column: str | None, labels: str | None, where: str) -> Encoded:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{where}: reading parquet needs pyarrow: pip install -e .[images]") from error
    kinds = pyarrow.types
    try:
        schema = pyarrow.parquet.read_schema(files[0])
        holds_images = [
            field.name
            for field in schema
            if kinds.is_binary(field.type)
            or kinds.is_large_binary(field.type)
            or (kinds.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
        ]
        column = image_column(column, holds_images, schema.names, where)
        known = schema.field("label").type if "label" in schema.names else None
        named = label_column(labels, schema.names, known is not None and kinds.is_integer(known), where)
        wanted = list(dict.fromkeys([column, *([named] if named else [])]))
        table = pyarrow.concat_tables([pyarrow.parquet.read_table(file, columns=wanted) for file in files])
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{where}: {files[0].name} or one beside it is not a parquet file ({error})") from error
    if len(table) == 0:
        raise ValueError(f"{where}: {files[0].name} holds no rows")
    pair = kinds.is_struct(table.schema.field(column).type)
    chunks = [chunk.field("bytes") if pair else chunk for chunk in table[column].chunks]
    paths = [chunk.field("path") for chunk in table[column].chunks] if pair and has_path(table, column) else None
    starts = np.cumsum([0, *map(len, chunks)])

    def read(i: int) -> tuple[str, bytes]:
        k = int(np.searchsorted(starts, i, side="right")) - 1
        cell, path = chunks[k][i - starts[k]], None if paths is None else paths[k][i - starts[k]].as_py()
        if not cell.is_valid:
            raise ValueError(f"{where}: row {i} of column {column!r} holds no bytes of an image")
        return f"row {i} ({path or column})", cell.as_buffer()

    return Encoded(len(table), read, None if named is None else classes(table[named].to_numpy(), named, where))


def has_path(table, column: str) -> bool:
    """Whether the images of a table's column have names."""
    return table.schema.field(column).type.get_field_index("path") >= 0


def label_column(labels: str | None, names: list[str], usual: bool, where: str) -> str | None:
    """The column of classes: the one asked for, or ``label``, where that is there and holds whole numbers."""
    if labels is None:
        return "label" if usual else None
    if labels not in names:
        some = ", ".join(names[:50]) + (", ..." if len(names) > 50 else "")
        raise ValueError(f"data.labels={labels}: {where} has no such column, it has {some}")
    return labels


def classes(values: np.ndarray, name: str, where: str) -> np.ndarray:
    """The classes (N,) of a column: whole numbers, truths as 0 and 1, or words."""
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    if values.dtype.kind in "OU" and all(isinstance(value, str) for value in values):
        return values.astype(str)
    if values.dtype.kind == "O" and all(isinstance(value, bool) for value in values):
        return values.astype(np.int64)
    raise ValueError(f"data.labels={name}: this column of {where} holds neither whole numbers nor truths nor words")


def from_hub(
    name: str, subset: str | None, split: str, test_split: str | None, column: str | None, labels: str | None
) -> tuple[Encoded, Encoded | None, str]:
    """The training images, the held-out ones if they are a split, and the Hub's own fingerprint of both."""
    if not reachable():  # then the library knows at once that there is nothing but what it has fetched before
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"data.path={name} is no folder, and the Hub needs: pip install -e .[images]") from error
    try:
        splits = datasets.load_dataset(name, subset)
    except Exception as error:  # the Hub, the network and the data set's files each have errors of their own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"data.path={name} is neither a folder ({Path(name).absolute()}) nor could it be had from the Hub: "
            f"{reason}; type data.path=FOLDER, a folder with a copy of its parquet files, or come back with a network "
            f"(and logged in, where the Hub asks for terms to be accepted). Samples of a checkpoint need no data: "
            f"data=unseen data.shape=[3,32,32]"
        ) from error
    held_out = test_split or ("test" if "test" in splits and split != "test" else None)
    for key, part in (("split", split), ("test_split", held_out)):
        if part is not None and part not in splits:
            raise ValueError(f"data.{key}={part}: {name} has no such split, it has {', '.join(splits)}")

    def encoded(part: str) -> Encoded:
        rows = splits[part]
        holds_images = [key for key, feature in rows.features.items() if isinstance(feature, datasets.Image)]
        chosen = image_column(column, holds_images, rows.column_names, f"data.path={name}")
        usual = "label" in rows.column_names and rows.features["label"].dtype.startswith("int")
        named = label_column(labels, rows.column_names, usual, f"data.path={name}")
        known = None if named is None else classes(np.array(rows[named][:]), named, f"data.path={name}")
        rows = rows.select_columns(chosen).cast_column(chosen, datasets.Image(decode=False)).with_format("arrow")
        block: dict[int, list] = {}  # a thousand rows at a time, since a row by itself takes as long as decoding it

        def read(i: int) -> tuple[str, bytes]:
            k, j = divmod(i, 1000)
            if k not in block:
                block.clear()
                block[k] = rows[1000 * k : 1000 * (k + 1)][chosen].to_pylist()
            cell = block[k][j]
            content = Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]
            return f"row {i} of {part} ({cell['path'] or chosen})", content

        return Encoded(len(rows), read, known)

    parts = [split] if held_out is None else [split, held_out]
    content = hashlib.sha256("\n".join(splits[part]._fingerprint for part in parts).encode()).hexdigest()
    return encoded(split), encoded(held_out) if held_out else None, content


def reachable() -> bool:
    """Whether the Hub answers; its own library asks six times with growing pauses, 25 seconds, before it gives up."""
    try:
        urllib.request.urlopen(os.environ.get("HF_ENDPOINT") or "https://huggingface.co", timeout=10).close()
    except urllib.error.HTTPError:  # an answer
        return True
    except (OSError, ValueError):
        return False
    return True


def image_column(column: str | None, holds_images: list[str], names: list[str], where: str) -> str:
    """The column of images: the one asked for, or the only one there is."""
    if column is not None and column not in names:
        raise ValueError(f"data.column={column}: {where} has the columns {', '.join(names)}: type one of them")
    if column is not None and column not in holds_images:
        raise ValueError(f"data.column={column} of {where} holds no images; those that do: {holds_images or 'none'}")
    if column is None and len(holds_images) != 1:
        found = f"the columns {', '.join(holds_images)} hold images" if holds_images else "no column holds images"
        raise ValueError(f"{where}: {found} (of {', '.join(names)}): type data.column=NAME")
    return column or holds_images[0]
