"""Training on a device, whichever it is: cases and checks, run by test_on_device.py with the host's device in a GPU's
place, and by gpu/test_training.py on a GPU.

A check takes the device. The kernels' exponential is made of additions and multiplications, so that its bits are known
on every device; their tanh, and the powers in Adam's step size in float64, are the host's on the host alone.
"""

import contextlib
import ctypes
import itertools
from unittest import mock

import numpy as np
import second_step
from cuda_host import checks
from helpers import assert_same

from minidl import activations, callbacks, config, datasets, fused, losses, on_device, ops, random, utils
from minidl.layers import Activation, Dense, Dropout, Input
from minidl.metrics import BinaryAccuracy
from minidl.models import Sequential
from minidl.optimizers import Adam, AdamW
from minidl.regularizers import L1, L1L2, L2
from minidl.schedules import ExponentialDecay, PiecewiseConstantDecay

# --------------------------------------------------------------------------------------------------- the models


def penguins(rows=None, dtype="float32"):
    (x, y), (x_test, _) = datasets.penguins.load_data()
    x, _ = datasets.standardize(x, x_test)
    return x[:rows].astype(dtype), y[:rows].reshape(-1, 1).astype(dtype)


def notebook(dropout, dtype="float32", learning_rate=0.01, **arguments):
    """A model of the notebook, with or without dropout, from its seed."""
    utils.set_random_seed(812)
    with config.using_floatx(dtype):
        first = Dense(4, "relu", input_shape=(4,), kernel_regularizer=L1(0.1))
        second = Dense(4, "relu", kernel_regularizer=L2(0.1))
        last = Dense(1, "sigmoid")
        layers = [first, Dropout(0.8), second, Dropout(0.5), last] if dropout else [first, second, last]
        model = Sequential(layers)
        accuracy = BinaryAccuracy("accuracy")
        model.compile(Adam(learning_rate), "binary_crossentropy", metrics=[accuracy], **arguments)
    return model


def stacked(*layers, inputs=4, loss="binary_crossentropy", metrics=("accuracy",), optimizer=None, **arguments):
    """A model of layers that are made now, after the seed."""
    utils.set_random_seed(3)
    model = Sequential([Input((inputs,)), *(make() for make in layers)])
    model.compile(optimizer or Adam(0.02), loss, metrics=list(metrics), **arguments)
    return model


def updated(optimizer):
    """A model with penalties and dropout, trained by an optimizer."""
    return stacked(
        lambda: Dense(8, "relu", kernel_regularizer=L1L2(0.01, 0.02), bias_regularizer=L2(0.1)),
        lambda: Dropout(0.3),
        lambda: Dense(1, "sigmoid"),
        optimizer=optimizer,
    )


def without_decay_of_biases(optimizer):
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def of_classes(classes, rows=75, inputs=6, one_hot=True):
    """x and y of so many classes, by the largest of as many sums."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(rows, inputs)).astype(np.float32)
    numbers = (x @ rng.normal(size=(inputs, classes))).argmax(axis=1)
    return x, np.eye(classes, dtype=np.float32)[numbers] if one_hot else numbers


def of_random(inputs, units=1, rows=75, seed=0):
    """x and y of these sizes, the labels made by a rule that can be learned."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)).astype(np.float32)
    return x, (x @ rng.normal(size=(inputs, units)) > 0).astype(np.float32)


