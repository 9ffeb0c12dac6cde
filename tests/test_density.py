"""Data without a density: what repeats is measured, densities of it are refused or warned of, and the remedies work."""

import logging
import math
import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from omegaconf import OmegaConf

from scoresde.conf import assemble, density, schema
from scoresde.data import Arrays, Conditional, repeats
from scoresde.data.dependence import combinations
from scoresde.sde_lib import VP
from tests.conftest import ROOT, choices, make
from tests.test_cli import TINY, job

N = 1500
REPORTS, SAMPLES = SimpleNamespace(reports_density=True), SimpleNamespace()


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return generator().normal(size=shape)


def with_zeros(share: float, *shape: int) -> np.ndarray:
    """Normals whose first value in every row is 0 with some probability."""
    x = normal(*shape).reshape(shape[0], -1)
    x[:, 0] *= np.random.default_rng(1).random(shape[0]) >= share
    return x.reshape(shape)


def with_column(column: np.ndarray, count: int = 2) -> np.ndarray:
    return np.column_stack([normal(len(column), count), column])


def with_pixel(pixel: np.ndarray) -> np.ndarray:
    x = normal(len(pixel), 1, 6, 5)
    x[:, 0, 2, 3] = pixel
    return x


def copied(x: np.ndarray, count: int) -> np.ndarray:
    return np.random.default_rng(1).permutation(np.concatenate([x, x[:count]]))


def saved(path, x: np.ndarray, names: list[str] | None = None) -> str:
    if names is None:
        np.save(path / "x.npy", x)
        return str(path / "x.npy")
    rows = [",".join(f'"{name}"' for name in names), *(",".join(map(repr, row)) for row in x.tolist())]
    (path / "x.csv").write_text("\n".join(rows) + "\n")
    return str(path / "x.csv")


def arrays(path, x: np.ndarray, names: list[str] | None = None, **keys) -> Arrays:
    return Arrays(saved(path, x, names), axes="nchw" if x.ndim == 4 else None, **keys)


def typed(*words: str):
    """The data=arrays that keys data.NAME=VALUE make, read by Hydra's own grammar."""
    node, parser = {"_target_": "data.Arrays"}, OverridesParser.create()
    for each in parser.parse_overrides([word.removeprefix("data.") for word in words]):
        node[each.key_or_group] = plain(each.value())
    cfg = {"data": node, "classifier": None, "store": ""}
    schema.check(node, "data")
    return assemble.build_data(cfg)


def plain(value):
    """A parsed value without the marks of its quotes."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.text if isinstance(value, QuotedString) else value


def said(caplog, task, data, eps: float = 1e-3) -> tuple[str, dict]:
    """The one warning of a check, '' without one, and its metrics."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        metrics = density.check(task, VP(eps=eps), data)
    assert len(caplog.records) <= 1
    return (caplog.records[0].getMessage() if caplog.records else ""), metrics


# ---- the mathematics --------------------------------------------------------------------------------------------


def blurred_nll(x: np.ndarray, values: np.ndarray, weights: np.ndarray, k: float) -> float:
    """The mean of -log p_k, p_k the law of the values with noise of std k, summed over independent columns."""
    squares = -((x[..., None] - values) ** 2) / (2 * k * k)
    top = squares.max(-1, keepdims=True)
    log_p = np.log((weights * np.exp(squares - top)).sum(-1)) + top[..., 0] - math.log(k * math.sqrt(2 * math.pi))
    return float(-log_p.sum(-1).mean())


def test_a_tenfold_smaller_noise_takes_off_what_the_metric_says(tmp_path):
    """The exact NLL of the perturbed law of whole numbers, from k to k/10."""
    x = generator().integers(0, 6, (N, 3)).astype(float)
    found = repeats.measure(arrays(tmp_path, x), 0.01)
    values, weights = np.arange(6.0), np.full(6, 1 / 6)
    exact = blurred_nll(x, values, weights, 0.01) - blurred_nll(x, values, weights, 0.001)
    assert found.per_row == 3.0 and exact == pytest.approx(math.log(10) * found.per_row, rel=1e-9)


