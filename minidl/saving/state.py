"""What a model keeps, by the paths of Keras's files: layers/dense (its class, counted), layers/sequential/layers/…."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.layers import Layer
from minidl.naming import to_snake_case
from minidl.saving.hdf5 import OWN
from minidl.schedules import LearningRateSchedule

SEEDS = f"{OWN}/seeds"
OPTIMIZER = "optimizer/vars"


def inner_layers(layer: Layer) -> list[Layer]:
    """The layers of a model; of a plain layer none."""
    return list(getattr(layer, "layers", []))


def walk(model: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """(path, object) of the model, as "", and of all in it; a layer that is there twice comes once, as in Keras.

    Source: keras.src.saving.saving_lib._save_state and _save_container_state.
    """
    yield from _walk(model, path, set())


def _walk(model: Layer, path: str, seen: set[int]) -> Iterator[tuple[str, Layer]]:
    if id(model) in seen:
        return
    seen.add(id(model))
    yield path, model
    uses: collections.Counter[str] = collections.Counter()
    for layer in inner_layers(model):
        name = to_snake_case(type(layer).__name__)
        count = uses[name]
        uses[name] += 1
        place = f"layers/{name}" if count == 0 else f"layers/{name}_{count}"
        yield from _walk(layer, f"{path}/{place}" if path else place, seen)


def _vars(path: str) -> str:
    return f"{path}/vars" if path else "vars"


def _own_weights(found: Layer) -> list[Array]:
    """The weights that are an object's own, not those of layers in it."""
    return [] if inner_layers(found) else found.weights


def collect(model: Any) -> tuple[dict[str, str], dict[str, Array]]:
    """(the name of each group, the arrays by path): weights, the optimizer's variables, and the random seeds."""
    names, arrays = {}, {}
    for path, found in walk(model):
        names[_vars(path)] = found.name
        for i, weight in enumerate(_own_weights(found)):
            arrays[f"{_vars(path)}/{i}"] = weight
    if model.compiled:
        names[OPTIMIZER] = model.optimizer.name
        for i, variable in enumerate(model.optimizer.variables):
            arrays[f"{OPTIMIZER}/{i}"] = variable
    for path, state in seeds(model).items():
        arrays[f"{SEEDS}/{path}"] = state
    return names, arrays


def seeds(model: Layer) -> dict[str, Array]:
    """[seed, counter] of each layer that draws, by path: the array itself."""
    generators = ((path, getattr(found, "seed_generator", None)) for path, found in walk(model))
    return {path: generator.state for path, generator in generators if generator is not None}


def stored(arrays: dict[str, Array], path: str) -> list[Array]:
    """What a file has under path/0, path/1, …. Errors: ValueError for other names there, or a gap."""
    found = {name[len(path) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{path}/")}
    if sorted(found) != sorted(map(str, range(len(found)))):
        raise ValueError(f"{path}: expected variables 0, 1, …; found {sorted(found)[:10]}")
    return [found[str(i)] for i in range(len(found))]


def count_of_weights(arrays: dict[str, Array]) -> int:
    """The scalars in all weights of layers: more than these no model may make from a file."""
    return sum(array.size for path, array in arrays.items() if re.match(r"layers/.*/vars/\d+$", path))


def _matches(name: str, own: list[Array], values: list[Array]) -> None:
    if [weight.shape for weight in own] != [value.shape for value in values]:
        raise ValueError(
            f"{name} has weights of the shapes {[weight.shape for weight in own]}; the file has "
            f"{[value.shape for value in values]} for it"
        )


class Plan:
    """What is to be written where: made and checked in full before apply() writes any of it."""

    def __init__(self) -> None:
        self.writes: list[tuple[Array, Array]] = []
        self.optimizer: tuple[Any, list[Array]] | None = None
        self.failures: list[str] = []
        self.notes: list[str] = []  # what is to be warned of

    def apply(self) -> None:
        """Write it all."""
        if self.optimizer is not None:
            optimizer, values = self.optimizer
            optimizer.load_own_variables(values)
        for target, value in self.writes:
            with np.errstate(all="ignore"):  # float64 beyond float32's range becomes an infinity, as in Keras
                target[...] = value


def plan_weights(model: Layer, arrays: dict[str, Array], *, skip_mismatch: bool) -> Plan:
    """The plan for the weights of a file by Keras's paths.

    Errors: ValueError for a layer whose weights in the file are others; with skip_mismatch these are left, and named
    in the plan's failures. Layers that only the file has are ignored, as Keras ignores them.
    """
    plan = Plan()
    for path, found in walk(model):
        own = _own_weights(found)
        try:
            values = stored(arrays, _vars(path))
            _matches(f"{found.name} ({path or 'the model'})", own, values)
        except ValueError as error:
            plan.failures.append(str(error))
        else:
            plan.writes += zip(own, values, strict=True)
    if plan.failures and not skip_mismatch:
        raise ValueError(f"{len(plan.failures)} of the model's layers do not fit the file: {plan.failures[0]}")
    return plan


def plan_optimizer(plan: Plan, model: Any, arrays: dict[str, Array]) -> None:
    """Add the optimizer's state to the plan, where both the model and the file have one.

    One that has taken no step yet has a count and a learning rate alone: from a file these are taken over; for one
    here, as Keras has it, nothing is, with a warning.
    Errors: ValueError for what no optimizer can have.
    """
    values = stored(arrays, OPTIMIZER)
    if not model.compiled or not values:
        return
    optimizer = model.optimizer
    own = optimizer.variables
    head = 1 if isinstance(optimizer.learning_rate_argument, LearningRateSchedule) else 2
    if len(values) == head < len(own):
        values = [*values, *own[head:]]
    if len(values) != len(own):
        plan.notes.append(
            f"Skipping variable loading for optimizer '{optimizer.name}', because it has {len(own)} variables whereas "
            f"the saved optimizer has {len(values)} variables."
        )
        return
    optimizer.check_variables(values)
    plan.optimizer = optimizer, values


def plan_seeds(plan: Plan, model: Layer, states: dict[str, Array]) -> None:
    """Add the random seeds to the plan, so that no number is drawn twice.

    A generator that has drawn nothing goes on from the file's state; one that has is never put back: of the same seed
    it goes on from whichever count is larger, of another it stays.
    Errors: ValueError for what no generator's state can be.
    """
    for path, own in seeds(model).items():
        state = states.get(path)
        if state is None:
            continue
        if state.shape != (2,) or state.dtype.kind != "i" or state[1] < 0:
            raise ValueError(f"the random seed of {path} must be two integers, seed and counter; got {state!r}")
        if own[1] == 0 or (state[0] == own[0] and state[1] > own[1]):
            plan.writes.append((own, state))
