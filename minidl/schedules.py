"""Learning rates that change with the step, as Keras's objects; the formulas are in ops.py.

An optimizer takes one as its learning_rate and calls it with the number of batches so far, 0 at the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import ops, serialization
from minidl.checks import finite_float, non_negative_int, positive_float


class LearningRateSchedule:
    """A function of the step; a subclass defines __call__(step), and get_config to be saved."""

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step, counted from 0."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, step).")

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this schedule again."""
        raise NotImplementedError(f"{type(self).__name__} must define get_config() to be saved.")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearningRateSchedule:
        """The schedule of a get_config()."""
        return cls(**config)

    def _number(self, name: str, value: Any) -> float:
        return finite_float(type(self).__name__, name, value, at_least=0.0)

    def _steps(self, name: str, value: Any) -> Any:
        positive_float(type(self).__name__, name, value)
        return value


class ExponentialDecay(LearningRateSchedule):
    """η₀ r^(t/T); see ops.exponential_decay. Errors: ValueError for decay_steps ≤ 0 or anything that is no number."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        self.initial_learning_rate = self._number("initial_learning_rate", initial_learning_rate)
        self.decay_steps = self._steps("decay_steps", decay_steps)
        self.decay_rate = self._number("decay_rate", decay_rate)
        self.staircase = staircase
        self.name = name

    def __call__(self, step: Any) -> np.float32:
        return ops.exponential_decay(int(step), **_arguments(self))

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))


class InverseTimeDecay(LearningRateSchedule):
    """η₀ / (1 + r t/T); see ops.inverse_time_decay. Errors: as ExponentialDecay's."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        self.initial_learning_rate = self._number("initial_learning_rate", initial_learning_rate)
        self.decay_steps = self._steps("decay_steps", decay_steps)
        self.decay_rate = self._number("decay_rate", decay_rate)
        self.staircase = staircase
        self.name = name

    def __call__(self, step: Any) -> np.float32:
        return ops.inverse_time_decay(int(step), **_arguments(self))

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))


class PiecewiseConstantDecay(LearningRateSchedule):
    """values[i] after the i-th boundary; see ops.piecewise_constant_decay.

    Errors: ValueError if there is no boundary, they do not ascend, or values are not one more than boundaries.
    """

    def __init__(self, boundaries: list[float], values: list[float], name: str = "PiecewiseConstant") -> None:
        if len(boundaries) != len(values) - 1 or not len(boundaries):
            raise ValueError(
                f"PiecewiseConstantDecay: values must be one more than boundaries, of which there must be one at "
                f"least; got {len(values)} values and {len(boundaries)} boundaries."
            )
        self.boundaries = [b for b in boundaries if self._number("a boundary", b) or True]
        self.values = [self._number("a value", value) for value in values]
        if list(self.boundaries) != sorted(self.boundaries):
            raise ValueError(f"PiecewiseConstantDecay: boundaries must ascend; got {boundaries!r}.")
        self.name = name

    def __call__(self, step: Any) -> np.float32:
        return ops.piecewise_constant_decay(int(step), **_arguments(self))

    def get_config(self) -> dict[str, Any]:
        return {"boundaries": list(self.boundaries), "values": list(self.values), "name": self.name}


class PolynomialDecay(LearningRateSchedule):
    """(η₀ − η₁)(1 − t/T)^p + η₁; see ops.polynomial_decay. Errors: as ExponentialDecay's."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate = self._number("initial_learning_rate", initial_learning_rate)
        self.decay_steps = self._steps("decay_steps", decay_steps)
        self.end_learning_rate = self._number("end_learning_rate", end_learning_rate)
        self.power = self._number("power", power)
        self.cycle = cycle
        self.name = name

    def __call__(self, step: Any) -> np.float32:
        return ops.polynomial_decay(int(step), **_arguments(self))

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))


class CosineDecay(LearningRateSchedule):
    """η₀ ((1 − α) ½ (1 + cos(π t/T)) + α), after a warm-up if there is a warmup_target; see ops.cosine_decay.

    Errors: ValueError for decay_steps ≤ 0, warmup_steps < 0 or anything that is no number.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate = self._number("initial_learning_rate", initial_learning_rate)
        self.decay_steps = self._steps("decay_steps", decay_steps)
        self.alpha = self._number("alpha", alpha)
        self.name = name
        self.warmup_target = None if warmup_target is None else self._number("warmup_target", warmup_target)
        self.warmup_steps = non_negative_int("CosineDecay", "warmup_steps", warmup_steps)

    def __call__(self, step: Any) -> np.float32:
        return ops.cosine_decay(int(step), **_arguments(self))

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))


class CosineDecayRestarts(LearningRateSchedule):
    """A cosine that starts anew in periods that grow by t_mul, from peaks that shrink by m_mul.

    See ops.cosine_decay_restarts. Errors: ValueError for first_decay_steps ≤ 0, t_mul < 1 (after a while there is no
    next period; Keras returns NaN) or anything that is no number.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        self.initial_learning_rate = self._number("initial_learning_rate", initial_learning_rate)
        self.first_decay_steps = self._steps("first_decay_steps", first_decay_steps)
        self.t_mul = finite_float("CosineDecayRestarts", "t_mul", t_mul, at_least=1.0)
        self.m_mul = self._number("m_mul", m_mul)
        self.alpha = self._number("alpha", alpha)
        self.name = name

    def __call__(self, step: Any) -> np.float32:
        return ops.cosine_decay_restarts(int(step), **_arguments(self))

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))


def _arguments(schedule: LearningRateSchedule) -> dict[str, Any]:
    return {name: value for name, value in schedule.get_config().items() if name != "name"}


_BY_NAME: dict[str, type[LearningRateSchedule]] = {
    found.__name__: found
    for found in (
        ExponentialDecay,
        InverseTimeDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
        CosineDecay,
        CosineDecayRestarts,
    )
}


def serialize(learning_rate_schedule: LearningRateSchedule) -> dict[str, Any]:
    """The schedule as Keras's dict: its class and its arguments."""
    return serialization.serialize(learning_rate_schedule, "keras.optimizers.schedules")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> LearningRateSchedule:
    """The schedule of a serialize(); custom_objects: class name -> class of your own ones.

    Errors: ValueError for an unknown class, with the nearest names, or another form of config.
    """
    return serialization.deserialize("learning-rate schedule", config, _BY_NAME, custom_objects)
