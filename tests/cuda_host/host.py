"""Builds kernels/*.cu with the host's C++ compiler and runs them on NumPy arrays: no GPU, no CUDA.

    library = host.build(host.KERNELS / "adam.cu")
    library.launch("adam_step_float32", (param, grad, …), grid=2, block=64)

What a kernel expects is read from its own signature, so a wrong dtype, order of arguments or a forgotten argument
is an error here and not a wrong number. Built libraries are kept in a directory outside the repository, under the
hash of everything that went into them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minidl import cuda
from minidl.cublas import WORKSPACE, Cublas
from minidl.device import Device, Launch, Product

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "kernels"
FLAGS = [
    "-std=c++17",
    "-O2",
    "-g1",
    "-fPIC",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Wdouble-promotion",
    "-fvisibility=hidden",
]
SANITIZERS = {
    None: [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    "thread": ["-fsanitize=thread"],
}
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}
ORDERS = ("forward", "reverse", "shuffled")

_SCALARS = {
    "float": (ctypes.c_float, np.float32),
    "double": (ctypes.c_double, np.float64),
    "int": (ctypes.c_int, np.int32),
    "unsigned int": (ctypes.c_uint, np.uint32),
    "long long": (ctypes.c_longlong, np.int64),
    "unsigned char": (ctypes.c_ubyte, np.uint8),
}
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(\w+)\s*\(([^)]*)\)')


class LaunchError(Exception):
    """What the shim found wrong with a kernel: barriers that not all threads reach, wrong masks of warp operations."""


class Parameter(NamedTuple):
    """One parameter of a kernel: of a C type, perhaps a pointer to it, perhaps to what is only read."""

    name: str
    type: str
    pointer: bool
    const: bool


def compiler():
    """The path of the C++ compiler, or None."""
    return shutil.which("g++")


def _environment():
    """This process's, without the sanitizer's runtime: the compiler is not to load it."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def _run(command, **kwargs):
    result = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False, **kwargs)
    if result.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stderr}")
    return result


@functools.cache
def _version():
    return _run([compiler(), "--version"]).stdout


def signatures(preprocessed):
    """The kernels of a preprocessed .cu file: name -> [Parameter]."""
    found = {}
    for name, text in _KERNEL.findall(preprocessed):
        parameters = []
        for parameter in filter(None, (p.strip() for p in text.split(","))):
            words = parameter.replace("*", " * ").split()
            kind = " ".join(w for w in words[:-1] if w not in ("*", "const", "__restrict__", "[[maybe_unused]]"))
            if kind not in _SCALARS:
                raise TypeError(f"{name}: parameter {parameter!r} has a type that host.py does not know: {kind}")
            parameters.append(Parameter(words[-1], kind, "*" in words, "const" in words))
        found[name] = parameters
    return found


def preprocess(source):
    """A .cu file with its includes and macros expanded, CUDA's own words left alone."""
    return _run([compiler(), "-E", "-x", "c++", "-std=c++17", "-I", KERNELS, source]).stdout


def cache_directory():
    """Where built libraries are kept."""
    directory = Path(tempfile.gettempdir()) / f"minidl-cuda-host-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def _compile(target, inputs, flags):
    """g++ flags inputs -o target, unless it exists; complete when it appears, whoever else builds it too."""
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch) / target.name
            result = _run([compiler(), *flags, *inputs, "-o", made])
            if result.stderr:
                raise RuntimeError(f"the compiler warns:\n{result.stderr}")
            os.replace(made, target)
    return target


def _key(*parts):
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:20]


def build(source, sanitize=None, *, extra=()):
    """The Library of a .cu file; sanitize: None, "address" (and undefined behaviour) or "thread"; extra: more flags."""
    source = Path(source)
    flags = [*FLAGS, *extra]
    header, runtime = ((HERE / name).read_text(encoding="utf-8") for name in ("shim.hpp", "shim.cpp"))
    text = preprocess(source)
    kernels = signatures(text)
    if not kernels:
        raise ValueError(f'{source.name} has no kernel: expected extern "C" __global__ void name(…).')
    directory = cache_directory()

    # the scheduler itself is not watched, it only tells the sanitizer what it does
    told = [f"-DHOST_{ {'address': 'ASAN', 'thread': 'TSAN'}[sanitize] }"] if sanitize else []
    shim = _compile(
        directory / f"shim-{_key(header, runtime, flags, told, _version())}.o",
        [HERE / "shim.cpp"],
        [*flags, *told, "-c"],
    )

    flags += SANITIZERS[sanitize]
    unit = f'#include "{HERE / "shim.hpp"}"\n#include "{source}"\n' + "".join(f"HOST_EXPORT({k})\n" for k in kernels)
    key = _key(text, unit, shim.name, flags, _version())
    unit_path = directory / f"{source.stem}-{key}.cpp"
    if not unit_path.exists():
        with tempfile.NamedTemporaryFile("w", dir=directory, delete=False, encoding="utf-8") as scratch:
            scratch.write(unit)
        os.replace(scratch.name, unit_path)
    library = _compile(unit_path.with_suffix(".so"), [unit_path, shim], [*flags, "-I", KERNELS, "-shared"])
    return Library(library, kernels)


