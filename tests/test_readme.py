"""What the README says is so: its Python runs, its files and names exist, its commands compose."""

import re
import shlex

import pytest

from scoresde.conf import schema
from scoresde.conf.assemble import settle
from scoresde.conf.identity import identity_of
from scoresde.training import Store

from .conftest import ROOT, compose

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def test_the_python_by_hand_runs_and_samples_moons():
    room = {}
    exec(PYTHON[0].replace("steps=1000", "steps=300"), room)
    samples, data = room["samples"], room["data"]
    assert samples.shape == (1000, 2)
    assert (samples.mean(0) - data.shift).abs().max() < 0.4 and abs(float(samples.std() / data.test.std()) - 1) < 0.25


def test_load_is_as_it_says(tmp_path):
    from scoresde.cli import run

    choices = {"task": "train", "data": "moons", "sde": "vp", "sampler": "em", "model": "mlp"}
    run(
        compose(
            "task=train", "data=moons", "sde=vp", "training.steps=20", "training.batch=32", f"store={tmp_path}/store"
        ),
        choices,
        tmp_path / "run",
    )
    (folder,) = (tmp_path / "store").iterdir()
    assert re.fullmatch("moons-vp-mlp-[0-9a-f]{10}", folder.name)
    room = {}
    exec(PYTHON[1].replace("checkpoints/moons-vp-mlp-0123456789", str(folder)), room)
    assert room["found"].log_prob.shape == (100,) and room["found"].z.shape == (100, 2) and room["found"].nfe > 10


ROWS = re.findall(r"^\| .* \| .* \| `([\w/.]+)` \| (.*) \|$", README, flags=re.M)


@pytest.mark.parametrize("file, names", ROWS)
def test_the_table_of_equations_points_at_code(file, names):
    text = (ROOT / file).read_text()
    for name in re.findall(r"`(\w+)", names.replace("SDE.reverse(score", "`reverse")):
        assert re.search(rf"\b{name}\b", text, flags=re.I), f"{file} has no {name}"


COMMANDS = re.findall(r"^    python run\.py (.*?)(?:  .*)?$", README, flags=re.M)


def test_the_named_folder_is_that_of_the_first_command():
    cfg = compose()
    data = schema.build({key: value for key, value in cfg["data"].items() if key != "condition"}, "data")
    identity = identity_of(settle(cfg, data, "cpu"), data)
    assert f"task.other={Store('checkpoints').folder(identity, 'digits-ve-unet_small')}" in README


@pytest.mark.parametrize("line", [line for line in COMMANDS if "--help" not in line])
def test_the_commands_compose(line):
    words = [word for word in shlex.split(line) if word != "-m"]
    for choice in ("sde", "sampler"):  # of a sweep, each value by itself
        words = [word.split(",")[0] if word.startswith(f"{choice}=") else word for word in words]
    assert compose(*words)["task"]["_target_"].startswith("tasks.")


def test_there_are_two_blocks_to_paste():
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.S)
    assert len(blocks) == 2 and "python run.py sde=ve sampler=pc" in blocks[0] and "pytest" in blocks[1]
