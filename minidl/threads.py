"""A second thread for passes over large arrays. NumPy lets go of Python's lock while it works on them.

OpenBLAS's own threads are in its way: after a product they wait for the next one, busily, on the cores that a second
thread would take. For how long says OPENBLAS_THREAD_TIMEOUT, 2ⁿ cycles of the processor, which OpenBLAS reads when
NumPy is loaded. So `import minidl` sets it to SHORT where NumPy is not loaded yet and nobody has set it: less than a
millisecond, which products that follow each other do not feel. Where it is longer there is no second thread.
Source: blas_thread_server in OpenBLAS's driver/others/blas_server.c.
"""

from __future__ import annotations

import collections
import contextvars
import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from minidl.calls import Calls

SHORT = 21
LIMITS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")  # OpenBLAS's threads, in the order in which it asks


def is_spare() -> bool:
    """Whether a second thread has a core: there are two, NumPy may use two, and OpenBLAS leaves one soon enough."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = next((number for name in LIMITS if (number := _whole(os.environ.get(name, "")))), cores)
    blas: Any = np.show_config(mode="dicts")
    timeout = _whole(os.environ.get("OPENBLAS_THREAD_TIMEOUT", ""))
    is_openblas = "openblas" in blas.get("Build Dependencies", {}).get("blas", {}).get("name", "")
    return min(cores, allowed) > 1 and is_openblas and 0 < timeout <= SHORT


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def in_two_threads(pieces: Sequence[Sequence[Calls]]) -> None:
    """Run the calls of each piece, in this thread the first list or in another one the second, as either comes to it.

    So nobody waits for a thread that begins late. What is raised in the other thread is raised here. A piece's two
    lists do the same, and no two pieces write to what both use.
    """
    left = collections.deque(pieces)
    running = _second().submit(contextvars.copy_context().run, _run, left, 1)  # with the caller's np.errstate
    try:
        _run(left, 0)
    finally:
        running.result()


def _run(left: collections.deque[Sequence[Calls]], own: int) -> None:
    while left:
        try:
            piece = left.popleft()
        except IndexError:  # the other thread took the last one meanwhile
            return
        for call in piece[own]:
            call()


@functools.cache
def _second() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "minidl")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_second.cache_clear)  # a child has no threads but the one that forked
