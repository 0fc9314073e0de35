"""Adam and SGD as Keras's objects: their arguments, their state and one pass over the arena; formulas are in ops.py."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from minidl import config, ops
from minidl.arena import Arena
from minidl.backend import Array
from minidl.checks import finite_float, refuse_unknown, refuse_unsupported
from minidl.naming import unknown_name

# Keras's arguments of every optimizer that minidl does not support, with Keras's defaults.
_UNSUPPORTED: dict[str, Any] = {
    "weight_decay": None,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}


class Optimizer:
    """What all optimizers share: the learning rate, the count of steps, and slots beside the parameters.

    learning_rate: a number; settable between steps; kept in floatx(), as Keras keeps it. iterations: the steps taken.
    slots: the names of the flat buffers that the update rule keeps, zero at first, each an attribute once built.
    """

    slots: tuple[str, ...] = ()
    config_names: tuple[str, ...] = ("name", "learning_rate")

    def __init__(self, learning_rate: float = 0.001, name: str = "optimizer", **kwargs: Any) -> None:
        where = type(self).__name__
        refuse_unknown(where, {k: v for k, v in kwargs.items() if k not in _UNSUPPORTED})
        refuse_unsupported(where, **{k: (v, _UNSUPPORTED[k]) for k, v in kwargs.items()})
        self.dtype = config.floatx()
        self.learning_rate = learning_rate
        self.name = name
        self.iterations = 0
        self._arena: Arena | None = None

    @property
    def learning_rate(self) -> float:
        """η, as rounded to floatx()."""
        return float(self._learning_rate)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        rate = finite_float(type(self).__name__, "learning_rate", value, at_least=0.0)
        self._learning_rate = np.dtype(self.dtype).type(rate)

    @property
    def built(self) -> bool:
        """Whether the slots exist."""
        return self._arena is not None

    def build(self, arena: Arena) -> None:
        """Make the slots, zeros, for an arena's parameters.

        Errors: ValueError if they were made for another arena: a new model wants a new optimizer.
        """
        if self._arena is None:
            self._arena = arena
            for slot in self.slots:
                setattr(self, slot, arena.new_buffer())
        elif self._arena is not arena:
            raise ValueError(
                f"{type(self).__name__}: this optimizer holds the state of another model, or of this one before its "
                f"layers changed; compile the model with a new optimizer."
            )

    def apply(self, arena: Arena) -> None:
        """One step over all parameters: updates arena.theta and the slots from arena.grads."""
        self.build(arena)
        self.update(arena)
        self.iterations += 1

    def update(self, arena: Arena) -> None:
        """The update rule, for step iterations + 1."""
        raise NotImplementedError

    @property
    def variables(self) -> list[Array]:
        """Iteration, learning rate, then the slots of each parameter in turn: Keras's order."""
        found: list[Array] = [np.asarray(self.iterations, np.int64), np.asarray(self._learning_rate)]
        if self._arena is not None:
            views = [self._arena.views(getattr(self, slot)) for slot in self.slots]
            found += [view for of_one_parameter in zip(*views, strict=True) for view in of_one_parameter]
        return found

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again, without its state."""
        return {name: getattr(self, name) for name in self.config_names}


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015): θ ← θ − α m / (√v + ε̂); see ops.adam_step for m, v and α.

    beta_1, beta_2 in [0, 1). epsilon: ε̂ of the paper, not the ε of its Algorithm 1.
    Keras's other arguments are refused unless they have its defaults.
    Errors: ValueError for a learning rate, β or ε̂ out of range; NotImplementedError for refused arguments.
    """

    slots = ("m", "v")
    config_names = ("name", "learning_rate", "beta_1", "beta_2", "epsilon")
    m: Array
    v: Array

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        name: str = "adam",
        **kwargs: Any,
    ) -> None:
        refuse_unsupported("Adam", amsgrad=(amsgrad, False))
        self.beta_1 = _decay_rate("beta_1", beta_1)
        self.beta_2 = _decay_rate("beta_2", beta_2)
        self.epsilon = finite_float("Adam", "epsilon", epsilon, at_least=0.0)
        super().__init__(learning_rate, name, **kwargs)

    def update(self, arena: Arena) -> None:
        """ops.adam_step over the whole arena."""
        ops.adam_step(
            arena.theta,
            arena.grads,
            self.m,
            self.v,
            step=self.iterations + 1,
            learning_rate=self.learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )


class SGD(Optimizer):
    """Stochastic gradient descent: θ ← θ − η g; see ops.sgd_step.

    Keras's other arguments (momentum, nesterov, …) are refused unless they have its defaults.
    Errors: ValueError for a negative learning rate; NotImplementedError for refused arguments.
    """

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        name: str = "SGD",
        **kwargs: Any,
    ) -> None:
        refuse_unsupported("SGD", momentum=(momentum, 0.0), nesterov=(nesterov, False))
        super().__init__(learning_rate, name, **kwargs)

    def update(self, arena: Arena) -> None:
        """ops.sgd_step over the whole arena."""
        ops.sgd_step(arena.theta, arena.grads, learning_rate=self.learning_rate)


def _decay_rate(name: str, value: float) -> float:
    rate = finite_float("Adam", name, value, at_least=0.0)
    if np.dtype(config.floatx()).type(rate) >= 1.0:
        raise ValueError(f"Adam: {name}, rounded to {config.floatx()}, must be in [0, 1); got {value!r}.")
    return rate


_BY_NAME: dict[str, type[Optimizer]] = {"adam": Adam, "Adam": Adam, "sgd": SGD, "SGD": SGD}


def get(identifier: Any) -> Optimizer:
    """The optimizer for a name ("adam", "sgd"), a class or an instance.

    Errors: ValueError for an unknown name (with the nearest ones) or anything else.
    """
    if isinstance(identifier, Optimizer):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Optimizer):
        return identifier()
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    raise ValueError(unknown_name("optimizer", identifier, _BY_NAME))
