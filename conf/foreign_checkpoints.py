"""Checkpoints of other codes: ``checkpoint=PATH`` as a file of score_sde or a folder of diffusers.

Neither holds a configuration of ours: the run's own describes the network, and names and shapes are compared.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scoresde.models import unet2d
from scoresde.models.convention import check_clock, convention, keeps_data
from scoresde.models.layout import put
from scoresde.models.published import layout
from scoresde.training import diffusers_folder, published

log = logging.getLogger(__name__)


def is_foreign(path: str) -> bool:
    """Returns whether a checkpoint is another code's: a file, or a folder of diffusers."""
    return Path(path).is_file() or diffusers_folder.folder_of(path) is not None


def from_foreign(path: str, model: nn.Module, sde: Any) -> nn.Module:
    """Returns the model with the weights of a file of score_sde or of a folder of diffusers.

    The run must use the network as its own code does (:mod:`scoresde.models.convention`). The exception is a network of
    diffusers that takes a step number: its scheduler says what it predicts, so that the parameterisation is the run's
    choice.

    Arguments:
        model: the run's own model, whose network has the architecture of the checkpoint.
        sde: the run's SDE, whose largest noise is compared with that of the checkpoint.

    Raises:
        ValueError: the checkpoint is damaged or does not fit the model, or the run uses it in another way.
        FileNotFoundError: a folder of diffusers holds no weights.
    """
    net, folder = getattr(model, "net", None), diffusers_folder.folder_of(path)
    try:
        entries = layout(net) if folder is None else unet2d.layout(net)
        if folder is None or not unet2d.follows_scheduler(net):
            convention(model)
        check_clock(model)
    except ValueError as error:
        kind = "a file" if folder is None else "a folder of diffusers"
        raise ValueError(f"checkpoint={path} is {kind}: {error}") from None
    if folder is not None:
        put(net, entries, diffusers_folder.read(folder, unet2d.config(net), entries, unet2d.present))
        log.info("loaded %s", folder)
        return model.eval().requires_grad_(False)
    found = published.read(path, entries)
    put(net, entries, found.average)
    clock = getattr(net.features, "clock", None)
    # under VP a network takes its step number from the clock, and the table of sigmas in the file is unused
    if found.sigmas is not None and (clock is None or keeps_data(clock.sde)):
        warn_of_other_noise(path, float(found.sigmas.max()), net.data_range, sde)
    log.info("loaded the average of %s after %s updates", path, f"{found.step:,}")
    return model.eval().requires_grad_(False)


def warn_of_other_noise(path: str, sigma: float, data_range: float, sde: Any) -> None:
    """Warns where a run under an SDE that does not scale the data begins at another noise than the network was trained
    for.

    Arguments:
        sigma: the largest std of the network's noise, in units of the data's range.
        data_range: the data's range in model units.
    """
    end = torch.tensor(sde.T, dtype=torch.float64)
    if keeps_data(sde) and abs(sigma * data_range / float(sde.sigma(end)) - 1) > 1e-3:
        log.warning(
            "checkpoint=%s is of a network for noise up to sigma=%.4g of the data's range, %.4g in model units, and "
            "the run begins at %.4g; type sde=ve sde.sigma_max=%.4g",
            path,
            sigma,
            sigma * data_range,
            float(sde.sigma(end)),
            sigma * data_range,
        )
