"""Keras's `utils`: the one seed that makes a whole run repeatable."""

from __future__ import annotations

import random as python_random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from minidl import random


def set_random_seed(seed: int) -> None:
    """Make everything that follows repeatable: initial weights, dropout masks and the order of the rows.

    Seeds Python's `random` and NumPy's global generator, drops the global SeedGenerator, and sets the seed of
    the row order in `fit`. As Keras does, so the same program draws the same numbers as with Keras.
    seed: a Python int, 0 <= seed < 2**32.
    Raises: ValueError otherwise.
    """
    if not isinstance(seed, int):
        raise ValueError(f"set_random_seed: seed must be a Python int; got {seed!r} of type {type(seed).__name__}.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"set_random_seed: seed must be in [0, 2**32), the range that NumPy takes; got {seed}.")
    python_random.seed(seed)
    np.random.seed(seed)
    random.reset_global_state(seed)


_one_at_a_time = threading.RLock()


@contextmanager
def random_seed_within(seed: int) -> Iterator[None]:
    """Inside, all is as after set_random_seed(seed); afterwards the global generators are as they were before.

    Threads enter one at a time, for the generators are those of the whole program.
    """
    with _one_at_a_time:
        before = python_random.getstate(), np.random.get_state(), random.global_state()
        try:
            set_random_seed(seed)
            yield
        finally:
            python_random.setstate(before[0])
            np.random.set_state(before[1])
            random.restore_global_state(before[2])
