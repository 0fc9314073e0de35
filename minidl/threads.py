"""Work on large arrays shared between a few threads: NumPy lets the interpreter go while it computes."""

from __future__ import annotations

import contextvars
import itertools
import math
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

Call = Callable[[], Any]

MOST = 8  # elementwise work is bound by memory, which a few threads saturate
VARIABLES = ("MINIDL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def count() -> int:
    """How many threads share the work: the first of VARIABLES that is set, else the cores; 8 at most."""
    for name in VARIABLES:
        value = os.environ.get(name, "").strip()
        if value.isdecimal() and int(value) > 0:
            return min(int(value), MOST)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST)


class Helper:
    """A thread that waits for calls to run. The two locks hand the work over, at a tenth of what a queue takes."""

    def __init__(self) -> None:
        self._begin, self._end = threading.Lock(), threading.Lock()
        self._begin.acquire()
        self._end.acquire()
        self._calls: Sequence[Call] = ()
        self._context = contextvars.copy_context()
        self._error: BaseException | None = None
        threading.Thread(target=self._work, name="minidl", daemon=True).start()

    def begin(self, calls: Sequence[Call]) -> None:
        """Let the thread run these, under the caller's np.errstate."""
        self._calls, self._context = calls, contextvars.copy_context()
        self._begin.release()

    def finish(self) -> BaseException | None:
        """Wait for it; the error that stopped it, or None."""
        self._end.acquire()
        error, self._error = self._error, None
        return error

    def _work(self) -> None:
        while True:
            self._begin.acquire()
            try:
                self._context.run(run, self._calls)
            except BaseException as error:
                self._error = error
            self._end.release()


def run(calls: Sequence[Call]) -> None:
    """One call after the other."""
    for call in calls:
        call()


_helpers: list[Helper] = []
_in_use = threading.Lock()


def run_together(parts: Sequence[Sequence[Call]]) -> None:
    """Each part's calls in order, the parts at the same time: the first here, the others by helpers.

    Where the helpers are busy with another model's work, all of it here. Errors: one that a call raised.
    """
    if not _in_use.acquire(blocking=False):
        for part in parts:
            run(part)
        return
    started: list[Helper] = []
    error: BaseException | None = None
    try:
        while len(_helpers) < len(parts) - 1:
            _helpers.append(Helper())
        for helper, part in zip(_helpers, parts[1:], strict=False):
            helper.begin(part)
            started.append(helper)
        run(parts[0])
    finally:
        for helper in started:
            error = helper.finish() or error
        _in_use.release()
    if error is not None:
        raise error


def together(parts: Sequence[Sequence[Call]]) -> list[Call]:
    """Calls that run the parts, one for each thread."""
    return list(parts[0]) if len(parts) == 1 else [partial(run_together, parts)]


def shares(size: int, piece: int, threads: int) -> list[list[slice]]:
    """size elements in slices of at most piece, dealt out to threads: no more of them than there are slices."""
    pieces = max(1, math.ceil(size / piece))
    slices = [slice(size * i // pieces, size * (i + 1) // pieces) for i in range(pieces)]
    threads = min(threads, pieces)
    ends = [pieces * i // threads for i in range(threads + 1)]
    return [slices[a:b] for a, b in itertools.pairwise(ends)]


def _after_fork() -> None:
    """A child process has none of its parent's threads."""
    global _in_use
    _helpers.clear()
    _in_use = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
