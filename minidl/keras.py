"""Keras's namespace: `from minidl import keras` in place of `from tensorflow import keras`.

Every module here is minidl's own of that name; `from minidl.keras.layers import Dense` works too.
"""

import sys

from minidl import (
    activations,
    backend,
    callbacks,
    config,
    constraints,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
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
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "random",
    "regularizers",
    "saving",
    "utils",
    "wrappers",
]

# `import minidl.keras.layers` must find minidl.layers itself, not load a second copy of its classes.
__path__: list[str] = []
for _name in __all__:
    if _name.islower():
        sys.modules[f"{__name__}.{_name}"] = globals()[_name]
sys.modules[f"{__name__}.optimizers.schedules"] = optimizers.schedules
