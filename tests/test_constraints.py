"""constraints.py: projections in closed form, what each identifier resolves to, when they are applied; live Keras."""

import numpy as np
import pytest
from helpers import assert_close, assert_same
from keras_cases import floatx
from test_against_keras import close, keras_tf  # noqa: F401  (a fixture)

import minidl.keras as minidl_keras
from minidl import config, constraints, layers, models, naming
from minidl.constraints import MaxNorm, MinMaxNorm, NonNeg, UnitNorm

WEIGHTS = np.array([[3.0, 0.0, -0.6], [4.0, 0.0, 0.8]])  # norms of the columns 5, 0, 1


# Projections ---------------------------------------------------------------------------------------------


def test_projections_in_closed_form():
    config.set_epsilon(1e-12)  # of a norm of 5: 2e-13 of it; a dozen roundings of numbers up to 5 add 1e-14
    for constraint, norms in (
        (MaxNorm(2), [2, 0, 1]),
        (UnitNorm(), [1, 0, 1]),
        (MinMaxNorm(1.5, 3.0), [3, 0, 1.5]),
        (MinMaxNorm(1.5, 3.0, rate=0.25), [4.5, 0, 1.125]),
    ):
        expected = WEIGHTS / [5, 1, 1] * norms
        assert_close(constraint(WEIGHTS), expected, atol=5e-12, what=type(constraint).__name__)
    assert_same(NonNeg()(np.array([-1.0, 0.0, 2.0])), np.array([0.0, 0.0, 2.0]))


def test_axes():
    config.set_epsilon(1e-12)
    rows = np.linalg.norm(WEIGHTS, axis=1)
    assert_close(UnitNorm(axis=1)(WEIGHTS), WEIGHTS / rows[:, None], atol=5e-12)
    whole = WEIGHTS / np.linalg.norm(WEIGHTS)
    for axis in ((0, 1), [0, 1], None):
        assert_close(UnitNorm(axis=axis)(WEIGHTS), whole, atol=5e-12)


def test_epsilon_is_the_one_of_config():
    config.set_epsilon(0.25)
    assert_same(UnitNorm()(np.array([[3.0], [4.0]])), np.array([[3.0], [4.0]]) / 5.25)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_keep_the_dtype(dtype):
    for constraint in (MaxNorm(), NonNeg(), UnitNorm(), MinMaxNorm()):
        assert constraint(WEIGHTS.astype(dtype)).dtype == dtype


# Names and configs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [MaxNorm, NonNeg, UnitNorm, MinMaxNorm])
def test_get(cls):
    snake_case = naming.to_snake_case(cls.__name__)
    assert getattr(constraints, snake_case) is cls
    for identifier in (cls, cls.__name__, snake_case, constraints.serialize(cls())):
        found = constraints.get(identifier)
        assert type(found) is cls
        assert found.get_config() == cls().get_config()
    made = cls()
    assert constraints.get(made) is made


def test_config_makes_it_again():
    for made in (MaxNorm(0.5, 1), UnitNorm([0, 1]), MinMaxNorm(0.1, 0.9, 0.5, 1)):
        assert constraints.deserialize(constraints.serialize(made)).get_config() == made.get_config()


class Half(constraints.Constraint):
    def __init__(self, by=2.0):
        self.by = by

    def __call__(self, weights):
        return weights / self.by

    def get_config(self):
        return {"by": self.by}


