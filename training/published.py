r"""Checkpoints of the published code of arXiv 2011.13456, read and written.

Such a file is torch's archive of a dictionary with four entries. ``model`` holds the weights by name, each with the
prefix ``module.``, and a table ``sigmas``. ``ema`` holds the moving average of the trained weights as
``shadow_params``, a list without names in the order of ``model``. The others are ``optimizer`` and ``step``. The caller
gives the names and shapes of the network's tensors (:mod:`scoresde.models.published`). ``checkpoint=FILE`` reads such a
file and ``task=export`` writes one.

Nothing in a file is executed: its pickle may contain tensors, plain values and numpy's numbers only, and the checksum
of each part is verified. The tensors of the average get their names by their order. The order is checked against the
weights: an average lies near its own weights and far from others of the same shape.
"""

import contextlib
import pickle
import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Named(Protocol):
    """The name and shape of a published tensor, and whether it is trained, such as a ``models.layout.Entry``."""

    name: str
    shape: tuple[int, ...]
    trained: bool


@dataclass(frozen=True)
class Published:
    """The weights of a file by their published names.

    Attributes:
        average: the moving average of the trained tensors, and the untrained tensors.
        step: the number of updates.
        sigmas: the noise levels of the file's configuration, in units of the data's range; None if it has none.
    """

    average: dict[str, Tensor]
    step: int
    sigmas: Tensor | None


def read(path: Path | str, entries: list[Named], key: str = "checkpoint") -> Published:
    """Reads a file whose weights must be the ``entries``, in their order.

    Arguments:
        key: the configuration key that gave the path, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, would run code, is of another kind or architecture, or its average does not fit its
            weights.
    """
    where, content = f"{key}={path}", load(path, key)
    weights, average = content.get("model"), content.get("ema")
    shadow = average.get("shadow_params") if isinstance(average, dict) else None
    if not isinstance(weights, dict) or not isinstance(shadow, list) or "step" not in content:
        held = ", ".join(map(str, content)) or "nothing"
        raise ValueError(f"{where} is no checkpoint of score_sde: it holds {held}, not model, ema and step")
    weights = {str(name).removeprefix("module."): tensor for name, tensor in weights.items()}
    check_tensors(weights, f"{where}, model")
    check_tensors({str(i): tensor for i, tensor in enumerate(shadow)}, f"{where}, ema, shadow_params")
    step, sigmas = updates(content["step"], where), weights.pop("sigmas", None)
    compare([(name, tuple(tensor.shape)) for name, tensor in weights.items()], entries, where)
    trained = [entry for entry in entries if entry.trained]
    if len(shadow) != len(trained):
        raise ValueError(
            f"{where}: its moving average has {len(shadow)} tensors, but {len(trained)} of its weights are trained: "
            f"the file is not what the published code writes"
        )
    for entry, tensor in zip(trained, shadow, strict=True):
        if tuple(tensor.shape) != entry.shape:
            raise ValueError(
                f"{where}: its moving average is not in the order of its weights: {entry.name} is {list(entry.shape)} "
                f"and the average in its place is {list(tensor.shape)}"
            )
    check_order(weights, trained, shadow, where)
    named = dict(zip((entry.name for entry in trained), shadow, strict=True))
    return Published({e.name: named.get(e.name, weights[e.name]) for e in entries}, step, sigmas)


def updates(step: Any, where: str) -> int:
    """Returns the number of updates in a file; ValueError if the value is no such number."""
    number = step.item() if isinstance(step, Tensor) and step.numel() == 1 else step
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not 0 <= number < 2**63 or number != int(number):
        raise ValueError(
            f"{where}: its step is {str(step)[:40]} and no number of updates: copy or download it once more"
        )
    return int(number)


