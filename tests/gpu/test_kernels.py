"""kernels/*.cu on a GPU: each check of cuda_host/checks.py, with ops.py on NumPy and on CuPy; and dropout's bits.

python -m pytest -m gpu tests/gpu
"""

import importlib

import numpy as np
import pytest
from cuda_host import checks
from helpers import assert_close, assert_same

from minidl import config, cuda, ops, random

REASON = cuda.unavailable()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
cp = importlib.import_module("cupy") if REASON is None else None

STREAMS = {False: "tensorflow", True: "tensorflow-xla"}


# ------------------------------------------------------------------- the checks of the host, with another runner


class DeviceKernels:
    """The kernels of one file on the device, called as checks.Kernels is: NumPy arrays go there and come back."""

    def __init__(self, stem, dtype, sanitize):
        assert sanitize is None, "the sanitizers are the host's"
        self.stem, self.dtype = stem, dtype

    def send(self, array):
        return cp.array(array)

    def fetch(self, array):
        return array.get()

    def launch(self, name, grid, block, arguments, shared):
        cuda.launch(name, grid, block, *arguments, shared=shared)

    def __call__(self, kernel, *arguments, grid, block, shared=0, order=None, seed=None):
        name = f"{kernel}_{self.dtype}"
        there = {id(a): self.send(a) for a in arguments if isinstance(a, np.ndarray)}  # one for one given twice
        self.launch(name, grid, block, [there.get(id(a), a) for a in arguments], shared)
        for parameter, argument in zip(cuda.kernels()[name].parameters, arguments, strict=True):
            if parameter.pointer and not parameter.const and argument is not None:
                argument[...] = self.fetch(there[id(argument)])
        if name == "adam_alpha_float64":
            self.check_alpha(*arguments)

    def check_alpha(self, iterations, alpha, rates, number, beta_1, beta_2):
        """Compare α in float64 within a bound, and go on with that of ops.py: the rest of Adam is compared bit for bit.

        A power p < 1 is at most 2.5 ulp off (CUDA C++ programming guide, mathematical functions: pow, 2 from the
        rounded one) against the host's 1: together 4u, as an ulp is at most u there. So 1 − p moves by 4u/(1 − p) of
        itself, its root by half of that. Five roundings on either side. In float32 p is rounded from double, which
        hides all that.
        """
        settings = {"learning_rate": float(rates[number[0]]), "beta_1": beta_1, "beta_2": beta_2}
        expected = ops.adam_alpha(np.float64, step=int(iterations[0]), **settings)
        p1, p2 = (float(np.float32(beta)) ** int(iterations[0]) for beta in (beta_1, beta_2))
        relative = 4 * checks.unit("float64") * (1 / (1 - p1) + 0.5 / (1 - p2)) + checks.gamma(12, "float64")
        assert_close(alpha[0], expected, atol=relative * expected, what="alpha")
        alpha[0] = expected


class DeviceOps:
    """ops.py with CuPy's arrays, called with NumPy's: what a function wrote into its arguments comes back too."""

    def send(self, array):
        return cp.array(array)

    def fetch(self, value):
        return value.get() if isinstance(value, cp.ndarray) else value

    def __getattr__(self, name):
        function = getattr(ops, name)

        def on_device(*arguments, **settings):
            given = [self.send(a) if isinstance(a, np.ndarray) else a for a in arguments]
            result = function(*given, **settings)
            for argument, device in zip(arguments, given, strict=True):
                if isinstance(argument, np.ndarray) and argument.flags.writeable:
                    argument[...] = self.fetch(device)
            return tuple(map(self.fetch, result)) if isinstance(result, tuple) else self.fetch(result)

        return on_device


@pytest.mark.parametrize("reference", ["numpy", "cupy"])
@pytest.mark.parametrize("dtype", checks.DTYPES)
@pytest.mark.parametrize("check", checks.CHECKS)
def test_kernel_equals_ops(check, dtype, reference, monkeypatch):
    monkeypatch.setattr(checks, "Kernels", DeviceKernels)
    if reference == "cupy":
        monkeypatch.setattr(checks, "ops", DeviceOps())
    checks.CHECKS[check](dtype)


