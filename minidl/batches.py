"""Where the batches of an epoch come from: arrays, generators, PyDatasets, and whatever else yields batches.

Source: keras.src.trainers.data_adapters and epoch_iterator; where Keras's backends differ, its TensorFlow backend.
"""

from __future__ import annotations

import itertools
import math
import random as python_random
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl import checks, random
from minidl.backend import Array

Batch = tuple[Array, Array | None, Array | None]  # x, y, sample_weight
Check = Callable[[Any, Any, Any, Any], Batch]  # x, y, sample_weight, class_weight -> as arrays that fit the model


class ArrayBatches:
    """The rows of arrays that were checked, in batches of batch_size, in an order drawn anew for each pass.

    A pass yields the row numbers of each batch; of shuffle None, for inference, slices of the rows as they come.
    later: how rows are converted that could not be at once, of memory maps in another dtype.
    """

    def __init__(
        self, arrays: Batch, batch_size: int, shuffle: bool | str | None, later: Callable[[Batch], Batch] | None = None
    ) -> None:
        self.x, self.y, self.sample_weight = arrays
        self.samples, self.batch_size, self.shuffle = len(self.x), batch_size, shuffle
        self.num_batches: int | None = math.ceil(self.samples / batch_size)
        self.later = later

    def one_pass(self) -> Iterator[Any]:
        """The rows of each batch of one pass over the data."""
        if self.shuffle is None:
            starts = range(0, self.samples, self.batch_size)
            return (slice(start, start + self.batch_size) for start in starts)
        return Rows(random.epoch_order(self.samples, self.batch_size, self.shuffle), self.batch_size)

    def take(self, rows: Any) -> Batch:
        """The batch of these rows."""
        parts = [None if array is None else array[rows] for array in (self.x, self.y, self.sample_weight)]
        batch: Batch = tuple(parts)  # type: ignore[assignment]
        return batch if self.later is None else self.later(batch)

    def on_epoch_begin(self) -> None:
        """Arrays need not be told."""

    def on_epoch_end(self) -> None:
        """Arrays need not be told."""


class Rows:
    """The row numbers of each batch of one pass, or of several batches at a time."""

    def __init__(self, order: Array, batch_size: int) -> None:
        self._order, self._size, self._at = order, batch_size, 0

    def __iter__(self) -> Rows:
        return self

    def __next__(self) -> Array:
        rows = self.several(1)
        if not len(rows):
            raise StopIteration
        return rows

    def several(self, batches: int) -> Array:
        """The rows of the next whole batches, so many at most; of a smaller one at the end, alone; () after it."""
        whole = (len(self._order) - self._at) // self._size
        start, self._at = self._at, self._at + max(1, min(batches, whole)) * self._size
        return self._order[start : self._at]


class StreamBatches:
    """Batches that somebody else makes; each is checked when it comes.

    start: gives an iterator over one pass. num_batches: of a pass, None if unknown. first: those of the first batches
    that were fetched already.
    """

    def __init__(
        self,
        check: Check,
        start: Callable[[], Iterator[Any]],
        num_batches: int | None,
        class_weight: Any = None,
        source: Any = None,
        first: Sequence[Any] = (),
    ) -> None:
        self._check, self._start, self._class_weight, self._source = check, start, class_weight, source
        self._first = first
        self.num_batches = num_batches

    def one_pass(self) -> Iterator[Any]:
        """The batches of one pass, as they come."""
        return self._start()

    def take(self, batch: Any) -> Batch:
        """One of them, checked. Errors: ValueError or TypeError for one that does not fit the model."""
        return self._check(*unpack(batch), self._class_weight)

    def check_first(self) -> None:
        """Check what was fetched already, before anything is begun. Errors: as take's."""
        for batch in self._first:
            self.take(batch)

    def on_epoch_begin(self) -> None:
        """Tell the source, if it listens."""
        getattr(self._source, "on_epoch_begin", _nothing)()

    def on_epoch_end(self) -> None:
        """Tell the source, if it listens."""
        getattr(self._source, "on_epoch_end", _nothing)()


Batches = ArrayBatches | StreamBatches


def _nothing() -> None:
    """For sources that do not listen."""


