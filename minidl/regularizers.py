"""Penalties on weights, as Keras names them; the formulas are in ops.py.

Keras on TensorFlow rounds the factors to float32 before use, for float64 models too: a factor of 0.1 means
0.10000000149…; so does minidl (keras.ops.cast of a Python float makes a float32 tensor first).

One of your own is a subclass of Regularizer with __call__ and gradient, or Regularizer.of(function, gradient).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
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

    @staticmethod
    def of(function: Callable[[Array], Any], gradient: Callable[[Array], Array]) -> Regularizer:
        """A regularizer of a function of the weights, the penalty, and its derivative.

        Errors: TypeError unless both can be called.
        """
        return _Function(function, gradient)


class _Function(Regularizer):
    """A penalty and its derivative, two functions that belong to the caller."""

    def __init__(self, function: Callable[[Array], Any], gradient: Callable[[Array], Array]) -> None:
        if not callable(function) or not callable(gradient):
            raise TypeError(f"Regularizer.of: expected two functions of the weights; got {function!r}, {gradient!r}.")
        self.function, self._gradient = function, gradient

    def __call__(self, weights: Array) -> Any:
        return _scalar(self.function(weights), weights, self.function)

    def gradient(self, weights: Array) -> Array:
        gradient = np.asarray(self._gradient(weights))
        if gradient.shape != weights.shape:
            raise ValueError(
                f"The gradient of the regularizer {_name(self.function)!r} must have the weights' shape "
                f"{weights.shape}; got {gradient.shape}."
            )
        return gradient.astype(weights.dtype, copy=False)

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(
            f"The regularizer {_name(self.function)!r} is made of functions, which cannot be written into a config; "
            f"write it as a subclass of Regularizer with get_config."
        )


def _scalar(penalty: Any, weights: Array, function: Any) -> Any:
    if np.ndim(penalty) != 0:
        raise ValueError(f"The regularizer {_name(function)!r} must return one number; got shape {np.shape(penalty)}.")
    return weights.dtype.type(penalty)


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


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


class OrthogonalRegularizer(Regularizer):
    """factor · the mean |cosine| between rows (mode "rows") or columns ("columns"); see ops.orthogonal_penalty.

    Of a kernel (I, U), rows belong to the inputs, columns to the units. factor is rounded to float32 when made, as
    L1's is; Keras's own then fails on float64 weights, this one does not.
    Errors: ValueError if factor is negative or not finite, for another mode, or where there is a single row or column.
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        self.factor = _rounded(finite_float("OrthogonalRegularizer", "factor", factor, at_least=0.0))
        if mode not in ("rows", "columns"):
            raise ValueError(f"OrthogonalRegularizer: mode must be 'rows' or 'columns'; got {mode!r}.")
        self.mode = mode

    def __call__(self, weights: Array) -> Any:
        return ops.orthogonal_penalty(weights, factor=self.factor, mode=self.mode)

    def gradient(self, weights: Array) -> Array:
        return ops.orthogonal_gradient(weights, factor=self.factor, mode=self.mode)

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor, "mode": self.mode}


def _rounded(factor: float) -> float:
    return float(np.float32(factor))


l1 = L1
l2 = L2
l1_l2 = L1L2
orthogonal_regularizer = OrthogonalRegularizer

_CLASSES = {cls.__name__: cls for cls in (L1, L2, L1L2, OrthogonalRegularizer)}
_BY_NAME = _CLASSES | {to_snake_case(name): cls for name, cls in _CLASSES.items()} | {"l1_l2": L1L2}


def serialize(regularizer: Regularizer) -> dict[str, Any]:
    """The regularizer as Keras's dict: its class and its arguments."""
    return serialization.serialize(regularizer, "keras.regularizers")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Regularizer:
    """The regularizer of a serialize(), Keras's too; custom_objects: class name -> class of your own ones."""
    return serialization.deserialize("regularizer", config, _BY_NAME, custom_objects)


def get(identifier: Any) -> Regularizer | None:
    """The regularizer for None, a name ("l1", "L2", "l1_l2", …: default factors), a class, an instance or a dict.

    Anything else that can be called with the weights and has gradient(weights) is taken too.
    Errors: ValueError for an unknown name (with the nearest ones) or anything without a gradient.
    """
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        if identifier not in _BY_NAME:
            raise ValueError(unknown_name("regularizer", identifier, _BY_NAME))
        identifier = _BY_NAME[identifier]
    if inspect.isclass(identifier):
        identifier = identifier()
    if identifier is None or isinstance(identifier, Regularizer):
        return identifier
    if callable(identifier) and callable(getattr(identifier, "gradient", None)):
        return _Function(identifier, identifier.gradient)
    raise ValueError(
        f"Unknown regularizer: {identifier!r}. Pass a name, minidl.regularizers.L1(…), L2(…) or L1L2(…), or for "
        f"one of your own Regularizer.of(function, gradient), or a subclass of Regularizer with __call__ and gradient: "
        f"a bare function has no gradient that minidl knows."
    )
