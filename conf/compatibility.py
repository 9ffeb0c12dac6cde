"""Checks that the parts of a run fit together: refuses or warns of those that do not, before a network is trained."""

import logging
import math
from typing import Any

import torch

from scoresde.data import Data
from scoresde.likelihood import TruncatedNormalDequantisation, UniformDequantisation
from scoresde.samplers import width
from scoresde.sde_lib import SDE
from scoresde.tasks import Task

from . import schema, stored
from .foreign_checkpoints import is_foreign
from .keys import full_keys

log = logging.getLogger(__name__)

NARROWEST = 1 / 30  # in bins of integers: truncated-normal dequantisation warns of a smaller std of the noise at eps


def guidance(cfg: dict) -> None:
    """Raises a ValueError for classifier-free guidance by a network that was never trained without its y."""
    drop = cfg["training"]["drop"]
    if cfg["checkpoint"] and not is_foreign(cfg["checkpoint"]):
        drop = stored.read(cfg["checkpoint"])[0]["training"].get("drop", 0.0)
    if drop == 0 and not is_exact(cfg):
        raise ValueError(
            f"guidance={cfg['guidance']} needs a network that has learnt p(x) too, and this one was given its y every "
            f"time (training.drop=0): type training.drop=0.1, or guidance=1"
        )


def densities(cfg: dict, task: Task) -> None:
    """Raises a ValueError for a guided score, which is the score of no density, in a task that refuses it."""
    if cfg["guidance"] != 1 and task.refuses_guidance:
        raise ValueError(
            f"guidance={cfg['guidance']}: a guided score is the score of no density, and {type(task).__name__} would "
            f"report that of its flow as log p(x | y); type guidance=1"
            + ("" if cfg["guidance"] else ", or leave data.condition and classifier out for log p(x)")
        )


def dequantisation(task: Task, data: Data) -> None:
    """Raises a ValueError for a dequantisation of continuous data other than the default one, which is ignored."""
    asked = task.dequantisation
    if data.levels is None and asked not in (None, UniformDequantisation()):
        raise ValueError(
            f"dequantisation, here {asked.title} with samples={asked.samples}, is for integers, and these data are "
            f"continuous; leave dequantisation out, or type data.levels=L for a file of integers 0 ... L-1"
        )


def process(cfg: dict) -> None:
    """Raises a ValueError for a part that is for other forward processes (its attribute ``process``) than the run's."""
    has, keys = schema.locate(cfg["sde"]["_target_"], "sde"), ["task"]
    if not is_exact(cfg):
        keys += ["parameterisation", "training.loss"]
    for key in keys:
        node = cfg
        for part in key.split("."):
            node = node[part]
        part = schema.locate(node["_target_"], key)
        wanted = getattr(part, "process", SDE)
        if not issubclass(has, wanted):
            raise ValueError(
                f"{key.replace('.', '/')}={part.__name__} is for {'SDEs' if wanted is SDE else wanted.__name__}, and "
                f"sde={has.__name__} is no {wanted.__name__}; choose parts that go together, as "
                f"experiment=heartbeat does for bits"
            )


def is_exact(cfg: dict) -> bool:
    """Returns whether the model is an exact score, which needs no training."""
    return getattr(schema.locate(cfg["model"]["_target_"], "model"), "exact", False)


def bins(task: Task | None, sde: Any, data: Data, identity: dict) -> None:
    """Warns where integers are scored in another way than the network was trained for, and where the noise at eps is
    too wide or too narrow for the bins of truncated-normal dequantisation.

    Arguments:
        task: what scores the integers; None for a network that no task asks for.
        identity: the network's; see :mod:`scoresde.conf.identity`.
    """
    asked, trained = task and task.dequantisation, identity["training"]
    if data.levels is None or asked is None:
        return
    if trained.get("dequantise", "uniform") != asked.training:
        log.warning(
            "the network is one of training.dequantise=%s, and %s dequantisation is for training.dequantise=%s: the "
            "bound on log P will be a loose one; type dequantisation=%s",
            trained.get("dequantise", "uniform"),
            asked.title,
            asked.training,
            "truncated_normal" if isinstance(asked, UniformDequantisation) else "uniform",
        )
    if isinstance(asked, TruncatedNormalDequantisation):
        blur = math.exp(-float(sde.ends()[1])) * float(data.scale.max())  # the std at eps in bins
        if blur > 1 / 3:  # twice the sixth that separates bins by three standard deviations
            log.warning(
                "the noise of sde.eps=%s is %.2g bins wide, and dequantisation=truncated_normal takes bins apart where "
                "it is a sixth of one: the bound on log P will be a loose one; type sde=edm sde.eps=%.2g, or "
                "dequantisation=uniform with training.dequantise=uniform",
                sde.eps,
                blur,
                1 / (6 * float(data.scale.max())),
            )
        narrow = math.exp(-float(sde.ends()[1])) * float(data.scale.min())
        if narrow < NARROWEST:
            log.warning(
                "the noise of sde.eps=%s is %.2g bins wide, and dequantisation=truncated_normal asks for the density "
                "of so narrow peaks: where a network has not learnt them, the bound on log P is up to %.1f bits/dim "
                "too loose; type sde.eps=%.2g, or dequantisation=uniform with training.dequantise=uniform",
                sde.eps,
                narrow,
                math.log2(1 / (6 * narrow)),
                float(sde.time(torch.tensor(math.log(6 * float(data.scale.max())), dtype=torch.float64))),
            )


