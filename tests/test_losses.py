"""losses.py: the mean over units and batch, weights, smoothing, and what each identifier resolves to."""

import math
import types

import numpy as np
import pytest
from helpers import assert_close, assert_gradients_close, assert_same
from loss_cases import LOSSES, REDUCTIONS

from minidl import config, losses, ops, utils
from minidl.layers import Dense, Input
from minidl.losses import BinaryCrossentropy
from minidl.models import Sequential

EPS = np.finfo(np.float64).eps


def batch(rng, samples=5, units=3):
    return rng.random((samples, units)), rng.uniform(0.05, 0.95, (samples, units)), rng.uniform(0.5, 2, samples)


def by_hand(y, p, weight):
    """Σ_b w_b · mean_u ℓ / B in plain Python."""
    total = 0.0
    for y_row, p_row, w in zip(y, p, weight, strict=True):
        row = [-(yi * math.log(pi) + (1 - yi) * math.log(1 - pi)) for yi, pi in zip(y_row, p_row, strict=True)]
        total += w * sum(row) / len(row)
    return np.float64(total / len(y))


# 15 terms below 2·3, some 25 roundings each
SUM_BUDGET = 15 * 6 * 25 * EPS


def test_value_is_the_mean_over_units_and_samples(rng):
    config.set_floatx("float64")
    y, p, weight = batch(rng)
    logits = np.log(p / (1 - p))
    loss = BinaryCrossentropy()
    assert_close(loss(y, p), by_hand(y, p, np.ones(5)), atol=SUM_BUDGET)
    assert_close(loss(y, p, weight), by_hand(y, p, weight), atol=SUM_BUDGET)
    # the logits are rounded by 3ε·|z|, |dℓ/dz| ≤ 1
    assert_close(BinaryCrossentropy(from_logits=True)(y, logits, weight), by_hand(y, p, weight), atol=2 * SUM_BUDGET)


def test_weights_are_not_normalized(rng):
    y, p, _ = batch(rng)
    loss = BinaryCrossentropy(dtype="float64")
    assert_close(loss(y, p, np.full(5, 4.0)), 4 * loss(y, p), atol=4 * SUM_BUDGET)
    assert_same(loss(y, p, np.zeros(5)), np.float64(0))


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_is_that_of_the_value(rng, from_logits, weighted, smoothing):
    y, p, weight = batch(rng)
    y_pred = np.log(p / (1 - p)) if from_logits else p
    loss = BinaryCrossentropy(label_smoothing=smoothing, from_logits=from_logits)
    arguments = {"from_logits": from_logits, "sample_weight": weight if weighted else None}
    # |ℓ‴| ≤ 4/0.05³ = 32 000 (0.1 of logits), times weights below 2, over 15
    assert_gradients_close(
        lambda: loss.value(y, y_pred, **arguments),
        y_pred,
        loss.value_gradient(y, y_pred, **arguments),
        third_derivative=32_000 * 2 / 15,
        scale=15 * 6 * 25 / 15,
    )


def test_label_smoothing_pulls_labels_to_one_half():
    loss = BinaryCrossentropy(label_smoothing=0.2, dtype="float64")
    y, p = np.array([[1.0], [0.0]]), np.array([[0.7], [0.4]])
    expected = BinaryCrossentropy(dtype="float64")(np.array([[0.9], [0.1]]), p)
    assert_close(loss(y, p), expected, atol=SUM_BUDGET)
    # fully smoothed, the label does not matter
    loss = BinaryCrossentropy(label_smoothing=1.0, dtype="float64")
    assert_same(loss(y, p), loss(1 - y, p))


def test_one_dimensional_and_nested_lists_are_taken():
    loss = BinaryCrossentropy()
    expected = loss(np.array([[1.0], [0]]), np.array([[0.5], [0.25]]))
    assert_same(loss([1, 0], [0.5, 0.25]), expected)
    assert expected.dtype == np.float32
    # (ln 2 + ln 4/3) / 2; float32 rounds some 8 times, numbers below 1
    assert_close(expected, np.float32((math.log(2) + math.log(4 / 3)) / 2), atol=8 * np.finfo(np.float32).eps)


