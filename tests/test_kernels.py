"""kernels/*.cu, executed: built by the host's C++ compiler with the shim in cuda_host/ and compared with ops.py.

Compilation for GPUs is tested in cuda_host/test_nvrtc.py.
"""

import functools
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cuda_host import checks, host, walk
from helpers import assert_same

HERE = Path(__file__).parent
SOURCES = sorted(host.KERNELS.glob("*.cu"))
FAULTS = (HERE / "cuda_host" / "faults.cu").read_text(encoding="utf-8")

needs_compiler = pytest.mark.skipif(
    host.compiler() is None or sys.platform == "win32", reason="executing the kernels needs g++ on a POSIX system"
)


@functools.cache
def features():
    return host.build(host.HERE / "features.cu")


# ------------------------------------------------------------------------------------------------- the kernels


@needs_compiler
@pytest.mark.parametrize("dtype", checks.DTYPES)
@pytest.mark.parametrize("check", checks.CHECKS)
def test_kernel_equals_ops(check, dtype):
    checks.CHECKS[check](dtype)


@needs_compiler
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_kernel_is_checked_in_both_dtypes(source):
    text = (HERE / "cuda_host" / "checks.py").read_text(encoding="utf-8")
    kernels = host.build(source).kernels
    names = {name.removesuffix("_float32").removesuffix("_float64") for name in kernels}
    assert set(kernels) == {f"{name}_{dtype}" for name in names for dtype in checks.DTYPES}
    assert [name for name in names if f'"{name}"' not in text] == []


# known-answer vectors of Random123 (kat_vectors: philox4x32 10): counter, key, words
PHILOX = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@needs_compiler
@pytest.mark.parametrize(("counter", "key", "words"), PHILOX)
def test_philox_known_answers(counter, key, words):
    out = host.empty(4, "uint32")
    given = (host.array(counter, np.uint32), host.array(key, np.uint32))
    features().launch("philox_once", (*given, out), grid=1, block=1)
    assert_same(out, np.array(words, np.uint32))


@needs_compiler
@pytest.mark.parametrize("dtype", checks.DTYPES)
def test_the_exponential(dtype, rng):
    """Bit-equal to its twin in NumPy, and at most 5u from the truth.

    r is u·½ ln 2 off and the reduction's own error less; the last product and the last sum round once each, what comes
    before them is multiplied by |r| < 0.35 again and again: (0.35 + 0.35·(1 + 0.35 + …)·2 + 1)·u in all, over a sum of
    at least 0.7, and what TERMS leave out.
    """
    top = {"float32": 110.0, "float64": 760.0}[dtype]
    special = [0.0, 1e-30, 0.34657359, 0.3465736, 87.3, 103.9, 104.0, 104.1, 745.1, 746.0, 1e30, np.inf, np.nan]
    x = np.concatenate([special, rng.uniform(0, 1, 20_000), rng.uniform(0, top, 100_000)]).astype(dtype)
    out, given = host.empty(x.size, dtype), host.array(x)
    features().launch(f"exp_minus_{dtype}", (given, out, x.size), grid=1, block=32)
    assert_same(out, checks.exp_minus(x))
    assert np.isnan(out[len(special) - 1]) and out[len(special) - 2] == 0
    finite = x[np.isfinite(x)]
    with np.errstate(under="ignore"):
        truth = np.exp(-finite.astype(np.longdouble))
    error = np.abs(out[np.isfinite(x)].astype(np.longdouble) - truth)
    assert (error <= 5 * checks.unit(dtype) * truth + float(np.finfo(dtype).smallest_subnormal)).all()


def test_kernels_are_in_the_wheel(tmp_path):
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for path in [*SOURCES, host.KERNELS / "common.cuh"]:
            assert archive.read(f"minidl/kernels/{path.name}") == path.read_bytes()


# ---------------------------------------------------------------------------------------------------- the shim


