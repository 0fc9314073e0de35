"""fused.py: the step on bound buffers leaves the very bits that the readable step leaves."""

import numpy as np
import pytest
from helpers import assert_same
from hypothesis import given
from hypothesis import strategies as st

from minidl import fused, losses, metrics, optimizers, regularizers, training, utils
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


@given(models())
def test_the_same_bits_as_the_readable_step(case):
    build, (x, y, weight), batches = case
    ours, readable = build(), build()
    step = FusedStep.of(ours, len(batches[0]))
    assert step is not None
    with np.errstate(over="ignore", invalid="ignore"):  # some of the models diverge: to the same bits
        for rows in batches:
            weights = None if weight is None else weight[rows]
            training.train_step(readable, x[rows], y[rows], weights, check_finite=False)
            step.run(x, y, rows, weight, check_finite=False)
    for name, expected in readable.get_state().items():
        assert_same(ours.get_state()[name], expected)
    assert_same(ours.arena.grads, readable.arena.grads)
    for own, other in zip(ours.metrics, readable.metrics, strict=True):
        assert_same(np.asarray(own.result()), np.asarray(other.result()))


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
