"""Arithmetic on balls: a formula written with them says what its value is, and how far rounding may lead from it.

A Ball is a true value, in a wider type, with a radius: whoever evaluates the formula in the narrow type, in any order
of summation, with or without fused multiply-add, by a division or by a product with the reciprocal, is within the
radius. Every operation adds its own rounding to what its arguments' radii come to. Nothing here was fitted to results.

Notation: u, the unit roundoff: a correctly rounded operation has relative error at most u. γₙ = n·u / (1 − n·u): the
relative error of n roundings in a row. η, the smallest normal number: the absolute error of a result below it, which
the trainers flush to 0. Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002, lemma 3.1 and
§3.1 (sums and products in any order), eq. 3.13 (matrix products).

The wider type's own rounding is not tracked: it is 2²⁹ times smaller for float32 in float64 and 2¹¹ times for float64
in x87's extended type, and each operation's rounding is made larger by `slack` to cover it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import config
from minidl.backend import Array

Axis = int | tuple[int, ...] | None

# Accuracy of the elementary functions, in units in the last place of the result: the worst, rounded up, of TensorFlow
# 2.21 (Eigen, and XLA on the CPU) and NumPy 2.4, float32 and float64, against the wider type over every 997th number
# of the domain used here. tests/test_bounds.py measures them again on the machine that it runs on.
ULPS = {
    "exp": 3,
    "log": 4,
    "log1p": 5,  # of arguments above 0
    "expm1": 5,
    "sigmoid": 7,
    "tanh": 7,
    "softplus": 8,
    "rsqrt": 2,
    "erf": 7,  # in torch's gelu, which is oneDNN's where it may be: its polynomial is off by 13 u of 1 + erf
    "sqrt": 1,  # on torch, by oneMKL, whose most accurate functions are said to be within 1 ULP; elsewhere rounded once
    "erfc": 12,  # and x² more, of x > 0: see erfc
    "power": 2,  # and |ln| of the result more: see power
}


CHUNK = 2**14  # elements: some ten arrays of so many wide numbers fit an L2 cache


@dataclass(frozen=True)
class Arithmetic:
    """What a trainer computes in. unit: u; smallest: η; wide: the type of the true values.

    backend: "tensorflow", "jax" or "torch", whose algebraic forms count beside minidl's, which are TensorFlow's.
    keeps_nan: whether all of its operations make a NaN of a NaN. XLA's maxima do not.
    """

    dtype: str
    unit: float
    smallest: float
    largest: float
    wide: Any
    slack: float
    backend: str = "tensorflow"
    keeps_nan: bool = True

    @classmethod
    def of(cls, dtype: str, *, compiled: bool = False) -> Arithmetic:
        """That of float32 or float64, on the backend of config.random_stream(). compiled: by XLA, as on JAX always.

        Errors: NotImplementedError where there is no wider type than float64.
        """
        largest = float(np.finfo(dtype).max)
        stream = config.random_stream()
        backend = stream if stream in ("jax", "torch") else "tensorflow"
        keeps_nan = not compiled and backend != "jax"
        if dtype == "float32":
            return cls(dtype, 2.0**-24, 2.0**-126, largest, np.float64, 1 + 2.0**-20, backend, keeps_nan)
        if np.finfo(np.longdouble).eps > 2.0**-60:
            raise NotImplementedError("float64 cannot be judged here: NumPy's longdouble is no wider than float64.")
        return cls(dtype, 2.0**-53, 2.0**-1022, largest, np.longdouble, 1 + 2.0**-9, backend, keeps_nan)

    def gamma(self, n: float) -> float:
        """γₙ. Errors: ValueError for n·u ≥ 1, where no bound holds."""
        if n * self.unit >= 1:
            raise ValueError(f"{n} roundings in {self.dtype} have no error bound.")
        return n * self.unit / (1 - n * self.unit)

    def given(self, values: Any) -> Ball:
        """Numbers of the narrow type that are given, not computed: radius 0; but what is below η may be taken as 0.

        What follows from an infinity has no bound; what follows from a NaN is one, where the trainer keeps NaNs.
        """
        values = np.asarray(values)
        value, size = values.astype(self.wide), np.abs(values)
        most = float(size.max(initial=0))
        normal = not size.size or (
            most < np.inf and (size.min() >= self.smallest or not ((size < self.smallest) & (size > 0)).any())
        )
        if normal:
            found = Ball(value, self.no_radius(value.shape), self)
            found._most, found.narrow_size = most, size if size.dtype == self.dtype else None
            return found
        size = size.astype(self.wide)
        known = np.isfinite(value) | (np.isnan(value) & self.keeps_nan)
        return Ball(np.where(known, value, 0), np.where(known, np.where(size < self.smallest, size, 0), np.inf), self)

    def no_radius(self, shape: tuple[int, ...]) -> Array:
        """Zeros of this shape that are one zero, not to be written to."""
        return _zero_of(self.wide, shape)

    def const(self, value: Any, *, float32_first: bool = False) -> Ball:
        """A constant of the formula, rounded once to the narrow type, u|c|, unless it is a number of that type.

        float32_first: rounded to float32 before, as keras.ops.cast of a Python number is on TensorFlow; elsewhere it is
        not, and the ball takes in both.
        """
        if float32_first and self.backend != "tensorflow":
            return either(self.const(value), self.const(np.float32(value)))
        return _constant(self, self.wide(np.float32(value) if float32_first else value))

    def rounded(self, value: Any) -> Ball:
        """A constant that every trainer rounds to the narrow type before use, such as the limits of a clip."""
        return self.given(np.asarray(value).astype(self.dtype))


@functools.lru_cache
def _zero_of(dtype: Any, shape: tuple[int, ...]) -> Array:
    return np.ndarray(shape, dtype, bytes(32), strides=(0,) * len(shape))


@functools.lru_cache
def _constant(arithmetic: Arithmetic, exact: Any) -> Ball:
    kept = exact.astype(arithmetic.dtype).astype(arithmetic.wide) == exact
    return Ball(exact, arithmetic.wide(0 if kept else arithmetic.unit * abs(exact)), arithmetic)


class Ball:
    """All numbers within radius of value, elementwise: two arrays of one shape, of the arithmetic's wide type.

    Where the radius is infinite there is no bound, and value says nothing. Where value is NaN it is one for certain.
    """

    __slots__ = ("_most", "arithmetic", "narrow_size", "radius", "value")
    __array_ufunc__ = None  # array ∘ Ball is the Ball's

    def __init__(self, value: Array, radius: Array, arithmetic: Arithmetic) -> None:
        self.value, self.radius, self.arithmetic = value, radius, arithmetic
        self.narrow_size: Array | None = None  # |value| in the narrow type, where it was needed before
        self._most: float | None = None

    # ---------------------------------------------------------------------------------- what it holds

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.value)

    @property
    def ndim(self) -> int:
        return np.ndim(self.value)

    @property
    def exact(self) -> bool:
        """Whether every radius is 0. Those of numbers that are given are one 0 for all: see Arithmetic.given."""
        return self.is_plainly_exact or not ((self.radius.size and self.radius.flat[0]) or self.radius.any())

    @property
    def is_plainly_exact(self) -> bool:
        """Whether the radius is one 0 for all, which is seen without a look at all."""
        radius = self.radius
        return radius.size > 0 and not any(radius.strides) and not radius.flat[0]

    @property
    def magnitude(self) -> Array:
        """The largest absolute value in the ball."""
        return np.abs(self.value) + self.radius

    def share(self, computed: Array) -> Array:
        """|computed − value| / radius: at most 1 where it is held; infinite where a radius of 0 or a NaN is missed.

        0 where there is no bound: see unbounded.
        """
        computed = np.asarray(computed).astype(self.arithmetic.wide)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            error = np.abs(computed - self.value)
            share = np.where((error == 0) & (self.radius == 0), 0, error / self.radius)
        share = np.where(np.isnan(computed) & np.isnan(self.value), 0, np.where(np.isnan(share), np.inf, share))
        return np.where(self.unbounded, 0, share).astype(np.float64)

    @property
    def most(self) -> float:
        """No number in the ball is larger; NaN where a value is one."""
        if self._most is None:
            value = self.value
            size = max(float(value.max(initial=0)), -float(value.min(initial=0)))
            self._most = size + (0.0 if self.is_plainly_exact else float(self.radius.max(initial=0)))
        return self._most

    @property
    def unbounded(self) -> Array:
        """Where there is no bound: a divisor may be 0, or a number on the way lies beyond the narrow type's largest."""
        return np.isinf(self.radius)

    # -------------------------------------------------------------------------------------- arithmetic

    def lift(self, other: Any) -> Ball:
        """other as a ball: a number is a constant of the formula, an array is given."""
        if isinstance(other, Ball):
            return other
        return self.arithmetic.const(other) if np.ndim(other) == 0 else self.arithmetic.given(other)

    def _made(self, value: Array, radius: Array, flushes: float = 1, gamma: float = 1) -> Ball:
        """radius: what the arguments' radii and this operation's rounding come to, 0 only where it is exact.

        It is taken over. The rounding is at least u|value|; of a sum at least gamma Σ|terms|, than which no sum of some
        of the terms is larger. It may itself underflow, at most flushes times.
        """
        arithmetic = self.arithmetic
        flushed = flushes * arithmetic.smallest
        radius += flushed if radius.all() else flushed * ((radius > 0) | (value != 0))
        radius *= arithmetic.slack
        if radius.size and not radius.max() * (1 + 1 / arithmetic.unit) <= arithmetic.largest:  # nor of a NaN
            most = np.maximum(np.abs(value) + radius, radius / gamma)
            bounded, nan = most <= arithmetic.largest, np.isnan(value) & arithmetic.keeps_nan
            radius = np.where(bounded, radius, np.where(nan, 0, np.inf))
            value = np.where(bounded | nan, value, 0)
        return Ball(value, radius, self.arithmetic)

    def _exact(self, value: Array, radius: Array) -> Ball:
        return Ball(value, radius, self.arithmetic)

    def __add__(self, other: Any) -> Ball:
        """a + b, rounded once: r = r_a + r_b + u|a + b|; a + 0 is a."""
        other = self.lift(other)
        value, spread = self.value + other.value, self.radius + other.radius
        rounded = self._made(value, spread + self.arithmetic.unit * (np.abs(value) + spread))
        for one in (other, self):
            if not one.value.all():
                zero = (one.value == 0) & (one.radius == 0)
                rounded.radius = np.where(zero, spread, rounded.radius)
        return rounded

    __radd__ = __add__

    def __neg__(self) -> Ball:
        return self._exact(-self.value, self.radius)

    def __sub__(self, other: Any) -> Ball:
        return self + (-self.lift(other))

    def __rsub__(self, other: Any) -> Ball:
        return self.lift(other) + (-self)

    def times(self, other: Any, roundings: int = 1) -> Ball:
        """a · b: r = |a|r_b + |b|r_a + r_a r_b + γₖ|a||b|, k the number of roundings on the way."""
        other = self.lift(other)
        value = self.value * other.value
        size, spread = np.abs(value), 0
        if not (self.exact and other.exact):
            spread = np.abs(self.value) * other.radius + self.radius * other.magnitude
            size = size + spread
        return self._made(value, spread + self.arithmetic.gamma(roundings) * size)

    def __mul__(self, other: Any) -> Ball:
        """a · b, rounded once; by a power of two, or 0, exactly."""
        if np.ndim(other) == 0 and not isinstance(other, Ball) and (other == 0 or abs(math.frexp(other)[0]) == 0.5):
            radius = self.radius * abs(other) + np.where(self.value != 0, self.arithmetic.smallest, 0)
            return self._exact(self.value * other, radius if other else np.zeros_like(radius))
        return self.times(other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Ball:
        """a / b, of a b whose ball does not hold 0; rounded twice, since it may be a product with 1/b.

        |a′/b′ − a/b| ≤ (r_a + |a/b| r_b) / (|b| − r_b). Where b may be 0 there is no bound: the radius is infinite; but
        0/0 of exact zeros is a NaN.
        """
        if np.ndim(other) == 0 and not isinstance(other, Ball) and abs(math.frexp(other)[0]) == 0.5:
            return self * (1 / other)
        other = self.lift(other)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            least = np.abs(other.value) - other.radius
            value = self.value / other.value
            spread = (self.radius + np.abs(value) * other.radius) / least
            found = self._made(value, spread + self.arithmetic.gamma(2) * (np.abs(value) + spread))
            zero = (self.value == 0) & (self.radius == 0)
            radius = np.where(zero, 0, found.radius)
            nan = np.isnan(value) & (self.radius + other.radius == 0) & self.arithmetic.keeps_nan
            found_value = np.where(least > 0, value, np.where(nan, np.nan, 0))
            return self._exact(found_value, np.where(least > 0, radius, np.where(nan, 0, np.inf)))

    def __rtruediv__(self, other: Any) -> Ball:
        return self.lift(other) / self

    def __matmul__(self, other: Any) -> Ball:
        return self.matmul(other)

    def matmul(self, other: Any, plus: Ball | None = None) -> Ball:
        """a @ b, with inner dimension n: r = |a|r_b + r_a|b| + γₙ|a||b|, in any order.

        plus: one more term of each sum, such as a bias.
        """
        other = self.lift(other)
        n = self.shape[-1] + (plus is not None)
        gamma = self.arithmetic.gamma(n)
        if other.exact:  # r = (r_a + γ(|a| + r_a)) |b|
            factors = [(self._reach(gamma), other._size())]
        else:  # r = |a| (r_b + γ(|b| + r_b)) + r_a (1 + γ)(|b| + r_b)
            factors = [(self._size(), other._reach(gamma))]
            if not self.exact:
                factors.append((self.radius, (1 + gamma) * other.magnitude))
        bounds = _Bounds(factors, None if plus is None else plus._reach(gamma), n, self.arithmetic)
        terms = self.value, other.value, None if plus is None else plus.value
        most = n * self.most * other.most + (0 if plus is None else plus.most)  # of value and radius; or a NaN
        if bounds.has_floor and 4 * most < self.arithmetic.largest:
            return Product(*terms, bounds)
        return self._made(_product(*terms), *bounds.sum())

    def _size(self) -> Array:
        """|a|, in the narrow type, not to be written to."""
        if self.narrow_size is None:
            self.narrow_size = self.value.astype(self.arithmetic.dtype)
            np.abs(self.narrow_size, out=self.narrow_size)
        return self.narrow_size

    def _reach(self, gamma: float) -> Array:
        """r + γ(|a| + r), in the narrow type where r is 0."""
        size = self._size()
        size = size * size.dtype.type(gamma)
        return size + (1 + gamma) * self.radius if not self.exact else size

    # ------------------------------------------------------------------------------------- reductions

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Ball:
        """Σ a over n numbers, in any order: r = Σ r_a + γₙ₋₁ Σ|a|."""
        value = self.value.sum(axis=axis, keepdims=keepdims)
        n = self.value.size // max(value.size, 1)
        spread = self.radius.sum(axis=axis, keepdims=keepdims)
        if n <= 1:
            return self._exact(value, spread)
        size = self.magnitude.sum(axis=axis, keepdims=keepdims)
        gamma = self.arithmetic.gamma(n - 1)
        return self._made(value, spread + gamma * size, gamma=gamma)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Ball:
        """Σ a / n."""
        total = self.sum(axis, keepdims)
        return total / float(self.value.size // max(total.value.size, 1))

    def max(self, axis: Axis = None, keepdims: bool = False) -> Ball:
        """The maximum moves no further than the numbers do: r = max r_a."""
        value, radius = (one.max(axis=axis, keepdims=keepdims) for one in (self.value, self.radius))
        return self._exact(*_without_nan(value, radius, self.arithmetic))

    # ----------------------------------------------------------------------------------------- shapes

    def moved(self, function: Callable[[Array], Array]) -> Ball:
        """A function that only moves, repeats or picks elements, of both arrays."""
        found = self._exact(function(self.value), function(self.radius))
        found.narrow_size, found._most = None if self.narrow_size is None else function(self.narrow_size), self._most
        return found

    def reshape(self, *shape: Any) -> Ball:
        return self.moved(lambda a: a.reshape(*shape))

    @property
    def T(self) -> Ball:
        return self.moved(lambda a: a.T)

    def __getitem__(self, key: Any) -> Ball:
        return self.moved(lambda a: a[key])


# ------------------------------------------------------------------------------------------- products


class _Bounds:
    """The radius of a matrix product of n terms a sum, Σ a @ b + plus, of factors (a, b) and a summand all ≥ 0."""

    def __init__(self, factors: list[tuple[Array, Array]], plus: Array | None, n: int, arithmetic: Arithmetic) -> None:
        narrow = arithmetic.dtype
        self.factors = [(a.astype(narrow, copy=False), b.astype(narrow, copy=False)) for a, b in factors]
        self.plus, self.n, self.arithmetic = plus, n, arithmetic

    def sum(self) -> tuple[Array, float, float]:
        """An upper bound of it, by products in the narrow type, which take half the time; how many η are not in it; γₙ.

        Three roundings of a, as many of b, and those of a product of k terms a sum: within γₖ₊₆. The η: n by the
        trainer, and of what underflows here, at most η u times the other factor.
        """
        arithmetic, flushes, radius = self.arithmetic, float(self.n), 0.0 if self.plus is None else self.plus
        for a, b in self.factors:
            k = a.shape[-1]
            found = (a @ b).astype(arithmetic.wide)
            found *= 1 + 2 * arithmetic.gamma(k + 6)
            found += radius
            radius = found
            flushes += k * arithmetic.unit * (1 + _most(a) + _most(b))
        return radius, flushes, arithmetic.gamma(self.n)

    @property
    def has_floor(self) -> bool:
        """Whether sums are so long that a floor of them saves work."""
        a, b = self.factors[0]
        return a.ndim == b.ndim == 2 and a.shape[1] >= 2 * _EVERY and a.shape[0] * b.shape[1] >= CHUNK

    @property
    def left(self) -> float:
        """Which share of it is left for an error that was computed in the narrow type, against the rounded truth.

        That is off by u|truth| at most, a share u/γₙ of the radius, which is γₙ|truth| or more.
        """
        return (1 - self.arithmetic.unit / self.arithmetic.gamma(self.n)) / self.arithmetic.slack

    def floor(self, rows: slice) -> Array:
        """A lower bound of what is left in these rows: of the first product every so many-th term alone, rounded.

        Of a long sum 64: that is a share of the radius which errors, that grow with the root of n, stay below.
        """
        a, b = self.factors[0]
        every = max(_EVERY, a.shape[1] // (8 * _EVERY))
        a, b = a[rows, ::every], b[::every]
        found: Array = a @ b
        found *= found.dtype.type(self.left * (1 - 2 * self.arithmetic.gamma(a.shape[1] + 6)))
        return found

    def at(self, rows: Array, columns: Array) -> _Bounds:
        """The bounds of these elements, as one column."""
        factors = [(a[rows, None], b.T[columns, :, None]) for a, b in self.factors]
        return _Bounds(factors, None if self.plus is None else self.plus[columns, None, None], self.n, self.arithmetic)


def _most(a: Array) -> float:
    """The largest number that is one."""
    most = float(a.max(initial=0))
    return float(np.nanmax(a, initial=0)) if math.isnan(most) else most


_EVERY = 8  # at least: of the terms of a sum that is to be bounded from below, one is taken


class Product(Ball):
    """a @ b + plus. Value and radius are computed when first asked for: what lies within a floor needs no radius."""

    __slots__ = ("_radius", "_terms", "_value", "bounds")

    def __init__(self, a: Array, b: Array, plus: Array | None, bounds: _Bounds) -> None:
        self._terms, self.bounds, self.arithmetic = (a, b, plus), bounds, bounds.arithmetic
        self._value: Array | None = None
        self._radius: Array | None = None
        self.narrow_size = self._most = None

    @property
    def value(self) -> Array:
        """As of any ball."""
        if self._value is None:
            self._value = _product(*self._terms)
        return self._value

    @property
    def radius(self) -> Array:
        """As of any ball."""
        if self._radius is None:
            self._radius = self._made(self.value, *self.bounds.sum()).radius
        return self._radius

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self._terms[0]), self._terms[1].shape[1]

    @property
    def ndim(self) -> int:
        return 2

    def truth(self, rows: slice, out: Array) -> Array:
        """The value in these rows, into out."""
        a, b, plus = self._terms
        np.matmul(a[rows], b, out=out)
        if plus is not None:
            out += plus
        return out

    def at(self, rows: Array, columns: Array) -> Ball:
        """The ball of these elements alone."""
        a, b, plus = self._terms
        plus = None if plus is None else plus[columns, None, None]
        value = _product(a[rows, None], b.T[columns, :, None], plus)
        return self._made(value, *self.bounds.at(rows, columns).sum()).reshape(-1)


def _product(a: Array, b: Array, plus: Array | None) -> Array:
    found: Array = a @ b
    if plus is not None:
        found += plus
    return found


# ------------------------------------------------------------------------------------------- functions


def absolute(a: Ball) -> Ball:
    """|a|: exact."""
    return Ball(np.abs(a.value), a.radius, a.arithmetic)


def square(a: Ball) -> Ball:
    """a², rounded once."""
    return a.times(a)


def _of_ends(a: Ball, function: Callable[[Array], Array], rounding: Any, flushes: float = 1) -> Ball:
    """A monotone function: the ball's ends bound it; rounding: its own relative error; flushes: see Ball._made."""
    value = function(a.value)
    if a.exact:
        return a._made(value, rounding * np.abs(value), flushes)
    high, low = function(a.value + a.radius), function(a.value - a.radius)
    spread = np.maximum(np.abs(high - value), np.abs(value - low))
    return a._made(value, spread + rounding * np.maximum(np.abs(high), np.abs(low)), flushes)


def _ulps(a: Ball, name: str) -> float:
    """An ULP is at most 2u of a value."""
    return 2 * ULPS[name] * a.arithmetic.unit


def exp(a: Ball) -> Ball:
    """e^a.

    oneDNN, by which TensorFlow's graphs compute an activation in one kernel with its product, takes it as
    2 · (2ⁿ⁻¹ eʳ), a = n ln 2 + r, so that 2¹²⁸ does not overflow: the product in brackets is flushed for all below 2η.
    Source: exp_compute_vector_fwd in oneDNN's src/cpu/x64/injectors/jit_uni_eltwise_injector.cpp.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return _of_ends(a, np.exp, _ulps(a, "exp"), flushes=2)


def log(a: Ball) -> Ball:
    """ln a; what lies below 0 is no value of a logarithm's argument."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _of_ends(a, lambda x: np.log(np.maximum(x, 0)), _ulps(a, "log"))


def log1p(a: Ball) -> Ball:
    """ln(1 + a) of a ≥ 0, by log1p, or where that is more accurate nowhere by a logarithm: see loss_bounds."""
    return _of_ends(a, lambda x: np.log1p(np.maximum(x, 0)), _ulps(a, "log1p"))


def expm1(a: Ball) -> Ball:
    """e^a − 1, by expm1 or as the difference, as Eigen's ELU has it: EXP · e^a and the rounding of the difference."""
    exact = _of_ends(a, np.expm1, _ulps(a, "expm1"))
    return either(exact, exp(a) - 1)


def tanh(a: Ball) -> Ball:
    """tanh a."""
    return _of_ends(a, np.tanh, _ulps(a, "tanh"))


def sigmoid(a: Ball) -> Ball:
    """1 / (1 + e^(−a)), far below 0 e^a: see exp for what is flushed."""
    return _of_ends(a, _sigmoid, _ulps(a, "sigmoid"), flushes=2)


def softplus(a: Ball) -> Ball:
    """ln(1 + e^a), far below 0 e^a: see exp for what is flushed."""
    plain = lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))  # noqa: E731
    return _of_ends(a, plain, _ulps(a, "softplus"), flushes=2)