@needs_compiler
@pytest.mark.parametrize("order", host.ORDERS)
def test_every_thread_has_its_indices(order):
    grid, block = (3, 2, 2), (4, 3, 2)
    out = host.empty((12, 24, 6), np.int32)
    features().launch("indices", (out,), grid=grid, block=block, order=order, seed=3)
    blocks = [(x, y, z) for z in range(2) for y in range(2) for x in range(3)]
    threads = [(x, y, z) for z in range(2) for y in range(3) for x in range(4)]
    assert_same(out, np.array([[(*b, *t) for t in threads] for b in blocks], np.int32))


@needs_compiler
@pytest.mark.parametrize("width", [8, 32])
def test_shuffles(width, rng):
    given, out, lane = host.array(rng.normal(size=32)), host.empty((4, 32), "float64"), np.arange(32)
    features().launch("shuffles", (given, out, width), grid=1, block=32, order="shuffled")
    first = lane // width * width
    up = np.where(lane - 3 >= first, lane - 3, lane)  # beyond the segment: the lane's own value
    down = np.where(lane + 3 < first + width, lane + 3, lane)
    assert_same(out, np.array([given[first + 5], given[up], given[down], given[lane ^ 6]]))


@needs_compiler
def test_halves_of_a_warp_shuffle_by_themselves():
    given, out, lane = host.array(np.arange(100, 132), np.int32), host.empty(32, np.int32), np.arange(32)
    features().launch("halves", (given, out), grid=1, block=32, order="reverse")
    assert_same(out, given[np.where(lane < 16, lane ^ 15, lane ^ 3)])


@needs_compiler
def test_integer_atomics(rng):
    values, counts = host.array(rng.integers(0, 8, 1000), np.int32), host.array(np.zeros(8), np.int32)
    features().launch("histogram", (values, counts, 1000), grid=3, block=64, order="shuffled")
    assert_same(counts, np.bincount(values, minlength=8).astype(np.int32))


@needs_compiler
def test_shared_memory_is_poisoned_before_every_block():
    of_static, of_dynamic = host.array(np.zeros(96, np.float32)), host.array(np.zeros(96))
    features().launch("poison", (of_static, of_dynamic), grid=3, block=32, shared=8 * 32)
    assert np.isnan(of_static).all() and np.isnan(of_dynamic).all()


@needs_compiler
def test_the_portable_context_switch():
    library = host.build(host.HERE / "faults.cu", extra=("-DHOST_UCONTEXT",))
    numbers, out = host.array(np.arange(32, dtype=np.float32)), host.empty(32, "float32")
    library.launch("missing_barrier_control", (numbers, out, 32), grid=1, block=32, order="reverse")
    assert_same(out, numbers[::-1])


@needs_compiler
def test_arguments_are_checked_against_the_signature():
    library = host.build(host.KERNELS / "dropout.cu")
    array, state = host.array(np.ones(4, np.float32)), host.array([1, 2], np.int64)
    launch = functools.partial(library.launch, "dropout_float32", grid=1, block=32)
    launch((array, array, 4, state, 0.5, 0))
    strided, constant = np.ones((4, 2), np.float32)[:, 0], host.array(array)
    constant.flags.writeable = False
    launch((constant, array, 4, state, 0.5, 0))  # inputs are only read
    for arguments, error, message in [
        ((array, array, 4, state, 0.5), TypeError, r"expected 6 arguments \(inputs, outputs, .*\); got 5"),
        ((array, array.astype("float64"), 4, state, 0.5, 0), TypeError, r"outputs is a float\*; got float64"),
        ((array, array, 4, state.astype("int32"), 0.5, 0), TypeError, r"seed_state is a long long\*; got int32"),
        ((array, array, 4.0, state, 0.5, 0), TypeError, "size is a long long; got 4.0"),
        ((array, array, 4, state, 1, 0), TypeError, "rate is a double; got 1"),
        ((array, array, 4, state, 0.5, 2**40), ValueError, "xla is a int, too small"),
        ((array, strided, 4, state, 0.5, 0), ValueError, "outputs: the array must be C-contiguous"),
        ((array, constant, 4, state, 0.5, 0), ValueError, "outputs: .* writable"),
    ]:
        with pytest.raises(error, match=message):
            launch(arguments)


