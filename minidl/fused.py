"""The training step of training.py for plain models, with every buffer allocated once and nothing decided in the step.

The same array operations in the same order, so the same bits: tests/test_fused.py holds it to that. Read train_step
first; here is how it gets fast. A step of a small model is dozens of array operations of a few hundred nanoseconds
each, among which Python's own work, a temporary array, a check or a look-up, cost as much again. So a FusedStep is
made for one model and one batch size: it binds each operation to its arrays, and running a step runs the list.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import activations, config, training
from minidl.backend import Array
from minidl.layers import Dense, Dropout, Layer
from minidl.losses import BinaryCrossentropy
from minidl.metrics import BinaryAccuracy

if TYPE_CHECKING:
    from minidl.trainer import Trainer

Call = Callable[[], Any]


class FusedStep:
    """train_step of a model on batches of so many rows: Dense layers of plain activations, Dropout, any loss."""

    def __init__(self, model: Trainer, rows: int) -> None:
        self._model = model
        self.x = np.empty((rows, *model.input_shape[1:]), model.dtype)
        self.y: Array | None = None  # made when the labels' shape is known: some losses take class numbers
        self._layers = [layer for layer in model.flat_layers() if not isinstance(layer, Dropout) or layer.rate > 0]
        stages: list[DenseStage | DropoutStage] = []
        inputs, below = self.x, None
        for layer in self._layers:
            stage = STAGES[type(layer)](layer, inputs, below)
            inputs, below = stage.outputs, stage.d_outputs
            stages.append(stage)
        *hidden, last = stages
        assert isinstance(last, DenseStage)
        self._last = last
        fused_loss = SigmoidLoss.fits(model)
        self._loss = SigmoidLoss(model, last) if fused_loss else AnyLoss(model, last)
        self._forward = [call for stage in hidden for call in stage.forward]
        self._forward += last.affine if fused_loss else last.forward
        self._backward = [call for stage in reversed(hidden) for call in stage.backward]
        self._penalties = [
            (layer.parameters[name], layer.grads[name], regularizer)
            for layer in self._layers
            for name, regularizer in layer.regularizers.items()
        ]

    @classmethod
    def of(cls, model: Trainer, rows: int) -> FusedStep | None:
        """The step for batches of so many rows; None where a layer or a setting has no fused form."""
        return cls(model, rows) if fits(model) else None

    def run(self, x: Array, y: Array, rows: Array, sample_weight: Array | None, *, check_finite: bool) -> None:
        """training.train_step on these rows of x, y and sample_weight. Errors: as train_step's."""
        model, loss_of = self._model, self._loss
        if self.y is None:
            self.y = np.empty((len(rows), *y.shape[1:]), y.dtype)
        x.take(rows, 0, self.x, "clip")  # the rows exist: "clip" spares a copy that is taken to check them
        y.take(rows, 0, self.y, "clip")
        weight = None if sample_weight is None else sample_weight[rows]
        for call in self._forward:
            call()
        loss = loss_of.value(self.y, weight)
        for parameter, _, regularizer in self._penalties:
            loss = loss + regularizer(parameter)
        if check_finite and not math.isfinite(loss):
            raise training.diverged(model, loss)
        if not loss_of.gradient(self.y, weight):
            for call in self._last.activation_backward:
                call()
        for call in self._last.below_activation:
            call()
        for call in self._backward:
            call()
        for parameter, gradient, regularizer in self._penalties:
            gradient += model.optimizer.scale_loss(regularizer.gradient(parameter))
        model.optimizer.apply(model.arena)
        loss_of.update_metrics(loss, self.y, weight)


def fits(model: Trainer) -> bool:
    """Whether every layer and setting has a fused form; a layer whose forward or backward was replaced has none."""
    layers = model.flat_layers()
    plain = all(
        layer.trainable
        and layer.activity_regularizer is None
        and not layer.constraints
        and vars(layer).keys().isdisjoint(("forward", "backward"))
        and (
            (type(layer) is Dense and layer.activation in ACTIVATIONS)
            or (type(layer) is Dropout and layer.noise_shape is None)
        )
        for layer in layers
    )
    loss = model.loss
    draws_xla = model.jit_compile and config.random_stream() == "tensorflow"
    return (
        plain
        and isinstance(layers[-1], Dense)
        and len(model.input_shape) == 2
        and loss.reduction not in (None, "none")
        and not draws_xla
        and not training.runs_own_code(model)
    )


# ------------------------------------------------------------------------------------------- the layers


