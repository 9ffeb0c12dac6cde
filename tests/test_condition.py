"""p(x | y): the encoding of y, exact conditionals and guidance, against closed forms."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from scoresde.cli import run
from scoresde.data import Arrays, Conditional, Digits, EightGaussians, Gaussian, Mixture, Moons, TwoSpirals, subset
from scoresde.data.mixture import isotropic_log_prob
from scoresde.models import (
    MLP,
    Classifier,
    ConditionalScore,
    GuidedByClassifier,
    MLPClassifier,
    Oracle,
    RefineNet,
    ScoreModel,
    UNet,
)
from scoresde.models.parameterisation import EDM
from scoresde.sde_lib import Counted, Draws, of_rows, under
from scoresde.tasks import Sample
from scoresde.tasks.parts.conditions import encoded
from scoresde.training import CrossEntropy, Trainer
from scoresde.training.trainer import withheld
from tests.conftest import SAMPLERS, SDES, compose, in_turn, make_sampler, make_sde

CHOICES = {"task": "sample", "data": "mixture", "sde": "ve", "sampler": "ode", "model": "oracle"}
SMALL = ("data.count=5000", "data.test_count=400")


def job(folder, *overrides: str) -> tuple[dict, dict]:
    """Runs a job in this process, and returns its metrics and the arrays that it wrote."""
    run(compose(f"store={folder}/store", *overrides), CHOICES, folder / "run")
    found = {path.stem: dict(np.load(path)) for path in (folder / "run").glob("*.npz")}
    return json.loads((folder / "run" / "metrics.json").read_text()), found


def three(stds=(0.6, 0.4, 0.8), **keys) -> Mixture:
    return Mixture([0.5, 0.3, 0.2], [[-2.0, -1.0], [2.0, -0.5], [0.5, 2.5]], list(stds), **keys)


def oracle(data, sde) -> Oracle:
    return Oracle(sde, data.components(), data.evidence)


# Conditions of the examples


def test_columns_become_y_and_leave_x():
    joint = three(count=50, test_count=20)
    data = Conditional(joint, [1])
    assert data.shape == (1,) and data.dim == 1 and data.condition.names == ("1",) and not data.condition.classes
    assert torch.equal(data.train[:, 0], joint.train[:, 0])
    assert torch.equal(data.condition.test[:, 0], joint.test[:, 1].double())
    encoded = data.condition.encode(data.condition.train)
    assert torch.allclose(encoded[:, 0].float(), joint.encode(joint.train)[:, 1]) and bool((encoded[:, 1] == 1).all())
    assert torch.allclose(data.encode(data.train)[:, 0], joint.encode(joint.train)[:, 0])


def test_labels_become_unit_vectors():
    data = Conditional(Digits(), "labels")
    known = data.condition
    assert known.classes and known.names == tuple("0123456789") and known.width == 11
    encoded = known.encode(known.train)
    assert torch.equal(encoded[:, :10].argmax(1), data.joint.train_labels) and bool((encoded.sum(1) == 2).all())


@pytest.mark.parametrize("joint, parts", [(EightGaussians, 8), (Moons, 2), (TwoSpirals, 2)])
def test_labels_of_shapes_are_their_parts(joint, parts):
    """Each point lies nearest to its own part."""
    data = joint(count=400, test_count=50)
    assert data.train_labels.unique().tolist() == list(range(parts))
    if parts == 8:
        near = torch.cdist(data.train.double(), data.means).argmin(1)
    else:
        halves = data.centres.reshape(2, -1, 2)
        near = torch.stack([torch.cdist(data.train.double(), half).amin(1) for half in halves]).argmin(0)
    assert float((near == data.train_labels).double().mean()) > 0.99


@pytest.mark.parametrize(
    "value, rows", [(0.5, [[0.5]]), ([0.5, 1], [[0.5], [1.0]]), ({"1": 2}, [[2.0]]), ([[3.0]], [[3.0]])]
)
def test_what_condition_may_say_of_one_number(value, rows):
    known = Conditional(three(count=50, test_count=20), [1]).condition.asking(value)
    assert known.asked.tolist() == rows


def test_what_condition_may_say_of_labels():
    data = Conditional(three(count=200, test_count=60), "labels").asking([2, "0"])
    assert data.condition.asked.tolist() == [2, 0]
    assert set(data.test_labels.tolist()) == {0, 2} and len(data.test) == len(data.condition.test)
    assert torch.equal(data.condition.train, data.train_labels)
    assert data.condition.drawn(5, seed=0).tolist() == [2, 0, 2, 0, 2]


def labelled_table(folder, words=("no", "yes", "2")) -> str:
    rng = np.random.default_rng(0)
    rows = [
        f"{a:.6f},{b:.6f},{words[k]}" for a, b, k in zip(*rng.normal(size=(2, 60)), rng.integers(0, len(words), 60))
    ]
    (folder / "t.csv").write_text("\n".join(["a,b,kind", *rows]))
    return str(folder / "t.csv")


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz", ".parquet"])
def test_a_file_may_say_which_labels(tmp_path, suffix):
    """Labels are words or numbers in any spelling; of several columns y is read."""
    known = Conditional(Arrays(labelled_table(tmp_path), labels="kind"), "labels").condition
    path = tmp_path / f"asked{suffix}"
    if suffix == ".csv":
        path.write_text("y\nyes\n2.0\nno\n")
    elif suffix == ".npy":
        np.save(path, np.array(["yes", "2", "no"]))
    elif suffix == ".npz":
        np.savez(path, y=np.array(["yes", "2.0", "no"]), x=np.zeros((3, 2)))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"x": [0.0] * 3, "y": ["yes", "2", "no"]}), path)
    rows = known.asking(str(path)).asked
    assert [known.names[k] for k in rows] == ["yes", "2", "no"]


def test_a_wrong_label_in_a_file_gives_one_line(tmp_path):
    known = Conditional(three(count=50, test_count=20), "labels").condition
    np.save(tmp_path / "asked.npy", np.array([0, 1, 2] * 500 + [5]))
    with pytest.raises(ValueError, match="asked.npy: 5 is no label of these data; type one of 0, 1, 2") as caught:
        known.asking(str(tmp_path / "asked.npy"))
    assert len(str(caught.value)) < 200 + len(str(tmp_path))
    np.save(tmp_path / "numbers.npy", np.zeros((400, 2)))
    with pytest.raises(
        ValueError, match="numbers.npy holds 400 points of shape \\(2,\\), y's \\(0\\) shape is \\(1,\\)"
    ):
        Conditional(three(count=50, test_count=20), [0]).condition.asking(str(tmp_path / "numbers.npy"))


@pytest.mark.parametrize("words", [("False", "True"), ("false", "true"), ("0", "1")])
def test_truths_are_labels(tmp_path, words):
    known = Conditional(Arrays(labelled_table(tmp_path, words), labels="kind"), "labels").condition
    assert known.names == words and known.asking([True, False]).asked.tolist() == [1, 0]


def test_remedies_name_the_key_that_chose_the_column(tmp_path):
    data = Arrays(labelled_table(tmp_path), key=["a"])
    with pytest.raises(ValueError, match=r"'kind' is not numeric .*: type data.condition=\[a,b\]; if it is a label, "):
        Conditional(data, ["kind"])
    np.savez(tmp_path / "t.npz", x=np.random.default_rng(0).normal(size=(50, 2)), y=np.zeros(50))
    with pytest.raises(ValueError, match=r"data.condition=nope: .* it has x, y: type data.condition=\[x\]"):
        Conditional(Arrays(str(tmp_path / "t.npz"), key="x"), ["nope"])


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("labels", 7, "condition=7: 7 is no label of these data; type one of 0, 1, 2"),
        ("labels", [0, "one"], "one is no label"),
        ([1], "much", "must be 1 finite number, of 1: type condition=0, or"),
        ([1], math.inf, "must be 1 finite number"),
        ([1], [[0.5, 1.0]], "must be 1 finite number"),
        ([1], {"0": 1.0}, "must name 1, each with a number"),
    ],
)
def test_what_condition_may_not_say(key, value, message):
    with pytest.raises(ValueError, match=message) as caught:
        Conditional(three(count=50, test_count=20), key).asking(value)
    assert "\n" not in str(caught.value)


def measured(tmp_path, ages=(18.0, 80.0)) -> Conditional:
    """Returns heights conditioned on a mass, an age and a year, each in its own unit."""
    rng = np.random.default_rng(0)
    columns = [rng.normal(6.7e4, 7e3, 400), np.linspace(*ages, 400), rng.uniform(2010.31, 2010.33, 400)]
    x = np.column_stack([*columns, np.full(400, 1 / 3), rng.normal(size=400)])
    path = tmp_path / "x.csv"
    path.write_text("mass,age,year,site,height\n" + "\n".join(",".join(map(repr, row)) for row in x.tolist()) + "\n")
    return Conditional(Arrays(str(path)), ["mass", "age", "year", "site"])


def test_numbers_outside_the_training_data_are_warned_of_once(tmp_path, caplog):
    data, third = measured(tmp_path), repr(1 / 3)
    low, high = (f"{float(end):.6g}" for end in data.condition.train[:, 1].aminmax())
    np.save(tmp_path / "rows.npy", [[6.7e4, age, 2010.32, 1 / 3] for age in (17.0, 50.0, 900.0)])
    age = f"lies outside the training data ({low} to {high})"
    for value, message in (
        ([6.7e4, 50, 2010.32, float(third)], ""),
        ([6.7e4, float(data.condition.train[:, 1].max()), 2010.32, 0.333333333], ""),
        ([6.7e4, 900, 2010.32, float(third)], f"condition: age = 900 {age}"),
        ({"age": 17, "mass": 6.7e4, "year": 2010.32, "site": 1 / 3}, f"condition: age = 17 {age}"),
        (str(tmp_path / "rows.npy"), f"condition: age = 900 and 1 more {age.replace('lies', 'lie')}"),
        ([6.7e4, 900, 2010.32, 4], f"condition: age = 900 {age}; site = 4 lies outside"),
    ):
        caplog.clear()
        with caplog.at_level("WARNING"):
            data.asking(value)
        found = [record.getMessage() for record in caplog.records]
        assert len(found) == bool(message) and all(each.startswith(message) for each in found), value


def test_the_example_of_a_condition_is_one_that_the_data_know(tmp_path, caplog):
    data = measured(tmp_path)
    for value in ([1.0], [1.0, 2.0, 3.0, math.nan], {"mass": 1.0}, "much"):
        with pytest.raises(ValueError, match=r"type '?condition=") as caught:
            data.asking(value)
        said = re.search(r"condition=[\[{]([^\]}]*)[\]}](?!.*condition=)", str(caught.value))[1]
        numbers = [float(each.split(":")[-1]) for each in said.split(",")]
        assert numbers[0] % 100 == 0 and numbers[1] % 1 == 0, "rounded"
        caplog.clear()
        data.asking(numbers)
        assert not caplog.records, "inside the training data"


@pytest.mark.parametrize(
    "key, message",
    [
        ([2], "there is no column 2; the columns are 0, 1, and data.condition=labels"),
        ([0, 1], "names every column"),
        ([1, 1], "names a column twice"),
        ([], "names no columns"),
    ],
)
def test_what_data_condition_may_not_say(key, message):
    with pytest.raises(ValueError, match=message):
        Conditional(three(count=50, test_count=20), key)


def test_columns_arrays_and_labels_of_files(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    kinds = np.array(["cat", "dog", "eel"])[rng.integers(0, 3, 60)]
    table = tmp_path / "t.csv"
    rows = [f"{a:.6f},{b:.6f},{c:.6f},{kind}" for (a, b, c), kind in zip(x, kinds, strict=True)]
    table.write_text("\n".join(["a,b,mass,kind", *rows]))
    labelled = Arrays(str(table), labels="kind")
    assert labelled.labels() == ["a", "b", "mass"] and labelled.class_names == ["cat", "dog", "eel"]
    both = torch.cat([labelled.train, labelled.test])[:, 0].double()
    order = (both[:, None] - torch.from_numpy(x[:, 0])).abs().argmin(1)
    names = [labelled.class_names[k] for k in torch.cat([labelled.train_labels, labelled.test_labels])]
    assert names == kinds[order].tolist()
    assert Conditional(labelled, "labels").asking("eel").condition.name_of(torch.tensor(2)) == "eel"

    inside = Conditional(labelled, ["mass"])
    beside = Conditional(Arrays(str(table), key=["a", "b"]), ["mass"])
    assert inside.shape == beside.shape == (2,) and inside.labels() == ["a", "b"]
    assert inside.notes[-1] == beside.notes[-1] == "y is mass"
    assert torch.allclose(inside.condition.train, beside.condition.train)
    assert torch.allclose(
        inside.condition.encode(inside.condition.test), beside.condition.encode(beside.condition.test)
    )

    np.savez(tmp_path / "t.npz", x=x.reshape(60, 1, 3, 1), y=y, kind=kinds)
    pictures = Arrays(str(tmp_path / "t.npz"), key="x", labels="kind", shape=[1, 3, 1])
    given = Conditional(pictures, ["y"])
    assert given.shape == (1, 3, 1) and given.condition.names == ("y[0]", "y[1]")
    row = int(np.abs(x[:, 0] - float(given.train[0, 0, 0])).argmin())
    assert torch.allclose(given.condition.train[0], torch.from_numpy(y[row]))
    assert torch.allclose(
        given.condition.encode(given.condition.train)[:, :2].std(0, correction=0), torch.ones(2).double()
    )
    with pytest.raises(ValueError, match="no such column or array; it has a, b, mass, kind"):
        Arrays(str(table), key=["a"], labels="species")
    with pytest.raises(ValueError, match=r"type data.condition=\[mass\]"):
        Arrays(str(table), key=["a"], labels="mass")


def test_columns_of_tables_without_names_are_the_files_own(tmp_path):
    values = np.random.default_rng(0).normal(size=(50, 4))
    np.savetxt(tmp_path / "h.csv", values, delimiter=",")
    data = Conditional(Arrays(str(tmp_path / "h.csv"), key=["1", "2"]), [0])
    assert data.shape == (2,) and data.condition.names == ("0",)
    both = torch.cat([data.train, data.test]).double(), torch.cat([data.condition.train, data.condition.test])
    found = (both[0][:, None, 0] - torch.from_numpy(values[:, 1])).abs().argmin(1)
    assert torch.allclose(both[1][:, 0], torch.from_numpy(values[:, 0])[found])
    for keys in ([1], [0, 1]):
        with pytest.raises(ValueError, match="1 is in data.key, among what is learnt"):
            Conditional(Arrays(str(tmp_path / "h.csv"), key=["1", "2"]), keys)


def test_a_class_is_its_label_where_a_component_has_no_example():
    few = Mixture([0.5, 1e-6, 0.5], [[-3.0, 0.0], [0.0, 9.0], [3.0, 0.0]], [0.5] * 3, count=200, test_count=100)
    data = Conditional(few, "labels")
    assert data.condition.names == ("0", "2")
    r = torch.tensor([[3.0, 0.0], [-3.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([1, 0])
    expected = -math.log(2 * math.pi * 0.25)
    assert data.true_log_prob(r, y).tolist() == pytest.approx([expected, expected])
    score = oracle(data, make_sde("ve")).double().given(data.condition.encode(y))
    x, t = data.encode(r), torch.full((2,), 0.01, dtype=torch.float64)
    assert float(score(x, t).abs().max()) < 1e-6  # each at its own component's mean


def test_held_out_points_of_several_labels_keep_their_own(tmp_path):
    keys = ("data=mixture", *SMALL, "model=oracle", "task=likelihood", "data.condition=labels", "count=40")
    metrics, found = job(tmp_path, *keys, "condition=[0,1]")
    assert abs(metrics["gap_nats"]) < 0.01 and set(found["likelihood"]["y"]) == {0, 1}


def test_no_entropy_is_reported_for_points_of_another_y(tmp_path):
    keys = ("data=mixture", *SMALL, "model=oracle", "task=likelihood", "data.condition=[0]", "count=20")
    metrics, found = job(tmp_path, *keys, "condition=0.5")
    assert "gap_nats" not in metrics and "floor_nats" not in metrics
    assert bool((found["likelihood"]["y"] == 0.5).all())
    points = tmp_path / "points.npz"
    data = Conditional(three(count=50, test_count=20), [0])
    np.savez(points, x=data.test.numpy(), y=data.condition.test.numpy())
    metrics, found = job(tmp_path, *keys[:-1], f"points={points}", "count=7")
    assert np.allclose(found["likelihood"]["y"], subset(data.condition.test, 7)) and abs(metrics["gap_nats"]) < 0.01


def test_a_network_of_p_of_x_given_y_comes_back(tmp_path):
    from scoresde import load

    keys = ("data=mixture", *SMALL, "model=mlp", "training.steps=5", "training.batch=32", "count=10", "sampler=em")
    job(tmp_path, *keys, "sampler.steps=3", "data.condition=[0]")
    for same in ("data.condition=0", "data.condition=['0']"):
        job(tmp_path, *keys, "sampler.steps=3", same)
    (folder,) = (tmp_path / "store").glob("*-*")
    sde, score, data = load(folder)
    y = data.condition.encode(torch.tensor([[0.5], [1.0]], dtype=torch.float64))
    assert score.given(y)(torch.randn(2, 1), torch.full((2,), sde.T)).shape == (2, 1)
    job(tmp_path, *keys, "sampler.steps=3", "data.condition=[0]", f"checkpoint={folder}")


@pytest.mark.parametrize("key", ["labels", ["b"]])
def test_a_network_whose_file_is_gone_still_knows_the_units_of_y(tmp_path, key):
    from scoresde import load

    table = labelled_table(tmp_path)
    words = ("data=arrays", f"data.path={table}", "data.key=[a]", "data.labels=kind", f"data.condition={key}")
    job(tmp_path, *words, "training.vectors.steps=2", "training.vectors.batch=8", "count=4", "sampler=em")
    (folder,) = (tmp_path / "store").glob("*-*")
    there = load(folder)[2].condition
    Path(table).unlink()
    gone = load(folder)[2].condition
    assert gone.names == there.names and gone.classes == there.classes and len(there.train) and not len(gone.train)
    y = there.test[:3]
    assert torch.equal(gone.encode(y), there.encode(y))


# Exact scores and densities


def test_the_conditional_of_a_gaussian_is_the_closed_form():
    S = torch.tensor([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]], dtype=torch.float64)
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    joint = Gaussian(S.tolist(), mean.tolist(), count=20_000, test_count=50)
    assert torch.allclose(joint.train.double().T.cov(), S, atol=0.06)
    data = Conditional(joint, [1])
    x, y = torch.randn(7, 2, dtype=torch.float64), torch.randn(7, 1, dtype=torch.float64)
    kept = [0, 2]
    gain = S[kept][:, [1]] / S[1, 1]
    law = torch.distributions.MultivariateNormal(
        mean[kept] + (y - mean[1]) @ gain.T, S[kept][:, kept] - gain @ S[[1]][:, kept]
    )
    assert torch.allclose(data.true_log_prob(x, y), law.log_prob(x))


@pytest.mark.parametrize("key", ["labels", [0], [1]])
def test_conditional_densities_are_normalised(key):
    data = Conditional(three(count=50, test_count=20), key)
    y = data.condition.test[:1]
    grid = torch.linspace(-8, 8, 801, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid) if key == "labels" else grid[:, None]
    p = data.true_log_prob(points, y.expand(len(points), *y.shape[1:])).exp()
    assert float(p.sum()) * (16 / 800) ** data.dim == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("key, value", [("labels", 1), ([0], 0.5)])
def test_of_one_y_the_data_are_those_of_p_of_x_given_y(key, value):
    """Tasks that compare with the true density then compare with p(x | y)."""
    data = Conditional(three(count=300, test_count=100), key)
    assert data.true_log_prob(data.test.double()) is None  # no y was chosen
    whole = data.components()
    asked = data.asking(value)
    weights, means, stds = asked.components()
    r = torch.randn(9, data.dim, dtype=torch.float64)
    y = asked.condition.asked.expand(9, *asked.condition.asked.shape[1:])
    truth = data.true_log_prob(r, y)
    assert torch.allclose(asked.true_log_prob(r), truth)
    own = isotropic_log_prob(data.encode(r), weights, means, stds) + data.log_det
    assert torch.allclose(own, truth)
    assert len(whole[0]) == 3 and len(weights) == (1 if key == "labels" else 3)


@pytest.mark.parametrize("key", ["labels", [0]])
def test_the_oracle_given_y_is_the_gradient_of_the_exact_density(sde, key):
    """The score of p_t(x | y) is the gradient of log p(x, y) of the joint mixture, perturbed only in x."""
    data = Conditional(three(count=50, test_count=20), key)
    y = data.condition.test[:6]
    score = oracle(data, sde).double().given(data.condition.encode(y))
    t = torch.linspace(sde.eps, sde.T, 6, dtype=torch.float64)
    x = torch.randn(6, data.dim, dtype=torch.float64, requires_grad=True)
    weights, means, stds = data.joint.components()
    if key == "labels":
        log_weight = torch.nn.functional.one_hot(y, 3).double().log()
        kept = means
    else:
        at = data.condition.encode(y)[:, :1]
        log_weight = weights.log() - 0.5 * ((at - means[:, 0]) / stds) ** 2 - stds.log()
        kept = means[:, 1:]
    alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    variance = alpha**2 * stds**2 + sigma**2
    square = (x[:, None] - alpha[..., None] * kept).square().sum(-1)
    log_p = torch.logsumexp(log_weight - 0.5 * (square / variance + data.dim * variance.log()), 1)
    (expected,) = torch.autograd.grad(log_p.sum(), x)
    assert torch.allclose(score(x.detach(), t), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("key", ["labels", [0]])
def test_bayes_rule_makes_the_classifier_guided_score_exact(sde, key):
    """It is s(x) + grad log p(y | x); at w = 0 and 3 it lies on the line through both scores."""
    data = Conditional(three(count=50, test_count=20), key)
    y = data.condition.encode(data.condition.test[:6])
    score = oracle(data, sde).double()
    t, x = torch.linspace(sde.eps, sde.T, 6, dtype=torch.float64), torch.randn(6, data.dim, dtype=torch.float64)
    conditional = score.given(y)(x, t)
    assert not torch.allclose(conditional, score(x, t), rtol=1e-2)  # y changes something
    for w in (0.0, 1.0, 3.0):
        guided = GuidedByClassifier(score, score.classifier(), y, w)
        line = score(x, t) + w * (conditional - score(x, t))
        assert torch.allclose(guided(x, t), line, rtol=1e-8, atol=1e-9)
        assert torch.allclose(score.given(y, w)(x, t), line, rtol=1e-8, atol=1e-9)
        rows = torch.tensor([4, 1])
        assert torch.allclose(of_rows(guided, rows)(x[rows], t[rows]), line[rows], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", SDES)
def test_likelihoods_given_y_are_exact(tmp_path, name):
    """With the exact score log p(x | y) of each point is the closed form's, up to the prior in place of p_T."""
    metrics, found = job(
        tmp_path,
        "data=mixture",
        *SMALL,
        "model=oracle",
        f"sde={name}",
        "data.condition=[0]",
        "task=likelihood",
        "count=40",
    )
    assert metrics["ode_error_max_nats"] < 1e-3
    data = Conditional(three(count=5000, test_count=400), [0])
    truth = data.true_log_prob(torch.from_numpy(found["likelihood"]["x"]), torch.from_numpy(found["likelihood"]["y"]))
    assert metrics["floor_nats"] == pytest.approx(-float(truth.mean()))
    allowed = 5e-3 + abs(metrics["prior_cost_nats"]) + metrics.get("start_error_nats", 0)
    assert abs(metrics["gap_nats"]) < allowed


