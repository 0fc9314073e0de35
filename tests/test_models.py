"""models.py: the stack of layers, building, the arena's views, weights, and the names it is imported by."""

import gc

import numpy as np
import pytest
from helpers import assert_same

import minidl
from minidl import config, losses, metrics, optimizers
from minidl.layers import Dense, Dropout, Input
from minidl.models import Functional, Model, Sequential

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)


def three_layers():
    return Sequential([Input((4,)), Dense(5, activation="relu"), Dropout(0.5), Dense(2)])


# Building ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda: Sequential([Input((4,)), Dense(5), Dense(2)]),
        lambda: Sequential([Dense(5, input_shape=(4,)), Dense(2)]),
        lambda: Sequential([Dense(5, input_dim=4), Dense(2)]),
        lambda: Sequential((Input(batch_shape=(None, 4)), Dense(5), Dense(2))),
    ],
)
def test_built_at_once_where_the_input_is_known(build):
    model = build()
    assert model.built
    assert [w.shape for w in model.get_weights()] == [(4, 5), (5,), (5, 2), (2,)]
    assert (model.input_shape, model.output_shape, model.count_params()) == ((None, 4), (None, 2), 37)
    assert len(model.layers) == 2  # the Input is none of them


@pytest.mark.parametrize("how", ["build", "call", "predict", "fit"])
def test_built_later(how):
    model = Sequential([Dense(5), Dense(1)])
    assert not model.built
    assert model.get_weights() == []
    if how == "build":
        model.build((None, 4))
    elif how == "fit":
        model.compile("adam", "bce")
        model.fit(X, np.ones(6), verbose=0)
    else:
        {"call": model, "predict": lambda x: model.predict(x, verbose=0)}[how](X)
    assert (model.built, model.input_shape, model.count_params()) == (True, (None, 4), 31)
    model.build((None, 4))  # again, for the same width: nothing happens to the weights


def test_building_twice_keeps_the_weights():
    model = three_layers()
    before = model.get_weights()
    model.build((None, 4))
    for got, expected in zip(model.get_weights(), before, strict=True):
        assert_same(got, expected)


def test_layers_share_one_arena():
    model = three_layers()
    arena = model.arena
    assert [(s.layer, s.name) for s in arena.segments] == [
        ("dense", "kernel"),
        ("dense", "bias"),
        ("dense_1", "kernel"),
        ("dense_1", "bias"),
    ]
    assert_same(arena.theta, np.concatenate([w.ravel() for w in model.get_weights()]))
    first, _, last = model.layers
    first.kernel[1, 2] = 42
    assert arena.theta[1 * 5 + 2] == 42
    arena.theta[-1] = -7
    assert last.bias[1] == -7
    arena.grads[:] = np.arange(arena.size)
    assert_same(last.grads["bias"], np.array([35, 36], np.float32))


def test_add_keeps_the_weights_of_the_other_layers():
    model = Sequential([Input((4,))])
    assert not model.built
    model.add(Dense(5))
    kernel = model.layers[0].kernel.copy()
    model.add(Dense(2))
    assert_same(model.layers[0].kernel, kernel)
    assert np.shares_memory(model.layers[0].kernel, model.arena.theta)
    assert (model.count_params(), model.output_shape) == (37, (None, 2))


def test_pop_keeps_the_weights_of_the_other_layers():
    model = three_layers()
    weights, theta = model.get_weights(), model.arena.theta
    popped = model.pop()
    assert popped.name == "dense_1"
    assert_same(popped.kernel, weights[2])
    assert not np.shares_memory(popped.kernel, theta)
    assert (model.count_params(), model.output_shape, len(model.layers)) == (25, (None, 5), 2)
    for got, expected in zip(model.get_weights(), weights[:2], strict=True):
        assert_same(got, expected)
    Sequential([Input((5,)), popped])  # it is free for another model
    model.pop()
    model.pop()
    with pytest.raises(ValueError, match="there is no layer to pop"):
        model.pop()


@pytest.mark.parametrize("wrong", [Dense(2, dtype="float64"), Dense(2, name="dense"), "Dense"])
def test_an_add_that_fails_changes_nothing(wrong):
    model = Sequential([Input((4,)), Dense(3, name="dense")])
    before, arena = model.get_weights(), model.arena
    with pytest.raises((TypeError, ValueError)):
        model.add(wrong)
    assert model.arena is arena
    assert len(model.layers) == 1
    assert_same(model.get_weights()[0], before[0])
    model.predict(X, verbose=0)


