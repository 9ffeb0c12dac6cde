"""The error of every sampler under every SDE, with the exact score of a mixture.

    python -m benchmarks.oracle                   20,000 samples
    python -m benchmarks.oracle --count 4000 --sde vp

Weights, means and stds of the components are compared with the mixture's own; z is the largest deviation in units of
its Monte-Carlo error, over all twelve numbers. A sampler with a number of steps starts at that of its yaml, which is
doubled until z is below 3.5 (the largest of twelve normals is below it with probability 0.994). Annealed Langevin
dynamics is not exact at any number of steps, and runs once. The last column is the largest error of a weight.
"""

import argparse
import warnings
from dataclasses import fields, replace

import torch
from torch import Tensor

from scoresde.conf import schema
from scoresde.conf.values import NODES
from scoresde.sde_lib import BlockNoise, Counted

SAMPLERS = (
    "em pc ancestral reverse_diffusion ode ald ddim dpmpp_2m dpmpp_3m unipc deis adams_bashforth heun restart "
    "sde_dpmpp_2m sea shark adaptive"
).split()


def whole(*overrides: str) -> dict:
    """Returns the configuration of a command line."""
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize(config_path="../conf", version_base="1.3"):
        return OmegaConf.to_container(hydra.compose("config", overrides=list(overrides)), resolve=True)


def choice(group: str, name: str) -> dict:
    """Returns one choice of a group that refers to no other, in a third of the time of a whole configuration."""
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize(config_path="../conf", version_base="1.3"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a choice by itself has no _self_ in its defaults
        cfg = OmegaConf.to_container(hydra.compose(f"{group}/{name}"), resolve=True)
    for part in group.split("/"):
        cfg = cfg[part]
    return cfg


def compose(*overrides: str) -> dict:
    """Returns the groups of the configuration of a command line that are not empty."""
    cfg = whole(*overrides)
    return {key: cfg[key] for key in NODES if cfg.get(key)}


def deviations(x: Tensor, weights: Tensor, means: Tensor, stds: Tensor) -> tuple[float, float]:
    """Returns the largest z of weights, means and stds, and the largest error of a weight."""
    # responsibilities and not hard labels, since the components overlap a little
    log_r = weights.log() - means.shape[1] * stds.log() - 0.5 * (x[:, None] - means).square().sum(-1) / stds.square()
    r = torch.softmax(log_r, dim=1)
    count, z = len(x), []
    found = r.mean(0)
    z.append((found - weights).abs() / (r.std(0) / count**0.5))
    for k in range(len(weights)):
        offset = r[:, k, None] * (x - means[k])
        z.append(offset.mean(0).abs() / (offset.std(0) / count**0.5))
        spread = r[:, k] * ((x - means[k]).square().mean(1) - stds[k].square())
        z.append((spread.mean().abs() / (spread.std() / count**0.5))[None])
    return float(torch.cat(z).max()), float((found - weights).abs().max())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--sde", nargs="+", default=["ve", "vp", "subvp", "toy"])
    parser.add_argument("--sampler", nargs="+", default=SAMPLERS)
    parser.add_argument("--most", type=int, default=16_000, help="the largest number of steps tried")
    options = parser.parse_args(argv)
    print("sde     sampler             steps    nfe     largest z   largest error of a weight")
    for name in options.sde:
        cfg = compose("data=mixture", "model=oracle", f"sde={name}", "data.count=20000")
        data, sde = schema.build(cfg["data"], "data"), schema.build(cfg["sde"], "sde")
        from scoresde.models import Oracle

        score, parts = Oracle(sde, data.components()).float(), data.components()
        for label in options.sampler:
            node = schema.settle(choice("sampler", label), data.shape, {"sigma_data": data.std, "last": "flow"})
            sampler = schema.build(node, "sampler")
            adaptive = "rtol" in {each.name for each in fields(sampler)}
            while True:
                counted = Counted(score)
                start, noise = (
                    BlockNoise(0, 0, options.count, data.shape, torch.float32, stream=s) for s in ("prior", "sampler")
                )
                x = sampler(sde, counted, start() * sde.prior_std, noise).double()
                z, error = deviations(x, *parts)
                steps = getattr(sampler, "steps", 0)
                if z < 3.5 or adaptive or label == "ald" or 2 * steps > options.most:
                    break
                sampler = replace(sampler, steps=2 * steps)
            shown = "adaptive" if adaptive else steps
            nfe = counted.evaluations / options.count
            print(f"{name:<7} {label:<18} {shown:>8} {nfe:>6.0f} {z:>10.2f} {error:>12.4f}", flush=True)


if __name__ == "__main__":
    main()
