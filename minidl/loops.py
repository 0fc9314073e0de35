"""The loops over epochs and steps: fit, evaluate and predict.

One step is in training.py, its fast form in fused.py, its form on a GPU in on_device.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import fused, on_device, random
from minidl.backend import Array
from minidl.batches import ArrayBatches, Batches, Epochs, OutOfData
from minidl.callbacks import CallbackList, History, Logs
from minidl.device import Device
from minidl.fused import FusedStep
from minidl.interrupts import Whole, uncut
from minidl.training import by_name, forward, metric_results, step_without_batch, test_step, train_step

if TYPE_CHECKING:
    from minidl.trainer import Trainer

DEFAULT_BATCH_SIZE = 32  # Keras's


def fit(
    model: Trainer,
    data: Batches,
    validation: Batches | None,
    *,
    steps_per_epoch: int | None,
    validation_steps: int | None,
    validation_freq: int | Collection[int],
    epochs: int,
    initial_epoch: int,
    callbacks: Any,
    verbose: Any,
    check_finite: bool,
    device: Device | None = None,
) -> History:
    """Train for epochs − initial_epoch epochs; see Trainer.fit for the arguments."""
    steps = Epochs(data, steps_per_epoch, model.steps_per_execution)
    steps.reset()
    hooks = callback_list(model, callbacks, verbose, epochs=epochs, steps=steps.num_batches, add_history=True)
    check_finite = check_finite and not hooks.accepts_non_finite_loss
    evaluation = None if validation is None else Epochs(validation, validation_steps, model.steps_per_execution)
    step = None if device is not None else step_on(model, data, check_finite)
    model.stop_training = False
    model.resumes_at_epoch = None
    logs: Logs = {}
    there = None
    with hooks, contextlib.nullcontext() if device is None else device.active():
        if device is not None:
            assert isinstance(data, ArrayBatches)
            there = on_device.Training(model, device, data, steps, evaluation, hooks, check_finite)
        hooks.on_train_begin()
        if not model.has_run and isinstance(data, ArrayBatches):
            random.start_first_fit(data.samples, data.batch_size, data.shuffle or False)
        model.has_run = True
        for epoch in range(model.resumes_at_epoch or initial_epoch, epochs):
            model.reset_metrics()
            hooks.on_epoch_begin(epoch)
            if there is not None:
                there.train_epoch(epoch)
            elif step is not None:
                _train_epoch(model, steps, step, hooks)
            logs = by_name(metric_results(model))
            validates = evaluation is not None and is_due(epoch, validation_freq)
            if evaluation is not None and validates:
                found = evaluate(model, evaluation, callbacks=hooks, there=None if there is None else there.evaluate)
                logs = by_name(logs | {f"val_{name}": value for name, value in found.items()})
            random.finish_epoch(evaluated=validates)
            hooks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        if there is not None:
            there.keep()
        if epochs > 0:
            model.optimizer.finalize_variable_values()
        hooks.on_train_end(logs)
    return model.history


def is_due(epoch: int, validation_freq: int | Collection[int]) -> bool:
    """Whether to validate after this epoch, counted from 0: every so many, or after those of a list, from 1."""
    number = epoch + 1
    return number % validation_freq == 0 if isinstance(validation_freq, int) else number in validation_freq


def _train_epoch(model: Trainer, epochs: Epochs, step: Step, hooks: CallbackList) -> None:
    """One step for each batch; the hooks are called once an execution, or where none listens not at all."""
    with uncut() as whole, epochs.until_data_end():
        if step.together > 1 and not hooks.listen_to_steps and 1 in (epochs.execution, epochs.steps_per_epoch or 1):
            for last, rows in epochs.together(step.together):
                with whole:
                    step(rows, whole)
                hooks.on_train_batch_end(last, lambda: metric_results(model))  # progress bars
                if model.stop_training:
                    return
            return
        for first, last, iterator in epochs:
            hooks.on_train_batch_begin(first)
            try:
                for batch in epochs.next_batches(iterator):
                    with whole:
                        step(batch, whole)
            except OutOfData:
                step_without_batch(model)
                raise
            hooks.on_train_batch_end(last, lambda: metric_results(model))
            if model.stop_training:
                return


class Step:
    """The training step on one of data's batches, as training.py's. together: on how many at once, given their rows."""

    together = 1

    def __init__(self, model: Trainer, data: Batches, check_finite: bool) -> None:
        self._model, self._data, self._check_finite = model, data, check_finite

    def __call__(self, batch: Any, whole: Whole) -> None:
        train_step(self._model, *self._data.take(batch), check_finite=self._check_finite)


class FastStep(Step):
    """The same in its fused form."""

    def __init__(self, model: Trainer, data: ArrayBatches, check_finite: bool) -> None:
        super().__init__(model, data, check_finite)
        self._arrays = data.x, data.y, data.sample_weight
        self._batch_size = data.batch_size
        batches = fused.batches_together(data.batch_size, data.x.shape[1], data.x.itemsize)
        self.together = max(1, min(batches, data.samples // data.batch_size))
        self._steps: dict[int, FusedStep] = {}

    def __call__(self, rows: Array, whole: Whole) -> None:
        x, y, sample_weight = self._arrays
        size = min(len(rows), self._batch_size)
        if size not in self._steps:
            self._steps[size] = FusedStep(self._model, size, self.together if size == self._batch_size else 1)
        self._steps[size].run(x, y, rows, sample_weight, check_finite=self._check_finite, whole=whole)


def step_on(model: Trainer, data: Batches, check_finite: bool) -> Step:
    """The training step on data's batches: that of training.py, or where there is one its fused form."""
    fast = isinstance(data, ArrayBatches) and data.later is None and fused.fits(model)
    return FastStep(model, data, check_finite) if fast else Step(model, data, check_finite)  # type: ignore[arg-type]