# ----------------------------------------------------------------------------------------------------- dropout

SIZES = [1, 2, 3, 4, 5, 1023, 4096, 10**6, 10**6 + 3]
PAIRS = [(1, 0), (-5, 2**40), (2**31 - 2, 3), (-(2**63), 2**63 - 1)]


def masked(inputs, rate, pair, xla):
    """ops.dropout on NumPy, with the mask of random.py."""
    with config.using_random_stream(STREAMS[xla]):
        mask = random.dropout_mask(inputs.shape, rate, pair, inputs.dtype.name)
    return ops.dropout(inputs, mask, rate=rate)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("dtype", checks.DTYPES)
def test_dropout_is_bit_equal(dtype, xla, backward, rng):
    for size in SIZES:
        for number, rate in enumerate(checks.RATES if size < 10**6 else [0.3, 0.5]):
            pair, given = PAIRS[number % 4], rng.normal(size=size).astype(dtype)
            inputs, state = cp.asarray(given), cp.asarray(pair, dtype=np.int64)
            outputs = cp.full(size, np.nan, dtype)
            cuda.dropout(inputs, outputs, state, rate, xla=xla, backward=backward)
            expected = masked(given, rate, pair, xla)
            assert_same(outputs.get(), expected)
            assert_same(inputs.get(), given)
            cuda.dropout(inputs, inputs, state, rate, xla=xla, backward=backward)  # in place
            assert_same(inputs.get(), expected)
            assert_same(state.get(), np.array(pair))


@pytest.mark.parametrize("dtype", checks.DTYPES)
def test_ops_on_cupy_has_the_same_bits(dtype, rng):
    given, pair = rng.normal(size=(257, 31)).astype(dtype), (3, 4)
    inputs, mask = cp.asarray(given), cp.asarray(random.dropout_mask(given.shape, 0.3, pair, dtype))
    outputs = cp.empty_like(inputs)
    cuda.dropout(inputs, outputs, cp.asarray(pair), 0.3)
    assert_same(outputs.get(), ops.dropout(inputs, mask, rate=0.3).get())


@pytest.mark.parametrize("dtype", checks.DTYPES)
@pytest.mark.parametrize("kernel", ["dropout", "dropout_backward"])
def test_dropout_does_not_depend_on_the_launch(kernel, dtype):
    count, state = 10**6 + 3, cp.asarray([7, 11])
    inputs = cp.ones(count, dtype)
    expected = masked(np.ones(count, dtype), 0.3, (7, 11), False)
    for grid, block in [(1, 1024), (2, 33), (132, 256), (5000, 64), (1000, 1)]:
        outputs = cp.full(count, np.nan, dtype)
        cuda.launch(f"{kernel}_{dtype}", grid, block, inputs, outputs, count, state, 0.3, 0)
        assert_same(outputs.get(), expected)


def test_dropout_of_nothing():
    nothing = cp.empty((0, 3), np.float32)
    cuda.dropout(nothing, nothing, cp.asarray([1, 2]), 0.5)
    cp.cuda.Device().synchronize()


def test_a_captured_dropout_reads_the_counter_when_it_runs():
    given, state, stream = np.ones(1001, np.float32), cp.asarray([7, 0]), cp.cuda.Stream(non_blocking=True)
    inputs = cp.asarray(given)
    outputs = cp.empty_like(inputs)
    cuda.dropout(inputs, outputs, state, 0.5)  # compiles and loads, which a capture cannot
    cp.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        cuda.dropout(inputs, outputs, state, 0.5)
        graph = stream.end_capture()
        for counter in (1, 2, 2**33):
            state.set(np.array([7, counter]), stream=stream)
            graph.launch(stream)
            assert_same(outputs.get(stream=stream), masked(given, 0.5, (7, counter), False))


# ------------------------------------------------------------------------------------------------- the launcher


