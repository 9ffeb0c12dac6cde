"""The heartbeat's bound and samples with the exact log-odds of its bits: the loss due to a chain of T steps.

python -m benchmarks.heartbeat --T 50 200 1000
"""

import argparse
import math

import torch
from torch import Tensor

from scoresde.data import Heartbeat
from scoresde.likelihood import BinaryBound
from scoresde.samplers import binary_ancestral
from scoresde.sde_lib import BinaryChain, ScoreFn


def exact_belief(chain: BinaryChain, data: Heartbeat) -> ScoreFn:
    """Returns the log-odds of each bit of x_0 given x_n, by Bayes' rule over the heartbeats."""
    beats = 2.0 * data.rows.double() - 1

    def logits(x: Tensor, n: Tensor) -> Tensor:
        k = chain.keep(n)[:, None, None]
        weights = torch.softmax(torch.log1p(k * x.double()[:, None] * beats).sum(-1), 1)
        up = weights @ (beats > 0).double()
        return (up.log() - (1 - up).log()).to(x)

    return logits


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--T", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    data = Heartbeat()
    print(
        f"entropy {math.log2(data.period):.4f} bits\n\n| T | bound [bits a row] | share of heartbeats |\n|---|---|---|"
    )
    for T in arguments.T:
        torch.manual_seed(arguments.seed)
        chain = BinaryChain(T=float(T))
        belief = exact_belief(chain, data)
        x = (2.0 * data.rows.double() - 1).repeat(-(-arguments.rows // data.period), 1)
        bits = -BinaryBound()(chain, belief, x).model_log_prob / math.log(2)
        drawn = binary_ancestral(
            chain, belief, torch.randn(arguments.draws, x.shape[1], dtype=torch.float64), torch.randn_like
        )
        share = float(data.true_log_prob((drawn > 0).long()).isfinite().double().mean())
        print(
            f"| {T} | {float(bits.mean()):.3f} ± {float(bits.std()) / math.sqrt(len(bits)):.3f} | {share:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
