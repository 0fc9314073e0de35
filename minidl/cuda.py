"""The CUDA kernels of kernels/*.cu on a GPU: found, compiled once, checked and launched.

kernels/README.md explains the kernels themselves.

    from source to launch: kernels/dropout.cu -> one text, its includes in it -> NVRTC -> cubin -> module -> launch

CuPy is imported where a device is needed, and only there: all else here works without it and without a GPU.
CuPy's own RawModule is not used for compiling: it appends -ftz=true, which flushes subnormal numbers, and its cache
does not see a change in an included file. CuPy's launch knows no parameter types: a Python float becomes a double
whatever the kernel declares, None a fault, and a strided or host array is read as if it were not. `launch` checks.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path  # slow to import, as what is imported in functions below

# The one set of flags: rounding as in NumPy, so that the twins of ops.py that only add, multiply, divide and take roots
# are equal to it bit for bit. No product is contracted with a sum, no subnormal flushed, no quotient approximated.
FLAGS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")

MAX_THREADS = 1024  # of a block
MAX_GRID, MAX_BLOCK = (2**31 - 1, 2**16 - 1, 2**16 - 1), (1024, 1024, 64)
PLAIN_SHARED = 48 * 1024  # bytes of shared memory that a block may have without asking for more

_INSTALL = "pip install 'minidl[gpu12]' (driver for CUDA 12) or 'minidl[gpu13]' (driver for CUDA 13)"


class CompilationError(RuntimeError):
    """What NVRTC says about a source, with the kernel's own file and line."""


class DeviceError(RuntimeError):
    """There is no device to launch on, or it refused."""


class DeviceMemoryError(MemoryError):
    """The device's memory is used up."""


# ------------------------------------------------------------------------------------------------- sources


def kernel_directory(package: Path | None = None) -> Path:
    """Where the .cu files are: inside the package in a wheel, beside it in a checkout or an editable install.

    package: the directory of minidl, this one if None. Errors: FileNotFoundError.
    """
    from pathlib import Path

    package = Path(__file__).resolve().parent if package is None else package
    places = (package / "kernels", package.parent / "kernels")
    for place in places:
        if (place / "common.cuh").is_file():
            return place
    raise FileNotFoundError(
        f"minidl's CUDA sources are missing: expected common.cuh in {places[0]} (installed) or {places[1]} (checkout). "
        "Install minidl again."
    )


def sources() -> list[Path]:
    """The paths of all kernels/*.cu, sorted."""
    return sorted(kernel_directory().glob("*.cu"))


_INCLUDE = re.compile(r'\s*#\s*include\s*(?:"([^"]+)"|(<[^>]*>))')
_PRAGMA_ONCE = re.compile(r"\s*#\s*pragma\s+once\b")


def source_text(path: Path) -> str:
    """A source with the files that it includes written into it, each once, so that one hash covers everything.

    #line directives say where a line is from: an error names the file and line that a reader has before them.
    Errors: CompilationError for an include that is missing or is in <>: kernels include only files beside them.
    """
    return "\n".join(_inlined(path, set())) + "\n"


def _inlined(path: Path, seen: set[str]) -> Iterator[str]:
    seen.add(path.name)
    yield f'#line 1 "{path.name}"'
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        include = _INCLUDE.match(line)
        if include is None:
            yield "" if _PRAGMA_ONCE.match(line) else line
            continue
        name = include[1]
        if name is None or not (path.parent / name).is_file():
            raise CompilationError(
                f"{path.name}({number}): error: cannot include {name or include[2]}: "
                f'expected a file in {path.parent}, as in #include "common.cuh".'
            )
        if name not in seen:
            yield from _inlined(path.parent / name, seen)
        yield f'#line {number + 1} "{path.name}"'


# ---------------------------------------------------------------------------------------------- signatures


class Parameter(NamedTuple):
    """One parameter of a kernel, or what it points to: const says that the kernel only reads it."""

    name: str
    type: str
    dtype: np.dtype[Any]
    pointer: bool
    const: bool

    def __str__(self) -> str:
        return f"{'const ' if self.const else ''}{self.type}{'*' if self.pointer else ''} {self.name}"


