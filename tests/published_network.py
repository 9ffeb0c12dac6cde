"""The published network once more, as arithmetic on its weights by their published names, written from the description
in arXiv 2011.13456, appendix H, and of the file's layout; the filters by scipy. No module of ours is used.
"""

import math

import numpy as np
import torch
from scipy.signal import upfirdn
from torch.nn import functional as F


def group_norm(x, w, name):
    return F.group_norm(x, min(x.shape[1] // 4, 32), w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)


def nin(x, w, name):
    return torch.einsum("bihw,io->bohw", x, w[f"{name}.W"]) + w[f"{name}.b"][:, None, None]


def along(x, axis, taps, up, down, before, length):
    """upfirdn along one axis: output i is sample i * down + before of the zero-filled and filtered signal."""
    y = upfirdn(taps, x.numpy(), up=up, axis=axis)
    y = np.concatenate([y, np.zeros_like(y)], axis)
    return torch.from_numpy(np.take(y, before + down * np.arange(length), axis))


def fir_down(x, k):
    taps = np.array(k, dtype=np.float64) / sum(k)
    for axis in (2, 3):
        # padded by (m - 1) // 2: the first output is centred on the first two pixels
        x = along(x, axis, taps, 1, 2, len(k) - 1 - (len(k) - 1) // 2, x.shape[axis] // 2)
    return x


def fir_up(x, k):
    taps = 2 * np.array(k, dtype=np.float64) / sum(k)
    for axis in (2, 3):
        x = along(x, axis, taps, 2, 1, len(k) - 2 - (len(k) - 1) // 2, 2 * x.shape[axis])
    return x


def down(x, k):
    return F.avg_pool2d(x, 2) if k is None else fir_down(x, k)


def up(x, k):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if k is None else fir_up(x, k)


def conv(x, w, name, **keys):
    return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **keys)


def attention(x, w, name, half):
    b, c, height, width = x.shape
    h = group_norm(x, w, f"{name}.GroupNorm_0")
    q, k, v = (nin(h, w, f"{name}.NIN_{i}").flatten(2) for i in range(3))
    weights = torch.softmax(torch.einsum("bcp,bcq->bpq", q, k) / math.sqrt(c), dim=2)
    h = nin(torch.einsum("bpq,bcq->bcp", weights, v).reshape(b, c, height, width), w, f"{name}.NIN_3")
    return (x + h) * half


def residual(x, w, name, temb, half, resample=lambda x: x):
    h = resample(F.silu(group_norm(x, w, f"{name}.GroupNorm_0")))
    x = resample(x)
    h = conv(h, w, f"{name}.Conv_0", padding=1)
    h = h + (F.silu(temb) @ w[f"{name}.Dense_0.weight"].T + w[f"{name}.Dense_0.bias"])[:, :, None, None]
    h = conv(F.silu(group_norm(h, w, f"{name}.GroupNorm_1")), w, f"{name}.Conv_1", padding=1)
    if f"{name}.Conv_2.weight" in w:
        x = conv(x, w, f"{name}.Conv_2")
    elif f"{name}.NIN_0.W" in w:
        x = nin(x, w, f"{name}.NIN_0")
    return (x + h) * half


def network(w, x, told, *, nf, levels, blocks, attends, biggan, k, rescale, progressive, pyramid, cat, fourier):
    """The output before it is divided by sigma; x in [-1, 1], told sigma (fourier) or a step number."""
    half, index = math.sqrt(0.5) if rescale else 1.0, iter(f"all_modules.{i}" for i in range(1000))
    if fourier:
        angle = 2 * math.pi * told.log()[:, None] * w[f"{next(index)}.W"]
    else:
        frequencies = torch.tensor([1e4 ** (-i / (nf // 2 - 1)) for i in range(nf // 2)])  # float32, as published
        angle = told[:, None] * frequencies.to(x.dtype)
    temb = torch.cat([angle.sin(), angle.cos()], 1)
    first, second = next(index), next(index)
    temb = temb @ w[f"{first}.weight"].T + w[f"{first}.bias"]
    temb = F.silu(temb) @ w[f"{second}.weight"].T + w[f"{second}.bias"]

    def shrink(h):  # between ddpm blocks
        name = next(index)
        if k is None:
            return conv(F.pad(h, (0, 1, 0, 1)), w, f"{name}.Conv_0", stride=2)
        return filtered_conv(h, name)

    def filtered_conv(h, name):
        taps, m = np.array(k, dtype=np.float64) / sum(k), len(k)
        for axis in (2, 3):  # padded by m/2 on both sides
            h = along(h, axis, taps, 1, 1, m - 1 - (m + 1) // 2, h.shape[axis] + 1)
        return conv(h, w, f"{name}.Conv2d_0", stride=2)

    def grow(h, name):
        if k is None:
            return conv(up(h, None), w, f"{name}.Conv_0", padding=1)
        zeros = torch.zeros(*h.shape[:2], 2 * h.shape[2], 2 * h.shape[3], dtype=h.dtype)
        zeros[:, :, ::2, ::2] = h
        # every place that the 3 x 3 weights can see, then the filter
        h = F.conv2d(F.pad(zeros, (2, 1, 2, 1)), w[f"{name}.Conv2d_0.weight"])
        taps, m = 2 * np.array(k, dtype=np.float64) / sum(k), len(k)
        for axis in (2, 3):
            size = h.shape[axis] - 1
            h = along(h, axis, taps, 1, 1, m - 1 - ((m - 3) // 2 + 1), size)
        return h + w[f"{name}.Conv2d_0.bias"][:, None, None]

    image, hs = x, [conv(x, w, next(index), padding=1)]
    for level in range(levels):
        for _ in range(blocks):
            h = residual(hs[-1], w, next(index), temb, half)
            hs.append(attention(h, w, next(index), half) if attends[level] else h)
        if level < levels - 1:
            h = residual(hs[-1], w, next(index), temb, half, lambda h: down(h, k)) if biggan else shrink(hs[-1])
            if pyramid == "input_skip":
                image = down(image, k)
                joined = conv(image, w, f"{next(index)}.Conv_0")
                h = torch.cat([joined, h], 1) if cat else joined + h
            elif pyramid == "residual":
                name = next(index)
                image = (
                    filtered_conv(image, name) if k else conv(F.pad(image, (0, 1, 0, 1)), w, f"{name}.Conv_0", stride=2)
                )
                image = h = (image + h) * half
            hs.append(h)
    h = residual(hs[-1], w, next(index), temb, half)
    h = attention(h, w, next(index), half)
    h = residual(h, w, next(index), temb, half)
    image = None
    for level in reversed(range(levels)):
        for _ in range(blocks + 1):
            h = residual(torch.cat([h, hs.pop()], 1), w, next(index), temb, half)
        if attends[level]:
            h = attention(h, w, next(index), half)
        if progressive == "output_skip" or progressive == "residual" and level == levels - 1:
            adds = conv(F.silu(group_norm(h, w, next(index))), w, next(index), padding=1)
            image = adds if image is None else up(image, k) + adds
        elif progressive == "residual":
            image = h = (grow(image, next(index)) + h) * half
        if level:
            h = residual(h, w, next(index), temb, half, lambda h: up(h, k)) if biggan else grow(h, next(index))
    if progressive == "output_skip":
        return image
    return conv(F.silu(group_norm(h, w, next(index))), w, next(index), padding=1)
