"""minidl/cuda.py as far as it goes without a GPU: sources, signatures, compilation, checks and messages.

Compilation is by NVRTC through CuPy, or through the package nvidia-cuda-nvrtc-cu12 alone. gpu/test_kernels.py is run
here too, on the host's kernels in the device's place, so that a mistake in the test itself does not wait for a GPU.
"""

import importlib.util
import math
import os
import re
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cuda_host import checks, host, nvrtc
from gpu import test_kernels as on_gpu

from minidl import cuda

ROOT = Path(__file__).parents[1]
HAS_CUPY = importlib.util.find_spec("cupy") is not None

needs_compiler = pytest.mark.skipif(host.compiler() is None or sys.platform == "win32", reason="needs g++ on POSIX")
needs_cupy = pytest.mark.skipif(not HAS_CUPY, reason="CuPy is not installed")


def run_python(program, path=(), **environment):
    """The finished process of a program, minidl and the directories of path in its sys.path."""
    where = os.pathsep.join(map(str, (*path, ROOT)))
    environment = os.environ | {"PYTHONPATH": where} | environment
    command = [sys.executable, "-P", "-c", program]  # -P: the working directory is not in sys.path
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


# -------------------------------------------------------------------------------------------------- sources


def test_sources_of_a_checkout():
    assert cuda.kernel_directory() == ROOT / "kernels"
    assert [path.name for path in cuda.sources()] == sorted(path.name for path in ROOT.glob("kernels/*.cu"))


def test_sources_of_a_wheel(tmp_path):
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = "from minidl import cuda; print(cuda.kernel_directory(), *cuda.kernels(), sep='\\n')"
    result = run_python(program, [tmp_path / "site"])
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(tmp_path / "site" / "minidl" / "kernels"), *cuda.kernels()]


def test_missing_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected common\.cuh in .*Install minidl again"):
        cuda.kernel_directory(tmp_path / "minidl")


@pytest.mark.parametrize("path", cuda.sources(), ids=lambda path: path.stem)
def test_inlined_source_is_all_lines_of_its_files_under_their_numbers(path):
    seen, name, number = {}, None, 0
    for line in cuda.source_text(path).splitlines():
        if place := re.fullmatch(r'#line (\d+) "(.*)"', line):
            name, number = place[2], int(place[1])
        else:
            seen[name, number] = line
            number += 1
    original = {
        (file, number): line
        for file in {name for name, _ in seen}
        for number, line in enumerate((path.parent / file).read_text(encoding="utf-8").splitlines(), 1)
    }
    assert {name for name, _ in seen} == {path.name, "common.cuh"}
    absent = {original[place].split('"')[0].strip() for place in original.keys() - seen.keys()}
    assert absent <= {"#include"}
    changed = {original[place] for place in seen if seen[place] != original[place]}
    assert changed == {"#pragma once"} and seen.keys() <= original.keys()


def test_a_file_included_twice_is_inlined_once(tmp_path):
    (tmp_path / "a.cuh").write_text("#pragma once\nint a;\n")
    (tmp_path / "b.cuh").write_text('#include "a.cuh"\nint b;\n')
    (tmp_path / "c.cu").write_text('#include "a.cuh"\n#include "b.cuh"\nint c;\n')
    lines = [line for line in cuda.source_text(tmp_path / "c.cu").splitlines() if not line.startswith("#") and line]
    assert lines == ["int a;", "int b;", "int c;"]


@pytest.mark.parametrize("include", ['"missing.cuh"', "<cmath>"])
def test_an_include_that_is_not_beside_the_kernel(tmp_path, include):
    (tmp_path / "c.cu").write_text(f"\n# include {include}\n")
    with pytest.raises(cuda.CompilationError, match=r"^c\.cu\(2\): error: cannot include"):
        cuda.source_text(tmp_path / "c.cu")


# ----------------------------------------------------------------------------------------------- signatures


