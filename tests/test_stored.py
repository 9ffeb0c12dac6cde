"""Folders of networks that are damaged, swapped, renamed or a stranger's: the store recovers to the same weights or
says what is wrong, and a path gives what was saved there or is refused. Nothing that a folder names is run.
"""

import copy
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import yaml

from scoresde import load
from scoresde.conf import assemble, schema, stored
from scoresde.conf.identity import identity_of, source_of
from scoresde.conf.networks import Networks, classifying
from scoresde.conf.sample_cache import weights_of
from scoresde.conf.trained import build_model
from scoresde.tasks import Elbo, Generators, Record
from scoresde.training import checkpoint, journal, store

from .conftest import PARAMETERISATIONS, SDES, choices, compose
from .test_cli import CHOICES

WORDS = ("data=moons", "data.count=64", "sde=vp", "model=mlp", "model.width=8", "model.depth=1", "model.fourier=2")
WORDS += ("parameterisation=noise", "training.steps=4", "training.batch=8")
WORDS += ("training.save_seconds=1e-9", "training.evaluate=0")  # a checkpoint after every update
STEPS = {"kept": (2, 4), "power": (2, 4)}


@pytest.fixture(scope="module")
def networks_of(tmp_path_factory) -> Iterator[Callable[..., Networks]]:
    """Returns the networks of a run with a seed of training, in the store below a folder."""
    logging.disable(logging.WARNING)
    with Record(tmp_path_factory.mktemp("run")) as record:
        networks = assemble.prepare(compose(*WORDS), CHOICES, record)[1].networks

        def of(root: Path, seed: int = 0) -> Networks:
            twin = copy.copy(networks)
            twin.cfg = twin.cfg | {"store": str(root / "store"), "training": twin.cfg["training"] | {"seed": seed}}
            return twin

        yield of


@pytest.fixture(scope="module")
def pair(tmp_path_factory, networks_of) -> tuple[Path, Path]:
    """The folders of two networks that differ in their seed, each with two ``step-*``, ``kept-*`` and ``power-*``."""
    folders = []
    for seed in (0, 1):
        root = tmp_path_factory.mktemp("stored")
        networks_of(root, seed).averages(2)
        networks_of(root, seed).along((0.5, 1.0))
        folders += (root / "store").iterdir()
    return folders[0], folders[1]


def found(kind: str, networks: Networks) -> list[str]:
    """The hashes of the weights that the store gives: the network's own, or the averages along its training."""
    if kind == "kept":
        along = networks.along((0.5, 1.0))
        return [weights_of(along.kept[step]()) for step in STEPS[kind]]
    if kind == "power":
        kept = networks.averages(2).snapshots
        return [weights_of(kept.network(kept.state(width))) for width in (0.05, 0.1)]
    return [weights_of(networks.score().model)]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


