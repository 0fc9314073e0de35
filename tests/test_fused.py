"""fused.py: the step on bound buffers is the readable step.

Its sums over a layer's inputs and over the batch come in another order. Two tests hold it: whatever order is right, the
gradients lie within the error bounds of second_step.py; and where the readable step takes its products in the fused
order, all else being its own, the two leave the same bits.
"""

import warnings
from unittest import mock

import numpy as np
import pytest
import second_step
from helpers import assert_same
from hypothesis import given
from hypothesis import strategies as st

from minidl import (
    batches,
    callbacks,
    calls,
    config,
    fused,
    interrupts,
    losses,
    metrics,
    ops,
    optimizers,
    regularizers,
    training,
    utils,
)
from minidl.fused import FusedStep
from minidl.layers import Dense, Dropout, Input
from minidl.models import Sequential

PENALTIES = [None, "l1", "l2", regularizers.L1L2(0.1, 0.2)]


def clipped_and_scaled():
    return optimizers.Adam(clipnorm=0.1, loss_scale_factor=4.0, use_ema=True)


@st.composite
def models(draw):
    """(build, data): a model of plain layers with any loss, and three batches for it."""
    activation = st.sampled_from(["linear", "relu", "sigmoid", "tanh"])
    widths = draw(st.lists(st.integers(1, 9), min_size=0, max_size=3))
    layers = [
        {
            "units": units,
            "activation": draw(activation),
            "use_bias": draw(st.booleans()),
            "kernel_regularizer": draw(st.sampled_from(PENALTIES)),
            "bias_regularizer": draw(st.sampled_from([None, "l2"])),
        }
        for units in widths
    ]
    rates = [draw(st.sampled_from([None, 0.0, 0.3, 0.8, 1.0])) for _ in widths]
    units = draw(st.sampled_from([1, 1, 3]))
    end, loss, metric = draw(
        st.sampled_from(
            [
                ("sigmoid", "binary_crossentropy", ["accuracy"]),
                ("sigmoid", "binary_crossentropy", []),
                ("sigmoid", losses.BinaryCrossentropy(label_smoothing=0.1), ["accuracy"]),
                ("sigmoid", "binary_crossentropy", ["accuracy", "mae", metrics.BinaryAccuracy(threshold=0.3)]),
                ("linear", losses.BinaryCrossentropy(from_logits=True), ["mae"]),
                ("linear", "mse", ["mae"]),
                ("tanh", losses.Huber(reduction="sum"), []),
                ("sigmoid", losses.MeanSquaredError(reduction="mean_with_sample_weight"), []),
            ]
        )
    )
    optimizer = draw(
        st.sampled_from(
            [
                optimizers.Adam,
                optimizers.SGD,
                lambda: optimizers.Adam(clipnorm=0.1, loss_scale_factor=4.0, use_ema=True),
            ]
        )
    )
    dtype, weighted, seed = draw(st.sampled_from(["float32", "float64"])), draw(st.booleans()), draw(st.integers(0, 99))

    def build():
        utils.set_random_seed(seed)
        stack = [Input((5,))]
        for arguments, rate in zip(layers, rates, strict=True):
            stack.append(Dense(**arguments, dtype=dtype))
            if rate is not None:
                stack.append(Dropout(rate, dtype=dtype))
        model = Sequential([*stack, Dense(units, activation=end, dtype=dtype)])
        weighted_metrics = ["binary_accuracy"] if weighted else []
        model.compile(optimizer(), loss, metrics=metric, weighted_metrics=weighted_metrics)
        return model

    rng = np.random.default_rng(seed)
    rows = draw(st.integers(1, 40))
    x = (rng.normal(size=(60, 5)) * draw(st.sampled_from([0.0, 1.0, 1e3]))).astype(dtype)
    y = rng.integers(0, 2, (60, units)).astype(dtype)
    weight = rng.gamma(2, size=60).astype(dtype) if weighted else None
    return build, (x, y, weight), [rng.permutation(60)[:rows] for _ in range(3)]


