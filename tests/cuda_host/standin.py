"""Stands in for CuPy on the host, as far as device.CudaDevice and cuda.launch use it: to execute their code.

    with standin.installed() as driver:
        device = CudaDevice()

Its arrays lie in the host's memory, its kernels are the host's builds, called by address as a driver calls them. A
stream that is being captured records launches and refuses what a real one refuses: allocating, copying, waiting,
loading. It says nothing about what CUDA itself does.
"""

import contextlib
import functools
import sys
import types
from unittest import mock

import numpy as np
from cuda_host import host

from minidl import cuda, device


class CaptureError(RuntimeError):
    """What a driver says of an operation that a capture does not allow."""


CaptureError.__module__ = "cupy_backends.cuda.api.runtime"


class OutOfMemoryError(MemoryError):
    """CuPy's."""


OutOfMemoryError.__module__ = "cupy.cuda.memory"


class Driver:
    """What is behind the arrays: memory, streams, and what has happened, in order."""

    def __init__(self, memory=2**40):
        self.memory, self.used = memory, 0
        self.streams, self.log = [], []
        self.fails_after = None

    @property
    def current(self):
        return self.streams[-1] if self.streams else self.default

    def refuse_in_capture(self, what):
        if any(stream.capturing is not None for stream in (*self.streams, self.default)):
            raise CaptureError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is captured")


class Array(host.HostArray):
    """cupy.ndarray."""

    driver = None

    def __init__(self, values):
        super().__init__(values)
        self.data = types.SimpleNamespace(ptr=values.ctypes.data, device_id=0)

    def __getitem__(self, key):
        return Array(self.values[key])

    def reshape(self, *shape):
        return Array(super().reshape(*shape).values)

    def set(self, values, stream=None):
        assert stream is self.driver.current, "another stream than the device's"
        self.driver.refuse_in_capture("a copy")
        assert values.dtype == self.dtype and values.flags.c_contiguous and values.shape == self.shape
        self.driver.log.append("send")
        self.values[...] = values

    def get(self, stream=None):
        assert stream is self.driver.current, "another stream than the device's"
        self.driver.refuse_in_capture("a copy")
        self.driver.log.append("wait")
        return self.values.copy()

    def all(self):
        self.driver.log.append("wait")
        return self.values.all()


class Stream:
    """cupy.cuda.Stream."""

    ptr, device_id = 1, 0

    def __init__(self, driver):
        self.driver, self.capturing, self.waits_for = driver, None, []

    def __enter__(self):
        self.driver.streams.append(self)
        return self

    def __exit__(self, *error):
        assert self.driver.streams.pop() is self

    def begin_capture(self):
        assert self.capturing is None and self is self.driver.current
        self.capturing = []

    def end_capture(self):
        recorded, self.capturing = self.capturing, None
        self.driver.log.append("capture")

        def launch(stream):
            assert stream is self is self.driver.current
            self.driver.log.append("step")
            for call in recorded:
                call()

        return types.SimpleNamespace(launch=launch)

    def wait_event(self, event):
        self.waits_for.append(event)

    def record(self):
        return ("event", self)

    def synchronize(self):
        self.driver.refuse_in_capture("synchronizing")
        self.driver.log.append("wait")


class Function:
    """A kernel of a module, called with a driver's arguments: addresses and numbers."""

    def __init__(self, driver, path, name):
        driver.refuse_in_capture("loading a module")
        self.driver, self.name, self.library = driver, name, host.build_once(path)

    def __call__(self, grid, block, values, shared, stream):
        assert stream is None

        def run():
            if self.driver.fails_after is not None:
                self.driver.fails_after -= 1
                if self.driver.fails_after < 0:
                    raise CaptureError("cudaErrorIllegalAddress: an illegal memory access was encountered")
            self.library.launch_addresses(self.name, values, grid=grid, block=block, shared=shared)

        capturing = self.driver.current.capturing
        if capturing is None:
            run()
        else:
            capturing.append(run)


def _cupy(driver):
    Array.driver = driver

    def empty(shape, dtype):
        driver.refuse_in_capture("allocating")
        made = host.empty(shape, dtype)
        if driver.used + made.nbytes > driver.memory:
            raise OutOfMemoryError(f"Out of memory allocating {made.nbytes} bytes (allocated so far: {driver.used}).")
        driver.used += made.nbytes
        return Array(made)

    module = types.ModuleType("cupy")
    module.ndarray, module.empty = Array, empty
    module.isfinite = lambda array: Array(np.isfinite(array.values))
    module.from_dlpack = lambda value: Array(np.from_dlpack(host._OfTheHost(value)))
    streams = {"Stream": lambda non_blocking: Stream(driver), "get_current_stream": lambda: driver.current}
    runtime = types.SimpleNamespace(getDevice=lambda: 0, CUDARuntimeError=CaptureError)
    module.cuda = types.SimpleNamespace(**streams, runtime=runtime, Device=lambda number: contextlib.nullcontext())
    driver.default = Stream(driver)
    return module


@contextlib.contextmanager
def installed(**settings):
    """In the place of CuPy and of a device that answers; yields the Driver."""
    driver = Driver(**settings)
    module = _cupy(driver)

    @functools.cache
    def function(name, number):
        return Function(driver, cuda.kernels()[name].path, name)

    with (
        mock.patch.dict(sys.modules, cupy=module),
        mock.patch.multiple(cuda, ready_cupy=lambda: module, unavailable=lambda: None, _function=function),
    ):
        device.gpu.cache_clear()
        yield driver
        device.gpu.cache_clear()
