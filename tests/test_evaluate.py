"""task=evaluate: samples are drawn once and cached, in any pieces; the metrics show what is wrong with them."""

import io
import json
import math
import os
import pickle
import sys
import tarfile
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from scoresde import load, run
from scoresde.conf.sample_cache import weights_of
from scoresde.data import Conditional, Data, Digits, Turned
from scoresde.metrics import Values, frechet_distance
from scoresde.models import FeatureCNN, FeatureMLP
from scoresde.samplers import Sampler
from scoresde.tasks import Evaluate, Features, Record, Sampled
from scoresde.tasks.parts.inception import inception, tensors_of
from scoresde.tasks.parts.sample_cache import SampleCache

from .conftest import GaussianScore, compose, job_of, make_sde
from .test_cli import CHOICES

TINY = ("training.steps=20", "training.batch=32", "training.warmup=2", "training.evaluate=0")
DIGITS = ("data=digits", "model.channels=[8]", "model.attention=[]", "sampler=ddim", "sampler.steps=3", *TINY)
NET = ("task.features.images.training.steps=10", "task.features.images.training.batch=32")

VALUES = Features(Values(), None, "values")


def job(folder, *overrides: str) -> dict:
    run(compose(f"store={folder}/store", "task=evaluate", *overrides), CHOICES, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


# --- the samples that are kept ----------------------------------------------------------------------------------------


def numbered(first: int, size: int):
    """Returns samples that are their own numbers, and two evaluations for each."""
    return np.arange(first, first + size, dtype=np.float64)[:, None], 2 * size


def clock():
    return time.monotonic()


def test_samples_are_drawn_once_and_more_are_added(tmp_path):
    asked = []

    def draw(first, size):
        asked.append((first, size))
        return numbered(first, size)

    cache = SampleCache(tmp_path, {"seed": 1})
    for count, piece, pieces, new in ((10, 4, [(0, 4), (4, 4), (8, 2)], 10), (7, 4, [], 0), (10, 3, [], 0)):
        asked.clear()
        kept = cache.obtain(count, piece, draw, clock)
        assert asked == pieces and kept.drawn == new and kept.x[:, 0].tolist() == list(range(count))
        assert kept.evaluations == pytest.approx(2 * count)
    asked.clear()
    kept = SampleCache(tmp_path, {"seed": 1}).obtain(15, 4, draw, clock)
    assert asked == [(10, 4), (14, 1)] and kept.drawn == 5 and kept.x[:, 0].tolist() == list(range(15))
    assert SampleCache(tmp_path, {"seed": 2}).obtain(3, 4, draw, clock).drawn == 3, "other samples"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_run_goes_on(tmp_path):
    class Killed(BaseException):
        pass

    def dies(first, size):
        if first >= 8:
            raise Killed
        return numbered(first, size)

    cache = SampleCache(tmp_path, {})
    with pytest.raises(Killed):
        cache.obtain(20, 4, dies, clock)
    (cache.folder / ".partial-000000008-000000012.npz").write_bytes(b"half a file")  # of a kill while it was written
    kept = cache.obtain(20, 4, numbered, clock)
    assert kept.drawn == 12 and kept.x[:, 0].tolist() == list(range(20)) and not list(cache.folder.glob(".partial*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "absent", "empty"])
def test_a_damaged_file_is_drawn_again(tmp_path, damage, caplog):
    cache = SampleCache(tmp_path, {})
    cache.obtain(12, 4, numbered, clock)
    path = cache.folder / "000000004-000000008.npz"
    whole = path.read_bytes()
    place = whole.index(np.float64(5).tobytes())
    changed = {"cut": whole[:-200], "flipped": whole[:place] + b"\x01" + whole[place + 1 :], "empty": b""}
    path.unlink() if damage == "absent" else path.write_bytes(changed[damage])
    kept = cache.obtain(12, 4, numbered, clock)
    assert kept.drawn == 8 and kept.x[:, 0].tolist() == list(range(12))
    assert cache.obtain(12, 4, numbered, clock).drawn == 0
    assert damage == "absent" or "is not what was written" in caplog.text


SAMPLES = "000000004-000000008.npz"


@pytest.mark.parametrize("summed", [True, False])
def test_no_flipped_bit_of_the_cache_is_used(tmp_path, summed, caplog):
    """A bit of every third byte in turn, with and without the checksums, which earlier versions did not write."""
    cache = SampleCache(tmp_path, {"a": 1})
    want = cache.obtain(12, 4, numbered, lambda: 0.0)
    files = {path.name: path.read_bytes() for path in cache.folder.iterdir()}
    names = [SAMPLES, f"{SAMPLES}.sha256"] if summed else [SAMPLES]
    for name in names:
        for place in range(0, len(files[name]), 3):
            for each, content in files.items():
                (cache.folder / each).write_bytes(content)
                if not summed:
                    (cache.folder / f"{each}.sha256").unlink(missing_ok=True)
            changed = bytearray(files[name])
            changed[place] ^= 1 << place % 8
            (cache.folder / name).write_bytes(changed)
            caplog.clear()
            kept = cache.obtain(12, 4, numbered, lambda: 0.0)
            assert np.array_equal(kept.x, want.x) and kept.x.dtype == want.x.dtype, (name, place)
            assert (kept.evaluations, kept.seconds) == (want.evaluations, want.seconds), (name, place)
            if summed:
                assert kept.drawn == 8 and "is not what was written" in caplog.text, (name, place)
                assert {path.name: path.read_bytes() for path in cache.folder.iterdir()} == files


def test_samples_of_an_earlier_version_get_a_checksum(tmp_path):
    cache = SampleCache(tmp_path, {})
    cache.obtain(8, 4, numbered, clock)
    sums = {path: path.read_bytes() for path in cache.folder.glob("*.sha256")}
    for path in sums:
        path.unlink()
    assert cache.obtain(8, 4, numbered, clock).drawn == 0
    assert len(sums) == 2 and {path: path.read_bytes() for path in cache.folder.glob("*.sha256")} == sums


@pytest.mark.parametrize("one, other", [(b"(1000, 1)", b"(1000, 0)"), (b"<f8", b"<f4"), (b"<f8", b"<i8")])
def test_a_header_that_claims_other_values_is_found_without_a_checksum(tmp_path, one, other):
    """numpy reads such an array without an error, and not to its end, if it is long."""
    cache = SampleCache(tmp_path, {})
    cache.obtain(2000, 1000, numbered, clock)
    for path in cache.folder.glob("*.sha256"):
        path.unlink()
    path = cache.folder / "000001000-000002000.npz"
    path.write_bytes(path.read_bytes().replace(one, other, 1))
    kept = cache.obtain(2000, 1000, numbered, clock)
    assert kept.drawn == 1000 and kept.x.dtype == np.float64 and kept.x[:, 0].tolist() == list(range(2000))


def test_files_that_changed_places_are_drawn_again(tmp_path):
    cache = SampleCache(tmp_path, {})
    cache.obtain(8, 4, numbered, clock)
    one, other = sorted(cache.folder.glob("*.npz"))
    contents = [path.read_bytes() for path in (one, other)]
    for path, content in zip((other, one), contents, strict=True):
        path.write_bytes(content)
    assert cache.obtain(8, 4, numbered, clock).x[:, 0].tolist() == list(range(8))


def test_a_damaged_description_is_written_anew(tmp_path, caplog):
    cache = SampleCache(tmp_path, {"seed": 1})
    cache.obtain(4, 4, numbered, clock)
    path = cache.folder / "description.yaml"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"1", b"3"))
    cache.obtain(8, 4, numbered, clock)
    assert path.read_bytes() == whole and "description.yaml is not what was written" in caplog.text


def test_two_at_once_draw_each_sample_once(tmp_path):
    asked, found = [], []

    def slowly(first, size):
        asked.append(first)
        time.sleep(0.05)
        return numbered(first, size)

    def go():
        found.append(SampleCache(tmp_path, {}).obtain(12, 4, slowly, clock))

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(asked) == [0, 4, 8] and sorted(kept.drawn for kept in found) == [0, 0, 12]
    assert all(kept.x[:, 0].tolist() == list(range(12)) for kept in found)


def test_another_process_may_draw_more_while_one_waits(tmp_path):
    SampleCache(tmp_path, {}).obtain(8, 8, numbered, clock)
    cache = SampleCache(tmp_path, {})
    cache.found = lambda count: None  # as before the other process had drawn
    kept = cache.obtain(5, 4, numbered, clock)
    assert kept.drawn == 0 and kept.x[:, 0].tolist() == list(range(5))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"the samples' folder .*file.samples-.* cannot be written .* store=FOLDER"):
        SampleCache(tmp_path / "file", {}).obtain(2, 2, numbered, clock)


