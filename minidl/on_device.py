"""fit, evaluate and predict on a device: the step of training.py as a list of launches, captured once a batch size.

Read train_step first. Weights, gradients, Adam's moments, the data, the epoch's order of rows and all running sums
lie on the device, and so do the numbers that change from step to step: where the batch begins, how many steps Adam has
made, which masks are next. So a step is the same launches every time, and an epoch is one replay a batch, without a
word from the device in between. Once an epoch the order goes there, and the sums and the model's state come back.

Between calls, and wherever a callback may look, the model's own arrays hold its state; a device holds copies. What a
call made there, memory and captured steps, is kept for the model's next call like it, which copies state and data anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minidl import activations, config, cuda, metrics
from minidl.backend import Array
from minidl.batches import ArrayBatches, Batches, Epochs
from minidl.callbacks import CallbackList, History, ProgbarLogger
from minidl.device import Device, Launch, Operation, Product
from minidl.interrupts import uncut
from minidl.layers import Activation, Dense, Dropout, Layer
from minidl.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)
from minidl.optimizers import Adam, AdamW
from minidl.regularizers import L1, L1L2, L2

if TYPE_CHECKING:
    from minidl.trainer import Trainer

BLOCK = 256
SUM_TILE = 4 * BLOCK  # common.cuh's SUM_ITEMS · blockDim.x
BIAS_BLOCK = (32, 8)  # of dense_backward, whose sums over the batch depend on the 8
ACTIVATIONS = {  # of an element; common.cuh's enum Activation
    activations.linear: 0,
    activations.relu: 1,
    activations.sigmoid: 2,
    activations.tanh: 3,
}
SOFTMAX = 4  # the same enum's; of a row
CATEGORICAL = (CategoricalCrossentropy, SparseCategoricalCrossentropy)
ERRORS: dict[type, str] = {  # errors.cu's kernels
    MeanSquaredError: "squared_error",
    MeanAbsoluteError: "absolute_error",
}
METRICS: dict[type, str] = {  # metrics.cu's kernels
    metrics.BinaryAccuracy: "binary_accuracy",
    metrics.CategoricalAccuracy: "categorical_accuracy",
    metrics.MeanSquaredError: "squared_error_sums",
    metrics.MeanAbsoluteError: "absolute_error_sums",
}
SPARSE_METRICS: dict[type, str] = {metrics.SparseCategoricalAccuracy: "categorical_accuracy"}  # of class numbers

# ------------------------------------------------------------------------------------------- the territory


def problem(
    model: Trainer, *data: Batches | None, training: bool = False, scored: bool = False, callbacks: Any = None
) -> str | None:
    """What of a call only the CPU does, in a few words, or None. scored: it computes the loss and the metrics.

    data: the batches to train on, to validate on. callbacks: as fit takes them.
    """
    if training and not model.optimizer.built:
        model.gather_if_frozen_or_thawed()
    found = [_of_layers(model)]
    found += [_of_loss(model, training), _of_metrics(model)] if scored and found[0] is None else []
    found += [of_optimizer(model.optimizer)] if training else []
    found += [_of_data(batches) for batches in data if batches is not None]
    found += [_of_callbacks(callbacks)]
    return next((text for text in found if text is not None), None)


def _of_layers(model: Trainer) -> str | None:
    layers = model.flat_layers()
    if len(model.input_shape) != 2:
        return f"inputs of shape {model.input_shape}, of more than one axis,"
    for layer in layers:
        text = of_layer(layer, (Dense, Dropout, Activation), (*ACTIVATIONS, activations.softmax))
        if text is not None:
            return text
    random = config.random_stream()
    drops = [layer for layer in layers if isinstance(layer, Dropout) and 0 < layer.rate < 1]
    if drops and random not in ("tensorflow", "tensorflow-xla"):
        return f"the random stream {random!r} of the layer {drops[0].name!r}"
    if not any(isinstance(layer, Dense) for layer in layers):
        return "a model without a Dense layer"
    if sum(len(layer.parameters) for layer in layers) != len(model.arena.segments):
        return "a model of which layers were frozen or thawed since compile"
    return None


def of_layer(layer: Layer, kinds: Sequence[type], known: Collection[activations.Activation]) -> str | None:
    """What of a layer the kernels do not know, or None: of launches, or of train_step.cu (many.py).

    kinds: the layers, known: the activations, for which there are kernels.
    """
    if type(layer) not in kinds:
        return f"the layer {layer.name!r}, a {type(layer).__name__},"
    if not vars(layer).keys().isdisjoint(("forward", "backward")):
        return f"a forward or backward of its own of {layer.name!r}"
    if isinstance(layer, (Dense, Activation)) and layer.activation not in known:
        return f"the activation {layer.activation.name!r} of {layer.name!r}"
    if isinstance(layer, Dropout) and layer.noise_shape is not None:
        return f"noise_shape of {layer.name!r}"
    if not layer.trainable:
        return f"a frozen layer, {layer.name!r} with trainable=False,"
    if layer.activity_regularizer is not None:
        return f"activity_regularizer of {layer.name!r}"
    if layer.constraints:
        return f"{next(iter(layer.constraints))}_constraint of {layer.name!r}"
    for name, regularizer in layer.regularizers.items():
        if type(regularizer) not in (L1, L2, L1L2):
            return f"{name}_regularizer of {layer.name!r}, a {type(regularizer).__name__},"
    return None


def _of_loss(model: Trainer, training: bool) -> str | None:
    loss = model.loss
    what = f"the loss {loss.name!r}"
    if type(loss) not in (BinaryCrossentropy, *ERRORS, *CATEGORICAL):
        return what
    standards = (("label_smoothing", 0.0), ("ignore_class", None), ("axis", -1), ("dtype", model.dtype))
    for name, standard in standards:
        if getattr(loss, name, standard) != standard:
            return f"{name}={getattr(loss, name)!r} of {what}"
    if loss.reduction not in ("sum_over_batch_size", "mean"):
        return f"reduction={loss.reduction!r} of {what}"
    if loss.from_logits and _logits_of(model, training=False):
        return f"from_logits=True of {what} on the outputs of a {_last(model, training=False).activation.name}"
    of_logits = loss.from_logits or _logits_of(model, training=training)
    if type(loss) in CATEGORICAL and not of_logits:
        return f"{what} of probabilities, not of the logits under a softmax that ends the model,"
    return None if model.loss_weight is None else "loss_weights"


def _last(model: Trainer, *, training: bool) -> Any:
    """The layer that made the outputs: linear Activations pass them on, and a Dropout that drops nothing."""
    for layer in reversed(model.flat_layers()):
        if isinstance(layer, Dropout) and not (training and layer.rate > 0):
            continue
        if isinstance(layer, Activation) and layer.activation == activations.linear:
            continue
        return layer
    return None


def _logits_of(model: Trainer, *, training: bool) -> bool:
    """Whether the loss takes the logits under the last activation: see training.loss_inputs."""
    return _has_logits(_last(model, training=training))


def _has_logits(layer: Any) -> bool:
    """The same of the layer that made the outputs."""
    activation = getattr(layer, "activation", None)
    return activation is not None and activation.has_logits and config.losses_are_tensorflows()


def _of_metrics(model: Trainer) -> str | None:
    known = SPARSE_METRICS if model.loss.sparse else METRICS
    for metric in model.metrics:
        what = f"the metric {metric.name!r}, a {type(metric).__name__}"
        if metric is not model.loss_tracker and type(metric) not in known:
            return f"{what},"
        if metric.dtype != model.dtype:
            return f"{what} of {metric.dtype} in a model of {model.dtype},"
    return None


def of_optimizer(optimizer: Any) -> str | None:
    """What of an optimizer the kernels do not know, or None; see of_layer."""
    what = f"the optimizer {type(optimizer).__name__}"
    if type(optimizer) not in (Adam, AdamW):
        return what
    for name in ("use_ema", "loss_scale_factor", "gradient_accumulation_steps"):
        if getattr(optimizer, name) not in (None, False):
            return f"{name}={getattr(optimizer, name)!r} of {what}"
    return None if vars(optimizer).keys().isdisjoint(("apply", "update")) else f"{what} with an update of its own"


def _of_data(data: Batches) -> str | None:
    if not isinstance(data, ArrayBatches):
        return "data that come batch by batch, not as arrays,"
    return None if data.later is None else "a memory map in another dtype or order than the model's"


def _of_callbacks(callbacks: Any) -> str | None:
    hooks = callbacks if isinstance(callbacks, CallbackList) else CallbackList(callbacks)
    followers = hooks.step_followers
    return f"the callback {type(followers[0]).__name__}, which follows the steps," if followers else None


# ------------------------------------------------------------------------------------- arrays of a device


def on_device(device: Device, *arrays: Any) -> bool:
    """Whether the arrays are in the device's memory. Errors: TypeError if some are and some are not."""
    given = [array for array in arrays if array is not None]
    there = [device.adopted(array) is not None for array in given]
    if any(there) and not all(there):
        host = type(given[there.index(False)]).__name__
        raise TypeError(
            f"host arrays given with device arrays: expected x, y and sample_weight all in the memory of {device.name}"
            f", or all in the host's; got {sum(there)} of {len(there)} there, and a {host} that is not. Copy it "
            f"there, cupy.asarray(…), or the others from there, x.get()."
        )
    return any(there)


