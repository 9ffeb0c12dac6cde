"""Fits a score model to data in Python, with the parts and defaults of the command line."""

import dataclasses
import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from scoresde.conf import moments, schema
from scoresde.conf.assemble import build_data, choose_device
from scoresde.conf.compose import composed
from scoresde.conf.identity import CONTENT, identity_of, source_of
from scoresde.conf.keys import KINDS
from scoresde.conf.trained import train, trained_score, untrained
from scoresde.conf.values import nodes, settle
from scoresde.data import Conditional, Data, Examples
from scoresde.data.files import SUFFIXES
from scoresde.sde_lib import SDE
from scoresde.training import Store

from .forms import Form
from .model import Model

CONF = Path(schema.__file__).parent
READ = ("test_fraction", "seed", "levels", "shape", "axes")  # keys of data=arrays that arrays in memory have too


def fit(
    x: Any,
    sde: str | SDE | None = None,
    model: str | None = None,
    steps: int | None = None,
    *,
    condition: Any = None,
    labels: Any = None,
    seed: int = 0,
    device: str = "auto",
    store: str | Path | None = None,
    overrides: Sequence[str] = (),
    verbose: bool = True,
) -> Model:
    """Trains a score model of data, and returns it with methods for samples, log-densities and posteriors.

    Nothing is written to the disk unless ``store`` is given. The result depends on the data, the arguments and
    ``seed``, and is the network that the command line trains by the same choices.

    Arguments:
        x: an array or a tensor, (N, D) vectors or (N, C, H, W) images; a data frame of numbers; a path of a file or of
            a folder of images; the name of a data set of the command line, such as ``moons``; or a data set
            (:class:`scoresde.data.Data`).
        sde: a choice of the command line's group ``sde`` (ve, vp, subvp, edm, ...), or an SDE; by default ve.
        model: a choice of the group ``model`` (mlp, unet, ncsnpp, ...); by default an MLP for vectors and a U-Net for
            images.
        steps: the number of updates; by default that of the command line for such data.
        condition: learns p(x | y): ``labels`` for the classes of ``labels``, or names or numbers of columns of x, which
            are then given and not learnt.
        labels: the class of each example, (N,), or the name of the data frame's or file's column that holds it.
        seed: of the initial weights, the order of the data and the noise.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        store: a folder of trained networks. A network that it holds is loaded and not trained again, and an interrupted
            training is resumed.
        overrides: further choices and keys, as typed on the command line: ``["training.vectors.batch=512"]``.
        verbose: whether a progress bar is shown.

    Raises:
        ValueError, OSError, ImportError: an argument or the data do not fit, with what to give instead.
        FloatingPointError: the loss is not finite.
    """
    words, path = source_words(x)
    own = None if isinstance(sde, str) else sde
    if sde is not None:
        words.append(f"sde={sde}" if own is None else "sde=vp")  # vp stands in for a class of the user's
    words += [f"model={model}"] if model is not None else []
    cfg, choices = composed([*words, f"device={device}", *overrides])
    cfg = schema.with_short_targets(cfg)
    node = cfg["sde"] if own is None else node_of(own)
    cfg["sde"] = node or cfg["sde"]
    schema.check_root(cfg)
    # the data
    data, cfg["data"] = read(cfg, path, condition, labels) if path is not None else held(x, cfg, condition, labels)
    cfg["training"] = trained_by(cfg["training"], data, {"seed": seed} | ({} if steps is None else {"steps": steps}))
    for key in nodes(cfg):
        if key != "data":
            schema.check(cfg[key], key, unsettled=True)
    cfg = settle(cfg, data, choose_device(cfg["device"], cfg["dtype"]))
    # the network
    process = own or schema.build(cfg["sde"], "sde", cfg["typed"])
    if store is not None:
        if node is None:
            raise ValueError(f"store={store}: an SDE of your own class has no name to be found by; leave store out")
        name = "-".join([choices["data"] if path is not None else "memory", choices["sde"], choices["model"]])
        return from_store(cfg | {"store": str(store)}, process, data, name, Form(x), verbose)
    trainer = schema.build(cfg["training"], "training", cfg["typed"])
    events: list[dict] = []
    score = train(cfg, trainer, process, untrained(cfg, process, trainer), data, record=events.append, show=verbose)
    whole = identity_of(cfg, data) | with_source(source_of(cfg, data)) if node else None
    return Model(process, score.eval().requires_grad_(False), data, whole, trainer.steps, events, Form(x))


