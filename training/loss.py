r"""Four ways to estimate a score, and the levels of noise they are averaged over.

.. math::
    \text{explicit}\quad & \|s_\theta(x) - \nabla\log p(x)\|^2 \\
    \text{implicit}\quad & \|s_\theta(x)\|^2 + 2\,\nabla\!\cdot s_\theta(x) \\
    \text{sliced}\quad & (v^\top s_\theta(x))^2 + 2\,v^\top\nabla s_\theta(x)\,v, \qquad \mathbb E\,vv^\top = I \\
    \text{denoising}\quad & \|s_\theta(x_t, t) + z/\sigma\|^2, \qquad x_t = \alpha x_0 + \sigma z

Their expectations differ by constants (Hyvarinen 2005, JMLR 6, theorem 1; Song et al., arXiv 1905.07088, eq. 7 and 8;
Vincent 2011, doi 10.1162/NECO_a_00142), so that all have the score of the law of x as their minimiser. What that law
is makes the difference: the first three can take the *clean* data (levels ``clean``) and find their score; denoising
always finds that of the *perturbed* data, and needs no derivative of the network.

Each is multiplied by sigma(t)^2, which gives all levels a like size, and by the levels' own weight
(:mod:`scoresde.training.levels`). Likelihood weighting, lambda = g^2, for which the denoising loss bounds the
Kullback-Leibler divergence of the model from the data (arXiv 2101.09258, theorem 1), is a choice of levels: since
g^2/sigma^2 = -2 d(lambda)/dt with lambda the half log-SNR, drawing t *uniformly in log-SNR* turns the weight into
sigma^2 again,

.. math:: \int_{eps}^T g^2\,\|s_\theta + z/\sigma\|^2\,dt = 2\int \|\sigma s_\theta + z\|^2\,d\lambda,

with low variance under every SDE and no table of an importance density (section 5.1 there).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from scoresde.sde_lib import SDE, BasisVectors, Draws, Gaussian, Probes, Rademacher, ScoreFn, divergence, per_sample

from .levels import Levels, LogSNR


class Loss(ABC):
    """(sde, score, x_0, draws) -> one loss a sample.

    Attributes:
        differentiates: whether it takes derivatives of the score by x, which are then differentiated once more.
        of_batch: whether a sample's loss depends on the other samples, so that a batch cannot be cut into parts.
    """

    differentiates: ClassVar[bool] = False
    of_batch: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, sde: SDE, score: ScoreFn, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        """The loss of each sample of x_0 (B, *), shape (B,).

        Arguments:
            draws: the random numbers of these rows; None for fresh ones, with a seed from torch's global generator.
        """


class ScoreMatching(Loss):
    """An objective at levels of noise. Losses are means over the D values of a sample.

    A concrete one is a frozen dataclass with the fields ``levels`` and ``stratified``, whether the levels of a batch
    are spread evenly, at the quantiles (i + u)/B with one shared u: the same expectation with less variance (arXiv
    2107.00630, appendix I.1).
    """

    levels: Levels
    stratified: bool

    @abstractmethod
    def objective(
        self, sde: SDE, score: ScoreFn, x: Tensor, t: Tensor, z: Tensor, draws: Draws | None = None
    ) -> Tensor:
        """sigma^2 times the objective at x (B, *), perturbed by sigma(t) z, divided by D: shape (B,)."""

    def times(self, sde: SDE, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        """Times (B,) for the samples of x_0 (B, *)."""
        return self.levels.times(sde, given(draws, x_0).spread("times", x_0, self.stratified))

    def __call__(self, sde: SDE, score: ScoreFn, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        draws = given(draws, x_0)
        t, z = self.times(sde, x_0, draws), draws.normal("noise", x_0)
        x = sde.perturb(x_0, t, z) if self.levels.noise else x_0
        return self.levels.weight(sde, t) * self.objective(sde, score, x, t, z, draws)


@dataclass(frozen=True)
class DenoisingScoreMatching(ScoreMatching):
    """The squared error of sigma times the score, which is that of a prediction of the noise z.

    Under likelihood weighting the integral above is D times twice the range of lambda times this loss, which is left at
    unit size so that one clipping threshold and one learning rate fit every SDE.

    Arguments:
        levels: the noise levels; see :mod:`scoresde.training.levels`.
        stratified: whether the levels of a batch are spread evenly.
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
    """The squared distance to the true score, where it is known: what the other objectives stand in for.

    Arguments:
        truth: the exact score; ``models.Oracle`` of the data's components in the yaml.
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
    """Hyvarinen's objective with the exact divergence: D backward passes, themselves differentiated.

    Arguments:
        levels, stratified: as in :class:`DenoisingScoreMatching`.
        chunk: how many of the D passes run at once; memory grows with it.
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
    """The implicit objective along random directions v: one backward pass a direction.

    With ``variance_reduced`` E (v's)^2 is taken as |s|^2, which it is (arXiv 1905.07088, eq. 8 and section 3.2).

    Arguments:
        levels, stratified: as in :class:`DenoisingScoreMatching`.
        directions: how many v a sample.
        law: ``rademacher``, random signs, or ``gaussian``, standard normals.
        variance_reduced: see above.
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
        normals, shape = given(draws, x).normal, (self.directions, *x.shape[1:])
        v = probes.draw(x, lambda count: normals("directions", x, shape).transpose(0, 1))
        value, traces = divergence(lambda y: score(y, t), track(x), probes, v)
        if self.variance_reduced:
            square = value.square().flatten(1).sum(1)
        else:
            square = (v * value).flatten(2).sum(2).square().mean(0)
        return sde.sigma(t).square() * (square + 2 * traces.mean(0)) / x[0].numel()


def given(draws: Draws | None, x_0: Tensor) -> Draws:
    """The draws, or fresh ones for the rows of x_0 (B, *)."""
    return Draws.afresh(len(x_0)) if draws is None else draws


def track(x: Tensor) -> Tensor:
    """x as a leaf: where gradients are on, the divergence there can be differentiated too."""
    return x.detach().requires_grad_(torch.is_grad_enabled())
