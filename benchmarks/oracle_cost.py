"""What checking costs: oracle.check beside the plain fit of the same Keras model, 784-256-128-1, batches of 128.

    python benchmarks/oracle_cost.py [--steps 100] [--rounds 5]

Prints milliseconds a step of each, the median of the rounds, taken in turn, and their quotient, in each mode: from the
end of the second step to that of the last. So what a fit takes to start and to end is left out, such as tracing the
step's graph anew, and TensorFlow's taking down of its data set, which now and then takes 0.4 to 1.1 s.
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


def step_seconds(ends: list[float]) -> float:
    """Seconds a step, of the times at which the steps ended."""
    return (ends[-1] - ends[1]) / (len(ends) - 2)


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
    rows = BATCH * asked.steps
    x, y = rng.normal(size=(rows, 784)).astype("float32"), rng.integers(0, 2, (rows, 1)).astype("float32")
    backend = keras.backend.backend()

    class Ends(keras.callbacks.Callback):  # type: ignore[name-defined]
        def on_train_begin(self, logs: Any = None) -> None:
            self.ends: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.ends.append(time.perf_counter())

    for mode in ("graph", "eager", "xla") if backend == "tensorflow" else ("default",):
        model = model_of(keras, mode)

        def plain(model: Any = model) -> list[float]:
            noted = Ends()
            model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[noted])
            return noted.ends

        def checked(model: Any = model) -> list[float]:
            ends: list[float] = []
            report = oracle.check(
                model, x, y, batch_size=BATCH, progress=lambda done, total: ends.append(time.perf_counter())
            )
            assert report.ok, report
            return ends

        ways = {"plain fit": plain, "check": checked}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way()
        for _ in range(asked.rounds):
            for name, way in ways.items():
                times[name].append(step_seconds(way()))
        middle = {name: 1e3 * statistics.median(found) for name, found in times.items()}
        said = " · ".join(f"{name} {one:.2f} ms ({one / middle['plain fit']:.1f} x)" for name, one in middle.items())
        print(f"{backend} {mode}: {said}", flush=True)


if __name__ == "__main__":
    main()
