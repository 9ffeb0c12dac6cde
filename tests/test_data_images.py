"""Images from folders, parquet files and (a stand-in for) the Hub: the pixels that were written are the pixels read."""

import io
import os
import sys

import numpy as np
import pytest
import torch

import scoresde.data.images
from scoresde.conf.assemble import build_data, settle
from scoresde.conf.identity import identity_of
from scoresde.conf.schema import build
from scoresde.data import Images
from scoresde.data.encoded import Encoded
from scoresde.data.hub import Cells, reachable
from scoresde.data.images import without_withheld
from scoresde.data.order import order
from scoresde.training.store import digest

from .conftest import compose

Image = pytest.importorskip("PIL.Image")
arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 7, 5)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (12, 7, 5, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """No test asks the network; what a test changes in the environment ends with it."""
    monkeypatch.setattr("scoresde.data.hub.reachable", lambda: True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def png(values, **options):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format="PNG", **options)
    return stream.getvalue()


def write_images(folder, images, prefix="image"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        (folder / f"{prefix}{i:02d}.png").write_bytes(png(image))
    return str(folder)


def write_table(file, images, column="image", labels=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {column: [{"bytes": png(image), "path": f"{i}.png"} for i, image in enumerate(images)]}
    parquet.write_table(arrow.table(columns | ({} if labels is None else {"label": labels})), file)


def contents(images):
    """The images (N, C, H, W), tensor or array, as a sorted list that can be compared."""
    return sorted(np.asarray(image).tobytes() for image in images)


def channels_first(images):
    return images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)


def fails(message, path, kind=ValueError, **arguments):
    with pytest.raises(kind, match=message) as caught:
        build({"_target_": "data.Images", "path": path} | arguments, "data")
    assert "\n" not in str(caught.value)


# ---- pixels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images, shape", [(GREY, (1, 7, 5)), (COLOUR, (3, 7, 5))])
def test_a_folder_of_image_files(tmp_path, images, shape):
    write_images(tmp_path / "a", images[:6])
    write_images(tmp_path / "b" / "c", images[6:])
    write_images(tmp_path / ".hidden", images)
    data = Images(str(tmp_path), test_fraction=0.25)
    assert data.shape == shape and data.train.dtype == torch.uint8 and data.levels == 256
    assert len(data.train) == 9 and len(data.test) == 3
    assert contents(torch.cat((data.train, data.test))) == contents(channels_first(images))
    assert data.encode(torch.tensor([0.0, 256.0])).tolist() == [-1.0, 1.0]
    # what lies beside a class' folders has none, and a class' own subfolders are of it
    assert data.class_names == ["a", "b"]
    labels = torch.cat((data.train_labels, data.test_labels))
    assert labels.bincount().tolist() == [6, 6]
    for image, label in zip(torch.cat((data.train, data.test)), labels, strict=True):
        found = (channels_first(images) == image.numpy()).reshape(12, -1).all(1).argmax()
        assert int(label) == (found >= 6)
    write_images(tmp_path, images[:1])
    assert Images(str(tmp_path)).train_labels is None


def test_parquet_files_of_the_hubs_layout(tmp_path):
    write_table(tmp_path / "data" / "train-00000-of-00002.parquet", COLOUR[:5], labels=[0, 1, 2, 3, 4])
    write_table(tmp_path / "data" / "train-00001-of-00002.parquet", COLOUR[5:9], labels=[5, 6, 7, 8])
    write_table(tmp_path / "data" / "test-00000-of-00001.parquet", COLOUR[9:], labels=[9, 10, 11])
    data = Images(str(tmp_path))
    np.testing.assert_array_equal(data.train.numpy(), channels_first(COLOUR[:9])[order(9)])
    np.testing.assert_array_equal(data.test.numpy(), channels_first(COLOUR[9:])[order(3)])
    assert data.train_labels.tolist() == order(9).tolist() and data.test_labels.tolist() == (9 + order(3)).tolist()
    only = Images(str(tmp_path / "data" / "test-00000-of-00001.parquet"))
    assert len(only.train) == 2 and len(only.test) == 1
    for image, label in zip(only.train, only.train_labels, strict=True):
        np.testing.assert_array_equal(image.numpy(), channels_first(COLOUR)[label])


def test_bytes_without_a_path_are_images_too(tmp_path):
    parquet.write_table(arrow.table({"photo": [png(image) for image in GREY]}), tmp_path / "x.parquet")
    data = Images(str(tmp_path))
    assert contents(torch.cat((data.train, data.test))) == contents(channels_first(GREY))


def test_splits_that_are_subfolders(tmp_path):
    write_images(tmp_path / "train" / "cat", GREY[:6])
    write_images(tmp_path / "test" / "cat", GREY[6:9])
    write_images(tmp_path / "validation", GREY[9:])
    data = Images(str(tmp_path))
    assert contents(data.train) == contents(GREY[:6]) and contents(data.test) == contents(GREY[6:9])
    assert contents(Images(str(tmp_path), test_split="validation").test) == contents(GREY[9:])
    only = Images(str(tmp_path), split="test")  # not held out from itself
    assert contents(torch.cat((only.train, only.test))) == contents(GREY[6:9])


def test_channels_asked_for(tmp_path):
    grey, colour = write_images(tmp_path / "grey", GREY), write_images(tmp_path / "colour", COLOUR)
    three = Images(grey, channels="rgb")
    assert three.shape == (3, 7, 5) and torch.equal(three.train[:, 0], three.train[:, 2])
    one = Images(colour, channels="grey")
    luma = Images(colour).train.double()[:, 0] * 0.299
    luma = luma + Images(colour).train.double()[:, 1] * 0.587 + Images(colour).train.double()[:, 2] * 0.114
    assert one.shape == (1, 7, 5) and (one.train[:, 0].double() - luma).abs().max() <= 1


def test_size_crops_round_the_centre_and_resizes(tmp_path):
    wide = np.zeros((3, 8, 16), np.uint8)
    wide[:, :, 4:12] = 200  # what the centre holds
    write_images(tmp_path, wide)
    assert Images(str(tmp_path)).shape == (1, 8, 16)
    square = Images(str(tmp_path), size=8)
    assert square.shape == (1, 8, 8) and (square.train == 200).all()
    assert (Images(str(tmp_path), size=4).train == 200).all()
    assert Images(str(tmp_path), size=[4, 8]).shape == (1, 4, 8)


def test_transparent_pixels_are_white(tmp_path):
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, :, 3] = 255
    write_images(tmp_path, [image, image])
    assert Images(str(tmp_path)).train[0].tolist() == [[[0, 0], [255, 255]]] * 3


def test_photographs_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned a quarter
    for name in "ab":
        Image.fromarray(GREY[0]).save(tmp_path / f"{name}.png", exif=exif)
    np.testing.assert_array_equal(Images(str(tmp_path)).train[0, 0].numpy(), np.rot90(GREY[0], -1))


def test_a_crop_is_cut_out_before_the_size(tmp_path):
    """Pixel by pixel, and not resized; what lies outside is not seen."""
    images = RNG.integers(0, 256, (4, 11, 9)).astype(np.uint8)
    path = write_images(tmp_path / "a", images)
    data = Images(path, crop=6, test_fraction=0.5)
    assert contents(torch.cat((data.train, data.test))) == contents(images[:, 2:8, 1:7])
    assert Images(path, crop=[6, 4]).shape == (1, 6, 4)
    small = Images(path, crop=6, size=3)
    assert small.shape == (1, 3, 3)
    images[:, :2], images[:, :, 7:] = 255, 0
    again = Images(write_images(tmp_path / "b", images), crop=6, size=3)
    assert contents(torch.cat((again.train, again.test))) == contents(torch.cat((small.train, small.test)))
    assert not torch.equal(Images(str(tmp_path / "b"), size=3).train, Images(path, size=3).train)
    fails(r"data\.crop=\[12, 12\]: .*image.*\.png has 11 x 9 pixels: type a smaller data\.crop", path, crop=12)


def test_labels_of_another_column(tmp_path):
    """Booleans and words can be labels; the column called label is then ignored."""
    table = {
        "img": [png(image) for image in GREY],
        "label": list(range(12)),
        "Smiling": [i % 3 == 0 for i in range(12)],
        "hair": [("black", "grey")[i % 2] for i in range(12)],
        "size": [0.5] * 12,
    }
    parquet.write_table(arrow.table(table), tmp_path / "train.parquet")
    first = [int((channels_first(GREY) == image.numpy()).reshape(12, -1).all(1).argmax()) for image in
             Images(str(tmp_path)).train]  # fmt: skip
    assert Images(str(tmp_path)).train_labels.tolist() == first
    assert Images(str(tmp_path), labels="Smiling").train_labels.tolist() == [int(i % 3 == 0) for i in first]
    hair = Images(str(tmp_path), labels="hair")
    assert hair.class_names == ["black", "grey"] and hair.train_labels.tolist() == [i % 2 for i in first]
    fails(r"data\.labels=Bald: .* has no such column, it has img, label, Smiling", str(tmp_path), labels="Bald")
    fails(r"data\.labels=size: .* holds neither whole numbers nor truths nor words", str(tmp_path), labels="size")
    fails(r"data\.labels=kind: .* holds image files", write_images(tmp_path / "a", GREY), labels="kind")


def test_many_pieces_are_read_in_their_order(tmp_path):
    """A table's column comes in pieces, of any length."""
    rows = [{"bytes": png(image), "path": None} for image in COLOUR]
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    with parquet.ParquetWriter(tmp_path / "train.parquet", arrow.schema([("image", kind)])) as writer:
        for a, b in ((0, 1), (1, 6), (6, 12)):
            writer.write_table(arrow.table({"image": arrow.array(rows[a:b], kind)}))
    write_table(tmp_path / "train-2.parquet", COLOUR[:3])
    data = Images(str(tmp_path))
    assert contents(torch.cat((data.train, data.test))) == contents(
        channels_first(np.concatenate([COLOUR, COLOUR[:3]]))
    )


# ---- data sets by name ------------------------------------------------------------------------------------------

NAMED = {  # as the Hub has them: the column of images, that of labels, the held-out split, the shape of an image
    "mnist": ("image", "label", "test", (28, 28)),
    "fashion_mnist": ("image", "label", "test", (28, 28)),
    "cifar10": ("img", "label", "test", (32, 32, 3)),
    "celeba": ("image", "Smiling", "test", (218, 178, 3)),
    "imagenet32": ("image", "label", "validation", (32, 32, 3)),
}


def copy_of(folder, name):
    """A copy of a data set of the Hub, small, with the layout of its parquet files; and its images."""
    column, label, held_out, shape = NAMED[name]
    images = RNG.integers(0, 256, (8, *shape)).astype(np.uint8)
    labels = [bool(i % 2) for i in range(8)] if name == "celeba" else [i % 2 for i in range(8)]
    for part, some in (("train", slice(0, 5)), (held_out, slice(5, 8)), ("valid", slice(0, 1))):
        table = {column: [{"bytes": png(image), "path": "x"} for image in images[some]], label: labels[some]}
        if name == "celeba":
            table["Bald"] = [i % 3 == 0 for i in range(len(labels[some]))]
        (folder / "data").mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.table(table), folder / "data" / f"{part}-00000-of-00001.parquet")
    return channels_first(images), np.array(labels, dtype=int)