class Kernel(NamedTuple):
    """A kernel as its source declares it."""

    name: str
    path: Path
    parameters: tuple[Parameter, ...]


_TYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "int": np.dtype(np.int32),
    "unsigned int": np.dtype(np.uint32),
    "long long": np.dtype(np.int64),
    "unsigned long long": np.dtype(np.uint64),
    "unsigned char": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}
_QUALIFIERS = {"*", "const", "__restrict__", "[[maybe_unused]]"}
_BOUNDS = r"(?:__launch_bounds__\s*\([^()]*\)\s*)?"
_KERNEL = re.compile(rf'extern\s+"C"\s+__global__\s+{_BOUNDS}void\s+{_BOUNDS}(\w+)\s*\(([^()]*)\)')
_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_MACRO = re.compile(r"^\s*#\s*define\s+(\w+)\(([^)]*)\)(.*)$", re.MULTILINE)
_DIRECTIVE = re.compile(r"^\s*#.*$", re.MULTILINE)


@functools.cache
def kernels() -> dict[str, Kernel]:
    """All kernels by name: {"adam_step_float32": Kernel(…), …}."""
    return {kernel.name: kernel for path in sources() for kernel in read_kernels(path)}


def read_kernels(path: Path) -> list[Kernel]:
    """The kernels that a .cu file declares as extern "C" __global__ void name(…), also by its own macros.

    Errors: TypeError for a parameter of a type that `launch` could not fill in; ValueError for a __global__ function
    that is not of this form.
    """
    text = _expanded(path.read_text(encoding="utf-8"))
    found = [
        Kernel(name, path, tuple(_parameter(path.name, name, p) for p in declared.split(",") if p.strip()))
        for name, declared in _KERNEL.findall(text)
    ]
    if len(found) != len(re.findall(r"\b__global__\b", text)):
        raise ValueError(
            f'{path.name}: expected each kernel as extern "C" __global__ void name(…); '
            f"could read only {', '.join(k.name for k in found) or 'none'}."
        )
    return found


def _parameter(file: str, kernel: str, declaration: str) -> Parameter:
    words = declaration.replace("*", " * ").split()
    kind = " ".join(word for word in words[:-1] if word not in _QUALIFIERS)
    if kind not in _TYPES or words.count("*") > 1:
        raise TypeError(
            f"{file}: {kernel} has the parameter {declaration.strip()!r}; expected a number or a pointer to numbers of "
            f"type {', '.join(_TYPES)}."
        )
    return Parameter(words[-1], kind, _TYPES[kind], "*" in words, "const" in words)


def _expanded(text: str) -> str:
    """A .cu file's text without comments and directives, its macros that make kernels expanded, all others not."""
    text = _COMMENT.sub(lambda match: match[1] or " ", text.replace("\\\n", " "))
    macros = {
        name: ([p.strip() for p in parameters.split(",")], body) for name, parameters, body in _MACRO.findall(text)
    }
    making = {name for name, (_, body) in macros.items() if "__global__" in body}
    while more := {n for n, (_, b) in macros.items() if n not in making and making & set(re.findall(r"\w+", b))}:
        making |= more
    return _expand(_DIRECTIVE.sub("", text), {name: macros[name] for name in making})


def _expand(text: str, macros: dict[str, tuple[list[str], str]]) -> str:
    if not macros:
        return text
    call = re.compile(rf"\b({'|'.join(map(re.escape, macros))})\s*\(([^()]*)\)")

    def body(match: re.Match[str]) -> str:
        name, (parameters, replacement) = match[1], macros[match[1]]
        values = dict(zip(parameters, (v.strip() for v in match[2].split(",")), strict=True))
        replaced = re.sub(r"\w+", lambda word: values.get(word[0], word[0]), replacement)
        # an expanded macro is not expanded again inside itself
        return _expand(re.sub(r"\s*##\s*", "", replaced), {n: m for n, m in macros.items() if n != name})

    return call.sub(body, text)


