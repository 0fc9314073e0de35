"""A quick comparison on this machine: the time of a training step in minidl and in its peers; minidl bench.

Every peer runs in a process of its own, in turns, and trains the same network from the same weights on the same batches
in float32: one whose loss at the end is another is not compared. The whole keeps to its seconds: half of them are for
starting the peers, the rest for the cases, with fewer rounds where time is short. A peer that needs longer is
left out, and named. The thorough benchmarks are in benchmarks/.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import config
from minidl.models import Sequential

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True)
class Case:
    """A network of ReLU layers and one sigmoid, and how many steps are timed."""

    widths: tuple[int, ...]
    batch: int
    steps: int


CASES = {
    "4-4-4-1, batch 32": Case((4, 4, 4, 1), 32, 128),
    "30-64-64-1, batch 32": Case((30, 64, 64, 1), 32, 128),
    "784-256-128-1, batch 128": Case((784, 256, 128, 1), 128, 24),
}
FLOOR = "matrix products alone"
WITH_NUMBA = "minidl with Numba"
# What each peer needs beside minidl.
PEERS: dict[str, tuple[str, ...]] = {
    FLOOR: (),
    "minidl": (),
    WITH_NUMBA: ("numba",),
    "Keras on TensorFlow": ("keras", "tensorflow"),
    "Keras on JAX": ("keras", "jax"),
    "Keras on torch": ("keras", "torch"),
    "torch": ("torch",),
}
SAME_LOSS = 1e-3  # relative; the peers' losses agree to about 1e-6, one of another optimizer or batch order to 1e-1


def data_of(case: Case) -> tuple[Any, Any]:
    """x of normal numbers, (steps · batch, features), and y of the sign of a sum of some of them."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(case.steps * case.batch, case.widths[0])).astype(np.float32)
    return x, (x[:, :2].sum(axis=1, keepdims=True) > 0).astype(np.float32)


def weights_of(case: Case) -> list[Any]:
    """Kernel and bias of each layer, drawn as Glorot and Bengio do."""
    rng = np.random.default_rng(8)
    found = []
    for inputs, units in zip(case.widths, case.widths[1:], strict=False):
        limit = np.sqrt(6 / (inputs + units))
        found += [rng.uniform(-limit, limit, (inputs, units)).astype(np.float32), np.zeros(units, np.float32)]
    return found


def keras_epoch(case: Case, layers: Any, sequential: Any) -> Callable[[], float]:
    """One epoch of fit; returns the epoch's loss. layers, sequential: Keras's or minidl's."""
    hidden = [layers.Dense(units, activation="relu") for units in case.widths[1:-1]]
    model = sequential([layers.Input((case.widths[0],)), *hidden, layers.Dense(1, activation="sigmoid")])
    model.set_weights(weights_of(case))
    model.compile("adam", "binary_crossentropy")
    x, y = data_of(case)
    return lambda: model.fit(x, y, batch_size=case.batch, shuffle=False, verbose=0).history["loss"][-1]


def torch_epoch(case: Case) -> Callable[[], float]:
    """The usual loop of torch, one epoch of it."""
    import torch

    modules: list[Any] = []
    weights = [torch.from_numpy(weight) for weight in weights_of(case)]
    for inputs, units, kernel, bias in zip(case.widths, case.widths[1:], weights[::2], weights[1::2], strict=False):
        linear = torch.nn.Linear(inputs, units)
        with torch.no_grad():
            linear.weight.copy_(kernel.T)
            linear.bias.copy_(bias)
        modules += [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules[:-1])
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7)
    loss_of = torch.nn.BCEWithLogitsLoss()
    x, y = (torch.from_numpy(array) for array in data_of(case))

    def epoch() -> float:
        total = 0.0
        for start in range(0, len(x), case.batch):
            adam.zero_grad()
            loss = loss_of(model(x[start : start + case.batch]), y[start : start + case.batch])
            loss.backward()
            adam.step()
            total += loss.item()
        return total / case.steps

    return epoch


def products_epoch(case: Case) -> Callable[[], float]:
    """The products of an epoch's steps, without anything around them."""
    rng = np.random.default_rng(9)
    kernels = weights_of(case)[::2]
    arrays = [rng.normal(size=(case.batch, units)).astype(np.float32) for units in case.widths]
    products = [(a, kernel, np.empty_like(b)) for a, kernel, b in zip(arrays, kernels, arrays[1:], strict=False)]
    for i in reversed(range(len(kernels))):
        products.append((arrays[i].T, arrays[i + 1], np.empty_like(kernels[i])))
        if i:
            products.append((arrays[i + 1], kernels[i].T, np.empty_like(arrays[i])))

    def epoch() -> float:
        for _ in range(case.steps):
            for a, b, out in products:
                np.matmul(a, b, out)
        return np.nan

    return epoch


def epoch_of(peer: str, case: Case) -> Callable[[], float]:
    """One epoch of a peer's training."""
    if peer == FLOOR:
        return products_epoch(case)
    if peer == "torch":
        return torch_epoch(case)
    if peer in ("minidl", WITH_NUMBA):
        from minidl import layers

        config.set_elementwise("numba" if peer == WITH_NUMBA else "numpy")

        return keras_epoch(case, layers, Sequential)
    import keras

    return keras_epoch(case, keras.layers, keras.Sequential)


def load(peer: str) -> None:
    """Import what a peer needs, which takes seconds."""
    if peer.startswith("Keras on "):
        os.environ["KERAS_BACKEND"] = peer.removeprefix("Keras on ").lower()
        importlib.import_module("keras")
    elif peer == "torch":
        importlib.import_module("torch")