# --- damage -----------------------------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def swap(path: Path, other: Path) -> None:
    aside = path.with_name("aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)


def truncated(path: Path, other: Path) -> bool:
    if path.is_dir():
        return False
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return True


def emptied(path: Path, other: Path) -> bool:
    remove(path) if path.is_dir() else path.write_bytes(b"")
    path.mkdir() if not path.exists() else None
    return True


def deleted(path: Path, other: Path) -> bool:
    remove(path)
    return True


def linked(path: Path, other: Path) -> bool:
    aside = path.parent.parent / f"aside-{path.name}"
    path.rename(aside)
    path.symlink_to(aside)
    return True


def dangling(path: Path, other: Path) -> bool:
    remove(path)
    path.symlink_to("nowhere")
    return True


def of_the_other_kind(path: Path, other: Path) -> bool:
    """A folder for a file, or a file for a folder."""
    folder = path.is_dir()
    remove(path)
    path.write_text("x") if folder else path.mkdir()
    return True


def swapped_beside(path: Path, other: Path) -> bool:
    """With the next of its siblings: another file of the checkpoint, or another checkpoint of the training."""
    siblings = sorted(p for p in path.parent.iterdir() if p.is_dir() == path.is_dir() and p.suffix == path.suffix)
    if len(siblings) < 2:
        return False
    swap(path, siblings[(siblings.index(path) + 1) % len(siblings)])
    return True


def swapped_along(path: Path, other: Path) -> bool:
    """With the same file of another checkpoint of the training."""
    if path.is_dir() or not (others := [p for p in path.parent.parent.glob(f"*/{path.name}") if p != path]):
        return False
    swap(path, others[0])
    return True


def swapped_with_another_network(path: Path, other: Path) -> bool:
    swap(path, other)
    return True


DAMAGES = (truncated, emptied, deleted, linked, dangling, of_the_other_kind)
DAMAGES += (swapped_beside, swapped_along, swapped_with_another_network)


def cases(pair: tuple[Path, Path], root: Path, damage: Callable[[Path, Path], bool]) -> Iterator[tuple[Path, Path]]:
    """Yields, for every file and folder in a network's folder, a copy of its store with that one damaged, and the path
    of the damaged one in the network's folder.
    """
    one, two = pair
    for path in sorted(one.rglob("*")):
        inner = path.relative_to(one)
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(one, root / "store" / one.name)
        shutil.copytree(two, root / "two")
        if damage(root / "store" / one.name / inner, root / "two" / inner):
            yield root / "store" / one.name, inner


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_store_recovers_to_the_same_weights_or_says_what_is_wrong(pair, networks_of, tmp_path, damage):
    truth = {kind: found(kind, networks_of(pair[0].parent.parent)) for kind in ("step", "kept", "power")}
    outcomes = {"the same": 0, "loud": 0}
    for folder, inner in cases(pair, tmp_path / "case", damage):
        kind = inner.parts[0].partition("-")[0]
        try:
            weights = found(kind if kind in truth else "step", networks_of(folder.parent.parent))
        except (ValueError, OSError) as error:
            assert str(folder.parent) in str(error), error
            outcomes["loud"] += 1
        else:
            assert weights == truth[kind if kind in truth else "step"], f"{damage.__name__} {inner}"
            outcomes["the same"] += 1
    assert outcomes["the same"], outcomes


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("renamed", [False, True], ids=["as it was named", "renamed"])
def test_a_path_gives_what_was_saved_there_or_is_refused(pair, tmp_path, damage, renamed):
    checkpoints = ("", "step-00000003", "step-00000004", "kept-00000002", "kept-00000004")
    truth = {name: told(pair[0] / name) for name in checkpoints}
    outcomes = {"the same": 0, "loud": 0}
    for folder, inner in cases(pair, tmp_path / "case", damage):
        if renamed:
            folder = folder.rename(tmp_path / "case" / "mine")
        for name in checkpoints:
            if inner.parts[0] != name and name and "-" in inner.parts[0]:
                continue  # not read
            wanted = truth[name]
            if damage is deleted and not name and str(inner) == "step-00000004":  # an interrupted training
                wanted = truth["step-00000003"]
            try:
                assert told(folder / name) == wanted, f"{damage.__name__} {inner}: {name}"
                outcomes["the same"] += 1
            except (ValueError, OSError) as error:
                assert str(folder) in str(error) and "\n" not in str(error), error
                outcomes["loud"] += 1
    assert outcomes["loud"] or damage is linked, outcomes


def told(path: Path) -> tuple:
    """All that ``scoresde.load`` gives of a path."""
    sde, score, data = load(path)
    return repr(sde), weights_of(score), repr(score.parameterisation), data.train.tolist(), data.shift.tolist()


def test_a_whole_folder_under_another_networks_name_is_refused(pair, tmp_path):
    folder = tmp_path / pair[1].name
    shutil.copytree(pair[0], folder)
    with pytest.raises(ValueError, match="not what was written, or the folder was renamed: its name ends in the hash"):
        load(folder)


def flips(content: bytes, count: int) -> Iterator[bytes]:
    """Yields the content with one bit flipped, at places spread over it."""
    rng = np.random.default_rng(0)
    for place in rng.choice(len(content), min(count, len(content)), replace=False):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        yield bytes(changed)


def test_no_flipped_bit_in_a_renamed_folder_is_silent(pair, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(pair[0], folder)
    truth, loud = told(folder), 0
    for path in [folder / "config.yaml", *sorted((folder / "step-00000004").iterdir())]:
        content = path.read_bytes()
        for changed in flips(content, 12):
            path.write_bytes(changed)
            try:
                assert told(folder) == truth, path
            except ValueError as error:
                assert "\n" not in str(error)
                loud += 1
        path.write_bytes(content)
    assert loud >= 70


def test_no_flipped_bit_in_a_config_is_silent(pair, tmp_path):
    """Also in ``source``, which is no part of the identity: the units of data whose file is gone."""
    described = store.read_config(pair[0]) | {"source": {"path": "x.npy", "shape": [2], "shift": [1.5, 2.0]}}
    store.write_config(tmp_path, described)
    assert store.read_config(tmp_path) == described
    content = (tmp_path / "config.yaml").read_bytes()
    for changed in flips(content, 250):
        (tmp_path / "config.yaml").write_bytes(changed)
        assert store.read_config(tmp_path) in (None, described), changed


def test_the_record_finds_a_changed_config_of_a_renamed_folder(pair, tmp_path):
    """Also where the text has no checksum, as that of an earlier version or of an editor that lost the last line."""
    folder = tmp_path / "mine"
    shutil.copytree(pair[0], folder)
    text = (folder / "config.yaml").read_text().partition(store.CHECKSUM)[0]
    (folder / "config.yaml").write_text(text)
    assert told(folder) == told(pair[0])
    (folder / "config.yaml").write_text(text.replace("beta_max: 20.0", "beta_max: 21.0"))
    with pytest.raises(ValueError, match="mine: its config.yaml is not what was written"):
        load(folder)


def test_checkpoints_without_the_record_are_compared_with_the_folders_name(pair, tmp_path, caplog):
    logging.disable(logging.NOTSET)
    folder = tmp_path / pair[0].name
    shutil.copytree(pair[0], folder)
    truth = told(folder)
    for path in folder.glob("*-*"):
        assert record_of(path) == folder.name[-10:]
        rewrite_state(path, lambda state: state.pop("identity"))
    text = (folder / "config.yaml").read_text().partition(store.CHECKSUM)[0]
    (folder / "config.yaml").write_text(text)
    with caplog.at_level("WARNING"):
        assert told(folder) == truth and not caplog.text
        (folder / "config.yaml").write_text(text.replace("width: 8", "width: 9"))
        with pytest.raises(ValueError, match="its config.yaml is not what was written"):
            load(folder)
        (folder / "config.yaml").write_text(text)
        assert told(folder.rename(tmp_path / "mine")) == truth
    assert "mine: its config.yaml cannot be checked: the checkpoint is older than its record" in caplog.text


def record_of(path: Path) -> str:
    return json.loads((path / "state.json").read_text())["identity"]


def rewrite_state(path: Path, change: Callable[[dict], object]) -> None:
    """Changes a checkpoint's state.json and its checksum, as a stranger can."""
    state = json.loads((path / "state.json").read_text())
    change(state)
    (path / "state.json").write_text(json.dumps(state))
    sums = json.loads((path / "manifest.json").read_text())
    sums["state.json"] = checkpoint.sha256(path / "state.json")
    (path / "manifest.json").write_text(json.dumps(sums))


@pytest.mark.parametrize("text", ["[" * 10**5, "9" * 10**4, '{"step": ' + "9" * 10**4 + "}"])
@pytest.mark.parametrize("file", ["manifest.json", "state.json"])
def test_a_checkpoint_of_hostile_json_is_damaged(pair, tmp_path, file, text):
    path = tmp_path / "step-00000004"
    shutil.copytree(pair[0] / path.name, path)
    if file == "state.json":
        rewrite_state(path, lambda state: None)
        sums = json.loads((path / "manifest.json").read_text())
        (path / file).write_text(text)
        (path / "manifest.json").write_text(json.dumps(sums | {file: checkpoint.sha256(path / file)}))
    else:
        (path / file).write_text(text)
    with pytest.raises(checkpoint.Damaged, match="cannot be read"):
        checkpoint.load(path)


def test_a_journal_with_other_lines_is_read(tmp_path):
    lines = [b'{"step": 1, "loss": 2.0}', b"[1]", b'{"stdp": 2}', b'{"step": "3"}', b"\xff\xfe", b"[" * 10**5, b"5"]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines))
    assert [event["loss"] for event in journal.read(tmp_path)] == [2.0]


