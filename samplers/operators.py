r"""Linear measurements y = A x + s n of a sample x, and the functions of A^T A that posteriors need.

n is standard normal and s the std of the noise. With the eigenvalues :math:`\lambda_i` and eigenvectors :math:`v_i` of
:math:`A^T A`,

.. math:: f(A^T A)\,x = \sum_i f(\lambda_i)\,v_i v_i^T x,

and f(0) multiplies the component of x in the null space of A. Conditioning needs only functions of this form, and
:meth:`Operator.function` computes them in closed form. In the table r is the variance of x given x_t, and v a residual
y - A x:

==================================================  =====================================================
:math:`A^+ y`                                        :math:`f(A^T A)\,A^T y`, f = 1/lambda, f(0) = 0
projection on the row space                          f = 1, f(0) = 0
:math:`A^T (r A A^T + s^2 I)^{-1} v`                 :math:`f(A^T A)\,A^T v`, f = 1/(r lambda + s^2)
:math:`\log\det(r A A^T + s^2 I)` on A's range       trace of f = log(r lambda + s^2)
==================================================  =====================================================

==============================  =====================  =============================================================
A                               y                      closed form of A^T A
==============================  =====================  =============================================================
:mod:`scoresde.samplers.masks`  (*), 0 where unknown   diagonal
``Colourise``                   (1, H, W)              A A^T = c I
``Superresolve``                (C, H/k, W/k)          A A^T = c I
``Deblur``                      (C, H, W)              diagonal after a Fourier transform
``Matrix``, ``Dense``           (m,)                   a singular value decomposition, computed once
==============================  =====================  =============================================================
"""

import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scoresde.sde_lib.products import row_product

Function = Callable[[Tensor], Tensor]
"""Maps eigenvalues to numbers, elementwise. Axis 0 of the eigenvalues is the batch (1 or B); :func:`along` broadcasts
one number per sample over them.
"""

MAX_MATRIX_DIM = 4096  # the largest number of values in a sample for which an operator is written as a matrix
# singular values below these fractions of the largest count as 0, since dividing by them would amplify rounding errors
SMALLEST_OF_BLUR = 1e-3
SMALLEST_OF_MATRIX = 1e-6


def along(r: Tensor, eigenvalues: Tensor) -> Tensor:
    """Reshapes one number per sample, (B,), to (B, 1, ..., 1), which broadcasts over the eigenvalues."""
    return r.to(eigenvalues.dtype).reshape(-1, *[1] * (eigenvalues.ndim - 1))


class Operator(ABC):
    """A linear map A of samples x (B, *), with the std of its noise in the unit of y.

    A concrete operator is a frozen dataclass with the fields ``shape``, of one x, and ``noise``.
    """

    shape: tuple[int, ...]
    noise: float

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Returns A x, shape (B, *) to (B, *measured)."""

    @property
    @abstractmethod
    def measured(self) -> tuple[int, ...]:
        """The shape of one y."""

    @abstractmethod
    def transpose(self, y: Tensor) -> Tensor:
        """Returns A^T y, shape (B, *measured) to (B, *)."""

    @abstractmethod
    def function(self, f: Function, x: Tensor) -> Tensor:
        """Returns f(A^T A) x, shape (B, *) to (B, *)."""

    @abstractmethod
    def trace(self, f: Function, like: Tensor) -> Tensor:
        """Returns the sum of f over the eigenvalues of A^T A above 0, with the dtype and device of ``like``.

        Its shape is (B,), or (1,) if A and f are the same for all samples.
        """

    def rows(self, rows: Tensor) -> "Operator":
        """Returns the operator for the samples with these batch indices (b,); itself if it is the same for all."""
        return self

    def columns(self, scale: Tensor) -> "Operator":
        """Returns A diag(scale), which measures x / scale as A measures x; ``scale`` has the shape of one x."""
        return Dense(self.shape, self.noise, dense(self) * scale.flatten())

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Returns A^+ y, the smallest x with A x = y, or with A x nearest to y."""
        return self.function(lambda e: torch.where(e > 0, 1 / e, 0.0), self.transpose(y))


