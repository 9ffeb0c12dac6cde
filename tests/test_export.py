"""Tests of networks that are written for score_sde and diffusers and read again, and of diffusers' own class."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from scoresde.cli import run
from scoresde.models import Clock, DiffusersUNet, NCSNpp, unet2d
from scoresde.models.layout import put, take
from scoresde.tasks import Export
from scoresde.training import diffusers_folder, published

from .conftest import SDES, compose, make_sde
from .test_ncsnpp import randomised

TINY = ["model.width=8", "model.multipliers=[1,1]", "model.blocks=1", "model.attention=[4]"]
SHORT = ["training.steps=3", "training.batch=8", "training.evaluate=0", "training.warmup=0", "data.test_count=20"]


def job(folder: Path, *words: str, place: str = "out"):
    choices = dict.fromkeys(("task", "data", "sde", "sampler", "model"), "x")
    run(compose(*words, f"store={folder / 'store'}"), choices, folder / place)
    return folder / place


@pytest.mark.parametrize("preset", ["ve_steps", "vp_steps", "subvp_continuous"])
def test_a_trained_network_goes_out_and_comes_back(tmp_path, preset):
    """A trained network that is written and read as a published file draws the same samples."""
    words = [f"experiment=score_sde/{preset}", "data=digits", *TINY, *SHORT, "dtype=float64"]
    words += ["training.dequantise=uniform", "training.rate=0.05"]
    draw = ["task=sample", "count=2", "sampler=ddim", "sampler.steps=2"]
    if preset == "ve_steps":
        words.append("model.clock.sde.sigma_max=100")
    job(tmp_path, *words, "task=export")
    file = tmp_path / "out" / "score_sde.pth"
    assert published.load(file)["step"] == 3
    first = np.load(job(tmp_path, *words, *draw, place="first") / "samples.npz")["x"]
    again = np.load(job(tmp_path, *words, *draw, f"checkpoint={file}", place="again") / "samples.npz")["x"]
    np.testing.assert_array_equal(first, again)


def ddpm(**keys) -> tuple[NCSNpp, dict]:
    """Returns Ho's network, which takes the step number n - 1 of level n as in diffusers."""
    clock = Clock(make_sde("chain"), 1.0, -1.0)
    keys = {"multipliers": (1, 1), "blocks": 1, "attention": (8,), "attention_up": "all"} | keys
    net = NCSNpp(
        (1, 12, 16), width=128, embedding="positional", clock=clock, residual="ddpm", fir_kernel=None,
        skip_rescale=False, progressive_input="none", **keys,
    )  # fmt: skip
    return randomised(net).float()


def ncsnpp() -> NCSNpp:
    net = NCSNpp((3, 16, 16), width=128, multipliers=(1, 1), blocks=2, attention=(8,), progressive="output_skip",
                 progressive_input="input_skip")  # fmt: skip
    return randomised(net).float()


def written(net, folder: Path) -> Path:
    diffusers_folder.write(folder, unet2d.config(net), take(net, unet2d.layout(net)))
    return folder


def read(net, folder: Path):
    return diffusers_folder.read(folder, unet2d.config(net), unet2d.layout(net), unet2d.present)