def test_the_step_that_the_noise_resolves_is_twice_its_width():
    """A grid's density at its points over the continuous law's, by a sum over the grid."""
    steps = np.arange(-200, 201)
    for ratio, nats in ((2.0, 0.014), (3.0, 0.20), (10.0, 1.38)):
        excess = math.log(ratio / math.sqrt(2 * math.pi) * np.exp(-((steps * ratio) ** 2) / 2).sum())
        assert excess == pytest.approx(nats, abs=0.006)


@pytest.mark.parametrize("count", [300, 9000])
@pytest.mark.parametrize(("ratio", "harm"), [(0.5, False), (1.3, False), (1.95, False), (2.1, True), (10.0, True)])
def test_a_grid_passes_where_the_noise_is_wider_than_its_step(tmp_path, ratio, harm, count):
    k = 0.02
    x = generator().normal(size=(count, 2))
    x = np.round(x / (ratio * k)) * ratio * k
    data = arrays(tmp_path, x / x.std(0))
    found = repeats.measure(data, k)
    assert bool(found.repeated) == harm
    if harm and count > 1000:
        assert found.per_row > 1.8


def test_equal_rows_are_counted_exactly_and_told_from_chance_on_a_grid(tmp_path):
    share = 2 * 300 / 1800
    for x in (normal(1500, 3), normal(1500, 6).round(3), normal(1500, 1, 5, 6), with_zeros(0.4, 1500, 3)):
        data = arrays(tmp_path, copied(x, 300))
        assert repeats.measure(data, 0.01).copies == pytest.approx(share)
    for x in (generator().integers(0, 40, (N, 2)).astype(float), normal(20_000, 2).round(2)):
        assert repeats.measure(arrays(tmp_path, x), 0.01).copies == 0.0
    rows = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]])
    codes = repeats.hashed(rows)
    assert codes[0] == codes[1] != codes[2]
    assert (codes - repeats.hashed(rows, 1) == repeats.hashed(rows, 0)).all()


def test_copies_do_not_make_columns_repeat(tmp_path):
    found = repeats.measure(arrays(tmp_path, copied(normal(N, 6), 500)), 1e-4)
    assert not found.repeated and found.copies > 0.4


# ---- no false alarm ---------------------------------------------------------------------------------------------

SOUND = {
    "float32": lambda: normal(12_000, 3).astype(np.float32),
    "float64": lambda: normal(12_000, 3),
    "one column of float32": lambda: normal(12_000, 1).astype(np.float32),
    "Student t 1.5": lambda: generator().standard_t(1.5, (12_000, 3)).astype(np.float32),
    "log-normal": lambda: np.exp(2 * normal(12_000, 2)).astype(np.float32),
    "a square of heavy tails": lambda: (lambda t: np.column_stack([t, t**2]))(generator().standard_t(0.7, N)),
    "uniform float32": lambda: generator().random((12_000, 2)).astype(np.float32),
    "rounded to 1e-6": lambda: normal(12_000, 2).round(6),
    "float16": lambda: normal(12_000, 1).astype(np.float16),
    "float16 in two columns": lambda: normal(12_000, 2).astype(np.float16),
    "ten rows": lambda: normal(10, 3),
    "fewer rows than columns": lambda: normal(20, 40),
    "a large mean": lambda: 1e6 + normal(N, 2),
    "whole numbers up to a million": lambda: generator().integers(0, 10**6, (N, 2)).astype(float),
    "a ridge 1 : 1000": lambda: (lambda x: np.column_stack([x, x + 1e-3 * np.random.default_rng(1).normal(size=N)]))(
        normal(N)
    ),
    "a ridge 1 : 100,000": lambda: (lambda x: np.column_stack([x, x + 1e-5 * np.random.default_rng(1).normal(size=N)]))(
        normal(N)
    ),
    "rounded to twice the noise, in two columns": lambda: normal(2000, 2).round(2),
    "millimetres in metres": lambda: 1e-3 * normal(N, 3),
    "millimetres in metres, a ridge 1 : 200": lambda: (
        lambda x: 1e-3 * np.column_stack([x, x + 5e-3 * np.random.default_rng(1).normal(size=N)])
    )(normal(N)),
    "pictures": lambda: normal(400, 3, 6, 5).astype(np.float32),
    "pictures of 256 greys": lambda: generator().integers(0, 256, (300, 1, 6, 5)) / 255,
}


