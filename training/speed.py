r"""How fast an update is: precision, memory layout and compilation, and reading its loss without waiting for it.

None of it changes what is minimised. On a CPU everything is off by default: on most of them half precision is emulated
and many times slower than float32, the rest is measured in docs/results.md. On a GPU images are trained under bfloat16
autocast with channels last, weights and moments staying float32, and networks are compiled where they are not
differentiated twice. Matrix products in float32 may there use TF32 unless ``precision=float32`` is asked for.

A loop that reads its loss at every step makes a GPU wait for the CPU and back. So there each update's loss and gradient
norm are read one update later. An update whose loss or gradient is not finite is not taken all the same: the optimiser
is told on the device, and from then on leaves the weights as they are until the loop has read why.
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
    """What was decided for one training.

    Arguments:
        compile: whether the network is compiled.
        precision: ``float32``; ``tf32``, float32 with matrix products of 10 bits on a GPU; ``bf16``, autocast.
        channels_last: whether images and the weights of convolutions lie in memory pixel by pixel.
    """

    compile: bool
    precision: Precision
    channels_last: bool

    @contextmanager
    def applied(self, model: nn.Module, device: torch.device):
        """Within it the model is trained so; :meth:`autocast` goes round each loss."""
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
        """A context in which matrix products and convolutions are in the chosen precision."""
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def laid_out(self, x: Tensor) -> Tensor:
        """A batch in the layout of the network."""
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
    """What ``auto`` stands for here, and whether what was asked for can be had.

    Arguments:
        images: whether the data are images, (C, H, W) each.
        differentiates: whether the loss differentiates the network by its input.
    """
    gpu = device.type == "cuda"
    half = gpu and images and torch.cuda.is_bf16_supported()
    net = getattr(model, "net", None) if hasattr(model, "sde") else None
    twice = differentiates or getattr(net, "energy", None) is not None
    if compile is True and (twice or not isinstance(net, nn.Module)):
        why = "is differentiated twice, which torch.compile cannot" if twice else "is not one network F(x, c)"
        raise ValueError(f"training.compile=true: what is trained here {why}; type training.compile=auto")
    if precision == "tf32" and not gpu:
        raise ValueError(
            f"training.precision=tf32 is of NVIDIA GPUs, and device={device.type}; type training.precision=auto"
        )
    if precision == "bf16" and not gpu:
        log.warning(
            "training.precision=bf16 on device=%s: processors with instructions for it were measured 1.5 times as fast "
            "as with float32, those without ten times slower; training.precision=auto takes it on GPUs alone",
            device.type,
        )
    if precision == "bf16" and gpu and not torch.cuda.is_bf16_supported():
        raise ValueError("training.precision=bf16: this GPU has none; type training.precision=auto")
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
    """The losses and gradient norms of updates, read at once, or on a GPU one update later.

    Arguments:
        late: whether to read late.

    Attributes:
        broken: 1 on the device from the first update on whose loss or gradient is not finite, 0 before: what a fused
            optimiser takes as ``found_inf``. None where readings come at once.
    """

    def __init__(self, device: torch.device, late: bool):
        self.late, self.broken = late, torch.zeros((), device=device) if late else None
        self._waiting: tuple[int, Tensor, torch.cuda.Event | None] | None = None

    def add(self, step: int, loss: Tensor, norm: Tensor) -> list[Reading]:
        """Takes the values of one update, and returns those that are known now."""
        values = torch.stack([loss.detach(), norm])
        if not self.late:
            return [Reading(step, *values.tolist())]
        self.broken = torch.maximum(self.broken, (~values.isfinite().all()).to(self.broken))
        known, event = self.rest(), None
        if values.is_cuda:
            host = torch.empty(2, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            values = host
        self._waiting = step, values, event
        return known

    def rest(self) -> list[Reading]:
        """Those that were not known yet."""
        if self._waiting is None:
            return []
        (step, values, event), self._waiting = self._waiting, None
        if event is not None:
            event.synchronize()
        return [Reading(step, *values.tolist())]
