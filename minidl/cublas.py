"""cuBLAS through ctypes, for the matrix products of a CUDA graph.

CuPy's own cuBLAS refuses to work while a stream is being captured (cupy issue 6290). What a capture needs of the
library is a workspace of the caller's: cublasSetWorkspace, after cublasSetStream, which would put the library's own
back.
Source: the cuBLAS library's documentation, "CUDA Graphs support".
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np

from minidl import cuda

WORKSPACE = 32 * 2**20  # bytes: what NVIDIA recommends for Hopper, and more than older ones ask for

_DEFAULT_MATH, _TF32_MATH = 0, 3  # cublasMath_t
_NORMAL, _TRANSPOSED = 0, 1  # cublasOperation_t
_REALS: dict[str, tuple[str, Any]] = {
    "float32": ("cublasSgemm_v2", ctypes.c_float),
    "float64": ("cublasDgemm_v2", ctypes.c_double),
}


def library_path() -> str:
    """Where libcublas is, as CuPy finds its libraries. Errors: ImportError with what to install."""
    try:
        pathfinder: Any = importlib.import_module("cuda.pathfinder")
        return str(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    except (ImportError, RuntimeError) as error:
        builds = cuda.installed_builds() or ["cupy-cuda12x"]
        raise ImportError(
            f"cuBLAS cannot be loaded. Install it with pip install '{builds[0]}[ctk]', or take minidl's own products: "
            f"minidl.config.set_matmul('kernels').\n{error}"
        ) from error


class Cublas:
    """A handle of the library, for products on one stream.

    path: the library's. stream: a cudaStream_t. workspace: the address of WORKSPACE bytes on the device, which the
    caller keeps as long as this and every graph captured from it. tf32: whether float32 operands may be rounded to
    11 bits, for tensor cores. Errors: ImportError if there is no such library; DeviceError.
    """

    def __init__(self, path: str, *, stream: int, workspace: int, tf32: bool) -> None:
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise ImportError(f"cuBLAS cannot be loaded: {error}") from error
        self._handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        self._call("cublasSetWorkspace_v2", self._handle, ctypes.c_void_p(workspace), ctypes.c_size_t(WORKSPACE))
        self._call("cublasSetMathMode", self._handle, ctypes.c_int(_TF32_MATH if tf32 else _DEFAULT_MATH))

    def matmul(
        self,
        dtype: str,
        pointers: tuple[int, int, int],
        shapes: tuple[tuple[int, int], tuple[int, int]],
        transposed: tuple[bool, bool],
    ) -> None:
        """c = op(a) @ op(b) on C-contiguous arrays: pointers to a, b, c; shapes of a and b as they lie in memory.

        transposed: whether op is the transpose, for a and for b. Returns before it is done.
        The library's arrays lie column by column, so that it reads each of these as its transpose; it is asked for
        cᵀ = op(b)ᵀ @ op(a)ᵀ. Errors: ValueError for shapes that do not fit or are beyond an int; DeviceError.
        """
        a, b, c = pointers
        (m, k), (k_of_b, n) = (shape[::-1] if t else shape for shape, t in zip(shapes, transposed, strict=True))
        if k != k_of_b or max(m, n, k) >= 2**31:
            raise ValueError(f"matmul: shapes {shapes}, transposed {transposed}, do not fit each other or cuBLAS.")
        function, real = _REALS[np.dtype(dtype).name]
        one, zero = real(1), real(0)
        self._call(
            function,
            self._handle,
            *(ctypes.c_int(_TRANSPOSED if t else _NORMAL) for t in reversed(transposed)),
            *(ctypes.c_int(size) for size in (n, m, k)),
            ctypes.byref(one),
            *(ctypes.c_void_p(b), ctypes.c_int(shapes[1][1])),
            *(ctypes.c_void_p(a), ctypes.c_int(shapes[0][1])),
            ctypes.byref(zero),
            *(ctypes.c_void_p(c), ctypes.c_int(n)),
        )

    def close(self) -> None:
        """Give the handle back."""
        if self._handle:
            handle, self._handle = self._handle, ctypes.c_void_p()
            self._call("cublasDestroy_v2", handle)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise cuda.DeviceError(f"{name} failed with status {status} (cublasStatus_t).")
