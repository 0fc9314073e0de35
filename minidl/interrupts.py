"""Ctrl-C between the steps of training, never inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Whole:
    """`with` this object: what is inside is done to its end before Ctrl-C has its effect."""

    def __init__(self, handler: Any) -> None:
        self.handler = handler  # what Ctrl-C does
        self.inside = False
        self.waiting: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        self.inside = True

    def __exit__(self, *error: object) -> None:
        self.inside = False
        if self.waiting is not None:
            arguments, self.waiting = self.waiting, None
            self.handler(*arguments)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Pass Ctrl-C on, at once or at the end of what is inside."""
        if self.inside:
            self.waiting = number, frame
        else:
            self.handler(number, frame)


@contextmanager
def uncut() -> Iterator[Whole]:
    """Yields a Whole, to be entered for each piece of work that Ctrl-C must not cut in two.

    Python hands signals to the main thread only; in others, or where Ctrl-C does nothing, this changes nothing.
    """
    handler = signal.getsignal(signal.SIGINT)
    whole = Whole(handler)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield whole
        return
    signal.signal(signal.SIGINT, whole.on_signal)
    try:
        yield whole
    finally:
        if signal.getsignal(signal.SIGINT) == whole.on_signal:  # not where a callback has put its own
            signal.signal(signal.SIGINT, handler)
