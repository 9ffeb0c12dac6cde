"""Likelihoods of problems that are not smooth, round or symmetric: errors are inside the error bars, the bars are no
wider than the errors, and where nothing can bound an error a run says so and what to type instead.
"""

import logging
import math
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from scoresde.conf import assemble, compatibility, schema
from scoresde.data import Data, Digits
from scoresde.likelihood import Likelihood
from scoresde.likelihood.deblur import by_eigenvalues, by_products, by_two_orders
from scoresde.sde_lib import BasisVectors, Gaussian, HutchPP, Orthogonal, Rademacher
from scoresde.tasks import LikelihoodTask
from scoresde.tasks.likelihood import more_points
from scoresde.tasks.parts import effort
from scoresde.tasks.parts.points import shuffled
from scoresde.tasks.parts.requested_error import SHOWN, reached
from scoresde.tasks.parts.scoring import Scoring
from tests.test_cli import TINY, job
from tests.test_likelihood import Mixture

from .conftest import SDES, compose, in_turn, job_of, make, make_sde


def turned(spectrum: list[float], seed: int) -> Tensor:
    """A full covariance with the given standard deviations along directions drawn at random."""
    dim = len(spectrum)
    normals = torch.randn(dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    axes = torch.linalg.qr(normals).Q
    return axes @ torch.tensor(spectrum, dtype=torch.float64).square().diag() @ axes.T


def parts(weights: list[float], means: list[list[float]], *covariances: Tensor):
    return weights, torch.tensor(means, dtype=torch.float64), torch.stack(covariances)


def heavy(dim: int):
    """A scale mixture: Student's t in all directions, about, with one more finely grained."""
    scales = [0.3, 0.6, 1.2, 4.0]
    return parts([0.4, 0.35, 0.2, 0.05], [[0.2] * dim] * 4, *(turned([s, *[0.5 * s] * (dim - 1)], dim) for s in scales))


LINE = [torch.tensor([[variance]], dtype=torch.float64) for variance in (1.0, 2.5e-3)]
RESOLVED = {
    "ridge": parts([1.0], [[3.0, -1.0]], turned([10.0, 1e-3], 0)),
    "two ridges": parts([0.97, 0.03], [[0.0, 0.0], [1.0, 0.3]], turned([1.0, 1e-3], 0), turned([0.5, 3e-3], 1)),
    "narrow beside wide": parts(
        [0.03, 0.97], [[1.0, 0.0, 0.5], [-1.0, 0.0, 0.0]], turned([0.05] * 3, 2), turned([1.0, 0.5, 0.1], 2)
    ),
    "one dimension": parts([0.97, 0.03], [[0.0], [1.5]], *LINE),
    "seven dimensions": parts(
        [0.6, 0.4], [[0.4] * 7, [-0.6] * 7], *(turned([2.0, 1, 0.5, 0.3, 0.2, 0.1, 0.05], seed) for seed in (3, 4))
    ),
    "heavy tails": heavy(3),
}


# --- the start --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, problem, probes", in_turn([*SDES, "vp"], list(RESOLVED), [BasisVectors(), Rademacher(4)])
)
def test_the_error_is_inside_its_bar(name, problem, probes):
    """The mean of 80 log p, of the data's density: off by less than four times what the errors' own estimates say."""
    sde = make_sde(name)
    score = Mixture(sde, *RESOLVED[problem])
    x = score.draw(80, (len(score.mean),))
    likelihood = Likelihood(probes, moments=score.moments, rtol=1e-4, atol=1e-4)
    finer = replace(likelihood, rtol=1e-5, atol=1e-5, redraw=False)
    error = likelihood(sde, score, x)
    stderr, solver = error.probe_stderr, finer(sde, score, x[:30], noise(x[:30])).model_log_prob
    solver = solver - replace(finer, rtol=1e-4, atol=1e-4)(sde, score, x[:30], noise(x[:30])).model_log_prob
    error = error.model_log_prob - score.log_prob(x)
    start = likelihood.start_error(sde, score, x).difference
    prior = likelihood.reference(x).divergence_at_end(x, sde)
    bar = math.hypot(
        prior,
        math.sqrt(2 * prior / 80),
        float(start.mean()),
        float(start.std()) / 80**0.5,
        float(stderr.square().mean().sqrt()) / 80**0.5,
        float(solver.square().mean().sqrt()),
    )
    assert abs(float(error.mean())) < 4 * bar + 2e-6
    assert bar < 0.25, "or it would say nothing"