class Library:
    """Kernels built for the host, loaded at the first launch: a sanitizer's only where its runtime is."""

    def __init__(self, path, kernels):
        self.path, self.kernels = path, kernels

    @functools.cached_property
    def _library(self):
        return ctypes.CDLL(str(self.path))

    def launch(self, name, arguments, *, grid, block, shared=0, order="forward", seed=0):
        """Run kernel `name` on arguments: C-contiguous arrays of the exact dtype (None: a null pointer) and scalars.

        grid, block: an int or up to three. shared: bytes of dynamic shared memory. order: in which order threads and
        blocks take their turns. Errors: TypeError or ValueError for arguments that do not fit, LaunchError.
        """
        parameters = self.kernels[name]
        if len(arguments) != len(parameters):
            names = ", ".join(p.name for p in parameters)
            raise TypeError(f"{name}: expected {len(parameters)} arguments ({names}); got {len(arguments)}.")
        values = [_converted(name, p, a) for p, a in zip(parameters, arguments, strict=True)]
        self._launch(name, values, grid, block, shared, order, seed)

    def launch_addresses(self, name, values, *, grid, block, shared=0):
        """launch, with addresses in the place of arrays and NumPy's numbers, as a driver takes them."""
        converted = []
        for parameter, value in zip(self.kernels[name], values, strict=True):
            c_type = ctypes.c_void_p if parameter.pointer else _SCALARS[parameter.type][0]
            converted.append(c_type(value.item()))
        self._launch(name, converted, grid, block, shared, "forward", 0)

    def _launch(self, name, values, grid, block, shared, order, seed):
        addresses = (ctypes.c_void_p * max(1, len(values)))(*(ctypes.addressof(v) for v in values))
        message = ctypes.create_string_buffer(2000)
        wrong = self._library.host_launch(
            ctypes.cast(getattr(self._library, f"host_entry_{name}"), ctypes.c_void_p),
            addresses,
            _three(grid),
            _three(block),
            ctypes.c_size_t(shared),
            ORDERS.index(order),
            ctypes.c_uint64(seed),
            message,
            ctypes.c_size_t(len(message)),
        )
        if wrong:
            raise LaunchError(f"{name}: {message.value.decode()}")


def _three(extent):
    extents = (extent,) if isinstance(extent, int) else tuple(extent)
    if any(n < 1 for n in extents):
        raise ValueError(f"grid and block need at least one in each direction; got {extents}.")
    return (ctypes.c_uint * 3)(*extents, *(1 for _ in range(3 - len(extents))))


def _converted(kernel, parameter, argument):
    """The argument as a ctypes object of the parameter's type."""
    c_type, dtype = _SCALARS[parameter.type]
    what = f"{kernel}: {parameter.name}"
    if not parameter.pointer:
        wanted = int if np.issubdtype(dtype, np.integer) else (float, dtype)
        if isinstance(argument, np.ndarray) or not isinstance(argument, wanted):
            raise TypeError(f"{what} is a {parameter.type}; got {argument!r}.")
        if wanted is int and not np.iinfo(dtype).min <= argument <= np.iinfo(dtype).max:
            raise ValueError(f"{what} is a {parameter.type}, too small for {argument}.")
        return c_type(argument)
    if argument is None:
        return ctypes.c_void_p(None)
    if not isinstance(argument, np.ndarray) or argument.dtype != dtype:
        got = argument.dtype if isinstance(argument, np.ndarray) else type(argument).__name__
        raise TypeError(f"{what} is a {parameter.type}*; got {got}.")
    if not argument.flags.c_contiguous or not (parameter.const or argument.flags.writeable):
        raise ValueError(f"{what}: the array must be C-contiguous, and writable unless the kernel only reads it.")
    return ctypes.c_void_p(argument.ctypes.data)


def array(values, dtype=None):
    """A copy of values in memory of its own that starts at a multiple of 256 bytes, as on a GPU.

    It ends where the array does, so that the address sanitizer sees the first byte beyond.
    """
    values = np.asarray(values, dtype, order="C")
    libc = ctypes.CDLL(None)
    address = ctypes.c_void_p()
    if libc.posix_memalign(ctypes.byref(address), ctypes.c_size_t(256), ctypes.c_size_t(max(1, values.nbytes))):
        raise MemoryError(f"no memory for {values.nbytes} bytes")
    memory = (ctypes.c_ubyte * values.nbytes).from_address(address.value)
    made = np.ndarray(values.shape, values.dtype, buffer=memory)
    made[...] = values
    weakref.finalize(memory, libc.free, address).atexit = False  # numpy keeps memory as long as an array is on it
    return made


def empty(shape, dtype):
    """An array to be written: NaN, or −1, until it is."""
    made = array(np.zeros(shape, dtype))
    made.reshape(-1).view(np.uint8)[...] = 0xFF
    return made


# ------------------------------------------------------------------------------------------- a device to train on