def sqrt(a: Ball) -> Ball:
    """√a, rounded once, but on torch: see ULPS. What lies below 0 is no value of a root's argument."""
    rounding = _ulps(a, "sqrt") if a.arithmetic.backend == "torch" else a.arithmetic.unit
    return _of_ends(a, lambda x: np.sqrt(np.maximum(x, 0)), rounding)


def rsqrt(a: Ball) -> Ball:
    """1 / √a, as one operation or as two, of roundings u and 2u."""
    rounding = max(_ulps(a, "rsqrt"), a.arithmetic.gamma(3))
    with np.errstate(divide="ignore"):
        return _of_ends(a, lambda x: 1 / np.sqrt(np.maximum(x, 0)), rounding)


def erfc(a: Ball) -> Ball:
    """erfc a. Beyond 0 it is made of e^(−a²), where the rounding of a², u a², is a relative error: a² ULPs more.

    The true value is to float64's accuracy only, for which two ULPs of it are added.
    """
    own = 0.0 if a.arithmetic.dtype == "float32" else 4 * a.arithmetic.unit
    beyond = np.square(np.maximum(a.value + a.radius, 0))
    return _of_ends(a, _erfc, _ulps(a, "erfc") + own + 2 * a.arithmetic.unit * beyond)


def erf_plus_1(a: Ball) -> Ball:
    """1 + erf a as a sum, which cancels towards −∞, where erfc(−a) does not: torch's form in gelu.

    |erf| < 1, so that its ULPs are of 2u at most.
    """
    exact = erfc(-a)
    unit = a.arithmetic.unit
    return Ball(exact.value, exact.radius + 2 * ULPS["erf"] * unit + unit, a.arithmetic)


