"""From the configuration to the nouns of a run: what waits for the data is filled in, and a score is obtained.

A score is obtained in this order: the checkpoint that was asked for; a model without parameters; the store's network,
resumed or trained where it is not finished.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data import Conditional, Data
from likelihood import UniformDequantisation
from models import Classifier, ConditionalScore, ScoreModel
from training import Store, journal, store

from . import schema

log = logging.getLogger(__name__)

NODES = tuple(key for key in schema.GROUPS if key != "logger")


def build_data(cfg: dict) -> Data:
    """The data set, of p(x | y) where ``data.condition`` names a y; a classifier wants labels without being told so."""
    key = cfg["data"].get("condition")
    if key is None and cfg.get("classifier"):
        key = "labels"
    data = schema.build(cfg["data"], "data")
    if key is None:
        return data
    data = Conditional(data, key)
    if cfg.get("classifier") and not data.condition.classes:
        raise ValueError(
            f"classifier: a classifier tells classes apart, and data.condition={key} are numbers; type "
            f"data.condition=labels, or leave the classifier out"
        )
    return data


def blind(cfg: dict, data: Data) -> bool:
    """Whether the network takes no y: there is none, or a classifier knows it."""
    return data.condition is None or bool(cfg.get("classifier"))


def ask(cfg: dict, data: Data) -> Data:
    """The data with ``condition=``, and whether the task can go on with it."""
    value, guidance = cfg["condition"], cfg["guidance"]
    if data.condition is None:
        for key, given, none in (("condition", value, None), ("guidance", guidance, 1)):
            if given != none:
                raise ValueError(
                    f"{key}={given}: these are data of p(x) and have no y; type data.condition=labels, or "
                    f"data.condition=[COLUMN], to learn p(x | y)"
                )
        return data
    task = cfg["task"]
    target = schema.locate(task["_target_"], "task")
    for key in ("trainers", "shares", "other"):
        if task.get(key) is not None:
            raise ValueError(
                f"this task has several networks (task.{key}) and takes none of p(x | y); leave data.condition out"
            )
    if value is not None:
        data = data.asking(value)
    known = data.condition
    if getattr(target, "conditions", False):
        return data
    if known.asked is None or len(known.asked) != 1 or not known.classes:
        raise ValueError(
            f"this task, {target.__name__}, is for one law, "
            + (
                "that of one label: type condition=LABEL"
                if known.classes
                else "and does not know which numbers y each example has; task=sample and task=likelihood do"
            )
        )
    return data


def settle(cfg: dict, data: Any, device: str) -> dict:
    """Fills in what waited for the data, and checks the whole against its constructors."""
    batch = max(1, min(8192, 2**21 // data.dim))
    values = {
        "shape": list(data.shape),
        "components": data.components(),
        "labels": data.labels(),
        "moments": data.moments,  # functions: most runs need none
        "reference": lambda: data.encode(data.dequantise(data.train[:20_000], None)),
        "condition": 0 if blind(cfg, data) else data.condition.width,
        "evidence": lambda: getattr(data, "evidence", None),
        "classes": len(data.condition.names) if data.condition and data.condition.classes else 0,
        "drop": 0.1 if data.condition and data.condition.classes and not blind(cfg, data) else 0.0,
        "sigma_data": round(data.std, 6),
        "sigma_max": cache(lambda: largest_noise(data)),
        "levels.count": steps_of_chain(cfg["sde"]),
        "batch": batch,
        "device": device,
        "bins": bins_of(data),
        "observation": observation_of(data),
    }
    if values["components"] is None:
        for key, node, remedy in (
            ("model=oracle", cfg["model"], "model=mlp or model=unet"),
            ("training/loss=explicit", cfg["training"]["loss"].get("truth", {}), "training/loss=likelihood"),
        ):
            if node.get("components") == schema.AUTO:
                raise ValueError(
                    f"{key} needs data whose density is a mixture, data=mixture or data=8gaussians; "
                    f"for other data choose {remedy}"
                )
    if not 0 < values["sigma_data"] < math.inf:
        raise ValueError(
            f"the training data do not vary, or beyond float32 (std {data.std:.3g} in model units): no density can "
            f"be learnt from them; look at the file, or at data.limit, data.count and data.test_fraction"
        )
    if data.levels is None and "dequantisation" in cfg["task"]:
        asked = schema.build(cfg["task"]["dequantisation"], "dequantisation")
        if asked != UniformDequantisation():
            raise ValueError(
                f"dequantisation, here {asked.title} with samples={asked.samples}, is for integers, and these data are "
                f"continuous; leave dequantisation out, or type data.levels=L for a file of integers 0 ... L-1"
            )
    if data.condition is not None and "truth" in cfg["training"]["loss"]:
        raise ValueError(
            "training/loss=explicit compares with the score of p(x), and data.condition= asks for p(x | y); type "
            "training/loss=likelihood"
        )
    cfg = schema.settle(cfg, data.shape, values)
    schema.check_process(cfg)
    for key in nodes(cfg):
        schema.check(cfg[key], key)
    return {key: schema.canonical(value) if key in NODES and value else value for key, value in cfg.items()}


def nodes(cfg: dict) -> list[str]:
    """The groups that are constructor calls, those that a run has."""
    return [key for key in NODES if cfg.get(key)]


def steps_of_chain(node: dict) -> int:
    """training.loss.levels.count=auto: the T of an SDE whose time counts steps, 1000 of any other."""
    counts = getattr(schema.locate(node["_target_"], "sde"), "counts_steps", False)
    return max(2, int(node["T"])) if counts else 1000


def bins_of(data: Data) -> list | None:
    """observation.bins=auto: the shift and the scale of integers, in plain numbers, and how many levels they have."""
    return None if data.levels is None else [data.shift.tolist(), data.scale.tolist(), data.levels]


def observation_of(data: Data) -> dict:
    """model.observation=auto: a Gaussian for continuous data, for integers a law of integers."""
    if data.levels is None:
        return {"_target_": "latent.Gaussian", "std": None}
    return {"_target_": "latent.DiscretisedLogistic", "bins": bins_of(data), "mixture": 3}


def largest_noise(data: Data) -> float:
    """sde.sigma_max=auto: the data's largest distance, in four digits."""
    found = float(f"{data.largest_distance():.4g}")
    log.info("sde.sigma_max=%s, the largest distance between two of the training data in model units", found)
    return found


