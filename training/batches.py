r"""Batches as functions of the step, and their transfer to the device.

Integers keep their stored type (one byte a value for images of up to 256 levels) until they are in a batch, which is
mirrored, if the data may be, and dequantised. On CUDA the whole training part is moved to the GPU if it takes at most a
quarter of the GPU's free memory. Otherwise a thread gathers the rows of the next step in pinned memory while the
network works on this step, and the loop does not wait for their copy to the GPU. On other devices each batch is
gathered when it is needed. The order of an epoch is a function of the seed and the epoch. All other random numbers are
functions of the seed, the step and the row (:class:`scoresde.sde_lib.Draws`), so that a resumed training sees the same
batches.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.sde_lib import Ahead, Draws
from scoresde.sde_lib.noise import seed_of

SHARE = 0.25  # the largest share of a GPU's free memory that the training data may take


class Batches:
    """The batches of a training, as a function of the step.

    The epochs, each in its own random order, are concatenated and cut into batches of one size. The size may be larger
    than the data set.

    Arguments:
        data: the data set, whose training examples are used.
        size: the number of examples in a batch.
        seed: the training's seed.
        device: the device of the batches.
        centres: puts integers at the middle of their bins, without noise.

    Attributes:
        waited: the seconds that the loop spent on making batches and their y. A CPU's network waited as long for its
            data; a GPU may have worked on the update before meanwhile.
        resident: whether the training data are on a CUDA GPU.
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
        self.thread = ThreadPoolExecutor(1) if device.type == "cuda" and not self.resident else None
        self.prefetched: tuple[int, Future] | None = None

    def permutation(self, epoch: int) -> Tensor:
        """Returns the order of the training examples in an epoch."""
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
            self.epoch, self.order = epoch, torch.randperm(len(self.data.train), generator=generator)
        return self.order

    def rows(self, step: int) -> Tensor:
        """Returns the row numbers of the training examples in the batch of one step, (size,)."""
        if step != self.step:
            count, position, parts = len(self.data.train), step * self.size, []
            while position < (step + 1) * self.size:
                epoch, offset = divmod(position, count)
                parts.append(self.permutation(epoch)[offset : offset + (step + 1) * self.size - position])
                position += len(parts[-1])
            self.step, self.chosen = step, torch.cat(parts)
        return self.chosen

    def draws(self, step: int) -> Draws:
        """Returns the random numbers of the batch of one step."""
        return self.source.at(step)

    def condition(self, step: int) -> Tensor | None:
        """Returns the encoded y of the batch of one step, (size, condition), float32; None without a condition."""
        if (condition := self.data.condition) is None:
            return None
        began = time.perf_counter()
        y = sent(condition.encode(condition.train[self.rows(step)]).to(torch.float32), self.device)
        self.waited += time.perf_counter() - began
        return y

    def __call__(self, step: int) -> Tensor:
        """Returns the batch of one step in model units, (size, *), float32; integers are dequantised for each step."""
        began = time.perf_counter()
        r, u = self.mirrored(self.stored(step), step), None  # None puts integers at the middle of their bins
        if self.data.levels and not self.centres:
            u = self.draws(step).uniform("dequantisation", r)
        r = self.data.dequantise(r, u)
        r = r if r.is_floating_point() else r.to(torch.get_default_dtype())
        if self.units is None:  # copied to the device once
            self.units = self.data.shift.to(r), self.data.scale.to(r)
        x = ((r - self.units[0]) / self.units[1]).to(torch.float32)
        self.waited += time.perf_counter() - began
        return x

    def stored(self, step: int) -> Tensor:
        """Returns the batch in data units and in its stored type, (size, *), on the device."""
        rows = self.rows(step)
        if self.thread is None:
            return self.train[sent(rows, self.device) if self.resident else rows].to(self.device)
        if self.prefetched and self.prefetched[0] == step:
            gathered = self.prefetched[1].result()
        else:
            gathered = pinned(self.train[rows])
        self.prefetched = step + 1, self.thread.submit(lambda rows: pinned(self.train[rows]), self.rows(step + 1))
        return gathered.to(self.device, non_blocking=True)

    def mirrored(self, r: Tensor, step: int) -> Tensor:
        """Mirrors about half of the images (size, C, H, W) left to right, if the data may be mirrored."""
        if not self.data.flip:
            return r
        chosen = self.draws(step).uniform("mirror", r, (1, 1, 1)) < 0.5
        return torch.where(chosen, r.flip(-1), r)

    def close(self) -> None:
        """Stops the thread, if there is one."""
        if self.thread is not None:
            self.thread.shutdown(cancel_futures=True)


def fits(train: Tensor, free: int) -> bool:
    """Returns whether the training data take at most their share of the free bytes."""
    return train.nbytes <= SHARE * free


def free_memory(device: torch.device) -> int:
    """Returns the free bytes of a GPU."""
    return torch.cuda.mem_get_info(device)[0]


def pinned(tensor: Tensor) -> Tensor:
    """Returns the tensor in pinned memory, from which it is copied to a GPU asynchronously; unchanged without a GPU."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns the tensor on the device; does not wait for a copy to a GPU."""
    return pinned(tensor).to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
