"""Layers: each owns its parameters, keeps what its backward needs, and leaves its gradients in `grads`."""

from minidl.layers.base import Chain, Layer, Shape, batch_shape, sample_shape
from minidl.layers.core import Dense, Input, InputLayer
from minidl.layers.regularization import Dropout

__all__ = ["Chain", "Dense", "Dropout", "Input", "InputLayer", "Layer", "Shape", "batch_shape", "sample_shape"]