@needs_compiler
def test_the_compilers_errors_show_the_kernels_line(tmp_path):
    source = tmp_path / "broken.cu"
    source.write_text('extern "C" __global__ void broken(float* out) {\n    out[0] = undeclared;\n}\n')
    with pytest.raises(RuntimeError, match=r"broken\.cu:2:.*undeclared"):
        host.build(source)


# --------------------------------------------------------------------------- planted faults that the shim sees


def line_of(fault):
    """The line of faults.cu with the comment FAULT …"""
    (line,) = (n for n, text in enumerate(FAULTS.splitlines(), 1) if f"// FAULT {fault}" in text)
    return f"faults.cu:{line}"


@needs_compiler
@pytest.mark.parametrize("order", host.ORDERS)
@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("half_mask", rf"wrong mask.*{line_of('mask')}"),
        ("lanes_that_left", rf"{line_of('mask')}.*has left the kernel"),
        ("lane_at_barrier", rf"{line_of('mask')}.*thread \(5, 0, 0\) waits in __syncthreads"),
        ("divergent_barrier", rf"not all threads reach one barrier.*{line_of('divergent')}"),
        ("early_exit", rf"not all threads reach one barrier.*{line_of('early exit')}.*has left the kernel"),
    ],
)
def test_the_shim_reports(kernel, message, order):
    with pytest.raises(host.LaunchError, match=message):
        checks.run_fault(kernel, order=order)
    checks.run_fault("half_mask_control")  # and is fit for the next launch
    checks.run_fault("missing_barrier_control")


@needs_compiler
def test_unset_shared_memory_shows_in_the_numbers():
    for order in host.ORDERS:
        out = checks.run_fault("unset_shared", order=order)
        assert np.isnan(out[0]) and not np.isnan(out[1:20]).any()


@needs_compiler
def test_a_missing_barrier_shows_in_the_numbers():
    for order in host.ORDERS:
        assert np.isnan(checks.run_fault("missing_barrier", order=order)[:20]).any()
        assert_same(checks.run_fault("missing_barrier_control", order=order)[:20], np.arange(20, 0, -1, np.float32))


# -------------------------------------------------------------------------------------------------- sanitizers


@functools.cache
def sanitizer_environment(sanitize):
    """Environment for a process under a sanitizer; skips the test where there is none that works."""
    if sys.platform != "linux":
        pytest.skip("the sanitizers' runtimes are preloaded in Linux's way")
    command = [host.compiler(), f"-print-file-name={host.RUNTIMES[sanitize]}"]
    runtime = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(runtime):
        pytest.skip(f"g++ has no {host.RUNTIMES[sanitize]}")
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "halt_on_error=1",
        "PYTHONMALLOC": "malloc",
        "OPENBLAS_NUM_THREADS": "1",
    }
    probe = subprocess.run([sys.executable, "-c", ""], env=environment, capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"the {sanitize} sanitizer does not run on this machine: {probe.stderr.strip()[:200]}")
    return environment


def run_sanitized(sanitize, *kernels):
    """The finished process of checks.py under a sanitizer."""
    environment = sanitizer_environment(sanitize)
    for source in SOURCES:  # here, where the compiler runs without the preloaded runtime
        host.build(source, sanitize)
    checks.faults(sanitize)
    command = [sys.executable, str(HERE / "cuda_host" / "checks.py"), sanitize, *kernels]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@needs_compiler
