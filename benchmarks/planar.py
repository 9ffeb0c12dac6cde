"""The distance of the default training from the entropy floor on every planar shape.

    python -m benchmarks.planar                     all seven shapes, the default SDE
    python -m benchmarks.planar --sde vp --data moons rings

For each shape: a run of `data=SHAPE task=likelihood` in a store of its own, so that it trains; then the gap of
its held-out negative log-likelihood to the floor, on the same points, and the seconds of training.
"""

import argparse
import json
import tempfile
from pathlib import Path

from scoresde.cli import run

from .oracle import whole

SHAPES = ["moons", "checkerboard", "swissroll", "8gaussians", "pinwheel", "2spirals", "rings"]
AIM = {"checkerboard": 0.08}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=SHAPES)
    parser.add_argument("--sde", nargs="+", default=["ve"])
    parser.add_argument("overrides", nargs="*", help="further overrides, for example model.width=64")
    options = parser.parse_args(argv)
    print("data          sde    gap [nats]          aim   training [s]   nfe")
    for data in options.data:
        for sde in options.sde:
            with tempfile.TemporaryDirectory() as folder:
                result = score(Path(folder), data, sde, options.overrides)
            aim = AIM.get(data, 0.04)
            print(
                f"{data:<13} {sde:<6} {result['gap_nats']:.4f} +- {result['gap_stderr']:.4f}   {aim:.2f}  "
                f"{result['training_seconds']:>8.0f}     {result['nfe']:>6.0f}",
                flush=True,
            )


def score(folder: Path, data: str, sde: str, overrides: list[str]) -> dict:
    """Returns the metrics of one run, with the seconds that its training took."""
    cfg = whole(f"data={data}", f"sde={sde}", "task=likelihood", f"store={folder}/store", *overrides)
    run(cfg, {"data": data, "sde": sde, "task": "likelihood", "sampler": "pc", "model": "auto"}, folder / "run")
    events = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    return metrics | {"training_seconds": max(event["seconds"] for event in events if "step" in event)}


if __name__ == "__main__":
    main()
