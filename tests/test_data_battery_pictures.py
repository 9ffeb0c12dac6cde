"""One battery for every way in which pictures lie in files: the same 300 pictures give the same tensors, classes and
statistics; and whatever a reader takes, leaves out or converts, it says.
"""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch

from scoresde.conf.schema import build
from scoresde.data import Images
from scoresde.data.picture_file import Opened
from scoresde.data.picture_size import resized

Image = pytest.importorskip("PIL.Image")
arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

RNG = np.random.default_rng(5)
WORDS = ("bus", "car", "train")  # one of the classes has the name of a split
KINDS = np.repeat(np.arange(3), (30, 90, 180))  # in the order of a folder: class by class, of unequal shares
# each class in a range of its own, so that a subset of one class alone has other statistics
DEEP = (RNG.integers(0, 20000, (300, 7, 5)) + 20000 * KINDS[:, None, None]).astype(np.uint16)
PICTURES = (DEEP >> 8).astype(np.uint8)
COLOUR = np.stack([PICTURES, 255 - PICTURES, PICTURES // 2], -1)


def encoded(values, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format=kind, **options)
    return stream.getvalue()


def write(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def class_folders(root, images, kind="PNG", suffix=".png", rename=str):
    for i, image in enumerate(images):
        write(root / WORDS[KINDS[i]], rename(f"{i:03d}") + suffix, encoded(image, kind))


def stacks(root, images):
    for k, word in enumerate(WORDS):
        first, *others = (Image.fromarray(image) for image in images[k == KINDS])
        (root / word).mkdir(parents=True)
        first.save(root / word / "all.tif", save_all=True, append_images=others)


def linked(root, images):
    class_folders(root.parent / "elsewhere", images)
    root.mkdir()
    for word in WORDS:
        (root / word).symlink_to(root.parent / "elsewhere" / word, target_is_directory=True)


def linked_files(root, images):
    class_folders(root.parent / "elsewhere", images)
    for i in range(len(images)):
        (root / WORDS[KINDS[i]]).mkdir(parents=True, exist_ok=True)
        (root / WORDS[KINDS[i]] / f"{i}.PNG").symlink_to(root.parent / "elsewhere" / WORDS[KINDS[i]] / f"{i:03d}.png")


def table(root, images, pairs, files=1):
    cells = [encoded(image) for image in images]
    cells = [{"bytes": cell, "path": f"{i}.png"} for i, cell in enumerate(cells)] if pairs else cells
    columns = arrow.table({"picture": cells, "label": [WORDS[k] for k in KINDS]})
    root.mkdir(parents=True)
    for n, rows in enumerate(np.array_split(np.arange(len(images)), files)):
        parquet.write_table(columns.slice(rows[0], len(rows)), root / f"TRAIN-{n}.parquet", row_group_size=40)


def upside_down(name):
    return str(999 - int(name))


LAYOUTS = {
    "png": class_folders,
    "below train": lambda root, images: class_folders(root / "Train", images),
    "below a wrapper": lambda root, images: class_folders(root / "photos" / "all", images),
    "other names": lambda root, images: class_folders(root, images, rename=upside_down),
    "capitals": lambda root, images: class_folders(root, images, suffix=".PNG"),
    "tiff": lambda root, images: class_folders(root, images, "TIFF", ".tif"),
    "bmp": lambda root, images: class_folders(root, images, "BMP", ".bmp"),
    "ppm": lambda root, images: class_folders(root, images, "PPM", ".pnm"),
    "tga": lambda root, images: class_folders(root, images, "TGA", ".tga"),
    "webp": lambda root, images: class_folders(root, images, "PNG", ".webp"),  # what is inside counts
    "pages": stacks,
    "links": linked,
    "linked files": linked_files,
    "bytes": lambda root, images: table(root, images, pairs=False),
    "pairs": lambda root, images: table(root, images, pairs=True, files=3),
}


def contents(images):
    return sorted(np.ascontiguousarray(image).tobytes() for image in np.asarray(images))


def summary(data):
    """All that must not depend on how pictures are kept: pictures with their classes, and the units."""
    both = zip((data.train, data.test), (data.train_labels, data.test_labels))
    rows = [
        (image.numpy().tobytes(), data.class_names[k]) for images, labels in both for image, k in zip(images, labels)
    ]
    return sorted(rows), data.class_names, data.levels, float(data.shift), float(data.scale), data.train.dtype


def expected(images, levels, dtype):
    images = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    rows = [(np.ascontiguousarray(x, dtype).tobytes(), WORDS[k]) for x, k in zip(images, KINDS)]
    return (
        sorted(rows),
        list(WORDS),
        levels,
        levels / 2,
        levels / 2,
        {np.uint8: torch.uint8, np.int32: torch.int32}[dtype],
    )


SOME = ("tiff", "ppm", "pages", "pairs")
BATTERY = [(layout, "grey") for layout in LAYOUTS]
BATTERY += [(layout, "rgb") for layout in (*SOME, "bmp", "tga")] + [(layout, "deep") for layout in (*SOME, "png")]


@pytest.mark.parametrize("layout, kind", BATTERY)
def test_the_same_pictures_in_every_layout(tmp_path, layout, kind):
    images = {"grey": PICTURES, "rgb": COLOUR, "deep": DEEP}[kind]
    LAYOUTS[layout](tmp_path / "data", images)
    levels = 65536 if kind == "deep" else 256
    data = Images(str(tmp_path / "data"), levels=levels if kind == "deep" else None)
    assert summary(data) == expected(images, levels, np.int32 if kind == "deep" else np.uint8)
    assert (len(data.train), len(data.test)) == (270, 30)
    files = {"pages": 3, "bytes": 1, "pairs": 3}.get(layout, 300)
    colour = "rgb" if kind == "rgb" else "grey"
    assert data.notes[0] == f"300 {colour} images of 5 x 7 pixels from {files} file{'s' * (files > 1)}"
    assert any("classes" in note and ("label" in note or "bus, car, train" in note) for note in data.notes)
    # every subset is a random one: its mean lies within five standard errors of the whole's
    pixels = images.reshape(300, -1).mean(1)
    for part, labels in ((data.train[:100], data.train_labels[:100]), (data.test, data.test_labels)):
        left = np.sqrt((1 - len(part) / 300) / len(part))
        assert abs(part.double().mean() - pixels.mean()) < 5 * pixels.std() * left
        assert abs(float(labels.eq(2).double().mean()) - 0.6) < 5 * np.sqrt(0.24) * left


def test_names_of_files_decide_nothing(tmp_path):
    """Neither the split, nor the order, nor the network's name."""
    one, other = tmp_path / "one", tmp_path / "other"
    class_folders(one, PICTURES)
    class_folders(other, PICTURES, rename=upside_down)
    first, second = Images(str(one)), Images(str(other))
    assert torch.equal(first.train, second.train) and torch.equal(first.test, second.test)
    assert torch.equal(first.train_labels, second.train_labels) and first.fingerprint() == second.fingerprint()
    (one / "bus" / "000.png").rename(one / "car" / "000.png")  # another class
    assert Images(str(one)).fingerprint() != first.fingerprint()


# ---- splits and classes -----------------------------------------------------------------------------------------


def fill(root, **folders):
    """Writes pictures, each its own, into folders by their names with __ for slashes."""
    for name, count in folders.items():
        for i in range(count):
            image = RNG.integers(0, 256, (7, 5)).astype(np.uint8)
            write(root / name.replace("__", "/"), f"{i}.png", encoded(image))
    return str(root)


SPLITS = {  # folders, and how many are trained on, held out, and the classes
    "two beside a train": ({"bicycle": 10, "bus": 10, "train": 10}, 27, 3, ["bicycle", "bus", "train"]),
    "one called test": ({"control": 10, "test": 10}, 18, 2, ["control", "test"]),
    "one called val": ({"sun": 10, "val": 10}, 18, 2, ["sun", "val"]),
    "splits of classes": (
        {"train__bus": 8, "train__train": 8, "test__bus": 2, "test__train": 2},
        16,
        4,
        ["bus", "train"],
    ),
    "classes of splits": (
        {"bus__train": 8, "train__train": 8, "bus__test": 2, "train__test": 2},
        16,
        4,
        ["bus", "train"],
    ),
    "capitals": ({"Train": 9, "TEST": 3}, 9, 3, None),
    "other words": ({"training": 9, "testing": 3}, 9, 3, None),
    "validation": ({"train": 9, "Val": 3}, 9, 3, None),
    "all three": ({"train": 9, "test": 3, "valid": 2}, 9, 3, None),
    "years": ({"train2017": 9, "val2017": 3}, 9, 3, None),
    "below a wrapper": ({"coco__train_images": 9, "coco__test_images": 3}, 9, 3, None),
    "a new class": ({"train__good": 9, "test__good": 2, "test__broken": 3}, 9, 5, ["broken", "good"]),
    "train alone": ({"train__a": 10, "train__b": 10}, 18, 2, ["a", "b"]),
    "no class beside one": ({"a": 10, "a__b": 10}, 18, 2, None),
}


@pytest.mark.parametrize("case", SPLITS)
def test_what_is_a_split_and_what_a_class(tmp_path, case):
    folders, train, test, names = SPLITS[case]
    data = Images(fill(tmp_path, **folders))
    assert (len(data.train), len(data.test), data.class_names) == (train, test, names)
    assert not set(contents(data.train)) & set(contents(data.test))
    for folder, count in folders.items():  # what was taken as held out is what lies there
        if names is not None and "__" not in folder:
            labels = torch.cat((data.train_labels, data.test_labels))
            assert int((labels == names.index(folder)).sum()) == count
    left = sum(folders.values()) - train - test
    assert left == (2 if case == "all three" else 0)
    assert any("left out: valid (2 files)" in note for note in data.notes) == (case == "all three")


def test_held_out_is_what_lies_there(tmp_path):
    """The pictures of a split are those of its folder and no others, asked for by name or not, in any capitals."""
    path = fill(tmp_path, Train__a=4, Train__b=4, Test__a=2, Test__b=2, Val__a=3)

    def inside(*folders):
        files = [file for folder in folders for file in (tmp_path / folder).rglob("*.png")]
        return contents([np.asarray(Image.open(file)) for file in files])

    asked = {
        (): ("Train", "Test"),
        (("test_split", "VAL"),): ("Train", "Val"),
        (("split", "val"), ("test_split", "train")): ("Val", "Train"),
        (("split", "train"),): ("Train", "Test"),
    }
    for keys, (training, held_out) in asked.items():
        data = Images(path, **dict(keys))
        assert contents(data.train) == inside(training) and contents(data.test) == inside(held_out), keys
        assert f"trained on: {training} ({len(data.train)} files)" in data.notes
        assert f"held out: {held_out} ({len(data.test)} files)" in data.notes
    every = Images(path, split=None)
    assert every.class_names == ["Test", "Train", "Val"]
    assert contents(torch.cat((every.train, every.test))) == inside("Train", "Test", "Val")
    rest = Images(fill(tmp_path / "more", sun=4, moon=4, odd=2), test_split="Odd")
    assert rest.class_names is None and len(rest.train) == 8 and len(rest.test) == 2


def fails(message, path, **keys):
    with pytest.raises(ValueError, match=message) as caught:
        build({"_target_": "data.Images", "path": path} | keys, "data")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "folders",
    [
        {"train": 3, "test": 3, "extra": 3},
        {"a__train": 3, "a__test": 3, "b__train": 3, "b__masks": 3},
        {"train": 3, "test": 3, ".": 2},
    ],
)
def test_two_readings_are_asked_about(tmp_path, folders):
    path = fill(tmp_path, **{key: count for key, count in folders.items() if key != "."})
    for i in range(folders.get(".", 0)):
        write(tmp_path, f"{i}.png", encoded(PICTURES[i]))
    fails(
        r"some of which are named like splits: type data\.split=NAME and data\.test_split=NAME .* data\.split=null",
        path,
    )
    assert len(Images(path, split="train").train) in (3, 6)
    assert len(Images(path, split=None).train) + len(Images(path, split=None).test) == sum(folders.values())


def test_splits_that_cannot_be(tmp_path):
    path = fill(tmp_path, test=3, val=3)
    fails(r"holds test, val to be held out and nothing to train on: type data\.split=test .* data\.split=null", path)
    path = fill(tmp_path / "two", train=3, test=3)
    fails(r"data\.split=train and data\.test_split=TRAIN both name train", path, split="train", test_split="TRAIN")
    fails(r"data\.split=big: no file or subfolder .* it holds test, train", path, split="big")


TABLES = {  # files, keys, and the numbers trained on and held out, or the message
    "capitals": ({"Train": 8, "TEST": 3}, {}, (8, 3)),
    "validation": ({"train": 8, "validation": 3}, {}, (8, 3)),
    "all three": ({"train": 8, "test": 3, "valid": 2}, {}, (8, 3)),
    "unsupervised": ({"train": 8, "test": 3, "unsupervised": 2}, {}, (8, 3)),
    "no names": ({"a": 8, "b": 2}, {}, (9, 1)),
    "trainee": ({"trainee": 8, "b": 2}, {}, (9, 1)),
    "one beside": ({"train": 8, "bus": 2}, {}, r"some of which are named like splits: type data\.split=NAME"),
    "one beside, asked": ({"train": 8, "bus": 2}, {"split": "train"}, (7, 1)),
    "all, asked": ({"train": 8, "bus": 2}, {"split": None}, (9, 1)),
    "folders": ({"train/0000": 8, "test/0000": 3}, {}, (8, 3)),
    "start of a name": ({"first": 8, "second": 3}, {"split": "FIRST", "test_split": "second"}, (8, 3)),
}


@pytest.mark.parametrize("case", TABLES)
def test_splits_of_tables(tmp_path, case):
    files, keys, wanted = TABLES[case]
    for n, (name, count) in enumerate(files.items()):
        file = tmp_path / f"{name}.parquet"
        file.parent.mkdir(exist_ok=True)
        parquet.write_table(arrow.table({"x": [encoded(PICTURES[30 * n + i]) for i in range(count)]}), file)
    if isinstance(wanted, str):
        return fails(wanted, str(tmp_path), **keys)
    data = Images(str(tmp_path), **keys)
    assert (len(data.train), len(data.test)) == wanted
    left = sum(files.values()) - sum(wanted)
    assert any(note.startswith("left out: ") for note in data.notes) == (left > 0)


# ---- links and files left out -----------------------------------------------------------------------------------


def test_links_end(tmp_path):
    """A link to a folder above ends there; a link that leads nowhere, and one to itself, are left out and named."""
    path = fill(tmp_path / "data", a=5, b=5)
    (tmp_path / "data" / "a" / "round").symlink_to(tmp_path / "data", target_is_directory=True)
    os.symlink(tmp_path / "nowhere", tmp_path / "data" / "b" / "lost.png")
    os.symlink("itself.png", tmp_path / "data" / "b" / "itself.png")
    data = Images(path)
    assert len(data.train) + len(data.test) == 10 and data.class_names == ["a", "b"]
    assert "2 broken links left out (b/itself.png, b/lost.png)" in data.notes
    assert "1 link to a folder above it left out (a/round)" in data.notes


def test_one_file_through_two_links(tmp_path):
    path = fill(tmp_path / "data", a=5, b=5)
    os.symlink(tmp_path / "data" / "a" / "0.png", tmp_path / "data" / "a" / "again.png")
    data = Images(path)
    assert len(data.train) + len(data.test) == 10
    assert "1 further link to the same file left out" in data.notes
    (tmp_path / "data" / "c").symlink_to(tmp_path / "data" / "a", target_is_directory=True)
    fails(r"a/0\.png and c/0\.png in .* are one file through a link, in two classes", path)
    path = fill(tmp_path / "two", train=3)
    (tmp_path / "two" / "test").symlink_to(tmp_path / "two" / "train", target_is_directory=True)
    fails(r"are one file through a link, in two splits: remove one", path)


def test_what_was_left_out_is_said(tmp_path):
    path = fill(tmp_path, a=5, b=5)
    for name in ("Thumbs.db", "a/notes.txt", "b/list.csv", "b/photo.heic", ".DS_Store", "a/._0.png"):
        (tmp_path / name).write_bytes(b"x")
    write(tmp_path / ".cache", "x.png", encoded(PICTURES[0]))
    notes = Images(path).notes
    assert "3 hidden files or folders left out (.DS_Store, .cache, a/._0.png)" in notes
    assert "4 other files left out (Thumbs.db, a/notes.txt, b/list.csv, ...)" in notes
    write(tmp_path, "z.png", encoded(PICTURES[0]))
    data = Images(path)
    assert data.class_names is None and "no classes: 1 file lies beside the folders a, b" in data.notes
    for file in list(tmp_path.rglob("*.png")):
        file.unlink()
    fails(r"holds no images \(it holds Thumbs\.db, .*photo\.heic\)", path)


def test_folders_without_images_are_said(tmp_path):
    """A test/ or a class without a picture would be missed without a word."""
    path = fill(tmp_path, **{"train/a": 5, "train/b": 5})
    for name in ("test", "train/c", "more/deep/er", "more/.x"):
        (tmp_path / name).mkdir(parents=True)
    write(tmp_path / "more" / "deep", "notes.txt", b"x")
    notes = Images(path).notes
    assert "3 folders without images left out (more, test, train/c)" in notes
    write(tmp_path / "test" / "a", "x.png", encoded(PICTURES[99]))
    assert "2 folders without images left out (more, train/c)" in Images(path).notes


def test_held_out_copies_are_counted(tmp_path):
    path = fill(tmp_path, train=5, test=3)
    for name in ("one.png", "two.png"):
        write(tmp_path / "test", name, (tmp_path / "train" / "0.png").read_bytes())
    assert "2 of 5 held-out images equal a training image" in Images(path).notes


# ---- what is done to pictures -----------------------------------------------------------------------------------


def test_conversions_are_said(tmp_path):
    half = np.dstack([COLOUR[0], np.full((7, 5), 128, np.uint8)])
    exif = Image.Exif()
    exif[0x0112] = 3
    write(tmp_path, "a.png", encoded(half))
    write(tmp_path, "b.png", encoded(COLOUR[1]))
    write(tmp_path, "c.png", encoded(COLOUR[2], exif=exif))
    Image.fromarray(COLOUR[3]).quantize(8).save(tmp_path / "d.png")
    Image.fromarray(COLOUR[4]).convert("CMYK").save(tmp_path / "e.jpg")
    frames = [Image.fromarray(image) for image in COLOUR[5:8]]
    frames[0].save(tmp_path / "f.webp", save_all=True, append_images=frames[1:], lossless=True)
    data = Images(str(tmp_path), size=[6, 4])
    for note in (
        "1 with transparency, shown on white",
        "1 turned upright as their EXIF says",
        "1 with a palette, read as rgb",
        "1 of the colours CMYK, converted to rgb",
        "1 with several frames, of which the first is taken",
        "cropped and resized from 5 x 7 pixels",
    ):
        assert note in data.notes, (note, data.notes)
    assert "all of colour, read as grey" in Images(fill_colour(tmp_path / "grey"), channels="grey").notes
    assert "all of greys, read as rgb" in Images(fill(tmp_path / "rgb", a=3), channels="rgb").notes
    assert "2 of 9 grey images of 5 x 7 pixels from 9 files" in Images(fill(tmp_path / "l", a=9), limit=1).notes
    write(tmp_path / "frames", "f.webp", (tmp_path / "f.webp").read_bytes())
    write(tmp_path / "frames", "g.png", encoded(COLOUR[9]))
    data = Images(str(tmp_path / "frames"))
    assert contents(torch.cat((data.train, data.test))) == contents(COLOUR[[5, 9]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "MPO"])
def test_the_first_frame_of_an_animation(tmp_path, kind):
    frames = [Image.fromarray(np.full((16, 16), value, np.uint8)) for value in (40, 80, 200)]
    for k in range(2):
        try:
            frames[k].save(tmp_path / f"{k}.{kind.lower()}", save_all=True, append_images=frames[2:], quality=100)
        except (KeyError, OSError):
            pytest.skip(f"this PIL writes no {kind}")
    data = Images(str(tmp_path), channels="grey")
    values = sorted(float(x.double().mean()) for x in torch.cat((data.train, data.test)))
    assert abs(values[0] - 40) < 2 and abs(values[1] - 80) < 2
    assert "all with several frames, of which the first is taken" in data.notes


def test_withheld_labels_are_no_class(tmp_path):
    """The Hub's -1 for every held-out row is no class beside the others."""
    cells = [encoded(image) for image in PICTURES[:8]]
    parquet.write_table(arrow.table({"x": cells[:5], "label": [0, 1, 0, 1, 1]}), tmp_path / "train.parquet")
    parquet.write_table(arrow.table({"x": cells[5:], "label": [-1, -1, -1]}), tmp_path / "test.parquet")
    data = Images(str(tmp_path))
    assert data.train_labels is None and data.test_labels is None
    assert "the held-out images' labels are withheld (all -1)" in data.notes


def fill_colour(root):
    for i in range(3):
        write(root, f"{i}.png", encoded(COLOUR[i]))
    return str(root)


def test_notes_are_kept_with_the_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("scoresde.data.decoded.LONG", 0.0)
    path = fill(tmp_path / "data", a=4)
    first = Images(path, cache=str(tmp_path / "kept"), size=3)
    monkeypatch.setattr("scoresde.data.images.decode", lambda *given: pytest.fail("decoded again"))
    assert Images(path, cache=str(tmp_path / "kept"), size=3).notes == first.notes
    assert "cropped and resized from 5 x 7 pixels" in first.notes


def test_what_pil_warns_of_is_a_note(tmp_path, recwarn):
    for k in range(4):
        Image.fromarray(PICTURES[k]).save(
            tmp_path / f"{k}.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01" if k == 2 else b""
        )
    notes = Images(str(tmp_path)).notes
    assert not recwarn.list
    (said,) = (note for note in notes if "with a warning" in note)
    assert said.startswith(f"1 read with a warning (first {tmp_path}/2.jpg: Corrupt EXIF data")

    file = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"image": [(tmp_path / f"{k}.jpg").read_bytes() for k in range(4)]}), file)
    (said,) = (note for note in Images(str(file)).notes if "with a warning" in note)
    assert said.startswith(f"1 read with a warning (first data.path={file}: row 2 of a.parquet (image): Corrupt EXIF")