# ----------------------------------------------------------------------------------------- CuPy and device


def installed_builds(paths: Sequence[str] | None = None) -> list[str]:
    """The names of all installed CuPy distributions (cupy-cuda12x, …), in sys.path or in paths, sorted."""
    from importlib import metadata

    found = metadata.distributions(path=list(sys.path if paths is None else paths))
    names = {re.sub(r"[-_.]+", "-", str(d.metadata["Name"])).lower() for d in found if d.metadata["Name"]}
    return sorted(n for n in names if re.fullmatch(r"cupy(-cuda\w+|-rocm[\w-]+)?|amd-cupy", n))


def refuse_two_builds(builds: Sequence[str]) -> None:
    """Raise ImportError if builds names more than one CuPy: they overwrite each other's files."""
    if len(builds) > 1:
        raise ImportError(
            f"expected one build of CuPy; found {len(builds)}: {', '.join(builds)}. They overwrite each other's files: "
            f"remove all (pip uninstall {' '.join(builds)}), then {_INSTALL}."
        )


@functools.cache
def import_cupy() -> ModuleType:
    """CuPy. Errors: ImportError with what to install, or with what is installed twice."""
    refuse_two_builds(installed_builds())
    try:
        return importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise
        raise ModuleNotFoundError(f"CuPy is not installed, and the GPU needs it: {_INSTALL}.", name="cupy") from None
    except ImportError as error:
        raise ImportError(f"CuPy is installed but cannot be loaded; install it again: {_INSTALL}.\n{error}") from error


@functools.cache
def ready_cupy() -> ModuleType:
    """CuPy, when a device answers too. Errors: ImportError, DeviceError."""
    cupy = import_cupy()
    runtime = cupy.cuda.runtime
    count, status, said = 0, 0, ""
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        status, said = error.status, str(error)
    if count == 0:
        raise DeviceError(device_problem(status, said, runtime.driverGetVersion(), runtime.runtimeGetVersion()))
    return cupy


def device_problem(status: int, said: str, driver: int, runtime: int) -> str:
    """Why no device answers: status, said: CUDA's error; driver, runtime: versions as CUDA has them, 12090 for 12.9."""
    insufficient_driver = 35
    if status == insufficient_driver and driver > 0:
        return (
            f"the NVIDIA driver is too old: it knows CUDA {_dotted(driver)}, and this CuPy needs CUDA "
            f"{runtime // 1000}. Update the driver, or install the CuPy that fits it: {_INSTALL}."
        )
    why = "no NVIDIA driver is loaded" if driver == 0 else said or "the driver finds none"
    return f"no CUDA device answers: {why}. See what nvidia-smi and CUDA_VISIBLE_DEVICES say, or stay on the CPU."


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def unavailable() -> str | None:
    """Why kernels cannot be launched on this machine, in a sentence, or None: they can."""
    try:
        ready_cupy()
        _nvrtc()
    except (ImportError, DeviceError) as error:
        return str(error)
    return None


@contextlib.contextmanager
def clear_memory_errors(doing: str) -> Iterator[None]:
    """Around what allocates on the device before it changes anything: a full memory becomes a DeviceMemoryError.

    doing: what is being tried, "copying the data". NumPy's MemoryError and all other errors pass as they are.
    """
    try:
        yield
    except Exception as error:
        if not _is_device_memory_error(error):
            raise
        raise DeviceMemoryError(
            f"out of device memory while {doing}: {str(error).rstrip('.')}. What failed has changed nothing: "
            "the model is whole and can be used. "
            "Try a smaller batch_size, or free memory that other arrays and processes hold."
        ) from error


@contextlib.contextmanager
def clear_errors(doing: str) -> Iterator[None]:
    """clear_memory_errors, and CUDA's other errors as a DeviceError. Often they are those of an earlier launch."""
    with clear_memory_errors(doing):
        try:
            yield
        except RuntimeError as error:
            if not _is_of_cupy(error) or _is_device_memory_error(error):
                raise
            raise DeviceError(
                f"the device failed while {doing}: {error}. CUDA_LAUNCH_BLOCKING=1 shows where."
            ) from error