@pytest.mark.parametrize("heads", [1, 4])
def test_diffusers_computes_what_ddpms_network_does(tmp_path, heads):
    net, chain = ddpm(heads=heads), make_sde("chain")
    theirs = UNet2DModel.from_pretrained(written(net, tmp_path / "net")).eval()
    n = torch.tensor([1, 40, 1000], dtype=torch.float64)
    c, x = ((chain.sigma(n) / chain.alpha(n)).log() / 4).float(), torch.randn(3, 1, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(net(x, c), theirs(x, n.long() - 1).sample, rtol=1e-4, atol=1e-5)


def test_diffusers_computes_what_ncsnpp_does(tmp_path):
    """The UNet2DModel takes images in [0, 1] and divides its output by sigma."""
    net = ncsnpp()
    theirs = UNet2DModel.from_pretrained(written(net, tmp_path / "net")).eval()
    sigma, x = torch.tensor([0.02, 0.3, 40.0]), torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        expected = theirs(x, sigma).sample * sigma[:, None, None, None]
        torch.testing.assert_close(net(2 * x - 1, (2 * sigma).log() / 4), expected, rtol=1e-4, atol=1e-5)


def narrow(kind: str, width: int, **keys) -> NCSNpp:
    """Returns a network of either kind with fewer than 128 channels."""
    own = {"multipliers": (1, 2), "blocks": 1} | keys
    if kind == "ncsnpp":
        own |= {"progressive": "output_skip", "progressive_input": "input_skip"}
        return NCSNpp((3, 16, 16), width, **own)
    own |= {"residual": "ddpm", "fir_kernel": None, "skip_rescale": False, "progressive_input": "none"}
    clock = Clock(make_sde("chain"), 1.0, -1.0)
    return NCSNpp((3, 16, 16), width, **own, embedding="positional", clock=clock, attention_up="all")


NARROW = [
    ("ddpm", 32, {"groups": 32, "attention": (8,)}, 32),
    ("ddpm", 96, {"groups": 32, "attention": (16, 8), "multipliers": (1, 1)}, 32),
    ("ddpm", 32, {"groups": 8, "attention": (8,)}, 8),
    ("ddpm", 24, {"groups": 1, "attention": ()}, 1),
    ("ncsnpp", 8, {"attention": ()}, None),
    ("ncsnpp", 32, {"attention": (), "data_range": 1.0}, None),
    ("ncsnpp", 32, {"attention": (8,), "multipliers": (1, 4)}, None),
    ("ncsnpp", 96, {"attention": (4,), "multipliers": (1, 1, 2)}, None),
]


@pytest.mark.parametrize("kind, width, keys, groups", NARROW)
def test_narrow_networks_are_those_of_diffusers(tmp_path, kind, width, keys, groups):
    """Our weights in a UNet2DModel, and a UNet2DModel's weights here, compute the same functions in float64, up to the
    embedding of the step, which diffusers computes in float32.
    """
    net, chain = randomised(narrow(kind, width, **keys)), make_sde("chain")
    folder, exact = written(net.float(), tmp_path / "ours"), 1e-9 if kind == "ncsnpp" else 3e-5
    assert json.loads((folder / "config.json").read_text())["norm_num_groups"] == groups
    theirs = UNet2DModel.from_pretrained(folder).double().eval()
    x, n = torch.rand(2, 3, 16, 16, dtype=torch.float64), torch.tensor([3, 900])
    level = torch.tensor([0.03, 5.0], dtype=torch.float64)

    def both(net: NCSNpp, theirs: UNet2DModel) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            if kind == "ddpm":
                t = (n + 1).double()
                return net(x, (chain.sigma(t) / chain.alpha(t)).log() / 4), theirs(x, n).sample
            given = 2 * x - 1 if net.data_range == 2 else x
            return net(given, (net.data_range * level).log() / 4), theirs(x, level).sample * level[:, None, None, None]

    torch.testing.assert_close(*both(net.double(), theirs), rtol=exact, atol=exact)
    other = randomised(UNet2DModel.from_config(theirs.config), 5).float()
    other.save_pretrained(tmp_path / "theirs")
    put(net, unet2d.layout(net), {k: v.double() for k, v in read(net, tmp_path / "theirs").items()})
    torch.testing.assert_close(*both(net, other.double()), rtol=exact, atol=exact)


@pytest.mark.parametrize(
    "kind, keys, says",
    [
        ("ncsnpp", {"attention": (8,)}, "32 groups of channels in the attention of its levels, but this network min"),
        ("ncsnpp", {"attention": (), "groups": 8}, r"min\(C/4, 32\) groups of C channels, but this network 8 of 64"),
        ("ddpm", {}, r"one number of groups everywhere, but this network has \[8, 16, 24, 32\]: type model.groups=32"),
        ("ncsnpp", {"attention": (), "data_range": 4.0}, r"model.data_range=4.0: a UNet2DModel has images in \[0, 1\]"),
        (
            "ncsnpp",
            {"attention": (), "multipliers": (1,) * 6},
            "halves images of 16 x 16 pixels 5 times, which must di",
        ),
    ],
)
def test_narrow_networks_that_diffusers_does_not_have(kind, keys, says):
    with pytest.raises(ValueError, match=says):
        unet2d.config(narrow(kind, 32, **keys))


@pytest.mark.parametrize("groups, wide, same", [(None, True, True), (16, True, False), (32, False, False)])
def test_null_groups_are_32_of_wide_networks(tmp_path, groups, wide, same):
    """null stands for min(C/4, 32) groups of C channels, as in the published NCSN++ on the Hub."""
    net = ncsnpp() if wide else narrow("ncsnpp", 32, attention=()).float()
    config = written(net, tmp_path) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"norm_num_groups": groups}))
    if same:
        read(net, tmp_path)
    else:
        with pytest.raises(ValueError, match=f"norm_num_groups: {groups} there, {32 if wide else None} in this run"):
            read(net, tmp_path)