# ---- pages ------------------------------------------------------------------------------------------------------


def tiff(pages, order="<", kinds=None, tags=None):
    """An uncompressed TIFF of integers (H, W) or (H, W, C), 8 or 16 bits, page by page, written by hand."""
    out = bytearray(struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8))
    for n, page in enumerate(pages):
        page = page[..., None] if page.ndim == 2 else page
        height, width, channels = page.shape
        data, bits = page.astype(page.dtype.newbyteorder(order)).tobytes(), 8 * page.dtype.itemsize
        entries = {254: (kinds or {}).get(n, 0), 256: width, 257: height, 258: bits, 259: 1, 262: 1 + (channels > 2),
                   273: 0, 277: channels, 278: height, 279: len(data), 284: 1} | (tags or {})  # fmt: skip
        if channels in (2, 4):
            entries[338] = entries.get(338, 2)
        entries = {tag: value for tag, value in entries.items() if value is not None}
        start = len(out)
        after = start + 2 + 12 * len(entries) + 4
        extra = struct.pack(order + "H" * channels, *[bits] * channels) if channels > 2 else b""
        entries[273] = after + len(extra)
        out += struct.pack(order + "H", len(entries))
        for tag, value in sorted(entries.items()):
            if tag == 258 and extra:
                out += struct.pack(order + "HHII", tag, 3, channels, after)
            else:
                out += struct.pack(order + "HHII", tag, 4, 1, value)
        following = after + len(extra) + len(data)
        out += struct.pack(order + "I", 0 if n == len(pages) - 1 else following) + extra + data
    return bytes(out)


