"""The speed of training: images per second, and the share of the machine's peak rate of convolutions.

    pip install -e '.[peers]'
    python -m benchmarks.throughput                    28 x 28 greys and 32 x 32 colours, ten minutes on two threads
    python -m benchmarks.throughput --sides 28 --only ours
    python -m benchmarks.throughput --device cuda --precision bf16 --batch 256

Each contestant is a network of about a million parameters; an update is the forward pass on a batch, the mean square of
the difference to a target, the backward pass, and Adam. They take turns in one process, and the machine's own peak is
measured in every turn as well: a convolution 3 x 3 forward and backward, the best of several sizes and memory formats.
Numbers are medians over the turns. torch counts the operations of an update (each multiplication and each addition of
convolutions and matrix products). A library that is not installed is named and left out.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from scoresde.models import ADM, DiT, NCSNpp, UNet

Shape = tuple[int, int, int]


def ours(shape: Shape) -> dict[str, Callable[[], nn.Module]]:
    return {
        "ours: unet": lambda: UNet(shape, channels=(32, 64, 96), attention=(7, 8)),
        "ours: adm": lambda: ADM(shape, channels=(32, 64, 64), blocks=1, attention=(7, 8), head_channels=32),
        "ours: edm2": lambda: ADM(
            shape, channels=(32, 64, 64), blocks=1, attention=(7, 8), head_channels=32, magnitude_preserving=True
        ),
        "ours: ncsnpp, FIR": lambda: ncsnpp(shape, [1, 3, 3, 1]),
        "ours: ncsnpp, no FIR": lambda: ncsnpp(shape, None),
        "ours: ddpm": lambda: NCSNpp(
            shape, width=32, multipliers=(1, 2, 2), blocks=2, attention=(7, 8), dropout=0.0, embedding="positional",
            residual="ddpm", fir_kernel=None, skip_rescale=False, progressive_input="none", groups=32,
        ),
        "ours: dit": lambda: DiT(shape, width=128, depth=4, heads=4),
    }  # fmt: skip


def ncsnpp(shape: Shape, taps: list[float] | None) -> NCSNpp:
    return NCSNpp(
        shape, width=32, multipliers=(1, 2, 2), blocks=2, attention=(7, 8), dropout=0.0, fir_kernel=taps,
        progressive_input="none",
    )  # fmt: skip


class OfSteps(nn.Module):
    """A library's network, which takes a step number, as F(x, c)."""

    def __init__(self, net: nn.Module, call: Callable[[nn.Module, Tensor, Tensor], Tensor]):
        super().__init__()
        self.net, self.call = net, call

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.call(self.net, x, 250 * (c + 2.5))


def of_diffusers(shape: Shape) -> nn.Module:
    from diffusers import UNet2DModel

    net = UNet2DModel(
        sample_size=shape[1], in_channels=shape[0], out_channels=shape[0], block_out_channels=(32, 64, 64),
        layers_per_block=2, down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return OfSteps(net, lambda net, x, n: net(x, n).sample)


def of_azula(shape: Shape) -> nn.Module:
    from azula.nn.layers import SineEncoding
    from azula.nn.unet import UNet as AzulaUNet

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode = nn.Sequential(SineEncoding(64), nn.Linear(64, 64), nn.SiLU())
            keys = {"hid_channels": (32, 64, 96), "hid_blocks": (2, 2, 2), "mod_features": 64}
            self.net = AzulaUNet(shape[0], shape[0], **keys)

        def forward(self, x, n):
            return self.net(x, self.encode(n))

    return OfSteps(Net(), lambda net, x, n: net(x, n))


def of_lucidrains(shape: Shape) -> nn.Module:
    from denoising_diffusion_pytorch import Unet

    net = Unet(dim=32, dim_mults=(1, 2, 2), channels=shape[0], full_attn=(False, False, True), flash_attn=False)
    return OfSteps(net, lambda net, x, n: net(x, n))


PEERS = {
    "diffusers: UNet2DModel": ("diffusers", of_diffusers),
    "azula: UNet": ("azula", of_azula),
    "denoising-diffusion-pytorch: Unet": ("denoising_diffusion_pytorch", of_lucidrains),
}


class Contestant:
    """A network in training, which makes one update at a time."""

    def __init__(self, net: nn.Module, shape: Shape, options: argparse.Namespace):
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        self.device, self.options = torch.device(options.device), options
        self.net = net.to(self.device, memory_format=layout).train()
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=1e-4, fused=True)
        generator = torch.Generator().manual_seed(0)
        self.x, self.target = (
            torch.randn(options.batch, *shape, generator=generator).to(self.device, memory_format=layout)
            for _ in range(2)
        )
        self.c = torch.linspace(-1.5, 1, options.batch, device=self.device)
        with FlopCounterMode(display=False) as counter:
            self.update()
        self.operations = counter.get_total_flops() / options.batch
        self.forward = torch.compile(self.net) if options.compile else self.net
        self.seconds: list[float] = []

    def update(self) -> None:
        half = torch.autocast(self.device.type, torch.bfloat16) if self.options.precision == "bf16" else nullcontext()
        with half:
            out = getattr(self, "forward", self.net)(self.x, self.c)
        loss = functional.mse_loss(out.float(), self.target)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def turn(self) -> None:
        self.seconds.append(timed(self.update, self.options.updates, self.device) / self.options.updates)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.net.parameters())


