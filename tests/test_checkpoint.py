"""Tests of checkpoints, which are whole or absent, verified and never executed, and of the store."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from scoresde.training import checkpoint, journal, store
from scoresde.training.checkpoint import Checkpoint, Damaged
from scoresde.training.store import Store


def sample(step: int) -> Checkpoint:
    return Checkpoint(
        step,
        {"model": {"w": torch.full((3,), float(step))}, "ema": {"w": torch.zeros(3)}},
        {"note": "x", "nested": [1, [2.5, None]]},
    )


def test_what_is_saved_is_loaded(tmp_path):
    path = checkpoint.save(tmp_path, sample(7))
    found = checkpoint.load(path)
    assert found.step == 7 and found.state == sample(7).state
    assert torch.equal(found.tensors["model"]["w"], torch.full((3,), 7.0))
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}, (
        "tensors and text, nothing that could run"
    )


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 30, 4000):
        checkpoint.save(tmp_path, sample(step))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000030", "step-00004000"]


@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty"])
def test_any_damage_falls_back_to_the_one_before_and_says_so(tmp_path, file, damage, caplog):
    for step in (1, 2):
        checkpoint.save(tmp_path, sample(step))
    target = tmp_path / "step-00000002" / file
    content = bytearray(target.read_bytes())
    if damage == "flip":
        content[-3] ^= 1  # one bit, inside a tensor or a value: safetensors and json would load it
        target.write_bytes(content)
    elif damage == "truncate":
        target.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        target.write_bytes(b"")
    else:
        target.unlink()
    with pytest.raises(Damaged):
        checkpoint.load(tmp_path / "step-00000002")
    with caplog.at_level("WARNING"):
        assert checkpoint.load_newest(tmp_path).step == 1
    assert "step-00000002" in caplog.text and "set aside" in caplog.text
    checkpoint.save(tmp_path, sample(2))  # a resumed run writes it again
    assert checkpoint.load_newest(tmp_path).step == 2


def test_nothing_readable_is_nothing(tmp_path):
    assert checkpoint.load_newest(tmp_path) is None
    (tmp_path / "step-00000001").mkdir()
    assert checkpoint.load_newest(tmp_path) is None


def test_a_killed_writer_leaves_no_half_checkpoint(tmp_path):
    checkpoint.save(tmp_path, sample(1))
    debris = tmp_path / ".partial-123"
    debris.mkdir()
    (debris / "model.safetensors").write_bytes(b"half")
    assert checkpoint.load_newest(tmp_path).step == 1
    checkpoint.save(tmp_path, sample(2))
    assert not debris.exists()


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/executed",)

    path = checkpoint.save(tmp_path, sample(1))
    (path / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    sums = json.loads((path / "manifest.json").read_text())
    sums["model.safetensors"] = checkpoint.sha256(path / "model.safetensors")  # an attacker changes it too
    (path / "manifest.json").write_text(json.dumps(sums))
    with pytest.raises(Damaged):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


def test_a_full_disk_keeps_the_last_good_one(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, sample(1))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "flush", full)
    with pytest.raises(OSError, match="step 2 could not be written.*No space left on device.*store=FOLDER"):
        checkpoint.save(tmp_path, sample(2))
    assert checkpoint.load_newest(tmp_path).step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


# The store


IDENTITY = {
    "data": {"_target_": "data.Moons"},
    "sde": {"sigma_max": 50.0},
    "model": {"width": 8},
    "parameterisation": {},
    "training": {"steps": 5},
}


def trained(folder: Path, value: float, step: int = 5) -> None:
    checkpoint.save(folder, Checkpoint(step, {"ema": {"weight": torch.full((1, 1), value)}}, {}))


def obtain(root: Path, identity=IDENTITY, value: float = 3.0, calls: list | None = None) -> nn.Module:
    def train(folder):
        calls is not None and calls.append(folder)
        trained(folder, value)
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, value)
        return model

    return Store(root).obtain(
        identity, "moons", 5, train, lambda found: store.put_weights(nn.Linear(1, 1, bias=False), found, root)
    )


def test_a_network_is_trained_once(tmp_path):
    calls = []
    first, second = obtain(tmp_path, calls=calls), obtain(tmp_path, calls=calls)
    assert len(calls) == 1 and torch.equal(first.weight, second.weight)
    assert store.read(calls[0])[0] == IDENTITY


def test_another_value_anywhere_is_another_network(tmp_path):
    calls = []
    obtain(tmp_path, calls=calls)
    obtain(tmp_path, {**IDENTITY, "sde": {"sigma_max": 49.0}}, calls=calls)
    obtain(tmp_path, dict(reversed(IDENTITY.items())), calls=calls)  # another order is the same identity
    assert len(set(calls)) == 2 == len(calls)


def test_an_unfinished_network_is_trained_on(tmp_path):
    folder = Store(tmp_path).folder(IDENTITY, "moons")
    trained(folder, 1.0, step=3)
    calls = []
    assert obtain(tmp_path, calls=calls).weight.item() == 3.0 and calls == [folder]


def test_a_damaged_finished_network_is_not_used(tmp_path):
    obtain(tmp_path)
    folder = Store(tmp_path).folder(IDENTITY, "moons")
    (folder / "step-00000005" / "ema.safetensors").write_bytes(b"")
    calls = []
    obtain(tmp_path, calls=calls)
    assert len(calls) == 1


def test_concurrent_processes_wait_for_one_trainer(tmp_path):
    code = f"""