def test_dtype_is_floatx_unless_given():
    assert BinaryCrossentropy().dtype == "float32"
    assert BinaryCrossentropy(dtype="float64")([1], [0.5]).dtype == np.float64
    config.set_floatx("float64")
    assert BinaryCrossentropy()([1], [0.5]).dtype == np.float64


def test_epsilon_of_the_clip_is_the_global_one():
    loss = BinaryCrossentropy()
    assert_same(loss([1], [0]), -np.log(np.float32(1e-7)))
    config.set_epsilon(0.25)
    assert_same(loss([1], [0]), -np.log(np.float32(0.25)))
    y, p = np.array([[1.0]]), np.array([[0.1]])
    assert_same(loss.value_gradient(y, p, from_logits=False, sample_weight=None), np.array([[0.0]]))


def test_function_gives_each_sample_s_loss(rng):
    config.set_floatx("float64")
    y, p, _ = batch(rng)
    found = losses.binary_crossentropy(y, p)
    expected = np.array([by_hand(y[i : i + 1], p[i : i + 1], [1]) for i in range(5)])
    assert_close(found, expected, atol=SUM_BUDGET)
    logits = np.log(p / (1 - p))
    assert_close(losses.binary_crossentropy(y, logits, from_logits=True), expected, atol=2 * SUM_BUDGET)
    smoothed = losses.binary_crossentropy(y, p, label_smoothing=0.4)
    assert_close(smoothed, losses.binary_crossentropy(y * 0.6 + 0.2, p), atol=SUM_BUDGET)


@pytest.mark.parametrize(
    "identifier",
    ["binary_crossentropy", "BinaryCrossentropy", "bce", BinaryCrossentropy, losses.binary_crossentropy],
)
def test_get(identifier):
    found = losses.get(identifier)
    assert type(found) is BinaryCrossentropy
    assert (found.from_logits, found.label_smoothing, found.name) == (False, 0.0, "binary_crossentropy")


def test_get_passes_an_instance_through():
    mine = BinaryCrossentropy(from_logits=True)
    assert losses.get(mine) is mine


def test_get_takes_keras_s_function_and_a_user_s_own_needs_a_gradient():
    function = types.FunctionType((lambda y_true, y_pred: 0).__code__, {}, "binary_crossentropy")
    function.__module__ = "keras.src.losses.losses"
    assert type(losses.get(function)) is BinaryCrossentropy
    function.__module__ = "__main__"
    with pytest.raises(ValueError, match="needs its gradient"):
        losses.get(function)


def test_mean_is_another_name_of_the_reduction(rng):
    y, p, _ = batch(rng)
    assert_same(BinaryCrossentropy(reduction="mean")(y, p), BinaryCrossentropy()(y, p))


# All losses ----------------------------------------------------------------------------------------------

# (Σy of LOSSES' labels is 1 where a gradient takes that for granted.) |ℓ‴| along an axis, p in [0.05, 0.95]: below
# 2/p³ = 16 000 times labels below 9, MAPE's |y| ≥ 1e-3; weights below 2; ten sums and functions of terms below 200
THIRD, SCALE = 16_000 * 9 * 2, 10 * 200 * 24


