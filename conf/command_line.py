"""Prepares the words of a command line for Hydra: quotes paths and names, and refuses words that Hydra would misread.

Hydra reads the value of ``key=value`` by a grammar of its own: blanks are trimmed, ``(``, ``[``, ``{``, ``=``, ``#``,
``'`` and letters outside ASCII are errors within a word, a comma asks for a sweep, and ``~`` is not the home folder. A
path may hold all of them. A path that Hydra would misread is therefore put in Hydra's quotes, which take every
character as it is, except ``${`` and a backslash before a quote. :mod:`scoresde.cli` calls :func:`readable` before it
calls Hydra.
"""

import os
import re
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

SUFFIXES = (".npy", ".npz", ".csv", ".parquet", ".pth", ".safetensors", ".ckpt", ".pt", ".bin", ".png", ".jpg", ".tif")

PATHS = ("store", "checkpoint", "points", "hydra.run.dir", "hydra.sweep.dir", "task.other", "task.samples", "task.fid")
"""Keys that hold a path; every other one ends in ``.path``."""

FORMER = {
    "data.layout": "data.axes names all axes of the file in their order: type data.axes=nhwc for data.layout=hwc, "
    "data.axes=nchw for data.layout=chw"
}
"""Keys that are replaced by others, and what to type instead."""

COLUMNS = ("data.labels", "data.key", "data.condition")
"""Keys that name columns, for which 400.5, 1e5 and true are words."""

NAMING = ("condition", *COLUMNS)
"""Keys that name labels or columns, for which Hydra's 1_11 is the word 1_11 and not the number 111."""


def readable(words: list[str]) -> list[str]:
    """Returns the words, with paths, labels such as 1_11 and names of columns in quotes where Hydra would misread them,
    and with a ``~/`` at the start of a value expanded.

    Arguments:
        words: the command line without the program.

    Raises:
        ValueError: a word cannot be parsed, asks for a sweep without ``--multirun``, lacks ``vectors`` or ``images`` in
            its key, has null or nothing for a group's choice, or has a key that was replaced. The message names the
            word, the reason and what to type.
    """
    refuse_null_choices(words)
    refuse_keys_of_two_shapes(words)
    parser = OverridesParser.create()
    sweeps = any(word == "-m" or word.startswith(("--mu", "hydra.mode=")) for word in words)
    return [readable_word(word, parser, sweeps) for word in words]


def refuse_null_choices(words: list[str]) -> None:
    """Raises a ValueError for a group's choice that is null or missing; Hydra ends in a traceback, or does not say what
    to type.
    """
    for word in words:
        group, equals, choice = word.partition("=")
        if choice in ("null", "") and group and (Path(__file__).parent / group.partition("@")[0]).is_dir():
            if not equals or not choice:
                raise ValueError(f"{word}: a choice is missing; type {group}=NAME, without blanks")
            raise ValueError(f"{word}: {group} cannot be null; type ~{group} to leave it out")


def refuse_keys_of_two_shapes(words: list[str]) -> None:
    """Raises a ValueError for a key such as ``training.steps`` where ``training.vectors.steps`` and
    ``training.images.steps`` stand for it.

    Hydra would advise ``+training.steps``, which is no key either. With ``experiment=`` nothing is refused, since an
    experiment may choose any group.
    """
    conf, chosen = Path(__file__).parent, dict(word.split("=", 1) for word in words if "=" in word)
    file = conf / "data" / f"{chosen.get('data', 'digits')}.yaml"
    if "experiment" in chosen or not file.is_file():
        return
    # the groups whose choice is ``auto`` unless the command line chooses another
    root, own = choices_of(conf / "config.yaml"), choices_of(file)
    by_default = {group.split("@")[0] for group, choice in (root | own).items() if choice == "auto"}
    fixed = [tuple(group.split("/")) for group in root if "/" in group]  # training.loss has one place for both
    for word in words:
        key, equals, value = word.partition("=")
        group, _, rest = key.partition(".")
        auto = conf / group / "auto.yaml"
        is_auto = chosen.get(group, "auto" if group in by_default else None) == "auto"
        if not (equals and rest and is_auto and re.fullmatch(r"\w+", group) and auto.is_file()):
            continue
        first = rest.split(".")[0]
        places = {str(entry).partition("@")[2] for entry in defaults_of(auto)}
        if first in ("vectors", "images") or (group, first) in fixed or "vectors" not in places:
            continue
        raise ValueError(
            f"{word}: {group}=auto has its keys twice, and the data's shape chooses; type "
            f"{group}.vectors.{rest}={value} for vectors, {group}.images.{rest}={value} for images"
        )


def defaults_of(file: Path) -> list[str | dict[str, str | None]]:
    """Returns the defaults list of a configuration file."""
    return (yaml.safe_load(file.read_text()) or {}).get("defaults", [])


def choices_of(file: Path) -> dict[str, str | None]:
    """Returns the choices that a configuration file makes, by group."""
    chosen = (entry for entry in defaults_of(file) if isinstance(entry, dict))
    return {key.removeprefix("override /"): choice for entry in chosen for key, choice in entry.items()}


