"""Words of a command line that Hydra refuses: one message that says what was meant. Hydra's own advises to append
the key.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def explained(words: list[str], error: Exception) -> str:
    """Returns what is wrong with the words of a command line, and what to type.

    Arguments:
        words: as they were given to Hydra.
        error: the exception by which Hydra refused them.
    """
    GlobalHydra.instance().clear()  # the state of the call that failed
    with hydra.initialize_config_module("scoresde.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        words = [word for word in words if not word.startswith("-")]
        checked = Words(words, loader, str(error))
        found = next(filter(None, map(checked.mistake, words)), None)
    return found or bare(error)


def bare(error: Exception) -> str:
    """Returns Hydra's own message in a line, without its advice to append a key."""
    lines = [*str(error).splitlines(), *(str(error.__cause__).splitlines() if error.__cause__ else [])]
    said = [
        line.strip() for line in lines if line.strip() and not re.search(r"append|full_key|object_type|https?:", line)
    ]
    return " ".join(said) or type(error).__name__


class Words:
    """The words of a command line, compared with the groups, choices and keys that there are.

    Arguments:
        words: KEY=VALUE and GROUP=CHOICE, without flags.
        loader: Hydra's, which lists the groups.
        said: Hydra's own message.
    """

    def __init__(self, words: list[str], loader: ConfigLoader, said: str):
        self.words, self.loader, self.said = words, loader, said
        self.parser = OverridesParser.create()
        self.groups = [*groups_below(loader, ""), *groups_below(loader, "hydra")]

    def mistake(self, word: str) -> str | None:
        """Returns what is wrong with a word, and what to type; None if nothing is."""
        try:
            override = self.parser.parse_override(word)
        except HydraException:
            return self.no_value(word) if f"parsing override '{word}'" in self.said and "=" not in word else None
        key = override.key_or_group
        if key in self.groups:
            return self.wrong_choice(word, override)
        sign, _, typed = word.partition(key)
        if "/" in key or "@" in word.partition("=")[0]:
            near = get_close_matches(key, self.groups, 1)
            return f"{word}: there is no group {key}" + (
                f"; did you mean {sign}{near[0]}{typed}?" if near else f"; the groups are {listed(self.own_groups)}"
            )
        return self.wrong_key(word, override, (sign, typed))

    @property
    def own_groups(self) -> list[str]:
        return [group for group in self.groups if "/" not in group and group != "hydra"]

    def no_value(self, word: str) -> str:
        """Returns the message for a word without ``=``."""
        near = [f"{group}={word}" for group in self.own_groups if word in self.choices(group)]
        return f"{word} is neither GROUP=CHOICE nor KEY=VALUE; " + (
            f"did you mean {' or '.join(near)}?"
            if near
            else "type for example sampler=ode or count=100, without blanks"
        )

    def choices(self, group: str) -> list[str]:
        return sorted(self.loader.get_group_options(group, ObjectType.CONFIG))

    def wrong_choice(self, word: str, override: Override) -> str | None:
        """Returns what is wrong with the choice of a group: its name, or that this run has no such part."""
        key, value = override.key_or_group, override.value()
        if override.is_choice_sweep():
            chosen = [text.strip("'\"") for text in override.sweep_string_iterator()]
        else:
            chosen = [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]
        for choice in chosen:
            folder, _, name = f"{key}/{choice}".rpartition("/")
            there = self.choices(folder)
            if name not in there and not override.is_delete():
                group = folder if there else key
                start = group.removeprefix(key).strip("/")
                near = get_close_matches(name if there else choice, self.choices(group), 1)
                meant = "/".join(filter(None, [start, *near]))
                typed = word.partition("=")[0]
                return (
                    f"{typed}={choice}: {key} has no such choice"
                    + (f"; did you mean {typed}={meant}?" if near else ".")
                    + f" There are {listed(self.choices(group))}"
                )
        if "/" in key and f"Could not override '{key}" in self.said:
            parent, _, part = key.rpartition("/")
            return f"{word}: the {parent} of this run has no {part} to choose; leave it out, or choose another {parent}"
        return None

    def wrong_key(self, word: str, override: Override, rest: tuple[str, str]) -> str | None:
        """Returns what is wrong with a key: that it does not exist, or that it is there already and has a plus.

        Arguments:
            rest: what stands before and after the key in the word.
        """
        node, parts = self.composed(), override.key_or_group.split(".")
        for i, part in enumerate(parts):
            place = ".".join(parts[:i])
            if not isinstance(node, DictConfig):
                return f"{word}: {place} is a value and has no keys; leave it out"
            if part not in node:
                if override.is_add() or override.is_force_add():
                    return None
                return f"{word}: {self.near(node, parts, i, *rest)}"
            child = node._get_node(part)  # not its value, which an interpolation may not have
            node = child if isinstance(child, DictConfig) and not child._is_interpolation() else None
        if override.is_add():
            return f"{word}: there is such a key already; type {word[1:]}"
        return None

    def near(self, node: DictConfig, parts: list[str], i: int, sign: str, typed: str) -> str:
        """Returns that a node has no key ``parts[i]``, and the nearest that it has."""
        place, part = ".".join(parts[:i]), parts[i]
        names = [str(name) for name in node if name != "_target_"]
        names += [] if place else [group for group in self.own_groups if group not in names]
        if part in names and part not in node:
            return f"there is no {part} in this run; choose one as well, with {part}=NAME"
        fault = f"{place} has no key {part}" if place else f"there is no key or group {part}"
        if not place:
            below = [
                f"{name}.{part}" for name in names if isinstance(node.get(name), DictConfig) and part in node[name]
            ]
            if below := [key for key in below if key.split(".")[0] not in ("task", "hydra")]:
                return f"{fault}; did you mean {' or '.join(sign + key + typed for key in below[:4])}?"
        if near := get_close_matches(part, names, 1):
            return f"{fault}; did you mean {sign}{'.'.join([*parts[:i], near[0], *parts[i + 1 :]])}{typed}?"
        return f"{fault}; " + (f"there are {listed(names)}" if names else "leave it out")

    def composed(self) -> DictConfig:
        """Returns the configuration of the words that choose parts, the first value of each list; without one
        of these words, or without all, where they cannot be composed.
        """
        chosen = []
        for word in self.words:
            try:
                override = self.parser.parse_override(word)
            except HydraException:
                continue
            if override.key_or_group in self.groups and not self.wrong_choice(word, override):
                value = next(iter(override.sweep_string_iterator())) if override.is_choice_sweep() else None
                chosen.append(word if value is None else f"{word.partition('=')[0]}={value}")
        without_one = [chosen[:i] + chosen[i + 1 :] for i in range(len(chosen))]
        for words in (chosen, *without_one, []):
            try:
                return hydra.compose("config", overrides=words, return_hydra_config=True)
            except (HydraException, OmegaConfBaseException):
                continue
        return OmegaConf.create()


def groups_below(loader: ConfigLoader, parent: str) -> Iterator[str]:
    """Yields the groups of a configuration, ``sampler`` and ``sampler/grid``, those of Hydra only below ``hydra``."""
    for name in loader.get_group_options(parent, ObjectType.GROUP):
        group = f"{parent}/{name}" if parent else name
        if name not in ("hydra", "__pycache__"):
            yield group
            yield from groups_below(loader, group)


def listed(names: list[Any]) -> str:
    """Returns names in a row."""
    return ", ".join(map(str, names))