def _is_of_cupy(error: Exception) -> bool:
    return type(error).__module__.split(".")[0] in ("cupy", "cupy_backends")


def _is_device_memory_error(error: Exception) -> bool:
    codes = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY")
    return _is_of_cupy(error) and (isinstance(error, MemoryError) or str(error).startswith(codes))


# --------------------------------------------------------------------------------------------- compilation


@functools.cache
def _nvrtc() -> Any:
    """CuPy's door to NVRTC, which needs no driver. Errors: ImportError."""
    import_cupy()
    nvrtc = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
    try:
        nvrtc.getVersion()
    except Exception as error:
        builds = installed_builds() or ["cupy"]
        raise ImportError(
            "CUDA's compiler library, NVRTC, cannot be loaded. Install CUDA's toolkit, or its parts with "
            f"pip install '{builds[0]}[ctk]'.\n{error}"
        ) from error
    return nvrtc


def compile_source(text: str, name: str, architecture: int) -> bytes:
    """Machine code of a source for one architecture, 90 for sm_90; name: the file's, for messages.

    Needs CuPy and NVRTC, neither driver nor GPU. Errors: CompilationError, with file and line; ImportError.
    """
    nvrtc = _nvrtc()
    program = nvrtc.createProgram(text, name, (), ())
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture=sm_{architecture}", *FLAGS))
        code: bytes = nvrtc.getCUBIN(program)
        return code
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program).strip()
        raise CompilationError(f"{name} does not compile for sm_{architecture}: {error}\n{log}") from error
    finally:
        nvrtc.destroyProgram(program)