def test_a_layer_that_could_not_be_added_is_free():
    layer = Dense(2)
    layer.build((None, 7))
    model = Sequential([Input((4,)), Dense(3)])
    with pytest.raises(ValueError, match=r"dense: built for 7 features; got inputs of shape \(None, 3\)"):
        model.add(layer)
    Sequential([Input((7,)), layer])


def test_a_dropout_takes_the_shape_of_its_present_model():
    model = three_layers()
    model.pop()
    dropout = model.pop()
    other = Sequential([Input((4,)), Dense(3), dropout])
    assert (dropout.output_shape, other.output_shape) == ((None, 3), (None, 3))


def test_a_layer_is_free_when_its_model_is_gone():
    layer = Dense(1)
    model = Sequential([Input((4,)), layer])
    del model
    gc.collect()
    Sequential([Input((4,)), layer])


def test_get_layer():
    model = three_layers()
    assert model.get_layer("dropout") is model.layers[1]
    assert model.get_layer(index=0) is model.layers[0]
    assert model.get_layer(index=-1) is model.layers[2]
    for arguments in ({"name": "dense_7"}, {"index": 3}, {"index": -4}, {}, {"name": "dense", "index": 0}):
        with pytest.raises(ValueError, match="get_layer: "):
            model.get_layer(**arguments)
    with pytest.raises(ValueError, match=r"no layer named 'dense_7'; there are \['dense', 'dropout', 'dense_1'\]"):
        model.get_layer("dense_7")


def test_names_and_repr():
    assert [Sequential().name, Sequential().name, Sequential(name="mine").name] == [
        "sequential",
        "sequential_1",
        "mine",
    ]
    assert repr(Sequential([Dense(1)])) == "<Sequential name=sequential_2, layers=1, built=False>"


# Weights -------------------------------------------------------------------------------------------------


def test_get_weights_are_copies_and_weights_are_not():
    model = three_layers()
    model.get_weights()[0][...] = 42
    assert not (model.arena.theta == 42).any()
    model.weights[0][...] = 42
    assert (model.arena.theta[:20] == 42).all()
    assert model.trainable_weights[0] is model.weights[0]


def test_set_weights(rng):
    model = three_layers()
    weights = [rng.normal(size=w.shape) for w in model.weights]
    model.set_weights(weights)
    assert_same(model.arena.theta, np.concatenate([w.ravel() for w in weights]).astype(np.float32))


def test_set_weights_to_its_own_in_another_order():
    model = Sequential([Input((4,)), Dense(4), Dense(4)])
    first, bias, second, bias_1 = model.get_weights()
    views = model.weights
    model.set_weights([views[2], views[1], views[0], views[3]])
    for got, expected in zip(model.get_weights(), [second, bias, first, bias_1], strict=True):
        assert_same(got, expected)


def test_losses_are_the_penalties():
    model = Sequential([Input((4,)), Dense(3, kernel_regularizer="l1"), Dense(1, bias_regularizer="l2")])
    first, second = model.losses
    assert_same(first, np.float32(0.01) * np.abs(model.layers[0].kernel).sum())
    assert_same(second, np.float32(0))


# Outputs -------------------------------------------------------------------------------------------------


def test_predict_is_the_forward_pass_of_every_batch(rng):
    model = three_layers()
    x = rng.normal(size=(11, 4)).astype(np.float32)
    first, _, last = model.get_weights()[0:2], None, model.get_weights()[2:4]

    def forward(rows):
        return np.maximum(rows @ first[0] + first[1], 0) @ last[0] + last[1]

    expected = np.concatenate([forward(x[i : i + 4]) for i in range(0, 11, 4)])
    assert_same(model.predict(x, batch_size=4, verbose=0), expected)
    assert_same(model.predict_on_batch(x), forward(x))
    assert_same(model(x), forward(x))
    assert_same(model.predict(x.astype(float).tolist(), batch_size=4, verbose=0), expected)


def test_predict_s_default_batch_size_is_32(monkeypatch, rng):
    model, sizes = three_layers(), []
    forward = model.layers[0].forward
    model.layers[0].forward = lambda x, training: (sizes.append(len(x)), forward(x))[1]
    model.predict(rng.normal(size=(70, 4)), verbose=0)
    assert sizes == [32, 32, 6]


def test_call_in_training_drops():
    model = three_layers()
    model(X, training=True)
    assert model.layers[1].mask.shape == (6, 5)
    model(X)
    assert model.layers[1].mask is None