@needs_compiler
@pytest.mark.parametrize("path", cuda.sources(), ids=lambda path: path.stem)
def test_signatures_are_those_that_the_preprocessor_finds(path):
    def plain(parameters):
        return [(p.name, p.type, p.pointer, p.const) for p in parameters]

    expected = {name: plain(of) for name, of in host.signatures(host.preprocess(path)).items()}
    assert {kernel.name: plain(kernel.parameters) for kernel in cuda.read_kernels(path)} == expected
    assert {k.name for k in cuda.read_kernels(path)} == {k.name for k in cuda.kernels().values() if k.path == path}


def test_a_signature():
    assert [str(parameter) for parameter in cuda.kernels()["dropout_float64"].parameters] == [
        "const double* inputs",
        "double* outputs",
        "long long size",
        "const long long* seed_state",
        "double rate",
        "int xla",
    ]
    matmul = cuda.kernels()["matmul_blocked_float32"].parameters  # made by a macro in a macro
    assert [p.dtype.name for p in matmul] == ["float32"] * 3 + ["int64"] * 7


def read(tmp_path, text):
    (tmp_path / "some.cu").write_text(text)
    return cuda.read_kernels(tmp_path / "some.cu")


def test_signatures_of_all_forms(tmp_path):
    text = r"""
// extern "C" __global__ void commented(int n) {}
/* extern "C" __global__ void
   commented_too(int n) {} */
#define OTHER(x) ((x) + 1)
#define BODY(T, s) \
    extern "C" __global__ void __launch_bounds__(256) made_##s(const T* __restrict__ in, T *out) { OTHER(in[0]); }
#define BOTH(s) BODY(float, s##_f) BODY(unsigned char, s##_b)
BOTH(x)
extern "C" __global__ __launch_bounds__(32) void plain(unsigned int n, const bool flag) { int BODYLIKE = OTHER(n); }
extern "C" __global__ void nothing() {}
"""
    found = {kernel.name: [str(p) for p in kernel.parameters] for kernel in read(tmp_path, text)}
    assert found == {
        "made_x_f": ["const float* in", "float* out"],
        "made_x_b": ["const unsigned char* in", "unsigned char* out"],
        "plain": ["unsigned int n", "const bool flag"],
        "nothing": [],
    }


@pytest.mark.parametrize(
    ("declaration", "error", "message"),
    [
        ('extern "C" __global__ void k(Words words) {}', TypeError, "some.cu: k has the parameter 'Words words'"),
        ('extern "C" __global__ void k(float** rows) {}', TypeError, "some.cu: k has the parameter"),
        ("__global__ void k(float* x) {}", ValueError, 'expected each kernel as extern "C"'),
        ('extern "C" __global__ void k() {}\n__global__ void l() {}', ValueError, "could read only k"),
    ],
)
def test_signatures_that_cannot_be_launched(tmp_path, declaration, error, message):
    with pytest.raises(error, match=message):
        read(tmp_path, declaration)


# ---------------------------------------------------------------------------------------------- compilation


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """NVRTC by way of CuPy, or of its package alone; a cache of the test's own. Calls are counted in its list."""
    compiled, compile_source = [], cuda.compile_source
    if not HAS_CUPY:
        if nvrtc.find() is None:
            pytest.skip("needs CuPy or the package nvidia-cuda-nvrtc-cu12")
        monkeypatch.setattr(cuda, "_nvrtc", lambda: types.SimpleNamespace(getVersion=nvrtc.version))

        def compile_source(text, name, architecture):
            return nvrtc.compile_source(text, name, target=f"sm_{architecture}", flags=cuda.FLAGS)[0]

    else:
        try:
            cuda._nvrtc()
        except ImportError as error:
            pytest.skip(str(error))

    def counted(text, name, architecture):
        compiled.append((name, architecture))
        return compile_source(text, name, architecture)

    monkeypatch.setattr(cuda, "compile_source", counted)
    monkeypatch.setenv("MINIDL_CACHE_DIR", str(tmp_path / "cache"))
    cuda.cubin.cache_clear()
    yield compiled
    cuda.cubin.cache_clear()


def test_flags_are_those_that_the_table_of_registers_is_made_with():
    assert cuda.FLAGS == nvrtc.FLAGS