def obtain_score(cfg: dict, sde: Any, data: Any, record: Any, name: str) -> Any:
    """The score of a run, or what becomes one where data of p(x | y) are given their y: see :func:`given`.

    ``name`` makes the folder of a network that is trained readable.
    """
    if data.condition is None:
        return plain_score(cfg, sde, data, record, name)
    if cfg["task"]["_target_"] == "tasks.TrainClassifier":
        return plain_score(classifying(cfg), sde, data, record, f"{name}-classifier")
    score, classifier = plain_score(cfg, sde, data, record, name), None
    if cfg.get("classifier"):
        if hasattr(score, "classifier"):  # an exact score has an exact one
            classifier = score.classifier()
        else:
            training = record.training
            twin = classifying(cfg) | {"checkpoint": None}
            classifier = plain_score(twin, sde, data, record, f"{name}-classifier")
            record.training = training
    elif cfg["guidance"] != 1:
        mind_the_guidance(cfg)
    return ConditionalScore(score, cfg["guidance"], classifier)


def given(cfg: dict, data: Any, score: Any) -> Any:
    """The score of the y that is asked for, if the task knows of none; data are those of :func:`ask`."""
    if not isinstance(score, ConditionalScore) or getattr(
        schema.locate(cfg["task"]["_target_"], "task"), "conditions", False
    ):
        return score
    return score.given(data.condition.encode(data.condition.asked).float())