def power(a: Ball, exponent: float) -> Ball:
    """a^exponent of a ≥ 0; of exponent 1 and 0 exactly.

    It may be computed as e^(exponent · ln a), where the roundings of the argument are relative errors: |ln a^exponent|
    ULPs more. Eigen's in float64 is off by 46 ULPs at 10⁻³⁰.
    """
    if exponent in (0, 1):
        return a if exponent else Ball(np.ones_like(a.value), np.zeros_like(a.value), a.arithmetic)
    with np.errstate(divide="ignore", invalid="ignore"):
        rounding = _ulps(a, "power") + 2 * a.arithmetic.unit * _log_size(a, exponent)
        return _of_ends(a, lambda x: np.maximum(x, 0) ** exponent, rounding)


def _log_size(a: Ball, exponent: float) -> Array:
    """|ln a^exponent| at the ball's lower end; 0 of 0, which is raised exactly."""
    low = np.maximum(a.value - a.radius, 0)
    return np.where(low > 0, np.abs(exponent * np.log(np.where(low > 0, low, 1))), 0)


def minimum(a: Ball, b: Any) -> Ball:
    """min(a, b): exact."""
    return -maximum(-a, -a.lift(b))


def maximum(a: Ball, b: Any) -> Ball:
    """max(a, b): exact, between the maxima of the balls' ends."""
    b = a.lift(b)
    value = np.maximum(a.value, b.value)
    if a.exact and b.exact:
        return Ball(*_without_nan(value, a.arithmetic.no_radius(value.shape), a.arithmetic), a.arithmetic)
    high = np.maximum(a.value + a.radius, b.value + b.radius)
    low = np.maximum(a.value - a.radius, b.value - b.radius)
    with np.errstate(invalid="ignore"):
        radius = np.maximum(high - value, value - low)
    radius = np.where(np.isnan(radius), np.where(np.isnan(value), 0, np.inf), radius)
    return Ball(*_without_nan(value, radius, a.arithmetic), a.arithmetic)


