"""Compose the configuration, build the nouns, obtain a score, do the task: `python run.py --help`."""

import logging
import math
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# torch and all that stands on it are imported inside the functions: --help and a mistyped group answer at once.

log = logging.getLogger("run")


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(config: DictConfig) -> float | None:
    """One job; a sweeper gets the task's first metric."""
    hydra_config = HydraConfig.get()
    sweep = Path(hydra_config.sweep.dir).name if hydra_config.mode == RunMode.MULTIRUN else None
    try:
        return run(
            OmegaConf.to_container(config, resolve=True),
            dict(hydra_config.runtime.choices),
            Path(hydra_config.runtime.output_dir),
            sweep,
        )
    except (ValueError, OSError, ImportError, FloatingPointError, OmegaConfBaseException) as error:
        # The user's mistakes and the machine's: one message on the screen, the traceback in run.log for whoever needs
        # it.
        log.debug("%s", traceback.format_exc())
        if not sweep:
            sys.exit(f"error: {error}")
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        if not sweep:
            raise
        log.exception("this job failed")
    return math.nan  # of a sweep's failed job: the others go on, and the sweep's summary ends it with exit code 1


def run(cfg: dict, choices: dict[str, str], folder: Path, sweep: str | None = None) -> float | None:
    """Does the task of a resolved configuration, in a folder; returns the task's first metric that is not a count."""
    import torch

    from conf import schema
    from tasks import Record

    record = Record(
        folder,
        cfg,
        cfg["logger"],
        title="-".join(choices[key] for key in ("task", "data", "sde", "sampler")),
        group=sweep,
    )
    try:
        schema.check_root(cfg)
        for key in NODES:
            schema.check(cfg[key], key, unsettled=True)
        device = choose_device(cfg["device"], cfg["dtype"])
        if cfg["threads"]:
            torch.set_num_threads(cfg["threads"])
        data = schema.build(cfg["data"], "data")
        cfg = settle(cfg, data, device)
        sde, task = schema.build(cfg["sde"], "sde"), schema.build(cfg["task"], "task")
        score = obtain_score(cfg, sde, data, record, name="-".join(choices[key] for key in ("data", "sde", "model")))
        metrics = task(sde, score.to(device=device, dtype=getattr(torch, cfg["dtype"])), data, record)
        record.finish(metrics)
    except BaseException as error:
        record.close(failed=f"{type(error).__name__}: {error}")
        if isinstance(error, OSError) and error.errno and not error.filename:  # a full disk does not say where
            raise record.unwritable(error) from error
        raise
    record.close()
    return next(
        (float(value) for key, value in metrics.items() if key != "count" and isinstance(value, int | float)), None
    )


NODES = ("data", "sde", "model", "parameterisation", "training", "likelihood", "sampler", "task")