def levels(task: Task | None, trainer: Any, sde: Any, data: Data) -> None:
    """Logs the description of the training's noise levels, if they have one, and warns where the task asks for the
    score at others.

    Raises:
        ValueError: the SDE does not reach the levels.
    """
    trained = getattr(trainer.loss, "levels", None)
    if trained is None:
        return
    with full_keys("training.loss.levels"):
        trained.times(sde, torch.zeros(1))  # levels out of reach are refused before a long training
    if description := trained.describe(sde, data.dim):
        log.info("%s", description)
    if not trained.everywhere and task is not None and task.every_level:
        log.warning(
            "the network is trained at one noise level, and this task asks for the score at all of them; type "
            "sampler=langevin to walk at that level, or training/loss/levels=log_snr to train at all"
        )


LARGEST_RATIO = 0.5  # of (sigma/alpha)^2 at eps to a variance of the data: above it the last step errs by 2 % or more
GOOD_RATIO = 0.09  # the ratio at which the last step ``flow`` errs by 0.1 %; what a warning advises
RESOLUTION = 1e-6  # in model units: float32 has no digit left for a smaller std


def detail(task: Task, sde: Any, data: Data) -> None:
    """Warns where the noise at eps is not small against the data's detail, so that no last step gives samples the
    data's law.

    Pictures whose last step is ``tweedie`` are not warned of: at the default eps of the SDEs the detail that it takes
    from them is below a grey level.
    """
    last = last_step(task)
    if last is None or (len(data.shape) > 1 and last == "tweedie") or len(data.train) < 2:
        return
    _, variances, directions, rest = data.moments()  # rest: the one variance of all directions beyond ``variances``
    noise = math.exp(-float(sde.ends()[1]))
    fine = variances < noise**2 / LARGEST_RATIO
    narrow = int(fine.sum()) + (data.dim - len(variances)) * (rest < noise**2 / LARGEST_RATIO)
    if not narrow:
        return
    lowest = int(variances.argmin())
    least = min(float(variances[lowest]), rest if len(variances) < data.dim else math.inf)
    where = f" ({along(directions[:, lowest], data)})" if least == float(variances[lowest]) else ""
    std = math.sqrt(max(least, 0.0))
    facts = (
        f"the noise at sde.eps={sde.eps} has the std {noise:.3g} in model units, and the data's std is smaller than "
        f"{noise / math.sqrt(LARGEST_RATIO):.2g} in {narrow} of {data.dim} directions, down to {std:.2g}{where}"
    )
    if std < RESOLUTION:
        log.warning(
            "%s: there samples get the std %.2g, and no sde.eps helps; leave out a column that the others determine",
            facts,
            noise / 2 if last == "flow" else 0.0,
        )
        return
    typed = sde.reaching(math.sqrt(GOOD_RATIO) * std)
    log.warning(
        "%s: there the std of samples is %.3g times the data's (sampler.last=%s); %s",
        facts,
        width(last, (noise / std) ** 2),
        last,
        f"type {typed}, which needs a network of its own" if typed else "choose an SDE that begins with less noise",
    )


LARGEST_START = 0.5  # of the data's variance to that of the noise at T: above it samples start 18 % too narrow or more
ROWS = 1000  # the most training examples whose widest direction is measured


def start(task: Task, sde: Any, data: Data) -> None:
    """Warns where the noise at T is not much wider than the data, or than their mean is far from 0: samples start from
    N(0, sigma(T)^2 I), which p_T then is not.
    """
    if last_step(task) is None or len(data.train) < 2:
        return
    noise = math.exp(-float(sde.ends()[0]))
    x = data.encode(data.dequantise(data.train[:ROWS], None).double()).flatten(1)
    mean = x.mean(0)
    x = (x - mean) / math.sqrt(len(x))
    # the smaller of two matrices with the same largest eigenvalue; data.moments() would take seconds and gigabytes for
    # pictures
    gram = x @ x.T if len(x) < data.dim else x.T @ x
    spread, away = float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0).sqrt()), float(mean.norm())
    if max(spread, away) < math.sqrt(LARGEST_START) * noise:
        return
    typed = sde.ending(5 * max(spread, away))  # samples then start 2 % too narrow
    log.warning(
        "the noise at T has the std %.3g (sigma/alpha), and the data the std %.3g along their widest direction and a "
        "mean %.3g from 0, in model units: samples start from N(0, sigma(T)^2 I), which noisy data do not have; %s",
        noise,
        spread,
        round(away, 2),
        f"type {typed}, which needs a network of its own" if typed else "choose an SDE that ends with more noise",
    )


def last_step(task: Task) -> str | None:
    """Returns the last step of the task's samplers, ``flow`` before ``tweedie`` if they differ.

    Returns None if the task draws nothing, or if its samples stay at eps.
    """
    taken = {getattr(sampler, "last", None) for sampler in task.drawn_by}
    return next((step for step in ("flow", "tweedie") if step in taken), None)


def along(direction: torch.Tensor, data: Data) -> str:
    """Returns a direction (D,) in words: its three largest coefficients, if above 0.05, by their columns' names or
    numbers.
    """
    names = data.labels() or [str(j) for j in range(data.dim)]
    largest = direction.abs().argsort(descending=True)[:3].tolist()
    terms = [f"{float(direction[j]):+.2g} {names[j]}" for j in largest if abs(float(direction[j])) > 0.05]
    return "along " + " ".join(terms)
