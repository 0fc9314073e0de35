"""What minidl runs on here, how fast that is, and what to set where it could be faster: the command minidl doctor."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

import minidl
from minidl import config

if TYPE_CHECKING:
    from rich.console import Console

PACKAGES = (
    *(
        "numpy",
        "rich",
        "typer",
        "cupy-cuda12x",
        "cupy-cuda13x",
        "keras",
        "tensorflow",
        "tensorflow-cpu",
        "jax",
        "torch",
    ),
    *("numba", "scikit-learn", "h5py", "safetensors", "matplotlib", "threadpoolctl"),
)
VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_THREAD_TIMEOUT",
)

# OpenBLAS's names of its kernels, by the widest instructions that they use.
AVX512_KERNELS = ("SkylakeX", "Cooperlake", "SapphireRapids")
AVX2_KERNELS = ("Haswell", "Zen", "Excavator")


@dataclass(frozen=True)
class Processor:
    """What /proc/cpuinfo says. clock: in GHz, 0 if unknown. cores: those that this process may use."""

    name: str
    vendor: str
    family: int
    flags: frozenset[str]
    clock: float
    cores: int

    @property
    def lanes(self) -> int:
        """float32 numbers in a vector."""
        return 16 if "avx512f" in self.flags else 8 if "avx2" in self.flags else 4

    @property
    def flop_per_cycle(self) -> int:
        """Of one core, in float32: lanes × 2 for a multiply-add × 2 units, an assumption that holds for most cores.

        AMD's Zen 4 (family 25) takes two cycles for 512 bits. Without FMA: a multiplication and an addition a cycle.
        """
        lanes = min(self.lanes, 8) if (self.vendor, self.family) == ("AuthenticAMD", 25) else self.lanes
        return lanes * 2 * (2 if "fma" in self.flags else 1)

    @property
    def peak(self) -> float:
        """Theoretical GFLOP/s of the cores in float32: cores × clock × flop_per_cycle."""
        return self.cores * self.clock * self.flop_per_cycle

    @property
    def kernels(self) -> str | None:
        """The OpenBLAS core type whose kernels use this processor's widest instructions; None if nothing is known."""
        if "avx512f" in self.flags and "avx512vl" in self.flags:
            return "Cooperlake" if "avx512_bf16" in self.flags else "SkylakeX"
        if "avx2" in self.flags and "fma" in self.flags:
            return "Zen" if self.vendor == "AuthenticAMD" else "Haswell"
        return None


def processor(cpuinfo: str, cores: int) -> Processor:
    """The first processor of the text of /proc/cpuinfo; other systems' empty text gives one of unknown kind."""
    fields = dict(re.findall(r"^([^\t:\n]+?)\s*:[ \t]*(.*)$", cpuinfo.partition("\n\n")[0], re.MULTILINE))
    clocks = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", cpuinfo, re.MULTILINE)]
    return Processor(
        fields.get("model name") or platform.processor() or platform.machine(),
        fields.get("vendor_id", ""),
        int(fields.get("cpu family", 0)),
        frozenset(fields.get("flags", "").split()),
        max(clocks, default=0.0) / 1000,
        cores,
    )


