"""One training step; the loops over steps and epochs around it are in loops.py.

The step, from top to bottom: forward → loss → backward → penalties → update → constraints → metrics. Each line of
train_step is one of these; the layers, the loss and the optimizer hold the formulas' arguments, ops.py the formulas.
"""

from __future__ import annotations

import collections
import contextlib
import inspect
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import config
from minidl.backend import Array
from minidl.callbacks import Logs
from minidl.layers import Layer
from minidl.losses import BinaryFocalCrossentropy, Loss
from minidl.metrics import LossMetric

if TYPE_CHECKING:
    from minidl.trainer import Trainer


def train_step(model: Trainer, x: Array, y: Array, sample_weight: Array | None, *, check_finite: bool) -> None:
    """One step of gradient descent on a batch: x (B, I), y (B, U), sample_weight (B,) or None.

    Errors: FloatingPointError if the loss is not finite; the weights are then those before this step.
    """
    y_pred = training_forward(model, x)
    loss = total_loss(model, y, y_pred, sample_weight)
    if check_finite and not math.isfinite(loss):
        raise diverged(model, loss)
    backward(model, y, y_pred, sample_weight)
    add_penalty_gradients(model)
    update(model)
    finish_step(model)
    update_metrics(model, loss, y, y_pred, sample_weight)


def step_without_batch(model: Trainer) -> None:
    """What Keras on TensorFlow does of a training step when the data turn out to be at their end.

    The compiled graph asks for the batch and meanwhile runs all that does not wait for it: seeds move on, the weights
    decay, the step is counted. Then there is no batch, and the rest is dropped. So a fit on batches of unknown
    number counts one step more in every epoch that runs out of them, on which Adam's bias corrections, schedules and
    the coming dropout masks depend. Not so in eager mode, under XLA, or with several steps an execution.
    Source: measured, keras 3.15.1 on TensorFlow 2.21.0; Trainer._make_function in keras.src.backend.tensorflow.
    """
    if model.jit_compile or model.run_eagerly or model.steps_per_execution > 1:
        return
    if config.random_stream() != "tensorflow":
        return
    for layer in model.flat_layers():
        layer.skip_draw()
    if model.arena.size:
        model.optimizer.apply_without_gradients(model.arena)


def test_step(model: Trainer, x: Array, y: Array, sample_weight: Array | None) -> None:
    """The forward half of a step at inference: adds the batch's loss and metrics to the model's."""
    y_pred = forward(model, x, training=False)
    update_metrics(model, total_loss(model, y, y_pred, sample_weight), y, y_pred, sample_weight)


def forward(model: Trainer, x: Array, *, training: bool) -> Array:
    """Each layer on the outputs of the one before;  (B, I) -> (B, U)."""
    for layer in model.flat_layers():
        x = layer.forward(x, training=training)
        if layer.activity_regularizer is not None:
            layer.activity = x
    return x


def training_forward(model: Trainer, x: Array) -> Array:
    """forward with dropout; under jit_compile=True with XLA's masks in place of TensorFlow's."""
    if model.jit_compile and config.random_stream() == "tensorflow":
        with config.using_random_stream("tensorflow-xla"):
            return forward(model, x, training=True)
    return forward(model, x, training=True)


def loss_inputs(model: Trainer, loss: Loss, y_pred: Array) -> tuple[Array, bool]:
    """What a loss, the model's or one that is a metric, is computed from, and whether these are logits.

    As Keras on TensorFlow: of a model that ends in a sigmoid or a softmax, a cross-entropy takes the logits under the
    activation, whichever of the two it is, with a warning if it was told that these are logits already; see
    ops.binary_crossentropy_from_logits. It finds none where the loss is computed in another dtype. Keras on JAX and
    torch does not do so, and clips: the "jax" and "torch" random streams follow it.
    """
    recovers = loss.recovers_logits() and config.losses_are_tensorflows()
    uncast = loss is not model.loss or loss.dtype == model.dtype  # metrics compute in the outputs' dtype
    source = logits_layer(model, y_pred) if recovers and uncast else None
    if source is not None:
        activation = source.activation
        assert activation is not None
        if activation.name == "softmax" and isinstance(loss, BinaryFocalCrossentropy):
            raise NotImplementedError(
                f"{loss.name}: of a model that ends in a softmax Keras mixes its outputs with its logits, which minidl "
                f"does not support; end the model in a sigmoid."
            )
        if loss.from_logits:
            warnings.warn(
                f"{loss.name}: from_logits=True, but the model ends in a {activation.name}, so its outputs are "
                f"probabilities. The loss is computed from the logits under the {activation.name}; drop one of "
                f"the two.",
                stacklevel=2,
            )
        return source.pre_activations, True
    return y_pred, loss.from_logits


