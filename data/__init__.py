"""Data sets and their units: a class each, most of them with one or more yamls in conf/data/.

``Conditional`` and ``Turned`` are made of another data set, ``Examples`` and ``Remembered`` of what is in memory; these
have no yaml.
"""

if __name__ == "data":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

from scoresde.data.arrays import Arrays
from scoresde.data.base import Data
from scoresde.data.condition import Condition
from scoresde.data.conditional import Conditional
from scoresde.data.curves import Moons, SwissRoll, TwoSpirals
from scoresde.data.digits import Digits
from scoresde.data.examples import Examples
from scoresde.data.gaussian import Gaussian
from scoresde.data.heartbeat import Heartbeat
from scoresde.data.images import Images
from scoresde.data.line import Line
from scoresde.data.mixture import Mixture
from scoresde.data.order import order, subset
from scoresde.data.pinwheel import Pinwheel
from scoresde.data.planar import Checkerboard, EightGaussians, Rings
from scoresde.data.points import read_points
from scoresde.data.remembered import Remembered
from scoresde.data.turned import Turned
from scoresde.data.unseen import Unseen

__all__ = [
    "Arrays",
    "Checkerboard",
    "Condition",
    "Conditional",
    "Data",
    "Digits",
    "EightGaussians",
    "Examples",
    "Gaussian",
    "Heartbeat",
    "Images",
    "Line",
    "Mixture",
    "Moons",
    "Pinwheel",
    "Remembered",
    "Rings",
    "SwissRoll",
    "Turned",
    "TwoSpirals",
    "Unseen",
    "order",
    "read_points",
    "subset",
]
