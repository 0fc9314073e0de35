"""Activations by name, as Keras resolves them: a string, one of these functions, or a framework's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import config, ops
from minidl.backend import Array
from minidl.naming import unknown_name


@dataclass(frozen=True)
class Activation:
    """A function of ops.py with its backward. Called, it is the function; a list is made an array first."""

    name: str
    forward: Callable[..., Array]
    backward: Callable[..., Array]  # of (d_outputs, outputs), or where needs_inputs of (d_outputs, inputs)
    needs_inputs: bool = False

    def gradient(self, d_outputs: Array, inputs: Array, outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs), for outputs = forward(inputs)."""
        return self.backward(d_outputs, inputs if self.needs_inputs else outputs)

    def __call__(self, x: Any) -> Array:
        return self.forward(x if hasattr(x, "dtype") else np.asarray(x, config.floatx()))

    @property
    def __name__(self) -> str:
        return self.name


linear = Activation("linear", ops.linear, ops.linear_backward)
relu = Activation("relu", ops.relu, ops.relu_backward)
sigmoid = Activation("sigmoid", ops.sigmoid, ops.sigmoid_backward)
tanh = Activation("tanh", ops.tanh, ops.tanh_backward)
softmax = Activation("softmax", ops.softmax, ops.softmax_backward)

_BY_NAME = {a.name: a for a in (linear, relu, sigmoid, tanh, softmax)}
_FRAMEWORKS = ("tensorflow", "keras", "jax", "torch", "minidl")


def serialize(activation: Activation) -> str:
    """The activation as Keras writes it into JSON: its name."""
    return activation.name


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Activation:
    """The activation of a serialize(), Keras's too."""
    return get(config)


def get(identifier: Any) -> Activation:
    """The activation for None (linear), a name, an Activation, or a framework's function such as tf.nn.relu.

    A function is known by its name, and only if a framework made it: somebody's own function called relu need
    not be one, and has no backward here.
    Errors: ValueError for an unknown name (with the nearest ones) or another function.
    """
    if identifier is None:
        return linear
    if isinstance(identifier, Activation):
        return identifier
    if isinstance(identifier, str):
        if identifier not in _BY_NAME:
            raise ValueError(unknown_name("activation", identifier, _BY_NAME))
        return _BY_NAME[identifier]
    name = getattr(identifier, "__name__", type(identifier).__name__).removesuffix("_v2")
    library = (getattr(identifier, "__module__", None) or "").split(".")[0]
    if name in _BY_NAME and library in _FRAMEWORKS:
        return _BY_NAME[name]
    raise ValueError(
        f"Unknown activation: {identifier!r}. Pass one of the names {', '.join(_BY_NAME)}, or a framework's "
        f"function of that name, such as tf.nn.relu; a function of your own has no backward known here."
    )