def of_numbers(units, rows=75, inputs=6):
    """x and y of a regression."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, inputs)).astype(np.float32)
    return x, (x @ rng.normal(size=(inputs, units)) + rng.normal(size=(rows, units))).astype(np.float32)


def weights_of(rows, seed=1):
    return np.random.default_rng(seed).gamma(2, size=rows).astype(np.float32)


# name -> (model, x and y, fit's arguments)
CASES = {
    "notebook": lambda: (notebook(False), penguins(), {"validation_split": 0.2}),
    "notebook, dropout": lambda: (notebook(True), penguins(), {"validation_split": 0.2}),
    "notebook, float64": lambda: (notebook(True, "float64"), penguins(dtype="float64"), {"validation_split": 0.2}),
    "one small batch": lambda: (notebook(True), penguins(9), {"batch_size": 32}),
    "whole batches": lambda: (notebook(True), penguins(64), {"batch_size": 16}),
    "sample weights": lambda: (
        notebook(True, weighted_metrics=["binary_accuracy"]),
        penguins(70),
        {"sample_weight": weights_of(70), "validation_data": (*penguins(20), weights_of(20))},
    ),
    "class weights": lambda: (notebook(False), penguins(70), {"class_weight": {0: 1.0, 1: 2.5}}),
    "in order": lambda: (notebook(True), penguins(70), {"shuffle": False}),
    "order within batches": lambda: (notebook(True), penguins(70), {"shuffle": "batch"}),
    "steps": lambda: (notebook(True), penguins(70), {"steps_per_epoch": 2, "validation_data": penguins(50),
                                                      "validation_steps": 1, "validation_batch_size": 20}),
    "several steps an execution": lambda: (
        notebook(True, steps_per_execution=2),
        penguins(70),
        {"steps_per_epoch": 3, "batch_size": 10, "validation_split": 0.1},
    ),
    "masks of XLA": lambda: (notebook(True, jit_compile=True), penguins(70), {}),
    "validation now and then": lambda: (
        notebook(False),
        penguins(70),
        {"validation_data": penguins(33), "validation_freq": 2, "validation_batch_size": 8},
    ),
    "both penalties, on biases": lambda: (
        stacked(
            lambda: Dense(5, "tanh", kernel_regularizer=L1L2(0.01, 0.02), bias_regularizer=L2(0.1)),
            lambda: Dense(3, "sigmoid", use_bias=False),
            lambda: Dense(1, "sigmoid", bias_regularizer=L1(0.01)),
        ),
        penguins(70),
        {},
    ),
    "dropout at both ends": lambda: (
        stacked(
            lambda: Dropout(0.3), lambda: Dense(6, "relu"), lambda: Dropout(0.0), lambda: Dense(1, "sigmoid"),
            lambda: Dropout(0.1)
        ),
        penguins(70),
        {"validation_split": 0.3},
    ),
    "everything dropped": lambda: (
        stacked(lambda: Dense(4, "relu"), lambda: Dropout(1.0), lambda: Dense(1, "sigmoid")), penguins(40), {}
    ),
    "activations as layers": lambda: (
        stacked(
            lambda: Dense(5), lambda: Activation("relu"), lambda: Dense(4), lambda: Activation("tanh"),
            lambda: Activation("linear"), lambda: Dense(1), lambda: Activation("sigmoid"),
            lambda: Activation("linear"),
        ),
        penguins(70),
        {"validation_split": 0.2},
    ),
    "logits": lambda: (
        stacked(lambda: Dense(4, "relu"), lambda: Dense(1), loss=losses.BinaryCrossentropy(from_logits=True)),
        penguins(70),
        {},
    ),
    "three labels, tiled products": lambda: (
        stacked(
            lambda: Dense(40, "relu"), lambda: Dense(66, "tanh"), lambda: Dense(3, "sigmoid"), inputs=20,
            metrics=["binary_accuracy"],
        ),
        of_random(20, 3, 140),
        {"batch_size": 64},
    ),
    "sums of several tiles": lambda: (
        stacked(lambda: Dense(40, "relu", kernel_regularizer=L2(0.01)), lambda: Dense(1, "sigmoid"), inputs=30),
        of_random(30, 1, 2500),
        {"batch_size": 2100},
    ),
    "squared errors": lambda: (
        stacked(
            lambda: Dense(8, "relu", kernel_regularizer=L2(0.01)), lambda: Dropout(0.3), lambda: Dense(2),
            inputs=6, loss="mse", metrics=["mae"], weighted_metrics=["mse"],
        ),
        of_numbers(2),
        {"sample_weight": np.arange(1, 76) / 8, "validation_data": (*of_numbers(2, 20), np.arange(1, 21) / 8)},
    ),
    "squared errors of a sigmoid": lambda: (
        stacked(
            lambda: Dense(5, "tanh"), lambda: Dense(1), lambda: Activation("sigmoid"), inputs=6,
            loss=losses.MeanSquaredError(), metrics=(),
        ),
        (of_numbers(1)[0], of_numbers(1)[1][:, 0]),
        {"validation_split": 0.2},
    ),
    "absolute errors": lambda: (
        stacked(
            lambda: Dense(8, "relu"), lambda: Dense(2), inputs=6, loss="mae", metrics=["mse"], weighted_metrics=["mae"],
        ),
        of_numbers(2),
        {"sample_weight": np.arange(1, 76) / 8, "validation_split": 0.2},
    ),
    "squared errors of a softmax": lambda: (
        stacked(lambda: Dense(5, "relu"), lambda: Dense(3, "softmax"), inputs=6, loss="mse"), of_classes(3), {}
    ),
    "classes": lambda: (
        stacked(
            lambda: Dense(8, "relu", kernel_regularizer=L2(0.01)), lambda: Dropout(0.3), lambda: Dense(3, "softmax"),
            inputs=6, loss="categorical_crossentropy", weighted_metrics=["accuracy"],
        ),
        of_classes(3),
        {"sample_weight": np.arange(1, 76) / 8, "validation_data": (*of_classes(3, 20), np.arange(1, 21) / 8)},
    ),
    "class numbers, more than a warp's lanes": lambda: (
        stacked(
            lambda: Dense(40), lambda: Activation("softmax"), lambda: Activation("linear"), inputs=6,
            loss="sparse_categorical_crossentropy",
        ),
        of_classes(40, one_hot=False),
        {"validation_split": 0.2, "class_weight": {0: 2.0, 3: 0.5}},
    ),
    "class numbers in a column, logits": lambda: (
        stacked(
            lambda: Dense(3), inputs=6, loss=losses.SparseCategoricalCrossentropy(from_logits=True),
        ),
        (of_classes(3)[0], of_classes(3, one_hot=False)[1][:, None]),
        {},
    ),
    "a softmax within, binary labels of a softmax": lambda: (
        stacked(
            lambda: Dense(5, "softmax"), lambda: Dense(4), lambda: Activation("softmax"), lambda: Dense(3, "softmax"),
            inputs=6, metrics=["binary_accuracy", "categorical_accuracy"],
        ),
        of_classes(3),
        {},
    ),
    "amsgrad, a schedule": lambda: (
        updated(Adam(ExponentialDecay(0.1, 2, 0.5), amsgrad=True)), penguins(70), {"validation_split": 0.2}
    ),
    "AdamW, biases do not decay": lambda: (
        updated(without_decay_of_biases(AdamW(PiecewiseConstantDecay([1, 4], [0.02, 0.01, 0.1]), 0.5))),
        penguins(70),
        {},
    ),
    "AdamW with amsgrad, clipped by value": lambda: (
        updated(AdamW(0.02, 0.1, amsgrad=True, clipvalue=0.01)), penguins(70), {}
    ),
    "clipped by norms": lambda: (updated(Adam(0.02, clipnorm=0.05)), penguins(70), {}),
    "clipped by the norm of all": lambda: (
        stacked(
            lambda: Dense(60, "relu"), lambda: Dense(1, "sigmoid"), inputs=30,
            optimizer=Adam(0.02, global_clipnorm=0.05),
        ),
        of_random(30, 1, 70),
        {},
    ),
    "no metrics, one layer": lambda: (stacked(lambda: Dense(1, "sigmoid"), metrics=()), penguins(40), {}),
}  # fmt: skip


# all but those with tanh or float64: in the others each elementary function has the same bits on every device
_OF_THE_HOST = (
    "notebook, float64",
    "both penalties, on biases",
    "activations as layers",
    "three labels, tiled products",
)
PORTABLE = [name for name in CASES if name not in _OF_THE_HOST]


# ------------------------------------------------------------------------- the CPU, adding in the kernels' order


def _exp(values):
    """As common.cuh computes it; all of the CPU's exponentials here are of −|z|."""
    values = np.asarray(values)
    assert not (values > 0).any()
    return checks.exp_minus(-values)


