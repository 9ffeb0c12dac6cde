"""The pictures: every one is drawn from odd input too, and what can be exact in them is."""

import math
import sys

import matplotlib
import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from scoresde import figures
from scoresde.figures import codes, interpolation, memorisation  # noqa: F401
from scoresde.figures.axes import spread
from scoresde.figures.evaluation import evaluation
from scoresde.figures.restored import restored_gaps, restored_vectors

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.painted]

inf, nan = math.inf, math.nan


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, in order."""
    kept, write = [], Figure.savefig

    def keep(figure, *arguments, **keys):
        kept.append(figure)
        return write(figure, *arguments, **keys)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Fewer dots per inch: the pictures are the same, and sooner done."""
    monkeypatch.setattr(figures.canvas, "DPI", 100)


def look(path, target):
    """Reads a picture back and refuses one that is blank or of no sensible size."""
    assert path == target
    pixels = matplotlib.image.imread(path)[..., :3]
    assert min(pixels.shape[:2]) >= 80 and max(pixels.shape[:2]) <= 3600
    assert (pixels < 0.9).any(-1).mean() > 0.002
    return pixels


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def broken(*shape):
    """Normal, but for an infinite value, a NaN and a huge one."""
    x = normal(*shape)
    x.flat[: min(3, x.size)] = [inf, nan, 1e30][: min(3, x.size)]
    return x


# ---- everything is drawn ----


@pytest.mark.parametrize(
    ("samples", "data"),
    [
        (normal(64, 1, 8, 8), normal(100, 1, 8, 8)),
        (torch.rand(5, 3, 8, 6, dtype=torch.float64), torch.randint(0, 256, (70, 3, 8, 6))),
        (normal(1, 2, 5, 7), normal(1, 2, 5, 7)),
        (torch.ones(3, 4, 6, 6).bfloat16(), torch.zeros(9, 4, 6, 6)),
        (broken(20, 1, 8, 8), broken(3, 1, 8, 8)),
        (broken(20, 3, 8, 8), normal(30, 3, 8, 8)),
        (normal(9, 1, 1, 30), normal(9, 1, 1, 30)),
        (normal(64, 1, 30, 1), normal(64, 1, 30, 1)),
        (normal(4, 1, 1, 1), normal(4, 1, 1, 1)),
        (normal(0, 1, 8, 8), normal(9, 1, 8, 8)),
        (normal(1, 3, 900, 700), normal(1, 3, 900, 700)),
    ],
)
def test_image_grid(samples, data, tmp_path):
    look(figures.image_grid(samples, data, tmp_path / "a.png"), tmp_path / "a.png")


@pytest.mark.parametrize("levels", [1, 2, 256])
def test_image_grid_of_integers(levels, tmp_path):
    data = torch.arange(3 * 64).reshape(3, 1, 8, 8) % levels
    look(figures.image_grid(broken(20, 1, 8, 8), data, tmp_path / "a.png", levels), tmp_path / "a.png")


@pytest.mark.parametrize(
    "shape", [(8, 1, 8, 8), (1, 3, 8, 6), (12, 2, 3, 9), (2, 1, 20, 2), (1, 1, 1, 1), (2, 3, 70, 64)]
)
@pytest.mark.parametrize("count", [1, 40])
def test_film_strip(shape, count, tmp_path):
    states, times = [torch.tensor(broken(*shape)) for _ in range(count)], torch.linspace(1, 1e-5, count)
    look(figures.film_strip(states, times, tmp_path / "a.png"), tmp_path / "a.png")


@pytest.mark.parametrize(
    ("samples", "data"),
    [
        (normal(300, 2), normal(200, 2)),
        (torch.tensor(broken(30, 2)), torch.tensor(normal(20, 2)).float()),
        (np.full((10, 2), nan), normal(50, 2) * [1000, 1]),
        (normal(1, 2), np.ones((5, 2))),
        (normal(1, 2), normal(0, 2)),
        (normal(0, 2), normal(50, 2)),
        (broken(10, 2), broken(10, 2)),
    ],
)
def test_planar_samples_and_pairs(samples, data, tmp_path):
    look(figures.planar_samples(samples, data, tmp_path / "a.png", ["height (cm)", "weight"]), tmp_path / "a.png")
    look(figures.pairs(samples, data, tmp_path / "b.png"), tmp_path / "b.png")


