"""How far two samples are from each other, and from copies; it works on the numbers that it is given."""

from .labels import judge
from .memorisation import Cells, CopyingTest, copying_test, mann_whitney, nearest
from .two_sample import sliced_wasserstein

__all__ = ["sliced_wasserstein", "nearest", "copying_test", "mann_whitney", "Cells", "CopyingTest", "judge"]
