"""layers.py: forward, backward into grads, building, weights, names."""

import numpy as np
import pytest
from helpers import assert_gradients_close, assert_same

from minidl import activations, config, initializers, naming, ops, random, regularizers
from minidl.layers import Dense, Dropout, Input, InputLayer

EPS = np.finfo(np.float64).eps


def dense(inputs=4, units=3, **arguments):
    layer = Dense(units, dtype="float64", kernel_initializer=initializers.RandomNormal(stddev=1, seed=3), **arguments)
    layer.build((None, inputs))
    return layer


@pytest.mark.parametrize("activation", ["linear", "relu", "sigmoid", "tanh", "softmax"])
def test_dense_backward(rng, activation):
    layer = dense(activation=activation, bias_initializer=initializers.RandomNormal(stddev=1, seed=4))
    x, d_outputs = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))

    def f():
        return (d_outputs * layer.forward(x)).sum()

    f()
    assert np.abs(layer.pre_activations).min() > 1e-3  # relu's corner is out of reach of h = 1e-5
    d_inputs = layer.backward(d_outputs)
    # |f‴| ≤ 5·3 terms of |d_outputs| ≤ 3, activation‴ ≤ 2, and the cube of the largest |input| or |weight|, 3
    # rounded: 15 terms below 40, each in some 30 operations
    bounds = {"third_derivative": 15 * 3 * 2 * 27, "scale": 15 * 40 * 30}
    gradients = {name: gradient.copy() for name, gradient in layer.grads.items()}
    assert_gradients_close(f, x, d_inputs, what="inputs", **bounds)
    assert_gradients_close(f, layer.kernel, gradients["kernel"], what="kernel", **bounds)
    assert_gradients_close(f, layer.bias, gradients["bias"], what="bias", **bounds)


def test_dense_backward_overwrites_the_last_gradients_in_place(rng):
    layer = dense()
    kernel_gradient = layer.grads["kernel"]
    x, d_outputs = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    for _ in range(2):
        layer.forward(x)
        layer.backward(d_outputs)
        assert layer.grads["kernel"] is kernel_gradient
        assert_same(kernel_gradient, x.T @ d_outputs)


def test_backward_from_pre_activations_is_the_part_below_the_activation(rng):
    layer = dense(activation="tanh")
    x, d_outputs = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    outputs = layer.forward(x)
    d_inputs = layer.backward(d_outputs)
    gradient = layer.grads["kernel"].copy()
    assert_same(layer.backward_from_pre_activations(ops.tanh_backward(d_outputs, outputs)), d_inputs)
    assert_same(layer.grads["kernel"], gradient)


def test_dense_forward_is_ops(rng):
    layer = dense(activation="relu")
    x = rng.normal(size=(5, 4))
    assert_same(layer.forward(x), ops.relu(ops.dense(x, layer.kernel, layer.bias)))
    assert_same(layer(x.tolist()), layer.forward(x))


def test_dense_without_bias(rng):
    layer = dense(use_bias=False, bias_regularizer="l2")
    x, d_outputs = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    assert_same(layer.forward(x), x @ layer.kernel)
    assert_same(layer.backward(d_outputs), d_outputs @ layer.kernel.T)
    assert list(layer.grads) == ["kernel"]
    assert layer.bias is None
    assert (len(layer.weights), layer.count_params(), layer.losses) == (1, 12, [])


def test_dense_initial_weights():
    layer = Dense(3, kernel_initializer=initializers.GlorotUniform(seed=5), bias_initializer="ones")
    layer.build((None, 4))
    assert_same(layer.kernel, initializers.GlorotUniform(seed=5)((4, 3)))
    assert_same(layer.bias, np.ones(3, np.float32))


def test_dense_defaults_are_keras_s():
    layer = Dense(3)
    layer.build((None, 4))
    assert layer.activation is activations.linear
    assert type(layer.kernel_initializer) is initializers.GlorotUniform
    assert_same(layer.bias, np.zeros(3, np.float32))
    assert (layer.kernel_regularizer, layer.bias_regularizer, layer.use_bias) == (None, None, True)


def test_penalties():
    layer = dense(kernel_regularizer=regularizers.L2(0.5), bias_regularizer="l1", bias_initializer="ones")
    assert layer.regularizers == {"kernel": layer.kernel_regularizer, "bias": layer.bias_regularizer}
    kernel_penalty, bias_penalty = layer.losses
    assert_same(kernel_penalty, regularizers.L2(0.5)(layer.kernel))
    assert_same(bias_penalty, np.float64(3 * np.float64(np.float32(0.01))))


def test_called_on_data_it_builds_itself():
    layer = Dense(3)
    assert not layer.built
    outputs = layer(np.ones((2, 4)))
    assert layer.built
    assert (layer.kernel.shape, outputs.shape, outputs.dtype) == ((4, 3), (2, 3), np.float32)