def adopted(device: Device, name: str, value: Any, dtype: str, *, check_finite: bool) -> Array:
    """value as an array of the device, without a copy. Errors: TypeError, ValueError for what would need one."""
    array = device.adopted(value)
    assert array is not None
    if array.dtype != dtype:
        raise TypeError(
            f"{name}: expected {dtype}, the model's, in the memory of {device.name}, where nothing is converted; got "
            f"{array.dtype}. Pass {name}.astype('{dtype}')."
        )
    if not array.flags.c_contiguous or array.ndim == 0 or array.size == 0:
        raise ValueError(
            f"{name}: expected a C-contiguous array with at least one row in the memory of {device.name}; got shape "
            f"{array.shape}."
        )
    if check_finite and not device.all_finite(array):
        raise ValueError(
            f"{name}: expected finite numbers; there is a NaN or an infinity. Clean the data, or pass "
            f"check_finite=False to let them through."
        )
    return array


def adopted_data(
    model: Trainer, device: Device, x: Any, y: Any, sample_weight: Any, *, check_finite: bool
) -> tuple[Array, Array | None, Array | None]:
    """x, y and sample_weight of a device, as arrays that fit the model, which is built if these are its first data.

    y None: for predictions. Errors: TypeError, ValueError.
    """
    dtype = model._input_dtype()
    x = adopted(device, "x", x, dtype, check_finite=check_finite)
    if x.ndim != 2 or (model.built and x.shape[1] != model.input_shape[-1]):
        expected = model.input_shape[-1] if model.built else "features"
        raise ValueError(f"x: expected shape (samples, {expected}); got {x.shape}.")
    if not model.built:
        model.build((None, x.shape[1]))
    if y is None:
        return x, None, None
    outputs = (len(x), *model.compute_output_shape(x.shape)[1:])
    y = adopted(device, "y", y, dtype, check_finite=check_finite)
    with model.loss_left_open_on_error():
        model.resolve_loss(y.shape)
        y = _labels(y, outputs, sparse=model.loss.sparse)
        if sample_weight is not None:
            sample_weight = adopted(device, "sample_weight", sample_weight, dtype, check_finite=check_finite)
            if sample_weight.shape != outputs[:1]:
                raise ValueError(f"sample_weight must be of shape {outputs[:1]}; got {sample_weight.shape}.")
        if check_finite:
            model.loss.check_labels(device.host(y), outputs[-1])
    return x, y, sample_weight


