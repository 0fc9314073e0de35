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
