"""Does another checkout give the same results? The same commands in both, compared bit for bit.

    python -m benchmarks.same ../other                  all commands; ends in 1 where a result differs
    python -m benchmarks.same ../other --only sweep     the commands with this word in their names

For a change that must change no number. The commands train small networks for a few updates and cover each task and
study, a sweep, an export and a training that is killed and resumed. Compared are the names of the networks' folders,
which hold the hash of what decides their weights, the weights, every array and table, every metric and the pixels of
every picture, but no seconds. Both sides run on one thread; on two machines the last digits of results may differ.
"""

import argparse
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]

SHORT = ["training.steps=60", "training.batch=32", "training.evaluate=20", "training.warmup=10"]
PLANE = ["data=moons", "count=50", *SHORT]
NETWORK = ["data=moons", "model.width=16", *SHORT]
MOONS = [*NETWORK, "count=50"]
DIGITS = ["data=digits", "model.channels=[8,8]", "model.attention=[]", "count=8", *SHORT]
LATENT = ["data=8gaussians", "data.count=500", "count=40", "sde=vp", "sampler=unipc", "sampler.steps=4"]
EXACT = ["data=mixture", "model=oracle", "count=60"]


def recipe(*names: str) -> list[str]:
    """Returns words that make the trainings of models of ``task.models`` short and their networks narrow."""
    short = [word.removeprefix("training.") for word in SHORT if "evaluate" not in word]
    return [
        *(f"task.models.{name}.training.{word}" for name in names for word in short),
        *(f"task.models.{name}.model.networks.width=8" for name in names),
    ]


def rivals(*names: str) -> list[str]:
    """Returns words that make the trainings of networks of ``task.trainers`` short."""
    return [f"task.trainers.{name}.{word.removeprefix('training.')}" for name in names for word in SHORT]


COMMANDS = {
    "digits pc": ["sde=ve", "sampler=pc", "sampler.steps=20", *DIGITS],
    "digits likelihood": ["task=likelihood", "likelihood.rtol=1e-2", "likelihood.atol=1e-2", *DIGITS],
    "digits classes": ["data.condition=labels", "condition=3", "guidance=3", "sampler=unipc", *DIGITS],
    "digits classifier": ["task=train_classifier", "data=digits", "count=8", *SHORT],
    "digits guided": ["classifier=auto", "condition=3", "guidance=2", "sampler=unipc", *DIGITS],
    "digits restore": ["task=restore", "operator=superresolve", "conditioner=pigdm", "sampler=unipc", *DIGITS],
    "digits impute": ["task=impute", "operator=half", "sampler=unipc", *DIGITS],
    "digits interpolate": ["task=interpolate", *DIGITS],
    "digits export": ["task=export", "experiment=score_sde/vp_continuous", "data=digits", "model.width=32", *SHORT],
    "moons train": ["task=train", *NETWORK],
    "moons sub-VP": ["sde=subvp", "sampler=adaptive", *MOONS],
    "moons toy": ["sde=toy", "sampler=heun", *MOONS],
    "moons EDM": ["sde=edm", "sampler=sde_dpmpp_2m", "task.tempering.temperature=0.8", *MOONS],
    "moons custom": ["sde=custom", "sde.diffusion='1 + 5*t**2'", "sampler=ode", *MOONS],
    "moons likelihood": ["task=likelihood", *MOONS],
    "moons cross-check": ["task=likelihood", "task/crosscheck=immse", *MOONS],
    "moons energy": [
        "model=energy_mlp",
        "task=likelihood",
        "task/crosscheck=energy",
        "likelihood.start=plain",
        "model.net.width=16",
        *PLANE,
    ],
    "moons bound": ["task=bound", *MOONS],
    "moons encode": ["task=encode", *MOONS],
    "moons evaluate": ["task=evaluate", "sampler=unipc", *MOONS],
    "moons memorisation": ["task=memorisation", "sampler=unipc", *MOONS],
    "moons averages": ["task=ema", *MOONS],
    "moons sliced": ["training/loss=sliced_vr", "sampler=dpmpp_2m", *MOONS],
    "overfitting": ["task=overfitting", "likelihood.rtol=1e-2", "likelihood.atol=1e-2", *MOONS],
    "gaussian condition": ["data=gaussian", "data.condition=[1]", "task=likelihood", "model.width=16", *PLANE[1:]],
    "oracle likelihood": ["task=likelihood", "sde=vp", *EXACT],
    "oracle work": ["task=work_precision", *EXACT],
    "oracle deis": ["sde=vp", "sampler=deis", *EXACT],
    "manifold": ["experiment=manifold", *rivals("without_noise", "with_noise")],
    "low density": ["experiment=low_density", *rivals("clean", "some_noise", "much_noise")],
    "slow mixing": ["experiment=slow_mixing", "count=60"],
    "VAE": ["task=elbo", *LATENT, "task.models.vae.model.latent=2", *recipe("vae")],
    "generators": [
        "task=generators",
        "task.seeds=1",
        "task.score=false",
        "~task.models.lsgm",
        *LATENT,
        *recipe("vae", "gan", "wae"),
    ],
    "heartbeat": ["experiment=heartbeat", "training.steps=20", "training.batch=32", "count=20"],
    "table impute": ["task=impute", "operator=columns", "sampler=unipc", *MOONS],
    "sweep": ["-m", "sde=ve,vp,subvp", "sampler=em,pc,ode", "sampler.steps=20", *MOONS],
    "resume": ["task=train", "training.save_seconds=0.05", *NETWORK, "training.steps=2000"],
}
TIMED = ("seconds", "per_second")  # what a key of a time holds
PAINTED_TIMES = ("work_precision.png", "likelihood_precision.png", "summary.png", "training.png")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the folder of the other checkout")
    parser.add_argument("--only", default="", help="a word of the commands' names")
    arguments = parser.parse_args(words)
    chosen = {name: command for name, command in COMMANDS.items() if arguments.only in name}
    if not chosen:
        parser.error(f"--only={arguments.only} is part of no name; type one of {', '.join(COMMANDS)}")
    if not (arguments.other / "run.py").is_file():
        parser.error(f"{arguments.other} holds no run.py; name the folder of a checkout")
    differing = 0
    print("| command | results | that differ |\n| --- | ---: | --- |")
    for name, command in chosen.items():
        here, there = (results(root, command, name == "resume") for root in (ROOT, arguments.other.resolve()))
        different = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
        differing += len(different)
        print(f"| {name} | {len(here)} | {', '.join(different) or 'none'} |", flush=True)
    if differing:
        sys.exit(1)


