"""What becomes a score once y is given."""

from torch import Tensor, nn

from scoresde.sde_lib import SDE, ScoreFn

from .classifier import GuidedByClassifier


class ConditionalScore(nn.Module):
    """The scores of p(x | y), guided or not, for a y yet to be said.

    Arguments:
        score: of p(x | y), with a method ``given(y, guidance)``; or of p(x), with a classifier.
        guidance: w of :mod:`scoresde.models.given`, or of :mod:`scoresde.models.classifier`.
        classifier: p(y | x, t); None for classifier-free guidance.
    """

    def __init__(self, score: nn.Module, guidance: float = 1.0, classifier: nn.Module | None = None):
        super().__init__()
        self.score, self.guidance, self.classifier = score, guidance, classifier

    def given(self, y: Tensor) -> ScoreFn:
        """The score of y (B, condition), or of one y that all samples share, (1, condition)."""
        if self.classifier is None:
            return self.score.given(y, self.guidance)
        if self.guidance == 0:  # the classifier would be evaluated for nothing
            return self.score
        return GuidedByClassifier(self.score, self.classifier, y, self.guidance)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        raise TypeError("these are the scores of p(x | y): say which y, score.given(y)(x, t)")

    def under(self, sde: SDE, other: SDE) -> "ConditionalScore":
        """The same under another SDE."""
        classifier = self.classifier and self.classifier.under(sde, other)
        return ConditionalScore(self.score.under(sde, other), self.guidance, classifier)