def classifying(cfg: dict) -> dict:
    """The configuration that trains the classifier: as long and as fast as the network, with a loss of its own."""
    loss = {"_target_": "training.CrossEntropy", "levels": {"_target_": "training.levels.LogSNR"}, "stratified": True}
    return cfg | {
        "model": cfg["classifier"],
        "training": cfg["training"] | {"loss": loss, "drop": 0.0},
        "parameterisation": {},
    }


def mind_the_guidance(cfg: dict) -> None:
    """Refuses guidance by a network that never met an unknown y."""
    drop = cfg["training"]["drop"]
    if cfg["checkpoint"]:
        drop = store.read(cfg["checkpoint"])[0]["training"].get("drop", 0.0)
    if drop == 0 and "sde" not in cfg["model"]:
        raise ValueError(
            f"guidance={cfg['guidance']} needs a network that has learnt p(x) too, and this one was given its y every "
            f"time (training.drop=0): type training.drop=0.1, or guidance=1"
        )


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
    if cfg["checkpoint"]:
        if "shares" in cfg["task"]:
            look_back(cfg, sde, record, sorted(folder_of(cfg["checkpoint"]).glob("kept-*")))
        return from_checkpoint(cfg, sde, data)
    if "sde" in cfg["model"]:  # a model that names an SDE is a score by itself
        return schema.build(cfg["model"], "model")

    refuse_other_shapes(cfg["model"], data.shape, "model")
    trainer = schema.build(cfg["training"], "training")
    trainer.seeded()
    model = build_model(cfg, sde).to(cfg["device"])
    home, identity = Store(cfg["store"]), identity_of(cfg, data)
    keep = {max(1, round(share * trainer.steps)) for share in cfg["task"].get("shares", ())}

    def train(folder: Path) -> Any:
        def note(event: dict) -> None:
            journal.append(folder, event)
            record.event(event)

        with one_thread(cfg["threads"] is None and is_small(model, data, trainer.batch)):
            return trainer.fit(sde, model, data, folder, note, keep)

    def train_again(folder: Path) -> Any:
        trainer.seeded()
        twin = build_model(cfg, sde).to(cfg["device"])
        with one_thread(cfg["threads"] is None and is_small(twin, data, trainer.batch)):
            return trainer.fit(sde, twin, data, folder, keep=keep)

    folder = home.folder(identity, name)
    mind_the_bins(cfg, data, identity)
    mind_the_levels(cfg, trainer, sde, data)
    score = home.obtain(
        identity,
        name,
        trainer.steps,
        train,
        lambda found: store.put_weights(model, found, folder),
        source_of(cfg, data),
    )
    record.training = journal.read(folder)
    if keep:
        look_back(cfg, sde, record, home.kept(folder, keep, train_again).values())
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


def train_model(cfg: dict, node: dict, key: str, found: dict, data: Any, record: Any, name: str) -> tuple[Any, dict]:
    """One model and its identity, from the node of its recipe and those that were found before it."""
    parts = cfg | {"sde": None, "parameterisation": None, "model": node["model"], "training": node["training"]}
    identity, start = identity_of(parts, data), node.get("start")
    if start is not None:
        if start not in found:
            raise ValueError(
                f"task.models.{key}.start={start} is none of the models before it "
                f"({', '.join(found) or 'there are none'})"
            )
        identity["start"] = found[start][1]
    trainer = schema.build(node["training"], f"task.models.{key}.training")
    trainer.seeded()
    model = schema.build(node["model"], f"task.models.{key}.model").to(cfg["device"])
    if start is not None:
        try:
            model.begin(found[start][0])
        except ValueError as error:
            raise ValueError(f"task.models.{key}.start={start}: {error}") from None
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
    if "classes" in cfg["model"]:
        return Classifier(sde, schema.build(cfg["model"], "classifier"))
    if sde is None:
        return schema.build(cfg["model"], "model")
    return ScoreModel(
        sde, schema.build(cfg["model"], "model"), schema.build(cfg["parameterisation"], "parameterisation")
    )


