"""The over-fitting study: its curves recomputed by hand, its runs repeated bit for bit, its counts counted."""

import numpy as np
import pytest
from cuda_host import checks

from minidl import config, datasets, layers, many, study


@pytest.fixture(scope="module")
def split():
    return study.load_split()


@pytest.fixture(scope="module")
def short():
    return study.run([3, 4], epochs=3)


def outputs_by_hand(model, x):
    """The net in float64: relu, relu, sigmoid, and nothing of dropout."""
    kernels = [w.astype(np.float64) for w in model.get_weights()]
    for i in (0, 2):
        x = np.maximum(x @ kernels[i] + kernels[i + 1], 0)
    return 1 / (1 + np.exp(-(x @ kernels[4] + kernels[5])[:, 0]))


def made_up(kernels=((0.5, -0.02, 0.0),), validation=((3.0, 1.0, 2.0),)):
    validation = np.array(validation)
    return study.Runs("made up", np.full(validation.shape, 0.25), validation, validation, np.array(kernels))


def test_split_is_of_the_first_60_birds_and_the_test_birds(split):
    (x_train, y_train), (x_test, y_test) = datasets.penguins.load_data()
    mean, std = x_train[:60].astype(np.float64).mean(axis=0), x_train[:60].astype(np.float64).std(axis=0)
    # float32 of values below 4: 2.4e-7 is one ulp
    np.testing.assert_allclose(split.x_train, (x_train[:60] - mean) / std, rtol=0, atol=5e-7)
    np.testing.assert_allclose(split.x_validation, (x_test - mean) / std, rtol=0, atol=5e-7)
    np.testing.assert_array_equal(split.y_train, y_train[:60])
    np.testing.assert_array_equal(split.y_validation, y_test)
    assert len(split.y_validation) == 66


def test_nets_have_the_penalty_or_the_dropout_of_their_variant():
    for name, variant in study.VARIANTS.items():
        model = study.build(variant)
        assert model.count_params() == 4 * 64 + 64 + 64 * 64 + 64 + 64 + 1
        dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
        rates = [layer.rate for layer in model.layers if isinstance(layer, layers.Dropout)]
        assert [layer.units for layer in dense] == [64, 64, 1]
        assert rates == ([0.5, 0.5] if name == "dropout" else [])
        penalties = [None if d.kernel_regularizer is None else d.kernel_regularizer.get_config() for d in dense]
        factor = {"l1": {"l1": np.float32(study.L1_FACTOR)}, "l2": {"l2": study.L2_FACTOR}}.get(name)
        assert penalties == [factor] * 3


@pytest.mark.parametrize("name", study.VARIANTS)
def test_curves_are_losses_and_accuracy_at_inference_without_penalty(name, split):
    model, curves = study.train(study.VARIANTS[name], split, seed=5, epochs=4)
    for x, y, losses in (
        (split.x_train, split.y_train, curves.train_loss),
        (split.x_validation, split.y_validation, curves.validation_loss),
    ):
        p = outputs_by_hand(model, x)
        # float32's rounding through 64-term sums: some 1e-6
        assert losses[-1] == pytest.approx(-np.mean(np.where(y == 1, np.log(p), np.log(1 - p))), rel=1e-5)
    p = outputs_by_hand(model, split.x_validation)
    assert curves.validation_accuracy[-1] == pytest.approx(np.mean((p > 0.5) == split.y_validation), abs=1e-7)
    assert len(curves.train_loss) == len(curves.validation_loss) == len(curves.validation_accuracy) == 4


def test_a_curve_is_that_of_every_epoch_not_only_the_last(split):
    _, long = study.train(study.VARIANTS["dropout"], split, seed=5, epochs=4)
    _, short = study.train(study.VARIANTS["dropout"], split, seed=5, epochs=2)
    assert long.train_loss[:2] == short.train_loss
    assert long.validation_loss[:2] == short.validation_loss
    assert len(set(long.train_loss)) == 4