@pytest.mark.parametrize("name, key", in_turn(SAMPLERS, ["labels", [0]]))
def test_samples_are_of_their_own_y(name, key):
    """Each sample follows the distribution of its own y, by its quantiles; batches and rows do not mix the y. (Under
    another y the same points lie tens of standard deviations away.)
    """
    sde, data, count = make_sde("vp"), Conditional(three(count=3000, test_count=50), key), 600
    y = data.condition.drawn(count, seed=0)
    solver = make_sampler(name, steps=1000 if name.startswith("ald") else 100, levels=100, count=10)
    task = Sample(solver, batch=256, dtype="float64")
    score = ConditionalScore(oracle(data, sde)).double()
    x = task.drawing.draw(sde, score, data.shape, count, y=encoded(data, y))
    weights, means, stds = data.joint.components()
    if key == "labels":
        z = (x - means[y]) / stds[y, None]
    else:
        at = data.condition.encode(y)[:, :1]
        r = (weights.log() - 0.5 * ((at - means[:, 0]) / stds) ** 2 - stds.log()).softmax(1)
        u = (r * torch.special.ndtr((x - means[:, 1]) / stds)).sum(1, keepdim=True)
        z = torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))
    assert float(z.mean().abs()) < 4 / math.sqrt(z.numel()) + 0.05
    assert float(z.std()) == pytest.approx(1, abs=0.15)
    fewer = Sample(solver, batch=64, dtype="float64").drawing.draw(sde, score, data.shape, 90, y=encoded(data, y[:90]))
    assert torch.allclose(x[:90], fewer, atol=1e-8)