@pytest.mark.parametrize("architecture", [75, 90])
@pytest.mark.parametrize("path", cuda.sources(), ids=lambda path: path.stem)
def test_inlined_sources_compile(path, architecture, compiler):
    code = cuda.cubin(path, architecture)
    assert code.startswith(b"\x7fELF")
    for kernel in cuda.read_kernels(path):
        assert kernel.name.encode() in code


def test_inlining_does_not_change_the_machine_code():
    if nvrtc.find() is None:
        pytest.skip("needs the package nvidia-cuda-nvrtc-cu12")
    for path in cuda.sources():
        included, _ = nvrtc.compile_source(path.read_text(encoding="utf-8"), path.name, target="compute_80")
        inlined, _ = nvrtc.compile_source(cuda.source_text(path), path.name, target="compute_80", flags=cuda.FLAGS)
        assert inlined == included


@pytest.fixture
def kernel(tmp_path):
    """A kernel with a header, in a directory of its own."""
    (tmp_path / "two.cuh").write_text("#pragma once\n\n__device__ inline float two() { return 2.0f; }\n")
    path = tmp_path / "some.cu"
    path.write_text('#include "two.cuh"\n\nextern "C" __global__ void some(float* out) {\n    out[0] = two();\n}\n')
    return path


@pytest.mark.parametrize(("file", "line"), [("some.cu", 4), ("two.cuh", 3)])
def test_a_compilation_error_shows_the_files_own_line(kernel, compiler, file, line):
    broken = kernel.parent / file
    broken.write_text(broken.read_text().replace("2.0f", "undeclared").replace("two();", "undeclared;"))
    where = rf'{re.escape(file)}\({line}\): error: .*"undeclared"'
    with pytest.raises((cuda.CompilationError, nvrtc.CompilationError), match=where):
        cuda.cubin(kernel, 75)


def cached(kernel, architecture):
    """cubin, as in a new process."""
    cuda.cubin.cache_clear()
    return cuda.cubin(kernel, architecture)


def test_a_kernel_is_compiled_once_for_each_architecture(kernel, compiler):
    code = cuda.cubin(kernel, 75)
    assert cuda.cubin(kernel, 75) is code
    assert cached(kernel, 75) == code and compiler == [("some.cu", 75)]
    assert cached(kernel, 80) != code and compiler == [("some.cu", 75), ("some.cu", 80)]
    files = list(Path(os.environ["MINIDL_CACHE_DIR"]).iterdir())
    assert len(files) == 2 and all(re.fullmatch(r"some-[0-9a-f]{64}\.cubin", file.name) for file in files)


