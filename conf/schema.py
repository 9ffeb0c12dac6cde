"""Builds objects from yaml: a node with a ``_target_`` is a constructor call, checked before anything is built.

``check`` compares each value with its constructor's annotation, so that the class is the schema. ``settle`` puts values
in the place of ``auto``, ``canonical`` gives equal values one form, and ``build`` makes the object. Only classes of
this project can be targets, in a group those of its kind (:data:`scoresde.conf.keys.GROUPS`), and below it those that
the constructor's annotation allows: a configuration of somebody else's can build nothing else.
"""

import importlib
import inspect
import math
import types
import typing
from collections import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Union

from .keys import AUTO, BOUNDS, GROUPS, KINDS, ROOT, full_keys

PACKAGES = ("sde_lib", "data", "models", "training", "samplers", "likelihood", "metrics", "latent", "tasks")
"""The packages of ``scoresde`` whose classes can be targets. A ``_target_`` leaves the ``scoresde.`` out."""

SHARED_KEYS = {"data": {"condition": str | int | list[str | int] | None}}
"""Keys that every choice of a group has, and that no constructor takes: conf/assemble.py reads them."""


def locate(target: Any, key: str) -> type:
    """Returns the class that a ``_target_`` names, ``sde_lib.VP`` or ``scoresde.sde_lib.VP``.

    Arguments:
        key: the node's place in the configuration, for messages.

    Raises:
        ValueError: there is no such class in ``PACKAGES``.
    """
    package, _, name = str(target).removeprefix("scoresde.").rpartition(".")
    if package.split(".")[0] not in PACKAGES:
        raise ValueError(
            f"{key}._target_={target} is not a class of this project; targets lie in {', '.join(PACKAGES)}"
        )
    try:
        found = getattr(importlib.import_module(f"scoresde.{package}"), name)
    except (ImportError, AttributeError):
        raise ValueError(f"{key}._target_={target} does not exist") from None
    if not isinstance(found, type) or not found.__module__.startswith("scoresde."):  # others that a module imports
        raise ValueError(f"{key}._target_={target} is not a class of this project")
    return found


def kind_of(key: str) -> Any:
    """Returns the annotation of a group's node, which says what class may stand there; Any for other places."""
    kinds = [name.rpartition(".") for name in GROUPS.get(key, ())]
    found = tuple(getattr(importlib.import_module(module), name) for module, _, name in kinds)
    return Union[found] if found else Any  # noqa: UP007 (of as many as there are)


def with_short_targets(node: Any) -> Any:
    """Returns the node with ``sde_lib.VP`` for ``scoresde.sde_lib.VP``, so that a class has one name in cache keys."""
    if isinstance(node, dict):
        short = {name: with_short_targets(value) for name, value in node.items()}
        return short | ({"_target_": str(node["_target_"]).removeprefix("scoresde.")} if "_target_" in node else {})
    return [with_short_targets(value) for value in node] if isinstance(node, list) else node