@pytest.mark.parametrize("dim", [1, 6])
def test_pairs_of_any_length(dim, tmp_path):
    labels = [f"column {k}" for k in range(dim)]
    look(figures.pairs(broken(50, dim), normal(60, dim), tmp_path / "a.png", labels), tmp_path / "a.png")


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("change", [{(1, 1): nan, (2, 2): 900.0, (0, 0): inf}, {...: -inf}, {...: nan}])
def test_density(change, exact, tmp_path):
    x, y = np.linspace(-2, 2, 12), np.linspace(-1, 1, 9)
    log_prob = -(x**2) / 2 - y[:, None] ** 2 / 2
    truth = log_prob.copy() if exact else None
    for at, value in change.items():
        log_prob[at] = value
    path = figures.density(torch.tensor(x), y, torch.tensor(log_prob), tmp_path / "a.png", truth, broken(20, 2))
    look(path, tmp_path / "a.png")


@pytest.mark.parametrize(
    "paths", [normal(20, 9, 2), normal(1, 1, 2), broken(20, 200, 2), broken(20, 9, 1), normal(2, 1, 1)]
)
@pytest.mark.parametrize("given", [False, True])
def test_trajectories(paths, given, tmp_path):
    data = normal(50, paths.shape[2]) if given else None
    times = torch.linspace(1, 0, len(paths)) if given else None
    look(figures.trajectories(torch.tensor(paths), tmp_path / "a.png", data, times), tmp_path / "a.png")


def test_trajectories_of_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be"):
        figures.trajectories(normal(20, 9, 3), tmp_path / "a.png")


@pytest.mark.parametrize("panels", [1, 9])
def test_score_field(panels, tmp_path):
    x, y = np.linspace(-2, 2, 7), np.linspace(-900, 900, 5)
    fields = [torch.tensor(broken(5, 7, 2)) for _ in range(panels)]
    fields[0].zero_()
    path = figures.score_field(x, y, fields, np.linspace(1, 1e-5, panels), tmp_path / "a.png", normal(50, 2))
    look(path, tmp_path / "a.png")


def test_a_first_fall_does_not_leave_the_rest_flat():
    from scoresde.figures.loss import after_the_fall

    values = 0.3 + 2 * np.exp(-np.arange(100) / 4)
    low, high = after_the_fall(values, values[25:])
    assert low < values.min() and values[25:].max() < high < values[25:].max() + np.ptp(values[25:])
    assert after_the_fall(values, values[2:]) is None, "it falls all the way"
    assert after_the_fall(values, values[:0]) is None and after_the_fall(np.ones(4), np.ones(3)) is None
    assert after_the_fall(values, np.array([1.0, np.nan])) is None


@pytest.mark.parametrize(
    "events",
    [
        [{"step": k, "loss": 10.0 / (k + 1), "rate": 1e-3} for k in range(300)] + [{"step": 300, "held_out_loss": 1.0}],
        [{"step": 0, "loss": 1.0}],
        [{"step": 0, "loss": nan}, {"step": 1, "loss": -1.0, "rate": 0.0}, {"step": 2, "loss": inf}],
        [{"step": 0, "held_out_loss": 2}, {"event": "done"}],
        [],
    ],
)
def test_loss_curve(events, tmp_path):
    look(figures.loss_curve(events, tmp_path / "a.png"), tmp_path / "a.png")


@pytest.mark.parametrize("samples", [normal(500), broken(30, 1), normal(1), np.full(9, nan), None])
def test_histogram_1d(samples, tmp_path):
    x = np.linspace(-3, 3, 50)
    curves = {"model": (x, -(x**2) / 2 - 0.9), "exact": (torch.tensor(x), torch.full((50,), inf))}
    look(
        figures.histogram_1d(samples, torch.tensor(normal(200, 1)), tmp_path / "a.png", "size", curves),
        tmp_path / "a.png",
    )
    look(figures.histogram_1d(samples, normal(1), tmp_path / "a.png"), tmp_path / "a.png")


def sweep(jobs):
    rows = [
        {
            "job": k,
            "choices": f"data=moons sde={'vp' if k % 2 else 've'} steps={k}",
            "status": "ok",
            "seconds": 1.5 * k + 1,
        }
        | {"nll_nats": 2 + k, "nll_stderr": 0.25, "nfe": 10**k % 10**6, "note": "text", "converged": True}
        for k in range(jobs)
    ]
    return rows


