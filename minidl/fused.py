"""The training step of training.py for plain models, with every buffer allocated once and nothing decided in the step.

Read train_step first; here is how it gets fast. A step of a small model is dozens of array operations of 150 to 700
nanoseconds each, among which Python's own work, a temporary array, a check or a look-up, cost as much again; one of a
large model is a few matrix products, and passes over memory around them. So a FusedStep is made for one model and one
batch size. It binds each operation to its arrays, and running a step runs the list. In that list

- a bias is a row of its kernel: the layer's inputs have a row of ones, and (I + 1, U) lies in the arena as it is. One
  product then does what a product, a sum and, for the gradients, a sum over the batch do. To that end the outputs of
  hidden layers are (U, B), features first. Only the order of sums differs from the readable path, so the gradients are
  within the bounds of any order of summation (oracle/bounds.py): tests/test_fused.py holds them to that;
- all else, Adam and the masks too, are the readable path's operations in its order, so the same bits of the same
  inputs: the test holds them to that too;
- no operation broadcasts or converts, which NumPy prepares at three times the cost, unless the arrays are large;
- batches are gathered, masks drawn, and losses and metrics computed, for several steps at a time;
- a large layer is updated as soon as it has its gradient, which then lies in a cache still;
- passes over large arrays go by pieces that stay in a core's cache; of a large model, Adam's by two threads, where
  OpenBLAS's own leave a core to the second one: threads.py;
- where config.set_elementwise asks for it, one loop takes the place of several passes: elementwise.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import activations, calls, config, elementwise, ops, training
from minidl.arena import Arena, aligned
from minidl.backend import Array
from minidl.calls import ACTIVATIONS, Call, Calls, constant, exp_minus_abs, pieces
from minidl.fused_update import AdamUpdate, Update, penalties_of
from minidl.interrupts import Whole
from minidl.layers import Dense, Dropout
from minidl.losses import BinaryCrossentropy
from minidl.metrics import BinaryAccuracy

if TYPE_CHECKING:
    from minidl.trainer import Trainer

BATCHES_TOGETHER = 64
BYTES_TOGETHER = 2**22  # of gathered inputs: they stay in an L3 cache until their steps are done
FEW_FEATURES = 64  # inputs of so many get their column of ones; of more, the copy costs more than it saves
UNCUT = Whole(None)  # where nobody presses Ctrl-C


class FusedStep:
    """train_step of a model on batches of so many rows: Dense layers of plain activations, Dropout, any loss.

    batches: of how many it runs the steps at once, one after the other.
    """

    def __init__(self, model: Trainer, rows: int, batches: int = 1) -> None:
        self._model, self.rows, self.batches = model, rows, batches
        self._layers = [layer for layer in model.flat_layers() if not isinstance(layer, Dropout) or layer.rate > 0]
        self._inputs = Inputs(rows, model.input_shape[-1], batches, np.dtype(model.dtype))
        kernels = iter([segment.start for segment in model.arena.segments if segment.name == "kernel"])
        below = self._inputs.outputs
        stages: list[DenseStage | DropoutStage] = []
        for layer in self._layers[:-1]:
            if isinstance(layer, Dropout):
                stages.append(DropoutStage(layer, below, batches))
            else:
                assert isinstance(layer, Dense)
                stages.append(DenseStage(layer, below, model.arena, next(kernels)))
            below = stages[-1].outputs
        loss = SigmoidLoss if SigmoidLoss.fits(model) else AnyLoss
        top = self._layers[-1]
        assert isinstance(top, Dense)
        last = LastStage(top, below, model.arena, next(kernels), batches if loss is SigmoidLoss else 1)
        self._penalties = penalties_of(model)
        values = [penalty.value() for penalty in self._penalties]
        self._loss = loss(model, last, (batches, rows), values)

        self._dropouts = [stage for stage in stages if isinstance(stage, DropoutStage)]
        every = range(batches)
        forwards: list[list[Calls]] = [*(stage.forward for stage in stages), last.forward, self._loss.forward]
        self._backwards = [
            (self._loss.backward, -1),
            *((stage.backward, stage.start) for stage in (last, *stages[::-1])),
        ]
        self._forward = [[call for calls in forwards for call in calls[k % len(calls)]] for k in every]
        self._backward: list[Calls] = []
        self._update: Update | None = None

    @classmethod
    def of(cls, model: Trainer, rows: int, batches: int = 1) -> FusedStep | None:
        """The step for batches of so many rows; None where a layer or a setting has no fused form."""
        return cls(model, rows, batches) if fits(model) else None

    def run(
        self,
        x: Array,
        y: Array,
        rows: Array,
        sample_weight: Array | None,
        *,
        check_finite: bool,
        whole: Whole = UNCUT,
    ) -> None:
        """training.train_step on each batch in turn of these rows of x, y and sample_weight. Errors: as train_step's.

        rows: of one batch or several whole ones. whole: where Ctrl-C waits for a step's end; it is the last one then.
        """
        optimizer, loss_of = self._model.optimizer, self._loss
        self._inputs.gather(x, rows)
        loss_of.gather(y, sample_weight, rows)
        if self._update is None or not self._update.still_fits(optimizer):
            self._bind_update()
        assert self._update is not None
        self._update.prepare()
        forward, backward, magnitudes = self._forward, self._backward, loss_of.magnitudes
        begun = done = 0
        steps = len(rows) // self.rows
        for stage in self._dropouts:
            stage.begin(steps)
        try:
            for k in range(steps):
                begun += 1
                for call in forward[k]:
                    call()
                if check_finite and not math.isfinite(magnitudes[k]()):
                    loss_of.require_finite(k)
                for call in backward[k]:
                    call()
                done += 1
                if whole.waiting is not None:
                    break
        finally:
            for stage in self._dropouts:
                stage.end(begun)
            loss_of.update_metrics(done)

    def _bind_update(self) -> None:
        """Put the optimizer's calls after the gradients that they need: large ones are then in a cache still."""
        optimizer, arena = self._model.optimizer, self._model.arena
        kind = AdamUpdate if AdamUpdate.fits(optimizer) else Update
        starts = [start for _, start in self._backwards if start >= 0]
        update = self._update = kind(optimizer, arena, self._penalties, starts, self.batches)
        self._backward = [
            [call for calls, start in self._backwards for call in (*calls[k % len(calls)], *update.after(start, k))]
            for k in range(self.batches)
        ]


