"""task=work_precision: its tables, their units, and known facts that they must show on the exact score."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from scoresde.cli import run
from scoresde.conf import schema
from scoresde.samplers import PredictorCorrector, ProbabilityFlow, Uniform
from scoresde.tasks.studies.ruler import Ruler
from scoresde.tasks.studies.settings import TooExpensive, settings
from scoresde.tasks.studies.work_precision import LIKELIHOOD_COLUMNS, SAMPLER_COLUMNS
from tests.conftest import compose, make
from tests.test_cli import CHOICES, command

ORACLE = ("task=work_precision", "data=mixture", "model=oracle", "data.count=10000")


def job(folder: Path, *overrides: str) -> tuple[list[dict], list[dict], dict]:
    """Returns the rows of both tables, and the metrics."""
    run(compose(f"store={folder}/store", *overrides), CHOICES | {"task": "work_precision"}, folder / "run")
    return (*tables(folder / "run"), json.loads((folder / "run" / "metrics.json").read_text()))


def tables(folder: Path) -> tuple[list[dict], list[dict]]:
    found = []
    for name in ("work_precision", "likelihood_precision"):
        path = folder / f"{name}.csv"
        found.append(list(csv.DictReader(path.open())) if path.exists() else [])
    return tuple(found)


def column(rows: list[dict], method: str, key: str, sde: str = "vp") -> list[float]:
    """Returns a column of one method's rows, in their order."""
    return [float(row[key]) for row in rows if (row["method"], row["sde"], row["score"]) == (method, sde, "oracle")]


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """The run in which the known facts must show."""
    return job(
        tmp_path_factory.mktemp("facts"),
        *ORACLE,
        "dtype=float64",
        "count=500",
        "task.only=[vp,em,ode,ddim,dpmpp_2m,exact,rk4,hutchinson]",
        "task.budgets=[21,41,81,161]",
        "task.tolerances=[1e-2,1e-4,1e-6]",
        "task.points=64",
    )