# --- what decides them ------------------------------------------------------------------------------------------------


def test_a_second_run_draws_nothing_and_other_samples_have_a_place_of_their_own(tmp_path):
    words = ("data=mixture", "model=oracle", "sampler=sea", "sampler.steps=5", "data.count=300", "data.test_count=200")
    first = job(tmp_path, *words, "count=40", "task.batch=7")
    assert first["drawn_now"] == 40 and first["nfe"] > 5
    again = job(tmp_path, *words, "count=40", "task.batch=1000")
    assert again["drawn_now"] == 0
    same = {key: value for key, value in first.items() if key != "drawn_now"}
    assert same == {key: value for key, value in again.items() if key != "drawn_now"}, "also what they cost"
    more = job(tmp_path, *words, "count=60")
    assert more["drawn_now"] == 20 and more["count"] == 60
    (folder,) = (tmp_path / "store").glob("*/samples-*")
    kept = np.concatenate([np.load(path)["x"] for path in sorted(folder.glob("*.npz"))])
    fresh = tmp_path / "fresh"
    job(fresh, *words, "count=60", "task.batch=64")
    (whole,) = fresh.glob("store/*/samples-*/*.npz")
    assert np.allclose(kept, np.load(whole)["x"], atol=1e-5), "sample i is a function of the seed alone"
    for k, other in enumerate(("seed=1", "sampler.steps=6", "dtype=float64", "sde=vp", "data.stds=[0.3,0.4,0.5]"), 2):
        assert job(tmp_path, *words, "count=40", other)["drawn_now"] == 40, other
        assert len(list((tmp_path / "store").glob("*/samples-*"))) == k
    tempered = job(tmp_path, *words, "count=40", "task.tempering.temperature=0.5")
    assert tempered["drawn_now"] == 40 and tempered["fd-values"] > first["fd-values"]


