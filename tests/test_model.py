"""The Python interface: fit, Model, load and the estimator of scikit-learn, beside exact answers and the CLI."""

import copy
import math
import os

import numpy as np
import pandas
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import scoresde
from scoresde.data import Mixture, Moons
from scoresde.likelihood import Likelihood
from scoresde.models import EDM, MLP, Oracle, ScoreModel
from scoresde.samplers import EulerMaruyama, PredictorCorrector, Uniform
from scoresde.sde_lib import VP
from scoresde.training import Trainer

from .conftest import SDES, choices, make

MEAN, COVARIANCE = np.array([3.0, -40.0, 0.02]), np.array([[1.0, 4.0, 0.0], [4.0, 25.0, 0.01], [0.0, 0.01, 1e-4]])
NAMES = ["mass", "energy", "charge"]


@pytest.fixture(scope="module")
def table():
    """Correlated columns of unlike units, sorted by the first one, as files often are."""
    x = np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, 3000)
    return pandas.DataFrame(x[x[:, 0].argsort()], columns=NAMES)


@pytest.fixture(scope="module")
def fitted(table):
    return scoresde.fit(table, sde="vp", steps=600, verbose=False)


@pytest.fixture(scope="module")
def mixture():
    data = Mixture([1.0, 2.0], [[0.0, 0.0], [4.0, 1.0]], [1.0, 0.5], count=3000, test_count=500)
    return scoresde.Model(VP(), Oracle(VP(), data.components()), data)


# --- fit --------------------------------------------------------------------------------------------------------------


def test_a_fitted_density_is_the_data_s(fitted, table):
    """In the units of the columns, which differ by a factor of 500."""
    x = table.to_numpy()[::10]
    truth = multivariate_normal(MEAN, COVARIANCE).logpdf(x)
    found = fitted.log_prob(table.iloc[::10])
    assert found.dtype == np.float64 and abs(found.mean() - truth.mean()) < 0.05
    drawn = fitted.sample(4000, sampler="unipc", seed=1)
    assert list(drawn) == NAMES
    np.testing.assert_allclose(drawn.std(), np.sqrt(COVARIANCE.diagonal()), rtol=0.1)
    np.testing.assert_allclose(drawn.mean(), MEAN, atol=0.1 * np.sqrt(COVARIANCE.diagonal()).max())


def test_nothing_is_written(tmp_path, monkeypatch, table):
    monkeypatch.chdir(tmp_path)
    model = scoresde.fit(table.to_numpy()[:50], steps=3, verbose=False)
    model.sample(2), model.log_prob(table.to_numpy()[:2])
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("kind", ["array", "tensor", "frame", "list", "path", "column"])
def test_every_kind_of_data_gives_one_network(kind, table, tmp_path):
    x = table.to_numpy()[:200]
    frame = table.iloc[:200]
    np.save(tmp_path / "x.npy", x)
    given = {"array": x, "tensor": torch.from_numpy(x), "frame": frame, "list": x.tolist(), "path": tmp_path / "x.npy"}
    if kind == "column":
        assert scoresde.fit(x[:, 0], steps=2, verbose=False).sample(3).shape == (3, 1)
        return
    model, again = (scoresde.fit(each, sde="vp", steps=4, verbose=False) for each in (given[kind], x))
    for key, value in again.score.state_dict().items():
        assert torch.equal(value, model.score.state_dict()[key]), key
    drawn = model.sample(5, "em", steps=4)
    assert {"tensor": torch.Tensor, "frame": pandas.DataFrame}.get(kind, np.ndarray) is type(drawn)
    np.testing.assert_array_equal(np.asarray(drawn), again.sample(5, "em", steps=4))


def test_fit_and_sample_are_those_of_the_command_line(tmp_path, monkeypatch):
    """The network of fit(path) is the command line's, found in its store; and so are its samples and densities."""
    x = np.random.default_rng(3).normal(size=(300, 2)) * [1.0, 7.0]
    np.save(tmp_path / "x.npy", x)
    monkeypatch.chdir(tmp_path)
    words = ["data=arrays", "data.path=x.npy", "sde=vp", "training.vectors.steps=20", "sampler=em", "sampler.steps=5"]
    from scoresde.conf.compose import composed

    for task in ("sample", "likelihood"):
        cfg, chosen = composed([*words, f"task={task}", "count=20", "logger=none"])
        scoresde.run(cfg, chosen, tmp_path / task)
    (folder,) = (tmp_path / "checkpoints").glob("arrays-*")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.glob("step-*"))
    model = scoresde.fit("x.npy", sde="vp", steps=20, store="checkpoints", verbose=False)
    assert [path.name for path in (tmp_path / "checkpoints").glob("arrays-*")] == [folder.name]
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.glob("step-*")) == before, "it trained anew"
    np.testing.assert_array_equal(model.sample(20, "em", steps=5), np.load(tmp_path / "sample" / "samples.npz")["x"])
    scored = np.load(tmp_path / "likelihood" / "likelihood.npz")
    np.testing.assert_allclose(model.log_prob(scored["x"]), scored["log_prob"], atol=2e-3)


