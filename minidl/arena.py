"""All parameters of a model in one flat buffer, and views of it for the layers.

One buffer, so that the optimizer is one pass over memory, a checkpoint one copy and a data-parallel step one
all-reduce. A layer's kernel and bias are views: writing to one writes to the buffer, and the other way round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minidl.backend import Array


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
        return np.zeros(self.size, self.dtype)

    def views(self, buffer: Array) -> list[Array]:
        """A flat buffer as one array a parameter, without a copy."""
        return [buffer[s.start : s.stop].reshape(s.shape) for s in self.segments]
