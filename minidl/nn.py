"""Activation functions under TensorFlow's names, so that `import minidl as tf` serves `tf.nn.relu`."""

import dataclasses

from minidl import activations
from minidl.activations import (
    elu,
    gelu,
    log_softmax,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    softsign,
    swish,
    tanh,
)

__all__ = [
    "elu",
    "gelu",
    "leaky_relu",
    "log_softmax",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]

leaky_relu = dataclasses.replace(activations.leaky_relu, renamed=(("alpha", "negative_slope"),))  # TensorFlow's name