def noise(x: Tensor):
    generator = torch.Generator().manual_seed(5)
    return lambda like: torch.randn(x.shape, generator=generator, dtype=torch.float64).to(like)


@pytest.mark.parametrize(
    "name, ratio, probes, dtype",
    in_turn(
        ["ve", "vp", "ve", "vp", "subvp", "edm", "toy"],
        [1e-3, 1e-3, 1e-4, 1e-4],
        [BasisVectors(), Rademacher(2), HutchPP(2)],
        [torch.float32, torch.float64],
    ),
)
def test_a_ridge_is_deblurred_exactly(name, ratio, probes, dtype):
    """Detail of 1 to 10 % of the noise of eps: one step of the heat equation is off by 1.3 nats and more."""
    sde = make_sde(name)
    score = Mixture(sde, *parts([1.0], [[0.3, -1.0]], turned([1.0, ratio], 3)))
    x = score.draw(60, (2,))
    found = Likelihood(probes, moments=score.moments)(sde, score, x.to(dtype))
    error = found.model_log_prob - score.log_prob(x.to(dtype).double() if dtype == torch.float32 else x)
    assert float(error.mean().abs()) < 2e-3 and float(error.square().mean().sqrt()) < 2e-2


def comb(spacing: float, std: float):
    """Fine teeth, of which the noise of eps shows nothing, beside a direction that is wide."""
    teeth = [[spacing * i, 0.0] for i in range(5)]
    return parts([0.2] * 5, teeth, *[torch.tensor([std, 1.0], dtype=torch.float64).square().diag()] * 5)


HIDDEN = {"a comb": comb(0.008, 0.001), "a pair": comb(0.03, 1e-3), "atoms": comb(0.2, 1e-5)}


@pytest.mark.parametrize("problem, name", in_turn(list(HIDDEN), ["ve", "vp"]))
def test_hidden_detail_is_told_and_what_is_advised_shows_it(name, problem, caplog):
    """No number bounds an error that no level of noise shows: the run says so. Under what it says to type the log p of
    the data is right to its error bar, and nothing is said any more.
    """
    sde = make_sde(name)
    metrics, truth = task_on(sde, HIDDEN[problem], caplog)
    assert metrics["start_unresolved_share"] > 0.3
    assert abs(metrics["nll_nats"] - truth) > 0.2, "or nothing was hidden"
    (advice,) = re.findall(r"its error cannot be bounded; type (.*), which trains", caplog.text)
    caplog.clear()
    other = make("sde", f"sde={name}", *advice.split())
    metrics, truth = task_on(other, HIDDEN[problem], caplog)
    assert metrics["start_unresolved_share"] < 0.01 and "cannot be bounded" not in caplog.text
    error = abs(metrics["nll_nats"] - truth)
    assert error < 4 * computed(metrics) + 1e-4


@pytest.mark.parametrize("name", ["ve", "subvp", "custom"])
def test_detail_that_can_be_seen_is_not_complained_of(name, caplog):
    sde = make_sde(name)
    metrics, truth = task_on(sde, RESOLVED["narrow beside wide"], caplog)
    assert metrics["start_unresolved_share"] == 0 and "cannot be bounded" not in caplog.text
    assert abs(metrics["nll_nats"] - truth) < 4 * computed(metrics)


@pytest.mark.parametrize("diffusion, problem", in_turn(["1", "2", "1"], ["narrow beside wide", "heavy tails"])[:2])
def test_the_prior_s_error_is_inside_its_bar(problem, diffusion, caplog):
    """The SDE ends with noise no wider than the data, so that its Gaussian is not p_T."""
    sde = make("sde", "sde=custom", f"sde.diffusion={diffusion}")
    metrics, truth = task_on(sde, RESOLVED[problem], caplog)
    assert abs(metrics["nll_nats"] - truth) < 4 * computed(metrics)
    assert metrics["prior_error_nats"] > (3e-3 if diffusion == "1" else 0)