def _labels(y: Array, outputs: tuple[Any, ...], *, sparse: bool) -> Array:
    """y in the shape that the kernels take: of the outputs, or sparse (samples, 1). Errors: ValueError."""
    given, expected = y.shape, (outputs[0], 1) if sparse else outputs
    if given == outputs[:-1] and expected[-1] == 1:
        y = y.reshape(expected)
    if y.shape != expected:
        what = "the loss takes class numbers" if sparse else f"the model has {outputs[-1]} outputs"
        raise ValueError(f"y: {what}, so y must be {expected}; got {given}.")
    return y


class Data(NamedTuple):
    """All rows, on the device."""

    x: Array
    y: Array | None
    sample_weight: Array | None

    @classmethod
    def like(cls, device: Device, data: ArrayBatches) -> Data:
        """Room for copies of host arrays; the arrays themselves if they are the device's."""
        made = []
        for array in arrays_of(data):
            there = None if array is None else device.adopted(array)
            made.append(device.empty(array.shape, array.dtype) if there is None and array is not None else there)
        return cls(*made)

    def write(self, device: Device, data: ArrayBatches) -> None:
        """Copy host arrays of the same shapes there."""
        for target, array in zip(self, arrays_of(data), strict=True):
            if target is not None and device.adopted(array) is None:
                device.write(target, np.ascontiguousarray(array))


def arrays_of(data: ArrayBatches) -> tuple[Any, Any, Any]:
    """x, y and sample_weight, whole."""
    return data.x, data.y, data.sample_weight


# ------------------------------------------------------------------------------------ kept from call to call


class Signature(NamedTuple):
    """What the launches that are made for a call depend on: objects, which this does not keep alive, and values."""

    objects: tuple[weakref.ref[Any], ...]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, model: Trainer, device: Device, *data: ArrayBatches | None, scored: bool, training: bool) -> Signature:
        """Of a call as `problem` takes it."""
        layers = model.flat_layers()
        drops = [layer for layer in layers if isinstance(layer, Dropout)]
        regularizers = [regularizer for layer in layers for regularizer in layer.regularizers.values()]
        objects: list[Any] = [device, model.arena, *layers, *regularizers, *(layer.seed_generator for layer in drops)]
        objects += [layer.activation for layer in layers]
        values: list[Any] = [config.random_stream(), config.matmul(), config.tensor_float_32_execution_enabled()]
        values += [model.dtype, model.jit_compile, *(layer.rate for layer in drops)]
        values += [[getattr(regularizer, name, 0.0) for name in ("l1", "l2")] for regularizer in regularizers]
        if scored:
            objects += [model.loss, *model.metrics]
            values += [model.loss.from_logits, config.epsilon(), model.weighted_count]
            values += [getattr(metric, "threshold", None) for metric in model.metrics]
        if training:
            objects.append(model.optimizer)
            values.append(model.optimizer.slots)
        for batches in data:
            if batches is not None:
                arrays = [array for array in arrays_of(batches) if array is not None]
                values.append([batches.batch_size, *((a.shape, device.adopted(a) is None) for a in arrays)])
        return cls(tuple(weakref.ref(one) for one in objects if one is not None), tuple(values))

    def equals(self, other: Signature) -> bool:
        """Whether what was made for one does for the other."""
        pairs = zip(self.objects, other.objects, strict=False)
        same = len(self.objects) == len(other.objects) and all(a() is b() is not None for a, b in pairs)
        return same and self.values == other.values


# What is kept holds no reference to its model, with which it goes.
_kept: weakref.WeakKeyDictionary[Any, dict[type, tuple[Signature, Any]]] = weakref.WeakKeyDictionary()


def taken_or_made(kind: type, model: Trainer, signature: Signature, make: Callable[[], Any]) -> Any:
    """What was kept of that kind for a call of this signature, else what make() makes.

    It is kept no more, until `keep`: not after a call that failed. Errors: those of make.
    """
    before = _kept.get(model, {}).pop(kind, None)
    if before is not None and before[0].equals(signature):
        return before[1]
    del before  # its memory is free before more is taken
    try:
        return make()
    except cuda.DeviceMemoryError:
        if not _kept:
            raise
    _kept.clear()  # the room that is missing may be what is kept for others
    return make()


def keep(model: Trainer, signature: Signature, made: Any, device: Device, *data: ArrayBatches | None) -> None:
    """Keep it for the next call, unless it works on arrays of the device, which are the caller's."""
    given = [a for batches in data if batches is not None for a in arrays_of(batches) if a is not None]
    if all(device.adopted(array) is None for array in given):
        _kept.setdefault(model, {})[type(made)] = signature, made


# -------------------------------------------------------------------------------------- the model's launches


@dataclasses.dataclass
class Stage:
    """A layer on its buffers. seed_state: of a Dropout, its [seed, counter] on the device."""

    layer: Layer
    inputs: Array
    outputs: Array
    pre_activations: Array | None = None
    seed_state: Array | None = None


