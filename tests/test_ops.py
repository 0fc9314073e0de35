"""ops.py: every backward against central differences, closed forms, out=, dtypes, and inputs left alone."""

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from helpers import assert_close, assert_gradients_close, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import activations, ops

EPS = np.finfo(np.float64).eps
EPS32 = np.float32(1e-7)  # Keras's clip in float32
DTYPES = ["float32", "float64"]
SCALARS = {"threshold": {"threshold": 0.5, "default_value": 2.0}}
ACTIVATIONS = sorted({a.name: a for a in vars(activations).values() if isinstance(a, activations.Activation)})


def frozen(array):
    """The array, read-only: whoever writes to it fails."""
    array = np.array(array)
    array.flags.writeable = False
    return array


# Gradients -----------------------------------------------------------------------------------------------


def test_dense_backward(rng):
    inputs, kernel, bias = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=3)
    d_outputs = rng.normal(size=(5, 3))

    def f():
        return (d_outputs * ops.dense(inputs, kernel, bias)).sum()

    # Linear in each argument: no truncation. Rounded: 15 sums of 5 products of numbers below 4, each at most
    # 4 + 15 times on its way into f; 15·5·4²·20 = 24 000 is generous. With h = 1e-3: 24 000·2e-16/1e-3 = 5e-9.
    d_kernel, d_bias = ops.dense_gradients(d_outputs, inputs)
    bounds = {"third_derivative": 0, "scale": 24_000, "h": 1e-3}
    assert_gradients_close(f, kernel, d_kernel, what="d_kernel", **bounds)
    assert_gradients_close(f, bias, d_bias, what="d_bias", **bounds)
    assert_gradients_close(f, inputs, ops.dense_backward(d_outputs, kernel), what="d_inputs", **bounds)


KINKS = (-6, -3, -1, -0.5, 0, 0.5, 1, 3, 6)  # of all activations and arguments below
WITH_ARGUMENTS = [(name, SCALARS.get(name, {})) for name in ACTIVATIONS] + [
    ("relu", {"negative_slope": 0.25, "max_value": 1.0, "threshold": -1.0}),
    ("relu", {"negative_slope": 0.25, "threshold": 0.5}),
    ("relu", {"max_value": 6.0}),
    ("relu", {"negative_slope": 0.25}),
    ("leaky_relu", {"negative_slope": 0.5}),
    ("elu", {"alpha": 0.7}),
    ("celu", {"alpha": 0.7}),
    ("gelu", {"approximate": True}),
    ("squareplus", {"b": 1.5}),
    ("soft_shrink", {"threshold": 1.0}),
    ("hard_shrink", {"threshold": 1.0}),
    ("softmax", {"axis": 0}),
    ("softmax", {"axis": (0, 1)}),
    ("log_softmax", {"axis": None}),
    ("sparsemax", {"axis": 0}),
    ("glu", {"axis": 0}),
]


@pytest.mark.parametrize(("name", "scalars"), WITH_ARGUMENTS, ids=[f"{n}-{'-'.join(s)}" for n, s in WITH_ARGUMENTS])
def test_activation_backward(rng, name, scalars):
    activation = getattr(activations, name).with_arguments(**scalars)
    inputs = rng.normal(size=(6, 6), scale=2)
    for kink in KINKS:
        inputs[np.abs(inputs - kink) < 0.01] = kink + 0.2  # no derivative there, and h is 1e-5
    outputs = activation.forward(inputs)
    d_outputs = rng.normal(size=outputs.shape)

    def f():
        return (d_outputs * activation.forward(inputs)).sum()

    # |f‴| ≤ 4 Σ_u |d_outputs_u|: |σ‴| ≤ 1/8, |tanh‴| ≤ 2, |∂³ softmax_v/∂z_u³| ≤ 1/8 for each v, |gelu‴| ≤ 3,
    # |(α e^(x/α))‴| ≤ 1/α² ≤ 2.1, |elu‴| < 1, |selu‴| < 1.8, |squareplus‴| ≤ 0.43/b; e^x: below e^8 = 3000.
    # Rounded: 36 terms of at most 3·8, a few times each and in the sum's 36 partial sums: 36·24·40; e^x: 3000 for 8.
    d_inputs = activation.gradient(d_outputs, inputs, outputs)
    large = 400 if name == "exponential" else 1
    assert_gradients_close(f, inputs, d_inputs, third_derivative=4 * 6 * 3 * large, scale=35_000 * large)


def test_dropout_backward(rng):
    inputs, d_outputs, mask = rng.normal(size=(6, 5)), rng.normal(size=(6, 5)), rng.random((6, 5)) > 0.3

    def f():
        return (d_outputs * ops.dropout(inputs, mask, rate=0.3)).sum()

    # linear, so no truncation; 30 terms of at most 3·3/0.7, rounded in at most 33 operations; h = 1e-3
    d_inputs = ops.dropout_backward(d_outputs, mask, rate=0.3)
    assert_gradients_close(f, inputs, d_inputs, third_derivative=0, scale=30 * 13 * 33, h=1e-3)
    assert (d_inputs[~mask] == 0).all()


