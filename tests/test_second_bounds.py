"""The second bounds hold for float32 arithmetic in many orders, are not idle, and agree with the oracle's."""

from dataclasses import replace

import numpy as np
import pytest
import second_bounds as bounds
import second_step
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_steps import step_of
from keras_cases import CASES
from second_bounds import Ball, exact

import minidl.keras as minidl_keras
from minidl import ops, utils
from minidl.oracle import judge
from minidl.oracle.steps import DIVERGENT

seeds = st.integers(0, 2**32 - 1)


def float32(rng, *shape, spread=3.0):
    """float32 numbers of very different sizes."""
    return (rng.normal(size=shape) * np.exp(rng.normal(size=shape) * spread)).astype(np.float32)


def products(a, b):
    """a @ b in float32, computed in five different orders of summation."""
    terms = a[:, :, None] * b[None, :, :]
    forward, backward = np.zeros_like(terms[:, 0]), np.zeros_like(terms[:, 0])
    for i in range(a.shape[1]):
        forward += terms[:, i]
        backward += terms[:, -1 - i]
    fused = np.zeros(forward.shape, np.float32)  # each product and sum rounded once, as fused multiply-add does
    for i in range(a.shape[1]):
        fused = (fused.astype(np.float64) + a[:, i, None].astype(np.float64) * b[None, i].astype(np.float64)).astype(
            "f"
        )
    return [a @ b, terms.sum(axis=1), forward, backward, fused]


@given(seeds, st.integers(1, 60))
def test_products_of_any_order_are_held(seed, n):
    rng = np.random.default_rng(seed)
    a, b = float32(rng, 3, n), float32(rng, n, 2)
    ball = bounds.product(exact(a), exact(b))
    for computed in products(a, b):
        assert ball.holds(computed).all()


@given(seeds, st.integers(2, 40))
def test_inputs_off_by_their_radius_are_held(seed, n):
    """If the inputs may be off, so may the product: tried with inputs at the ends of their balls."""
    rng = np.random.default_rng(seed)
    a, b = float32(rng, 3, n).astype(np.float64), float32(rng, n, 2).astype(np.float64)
    r_a, r_b = np.abs(a) * rng.random(a.shape) * 1e-3, np.abs(b) * rng.random(b.shape) * 1e-3
    ball = bounds.product(Ball(a, r_a), Ball(b, r_b))
    for _ in range(4):
        at_a, at_b = a + r_a * rng.choice([-1, 1], a.shape), b + r_b * rng.choice([-1, 1], b.shape)
        assert ball.holds(at_a @ at_b).all()


@given(seeds, st.integers(1, 200))
def test_totals_are_held(seed, n):
    rng = np.random.default_rng(seed)
    x = float32(rng, n)
    ball = bounds.total(exact(x))
    running = np.float32(0)
    for value in x:
        running += value
    assert ball.holds(x.sum()) and ball.holds(running)


@given(seeds, st.floats(0, 300))
def test_cross_entropy_of_logits_is_held(seed, scale):
    rng = np.random.default_rng(seed)
    z = (rng.normal(size=50) * scale).astype(np.float32)
    y = rng.integers(0, 2, 50).astype(np.float32)
    assert bounds.binary_crossentropy_from_logits(y, exact(z)).holds(ops.binary_crossentropy_from_logits(y, z)).all()
    gradient = bounds.binary_crossentropy_from_logits_backward(y, exact(z))
    assert gradient.holds(ops.binary_crossentropy_from_logits_backward(y, z)).all()
    assert gradient.holds(ops.sigmoid(z) - y).all()  # the other order of the three terms


@given(seeds)
def test_elementwise_functions_are_held(seed):
    rng = np.random.default_rng(seed)
    x, d = float32(rng, 40), float32(rng, 40)
    for name in ("relu", "sigmoid", "tanh"):
        outputs = getattr(ops, name)(x)
        ball = getattr(bounds, name)(exact(x))
        assert ball.holds(outputs).all(), name
        inputs = exact(x) if name == "relu" else ball
        backward = getattr(bounds, f"{name}_backward")(exact(d), inputs)
        assert backward.holds(getattr(ops, f"{name}_backward")(d, outputs)).all(), name


@given(seeds, st.sampled_from([0.1, 1 / 3, 0.5, 0.8, 1.0]))
def test_dropout_is_held(seed, rate):
    rng = np.random.default_rng(seed)
    x, mask = float32(rng, 40), rng.random(40) >= rate
    ball = bounds.dropout(exact(x), mask, rate)
    assert ball.holds(ops.dropout(x, mask, rate=rate)).all()
    if rate < 1:  # a division instead of the product, as PyTorch has it
        assert ball.holds(np.where(mask, x / np.float32(1 - rate), 0)).all()


