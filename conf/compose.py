"""Configurations for Python: composed of the same words as on a command line, without one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from hydra import compose, initialize_config_module, version
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from .command_line import readable
from .typos import explained


def composed(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the configuration that the words of a command line name, in plain values, and the choice of each group.

    Nothing of Hydra's own state changes, so that an application of Hydra may call this.

    Raises:
        ValueError: a word cannot be read, or names no group, choice or key.
    """
    try:
        config, choices = _composed(tuple(readable(list(words))))
        return OmegaConf.to_container(config, resolve=True), dict(choices)
    except (HydraException, OmegaConfBaseException) as error:
        with kept_state():
            raise ValueError(explained(list(words), error)) from None


@lru_cache(maxsize=64)
def _composed(words: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """Composes once for each set of words, which takes a quarter of a second."""
    with kept_state(), initialize_config_module("scoresde.conf", version_base="1.3"):
        config = compose("config", overrides=list(words), return_hydra_config=True)
    choices = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return config, choices


@contextmanager
def kept_state() -> Iterator[None]:
    """A context in which Hydra is not initialised; afterwards its state is what it was before."""
    known, base = GlobalHydra.instance(), version.VersionBase.instance()
    hydra, own_base = known.hydra, base.version_base
    known.clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = hydra
        base.version_base = own_base
