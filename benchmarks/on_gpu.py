"""The suites on a GPU: minidl, JAX and torch, TF32 off everywhere, and once on. See run_gpu.sh.

    python benchmarks/on_gpu.py [--seconds 540]      tests, then measures, and writes benchmarks/results/gpu.json
    python benchmarks/on_gpu.py --rehearse           says what it would do, and does it on the processor, short; prints,
                                                     and writes nothing

Before anything is measured the tests for a GPU pass, and a training of them under each of compute-sanitizer's tools,
where it is installed; then come the operations, whole trainings in one launch, and the steps. Each has its limit of
time, and no peer is waited for beyond the end. The steps are verified as on a processor; with TF32 on, the bound grows
by that of operands rounded to 11 bits.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from minidl import cuda  # noqa: E402

import pool  # noqa: E402  # isort: skip
import report  # noqa: E402
import verify  # noqa: E402
from networks import CASES, describe  # noqa: E402
from peers import FLOOR, MINIDL_FIT, MINIDL_STEP, OTHERS, PEERS, Entry  # noqa: E402

TF32_SIZES = ["C", "D", "E"]
TORCH = ["torch, eager", "torch, fused Adam", "torch.compile"]
STEPS = [FLOOR, MINIDL_STEP, MINIDL_FIT, "JAX, lax.scan", "JAX, jit a step", *TORCH]
# Every library's own switch, and NVIDIA's for all of cuBLAS.
TF32_OFF = {
    "NVIDIA_TF32_OVERRIDE": "0",
    "BENCHMARK_TF32": "0",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    "CUPY_TF32": "0",
}
TF32_ON = {"BENCHMARK_TF32": "1", "JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32", "CUPY_TF32": "1"}
PYTEST = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Seconds that each part may take at most; the last is what is left at least for the steps and the operations.
LIMITS = {"tests": 150.0, **dict.fromkeys(TOOLS, 45.0), "whole training": 60.0, "steps": 150.0}
SECONDS = sum(LIMITS.values())  # of run_gpu.sh's 600: the rest is for what ends and writes
LEFT = 30.0  # with less than this to the end no peer is begun
WHOLE = "a step of kernels/train_step.cu, 4-4-4-1, batch 32, by models in one launch"


def limits(seconds: float) -> dict[str, float]:
    """LIMITS of a run of so many seconds."""
    return {name: limit * seconds / SECONDS for name, limit in LIMITS.items()}


def plan(seconds: float) -> str:
    """What a run on a GPU does, in its order, and for how long at most."""
    limit, lines = limits(seconds), [f"On a GPU, within {seconds:.0f} s:"]
    for name, command in commands().items():
        what = " ".join(command) if command else "left out here: compute-sanitizer is not installed"
        lines.append(f"- {name}, at most {limit[name]:.0f} s: {what}")
    lines += [
        "- operations on CuPy's arrays",
        f"- whole trainings, at most {limit['whole training']:.0f} s: {' '.join(whole_training_command())}",
        f"- steps of {', '.join(CASES)} with TF32 off, of {', '.join(TF32_SIZES)} with it on, by {'; '.join(STEPS)}: "
        f"{limit['steps']:.0f} s at least are left for them and the operations",
    ]
    return "\n".join(lines)


def whole_training_command() -> list[str]:
    return [sys.executable, str(HERE / "whole_training.py"), "--json"]


class Run:
    """What is measured, within a time, into rows as those of pytest-benchmark's suites."""

    def __init__(self, *, seconds: float, rehearse: bool) -> None:
        self.end, self.rehearse, self.limits = time.perf_counter() + seconds, rehearse, limits(seconds)
        self.rows: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        self.failed: list[str] = []
        self.abouts: dict[str, Any] = {}
        self.checks: dict[str, str] = {}

    def check(self, commands: dict[str, list[str] | None]) -> None:
        """Run the tests and the sanitizers, each for as long as its limit. None: it is not installed."""
        for name, command in commands.items():
            if command is None:
                self.checks[name] = "not installed"
                continue
            limit = self.limits[name]
            try:
                ran = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=limit)
            except subprocess.TimeoutExpired:
                self.checks[name] = f"stopped after {limit:.0f} s"
                continue
            self.checks[name] = "passed" if ran.returncode == 0 else "failed"
            if ran.returncode:
                self.failed.append(f"{name}: {' '.join(command)}\n{(ran.stdout + ran.stderr)[-3000:]}")

    def measure(self) -> None:
        """The operations, whole trainings, then the steps by size, with TF32 off, then the larger ones with it on."""
        self.operations()
        self.whole_training()
        sizes = ["A"] if self.rehearse else list(CASES)
        for tf32, settings in (("off", TF32_OFF), ("on", TF32_ON)):
            workers = pool.Pool(pool.cores(), self.environment(settings))
            try:
                for size in sizes if tf32 == "off" or self.rehearse else TF32_SIZES:
                    self.steps(workers, size, tf32)
            finally:
                workers.close()

    def environment(self, settings: dict[str, str]) -> dict[str, str]:
        """For the peers: where they compute."""
        device = {"BENCHMARK_DEVICE": "cuda", "JAX_PLATFORMS": "cuda"}
        device |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # else each of JAX's processes takes most of the memory
        device = {} if self.rehearse else device
        return settings | device | ({"BENCHMARK_SIZE": str(2**16)} if self.rehearse else {})

    def entry(self, name: str) -> Entry:
        """A peer; minidl's processes and the floor compute on CuPy's arrays."""
        entry = (PEERS | OTHERS)[name]
        if name in (FLOOR, "operations") and not self.rehearse:
            return Entry(entry.module, {"device": "gpu"})
        if name == MINIDL_STEP:
            return Entry("minidl_gpu", {"device": "host" if self.rehearse else "gpu"})
        return entry

    def operations(self) -> None:
        """minidl's operations on CuPy's arrays, and its kernels, beside a copy and CuPy's product."""
        from peers.operations import COPY, ON_GPU, PRODUCT

        group = "single operations on CuPy's arrays"
        entry, settings = self.entry("operations"), self.environment(TF32_OFF)
        worker = pool.Worker("operations", entry, pool.cores(), settings, until=self.end)
        times, works = {}, {}
        try:
            for name in [COPY, "relu"] if self.rehearse else ON_GPU:
                try:
                    worker.ask("load", name)
                    worker.ask("run", 1)
                    worker.ask("check")
                    works[name] = worker.ask("work")
                    worker.ask("load", name)
                    times[name] = [worker.ask("time", "run", (1,), 10) / 10 for _ in range(self.rounds)]
                except RuntimeError as error:
                    self.failed.append(str(error))
            self.abouts["operations"] = worker.about
        except pool.TooLate as error:
            self.skip(group, "operations", str(error))
        finally:
            worker.close()
        for name, work in works.items():
            (unit,) = work
            bound = PRODUCT if unit == "flop" else COPY
            if bound in times:
                yardstick = report.spread(times[bound])["median"] * work[unit] / works[bound][unit]
                self.add(group, name, times[name], yardstick=yardstick, **work)

    def whole_training(self) -> None:
        """Steps of train_step.cu, in a process of its own; a row's yardstick is the step of one model alone."""
        limit = min(self.limits["whole training"], max(1.0, self.left()))
        if self.rehearse and shutil.which("g++") is None:
            self.skip(WHOLE, "train_epochs", "without a GPU its kernel runs where g++ is")
            return
        command = [*whole_training_command(), *(["--rehearse"] if self.rehearse else [])]
        try:
            ran = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            self.skip(WHOLE, "train_epochs", f"stopped after {limit:.0f} s")
            return
        if ran.returncode:
            self.failed.append(f"{' '.join(command)}\n{(ran.stdout + ran.stderr)[-3000:]}")
            return
        yardsticks: dict[str, float] = {}
        for name, models, samples in json.loads(ran.stdout):
            yardsticks.setdefault(name, report.spread(samples)["median"])
            self.add(WHOLE, f"{name}, {models:,} at once", samples, yardstick=yardsticks[name])

    @property
    def rounds(self) -> int:
        return 3 if self.rehearse else 9

    def steps(self, workers: pool.Pool, size: str, tf32: str) -> None:
        """One network's step, by every peer that is there."""
        case, operand = CASES[size], 0.0 if tf32 == "off" else verify.TF32
        group = f"{describe(case)}, TF32 {tf32}"
        tasks, extras = {}, {}
        for name in STEPS:
            missing = self.entry(name).missing()
            if name == MINIDL_STEP and self.rehearse and shutil.which("g++") is None:
                missing = "without a GPU its kernels run where g++ is"
            if missing or self.left() < LEFT:
                self.skip(group, name, missing or "no time was left")
                continue
            try:
                if name not in workers.workers:
                    settings = (workers.threads, workers.more, self.end)
                    workers.workers[name] = pool.Worker(name, self.entry(name), *settings)
                worker = workers.workers[name]
                worker.resume()
                self.abouts[name] = worker.about
                extras[name] = {"worst_error_by_bound": pool.check_steps(worker, case, steps=1, operand=operand)}
                tasks[name] = worker, pool.step_task(worker, case, round_seconds=0.02)
                worker.pause()
            except (RuntimeError, AssertionError) as error:
                self.failed.append(str(error))
            except pool.TooLate as error:
                self.skip(group, name, str(error))
                workers.drop(name)
        try:
            found = pool.interleaved(tasks, rounds=self.rounds, seconds=min(10.0, self.left() / 4))
        except pool.TooLate as error:
            for name in tasks:
                self.skip(group, name, str(error))
            return
        for name, samples in found.items():
            self.add(group, name, samples, flop=case.flop, parameters=case.parameters, **extras[name])

    def left(self) -> float:
        """Seconds."""
        return self.end - time.perf_counter()

    def skip(self, group: str, name: str, reason: str) -> None:
        self.skipped.append({"group": group, "name": name, "reason": reason})

    def add(self, group: str, name: str, samples: list[float], **extra: Any) -> None:
        self.rows.append({"group": group, "name": name, **report.spread(samples), **extra})

    def results(self, gpu: str) -> dict[str, Any]:
        """As a results file holds them. gpu: its name and driver."""
        about = report.machine(report.machine_info())
        about["cpu"] = f"{gpu}; {about['cpu']}"
        for name, found in self.abouts.items():
            about["versions"] |= found["versions"]
            about["blas"][name] = found["blas"]
        return {"about": about, "checks": self.checks, "benchmarks": self.rows, "skipped": self.skipped}


