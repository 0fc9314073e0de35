"""The benchmarks' own logic: what is judged to be the same computation, tables and figures from results, skips."""

import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minidl import cuda

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OWN = ("networks", "verify", "pool", "peers", "report", "figures", "on_gpu", "step_profile")


@pytest.fixture(scope="module")
def bench():
    """The modules of benchmarks/, which import each other by their names alone."""
    import importlib
    from types import SimpleNamespace

    sys.path.insert(0, str(BENCHMARKS))
    try:
        found = SimpleNamespace(**{name: importlib.import_module(name) for name in OWN})
        yield found
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
            del sys.modules[name]


def float32_steps(case, steps, *, masks=None, change=None):
    """The weights before the first and after each step of a plain float32 training; change: what is done wrongly."""
    f, (x, y) = np.float32, case.data()
    weights = case.weights()
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    states = [[w.copy() for w in weights]]
    for t in range(1, steps + 1):
        rows = case.rows(t - 1)
        inputs, kept = [x[rows]], []
        for i in range(len(case.layers)):
            z = inputs[-1] @ weights[2 * i] + (0 if change == "no bias" else weights[2 * i + 1])
            if i < len(case.layers) - 1:
                keep = f(1) if masks is None or not case.rate(i) else masks(z.shape, i).astype(f) / f(1 - case.rate(i))
                kept.append(keep)
                z = np.maximum(z, 0) * keep
            inputs.append(z)
        d = (1 / (1 + np.exp(-inputs[-1])) - y[rows]) / f(case.batch)
        gradients = []
        for i in reversed(range(len(case.layers))):
            l1, l2 = case.penalties(i)
            kernel = weights[2 * i]
            left = inputs[i].T
            if change == "11 bits":
                left, d = (a.astype(np.float16).astype(f) for a in (left, d))
            penalty = f(l1) * np.sign(kernel) + f(2 * l2) * kernel
            gradients += [d.sum(axis=0), left @ d + (0 if change == "no penalty" else penalty)]
            if i:
                d = (d @ kernel.T) * (inputs[i] > 0) * kept[i - 1]
        gradients.reverse()
        power = t + (change == "correction a step late")
        alpha = f(1e-3 * np.sqrt(1 - 0.999**power) / (1 - 0.9**power)) * f(1.01 if change == "1 % faster" else 1)
        for w, g, a, b in zip(weights, gradients, m, v, strict=True):
            if change == "ε inside the root":
                g = g + 0
            a += f(0.1) * (g - a)
            b += f(0.001) * (g * g - b)
            root = np.sqrt(b + f(1e-7)) if change == "ε inside the root" else np.sqrt(b) + f(1e-7)
            w -= alpha * a / root
        states.append([w.copy() for w in weights])
    return states


def judge(bench, case, states):
    lockstep = bench.verify.Lockstep(case)
    return max(lockstep.check(before, after) for before, after in itertools.pairwise(states))


@pytest.mark.parametrize("name", ["A", "B", "C"])
@pytest.mark.parametrize("notebook", [False, True])
def test_a_right_training_is_accepted(bench, name, notebook):
    case = bench.networks.CASES[name]
    case = (case.notebook() if notebook else case).without_dropout()
    assert judge(bench, case, float32_steps(case, 3)) < 1


FAULTS = ["no bias", "correction a step late", "1 % faster", "ε inside the root", "11 bits"]


@pytest.mark.parametrize("change", [*FAULTS, "no penalty"])
def test_a_peer_that_computes_something_else_fails(bench, change):
    case = bench.networks.CASES["B"]
    case = replace(case, l1=0.1, l2=0.1) if change == "no penalty" else case
    with pytest.raises(bench.verify.Wrong, match="The peer computed something else"):
        judge(bench, case, float32_steps(case, 3, change=change))


def test_not_a_number_and_another_dtype_fail(bench):
    case = bench.networks.CASES["A"]
    before, after = float32_steps(case, 1)
    with pytest.raises(bench.verify.Wrong, match="should be float32"):
        judge(bench, case, [before, [w.astype(np.float64) for w in after]])
    after[3][1] = np.nan
    with pytest.raises(bench.verify.Wrong):
        judge(bench, case, [before, after])


def masks_of(keep):
    rng = np.random.default_rng(4)
    return lambda shape, layer: rng.random(shape) < keep[layer]