# Networks


def nets():
    yield MLP((2,), width=16, depth=2, condition=4), (2,)
    yield UNet((1, 5, 7), channels=[8, 8], attention=[4], condition=4), (1, 5, 7)
    yield RefineNet((1, 5, 7), channels=8, condition=4), (1, 5, 7)


@pytest.mark.parametrize("which", range(3))
def test_networks_take_a_y_for_each_sample_or_one_for_all(which):
    net, shape = list(nets())[which]
    torch.manual_seed(0)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    sde = make_sde("ve")
    model = ScoreModel(sde, net.eval().double(), EDM())
    x, t = torch.randn(3, *shape).double(), torch.tensor([0.1, 0.4, 0.9]).double()
    y = torch.randn(3, 4)
    with torch.no_grad():
        apart = torch.cat([model.given(y[i : i + 1])(x[i : i + 1], t[i : i + 1]) for i in range(3)])
        together = model.given(y)
        assert torch.allclose(together(x, t), apart, atol=1e-10)
        assert not torch.allclose(model.given(y[:1])(x, t)[1:], apart[1:], atol=1e-3)  # the output depends on y
        rows = torch.tensor([2, 0])
        assert torch.allclose(of_rows(together, rows)(x[rows], t[rows]), apart[rows], atol=1e-10)
        nothing = model.given(None)
        assert torch.allclose(of_rows(nothing, rows)(x[rows], t[rows]), nothing(x, t)[rows], atol=1e-10)
        # guidance is the line through both scores, along every way that solvers take
        line = model.given(None)(x, t) + 3 * (apart - model.given(None)(x, t))
        guided = model.given(y, guidance=3.0)
        assert torch.allclose(guided(x, t), line, atol=1e-9) and guided.cost == 2
        single = guided.affine([0.4])(x, 0.4, 0.5, 2.0)
        assert torch.allclose(single, 0.5 * x + 2 * guided(x, torch.full((3,), 0.4).double()), atol=1e-9)
        assert torch.allclose(model.given(y, guidance=0.0)(x, t), model.given(None)(x, t), atol=1e-12)
        counted = Counted(guided)
        counted(x, t)
        assert counted.evaluations == 6
    with pytest.raises(ValueError, match="score.given"):
        model(x, t)