@pytest.mark.parametrize("name", NAMED)
def test_a_data_set_by_its_name(tmp_path, name):
    images, labels = copy_of(tmp_path, name)
    words = [f"data={name}", f"data.path={tmp_path}", "data.condition=labels"]
    cfg = compose(*words, *(["data.labels=Smiling"] if name == "celeba" else []))
    data = build_data(cfg)
    assert data.train_labels.tolist() == labels[:5][order(5)].tolist()
    assert data.test_labels.tolist() == labels[5:][order(3)].tolist()
    assert data.levels == 256 and data.flip == (name in ("cifar10", "celeba", "imagenet32"))
    if name == "celeba":
        assert data.shape == (3, 64, 64)
        middle = images[order(5)[0]][:, 39:179, 19:159]
        by_hand = Image.fromarray(np.moveaxis(middle, 0, -1)).resize((64, 64), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(data.train[0].numpy(), channels_first(np.asarray(by_hand)[None])[0])
    else:
        np.testing.assert_array_equal(data.train.numpy(), images[:5][order(5)])
        np.testing.assert_array_equal(data.test.numpy(), images[5:][order(3)])


@pytest.mark.parametrize("name", NAMED)
def test_a_name_that_cannot_be_had_says_what_to_type(monkeypatch, name):
    datasets = pytest.importorskip("datasets")

    def unreachable(*arguments):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        FileNotFoundError, match=r"data\.path=[\w-]+/[\w-]+ .*; type data\.path=FOLDER, a folder with a copy"
    ):
        build_data(compose(f"data={name}"))


