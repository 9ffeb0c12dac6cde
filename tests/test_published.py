"""Tests of files of the published code: they are read by name, refused if they are wrong, and used by runs."""

import copy
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from scoresde.cli import run
from scoresde.conf import schema
from scoresde.models import NCSNpp
from scoresde.models.layout import put, take
from scoresde.models.published import layout
from scoresde.sde_lib import VE
from scoresde.training import published

from . import published_network
from .conftest import compose, standard
from .test_ncsnpp import randomised

TINY = ["model.width=8", "model.multipliers=[1,1]", "model.blocks=1", "model.attention=[4]"]
PRESET = "score_sde/ve/cifar10_ncsnpp_continuous"
WORDS = [f"experiment={PRESET}", "data=unseen", "data.shape=[3,8,8]", *TINY]


def tiny(seed: int = 0) -> NCSNpp:
    net = NCSNpp((3, 8, 8), width=8, multipliers=(1, 1), blocks=1, attention=(4,))
    return randomised(net, seed).float()


def content(net, average=None, rate=None) -> dict:
    """Returns what the published code saves: a wrapped model, a list of averages, a table of sigmas, a numpy number."""
    weights, averages = take(net, layout(net)), take(average or net, layout(net))
    sigmas = torch.exp(torch.linspace(np.log(50), np.log(0.01), 1000, dtype=torch.float64))
    moments = {1: {"step": 7, "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}}
    group = {"lr": np.float64(2e-4) if rate is None else rate, "betas": (0.9, 0.999), "params": [0, 1, 2]}
    return {
        "optimizer": {"state": moments, "param_groups": [group]},
        "model": {f"module.{name}": tensor for name, tensor in {"sigmas": sigmas, **weights}.items()},
        "ema": {
            "decay": 0.999,
            "num_updates": 1200001,
            "shadow_params": [averages[entry.name] for entry in layout(net) if entry.trained],
        },
        "step": 1200001,
    }


@pytest.fixture
def file(tmp_path):
    """Writes a file whose average is near its weights, as after a training."""
    net = tiny()
    average = copy.deepcopy(net)
    for parameter in average.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    path = tmp_path / "checkpoint_24.pth"
    torch.save(content(net, average), path)
    return path, average


def test_the_average_is_read_by_name(file):
    path, average = file
    net = tiny(5)
    found = published.read(path, layout(net))
    put(net, layout(net), found.average)
    assert found.step == 1200001 and found.sigmas[0] == pytest.approx(50)
    for (name, a), b in zip(net.state_dict().items(), average.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_number_of_numpy_1_is_read(file, tmp_path):
    """The published files contain the name that numpy's function had before numpy 2."""
    path, _ = file
    old = tmp_path / "old.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            assert b"numpy._core.multiarray" in data or not name.endswith("data.pkl")
            target.writestr(name, data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert published.read(old, layout(tiny())).step == 1200001


class Evil:
    """An object whose pickle runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_code_in_a_file_is_not_run(tmp_path):
    trace = tmp_path / "it_ran"
    path = tmp_path / "evil.pth"
    torch.save(content(tiny(), rate=Evil(f"touch {trace}")), path)
    with pytest.raises(ValueError, match=r"asks to run code \(\w+.system\) when it is read, which is refused"):
        published.read(path, layout(tiny()))
    assert not trace.exists()
    pickle.loads(pickle.dumps(Evil(f"touch {trace}")))  # without protection it runs
    assert trace.exists()


def broken(path: Path, how: str) -> None:
    """Spoils a file."""
    data = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped":
        with zipfile.ZipFile(path) as archive:
            largest = max(archive.infolist(), key=lambda each: each.file_size)
        data[largest.header_offset + largest.file_size // 2 + 200] ^= 4
        path.write_bytes(data)
    else:
        saved = torch.load(path, weights_only=False)
        shadow = saved["ema"]["shadow_params"]
        net = tiny()
        names = [entry.name for entry in layout(net) if entry.trained]
        if how == "short":
            shadow.pop()
        elif how == "shapes":
            shadow[0], shadow[1] = shadow[1], shadow[0]
        elif how == "permuted":  # two tensors of the same shape
            i, j = (names.index(f"all_modules.{k}.Conv_1.weight") for k in (4, 5))
            assert shadow[i].shape == shadow[j].shape
            shadow[i], shadow[j] = shadow[j], shadow[i]
        elif how == "renamed":
            saved["model"] = {name.replace("Conv_1", "Conv_7"): tensor for name, tensor in saved["model"].items()}
        elif how == "keys":
            del saved["ema"]
        elif how == "list":
            saved = [saved]
        torch.save(saved, path)


@pytest.mark.parametrize(
    "how, says",
    [
        ("cut", "is no file of torch.save, or it is cut off"),
        ("empty", "is no file of torch.save, or it is cut off"),
        ("flipped", r"is damaged \("),
        ("short", r"its moving average has \d+ tensors, but \d+ of its weights are trained"),
        ("shapes", r"not in the order of its weights: all_modules.1.weight is \[32, 16\] and the average .* is \[32\]"),
        ("permuted", r"in the place of all_modules.4.Conv_1.weight stands the average of all_modules.5.Conv_1.weight"),
        ("renamed", r"another architecture: .*differ are all_modules.4.Conv_7.weight .*in the file and all_modules.4."),
        ("keys", "is no checkpoint of score_sde: it holds optimizer, model, step"),
        ("list", "is no checkpoint: it holds a list"),
    ],
)
def test_spoilt_files(file, how, says):
    path, _ = file
    broken(path, how)
    with pytest.raises(ValueError, match=says):
        published.read(path, layout(tiny()))


class Named:
    """An object whose pickle contains a function, its arguments and a state."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


SCALAR = np.float64(0).__reduce__()[0]
POINTER = Named(np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 4))


@pytest.mark.parametrize(
    "rate",
    [
        Named(SCALAR, (Named(np.dtype, ("V1000000",)),)),
        Named(SCALAR, (Named(np.dtype, ("f8", False, True)), b"1234")),
        Named(SCALAR, (1, 2, 3)),
        Named(np.dtype, ("O",)),
        Named(np.dtype, ("nonsense",)),
        Named(np.dtype, ("f8", False, True), (3, ">", None, None, None, -1, -1, 0)),
    ],
)
def test_numpys_names_are_for_numbers_alone(tmp_path, rate):
    torch.save(content(tiny(), rate=rate), tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd.pth (asks to run code|is damaged)"):
        published.read(tmp_path / "odd.pth", layout(tiny()))


def test_the_flags_of_a_dtype_are_not_believed(tmp_path):
    """Otherwise numpy would read the bytes as a pointer, or the address of the bytes as the number."""
    number = Named(SCALAR, (POINTER, np.float64(0.5).tobytes()))
    torch.save({"rate": number, "whole": np.int64(-3), "yes": np.bool_(True)}, tmp_path / "odd.pth")
    assert published.load(tmp_path / "odd.pth") == {"rate": 0.5, "whole": -3, "yes": True}


@pytest.mark.parametrize(
    "place, value, says",
    [
        ("model", "x", r"model: all_modules.1.weight is a str and no tensor"),
        ("model", torch.ones(32, 16).to_sparse(), r"torch.sparse_coo on cpu, and no dense one"),
        ("shadow", None, r"shadow_params: 1 is a NoneType and no tensor"),
        ("shadow", torch.full((32,), torch.nan), r"shadow_params: 1 is not finite"),
        ("shadow", torch.ones(32, device="meta"), r"on meta, and no dense one"),
        ("shadow", torch.ones(32, dtype=torch.complex64), r"a tensor of torch.complex64"),
        ("sigmas", torch.ones(1).expand(2**40), r"model: sigmas is a tensor \[1099511627776\] of which the file holds"),
        ("sigmas", torch.ones(0), "sigmas is empty"),
        ("step", [], r"its step is \[\] and no number of updates"),
        ("step", float("nan"), r"its step is nan and no number of updates"),
        ("step", -3, r"its step is -3 and no number of updates"),
    ],
)
def test_values_that_are_no_weights(tmp_path, place, value, says):
    saved = content(tiny())
    if place == "step":
        saved["step"] = value
    elif place == "shadow":
        saved["ema"]["shadow_params"][1] = value
    else:
        saved["model"][{"model": "module.all_modules.1.weight", "sigmas": "module.sigmas"}[place]] = value
    torch.save(saved, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=says):
        published.read(tmp_path / "odd.pth", layout(tiny()))


def test_a_file_that_would_grow_is_not_unpacked(file, tmp_path):
    path, _ = file
    small = tmp_path / "small.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ValueError, match="is no file of torch.save, which packs nothing"):
        published.read(small, layout(tiny()))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint=.*typo.pth does not exist"):
        published.read(tmp_path / "typo.pth", [])


def test_an_average_of_zeros_has_no_order(tmp_path):
    """Equal tensors, such as new biases, are accepted in their own places."""
    net = NCSNpp((3, 8, 8), width=8, multipliers=(1, 1), blocks=1, attention=(4,))
    torch.save(content(net), tmp_path / "new.pth")
    published.read(tmp_path / "new.pth", layout(net))


def job(folder: Path, *words: str) -> dict:
    choices = dict.fromkeys(("task", "data", "sde", "sampler", "model"), "x")
    run(compose(*words, f"store={folder / 'store'}"), choices, folder / "out")
    return dict(np.load(folder / "out" / "samples.npz")) if (folder / "out" / "samples.npz").exists() else {}


def test_a_run_draws_from_a_file(file, tmp_path):
    """The samples are those of the reverse SDE with the published code's score for these weights."""
    path, average = file
    words = [*WORDS, f"checkpoint={path}", "count=3", "sampler=ddim", "sampler.steps=3", "dtype=float64"]
    words.append("sde.sigma_max=0.6")  # with more noise a network of random weights leaves the range of the pixels
    x = job(tmp_path, *words)["x"]

    cfg = schema.settle(compose(*words), (3, 8, 8), standard((3, 8, 8)))
    task = schema.build(schema.canonical(cfg["task"]), "task")
    sde, weights = VE(0.02, 0.6), {name: t.double() for name, t in take(average, layout(average)).items()}

    config = published_network.NCSNPP | {"ch_mult": [1, 1]}

    def score(x, t):
        return published_network.network(config, weights, (x + 1) / 2, sde.sigma(t).expand(len(x)) / 2) / 2

    drawn = task.drawing.draw(sde, score, (3, 8, 8), 3)
    expected = (drawn * 128 + 128).floor().clamp(0, 255)
    assert int(np.abs(x.astype(int) - expected.numpy().astype(int)).max()) <= 1
    assert len(np.unique(x)) > 20


def test_a_file_is_scored(tmp_path):
    """A file is scored without its training data. The flow of a score of 0 is the identity, so that log p is that of
    the prior, N(0, (sigma_max^2 + std^2) I), in the data's units.
    """
    net = tiny()
    torch.nn.init.zeros_(net.last.weight)
    torch.nn.init.zeros_(net.last.bias)
    torch.save(content(net), tmp_path / "zero.pth")
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "mine.npy", x)
    job(tmp_path, *WORDS, "task=likelihood", f"checkpoint={tmp_path / 'zero.pth'}", f"points={tmp_path / 'mine.npy'}")
    variance = 100**2 + 0.5**2
    inside = ((x + 0.5) / 128 - 1).reshape(2, -1)
    expected = -0.5 * 192 * np.log(2 * np.pi * variance) - (inside**2).sum(1) / 2 / variance - 192 * np.log(128)
    found = np.load(tmp_path / "out" / "likelihood.npz")
    np.testing.assert_allclose(found["log_prob"], expected, rtol=0, atol=2e-2)
    np.testing.assert_array_equal(np.floor(found["x"]), x)


def test_another_architecture_is_told(file, tmp_path):
    path, _ = file
    words = [word for word in WORDS if word != "model.blocks=1"]
    with pytest.raises(ValueError, match="is of another architecture: it has .* Choose the network with experiment="):
        job(tmp_path, *words, f"checkpoint={path}")
    with pytest.raises(ValueError, match="is a file: model=MLP has no published layout; type model=ncsnpp"):
        job(tmp_path, "data=moons", f"checkpoint={path}", "data.count=100")


@pytest.mark.parametrize(
    "words, says",
    [
        (["task=overfitting"], "is another code's and keeps nothing of its training, which this task asks for"),
        (["data.condition=labels", "data=digits", "guidance=3"], "the published layout has no conditional networks"),
        (["model.shape=[3,8,10]"], r"model.shape=\[3, 8, 10\] is not the data's, \[3, 8, 8\]"),
    ],
)
def test_what_a_file_cannot_do(file, tmp_path, words, says):
    words = [*WORDS, *words] if "data=digits" not in words else [WORDS[0], *words, *TINY]
    with pytest.raises(ValueError, match=says):
        job(tmp_path, *words, f"checkpoint={file[0]}")


def test_noise_that_the_network_never_met_is_told(file, tmp_path, caplog):
    path, _ = file
    job(tmp_path, *WORDS, f"checkpoint={path}", "count=1", "sampler.steps=1", "sde.sigma_max=180")
    assert "for noise up to sigma=50 of the data's range, 100 in model units" in caplog.text
    assert "type sde=ve sde.sigma_max=100" in caplog.text


def test_the_table_of_a_vp_network_says_nothing(tmp_path, caplog):
    """Files of VP networks have a table of sigmas too, which is not used; the clock gives their step numbers."""
    words = ["experiment=score_sde/vp/cifar10_ddpmpp_continuous", "data=unseen", "data.shape=[3,8,8]", *TINY, "sde=ve"]
    cfg = schema.settle(compose(*words), (3, 8, 8), standard((3, 8, 8)))
    net = randomised(schema.build(cfg["model"], "model")).float()
    torch.save(content(net), tmp_path / "vp.pth")
    job(tmp_path, *words, f"checkpoint={tmp_path / 'vp.pth'}", "count=1", "sampler=ddim", "sampler.steps=1")
    assert "noise up to" not in caplog.text


def test_data_without_examples_are_not_trained_on(tmp_path):
    with pytest.raises(ValueError, match="no examples to train on: type checkpoint=PATH"):
        job(tmp_path, *WORDS)


@pytest.mark.parametrize("task", ["likelihood", "bound", "encode", "impute", "restore"])
def test_data_without_examples_are_not_scored(file, tmp_path, task):
    with pytest.raises(ValueError, match="these data have no held-out examples: type points=FILE"):
        job(tmp_path, *WORDS, f"checkpoint={file[0]}", f"task={task}")