def check_tensors(tensors: Mapping[str, Any], where: str) -> None:
    """Raises a ValueError unless each value is a dense, whole, nonempty CPU tensor of finite floating-point numbers."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            fault = f"a {type(tensor).__name__} and no tensor"
        elif tensor.layout != torch.strided or tensor.device.type != "cpu" or not tensor.is_floating_point():
            fault = (
                f"a tensor of {tensor.dtype}, {tensor.layout} on {tensor.device}, and no dense one of floating point"
            )
        elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            fault = f"a tensor {list(tensor.shape)} of which the file holds only a part"
        elif not tensor.numel():
            fault = "empty"
        elif not tensor.isfinite().all():
            fault = "not finite"
        else:
            continue
        raise ValueError(f"{where}: {name} is {fault}: no weights of a trained network; choose another file")


def load(path: Path | str, key: str = "checkpoint") -> dict[Any, Any]:
    """Returns the dictionary in a file of torch.save, in plain values; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, is damaged, would run code or holds no dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{key}={path} does not exist (looked at {path.absolute()})")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{key}={path} is no file of torch.save, or it is cut off: copy or download it once more")
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
            if packed or sum(part.file_size for part in parts) > path.stat().st_size:
                raise ValueError(
                    f"{key}={path} is no file of torch.save, which packs nothing: its parts are compressed, or larger "
                    f"than the file"
                )
            bad = archive.testzip()
        if bad:
            raise ValueError(f"{key}={path} is damaged ({bad}): copy or download it once more")
        with torch.serialization.safe_globals(PLAIN):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"({asked[1]}) " if asked else ""
        raise ValueError(
            f"{key}={path} asks to run code {what}when it is read, which is refused; nothing of it was run. A "
            f"checkpoint needs tensors and numbers only"
        ) from None
    except (
        zipfile.BadZipFile,
        RuntimeError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        EOFError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{key}={path} is damaged ({reason}): copy or download it once more") from None
    if not isinstance(content, dict):
        raise ValueError(f"{key}={path} is no checkpoint: it holds a {type(content).__name__}")
    return content


class Kind:
    """The stand-in for numpy's dtype of a number: its letter and size, such as f8."""

    def __init__(self, name: Any, *_: Any):
        if not isinstance(name, str) or not re.fullmatch(r"[fiu][248]|[iub]1", name):
            raise pickle.UnpicklingError("a dtype of numpy that is not one of numbers")
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Checks the byte order, and ignores the flags and fields, which are untrusted."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise pickle.UnpicklingError("a dtype of numpy with another byte order")


def number(kind: Any = None, content: Any = None, *_: Any) -> float | int | bool:
    """The stand-in for numpy's function that makes a number from its dtype and its bytes."""
    if not isinstance(kind, Kind) or not isinstance(content, bytes) or len(content) != int(kind.name[1:]):
        raise pickle.UnpicklingError("a number of numpy that cannot be read")
    return np.frombuffer(content, f"<{kind.name}")[0].item()


PLAIN = [
    (number, "numpy.core.multiarray.scalar"),  # its name before numpy 2, which the published files contain
    (number, "numpy._core.multiarray.scalar"),
    (Kind, "numpy.dtype"),
]
"""Stand-ins for the names that a pickle may contain besides tensors: the published learning rate is a number of numpy.
Numpy's own functions are not called, because its dtypes accept flags from the file about the memory of objects.
"""


def compare(found: list[tuple[str, tuple[int, ...]]], entries: list[Named], where: str) -> None:
    """Raises a ValueError with the first difference between a file's tensors and a network's, if there is one.

    Arguments:
        found: the names and shapes in the file.
    """
    wanted = [(entry.name, tuple(entry.shape)) for entry in entries]
    if found == wanted:
        return
    for theirs, ours in zip_longest(found, wanted):
        if theirs != ours:
            shown = [f"{tensor[0]} {list(tensor[1])}" if tensor else "nothing more" for tensor in (theirs, ours)]
            raise ValueError(
                f"{where} is of another architecture: it has {len(found)} tensors and the network of this run "
                f"{len(wanted)}; the first that differ are {shown[0]} in the file and {shown[1]} here. Choose the "
                f"network with experiment=score_sde/..., named like the folder that the file was published in"
            )


def check_order(weights: dict[str, Tensor], trained: list[Named], shadow: list[Tensor], where: str) -> None:
    """Raises a ValueError if an average lies ten times nearer to other weights of its shape than to its own.

    Averages within a tenth of their norm of their own weights are never refused.
    """
    by_shape = defaultdict(list)
    for entry, tensor in zip(trained, shadow, strict=True):
        by_shape[entry.shape].append((entry.name, tensor))
    for group in by_shape.values():
        names = [name for name, _ in group]
        averages = torch.stack([tensor.float().flatten() for _, tensor in group])
        distance = torch.cdist(averages, torch.stack([weights[name].float().flatten() for name in names]))
        nearest, which = distance.min(dim=1)
        own = distance.diagonal()  # for equal tensors not 0 but the rounding error of cdist
        far = (own > 0.1 * averages.norm(dim=1)) & (nearest < 0.1 * own)
        for i in far.nonzero().flatten().tolist():
            raise ValueError(
                f"{where}: its moving average is not in the order of its weights: in the place of {names[i]} stands "
                f"the average of {names[int(which[i])]}"
            )


def write(
    path: Path | str, weights: dict[str, Tensor], average: list[Tensor], sigmas: Tensor, step: int, decay: float
) -> None:
    """Writes a file that the published code can read, whole or not at all.

    Arguments:
        weights: the weights by published name, without ``module.``, in the published order.
        average: the moving average of the trained weights, in the same order.
        sigmas: the noise levels from the largest to the smallest, in units of the data's range.
        step: the number of updates.
        decay: the decay of the moving average.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    count = len(average)
    # the published optimiser also numbers the table of random frequencies, which is not trained
    frozen = sum(name.endswith(".W") and tensor.ndim == 1 for name, tensor in weights.items())
    group = {"lr": 2e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
    content = {
        "optimizer": {"state": {}, "param_groups": [{**group, "params": list(range(count + frozen))}]},
        "model": {f"module.{name}": tensor for name, tensor in {"sigmas": sigmas, **weights}.items()},
        "ema": {"decay": decay, "num_updates": step, "shadow_params": average},
        "step": step,
    }
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise OSError(f"{path} could not be written ({getattr(error, 'strerror', None) or error})") from error
