"""A divergence on its own: a model, a state and a few steps' rows, as a fit that can be repeated and made smaller.

A Case is trained by Keras's own fit: one step, from the state that weights and optimizer had before it, or, where that
does not diverge, several. It can be checked again, made smaller (see minimise.py), and written as a program that needs
nothing but Keras (see scripts.py).
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.oracle import scripts
from minidl.oracle.checking import check, record, twin_of
from minidl.oracle.recorder import CannotCheck, Recorder, installed_keras
from minidl.oracle.report import Divergence, Report
from minidl.oracle.steps import State, Step
from minidl.schedules import LearningRateSchedule

TIMEOUT = 180  # seconds for a script: Keras's import and its steps
NO_STEP = "the step alone, from its state, does not diverge: it takes what came before."


@dataclass
class Case:
    """A few steps of a fit: of the rows in order, batch_size at a time, all at once if None; steps: stop after so many.

    config: keras.saving.serialize_keras_object of the model, with compile_config. mode, dtype: as Report's about.
    state: before the first step. x, y, sample_weight: the rows, weights of classes included.
    """

    config: dict[str, Any]
    mode: str
    dtype: str
    state: State
    x: Array
    y: Array
    sample_weight: Array | None = None
    batch_size: int | None = None
    epochs: int = 1
    steps: int | None = None

    @classmethod
    def of(cls, report: Report) -> Case:
        """The step of a report's first divergence. Errors: ValueError where a step alone does not hold it."""
        first = report.first_divergence
        if first is None:
            raise ValueError("the report has no divergence.")
        step = first.recorded
        if first.quantity == "batch":
            raise ValueError("the order of the rows is a matter of the whole fit, not of one step.")
        if step is None or step.x is None or step.y is None:
            raise ValueError("the step was not recorded.")
        return cls(*_model_of(report), step.before, np.asarray(step.x), np.asarray(step.y), step.sample_weight)

    @classmethod
    def up_to(cls, report: Report) -> Case:
        """The fit from its start up to a report's first divergence, its rows as they stand. Errors: ValueError."""
        first, fit = report.first_divergence, report.fit
        if first is None or first.recorded is None or fit is None or fit.start is None:
            raise ValueError("the fit was not recorded.")
        x, y, weights = fit.data
        assert x is not None and y is not None
        step, size = first.recorded, int(report.about["batch_size"])
        case = cls(*_model_of(report), fit.start, x, y, weights, size, step.epoch + 1)
        return case.until(step.number)

    @property
    def rows_at_once(self) -> int:
        """Rows of a batch."""
        return self.batch_size or len(self.x)

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.x) // self.rows_at_once)

    @property
    def count(self) -> int:
        """Steps in all."""
        return self.steps or self.batches * self.epochs

    @property
    def stops(self) -> bool:
        """Whether the fit is broken off in the midst of its last epoch."""
        return self.count < self.batches * self.epochs

    def until(self, step: int) -> Case:
        """The case without what comes after a step, counted from 0."""
        epoch = step // self.batches
        if not epoch:
            return replace(self.rows(slice(0, (step + 1) * self.rows_at_once)), epochs=1, steps=None,
                           batch_size=self.rows_at_once)  # fmt: skip
        ends = (step + 1) % self.batches == 0
        return replace(self, epochs=epoch + 1, steps=None if ends else step + 1)

    def model(self) -> Any:
        """The Keras model, compiled, in the case's state. Errors: whatever Keras raises; CannotCheck."""
        keras = installed_keras()
        keras.utils.clear_session(free_memory=False)
        model = keras.saving.deserialize_keras_object(copy.deepcopy(self.config))
        model.run_eagerly, model.jit_compile = self.mode == "eager", self.mode in ("xla", "jit", "compile")
        if not model.built:
            model.build(np.shape(self.x))
        recorder = Recorder(keras, model, twin_of(keras, model))
        for (name, variable), value in zip(recorder._weights, self.weights(recorder.twin), strict=True):
            assert variable.shape == value.shape, name
            variable.assign(value)
        for variable, value in zip(model.optimizer.variables, self.optimizer(recorder.twin), strict=True):
            variable.assign(value)
        for layer in recorder.layers:
            if layer.name in self.state.seeds:
                layer.seed_generator.state.assign(self.state.seeds[layer.name])
        return model

    def weights(self, twin: Any) -> list[Array]:
        """In the order of model.weights."""
        names = (f"{layer.name}/{name}" for layer in twin.flat_layers() for name in (*layer.parameters, *layer.state))
        return [self.state.weights[name] for name in names]

    def optimizer(self, twin: Any) -> list[Any]:
        """In the order of model.optimizer.variables."""
        optimizer, state = twin.optimizer, self.state
        found: list[Any] = [state.iterations * (optimizer.gradient_accumulation_steps or 1)]
        if not isinstance(optimizer.learning_rate_argument, LearningRateSchedule):
            found.append(state.learning_rate)
        names = [f"{segment.layer}/{segment.name}" for segment in twin.arena.segments]
        optimizer.build(twin.arena)
        found += [state.slots[slot][name] for group in optimizer._all_groups for name in names for slot in group]
        return found + [state.slots[name][""] for name in optimizer.scalars]

    def check(self) -> Report:
        """What the oracle says of the case alone."""
        return check(
            self.model(), self.x, self.y, sample_weight=self.sample_weight, batch_size=self.rows_at_once,
            epochs=self.epochs, steps=self.steps, shuffle=False, drift=False,
        )  # fmt: skip

    def states(self, steps: list[int]) -> dict[int, State]:
        """The states before some of the steps, as Keras trains the case."""
        found: dict[int, State] = {}

        def keep(step: Step) -> None:
            if step.number in steps:
                found[step.number] = step.before

        record(
            self.model(), self.x, self.y, keep, sample_weight=self.sample_weight, batch_size=self.rows_at_once,
            epochs=self.epochs, steps=self.count, shuffle=False,
        )  # fmt: skip
        return found

    def rows(self, chosen: Any) -> Case:
        """The case with some of its rows."""
        weights = None if self.sample_weight is None else self.sample_weight[chosen]
        return replace(self, x=self.x[chosen], y=self.y[chosen], sample_weight=weights)

    def of_each_batch(self, chosen: Array) -> Case:
        """The case with the rows at these places of each batch; to its end, if it was broken off."""
        starts = self.rows_at_once * np.arange(self.batches)
        rows = (starts[:, None] + chosen).ravel()
        return replace(self.rows(rows[rows < len(self.x)]), batch_size=len(chosen), steps=None)

    def of_batches(self, chosen: Array) -> Case:
        """The case with some of the batches of each epoch; to its end, if it was broken off."""
        rows = (self.rows_at_once * chosen[:, None] + np.arange(self.rows_at_once)).ravel()
        return replace(self.rows(rows[rows < len(self.x)]), batch_size=self.rows_at_once, steps=None)

    def in_one_epoch(self) -> Case:
        """All epochs as one, rows repeated where a batch was a partial one."""
        rows = np.arange(self.batches * self.rows_at_once) % len(self.x)
        return replace(self.rows(np.tile(rows, self.epochs)), batch_size=self.rows_at_once, epochs=1, steps=None)