def test_pages_are_pictures_of_their_class(tmp_path):
    write(tmp_path / "a", "x.tiff", tiff(PICTURES[:4]))
    write(tmp_path / "b", "y.TIF", tiff(PICTURES[4:6], ">"))
    write(tmp_path / "b", "z.png", tiff(PICTURES[6:9]))  # what is inside counts
    data = Images(str(tmp_path))
    both = torch.cat((data.train, data.test)).numpy()
    assert contents(both) == contents(PICTURES[:9])
    for image, label in zip(both, torch.cat((data.train_labels, data.test_labels))):
        assert int(label) == int((PICTURES[:9] == image).reshape(9, -1).all(1).argmax() >= 4)
    only = Images(str(tmp_path / "a" / "x.tiff"))  # a file, and not a folder
    assert contents(torch.cat((only.train, only.test))) == contents(PICTURES[:4])


def test_copies_among_pages(tmp_path):
    """A page that says it is a smaller copy is left out; one that does not is an error with its number."""
    pyramid = [PICTURES[0], PICTURES[1], PICTURES[2][:3, :2]]
    write(tmp_path, "x.tif", tiff(pyramid, kinds={2: 1}))
    data = Images(str(tmp_path))
    assert len(data.train) + len(data.test) == 2
    assert "1 TIFF page left out, reduced copies or masks of others" in data.notes
    write(tmp_path, "y.tif", tiff(pyramid))
    for keys in ({}, {"size": 2}):
        fails(r"y\.tif: page 3 is 2 x 3 pixels and page 1 is 5 x 7 \(a thumbnail", str(tmp_path), **keys)
    parquet.write_table(arrow.table({"x": [tiff(PICTURES[:2])] * 2}), tmp_path / "one.parquet")
    fails(r"row [01] of one\.parquet .*it has 2 pages and stands for one example", str(tmp_path / "one.parquet"))


