"""The errors of data sets built from a configuration name their keys in full, wherever the node stands."""

import math

import numpy as np
import pytest

from scoresde.conf.schema import build

RNG = np.random.default_rng(0)
THREE = {"weights": [0.5, 0.5], "means": [[0.0, 1.0], [1.0, 0.0]], "stds": [1.0, 1.0]}
EYE = [[1.0, 0.0], [0.0, 1.0]]


def message_of(target, keys, kind=ValueError):
    """The error of a node at the place a.b; ``data.condition`` is the one key of data sets that is no argument."""
    with pytest.raises(kind) as caught:
        build({"_target_": f"data.{target}"} | keys, "a.b")
    message = str(caught.value)
    assert "`" not in message and "data." not in message.replace("data.condition=", "")
    return message


@pytest.mark.parametrize(
    "target, keys, names",
    [
        *((name, {"count": 0}, "count") for name in ("Moons", "SwissRoll", "TwoSpirals", "Pinwheel", "Checkerboard")),
        *((name, {"test_count": 0}, "test_count") for name in ("Rings", "EightGaussians", "Line", "Heartbeat")),
        *((name, {"seed": -1}, "seed") for name in ("Moons", "Digits", "Line", "Heartbeat")),
        *((name, {"noise": math.nan}, "noise") for name in ("Moons", "SwissRoll", "TwoSpirals", "Rings")),
        ("EightGaussians", {"noise": 0.0}, "noise"),
        ("Digits", {"test_count": 0}, "test_count"),
        ("Digits", {"test_count": 1797}, "test_count"),
        ("Heartbeat", {"period": 1}, "period"),
        ("Heartbeat", {"length": 4}, "length"),
        ("Line", {"degrees": 400.0}, "degrees"),
        ("Gaussian", {"covariance": [[1.0], [0.0, 1.0]]}, "covariance"),
        ("Gaussian", {"covariance": [[1.0, 2.0], [2.0, 1.0]]}, "covariance"),
        ("Gaussian", {"covariance": EYE, "mean": [0.0]}, "mean"),
        ("Mixture", THREE | {"stds": [1.0]}, "weights"),
        ("Mixture", THREE | {"stds": [1.0, 0.0]}, "stds"),
        ("Mixture", THREE | {"means": [[0.0, 1.0], [1.0]]}, "means"),
        ("Mixture", THREE | {"means": [[0.0, math.inf], [1.0, 0.0]]}, "means"),
        ("Mixture", THREE | {"shape": [0]}, "shape"),
        ("Unseen", {}, "shape"),
        ("Unseen", {"shape": [3, 8, 8], "std": 0.0}, "std"),
        ("Arrays", {}, "path"),
        ("Arrays", {"path": " "}, "path"),
        ("Arrays", {"path": "x.npy", "test_fraction": 1.0}, "test_fraction"),
        ("Arrays", {"path": "x.npy", "seed": -1}, "seed"),
        ("Images", {}, "path"),
        ("Images", {"path": ".", "channels": "blue"}, "channels"),
        ("Images", {"path": ".", "test_fraction": 0.0}, "test_fraction"),
        ("Images", {"path": ".", "limit": 0}, "limit"),
        ("Images", {"path": ".", "levels": 1}, "levels"),
        ("Images", {"path": ".", "size": 0}, "size"),
        ("Images", {"path": ".", "crop": [1, 2, 3]}, "crop"),
    ],
)
def test_a_value_that_is_refused(target, keys, names):
    message = message_of(target, keys)
    assert f"a.b.{names}" in message


@pytest.mark.parametrize(
    "file, keys, names",
    [
        ("x.npy", {"key": "x"}, "key"),
        ("x.npy", {"header": True}, "header"),
        ("x.npy", {"axes": "nhwc"}, "axes"),
        ("x.npy", {"axes": "nxy"}, "axes"),
        ("x.npy", {"shape": [3]}, "shape"),
        ("x.npy", {"shape": [1, 2]}, "shape"),
        ("x.npy", {"levels": 1}, "levels"),
        ("x.npy", {"levels": 4}, "levels"),
        ("x.npy", {"labels": "y"}, "labels"),
        ("images.npy", {"shape": [2, 3, 4]}, "shape"),
        ("either.npy", {}, "axes"),
        ("five.npy", {}, "shape"),
        ("nan.npy", {}, "path"),
        ("xy.npz", {}, "key"),
        ("xy.npz", {"key": "z"}, "key"),
        ("xy.npz", {"key": ["x", "y"]}, "key"),
        ("xy.npz", {"key": "x", "labels": "z"}, "labels"),
        ("words.csv", {}, "labels"),
        ("words.csv", {"key": "a,a"}, "key"),
        ("words.csv", {"key": "a", "labels": "b"}, "labels"),
        ("words.csv", {"key": "z"}, "path"),
        ("words.csv", {"key": "a", "axes": "cn"}, "axes"),
        ("unclear.csv", {"key": "1"}, "header"),
        ("empty.csv", {}, "path"),
    ],
)
def test_a_file_that_does_not_fit_its_keys(tmp_path, file, keys, names):
    arrays = {"x": RNG.normal(size=(20, 2)), "images": RNG.normal(size=(20, 6, 4, 3))}
    arrays |= {"either": np.zeros((4, 5, 6, 7)), "five": np.zeros((2,) * 5), "nan": np.full((4, 2), np.nan)}
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
    np.savez(tmp_path / "xy.npz", x=arrays["x"], y=arrays["x"])
    (tmp_path / "words.csv").write_text("a,b,c\n" + "".join(f"{i}.5,{i}.25,w\n" for i in range(20)))
    years = RNG.integers(1990, 2050, (30, 2))
    lines = "".join(f"{'x' * (i % 7)} {'-y.' * (i % 5)} {i},{a},{b}\n" for i, (a, b) in enumerate(years))
    (tmp_path / "unclear.csv").write_text("name,2019,2025\n" + lines)
    (tmp_path / "empty.csv").write_text("")
    message = message_of("Arrays", {"path": str(tmp_path / file)} | keys)
    assert f"a.b.{names}" in message


@pytest.mark.parametrize(
    "keys, names",
    [
        ({"split": "big"}, "split"),
        ({"test_split": "big"}, "test_split"),
        ({"split": "test", "test_split": "TEST"}, "split"),
        ({"labels": "kind"}, "labels"),
        ({"crop": 9}, "crop"),
        ({"channels": "auto", "size": None}, "channels"),
        ({"levels": 65536, "channels": "grey"}, "levels"),
    ],
)
def test_a_folder_of_pictures_that_does_not_fit_its_keys(tmp_path, keys, names):
    image = pytest.importorskip("PIL.Image")
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / folder / "grey.png")
        image.fromarray(np.ones((8, 8, 3), dtype=np.uint8)).save(tmp_path / folder / "rgb.png")
    message = message_of("Images", {"path": str(tmp_path)} | keys)
    assert f"a.b.{names}" in message


def test_a_path_that_leads_nowhere(tmp_path):
    for target, name in (("Arrays", "x.npy"), ("Images", "folder")):
        message = message_of(target, {"path": str(tmp_path / name)}, FileNotFoundError)
        assert message.startswith(f"a.b.path={tmp_path}")
    (tmp_path / "folder").mkdir()
    assert message_of("Images", {"path": str(tmp_path / "folder")}).startswith("a.b.path=")
    assert message_of("Arrays", {"path": str(tmp_path / "folder")}).startswith("a.b.path=")