class HostArray:
    """An array of HostDevice's: NumPy's memory, which NumPy itself does not get, as it gets none of a GPU's."""

    def __init__(self, values):
        self.values = values

    shape, dtype, size, ndim, flags = (
        property(lambda self, name=name: getattr(self.values, name))
        for name in ("shape", "dtype", "size", "ndim", "flags")
    )

    def __len__(self):
        return len(self.values)

    def __getitem__(self, key):
        return HostArray(self.values[key])

    def reshape(self, *shape):
        made = self.values.reshape(*shape)
        assert np.shares_memory(made, self.values) or not made.size, "a copy, of which the device knows nothing"
        return HostArray(made)

    def __array__(self, *arguments, **settings):
        raise TypeError("Implicit conversion to a NumPy array is not allowed: it is in a device's memory.")

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **settings):
        return self.values.__dlpack__()

    def get(self):
        return self.values.copy()


class HostDevice(Device):
    """Runs the same kernels/*.cu on the host, in the place of a GPU. What it cannot show is how fast, and what races.

    capture records the operations, and a replay issues them with the arguments of the recording: a step in which
    anything depends on a value of the host shows. Memory that was not written is NaN, or −1. memory: bytes that there
    are. order: in which threads and blocks take their turns. cublas: path of a library in the place of cuBLAS.
    """

    name = "host"

    def __init__(self, *, memory=2**40, order="forward", seed=0, cublas=None, sanitize=None):
        self.memory, self.order, self.seed, self.sanitize = memory, order, seed, sanitize
        self.used, self.replays, self.captured, self.waits, self.sent = 0, 0, [], 0, 0
        self.fails_after = None  # of how many launches the device breaks
        self.launches = 0
        self._cublas = None
        if cublas is not None:
            self._workspace = array(np.zeros(WORKSPACE, np.uint8))
            self._cublas = Cublas(cublas, stream=1, workspace=self._workspace.ctypes.data, tf32=False)

    def array(self, values):
        made = self.empty(values.shape, values.dtype)
        made.values[...] = values
        return made

    def empty(self, shape, dtype):
        made = empty(shape, dtype)
        if self.used + made.nbytes > self.memory:
            raise cuda.DeviceMemoryError(
                f"out of device memory: {made.nbytes} bytes asked for, {self.memory - self.used} free."
            )
        self.used += made.nbytes
        weakref.finalize(made, self._free, made.nbytes)
        return HostArray(made)

    def _free(self, size):
        self.used -= size

    def write(self, target, values):
        self.sent += 1
        target.values[...] = np.asarray(values, target.dtype)

    def host(self, array):
        self.waits += 1
        return array.values.copy()

    def adopted(self, value):
        if isinstance(value, HostArray):
            return value
        foreign = hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] == 2
        return HostArray(np.from_dlpack(_OfTheHost(value))) if foreign else None

    def all_finite(self, array):
        self.waits += 1
        return bool(np.isfinite(array.values).all())

    def capture(self, operations):
        kept = list(operations)
        self.captured.append(kept)
        self.build([op if isinstance(op, Launch) or self._cublas else op.as_launch() for op in kept])

        def replay():
            self.replays += 1
            for operation in kept:
                self.issue(operation)

        return replay

    def build(self, operations):
        for operation in operations:
            if isinstance(operation, Launch):
                build_once(cuda.kernels()[operation.kernel].path, self.sanitize)

    def issue(self, operation):
        self.launches += 1
        if self.fails_after is not None and self.launches > self.fails_after:
            raise cuda.DeviceError("the device failed while launching: an illegal memory access.")
        if isinstance(operation, Product):
            if self._cublas is not None:
                arrays = [one.values for one in operation[:3]]
                pointers = tuple(one.ctypes.data for one in arrays)
                shapes = arrays[0].shape, arrays[1].shape
                self._cublas.matmul(str(arrays[2].dtype), pointers, shapes, operation[3:])
                return
            operation = operation.as_launch()
        library = build_once(cuda.kernels()[operation.kernel].path, self.sanitize)
        arguments = [a.values if isinstance(a, HostArray) else a for a in operation.args]
        assert not any(isinstance(a, np.ndarray) for a in operation.args), "a host array given to a device kernel"
        library.launch(
            operation.kernel, arguments, grid=operation.grid, block=operation.block, order=self.order, seed=self.seed
        )

    def synchronize(self):
        self.waits += 1


class _OfTheHost:
    """What another library calls a GPU's memory, for NumPy: it is the host's in truth."""

    def __init__(self, value):
        self.value = value

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, **settings):
        return self.value.__dlpack__()


@functools.cache
def build_once(source, sanitize=None):
    """build, once in a process: it reads the files and runs the preprocessor each time."""
    return build(source, sanitize)


@functools.cache
def cublas():
    """The path of the library that stands in for cuBLAS: cublas.cpp."""
    source = HERE / "cublas.cpp"
    key = _key(source.read_text(encoding="utf-8"), FLAGS, _version())
    return str(_compile(cache_directory() / f"libcublas-{key}.so", [source], [*FLAGS, "-shared"]))
