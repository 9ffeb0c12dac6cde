"""Stopping a training on Ctrl-C or SIGTERM between two updates."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """The signal that asked the training to stop; None before one comes."""

    signal: int | None = None

    def leave(self) -> None:
        """Ends as the signal would have: KeyboardInterrupt after Ctrl-C, exit code 143 after SIGTERM."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.signal)


@contextmanager
def stopping() -> Iterator[Stop]:
    """A context in which SIGINT and SIGTERM are noted in a :class:`Stop`; a second signal acts at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python delivers signals to the main thread only
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame) -> None:
        stop.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
