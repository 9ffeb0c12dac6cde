"""Keys that a user typed and that decide nothing in the run: refused before a training, with the key that does.

What a run reads follows from what its parts declare: the parts and keys of the root that the task's yaml names
(``sampler: ${sampler}``), the networks that the task requests (:attr:`scoresde.tasks.Task.requests`), the shape of the
data, and the keys that a class reads only with some values of another key (its attribute ``only_with``).
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from scoresde.data import Data
from scoresde.tasks import Task

from . import compatibility, schema
from .foreign_checkpoints import is_foreign
from .keys import GROUPS, KINDS, choices_in
from .values import is_blind

log = logging.getLogger(__name__)

BY_REFERENCE = ("sampler", "likelihood", "dequantisation", "operator", "conditioner", "count", "seed", "dtype")
"""Parts and keys of the root that are read by the tasks whose yaml names them."""

NETWORKS = {"score", "classifier", "rivals", "models"}
"""Requests for the run's own networks, those that ``checkpoint=`` may replace or may not."""


@dataclass(frozen=True)
class Typed:
    """What a user typed for a run.

    Attributes:
        words: the words of the command line, without those of Hydra; in a sweep those of this job.
        written: the configuration that they lead to, before its interpolations are resolved.
        shared: whether the words are those of a sweep over parts, which other jobs of the sweep may read.
    """

    words: Sequence[str]
    written: dict
    shared: bool = False


def typed_for(config: DictConfig, words: Sequence[str], sweep: Path | None) -> Typed:
    """Returns what the user typed for a run of Hydra's.

    Arguments:
        config: as Hydra composed it.
        words: the run's own, without those of Hydra.
        sweep: the folder of the sweep that the run belongs to, with Hydra's ``multirun.yaml``.
    """
    return Typed(words, OmegaConf.to_container(config, resolve=False), sweep is not None and sweeps_over_parts(sweep))


def sweeps_over_parts(folder: Path) -> bool:
    """Returns whether a sweep has several choices of a group, values of ``checkpoint`` or keys of the task or the data:
    what one of its jobs does not read another may. A sweep whose words are not there counts as one.
    """
    file = folder / "multirun.yaml"
    if not file.is_file():
        return True
    words = OmegaConf.select(OmegaConf.load(file), "hydra.overrides.task") or []
    swept = [override for override in map(parse, words) if override.is_sweep_override()]
    return not swept or any(
        is_choice(override) or re.match(r"(checkpoint|task|data)\b", override.key_or_group) for override in swept
    )


def parse(word: str) -> Override:
    """Returns a word as Hydra's parser reads it."""
    return OverridesParser.create().parse_override(word)


def is_choice(override: Override) -> bool:
    """Returns whether a word chooses a part, ``sampler=em``, and sets no key."""
    return bool(choices_in(override.key_or_group))


def refuse(typed: Typed, cfg: dict, choices: dict[str, str], task: Task, data: Data) -> None:
    """Refuses the keys that decide nothing in this run.

    Mentions in the log, and does not refuse, a whole part (``sampler=em``), which a command line keeps when another
    task is chosen, and the keys of a sweep over parts, which other jobs may read.

    Arguments:
        cfg: the settled configuration.
        choices: the choice of each group.

    Raises:
        ValueError: names the keys, why they decide nothing here, and the keys that do.
    """
    unread, refused = unread_parts(typed.written, cfg, choices, task, data), []
    for word in typed.words:
        override = parse(word)
        key = (override.package or override.key_or_group).replace("/", ".")
        whole = is_choice(override) and key in GROUPS
        found = None if override.is_delete() else reason(key, typed.written, cfg, unread, data)
        if found is None:
            continue
        # a part is put at another place in more ways than one (docs/commands.md)
        value = "=..." if is_choice(override) else "=" + word.partition("=")[2]
        message = f"{word} decides nothing in this run: {found.replace('=VALUE', value)}"
        if whole or typed.shared:
            log.info("%s", message)
        else:
            refused.append(message)
    if refused:
        raise ValueError("\n".join(refused))


def reason(key: str, written: dict, cfg: dict, unread: dict[str, str | None], data: Data) -> str | None:
    """Returns why a key decides nothing, and what to type instead, with VALUE for the value; None for a key that does.

    Arguments:
        unread: see :func:`unread_parts`.
    """
    words = key.split(".")
    # the longest part that has the key decides
    place = max((place for place in unread if f"{key}.".startswith(f"{place}.")), key=len, default=None)
    if place is not None and unread[place] is not None:
        others = others_of("training.seed" if key == "seed" else key, written, cfg)
        if key == "seed" and "training" not in unread:
            others = ["training.seed"]
        remedy = f"type {' or '.join(f'{other}=VALUE' for other in others)}, or " if others else ""
        return f"{unread[place]}; {remedy}leave it out"
    kind = "vectors" if len(data.shape) == 1 else "images"
    typed, settled = written, cfg
    for i, word in enumerate(words):
        if isinstance(typed, dict) and set(typed) >= KINDS and word in KINDS:
            if word != kind:
                other = ".".join([*words[:i], kind, *words[i + 1 :]])
                return f"the data are {kind}; type {other}=VALUE, or leave it out"
            typed = typed[word]
            continue
        if found := without_effect(word, settled, ".".join(words[:i])):
            return found
        typed = typed.get(word) if isinstance(typed, dict) else None
        settled = settled.get(word) if isinstance(settled, dict) else None
    return None