def test_one_s_own():
    assert constraints.get(None) is None
    assert constraints.get(np.abs) is np.abs
    assert isinstance(constraints.get(Half), Half)
    again = constraints.deserialize(constraints.serialize(Half(4.0)), {"Half": Half})
    assert isinstance(again, Half) and again.by == 4.0
    assert_same(constraints.Constraint()(WEIGHTS), WEIGHTS)  # Keras's base class changes nothing


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: constraints.get("maxnorm"), r"Unknown constraint: 'maxnorm'\. Did you mean .*'max_norm'"),
        (lambda: constraints.get(3), "Unknown constraint: 3. Pass a name, a minidl.constraints.Constraint or a func"),
        (lambda: constraints.get({"class_name": "Norm", "config": {}}), "Unknown constraint: 'Norm'"),
        (lambda: layers.Dense(1, kernel_constraint="non_negative"), "Did you mean 'non_neg'"),
        (lambda: MaxNorm(-1), "MaxNorm: max_value must be finite and at least 0; got -1"),
        (lambda: MaxNorm("2"), "MaxNorm: max_value must be a number; got '2'"),
        (lambda: MaxNorm(axis=0.5), "MaxNorm: axis must be an integer, several in a list, or None for all; got 0.5"),
        (lambda: UnitNorm(axis=[0, "1"]), "UnitNorm: axis must be an integer"),
        (lambda: MinMaxNorm(min_value=np.nan), "MinMaxNorm: min_value must be finite and at least 0; got nan"),
        (lambda: MinMaxNorm(2.0, 1.0), "MinMaxNorm: max_value must be at least min_value; got 1.0 < 2.0"),
        (lambda: MinMaxNorm(rate=1.5), r"MinMaxNorm: rate must be in \[0, 1\]; got 1.5"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# In training ---------------------------------------------------------------------------------------------


def model_with(**arguments):
    model = models.Sequential([layers.Input((2,)), layers.Dense(3, **arguments)])
    model.compile(optimizer="sgd", loss="mse")
    return model


def step(model):
    model.train_on_batch(np.ones((4, 2)), np.zeros((4, 3)))


def test_they_hold_after_each_step():
    model = model_with(kernel_constraint="unit_norm", bias_constraint="non_neg")
    for _ in range(3):
        step(model)
        kernel, bias = model.get_weights()
        # ε = 1e-7 and the roundings of float32, some 1e-7 each
        assert_close(np.linalg.norm(kernel, axis=0), np.ones(3, np.float32), atol=1e-6)
        assert (bias >= 0).all()


def test_a_function_of_the_weights():
    model = model_with(kernel_constraint=lambda weights: np.full_like(weights, 0.5), bias_constraint=Half())
    model.layers[-1].set_weights([np.ones((2, 3)), np.ones(3)])
    free = model_with()
    free.set_weights([np.ones((2, 3)), np.ones(3)])
    step(model)
    step(free)
    assert_same(model.get_weights()[0], np.full((2, 3), 0.5, np.float32))
    assert_same(model.get_weights()[1], free.get_weights()[1] / 2)


def test_a_layer_that_is_not_trained_is_left_alone():
    model = model_with(kernel_constraint="unit_norm", trainable=False)
    before = model.get_weights()
    model.compile(optimizer="sgd", loss="mse")
    step(model)
    for a, b in zip(model.get_weights(), before, strict=True):
        assert_same(a, b)


def test_a_constraint_of_another_shape():
    model = model_with(kernel_constraint=lambda weights: weights[0])
    with pytest.raises(
        ValueError, match=r"the constraint on kernel must return weights of the shape \(2, 3\); got \(3,\)"
    ):
        step(model)


# Live Keras ----------------------------------------------------------------------------------------------

CASES = [
    ("MaxNorm", {}),
    ("MaxNorm", {"max_value": 0.5, "axis": 1}),
    ("MaxNorm", {"max_value": 0.3, "axis": [0, 1]}),
    ("NonNeg", {}),
    ("UnitNorm", {}),
    ("UnitNorm", {"axis": -1}),
    ("MinMaxNorm", {}),
    ("MinMaxNorm", {"min_value": 0.4, "max_value": 0.7, "rate": 0.3, "axis": 1}),
]
IDS = [f"{name}-{'-'.join(arguments)}" for name, arguments in CASES]


@pytest.mark.keras
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_values_and_configs_are_keras_s(keras_tf, name, arguments):  # noqa: F811
    keras, tf = keras_tf
    theirs, ours = getattr(keras.constraints, name)(**arguments), getattr(constraints, name)(**arguments)
    assert constraints.serialize(ours) == keras.constraints.serialize(theirs)
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        u = np.finfo(dtype).eps / 2
        for scale in (1e-8, 0.1, 1.0, 100.0):
            weights = rng.normal(size=(6, 5), scale=scale).astype(dtype)
            weights[:, 0] = 0
            # a root of at most 30 squares: (30 + 3)/2 u on each side; four more operations on each
            budget = 2 * (17 + 4) * u * np.abs(weights) * max(1, 1 / scale)
            assert_close(ours(weights), np.asarray(theirs(tf.constant(weights))), atol=budget)


@pytest.mark.keras
def test_the_list_is_keras_s(keras_tf):  # noqa: F811
    import keras.src.constraints as theirs

    assert {name for name in theirs.ALL_OBJECTS_DICT if name.lower() != "constraint"} == set(constraints._BY_NAME)
    for name in dir(keras_tf[0].constraints):
        assert name[0] == "_" or hasattr(constraints, name), name


OPTIMIZERS = [
    {},
    {"use_ema": True, "ema_momentum": 0.8},
    {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 3},
    {"gradient_accumulation_steps": 3},
    {"gradient_accumulation_steps": 2, "use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 2},
]
HARSH = {"MaxNorm": {"max_value": 0.5}, "NonNeg": {}, "UnitNorm": {}, "MinMaxNorm": {"max_value": 0.6, "rate": 0.5}}


def twins(keras, name, optimizer):
    naming.reset_names()
    built = []
    for library in (keras, minidl_keras):
        arguments = {
            "kernel_constraint": getattr(library.constraints, name)(**HARSH[name]),
            "bias_constraint": "non_neg",
        }
        dense = library.layers.Dense(5, activation="tanh", **arguments)
        model = library.models.Sequential([library.layers.Input(shape=(4,)), dense, library.layers.Dense(1)])
        adam = library.optimizers.Adam(learning_rate=0.05, **optimizer)
        model.compile(optimizer=adam, loss="mse")
        built.append(model)
    theirs, ours = built
    ours.set_weights(theirs.get_weights())
    return theirs, ours


@pytest.mark.keras
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids="-".join)
@pytest.mark.parametrize("name", HARSH)
def test_trained_models_agree_to_1e_12(keras_tf, name, optimizer):  # noqa: F811
    """Each batch, in float64; then a fit, at whose end the average of the weights takes their place unconstrained."""
    keras = keras_tf[0]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 4)), rng.normal(size=(64, 1))
    with floatx(keras, "float64"):
        keras.utils.set_random_seed(3)
        theirs, ours = twins(keras, name, optimizer)
        for start in range(0, 64, 8):
            for model in (theirs, ours):
                model.train_on_batch(x[start : start + 8], y[start : start + 8])
            for i, (a, b) in enumerate(zip(ours.get_weights(), theirs.get_weights(), strict=True)):
                close(f"batch {start // 8}, weight {i}", a, b, scale=1.0)
        for model in (theirs, ours):
            model.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)
        for i, (a, b) in enumerate(zip(ours.get_weights(), theirs.get_weights(), strict=True)):
            close(f"after fit, weight {i}", a, b, scale=1.0)
