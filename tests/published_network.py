"""The published networks once more, as arithmetic on weights by their published names. No module of ours is used.

Written from arXiv 2011.13456, appendix H, and from what the published code computes: which modules stand in its list,
in which order and shape (:func:`shapes`), and what it does with them (:func:`network`), for every key of
``config.model`` and ``config.data`` that both of its classes, ``ncsnpp`` and ``ddpm``, read. The filters are scipy's.
"""

import math

import numpy as np
import torch
from scipy.signal import upfirdn
from torch.nn import functional as F

DDPM = {
    "name": "ddpm", "nf": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [4], "resamp_with_conv": True,
    "conditional": True, "scale_by_sigma": False, "centered": True, "image_size": 8, "num_channels": 3,
    "sigma_min": 0.01, "sigma_max": 50.0, "num_scales": 1000,
}  # fmt: skip
NCSNPP = DDPM | {
    "name": "ncsnpp", "nf": 8, "resblock_type": "biggan", "fir": True, "fir_kernel": [1, 3, 3, 1], "skip_rescale": True,
    "progressive": "none", "progressive_input": "residual", "progressive_combine": "sum", "embedding_type": "fourier",
    "scale_by_sigma": True, "centered": False,
}  # fmt: skip
UNUSED = {  # what the class ddpm does without being asked
    "resblock_type": "ddpm", "fir": False, "skip_rescale": False, "progressive": "none", "progressive_input": "none",
    "progressive_combine": "sum", "embedding_type": "positional",
}  # fmt: skip


def sigmas(config):
    """The table of noise levels, from the largest down."""
    ends = np.log([config["sigma_max"], config["sigma_min"]])
    return torch.exp(torch.linspace(*ends, config["num_scales"], dtype=torch.float64))


