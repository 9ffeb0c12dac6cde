"""Words of the command line that hold a path, made readable for Hydra's parser.

Hydra reads the value of ``key=value`` by a grammar of its own: blanks are trimmed, ``(``, ``[``, ``{``, ``=``, ``#``,
``'`` and letters outside ASCII are errors, a comma asks for a sweep, and ``~`` is not the home folder. A path may hold
all of them. A value that names a path is therefore put in Hydra's quotes, which take every character as it is.
"""

import os
import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

SUFFIXES = (".npy", ".npz", ".csv", ".parquet", ".pth", ".safetensors", ".ckpt", ".pt", ".bin", ".png", ".jpg", ".tif")

FORMER = {
    "data.layout": "data.axes names all axes of the file in their order: type data.axes=nhwc for data.layout=hwc, "
    "data.axes=nchw for data.layout=chw"
}
"""Keys that are replaced by others, and what to type instead."""

NAMING = ("condition", "data.labels", "data.key", "data.condition")
"""Keys that name labels or columns, for which Hydra's 1_11 is the word 1_11 and not the number 111."""


def readable(words: list[str]) -> list[str]:
    """Returns the words with every path in quotes and ``~`` at its start expanded, and labels such as 1_11 in quotes;
    the others as they are.

    Raises:
        ValueError: a word cannot be parsed, with the word, the parser's reason and what to type.
    """
    parser = OverridesParser.create()
    return [readable_word(word, parser) for word in words]


def readable_word(word: str, parser: OverridesParser) -> str:
    key, equals, value = word.partition("=")
    if key.lstrip("+~") in FORMER:
        raise ValueError(f"{word}: this key is replaced, {FORMER[key.lstrip('+~')]}")
    if not equals or word.startswith("-") or not value or value[0] in "'\"":
        return word
    if key in NAMING and re.fullmatch(r"[0-9]+(_[0-9]+)+", value):
        return f"{key}={quoted(value)}"
    home = value == "~" or value.startswith(("~/", "~\\"))
    path = os.path.expanduser(value) if home else value
    found = parsed(f"{key}={path}", parser)
    if home or names_a_path(path, found):
        whole = f"{key}={quoted(path)}"
        if parsed(whole, parser) == path:
            return whole
        raise ValueError(f"{word}: a path with a backslash before a quote cannot be read; rename the file or folder")
    if isinstance(found, HydraException):
        raise ValueError(
            f"{word}: the value cannot be read ({str(found).splitlines()[0]}). Letters, digits and / . - _ need no "
            f"quotes; type any other text in two pairs of them: '{key}=\"{value}\"'"
        )
    return word


def names_a_path(path: str, found: object) -> bool:
    """Whether a value that Hydra takes for something else, ``found``, is a path."""
    if found == path or isinstance(found, int | float | None):
        return False
    if isinstance(found, HydraException | str):  # refused, or trimmed
        return os.path.exists(path) or looks_like_a_path(path)
    return os.path.exists(path)  # a list, a mapping or a sweep, unless a file is called so


def parsed(word: str, parser: OverridesParser) -> object:
    """The value that the parser finds; the override of a sweep; the exception for what it refuses."""
    try:
        override = parser.parse_override(word)
        return override if override.is_sweep_override() else override.value()
    except HydraException as error:
        return error


def looks_like_a_path(value: str) -> bool:
    """Whether the value has a folder in front or a known suffix at its end, and is one path and no list of them."""
    one = "," not in value and not (value.startswith("[") and value.endswith("]"))
    return one and ("/" in value or "\\" in value or value.lower().endswith(SUFFIXES))


def quoted(value: str) -> str:
    """The value in Hydra's quotes."""
    return "'" + value.replace("'", "\\'") + "'"