@pytest.mark.parametrize("case", LOSSES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_gradient_is_that_of_the_value(case, weighted):
    """Central differences of the reduced value: the reductions that weigh the samples' gradients differently."""
    y, p, weight = case.data("float64")
    for reduction in ("sum_over_batch_size", "mean_with_sample_weight", "sum"):
        loss = getattr(losses, case.name)(**case.options, reduction=reduction, dtype="float64")
        given = (weight[:1] if case.options.get("axis") == 0 else weight) if weighted else None
        arguments = {"from_logits": loss.from_logits, "sample_weight": given}
        assert_gradients_close(
            lambda: loss.value(y, p, **arguments),  # noqa: B023 - called in the loop
            p,
            loss.value_gradient(y, p, **arguments),
            third_derivative=THIRD,
            scale=SCALE,
        )


@pytest.mark.parametrize("case", [c for c in LOSSES if c.options.get("axis", -1) == -1], ids=str)
def test_function_and_object_agree_and_reductions_are_what_they_say(case):
    config.set_floatx("float64")
    y, p, weight = case.data("float64")
    cls = getattr(losses, case.name)
    each = cls(**case.options, reduction=None)(y, p)
    function = next(n for n, c in losses._BY_FUNCTION.items() if c is cls)
    assert_same(getattr(losses, function)(y, p, **case.options), each)
    assert each.shape == (6,)
    weight = weight * (y != case.options["ignore_class"]) if "ignore_class" in case.options else weight
    weighted, samples = each * weight, np.count_nonzero(weight)
    expected = {"sum_over_batch_size": weighted.sum() / samples, "mean": weighted.sum() / samples,
                "sum": weighted.sum(), "mean_with_sample_weight": weighted.sum() / weight.sum(), "none": weighted,
                None: weighted}  # fmt: skip
    assert expected.keys() == set(REDUCTIONS)
    for reduction, value in expected.items():
        found = cls(**case.options, reduction=reduction)(y, p, weight)
        assert_close(np.asarray(found), np.asarray(value), atol=20 * EPS * np.abs(weighted).sum())


def test_weights_that_sum_to_zero_give_zero():
    loss = losses.MeanSquaredError(reduction="mean_with_sample_weight", dtype="float64")
    assert_same(loss([[1.0]], [[3.0]], [0.0]), np.float64(0))
    gradient = loss.value_gradient(np.ones((1, 1)), np.zeros((1, 1)), from_logits=False, sample_weight=np.zeros(1))
    assert_same(gradient, -np.zeros((1, 1)))


def test_softmax_crossentropy_does_not_overflow_nor_lose_small_losses():
    """A confident right answer: ln(1 + e^−60), and its gradient, to their last bits; a wrong one: |z|."""
    logits = np.array([[60.0, 0.0], [-1e4, 0.0], [1e4, 0.0]])
    y = np.array([[1.0, 0.0]] * 3)
    found = ops.categorical_crossentropy_from_logits(y, logits)
    assert_same(found, np.array([math.exp(-60), 1e4, 0.0]))
    gradient = ops.categorical_crossentropy_from_logits_backward(y, logits)
    assert_same(gradient, np.array([[-math.exp(-60), math.exp(-60)], [-1.0, 1.0], [0.0, 0.0]]))
    labels = np.zeros(3)
    assert_same(ops.sparse_categorical_crossentropy_from_logits(labels, logits), found)
    assert_same(ops.sparse_categorical_crossentropy_from_logits_backward(labels, logits), gradient)


def test_two_classes_of_a_softmax_are_a_sigmoid(rng):
    z, y = rng.normal(size=(7, 1)) * 5, rng.random((7, 1))
    categorical = ops.categorical_crossentropy_from_logits(np.hstack([y, 1 - y]), np.hstack([z, 0 * z]))
    # some 10 roundings of numbers below 20
    assert_close(categorical, ops.binary_crossentropy_from_logits(y, z)[:, 0], atol=200 * EPS)


def test_focal_loss_without_focus_is_binary_crossentropy(rng):
    y, p, _ = batch(rng)
    assert_same(ops.binary_focal_crossentropy(y, p, gamma=0.0, alpha=None), ops.binary_crossentropy(y, p))
    half = ops.binary_focal_crossentropy(y, p, gamma=0.0, alpha=0.5)
    assert_same(half, 0.5 * ops.binary_crossentropy(y, p))
    probabilities = ops.binary_focal_crossentropy(y, p, gamma=2.0, alpha=0.3)
    logits = ops.binary_focal_crossentropy_from_logits(y, np.log(p / (1 - p)), gamma=2.0, alpha=0.3)
    assert_close(logits, probabilities, atol=2 * SUM_BUDGET)


def test_regression_losses_by_hand():
    y, p = np.array([[2.0, -1.0]]), np.array([[5.0, -1.5]])
    found = {name: getattr(losses, name)(y, p)[0] for name in ("mean_squared_error", "mean_absolute_error", "huber")}
    assert found == {"mean_squared_error": 4.625, "mean_absolute_error": 1.75, "huber": (2.5 + 0.125) / 2}
    assert losses.mean_absolute_percentage_error(y, p)[0] == 100.0
    assert losses.hinge([[0.0, 1.0]], [[0.5, 0.5]])[0] == (1.5 + 0.5) / 2
    assert losses.kl_divergence([[0.5, 0.5]], [[0.5, 0.5]])[0] == 0
    assert_close(losses.log_cosh([[0.0]], [[1000.0]]), np.float32([1000 - math.log(2)]), atol=1e-4)


def test_log_cosh_keeps_small_errors():
    e = np.array([1e-4], np.float32)
    # 0.5 e² (1 − e²/6): ten roundings, relative
    assert_close(ops.log_cosh(np.zeros(1, np.float32), e), e * e / 2, atol=0, rtol=10 * np.finfo(np.float32).eps)


NAMES = {
    "mse": "MeanSquaredError", "MSE": "MeanSquaredError", "mae": "MeanAbsoluteError", "MAE": "MeanAbsoluteError",
    "mape": "MeanAbsolutePercentageError", "MSLE": "MeanSquaredLogarithmicError", "kld": "KLDivergence",
    "KLD": "KLDivergence", "BCE": "BinaryCrossentropy", "huber": "Huber", "log_cosh": "LogCosh",
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy", "Poisson": "Poisson",
}  # fmt: skip


@pytest.mark.parametrize(("name", "cls"), NAMES.items())
def test_names(name, cls):
    assert type(losses.get(name)) is getattr(losses, cls)


@pytest.mark.parametrize("function", losses._BY_FUNCTION)
def test_functions_and_classes_are_found(function):
    cls = losses._BY_FUNCTION[function]
    assert type(losses.get(getattr(losses, function))) is type(losses.get(cls)) is type(losses.get(cls.__name__)) is cls


@pytest.mark.parametrize(
    ("units", "shape", "cls"),
    [
        (1, (5,), "BinaryCrossentropy"),
        (1, (5, 1), "BinaryCrossentropy"),
        (3, (5,), "SparseCategoricalCrossentropy"),
        (3, (5, 1), "SparseCategoricalCrossentropy"),
        (3, (5, 3), "CategoricalCrossentropy"),
    ],
)
def test_crossentropy_is_the_one_that_fits_the_labels(units, shape, cls):
    assert type(losses.crossentropy_for(shape, units)) is getattr(losses, cls)
    assert all(losses.by_shape(name) for name in ("ce", "CE", "crossentropy", "Crossentropy"))


BAD_LABELS = [
    ("SparseCategoricalCrossentropy", [0, 1, 3], r"labels must be class numbers in \[0, 3\).*; y\[2\] is 3\.0"),
    (
        "SparseCategoricalCrossentropy",
        [[0], [0.5], [1]],
        r"y\[1\] is 0\.5 \(1 such in all\)\. Count the classes from 0",
    ),
    ("SparseCategoricalCrossentropy", [-1, 0, 0], r"y\[0\] is -1\.0"),
    (
        "CategoricalCrossentropy",
        [[1, 1, 0], [1, 0, 0], [1, 0, 0]],
        r"that sum to 1 over the classes; y\[0, 0\] is 1\.0",
    ),
    ("CategoricalCrossentropy", [[1, 0, 0], [2, -1, 0], [1, 0, 0]], r"y\[1, 0\] is 2\.0 \(2 such"),
    ("KLDivergence", [[1, 0, 0], [2, 0, 0], [1, 0, 0]], r"kl_divergence: labels must lie in \[0, 1\]; y\[1, 0\] is 2"),
    ("Poisson", [[1, 0, 0], [2, -3, 0], [1, 0, 0]], r"labels must be at least 0; y\[1, 1\] is -3\.0.*counts"),
    ("MeanSquaredLogarithmicError", [[1, 0, 0], [2, -3, 0], [1, 0, 0]], r"labels must be at least 0; y\[1, 1\]"),
    ("Hinge", [[1, 0, -1]] * 3, r"labels must all be -1 or 1, or all be 0 or 1; y\[0, 2\] is -1\.0"),
    ("SquaredHinge", [[1, -1, 2]] * 3, r"y\[0, 2\] is 2\.0 \(3 such in all\)"),
    ("BinaryFocalCrossentropy", [[1, 0, 2]] * 3, r"labels must lie in \[0, 1\]; y\[0, 2\] is 2\.0"),
]


@pytest.mark.parametrize(("name", "y", "message"), BAD_LABELS)
def test_labels_that_are_not_what_the_loss_means(name, y, message):
    loss = getattr(losses, name)()
    with pytest.raises(ValueError, match=message):
        loss(y, np.full((3, 3), 1 / 3))


def model_of(units, activation, loss, **arguments):
    model = Sequential([Input((2,)), Dense(units, activation=activation)])
    model.compile("sgd", loss, **arguments)
    return model


def test_labels_are_checked_by_fit_unless_told_otherwise():
    model = model_of(3, "softmax", "categorical_crossentropy")
    y = np.array([[1.0, 1.0, 0.0]])
    with pytest.raises(ValueError, match="sum to 1 over the classes"):
        model.fit(np.ones((1, 2)), y, verbose=0)
    model.fit(np.ones((1, 2)), y, verbose=0, check_finite=False)
    model = model_of(3, "softmax", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"class numbers in \[0, 3\)"):
        model.fit(np.ones((1, 2)), [3], verbose=0)
    with pytest.raises(ValueError, match=r"class numbers in \[0, 3\); got 3 to 3"):  # TensorFlow refuses these too
        model.fit(np.ones((1, 2)), [3], verbose=0, check_finite=False)
    with pytest.raises(
        ValueError, match=r"y: the loss takes class numbers, \(2,\) or \(2, 1\); got \(2, 3\)\. For a col"
    ):
        model.fit(np.ones((2, 2)), np.eye(3)[:2], verbose=0)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_sparse_and_one_hot_labels_train_alike(rng, shape):
    config.set_floatx("float64")
    x, labels = rng.normal(size=(6, 2)), rng.integers(0, 3, 6)
    dense, sparse = (model_of(3, "softmax", loss, metrics=["acc"])
                     for loss in ("categorical_crossentropy", "sparse_categorical_crossentropy"))  # fmt: skip
    sparse.set_weights(dense.get_weights())
    found = sparse.fit(x, labels.reshape(shape), epochs=3, shuffle=False, verbose=0).history
    expected = dense.fit(x, np.eye(3)[labels], epochs=3, shuffle=False, verbose=0).history
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-14)  # a sum of one term or of three
    assert found["acc"] == expected["acc"]


