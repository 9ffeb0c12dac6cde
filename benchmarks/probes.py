"""The error of random probes of the trace on a trained network, and their cost.

    python run.py task=train                            the default digits network, unless it is there
    python -m benchmarks.probes checkpoints/digits-ve-...

The table has the standard deviation of log p over the random probes in nats, as the root mean square over held-out
digits, from 8 independent runs of each contestant, which take turns; the mean evaluations per point; and the median
seconds of a run. The first row is the published way: one vector of random signs that is kept along the trajectory, with
torchdiffeq's dopri5 in t. The last column compares at equal cost: std sqrt(seconds / published seconds) / published
std, where the published standard deviation is lowered by averaging as many probes as fit in the contestant's seconds.
"""

import argparse
import time
from dataclasses import replace
from statistics import median

import torch
from tqdm import tqdm

from scoresde import load
from scoresde.likelihood import Likelihood
from scoresde.sde_lib import HutchPP, Orthogonal, Rademacher


def contestants(tolerance: float, moments: tuple) -> dict[str, Likelihood]:
    shared = {"rtol": tolerance, "atol": tolerance, "moments": moments}
    signs = Rademacher(1)
    kept = {"redraw": False, "control_variate": False}
    made = {"published": Likelihood(signs, method="torchdiffeq.dopri5", clock="t", **kept, **shared)}
    for label, probes in (("signs", signs), ("orthogonal, for two", Orthogonal(2)), ("Hutch++, for two", HutchPP(2))):
        plain = Likelihood(probes, **kept, **shared)
        made |= {
            f"{label}, kept": plain,
            f"{label}, kept, control": replace(plain, control_variate=True),
            f"{label}, redrawn": replace(plain, redraw=True),
            f"{label}, redrawn, control": replace(plain, redraw=True, control_variate=True),
        }
    return made


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--points", type=int, default=16)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--only", nargs="+", default=[], help="parts of contestants' names, beside the published one")
    parser.add_argument("--runs", type=int, default=8, help="of each contestant, at least 2")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    sde, score, data = load(options.checkpoint)
    x = data.encode(
        data.dequantise(data.test[: options.points], torch.full((options.points, *data.shape), 0.5))
    ).float()
    made = contestants(options.tolerance, data.moments())
    wanted = ["published", *(options.only or made)]
    made = {label: each for label, each in made.items() if any(part in label for part in wanted)}
    results, seconds = ({label: [] for label in made} for _ in range(2))
    for seed in tqdm(range(options.runs), "rounds"):
        for label, likelihood in made.items():
            torch.manual_seed(seed)
            started = time.perf_counter()
            results[label].append(likelihood(sde, score, x))
            seconds[label].append(time.perf_counter() - started)
    print(f"{'probes':<38} standard deviation  evaluations  seconds  share at equal cost")
    deviations = {
        label: float(torch.stack([result.model_log_prob for result in each]).var(0).mean().sqrt())
        for label, each in results.items()
    }
    for label, deviation in deviations.items():
        spent, published = median(seconds[label]), median(seconds["published"])
        share = deviation / deviations["published"] * (spent / published) ** 0.5
        nfe = sum(result.nfe for result in results[label]) / options.runs
        print(f"{label:<38} {deviation:>18.2f} {nfe:>12.0f} {spent:>8.2f} {share:>20.2f}", flush=True)


if __name__ == "__main__":
    main()
