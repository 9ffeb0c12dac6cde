"""Data sets, and the units they are in: one class and one yaml of conf/data/ each."""

from data.arrays import Arrays
from data.base import Data
from data.condition import Condition, Conditional
from data.curves import Moons, SwissRoll, TwoSpirals
from data.digits import Digits
from data.gaussian import Gaussian
from data.heartbeat import Heartbeat
from data.images import Images
from data.line import Line
from data.mixture import Mixture
from data.order import order, subset
from data.pinwheel import Pinwheel
from data.planar import Checkerboard, EightGaussians, Rings
from data.points import read_points
from data.turned import Turned
from data.unseen import Unseen

__all__ = [
    "Arrays",
    "Checkerboard",
    "Condition",
    "Conditional",
    "Data",
    "Digits",
    "EightGaussians",
    "Gaussian",
    "Heartbeat",
    "Images",
    "Line",
    "Mixture",
    "Moons",
    "Pinwheel",
    "Rings",
    "SwissRoll",
    "Turned",
    "TwoSpirals",
    "Unseen",
    "order",
    "read_points",
    "subset",
]
