"""Every command in benchmarks/ at its smallest size: it ends, and prints tables of finite numbers.

A new file there needs an entry in ``SMALLEST``. The benchmark of kills is run by :mod:`tests.test_crash`.
"""

import ast
import importlib
import json
import re

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import save_file

from benchmarks import same
from benchmarks.crash import main as crash
from scoresde.cli import run

from .conftest import ROOT, choices, compose

FILES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text())
TINY = ["training.steps=2", "training.batch=8", "training.evaluate=0", "training.warmup=0"]
SMALL = ["model.channels=[4,4]", "model.attention=[]", "data.test_count=8"]
SMALLEST = {  # arguments, the rows of numbers that are printed at least, and what stands in them
    "adaptive": (["--count", "40", "--dimensions", "1", "--tolerances", "0.5"], 4, ["| VE | 1 | drawn anew |"]),
    "glossary": (["--out"], 0, [" metrics, ", "glossary.md"]),
    "heartbeat": (["--T", "4", "--rows", "4", "--draws", "4"], 1, ["entropy 2.3219 bits", "| 4 |"]),
    "langevin": (["--count", "60", "--steps", "4"], 3, ["| kernel |", "| batch_norms |", "| sample_norms |"]),
    "likelihood": (["--batch", "4", "--rounds", "1", "--sde", "vp", "--tolerance", "0.1"], 4, ["equal worst error"]),
    "memory": (["--oracle", "--tasks", "sample", "--counts", "2"], 1, ["| sample |"]),
    "oracle": (["--count", "60", "--sde", "vp", "--sampler", "ddim", "ald", "--most", "10"], 2, ["vp      ald"]),
    "overhead": (
        ["--rounds", "1", "--threads", "1", "--only", "mlp", "--steps", "2"], 15, ["sde_dpmpp_2m", "threads=1"],
    ),
    "peers": (
        ["--data", "mixture", "--budgets", "4", "--draw-budgets", "4", "8", "--count", "2", "--draws", "40", "--points",
         "2", "--rounds", "1", "--steps", "2"], 60,
        ["unipc", "diffusers UniPC", "sea", "diffusers DDPM", "torchdiffeq dopri5, exact trace", "median of all: ours"],
    ),
    "planar": (["--data", "moons", "--", "model.width=8", "count=20", *TINY], 1, ["moons         ve     "]),
    "posterior": (
        ["--dim", "2", "--operator", "half", "--conditioner", "tds", "pigdm", "--sampler", "ancestral", "--seeds", "1",
         "--points", "1", "--steps", "4", "--out"], 2, ["| 2 | half | tds | ancestral |", "posterior.png"],
    ),
    "probes": (
        ["--points", "1", "--runs", "2", "--tolerance", "0.5", "--only", "orthogonal, for two, redrawn"], 3,
        ["published", "orthogonal, for two, redrawn, control"],
    ),
    "randomness": (
        ["--rounds", "2", "--seconds", "0", "--only", "MLP, points of 2"], 2, ["| MLP, points of 2, batch 256 | 0.1 |"],
    ),
    "temperature": (["--count", "60", "--steps", "4"], 9, ["tempering=noise, sea"]),
    "throughput": (
        ["--sides", "8", "--batch", "1", "--rounds", "1", "--updates", "1", "--threads", "1"], 8,
        ["| ours: ddpm |", "| ours: edm2 |", "| diffusers: UNet2DModel |"],
    ),
    "same": ([str(ROOT), "--only", "oracle deis"], 1, ["| oracle deis | 10 | none |"]),
    "walk": (["data=moons", "task=train", "--list"], 1, ["scoresde/cli.py", "functions in"]),
    "update": (
        ["--rounds", "1", "--batch", "2", "--threads", "1", "--only", "as it is", "muon", "in 2 parts",
         "with averages for later"], 4, ["| as it is |", "| muon |", "| with averages for later |"],
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def restored():
    """Restores torch's threads and its global generator, which a benchmark sets."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


def test_every_command_has_its_smallest_size():
    assert set(SMALLEST) | {"crash"} == set(FILES)
    assert callable(crash)


@pytest.mark.parametrize("name", FILES)
def test_a_command_is_its_main(name):
    """``python -m benchmarks.NAME`` does no more than to call ``main()``, which tests call with arguments."""
    last = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text()).body[-1]
    assert ast.unparse(last) == "if __name__ == '__main__':\n    main()"


@pytest.mark.parametrize("name", SMALLEST)
def test_a_command_runs_at_its_smallest_size(name, tmp_path, capsys):
    words, rows, parts = SMALLEST[name]
    if name == "probes":  # of a trained network of pictures
        choices = dict.fromkeys(("task", "data", "sde", "sampler", "model"), "x")
        run(compose("task=train", "data=digits", *SMALL, *TINY, f"store={tmp_path / 'store'}"), choices, tmp_path)
        (folder,) = (tmp_path / "store").glob("*/")
        words = [str(folder), *words]
    elif name == "posterior":
        words = [*words, str(tmp_path)]
    elif name == "glossary":
        words = [*words, str(tmp_path / "glossary.md")]
    importlib.import_module(f"benchmarks.{name}").main(words)
    text = capsys.readouterr().out
    for part in parts:
        assert part in text, f"{part} is not in\n{text}"
    numbers = [
        re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?(?![\w.]|$(?<!\d))", line) for line in text.splitlines()
    ]
    assert sum(bool(found) for found in numbers) >= rows, text
    assert not re.search(r"\b(nan|inf|[A-Z]\w*(Error|Exception|Warning):)\b", text), text


def test_the_adaptive_benchmark_has_one_floor_for_each_sde_and_dimension(capsys):
    importlib.import_module("benchmarks.adaptive").main(
        ["--count", "40", "--dimensions", "1", "2", "--tolerances", "0.5"]
    )
    cells = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    floors = {}
    for name, d, _, *_, floor in cells:
        floors.setdefault((name, d), []).append(floor)
    assert len(floors) == 4 and all(len(each) == 2 and len(set(each)) == 1 for each in floors.values())


def test_the_road_leads_from_the_command_line_to_the_loss(capsys):
    importlib.import_module("benchmarks.walk").main(["data=moons", "task=train"])
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if "hold each other" in line)
    title, road = lines[start], [line.split() for line in lines[start + 1 :]]
    assert road[0] == ["scoresde/cli.py", "command"] and road[-1] == ["training/loss.py", "ScoreMatching.__call__"]
    assert title.startswith(f"{len(road)} of them, in {len({file for file, _ in road})} files") and len(road) > 5


def test_the_commands_that_are_compared_compose_and_cover_every_task():
    def task_of(name: str, command: list[str]) -> str:
        first = [
            word.split(",")[0] if name == "sweep" and word.startswith(("sde=", "sampler=")) else word
            for word in command
        ]
        return compose(*(word for word in first if word != "-m"))["task"]["_target_"]

    compared = {task_of(name, command) for name, command in same.COMMANDS.items()}
    tasks = {yaml.safe_load((ROOT / f"conf/task/{name}.yaml").read_text())["_target_"] for name in choices("task")}
    assert compared == tasks


def test_what_differs_between_two_checkouts_is_seen(tmp_path):
    """Each value of each kind of file, by its name; times do not count, nor do checkpoints before the newest."""
    network, run = tmp_path / "store" / "moons-1a", tmp_path / "run" / "0"
    values, grid = np.arange(4.0), np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    def leave(step=60, weights=0.0, nfe=41, x=0.0, row=1, pixel=0, seconds=1.0, early=0.0):
        for folder, added in ((network / "step-20", early), (network / f"step-{step}", weights)):
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"w": values + added}, folder / "model.safetensors")
        (network / "config.yaml").touch()
        run.mkdir(parents=True, exist_ok=True)
        (run / "metrics.json").write_text(json.dumps({"nfe": nfe, "seconds": seconds, "network": str(network)}))
        np.savez(run / "samples.npz", x=values + x)
        (run / "summary.csv").write_text(f"nfe,fit_seconds\n{row},{seconds}\n")
        Image.fromarray(grid + np.uint8(pixel)).save(run / "samples.png")
        return same.collected(tmp_path)

    plain = leave()
    assert leave(seconds=2.0, early=1.0) == plain
    names = {
        "weights": "moons-1a/step-60/model/w",
        "nfe": "0/metrics.json/nfe",
        "x": "0/samples.npz/x",
        "row": "0/summary.csv/nfe",
        "pixel": "0/samples.png",
    }
    for key, name in names.items():
        found = leave(**{key: 2})
        assert {name for name in plain.keys() | found.keys() if found.get(name) != plain.get(name)} == {name}
    assert set(plain) == {*names.values(), "network moons-1a"}


def test_two_checkouts_that_differ_end_in_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(same, "results", lambda root, command, killed: {"0/metrics.json/nfe": str(root)})
    (tmp_path / "run.py").touch()
    with pytest.raises(SystemExit) as ended:
        same.main([str(tmp_path), "--only", "sweep"])
    assert ended.value.code == 1 and "| sweep | 1 | 0/metrics.json/nfe |" in capsys.readouterr().out


def test_the_other_checkout_must_be_one(tmp_path, capsys):
    for words, message in (([str(tmp_path)], "holds no run.py"), ([str(ROOT), "--only", "nothing"], "part of no name")):
        with pytest.raises(SystemExit):
            same.main(words)
        assert message in capsys.readouterr().err
