"""The free run: distances of trainings from one start, beside those that rounding alone makes."""

import judge_steps
import numpy as np
import pytest

import minidl.keras as k
from minidl import ops, utils
from minidl.oracle import drift
from minidl.oracle.drift import FreeRun, summed_in_another_order


def built(name="first"):
    utils.clear_session(free_memory=False)
    utils.set_random_seed(7)
    layers = [k.layers.Dense(16, "tanh", name=name), k.layers.Dropout(0.3), k.layers.BatchNormalization()]
    model = k.Sequential([k.layers.Input((20,)), *layers, k.layers.Dense(1, name="last")])
    model.compile(k.optimizers.Adam(0.01), "mse")
    return model


def batches(steps, rows=24):
    rng = np.random.default_rng(1)
    return [(rng.normal(size=(rows, 20)).astype("f"), rng.normal(size=(rows, 1)).astype("f")) for _ in range(steps)]


def followed(steps, change=lambda step: None, **seed):
    trained, run = built(), FreeRun(built(), built(), **seed)
    for number, batch in enumerate(batches(steps)):
        step = judge_steps.step_of(trained, *batch, number=number, batch=number)
        change(step)
        run.step(step)
    return run.drift()


def test_the_same_training_does_not_drift_and_one_that_rounds_otherwise_does():
    found = followed(6)
    assert found.tensors[:2] == ["first/kernel", "first/bias"] and "batch_normalization/moving_mean" in found.tensors
    assert found.steps.tolist() == list(range(6))
    assert found.distance.shape == found.rounding_ulps.shape == (6, len(found.tensors))
    assert not found.distance.any() and not found.distance_ulps.any() and not found.times.any()
    kernel = found.rounding[:, 0]
    assert 0 < kernel[0] < 1e-6 and 1e-9 < kernel.max() < 1e-4  # a sum of 20 terms rounds, and Adam enlarges it
    unit = np.spacing(np.float32(np.abs(built().get_layer("first").kernel.numpy()).max()))
    assert found.rounding_ulps[0, 0] == pytest.approx(kernel[0] / unit, rel=0.02)


def test_another_order_of_sums_drifts_as_far_as_rounding_explains():
    found = [followed(8, seed=seed).rounding for seed in (1, 2, 3)]
    assert (found[0] != found[1]).any() and (found[1] != found[2]).any()
    assert max(one.max() for one in found) < 100 * min(one.max() for one in found)


def test_a_wrong_training_drifts_further_than_rounding_explains():
    def wrong(step):
        step.after.weights["first/kernel"] += np.float32(0.01)

    found = followed(3, wrong)
    assert found.times[0] > 1000 and found.distance[:, 0] == pytest.approx(0.01, rel=1e-4)
    assert found.times[1] == 0


def test_weights_that_become_nan_are_nan_away():
    def wrong(step):
        step.after.weights["last/bias"][...] = np.nan

    assert np.isnan(followed(2, wrong).distance[:, -1]).all()


def test_what_is_kept_does_not_grow(monkeypatch):
    monkeypatch.setattr(drift, "POINTS", 8)
    trained, run = built(), FreeRun(built(), built())
    for number, batch in enumerate(batches(30, rows=3)):
        run.step(judge_steps.step_of(trained, *batch, number=number, batch=number))
        assert len(run._rows) <= 8
    assert run.drift().steps.tolist() == [0, 4, 8, 12, 16, 20, 24, 28, 29]


def test_sums_in_another_order_are_the_same_sums(rng):
    x, w, d = rng.normal(size=(5, 3, 8)), rng.normal(size=(8, 4)), rng.normal(size=(5, 3, 4))
    plain = ops.dense(x, w), ops.dense_backward(d, w), *ops.dense_gradients(d, x)
    with summed_in_another_order(rng):
        other = ops.dense(x, w), ops.dense_backward(d, w), *ops.dense_gradients(d, x)
    for one, two in zip(plain, other, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-14)
        assert (one != two).any()
    assert ops.dense(x, w).tobytes() == plain[0].tobytes()


def test_a_step_without_its_batch_is_refused():
    step = judge_steps.step_of(built(), *batches(1)[0])
    step.x = None
    with pytest.raises(ValueError, match="no batch"):
        FreeRun(built(), built()).step(step)