def test_a_damaged_page_is_named(tmp_path):
    content = tiff([PICTURES[0], PICTURES[1]])
    write(tmp_path, "x.tif", content[:-10])
    fails(r"x\.tif, page 2 cannot be read as an image", str(tmp_path))


# ---- more than 8 bits a channel ---------------------------------------------------------------------------------


def png(x):
    """A PNG of integers (H, W, C) of 16 bits, written by hand: the five filters in turn, so that all are read."""
    height, width, channels = x.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(tag, content):
        return struct.pack(">I", len(content)) + tag + content + struct.pack(">I", zlib.crc32(tag + content))

    rows, before, bpp = [], np.zeros(2 * width * channels, int), 2 * channels
    for i, row in enumerate(x):
        now = np.frombuffer(row.astype(">u2").tobytes(), np.uint8).astype(int)
        left, corner = np.r_[np.zeros(bpp, int), now[:-bpp]], np.r_[np.zeros(bpp, int), before[:-bpp]]
        p = left + before - corner
        paeth = np.choose(np.argmin([abs(p - left), abs(p - before), abs(p - corner)], 0), [left, before, corner])
        predicted = (0, left, before, (left + before) // 2, paeth)[i % 5]
        rows.append(bytes([i % 5]) + ((now - predicted) % 256).astype(np.uint8).tobytes())
        before = now
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + chunk(b"IEND", b"")
    )


