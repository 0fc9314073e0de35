"""All parameters of a model in one flat buffer, and views of it for the layers.

One buffer, so that the optimizer is one pass over memory, a checkpoint one copy and a data-parallel step one
all-reduce. A layer's kernel and bias are views: writing to one writes to the buffer, and the other way round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.backend import Array

LINE = 64  # bytes of a cache line, and of the widest vector registers


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros that begin with a cache line.

    NumPy's arrays begin anywhere in one: then each vector of 64 bytes lies in two lines, and a compiled pass over a few
    arrays that do takes more than twice as long.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Segment:
    """Where one parameter lies in a flat buffer: buffer[start:stop], of this shape."""

    layer: str
    name: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Arena:
    """The flat buffers θ (theta) and g (grads), with a segment for each parameter in the model's order.

    parameters: (layer name, parameter name, shape) in order. dtype: of every buffer.
    """

    def __init__(self, parameters: list[tuple[str, str, tuple[int, ...]]], dtype: str) -> None:
        self.dtype = dtype
        self.segments: list[Segment] = []
        start = 0
        for layer, name, shape in parameters:
            stop = start + math.prod(shape)
            self.segments.append(Segment(layer, name, shape, start, stop))
            start = stop
        self.size = start
        self.theta = self.new_buffer()
        self.grads = self.new_buffer()

    def new_buffer(self) -> Array:
        """A further flat buffer of zeros beside θ: an optimizer's slot."""
        return aligned((self.size,), self.dtype)

    def views(self, buffer: Array) -> list[Array]:
        """A flat buffer as one array a parameter, without a copy."""
        return [buffer[s.start : s.stop].reshape(s.shape) for s in self.segments]
