"""variables.py: weights and numbers with the manners of Keras's variables."""

import numpy as np
import pytest
from helpers import assert_same

from minidl import optimizers
from minidl.layers import Dense, Dropout, Input
from minidl.models import Sequential


def model():
    return Sequential([Input((4,)), Dense(3), Sequential([Input((3,)), Dense(2, name="last")], name="inner")])


def test_paths_and_names():
    found = model()
    paths = ["sequential/dense/kernel", "sequential/dense/bias", "inner/last/kernel", "inner/last/bias"]
    assert [weight.path for weight in found.weights] == paths
    assert [weight.name for weight in found.weights] == ["kernel", "bias"] * 2
    layer = Dense(2)
    layer.build((None, 4))
    assert layer.kernel.path == "dense_1/kernel"
    assert Dropout(0.5).variables[0].path == "seed_generator/seed_generator_state"
    found.layers[0].trainable = False
    assert [weight.trainable for weight in found.weights] == [False, False, True, True]


def test_assigning_changes_the_layer():
    found = model()
    kernel = found.layers[0].kernel
    kernel.assign(np.ones((4, 3)))
    kernel.assign_add(2)
    kernel.assign_sub([[1, 0, 0]])
    assert_same(found.get_weights()[0], np.tile(np.array([2, 3, 3], np.float32), (4, 1)))
    assert np.shares_memory(kernel, found.arena.theta)
    assert kernel.value is kernel
    with pytest.raises(ValueError, match=r"sequential/dense/kernel: the weight has shape \(4, 3\); got \(3,\)"):
        kernel.assign([1, 2, 3])


def test_what_is_computed_from_a_weight_is_a_plain_array():
    kernel = model().layers[0].kernel
    for result in (kernel * 2, kernel.numpy(), np.matmul(np.ones((2, 4)), kernel), np.array(kernel)):
        assert type(result) is np.ndarray
    assert np.isscalar(kernel.sum()) and np.isscalar(np.linalg.norm(kernel))
    assert not np.shares_memory(kernel.numpy(), kernel)


def test_an_optimizer_s_numbers():
    adam = optimizers.Adam(0.1)
    assert adam.learning_rate == np.float32(0.1) and adam.learning_rate.numpy() == np.float32(0.1)
    adam.learning_rate.assign(0.5)
    assert (adam.learning_rate, adam.iterations, adam.iterations.numpy()) == (0.5, 0, 0)
    with pytest.raises(ValueError, match="learning_rate must be finite and at least 0"):
        adam.learning_rate.assign(-1)


@pytest.mark.keras
def test_paths_are_keras_s(keras):
    def build(library):
        layers = library.layers
        inner = library.Sequential([layers.Input((3,)), layers.Dense(2, name="last")], name="inner")
        return library.Sequential([layers.Input((4,)), layers.Dense(3), layers.Dropout(0.5), inner], name="outer")

    import minidl

    keras.utils.clear_session(free_memory=False)
    theirs, ours = build(keras), build(minidl)
    for names in ("weights", "trainable_weights", "variables", "non_trainable_variables"):
        assert [v.path for v in getattr(ours, names)] == [v.path for v in getattr(theirs, names)]