def _tanh(values, out=None):
    """The C library's, with which the shim's kernels are linked."""
    libm = ctypes.CDLL("libm.so.6")
    double = values.dtype == np.float64
    function = libm.tanh if double else libm.tanhf
    function.restype = c_type = ctypes.c_double if double else ctypes.c_float
    function.argtypes = [c_type]
    found = np.array([function(v) for v in values.ravel()], values.dtype).reshape(values.shape)
    if out is None:
        return found
    out[...] = found
    return out


def _gradients(d_outputs, inputs, *, out_kernel, out_bias):
    out_kernel[...] = checks.product_in_order(inputs.T, d_outputs)
    if out_bias is not None:  # dense_backward: thread row r adds the rows r, r + ROWS, …; then the sums, from 0 upward
        rows = on_device.BIAS_BLOCK[1]
        sums = [np.add.accumulate(np.vstack([0 * d_outputs[:1], d_outputs[r::rows]]))[-1] for r in range(rows)]
        out_bias[...] = np.add.accumulate(np.array(sums))[-1]


def _value_gradient(loss, y_true, y_pred, *, from_logits, sample_weight):
    """The order of bce.cu, errors.cu and categorical.cu: the mean is one factor, the weight another."""
    count = y_pred.size if loss.averages else len(y_pred)
    gradient = loss.backward(loss.targets(y_true, y_pred), y_pred, from_logits) * y_pred.dtype.type(1 / count)
    return gradient if sample_weight is None else gradient * sample_weight[:, None]