def readable_word(word: str, parser: OverridesParser, sweeps: bool) -> str:
    """Returns one word as :func:`readable` does; ``sweeps`` is True if the command line may ask for a sweep."""
    key, equals, value = word.partition("=")
    if key.lstrip("+~") in FORMER:
        raise ValueError(f"{word}: this key is replaced, {FORMER[key.lstrip('+~')]}")
    if not equals or word.startswith("-") or not value:
        return word
    if is_a_word(key, value, parser):
        return f"{key}={quoted(value)}"
    if sweeps and (each := swept(key, value, parser)):
        return each
    # a path
    home = value == "~" or value.startswith(("~/", "~\\"))
    path = os.path.expanduser(value) if home else value
    found = parsed(f"{key}={path}", parser)
    if value[0] in "'\"" and not isinstance(found, HydraException):  # the user has quoted the value
        return word
    of_path = (key.lstrip("+") in PATHS or key.endswith(".path")) and isinstance(found, HydraException)
    if home or of_path or names_a_path(path, found):
        in_quotes = f"{key}={quoted(path)}"
        if parsed(in_quotes, parser) == path:
            return in_quotes
        raise ValueError(f"{word}: a path with a backslash before a quote cannot be read; rename the file or folder")
    # a list of names
    if (items := listed(value)) and (isinstance(found, HydraException) or key.lstrip("+") in NAMING):
        misread = [
            is_a_word(key, item, parser) or isinstance(parsed(f"{key}={item}", parser), HydraException)
            for item in items
        ]
        names = [quoted(item) if needs_it else item for item, needs_it in zip(items, misread, strict=True)]
        in_quotes = f"{key}=[{','.join(names)}]"
        if any(misread) and isinstance(parsed(in_quotes, parser), list):
            return in_quotes
    if isinstance(found, HydraException):
        raise ValueError(f"{word}: the value cannot be read ({str(found).splitlines()[0]}). {remedy(key, value)}")
    if isinstance(found, Override) and not sweeps:
        no_sweep = f"; for a list type '{key}=[{value}]', for one value with a comma in it '{key}=\"{value}\"'"
        group = "/" in key or os.path.isdir(os.path.join(os.path.dirname(__file__), key.lstrip("+")))
        sweep_only = "(" in value or group  # the word can mean nothing else
        raise ValueError(
            f"{word} asks for a sweep, a job for each value: add --multirun{'' if sweep_only else no_sweep}"
        )
    return word


def swept(key: str, value: str, parser: OverridesParser) -> str | None:
    """Returns the word for a sweep over values of which Hydra would misread some, such as paths with blanks or ``~/``;
    None for other values, and for the path of a file or into a folder whose name holds the comma.
    """
    path = os.path.expanduser(value)
    inner = value.removeprefix("choice(").removesuffix(")") if value.startswith("choice(") else value
    if "," not in inner or re.search("['\"]", value) or os.path.exists(path) or within_a_folder(path):
        return None
    if re.search(r"[\[{(]", inner) and not isinstance(parsed(f"{key}={value}", parser), HydraException):
        return None  # a sweep of Hydra's own, or one over lists
    items = inner.split(",")
    words = [readable_word(f"{key}={item}", parser, sweeps=False) for item in items]
    read = [word.partition("=")[2] for word in words]
    return None if read == items else f"{key}={','.join(read)}"


def is_a_word(key: str, value: str, parser: OverridesParser) -> bool:
    """Returns whether a value that Hydra would read as a number or a boolean is the name of a label or a column."""
    key = key.lstrip("+")
    separated = key in NAMING and re.fullmatch("[0-9]+(_[0-9]+)+", value)
    return bool(separated) or key in COLUMNS and isinstance(parsed(f"{key}={value}", parser), float | bool)


def listed(value: str) -> list[str]:
    """Returns the items of a list that holds no lists, mappings, quotes, backslashes or empty items; an empty list for
    other values.
    """
    inner = value[1:-1]
    flat = value.startswith("[") and value.endswith("]") and not re.search(r"[\[\]{}'\"\\]", inner)
    items = [item.strip() for item in inner.split(",")] if flat else []
    return items if all(items) else []


def remedy(key: str, value: str) -> str:
    """Returns what to type for a value that cannot be parsed."""
    if value.startswith("{"):
        return (
            f"Names in braces may hold only letters, digits, blanks and / . - _: type a list of the values, {key}=[0]"
        )
    if value.startswith("[") and value.endswith("]"):
        return f"Quote each item that holds other marks than letters, digits and / . - _: type \"{key}=['a (b)','c']\""
    typed = f"'{key}=\"{value}\"'"
    if "'" in value or '"' in value:
        typed = '"' + re.sub(r'(["$`\\])', r"\\\1", f"{key}={quoted(value)}") + '"'
    return f"Letters, digits and / . - _ need no quotes; type any other text in two pairs of them: {typed}"


def names_a_path(path: str, found: object) -> bool:
    """Returns whether a value is a path that Hydra misreads; ``found`` is what :func:`parsed` returned for it."""
    if found == path or isinstance(found, int | float | None):
        return False
    if isinstance(found, HydraException | str):  # refused, or trimmed
        return os.path.exists(path) or looks_like_a_path(path)
    # read as a list, a mapping or a sweep: a path only if it exists, or leads into a folder whose name holds the comma
    return os.path.exists(path) or isinstance(found, Override) and within_a_folder(path)


def parsed(word: str, parser: OverridesParser) -> object:
    """Returns the value of a word as Hydra's parser reads it: the Override if the word asks for a sweep, the exception
    if the parser refuses the word.
    """
    try:
        override = parser.parse_override(word)
        return override if override.is_sweep_override() else override.value()
    except HydraException as error:
        return error


def looks_like_a_path(value: str) -> bool:
    """Returns whether a value has the form of one path: it holds a separator or ends in one of SUFFIXES, and is no list
    of values.
    """
    if value.startswith("[") and value.endswith("]") or "," in value and not within_a_folder(value):
        return False
    return "/" in value or "\\" in value or value.lower().endswith(SUFFIXES)


def within_a_folder(value: str) -> bool:
    """Returns whether a path with a comma leads into a folder that exists and whose name holds the comma."""
    folder = os.path.dirname(value)
    while "," in folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return "," in folder


def quoted(value: str) -> str:
    """Returns the value in Hydra's quotes."""
    return "'" + value.replace("'", "\\'") + "'"