def settle(cfg: dict, data: Any, device: str) -> dict:
    """Fills in what waited for the data, and checks the whole against its constructors."""
    from conf import schema

    batch = max(1, min(8192, 2**21 // data.dim))
    values = {
        "shape": list(data.shape),
        "components": data.components(),
        "sigma_data": round(data.std, 6),
        "batch": batch,
        "device": device,
    }
    if cfg["model"].get("components") == schema.AUTO and values["components"] is None:
        raise ValueError(
            "model=oracle needs data whose density is a mixture, data=mixture or data=8gaussians; "
            "for other data choose model=mlp or model=unet"
        )
    cfg = schema.settle(cfg, data.shape, values)
    for key in NODES:
        schema.check(cfg[key], key)
    return cfg


def obtain_score(cfg: dict, sde: Any, data: Any, record: Any, name: str) -> Any:
    """The score of a run: the checkpoint that was asked for, or a model without parameters, or the store's, trained if
    it is not there.
    """
    from conf import schema
    from training import Store, journal
    from training.store import put_weights

    if cfg["checkpoint"]:
        return from_checkpoint(cfg, sde, data)
    if "sde" in cfg["model"]:  # a model that names an SDE is a score by itself
        return schema.build(cfg["model"], "model")

    trainer = schema.build(cfg["training"], "training")
    trainer.seeded()
    model = build_model(cfg, sde).to(cfg["device"])
    store, identity = Store(cfg["store"]), identity_of(cfg, data)

    def train(folder: Path) -> Any:
        def note(event: dict) -> None:
            journal.append(folder, event)
            record.event(event)

        return trainer.fit(sde, model, data, folder, note)

    folder = store.folder(identity, name)
    score = store.obtain(identity, name, trainer.steps, train, load=lambda found: put_weights(model, found, folder))
    record.training = journal.read(folder)
    return score


def build_model(cfg: dict, sde: Any) -> Any:
    """A network read as the score of an SDE."""
    from conf import schema
    from models import ScoreModel

    return ScoreModel(
        sde, schema.build(cfg["model"], "model"), schema.build(cfg["parameterisation"], "parameterisation")
    )


def identity_of(cfg: dict, data: Any) -> dict:
    """What decides a network's weights, in plain values; a file of data counts by its content and not by its path."""
    training = {key: value for key, value in cfg["training"].items() if key not in ("evaluate", "save_seconds")}
    fingerprint = data.fingerprint()
    described = (
        cfg["data"]
        if fingerprint is None
        else {**{k: v for k, v in cfg["data"].items() if k != "path"}, "fingerprint": fingerprint}
    )
    return {
        "data": described,
        "sde": cfg["sde"],
        "model": cfg["model"],
        "parameterisation": cfg["parameterisation"],
        "training": training,
    }


def from_checkpoint(cfg: dict, sde: Any, data: Any) -> Any:
    """The network of checkpoint=PATH as the score of the run's SDE, which may be another than it was trained under."""
    from training import store

    identity, found = store.read(cfg["checkpoint"])
    now = identity_of(cfg, data)
    parts = ("data", "model", "parameterisation")
    if lines := differences({key: identity[key] for key in parts}, {key: now[key] for key in parts}):
        raise ValueError(
            f"checkpoint={cfg['checkpoint']} does not fit this run; choose the values it was trained with:\n  "
            + "\n  ".join(lines)
        )
    log.info("loaded %s, %s updates", cfg["checkpoint"], f"{found.step:,}")
    return store.put_weights(build_model(identity, sde), found, cfg["checkpoint"])


def differences(saved: Any, now: Any, key: str = "") -> list[str]:
    """What two trees of plain values disagree in, a line a key."""
    if isinstance(saved, dict) and isinstance(now, dict):
        if saved.get("_target_") != now.get("_target_"):
            return [f"{key}: {saved.get('_target_')} in the checkpoint, {now.get('_target_')} here"]
        names = dict.fromkeys([*saved, *now])
        return [
            line
            for name in names
            for line in differences(
                saved.get(name, "absent"), now.get(name, "absent"), f"{key}.{name}" if key else name
            )
        ]
    return [] if saved == now else [f"{key}: {saved} in the checkpoint, {now} here"]


def load(path: str | Path, device: str = "cpu") -> tuple[Any, Any, Any]:
    """The (sde, score, data) of a trained network: a folder of the store, or one ``step-*`` folder in it.

    Data that were read from a file are not there again, since the store keeps no path: then data is None.
    """
    from conf import schema
    from training import store

    identity, found = store.read(path)
    sde = schema.build(identity["sde"], "sde")
    score = store.put_weights(build_model(identity, sde), found, path)
    data = None if "fingerprint" in identity["data"] else schema.build(identity["data"], "data")
    return sde, score.to(device), data


def choose_device(device: str, dtype: str) -> str:
    """The device that ``auto`` means here; ValueError for one that is not there."""
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, there in present.items() if there and not (name == "mps" and dtype == "float64"))
    if not present[device]:
        raise ValueError(f"device={device} is not there; type device=cpu, or device=auto for the best that is")
    if device == "mps" and dtype == "float64":
        raise ValueError("device=mps has no float64; type dtype=float32 or device=cpu")
    return device


if __name__ == "__main__":
    main()