def computed(metrics: dict) -> float:
    return math.hypot(*(metrics[f"{what}_error_nats"] for what in ("start", "ode", "prior")))


class Record:
    arrays = path = picture = lambda self, *arguments, **keys: None


def task_on(sde, problem, caplog) -> tuple[dict, float]:
    """The task's metrics on 40 points of a mixture, and its true mean -log p there."""
    score = Mixture(sde, *problem)
    torch.manual_seed(1)
    x = score.draw(40, (len(score.mean),))
    one = torch.ones(x.shape[1])
    likelihood = Likelihood(moments=score.moments, rtol=1e-4, atol=1e-4)
    task = replace(LikelihoodTask(likelihood, dtype="float64"), batch=77)
    data = Data(x, x, 0 * one, one)
    with caplog.at_level(logging.WARNING), pytest.MonkeyPatch.context() as patch:
        patch.setattr(LikelihoodTask, "show", lambda *arguments: None)
        metrics = task(job_of(sde, score, data, Record()))
    return metrics, -float(score.log_prob(data.encode(data.test).double()).mean())


def test_three_ways_to_one_determinant():
    """The eigenvalues of one Hessian agree with Lanczos' products, exact from four vectors in as many dimensions, with
    and without the Gaussian of the moments as control; and with two orders, up to their remainder.
    """
    tau, dim, count = 0.3, 4, 6
    generator = torch.Generator().manual_seed(0)
    J = torch.randn(count, dim, dim, dtype=torch.float64, generator=generator)
    H = -0.4 * J @ J.mT / dim - 0.1 * torch.eye(dim).double()
    g = torch.randn(count, dim, dtype=torch.float64, generator=generator)
    pull = lambda v: torch.einsum("mbd,bde->mbe", v, H)  # noqa: E731
    shrunk = torch.eye(dim).double() + tau * H
    exact = -0.5 * (torch.logdet(shrunk) + tau * torch.einsum("bd,bd->b", g, torch.linalg.solve(shrunk, g)))
    whole = by_eigenvalues(tau, g, pull)
    torch.testing.assert_close(whole.estimates[0], exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.largest, 1 - torch.linalg.eigvalsh(shrunk)[:, 0])
    basis = dim**0.5 * torch.eye(dim).double()[:, None].expand(-1, count, -1)
    moments = Likelihood(moments=(g[0], g[0].square() + 0.2, torch.eye(dim).double(), 0.0)).reference(g)
    for reference in (None, moments):
        found = by_products(tau, g, pull, basis, reference)
        torch.testing.assert_close(found.estimates.mean(0), exact, rtol=0, atol=2e-6)
        torch.testing.assert_close(found.heat, whole.heat, rtol=0, atol=1e-12)
    two = by_two_orders(tau, g, pull)
    missing = (two.estimates[0] - exact).abs()
    assert bool((missing < two.remainder).all()) and float(missing.max()) > 1e-4
    torch.testing.assert_close(two.heat, whole.heat, rtol=0, atol=1e-12)


# --- the probes -------------------------------------------------------------------------------------------------------

KINDS = {"rademacher": Rademacher, "gaussian": Gaussian, "orthogonal": Orthogonal, "hutchpp": HutchPP}
WIDTHS = {3: "heavy tails", 5: None, 7: "seven dimensions"}


def five():
    return parts(
        [0.6, 0.37, 0.03],
        [[1.0, 0, 0.3, 0, 0], [-1.0, 0.5, 0, 0, 0], [0.0, 0, 0, 2.0, 1.0]],
        *(turned([1.0, 0.5, 0.3, 0.1, 0.05], seed) for seed in (5, 6, 7)),
    )