@pytest.mark.parametrize("kind", SOUND)
def test_no_false_alarm(tmp_path, caplog, kind):
    assert said(caplog, REPORTS, arrays(tmp_path, SOUND[kind]())) == ("", {})
    assert said(caplog, SAMPLES, arrays(tmp_path, SOUND[kind]())) == ("", {})


DRAWN = [name for name in choices("data") if "count: 200" in (ROOT / f"conf/data/{name}.yaml").read_text()]


def drawn(name: str):
    """Some draws of a data set with a known density."""
    node = OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/data/{name}.yaml"))
    node = {key: value for key, value in node.items() if key != "defaults"}
    return schema.build(node | {"count": 3000, "test_count": 100}, "data")


@pytest.mark.parametrize("name", [name for name in DRAWN if name not in ("line", "heartbeat")])
def test_no_false_alarm_on_data_with_a_known_density(caplog, name):
    assert said(caplog, REPORTS, drawn(name)) == ("", {})


def test_a_line_in_the_plane_has_no_density():
    with pytest.raises(ValueError, match="column 1 is a linear combination of column 0: these data have no density"):
        density.check(REPORTS, VP(), drawn("line"))


@pytest.mark.parametrize("condition", [None, [0]])
@pytest.mark.parametrize("name", DRAWN)
def test_generated_data_are_not_spoken_of_as_a_file(caplog, name, condition):
    """And where nothing asks for their density nothing is said."""
    data = drawn(name)
    if condition and data.levels is None:
        data = Conditional(data, condition)
    assert said(caplog, SAMPLES, data) == ("", {})
    try:
        message, _ = said(caplog, REPORTS, data)
    except ValueError as error:
        message = str(error)
        assert message.endswith("Choose other data, or a task that reports no density, as task=sample")
    assert "file" not in message


# ---- what is warned of, and what is refused ---------------------------------------------------------------------


def price(count: int) -> np.ndarray:
    return generator().lognormal(2, 1, count).round(2)


WARNED = {  # rows, what the message says of them, and the share of examples
    "whole numbers": (lambda: generator().integers(0, 6, (N, 2)).astype(float), "whole numbers, 0 ... 5", 1.0),
    "whole numbers below 0": (
        lambda: generator().integers(-3, 3, (N, 2)).astype(float),
        "whole numbers, -3 ... 2",
        1.0,
    ),
    "whole numbers in one column": (
        lambda: with_column(generator().integers(-9, 9, N)),
        "100 % of the values of column 2 repeat, on a grid of step 1",
        1.0,
    ),
    "counts with a long tail": (
        lambda: with_column(np.append(generator().poisson(3, N - 1), 90_000.0).clip(0, 90)),
        "of the values of column 2 repeat, on a grid of step 1",
        1.0,
    ),
    "rounded": (lambda: normal(N, 2).round(1), "of the values of column 0 repeat, on a grid of step 0.1", 1.0),
    "70 % zeros": (lambda: with_zeros(0.7, N, 2), r"column 0 is 0 in \d\d(\.\d)? % of the rows", 0.7),
    "one column with zeros": (lambda: with_zeros(0.7, N, 1), r"column 0 is 0 in \d\d(\.\d)? % of the rows", 0.7),
    "zeros of a computation": (
        lambda: with_column(np.where(generator().random(N) < 0.7, 1e-17 * normal(N), normal(N))),
        r"column 2 is -?\d\.\d+e-\d\d in \d\d(\.\d)? % of the rows",
        0.7,
    ),
    "whole numbers up to rounding": (
        lambda: generator().integers(0, 6, (N, 2)) + 1e-12 * normal(N, 2),
        "100 % of the values of column . repeat, on a grid of step 1",
        1.0,
    ),
    "almost constant": (
        lambda: with_column(np.where(generator().random(N) < 0.98, 5.0, normal(N))),
        r"column 2 is 5 in 9\d(\.\d)? % of the rows",
        0.98,
    ),
    "a rare pixel": (
        lambda: with_pixel(np.where(generator().random(N) < 0.98, -0.0, normal(N))),
        r"pixel \[0,2,3\] is 0 in 9\d(\.\d)? % of the rows",
        0.98,
    ),
    "a pixel that hardly varies": (
        lambda: with_pixel(1e-4 * generator().random(N)),
        r"pixel \[0,2,3\] hardly varies",
        1.0,
    ),
    "eight greys": (
        lambda: (generator().integers(0, 8, (300, 1, 6, 5)) / 7).astype(np.float32),
        "30 of 30 pixels hold values that repeat",
        1.0,
    ),
    "copied rows": (lambda: copied(normal(N, 3), 500), "50 % of the rows equal another row", 0.5),
    "copied pictures": (lambda: copied(normal(300, 1, 6, 5), 100), "50 % of the rows equal another row", 0.5),
}


