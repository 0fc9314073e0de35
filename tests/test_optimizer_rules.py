"""The update rules of ops.py beside Adam: against their second derivation in optimizer_rules.py, and closed forms."""

import numpy as np
import pytest
from helpers import assert_close, assert_same
from optimizer_rules import RULES, State, clip
from second_bounds import exact
from test_optimizers import OPTIMIZERS, ids

from minidl import config, ops, optimizers
from minidl.arena import Arena

EPS = np.finfo(np.float64).eps
KERAS_SLOTS = {
    "m": "momentum", "v": "velocity", "v_hat": "velocity_hat", "u": "norm", "momentums": "momentum",
    "velocities": "velocity", "average_gradients": "average_gradient", "accumulators": "accumulator",
    "accumulated_grads": "accumulated_grad", "accumulated_deltas": "accumulated_delta_var", "u_product": "variable",
}  # fmt: skip
RULE_CASES = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "beta_1": 0.8}),
    ("Adamax", {"beta_2": 0.9}),
    ("Nadam", {"beta_1": 0.8}),
    ("RMSprop", {}),
    ("RMSprop", {"rho": 0.8, "momentum": 0.6}),
    ("RMSprop", {"centered": True, "epsilon": 1e-3}),
    ("Adagrad", {"initial_accumulator_value": 0.25, "epsilon": 0.01}),
    ("Adadelta", {"rho": 0.9, "epsilon": 1e-4}),
]


def one_parameter(theta, dtype="float64"):
    arena = Arena([("a", "kernel", np.shape(theta))], dtype)
    arena.theta[:] = theta
    return arena


def states(optimizer, arena):
    slots = {KERAS_SLOTS[name]: exact(getattr(optimizer, name)) for name in (*optimizer.slots, *optimizer.scalars)}
    return State(exact(arena.theta), exact(arena.grads), slots)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "settings"), RULE_CASES, ids=[f"{n}-{'-'.join(s)}" for n, s in RULE_CASES])
def test_a_rule_is_its_second_derivation(name, settings, dtype, rng):
    """float32: within the derived radius. float64: within that scaled from 2⁻²⁴ to 2⁻⁵³, with the reference's own
    rounding, which is as large, doubled; in lock-step over twelve steps of gradients of very different sizes."""
    optimizer = getattr(optimizers, name)(0.5, **settings)
    arena = one_parameter(rng.normal(size=50), dtype)
    optimizer.build(arena)
    for step in range(1, 13):
        arena.grads[:] = rng.normal(size=50) * 10.0 ** rng.integers(-3, 2, 50)
        before = states(optimizer, arena)
        slots, change = RULES[name](before, exact(np.asarray(0.5)), step, **settings)
        theta = before.theta.value + change.value
        optimizer.apply(arena)
        after = states(optimizer, arena)
        radius = change.radius + 2.0**-24 * (np.abs(before.theta.value) + 2 * np.abs(change.value))
        for what, ball, got in (
            *((slot, (ball.value, ball.radius), after.slots[slot].value) for slot, ball in slots.items()),
            ("weight", (theta, radius), after.theta.value),
        ):
            budget = ball[1] if dtype == "float32" else ball[1] * 2.0**-28
            assert_close(got, ball[0], atol=budget, what=f"step {step}, {what}")
        assert slots.keys() == after.slots.keys()


def test_momentum_of_a_constant_gradient_is_a_geometric_series():
    theta, m, plain = np.zeros(3), np.zeros(3), np.zeros(3)
    gradient, mu = np.array([1.0, -4.0, 0.5]), 0.5  # exact in float32, and powers of two: nothing is rounded
    for t in range(1, 20):
        ops.sgd_momentum_step(theta, gradient, m, learning_rate=0.25, momentum=mu)
        assert_same(m, -0.25 * gradient * (1 - mu**t) / (1 - mu))
        plain += m
        assert_same(theta, plain)
    before = theta.copy()
    ops.sgd_momentum_step(theta, gradient, m, learning_rate=0.25, momentum=mu, nesterov=True)
    assert_same(theta, before + mu * m - 0.25 * gradient)


def test_without_momentum_all_three_forms_are_sgd(rng):
    gradient, found = rng.normal(size=9), []
    for nesterov in (False, True, None):
        theta = np.zeros(9)
        if nesterov is None:
            ops.sgd_step(theta, gradient, learning_rate=0.3)
        else:
            ops.sgd_momentum_step(theta, gradient, np.zeros(9), learning_rate=0.3, momentum=0.0, nesterov=nesterov)
        found.append(theta)
    assert_same(found[0], found[2])
    assert_same(found[1], found[2])