@pytest.mark.parametrize("make", [ddpm, ncsnpp])
def test_a_folder_comes_back(tmp_path, make):
    net, twin = make(), make()
    for parameter in twin.parameters():
        parameter.data.zero_()
    put(twin, unet2d.layout(twin), read(twin, written(net, tmp_path)))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_folders_of_the_hub_are_read(tmp_path):
    """They have older names of attention, weights in a pickle, missing keys for defaults, or belong to a pipeline."""
    net, older = ddpm(), {new: old for old, new in unet2d.OLDER.items()}
    folder = written(net, tmp_path / "pipeline" / "unet")

    def old(name):
        head, _, tail = name.partition(".to_")
        found = next((k for k in older if f"to_{tail}".startswith(f"{k}.")), None)
        return name if not tail else f"{head}.{older[found]}.{tail.rpartition('.')[2]}"

    weights = {old(name): tensor for name, tensor in load_file(folder / "diffusion_pytorch_model.safetensors").items()}
    assert any("proj_attn" in name for name in weights) and not any("to_" in name for name in weights)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text())
    del config["add_attention"], config["norm_num_groups"], config["center_input_sample"]
    (folder / "config.json").write_text(json.dumps(config))
    found = diffusers_folder.folder_of(tmp_path / "pipeline")
    assert found == folder
    tensors = read(net, found)
    for name, tensor in take(net, unet2d.layout(net)).items():
        assert torch.equal(tensors[name], tensor), name


def spoil(folder: Path, how: str) -> None:
    config, weights = folder / "config.json", folder / "diffusion_pytorch_model.safetensors"
    values, tensors = json.loads(config.read_text()), load_file(weights)
    if how == "kind":
        values["_class_name"] = "UNet2DConditionModel"
    elif how == "config":
        values["flip_sin_to_cos"] = True
    elif how == "missing":
        del tensors["conv_out.bias"]
    elif how == "shape":
        tensors["conv_out.bias"] = torch.zeros(2)
    save_file(tensors, weights)
    config.write_text(json.dumps(values))
    if how == "nan":
        tensors["conv_out.bias"].fill_(torch.nan)
        save_file(tensors, weights)
    elif how == "json":
        config.write_text("{")
    elif how == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "gone":
        weights.unlink()
    elif how == "words":
        config.write_text("[]")
    elif how in ("pickled", "numbered"):
        weights.unlink()
        odd = {"conv_in.weight": "x"} if how == "pickled" else {5: torch.ones(2)}
        torch.save(odd, folder / "diffusion_pytorch_model.bin")


