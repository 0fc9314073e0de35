"""Keras's `utils`: the one seed that makes a whole run repeatable, and small helpers around data."""

from __future__ import annotations

import random as python_random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl import random
from minidl.backend import Array
from minidl.checks import positive_int, refuse_unsupported
from minidl.config import clear_session
from minidl.saving import (
    CustomObjectScope,
    custom_object_scope,
    deserialize_keras_object,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
    serialize_keras_object,
)

__all__ = [
    "CustomObjectScope",
    "PyDataset",
    "clear_session",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "normalize",
    "random_seed_within",
    "register_keras_serializable",
    "serialize_keras_object",
    "set_random_seed",
    "to_categorical",
]


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


def to_categorical(x: Any, num_classes: int | None = None) -> Array:
    """Class numbers as one-hot rows;  (...) or (..., 1) of integers in [0, C) -> (..., C) of float64.

    num_classes: C; None: the largest class number + 1. Errors: ValueError for anything else than whole numbers in
    [0, C), where Keras cuts fractions off and counts negative numbers from the end.
    Source: keras.utils.to_categorical.
    """
    given = np.asarray(x)
    if given.dtype.kind not in "fiub" or given.size == 0 or not np.all(given == np.floor(given)):
        raise ValueError(f"to_categorical: expected class numbers 0, 1, 2, …; got {x!r}.")
    numbers = given.astype(np.int64)
    if numbers.ndim > 1 and numbers.shape[-1] == 1:
        numbers = numbers[..., 0]
    most = int(numbers.max()) + 1
    classes = positive_int("to_categorical", "num_classes", num_classes) if num_classes else most
    if numbers.min() < 0 or most > classes:
        raise ValueError(
            f"to_categorical: class numbers must lie in [0, {classes}); got {numbers.min()} to {numbers.max()}."
        )
    return np.eye(classes)[numbers]


def normalize(x: Any, axis: int = -1, order: float = 2) -> Array:
    """x divided by its norm ‖x‖ of an order along an axis; where that is 0, x itself.

    axis=0 divides each column by its own norm; Keras 3.15 takes these norms but divides the rows by them.
    Source: keras.utils.normalize.
    """
    array = np.asarray(x)
    norm = np.linalg.norm(array, order, axis, keepdims=True)
    return array / np.where(norm == 0, 1, norm)


class PyDataset:
    """Batches by number, for fit, evaluate and predict: override __getitem__(i) -> (x, y) or (x, y, sample_weight).

    And __len__, or the property num_batches (None: without end). on_epoch_begin, on_epoch_end: called around epochs.
    workers, use_multiprocessing, max_queue_size: Keras's, of which minidl needs none: it makes each batch when it is
    trained on. Errors: NotImplementedError for more than one worker. Source: keras.utils.PyDataset.
    """

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        refuse_unsupported("PyDataset", workers=(workers, 1), use_multiprocessing=(use_multiprocessing, False))
        self.workers, self.use_multiprocessing, self.max_queue_size = workers, use_multiprocessing, max_queue_size

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(index), a batch.")

    @property
    def num_batches(self) -> int | None:
        """How many batches a pass has; None without end."""
        if hasattr(self, "__len__"):
            return len(self)
        raise NotImplementedError(f"{type(self).__name__} must define num_batches or __len__.")

    def on_epoch_begin(self) -> None:
        """Called when an epoch begins."""

    def on_epoch_end(self) -> None:
        """Called when an epoch ends, and once before the first."""


Sequence = PyDataset
