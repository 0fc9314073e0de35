"""A quick comparison on this machine: the time of a training step in minidl and in its peers; minidl bench.

Every peer runs in a process of its own, in turns, and trains the same network from the same weights on the same batches
in float32: one whose loss at the end is another is not compared. The thorough benchmarks are in benchmarks/.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.models import Sequential

if TYPE_CHECKING:
    from rich.console import Console


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
# What each peer needs beside minidl.
PEERS: dict[str, tuple[str, ...]] = {
    FLOOR: (),
    "minidl": (),
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
    if peer == "minidl":
        from minidl import layers

        return keras_epoch(case, layers, Sequential)
    os.environ["KERAS_BACKEND"] = peer.removeprefix("Keras on ").lower()
    import keras

    return keras_epoch(case, keras.layers, keras.Sequential)


def work(peer: str) -> None:
    """The process of one peer: for each case named on a line of its input, microseconds a step and the loss, as JSON.

    The first epoch, which compiles, is not timed; its loss is the one that is compared.
    """
    epochs: dict[str, Callable[[], float]] = {}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the frameworks print
    for line in sys.stdin:
        name = line.strip()
        loss = None
        if name not in epochs:
            epochs[name] = epoch_of(peer, CASES[name])
            loss = float(epochs[name]())
        start = time.perf_counter()
        epochs[name]()
        taken = (time.perf_counter() - start) / CASES[name].steps * 1e6
        answers.write(json.dumps({"us": taken, "loss": loss}) + "\n")
        answers.flush()


class Peer:
    """A peer's process. Errors: RuntimeError if it ends, with what it printed last."""

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

    def time(self, case: str) -> None:
        """One epoch of a case."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(case + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait()}")
        answer = json.loads(line)
        self.times.setdefault(case, []).append(answer["us"])
        if answer["loss"] is not None:
            self.losses[case] = answer["loss"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def is_installed(peer: str) -> bool:
    """Whether what a peer needs is there."""
    return all(importlib.util.find_spec(name) is not None for name in PEERS[peer])


def agrees(loss: float, expected: float) -> bool:
    """Whether a peer's loss is minidl's, to SAME_LOSS of it."""
    return abs(loss - expected) <= SAME_LOSS * abs(expected)


def run(console: Console, *, rounds: int = 5, cases: list[str] | None = None, peers: list[str] | None = None) -> bool:
    """Time the peers in turns and print a table; whether all that ran computed the same."""
    from rich.table import Table

    names, ok = list(CASES) if cases is None else cases, True
    running = [Peer(name) for name in (PEERS if peers is None else peers) if is_installed(name)]
    notes = [f"{name}: not installed" for name in (PEERS if peers is None else peers) if not is_installed(name)]
    try:
        for case in names:
            for _ in range(rounds):
                for peer in list(running):
                    try:
                        peer.time(case)
                    except RuntimeError as error:
                        notes.append(str(error))
                        ok = False
                        running.remove(peer)
                        peer.close()
    finally:
        for peer in running:
            peer.close()
    table = Table(title="a training step, as a multiple of its matrix products (median µs)", title_justify="left")
    for heading in ("", *names):
        table.add_column(heading, justify="right" if heading else "left")
    by_name = {peer.name: peer for peer in running}
    for peer in running:
        row = [peer.name]
        for case in names:
            median = statistics.median(peer.times[case])
            floor = statistics.median(by_name[FLOOR].times[case]) if FLOOR in by_name else median
            same = peer.name == FLOOR or agrees(peer.losses[case], by_name["minidl"].losses[case])
            row.append(
                f"{median / floor:.2f} ({median:.0f})" if same else f"loss {peer.losses[case]:.4f}: not the same"
            )
            ok = ok and same
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note)
    return ok
