"""NVRTC, CUDA's compiler as a library, through ctypes: it needs neither a GPU nor a driver.

python tests/cuda_host/nvrtc.py     prints the table of registers in kernels/README.md
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
import sys
from pathlib import Path
from typing import NamedTuple

KERNELS = Path(__file__).parents[2] / "kernels"
# The one set of flags: rounding as in NumPy. (--ftz=false and --prec-div, --prec-sqrt = true are NVRTC's defaults.)
FLAGS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
TABLE_ARCHITECTURES = (75, 80, 90, 120)


class CompilationError(Exception):
    """What NVRTC says about a source, with file and line."""


class Resources(NamedTuple):
    """What ptxas gives a kernel: registers a thread, static shared memory and spilled bytes."""

    registers: int
    shared: int
    spilled: int


def find():
    """The path of NVRTC's library in the package nvidia-cuda-nvrtc-cu12, or None."""
    try:
        spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        return None
    found = [path for place in spec.submodule_search_locations for path in Path(place, "lib").glob("libnvrtc.so*")]
    return found[0] if found else None


@functools.cache
def _library():
    return ctypes.CDLL(str(find()))


def _call(function, *arguments):
    status = getattr(_library(), function)(*arguments)
    if status:
        _library().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"{function}: {_library().nvrtcGetErrorString(status).decode()}")


def version():
    """(major, minor)."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def architectures():
    """The compute capabilities that this NVRTC knows, 75 for 7.5."""
    count = ctypes.c_int()
    _call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
    found = (ctypes.c_int * count.value)()
    _call("nvrtcGetSupportedArchs", found)
    return list(found)


def compile_source(text, name, *, target, flags=FLAGS):
    """(binary, log) of a source; target: "sm_90" for machine code, "compute_90" for PTX. Errors: CompilationError."""
    program, log = ctypes.c_void_p(), b""
    header = (KERNELS / "common.cuh").read_bytes()
    headers, names = (ctypes.c_char_p * 1)(header), (ctypes.c_char_p * 1)(b"common.cuh")
    _call("nvrtcCreateProgram", ctypes.byref(program), text.encode(), name.encode(), 1, headers, names)
    try:
        options = [f"--gpu-architecture={target}", *flags]
        array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        status = _library().nvrtcCompileProgram(program, len(options), array)
        log = _read(program, "ProgramLog").rstrip(b"\0").decode()
        if status:
            raise CompilationError(log)
        return _read(program, "CUBIN" if target.startswith("sm_") else "PTX"), log
    finally:
        _call("nvrtcDestroyProgram", ctypes.byref(program))


def _read(program, what):
    size = ctypes.c_size_t()
    _call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(f"nvrtcGet{what}", program, buffer)
    return buffer.raw


def resources(path, architecture):
    """(machine code, kernel name -> Resources) of a .cu file."""
    text = path.read_text(encoding="utf-8")
    flags = (*FLAGS, "--ptxas-options=-v")
    binary, log = compile_source(text, path.name, target=f"sm_{architecture}", flags=flags)
    found = {}
    for report in re.split(r"(?=Compiling entry function)", log)[1:]:
        kernel = re.search(r"function '(\w+)'", report)[1]
        spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", report))
        shared = re.search(r"(\d+) bytes smem", report)
        registers = int(re.search(r"Used (\d+) registers", report)[1])
        found[kernel] = Resources(registers, int(shared[1]) if shared else 0, spilled)
    return binary, found


def table():
    """The table of kernels/README.md."""
    lines = [
        "| kernel | " + " | ".join(f"sm_{a}" for a in TABLE_ARCHITECTURES) + " | shared bytes |",
        "|---|" + "---:|" * (len(TABLE_ARCHITECTURES) + 1),
    ]
    for path in sorted(KERNELS.glob("*.cu")):
        of_each = [resources(path, a)[1] for a in TABLE_ARCHITECTURES]
        for kernel in sorted(of_each[0]):
            registers = " | ".join(str(of[kernel].registers) for of in of_each)
            lines.append(f"| `{kernel}` | {registers} | {of_each[0][kernel].shared} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"NVRTC {'.'.join(map(str, version()))}\n\n{table()}\n")
