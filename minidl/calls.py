"""Array operations bound to their arrays: each is a call without arguments, and a step is a list of them.

An operation of many elements is bound in pieces that stay in a core's cache. Of each activation here is what ops.py
says, as calls: given its pre-activations z, its outputs, which may be the same array, and d_outputs, those that compute
the outputs, and those that turn dL/d(outputs) into dL/d(pre-activations) in place. Where config.elementwise() says so,
loops of elementwise.py take the place of some: LOOPS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from minidl import activations, config, elementwise
from minidl.arena import LINE, aligned
from minidl.backend import Array

Call = Callable[[], Any]
Calls = list[Call]
Bound = tuple[Calls, Calls]

PIECE = 2**16  # elements: about an L2 cache; in pieces that fit an L1 cache, Adam takes twice as long, for its calls


def constant(value: float, dtype: Any) -> Array:
    """A number as an array: a quarter of a microsecond less in every call than a Python number."""
    return np.array(value, dtype)


def pieces(stop: int, start: int = 0) -> list[slice]:
    """The elements from start to stop in slices of at most PIECE, about alike, so that no small rest costs its calls.

    Between two of them is a border of cache lines, of an array that begins with one: see arena.aligned.
    """
    if start == stop:
        return []
    count, unit = -(-(stop - start) // PIECE), min(LINE, PIECE)
    step = min(PIECE, -(-(stop - start) // (count * unit)) * unit)
    return [slice(*borders) for borders in pairwise([start, *range(start // unit * unit + step, stop, step), stop])]


def by_pieces(bind: Callable[..., Bound], *arrays: Array) -> Bound:
    """bind(*pieces of arrays), an elementwise operation, for all pieces."""
    flat = [array.reshape(-1) for array in arrays]
    bound = [bind(*(array[piece] for array in flat)) for piece in pieces(flat[0].size)]
    return [call for forward, _ in bound for call in forward], [call for _, backward in bound for call in backward]


def linear(z: Array, outputs: Array, d_outputs: Array) -> Bound:
    """ops.linear."""
    return [] if outputs is z else [partial(np.copyto, outputs, z)], []


def relu(z: Array, outputs: Array, d_outputs: Array) -> Bound:
    """ops.relu, ops.relu_backward."""
    zeros = aligned((min(z.size, PIECE),), z.dtype)  # as an array: six times as fast as as a number

    def bind(z: Array, outputs: Array, d_outputs: Array) -> Bound:
        some = zeros[: z.size]
        forward: Calls = [lambda: np.maximum(z, some, out=outputs)]  # a partial with a keyword takes longer
        if z.size < 2**11:  # 1 where positive; spares the conversion of a bool, which for larger arrays is cheaper
            slope = np.empty_like(z)
            return forward, [partial(np.sign, outputs, slope), partial(np.multiply, d_outputs, slope, d_outputs)]
        positive, zero = np.empty(z.shape, bool), constant(0, z.dtype)
        return forward, [
            partial(np.greater, outputs, zero, positive),
            partial(np.multiply, d_outputs, positive, d_outputs),
        ]

    return by_pieces(bind, z, outputs, d_outputs)


def sigmoid(z: Array, outputs: Array, d_outputs: Array) -> Bound:
    """ops.sigmoid, ops.sigmoid_backward."""

    def bind(z: Array, outputs: Array, d_outputs: Array) -> Bound:
        t, slope, positive = np.empty_like(z), np.empty_like(z), np.empty(z.shape, bool)
        zero, one = constant(0, z.dtype), constant(1, z.dtype)
        return (
            [
                partial(np.greater_equal, z, zero, positive),
                *exp_minus_abs(z, t),
                partial(np.add, one, t, outputs),
                partial(np.copyto, t, one, where=positive),
                partial(np.divide, t, outputs, outputs),
            ],
            [
                partial(np.subtract, one, outputs, slope),
                partial(np.multiply, outputs, slope, slope),
                partial(np.multiply, d_outputs, slope, d_outputs),
            ],
        )

    return by_pieces(bind, z, outputs, d_outputs)


def tanh(z: Array, outputs: Array, d_outputs: Array) -> Bound:
    """ops.tanh, ops.tanh_backward."""

    def bind(z: Array, outputs: Array, d_outputs: Array) -> Bound:
        slope, one = np.empty_like(z), constant(1, z.dtype)
        return (
            [partial(np.tanh, z, outputs)],
            [
                partial(np.multiply, outputs, outputs, slope),
                partial(np.subtract, one, slope, slope),
                partial(np.multiply, d_outputs, slope, d_outputs),
            ],
        )

    return by_pieces(bind, z, outputs, d_outputs)


def exp_minus_abs(z: Array, t: Array) -> Calls:
    """t = e^(−|z|)."""
    return [partial(np.copysign, z, constant(-1, z.dtype), t), partial(np.exp, t, t)]


def activation(kind: activations.Activation, z: Array, outputs: Array, d_outputs: Array) -> Bound:
    """An activation of ACTIVATIONS, on arrays that are contiguous."""
    if config.elementwise() == "numpy" or kind not in LOOPS:
        return ACTIVATIONS[kind](z, outputs, d_outputs)
    flat_outputs, flat_d_outputs = outputs.reshape(-1), d_outputs.reshape(-1)
    forward_loop, backward_loop = LOOPS[kind]
    if forward_loop is None:
        forward, _ = ACTIVATIONS[kind](z, outputs, d_outputs)
    else:
        forward = [*linear(z, outputs, d_outputs)[0], elementwise.bound(forward_loop, flat_outputs)]
    return forward, [elementwise.bound(backward_loop, flat_outputs, flat_d_outputs)]


ACTIVATIONS: dict[activations.Activation, Callable[[Array, Array, Array], Bound]] = {
    activations.linear: linear,
    activations.relu: relu,
    activations.sigmoid: sigmoid,
    activations.tanh: tanh,
}

# Loops for the outputs, in place, and for d_outputs; NumPy's exponentials stay: others have other bits.
LOOPS: dict[activations.Activation, tuple[elementwise.Loop | None, elementwise.Loop]] = {
    activations.relu: (elementwise.relu, elementwise.relu_backward),
    activations.sigmoid: (None, elementwise.sigmoid_backward),
    activations.tanh: (None, elementwise.tanh_backward),
}
