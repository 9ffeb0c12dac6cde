"""Trains a network, or finds it in the store: for scores and classifiers, and for models by a recipe."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scoresde.data import Data
from scoresde.models import Classifier, ScoreModel
from scoresde.tasks import Network, Record, Task
from scoresde.training import Snapshots, Store, Trainer, journal, store
from scoresde.training.threads import is_small, one_thread

from . import compatibility, schema
from .identity import identity_of, source_of


def trained_score(
    cfg: dict,
    sde: Any,
    data: Data,
    record: Record,
    name: str,
    task: Task | None = None,
    accept: Callable[[Any, Any], Any] | None = None,
    shares: tuple[float, ...] = (),
    snapshots: int = 0,
    source: dict | None = None,
    show: bool = True,
) -> tuple[Network, Iterable[Path], dict[int, Path], dict]:
    """Returns the network that ``cfg`` describes, and what was kept along its training.

    Arguments:
        name: makes the network's folder readable.
        task: is warned of a training that does not fit it; None for a network that no task asks for.
        accept: see :meth:`scoresde.tasks.Networks.score`.
        shares: shares of the training's updates, in (0, 1], after each of which the network is kept.
        snapshots: the number of times, evenly spaced, that averages are kept along the training.
        source: where the data were found, and their units; None for :func:`scoresde.conf.identity.source_of`.
        show: whether the training shows a progress bar.

    Returns:
        the network; the folders ``kept-*`` of ``shares``; the folders ``power-*`` of ``snapshots`` by the number of
        updates; the network's identity, with where the data were found.

    Raises:
        ValueError: the network does not fit the data, there is no data to train on, ``accept`` refuses the network, or
            the SDE does not reach the training's noise levels.
        OSError: the store cannot be written, and the network must be trained.
    """
    refuse_other_shapes(cfg["model"], data.shape, "model")
    if not len(data.train):
        raise ValueError(
            "these data have no examples to train on: type checkpoint=PATH for a trained network, or data=NAME for "
            "data with examples"
        )
    trainer: Trainer = schema.build(cfg["training"], "training", cfg["typed"])
    model = untrained(cfg, sde, trainer)
    if accept is not None:
        accept(sde, model)
    home, identity = Store(cfg["store"]), identity_of(cfg, data)
    source = source_of(cfg, data) if source is None else source
    keep = {max(1, round(share * trainer.steps)) for share in shares}
    powers = {max(1, round((i + 1) * trainer.steps / snapshots)) for i in range(snapshots)}

    def fit(model: nn.Module, folder: Path, note: Callable[[dict], None] = lambda event: None) -> Any:
        return train(cfg, trainer, sde, model, data, folder, note, keep, powers, store.digest(identity), show)

    def again(folder: Path) -> Any:  # repeats the training, for networks that were not kept the first time
        return fit(untrained(cfg, sde, trainer), folder)

    folder = home.folder(identity, name)
    compatibility.bins(task, sde, data, identity)
    compatibility.levels(task, trainer, sde, data)
    found = home.obtain(
        identity,
        name,
        trainer.steps,
        lambda folder: fit(model, folder, noting(folder, record)),
        lambda kept: store.put_weights(model, kept, folder),
        source,
    )
    network = Network(found, journal.read(folder), folder)
    kept = home.kept(folder, keep, again).values() if keep else []
    averages = home.kept(folder, powers, again, "power") if powers else {}
    return network, kept, averages, {**identity, "source": source} if source else identity


def train(cfg: dict, trainer: Trainer, sde: Any, model: nn.Module, data: Data, *more: Any, **keys: Any) -> nn.Module:
    """Trains a model and returns its average; a small one on one thread, unless ``threads`` are chosen.

    Arguments:
        more, keys: further arguments of :meth:`scoresde.training.Trainer.fit`.
    """
    # is_small() counts operations, for which any y will do
    call = model.given(None) if isinstance(model, ScoreModel) and model.conditional else model
    small = cfg["threads"] is None and is_small(model, call, sde.T, data.shape, trainer.batch)
    with one_thread(small):
        return trainer.fit(sde, model, data, *more, **keys)


def trained_model(
    cfg: dict,
    node: dict,
    key: str,
    found: dict[str, tuple[Network, dict]],
    data: Data,
    record: Record,
    name: str,
    place: str,
) -> tuple[Network, dict]:
    """Returns one model by its recipe, a node with ``model``, ``training`` and maybe ``start``; and its identity.

    Arguments:
        node: the recipe.
        key: the model's name, which is part of the name of its folder.
        found: the models before this one and their identities, by name. ``start`` names the one from whose weights the
            training starts. The task has checked that it fits
            (:func:`scoresde.tasks.studies.recipes.check_recipes`).
        name: makes the model's folder readable.
        place: the recipe's key in the configuration.
    """
    parts = cfg | {"sde": None, "parameterisation": None, "model": node["model"], "training": node["training"]}
    identity, start = identity_of(parts, data), node.get("start")
    if start is not None:
        identity["start"] = found[start][1]
    trainer = schema.build(node["training"], f"{place}.training")
    with trainer.seeded():
        model = schema.build(node["model"], f"{place}.model").to(cfg["device"])
    if start is not None:
        model.start_from(found[start][0].model)
    home, name = Store(cfg["store"]), f"{name}-{key}"
    folder = home.folder(identity, name)

    def train(folder: Path) -> Any:
        with one_thread(cfg["threads"] is None):  # small, and equal weights on any number of cores
            note = noting(folder, record, {"model": key})
            return trainer.fit(None, model, data, folder, note, identity=store.digest(identity))

    def load(kept: Any) -> Any:
        return store.put_weights(model, kept, folder)

    trained = home.obtain(identity, name, trainer.steps, train, load, source_of(cfg, data))
    return Network(trained, journal.read(folder), folder), identity


def noting(folder: Path, record: Record, beside: dict | None = None) -> Callable[[dict], None]:
    """Returns a function for a trainer to call with each event, which writes it to the network's journal and the run's
    record; to the record with the keys of ``beside``.
    """

    def note(event: dict) -> None:
        journal.append(folder, event)
        record.event({**(beside or {}), **event})

    return note


def untrained(cfg: dict, sde: Any, trainer: Trainer) -> nn.Module:
    """Returns the network with the weights that its training starts from."""
    with trainer.seeded():
        return build_model(cfg, sde).to(cfg["device"])


def build_model(cfg: dict, sde: Any) -> Any:
    """Returns the network of a configuration as the score of an SDE, or as a classifier of the SDE's noisy data.

    Without an SDE it returns the network itself: a latent-variable model or a network of features.

    Arguments:
        cfg: a settled configuration or an identity.
    """
    typed = cfg.get("typed", {})  # an identity has none
    if "classes" in cfg["model"] and sde is not None:
        return Classifier(sde, schema.build(cfg["model"], "classifier", typed))
    net = schema.build(cfg["model"], "model", typed)
    return (
        net if sde is None else ScoreModel(sde, net, schema.build(cfg["parameterisation"], "parameterisation", typed))
    )


def refuse_other_shapes(node: dict, shape: tuple[int, ...], key: str) -> None:
    """Raises a ValueError for a network whose shape is not the data's; torch would only name sizes of matrices."""
    for name, value in node.items():
        if isinstance(value, dict):
            refuse_other_shapes(value, shape, f"{key}.{name}")
        elif name == "shape" and tuple(value) != tuple(shape):
            raise ValueError(f"{key}.shape={list(value)} is not the data's, {list(shape)}; type {key}.shape=auto")


def kept_networks(cfg: dict, sde: Any, paths: Iterable[Path], described: dict) -> dict[int, Callable[[], Any]]:
    """Returns by the number of updates a function that loads the network kept in a folder ``kept-*``.

    Arguments:
        described: the network's identity.
    """

    def loader(path: Path) -> Callable[[], Any]:
        def load() -> Any:
            found = store.load_kept(path, described)
            return placed(cfg, store.put_weights(build_model(described, sde), found, path))

        return load

    return {int(path.name.removeprefix("kept-")): loader(path) for path in paths}


def snapshots_of(cfg: dict, sde: Any, paths: dict[int, Path], described: dict) -> Snapshots | None:
    """Returns the averages in folders ``power-*``, from which those of other lengths are made; None without folders."""

    def network(state: dict) -> Any:
        model = build_model(described, sde)
        model.load_state_dict(state)
        return placed(cfg, model.eval().requires_grad_(False))

    return Snapshots(paths, network, described) if paths else None


def placed(cfg: dict, model: nn.Module) -> nn.Module:
    """Moves the model itself to the run's device and precision, and returns it."""
    return model.to(device=cfg["device"], dtype=getattr(torch, cfg["dtype"]))