def dense(operator: Operator) -> Tensor:
    """Returns the matrix of A, (m, D), float64; raises a ValueError for samples of too many values."""
    dim = math.prod(operator.shape)
    if dim > MAX_MATRIX_DIM:
        raise ValueError(
            f"operator: a matrix for samples of {dim} values is too large; at most {MAX_MATRIX_DIM} are possible"
        )
    return operator(torch.eye(dim, dtype=torch.float64).reshape(dim, *operator.shape)).flatten(1).T


def check_noise(noise: float) -> None:
    if not 0 <= noise < math.inf:
        raise ValueError(f"`noise`={noise} must be a finite std, at least 0, in the unit of y; type `noise`=0")


def need_images(shape: tuple[int, ...], what: str, instead: str) -> tuple[int, ...]:
    """Returns (C, H, W); raises a ValueError for vectors. ``instead`` is the advice that ends the message."""
    if len(shape) != 3:
        raise ValueError(f"operator={what} is for images, and the data are vectors of {math.prod(shape)}; {instead}")
    return tuple(shape)


# ---- matrices ----


class Linear(Operator):
    """An operator given by any matrix (m, D), through its singular value decomposition."""

    @property
    @abstractmethod
    def matrix(self) -> Tensor:
        """The matrix, (m, D), float64."""

    @property
    def measured(self) -> tuple[int, ...]:
        return (len(self.matrix),)

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """The eigenvalues of A^T A above 0, (1, R), and the matching eigenvectors, as rows (R, D)."""
        _, singular, eigenvectors = torch.linalg.svd(self.matrix, full_matrices=False)
        positive = singular > SMALLEST_OF_MATRIX * singular.max()
        return singular[positive].square()[None], eigenvectors[positive]

    def __call__(self, x: Tensor) -> Tensor:
        return row_product(x.flatten(1), self.matrix.to(x))

    def transpose(self, y: Tensor) -> Tensor:
        return row_product(y, self.matrix.to(y).T).reshape(-1, *self.shape)

    def function(self, f: Function, x: Tensor) -> Tensor:
        eigenvalues, eigenvectors = (part.to(x) for part in self.spectrum)
        zero, flat = f(eigenvalues.new_zeros(1, 1)), x.flatten(1)
        return (
            zero * flat + row_product((f(eigenvalues) - zero) * row_product(flat, eigenvectors), eigenvectors.T)
        ).reshape(x.shape)

    def trace(self, f: Function, like: Tensor) -> Tensor:
        return f(self.spectrum[0].to(like)).sum(1)


@dataclass(frozen=True, eq=False)
class Dense(Linear):
    """The operator of a matrix (m, D) in memory."""

    shape: tuple[int, ...]
    noise: float
    values: Tensor

    @property
    def matrix(self) -> Tensor:
        return self.values.double()

    def columns(self, scale: Tensor) -> Operator:
        return Dense(self.shape, self.noise, self.matrix * scale.flatten())


@dataclass(frozen=True, eq=False)
class Matrix(Linear):
    """The matrix of a .npy file, of shape (m, D); a sample of D values is flattened in C order.

    Arguments:
        shape: of one sample.
        path: the file.
        noise: std of the measurement's noise.
    """

    shape: tuple[int, ...]
    path: str | None = None
    noise: float = 0.0

    def __post_init__(self):
        check_noise(self.noise)
        self.matrix  # noqa: B018 (a bad file is refused now)

    @cached_property
    def matrix(self) -> Tensor:
        values, dim = read_array(self.path, "operator=matrix"), math.prod(self.shape)
        if values.ndim != 2 or values.shape[1] != dim or not len(values):
            raise ValueError(
                f"`path`={self.path} has shape {values.shape}; a sample of shape {tuple(self.shape)} needs a "
                f"matrix of shape (m, {dim})"
            )
        if not np.abs(values).max() > 0:
            raise ValueError(f"`path`={self.path} holds only zeros, so that nothing is measured")
        return torch.from_numpy(values)


