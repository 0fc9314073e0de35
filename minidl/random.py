"""Keras's random numbers from NumPy alone: a seed gives the weights, dropout masks and row order of Keras.

From a seed to numbers, in four steps:

    pair    = (seed, counter)                 SeedGenerator counts up by one at each draw
    words   = generator(pair)                 uint32: Philox (TensorFlow), threefry (JAX), MT19937 (torch)
    u       = fraction · 2^-bits              some bits of each word, as a number in [0, 1)
    numbers = uniform, normal or keep flags   formulas of u

`config.set_random_stream` says whose numbers: "tensorflow" (default), "tensorflow-xla", "jax", "torch",
"numpy" (not Keras's, but faster). Arrays are filled in C order.

Which results are those of Keras 3.15.1 (on TensorFlow 2.21.0, JAX 0.10.2, PyTorch 2.13.0; Linux x86-64):

                      TensorFlow      JAX                        torch (CPU)
    keep flags        equal           equal                      equal
    row order         equal           equal                      equal
    uniform           equal           equal (CPU with FMA)       equal
    normal            equal           ≤ 3 ulp off in about 1 %   equal below 16 numbers, else ≤ 2.1e-6 off
    truncated normal  equal           ≤ 3 ulp off in about 1 %   ≤ 2.1e-6 off

"≤ 2.1e-6" is for stddev 1: torch uses approximate vector instructions there.

Sources: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox, threefry); Matsumoto &
Nishimura 1998, "Mersenne Twister" (MT19937); and the framework files named at each function.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import random as python_random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minidl import config, elementwise, naming

Pair = tuple[int, int]
Shape = Sequence[int]
Array = npt.NDArray[Any]
Words = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

_MASK32 = 0xFFFFFFFF

# ---------------------------------------------------------------------------------------------------------
# Generators of words
# ---------------------------------------------------------------------------------------------------------

_PHILOX_M0, _PHILOX_M1 = 0xD2511F53, 0xCD9E8D57  # multipliers
_PHILOX_W0, _PHILOX_W1 = 0x9E3779B9, 0xBB67AE85  # key increments: golden ratio, sqrt(3) - 1
_PHILOX_CONSTANTS = np.array([_PHILOX_M0, _PHILOX_M1, _PHILOX_W0, _PHILOX_W1], dtype=np.uint64)
_PHILOX_CHUNK = 16384  # counters at a time: six uint64 buffers of this length stay inside a 1 MiB L2 cache


def _philox_rounds(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    """Ten Philox rounds on Python ints or on uint64 arrays, all below 2³².

    (c0, c1, c2, c3) ← (hi(M₁c2) ⊕ c1 ⊕ k0,  lo(M₁c2),  hi(M₀c0) ⊕ c3 ⊕ k1,  lo(M₀c0));  k ← k + W
    """
    for _ in range(10):
        p0, p1 = c0 * _PHILOX_M0, c2 * _PHILOX_M1
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK32, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK32
        k0, k1 = (k0 + _PHILOX_W0) & _MASK32, (k1 + _PHILOX_W1) & _MASK32
    return c0, c1, c2, c3


def philox4x32(counter: npt.ArrayLike, key: npt.ArrayLike) -> Words:
    """Philox4x32-10: counter (..., 4) and key (..., 2), uint32 words -> (..., 4) uint32 words.

    Leading axes broadcast. Raises: ValueError if the last axes are not 4 and 2 long.
    Source: Salmon et al. 2011, section 3.3.
    """
    c, k = np.asarray(counter, dtype=np.uint64), np.asarray(key, dtype=np.uint64)
    if c.shape[-1:] != (4,) or k.shape[-1:] != (2,):
        raise ValueError(f"philox4x32: expected counter (..., 4) and key (..., 2); got {c.shape} and {k.shape}.")
    words = _philox_rounds(c[..., 0], c[..., 1], c[..., 2], c[..., 3], k[..., 0], k[..., 1])
    return np.stack(np.broadcast_arrays(*words), axis=-1).astype(np.uint32)


def philox_words(k0: Any, k1: Any, c2: Any, c3: Any, blocks: int) -> Words:
    """The words of Philox4x32-10 at counters (i, 0, c2, c3), i = 0 … blocks - 1: the fast path.

    k0, k1, c2, c3: ints, or (S,) uint64 arrays of S independent streams. Returns (S, 4·blocks); ints: S = 1.
    blocks must be below 2³².
    """
    words = np.empty((np.size(k0), blocks, 4), dtype=np.uint32)
    for streams, columns, chunk in philox_chunks(k0, k1, c2, c3, blocks):
        words[streams, columns] = chunk
    return words.reshape(len(words), 4 * blocks)


def philox_chunks(k0: Any, k1: Any, c2: Any, c3: Any, blocks: int) -> Iterator[tuple[slice, slice, Words]]:
    """The words of `philox_words` chunk by chunk, for work on them while they are in the cache.

    Yields (streams, columns, chunk): chunk = words[streams, columns], (s, b, 4), is valid until the next one.
    """
    k0, k1, c2, c3 = (np.atleast_1d(np.asarray(v, dtype=np.uint64))[:, None] for v in (k0, k1, c2, c3))
    keys = (np.stack((k0, k1)) + _PHILOX_KEY_STEPS) & _U64_MASK32  # (10, 2, S, 1)
    group = min(len(k0), max(1, _PHILOX_CHUNK // max(1, blocks)))
    most = group * min(blocks, _PHILOX_CHUNK)
    buffers, words = np.empty((3, 2, most), dtype=np.uint64), np.empty((most, 4), dtype=np.uint32)
    for s in range(0, len(k0), group):
        streams = slice(s, min(s + group, len(k0)))
        for start in range(0, blocks, _PHILOX_CHUNK):
            columns = slice(start, min(start + _PHILOX_CHUNK, blocks))
            shape = (streams.stop - s, columns.stop - start)
            size = shape[0] * shape[1]
            chunk = words[:size].reshape(*shape, 4)
            if config.elementwise() == "numba":
                fixed = (v[streams, 0] for v in (k0, k1, c2, c3))
                elementwise.compiled(elementwise.philox_words)(chunk, start, *fixed, _PHILOX_CONSTANTS)
            else:
                work = buffers[..., :size].reshape(3, 2, *shape)
                _philox_fill(chunk, work, start, keys[:, :, streams], c2[streams], c3[streams])
            yield streams, columns, chunk


_U64_MASK32, _U64_32 = np.uint64(_MASK32), np.uint64(32)
_PHILOX_MULTIPLIERS = np.array([_PHILOX_M0, _PHILOX_M1], dtype=np.uint64)[:, None, None]
_PHILOX_KEY_STEPS = np.outer(range(10), (_PHILOX_W0, _PHILOX_W1)).astype(np.uint64)[:, :, None, None]


def _philox_fill(out: Words, buffers: Any, start: int, keys: Any, c2: Any, c3: Any) -> None:
    """Fill out (S, blocks, 4): `_philox_rounds` in place, (c0, c2) in one array and (c1, c3) in another.

    buffers (3, 2, S, blocks) uint64; keys (10, 2, S, 1), one pair a round; c2, c3 (S, 1). c1 and c3 keep the
    high bits of their product: the next round's mask, or the cast to uint32 at the end, cuts them off.
    """
    even, odd, product = buffers
    even[0], even[1] = np.arange(start, start + out.shape[1], dtype=np.uint64), c2
    odd[0], odd[1] = 0, c3
    for key in keys:
        np.multiply(even, _PHILOX_MULTIPLIERS, out=product)
        swapped = product[::-1]  # M₁c2 makes the new c0 and c1, M₀c0 the new c2 and c3
        np.right_shift(swapped, _U64_32, out=even)
        np.bitwise_xor(even, odd, out=even)
        np.bitwise_xor(even, key, out=even)
        np.bitwise_and(even, _U64_MASK32, out=even)
        odd, product = swapped, odd
    for j, c in enumerate((even[0], odd[0], even[1], odd[1])):
        out[..., j] = c


_THREEFRY_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_THREEFRY_PARITY = 0x1BD11BDA


def threefry2x32(counter: npt.ArrayLike, key: npt.ArrayLike) -> Words:
    """Threefry2x32-20: counter (..., 2) and key (..., 2), uint32 words -> (..., 2) uint32 words.

        each round:          x0 ← x0 + x1;  x1 ← rotl(x1, r) ⊕ x0
        after four rounds i: x0 ← x0 + k[i+1];  x1 ← x1 + k[i+2] + i + 1     k2 = k0 ⊕ k1 ⊕ parity

    Leading axes broadcast. Raises: ValueError if a last axis is not 2 long.
    Source: Salmon et al. 2011, section 3.2.
    """
    c, k = np.asarray(counter, dtype=np.uint32), np.asarray(key, dtype=np.uint32)
    if c.shape[-1:] != (2,) or k.shape[-1:] != (2,):
        raise ValueError(f"threefry2x32: expected counter (..., 2) and key (..., 2); got {c.shape} and {k.shape}.")
    # one axis more, so that nothing is a NumPy scalar: those warn when they wrap, arrays do not
    k = k[..., None, :]
    keys = (k[..., 0], k[..., 1], k[..., 0] ^ k[..., 1] ^ np.uint32(_THREEFRY_PARITY))
    x0, x1 = c[..., None, 0] + keys[0], c[..., None, 1] + keys[1]
    for i in range(5):
        for r in _THREEFRY_ROTATIONS[i % 2]:
            x0 += x1
            high = x1 << np.uint32(r)
            x1 >>= np.uint32(32 - r)
            x1 |= high
            x1 ^= x0
        x0 += keys[(i + 1) % 3]
        x1 += keys[(i + 2) % 3] + np.uint32(i + 1)
    return np.stack((x0, x1), axis=-1)[..., 0, :]


def mt19937(seed: int) -> np.random.RandomState:
    """The Mersenne Twister after init_genrand(seed), 0 <= seed < 2³²: `mt19937_words` draws from it.

    NumPy's RandomState is that generator, and its stream is frozen by NumPy's compatibility policy.
    Source: Matsumoto & Nishimura 1998; the seeding is that of mt19937ar.c (2002).
    """
    return np.random.RandomState(seed)


def mt19937_in(state: Array) -> np.random.RandomState:
    """The Mersenne Twister in a state, (625,): its 624 words and its position in them, 624 where all are used up."""
    generator = np.random.RandomState()
    generator.set_state(("MT19937", state[:-1], int(state[-1]), 0, 0.0))
    return generator


def mt19937_state(generator: np.random.RandomState) -> npt.NDArray[np.uint32]:
    """The state that mt19937_in takes."""
    _, words, position, *_ = generator.get_state(legacy=True)
    return np.append(words, np.uint32(position))


def mt19937_words(generator: np.random.RandomState, count: int) -> Words:
    """The next `count` raw uint32 words of the generator."""
    return generator.randint(0, 2**32, size=count, dtype=np.uint32)


# ---------------------------------------------------------------------------------------------------------
# Seeds
# ---------------------------------------------------------------------------------------------------------


def make_default_seed() -> int:
    """A seed for whatever was given none: one randint(1, 10⁹) of Python's global generator, as in Keras."""
    return python_random.randint(1, 10**9)


