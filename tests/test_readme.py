"""The README and the pages of docs/: their Python runs, files and names exist, commands compose, examples work."""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from scoresde.conf import schema
from scoresde.conf.assemble import settle
from scoresde.conf.identity import identity_of
from scoresde.training import Store

from .conftest import ROOT, compose

README = (ROOT / "README.md").read_text()
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
PAPERS = (ROOT / "docs" / "papers.md").read_text()
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
PAGES += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


# --- the README -------------------------------------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len(README.split()) <= 900


def test_there_are_two_blocks_to_paste():
    """CI runs them as they are: see .ci/run."""
    first, second = blocks(README, "bash")
    assert "python run.py sde=ve sampler=pc" in first and "pytest" in second


def test_its_python_fits_samples_and_scores():
    """As a notebook runs it: the blocks in turn, in one namespace."""
    fitting, estimating = blocks(README, "python")
    names = {}
    exec(fitting.replace("steps=1000", "steps=300"), names)
    x, samples = names["x"], names["samples"]
    assert samples.shape == (1000, 2) and names["given"].shape == (100, 2)
    assert (abs(samples.mean(0) - x.mean(0)) < 0.25 * x.std(0)).all() and (names["given"][:, 0] == 4.5).all()
    exact = multivariate_normal([3, -40], [[1, 4], [4, 25]]).logpdf(x[:100])
    assert abs(names["log_prob"] - exact).mean() < 0.3, "in data units"
    assert names["filled"][0, 0] == 4.5 and abs(names["filled"][0, 1] + 34) < 20
    names["x"] = x[:300]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(estimating.replace("steps=1000", "steps=30"), names)
    assert re.fullmatch(r"KernelDensity.* -[0-9.]+\nScoreDensity.* -[0-9.]+\n", printed.getvalue())


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_exist(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            path = (ROOT / page).parent / target.split("#")[0]
            assert path.exists(), f"{page} links to {target}"


def test_the_readme_leads_to_every_page():
    missing = [page for page in PAGES if page != "README.md" and f"]({page})" not in README]
    assert not missing


@pytest.mark.parametrize("page", ["docs/design.md", "docs/decisions.md", "docs/commands.md"])
def test_files_that_a_page_names_exist(page):
    text = (ROOT / page).read_text()
    names = set(re.findall(r"(?<![\w.])[\w/]+\.(?:py|yaml)\b", text)) - set(FILES) - {"models.py", "description.yaml"}
    names -= {"conf/mine.yaml", "app.py"}  # a user's own
    files = {f"/{path.relative_to(ROOT)}" for path in ROOT.rglob("*") if path.suffix in (".py", ".yaml")}
    assert not [name for name in sorted(names) if not any(file.endswith(f"/{name}") for file in files)]


# --- commands ---------------------------------------------------------------------------------------------------------

ADDED = {name: group for group, name in re.findall(r"^`conf/([\w/]+)/(\w+)\.yaml`:$", COMMANDS, flags=re.M)}
"""The choices that examples of docs/commands.md add, and their groups."""

LINES = sorted({line for text in (README, COMMANDS) for line in re.findall(
    r"^(?:    )?(?:python run\.py|scoresde) (.*?)(?:  .*|   .*)?$", text, flags=re.M
)} | set(re.findall(r"`(?:python run\.py|scoresde) (.*?)`", README + COMMANDS)))  # fmt: skip


def is_added(word: str) -> bool:
    group, _, name = word.partition("=")
    return ADDED.get(name) == group


def composable(line: str) -> list[str]:
    """The words that choose and set; of a sweep, the first value of each list."""
    words = [word for word in shlex.split(line) if word not in ("-m", "--cfg", "job")]
    return [word.split(",")[0] if word.startswith(("sde=", "sampler=")) else word for word in words]


def test_commands_are_found():
    assert len(LINES) > 60 and len(ADDED) == 5


def uses_examples(line: str) -> bool:
    """Returns whether a command takes a part that an example adds: those run below, with the files that they need."""
    return any(map(is_added, composable(line)))


@pytest.mark.parametrize("line", [line for line in LINES if line not in ("--help", "ls") and not uses_examples(line)])
def test_the_commands_compose(line):
    assert compose(*composable(line))["task"]["_target_"].startswith("tasks.")


def test_the_named_folder_is_that_of_the_first_command():
    cfg = compose()
    data = schema.build({key: value for key, value in cfg["data"].items() if key != "condition"}, "data")
    identity = identity_of(settle(cfg, data, "cpu"), data)
    assert f"task.other={Store('checkpoints').folder(identity, 'digits-ve-unet_small')}" in COMMANDS


def test_the_command_for_a_tighter_bound_warns_of_nothing(tmp_path, caplog):
    """Random probes would raise a mean of exponentials: the command is one with the exact trace."""
    from scoresde.cli import run

    (line,) = (line for line in LINES if "dequantisation.samples" in line)
    counts = np.random.default_rng(0).binomial(9, 0.4, (300, 3))
    np.savetxt(tmp_path / "counts.csv", counts, fmt="%d", delimiter=",", header="a,b,c", comments="")
    words = [word.replace("counts.csv", str(tmp_path / "counts.csv")) for word in composable(line)]
    words += ["training.vectors.steps=20", "count=16", f"store={tmp_path}/store"]
    chosen = {"task": "likelihood", "data": "arrays", "sde": "ve", "sampler": "pc", "model": "auto"}
    run(compose(*words), chosen, tmp_path / "run")
    assert "sampling_gain_nats" in json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "averages its exponential" not in caplog.text


# --- docs/commands.md in Python ---------------------------------------------------------------------------------------


def test_the_python_of_the_commands_runs(tmp_path, monkeypatch):
    fitting, by_hand, calling, exact = blocks(COMMANDS, "python")[:4]
    monkeypatch.chdir(tmp_path)
    names = {}
    short = re.sub("steps=(1000|2000)", "steps=30", fitting).replace('"moons"', '"moons", overrides=["data.count=500"]')
    exec(short, names)
    assert names["x"].shape == (1000, 2) and names["log_prob"].shape == names["stderr"].shape == (1000,)
    exec(by_hand.replace("steps=1000", "steps=30").replace("20_000", "500"), names)
    found, data = names["found"], names["data"]
    assert found.model_log_prob.shape == (100,) and found.z.shape == (100, 2) and found.nfe > 10
    torch.testing.assert_close(names["log_prob"] - found.model_log_prob, torch.full((100,), data.log_det).double())
    assert names["by_hand"].sample(3).shape == (3, 2)
    exec(calling, names)
    assert names["metrics"]["count"] == 1000 and (tmp_path / "outputs" / "mine" / "samples.npz").exists()
    exec(exact, names)
    r = names["data"].test[:5].double().requires_grad_()
    names["data"].true_log_prob(r).sum().backward()  # the gradient in data units; that in model units is scale times it
    score = names["score"](names["data"].encode(r.detach()), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(score, names["data"].scale * r.grad)


# --- docs/commands.md: parts of your own ------------------------------------------------------------------------------

OWN = COMMANDS[COMMANDS.index("## Add your own") :]
FILES = dict(re.findall(r"^`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", OWN, flags=re.M | re.S))

SCRIPT = """
import json, sys
from pathlib import Path
import hydra, torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from scoresde.tasks.parts import likelihood_pictures
from scoresde.cli import run
from scoresde.conf import __file__ as conf
torch.set_num_threads(1)
Figure.savefig = lambda self, path, **keys: Path(path).write_bytes(b"")  # pictures are composed and not painted
likelihood_pictures.CELLS = 4
found = {}
for i, words in enumerate(json.loads(sys.argv[1])):
    with hydra.initialize_config_dir(config_dir=str(Path(conf).parent), version_base="1.3"):
        cfg = OmegaConf.to_container(hydra.compose("config", overrides=words), resolve=True)
    choices = dict.fromkeys(("task", "data", "sde", "sampler", "model"), "x")
    try:
        run(cfg, choices, Path(f"run/{i}"))
        found[i] = json.loads(Path(f"run/{i}/metrics.json").read_text())
    except ValueError as error:
        found[i] = str(error)
print("FOUND", json.dumps(found))
"""

SMALL = {"training.steps": 20, "training.batch": 64, "training.evaluate": 0, "count": 64}
"""Keys that make a run of an example short; they replace those that a command sets itself."""


def small(line: str, words: list[str]) -> list[str]:
    keys = SMALL if "training" in line else {"count": SMALL["count"]}
    return [word for word in words if word.split("=")[0] not in keys] + [f"{k}={v}" for k, v in keys.items()]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Runs each command of the section, in a copy of the checkout that has the section's files."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("scoresde", *schema.PACKAGES, "figures", "conf"):
        for path in (ROOT / name).rglob("*"):
            if path.suffix in (".py", ".yaml"):
                to = copy / path.relative_to(ROOT)
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(path.read_bytes())
    for name, text in FILES.items():
        assert not (copy / name).exists(), f"{name} is a file of the project already"
        (copy / name).write_text(text)
    lines = [line for line in LINES if uses_examples(line)]
    lines.append("sde=ramp sde.k=0")
    overrides = json.dumps([small(line, composable(line)) for line in lines])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, overrides],
        cwd=copy, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0 and "FOUND" in done.stdout, done.stdout + done.stderr
    found = json.loads(done.stdout.rpartition("FOUND")[2])
    return {line: found[str(i)] for i, line in enumerate(lines)}


def test_every_kind_of_part_has_an_example():
    folders = {name.rsplit("/", 1)[0] for name in FILES}
    assert {"sde_lib", "samplers", "models", "data", "tasks"} <= folders
    assert {f"conf/{group}" for group in ("sde", "sampler/predictor", "model", "data", "task")} <= folders


def test_the_examples_run(examples):
    assert len(examples) == 8
    for line, metrics in examples.items():
        if line != "sde=ramp sde.k=0":
            assert isinstance(metrics, dict) and metrics["count"] == 64, f"{line}: {metrics}"


def test_what_they_refuse_reads_as_it_says(examples):
    assert f"`sde=ramp sde.k=0` answers `error: {examples['sde=ramp sde.k=0']}`" in OWN


# --- docs/papers.md ---------------------------------------------------------------------------------------------------

ROWS = re.findall(r"^\| .* \| .* \| `([\w/.]+)` \| (.*) \|$", PAPERS, flags=re.M)


def test_every_row_is_checked():
    written = [line for line in PAPERS.splitlines() if line.startswith("| ") and not line.startswith("| source")]
    assert len(written) == len(ROWS) > 60


@pytest.mark.parametrize("file, names", ROWS)
def test_the_table_of_papers_points_at_code(file, names):
    text = (ROOT / file).read_text()
    for name in re.findall(r"`(\w+)", names.replace("SDE.reverse(score", "`reverse").replace("`sde.sigma_max", "")):
        assert re.search(rf"\b{name}\b", text, flags=re.I), f"{file} has no {name}"
