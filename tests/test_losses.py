"""losses.py: the mean over units and batch, weights, smoothing, and what each identifier resolves to."""

import math
import types

import numpy as np
import pytest
from helpers import assert_close, assert_gradients_close, assert_same

from minidl import config, losses
from minidl.losses import BinaryCrossentropy

EPS = np.finfo(np.float64).eps


def batch(rng, samples=5, units=3):
    return rng.random((samples, units)), rng.uniform(0.05, 0.95, (samples, units)), rng.uniform(0.5, 2, samples)


def by_hand(y, p, weight):
    """Σ_b w_b · mean_u ℓ / B in plain Python."""
    total = 0.0
    for y_row, p_row, w in zip(y, p, weight, strict=True):
        row = [-(yi * math.log(pi) + (1 - yi) * math.log(1 - pi)) for yi, pi in zip(y_row, p_row, strict=True)]
        total += w * sum(row) / len(row)
    return np.float64(total / len(y))


# 15 terms below 2·3, some 25 roundings each
SUM_BUDGET = 15 * 6 * 25 * EPS


def test_value_is_the_mean_over_units_and_samples(rng):
    config.set_floatx("float64")
    y, p, weight = batch(rng)
    logits = np.log(p / (1 - p))
    loss = BinaryCrossentropy()
    assert_close(loss(y, p), by_hand(y, p, np.ones(5)), atol=SUM_BUDGET)
    assert_close(loss(y, p, weight), by_hand(y, p, weight), atol=SUM_BUDGET)
    # the logits are rounded by 3ε·|z|, |dℓ/dz| ≤ 1
    assert_close(BinaryCrossentropy(from_logits=True)(y, logits, weight), by_hand(y, p, weight), atol=2 * SUM_BUDGET)


def test_weights_are_not_normalized(rng):
    y, p, _ = batch(rng)
    loss = BinaryCrossentropy(dtype="float64")
    assert_close(loss(y, p, np.full(5, 4.0)), 4 * loss(y, p), atol=4 * SUM_BUDGET)
    assert_same(loss(y, p, np.zeros(5)), np.float64(0))


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_is_that_of_the_value(rng, from_logits, weighted, smoothing):
    y, p, weight = batch(rng)
    y_pred = np.log(p / (1 - p)) if from_logits else p
    loss = BinaryCrossentropy(label_smoothing=smoothing, from_logits=from_logits)
    arguments = {"from_logits": from_logits, "sample_weight": weight if weighted else None}
    # |ℓ‴| ≤ 4/0.05³ = 32 000 (0.1 of logits), times weights below 2, over 15
    assert_gradients_close(
        lambda: loss.value(y, y_pred, **arguments),
        y_pred,
        loss.gradient(y, y_pred, **arguments),
        third_derivative=32_000 * 2 / 15,
        scale=15 * 6 * 25 / 15,
    )


def test_label_smoothing_pulls_labels_to_one_half():
    loss = BinaryCrossentropy(label_smoothing=0.2, dtype="float64")
    y, p = np.array([[1.0], [0.0]]), np.array([[0.7], [0.4]])
    expected = BinaryCrossentropy(dtype="float64")(np.array([[0.9], [0.1]]), p)
    assert_close(loss(y, p), expected, atol=SUM_BUDGET)
    # fully smoothed, the label does not matter
    loss = BinaryCrossentropy(label_smoothing=1.0, dtype="float64")
    assert_same(loss(y, p), loss(1 - y, p))


def test_one_dimensional_and_nested_lists_are_taken():
    loss = BinaryCrossentropy()
    expected = loss(np.array([[1.0], [0]]), np.array([[0.5], [0.25]]))
    assert_same(loss([1, 0], [0.5, 0.25]), expected)
    assert expected.dtype == np.float32
    # (ln 2 + ln 4/3) / 2; float32 rounds some 8 times, numbers below 1
    assert_close(expected, np.float32((math.log(2) + math.log(4 / 3)) / 2), atol=8 * np.finfo(np.float32).eps)


def test_dtype_is_floatx_unless_given():
    assert BinaryCrossentropy().dtype == "float32"
    assert BinaryCrossentropy(dtype="float64")([1], [0.5]).dtype == np.float64
    config.set_floatx("float64")
    assert BinaryCrossentropy()([1], [0.5]).dtype == np.float64


def test_epsilon_of_the_clip_is_the_global_one():
    loss = BinaryCrossentropy()
    assert_same(loss([1], [0]), -np.log(np.float32(1e-7)))
    config.set_epsilon(0.25)
    assert_same(loss([1], [0]), -np.log(np.float32(0.25)))
    y, p = np.array([[1.0]]), np.array([[0.1]])
    assert_same(loss.gradient(y, p, from_logits=False, sample_weight=None), np.array([[0.0]]))


def test_function_gives_each_sample_s_loss(rng):
    config.set_floatx("float64")
    y, p, _ = batch(rng)
    found = losses.binary_crossentropy(y, p)
    expected = np.array([by_hand(y[i : i + 1], p[i : i + 1], [1]) for i in range(5)])
    assert_close(found, expected, atol=SUM_BUDGET)
    logits = np.log(p / (1 - p))
    assert_close(losses.binary_crossentropy(y, logits, from_logits=True), expected, atol=2 * SUM_BUDGET)
    smoothed = losses.binary_crossentropy(y, p, label_smoothing=0.4)
    assert_close(smoothed, losses.binary_crossentropy(y * 0.6 + 0.2, p), atol=SUM_BUDGET)


@pytest.mark.parametrize(
    "identifier",
    ["binary_crossentropy", "BinaryCrossentropy", "bce", BinaryCrossentropy, losses.binary_crossentropy],
)
def test_get(identifier):
    found = losses.get(identifier)
    assert type(found) is BinaryCrossentropy
    assert (found.from_logits, found.label_smoothing, found.name) == (False, 0.0, "binary_crossentropy")


def test_get_passes_an_instance_through():
    mine = BinaryCrossentropy(from_logits=True)
    assert losses.get(mine) is mine


def test_get_takes_keras_s_function_and_refuses_a_user_s_own():
    function = types.FunctionType((lambda y_true, y_pred: 0).__code__, {}, "binary_crossentropy")
    function.__module__ = "keras.src.losses.losses"
    assert type(losses.get(function)) is BinaryCrossentropy
    function.__module__ = "__main__"
    with pytest.raises(ValueError, match="Unknown loss"):
        losses.get(function)


def test_mean_is_another_name_of_the_reduction(rng):
    y, p, _ = batch(rng)
    assert_same(BinaryCrossentropy(reduction="mean")(y, p), BinaryCrossentropy()(y, p))