class SeedGenerator:
    """A seed that changes at every draw: state = [seed, counter], and counter grows by 1 per draw.

    seed: a Python int in the int64 range; None draws `make_default_seed()` now.
    Raises: ValueError if seed is another type (NumPy's integers too, as in Keras) or out of range.
    """

    def __init__(self, seed: int | None = None, name: str | None = None) -> None:
        self._initial_seed = seed
        if seed is None:
            seed = make_default_seed()
        if not isinstance(seed, int):
            raise ValueError(
                f"SeedGenerator: seed must be a Python int or None; got {seed!r} of type "
                f"{type(seed).__name__}. Convert it with int(seed)."
            )
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f"SeedGenerator: seed must fit 64 bits with sign; got {seed}.")
        self.name = naming.auto_name("SeedGenerator") if name is None else name
        self.state: npt.NDArray[np.int64] = np.array([seed, 0], dtype=np.int64)

    def next(self, ordered: bool = True) -> Pair:
        """The current (seed, counter); then counter ← counter + 1.

        ordered=False: both ← (both + 1)·5387 mod 933199 instead, Keras's rule for its global generator.
        """
        pair = (int(self.state[0]), int(self.state[1]))
        if ordered:
            self.state[1] += 1
        else:
            self.state[:] = (self.state + 1) * 5387 % 933199
        return pair

    def advance(self, steps: int) -> Pair:
        """The current (seed, counter); then counter ← counter + steps: for `dropout_masks` of those steps."""
        pair = (int(self.state[0]), int(self.state[1]))
        self.state[1] += steps
        return pair

    def get_config(self) -> dict[str, Any]:
        return {"seed": self._initial_seed, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SeedGenerator:
        return cls(**config)


Seed = int | SeedGenerator | None

_global_seed: int | None = None
_global_generator: SeedGenerator | None = None
_torch_generator: np.random.RandomState | None = None


def global_seed() -> int | None:
    """The seed of the last `utils.set_random_seed`, or None."""
    return _global_seed


def reset_global_state(seed: int) -> None:
    """Remember the global seed, drop the global SeedGenerator: minidl.random's part of `set_random_seed`."""
    global _global_seed, _global_generator, _torch_generator
    _global_seed, _global_generator, _torch_generator = seed, None, mt19937(seed)


def global_state() -> tuple[Any, ...]:
    """What reset_global_state replaces, for restore_global_state."""
    return _global_seed, _global_generator, _torch_generator


def restore_global_state(state: tuple[Any, ...]) -> None:
    """Put back what global_state() returned."""
    global _global_seed, _global_generator, _torch_generator
    _global_seed, _global_generator, _torch_generator = state


def drop_global_generator() -> None:
    """Drop the global SeedGenerator alone: minidl.random's part of `clear_session`."""
    global _global_generator
    _global_generator = None


config.forget_at_clear_session(drop_global_generator)


def draw_seed(seed: Seed) -> Pair:
    """(seed, counter) for one draw: an int means (seed, 0), a SeedGenerator its next pair.

    None means the global SeedGenerator, made at its first use. Raises: ValueError for another type.
    Source: keras/src/random/seed_generator.py, draw_seed.
    """
    global _global_generator
    if seed is None:
        _global_generator = _global_generator or SeedGenerator()
        return _global_generator.next(ordered=False)
    if isinstance(seed, SeedGenerator):
        return seed.next()
    if isinstance(seed, int):
        return seed, 0
    raise ValueError(f"seed must be a Python int, a SeedGenerator or None; got {seed!r} of type {type(seed).__name__}.")


def _count(shape: Shape) -> int:
    return math.prod(shape)


# ---------------------------------------------------------------------------------------------------------
# TensorFlow
# ---------------------------------------------------------------------------------------------------------

_SCRAMBLE_KEY = (0x3EC8F720, 0x02461E29)
_MANTISSA_BITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}