@pytest.mark.parametrize("kind", WARNED)
def test_values_that_repeat_are_warned_of(tmp_path, caplog, kind):
    rows, words, share = WARNED[kind]
    data = arrays(tmp_path, rows())
    message, metrics = said(caplog, REPORTS, data)
    assert re.search(words, message) and "The NLL is as low as the noise of sde.eps=0.001 lets it be" in message
    assert metrics["repeated_share"] == pytest.approx(share, abs=0.035)
    message, metrics = said(caplog, SAMPLES, data)
    verdict = "the noise hides the density of these data" if "hardly" in kind else "these data have no density"
    assert re.search(words, message) and verdict in message and metrics == {}


REFUSED = {
    "a constant": (lambda: with_column(np.full(N, 0.1)), r"column 2 \(0\.1\) is constant in the training part"),
    "three constants": (
        lambda: np.column_stack([normal(N, 1), np.full((N, 2), 3.0), np.full(N, -7e9)]),
        r"column 1 \(3\), column 2 \(3\), column 3 \(-7e\+09\) are constant",
    ),
    "a constant beyond float32": (lambda: with_column(np.full(N, 1e300)), r"column 2 \(1e\+300\) is constant"),
    "a constant channel": (
        lambda: np.concatenate([normal(200, 1, 5, 6), np.full((200, 1, 5, 6), 0.5)], 1),
        "every pixel of channel 1 is constant",
    ),
    "a constant pixel": (lambda: with_pixel(np.zeros(200)), r"pixel \[0,2,3\] \(0\) is constant"),
    "a frame": (
        lambda: np.pad(normal(200, 1, 5, 6), ((0, 0), (0, 0), (1, 1), (1, 1))),
        r"26 of 56 pixels are constant",
    ),
    "a copy": (
        lambda: with_column(normal(N, 2)[:, 0]).astype(np.float32),
        "column 2 is a linear combination of column 0",
    ),
    "a sum": (
        lambda: with_column(normal(N, 2) @ [3.0, -0.2] + 5),
        "column 2 is a linear combination of column 0 and column 1",
    ),
    "a sum of prices": (
        lambda: (lambda a, b: np.column_stack([a, b, (a + b).round(2)]))(price(N), price(N)[::-1].copy()),
        "column 2 is a linear combination of column 0 and column 1",
    ),
    "a mean of prices, rounded": (
        lambda: (lambda a, b: np.column_stack([a, b, ((a + b) / 3).round(2)]))(price(N), price(N)[::-1].copy()),
        "column 2 is a linear combination of column 0 and column 1",
    ),
    "grey saved as three channels": (
        lambda: np.repeat(normal(300, 1, 5, 6), 3, 1),
        r"pixel \[1,0,0\] is a linear combination of pixel \[0,0,0\], and 59 more pixels are combinations too",
    ),
    "indicators that sum to 1": (
        lambda: np.column_stack([np.eye(3)[generator().integers(0, 3, N)], normal(N)]),
        "column 2 is a linear combination of column 0 and column 1",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_direction_without_variation_is_refused(tmp_path, caplog, kind):
    rows, words = REFUSED[kind]
    data = arrays(tmp_path, rows())
    with pytest.raises(ValueError, match=words) as caught:
        density.check(REPORTS, VP(), data)
    assert "these data have no density, and this task reports one" in str(caught.value)
    message, metrics = said(caplog, SAMPLES, data)
    assert re.search(words, message) and metrics == {}


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 0.25, 1.0, 1e6])
def test_the_step_of_a_grid_is_in_the_datas_unit(tmp_path, caplog, unit):
    x = generator().integers(0, 6, (N, 2)) * unit
    message, _ = said(caplog, REPORTS, arrays(tmp_path, x))
    assert "data.levels=6" in message or unit == 1e6 and "data.levels=5000001" not in message
    if "Save" in message:
        x = in_the_file(message, x)
    assert sorted(np.unique(x)) == [0, 1, 2, 3, 4, 5]


