"""How a run obtains its score: the checkpoint that was asked for; a model without parameters; the store's network,
resumed or trained where it is not finished. Of p(x | y) it is what becomes a score once y is given.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from scoresde.data import Conditional, Data, Turned
from scoresde.data.condition import LABELS
from scoresde.models import Classifier, ConditionalScore, ScoreModel
from scoresde.training import Snapshots, Store, journal, store
from torch import nn

from . import misfits, schema
from .assemble import classes_in
from .drawing import description, home_of, weights_of
from .elsewhere import from_elsewhere, is_elsewhere
from .identity import differences, identity_of, source_of, tree, weighty
from .threads import is_small, one_thread

log = logging.getLogger(__name__)


def obtain_score(cfg: dict, sde: Any, data: Any, record: Any, name: str) -> Any:
    """The score of a run, or what becomes one where data of p(x | y) are given their y: see :func:`given`.

    ``name`` makes the folder of a network that is trained readable.
    """
    misfits.densities(cfg)
    if data.condition is None:
        return plain_score(cfg, sde, data, record, name)
    if getattr(schema.locate(cfg["task"]["_target_"], "task"), "classifies", False):
        return plain_score(classifying(cfg), sde, data, record, f"{name}-classifier")
    if cfg["guidance"] != 1 and not cfg.get("classifier"):  # first, so that a mistake is told before a long training
        misfits.guidance(cfg)
    score, classifier = plain_score(cfg, sde, data, record, name), None
    if isinstance(score, nn.Identity):  # the task's samples are in a file
        return score
    if cfg.get("classifier"):
        if hasattr(score, "classifier"):  # an exact score has an exact one
            classifier = score.classifier()
        else:
            training, home = record.training, record.home
            twin = classifying(cfg) | {"checkpoint": None}
            classifier = plain_score(twin, sde, data, record, f"{name}-classifier")
            record.training, record.home = training, home
    return ConditionalScore(score, cfg["guidance"], classifier)


def given(cfg: dict, data: Any, score: Any) -> Any:
    """The score of the y that is asked for, if the task knows of none; data are those of :func:`ask`."""
    if not isinstance(score, ConditionalScore) or getattr(
        schema.locate(cfg["task"]["_target_"], "task"), "conditions", False
    ):
        return score
    return score.given(data.condition.encode(data.condition.alone).float())


def furnish(cfg: dict, data: Data, asked: Data, score: Any, record: Any, name: str) -> None:
    """What a task that compares samples needs besides its score: where they are kept, and what it compares them in.

    Arguments:
        data, asked: all data, and those with the y that was asked for.
    """
    if "features" not in cfg["task"]:
        return
    if cfg["task"].get("samples") is None:
        record.drawing = home_of(cfg, record, name), description(cfg, asked, score)
    node = cfg["task"]["features"]
    if "training" not in node:
        record.features = schema.build(node, "task.features"), None, node["_target_"].rpartition(".")[2].lower()
        return
    known = getattr(data, "joint", data) if data.train_labels is not None else data
    labelled = classes_in(data) is not None
    if not labelled and len(data.shape) != 3:
        raise ValueError(
            "task/features=mlp learns the labels of the data, and these have none; type task/features=values"
        )
    told = Conditional(known if labelled else Turned(data), LABELS)
    training, title = record.training, schema.locate(node["model"]["_target_"], "task.features.model").title
    net, _ = train_model(cfg, node, f"features-{title}", {}, told, record, name.split("-")[0], "task.features")
    record.training = training
    record.features = net, told.condition if labelled else None, f"{title}@{weights_of(net)}"


def classifying(cfg: dict) -> dict:
    """The configuration that trains the classifier: as long and as fast as the network, with a loss of its own."""
    loss = {"_target_": "training.CrossEntropy", "levels": {"_target_": "training.levels.LogSNR"}, "stratified": True}
    return cfg | {
        "model": cfg["classifier"],
        "training": cfg["training"] | {"loss": loss, "drop": 0.0},
        "parameterisation": {},
    }


def plain_score(cfg: dict, sde: Any, data: Any, record: Any, name: str) -> Any:
    """The score, or what becomes one once y is given."""
    if "trainers" in cfg["task"]:
        train_rivals(cfg, sde, data, record, name)
        return nn.Identity()
    if "models" in cfg["task"]:
        train_models(cfg, sde, data, record, name)
        return nn.Identity()
    if cfg["task"].get("other") is not None:  # first, so that a mistake is told before a long training
        record.other = other_network(cfg, data)
    if cfg["task"].get("samples") is not None:  # they are in a file: nothing is to be trained
        return nn.Identity()
    if cfg["checkpoint"] and is_elsewhere(cfg["checkpoint"]):
        if {"shares", "snapshots"} & set(cfg["task"]):
            raise ValueError(
                f"checkpoint={cfg['checkpoint']} is another code's and keeps nothing of its training, which this task "
                f"asks for; leave checkpoint out to train a network"
            )
        refuse_other_shapes(cfg["model"], data.shape, "model")
        return from_elsewhere(cfg["checkpoint"], build_model(cfg, sde), sde)
    if cfg["checkpoint"]:
        if "shares" in cfg["task"]:
            look_back(cfg, sde, record, sorted(folder_of(cfg["checkpoint"]).glob("kept-*")))
        if "snapshots" in cfg["task"]:
            found = {int(path.name[6:]): path for path in folder_of(cfg["checkpoint"]).glob("power-*")}
            collect(cfg, sde, record, found, store.read(cfg["checkpoint"])[0])
        record.home = folder_of(cfg["checkpoint"])
        return from_checkpoint(cfg, sde, data)
    if "sde" in cfg["model"]:  # a model that names an SDE is a score by itself
        return schema.build(cfg["model"], "model")

    refuse_other_shapes(cfg["model"], data.shape, "model")
    if not len(data.train):
        raise ValueError(
            "these data have no examples to train on: type checkpoint=PATH for a trained network, or data=NAME for "
            "data with examples"
        )
    trainer = schema.build(cfg["training"], "training")
    with trainer.seeded():
        model = build_model(cfg, sde).to(cfg["device"])
    if hasattr(schema.locate(cfg["task"]["_target_"], "task"), "check_network"):  # before it is trained for nothing
        schema.build(cfg["task"], "task").check_network(sde, model)
    home, identity = Store(cfg["store"]), identity_of(cfg, data)
    keep = {max(1, round(share * trainer.steps)) for share in cfg["task"].get("shares", ())}
    count = cfg["task"].get("snapshots", 0)
    snapshots = {max(1, round((i + 1) * trainer.steps / count)) for i in range(count)}

    def train(folder: Path) -> Any:
        def note(event: dict) -> None:
            journal.append(folder, event)
            record.event(event)

        with one_thread(cfg["threads"] is None and is_small(model, data, trainer.batch)):
            return trainer.fit(sde, model, data, folder, note, keep, snapshots)

    def train_again(folder: Path) -> Any:
        with trainer.seeded():
            twin = build_model(cfg, sde).to(cfg["device"])
        with one_thread(cfg["threads"] is None and is_small(twin, data, trainer.batch)):
            return trainer.fit(sde, twin, data, folder, keep=keep, snapshots=snapshots)

    folder = record.home = home.folder(identity, name)
    source = source_of(cfg, data)
    misfits.bins(cfg, sde, data, identity)
    misfits.levels(cfg, trainer, sde, data)
    score = home.obtain(
        identity, name, trainer.steps, train, lambda found: store.put_weights(model, found, folder), source
    )
    record.training = journal.read(folder)
    if keep:
        look_back(cfg, sde, record, home.kept(folder, keep, train_again).values())
    if snapshots:
        described = {**identity, "source": source} if source else identity
        collect(cfg, sde, record, home.kept(folder, snapshots, train_again, "power"), described)
    return score


def folder_of(path: str) -> Path:
    """The network's folder of checkpoint=PATH, which may name one checkpoint in it."""
    return Path(path).parent if Path(path).name.startswith(("step-", "kept-")) else Path(path)


