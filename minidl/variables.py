"""A weight as Keras hands it out: an array with a name, numpy() and assign(); it shares the layer's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backend import Array


class Variable(np.ndarray):
    """A view of a weight: writing to it, or assign(…), changes the layer. What is computed from it is a plain array.

    path: "sequential/dense/kernel"; name: "kernel"; trainable: whether training updates it now.
    """

    path: str = ""
    trainable: bool = True

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def value(self) -> Variable:
        """The weight itself, as Keras's variables have it."""
        return self

    def numpy(self) -> Array:
        """A copy as a plain array."""
        return np.array(self)

    def assign(self, value: Any) -> Variable:
        """Write a value of the same shape. Errors: ValueError for another shape."""
        if np.shape(value) != self.shape:
            raise ValueError(f"{self.path}: the weight has shape {self.shape}; got {np.shape(value)}.")
        self[...] = value
        return self

    def assign_add(self, value: Any) -> Variable:
        """Add a value, which may broadcast."""
        self[...] = np.asarray(self) + value
        return self

    def assign_sub(self, value: Any) -> Variable:
        """Subtract a value, which may broadcast."""
        self[...] = np.asarray(self) - value
        return self

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else np.asarray(array)

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}, value={np.asarray(self)}>"


def variable(array: Array, path: str) -> Variable:
    """The array as a Variable, without a copy."""
    found: Variable = array.view(Variable)
    found.path = path
    return found


class Rate(float):
    """A number that an optimizer keeps, as Keras's variable of it: numpy(), and assign() to set it."""

    _set: Callable[[Any], None]

    @classmethod
    def of(cls, number: float, setter: Callable[[Any], None]) -> Rate:
        """number, and what assign() does."""
        found = cls(number)
        found._set = setter
        return found

    def numpy(self) -> np.float32:
        """The number, in float32 as Keras keeps it."""
        return np.float32(self)

    def assign(self, value: Any) -> None:
        """Set it for the steps to come."""
        self._set(value)


class Count(int):
    """The updates so far, as Keras's variable of them."""

    def numpy(self) -> np.int64:
        """The number as NumPy's."""
        return np.int64(self)
