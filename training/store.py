"""The store of trained networks, each in a folder that its configuration names.

A network's identity is the resolved configuration that decides its weights. The identity's hash names a folder of the
store. A run that needs a network loads it from there if it is finished, resumes its training if that was interrupted,
and trains it otherwise. A lock on the folder lets one process train while others wait; the operating system releases
the lock when its holder dies.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout
from torch import nn

from . import checkpoint
from .checkpoint import VERSION, Checkpoint, Damaged, Outdated

log = logging.getLogger(__name__)

Identity = dict[str, Any]
"""Plain nested values under the keys data, sde, model, parameterisation and training, made by ``conf/identity.py``.

A model that starts from another has a key ``start``, the other's identity.
"""


def digest(identity: Identity) -> str:
    """Returns ten hexadecimal digits that name an identity under this version of the code."""
    return hashlib.sha256(json.dumps([VERSION, identity], sort_keys=True).encode()).hexdigest()[:10]


class Store:
    """A folder of trained networks.

    Arguments:
        root: the folder, which is made with the first network.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def folder(self, identity: Identity, name: str) -> Path:
        """Returns the folder of a network; ``name`` makes the folder's name readable."""
        return self.root / f"{name}-{digest(identity)}"

    def obtain(
        self,
        identity: Identity,
        name: str,
        steps: int,
        train: Callable[[Path], nn.Module],
        load: Callable[[Checkpoint], nn.Module],
        source: dict[str, Any] | None = None,
    ) -> nn.Module:
        """Returns the trained network of an identity, and trains it first if need be.

        Arguments:
            name: makes the folder's name readable.
            steps: the number of updates after which the network is finished.
            train: begins or resumes the training in a folder, and returns the network.
            load: makes the network from a finished checkpoint.
            source: where the data were. It is saved with the identity but is no part of it.

        Raises:
            OSError: a checkpoint cannot be read; or the store cannot be written, and the network must be trained.
        """
        folder = self.folder(identity, name)
        described = {**identity, "source": source} if source else identity
        if finished := self.finished(folder, steps):
            with contextlib.suppress(OSError):  # a read-only store keeps its text
                write_config(folder, described)
            return load(finished)
        lock = self.lock(folder)
        try:
            if finished := self.finished(folder, steps):  # by the process that held the lock
                return load(finished)
            write_config(folder, described)
            log.info("training %s, %s updates, once: later runs load it from %s", name, f"{steps:,}", folder)
            return train(folder)
        finally:
            lock.release()

    def lock(self, folder: Path) -> FileLock:
        """Returns the lock on a network's folder, acquired; waits while another process trains there.

        Raises:
            OSError: the store cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("another process is training this network (%s); waiting for it", folder)
                lock.acquire()
        except OSError as error:
            raise OSError(
                f"the store {self.root.absolute()} cannot be written ({error.strerror or error}); "
                f"choose another with store=FOLDER"
            ) from error
        return lock

    def kept(
        self, folder: Path, steps: Iterable[int], again: Callable[[Path], nn.Module], kind: str = "kept"
    ) -> dict[int, Path]:
        """Returns the paths of the averages after some numbers of updates of a trained network.

        If its training did not keep them, the training is repeated in the subfolder ``again``. The repetition is
        resumed if it is interrupted. It ends in the same weights on the same machine with the same number of threads; a
        warning says if it did not.

        Arguments:
            folder: the network's folder.
            steps: the numbers of updates.
            again: trains the network once more in a folder, and keeps the averages there.
            kind: ``kept``, the network's own average, or ``power``, those of :mod:`scoresde.training.posthoc`.
        """
        paths = {step: folder / f"{kind}-{step:08d}" for step in sorted(steps)}
        if all(path.exists() for path in paths.values()):
            return paths
        lock = self.lock(folder)
        try:
            if all(path.exists() for path in paths.values()):  # by the process that held the lock
                return paths
            log.info(
                "this task needs earlier averages of %s, which its training did not keep: the training is repeated "
                "once, to the same weights, and keeps what the task needs",
                folder,
            )
            aside = folder / "again"
            score, own = again(aside), checkpoint.load_newest(folder)
            weights = score.state_dict()
            if own and not all(torch.equal(weights[key].cpu(), tensor) for key, tensor in own.tensors["ema"].items()):
                log.warning(
                    "the second training of %s ended in other weights (another machine, torch or number of threads): "
                    "the averages kept are those of the second one",
                    folder,
                )
            for path in aside.glob(f"{kind}-*"):
                if path.name in {wanted.name for wanted in paths.values()}:
                    shutil.rmtree(folder / path.name, ignore_errors=True)
                    path.rename(folder / path.name)
            shutil.rmtree(aside)
        finally:
            lock.release()
        return paths

    def finished(self, folder: Path, steps: int) -> Checkpoint | None:
        """Returns the checkpoint after ``steps`` updates in a folder; None if there is no undamaged one."""
        if not (folder / f"step-{steps:08d}").exists():
            return None
        newest = checkpoint.load_newest(folder)
        if newest is None or newest.step != steps:
            return None
        log.info("loaded the trained network of %s", folder)
        return newest


def put_weights(model: nn.Module, found: Checkpoint, where: Path | str) -> nn.Module:
    """Loads a checkpoint's moving average into the model, freezes it and returns it.

    Arguments:
        where: the checkpoint's place, for messages.

    Raises:
        ValueError: the weights do not fit.
    """
    try:
        model.load_state_dict(found.tensors["ema"])
    except (RuntimeError, KeyError) as error:
        raise ValueError(
            f"{where}: its weights do not fit the network that its config.yaml describes, so another version of the "
            f"code wrote it. Move the folder away to train anew ({str(error).splitlines()[-1].strip()})"
        ) from None
    return model.eval().requires_grad_(False)


def load_kept(path: Path) -> Checkpoint:
    """Returns a checkpoint ``kept-*`` or ``power-*``; ValueError if it is damaged or of another version."""
    try:
        return checkpoint.load(path)
    except Damaged as error:
        raise ValueError(f"{error}; remove {path} and run the same command, which trains once more") from None


def write_config(folder: Path, described: dict[str, Any]) -> None:
    """Writes an identity, with ``source`` for where its data were, beside the checkpoints as ``config.yaml``.

    ``source``, which the identity's hash does not cover, gets a checksum as its last key ``sum``.
    """
    if source := described.get("source"):
        described = {**described, "source": {**source, "sum": sum_of(source)}}
    target, partial, text = folder / "config.yaml", folder / ".config.yaml", yaml.safe_dump(described, sort_keys=False)
    if not target.exists() or target.read_bytes() != text.encode():
        partial.write_text(text)
        partial.replace(target)


def sum_of(source: dict[str, Any]) -> str:
    """Returns ten hexadecimal digits of a hash of the units in ``source``.

    Its path is left out: a file that is moved may be named anew, and counts by its content.
    """
    units = {key: value for key, value in source.items() if key not in ("path", "sum")}
    return hashlib.sha256(json.dumps(units, sort_keys=True).encode()).hexdigest()[:10]


def read(path: Path | str, key: str = "checkpoint") -> tuple[Identity, Checkpoint]:
    """Returns a network's identity, with ``source``, and a checkpoint; never an older one in place of a damaged one.

    Arguments:
        path: the network's folder, for its newest checkpoint, or one ``step-*`` or ``kept-*`` folder in it.
        key: the configuration key that gave the path, for messages.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged or of another version (:class:`Outdated`), or its config.yaml is not what was written.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{key}={path} does not exist (looked at {path.absolute()})")
    folder = path.parent if path.name.startswith(("step-", "kept-")) else path
    steps = sorted(folder.glob("step-*"))
    if not (folder / "config.yaml").is_file() or not steps:
        raise FileNotFoundError(
            f"{key}={path} holds no trained network; name a folder of the store like "
            f"checkpoints/digits-ve-unet_small-0123456789, with a config.yaml and step-* folders"
        )
    asked = path if folder != path else steps[-1]
    try:
        # before read_config, which refuses the other hash of another version's folder as damage
        found = checkpoint.load(asked)
    except Outdated as error:
        raise Outdated(f"{key}={path}", error.version) from None
    except Damaged as error:
        others = [step.name for step in steps if step != asked]
        hint = f"; try {key}={folder / others[-1]}" if others else ""
        raise ValueError(f"{key}={path} is damaged: {error}{hint}") from None
    identity = read_config(folder)
    if identity is None:
        raise ValueError(
            f"{key}={path}: its config.yaml is not what was written; run the command that trained the network "
            f"once more, which writes it anew, or restore it from a copy"
        )
    return identity, found


def read_config(folder: Path) -> Identity | None:
    """Returns the identity in a network's folder, with ``source``; None if the text is no identity, or does not fit the
    hash in the folder's name.
    """
    try:
        identity = yaml.safe_load((folder / "config.yaml").read_text())
        whole = {key: value for key, value in identity.items() if key != "source"}
        named = re.search(r"-([0-9a-f]{10})$", folder.name)  # a renamed folder has no hash to compare with
        if named is not None and named[1] != digest(whole):
            return None
        if (source := identity.get("source")) and source.pop("sum", sum_of(source)) != sum_of(source):
            return None  # without a checksum an earlier version wrote it
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError):
        return None
    return identity if whole.keys() >= {"data", "sde", "model", "parameterisation", "training"} else None