@pytest.mark.parametrize("change", ["source", "header", "flags", "version"])
def test_whatever_the_machine_code_depends_on_is_in_the_key(change, kernel, compiler, monkeypatch):
    cuda.cubin(kernel, 75)
    if change == "flags":
        monkeypatch.setattr(cuda, "FLAGS", (*cuda.FLAGS, "--restrict"))
    elif change == "version":
        monkeypatch.setattr(cuda, "_nvrtc", lambda: types.SimpleNamespace(getVersion=lambda: (99, 0)))
        monkeypatch.setattr(cuda, "compile_source", lambda *arguments: compiler.append(arguments) or b"")
    else:
        changed = kernel if change == "source" else kernel.parent / "two.cuh"
        changed.write_text(changed.read_text() + "\n// changed\n")
    cached(kernel, 75)
    assert len(compiler) == 2


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda w: w[::-1]])
def test_a_damaged_cache_file_is_made_again(damage, kernel, compiler):
    code = cuda.cubin(kernel, 75)
    (kept,) = Path(os.environ["MINIDL_CACHE_DIR"]).iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert cached(kernel, 75) == code and len(compiler) == 2
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(kernel, compiler, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE_DIR", str(kernel / "a file is no directory"))
    assert cached(kernel, 75) == cached(kernel, 75)
    assert len(compiler) == 2


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "taken"
    target.mkdir()  # which a file cannot replace
    with pytest.raises(OSError):
        cuda._write_whole(target, b"content")
    assert list(tmp_path.iterdir()) == [target]


def test_cache_directory(monkeypatch, tmp_path):
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    monkeypatch.delenv("MINIDL_CACHE_DIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert cuda.cache_directory() == tmp_path / "minidl" / "cuda"
    monkeypatch.setenv(variable, "relative")
    assert cuda.cache_directory() == Path.home() / ".cache" / "minidl" / "cuda"
    monkeypatch.setenv("MINIDL_CACHE_DIR", str(tmp_path / "mine"))
    assert cuda.cache_directory() == tmp_path / "mine"


def test_architecture():
    known = (75, 80, 86, 90, 100)
    assert [cuda.architecture_for(c, known) for c in (75, 80, 86, 89, 90, 103)] == [75, 80, 86, 86, 90, 100]
    for capability in (70, 120):
        with pytest.raises(cuda.DeviceError, match=f"the device is sm_{capability}; this NVRTC compiles for sm_75, "):
            cuda.architecture_for(capability, known)


@needs_cupy
def test_errors_of_compilation_through_cupy(compiler):
    with pytest.raises(cuda.CompilationError, match=r'(?s)^k\.cu does not compile for sm_90.*k\.cu\(2\): error: .*"y"'):
        cuda.compile_source('\nextern "C" __global__ void k(float* x) { x[0] = y; }', "k.cu", 90)


# ---------------------------------------------------------------------------------------- the checks of launch


DROPOUT = (None, None, 4, None, 0.5, 0)  # null pointers: what is refused is refused before any of them is used


def with_argument(position, value):
    return (*DROPOUT[:position], value, *DROPOUT[position + 1 :])


@pytest.mark.parametrize(
    ("position", "value", "error", "message"),
    [
        (0, np.ones(4, np.float32), TypeError, r"^host array given to a device kernel: dropout_float32: inputs is"),
        (0, np.ones(4, np.float32), TypeError, r"got a NumPy array of float32 with shape \(4,\).*cupy\.asarray"),
        (3, [1, 2], TypeError, r"^host array given .*: seed_state is long long\* on the device; got \[1, 2\]"),
        (1, np.float32(1), TypeError, r"^host array given .*outputs is float\*"),
        (1, 140000000000, TypeError, r"outputs is float\* on the device; got 140000000000 of type int"),
        (2, 4.0, TypeError, r"size is one long long; got the float 4\.0. Pass an int"),
        (2, np.float64(4), TypeError, "size is one long long; got the float"),
        (2, "4", TypeError, "size is one long long; got '4' of type str"),
        (2, None, TypeError, "size is one long long; got None"),
        (2, np.array(4), TypeError, r"size is one long long; got a NumPy array of int64 with shape \(\)"),
        (2, 2**63, ValueError, "size is one long long, which holds -9223372036854775808 … 9223372036854775807"),
        (5, 2**31, ValueError, "xla is one int, which holds -2147483648 … 2147483647; got 2147483648"),
        (5, np.int64(-(2**31) - 1), ValueError, "xla is one int"),
        (4, True, TypeError, "rate is one double; got True of type bool"),
        (4, np.True_, TypeError, "rate is one double"),
        (4, 0.5j, TypeError, "rate is one double"),
        (4, 2**53 + 1, ValueError, "rate is one double, which cannot hold 9007199254740993 exactly"),
        pytest.param(4, 10**400, ValueError, "cannot hold 10*: it would become inf", id="huge"),
    ],
)
def test_an_argument_that_does_not_fit(position, value, error, message):
    with pytest.raises(error, match=message):
        cuda.launch("dropout_float32", 1, 32, *with_argument(position, value))


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("int", 7, np.int32(7)),
        ("int", True, np.int32(1)),
        ("int", np.int64(-(2**31)), np.int32(-(2**31))),
        ("unsigned int", 2**32 - 1, np.uint32(2**32 - 1)),
        ("long long", -(2**63), np.int64(-(2**63))),
        ("unsigned long long", 2**64 - 1, np.uint64(2**64 - 1)),
        ("unsigned char", 255, np.uint8(255)),
        ("bool", 1, np.bool_(True)),
        ("double", 0.1, np.float64(0.1)),
        ("double", np.float32(0.1), np.float64(np.float32(0.1))),
        ("double", 3, np.float64(3)),
        ("float", 0.1, np.float32(0.1)),
        ("float", math.inf, np.float32(math.inf)),
        ("float", -0.0, np.float32(-0.0)),
    ],
)
def test_a_number_becomes_just_the_declared_type(type_, value, expected):
    parameter = cuda.Parameter("x", type_, cuda._TYPES[type_], False, False)
    got = cuda._number("k", parameter, value)
    assert type(got) is type(expected) and got.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("float", 1e39),
        ("float", 1e-60),
        ("float", 2**24 + 1),
        ("unsigned int", -1),
        ("unsigned char", 256),
        ("bool", 2),
        ("unsigned long long", 2**64),
    ],
)
def test_a_number_beyond_the_declared_type(type_, value):
    with pytest.raises(ValueError, match=f"k: x is one {type_}, which"):
        cuda._number("k", cuda.Parameter("x", type_, cuda._TYPES[type_], False, False), value)


