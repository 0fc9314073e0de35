"""One training step, and the loops over steps and epochs around it.

The step, from top to bottom: forward → loss → backward → penalties → update → metrics. Each line of train_step is
one of these; the layers, the loss and the optimizer hold the formulas' arguments, and ops.py the formulas.
"""

from __future__ import annotations

import math
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import activations, checks, config, random
from minidl.backend import Array
from minidl.callbacks import CallbackList, History, Logs, figures, progress_logger
from minidl.layers import Dense

if TYPE_CHECKING:
    from minidl.models import Sequential

DEFAULT_BATCH_SIZE = 32  # Keras's


# ------------------------------------------------------------------------------------------ one step


def train_step(model: Sequential, x: Array, y: Array, sample_weight: Array | None, *, check_finite: bool) -> None:
    """One step of gradient descent on a batch: x (B, I), y (B, U), sample_weight (B,) or None.

    Errors: FloatingPointError if the loss is not finite; the weights are then those before this step.
    """
    y_pred = training_forward(model, x)
    loss = total_loss(model, y, y_pred, sample_weight)
    if check_finite and not math.isfinite(loss):
        raise _diverged(model, loss)
    backward(model, y, y_pred, sample_weight)
    add_penalty_gradients(model)
    model.optimizer.apply(model.arena)
    update_metrics(model, loss, y, y_pred)


def test_step(model: Sequential, x: Array, y: Array, sample_weight: Array | None) -> None:
    """The forward half of a step at inference: adds the batch's loss and metrics to the model's."""
    y_pred = forward(model, x, training=False)
    update_metrics(model, total_loss(model, y, y_pred, sample_weight), y, y_pred)


def forward(model: Sequential, x: Array, *, training: bool) -> Array:
    """Each layer on the outputs of the one before;  (B, I) -> (B, U)."""
    for layer in model.layers:
        x = layer.forward(x, training=training)
    return x


def training_forward(model: Sequential, x: Array) -> Array:
    """forward with dropout; under jit_compile=True with XLA's masks in place of TensorFlow's."""
    if model.jit_compile and config.random_stream() == "tensorflow":
        with config.using_random_stream("tensorflow-xla"):
            return forward(model, x, training=True)
    return forward(model, x, training=True)


def loss_inputs(model: Sequential, y_pred: Array) -> tuple[Array, bool]:
    """What the loss is computed from, and whether these are logits.

    As Keras on TensorFlow: of a model that ends in Dense(activation="sigmoid"), binary cross-entropy takes the
    logits under the sigmoid, with a warning if it was told that these are logits already; see
    ops.binary_crossentropy_from_logits. Keras on JAX and torch does not do so, and clips: the "jax" and "torch"
    random streams follow it.
    """
    last = model.layers[-1]
    recovers = model.loss.recovers_logits() and config.random_stream() not in ("jax", "torch")
    if recovers and isinstance(last, Dense) and last.activation is activations.sigmoid:
        if model.loss.from_logits:
            warnings.warn(
                f"{model.loss.name}: from_logits=True, but the model ends in a sigmoid, so its outputs are "
                f"probabilities. The loss is computed from the logits under the sigmoid; drop one of the two.",
                stacklevel=2,
            )
        return last.pre_activations, True
    return y_pred, model.loss.from_logits


def total_loss(model: Sequential, y: Array, y_pred: Array, sample_weight: Array | None) -> Any:
    """The data's loss plus the penalty of every regularizer, a scalar."""
    predictions, from_logits = loss_inputs(model, y_pred)
    loss = model.loss.value(y, predictions, from_logits=from_logits, sample_weight=sample_weight)
    for layer in model.layers:
        for penalty in layer.losses:
            loss = loss + penalty
    return loss


def backward(model: Sequential, y: Array, y_pred: Array, sample_weight: Array | None) -> None:
    """The gradient of the data's loss for every parameter, from the last layer to the first, into arena.grads."""
    predictions, from_logits = loss_inputs(model, y_pred)
    gradient = model.loss.gradient(y, predictions, from_logits=from_logits, sample_weight=sample_weight)
    gradient = model.optimizer.scale_loss(gradient)
    *below, last = model.layers
    if isinstance(last, Dense) and predictions is not y_pred:
        gradient = last.backward_from_pre_activations(gradient)
    else:
        gradient = last.backward(gradient)
    for layer in reversed(below):
        gradient = layer.backward(gradient)


def add_penalty_gradients(model: Sequential) -> None:
    """Add each regularizer's own gradient to its parameter's."""
    for layer in model.layers:
        for name, regularizer in layer.regularizers.items():
            layer.grads[name] += model.optimizer.scale_loss(regularizer.gradient(layer.parameters[name]))