def test_adagrad_of_a_constant_gradient_shrinks_with_the_root_of_the_steps():
    theta, a, g = np.zeros(2), np.full(2, 0.25), np.array([3.0, -0.5])
    for t in range(1, 10):
        before = theta.copy()
        ops.adagrad_step(theta, g, a, learning_rate=0.1, epsilon=0.0)
        assert_same(a, 0.25 + t * g * g)
        # product, root, quotient and the sum are rounded, the sum by ε|θ|, |θ| ≤ 0.1 t
        assert_close(theta - before, -0.1 * g / np.sqrt(0.25 + t * g * g), atol=0.2 * t * EPS, rtol=3 * EPS)


def test_adamax_and_nadam_of_a_constant_gradient():
    """Adamax: u = |g| and m/(1 − β₁ᵗ) = g. Nadam with β₁ = 0 has m̂ = g and v̂ = g². Both step by η g/(|g| + ε)."""
    g = np.array([2.0, -0.5])
    for t in range(1, 10):
        theta, m, u = np.zeros(2), (1 - 0.5 ** (t - 1)) * g, np.abs(g)
        ops.adamax_step(theta, g, m, u, step=t, learning_rate=0.1, beta_1=0.5, epsilon=0.25)
        assert_close(theta, -0.1 * g / (np.abs(g) + 0.25), atol=0, rtol=8 * EPS)
        theta, m, v, product = np.zeros(2), g.copy(), (1 - 0.5 ** (t - 1)) * g * g, np.zeros(())
        ops.nadam_step(theta, g, m, v, product, step=t, learning_rate=0.1, beta_1=0.0, beta_2=0.5, epsilon=0.25)
        assert_close(theta, -0.1 * g / (np.abs(g) + 0.25), atol=0, rtol=8 * EPS)


def test_centered_rmsprop_of_a_constant_gradient_has_no_variance_left():
    """v = ḡ² = g² once both have settled, so the step is η g/√ε, larger by far than the plain one's η sign(g)."""
    theta, v, mean, g = np.zeros(1), np.full(1, 4.0), np.full(1, 2.0), np.full(1, 2.0)
    ops.rmsprop_step(theta, g, v, None, mean, learning_rate=0.125, rho=0.5, epsilon=0.0625)
    assert_same(theta, np.array([-1.0]))
    theta, v = np.zeros(1), np.full(1, 4.0)
    ops.rmsprop_step(theta, g, v, learning_rate=0.125, rho=0.5, epsilon=0.0)
    assert_same(theta, np.array([-0.125]))


def test_adadelta_has_units_of_its_own():
    """The first step: Δ = −√ε g/√((1 − ρ) g² + ε); with ε = 0 nothing ever moves."""
    theta, a, d, g = np.zeros(2), np.zeros(2), np.zeros(2), np.array([3.0, -2.0])
    ops.adadelta_step(theta, g, a, d, learning_rate=1.0, rho=0.75, epsilon=0.25)
    assert_close(theta, -0.5 * g / np.sqrt(0.25 * g * g + 0.25), atol=0, rtol=4 * EPS)
    assert_close(d, 0.25 * theta**2, atol=0, rtol=4 * EPS)


def test_amsgrad_never_forgets_a_large_gradient():
    settings = {"beta_1": 0.0, "beta_2": 0.5, "learning_rate": 1.0, "epsilon": 0.0}
    theta, m, v, v_hat = np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1)
    ops.amsgrad_step(theta, np.array([8.0]), m, v, v_hat, step=1, **settings)
    for step in range(2, 30):
        ops.amsgrad_step(theta, np.array([0.5]), m, v, v_hat, step=step, **settings)
    assert v_hat[0] == 32.0 and v[0] < 0.26


WRONG = [
    (ops.sgd_momentum_step, 3, {"learning_rate": 0.1, "momentum": 0.9}),
    (ops.amsgrad_step, 5, {"step": 1}),
    (ops.adamax_step, 4, {"step": 1}),
    (ops.nadam_step, 4, {"step": 1, "u_product": np.ones(())}),
    (ops.rmsprop_step, 5, {}),
    (ops.adagrad_step, 3, {}),
    (ops.adadelta_step, 4, {}),
]