def test_not_a_number_stays_one():
    parameter = cuda.Parameter("x", "float", cuda._TYPES["float"], False, False)
    assert np.isnan(cuda._number("k", parameter, math.nan))


def test_none_is_a_null_pointer():
    got = cuda._pointer("k", cuda.kernels()["dropout_float32"].parameters[0], None)
    assert type(got) is np.uint64 and got == 0  # CuPy would hand the driver no argument for None, which is a fault


@pytest.mark.parametrize(
    ("name", "grid", "block", "arguments", "shared", "error", "message"),
    [
        ("dropuot_float32", 1, 32, DROPOUT, 0, ValueError, "Unknown kernel: 'dropuot_float32'. Did you mean 'dropout_"),
        (None, 1, 32, DROPOUT, 0, ValueError, "Unknown kernel: None"),
        ("dropout_float32", 1, 32, DROPOUT[:-1], 0, TypeError, r"expected 6 arguments \(const float\* in.*; got 5"),
        ("dropout_float32", 1, 32, (*DROPOUT, 1), 0, TypeError, "got 7"),
        ("dropout_float32", 1, 1025, DROPOUT, 0, ValueError, r"block must be .* at most \(1024, 1024, 64\)"),
        ("dropout_float32", 1, (32, 33), DROPOUT, 0, ValueError, "at most 1024 threads.*1056 threads"),
        ("dropout_float32", 1, (1, 1, 65), DROPOUT, 0, ValueError, "block must be"),
        ("dropout_float32", 1, 0, DROPOUT, 0, ValueError, "block must be at least 1"),
        ("dropout_float32", 0, 32, DROPOUT, 0, ValueError, "grid must be at least 1"),
        ("dropout_float32", (1, 2**16), 32, DROPOUT, 0, ValueError, "grid must be at least 1 and at most"),
        ("dropout_float32", 1.0, 32, DROPOUT, 0, TypeError, r"grid must be an int or up to three of them; got 1\.0"),
        ("dropout_float32", (1, 1, 1, 1), 32, DROPOUT, 0, TypeError, "grid must be"),
        ("dropout_float32", (), 32, DROPOUT, 0, TypeError, "grid must be"),
        ("dropout_float32", 1, True, DROPOUT, 0, TypeError, "block must be"),
        ("dropout_float32", 1, 32, DROPOUT, -1, ValueError, "shared must be"),
        ("dropout_float32", 1, 32, DROPOUT, 0.5, ValueError, "shared must be"),
    ],
)
def test_a_launch_that_cannot_be(name, grid, block, arguments, shared, error, message):
    with pytest.raises(error, match=message):
        cuda.launch(name, grid, block, *arguments, shared=shared)


@pytest.mark.skipif(cuda.unavailable() is None, reason="would launch on null pointers: there is a GPU")
def test_a_launch_that_fits_fails_for_want_of_a_device_only():
    for grid, block in [(1, 32), (np.int64(2), (32, 32)), ((1, 2, 3), [4, 4, 64])]:
        with pytest.raises((ImportError, cuda.DeviceError)) as raised:
            cuda.launch("dropout_float32", grid, block, *DROPOUT)
        assert str(raised.value) == cuda.unavailable()


