"""The interface of latent-variable models: a prior of codes, and a map from codes to data."""

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
        latent: the number of latents.
        prior: the law of codes.
    """

    shape: tuple[int, ...]
    latent: int
    prior: Prior

    @abstractmethod
    def generate(self, z: Tensor, u: Tensor) -> Tensor:
        """Returns samples x in model units from codes z and uniform numbers u in [0, 1) of x's shape."""

    @torch.no_grad()
    def codes(
        self, sampler: Sampler, seed: int, first: int, count: int, on_step: Callable[[float], None] | None = None
    ) -> Tensor:
        """Draws codes from the prior, (count, latent), those numbered first ... first + count - 1 of a seed.

        A code does not depend on how the codes are divided into batches.

        Arguments:
            sampler: solves the reverse SDE of a prior that has one.
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
        """Draws samples in model units, (count, *shape), from the codes of the same numbers; see :meth:`codes`."""
        return self.observed(self.codes(sampler, seed, first, count, on_step), seed, first)

    @torch.no_grad()
    def observed(self, z: Tensor, seed: int, first: int) -> Tensor:
        """Draws samples in model units of the codes z (B, latent), numbered from ``first`` on."""
        u = BlockNoise(seed, first, len(z), self.shape, z.dtype, z.device, "observation").uniform()
        return self.generate(z, u)

    def begin(self, other: nn.Module) -> None:
        """Copies another model's weights, for each part (child module) that both have by the same name and sizes.

        Parts of different classes and sizes keep their own weights.

        Raises:
            ValueError: a part has the same class in both and different sizes, or the two have no weights in common.
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
    """Raises a ValueError unless the number of latents is at least 1."""
    if latent < 1:
        raise ValueError(f"`latent`={latent} must be at least 1; type `latent`=8")