@pytest.mark.parametrize(
    "kind, count, dim, name",
    [
        (kind, count, dim, SDES[(7 * i + j) % len(SDES)])
        for i, kind in enumerate(KINDS)
        for j, (count, dim) in enumerate([(2, 5), (4, 7), (8, 5), (2, 3)])
        if not (kind in ("orthogonal", "hutchpp") and count >= dim - 1)
    ],
)
def test_pulls_have_variance_one(kind, count, dim, name):
    """(estimate - exact trace)/stderr over 500 points, of which each has an error bar of its own; the mean over the
    points is off by less than four of its standard errors.
    """
    sde = make_sde(name)
    score = Mixture(sde, *(RESOLVED[WIDTHS[dim]] if WIDTHS[dim] else five()))
    x = score.draw(500, (dim,))
    settings = {"moments": score.moments, "rtol": 1e-3, "atol": 1e-3}
    random = torch.Generator().manual_seed(0)
    found = Likelihood(KINDS[kind](count), **settings)(
        sde, score, x, lambda v: torch.randn(v.shape, generator=random, dtype=v.dtype)
    )
    error = found.model_log_prob - Likelihood(**settings)(sde, score, x).model_log_prob
    seen = found.probe_stderr > 1e-3  # or the solver's error would be all there is
    assert int(seen.sum()) > 300
    # two probes know their variance badly: a pull has a t law, of std 1.06 to 1.17 for normals, 1.32 for Hutch++
    few = {"hutchpp": 0.4, "gaussian": 0.25}.get(kind, 0.15) if count == 2 else 0.1
    assert float((error / found.probe_stderr)[seen].std()) == pytest.approx(1, abs=few)
    assert abs(float(error.mean())) < 4 * float(found.probe_stderr.square().mean().sqrt()) / 500**0.5


# --- what has no density ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task, guidance, guided",
    in_turn(
        ["likelihood", "bound", "encode", "overfitting", "ema", "work_precision"],
        [3, 0, 2, 0.5],
        [(), (), ("classifier=auto",), ("classifier=auto",)],
    ),
)
def test_a_guided_score_has_no_density(tmp_path, task, guidance, guided):
    words = ("data=digits", "data.condition=labels", "condition=3", f"guidance={guidance}", *guided)
    cfg = compose(f"task={task}", *words)
    built = task_of(cfg)
    with pytest.raises(ValueError, match=rf"guidance={guidance}: .*no density.*type guidance=1"):
        compatibility.densities(cfg, built)
    if task == "likelihood":
        with pytest.raises(ValueError, match="no density"):
            job(tmp_path, f"task={task}", *words, *TINY)
        assert not (tmp_path / "store").exists()
    compatibility.densities(cfg | {"guidance": 1.0}, built)


def task_of(cfg: dict):
    """The task of a configuration."""
    return schema.build(assemble.settle(cfg, assemble.build_data(cfg), "cpu")["task"], "task")


def test_guided_samples_stay():
    cfg = compose("task=sample", "data=digits", "data.condition=labels", "condition=3", "guidance=3")
    compatibility.densities(cfg, task_of(cfg))


NARROW = ("data=digits", "training.dequantise=none", "dequantisation=truncated_normal", "task=likelihood")


def warned_of_bins(caplog, *words: str) -> str:
    cfg, data = compose(*NARROW, *words), Digits()
    cfg = schema.settle(cfg, data.shape, {"device": "cpu", "batch": 8, "moments": None, "sigma_data": 1.0})
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        compatibility.bins(
            schema.build(cfg["task"], "task"), schema.build(cfg["sde"], "sde"), data, {"training": cfg["training"]}
        )
    return caplog.text


@pytest.mark.parametrize("sde", ["subvp", "custom"])
def test_noise_far_narrower_than_a_bin_is_told(caplog, sde):
    """Under what it says to type nothing is said any more."""
    words = [f"sde={sde}"] + (["sde.eps=1e-8"] if sde == "custom" else [])
    said = warned_of_bins(caplog, *words)
    assert "bins wide" in said and "too loose" in said.replace("\n", " ")
    advice = re.findall(r"type (sde\.eps=[^,]*),", said)[0]
    assert warned_of_bins(caplog, *words[:1], advice) == ""


@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_noise_that_fits_the_bins_is_not_complained_of(caplog, sde):
    assert warned_of_bins(caplog, f"sde={sde}") == ""