def test_no_grid_is_advised_for_two_rows(tmp_path):
    with pytest.raises(ValueError, match="few: more may vary") as caught:
        density.check(REPORTS, VP(), arrays(tmp_path, normal(2, 3)))
    assert "data.levels" not in str(caught.value)


def test_a_constant_column_has_the_unit_1_and_leaves_the_others_theirs(tmp_path):
    x = with_column(np.full(N, 0.1))
    data, other = arrays(tmp_path, x), arrays(tmp_path, x[:, :2])
    assert data.scale.tolist() == [*other.scale.tolist(), 1.0] and data.shift.tolist() == [*other.shift.tolist(), 0.1]
    assert bool((data.encode(data.train)[:, 2] == 0).all()) and data.train.dtype == torch.float32
    assert bool((data.decode(data.encode(data.test)) - data.test).abs().max() < 1e-6)


def test_few_rows_are_named_as_a_reason(tmp_path):
    with pytest.raises(ValueError, match=r"column 0 \(3\) is constant.* \(3 rows to train on are few: more may vary\)"):
        density.check(REPORTS, VP(), arrays(tmp_path, np.array([[3, 1], [3, 2], [3, 2.5], [3, 7]])))


def test_what_is_dequantised_passes(tmp_path, caplog):
    x = generator().integers(0, 6, (N, 3)).astype(float)
    x[:, 1] = 2
    assert said(caplog, REPORTS, arrays(tmp_path, x, levels=6)) == ("", {})
    pictures = generator().integers(0, 256, (50, 3, 6, 5), dtype=np.uint8)
    pictures[:, 1] = 0
    assert said(caplog, REPORTS, arrays(tmp_path, pictures)) == ("", {})


# ---- the remedies, typed ----------------------------------------------------------------------------------------

NAMES = ["a", "b b", "2020", "it's"]


@pytest.mark.parametrize("kind", ["constant", "copy", "zeros", "whole"])
@pytest.mark.parametrize("where", [0, 1, 2, 3])
def test_every_key_that_a_message_names_for_a_table_works(tmp_path, caplog, kind, where):
    x = normal(N, 4)
    x[:, where] = {
        "constant": np.full(N, 7.5),
        "copy": 2 * x[:, where - 1],
        "zeros": np.where(generator().random(N) < 0.7, 0, x[:, where]),
        "whole": generator().integers(0, 9, N),
    }[kind]
    path = saved(tmp_path, x, NAMES)
    try:
        message, _ = said(caplog, REPORTS, typed(f"data.path={path}"))
    except ValueError as error:
        message = str(error)
    remedies = [word for word in shlex.split(message.partition("Type ")[2]) if "=[" in word]
    keys = ["data.key"] if kind == "copy" else ["data.key", "data.condition"]
    assert [word.partition("=")[0] for word in remedies] == keys
    for remedy in remedies:
        data = typed(f"data.path={path}", remedy)
        assert data.dim == 3 and said(caplog, REPORTS, data) == ("", {})