def test_crossentropy_is_resolved_by_the_first_labels():
    model = model_of(3, "softmax", "ce", metrics=["accuracy"])
    with pytest.raises(ValueError, match="loss: 'crossentropy' stands for the one that fits the labels; fit the model"):
        _ = model.loss
    model.fit(np.ones((2, 2)), [0, 2], verbose=0)
    assert type(model.loss) is losses.SparseCategoricalCrossentropy


def test_logits_under_a_softmax_are_found_with_a_warning_if_they_were_announced():
    loss = losses.CategoricalCrossentropy(from_logits=True)
    with pytest.warns(UserWarning, match="ends in a softmax, so its outputs are probabilities"):
        model_of(3, "softmax", loss).train_on_batch(np.ones((2, 2)), np.eye(3)[:2])


@pytest.mark.parametrize("stream", ["jax", "torch"])
def test_sparse_labels_on_other_streams_are_those_of_the_categorical_loss(rng, stream):
    """Keras divides by the sum there before it clips; on TensorFlow it does not, which a clipped output shows."""
    p = np.array([[1e-9, 0.7, 0.5], [0.2, 0.3, 0.6]], np.float32)
    labels, one_hot = np.array([1, 2]), np.eye(3, dtype=np.float32)[[1, 2]]
    sparse, categorical = losses.SparseCategoricalCrossentropy(), losses.CategoricalCrossentropy()
    on_tensorflow = sparse.backward(labels, p, False)
    config.set_random_stream(stream)
    np.testing.assert_array_equal(sparse.forward(labels, p, False), categorical.forward(one_hot, p, False))
    np.testing.assert_array_equal(sparse.backward(labels, p, False), categorical.backward(one_hot, p, False))
    assert on_tensorflow[0, 0] == 0 and sparse.backward(labels, p, False)[0, 0] == np.float32(1 / np.float32(1.2))


