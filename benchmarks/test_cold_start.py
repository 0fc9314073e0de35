"""(e) Cold start: a new process, from its start to the notebook's first model trained for 50 epochs, and its memory.

The rows come in the data's order and the initial weights are given, so that every library trains the same: the weights
at the end are compared with those of float64, and as far off as float32's errors explain.
"""

import json
import subprocess
import sys
import time

import pytest
from networks import PENGUINS
from peers import MINIDL_FIT, PEERS, WITH_NUMBA
from pool import HERE, Worker, environment, in_new_process
from verify import check_run

EPOCHS = 50
LIBRARIES = {
    MINIDL_FIT: "minidl",
    f"{WITH_NUMBA}, fit": "minidl",
    "Keras on TensorFlow, fit": "keras",
    "Keras on JAX, fit": "keras",
    "Keras on torch, fit": "keras",
}


def cold_start(name, threads):
    """Seconds of the process, seen from outside; what it says."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(HERE / "cold_start.py"), LIBRARIES[name]],
        env=environment(threads, PEERS[name].environment),
        preexec_fn=in_new_process(threads),
        capture_output=True,
        text=True,
        cwd=HERE,
    )
    taken = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return taken, json.loads(done.stdout.splitlines()[-1])


def training_steps(case, epochs):
    """(x, y) of each step of so many epochs."""
    x, y = case.data()
    return [(x[case.rows(step)], y[case.rows(step)]) for step in range(case.batches)] * epochs


def measure_cold_starts(pool, names, settings):
    """In turn, so many rounds, and an untimed first one, which leaves the files in memory and the bytecode written."""
    pool.start([])
    found, samples, peaks = {}, {}, {}
    for name in names:
        try:
            said = cold_start(name, pool.threads)[1]
            check_run(PENGUINS, training_steps(PENGUINS, EPOCHS), PENGUINS.weights(), said["weights"])
            samples[name], peaks[name] = [], []
        except Exception as error:
            found[name] = error
    for turn in range(settings["cold_rounds"]):
        order = list(samples)
        for name in order[turn % max(1, len(order)) :] + order[: turn % max(1, len(order))]:
            taken, said = cold_start(name, pool.threads)
            samples[name].append(taken)
            peaks[name].append(said["peak"])
    for name in samples:
        worker = Worker(name, PEERS[name], pool.threads)
        found[name] = samples[name], {"about": worker.about, "peak_bytes": sorted(peaks[name])[len(peaks[name]) // 2]}
        worker.close()
    return found


@pytest.mark.parametrize("name", LIBRARIES)
def test_cold_start(compare, pool, settings, name):
    compare(
        "cold start, 50 epochs of the notebook's model", name, lambda names: measure_cold_starts(pool, names, settings)
    )