def commands() -> dict[str, list[str] | None]:
    """What has to pass before anything is measured: name -> command, None for what is not installed."""
    sanitizer = shutil.which("compute-sanitizer")
    short = ["tests/gpu/test_training.py", "-k", "resumes and kernels"]
    found: dict[str, list[str] | None] = {"tests": [*PYTEST, "tests/gpu"]}
    for tool in TOOLS:
        found[tool] = [sanitizer, "--tool", tool, "--error-exitcode", "9", *PYTEST, *short] if sanitizer else None
    return found


def gpu_name() -> str:
    """The GPU, its driver and CUDA."""
    runtime = cuda.ready_cupy().cuda.runtime
    name = runtime.getDeviceProperties(0)["name"].decode()
    return f"{name}, CUDA {runtime.runtimeGetVersion()}, driver for CUDA {runtime.driverGetVersion()}"


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the results. Returns 1 with a message where there is no GPU, or a peer computes wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args(arguments)
    problem = None if options.rehearse else cuda.unavailable()
    if problem:
        print(f"run_gpu.sh measures on a GPU, and there is none to measure on: {problem}\nNothing was written.")
        return 1
    run = Run(seconds=options.seconds, rehearse=options.rehearse)
    if options.rehearse:
        print(f"{plan(SECONDS)}\n\nHere, on the processor:\n")
    else:
        run.check(commands())
        print("\n".join(f"{name}: {result}" for name, result in run.checks.items()))
    if not run.failed:
        run.measure()
    results = run.results("rehearsal on the processor" if options.rehearse else gpu_name())
    print(report.tables("gpu", results))
    if run.failed:
        print("\n\n".join(["These failed, and nothing was written:", *run.failed]))
        return 1
    if options.rehearse:
        print("\nA rehearsal: nothing was written.")
        return 0
    (HERE / "results" / "gpu.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    report.write_readme(HERE / "README.md", HERE / "results")
    print("\nWritten: benchmarks/results/gpu.json and the tables of benchmarks/README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