def architecture_for(capability: int, known: Sequence[int]) -> int:
    """The architecture to compile for: the device's, 86 for 8.6, or the next lower one of its generation in known.

    Machine code runs on all later devices of one generation (8.0 on 8.6), not of another. Errors: DeviceError.
    """
    fitting = [a for a in known if a // 10 == capability // 10 and a <= capability]
    if not fitting:
        raise DeviceError(
            f"the device is sm_{capability}; this NVRTC compiles for {', '.join(f'sm_{a}' for a in sorted(known))}. "
            f"Another version of CUDA's toolkit and of CuPy does: {_INSTALL}."
        )
    return max(fitting)


def cache_directory() -> Path:
    """Where machine code is kept: $MINIDL_CACHE_DIR, or minidl/cuda in the platform's place for caches."""
    from pathlib import Path

    if chosen := os.environ.get("MINIDL_CACHE_DIR"):
        return Path(chosen)
    place = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    return (Path(place) if os.path.isabs(place) else Path.home() / ".cache") / "minidl" / "cuda"


@functools.cache
def cubin(path: Path, architecture: int) -> bytes:
    """Machine code of a .cu file, compiled once for each text, set of flags, architecture and version of NVRTC.

    Kept in memory and in `cache_directory()`. The file ends in the SHA-256 of what comes before, so that a damaged one
    is noticed and made again, and begins as the cubin that NVIDIA's tools read. A cache that cannot be read or written
    is done without.
    """
    import hashlib

    text = source_text(path)
    parts = (text, *FLAGS, f"sm_{architecture}", "nvrtc", *map(str, _nvrtc().getVersion()))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    try:
        kept = cache_directory() / f"{path.stem}-{key}.cubin"
    except RuntimeError:  # there is no home directory
        return compile_source(text, path.name, architecture)
    with contextlib.suppress(OSError):
        code, digest = (content := kept.read_bytes())[:-32], content[-32:]
        if hashlib.sha256(code).digest() == digest:
            return code
    code = compile_source(text, path.name, architecture)
    with contextlib.suppress(OSError):
        _write_whole(kept, code + hashlib.sha256(code).digest())
    return code


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that is complete when it appears, whoever else writes it too."""
    import tempfile

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem[:20], delete=False) as scratch:
        try:
            scratch.write(content)
            scratch.close()
            os.replace(scratch.name, path)
        except OSError:
            os.unlink(scratch.name)
            raise


@functools.cache
def _module(path: Path, device: int) -> Any:
    """The kernels of a file on the current device, whose number is `device`."""
    cupy = ready_cupy()
    capability = int(cupy.cuda.Device(device).compute_capability)
    module = cupy.cuda.function.Module()
    with clear_memory_errors(f"loading {path.name}"):
        module.load(cubin(path, architecture_for(capability, _nvrtc().getSupportedArchs())))
    return module


@functools.cache
def _function(name: str, device: int) -> Any:
    return _module(kernels()[name].path, device).get_function(name)


def load(kernel_name: str) -> None:
    """Compile and load a kernel for the current device, which the first launch does else. Errors: as launch's."""
    _function(_kernel(kernel_name).name, ready_cupy().cuda.runtime.getDevice())


# -------------------------------------------------------------------------------------------------- launch

Extent = int | Sequence[int]


def launch(kernel_name: str, grid: Extent, block: Extent, *args: Any, shared: int = 0, stream: Any = None) -> None:
    """Run a kernel on the current device: launch("adam_step_float32", blocks, 256, param, grad, …).

    args: one for each parameter of the kernel. For a pointer a C-contiguous CuPy array of exactly its dtype, or None
    for a null pointer; for a number a Python or NumPy number that its type can hold, converted to just that type.
    grid, block: number of blocks, and of threads in a block, each an int or up to three. shared: bytes of dynamic
    shared memory. stream: a CuPy stream, the current one if None. Returns at once, before the kernel has run.
    How many elements an array must have is not in a signature: the kernel's header says it, the caller sees to it.
    Errors: TypeError or ValueError for what does not fit, before anything reaches the device; ImportError,
    DeviceError, CompilationError, DeviceMemoryError.
    """
    kernel = _kernel(kernel_name)
    grid = _extents(f"{kernel_name}: grid", grid, MAX_GRID)
    block = _extents(f"{kernel_name}: block", block, MAX_BLOCK)
    if math.prod(block) > MAX_THREADS:
        raise ValueError(
            f"{kernel_name}: a block has at most {MAX_THREADS} threads; got {block}, {math.prod(block)} threads. "
            "Use a smaller block and a larger grid."
        )
    if not isinstance(shared, (int, np.integer)) or shared < 0:
        raise ValueError(f"{kernel_name}: shared must be a number of bytes, an int ≥ 0; got {shared!r}.")
    if len(args) != len(kernel.parameters):
        raise TypeError(
            f"{kernel_name}: expected {len(kernel.parameters)} arguments ({', '.join(map(str, kernel.parameters))}); "
            f"got {len(args)}."
        )
    values = tuple(
        _pointer(kernel_name, parameter, argument) if parameter.pointer else _number(kernel_name, parameter, argument)
        for parameter, argument in zip(kernel.parameters, args, strict=True)
    )
    cupy = ready_cupy()
    device = cupy.cuda.runtime.getDevice()
    _check_device(cupy, kernel, args, stream, device)
    function = _function(kernel_name, device)
    with _clear_launch_errors(kernel_name, grid, block, int(shared)):
        if shared > PLAIN_SHARED:
            _allow_shared(function, int(shared))
        function(grid, block, values, int(shared), stream)


def _kernel(name: str) -> Kernel:
    found = kernels().get(name)
    if found is None:
        import difflib

        nearest = difflib.get_close_matches(str(name), kernels(), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        raise ValueError(f"Unknown kernel: {name!r}.{hint} Known: {', '.join(sorted(kernels()))}.")
    return found


def _extents(what: str, extent: Extent, limits: tuple[int, int, int]) -> tuple[int, int, int]:
    """extent as three ints, the missing ones 1."""
    given = tuple(extent) if isinstance(extent, (tuple, list)) else (extent,)
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in given)
    if not whole or not 1 <= len(given) <= 3:
        raise TypeError(f"{what} must be an int or up to three of them; got {extent!r}.")
    x, y, z = (int(n) for n in (*given, 1, 1)[:3])
    if not all(1 <= n <= limit for n, limit in zip((x, y, z), limits, strict=True)):
        raise ValueError(f"{what} must be at least 1 and at most {limits} in x, y, z; got {extent!r}.")
    return x, y, z


def _number(kernel: str, parameter: Parameter, value: Any) -> np.generic:
    """value as a NumPy number of exactly the declared type."""
    what, dtype = f"{kernel}: {parameter.name} is one {parameter.type}", parameter.dtype
    if isinstance(value, (bool, np.bool_)) and dtype.kind != "f":
        value = int(value)
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, np.bool_))
    if not real:
        raise TypeError(f"{what}; got {_described(value)}. Pass a Python number.")
    if dtype.kind == "f":
        return _float(what, parameter, value)
    if not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what}; got the float {value!r}. Pass an int, rounded as you mean it.")
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not low <= value <= high:
        raise ValueError(f"{what}, which holds {low} … {high}; got {value}.")
    return _cast(dtype, int(value))