def in_the_fused_order(model):
    """Patch ops so that Dense layers take their products as fused.py does: the bias as a row, features first."""
    first, last = (layer.parameters["kernel"] for layer in (model.layers[0], model.layers[-1]))

    def columns(inputs, kernel, bias):
        ones = np.ones((len(inputs), 1), inputs.dtype)
        with_ones = np.ascontiguousarray(np.hstack([inputs, ones]))
        with_ones = with_ones.T if kernel is first else np.ascontiguousarray(with_ones.T)
        return with_ones if bias is not None else with_ones[:-1]

    def dense(inputs, kernel, bias=None):
        weights = kernel if bias is None else np.vstack([kernel, bias])
        x = columns(inputs, kernel, bias)
        return np.dot(x.T, weights) if kernel is last else np.ascontiguousarray(np.dot(weights.T, x).T)

    def gradients(d_outputs, inputs, *, out_kernel, out_bias):
        kernel = next(a.parameters["kernel"] for a in model.layers if a.grads.get("kernel") is out_kernel)
        d_rows = d_outputs if kernel is last else np.ascontiguousarray(d_outputs.T).T
        found = np.dot(columns(inputs, kernel, out_bias), d_rows)
        out_kernel[...] = found[: len(out_kernel)]
        if out_bias is not None:
            out_bias[...] = found[-1]

    def backward(d_outputs, kernel):
        d = d_outputs.T if kernel is last else np.ascontiguousarray(d_outputs.T)
        return np.ascontiguousarray(np.dot(kernel, d).T)

    return mock.patch.multiple(ops, dense=dense, dense_gradients=gradients, dense_backward=backward)


@pytest.mark.parametrize("elementwise", config.ELEMENTWISE)
@given(models(), st.integers(1, 3), st.sampled_from([calls.PIECE, 20]))  # of 20 and more, a layer counts as large
def test_the_same_bits_as_the_readable_step_with_its_products(elementwise, case, together, piece):
    if elementwise == "numba":
        pytest.importorskip("numba")
    config.set_elementwise(elementwise)
    build, (x, y, weight), groups = case
    ours, readable = build(), build()
    with mock.patch.object(calls, "PIECE", piece):
        step = FusedStep(ours, len(groups[0]), together)
        step._bind_update()
    with np.errstate(over="ignore", invalid="ignore"):  # some of the models diverge: to the same bits
        for rows in groups:
            weights = None if weight is None else weight[rows]
            with in_the_fused_order(readable):
                training.train_step(readable, x[rows], y[rows], weights, check_finite=False)
        for i in range(0, 3, together):
            step.run(x, y, np.concatenate(groups[i : i + together]), weight, check_finite=False)
    for name, expected in readable.get_state().items():
        assert_same(ours.get_state()[name], expected)
    assert_same(ours.arena.grads, readable.arena.grads)
    for own, other in zip(ours.metrics, readable.metrics, strict=True):
        assert_same(np.asarray(own.result()), np.asarray(other.result()))