# --- the error that is asked for --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """A likelihood with given errors: log p = x + c tolerance^p, noise of probes and a spread of x."""

    scale: float
    power: float
    one_probe: float = 0.0
    seen: tuple = ()

    def __call__(self, likelihood: Likelihood, r: Tensor) -> dict[str, Tensor]:
        count = likelihood.probes.estimates(r.shape[1])
        stderr = torch.full((len(r),), self.one_probe / count**0.5, dtype=torch.float64)
        signs = torch.where(torch.arange(len(r)) % 2 == 0, 1.0, -1.0).double()
        log_prob = r[:, 0].double() + signs * self.scale * likelihood.rtol**self.power
        return {"log_prob": log_prob, "probe_stderr": stderr}


OPEN = Likelihood(Rademacher(None), rtol=None, atol=None)


@pytest.mark.parametrize("power", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("target", [0.3, 1e-2, 1e-4])
def test_the_tolerance_is_the_largest_that_will_do(power, target):
    r = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    found = effort.choose(OPEN, r, Known(2.0, power), target, 100)
    error = 2 * found.likelihood.rtol**power
    assert error < 0.55 * target and found.likelihood.atol == found.likelihood.rtol
    assert found.ode_error == pytest.approx(error, rel=0.25) and not found.floor
    assert error > 0.3 * target or found.likelihood.rtol == pytest.approx(1e-2)
    assert found.count == 100


def test_a_solver_at_its_floor_is_told():
    r = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    signs = torch.randn(50, generator=torch.Generator().manual_seed(1)).double()

    def rough(likelihood: Likelihood, points: Tensor) -> dict[str, Tensor]:
        wobble = 1e-3 * torch.sin(1e6 * signs[: len(points)] / likelihood.rtol)  # rounding
        return {"log_prob": likelihood.rtol + wobble, "probe_stderr": torch.zeros(len(points))}

    found = effort.choose(replace(OPEN, probes=BasisVectors()), r, rough, 1e-5, 50)
    assert found.floor and found.ode_error == pytest.approx(1e-3, rel=1) and found.likelihood.rtol >= 1e-8


@pytest.mark.parametrize("one_probe", [0.1, 3.0])
def test_probes_and_points_for_an_error(one_probe):
    """The points' spread is 1.5: their mean and that of the probes stay within the error asked for."""
    r = 1.5 * torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0))
    found = effort.choose(OPEN, r, Known(1e-3, 1.0, one_probe), 0.05, None)
    probes = found.likelihood.probes.count
    whole = math.sqrt((1.5**2 + one_probe**2 / probes) / found.count)
    assert 0.025 < whole < 0.055 and probes >= 2
    fixed = effort.choose(OPEN, r, Known(1e-3, 1.0, one_probe), 0.05, 400)
    assert fixed.count == 400
    assert one_probe / math.sqrt(400 * fixed.likelihood.probes.count) <= 0.025 or one_probe < 1
    assert fixed.likelihood.probes.count == (2 if one_probe < 1 else 36)


@pytest.mark.parametrize("count", [1, None])
def test_probes_follow_from_the_error_of_one_point_too(count):
    found = effort.choose(OPEN, torch.zeros(1, 3), Known(1e-3, 1.0, 3.0), 0.5, count)
    assert found.count == 1 and 3.0 / math.sqrt(found.likelihood.probes.count) <= 0.25


def test_what_the_user_gave_is_left_as_it_is():
    r = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    given = Likelihood(Rademacher(7), rtol=1e-3, atol=1e-4)
    found = effort.choose(given, r, Known(1.0, 1.0, 3.0), 1e-3, 100)
    assert found.likelihood == given and found.ode_error is None
    half = effort.choose(replace(given, rtol=None), r, Known(1.0, 1.0, 3.0), 1e-3, 100)
    assert half.likelihood.atol == 1e-4 and half.likelihood.probes == Rademacher(7)


WORDS = ("task=likelihood", "data=mixture", "model=oracle")