def test_a_network_without_condition_draws_the_weights_it_always_drew():
    """The layers for y are made last, so that the initial weights of the others do not change."""
    for build in (
        lambda c: MLP((2,), width=16, condition=c),
        lambda c: UNet((1, 5, 7), channels=[8, 8], condition=c),
        lambda c: RefineNet((1, 5, 7), channels=8, condition=c),
    ):
        torch.manual_seed(0)
        plain = build(0).state_dict()
        torch.manual_seed(0)
        conditional = build(3).state_dict()
        assert all(torch.equal(value, conditional[key]) for key, value in plain.items())


def test_withheld_labels_are_the_share_that_was_asked_for():
    y, draws = torch.ones(20_000, 4), Draws(0, 20_000)
    kept = withheld(y, 0.25, draws)
    assert torch.equal(kept.any(1), kept.all(1)), "the whole of y"
    assert float(kept.mean()) == pytest.approx(0.75, abs=4 * math.sqrt(0.25 * 0.75 / 20_000))
    assert not torch.equal(kept, withheld(y, 0.25, draws.at(1))), "others at every step"
    assert withheld(y, 0.0, draws).all()


def test_a_network_learns_the_conditional_of_a_gaussian(tmp_path):
    """The density agrees within its error and 0.02 nats, and so do the mean and the std of samples at two y."""
    keys = (
        "data=gaussian",
        "data.count=20000",
        "data.condition=[1]",
        "training.steps=900",
        "training.batch=256",
        "training.warmup=50",
        "model.width=64",
        "sampler=ode",
    )
    metrics, _ = job(tmp_path, *keys, "task=likelihood", "count=400")
    assert abs(metrics["gap_nats"]) < 0.02 + 3 * metrics["gap_stderr"]
    assert metrics["floor_nats"] == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 0.36), abs=0.15)
    _, found = job(tmp_path, *keys, "condition=[-1.5,1.0]", "count=4000")
    x = torch.from_numpy(found["samples"]["x"])[:, 0]
    for y, drawn in ((-1.5, x[::2]), (1.0, x[1::2])):
        assert float(drawn.mean()) == pytest.approx(0.8 * y, abs=0.06)
        assert float(drawn.std()) == pytest.approx(0.6, abs=0.04)