@pytest.mark.parametrize("jobs", [0, 1, 6, 45])
def test_summary_plot(jobs, tmp_path):
    rows = sweep(jobs)
    for k, change in enumerate([{"status": "failed"}, {"nll_nats": inf}, {"nll_nats": None}], start=1):
        if k < jobs:
            rows[k].update(change)
    path = figures.summary_plot(rows, tmp_path / "a.png", metric="seconds")
    if jobs:
        look(path, tmp_path / "a.png")


def test_a_sweep_of_failures_is_drawn(tmp_path):
    rows = [{"job": k, "choices": "x" * 200, "status": "failed"} for k in range(3)]
    look(figures.summary_plot(rows, tmp_path / "a.png"), tmp_path / "a.png")


# ---- what is exact ----


def test_the_grid_shows_every_pixel_of_every_picture(rng, drawn, tmp_path):
    samples, data = rng.integers(0, 17, (2, 64, 1, 8, 8))
    samples = samples + rng.random(samples.shape) * 0.99  # what is decoded is continuous: k + u stands for k
    pixels = look(figures.image_grid(samples, data, tmp_path / "a.png", levels=17), tmp_path / "a.png")
    for axes, pictures in zip(drawn[0].axes, (samples, data), strict=True):
        box = axes.get_position()
        left, top = round(box.x0 * pixels.shape[1]), round((1 - box.y1) * pixels.shape[0])
        for k, picture in enumerate(np.floor(pictures)):
            row, column = divmod(k, 8)
            middles = 84 * row + top + 10 * np.arange(8) + 5, 84 * column + left + 10 * np.arange(8) + 5
            np.testing.assert_allclose(pixels[np.ix_(*middles)][..., 0], picture[0] / 16, atol=1 / 255)


