"""regularizers.py: penalties with Keras's roundings, and what each identifier resolves to."""

import numpy as np
import pytest
from helpers import assert_close, assert_gradients_close, assert_same
from keras_cases import floatx
from test_against_keras import close, keras_tf  # noqa: F401  (a fixture)

import minidl.keras as minidl_keras
from minidl import config, layers, models, naming, ops, regularizers
from minidl.regularizers import L1, L1L2, L2, OrthogonalRegularizer, Regularizer

F32 = np.float32
WEIGHTS = np.array([[0.3, -1.7], [0, 2.2]], F32)


def test_factors_are_rounded_to_float32_for_float64_weights_too():
    """l1 when it is made, l2 only when it is used: get_config tells."""
    rounded = float(F32(0.1))
    assert (L1(0.1).l1, L2(0.1).l2, L1L2(0.1, 0.1).l1, L1L2(0.1, 0.1).l2) == (rounded, 0.1, 0.1, 0.1)
    weights = np.array([1.0, -1.0])
    for made in (L1(0.1), L2(0.1), L1L2(l1=0.1), L1L2(l2=0.1)):
        assert_same(made(weights), np.float64(2 * rounded))
    for made in (L1(0.1), L1L2(l1=0.1)):
        assert_same(made.gradient(weights), rounded * weights)
    for made in (L2(0.1), L1L2(l2=0.1)):
        assert_same(made.gradient(weights), 2 * rounded * weights)


def test_penalties_and_gradients_in_closed_form():
    absolute, squared = np.abs(WEIGHTS).sum(), np.square(WEIGHTS).sum()
    sign = np.sign(WEIGHTS)
    assert_same(L1(0.1)(WEIGHTS), F32(0.1) * absolute)
    assert_same(L2(0.1)(WEIGHTS), F32(0.1) * squared)
    assert_same(L1L2(0.1, 0.3)(WEIGHTS), F32(0.1) * absolute + F32(0.3) * squared)
    assert_same(L1(0.1).gradient(WEIGHTS), sign * F32(0.1))
    assert_same(L2(0.1).gradient(WEIGHTS), WEIGHTS * F32(0.2))
    assert_same(L1L2(0.1, 0.3).gradient(WEIGHTS), sign * F32(0.1) + WEIGHTS * F32(0.6))


def test_defaults_are_keras_s():
    assert L1().get_config() == {"l1": float(F32(0.01))} == L1(None).get_config()
    assert L2().get_config() == {"l2": 0.01} == L2(None).get_config()
    assert L1L2().get_config() == {"l1": 0.0, "l2": 0.0} == L1L2(None, None).get_config()


@pytest.mark.parametrize("regularizer", [L1(0.2), L2(0.2), L1L2(0.2, 0.3)])
def test_gradient_is_that_of_the_penalty(regularizer, rng):
    weights = rng.normal(size=(3, 2))
    weights[np.abs(weights) < 0.01] = 0.5  # away from the corner of |w|
    # at most quadratic, so no truncation; 12 terms below 0.3·9 and about 15 roundings each
    assert_gradients_close(
        lambda: regularizer(weights), weights, regularizer.gradient(weights), third_derivative=0, scale=486, h=1e-3
    )


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("l1", L1),
        ("L1", L1),
        (L1, L1),
        ("l2", L2),
        ("L2", L2),
        ("l1_l2", L1L2),
        ("L1L2", L1L2),
        ("l1l2", L1L2),
        ("OrthogonalRegularizer", OrthogonalRegularizer),
        ("orthogonal_regularizer", OrthogonalRegularizer),
    ],
)
def test_get(identifier, expected):
    found = regularizers.get(identifier)
    assert type(found) is expected
    assert found.get_config() == expected().get_config()


def test_get_passes_none_and_instances_through():
    assert regularizers.get(None) is None
    mine = L2(0.5)
    assert regularizers.get(mine) is mine