def test_what_decides_a_network_of_images(tmp_path):
    """Mirroring and cropping do; where pixels are kept, and labels that the network is not conditioned on, do not."""
    copy_of(tmp_path, "celeba")

    def named(*words):
        cfg = compose("data=celeba", f"data.path={tmp_path}", "data.size=8", *words)
        data = build_data(cfg)
        return digest(identity_of(settle(cfg, data, "cpu"), data))

    plain = named("data.flip=false", "data.crop=null")
    assert plain == named("data.flip=false", "data.crop=null", "data.cache=null", "data.labels=Smiling")
    others = [named("data.crop=null"), named("data.flip=false"), named("data.flip=false", "data.crop=100")]
    conditional = [named("data.condition=labels", f"data.labels={word}") for word in ("Smiling", "Bald", "Smiling")]
    assert len({plain, *others, *conditional}) == 6 and conditional[0] == conditional[2]


# ---- decoded pixels, kept ---------------------------------------------------------------------------------------


def test_what_took_long_to_decode_is_kept(tmp_path, monkeypatch, caplog):
    path, kept = write_images(tmp_path / "images", GREY), tmp_path / "pixels"
    decoded, decode = [], scoresde.data.images.decode
    monkeypatch.setattr("scoresde.data.images.decode", lambda *given: decoded.append(1) or decode(*given))
    plain = Images(path, cache=str(kept))
    assert not kept.exists(), "that was quick"
    monkeypatch.setattr("scoresde.data.decoded.LONG", 0.0)
    for _ in range(3):
        again = Images(path, cache=str(kept))
        assert torch.equal(again.train, plain.train) and torch.equal(again.test, plain.test)
    assert len(decoded) == 2 and {path.suffix for path in kept.iterdir()} == {".npy", ".sha256"}
    for keys in ({"size": 3}, {"crop": 4}, {"channels": "rgb"}, {"seed": 1}, {"limit": 3}, {"test_fraction": 0.5}):
        before = len(decoded)
        Images(path, cache=str(kept), **keys)
        assert len(decoded) == before + 1, keys
    (tmp_path / "file").write_text("")
    assert torch.equal(Images(path, cache=str(tmp_path / "file" / "no")).train, plain.train)
    assert "could not be kept" in caplog.text


