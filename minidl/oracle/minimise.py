"""The smallest fit that still diverges: fewer steps, rows, layers, units and inputs, by delta debugging.

Each attempt is trained by Keras and judged anew; one counts where the same quantity diverges. Source: Zeller &
Hildebrandt, Simplifying and isolating failure-inducing input, IEEE TSE 28 (2002), algorithm ddmin.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.oracle.recorder import CannotCheck
from minidl.oracle.report import Divergence, Report
from minidl.oracle.reproduce import NO_STEP, Case
from minidl.oracle.steps import State

ATTEMPTS, SECONDS = 120, 180.0  # at most


class Minimiser:
    """Makes a case smaller as long as quantity diverges; `case` is the smallest so far, `first` its divergence.

    progress: called with (attempts, all at most). Errors: ValueError if the case itself does not diverge.
    """

    def __init__(
        self,
        case: Case,
        quantity: str,
        *,
        attempts: int = ATTEMPTS,
        seconds: float = SECONDS,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.quantity, self.most, self.progress = quantity, attempts, progress
        self.attempts, self._end = 0, time.monotonic() + seconds
        self.case, self.first = case, self._divergence(case)
        if self.first is None:
            raise ValueError(NO_STEP)
        self.case = case.until(self.first.step)

    def run(self) -> Case:
        """Shrink steps, rows, layers and widths in turn until nothing more can go."""
        before = None
        while before != (before := _size(self.case)) and not self._spent:
            self._epochs()
            self._start()
            self._fewer(lambda: self.case.batches, lambda chosen: self.case.of_batches(chosen))
            self._fewer(lambda: self.case.rows_at_once, lambda chosen: self.case.of_each_batch(chosen))
            self._layers()
            self._units()
            self._inputs()
            if before == _size(self.case):
                break
        return self.case

    @property
    def _spent(self) -> bool:
        return self.attempts >= self.most or time.monotonic() > self._end

    def _divergence(self, case: Case) -> Divergence | None:
        self.attempts += 1
        if self.progress is not None:
            self.progress(min(self.attempts, self.most), self.most)
        try:
            report: Report = case.check()
        except (CannotCheck, ValueError, TypeError, KeyError, IndexError, AssertionError):
            return None  # no model any more
        first = report.first_divergence
        return first if first is not None and first.quantity == self.quantity else None

    def _try(self, case: Case | None) -> bool:
        if case is None or self._spent:
            return False
        first = self._divergence(case)
        if first is None:
            return False
        self.case, self.first = case.until(first.step), first
        return True

    def _epochs(self) -> None:
        """All in one epoch, or fewer epochs."""
        while self.case.epochs > 1 and not self._spent:
            epochs = self.case.epochs
            fewer = [
                replace(self.case, epochs=number, steps=None) for number in dict.fromkeys((epochs // 2, epochs - 1))
            ]
            if not any(self._try(case) for case in (self.case.in_one_epoch(), *fewer)):
                return

    def _start(self) -> None:
        """From the state before a later step: the last, or with one, two, four, … steps before it."""
        case, last = self.case, self.case.count - 1
        if case.epochs > 1 or not last:
            return
        starts = [last - leading for leading in (0, *(2**i for i in range(last.bit_length()))) if leading < last]
        states = case.states(starts)
        for start in starts:
            if self._try(replace(case.of_batches(np.arange(start, case.batches)), state=states[start])):
                return

    def _fewer(self, count: Callable[[], int], case_of: Callable[[Any], Case | None]) -> None:
        """ddmin over so many parts of the case."""
        parts = 2
        while count() > 1 and not self._spent:
            every = np.arange(count())
            groups = np.array_split(every, min(parts, len(every)))
            if any(self._try(case_of(group)) for group in groups):
                parts = 2
            elif len(groups) > 2 and any(self._try(case_of(np.setdiff1d(every, group))) for group in groups):
                parts = max(len(groups) - 1, 2)
            elif len(groups) == len(every):
                break
            else:
                parts = min(2 * parts, len(every))

    def _layers(self) -> None:
        """One layer fewer, from the last but one to the first."""
        for at in reversed(range(len(_layers(self.case.config)) - 1)):
            layers = _layers(self.case.config)
            if at < len(layers) - 1 and layers[at]["class_name"] != "InputLayer":
                config = copy.deepcopy(self.case.config)
                del _layers(config)[at]
                self._try(_fitted(self.case, config))

    def _units(self) -> None:
        """Fewer units of each layer: one, then half."""
        for at, layer in enumerate(_layers(self.case.config)):
            units = layer["config"].get("units")
            while units is not None and units > 1:
                for fewer in dict.fromkeys((1, units // 2, units - 1)):
                    config = copy.deepcopy(self.case.config)
                    _layers(config)[at]["config"]["units"] = fewer
                    last = at == len(_layers(config)) - 1
                    y = self.case.y
                    if last and np.ndim(y) > 1 and y.shape[-1] == units:
                        y = y[..., :fewer]
                    if self._try(_fitted(replace(self.case, y=y), config)):
                        units = fewer
                        break
                else:
                    break

    def _inputs(self) -> None:
        """ddmin over the columns of x."""
        if self.case.x.ndim == 2 and _layers(self.case.config):
            self._fewer(lambda: self.case.x.shape[1], lambda chosen: _of_columns(self.case, chosen))


def _of_columns(case: Case, chosen: Array) -> Case | None:
    """The case with some columns of x, and of what is as wide before and in the first Dense layer."""
    config = copy.deepcopy(case.config)
    wide: list[str] = []
    for layer in _layers(config):
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_shape"] = [None, len(chosen)]
            continue
        name, dense = layer["config"]["name"], layer["class_name"] == "Dense"
        own = [key for key in case.state.weights if key.startswith(f"{name}/")]
        wide += [f"{name}/kernel"] if dense else own
        if dense:
            break

    def of(tensors: dict[str, Array]) -> dict[str, Array]:
        return {key: value[chosen] if key in wide else value for key, value in tensors.items()}

    slots = {slot: of(tensors) for slot, tensors in case.state.slots.items()}
    state = replace(case.state, weights=of(case.state.weights), slots=slots)
    return _fitted(replace(case, x=case.x[:, chosen], state=state), config)


def _size(case: Case) -> tuple[int, ...]:
    return case.count, len(case.x), len(_layers(case.config)), sum(value.size for value in case.state.weights.values())


def _layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of a Sequential; of another model none can go."""
    if config["class_name"] != "Sequential":
        return []
    found: list[dict[str, Any]] = config["config"]["layers"]
    return found


