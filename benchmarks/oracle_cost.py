"""What checking costs: oracle.check beside the plain fit of the same Keras model, 784-256-128-1, batches of 128.

    python benchmarks/oracle_cost.py [--steps 100] [--rounds 5]

Prints milliseconds a step of each, the median of the rounds, taken in turn, and their quotient, in each mode. What
starting a fit takes, such as tracing the step's graph anew, is left out: it is a fit of one step, taken off.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

BATCH = 128


def model_of(keras: Any, mode: str) -> Any:
    la = keras.layers
    model = keras.Sequential([la.Input((784,)), la.Dense(256, "relu"), la.Dense(128, "relu"), la.Dense(1, "sigmoid")])
    model.compile(
        "adam", "binary_crossentropy", metrics=["accuracy"], run_eagerly=mode == "eager", jit_compile=mode == "xla"
    )
    return model


def seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def step_seconds(call: Any, steps: int) -> float:
    """Seconds a step: of a fit of so many steps less that of a fit of one, which is what starting a fit takes."""
    return (seconds(lambda: call(steps + 1)) - seconds(lambda: call(1))) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()

    from minidl import oracle
    from minidl.oracle.recorder import installed_keras

    keras = installed_keras()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    rows = BATCH * (asked.steps + 1)
    x, y = rng.normal(size=(rows, 784)).astype("float32"), rng.integers(0, 2, (rows, 1)).astype("float32")
    backend = keras.backend.backend()
    for mode in ("graph", "eager", "xla") if backend == "tensorflow" else ("default",):
        model = model_of(keras, mode)

        def plain(steps: int, model: Any = model) -> None:
            model.fit(x[: steps * BATCH], y[: steps * BATCH], batch_size=BATCH, verbose=0)

        def checked(steps: int, model: Any = model, **arguments: Any) -> None:
            assert oracle.check(model, x[: steps * BATCH], y[: steps * BATCH], batch_size=BATCH, **arguments).ok

        ways = {"plain fit": plain, "check": checked}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way(2)
        for _ in range(asked.rounds):
            for name, way in ways.items():
                times[name].append(step_seconds(way, asked.steps))
        middle = {name: 1e3 * statistics.median(found) for name, found in times.items()}
        said = " · ".join(f"{name} {one:.2f} ms ({one / middle['plain fit']:.1f} x)" for name, one in middle.items())
        print(f"{backend} {mode}: {said}", flush=True)


if __name__ == "__main__":
    main()