def read_array(path: str | None, what: str) -> np.ndarray:
    """Returns the numbers of a .npy file, float64.

    Arguments:
        path: the file; ``~`` is the home folder.
        what: the part of the configuration that reads the file, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: ``path`` is not set, or the file is not one array of finite real numbers.
    """
    if not path:
        raise ValueError(f"`path` is not set: {what} reads a .npy file; type `path`=FILE.npy")
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"`path`={path}: there is no file {file.absolute()}")
    remedy = "save one array of real numbers with np.save(path, array)"
    try:
        values = np.load(file, allow_pickle=False)  # a pickle could run any code
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise ValueError(f"`path`={path} is not a plain numpy array of numbers: {remedy}") from None
    except OSError as error:
        raise ValueError(f"`path`={path} cannot be read ({error.strerror or error}): {remedy}") from None
    if not isinstance(values, np.ndarray):
        values.close()
        raise ValueError(f"`path`={path} is an .npz of named arrays, and {what} reads a .npy file: {remedy}")
    if values.dtype.kind == "c":  # a cast would drop the imaginary part
        raise ValueError(f"`path`={path} holds complex numbers; {what} needs real ones: {remedy}")
    try:
        values = values.astype(np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"`path`={path} is not a plain numpy array of numbers: {remedy}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"`path`={path} holds values that are missing, NaN or infinite; {what} needs numbers")
    return values


# ---- A A^T = c I ----


class Tight(Operator):
    """An operator whose rows are orthogonal and of one length: A A^T = c I, so that A^T A / c is a projection."""

    @property
    @abstractmethod
    def gain(self) -> float:
        """The constant c in A A^T = c I."""

    def function(self, f: Function, x: Tensor) -> Tensor:
        zero, one = (f(x.new_full((1,) * x.ndim, value)) for value in (0.0, self.gain))
        return zero * x + (one - zero) * (self.transpose(self(x)) / self.gain)

    def trace(self, f: Function, like: Tensor) -> Tensor:
        return math.prod(self.measured) * f(like.new_full((1, 1), self.gain))[:, 0]


@dataclass(frozen=True)
class Colourise(Tight):
    """The grey picture of a coloured one: a weighted sum of the channels.

    Arguments:
        shape: of one sample, (C, H, W).
        weights: of the channels, C numbers; None for their mean. ITU-R BT.601 luma is [0.299,0.587,0.114].
        noise: std of the measurement's noise.
    """

    shape: tuple[int, ...]
    weights: list[float] | None = None
    noise: float = 0.0

    def __post_init__(self):
        check_noise(self.noise)
        channels = need_images(self.shape, "colourise", "type operator=half")[0]
        if channels < 2:
            raise ValueError("operator=colourise needs at least two channels, the data have one; type operator=half")
        if self.weights is not None and (len(self.weights) != channels or not any(self.weights)):
            raise ValueError(
                f"`weights`={list(self.weights)} must be {channels} numbers, not all 0; type `weights`=null"
            )

    @property
    def channel_weights(self) -> list[float]:
        return list(self.weights) if self.weights is not None else [1 / self.shape[0]] * self.shape[0]

    @property
    def measured(self) -> tuple[int, ...]:
        return (1, *self.shape[1:])

    @property
    def gain(self) -> float:
        return sum(w * w for w in self.channel_weights)

    def __call__(self, x: Tensor) -> Tensor:
        return (x * x.new_tensor(self.channel_weights)[:, None, None]).sum(1, keepdim=True)

    def transpose(self, y: Tensor) -> Tensor:
        return y * y.new_tensor(self.channel_weights)[:, None, None]


@dataclass(frozen=True)
class Superresolve(Tight):
    """A picture of lower resolution, each of whose pixels is the mean of a block.

    Arguments:
        shape: of one sample, (C, H, W).
        factor: the side of a block; it divides H and W.
        noise: std of the measurement's noise.
    """

    shape: tuple[int, ...]
    factor: int = 2
    noise: float = 0.0

    def __post_init__(self):
        check_noise(self.noise)
        _, height, width = need_images(self.shape, "superresolve", "type operator=half")
        if self.factor < 2 or height % self.factor or width % self.factor:
            fits = [k for k in range(2, min(height, width) + 1) if height % k == width % k == 0]
            raise ValueError(
                f"`factor`={self.factor} must be at least 2 and divide pictures of {height} x {width}; "
                + (f"type `factor`={fits[0]}" if fits else "no factor does; type operator=deblur")
            )

    @property
    def measured(self) -> tuple[int, ...]:
        channels, height, width = self.shape
        return (channels, height // self.factor, width // self.factor)

    @property
    def gain(self) -> float:
        return 1 / self.factor**2

    def __call__(self, x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, self.factor)

    def transpose(self, y: Tensor) -> Tensor:
        spread = y.repeat_interleave(self.factor, dim=-2).repeat_interleave(self.factor, dim=-1)
        return spread / self.factor**2


# ---- blur ----


@dataclass(frozen=True, eq=False)
class Deblur(Operator):
    """A circular convolution, each channel with the same kernel of sum 1.

    Frequencies whose response is below 1/1000 of the largest count as not measured.

    Arguments:
        shape: of one sample, (C, H, W).
        std: of the Gaussian kernel, in pixels.
        path: a .npy file with another kernel, (h, w), centred at index (h // 2, w // 2); None for the Gaussian.
        noise: std of the measurement's noise.
    """

    shape: tuple[int, ...]
    std: float = 1.0
    path: str | None = None
    noise: float = 0.0

    def __post_init__(self):
        check_noise(self.noise)
        need_images(self.shape, "deblur", "type operator=half")
        if not 0 < self.std < math.inf:
            raise ValueError(f"`std`={self.std} must be positive, in pixels; type `std`=1")
        self.response  # noqa: B018 (a bad file is refused now)

    @cached_property
    def response(self) -> Tensor:
        """The kernel's Fourier transform, (H, W), complex128, 0 at frequencies that count as not measured."""
        _, height, width = self.shape
        if self.path is None:
            axes = [(torch.arange(n, dtype=torch.float64) + n // 2) % n - n // 2 for n in (height, width)]
            rows, columns = (torch.exp(-(axis / self.std).square() / 2) for axis in axes)
            kernel = rows[:, None] * columns
        else:
            values = torch.from_numpy(read_array(self.path, "operator=deblur"))
            if values.ndim != 2 or values.shape[0] > height or values.shape[1] > width or not abs(values.sum()) > 0:
                raise ValueError(
                    f"`path`={self.path} has shape {tuple(values.shape)}; a kernel has two axes, at most "
                    f"{height} x {width}, and a sum that is not 0"
                )
            kernel = torch.zeros(height, width, dtype=torch.float64)
            kernel[: values.shape[0], : values.shape[1]] = values
            kernel = kernel.roll((-(values.shape[0] // 2), -(values.shape[1] // 2)), (0, 1))
        response = torch.fft.fft2(kernel / kernel.sum())
        return torch.where(response.abs() < SMALLEST_OF_BLUR * response.abs().max(), 0.0, response)

    @property
    def measured(self) -> tuple[int, ...]:
        return tuple(self.shape)

    def filter(self, x: Tensor, response: Tensor) -> Tensor:
        """Returns x (B, C, H, W) with its Fourier transform multiplied by ``response``, which broadcasts over it."""
        return torch.fft.ifft2(torch.fft.fft2(x) * response).real

    def __call__(self, x: Tensor) -> Tensor:
        return self.filter(x, self.response_like(x))

    def transpose(self, y: Tensor) -> Tensor:
        return self.filter(y, self.response_like(y).conj())

    def response_like(self, x: Tensor) -> Tensor:
        """Returns the response (H, W) on the device of x and in the complex type of its precision."""
        return self.response.to(x.device, torch.complex128 if x.dtype == torch.float64 else torch.complex64)

    def function(self, f: Function, x: Tensor) -> Tensor:
        return self.filter(x, f(self.response_like(x).abs().square()[None, None]))

    def trace(self, f: Function, like: Tensor) -> Tensor:
        eigenvalues = self.response_like(like).abs().square()
        return self.shape[0] * f(eigenvalues[eigenvalues > 0][None]).sum(1)