def shapes(config):
    """The names and shapes of the trained tensors and of the frozen frequencies, in their order."""
    c = UNUSED | config
    nf, ends = c["nf"], c["ch_mult"]
    sides = [c["image_size"] // 2**i for i in range(len(ends))]
    modules = []

    def conv(name, inside, outside, side=3):
        return {f"{name}weight": (outside, inside, side, side), f"{name}bias": (outside,)}

    def norm(name, size):
        return {f"{name}weight": (size,), f"{name}bias": (size,)}

    def nin(name, inside, outside):
        return {f"{name}W": (inside, outside), f"{name}b": (outside,)}

    def dense(name, inside, outside):
        return {f"{name}weight": (outside, inside), f"{name}bias": (outside,)}

    def block(inside, outside, resampled=False):
        found = norm("GroupNorm_0.", inside) | conv("Conv_0.", inside, outside) | dense("Dense_0.", 4 * nf, outside)
        found |= norm("GroupNorm_1.", outside) | conv("Conv_1.", outside, outside)
        if c["resblock_type"] == "biggan" and (inside != outside or resampled):
            found |= conv("Conv_2.", inside, outside, 1)
        elif inside != outside:
            found |= nin("NIN_0.", inside, outside)
        modules.append(found)

    def attention(size):
        parts = [nin(f"NIN_{i}.", size, size) for i in range(4)]
        modules.append(norm("GroupNorm_0.", size) | parts[0] | parts[1] | parts[2] | parts[3])

    def resampled(inside, outside, learnt=True):
        modules.append(conv("Conv2d_0." if c["fir"] else "Conv_0.", inside, outside) if learnt else {})

    if c["embedding_type"] == "fourier":
        modules.append({"W": (nf,)})
    if c["conditional"]:
        modules.append(dense("", nf * (2 if c["embedding_type"] == "fourier" else 1), 4 * nf))
        modules.append(dense("", 4 * nf, 4 * nf))
    modules.append(conv("", c["num_channels"], nf))
    stack, now, image = [nf], nf, c["num_channels"]
    for level, times in enumerate(ends):
        for _ in range(c["num_res_blocks"]):
            block(now, nf * times)
            now = nf * times
            if sides[level] in c["attn_resolutions"]:
                attention(now)
            stack.append(now)
        if level < len(ends) - 1:
            if c["resblock_type"] == "ddpm":
                resampled(now, now, c["resamp_with_conv"])
            else:
                block(now, now, True)
            if c["progressive_input"] == "input_skip":
                modules.append(conv("Conv_0.", image, now, 1))
                now *= 2 if c["progressive_combine"] == "cat" else 1
            elif c["progressive_input"] == "residual":
                resampled(image, now)
                image = now
            stack.append(now)
    block(now, now)
    attention(now)
    block(now, now)
    image = 0
    for level in reversed(range(len(ends))):
        for _ in range(c["num_res_blocks"] + 1):
            block(now + stack.pop(), nf * ends[level])
            now = nf * ends[level]
        if sides[level] in c["attn_resolutions"]:
            attention(now)
        if c["progressive"] == "residual" and level < len(ends) - 1:
            resampled(image, now)
            image = now
        elif c["progressive"] != "none":
            image = c["num_channels"] if c["progressive"] == "output_skip" else now
            modules.append(norm("", now))
            modules.append(conv("", now, image))
        if level:
            if c["resblock_type"] == "ddpm":
                resampled(now, now, c["resamp_with_conv"])
            else:
                block(now, now, True)
    if c["progressive"] != "output_skip":
        modules.append(norm("", now))
        modules.append(conv("", now, c["num_channels"]))
    return [(f"all_modules.{i}.{name}", shape) for i, part in enumerate(modules) for name, shape in part.items()]


def weights(config, seed=0):
    """Random weights of a size that keeps outputs near 1, float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name, shape):
        fan = 1 if len(shape) == 1 else math.prod(shape) / (shape[1] if name.endswith("W") else shape[0])
        scale = 0.3 if len(shape) == 1 else fan**-0.5
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    return {name: draw(name, shape) for name, shape in shapes(config)}


def file(config, weights, step=1200001):
    """Returns what the published code saves; its average has no names and leaves the frozen frequencies out."""
    frozen = "all_modules.0.W"
    return {
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(2e-4), "betas": (0.9, 0.999), "params": [0, 1]}]},
        "model": {f"module.{name}": each for name, each in {"sigmas": sigmas(config), **weights}.items()},
        "ema": {
            "decay": 0.999,
            "num_updates": step,
            "shadow_params": [each for name, each in weights.items() if name != frozen],
        },
        "step": step,
    }


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


def network(config, w, x, labels):
    """The published output, of x in the published range, told sigma (fourier) or a step number."""
    c = UNUSED | config
    half, k = math.sqrt(0.5) if c["skip_rescale"] else 1.0, c["fir_kernel"] if c["fir"] else None
    biggan, learnt = c["resblock_type"] == "biggan", c["resamp_with_conv"]
    attends = [c["image_size"] // 2**i in c["attn_resolutions"] for i in range(len(c["ch_mult"]))]
    index = iter(f"all_modules.{i}" for i in range(1000))

    def group_norm(x, name):
        groups = 32 if c["name"] == "ddpm" else min(x.shape[1] // 4, 32)
        return F.group_norm(x, groups, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    def nin(x, name):
        return torch.einsum("bihw,io->bohw", x, w[f"{name}.W"]) + w[f"{name}.b"][:, None, None]

    def conv(x, name, **keys):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **keys)

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def attention(x, name):
        b, size, height, width = x.shape
        h = group_norm(x, f"{name}.GroupNorm_0")
        q, key, v = (nin(h, f"{name}.NIN_{i}").flatten(2) for i in range(3))
        shares = torch.softmax(torch.einsum("bcp,bcq->bpq", q, key) / math.sqrt(size), dim=2)
        h = nin(torch.einsum("bpq,bcq->bcp", shares, v).reshape(b, size, height, width), f"{name}.NIN_3")
        return (x + h) * half

    def residual(x, name, resample=lambda x: x):
        h = resample(F.silu(group_norm(x, f"{name}.GroupNorm_0")))
        x = resample(x)
        h = conv(h, f"{name}.Conv_0", padding=1)
        if temb is not None:
            h = h + dense(F.silu(temb), f"{name}.Dense_0")[:, :, None, None]
        h = conv(F.silu(group_norm(h, f"{name}.GroupNorm_1")), f"{name}.Conv_1", padding=1)
        if f"{name}.Conv_2.weight" in w:
            x = conv(x, f"{name}.Conv_2")
        elif f"{name}.NIN_0.W" in w:
            x = nin(x, f"{name}.NIN_0")
        return (x + h) * half

    def shrink(h, name, learnt=True):  # between ddpm blocks, and of the image
        if not learnt:
            return down(h, k)
        if k is None:
            return conv(F.pad(h, (0, 1, 0, 1)), f"{name}.Conv_0", stride=2)
        taps, m = np.array(k, dtype=np.float64) / sum(k), len(k)
        for axis in (2, 3):  # padded by m/2 on both sides
            h = along(h, axis, taps, 1, 1, m - 1 - (m + 1) // 2, h.shape[axis] + 1)
        return conv(h, f"{name}.Conv2d_0", stride=2)

    def grow(h, name, learnt=True):
        if not learnt:
            return up(h, k)
        if k is None:
            return conv(up(h, None), f"{name}.Conv_0", padding=1)
        zeros = torch.zeros(*h.shape[:2], 2 * h.shape[2], 2 * h.shape[3], dtype=h.dtype)
        zeros[:, :, ::2, ::2] = h
        # every place that the 3 x 3 weights can see, then the filter
        h = F.conv2d(F.pad(zeros, (2, 1, 2, 1)), w[f"{name}.Conv2d_0.weight"])
        taps, m = 2 * np.array(k, dtype=np.float64) / sum(k), len(k)
        for axis in (2, 3):
            size = h.shape[axis] - 1
            h = along(h, axis, taps, 1, 1, m - 1 - ((m - 3) // 2 + 1), size)
        return h + w[f"{name}.Conv2d_0.bias"][:, None, None]

    temb, fourier = None, c["embedding_type"] == "fourier"
    used = labels if fourier else sigmas(config)[labels.long()]
    if fourier:
        angle = 2 * math.pi * labels.log()[:, None] * w[f"{next(index)}.W"]
    else:
        pairs = c["nf"] // 2
        powers = [1e4 ** (-i / (pairs - 1)) for i in range(pairs)]
        frequencies = torch.tensor(powers, dtype=torch.float32)  # as published
        angle = labels[:, None] * frequencies.to(x.dtype)
    if c["conditional"]:
        temb = dense(torch.cat([angle.sin(), angle.cos()], 1), next(index))
        temb = dense(F.silu(temb), next(index))
    x = x if c["centered"] else 2 * x - 1

    image, hs = x, [conv(x, next(index), padding=1)]
    for level in range(len(attends)):
        for _ in range(c["num_res_blocks"]):
            h = residual(hs[-1], next(index))
            hs.append(attention(h, next(index)) if attends[level] else h)
        if level < len(attends) - 1:
            name = next(index)
            h = residual(hs[-1], name, lambda h: down(h, k)) if biggan else shrink(hs[-1], name, learnt)
            if c["progressive_input"] == "input_skip":
                image = down(image, k)
                joined = conv(image, f"{next(index)}.Conv_0")
                h = torch.cat([joined, h], 1) if c["progressive_combine"] == "cat" else joined + h
            elif c["progressive_input"] == "residual":
                image = h = (shrink(image, next(index)) + h) * half
            hs.append(h)
    h = residual(hs[-1], next(index))
    h = attention(h, next(index))
    h = residual(h, next(index))
    image = None
    for level in reversed(range(len(attends))):
        for _ in range(c["num_res_blocks"] + 1):
            h = residual(torch.cat([h, hs.pop()], 1), next(index))
        if attends[level]:
            h = attention(h, next(index))
        if c["progressive"] == "output_skip" or c["progressive"] == "residual" and level == len(attends) - 1:
            adds = conv(F.silu(group_norm(h, next(index))), next(index), padding=1)
            image = adds if image is None else up(image, k) + adds
        elif c["progressive"] == "residual":
            image = h = (grow(image, next(index)) + h) * half
        if level:
            name = next(index)
            h = residual(h, name, lambda h: up(h, k)) if biggan else grow(h, name, learnt)
    if c["progressive"] != "output_skip":
        image = conv(F.silu(group_norm(h, next(index))), next(index), padding=1)
    return image / used[:, None, None, None] if c["scale_by_sigma"] else image