def in_the_file(message: str, x: np.ndarray) -> np.ndarray:
    """Does to the rows of a file what the message says."""
    if found := re.search(r"numpy.round\(\(x - low\) / step\) with low = (.*) and step = (.*), and type", message):
        low, step = (eval(word, {"x": x}) for word in found.groups())
        return np.round((x - np.asarray(low)) / np.asarray(step))
    if "numpy.unique(x, axis=0)" in message:
        return np.unique(x, axis=0)
    if found := re.search(r"eave channels? (.*?) out of the file", message):
        return np.delete(x, [int(word) for word in found[1].split(", ")], 1)
    if "eave it out of the file" in message:
        return np.delete(x, int(re.search(r"column (\d+)", message)[1]), 1)
    if "rop the pictures" in message:
        return x[:, :, :2]
    assert "dd noise to these values" in message
    zero = x[:, :1] == 0
    return np.where(zero, 0.5 * np.random.default_rng(2).normal(size=zero.shape), x)


BY_FILE = ["whole numbers", "whole numbers below 0", "rounded", "eight greys", "70 % zeros", "one column with zeros"]
BY_FILE += ["a rare pixel", "copied rows", "copied pictures", "a constant", "a constant channel", "a copy", "a sum"]
BY_FILE += ["grey saved as three channels"]


@pytest.mark.parametrize("kind", BY_FILE)
def test_every_remedy_in_the_file_works(tmp_path, caplog, kind):
    x = {**WARNED, **REFUSED}[kind][0]()
    try:
        message, _ = said(caplog, REPORTS, arrays(tmp_path, x))
    except ValueError as error:
        message = str(error)
    levels = re.search(r"data\.levels=(\d+)", message)
    changed = x if levels and "Save" not in message else in_the_file(message, x)
    data = arrays(tmp_path, changed, levels=int(levels[1]) if levels else None)
    assert said(caplog, REPORTS, data) == ("", {})
    if levels:
        assert int(data.train.max()) == int(levels[1]) - 1 or int(data.test.max()) == int(levels[1]) - 1


def test_noise_of_one_step_makes_whole_numbers_continuous(tmp_path, caplog):
    x = WARNED["whole numbers in one column"][0]()
    message, _ = said(caplog, REPORTS, arrays(tmp_path, x))
    assert "add numpy.random.uniform(0, step) of one step to it in the file" in message
    x[:, 2] += np.random.default_rng(2).uniform(0, 1, N)
    assert said(caplog, REPORTS, arrays(tmp_path, x)) == ("", {})


def test_keys_for_a_table_without_a_header_and_for_one_with_labels(tmp_path, caplog):
    x = np.insert(normal(N, 2), 1, 2.0, 1)
    x = np.column_stack([generator().integers(0, 3, N), x])
    np.savetxt(tmp_path / "bare.csv", x[:, 1:], delimiter=",")
    labelled = saved(tmp_path, x, ["k", "a", "b", "c"])
    for keys, remedy in (
        ([f"data.path={tmp_path}/bare.csv"], "data.key=[0,2]"),
        ([f"data.path={labelled}", "data.labels=k"], "data.key=[a,c]"),
        ([f"data.path={labelled}", "data.labels=k", "data.condition=labels"], "data.key=[a,c]"),
        ([f"data.path={labelled}", "data.key=[c,b]"], "data.key=[c]"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"Type {remedy} to leave it out")):
            density.check(REPORTS, VP(), typed(*keys))
        data = typed(*keys, remedy)
        assert data.dim == (1 if remedy == "data.key=[c]" else 2) and said(caplog, REPORTS, data) == ("", {})


# ---- p(x | y) ---------------------------------------------------------------------------------------------------


def test_conditions_and_columns_of_x_are_told_apart(tmp_path, caplog):
    x = normal(N, 4)
    x[:, 1] = generator().integers(0, 9, N)
    path = f"data.path={saved(tmp_path, x, NAMES)}"
    assert said(caplog, REPORTS, typed(path, "data.condition=['b b']")) == ("", {})
    message, metrics = said(caplog, REPORTS, typed(path, "data.condition=[a]"))
    assert "column 'b b' repeat" in message and metrics["repeated_share"] == 1.0
    for remedy in shlex.split(message.partition("Type ")[2]):
        if remedy.startswith("data.condition"):
            data = typed(path, remedy)
        elif remedy.startswith("data.key"):
            data = typed(path, "data.condition=[a]", remedy)
        else:
            continue
        assert data.dim == 2 and said(caplog, REPORTS, data) == ("", {})