class DenseStage:
    """A Dense layer on its buffers: calls for its forward, and for its backward in two parts.

    d_outputs: the layer above leaves dL/d(outputs) there, of which activation_backward makes dL/d(pre-activations).
    below_activation: from there to the layer's own gradients, and to `below`, the d_outputs of the layer underneath;
    of the first layer nobody asks for that.
    """

    def __init__(self, layer: Dense, inputs: Array, below: Array | None) -> None:
        self.layer = layer
        kernel, bias = layer.parameters["kernel"], layer.parameters.get("bias")
        self.z = z = np.empty((len(inputs), layer.units), inputs.dtype)
        self.d_outputs = np.empty_like(z)
        self.affine: list[Call] = [partial(np.matmul, inputs, kernel, z)]
        if bias is not None:
            self.affine.append(partial(np.add, z, bias, z))
        bound = ACTIVATIONS[layer.activation](z, self.d_outputs)
        self.outputs, self.activation_forward, self.activation_backward = bound
        self.below_activation: list[Call] = [partial(np.matmul, inputs.T, self.d_outputs, layer.grads["kernel"])]
        if bias is not None:
            self.below_activation.append(partial(np.add.reduce, self.d_outputs, 0, None, layer.grads["bias"]))
        if below is not None:
            self.below_activation.append(partial(np.matmul, self.d_outputs, kernel.T, below))

    @property
    def forward(self) -> list[Call]:
        """The whole forward."""
        return self.affine + self.activation_forward

    @property
    def backward(self) -> list[Call]:
        """The whole backward."""
        return self.activation_backward + self.below_activation


# Of each activation, given z and d_outputs: the array of its outputs, the calls that fill it, its backward's calls.

Bound = tuple[Array, list[Call], list[Call]]


def linear(z: Array, d_outputs: Array) -> Bound:
    """The outputs are z itself."""
    return z, [], []


def relu(z: Array, d_outputs: Array) -> Bound:
    """ops.relu, ops.relu_backward."""
    outputs, positive, zero = np.empty_like(z), np.empty(z.shape, bool), constant(0, z)
    return (
        outputs,
        [partial(np.maximum, z, zero, out=outputs)],
        [partial(np.greater, outputs, zero, positive), partial(np.multiply, d_outputs, positive, d_outputs)],
    )


def sigmoid(z: Array, d_outputs: Array) -> Bound:
    """ops.sigmoid, ops.sigmoid_backward."""
    outputs, t, slope, positive = np.empty_like(z), np.empty_like(z), np.empty_like(z), np.empty(z.shape, bool)
    zero, one = constant(0, z), constant(1, z)
    return (
        outputs,
        [
            *exp_minus_abs(z, t),
            partial(np.add, one, t, outputs),
            partial(np.greater_equal, z, zero, positive),
            partial(np.copyto, t, one, where=positive),
            partial(np.divide, t, outputs, outputs),
        ],
        [
            partial(np.subtract, one, outputs, slope),
            partial(np.multiply, outputs, slope, slope),
            partial(np.multiply, d_outputs, slope, d_outputs),
        ],
    )


def tanh(z: Array, d_outputs: Array) -> Bound:
    """ops.tanh, ops.tanh_backward."""
    outputs, slope, one = np.empty_like(z), np.empty_like(z), constant(1, z)
    return (
        outputs,
        [partial(np.tanh, z, outputs)],
        [
            partial(np.multiply, outputs, outputs, slope),
            partial(np.subtract, one, slope, slope),
            partial(np.multiply, d_outputs, slope, d_outputs),
        ],
    )


def constant(value: float, like: Array) -> Array:
    """A number as an array of like's dtype: a quarter of a microsecond less in every call than a Python number."""
    return np.array(value, like.dtype)


def exp_minus_abs(z: Array, t: Array) -> list[Call]:
    """t = e^(−|z|)."""
    return [partial(np.abs, z, t), partial(np.negative, t, t), partial(np.exp, t, t)]


ACTIVATIONS: dict[activations.Activation, Callable[[Array, Array], Bound]] = {
    activations.linear: linear,
    activations.relu: relu,
    activations.sigmoid: sigmoid,
    activations.tanh: tanh,
}


class DropoutStage:
    """A Dropout layer on its buffers: ops.dropout, ops.dropout_backward with the mask that the layer draws."""

    def __init__(self, layer: Dropout, inputs: Array, below: Array | None) -> None:
        self.outputs, self.d_outputs = np.empty_like(inputs), np.empty_like(inputs)
        dropped = np.empty(inputs.shape, bool)
        factor, zero = constant(0 if layer.rate == 1 else 1 / (1 - layer.rate), inputs), constant(0, inputs)

        def forward() -> None:
            np.logical_not(layer.draw_mask(inputs.shape), dropped)
            np.multiply(inputs, factor, self.outputs)
            np.copyto(self.outputs, zero, where=dropped)

        def backward() -> None:
            assert below is not None
            np.multiply(self.d_outputs, factor, below)
            np.copyto(below, zero, where=dropped)

        self.forward: list[Call] = [forward]
        self.backward: list[Call] = [] if below is None else [backward]


STAGES: dict[type[Layer], Any] = {Dense: DenseStage, Dropout: DropoutStage}

