r"""Four objectives that estimate a score, each averaged over noise levels.

.. math::
    \text{explicit}\quad & \|s_\theta(x) - \nabla\log p(x)\|^2 \\
    \text{implicit}\quad & \|s_\theta(x)\|^2 + 2\,\nabla\!\cdot s_\theta(x) \\
    \text{sliced}\quad & (v^\top s_\theta(x))^2 + 2\,v^\top\nabla s_\theta(x)\,v, \qquad \mathbb E\,vv^\top = I \\
    \text{denoising}\quad & \|s_\theta(x_t, t) + z/\sigma\|^2, \qquad x_t = \alpha x_0 + \sigma z

Their expectations differ by constants (Hyvarinen 2005, JMLR 6, theorem 1; Song et al., arXiv 1905.07088, eq. 7 and 8;
Vincent 2011, doi 10.1162/NECO_a_00142), so the minimiser of each is the score of the distribution of x. The first three
can be applied to the *clean* data (levels ``clean``). Implicit and sliced then find the score of the data, explicit
that of its ``truth`` at t = eps. Denoising always finds the score of the *perturbed* data, and needs no derivative of
the network by x.

Each objective is multiplied by sigma(t)^2, so that all levels contribute on the same scale, and by the weight w(t) of
the level (:mod:`scoresde.training.levels`). Likelihood weighting is the factor g^2 in place of sigma^2 w: half the
integral over t of the denoising objective then bounds KL(p_data || p_model) from above, with p_model the law of the
reverse SDE's samples, up to a constant that does not depend on the model (arXiv 2101.09258, theorem 1). This weighting
is a choice of levels with w = 1: since g^2/sigma^2 = -2 d(lambda)/dt, with lambda the half log-SNR log(alpha/sigma),
drawing t *uniformly in lambda* turns the factor g^2 into sigma^2,

.. math:: \int_{eps}^T g^2\,\|s_\theta + z/\sigma\|^2\,dt = 2\int \|\sigma s_\theta + z\|^2\,d\lambda,

which has low variance under every SDE and needs no table of an importance density (section 5.1 of that paper).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from scoresde.sde_lib import SDE, BasisVectors, Draws, Gaussian, Probes, Rademacher, ScoreFn, divergence, per_sample

from .levels import Levels, LogSNR


class Loss(ABC):
    """A function (sde, score, x_0, draws) -> loss of each sample, of which the trainer takes the mean over a batch.

    ``score`` is the model that is trained, with its condition set to the y of the samples if it takes one.

    Attributes:
        differentiates: whether the loss contains derivatives of the score by x, so that training differentiates twice.
        of_batch: whether the loss of a sample depends on the other samples, so that the batch cannot be split.
    """

    differentiates: ClassVar[bool] = False
    of_batch: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, sde: SDE, score: ScoreFn, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        """Returns the loss of each sample of x_0 (B, *), shape (B,).

        Arguments:
            draws: the random numbers of the rows of x_0; None for new ones, with a seed from torch's global generator.
        """


class ScoreMatching(Loss):
    """An objective at random noise levels. The loss of a sample is w sigma^2 times the objective over D, its number of
    values.

    Subclasses are frozen dataclasses with the fields ``levels`` and ``stratified``. The levels of a stratified batch
    lie at the quantiles (i + u)/B with one shared u, which has the same expectation and less variance (arXiv
    2107.00630, appendix I.1).
    """

    levels: Levels
    stratified: bool

    @abstractmethod
    def objective(
        self, sde: SDE, score: ScoreFn, x: Tensor, t: Tensor, z: Tensor, draws: Draws | None = None
    ) -> Tensor:
        """Returns sigma^2 times the objective divided by D, shape (B,), at x (B, *).

        Arguments:
            t: the times (B,).
            z: the noise (B, *) in x = alpha(t) x_0 + sigma(t) z; not in x where the levels are without noise.
            draws: the source of further random numbers; None for new ones.
        """

    def times(self, sde: SDE, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        """Draws times (B,) for the samples of x_0 (B, *)."""
        return self.levels.times(sde, draws_or_fresh(draws, x_0).spread("times", x_0, self.stratified))

    def __call__(self, sde: SDE, score: ScoreFn, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        draws = draws_or_fresh(draws, x_0)
        t, z = self.times(sde, x_0, draws), draws.normal("noise", x_0)
        x = sde.perturb(x_0, t, z) if self.levels.noise else x_0
        return self.levels.weight(sde, t) * self.objective(sde, score, x, t, z, draws)


@dataclass(frozen=True)
class DenoisingScoreMatching(ScoreMatching):
    """The squared error of sigma times the score, which is the squared error of a prediction of the noise z.

    Under likelihood weighting the integral in the module's docstring is the expected loss times D times twice the range
    of lambda. The loss omits this factor, so that one clipping threshold and one learning rate suit every SDE.

    Arguments:
        levels: the noise levels; see :mod:`scoresde.training.levels`.
        stratified: whether the levels of a batch are spread evenly.

    Raises:
        ValueError: the levels are without noise.
    """

    levels: Levels = field(default_factory=LogSNR)
    stratified: bool = True

    def __post_init__(self):
        if not self.levels.noise:
            raise ValueError(
                "training/loss/levels=clean has no noise to take off: type training/loss=implicit, sliced, "
                "sliced_vr or explicit with it"
            )

    def objective(
        self, sde: SDE, score: ScoreFn, x: Tensor, t: Tensor, z: Tensor, draws: Draws | None = None
    ) -> Tensor:
        residual = per_sample(sde.sigma(t), x) * score(x, t) + z
        return residual.square().flatten(1).mean(1)


@dataclass(frozen=True)
class ExplicitScoreMatching(ScoreMatching):
    """The squared distance to the true score of p_t at (x, t), for data whose score has a closed form.

    Arguments:
        truth: the exact score; in the yaml ``models.Oracle`` of the data's components.
        levels, stratified: as in :class:`DenoisingScoreMatching`.
    """

    truth: nn.Module
    levels: Levels = field(default_factory=LogSNR)
    stratified: bool = True

    def objective(
        self, sde: SDE, score: ScoreFn, x: Tensor, t: Tensor, z: Tensor, draws: Draws | None = None
    ) -> Tensor:
        with torch.no_grad():
            truth = self.truth.to(x)(x, t)
        error = per_sample(sde.sigma(t), x) * (score(x, t) - truth)
        return error.square().flatten(1).mean(1)


@dataclass(frozen=True)
class ImplicitScoreMatching(ScoreMatching):
    """Hyvarinen's objective with the exact divergence, which takes D backward passes and differentiates them.

    Arguments:
        levels, stratified: as in :class:`DenoisingScoreMatching`.
        chunk: the number of backward passes that run at once; memory grows with it.
    """

    differentiates: ClassVar[bool] = True

    levels: Levels = field(default_factory=LogSNR)
    stratified: bool = True
    chunk: int = 16

    def __post_init__(self):
        if self.chunk < 1:
            raise ValueError(f"`chunk`={self.chunk} must be at least 1; type `chunk`=16")

    def objective(
        self, sde: SDE, score: ScoreFn, x: Tensor, t: Tensor, z: Tensor, draws: Draws | None = None
    ) -> Tensor:
        value, trace = divergence(lambda y: score(y, t), track(x), BasisVectors(self.chunk))
        return sde.sigma(t).square() * (value.square().flatten(1).mean(1) + 2 * trace[0] / x[0].numel())


@dataclass(frozen=True)
class SlicedScoreMatching(ScoreMatching):
    """The implicit objective along random directions v, with one backward pass for each direction.

    Arguments:
        levels, stratified: as in :class:`DenoisingScoreMatching`.
        directions: the number of directions v for each sample.
        law: the distribution of v: ``rademacher`` for random signs, ``gaussian`` for standard normals.
        variance_reduced: replaces (v's)^2 by its expectation |s|^2 (arXiv 1905.07088, eq. 8 and section 3.2).
    """

    differentiates: ClassVar[bool] = True

    levels: Levels = field(default_factory=LogSNR)
    stratified: bool = True
    directions: int = 1
    law: Literal["rademacher", "gaussian"] = "rademacher"
    variance_reduced: bool = True

    def __post_init__(self):
        if self.directions < 1:
            raise ValueError(f"`directions`={self.directions} must be at least 1; type `directions`=1")
        if self.law not in ("rademacher", "gaussian"):
            raise ValueError(f"`law`={self.law} must be rademacher or gaussian")

    def objective(
        self, sde: SDE, score: ScoreFn, x: Tensor, t: Tensor, z: Tensor, draws: Draws | None = None
    ) -> Tensor:
        probes: Probes = (Rademacher if self.law == "rademacher" else Gaussian)(self.directions)
        normals, shape = draws_or_fresh(draws, x).normal, (self.directions, *x.shape[1:])
        v = probes.draw(x, lambda count: normals("directions", x, shape).transpose(0, 1))  # (directions, B, *)
        value, traces = divergence(lambda y: score(y, t), track(x), probes, v)
        if self.variance_reduced:
            square = value.square().flatten(1).sum(1)
        else:
            square = (v * value).flatten(2).sum(2).square().mean(0)
        return sde.sigma(t).square() * (square + 2 * traces.mean(0)) / x[0].numel()


def draws_or_fresh(draws: Draws | None, x_0: Tensor) -> Draws:
    """Returns the draws, or for None new ones for the rows of x_0 (B, *)."""
    return Draws.afresh(len(x_0)) if draws is None else draws


def track(x: Tensor) -> Tensor:
    """Returns x as a leaf that requires a gradient if gradients are on, so that the divergence is differentiable."""
    return x.detach().requires_grad_(torch.is_grad_enabled())