def without_effect(name: str, node: Any, key: str) -> str | None:
    """Returns why a node does not read one of its keys with the value that another has (its class's ``only_with``);
    None if it does.

    Arguments:
        key: the node's place.
    """
    if not isinstance(node, dict) or "_target_" not in node:
        return None
    other, values = getattr(schema.locate(node["_target_"], key), "only_with", {}).get(name, (None, ()))
    if other is None or other not in node or node[other] in values:
        return None
    shown = " or ".join(f"{key}.{other}={schema.show(value)}" for value in values[:3])
    return f"{key}.{other}={schema.show(node[other])} does without it; type {shown}, or leave it out"


def unread_parts(written: dict, cfg: dict, choices: dict[str, str], task: Task, data: Data) -> dict[str, str | None]:
    """Returns the parts and keys of the root that the run does not read, each with the reason; with None the parts of
    such a part that it does read.
    """
    title, read = f"task={choices['task']}", set(references(written))
    unread = unread_for_networks(cfg, choices, task, data)
    # what a part names is read, whoever else does not
    unread |= {key: None for key in read if any(f"{key}.".startswith(f"{place}.") for place in unread)}
    for key in BY_REFERENCE:
        if not any(f"{found}.".startswith(f"{key}.") for found in read):
            unread[key] = f"{title} reads no {key}{tasks_that_read(key)}"
        elif found := without_effect(key, cfg["task"], "task"):
            unread[key] = found.removesuffix(", or leave it out")
    return unread


def unread_for_networks(cfg: dict, choices: dict[str, str], task: Task, data: Data) -> dict[str, str | None]:
    """Returns what the run does not read since it needs no network, or none that is trained; see
    :func:`unread_parts`.
    """
    title, requested, checkpoint = f"task={choices['task']}", set(task.requests), cfg["checkpoint"]
    scored, exact = "score" in requested, compatibility.is_exact(cfg) and not checkpoint
    model, no_score = f"model={choices['model']}", f"{title} asks for no score of the run's own"
    unread: dict[str, str | None] = {}
    if not scored:
        unread["guidance"] = no_score
        if "rivals" not in requested:
            unread |= {"model": no_score, "parameterisation": no_score}
    elif exact:
        unread["parameterisation"] = f"{model} is exact, and is no network that predicts something"
    if not requested & NETWORKS:
        unread["checkpoint"] = f"{title} asks for no network here"
    if not requested & (NETWORKS - {"models"} | {"other"}):
        unread["sde"] = no_score
    # a score that is exact has an exact classifier
    classifies = "classifier" in requested or bool(cfg.get("classifier")) and scored and not compatibility.is_exact(cfg)
    if cfg.get("classifier") and not classifies:
        unread["classifier"] = f"{model} is exact, and so is its classifier" if scored else no_score
    # what trains them
    trained, no_loss = "score" in requested and not exact and not checkpoint, "a classifier is trained by cross-entropy"
    if trained and is_blind(cfg, data):
        unread["training.drop"] = "the network takes no y that could be withheld (data.condition=)"
    elif classifies and not trained and not (checkpoint and not scored):
        unread |= {"training.loss": no_loss, "training.drop": no_loss}
    elif not trained:
        unread["training"] = (
            f"checkpoint={checkpoint} is trained, and only without it would a network be"
            if checkpoint and requested & {"score", "classifier"}
            else f"{model} is exact and is not trained"
            if scored
            else f"{title} trains networks of its own only"
            if requested & {"rivals", "models"}
            else f"{title} trains no network here"
        )
    if checkpoint and is_foreign(checkpoint):
        unread["training.drop"] = None  # it says whether the network has learnt p(x) too
    return unread


def references(node: Any) -> Iterator[str]:
    """Yields the keys that a configuration names by interpolations, ``sampler`` for ``${sampler}``."""
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from references(value)
    elif isinstance(node, str):
        yield from re.findall(r"\$\{(\w[\w.]*)\}", node)


def tasks_that_read(key: str) -> str:
    """Returns in words which tasks read a part that few tasks read; an empty string for parts that many read."""
    files = sorted((Path(__file__).parent / "task").glob("*.yaml"))
    names = [f"task={file.stem}" for file in files if f"${{{key}}}" in file.read_text()]
    return f", which {' and '.join(names)} do" if 0 < len(names) <= 3 else ""


def others_of(key: str, written: dict, cfg: dict) -> list[str]:
    """Returns the keys, three at most, that decide for the task's own parts what ``key`` decides for the run's:
    ``task.trainers.clean.steps`` for ``training.steps``.
    """
    group, *rest = [word for word in key.split(".") if word not in KINDS]
    target = str(cfg[group].get("_target_")) if rest and isinstance(cfg.get(group), dict) else ""
    package, found = target.partition(".")[0], []

    def walk(node: Any, typed: Any, place: str) -> None:
        if not isinstance(node, dict) or isinstance(typed, str):  # a node that is named is another part's
            return
        same = str(node.get("_target_")).partition(".")[0] == package and node.get("_target_") != "training.Recipe"
        if same and holds(node, rest):
            found.append(".".join([place, *rest]))
            return
        for name, value in node.items():
            walk(value, typed.get(name) if isinstance(typed, dict) else None, f"{place}.{name}")

    if package:
        walk(cfg["task"], written["task"], "task")
    return found[:3]


def holds(node: Any, words: list[str]) -> bool:
    """Returns whether a node has a key at these words."""
    for word in words:
        if not isinstance(node, dict) or word not in node:
            return False
        node = node[word]
    return True
