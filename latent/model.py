"""The interface of latent-variable models: a prior of codes z, and draws of data x given codes."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scoresde.samplers import Sampler
from scoresde.sde_lib import BlockNoise

from .prior import Prior


class LatentModel(nn.Module, ABC):
    """A model of data x (B, *shape) in model units through codes z (B, latent).

    Attributes:
        shape: of one example.
        latent: the number of values of a code.
        prior: the distribution of codes.
    """

    shape: tuple[int, ...]
    latent: int
    prior: Prior

    @abstractmethod
    def generate(self, z: Tensor, u: Tensor) -> Tensor:
        """Returns one sample x of p(x|z) in model units for each code z (B, latent), (B, *shape).

        Arguments:
            u: uniform numbers in [0, 1), (B, *shape), from which x is drawn; a deterministic model ignores them.
        """

    @torch.no_grad()
    def draw_codes(
        self, sampler: Sampler, seed: int, first: int, count: int, on_step: Callable[[float], None] | None = None
    ) -> Tensor:
        """Draws the codes numbered first ... first + count - 1 of a seed from the prior, (count, latent).

        A code depends on the seed and on its own number, not on the batch.

        Arguments:
            sampler: solves the reverse SDE of a score prior; other priors ignore it.
            on_step: called by the sampler with the share of its steps that is done.
        """
        like = next(self.parameters())
        start, noise = (
            BlockNoise(seed, first, count, (self.latent,), like.dtype, like.device, stream)
            for stream in ("prior", "sampler")
        )
        return self.prior.draw(sampler, start, noise, on_step)

    @torch.no_grad()
    def draw(
        self, sampler: Sampler, seed: int, first: int, count: int, on_step: Callable[[float], None] | None = None
    ) -> Tensor:
        """Draws samples in model units, (count, *shape), one from each code of :meth:`draw_codes`."""
        return self.draw_from(self.draw_codes(sampler, seed, first, count, on_step), seed, first)

    @torch.no_grad()
    def draw_from(self, z: Tensor, seed: int, first: int) -> Tensor:
        """Draws samples of p(x|z) in model units, (B, *shape), for codes z (B, latent) numbered from ``first`` on; the
        seed and its number decide the noise of a sample.
        """
        u = BlockNoise(seed, first, len(z), self.shape, z.dtype, z.device, "observation").uniform()
        return self.generate(z, u)

    def start_from(self, other: nn.Module) -> None:
        """Copies from ``other`` the weights of the parts (child modules) that both models have under one name, with
        equal names and sizes of their weights.

        A part of another class whose weights have other names or sizes keeps its own, such as the score prior of a VAE
        that starts from one with the prior N(0, I).

        Raises:
            ValueError: a part is of the same class and its weights have other names or sizes, when some parts may
                have been copied already; or no weights were copied.
        """
        mine, theirs = dict(self.named_children()), dict(other.named_children())
        common = 0
        for name in mine.keys() & theirs.keys():
            states = mine[name].state_dict(), theirs[name].state_dict()
            shapes = [{key: tensor.shape for key, tensor in state.items()} for state in states]
            if shapes[0] == shapes[1]:
                mine[name].load_state_dict(states[1])
                common += len(states[1])
            elif type(mine[name]) is type(theirs[name]):
                raise ValueError(
                    f"its {name} is not of the same sizes as that of the model that it starts from; give both the same "
                    f"latent, networks and observation"
                )
        if not common:
            raise ValueError(
                f"a {type(self).__name__} and a {type(other).__name__} have no weights in common; type start=null"
            )


def check_latent(latent: int) -> None:
    """Raises a ValueError if codes have no values."""
    if latent < 1:
        raise ValueError(f"`latent`={latent} must be at least 1; type `latent`=8")