ARRAY = np.ones((4, 2), np.float32)
STATE = np.array([1, 2])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (ARRAY, ARRAY, STATE, 0.5),
            TypeError,
            "host array given to a device kernel: dropout_backward_float32: d_outputs",
        ),
        ((ARRAY, ARRAY, STATE, 1.5), ValueError, r"rate must be in \[0, 1\]; got 1\.5. rate is the fraction dropped"),
        ((ARRAY, ARRAY, STATE, math.nan), ValueError, "rate must be in"),
        ((ARRAY, ARRAY, STATE, "0.5"), ValueError, "rate must be in"),
        ((ARRAY, ARRAY[:3], STATE, 0.5), ValueError, r"outputs must be an array of shape \(4, 2\); got a NumPy array"),
        ((ARRAY, None, STATE, 0.5), ValueError, r"outputs must be an array of shape \(4, 2\); got None"),
        ((ARRAY, ARRAY, STATE[:1], 0.5), ValueError, r"seed_state must be an array of shape \(2,\)"),
        ((ARRAY.astype("int32"), ARRAY, STATE, 0.5), TypeError, "inputs must be a CuPy array of float32 or float64"),
        (([1.0], ARRAY, STATE, 0.5), TypeError, "inputs must be a CuPy array"),
    ],
)
def test_dropout_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        cuda.dropout(*arguments, backward=True)


def device_array(cupy, array, device=0):
    """A CuPy array, its memory the host's: for checks that never touch the memory."""
    memory = cupy.cuda.UnownedMemory(array.ctypes.data, array.nbytes, array, device)
    return cupy.ndarray(array.shape, array.dtype, cupy.cuda.MemoryPointer(memory, 0))


@needs_cupy
def test_device_arrays_are_checked_against_the_signature():
    cupy = cuda.import_cupy()
    good, state = device_array(cupy, ARRAY), device_array(cupy, STATE)
    assert cuda.is_device_array(good) and not cuda.is_device_array(ARRAY)
    double = device_array(cupy, ARRAY.astype("float64"))
    for arguments, error, message in [
        ((double, good, 8, state, 0.5, 0), TypeError, "inputs is float.*of float32; got a CuPy array of float64"),
        ((good, good, 8, good, 0.5, 0), TypeError, "seed_state is long long.*expected a CuPy array of int64"),
        ((good[:, 0], good, 4, state, 0.5, 0), ValueError, r"inputs .*must be C-contiguous; got .* strides \(8,\)"),
        ((good, good.T, 8, state, 0.5, 0), ValueError, "outputs .*must be C-contiguous"),
        ((good, good, good, state, 0.5, 0), TypeError, "size is one long long; got a CuPy array"),
        ((good, ARRAY, 8, state, 0.5, 0), TypeError, "host array given to a device kernel: dropout_float32: outputs"),
    ]:
        with pytest.raises(error, match=message):
            cuda.launch("dropout_float32", 1, 32, *arguments)
    with pytest.raises(TypeError, match="expected a CuPy array of int64"):
        cuda.dropout(good, good, device_array(cupy, STATE.astype("float64")), 0.5)
    parameter = cuda.kernels()["dropout_float32"].parameters[0]
    assert cuda._pointer("k", parameter, good) == np.uint64(ARRAY.ctypes.data)