def identity_of(cfg: dict, data: Any) -> dict:
    """What decides a network's weights, in plain values; a file of data counts by its content and not by its path."""
    training = {key: plain(value) for key, value in cfg["training"].items() if key not in ("evaluate", "save_seconds")}
    if data.levels is None or training.get("dequantise") == "uniform":
        training.pop("dequantise", None)  # networks older than the key keep their names; continuous data have no bins
    if not training.get("drop"):
        training.pop("drop", None)
    fingerprint = data.fingerprint()
    beside = data.held_out_keys if fingerprint is None else ("path", *data.held_out_keys)
    described = {key: value for key, value in cfg["data"].items() if key not in beside}
    told = cfg["model"].get("classes") or any(node.get("condition") for node in tree(cfg["model"]))
    if described.get("condition") is None or described["condition"] == "labels" and not told:
        described.pop("condition", None)  # labels that a network is not told decide nothing of it
    if "classes" in cfg["model"]:
        described["condition"] = "labels"
    if described.get("labels") is None:
        described.pop("labels", None)
    if fingerprint is not None:
        described["fingerprint"] = fingerprint
    return {
        "data": described,
        "sde": cfg["sde"],
        "model": without(cfg["model"], YOUNGER),
        "parameterisation": cfg["parameterisation"],
        "training": training,
    }


def tree(node: Any) -> Iterator[dict]:
    """The node and all below it."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from tree(value)


def plain(node: Any) -> Any:
    """A node without the values that only Python has: they come from the data, which an identity names already."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items() if not holds_tensors(value)}
    return node


def holds_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(map(holds_tensors, value)))


YOUNGER = {"embedding": "smooth", "condition": 0}
"""Keys of networks that are younger than the store, and their defaults: at these, older networks keep their names."""


def without(node: Any, defaults: dict) -> Any:
    """The node without the keys that are at their defaults, here and below."""
    if not isinstance(node, dict):
        return node
    return {key: without(value, defaults) for key, value in node.items() if (key, value) not in defaults.items()}


def source_of(cfg: dict, data: Any) -> dict:
    """Where data of a file were found, and their units: what `load` needs to go on with them."""
    if data.fingerprint() is None:
        return {}
    path = cfg["data"].get("path")
    return {
        "path": str(Path(path).absolute()) if path and Path(path).exists() else path,
        "shape": list(data.shape),
        "shift": data.shift.tolist(),
        "scale": data.scale.tolist(),
        "levels": data.levels,
    }