def doubt(found: dict, data: Mixture) -> float:
    """Returns the mean of -log p(y | x) of the samples, by the exact densities."""
    x, y = torch.from_numpy(found["samples"]["x"]), torch.from_numpy(found["samples"]["y"])
    densities = torch.stack([data.class_log_prob(x, torch.full_like(y, k)) for k in range(3)], 1)
    return -float((data.weights.log() + densities).log_softmax(1).gather(1, y[:, None]).mean())


def test_guidance_takes_doubt_away(tmp_path):
    """With exact scores, overlapping classes are separated better for larger w."""
    keys = ("data=mixture", "data.stds=[1.5,1.5,1.5]", *SMALL, "model=oracle", "data.condition=labels", "sampler=ode")
    doubts = []
    for w in (0, 1, 3):
        _, found = job(tmp_path, *keys, "count=600", f"guidance={w}")
        doubts.append(doubt(found, three(count=10, test_count=10, stds=[1.5] * 3)))
    assert doubts[0] > 1.5 * doubts[1] and doubts[1] > 1.5 * doubts[2]


def test_labels_are_learnt_and_judged(tmp_path):
    keys = (
        "data=mixture",
        "data.count=5000",
        "data.condition=labels",
        "training.steps=400",
        "training.batch=256",
        "model=mlp",
        "sampler=ode",
        "count=300",
    )
    metrics, found = job(tmp_path, *keys)
    assert metrics["label_accuracy"] > 0.95 and metrics["label_accuracy_real"] > 0.98
    assert found["samples"]["y"].shape == (300,) and set(found["samples"]["y"]) == {0, 1, 2}
    single, _ = job(tmp_path, *keys, "condition=1")
    assert single["label_accuracy"] > 0.93 and "label_accuracy_1" not in single
    assert single["sliced_wasserstein"] < 0.25  # to the data of that label
    assert len(list((tmp_path / "store").glob("*-*"))) == 1  # trained once
    guided, _ = job(tmp_path, *keys, "guidance=3")
    assert guided["nfe"] > 1.5 * metrics["nfe"]
    assert guided["label_accuracy"] > 0.93
    with pytest.raises(ValueError, match="training.drop=0.1"):
        job(tmp_path, *keys, "guidance=3", "training.drop=0", "training.steps=1")
    (folder,) = (tmp_path / "store").glob("*-*")  # nothing was trained for it
    with pytest.raises(ValueError, match="is a conditional network, which needs no classifier: leave classifier out"):
        job(tmp_path, *keys, f"checkpoint={folder}", "classifier=auto")