def update_metrics(model: Sequential, loss: Any, y: Array, y_pred: Array) -> None:
    """Add a batch to the running means: the loss weighted by the batch's size, the metrics by sample."""
    model.loss_tracker.add(loss * len(y), len(y))
    for metric in model.compiled_metrics:
        metric.update_state(y, y_pred)


def metric_results(model: Sequential) -> Logs:
    """The loss and the metrics since they were reset: "loss" first."""
    return {metric.name: float(metric.result()) for metric in model.metrics}


def by_name(logs: Logs) -> Logs:
    """The logs in the order of their names, as Keras shows them."""
    return dict(sorted(logs.items()))


def _diverged(model: Sequential, loss: Any) -> FloatingPointError:
    return FloatingPointError(
        f"{model.name}: the loss became {loss} at step {model.optimizer.iterations + 1}. The weights are those "
        f"before this step. Usual causes: a learning rate that is too high (now "
        f"{model.optimizer.learning_rate:g}), or inputs that are not standardized. check_finite=False trains on, "
        f"as Keras does."
    )


# ------------------------------------------------------------------------------------------ the loops


def fit(
    model: Sequential,
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
    history = History()
    hooks = CallbackList(callbacks, model=model, history=history, verbose=verbose, epochs=epochs, steps=steps)
    model.stop_training = False
    logs: Logs = {}
    hooks.train_begin()
    try:
        if not model.has_run:
            random.start_first_fit(samples, batch_size, shuffle)
            model.has_run = True
        for epoch in range(initial_epoch, epochs):
            model.reset_metrics()
            hooks.epoch_begin(epoch)
            order = random.epoch_order(samples, batch_size, shuffle)
            _train_epoch(model, data, order, steps, batch_size, hooks, check_finite)
            logs = by_name(metric_results(model))
            validates = validation is not None and (epoch + 1) % validation_freq == 0
            if validation is not None and validates:
                found = evaluate(model, validation, batch_size=validation_batch_size)
                logs |= {f"val_{name}": value for name, value in by_name(found).items()}
            random.finish_epoch(evaluated=validates)
            hooks.epoch_end(epoch, logs)
            if model.stop_training:
                break
        if epochs > 0:
            model.optimizer.finalize_variable_values()
        hooks.train_end(logs)
    finally:
        hooks.close()
    return history


def _train_epoch(
    model: Sequential,
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
    for step in range(steps):
        rows = order[step * batch_size : (step + 1) * batch_size]
        weight = None if sample_weight is None else sample_weight[rows]
        last_of_execution = step - step % execution + execution - 1  # past the epoch's end, as in Keras
        if step % execution == 0:
            hooks.step_begin(step)
        train_step(model, x[rows], y[rows], weight, check_finite=check_finite)
        if step in (last_of_execution, steps - 1):
            hooks.step_end(last_of_execution, lambda: by_name(metric_results(model)))
        if model.stop_training:
            return


def evaluate(model: Sequential, data: tuple[Array, Array, Array | None], *, batch_size: int, verbose: Any = 0) -> Logs:
    """The loss, penalties included, and the metrics on checked arrays at inference."""
    x, y, sample_weight = data
    loggers, started = progress_logger(verbose), time.perf_counter()
    model.reset_metrics()
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        test_step(model, x[rows], y[rows], None if sample_weight is None else sample_weight[rows])
    logs = metric_results(model)
    if loggers:
        _print_line(len(x), batch_size, started, figures(by_name(logs)))
    return logs


def predict(model: Sequential, x: Array, *, batch_size: int, verbose: Any = 0) -> Array:
    """The outputs at inference, batch by batch;  (samples, I) -> (samples, U)."""
    loggers, started = progress_logger(verbose), time.perf_counter()
    batches = [forward(model, x[start : start + batch_size], training=False) for start in range(0, len(x), batch_size)]
    if loggers:
        _print_line(len(x), batch_size, started, "")
    return np.concatenate(batches)


def _print_line(samples: int, batch_size: int, started: float, text: str) -> None:
    seconds = time.perf_counter() - started
    line = f"{math.ceil(samples / batch_size)} steps - {seconds:.2f}s"
    print(f"{line} - {text}" if text else line)


# ------------------------------------------------------------------------------------------ the data


def checked_data(
    model: Sequential, x: Any, y: Any, sample_weight: Any, class_weight: Any, *, check_finite: bool
) -> tuple[Array, Array, Array | None]:
    """x, y and weights as arrays of the model's dtype that fit the model; builds it if this is its first data."""
    array = model.checked_features(x, check_finite=check_finite)
    if y is None:
        raise ValueError("y: the labels are missing. Pass an array with one row a sample.")
    units = model.output_shape[-1]
    labels = checks.labels(y, model.dtype, units, len(array), check_finite=check_finite)
    if check_finite:
        model.loss.check_labels(labels)
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