def _without_nan(value: Array, radius: Array, arithmetic: Arithmetic) -> tuple[Array, Array]:
    """Value and radius of a maximum, which not every trainer makes a NaN of a NaN."""
    if arithmetic.keeps_nan or not np.isnan(value).any():
        return value, radius
    return np.where(np.isnan(value), 0, value), np.where(np.isnan(value), np.inf, radius)


def clip(a: Ball, low: Any, high: Any) -> Ball:
    """min(max(a, low), high): exact."""
    return minimum(maximum(a, low), high)


def either(*balls: Ball) -> Ball:
    """The first's value, and a radius that takes in all of them: of one formula computed in several forms."""
    first, *others = balls
    radius = first.radius
    for other in others:
        with np.errstate(invalid="ignore"):
            apart = np.abs(other.value - first.value) + other.radius
        if np.isnan(apart).any():  # where both are NaN for certain, so is the result; where one is, it is open
            apart = np.where(np.isnan(apart), np.where(np.isnan(first.value) & np.isnan(other.value), 0, np.inf), apart)
        radius = np.maximum(radius, apart)
    return Ball(np.where(np.isinf(radius), 0, first.value) if np.isinf(radius).any() else first.value,
                radius, first.arithmetic)  # fmt: skip


def where(mask: Array, a: Any, b: Any) -> Ball:
    """a where the mask, which is certain, else b."""
    like = a if isinstance(a, Ball) else b
    a, b = like.lift(a), like.lift(b)
    if b.ndim == 0 and b.value == b.radius == 0 and np.shape(mask) == a.shape and a.most < np.inf:
        return Ball(a.value * mask, a.radius * mask, like.arithmetic)
    return Ball(np.where(mask, a.value, b.value), np.where(mask, a.radius, b.radius), like.arithmetic)


