"""Files cut off or with changed bytes are read, or end in one line that names the file."""

import io

import numpy as np
import pytest

from scoresde.data import Arrays, Images, read_points

X = np.random.default_rng(0).normal(size=(20, 3))
WORDS = ["a", "b"] * 10


def npz(path, save):
    save(path, x=X, y=np.array(WORDS))


def csv(path):
    path.write_text("a,b,c,y\n" + "".join(f"{a},{b},{c},{k}\n" for (a, b, c), k in zip(X, WORDS, strict=True)))


def table(path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": WORDS}), path)


def pictures(path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    image, cell = pytest.importorskip("PIL.Image"), io.BytesIO()
    image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(cell, "PNG")
    parquet.write_table(arrow.table({"image": [cell.getvalue()] * 3, "label": [0, 1, 0]}), path)


WRITERS = {
    "a.npy": lambda path: np.save(path, X),
    "a.npz": lambda path: npz(path, np.savez),
    "b.npz": lambda path: npz(path, np.savez_compressed),
    "a.csv": csv,
    "a.parquet": table,
    "pictures.parquet": pictures,
}


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes cut off, with some of them changed, or with others in between."""
    kind, place = rng.integers(3), int(rng.integers(len(content)))
    if kind == 0:
        return content[:place]
    if kind == 1:
        changed = bytearray(content)
        for at in rng.integers(min(len(content), 300), size=4):
            changed[at] = rng.integers(256)
        return bytes(changed)
    return content[:place] + rng.bytes(8) + content[place:]


@pytest.mark.parametrize("name", WRITERS)
def test_damage_ends_in_one_line_that_names_the_file(name, tmp_path):
    path, rng, refused = tmp_path / name, np.random.default_rng(3), 0
    WRITERS[name](path)
    content = path.read_bytes()
    for _ in range(150):
        path.write_bytes(damaged(content, rng))
        try:
            if name == "pictures.parquet":
                Images(str(path))
            else:
                Arrays(str(path), labels=None if name == "a.npy" else "y")
                read_points(str(path), (3,))
        except ValueError as error:
            assert name in str(error) and "\n" not in str(error), error
            refused += 1
    assert refused > 50