def evaluate(
    model: Trainer,
    epochs: Epochs,
    *,
    verbose: Any = 0,
    callbacks: Any = None,
    there: Callable[[], None] | None = None,
) -> Logs:
    """The loss, penalties included, and the metrics at inference. there: computes them on a device."""
    epochs.reset()
    with callback_list(model, callbacks, verbose, epochs=1, steps=epochs.num_batches) as hooks:
        model.stop_evaluating = False
        hooks.on_test_begin()
        model.reset_metrics()
        if there is None:
            _evaluate_batches(model, epochs, hooks)
        else:
            there()
        logs = metric_results(model)
        hooks.on_test_end(logs)
    return logs


def _evaluate_batches(model: Trainer, epochs: Epochs, hooks: CallbackList) -> None:
    with epochs.until_data_end():
        for first, last, iterator in epochs:
            hooks.on_test_batch_begin(first)
            for batch in epochs.next_batches(iterator):
                test_step(model, *epochs.batches.take(batch))
            hooks.on_test_batch_end(last, lambda: metric_results(model))
            if model.stop_evaluating:
                break


def predict(model: Trainer, epochs: Epochs, *, verbose: Any = 0, callbacks: Any = None) -> Array:
    """The outputs at inference, batch after batch;  (samples, …, I) -> (samples, …, U)."""
    outputs: list[Array] = []
    with callback_list(model, callbacks, verbose, epochs=1, steps=epochs.num_batches) as hooks:
        model.stop_predicting = False
        hooks.on_predict_begin()
        with epochs.until_data_end():
            for first, last, iterator in epochs:
                hooks.on_predict_batch_begin(first)
                found = [
                    forward(model, epochs.batches.take(batch)[0], training=False)
                    for batch in epochs.next_batches(iterator)
                ]
                outputs += found
                hooks.on_predict_batch_end(last, lambda found=found: {"outputs": np.concatenate(found)})  # type: ignore[misc]
                if model.stop_predicting:
                    break
        hooks.on_predict_end()
    return np.concatenate(outputs)


def evaluate_on(device: Device, model: Trainer, epochs: Epochs, **settings: Any) -> Logs:
    """evaluate on a device."""
    assert isinstance(epochs.batches, ArrayBatches)
    with device.active(), on_device.Evaluation.of(model, device, epochs.batches, scored=True) as there:
        return evaluate(model, epochs, **settings, there=lambda: there.run(epochs))


def predict_on(device: Device, model: Trainer, epochs: Epochs, *, verbose: Any = 0, callbacks: Any = None) -> Array:
    """predict on a device, for arrays of the device as one of its arrays, else as a NumPy array."""
    assert isinstance(epochs.batches, ArrayBatches)
    with callback_list(model, callbacks, verbose, epochs=1, steps=epochs.num_batches) as hooks, device.active():
        hooks.on_predict_begin()
        with on_device.Prediction.of(model, device, epochs.batches, scored=False) as there:
            there.run(epochs)
            outputs = there.predicted()
            if device.adopted(epochs.batches.x) is None:
                outputs = device.host(outputs)
        hooks.on_predict_end()
        return outputs


def callback_list(
    model: Trainer, callbacks: Any, verbose: Any, *, epochs: int, steps: int | None, add_history: bool = False
) -> CallbackList:
    """The callbacks as one: a CallbackList as it is, otherwise those given and the printing of progress."""
    if isinstance(callbacks, CallbackList):
        return callbacks
    return CallbackList(
        callbacks,
        add_history=add_history,
        add_progbar=not (isinstance(verbose, (bool, int)) and verbose == 0),
        model=model,
        verbose=verbose,
        epochs=epochs,
        steps=steps,
    )