import sys, time, torch
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
from tests.test_checkpoint import obtain, trained, IDENTITY
from scoresde.training.store import Store
def train(folder):
    (Path({str(tmp_path)!r}) / f"trained-{{sys.argv[1]}}").touch()
    time.sleep(1.0)
    trained(folder, 3.0)
    return torch.nn.Linear(1, 1)
Store({str(tmp_path / "store")!r}).obtain(IDENTITY, "moons", 5, train, lambda found: found)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(i)]) for i in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("trained-*"))) == 1


def test_the_lock_of_a_killed_trainer_is_free(tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
from tests.test_checkpoint import IDENTITY
from scoresde.training.store import Store
def train(folder):
    (Path({str(tmp_path)!r}) / "started").touch()
    time.sleep(600)
Store({str(tmp_path / "store")!r}).obtain(IDENTITY, "moons", 5, train, lambda found: found)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    started = time.monotonic()
    assert obtain(tmp_path / "store").weight.item() == 3.0 and time.monotonic() - started < 10


def test_checkpoint_by_path_is_never_replaced_by_another(tmp_path):
    folder = Store(tmp_path).folder(IDENTITY, "moons")
    with pytest.raises(FileNotFoundError, match="checkpoint=.*does not exist"):
        store.read(folder)
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="holds no trained network"):
        store.read(folder)
    store.write_config(folder, IDENTITY)
    trained(folder, 1.0, step=4)
    trained(folder, 2.0, step=5)
    assert store.read(folder)[1].step == 5 and store.read(folder / "step-00000004")[1].step == 4
    (folder / "step-00000005" / "ema.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="is damaged.*try checkpoint=.*step-00000004"):
        store.read(folder)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="weights do not fit.*train anew"):
        store.put_weights(
            nn.Linear(1, 1, bias=False), Checkpoint(1, {"ema": {"weight": torch.zeros(2, 2)}}, {}), "here"
        )


def test_the_journal_counts_a_step_once(tmp_path):
    for step in (1, 2, 3, 2, 3):
        journal.append(tmp_path, {"step": step, "loss": step / 2})
    journal.append(tmp_path, {"step": 3, "held_out_loss": 1.0})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [event["step"] for event in journal.read(tmp_path)] == [1, 2, 3, 3]
    journal.append(tmp_path, {"step": 4, "loss": 2.0})
    assert [event["step"] for event in journal.read(tmp_path)] == [1, 2, 3, 3, 4]