def test_dropped_units_are_found_out(bench):
    case = bench.networks.MASKS
    bench.verify.check_masks(case, float32_steps(case, 12, masks=masks_of((0.2, 0.5))))
    with pytest.raises(bench.verify.Wrong, match="dropout 1 kept"):  # the rate taken for what is kept
        bench.verify.check_masks(case, float32_steps(case, 12, masks=masks_of((0.8, 0.5))))
    with pytest.raises(bench.verify.Wrong, match="dropout 2 kept"):  # no dropout there, but the scale
        bench.verify.check_masks(case, float32_steps(case, 12, masks=masks_of((0.2, 1.0))))
    without_scale = replace(case, rates=(0.8, 0.0))
    with pytest.raises(bench.verify.Wrong, match="no choice of dropped units"):
        bench.verify.check_masks(case, float32_steps(without_scale, 12, masks=masks_of((0.2, 0.5))))


def test_a_whole_run_is_compared_within_what_rounding_explains(bench):
    case = bench.networks.CASES["A"]
    x, y = case.data()
    steps = [(x[case.rows(i)], y[case.rows(i)]) for i in range(30)]
    right = float32_steps(case, 30)[-1]
    assert bench.verify.check_run(case, steps, case.weights(), right) < 1
    with pytest.raises(bench.verify.Wrong, match="after 30 steps"):
        bench.verify.check_run(case, steps, case.weights(), float32_steps(case, 29)[-1])


def test_outputs_and_products_are_verified(bench):
    case = bench.networks.CASES["A"]
    x, weights = case.data()[0][:9], case.weights()
    z = bench.verify.forward(case, weights, x)[-1][1]
    outputs = (1 / (1 + np.exp(-z))).astype(np.float32)
    bench.verify.check_outputs(case, weights, x, outputs)
    with pytest.raises(bench.verify.Wrong):
        bench.verify.check_outputs(case, weights, x, outputs + np.float32(1e-5))
    product = (x, weights[0], x @ weights[0])
    assert bench.pool.check_products([product]) < 1
    with pytest.raises(bench.verify.Wrong):
        bench.pool.check_products([(*product[:2], product[2] + np.float32(1e-5))])


def test_a_worker_measures_minidl_and_says_what_failed(bench):
    workers = bench.pool.Pool(1)
    try:
        (worker,) = workers.start(["minidl fit"]).values()
        worker.resume()
        case = bench.networks.CASES["A"].notebook()
        assert 0 < bench.pool.check_steps(worker, case) < 1
        tasks = {"minidl": (worker, bench.pool.step_task(worker, case, round_seconds=0.01))}
        samples = bench.pool.interleaved(tasks, rounds=5, seconds=0.0)
        assert len(samples["minidl"]) == 3 and 0 < min(samples["minidl"]) < 0.1
        worker.resume()
        assert worker.about["versions"]["numpy"] == np.__version__
        with pytest.raises(RuntimeError, match=r"minidl fit: (.|\n)*TypeError"):
            worker.ask("run", "ten")
        assert worker.ask("chunk") == case.batches  # and goes on
    finally:
        workers.close()


