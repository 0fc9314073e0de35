"""metrics.py: totals and counts over batches, in dtype."""

import numpy as np
import pytest
from helpers import assert_same

from minidl import config, losses, metrics

F32 = np.float32


def test_mean_weighs_batches_by_their_counts():
    mean = metrics.Mean()
    assert mean.result() == 0
    mean.add(6.0, 3)
    mean.add(2.0, 1)
    assert_same(mean.result(), F32(2))
    mean.reset_state()
    assert (mean.total, mean.count, mean.result()) == (0, 0, 0)


def test_mean_update_state():
    mean = metrics.Mean()
    mean.update_state(5.0)
    assert_same(mean.result(), F32(5))
    mean.update_state([1, 3])
    assert_same(mean.result(), F32(3))
    mean.reset_state()
    mean.update_state([1, 3], sample_weight=[3, 1])
    assert_same(mean.result(), F32(1.5))
    mean.reset_state()
    mean.update_state([[1, 3], [5, 7]], sample_weight=2)  # over the units first: (2, 6)
    assert_same(mean.result(), F32(4))
    assert_same(mean.count, F32(4))


def test_mean_adds_in_its_dtype():
    """2²⁴ + 1 is not a float32: what a float64 total would keep is lost, as in Keras."""
    mean = metrics.Mean()
    mean.add(2**24, 1)
    mean.add(1, 0)
    assert_same(mean.total, F32(2**24))
    mean = metrics.Mean(dtype="float64")
    mean.add(2**24, 1)
    mean.add(1, 0)
    assert_same(mean.total, np.float64(2**24 + 1))
    config.set_floatx("float64")
    assert metrics.Mean().result().dtype == np.float64


def test_binary_accuracy():
    accuracy = metrics.BinaryAccuracy()
    accuracy.update_state([[1], [0], [1], [0]], [[0.9], [0.5], [0.5], [0.6]])
    assert_same(accuracy.result(), F32(0.5))  # 0.5 counts as class 0
    accuracy.update_state([1], [0.6])  # one-dimensional
    assert_same(accuracy.result(), F32(3) / F32(5))
    accuracy.reset_state()
    accuracy.update_state([1, 1], [0.9, 0.1], sample_weight=[3, 1])
    assert_same(accuracy.result(), F32(0.75))


def test_binary_accuracy_means_over_the_units():
    accuracy = metrics.BinaryAccuracy()
    accuracy.update_state([[1, 0], [1, 1]], [[0.9, 0.1], [0.9, 0.1]])
    assert_same(accuracy.result(), F32(0.75))


def test_binary_accuracy_threshold():
    accuracy = metrics.BinaryAccuracy(threshold=0.8)
    accuracy.update_state([1, 1], [0.9, 0.7])
    assert_same(accuracy.result(), F32(0.5))


def test_binary_crossentropy_is_the_mean_of_the_loss(rng):
    y, p = rng.integers(0, 2, (6, 2)), rng.random((6, 2))
    for arguments in ({}, {"label_smoothing": 0.1}, {"from_logits": True}):
        metric = metrics.BinaryCrossentropy(**arguments)
        metric.update_state(y, p)
        each = losses.binary_crossentropy(y, p, **arguments)
        assert_same(metric.result(), each.sum() / F32(6))
        metric.reset_state()
        metric.update_state(y, p, sample_weight=[1, 0, 0, 2, 0, 0])
        assert_same(metric.result(), (each * np.array([1, 0, 0, 2, 0, 0], F32)).sum() / F32(3))


@pytest.mark.parametrize(
    ("identifier", "cls", "name"),
    [
        ("accuracy", metrics.BinaryAccuracy, "accuracy"),
        ("acc", metrics.BinaryAccuracy, "acc"),
        ("binary_accuracy", metrics.BinaryAccuracy, "binary_accuracy"),
        (metrics.BinaryAccuracy, metrics.BinaryAccuracy, "binary_accuracy"),
        ("binary_crossentropy", metrics.BinaryCrossentropy, "binary_crossentropy"),
        ("bce", metrics.BinaryCrossentropy, "bce"),
    ],
)
def test_get(identifier, cls, name):
    found = metrics.get(identifier)
    assert type(found) is cls
    assert found.name == name


def test_get_makes_a_new_one_or_passes_an_instance_through():
    assert metrics.get("accuracy") is not metrics.get("accuracy")
    mine = metrics.Mean("mine")
    assert metrics.get(mine) is mine


def test_accuracy_of_several_outputs_is_refused_and_binary_accuracy_is_not():
    with pytest.raises(NotImplementedError, match=r"'accuracy' of a model with 3 outputs .*pass 'binary_accuracy'"):
        metrics.get("accuracy", units=3)
    assert type(metrics.get("binary_accuracy", units=3)) is metrics.BinaryAccuracy