# Compile -------------------------------------------------------------------------------------------------


def test_compile_resolves_its_arguments():
    model = three_layers()
    assert not model.compiled
    adam, loss = optimizers.Adam(0.1), losses.BinaryCrossentropy(from_logits=True)
    model.compile(adam, loss, metrics=["binary_accuracy"], run_eagerly=True, jit_compile=False)
    assert model.compiled
    assert (model.optimizer, model.loss) == (adam, loss)
    assert [m.name for m in model.metrics] == ["loss", "binary_accuracy"]
    assert type(model.metrics[1]) is metrics.BinaryAccuracy


def test_a_compile_that_fails_changes_nothing():
    model = three_layers()
    model.compile("adam", "bce", metrics=["binary_accuracy"])
    optimizer, loss, names = model.optimizer, model.loss, [m.name for m in model.metrics]
    for wrong in (
        {"optimizer": "rmspro", "loss": "bce"},
        {"optimizer": "adam", "loss": "bce", "jit_compile": "yes"},
        {"optimizer": "adam", "loss": "bce", "steps_per_execution": 0},
        {"optimizer": "adam", "loss": "mze"},
        {"optimizer": "adam", "loss": "bce", "metrics": ["area"]},
        {"optimizer": "adam", "loss": "bce", "weighted_metrics": "mae"},
        {"optimizer": "adam", "loss": "bce", "loss_weights": [1, 2]},
    ):
        with pytest.raises((ValueError, NotImplementedError)):
            model.compile(**wrong)
    assert (model.optimizer, model.loss, [m.name for m in model.metrics]) == (optimizer, loss, names)


def test_the_shape_of_the_data_is_known_before_that_of_the_metrics():
    model = Sequential([Dense(1, activation="sigmoid")])
    model.compile("adam", "bce", metrics=["accuracy"])
    assert list(model.fit(X, np.ones(6), verbose=0).history) == ["accuracy", "loss"]


# Names to import by --------------------------------------------------------------------------------------


def test_stands_in_for_tensorflow_and_keras():
    import minidl.keras.layers as keras_layers
    from minidl.keras.layers import Dense as KerasDense

    import minidl as tf
    from minidl import keras

    assert keras_layers is minidl.layers
    assert KerasDense is Dense is tf.keras.layers.Dense is keras.layers.Dense
    assert keras.Sequential is keras.models.Sequential is tf.Sequential is Sequential
    assert keras.Input is keras.layers.Input is Input
    assert keras.backend is minidl.backend
    assert keras.backend.floatx() == config.floatx()
    assert keras.regularizers.l1 is minidl.regularizers.L1
    model = keras.Sequential([keras.layers.Dense(2, activation=tf.nn.relu, input_shape=(4,))])
    assert model.layers[0].activation is minidl.activations.relu


@pytest.mark.parametrize("name", [n for n in minidl.keras.__all__ if n.islower()])
def test_every_module_of_keras_s_is_minidl_s_own(name):
    __import__(f"minidl.keras.{name}")
    assert getattr(minidl.keras, name) is getattr(minidl, name)


def test_set_dtype_goes_on_with_the_same_weights():
    model = three_layers()
    before = model.get_weights()
    model.set_dtype("float64")
    for old, new in zip(before, model.get_weights(), strict=True):
        assert new.dtype == np.float64
        np.testing.assert_array_equal(old, new)
    assert model.arena.dtype == "float64" and model.predict(X, verbose=0).dtype == np.float64
    model.compile("adam", "bce")
    model.fit(X, np.ones((6, 2)), verbose=0)
    with pytest.raises(ValueError, match="set the dtype before training"):
        model.set_dtype("float32")


# Layers in several models, frozen layers, models in models ------------------------------------------------


def trained(model, x, y, steps=3):
    model.compile("sgd", "mse")
    for _ in range(steps):
        model.train_on_batch(x, y)
    return model


def test_a_layer_in_two_models_learns_in_both(rng):
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    shared = Dense(3)
    first = Sequential([Input((4,)), shared, Dense(2)])
    second = Sequential([Input((4,)), shared, Dense(2)])
    for model in (first, second):
        before = shared.kernel.copy()
        trained(model, x, y)
        assert np.abs(shared.kernel - before).min() > 0
        assert np.shares_memory(shared.kernel, model.arena.theta)
        assert_same(first.weights[0], second.weights[0])
    before = shared.kernel.copy()
    first.train_on_batch(x, y)  # goes on with its own optimizer, from what the second made of the layer
    assert np.abs(shared.kernel - before).min() > 0
    assert_same(second.predict(x, verbose=0), second.layers[1](shared(x)))