def test_samples_stand_beside_their_network_as_bytes(tmp_path):
    metrics = job(tmp_path, *DIGITS, *NET, "count=20")
    names = sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "store").iterdir())
    assert names == ["moons-features-cnn", "moons-ve-mlp"], "by the choices' names"
    (folder,) = (tmp_path / "store").glob("moons-ve-mlp-*/samples-*")
    x = np.load(folder / "000000000-000000020.npz")["x"]
    assert x.dtype == np.uint8 and x.shape == (20, 1, 8, 8) and x.max() <= 16
    (network,) = (tmp_path / "store").glob("moons-ve-mlp-*")
    by_path = job(tmp_path, *DIGITS, *NET, "count=20", f"checkpoint={network}")
    assert by_path["drawn_now"] == 0, "the same network by its path"
    drop = ("drawn_now",)
    assert {k: v for k, v in by_path.items() if k not in drop} == {k: v for k, v in metrics.items() if k not in drop}
    other = job(tmp_path, *DIGITS, *NET, "count=20", "training.seed=1")
    assert other["drawn_now"] == 20 and other["features"] == metrics["features"], "one judge for all networks"


# --- the networks in whose features they are compared -----------------------------------------------------------------


def test_a_metric_is_named_by_the_weights_of_its_network(tmp_path):
    metrics = job(tmp_path, *DIGITS, *NET, "count=20")
    (title,) = {key.removeprefix("fd-") for key in metrics if key.startswith("fd-") and not key.endswith("_floor")}
    assert metrics["features"] == title and title.startswith("cnn@") and len(title) == 14
    assert not any(key.lower().startswith("fid") for key in metrics)
    assert {f"{name}-{title}{end}" for name in ("fd", "kd", "is") for end in ("", "_floor")} <= set(metrics)
    (folder,) = (tmp_path / "store").glob("*features-cnn-*")
    sde, net, data = load(folder)
    assert sde is None and isinstance(net, FeatureCNN) and data.condition.classes
    assert weights_of(net) == title.removeprefix("cnn@")
    other = job(tmp_path, *DIGITS, *NET, "count=20", "task.features.images.training.seed=1")
    assert other["features"] != title and other["drawn_now"] == 0