@settings(max_examples=50)
@given(seeds, st.integers(1, 3000))
def test_adam_is_held(seed, step):
    rng = np.random.default_rng(seed)
    theta, g, m = float32(rng, 60, spread=1), float32(rng, 60, spread=6), float32(rng, 60, spread=6)
    v = np.square(float32(rng, 60, spread=6)) + np.square(m)
    balls = adam_balls(theta, exact(g), m, v, step)
    ops.adam_step(theta, g, m, v, step=step)
    for ball, computed in zip(balls, (m, v, theta), strict=True):
        assert ball.holds(computed).all()


def adam_balls(theta, g, m, v, step):
    ball_m = bounds.adam_moment(m, g, 0.9)
    ball_v = bounds.adam_moment(v, bounds.multiply(g, g), 0.999)
    alpha = bounds.adam_alpha(step, float(np.float32(1e-3)), 0.9, 0.999)
    return ball_m, ball_v, bounds.adam_parameter(theta, ball_m, ball_v, alpha, 1e-7)


def test_a_gradient_that_may_be_zero_leaves_adams_step_open():
    """A gradient of 0 ± 1e-12: the step may be anything between −η and η, whatever its float32 value says."""
    zero = np.zeros(1, np.float32)
    *_, parameter = adam_balls(zero, Ball(np.zeros(1), np.full(1, 1e-6)), zero, zero, step=1)
    assert 1e-4 < parameter.radius[0] < 10


@pytest.mark.parametrize("ulps, held", [(0, True), (1, True), (40, False)])
def test_the_bound_of_a_product_is_not_idle(rng, ulps, held):
    """Off by 40 ULPs in a product of 8 terms is seen, off by one is not."""
    a, b = np.abs(rng.normal(size=(1, 8))).astype("f"), np.abs(rng.normal(size=(8, 1))).astype("f")
    computed = a @ b
    computed += ulps * np.spacing(computed)
    assert bounds.product(exact(a), exact(b)).holds(computed).all() == held


def test_exact_zeros_stay_exact():
    """Where every input is 0, so is the output, and a computed 1e-40 is an error."""
    zeros = bounds.dense(exact(np.zeros((2, 3))), exact(np.ones((3, 1))), exact(np.zeros(1)))
    assert (zeros.radius == 0).all()
    assert not zeros.holds(np.full((2, 1), 1e-40)).any()


def test_a_nan_is_never_held_and_never_within_a_fraction():
    ball = Ball(np.array([0.0, 0.0, np.nan, 0.0]), np.array([np.inf, np.inf, 1.0, np.nan]))
    computed = np.array([np.nan, 1.0, 1.0, 1.0])
    assert list(ball.holds(computed)) == [False, True, False, False]
    assert list(ball.fraction(computed) <= 1) == [False, True, False, False]


def test_gamma_refuses_what_has_no_bound():
    assert bounds.gamma(1) == bounds.U / (1 - bounds.U)
    with pytest.raises(ValueError, match="no error bound"):
        bounds.gamma(2.0**24)


def worst_ulps(function, truth, x):
    """The largest error of function over x, in ULPs of the true value; results below the normal numbers left out."""
    wanted = truth(x.astype(np.float64))
    normal = np.abs(wanted) >= bounds.ETA
    unit = np.ldexp(1.0, np.floor(np.log2(np.abs(wanted[normal]))).astype(int) - 23)
    return (np.abs(np.asarray(function(x))[normal].astype(np.float64) - wanted[normal]) / unit).max()


def every(stride, low, high):
    """Every stride-th float32 from low to high."""
    first, last = (int(np.float32(end).view(np.uint32)) for end in (low, high))
    return np.arange(first, last + 1, stride, dtype=np.uint32).view(np.float32)


