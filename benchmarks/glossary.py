"""Writes docs/glossary.md: every metric, and every key of the configuration.

    python -m benchmarks.glossary                           writes docs/glossary.md
    python -m benchmarks.glossary --out glossary.md         writes it elsewhere

The metrics are the table in tasks/parts/glossary.py. The keys of a part are the ``Arguments:`` of its constructor; the
keys of no group, and those of the loggers, are explained by the comments of their yaml.
"""

import argparse
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scoresde.conf import schema
from scoresde.conf.keys import ROOT as ROOT_KEYS
from scoresde.tasks.parts.glossary import ALL, Metric, metrics

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
WIDTH = 128  # of a page in docs/
ABOUT_METRICS = """\
# Glossary

Every metric that a run writes to `metrics.json`, and every key that you can type. `python -m benchmarks.glossary`
writes this page from the code: the metrics from `tasks/parts/glossary.py`, the keys from the constructors that take
them.

## Metrics

Capitals in a name stand for a part that varies: NAME for a class, a sampler or a trainer, MODEL and OTHER for models,
NET for the features in which samples are compared, SDE and SCORE for those of `task=work_precision`. *Better* is
`lower`, `higher`, a value to be near to, or `-` where neither way is better. A *floor* is the value that as many real
data show. A metric that a run does not have is left out.

"""
ABOUT_KEYS = """\
## Keys

A part is chosen as `GROUP=CHOICE`, and its key is set as `GROUP.KEY=VALUE`, with points for the slashes of a nested
group: `sampler/grid=karras`, `sampler.grid.rho=7`. Where `training=auto` or `model=auto` chooses by the shape of the
data, the keys are `training.vectors.KEY` and `training.images.KEY`. Keys of a task that belong to no group, and groups
that it takes from the run, are typed without `task.`: `count=100`, `sampler=em`.

"""


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=ROOT / "docs" / "glossary.md", type=Path, help="the file to write")
    path = parser.parse_args(words).out
    path.write_text(page(), encoding="utf-8")
    print(f"{path}: {len(metrics())} metrics, {len(keys_of_parts())} parts with keys")


def page() -> str:
    """Returns the text of docs/glossary.md."""
    return (ABOUT_METRICS + "".join(tables()) + ABOUT_KEYS + "".join(sections())).rstrip() + "\n"


# --- metrics ----------------------------------------------------------------------------------------------------------


def tables() -> Iterator[str]:
    """Yields the tables of metrics, one for the tasks that write the same ones."""
    groups: dict[tuple[str, ...], list[Metric]] = {}
    for metric in metrics():
        groups.setdefault(metric.tasks, []).append(metric)
    for tasks, rows in groups.items():
        heading = "All tasks" if tasks == (ALL,) else ", ".join(f"task={task}" for task in tasks)
        yield f"### {heading}\n\n| name | unit | better | what it is |\n|---|---|---|---|\n"
        for row in rows:
            what = row.what.replace("|", "\\|")
            yield f"| `{row.name}` | {row.unit} | {row.better} | {what} |\n"
        yield "\n"


# --- keys -------------------------------------------------------------------------------------------------------------


def sections() -> Iterator[str]:
    """Yields the keys of no group, and then those of the parts by group."""
    yield "### Keys of no group\n\n"
    said = comments(CONF / "config.yaml")
    yield from (bullet([key], said[key]) for key in ROOT_KEYS)
    last = None
    for (group, title), keys in keys_of_parts().items():
        if group != last:
            yield f"\n### {group}\n"
            last = group
        yield f"\n{filled(title)}\n\n"
        yield from (bullet(names, text) for names, text in keys)


def keys_of_parts() -> dict[tuple[str, str], list[tuple[list[str], str]]]:
    """Returns the keys of every part and their meaning, by the part's group and its title, which names the choices that
    build it.
    """
    groups: dict[type, str] = {}
    choices: dict[type, list[str]] = {}
    found: dict[tuple[str, str], list[tuple[list[str], str]]] = {}
    for group, shared in schema.SHARED_KEYS.items():
        found[group, "Every choice:"] = [([key], comments(CONF / group / "arrays.yaml")[key]) for key in shared]
    # those with a yaml of their own first, so that a part stands in its own group
    for path in sorted(CONF.rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
        written = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        group = path.parent.relative_to(CONF).as_posix()
        if group.startswith("hydra"):  # Hydra's own
            continue
        for place, node in nodes(written):
            part = schema.locate(node["_target_"], group)
            if not place or part not in groups:
                groups[part] = group
            choices.setdefault(part, []).append(f"`{group}={path.stem}`" + (f" ({place})" if place else ""))
        if group == "logger" and len(written) > 1:
            said = comments(path)
            found[group, f"`{group}={path.stem}`:"] = [([key], said[key]) for key in written if key != "name"]
    for part, names in choices.items():
        if keys := arguments(part):
            found[groups[part], f"`{part.__name__}`, of {', '.join(names)}:"] = keys
    return dict(sorted(found.items(), key=lambda item: item[0][0]))


def nodes(node: Any, place: str = "") -> Iterator[tuple[str, dict]]:
    """Yields every node with a ``_target_``, and its place in the yaml."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield place, node
        for key, value in node.items():
            yield from nodes(value, f"{place}.{key}".strip("."))


def arguments(part: type) -> list[tuple[list[str], str]]:
    """Returns the arguments of a constructor, together where one sentence explains several, and their meaning.

    Arguments that the class's own docstring does not explain are looked up in those of its base classes.

    Raises:
        ValueError: an argument is explained nowhere.
    """
    wanted, found = list(inspect.signature(part).parameters), []
    for kind in part.__mro__:
        for names, text in explained(kind.__doc__ or ""):
            if own := [name for name in names if name in wanted]:
                found.append((own, text))
                wanted = [name for name in wanted if name not in own]
    if wanted:
        raise ValueError(f"{part.__module__}.{part.__name__}: no docstring explains {', '.join(wanted)}")
    return found


def explained(doc: str) -> Iterator[tuple[list[str], str]]:
    """Yields the names and the text of each entry in the section ``Arguments:`` of a docstring."""
    section = re.search(r"^Arguments:(\n(?: +.*)?)+", inspect.cleandoc(doc), re.MULTILINE)
    for entry in re.split(r"\n {4}(?=\S)", section[0])[1:] if section else ():
        names, _, text = " ".join(entry.split()).partition(": ")
        yield names.split(", "), text


def comments(path: Path) -> dict[str, str]:
    """Returns the comment of each key at the root of a yaml: behind it, or in the line above."""
    found, above = {}, ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            above = line[2:]
        elif key := re.match(r"(\w+):(?:[^#]*# +(.*))?", line):
            found[key[1]] = key[2] or above
            above = ""
    return found


def bullet(names: list[str], text: str) -> str:
    """Returns a key, or several that one text explains, as an item of a list."""
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", text).replace("``", "`")
    text = re.sub(r"`scoresde\.([^`]*)`", r"`\1`", text)
    return filled(f"* {', '.join(f'`{name}`' for name in names)}: {text}", "  ") + "\n"


def filled(text: str, indent: str = "") -> str:
    """Returns the text in lines of at most ``WIDTH`` characters, all but the first indented."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    main()
