"""The store: every network that was ever trained here, found by what it is.

A network's identity is the resolved configuration that decides its weights. Its hash names a folder of the store; a
run that needs a network looks there, loads it if it is finished, resumes it if it was interrupted, and trains it if
it is absent. A lock on the folder makes concurrent runs wait for one trainer; the operating system frees it when
its holder dies.
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
"""Plain nested values: data, sde, model, parameterisation and training."""


def digest(identity: Identity, version: int = VERSION) -> str:
    """Ten hexadecimal digits that name an identity."""
    return hashlib.sha256(json.dumps([version, identity], sort_keys=True).encode()).hexdigest()[:10]


class Store:
    """A folder of trained networks.

    Arguments:
        root: the folder; made when the first network is.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def folder(self, identity: Identity, name: str) -> Path:
        """Where the network of this identity is, or will be; ``name`` makes the folder's name readable."""
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
        """The trained network of an identity.

        Arguments:
            steps: the updates after which the network is finished.
            train: trains it, or goes on training it, in the folder given.
            load: makes it from a finished checkpoint.
            source: noted beside the identity and no part of it: where the data were.
        """
        folder = self.folder(identity, name)
        described = {**identity, "source": source} if source else identity
        if finished := self.finished(folder, steps):
            with contextlib.suppress(OSError):  # a store that is only read keeps the text it has
                write_config(folder, described)
            return load(finished)
        lock = self.lock(folder)
        try:
            if finished := self.finished(folder, steps):  # by the process that was waited for
                return load(finished)
            write_config(folder, described)
            for older in (self.root / f"{name}-{digest(identity, version)}" for version in range(1, VERSION)):
                if older.exists():
                    log.warning(
                        "%s holds this network as an earlier version of this code trained it, from other random "
                        "numbers: it is trained anew in %s, and you may remove the old folder",
                        older,
                        folder.name,
                    )
            log.info("training %s, %s updates, once: later runs load it from %s", name, f"{steps:,}", folder)
            return train(folder)
        finally:
            lock.release()

    def lock(self, folder: Path) -> FileLock:
        """The lock on a network's folder, acquired; another process' training is waited for."""
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
        """Where the averages after so many updates are kept, of a network that is trained.

        Those that its training did not keep cost another one, in a folder beside its checkpoints, which ends in the
        same weights and is resumed as any other.

        Arguments:
            again: trains the network once more in the folder given, and keeps them.
            kind: ``kept``, the network's own average, or ``power``, those of :mod:`scoresde.training.posthoc`.
        """
        paths = {step: folder / f"{kind}-{step:08d}" for step in sorted(steps)}
        if all(path.exists() for path in paths.values()):
            return paths
        lock = self.lock(folder)
        try:
            if all(path.exists() for path in paths.values()):  # by the process that was waited for
                return paths
            log.info(
                "this task looks back along the training of %s, which kept nothing on its way: the training is "
                "repeated once, to the same weights, and keeps what the task needs",
                folder,
            )
            aside = folder / "again"
            score, own = again(aside), checkpoint.load_newest(folder)
            weights = score.state_dict()
            if own and not all(torch.equal(weights[key].cpu(), tensor) for key, tensor in own.tensors["ema"].items()):
                log.warning(
                    "the second training of %s ended in other weights (another machine, torch or number of threads): "
                    "what is kept along the way is the second one's",
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
        """The finished checkpoint in a folder, or None."""
        if not (folder / f"step-{steps:08d}").exists():
            return None
        found = checkpoint.load_newest(folder)
        if found is None or found.step != steps:
            return None
        log.info("loaded the trained network of %s", folder)
        return found


def put_weights(model: nn.Module, found: Checkpoint, where: Path | str) -> nn.Module:
    """The model with a checkpoint's moving average as its weights, frozen; ValueError if they do not fit."""
    try:
        model.load_state_dict(found.tensors["ema"])
    except (RuntimeError, KeyError) as error:
        raise ValueError(
            f"{where}: its weights do not fit the network that its config.yaml describes: another version of the code "
            f"wrote it. Move the folder away to train anew ({str(error).splitlines()[-1].strip()})"
        ) from None
    return model.eval().requires_grad_(False)


def load_kept(path: Path) -> Checkpoint:
    """A checkpoint that was kept; ValueError where it is damaged."""
    try:
        return checkpoint.load(path)
    except Damaged as error:
        raise ValueError(f"{error}; remove {path}, and the same command trains once more to have it anew") from None


def write_config(folder: Path, described: dict[str, Any]) -> None:
    """Keeps an identity, and where its data were, beside its checkpoints as text."""
    target, partial, text = folder / "config.yaml", folder / ".config.yaml", yaml.safe_dump(described, sort_keys=False)
    if not target.exists() or target.read_bytes() != text.encode():
        partial.write_text(text)
        partial.replace(target)


def read(path: Path | str, key: str = "checkpoint") -> tuple[Identity, Checkpoint]:
    """The identity and the newest checkpoint of a network's folder, or of one ``step-*`` or ``kept-*`` folder in it.

    Arguments:
        key: which key of the configuration named it, for messages.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is damaged. A checkpoint asked for by name is never
            replaced by an older one.
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
    try:
        identity = yaml.safe_load((folder / "config.yaml").read_text())
        whole = {key: value for key, value in identity.items() if key != "source"}
        named = re.search(r"-([0-9a-f]{10})$", folder.name)  # a folder that was renamed has no sum to check
        damage = named is not None and named[1] != digest(whole)
        older = damage and named[1] in (digest(whole, version) for version in range(1, VERSION))
        missing = [key for key in ("data", "sde", "model", "parameterisation", "training") if key not in whole]
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError):
        damage, older, missing = True, False, []
    if older:
        raise Outdated(f"{key}={path}")
    if damage or missing:
        raise ValueError(
            f"{key}={path}: its config.yaml is not what was written; run the command that trained the network "
            f"once more, which writes it anew, or restore it from a copy"
        )
    try:
        return identity, checkpoint.load(path if folder != path else steps[-1])
    except Outdated as error:
        raise Outdated(f"{key}={path}", error.version) from None
    except Damaged as error:
        others = [step.name for step in steps if step != (path if folder != path else steps[-1])]
        hint = f"; try {key}={folder / others[-1]}" if others else ""
        raise ValueError(f"{key}={path} is damaged: {error}{hint}") from None
