"""The error of every conditioner on mixtures, whose p(x | y) has a closed form.

    python -m benchmarks.posterior                                   the whole table, and a picture
    python -m benchmarks.posterior --dim 2 --conditioner tds pigdm   a part of it
    python -m benchmarks.posterior --sde ve --points 10 --seeds 5

The data are a mixture in 2, 4, 16 or 64 dimensions with three components; in four dimensions it has four, of the
weights 0.5, 0.3, 0.15 and 0.05. y is half of the numbers, exactly (``half``), the first of them (``one``), all but the
second (``rest``), or a random matrix times x, one number of y for four of x, with noise of std 0.3 (``matrix``). Every
conditioner runs with every sampler on the prior's exact score: 256 draws for each of a few points of held-out data,
compared with 256 exact draws by

* the sliced Wasserstein distance, in stds of the data. The distance between two sets of exact draws is the floor. We
  print the mean distance over the points, divided by the mean floor, so that 1 is perfect: the median over the seeds
  (other points, other noise), and their range;
* the shares of the components: the largest error of a share, as the mean over the points (about 0.03 for exact draws);
* the coverage: how often a value of an exact draw lies between the draws' quantiles 0.1 and 0.9; 0.8 is right.
"""

import argparse
import csv
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from scoresde.conf import schema
from scoresde.data import Mixture
from scoresde.metrics import sliced_wasserstein
from scoresde.models import Oracle
from scoresde.samplers import (
    SEA,
    Ancestral,
    Centred,
    Columns,
    Dense,
    EulerMaruyama,
    ExactPosterior,
    Half,
    Karras,
    Langevin,
    Measurement,
    Operator,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    Uniform,
    UniPC,
    in_model_units,
)
from scoresde.sde_lib import BlockNoise, Counted

from .oracle import choice

DRAWS = 256
CONDITIONERS = "exact smcdiff tds mmps pigdm repaint projection dps dps_gaussian".split()
SAMPLERS = {
    "ancestral": lambda steps: PredictorCorrector(Karras(), steps, Ancestral()),
    "ancestral and 5 Langevin": lambda steps: PredictorCorrector(
        Karras(), steps, Ancestral(), Langevin(snr=0.3, count=5)
    ),
    "pc": lambda steps: PredictorCorrector(Uniform(), steps, ReverseDiffusion(), Langevin()),
    "em": lambda steps: PredictorCorrector(Uniform(), steps, EulerMaruyama()),
    "sea": lambda steps: PredictorCorrector(Karras(), steps, SEA()),
    "unipc": lambda steps: PredictorCorrector(Centred(4.0), steps, UniPC(order=3)),
    "ode": lambda steps: ProbabilityFlow(rtol=1e-3, atol=1e-3),
}


def mixture(dim: int) -> Mixture:
    """Returns a mixture of three components, in the plane that of `data=mixture`; of four in four dimensions."""
    if dim == 4:
        means = (1.6 * torch.randn(4, dim, generator=torch.Generator().manual_seed(7))).tolist()
        return Mixture([0.5, 0.3, 0.15, 0.05], means, [0.5, 0.25, 0.7, 0.15], count=10, test_count=1000)
    if dim == 2:
        means = [[-2.0, -1.0], [2.0, -0.5], [0.5, 2.5]]
    else:
        means = (1.3 * torch.randn(3, dim, generator=torch.Generator().manual_seed(1))).tolist()
    return Mixture([0.5, 0.3, 0.2], means, [0.6, 0.4, 0.8], count=10, test_count=1000)


