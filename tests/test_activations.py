"""activations.py: what each identifier resolves to."""

import functools
import types

import numpy as np
import pytest
from helpers import assert_close, assert_same
from keras_cases import floatx
from test_against_keras import close, keras_tf  # noqa: F401  (a fixture)

import minidl
import minidl.keras as minidl_keras
from minidl import activations, config, layers, models, naming, ops

NAMES = [
    "celu",
    "elu",
    "exponential",
    "gelu",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "squareplus",
    "tanh",
    "tanh_shrink",
    "threshold",
]


@pytest.mark.parametrize("name", NAMES)
def test_get_by_name_gives_forward_and_backward(name):
    found = activations.get(name)
    assert found is getattr(activations, name) is activations.get(found)
    assert (found.name, found.__name__) == (name, name)
    assert found.forward is getattr(ops, name)
    assert found.backward is getattr(ops, f"{name}_backward")


def test_none_is_linear():
    assert activations.get(None) is activations.linear


def function_of(module, name):
    function = types.FunctionType((lambda x: x).__code__, {})
    function.__name__ = function.__qualname__ = name
    function.__module__ = module
    return function


@pytest.mark.parametrize(
    ("module", "name", "found"),
    [
        ("tensorflow.python.ops.gen_nn_ops", "relu", "relu"),
        ("tensorflow.python.ops.nn_ops", "softmax_v2", "softmax"),
        ("keras.src.activations.activations", "sigmoid", "sigmoid"),
        ("jax._src.nn.functions", "relu", "relu"),
        ("torch.nn.functional", "tanh", "tanh"),
        ("minidl.ops", "relu", "relu"),
        ("tensorflow.python.ops.nn_ops", "gelu", "gelu"),
        ("tensorflow.python.ops.nn_ops", "log_softmax_v2", "log_softmax"),
        ("jax._src.nn.functions", "swish", "silu"),
    ],
)
def test_a_framework_s_function_is_known_by_its_name(module, name, found):
    assert activations.get(function_of(module, name)) is getattr(activations, found)


@pytest.mark.parametrize(
    ("module", "name"),
    [("__main__", "relu"), ("my_tensorflow", "relu"), ("tensorflow_addons.layers", "relu"), (None, "relu")],
)
def test_a_user_s_own_function_is_refused(module, name):
    with pytest.raises(ValueError, match=r"Unknown activation: .*relu.*of your own has no backward"):
        activations.get(function_of(module, name))


def test_a_framework_s_other_function_is_refused():
    with pytest.raises(
        ValueError, match=r"Unknown activation: .*crelu.* celu, elu, .*Activation\(name, forward, backward"
    ):
        activations.get(function_of("tensorflow.python.ops.nn_ops", "crelu"))


def test_a_framework_s_own_defaults():
    x = np.array([-2.0, 1.0])
    for library, slope in (("jax", 0.01), ("torch", 0.01), ("tensorflow", 0.2)):
        found = activations.get(function_of(f"{library}.nn", "leaky_relu"))
        assert_same(found(x), ops.leaky_relu(x, negative_slope=slope))
    assert_same(activations.get(function_of("jax.nn", "gelu"))(x), ops.gelu(x, approximate=True))


@pytest.mark.parametrize("identifier", [3, 0.5, [], np.ones(2)])
def test_something_else_is_refused(identifier):
    with pytest.raises(ValueError, match="Unknown activation"):
        activations.get(identifier)


def test_called_it_is_the_function():
    assert_same(minidl.nn.relu([-1, 2]), np.array([0, 2], np.float32))
    assert_same(minidl.nn.relu(np.array([-1.0, 2])), np.array([0.0, 2]))  # an array keeps its dtype
    config.set_floatx("float64")
    assert_same(activations.sigmoid([0, 0]), np.array([0.5, 0.5]))


def test_nn_has_tensorflow_s_names():
    for name in minidl.nn.__all__:
        assert activations.get(getattr(minidl.nn, name)).forward is getattr(activations, name).forward
    x = np.array([-2.0, 1.0])
    assert_same(minidl.nn.leaky_relu(x, alpha=0.5), np.array([-1.0, 1.0]))
    with pytest.raises(TypeError, match="unexpected argument 'negative_slope'; it has alpha"):
        minidl.nn.leaky_relu(x, negative_slope=0.5)


# Arguments -----------------------------------------------------------------------------------------------