def test_an_error_is_reached_with_as_many_points_as_it_takes(tmp_path, capsys):
    loose = job(tmp_path, *WORDS, "likelihood.error=0.03")
    tight = job(tmp_path, *WORDS, "likelihood.error=0.01")
    for metrics, asked in ((loose, 0.03), (tight, 0.01)):
        assert metrics["likelihood_error_asked_nats_per_dim"] == asked
        assert 0.5 * asked < metrics["likelihood_error_reached_nats_per_dim"] < 1.02 * asked
        assert metrics["nll_uncertainty_nats"] == pytest.approx(
            2 * metrics["likelihood_error_reached_nats_per_dim"], rel=1e-9
        )
        assert abs(metrics["gap_nats"]) < 4 * metrics["gap_stderr"]
    assert tight["count"] == pytest.approx(9 * loose["count"], rel=0.3) and tight["nfe"] > loose["nfe"]


def test_an_error_that_the_points_do_not_allow_is_told(tmp_path, caplog):
    metrics = job(tmp_path, *WORDS, "likelihood.error=0.01", "count=50")
    assert metrics["count"] == 50 and metrics["likelihood_error_reached_nats_per_dim"] > 0.03
    assert "likelihood.error=0.01 is not reached" in caplog.text and "the points' own spread; give more" in caplog.text


@pytest.mark.parametrize("words", [("likelihood=hutchinson", "likelihood.probes.count=1"), ()])
def test_an_error_that_nothing_estimates_is_not_said_to_be_reached(tmp_path, caplog, words):
    """One probe has no standard error, though the points' spread holds its own; one point has no spread."""
    count = 50 if words else 1
    metrics = job(tmp_path, *WORDS, *words, "likelihood.error=0.01", f"count={count}")
    if count == 1:
        assert "likelihood.error=0.01 cannot be confirmed: the error from the points' own spread is" in caplog.text
        assert "give two or more" in caplog.text and "nan" not in caplog.text
    else:
        assert "is not reached" in caplog.text and "the points' own spread; give more" in caplog.text
    reached = metrics.get("likelihood_error_reached_nats_per_dim")
    assert reached is None if count == 1 else reached == pytest.approx(metrics["nll_uncertainty_nats"] / 2, rel=1e-6)


def test_added_points_meet_their_own_noise():
    """Scored in two parts, as after a pilot that saw too small a spread, and at once: the same."""
    sde, score = make_sde("vp"), Mixture(make_sde("vp"), *RESOLVED["heavy tails"])
    x = score.draw(40, (3,))
    data = Data(x, x, torch.zeros(3), torch.ones(3))
    scoring = Scoring(Likelihood(Rademacher(2), rtol=1e-3, atol=1e-3), batch=16, dtype="float64")
    whole = scoring.score(sde, score, data, x)
    first = scoring.score(sde, score, data, x[:24])
    target = float(whole["log_prob"].var()) ** 0.5 / 0.85 / 39.5**0.5
    joined = more_points(scoring, sde, score, data, x, first, None, target)
    assert len(joined["log_prob"]) > 24
    count = len(joined["log_prob"])
    for key in ("x", "log_prob", "probe_stderr"):
        torch.testing.assert_close(joined[key], whole[key][:count], rtol=0, atol=1e-8)


@pytest.mark.parametrize("task", ["bound", "overfitting", "ema"])
def test_other_tasks_refuse_an_error(task):
    with pytest.raises(ValueError, match=r"likelihood\.error=0\.01: only task=likelihood"):
        task_of(compose(f"task={task}", "likelihood.error=0.01")).check(None, Digits())


@pytest.mark.parametrize("words", [(), ("likelihood.rtol=1e-3", "likelihood.atol=1e-3")], ids=["effort", "tolerance"])
def test_errors_of_sorted_points_are_measured_on_a_random_part(tmp_path, monkeypatch, words):
    rows = torch.linspace(-2, 2, 400, dtype=torch.float64)[:, None].expand(-1, 2)
    np.save(tmp_path / "sorted.npy", rows.numpy())
    seen, plain, start = {}, Scoring.score, Likelihood.start_error

    def score(self, sde, score, data, r, y=None, what="scoring", **keys):
        seen.setdefault(what, r)
        return plain(self, sde, score, data, r, y, what, **keys)

    def start_error(self, sde, score, x, probes):
        seen["start"] = x
        return start(self, sde, score, x, probes)

    monkeypatch.setattr(Scoring, "score", score)
    monkeypatch.setattr(Likelihood, "start_error", start_error)
    job(tmp_path, *WORDS, *words, f"points={tmp_path}/sorted.npy", "task.batch=400")
    assert torch.equal(seen["scoring"], rows)  # in the user's own sequence
    first = seen["checking the solver" if words else "choosing an effort"]
    for part, count in ((first, 32), (seen["start"], 256)):
        assert len(part) == count and abs(float(part[:, 0].mean())) < 5 * float(part[:, 0].std()) / math.sqrt(count)