def build(node: Any, key: str, typed: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Returns the object of a node: nested nodes first, then the constructor with the node's other keys as arguments.

    Arguments:
        key: the node's place in the configuration.
        typed: for places that a user reaches by another key, that key; see :func:`scoresde.conf.keys.typed_keys`.

    Raises:
        ValueError, OSError: those of the constructor, with its keys in full; see
            :func:`scoresde.conf.keys.full_keys`.
    """
    if isinstance(node, dict) and "_target_" in node:
        names = node.keys() - {"_target_"} - SHARED_KEYS.get(key, {}).keys()
        arguments = {name: build(node[name], f"{key}.{name}", typed) for name in node if name in names}
        target = locate(node["_target_"], key)
        with full_keys(key, typed, inspect.signature(target).parameters):
            return target(**arguments)
    if isinstance(node, dict):
        return {name: build(value, f"{key}.{name}", typed) for name, value in node.items()}
    if isinstance(node, list):
        return [build(value, f"{key}.{i}", typed) for i, value in enumerate(node)]
    return node


def check_root(cfg: dict) -> None:
    """Checks the keys that belong to no group; raises a ValueError for one that is unknown or does not fit."""
    for key in cfg:
        if key == "classifier" and not cfg[key]:
            continue
        if key not in ROOT and key not in GROUPS:
            raise ValueError(f"{key} is not a key of the configuration; the keys are {', '.join([*ROOT, *GROUPS])}")
    for key in ("points", "store", "checkpoint"):
        if cfg[key] == "":
            raise ValueError(f"{key}= is empty; type {key}=PATH, or leave it out")
    if cfg["points"] and cfg["task"].get("points") != cfg["points"]:
        raise ValueError(
            f"points={cfg['points']}: this task reads none; type task=likelihood to score them, task=encode or "
            f"task=interpolate to encode them, task=impute to fill in their NaNs, or leave them out"
        )
    for key, hint in ROOT.items():
        check_value(cfg[key], hint, key)
    for key, (least, most, remedy) in BOUNDS.items():
        if cfg[key] is not None and cfg[key] < least:
            raise ValueError(f"{key}={cfg[key]} must be at least {least}; {remedy}")
        if cfg[key] is not None and cfg[key] > most:
            raise ValueError(f"{key}={cfg[key]} must be at most {most}; {remedy}")


def check(node: dict, key: str, unsettled: bool = False, whole: bool = True) -> None:
    """Compares the class of a node with its group's kind, and every value with its constructor's annotation.

    Arguments:
        key: the node's place in the configuration.
        unsettled: True before :func:`settle`: ``auto`` may stand for a value, and a node of ``vectors`` and ``images``
            for one of the two.
        whole: False for a node that is not built, in which keys may be missing.

    Raises:
        ValueError: a class is of another kind, a key is unknown or missing, or its value does not fit; names the key,
            the value and what fits.
    """
    if unsettled and set(node) >= KINDS:
        shared = {name: value for name, value in node.items() if name not in KINDS}
        for name, value in shared.items():
            if not isinstance(value, dict):
                raise ValueError(
                    f"{key}.{name}: the data's shape decides; type {key}.vectors.{name}= or {key}.images.{name}="
                )
        for kind in KINDS:
            check_class(node[kind].get("_target_"), kind_of(key), f"{key}.{kind}")
            check(node[kind] | shared, f"{key}.{kind}", unsettled, whole)
        return
    target = check_class(node.get("_target_"), kind_of(key), key)
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__)
    for name, value in node.items():
        if name == "_target_":
            continue
        if name in SHARED_KEYS.get(key, {}):
            check_value(value, SHARED_KEYS[key][name], f"{key}.{name}")
            continue
        if name not in parameters:
            keys = f"its keys are {', '.join(parameters)}" if parameters else "it has none"
            raise ValueError(
                f"{key}.{name} is not a key of {target.__name__}; {keys}; leave it out, with ~{key}.{name} where an "
                f"experiment brings it"
            )
        check_value(value, hints.get(name, Any), f"{key}.{name}", unsettled, whole)
    for name, parameter in parameters.items():
        if whole and parameter.default is parameter.empty and name not in node:
            raise ValueError(f"{key}.{name} is missing; {target.__name__} needs it")


def check_class(target: Any, hint: Any, key: str) -> type:
    """Returns the class that a ``_target_`` names.

    Raises:
        ValueError: there is no such class, it does not fit the annotation, or it is abstract.
    """
    found, node = locate(target, key), {"_target_": target}
    if not fits(node, hint):
        raise ValueError(f"{key}={show(node)} must be {describe(hint)}")
    if inspect.isabstract(found):
        raise ValueError(f"{key}._target_={target} is what its kinds have in common; choose one of them")
    return found


def check_value(value: Any, hint: Any, key: str, unsettled: bool = False, whole: bool = True) -> None:
    """Raises a ValueError for a value that does not fit an annotation; arguments as in :func:`check`.

    A node may stand only where an annotation names its class: there is none for the values of a plain dict or list.
    """
    if unsettled and (value == AUTO or isinstance(value, dict) and set(value) >= KINDS):
        return
    if isinstance(value, dict) and "_target_" in value:
        if hint is Any:
            raise ValueError(f"{key}={show(value)}: no class can stand here; leave it out")
        check_class(value["_target_"], hint, key)
        check(value, key, unsettled, whole)
        return
    by_name = typing.get_origin(hint) is dict
    if isinstance(value, dict) and not by_name and not fits(value, hint):  # keys of a nested group that is null here
        group = key.replace(".", "/")
        raise ValueError(
            f"{', '.join(f'{key}.{name}' for name in value)}: there is no {group} here to have it; choose one as well, "
            f"with {group}=NAME"
        )
    if not fits(value, hint):
        raise ValueError(f"{key}={show(value)} must be {describe(hint)}")
    if isinstance(value, dict):
        for name, item in value.items():
            check_value(item, typing.get_args(hint)[1] if by_name else Any, f"{key}.{name}", unsettled, whole)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            if isinstance(item, dict | list | tuple):
                check_value(item, hints_of(hint, len(value))[i], f"{key}.{i}", unsettled, whole)


def fits(value: Any, hint: Any) -> bool:
    """Returns whether a value fits an annotation. A whole number fits a float; a bool fits no number, and NaN and
    infinity fit no float.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in arguments)
    if origin is Literal:
        return value in arguments and not isinstance(value, bool)
    if origin in (list, tuple):
        fixed = origin is tuple and arguments[-1:] != (...,)
        if not isinstance(value, list | tuple) or (fixed and len(value) != len(arguments)):
            return False
        return all(fits(item, wanted) for item, wanted in zip(value, hints_of(hint, len(value)), strict=True))
    if origin is dict:
        return isinstance(value, dict) and "_target_" not in value
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, dict) and hint is not dict:
        return "_target_" in value and isinstance(hint, type) and issubclass(locate(value["_target_"], "node"), hint)
    return isinstance(hint, type) and isinstance(value, hint)


