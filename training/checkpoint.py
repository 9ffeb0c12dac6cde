"""Checkpoints on disk: written atomically and verified when read; nothing in them is executed.

    FOLDER/config.yaml               what was trained
    FOLDER/step-00012000/            a checkpoint to resume from, or the finished network; the newest two are kept
    FOLDER/kept-00003000/            the moving average after 3000 updates, which a task asked for; never removed
    FOLDER/power-00003000/           the same for the two averages of training/posthoc.py

    in each of the last three:
        NAME.safetensors             a group of tensors: model, ema, optimiser and power-* in step-*, ema in kept-*,
                                     power-* in power-*
        state.json                   everything else, with the version of the code and the hash of the identity
        manifest.json                the sha256 of each file above

A checkpoint is written under a temporary name, flushed to the disk and then renamed, so that a new ``step-*`` folder is
whole or absent, even after a kill or a power cut. The checksums find flipped bits, which the file formats do not
notice, and folders whose removal was interrupted; :func:`load_newest` then reads the previous checkpoint, with a
warning. The number in a folder's name is compared with the step in state.json, and the hash in state.json with the
network's identity (:func:`scoresde.training.store.digest`), so that a checkpoint is read as what it was saved as.
"""

import contextlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scoresde.data.files import sha256

log = logging.getLogger(__name__)

KEEP = 2
"""The number of checkpoints ``step-*`` that stay in a folder."""

VERSION = 3
"""The version of the code, increased when the code would turn the same configuration into another network.

The hash in the name of a network's folder contains the version (:func:`scoresde.training.store.digest`), and a training
is not resumed from a checkpoint of another version.
"""


class Damaged(ValueError):
    """The error of a checkpoint whose files are not what was written."""


class Outdated(ValueError):
    """The error of a checkpoint that another version of this code wrote.

    Arguments:
        what: the checkpoint, as the message shows it.
        version: its version; None if it has none.
    """

    def __init__(self, what: object, version: int | None = None):
        which = "an earlier" if version is None or version < VERSION else "a later"
        super().__init__(
            f"{what} was trained by {which} version of this code, whose networks differ; run the command that trained "
            f"it once more, with another store= or after removing this folder"
        )
        self.version = version


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint in memory: named groups of tensors, and a dictionary of plain values.

    ``identity`` is the hash of the network's identity; None for a network that has none, or of an older checkpoint.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    identity: str | None = None


def save(folder: Path, checkpoint: Checkpoint, kind: str = "step") -> Path:
    """Writes FOLDER/KIND-N atomically, removes all but the newest two of ``step-*``, and returns the new folder.

    Arguments:
        kind: ``step``, ``kept`` or ``power``.

    Raises:
        OSError: it cannot be written. Earlier checkpoints are still there.
    """
    final, partial = folder / f"{kind}-{checkpoint.step:08d}", folder / f".partial-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".partial-*"):  # of a killed process; the store's lock admits one writer at a time
            shutil.rmtree(stale)
        partial.mkdir()
        for name, tensors in checkpoint.tensors.items():
            save_file(
                {key: tensor.detach().contiguous() for key, tensor in tensors.items()}, partial / f"{name}.safetensors"
            )
        identity = {} if checkpoint.identity is None else {"identity": checkpoint.identity}
        state = {"version": VERSION, **identity, "step": checkpoint.step, **checkpoint.state}
        (partial / "state.json").write_text(json.dumps(state, indent=1))
        sums = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        (partial / "manifest.json").write_text(json.dumps(sums, indent=1))
        for path in [*partial.iterdir(), partial]:
            flush(path)
        if final.exists():
            shutil.rmtree(final)
        os.rename(partial, final)
        flush(folder)
    except (OSError, SafetensorError) as error:  # safetensors raises its own error if the disk is full
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"the checkpoint of step {checkpoint.step} could not be written to {folder} ({reason}); "
            f"earlier ones are untouched. Free some space, or choose another place with store=FOLDER, and run the same "
            f"command to go on"
        ) from error
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load(path: Path, identity: str | None = None) -> Checkpoint:
    """Returns the checkpoint in a folder, once each file of its manifest has the right checksum.

    Other files in the folder are ignored, except for state.json and ``*.safetensors``, which the manifest must name.

    Arguments:
        identity: the hash of the network's identity, if it is known: a checkpoint that records another is damaged.

    Raises:
        Damaged: a file is missing, differs from its checksum, is not named in the manifest or cannot be parsed; or the
            checkpoint is that of another step or another network.
        Outdated: another version of the code wrote it.
        OSError: it cannot be read; it may still be whole.
    """
    try:
        sums = json.loads((path / "manifest.json").read_text())
        unnamed = {"state.json", *(file.name for file in path.glob("*.safetensors"))} - set(sums)
        if unnamed:
            raise Damaged(f"{path / 'manifest.json'} does not name {', '.join(sorted(unnamed))}")
        for name, expected in sums.items():
            if Path(name).name != name or not (path / name).is_file():
                raise Damaged(f"{path / name} is missing")
            if sha256(path / name) != expected:
                raise Damaged(f"{path / name} is not what was written (its sha256 differs from manifest.json)")
        tensors = {Path(name).stem: load_file(path / name) for name in sorted(sums) if name.endswith(".safetensors")}
        state = json.loads((path / "state.json").read_text())
        if (version := state.pop("version", None)) != VERSION:
            raise Outdated(path, version)
        found = Checkpoint(state.pop("step"), tensors, state, state.pop("identity", None))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"{path} is not whole ({error.strerror}: {error.filename})") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror or error}); look at its permissions and disk") from error
    except (Damaged, Outdated):
        raise
    except (SafetensorError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{path} cannot be read ({error})") from error
    named = re.fullmatch(r"(?:step|kept|power)-([0-9]+)", path.name)
    if type(found.step) is not int or named and int(named[1]) != found.step:
        raise Damaged(f"{path} is the checkpoint of step {found.step!r}, and not what was saved there")
    if identity is not None and found.identity not in (None, identity):
        raise Damaged(f"{path} is a checkpoint of another network (its state.json records another identity)")
    return found


def load_newest(folder: Path, identity: str | None = None) -> Checkpoint | None:
    """Returns the newest undamaged checkpoint ``step-*``, or None; renames damaged ones ``damaged-*``, with a warning.

    Arguments:
        identity: see :func:`load`.

    Raises:
        Outdated: another version of the code wrote it.
        OSError: it cannot be read; it may still be whole.
    """
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            return load(path, identity)
        except Damaged as error:
            aside = path.with_name(f"damaged-{path.name}")
            log.warning("%s; it is set aside as %s and the checkpoint before it is used", error, aside.name)
            shutil.rmtree(aside, ignore_errors=True)
            with contextlib.suppress(OSError):  # another process may have renamed it, or the store may be read-only
                path.rename(aside)
    return None


def flush(path: Path) -> None:
    """Forces a file, or a folder's list of files, to be written to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
