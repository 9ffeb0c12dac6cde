r"""Masks: measurements of some values of a sample, where A is diagonal.

.. math:: A = \mathrm{diag}(w), \qquad w_i = 0 \text{ where } x_i \text{ is unknown}, 1 \text{ elsewhere}.

y = A x + s n has the shape of x, with 0 where x is unknown. After a change of the columns' units
(:meth:`Masking.columns`), w holds the columns' scales in place of 1.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from scoresde.sde_lib.noise import seed_of

from .operators import Function, Operator, check_noise, need_images, read_array


class Masking(Operator):
    """A mask, the same for all samples or one for each."""

    @property
    @abstractmethod
    def weights(self) -> Tensor:
        """The diagonal w, shape (1, *) if it is the same for all samples, or (B, *), float64."""

    @property
    def measured(self) -> tuple[int, ...]:
        return tuple(self.shape)

    @property
    def seen(self) -> Tensor:
        """True for values that are known, (1, *) or (B, *)."""
        return self.weights != 0

    def __call__(self, x: Tensor) -> Tensor:
        return self.weights.to(x) * x

    def transpose(self, y: Tensor) -> Tensor:
        return self.weights.to(y) * y

    def function(self, f: Function, x: Tensor) -> Tensor:
        return f(self.weights.to(x).square()) * x

    def trace(self, f: Function, like: Tensor) -> Tensor:
        eigenvalues = self.weights.to(like).square()
        return torch.where(eigenvalues > 0, f(eigenvalues), 0.0).flatten(1).sum(1)

    def rows(self, rows: Tensor) -> Operator:
        weights = self.weights
        return self if len(weights) == 1 else Mask(self.shape, self.noise, weights[rows.to(weights.device)])

    def columns(self, scale: Tensor) -> Operator:
        return Mask(self.shape, self.noise, self.weights * scale.to(self.weights))


@dataclass(frozen=True, eq=False)
class Mask(Masking):
    """A mask in memory: weights (1, *) or (B, *), 0 where a value is unknown."""

    shape: tuple[int, ...]
    noise: float
    values: Tensor

    @property
    def weights(self) -> Tensor:
        return self.values.double()


@dataclass(frozen=True, eq=False)
class Missing(Masking):
    """A mask that hides the NaN values of the user's own points; in held-out data, what :class:`Half` hides by default.

    The task makes a :class:`Mask` of the NaNs (:class:`scoresde.tasks.Restore`); ``weights`` is for held-out data.

    Arguments:
        shape: of one sample.
        noise: std of the noise on the known values.
    """

    shape: tuple[int, ...]
    noise: float = 0.0

    def __post_init__(self):
        check_noise(self.noise)

    @cached_property
    def weights(self) -> Tensor:
        return Half(self.shape).weights


@dataclass(frozen=True, eq=False)
class Half(Masking):
    """Marks one half of a picture as known, or the first or last columns of a vector.

    Of an odd number of columns or rows the known part is the larger.

    Arguments:
        shape: of one sample.
        known: the half that is known; for vectors left (the first columns) or right (the last).
        noise: std of the noise on the known values.
    """

    shape: tuple[int, ...]
    known: Literal["left", "right", "top", "bottom"] = "left"
    noise: float = 0.0

    def __post_init__(self):
        check_noise(self.noise)
        if len(self.shape) == 1 and self.known in ("top", "bottom"):
            raise ValueError(f"`known`={self.known}: vectors have columns only; type `known`=left or right")
        if self.shape[self.axis] < 2:
            raise ValueError(
                f"operator=half cannot cut samples of shape {tuple(self.shape)} in two; type operator=random"
            )

    @property
    def axis(self) -> int:
        return -1 if self.known in ("left", "right") else -2

    @cached_property
    def weights(self) -> Tensor:
        count, view = self.shape[self.axis], [1] * len(self.shape)
        first = torch.arange(count) < (count + 1) // 2
        view[self.axis] = count
        known = first if self.known in ("left", "top") else first.flip(0)
        return known.double().reshape(1, *view).expand(1, *self.shape)


@dataclass(frozen=True, eq=False)
class Box(Masking):
    """Marks a rectangle in the middle of a picture as unknown, or everything around it.

    Arguments:
        shape: of one sample, (C, H, W).
        size: the rectangle's sides as a share of the picture's.
        unknown: the part that is unknown.
        noise: std of the noise on the known values.
    """

    shape: tuple[int, ...]
    size: float = 0.5
    unknown: Literal["inside", "outside"] = "inside"
    noise: float = 0.0

    def __post_init__(self):
        check_noise(self.noise)
        need_images(self.shape, "box", "type operator=half or operator=columns")
        if not 0 < self.size < 1:
            raise ValueError(f"`size`={self.size} must lie between 0 and 1; type `size`=0.5")
        if not 0 < float(self.weights.mean()) < 1:
            nothing = "unknown" if bool(self.weights.any()) else "known"
            raise ValueError(
                f"`size`={self.size} leaves nothing {nothing} in pictures of {self.shape[1]} x {self.shape[2]}; "
                f"type `size`=0.5"
            )

    @cached_property
    def weights(self) -> Tensor:
        inside = torch.zeros(1, *self.shape, dtype=torch.float64)
        sides = [round(self.size * n) for n in self.shape[1:]]
        (top, left), (height, width) = [(n - k) // 2 for n, k in zip(self.shape[1:], sides, strict=True)], sides
        inside[..., top : top + height, left : left + width] = 1
        return inside if self.unknown == "outside" else 1 - inside


@dataclass(frozen=True, eq=False)
class Random(Masking):
    """Marks random values as known, different ones in each sample; in a picture, whole pixels.

    Arguments:
        shape: of one sample.
        share: the probability that a value is known.
        seed: the seed of the masks.
        noise: std of the noise on the known values.
    """

    shape: tuple[int, ...]
    share: float = 0.5
    seed: int = 0
    noise: float = 0.0

    def __post_init__(self):
        check_noise(self.noise)
        if not 0 < self.share < 1:
            raise ValueError(f"`share`={self.share} must lie between 0 and 1; type `share`=0.5")

    @property
    def weights(self) -> Tensor:
        """The mask of sample 0, (1, *); :meth:`rows` draws those of other samples."""
        return self.draw([0])

    def draw(self, numbers: list[int]) -> Tensor:
        """Draws the masks of the samples with these numbers, (n, *); each number has its own seed."""
        size = self.shape if len(self.shape) == 1 else (1, *self.shape[1:])
        uniform = [
            torch.rand(size, generator=torch.Generator().manual_seed(seed_of(self.seed, "mask", number)))
            for number in numbers
        ]
        return (torch.stack(uniform) < self.share).double().expand(len(numbers), *self.shape)

    def rows(self, rows: Tensor) -> Operator:
        return Mask(self.shape, self.noise, self.draw(rows.tolist()))


@dataclass(frozen=True, eq=False)
class Columns(Masking):
    """Marks some columns of a vector as known.

    Arguments:
        shape: of one sample, (D,).
        known: the known columns, by their names or by their numbers from 0.
        labels: the names of all columns; None if they have none.
        noise: std of the noise on the known values.
    """

    shape: tuple[int, ...]
    known: list[str | int] = (0,)
    labels: list[str] | None = None
    noise: float = 0.0

    def __post_init__(self):
        check_noise(self.noise)
        if len(self.shape) != 1:
            raise ValueError(
                f"operator=columns is for vectors, and the data are of shape {tuple(self.shape)}; type "
                f"operator=half, box or random"
            )
        if not 0 < int(self.weights.sum()) < self.shape[0]:
            raise ValueError(
                f"`known`={list(self.known)} must name a column, and must leave some of {self.shape[0]} columns unknown"
            )

    @cached_property
    def weights(self) -> Tensor:
        names = list(self.labels or [])
        weights = torch.zeros(1, *self.shape, dtype=torch.float64)
        for column in self.known:
            if column in names:
                weights[0, names.index(column)] = 1
            elif isinstance(column, int) and 0 <= column < self.shape[0]:
                weights[0, column] = 1
            else:
                has = f"they are {', '.join(names)}, or 0" if names else "their numbers are 0"
                raise ValueError(
                    f"`known`={list(self.known)}: there is no column {column!r}; {has} to {self.shape[0] - 1}"
                )
        return weights


@dataclass(frozen=True, eq=False)
class MaskFile(Masking):
    """The mask of a .npy file: a value is known where the file is not 0.

    Arguments:
        shape: of one sample.
        path: the file. Its shape is that of one sample, of one channel (H, W), or (N, *) with one mask per sample; with
            N = 1 the mask is for all samples.
        noise: std of the noise on the known values.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, has another shape, holds only zeros, or holds no zero while ``noise`` is 0.
    """

    shape: tuple[int, ...]
    path: str | None = None
    noise: float = 0.0

    def __post_init__(self):
        check_noise(self.noise)
        if not bool(self.weights.any()):
            raise ValueError(f"`path`={self.path} holds only zeros, so that no value is known; type task=sample")
        if not self.noise and bool(self.weights.all()):
            raise ValueError(
                f"`path`={self.path} holds no zero, so that no value is unknown; write 0 where a value is unknown, or "
                f"type the std of the noise to be removed, `noise`=0.1"
            )

    @cached_property
    def weights(self) -> Tensor:
        values, shape = torch.from_numpy(read_array(self.path, "operator=mask")).ne(0).double(), tuple(self.shape)
        if values.shape == shape:
            return values[None]
        if len(shape) == 3 and values.shape == shape[1:]:
            return values.expand(1, *shape)
        if values.shape[1:] == shape:
            return values
        raise ValueError(
            f"`path`={self.path} has shape {tuple(values.shape)}; a mask of samples of shape {shape} has "
            f"{shape}{f', {shape[1:]}' if len(shape) == 3 else ''} or (N, {', '.join(map(str, shape))})"
        )

    def rows(self, rows: Tensor) -> Operator:
        """Returns the mask of these samples; raises a ValueError if a file of several masks lacks one of them."""
        if 1 < len(self.weights) <= int(rows.max()):
            raise ValueError(
                f"operator.path={self.path} holds {len(self.weights)} masks, and sample {int(rows.max())} (from 0) "
                f"needs one; type count={len(self.weights)}"
            )
        return super().rows(rows)