@pytest.mark.parametrize("sanitize", ["address", "thread"])
def test_kernels_are_clean(sanitize):
    result = run_sanitized(sanitize)
    assert result.returncode == 0, f"after: {result.stdout[-300:]}\n{result.stderr[-6000:]}"
    ran = set(re.findall(r"^(\w+) float", result.stdout, re.MULTILINE))
    assert ran == set(checks.CHECKS)


SEEN_BY = {
    "address": {
        "off_by_one": ("off by one", "heap-buffer-overflow"),
        "shared_off_by_one": ("shared off by one", "out of bounds"),
        "dynamic_off_by_one": ("dynamic off by one", "heap-buffer-overflow"),
        "undefined_shift": ("undefined shift", "shift exponent"),
    },
    "thread": {
        "missing_barrier": ("missing barrier", "data race"),
        "missing_second_barrier": ("missing second barrier", "data race"),
        "race": ("race:", "data race"),
        "race_between_blocks": ("race between blocks", "data race"),
        "shuffle_without_barrier": ("shuffle taken for a barrier", "data race"),
    },
}


@needs_compiler
@pytest.mark.parametrize(("sanitize", "kernel"), [(s, k) for s, of in SEEN_BY.items() for k in of])
def test_a_planted_fault_is_caught(sanitize, kernel):
    fault, message = SEEN_BY[sanitize][kernel]
    result = run_sanitized(sanitize, kernel)
    assert result.returncode != 0, f"{kernel} passed"
    assert message in result.stderr and f"{line_of(fault)}" in result.stderr, result.stderr[-3000:]


@needs_compiler
@pytest.mark.parametrize("sanitize", ["address", "thread"])
def test_the_same_kernels_without_the_fault_pass(sanitize):
    controls = [name for name in checks.faults(None).kernels if name.endswith("_control")]
    assert {f"{name}_control" for of in SEEN_BY.values() for name in of} <= set(controls)
    result = run_sanitized(sanitize, *controls)
    assert result.returncode == 0, result.stderr[-3000:]


@needs_compiler
@pytest.mark.parametrize("dtype", checks.DTYPES)
@pytest.mark.parametrize(("name", "launches"), [("L1 and L2", 18), ("L1, L2 and dropout", 22)])
def test_a_step_of_separate_launches_has_the_bits_of_whole_training(name, launches, dtype):
    with checks.floatx(dtype):
        separate, model = walk.both_ways(name, dtype, 8)
    assert separate.launches == 8 * launches  # as kernels/README.md says
    for got, expected in (
        (model.arena.theta, separate.theta), (model.optimizer.m, separate.m), (model.optimizer.v, separate.v),
    ):  # fmt: skip
        assert_same(got, expected)


# ----------------------------------------------------------------------------- planted faults in train_step.cu

