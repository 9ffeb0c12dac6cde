"""Decides whether a network is trained on one CPU thread or on as many as torch has, if ``threads=`` is not given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

SMALL = 5e9  # floating-point operations per update: a tenth of a second on one core


def is_small(model: nn.Module, call: Callable[[Tensor, Tensor], Any], T: float, shape: tuple, batch: int) -> bool:
    """Returns whether an update of the model is estimated to take fewer than 5 GFLOP.

    Such a model is trained on one thread. Several threads wait for each other at every small operation: they are
    somewhat faster on an idle machine and much slower on a busy one. Measured on the U-Net for digits: 12 updates per
    second on one thread; on two threads 18, or 6 while another process works.

    Arguments:
        model: the network; the operations of its linear and two-dimensional convolutional layers are counted.
        call: evaluates the model at x (1, *shape) and t (1,).
        T: a time at which the model can be evaluated.
        shape: the shape of one example.
        batch: the number of examples per update.
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
    """Runs its block on one CPU thread if ``wanted``, and restores the number of threads afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