def test_a_damaged_line_of_the_journal_is_left_out(tmp_path, caplog):
    """Each bit in turn; a line of an earlier version has no checksum."""
    path, events = tmp_path / "log.jsonl", [{"step": step, "loss": step / 7} for step in (1, 2, 3)]
    for event in events:
        journal.append(tmp_path, event)
    whole = path.read_bytes()
    assert journal.read(tmp_path) == events and not caplog.text
    for place in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        caplog.clear()
        found = journal.read(tmp_path)
        same = [{key: event[key] for key in ("step", "loss")} for event in found] == events
        assert same or "damaged and left out" in caplog.text and all(event in events for event in found), place
    path.write_bytes(b'{"step": 1, "loss": 0.5}\n')
    assert journal.read(tmp_path) == [{"step": 1, "loss": 0.5}]


def test_a_line_without_its_end_is_kept_if_it_is_whole(tmp_path, caplog):
    for step in (1, 2):
        journal.append(tmp_path, {"step": step})
    whole = (tmp_path / "log.jsonl").read_bytes()
    for cut, steps in ((1, [1, 2, 3]), (2, [1, 3]), (len(whole) // 2, [1, 3])):
        (tmp_path / "log.jsonl").write_bytes(whole[:-cut])
        journal.append(tmp_path, {"step": 3})
        assert [event["step"] for event in journal.read(tmp_path)] == steps and not caplog.text


def test_the_units_of_the_data_are_verified(tmp_path):
    """They are no part of the identity, whose hash names the folder."""
    source = {"path": "/old/x.npy", "shape": [2], "shift": [0.5, 1.0], "scale": [2.0, 1e-05], "levels": None}
    folder = Store(tmp_path).folder(IDENTITY, "points")
    trained(folder, 1.0)
    store.write_config(folder, {**IDENTITY, "source": source})
    config = folder / "config.yaml"
    whole = config.read_text()
    assert store.read(folder)[0] == {**IDENTITY, "source": source}
    for one, other in (
        ("/old/", "/new/"),
        ("0.5", "0.7"),
        ("1.0e-05", "1.0e-04"),
        ("shift", "shi2t"),
        ("levels: null", "levels: 8"),
    ):
        config.write_text(whole.replace(one, other))
        with pytest.raises(ValueError, match="its config.yaml is not what was written"):
            store.read(folder)
    config.write_text("".join(line for line in whole.splitlines(True) if "sha256" not in line))  # an earlier version's
    assert store.read(folder)[0] == {**IDENTITY, "source": source}


@pytest.mark.parametrize("text", ["", "- a list", "just words", "data: {", "\udcff"])
def test_a_damaged_config_is_refused_and_written_anew_by_the_run_that_trained_it(tmp_path, text):
    obtain(tmp_path)
    folder = Store(tmp_path).folder(IDENTITY, "moons")
    whole = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_bytes(text.encode("utf8", "surrogateescape"))
    with pytest.raises(ValueError, match="its config.yaml is not what was written"):
        store.read(folder)
    obtain(tmp_path)
    assert (folder / "config.yaml").read_text() == whole


def test_a_changed_value_in_a_config_is_refused(tmp_path):
    obtain(tmp_path)
    folder = Store(tmp_path).folder(IDENTITY, "moons")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("50.0", "51.0"))
    with pytest.raises(ValueError, match="not what was written"):
        store.read(folder)


@pytest.mark.parametrize("text", ["5", "null", "[]"])
def test_a_manifest_that_is_no_object_is_damage(tmp_path, text):
    path = checkpoint.save(tmp_path, sample(1))
    (path / "manifest.json").write_text(text)
    with pytest.raises(Damaged):
        checkpoint.load(path)


def test_a_manifest_that_names_too_little_is_damage(tmp_path):
    path = checkpoint.save(tmp_path, sample(1))
    (path / "manifest.json").write_text("{}")
    with pytest.raises(Damaged, match="does not name .*state.json"):
        checkpoint.load(path)


def test_a_file_of_somebody_elses_is_no_damage(tmp_path):
    path = checkpoint.save(tmp_path, sample(1))
    (path / ".DS_Store").write_bytes(b"\0")
    assert checkpoint.load_newest(tmp_path).step == 1 and (path / ".DS_Store").exists()


def test_what_cannot_be_read_is_not_set_aside(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path, sample(1))

    def refuse(file):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(checkpoint, "sha256", refuse)
    with pytest.raises(OSError, match="cannot be read .Permission denied."):
        checkpoint.load_newest(tmp_path)
    assert path.exists()