def test_a_worker_has_so_many_threads_and_no_forced_core_type(bench, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    environment = bench.pool.environment(3, {"KERAS_BACKEND": "jax"})
    assert "OPENBLAS_CORETYPE" not in environment and environment["KERAS_BACKEND"] == "jax"
    assert {environment[name] for name in bench.pool.LIMITS} == {"3"}


def test_what_is_not_installed_is_named(bench):
    entry = bench.peers.Entry("torch_step", needs=("no_such_library",))
    assert entry.missing() == "no_such_library is not installed (pip install no_such_library)"
    assert bench.peers.Entry("floor", needs=("numpy",)).missing() is None


# --------------------------------------------------------------------------------------- tables and figures


def raw_results(bench):
    """pytest-benchmark's JSON of two networks, two cold starts and three widths."""

    def row(suite, group, name, median, **extra):
        stats = {"rounds": 5, "median": median, "q1": median * 0.9, "q3": median * 1.1, "min": median * 0.8}
        about = {"versions": {"jax": "9.9"}, "blas": "openblas 1.2.3 Zen, 2 threads"}
        return {
            "fullname": f"/SECRET/benchmarks/test_{suite}.py::test[{name}]",
            "name": "test",
            "group": group,
            "params": {"name": name},
            "stats": stats,
            "extra_info": {"name": name, "about": about, **extra},
        }

    floor, rows = bench.peers.FLOOR, []
    for group, flop, base in (("A 4-4-4-1, batch 32", 1e3, 1e-5), ("C 784-256-128-1, batch 128", 1e8, 1e-3)):
        for name, ratio in ((floor, 1), ("minidl fit", 1.25), ("JAX, lax.scan", 12)):
            rows.append(row("step", group, name, base * ratio, flop=flop, parameters=9))
    rows.append(row("cold_start", "cold", "minidl fit", 0.5, peak_bytes=50 * 2**20))
    rows.append(row("cold_start", "cold", "Keras on JAX, fit", 5.0, peak_bytes=500 * 2**20))
    for size in (8, 16, 32, 64):
        median, flop = 1e-6 * size**1.5, 100 * size**2
        rows.append(row("growth", f"width {size}", floor, median, axis="width", size=size, flop=flop))
    return {
        "machine_info": {"node": "SECRET", "python_version": "3.11.9", "cpu": {"brand_raw": "A processor"}},
        "commit_info": {"id": "0123456789abcdef", "dirty": False},
        "datetime": "2026-01-02T03:04:05+00:00",
        "threads": 2,
        "benchmarks": rows,
        "skipped": [
            {
                "suite": "step",
                "group": "A 4-4-4-1, batch 32",
                "name": "torch, eager",
                "reason": "torch is not installed",
            },
            {"suite": "growth", "group": "width 128", "name": floor, "reason": "a step would take over 0.5 s"},
        ],
    }


def test_tables_from_a_small_json(bench):
    kept = bench.report.summary(raw_results(bench))
    assert sorted(kept) == ["cold_start", "growth", "step"] and "SECRET" not in str(kept)
    about = kept["step"]["about"]
    assert about["versions"]["jax"] == "9.9" and about["blas"]["minidl fit"] == "openblas 1.2.3 Zen, 2 threads"
    step = bench.report.tables("step", kept["step"])
    assert "OpenBLAS for Zen" in step and "2 threads" in step
    assert "| minidl fit | 1.25 | 1.25 ms | 1.12 ms – 1.38 ms | 5 |" in step
    assert "| torch, eager | – | torch is not installed | | |" in step
    assert "| minidl fit | 1.00 | 500 ms | 450 ms – 550 ms | 5 | 50 MiB |" in bench.report.tables(
        "x", kept["cold_start"]
    )
    growth = bench.report.tables("growth", kept["growth"])
    assert "1.50 of 2.00" in growth and "Left out from width 128: a step would take over 0.5 s." in growth


def test_the_comparison_of_the_readme(bench):
    text = bench.report.comparison(bench.report.summary(raw_results(bench)))
    assert "| minidl fit | 1.25 | 1.25 |" in text and "| JAX, lax.scan | 12 | 12 |" in text
    assert f"| {bench.peers.FLOOR} | 1 = 10 µs | 1 = 1 ms |" in text
    assert "| torch, eager | not installed | – |" in text
    assert "| Keras on JAX, fit | 10 | 5 s | 500 MiB |" in text


def test_figures_are_drawn(bench, tmp_path):
    pytest.importorskip("matplotlib")
    kept = bench.report.summary(raw_results(bench))
    bench.figures.draw_all(kept, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"step.png", "growth.png"}
    panels = bench.figures.steps(kept["step"]).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in panels[0].get_lines()}
    assert lines["minidl"] == [pytest.approx([1e3, 12.5]), pytest.approx([1e8, 1250])]
    assert "matrix products alone" in lines and panels[0].get_xscale() == panels[0].get_yscale() == "log"


def test_a_single_panel_has_room_for_its_title(bench):
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = bench.figures.growth(bench.report.summary(raw_results(bench))["growth"])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    title = figure._suptitle.get_window_extent(canvas.get_renderer())
    assert len(figure.axes) == 1 and title.x0 > 0 and title.x1 < figure.bbox.width


@pytest.mark.parametrize(
    "elementwise, minidl, call", [("numpy", "minidl", "sqrt"), ("numba", "minidl with Numba", "adam_step")]
)
def test_a_profile_adds_up_to_the_step(bench, monkeypatch, elementwise, minidl, call):
    if elementwise == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr(bench.step_profile, "CASES", {"A": ((4, 4, 4, 1), 32, 5)})
    rows = {row["name"]: row for row in bench.step_profile.profile("A", elementwise)}
    assert {row["group"] for row in rows.values()} == {f"A 4-4-4-1, batch 32, {minidl}"}
    around = (bench.peers.FLOOR, "GEMMs only, by np.dot", f"{minidl}, fit's step", f"{minidl}, fit")
    assert tuple(rows)[:4] == around and all(rows[name]["min"] > 0 for name in around)
    parts = {name: row for name, row in rows.items() if name not in around}
    assert {"forward: dot", "backward: dot", f"update: {call}", "batches together: gather"} < set(parts)
    for key in ("median", "q1", "q3", "min"):
        whole = sum(row[key] for row in parts.values())
        assert whole == pytest.approx(rows[f"{minidl}, fit's step"][key]) or not parts["between the calls"][key]