def test_a_store_trains_once_and_a_renamed_folder_loads(tmp_path, table):
    x = table.to_numpy()[:100]
    model = scoresde.fit(x, steps=5, store=tmp_path / "store", verbose=False)
    again = scoresde.fit(x, steps=5, store=tmp_path / "store", verbose=False)
    (folder,) = (tmp_path / "store").iterdir()
    np.testing.assert_array_equal(model.sample(4, "em", steps=3), again.sample(4, "em", steps=3))
    folder.rename(tmp_path / "mine")
    loaded = scoresde.load(tmp_path / "mine")
    np.testing.assert_array_equal(model.log_prob(x[:5]), loaded.log_prob(x[:5]))
    assert model.training[-1]["step"] == 5


def test_a_path_finds_the_labels_and_a_name_a_data_set(tmp_path, table):
    frame = table.iloc[:60].assign(kind=["a", "b", "c"] * 20)
    frame.to_csv(tmp_path / "x.csv", index=False)
    model = scoresde.fit(tmp_path / "x.csv", steps=2, labels="kind", condition="labels", verbose=False)
    assert model.sample(2, "em", given="b", steps=2).shape == (2, 3) and model.data.condition.names == ("a", "b", "c")
    moons = scoresde.fit("moons", steps=2, overrides=["data.count=50", "data.test_count=10"], verbose=False)
    assert isinstance(moons.data, Moons) and len(moons.data.train) == 50


def test_an_sde_of_ones_own_is_fitted_and_not_stored(tmp_path, table):
    class Mine(VP):
        pass

    x = table.to_numpy()[:50]
    model = scoresde.fit(x, sde=Mine(), steps=2, verbose=False)
    assert isinstance(model.sde, Mine) and model.sample(2, "em", steps=2).shape == (2, 3)
    with pytest.raises(ValueError, match="made of parts of your own"):
        model.save(tmp_path / "net")
    with pytest.raises(ValueError, match="store="):
        scoresde.fit(x, sde=Mine(), steps=2, store=tmp_path, verbose=False)
    ours = scoresde.fit(x, sde=VP(beta_max=15.0), steps=2, verbose=False)
    assert scoresde.load(ours.save(tmp_path / "net")).sde == VP(beta_max=15.0)


def test_images_of_bytes_stay_bytes():
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    model = scoresde.fit(x, sde="vp", model="unet_small", steps=2, verbose=False)
    drawn = model.sample(2, nfe=3)
    assert drawn.dtype == np.uint8 and drawn.shape == (2, 1, 8, 8) and "integers 0 ... 255" in repr(model)
    log_prob, stderr = model.log_prob(x[:2, None], stderr=True)
    assert np.isfinite(log_prob).all() and (stderr > 0).all()


# --- conditions -------------------------------------------------------------------------------------------------------


def test_p_of_x_given_numbers(table, tmp_path):
    model = scoresde.fit(table, sde="vp", steps=600, condition=["mass"], verbose=False)
    drawn = model.sample(4000, "unipc", given={"mass": 4.0})
    assert list(drawn) == ["energy", "charge"]
    assert abs(drawn["energy"].mean() - (-40 + 4)) < 0.5 and abs(drawn["energy"].std() - 3) < 0.5
    # a frame that holds y is scored given its own y, an array given that of the call
    rows = table.iloc[:4]
    own = model.log_prob(rows)
    by_hand = model.log_prob(rows[["energy", "charge"]].to_numpy(), given=rows["mass"].tolist())
    np.testing.assert_array_equal(own, by_hand)
    loaded = scoresde.load(model.save(tmp_path / "net"))
    np.testing.assert_array_equal(loaded.log_prob(rows), own)
    with pytest.raises(ValueError, match="give the y of these samples"):
        loaded.sample(2)
    with pytest.raises(ValueError, match=r"p\(x \| y\)"):
        model.impute(rows)