# --- a stranger's -----------------------------------------------------------------------------------------------------


def written_by_a_stranger(folder: Path, change: Callable[[dict], object]) -> None:
    """Changes what a folder describes, and all its checksums and records with it."""
    described = yaml.safe_load((folder / "config.yaml").read_text())
    change(described)
    store.write_config(folder, described)
    for path in [*folder.glob("step-*"), *folder.glob("kept-*")]:
        rewrite_state(path, lambda state: state.update(identity=store.digest(store.without_source(described))))


def put(place: str, value: object) -> Callable[[dict], None]:
    """Returns a function that puts a value at a place; it makes the nodes above."""

    def change(described: dict) -> None:
        *nodes, last = place.split(".")
        node = described
        for name in nodes:
            node = node.setdefault(name, {})
        node[last] = value

    return change


RECORD = {"_target_": "tasks.Record", "folder": "victim"}
VAE = {"_target_": "latent.VAE", "shape": [2], "latent": 1, "networks": {"_target_": "latent.Dense"}}
BINS = {"_target_": "latent.DiscretisedLogistic", "bins": [RECORD, 1.0, 2]}
SOURCE = {"path": "x.npy", "shape": [2], "shift": [0.0, 0.0], "scale": [1.0, 1.0], "levels": None}


@pytest.mark.parametrize(
    "place, value, says",
    [
        *((group, RECORD, f"{group}=.*tasks.Record.* must be a") for group in ("sde", "data", "model", "training")),
        ("parameterisation", RECORD, "parameterisation=.*tasks.Record.* must be a Parameterisation"),
        ("sde", {"_target_": "sde_lib.Chain", "schedule": RECORD}, "sde.schedule=.*tasks.Record.* must be a Betas"),
        ("parameterisation.input", RECORD, "parameterisation.input=.* must be an SDE or null"),
        ("training.loss", RECORD, "training.loss=.* must be a Loss"),
        ("model", {"_target_": "models.EnergyGradient", "net": RECORD}, "model.net=.* must be a network"),
        ("model", {"_target_": "models.ScoreModel", "net": RECORD}, "model.net=.* must be a network"),
        ("model.shape", [RECORD], r"model.shape=\[.* must be a list"),
        ("model.width", {"x": RECORD}, "model.width.x: there is no model/width"),
        ("model", VAE | {"observation": BINS}, "model.observation.bins.0=.*: no class can stand here"),
        ("data.condition", [RECORD], "data.condition=.* must be"),
        ("sde._target_", "data.files.Path", "sde._target_=data.files.Path is not a class of this project"),
        ("sde._target_", "training.store.FileLock", "is not a class of this project"),
        ("sde._target_", "os.system", "is not a class of this project"),
        ("sde._target_", "conf.sweep.SweepSummary", "is not a class of this project"),
        ("sde._target_", "sde_lib.SDE", "sde._target_=sde_lib.SDE is what its kinds have in common"),
        ("sde._target_", ["sde_lib.VP"], "is not a class of this project"),
        ("sde._target_", "sde_lib.Nothing", "sde._target_=sde_lib.Nothing does not exist"),
        ("sde", [1], r"sde=\[1\] must be a group of keys"),
        ("sde", {}, "is not a class of this project"),
        ("sde.nothing", 1, "sde.nothing is not a key of VP"),
        ("parameterisation", {}, "is not a class of this project"),
        ("model", "models.MLP", "model=models.MLP must be a group of keys"),
        ("model.width", "8", "model.width=8 must be a whole number"),
        ("model.width", True, "model.width=True must be a whole number"),
        ("model.dropout", float("nan"), "model.dropout=nan must be a finite number"),
        ("model.shape", 2, "model.shape=2 must be a list"),
        ("training.steps", "many", "training.steps=many must be a whole number"),
        ("data.count", [1], "data.count="),
        ("source", [1], r"source=\[1\] must have the keys path, shape"),
        ("source", SOURCE | {"path": ["x"]}, r"source.path=\['x'\] must be a word or null"),
        ("source", SOURCE | {"condition": 3}, "source.condition=3 must have the keys names, classes"),
        ("source", SOURCE | {"shift": [RECORD]}, "no class can stand here"),
    ],
)
def test_a_strangers_folder_builds_nothing_that_does_not_belong_there(
    pair, networks_of, tmp_path, monkeypatch, place, value, says
):
    folder = tmp_path / "mine"
    shutil.copytree(pair[0], folder)
    written_by_a_stranger(folder, put(place, value))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "metrics.json").touch()
    networks = networks_of(tmp_path / "own")
    networks.cfg |= {"checkpoint": str(folder)}
    doors = {
        "scoresde.load": lambda: load(folder),
        "checkpoint=": networks.score,
        "task=overfitting": lambda: networks.along((0.5, 1.0)),
        "task=ema": lambda: networks.averages(2),
        "task.other=": lambda: networks.other(str(folder)),
        "guidance=": lambda: assemble.compatibility.guidance(networks.cfg),
    }
    built: list[str] = []
    monkeypatch.setattr(schema, "build", lambda *arguments: built.append(arguments[1]))
    for door, opened in doors.items():
        with pytest.raises(ValueError, match=f"{folder}: its config.yaml describes no network of this code.*{says}"):
            opened()
        assert not built, door
    assert [path.name for path in (tmp_path / "victim").iterdir()] == ["metrics.json"]