def _float(what: str, parameter: Parameter, value: Any) -> np.generic:
    """Rounded to the nearest; what would become infinite or 0 is refused, and an int that would be rounded."""
    try:
        with np.errstate(over="ignore", under="ignore"):
            result = _cast(parameter.dtype, value)
    except OverflowError:
        result = _cast(parameter.dtype, math.inf)
    rounded = float(result)
    if (math.isinf(rounded) and abs(value) != math.inf) or (rounded == 0) != (value == 0):
        raise ValueError(f"{what}, which cannot hold {value!r}: it would become {rounded}.")
    if isinstance(value, (int, np.integer)) and rounded != int(value):
        raise ValueError(f"{what}, which cannot hold {value!r} exactly. Pass a float if it may be rounded.")
    return result


def _cast(dtype: np.dtype[Any], value: Any) -> np.generic:
    make: Callable[[Any], np.generic] = dtype.type
    return make(value)


def _pointer(kernel: str, parameter: Parameter, value: Any) -> np.uint64:
    """The address of a device array. (CuPy would take the array itself too, and None for no argument at all.)"""
    if value is None:
        return np.uint64(0)
    what = f"{kernel}: {parameter.name} is {parameter.type}* on the device"
    if not is_device_array(value):
        host = isinstance(value, (np.ndarray, np.generic, list, tuple, bytes, bytearray, memoryview))
        problem = "host array given to a device kernel: " if host else ""
        raise TypeError(
            f"{problem}{what}; got {_described(value)}. Pass a CuPy array, made with cupy.asarray(…, "
            f"dtype={parameter.dtype.name!r}), or None for a null pointer."
        )
    if value.dtype != parameter.dtype:
        raise TypeError(
            f"{what}, so expected a CuPy array of {parameter.dtype.name}; got {_described(value)}. "
            "Launch the kernel of the array's type, or convert the array with astype."
        )
    if not value.flags.c_contiguous:
        raise ValueError(
            f"{what} and must be C-contiguous; got {_described(value)} with strides {value.strides}. "
            "Pass cupy.ascontiguousarray(…)."
        )
    return np.uint64(value.data.ptr)