def _fitted(case: Case, config: dict[str, Any]) -> Case | None:
    """The case with another configuration: its weights and slots cut, or repeated, to the new shapes."""
    from minidl import saving

    if not _layers(config):
        return None
    shape = [None, *case.x.shape[1:]]
    for described in (config, *_layers(config)):
        described.pop("build_config", None)
    config["config"].pop("build_input_shape", None)
    try:
        twin = saving.objects.deserialize_model(copy.deepcopy(config))
        if not twin.built:
            twin.build(tuple(shape))
    except (TypeError, ValueError, NotImplementedError):
        return None
    config["build_config"] = {"input_shape": shape}
    shapes = {
        f"{layer.name}/{name}": array.shape
        for layer in twin.flat_layers()
        for name, array in {**layer.parameters, **layer.state}.items()
    }
    names = {layer.name for layer in twin.flat_layers()}
    old = case.state
    state = State(
        {name: _cut(old.weights[name], shape) for name, shape in shapes.items()},
        {
            slot: {name: value if not name else _cut(value, shapes[name])
                   for name, value in tensors.items() if not name or name in shapes}
            for slot, tensors in old.slots.items()
        },
        old.iterations,
        old.learning_rate,
        {name: seed for name, seed in old.seeds.items() if name in names},
    )  # fmt: skip
    return replace(case, config=config, state=state)


def _cut(array: Array, shape: tuple[int, ...]) -> Array:
    """The first numbers along each axis; where it is too short they begin anew."""
    for axis, size in enumerate(shape):
        array = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
    return array
