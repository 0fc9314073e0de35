"""Peers in processes of their own: started, verified, and timed in interleaved rounds.

While one is timed the others are stopped (SIGSTOP): their threads that still spin, and their housekeeping, take
nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import verify
from networks import MASKS, Case
from peers import FLOOR, OTHERS, PEERS, Entry

HERE = Path(__file__).parent
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
FORCED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # what a BLAS finds by itself counts
CAN_STOP = hasattr(signal, "SIGSTOP")


def environment(threads: int, more: dict[str, str] | None = None) -> dict[str, str]:
    """What a process is started with, so that every library uses so many threads."""
    kept = {name: value for name, value in os.environ.items() if name not in FORCED}
    kept |= {name: str(threads) for name in LIMITS}
    kept |= {"BENCHMARK_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    return kept | {"PYTHONHASHSEED": "0"} | (more or {})


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_new_process(threads: int) -> Callable[[], None] | None:
    """To be called in a new process, on Linux: so many cores, as XLA has a thread for each; it ends with this one."""
    if not sys.platform.startswith("linux"):
        return None
    own = sorted(os.sched_getaffinity(0))[:threads]
    prctl, die_with_parent = ctypes.CDLL(None).prctl, 1

    def prepare() -> None:
        os.sched_setaffinity(0, own)
        prctl(die_with_parent, signal.SIGKILL)

    return prepare


class TooLate(Exception):
    """A peer's answer did not come in time; the peer can only be ended."""


class Worker:
    """The process of one peer. Errors: RuntimeError with what the peer says, when a command fails.

    until: by perf_counter, up to when an answer is waited for. Errors: TooLate.
    """

    def __init__(
        self, name: str, entry: Entry, threads: int, more: dict[str, str] | None = None, until: float | None = None
    ) -> None:
        self.name, self._until = name, until
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), entry.module, json.dumps(entry.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment(threads, entry.environment | (more or {})),
            start_new_session=True,
            preexec_fn=in_new_process(threads),
            cwd=HERE,
        )
        self._about: dict[str, Any] | None = None
        self.drops_rightly = False  # whether that was verified

    @property
    def about(self) -> dict[str, Any]:
        """Versions and BLAS; waits until the peer has started."""
        if self._about is None:
            self._about = self._answer()
        return self._about

    def ask(self, name: str, *arguments: Any, **options: Any) -> Any:
        """The result of a command."""
        assert self.about is not None
        pickle.dump((name, arguments, options), self._process.stdin)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        if self._until is not None:
            left = max(0.0, self._until - time.perf_counter())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise TooLate(f"{self.name}: no time was left for its answer")
        try:
            kind, result = pickle.load(self._process.stdout)
        except EOFError:
            kind, result = "error", "its process ended"
        if kind == "error":
            self._said.seek(0)
            said = self._said.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{self.name}: {result}\n{said}")
        return result

    def pause(self) -> None:
        """Stop the process, with all that it started."""
        if CAN_STOP:
            os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        if CAN_STOP:
            os.killpg(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL) if CAN_STOP else self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._said):
            file.close()


class Pool:
    """The workers of a run, each started when it is first wanted, and kept."""

    def __init__(self, threads: int, more: dict[str, str] | None = None) -> None:
        self.threads, self.more = threads, more
        self.workers: dict[str, Worker] = {}

    def start(self, names: list[str]) -> dict[str, Worker]:
        """These peers' workers, with those that are new started at the same time, and all others stopped."""
        for name in names:
            if name not in self.workers:
                self.workers[name] = Worker(name, (PEERS | OTHERS)[name], self.threads, self.more)
        for name in names:
            self.workers[name].resume()
            assert self.workers[name].about is not None
            self.workers[name].pause()
        return {name: self.workers[name] for name in names}

    def drop(self, name: str) -> None:
        """End a worker; a new one is started when it is wanted again."""
        if name in self.workers:
            self.workers.pop(name).close()

    def close(self) -> None:
        for name in list(self.workers):
            self.drop(name)


