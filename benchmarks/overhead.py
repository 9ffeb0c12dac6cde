"""The cost of a sampling step beyond the network: its time over that of the network evaluations in it.

    python -m benchmarks.overhead

The calls that a sampler makes of its network F(x, c) are recorded once. Then the same calls, of as many samples and
with one noise level for the batch or one for each sample, are made without a sampler, immediately before and after each
of the sampler's runs and in the same process, so that the machine's drift cancels. Samplers take turns. The limit is
1.00. Our aims are 1.10 for steps of one evaluation or of a Runge-Kutta method and 1.25 for multistep ones.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from scoresde.models import EDM, MLP, ScoreModel, UNet
from scoresde.samplers import (
    DEIS,
    SEA,
    Ancestral,
    EulerMaruyama,
    Exponential,
    Heun,
    Karras,
    Langevin,
    LogSNR,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    ShARK,
    Uniform,
    UniPC,
)
from scoresde.sde_lib import VP, BlockNoise

NETWORKS = {
    "mlp 128x3, (512, 2)": (lambda: MLP((2,)), (512, 2), 100, 1e-3),
    "unet 1M, (64, 1, 28, 28)": (
        lambda: UNet((1, 28, 28), channels=(32, 64, 96), attention=(7,)),
        (64, 1, 28, 28),
        4,
        1e-1,
    ),
}


def samplers(steps: int, tolerance: float) -> dict:
    return {
        "em": PredictorCorrector(Uniform(), steps, EulerMaruyama()),
        "pc": PredictorCorrector(Uniform(), steps, ReverseDiffusion(), Langevin()),
        "ancestral": PredictorCorrector(Uniform(), steps, Ancestral()),
        "ddim": PredictorCorrector(LogSNR(), steps, Exponential(1)),
        "heun": PredictorCorrector(Karras(), steps, Heun()),
        "sea": PredictorCorrector(Karras(), steps, SEA()),
        "shark": PredictorCorrector(Karras(), steps, ShARK()),
        "dpmpp_2m": PredictorCorrector(LogSNR(), steps, Exponential(2)),
        "dpmpp_3m": PredictorCorrector(LogSNR(), steps, Exponential(3)),
        "unipc": PredictorCorrector(LogSNR(), steps, UniPC()),
        "deis": PredictorCorrector(LogSNR(), steps, DEIS()),
        "sde_dpmpp_2m": PredictorCorrector(LogSNR(), steps, Exponential(2, eta=1.0)),
        "ode (tsit5, a step for each sample)": ProbabilityFlow(rtol=tolerance, atol=tolerance),
        "ode (torchdiffeq.dopri5)": ProbabilityFlow(method="torchdiffeq.dopri5", rtol=tolerance, atol=tolerance),
        "ode (torchdiffeq.euler)": ProbabilityFlow(method="torchdiffeq.euler", steps=steps),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", default=[], help="parts of network names")
    parser.add_argument("--steps", type=int, help="of each sampler; default 100 with the MLP and 4 with the U-Net")
    options = parser.parse_args(argv)
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, (make, shape, steps, tolerance) in NETWORKS.items():
            steps = options.steps or steps
            if not options.only or any(part in name for part in options.only):
                net = network(make)
                found = ratios(net, loops(net, shape, steps, tolerance), options.rounds)
                parameters = sum(p.numel() for p in net.parameters())
                print(f"\n{name}, {parameters:,} parameters, threads={threads}, {options.rounds} rounds: ", end="")
                table(found)


def network(make) -> torch.nn.Module:
    """Returns a network whose last layer is not zero."""
    torch.manual_seed(0)
    net = make().eval().requires_grad_(False)
    torch.nn.init.normal_(net.last.weight if hasattr(net.last, "weight") else net.last[-1].weight, std=0.02)
    return net


def loops(net, shape: tuple[int, ...], steps: int, tolerance: float) -> dict[str, Callable[[], object]]:
    """Returns functions that run our samplers with a network."""
    sde = VP()
    score = ScoreModel(sde, net, EDM(1.0))

    def run(sampler) -> None:
        noise = BlockNoise(0, 0, shape[0], shape[1:], torch.float32)
        sampler(sde, score, noise(), noise)

    return {label: partial(run, sampler) for label, sampler in samplers(steps, tolerance).items()}


@torch.no_grad()
def ratios(net, runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[list[float], int]]:
    """Returns for each run its time over that of its calls of the network, round by round, and the number of calls."""
    calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for label, run in runs.items():  # also warms up
        calls[label] = seen = []

        def note(_, given, seen=seen) -> None:
            x, c = given
            seen.append((x.shape, c.stride(0) == 0))

        hook = net.register_forward_pre_hook(note)
        run()
        hook.remove()

    shapes = {shape for seen in calls.values() for shape, _ in seen}
    inputs = {shape: (torch.randn(shape), torch.zeros(1).expand(shape[0]), torch.zeros(shape[0])) for shape in shapes}

    def replay(seen: list) -> None:
        for shape, shared in seen:
            x, one, many = inputs[shape]
            net(x, one if shared else many)

    # on one thread we take the process's CPU time, which other processes do not affect
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def seconds(run: Callable[[], object]) -> float:
        started = clock()
        run()
        return clock() - started

    results: dict[str, tuple[list[float], int]] = {label: ([], len(seen)) for label, seen in calls.items()}
    for _ in range(rounds):
        for label, run in runs.items():
            again = partial(replay, calls[label])
            before, own, after = seconds(again), seconds(run), seconds(again)
            results[label][0].append(own / ((before + after) / 2))
    return results


def table(results: dict[str, tuple[list[float], int]]) -> None:
    print("time / bare network")
    for label, (found, calls) in results.items():
        spread = f"[{min(found):.2f} - {max(found):.2f}]"
        print(f"  {label:<38} {median(found):.2f}  {spread}  {calls:>4} calls", flush=True)


if __name__ == "__main__":
    main()
