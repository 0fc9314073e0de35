"""device.py and cublas.py: settings, the way to a GPU and what stands in it, and CudaDevice's code, executed.

Where there is no GPU, CudaDevice runs on cuda_host/standin.py. What really happens with CuPy and without a GPU is
tested where CuPy is installed.
"""

import ctypes
import importlib.util
import sys
import types

import device_cases
import numpy as np
import pytest
from cuda_host import checks, host, standin
from device_cases import notebook, penguins
from gpu import test_training as on_gpu
from helpers import assert_same
from test_cuda import install, run_python

from minidl import callbacks, config, cublas, cuda
from minidl import device as devices
from minidl.device import CudaDevice, Launch, Product

HAS_CUPY = importlib.util.find_spec("cupy") is not None

needs_compiler = pytest.mark.skipif(host.compiler() is None or sys.platform == "win32", reason="needs g++ on POSIX")
needs_cupy = pytest.mark.skipif(not HAS_CUPY, reason="CuPy is not installed")
needs_no_gpu = pytest.mark.skipif(cuda.unavailable() is None, reason="there is a GPU")


# ------------------------------------------------------------------------------------------------- settings


def test_settings():
    assert (config.device(), config.matmul(), config.tensor_float_32_execution_enabled()) == ("cpu", "cublas", False)
    for name in ("gpu", "auto", "cpu"):
        config.set_device(name)
        assert config.device() == name
    config.set_matmul("kernels")
    config.enable_tensor_float_32_execution(np.True_)
    assert config.matmul() == "kernels" and config.tensor_float_32_execution_enabled() is True
    for call, error, message in (
        (lambda: config.set_device("gpus"), ValueError, "Unknown device: 'gpus'. Did you mean 'gpu'"),
        (lambda: config.set_device(None), ValueError, "Unknown device: None"),
        (lambda: config.set_matmul("blas"), ValueError, "Unknown matmul: 'blas'. Did you mean 'cublas'"),
        (lambda: config.enable_tensor_float_32_execution(1), TypeError, "expected True or False; got 1"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert config.device() == "cpu" and config.matmul() == "kernels"


@pytest.mark.parametrize("device", ["cuda", "GPU", 0, ["gpu"]])
@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_unknown_devices(call, device):
    x, y = penguins(5)
    model = notebook(False)
    given = (x,) if call == "predict" else (x, y)
    with pytest.raises(ValueError, match=f"{call}: device must be one of 'cpu', 'gpu', 'auto'; got "):
        getattr(model, call)(*given, verbose=0, device=device)


def test_weights_on_the_cpu_are_no_devices():
    with pytest.raises(ValueError, match=r"on the CPU these are model\.get_weights"):
        notebook(False).weights_on_device("cpu")


# ---------------------------------------------------------------------------------------------- without a GPU

FIT = """
import numpy as np, minidl as keras
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
model.compile("adam", "binary_crossentropy")
before = model.get_weights()
x, y = np.ones((8, 4)), np.ones(8)
try:
    model.{call}, verbose=0, device="gpu")
except Exception as error:
    print(type(error).__name__, error)
assert all((a == b).all() for a, b in zip(before, model.get_weights())) and not model.optimizer.built
model.fit(x, y, verbose=0, device="auto")
print("auto", int(model.optimizer.iterations))
"""
CALLS = ["fit(x, y", "evaluate(x, y", "predict(x"]


@pytest.mark.parametrize("call", CALLS)
def test_without_cupy(call):
    result = run_python("import sys; sys.modules['cupy'] = None\n" + FIT.format(call=call))
    assert result.returncode == 0, result.stderr
    first, last = result.stdout.splitlines()
    assert first.startswith(
        "ModuleNotFoundError CuPy is not installed, and the GPU needs it: pip install 'minidl[gpu12]'"
    )
    assert last == "auto 1"


def test_with_two_builds_of_cupy(tmp_path):
    path = [install(tmp_path, "cupy-cuda12x", "cupy-cuda13x")]
    result = run_python(FIT.format(call=CALLS[0]), path)
    assert result.stdout.startswith("ImportError expected one build of CuPy; found 2: cupy-cuda12x, cupy-cuda13x.")
    assert "auto 1" in result.stdout


@needs_cupy
@needs_no_gpu
@pytest.mark.parametrize("call", CALLS)
def test_with_cupy_and_without_a_gpu(call):
    result = run_python(FIT.format(call=call))
    first, last = result.stdout.splitlines()
    assert first.startswith(("DeviceError no CUDA device answers", "DeviceError the NVIDIA driver is too old"))
    assert last == "auto 1"


@needs_cupy
@needs_no_gpu
def test_no_device_is_opened_without_a_gpu():
    for open_it in (CudaDevice, devices.gpu, notebook(False).weights_on_device):
        with pytest.raises((cuda.DeviceError, ImportError)) as raised:
            open_it()
        assert str(raised.value) == cuda.unavailable()


@needs_cupy
def test_errors_of_cupy_become_clear_ones():
    runtime = importlib.import_module("cupy_backends.cuda.api.runtime")
    illegal = runtime.CUDARuntimeError(700)
    failed = r"^the device failed while replaying a step: .*CUDA_LAUNCH_BLOCKING=1"
    with pytest.raises(cuda.DeviceError, match=failed), cuda.clear_errors("replaying a step"):
        raise illegal
    full = "^out of device memory while copying: [^$]*the model is whole"
    with pytest.raises(cuda.DeviceMemoryError, match=full), cuda.clear_errors("copying"):
        raise runtime.CUDARuntimeError(2)
    for other in (RuntimeError("mine"), ValueError("mine")):
        with pytest.raises(type(other)) as raised, cuda.clear_errors("copying"):
            raise other
        assert raised.value is other


@needs_cupy
def test_cupy_has_what_the_stand_in_stands_for():
    cupy = cuda.import_cupy()
    stream, graph = cupy.cuda.Stream, importlib.import_module("cupy.cuda.graph").Graph
    of_stream = [name for name in vars(standin.Stream) if not name.startswith("_") and name != "device_id"]
    assert [name for name in of_stream if not hasattr(stream.null, name)] == []
    assert "stream" in graph.launch.__doc__.splitlines()[0]
    for name in ("set", "get"):
        assert "stream=None" in getattr(cupy.ndarray, name).__doc__.splitlines()[0]
    places = {cupy: ("empty", "isfinite", "from_dlpack"), cupy.cuda: ("get_current_stream", "Device")}
    assert [name for place, names in places.items() for name in names if not hasattr(place, name)] == []


# ------------------------------------------------------------------------------- CudaDevice, on what stands in for CuPy


@pytest.fixture
def driver():
    if host.compiler() is None or sys.platform == "win32":
        pytest.skip("needs g++ on POSIX")
    config.set_matmul("kernels")
    with standin.installed() as driver:
        yield driver


def to_the_device(values):
    made = sys.modules["cupy"].empty(values.shape, values.dtype)
    made.values[...] = values
    return made


@pytest.mark.parametrize("case", ["notebook, dropout", "sample weights", "three labels, tiled products"])
def test_cuda_device_trains_as_the_host_does(driver, case):
    device_cases.assert_as_on_the_cpu(devices.gpu(), device_cases.CASES[case])


def test_cuda_device_by_its_name(driver):
    x, y = penguins(40)
    ours, theirs = notebook(True), notebook(True)
    ours.fit(x, y, verbose=0, device="gpu")
    config.set_device("auto")
    theirs.fit(x, y, verbose=0)
    device_cases.assert_same_state(ours, theirs)
    assert driver.log.count("step") == 4 and devices.gpu().name == "cuda:0"


def test_cuda_device_uses_arrays_where_they_are(driver):
    device_cases.assert_device_arrays_are_used_where_they_are(devices.gpu(), to_the_device)

    class OfTorch:
        def __init__(self, array):
            self.array = array

        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self, **settings):
            return self.array.values.__dlpack__()

    array = to_the_device(np.ones(3))
    assert np.shares_memory(devices.gpu().adopted(OfTorch(array)).values, array.values)
    assert devices.gpu().adopted(np.ones(3)) is None and devices.gpu().adopted([1.0]) is None


def test_an_epoch_of_the_cuda_device_is_replays_alone(driver):
    x, y = penguins(70)
    notebook(True).fit(x, y, epochs=3, verbose=0, device="gpu")
    steps = [i for i, event in enumerate(driver.log) if event == "step"]
    assert len(steps) == 9
    for first in range(0, 9, 3):
        assert steps[first + 2] == steps[first] + 2


def test_what_others_issued_is_waited_for(driver):
    x, y = penguins(40)
    notebook(False).fit(x, y, verbose=0, device="gpu")
    assert devices.gpu()._stream.waits_for == [("event", driver.default)]
    assert driver.log[-1] == "wait"
    notebook(False).weights_on_device()
    assert driver.log[-1] == "wait"  # written before somebody else reads them


def test_a_kernel_is_loaded_before_the_capture(driver, monkeypatch):
    x, y = penguins(40)
    monkeypatch.setattr(CudaDevice, "_ready", lambda self, one: one.as_launch() if isinstance(one, Product) else one)
    message = r"while capturing a step: .*loading a module while a stream is captured"
    with pytest.raises(cuda.DeviceError, match=message):
        notebook(False).fit(x, y, verbose=0, device="gpu")
    monkeypatch.undo()
    config.set_matmul("kernels")
    notebook(False).fit(x, y, verbose=0, device=devices.gpu())  # the stream was left as it was


def test_out_of_memory_of_the_cuda_device():
    x, y = penguins(70)
    config.set_matmul("kernels")
    for memory, when in ((2**12, "before the fit"), (2**16, "at the end of epoch 1")):
        with standin.installed(memory=memory) as driver:
            model, expected = notebook(True), notebook(True)

            def full(epoch, logs, driver=driver, model=model):
                driver.memory = driver.used
                model.optimizer.beta_1 = 0.5  # for which a step is captured anew

            stops = callbacks.LambdaCallback(on_epoch_end=full)
            with pytest.raises(
                cuda.DeviceMemoryError, match=f"^out of device memory while .*Out of memory allocating.*{when}"
            ):
                model.fit(x, y, epochs=2, verbose=0, device="gpu", callbacks=[stops])
            expected.optimizer.build(expected.arena)
            driver.memory = 2**40
            if when != "before the fit":
                expected.fit(x, y, epochs=1, verbose=0, device="gpu")
                expected.optimizer.beta_1 = 0.5
            device_cases.assert_same_state(model, expected)


def test_a_cuda_device_that_breaks(driver):
    x, y = penguins(70)
    model, expected = notebook(True), notebook(True)
    expected.optimizer.build(expected.arena)
    driver.fails_after = 50
    with pytest.raises(
        cuda.DeviceError, match=r"the device failed while replaying a step.*IllegalAddress.*before the fit"
    ):
        model.fit(x, y, verbose=0, device="gpu")
    device_cases.assert_same_state(model, expected)


def test_a_host_array_is_refused_by_the_launch(driver):
    operation = Launch("penalty_total_float32", 1, 32, (np.ones(3, np.float32), None, 3))
    with pytest.raises(TypeError, match="host array given to a device kernel: penalty_total_float32: partials"):
        devices.gpu().capture([operation])
    assert devices.gpu()._stream.capturing is None


def test_the_tests_for_a_gpu_pass_on_what_stands_in(driver, rng, monkeypatch):
    """gpu/test_training.py itself, but for what needs a real GPU, so that a mistake in it does not wait for one."""
    device = devices.gpu()
    for dropout, weighted in ((False, True), (True, False)):
        on_gpu.test_every_step_within_the_bounds_of_any_order(device, dropout, weighted)
        on_gpu.test_resumes_to_the_bit(device, dropout)
    monkeypatch.setattr(on_gpu, "cp", types.SimpleNamespace(asarray=to_the_device))
    on_gpu.test_arrays_of_the_device_are_used_where_they_are(device)
    for case in device_cases.PORTABLE:
        on_gpu.test_as_on_the_cpu_to_the_bit(case)
    for case in device_cases.CASES:
        on_gpu.test_every_case_trains_and_scores_as_the_cpu_does(device, case)
    on_gpu.test_a_learning_rate_that_changes(device)
    on_gpu.test_what_a_call_made_is_kept_for_the_next_like_it(device)
    for dtype in ("float32", "float64"):
        on_gpu.test_products(device, dtype, (3, 5, 7), rng)
        on_gpu.test_products(device, dtype, (64, 70, 64), rng)


# ------------------------------------------------------------------------------------------------------- cuBLAS


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cuda_device_multiplies_by_cublas(driver, dtype, rng, monkeypatch):
    """Once before the capture, for cuBLAS to prepare itself, and once in it, which the real library records."""
    config.set_matmul("cublas")
    monkeypatch.setattr(devices, "library_path", host.cublas)
    a, b = rng.normal(size=(7, 5)).astype(dtype), rng.normal(size=(3, 7)).astype(dtype)
    device = devices.gpu()
    out = device.empty((5, 3), dtype)
    device.capture([Product(device.array(a), device.array(b), out, True, True)])
    assert_same(device.host(out), checks.product_in_order(a.T, b.T))
    handle = device._cublas()
    assert handle._library.standin_products(handle._handle) == 2


@needs_compiler
@pytest.mark.parametrize("enabled", [False, True])
def test_tf32_is_off_unless_enabled(driver, enabled, monkeypatch):
    config.set_matmul("cublas")
    monkeypatch.setattr(devices, "library_path", host.cublas)
    if enabled:
        config.enable_tensor_float_32_execution(True)
    handle, mode = devices.gpu()._cublas(), ctypes.c_int(-2)
    handle._library.cublasGetMathMode(handle._handle, ctypes.byref(mode))
    default, tf32 = 0, 3  # cublasMath_t
    assert mode.value == (tf32 if enabled else default)
    assert devices.gpu()._cublas() is handle
    config.enable_tensor_float_32_execution(not enabled)
    assert devices.gpu()._cublas() is not handle


@needs_compiler
def test_the_handle_s_workspace_is_set_after_its_stream(monkeypatch):
    """As documented, cublasSetStream puts the library's own workspace back, which a capture cannot use."""
    memory = host.empty(cublas.WORKSPACE, np.uint8)
    settings = {"stream": 1, "workspace": memory.ctypes.data, "tf32": False}
    a, c = host.array(np.ones((2, 2), np.float32)), host.empty((2, 2), np.float32)
    arguments = "float32", (a.ctypes.data, a.ctypes.data, c.ctypes.data), ((2, 2), (2, 2)), (False, False)
    right = cublas.Cublas(host.cublas(), **settings)
    right.matmul(*arguments)
    assert_same(c, np.full((2, 2), 2, np.float32))
    right._call("cublasSetStream_v2", right._handle, ctypes.c_void_p(1))
    with pytest.raises(cuda.DeviceError, match=r"cublasSgemm_v2 failed with status 13 \(cublasStatus_t\)"):
        right.matmul(*arguments)
    right.close()
    right.close()
    with pytest.raises(cuda.DeviceError, match="cublasSetWorkspace_v2 failed with status 7"):
        cublas.Cublas(host.cublas(), **{**settings, "workspace": memory.ctypes.data + 1})


@needs_compiler
@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2**31, 1), (1, 1))])
def test_products_that_do_not_fit(shapes):
    memory = host.empty(cublas.WORKSPACE, np.uint8)
    handle = cublas.Cublas(host.cublas(), stream=1, workspace=memory.ctypes.data, tf32=False)
    with pytest.raises(ValueError, match="do not fit each other or cuBLAS"):
        handle.matmul("float32", (0, 0, 0), shapes, (False, False))


def test_no_cublas(tmp_path):
    with pytest.raises(ImportError, match=r"cuBLAS cannot be loaded: .*missing\.so"):
        cublas.Cublas(str(tmp_path / "missing.so"), stream=0, workspace=0, tf32=False)


@pytest.mark.skipif(importlib.util.find_spec("nvidia") is not None and HAS_CUPY, reason="cuBLAS may be there")
def test_cublas_that_is_not_installed():
    with pytest.raises(
        ImportError, match=r"(?s)^cuBLAS cannot be loaded. Install it with pip install 'cupy.*\[ctk\]', or"
    ):
        cublas.library_path()
