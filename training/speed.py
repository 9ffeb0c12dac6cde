r"""The speed of an update: precision, memory layout, compilation, and losses that are read without waiting.

These options do not change the objective. On a CPU and on mps all are off by default: most CPUs emulate half precision,
many times slower than float32; docs/results.md has measurements of the others. The defaults on a CUDA GPU are: images
are trained under bfloat16 autocast with channels last, while weights and moments stay float32, or with TF32 in float32
matrix products and convolutions if the GPU has no bfloat16; vectors are trained in float32 without TF32; the networks
of score models and classifiers are compiled, unless they are differentiated twice.

Reading the loss at every step would make GPU and CPU wait for each other. On CUDA the loss and the gradient norm of an
update are therefore read one update later, or at a report or checkpoint before that. An update whose loss or gradient
is not finite is skipped nevertheless: a flag on the device makes the optimiser leave the weights unchanged from that
update on, and the training ends with an error when the loop reads the loss.
"""

import logging
import math
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Precision = Literal["float32", "tf32", "bf16"]


@dataclass(frozen=True)
class Speed:
    """The precision, memory layout and compilation of one training.

    Arguments:
        compile: whether the network is compiled.
        precision: ``float32``; ``tf32`` for float32 with matrix products and convolutions of 10-bit mantissas on a GPU;
            ``bf16`` for autocast.
        channels_last: whether images and convolutions have the memory layout ``torch.channels_last``.
    """

    compile: bool
    precision: Precision
    channels_last: bool

    @contextmanager
    def applied(self, model: nn.Module, device: torch.device):
        """A context in which the model is trained with these options; use :meth:`autocast` around each loss.

        If these options ask for it, it changes the layout of the model's weights and compiles its network
        ``model.net``, and undoes neither.
        """
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        if self.compile:
            model.net.compile()
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        if device.type == "cuda":
            exact = self.precision == "float32"
            torch.set_float32_matmul_precision("highest" if exact else "high")
            torch.backends.cudnn.allow_tf32 = not exact
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]

    def autocast(self, device: torch.device):
        """A context, within :meth:`applied`, in which matrix products and convolutions have the chosen precision."""
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def laid_out(self, x: Tensor) -> Tensor:
        """Returns a batch in the memory layout of the network."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and x.ndim == 4 else x


def decide(
    model: nn.Module,
    images: bool,
    differentiates: bool,
    device: torch.device,
    compile: bool | Literal["auto"],
    precision: Literal["auto", "float32", "tf32", "bf16"],
    channels_last: bool | Literal["auto"],
) -> Speed:
    """Resolves ``auto``, refuses options that the device or the model does not support, and warns of bf16 off a GPU.

    Arguments:
        model: a score model or a classifier with a network ``net``, or another module, which is not compiled.
        images: whether the data are images, (C, H, W) each.
        differentiates: whether the loss differentiates the network by its input.
        compile, precision, channels_last: as in :class:`Speed`, or ``auto``.

    Raises:
        ValueError: an option is not supported.
    """
    gpu = device.type == "cuda"
    half = gpu and images and torch.cuda.is_bf16_supported()  # whether bf16 is the default
    net = getattr(model, "net", None) if hasattr(model, "sde") else None
    twice = differentiates or getattr(net, "energy", None) is not None
    if compile is True and (twice or not isinstance(net, nn.Module)):
        why = "is differentiated twice, which torch.compile cannot" if twice else "is not one network F(x, c)"
        raise ValueError(f"training.compile=true: what is trained here {why}; type training.compile=auto")
    if precision == "tf32" and not gpu:
        raise ValueError(
            f"training.precision=tf32 needs an NVIDIA GPU, and device={device.type}; type training.precision=auto"
        )
    if precision == "bf16" and not gpu:
        log.warning(
            "training.precision=bf16 on device=%s: processors with instructions for it were measured 1.5 times as fast "
            "as with float32, those without ten times slower; training.precision=auto takes it on GPUs only",
            device.type,
        )
    if precision == "bf16" and gpu and not torch.cuda.is_bf16_supported():
        raise ValueError("training.precision=bf16: this GPU does not support it; type training.precision=auto")
    if precision == "auto":
        precision = "bf16" if half else "tf32" if gpu and images else "float32"
    return Speed(
        compile=gpu and not twice and isinstance(net, nn.Module) if compile == "auto" else compile,
        precision=precision,
        channels_last=half and precision == "bf16" if channels_last == "auto" else channels_last,
    )


@dataclass(frozen=True)
class Reading:
    """The loss of the update after ``step`` updates, and its gradient's norm before clipping."""

    step: int
    loss: float
    norm: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.norm)


class Readings:
    """The losses and gradient norms of updates, read at once or one update later.

    Arguments:
        device: the device of the losses.
        late: whether to read one update later.

    Attributes:
        broken: a number on the device for a fused optimiser's ``found_inf``: 1 from the first update on whose loss or
            gradient is not finite, 0 before. None if readings come at once.
    """

    def __init__(self, device: torch.device, late: bool):
        self.late, self.broken = late, torch.zeros((), device=device) if late else None
        self._waiting: tuple[int, Tensor, torch.cuda.Event | None] | None = None

    def add(self, step: int, loss: Tensor, norm: Tensor) -> list[Reading]:
        """Takes the loss and the norm, scalars, of the update after ``step`` updates, and returns what can be read now.

        This is the reading of this update, or if readings come late that of the update before, if there is one.
        """
        values = torch.stack([loss.detach(), norm])
        if not self.late:
            return [Reading(step, *values.tolist())]
        self.broken = torch.maximum(self.broken, (~values.isfinite().all()).to(self.broken))
        available, event = self.rest(), None
        if values.is_cuda:
            host = torch.empty(2, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            values = host
        self._waiting = step, values, event
        return available

    def rest(self) -> list[Reading]:
        """Waits for the reading that is still missing, and returns it as a list; an empty list if none is missing."""
        if self._waiting is None:
            return []
        (step, values, event), self._waiting = self._waiting, None
        if event is not None:
            event.synchronize()
        return [Reading(step, *values.tolist())]