def look_back(cfg: dict, sde: Any, record: Any, kept: Iterable[Path]) -> None:
    """Notes what was kept along a network's training, each to be loaded when it is wanted, and its losses."""

    def loader(path: Path) -> Callable[[], Any]:
        def load() -> Any:
            described = store.read(path)[0] if cfg["checkpoint"] else cfg
            score = store.put_weights(build_model(described, sde), store.load_kept(path), path)
            return score.to(device=cfg["device"], dtype=getattr(torch, cfg["dtype"]))

        return load

    for path in kept:
        record.training = record.training or journal.read(path.parent)
        record.kept[int(path.name.removeprefix("kept-"))] = loader(path)


def collect(cfg: dict, sde: Any, record: Any, paths: dict[int, Path], described: dict) -> None:
    """Notes the averages of two lengths that were kept along a network's training, of which others are made."""

    def network(state: dict) -> Any:
        model = build_model(described, sde)
        model.load_state_dict(state)
        return model.eval().requires_grad_(False).to(device=cfg["device"], dtype=getattr(torch, cfg["dtype"]))

    if paths:
        record.snapshots = Snapshots(paths, network, described)


def train_rivals(cfg: dict, sde: Any, data: Any, record: Any, name: str) -> None:
    """The networks of task.trainers, each by a trainer of its own and found in the store like any other."""
    if cfg["checkpoint"] or "sde" in cfg["model"]:
        raise ValueError(
            "this task trains several networks and compares them: leave checkpoint= out, and choose a network with "
            "model=mlp or model=unet"
        )
    for key, node in cfg["task"]["trainers"].items():  # first, so that a mistake is told before a long training
        with schema.own_key(node, f"task.trainers.{key}"):
            levels = getattr(schema.build(node, "training").loss, "levels", None)
            if levels is not None:
                levels.times(sde, torch.zeros(1))
    for key, node in cfg["task"]["trainers"].items():
        twin = cfg | {"training": node, "task": {"_target_": "tasks.Train"}}
        score = obtain_score(twin, sde, data, record, f"{name}-{key}")
        record.rivals[key] = score.to(device=cfg["device"], dtype=getattr(torch, cfg["dtype"])), list(record.training)


