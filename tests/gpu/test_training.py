"""Whole trainings on a GPU: the checks of device_cases.py, which test_on_device.py runs on the host.

python -m pytest -m gpu tests/gpu
"""

import importlib
import importlib.util

import device_cases
import numpy as np
import pytest
from device_cases import notebook, penguins
from helpers import assert_close

from minidl import callbacks, config, cuda, ops
from minidl import device as devices
from minidl.device import Product

REASON = cuda.unavailable()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
cp = importlib.import_module("cupy") if REASON is None else None


@pytest.fixture(params=["cublas", "kernels"])
def device(request):
    config.set_matmul(request.param)
    return devices.gpu()


@pytest.mark.parametrize("case", device_cases.PORTABLE)
def test_as_on_the_cpu_to_the_bit(case):
    config.set_matmul("kernels")
    device_cases.assert_as_on_the_cpu(devices.gpu(), device_cases.CASES[case])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
def test_every_step_within_the_bounds_of_any_order(device, dropout, weighted):
    """Rows and masks other than Keras's would be far outside."""
    device_cases.assert_within_bounds(device, dropout, 45, weighted)


@pytest.mark.parametrize("dropout", [False, True])
def test_resumes_to_the_bit(device, dropout):
    device_cases.assert_resumes(device, dropout)


def test_what_a_call_made_is_kept_for_the_next_like_it(device):
    device_cases.assert_kept_between_calls(device)


def test_a_thousand_steps_repeat_to_the_bit(device):
    device_cases.assert_repeats(device, 1000)


def test_arrays_of_the_device_are_used_where_they_are(device):
    device_cases.assert_device_arrays_are_used_where_they_are(device, cp.asarray)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_tensors_of_torch_are_used_where_they_are(device):
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch without CUDA")
    device_cases.assert_device_arrays_are_used_where_they_are(device, lambda a: torch.from_numpy(a).cuda())
    weights = [torch.from_dlpack(w) for w in notebook(False).weights_on_device()]
    for tensor, weight in zip(weights, notebook(False).get_weights(), strict=True):
        np.testing.assert_array_equal(tensor.cpu().numpy(), weight)


@pytest.mark.parametrize("case", device_cases.CASES)
def test_every_case_trains_and_scores_as_the_cpu_does(device, case):
    """The scores of the weights that came out, on both: sums in another order, and CUDA's elementary functions."""
    model, (x, y), arguments = device_cases.CASES[case]()
    before = [weight.copy() for weight in model.get_weights()]
    history = model.fit(x, y, epochs=3, verbose=0, **arguments, device=device).history
    assert all(np.isfinite(values).all() and len(values) in (1, 3) for values in history.values())
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    got = model.predict(x, verbose=0, device=device)
    # two layers of 66 sums at most: a γ of their lengths on sums of magnitude below 100, through slopes of at most 1
    tolerance = 100 * 200 * float(np.finfo(model.dtype).eps)
    assert_close(got, model.predict(x, verbose=0), atol=tolerance, what="outputs")
    scores = model.evaluate(x, y, verbose=0, return_dict=True, device=device)
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    assert list(scores) == list(expected)
    assert abs(scores["loss"] - expected["loss"]) <= tolerance * (1 + expected["loss"])


def test_a_learning_rate_that_changes(device):
    x, y = penguins()
    models = [notebook(True) for _ in range(2)]
    faster = callbacks.LearningRateScheduler(lambda epoch: 0.001 * (epoch + 1))
    models[0].fit(x, y, epochs=3, verbose=0, device=device, callbacks=[faster])
    for epoch in range(3):
        models[1].optimizer.learning_rate = 0.001 * (epoch + 1)
        models[1].fit(x, y, epochs=1, verbose=0, device=device)
    device_cases.assert_same_state(*models)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (64, 64, 64), (130, 70, 300)])
def test_products(device, dtype, shape, rng):
    m, n, k = shape
    a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
    u = float(np.finfo(dtype).eps) / 2
    budget = 2 * k * u / (1 - k * u) * (np.abs(a).astype(np.float64) @ np.abs(b))
    for transposed in ((False, False), (True, False), (False, True), (True, True)):
        there = [device.array(np.ascontiguousarray(x.T if t else x)) for x, t in zip((a, b), transposed, strict=True)]
        out = device.empty((m, n), dtype)
        with device.active():
            device.capture([Product(*there, out, *transposed)])()
            assert_close(device.host(out), ops.dense(a, b), atol=budget, what="a @ b")


def test_out_of_device_memory(device):
    model, before = notebook(False), notebook(False)
    before.optimizer.build(before.arena)
    free, _ = cp.cuda.runtime.memGetInfo()
    held = cp.cuda.alloc(max(1, free - 2**20))  # all but a mebibyte
    x, y = (np.tile(a, (20000, 1)) for a in penguins())
    with pytest.raises(cuda.DeviceMemoryError, match="The model's weights are those before the fit"):
        model.fit(x, y, verbose=0, device=device)
    del held
    cp.get_default_memory_pool().free_all_blocks()
    device_cases.assert_same_state(model, before)
    model.fit(*penguins(), verbose=0, device=device)
