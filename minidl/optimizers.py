"""The optimizers as Keras's objects: arguments, state, and one pass over the arena; the formulas are in ops.py."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any, ClassVar

import numpy as np

from minidl import config, ops, schedules, serialization
from minidl.arena import Arena
from minidl.backend import Array
from minidl.checks import finite_float, positive_float, positive_int, refuse_unknown
from minidl.naming import auto_name, unknown_name
from minidl.schedules import LearningRateSchedule
from minidl.variables import Count, Rate

sys.modules[f"{__name__}.schedules"] = schedules  # so that `from minidl.optimizers.schedules import …` works

CHUNK = 2**15  # parameters: θ, g, m, v and two work arrays of so many, 0.75 MiB of float32, fit an L2 cache
_CLIP_ARGUMENTS = ("clipnorm", "clipvalue", "global_clipnorm")


class Optimizer:
    """What all optimizers share: Keras's arguments around the update rule, and the slots beside the parameters.

    learning_rate: a number, settable between steps and kept in floatx(), as Keras keeps it; or a schedule.
    weight_decay: λ of ops.weight_decay_step, before the rule. clipnorm (each parameter's gradient), global_clipnorm
    (all together), clipvalue: one of them at most; above 0 (Keras takes others in silence and clips nothing).
    use_ema: keep an average of the weights, ops.moving_average_step with ema_momentum; it replaces the weights every
    ema_overwrite_frequency steps and at the end of fit. loss_scale_factor: the loss is multiplied by it, the
    gradients divided. gradient_accumulation_steps: one update in so many batches, with the mean of the gradients.
    name: counted if None (adam, adam_1, …).
    Errors: ValueError for an argument out of range, a second clip argument, or an unknown one.
    """

    # The rule's own slots, flat buffers like θ that are zero at first, as Keras lists them: of a group, all slots of a
    # parameter follow each other. Each is an attribute once built. scalars: numbers that the rule keeps, 1 at first.
    groups: tuple[tuple[str, ...], ...] = ()
    scalars: tuple[str, ...] = ()
    needs_step: ClassVar[bool] = False  # whether the rule depends on the number of the step
    config_names: ClassVar[tuple[str, ...]] = ()
    averages: Array
    accumulated_gradients: Array

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        where = type(self).__name__
        refuse_unknown(where, kwargs)
        self.dtype = config.floatx()
        self._learning_rate: Any = None
        self.learning_rate = learning_rate
        self.weight_decay = None if weight_decay is None else self._number("weight_decay", weight_decay)
        clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        self.clipnorm, self.clipvalue, self.global_clipnorm = self._checked_clips(clips)
        self.use_ema = use_ema
        self.ema_momentum, self.ema_overwrite_frequency = ema_momentum, ema_overwrite_frequency
        if use_ema:
            self._check_ema()
        self.loss_scale_factor = (
            None if loss_scale_factor is None else positive_float(where, "loss_scale_factor", loss_scale_factor)
        )
        steps = gradient_accumulation_steps
        if steps is not None and positive_int(where, "gradient_accumulation_steps", steps) < 2:
            raise ValueError(f"{where}: gradient_accumulation_steps must be an integer >= 2 or None; got {steps!r}.")
        self.gradient_accumulation_steps = steps
        self.name = auto_name(where) if name is None else name
        self._batches = 0
        self._arena: Arena | None = None
        self._excluded: tuple[list[Array], re.Pattern[str] | None] = ([], None)
        self._decayed: list[slice] = []

    # --------------------------------------------------------------------------------- arguments

    def _number(self, name: str, value: Any) -> float:
        return finite_float(type(self).__name__, name, value, at_least=0.0)

    def _decay_rate(self, name: str, value: float) -> float:
        """β or ρ: in [0, 1), also as rounded to floatx()."""
        rate = self._number(name, value)
        if np.dtype(config.floatx()).type(rate) >= 1.0:
            raise ValueError(
                f"{type(self).__name__}: {name}, rounded to {config.floatx()}, must be in [0, 1); got {value!r}."
            )
        return rate

    def _checked_clips(self, clips: dict[str, float | None]) -> list[float | None]:
        where = type(self).__name__
        given = {name: value for name, value in clips.items() if value is not None}
        if len(given) > 1:
            raise ValueError(f"{where}: give one of {', '.join(_CLIP_ARGUMENTS)} at most; got {given}.")
        return [None if clips[name] is None else positive_float(where, name, clips[name]) for name in _CLIP_ARGUMENTS]

    def _check_ema(self) -> None:
        where = type(self).__name__
        self.ema_momentum = self._number("ema_momentum", self.ema_momentum)
        if self.ema_momentum > 1:
            raise ValueError(f"{where}: ema_momentum must be in [0, 1]; got {self.ema_momentum!r}.")
        if self.ema_overwrite_frequency is not None:
            positive_int(where, "ema_overwrite_frequency", self.ema_overwrite_frequency)

    @property
    def learning_rate(self) -> Rate:
        """η, as rounded to floatx(), a float with Keras's numpy() and assign(); of a schedule, that of the next step.

        Setting it: a number, or a schedule to go on with. Errors: TypeError for a number in place of a schedule.
        """
        return Rate.of(self.rate, lambda value: setattr(self, "learning_rate", value))

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if isinstance(value, LearningRateSchedule):
            self._learning_rate = value
            return
        if isinstance(self._learning_rate, LearningRateSchedule):
            raise TypeError(
                f"{type(self).__name__}: the learning rate is the schedule "
                f"{type(self._learning_rate).__name__}, so it cannot be set to {value!r}. Make the optimizer with "
                f"a number to set it between steps, or set another schedule."
            )
        self._learning_rate = np.dtype(self.dtype).type(self._number("learning_rate", value))

    @property
    def rate(self) -> float:
        """learning_rate as a plain float, for the update rules."""
        return self._rate_at(self._batches)

    def _rate_at(self, batch: int) -> float:
        if isinstance(self._learning_rate, LearningRateSchedule):
            return float(np.float32(self._learning_rate(batch)))
        return float(self._learning_rate)

    def rates(self, steps: int) -> list[float]:
        """rate at each of the coming steps, one a batch, if nobody sets another in between."""
        scheduled = isinstance(self._learning_rate, LearningRateSchedule)
        return [self._rate_at(self._batches + i) for i in range(steps)] if scheduled else [self.rate] * steps

    @property
    def iterations(self) -> Count:
        """The updates so far: the batches, or with gradient_accumulation_steps a batch in so many."""
        return Count(self.updates)

    @iterations.setter
    def iterations(self, value: int) -> None:
        self._batches = value * (self.gradient_accumulation_steps or 1)

    @property
    def updates(self) -> int:
        """iterations as a plain int, for the update rules."""
        return self._batches // (self.gradient_accumulation_steps or 1)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Leave parameters out of weight decay; each call replaces what the one before said.

        var_list: parameters, as layer.kernel. var_names: regular expressions, of which one is found in the
        parameter's name, "dense/kernel:0" (Keras on TensorFlow puts the model's name before that).
        Errors: ValueError if the optimizer is built (Keras forgets to raise it), or in the first step if a parameter
        is not the model's.
        """
        if self.built:
            raise ValueError("exclude_from_weight_decay: call it before the optimizer's first step; it is built.")
        if isinstance(var_names, str):
            raise ValueError(f"exclude_from_weight_decay: var_names must be a list; got {var_names!r}.")
        self._excluded = list(var_list or []), re.compile("|".join(set(var_names))) if var_names else None

    # ------------------------------------------------------------------------------------- state

    @property
    def _all_groups(self) -> list[tuple[str, ...]]:
        around = [("averages",)] if self.use_ema else []
        around += [("accumulated_gradients",)] if self.gradient_accumulation_steps else []
        return [*around, *self.groups]

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of all flat buffers that this optimizer keeps, in Keras's order."""
        return tuple(slot for group in self._all_groups for slot in group)

    @property
    def built(self) -> bool:
        """Whether the slots exist."""
        return self._arena is not None

    def build(self, arena: Arena) -> None:
        """Make the slots, zeros, for an arena's parameters.

        Errors: ValueError if they were made for another arena: a new model wants a new optimizer.
        """
        if self._arena is None:
            self._decayed = self._slices_to_decay(arena)
            self._arena = arena
            for slot in self.slots:
                setattr(self, slot, arena.new_buffer())
            for name in self.scalars:
                setattr(self, name, np.ones((), arena.dtype))
        elif self._arena is not arena:
            raise ValueError(
                f"{type(self).__name__}: this optimizer holds the state of another model, or of this one before its "
                f"layers changed; compile the model with a new optimizer."
            )

    @property
    def decays(self) -> list[bool]:
        """Whether weight decay pulls at each of the arena's parameters, once built."""
        assert self._arena is not None
        return [any(d.start <= s.start and s.stop <= d.stop for d in self._decayed) for s in self._arena.segments]

    def _slices_to_decay(self, arena: Arena) -> list[slice]:
        """Where the parameters lie that weight decay pulls at."""
        variables, pattern = self._excluded
        views = arena.views(arena.theta)
        for variable in variables:
            if not any(variable is view or np.may_share_memory(variable, view) for view in views):
                raise ValueError(
                    f"exclude_from_weight_decay: a parameter of shape {np.shape(variable)} in var_list is not one of "
                    f"this model's. Take it from the built model, as model.layers[0].kernel."
                )
        found = []
        for segment, view in zip(arena.segments, views, strict=True):
            named = pattern is not None and pattern.search(f"{segment.layer}/{segment.name}:0")
            if not named and not any(np.may_share_memory(variable, view) for variable in variables):
                found.append(slice(segment.start, segment.stop))
        return found if len(found) < len(views) else [slice(0, arena.size)]

    @property
    def variables(self) -> list[Array]:
        """Keras's list: batches, learning rate unless scheduled, averages, accumulators, the rule's slots."""
        found: list[Array] = [np.asarray(self._batches, np.int64)]
        if not isinstance(self._learning_rate, LearningRateSchedule):
            found.append(np.asarray(self._learning_rate))
        if self._arena is not None:
            for group in self._all_groups:
                views = [self._arena.views(getattr(self, slot)) for slot in group]
                found += [view for of_one_parameter in zip(*views, strict=True) for view in of_one_parameter]
            found += [getattr(self, name) for name in self.scalars]
        return found

    def get_state(self) -> dict[str, Array]:
        """Copies of all that the next steps depend on: "iterations" (the batches), "learning_rate" unless it is a
        schedule, the slots, flat in the arena's order, and the rule's scalars.
        """
        state = {"iterations": np.asarray(self._batches, np.int64)}
        if not isinstance(self._learning_rate, LearningRateSchedule):
            state["learning_rate"] = np.asarray(self.rate)
        return state | {name: getattr(self, name).copy() for name in (*self.slots, *self.scalars)}

    def set_state(self, state: dict[str, Array]) -> None:
        """Go on from the get_state of an optimizer of the same arguments; the entries were checked by the caller."""
        self._batches = int(state["iterations"])
        if "learning_rate" in state:
            self.learning_rate = float(state["learning_rate"])
        for name in (*self.slots, *self.scalars):
            getattr(self, name)[...] = state[name]

    def check_variables(self, values: list[Array]) -> None:
        """Raise ValueError unless values can be this optimizer's `variables`."""
        own = self.variables
        if [np.shape(value) for value in values] != [variable.shape for variable in own]:
            raise ValueError(
                f"{self.name}: expected variables of the shapes {[variable.shape for variable in own]}; got "
                f"{[np.shape(value) for value in values]}."
            )
        if np.asarray(values[0]).dtype.kind not in "iu" or not 0 <= int(values[0]) < 2**63:
            raise ValueError(f"{self.name}: the number of steps must be a non-negative integer; got {values[0]!r}.")
        if not isinstance(self._learning_rate, LearningRateSchedule):
            self._number("learning_rate", float(values[1]))

    def load_own_variables(self, values: list[Array]) -> None:
        """Go on from the `variables` of an optimizer of the same arguments, Keras's too. Errors: as check_variables."""
        self.check_variables(values)
        first = 1
        if not isinstance(self._learning_rate, LearningRateSchedule):
            self.learning_rate, first = float(values[1]), 2
        self._batches = int(values[0])
        for variable, value in zip(self.variables[first:], values[first:], strict=True):
            variable[...] = value

    @property
    def learning_rate_argument(self) -> Any:
        """The learning rate as it was given: a number, as rounded to floatx(), or a schedule."""
        return self._learning_rate

    # ------------------------------------------------------------------------------------- steps

    def scale_loss(self, loss: Any) -> Any:
        """The loss, or a gradient of it, times loss_scale_factor."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    def apply(self, arena: Arena) -> None:
        """One batch's step over all parameters: updates arena.theta and the slots, reads arena.grads.

        In Keras's order: unscale, accumulate, clip, decay the weights, the update rule, average the weights.
        """
        self.build(arena)
        grads = arena.grads
        if self.loss_scale_factor is not None:
            grads = grads / grads.dtype.type(self.loss_scale_factor)
        steps = self.gradient_accumulation_steps
        if steps is None:
            self._step(arena, grads)
        elif (self._batches + 1) % steps == 0:
            self._step(arena, ops.mean_gradient(grads, self.accumulated_gradients, steps=steps))
            self.accumulated_gradients[...] = 0
        else:
            self.accumulated_gradients += grads
        if self.use_ema:
            self._update_averages(arena)
        self.count_batch()

    def count_batch(self) -> None:
        """One batch more: the last part of apply, for a step that made the update itself."""
        self._batches += 1

    def _step(self, arena: Arena, grads: Array) -> None:
        """Clip, decay, update."""
        if self.clipnorm is not None:
            clipped = [ops.clip_by_norm(grad, clipnorm=self.clipnorm) for grad in arena.views(grads)]
            grads = np.concatenate([grad.ravel() for grad in clipped])
        elif self.global_clipnorm is not None:
            grads = ops.clip_by_global_norm(grads, global_clipnorm=self.global_clipnorm)
        elif self.clipvalue is not None:
            grads = ops.clip_by_value(grads, clipvalue=self.clipvalue)
        self._decay(arena)
        self.update(arena, grads)

    def _decay(self, arena: Arena) -> None:
        if self.weight_decay is not None:
            for part in self._decayed:
                ops.weight_decay_step(arena.theta[part], weight_decay=self.weight_decay, learning_rate=self.rate)

    def apply_without_gradients(self, arena: Arena) -> None:
        """What a step on TensorFlow does that waits for no gradient: see training.step_without_batch.

        The weights decay, a rule's own numbers move on, accumulated gradients are dropped where an update is due, and
        the step is counted; but not where it only accumulates and the rule needs its number, which comes last then.
        """
        self.build(arena)
        steps = self.gradient_accumulation_steps
        if steps is None or (self._batches + 1) % steps == 0:
            self._decay(arena)
            self.update_without_gradients()
            if steps is not None:
                self.accumulated_gradients[...] = 0
        if steps is None or not (self.needs_step or isinstance(self._learning_rate, LearningRateSchedule)):
            self._batches += 1

    def update_without_gradients(self) -> None:
        """The part of the update rule that waits for no gradient: nothing, but for rules with scalars."""

    def update(self, arena: Arena, grads: Array) -> None:
        """The update rule, for step iterations + 1."""
        raise NotImplementedError

    def _update_averages(self, arena: Arena) -> None:
        """After each batch, also where gradients are only accumulated; before the first update is counted, a copy."""
        ops.moving_average_step(self.averages, arena.theta, momentum=self.ema_momentum if self.updates else 0.0)
        frequency = self.ema_overwrite_frequency
        if frequency is not None and (self.updates + 1) % frequency == 0:
            arena.theta[...] = self.averages

    def finalize_variable_values(self, var_list: Any = None) -> None:
        """Put the average of the weights in their place, if use_ema; fit does it at its end.

        var_list: Keras's argument; always all parameters are set. Nothing is done before the first step, where Keras
        would set all weights to 0.
        """
        if self.use_ema and self._arena is not None and self._batches:
            self._arena.theta[...] = self.averages

    # ------------------------------------------------------------------------------------ config

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again, without its state; Keras's names."""
        rate = self._learning_rate
        return {
            "name": self.name,
            "learning_rate": schedules.serialize(rate) if isinstance(rate, LearningRateSchedule) else float(rate),
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            **{name: getattr(self, name) for name in self.config_names},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Optimizer:
        """The optimizer of a get_config(), Keras's too; custom_objects: class name -> schedule of your own."""
        arguments = dict(config)
        if isinstance(arguments.get("learning_rate"), dict):
            arguments["learning_rate"] = schedules.deserialize(arguments["learning_rate"], custom_objects)
        return cls(**arguments)


class SGD(Optimizer):
    """Gradient descent, θ ← θ − η g, or with momentum: see ops.sgd_step and ops.sgd_momentum_step.

    momentum: μ in [0, 1]. nesterov: only with momentum. **common: the arguments of Optimizer.
    Errors: ValueError for a learning rate or a momentum out of range; as Optimizer's.
    """

    config_names = ("momentum", "nesterov")
    momentums: Array

    def __init__(self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, **common: Any) -> None:
        self.momentum = self._number("momentum", momentum)
        if self.momentum > 1:
            raise ValueError(f"SGD: momentum must be in [0, 1]; got {momentum!r}.")
        self.nesterov = nesterov
        self.groups = (("momentums",),) if self.momentum else ()
        super().__init__(learning_rate, **common)

    def update(self, arena: Arena, grads: Array) -> None:
        """ops.sgd_step or ops.sgd_momentum_step over the whole arena."""
        if not self.momentum:
            ops.sgd_step(arena.theta, grads, learning_rate=self.rate)
            return
        ops.sgd_momentum_step(
            arena.theta,
            grads,
            self.momentums,
            learning_rate=self.rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
        )


class _AdamFamily(Optimizer):
    """The arguments of Adam and its relatives: beta_1, beta_2 in [0, 1) and epsilon ≥ 0."""

    config_names: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2", "epsilon")
    needs_step: ClassVar[bool] = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **common: Any,
    ) -> None:
        self.beta_1 = self._decay_rate("beta_1", beta_1)
        self.beta_2 = self._decay_rate("beta_2", beta_2)
        self.epsilon = self._number("epsilon", epsilon)
        super().__init__(learning_rate, **common)

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "step": self.updates + 1,
            "learning_rate": self.rate,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


class Adam(_AdamFamily):
    """Adam (Kingma & Ba 2015): θ ← θ − α m / (√v + ε̂); see ops.adam_step, and ops.amsgrad_step for amsgrad=True.

    beta_1, beta_2 in [0, 1). epsilon: ε̂ of the paper, not the ε of its Algorithm 1. **common: as Optimizer's.
    Errors: ValueError for a learning rate, β or ε̂ out of range; as Optimizer's.
    """

    config_names = ("beta_1", "beta_2", "epsilon", "amsgrad")
    m: Array
    v: Array
    v_hat: Array

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **common: Any,
    ) -> None:
        self.amsgrad = amsgrad
        self.groups = (("m", "v"), ("v_hat",)) if amsgrad else (("m", "v"),)
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **common)

    def build(self, arena: Arena) -> None:
        """The slots, and two arrays that an update writes its intermediate results to."""
        if not self.built:
            size = min(arena.size, CHUNK)
            self._work = [np.empty(size, arena.dtype), np.empty(size, arena.dtype)]
        super().build(arena)

    def alphas(self, steps: int, dtype: Any) -> Array:
        """ops.adam_alpha, of dtype, of each of the coming steps, one a batch."""
        first = self._batches
        scheduled = isinstance(self._learning_rate, LearningRateSchedule)
        return ops.adam_alphas(
            np.dtype(dtype).type,
            steps=range(first + 1, first + steps + 1),
            learning_rate=self.rates(steps) if scheduled else self._learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
        )

    def update(self, arena: Arena, grads: Array) -> None:
        """ops.adam_step or ops.amsgrad_step over the whole arena; the former in chunks that stay in the cache."""
        if self.amsgrad:
            ops.amsgrad_step(arena.theta, grads, self.m, self.v, self.v_hat, **self._settings)
            return
        settings, arrays = self._settings, (arena.theta, grads, self.m, self.v)
        if arena.size <= CHUNK:
            ops.adam_step(*arrays, **settings, work=self._work)
            return
        for start in range(0, arena.size, CHUNK):
            parts = [array[start : start + CHUNK] for array in arrays]
            ops.adam_step(*parts, **settings, work=[array[: len(parts[0])] for array in self._work])


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): Adam whose weight_decay is 0.004 by default.

    Errors: as Adam's; ValueError for weight_decay=None.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **common: Any,
    ) -> None:
        if weight_decay is None:
            raise ValueError("AdamW: weight_decay must be a number; got None. Adam is AdamW without it.")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **common)