def train_models(cfg: dict, sde: Any, data: Any, record: Any, name: str) -> None:
    """The models of task.models by their recipes, each found in the store like a score's network; for a task with
    ``seeds`` so many of each, as NAME/0, NAME/1, ..., and of the run's own score where the task has ``score``.
    """
    if cfg["checkpoint"]:
        raise ValueError("this task trains several models and compares them: leave checkpoint= out")
    task, seeds = cfg["task"], cfg["task"].get("seeds")
    for i in range(seeds or 1):
        found: dict[str, tuple[Any, dict]] = {}
        label = "" if seeds is None else f"/{i}"
        for key, node in task["models"].items():
            training = node["training"] | {"seed": node["training"]["seed"] + i}
            found[key] = train_model(cfg, node | {"training": training}, key, found, data, record, name.split("-")[0])
            model = found[key][0].to(device=cfg["device"], dtype=getattr(torch, cfg["dtype"]))
            record.rivals[key + label] = model, list(record.training)
        if task.get("score"):
            training = cfg["training"] | {"seed": cfg["training"]["seed"] + i}
            twin = cfg | {"training": training, "task": {"_target_": "tasks.Train"}}
            score = obtain_score(twin, sde, data, record, name)
            score = score.to(device=cfg["device"], dtype=getattr(torch, cfg["dtype"]))
            record.rivals["score" + label] = score, list(record.training)