def test_it_learns_the_digits(tmp_path):
    """The default number of updates on the default data; the floor is its accuracy on held-out digits."""
    real = Digits()
    np.save(tmp_path / "real.npy", real.test[:200].numpy())
    noise = np.random.default_rng(0).integers(0, 17, (200, 1, 8, 8))
    np.save(tmp_path / "noise.npy", noise)
    one = real.test[real.test_labels == 3][:20].repeat(10, 1, 1, 1)
    np.save(tmp_path / "three.npy", one.numpy())
    small = ("model.channels=[16,32,64]", "training.steps=250", "training.batch=64")
    words = ("data=digits", "sampler=ddim", *(f"task.features.images.{each}" for each in small))
    good, bad, three = (job(tmp_path, *words, f"task.samples={tmp_path}/{n}.npy") for n in ("real", "noise", "three"))
    title = good["features"]
    assert good["classifier_accuracy"] > 0.95 and good["confident"] > 0.8
    assert len(list((tmp_path / "store").iterdir())) == 1, "no score was trained"
    for key in (f"fd-{title}", f"kd-{title}", "sliced_wasserstein"):
        assert good[key] < 1.5 * max(good[f"{key}_floor"], 1e-3) < bad[key], key
        assert three[key] > 2 * good[f"{key}_floor"], key
    assert bad["precision"] < 0.6 * good["precision"] and bad["coverage"] < 0.3 * good["coverage"]
    assert three["recall"] < good["recall"] and three["coverage"] < 0.5 * good["coverage"]
    assert three[f"is-{title}"] < 2 < 7 < good[f"is-{title}"] <= 10
    assert three["class_ratio_most"] == pytest.approx(three["class_ratio_3"]) and three["class_ratio_3"] > 8
    assert three["class_variation"] > 0.8 > 0.2 > good["class_variation"] and three["class_ratio_least"] == 0