def test_slopes_are_of_the_upper_half(bench):
    rows = [{"size": size, "median": max(1e-3, size**2 * 1e-6), "flop": size**3} for size in (2, 4, 8, 64, 128, 256)]
    assert bench.report.slopes(rows) == (pytest.approx(2), pytest.approx(3))
    assert bench.report.slopes(rows[:2]) is None


def test_the_committed_pages_are_made_of_the_committed_results(bench, tmp_path):
    results = BENCHMARKS / "results"
    for page, write in (
        (BENCHMARKS / "README.md", bench.report.write_readme),
        (BENCHMARKS.parent / "README.md", bench.report.write_comparison),
    ):
        copy = tmp_path / page.name
        copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
        write(copy, results)
        assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------- the GPU


def test_the_gpu_script_rehearses_and_writes_nothing(bench, capsys, monkeypatch):
    few = [bench.peers.FLOOR, bench.peers.MINIDL_STEP, "no such peer"]
    monkeypatch.setattr(bench.on_gpu, "STEPS", few)
    missing = bench.peers.Entry("floor", needs=("no_such_library",))
    monkeypatch.setitem(bench.peers.PEERS, "no such peer", missing)
    before = {path: path.read_bytes() for path in (BENCHMARKS / "results").iterdir()}
    assert bench.on_gpu.main(["--rehearse", "--seconds", "60"]) == 0
    printed = capsys.readouterr().out
    assert "A 4-4-4-1, batch 32, TF32 off" in printed and "A 4-4-4-1, batch 32, TF32 on" in printed
    assert "| relu | " in printed and "no_such_library is not installed" in printed
    assert printed.count("| minidl, fit's step | ") == 2 or shutil.which("g++") is None
    assert printed.count(" at once | ") == 4 or shutil.which("g++") is None  # two models, alone and three of them
    for promised in (
        "- tests, at most 150 s: ", "tests/gpu\n", "- memcheck, at most 45 s: ", "steps of A, B, C, D, E with TF32 off",
        "- whole trainings, at most 60 s: ",
    ):  # fmt: skip
        assert promised in printed
    assert before == {path: path.read_bytes() for path in (BENCHMARKS / "results").iterdir()}


def test_the_gpu_script_measures_nothing_unless_its_checks_pass(bench, monkeypatch, capsys):
    python = sys.executable
    run = bench.on_gpu.Run(seconds=12, rehearse=False)
    commands = {
        "tests": [python, "-c", "print('fine')"],
        "memcheck": [python, "-c", "print('a race'); raise SystemExit(9)"],
        "racecheck": [python, "-c", "while True: pass"],
        "initcheck": None,
    }
    run.check(commands)
    assert run.checks == {
        "tests": "passed",
        "memcheck": "failed",
        "racecheck": "stopped after 1 s",
        "initcheck": "not installed",
    }
    assert len(run.failed) == 1 and "a race" in run.failed[0]
    monkeypatch.setattr(bench.on_gpu, "commands", lambda: {"tests": commands["memcheck"]})
    monkeypatch.setattr(bench.on_gpu.cuda, "unavailable", lambda: None)
    monkeypatch.setattr(bench.on_gpu, "gpu_name", lambda: "none")
    assert bench.on_gpu.main(["--seconds", "1"]) == 1
    printed = capsys.readouterr().out
    assert "tests: failed" in printed and "nothing was written" in printed
    monkeypatch.undo()
    found = bench.on_gpu.commands()
    assert list(found) == ["tests", "memcheck", "racecheck", "initcheck", "synccheck"]


def test_the_parts_of_a_run_on_a_gpu_fit_into_ten_minutes(bench):
    script = (BENCHMARKS / "run_gpu.sh").read_text(encoding="utf-8")
    most, seconds = (int(re.search(pattern, script)[1]) for pattern in (r"kill-after=10 (\d+)", r"--seconds (\d+)"))
    assert most <= 600 and seconds == bench.on_gpu.SECONDS <= most - 30
    limits = bench.on_gpu.limits(seconds)
    assert sum(limits.values()) == pytest.approx(seconds) and limits["steps"] >= 2 * bench.on_gpu.LEFT
    assert set(bench.on_gpu.commands()) == set(limits) - {"whole training", "steps"}