def results(root: Path, command: list[str], killed: bool = False) -> dict[str, str]:
    """Returns what a command leaves in a checkout, as digests by name."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        words = [*command, "threads=1", f"store={out / 'store'}", f"hydra.run.dir={out / 'run'}"]
        words += [f"hydra.sweep.dir={out / 'run'}"]
        call = [sys.executable, "run.py", *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        options = {
            "cwd": root,
            "env": environment,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }
        if killed:
            kill_after_a_checkpoint(call, options, out / "store")
        done = subprocess.run(call, **options)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ends in {done.returncode} in {root}:\n{done.stdout[-2000:]}")
        found = collected(out)
        if not found:
            raise SystemExit(f"{' '.join(command)} has left nothing to compare in {root}")
        return found


def kill_after_a_checkpoint(call: list[str], options: dict, store: Path) -> None:
    """Kills a training as soon as it has left a checkpoint; SystemExit if it has ended before."""
    process = subprocess.Popen(call, **options | {"stdout": subprocess.DEVNULL})
    while process.poll() is None and not list(store.glob("*/step-*")):
        time.sleep(0.02)
    if process.poll() is not None:
        raise SystemExit(f"{' '.join(call)} has ended before it could be killed; give it more updates")
    process.send_signal(signal.SIGKILL)
    process.wait()


def collected(out: Path) -> dict[str, str]:
    """Returns digests of the newest weights of each network in a store, of what trainings kept, and of runs' files."""
    found: dict[str, str] = {}
    for network in sorted(path for path in (out / "store").glob("*") if (path / "config.yaml").is_file()):
        found[f"network {network.name}"] = "there"
        newest = sorted(network.glob("step-*"))[-1:]
        for kept in [*newest, *sorted(network.glob("kept-*")), *sorted(network.glob("power-*"))]:
            for file in sorted(kept.glob("*.safetensors")):
                name = f"{network.name}/{kept.name}/{file.stem}"
                found |= {f"{name}/{key}": digest(tensor) for key, tensor in load_file(file).items()}
    for file in sorted(path for path in (out / "run").rglob("*") if path.is_file()):
        read = READERS.get(file.suffix) if file.name not in (*PAINTED_TIMES, "metrics.jsonl") else None
        if read is not None:
            name = str(file.relative_to(out / "run"))
            found |= {f"{name}/{key}".rstrip("/"): value for key, value in read(file).items()}
    return {key: value for key, value in found.items() if str(out) not in value}


def digest(values: np.ndarray) -> str:
    """Returns a hash of an array's type, shape and values."""
    content = np.ascontiguousarray(values)
    return hashlib.sha256(f"{content.dtype} {content.shape}".encode() + content.tobytes()).hexdigest()


def metrics(file: Path) -> dict[str, str]:
    found = json.loads(file.read_text())
    return {key: json.dumps(value) for key, value in found.items() if not any(word in key for word in TIMED)}


def arrays(file: Path) -> dict[str, str]:
    with np.load(file, allow_pickle=False) as archive:
        return {key: digest(archive[key]) for key in archive.files}


def table(file: Path) -> dict[str, str]:
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = [key for key in rows[0] if not any(word in key for word in TIMED)]
    return {key: json.dumps([row[key] for row in rows]) for key in columns}


def pixels(file: Path) -> dict[str, str]:
    return {"": digest(np.asarray(Image.open(file)))}


READERS: dict[str, Callable[[Path], dict[str, str]]] = {
    ".json": metrics,
    ".npz": arrays,
    ".csv": table,
    ".png": pixels,
    ".safetensors": lambda file: {key: digest(tensor) for key, tensor in load_file(file).items()},
}


if __name__ == "__main__":
    main()
