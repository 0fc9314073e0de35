"""Losses and metrics against live Keras on TensorFlow: values, gradients, whole steps, histories."""

import numpy as np
import pytest
from keras_cases import floatx, keras_on_tensorflow
from loss_cases import LOSSES, METRICS, REDUCTIONS, LossCase

import minidl.keras as minidl_keras
from minidl import losses, metrics
from minidl.naming import to_snake_case

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def keras_tf():
    pytest.importorskip("tensorflow")
    return keras_on_tensorflow()


def within(what, ours, theirs, dtype, budget):
    """Same shape and dtype, finite, and apart by at most budget (an array or a number)."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.dtype == theirs.dtype == dtype, f"{what}: {ours.dtype}, {theirs.dtype}"
    assert ours.shape == theirs.shape, f"{what}: {ours.shape}, {theirs.shape}"
    assert np.isfinite(ours).all() and np.isfinite(theirs).all(), what
    excess = np.abs(ours.astype("float64") - theirs) - budget
    assert (excess <= 0).all(), f"{what}: {ours} against Keras's {theirs}, {excess.max():.3g} beyond the budget"


def keras_value_and_gradient(tf, loss, y, p, weights):
    predicted = tf.constant(p)
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        value = loss(y, predicted, weights)
    return value.numpy(), tape.gradient(value, predicted).numpy()


def compare(keras_tf, case, dtype, options, weighted, unit):
    keras, tf = keras_tf
    y, p, weights = case.data(dtype)
    weights = weights if weighted else None
    if case.options.get("axis") == 0 and weighted:
        weights = weights[:1]  # (U,) losses: Keras takes only what broadcasts to them
    ours = getattr(losses, case.name)(**case.options, **options, dtype=dtype)
    theirs = getattr(keras.losses, case.name)(**case.options, **options, dtype=dtype)
    value, gradient = keras_value_and_gradient(tf, theirs, y, p, weights)
    arguments = {"from_logits": ours.from_logits, "sample_weight": weights}
    labels = y.astype(dtype)
    within(
        f"{case} {options} value",
        ours.value(labels, p, **arguments),
        value,
        dtype,
        unit * (np.abs(value).max() + TERMS),
    )
    own = ours.value_gradient(labels, p, **arguments)
    within(f"{case} {options} gradient", own, gradient, dtype, unit * (np.abs(gradient).max() + GRADIENT_TERMS))


# What an error is relative to, beside the result: the terms that it is the difference of. Of a value those are below
# 1 + |z| ≤ 9, or |e|, times a weight below 2. Of a gradient, 1/p ≤ 20 times a weight over 6 samples.
TERMS, GRADIENT_TERMS = 20, 7


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_float64_loss_and_gradient_agree_to_1e_12(keras_tf, case):
    with floatx(keras_tf[0], "float64"):
        for reduction in REDUCTIONS if not case.options or case.options.get("label_smoothing") else REDUCTIONS[:1]:
            for weighted in (False, True):
                compare(keras_tf, case, "float64", {"reduction": reduction}, weighted, 1e-12 / 20)


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_float32_loss_and_gradient_are_within_rounding(keras_tf, case):
    """Each library rounds some 20 times an element, among them functions with errors up to 2 units, and Keras's
    1 − p_t and 1 − 2 sigmoid(−2e) cancel from 1; then 24 elements are summed: 2·(20 + 24) roundings of ε/2.
    """
    eps = np.finfo(np.float32).eps
    for weighted in (False, True):
        compare(keras_tf, case, "float32", {"reduction": "sum_over_batch_size"}, weighted, 44 * eps)


KINKS = [
    ("MeanAbsoluteError", [[1.0, 0.0]], [[1.0, 0.0]]),
    ("MeanAbsolutePercentageError", [[1.0, 0.0, 0.0]], [[1.0, 0.0, 2.0]]),
    ("MeanSquaredLogarithmicError", [[1.0, 1.0, 1.0]], [[1e-7, 0.0, -0.5]]),
    ("Huber", [[0.0, 0.0]], [[1.0, -1.0]]),
    ("Hinge", [[1.0, -1.0]], [[1.0, -1.0]]),
    ("SquaredHinge", [[1.0, -1.0]], [[1.0, -1.0]]),
    ("KLDivergence", [[0.0, 1.0, 0.5]], [[0.0, 1.0, 1.5]]),
    ("KLDivergence", [[0.5, 0.5, 0.5]], [[1e-7, 1e-8, 1.0]]),
    ("CategoricalCrossentropy", [[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]),
    ("SparseCategoricalCrossentropy", [1, 0], [[0.0, 1.0], [0.0, 1.0]]),
    ("BinaryCrossentropy", [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]),
]


@pytest.mark.parametrize(("name", "y", "p"), KINKS)
def test_derivative_at_kinks_and_clips_is_tensorflow_s(keras_tf, name, y, p):
    keras, tf = keras_tf
    for dtype in ("float32", "float64"):
        with floatx(keras, dtype):
            predicted = np.array(p, dtype)
            _, expected = keras_value_and_gradient(tf, getattr(keras.losses, name)(), np.array(y), predicted, None)
            loss = getattr(losses, name)()
            found = loss.value_gradient(np.array(y, dtype), predicted, from_logits=False, sample_weight=None)
            within(name, found, expected, dtype, 8 * np.finfo(dtype).eps * np.abs(expected))


# Metrics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", METRICS, ids=str)
def test_metric_over_several_batches(keras_tf, case, weighted):
    """Equal to the bit where whole numbers are counted. Else each of 13·4 terms, at most 2·(1 + |values|), is rounded
    some 20 times and the sums 52 times: 2·72 roundings of ε/2 of the largest result or 1. 16 times that for areas and
    R², which divide by differences of sums: of labels' variances or counts, not below 1/16 of the sums here.
    """
    keras, _ = keras_tf
    ours = getattr(metrics, case.name)(**case.options)
    theirs = getattr(keras.metrics, case.name)(**case.options)
    batches = case.batches("float32", weighted)
    for part in (batches, batches[1:2]):  # several, and one after reset_state
        for y, p, weights in part:
            ours.update_state(y, p, weights)
            theirs.update_state(y, p, weights)
        found, expected = ours.result(), np.asarray(theirs.result())
        budget = 72 * np.finfo(np.float32).eps * (np.abs(expected).max() + 1)
        if case.name in ("AUC", "R2Score"):
            budget *= 16
        within(f"{case}", found, expected, np.float32, 0 if case.exact and not weighted else budget)
        ours.reset_state()
        theirs.reset_state()


def test_mean_and_sum_reduce_as_keras_does(keras_tf):
    keras, _ = keras_tf
    rng = np.random.default_rng(3)
    shapes = [((), None), ((4,), None), ((4,), ()), ((4,), (4,)), ((4, 3), None), ((4, 3), (4,)), ((4, 3), ()),
              ((4, 3), (4, 3)), ((4, 3), (4, 1)), ((4,), (4, 1)), ((4, 1), (4,))]  # fmt: skip
    for name in ("Mean", "Sum"):
        for shape, weight_shape in shapes:
            values = rng.integers(0, 9, shape).astype("float32")
            weights = None if weight_shape is None else rng.integers(1, 9, weight_shape).astype("float32")
            ours, theirs = getattr(metrics, name)(), getattr(keras.metrics, name)()
            for metric in (ours, theirs):
                metric.update_state(values, weights)
                metric.update_state(values + 1, weights)
            expected = np.asarray(theirs.result())
            within(f"{name} {shape} {weight_shape}", ours.result(), expected, np.float32, 4e-7 * np.abs(expected))


# Whole steps ---------------------------------------------------------------------------------------------

STEPS = [
    ("softmax", 3, "classes", "categorical_crossentropy", ["accuracy", "categorical_crossentropy"]),
    ("softmax", 3, "sparse", "sparse_categorical_crossentropy", ["acc", "sparse_categorical_crossentropy"]),
    ("softmax", 3, "sparse", "ce", ["accuracy"]),
    ("softmax", 3, "classes", "binary_crossentropy", ["bce"]),
    ("sigmoid", 3, "classes", "categorical_crossentropy", []),
    ("sigmoid", 3, "binary", "binary_focal_crossentropy", ["AUC"]),
    ("sigmoid", 1, "binary", "crossentropy", ["acc", "Precision", "Recall"]),
    ("softmax", 3, "classes", "kl_divergence", ["F1Score"]),
    ("linear", 2, "real", "mse", ["mae", "R2Score"]),
    ("linear", 2, "real", "mae", ["mse", "RootMeanSquaredError"]),
    ("linear", 2, "real", "huber", []),
    ("linear", 3, "classes", ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}), ["accuracy"]),
    ("softmax", 3, "classes", ("CategoricalCrossentropy", {"reduction": "sum"}), []),
    ("softmax", 3, "sparse", ("SparseCategoricalCrossentropy", {"reduction": "mean_with_sample_weight"}), []),
    ("linear", 2, "real", ("MeanSquaredError", {"reduction": None}), []),
    ("linear", 2, "sign", "squared_hinge", ["hinge"]),
]


def build(library, activation, units, loss, wanted, floats):
    library.utils.set_random_seed(7)
    model = library.models.Sequential(
        [
            library.layers.Input(shape=(4,)),
            library.layers.Dense(8, activation="relu"),
            library.layers.Dense(units, activation=activation),
        ]
    )
    if isinstance(loss, tuple):
        loss = getattr(library.losses, loss[0])(**loss[1], dtype=floats)
    model.compile(library.optimizers.SGD(0.01), loss=loss, metrics=wanted, weighted_metrics=wanted)
    return model


@pytest.mark.parametrize("case", STEPS, ids=lambda case: f"{case[0]}-{case[2]}-{case[3]}".replace(" ", ""))
def test_whole_steps_in_float64_agree_to_1e_12(keras_tf, case):
    """Six steps of Keras's own compiled train_on_batch, three of them from weights that saturate the outputs; every
    logged number and every weight.
    """
    keras, _ = keras_tf
    activation, units, kind, loss, wanted = case
    rng = np.random.default_rng(5)
    with floatx(keras, "float64"):
        theirs = build(keras, activation, units, loss, wanted, "float64")
        ours = build(minidl_keras, activation, units, loss, wanted, "float64")
        start = theirs.get_weights()
        for step in range(6):
            if step in (0, 3):
                for model in (ours, theirs):
                    model.set_weights([w * (30.0 if step else 1.0) for w in start])
            x = rng.normal(size=(8, 4))
            y, _, _ = LossCase("", kind).data("float64", 8, units)
            weights = rng.uniform(0.5, 2, 8)
            expected = theirs.train_on_batch(x, y, sample_weight=weights, return_dict=True)
            found = ours.train_on_batch(x, y, sample_weight=weights, return_dict=True)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                value = np.asarray(value)
                error = np.abs(np.asarray(found[name]) - value).max()
                assert error <= 1e-12 * (np.abs(value).max() + 1), f"step {step} {name}: {found[name]}, {value}"
            for ours_weight, their_weight in zip(ours.get_weights(), theirs.get_weights(), strict=True):
                close = np.abs(ours_weight - their_weight).max() <= 1e-12 * (np.abs(their_weight).max() + 1)
                assert close, f"step {step}: {ours_weight - their_weight}"


def test_history_keys_and_the_order_of_evaluate(keras_tf):
    """Metrics with one name, weighted and not: Keras's names, its order, and the repetition in evaluate's list."""
    keras, _ = keras_tf
    rng = np.random.default_rng(5)
    x, y, weights = rng.normal(size=(20, 4)), rng.normal(size=(20, 2)), rng.uniform(0.5, 2, 20)
    with floatx(keras, "float64"):
        found = []
        for library in (keras, minidl_keras):
            library.utils.set_random_seed(7)
            model = library.models.Sequential([library.layers.Input(shape=(4,)), library.layers.Dense(2)])
            named = library.metrics.MeanSquaredError("zzz")
            metrics_given = ["mse", named, "mae", "mae", library.losses.MeanSquaredError(name="batches")]
            model.compile("adam", "mse", metrics=metrics_given, weighted_metrics=["mae", "MSE", "mae"])
            history = model.fit(x, y, 8, 2, 0, sample_weight=weights, validation_data=(x, y, weights)).history
            listed = model.evaluate(x, y, 8, 0, sample_weight=weights)
            named = model.evaluate(x, y, 8, 0, sample_weight=weights, return_dict=True)
            found.append((history, listed, named, model.test_on_batch(x, y, weights)))
    theirs, ours = found
    assert list(ours[0]) == list(theirs[0])
    for name, values in theirs[0].items():
        np.testing.assert_allclose(ours[0][name], values, rtol=1e-12)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-12)
    np.testing.assert_allclose(ours[3], theirs[3], rtol=1e-12)
    assert ours[2].keys() == theirs[2].keys()


# Losses of one's own: the same function, differentiated by TensorFlow and by hand --------------------------


def quantiles(ops):
    def call(y_true, y_pred):
        return ops.mean(ops.maximum(0.8 * (y_true - y_pred), -0.2 * (y_true - y_pred)), axis=-1)

    return call


def quartic(ops):
    return lambda y_true, y_pred: ops.square(ops.square(y_true - y_pred))


def whole_batch(ops):
    return lambda y_true, y_pred: ops.mean(ops.square(y_true - y_pred))


OWN = [
    (quantiles, lambda y, p: np.where(y > p, -0.8, 0.2) / p.shape[-1]),
    (quartic, lambda y, p: 4 * (p - y) ** 3),
    (whole_batch, lambda y, p: 2 * (p - y) / p.size),
]


@pytest.mark.parametrize(("formula", "derivative"), OWN, ids=["samples", "elements", "batch"])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_s_own_loss(keras_tf, formula, derivative, weighted):
    keras, tf = keras_tf
    y, p, weights = LossCase("own").data("float64")
    given = weights[:, None] if weighted else None
    call = formula(keras.ops)
    own = type("Own", (keras.losses.Loss,), {"call": lambda self, y_true, y_pred: call(y_true, y_pred)})
    with floatx(keras, "float64"):
        for reduction in REDUCTIONS:
            ours = losses.LossFunctionWrapper(formula(minidl_keras.ops), reduction, gradient=derivative)
            value, gradient = keras_value_and_gradient(tf, own(reduction=reduction), y, p, given)
            arguments = {"from_logits": False, "sample_weight": given}
            # |e|⁴ ≤ 6⁴ and |4 e³| ≤ 900 of each element are what the sums are made of
            within("value", ours.value(y, p, **arguments), value, "float64", 1e-12 / 20 * 24 * 6**4)
            within("gradient", ours.value_gradient(y, p, **arguments), gradient, "float64", 1e-12 / 20 * 900)


def test_every_name_that_keras_takes_is_known_or_refused_for_a_reason(keras_tf):
    """Those that need arguments, such as Mean, are no metrics of y_true and y_pred."""
    from keras.src.losses import ALL_OBJECTS_DICT as LOSS_NAMES
    from keras.src.metrics import ALL_OBJECTS_DICT as METRIC_NAMES

    needs_arguments = {"Loss", "LossFunctionWrapper", "Metric", "Mean", "Sum", "MeanMetricWrapper", "PrecisionAtRecall",
                       "RecallAtPrecision", "SensitivityAtSpecificity", "SpecificityAtSensitivity"}  # fmt: skip
    needs_arguments |= {to_snake_case(name) for name in needs_arguments}
    for module, names in ((losses, LOSS_NAMES), (metrics, METRIC_NAMES)):
        for name in names.keys() - needs_arguments:
            try:
                assert module.get(name).name
            except NotImplementedError as refusal:
                assert "meant for images" in str(refusal), name