def ppm(x, top=65535):
    return f"P{6 if x.shape[-1] == 3 else 5} {x.shape[1]} {x.shape[0]} {top}\n".encode() + x.astype(">u2").tobytes()


def plain(x, top=65535):
    numbers = " ".join(map(str, x.ravel()))
    return f"P{3 if x.shape[-1] == 3 else 2}\n# by hand\n{x.shape[1]} {x.shape[0]}\n{top}\n{numbers}\n".encode()


def compressed(x):
    stream = io.BytesIO()
    Image.open(io.BytesIO(tiff([x]))).save(stream, format="TIFF", compression="tiff_adobe_deflate")
    return stream.getvalue()


def on_white(x, white=65535):
    """The picture that the eye sees of grey + alpha or rgb + alpha."""
    opacity = x[..., -1:] / 65535
    return np.rint(x[..., :-1] * opacity + white * (1 - opacity))


FORMATS = {  # suffix, channels, how it is written
    "grey png": (".png", 1, png),
    "grey + alpha png": (".png", 2, png),
    "rgb png": (".png", 3, png),
    "rgba png": (".png", 4, png),
    "grey tiff": (".tif", 1, lambda x: tiff([x])),
    "grey tiff, big end first": (".tif", 1, lambda x: tiff([x], ">")),
    "grey tiff, compressed": (".tif", 1, compressed),
    "rgb tiff": (".tif", 3, lambda x: tiff([x])),
    "rgb tiff, big end first": (".tif", 3, lambda x: tiff([x], ">")),
    "rgba tiff": (".tif", 4, lambda x: tiff([x])),
    "pgm": (".pgm", 1, ppm),
    "ppm": (".PPM", 3, ppm),
    "plain pgm": (".pgm", 1, plain),
    "plain ppm": (".pnm", 3, plain),
}