def test_a_tile_is_the_pictures_at_their_places(rng):
    images = rng.random((5, 4, 3, 3))
    sheet = figures.tile(images, rows=2, columns=3, gap=(1, 2))
    assert sheet.shape == (9, 13, 3)
    for k, image in enumerate(images):
        top, left = 5 * (k // 3), 5 * (k % 3)
        np.testing.assert_array_equal(sheet[top : top + 4, left : left + 3], image)
    np.testing.assert_array_equal(sheet[5:, 10:], 1)
    assert sheet.sum() == pytest.approx(images.sum() + 3 * (9 * 13 - 5 * 12))


def test_colours_are_clipped_and_broken_pixels_are_red():
    images = np.array([-1.0, 0.0, 1.0, 2.0, 5.0, nan, inf]).reshape(1, 1, 1, 7)
    rgb = figures.colours(images, 0, 2)[0, 0]
    np.testing.assert_array_equal(rgb[:5, 1], [0, 0, 0.5, 1, 1])
    np.testing.assert_array_equal(rgb[5], rgb[6])
    assert rgb[5, 0] > 2 * rgb[5, 1]


def test_the_data_set_the_scale_of_pictures(drawn, tmp_path):
    data = np.linspace(-3, 5, 4 * 64).reshape(4, 1, 8, 8)
    figures.image_grid(1000 * data, data, tmp_path / "a.png")
    left, right, bar = drawn[0].axes
    assert bar.get_ylim() == (-3, 5)
    assert set(np.unique(left.images[0].get_array())) == {0, 1}
    assert left.get_position().size == pytest.approx(right.get_position().size)
    assert len(np.unique(right.images[0].get_array())) > 250


def test_the_data_set_the_frame_of_points(drawn, tmp_path):
    data, samples = normal(1000, 2), normal(100, 2) / 10
    figures.planar_samples(samples, data, tmp_path / "a.png")
    samples[:7] = [[1e30, 0], [inf, 0], [0, -inf], [nan, 0], [0, nan], [1e3, 1e3], [-90, 0]]
    figures.planar_samples(samples, data, tmp_path / "a.png")
    good, bad = (figure.axes[0] for figure in drawn)
    assert good.get_xlim() == bad.get_xlim() and good.get_ylim() == bad.get_ylim()
    assert good.get_aspect() == 1
    assert [text.get_text() for text in good.get_legend().get_texts()] == ["data", "samples"]
    assert bad.get_legend().get_texts()[1].get_text() == "samples (7 of 100 outside)"


def test_two_densities_share_the_scale_of_the_exact_one(drawn, tmp_path):
    x, y = np.linspace(0, 1, 40), np.linspace(0, 1, 30)
    exact = np.log(1 + x + y[:, None])
    figures.density(x, y, exact + 2, tmp_path / "a.png", exact)
    model, truth, bar = drawn[0].axes
    assert model.images[0].get_clim() == truth.images[0].get_clim() == (0, np.quantile(np.exp(exact), 0.999))
    np.testing.assert_allclose(truth.images[0].get_array(), np.exp(exact))
    assert truth.images[0].origin == "lower"
    assert [axes.get_title() for axes in (model, truth)] == ["model", "exact"]
    assert truth.get_tightbbox().x1 < bar.get_tightbbox().x0


def test_arrows_point_along_the_score(rng, drawn, tmp_path):
    field = rng.standard_normal((6, 5, 2)) * 10.0 ** rng.integers(-3, 3, (6, 5, 1))
    figures.score_field(np.arange(5.0), np.arange(6.0), [field], [0.5], tmp_path / "a.png")
    arrows = drawn[0].axes[0].collections[0]
    np.testing.assert_allclose(np.arctan2(arrows.V, arrows.U), np.arctan2(field[..., 1], field[..., 0]).ravel())
    np.testing.assert_allclose(arrows.get_array(), np.linalg.norm(field, axis=-1).ravel())
    assert np.hypot(arrows.U, arrows.V).max() < 1  # none reaches its neighbour


def test_a_film_runs_from_the_first_state_to_the_last(drawn, tmp_path):
    states = [np.full((2, 1, 8, 8), value) for value in np.linspace(-2, 2, 41)]
    figures.film_strip(states, np.linspace(1, 0.02, 41), tmp_path / "a.png")
    axes = drawn[0].axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(labels) == 11 and labels[0] == "t = 1.00" and labels[-1] == "t = 0.02"
    centres = np.round(axes.get_xticks()).astype(int)
    np.testing.assert_allclose(axes.images[0].get_array()[10, centres, 0], np.linspace(0, 1, 11), atol=1e-12)


@pytest.mark.parametrize(
    ("t", "label"),
    [(1, "1.00"), (0.02, "0.02"), (1e-5, "1e-5"), (0.003, "3e-3"), (0.0, "0.00"), (80, "80"), (9.999, "10")],
)
def test_times_are_short(t, label):
    assert figures.time_label(t) == f"t = {label}"


def test_paths_start_hollow_and_end_solid_where_they_should(drawn, tmp_path):
    paths = normal(11, 4, 1)
    figures.trajectories(paths, tmp_path / "a.png", times=np.linspace(1, 0, 11))
    axes = drawn[0].axes[0]
    start, end = axes.lines
    np.testing.assert_array_equal(start.get_xydata(), np.stack((np.ones(4), paths[0, :, 0]), 1))
    np.testing.assert_array_equal(end.get_xydata(), np.stack((np.zeros(4), paths[-1, :, 0]), 1))
    assert axes.xaxis_inverted()


def test_a_histogram_loses_what_lies_outside():
    edges = np.linspace(0, 1, 5)
    heights = figures.histogram(np.array([0.1, 0.3, 0.35, 7.0, inf, nan, -inf, 0.9]), edges)
    np.testing.assert_allclose(heights, [0.5, 1, 0, 0.5])
    assert (heights * np.diff(edges)).sum() == pytest.approx(4 / 8)


@pytest.mark.parametrize(("last", "scale"), [(0.5, "linear"), (0.05, "log"), (-0.05, "linear")])
def test_a_loss_over_a_decade_is_logarithmic(last, scale, drawn, tmp_path):
    events = [{"step": 0, "loss": 1.0}, {"step": 1, "loss": nan}, {"step": 2, "held_out_loss": last, "rate": 1e-3}]
    figures.loss_curve(events, tmp_path / "a.png")
    axes, rate = drawn[0].axes
    assert axes.get_yscale() == scale
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), [[2, last]])
    np.testing.assert_array_equal(rate.lines[0].get_xydata(), [[2, 1e-3]])


def test_the_running_mean_of_a_line_is_the_line(drawn, tmp_path):
    figures.loss_curve([{"step": 10 * k, "loss": 3.0 + k} for k in range(260)], tmp_path / "a.png")
    mean = drawn[0].axes[0].lines[1].get_xydata()  # of five in a row
    np.testing.assert_allclose(mean[:, 1], 3 + mean[:, 0] / 10)