# --------------------------------------------------------------------------------------------------- run it


def run(text: str, timeout: float = TIMEOUT) -> tuple[int | None, str]:
    """A script's exit status and what it prints; None where it takes longer than timeout seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reproduce.py"
        path.write_text(text)
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        try:
            done = subprocess.run(
                [sys.executable, str(path)], capture_output=True, text=True, timeout=timeout, env=environment
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None, f"it took longer than {timeout:.0f} s"
    said = done.stdout.strip() or (done.stderr.strip().splitlines() or [""])[-1]
    return done.returncode, said


def reproduce(report: Report, case: Case | None = None, *, timeout: float = TIMEOUT) -> str | None:
    """Give a report's first divergence its script, run; returns the script. None, with the reason, where there is none.

    case: a smaller one of the same divergence; else the step itself, or, where that does not diverge, the fit so far.
    """
    first = report.first_divergence
    if first is None:
        return None
    first.script = None
    try:
        for text in texts(report, case):
            first.script = text
            status, said = run(text, timeout)
            if status == 1 and said.startswith("got "):
                first.script_result = f"Run: {said}. It diverges in {report.trainer} alone."
                break
            first.script_result = (
                f"Run in a process of its own it does not diverge ({said}): what is wrong lies in this process."
                if status == 0
                else f"Run in a process of its own it fails: {said}."
            )
    except (ValueError, CannotCheck) as error:
        if first.script is None:
            first.script_result = f"There is no script: {error}"
    return first.script


def texts(report: Report, case: Case | None = None) -> Iterator[str]:
    """Scripts of the first divergence, the shortest first: the next where one does not diverge. Errors: ValueError."""
    first = report.first_divergence
    assert first is not None
    if first.quantity == "batch":
        yield scripts.rows_script(report, numbered=True)
        if first.name != "count":
            yield scripts.rows_script(report, numbered=False)
    elif first.step < 0:
        yield scripts.start_script(report)
    elif case is None:
        yield scripts.fit_script(*diverging(report))
    else:
        yield scripts.fit_script(case, diverges(case, first.quantity, NO_STEP))


def diverging(report: Report) -> tuple[Case, Divergence]:
    """The case of a report's first divergence, and its own: one step if that diverges, else the fit up to it.

    Errors: ValueError.
    """
    first = report.first_divergence
    assert first is not None
    case = Case.of(report)
    try:
        return case, diverges(case, first.quantity, NO_STEP)
    except ValueError:
        case = Case.up_to(report)
        own = diverges(case, first.quantity, "from its start, with its rows as they stand, the fit does not diverge.")
        return case.until(own.step), own


def diverges(case: Case, quantity: str, otherwise: str) -> Divergence:
    """The first divergence of a case. Errors: ValueError(otherwise) if there is none, or one of another quantity."""
    own = case.check().first_divergence
    if own is None or own.quantity != quantity:
        raise ValueError(otherwise)
    return own


def _model_of(report: Report) -> tuple[dict[str, Any], str, str]:
    about = report.about
    if "model" not in about:
        raise ValueError("the model's configuration was not recorded.")
    return copy.deepcopy(about["model"]), str(about.get("mode", "graph")), str(about.get("dtype", "float32"))
