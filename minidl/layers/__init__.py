"""Layers: each owns its parameters, keeps what its backward needs, and leaves its gradients in `grads`."""

from __future__ import annotations

from typing import Any

from minidl import serialization
from minidl.layers.activation import ELU, Activation, LeakyReLU, PReLU, ReLU, Softmax
from minidl.layers.base import Chain, Layer, Shape, batch_shape, sample_shape
from minidl.layers.core import Dense, Input, InputLayer
from minidl.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    LayerNormalization,
    RMSNormalization,
    UnitNormalization,
)
from minidl.layers.preprocessing import Normalization, Rescaling
from minidl.layers.regularization import (
    ActivityRegularization,
    AlphaDropout,
    Dropout,
    GaussianDropout,
    GaussianNoise,
)
from minidl.layers.reshaping import Flatten, Identity, Reshape

__all__ = [
    "ELU",
    "Activation",
    "ActivityRegularization",
    "AlphaDropout",
    "BatchNormalization",
    "Chain",
    "Dense",
    "Dropout",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "GroupNormalization",
    "Identity",
    "Input",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "Normalization",
    "PReLU",
    "RMSNormalization",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Shape",
    "Softmax",
    "UnitNormalization",
    "batch_shape",
    "deserialize",
    "sample_shape",
    "serialize",
]

# Class name -> (class, the module that Keras has it in): what deserialize makes. Models add themselves: see register.
_CLASSES: dict[str, tuple[type[Layer], str]] = {}


def register(cls: type[Layer], module: str = "keras.layers") -> None:
    """Let deserialize make layers of a class. module: where Keras has it."""
    _CLASSES[cls.__name__] = cls, module


for _name in __all__:
    _found = globals().get(_name)
    if isinstance(_found, type) and issubclass(_found, Layer) and _found is not Layer:
        register(_found)


def serialize(layer: Layer) -> dict[str, Any]:
    """The layer as Keras's dict: its class, its arguments, and the shape that it was built for; not its weights."""
    _, module = _CLASSES.get(type(layer).__name__, (None, ""))
    found = serialization.serialize(layer, module)
    build_config = layer.get_build_config()
    if build_config is not None:
        found["build_config"] = build_config
    return found


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """The layer of a serialize(), Keras's too, built if that was; custom_objects: class name -> class of your own.

    Errors: ValueError for another dict or an unknown class, with the nearest names.
    """
    classes = {name: cls for name, (cls, _) in _CLASSES.items()}
    layer = serialization.deserialize("layer", config, classes, custom_objects)
    shape = (config.get("build_config") or {}).get("input_shape")
    if shape and not layer.built:
        layer.build(batch_shape(layer.name, shape))
    return layer
