"""Constraints on weights, as Keras names them: applied to a parameter after each update; the formulas are in ops.py."""

from __future__ import annotations

import inspect
from typing import Any

from minidl import serialization
from minidl.backend import Array
from minidl.naming import to_snake_case, unknown_name


class Constraint:
    """A projection of an array of weights: called, the weights as they may be."""

    def __call__(self, weights: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(weights), the constrained weights.")

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this constraint again."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Constraint:
        """The constraint of a get_config()."""
        return cls(**config)


_CLASSES: dict[str, type[Constraint]] = {}
_BY_NAME = _CLASSES | {to_snake_case(name): cls for name, cls in _CLASSES.items()}


def serialize(constraint: Constraint) -> dict[str, Any]:
    """The constraint as Keras's dict: its class and its arguments."""
    return serialization.serialize(constraint, "keras.constraints")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Constraint:
    """The constraint of a serialize(), Keras's too; custom_objects: class name -> class of your own ones."""
    return serialization.deserialize("constraint", config, _BY_NAME, custom_objects)


def get(identifier: Any) -> Constraint | None:
    """The constraint for None, a name, a class, an instance, a serialize() dict or a function of the weights.

    Errors: ValueError for an unknown name (with the nearest ones) or anything else.
    """
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        if identifier not in _BY_NAME:
            raise ValueError(unknown_name("constraint", identifier, _BY_NAME))
        identifier = _BY_NAME[identifier]
    if inspect.isclass(identifier) and issubclass(identifier, Constraint):
        identifier = identifier()
    if identifier is None or callable(identifier):
        return identifier
    raise ValueError(f"Unknown constraint: {identifier!r}. Pass a name, a minidl.constraints.Constraint or a function.")
