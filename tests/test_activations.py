"""activations.py: what each identifier resolves to."""

import types

import numpy as np
import pytest
from helpers import assert_same

import minidl
from minidl import activations, config, ops

NAMES = ["linear", "relu", "sigmoid", "tanh", "softmax"]


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
    with pytest.raises(ValueError, match=r"Unknown activation: .*gelu.* linear, relu, sigmoid, tanh, softmax"):
        activations.get(function_of("tensorflow.python.ops.nn_ops", "gelu"))


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
    for name in ("relu", "sigmoid", "softmax", "tanh"):
        assert getattr(minidl.nn, name) is getattr(activations, name)
