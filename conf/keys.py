"""The keys of a configuration: its groups, the keys of its root, and how a user types the key of a part."""

import re
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

AUTO = "auto"  # the value that waits for the data
KINDS = {"vectors", "images"}  # the two nodes that a group's choice ``auto`` holds; the data's shape picks one

GROUPS = {
    "data": ("scoresde.data.Data",),
    "sde": ("scoresde.sde_lib.SDE", "scoresde.sde_lib.BinaryChain"),
    "model": ("torch.nn.Module",),
    "classifier": ("torch.nn.Module",),
    "parameterisation": ("scoresde.models.Parameterisation",),
    "training": ("scoresde.training.Trainer",),
    "likelihood": ("scoresde.likelihood.Likelihood",),
    "dequantisation": ("scoresde.likelihood.Dequantisation",),
    "sampler": ("scoresde.samplers.Sampler",),
    "operator": ("scoresde.samplers.Operator",),
    "conditioner": ("scoresde.samplers.Conditioner",),
    "task": ("scoresde.tasks.Task",),
    "logger": (),
}
"""The groups, and the kind of each: the classes of which a group's ``_target_`` must be a subclass. The logger's node
names no class. Kinds are written as words, since the command line reads this table before it imports torch.
"""

ROOT = {
    "count": int | None,
    "points": str | None,
    "condition": int | float | str | list | dict | None,
    "guidance": float,
    "seed": int,
    "device": Literal["auto", "cpu", "cuda", "mps"],
    "dtype": Literal["float32", "float64"],
    "threads": int | None,
    "store": str,
    "checkpoint": str | None,
}


def choices_in(group: str) -> list[str]:
    """Returns the choices of a group, ``sampler`` or ``sampler/grid``, in order; an empty list if there is no such
    group.
    """
    folder = Path(__file__).parent / group
    return sorted(path.stem for path in folder.glob("*.yaml")) if re.fullmatch(r"\w+(/\w+)*", group) else []


BOUNDS = {  # of the root's numbers: the least, the most, and what to type instead
    "count": (1, 10**8, "leave it out for the default"),  # samples are held in memory
    "threads": (1, 1024, "leave it out for the default"),
    "guidance": (0, 1000, "type guidance=1 for p(x | y) as it is"),
    "seed": (-(2**63), 2**63 - 1, "type seed=0"),
}


@contextmanager
def full_keys(
    key: str, typed: Mapping[str, str] = MappingProxyType({}), names: Container[str] | None = None
) -> Iterator[None]:
    """Puts a node's key before the keys of its own that a ValueError or an OSError names.

    A class knows its own keys, and not where it stands in a configuration: its messages write them in backticks,
    ```steps`=0 must be at least 1``, which becomes ``sampler.steps=0 must be at least 1``. Keys of other classes stand
    in a message in full and without backticks, and stay as they are.

    Arguments:
        key: the node's place in the configuration, ``sampler``.
        typed: for places that a user reaches by another key, that key; see :func:`typed_keys`.
        names: the node's own keys. Other words in backticks, such as a user's text, are left as they are. None takes
            every word in backticks that is an identifier for a key.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        message = str(error)
        if "`" not in message or len(error.args) != 1:
            raise
        start, *parts = message.split("`")
        while parts:
            word, *parts = parts
            first = word.split(".")[0]
            if parts and first.isidentifier() and (names is None or first in names):
                start += as_typed(f"{key}.{word}", typed) + parts.pop(0)
            else:
                start += f"`{word}"
        raise type(error)(start) from None


def as_typed(key: str, typed: Mapping[str, str]) -> str:
    """Returns the key that a user types for a place in the configuration; see :func:`typed_keys`."""
    for place in sorted(typed, key=len, reverse=True):
        if key == place or key.startswith(f"{place}."):
            return typed[place] + key[len(place) :]
    return key


def typed_keys(cfg: dict, shape: tuple[int, ...]) -> dict[str, str]:
    """Returns the keys that a user types, by places in a settled configuration; other places are typed as they are.

    ``training`` is ``training.vectors`` where ``training=auto`` chose by the shape of the data. ``task.sampler`` and
    ``task.count`` are ``sampler`` and ``count`` where the task has the run's own.

    Arguments:
        cfg: before it is settled.
        shape: of one example.
    """
    kind = "vectors" if len(shape) == 1 else "images"
    typed: dict[str, str] = {}

    def walk(node: Any, key: str) -> None:
        if not isinstance(node, dict):
            return
        if set(node) >= KINDS:
            typed[key] = f"{key}.{kind}"
            shared = {name: value for name, value in node.items() if name not in KINDS}
            # a key of both kinds is typed as it is: without this entry it would get the kind as well
            typed.update({f"{key}.{name}": f"{key}.{name}" for name in shared})
            node = node[kind] | shared
        for name, value in node.items():
            walk(value, f"{key}.{name}" if key else name)

    walk(cfg, "")
    task = cfg["task"]
    typed.update({f"task.{key}": key for key in ROOT if key in task and task[key] == cfg.get(key)})
    for key, node in task.items():  # of the run's own parts, by their own name or another, as ``later`` of task=train
        for group in (key,) if key in GROUPS else GROUPS:
            if group != "task" and isinstance(node, dict) and node and node == cfg.get(group):
                typed[f"task.{key}"] = typed.get(group, group)
    return typed