class Adamax(_AdamFamily):
    """Adamax (Kingma & Ba 2015): Adam with the largest gradient for the root of the mean square: ops.adamax_step.

    Arguments and errors: as Adam's, without amsgrad.
    """

    groups = (("m", "u"),)
    m: Array
    u: Array

    def update(self, arena: Arena, grads: Array) -> None:
        """ops.adamax_step over the whole arena."""
        ops.adamax_step(arena.theta, grads, self.m, self.u, **self._settings)


class Nadam(_AdamFamily):
    """Nadam (Dozat 2016): Adam with Nesterov's momentum; see ops.nadam_step.

    Arguments and errors: as Adam's, without amsgrad.
    """

    groups = (("m", "v"),)
    scalars = ("u_product",)
    m: Array
    v: Array
    u_product: Array

    def update(self, arena: Arena, grads: Array) -> None:
        """ops.nadam_step over the whole arena."""
        ops.nadam_step(arena.theta, grads, self.m, self.v, self.u_product, **self._settings)

    def update_without_gradients(self) -> None:
        """ops.nadam_product_step."""
        ops.nadam_product_step(self.u_product, step=self.updates + 1, beta_1=self.beta_1)


class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton 2012): θ ← θ − η g / √(v + ε); see ops.rmsprop_step for momentum and centered.

    rho in [0, 1). momentum ≥ 0. epsilon ≥ 0, inside the root. **common: as Optimizer's.
    Errors: ValueError for an argument out of range; as Optimizer's.
    """

    config_names = ("rho", "momentum", "epsilon", "centered")
    velocities: Array
    momentums: Array
    average_gradients: Array

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **common: Any,
    ) -> None:
        self.rho = self._decay_rate("rho", rho)
        self.momentum = self._number("momentum", momentum)
        self.epsilon = self._number("epsilon", epsilon)
        self.centered = centered
        self.groups = (
            ("velocities",),
            *([("momentums",)] if self.momentum else []),
            *([("average_gradients",)] if centered else []),
        )
        super().__init__(learning_rate, **common)

    def update(self, arena: Arena, grads: Array) -> None:
        """ops.rmsprop_step over the whole arena."""
        ops.rmsprop_step(
            arena.theta,
            grads,
            self.velocities,
            self.momentums if self.momentum else None,
            self.average_gradients if self.centered else None,
            learning_rate=self.rate,
            rho=self.rho,
            momentum=self.momentum,
            epsilon=self.epsilon,
        )


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan & Singer 2011): θ ← θ − η g / √(Σ g² + ε); see ops.adagrad_step.

    initial_accumulator_value ≥ 0: where the sum starts. epsilon ≥ 0, inside the root. **common: as Optimizer's.
    Errors: ValueError for an argument out of range; as Optimizer's.
    """

    groups = (("accumulators",),)
    config_names = ("initial_accumulator_value", "epsilon")
    accumulators: Array

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **common: Any,
    ) -> None:
        self.initial_accumulator_value = self._number("initial_accumulator_value", initial_accumulator_value)
        self.epsilon = self._number("epsilon", epsilon)
        super().__init__(learning_rate, **common)

    def build(self, arena: Arena) -> None:
        """The accumulators start at initial_accumulator_value, rounded to float32 also in float64, as in Keras."""
        first = not self.built
        super().build(arena)
        if first:
            self.accumulators[...] = np.float32(self.initial_accumulator_value)

    def update(self, arena: Arena, grads: Array) -> None:
        """ops.adagrad_step over the whole arena."""
        ops.adagrad_step(arena.theta, grads, self.accumulators, learning_rate=self.rate, epsilon=self.epsilon)


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012): the step is the root mean square of earlier steps over that of gradients, times g.

    See ops.adadelta_step. learning_rate: 1 in the paper. rho in [0, 1). epsilon ≥ 0. **common: as Optimizer's.
    Errors: ValueError for an argument out of range; as Optimizer's.
    """

    groups = (("accumulated_grads", "accumulated_deltas"),)
    config_names = ("rho", "epsilon")
    accumulated_grads: Array
    accumulated_deltas: Array

    def __init__(self, learning_rate: Any = 0.001, rho: float = 0.95, epsilon: float = 1e-7, **common: Any) -> None:
        self.rho = self._decay_rate("rho", rho)
        self.epsilon = self._number("epsilon", epsilon)
        super().__init__(learning_rate, **common)

    def update(self, arena: Arena, grads: Array) -> None:
        """ops.adadelta_step over the whole arena."""
        ops.adadelta_step(
            arena.theta,
            grads,
            self.accumulated_grads,
            self.accumulated_deltas,
            learning_rate=self.rate,
            rho=self.rho,
            epsilon=self.epsilon,
        )


_CLASSES: tuple[type[Optimizer], ...] = (Adadelta, Adagrad, Adam, AdamW, Adamax, Nadam, RMSprop, SGD)
_BY_NAME: dict[str, type[Optimizer]] = {found.__name__.lower(): found for found in _CLASSES}


def get(identifier: Any) -> Optimizer:
    """The optimizer for a name ("adam", in any case), a class, an instance or a config of serialize().

    Errors: ValueError for an unknown name (with the nearest ones) or anything else.
    """
    if isinstance(identifier, Optimizer):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Optimizer):
        return identifier()
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str) and identifier.lower() in _BY_NAME:
        return _BY_NAME[identifier.lower()]()
    raise ValueError(unknown_name("optimizer", identifier, _BY_NAME))


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer as Keras's dict: its class and its arguments."""
    return serialization.serialize(optimizer, "keras.optimizers")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Optimizer:
    """The optimizer of a serialize(), Keras's too; custom_objects: class name -> class of your own ones.

    Errors: ValueError for an unknown class, with the nearest names, or another form of config.
    """
    if isinstance(config, dict) and str(config.get("class_name")).lower() in _BY_NAME:
        config = {**config, "class_name": config["class_name"].lower()}
    return serialization.deserialize("optimizer", config, _BY_NAME, custom_objects)
