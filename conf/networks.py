"""The networks that a task requests from ``job.networks``: loaded or trained as the configuration describes them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from scoresde.data import Conditional, Data, Turned
from scoresde.data.condition import LABELS
from scoresde.models import ConditionalScore
from scoresde.tasks import Along, Averaged, Features, Network, Record, Sampled, Task
from scoresde.training import journal

from . import compatibility, schema, stored
from .checkpoint import folder_of, from_checkpoint, other_network, refuse_foreign
from .keys import full_keys
from .sample_cache import description, home_of, weights_of
from .trained import kept_networks, placed, snapshots_of, trained_model, trained_score


class Networks:
    """The networks of a run; :class:`scoresde.tasks.Networks` says what each method that tasks call returns.

    Arguments:
        cfg: the settled configuration.
        sde: the forward process.
        data: all data, on which networks are trained.
        asked: the data with the y that ``condition=`` names.
        task: the run's task, which requests the networks.
        record: receives the events of trainings.
        name: makes the networks' folders readable, ``digits-ve-unet``.
    """

    def __init__(self, cfg: dict, sde: Any, data: Data, asked: Data, task: Task, record: Record, name: str):
        self.cfg, self.sde, self.data, self.asked = cfg, sde, data, asked
        self.task, self.record, self.name = task, record, name

    def score(self, accept: Callable[[Any, Any], Any] | None = None) -> Network:
        return self.ready(self.found(self.cfg, self.name, self.task, accept))

    def sampled(self) -> Sampled:
        network = self.found(self.cfg, self.name, self.task)
        described = description(self.cfg, self.asked, network.model)  # before its precision becomes the run's
        root = home_of(self.cfg, network, self.name)
        return Sampled(**vars(self.ready(network)), root=root, described=described)

    def classifier(self) -> Network:
        network = self.plain(classifying(self.cfg), f"{self.name}-classifier", self.task)
        return replace(network, model=placed(self.cfg, network.model))

    def along(self, shares: tuple[float, ...]) -> Along:
        refuse_foreign(self.cfg)
        if self.exact:
            return Along(self.score().model)
        if self.cfg["checkpoint"]:
            described = stored.read(self.cfg["checkpoint"])[0]
            network = self.found(self.cfg, self.name, self.task)
            paths = sorted(folder_of(self.cfg["checkpoint"]).glob("kept-" + "[0-9]" * 8))  # by an earlier task
            network = replace(network, training=journal.read(paths[0].parent) if paths else [])
        else:
            network, paths, _, described = trained_score(
                self.cfg, self.sde, self.data, self.record, self.name, self.task, shares=shares
            )
        return Along(**vars(self.ready(network)), kept=kept_networks(self.cfg, self.sde, paths, described))

    def averages(self, count: int) -> Averaged:
        refuse_foreign(self.cfg)
        if self.exact:
            return Averaged(self.score().model)
        if self.cfg["checkpoint"]:
            found = folder_of(self.cfg["checkpoint"]).glob("power-" + "[0-9]" * 8)
            paths = {int(path.name.removeprefix("power-")): path for path in found}
            described = stored.read(self.cfg["checkpoint"])[0]
            network = self.found(self.cfg, self.name, self.task)
        else:
            network, _, paths, described = trained_score(
                self.cfg, self.sde, self.data, self.record, self.name, self.task, snapshots=count
            )
        return Averaged(**vars(self.ready(network)), snapshots=snapshots_of(self.cfg, self.sde, paths, described))

    def rivals(self) -> dict[str, Network]:
        if self.cfg["checkpoint"] or self.exact:
            raise ValueError(
                "this task trains several networks and compares them: leave checkpoint= out, and choose a network with "
                "model=mlp or model=unet"
            )
        nodes = self.cfg["task"]["trainers"]
        for key, node in nodes.items():  # refused before a long training
            levels = getattr(schema.build(node, f"task.trainers.{key}").loss, "levels", None)
            if levels is not None:
                with full_keys(f"task.trainers.{key}.loss.levels"):
                    levels.times(self.sde, torch.zeros(1))
        return {
            key: self.ready(self.found(self.cfg | {"training": node}, f"{self.name}-{key}"))
            for key, node in nodes.items()
        }

    def models(self) -> dict[str, Network]:
        cfg = self.cfg
        if cfg["checkpoint"]:
            raise ValueError("this task trains several models and compares them: leave checkpoint= out")
        task, seeds, models = cfg["task"], cfg["task"].get("seeds"), {}
        for i in range(seeds or 1):
            found: dict[str, tuple[Network, dict]] = {}
            label = "" if seeds is None else f"/{i}"
            for key, node in task["models"].items():  # in order: a model may start from one before it
                training = node["training"] | {"seed": node["training"]["seed"] + i}
                recipe = node | {"training": training}
                name, place = self.name.split("-")[0], f"task.models.{key}"
                found[key] = trained_model(cfg, recipe, key, found, self.data, self.record, name, place)
                network = found[key][0]
                models[key + label] = replace(network, model=placed(cfg, network.model))
            if task.get("score"):
                training = cfg["training"] | {"seed": cfg["training"]["seed"] + i}
                models["score" + label] = self.ready(self.found(cfg | {"training": training}, self.name))
        return models

    def other(self, path: str) -> tuple[Any, Any]:
        return other_network(self.cfg, path, self.data)

    def features(self) -> Features:
        node, data = self.cfg["task"]["features"], self.data
        if "training" not in node:  # features that are not learnt
            net = schema.build(node, "task.features")
            return Features(net, None, node["_target_"].rpartition(".")[2].lower())
        whole = getattr(data, "joint", data) if data.train_labels is not None else data
        labelled = data.label_count() is not None
        if not labelled and len(data.shape) != 3:
            raise ValueError(
                "task/features=mlp learns the labels of the data, and these have none; type task/features=values"
            )
        examples = Conditional(whole if labelled else Turned(data), LABELS)
        title = schema.locate(node["model"]["_target_"], "task.features.model").title
        key, name = f"features-{title}", self.name.split("-")[0]
        network, _ = trained_model(self.cfg, node, key, {}, examples, self.record, name, "task.features")
        classes = examples.condition if labelled else None
        return Features(network.model, classes, f"{title}@{weights_of(network.model)}")

    @property
    def exact(self) -> bool:
        """True if the run's score is an exact model, which is not trained."""
        return not self.cfg["checkpoint"] and compatibility.is_exact(self.cfg)

    def found(
        self, cfg: dict, name: str, task: Task | None = None, accept: Callable[[Any, Any], Any] | None = None
    ) -> Network:
        """Returns the score of a configuration; for data of p(x | y) a :class:`scoresde.models.ConditionalScore`, with
        the run's guidance, to which y is given later.
        """
        if self.data.condition is None:
            return self.plain(cfg, name, task, accept)
        if cfg["guidance"] != 1 and not cfg.get("classifier"):  # refused before a long training
            compatibility.guidance(cfg)
        network, classifier = self.plain(cfg, name, task, accept), None
        if cfg.get("classifier"):
            if hasattr(network.model, "classifier"):  # an exact score has an exact one
                classifier = network.model.classifier()
            else:
                classifier = self.plain(classifying(cfg) | {"checkpoint": None}, f"{name}-classifier").model
        return replace(network, model=ConditionalScore(network.model, cfg["guidance"], classifier))

    def plain(
        self, cfg: dict, name: str, task: Task | None = None, accept: Callable[[Any, Any], Any] | None = None
    ) -> Network:
        """Returns the network of a configuration without guidance: of ``checkpoint=``, exact, stored or trained."""
        if cfg["checkpoint"]:
            return from_checkpoint(cfg, self.sde, self.data, task)
        if compatibility.is_exact(cfg):
            return Network(schema.build(cfg["model"], "model", cfg["typed"]))
        return trained_score(cfg, self.sde, self.data, self.record, name, task, accept)[0]

    def ready(self, network: Network) -> Network:
        """Returns the network on the run's device and in its precision. A conditional score is given the y of
        ``condition=``, unless the task gives each example a y of its own.
        """
        model = network.model
        if isinstance(model, ConditionalScore) and self.task.conditions != "each":
            condition = self.asked.condition
            model = model.given(condition.encode(condition.single).float())
        return replace(network, model=placed(self.cfg, model))


def classifying(cfg: dict) -> dict:
    """Returns the configuration that trains the classifier: for as many updates as the network, by cross-entropy."""
    loss = {"_target_": "training.CrossEntropy", "levels": {"_target_": "training.levels.LogSNR"}, "stratified": True}
    return cfg | {
        "model": cfg["classifier"],
        "training": cfg["training"] | {"loss": loss, "drop": 0.0},
        "parameterisation": {},
    }
