"""Stopping a training on Ctrl-C or SIGTERM between two updates."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Holds the signal that asked the training to stop.

    Attributes:
        signal: its number; None before a signal comes.
    """

    signal: int | None = None

    def leave(self) -> None:
        """Ends the program as the signal would have.

        Raises:
            KeyboardInterrupt: after Ctrl-C (SIGINT).
            SystemExit: with the code 143 after SIGTERM.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.signal)


@contextmanager
def stopping() -> Iterator[Stop]:
    """A context in which the first SIGINT or SIGTERM is noted in a :class:`Stop`; a second signal acts at once.

    Outside the main thread no signal is noted, because Python delivers signals to the main thread only.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame) -> None:
        stop.signal = number
        for restored, handler in before.items():  # so that a second signal acts at once
            signal.signal(restored, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