def operators(dim: int) -> dict[str, Operator]:
    rows = torch.randn(max(1, dim // 4), dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    names = {"half": Half((dim,)), "one": Columns((dim,), [0])}
    names["rest"] = Columns((dim,), [j for j in range(dim) if j != 1])
    return names | {"matrix": Dense((dim,), 0.3, rows / math.sqrt(dim))}


def pose(data: Mixture, operator: Operator, seeds: int, points: int, dtype: torch.dtype) -> Measurement:
    """Returns the measurement of ``points`` held-out points for each seed, with DRAWS rows for each point."""
    r = data.test[: seeds * points].double()
    y = operator(r) + operator.noise * torch.randn(
        len(r), *operator.measured, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    numbers = torch.arange(len(r)).repeat_interleave(DRAWS)
    rows = operator.rows(numbers)
    return in_model_units(rows, y[numbers], data.shift, data.scale, dtype, "cpu", draws=DRAWS)


def distances(x: Tensor, exact: Tensor, seeds: int) -> Tensor:
    """Returns the mean distance over each seed's points, (seeds,)."""
    pairs = zip(x.split(DRAWS), exact.split(DRAWS), strict=True)
    return torch.tensor([sliced_wasserstein(a, b, 50) for a, b in pairs]).reshape(seeds, -1).mean(1)


def conditioner(name: str, data: Mixture):
    node = schema.settle(
        choice("conditioner", name), data.shape, {"sigma_data": data.std, "components": data.components()}
    )
    if "particles" in node:
        node["particles"] = DRAWS
    if name == "dps":
        node["scale"] = 0.1  # the published 1 is for pictures, whose residuals are hundreds of times longer
    return schema.build(node, "conditioner")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", nargs="+", type=int, default=[2, 4, 16])
    parser.add_argument("--operator", nargs="+", default=["half", "matrix"])
    parser.add_argument("--conditioner", nargs="+", default=CONDITIONERS)
    parser.add_argument("--sampler", nargs="+", default=["ancestral", "unipc", "ode"], choices=list(SAMPLERS))
    parser.add_argument("--sde", default="vp")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--points", type=int, default=4, help="of each seed")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", default="outputs/posterior", help="where posterior.csv and posterior.png go")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    folder, rows = Path(options.out), []
    folder.mkdir(parents=True, exist_ok=True)
    print(
        "| numbers | y | conditioner | sampler | times the floor | range | shares | coverage | evaluations | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for dim in options.dim:
        data, sde = mixture(dim), schema.build(choice("sde", options.sde), "sde")
        score = Oracle(sde, data.components()).float()
        for name in options.operator:
            operator = operators(dim)[name]
            measurement = pose(data, operator, options.seeds, options.points, torch.float32)
            reference, generator = ExactPosterior(data.components()), torch.Generator().manual_seed(4)
            precise = pose(data, operator, options.seeds, options.points, torch.float64)
            sets = [reference.draw(precise, generator) for _ in range(4)]
            floor = sum(distances(sets[i], sets[j], options.seeds) for i in range(4) for j in range(i)) / 6
            for method in options.conditioner:
                for label in options.sampler:
                    found = run(
                        conditioner(method, data),
                        SAMPLERS[label](options.steps),
                        sde,
                        score,
                        measurement,
                        sets,
                        floor,
                        data,
                    )
                    if found is None:
                        continue
                    rows.append({"dim": dim, "operator": name, "conditioner": method, "sampler": label} | found)
                    print(
                        f"| {dim} | {name} | {method} | {label} | {found['ratio']:.2f} | {found['low']:.2f} to "
                        f"{found['high']:.2f} | {found['shares']:.2f} | {found['coverage']:.2f} | "
                        f"{found['nfe']:.0f} | {found['seconds']:.0f} |",
                        flush=True,
                    )
            write(folder / "posterior.csv", rows)
    print(picture(rows, folder / "posterior.png"))


def run(method, sampler, sde, score, measurement: Measurement, exact: list[Tensor], floor: Tensor, data: Mixture):
    """Returns the row of a conditioner with a sampler; None if the two do not work together."""
    counted, count, shape = Counted(score), len(measurement.y), measurement.operator.shape
    start, noise = (BlockNoise(0, 0, count, shape, torch.float32, stream=s) for s in ("prior", "sampler"))
    started = time.monotonic()
    try:
        sampler, posterior = method.condition(sampler, sde, counted, measurement)
        x = sampler(sde, posterior, start() * sde.prior_std, noise).double()
    except ValueError:
        return None
    ratio = sum(distances(x, each, len(floor)) for each in exact) / len(exact) / floor
    return {
        "ratio": float(ratio.quantile(0.5)),  # torch.median of an even number is not the mean of the middle two
        "low": float(ratio.min()),
        "high": float(ratio.max()),
        "shares": share_error(x, exact, data),
        "coverage": coverage(x, exact[0]),
        "nfe": counted.evaluations / count,
        "seconds": time.monotonic() - started,
    }


def share_error(x: Tensor, exact: list[Tensor], data: Mixture) -> float:
    """Returns the largest error of a component's share at a point, as the mean over the points."""
    weights, means, stds = data.components()
    away = (x.flatten(1)[:, None] - means).square().sum(-1), (torch.cat(exact)[:, None] - means).square().sum(-1)
    found, wanted = (
        torch.softmax(weights.log() - each / (2 * stds**2) - means.shape[1] * stds.log(), 1) for each in away
    )
    found, wanted = found.reshape(-1, DRAWS, len(weights)).mean(1), wanted.reshape(len(exact), -1, DRAWS, len(weights))
    return float((found - wanted.mean((0, 2))).abs().amax(1).mean())


def coverage(x: Tensor, exact: Tensor) -> float:
    """Returns how often a value of an exact draw lies between the draws' quantiles 0.1 and 0.9, of values not fixed by
    y.
    """
    x, exact = x.unflatten(0, (-1, DRAWS)), exact.unflatten(0, (-1, DRAWS))
    low, high = (x.quantile(q, 1, keepdim=True) for q in (0.1, 0.9))
    inside = ((exact >= low) & (exact <= high)).double().mean(1)
    return float(inside[exact.std(1) > 1e-4].mean())


def write(path: Path, rows: list[dict]) -> None:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, keys, restval="")
        writer.writeheader()
        writer.writerows(rows)


def typical(rows: list[dict], method: str) -> float:
    """Returns the geometric mean, over the kinds of measurement, of a conditioner's ratio with its best sampler."""
    best: dict[tuple, float] = {}
    for row in (row for row in rows if row["conditioner"] == method):
        kind = row["dim"], row["operator"]
        best[kind] = min(row["ratio"], best.get(kind, math.inf))
    return math.exp(sum(map(math.log, best.values())) / len(best))


def picture(rows: list[dict], path: Path) -> Path:
    """Draws a panel for each kind of measurement, with a line per conditioner, the best on top, a mark per sampler."""
    from matplotlib.figure import Figure

    from scoresde.figures.canvas import BLUE, GREY, INK, PALE, RED, save, style

    kinds = list(dict.fromkeys((row["dim"], row["operator"]) for row in rows))
    labels = list(dict.fromkeys(row["sampler"] for row in rows))
    looks = list(zip("osD^vPX", (BLUE, RED, INK, GREY, BLUE, RED, INK), strict=True))
    marks = dict(zip(labels, looks[: len(labels)], strict=True))  # an eighth sampler needs a new mark
    with style():
        figure = Figure(figsize=(2.1 * len(kinds) + 1.2, 2.9), layout="constrained")
        panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
        methods = list(dict.fromkeys(row["conditioner"] for row in rows))
        order = sorted(methods, key=lambda method: typical(rows, method), reverse=True)
        for axes, (dim, operator) in zip(panels, kinds, strict=True):
            axes.axvspan(1e-3, 2, color=PALE, alpha=0.4, lw=0)
            axes.axvline(1, color=GREY, lw=0.8)
            for label, (mark, colour) in marks.items():
                own = [r for r in rows if (r["dim"], r["operator"], r["sampler"]) == (dim, operator, label)]
                places = [order.index(r["conditioner"]) for r in own]
                axes.plot([r["ratio"] for r in own], places, mark, color=colour, ms=4, mew=0, alpha=0.85, label=label)
            axes.set(xscale="log", xlim=(0.7, 40), title=f"{dim} numbers, {operator}", yticks=range(len(order)))
            axes.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
            axes.set_xticks([], minor=True)
            axes.set_yticklabels(order)
            axes.grid(axis="y")
        figure.supxlabel("distance to the exact posterior, in units of the floor", fontsize=8)
        handles = panels[0].get_legend_handles_labels()[0]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(labels))
        return save(figure, path)


if __name__ == "__main__":
    main()