def pictures(tmp_path, shape=(1, 6, 9), labels=False):
    """Returns unlabelled images with a top and a left side."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 200, math.prod(shape)).reshape(shape)
    x = (ramp + random.integers(0, 50, (120, *shape))).astype(np.uint8)
    np.save(tmp_path / "mine.npy", x)
    small = ["model.images.channels=[8]", "model.images.attention=[]", "training.images.steps=3"]
    small += ["training.images.batch=8", "task.features.images.training.steps=60", "sampler=ddim", "sampler.steps=2"]
    return ["data=arrays", f"data.path={tmp_path}/mine.npy", *small]


@pytest.mark.parametrize("shape", [(1, 6, 9), (3, 8, 8)])
def test_without_labels_the_network_learns_how_pictures_were_turned(tmp_path, shape):
    metrics = job(tmp_path, *pictures(tmp_path, shape), "count=20")
    assert f"fd-{metrics['features']}" in metrics and metrics["features"].startswith("cnn@")
    assert not any(key.startswith(("is-", "class", "confident")) for key in metrics)
    (folder,) = (tmp_path / "store").glob("*features-cnn-*")
    _, net, data = load(folder)
    turned = Turned(data)
    x, k = turned.encode(turned.dequantise(turned.test, None)), turned.test_labels
    assert float((net(x).argmax(1) == k).double().mean()) > 0.8


def test_turns_are_turns():
    x = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(torch.uint8)
    turned = Turned(Data(x, x[:1], 0.0, 1.0, 256, shuffle=False))
    assert turned.train.shape == (8, 3, 4, 4) and turned.train_labels.bincount().tolist() == [2] * 4
    for k in range(4):
        found = {bytes(each.numpy()) for each in turned.train[turned.train_labels == k]}
        assert found == {np.rot90(each.numpy(), k, (1, 2)).tobytes() for each in x}
    wide = Turned(Data(x[..., :2], x[:1, :, :, :2], 0.0, 1.0, 256, shuffle=False))
    one = x[0, :, :, :2].numpy()
    for k, expected in enumerate((one, one[:, ::-1, ::-1], one[:, :, ::-1], one[:, ::-1])):
        assert np.array_equal(wide.test[wide.test_labels == k][0].numpy(), expected)
    with pytest.raises(ValueError, match="pictures can be turned"):
        Turned(Data(torch.zeros(4, 2), torch.zeros(4, 2), 0.0, 1.0, shuffle=False))


def test_labelled_vectors_may_have_a_network_too(tmp_path):
    random = np.random.default_rng(0)
    k = random.integers(0, 3, 300)
    np.savez(tmp_path / "mine.npz", x=random.normal(size=(300, 2)) + 6 * np.eye(3)[k][:, :2], kind=k)
    words = ["data=arrays", f"data.path={tmp_path}/mine.npz", "data.key=x", "data.labels=kind", "sampler=ddim"]
    words += ["sampler.steps=3", "training.vectors.steps=5", "count=100"]
    plain = job(tmp_path, *words)
    assert {"fd-values", "kd-values", "kd-values_stderr", "fd-values_floor"} <= set(plain) and "confident" not in plain
    more = job(tmp_path, *words, "task/features=mlp", "task.features.training.steps=100")
    assert more["classifier_accuracy"] > 0.9 and "class_ratio_2" in more and more["drawn_now"] == 0
    asked = ["data.condition=labels", "condition=2"]
    one = job(tmp_path, *words, "task/features=mlp", "task.features.training.steps=100", *asked)
    assert "label_accuracy" in one, "one label is asked for, and the network learns them all"
    with pytest.raises(ValueError, match="task/features=mlp learns the labels of the data, and these have none"):
        job(tmp_path, *words[:3], "sampler=ddim", "training.vectors.steps=5", "task/features=mlp")
    with pytest.raises(ValueError, match="task/features=cnn takes images"):
        job(tmp_path, *words, "task/features=cnn")


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (4, 1, 3)])
def test_networks_take_any_picture_and_their_parts_agree(shape):
    net = FeatureCNN(shape, 3, channels=[8, 8, 16]).eval()
    x = torch.randn(5, *shape)
    h = net.features(x)
    assert h.shape == (5, 16) and torch.equal(net.log_prob(h), net(x))
    assert torch.allclose(net(x).exp().sum(1), torch.ones(5), atol=1e-5)
    y = torch.eye(4)[[0, 2, 1, 0, 2]]
    assert torch.equal(net.given(y)(x), net(x)[torch.arange(5), [0, 2, 1, 0, 2]])
    vectors = FeatureMLP((4,), 3, width=8, depth=2)
    v = torch.randn(5, 4)
    assert torch.equal(vectors.log_prob(vectors.features(v)), vectors(v)) and vectors.features(v).shape == (5, 8)
    assert torch.equal(vectors.given(y)(v), vectors(v)[torch.arange(5), [0, 2, 1, 0, 2]])


# --- what is wrong with samples is seen, and nothing where nothing is -------------------------------------------------


class Scaled(Sampler):
    """Draws from N(mean, (width std)^2 I) in model units, with the noise that it is given."""

    def __init__(self, mean: float = 0.0, width: float = 1.0):
        self.mean, self.width = mean, width

    def __call__(self, sde, score, x, randn_like, on_step=None, film=None):
        return self.mean + self.width * x / sde.prior_std


def evaluated(folder, sampler, shape=(3,), count=700) -> dict:
    draws = [2 * torch.randn(n, *shape, generator=torch.Generator().manual_seed(n)) + 8 for n in (3 * count, 900)]
    record, sde = Record(folder), make_sde("vp")
    data, sampled = Data(*draws, 8.0, 2.0, shuffle=False), Sampled(GaussianScore(sde), [], None, folder, vars(sampler))
    metrics = Evaluate(sampler, count=count)(job_of(sde, None, data, record, sampled=sampled, features=VALUES))
    record.close()
    return metrics


def test_draws_of_the_same_law_are_at_the_floor_and_others_at_the_closed_form(tmp_path):
    """The data are N(0, I) in model units, so d^2 = D (m^2 + (w - 1)^2)."""
    metrics = evaluated(tmp_path / "good", Scaled())
    for key in ("fd-values", "kd-values", "sliced_wasserstein"):
        assert abs(metrics[key]) < 3 * abs(metrics[f"{key}_floor"]) + 0.01, key
    for key in ("precision", "recall", "density", "coverage"):
        assert metrics[key] == pytest.approx(metrics[f"{key}_floor"], abs=0.08), key
    assert metrics["compared"] == 700 and metrics["reference"] == 900
    for name, mean, width in (("moved", 0.7, 1.0), ("narrow", 0.0, 0.3)):
        metrics = evaluated(tmp_path / name, Scaled(mean, width))
        assert metrics["fd-values"] == pytest.approx(3 * (mean**2 + (width - 1) ** 2), rel=0.12)
        assert metrics["kd-values"] > 5 * metrics["kd-values_stderr"]
    assert metrics["precision"] > metrics["precision_floor"] and metrics["recall"] < 0.5 * metrics["recall_floor"]
    assert metrics["coverage"] < 0.8 * metrics["coverage_floor"]


def test_samples_are_compared_in_sets_as_large_as_the_floors(tmp_path):
    """With more samples than training data, the distance is a mean over sets of that number, not one of all."""
    sampler, (folder, sde) = Scaled(), (tmp_path, make_sde("vp"))
    train, test = torch.randn(150, 2), torch.randn(400, 2)
    record = Record(folder)
    data = Data(train, test, 0.0, 1.0, shuffle=False)
    metrics = Evaluate(sampler, count=500)(
        job_of(sde, None, data, record, sampled=Sampled(GaussianScore(sde), [], None, folder), features=VALUES)
    )
    record.close()
    x = torch.from_numpy(np.load(next(folder.glob("samples-*/*.npz")))["x"])
    rows = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    expected = sum(frechet_distance(each, test[rows]) for each in x[:450].split(150)) / 3
    assert metrics["compared"] == 150 and metrics["fd-values"] == pytest.approx(expected, rel=1e-9)
    assert metrics["fd-values_floor"] == pytest.approx(frechet_distance(train, test), rel=1e-9)


def test_one_class_is_compared_with_its_own_data(tmp_path):
    learnt = ("task.features.images.training.steps=120", "task.features.images.training.batch=64")
    words = (*DIGITS, *learnt, "data.condition=labels", "count=30")
    every, three = job(tmp_path, *words), job(tmp_path, *words, "condition=3")
    assert every["reference"] == 297 and three["reference"] < 60 and three["drawn_now"] == 30
    assert three["label_accuracy"] < 0.8 < three["label_accuracy_floor"], "of a network of 20 updates"
    assert "class_ratio_3" in every and "class_ratio_3" not in three
    assert not any(key.startswith("is-") for key in three)
    guided = job(tmp_path, *words, "condition=3", "guidance=2")
    assert guided["drawn_now"] == 30 and guided["features"] == three["features"]


def test_numbers_y_are_compared_together_with_x(tmp_path):
    """x has the right marginal and does not depend on y: d^2 of N(0, C), N(0, I) is sum (sqrt(lambda) - 1)^2."""
    words = ("data=mixture", "data.condition=[1]", "model=oracle", "sampler=unipc", "sampler.steps=20", "count=500")
    words += ("data.count=3000", "data.test_count=1000")
    metrics = job(tmp_path, *words)
    assert metrics["fd-values"] < 2 * metrics["fd-values_floor"] + 0.01, "the exact score knows y"

    class Blind:
        def given(self, y):
            return lambda x, t: x

    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    draws = [torch.randn(n, 2, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T for n in (1500, 3000)]
    data, record = Conditional(Data(*draws, 0.0, 1.0, shuffle=False), [1]), Record(tmp_path)
    sampled = Sampled(Blind(), [], None, tmp_path)
    found = Evaluate(Scaled(), count=1500)(job_of(make_sde("vp"), None, data, record, sampled=sampled, features=VALUES))
    record.close()
    expected = sum((value**0.5 - 1) ** 2 for value in (1.9, 0.1))
    assert found["fd-values"] == pytest.approx(expected, rel=0.1) and found["fd-values_floor"] < 0.02
    with pytest.raises(ValueError, match="leave condition out to compare x and y together"):
        job(tmp_path, *words, "condition=0.5")


def test_too_little_to_compare_is_refused(tmp_path):
    words = ("data=mixture", "model=oracle", "sampler=ddim", "sampler.steps=2")
    with pytest.raises(ValueError, match="count=5 must be at least 6"):
        job(tmp_path, *words, "count=5")
    with pytest.raises(ValueError, match="5 held-out data are too few"):
        job(tmp_path, *words, "data.test_count=5")
    np.save(tmp_path / "few.npy", np.zeros((3, 2)))
    with pytest.raises(ValueError, match="few.npy holds 3 samples, and 6 are the least"):
        job(tmp_path, *words, f"task.samples={tmp_path}/few.npy")
    with pytest.raises(FileNotFoundError, match="task.samples=nowhere.npy"):  # and before features are trained
        job(tmp_path, *DIGITS, *NET, "task.samples=nowhere.npy")
    assert not (tmp_path / "store").exists()


# --- FID --------------------------------------------------------------------------------------------------------------


class StandIn(torch.nn.Module):
    """Stands in for torchmetrics' metric, with 3 features and this project's distance."""

    def __init__(self, feature, reset_real_features, feature_extractor_weights_path, antialias):
        super().__init__()
        assert feature == 2048 and not reset_real_features and not antialias
        self.weights = torch.load(feature_extractor_weights_path, weights_only=False)  # as torch-fidelity does
        self.seen = {True: [], False: []}

    def update(self, imgs, real):
        assert imgs.dtype == torch.uint8 and imgs.shape[1] == 3
        self.seen[real].append(imgs.double().mean((2, 3)))

    def compute(self):
        return torch.tensor(frechet_distance(*(torch.cat(self.seen[real]) for real in (True, False))))

    def reset(self):
        self.seen[False] = []


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """The packages of the FID, and of the download, without a network: the module of the metric."""
    for name in ("torchmetrics", "torchmetrics.image", "torchmetrics.image.fid", "torch_fidelity"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    named = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    named.URL_INCEPTION_V3 = "https://example.org/inception-0.pth"
    monkeypatch.setitem(sys.modules, named.__name__, named)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    write = lambda url, path, hash_prefix: torch.save({"w": torch.ones(2)}, path)  # noqa: E731
    monkeypatch.setattr(torch.hub, "download_url_to_file", write)
    module = sys.modules["torchmetrics.image.fid"]
    module.FrechetInceptionDistance = StandIn
    return module


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def write_inception(path: Path, kind: str) -> None:
    """Writes a file of weights: of torch.save, now and before torch 1.6, or of safetensors; or one that is none."""
    weights, executed = {"w": torch.arange(3.0)}, {"w": torch.arange(3.0), "x": Hostile(path.parent / "executed")}
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(executed, protocol=2))  # of others torch warns
    elif kind == "text":
        path.write_text("hello")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "tar":
        with tarfile.open(path, "w") as archive:
            for name in ("sys_info", "pickle", "storages", "tensors"):
                archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    elif kind == "no tensors":
        torch.save([1, 2], path)
    else:
        torch.save(executed if "hostile" in kind else weights, path, _use_new_zipfile_serialization="old" not in kind)


@pytest.mark.parametrize("kind", ["new", "old", "safetensors"])
def test_weights_of_inception_are_read_as_tensors(tmp_path, stand_in, kind):
    path = tmp_path / f"inception{'.safetensors' if kind == 'safetensors' else '.pth'}"
    write_inception(path, kind)
    assert torch.equal(inception(str(path), "cpu").weights["w"], torch.arange(3.0))
    assert torch.equal(inception(True, "cpu").weights["w"], torch.ones(2))


@pytest.mark.parametrize(
    "kind, says",
    [
        ("hostile", "asks to run code .*nothing of it was run.*save_file.*type task.fid=inception.safetensors"),
        ("hostile old", "asks to run code"),
        ("pickle", "asks to run code"),
        ("tar", "asks to run code"),
        ("text", "could not be loaded"),
        ("empty", "could not be loaded"),
        ("no tensors", "holds no tensors by name"),
    ],
)
def test_no_weights_of_inception_are_unpickled(tmp_path, stand_in, kind, says):
    write_inception(tmp_path / "inception.pth", kind)
    with pytest.raises((ValueError, OSError), match=says):
        inception(str(tmp_path / "inception.pth"), "cpu")
    assert not (tmp_path / "executed").exists()


def test_the_download_is_read_as_tensors_too(monkeypatch, tmp_path):
    """Torch's cache may hold any file of that name."""
    (tmp_path / "checkpoints").mkdir()
    write_inception(tmp_path / "checkpoints" / "inception-0.pth", "hostile")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match="task.fid=True asks to run code"):
        tensors_of(True, "https://example.org/inception-0.pth")
    assert not (tmp_path / "checkpoints" / "executed").exists()