# Classifiers


def test_cross_entropy_is_least_for_the_exact_classifier(sde):
    """The exact classifier has a smaller loss than one that sees less, and gradients reach a network."""
    data = Conditional(three(count=4000, test_count=50), "labels")
    x, y = data.encode(data.train.double()), data.condition.encode(data.condition.train)
    exact = oracle(data, sde).double().classifier()
    loss = CrossEntropy()
    torch.manual_seed(0)
    best = loss(sde, exact.given(y), x)
    torch.manual_seed(0)
    blurred = loss(sde, lambda x, t: torch.logsumexp((0.5 * exact(x, t)).log_softmax(1) + y[:, :-1].log(), 1), x)
    assert float(best.mean()) < float(blurred.mean())
    net = Classifier(sde, MLPClassifier((2,), 3, width=8))
    loss(sde, net.given(y.float()), x.float()).mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.net.last.parameters())


def test_a_trained_classifier_comes_near_the_exact_one_and_guides(tmp_path):
    keys = ("data=mixture", "data.count=20000", "training.steps=500", "training.batch=256", "sampler=ode")
    metrics, _ = job(tmp_path, *keys, "task=train_classifier", "model=mlp")
    data = Conditional(three(count=10, test_count=10_000), "labels")
    sde = make_sde("ve")
    x = data.encode(data.test[:2000].double())
    exact = oracle(data, sde).double().classifier()(x, torch.full((2000,), sde.eps).double())
    best = float((exact.argmax(1) == data.condition.test[:2000]).double().mean())
    assert metrics["label_accuracy"] > best - 0.01
    assert metrics["cross_entropy_noise_nats"] == pytest.approx(metrics["cross_entropy_of_shares_nats"], abs=0.05)
    # With the exact score of p(x) the exact classifier guides in place of the trained one.
    guided, _ = job(tmp_path, *keys, "model=oracle", "classifier=auto", "condition=1", "count=500")
    assert guided["label_accuracy"] > 0.98 and guided["sliced_wasserstein"] < 0.2
    both, _ = job(tmp_path, *keys, "model=mlp", "classifier=auto", "condition=1", "count=500")
    assert both["label_accuracy"] > 0.95
    names = sorted(path.name for path in (tmp_path / "store").glob("*-*") if path.is_dir())
    assert sum("classifier" in name for name in names) == 1 and len(names) == 2


