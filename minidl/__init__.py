"""minidl: the small multilayer perceptron in plain array code, with Keras's names and Keras's numbers.

Stands in for TensorFlow (`import minidl as tf`: tf.nn, tf.keras) and for Keras (`import minidl as keras`).
"""

__version__ = "0.1.0"

from minidl import (
    activations,
    backend,
    callbacks,
    config,
    constraints,
    datasets,
    initializers,
    keras,
    layers,
    losses,
    metrics,
    models,
    nn,
    optimizers,
    random,
    regularizers,
    saving,
    utils,
    wrappers,
)
from minidl.initializers import Initializer
from minidl.layers import Input, Layer
from minidl.losses import Loss
from minidl.metrics import Metric
from minidl.models import Model, Sequential
from minidl.optimizers import Optimizer
from minidl.regularizers import Regularizer

__all__ = [
    "Initializer",
    "Input",
    "Layer",
    "Loss",
    "Metric",
    "Model",
    "Optimizer",
    "Regularizer",
    "Sequential",
    "activations",
    "backend",
    "callbacks",
    "config",
    "constraints",
    "datasets",
    "initializers",
    "keras",
    "layers",
    "losses",
    "metrics",
    "models",
    "nn",
    "optimizers",
    "random",
    "regularizers",
    "saving",
    "utils",
    "wrappers",
]
