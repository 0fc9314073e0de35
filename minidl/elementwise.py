"""Operations on elements as loops, which Numba compiles: one pass over memory for what takes NumPy several calls.

config.set_elementwise("numba") has fit's fused step take them, and random.py the last one. Read the function that a
loop names first: it computes for each element what that says, with the same roundings in the same order, so the same
bits. (Numba neither reorders floating-point operations nor fuses them unless told to.) What it leaves out are NumPy's
warnings of overflow.

An array is one-dimensional and contiguous where nothing else is said. Numbers come in an array of their own dtype,
constants: Python's would make Numba compute in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minidl.backend import Array

Loop = Callable[..., None]


def bound(loop: Loop, *arrays: Array) -> Callable[[], None]:
    """The loop on these arrays, compiled, as a call without arguments."""
    return partial(compiled(loop), *arrays)


@functools.cache
def compiled(loop: Loop) -> Loop:
    """The loop in machine code: of each dtype at its first call, and from then on from Numba's cache on the disk.

    It lets go of Python's lock.
    """
    from numba import njit

    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy"}  # x / 0 is ±∞ or NaN
    try:
        return njit(loop, cache=True, **settings)
    except RuntimeError:  # no directory that it may write to
        return njit(loop, **settings)


def adam_step(param: Array, grad: Array, m: Array, v: Array, alpha: Array, constants: Array) -> None:
    """ops.adam_step, without amsgrad.

    m ← m + (g − m) (1 − β₁),  v ← v + (g² − v) (1 − β₂),  θ ← θ − α m / (√v + ε)

    alpha: (1,), the step size α with both bias corrections. constants: 1 − β₁, 1 − β₂, ε.
    """
    rate_1, rate_2, epsilon = constants
    for i in range(param.size):
        m[i] += (grad[i] - m[i]) * rate_1
        v[i] += (grad[i] * grad[i] - v[i]) * rate_2
        param[i] -= m[i] * alpha[0] / (np.sqrt(v[i]) + epsilon)


def add_l1_gradient(grad: Array, param: Array, constants: Array) -> None:
    """g ← g + λ₁ sign(w): ops.l1_gradient. constants: λ₁."""
    l1, zero = constants[0], constants.dtype.type(0)
    for i in range(param.size):
        w = param[i]
        grad[i] += l1 if w > zero else -l1 if w < zero else abs(w)  # 0 or NaN


def add_l2_gradient(grad: Array, param: Array, constants: Array) -> None:
    """g ← g + 2 λ₂ w: ops.l2_gradient. constants: 2 λ₂."""
    for i in range(param.size):
        grad[i] += param[i] * constants[0]


def add_l1_l2_gradient(grad: Array, param: Array, constants: Array) -> None:
    """g ← g + (λ₁ sign(w) + 2 λ₂ w). constants: λ₁, 2 λ₂."""
    l1, twice_l2 = constants
    zero = constants.dtype.type(0)
    for i in range(param.size):
        w = param[i]
        grad[i] += (l1 if w > zero else -l1 if w < zero else abs(w)) + w * twice_l2


def relu(z: Array) -> None:
    """z ← max(z, 0): ops.relu."""
    zero = z.dtype.type(0)
    for i in range(z.size):
        z[i] = zero if z[i] <= zero else z[i]


def relu_backward(outputs: Array, d_outputs: Array) -> None:
    """d ← d [outputs > 0]: ops.relu_backward."""
    zero, one = outputs.dtype.type(0), outputs.dtype.type(1)
    for i in range(outputs.size):
        d_outputs[i] *= one if outputs[i] > zero else zero


def sigmoid_backward(outputs: Array, d_outputs: Array) -> None:
    """d ← d σ (1 − σ), outputs being σ: ops.sigmoid_backward."""
    one = outputs.dtype.type(1)
    for i in range(outputs.size):
        d_outputs[i] *= outputs[i] * (one - outputs[i])


def tanh_backward(outputs: Array, d_outputs: Array) -> None:
    """d ← d (1 − tanh²), outputs being tanh: ops.tanh_backward."""
    one = outputs.dtype.type(1)
    for i in range(outputs.size):
        d_outputs[i] *= one - outputs[i] * outputs[i]


def dropout(inputs: Array, words: Array, outputs: Array, constants: Array) -> None:
    """inputs / (1 − rate) where a word is not 0, else 0: ops.dropout, ops.dropout_backward.

    constants: 1 / (1 − rate).
    """
    zero = inputs.dtype.type(0)
    for i in range(inputs.size):
        outputs[i] = inputs[i] * constants[0] if words[i] != 0 else zero


def binary_crossentropy_backward(z: Array, t: Array, y: Array, counts: Array, d_outputs: Array) -> None:
    """(σ(z) − y) count: ops.binary_crossentropy_from_logits_backward, times what each loss counts.

    t: e^(−|z|).
    """
    zero, one = z.dtype.type(0), z.dtype.type(1)
    for i in range(z.size):
        tail = t[i] / (one + t[i])
        if z[i] >= zero:
            d_outputs[i] = (one - y[i] - tail) * counts[i]
        else:
            d_outputs[i] = (tail - y[i]) * counts[i]


def philox_words(words: Array, start: int, k0: Array, k1: Array, c2: Array, c3: Array, constants: Array) -> None:
    """words[s] ← Philox4x32-10 of the counters (start + i, 0, c2, c3) of the s-th stream: random._philox_rounds.

    words: (S, blocks, 4) uint32. k0, k1, c2, c3: (S,) uint64, below 2³². constants: M₀, M₁, W₀, W₁, uint64. The four
    words of a block go to four rows first: the processor then computes several blocks at once.
    """
    m0, m1, w0, w1 = constants
    bits, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    rows = np.empty((4, 1024), np.uint32)
    for s in range(words.shape[0]):
        for first in range(0, words.shape[1], 1024):
            count = min(1024, words.shape[1] - first)
            for i in range(count):
                x0, x1, x2, x3 = np.uint64(start + first) + np.uint64(i), np.uint64(0), c2[s], c3[s]
                key0, key1 = k0[s], k1[s]
                for _ in range(10):
                    p0, p1 = x0 * m0, x2 * m1
                    x0, x1, x2, x3 = (p1 >> bits) ^ x1 ^ key0, p1 & low, (p0 >> bits) ^ x3 ^ key1, p0 & low
                    key0, key1 = (key0 + w0) & low, (key1 + w1) & low
                rows[0, i], rows[1, i], rows[2, i], rows[3, i] = x0, x1, x2, x3
            for i in range(count):
                for j in range(4):
                    words[s, first + i, j] = rows[j, i]
