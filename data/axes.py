"""The axes of an array of examples: the axis of the examples, and those of channels, height and width.

An order of axes is written as a word with one letter for each axis: n for the examples, c for channels or columns, h
for height, w for width.
"""

import math

import numpy as np

ORDERS = ("n", "nc", "nhw", "nchw")
"""The orders that arrays are brought to; n then gets an axis of one column, nhw an axis of one channel."""

TYPICAL = (1, 3, 4)  # channels of grey, coloured and transparent pictures


def as_examples(values: np.ndarray, axes: str | None, shape: list[int] | None, where: str) -> tuple[np.ndarray, str]:
    """Returns the file's array as vectors (N, D) or images (N, C, H, W), and a note on how its axes were read.

    Arguments:
        values: the file's array.
        axes: the order of its axes, a permutation of n, nc, nhw or nchw; None lets the shape decide.
        shape: the shape of one example; it may decide the order of the axes, and examples are reshaped to it. None for
            the array's own.
        where: the start of an error.

    Raises:
        ValueError: the shape of the array allows several orders of axes, which the message names; or ``axes`` or
            ``shape`` does not fit the array, or is needed for an array of more than four axes.
    """
    read = values.shape
    if axes is not None:
        values, said = ordered(values, axes, where), f"axes {read} read as {in_words(axes)}"
    elif shape is not None and (len(shape) != 3 or values.ndim not in (3, 4)):
        said = f"axes {read} read as examples and their values"
    else:
        order = (by_shape(values, shape, where) if shape else None) or by_sizes(values, where)
        values, said = ordered(values, order, where), f"axes {read} read as {in_words(order)}"
    if shape is None or values.shape[1:] == tuple(shape):
        return values, said
    check_shape(values, shape, axes, where)
    return values.reshape(-1, *shape), f"{said}, each example reshaped to {list(shape)} as data.shape says"


def in_words(axes: str) -> str:
    """Returns an order of axes in words, such as ``nhw (examples, height, width, grey)``."""
    names = {"n": "examples", "c": "channels" if "h" in axes else "columns", "h": "height", "w": "width"}
    grey = ", grey" if sorted(axes) == sorted("nhw") else ""
    return f"{axes} ({', '.join(names[letter] for letter in axes)}{grey})"


def check_shape(values: np.ndarray, shape: list[int], axes: str | None, where: str) -> None:
    """Raises a ValueError unless the examples of ``values`` (N, *) may be reshaped to ``shape``."""
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
    """Returns the array with its axes in the order (N, D) or (N, C, H, W).

    Raises:
        ValueError: ``axes`` is no order of axes, or the array has another number of axes.
    """
    target = next((order for order in ORDERS if sorted(order) == sorted(axes)), None)
    if target is None:
        raise ValueError(
            f"`axes`={axes} must be the letters of {', '.join(ORDERS)} in the file's order, n for the examples, c "
            f"for channels or columns, h and w for height and width: type `axes`=nhwc"
        )
    if len(axes) != values.ndim:
        raise ValueError(
            f"`axes`={axes} is for files of {len(axes)} axes, {where} has the shape {values.shape}: type `axes`=null"
        )
    values = values.transpose([axes.index(letter) for letter in target])
    return values[:, None] if target in ("n", "nhw") else values


def by_shape(values: np.ndarray, shape: list[int], where: str) -> str | None:
    """Returns nchw or nhwc, if examples of four axes have the shape in one of these orders; None if in neither or in
    both, or of other numbers of axes.
    """
    if values.ndim != 4 or len(shape) != 3:
        return None
    shapes = {"nchw": tuple(shape), "nhwc": (*shape[1:], shape[0])}
    orders = [order for order, own_shape in shapes.items() if values.shape[1:] == own_shape]
    return orders[0] if len(orders) == 1 else None


def by_sizes(values: np.ndarray, where: str) -> str:
    """Returns the order of the axes that the sizes suggest.

    One axis is n, two are nc, three are nhw. Of four axes the second or the last one holds the channels. Three signs
    tell which:

    1. its size is 1, 3 or 4;
    2. the two axes of height and width are then equal, and the channels are not;
    3. the channels are at most half of height and of width.

    If one of the two axes has the first sign and the other has not, it holds the channels, unless the second sign (or
    the third, where the second does not differ) points to the other axis, which leaves the order open. If the first
    sign does not differ, the second decides; if neither axis has the first sign and the second does not differ, the
    third decides.

    Raises:
        ValueError: the signs leave the order open, the last of three or four axes may count the examples, or there are
            more than four axes.
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
    second, last = signs(shape[1], shape[2:]), signs(shape[3], shape[1:3])
    typical, equal, small = zip(second, last, strict=True)  # each sign for the second axis and for the last
    if typical[0] != typical[1]:
        other_sign = equal if equal[0] != equal[1] else small
        choice = typical[0] if other_sign != typical[::-1] else None  # whether the second axis holds the channels
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
    """Returns the three signs of :func:`by_sizes` for an axis of so many channels beside sides (height, width)."""
    return channels in TYPICAL, sides[0] == sides[1] != channels, 2 * channels <= min(sides)


def refuse(where: str, shape: tuple[int, ...], readings: dict[str, tuple[int, tuple[int, ...]]]) -> None:
    """Raises a ValueError that names the possible orders of the axes.

    Arguments:
        where: the start of the error.
        shape: the shape of the array.
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