def test_classifiers_of_images_take_odd_sizes():
    from scoresde.models import UNetClassifier

    net = UNetClassifier((2, 5, 7), 4, channels=[8, 8])
    assert net(torch.randn(3, 2, 5, 7), torch.zeros(3)).shape == (3, 4)
    sde = make_sde("vp")
    x, t = torch.randn(3, 2, 5, 7), torch.full((3,), 0.5)
    assert torch.allclose(Classifier(sde, net.eval())(x, t).exp().sum(1), torch.ones(3))


def test_no_guidance_is_no_classifier():
    data, sde = Conditional(three(count=50, test_count=20), "labels"), make_sde("ve")
    score = oracle(data, sde).double()
    assert ConditionalScore(score, 0, score.classifier()).given(data.condition.encode(torch.tensor([1]))) is score


def test_guidance_by_a_classifier_reads_under_another_sde():
    data, ve, vp = Conditional(three(count=50, test_count=20), "labels"), make_sde("ve"), make_sde("vp")
    y = data.condition.encode(data.condition.test[:4])
    score = oracle(data, vp).double()
    guided = GuidedByClassifier(score, score.classifier(), y)
    t = torch.linspace(0.1, 0.9, 4, dtype=torch.float64)
    x = torch.randn(4, 2, dtype=torch.float64)
    expected = oracle(data, ve).double().given(y)(x, t)
    assert torch.allclose(under(vp, guided, ve)(x, t), expected, rtol=1e-6)