def tensorflow_key_counter(seed: int, counter: Any) -> tuple[Any, Any, Any, Any]:
    """Philox key and high counter words (k0, k1, c2, c3) of a pair; counter: an int or a (S,) array.

        s0, s1 = seed mod (2³¹ - 2), counter mod (2³¹ - 2)
        k0, k1, c2, c3 = philox(counter=(s0, 0, s1, 0), key=a constant)

    Source: _cast_seed in keras/src/backend/tensorflow/random.py; _philox_scramble_seed in
    tensorflow/python/ops/random_ops_util.py. XLA uses the same.
    """
    s0, s1 = seed % (2**31 - 2), counter % (2**31 - 2)
    if isinstance(s1, np.ndarray):
        s1 = s1.astype(np.uint64)
    return _philox_rounds(s0, 0, s1, 0, *_SCRAMBLE_KEY)


def tensorflow_words(pair: Pair, count: int, *, steps: int = 1) -> Words:
    """`count` words for each of the pairs (seed, counter) … (seed, counter + steps - 1): (steps, count)."""
    return philox_words(*_tensorflow_streams(pair, steps), -(-count // 4))[:, :count]


def _tensorflow_streams(pair: Pair, steps: int) -> tuple[Any, Any, Any, Any]:
    """`tensorflow_key_counter` of the pairs (seed, counter) … (seed, counter + steps - 1)."""
    seed, counter = pair
    return tensorflow_key_counter(seed, counter if steps == 1 else counter + np.arange(steps, dtype=np.int64))


def _tensorflow_each(
    function: Callable[[Words], Array], result: npt.DTypeLike, pair: Pair, count: int, dtype: str, *, steps: int = 1
) -> Array:
    """(steps, count) values of function, which turns words into numbers one by one (float64: two by two).

    It is called chunk by chunk, while the words are in the cache.
    """
    words_each = 2 if dtype == "float64" else 1
    blocks = -(-count * words_each // 4)
    values = np.empty((steps, blocks, 4 // words_each), dtype=result)
    for streams, columns, words in philox_chunks(*_tensorflow_streams(pair, steps), blocks):
        values[streams, columns] = function(words)
    return values.reshape(steps, -1)[:, :count]


def tensorflow_fractions(words: Words, dtype: str, *, xla: bool = False) -> tuple[Any, int]:
    """(fraction, bits) with u = fraction · 2^-bits in [0, 1); float64 takes two words (x0, x1) a number.

                    eager and graph                 XLA
        float32     b mod 2²³                       b >> 9
        float16     b mod 2¹⁰                       b mod 2¹⁰
        bfloat16    b mod 2⁷                        b >> 9, then u is cut to 8 significant bits
        float64     (x0 mod 2²⁰)·2³² + x1           (x1·2³² + x0) >> 12

    Source: Uint32ToFloat and its kin in xla/tsl/lib/random/random_distributions_utils.h and
    random_distributions.h; xla/hlo/builder/lib/prng.cc.
    """
    bits = _MANTISSA_BITS[dtype]
    if dtype == "float64":
        x0, x1 = words[..., 0::2].astype(np.uint64), words[..., 1::2].astype(np.uint64)
        if xla:
            return ((x1 << np.uint64(32)) | x0) >> np.uint64(12), bits
        return ((x0 & np.uint64(0xFFFFF)) << np.uint64(32)) | x1, bits
    if xla and dtype != "float16":
        return words >> np.uint32(9), 23
    return words & np.uint32(2**bits - 1), bits


def tensorflow_uniform01(pair: Pair, count: int, dtype: str, *, xla: bool = False) -> Array:
    """(count,) uniform numbers in [0, 1): `tf.random.stateless_uniform`, xla: inside `jit_compile=True`.

    dtype: float16, bfloat16 (needs the ml_dtypes package), float32 or float64.
    """
    real = np.dtype("float32" if dtype == "bfloat16" else dtype).type

    def scale(words: Words) -> Array:
        fractions, bits = tensorflow_fractions(words, dtype, xla=xla)
        u: Array = fractions.astype(real) * real(2.0**-bits)
        return u

    u = _tensorflow_each(scale, real, pair, count, dtype)[0]
    if dtype != "bfloat16":
        return u
    bfloat16 = importlib.import_module("ml_dtypes").bfloat16
    return (u.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).astype(bfloat16)


def _tf_uniform(pair: Pair, shape: Shape, minval: float, maxval: float, dtype: str) -> Array:
    """u·(hi - lo) + lo, rounded after each operation; lo and hi become float32 first (tf.cast)."""
    lo, hi = np.float32(minval).astype(dtype), np.float32(maxval).astype(dtype)
    u = tensorflow_uniform01(pair, _count(shape), dtype)
    u *= hi - lo
    u += lo
    return u.reshape(shape)


def _box_muller_float32(x0: Words, x1: Words) -> npt.NDArray[np.float32]:
    """Words (..., P) and (..., P) -> standard normals (..., P, 2).

        u1 = max(u(x0), 1e-7),  v = 2π u(x1),  r = √(-2 ln u1);  outputs r sin v, r cos v

    Source: BoxMullerFloat in xla/tsl/lib/random/random_distributions_utils.h.
    """
    scale = np.float32(2.0**-23)
    u1 = np.maximum((x0 & np.uint32(0x7FFFFF)).astype(np.float32) * scale, np.float32(1e-7))
    v = (2 * math.pi * ((x1 & np.uint32(0x7FFFFF)) * 2.0**-23)).astype(np.float32)
    r = np.sqrt(np.float32(-2) * logf(u1))
    sin, cos = sincosf(v)
    return np.stack((sin * r, cos * r), axis=-1)


def _box_muller_float64(words: Words) -> npt.NDArray[np.float64]:
    """Words (..., 4·P) -> standard normals (..., P, 2); as in float32, with the C library's log, sin and cos.

    math.log, math.sin and math.cos call it; NumPy's own differ in the last bit for 0.2 % of the inputs.
    Source: BoxMullerDouble in xla/tsl/lib/random/random_distributions_utils.h.
    """
    fractions, bits = tensorflow_fractions(words, "float64")
    u = fractions * 2.0**-bits
    u1, v = np.maximum(u[..., 0::2], 1e-7), 2 * math.pi * u[..., 1::2]
    r = np.sqrt(-2.0 * _each(math.log, u1))
    return np.stack((_each(math.sin, v) * r, _each(math.cos, v) * r), axis=-1)


def _each(function: Any, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """function of each element, one by one: exact where NumPy's vectorised function is not."""
    return np.array([function(value) for value in x.ravel().tolist()], dtype=np.float64).reshape(x.shape)


def _tf_box_muller(words: Words, dtype: str) -> Array:
    """Words (..., 4·B) -> standard normals, (..., 4·B) in float32 and (..., 2·B) in float64."""
    if dtype == "float64":
        z: Array = _box_muller_float64(words)
    else:
        z = _box_muller_float32(words[..., 0::2], words[..., 1::2])
    return z.reshape(*words.shape[:-1], -1)


def _tf_normal(pair: Pair, shape: Shape, mean: float, stddev: float, dtype: str) -> Array:
    count, per_block = _count(shape), 2 if dtype == "float64" else 4
    words = tensorflow_words(pair, 4 * -(-count // per_block))[0]
    z = _tf_box_muller(words, dtype)[:count].reshape(shape)
    return z * z.dtype.type(stddev) + z.dtype.type(mean)


def _xla_normal(pair: Pair, shape: Shape, mean: float, stddev: float, dtype: str) -> Array:
    """Normals drawn inside `jit_compile=True`: Box-Muller too, of XLA's own fractions, paired along one axis.

    Along the first axis of even length, else the longest, which is drawn one longer; (2i, 2i + 1) are a pair.
    float64: equal. float32: XLA's own log, sin and cos are not reproduced; glibc's are used.
    Source: BoxMullerTransform in xla/hlo/builder/lib/prng.cc; which axis was found by trying shapes.
    """
    if not shape:
        return _xla_normal(pair, (1,), mean, stddev, dtype).reshape(())
    even = [axis for axis, size in enumerate(shape) if size % 2 == 0]
    axis = even[0] if even else int(np.argmax(shape))
    drawn = [size + size % 2 if i == axis else size for i, size in enumerate(shape)]
    u = np.moveaxis(tensorflow_uniform01(pair, _count(drawn), dtype, xla=True).reshape(drawn), axis, 0)
    real = u.dtype.type
    u1, v = np.maximum(u[0::2], real(1e-7)), real(2 * math.pi) * u[1::2]
    if dtype == "float64":
        r, sin, cos = np.sqrt(-2.0 * _each(math.log, u1)), _each(math.sin, v), _each(math.cos, v)
    else:
        r, (sin, cos) = np.sqrt(np.float32(-2) * logf(u1)), sincosf(v)  # type: ignore[assignment]
    z = np.stack((sin * r, cos * r), axis=1).reshape(u.shape)[: shape[axis]]
    return np.ascontiguousarray(np.moveaxis(z, 0, axis)) * real(stddev) + real(mean)


def _tf_truncated_normal(pair: Pair, shape: Shape, mean: float, stddev: float, dtype: str) -> Array:
    """Each group of 4 numbers (2 in float64) has its own Philox counters and keeps its first |z| < 2.

    Group g owns the counters from 256 g (128 g) on, so that threads can fill groups in any order.
    Source: FillPhiloxRandomTask<Distribution, true> in tensorflow/core/kernels/random_op_cpu.h.
    """
    count, group = _count(shape), 2 if dtype == "float64" else 4
    k0, k1, c2, c3 = tensorflow_key_counter(*pair)
    z = np.empty((-(-count // group), group), dtype=dtype)
    filled = np.zeros(len(z), dtype=np.intp)  # numbers kept so far in each group
    block = 0
    while (open_groups := np.flatnonzero(filled < group)).size:
        index = open_groups.astype(np.uint64) * np.uint64(64 * group) + np.uint64(block)
        counter = np.empty((len(index), 4), dtype=np.uint64)
        counter[:, 0], counter[:, 1], counter[:, 2], counter[:, 3] = (
            index & _U64_MASK32,
            index >> _U64_32,
            c2,
            c3,
        )
        candidates = _tf_box_muller(philox4x32(counter, (k0, k1)), dtype)
        kept = np.abs(candidates) < 2
        place = filled[open_groups, None] + np.cumsum(kept, axis=1) - 1
        row, column = np.nonzero(kept & (place < group))
        z[open_groups[row], place[row, column]] = candidates[row, column]
        filled[open_groups] += kept.sum(axis=1)
        block += 1
    return z.reshape(-1)[:count].reshape(shape) * z.dtype.type(stddev) + z.dtype.type(mean)


# glibc's float32 log, sin and cos, which TensorFlow calls; NumPy's differ in the last bit for 12 to 22 % of
# the inputs. Tables and coefficients: ARM optimized-routines (MIT, or Apache-2.0 WITH LLVM-exception), by way
# of glibc's e_logf_data.c and sincosf_data.c.


def _hex(*literals: str) -> npt.NDArray[np.float64]:
    return np.array([float.fromhex(text) for text in literals])


# fmt: off
_LOGF_INVERSE_C = _hex(
    "0x1.661ec79f8f3bep+0", "0x1.571ed4aaf883dp+0", "0x1.49539f0f010bp+0", "0x1.3c995b0b80385p+0",
    "0x1.30d190c8864a5p+0", "0x1.25e227b0b8eap+0", "0x1.1bb4a4a1a343fp+0", "0x1.12358f08ae5bap+0",
    "0x1.0953f419900a7p+0", "0x1p+0", "0x1.e608cfd9a47acp-1", "0x1.ca4b31f026aap-1",
    "0x1.b2036576afce6p-1", "0x1.9c2d163a1aa2dp-1", "0x1.886e6037841edp-1", "0x1.767dcf5534862p-1")
_LOGF_LOG_C = _hex(
    "-0x1.57bf7808caadep-2", "-0x1.2bef0a7c06ddbp-2", "-0x1.01eae7f513a67p-2", "-0x1.b31d8a68224e9p-3",
    "-0x1.6574f0ac07758p-3", "-0x1.1aa2bc79c81p-3", "-0x1.a4e76ce8c0e5ep-4", "-0x1.1973c5a611cccp-4",
    "-0x1.252f438e10c1ep-5", "0x0p+0", "0x1.aa5aa5df25984p-5", "0x1.c5e53aa362eb4p-4",
    "0x1.526e57720db08p-3", "0x1.bc2860d22477p-3", "0x1.1058bc8a07ee1p-2", "0x1.4043057b6ee09p-2")
# fmt: on
_LOGF_A = _hex("-0x1.00ea348b88334p-2", "0x1.5575b0be00b6ap-2", "-0x1.ffffef20a4123p-2")
_LN2 = float.fromhex("0x1.62e42fefa39efp-1")
_SINF = _hex("-0x1.555545995a603p-3", "0x1.1107605230bc4p-7", "-0x1.994eb3774cf24p-13")
_COSF = _hex("-0x1.ffffffd0c621cp-2", "0x1.55553e1068f19p-5", "-0x1.6c087e89a359dp-10", "0x1.99343027bf8c3p-16")
_TWO_OVER_PI_2_24 = float.fromhex("0x1.45F306DC9C883p+23")
_HALF_PI = float.fromhex("0x1.921FB54442D18p0")


def logf(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """glibc's logf for positive normal float32, equal to the last bit.

        x = 2ᵏ z, z near 1;  1/c and ln c from a table of 16;  r = z/c - 1
        ln x = k ln 2 + ln c + ln(1 + r),  ln(1 + r) ≈ r + A₂r² + A₁r³ + A₀r⁴   in float64

    Source: glibc 2.36 sysdeps/ieee754/flt-32/e_logf.c, from ARM optimized-routines (licence: see above).
    """
    bits = x.view(np.uint32)
    t = bits - np.uint32(0x3F330000)
    j = (t >> np.uint32(19)) & np.uint32(15)
    k = t.view(np.int32) >> 23
    z = (bits - (t & np.uint32(0xFF800000))).view(np.float32).astype(np.float64)
    r = z * _LOGF_INVERSE_C[j] - 1
    y0 = _LOGF_LOG_C[j] + k * _LN2
    a0, a1, a2 = _LOGF_A
    r2 = r * r
    y = a0 * r2 + (a1 * r + a2)
    return (y * r2 + (y0 + r)).astype(np.float32)


def sincosf(v: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """glibc's (sinf, cosf) for 0 <= v < 120, equal to the last bit.

    v = q π/2 + r: polynomials of r in float64; the quadrant q mod 4 swaps sine and cosine and sets signs.
    Source: glibc 2.36 sysdeps/ieee754/flt-32/s_sincosf.h, from ARM optimized-routines (licence: see above).
    """
    x = v.astype(np.float64)
    q = ((x * _TWO_OVER_PI_2_24).astype(np.int64) + 0x800000) >> 24
    below_quarter_pi = (v.view(np.uint32) >> np.uint32(20)) < (np.float32(math.pi / 4).view(np.uint32) >> 20)
    q = np.where(below_quarter_pi, 0, q)
    r = x - q * _HALF_PI
    rs = np.where(((q + 1) & 2) != 0, -r, r)  # the sine changes its sign in quadrants 1 and 2
    r2 = r * r
    r4 = r2 * r2
    r3, r6 = r2 * rs, r4 * r2
    s1, s2, s3 = _SINF
    c1, c2, c3, c4 = _COSF
    sin = ((rs + r3 * s1) + (r3 * r2) * (s2 + r2 * s3)).astype(np.float32)
    cos = (((1 + r2 * c1) + r4 * c2) + r6 * (c3 + r2 * c4)).astype(np.float32)
    cos = np.where(q & 2, -cos, cos)
    odd = (q & 1) != 0
    return np.where(odd, cos, sin), np.where(odd, sin, cos)


# ---------------------------------------------------------------------------------------------------------
# JAX
# ---------------------------------------------------------------------------------------------------------

_JAX_CHUNK = 32768
# erfinv(x) = x·P(w - 2.5) for w < 5, x·Q(√w - 3) above; w = -ln(1 - x²); highest power first.
# fmt: off
_ERFINV_P = np.array([2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
                      -0.00125372503, -0.00417768164, 0.246640727, 1.50140941], dtype=np.float32)
_ERFINV_Q = np.array([-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
                      -0.0076224613, 0.00943887047, 1.00167406, 2.83297682], dtype=np.float32)
# fmt: on


def jax_words(pair: Pair, count: int, *, steps: int = 1) -> Words:
    """(steps, count) words of `jax.random.bits` with raw keys (seed, counter) … (seed, counter + steps - 1).

        word i = y0 ⊕ y1,  (y0, y1) = threefry2x32(counter=(0, i), key)

    Raises: OverflowError unless 0 <= seed < 2³², as Keras does on JAX.
    Source: jax/_src/random/core.py and threefry2x32.py, with jax_threefry_partitionable on, its default.
    """
    seed, counter = pair
    if not 0 <= seed < 2**32:
        raise OverflowError(f"On the jax stream a seed must be in [0, 2**32); got {seed}.")
    words = np.empty((steps, count), dtype=np.uint32)
    group = max(1, _JAX_CHUNK // max(1, count))
    for s in range(0, steps, group):
        for start in range(0, count, _JAX_CHUNK):
            out = words[s : s + group, start : start + _JAX_CHUNK]
            key = np.empty((len(out), 1, 2), dtype=np.uint32)
            key[:, 0, 0], key[:, 0, 1] = seed, (counter + s + np.arange(len(out))) & _MASK32
            index = np.zeros((out.shape[1], 2), dtype=np.uint32)
            index[:, 1] = np.arange(start, start + out.shape[1])
            y = threefry2x32(index, key)
            np.bitwise_xor(y[..., 0], y[..., 1], out=out)
    return words


def _fma(a: Any, b: Any, c: Any) -> npt.NDArray[np.float32]:
    """float32(a·b + c) as if rounded once: in float64 the product is exact and the sum nearly so."""
    return (np.multiply(a, b, dtype=np.float64) + c).astype(np.float32)


def _jax_uniform_float32(pair: Pair, shape: Shape, minval: Any, maxval: Any) -> npt.NDArray[np.float32]:
    """max(lo, fma(u, hi - lo, lo)),  u = (b >> 9)·2⁻²³: XLA fuses multiply and add where the CPU can."""
    u = (jax_words(pair, _count(shape))[0] >> np.uint32(9)).astype(np.float32) * np.float32(2.0**-23)
    lo, hi = np.float32(minval), np.float32(maxval)
    return np.maximum(lo, _fma(u, hi - lo, lo)).reshape(shape)


def _erfinv(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """XLA's float32 erfinv, up to 3 ulp: its log1p is not reproduced, a correctly rounded one is used.

    Source: Giles 2012, "Approximating the erfinv function"; ErfInv32 in xla/hlo/builder/lib/math.cc.
    """
    w = (-np.log1p(-(x * x).astype(np.float64))).astype(np.float32)
    small = w < 5
    w = np.where(small, w - np.float32(2.5), np.sqrt(w) - np.float32(3))
    y = np.where(small, _ERFINV_P[0], _ERFINV_Q[0])
    for p, q in zip(_ERFINV_P[1:], _ERFINV_Q[1:], strict=True):
        y = _fma(y, w, np.where(small, p, q))
    return y * x


def _jax_uniform(pair: Pair, shape: Shape, minval: float, maxval: float, dtype: str) -> Array:
    return _jax_uniform_float32(pair, shape, minval, maxval).astype(dtype)


def _jax_normal(pair: Pair, shape: Shape, mean: float, stddev: float, dtype: str) -> Array:
    """z = √2 erfinv(u),  u uniform in (-1, 1)."""
    u = _jax_uniform_float32(pair, shape, np.nextafter(np.float32(-1), np.float32(0)), 1.0)
    z = np.float32(math.sqrt(2)) * _erfinv(u)
    return (z * np.float32(stddev) + np.float32(mean)).astype(dtype)


def _jax_truncated_normal(pair: Pair, shape: Shape, mean: float, stddev: float, dtype: str) -> Array:
    """z = √2 erfinv(u),  u uniform in (-e, e),  e = erf(2/√2);  z is kept inside (-2, 2)."""
    e, two = np.float32(0.95449972), np.float32(2)
    below_two = np.nextafter(two, np.float32(0))
    z = np.float32(math.sqrt(2)) * _erfinv(_jax_uniform_float32(pair, shape, -e, e))
    return (np.clip(z, -below_two, below_two) * np.float32(stddev) + np.float32(mean)).astype(dtype)


# ---------------------------------------------------------------------------------------------------------
# torch
# ---------------------------------------------------------------------------------------------------------


def _torch_seeded(pair: Pair) -> np.random.RandomState:
    """Keras on torch adds seed and counter, so (7, 3) and (8, 2) give the same numbers."""
    return mt19937((pair[0] + pair[1]) & _MASK32)


def _torch_seeded_steps(pair: Pair, steps: int) -> Iterator[np.random.RandomState]:
    """One generator, seeded for each of the pairs (seed, counter) … (seed, counter + steps - 1) in turn."""
    generator = _torch_seeded(pair)
    for t in range(steps):
        generator.seed((pair[0] + pair[1] + t) & _MASK32)
        yield generator


def _torch_uniform01(generator: np.random.RandomState, count: int, dtype: str) -> Array:
    """float32: (b mod 2²⁴)·2⁻²⁴.  float64: ((b0·2³² + b1) mod 2⁵³)·2⁻⁵³.

    Source: uniform_real_distribution in ATen/core/TransformationHelper.h.
    """
    if dtype == "float32":
        fractions = mt19937_words(generator, count) & np.uint32(2**24 - 1)
        return fractions.astype(np.float32) * np.float32(2.0**-24)
    return _torch_uint53(generator, count) * 2.0**-53


def _torch_uint64(generator: np.random.RandomState, count: int) -> npt.NDArray[np.uint64]:
    words = mt19937_words(generator, 2 * count).astype(np.uint64)
    return (words[0::2] << _U64_32) | words[1::2]


def _torch_uint53(generator: np.random.RandomState, count: int) -> npt.NDArray[np.uint64]:
    return _torch_uint64(generator, count) & np.uint64(2**53 - 1)


def _torch_uniform(pair: Pair, shape: Shape, minval: float, maxval: float, dtype: str) -> Array:
    u = _torch_uniform01(_torch_seeded(pair), _count(shape), dtype).reshape(shape)
    return u * u.dtype.type(maxval - minval) + u.dtype.type(minval)


def _torch_normal(pair: Pair, shape: Shape, mean: float, stddev: float, dtype: str) -> Array:
    """Box-Muller; fewer than 16 numbers one by one in float64, else in blocks of 16 in dtype.

        one by one:  r = √(-2 ln(1 - u2)), v = 2π u1;  r cos v, then r sin v
        in blocks:   r = √(-2 ln(1 - u[j])), v = 2π u[j + 8], j < 8;  out[j] = r cos v, out[j + 8] = r sin v

    A last incomplete block: the last 16 numbers are drawn anew from 16 more u.
    Source: normal_fill and cpu_serial normal in ATen/native/cpu/DistributionTemplates.h.
    """
    count, generator = _count(shape), _torch_seeded(pair)
    if count < 16:
        u = _torch_uniform01(generator, count + count % 2, "float64")
        u1, u2 = u[0::2], u[1::2]
        r, v = np.sqrt(-2.0 * _each(math.log1p, -u2)), 2 * math.pi * u1
        z = np.stack((r * _each(math.cos, v), r * _each(math.sin, v)), axis=-1).ravel()[:count]
        return (z * stddev + mean).astype(dtype).reshape(shape)
    u = _torch_uniform01(generator, count, dtype)
    z = np.empty_like(u)
    whole = count - count % 16
    z[:whole] = _torch_normal_blocks(u[:whole])
    if count % 16:
        z[-16:] = _torch_normal_blocks(_torch_uniform01(generator, 16, dtype))
    return (z * z.dtype.type(stddev) + z.dtype.type(mean)).reshape(shape)


def _torch_normal_blocks(u: Array) -> Array:
    blocks = u.reshape(-1, 2, 8)
    one_minus_u = 1 - blocks[:, 0]
    v = (2 * math.pi * blocks[:, 1].astype(np.float64)).astype(u.dtype)
    r = np.sqrt(-2 * np.log(one_minus_u))
    return np.stack((r * np.cos(v), r * np.sin(v)), axis=1).ravel()


def _torch_truncated_normal(pair: Pair, shape: Shape, mean: float, stddev: float, dtype: str) -> Array:
    """The first |z| < 2 of four; if there is none, the first: about 4 in a million exceed 2 stddev."""
    z = _torch_normal(pair, (*shape, 4), 0.0, 1.0, dtype)
    first = np.argmax(np.abs(z) < 2, axis=-1)[..., None]
    z = np.take_along_axis(z, first, axis=-1)[..., 0]
    return z * z.dtype.type(stddev) + z.dtype.type(mean)


def torch_global_generator() -> np.random.RandomState:
    """torch's global CPU generator: seeded by `set_random_seed`, else from the operating system."""
    global _torch_generator
    if _torch_generator is None:
        _torch_generator = np.random.RandomState()
    return _torch_generator


@contextlib.contextmanager
def using_torch_generator(generator: np.random.RandomState) -> Iterator[None]:
    """Inside, this is torch's global generator."""
    global _torch_generator
    before, _torch_generator = _torch_generator, generator
    try:
        yield
    finally:
        _torch_generator = before


def _torch_random_int64(generator: np.random.RandomState | None = None) -> int:
    """torch's `random_()` on an int64 tensor of one element, from the global generator, or another."""
    return int(_torch_uint64(generator or torch_global_generator(), 1)[0]) & (2**63 - 1)


def torch_unseeded_dropout_mask(shape: Shape, rate: float) -> Mask:
    """Keep flags of an unseeded Dropout layer on torch, which draws from the global generator.

        keep = u < 1 - rate,  u of 53 bits

    That is PyTorch's CPU path except on Intel processors, where it calls MKL instead.
    Source: keras/src/backend/torch/random.py, dropout, "fast path"; bernoulli_ in ATen/native/cpu.
    """
    _check_rate(rate)
    fractions = _torch_uint53(torch_global_generator(), _count(shape))
    return (fractions < np.uint64(math.ceil((1.0 - rate) * 2.0**53))).reshape(shape)


# ---------------------------------------------------------------------------------------------------------
# NumPy
# ---------------------------------------------------------------------------------------------------------


def _numpy_generator(pair: Pair) -> np.random.Generator:
    """SFC64 keyed by the pair: not Keras's numbers; the fastest of NumPy's generators."""
    return np.random.Generator(np.random.SFC64([pair[0] % 2**64, pair[1] % 2**64]))


def _numpy_words(pair: Pair, count: int) -> Words:
    raw: npt.NDArray[np.uint64] = _numpy_generator(pair).bit_generator.random_raw(-(-count // 2))
    return raw.view(np.uint32)[:count]


def _numpy_uniform(pair: Pair, shape: Shape, minval: float, maxval: float, dtype: str) -> Array:
    u = _numpy_generator(pair).random(shape, dtype=np.dtype(dtype).type)
    return u * u.dtype.type(maxval - minval) + u.dtype.type(minval)


def _numpy_normal(pair: Pair, shape: Shape, mean: float, stddev: float, dtype: str) -> Array:
    z = _numpy_generator(pair).standard_normal(shape, dtype=np.dtype(dtype).type)
    return z * z.dtype.type(stddev) + z.dtype.type(mean)


def _numpy_truncated_normal(pair: Pair, shape: Shape, mean: float, stddev: float, dtype: str) -> Array:
    generator = _numpy_generator(pair)
    z = generator.standard_normal(shape, dtype=np.dtype(dtype).type)
    while (outside := np.abs(z) >= 2).any():
        z[outside] = generator.standard_normal(int(outside.sum()), dtype=z.dtype.type)
    return z * z.dtype.type(stddev) + z.dtype.type(mean)


# ---------------------------------------------------------------------------------------------------------
# Numbers of the chosen stream
# ---------------------------------------------------------------------------------------------------------

_UNIFORM = {
    "tensorflow": _tf_uniform,
    "tensorflow-xla": _tf_uniform,
    "jax": _jax_uniform,
    "torch": _torch_uniform,
    "numpy": _numpy_uniform,
}
_NORMAL = {
    "tensorflow": _tf_normal,
    "tensorflow-xla": _tf_normal,
    "jax": _jax_normal,
    "torch": _torch_normal,
    "numpy": _numpy_normal,
}
_TRUNCATED_NORMAL = {
    "tensorflow": _tf_truncated_normal,
    "tensorflow-xla": _tf_truncated_normal,
    "jax": _jax_truncated_normal,
    "torch": _torch_truncated_normal,
    "numpy": _numpy_truncated_normal,
}


def uniform(
    shape: Shape, minval: float = 0.0, maxval: float = 1.0, dtype: str | None = None, seed: Seed = None
) -> Array:
    """Uniform numbers in [minval, maxval): u·(maxval - minval) + minval.

    seed: an int (always the same numbers), a SeedGenerator (new ones each time) or None (the global one).
    dtype: float32 or float64; None means `config.floatx()`.
    On "tensorflow-xla" these are the eager numbers: Keras draws initial weights outside XLA.
    JAX draws in float32 whatever the dtype (its 64-bit mode is off in Keras).
    """
    dtype = config.standardize_dtype(dtype)
    return _UNIFORM[config.random_stream()](draw_seed(seed), tuple(shape), minval, maxval, dtype)


def normal(shape: Shape, mean: float = 0.0, stddev: float = 1.0, dtype: str | None = None, seed: Seed = None) -> Array:
    """Normal numbers z·stddev + mean. shape, dtype, seed and streams as in `uniform`."""
    dtype = config.standardize_dtype(dtype)
    return _NORMAL[config.random_stream()](draw_seed(seed), tuple(shape), mean, stddev, dtype)


def truncated_normal(
    shape: Shape, mean: float = 0.0, stddev: float = 1.0, dtype: str | None = None, seed: Seed = None
) -> Array:
    """Normal numbers z·stddev + mean with |z| < 2: others are drawn again, so their spread is 0.8796 stddev.

    shape, dtype, seed and streams as in `uniform`.
    """
    dtype = config.standardize_dtype(dtype)
    return _TRUNCATED_NORMAL[config.random_stream()](draw_seed(seed), tuple(shape), mean, stddev, dtype)


def randint(
    shape: Shape, minval: int, maxval: int, dtype: str = "int32", seed: Seed = None
) -> npt.NDArray[np.signedinteger]:
    """Integers in [minval, maxval): minval + b mod (maxval - minval), b of 32 (int32) or 64 bits (int64).

    Raises: ValueError if the range is empty or dtype is another type; NotImplementedError on the JAX and
    torch streams.
    Source: UniformDistribution<T, int32 | int64> in xla/tsl/lib/random/random_distributions.h.
    """
    if dtype not in ("int32", "int64"):
        raise ValueError(f"randint: dtype must be 'int32' or 'int64'; got {dtype!r}.")
    if not minval < maxval:
        raise ValueError(f"randint: expected minval < maxval; got minval={minval}, maxval={maxval}.")
    stream, pair, count = config.random_stream(), draw_seed(seed), _count(shape)
    if stream == "numpy":
        return _numpy_generator(pair).integers(minval, maxval, size=tuple(shape), dtype=np.dtype(dtype).type)
    if not stream.startswith("tensorflow"):
        raise NotImplementedError(f"randint is not reproduced on the {stream} stream; use 'tensorflow' or 'numpy'.")
    if dtype == "int32":
        b = tensorflow_words(pair, count)[0].astype(np.uint64)
    else:
        words = tensorflow_words(pair, 2 * count)[0].astype(np.uint64)
        b = words[0::2] | (words[1::2] << _U64_32)
    return ((b % np.uint64(maxval - minval)).astype(np.int64) + minval).astype(dtype).reshape(shape)


def step_normal(shape: Shape, mean: float, stddev: float, pair: Pair, dtype: str) -> Array:
    """Normal numbers z·stddev + mean for one pair (seed, counter), drawn within a training step.

    As `normal`, but on "tensorflow-xla" they are XLA's own: weights are drawn outside the compiled step, noise inside.
    These are equal in float64, and at most 2.4e-7 off, before scaling, for about 7 % of the numbers in float32.
    """
    stream = config.random_stream()
    draw = _xla_normal if stream == "tensorflow-xla" else _NORMAL[stream]
    return draw(pair, tuple(shape), mean, stddev, dtype)


# ---------------------------------------------------------------------------------------------------------
# Dropout
# ---------------------------------------------------------------------------------------------------------


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"Dropout: rate must be in [0, 1]; got {rate!r}. rate is the fraction dropped, not kept.")


def _round_to(value: float, dtype: str) -> float:
    """value rounded to the nearest number of dtype, ties to even; bfloat16 by way of float32."""
    if dtype != "bfloat16":
        return float(np.dtype(dtype).type(value))
    bits = int(np.float32(value).view(np.uint32))
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return float(np.uint32(bits).view(np.float32))


def dropout_masks(shape: Shape, rate: float, seed: Pair, steps: int, dtype: str = "float32") -> Mask:
    """Keep flags (steps, *shape) for the pairs (seed, counter) … (seed, counter + steps - 1), in one go.

        TensorFlow:  keep = u >= dtype(rate)
        JAX, torch:  keep = u < float32(1 - rate)

    Decided on integers, u = fraction · 2^-bits, against ⌈dtype(rate) · 2^bits⌉: no floats are made.
    dtype: that of the layer's inputs: float16, bfloat16, float32 or float64; JAX and torch draw for float32.
    Raises: ValueError if rate is outside [0, 1], steps < 1 or dtype is another type.
    Source: _dropout in tensorflow/python/ops/nn_ops.py; dropout in keras/src/backend/{jax,torch}/random.py.
    """
    _check_rate(rate)
    if steps < 1:
        raise ValueError(f"dropout_masks: steps must be at least 1; got {steps}.")
    if dtype not in _MANTISSA_BITS:
        raise ValueError(f"Dropout: dtype must be one of {', '.join(_MANTISSA_BITS)}; got {dtype!r}.")
    shape, count = (steps, *shape), _count(shape)
    if rate in (0, 1):
        return np.full(shape, rate == 0)

    stream = config.random_stream()
    fractions: Any
    if stream in ("jax", "torch"):
        keep_probability = float(np.float32(1.0 - rate))
        if stream == "jax":
            fractions, bits = jax_words(seed, count, steps=steps) >> np.uint32(9), 23
        else:
            words = np.stack([mt19937_words(g, count) for g in _torch_seeded_steps(seed, steps)])
            fractions, bits = words & np.uint32(2**24 - 1), 24
        keep = fractions < fractions.dtype.type(math.ceil(keep_probability * 2.0**bits))
    else:
        xla = stream == "tensorflow-xla"

        def compare(words: Words) -> Mask:
            fractions, bits = tensorflow_fractions(words, dtype, xla=xla)
            keep: Mask = fractions >= fractions.dtype.type(math.ceil(_round_to(rate, dtype) * 2.0**bits))
            return keep

        if stream == "numpy":
            words_each = 2 if dtype == "float64" else 1
            keep = np.stack([compare(_numpy_words((seed[0], seed[1] + t), count * words_each)) for t in range(steps)])
        else:
            keep = _tensorflow_each(compare, np.bool_, seed, count, dtype, steps=steps)
    return keep.reshape(shape)


def dropout_mask(
    shape: Shape,
    rate: float,
    seed: Pair,
    dtype: str = "float32",
    noise_shape: Sequence[int | None] | None = None,
) -> Mask:
    """Keep flags of Keras's Dropout for one pair (seed, counter), True = kept; formulas in `dropout_masks`.

    noise_shape: draw with this shape (None: that axis of shape) and repeat along its axes of length 1.
    """
    if noise_shape is None:
        return dropout_masks(shape, rate, seed, 1, dtype)[0]
    drawn = tuple(axis if n is None else n for n, axis in zip(noise_shape, shape, strict=True))
    return np.broadcast_to(dropout_masks(drawn, rate, seed, 1, dtype)[0], tuple(shape)).copy()


def alpha_dropout_mask(shape: Shape, rate: float, pair: Pair, dtype: str) -> Mask:
    """Keep flags of Keras's AlphaDropout for one pair, u >= dtype(rate), True = kept; dtype: `config.floatx()`, there.

    TensorFlow's are those of Dropout; JAX's and torch's are not. Source: keras/src/layers/regularization.
    """
    stream = config.random_stream()
    if stream in ("jax", "torch"):
        u = _UNIFORM[stream](pair, tuple(shape), 0.0, 1.0, dtype)
        keep: Mask = u >= u.dtype.type(rate)
        return keep
    return dropout_masks(shape, rate, pair, 1, dtype)[0]


def dropout(inputs: Array, rate: float, noise_shape: Sequence[int | None] | None = None, seed: Seed = None) -> Array:
    """inputs / (1 - rate) where kept, else 0. At rate 0 and rate 1 no seed is drawn, as in Keras.

    TensorFlow multiplies by dtype(1 / (1 - rate)), JAX by float32(1) / float32(1 - rate); torch divides.
    """
    _check_rate(rate)
    if rate == 0:
        return inputs
    if rate == 1:
        return np.zeros_like(inputs)
    keep = dropout_mask(inputs.shape, rate, draw_seed(seed), inputs.dtype.name, noise_shape)
    stream, real = config.random_stream(), inputs.dtype.type
    if stream == "torch":
        scaled = inputs / real(1.0 - rate)
    elif stream == "jax":
        scaled = inputs * real(np.float32(1) / np.float32(1.0 - rate))
    else:
        scaled = inputs * real(1.0 / (1.0 - rate))
    return np.where(keep, scaled, real(0))


# ---------------------------------------------------------------------------------------------------------
# The order of the rows in fit
# ---------------------------------------------------------------------------------------------------------

Order = npt.NDArray[np.intp]


def fisher_yates(n: int, words: Words) -> Order:
    """p = 0 … n - 1; for i = 0 … n - 2: swap p[i] and p[i + words[i] mod (n - i)].

    The shuffle of `tf.random.shuffle` and of `torch.randperm`. words: at least n - 1.
    """
    order = list(range(n))
    if n > 1:
        i = np.arange(n - 1)
        for here, there in enumerate((i + words[: n - 1] % (n - i)).tolist()):
            order[here], order[there] = order[there], order[here]
    return np.array(order, dtype=np.intp)


def shuffle_words(seed: int, count: int) -> Words:
    """The words of `tf.random.shuffle` after `set_random_seed(seed)`: Philox without the scramble.

        key = (s, 0), counter = (i, 0, 0, 0), s = seed mod (2³¹ - 1);  if s = 0: counter (i, 0, 2³¹ - 1, 0)

    Source: tensorflow/python/framework/random_seed.py; tensorflow/core/util/guarded_philox_random.cc.
    """
    s = seed % (2**31 - 1)
    return philox_words(s, 0, 0 if s else 2**31 - 1, 0, -(-count // 4))[0, :count]


def shuffle_order(n: int, seed: int) -> Order:
    """The row order of every epoch of Keras's `fit` on TensorFlow after `set_random_seed(seed)`.

    Every epoch and every later fit restarts this one order: that surprises, but it is what Keras does.
    Source: keras/src/trainers/data_adapters/array_data_adapter.py.
    """
    return fisher_yates(n, shuffle_words(seed, max(0, n - 1)))


def batch_shuffle_orders(n: int, batch_size: int, seed: int) -> Order:
    """The row order of `fit(shuffle="batch")` on TensorFlow: shuffled inside each batch, batches in order.

    The words run on from batch to batch; one of m > 1 rows uses ⌈(m - 1)/4⌉ whole blocks of four.
    """
    sizes = _batch_sizes(n, batch_size)
    used = [4 * -(-(m - 1) // 4) for m in sizes]
    words = shuffle_words(seed, sum(used))
    order, start, word = np.empty(n, dtype=np.intp), 0, 0
    for m, u in zip(sizes, used, strict=True):
        order[start : start + m] = start + fisher_yates(m, words[word : word + u])
        start, word = start + m, word + u
    return order


def _batch_sizes(n: int, batch_size: int) -> list[int]:
    return [min(batch_size, n - start) for start in range(0, n, batch_size)]


@functools.lru_cache(maxsize=8)
def _tf_order(n: int, batch_size: int | None, seed: int) -> Order:
    """The same order at every epoch, so it is worth keeping; batch_size None: not by batches."""
    return shuffle_order(n, seed) if batch_size is None else batch_shuffle_orders(n, batch_size, seed)


def epoch_order(n: int, batch_size: int, shuffle: bool | str, generator: np.random.RandomState | None = None) -> Order:
    """The n row indices of one epoch of `fit`, in the order trained on; call it once at each epoch's start.

    shuffle: True; False (0 … n - 1); "batch" (only inside each batch of batch_size rows). generator: in place of the
    global one of JAX, NumPy or torch.

    TensorFlow: after `set_random_seed` the same order at every epoch; otherwise a new one each time, from the
    operating system's entropy.
    JAX: `np.random.permutation` of NumPy's global generator. torch: its global generator. There, call
    `start_first_fit` and `finish_epoch` too for the orders of Keras. With "batch" on torch, unseeded Dropout
    layers draw between the batches in Keras; here the whole epoch's order comes first.
    NumPy: as JAX.
    Raises: ValueError if shuffle is none of the three, n < 0 or batch_size < 1.
    """
    if shuffle not in (True, False, "batch"):
        raise ValueError(f"shuffle must be True, False or 'batch'; got {shuffle!r}.")
    if n < 0 or batch_size < 1:
        raise ValueError(f"expected n >= 0 rows and batch_size >= 1; got n={n}, batch_size={batch_size}.")
    stream = config.random_stream()
    if stream == "torch":
        return _torch_epoch_order(n, batch_size, shuffle, generator or torch_global_generator())
    if not shuffle:
        return np.arange(n)
    by_batch = shuffle == "batch"
    permutation: Callable[[int], Order] = np.random.permutation if generator is None else generator.permutation
    if stream.startswith("tensorflow"):
        if _global_seed is not None:
            return _tf_order(n, batch_size if by_batch else None, _global_seed).copy()
        permutation = np.random.default_rng().permutation
    if not by_batch:
        return permutation(n)
    order, start = np.empty(n, dtype=np.intp), 0
    for m in _batch_sizes(n, batch_size):
        order[start : start + m] = start + permutation(m)
        start += m
    return order


def _torch_epoch_order(n: int, batch_size: int, shuffle: bool | str, generator: np.random.RandomState) -> Order:
    """Source: torch/utils/data/sampler.py (RandomSampler) and dataloader.py (_BaseDataLoaderIter)."""
    _torch_random_int64(generator)  # the data loader's iterator draws one number that it does not use here
    if shuffle == "batch":
        start, order = 0, np.empty(n, dtype=np.intp)
        for m in _batch_sizes(n, batch_size):
            order[start : start + m] = start + fisher_yates(m, mt19937_words(generator, m - 1))
            start += m
        return order
    if not shuffle:
        return np.arange(n)
    sampler = mt19937(_torch_random_int64(generator) & _MASK32)
    return fisher_yates(n, mt19937_words(sampler, max(0, n - 1)))


def start_first_fit(n: int, batch_size: int, shuffle: bool | str) -> None:
    """Draw and drop what Keras's first `fit` after `compile` spends on a dummy batch.

    Call it before the first epoch, unless `evaluate` or an earlier fit came in between.
    JAX: one permutation. torch: the iterator's and the sampler's number. TensorFlow, NumPy: nothing.
    """
    stream, first_batch = config.random_stream(), min(n, batch_size)
    if stream == "jax" and shuffle:
        np.random.permutation(first_batch if shuffle == "batch" else n)
    elif stream == "torch":
        _torch_random_int64()
        if shuffle == "batch":
            mt19937_words(torch_global_generator(), max(0, first_batch - 1))
        elif shuffle:
            _torch_random_int64()


def finish_epoch(*, evaluated: bool = False) -> None:
    """Draw and drop what torch's data loaders spend at an epoch's end; evaluated: with validation data.

    One iterator's number, and two more per evaluation. The other streams spend nothing.
    """
    if config.random_stream() == "torch":
        for _ in range(3 if evaluated else 1):
            _torch_random_int64()


def start_evaluation(*, first: bool) -> None:
    """Draw and drop what a call of `evaluate` or `predict` spends on torch's data loader: two numbers.

    first: the first `evaluate` since `compile`, which spends one more. The other streams spend nothing.
    """
    if config.random_stream() == "torch":
        for _ in range(3 if first else 2):
            _torch_random_int64()