def logits_layer(model: Trainer, y_pred: Array) -> Layer | None:
    """The layer whose sigmoid or softmax made y_pred, the last one but for layers that only passed it on; or None.

    Keras marks a tensor with the logits under it, and finds them under an Identity or a Dropout at inference too.
    """
    for layer in reversed(model.flat_layers()):
        if layer.activation is not None and layer.activation.has_logits and layer.outputs is y_pred:
            return layer
    return None


def total_loss(model: Trainer, y: Array, y_pred: Array, sample_weight: Array | None) -> Any:
    """The data's loss plus the penalties of all activity regularizers, then of all parameters', a scalar.

    Errors: ValueError for a loss with reduction None and a penalty: there is no single loss to add it to.
    """
    loss, added = data_loss(model, y, y_pred, sample_weight), penalties(model)
    if added and model.loss.reduction in (None, "none"):
        raise ValueError(
            f"{model.loss.name}: with reduction={model.loss.reduction!r} there is a loss for each sample, and none to "
            f"add the {len(added)} penalties of {model.name!r} to; set another reduction."
        )
    for penalty in added:
        loss = loss + penalty
    return loss


def data_loss(model: Trainer, y: Array, y_pred: Array, sample_weight: Array | None) -> Any:
    """The data's loss, a scalar; with reduction None the mean of the samples', which Keras reports."""
    predictions, from_logits = loss_inputs(model, model.loss, y_pred)
    y, predictions, weight = in_dtype(model.loss.dtype, y, predictions, sample_weight)
    loss = model.loss.value(y, predictions, from_logits=from_logits, sample_weight=weight)
    loss = loss if model.loss_weight is None else loss * model.loss_weight
    return loss.mean() if np.ndim(loss) else loss


def loss_gradient(model: Trainer, y: Array, y_pred: Array, sample_weight: Array | None) -> tuple[Array, bool]:
    """The gradient of the data's loss, scaled as the optimizer asks; and whether it is that of the last layer's logits.

    With reduction None, of the sum of the samples' losses, on which Keras trains.
    """
    predictions, from_logits = loss_inputs(model, model.loss, y_pred)
    arrays = in_dtype(model.loss.dtype, y, predictions, sample_weight)
    gradient = model.loss.value_gradient(*arrays[:2], from_logits=from_logits, sample_weight=arrays[2])
    gradient = gradient if model.loss_weight is None else gradient * model.loss_weight
    return model.optimizer.scale_loss(gradient.astype(model.dtype, copy=False)), predictions is not y_pred


def penalties(model: Trainer) -> list[Any]:
    """What is added to the data's loss: of each layer's outputs, then of each layer's parameters.

    A penalty on outputs is divided by the batch's size. Source: keras.layers.Layer.losses, Layer.__call__.
    """
    layers = model.flat_layers()
    found = [_activity_penalty(layer) for layer in layers if layer.activity_regularizer is not None]
    for layer in layers:
        found += layer.losses
    return found


def _activity_penalty(layer: Layer) -> Any:
    assert layer.activity_regularizer is not None
    penalty = layer.activity_regularizer(layer.activity)
    return penalty / penalty.dtype.type(len(layer.activity))


def in_dtype(dtype: str, *arrays: Array | None) -> Any:
    """The arrays in a loss's dtype, which may be another than the model's."""
    return [None if array is None else array.astype(dtype, copy=False) for array in arrays]