def test_points_are_drawn_with_their_own_y():
    r, y = torch.arange(40.0)[:, None], torch.arange(40.0)[:, None] + 0.5
    some, own = shuffled(r, y, 9)
    assert torch.equal(own, some + 0.5) and len(set(some[:, 0].tolist())) == 9 and float(some.max()) > 20
    assert (
        shuffled(r, y[:1], 9)[1] is not None and len(shuffled(r, y[:1], 9)[1]) == 1 and shuffled(r, None, 9)[1] is None
    )


@pytest.mark.parametrize("value", ["0", "-1", "small"])
def test_errors_that_cannot_be_asked_for(tmp_path, value):
    with pytest.raises(ValueError, match=rf"likelihood\.error={value}"):
        job(tmp_path, *WORDS, f"likelihood.error={value}")


def test_auto_yields_to_a_tolerance(tmp_path):
    metrics = job(tmp_path, *WORDS, "likelihood.rtol=1e-2", "likelihood.atol=1e-2", "count=30")
    assert "likelihood_error_asked_nats_per_dim" not in metrics
    metrics = job(tmp_path, *WORDS, "count=30")
    assert metrics["likelihood_error_asked_nats_per_dim"] == effort_of_auto()


def test_auto_says_what_else_is_left_unless_the_points_hide_it(caplog):
    task, data = make("task", "task=likelihood"), Data(torch.randn(9, 2), torch.randn(3, 2), 0.0, 1.0)
    metrics = {"nll_stderr": 0.02, "ode_error_nats": 1e-5, "start_error_nats": 0.1}
    with caplog.at_level(logging.INFO):
        found = reached(task.likelihood, data, metrics, 2e-4)
    assert found["likelihood_error_reached_nats_per_dim"] == pytest.approx(0.05, rel=1e-4)
    assert "0.05 nats a dimension are left, 0.05 of them from the start's correction; choose a smaller" in caplog.text
    assert all(record.levelno == logging.INFO for record in caplog.records)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        reached(task.likelihood, data, metrics | {"probe_stderr_nats": 0.2, "nll_stderr": 0.2}, 2e-4)
    assert "from the random probes; type a larger likelihood.probes.count, or" in caplog.text  # auto stops at a few
    caplog.clear()
    with caplog.at_level(logging.INFO):
        reached(task.likelihood, data, metrics | {"nll_stderr": 0.6}, 2e-4)
        reached(task.likelihood, data, metrics | {"probe_stderr_nats": math.nan}, 2e-4)
    assert not caplog.text


def test_one_held_out_point_asks_for_no_more():
    task, data = make("task", "task=likelihood"), Data(torch.randn(9, 2), torch.randn(1, 2), 0.0, 1.0)
    result = {"log_prob": torch.tensor([-1.0])}
    assert more_points(task.scoring, None, None, data, data.test, result, None, 0.01) is result


def effort_of_auto() -> float:
    return SHOWN["nats a dimension"]


def test_an_error_in_bits_is_reached(tmp_path):
    """The error of integers is in bits a dimension, and is reached with a network too."""
    words = (
        "task=likelihood",
        "data=digits",
        "model.channels=[8]",
        "model.attention=[]",
        *TINY,
        "training.steps=20",
        "count=6",
    )
    metrics = job(tmp_path, *words, "likelihood.error=2", "likelihood.rtol=1e-2", "likelihood.atol=1e-2")
    assert metrics["likelihood_error_asked_bits_per_dim"] == pytest.approx(2)
    assert metrics["likelihood_error_reached_bits_per_dim"] <= 2
    assert metrics["likelihood_error_reached_bits_per_dim"] == pytest.approx(
        metrics["bits_per_dim_uncertainty"], rel=1e-9
    )