def is_small(model: Any, data: Any, batch: int) -> bool:
    """Whether an update is below 5 GFLOP, a tenth of a second of one core.

    Threads that meet at every small operation gain little on an idle machine and lose a lot on a busy one: the
    digits' U-Net makes 12 updates a second on one thread, and on two 18, or 6 while another process works.
    """
    operations = 0

    def count(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal operations
        operations += 2 * module.weight[0].numel() * output.numel()  # a linear layer or a convolution

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    device = next(model.parameters()).device
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        score = model.given(None) if isinstance(model, ScoreModel) and model.conditional else model
        score(torch.zeros(1, *data.shape, device=device), torch.full((1,), model.sde.T, device=device))
    for hook in hooks:
        hook.remove()
    return 3 * batch * operations < 5e9  # forward, and backward with respect to weights and features


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """One CPU thread where it is wanted, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def from_checkpoint(cfg: dict, sde: Any, data: Any) -> Any:
    """The network of checkpoint=PATH as the score of the run's SDE, which may be another than it was trained under."""
    identity, found = store.read(cfg["checkpoint"])
    now = identity_of(cfg, data)
    parts = ("data", "model", "parameterisation")
    if lines := differences({key: identity[key] for key in parts}, {key: now[key] for key in parts}):
        raise ValueError(
            f"checkpoint={cfg['checkpoint']} does not fit this run; choose the values it was trained with:\n  "
            + "\n  ".join(lines)
        )
    mind_the_bins(cfg, data, identity)
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


def mind_the_bins(cfg: dict, data: Data, identity: dict) -> None:
    """Warns where integers are scored in another way than the network was trained for."""
    if data.levels is None or "dequantisation" not in cfg["task"]:
        return
    asked, trained = schema.build(cfg["task"]["dequantisation"], "dequantisation"), identity["training"]
    if trained.get("dequantise", "uniform") != asked.training:
        log.warning(
            "the network is one of training.dequantise=%s, and %s dequantisation is for training.dequantise=%s: the "
            "bound on log P will be a loose one; type dequantisation=%s",
            trained.get("dequantise", "uniform"),
            asked.title,
            asked.training,
            "truncated_normal" if isinstance(asked, UniformDequantisation) else "uniform",
        )


def mind_the_levels(cfg: dict, trainer: Any, sde: Any, data: Data) -> None:
    """Says what the noise levels of the training are, and warns where the task looks at others."""
    levels = getattr(trainer.loss, "levels", None)
    if levels is None:
        return
    if said := levels.describe(sde, data.dim):
        log.info("%s", said)
    walker = cfg["task"].get("sampler", {}).get("_target_") == "samplers.LangevinDynamics"
    if not levels.everywhere and not walker and "_target_" in cfg["task"] and cfg["task"]["_target_"] != "tasks.Train":
        log.warning(
            "the network is trained at one noise level alone, and this task asks it about all of them; type "
            "sampler=langevin to walk at that level, or training/loss/levels=log_snr to train at all"
        )


def differences(saved: Any, now: Any, key: str = "") -> list[str]:
    """What two trees of plain values disagree in, a line a key."""
    if isinstance(saved, dict) and isinstance(now, dict):
        if saved.get("_target_") != now.get("_target_"):
            return [f"{key}: {saved.get('_target_')} in the checkpoint, {now.get('_target_')} here"]
        names = dict.fromkeys([*saved, *now])
        return [
            line
            for name in names
            for line in differences(
                saved.get(name, "absent"), now.get(name, "absent"), f"{key}.{name}" if key else name
            )
        ]
    return [] if saved == now else [f"{key}: {saved} in the checkpoint, {now} here"]


def load(path: str | Path, device: str = "cpu") -> tuple[Any, Any, Any]:
    """The (sde, score, data) of a trained network: a folder of the store, or one ``step-*`` folder in it. A
    latent-variable model stands in the score's place, with None for an SDE.

    Data that were read from a file are read again where they were, if the file is still the same one; otherwise data
    has their units and no examples.
    """
    identity, found = store.read(path)
    if found.step < identity["training"]["steps"]:
        log.warning("%s is unfinished: %s of %s updates", path, f"{found.step:,}", f"{identity['training']['steps']:,}")
    sde = schema.build(identity["sde"], "sde")
    score = store.put_weights(build_model(identity, sde), found, path)
    return sde, score.to(device), load_data(identity)


def load_data(identity: dict) -> Data:
    """The data set of an identity."""
    if not (source := identity.get("source")):
        return build_data(identity)
    node = {key: value for key, value in identity["data"].items() if key != "fingerprint"} | {"path": source["path"]}
    try:
        data = build_data({"data": node})
        if data.fingerprint() == identity["data"]["fingerprint"]:
            return data
        log.warning(
            "%s is not the file that the network was trained on; data has its units and no examples", node["path"]
        )
    except (OSError, ValueError, ImportError) as error:
        log.warning("the data cannot be read again (%s); data has their units and no examples", error)
    none = torch.empty(0, *source["shape"])
    shift, scale = (torch.tensor(source[key], dtype=torch.float64) for key in ("shift", "scale"))
    return Data(none, none, shift, scale, source["levels"])


def choose_device(device: str, dtype: str) -> str:
    """The device that ``auto`` means here; ValueError for one that is not there."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, there in present.items() if there and not (name == "mps" and dtype == "float64"))
    if not present[device]:
        raise ValueError(f"device={device} is not there; type device=cpu, or device=auto for the best that is")
    if device == "mps" and dtype == "float64":
        raise ValueError("device=mps has no float64; type dtype=float32 or device=cpu")
    return device
