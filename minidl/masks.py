"""Dropout masks drawn many steps at a time: the same bits as one by one, at a fraction of the cost."""

from __future__ import annotations

import math
from typing import Any

from minidl import config, random
from minidl.backend import Array

MOST_FLAGS = 2**18  # of one block: a quarter of a mebibyte


class MaskBlocks:
    """The masks of one Dropout layer, taken step by step, drawn in blocks of steps.

    A mask of (32, 4) by itself costs the overhead of the calls, some 75 µs; a block of 1,000 steps about 1 µs a mask.
    The generator is counter-based, so the masks of the coming counters are known now. A block is twice as long as the
    one before it if that was used to its end, so that a single step draws a single mask.

    A batch of fewer rows takes a mask's first rows: the flags are drawn in C order, so these are its mask.
    """

    def __init__(self) -> None:
        self._kind: tuple[Any, ...] = ()
        self._start = self._stop = 0
        self._masks: Any = None

    def take(self, shape: tuple[int, ...], rate: float, pair: random.Pair, dtype: str, stream: str) -> Array:
        """random.dropout_mask(shape, rate, pair, dtype) on a stream of config.RANDOM_STREAMS."""
        mask: Array = self.take_some(shape, rate, pair, dtype, stream, 1)[0]
        return mask

    def take_some(
        self, shape: tuple[int, ...], rate: float, pair: random.Pair, dtype: str, stream: str, most: int
    ) -> Array:
        """The mask of a pair and those of the following counters, as many as there are, but at most so many.

        (n, *shape), 1 ≤ n ≤ most. The result is a view of the block: do not write to it.
        """
        seed, counter = pair
        rows, *rest = shape
        kind = (seed, rate, dtype, stream, tuple(rest))
        alike = self._kind == kind and rows <= self._masks.shape[1]
        if not (alike and self._start <= counter < self._stop):
            used_up = alike and counter == self._stop
            self._draw(kind, (self._masks.shape[1] if used_up else rows, *rest), counter, used_up)
        first = counter - self._start
        return self._masks[first : first + most, :rows]

    def _draw(self, kind: tuple[Any, ...], shape: tuple[int, ...], counter: int, used_up: bool) -> None:
        seed, rate, dtype, stream, _ = kind
        most = max(1, MOST_FLAGS // max(1, math.prod(shape)))
        steps = min(most, 2 * len(self._masks)) if used_up else 1
        with config.using_random_stream(stream):
            self._masks = random.dropout_masks(shape, rate, (seed, counter), steps, dtype)
        self._kind, self._start, self._stop = kind, counter, counter + steps