def test_known_columns_of_a_joint_model(mixture):
    """Samples given one coordinate follow the exact posterior of the mixture, and hold the value."""
    drawn = mixture.sample(2000, given={"1": 1.0})
    assert (drawn[:, 1] == 1.0).all()
    weights = np.array([1 / 3 * math.exp(-0.5), 2 / 3 / 0.5])  # times N(1; mean, std) without the common factor
    share = weights[1] / weights.sum()
    assert abs((drawn[:, 0] > 2.2).mean() - share) < 0.06


def test_imputation_keeps_what_is_known(fitted, table):
    rows = table.iloc[:60].assign(note="kept").sample(frac=1, random_state=0)
    gaps = rows.copy()
    gaps.iloc[::2, 1] = np.nan
    filled = fitted.impute(gaps)
    assert list(filled) == [*NAMES, "note"] and filled.index.equals(rows.index)
    assert not filled.isna().any().any() and (filled["note"] == "kept").all()
    np.testing.assert_array_equal(filled.iloc[1::2, :3], rows.iloc[1::2, :3])
    np.testing.assert_array_equal(filled[["mass", "charge"]], rows[["mass", "charge"]])
    draws = fitted.impute(gaps[NAMES].to_numpy(), draws=50)
    expected = -40 + 4 * (rows["mass"].to_numpy()[::2] - 3)  # nearly: charge tells little more
    assert draws.shape == (60, 50, 3)
    assert abs((draws[::2, :, 1].mean(1) - expected).mean()) < 1.0
    assert abs(draws[::2, :, 1].std(1).mean() - 3) < 0.6
    whole = fitted.impute(rows)
    pandas.testing.assert_frame_equal(whole[NAMES], rows[NAMES])


# --- units ------------------------------------------------------------------------------------------------------------


def test_a_density_in_model_units_is_not_taken_for_the_data_s(fitted, table):
    """The trap: found.log_prob was the density in model units, by the name of the one in data units."""
    sde, score, data = fitted
    x = torch.from_numpy(table.to_numpy()[:5])
    found = Likelihood()(sde, score, data.encode(x).float())
    with pytest.raises(TypeError):
        found.log_prob + 0
    np.testing.assert_allclose(found.log_prob(data), fitted.log_prob(table.iloc[:5]), atol=1e-3)
    np.testing.assert_allclose(found.model_log_prob + data.log_det, found.log_prob(data))
    assert abs(data.log_det) > 1


def test_codes_are_the_prior_s_and_come_back(fitted, table):
    z = fitted.encode(table)
    assert abs(z.std() / fitted.sde.prior_std - 1) < 0.1
    back = fitted.decode(z[:20])
    np.testing.assert_allclose(back, table.iloc[:20], rtol=1e-3, atol=1e-3)
    tensor = fitted.encode(torch.from_numpy(table.to_numpy()[:2]))
    assert isinstance(tensor, torch.Tensor) and isinstance(fitted.decode(tensor), torch.Tensor)


def test_the_exact_score_made_by_hand(mixture):
    x = mixture.data.test[:200]
    np.testing.assert_allclose(mixture.log_prob(x), mixture.data.true_log_prob(x), atol=2e-3)
    assert "Oracle" in repr(mixture) and "Mixture" in repr(mixture)
    with pytest.raises(ValueError, match="made of parts of your own"):
        mixture.save("nowhere")


# --- a result depends on no batch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["exact", "hutchinson"])
def test_a_density_depends_on_no_batch(fitted, table, likelihood):
    """But for the rounding of functions of time; random probes are those of the point, whatever the steps of others."""
    x = table.to_numpy()[:19]
    whole = fitted.log_prob(x, likelihood=likelihood)
    for batch in (3, 16):
        np.testing.assert_allclose(fitted.log_prob(x, likelihood=likelihood, batch=batch), whole, atol=1e-5)
    exactly = fitted.log_prob(x, dtype="float64")
    np.testing.assert_allclose(fitted.log_prob(x[4:5], dtype="float64"), exactly[4:5], atol=1e-9)


@pytest.mark.parametrize("sampler", ["auto", "em", "adaptive", "ode"])
def test_a_sample_depends_on_no_batch(fitted, sampler):
    keys = {"steps": 7} if sampler == "em" else {}
    whole = fitted.sample(9, sampler, **keys)
    for each in (fitted.sample(9, sampler, batch=4, **keys), fitted.sample(2, sampler, **keys)):
        np.testing.assert_allclose(each, whole.iloc[: len(each)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in choices("model") if name not in ("auto", "oracle", "diffusers")])
