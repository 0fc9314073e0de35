"""Models as a whole against live Keras: frozen layers, models in models, chains, penalties on outputs, any rank.

The same weights in, the same batches, five compiled steps of train_on_batch, in float64. What is compared agrees to
1e-12 of the tensor's largest element: 1e4 times float64's rounding, which a hundred sums over some tens of terms may
reach, and a thousandth of what float32's rounding anywhere would show.
"""

import numpy as np
import pytest

import minidl
from minidl import config

pytestmark = pytest.mark.keras
STEPS = 5


def frozen(k):
    """The penalty of a frozen layer is not added; the gradient flows through it."""
    return k.Sequential(
        [
            k.layers.Input((4,)),
            k.layers.Dense(5, activation="tanh", kernel_regularizer="l2"),
            k.layers.Dense(5, activation="tanh", kernel_regularizer="l2", trainable=False),
            k.layers.Dense(2),
        ]
    )


def frozen_later(k):
    model = k.Sequential([k.layers.Input((4,)), k.layers.Dense(5, activation="tanh"), k.layers.Dense(2)])
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((3, 4)), np.ones((3, 2)))
    model.layers[0].trainable = False
    return model


def thawed(k):
    model = k.Sequential([k.layers.Input((4,)), k.layers.Dense(5, activation="tanh"), k.layers.Dense(2)])
    model.trainable = False
    model.trainable = True
    model.layers[1].trainable = False
    model.layers[1].trainable = True
    return model


def nested(k):
    inner = k.Sequential(
        [k.layers.Input((5,)), k.layers.Dense(3, activation="relu", kernel_regularizer="l1"), k.layers.Dense(4)],
        name="inner",
    )
    return k.Sequential([k.layers.Input((4,)), k.layers.Dense(5, activation="tanh"), inner, k.layers.Dense(2)])


def nested_frozen(k):
    model = nested(k)
    model.get_layer("inner").trainable = False
    return model


def chain(k):
    inputs = k.Input(shape=(4,))
    hidden = k.layers.Dense(5, activation="tanh")(inputs)
    return k.Model(inputs=inputs, outputs=k.layers.Dense(2)(hidden))


def features(k):
    whole = k.Sequential(
        [k.layers.Input((4,)), k.layers.Dense(5, activation="tanh"), k.layers.Dense(2), k.layers.Dense(7)]
    )
    return k.Model(whole.inputs, whole.layers[1].output)


def activity(k):
    """Divided by the batch's size; of a layer within, and of an output that is not recovered to logits."""
    return k.Sequential(
        [
            k.layers.Input((4,)),
            k.layers.Dense(5, activation="tanh", activity_regularizer="l2", bias_regularizer="l1"),
            k.layers.Dense(2, activity_regularizer=k.regularizers.L1L2(0.1, 0.2)),
        ]
    )


def activity_of_a_sigmoid(k):
    """The loss enters below the activation, the penalty above it."""
    return k.Sequential(
        [
            k.layers.Input((4,)),
            k.layers.Dense(5, activation="relu"),
            k.layers.Dense(2, "sigmoid", activity_regularizer="l2"),
        ]
    )


def activity_frozen(k):
    return k.Sequential(
        [k.layers.Input((4,)), k.layers.Dense(5), k.layers.Dense(2, activity_regularizer="l2", trainable=False)]
    )


MODELS = [
    frozen, frozen_later, thawed, nested, nested_frozen, chain, features, activity, activity_of_a_sigmoid,
    activity_frozen,
]  # fmt: skip
SHAPES = {"rank 2": (6,), "rank 3": (6, 3), "rank 4": (6, 2, 3)}


@pytest.fixture
def in_float64(keras):
    keras.config.set_floatx("float64")
    config.set_floatx("float64")
    yield keras
    keras.config.set_floatx("float32")


def close(name, ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, f"{name}: {ours.shape} {ours.dtype}"
    if ours.size == 0:
        return
    assert np.isfinite(theirs).all() and np.isfinite(ours).all(), name
    error = np.abs(ours - theirs).max()
    assert error <= 1e-12 * np.abs(theirs).max(), f"{name}: off by {error:.2g}"


def compare(keras, build, data, compile_arguments):
    keras.utils.clear_session(free_memory=False)
    theirs, ours = build(keras), build(minidl)
    ours.set_weights(theirs.get_weights())
    x, y = data
    for model in (theirs, ours):
        model.compile(**compile_arguments)
    for step in range(STEPS):
        expected = theirs.train_on_batch(x[step], y[step], return_dict=True)
        got = ours.train_on_batch(x[step], y[step], return_dict=True)
        assert got.keys() == expected.keys()
        for name in got:
            close(f"step {step}, {name}", np.float64(got[name]), np.float64(expected[name]))
        for weight, their in zip(ours.weights, theirs.weights, strict=True):
            close(f"step {step}, {weight.path}", weight, their.numpy())
    for name, (a, b) in {
        "losses": (ours.losses, theirs.losses),
        "evaluate": (ours.evaluate(x[0], y[0], verbose=0), theirs.evaluate(x[0], y[0], verbose=0)),
        "predict": (ours.predict(x[0], verbose=0), theirs.predict(x[0], verbose=0)),
    }.items():
        if name != "losses" or not any(layer.activity_regularizer for layer in ours.layers):
            close(name, np.array(a, np.float64), np.array([np.float64(v) for v in b]))
    assert [w.path.split("/")[-2:] for w in ours.trainable_weights] == [
        w.path.split("/")[-2:] for w in theirs.trainable_weights
    ]
    assert ours.count_params() == theirs.count_params()


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_trains_as_in_keras(in_float64, rng, build):
    data = rng.normal(size=(STEPS, 6, 4)), rng.random((STEPS, 6, 2))
    loss = "binary_crossentropy" if build is activity_of_a_sigmoid else "mse"
    compare(in_float64, build, data, {"optimizer": "adam", "loss": loss, "metrics": ["mae"]})


@pytest.mark.parametrize("loss", ["mse", "binary_crossentropy", "categorical_crossentropy"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_inputs_of_any_rank(in_float64, rng, shape, loss):
    end = {"mse": "linear", "binary_crossentropy": "sigmoid", "categorical_crossentropy": "softmax"}[loss]

    def build(k):
        layers = k.layers
        sample = (*SHAPES[shape][1:], 4)
        return k.Sequential([layers.Input(sample), layers.Dense(5, activation="tanh"), layers.Dense(3, activation=end)])

    x, y = rng.normal(size=(STEPS, *SHAPES[shape], 4)), rng.random((STEPS, *SHAPES[shape], 3))
    y /= y.sum(axis=-1, keepdims=True)
    compare(in_float64, build, (x, y), {"optimizer": "sgd", "loss": loss, "metrics": ["mse"]})