TRAIN_STEP = (host.KERNELS / "train_step.cu").read_text(encoding="utf-8")
BARRIERS = [match.start() for match in re.finditer(r"__syncthreads\(\);", TRAIN_STEP)]
FAULTS_OF_NUMBERS = {
    "one input too many": ("i < stage.inputs; ++i", "i <= stage.inputs; ++i"),
    "one unit too few": ("u < stage.units; ++u", "u < stage.units - 1; ++u"),
    "one row too few": ("b < batch.rows; ++b", "b < batch.rows - 1; ++b"),
    "the first batch again and again": ("rows + start, 0,", "rows, 0,"),
    "the same mask in each step": ("seed_states, step, true, xla)", "seed_states, 0, true, xla)"),
    "another mask in backward": ("seed_states, step, xla)", "seed_states, step + 1, xla)"),
    "dropout at inference": ("seed_states, 0, false, xla)", "seed_states, 0, true, xla)"),
    "TensorFlow's flags for XLA's": ("rate, xla, threadIdx.x", "rate, xla && size < 0, threadIdx.x"),
    "the kernel's penalty on the bias": ("stage.l1[is_bias]", "stage.l1[0]"),
    "the first step's alpha": ("alphas[step]", "alphas[0]"),
    "no derivative of the activation": ("activate_backward(d, below.outputs[e], below.activation)", "d"),
    "one penalty too few": ("i < penalties; ++i", "i < penalties - 1; ++i"),
    "the mean of batches": ("loss += total * static_cast<T>(rows)", "loss += total"),
    "all models are the first": ("theta += model * parameters", "theta += 0 * parameters"),
    "weights that no one writes back": ("theta[i] = weight;", "theta[i] += T(0) * weight;"),
    "the largest class's exponential too": ("if (c != top) tail", "if (c >= 0) tail"),
    "a class's loss without its label": ("loss += y[c] * (log_sum", "loss += (log_sum"),
    "seeds that stay": ("+= step;", "+= 0;"),
    "the weights of other samples": ("sample_weight[row]", "sample_weight[b]"),
    "a gradient without its weight": ("return weighted ?", "return false ?"),
    "decay of the bias too": ("settings[4 + part]", "settings[4]"),
    "the first step's learning rate": ("rates[step]", "rates[0]"),
    "v for the largest v": ("if (rule.amsgrad) amsgrad", "if (rule.clipvalue < T(0)) amsgrad"),
    "no clipping": ("rule.clipvalue > T(0)", "rule.clipvalue < T(0)"),
}  # fmt: skip


def broken_train_step(directory, start, old, new):
    """train_step.cu in a directory, with one occurrence of old at start or behind replaced by new."""
    assert old in TRAIN_STEP[start:], old
    (directory / "train_step.cu").write_text(TRAIN_STEP[:start] + TRAIN_STEP[start:].replace(old, new, 1), "utf-8")


def run_broken_train_step(directory, sanitize):
    """The finished process of its check under a sanitizer."""
    environment = sanitizer_environment(sanitize)
    host.build(directory / "train_step.cu", sanitize)
    command = [sys.executable, str(HERE / "cuda_host" / "checks.py"), sanitize, "train_step", str(directory)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS_OF_NUMBERS)
def test_a_fault_in_whole_training_shows_in_the_numbers(fault, tmp_path, monkeypatch):
    broken_train_step(tmp_path, 0, *FAULTS_OF_NUMBERS[fault])
    monkeypatch.setattr(checks.Kernels, "directory", tmp_path)
    with pytest.raises((AssertionError, FloatingPointError), match=r"differ, first|beyond the budget|loss became nan"):
        checks.check_train_step("float32")


@needs_compiler
@pytest.mark.parametrize(
    "number", [pytest.param(i, marks=() if i == 3 else pytest.mark.slow) for i in range(len(BARRIERS))]
)
def test_each_barrier_of_whole_training_is_missed(number, tmp_path):
    broken_train_step(tmp_path, BARRIERS[number], "__syncthreads();", "")
    result = run_broken_train_step(tmp_path, "thread")
    assert result.returncode != 0, "a missing barrier passed"
    assert "data race" in result.stderr and "train_step.cu" in result.stderr, result.stderr[-3000:]


FAULTS_OF_ADDRESSES = {
    # Plan.shared_bytes counts what the kernel lays out: one number more, and it is beyond the end
    "more shared memory than was asked for": ("batch->y + batch_size * inputs;", "batch->y + 1 + batch_size * inputs;"),
    "a whole last batch": ("samples - start < batch_size ? samples - start : batch_size", "batch_size"),
}


@needs_compiler
@pytest.mark.parametrize("fault", FAULTS_OF_ADDRESSES)
def test_a_wrong_address_in_whole_training_is_seen(fault, tmp_path):
    broken_train_step(tmp_path, 0, *FAULTS_OF_ADDRESSES[fault])
    result = run_broken_train_step(tmp_path, "address")
    assert result.returncode != 0 and "heap-buffer-overflow" in result.stderr, result.stderr[-3000:]