def test_the_fid_is_of_bytes_in_three_channels_against_the_training_data(tmp_path, stand_in):
    data = Digits()
    np.save(tmp_path / "mine.npy", data.test[:50].numpy())
    words = ("data=digits", "sampler=ddim", *NET, f"task.samples={tmp_path}/mine.npy")
    metrics = job(tmp_path, *words, "task.fid=true")
    level = lambda r: (r.double() * 255 / 16).round().mean((2, 3)).expand(-1, 3)  # noqa: E731
    train = level(data.train)
    assert metrics["fid"] == pytest.approx(frechet_distance(level(data.test[:50]), train), rel=1e-6, abs=1e-9)
    assert metrics["fid_floor"] == pytest.approx(frechet_distance(level(data.test), train), rel=1e-6, abs=1e-9)
    assert metrics["fid_floor_count"] == 297
    with pytest.raises(FileNotFoundError, match="task.fid=nowhere.pth does not exist"):
        job(tmp_path, *words, "task.fid=nowhere.pth")

    def offline(*arguments, **keys):
        raise OSError("<urlopen error no route to host>")

    stand_in.FrechetInceptionDistance = offline
    with pytest.raises(OSError, match=r"weights could not be loaded \(<urlopen error .*task.fid=PATH"):
        job(tmp_path, *words, "task.fid=true")


def test_without_torchmetrics_one_line_says_what_to_install(tmp_path, monkeypatch):
    for name in ("torchmetrics", "torchmetrics.image", "torchmetrics.image.fid", "torch_fidelity"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"task.fid=True needs the packages torchmetrics and torch-fidelity: pip"):
        job(tmp_path, *DIGITS, "task.fid=true")
    assert not (tmp_path / "store").exists(), "before anything is trained"
    with pytest.raises(ValueError, match="the FID is for grey or colour images"):
        job(tmp_path, "data=moons", "task.fid=true")