def this_processor() -> Processor:
    """That of this machine."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            text = file.read()
    except OSError:
        text = ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return processor(text, cores)


def better_core_type(cpu: Processor, blas: dict[str, Any]) -> str | None:
    """The core type to set where OpenBLAS chose kernels of narrower instructions than the processor has; else None."""
    if blas.get("internal_api") != "openblas" or cpu.kernels is None:
        return None
    wide = AVX512_KERNELS if cpu.lanes == 16 else AVX512_KERNELS + AVX2_KERNELS
    return None if blas.get("architecture") in wide else cpu.kernels


def numpy_blas() -> dict[str, Any] | None:
    """threadpoolctl's description of the BLAS that NumPy loaded, None if it finds none.

    Errors: ImportError, naming the extra, without threadpoolctl.
    """
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        raise ImportError('threadpoolctl is missing: pip install "minidl[bench]"') from None
    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    own = [info for info in found if "numpy" in info["filepath"]]
    return next(iter(own + found), None)


def gemm_speed(size: int = 1024, rounds: int = 12) -> float:
    """GFLOP/s of a product of two float32 matrices of (size, size), the best of so many rounds."""
    a = np.ones((size, size), np.float32)
    out = np.empty_like(a)
    best = np.inf
    for _ in range(rounds):
        start = time.perf_counter()
        np.matmul(a, a, out)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def gemm_speed_with(core_type: str) -> float | None:
    """gemm_speed in a new process under OPENBLAS_CORETYPE; None if that process failed."""
    found = subprocess.run(
        [sys.executable, "-c", "from minidl import doctor; print(doctor.gemm_speed())"],
        env={**os.environ, "OPENBLAS_CORETYPE": core_type, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    return float(found.stdout) if found.returncode == 0 else None


def versions() -> dict[str, str]:
    """Of minidl, Python and those of PACKAGES that are installed."""
    found = {"minidl": minidl.__version__, "Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def gpu() -> tuple[bool, str]:
    """Whether minidl can compute on a GPU here, and what there is, or what is missing."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            driver = file.readline().strip()
    except OSError:
        driver = ""
    if importlib.util.find_spec("cupy") is None:
        missing = 'CuPy is not installed: pip install "minidl[gpu12]" or "minidl[gpu13]"'
        return False, f"{missing}; {f'NVIDIA driver: {driver}' if driver else 'no NVIDIA driver was found'}"
    try:
        import cupy

        runtime = cupy.cuda.runtime
        names = [runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())]
        return bool(names), f"{', '.join(names)}; CUDA runtime {runtime.runtimeGetVersion()}, driver {driver}"
    except Exception as error:  # CuPy raises errors of its own for a missing driver, library or device
        return False, f"CuPy is installed, but no GPU answers: {error}"


def elementwise() -> str:
    """What computes operations on elements here, and what could."""
    chosen = f"config.elementwise(): {config.elementwise()}"
    if importlib.util.find_spec("numba") is None:
        return f'{chosen}; Numba is not installed: pip install "minidl[numba]"'
    return f'{chosen}; fewer passes over memory: config.set_elementwise("numba")'


def run(console: Console) -> bool:
    """Print it all; whether there is nothing to mend."""
    from rich.markup import escape
    from rich.table import Table

    cpu, warnings = this_processor(), []
    table = Table(title="minidl doctor", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in versions().items()))
    table.add_row("system", platform.platform())
    table.add_row("processor", f"{cpu.name}, {cpu.cores} cores for this process")
    on_gpu, text = gpu()
    table.add_row("array backends", "NumPy" + (", CuPy" if on_gpu else ""))
    table.add_row("GPU", escape(text))
    table.add_row("elementwise", escape(elementwise()))
    speed = gemm_speed()
    try:
        blas = numpy_blas()
    except ImportError as error:
        blas = None
        warnings.append(f"Which BLAS and core type NumPy uses is not known: {error}.")
    if blas is not None:
        table.add_row("BLAS", f"{blas['internal_api']} {blas['version']}, core type {blas.get('architecture')}")
        table.add_row("threads", f"{blas['num_threads']} of the BLAS")
        if blas["num_threads"] > cpu.cores:
            warnings.append(
                f"The BLAS uses {blas['num_threads']} threads on {cpu.cores} cores, where they wait for each other: "
                f"set OPENBLAS_NUM_THREADS={cpu.cores}."
            )
    settings = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    table.add_row("environment", ", ".join(settings) or "none of " + ", ".join(VARIABLES))
    table.add_row("matrix products", f"{speed:.0f} GFLOP/s (float32, 1024 × 1024)")
    if cpu.clock and cpu.flags:
        table.add_row(
            "theoretical peak",
            f"{cpu.peak:.0f} GFLOP/s = {cpu.cores} cores × {cpu.clock:.2f} GHz × {cpu.flop_per_cycle} a cycle, of "
            f"which {speed / cpu.peak:.0%} are reached. Assumed: the clock that the system reports, which may rise "
            f"under load, and two multiply-add units a core.",
        )
    better = None if blas is None else better_core_type(cpu, blas)
    if better is not None and blas is not None:
        there = gemm_speed_with(better)
        if there is not None and there > 1.1 * speed:
            by = "OPENBLAS_CORETYPE makes OpenBLAS take" if os.environ.get("OPENBLAS_CORETYPE") else "OpenBLAS takes"
            warnings.append(
                f"{by} this processor for a {blas['architecture']}: with OPENBLAS_CORETYPE={better} matrix products "
                f"run at {there:.0f} GFLOP/s instead of {speed:.0f}. Set it before Python starts: "
                f"export OPENBLAS_CORETYPE={better}"
            )
    console.print(table)
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    if not warnings:
        console.print("[green]nothing to mend[/]")
    return not warnings