@pytest.mark.parametrize("where", ["cpu", "kernel"])
def test_all_seeds_at_once_are_the_same_study(where, monkeypatch):
    """By fit_many, on the CPU and by train_step.cu on the host's C++, in float64: to 1e-11, as in test_many.py."""
    config.set_floatx("float64")
    expected, counted = study.run([3, 4], epochs=2), []
    if where == "kernel":
        if checks.host.compiler() is None:
            pytest.skip("executing the kernels needs g++")
        launch = checks.launcher(checks.Kernels("train_step", "float64", None))
        monkeypatch.setattr(many, "launch_on_device", launch)
    else:
        monkeypatch.setattr(many.cuda, "unavailable", lambda: "no")
    device = "gpu" if where == "kernel" else "auto"
    found = study.run([3, 4], epochs=2, device=device, progress=lambda: counted.append(1))
    assert len(counted) == 8 and list(found) == list(expected)
    for name, runs in expected.items():
        assert found[name].title == runs.title and found[name].train_loss.shape == (2, 2)
        for key in ("kernels", "train_loss", "validation_loss", "validation_accuracy"):
            np.testing.assert_allclose(getattr(found[name], key), getattr(runs, key), rtol=0, atol=1e-11)


def test_runs_repeat_bit_for_bit_and_differ_between_seeds(short):
    again = study.run([3, 4], epochs=3)
    assert list(short) == list(again) == ["plain", "l1", "l2", "dropout"]
    for name in short:
        for field in ("train_loss", "validation_loss", "validation_accuracy", "kernels"):
            a, b = getattr(short[name], field), getattr(again[name], field)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        assert (short[name].train_loss[0] != short[name].train_loss[1]).all()


def test_a_run_does_not_depend_on_those_before_it(short):
    alone = study.run([4], epochs=3)
    for name in short:
        np.testing.assert_array_equal(short[name].kernels[1:], alone[name].kernels)


def test_shapes_and_progress():
    calls = []
    runs = study.run([0, 1, 2], epochs=2, progress=lambda: calls.append(1))
    assert len(calls) == 12
    for variant in runs.values():
        assert variant.train_loss.shape == variant.validation_loss.shape == (3, 2)
        assert variant.validation_accuracy.shape == (3, 2)
        assert variant.kernels.shape == (3, 4 * 64 + 64 * 64 + 64)


def test_kernel_weights_are_the_kernels_without_the_biases():
    model = study.build(study.VARIANTS["dropout"])
    weights = [np.full(w.shape, -1.0 if w.ndim == 1 else i) for i, w in enumerate(model.get_weights())]
    model.set_weights(weights)
    expected = np.repeat([0.0, 2.0, 4.0], [4 * 64, 64 * 64, 64])
    np.testing.assert_array_equal(study.kernel_weights(model), expected)


def test_gap_is_validation_minus_train_after_the_last_epoch(short):
    for runs in short.values():
        np.testing.assert_array_equal(runs.gap, runs.validation_loss[:, 2] - runs.train_loss[:, 2])
    np.testing.assert_array_equal(made_up().gap, [2.0 - 0.25])


def test_best_epoch_counts_from_one():
    runs = made_up(validation=[(3.0, 1.0, 2.0), (1.0, 2.0, 3.0), (2.0, 2.0, 1.5)])
    np.testing.assert_array_equal(runs.best_epoch, [2, 1, 3])


def test_near_zero_is_within_a_hundredth_on_either_side():
    runs = made_up([(0.0099, -0.0099, 0.0, 0.01, -0.02), (1.0, -1.0, 1e-30, 0.0101, 0.5)])
    np.testing.assert_array_equal(runs.near_zero, [3, 1])
    np.testing.assert_array_equal(runs.exact_zeros, [1, 0])


def test_the_plain_net_over_fits_and_the_penalties_do_what_they_are_for():
    runs = study.run([0], epochs=study.EPOCHS)
    assert runs["plain"].train_loss[0, -1] < 0.05
    assert runs["plain"].gap[0] > 0.3
    for name in ("l1", "l2", "dropout"):
        assert runs[name].gap[0] < runs["plain"].gap[0]
    near_zero = {name: r.near_zero[0] / r.kernels.shape[1] for name, r in runs.items()}
    assert near_zero["l1"] > 0.9 > near_zero["l2"] > near_zero["plain"]
    largest = {name: np.abs(r.kernels).max() for name, r in runs.items()}
    assert largest["l1"] > largest["l2"]  # L1: many near zero and some far; L2: all small
