"""The number of CPU threads on which a network is trained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

SMALL = 5e9  # operations of an update, a tenth of a second of one core


def is_small(model: nn.Module, call: Callable[[Tensor, Tensor], Any], T: float, shape: tuple, batch: int) -> bool:
    """Returns whether an update of the model takes fewer than 5 GFLOP.

    Threads that meet at every small operation gain little on an idle machine and lose a lot on a busy one: the
    digits' U-Net makes 12 updates a second on one thread, and on two 18, or 6 while another process works.

    Arguments:
        model: whose linear and convolutional layers are counted.
        call: evaluates it at x (1, *shape) and t (1,).
        T: a time at which it can be evaluated.
        batch: the examples of an update.
    """
    operations = 0

    def count(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal operations
        operations += 2 * module.weight[0].numel() * output.numel()

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    device = next(model.parameters()).device
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        call(torch.zeros(1, *shape, device=device), torch.full((1,), T, device=device))
    for hook in hooks:
        hook.remove()
    return 3 * batch * operations < SMALL  # forward, and backward with respect to weights and features


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Sets one CPU thread if that is wanted, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