def test_focal_loss_of_a_softmax_is_refused():
    with pytest.raises(NotImplementedError, match="Keras mixes its outputs with its logits"):
        model_of(3, "softmax", "binary_focal_crossentropy").train_on_batch(np.ones((2, 2)), np.eye(3)[:2])


def test_a_loss_for_each_sample_and_a_penalty_cannot_be_added():
    model = Sequential([Input((2,)), Dense(1, kernel_regularizer="l2")])
    model.compile("sgd", losses.MeanSquaredError(reduction=None))
    with pytest.raises(ValueError, match=r"reduction=None there is a loss for each.* 1 penalties of 'sequential'"):
        model.train_on_batch(np.ones((2, 2)), np.ones(2))


def test_a_loss_of_another_dtype_clips_as_keras_does():
    """Its cast hides the softmax: probabilities are clipped, and the loss is at most −ln ε."""
    model = model_of(2, "softmax", losses.CategoricalCrossentropy(dtype="float64"))
    model.set_weights([np.array([[1000.0, 0], [0, 0]]), np.zeros(2)])
    found = model.test_on_batch(np.ones((1, 2)), np.array([[0.0, 1.0]]))
    assert found == float(np.float32(-math.log(1e-7)))
    model.compile("sgd", "categorical_crossentropy")
    assert model.test_on_batch(np.ones((1, 2)), np.array([[0.0, 1.0]])) == 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.MeanSquaredError(reduction="avg"), r"MeanSquaredError: reduction must be one of 'sum_over"),
        (lambda: losses.Huber(delta=-1.0), r"Huber: delta must be finite and at least 0; got -1\.0"),
        (lambda: losses.BinaryFocalCrossentropy(gamma=-1), r"gamma must be finite and at least 0"),
        (lambda: losses.BinaryCrossentropy(axis=True), r"BinaryCrossentropy: axis must be an integer; got True"),
        (lambda: losses.CategoricalCrossentropy(label_smoothing=2), r"label_smoothing must be in \[0, 1\]"),
        (lambda: losses.mean_squared_error(1.0, 2.0), r"y_true and y_pred must be arrays"),
        (
            lambda: losses.sparse_categorical_crossentropy([1, 2], np.ones((3, 3))),
            r"needs y_true of \(3,\) or \(3, 1\)",
        ),
        (lambda: losses.get("mean_squared_eror"), r"Did you mean 'mean_squared_error'"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Losses of one's own -------------------------------------------------------------------------------------


class Pinball(losses.Loss):
    """The quantile loss, a mean over the outputs."""

    def __init__(self, quantile=0.8, **kwargs):
        super().__init__(**kwargs)
        self.quantile = quantile

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return np.maximum(self.quantile * error, (self.quantile - 1) * error).mean(axis=-1)

    def gradient(self, y_true, y_pred):
        return np.where(y_true > y_pred, -self.quantile, 1 - self.quantile) / y_pred.shape[-1]


def cubic(y_true, y_pred, power=3):
    """Of each element."""
    return np.abs(y_pred - y_true) ** power


def cubic_gradient(y_true, y_pred, power=3):
    return power * np.abs(y_pred - y_true) ** (power - 1) * np.sign(y_pred - y_true)


def overall(y_true, y_pred):
    """One number for the batch."""
    return ((y_pred - y_true) ** 2).mean()


overall.gradient = lambda y_true, y_pred: 2 * (y_pred - y_true) / y_pred.size

OWN = [
    lambda **kwargs: Pinball(**kwargs),
    lambda **kwargs: losses.LossFunctionWrapper(cubic, gradient=cubic_gradient, **kwargs),
    lambda **kwargs: losses.LossFunctionWrapper(cubic, gradient=cubic_gradient, power=4, **kwargs),
    lambda **kwargs: losses.LossFunctionWrapper(overall, **kwargs),
]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("make", OWN)
def test_gradient_of_one_s_own_loss_is_weighted_and_reduced_as_its_value(rng, make, reduction):
    loss = make(reduction=reduction, dtype="float64")
    y, p, weight = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.uniform(0.5, 2, 5)
    for given in (None, weight[:, None]):
        arguments = {"from_logits": False, "sample_weight": given}
        # |ℓ‴| ≤ 24 |e| of the fourth power, |e| ≤ 8, weights ≤ 2; the pinball's kinks are farther than h
        assert_gradients_close(
            lambda: loss.value(y, p, **arguments).sum(),  # noqa: B023 - called in the loop
            p,
            loss.value_gradient(y, p, **arguments),
            third_derivative=24 * 8 * 2,
            scale=15 * 10 * 8**4 * 2,
        )


def test_one_s_own_loss_trains_a_model():
    """The same steps as with the mean squared error that it is."""

    def squared(y_true, y_pred):
        return (y_pred - y_true) ** 2

    squared.gradient = lambda y_true, y_pred: 2 * (y_pred - y_true)
    rng = np.random.default_rng(1)
    x, y, weight = rng.normal(size=(12, 3)), rng.normal(size=12), rng.uniform(0.5, 2, 12)
    found = []
    for loss in (squared, "mse", [squared]):
        utils.set_random_seed(3)
        model = Sequential([Input((3,)), Dense(4, "tanh"), Dense(1)])
        model.compile("sgd", loss)
        history = model.fit(x, y, batch_size=5, epochs=2, verbose=0, sample_weight=weight)
        found.append([np.array(history.history["loss"]), *model.get_weights()])
    for own in (found[0], found[2]):
        for got, expected in zip(own, found[1], strict=True):
            # 6 steps of a rate of 0.01; each gradient's few roundings differ in order
            assert_close(got, expected, atol=6 * 20 * np.finfo(np.float32).eps)


def test_a_function_without_gradient_and_a_gradient_of_another_shape_are_refused(rng):
    with pytest.raises(ValueError, match=r"cubic: a loss function needs its gradient.*Set cubic\.gradient ="):
        losses.get(cubic)
    loss = losses.LossFunctionWrapper(cubic, gradient=lambda y_true, y_pred: y_pred.sum(axis=-1))
    with pytest.raises(ValueError, match="cannot reshape"):
        loss.value_gradient(np.ones((4, 3)), np.ones((4, 3)), from_logits=False, sample_weight=None)

    class NoGradient(losses.Loss):
        def call(self, y_true, y_pred):
            return y_pred[:, 0]

    with pytest.raises(NotImplementedError, match="NoGradient must define gradient"):
        NoGradient().value_gradient(np.ones((4, 3)), np.ones((4, 3)), from_logits=False, sample_weight=None)
    NoGradient.gradient = lambda self, y_true, y_pred: np.ones(4)
    with pytest.raises(ValueError, match="gradient must have y_pred's shape"):
        NoGradient().value_gradient(np.ones((4, 3)), np.ones((4, 3)), from_logits=False, sample_weight=None)
    with pytest.raises(TypeError, match=r"subclass of losses\.Loss"):
        type("Mine", (losses.MeanSquaredError,), {"call": lambda self, y_true, y_pred: 0})


def test_what_keras_has_for_other_networks_is_refused_by_name():
    for name in ("Dice", "ctc", "categorical_generalized_cross_entropy"):
        with pytest.raises(NotImplementedError, match="minidl does not support"):
            losses.get(name)
    with pytest.raises(NotImplementedError, match="one output"):
        losses.get({"out": "mse"})


def test_ignored_samples_count_neither_in_the_value_nor_in_the_gradient(rng):
    y, p = np.array([1.0, -1, 0, -1]), rng.normal(size=(4, 3))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1, dtype="float64")
    rest = losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    assert_close(loss(y, p), rest(y[::2], p[::2]), atol=4 * EPS)
    gradient = loss.value_gradient(y, p, from_logits=True, sample_weight=None)
    assert (gradient[1::2] == 0).all()
    of_rest = rest.value_gradient(y[::2], p[::2], from_logits=True, sample_weight=None)
    assert_close(gradient[::2], of_rest, atol=4 * EPS)
    with pytest.raises(ValueError, match="labels must be class numbers"):
        loss(np.array([1.0, -2, 0, -1]), p)
    with pytest.raises(ValueError, match="last axis"):
        losses.SparseCategoricalCrossentropy(axis=0)(y[::2], p[::2])