def backward(model: Trainer, y: Array, y_pred: Array, sample_weight: Array | None) -> None:
    """The gradient of the loss for every parameter, from the last layer to the first, into arena.grads.

    Penalties on outputs are counted here; those on parameters come after it, in add_penalty_gradients.
    """
    gradient, of_logits = loss_gradient(model, y, y_pred, sample_weight)
    layers = model.flat_layers()
    if of_logits:  # it enters below the last activation
        source = logits_layer(model, y_pred)
        assert source is not None
        at = layers.index(source)
        penalized = [layer for layer in layers[at:] if layer.activity_regularizer is not None]
        if penalized:  # those after it passed its outputs on, so that all penalties are on these
            gradient += source.activation_gradient(sum(activity_gradient(model, layer) for layer in penalized))
        gradient = source.backward_from_pre_activations(gradient)
        layers = layers[:at]
    for layer in reversed(layers):
        if layer.activity_regularizer is not None:
            gradient = gradient + activity_gradient(model, layer)
        gradient = layer.backward(gradient)


def activity_gradient(model: Trainer, layer: Layer) -> Array:
    """dpenalty/d(outputs) of a layer's activity regularizer, scaled as the loss is."""
    assert layer.activity_regularizer is not None
    outputs = layer.activity
    gradient = layer.activity_regularizer.gradient(outputs) / outputs.dtype.type(len(outputs))
    return model.optimizer.scale_loss(gradient)


def add_penalty_gradients(model: Trainer) -> None:
    """Add each regularizer's own gradient to its parameter's."""
    for layer in model.flat_layers():
        if layer.trainable:
            for name, regularizer in layer.regularizers.items():
                layer.grads[name] += model.optimizer.scale_loss(regularizer.gradient(layer.parameters[name]))


def update(model: Trainer) -> None:
    """The optimizer's step, then the constraints; nothing of it, if code of the user's own fails in it."""
    with undone_on_error(model) if runs_own_code(model) else contextlib.nullcontext():
        model.optimizer.apply(model.arena)
        apply_constraints(model)


@contextlib.contextmanager
def undone_on_error(model: Trainer) -> Iterator[None]:
    """What is inside changes the trained weights and the optimizer, or if it fails leaves them as they were."""
    model.optimizer.build(model.arena)
    theta, state = model.arena.theta.copy(), model.optimizer.get_state()
    try:
        yield
    except BaseException:
        model.arena.theta[...] = theta
        model.optimizer.set_state(state)
        raise


def runs_own_code(model: Trainer) -> bool:
    """Whether an update runs a constraint, an optimizer or a learning-rate schedule that is not minidl's."""
    constraints = [constraint for layer in model.flat_layers() for constraint in layer.constraints.values()]
    parts = [*constraints, model.optimizer, model.optimizer.learning_rate_argument]
    kinds = (part if inspect.isfunction(part) else type(part) for part in parts)
    return any(kind.__module__.partition(".")[0] not in ("minidl", "numpy") for kind in kinds)


def apply_constraints(model: Trainer) -> None:
    """Put each constrained parameter back to where it may be.

    After every batch, also where the optimizer only accumulated gradients, and after its average of the weights: as
    keras.optimizers.Optimizer.apply. Errors: ValueError for a constraint that returns another shape.
    """
    for layer in model.flat_layers():
        if layer.trainable:
            for name, constraint in layer.constraints.items():
                parameter = layer.parameters[name]
                constrained = constraint(parameter)
                if np.shape(constrained) != parameter.shape:
                    raise ValueError(
                        f"{layer.name}: the constraint on {name} must return weights of the shape {parameter.shape}; "
                        f"got {np.shape(constrained)}."
                    )
                parameter[...] = constrained


def finish_step(model: Trainer) -> None:
    """Let the layers take over the state that the forward computed."""
    for layer in model.flat_layers():
        layer.finish_step()


def update_metrics(model: Trainer, loss: Any, y: Array, y_pred: Array, sample_weight: Array | None) -> None:
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


def metric_results(model: Trainer) -> Logs:
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
        if isinstance(result, dict):
            logs.update({name: float(value) for name, value in result.items()})
        else:
            logs[key] = np.array(result) if np.ndim(result) else float(result)  # type: ignore[assignment]
    return logs


def as_list(model: Trainer, logs: Logs) -> Any:
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


def diverged(model: Trainer, loss: Any) -> FloatingPointError:
    """The error for a loss that is not finite."""
    return FloatingPointError(
        f"{model.name}: the loss became {loss} at step {model.optimizer.iterations + 1}. The weights are those "
        f"before this step. Usual causes: a learning rate that is too high (now "
        f"{model.optimizer.learning_rate:g}), or inputs that are not standardized. check_finite=False trains on, "
        f"as Keras does."
    )