BOMB = "\n".join(f"a{i}: &a{i} [{', '.join(10 * [f'*a{i - 1}'] if i else 10 * ['x'])}]" for i in range(12))
MERGES = "a0: &a0 {x: 1}\n" + "\n".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 60))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BOMB, id="aliases"),
        pytest.param(MERGES, id="merges"),
        pytest.param("sde: &a [*a]", id="a list in itself"),
        pytest.param("sde: " + "[" * 5000 + "]" * 5000, id="nesting"),
        pytest.param("sde: " + "{a: " * 200 + "1" + "}" * 200, id="groups in groups"),
        pytest.param("sde: " + "9" * 10**4, id="a long number"),
        pytest.param("sde: 0x" + "9" * 10**4, id="a long number that Python reads"),
        pytest.param("sde: 2001-99-99", id="no date"),
        pytest.param("sde: 2001-01-01", id="a date"),
        pytest.param("sde: !!python/object/apply:os.system [x]", id="code"),
        pytest.param("sde: !!binary aaaa", id="bytes"),
        pytest.param("1: 2", id="a number for a key"),
        pytest.param("? [a]\n: 1", id="a list for a key"),
    ],
)
def test_hostile_text_is_no_config(pair, tmp_path, text):
    folder = tmp_path / "mine"
    shutil.copytree(pair[0], folder)
    described = (folder / "config.yaml").read_text().partition(store.CHECKSUM)[0]
    (folder / "config.yaml").write_text(f"{described}{text}\n")
    with pytest.raises(ValueError, match="its config.yaml is not what was written"):
        load(folder)