def select(test: Ball, at: Any, above: Any, below: Any, tie: str = "below") -> Ball:
    """above where test > at, else below; where the balls of test and at leave it open, either.

    tie: what counts where both are exact and equal: "above", "below", or "either", where the trainers differ.
    """
    at = test.lift(at)
    like = above if isinstance(above, Ball) else below if isinstance(below, Ball) else test
    above, below = like.lift(above), like.lift(below)
    gap = test.value - at.value
    is_above = gap >= 0 if tie == "above" else gap > 0
    chosen = where(is_above, above, below)
    if np.isnan(gap).any():  # a comparison with NaN says no, whatever the trainer then makes of it
        chosen = where(np.isnan(gap), Ball(np.zeros(()), np.array(np.inf), test.arithmetic), chosen)
    if tie != "either" and test.exact and at.exact:
        return chosen
    reach = test.radius + at.radius
    is_open = (np.abs(gap) <= reach) & ((reach > 0) | (tie == "either"))
    if not is_open.any():
        return chosen
    return where(is_open, either(chosen, where(is_above, below, above)), chosen)


def concatenate(balls: Sequence[Ball]) -> Ball:
    """Of balls of one axis."""
    arrays = [(ball.value, ball.radius) for ball in balls]
    value, radius = (np.concatenate(parts) for parts in zip(*arrays, strict=True))
    return Ball(value, radius, balls[0].arithmetic)


def _sigmoid(x: Array) -> Array:
    t = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, t) / (1 + t)


def _erfc(x: Array) -> Array:
    flat = np.asarray(x, np.float64)
    return np.fromiter(map(math.erfc, flat.ravel().tolist()), np.float64, flat.size).reshape(flat.shape).astype(x.dtype)
