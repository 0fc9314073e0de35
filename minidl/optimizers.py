"""Adam as Keras's object: its arguments, its state and one pass over the arena; the formula is ops.adam_step."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from minidl import config, ops
from minidl.arena import Arena
from minidl.backend import Array
from minidl.checks import finite_float, refuse_unknown, refuse_unsupported
from minidl.naming import unknown_name


class Adam:
    """Adam (Kingma & Ba 2015): θ ← θ − α m / (√v + ε̂); see ops.adam_step for m, v and α.

    learning_rate: a number; settable between steps; kept in floatx(), as Keras keeps it. beta_1, beta_2 in [0, 1).
    epsilon: ε̂ of the paper, not the ε of its Algorithm 1. iterations counts the steps taken.
    Keras's other arguments are refused unless they have its defaults.
    Errors: ValueError for a learning rate, β or ε̂ out of range; NotImplementedError for refused arguments.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str = "adam",
        **kwargs: Any,
    ) -> None:
        refuse_unknown("Adam", kwargs)
        refuse_unsupported(
            "Adam",
            amsgrad=(amsgrad, False),
            weight_decay=(weight_decay, None),
            clipnorm=(clipnorm, None),
            clipvalue=(clipvalue, None),
            global_clipnorm=(global_clipnorm, None),
            use_ema=(use_ema, False),
            ema_momentum=(ema_momentum, 0.99),
            ema_overwrite_frequency=(ema_overwrite_frequency, None),
            loss_scale_factor=(loss_scale_factor, None),
            gradient_accumulation_steps=(gradient_accumulation_steps, None),
        )
        self.dtype = config.floatx()
        self.learning_rate = learning_rate
        self.beta_1 = _decay_rate("beta_1", beta_1)
        self.beta_2 = _decay_rate("beta_2", beta_2)
        self.epsilon = finite_float("Adam", "epsilon", epsilon, at_least=0.0)
        self.name = name
        self.iterations = 0
        self._arena: Arena | None = None

    @property
    def learning_rate(self) -> float:
        """η, as rounded to floatx()."""
        return float(self._learning_rate)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        rate = finite_float("Adam", "learning_rate", value, at_least=0.0)
        self._learning_rate = np.dtype(self.dtype).type(rate)

    @property
    def built(self) -> bool:
        """Whether the slots m and v exist."""
        return self._arena is not None

    def build(self, arena: Arena) -> None:
        """Make the slots m and v, zeros, for an arena's parameters.

        Errors: ValueError if they were made for another arena: a new model wants a new optimizer.
        """
        if self._arena is None:
            self._arena = arena
            self.m, self.v = arena.new_buffer(), arena.new_buffer()
        elif self._arena is not arena:
            raise ValueError(
                "Adam: this optimizer holds the state of another model, or of this one before its layers changed; "
                "compile the model with a new optimizer."
            )

    def apply(self, arena: Arena) -> None:
        """One step over all parameters: updates arena.theta, m and v from arena.grads."""
        self.build(arena)
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
        self.iterations += 1

    @property
    def variables(self) -> list[Array]:
        """Iteration, learning rate, then m and v of each parameter in turn: Keras's order."""
        found: list[Array] = [np.asarray(self.iterations, np.int64), np.asarray(self._learning_rate)]
        if self._arena is not None:
            for m, v in zip(self._arena.views(self.m), self._arena.views(self.v), strict=True):
                found += [m, v]
        return found

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again, without its state."""
        names = ("name", "learning_rate", "beta_1", "beta_2", "epsilon")
        return {name: getattr(self, name) for name in names}


def _decay_rate(name: str, value: float) -> float:
    rate = finite_float("Adam", name, value, at_least=0.0)
    if np.dtype(config.floatx()).type(rate) >= 1.0:
        raise ValueError(f"Adam: {name}, rounded to {config.floatx()}, must be in [0, 1); got {value!r}.")
    return rate


_BY_NAME = {"adam": Adam, "Adam": Adam}


def get(identifier: Any) -> Adam:
    """The optimizer for a name ("adam"), a class or an instance.

    Errors: ValueError for an unknown name (with the nearest ones) or anything else.
    """
    if isinstance(identifier, Adam):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Adam):
        return identifier()
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    raise ValueError(unknown_name("optimizer", identifier, _BY_NAME))
