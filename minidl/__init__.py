"""minidl: the small multilayer perceptron in plain array code, with Keras's names and Keras's numbers.

Stands in for TensorFlow (`import minidl as tf`: tf.nn, tf.keras) and for Keras (`import minidl as keras`).

A module here is imported when it is first asked for (PEP 562): `import minidl` itself costs next to nothing.
"""

import importlib
import os
import sys

if "numpy" not in sys.modules:  # whose OpenBLAS reads it when it is loaded: see threads.py
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "21")

__version__ = "0.1.0"

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
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
    "keras",
    "layers",
    "losses",
    "metrics",
    "models",
    "nn",
    "ops",
    "optimizers",
    "random",
    "regularizers",
    "saving",
    "utils",
    "wrappers",
]

# Of the classes here the module that each is from.
_HOMES = {
    "Initializer": "initializers",
    "Input": "layers",
    "Layer": "layers",
    "Loss": "losses",
    "Metric": "metrics",
    "Model": "models",
    "Optimizer": "optimizers",
    "Regularizer": "regularizers",
    "Sequential": "models",
}


def __getattr__(name: str) -> object:
    """A name of __all__, at first use."""
    if name not in __all__:
        raise AttributeError(f"module 'minidl' has no attribute {name!r}")
    module = importlib.import_module(f"minidl.{_HOMES.get(name, name)}")
    value = globals()[name] = getattr(module, name) if name in _HOMES else module
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