def from_store(cfg: dict, sde: SDE, data: Data, name: str, form: Form, show: bool) -> Model:
    """Returns the model of a settled configuration from its store; trained there, and resumed, if need be."""
    identity, source, events = identity_of(cfg, data), source_of(cfg, data), []
    if source:
        folder = Store(cfg["store"]).folder(identity, name)
        folder.mkdir(parents=True, exist_ok=True)
        source["moments"] = moments.write(folder, data)
    record = SimpleNamespace(event=events.append)
    network = trained_score(cfg, sde, data, record, name, source=source, show=show)[0]
    score = network.model.to(cfg["device"])
    return Model(sde, score, data, identity | with_source(source), cfg["training"]["steps"], network.training, form)


def with_source(source: dict) -> dict[str, dict]:
    """Returns ``source`` as the part of a stored configuration; nothing for data that a configuration describes."""
    return {"source": source} if source else {}


def source_words(x: Any) -> tuple[list[str], str | None]:
    """Returns the words that choose the data set, and the path of a file or the empty text for a data set by its name;
    None for data in memory.

    Raises:
        ValueError: a text that is no path and names no data set.
    """
    if not isinstance(x, str | Path):
        return ["data=arrays"], None
    path = Path(x).expanduser()
    if path.is_dir():
        return ["data=images"], str(path)
    if isinstance(x, Path) or path.exists() or path.suffix.lower() in SUFFIXES:
        return ["data=arrays"], str(path)
    names = sorted(file.stem for file in (CONF / "data").glob("*.yaml"))
    if x in names:
        return [f"data={x}"], ""
    close = difflib.get_close_matches(x, names, 1)
    raise ValueError(
        f"{x!r} is no file or folder ({path.absolute()}), and no data set of ours"
        + (f"; did you mean {close[0]!r}?" if close else f": {', '.join(names)}")
    )


def read(cfg: dict, path: str, condition: Any, labels: Any) -> tuple[Data, dict]:
    """Returns the data set of a file, a folder or a name, and its node."""
    node = cfg["data"] | ({"path": path} if path else {}) | ({} if condition is None else {"condition": condition})
    if labels is not None:
        if not isinstance(labels, str) or "labels" not in node:
            raise ValueError(f"labels={labels!r}: of a file give the name of the column that holds the labels")
        node["labels"] = labels
    schema.check(node, "data")
    return build_data(cfg | {"data": node}), node


def held(x: Any, cfg: dict, condition: Any, labels: Any) -> tuple[Data, dict]:
    """Returns the data set of what is in memory, and a node that tells it from others."""
    if isinstance(x, Data):
        if labels is not None:
            raise ValueError("labels: a data set has its own, train_labels and test_labels")
        data, node = x, {"_target_": "data.Data", CONTENT: content_of(x)}
        if x.condition is not None:
            node["condition"] = "labels" if x.condition.classes else list(x.condition.names)
    else:
        keys = {key: cfg["data"][key] for key in READ}
        data, node = Examples(x, labels=labels, **keys), {"_target_": "data.Examples", **keys}
    if condition is not None:
        condition = condition if isinstance(condition, str) else [str(key) for key in np.atleast_1d(condition)]
        data, node = Conditional(data, condition), node | {"condition": condition}
    return data, node


def content_of(data: Data) -> str:
    """Returns a hash of a data set's examples, labels and units."""
    total = hashlib.sha256(f"{data.shape} {data.levels} {data.labels()}".encode())
    parts = [data.train, data.test, data.shift, data.scale, data.train_labels, data.test_labels]
    parts += [data.condition.train, data.condition.test] if data.condition is not None else []
    for part in parts:
        total.update(b"none" if part is None else part.detach().cpu().contiguous().numpy())
    return total.hexdigest()


def node_of(part: Any) -> dict | None:
    """Returns an SDE of ours, a frozen dataclass, as the node of a configuration; None for a class of the user's."""
    package = type(part).__module__.removeprefix("scoresde.").split(".")[0]
    if package not in schema.PACKAGES or not dataclasses.is_dataclass(part):
        return None
    values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.init}
    values = {name: node_of(value) if dataclasses.is_dataclass(value) else value for name, value in values.items()}
    return {"_target_": f"{package}.{type(part).__name__}", **values}


def trained_by(node: dict, data: Data, values: dict[str, Any]) -> dict:
    """Returns the node of the training with these values; of the two nodes of ``training=auto``, the data's."""
    kind = "vectors" if len(data.shape) == 1 else "images"
    return node | ({kind: node[kind] | values} if set(node) >= KINDS else values)
