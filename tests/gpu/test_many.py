"""fit_many on a GPU: the tests of ../test_many.py that run train_step.cu on the host, with the GPU's launch instead.

That each step has the host's own bits is a check of test_kernels.py here, train_step.
"""

import numpy as np
import pytest
import test_many
from cuda_host import checks
from helpers import assert_same

from gpu.test_kernels import DeviceKernels
from minidl import cuda, keras, many
from minidl.oracle import notebook

REASON = cuda.unavailable()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=str(REASON))]


def use_the_device(monkeypatch, kernels=DeviceKernels):
    """Let test_many.py's tests train on the GPU."""
    monkeypatch.setattr(
        test_many, "on_host", lambda build, x, y, **settings: many.fit_many(build, x, y, device="gpu", **settings)
    )
    monkeypatch.setattr(checks, "Kernels", kernels)


@pytest.fixture(autouse=True)
def on_the_device(monkeypatch):
    use_the_device(monkeypatch)


@pytest.mark.parametrize("name", notebook.MODELS)
def test_the_kernel_trains_as_fit(name):
    test_many.test_the_kernel_trains_as_fit(name)


@pytest.mark.parametrize("name", notebook.MODELS)
def test_each_step_is_within_the_bounds_of_any_order_of_summation(name):
    test_many.test_each_step_is_within_the_bounds_of_any_order_of_summation(name)


def test_a_hundred_seeds_are_a_hundred_fits():
    test_many.test_a_hundred_seeds_are_a_hundred_fits()


@pytest.mark.parametrize("shuffle", [False, "batch"])
def test_other_orders_of_the_rows(shuffle):
    test_many.test_other_orders_of_the_rows(shuffle)


def test_a_loss_that_is_not_finite_stops_its_model_and_is_named():
    test_many.test_a_loss_that_is_not_finite_stops_its_model_and_is_named()


def test_a_thousand_steps_repeat_their_bits(models=132):
    (x, y), validation = notebook.data()
    settings = {"seeds": range(models), "epochs": 112, "validation_data": validation, "device": "gpu"}

    def build():
        return notebook.build_with_dropout(keras)

    first, second = (many.fit_many(build, x, y, **settings) for _ in range(2))
    assert first.models[0].optimizer.iterations == 1008
    assert_same(first.weights, second.weights)
    for name, values in first.history.items():
        assert_same(values, second.history[name])
        assert np.isfinite(values).all()


def test_a_model_that_does_not_fit_is_refused_and_leaves_the_device_usable():
    (x, y), _ = notebook.data()
    wide = test_many.model_of(test_many.dense(300, "relu"), test_many.dense(300, "relu"), test_many.dense())
    with pytest.raises(many.DoesNotFitError, match="this GPU has"):
        many.fit_many(wide, x, y, seeds=[1], device="gpu")
    assert many.fit_many(test_many.BUILD["L1 and L2"], x, y, seeds=[1], device="gpu").weights.shape == (1, 45)
