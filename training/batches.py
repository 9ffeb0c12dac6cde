r"""Batches as functions of the step, and how they reach the device before the network asks for them.

Integers stay as they are stored (pictures one byte a value) until they are in their batch, where they are mirrored and
dequantised. On a GPU the whole training part lies there if it takes no more than a quarter of the free memory; else
the rows of the next step are gathered in a thread and copied from pinned memory while the network works on this one.
The order of an epoch is a function of the seed and the epoch, everything else that is random one of the seed, the step
and the row (:class:`scoresde.sde_lib.Draws`), so that a resumed training sees the same batches.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.sde_lib import Ahead, Draws
from scoresde.sde_lib.noise import seed_of

SHARE = 0.25  # of a GPU's free memory that the training data may take


class Batches:
    """batch(step): the data's epochs, each in an order of its own, laid end to end and cut into batches of one size.

    A batch is a function of the step, so the data's position needs no state, and any batch size will do, also one
    larger than the data set.

    Arguments:
        centres: integers stand at the middle of their bins, without noise.

    Attributes:
        waited: the seconds that calls have taken, which is how long the network waited for its data.
        resident: whether the training data lie on the device.
    """

    def __init__(self, data: Data, size: int, seed: int, device: torch.device, centres: bool = False):
        self.data, self.size, self.seed, self.device, self.centres = data, size, seed, device, centres
        self.epoch, self.order = -1, torch.empty(0)
        self.step, self.chosen = -1, torch.empty(0)
        self.units: tuple[Tensor, Tensor] | None = None
        self.source = Draws(seed, size, ahead=Ahead())
        self.waited = 0.0
        self.resident = device.type == "cuda" and fits(data.train, free_memory(device))
        self.train = data.train.to(device) if self.resident else data.train
        self.aside = ThreadPoolExecutor(1) if device.type == "cuda" and not self.resident else None
        self.coming: tuple[int, Future] | None = None

    def permutation(self, epoch: int) -> Tensor:
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
            self.epoch, self.order = epoch, torch.randperm(len(self.data.train), generator=generator)
        return self.order

    def rows(self, step: int) -> Tensor:
        """Which training examples are the batch of one step, (size,)."""
        if step != self.step:
            count, position, parts = len(self.data.train), step * self.size, []
            while position < (step + 1) * self.size:
                epoch, offset = divmod(position, count)
                parts.append(self.permutation(epoch)[offset : offset + (step + 1) * self.size - position])
                position += len(parts[-1])
            self.step, self.chosen = step, torch.cat(parts)
        return self.chosen

    def draws(self, step: int) -> Draws:
        """The random numbers of the batch of one step."""
        return self.source.at(step)

    def condition(self, step: int) -> Tensor | None:
        """The y of the batch of one step as networks are told it, (size, condition), float32; None without any."""
        if (known := self.data.condition) is None:
            return None
        began = time.perf_counter()
        y = sent(known.encode(known.train[self.rows(step)]).to(torch.float32), self.device)
        self.waited += time.perf_counter() - began
        return y

    def __call__(self, step: int) -> Tensor:
        """The batch of one step in model units, integers dequantised afresh, shape (size, *), float32."""
        began = time.perf_counter()
        r, u = self.mirrored(self.stored(step), step), None
        if self.data.levels and not self.centres:
            u = self.draws(step).uniform("dequantisation", r)
        r = self.data.dequantise(r, u)
        r = r if r.is_floating_point() else r.to(torch.get_default_dtype())
        if self.units is None:  # sent once, and not with every batch
            self.units = self.data.shift.to(r), self.data.scale.to(r)
        x = ((r - self.units[0]) / self.units[1]).to(torch.float32)
        self.waited += time.perf_counter() - began
        return x

    def stored(self, step: int) -> Tensor:
        """The batch as it is stored, on the device."""
        rows = self.rows(step)
        if self.aside is None:
            return self.train[sent(rows, self.device) if self.resident else rows].to(self.device)
        if self.coming and self.coming[0] == step:
            gathered = self.coming[1].result()
        else:
            gathered = pinned(self.train[rows])
        self.coming = step + 1, self.aside.submit(lambda rows: pinned(self.train[rows]), self.rows(step + 1))
        return gathered.to(self.device, non_blocking=True)

    def mirrored(self, r: Tensor, step: int) -> Tensor:
        """About half of the images (size, C, H, W) left to right, if the data may be mirrored."""
        if not self.data.flip:
            return r
        chosen = self.draws(step).uniform("mirror", r, (1, 1, 1)) < 0.5
        return torch.where(chosen, r.flip(-1), r)

    def close(self) -> None:
        """Ends the thread, if there is one."""
        if self.aside is not None:
            self.aside.shutdown(cancel_futures=True)


def fits(train: Tensor, free: int) -> bool:
    """Whether the training data take no more than their share of so many free bytes."""
    return train.nbytes <= SHARE * free


def free_memory(device: torch.device) -> int:
    """The free bytes of a GPU."""
    return torch.cuda.mem_get_info(device)[0]


def pinned(tensor: Tensor) -> Tensor:
    """The tensor where a GPU can fetch it by itself; as it is where there is none."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, the copy to a GPU not waited for."""
    return pinned(tensor).to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
