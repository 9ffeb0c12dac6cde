"""One table in every format that is read: equal examples, labels and statistics, whatever the file looks like."""

import numpy as np
import pytest
import torch

from scoresde.data import Arrays

RNG = np.random.default_rng(3)
COUNT = 300
# a heavy tail, a large mean and whole numbers, sorted so that every prefix is unlike the rest
COLUMNS = np.stack(
    [np.sort(RNG.standard_t(3, COUNT)), 1e4 + RNG.normal(size=COUNT), RNG.integers(-50, 50, COUNT).astype(float)], 1
)
WORDS = np.sort(RNG.choice(["none", "mild", "severe, acute", "007", "7"], COUNT, p=[0.3, 0.3, 0.2, 0.1, 0.1]))
NUMBERS = np.sort(RNG.choice([3, 9007199254740993, 9007199254740992, -1], COUNT))
NAMES = ["dose", "400", "site b"]


def text(rows, labels, mark=",", decimal=".", header=True, quote="", end="\n"):
    """A csv file's text; label words that hold the delimiter are quoted."""

    def cell(value):
        return f"{quote}{value!r}{quote}".replace(".", decimal)

    def word(label):
        return f'"{label}"' if mark in str(label) or quote else str(label)

    lines = (
        [mark.join(f"{quote}{name}{quote}" if mark in name else name for name in [*NAMES, "kind"])] if header else []
    )
    if mark == " ":
        lines = ['dose 400 "site b" kind'] if header else []
    lines += [
        mark.join([*map(cell, row), word(label)]) for row, label in zip(rows.tolist(), labels.tolist(), strict=True)
    ]
    return end.join(lines) + end


def parquet(path, rows, labels, dictionary=False):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {name: arrow.array(column) for name, column in zip(NAMES, rows.T, strict=True)}
    kinds = arrow.array(labels.tolist())
    parquet.write_table(
        arrow.table(columns | {"kind": kinds.dictionary_encode() if dictionary else kinds}), path, row_group_size=70
    )


CSV = {
    "header": {},
    "none": {"header": False},
    "semicolons": {"mark": ";"},
    "decimal-commas": {"mark": ";", "decimal": ","},
    "decimal-commas-none": {"mark": ";", "decimal": ",", "header": False},
    "decimal-commas-tabs": {"mark": "\t", "decimal": ","},
    "quoted-decimal-commas": {"decimal": ",", "quote": '"'},
    "quoted": {"quote": '"'},
    "tabs": {"mark": "\t"},
    "blanks": {"mark": " "},
    "crlf": {"end": "\r\n"},
    "cr": {"end": "\r"},
    "blank-lines": {"end": "\n\n"},
}


def write(kind, folder, rows, labels):
    """The table in a file, and the arguments that read it with its labels."""
    name = "kind"
    if kind in CSV or kind == "bom":
        path = folder / f"{kind}.csv"
        content = text(rows, labels, **CSV.get(kind, {}))
        path.write_bytes(content.encode("utf-8-sig" if kind == "bom" else "utf-8"))
        name = 3 if kind.endswith("none") else "kind"
    elif kind.startswith("parquet"):
        path = folder / "t.parquet"
        parquet(path, rows, labels, kind == "parquet-dictionary")
    elif kind == "npy":
        path, name = folder / "t.npy", None
        np.save(path, rows)
    else:
        path = folder / "t.npz"
        if kind == "npz-bytes" and labels.dtype.kind == "U":
            labels = np.array([label.encode() for label in labels.tolist()])
        order = {"npz-fortran": np.asfortranarray(rows), "npz-big-endian": rows.astype(">f8")}
        np.savez(path, x=order.get(kind, rows), kind=labels)
    return str(path), name


KINDS = (*CSV, "bom", "parquet", "parquet-dictionary", "npy", "npz", "npz-bytes", "npz-fortran", "npz-big-endian")


def statistics(data):
    mean, variances, directions, rest = data.moments()
    covariance = directions @ variances.diag() @ directions.T
    return data.shift, data.scale, torch.tensor(data.std), mean, covariance, torch.tensor(data.largest_distance())


def labelled(data, part):
    found = getattr(data, f"{part}_labels")
    return [data.class_names[k] if data.class_names else str(k) for k in found.tolist()]


@pytest.mark.parametrize("labels", [WORDS, NUMBERS], ids=["words", "numbers"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_examples_labels_and_statistics(kind, labels, tmp_path):
    reference = Arrays(*saved(tmp_path, COLUMNS))
    path, name = write(kind, tmp_path, COLUMNS, labels)
    data = Arrays(path, labels=name)
    for part in ("train", "test"):
        assert torch.equal(getattr(data, part), getattr(reference, part))  # the split goes by the row's place
    for own, expected in zip(statistics(data), statistics(reference), strict=True):
        assert torch.equal(own, expected)
    assert data.dim == 3 and len(data.train) + len(data.test) == COUNT
    said = data.describe()
    assert "300" in said and "270" in said and "30 held out" in said
    if name is None:
        return
    wanted = dict(zip(COLUMNS[:, 0].tolist(), labels.astype(str).tolist(), strict=True))
    for part in ("train", "test"):  # kept in float64, since the second column varies so little
        assert labelled(data, part) == [wanted[value] for value in getattr(data, part)[:, 0].tolist()]
    named = not kind.endswith("none") and not kind.startswith("np")
    assert data.labels() == (NAMES if named else None)
    assert f"labels from {name}: {len(set(labels.tolist()))} classes" in said
    if labels is WORDS:
        assert f"the word none is a class of {(labels == 'none').sum()} rows" in said


def saved(folder, rows):
    path = folder / "reference.npy"
    np.save(path, rows)
    return (str(path),)


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_rows_change_no_statistic_beyond_its_sampling_error(kind, tmp_path):
    order = RNG.permutation(COUNT)
    path, name = write(kind, tmp_path, COLUMNS, WORDS)
    first = Arrays(path, labels=name)
    path, _ = write(kind, tmp_path, COLUMNS[order], WORDS[order])
    second = Arrays(path, labels=name)

    def rows(data):
        return sorted(torch.cat([data.train, data.test]).tolist())

    assert rows(first) == rows(second)
    held = len(first.test) / COUNT
    # two training parts that share most rows: the error of a mean over n rows, of which a share is exchanged
    error = first.scale * (2 * held / len(first.train)) ** 0.5
    assert bool(((first.shift - second.shift).abs() < 4 * error).all())
    fourth = ((torch.tensor(COLUMNS) - first.shift) / first.scale).pow(4).mean(0)
    spread = ((fourth - 1) * 2 * held / len(first.train)).sqrt() / 2
    assert bool(((second.scale / first.scale - 1).abs() < 4 * spread).all())
    prefix = first.train[:100].double()  # every prefix is a random subset, though the file is sorted
    assert bool(((prefix.mean(0) - first.shift).abs() < 4 * first.scale / 10).all())
    if name is None:
        return
    for word in set(WORDS.tolist()):
        share = (WORDS == word).mean()
        for data in (first, second):
            found = np.mean([label == word for label in labelled(data, "train")[:100]])
            assert abs(found - share) < 4 * (share * (1 - share) / 100) ** 0.5