def test_a_summary_shows_each_job_at_its_values(drawn, tmp_path):
    rows = sweep(5)
    rows[3]["status"] = "failed"
    figures.summary_plot(rows, tmp_path / "a.png", metric="seconds")
    panels = drawn[0].axes
    assert [axes.get_xlabel() for axes in panels] == [figures.SUMMARY[key] for key in ("seconds", "nll_nats", "nfe")]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == [
        f"sde={sde} steps={k}" for k, sde in enumerate(["ve", "vp", "ve", "vp", "ve"])
    ]
    assert panels[0].get_ylim()[0] > panels[0].get_ylim()[1]  # the first job on top
    nll = panels[1].containers[0]
    np.testing.assert_array_equal(nll[0].get_xydata(), [[2, 0], [3, 1], [4, 2], [6, 4]])
    np.testing.assert_allclose(nll[2][0].get_segments()[1], [[2.75, 1], [3.25, 1]])
    assert panels[2].get_xscale() == "log"
    words = [(text.get_text(), text.get_position()[1]) for text in panels[0].texts if text.get_text()]
    assert words == [("failed", 3)]


def test_pictures_leave_no_trace_and_are_the_same_twice(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # to import it is an error
    before = matplotlib.rcParams.copy()
    first, second = (figures.planar_samples(normal(9, 2), normal(9, 2), tmp_path / f"{k}.png") for k in range(2))
    assert matplotlib.rcParams.copy() == before
    assert first.read_bytes() == second.read_bytes()


# ---- codes, paths, copies ----


@pytest.mark.parametrize(
    "shape", [(9, 2, 1, 8, 8), (3, 3, 3, 8, 6), (1, 2, 2, 3, 9), (1, 40, 1, 1, 1), (2, 5, 3, 90, 64)]
)
@pytest.mark.parametrize("levels", [None, 16])
def test_strips(shape, levels, tmp_path):
    ends = normal(shape[0], 2, *shape[2:])
    path = figures.interpolation.strips(torch.tensor(broken(*shape)), ends, tmp_path / "a.png", levels)
    look(path, tmp_path / "a.png")


@pytest.mark.parametrize("paths", [normal(5, 7, 2), broken(200, 7, 2), normal(1, 2, 2)])
def test_planar_paths(paths, tmp_path):
    for data in (normal(50, 2) * [100, 1], normal(0, 2)):
        drawn = figures.interpolation.planar_paths(
            torch.tensor(paths), normal(*paths.shape), data, tmp_path / "a.png", 3
        )
        look(drawn, tmp_path / "a.png")


@pytest.mark.parametrize("dim", [1, 4, 40])
def test_coordinate_paths(dim, tmp_path):
    ends, u = normal(30, 3, dim), np.linspace(0, 2, 9)
    path = tmp_path / "a.png"
    look(figures.interpolation.coordinate_paths(broken(30, 9, dim), ends, u, broken(20, dim), path), path)


@pytest.mark.parametrize("shape", [(1, 1), (50, 2), (20, 1, 8, 8), (3, 3, 5, 7), (2, 2, 70, 60)])
def test_code_identity(shape, tmp_path):
    pictures = broken(*shape) if len(shape) == 4 else None
    path = figures.codes.code_identity(broken(*shape), normal(*shape), tmp_path / "a.png", pictures)
    look(path, tmp_path / "a.png")


@pytest.mark.parametrize("shape", [(30, 1, 8, 8), (1, 3, 8, 6), (5, 2, 3, 9), (24, 3, 90, 80)])
@pytest.mark.parametrize("levels", [None, 16])
def test_triples(shape, levels, tmp_path):
    ratios = np.linspace(0, 2, shape[0])
    triple = torch.tensor(broken(*shape)), normal(*shape), normal(*shape)
    look(figures.memorisation.triples(*triple, ratios, tmp_path / "a.png", levels), tmp_path / "a.png")


def test_distances_and_planar_pairs(tmp_path):
    for values in (broken(30), np.zeros(4), normal(1) ** 2):
        look(figures.memorisation.distances(abs(normal(50)), values, values, tmp_path / "a.png"), tmp_path / "a.png")
    pairs = figures.memorisation.planar_pairs(broken(30, 2), normal(30, 2), normal(90, 2), tmp_path / "b.png")
    look(pairs, tmp_path / "b.png")


@pytest.mark.parametrize("values", [normal(5, 20), broken(5, 20), np.ones((1, 1))])
def test_overfitting_curve(values, tmp_path):
    steps = np.arange(1, len(values) + 1) * 10
    events = [{"step": k, "loss": 1 / (k + 1), "held_out_loss": 0.5 + k / 99} for k in range(99)]
    for story in (events, events[:1], []):
        path = figures.overfitting_curve(steps, values, values + 1, story, tmp_path / "a.png", "nats")
        look(path, tmp_path / "a.png")


@pytest.mark.parametrize("values", [normal(11, 20), broken(11, 20), np.ones((1, 1))])
def test_average_lengths(values, tmp_path):
    widths = np.geomspace(0.02, 0.25, len(values))
    for panels in (
        [("bits / dimension", values, values[0] - 1)],
        [("NLL", values, values[0]), ("loss", values, values[0])],
    ):
        look(figures.average_lengths(widths, panels, len(values) // 2, tmp_path / "a.png"), tmp_path / "a.png")


@pytest.mark.parametrize("count, shape", [(23, (1, 8, 8)), (1, (3, 5, 7)), (60, (2, 3, 9))])
def test_a_row_a_class(count, shape, tmp_path):
    y, names = np.arange(count) % 12, [f"kind {k}" for k in range(12)]
    pictures, real = broken(count, *shape), normal(40, *shape)
    for data_y in (np.arange(40) % 12, np.full(40, 11)):  # a class of which there are no data
        path = figures.class_grid(pictures, y, real, data_y, names, tmp_path / "a.png", accuracy={0: 0.5})
        look(path, tmp_path / "a.png")


@pytest.mark.parametrize("kinds", [1, 5, 12])
def test_classes_in_the_plane(kinds, tmp_path):
    y, names = np.arange(40) % kinds, [f"kind {k}" for k in range(kinds)]
    look(figures.class_scatter(broken(40, 2), y, normal(50, 2), names, tmp_path / "a.png"), tmp_path / "a.png")


def test_classifier_curve(tmp_path):
    for n in (1, 9):
        ratio = np.geomspace(1e-3, 1e2, n)
        path = figures.classifier_curve(ratio, np.linspace(1, 0.1, n), np.linspace(0, 2.3, n), 0.1, 2.3, tmp_path / "a")
        look(path, tmp_path / "a")


@pytest.mark.parametrize("rows", [1, 60])
def test_rows_of_bits(rows, tmp_path):
    bits = (normal(rows, 7) > 0).astype(float)
    wrong = np.arange(rows) % 2 == 0
    for marked in (None, wrong):
        path = figures.chain.bit_rows(bits, bits[::-1], [bits[:3]] * 4, [40, 20, 1, 0], tmp_path / "a.png", marked)
        look(path, tmp_path / "a.png")


@pytest.mark.parametrize(("rows", "shown"), [(12, None), (2000, "(300 of")])
def test_restored_vectors(rows, shown, drawn, tmp_path):
    truth, draws, unknown = normal(rows, 4), normal(rows, 6, 4), normal(rows, 4) > 0
    path = restored_vectors(draws, unknown, (np.zeros(4), np.ones(4)), tmp_path / "a.png", truth)
    look(path, tmp_path / "a.png")
    left = drawn[0].axes[0]
    assert left.get_xlabel() == "truth (stds of the data)"
    assert (shown or "80 %") in left.get_legend().get_texts()[0].get_text()


@pytest.mark.parametrize("rows", [1, 30, 500])
@pytest.mark.parametrize("columns", [1, 3, 6, 7, 40])
def test_restored_without_a_truth(columns, rows, drawn, tmp_path):
    """An interval each at its mean, in the data's units or in stds, and no line that the draws' mean lies on."""
    dim = columns + 1  # the last column has no gap
    scale = 10.0 ** (np.arange(dim) % 5)
    draws = 3 * scale + scale * normal(rows, 5, dim)
    unknown = np.broadcast_to(np.arange(dim) < columns, (rows, dim))
    labels = [f"name{k}" for k in range(dim)]
    path = restored_gaps(draws, unknown, (3 * scale, scale), tmp_path / "a.png", labels)
    look(path, tmp_path / "a.png")
    panels = [axes for axes in drawn[0].axes if axes.axison]
    written = " ".join(axes.get_title() for axes in panels)
    for axes in panels:
        assert not any(
            np.ptp(line.get_xdata()) and np.ptp(line.get_ydata()) and line.get_ls() == "--" for line in axes.lines
        )
    if columns <= 6:
        assert [axes.get_ylabel() for axes in panels] == labels[:columns]
        picked = spread(rows, 40)
        for j, axes in enumerate(panels):
            np.testing.assert_allclose(axes.lines[0].get_ydata(), draws[picked, :, j].mean(1))
        assert ("40 of 500 unknown" in written) == (rows == 500)
    else:
        assert "stds" in panels[0].get_ylabel()
        assert [text.get_text() for text in panels[0].get_xticklabels()] == [labels[j] for j in spread(columns, 24)]
        np.testing.assert_allclose(
            panels[0].lines[0].get_ydata()[0], ((draws[0, :, 0] - 3 * scale[0]) / scale[0]).mean(), atol=1e-12
        )
        assert (f" of {rows * columns:,} unknown" in written) == (columns == 40 or rows > 22)
        assert_readable(drawn[0], [axes.title for axes in panels])


def boxes(figure, texts):
    """Where texts are drawn, in pixels."""
    figure.draw_without_rendering()
    return [text.get_window_extent() for text in texts]


def assert_readable(figure, texts):
    """No two of the texts are printed over each other, and none is cut off at the figure's edge."""
    found = boxes(figure, texts)
    for k, (box, text) in enumerate(zip(found, texts, strict=True)):
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
        assert not any(box.overlaps(other) for other in found[:k]), text


@pytest.mark.parametrize("sdes", [1, 3])
@pytest.mark.parametrize("unit", ["data", "std"])
def test_labels_of_work_precision_are_whole(unit, sdes, drawn, tmp_path):
    keys = ("sliced_wasserstein", "endpoint_rms", "solver_error_mean_nats", "truth_error_mean_nats")
    rows = [
        {"score": "oracle", "sde": f"sde{k}", "method": "ddim", "nfe": n, "seconds": 0.1 * n, "probe_stderr_nats": 0.0}
        | dict.fromkeys(keys, 1 / n)
        for k in range(sdes)
        for n in (5, 50)
    ]
    figures.work_precision(rows, tmp_path / "a.png", 300, (0.2, 0.5), unit)
    figures.likelihood_precision(rows, tmp_path / "b.png", 1000)
    for figure in drawn:
        labels = [axes.yaxis.label for axes in figure.axes if axes.get_ylabel()]
        assert len(labels) == 3
        assert_readable(figure, labels)


@pytest.mark.parametrize("shape", [(3,), (1, 8, 8), (3, 8, 32)])
def test_numbers_of_an_evaluation_stand_apart(shape, drawn, tmp_path):
    """Beside each other and their row's name, whatever their signs and sizes."""
    pairs = [(-0.00466, -0.00556), (1e-12, -1e-12), (123456.0, -123456.0), (0.0, nan), (3.2, 0.1), (-1e30, 1e-300)]
    metrics = {"distance_unit": "std", "sliced_wasserstein": 0.123, "sliced_wasserstein_floor": 0.0456}
    for k, (value, floor) in enumerate(pairs):
        metrics |= {f"kd-digits-{k:08}": value, f"kd-digits-{k:08}_floor": floor, f"kd-digits-{k:08}_stderr": 1e-3}
    for shares in ({}, {f"class_shares{end}": np.ones(10) / 10 for end in ("", "_held_out", "_train")}):
        path = evaluation(
            normal(40, *shape), normal(40, *shape), metrics, shares, list("0123456789"), tmp_path / "a.png"
        )
        look(path, tmp_path / "a.png")
        figure = drawn.pop()
        bars = figure.subfigs[0].axes[0]
        numbers = [text for text in bars.texts if text.get_text()]
        assert len(numbers) == 2 * (1 + len(pairs))
        names = [label for label in bars.get_yticklabels() if label.get_text()]
        assert_readable(figure, [*numbers, *names])
        assert bars.get_window_extent().width > 0.15 * figure.bbox.width / 2, "room for the bars"
        assert max(text.get_window_extent().x1 for text in numbers) <= figure.subfigs[1].axes[0].get_window_extent().x0
