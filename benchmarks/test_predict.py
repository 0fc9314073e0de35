"""(c) predict: the outputs of the network C for one row, for 128, and for 10,000; in batches of 32 by default."""

import numpy as np
import pytest
from networks import CASES
from peers import FITS, FLOOR, PEERS
from pool import check_products, interleaved
from verify import Wrong, check_outputs

NAMES = [FLOOR, *FITS, "JAX, jit a step", "TensorFlow, tf.function", "TensorFlow, XLA", "torch, eager"]
ROWS = {"one row": 1, "128 rows": 128, "10,000 rows": 10_000}
CASE = CASES["C"]


def measure_predict(pool, names, rows, settings):
    found, tasks, extras = {}, {}, {}
    x = np.random.default_rng(3).standard_normal((rows, CASE.widths[0]), dtype=np.float32)
    for name, worker in pool.start(names).items():
        worker.resume()
        try:
            worker.ask("load", CASE)
            outputs = worker.ask("predict", x)
            if name == FLOOR:
                check_products(worker.ask("predicted"))
            else:
                try:
                    check_outputs(CASE, CASE.weights(), x, outputs)
                except Wrong as error:
                    raise Wrong(f"{name}: {error}") from None
            taken = worker.ask("time", "predict", (x,), x)
            repeats = max(1, round(settings["round_seconds"] / taken))
            tasks[name] = worker, lambda worker, n=repeats: worker.ask("time", "predict", (x,), x, repeats=n)
            extras[name] = {"about": worker.about}
        except Exception as error:
            found[name] = error
        worker.pause()
    samples = interleaved(tasks, rounds=settings["rounds"], seconds=settings["seconds"])
    return found | {name: (samples[name], extras[name]) for name in tasks}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", ROWS)
def test_predict(compare, pool, settings, name, rows):
    assert name in PEERS
    compare(f"predict, {rows}", name, lambda names: measure_predict(pool, names, ROWS[rows], settings))