def reshaped(content: bytes) -> bytes:
    """The header of an .npy claims another shape of as many values: numpy reads it without an error."""
    start, end = content.index(b"(") + 1, content.index(b")")
    return content[:start] + b", ".join(reversed(content[start:end].split(b", "))) + content[end:]


PIXEL_DAMAGE = {
    "a flipped bit": lambda content: content[:-1] + bytes([content[-1] ^ 4]),
    "a flipped bit of a pixel": lambda content: content[:130] + bytes([content[130] ^ 4]) + content[131:],
    "another shape": reshaped,
    "another dtype": lambda content: content.replace(b"|u1", b"|i1", 1),
    "cut off": lambda content: content[:-40],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize(
    "file, damage",
    [
        *(("*.npy", damage) for damage in (*PIXEL_DAMAGE, "absent")),
        *(("*.sha256", damage) for damage in ("a flipped bit", "empty", "absent")),
    ],
)
def test_damaged_pixels_are_decoded_anew_and_written_anew(tmp_path, monkeypatch, caplog, file, damage):
    """Also from a file without a checksum, which earlier versions wrote, and where decoding is quick by now."""
    path, kept = write_images(tmp_path / "images", GREY), tmp_path / "pixels"
    plain = Images(path)
    monkeypatch.setattr("scoresde.data.decoded.LONG", 0.0)
    Images(path, cache=str(kept))
    monkeypatch.setattr("scoresde.data.decoded.LONG", 5.0)
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    (target,) = kept.glob(file)
    if damage == "absent":
        target.unlink()
    else:
        target.write_bytes(PIXEL_DAMAGE[damage](before[target.name]))
    decoded, decode = [], scoresde.data.images.decode
    monkeypatch.setattr("scoresde.data.images.decode", lambda *given: decoded.append(1) or decode(*given))
    for _ in range(2):
        again = Images(path, cache=str(kept))
        assert torch.equal(again.train, plain.train) and torch.equal(again.test, plain.test)
    if (file, damage) == ("*.npy", "absent"):
        warned = [record for record in caplog.records if record.levelname == "WARNING"]
        assert len(decoded) == 2 and not warned, "as in a store without pixels"
    else:
        assert len(decoded) == 1 and caplog.text.count("decoded anew") == 1
        assert {path.name: path.read_bytes() for path in kept.iterdir()} == before


# ---- split, limit, identity -------------------------------------------------------------------------------------


def test_seed_decides_split_and_limit(tmp_path):
    path = write_images(tmp_path, GREY)
    assert torch.equal(Images(path).train, Images(path).train)
    assert contents(Images(path, test_fraction=0.5).test) != contents(Images(path, test_fraction=0.5, seed=1).test)
    few = Images(path, test_fraction=0.5, limit=4)
    assert len(few.train) == len(few.test) == 4
    assert not set(contents(few.train)) & set(contents(few.test))
    assert set(contents(few.train)) <= set(contents(Images(path, test_fraction=0.5).train))


def test_content_not_path_is_the_fingerprint(tmp_path):
    a, b = write_images(tmp_path / "a", GREY), write_images(tmp_path / "b", GREY)
    assert Images(a).fingerprint() == Images(b).fingerprint()
    write_images(tmp_path / "b", GREY[:1] ^ 1)
    assert Images(a).fingerprint() != Images(b).fingerprint()


# ---- the Hub ----------------------------------------------------------------------------------------------------


def test_a_name_goes_to_the_hub(monkeypatch):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})

    def part(images):
        rows = {"img": [{"bytes": png(image), "path": None} for image in images], "label": [1] * len(images)}
        return datasets.Dataset.from_dict(rows, features=features)

    asked = []
    hub = datasets.DatasetDict({"train": part(COLOUR[:8]), "test": part(COLOUR[8:])})
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments: asked.append(arguments) or hub)
    data = Images("someone/pictures", subset="small")
    assert asked == [("someone/pictures", "small")]
    np.testing.assert_array_equal(data.train.numpy(), channels_first(COLOUR[:8])[order(8)])
    np.testing.assert_array_equal(data.test.numpy(), channels_first(COLOUR[8:])[order(4)])
    assert data.train_labels.tolist() == [1] * 8 and data.fingerprint() == Images("someone/pictures").fingerprint()
    fails(r"data\.split=big: someone/pictures has no such split, it has train, test", "someone/pictures", split="big")

    def unreachable(*arguments):
        raise ConnectionError("no route to host\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    said = (
        r"data\.path=someone/pictures is neither a folder \(/.*\) nor could it be had from the Hub: no route to host; "
    )
    fails(said + r"type data\.path=FOLDER, a folder with a copy", "someone/pictures", FileNotFoundError)


