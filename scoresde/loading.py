"""Loads a trained network as a model."""

from pathlib import Path

from .model import Model


def load(path: str | Path, device: str = "cpu") -> Model:
    """Returns a trained network as a :class:`scoresde.Model`; ``sde, score, data = load(path)`` unpacks its parts.

    For a classifier, a latent-variable model or a network of features, the model takes the place of the score; sde is
    None for the last two. Data that were read from a file are read again from its path, if the file has not changed;
    otherwise, and for data from memory, ``data`` has their units and no examples.

    Arguments:
        path: a folder of the store, of :meth:`scoresde.Model.save`, or a ``step-*`` or ``kept-*`` folder in it.
        device: where the score is put.

    Raises:
        FileNotFoundError, ValueError: there is no such checkpoint, or it is damaged.
    """
    from scoresde.conf import reload

    sde, score, data, described, step = reload.load(Path(path).expanduser(), device)
    return Model(sde, score, data, described, step)
