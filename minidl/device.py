"""Where a model is trained: a device that holds arrays, launches kernels on them, and replays what it has recorded.

A step on a device is a list of operations, launches and products, whose arguments are fixed when the list is made:
what changes from step to step is on the device. So the list can be captured once, as a CUDA graph, and a step costs
the host one call. What runs on an NVIDIA GPU is CudaDevice; the tests have another Device, whose arrays are in the
host's memory and whose launches run the same kernels/*.cu on its processor.
"""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from minidl import config, cuda
from minidl.backend import Array
from minidl.cublas import WORKSPACE, Cublas, library_path


class Launch(NamedTuple):
    """One launch of a kernel: cuda.launch's arguments."""

    kernel: str
    grid: Any
    block: Any
    args: tuple[Any, ...]


class Product(NamedTuple):
    """out = op(a) @ op(b), with op the transpose where so said; C-contiguous, of one dtype."""

    a: Array
    b: Array
    out: Array
    transpose_a: bool = False
    transpose_b: bool = False

    def as_launch(self) -> Launch:
        """By a kernel of matmul.cu, which all give the same bits: the tiled ones where the result fills their tiles."""
        (m, n), dtype = self.out.shape, self.out.dtype
        k = self.a.shape[0 if self.transpose_a else 1]
        a = (1, self.a.shape[1]) if self.transpose_a else (self.a.shape[1], 1)
        b = (1, self.b.shape[1]) if self.transpose_b else (self.b.shape[1], 1)
        arguments = (self.a, self.b, self.out, m, n, k, *a, *b)
        for name, side in (("matmul_blocked", 64), ("matmul_tiled", 16)):
            if min(m, n) >= side:
                grid = (-(-n // side), min(-(-m // side), cuda.MAX_GRID[1]))
                return Launch(f"{name}_{dtype}", grid, (16, 16), arguments)
        return Launch(f"matmul_naive_{dtype}", cuda.blocks_for(m * n), 256, arguments)


Operation = Launch | Product


class Device(ABC):
    """What training on a device needs of it. Its arrays have shape, dtype, size, len(), slices and reshape."""

    name: str

    @abstractmethod
    def array(self, values: Array) -> Array:
        """A copy of a NumPy array on the device."""

    @abstractmethod
    def empty(self, shape: Any, dtype: Any) -> Array:
        """A C-contiguous array of no particular values. Errors: cuda.DeviceMemoryError."""

    @abstractmethod
    def write(self, target: Array, values: Array) -> None:
        """Copy a NumPy array into one of the device, after what was issued before."""

    @abstractmethod
    def host(self, array: Array) -> Array:
        """A copy as a NumPy array. Waits for what was issued before."""

    @abstractmethod
    def adopted(self, value: Any) -> Array | None:
        """value as an array of this device, without a copy, or None if it is not in the device's memory."""

    @abstractmethod
    def all_finite(self, array: Array) -> bool:
        """Whether there is no NaN or infinity. Waits for what was issued before."""

    @abstractmethod
    def capture(self, operations: Sequence[Operation]) -> Callable[[], None]:
        """A function that issues the operations, one after the other; nothing is run yet.

        The arguments are those of now: the arrays themselves and numbers. Errors: as cuda.launch.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all that was issued is done. Errors: cuda.DeviceError for what failed meanwhile."""

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Around the use of this device: what others issued before is done first, what was issued inside after."""
        yield


class CudaDevice(Device):
    """The current NVIDIA GPU through CuPy, on a stream of its own. Errors: ImportError, cuda.DeviceError."""

    def __init__(self) -> None:
        problem = cuda.unavailable()
        self._cupy: ModuleType = cuda.ready_cupy()
        if problem is not None:
            raise cuda.DeviceError(problem)
        self._number = int(self._cupy.cuda.runtime.getDevice())
        self.name = f"cuda:{self._number}"
        self._stream = self._cupy.cuda.Stream(non_blocking=True)
        self._products: dict[bool, tuple[Cublas, Array]] = {}

    def array(self, values: Array) -> Array:
        made = self.empty(values.shape, values.dtype)
        self.write(made, values)
        return made

    def empty(self, shape: Any, dtype: Any) -> Array:
        with self._here(f"allocating an array of {dtype} with shape {shape}"):
            return self._cupy.empty(shape, dtype)

    def write(self, target: Array, values: Array) -> None:
        with self._here("copying to the device"):
            target.set(np.ascontiguousarray(values, target.dtype), stream=self._stream)

    def host(self, array: Array) -> Array:
        with self._here("copying from the device"):
            values = array.get(stream=self._stream)
            self._stream.synchronize()
            return values

    def adopted(self, value: Any) -> Array | None:
        if isinstance(value, self._cupy.ndarray):
            return value
        if not (hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__")):
            return None
        kinds = (2, 13)  # DLPack's kDLCUDA, kDLCUDAManaged
        return self._cupy.from_dlpack(value) if int(value.__dlpack_device__()[0]) in kinds else None

    def all_finite(self, array: Array) -> bool:
        with self._here("looking for numbers that are not finite"):
            return bool(self._cupy.isfinite(array).all())

    def capture(self, operations: Sequence[Operation]) -> Callable[[], None]:
        """As a CUDA graph. Kernels are compiled and loaded before, and products computed once, which cuBLAS prepares
        itself in: during a capture neither may be. What the products write is written anew in every replay.
        """
        kept = [self._ready(operation) for operation in operations]
        with self._here("capturing a step"):
            self._stream.begin_capture()
            try:
                for operation in kept:
                    self._issue(operation)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._stream.end_capture()  # of a capture that failed: only to leave it
                raise
            graph = self._stream.end_capture()

        def replay() -> None:
            # the graph knows addresses alone: `kept` is what keeps the memory behind them
            with self._here(f"replaying a step of {len(kept)} operations"):
                graph.launch(self._stream)

        return replay

    def _ready(self, operation: Operation) -> Operation:
        if isinstance(operation, Product):
            if config.matmul() == "cublas":
                with self._here("preparing a product"):
                    self._multiply(operation)
                return operation
            operation = operation.as_launch()
        cuda.load(operation.kernel)
        return operation

    def _issue(self, operation: Operation) -> None:
        if isinstance(operation, Launch):
            cuda.launch(operation.kernel, operation.grid, operation.block, *operation.args)
        else:
            self._multiply(operation)

    def _multiply(self, product: Product) -> None:
        a, b, out, transpose_a, transpose_b = product
        pointers = int(a.data.ptr), int(b.data.ptr), int(out.data.ptr)
        self._cublas().matmul(str(out.dtype), pointers, (a.shape, b.shape), (transpose_a, transpose_b))

    def _cublas(self) -> Cublas:
        tf32 = config.tensor_float_32_execution_enabled()
        if tf32 not in self._products:
            workspace = self.empty(WORKSPACE, np.uint8)
            handle = Cublas(library_path(), stream=self._stream.ptr, workspace=workspace.data.ptr, tf32=tf32)
            self._products[tf32] = handle, workspace
        return self._products[tf32][0]

    def synchronize(self) -> None:
        with self._here("waiting for the device"):
            self._stream.synchronize()

    @contextlib.contextmanager
    def _here(self, doing: str) -> Iterator[None]:
        with cuda.clear_errors(doing), self._cupy.cuda.Device(self._number), self._stream:
            yield

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        self._stream.wait_event(self._cupy.cuda.get_current_stream().record())
        yield
        self.synchronize()


@functools.cache
def gpu() -> Device:
    """The GPU, opened once. Errors: ImportError or cuda.DeviceError with the reason why there is none."""
    return CudaDevice()


def chosen(where: str, device: Any) -> tuple[Device | None, bool]:
    """The device that an argument of fit, evaluate or predict asks for, None for the CPU; and whether it must be that.

    device: "cpu", "gpu", "auto" (a GPU if one answers), a Device, or None for config.device().
    Errors: ValueError for anything else; those of `gpu` for "gpu".
    """
    if isinstance(device, Device):
        return device, True
    name = config.device() if device is None else device
    if not isinstance(name, str) or name not in config.DEVICES:
        raise ValueError(f"{where}: device must be one of {', '.join(map(repr, config.DEVICES))}; got {device!r}.")
    if name == "auto":
        try:
            return gpu(), False
        except (ImportError, cuda.DeviceError):
            return None, False
    return (gpu(), True) if name == "gpu" else (None, True)


def refuse(where: str, what: str) -> NotImplementedError:
    """The error for something that is asked for on a GPU and that only the CPU does."""
    return NotImplementedError(
        f"{where}: {what} is not supported on a GPU; the CPU does it: device='cpu', or minidl.config.set_device('cpu')."
    )


def refuse_if_asked_for(where: str) -> None:
    """Raise NotImplementedError if config.device() is "gpu": for what computes on the CPU alone."""
    if config.device() == "gpu":
        raise refuse(where, f"{where} itself")
