"""``ls``: networks and runs, newest first; what is unfinished or damaged is said, and nothing found is a traceback."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from scoresde import listing
from scoresde.cli import run

from .conftest import ROOT, compose

TINY = ["training.steps=4", "training.batch=8", "training.evaluate=2", "model.width=8"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of one network, and the outputs of two runs of it, of which the second failed."""
    folder = tmp_path_factory.mktemp("ls")
    choices = dict.fromkeys(("task", "sampler", "model"), "x") | {"data": "moons", "sde": "ve"}
    words = ["data=moons", *TINY, f"store={folder / 'store'}", "sampler=ddim", "sampler.steps=2", "count=5"]
    where = {name: folder / "outputs" / name for name in ("sample/moons-ve-ddim/1", "sweeps/now/0-moons-ve-ddim")}
    run(compose(*words), choices, where["sample/moons-ve-ddim/1"])
    with pytest.raises(ValueError):
        run(compose(*words, "task.format=png"), choices, where["sweeps/now/0-moons-ve-ddim"])
    return folder


@pytest.fixture
def copy(made, tmp_path):
    """A copy to damage: the network's folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (found,) = (tmp_path / "store").iterdir()
    return found


def rows(folder, *words: str) -> list[list[str]]:
    """The cells of all lines that ``ls`` prints, without titles."""
    text = listing.show([f"store={folder / 'store'}", f"outputs={folder / 'outputs'}", *words])
    return [[cell.strip() for cell in line.split("  ") if cell] for line in text.splitlines() if line.startswith("  ")]


def status(network, *words: str) -> str:
    """The status that ``ls`` shows of the only network."""
    return rows(network.parents[1], *words)[1][1]


def test_networks_and_runs_are_listed(made):
    titles, network, run_titles, *found = rows(made)
    assert titles == list(listing.NETWORK) and run_titles == list(listing.RUN)
    assert network[0].startswith("moons-ve-x-") and network[1:5] == ["finished", "MLP VE", "Moons", "4"]
    (folder,) = (made / "store").iterdir()
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert network[5] == f"{[event['held_out_loss'] for event in events if 'held_out_loss' in event][-1]:.4g}"
    assert network[6].endswith("kB") and network[7].split()[1] in ("s", "min")
    finished, failed = sorted(found)
    assert finished[:4] == ["sample/moons-ve-ddim/1", "finished", "sample", "moons"]
    value = json.loads((made / "outputs" / finished[0] / "metrics.json").read_text())["sliced_wasserstein"]
    assert finished[4] == f"sliced_wasserstein {value:.4g}"
    assert failed[0] == "sweeps/now/0-moons-ve-ddim" and failed[1].startswith("failed: ValueError: task.format=png")


def test_the_newest_is_first(copy):
    (later,) = copy.parent.glob("*/step-*")
    for i, name in enumerate(("b", "a", "c")):
        shutil.copytree(copy, copy.parent / name)
        for path in (copy.parent / name).rglob("*"):
            os.utime(path, (1e9 + i, 1e9 + i))
    names = [row[0] for row in rows(copy.parents[1])[1:5]]
    assert later.exists() and names == [copy.name, "c", "a", "b"]


DAMAGE = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "noise": lambda path: path.write_bytes(os.urandom(200)),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a dead link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "other json": lambda path: path.write_text("[1, 2]"),
}
FILES = ["config.yaml", *(f"step-00000004/{name}" for name in ("manifest.json", "state.json", "ema.safetensors"))]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_network_is_marked(name, damage, copy):
    DAMAGE[damage](copy / name)
    assert status(copy) == f"damaged: {name}"


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["log.jsonl", ".lock"])
def test_damage_that_costs_no_network_is_none(name, damage, copy):
    DAMAGE[damage](copy / name)
    assert status(copy) == "finished"


def test_a_flipped_bit_of_the_weights_is_found_on_request(copy):
    path = copy / "step-00000004" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert status(copy) == "finished"
    assert status(copy, "verify=true") == "damaged: step-00000004/model.safetensors"


def test_an_unfinished_network_is_marked(copy):
    described = yaml.safe_load((copy / "config.yaml").read_text())
    described["training"]["steps"] = 3000
    (copy / "config.yaml").write_text(yaml.safe_dump(described))
    assert status(copy) == "unfinished: of 3,000"
    for step in copy.glob("step-*"):
        shutil.rmtree(step)
    assert status(copy) == "unfinished: no checkpoint yet"


@pytest.mark.parametrize("node", [None, 3, [], "x", {"_target_": 3}, {"_target_": None, "steps": "many"}])
@pytest.mark.parametrize("key", ["data", "sde", "model", "training", "source"])
def test_a_configuration_of_any_form_is_listed(key, node, copy):
    described = yaml.safe_load((copy / "config.yaml").read_text())
    described[key] = node
    (copy / "config.yaml").write_text(yaml.safe_dump(described))
    assert rows(copy.parents[1])[1][0] == copy.name


@pytest.mark.parametrize("name", ["step-x", "step-", "step--3", "step-99999999999999999999"])
def test_a_folder_called_as_a_checkpoint_is_no_traceback(name, copy):
    (copy / name).mkdir()
    assert status(copy).startswith(("damaged: ", "finished"))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["metrics.json", "metrics.jsonl"])
def test_a_damaged_run_is_listed(name, damage, copy):
    folder, gone = copy.parents[1], damage in ("deleted", "a folder", "a dead link")
    DAMAGE[damage](folder / "outputs" / "sample/moons-ve-ddim/1" / name)
    found = {row[0]: row[1] for row in rows(folder)[3:]}
    if name == "metrics.jsonl":  # without it, and without Hydra's folder, nothing says that a run was here
        assert found.get("sample/moons-ve-ddim/1") == (None if gone else "finished")
    else:
        assert found["sample/moons-ve-ddim/1"] == ("unfinished" if gone else "damaged: metrics.json")


def test_links_that_lead_in_a_circle_end(copy):
    outputs = copy.parents[1] / "outputs"
    (outputs / "again").symlink_to(outputs)
    (copy / "again").symlink_to(copy)
    assert len(rows(copy.parents[1])) == 5


def test_nothing_to_list_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = listing.show([])
    assert "networks of checkpoints\n  none" in text and "runs of outputs\n  none" in text


@pytest.mark.parametrize("word", ["stor=x", "store", "store=", "verify=yes", "--help", "store=absent"])
def test_a_word_that_is_no_option_is_refused(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="type "):
        listing.show([word])


@pytest.mark.parametrize("seconds, words", [(-5, "0 s"), (59, "59 s"), (3600, "1 h"), (200_000, "2 d")])
def test_ages(seconds, words):
    assert listing.age(seconds) == words


def test_ls_loads_no_torch(made):
    words = ["ls", f"store={made / 'store'}", f"outputs={made / 'outputs'}"]
    script = (
        f"import runpy, sys\nsys.argv = ['run.py', *{words}]\nrunpy.run_path('run.py', run_name='__main__')\n"
        "print('LOADED', [name for name in ('torch', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "LOADED []" in found.stdout and "moons-ve-x-" in found.stdout, found.stderr[-2000:]
    wrong = subprocess.run(
        [sys.executable, "run.py", "ls", "stor=x"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: ls stor=x cannot be read")