@pytest.mark.parametrize("features", [5, 100])  # with the column of ones, and without
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_and_updates_within_the_bounds_of_any_order_of_summation(rng, features, weighted):
    """Each step from the state that the one before left, so that nothing compounds."""
    utils.set_random_seed(7)
    model = Sequential(
        [
            Input((features,)),
            Dense(40, activation="relu", kernel_regularizer="l2"),
            Dense(20, activation="tanh", use_bias=False),
            Dense(9, activation="sigmoid", bias_regularizer="l1"),
            Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizers.Adam(0.01), "binary_crossentropy")
    x = rng.normal(size=(90, features)).astype(np.float32)
    y = rng.integers(0, 2, (90, 1)).astype(np.float32)
    weight = rng.gamma(2, size=90).astype(np.float32) if weighted else None
    step = FusedStep(model, 30)
    slots = [[np.zeros_like(a) for a in model.get_weights()] for _ in range(2)]
    for i, rows in enumerate(np.split(rng.permutation(90), 3)):
        weights = model.get_weights()
        step.run(x, y, rows, weight, check_finite=True)
        truth = second_step.training_step(
            model,
            x[rows],
            y[rows],
            weights=weights,
            m=slots[0],
            v=slots[1],
            step=i + 1,
            masks={},
            sample_weight=None if weight is None else weight[rows],
        )
        adam, views = model.optimizer, model.arena.views
        slots = [[a.copy() for a in views(slot)] for slot in (adam.m, adam.v)]
        for balls, found in (
            (truth.grads, views(model.arena.grads)),
            (truth.m, slots[0]),
            (truth.v, slots[1]),
            (truth.theta, model.get_weights()),
        ):
            for ball, array in zip(balls, found, strict=True):
                assert ball.holds(array).all(), ball.fraction(array).max()


@pytest.mark.parametrize("loss", ["binary_crossentropy", "mse"])
def test_several_batches_at_a_time_are_the_same_as_one_by_one(rng, loss):
    def built():
        utils.set_random_seed(3)
        hidden = Dense(8, activation="relu", kernel_regularizer="l1"), Dropout(0.3)
        model = Sequential([Input((4,)), *hidden, Dense(1, activation="sigmoid")])
        model.compile("adam", loss, metrics=["accuracy", "mae"])
        return model

    x, y = rng.normal(size=(203, 4)), rng.integers(0, 2, 203)
    follows = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    one_by_one, together = built(), built()
    found = [
        model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=hooks, shuffle=False).history
        for model, hooks in ((one_by_one, [follows]), (together, []))
    ]
    assert found[0] == found[1]
    for name, expected in one_by_one.get_state().items():
        assert_same(together.get_state()[name], expected)


