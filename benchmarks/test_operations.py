"""(d) Single operations beside what bounds them: a copy's bytes a second, or a square product's operations a second.

ratio 1: as fast as memory, or the BLAS, allows. A whole array in one call, as ops.py does it; NumPy uses one thread for
what is not a product. The bounds are measured in the same rounds, in the same process.
"""

import importlib.util

import pytest
from conftest import skip
from peers import INSTALL
from peers.operations import ADAM_BY_NUMBA
from peers.operations import OPERATIONS as MADE
from pool import interleaved

GROUP = "single operations, 16 million numbers or 512 × 2048 × 2048"
OPERATIONS = list(MADE)
COPY, PRODUCT = OPERATIONS[:2]


def measure_operations(pool, names, settings):
    (worker,) = pool.start(["operations"]).values()
    worker.resume()
    found, works = {}, {}

    def timed(name):
        def work(worker):
            worker.ask("load", name)
            return worker.ask("time", "run", (1,), 1)

        return work

    tasks = {}
    for name in dict.fromkeys([COPY, PRODUCT, *names]):
        try:
            worker.ask("load", name)
            worker.ask("run", 1)
            worker.ask("check")
            works[name] = worker.ask("work")
            tasks[name] = worker, timed(name)
        except Exception as error:
            found[name] = error
    samples = interleaved(tasks, rounds=settings["rounds"], seconds=settings["seconds"])
    for name, work in works.items():
        bound = PRODUCT if "flop" in work else COPY
        (unit,) = work
        at_bound = [taken * work[unit] / works[bound][unit] for taken in samples[bound]]
        found[name] = samples[name], {"about": worker.about, "yardstick": sorted(at_bound)[len(at_bound) // 2], **work}
    pool.drop("operations")
    return found


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(request, compare, pool, settings, name):
    if name == ADAM_BY_NUMBA and importlib.util.find_spec("numba") is None:
        skip(request, GROUP, name, f"numba is not installed ({INSTALL['numba']})")
    compare(GROUP, name, lambda names: measure_operations(pool, names, settings))