def timed(work: Callable[[], None], times: int, device: torch.device) -> float:
    """Returns the seconds that a number of calls take."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


class Peak:
    """The machine's peak rate: operations per second of convolutions 3 x 3, forward and backward."""

    def __init__(self, options: argparse.Namespace):
        self.device, self.found = torch.device(options.device), {}
        dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        wide = (64, 128, 256) if self.device.type == "cuda" else (32, 64, 128)
        self.cases = [
            (
                torch.randn(options.batch, channels, 28, 28, device=self.device, dtype=dtype)
                .contiguous(memory_format=layout)
                .requires_grad_(),
                torch.randn(channels, channels, 3, 3, device=self.device, dtype=dtype, requires_grad=True),
            )
            for channels in wide
            for layout in (torch.contiguous_format, torch.channels_last)
        ]

    def turn(self) -> None:
        for i, (x, w) in enumerate(self.cases):

            def work(x=x, w=w) -> None:
                functional.conv2d(x, w, padding=1).backward(torch.ones_like(x))
                x.grad = w.grad = None

            work()
            operations = 3 * 2 * x.numel() * w.shape[1] * 9 * 4
            self.found.setdefault(i, []).append(operations / timed(work, 4, self.device))

    @property
    def rate(self) -> float:
        return max(median(each) for each in self.found.values())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[28, 32])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--updates", type=int, default=2, help="updates a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], help="parts of contestants' names")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    for side in options.sides:
        race((1 if side == 28 else 3, side, side), options)


def race(shape: Shape, options: argparse.Namespace) -> None:
    makers = ours(shape)
    for name, (package, make) in PEERS.items():
        if importlib.util.find_spec(package) is None:
            print(f"({package} is not installed and left out)")
        else:
            makers[name] = lambda make=make: make(shape)
    running: dict[str, Contestant] = {}
    for name, make in makers.items():
        if options.only and not any(part in name for part in options.only):
            continue
        torch.manual_seed(0)
        try:
            running[name] = Contestant(make(), shape, options)
        except (ImportError, RuntimeError) as error:  # a library that is installed and does not work here
            print(f"({name} is left out: {str(error).splitlines()[0]})")
    peak = Peak(options)
    for each in running.values():
        each.update()
    for _ in range(options.rounds):
        peak.turn()
        for each in running.values():
            each.turn()
    print(
        f"\n{shape[0]} x {shape[1]} x {shape[2]}, batch {options.batch}, {options.device} {options.precision}, "
        f"{options.threads} threads, medians of {options.rounds} turns; "
        f"peak of convolutions {peak.rate / 1e9:.0f} GFLOP/s\n"
    )
    print("| network | parameters | GFLOP an image | images / s | of the peak |\n|---|---|---|---|---|")
    rows = sorted(running.items(), key=lambda row: -row[1].operations / median(row[1].seconds))
    for name, each in rows:
        rate = options.batch / median(each.seconds)
        share = rate * each.operations / peak.rate
        size, work = f"{each.parameters / 1e6:.2f} M", f"{each.operations / 1e9:.2f}"
        print(f"| {name} | {size} | {work} | {rate:.1f} | {share:.2f} |")


if __name__ == "__main__":
    main()
