"""L1 and L2 penalties on weights, as Keras names them; the formulas are in ops.py.

Keras on TensorFlow rounds the factors to float32 before use, for float64 models too: a factor of 0.1 means
0.10000000149…; so does minidl (keras.ops.cast of a Python float makes a float32 tensor first).
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from minidl import ops, serialization
from minidl.backend import Array
from minidl.checks import finite_float
from minidl.naming import to_snake_case, unknown_name


class Regularizer:
    """A penalty on an array of weights: called, its value; gradient(weights), its derivative."""

    def __call__(self, weights: Array) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(weights), the penalty.")

    def gradient(self, weights: Array) -> Array:
        """dpenalty/dweights, of the weights' shape."""
        raise NotImplementedError(f"{type(self).__name__} must define gradient(weights), the penalty's derivative.")

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this regularizer again."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Regularizer:
        """The regularizer that get_config described."""
        return cls(**config)


class L1(Regularizer):
    """penalty = l1 · Σ|w|, gradient l1 · sign(w).

    Errors: ValueError if l1 is negative or not finite.
    """

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = _rounded(finite_float("L1", "l1", 0.01 if l1 is None else l1, at_least=0.0))

    def __call__(self, weights: Array) -> Any:
        return ops.l1_penalty(weights, l1=self.l1)

    def gradient(self, weights: Array) -> Array:
        return ops.l1_gradient(weights, l1=self.l1)

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1}


class L2(Regularizer):
    """penalty = l2 · Σw², gradient 2 · l2 · w.

    Errors: ValueError if l2 is negative or not finite.
    """

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = finite_float("L2", "l2", 0.01 if l2 is None else l2, at_least=0.0)

    def __call__(self, weights: Array) -> Any:
        return ops.l2_penalty(weights, l2=_rounded(self.l2))

    def gradient(self, weights: Array) -> Array:
        return ops.l2_gradient(weights, l2=_rounded(self.l2))

    def get_config(self) -> dict[str, Any]:
        return {"l2": self.l2}


class L1L2(Regularizer):
    """penalty = l1 · Σ|w| + l2 · Σw², gradient l1 · sign(w) + 2 · l2 · w.

    Errors: ValueError if a factor is negative or not finite.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = finite_float("L1L2", "l1", 0.0 if l1 is None else l1, at_least=0.0)
        self.l2 = finite_float("L1L2", "l2", 0.0 if l2 is None else l2, at_least=0.0)

    def __call__(self, weights: Array) -> Any:
        return ops.l1_penalty(weights, l1=_rounded(self.l1)) + ops.l2_penalty(weights, l2=_rounded(self.l2))

    def gradient(self, weights: Array) -> Array:
        return ops.l1_gradient(weights, l1=_rounded(self.l1)) + ops.l2_gradient(weights, l2=_rounded(self.l2))

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1, "l2": self.l2}


def _rounded(factor: float) -> float:
    return float(np.float32(factor))


l1 = L1
l2 = L2
l1_l2 = L1L2

_CLASSES = {cls.__name__: cls for cls in (L1, L2, L1L2)}
_BY_NAME = _CLASSES | {to_snake_case(name): cls for name, cls in _CLASSES.items()} | {"l1_l2": L1L2}


def serialize(regularizer: Regularizer) -> dict[str, Any]:
    """The regularizer as Keras's dict: its class and its arguments."""
    return serialization.serialize(regularizer, "keras.regularizers")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Regularizer:
    """The regularizer of a serialize(), Keras's too; custom_objects: class name -> class of your own ones."""
    return serialization.deserialize("regularizer", config, _BY_NAME, custom_objects)


def get(identifier: Any) -> Regularizer | None:
    """The regularizer for None, a name ("l1", "L2", "l1_l2", …: default factors), a class, an instance or a dict.

    Errors: ValueError for an unknown name (with the nearest ones) or anything without a gradient.
    """
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        if identifier not in _BY_NAME:
            raise ValueError(unknown_name("regularizer", identifier, _BY_NAME))
        identifier = _BY_NAME[identifier]
    if inspect.isclass(identifier) and issubclass(identifier, Regularizer):
        identifier = identifier()
    if identifier is None or isinstance(identifier, Regularizer):
        return identifier
    raise ValueError(
        f"Unknown regularizer: {identifier!r}. Pass a name, minidl.regularizers.L1(…), L2(…) or L1L2(…), or a "
        f"subclass of Regularizer with a gradient: a bare function has none that minidl knows."
    )