def test_without_a_network_the_hub_is_not_asked_again_and_again(monkeypatch):
    datasets = pytest.importorskip("datasets")
    seen = []
    monkeypatch.setattr("scoresde.data.hub.reachable", lambda: False)
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments: seen.append(os.environ["HF_HUB_OFFLINE"]) or {})
    fails(r"data\.split=train: someone/pictures has no such split", "someone/pictures")
    assert seen == ["1"]


def test_a_host_that_is_not_there_is_not_reachable(monkeypatch):
    monkeypatch.undo()
    for endpoint in ("http://127.0.0.1:9", "no address"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert not reachable()


def test_missing_libraries_are_named(monkeypatch, tmp_path):
    write_images(tmp_path / "images", GREY)
    write_table(tmp_path / "tables" / "train.parquet", GREY)
    for module, path in (("PIL", "images"), ("pyarrow", "tables"), ("datasets", "someone/pictures")):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, module, None)
            where = path if "/" in path else str(tmp_path / path)
            fails(r"pip install -e \.\[images\]", where, ImportError)


# ---- mistakes ---------------------------------------------------------------------------------------------------


def test_a_path_that_leads_nowhere(tmp_path):
    fails(r"data\.path is not set: type data\.path=FOLDER", None)
    fails(rf"data\.path={tmp_path}/no: there is no folder {tmp_path}/no", f"{tmp_path}/no", FileNotFoundError)
    fails(r"there is no folder /.*/no$", "./no", FileNotFoundError)
    (tmp_path / "readme.txt").write_text("nothing here")
    fails(r"holds no images \(it holds readme\.txt\): neither \.parquet nor .* \.png", str(tmp_path))
    write_images(tmp_path, GREY[:1])
    fails(r"holds 1 image", str(tmp_path))
    write_table(tmp_path / "x.parquet", GREY)
    fails(r"parquet files and image files: name a subfolder", str(tmp_path))