@pytest.mark.parametrize("case", FORMATS)
def test_sixteen_bits_are_kept(tmp_path, case):
    suffix, channels, writer = FORMATS[case]
    images = RNG.integers(0, 65536, (4, 7, 5, channels)).astype(np.uint16)
    images[0] %= 200  # dim: of 8 bits nothing would be left
    if channels in (2, 4):
        images[..., -1] = RNG.choice([0, 1000, 65535], (4, 7, 5))
    for i, image in enumerate(images):
        write(tmp_path, f"{i}{suffix}", writer(image))
    fails(r"has more than 8 bits a channel, values up to 65535: type data\.levels=65536", str(tmp_path))
    data = Images(str(tmp_path), levels=65536)
    shown = np.stack([on_white(image) if channels in (2, 4) else image for image in images])
    assert contents(torch.cat((data.train, data.test))) == contents(np.moveaxis(shown, -1, 1).astype(np.int32))
    assert data.levels == 65536 and float(data.shift) == float(data.scale) == 32768 and data.train.dtype == torch.int32
    assert data.encode(torch.tensor([0.0, 65536.0])).tolist() == [-1.0, 1.0]
    assert f"values {int(shown.min())} ... {int(shown.max())} of 65536 levels" in data.notes
    # pages, rows of tables and grey from colour
    if suffix == ".tif" and channels != 2 and case != "grey tiff, compressed":
        write(tmp_path / "pages", "all.tif", tiff(list(images), ">" if "big" in case else "<"))
        pages = Images(str(tmp_path / "pages"), levels=65536)
        assert contents(torch.cat((pages.train, pages.test))) == contents(torch.cat((data.train, data.test)))
    parquet.write_table(arrow.table({"x": [writer(image) for image in images]}), tmp_path / "x.parquet")
    rows = Images(str(tmp_path / "x.parquet"), levels=65536)
    assert contents(torch.cat((rows.train, rows.test))) == contents(torch.cat((data.train, data.test)))
    grey = Images(str(tmp_path / "x.parquet"), levels=65536, channels="grey")
    luma = shown @ (np.array([19595, 38470, 7471]) / 65536) if channels > 2 else shown[..., 0]
    found = torch.cat((grey.train, grey.test)).double().numpy()[:, 0]
    assert max(abs(image - luma).max((1, 2)).min() for image in found) < 0.51


def test_premultiplied_alpha(tmp_path):
    """A TIFF's associated alpha: colours are there already times it."""
    images = RNG.integers(0, 65536, (3, 7, 5, 4)).astype(np.uint16)
    images[..., :3] = np.minimum(images[..., :3], images[..., 3:])
    for i, image in enumerate(images):
        write(tmp_path, f"{i}.tif", tiff([image], tags={338: 1}))
    data = Images(str(tmp_path), levels=65536)
    shown = images[..., :3].astype(np.int64) + (65535 - images[..., 3:].astype(np.int64))
    assert contents(torch.cat((data.train, data.test))) == contents(np.moveaxis(shown, -1, 1).astype(np.int32))


@pytest.mark.parametrize("tag", [1, 3, 6, 8])
def test_sixteen_bits_upright(tmp_path, tag):
    image = RNG.integers(0, 65536, (7, 5, 3)).astype(np.uint16)
    write(tmp_path, "a.tif", tiff([image], tags={274: tag}))
    write(tmp_path, "b.tif", tiff([image], tags={274: tag}))
    data = Images(str(tmp_path), levels=65536)
    turned = np.rot90(image, {1: 0, 3: 2, 6: -1, 8: 1}[tag])
    np.testing.assert_array_equal(data.train[0].numpy(), np.moveaxis(turned, -1, 0))
    assert ("all turned upright as their EXIF says" in data.notes) == (tag != 1)


def bicubic(size, wanted):
    """The weights (wanted, size) of Keys' cubic, a = -1/2, stretched where it shrinks: an implementation in float64."""
    scale = size / wanted
    stretch = max(1.0, scale)
    place = (np.arange(wanted)[:, None] + 0.5) * scale - 0.5
    d = abs(np.arange(size)[None] - place) / stretch
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    weights = np.where(d < 1, near, np.where(d < 2, far, 0.0))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_cropped_and_resized_whole(tmp_path, channels):
    """Against the filter written out: an error of one level of 65536 would be seen, and 8 bits would leave 256."""
    images = RNG.integers(0, 65536, (3, 14, 11, channels)).astype(np.uint16)
    for i, image in enumerate(images):
        write(tmp_path, f"{i}.png", png(image))
    data = Images(str(tmp_path), levels=65536, crop=[12, 10], size=[6, 5])
    part = images[:, 1:13, 0:10].astype(float)
    exact = np.einsum("ai,bj,nijc->ncab", bicubic(12, 6), bicubic(10, 5), part).clip(0, 65535)
    found = torch.cat((data.train, data.test)).double().numpy()
    assert all(min(abs(x - y).max() for y in exact) < 0.51 for x in found)
    assert "all cropped to 10 x 12 round the centre" in data.notes
    enlarged = resized(images[0].astype(np.int32), 20, 30, 65535)
    exact = np.einsum("ai,bj,ijc->abc", bicubic(14, 20), bicubic(11, 30), images[0].astype(float)).clip(0, 65535)
    assert abs(enlarged - exact).max() < 0.51


