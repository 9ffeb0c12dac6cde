"""The family of scores of p(x | y), one for each y: the model of data with a condition y, before y is chosen."""

from torch import Tensor, nn

from scoresde.sde_lib import SDE, ScoreFn

from .classifier import GuidedByClassifier


class ConditionalScore(nn.Module):
    """The scores of p(x | y), with or without guidance. :meth:`given` returns the score of one y.

    Arguments:
        score: the score of p(x | y), with a method ``given(y, guidance)``; with a classifier, the score of p(x).
        guidance: the guidance scale w of :mod:`scoresde.models.given`; with a classifier, of
            :mod:`scoresde.models.classifier`.
        classifier: p(y | x, t); None for classifier-free guidance.
    """

    def __init__(self, score: nn.Module, guidance: float = 1.0, classifier: nn.Module | None = None):
        super().__init__()
        self.score, self.guidance, self.classifier = score, guidance, classifier

    def given(self, y: Tensor) -> ScoreFn:
        """Returns the guided score for y (B, condition), or (1, condition) for one y of all samples."""
        if self.classifier is None:
            return self.score.given(y, self.guidance)
        if self.guidance == 0:  # no need to evaluate the classifier
            return self.score
        return GuidedByClassifier(self.score, self.classifier, y, self.guidance)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Raises a TypeError, because there is no score without a y."""
        raise TypeError("these are the scores of p(x | y): choose y with score.given(y)(x, t)")

    def under(self, sde: SDE, other: SDE) -> "ConditionalScore":
        """Returns the scores under the SDE ``other``; the arguments are those of :func:`scoresde.sde_lib.under`."""
        classifier = self.classifier and self.classifier.under(sde, other)
        return ConditionalScore(self.score.under(sde, other), self.guidance, classifier)