@pytest.mark.parametrize(("per_epoch", "size"), [(3, 8), (7, 8), (30, 8), (5, 7)])
def test_steps_per_epoch_go_on_where_they_stopped(rng, per_epoch, size):
    def rows_of(epochs):
        return [rows for _ in range(3) for _, rows in epochs.together(4)]

    data = batches.ArrayBatches((np.arange(60.0)[:, None], None, None), size, False)
    whole, single = batches.Epochs(data, per_epoch), batches.Epochs(data, per_epoch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 30 steps an epoch: the data run out
        got = np.concatenate(rows_of(whole))
        expected = [rows for _ in range(3) for _, _, iterator in single for rows in single.next_batches(iterator)]
    assert_same(got, np.concatenate(expected))


def test_ctrl_c_ends_after_the_step(rng):
    model = Sequential([Input((4,)), Dense(1)])
    model.compile("adam", "mse")
    whole = interrupts.Whole(None)
    whole.waiting = (2, None)
    step = FusedStep(model, 2, 3)
    step.run(
        np.ones((6, 4), np.float32), np.ones((6, 1), np.float32), np.arange(6), None, check_finite=True, whole=whole
    )
    assert model.optimizer.iterations == 1


@pytest.mark.parametrize(("ends", "rate"), [("ctrl-c", 0.3), ("ctrl-c", 1.0), ("loss", 0.3)])
def test_masks_drawn_ahead_count_only_as_far_as_steps_began(rng, ends, rate):
    """As step by step: the seed's counter, and the masks of all that comes after, of other batch sizes too."""

    def built():
        utils.set_random_seed(5)
        model = Sequential(
            [Input((4,)), Dense(8), Dropout(0.2), Dense(8), Dropout(rate), Dense(1, activation="sigmoid")]
        )
        model.compile("sgd", "binary_crossentropy")
        return model

    ours, readable = built(), built()
    x, y = rng.normal(size=(12, 4)).astype(np.float32), np.ones((12, 1), np.float32)
    if ends == "loss":
        x[5] = np.nan
    whole = interrupts.Whole(None)
    step = FusedStep(ours, 3, 4)
    for attempt in range(2):
        if ends == "ctrl-c":
            whole.waiting = (2, None) if attempt == 0 else None
            step.run(x, y, np.arange(12), None, check_finite=True, whole=whole)
        else:
            with pytest.raises(FloatingPointError):
                step.run(x, y, np.arange(12), None, check_finite=True)
    FusedStep(ours, 2).run(x, y, np.arange(2), None, check_finite=True)
    batches = [0, 0, 3, 6, 9] if ends == "ctrl-c" else [0, 3, 0, 3]
    with in_the_fused_order(readable):
        for first in batches:
            rows = slice(first, first + 3)
            if np.isnan(x[rows]).any():
                with pytest.raises(FloatingPointError):
                    training.train_step(readable, x[rows], y[rows], None, check_finite=True)
            else:
                training.train_step(readable, x[rows], y[rows], None, check_finite=True)
        training.train_step(readable, x[:2], y[:2], None, check_finite=True)
    for name, expected in readable.get_state().items():
        assert_same(ours.get_state()[name], expected)


def test_unseeded_masks_of_torch_are_left_to_the_readable_step():
    model = Sequential([Input((4,)), Dense(2), Dropout(0.5), Dense(1)])
    model.compile("sgd", "mse")
    assert fused.fits(model)
    with config.using_random_stream("torch"):
        assert not fused.fits(model)


def steps_of_both(built, steps, rng, change):
    """A model trained by fused steps and one by readable steps in their order; after each, change(model) of both."""
    x, y, rows = rng.normal(size=(8, 4)).astype(np.float32), np.ones((8, 1), np.float32), np.arange(8)
    model, readable = built(), built()
    step = FusedStep(model, 8)
    for _ in range(steps):
        step.run(x, y, rows, None, check_finite=True)
        with in_the_fused_order(readable):
            training.train_step(readable, x, y, None, check_finite=True)
        change(model)
        change(readable)
        yield model, readable


@pytest.mark.parametrize("kind", [regularizers.L1, regularizers.L2, regularizers.L1L2])
@pytest.mark.parametrize("piece", [calls.PIECE, 7])
def test_a_factor_that_is_changed_between_steps(rng, monkeypatch, kind, piece):
    """The penalties' gradients are parts of Adam's pieces, whose borders cut kernels and biases in two."""
    monkeypatch.setattr(calls, "PIECE", piece)

    def built():
        utils.set_random_seed(1)
        penalties = {"kernel_regularizer": kind(0.1), "bias_regularizer": kind(0.2)}
        model = Sequential([Input((4,)), Dense(5, **penalties), Dense(1, activation="sigmoid", **penalties)])
        model.compile("adam", "binary_crossentropy")
        return model

    def change(model):
        for regularizer in model.layers[0].regularizers.values():
            for name in vars(regularizer):
                setattr(regularizer, name, 0.5)

    for model, readable in steps_of_both(built, 3, rng, change):
        assert_same(model.arena.grads, readable.arena.grads)
    assert_same(model.arena.theta, readable.arena.theta)


def test_rows_of_an_array_that_is_not_contiguous(rng):
    x = rng.normal(size=(4, 20)).astype(np.float32).T
    out = np.empty((3, 4), np.float32)
    fused.take(x, np.array([5, 0, 19]), out)
    assert_same(out, x[[5, 0, 19]])


@pytest.mark.parametrize("change", [{"beta_1": 0.5}, {"clipnorm": 0.01}, {"apply": lambda arena: None}])
def test_an_optimizer_that_is_changed_between_steps(rng, change):
    def built():
        utils.set_random_seed(1)
        model = Sequential([Input((4,)), Dense(1, activation="sigmoid")])
        model.compile("adam", "binary_crossentropy")
        return model

    def set_all(model):
        for name, value in change.items():
            setattr(model.optimizer, name, value)

    for model, readable in steps_of_both(built, 2, rng, set_all):
        assert_same(model.arena.theta, readable.arena.theta)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Sequential([Input((4,)), Dense(1, activation="softmax")]),
        lambda: Sequential([Input((4,)), Dense(2, activity_regularizer="l2")]),
        lambda: Sequential([Input((4,)), Dense(2, trainable=False), Dense(1)]),
        lambda: Sequential([Input((4,)), Dense(2, kernel_constraint=abs)]),
        lambda: Sequential([Input((3, 4)), Dense(2)]),
        lambda: Sequential([Input((4,)), Dense(2), Dropout(0.5)]),
        lambda: Sequential([Input((4,)), Dense(2), Dropout(0.5, noise_shape=(None, 1)), Dense(1)]),
    ],
)
def test_what_has_no_fused_form_is_left_to_the_readable_step(build):
    model = build()
    model.compile("sgd", "mse")
    assert not fused.fits(model)
    assert FusedStep.of(model, 3) is None


