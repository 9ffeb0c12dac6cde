"""On how many CPU threads a network is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from scoresde.models import ScoreModel
from torch import Tensor, nn


def is_small(model: Any, data: Any, batch: int) -> bool:
    """Whether an update is below 5 GFLOP, a tenth of a second of one core.

    Threads that meet at every small operation gain little on an idle machine and lose a lot on a busy one: the
    digits' U-Net makes 12 updates a second on one thread, and on two 18, or 6 while another process works.
    """
    operations = 0

    def count(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal operations
        operations += 2 * module.weight[0].numel() * output.numel()  # a linear layer or a convolution

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    device = next(model.parameters()).device
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        score = model.given(None) if isinstance(model, ScoreModel) and model.conditional else model
        score(torch.zeros(1, *data.shape, device=device), torch.full((1,), model.sde.T, device=device))
    for hook in hooks:
        hook.remove()
    return 3 * batch * operations < 5e9  # forward, and backward with respect to weights and features


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """One CPU thread where it is wanted, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