def check_steps(worker: Worker, case: Case, *, steps: int = 3, operand: float = 0.0) -> float:
    """Load the case without its dropout, train so many steps, and judge each; the worst |error| / bound.

    Where the case drops units, so do steps on one row, whose masks are found out, once a worker. Errors: verify.Wrong.
    """
    if worker.name == FLOOR:
        worker.ask("load", case)
        worker.ask("run", 1)
        return check_products(worker.ask("results"))
    plain = case.without_dropout()
    worker.ask("load", plain)
    outer, restarts = worker.ask("outer_epsilon"), worker.ask("restarts")
    judge, largest, before = verify.Lockstep(plain, outer_epsilon=outer, operand=operand), 0.0, worker.ask("weights")
    check_equal(before, case.weights(), f"{worker.name}: the initial weights")
    for _ in range(steps):
        worker.ask("run", 1)
        after = worker.ask("weights")
        try:
            largest = max(largest, judge.check(before, after))
        except verify.Wrong as error:
            raise verify.Wrong(f"{worker.name}: {error}") from None
        before = after
        if restarts:
            judge.adam = verify.Adam(plain, outer_epsilon=outer)
    if any(case.rates) and not worker.drops_rightly:
        worker.ask("load", MASKS)
        states = [worker.ask("weights")]
        for _ in range(12):
            worker.ask("run", 1)
            states.append(worker.ask("weights"))
        try:
            verify.check_masks(MASKS, states, outer_epsilon=outer)
        except verify.Wrong as error:
            raise verify.Wrong(f"{worker.name}: {error}") from None
        worker.drops_rightly = True
    if any(case.rates):
        worker.ask("load", case)
    return largest


def check_equal(got: list[Any], expected: list[Any], what: str) -> None:
    """Whether these are the same arrays. Errors: verify.Wrong."""
    if not verify.same(got, expected):
        raise verify.Wrong(f"{what} are not those that were given.")


def check_products(products: list[tuple[Any, Any, Any]]) -> float:
    """Whether (left, right, out) are products within the bound of a sum. Errors: verify.Wrong."""
    largest = 0.0
    for left, right, out in products:
        off = abs(out - left.astype(np.float64) @ right)
        ratio = float((off / verify.product_error(left, 0.0, right, 0.0, 0.0)).max())
        if not ratio <= 1:
            raise verify.Wrong(f"a product of {left.shape} and {right.shape} is off by {off.max():.2g}.")
        largest = max(largest, ratio)
    return largest


def interleaved(tasks: dict[str, tuple[Worker, Callable[[Worker], float]]], *, rounds: int, seconds: float):
    """Seconds of each task in each round: all tasks in turn, every round begins with another one.

    tasks: name -> a worker, and what makes it work and returns the seconds. rounds: at least 3, then as many as this
    while fewer than so many seconds have gone.
    """
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    names, start = list(tasks), time.perf_counter()
    for worker, _ in tasks.values():
        worker.pause()
    for turn in range(rounds):
        if turn >= 3 and time.perf_counter() - start > seconds:
            break
        for i in range(len(names)):
            name = names[(turn * 7 + i) % len(names)]
            worker, work = tasks[name]
            worker.resume()
            try:
                samples[name].append(work(worker))
            finally:
                worker.pause()
    return samples


def step_task(worker: Worker, case: Case, *, round_seconds: float) -> Callable[[Worker], float]:
    """The seconds of a step, by rounds of about so long, each after an untimed step."""
    chunk = worker.ask("chunk")
    taken = worker.ask("time", "run", (), chunk) / chunk
    if taken * chunk < 2 * round_seconds:
        taken = worker.ask("time", "run", (), chunk) / chunk  # without what is compiled for this many steps
    steps = max(chunk, round(round_seconds / max(taken, 1e-7) / chunk) * chunk)
    first = (max(1, min(steps // 10, 100)),) if chunk == 1 else ()
    return lambda worker: worker.ask("time", "run", first, steps) / steps