def test_the_files_own_numbers(tmp_path):
    """12 bits in a file of 16, labels in 8 bits, masks in 1: as they stand there, or refused with what to type."""
    camera = RNG.integers(0, 4096, (3, 7, 5, 1)).astype(np.uint16)
    few = RNG.integers(0, 4, (3, 7, 5)).astype(np.uint8)
    for i in range(3):
        write(tmp_path / "camera", f"{i}.png", png(camera[i]))
        write(tmp_path / "pgm", f"{i}.pgm", ppm(camera[i], 4095))
        write(tmp_path / "few", f"{i}.png", encoded(few[i]))
        write(tmp_path / "two bits", f"{i}.pgm", b"P5 5 7 3\n" + few[i].tobytes())
        write(tmp_path / "mask", f"{i}.png", encoded(few[i] > 1))
        write(tmp_path / "black", f"{i}.png", encoded((few[i] > 1).astype(np.uint8) * 255))
    for folder, levels, values in (
        ("camera", 4096, camera[..., 0]),
        ("camera", 65536, camera[..., 0]),
        ("pgm", 4096, camera[..., 0]),
        ("few", 4, few),
        ("two bits", 4, few),
        ("mask", 2, few > 1),
    ):
        data = Images(str(tmp_path / folder), levels=levels)
        both = torch.cat((data.train, data.test))
        assert contents(both) == contents(values.astype(np.uint8 if levels <= 256 else np.int32)), (folder, levels)
        assert data.levels == levels and float(data.scale) == levels / 2
    assert set(Images(str(tmp_path / "mask")).train.unique().tolist()) == {0, 255}
    assert "all of values 0 ... 1, spread over 0 ... 255" in Images(str(tmp_path / "mask")).notes
    assert set(Images(str(tmp_path / "two bits")).train.unique().tolist()) == {0, 85, 170, 255}
    for folder, levels, message in (
        ("camera", 1000, r"holds the value \d+, data\.levels=1000 allows 0 \.\.\. 999: type data\.levels=4096"),
        ("black", 2, r"holds the value 255, data\.levels=2 allows 0 \.\.\. 1: type data\.levels=256 or null"),
        ("few", 65536, r"data\.levels=65536 is for pictures of more than 8 bits .*: type data\.levels=null"),
        ("pgm", None, r"values up to 4095: type data\.levels=4096"),
        ("few", 1, r"data\.levels=1 must be in 2 \.\.\. 65536"),
    ):
        fails(message, str(tmp_path / folder), levels=levels)


def test_what_cannot_be_kept_whole_is_refused(tmp_path):
    floats = RNG.normal(size=(7, 5)).astype(np.float32)
    rgb = RNG.integers(0, 65536, (7, 5, 3)).astype(np.uint16)
    for name, content, levels, message in (
        ("f.tif", encoded(floats, "TIFF"), None, r"f\.tif holds floating-point numbers: .* data=arrays"),
        ("f.tif", encoded(floats, "TIFF"), 65536, r"f\.tif holds floating-point numbers"),
        ("i.tif", encoded(np.full((7, 5), 70000, np.int32), "TIFF"), 65536, r"i\.tif holds the value 70000"),
        ("w.tif", tiff([rgb[..., 0]], tags={262: 0}), 65536, r"w\.tif .* shows 0 as white"),
        ("c.tif", tiff([np.dstack([rgb, rgb[..., :1]])], tags={262: 5, 338: None}), 65536, r"in the colours CMYK"),
    ):  # fmt: skip
        folder = tmp_path / f"{name}{levels}"
        for k in range(2):
            write(folder, name if k else f"0{name}", content)
        fails(message, str(folder), levels=levels)
    write(tmp_path / "both", "a.png", encoded(PICTURES[0]))
    write(tmp_path / "both", "b.png", png(rgb[..., :1] % 256))
    fails(
        r"values up to (255|65535) a channel and .* up to (255|65535): convert them", str(tmp_path / "both"), levels=256
    )


# ---- large and damaged ------------------------------------------------------------------------------------------


def test_large_pictures_are_read(tmp_path):
    """Above PIL's own limit of 179 million pixels, which is for strangers' files."""
    for side, white in ((13380, 0), (3, 1)):
        Image.new("1", (side, side), white).save(tmp_path / f"{side}.png", compress_level=1)
    data = Images(str(tmp_path), crop=3)
    assert data.shape == (1, 3, 3) and set(torch.cat((data.train, data.test)).unique().tolist()) == {0, 255}


def claims(kind, width, height):
    """A small picture whose header says it is a large one."""
    content = bytearray(encoded(COLOUR[0], kind))
    if kind == "BMP":
        content[18:26] = struct.pack("<ii", width, height)
    elif kind == "GIF":
        content[6:10] = struct.pack("<HH", width, height)
    elif kind == "PNG":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    elif kind == "JPEG":
        place = bytes(content).find(b"\xff\xc0")
        content[place + 5 : place + 9] = struct.pack(">HH", height, width)
    else:
        content = bytearray(tiff([COLOUR[0]], tags={256: width, 257: height}))
    return bytes(content)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PNG", "JPEG", "TIFF"])
