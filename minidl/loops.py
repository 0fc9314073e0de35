"""The loops over epochs and steps: fit, evaluate and predict. One step is in training.py."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import checks, random
from minidl.backend import Array
from minidl.callbacks import CallbackList, History, Logs
from minidl.interrupts import uncut
from minidl.training import by_name, forward, metric_results, test_step, train_step

if TYPE_CHECKING:
    from minidl.trainer import Trainer

DEFAULT_BATCH_SIZE = 32  # Keras's


def fit(
    model: Trainer,
    data: tuple[Array, Array, Array | None],
    validation: tuple[Array, Array, Array | None] | None,
    *,
    batch_size: int,
    validation_batch_size: int,
    validation_freq: int,
    epochs: int,
    initial_epoch: int,
    shuffle: bool | str,
    callbacks: Any,
    verbose: Any,
    check_finite: bool,
) -> History:
    """Train on checked arrays for epochs − initial_epoch epochs; see Sequential.fit for the arguments."""
    samples = len(data[0])
    steps = math.ceil(samples / batch_size)
    hooks = callback_list(model, callbacks, verbose, epochs=epochs, steps=steps, add_history=True)
    check_finite = check_finite and not hooks.accepts_non_finite_loss
    model.stop_training = False
    model.resumes_at_epoch = None
    logs: Logs = {}
    with hooks:
        hooks.on_train_begin()
        if not model.has_run:
            random.start_first_fit(samples, batch_size, shuffle)
            model.has_run = True
        for epoch in range(model.resumes_at_epoch or initial_epoch, epochs):
            model.reset_metrics()
            hooks.on_epoch_begin(epoch)
            order = random.epoch_order(samples, batch_size, shuffle)
            _train_epoch(model, data, order, steps, batch_size, hooks, check_finite)
            logs = by_name(metric_results(model))
            validates = validation is not None and (epoch + 1) % validation_freq == 0
            if validation is not None and validates:
                found = evaluate(model, validation, batch_size=validation_batch_size, callbacks=hooks)
                logs = by_name(logs | {f"val_{name}": value for name, value in found.items()})
            random.finish_epoch(evaluated=validates)
            hooks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        if epochs > 0:
            model.optimizer.finalize_variable_values()
        hooks.on_train_end(logs)
    return model.history


def _train_epoch(
    model: Trainer,
    data: tuple[Array, Array, Array | None],
    order: Array,
    steps: int,
    batch_size: int,
    hooks: CallbackList,
    check_finite: bool,
) -> None:
    """One step for each batch of rows, in the given order; the hooks are called once an execution."""
    x, y, sample_weight = data
    execution = model.steps_per_execution
    with uncut() as whole:
        for step in range(steps):
            rows = order[step * batch_size : (step + 1) * batch_size]
            weight = None if sample_weight is None else sample_weight[rows]
            last_of_execution = step - step % execution + execution - 1  # past the epoch's end, as in Keras
            if step % execution == 0:
                hooks.on_train_batch_begin(step)
            with whole:
                train_step(model, x[rows], y[rows], weight, check_finite=check_finite)
            if step in (last_of_execution, steps - 1):
                hooks.on_train_batch_end(last_of_execution, lambda: metric_results(model))
            if model.stop_training:
                return


def evaluate(
    model: Trainer,
    data: tuple[Array, Array, Array | None],
    *,
    batch_size: int,
    verbose: Any = 0,
    callbacks: Any = None,
) -> Logs:
    """The loss, penalties included, and the metrics on checked arrays at inference."""
    x, y, sample_weight = data
    steps = math.ceil(len(x) / batch_size)
    with callback_list(model, callbacks, verbose, epochs=1, steps=steps) as hooks:
        model.stop_evaluating = False
        hooks.on_test_begin()
        model.reset_metrics()
        for step in range(steps):
            rows = slice(step * batch_size, (step + 1) * batch_size)
            hooks.on_test_batch_begin(step)
            test_step(model, x[rows], y[rows], None if sample_weight is None else sample_weight[rows])
            hooks.on_test_batch_end(step, lambda: metric_results(model))
            if model.stop_evaluating:
                break
        logs = metric_results(model)
        hooks.on_test_end(logs)
    return logs


def predict(model: Trainer, x: Array, *, batch_size: int, verbose: Any = 0, callbacks: Any = None) -> Array:
    """The outputs at inference, batch by batch;  (samples, I) -> (samples, U)."""
    steps = math.ceil(len(x) / batch_size)
    batches: list[Array] = []
    with callback_list(model, callbacks, verbose, epochs=1, steps=steps) as hooks:
        model.stop_predicting = False
        hooks.on_predict_begin()
        for step in range(steps):
            hooks.on_predict_batch_begin(step)
            batches.append(forward(model, x[step * batch_size : (step + 1) * batch_size], training=False))
            hooks.on_predict_batch_end(step, {"outputs": batches[-1]})
            if model.stop_predicting:
                break
        hooks.on_predict_end()
    return np.concatenate(batches)


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


# ------------------------------------------------------------------------------------------ the data


def checked_data(
    model: Trainer, x: Any, y: Any, sample_weight: Any, class_weight: Any, *, check_finite: bool
) -> tuple[Array, Array, Array | None]:
    """x, y and weights as arrays of the model's dtype that fit the model; builds it if this is its first data."""
    array = model.checked_features(x, check_finite=check_finite)
    if y is None:
        raise ValueError("y: the labels are missing. Pass an array with one row a sample.")
    units = model.output_shape[-1]
    model.resolve_loss(np.shape(y))
    labels = checks.labels(y, model.dtype, units, len(array), sparse=model.loss.sparse, check_finite=check_finite)
    if check_finite:
        model.loss.check_labels(labels, units)
    weights = checks.weights_per_sample(
        labels, sample_weight, class_weight, model.dtype, len(array), check_finite=check_finite
    )
    return array, labels, weights


def split_validation(
    data: tuple[Array, Array, Array | None], fraction: float
) -> tuple[tuple[Array, Array, Array | None], tuple[Array, Array, Array | None]]:
    """The first ⌊n(1 − fraction)⌋ rows to train on, and the rest to validate on, before any shuffling.

    Errors: ValueError for a fraction outside (0, 1) or one that leaves either part empty.
    """
    if not 0.0 < checks.finite_float("fit", "validation_split", fraction) < 1.0:
        raise ValueError(f"validation_split must be in [0, 1); got {fraction!r}.")
    samples = len(data[0])
    at = math.floor(samples * (1.0 - fraction))
    if at in (0, samples):
        raise ValueError(
            f"validation_split={fraction!r} of {samples} samples leaves no data to train on or none to validate on."
        )

    def part(rows: slice) -> tuple[Array, Array, Array | None]:
        x, y, sample_weight = data
        return x[rows], y[rows], None if sample_weight is None else sample_weight[rows]

    return part(slice(0, at)), part(slice(at, samples))