def test_a_stored_configuration_writes_nowhere():
    node = stored.data_node({"data": {"_target_": "data.Images", "cache": "victim", "fingerprint": "0", "size": 8}})
    assert node == {"_target_": "data.Images", "size": 8}


def test_units_that_are_none_are_refused(pair, tmp_path):
    for change in ({"shape": [-1]}, {"shift": [[1.0], 2.0]}, {"scale": ["x"]}):
        folder = tmp_path / f"mine{len(change)}{list(change)[0]}"
        shutil.copytree(pair[0], folder)
        written_by_a_stranger(folder, put("source", SOURCE | change))
        with pytest.raises(ValueError, match="its source does not describe data"):
            load(folder)


MOONS, DIGITS = ("data=moons", "data.count=64"), ("data=digits",)


@pytest.mark.parametrize(
    "words",
    [
        *((*MOONS, f"sde={name}") for name in SDES),
        *((*MOONS, f"parameterisation={name}") for name in PARAMETERISATIONS),
        *((*MOONS, f"training/loss={name}") for name in choices("training/loss") if name not in ("explicit", "binary")),
        *((*DIGITS, f"model={name}") for name in choices("model") if not name.endswith(("oracle", "mlp"))),
        ("data=mixture", "training/loss=explicit"),
        ("data=moons", "model=energy_mlp", "data.condition=labels"),
        (*DIGITS, "classifier=unet"),
        (*DIGITS, "parameterisation=noise", "parameterisation.input=${sde}"),
        (*DIGITS, "task=evaluate", "task/features=cnn"),
        (*MOONS, "task=elbo"),
        ("data=8gaussians", "task=generators"),
        ("experiment=heartbeat",),
        ("experiment=ddpm", *DIGITS),
        ("experiment=manifold",),
    ],
    ids=" ".join,
)
def test_what_this_code_writes_passes_the_check(tmp_path, words):
    """The identity of every network of a run: its score, its classifier, its features and its task's models."""
    with Record(tmp_path / "run") as record:
        networks = assemble.prepare(compose(*words, f"store={tmp_path}"), CHOICES, record)[1].networks
    cfg, task = networks.cfg, networks.cfg["task"]
    parts = [] if networks.exact else [cfg]
    parts += [classifying(cfg)] if cfg.get("classifier") else []
    parts += [cfg | {"training": node} for node in task.get("trainers", {}).values()]
    recipes = [*task.get("models", {}).values(), *([node] if "training" in (node := task.get("features", {})) else [])]
    none = {"sde": None, "parameterisation": None}
    parts += [cfg | none | {"model": recipe["model"], "training": recipe["training"]} for recipe in recipes]
    assert parts
    for part in parts:
        identity = identity_of(part, networks.data)
        store.write_config(
            tmp_path, identity | ({"source": source} if (source := source_of(part, networks.data)) else {})
        )
        stored.check(store.read_config(tmp_path))
        sde = schema.build(identity["sde"], "sde")
        build_model(identity, sde)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [group for group, kinds in schema.GROUPS.items() if kinds])