def is_device_array(value: Any) -> bool:
    """Whether value is a CuPy array. CuPy is looked up, not imported: no array of it exists before it is imported."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(value, cupy.ndarray)


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray) or is_device_array(value):
        library = "NumPy" if isinstance(value, np.ndarray) else "CuPy"
        return f"a {library} array of {value.dtype} with shape {value.shape}"
    return f"{value!r} of type {type(value).__name__}"


def _check_device(cupy: ModuleType, kernel: Kernel, args: Sequence[Any], stream: Any, device: int) -> None:
    """All arrays and the stream must be of the current device."""
    for parameter, argument in zip(kernel.parameters, args, strict=True):
        if parameter.pointer and argument is not None and argument.data.device_id != device:
            raise ValueError(
                f"{kernel.name}: {parameter.name} is on device {argument.data.device_id}, the current one is {device}. "
                f"Launch inside `with cupy.cuda.Device({argument.data.device_id}):`, with all arrays on that device."
            )
    if stream is None:
        return
    streams = (cupy.cuda.Stream, getattr(cupy.cuda, "ExternalStream", cupy.cuda.Stream))  # the latter is deprecated
    if not isinstance(stream, streams):
        raise TypeError(f"{kernel.name}: stream must be a cupy.cuda.Stream or None; got {stream!r}.")
    if getattr(stream, "device_id", -1) not in (-1, device):  # -1: of whichever device is current
        raise ValueError(f"{kernel.name}: the stream is of device {stream.device_id}, the current one is {device}.")


def _allow_shared(function: Any, shared: int) -> None:
    """Let a kernel have more than 48 KiB of dynamic shared memory, up to what the device has."""
    driver = importlib.import_module("cupy_backends.cuda.api.driver")
    driver.funcSetAttribute(function.ptr, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)


@contextlib.contextmanager
def _clear_launch_errors(kernel: str, grid: Extent, block: Extent, shared: int) -> Iterator[None]:
    """What the driver refuses: DeviceError with the launch in it, or DeviceMemoryError."""
    with clear_memory_errors(f"launching {kernel}"):
        try:
            yield
        except RuntimeError as error:
            if _is_device_memory_error(error):
                raise
            raise DeviceError(
                f"{kernel}: the device refused grid {grid}, block {block} and {shared} bytes of shared memory: "
                f"{error}. A smaller block needs fewer registers and less shared memory. "
                "If the error is of an earlier launch, CUDA_LAUNCH_BLOCKING=1 shows which."
            ) from error


# ------------------------------------------------------------------------------------------------- dropout

_BLOCK, _MAX_BLOCKS = 256, 4096  # a million threads: more than any GPU has at once; the kernels' loops do the rest


def blocks_for(threads: int) -> int:
    """The grid of a grid-stride kernel with blocks of 256 threads that has work for so many threads."""
    return max(1, min(_MAX_BLOCKS, -(-threads // _BLOCK)))


def dropout(
    inputs: Any, outputs: Any, seed_state: Any, rate: float, *, xla: bool = False, backward: bool = False
) -> None:
    """outputs = inputs / (1 − rate) where kept, else 0;  CuPy arrays (...) -> (...), float32 or float64.

    The keep flags of random.dropout_mask(shape, rate, (seed, counter), dtype) are made in the kernel, from the
    element's position: no mask is stored, none is copied. backward: inputs and outputs are d_outputs and d_inputs.
    outputs may be inputs. seed_state: int64 CuPy array [seed, counter], only read, and read when the kernel runs.
    rate in [0, 1], the fraction dropped. xla: the flags of jit_compile=True, the stream "tensorflow-xla".
    Errors: TypeError or ValueError for what does not fit; those of `launch`.
    Source: kernels/dropout.cu, twin of ops.dropout and ops.dropout_backward.
    """
    name = "dropout_backward" if backward else "dropout"
    if not isinstance(rate, (int, float, np.integer, np.floating)) or not 0 <= rate <= 1:
        raise ValueError(f"{name}: rate must be in [0, 1]; got {rate!r}. rate is the fraction dropped, not kept.")
    dtype = getattr(inputs, "dtype", None)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: inputs must be a CuPy array of float32 or float64; got {_described(inputs)}.")
    for what, value, shape in (("outputs", outputs, inputs.shape), ("seed_state", seed_state, (2,))):
        if getattr(value, "shape", None) != shape:
            raise ValueError(f"{name}: {what} must be an array of shape {shape}; got {_described(value)}.")
    groups = -(-inputs.size // (4 if dtype == np.float32 else 2))  # Philox makes four 32-bit words at a time
    arguments = (inputs, outputs, inputs.size, seed_state, float(rate), int(xla))
    launch(f"{name}_{dtype}", blocks_for(groups), _BLOCK, *arguments)