def test_a_score_depends_on_no_batch(name):
    """Bitwise, on a CPU, of every network of ours: also of one sample by itself, and of an odd shape."""
    shape = (1,) if name in ("mlp", "energy_mlp") else (3, 8, 6)
    keys = [] if name not in ("ncsnpp", "ddpmpp", "ddpm") else ["model.channels=32"]
    torch.manual_seed(0)
    try:
        net = make("model", f"model={name}", *keys, shape=shape)
    except Exception:
        net = make("model", f"model={name}", shape=shape)
    with torch.no_grad():
        for weights in net.parameters():  # last layers start from zero
            weights += 0.05 * torch.randn(weights.shape)
    score = ScoreModel(VP(), net, EDM(1.0)).eval()
    x, t = torch.randn(33, *shape), torch.linspace(0.01, 1, 33)
    with torch.no_grad():
        whole = score(x, t)
        for count in (1, 2, 3, 7, 16, 17):
            assert torch.equal(score(x[:count], t[:count]), whole[:count]), count


# --- parts by hand ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SDES)
def test_a_plain_number_is_a_time(name):
    sde = make("sde", f"sde={name}")
    t = 0.5 * (sde.eps + sde.T)
    tensor = torch.tensor(t, dtype=torch.float64)
    for method in ("f", "g", "alpha", "sigma", "half_log_snr"):
        value = getattr(sde, method)(t)
        assert value.dtype == torch.float64 and value.shape == ()
        assert torch.equal(value, getattr(sde, method)(tensor)), method
    assert float(sde.time(float(sde.half_log_snr(t)))) == pytest.approx(t, rel=1e-3)
    x, z = torch.randn(2, 5, 3)
    each = torch.full((5,), t)
    torch.testing.assert_close(sde.perturb(x, t, z), sde.perturb(x, each, z))
    score = Oracle(sde, (torch.ones(1), torch.zeros(1, 3), torch.ones(1)))
    torch.testing.assert_close(score(x, t), score(x, each))
    torch.testing.assert_close(sde.denoise(score, x, t), sde.denoise(score, x, each))
    torch.testing.assert_close(sde.reverse(score).drift(x, t), sde.reverse(score).drift(x, each))
    net = ScoreModel(sde, MLP((3,)), EDM(1.0))
    torch.testing.assert_close(net(x, t), net(x, each))
    a, b = sde.transition(sde.eps, t)
    assert 0 < float(a) <= 1 + 1e-6 and float(b) > 0


def test_a_sampler_draws_by_itself(fitted):
    """draw() needs no noise, and draws what the command line draws; a call without a source takes torch's."""
    sde, score, data = fitted
    sampler = PredictorCorrector(Uniform(), steps=4, predictor=EulerMaruyama())
    x = sampler.draw(sde, score, (6, 3), seed=2)
    assert torch.equal(x[:2], sampler.draw(sde, score, (2, 3), seed=2))
    np.testing.assert_array_equal(data.decode(x.double()), fitted.sample(6, sampler, seed=2))
    assert not torch.equal(x, sampler.draw(sde, score, (6, 3), seed=3))
    assert sampler(sde, score, torch.randn(2, 3)).shape == (2, 3)


def test_the_same_parts_by_hand(table):
    """fit is thin: the trainer, the network and the data of the yamls, called by hand, end in the same weights."""
    x = table.to_numpy()[:100]
    model = scoresde.fit(x, sde="vp", steps=3, seed=5, verbose=False)
    trainer = Trainer(model_loss(), **trainer_keys(model), steps=3, seed=5)
    with trainer.seeded():
        net = ScoreModel(VP(), MLP((3,)), EDM(round(model.data.std, 6)))
    by_hand = trainer.fit(VP(), net, model.data, show=False)
    for key, value in model.score.state_dict().items():
        assert torch.equal(value, by_hand.state_dict()[key])


def model_loss():
    return make("training.loss", "data=moons", "sde=vp")