# ---------------------------------------------------------------------------------------------- the loss


class AnyLoss:
    """The model's own loss and metrics, by training.py's functions."""

    def __init__(self, model: Trainer, last: DenseStage) -> None:
        self._model, self._last = model, last

    def value(self, y: Array, sample_weight: Array | None) -> Any:
        """training.data_loss."""
        layer = self._last.layer  # where training.loss_inputs looks for logits
        layer.pre_activations, layer.outputs = self._last.z, self._last.outputs
        return training.data_loss(self._model, y, self._last.outputs, sample_weight)

    def gradient(self, y: Array, sample_weight: Array | None) -> bool:
        """training.loss_gradient, into the last layer's d_outputs; whether it is that of the pre-activations."""
        gradient, of_logits = training.loss_gradient(self._model, y, self._last.outputs, sample_weight)
        self._last.d_outputs[...] = gradient
        return of_logits

    def update_metrics(self, loss: Any, y: Array, sample_weight: Array | None) -> None:
        """training.update_metrics."""
        training.update_metrics(self._model, loss, y, self._last.outputs, sample_weight)


class SigmoidLoss(AnyLoss):
    """Binary cross-entropy of one sigmoid, all from its logits z and t = e^(−|z|): the sigmoid too, for the metrics.

    ops.binary_crossentropy_from_logits, its backward and ops.sigmoid; ops.reduce_losses and its backward.
    """

    def __init__(self, model: Trainer, last: DenseStage) -> None:
        super().__init__(model, last)
        z, outputs, d_outputs = last.z, last.outputs, last.d_outputs
        t, tail, losses, other = (np.empty_like(z) for _ in range(4))
        right, wrong, zero, one = np.empty(z.shape, bool), np.empty(z.shape, bool), constant(0, z), constant(1, z)
        self._losses, self._matches = losses[:, 0], np.empty(z.shape, bool)

        def value(y: Array) -> None:
            np.maximum(z, zero, out=losses)
            np.multiply(z, y, other)
            np.subtract(losses, other, losses)
            np.abs(z, t)
            np.negative(t, t)
            np.exp(t, t)
            np.log1p(t, other)
            np.add(losses, other, losses)

        def gradient(y: Array) -> None:
            np.add(one, t, other)
            np.divide(t, other, tail)
            np.greater_equal(z, zero, right)
            np.logical_not(right, wrong)
            np.divide(one, other, outputs)
            np.copyto(outputs, tail, where=wrong)
            np.subtract(tail, y, d_outputs)
            np.subtract(one, y, other)
            np.subtract(other, tail, other)
            np.copyto(d_outputs, other, where=right)

        self._value, self._gradient = value, gradient
        self._scalar = z.dtype.type
        self._count, self._half = constant(1 / len(z), z), constant(0.5, z)
        metrics = model.compiled_metrics
        fused = all(type(metric) is BinaryAccuracy and metric.threshold == 0.5 for metric in metrics)
        self._accuracies: list[Any] | None = metrics if fused else None

    @staticmethod
    def fits(model: Trainer) -> bool:
        """Whether this is the model's loss."""
        loss = model.loss
        return (
            type(loss) is BinaryCrossentropy
            and model.flat_layers()[-1].activation is activations.sigmoid
            and model.output_shape[-1] == 1
            and (loss.from_logits, loss.label_smoothing, loss.axis, loss.dtype) == (False, 0.0, -1, model.dtype)
            and loss.reduction in ("sum_over_batch_size", "mean")
            and config.random_stream() not in ("jax", "torch")
            and model.loss_weight is None
        )

    def value(self, y: Array, sample_weight: Array | None) -> Any:
        self._value(y)
        losses = self._losses if sample_weight is None else self._losses * sample_weight
        return np.add.reduce(losses) / self._scalar(len(y))

    def gradient(self, y: Array, sample_weight: Array | None) -> bool:
        self._gradient(y)
        counts: Any = self._count
        if sample_weight is not None:
            counts = (sample_weight / self._scalar(len(y)))[:, None]
        d_outputs = self._last.d_outputs
        np.multiply(d_outputs, counts, d_outputs)
        if self._model.optimizer.loss_scale_factor is not None:
            d_outputs[...] = self._model.optimizer.scale_loss(d_outputs)
        return True

    def update_metrics(self, loss: Any, y: Array, sample_weight: Array | None) -> None:
        if self._accuracies is None or (sample_weight is not None and self._model.weighted_count):
            super().update_metrics(loss, y, sample_weight)
            return
        rows, outputs = len(y), self._last.outputs
        self._model.loss_tracker.add(loss * rows, rows)
        for metric in self._accuracies:
            np.greater(outputs, self._half, self._matches)
            np.equal(self._matches, y, self._matches)
            metric.add(np.count_nonzero(self._matches), rows)