@pytest.mark.parametrize("regularizer", [L1(0.1), L2(0.1), L1L2(0.1, 0.2), OrthogonalRegularizer(0.1, "columns")])
def test_config_makes_it_again(regularizer):
    again = type(regularizer).from_config(regularizer.get_config())
    assert again.get_config() == regularizer.get_config()


def test_keras_s_lower_case_names():
    assert (regularizers.l1, regularizers.l2, regularizers.l1_l2) == (L1, L2, L1L2)
    assert regularizers.orthogonal_regularizer is OrthogonalRegularizer


def test_a_subclass_must_define_both_halves():
    class Half(regularizers.Regularizer):
        pass

    with pytest.raises(NotImplementedError, match=r"Half must define __call__"):
        Half()(WEIGHTS)
    with pytest.raises(NotImplementedError, match=r"Half must define gradient"):
        Half().gradient(WEIGHTS)


def test_orthogonal_regularizer_is_its_formula():
    for mode in ("rows", "columns"):
        made = OrthogonalRegularizer(0.1, mode)
        assert made.factor == float(F32(0.1))
        assert_same(made(WEIGHTS), ops.orthogonal_penalty(WEIGHTS, factor=made.factor, mode=mode))
        assert_same(made.gradient(WEIGHTS), ops.orthogonal_gradient(WEIGHTS, factor=made.factor, mode=mode))
    with pytest.raises(ValueError, match="mode must be 'rows' or 'columns'; got 'row'"):
        OrthogonalRegularizer(mode="row")
    with pytest.raises(ValueError, match="factor must be finite and at least 0; got -1"):
        OrthogonalRegularizer(-1)


# One's own -----------------------------------------------------------------------------------------------


def cubes(weights):
    return 0.5 * np.sum(np.abs(weights) ** 3)


def cubes_gradient(weights):
    return 1.5 * weights * np.abs(weights)


class Cubes(Regularizer):
    def __init__(self, factor=0.5):
        self.factor = factor

    def __call__(self, weights):
        return self.factor * np.sum(np.abs(weights) ** 3)

    def gradient(self, weights):
        return 3 * self.factor * weights * np.abs(weights)

    def get_config(self):
        return {"factor": self.factor}


class Duck:
    def __call__(self, weights):
        return cubes(weights)

    def gradient(self, weights):
        return cubes_gradient(weights)


@pytest.mark.parametrize("given", [Regularizer.of(cubes, cubes_gradient), Cubes(), Cubes, Duck()])
def test_one_s_own_in_training(given):
    config.set_floatx("float64")
    model = models.Sequential([layers.Input((2,)), layers.Dense(1, use_bias=False, kernel_regularizer=given)])
    model.compile(optimizer="sgd", loss="mse")
    kernel = np.array([[0.5], [-2.0]])
    model.set_weights([kernel])
    loss = model.train_on_batch(np.zeros((3, 2)), np.zeros((3, 1)))
    assert float(loss) == 0.5 * (0.125 + 8)
    assert_close(model.get_weights()[0], kernel - 0.01 * cubes_gradient(kernel), atol=8 * 2.0**-53)


def test_one_s_own_in_a_config():
    again = regularizers.deserialize(regularizers.serialize(Cubes(0.25)), {"Cubes": Cubes})
    assert isinstance(again, Cubes) and again.factor == 0.25
    with pytest.raises(NotImplementedError, match="'cubes' is made of functions"):
        regularizers.serialize(Regularizer.of(cubes, cubes_gradient))


def test_bad_functions_of_one_s_own():
    with pytest.raises(ValueError, match=r"Regularizer\.of\(function, gradient\).* no gradient that minidl knows"):
        regularizers.get(cubes)
    with pytest.raises(TypeError, match="expected two functions"):
        Regularizer.of(cubes, None)
    with pytest.raises(ValueError, match=r"'cubes' must have the weights' shape \(2, 2\); got \(\)"):
        Regularizer.of(cubes, cubes).gradient(WEIGHTS)
    with pytest.raises(ValueError, match=r"'cubes_gradient' must return one number; got shape \(2, 2\)"):
        Regularizer.of(cubes_gradient, cubes_gradient)(WEIGHTS)