def test_mixed_sizes_and_channels_are_named(tmp_path):
    write_images(tmp_path, GREY[:3])
    (tmp_path / "z.png").write_bytes(png(GREY[0, :6, :4]))
    fails(r"image.*\.png is 5 x 7 pixels and .*z\.png is 4 x 6: type data\.size=4", str(tmp_path), seed=3)
    assert Images(str(tmp_path), size=4).shape == (1, 4, 4)
    (tmp_path / "z.png").write_bytes(png(COLOUR[0]))
    fails(r"image.* is grey and .*z\.png is rgb: type data\.channels=rgb or data\.channels=grey", str(tmp_path), seed=3)


def test_files_that_are_no_8_bit_images(tmp_path):
    write_images(tmp_path, GREY[:3])
    (tmp_path / "z.png").write_bytes(png(GREY[0])[:40])
    fails(r"z\.png cannot be read as an image", str(tmp_path))
    (tmp_path / "z.png").write_bytes(png(GREY[0].astype(np.uint16) * 256))
    fails(r"z\.png has more than 8 bits a channel", str(tmp_path))


def test_tables_that_leave_a_choice_open_or_have_none(tmp_path):
    file = tmp_path / "train.parquet"
    both = {"a": [png(image) for image in GREY], "b": [png(image) for image in GREY], "n": list(range(12))}
    parquet.write_table(arrow.table(both), file)
    fails(r"the columns a, b hold images \(of a, b, n\): type data\.column=NAME", str(tmp_path))
    fails(r"data\.column=n of .* holds no images", str(tmp_path), column="n")
    fails(r"data\.column=z: .* has the columns a, b, n", str(tmp_path), column="z")
    assert Images(str(tmp_path), column="b").shape == (1, 7, 5)
    parquet.write_table(arrow.table({"n": [1, 2]}), file)
    fails(r"no column holds images \(of n\)", str(tmp_path))
    parquet.write_table(arrow.table({"a": [png(GREY[0]), None]}), file)
    fails(r"row 1 of column 'a' holds no bytes", str(tmp_path))
    parquet.write_table(arrow.table({"a": both["a"]}).slice(0, 0), file)
    fails(r"train\.parquet holds no rows", str(tmp_path))
    file.write_bytes(b"no such thing")
    fails(r"train\.parquet is not a parquet file", str(tmp_path))


def test_splits_that_are_not_there(tmp_path):
    write_table(tmp_path / "train.parquet", GREY)
    fails(r"data\.split=big: no file or subfolder .* called so; it holds train\.parquet", str(tmp_path), split="big")
    fails(r"data\.test_split=test: no file", str(tmp_path), test_split="test")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"channels": "blue"}, r"data\.channels=blue must be auto, rgb or grey"),
        ({"size": 0}, r"data\.size=\(0, 0\) must be"),
        ({"size": [1, 2, 3]}, r"data\.size=\[1, 2, 3\] must be"),
        ({"crop": 0}, r"data\.crop=\(0, 0\) must be .*: type data\.crop=32"),
        ({"limit": 0}, r"data\.limit=0 must be at least 1"),
        ({"test_fraction": 1.0}, r"data\.test_fraction=1\.0 must lie"),
        ({"seed": -1}, r"data\.seed=-1 must be"),
    ],
)
def test_mistyped_values_are_named(tmp_path, arguments, message):
    fails(message, write_images(tmp_path, GREY), **arguments)


def test_labels_are_withheld_only_if_all_are_negative():
    train, test = (Encoded(3, None, np.array(labels)) for labels in ([-1, 0, 1], [-1, -1, -1]))
    assert without_withheld(train, train) == (train, train, [])
    no_train, no_test, notes = without_withheld(train, test)
    assert no_train.labels is None and no_test.labels is None
    assert notes == ["the held-out images' labels are withheld (all -1)"]


def test_a_hub_split_is_read_block_by_block(monkeypatch):
    class Rows:
        def __getitem__(self, at: slice) -> dict:
            return {"image": arrow.array([{"bytes": bytes([i]), "path": None} for i in range(7)][at])}

    monkeypatch.setattr("scoresde.data.hub.BLOCK", 3)
    cells = Cells("name", "train", Rows(), "image")
    assert [cells(i)[1] for i in (0, 2, 3, 6, 1)] == [bytes([i]) for i in (0, 2, 3, 6, 1)]


def test_a_palette_has_no_numbers_of_its_own(tmp_path):
    for i in range(2):
        Image.fromarray(np.full((4, 4), i, np.uint8)).convert("P").save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match="`levels`=16: the numbers of .* are places in a palette"):
        Images(str(tmp_path), levels=16)