def test_levels_are_advised_where_the_condition_is_whole_too(tmp_path, caplog):
    x = generator().integers(0, 5, (N, 3)).astype(float)
    path = f"data.path={saved(tmp_path, x, ['a', 'b', 'c'])}"
    message, _ = said(caplog, REPORTS, typed(path, "data.condition=[a]"))
    assert "Type data.levels=5" in message
    assert said(caplog, REPORTS, typed(path, "data.condition=[a]", "data.levels=5")) == ("", {})
    x[:, 0] = normal(N)
    path = f"data.path={saved(tmp_path, x, ['a', 'b', 'c'])}"
    message, _ = said(caplog, REPORTS, typed(path, "data.condition=[a]"))
    assert "data.levels" not in message and "dd numpy.random.uniform(0, step)" in message


def test_a_constant_beside_fine_grids_is_left_out(tmp_path):
    x = np.column_stack([normal(N, 2).round(3), np.full(N, 2.0)])
    with pytest.raises(ValueError, match=r"Type data.condition=\[2\] to learn .*, or leave it out of the file$"):
        density.check(REPORTS, VP(), arrays(tmp_path, x))


def test_a_column_that_y_decides_is_refused(tmp_path, caplog):
    x = normal(N, 3)
    x[:, 2] = 0.5 * x[:, 0] - 4
    path = f"data.path={saved(tmp_path, x, ['a', 'b', 'c'])}"
    with pytest.raises(
        ValueError, match="column 'c' is a linear combination of the condition.*Type data.key=.b. to leave"
    ):
        density.check(REPORTS, VP(), typed(path, "data.condition=[a]"))
    assert said(caplog, REPORTS, typed(path, "data.condition=[a]", "data.key=[b]")) == ("", {})


def test_a_column_that_is_constant_in_each_class(tmp_path, caplog):
    k = generator().integers(0, 3, N)
    x = np.column_stack([normal(N, 2), 1.5 * k, k])
    keys = [f"data.path={saved(tmp_path, x, ['a', 'b', 'c', 'k'])}", "data.labels=k", "data.condition=labels"]
    data = typed(*keys)
    with pytest.raises(ValueError, match="column 'c' is a linear combination of the condition"):
        density.check(REPORTS, VP(), data)
    with pytest.raises(ValueError, match=r"column 'c' \(3\) is constant in the training part"):
        density.check(REPORTS, VP(), data.asking(2))
    assert said(caplog, REPORTS, typed(*keys, "data.key=[a,b]").asking(2)) == ("", {})


def test_a_class_that_was_never_trained_on_is_told(tmp_path, caplog):
    for rare, says in ((["c"], "1 class (c) has no training example, and 1 held-out one"), ([], "")):
        words = np.array((["a", "b"] * 20)[: 40 - len(rare)] + rare)
        np.savez(tmp_path / "x.npz", x=normal(40, 2), y=words)
        seed = next(seed for seed in range(99) if 39 in Arrays(str(tmp_path / "x.npz"), seed=seed, labels="y")._rows[1])
        caplog.clear()
        density.constant_conditions(Conditional(Arrays(str(tmp_path / "x.npz"), seed=seed, labels="y"), "labels"))
        assert says in caplog.text and bool(caplog.text) == bool(says)


@pytest.mark.parametrize("inside", [True, False])
def test_a_constant_condition_gets_the_unit_1_and_a_warning(tmp_path, caplog, inside):
    x = np.column_stack([normal(N, 2), np.full(N, 0.3)])
    keys = ["data.condition=[c]"] if inside else ["data.condition=[c]", "data.key=[a,b]"]
    data = typed(f"data.path={saved(tmp_path, x, ['a', 'b', 'c'])}", *keys)
    assert data.condition.scale.tolist() == [1.0]
    encoded = data.condition.encode(data.condition.train)
    assert float(encoded[:, 0].abs().max()) < 1e-7 and bool((encoded[:, 1] == 1).all())
    with caplog.at_level(logging.WARNING):
        density.constant_conditions(data)
    assert "data.condition: c (0.3) is constant in the training part and tells nothing" in caplog.text


