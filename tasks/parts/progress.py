"""The bar of a task: batches of samples, each of them so many steps long."""

import math
import sys
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress(what: str, count: int, leave: bool = True):
    """A bar over ``count`` samples; the value is ``advance(done, part, share)``: done samples, and a share of the next
    part. The bar goes when it is full unless it is to be left.
    """
    bar = tqdm(
        total=count,
        desc=what,
        unit="",
        leave=leave,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 15.0,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
    )
    drawn = 0.0

    def advance(done: int, part: int = 0, share: float = 0.0, note: str = "") -> None:
        nonlocal drawn
        now = min(math.floor((done + part * share) * 2**20) / 2**20, count)  # sums of these are exact, and end at count
        if note:
            bar.set_postfix_str(note, refresh=False)
        if now > drawn:
            bar.update(now - drawn)
            drawn = now

    try:
        yield advance
    finally:
        bar.close()
