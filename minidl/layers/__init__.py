"""Layers: each owns its parameters, keeps what its backward needs, and leaves its gradients in `grads`."""

from typing import Any

from minidl import serialization
from minidl.layers.base import Chain, Layer, Shape, batch_shape, sample_shape
from minidl.layers.core import Dense, Input, InputLayer
from minidl.layers.regularization import Dropout

__all__ = [
    "Chain",
    "Dense",
    "Dropout",
    "Input",
    "InputLayer",
    "Layer",
    "Shape",
    "batch_shape",
    "deserialize",
    "sample_shape",
    "serialize",
]

_CLASSES: dict[str, type[Layer]] = {cls.__name__: cls for cls in (Dense, Dropout, InputLayer)}


def serialize(layer: Layer) -> dict[str, Any]:
    """The layer as Keras's dict: its class, its arguments, and the shape it was built for; without the weights."""
    return serialization.serialize(layer, "keras.layers")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """The layer of a serialize(), Keras's too, not built; custom_objects: class name -> class of your own ones.

    Errors: ValueError for an unknown class, with the nearest names, or another form of config.
    """
    return serialization.deserialize("layer", config, _CLASSES, custom_objects)