def trainer_keys(model) -> dict:
    node = model.described["training"]
    return {key: node[key] for key in ("batch", "rate", "warmup", "schedule", "clip", "ema")} | {
        "betas": tuple(node["betas"])
    }


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: m.sample(0), "count=0"),
        (lambda m: m.sample(2, "unipcc"), "did you mean sampler=unipc"),
        (lambda m: m.sample(2, "em", stpes=3), "did you mean sampler.steps"),
        (lambda m: m.sample(2, "em", steps=2.5), "sampler.steps=2.5"),
        (lambda m: m.sample(2, PredictorCorrector(Uniform(), 4, EulerMaruyama()), steps=3), "steps: set them on"),
        (lambda m: m.sample(2, guidance=2.0), "guidance=2.0"),
        (lambda m: m.sample(2, given=3), "given=3"),
        (lambda m: m.sample(2, given={"mas": 1.0}), "no column 'mas'; the columns are mass, energy, charge"),
        (lambda m: m.sample(2, given={"mass": math.nan}), "finite number"),
        (lambda m: m.sample(2, given=dict.fromkeys(NAMES, 1.0)), "every column is known"),
        (lambda m: m.log_prob(np.zeros((2, 4))), r"\(2, 4\)"),
        (lambda m: m.log_prob(np.zeros(3)), r"x\[None\]"),
        (lambda m: m.log_prob(np.full((2, 3), np.nan)), "impute"),
        (lambda m: m.log_prob(np.full((2, 3), 1e30)), "standard deviations"),
        (lambda m: m.log_prob(pandas.DataFrame({"mass": [1.0]})), "no column energy, charge"),
        (lambda m: m.log_prob([["a", "b", "c"]]), "real numbers"),
        (lambda m: m.log_prob(np.zeros((2, 3)), given=1), "given=1"),
        (lambda m: m.impute(np.zeros((2, 3)), draws=0), "draws=0"),
        (lambda m: m.decode(np.zeros((2, 4))), r"\(2, 4\)"),
    ],
)
def test_a_mistake_gets_one_message(fitted, call, message):
    with pytest.raises(ValueError, match=message):
        call(fitted)


@pytest.mark.parametrize(
    "x, keys, message",
    [
        ("monos", {}, "did you mean 'moons'"),
        ("nope.csv", {}, "nope.csv"),
        (np.zeros((1, 2)), {}, "1 example"),
        (np.zeros((5, 2)), {}, "all training examples are equal"),
        (np.array([[1.0, np.inf]] * 4), {}, "infinite"),
        (np.eye(4), {"steps": -1}, "steps=-1"),
        (np.eye(4), {"sde": "vpp"}, "did you mean sde=vp"),
        (np.eye(4), {"labels": [1, 2]}, r"`labels` are of shape \(2,\) for 4 examples"),
        (np.eye(4), {"condition": "labels"}, "no labels"),
        (np.eye(4), {"condition": [7]}, "no column 7"),
        (np.eye(4), {"device": "tpu"}, "device"),
        (pandas.DataFrame({"a": ["x", "y", "z"], "b": [1, 2, 3]}), {}, "column 'a' is not numeric"),
        (pandas.DataFrame(np.eye(3), columns=["a", "a", "b"]), {}, "two columns called 'a'"),
        ([[1, 2], [3]], {}, "different lengths"),
        (Moons(count=10, test_count=5), {"labels": "kind"}, "a data set has its own"),
    ],
)
def test_what_cannot_be_fitted_gets_one_message(x, keys, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        scoresde.fit(x, **({"steps": 2} | keys), verbose=False)


def test_hydra_s_state_is_left_alone(tmp_path):
    """An application of Hydra, initialised or not, finds its own state after a call."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from scoresde.conf.compose import _composed, composed

    (tmp_path / "mine.yaml").write_text("a: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        _composed.cache_clear()
        composed(["sde=vp"])
        assert compose("mine").a == 1
    assert not GlobalHydra.instance().is_initialized()


# --- scikit-learn -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_s_own_checks_pass():
    results = check_estimator(scoresde.ScoreDensity(steps=20), on_skip=None)
    assert len(results) > 30 and {each["status"] for each in results} <= {"passed", "skipped"}
    assert [each["check_name"] for each in results if each["status"] == "skipped"] in ([], ["check_array_api_input"])


def test_the_estimator_in_a_pipeline_and_a_search(table):
    x = table.to_numpy()[::10]
    estimator = scoresde.ScoreDensity(steps=30, random_state=1)
    again = clone(estimator)
    assert again.get_params() == estimator.get_params()
    scores = estimator.fit(x).score_samples(x)
    np.testing.assert_array_equal(scores, again.fit(x).score_samples(x))
    np.testing.assert_array_equal(scores[7:8], estimator.score_samples(x[7:8]))
    assert estimator.score(x) == scores.sum() and estimator.sample(3).shape == (3, 3)
    piped = make_pipeline(StandardScaler(), scoresde.ScoreDensity(steps=30)).fit(x)
    assert np.isfinite(piped.score_samples(x[:3])).all()
    search = GridSearchCV(scoresde.ScoreDensity(), {"steps": [2, 60]}, cv=2).fit(x)
    assert search.best_params_ == {"steps": 60}
    named = scoresde.ScoreDensity(steps=2).fit(table.iloc[:50])
    assert list(named.feature_names_in_) == NAMES
    copied = copy.deepcopy(estimator)
    np.testing.assert_array_equal(copied.sample(2, random_state=3), estimator.sample(2, random_state=3))