def unpack(batch: Any) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) of x, (x,), (x, y) or (x, y, sample_weight). Errors: ValueError for a longer tuple."""
    if not isinstance(batch, (tuple, list)):
        return batch, None, None
    if not 1 <= len(batch) <= 3:
        raise ValueError(f"a batch must be x, (x,), (x, y) or (x, y, sample_weight); got a tuple of {len(batch)}.")
    x, y, sample_weight = (*batch, None, None)[:3]
    return x, y, sample_weight


def yields_batches(x: Any) -> bool:
    """Whether x is something that yields data batch by batch, as against data."""
    if isinstance(x, (list, tuple, dict, str, bytes, np.ndarray)):
        return False
    is_data = any(hasattr(x, name) for name in ("__array__", "__dlpack__", "toarray"))
    return not is_data and (hasattr(x, "__iter__") or hasattr(x, "__getitem__"))


def stream(
    where: str,
    source: Any,
    check: Check,
    *,
    shuffle: bool | str = False,
    class_weight: Any = None,
    **of_arrays: Any,
) -> StreamBatches:
    """Batches from what is no array: a generator, something like a PyDataset, or an iterable that can start anew.

    shuffle: the order of a PyDataset's batches; whoever makes batches otherwise shuffles them himself. of_arrays:
    the arguments that come with arrays alone, each of which must be None.
    Errors: ValueError for one that is given, for class_weight with a generator or a torch DataLoader, and for no
    batches.
    """
    kind = type(source).__name__
    for name, value in of_arrays.items():
        if value is not None:
            raise ValueError(f"{where}: {name} comes with arrays; a {kind} yields it itself, in (x, y, sample_weight).")
    if class_weight is not None:
        for is_one, what in (
            (isinstance(source, types.GeneratorType), "a generator"),
            (type(source).__module__.startswith("torch."), "a torch DataLoader"),
        ):
            if is_one:
                raise ValueError(f"{where}: class_weight does not go with {what}; yield (x, y, sample_weight).")
    indexed = hasattr(source, "__getitem__") and (hasattr(source, "num_batches") or hasattr(source, "__len__"))
    if shuffle and not (indexed and _number_of_batches(source) is not None):
        warnings.warn(
            f"{where}: `shuffle=True` was passed, but will be ignored since the data `x` was provided as a {kind}, "
            f"which is expected to yield shuffled data. Pass shuffle=False.",
            stacklevel=4,
        )
    if isinstance(source, types.GeneratorType):
        first = _first_of_generator(where, source)
        # a generator cannot start anew: a further pass begins with its first two batches again, as in Keras
        return StreamBatches(check, lambda: itertools.chain(first, source), None, first=first)
    if indexed:
        return _of_dataset(source, check, shuffle, class_weight)
    return StreamBatches(check, lambda: iter(source), _length(source), class_weight)


def _first_of_generator(where: str, generator: Any) -> list[Any]:
    """The first two batches, as many as Keras fetches to know their form."""
    first = list(itertools.islice(generator, 2))
    if not first:
        raise ValueError(f"{where}: the generator is empty; it must yield at least one batch.")
    if not isinstance(first[0], tuple):
        raise ValueError(
            f"{where}: a generator must yield tuples, (x,), (x, y) or (x, y, sample_weight); got a "
            f"{type(first[0]).__name__}."
        )
    return first


def _number_of_batches(dataset: Any) -> int | None:
    return dataset.num_batches if hasattr(dataset, "num_batches") else len(dataset)


def _of_dataset(dataset: Any, check: Check, shuffle: bool | str, class_weight: Any) -> StreamBatches:
    """The batches dataset[0], dataset[1], …, shuffled by Python's global generator, as Keras does.

    The first two are fetched once more before, as Keras does to know their form.
    """
    batches = _number_of_batches(dataset)
    if batches is not None and batches < 1:
        raise ValueError(f"the {type(dataset).__name__} has no batches.")

    def start() -> Iterator[Any]:
        numbers: Any = itertools.count()
        if batches is not None:
            numbers = list(range(batches))
            if shuffle:
                python_random.shuffle(numbers)
        return (dataset[i] for i in numbers)

    first = [dataset[i] for i in range(2 if batches is None else min(2, batches))]
    return StreamBatches(check, start, batches, class_weight, dataset, first)


def _length(source: Any) -> int | None:
    """How many batches an iterable has, if it knows."""
    try:
        return len(source)
    except TypeError:
        return None


class Epochs:
    """The steps of one epoch after the other over some batches. Source: keras.src.trainers.epoch_iterator.

    steps_per_epoch: as many steps an epoch, going on in the next one where this one stopped; None: a pass over the
    data. steps_per_execution: of as many steps at a time.
    """

    def __init__(self, batches: Batches, steps_per_epoch: int | None = None, steps_per_execution: int = 1) -> None:
        self.batches, self.steps_per_epoch, self.execution = batches, steps_per_epoch, steps_per_execution
        self._iterator: Iterator[Any] | None = None
        self._known, self._seen = batches.num_batches, 0

    def reset(self) -> None:
        """Begin anew. The source is told that an epoch ended, also before the first one, as by Keras."""
        self._iterator, self._known, self._seen = None, self.batches.num_batches, 0
        self.batches.on_epoch_end()

    @property
    def num_batches(self) -> int | None:
        """The steps of an epoch, None if unknown."""
        return self.steps_per_epoch or self._known

    def __iter__(self) -> Iterator[tuple[int, int, Iterator[Any]]]:
        """(first step, last step, where its batches come from) of each execution of an epoch."""
        steps = self._begin()
        assert self._iterator is not None
        for first in range(0, steps, self.execution) if steps else itertools.count(0, self.execution):
            if self._known and self._seen >= self._known:
                if self.steps_per_epoch:
                    _warn_of_the_end()
                break
            self._seen += self.execution
            yield first, first + self.execution - 1, self._iterator
        self._end()

    def _begin(self) -> int | None:
        self.batches.on_epoch_begin()
        if self._iterator is None or self.steps_per_epoch is None:
            self._iterator, self._seen = self.batches.one_pass(), 0
        return self.steps_per_epoch or self._known

    def _end(self) -> None:
        if self._known and self._seen >= self._known:
            self._iterator = None  # the next epoch starts a new pass
        self.batches.on_epoch_end()

    def together(self, most: int) -> Iterator[tuple[int, Array]]:
        """The same steps of an epoch on arrays, in order, up to so many at a time: (last step, rows of its batches)."""
        assert isinstance(self.batches, ArrayBatches) and self._known is not None
        steps, done = self._begin() or 0, 0
        while done < steps and self._seen < self._known:
            rows = self._iterator.several(min(most, steps - done))  # type: ignore[union-attr]
            taken = math.ceil(len(rows) / self.batches.batch_size)
            done, self._seen = done + taken, self._seen + taken
            yield done - 1, rows
        if done < steps:
            _warn_of_the_end()
        self._end()

    def next_batches(self, iterator: Iterator[Any]) -> Iterator[Any]:
        """The batches of one execution. Errors: OutOfData if there is not even one."""
        found = 0
        for batch in itertools.islice(iterator, self.execution):
            found += 1
            yield batch
        if not found:
            raise OutOfData

    @contextmanager
    def until_data_end(self) -> Iterator[None]:
        """Inside, OutOfData ends the epoch with a warning."""
        try:
            yield
        except OutOfData:
            if self._known is None:
                self._known = self._seen
            _warn_of_the_end()
            self._iterator = None
            self.batches.on_epoch_end()


class OutOfData(Exception):
    """There are no more batches."""


def _warn_of_the_end() -> None:
    warnings.warn(
        "Your input ran out of data; interrupting the epoch. Make sure that it can yield at least steps_per_epoch * "
        "epochs batches.",
        stacklevel=2,
    )


def split_validation(data: tuple[Any, Any, Any], fraction: float) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """The first ⌊n(1 − fraction)⌋ rows to train on, and the rest to validate on, before any shuffling.

    Errors: ValueError for a fraction outside (0, 1) or one that leaves either part empty.
    """
    if not 0.0 < checks.finite_float("fit", "validation_split", fraction) < 1.0:
        raise ValueError(f"validation_split must be in [0, 1); got {fraction!r}.")
    samples = len(data[0])
    at = math.floor(samples * (1.0 - fraction))
    if at in (0, samples):
        raise ValueError(
            f"validation_split={fraction!r} of {samples} samples leaves no data to train on or none to validate on."
        )
    first, last = ([None if a is None else a[rows] for a in data] for rows in (slice(0, at), slice(at, samples)))
    return tuple(first), tuple(last)  # type: ignore[return-value]
