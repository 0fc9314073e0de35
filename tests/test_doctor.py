"""minidl doctor: what it says of a machine; minidl bench: peers in turns, and one that computes something else."""

import io
import re
import time

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from minidl import bench, cli, doctor

ZEN_5 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model name\t: AMD EPYC 9965
cpu MHz\t\t: 2500.000
flags\t\t: fpu avx avx2 fma avx512f avx512vl avx512_bf16

processor\t: 1
cpu MHz\t\t: 3700.000
"""


def openblas(core_type, threads=2):
    return {
        "user_api": "blas",
        "internal_api": "openblas",
        "version": "0.3.31",
        "architecture": core_type,
        "num_threads": threads,
        "filepath": "numpy.libs/x",
    }


def machine(flags, vendor="GenuineIntel", family=6):
    return doctor.Processor("a processor", vendor, family, frozenset(flags.split()), 2.0, 4)


def printed(run, *arguments, **options):
    file = io.StringIO()
    ok = run(Console(file=file, width=200), *arguments, **options)
    return ok, file.getvalue()


def test_a_processor_is_read_from_cpuinfo():
    cpu = doctor.processor(ZEN_5, 2)
    assert (cpu.name, cpu.vendor, cpu.family, cpu.clock, cpu.cores) == ("AMD EPYC 9965", "AuthenticAMD", 26, 3.7, 2)
    assert cpu.flop_per_cycle == 64
    assert cpu.peak == pytest.approx(2 * 3.7 * 64)
    nothing = doctor.processor("", 3)
    assert (nothing.clock, nothing.peak, nothing.kernels, nothing.cores) == (0.0, 0.0, None, 3)


@pytest.mark.parametrize(
    ("flags", "vendor", "family", "flop", "kernels"),
    [
        ("avx avx2 fma avx512f avx512vl", "GenuineIntel", 6, 64, "SkylakeX"),
        ("avx avx2 fma avx512f avx512vl avx512_bf16", "AuthenticAMD", 25, 32, "Cooperlake"),  # Zen 4: half as wide
        ("avx avx2 fma", "AuthenticAMD", 23, 32, "Zen"),
        ("avx avx2 fma", "GenuineIntel", 6, 32, "Haswell"),
        ("sse2", "GenuineIntel", 6, 8, None),
    ],
)
def test_what_a_core_can_do(flags, vendor, family, flop, kernels):
    cpu = machine(flags, vendor, family)
    assert (cpu.flop_per_cycle, cpu.kernels) == (flop, kernels)


@pytest.mark.parametrize(
    ("flags", "core_type", "better"),
    [
        ("avx2 fma avx512f avx512vl", "Haswell", "SkylakeX"),
        ("avx2 fma avx512f avx512vl", "Cooperlake", None),
        ("avx2 fma", "Nehalem", "Haswell"),
        ("avx2 fma", "Zen", None),
        ("sse2", "Nehalem", None),
    ],
)
def test_kernels_narrower_than_the_processor_are_noticed(flags, core_type, better):
    assert doctor.better_core_type(machine(flags), openblas(core_type)) == better
    assert doctor.better_core_type(machine(flags), {"internal_api": "mkl"}) is None


@pytest.fixture
def a_slow_haswell(monkeypatch):
    """On a processor with AVX-512."""
    pytest.importorskip("rich")
    monkeypatch.setattr(doctor, "this_processor", lambda: doctor.processor(ZEN_5, 2))
    monkeypatch.setattr(doctor, "numpy_blas", lambda: openblas("Haswell"))
    monkeypatch.setattr(doctor, "gemm_speed", lambda: 200.0)
    monkeypatch.setattr(doctor, "gemm_speed_with", lambda core_type: 380.0)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)


def test_a_core_type_that_is_slower_is_a_warning(a_slow_haswell):
    ok, text = printed(doctor.run)
    assert not ok
    assert "OpenBLAS takes this processor for a Haswell" in text
    assert "export OPENBLAS_CORETYPE=Cooperlake" in text
    assert "380 GFLOP/s instead of 200" in text
    assert "474 GFLOP/s = 2 cores × 3.70 GHz × 64 a cycle, of which 42% are reached" in text


def test_one_that_the_environment_asks_for_is_named(a_slow_haswell, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert "OPENBLAS_CORETYPE makes OpenBLAS take this processor for a Haswell" in printed(doctor.run)[1]


@pytest.mark.parametrize("found", [205.0, None])  # not faster; the process failed
def test_one_that_is_not_slower_is_none(a_slow_haswell, monkeypatch, found):
    monkeypatch.setattr(doctor, "gemm_speed_with", lambda core_type: found)
    ok, text = printed(doctor.run)
    assert ok and "nothing to mend" in text


def test_more_threads_than_cores_are_a_warning(a_slow_haswell, monkeypatch):
    monkeypatch.setattr(doctor, "numpy_blas", lambda: openblas("SkylakeX", 16))
    ok, text = printed(doctor.run)
    assert not ok and "16 threads on 2 cores" in text and "OPENBLAS_NUM_THREADS=2" in text


def test_without_threadpoolctl_the_extra_is_named(a_slow_haswell, monkeypatch):
    def missing():
        raise ImportError('threadpoolctl is missing: pip install "minidl[bench]"')

    monkeypatch.setattr(doctor, "numpy_blas", missing)
    ok, text = printed(doctor.run)
    assert not ok and 'pip install "minidl[bench]"' in text


def test_without_cupy_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.gpu()[0] is False
    assert "minidl[gpu12]" in doctor.gpu()[1]


@pytest.mark.parametrize("there, said", [(None, r"minidl\[numba\]"), (object(), r"set_elementwise\(.numba.\)")])
def test_whether_there_is_numba(monkeypatch, there, said):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: there)
    assert re.search(said, doctor.elementwise()) and "elementwise(): numpy" in doctor.elementwise()


def test_the_speed_is_that_of_a_product(monkeypatch):
    ticks = iter(np.arange(100) / 1000)  # a millisecond from one look at the clock to the next
    monkeypatch.setattr(doctor.time, "perf_counter", lambda: next(ticks))
    assert doctor.gemm_speed(8, 3) == pytest.approx(2 * 8**3 / 1e-3 / 1e9)


def test_this_machine(monkeypatch):
    monkeypatch.setattr(doctor, "gemm_speed_with", lambda core_type: None)
    monkeypatch.setattr(doctor, "gemm_speed", lambda: 100.0)
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code in (0, 1), result.output
    assert "NumPy" in result.output and "matrix products" in result.output
    assert doctor.versions()["numpy"] == np.__version__


def test_another_process_measures_too():
    assert doctor.gemm_speed_with("Haswell") > 0


def test_peers_are_timed_in_their_processes():
    case = next(iter(bench.CASES))
    ok, text = printed(bench.run, rounds=2, cases=[case], peers=[bench.FLOOR, "minidl", bench.WITH_NUMBA])
    assert ok
    assert bench.FLOOR in text and re.search("minidl +│", text) and case in text
    assert bench.WITH_NUMBA in text
    assert "1.00 (" in text


def test_a_peer_that_computes_something_else_fails(monkeypatch):
    time = bench.Peer.time

    def another(self, case, seconds):
        time(self, case, seconds)
        if self.name == "minidl, really":
            self.losses[case] = 0.1

    monkeypatch.setitem(bench.PEERS, "minidl, really", ())
    monkeypatch.setattr(bench.Peer, "time", another)
    monkeypatch.setattr(bench.Peer, "__init__", _as_minidl(bench.Peer.__init__))
    case = next(iter(bench.CASES))
    ok, text = printed(bench.run, rounds=1, cases=[case], peers=["minidl", "minidl, really"])
    assert not ok and "not the same" in text


def _as_minidl(plain):
    def init(self, name):
        plain(self, "minidl")
        self.name = name

    return init


def test_a_peer_that_fails_is_named(monkeypatch):
    monkeypatch.setitem(bench.PEERS, "Keras on nothing", ())
    ok, text = printed(bench.run, rounds=1, cases=[next(iter(bench.CASES))], peers=["minidl", "Keras on nothing"])
    assert not ok and "Keras on nothing ended with status 1" in text


def test_one_that_is_not_installed_is_skipped_and_named(monkeypatch):
    monkeypatch.setitem(bench.PEERS, "torch", ("no_such_module",))
    ok, text = printed(bench.run, rounds=1, cases=[next(iter(bench.CASES))], peers=["minidl", "torch"])
    assert ok and "torch: not installed" in text


def test_one_that_takes_too_long_is_left_out_and_named(monkeypatch):
    monkeypatch.setitem(bench.PEERS, "sleeper", ())
    monkeypatch.setattr(bench.Peer, "answer", _never("sleeper", bench.Peer.answer))
    ok, text = printed(bench.run, rounds=1, cases=[next(iter(bench.CASES))], peers=["minidl", "sleeper"])
    assert ok and "sleeper: left out, its start took too long" in text and re.search(r"minidl +│ +1\.00 \(", text)


def _never(name, plain):
    def answer(self, seconds):
        if self.name == name:
            raise bench.TooSlowError
        return plain(self, seconds)

    return answer


def test_a_comparison_ends_in_time_with_what_it_has():
    """Rounds without end are asked for: each case gets its part of the seconds, and the peers that began are shown."""
    cases, start = list(bench.CASES)[:2], time.perf_counter()
    ok, text = printed(bench.run, rounds=10**6, seconds=4.0, cases=cases, peers=[bench.FLOOR, "minidl"])
    assert ok and time.perf_counter() - start < 20
    assert all(case.split()[0] in text for case in cases) and "–" not in text
    ok, text = printed(bench.run, rounds=1, seconds=0.0, peers=["minidl"])
    assert ok and "minidl: left out, its start took too long" in text
