"""The axes of an array of examples: the axis of the examples, and those of channels, height and width.

An order of axes is a word with a letter an axis: n for the examples, c for channels or columns, h for height, w for
width.
"""

import math

import numpy as np

ORDERS = ("n", "nc", "nhw", "nchw")
"""The kinds of arrays, each in the order in which it is kept."""

TYPICAL = (1, 3, 4)  # channels of grey, coloured and transparent pictures


def as_examples(values: np.ndarray, axes: str | None, shape: list[int] | None, where: str) -> tuple[np.ndarray, str]:
    """Returns the file's array as vectors (N, D) or images (N, C, H, W), and a note on how its axes were read.

    Arguments:
        values: the file's array.
        axes: the order of its axes, a permutation of n, nc, nhw or nchw; None lets the shape decide.
        shape: the shape of one example; it may decide the order of the axes, and rows are reshaped to it. None for the
            array's own.
        where: the start of an error.

    Raises:
        ValueError: where the shape of the array allows two orders of axes; it names both.
    """
    read = values.shape
    if axes is not None:
        values, said = ordered(values, axes, where), f"axes {read} read as {in_words(axes)}"
    elif shape is not None and (len(shape) != 3 or values.ndim not in (3, 4)):
        said = f"axes {read} read as examples and their values"
    else:
        order = (shape and by_shape(values, shape, where)) or by_sizes(values, where)
        values, said = ordered(values, order, where), f"axes {read} read as {in_words(order)}"
    if shape is None or values.shape[1:] == tuple(shape):
        return values, said
    check_shape(values, shape, axes, where)
    return values.reshape(-1, *shape), f"{said}, each example reshaped to {list(shape)} as data.shape says"


def in_words(axes: str) -> str:
    """Returns an order of axes in words."""
    names = {"n": "examples", "c": "channels" if "h" in axes else "columns", "h": "height", "w": "width"}
    grey = ", grey" if sorted(axes) == sorted("nhw") else ""
    return f"{axes} ({', '.join(names[letter] for letter in axes)}{grey})"


def check_shape(values: np.ndarray, shape: list[int], axes: str | None, where: str) -> None:
    """Raises a ValueError unless examples (N, *) may be reshaped to the shape."""
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ValueError(f"`shape`={list(shape)} must be [D] or [C,H,W]: type `shape`=[1,28,28]")
    if math.prod(values.shape[1:]) != math.prod(shape):
        raise ValueError(
            f"`shape`={list(shape)} has {math.prod(shape)} values, a row of {where} has "
            f"{math.prod(values.shape[1:])} (the file's shape is {values.shape})"
        )
    if len(shape) == 3 and values.ndim == 4 and min(values.shape[1:]) > 1:
        raise ValueError(
            f"`shape`={list(shape)} is not the shape {list(values.shape[1:])} of an example of {where}"
            f"{f' with `axes`={axes}' if axes else ''}: leave `shape` out, and name the file's axes, "
            f"`axes`=nhwc"
        )


def ordered(values: np.ndarray, axes: str, where: str) -> np.ndarray:
    """Returns the array with its axes in the order that is kept: (N, D) or (N, C, H, W)."""
    kept = next((order for order in ORDERS if sorted(order) == sorted(axes)), None)
    if kept is None:
        raise ValueError(
            f"`axes`={axes} must be the letters of {', '.join(ORDERS)} in the file's order, n for the examples, c "
            f"for channels or columns, h and w for height and width: type `axes`=nhwc"
        )
    if len(axes) != values.ndim:
        raise ValueError(
            f"`axes`={axes} is for files of {len(axes)} axes, {where} has the shape {values.shape}: type `axes`=null"
        )
    values = values.transpose([axes.index(letter) for letter in kept])
    return values[:, None] if kept in ("n", "nhw") else values


def by_shape(values: np.ndarray, shape: list[int], where: str) -> str | None:
    """Returns nchw or nhwc, if examples have the shape in one of these orders; None if in neither or in both."""
    if values.ndim != 4 or len(shape) != 3:
        return None
    fits = {"nchw": tuple(shape), "nhwc": (*shape[1:], shape[0])}
    found = [order for order, each in fits.items() if values.shape[1:] == each]
    return found[0] if len(found) == 1 else None


def by_sizes(values: np.ndarray, where: str) -> str:
    """Returns the order of the axes that the sizes suggest.

    The channels of four axes are the second or the last. There are three signs of channels: their number is 1, 3 or 4;
    the other two axes are equal and the channels are not; the channels are at most half of either. The first sign
    decides unless the second, or in its absence the third, contradicts it; then the second, then the third.
    """
    shape = values.shape
    if values.ndim <= 2:
        return ORDERS[values.ndim - 1]
    if values.ndim > 4:
        raise ValueError(f"{where} has shape {shape}, more than four axes: type `shape`=[D] or [C,H,W]")
    if values.ndim == 3:
        if shape[0] == shape[1] < shape[2]:
            refuse(where, shape, {"nhw": (shape[0], shape[1:]), "hwn": (shape[2], shape[:2])})
        return "nhw"
    first, last = signs(shape[1], shape[2:]), signs(shape[3], shape[1:3])
    typical, equal, small = ((a, b) for a, b in zip(first, last, strict=True))
    if typical[0] != typical[1]:
        decides = equal if equal[0] != equal[1] else small  # the stronger of the other two signs
        choice = typical[0] if decides != typical[::-1] else None
    elif equal[0] != equal[1]:
        choice = equal[0]
    elif not typical[0] and small[0] != small[1]:
        choice = small[0]
    else:
        choice = None
    # more channels than examples: the last axis may count the examples
    if choice is False and not typical[1] and shape[3] > shape[0]:
        choice = None
    if choice is None:
        readings = {"nchw": (shape[0], shape[1:]), "nhwc": (shape[0], (shape[3], *shape[1:3]))}
        if shape[3] > shape[0]:
            square = shape[1] == shape[2]
            readings["chwn" if square else "hwcn"] = (shape[3], shape[:3] if square else (shape[2], *shape[:2]))
        refuse(where, shape, readings)
    return "nchw" if choice else "nhwc"


def signs(channels: int, sides: tuple[int, ...]) -> tuple[bool, bool, bool]:
    """Returns the three signs of channels: typical, unlike equal sides, and at most half of either side."""
    return channels in TYPICAL, sides[0] == sides[1] != channels, 2 * channels <= min(sides)


def refuse(where: str, shape: tuple[int, ...], readings: dict[str, tuple[int, tuple[int, ...]]]) -> None:
    """Raises a ValueError that names the possible orders of the axes.

    Arguments:
        readings: by order of axes, the number of examples and the shape of one.
    """
    said = [
        f"`axes`={order} ({count} examples of {' x '.join(map(str, example))})"
        for order, (count, example) in readings.items()
    ]
    raise ValueError(
        f"{where} has shape {shape}, whose axes can be read in {len(readings)} ways: type {' or '.join(said)}; the "
        f"letters name the file's axes in their order, n for the examples, c for channels, h and w for height and width"
    )