def test_weights_are_the_parameters_and_get_weights_are_copies(rng):
    layer = dense()
    assert layer.weights[0] is layer.kernel and layer.weights[1] is layer.bias
    copies = layer.get_weights()
    copies[0][...] = 7
    assert not (layer.kernel == 7).any()
    kernel, bias = rng.normal(size=(4, 3)), rng.normal(size=3)
    before = layer.kernel
    layer.set_weights([kernel, bias.tolist()])
    assert layer.kernel is before  # in place
    assert_same(layer.kernel, kernel)
    assert_same(layer.bias, bias)


def test_dtype_is_floatx_unless_given():
    assert Dense(1).dtype == "float32"
    assert Dense(1, dtype="float64").dtype == "float64"
    config.set_floatx("float64")
    layer = Dense(1)
    assert layer(np.ones((2, 2), np.float32)).dtype == np.float64


# Dropout -------------------------------------------------------------------------------------------------


def test_dropout_backward_uses_the_mask_of_forward(rng):
    layer = Dropout(0.4, dtype="float64", seed=1)
    x, d_outputs = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    layer.forward(x, training=True)
    mask = layer.mask
    assert 0 < mask.sum() < mask.size
    layer.draw_mask = lambda shape: mask  # the same at every call

    def f():
        return (d_outputs * layer.forward(x, training=True)).sum()

    # linear, so no truncation: 20 terms of at most 3·3/0.6 in some 25 operations
    d_inputs = layer.backward(d_outputs)
    assert_gradients_close(f, x, d_inputs, third_derivative=0, scale=20 * 15 * 25, h=1e-3)


def test_dropout_at_inference_or_of_rate_0_does_nothing(rng):
    x = rng.normal(size=(5, 4))
    layer = Dropout(0.5, seed=1)
    layer.forward(x, training=True)
    for nothing, training in ((layer, False), (Dropout(0.0), True)):
        assert nothing.forward(x, training=training) is x
        assert nothing.backward(x) is x  # and no mask is left from before


def test_dropout_draws_a_new_mask_each_step_from_its_seed(rng):
    x = rng.normal(size=(20, 10)).astype("float32")
    layer = Dropout(0.3, seed=7)
    outputs = [layer.forward(x, training=True) for _ in range(2)]
    for step, got in enumerate(outputs):
        mask = random.dropout_mask(x.shape, 0.3, (7, step))
        assert_same(got, ops.dropout(x, mask, rate=0.3))
    assert not np.array_equal(*outputs)


def test_dropout_at_rate_1_drops_everything_and_draws_nothing():
    layer = Dropout(1)
    x = np.array([[1.0, np.inf]])
    assert_same(layer.forward(x, training=True), np.zeros((1, 2)))
    assert_same(layer.backward(x), np.zeros((1, 2)))
    assert layer.seed_generator.state[1] == 0


def test_dropout_noise_shape_drops_whole_columns_or_rows(rng):
    x = np.ones((6, 8), np.float32)
    columns = Dropout(0.5, noise_shape=(1, None), seed=2).forward(x, training=True)
    rows = Dropout(0.5, noise_shape=(None, 1), seed=2).forward(x, training=True)
    assert (columns == columns[:1]).all() and set(columns[0]) == {0, 2}
    assert (rows == rows[:, :1]).all() and set(rows[:, 0]) == {0, 2}


def test_dropout_has_no_parameters():
    layer = Dropout(0.5)
    assert (layer.built, layer.count_params(), layer.get_weights(), layer.losses) == (True, 0, [], [])
    layer.set_weights([])


@pytest.mark.parametrize("rate", [np.float32(0.5), np.int64(1), 0, 1])
def test_dropout_takes_numpy_s_numbers(rate):
    assert Dropout(rate).rate == rate


# Names and Input -----------------------------------------------------------------------------------------


def test_names_count_from_dense():
    assert [Dense(1).name, Dense(1).name, Dropout(0.1).name, Dense(1).name] == [
        "dense",
        "dense_1",
        "dropout",
        "dense_2",
    ]
    assert Dense(1, name="mine").name == "mine"
    assert Dense(1).name == "dense_3"  # a name of one's own is not counted
    naming.reset_names()
    assert Dense(1).name == "dense"


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("Dense", "dense"),
        ("BinaryCrossentropy", "binary_crossentropy"),
        ("L1L2", "l1l2"),
        ("InputLayer", "input_layer"),
    ],
)
def test_snake_case(class_name, name):
    assert naming.to_snake_case(class_name) == name


def test_unknown_names_hint_at_the_nearest():
    assert naming.unknown_name("colour", "gren", ["green", "blue"]) == (
        "Unknown colour: 'gren'. Did you mean 'green'? Known: blue, green."
    )
    assert naming.unknown_name("colour", "xyz", ["red", "green"]) == "Unknown colour: 'xyz'. Known: green, red."


def test_input():
    for made in (Input((4,)), Input(shape=(4,)), Input(batch_shape=(None, 4)), Input(shape=[4])):
        assert isinstance(made, InputLayer)
        assert (made.shape, made.output_shape, made.built) == ((None, 4), (None, 4), True)
    assert Input((4,), name="mine").name == "mine"


def test_repr():
    layer = Dense(1)
    assert repr(layer) == "<Dense name=dense, built=False>"
    layer.build((None, 2))
    assert repr(layer) == "<Dense name=dense, built=True>"