def test_arguments_are_checked_before_the_launch():
    inputs, state = cp.ones((4, 2), np.float32), cp.asarray([1, 2])
    for arguments, error, message in [
        ((inputs.astype("float64"), inputs, 8, state, 0.5, 0), TypeError, "expected a CuPy array of float32"),
        ((inputs[:, 0], inputs, 4, state, 0.5, 0), ValueError, "must be C-contiguous"),
        ((inputs, inputs, 8, state.astype("int32"), 0.5, 0), TypeError, "expected a CuPy array of int64"),
        ((inputs.get(), inputs, 8, state, 0.5, 0), TypeError, "host array given to a device kernel"),
        ((inputs, inputs, 8.0, state, 0.5, 0), TypeError, "got the float 8.0"),
    ]:
        with pytest.raises(error, match=message):
            cuda.launch("dropout_float32", 1, 32, *arguments)
    with pytest.raises(TypeError, match=r"stream must be a cupy\.cuda\.Stream"):
        cuda.launch("dropout_float32", 1, 32, inputs, inputs, 8, state, 0.5, 0, stream=0)
    assert_same(inputs.get(), np.ones((4, 2), np.float32))


def test_an_array_of_another_device_is_refused():
    if cp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    with cp.cuda.Device(1):
        inputs, state = cp.ones(4, np.float32), cp.asarray([1, 2])
    with cp.cuda.Device(0), pytest.raises(ValueError, match="inputs is on device 1, the current one is 0"):
        cuda.dropout(inputs, inputs, state, 0.5)
    with cp.cuda.Device(1):
        cuda.dropout(inputs, inputs, state, 0.0)


def test_a_stream_of_ones_own():
    given, stream = np.ones(10**6, np.float32), cp.cuda.Stream(non_blocking=True)
    inputs, state = cp.asarray(given), cp.asarray([1, 2])
    outputs = cp.full_like(inputs, np.nan)
    cp.cuda.Device().synchronize()
    cuda.launch("dropout_float32", 64, 256, inputs, outputs, inputs.size, state, 0.5, 0, stream=stream)
    stream.synchronize()
    assert_same(outputs.get(), masked(given, 0.5, (1, 2), False))


def test_what_the_device_refuses_is_said_and_leaves_it_usable():
    inputs, state = cp.ones(4, np.float32), cp.asarray([1, 2])
    with pytest.raises(cuda.DeviceError, match=r"dropout_float32: the device refused .* 1000000000 bytes of shared"):
        cuda.launch("dropout_float32", 1, 32, inputs, inputs, 4, state, 0.5, 0, shared=10**9)
    cuda.dropout(inputs, inputs, state, 0.0)
    assert_same(inputs.get(), np.ones(4, np.float32))


def test_more_shared_memory_than_the_48_kib_of_every_block():
    inputs, state = cp.ones(4, np.float32), cp.asarray([1, 2])
    attribute = cp.cuda.runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin
    most = cp.cuda.runtime.deviceGetAttribute(attribute, cp.cuda.runtime.getDevice())
    assert most > cuda.PLAIN_SHARED
    cuda.launch("dropout_float32", 1, 32, inputs, inputs, 4, state, 0.0, 0, shared=most)
    assert_same(inputs.get(), np.ones(4, np.float32))


def test_out_of_device_memory():
    with (
        pytest.raises(cuda.DeviceMemoryError, match=r"while copying the data: .* the model is whole"),
        cuda.clear_memory_errors("copying the data"),
    ):
        cp.empty(2**50, np.uint8)
    assert_same(cp.ones(3).get(), np.ones(3))  # the device goes on


def test_a_damaged_cache_file_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE_DIR", str(tmp_path))
    capability, known = int(cp.cuda.Device().compute_capability), cuda._nvrtc().getSupportedArchs()
    path = cuda.kernels()["dropout_float32"].path
    for cached in (cuda.cubin, cuda._module, cuda._function):
        cached.cache_clear()
    inputs, state = cp.ones(4, np.float32), cp.asarray([1, 2])
    cuda.dropout(inputs, inputs, state, 0.0)
    (kept,) = tmp_path.glob("dropout-*.cubin")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    for cached in (cuda.cubin, cuda._module, cuda._function):
        cached.cache_clear()
    cuda.dropout(inputs, inputs, state, 0.0)
    assert_same(inputs.get(), np.ones(4, np.float32))
    assert kept.read_bytes() == whole and whole.startswith(cuda.cubin(path, cuda.architecture_for(capability, known)))