def test_a_group_takes_its_own_kind_only(group):
    """The same check for a configuration that is typed."""
    cfg = compose("data=moons", "classifier=mlp")
    for target in ("tasks.Record", "sde_lib.LinearBetas", "data.Moons", "sde_lib.VP", "models.MLP"):
        node = cfg[group] | {"_target_": target}
        if issubclass(schema.locate(target, group), schema.kind_of(group)):
            continue
        with pytest.raises(ValueError, match=f"^{group}={{_target_: {target}}} must be an? "):
            schema.check({"_target_": target} if set(node) >= schema.KINDS else node, group, unsettled=True)


def test_all_that_a_group_builds_is_checked():
    """Every place of a constructor below which a node could stand has an annotation that says what class it is."""
    node = {"_target_": "models.Oracle", "sde": {"_target_": "sde_lib.VP"}, "components": "auto", "evidence": RECORD}
    with pytest.raises(ValueError, match="model.evidence=.*: no class can stand here"):
        schema.check(node, "model", unsettled=True)
    with pytest.raises(ValueError, match="model.evidence.a.0=.*: no class can stand here"):
        schema.check(node | {"evidence": {"a": [RECORD]}}, "model", unsettled=True)
    for task in (Elbo, Generators):
        with pytest.raises(ValueError, match="task.models.vae=.* must be a recipe"):
            schema.check_value({"vae": RECORD}, get_type_hints(task.__init__)["models"], "task.models")


def test_an_average_of_task_ema_records_its_network(pair, networks_of, tmp_path):
    kept = networks_of(pair[0].parent.parent).averages(2).snapshots
    folder = kept.write(tmp_path / "network", kept.state(0.05), {})
    assert record_of(folder / "step-00000004") == pair[0].name[-10:]
    assert told(folder)[1] == weights_of(kept.network(kept.state(0.05)))
    (folder / "config.yaml").write_text((pair[1] / "config.yaml").read_text())
    with pytest.raises(ValueError, match="its config.yaml is not what was written"):
        load(folder)


def test_a_training_resumes_no_checkpoint_of_another_network(pair, networks_of, tmp_path):
    one = tmp_path / "store" / pair[0].name
    shutil.copytree(pair[0], one)
    for path in one.glob("step-*"):
        shutil.rmtree(path)
        shutil.copytree(pair[1] / path.name, path)
    assert weights_of(networks_of(tmp_path).score().model) == told(pair[0])[1]
    assert len(list(one.glob("damaged-step-*"))) == 2