def test_a_small_file_that_claims_to_be_large(tmp_path, kind):
    """An implausible size is refused before memory is taken for it; the decoder refuses smaller false sizes."""
    write(tmp_path, "a.png", encoded(COLOUR[0]))
    name = f"z.{kind.lower()}"
    write(tmp_path, name, claims(kind, 65000, 65000))
    fails(rf"/{name} claims 65000 x 65000 pixels and has \d+ bytes: it is damaged", str(tmp_path))
    if kind in ("BMP", "PNG", "TIFF"):  # the others fill in what is not there
        write(tmp_path, name, claims(kind, 3000, 3000))
        fails(rf"/{name} cannot be read as an image", str(tmp_path))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_a_damaged_file_is_named(tmp_path, kind):
    write(tmp_path, "a.png", encoded(COLOUR[0]))
    whole = encoded(COLOUR[0], kind)
    for content, reason in ((b"", r"is empty \(0 bytes\)"), (whole[: len(whole) // 2], "cannot be read as an image"),
                            (b"not a picture", "cannot be read as an image")):  # fmt: skip
        write(tmp_path, f"z.{kind.lower()}", content)
        fails(rf"/z\.{kind.lower()} {reason}.*leave it out", str(tmp_path))


def test_a_damaged_cell_is_named_by_file_and_row(tmp_path):
    cells = [encoded(image) for image in PICTURES[:6]]
    parquet.write_table(arrow.table({"x": cells[:4]}), tmp_path / "a.parquet")
    for bad, reason in ((cells[0][:40], "cannot be read as an image"), (b"", "is empty"), (None, "holds no bytes"),
                        (claims("BMP", 65000, 65000), "claims 65000 x 65000 pixels")):  # fmt: skip
        rows = arrow.table({"x": [cells[4], cells[5], bad]})
        parquet.write_table(rows, tmp_path / "b.parquet", row_group_size=1)  # rows count from the file's start
        fails(rf"data\.path={tmp_path}: row 2 of b\.parquet .*{reason}", str(tmp_path))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-30])
    fails(r"b\.parquet is not a parquet file, or a damaged one", str(tmp_path))
    parquet.write_table(arrow.table({"y": cells}), tmp_path / "b.parquet")
    fails(r"b\.parquet has no column 'x', and a\.parquet has one", str(tmp_path))


# ---- classes in tables ------------------------------------------------------------------------------------------

COLUMNS = {  # values of twelve rows, and the classes and names that they are
    "int8": (arrow.array([i % 3 for i in range(12)], arrow.int8()), [i % 3 for i in range(12)], None),
    "large": (arrow.array([2**60 + i % 3 for i in range(12)]), [2**60 + i % 3 for i in range(12)], None),
    "truths": (arrow.array([i % 2 == 0 for i in range(12)]), [int(i % 2 == 0) for i in range(12)], None),
    "whole floats": (arrow.array([float(i % 3) for i in range(12)]), [i % 3 for i in range(12)], None),
    "words": (arrow.array(["ba"[i % 2] for i in range(12)]), [1 - i % 2 for i in range(12)], ["a", "b"]),
    "padded": (arrow.array(["07", "7"] * 6), [0, 1] * 6, ["07", "7"]),
    "categories": (arrow.array(["b", "a"] * 6).dictionary_encode(), [1, 0] * 6, ["a", "b"]),
    "bytes": (arrow.array([b"b", b"a"] * 6), [1, 0] * 6, ["a", "b"]),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("asked", [False, True])
def test_classes_of_any_type(tmp_path, kind, asked):
    column, values, names = COLUMNS[kind]
    cells = [encoded(image) for image in PICTURES[::25]]
    parquet.write_table(arrow.table({"x": cells, "label": column, "note": ["n"] * 12}), tmp_path / "x.parquet")
    data = Images(str(tmp_path), column="x", **({"labels": "label"} if asked else {}))
    assert data.class_names == names
    found = {image.numpy().tobytes(): int(k) for image, k in zip(torch.cat((data.train, data.test)),
             torch.cat((data.train_labels, data.test_labels)))}  # fmt: skip
    assert [found[image.tobytes()] for image in PICTURES[::25]] == values
    assert {"classes: the column label", "1 other column left out (note)"} <= set(data.notes)


@pytest.mark.parametrize(
    "column, reason",
    [
        ([1, None] * 6, "6 of 12 rows have nothing in the column label"),
        (["a", None] * 6, "6 of 12 rows have nothing in the column label"),
        (["a", " "] * 6, "6 of 12 rows have nothing in the column label"),
        (["a", "NaN"] * 6, "6 of 12 rows have nothing in the column label"),
        ([0.5] * 12, "holds neither whole numbers nor truths nor words"),
        ([[1, 2]] * 12, "holds neither whole numbers nor truths nor words"),
    ],
)
def test_columns_that_hold_no_classes(tmp_path, column, reason):
    cells = [encoded(image) for image in PICTURES[:12]]
    parquet.write_table(arrow.table({"x": cells, "label": column}), tmp_path / "x.parquet")
    fails(rf"data\.labels=label: .*{reason}", str(tmp_path), labels="label")
    data = Images(str(tmp_path))
    assert data.train_labels is None and any(note.startswith("no classes: ") and reason in note for note in data.notes)


def test_notes_are_one_line_of_plain_words(tmp_path):
    data = Images(fill(tmp_path, a=5, b=5))
    assert all(isinstance(note, str) and "\n" not in note for note in data.notes) and json.dumps(data.notes)


def test_opened_keeps_its_place(tmp_path):
    """Pages in any order, and one of them twice."""
    opened = Opened("x", tiff(PICTURES[:4]))
    for k in (2, 0, 3, 3):
        np.testing.assert_array_equal(np.asarray(opened.page(k)), PICTURES[k])
    assert opened.pages() == ([0, 1, 2, 3], 0)