class OnDevice:
    """Room for a model's state on a device, which send() copies there, and the launches that compute with it."""

    def __init__(self, model: Trainer, device: Device, *, training: bool = False) -> None:
        self._model, self.device, self.dtype = weakref.ref(model), device, model.dtype
        arena = model.arena
        if training:
            model.optimizer.build(arena)
        self._slots = model.optimizer.slots if training else ()
        self._state = device.empty((1 + len(self._slots)) * arena.size, self.dtype)
        self.theta, *self.moments = (self._state[i : i + arena.size] for i in range(0, self._state.size, arena.size))
        self.grads = device.empty(arena.size, self.dtype) if training else None
        self.iterations = device.empty(1, np.int64) if training else None
        self.stops = device.array(np.array([segment.stop for segment in arena.segments], np.int64))
        self._drawing = [layer for layer in model.flat_layers() if isinstance(layer, Dropout) and layer.rate > 0]
        self._generators: list[Any] = [layer.seed_generator for layer in self._drawing]
        self.counters = Counters(device, 2 * len(self._drawing) if training else 0)
        # in the arena's order
        self._segments = [(id(layer), name) for layer in model.flat_layers() for name in layer.parameters]
        self.penalties = self._penalties()

    @property
    def model(self) -> Trainer:
        """The model, which this does not keep alive."""
        found = self._model()
        assert found is not None
        return found

    # ------------------------------------------------------------------------------------ to and fro

    def send(self) -> None:
        """Copy the model's state to the device."""
        model, write = self.model, self.device.write
        slots = [getattr(model.optimizer, slot) for slot in self._slots]
        write(self._state, np.concatenate([model.arena.theta, *slots]) if slots else model.arena.theta)
        if self.iterations is not None:
            write(self.iterations, np.array([model.optimizer.updates], np.int64))

    def start(self) -> None:
        """Begin an epoch: counters as they are before its first batch."""
        pairs = [generator.state for generator in self._generators]
        self.counters.write(np.concatenate(pairs) if self.counters.extra else ())

    def fetch(self) -> None:
        """Copy the state from the device to the model: weights, moments, step and seeds."""
        assert self.iterations is not None
        optimizer: Any = self.model.optimizer
        host = self.device.host
        state, iterations, counters = host(self._state), host(self.iterations), self.counters.read()
        targets = [self.model.arena.theta, *(getattr(optimizer, slot) for slot in self._slots)]
        for target, values in zip(targets, np.split(state, len(targets)), strict=True):
            target[...] = values
        optimizer.iterations = int(iterations[0])
        for generator, pair in zip(self._generators, counters[3:].reshape(-1, 2), strict=True):
            generator.state[...] = pair

    def _penalties(self) -> tuple[Array, Array, Array] | None:
        """Of each segment of the arena where it ends, λ of L1 and λ of L2; None if there are no penalties."""
        found = []
        for layer in self.model.flat_layers():
            for name in layer.parameters:
                regularizer: Any = layer.regularizers.get(name)
                found.append([_float32(getattr(regularizer, which, 0.0)) for which in ("l1", "l2")])
        if not np.any(found):
            return None
        l1, l2 = (self.device.array(np.ascontiguousarray(factors)) for factors in np.array(found, self.dtype).T)
        return self.stops, l1, l2

    def _parameter(self, buffer: Array, layer: Layer, name: str) -> Array | None:
        if name not in layer.parameters:
            return None
        segment = self.model.arena.segments[self._segments.index((id(layer), name))]
        return buffer[segment.start : segment.stop].reshape(segment.shape)

    # ------------------------------------------------------------------------------------- launches

    def launch(self, kernel: str, threads: int, *args: Any) -> Launch:
        """A launch of a grid-stride kernel with work for so many threads."""
        return Launch(f"{kernel}_{self.dtype}", cuda.blocks_for(threads), BLOCK, args)

    def one_block(self, kernel: str, *args: Any) -> Launch:
        """A launch of the second stage of a sum."""
        return Launch(f"{kernel}_{self.dtype}", 1, BLOCK, args)

    def empty(self, *shape: int) -> Array:
        return self.device.empty(shape, self.dtype)

    def taken(self, source: Array, order: Array | None, counters: Counters, rows: int) -> tuple[Array, Launch]:
        """Of one of Data's arrays the rows of the batch, and the launch that takes them there."""
        batch = self.device.empty((rows, *source.shape[1:]), self.dtype)
        return batch, self.launch(
            "take_rows", batch.size, source, order, counters.array, batch, rows, batch.size // rows
        )

    @property
    def draws(self) -> list[int]:
        """By how much each [seed, counter] moves on in a step: at rate 1 nothing is drawn."""
        return [number for layer in self._drawing for number in (0, int(layer.rate < 1))]

    def forward(self, x: Array, *, training: bool) -> tuple[list[Operation], list[Stage]]:
        """training.forward on a batch's buffers: what computes it, and the layers that do anything, in order."""
        launches: list[Operation] = []
        stages: list[Stage] = []
        rows, outputs = len(x), x
        for layer in self.model.flat_layers():
            if isinstance(layer, Dropout):
                if not training or layer.rate == 0:
                    continue
                made = self.empty(*outputs.shape)
                stage = Stage(layer, outputs, made, seed_state=self.counters.pair(self._drawing.index(layer)))
                launches.append(self._dropout("dropout", stage, outputs, made))
            elif isinstance(layer, Dense):
                made, pre = self.empty(rows, layer.units), self.empty(rows, layer.units)
                kernel, bias = (self._parameter(self.theta, layer, name) for name in ("kernel", "bias"))
                stage = Stage(layer, outputs, made, pre)
                launches += [
                    Product(outputs, kernel, pre),
                    self._activated(layer.activation, pre, bias, pre, made),
                ]
            else:
                assert isinstance(layer, Activation)
                if layer.activation is activations.linear:  # which passes its inputs on
                    continue
                made = self.empty(*outputs.shape)
                stage = Stage(layer, outputs, made, outputs)
                launches.append(self._activated(layer.activation, outputs, None, None, made))
            stages.append(stage)
            outputs = made
        return launches, stages

    def _activated(
        self, activation: Any, products: Array, bias: Array | None, pre: Array | None, made: Array
    ) -> Launch:
        """made = activation(products + bias), and pre = products + bias."""
        (rows, units), arrays = made.shape, (products, bias, pre, made)
        if activation == activations.softmax:
            return self.launch("dense_softmax", 32 * rows, *arrays, rows, units)
        return self.launch("dense_forward", made.size, *arrays, made.size, units, ACTIVATIONS[activation])

    def _dropout(self, kernel: str, stage: Stage, inputs: Array, outputs: Array) -> Launch:
        layer = stage.layer
        assert isinstance(layer, Dropout)
        stream = config.random_stream()
        xla = stream == "tensorflow-xla" or (self.model.jit_compile and stream == "tensorflow")
        groups = -(-inputs.size // (4 if self.dtype == "float32" else 2))
        return self.launch(kernel, groups, inputs, outputs, inputs.size, stage.seed_state, layer.rate, int(xla))

    def backward(self, stages: Sequence[Stage], d_outputs: Array, *, of_logits: bool) -> list[Operation]:
        """training.backward: from d_outputs, of the last stage's outputs or of_logits, into grads; overwrites it."""
        launches: list[Operation] = []
        assert self.grads is not None
        for number in reversed(range(len(stages))):
            stage, below = stages[number], any(isinstance(s.layer, Dense) for s in stages[:number])
            layer = stage.layer
            if isinstance(layer, Dropout):
                launches.append(self._dropout("dropout_backward", stage, d_outputs, d_outputs))
            else:
                assert layer.activation is not None
                rows, units = d_outputs.shape
                activation = activations.linear if of_logits else layer.activation
                kernel, bias = (self._parameter(self.grads, layer, name) for name in ("kernel", "bias"))
                if activation == activations.softmax:
                    arrays = (d_outputs, stage.outputs, d_outputs)
                    launches.append(self.launch("softmax_backward", 32 * rows, *arrays, rows, units))
                    activation = activations.linear
                act = ACTIVATIONS[activation]
                if act or bias is not None:
                    grid = max(1, min(-(-units // 32), cuda.MAX_GRID[1]))
                    args = (d_outputs, stage.outputs, d_outputs, bias, rows, units, act)
                    launches.append(Launch(f"dense_backward_{self.dtype}", grid, BIAS_BLOCK, args))
                if kernel is not None:
                    launches.append(Product(stage.inputs, d_outputs, kernel, transpose_a=True))
                    if below:
                        d_inputs = self.empty(*stage.inputs.shape)
                        weights = self._parameter(self.theta, layer, "kernel")
                        launches.append(Product(d_outputs, weights, d_inputs, transpose_b=True))
                        d_outputs = d_inputs
            of_logits = False
            if not below:
                break
        return launches

    def update(self, rates: Array) -> list[Operation]:
        """optimizers.Optimizer.apply, of an Adam with its present settings: clip, decay, ops.adam_step or amsgrad_step.

        rates: the learning rates of an epoch's steps.
        """
        optimizer: Any = self.model.optimizer
        size, alpha = self.theta.size, self.empty(1)
        which = rates, self.counters.steps
        betas = optimizer.beta_1, optimizer.beta_2
        launches: list[Operation] = []
        penalties = (None, None, None, 0) if self.penalties is None else (*self.penalties, self.stops.size)
        if self.penalties is not None and (_clips(optimizer) or optimizer.weight_decay is not None):
            # their gradients are clipped too, and are those of the weights before the decay
            sums, arrays = self.empty(-(-size // SUM_TILE)), (self.theta, self.grads)
            launches.append(self.launch("penalty", size, *arrays, sums, size, *penalties))
            penalties = (None, None, None, 0)
        launches += self._clipped()
        if optimizer.weight_decay is not None:
            decays = np.float32(optimizer.weight_decay) * np.array(optimizer.decays, self.dtype)
            settings = (self.stops, self.device.array(decays.astype(self.dtype)), self.stops.size)
            launches.append(self.launch("weight_decay", size, self.theta, size, *which, *settings))
        constants = (*(1.0 - beta for beta in betas), float(optimizer.epsilon))
        arrays = (self.theta, self.grads, *self.moments, size, alpha)
        return [
            *launches,
            Launch(f"adam_alpha_{self.dtype}", 1, 1, (self.iterations, alpha, *which, *betas)),
            self.launch("amsgrad_step" if optimizer.amsgrad else "adam_step", size, *arrays, *constants, *penalties),
        ]

    def _clipped(self) -> list[Operation]:
        """What clips grads, if the optimizer does."""
        clips: Any = self.model.optimizer
        size, stops = self.theta.size, self.stops
        if not _clips(clips):
            return []
        if clips.clipvalue is not None:
            return [self.launch("clip_by_value", size, self.grads, size, clips.clipvalue)]
        longest = max(segment.stop - segment.start for segment in self.model.arena.segments)
        if clips.global_clipnorm is not None:  # all parameters are one segment
            longest, stops = size, self.device.array(np.array([size], np.int64))
        tiles, count = -(-longest // SUM_TILE), stops.size
        partials, norms = self.empty(count, tiles), self.empty(count)
        launches: list[Operation] = [
            self.launch("sum_of_squares", count * tiles * BLOCK, self.grads, partials, stops, count, tiles),
            self.launch("norms", count * BLOCK, partials, norms, count, tiles),
        ]
        given = self.grads, size, norms
        if clips.global_clipnorm is not None:
            return [*launches, self.launch("clip_by_global_norm", size, *given, clips.global_clipnorm)]
        return [*launches, self.launch("clip_by_norm", size, *given, clips.clipnorm, stops, count)]


def _clips(optimizer: Any) -> bool:
    return any(c is not None for c in (optimizer.clipnorm, optimizer.clipvalue, optimizer.global_clipnorm))


class Counters:
    """The int64 numbers of batch.cu: [position, steps, diverged, …]. extra: how many follow, pairs of seeds."""

    def __init__(self, device: Device, extra: int = 0) -> None:
        self._device, self.extra = device, extra
        self.array = device.empty(3 + extra, np.int64)

    @property
    def steps(self) -> Array:
        """The number of steps since the epoch began."""
        return self.array[1:2]

    def pair(self, i: int) -> Array:
        """The i-th Dropout's [seed, counter]."""
        return self.array[3 + 2 * i : 5 + 2 * i]

    def write(self, pairs: Any = ()) -> None:
        """As before the first batch, with these seeds."""
        self._device.write(self.array, np.array([0, 0, -1, *pairs], np.int64))

    def read(self) -> Array:
        """Their values, on the host."""
        return self._device.host(self.array)


class Scores:
    """The loss and the metrics, summed on the device: total and count of each, one after the other."""

    def __init__(self, on: OnDevice) -> None:
        self._on = on
        self._metrics: list[Any] = on.model.metrics
        self._totals = on.empty(2 * len(self._metrics))

    def reset(self) -> None:
        """Start anew."""
        self._on.device.write(self._totals, np.zeros(self._totals.size, self._on.dtype))

    def _pair(self, i: int) -> tuple[Array, Array]:
        return self._totals[2 * i : 2 * i + 1], self._totals[2 * i + 1 : 2 * i + 2]

    def fetch(self) -> None:
        """Put the sums into the model's metrics. Waits for the device."""
        totals = self._on.device.host(self._totals)
        for metric, total, count in zip(self._metrics, totals[::2], totals[1::2], strict=True):
            metric.total, metric.count = total, count

    def batch(
        self, stages: Sequence[Stage], y: Array, weight: Array | None, counters: Counters, advance: Sequence[int],
        d_outputs: Array | None = None,
    ) -> tuple[list[Operation], list[Operation], bool]:  # fmt: skip
        """What computes the loss of a batch, its penalties and metrics; what counts the batch; and of what the loss is.

        d_outputs: where the loss's gradient goes. The last is True of the logits under the last stage's sigmoid:
        see training.loss_inputs. advance: by how much the counters move on.
        """
        on, last = self._on, stages[-1]
        loss = on.model.loss
        recovers = loss.recovers_logits() and _has_logits(last.layer)
        launches: list[Operation] = []
        if loss.sparse:
            labels, y = y, on.empty(*last.outputs.shape)
            launches.append(on.launch("one_hot", y.size, labels, y, y.size, y.shape[1]))
        value, of_loss = self._loss(y, weight, last.pre_activations if recovers else last.outputs, recovers, d_outputs)
        launches += of_loss
        penalty = None
        if on.penalties is not None:
            size_of_model = on.theta.size
            parts = -(-size_of_model // SUM_TILE)
            sums, penalty, segments = on.empty(parts), on.empty(1), on.penalties[0].size
            launches += [
                on.launch("penalty", size_of_model, on.theta, None, sums, size_of_model, *on.penalties, segments),
                on.one_block("penalty_total", sums, penalty, parts),
            ]
        weighted = len(self._metrics) - on.model.weighted_count
        for i, metric in enumerate(self._metrics[1:], start=1):
            launches += self._metric(metric, y, last.outputs, weight if i >= weighted else None, self._pair(i))
        moved = on.device.array(np.array(advance, np.int64))
        settings = (len(y), counters.array, moved, moved.size)
        counting = Launch(f"finish_batch_{on.dtype}", 1, 1, (value, penalty, *self._pair(0), *settings))
        return launches, [counting], recovers

    def _loss(
        self, y: Array, weight: Array | None, predictions: Array, recovers: bool, d_outputs: Array | None
    ) -> tuple[Array, list[Operation]]:
        """Where the mean loss of a batch will be, and what computes it and its gradient."""
        on, loss = self._on, self._on.model.loss
        (rows, units), value = y.shape, on.empty(1)
        if type(loss) in CATEGORICAL:
            losses = on.empty(rows)
            arrays = (y, predictions, weight, d_outputs, losses)
            return value, [
                on.launch("categorical_from_logits", 32 * rows, *arrays, rows, units),
                on.one_block("bce_mean", losses, value, rows, rows),
            ]
        tiles = -(-y.size // SUM_TILE)
        partials = on.empty(tiles)
        arguments = (y, predictions, weight, d_outputs, partials, y.size, units)
        if type(loss) in ERRORS:
            first = on.launch(ERRORS[type(loss)], y.size, *arguments)
        elif recovers or loss.from_logits:
            first = on.launch("bce_from_logits", y.size, *arguments)
        else:
            first = on.launch("bce_from_probabilities", y.size, *arguments, config.epsilon())
        return value, [first, on.one_block("bce_mean", partials, value, tiles, y.size)]

    def _metric(
        self, metric: Any, y: Array, outputs: Array, weight: Array | None, pair: tuple[Array, Array]
    ) -> list[Operation]:
        """What adds a batch to a metric's total and count."""
        on, (rows, units), kernel = self._on, y.shape, (METRICS | SPARSE_METRICS)[type(metric)]
        values = rows if kernel == "categorical_accuracy" else y.size
        tiles = -(-values // SUM_TILE)
        sums = on.empty(2, tiles)
        threshold = [float(metric.threshold)] if kernel == "binary_accuracy" else []
        first = on.launch(kernel, values, y, outputs, weight, sums, values, units, tiles, *threshold)
        return [first, on.one_block("mean_add", sums, *pair, values // rows, tiles)]


# ------------------------------------------------------------------------------------ fit, evaluate, predict


class Steps:
    """fit's steps, captured for each batch size, and the memory that they work on: for data of these shapes."""

    def __init__(self, model: Trainer, device: Device, data: ArrayBatches, validation: ArrayBatches | None) -> None:
        self._device = device
        self.on = OnDevice(model, device, training=True)
        self._data, self.order = Data.like(device, data), device.empty(data.samples, np.int64)
        self.rates = device.empty(data.samples, model.dtype)  # of each step: there are no more steps than rows
        self.scores = Scores(self.on)
        rest = data.samples % data.batch_size
        whole = [data.batch_size] if data.samples >= data.batch_size else []
        self._operations = {size: self._of_batch(size) for size in (*whole, *([rest] if rest else []))}
        self.replays: dict[int, Callable[[], None]] = {}
        self._captured_for: tuple[Any, ...] = ()
        self.evaluation = None if validation is None else Evaluation(self.on, validation)
        self.capture()

    def _of_batch(self, rows: int) -> tuple[list[Operation], list[Operation]]:
        """train_step of a batch of so many rows: what comes before the update, and after it."""
        on, data = self.on, self._data
        x, y, weight = (
            (None, None) if source is None else on.taken(source, self.order, on.counters, rows) for source in data
        )
        launches: list[Operation] = [launch for _, launch in (x, y, weight) if launch is not None]
        forward, stages = on.forward(x[0], training=True)
        d_outputs = on.empty(*stages[-1].outputs.shape)
        advance = [rows, 1, 0, *on.draws]
        scores, counting, of_logits = self.scores.batch(stages, y[0], weight[0], on.counters, advance, d_outputs)
        return [*launches, *forward, *scores, *on.backward(stages, d_outputs, of_logits=of_logits)], counting

    def capture(self) -> None:
        """Capture the steps, again if the optimizer's settings are others than they were."""
        optimizer: Any = self.on.model.optimizer
        names = ("beta_1", "beta_2", "epsilon", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm")
        settings = tuple(getattr(optimizer, name) for name in names)
        if settings != self._captured_for:
            update = self.on.update(self.rates)
            for size, (before, after) in self._operations.items():
                self.replays[size] = self._device.capture([*before, *update, *after])
            self._captured_for = settings

    def load(self, data: ArrayBatches, validation: ArrayBatches | None) -> None:
        """Copy the model's state and the data there."""
        self.on.send()
        self._data.write(self._device, data)
        if self.evaluation is not None and validation is not None:
            self.evaluation.load(validation)


class Training:
    """fit's epochs on a device. All memory is taken, and every batch size captured, before the first step."""

    def __init__(
        self,
        model: Trainer,
        device: Device,
        data: ArrayBatches,
        epochs: Epochs,
        validation: Epochs | None,
        hooks: CallbackList,
        check_finite: bool,
    ) -> None:
        self._model, self._device, self._epochs, self._check_finite = model, device, epochs, check_finite
        self._validation = validation
        held_out = None if validation is None else validation.batches
        assert held_out is None or isinstance(held_out, ArrayBatches)
        self._data, self._finished = (data, held_out), "before the fit"
        self._looked_at = any(type(callback) not in (History, ProgbarLogger) for callback in hooks.callbacks)
        self._steps: Any = None
        with self._saying_which_weights():
            model.optimizer.build(model.arena)
            self._open(self._signature_now())

    def _signature_now(self) -> Signature:
        return Signature.of(self._model, self._device, *self._data, scored=True, training=True)

    def _open(self, signature: Signature) -> None:
        """Take the steps that were kept, or make them; with the model's state and the data of now."""
        self._signature, self._steps = signature, None
        make = partial(Steps, self._model, self._device, *self._data)
        self._steps = taken_or_made(Steps, self._model, signature, make)
        self._steps.load(*self._data)

    def keep(self) -> None:
        """At the end: keep the steps for the model's next fit."""
        keep(self._model, self._signature, self._steps, self._device, *self._data)

    def train_epoch(self, epoch: int) -> None:
        """One epoch: the model's metrics and state are then those of its end.

        Errors: FloatingPointError if a loss was not finite, cuda.DeviceError, cuda.DeviceMemoryError: the model is
        then as it was at the end of the epoch before, or before the fit. After others, such as Ctrl-C, it is as after
        the last step.
        """
        with self._saying_which_weights():
            unfit = problem(self._model, training=True, scored=True)
            if unfit is not None:
                raise cuda.DeviceError(f"a callback has changed the model: {unfit} is not supported on a GPU.")
            if self._looked_at:
                now = self._signature_now()
                if now.equals(self._signature):
                    self._steps.on.send()
                else:
                    self._open(now)
            self._steps.capture()
            with self._epochs.until_data_end():
                chunks = [rows for *_, iterator in self._epochs for rows in self._epochs.next_batches(iterator)]
            self.begin(chunks)
            self.run([rows.size for rows in chunks])
            diverged = int(self._steps.on.counters.read()[2])
            if diverged >= 0 and self._check_finite:
                raise self._diverged(diverged)
            self._steps.scores.fetch()
            self.fetch()
        self._finished = f"at the end of epoch {epoch + 1}"

    def evaluate(self) -> None:
        """The loss and the metrics of the validation's data, in the model's metrics."""
        assert self._validation is not None
        with self._saying_which_weights():
            self._steps.evaluation.run(self._validation)

    def begin(self, chunks: Sequence[Array]) -> None:
        """Send the rows of the coming batches and their learning rates, and begin with the first; the sums anew."""
        size, order = self._data[0].batch_size, np.concatenate(chunks)
        steps = sum(-(-rows.size // size) for rows in chunks)
        rates = np.array(self._model.optimizer.rates(steps), self._model.dtype)
        self._device.write(self._steps.order[: order.size], order)
        self._device.write(self._steps.rates[:steps], rates)
        self._steps.on.start()
        self._steps.scores.reset()

    def run(self, chunks: Sequence[int]) -> None:
        """Replay the steps of chunks of so many rows, each of whole batches or of a smaller one."""
        try:
            with uncut() as whole:
                for rows in chunks:
                    size = min(rows, self._data[0].batch_size)
                    replay = self._steps.replays[size]
                    for _ in range(rows // size):
                        with whole:
                            replay()
        except (cuda.DeviceError, cuda.DeviceMemoryError):
            raise
        except BaseException:  # Ctrl-C, between two steps
            self.fetch()
            raise

    def fetch(self) -> None:
        """Put the device's weights, moments, step and seeds into the model."""
        self._steps.on.fetch()

    @contextlib.contextmanager
    def _saying_which_weights(self) -> Iterator[None]:
        try:
            yield
        except (cuda.DeviceError, cuda.DeviceMemoryError) as error:
            raise type(error)(f"{error} The model's weights are those {self._finished}.") from error

    def _diverged(self, step: int) -> FloatingPointError:
        first = self._model.optimizer.updates
        return FloatingPointError(
            f"{self._model.name}: the loss was not finite at step {first + step + 1}. The weights are those "
            f"{self._finished}, as a GPU is asked once an epoch. Usual causes: a learning rate that is too high (now "
            f"{self._model.optimizer.learning_rate:g}), or inputs that are not standardized. check_finite=False trains "
            f"on, as Keras does."
        )


class Replays:
    """The batches of one pass over data in the order that they have, at inference; a subclass says what is launched.

    For data of these shapes.
    """

    def __init__(self, on: OnDevice, data: ArrayBatches) -> None:
        self.on, self._samples = on, data.samples
        self._data = Data.like(on.device, data)
        self._counters = Counters(on.device)
        size = min(self._samples, data.batch_size)
        sizes = dict.fromkeys(rows for rows in (size, self._samples % size) if rows)
        self._make()
        self._replays = {rows: on.device.capture(self._batch(rows)) for rows in sizes}

    @classmethod
    @contextlib.contextmanager
    def of(cls, model: Trainer, device: Device, data: ArrayBatches, *, scored: bool) -> Iterator[Any]:
        """For a call of its own: what was kept of the last one like it, or made now, with the model's state and data.

        It is kept for the next one, if all goes well.
        """
        signature = Signature.of(model, device, data, scored=scored, training=False)
        made = taken_or_made(cls, model, signature, lambda: cls(OnDevice(model, device), data))
        made.on.send()
        made.load(data)
        yield made
        keep(model, signature, made, device, data)

    def load(self, data: ArrayBatches) -> None:
        """Copy the data there."""
        self._data.write(self.on.device, data)

    def _make(self) -> None:
        """Buffers that all batches share."""

    def _batch(self, rows: int) -> list[Operation]:
        raise NotImplementedError

    def run(self, epochs: Epochs) -> None:
        """Replay them. Each batch begins where the one before ended."""
        self._counters.write()
        with epochs.until_data_end():
            for _, _, iterator in epochs:
                for batch in epochs.next_batches(iterator):
                    self._replays[min(batch.stop, self._samples) - batch.start]()


class Evaluation(Replays):
    """evaluate's batches: their loss and metrics, in the model's metrics when run() returns."""

    def _make(self) -> None:
        self._scores = Scores(self.on)

    def _batch(self, rows: int) -> list[Operation]:
        on = self.on
        x, y, weight = (
            (None, None) if source is None else on.taken(source, None, self._counters, rows) for source in self._data
        )
        forward, stages = on.forward(x[0], training=False)
        scores, counting, _ = self._scores.batch(stages, y[0], weight[0], self._counters, [rows, 1, 0])
        return [*(launch for _, launch in (x, y, weight) if launch is not None), *forward, *scores, *counting]

    def run(self, epochs: Epochs) -> None:
        self._scores.reset()
        super().run(epochs)
        self._scores.fetch()


class Prediction(Replays):
    """predict's batches."""

    def _make(self) -> None:
        self.outputs = self.on.empty(self._samples, self.on.model.output_shape[-1])

    def _batch(self, rows: int) -> list[Operation]:
        on, counters = self.on, self._counters
        x, taken = on.taken(self._data.x, None, counters, rows)
        forward, stages = on.forward(x, training=False)
        made, moved = stages[-1].outputs, on.device.array(np.array([rows, 1, 0], np.int64))
        put = on.launch("put_rows", made.size, made, counters.array, self.outputs, rows, made.shape[1])
        settings = (None, None, None, None, rows, counters.array, moved, 3)
        return [taken, *forward, put, Launch(f"finish_batch_{on.dtype}", 1, 1, settings)]

    def predicted(self) -> Array:
        """The outputs of the batches that were asked for, on the device."""
        rows = int(self._counters.read()[0])
        return self.outputs[:rows]


def _float32(factor: float) -> float:
    """A penalty's factor as regularizers.py takes it."""
    return float(np.float32(factor))
