r"""The interface of a data set: examples and their units.

Every data set has two systems of units.

* *Data units* are those of the file or the generator, such as pixel values 0 ... L-1 or centimetres. Samples and
  log-densities are reported in these units.
* *Model units* are those of the SDE and the network, centred and of size about one:

  .. math:: x = (r - m) / s, \qquad r = s\,x + m,

  with the data set's ``shift`` m and ``scale`` s, both broadcast over the shape of one example.

Densities change by the Jacobian of that map, :math:`\log p_r(r) = \log p_x(x) - \sum_i \log s_i`, the last term
being :attr:`Data.log_det`. Integer data of L levels are made continuous by uniform dequantisation, r = k + u with
u ~ U[0, 1)^D, so that :math:`E_u[-\log p_r(k + u)]` bounds the negative log-probability of the integers from above
(Theis, van den Oord and Bethge, arXiv 1511.01844, section 3.1). Tighter bounds are in
:mod:`scoresde.likelihood.dequantisation`.
"""

import math
import re
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from scoresde.data.order import order


class Data:
    """Examples with a training and a held-out part, and their units.

    Arguments:
        train: training examples in data units, shape (N, *).
        test: held-out examples in data units, shape (M, *).
        shift: the offset m, a number or a tensor that broadcasts over one example.
        scale: the positive factor s, a number or a tensor that broadcasts over one example.
        levels: the number L if the data are integers 0 ... L-1, or None for continuous data.
        train_labels, test_labels: the examples' class labels, (N,) and (M,), int64; None without any.
        shuffle: whether to put the examples and their labels into the random order of :mod:`scoresde.data.order`, so
            that each prefix is a random subset. False for examples in a random order already, such as independent
            draws.

    Raises:
        ValueError: the two parts, their labels, the shift and the scale do not fit together, or the scale is not
            positive.

    Attributes:
        train, test, train_labels, test_labels: the arguments, in the random order if ``shuffle`` is set.
        shape: the shape of one example.
        shift, scale: the arguments as float64 tensors.
        class_names: the name of class k at place k; None where classes have no names.
        notes: what a reader took, left out and reinterpreted, a clause each.
        condition: the y of each example, if these are data of p(x | y); see :mod:`scoresde.data.condition`.
        held_out_keys: the constructor's keys that no training example depends on.
        conditional_keys: the keys that only matter to a network that is conditioned on the labels.
        flip: whether training mirrors each image left to right with probability 1/2.
    """

    class_names: list[str] | None = None
    condition: Any = None
    held_out_keys: ClassVar[tuple[str, ...]] = ()
    conditional_keys: ClassVar[tuple[str, ...]] = ()
    flip: bool = False
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        train: Tensor,
        test: Tensor,
        shift: Tensor | float,
        scale: Tensor | float,
        levels: int | None = None,
        train_labels: Tensor | None = None,
        test_labels: Tensor | None = None,
        shuffle: bool = True,
    ):
        check_examples(train, test, train_labels, test_labels)
        if shuffle:
            rows = order(len(train)), order(len(test))
            train, test = train[rows[0]], test[rows[1]]
            train_labels = None if train_labels is None else train_labels[rows[0]]
            test_labels = None if test_labels is None else test_labels[rows[1]]
        self.train, self.test, self.levels = train, test, levels
        self.train_labels, self.test_labels = train_labels, test_labels
        self.shape = tuple(train.shape[1:])
        self.shift = torch.as_tensor(shift, dtype=torch.float64)
        self.scale = torch.as_tensor(scale, dtype=torch.float64)
        for name, values in (("shift", self.shift), ("scale", self.scale)):
            if not broadcasts(values, self.shape):
                raise ValueError(
                    f"the data's {name} has the shape {tuple(values.shape)}, and an example {self.shape}; give one "
                    f"number, or one for each value of an example"
                )
        if not bool((self.scale > 0).all()):
            raise ValueError("the data's scale must be positive in every coordinate; a constant one carries no density")

    def __repr__(self) -> str:
        """Returns the kind of the data, the numbers of examples and their shape, the columns' names and the levels."""
        counts = f"{len(self.train):,} + {len(self.test):,} held out"
        parts = [counts if len(self.train) or len(self.test) else "no examples", f"shape {self.shape}"]
        if names := self.labels():
            parts.append("columns " + ", ".join(names[:8]) + (", ..." if len(names) > 8 else ""))
        parts += [f"integers 0 ... {self.levels - 1}"] if self.levels else []
        if self.condition is not None:
            shown = ", ".join(self.condition.names[:8]) + (", ..." if len(self.condition.names) > 8 else "")
            parts.append(f"given {'a class of ' if self.condition.classes else ''}{shown}")
        return f"{type(self).__name__}({'; '.join(parts)})"

    @property
    def dim(self) -> int:
        """The number D of values in one example."""
        return math.prod(self.shape)

    @property
    def log_det(self) -> float:
        """log |dx/dr| = -sum_i log s_i in nats: log p_r(r) = log p_x(x) + log_det."""
        return -float(self.scale.log().expand(self.shape).sum())

    @property
    def std(self) -> float:
        """The standard deviation of a coordinate about its own mean in model units, all coordinates pooled, over the
        first 10,000 training examples.
        """
        x = self.encode(self.dequantise(self.train[:10_000], None).double())
        return float((x - x.mean(0)).square().mean().sqrt())

    def dequantise(self, r: Tensor, u: Tensor | None) -> Tensor:
        """Returns k + u for integers k (B, *) and u (B, *) in [0, 1), where None stands for 1/2; continuous data are
        returned unchanged.
        """
        if self.levels is None:
            return r
        return r.to(torch.get_default_dtype() if u is None else u.dtype) + (0.5 if u is None else u)

    def encode(self, r: Tensor) -> Tensor:
        """Maps data units to model units, shape (B, *) to (B, *); integers are not dequantised."""
        # m and s are cast to the dtype of r, and an integer type would round them
        r = r if r.is_floating_point() else r.to(torch.get_default_dtype())
        return (r - self.shift.to(r)) / self.scale.to(r)

    def decode(self, x: Tensor) -> Tensor:
        """Maps model units to data units, shape (B, *) to (B, *); the result is continuous, also for integer data."""
        return x * self.scale.to(x) + self.shift.to(x)

    @property
    def distance_unit(self) -> str:
        """The unit of distances between examples: ``data`` where all values share one scale s, else ``std``."""
        scale = self.scale.flatten()
        return "data" if bool((scale == scale[0]).all()) else "std"

    def commensurate(self, r: Tensor) -> Tensor:
        """Returns r (B, *) in the unit of distances, float64.

        These are data units where all values share one scale. Where columns have units of their own, each column is
        divided by its scale; a distance in data units would be dominated by the column of the largest scale.
        """
        return r.double() if self.distance_unit == "data" else r.double() / self.scale.to(r.device)

    def bits_per_dim(self, nats: float) -> float:
        """Converts nats for a whole example to bits for one of its D values."""
        return nats / (self.dim * math.log(2))

    def true_log_prob(self, r: Tensor, y: Tensor | None = None) -> Tensor | None:
        """Returns the exact log-density in nats and data units at r, (B, *) to (B,) in float64, given y where y is not
        None; None where it is unknown.
        """
        return None

    def marginal_log_prob(self, y: Tensor, columns: list[int]) -> Tensor | None:
        """Returns the exact log-density of some columns, y (B, C) in data units to (B,) nats; None if unknown."""
        return None

    def class_log_prob(self, r: Tensor, k: Tensor) -> Tensor | None:
        """Returns the exact log-density of the examples of class k (B,) at r (B, *), (B,) nats; None if unknown."""
        return None

    def condition_values(self, keys: list[str | int]) -> tuple[Tensor, Tensor, list[str], list[int]]:
        """Finds the numbers y that condition the examples.

        Arguments:
            keys: names or numbers of columns.

        Returns:
            y of the training and of the held-out examples, (N, C) and (M, C), float64 in data units; their names; and
            which columns of the examples they are, an empty list if none.

        Raises:
            ValueError: a key names no column or the same column twice, or the examples are no vectors.
        """
        names = self.labels() or [str(j) for j in range(self.dim)]
        if len(self.shape) != 1:
            raise ValueError(
                f"data.condition={keys} names columns, and an example here has the shape {self.shape}; type "
                f"data.condition=labels"
            )
        for key in keys:
            if str(key) not in names:
                raise ValueError(
                    f"data.condition={keys}: there is no column {key}; the columns are {', '.join(names)}"
                    + (
                        ", and data.condition=labels takes the examples' classes"
                        if self.train_labels is not None
                        else ""
                    )
                )
        if len(set(map(str, keys))) < len(keys):
            raise ValueError(f"data.condition={keys} names a column twice")
        columns = [names.index(str(key)) for key in keys]
        return self.train[:, columns].double(), self.test[:, columns].double(), [names[j] for j in columns], columns

    def without(self, columns: list[int]) -> str | None:
        """Returns what to type so that these columns of a vector are not learnt; None where no key says so."""
        return None

    def given(self, columns: list[int]) -> str | None:
        """Returns what to type to condition on these columns of a vector; None where no key says so."""
        if len(self.shape) != 1 or len(columns) == self.dim:
            return None
        names = self.labels() or [str(j) for j in range(self.dim)]
        return typed("data.condition", [names[j] for j in columns])

    def components(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Returns weights (K,), means (K, D), stds (K,) in model units of the mixture of isotropic Gaussians that the
        data are; None for other data.
        """
        return None

    def moments(self) -> tuple[Tensor, Tensor, Tensor, float]:
        """Returns the mean and the covariance of the first 20,000 training examples in model units, float64, with the
        variance that uniform dequantisation adds.

        Returns:
            the mean (D,); the variances (k,) along the columns of ``directions``; the directions (D, k); and the one
            variance of all other directions. k = D up to D = 1024; above, k is at most 256, and a randomised SVD
            estimates the largest variances and their directions.
        """
        x = self.encode(self.dequantise(self.train[:20_000], None).double()).flatten(1)
        mean = x.mean(0)
        centred = (x - mean) / math.sqrt(len(x))
        total = float(centred.square().sum())
        if self.dim <= 1024:
            variances, directions = torch.linalg.eigh(centred.T @ centred)
            variances = variances.clamp_min(0)
        else:
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(0)
                _, singular, directions = torch.svd_lowrank(centred, q=min(256, *centred.shape))
            variances = singular.square()
        others = self.dim - len(variances)
        rest = max(0.0, total - float(variances.sum())) / others if others else 0.0
        # uniform dequantisation adds the variance 1/12 of U[0, 1), in data units squared, to every coordinate; where
        # scales differ, all get the mean over the coordinates
        blur = float((1 / self.scale.square()).mean()) / 12 if self.levels else 0.0
        return mean, variances + blur, directions, rest + blur

    def largest_distance(self) -> float:
        """Returns the largest distance between two of the first 5,000 training examples in model units, which the
        largest noise should reach (arXiv 2006.09011, technique 1).
        """
        x = self.encode(self.dequantise(self.train[:5000], None).double()).flatten(1)
        return max((float(torch.cdist(part, x).max()) for part in x.split(500)), default=0.0)

    def label_count(self) -> int | None:
        """Returns the number of classes of the labels; None without labels, or where all training labels are equal."""
        if self.train_labels is None or self.test_labels is None or len(self.train_labels.unique()) < 2:
            return None
        return len(torch.cat([self.train_labels, self.test_labels]).unique())

    def labels(self) -> list[str] | None:
        """Returns the names of the columns of a vector, for messages and the axes of pictures; None where they have
        none.

        Class labels are ``train_labels`` and ``test_labels``.
        """
        return None

    def describe(self) -> str | None:
        """Returns one line with the notes and the numbers of training and held-out examples; None without notes, as for
        generated data.
        """
        if not self.notes:
            return None
        counts = f"{len(self.train):,} of shape {list(self.shape)} to train on, {len(self.test):,} held out"
        return " ".join("; ".join([*self.notes, counts]).splitlines())  # a label or a file's name may hold a newline

    def fingerprint(self) -> str | None:
        """Returns a hash of the content of the data's files; None where the constructor's arguments decide the data."""
        return None


def typed(key: str, names: list[str]) -> str:
    """Returns ``key=[NAMES]`` as a shell and Hydra take it, in quotes where they would misread a name."""
    words = {"true", "false", "null", "nan", "inf", "none"}
    if all(
        re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*|0|[1-9][0-9]*", name) and name.lower() not in words for name in names
    ):
        return f"{key}=[{','.join(names)}]"
    within = ",".join("'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'" for name in names)
    return '"' + re.sub(r'(["$`\\])', r"\\\1", f"{key}=[{within}]") + '"'


def check_examples(train: Tensor, test: Tensor, train_labels: Tensor | None, test_labels: Tensor | None) -> None:
    """Raises a ValueError unless both parts are tensors of examples of one shape, with a label for each, or none."""
    for part, x, labels in (("training", train, train_labels), ("held-out", test, test_labels)):
        if not isinstance(x, Tensor) or x.ndim < 2:
            given = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
            raise ValueError(f"the {part} examples are of {given}; give a tensor (N, D) or (N, C, H, W)")
        if labels is not None and labels.shape != x.shape[:1]:
            raise ValueError(
                f"the labels of the {part} examples have the shape {tuple(labels.shape)}; give one for each of the "
                f"{len(x)} examples"
            )
    if test.shape[1:] != train.shape[1:]:
        raise ValueError(
            f"a held-out example has the shape {tuple(test.shape[1:])}, and a training example "
            f"{tuple(train.shape[1:])}; give all examples one shape"
        )


def broadcasts(values: Tensor, shape: tuple[int, ...]) -> bool:
    """Returns whether values broadcast over an example of a shape without making it larger."""
    try:  # torch.broadcast_shapes would import sympy, half a second of every run
        return np.broadcast_shapes(values.shape, shape) == tuple(shape)
    except ValueError:
        return False


def at_least(key: str, value: float, bound: float, instead: float) -> None:
    """Raises a ValueError unless value >= bound; it names the key and the bound, and proposes the value ``instead``."""
    if not value >= bound:  # this form refuses a NaN too
        raise ValueError(f"`{key}`={value} must be at least {bound}: type `{key}`={instead}")


def fraction(key: str, value: float) -> None:
    """Raises a ValueError unless the value lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"`{key}`={value} must lie strictly between 0 and 1: type `{key}`=0.1")