def fits(model: Trainer) -> bool:
    """Whether every layer and setting has a fused form; a layer one of whose methods was replaced has none."""
    layers = model.flat_layers()
    unseeded = config.random_stream() == "torch"  # where layers without a seed draw from one generator, in turn
    plain = all(
        layer.trainable
        and layer.activity_regularizer is None
        and not layer.constraints
        and vars(layer).keys().isdisjoint(("forward", "backward", "draw_mask"))
        and (
            (type(layer) is Dense and layer.activation in ACTIVATIONS)
            or (type(layer) is Dropout and layer.noise_shape is None and not (unseeded and layer.draws_globally))
        )
        for layer in layers
    )
    loss = model.loss
    draws_xla = model.jit_compile and config.random_stream() == "tensorflow"
    return (
        plain
        and len({id(layer) for layer in layers}) == len(layers)
        and isinstance(layers[-1], Dense)
        and len(model.input_shape) == 2
        and loss.reduction not in (None, "none")
        and not draws_xla
        and not training.runs_own_code(model)
    )


def batches_together(rows: int, features: int, itemsize: int) -> int:
    """How many batches are gathered at once."""
    return max(1, min(BATCHES_TOGETHER, BYTES_TOGETHER // max(1, rows * features * itemsize)))


# ------------------------------------------------------------------------------------------- the layers


@dataclass
class Outputs:
    """What a layer hands up, features first: an array for each of the batches, or one that they share.

    arrays: (U, B), or with a row of ones below (U + 1, B). d_outputs: (U, B), where the layer above leaves
    dL/d(outputs); None of the inputs, for which nobody asks.
    """

    arrays: list[Array]
    ones: bool
    d_outputs: Array | None

    @classmethod
    def with_a_row_of_ones(cls, units: int, below: Outputs) -> Outputs:
        """Room for those of so many units, on the batch of the layer below."""
        first = below.arrays[0]
        with_ones = aligned((units + 1, first.shape[1]), first.dtype)
        with_ones[-1] = 1
        return cls([with_ones], True, aligned((units, first.shape[1]), first.dtype))

    def values(self, k: int) -> Array:
        """The k-th without its row of ones."""
        return self.arrays[k][:-1] if self.ones else self.arrays[k]


class Inputs:
    """The rows of several batches: gathered at once, and with a column of ones if they are few numbers."""

    def __init__(self, rows: int, features: int, batches: int, dtype: Any) -> None:
        self._gathered = aligned((batches * rows, features), dtype)
        self._shape = (rows, features)
        self._with_ones = None
        if features <= FEW_FEATURES:
            self._with_ones = aligned((batches, rows, features + 1), dtype)
            self._with_ones[:, :, -1] = 1
        arrays = self._gathered.reshape(batches, rows, features) if self._with_ones is None else self._with_ones
        self.outputs = Outputs([array.T for array in arrays], self._with_ones is not None, None)

    def gather(self, x: Array, rows: Array) -> None:
        """Take these rows of x, (samples, features)."""
        take(x, rows, self._gathered)
        if self._with_ones is not None:
            batches = len(rows) // self._shape[0]
            self._with_ones[:batches, :, :-1] = self._gathered[: len(rows)].reshape(batches, *self._shape)


def take(array: Array, rows: Array, out: Array) -> None:
    """out[: len(rows)] = array[rows], without a temporary array where array is contiguous."""
    if array.flags.c_contiguous:
        array.take(rows, 0, out[: len(rows)], "clip")  # the rows exist: "clip" spares a copy, taken to check them
    else:
        out[: len(rows)] = array[rows]


class DenseLayer:
    """A Dense layer's products, all on bound arrays. kernel: where in the arena its kernel, then its bias, begin."""

    def __init__(self, layer: Dense, below: Outputs, arena: Arena, kernel: int) -> None:
        self.layer, self._below, self.start = layer, below, kernel
        self._bias, self._d_bias = layer.parameters.get("bias"), layer.grads.get("bias")
        self._folded = self._bias is not None and below.ones
        inputs, units = layer.parameters["kernel"].shape
        shape = (inputs + 1 if self._folded else inputs, units)
        stop = kernel + math.prod(shape)
        self._weights, self._gradient = (a[kernel:stop].reshape(shape) for a in (arena.theta, arena.grads))

    def _columns(self, k: int) -> Array:
        return self._below.arrays[k] if self._folded else self._below.values(k)

    def _below_pre_activations(self, k: int, d_rows: Array) -> Calls:
        """From dL/d(pre-activations), (B, U), to the layer's own gradients and those of the layer underneath."""
        calls: Calls = []
        if self._below.d_outputs is not None:
            calls.append(partial(np.dot, self.layer.parameters["kernel"], d_rows.T, self._below.d_outputs))
        if self._bias is not None and not self._folded:
            calls.append(partial(np.add.reduce, d_rows, 0, None, self._d_bias))
        return [*calls, partial(np.dot, self._columns(k), d_rows, self._gradient)]  # last: the update reads it


class DenseStage(DenseLayer):
    """A hidden Dense layer on its buffers; forward and backward: the calls for each of below's arrays."""

    def __init__(self, layer: Dense, below: Outputs, arena: Arena, kernel: int) -> None:
        super().__init__(layer, below, arena, kernel)
        self.outputs = Outputs.with_a_row_of_ones(layer.units, below)
        z, d_outputs = self.outputs.values(0), self.outputs.d_outputs
        assert d_outputs is not None
        forward, backward = calls.activation(layer.activation, z, z, d_outputs)
        every = range(len(below.arrays))
        add_bias: Calls = []
        if self._bias is not None and not self._folded:
            add_bias = [partial(np.add, z, self._bias[:, None], z)]
        self.forward: list[Calls] = [
            [partial(np.dot, self._weights.T, self._columns(k), z), *add_bias, *forward] for k in every
        ]
        self.backward: list[Calls] = [[*backward, *self._below_pre_activations(k, d_outputs.T)] for k in every]


class LastStage(DenseLayer):
    """The last Dense layer, whose buffers are (B, U), as losses want them; its activation is left to the loss.

    batches: for how many the pre-activations are kept.
    """

    def __init__(self, layer: Dense, below: Outputs, arena: Arena, kernel: int, batches: int) -> None:
        super().__init__(layer, below, arena, kernel)
        shape = (below.arrays[0].shape[1], layer.units)
        self.z = aligned((batches, *shape), arena.dtype)
        self.d_outputs = aligned(shape, arena.dtype)
        add_bias = self._bias is not None and not self._folded
        self.forward: list[Calls] = []
        for k in range(max(batches, len(below.arrays))):
            z = self.z[k % batches]
            self.forward.append([partial(np.dot, self._columns(k % len(below.arrays)).T, self._weights, z)])
            if add_bias:
                self.forward[-1].append(partial(np.add, z, self._bias, z))
        self.backward: list[Calls] = [self._below_pre_activations(k, self.d_outputs) for k in range(len(below.arrays))]


class DropoutStage:
    """A Dropout layer on its buffers: ops.dropout, ops.dropout_backward with the masks that the layer draws.

    A mask is kept as words, all of whose bits are set where a unit is kept: a number and its word is the number or 0,
    as in copyto(…, 0, where=~mask), at a tenth of the time. The words of as many steps as are small are made at once.
    """

    start = -1  # it has no parameters

    def __init__(self, layer: Dropout, below: Outputs, batches: int) -> None:
        units, batch = below.values(0).shape
        dtype = below.arrays[0].dtype
        self.outputs = Outputs.with_a_row_of_ones(units, below)
        outputs, d_outputs = self.outputs.values(0), self.outputs.d_outputs
        kept = max(1, min(batches, calls.PIECE // (units * batch)))
        self._layer, self._shape = layer, (batch, units)
        self._words = aligned((kept, units, batch), f"u{dtype.itemsize}")
        factor = constant(0 if layer.rate == 1 else 1 / (1 - layer.rate), dtype)
        self._steps = 0
        self.forward: list[Calls] = []
        self.backward: list[Calls] = []
        for k in range(math.lcm(batches, len(below.arrays))):
            words = self._words[k % kept]
            draw: Calls = [] if k % kept else [partial(self._draw, k)]
            self.forward.append([*draw, *masked(below.values(k % len(below.arrays)), factor, words, outputs)])
            d_inputs = below.d_outputs
            self.backward.append([] if d_inputs is None else masked(d_outputs, factor, words, d_inputs))

    def begin(self, steps: int) -> None:
        """Before so many steps, whose masks are drawn ahead of the layer's counter."""
        self._steps = steps

    def end(self, begun: int) -> None:
        """After so many of these steps drew their masks: only these count."""
        self._layer.skip_draws(begun)

    def _draw(self, first: int) -> None:
        """The words from the first-th step's on."""
        words = self._words[: self._steps - first]
        drawn = 0
        while drawn < len(words):
            masks = self._layer.coming_masks(self._shape, skip=first + drawn, most=len(words) - drawn)
            words[drawn : drawn + len(masks)] = masks.transpose(0, 2, 1)
            drawn += len(masks)
        np.negative(words, words)


def masked(inputs: Array, factor: Array, words: Array, outputs: Array) -> Calls:
    """outputs = inputs · factor where a word is set, else 0."""

    def bind(inputs: Array, words: Array, outputs: Array) -> Calls:
        bits = outputs.view(words.dtype)
        return [partial(np.multiply, inputs, factor, outputs), partial(np.bitwise_and, bits, words, bits)]

    if not inputs.flags.c_contiguous:
        return bind(inputs, words, outputs)
    flat = [array.reshape(-1) for array in (inputs, words, outputs)]
    if config.elementwise() == "numba":
        return [elementwise.bound(elementwise.dropout, *flat, factor.reshape(1))]
    return [call for piece in pieces(words.size) for call in bind(*(array[piece] for array in flat))]


# ---------------------------------------------------------------------------------------------- the loss


class AnyLoss:
    """The model's own loss and metrics, by training.py's functions, step by step.

    penalties: what is added to the loss. magnitudes: a call for each batch, finite only if its loss is.
    """

    def __init__(self, model: Trainer, last: LastStage, shape: tuple[int, int], penalties: Calls) -> None:
        self._model, self._last, self._penalties = model, last, penalties
        batches, self._rows = shape
        layer, z = last.layer, last.z[0]
        outputs = z if layer.activation is activations.linear else np.empty_like(z)
        forward, activation_backward = calls.activation(layer.activation, z, outputs, last.d_outputs)

        def backward() -> None:
            gradient, of_logits = training.loss_gradient(model, self._y, outputs, self._weight)
            last.d_outputs[...] = gradient
            if not of_logits:
                for call in activation_backward:
                    call()
            training.update_metrics(model, self._loss, self._y, outputs, self._weight)

        self._outputs = outputs
        self.forward: list[Calls] = [[*forward, partial(self._compute, k)] for k in range(batches)]
        self.backward: list[Calls] = [[backward]]
        self.magnitudes: list[Call] = [lambda: self._loss] * batches

    def gather(self, y: Array, sample_weight: Array | None, rows: Array) -> None:
        """Take these rows of the labels and the weights."""
        self._labels, self._weights = y[rows], None if sample_weight is None else sample_weight[rows]

    def _compute(self, k: int) -> None:
        """training.total_loss of the k-th batch."""
        batch = slice(k * self._rows, (k + 1) * self._rows)
        self._y, self._weight = self._labels[batch], None if self._weights is None else self._weights[batch]
        layer = self._last.layer  # where training.loss_inputs looks for logits
        layer.pre_activations, layer.outputs = self._last.z[0], self._outputs
        self._loss = training.data_loss(self._model, self._y, self._outputs, self._weight)
        for penalty in self._penalties:
            self._loss = self._loss + penalty()

    def require_finite(self, k: int) -> None:
        """Errors: FloatingPointError if the k-th batch's loss is not finite."""
        if not math.isfinite(self._loss):
            raise training.diverged(self._model, self._loss)

    def update_metrics(self, batches: int) -> None:
        """The metrics of the first so many batches: done in their steps."""


class SigmoidLoss:
    """Binary cross-entropy of one sigmoid, all from its logits z and t = e^(−|z|): the sigmoid too, for the metrics.

    ops.binary_crossentropy_from_logits, its backward and ops.sigmoid; ops.reduce_losses and its backward. A step needs
    the gradient alone: the losses and the metrics of all batches are computed at once, from the logits that were kept.
    magnitudes: Σ z², finite only if every |z| is below 2·10¹⁹ (in float32), and so is then the loss, of labels in
    [0, 1]; plus the penalties; of weighted losses the loss itself.
    """

    def __init__(self, model: Trainer, last: LastStage, shape: tuple[int, int], penalties: Calls) -> None:
        self._model, self._last, self._penalties = model, last, penalties
        _, self._rows = shape
        self._z = z = last.z
        self._y, self._weight, self._counts = (aligned(shape, z.dtype) for shape in (z.shape, z.shape[:2], z.shape))
        self._of_rows = z.dtype.type(self._rows)
        self._weighted = False
        self._added: list[list[Any]] = []  # the penalties of each batch
        self.forward: list[Calls] = [[lambda: self._added.append([call() for call in penalties])] if penalties else []]
        self.backward: list[Calls] = [self._gradient(*arrays) for arrays in zip(z, self._y, self._counts, strict=True)]
        flat = z.reshape(len(z), self._rows)
        squares: list[Call] = [partial(logits.dot, logits) for logits in flat]
        penalized: list[Call] = [partial(self._with_penalties, k, call) for k, call in enumerate(squares)]
        self._squares = penalized if penalties else squares
        self._exact: list[Call] = [partial(self._loss_of, k) for k in range(len(z))]
        metrics: list[Any] = model.compiled_metrics
        self._fused_metrics = all(type(metric) is BinaryAccuracy and metric.threshold == 0.5 for metric in metrics)
        self._accuracies = metrics

    def _gradient(self, z: Array, y: Array, counts: Array) -> Calls:
        """(1 − y) − tail where z ≥ 0, else tail − y, with tail = t / (1 + t), times what each loss counts.

        As c − copysign(tail, z), c = [z ≥ 0] − y: two roundings, as in each of the two. z + 0 is z, and 0 for −0.
        """
        d_outputs = self._last.d_outputs
        if config.elementwise() == "numba":
            t = aligned(z.shape, z.dtype)
            flat = [array.reshape(-1) for array in (z, t, y, counts, d_outputs)]
            return [*exp_minus_abs(z, t), elementwise.bound(elementwise.binary_crossentropy_backward, *flat)]
        t, tail, c = np.empty_like(z), np.empty_like(z), np.empty_like(z)
        zero, one = constant(0, z.dtype), constant(1, z.dtype)
        return [
            *exp_minus_abs(z, t),
            partial(np.add, one, t, tail),
            partial(np.divide, t, tail, tail),
            partial(np.add, z, zero, t),
            partial(np.copysign, tail, t, tail),
            partial(np.heaviside, z, one, c),
            partial(np.subtract, c, y, c),
            partial(np.subtract, c, tail, d_outputs),
            partial(np.multiply, d_outputs, counts, d_outputs),
        ]

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
            and config.losses_are_tensorflows()
            and model.loss_weight is None
            and model.optimizer.loss_scale_factor is None
        )

    @property
    def magnitudes(self) -> list[Call]:
        """Of each batch a number that is finite only if its loss is."""
        return self._exact if self._weighted else self._squares

    def gather(self, y: Array, sample_weight: Array | None, rows: Array) -> None:
        """Take these rows of the labels and the weights."""
        self._added.clear()
        take(y, rows, self._y.reshape(-1, 1))
        self._weighted = sample_weight is not None
        if sample_weight is None:
            self._counts[...] = 1 / self._rows
        else:
            take(sample_weight, rows, self._weight.reshape(-1))
            np.divide(self._weight, self._of_rows, self._counts[:, :, 0])

    def _with_penalties(self, k: int, square: Call) -> Any:
        return sum(self._added[k], square())

    def _loss_of(self, k: int) -> Any:
        return self._total_losses(k, k + 1)[0]

    def require_finite(self, k: int) -> None:
        """Errors: FloatingPointError if the k-th batch's loss is not finite."""
        loss = self._loss_of(k)
        if not math.isfinite(loss):
            raise training.diverged(self._model, loss)

    def _total_losses(self, first: int, last: int) -> Array:
        """training.total_loss of each batch from first to last − 1."""
        z, y = (array[first:last].reshape(last - first, self._rows) for array in (self._z, self._y))
        losses = ops.binary_crossentropy_from_logits(y, z)
        if self._weighted:
            losses = losses * self._weight[first:last]
        total = losses.sum(axis=1) / self._of_rows
        for penalties in zip(*self._added[first:last], strict=True):
            total = total + np.array(penalties)
        return total

    def update_metrics(self, batches: int) -> None:
        """training.update_metrics of the first so many batches, one after the other."""
        if batches == 0:
            return
        model, rows = self._model, self._rows
        losses, z, y = self._total_losses(0, batches), self._z[:batches], self._y[:batches]
        if self._fused_metrics and not (self._weighted and model.weighted_count):
            model.loss_tracker.add_each(losses * rows, rows)
            if self._accuracies:
                matches = np.count_nonzero((ops.sigmoid(z) > 0.5) == y, axis=(1, 2))
                for metric in self._accuracies:
                    metric.add_each(matches, rows)
            return
        layer = self._last.layer  # where training.loss_inputs looks for logits
        for k in range(batches):
            layer.pre_activations, layer.outputs = z[k], ops.sigmoid(z[k])
            training.update_metrics(model, losses[k], y[k], layer.outputs, self._weight[k] if self._weighted else None)
