"""Balls hold what float32 and float64 arithmetic makes of their formulas, and the functions are as accurate as said."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.oracle import bounds, layer_bounds
from minidl.oracle.bounds import ULPS, Arithmetic, Ball

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(["float32", "float64"])
SINGLE = Arithmetic.of("float32")


def numbers(rng, dtype, *shape, spread=2.0):
    """Numbers of very different sizes."""
    return (rng.normal(size=shape) * np.exp(rng.normal(size=shape) * spread)).astype(dtype)


def held(ball, computed):
    share = ball.share(computed)
    assert (share <= 1).all(), f"{share.max()} of the bound at {np.argmax(share)}"


@given(seeds, dtypes)
def test_sums_differences_products_and_quotients_are_held(seed, dtype):
    rng, a = np.random.default_rng(seed), Arithmetic.of(dtype)
    x, y = numbers(rng, dtype, 50), numbers(rng, dtype, 50)
    one = x.dtype.type(1)
    for ball, computed in (
        (a.given(x) + y, x + y), (a.given(x) - y, x - y), (y - a.given(x), y - x), (a.given(x) * y, x * y),
        (a.given(x) / y, x / y), (a.given(x) / y, x * (one / y)), (1 / a.given(y), one / y),
        (a.given(x) * 0.1, x * x.dtype.type(0.1)), (a.given(x) / 3.0, x * (one / x.dtype.type(3))),
        (a.given(x) * y + x, x * y + x), (bounds.square(a.given(x)), x * x),
    ):  # fmt: skip
        held(ball, computed)


@given(seeds, dtypes, st.integers(1, 40))
def test_sums_and_products_in_any_order_are_held(seed, dtype, n):
    rng, arithmetic = np.random.default_rng(seed), Arithmetic.of(dtype)
    a, b = numbers(rng, dtype, 3, n), numbers(rng, dtype, n, 2)
    terms = a[:, :, None] * b[None]
    running = np.zeros_like(terms[:, 0])
    for i in rng.permutation(n):
        running += terms[:, i]
    for computed in (a @ b, terms.sum(axis=1), running):
        held(arithmetic.given(a) @ b, computed)
    held(arithmetic.given(a).sum(1), a.sum(axis=1))
    held(arithmetic.given(a).mean(), a.mean())


OPERATIONS = [
    (lambda a, b: a + b, lambda x, y: x + y), (lambda a, b: a - b, lambda x, y: x - y),
    (lambda a, b: a * b, lambda x, y: x * y),
    (lambda a, b: a / (bounds.absolute(b) + 2), lambda x, y: x / (abs(y) + 2)),
    (lambda a, b: bounds.maximum(a, b), np.maximum), (lambda a, b: bounds.minimum(a, b), np.minimum),
    (lambda a, b: bounds.clip(a, -0.5, 0.5), lambda x, y: np.clip(x, -0.5, 0.5)),
    (lambda a, b: bounds.exp(a), lambda x, y: np.exp(x)), (lambda a, b: bounds.tanh(a), lambda x, y: np.tanh(x)),
    (lambda a, b: bounds.sigmoid(a), lambda x, y: 1 / (1 + np.exp(-x))),
    (lambda a, b: bounds.softplus(a), lambda x, y: np.log1p(np.exp(x))),
    (lambda a, b: bounds.log(bounds.absolute(a) + 1), lambda x, y: np.log(abs(x) + 1)),
    (lambda a, b: bounds.sqrt(bounds.absolute(a)), lambda x, y: np.sqrt(abs(x))),
    (lambda a, b: bounds.rsqrt(bounds.absolute(a) + 0.1), lambda x, y: 1 / np.sqrt(abs(x) + 0.1)),
    (lambda a, b: bounds.power(bounds.absolute(a), 1.7), lambda x, y: abs(x) ** 1.7),
    (lambda a, b: bounds.select(a, b, a, -b), lambda x, y: np.where(x > y, x, -y)),
    (lambda a, b: a.reshape(5, 8) @ b.reshape(8, 5), lambda x, y: x.reshape(5, 8) @ y.reshape(8, 5)),
    (lambda a, b: a.sum(), lambda x, y: x.sum()), (lambda a, b: a.max(), lambda x, y: x.max()),
    (lambda a, b: layer_bounds.moments(a, (0,))[1], lambda x, y: x.var(keepdims=True)),
]  # fmt: skip


@settings(max_examples=30)
@given(seeds)
def test_whatever_lies_in_the_arguments_balls_is_held(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=40), rng.normal(size=40)
    a, b = Ball(x, np.abs(x) * 0.01, SINGLE), Ball(y, np.full(40, 0.02), SINGLE)
    for of_balls, function in OPERATIONS:
        for _ in range(4):
            at = [c.value + c.radius * rng.choice([-1, -0.3, 0, 1], 40) for c in (a, b)]
            assert (of_balls(a, b).share(function(*at)) <= 1 + 1e-9).all()  # float64 itself rounds at the ends


def test_what_is_exact_stays_exact(rng):
    x = SINGLE.given(rng.normal(size=5).astype("f"))
    for ball in (-x, bounds.absolute(x), bounds.maximum(x, 0), x + 0, x * 0, x[None].sum(0), bounds.clip(x, -1, 1)):
        assert not ball.radius.any()
    assert (x * 0.5).radius.max() <= 2 * SINGLE.smallest


def test_a_variance_whose_sum_is_beyond_the_largest_number_has_no_bound():
    x = np.zeros((7, 3), "float32")
    x[2] = 1e19, 1.9e19, 2.1e19
    with np.errstate(over="ignore"):
        summed = np.square(x - x.mean(axis=0)).sum(axis=0)
    _, variance = layer_bounds.moments(SINGLE.given(x), (0,))
    assert variance.unbounded.ravel().tolist() == np.isinf(summed).tolist() == [False, False, True]
    assert (variance.value.ravel()[:2] < SINGLE.largest).all() and SINGLE.largest > 2.1e19**2 * 6 / 49


def test_what_has_no_bound_is_said_to_have_none():
    zero = Ball(np.zeros(2), np.array([0.0, 1e-9]), SINGLE)
    assert (1 / zero).unbounded.all()
    assert bounds.exp(SINGLE.given(np.array([88.0, 89.0]))).unbounded.tolist() == [False, True]
    assert (SINGLE.given(np.inf) + 1).unbounded
    assert bounds.square(SINGLE.given(1e20)).unbounded
    for scale, beyond in ((1.0, False), (2.0, True)):  # of some terms the sum may be beyond the largest number
        terms = SINGLE.given(np.array([[1e38, -1e38, 1e38]]) * scale)
        assert terms.sum().unbounded == beyond and (terms @ np.ones((3, 1))).unbounded.all() == beyond


def test_a_nan_is_not_held():
    assert SINGLE.given(np.ones(1)).share(np.array([np.nan])) == np.inf


COMPILED = Arithmetic.of("float32", compiled=True)


def test_what_is_made_of_a_nan_is_one_where_the_trainer_keeps_them():
    for ball in (SINGLE.given([np.nan, 2.0]), SINGLE.given([0.0, 2.0]) / SINGLE.given([0.0, 1.0])):
        for made in (
            ball,
            ball + 1,
            2 / ball,
            bounds.exp(ball) * 3,
            bounds.clip(ball, 0, 1),
            bounds.either(ball, ball * 1),
        ):
            assert made.share(np.array([np.nan, made.value[1]])).tolist() == [0, 0]
            assert made.share(np.array([1.0, np.nan])).tolist() == [np.inf, np.inf]
        assert ball.sum().share(np.array(2.0)) == ball.max().share(np.array(2.0)) == np.inf
    assert bounds.either(ball, SINGLE.given([1.0, 2.0])).unbounded.tolist() == [True, False]
    assert bounds.select(ball, 0, ball, ball).unbounded.tolist() == [True, False]
    assert bounds.exp(COMPILED.given([np.nan, 1.0])).unbounded.tolist() == [True, False]
    assert (COMPILED.given([0.0, 1.0]) / COMPILED.given([0.0, 1.0])).unbounded.tolist() == [True, False]


def test_where_a_kink_lies_in_the_ball_either_side_is_right():
    x = Ball(np.array([1e-9, 1e-3]), np.array([1e-8, 1e-8]), SINGLE)
    slope = bounds.select(x, 0, SINGLE.given(np.ones(2)), SINGLE.given(np.zeros(2)))
    assert slope.share(np.zeros(2)).tolist() == [1.0, np.inf]
    exact = SINGLE.given(np.zeros(1))
    ones, zeros = SINGLE.given(np.ones(1)), SINGLE.given(np.zeros(1))
    assert bounds.select(exact, 0, ones, zeros).share(np.ones(1)) == np.inf
    assert bounds.select(exact, 0, ones, zeros, tie="either").share(np.ones(1)) <= 1


# ------------------------------------------------------------------------------------- accuracy of functions


def every(dtype, low, high):
    """Some 10⁵ numbers of a type from low to high, by their bits."""
    bits = np.uint32 if dtype == "float32" else np.uint64
    first, last = (int(np.dtype(dtype).type(end).view(bits)) for end in (low, high))
    return np.unique(np.linspace(first, last, 100_003).astype(bits)).view(dtype)


def both_signs(x):
    return np.concatenate([-x[::-1], x])


FUNCTIONS = {
    "exp": ("exp", np.exp, lambda d: both_signs(every(d, 2**-12, 87))),
    "log": ("math.log", np.log, lambda d: every(d, 2**-60, 2**60)),
    "log1p": ("math.log1p", np.log1p, lambda d: every(d, 2**-60, 2**30)),
    "expm1": ("math.expm1", np.expm1, lambda d: -every(d, 2**-60, 87)),
    "sigmoid": ("sigmoid", bounds._sigmoid, lambda d: both_signs(every(d, 2**-12, 87))),
    "tanh": ("tanh", np.tanh, lambda d: every(d, 2**-30, 12)),
    "softplus": ("math.softplus", lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
                 lambda d: both_signs(every(d, 2**-12, 87))),
    "rsqrt": ("math.rsqrt", lambda x: 1 / np.sqrt(x), lambda d: every(d, 2**-60, 2**60)),
    "erfc": ("math.erfc", None, lambda d: both_signs(every(d, 2**-12, 9))[::20]),
}  # fmt: skip
BALLS = {name: getattr(bounds, name) for name in FUNCTIONS}


def within_their_ulps(name, dtype, computed, x):
    arithmetic = Arithmetic.of(dtype)
    ball = BALLS[name](arithmetic.given(x))
    normal = np.abs(ball.value) >= arithmetic.smallest
    assert (ball.share(computed)[normal] <= 1).all(), ball.share(computed)[normal].max() * ULPS[name]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name, (_, function, _) in FUNCTIONS.items() if function is not None])
def test_numpys_functions_are_as_accurate_as_said(name, dtype):
    _, function, domain = FUNCTIONS[name]
    x = domain(dtype)
    within_their_ulps(name, dtype, function(x), x)


@pytest.mark.keras
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_tensorflows_functions_are_as_accurate_as_said(name, dtype, jit):
    tf = pytest.importorskip("tensorflow")
    path, _, domain = FUNCTIONS[name]
    function = tf
    for part in path.split("."):
        function = getattr(function, part)
    x = domain(dtype)
    within_their_ulps(name, dtype, tf.function(function, jit_compile=jit)(tf.constant(x)).numpy(), x)


@pytest.mark.keras
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("base", [0.5, 0.9, 0.999])
def test_tensorflows_powers_are_as_accurate_as_said(base, dtype):
    tf = pytest.importorskip("tensorflow")
    arithmetic = Arithmetic.of(dtype)
    for exponent in (1, 2, 3, 10, 100, 1000):
        ball = bounds.power(arithmetic.given(np.dtype(dtype).type(base)), exponent)
        if ball.value >= arithmetic.smallest:
            computed = tf.pow(tf.constant(base, dtype), tf.constant(float(exponent), dtype)).numpy()
            held(ball, computed)


def test_the_true_erfc_is_to_float64s_accuracy():
    """erfc(1) to 20 digits, of Abramowitz & Stegun's table 7.1 as 1 − erf."""
    assert math.erfc(1.0) == pytest.approx(0.15729920705028513066, rel=2**-52)