@needs_cupy
@pytest.mark.filterwarnings("ignore:ExternalStream is deprecated")  # its successor needs a driver
def test_arrays_and_stream_are_of_the_current_device():
    cupy, kernel = cuda.import_cupy(), cuda.kernels()["penalty_total_float32"]
    here, there = device_array(cupy, ARRAY), device_array(cupy, ARRAY, device=1)
    cuda._check_device(cupy, kernel, (here, None, 8), cupy.cuda.Stream.null, 0)
    cuda._check_device(cupy, kernel, (there, there, 8), cupy.cuda.ExternalStream(0, 1), 1)
    with pytest.raises(ValueError, match="total is on device 1, the current one is 0"):
        cuda._check_device(cupy, kernel, (here, there, 8), None, 0)
    with pytest.raises(ValueError, match="the stream is of device 1, the current one is 0"):
        cuda._check_device(cupy, kernel, (here, here, 8), cupy.cuda.ExternalStream(0, 1), 0)
    with pytest.raises(TypeError, match=r"stream must be a cupy\.cuda\.Stream or None; got 0"):
        cuda._check_device(cupy, kernel, (here, here, 8), 0, 0)


@needs_cupy
@pytest.mark.skipif(cuda.unavailable() is None, reason="would launch on the host's memory: there is a GPU")
def test_dropout_that_fits_fails_for_want_of_a_device_only():
    cupy = cuda.import_cupy()
    good, state = device_array(cupy, ARRAY), device_array(cupy, STATE)
    for xla, backward in [(False, False), (True, True)]:
        with pytest.raises(cuda.DeviceError, match=r"^no CUDA device answers|^the NVIDIA driver is too old"):
            cuda.dropout(good, good, state, 0.5, xla=xla, backward=backward)


def test_blocks():
    assert [cuda.blocks_for(n) for n in (0, 1, 256, 257, 10**9)] == [1, 1, 1, 2, 4096]


# ------------------------------------------------------------------------------- CuPy, device, driver, memory


LAUNCH = "cuda.launch('dropout_float32', 1, 32, None, None, 4, None, 0.5, 0)"


def test_without_cupy():
    program = f"import sys; sys.modules['cupy'] = None\nfrom minidl import cuda\nprint(cuda.unavailable())\n{LAUNCH}"
    result = run_python(program)
    message = "CuPy is not installed, and the GPU needs it: pip install 'minidl[gpu12]' (driver for CUDA 12) or 'minidl"
    assert result.stdout.startswith(message) and "'minidl[gpu13]'" in result.stdout
    assert f"ModuleNotFoundError: {message}" in result.stderr


def test_importing_the_launcher_and_reading_the_kernels_does_not_import_cupy():
    result = run_python("import sys; from minidl import cuda; cuda.kernels(); print('cupy' in sys.modules)")
    assert result.stdout == "False\n", result.stderr


def install(directory, *names):
    """Folders such as pip leaves for installed distributions."""
    for name in names:
        folder = directory / f"{name.replace('-', '_')}-14.0.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 14.0.0\n")
    return directory


def test_installed_builds(tmp_path):
    install(tmp_path, "cupy-cuda12x", "cupy_cuda13x", "cupy", "cupy-rocm-7-0", "amd-cupy", "cupy-xarray", "numpy")
    found = cuda.installed_builds([str(tmp_path)])
    assert found == ["amd-cupy", "cupy", "cupy-cuda12x", "cupy-cuda13x", "cupy-rocm-7-0"]
    assert cuda.installed_builds([str(install(tmp_path / "none"))]) == []


def test_two_builds_of_cupy(tmp_path):
    result = run_python(f"from minidl import cuda\n{LAUNCH}", [install(tmp_path, "cupy-cuda12x", "cupy-cuda13x")])
    message = "ImportError: expected one build of CuPy; found 2: cupy-cuda12x, cupy-cuda13x."
    assert message in result.stderr and "pip uninstall cupy-cuda12x cupy-cuda13x" in result.stderr
    cuda.refuse_two_builds(["cupy-cuda12x"])
    cuda.refuse_two_builds([])