@pytest.mark.parametrize(
    "how, says",
    [
        ("kind", "is a UNet2DConditionModel of diffusers; only UNet2DModel can be read"),
        ("config", "another architecture than this run's network:\n  flip_sin_to_cos: True there, False in this run"),
        ("missing", "is of another architecture: it has .* the first that differ are"),
        ("shape", r"conv_out.bias \[2\] in the file and conv_out.bias \[1\] here"),
        ("json", "its config.json is not valid JSON"),
        ("cut", "is damaged"),
        ("gone", "holds no weights, neither diffusion_pytorch_model.safetensors nor"),
        ("words", "its config.json is not an object with keys"),
        ("pickled", "conv_in.weight is a str and no tensor"),
        ("numbered", "is of another architecture: it has .* the first that differ are 5"),
        ("nan", "conv_out.bias is not finite"),
    ],
)
def test_spoilt_folders(tmp_path, how, says):
    net = ddpm()
    spoil(written(net, tmp_path), how)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        read(net, tmp_path)


@pytest.mark.parametrize(
    "keys, says",
    [
        ({"attention_up": "last"}, "this network is no UNet2DModel: those are model=ddpm model.attention_up=all"),
        ({"embedding": "smooth", "clock": None}, "type model.embedding=fourier for model=ncsnpp, positional for"),
        ({"width": 32}, r"one number of groups everywhere, but this network has \[8, 16\]: type model.groups=32"),
        ({"multipliers": (1, 2), "heads": 2, "attention": (16, 8)}, "several heads has the same channels"),
        ({"condition": 3}, "this network is no UNet2DModel"),
        ({"resample_with_conv": False}, "no UNet2DModel: type model.resample_with_conv=true for model=ddpm"),
        (
            {
                "residual": "biggan", "fir_kernel": (1, 3, 3, 1), "skip_rescale": True, "attention_up": "last",
                "embedding": "fourier", "progressive": "output_skip", "progressive_input": "input_skip",
                "combine": "cat",
            },
            "model.combine=sum for model=ncsnpp",
        ),
    ],
)  # fmt: skip
def test_what_diffusers_does_not_know(keys, says):
    common = {"width": 128, "multipliers": (1, 1), "blocks": 1, "attention": (8,), "attention_up": "all"}
    common |= {"embedding": "positional", "residual": "ddpm", "fir_kernel": None, "skip_rescale": False}
    with pytest.raises(ValueError, match=says):
        unet2d.config(NCSNpp((1, 16, 16), **common | {"progressive_input": "none"} | keys))


@pytest.mark.parametrize(
    "words, says",
    [
        (["model=oracle", "data=mixture", "data.count=10"], "task=export writes a network, and this score is none"),
        (["data=moons", "data.count=50", "model.width=8"], "model=MLP has no published layout"),
        (["model=ncsnpp", "parameterisation=edm", *TINY], "of other codes takes data plus noise, unscaled"),
        (["model=ddpmpp", "parameterisation=noise", "sde=vp", *TINY], "count the step numbers of a network along its"),
        (
            ["model=ddpm", *TINY],
            "model.groups=32 must divide model.width=8: .* Type model.width=32, or model.groups=null",
        ),
        (["experiment=score_sde/vp_continuous", "data=digits", "task.format=diffusers", *TINY], "is no UNet2DModel"),
    ],
)
def test_what_cannot_be_written(tmp_path, words, says):
    short = [] if "model=oracle" in words else ["training.steps=1", "training.batch=4", "training.evaluate=0"]
    with pytest.raises(ValueError, match=says):
        job(tmp_path, *words, "task=export", *short)
    assert not (tmp_path / "store").exists()  # refused before anything is trained


@pytest.mark.parametrize("keys, says", [({"step": -5}, "`step`=-5"), ({"ema": 7.0}, "`ema`=7.0")])
def test_what_no_training_has_is_not_noted(keys, says):
    with pytest.raises(ValueError, match=f"{says} must"):
        Export(**keys)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not be written"):
        diffusers_folder.write(tmp_path / "file" / "net", {}, {"a": torch.zeros(1)})
    with pytest.raises(OSError, match="could not be written"):
        published.write(tmp_path / "file" / "x.pth", {}, [], torch.zeros(1), 0, 0.9)


# --- diffusers' class as a network ------------------------------------------------------------------------------------


def small(**keys) -> DiffusersUNet:
    keys = {"shape": (2, 7, 10), "block_out_channels": (8, 8), "norm_num_groups": 4} | keys
    two = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    return DiffusersUNet(**two | keys)


