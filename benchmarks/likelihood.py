"""The cost and the error of a log-density: our solver in the angle against torchdiffeq's dopri5 in t.

    python -m benchmarks.likelihood                    4,096 points at tolerance 1e-5
    python -m benchmarks.likelihood --batch 512 --rounds 1

Points of ``data=mixture`` are scored with the exact score in float64, so that all errors are the solver's. Two errors
are printed in nats. The *solver's* error is that against the log-density that a perfect solver would return with the
same prior. The *density's* error is that against log p_0, the density of the data itself, and includes the blur at eps
and the error of the prior; the third contestant corrects both. Contestants take turns; seconds are medians over the
rounds, with their range in brackets.

The last line is the cost of torchdiffeq at an equal worst error: its tolerance is tightened by eighths of a decade
until its solver's worst error is not above ours. Evaluations are counted per point, as the mean over points.
"""

import argparse
import time
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from scoresde.conf import schema
from scoresde.likelihood import Likelihood
from scoresde.models import Oracle
from scoresde.sde_lib import SDE

from .oracle import compose


def contestants(tolerance: float, moments: tuple) -> dict[str, Likelihood]:
    shared = {"rtol": tolerance, "atol": tolerance}
    published = shared | {"start": "plain", "prior": "standard"}
    return {
        "torchdiffeq.dopri5, t": Likelihood(method="torchdiffeq.dopri5", clock="t", **published),
        "tsit5, angle": Likelihood(**published),
        "tsit5, angle, corrected": Likelihood(moments=moments, **shared),
    }


def perfect(likelihood: Likelihood, sde: SDE, oracle: Oracle, x: Tensor, result) -> Tensor:
    """Returns log p(x) as a solver without error would return it."""
    ends = torch.tensor([sde.eps, sde.T], dtype=torch.float64)
    start, end = (t.expand(len(x)) for t in ends)
    prior = sde.prior_log_prob(result.z) + result.prior_term - oracle.log_prob(result.z, end)
    if likelihood.start == "plain":
        return prior + oracle.log_prob(x, start)
    alpha = sde.alpha(ends)[0]
    return prior + oracle.log_prob(alpha * x, start) + x.shape[1] * alpha.log() + result.start_term


def worst_error(likelihood: Likelihood, sde: SDE, oracle: Oracle, x: Tensor, result) -> float:
    return float((result.model_log_prob - perfect(likelihood, sde, oracle, x, result)).abs().max())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sde", nargs="+", default=["ve", "vp", "subvp"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print("                                          solver's error         density's error")
    print("sde    method                      nfe     worst       rms       worst       rms   seconds")
    for name in options.sde:
        cfg = compose("data=mixture", f"sde={name}", f"data.test_count={options.batch}")
        data, sde = schema.build(cfg["data"], "data"), schema.build(cfg["sde"], "sde")
        oracle, r = Oracle(sde, data.components()), data.test[: options.batch].double()
        x, truth = data.encode(r), data.true_log_prob(r) - data.log_det
        seconds, results, solvers = {}, {}, contestants(options.tolerance, data.moments())
        for _ in range(options.rounds):
            for label, likelihood in solvers.items():
                started = time.perf_counter()
                results[label] = likelihood(sde, oracle, x)
                seconds.setdefault(label, []).append(time.perf_counter() - started)
        for label, result in results.items():
            errors = []
            for expected in (perfect(solvers[label], sde, oracle, x, result), truth):
                error = (result.model_log_prob - expected).abs()
                errors += [float(error.max()), float(error.square().mean().sqrt())]
            spent = seconds[label]
            numbers = " ".join(f"{error:>10.1e}" for error in errors)
            spread = f"[{min(spent):.1f} - {max(spent):.1f}]"
            print(f"{name:<6} {label:<24} {result.nfe:>6.0f} {numbers} {median(spent):>8.1f}  {spread}", flush=True)
        reference, ours = (solvers[label] for label in ("torchdiffeq.dopri5, t", "tsit5, angle"))
        nfe, worst = results["tsit5, angle"].nfe, worst_error(ours, sde, oracle, x, results["tsit5, angle"])
        for eighths in range(-8, 33):
            tolerance = options.tolerance * 10 ** (-eighths / 8)
            if tolerance >= 1:  # the loosest that a solver takes is just below
                continue
            result = replace(reference, rtol=tolerance, atol=tolerance)(sde, oracle, x)
            theirs = worst_error(reference, sde, oracle, x, result)
            if theirs <= worst:
                break
        print(
            f"{name:<6} equal worst error: torchdiffeq at {tolerance:.1e} takes {result.nfe:.0f} evaluations for "
            f"{theirs:.1e}, ours {nfe:.0f} for {worst:.1e}: a share of {nfe / result.nfe:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