# ---- whole runs -------------------------------------------------------------------------------------------------

QUICK = ["sde=vp", "count=8", "sampler=em", "sampler.steps=3"]
QUICK += [word.replace("training.", "training.vectors.") for word in TINY]
DENSITIES = ["likelihood", "bound", "overfitting", "ema", "elbo"]


def test_a_run_on_whole_numbers_reports_the_repeats_and_no_error_bar(tmp_path, caplog):
    path = f"data.path={saved(tmp_path, generator().integers(0, 6, (N, 2)).astype(float))}"
    metrics = job(tmp_path, "data=arrays", path, "task=likelihood", *QUICK)
    assert metrics["repeated_share"] == 1.0 and metrics["repeated_nats_per_decade"] == pytest.approx(2 * math.log(10))
    assert "nll_nats" in metrics and "nll_uncertainty_nats" not in metrics
    assert "Type data.levels=6 to have whole numbers dequantised" in caplog.text
    caplog.clear()
    metrics = job(tmp_path, "data=arrays", path, "task=likelihood", "data.levels=6", *QUICK)
    assert "nll_uncertainty_nats" in metrics and "repeated_share" not in metrics and "no density" not in caplog.text


@pytest.mark.parametrize("task", DENSITIES)
def test_tasks_that_report_a_density_refuse_before_anything_is_trained(tmp_path, task):
    path = f"data.path={saved(tmp_path, with_column(np.full(200, 0.1)))}"
    with pytest.raises(ValueError, match=r"column 2 \(0.1\) is constant in the training part: these data have no dens"):
        job(tmp_path, "data=arrays", path, f"task={task}", *QUICK)
    assert not list((tmp_path / "store").glob("*"))


@pytest.mark.parametrize("task", ["train", "sample", "encode", "evaluate", "impute"])
def test_other_tasks_warn_and_go_on(tmp_path, caplog, task):
    path = f"data.path={saved(tmp_path, with_column(np.full(200, 0.1)))}"
    own = ["operator=columns"] if task == "impute" else []
    metrics = job(tmp_path, "data=arrays", path, f"task={task}", *own, *QUICK)
    assert caplog.text.count("column 2 (0.1) is constant in the training part") == 1
    assert "Type data.condition=[2]" in caplog.text and "repeated_share" not in metrics
    if task == "sample":
        x = np.load(tmp_path / "run" / "samples.npz")["x"]
        assert x.shape == (8, 3) and np.isfinite(x).all()


@pytest.mark.parametrize("shape", [(60, 2), (60, 1, 6, 5)], ids=str)
@pytest.mark.parametrize("task", ["train", "likelihood"])
def test_equal_examples_are_refused_by_every_task(tmp_path, task, shape):
    path = f"data.path={saved(tmp_path, np.full(shape, 0.5))}"
    with pytest.raises(ValueError, match="all training examples are equal: nothing can be learnt.*look at the file"):
        job(tmp_path, "data=arrays", path, f"task={task}", "count=4")


def test_a_task_that_decides_by_the_loss_reports_no_density():
    assert make("task", "task=ema").reports_density and not make("task", "task=ema", "task.by=loss").reports_density


def test_points_are_scored_under_the_same_warning(tmp_path, caplog):
    path = f"data.path={saved(tmp_path, with_zeros(0.7, N, 2))}"
    np.save(tmp_path / "new.npy", normal(5, 2))
    metrics = job(tmp_path, "data=arrays", path, "task=likelihood", f"points={tmp_path}/new.npy", *QUICK)
    assert metrics["repeated_share"] == pytest.approx(0.7, abs=0.035) and "is 0 in" in caplog.text


def test_a_combination_of_a_fine_detail_is_found():
    """Column 1 has a detail that column 0 lacks, below NEAR; column 2 is a combination of both."""
    a, n = torch.randn(2, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = torch.stack([a, a + 1e-4 * n, a + 3e-4 * n], 1)
    z = (z - z.mean(0)) / z.std(0, correction=0)
    assert combinations(z, torch.full_like(z, 1e-9), [0], [1, 2]) == {2: [0, 1]}