@pytest.mark.parametrize("name", SDES)
def test_diffusers_is_told_the_step(name):
    """For images that need no padding it is the UNet2DModel at the clock's step number."""
    sde = make_sde(name)
    net = randomised(small(shape=(2, 8, 6), clock=Clock(sde, 10.0, 3.0)))
    t = torch.linspace(sde.eps, sde.T, 3, dtype=torch.float64)
    x, c = torch.randn(3, 2, 8, 6, dtype=torch.float64), (sde.sigma(t) / sde.alpha(t)).log() / 4
    with torch.no_grad():
        torch.testing.assert_close(net(x, c), net.unet(x, 3 + 10 * t).sample, rtol=1e-3, atol=1e-4)


def test_diffusers_takes_any_size_and_y():
    net = randomised(small(condition=3))
    x, c = torch.randn(2, 2, 7, 10, dtype=torch.float64, requires_grad=True), torch.zeros(2, dtype=torch.float64)
    one, two = (net(x, c, torch.eye(3, dtype=torch.float64)[i : i + 1]) for i in (0, 1))
    assert one.shape == x.shape and not torch.allclose(one, two)
    (gradient,) = torch.autograd.grad(one[0, 0, -1, -1], x)
    assert bool((gradient[0, :, -1, -1] != 0).all()) and not gradient[1].any()


@pytest.mark.parametrize("key, value", [
    ("act_fn", "gelu"), ("center_input_sample", True), ("attn_norm_num_groups", 4), ("add_attention", False),
    ("resnet_time_scale_shift", "scale_shift"), ("mid_block_scale_factor", 2), ("downsample_type", "resnet"),
])  # fmt: skip
@pytest.mark.parametrize("own", [True, False])
def test_what_a_folder_says_beyond_our_keys_is_compared(tmp_path, key, value, own):
    """Weights of the same shapes compute another function with another key."""
    kinds = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    net = ddpm() if own else DiffusersUNet((1, 8, 8), (8,), norm_num_groups=4, **kinds)
    config = written(net, tmp_path) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=f"another architecture than this run's network:\n  {key}: {value} there"):
        read(net, tmp_path)


def test_diffusers_trains_and_its_folder_is_read(tmp_path):
    words = ["data=digits", "model=diffusers", "model.block_out_channels=[8,8]", "model.norm_num_groups=4", *SHORT]
    words += ["model.down_block_types=[DownBlock2D,AttnDownBlock2D]", "model.up_block_types=[AttnUpBlock2D,UpBlock2D]"]
    words += ["sde=chain", "parameterisation=noise", "model.attention_head_dim=4", "sde.T=50", "training.rate=0.05"]
    words += [
        "+model.clock._target_=models.Clock",
        "+model.clock.sde._target_=sde_lib.VP",
        "count=2",
        "sampler.steps=2",
    ]
    job(tmp_path, *words, "task=export", "task.format=diffusers")
    folder = tmp_path / "out" / "diffusers"
    assert UNet2DModel.from_pretrained(folder).config.block_out_channels == [8, 8]
    first = np.load(job(tmp_path, *words, "sampler=ddim", place="first") / "samples.npz")["x"]
    again = job(tmp_path, *words, "sampler=ddim", f"checkpoint={folder}", place="again") / "samples.npz"
    np.testing.assert_array_equal(first, np.load(again)["x"])
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "keys, says",
    [
        ({"shape": (2,)}, "model=diffusers takes images"),
        ({"block_out_channels": (8,)}, "must have the same length, one value for each level"),
        ({"norm_num_groups": 3}, "`norm_num_groups`=3 must divide .*; type `norm_num_groups`=8"),
        ({"block_out_channels": (48, 96), "norm_num_groups": 32}, "must divide .*; type `norm_num_groups`=24"),
        ({"down_block_types": ("Typo", "DownBlock2D")}, "diffusers refuses these keys"),
    ],
)
def test_mistakes_of_diffusers(keys, says):
    with pytest.raises(ValueError, match=says):
        small(**keys)