def test_binary_crossentropy_backward(rng):
    y_true, d_losses = rng.random((6, 5)), rng.normal(size=(6, 5))
    y_true[0], y_true[1] = 0, 1
    y_pred = rng.uniform(0.05, 0.95, size=(6, 5))

    def f():
        return (d_losses * ops.binary_crossentropy(y_true, y_pred)).sum()

    # |ℓ‴| ≤ 2/p³ + 2/(1 − p)³ ≤ 4/0.05³ = 32 000, times |d_losses| < 3; 30 terms below 3·3, about 36 roundings each
    d_y_pred = d_losses * ops.binary_crossentropy_backward(y_true, y_pred)
    assert_gradients_close(f, y_pred, d_y_pred, third_derivative=96_000, scale=30 * 9 * 36)


def test_binary_crossentropy_backward_where_clipped(rng):
    y_true = rng.random((2, 6))
    y_pred = np.array([[0.0, 1e-9, 0.5e-7, 1 - 0.5e-7, 1 - 1e-9, 1.0]] * 2)

    def f():
        return ops.binary_crossentropy(y_true, y_pred).sum()

    # h = 1e-8 stays inside the clipped regions, where the loss is constant, so the quotient is exactly 0
    gradient = ops.binary_crossentropy_backward(y_true, y_pred)
    assert_gradients_close(f, y_pred, gradient, third_derivative=0, scale=0, h=1e-8)
    assert_same(gradient, np.zeros((2, 6)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_binary_crossentropy_backward_at_the_ends_of_the_clip(dtype):
    low, high = np.dtype(dtype).type(1e-7), np.dtype(dtype).type(1 - 1e-7)
    y_pred = np.array([low, np.nextafter(low, 0), high, np.nextafter(high, 1, dtype=dtype)], dtype)
    gradient = ops.binary_crossentropy_backward(np.array([1, 1, 0, 0], dtype), y_pred)
    assert_same(gradient, np.array([-1 / low, 0, 1 / (1 - high), 0], dtype))  # the ends themselves are not clipped


def test_binary_crossentropy_from_logits_backward(rng):
    y_true, logits, d_losses = rng.random((6, 5)), rng.normal(size=(6, 5), scale=3), rng.normal(size=(6, 5))
    y_true[0], y_true[1] = 0, 1

    def f():
        return (d_losses * ops.binary_crossentropy_from_logits(y_true, logits)).sum()

    # |ℓ‴| = |σ″| ≤ 0.1, times |d_losses| < 3; 30 terms below 3·12, about 36 roundings each
    d_logits = d_losses * ops.binary_crossentropy_from_logits_backward(y_true, logits)
    assert_gradients_close(f, logits, d_logits, third_derivative=0.3, scale=30 * 36 * 36)


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_orthogonal_gradient(rng, mode):
    weights = rng.normal(size=(4, 3))
    weights /= np.linalg.norm(weights, axis=0 if mode == "columns" else 1, keepdims=True) / 1.5

    # A unit vector's third derivative is at most 15/‖w‖³, and an element is in at most 3 products, counted twice, of 3
    # pairs or more: 15 · 3 · 0.3 / 3. Rounded: 16 products of 4 numbers below 1, a few times each.
    assert_gradients_close(
        lambda: ops.orthogonal_penalty(weights, factor=0.3, mode=mode),
        weights,
        ops.orthogonal_gradient(weights, factor=0.3, mode=mode),
        third_derivative=5,
        scale=16 * 4 * 4,
    )


def test_orthogonal_penalty_in_closed_form():
    """Two vectors at 60°, one at a right angle to both: |cos| = ½, 0, 0; the mean of the three pairs is 1/6."""
    weights = np.array([[2.0, 0.0, 0.0], [0.5, 0.5 * math.sqrt(3), 0.0], [0.0, 0.0, 7.0]])
    for mode, matrix in (("rows", weights), ("columns", np.ascontiguousarray(weights.T))):
        assert_close(ops.orthogonal_penalty(matrix, factor=0.6, mode=mode), np.float64(0.1), atol=20 * EPS)
    assert_same(ops.orthogonal_penalty(np.eye(3), factor=0.6), np.float64(0))
    assert_same(ops.orthogonal_gradient(np.zeros((3, 2)), factor=0.6), np.zeros((3, 2)))


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_orthogonal_penalty_needs_a_pair_and_two_axes(mode):
    one = np.ones((1, 3)) if mode == "rows" else np.ones((3, 1))
    for function in (ops.orthogonal_penalty, ops.orthogonal_gradient):
        with pytest.raises(ValueError, match=f"'{mode}' needs at least two {mode}"):
            function(one, factor=1.0, mode=mode)
        with pytest.raises(ValueError, match=r"two axes; got shape \(3,\)"):
            function(np.ones(3), factor=1.0, mode=mode)


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_penalty_gradient(rng, name):
    penalty, gradient = getattr(ops, f"{name}_penalty"), getattr(ops, f"{name}_gradient")
    weights = rng.normal(size=(4, 3))
    weights[np.abs(weights) < 0.01] = 0.5  # away from |w|'s corner; h is 1e-3

    # at most quadratic, so no truncation; 12 terms below 0.3·9, at most 15 roundings each
    assert_gradients_close(
        lambda: penalty(weights, **{name: 0.3}),
        weights,
        gradient(weights, **{name: 0.3}),
        third_derivative=0,
        scale=12 * 2.7 * 15,
        h=1e-3,
    )


# Closed forms --------------------------------------------------------------------------------------------

finite = st.floats(-50, 50, allow_subnormal=False)
logits_lists = st.lists(st.floats(-1e4, 1e4, allow_subnormal=False), min_size=1, max_size=8)
probabilities = st.floats(0, 1, allow_subnormal=False)


@given(logits_lists, st.sampled_from(DTYPES))
def test_sigmoid_is_symmetric_and_within_0_and_1(values, dtype):
    z = np.array(values, dtype)
    got = ops.sigmoid(z)
    assert got.dtype == dtype
    assert ((got >= 0) & (got <= 1)).all()
    # each is off by the roundings of exp, 1 + t and the quotient, and 1 − σ by one more: 6 halves of an ε
    assert_close(ops.sigmoid(-z), 1 - got, atol=3 * np.finfo(dtype).eps)


def test_sigmoid_known_values():
    z = np.array([-np.inf, -1e4, 0, math.log(3), 1e4, np.inf])
    assert_close(ops.sigmoid(z), np.array([0, 0, 0.5, 0.75, 1, 1]), atol=EPS)
    assert ops.sigmoid(np.array([-700.0]))[0] > 0  # no cancellation: e^−700, not 1 − 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_crossentropy_from_logits_at_ten_thousand(dtype):
    z = np.array([1e4, -1e4, 1e4, -1e4, 1e4, -1e4], dtype)
    y = np.array([0, 1, 1, 0, 0.25, 0.25], dtype)
    # warnings are errors: nothing overflows; e^−10000 is 0, so the loss is max(z, 0) − z·y to the last bit
    assert_same(ops.binary_crossentropy_from_logits(y, z), np.array([1e4, 1e4, 0, 0, 7500, 2500], dtype))
    assert_same(ops.binary_crossentropy_from_logits_backward(y, z), np.array([1, -1, 0, 0, 0.75, -0.25], dtype))


def test_crossentropy_gradient_from_logits_keeps_its_relative_error():
    # sigmoid(z) − 1 = −e^−z/(1 + e^−z): as a difference of rounded numbers it would be 0 beyond z = 37
    z = np.array([20.0, 40.0, 100.0, 600.0])
    expected = -np.exp(-z) / (1 + np.exp(-z))
    assert_close(ops.binary_crossentropy_from_logits_backward(np.ones(4), z), expected, atol=0, rtol=4 * EPS)
    assert_close(ops.binary_crossentropy_from_logits_backward(np.zeros(4), -z), -expected, atol=0, rtol=4 * EPS)


@given(st.lists(st.tuples(probabilities, st.floats(-15, 15)), min_size=1, max_size=8))
def test_crossentropy_from_logits_is_that_from_probabilities(pairs):
    y, z = (np.array(column) for column in zip(*pairs, strict=True))
    p = ops.sigmoid(z)
    # |z| ≤ 15 keeps p from the clip (e^−15 = 3.1e-7 > 1e-7). p has 3 half ulps of relative error, 1 − p besides an
    # absolute ε: in the logarithm that is 2ε + 1.5ε p/(1 − p) ≤ 2ε + 1.5ε e^|z|, and each term ≤ 15 has 3 ε more
    budget = EPS * (4 * np.exp(np.abs(z)) + 8 * 16)
    from_logits = ops.binary_crossentropy_from_logits(y, z)
    assert_close(ops.binary_crossentropy(y, p), from_logits, atol=budget)


def test_clip_of_a_saturated_probability():
    y, p = np.array([1, 0, 1, 0], np.float32), np.array([0, 1, 1, 0], np.float32)
    high = np.float32(1 - 1e-7)
    wrong_at_0, wrong_at_1 = -np.log(EPS32), -np.log(1 - high)
    expected = np.array([wrong_at_0, wrong_at_1, -np.log(high), -np.log(1 - EPS32)], np.float32)
    assert_same(ops.binary_crossentropy(y, p), expected)
    assert_same(ops.binary_crossentropy_backward(y, p), np.zeros(4, np.float32))
    assert 16.1 < wrong_at_0 < 16.2 and 15.9 < wrong_at_1 < 16.0  # 1 − 1e-7 rounds: the two ends differ in float32


def test_epsilon_is_an_argument():
    y, p = np.array([1.0]), np.array([0.0])
    assert_same(ops.binary_crossentropy(y, p, epsilon=0.25), -np.log([0.25]))
    assert_same(ops.binary_crossentropy_backward(y, np.array([0.2]), epsilon=0.25), np.array([0.0]))


@given(st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=5), finite)
def test_softmax_rows_sum_to_one_and_a_shift_changes_nothing(rows, shift):
    z = np.array(rows)
    p = ops.softmax(z)
    assert (p >= 0).all()
    assert_close(p.sum(axis=-1), np.ones(len(z)), atol=4 * EPS)
    # z + shift rounds by ε/2·100 on either side of the maximum's difference; d softmax ≤ p·2·max|dz|
    assert_close(ops.softmax(z + shift), p, atol=0, rtol=EPS * (200 + 10))


def test_softmax_does_not_overflow_and_normalizes_the_last_axis():
    z = np.array([[1e4, 1e4 - math.log(3)], [-1e4, 1e4]])
    # 1e4 − ln 3 is rounded by half an ulp of 1e4
    assert_close(ops.softmax(z), np.array([[0.75, 0.25], [0, 1]]), atol=2e4 * EPS)
    assert_close(ops.softmax(np.zeros((2, 3, 4))), np.full((2, 3, 4), 0.25), atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_at_0_and_its_derivative_there(dtype):
    z = np.array([-1, -0.0, 0, 2], dtype)
    assert_close(ops.relu(z), np.array([0, 0, 0, 2], dtype), atol=0)
    d_inputs = ops.relu_backward(np.array([5, 5, 5, 5], dtype), ops.relu(z))
    assert_close(d_inputs, np.array([0, 0, 0, 5], dtype), atol=0)


def test_tanh_is_tanh(rng):
    z = rng.normal(size=20)
    e = np.exp(2 * z)
    # the quotient of e² ± 1 cancels near 0: an ε/2 of 1 is the error there
    assert_close(ops.tanh(z), (e - 1) / (e + 1), atol=4 * EPS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.1, 0.45, 0.5, 0.8])
def test_dropout_scale_is_rounded_once(dtype, rate, rng):
    inputs, mask = rng.normal(size=(8, 5)).astype(dtype), rng.random((8, 5)) >= rate
    expected = inputs * np.dtype(dtype).type(1 / (1 - rate))  # 1/(1 − rate) in double, then to dtype
    assert_same(ops.dropout(inputs, mask, rate=rate), np.where(mask, expected, np.dtype(dtype).type(0)))
    if (dtype, rate) == ("float32", 0.45):  # a case that tells this from a factor computed in float32
        assert np.float32(1 / (1 - rate)) != np.float32(1) / np.float32(1 - rate)


@given(st.floats(0, 0.95), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_dropout_keeps_the_expectation(rate, seed):
    """Over all masks of 3 units, each with its probability, the mean output is the input."""
    inputs = np.random.default_rng(seed).normal(size=3)
    mean = np.zeros(3)
    for bits in range(8):
        mask = np.array([bits >> i & 1 for i in range(3)], bool)
        probability = np.prod(np.where(mask, 1 - rate, rate))
        mean += probability * ops.dropout(inputs, mask, rate=rate)
    # 8 terms of at most |x|/(1 − rate) · (1 − rate), some 8 roundings each
    assert_close(mean, inputs, atol=64 * EPS, rtol=64 * EPS)


@pytest.mark.parametrize("mask", [False, True])
def test_dropout_at_rate_1_gives_zeros_even_of_infinities(mask):
    inputs = np.array([1.0, -2.0, np.inf, np.nan])
    assert_same(ops.dropout(inputs, np.full(4, mask), rate=1.0), np.zeros(4))
    out = np.full(4, np.nan)
    assert ops.dropout(inputs, np.full(4, mask), rate=1.0, out=out) is out
    assert_same(out, np.zeros(4))


def test_dropout_drops_infinities_and_nans():
    inputs = np.array([np.inf, -np.inf, np.nan, 1.0])
    mask = np.array([False, False, False, True])
    assert_same(ops.dropout(inputs, mask, rate=0.5), np.array([0, 0, 0, 2.0]))


def test_dropout_repeats_a_smaller_mask():
    got = ops.dropout(np.ones((2, 3)), np.array([[True], [False]]), rate=0.5)
    assert_same(got, np.array([[2.0, 2, 2], [0, 0, 0]]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_penalties_in_closed_form(dtype):
    weights = np.array([[1, -2], [0, 4]], dtype)
    factor = np.dtype(dtype).type(0.1)
    assert_same(ops.l1_penalty(weights, l1=0.1), factor * np.dtype(dtype).type(7))
    assert_same(ops.l2_penalty(weights, l2=0.1), factor * np.dtype(dtype).type(21))
    assert_same(ops.l1_gradient(weights, l1=0.1), np.array([[1, -1], [0, 1]], dtype) * factor)
    assert_same(ops.l2_gradient(weights, l2=0.1), weights * np.dtype(dtype).type(0.2))


def test_l1_gradient_at_both_zeros_is_0():
    assert (ops.l1_gradient(np.array([0.0, -0.0]), l1=0.5) == 0).all()


# Adam ----------------------------------------------------------------------------------------------------

F32_BETA_1, F32_BETA_2 = float(np.float32(0.9)), float(np.float32(0.999))  # as in Keras's bias corrections
DEFAULTS = {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}


def updates(gradients, dtype="float64", **arguments):
    """What adam_step takes off a parameter at each of the gradients in turn. The parameter is at 0 before each
    step, so that the difference is not rounded."""
    m, v = np.zeros_like(gradients[0], dtype), np.zeros_like(gradients[0], dtype)
    for step, gradient in enumerate(gradients, 1):
        param = np.zeros_like(m)
        ops.adam_step(param, np.asarray(gradient, dtype), m, v, step=step, **{**DEFAULTS, **arguments})
        yield -param


def exact_updates(gradients, **arguments):
    """The same in 50 decimal digits, with its own formula: m and v as sums over all gradients.

    The bias corrections take β rounded to float32, as Keras does even in float64: see adam_alpha.
    """
    getcontext().prec = 50
    settings_ = {**DEFAULTS, **arguments}
    eta, beta_1, beta_2, epsilon = (Decimal(settings_[k]) for k in ("learning_rate", "beta_1", "beta_2", "epsilon"))
    found = []
    for t in range(1, len(gradients) + 1):
        seen = [Decimal(float(g)) for g in gradients[:t]]
        m = (1 - beta_1) * sum(beta_1 ** (t - i) * g for i, g in enumerate(seen, 1))
        v = (1 - beta_2) * sum(beta_2 ** (t - i) * g * g for i, g in enumerate(seen, 1))
        correction_1, correction_2 = (1 - Decimal(float(np.float32(b))) ** t for b in (beta_1, beta_2))
        m_hat, v_hat, epsilon_hat = m / correction_1, v / correction_2, epsilon / correction_2.sqrt()
        found.append(eta * m_hat / (v_hat.sqrt() + epsilon_hat))
    return found


def test_adam_against_50_digits(rng):
    gradients = rng.normal(size=(20, 6)) * 10.0 ** rng.integers(-6, 3, size=(1, 6))
    got = np.array(list(updates(gradients)))
    expected = [[float(u) for u in exact_updates(list(column))] for column in gradients.T]
    # m: a step rounds g − m, its product with 0.1 and the sum, ε/2·(0.2 + 0.2 + 1)·max|g|: 14 ε max|g| in 20 steps.
    # v: its terms are all positive, so 3 roundings a step are 30 ε of v, 15 ε of √v. 1 − β is exact. βᵗ is rounded
    # by ε/2, which in 1 − β₂ᵗ ≥ 0.001 is up to 500 ε, 250 ε under the root, and in 1 − β₁ᵗ 5 ε. Then 10 operations.
    # So |Δu| ≤ α/√v · 14 ε max|g| + |u| (15 + 250 + 5 + 10) ε.
    step = np.arange(1, 21)[:, None]
    alpha = 0.001 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    v = np.array([0.001 * sum(0.999 ** (t - i) * gradients[i - 1] ** 2 for i in range(1, t + 1)) for t in step[:, 0]])
    largest = np.maximum.accumulate(np.abs(gradients))
    budget = alpha / np.sqrt(v) * 14 * EPS * largest
    assert_close(got, np.array(expected).T, atol=budget, rtol=280 * EPS, what="update")
    assert (budget < 1e-12).all()  # a budget that means something: updates are about 1e-3


def test_adam_first_step_is_nearly_the_sign():
    gradient = np.array([3.0, -0.5, 1e-3, -1e-7, 0.0])
    (got,) = updates([gradient])
    # m = (1 − β₁) g and √v = √(1 − β₂) |g|, and the corrections nearly undo the factors: η g / (|g| + 3e-6)
    alpha = 0.001 * math.sqrt(1 - F32_BETA_2) / (1 - F32_BETA_1)
    expected = alpha * (1 - 0.9) * gradient / (math.sqrt(1 - 0.999) * np.abs(gradient) + 1e-7)
    # every 1 − β is exact, so only some 8 operations on either side are rounded
    assert_close(got, expected, atol=0, rtol=8 * EPS)
    assert_close(got[:2], np.array([0.001, -0.001]), atol=0, rtol=1.5e-5)  # η sign(g): 7e-6 of ε̂, 7e-6 of float32(β)
    assert abs(got[3]) < 0.1 * 0.001


def test_adam_of_a_constant_gradient_steps_by_eta():
    gradient = np.array([2.0, -30.0])
    for t, got in enumerate(updates([gradient] * 12), 1):
        # m = (1 − β₁ᵗ) g, v = (1 − β₂ᵗ) g²
        alpha = 0.001 * math.sqrt(1 - F32_BETA_2**t) / (1 - F32_BETA_1**t)
        expected = alpha * (1 - 0.9**t) * gradient / (math.sqrt(1 - 0.999**t) * np.abs(gradient) + 1e-7)
        # βᵗ rounded by ε/2 is 500 ε/t of 1 − β₂ᵗ, 250 ε/t under a root, of which there are three, one of them in
        # adam_step; 1 − β₁ᵗ likewise 5 ε, three times; m and v round 3 times a step
        assert_close(got, expected, atol=0, rtol=(750 / t + 30 + 3 * t) * EPS, what=f"step {t}")
        assert_close(got, np.array([0.001, -0.001]), atol=0, rtol=1.5e-5)


def test_adam_in_exact_numbers():
    """β₁ = β₂ = 1/2, η = 1 and ε̂ = 0: by hand."""
    arguments = {"learning_rate": 1.0, "beta_1": 0.5, "beta_2": 0.5, "epsilon": 0.0}
    param, m, v = np.array([10.0]), np.zeros(1), np.zeros(1)
    ops.adam_step(param, np.array([2.0]), m, v, step=1, **arguments)
    assert (m[0], v[0]) == (1.0, 2.0)
    assert_close(param, np.array([9.0]), atol=4 * EPS * 10)  # α = √½ / ½, m/√v = 1/√2
    ops.adam_step(param, np.array([-3.0]), m, v, step=2, **arguments)
    assert (m[0], v[0]) == (-1.0, 5.5)
    # α = √¾ / ¾ = 2/√3, m/√v = −1/√5.5
    assert_close(param, np.array([9.0 + 2 / math.sqrt(16.5)]), atol=8 * EPS * 10)


@pytest.mark.parametrize("step", [1, 2, 7, 100, 5000])
def test_adam_alpha_rounds_every_operation_and_the_power_once(step):
    f32 = np.float32
    power_1, power_2 = f32(float(f32(0.9)) ** step), f32(float(f32(0.999)) ** step)
    expected = f32(0.001) * np.sqrt(f32(1) - power_2) / (f32(1) - power_1)
    got = ops.adam_alpha(f32, step=step, learning_rate=0.001, beta_1=0.9, beta_2=0.999)
    assert_same(got, expected)
    if step == 5000:  # both corrections have faded: 0.9⁵⁰⁰⁰ is 0, 0.999⁵⁰⁰⁰ = 0.0067
        assert_close(got, f32(0.001 * math.sqrt(1 - 0.999**5000)), atol=0, rtol=1e-6)


def test_adam_alpha_in_double_takes_the_powers_of_float32_betas():
    got = ops.adam_alpha(np.float64, step=3, learning_rate=0.001, beta_1=0.9, beta_2=0.999)
    expected = 0.001 * math.sqrt(1 - F32_BETA_2**3) / (1 - F32_BETA_1**3)
    assert_close(got, np.float64(expected), atol=0, rtol=4 * EPS)


def test_adam_computes_in_the_dtype_of_the_arrays(rng):
    f32, gradient = np.float32, rng.normal(size=100).astype(np.float32)
    m, v = (rng.random(100).astype(np.float32) for _ in range(2))
    param = np.zeros(100, f32)  # so that the update's last bit is not lost in a sum
    expected_m = m + (gradient - m) * f32(1 - 0.9)
    expected_v = v + (gradient * gradient - v) * f32(1 - 0.999)
    alpha = ops.adam_alpha(f32, step=3, learning_rate=0.001, beta_1=0.9, beta_2=0.999)
    expected = -((expected_m * alpha) / (np.sqrt(expected_v) + f32(1e-7)))
    ops.adam_step(param, frozen(gradient), m, v, step=3)
    for got, wanted in ((m, expected_m), (v, expected_v), (param, expected)):
        assert_same(got, wanted)


def test_adam_defaults_are_keras_s(rng):
    gradient = rng.normal(size=4)
    parts = [[np.zeros(4), np.zeros(4), np.zeros(4)] for _ in range(2)]
    ops.adam_step(parts[0][0], gradient, *parts[0][1:], step=1)
    ops.adam_step(parts[1][0], gradient, *parts[1][1:], step=1, **DEFAULTS)
    assert_same(parts[0][0], parts[1][0])


@pytest.mark.parametrize("step", [0, -3])
def test_adam_refuses_step_below_1_and_changes_nothing(step):
    param, m, v = np.ones(2), np.ones(2), np.ones(2)
    with pytest.raises(ValueError, match=f"step counts from 1, got {step}. Pass iterations"):
        ops.adam_step(param, np.ones(2), m, v, step=step)
    for array in (param, m, v):
        assert_same(array, np.ones(2))


@pytest.mark.parametrize("odd", range(4))
@pytest.mark.parametrize("replacement", [np.ones(3), np.ones(2, np.float32), np.ones((2, 1))])
def test_adam_refuses_another_shape_or_dtype(odd, replacement):
    arrays = [np.ones(2) for _ in range(4)]
    arrays[odd] = replacement
    with pytest.raises(ValueError, match=r"param, grad, m and v must have one shape and dtype; got .*float"):
        ops.adam_step(*arrays, step=1)
    for array in arrays:
        assert (array == 1).all()


# Accuracy and means --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_binary_accuracy_is_strict_at_the_threshold(dtype):
    y_pred = np.array([0.5, np.nextafter(np.dtype(dtype).type(0.5), 1), 0.5, 0.7, 0.2], dtype)
    y_true = np.array([0, 1, 1, 1, 1], dtype)
    assert_same(ops.binary_accuracy(y_true, y_pred), np.array([1, 1, 0, 1, 0], dtype))
    assert_same(ops.binary_accuracy(y_true, y_pred, threshold=0.7), np.array([1, 0, 0, 0, 0], dtype))


@given(st.floats(0, 1, exclude_min=True, exclude_max=True), st.floats(0, 1))
def test_a_label_that_is_neither_0_nor_1_never_matches(label, prediction):
    assert_same(ops.binary_accuracy(np.array([label]), np.array([prediction])), np.array([0.0]))


def test_weighted_mean_divides_by_the_number_of_samples():
    losses, weights = np.array([1.0, 2, 3, 6]), np.array([2.0, 0, 0, 1])
    assert_same(ops.weighted_mean_over_batch(losses), np.float64(3))
    assert_same(ops.weighted_mean_over_batch(losses, weights), np.float64(2))  # 8/4, not 8/3


# out=, dtypes, inputs ------------------------------------------------------------------------------------


LOSS_ARGUMENTS = {
    "binary_focal_crossentropy": ("same", {"gamma": 2.0, "alpha": 0.25}),
    "binary_focal_crossentropy_from_logits": ("same", {"gamma": 2.0, "alpha": 0.25}),
    "categorical_crossentropy": ("same", {}),
    "categorical_crossentropy_from_logits": ("same", {}),
    "one_hot": ("sparse", {}),
    "sparse_categorical_crossentropy": ("sparse", {}),
    "sparse_categorical_crossentropy_from_logits": ("sparse", {}),
    **{name: ("same", {}) for name in ("squared_error", "absolute_error", "absolute_percentage_error", "huber",
                                       "squared_logarithmic_error", "log_cosh", "hinge", "squared_hinge",
                                       "kl_divergence", "poisson", "accuracy", "categorical_accuracy",
                                       "categorical_hinge", "cosine_similarity", "pearson_correlation",
                                       "concordance_correlation")},
    "categorical_focal_crossentropy": ("same", {"gamma": 2.0, "alpha": 0.25}),
    "sparse_categorical_accuracy": ("sparse", {}),
    "in_top_k": ("sparse", {"k": 2}),
}  # fmt: skip
SCORE_ARGUMENTS = {
    "smoothed_labels": ([(5, 3)], {"label_smoothing": 0.1, "classes": 3}),
    "hinge_labels": ([(5, 3)], {}),
    "divide_no_nan": ([(5,), (5,)], {}),
    "only_top_k": ([(5, 3)], {"k": 2}),
    "area_under_curve": ([(5,), (5,)], {"method": "interpolation"}),
    "precision_recall_area": ([(5,)] * 3, {}),
    "gain_curve": ([(5,)] * 4, {}),
    "fbeta_score": ([(5,)] * 3, {"beta": 1.0}),
    "best_under_constraint": ([(5,)] * 2, {"at_least": 0.1}),
    "r2_score": ([(5,)] * 4, {}),
}

# shapes of the arrays, which are in (0, 1), and the scalars; a boolean array is a mask
LAYER_ARGUMENTS = {
    "prelu": ([(5, 3), (3,)], {}),
    "prelu_backward": ([(5, 3), (5, 3), (3,)], {}),
    "prelu_gradient": ([(5, 3), (5, 3)], {"axes": (0,)}),
    "gaussian_noise": ([(5, 3)] * 2, {}),
    "gaussian_dropout": ([(5, 3)] * 2, {}),
    "gaussian_dropout_backward": ([(5, 3)] * 2, {}),
    "moments": ([(5, 3)], {"axes": (0,)}),
    "normalization": ([(5, 3), (1, 3), (1, 3), (1, 3), (1, 3)], {"epsilon": 0.1}),
    "normalization_backward": ([(5, 3), (5, 3), (1, 3), (1, 3), (1, 3)], {"epsilon": 0.1, "axes": (0,)}),
    "fixed_normalization_backward": ([(5, 3), (1, 3), (1, 3)], {"epsilon": 0.1}),
    "normalization_gradients": ([(5, 3), (5, 3), (1, 3), (1, 3)], {"epsilon": 0.1, "axes": (0,)}),
    "renormalization": ([(3,)] * 4, {"epsilon": 0.1, "rmin": 0.5, "rmax": 2.0, "dmax": 0.1}),
    "deviation": ([(3,)], {"epsilon": 0.1}),
    "moving_average": ([(3,)] * 2, {"momentum": 0.9}),
    "mean_square": ([(5, 3)], {"axes": (1,)}),
    "rms_normalization": ([(5, 3), (5, 1), (3,)], {"epsilon": 0.1}),
    "rms_normalization_backward": ([(5, 3), (5, 3), (5, 1), (3,)], {"epsilon": 0.1, "axes": (1,)}),
    "unit_normalization": ([(5, 3)], {"axes": (1,)}),
    "unit_normalization_backward": ([(5, 3)] * 2, {"axes": (1,)}),
    "rescale": ([(5, 3), (3,), (3,)], {}),
    "rescale_backward": ([(5, 3), (3,)], {}),
    "standardize": ([(5, 3), (3,), (3,)], {}),
    "standardize_backward": ([(5, 3), (3,)], {}),
    "unstandardize": ([(5, 3), (3,), (3,)], {}),
    "unstandardize_backward": ([(5, 3), (3,)], {}),
    "pooled_moments": ([(3,)] * 4, {"other_weight": 0.3}),
}


def arguments_of(name, dtype):
    """Random read-only arguments of ops' function of that name."""
    rng = np.random.default_rng(7)

    def draw(*shape):
        return frozen(rng.normal(size=shape).astype(dtype))

    def probability(*shape):
        return frozen(rng.random(shape).astype(dtype))

    if name == "dense":
        return (draw(5, 4), draw(4, 3), draw(3)), {}
    if name == "dense_backward":
        return (draw(5, 3), draw(4, 3)), {}
    if name == "dense_gradients":
        return (draw(5, 3), draw(5, 4)), {}
    if name in ACTIVATIONS:
        return (draw(5, 4),), SCALARS.get(name, {})
    if name.removesuffix("_backward") in ACTIVATIONS:
        activation, inputs = getattr(activations, name.removesuffix("_backward")), draw(5, 4)
        outputs = frozen(activation.forward(inputs, **SCALARS.get(activation.name, {})))
        d_outputs = frozen(rng.normal(size=outputs.shape).astype(dtype))
        return (d_outputs, inputs if activation.needs_inputs else outputs), SCALARS.get(activation.name, {})
    if name.startswith(("dropout", "alpha_dropout")):
        return (draw(5, 3), frozen(rng.random((5, 3)) < 0.6)), {"rate": 0.4}
    if name in LOSS_ARGUMENTS or name.removesuffix("_backward") in LOSS_ARGUMENTS:
        kind, scalars = LOSS_ARGUMENTS[name.removesuffix("_backward")]
        labels = frozen(rng.integers(0, 3, 5)) if kind == "sparse" else probability(5, 3)
        return (labels, draw(5, 3) if "logits" in name else probability(5, 3)), scalars
    if name in SCORE_ARGUMENTS | LAYER_ARGUMENTS:
        arrays, scalars = (SCORE_ARGUMENTS | LAYER_ARGUMENTS)[name]
        return tuple(probability(*shape) for shape in arrays), scalars
    if name.startswith("binary_crossentropy_from_logits"):
        return (probability(5, 3), draw(5, 3)), {}
    if name.startswith("binary"):
        return (probability(5, 3), probability(5, 3)), {}
    if name[:2] in ("l1", "l2"):
        return (draw(4, 3),), {name[:2]: 0.1}
    if name.startswith("orthogonal_"):
        return (draw(4, 3),), {"factor": 0.1}
    if name in ("max_norm", "min_max_norm", "unit_norm", "non_negative"):
        return (draw(4, 3),), {"max_value": 0.7} if name.startswith("m") else {}
    if name.startswith("clip_by_"):
        return (draw(4, 3),), {{"value": "clipvalue", "norm": "clipnorm"}.get(name[8:], "global_clipnorm"): 0.5}
    if name == "mean_gradient":
        return (draw(4, 3), draw(4, 3)), {"steps": 3}
    if name == "reduce_losses":
        return (draw(5), probability(5)), {"reduction": "sum"}
    assert name == "weighted_mean_over_batch"
    return (draw(5), probability(5)), {}


# the steps and swap_by_sums write to their arguments, adam_alpha(s) and the schedules have none that are arrays: these
# have tests of their own
FUNCTIONS = sorted(
    name
    for name, value in vars(ops).items()
    if callable(value)
    and getattr(value, "__module__", "") == "minidl.ops"
    and not name.startswith("_")
    and not name.endswith(("_step", "_alpha", "_alphas", "_decay", "_restarts", "swap_by_sums"))
    and name not in ("reduce_losses_backward", "confusion_counts", "confusion_counts_evenly")  # float64
)
WITH_OUT = [name for name in FUNCTIONS if "out" in (getattr(ops, name).__kwdefaults__ or ())]


def test_the_list_of_functions_is_complete():
    assert len(FUNCTIONS) >= 24
    assert len(WITH_OUT) >= 16


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_have_the_dtype_of_the_inputs_which_are_left_alone(name, dtype):
    arrays, scalars = arguments_of(name, dtype)
    copies = [np.array(a) for a in arrays]
    results = getattr(ops, name)(*arrays, **scalars)  # writing to a read-only input would raise
    for result in results if isinstance(results, tuple) else (results,):
        assert result.dtype == dtype
        assert np.isfinite(result).all()
    for array, copy in zip(arrays, copies, strict=True):
        assert_same(array, copy)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITH_OUT)
def test_out_is_written_in_place_with_the_same_bits(name, dtype):
    arrays, scalars = arguments_of(name, dtype)
    expected = getattr(ops, name)(*arrays, **scalars)
    out = np.full_like(expected, np.nan)
    assert getattr(ops, name)(*arrays, **scalars, out=out) is out
    assert_same(out, expected)


@pytest.mark.parametrize("name", [n for n in WITH_OUT if not n.startswith(("dense", "glu"))])
def test_out_may_be_the_first_input(name):
    arrays, scalars = arguments_of(name, "float64")
    expected = np.array(getattr(ops, name)(*arrays, **scalars))
    first = np.array(arrays[0])
    getattr(ops, name)(first, *arrays[1:], **scalars, out=first)
    assert_same(first, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_gradients_into_given_arrays(dtype):
    (d_outputs, inputs), _ = arguments_of("dense_gradients", dtype)
    expected = ops.dense_gradients(d_outputs, inputs)
    d_kernel, d_bias = np.full((4, 3), np.nan, dtype), np.full(3, np.nan, dtype)
    got = ops.dense_gradients(d_outputs, inputs, out_kernel=d_kernel, out_bias=d_bias)
    assert got[0] is d_kernel and got[1] is d_bias
    assert_same(d_kernel, expected[0])
    assert_same(d_bias, expected[1])


def test_dense_without_bias(rng):
    inputs, kernel = rng.normal(size=(5, 4)), rng.normal(size=(4, 3))
    assert_same(ops.dense(inputs, kernel), np.matmul(inputs, kernel))


def test_dense_by_hand():
    inputs, kernel, bias = np.array([[1.0, 2]]), np.array([[1.0, 10, 100], [2, 20, 200]]), np.array([0.5, 0, -1])
    assert_same(ops.dense(inputs, kernel, bias), np.array([[5.5, 50, 499]]))