def test_arguments_as_in_keras_by_name_and_by_place():
    x = np.array([[-2.0, 0.5, 8.0]])
    assert_same(activations.relu(x, 0.5, 6.0, 1.0), ops.relu(x, negative_slope=0.5, max_value=6.0, threshold=1.0))
    assert_same(activations.gelu(x, approximate=True), ops.gelu(x, approximate=True))
    assert_same(activations.softmax(x, axis=0), np.ones((1, 3)))
    assert_same(activations.threshold(x, 1.0, -1.0), np.array([[-1.0, -1.0, 8.0]]))
    assert_same(activations.elu(np.array([-1, 2])), ops.elu(np.array([-1, 2], "float32")))  # integers become floats


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: activations.gelu([1.0], approx=True), "gelu: unexpected argument 'approx'; it has approximate"),
        (lambda: activations.tanh([1.0], 2), "tanh: takes the inputs and nothing; got too many arguments"),
        (lambda: activations.elu([1.0], 2, alpha=1), "elu: takes the inputs and alpha; got too many"),
        (lambda: activations.relu.with_arguments(out=1), "relu: unexpected argument 'out'; it has negative_slope"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_glu_of_an_odd_width():
    with pytest.raises(ValueError, match=r"glu: the size along axis -1 must be even.*\(2, 3\)"):
        activations.glu(np.ones((2, 3)))


def test_a_layer_s_activation_with_arguments():
    x = np.array([[-2.0, 0.5]])
    for given in (
        activations.gelu.with_arguments(approximate=True),
        functools.partial(activations.gelu, approximate=True),
        functools.partial(function_of("keras.src.activations.activations", "gelu"), approximate=True),
    ):
        found = activations.get(given)
        assert_same(found.forward(x), ops.gelu(x, approximate=True))
        assert_same(found.gradient(x, x, x), ops.gelu_backward(x, x, approximate=True))
        with pytest.raises(ValueError, match=r"'gelu' has other arguments.*name only"):
            activations.serialize(found)
    with pytest.raises(ValueError, match="Unknown activation"):
        activations.get(functools.partial(activations.gelu, True))


def test_what_a_layer_cannot_have():
    with pytest.raises(NotImplementedError, match="Dense: glu halves the width"):
        layers.Dense(4, "glu")
    with pytest.raises(ValueError, match="Dense: threshold needs its arguments"):
        layers.Dense(4, "threshold")
    layers.Dense(4, activations.threshold.with_arguments(threshold=0.0, default_value=0.0))


LAYERS = [
    ("ReLU", {"max_value": 1.5, "negative_slope": 0.1}),
    ("LeakyReLU", {}),
    ("ELU", {"alpha": 0.5}),
    ("Softmax", {}),
    ("Softmax", {"axis": 0}),
    ("Activation", {"activation": "sigmoid"}),
]


@pytest.mark.parametrize(("name", "arguments"), LAYERS)
def test_a_layer_as_the_activation_of_another(rng, name, arguments):
    config.set_floatx("float64")
    layer = getattr(layers, name)(**arguments)
    together, apart = layers.Dense(3, layer), [layers.Dense(3), layer]
    x, d_outputs = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    together.build((None, 4))
    apart[0].build((None, 4))
    apart[0].set_weights(together.get_weights())
    outputs = together.forward(x)
    assert_same(outputs, layer.forward(apart[0].forward(x)))
    expected = apart[0].backward(layer.backward(d_outputs))
    layer.forward(np.ones((2, 3)))  # used elsewhere in between
    assert_same(together.backward(d_outputs), expected)
    again = layers.Dense.from_config(together.get_config())
    assert again.get_config() == together.get_config()
    again.build((None, 4))
    again.set_weights(together.get_weights())
    assert_same(again.forward(x), outputs)


def test_a_layer_that_is_no_activation():
    for layer in (layers.PReLU(), layers.Dense(2)):
        with pytest.raises(NotImplementedError, match=r"Dense: a (PReLU|Dense) as the activation of another layer"):
            layers.Dense(3, activation=layer)


def test_serialized_it_is_its_name():
    for name in NAMES:
        activation = getattr(activations, name)
        assert activations.serialize(activation) == name
        for config_of in (name, {"class_name": "function", "config": name}):
            assert activations.deserialize(config_of) is activations.get(config_of) is activation
    assert activations.serialize(minidl.nn.leaky_relu) == "leaky_relu"


# One's own -----------------------------------------------------------------------------------------------

CUBE = activations.Activation("cube", lambda x: x**3, lambda d_outputs, x: d_outputs * (3 * x**2), needs_inputs=True)


def test_one_s_own_activation_trains_as_its_formula_says():
    config.set_floatx("float64")
    model = models.Sequential([layers.Input((2,)), layers.Dense(1, CUBE, use_bias=False)])
    model.compile(optimizer="sgd", loss="mse")
    kernel = np.array([[0.5], [-0.25]])
    model.set_weights([kernel])
    x, y = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([[1.0], [0.0]])
    model.train_on_batch(x, y)
    z = x @ kernel
    d_z = 2 * (z**3 - y) / 2 * (3 * z**2)
    # a dozen roundings of numbers below 20
    assert_close(model.get_weights()[0], kernel - 0.01 * x.T @ d_z, atol=12 * 20 * 2.0**-53)


def test_one_s_own_activation_in_a_config():
    written = activations.serialize(CUBE)
    assert written == {"module": "builtins", "class_name": "function", "config": "cube", "registered_name": "function"}
    assert activations.deserialize(written, {"cube": CUBE}) is CUBE
    with pytest.raises(ValueError, match="Unknown activation: 'cube'"):
        activations.deserialize(written)


# Live Keras ----------------------------------------------------------------------------------------------

ARGUMENTS = [
    *[(name, {}) for name in NAMES if name != "threshold"],
    ("threshold", {"threshold": 0.5, "default_value": 2.0}),
    ("relu", {"negative_slope": 0.1}),
    ("relu", {"max_value": 6}),
    ("relu", {"max_value": 3.0}),
    ("relu", {"max_value": 6, "negative_slope": 0.1}),
    ("relu", {"threshold": 0.5}),
    ("relu", {"threshold": -1.0, "negative_slope": 0.1, "max_value": 1}),
    ("relu", {"threshold": 1, "max_value": 6, "negative_slope": 0.3}),
    ("leaky_relu", {"negative_slope": 0.3}),
    ("elu", {"alpha": 0.3}),
    ("celu", {"alpha": 0.3}),
    ("gelu", {"approximate": True}),
    ("squareplus", {"b": 0.1}),
    ("soft_shrink", {"threshold": 0.1}),
    ("hard_shrink", {"threshold": 1}),
    ("softmax", {"axis": 0}),
    ("log_softmax", {"axis": 0}),
    ("sparsemax", {"axis": 0}),
    ("glu", {"axis": 0}),
    ("softmax", {"axis": None}),
]
ROWS = ("softmax", "log_softmax", "sparsemax", "glu")


def grid(dtype):
    """Every kink with its neighbours, ±0, tiny, ordinary and large numbers."""
    kinks = np.array([-6, -3, -1, -0.5, -0.1, -0.0, 0, 0.1, 0.3, 0.5, 1, 3, 6], dtype)
    large = np.array([8, 10, 17, 20, 38, 40, 50, 88, 100, 800, 1e4], dtype)
    tiny = np.array([1e-30, 1e-9, 1e-4, 0.01], dtype)
    inner = np.linspace(-8, 8, 161).astype(dtype)
    around = [np.nextafter(kinks[kinks != 0], dtype(sign * 100)) for sign in (-1, 1)]  # TensorFlow takes 5e-324 as 0
    return np.concatenate([kinks, *around, large, -large, tiny, -tiny, inner])


def rows(dtype):
    rng = np.random.default_rng(0)
    special = [[1, 2, 3, 0], [1000, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [-1e4, 1e4, 1e4, 0], [0.5, 0.25, 0, -1]]
    return np.concatenate([rng.normal(size=(30, 4), scale=s) for s in (0.3, 3, 30)] + [special]).astype(dtype)


@pytest.mark.keras
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_and_gradients_are_keras_s(keras, dtype):
    """Within 16 u of what was summed: |x|, the value, and the 1 that eˣ − 1, 1 − σ and the like are taken from.

    A softmax's row sums up to 4 terms of the row's gradient, so there it is the largest |x|, value or gradient at all.
    """
    import tensorflow as tf

    u = float(np.finfo(dtype).eps) / 2
    for name, arguments in ARGUMENTS:
        x = (rows if name in ROWS else grid)(dtype)
        if name == "selu":  # TensorFlow's eˣ − 1 is 0 at −1e-9, and so its derivative there that of x > 0
            x = x[(x >= 0) | (x < -1e-5)]
        theirs, ours = getattr(keras.activations, name), getattr(activations, name).with_arguments(**arguments)
        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            expected = theirs(variable, **arguments)
        upstream = np.random.default_rng(1).normal(size=expected.shape).astype(dtype)
        gradient = tape.gradient(expected, variable, output_gradients=tf.constant(upstream))
        outputs = ours.forward(x)
        with np.errstate(over="ignore"):  # exponential: inf times an upstream gradient
            d_inputs = ours.gradient(upstream, x, outputs)
        for what, got, wanted in (("value", outputs, expected), ("gradient", d_inputs, gradient)):
            wanted = np.asarray(wanted)
            finite = np.isfinite(wanted)
            np.testing.assert_array_equal(got[~finite], wanted[~finite])
            assert finite.all() or name == "exponential"
            summed = 1 + np.abs(x).max() + np.abs(wanted[finite]).max()
            if name not in ROWS:
                summed = 1 + np.abs(x[finite]) + np.abs(wanted[finite])
            if arguments == {"approximate": True}:  # 1 − tanh² is multiplied by x u′, of which 3 √(2/π) k x³ grows
                summed += 0.11 * np.minimum(np.abs(x), 6) ** 3  # beyond 6, 1 − tanh² is 0 in both
            budget = 16 * u * summed
            assert_close(got[finite], wanted[finite], atol=budget, what=f"{name} {arguments}: {what}")


@pytest.mark.keras
def test_the_list_is_keras_s(keras):
    import keras.src.activations as theirs

    public = [name for name in dir(keras.activations) if name[0] != "_"]
    assert [name for name in public if not hasattr(activations, name)] == []
    assert sorted(theirs.ALL_OBJECTS_DICT) == sorted(activations._BY_NAME)
    for name, function in theirs.ALL_OBJECTS_DICT.items():
        assert activations.get(function) is activations.get(name)
        assert activations.serialize(activations.get(name)) == theirs.serialize(function)


@pytest.mark.keras
def test_tensorflow_s_functions_are_known(keras):
    import tensorflow as tf

    for name in minidl.nn.__all__:
        assert activations.get(getattr(tf.nn, name)) is getattr(activations, name)


@pytest.mark.keras
@pytest.mark.parametrize(("name", "arguments"), LAYERS)
def test_a_layer_as_an_activation_trains_as_in_keras(keras_tf, name, arguments):  # noqa: F811
    """Saturated, so that it shows whether the logits under a softmax or a sigmoid are found."""
    keras = keras_tf[0]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4), scale=30), rng.dirichlet(np.ones(3), size=8)
    loss = {"Softmax": "categorical_crossentropy", "Activation": "binary_crossentropy"}.get(name, "mse")
    with floatx(keras, "float64"):
        built = []
        for library in (keras, minidl_keras):
            naming.reset_names()
            keras.utils.clear_session(free_memory=False)
            dense = library.layers.Dense(3, activation=getattr(library.layers, name)(**arguments))
            model = library.models.Sequential([library.layers.Input(shape=(4,)), dense])
            model.compile(optimizer="sgd", loss=loss)
            built.append(model)
        theirs, ours = built
        assert ours.layers[-1].get_config() == theirs.layers[-1].get_config()
        ours.set_weights(theirs.get_weights())
        losses = [float(model.train_on_batch(x, y)) for model in built]
        assert abs(losses[1] - losses[0]) <= 1e-12 * losses[0]
        for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            close("weight", a, b)


def test_a_function_of_one_s_own_carries_its_derivative(rng):
    def cube(x):
        return x**3

    with pytest.raises(ValueError, match=r"function\.gradient = the elementwise derivative"):
        activations.get(cube)
    cube.gradient = lambda x: 3 * x**2
    found = activations.get(cube)
    inputs, d_outputs = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    assert_same(found(inputs), inputs**3)
    assert_same(found.gradient(d_outputs, inputs, found(inputs)), d_outputs * (3 * inputs**2))
    cube.gradient = lambda x: x.sum()
    with pytest.raises(ValueError, match="inputs' shape"):
        found.gradient(d_outputs, inputs, found(inputs))