def train_model(
    cfg: dict, node: dict, key: str, found: dict, data: Any, record: Any, name: str, place: str = ""
) -> tuple[Any, dict]:
    """One model and its identity, from the node of its recipe, at ``place``, and those that were found before it."""
    place = place or f"task.models.{key}"
    parts = cfg | {"sde": None, "parameterisation": None, "model": node["model"], "training": node["training"]}
    identity, start = identity_of(parts, data), node.get("start")
    if start is not None:
        if start not in found:
            raise ValueError(
                f"{place}.start={start} is none of the models before it ({', '.join(found) or 'there are none'})"
            )
        identity["start"] = found[start][1]
    trainer = schema.build(node["training"], f"{place}.training")
    with trainer.seeded():
        model = schema.build(node["model"], f"{place}.model").to(cfg["device"])
    if start is not None:
        try:
            model.begin(found[start][0])
        except ValueError as error:
            raise ValueError(f"{place}.start={start}: {error}") from None
    home, name = Store(cfg["store"]), f"{name}-{key}"
    folder = home.folder(identity, name)

    def train(folder: Path) -> Any:
        def note(event: dict) -> None:
            journal.append(folder, event)
            record.event({"model": key, **event})

        with one_thread(cfg["threads"] is None):  # small networks, and equal weights on every machine
            return trainer.fit(None, model, data, folder, note)

    def load(kept: Any) -> Any:
        return store.put_weights(model, kept, folder)

    trained = home.obtain(identity, name, trainer.steps, train, load, source_of(cfg, data))
    record.training = journal.read(folder)
    return trained, identity


def refuse_other_shapes(node: dict, shape: tuple[int, ...], key: str) -> None:
    """A network's shape that is not the data's would end in a message about matrices."""
    for name, value in node.items():
        if isinstance(value, dict):
            refuse_other_shapes(value, shape, f"{key}.{name}")
        elif name == "shape" and tuple(value) != tuple(shape):
            raise ValueError(f"{key}.shape={list(value)} is not the data's, {list(shape)}; type {key}.shape=auto")


def build_model(cfg: dict, sde: Any) -> Any:
    """A network read as the score of an SDE, or as the classifier of its noisy data; a latent-variable model, which has
    no SDE of its own, as it is.
    """
    if "classes" in cfg["model"] and sde is not None:
        return Classifier(sde, schema.build(cfg["model"], "classifier"))
    if sde is None:
        return schema.build(cfg["model"], "model")
    return ScoreModel(
        sde, schema.build(cfg["model"], "model"), schema.build(cfg["parameterisation"], "parameterisation")
    )


def from_checkpoint(cfg: dict, sde: Any, data: Any) -> Any:
    """The network of checkpoint=PATH as the score of the run's SDE, which may be another than it was trained under."""
    identity, found = store.read(cfg["checkpoint"])
    if cfg.get("classifier") and any(node.get("condition") for node in tree(identity["model"])):
        raise ValueError(
            f"checkpoint={cfg['checkpoint']} is a network that is told its y, which a classifier need not guide: leave "
            f"classifier out and type data.condition=labels, with guidance=3 to exaggerate"
        )
    now = identity_of(cfg, data)
    parts = ("data", "model", "parameterisation")
    saved = {key: identity[key] for key in parts} | {"model": weighty(identity["model"])}
    if lines := differences(saved, {key: now[key] for key in parts}):
        raise ValueError(
            f"checkpoint={cfg['checkpoint']} does not fit this run; choose the values it was trained with:\n  "
            + "\n  ".join(lines)
        )
    misfits.bins(cfg, sde, data, identity)
    log.info("loaded %s, %s of %s updates", cfg["checkpoint"], f"{found.step:,}", f"{identity['training']['steps']:,}")
    return store.put_weights(build_model(identity, sde), found, cfg["checkpoint"])


def other_network(cfg: dict, data: Data) -> tuple[Any, Any]:
    """The network of task.other=PATH, with the SDE that it was trained under; it must be one of the same data."""
    path = cfg["task"]["other"]
    if not path:
        raise ValueError("task.other= is empty; type task.other=PATH, or leave it out")
    identity, found = store.read(path, "task.other")
    if lines := differences({"data": identity["data"]}, {"data": identity_of(cfg, data)["data"]}):
        raise ValueError(
            f"task.other={path} is a network of other data, whose codes cannot be compared; choose one of these data, "
            f"or the data that it was trained on:\n  "
            + "\n  ".join(lines).replace("in the checkpoint", "in the other network")
        )
    sde = schema.build(identity["sde"], "sde")
    score = store.put_weights(build_model(identity, sde), found, path)
    log.info("the other network: %s, %s updates", path, f"{found.step:,}")
    return sde, score.to(device=cfg["device"], dtype=getattr(torch, cfg["dtype"]))
