"""One training step, and the loops over steps and epochs around it.

The step, from top to bottom: forward → loss → backward → penalties → update → metrics. Each line of train_step is
one of these; the layers, the loss and the optimizer hold the formulas' arguments, and ops.py the formulas.
"""

from __future__ import annotations

import collections
import math
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import activations, checks, config, random
from minidl.backend import Array
from minidl.callbacks import CallbackList, History, Logs, figures, progress_logger
from minidl.layers import Dense
from minidl.losses import BinaryFocalCrossentropy, Loss
from minidl.metrics import LossMetric

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
    update_metrics(model, loss, y, y_pred, sample_weight)


def test_step(model: Sequential, x: Array, y: Array, sample_weight: Array | None) -> None:
    """The forward half of a step at inference: adds the batch's loss and metrics to the model's."""
    y_pred = forward(model, x, training=False)
    update_metrics(model, total_loss(model, y, y_pred, sample_weight), y, y_pred, sample_weight)


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


def loss_inputs(model: Sequential, loss: Loss, y_pred: Array) -> tuple[Array, bool]:
    """What a loss, the model's or one that is a metric, is computed from, and whether these are logits.

    As Keras on TensorFlow: of a model that ends in Dense(activation="sigmoid") or "softmax", a cross-entropy takes
    the logits under the activation, whichever of the two it is, with a warning if it was told that these are logits
    already; see ops.binary_crossentropy_from_logits. It finds none where the loss is computed in another dtype. Keras
    on JAX and torch does not do so, and clips: the "jax" and "torch" random streams follow it.
    """
    last = model.layers[-1]
    recovers = loss.recovers_logits() and config.random_stream() not in ("jax", "torch")
    uncast = loss is not model.loss or loss.dtype == model.dtype  # metrics compute in the outputs' dtype
    if recovers and uncast and isinstance(last, Dense):
        activation = last.activation
        if activation is activations.softmax and isinstance(loss, BinaryFocalCrossentropy):
            raise NotImplementedError(
                f"{loss.name}: of a model that ends in a softmax Keras mixes its outputs with its logits, which minidl "
                f"does not support; end the model in a sigmoid."
            )
        if activation in (activations.sigmoid, activations.softmax):
            if loss.from_logits:
                warnings.warn(
                    f"{loss.name}: from_logits=True, but the model ends in a {activation.name}, so its outputs are "
                    f"probabilities. The loss is computed from the logits under the {activation.name}; drop one of "
                    f"the two.",
                    stacklevel=2,
                )
            return last.pre_activations, True
    return y_pred, loss.from_logits


def total_loss(model: Sequential, y: Array, y_pred: Array, sample_weight: Array | None) -> Any:
    """The data's loss plus the penalty of every regularizer, a scalar.

    Of a loss with reduction None it is the mean of the samples' losses, which Keras reports; it trains on their sum.
    Errors: ValueError for reduction None and a penalty: there is no single loss to add it to.
    """
    predictions, from_logits = loss_inputs(model, model.loss, y_pred)
    y, predictions, weight = in_dtype(model.loss.dtype, y, predictions, sample_weight)
    loss = model.loss.value(y, predictions, from_logits=from_logits, sample_weight=weight)
    each = np.ndim(loss) > 0
    loss = loss.mean() if each else loss
    for layer in model.layers:
        for penalty in layer.losses:
            if each:
                raise ValueError(
                    f"{model.loss.name}: with reduction={model.loss.reduction!r} there is a loss for each sample, and "
                    f"none to add the penalty of {layer.name!r} to; set another reduction."
                )
            loss = loss + penalty
    return loss


def in_dtype(dtype: str, *arrays: Array | None) -> Any:
    """The arrays in a loss's dtype, which may be another than the model's."""
    return [None if array is None else array.astype(dtype, copy=False) for array in arrays]


def backward(model: Sequential, y: Array, y_pred: Array, sample_weight: Array | None) -> None:
    """The gradient of the data's loss for every parameter, from the last layer to the first, into arena.grads."""
    predictions, from_logits = loss_inputs(model, model.loss, y_pred)
    arrays = in_dtype(model.loss.dtype, y, predictions, sample_weight)
    gradient = model.loss.gradient(*arrays[:2], from_logits=from_logits, sample_weight=arrays[2])
    gradient = model.optimizer.scale_loss(gradient.astype(model.dtype, copy=False))
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


def update_metrics(model: Sequential, loss: Any, y: Array, y_pred: Array, sample_weight: Array | None) -> None:
    """Add a batch to the running means: the loss weighted by the batch's size, the metrics by sample.

    The metrics of compile(metrics=) do not see the weights, those of weighted_metrics= do.
    """
    model.loss_tracker.add(loss * len(y), len(y))
    weighted = len(model.compiled_metrics) - model.weighted_count
    for i, metric in enumerate(model.compiled_metrics):
        weight = sample_weight if i >= weighted else None
        if isinstance(metric, LossMetric) and metric.loss.recovers_logits():
            predictions, from_logits = loss_inputs(model, metric.loss, y_pred)
            metric.add_batch(y, predictions, from_logits, weight)
        else:
            metric.update_state(y, y_pred, weight)


def metric_results(model: Sequential) -> Logs:
    """The loss and the metrics since they were reset: "loss" first; a metric of several values is an array.

    Of metrics with one name the second is called name_1, …, or where it is weighted weighted_name.
    Source: keras.src.trainers.compile_utils.CompileMetrics.result.
    """
    logs = {model.loss_tracker.name: float(model.loss_tracker.result())}
    uses: collections.Counter[str] = collections.Counter()
    weighted = len(model.compiled_metrics) - model.weighted_count
    for i, metric in enumerate(model.compiled_metrics):
        name = metric.name
        if uses[name] and i >= weighted:
            name = f"weighted_{name}"
        uses[name] += 1
        key = name if uses[name] == 1 else f"{name}_{uses[name] - 1}"
        result = metric.result()
        logs[key] = result if np.ndim(result) else float(result)
    return logs


def as_list(model: Sequential, logs: Logs) -> Any:
    """The logs as evaluate returns them: [loss, metric, …], or the loss alone.

    In the order of compile(), then what has another name than its metric, by name. Of metrics with one name Keras
    repeats the first there, and so does this. Source: keras.src.trainers.trainer.Trainer._flatten_metrics_in_order.
    """
    names = [metric.name for metric in model.metrics]
    values = [logs[name] for name in names] + [logs[name] for name in sorted(logs) if name not in names]
    return values[0] if len(values) == 1 else values


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
                logs = by_name(logs | {f"val_{name}": value for name, value in found.items()})
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
