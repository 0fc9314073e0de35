"""Constraints on weights, as Keras names them: applied to a parameter after each update; the formulas are in ops.py."""

from __future__ import annotations

import inspect
import types
from typing import Any

from minidl import config, ops, serialization
from minidl.backend import Array
from minidl.checks import finite_float
from minidl.naming import to_snake_case, unknown_name


class Constraint:
    """A projection of an array of weights: called, the weights as they may be, of the same shape and dtype.

    Keras applies it to a variable after each batch, last of all: after the optimizer's update and, with use_ema, after
    the average; also in batches of which the gradients are only accumulated. So does training.apply_constraints.
    """

    def __call__(self, weights: Array) -> Array:
        """The weights as they may be; here, as in Keras, as they are."""
        return weights

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this constraint again."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Constraint:
        """The constraint of a get_config()."""
        return cls(**config)


class MaxNorm(Constraint):
    """w · min(‖w‖, max_value) / (‖w‖ + ε): norms along axis of at most max_value; see ops.max_norm.

    axis: of a Dense kernel (I, U), 0 is the weights into each unit. ε: config.epsilon().
    Errors: ValueError unless max_value is finite and at least 0, and axis an integer or several.
    """

    def __init__(self, max_value: float = 2, axis: Any = 0) -> None:
        finite_float("MaxNorm", "max_value", max_value, at_least=0.0)
        self.max_value, self.axis = max_value, _axis("MaxNorm", axis)

    def __call__(self, weights: Array) -> Array:
        return ops.max_norm(weights, max_value=self.max_value, axis=_as_tuple(self.axis), epsilon=config.epsilon())

    def get_config(self) -> dict[str, Any]:
        return {"max_value": self.max_value, "axis": self.axis}


class NonNeg(Constraint):
    """max(w, 0): no weight below 0; see ops.non_negative."""

    def __call__(self, weights: Array) -> Array:
        return ops.non_negative(weights)


class UnitNorm(Constraint):
    """w / (‖w‖ + ε): norms along axis of 1; see ops.unit_norm and MaxNorm.

    Errors: ValueError unless axis is an integer or several.
    """

    def __init__(self, axis: Any = 0) -> None:
        self.axis = _axis("UnitNorm", axis)

    def __call__(self, weights: Array) -> Array:
        return ops.unit_norm(weights, axis=_as_tuple(self.axis), epsilon=config.epsilon())

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis}


class MinMaxNorm(Constraint):
    """Norms along axis drawn into [min_value, max_value], all the way (rate 1) or in part; see ops.min_max_norm.

    Errors: ValueError unless 0 <= min_value <= max_value, rate is in [0, 1], and axis an integer or several.
    """

    def __init__(self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Any = 0) -> None:
        finite_float("MinMaxNorm", "min_value", min_value, at_least=0.0)
        if finite_float("MinMaxNorm", "max_value", max_value) < min_value:
            raise ValueError(f"MinMaxNorm: max_value must be at least min_value; got {max_value!r} < {min_value!r}.")
        if finite_float("MinMaxNorm", "rate", rate, at_least=0.0) > 1:
            raise ValueError(f"MinMaxNorm: rate must be in [0, 1]; got {rate!r}. 1 enforces the norm at once.")
        self.min_value, self.max_value, self.rate = min_value, max_value, rate
        self.axis = _axis("MinMaxNorm", axis)

    def __call__(self, weights: Array) -> Array:
        return ops.min_max_norm(
            weights,
            min_value=self.min_value,
            max_value=self.max_value,
            rate=self.rate,
            axis=_as_tuple(self.axis),
            epsilon=config.epsilon(),
        )

    def get_config(self) -> dict[str, Any]:
        return {"min_value": self.min_value, "max_value": self.max_value, "rate": self.rate, "axis": self.axis}


def _axis(where: str, axis: Any) -> Any:
    several = axis if isinstance(axis, (tuple, list)) else [axis]
    if axis is not None and not all(isinstance(one, int) and not isinstance(one, bool) for one in several):
        raise ValueError(f"{where}: axis must be an integer, several in a list, or None for all; got {axis!r}.")
    return axis


def _as_tuple(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


max_norm = MaxNorm
non_neg = NonNeg
unit_norm = UnitNorm
min_max_norm = MinMaxNorm

_CLASSES = {cls.__name__: cls for cls in (MaxNorm, NonNeg, UnitNorm, MinMaxNorm)}
_BY_NAME: dict[str, Any] = _CLASSES | {to_snake_case(name): cls for name, cls in _CLASSES.items()}


def serialize(constraint: Constraint | types.FunctionType) -> dict[str, Any]:
    """The constraint as Keras's dict: its class and its arguments; a function of your own by its name."""
    if isinstance(constraint, types.FunctionType):
        return serialization.serialize_function(constraint)
    return serialization.serialize(constraint, "keras.constraints")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Constraint:
    """The constraint of a serialize(), Keras's too; custom_objects: name -> class or function of your own."""
    if serialization.is_function(config):
        return serialization.deserialize_function("constraint", config, {}, custom_objects)
    return serialization.deserialize("constraint", config, _BY_NAME, custom_objects)


def get(identifier: Any) -> Constraint | None:
    """The constraint for None, a name, a class, an instance, a serialize() dict or a function of the weights.

    Errors: ValueError for an unknown name (with the nearest ones) or anything else.
    """
    if isinstance(identifier, dict):
        identifier = deserialize(identifier)
    if isinstance(identifier, str):
        if identifier not in _BY_NAME:
            raise ValueError(unknown_name("constraint", identifier, _BY_NAME))
        identifier = _BY_NAME[identifier]
    if inspect.isclass(identifier):
        identifier = identifier()
    if identifier is None or callable(identifier):
        return identifier
    raise ValueError(f"Unknown constraint: {identifier!r}. Pass a name, a minidl.constraints.Constraint or a function.")