def test_a_frozen_layer_is_not_updated_but_passes_the_gradient_on(rng):
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    model = Sequential([Input((4,)), Dense(3), Dense(3, kernel_regularizer="l2", trainable=False), Dense(2)])
    before = model.get_weights()
    assert [w.shape for w in model.trainable_weights] == [(4, 3), (3,), (3, 2), (2,)]
    assert [w.shape for w in model.non_trainable_weights] == [(3, 3), (3,)]
    assert model.losses == []  # its penalty is not added, as in Keras
    trained(model, x, y)
    changed = [bool((a != b).any()) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [True, True, False, False, True, True]
    model.layers[1].trainable = True
    assert len(model.losses) == 1
    model.compile("sgd", "mse")
    model.train_on_batch(x, y)
    assert (model.layers[1].kernel != before[2]).all()


def test_freezing_counts_from_compile_on(rng):
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    model = trained(Sequential([Input((4,)), Dense(3), Dense(2)]), x, y)
    model.layers[0].trainable = False
    before = model.layers[0].kernel.copy()
    model.compile("sgd", "mse")
    model.train_on_batch(x, y)
    assert_same(model.layers[0].kernel, before)
    assert model.arena.size == 8


def test_a_model_in_a_model_is_its_layers(rng):
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    flat = Sequential([Input((4,)), Dense(3, activation="relu"), Dense(5), Dense(2)])
    inner = Sequential([Input((3,)), Dense(5)])
    nested = Sequential([Input((4,)), Dense(3, activation="relu"), inner, Dense(2)])
    nested.set_weights(flat.get_weights())
    for model in (flat, nested):
        trained(model, x, y)
    for a, b in zip(flat.get_weights(), nested.get_weights(), strict=True):
        assert_same(a, b)
    assert [layer.name for layer in nested.layers] == ["dense_4", "sequential_1", "dense_5"]
    assert_same(inner.predict(x[:, :3], verbose=0), inner.layers[0](x[:, :3]))
    inner.trainable = False
    assert len(nested.trainable_weights) == 4


def test_a_chain_of_layers_is_the_sequential_of_them(rng):
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    inputs = Input((4,), name="measurements")
    hidden = Dense(3, activation="relu")(inputs)
    assert hidden.shape == (None, 3)
    chain = Model(inputs=inputs, outputs=Dense(2)(hidden), name="chain")
    assert isinstance(chain, Functional) and isinstance(chain, Model) and isinstance(Sequential(), Model)
    flat = Sequential([Input((4,)), Dense(3, activation="relu"), Dense(2)])
    flat.set_weights(chain.get_weights())
    for model in (flat, chain):
        trained(model, x, y)
    for a, b in zip(flat.get_weights(), chain.get_weights(), strict=True):
        assert_same(a, b)
    assert [layer.name for layer in chain.layers] == ["measurements", "dense", "dense_1"]
    assert (chain.input_shape, chain.output_shape, chain.count_params()) == ((None, 4), (None, 2), 23)
    assert Model([inputs], [hidden]).name == "functional"


def test_two_models_over_one_chain_share_its_layers(rng):
    """An encoder within an autoencoder: what the whole learns, the part has learned."""
    x = rng.normal(size=(6, 4))
    inputs = Input((4,))
    code = Dense(2)(inputs)
    encoder, whole = Model(inputs, code), Model(inputs, Dense(4)(code))
    before = encoder.predict(x, verbose=0)
    trained(whole, x, x)
    after = encoder.predict(x, verbose=0)
    assert np.abs(after - before).min() > 0
    assert_same(after, whole.layers[1](x))


def test_a_model_up_to_one_of_the_layers(rng):
    """The features of a trained network: Model(model.inputs, model.layers[1].output)."""
    x = rng.normal(size=(6, 4))
    model = trained(Sequential([Dense(3, activation="relu"), Dense(2, name="code"), Dense(4)]), x, x)
    features = Model(model.inputs, model.get_layer("code").output)
    assert_same(features.predict(x, verbose=0), model.layers[1](model.layers[0](x)))
    assert (model.output.shape, model.layers[1].input.shape) == ((None, 4), (None, 3))
    with pytest.raises(ValueError, match="dense_2: a layer has an output once it is in a built model"):
        Dense(2).output  # noqa: B018