# Live Keras ----------------------------------------------------------------------------------------------

CASES = [
    ("L1", {}), ("L1", {"l1": 0.3}), ("L2", {}), ("L2", {"l2": 0.3}), ("L1L2", {}), ("L1L2", {"l1": 0.1, "l2": 0.7}),
    ("OrthogonalRegularizer", {}), ("OrthogonalRegularizer", {"factor": 0.3, "mode": "columns"}),
]  # fmt: skip


def in_float64(tf, regularizer):
    """Keras's OrthogonalRegularizer multiplies its float32 factor by a float64 sum, and fails: cast it for it."""
    if type(regularizer).__name__ == "OrthogonalRegularizer":
        regularizer.factor = tf.cast(regularizer.factor, "float64")
    return regularizer


@pytest.mark.keras
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_values_gradients_and_configs_are_keras_s(keras_tf, name, arguments):  # noqa: F811
    keras, tf = keras_tf
    ours = getattr(regularizers, name)(**arguments)
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        theirs = getattr(keras.regularizers, name)(**arguments)
        assert regularizers.serialize(ours) == keras.regularizers.serialize(theirs)
        if dtype == "float64":
            in_float64(tf, theirs)
        for weights in (rng.normal(size=(6, 5)), np.array([[0.0, -0.0], [1.0, -2.0]]), np.zeros((2, 3))):
            weights = weights.astype(dtype)
            variable = tf.Variable(weights)
            with tf.GradientTape() as tape:
                expected = theirs(variable)
            # sums of at most 36 terms, each rounded up to 8 times; in all below 36 and a factor below 1
            u = np.finfo(dtype).eps / 2
            assert_close(ours(weights), expected.numpy(), atol=(36 + 8) * u * float(expected), what="penalty")
            gradient = tape.gradient(expected, variable, unconnected_gradients="zero").numpy()
            size = 1 if name != "OrthogonalRegularizer" else 2 / max(np.linalg.norm(weights, axis=1).min(), 0.2)
            assert_close(ours.gradient(weights), gradient, atol=44 * u * (size + np.abs(gradient)), what="gradient")


@pytest.mark.keras
def test_the_list_is_keras_s(keras_tf):  # noqa: F811
    import keras.src.regularizers as theirs

    assert {name for name in theirs.ALL_OBJECTS_DICT if name.lower() != "regularizer"} <= set(regularizers._BY_NAME)
    for name in dir(keras_tf[0].regularizers):
        assert name[0] == "_" or hasattr(regularizers, name), name


@pytest.mark.keras
@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_a_model_trained_with_orthogonal_regularizers_agrees_to_1e_12(keras_tf, mode):  # noqa: F811
    keras, tf = keras_tf
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 16, 4)), rng.normal(size=(20, 16, 1))
    with floatx(keras, "float64"):
        naming.reset_names()
        keras.utils.set_random_seed(3)
        built = []
        for library in (keras, minidl_keras):
            regularizer = library.regularizers.OrthogonalRegularizer(0.3, mode)
            dense = library.layers.Dense(5, "tanh", kernel_regularizer=regularizer)
            model = library.models.Sequential([library.layers.Input(shape=(4,)), dense, library.layers.Dense(1)])
            model.compile(optimizer=library.optimizers.Adam(0.05), loss="mse")
            built.append(model)
        theirs, ours = built
        in_float64(tf, theirs.layers[0].kernel_regularizer)
        ours.set_weights(theirs.get_weights())
        for step in range(20):
            losses = [model.train_on_batch(x[step], y[step]) for model in built]
            assert abs(float(losses[1]) - float(losses[0])) <= 1e-12 * float(losses[0])
            for i, (a, b) in enumerate(zip(ours.get_weights(), theirs.get_weights(), strict=True)):
                close(f"step {step}, weight {i}", a, b, scale=1.0)