def hints_of(hint: Any, count: int) -> tuple:
    """Returns the annotation of each of ``count`` values of a list or tuple; in a union, by its first list or tuple."""
    for part in typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,):
        origin, arguments = typing.get_origin(part), typing.get_args(part)
        if origin in (list, tuple) and arguments:
            fixed = origin is tuple and arguments[-1:] != (...,)
            return arguments if fixed and len(arguments) == count else arguments[:1] * count
    return (Any,) * count


def describe(hint: Any) -> str:
    """Returns an annotation in words, for messages."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(part) for part in arguments if typing.get_origin(part) is not abc.Callable)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (list, tuple):
        if origin is tuple and arguments[-1:] != (...,):
            return f"a list of {len(arguments)} values, each {describe(arguments[0])}"
        return f"a list, each value {describe(arguments[0])}" if arguments else "a list"
    if origin is dict:
        return f"names, each with {describe(arguments[1])}"
    names = {
        int: "a whole number",
        float: "a finite number",
        str: "a word",
        bool: "true or false",
        type(None): "null",
        dict: "a group of keys",
    }
    classes = {"SDE": "an SDE", "Data": "a data set", "Module": "a network", "Recipe": "a recipe"}
    name = getattr(hint, "__name__", hint)
    return names.get(hint) or classes.get(name) or f"a {name}"


def show(value: Any) -> str:
    """Returns a value as a user types it; of a node only its ``_target_``."""
    return (
        "null"
        if value is None
        else f"{{_target_: {value['_target_']}}}"
        if isinstance(value, dict) and "_target_" in value
        else str(value)
    )


def canonical(node: Any, hint: Any = Any) -> Any:
    """Returns the node with floats for whole numbers where its constructors take a float and no int: 50 and 50.0 are
    one value. A dict of nodes by name, such as ``task.models``, is returned as it is.
    """
    if isinstance(node, dict) and "_target_" in node:
        hints = typing.get_type_hints(locate(node["_target_"], "node").__init__)
        return {name: canonical(value, hints.get(name, Any)) for name, value in node.items()}
    arguments = typing.get_args(hint)
    if isinstance(node, list):
        return [canonical(value, wanted) for value, wanted in zip(node, hints_of(hint, len(node)), strict=True)]
    number = isinstance(node, int) and not isinstance(node, bool)
    return float(node) if number and (hint is float or float in arguments and int not in arguments) else node


def settle(cfg: dict, shape: tuple[int, ...], values: dict[str, Any]) -> dict:
    """Returns the configuration with everything that waited for the data filled in.

    A group's choice ``auto`` holds two choices, ``vectors`` and ``images``: the data's shape picks one. A value
    ``auto`` is looked up in ``values`` by the last word of its key, then by the last two. It stays if neither is there.

    Arguments:
        shape: the shape of one example.
        values: what ``auto`` stands for, by ``last`` or ``levels.count``: a value, or a function without arguments that
            returns the value.
    """
    kind = "vectors" if len(shape) == 1 else "images"

    def fill(node: Any, key: str) -> Any:
        if isinstance(node, dict):
            if set(node) >= KINDS:  # the chosen node, and the keys that both have in common, such as training.loss
                return fill(node[kind] | {name: value for name, value in node.items() if name not in KINDS}, key)
            return {name: fill(value, f"{key}.{name}") for name, value in node.items()}
        if isinstance(node, list):
            return [fill(value, key) for value in node]
        if node == AUTO:
            for words in (1, 2):
                name = ".".join(key.split(".")[-words:])
                if name in values:
                    return values[name]() if callable(values[name]) else values[name]
        return node

    return fill(cfg, "")