def test_a_cupy_that_cannot_be_loaded(tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')\n")
    result = run_python(f"from minidl import cuda\n{LAUNCH}", [tmp_path])
    assert "ImportError: CuPy is installed but cannot be loaded" in result.stderr
    assert "libcudart.so.12: cannot open" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("status", "said", "driver", "runtime", "message"),
    [
        (35, "cudaErrorInsufficientDriver: …", 0, 12090, "^no CUDA device answers: no NVIDIA driver is loaded"),
        (
            35,
            "cudaErrorInsufficientDriver: …",
            11080,
            12090,
            r"^the NVIDIA driver is too old: it knows CUDA 11\.8, .* 12",
        ),
        (
            35,
            "cudaErrorInsufficientDriver: …",
            12040,
            13000,
            r"too old: it knows CUDA 12\.4, and this CuPy needs CUDA 13",
        ),
        (
            100,
            "cudaErrorNoDevice: none",
            12090,
            12090,
            "^no CUDA device answers: cudaErrorNoDevice: none. See what nvid",
        ),
        (0, "", 12090, 12090, "^no CUDA device answers: the driver finds none"),
    ],
)
def test_why_no_device_answers(status, said, driver, runtime, message):
    assert re.search(message, cuda.device_problem(status, said, driver, runtime))


def test_memory_errors_of_others_pass():
    for error in (MemoryError("numpy's"), ValueError("out of memory")):
        with pytest.raises(type(error)) as raised, cuda.clear_memory_errors("copying the data"):
            raise error
        assert raised.value is error


@needs_cupy
def test_out_of_device_memory():
    cupy = cuda.import_cupy()
    runtime, driver = (importlib.import_module(f"cupy_backends.cuda.api.{name}") for name in ("runtime", "driver"))
    for error in (
        cupy.cuda.memory.OutOfMemoryError(2**40, 2**30),
        runtime.CUDARuntimeError(2),
    ):
        message = (
            "^out of device memory while copying the data: .*[^.]. What failed has changed nothing: the model is whole"
        )
        with pytest.raises(cuda.DeviceMemoryError, match=message), cuda.clear_memory_errors("copying the data"):
            raise error
    with pytest.raises(runtime.CUDARuntimeError), cuda.clear_memory_errors("copying the data"):
        raise runtime.CUDARuntimeError(1)
    assert issubclass(cuda.DeviceMemoryError, MemoryError) and driver


# ---------------------------------------------------------- the tests for a GPU, with the host in the GPU's place


class OnHost(on_gpu.DeviceKernels):
    """Sends to copies on the host and launches the host's build: what it does not replace is what runs on a GPU."""

    def send(self, array):
        return host.array(array)

    def fetch(self, array):
        return array.copy()

    def launch(self, name, grid, block, arguments, shared):
        host.build(cuda.kernels()[name].path).launch(name, arguments, grid=grid, block=block, shared=shared)


class OpsOnHost(on_gpu.DeviceOps):
    def send(self, array):
        return array.copy()

    def fetch(self, value):
        return value.copy() if isinstance(value, np.ndarray) else value


@needs_compiler
@pytest.mark.parametrize("dtype", checks.DTYPES)
@pytest.mark.parametrize("check", checks.CHECKS)
def test_checks_pass_through_the_runner_for_the_gpu(check, dtype, monkeypatch):
    monkeypatch.setattr(checks, "Kernels", OnHost)
    monkeypatch.setattr(checks, "ops", OpsOnHost())
    checks.CHECKS[check](dtype)


@needs_compiler
def test_the_runner_for_the_gpu_lets_no_wrong_alpha_pass():
    def launch(self, name, grid, block, arguments, shared):
        OnHost.launch(self, name, grid, block, arguments, shared)
        arguments[1][0] *= 1 + 1e-11

    wrong = type("Wrong", (OnHost,), {"launch": launch})("adam", "float64", None)
    with pytest.raises(AssertionError, match="alpha: 1 of 1 beyond the budget"):
        which = host.array([0.02, 0.01]), host.array([1], np.int64)
        wrong("adam_alpha", host.array([0], np.int64), host.empty(1, "float64"), *which, 0.9, 0.999, grid=1, block=32)


@pytest.mark.skipif(cuda.unavailable() is None, reason="there is a GPU")
def test_without_a_gpu_its_tests_say_why_they_are_skipped():
    reason = cuda.unavailable()
    assert reason == on_gpu.REASON
    kinds = "CuPy is not installed|no CUDA device answers|the NVIDIA driver is too old|CUDA's compiler library|CuPy is"
    assert re.match(kinds, reason)