# Mistakes


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ("data=moons", "condition=1"),
            "condition=1: these are data of p\\(x\\) and have no y; type data.condition=labels",
        ),
        (("data=moons", "guidance=2"), "guidance=2: these are data of p"),
        (("data=checkerboard", "data.condition=labels"), "these data have no labels"),
        (("data=moons", "data.condition=[z]"), "there is no column z"),
        (("data=moons", "data.condition=labels", "guidance=-1"), "guidance=-1 must be at least 0"),
        (("data=moons", "data.condition=labels", "task=encode"), "type condition=LABEL"),
        (("data=moons", "data.condition=[0]", "task=encode"), "task=sample and task=likelihood take numbers"),
        (("data=moons", "data.condition=[0]", "classifier=auto"), "a classifier tells classes apart"),
        (("data=moons", "data.condition=1.5"), "data.condition=1.5 must be"),
        (("data=mixture", "data.condition=labels", "training/loss=explicit"), "training/loss=explicit compares"),
        (("data=moons", "data.condition=labels", "task=overfitting"), "takes none of p"),
        (("data=moons", "data.condition=labels", "task=elbo"), "takes none of p"),
        (("data=moons", "task=train_classifier", "condition=1"), "names one label, and a classifier is trained on all"),
        (("data=moons", "data.condition=labels", "model.condition=0"), "model.condition=0 is not the length of y, 3"),
        (("data=moons", "data.condition=[0]", "condition={0:[1,2]}"), "must give each name one number"),
        (("data=moons", "data.condition=labels", "training.drop=1"), r"training.drop=1.0 must lie in \[0, 1\)"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        job(tmp_path, *words, "data.count=300", "data.test_count=100")
    assert not (tmp_path / "store").exists() or not any((tmp_path / "store").glob("*/step-*"))


def test_held_out_loss_gives_each_example_its_own_y():
    data = Conditional(three(count=300, test_count=64), "labels")
    sde = make_sde("ve")

    class Told(torch.nn.Module):
        conditional = True

        def __init__(self):
            super().__init__()
            self.p, self.seen = torch.nn.Parameter(torch.zeros(1)), []

        def given(self, y):
            self.seen.append(y)
            return lambda x, t: x * self.p

    model = Told()
    Trainer(CrossEntropyOfNothing()).held_out(sde, model, data)
    assert torch.equal(torch.cat(model.seen).double(), data.condition.encode(data.condition.test))


def test_training_gives_each_example_its_own_y():
    """This holds past the end of an epoch and in each part of a split batch."""
    data = Conditional(Gaussian([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], count=10, test_count=10), [1])
    data.train, seen = data.condition.train.float(), []  # x is its own y

    class Told(torch.nn.Module):
        conditional = True

        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def given(self, y):
            return lambda x, t: seen.append((x.detach().clone(), y[:, :1])) or x * self.p

    Trainer(CrossEntropyOfNothing(), steps=5, batch=7, warmup=1, evaluate=0).fit(make_sde("ve"), Told(), data)
    assert len(seen) == 5
    for x, y in seen:
        torch.testing.assert_close(x, y.to(x.dtype))


class CrossEntropyOfNothing:
    differentiates = False

    def __call__(self, sde, score, x, draws=None):
        return score(x, torch.zeros(len(x))).sum(1)
