"""A step of kernels/train_step.cu on a GPU: of one model, and of many in one launch.

    python benchmarks/whole_training.py [--json]     prints a table, or for on_gpu.py its rows
    python benchmarks/whole_training.py --rehearse   the same code, short, the kernel run by the tests' host

The time of a step is the difference between a long and a short training divided by that of their steps, so that the
launch, the way of the weights into shared memory and back, and the copies are not in it. Before it is measured, the
training is compared with fit's on the CPU.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from minidl import cuda, keras, many
from minidl.oracle import notebook

MODELS = (1, 132, 1056)  # an H100 has 132 multiprocessors
SHORT, LONG = 10, 210  # epochs of nine steps
ROUNDS = 5

Timed = Callable[[str, int, int, Sequence[Any], int], float]  # many.Launch that returns the seconds of the kernel


def on_device(kernel: str, grid: int, block: int, arguments: Sequence[Any], shared: int) -> float:
    """many.launch_on_device with events around the kernel: its seconds on the device."""
    cupy = cuda.ready_cupy()
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    launch = cuda.launch

    def between(*given: Any, **settings: Any) -> None:
        start.record()
        launch(*given, **settings)
        end.record()
        end.synchronize()

    cuda.launch = between
    try:
        many.launch_on_device(kernel, grid, block, arguments, shared)
    finally:
        cuda.launch = launch
    return float(cupy.cuda.get_elapsed_time(start, end)) / 1e3


def on_host() -> Timed:
    """For a rehearsal: the kernel on the processor, by the tests' shim, and the processor's clock."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from cuda_host import checks

    launch = checks.launcher(checks.Kernels("train_step", "float32", None))

    def timed(*arguments: Any) -> float:
        start = time.perf_counter()
        launch(*arguments)
        return time.perf_counter() - start

    return timed


def step_seconds(
    name: str, models: int, timed: Timed, *, short: int = SHORT, long: int = LONG, rounds: int = ROUNDS
) -> list[float]:
    """Seconds of a step of one of the notebook's models, of so many at once, in batches of 32, measured so often."""
    seconds: list[float] = []
    (x, y), _ = notebook.data()

    def launch(*arguments: Any) -> None:
        seconds.append(timed(*arguments))

    def fit(epochs: int) -> many.FittedMany:
        return many.fit_in_one_launch(
            lambda: notebook.MODELS[name](keras), x, y, seeds=tuple(range(models)), epochs=epochs, batch_size=32,
            validation_data=None, shuffle=True, check_finite=True, launch=launch,
        )  # fmt: skip

    checked = fit(1)  # compiles and loads the kernel too
    expected = many.fit_many(lambda: notebook.MODELS[name](keras), x, y, seeds=[0], batch_size=32, device="cpu")
    if not np.allclose(checked.weights[0], expected.weights[0], rtol=0, atol=1e-6):  # as tests/test_notebook.py
        raise AssertionError(f"{name}: the kernel's weights after an epoch are not those of fit.")
    found = []
    for _ in range(rounds):
        fit(short)
        fit(long)
        found.append((seconds[-1] - seconds[-2]) / ((long - short) * -(-len(x) // 32)))
    return found


Rows = list[tuple[str, int, list[float]]]


def rows(timed: Timed, models: Sequence[int] = MODELS, **settings: int) -> Rows:
    """(name of the model, models in the launch, seconds of a step in each round)."""
    return [(name, n, step_seconds(name, n, timed, **settings)) for name in notebook.MODELS for n in models]


def table(found: Rows) -> str:
    """As Markdown, the medians."""
    lines = [
        "| 4-4-4-1, batch 32 | models in one launch | a step, µs | a step of one model, µs |",
        "|---|---:|---:|---:|",
    ]
    for name, n, samples in found:
        s = statistics.median(samples)
        lines.append(f"| {name} | {n:,} | {1e6 * s:.2f} | {1e6 * s / n:.3f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] = ()) -> int:
    """Print the table, or the rows as JSON. Returns 1 with a message where there is no GPU."""
    rehearse = "--rehearse" in arguments
    problem = None if rehearse else cuda.unavailable()
    if problem:
        print(f"There is no GPU to measure on: {problem}")
        return 1
    found = rows(on_host(), models=(1, 3), short=1, long=3, rounds=2) if rehearse else rows(on_device)
    print(json.dumps(found) if "--json" in arguments else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
