"""How far one random probe a step is from the exact trace, on a trained network.

    python run.py task=train                            the default digits network, unless it is there
    python -m benchmarks.probes checkpoints/digits-ve-...

The standard deviation of log p over the random probes in nats, root mean square over held-out digits, for a single
probe a step, and the evaluations a point: by the spread of 8 independent runs of one probe each. Signs that are kept
fixed along the trajectory, without a control variate, are what FFJORD and the published code take.
"""

import argparse

import torch

from likelihood import Likelihood
from run import load
from sde_lib import HutchPP, Orthogonal, Probes, Rademacher

RUNS = 8


def spread(likelihood: Likelihood, sde, score, x: torch.Tensor) -> tuple[float, float]:
    """(standard deviation, evaluations a point)."""
    results = []
    for seed in range(RUNS):
        torch.manual_seed(seed)
        results.append(likelihood(sde, score, x))
    log_prob = torch.stack([result.log_prob for result in results])
    return float(log_prob.var(0).mean().sqrt()), sum(result.nfe for result in results) / RUNS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--points", type=int, default=16)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sde, score, data = load(options.checkpoint)
    x = data.encode(
        data.dequantise(data.test[: options.points], torch.full((options.points, *data.shape), 0.5))
    ).float()
    kinds: list[tuple[str, Probes]] = [
        ("signs", Rademacher(1)),
        ("orthogonal, for two", Orthogonal(2)),
        ("Hutch++, for two", HutchPP(2)),
    ]
    print("probes                 redrawn  control variate   standard deviation  evaluations")
    for label, probes in kinds:
        for redraw in (False, True):
            for control in (False, True):
                words = {"rtol": options.tolerance, "atol": options.tolerance, "moments": data.moments()}
                made = Likelihood(probes, redraw=redraw, control_variate=control, **words)
                deviation, nfe = spread(made, sde, score, x)
                print(f"{label:<22} {redraw!s:<8} {control!s:<16} {deviation:>19.2f} {nfe:>12.0f}", flush=True)


if __name__ == "__main__":
    main()