def work(peer: str) -> None:
    """The process of one peer: a line when it is ready, then for each case named on a line of its input, microseconds
    a step and the loss, as JSON.

    The first epoch, which compiles, is not timed; its loss is the one that is compared.
    """
    epochs: dict[str, Callable[[], float]] = {}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the frameworks print
    load(peer)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name = line.strip()
        loss = None
        if name not in epochs:
            epochs[name] = epoch_of(peer, CASES[name])
            loss = float(epochs[name]())
        start = time.perf_counter()
        epochs[name]()
        taken = (time.perf_counter() - start) / CASES[name].steps * 1e6
        print(json.dumps({"us": taken, "loss": loss}), file=answers, flush=True)


class TooSlowError(Exception):
    """A peer did not answer in time."""


class Peer:
    """A peer's process. Errors: RuntimeError if it ends; TooSlowError if it does not answer in time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.losses: dict[str, float] = {}
        self.times: dict[str, list[float]] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from minidl import bench; bench.work({name!r})"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Hand on its lines, at the end an empty one."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def answer(self, seconds: float) -> str:
        """Its next line."""
        try:
            line = self._lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            raise TooSlowError from None
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait()}")
        return line

    def time(self, case: str, seconds: float) -> None:
        """One epoch of a case, within so many seconds."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # if it has ended, its answer says so
            self._process.stdin.write(case + "\n")
            self._process.stdin.flush()
        answer = json.loads(self.answer(seconds))
        self.times.setdefault(case, []).append(answer["us"])
        if answer["loss"] is not None:
            self.losses[case] = answer["loss"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def is_installed(peer: str) -> bool:
    """Whether what a peer needs is there."""
    return all(importlib.util.find_spec(name) is not None for name in PEERS[peer])


def agrees(loss: float, expected: float) -> bool:
    """Whether a peer's loss is minidl's, to SAME_LOSS of it."""
    return abs(loss - expected) <= SAME_LOSS * abs(expected)


class Comparison:
    """The peers that still run, what is said of the others, and whether all that ran computed the same."""

    def __init__(self, names: list[str], seconds: float) -> None:
        self.names, self.notes, self.ok = (
            names,
            [f"{name}: not installed" for name in names if not is_installed(name)],
            True,
        )
        self._end = time.perf_counter() + seconds
        self.peers = {name: Peer(name) for name in names if is_installed(name)}
        self.running = dict(self.peers)

    def left(self) -> float:
        """Seconds that are left."""
        return self._end - time.perf_counter()

    def attempt(self, peer: Peer, case: str | None, seconds: float) -> None:
        """Let a peer start, or do a case; one that ends or is too slow is closed and noted."""
        try:
            peer.answer(seconds) if case is None else peer.time(case, seconds)
            return
        except RuntimeError as error:
            self.notes.append(str(error))
            self.ok = False
        except TooSlowError:
            self.notes.append(f"{peer.name}: left out, {case or 'its start'} took too long (more time: --seconds)")
        self.running.pop(peer.name)
        peer.close()

    def start(self) -> None:
        """Wait until all have started, half of the seconds at most."""
        end = self.left() / 2
        for peer in list(self.running.values()):
            self.attempt(peer, None, self.left() - end)

    def time(self, case: str, seconds: float, rounds: int) -> None:
        """One case, in so many seconds: a round after the other of all peers, after one that compiles."""
        end = self.left() - seconds
        for turn in range(rounds):
            if turn and self.left() < end:
                break
            waiting = list(self.running.values())
            for i, peer in enumerate(waiting):
                share = max(1.0, (self.left() - end) / (len(waiting) - i) * 2)  # most peers take less than theirs
                self.attempt(peer, case, share)

    def cell(self, name: str, case: str) -> str:
        """What the table says of a peer."""
        peer = self.peers.get(name)
        if peer is None or case not in peer.times:
            return "–"
        if name != FLOOR and not agrees(peer.losses[case], self.peers["minidl"].losses[case]):
            self.ok = False
            return f"loss {peer.losses[case]:.4f}: not the same"
        median = statistics.median(peer.times[case])
        floor = self.peers[FLOOR].times.get(case) if FLOOR in self.peers else None
        return f"{median / (statistics.median(floor) if floor else median):.2f} ({median:.0f})"

    def table(self, cases: list[str]) -> Table:
        """Of the cases so far."""
        from rich.table import Table

        table = Table(title="a training step, as a multiple of its matrix products (median µs)", title_justify="left")
        table.add_column("")
        for case in cases:
            table.add_column(case, justify="right")
        for name in self.peers:
            table.add_row(name, *[self.cell(name, case) for case in cases])
        return table

    def close(self) -> None:
        """End all processes."""
        for peer in self.running.values():
            peer.close()


def run(
    console: Console,
    *,
    rounds: int = 5,
    seconds: float = 60.0,
    cases: list[str] | None = None,
    peers: list[str] | None = None,
) -> bool:
    """Time the peers in turns and print a table, which grows by a case at a time; whether all computed the same.

    rounds: at most. seconds: what the whole may take, about.
    """
    from rich.live import Live

    names = list(CASES) if cases is None else cases
    comparison = Comparison(list(PEERS) if peers is None else peers, seconds)
    try:
        with Live(console=console, auto_refresh=False) as live:
            comparison.start()
            for i, case in enumerate(names):
                comparison.time(case, comparison.left() / (len(names) - i), rounds)
                live.update(comparison.table(names[: i + 1]), refresh=True)
    finally:
        comparison.close()
        for note in comparison.notes:
            console.print(note)
    return comparison.ok
