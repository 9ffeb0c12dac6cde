"""Paths on the command line arrive as they were typed, and what cannot be read is told with what to type."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from scoresde.conf.command_line import readable

from .conftest import ROOT

NAMES = (
    "plain.npy",
    "two words.npy",
    "data (1).npy",
    "größe.npy",
    "数据.csv",
    "a=b.npy",
    "x[1].npy",
    "[x].npy",
    "{x}.npy",
    "it's.npy",
    'in"quotes".npy',
    "a#b.npy",
    "a&b;c.npy",
    "a,b.npy",
    "100%.npz",
    "a:b.npy",
    "~a.npy",
    "a*b?.parquet",
    " blank first.npy",
    "a@b!.npy",
)
KEYS = ("data.path", "points", "checkpoint", "store", "condition", "+task.samples", "hydra.run.dir")


def value_of(word: str) -> object:
    (override,) = OverridesParser.create().parse_overrides(readable([word]))
    assert not override.is_sweep_override()
    return override.value()


@pytest.mark.parametrize("name", NAMES)
def test_a_path_arrives_as_it_was_typed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    (tmp_path / f"{name} folder").mkdir()
    for key in KEYS:
        for path in (name, f"./{name}", str(tmp_path / name), f"{name} folder"):
            assert value_of(f"{key}={path}") == path


@pytest.mark.parametrize("key", ["store", "hydra.run.dir", "operator.path", "task.other", "+task.path"])
def test_a_folder_that_does_not_exist_yet_arrives_too(key):
    for name in ("new größe", "new (1)", "new a=b", "new [x]", "new ~t", "it's new", "{new}"):
        assert value_of(f"{key}={name}") == name
        assert OverridesParser.create().parse_override(readable(["-m", f"{key}={name}"])[1]).value() == name


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("~/a (1).npy,~/ü.npy", ["/home/me/a (1).npy", "/home/me/ü.npy"]),
        ("a=b.npy,c.npy", ["a=b.npy", "c.npy"]),
        ("choice(~/a.npy,b.npy)", ["/home/me/a.npy", "b.npy"]),
        ("/x/a [1],/x/b", ["/x/a [1]", "/x/b"]),
    ],
)
def test_a_sweep_over_paths_reads_each(value, wanted, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    _, word = readable(["-m", f"data.path={value}"])
    override = OverridesParser.create().parse_override(word)
    assert [str(each).strip("'") for each in override.sweep_string_iterator()] == wanted


def test_a_sweep_over_labels_reads_words():
    assert readable(["-m", "condition=1_11,2_22"])[1] == "condition='1_11','2_22'"


@pytest.mark.parametrize("name", [name for name in NAMES if "," not in name])
def test_a_path_that_does_not_exist_arrives_too(name):
    """So that the reader says what is missing, and not the parser."""
    assert value_of(f"data.path=/nowhere/{name}") == f"/nowhere/{name}"


@pytest.mark.parametrize("key", KEYS)
def test_home(key, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ü (me)")
    assert value_of(f"{key}=~/a b.npy") == "/home/ü (me)/a b.npy"
    assert value_of(f"{key}=~") == "/home/ü (me)"


@pytest.mark.parametrize(
    "word",
    [
        "sde=ve,vp,subvp",
        "data.condition=[mass,age]",
        "condition={mass:1.2,age:40}",
        "count=10",
        "task.widths=[0.03,0.1]",
        "checkpoint=null",
        "~model.pixel_features",
        "sde.eps=1e-5",
        "sde.diffusion=1 + 5*t**2",
        "experiment=score_sde/ve/cifar10_ncsnpp_continuous",
        "data.path='a b.npy'",
        'data.path="a,b.npy"',
        "--multirun",
        "sampler.steps=range(10,30,10)",
    ],
)
def test_other_words_stay_as_they_are(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("10", "ve", "null"):  # files that are called like a value
        (tmp_path / name).touch()
    assert readable(["-m", word]) == ["-m", word]


@pytest.mark.parametrize(
    "word",
    [
        "condition=größer",
        "data.condition=[mass,age",
        "logger=a(b",
        "data.labels=Maß",
        'condition="a" (b)',
        "condition='a (b)",
    ],
)
def test_what_cannot_be_read_is_told_with_what_to_type(word):
    with pytest.raises(ValueError) as caught:
        readable([word])
    message = str(caught.value)
    key, _, value = word.partition("=")
    assert message.startswith(f"{word}: the value cannot be read")
    (typed,) = shlex.split(message.rpartition("them: ")[2])
    assert value_of(typed) == value  # and that works


@pytest.mark.parametrize(
    ("items", "wanted"),
    [
        ("größe,b", ["größe", "b"]),
        ("a (cm),#1, c d ,x=1,3", ["a (cm)", "#1", "c d", "x=1", 3]),
        ("1_0,2_0,30", ["1_0", "2_0", 30]),
    ],
)
def test_odd_names_in_a_list_are_words(items, wanted):
    for key in ("condition", "data.condition", "data.key"):
        assert value_of(f"{key}=[{items}]") == wanted
    assert value_of("task.widths=[1_0,2]") == [10, 2]


@pytest.mark.parametrize("name", ["400.5", "1e5", "true", "inf", "-1.0", "007", "1_0"])
def test_columns_called_like_a_number_are_words(name):
    for key in ("data.labels", "data.key", "data.condition", "++data.key"):
        assert value_of(f"{key}={name}") == name
        assert value_of(f"{key}=[{name},b,3]") == [name, "b", 3]
        assert value_of(f"{key}=null") is None and value_of(f"{key}=3") == 3
    assert value_of("condition=400.5") == 400.5 and value_of("condition=[true,1e5]") == [True, 1e5]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("data.key=[it's,c]", r"Quote each item that holds other marks.*type \"data\.key=\['a \(b\)','c'\]\""),
        ("condition={größe:1}", r"type a list of the values, condition=\[0\]"),
    ],
)
def test_what_a_list_or_a_mapping_cannot_hold_is_told(word, says):
    with pytest.raises(ValueError, match=says) as caught:
        readable([word])
    assert str(caught.value).startswith(f"{word}: the value cannot be read")
    assert value_of("data.key=['a (b)','c']") == ["a (b)", "c"]


@pytest.mark.parametrize("word", ["data.key=a,b", "store=/nowhere/a,b", "condition=a,b"])
def test_a_comma_without_a_sweep_is_told(word):
    key, _, value = word.partition("=")
    with pytest.raises(ValueError, match="asks for a sweep, a job for each value: add --multirun") as caught:
        readable([word, "--unknown", "task=sample"])
    _, as_list, _, as_one, _ = str(caught.value).split("'")
    assert value_of(as_list) == value.split(",") and value_of(as_one) == value
    for flag in ("-m", "--multirun", "hydra.mode=MULTIRUN"):
        assert readable([word, flag]) == [word, flag]
    for other in ("sampler.steps=range(10,30,10)", "sde=ve,vp", "hydra/launcher=basic,joblib"):  # a choice is no list
        with pytest.raises(ValueError, match="a job for each value: add --multirun$"):
            readable([other])


def test_a_path_into_a_folder_with_a_comma(tmp_path):
    """Also where it is yet to be written, as the store is, and whatever else is in its name."""
    for name in ("a,b", "[x] a=b, c'(1)"):
        (tmp_path / name).mkdir()
        for key in KEYS:
            for path in (tmp_path / name / "new", tmp_path / name / "new" / "er", tmp_path / name / "x, y.npy"):
                assert value_of(f"{key}={path}") == str(path)


def test_a_run_reads_such_a_path(tmp_path):
    home = tmp_path / "Größe (1)"
    home.mkdir()
    np.save(home / "a=[b], c.npy", np.random.default_rng(0).normal(size=(40, 2)))
    command = [sys.executable, ROOT / "run.py", "data=arrays", "data.path=~/a=[b], c.npy", "task=train", "sde=vp"]
    command += ["training.vectors.steps=2", "store=~/s t", "hydra.run.dir=~/o (2)", "data.test_fraction=0.3"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"HOME": str(home)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert any((home / "s t").iterdir()) and (home / "o (2)" / "run.log").exists()
    assert not Path(tmp_path / "~").exists()


def test_a_label_with_underscores_is_a_word():
    for key in ("condition", "data.labels", "data.key", "data.condition"):
        assert value_of(f"{key}=1_11") == "1_11"
    assert value_of("condition=007") == "007" and value_of("condition=7") == 7
    assert value_of("count=1_000") == 1000


@pytest.mark.parametrize("word", ["data.layout=hwc", "+data.layout=chw", "++data.layout=null", "~data.layout"])
def test_a_replaced_key_says_what_to_type(word):
    with pytest.raises(ValueError, match=r"data\.layout.*type data\.axes=nhwc for data\.layout=hwc") as caught:
        readable([word])
    assert str(caught.value).startswith(word)


@pytest.mark.parametrize("key", ["training.steps", "model.dropout", "likelihood.error", "likelihood.probes.count"])
@pytest.mark.parametrize("data", ["arrays", "images", "mnist"])
def test_keys_that_the_shape_chooses_say_what_to_type(key, data):
    """Hydra says that the key does not exist, and advises ``+KEY``, which is refused too."""
    group, _, rest = key.partition(".")
    words = [f"data={data}", f"{key}=3"]
    with pytest.raises(ValueError, match=rf"{key}=3: .* type {group}\.vectors\.{rest}=3 .* {group}\.images\.{rest}=3"):
        readable(words)
    with pytest.raises(ValueError, match=rf"classifier\.vectors\.{rest}=3"):
        readable(["classifier=auto", f"classifier.{rest}=3"])
    with pytest.raises(ValueError, match=r"conditioner\.images\.samples=3"):
        readable(["conditioner.samples=3"])
    choice = {"training": "digits", "model": "mlp", "likelihood": "hutchinson"}[group]
    for free in (
        [*words, f"{group}={choice}"],
        ["data=moons", f"{key}=3"],
        [words[0], f"{group}.images.{rest}=3", f"{group}.vectors.{rest}=3", "training.loss.levels.count=46"],
        ["experiment=mnist", *words],
    ):
        assert readable(free) == free


@pytest.mark.parametrize("words", [["sampler", "unipc"], ["data", "=", "moons"], ["sampler="]])
def test_a_choice_apart_from_its_group_is_named(words):
    with pytest.raises(ValueError, match=rf"^{words[0]}: a choice is missing; type {words[0].strip('=')}=NAME"):
        readable(words)
