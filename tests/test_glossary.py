"""The glossary: each metric of our tasks and each key of conf/ is in it, nothing else is, and docs/glossary.md is what
the code writes.

In every test that runs a task of ours conftest.py looks up the metrics that it returns.
"""

import ast
import re

import pytest
import yaml

from benchmarks import glossary
from scoresde.conf import schema
from scoresde.tasks import Sample
from scoresde.tasks.parts.glossary import ALL, lookup, metrics

from .conftest import ROOT, choices, refuse_unknown_metrics
from .test_laws import TARGETS, nodes

TASKS = choices("task")


def test_the_page_is_what_the_code_writes():
    written = (ROOT / "docs" / "glossary.md").read_text()
    assert written == glossary.page(), "python -m benchmarks.glossary"


def test_a_metric_has_one_line():
    found = [(task, metric.name) for metric in metrics() for task in metric.tasks]
    assert len(found) == len(set(found))
    for metric in metrics():
        assert set(metric.tasks) <= {*TASKS, ALL}, metric
        assert metric.unit.strip() and metric.better.strip() and metric.what.endswith("."), metric


def test_metrics_of_a_unit_end_in_it():
    """A name that ends in its unit says what the table says."""
    units = {"_nats": "nats", "_bits_per_dim": "bits/dim", "_data_units": "data units", "_model_units": "model units"}
    units |= {"_share": "share in [0, 1]", "_seconds": "seconds", "_nats_per_dim": "nats a dimension"}
    ends = ("other_distance_share",)  # a ratio
    for metric in metrics():
        for end, unit in units.items():
            if metric.name.endswith(end) and metric.name not in ends:
                assert metric.unit == unit, metric


@pytest.mark.parametrize(
    "task, name, form",
    [
        ("likelihood", "nll_nats", "nll_nats"),
        ("evaluate", "class_ratio_most_floor", "class_ratio_most_floor"),
        ("evaluate", "class_ratio_mostly cats", "class_ratio_NAME"),
        ("evaluate", "is-cnn@0123_stderr", "is-NET_stderr"),
        ("elbo", "lsgm_gain_over_vae_nats", "MODEL_gain_over_OTHER_nats"),
        ("elbo", "lsgm_denoising_bits_per_dim", "MODEL_denoising_bits_per_dim"),
        ("work_precision", "network_nfe_to_floor_vp", "SCORE_nfe_to_floor_SDE"),
        ("work_precision", "nfe_to_floor_vp", "nfe_to_floor_SDE"),
    ],
)
def test_a_name_finds_its_line(task, name, form):
    assert lookup(name, task).name == form


@pytest.mark.parametrize("task, name", [("sample", "nll_nats"), ("likelihood", "nll"), ("evaluate", "class_ratio_")])
def test_a_name_of_no_metric_finds_nothing(task, name):
    assert lookup(name, task) is None


def test_a_task_of_ours_may_not_return_other_metrics():
    """The check that conftest.py makes in every test that runs a task."""

    class Own(Sample):
        def __call__(self, job):
            return {"count": 1, "sharpness": 0.5}

    class Job:
        data_metrics = {}

    call = refuse_unknown_metrics(Own.__call__, ("sample",))
    with pytest.raises(AssertionError, match="sharpness"):
        call(None, Job)


# --- no line without a metric -----------------------------------------------------------------------------------------


def words_of(source: str) -> set[str]:
    """The texts and the names of fields in a module, from which its metrics' names are put together."""
    tree, found = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return {word for word in found if re.fullmatch("[a-z_.0-9-]+", word) and len(word.strip("_-")) > 1}


def put_together(text: str, words: set[str]) -> bool:
    """Whether a text is a row of words, which bring their own _; numbers are put in where they are known."""
    text = re.sub("[0-9.]+", "", text)
    if not text.strip("_-"):
        return True
    return any(put_together(text[len(word) :], words) for word in words if text.startswith(word))


def test_each_line_is_of_a_metric_that_the_code_writes():
    files = [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "metrics").glob("*.py"), ROOT / "conf" / "density.py"]
    words = set().union(*(words_of(path.read_text()) for path in files if path.name != "glossary.py"))

    def is_written(part: str) -> bool:  # the mark beside a part that varies may come with that
        return any(put_together(text, words) for text in (part, part.lstrip("_"), part.rstrip("_"), part.strip("_")))

    dead = [each.name for each in metrics() if not all(map(is_written, each.parts))]
    assert not dead, dead


def test_metrics_of_data_without_a_density_are_in_the_glossary():
    names = {word for word in words_of((ROOT / "conf" / "density.py").read_text()) if word.startswith("repeated_")}
    assert len(names) == 2
    assert all(lookup(name, task) for name in names for task in ("likelihood", "elbo", "bound"))


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TARGETS, ids=str)
def test_every_key_of_a_yaml_is_explained(path):
    for place, node in nodes(yaml.safe_load((ROOT / "conf" / path).read_text())):
        explained = {name for names, _ in glossary.arguments(schema.locate(node["_target_"], place)) for name in names}
        shared = {} if place else schema.SHARED_KEYS.get(str(path.parent), {})
        assert set(node) <= {"_target_", "defaults", *explained, *shared}


def test_an_argument_that_no_docstring_explains_is_refused():
    class Part:
        """A part.

        Arguments:
            first, second: two numbers,
                of one size.
        """

        def __init__(self, first, second, third):
            pass

    with pytest.raises(ValueError, match="explains third"):
        glossary.arguments(Part)
    assert list(glossary.explained(Part.__doc__)) == [(["first", "second"], "two numbers, of one size.")]