FUNCTIONS = {
    "exp": (np.exp, bounds.EXP, lambda: -every(499, 2**-12, 88)),
    "log1p": (np.log1p, bounds.LOG1P, lambda: every(499, 2**-60, 1)),
    "sigmoid": (bounds._sigmoid, bounds.LOGISTIC, lambda: -every(499, 2**-12, 88)),
    "tanh": (np.tanh, bounds.TANH, lambda: every(499, 2**-20, 12)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpys_functions_are_as_accurate_as_the_bounds_say(name):
    truth, bound, numbers = FUNCTIONS[name]
    function = ops.sigmoid if name == "sigmoid" else getattr(np, name)
    assert worst_ulps(function, truth, numbers()) <= bound / (2 * bounds.U)


@pytest.mark.keras
@pytest.mark.parametrize("name", FUNCTIONS)
def test_tensorflows_functions_are_as_accurate_as_the_bounds_say(name):
    tf = pytest.importorskip("tensorflow")
    truth, bound, numbers = FUNCTIONS[name]
    function = tf.math.log1p if name == "log1p" else getattr(tf, name)
    assert worst_ulps(function, truth, numbers()) <= bound / (2 * bounds.U)


@given(seeds)
def test_quotients_roots_and_maxima_are_held(seed):
    """Of float32 numbers, and of any numbers in the balls of the arguments."""
    rng = np.random.default_rng(seed)
    a, b = float32(rng, 40, spread=1.0), np.abs(float32(rng, 40, spread=1.0)) + np.float32(0.01)
    assert bounds.divide(exact(a), exact(b)).holds(a / b).all()
    assert bounds.divide(exact(a), exact(b)).holds(a * (np.float32(1) / b)).all()
    assert bounds.square_root(exact(b)).holds(np.sqrt(b)).all()
    balls = Ball(a.astype(np.float64), np.abs(a) * 1e-2), Ball(b.astype(np.float64), b * 1e-2)
    for _ in range(4):
        at_a, at_b = (ball.value + ball.radius * rng.choice([-1, 1], 40) for ball in balls)
        assert bounds.divide(*balls).holds(at_a / at_b).all()
        assert bounds.square_root(balls[1]).holds(np.sqrt(at_b)).all()
        assert bounds.maximum(*balls).holds(np.maximum(at_a, at_b)).all()
    assert (bounds.divide(exact(a), exact(b)).radius <= 3 * bounds.U * np.abs(a / b) + 2 * bounds.ETA).all()


def test_a_divisor_that_may_be_0_has_no_bound():
    with pytest.raises(ValueError, match="the divisor's ball holds 0"):
        bounds.divide(exact(np.ones(2)), Ball(np.array([1.0, 0.5]), np.array([0.1, 0.5])))


def built(case):
    """A case's model in minidl, of the same names each time."""
    utils.clear_session(free_memory=False)
    return case.build(minidl_keras)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_derivations_of_a_step_agree(monkeypatch, case):
    """The judge's balls, of layers, losses and update rules one by one, and second_step's, of whole formulas.

    Of a step into which nobody looked, so that each goes from the batch and the state before to those after.
    """
    balls, compared = {}, judge._compare

    def noted(quantity, layer, name, step, got, own, ball, *rest, **named):
        balls[quantity, layer, name] = ball
        return compared(quantity, layer, name, step, got, own, ball, *rest, **named)

    monkeypatch.setattr(judge, "_compare", noted)
    monkeypatch.setattr(judge, "_SAMPLE", 10**9)  # all elements
    model, judging = built(case), judge.Judge(built(case))
    x, y, weights = case.data("float32")
    weights = [None] * len(x) if weights is None else weights
    for number in range(9):
        step = step_of(model, x[number], y[number], weights[number], number=number, batch=number)
    step = replace(step, pre_activations=None, activations=None, data_loss=None, loss=None, gradients=None, logs=None)
    assert DIVERGENT not in {check.verdict for check in judging.judge(step)}
    before = step.before
    expected = second_step.training_step(
        model, step.x, step.y, weights=list(before.weights.values()), m=list(before.slots["m"].values()),
        v=list(before.slots["v"].values()), step=9, masks=step.noise, sample_weight=weights[8],
    )  # fmt: skip
    for i, segment in enumerate(model.arena.segments):
        name = segment.name
        for slot, second in (("m", expected.m[i]), ("v", expected.v[i])):
            first = balls["slot", segment.layer, f"{slot}/{name}"]
            value, radius = second.value.ravel(), second.radius.ravel()
            # of a constant, such as a penalty's factor, one takes the number, the other what float32 makes of it
            assert (np.abs(first.value - value) <= 0.25 * radius).all()
            assert (first.radius <= 8 * radius).all() and (radius <= 8 * first.radius).all()
        first, second = balls["weight", segment.layer, name], expected.theta[i]  # the judge's from the slots after
        assert (np.abs(first.value - second.value.ravel()) <= second.radius.ravel()).all()