def test_whole_trainings_on_a_gpu_have_a_limit(bench, monkeypatch):
    run, start = bench.on_gpu.Run(seconds=9, rehearse=False), time.perf_counter()
    for program, skipped, failed in (("while True: pass", 1, 0), ("print('wrong'); raise SystemExit(1)", 1, 1)):
        command = [sys.executable, "-c", program]
        monkeypatch.setattr(bench.on_gpu, "whole_training_command", lambda command=command: command)
        run.whole_training()
        assert (len(run.skipped), len(run.failed), run.rows) == (skipped, failed, [])
    assert run.skipped[0]["reason"] == "stopped after 1 s" and "wrong" in run.failed[0]
    assert time.perf_counter() - start < 60


def test_no_peer_is_waited_for_beyond_the_end(bench, monkeypatch):
    """One that hangs in its first answer, and one that does so later, are left out; nothing fails."""
    monkeypatch.setattr(bench.on_gpu, "LEFT", 0.0)
    hangs = bench.peers.Entry("floor")
    monkeypatch.setitem(bench.peers.PEERS, "hangs", hangs)
    run = bench.on_gpu.Run(seconds=9, rehearse=True)
    monkeypatch.setattr(bench.on_gpu, "STEPS", ["hangs"])
    workers = bench.pool.Pool(1, run.environment(bench.on_gpu.TF32_OFF))
    run.end = time.perf_counter() + 0.01
    try:
        run.steps(workers, "A", "off")
        assert workers.workers == {}, "one that hangs is kept"
    finally:
        workers.close()
    assert run.rows == [] and run.failed == []
    assert run.skipped[0]["reason"] == "hangs: no time was left for its answer"

    def late(*_, **__):
        raise bench.pool.TooLate("hangs: later")

    run.end = time.perf_counter() + 60
    monkeypatch.setattr(bench.on_gpu, "STEPS", [bench.peers.FLOOR])
    monkeypatch.setattr(bench.pool, "interleaved", late)
    workers = bench.pool.Pool(1, run.environment(bench.on_gpu.TF32_OFF))
    try:
        run.steps(workers, "A", "off")
    finally:
        workers.close()
    assert run.rows == [] and run.failed == [] and run.skipped[-1]["reason"] == "hangs: later"  # said of all


@pytest.mark.skipif(cuda.unavailable() is None, reason="there is a GPU")
def test_the_gpu_script_says_that_there_is_no_gpu():
    script = BENCHMARKS / "run_gpu.sh"
    ran = subprocess.run(["bash", script], env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}, capture_output=True,
                         text=True)  # fmt: skip
    assert ran.returncode == 1 and "Nothing was written." in ran.stdout, ran.stderr
    assert not (BENCHMARKS / "results" / "gpu.json").exists()


def test_results_are_json_with_the_machine(bench):
    for file in (BENCHMARKS / "results").glob("*.json"):
        found = json.loads(file.read_text(encoding="utf-8"))
        assert set(found) - {"checks"} == {"about", "benchmarks", "skipped"}
        assert {"commit", "cpu", "threads", "versions", "blas"} <= set(found["about"])


def test_the_bound_of_a_sum_is_finite_and_grows(bench):
    bounds = [bench.verify.sum_error(2**k) for k in range(30)]  # n u = 1 among them
    assert bounds == sorted(bounds) and 0 < bounds[0] < 2 * bench.verify.U and bounds[-1] < 0.1


@pytest.mark.parametrize("name", ["l2_penalty", "relu", "dense"])
def test_operations_are_judged_at_the_size_that_is_measured(bench, name):
    """The penalty has so many terms that n u = 1. Its result passes, spoilt by 2⁻⁶ or NaN it does not."""
    from peers.operations import Peer

    peer = Peer()
    peer.load(name)
    peer.run(1)
    peer.check()
    honest = peer.require
    for spoil in (lambda got: got * np.float32(1 + 2**-6), lambda got: got * np.float32(np.nan)):
        peer.require = lambda got, right, bound, spoil=spoil: honest(spoil(got), right, bound)
        with pytest.raises(bench.verify.Wrong, match=name):
            peer.check()