def test_masks_of_xla_and_losses_of_samples_are_left_too():
    model = Sequential([Input((4,)), Dense(2), Dropout(0.5), Dense(1)])
    model.compile("sgd", losses.MeanSquaredError(reduction=None))
    assert not fused.fits(model)
    model.compile("sgd", "mse", jit_compile=True)
    assert not fused.fits(model)


def test_a_loss_that_is_not_finite_changes_nothing():
    model = Sequential([Input((4,)), Dense(2, activation="relu"), Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    before = model.get_state()
    x = np.full((3, 4), np.nan, np.float32)
    with pytest.raises(FloatingPointError, match="the loss became nan at step 1"):
        FusedStep(model, 3).run(x, np.ones((3, 1), np.float32), np.arange(3), None, check_finite=True)
    for name, expected in before.items():
        assert_same(model.get_state()[name], expected)


def test_adam_in_chunks_is_adam(monkeypatch, rng):
    model = Sequential([Input((4,)), Dense(9), Dense(1)])
    weights = model.get_weights()
    found = []
    for chunk in (2**15, 7, 1):
        monkeypatch.setattr(optimizers, "CHUNK", chunk)
        model.set_weights(weights)
        model.compile("adam", "mse")
        for seed in range(3):
            batch = np.random.default_rng(seed).normal(size=(6, 5))
            model.train_on_batch(batch[:, :4], batch[:, 4:])
        found.append(model.arena.theta.copy())
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from([calls.PIECE, 64, 20]))
def test_pieces_cover_all_and_begin_with_cache_lines(start, size, piece):
    with mock.patch.object(calls, "PIECE", piece):
        found = calls.pieces(start + size, start)
    covered = [i for part in found for i in (part.start, part.stop)]
    assert covered == sorted(covered) and covered[:1] == ([start] if size else []) and covered[1:-1:2] == covered[2::2]
    assert all(0 < part.stop - part.start <= piece for part in found) and (not size or covered[-1] == start + size)
    if piece % 64 == 0:
        assert all(part.start % 64 == 0 for part in found[1:]) and len(found) <= -(-size // piece) + 1


def test_arrays_begin_with_a_cache_line():
    model = Sequential([Input((9,)), Dense(5, activation="relu"), Dropout(0.5), Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    model.train_on_batch(np.ones((7, 9)), np.ones((7, 1)))
    step = FusedStep(model, 7, 3)
    adam = model.optimizer
    of_stages = [array for stage in (step._inputs, *step._dropouts) for array in (stage.outputs.arrays[0],)]
    for array in (model.arena.theta, model.arena.grads, adam.m, adam.v, step._loss._z, *of_stages):
        assert array.ctypes.data % 64 == 0
    assert not np.may_share_memory(model.arena.theta, model.arena.grads)
