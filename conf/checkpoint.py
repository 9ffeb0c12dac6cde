"""Networks that the user names by a path: ``checkpoint=`` and ``task.other=``."""

import logging
from pathlib import Path
from typing import Any

from scoresde.data import Data
from scoresde.tasks import Network, Task
from scoresde.training import store

from . import compatibility, schema, stored
from .foreign_checkpoints import from_foreign, is_foreign
from .identity import differences, identity_of, tree, without_memory_keys
from .trained import build_model, placed, refuse_other_shapes

log = logging.getLogger(__name__)


def folder_of(path: str) -> Path:
    """Returns the network's folder of ``checkpoint=PATH``; PATH may be a ``step-*`` or ``kept-*`` folder in it."""
    return Path(path).parent if Path(path).name.startswith(("step-", "kept-")) else Path(path)


def from_checkpoint(cfg: dict, sde: Any, data: Data, task: Task | None) -> Network:
    """Returns the network of ``checkpoint=PATH`` as the score of the run's SDE.

    The network may have been trained under another SDE. Its data, model and parameterisation must be the run's. Another
    code's checkpoint records no data; see :func:`scoresde.conf.foreign_checkpoints.from_foreign`.

    Arguments:
        task: is warned of a training that does not fit its integers; None for a network that no task asks for.

    Raises:
        ValueError: the checkpoint is damaged, or does not fit the run.
        FileNotFoundError: there is no such checkpoint, or a folder of diffusers holds no weights.
    """
    path = cfg["checkpoint"]
    if is_foreign(path):
        refuse_other_shapes(cfg["model"], data.shape, "model")
        return Network(from_foreign(path, build_model(cfg, sde), sde))
    identity, found = stored.read(path)
    if cfg.get("classifier") and any(node.get("condition") for node in tree(identity["model"])):
        raise ValueError(
            f"checkpoint={path} is a conditional network, which needs no classifier: leave "
            f"classifier out and type data.condition=labels, with guidance=3 to exaggerate"
        )
    now = identity_of(cfg, data)
    parts = ("data", "model", "parameterisation")
    saved = {key: identity[key] for key in parts} | {"model": without_memory_keys(identity["model"])}
    if lines := differences(saved, {key: now[key] for key in parts}):
        raise ValueError(
            f"checkpoint={path} does not fit this run; choose the values it was trained with:\n  " + "\n  ".join(lines)
        )
    compatibility.bins(task, sde, data, identity)
    log.info("loaded %s, %s of %s updates", path, f"{found.step:,}", f"{identity['training']['steps']:,}")
    return Network(store.put_weights(build_model(identity, sde), found, path), folder=folder_of(path))


def refuse_foreign(cfg: dict) -> None:
    """Raises a ValueError if ``checkpoint=`` is another code's, for tasks that need networks kept during training."""
    if cfg["checkpoint"] and is_foreign(cfg["checkpoint"]):
        raise ValueError(
            f"checkpoint={cfg['checkpoint']} is another code's and keeps nothing of its training, which this task "
            f"asks for; leave checkpoint out to train a network"
        )


def other_network(cfg: dict, path: str, data: Data) -> tuple[Any, Any]:
    """Returns the SDE and the network of ``task.other=PATH``, the SDE being the one that it was trained under.

    Raises:
        ValueError: the path is empty, or the checkpoint is damaged or of other data.
        FileNotFoundError: there is no such checkpoint.
    """
    if not path:
        raise ValueError("task.other= is empty; type task.other=PATH, or leave it out")
    identity, found = stored.read(path, "task.other")
    if lines := differences({"data": identity["data"]}, {"data": identity_of(cfg, data)["data"]}):
        raise ValueError(
            f"task.other={path} is a network of other data, whose codes cannot be compared; choose one of these data, "
            f"or the data that it was trained on:\n  "
            + "\n  ".join(lines).replace("in the checkpoint", "in the other network")
        )
    sde = schema.build(identity["sde"], "sde")
    score = store.put_weights(build_model(identity, sde), found, path)
    log.info("the other network: %s, %s updates", path, f"{found.step:,}")
    return sde, placed(cfg, score)