def test_outputs_that_are_no_numbers_are_wrong(bench):
    case, x = bench.networks.CASES["A"], np.ones((2, 4), np.float32)
    with pytest.raises(bench.verify.Wrong, match="off by nan"):
        bench.verify.check_outputs(case, case.weights(), x, np.full((2, 1), np.nan, np.float32))


def test_rounds_are_interleaved_and_only_one_peer_runs(bench):
    running, order = set(), []

    class Fake:
        def __init__(self, name):
            self.name = name

        def pause(self):
            running.discard(self.name)

        def resume(self):
            running.add(self.name)

    def work(worker):
        assert running == {worker.name}
        order.append(worker.name)
        return float(len(order))

    samples = bench.pool.interleaved({name: (Fake(name), work) for name in "abc"}, rounds=3, seconds=0)
    rounds = [order[i : i + 3] for i in (0, 3, 6)]
    assert all(sorted(turn) == list("abc") for turn in rounds) and len({turn[0] for turn in rounds}) > 1
    assert all(len(found) == 3 for found in samples.values())


def test_processes_on_a_gpu_share_its_memory(bench):
    made = bench.on_gpu.Run(seconds=1, rehearse=False).environment(bench.on_gpu.TF32_OFF)
    assert made["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false" and made["BENCHMARK_DEVICE"] == "cuda"
    assert made["NVIDIA_TF32_OVERRIDE"] == "0"


# A's 49 gradients are all so large that 11 bits change no sign; of one row, the sum is the mean.
UNSEEN = {"A": {"TF32"}, "batch 1": {"summed"}}


def rounded_products(case, bits):
    """A float32 step of which each product's factors were rounded to so many bits, as TF32 (11) and bfloat16 (8) do."""
    f, (x, y) = np.float32, case.data()

    def cut(a):
        lost = 24 - bits
        half = np.uint32(1 << lost >> 1)
        return (np.ascontiguousarray(a).view(np.uint32) + half & np.uint32(~0 << lost & 0xFFFFFFFF)).view(f)

    weights, rows = case.weights(), case.rows(0)
    inputs = [x[rows]]
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        z = cut(inputs[-1]) @ cut(kernel) + bias
        inputs.append(np.maximum(z, 0))
    d, found = (1 / (1 + np.exp(-z)) - y[rows]) / f(case.batch), []
    for i in reversed(range(len(case.layers))):
        found += [d.sum(axis=0), cut(inputs[i]).T @ cut(d)]
        d = cut(d) @ cut(weights[2 * i]).T * (inputs[i] > 0) if i else d
    return found[::-1]


SIZES = [*"ABCDE", "width 8", "width 1024", "batch 1", "batch 512", "depth 1", "depth 16", "depth 128"]


@pytest.mark.parametrize("name", SIZES)
def test_what_the_bound_refuses(bench, name):
    """Of first steps: none, half, 1 % short, without the biases, products of fewer bits; and passes float32's."""
    verify = bench.verify
    case = bench.networks.CASES.get(name) or bench.networks.grown(*size_of(name))
    weights, (x, y) = case.weights(), case.data()
    rows = case.rows(0)
    found = verify.gradients(case, weights, x[rows], y[rows])
    updates = verify.Adam(case).updates(found)
    right = [update for update, _ in updates]

    def from_gradients(gradients):  # m = 0.1 g, v = 0.001 g², and α = η √0.001 / 0.1
        root = np.sqrt(0.001)
        return [1e-3 * root * g / (root * abs(g) + 1e-7) for g in gradients]

    wrong = {f"{factor:g} of the step": [factor * u for u in right] for factor in (0, 0.5, 0.99)}
    wrong["no biases' gradients"] = [u * (u.ndim > 1) for u in right]
    wrong["no last bias's gradient"] = [*right[:-1], 0 * right[-1]]
    wrong["TF32"], wrong["bfloat16"] = (from_gradients(rounded_products(case, bits)) for bits in (11, 8))
    wrong["summed"] = from_gradients([g * case.batch for g, _ in found])
    rounded = from_gradients(rounded_products(case, 24))
    refused = set()
    for what, step in {"float64": right, "float32": rounded, **wrong}.items():
        try:
            verify.worst(weights, [(w - s).astype(np.float32) for w, s in zip(weights, step, strict=True)], updates, "")
        except verify.Wrong:
            refused.add(what)
    assert refused == set(wrong) - UNSEEN.get(name, set())


def size_of(name):
    axis, size = name.split()
    return axis, int(size)