def _sum_of_row(terms):
    """Along the last axis, as a warp adds: warp_total."""
    return np.apply_along_axis(checks.warp_total, -1, terms)[..., None]


def _norm(grads):
    return np.sqrt(checks.block_total(np.square(grads), on_device.BLOCK))


def _clip_by_norm(grad, *, clipnorm):
    c = grad.dtype.type(clipnorm)
    return grad * c / np.maximum(_norm(grad), c)


def _clip_by_global_norm(grads, *, global_clipnorm):
    one, c = grads.dtype.type(1), grads.dtype.type(global_clipnorm)
    return grads * (c * np.minimum(one / _norm(grads), grads.dtype.type(1 / global_clipnorm)))


@contextlib.contextmanager
def in_the_kernels_order():
    """The readable training step, with sums in the kernels' order, their exponential, and the C library's tanh."""

    def dense(inputs, kernel, bias=None):
        products = checks.product_in_order(inputs, kernel)
        return products if bias is None else products + bias

    def softmax_backward(d_outputs, outputs):
        return outputs * (d_outputs - _sum_of_row(d_outputs * outputs))

    softmax, categorical = checks.of_classes(_sum_of_row)
    own = activations.softmax.forward, activations.softmax.backward  # of a frozen object, which layers hold
    of_kernels = (
        losses.BinaryCrossentropy, losses.CategoricalCrossentropy, losses.SparseCategoricalCrossentropy,
        losses.MeanSquaredError, losses.MeanAbsoluteError,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        for patch in (
            mock.patch.multiple(
                ops, dense=dense, dense_gradients=_gradients, clip_by_norm=_clip_by_norm,
                dense_backward=lambda d, k: checks.product_in_order(d, k.T), clip_by_global_norm=_clip_by_global_norm,
                **categorical,
            ),
            mock.patch.multiple(np, exp=_exp, tanh=_tanh),
            *(mock.patch.object(loss, "value_gradient", _value_gradient) for loss in of_kernels),
            mock.patch.object(fused, "fits", lambda model: False),
        ):  # fmt: skip
            stack.enter_context(patch)
        for name, function, before in zip(("forward", "backward"), (softmax, softmax_backward), own, strict=True):
            object.__setattr__(activations.softmax, name, function)
            stack.callback(object.__setattr__, activations.softmax, name, before)
        yield


# ----------------------------------------------------------------------------------------------------- the checks


def assert_same_state(got, expected):
    """Weights, moments, the step's number, the seeds' counters: the same bits."""
    got, expected = got.get_state(), expected.get_state()
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert_same(got[name], value)


def assert_same_history(got, expected, rows, dtype="float32"):
    """The same keys in the same order; accuracies equal, losses and errors within the rounding of other orders of sums.

    A loss is a sum of at most `rows` terms ≥ 0, of which each is the same number but for log1p, at most LOG1P units of
    roundoff off on either side; with the penalties and the means over batches a few roundings more. Labels are 0 and 1,
    so that max(z, 0) − z·y is exact, and no term cancels.
    """
    assert list(got) == list(expected)
    u = float(np.finfo(dtype).eps) / 2
    log1p = 10
    n = rows + 20
    relative = 2 * (n * u / (1 - n * u) + log1p * u)
    for name, values in expected.items():
        for ours, theirs in zip(got[name], values, strict=True):
            allowed = 4 * u if "accuracy" in name else relative * abs(theirs)
            assert np.isfinite(ours) and abs(ours - theirs) <= allowed, f"{name}: {ours!r}, expected {theirs!r}"


def assert_as_on_the_cpu(device, case, epochs=3):
    """fit on the device and on the CPU, in the kernels' order: rows, masks, weights and moments the same bits."""
    ours, (x, y), arguments = case()
    settings = {"epochs": epochs, "verbose": 0, **arguments}
    history = ours.fit(x, y, **settings, device=device).history
    evaluated = ours.evaluate(x, y, verbose=0, return_dict=True, device=device)
    predicted = ours.predict(x, verbose=0, device=device)
    with in_the_kernels_order():
        theirs, (x, y), _ = case()
        expected = theirs.fit(x, y, **settings).history
        expected_scores = theirs.evaluate(x, y, verbose=0, return_dict=True)
        expected_outputs = theirs.predict(x, verbose=0)
    assert_same_state(ours, theirs)
    assert_same_history(history, expected, len(x), ours.dtype)
    one = {name: [value] for name, value in evaluated.items()}
    assert_same_history(one, {name: [value] for name, value in expected_scores.items()}, len(x), ours.dtype)
    assert_same(predicted, expected_outputs)


def assert_within_bounds(device, dropout, steps, weighted=False):
    """Every step of a whole training within the error bounds of second_step.py, from what the step before left.

    An epoch is a step here, so that the state comes back after each. The rows are those of Keras's order, the masks
    those of its streams: other ones would be far outside.
    """
    x, y = penguins()
    weight = weights_of(len(x)) if weighted else None
    model = notebook(dropout)
    states = []

    class Keep(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            states.append(model.get_state())

    model.fit(
        x, y, epochs=steps, steps_per_epoch=1, batch_size=32, verbose=0, device=device, callbacks=[Keep()],
        sample_weight=weight,
    )  # fmt: skip
    states.append(model.get_state())
    order = random.epoch_order(len(x), 32, True)
    batches = -(-len(x) // 32)
    views = model.arena.views
    seeds = {layer.name: layer.seed_generator.state[0] for layer in model.layers if isinstance(layer, Dropout)}
    for step, (before, after) in enumerate(itertools.pairwise(states)):
        at = step % batches * 32
        rows = order[at : at + 32]
        masks = {
            layer.name: random.dropout_mask((len(rows), 4), layer.rate, (int(seeds[layer.name]), step), "float32")
            for layer in model.layers
            if isinstance(layer, Dropout)
        }
        truth = second_step.training_step(
            model, x[rows], y[rows], weights=views(before["theta"]), m=views(before["m"]), v=views(before["v"]),
            step=step + 1, masks=masks, sample_weight=None if weight is None else weight[rows],
        )  # fmt: skip
        for name, balls in (("m", truth.m), ("v", truth.v), ("theta", truth.theta)):
            for ball, array in zip(balls, views(after[name]), strict=True):
                assert ball.holds(array).all(), f"{name} at step {step}: {ball.fraction(array).max()}"
    assert int(states[-1]["iterations"]) == steps


def assert_resumes(device, dropout):
    """Two epochs and then two more are four, to the bit; so is a model that went through a file's bytes between."""
    x, y = penguins()
    whole, parts = notebook(dropout), notebook(dropout)
    settings = {"verbose": 0, "validation_split": 0.2, "device": device}
    expected = whole.fit(x, y, epochs=4, **settings).history
    found = parts.fit(x, y, epochs=2, **settings).history
    again = parts.fit(x, y, epochs=4, initial_epoch=2, **settings).history
    assert {name: found[name] + again[name] for name in found} == expected
    assert_same_state(parts, whole)


def assert_repeats(device, steps):
    """The same training twice: the same bits after so many steps."""
    x, y = penguins()
    models = [notebook(True) for _ in range(2)]
    for model in models:
        utils.set_random_seed(5)
        model.fit(x, y, epochs=1 + steps // 9, verbose=0, device=device)
    assert models[0].optimizer.iterations >= steps
    assert_same_state(models[0], models[1])


def assert_kept_between_calls(device):
    """Calls one after the other, on other data of the same shapes, from other states: as if nothing had been kept."""
    (x, y), first = penguins(140), slice(0, 70)
    ours, theirs = notebook(True), notebook(True)
    for model in (ours, theirs):
        found = []
        for rows in (first, slice(70, 140), slice(0, 50)):
            if model is theirs:
                on_device._kept.clear()
            found.append(model.fit(x[rows], y[rows], verbose=0, validation_split=0.2, device=device).history)
            for _ in range(2):
                found += model.evaluate(x[rows], y[rows], verbose=0, device=device)
                found += model.predict(x[rows], verbose=0, device=device).ravel().tolist()
                model.set_weights([weight * 1.5 for weight in model.get_weights()])
            model.layers[1].seed_generator.state[1] += 3
            model.optimizer.m[...] *= 2
        if model is ours:
            kept = found
    assert found == kept
    assert_same_state(ours, theirs)


def assert_device_arrays_are_used_where_they_are(device, send):
    """send: of the caller, makes an array of the device from NumPy's. The same bits as from host arrays."""
    x, y = penguins(70)
    weight = weights_of(70)
    ours, theirs = notebook(True), notebook(True)
    arguments = {"epochs": 2, "verbose": 0, "validation_split": 0.2, "device": device}
    there = [send(array) for array in (x, y, weight)]
    found = ours.fit(there[0], there[1], sample_weight=there[2], **arguments).history
    assert found == theirs.fit(x, y, sample_weight=weight, **arguments).history
    assert_same_state(ours, theirs)
    outputs = ours.predict(there[0], verbose=0, device=device)
    assert device.adopted(outputs) is not None
    expected = theirs.predict(x, verbose=0, device=device)
    assert_same(device.host(outputs), expected)
    assert ours.evaluate(there[0], there[1], verbose=0, device=device) == theirs.evaluate(
        x, y, verbose=0, device=device
    )
    for array, weight in zip(ours.weights_on_device(device), ours.get_weights(), strict=True):
        assert_same(device.host(array), weight)


assert set(on_device.ACTIVATIONS) == {activations.linear, activations.relu, activations.sigmoid, activations.tanh}