@pytest.mark.parametrize(("rule", "count", "settings"), WRONG, ids=[rule.__name__ for rule, _, _ in WRONG])
@pytest.mark.parametrize("replacement", [np.ones(3), np.ones(2, np.float32), np.ones((2, 1))])
def test_another_shape_or_dtype_is_refused_and_changes_nothing(rule, count, settings, replacement):
    for odd in range(count):
        arrays = [np.ones(2) for _ in range(count)]
        arrays[odd] = replacement
        with pytest.raises(ValueError, match=f"^{rule.__name__}: param, grad.* must have one shape and dtype; got"):
            rule(*arrays, **settings)
        assert all((array == 1).all() for array in arrays)


@pytest.mark.parametrize("rule", [ops.adamax_step, ops.nadam_step, ops.amsgrad_step])
def test_a_step_below_1_is_refused_and_changes_nothing(rule):
    extra = {ops.adamax_step: [], ops.nadam_step: [np.ones(())], ops.amsgrad_step: [np.ones(2)]}[rule]
    arrays = [np.ones(2) for _ in range(4)] + extra
    with pytest.raises(ValueError, match=r"step.*got 0"):
        rule(*arrays, step=0)
    assert all((array == 1).all() for array in arrays)


# Clipping, decay, averages -------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clipping_is_its_second_derivation(limit, dtype, rng):
    grads = rng.normal(size=(4, 5)).astype(dtype)
    slack = 1 if dtype == "float32" else 2.0**-28  # as above
    for function, name in (
        (ops.clip_by_norm, "clipnorm"),
        (ops.clip_by_global_norm, "global_clipnorm"),
        (ops.clip_by_value, "clipvalue"),
    ):
        (ball,) = clip([exact(grads)], **{name: limit})
        got = function(grads, **{name: limit})
        assert got.dtype == dtype
        assert_close(got.astype(np.float64), ball.value, atol=ball.radius * slack, what=name)


def test_clipping_by_norm_by_hand():
    g = np.array([3.0, -4.0])
    assert_same(ops.clip_by_norm(g, clipnorm=2.5), np.array([1.5, -2.0]))
    assert_same(ops.clip_by_global_norm(g, global_clipnorm=2.5), np.array([1.5, -2.0]))
    assert_same(ops.clip_by_norm(g, clipnorm=8.0), g)
    assert_same(ops.clip_by_value(g, clipvalue=3.5), np.array([3.0, -3.5]))
    zero = np.zeros(2)
    assert_same(ops.clip_by_norm(zero, clipnorm=2.5), zero)
    assert_same(ops.clip_by_global_norm(zero, global_clipnorm=2.5), zero)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_global_norm_that_is_not_finite_makes_everything_nan(bad):
    assert np.isnan(ops.clip_by_global_norm(np.array([1.0, bad]), global_clipnorm=1.0)).all()


def test_decay_and_average_by_hand():
    theta, average = np.array([8.0, -4.0]), np.array([0.0, 4.0])
    ops.weight_decay_step(theta, weight_decay=0.5, learning_rate=0.25)
    assert_same(theta, np.array([7.0, -3.5]))
    ops.moving_average_step(average, theta, momentum=0.75)
    assert_same(average, np.array([1.75, 2.125]))
    assert_same(ops.mean_gradient(np.array([1.0]), np.array([5.0]), steps=3), np.array([2.0]))


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=ids(OPTIMIZERS))
def test_all_state_has_the_dtype_of_the_parameters(name, options):
    config.set_floatx("float64")
    optimizer, arena = getattr(optimizers, name)(**options), one_parameter(np.ones(3))
    arena.grads[:] = 0.5
    optimizer.apply(arena)
    assert all(variable.dtype == np.float64 for variable in optimizer.variables[1:])


def test_in_float64_some_constants_are_rounded_to_float32_as_in_keras():
    config.set_floatx("float64")
    theta, rounded = np.ones(2), float(np.float32(0.1))
    ops.weight_decay_step(theta, weight_decay=0.1, learning_rate=1.0)
    assert_same(theta, np.full(2, 1 - rounded))
    adagrad = optimizers.Adagrad(initial_accumulator_value=0.1)
    adagrad.build(one_parameter(np.ones(2)))
    assert_same(adagrad.accumulators, np.full(2, rounded))