def test_the_command_leaves_tables_and_pictures(tmp_path):
    done = command(
        *ORACLE,
        "count=500",
        "+sampler@task.samplers.again=em",
        "task.only=[ve,subvp,em,again,heun,ode,exact]",
        "sampler@task.samplers.em=reverse_diffusion",
        "~task.samplers.dpmpp_2m",
        "task.budgets=[5,11]",
        "task.tolerances=[1e-2]",
        "task.points=20",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    drawn, scored = tables(tmp_path / "run")
    assert tuple(drawn[0]) == SAMPLER_COLUMNS and tuple(scored[0]) == LIKELIHOOD_COLUMNS
    for sde in ("ve", "subvp"):
        runs = [(row["method"], row["setting"], float(row["value"])) for row in drawn if row["sde"] == sde]
        nfe = [float(row["nfe"]) for row in drawn if row["sde"] == sde]
        fixed = [("heun", "steps", 2), ("heun", "steps", 5), ("again", "steps", 4), ("again", "steps", 10)]
        fixed += [("em", "steps", 4), ("em", "steps", 10)]
        assert set(fixed) <= set(runs) and ("ode", "tolerance", 0.01) in runs and len(runs) == 8
        assert [nfe[runs.index(each)] for each in fixed] == [5, 11, 5, 11, 5, 11], "the denoising step counts"
        assert all(math.isfinite(float(row["sliced_wasserstein"])) for row in drawn)
        still = {row["method"] for row in drawn if row["endpoint_rms"]}
        assert still == {"heun", "ode"}, "what takes noise has no exact end"
    assert [(row["sde"], row["method"]) for row in scored] == [("ve", "exact"), ("subvp", "exact")]
    last = done.stdout.strip().splitlines()[-2:]
    assert [Path(line).name for line in last] == ["work_precision.png", "likelihood_precision.png"]
    assert "ve, oracle: sliced Wasserstein" in done.stdout


def test_all_but_the_seconds_repeats(tmp_path):
    keys = (*ORACLE, "count=100", "task.only=[ve,em,ode,hutchinson]", "task.budgets=[10]", "task.tolerances=[1e-2]")
    found = []
    for name in ("a", "b"):
        *rows, metrics = job(tmp_path / name, *keys, "task.points=10", f"task.batch={64 if name == 'a' else 100}")
        found.append(([[{**row, "seconds": ""} for row in table] for table in rows], metrics))
    assert found[0] == found[1]


def test_a_second_order_solver_gains_four_times_by_twice_the_steps(facts):
    drawn, *_ = facts
    assert [float(x) for x in column(drawn, "dpmpp_2m", "nfe")] == [21, 41, 81, 161]
    for method, order in (("ddim", 1), ("dpmpp_2m", 2)):
        error = column(drawn, method, "endpoint_median")
        assert error[-2] / error[-1] == pytest.approx(2**order, rel=0.15)


def test_the_flow_approaches_the_exact_one_with_its_tolerance(facts):
    drawn, *_ = facts
    error, nfe = column(drawn, "ode", "endpoint_rms"), column(drawn, "ode", "nfe")
    assert error[0] > 10 * error[1] > 100 * error[2] and nfe[0] < nfe[1] < nfe[2] and error[2] < 1e-4


def test_the_exact_flow_is_at_the_floor(facts):
    drawn, _, metrics = facts
    (flow,) = [row for row in drawn if row["method"] == "exact_flow"]
    assert float(flow["sliced_wasserstein"]) < float(flow["sliced_wasserstein_floor"]) + 3 * float(
        flow["sliced_wasserstein_spread"]
    )
    assert metrics["nfe_to_floor_vp"] <= 41


def test_likelihoods_approach_the_closed_form(facts):
    _, scored, metrics = facts
    exact, rk4 = (column(scored, method, "solver_error_mean_nats") for method in ("exact", "rk4"))
    assert exact[0] > 10 * exact[1] > 100 * exact[2] and exact[2] < 1e-5
    assert 10 < rk4[-2] / rk4[-1] < 24, "fourth order"
    random = column(scored, "hutchinson", "solver_error_mean_nats")
    stderr = column(scored, "hutchinson", "probe_stderr_nats")
    assert random[-1] == pytest.approx(0.8 * stderr[-1], rel=0.5), "what is left is the probes' noise"
    assert column(scored, "exact", "truth_error_mean_nats")[-1] < 1e-3
    assert metrics["likelihood_nfe_to_0.01_nats_vp"] in column(scored, "exact", "nfe") + column(scored, "rk4", "nfe")


def test_the_floor_is_what_fresh_data_show():
    """Nearly all of twenty sets of fresh draws are at the floor; shifted or stretched draws never are."""
    data = make("data", "data=mixture")
    ruler = Ruler(data, 1000)
    fresh = make("data", "data=mixture", "data.seed=7", "data.count=20000")
    draws = fresh.train.split(1000)
    inside = [ruler.at_floor(ruler(data.encode(r.double()))) for r in draws]
    assert sum(inside) >= 18
    assert not any(ruler.at_floor(ruler(data.encode(r.double()) + 0.15)) for r in draws)
    assert not any(ruler.at_floor(ruler(data.encode(r.double()) * 1.15)) for r in draws)


def test_samples_that_are_not_finite_have_no_errors():
    ruler = Ruler(make("data", "data=mixture", "data.count=1000"), 100)
    found = ruler(torch.full((100, 2), math.nan))
    assert all(math.isnan(value) for value in found.values()) and not ruler.at_floor(found)


def test_a_budget_buys_steps_or_tolerances():
    """The cost of a step is measured for any solver; beyond the largest budget no tolerance is tried."""

    def heun(solver, most):
        return 2 * solver.steps + 7

    euler = PredictorCorrector(Uniform(), predictor=make("sampler.predictor", "sampler=em"))
    found = settings("heun", euler, heun, [5, 10, 20, 20], [0.1])
    assert [(each.value, each.nfe) for each in found] == [(1, 9), (6, 19)]

    def cost(solver, most):
        if 10 / solver.rtol > most:
            raise TooExpensive
        return 10 / solver.rtol

    flow = ProbabilityFlow(rtol=1e-3, atol=1e-4)
    found = settings("ode", flow, cost, [50, 500], [1e-3, 1e-1, 0.02])
    assert [(each.what, each.value) for each in found] == [("tolerance", 0.1), ("tolerance", 0.02)]
    assert found[0].solver.atol == pytest.approx(0.01), "in the proportion that the solver had"
    assert [each.value for each in settings("ode", flow, cost, [1], [1e-1, 1e-2])] == [0.1], "one at least"


TINY = ("training.steps=20", "training.batch=32", "training.warmup=2", "training.evaluate=0")


def test_a_network_stands_beside_the_oracle(tmp_path):
    drawn, scored, _ = job(
        tmp_path,
        *("task=work_precision", "data=mixture", "data.count=2000", "count=100", "sde=vp", "model.width=16", *TINY),
        *("task.only=[ve,em,ode,exact]", "task.budgets=[10]", "task.tolerances=[1e-2]", "task.points=10"),
    )
    assert {row["score"] for row in drawn} == {row["score"] for row in scored} == {"oracle", "network"}
    assert {row["solver_error_mean_nats"] != "" for row in scored if row["score"] == "oracle"} == {True}
    assert {row["solver_error_mean_nats"] for row in scored if row["score"] == "network"} == {""}
    flows = {row["score"]: float(row["sliced_wasserstein"]) for row in drawn if row["method"] == "exact_flow"}
    assert flows["network"] > 1.2 * flows["oracle"], "twenty updates teach little"
    error = {row["score"]: float(row["endpoint_rms"]) for row in drawn if row["method"] == "ode"}
    assert max(error.values()) < 0.2, "each against its own flow"
    assert (tmp_path / "run" / "work_precision.png").exists()


def test_data_without_a_density_are_compared_with_themselves(tmp_path, caplog):
    drawn, scored, _ = job(
        tmp_path,
        *("task=work_precision", "data=digits", "count=8", "model.channels=[8]", "model.attention=[]", *TINY),
        *("task.only=[vp,em,dpmpp_2m]", "task.budgets=[6]", "task.tolerances=[1e-1]"),
    )
    assert {row["score"] for row in drawn} == {"network"} and not scored
    assert all(row["nll_gap_nats"] == "" and float(row["covariance_error"]) > 0 for row in drawn)
    assert "there is no oracle" in caplog.text and "likelihoods are not compared" in caplog.text


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["task.only=[dpmpp_4m]"], "task.only: dpmpp_4m is not compared here; choose among ve, vp, subvp, em"),
        (["task.budgets=[]"], "type task.budgets=[10,50,200]"),
        (["task.tolerances=[2]"], "type task.tolerances=[1e-2,1e-4]"),
        (["task.samplers.em.steps=many"], "task.samplers.em.steps=many must be a whole number"),
        (["+task.samplers.em.stepps=3"], "task.samplers.em.stepps is not a key of PredictorCorrector"),
        (["+sde@task.samplers.cosine=cosine"], "task.samplers.cosine={_target_: sde_lib.Cosine} must be a Sampler"),
        (["+task.samplers.mine=3"], "task.samplers.mine=3 must be a Sampler"),
        (["~task.sdes"], "task.sdes is missing"),
        (["~task.samplers", "~task.likelihoods"], "there is nothing to compare"),
        (["data=digits"], "model=oracle needs data whose density is a mixture"),
    ],
)
def test_mistakes_name_the_key_and_what_to_type(tmp_path, overrides, message):
    with pytest.raises(ValueError) as caught:
        job(tmp_path, *ORACLE[:3], *overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("word", ["+sampler@task.samplers.mine=dpmpp_4m", "~sampler@task.samplers.dpmpp_4m"])
def test_a_sampler_that_does_not_exist_gives_one_message(tmp_path, word):
    done = command(*ORACLE, word, folder=tmp_path)
    assert done.returncode != 0 and "dpmpp_4m" in done.stderr and "Traceback" not in done.stderr + done.stdout


def test_nodes_by_name_are_built_and_checked():
    node = compose(*ORACLE)["task"]
    schema.check(node, "task", unsettled=True)
    built = schema.build({"a": compose("sde=vp")["sde"], "b": [compose("sde=ve")["sde"]]}, "task.sdes")
    assert [type(each).__name__ for each in (built["a"], *built["b"])] == ["VP", "VE"]
