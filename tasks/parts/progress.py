"""The progress bar of a task, which counts samples and moves within a batch too."""

import math
import sys
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress(what: str, count: int, leave: bool = True):
    """Shows a bar over ``count`` samples and yields ``advance(done, part, share, note)``, which moves it to ``done``
    samples and a ``share`` of the next ``part`` samples, never back, and shows the ``note`` behind it.

    Arguments:
        what: the bar's title.
        count: the number of samples, or of other units of work, at which the bar is full.
        leave: whether the bar stays on the screen when it is full; one that does not appears after a second only.
    """
    bar = tqdm(
        total=count,
        desc=what,
        unit="",
        leave=leave,
        delay=0.0 if leave else 1.0,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 15.0,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
    )
    drawn = 0.0

    def advance(done: int, part: int = 0, share: float = 0.0, note: str = "") -> None:
        nonlocal drawn
        now = min(math.floor((done + part * share) * 2**20) / 2**20, count)  # these add up exactly, to count
        if note:
            bar.set_postfix_str(note, refresh=False)
        if now > drawn:
            bar.update(now - drawn)
            drawn = now

    try:
        yield advance
    finally:
        bar.close()
