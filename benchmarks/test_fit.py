"""(b) A whole fit, by epochs: the notebook's network on its penguins, and 60,000 rows of 784 numbers; rows shuffled.

The floor is that of the matrix products of the same number of steps. Each peer's first steps, in the order of the data,
are verified.
"""

import pytest
from conftest import skip
from networks import PENGUINS, SYNTHETIC, Case, describe
from peers import FITS, FLOOR, PEERS
from pool import check_steps, interleaved


def measure_epochs(pool, names, case: Case, settings, *, epochs):
    found, tasks, extras = {}, {}, {}
    for name, worker in pool.start(names).items():
        worker.resume()
        try:
            extras[name] = {"worst_error_by_bound": check_steps(worker, case), "about": worker.about}
            if name != FLOOR:
                worker.ask("shuffle")
            steps = case.batches * epochs
            worker.ask("run", case.batches)
            tasks[name] = worker, lambda worker, steps=steps: worker.ask("time", "run", (), steps) / epochs
        except Exception as error:
            found[name] = error
        worker.pause()
    samples = interleaved(tasks, rounds=settings["rounds"], seconds=settings["seconds"])
    return found | {name: (samples[name], extras[name]) for name in tasks}


@pytest.mark.parametrize("name", [FLOOR, *FITS])
def test_an_epoch_of_the_penguins(request, compare, pool, settings, name):
    group = "an epoch of the penguins, L1 and L2 (of 10)"
    if not PEERS[name].penalties:
        skip(request, group, name, "has no L1")

    def measure(names):
        return measure_epochs(pool, [name for name in names if PEERS[name].penalties], PENGUINS, settings, epochs=10)

    compare(group, name, measure)


@pytest.mark.slow
@pytest.mark.parametrize("name", [FLOOR, *FITS])
def test_an_epoch_of_60_000_rows(compare, pool, settings, name):
    group = f"an epoch of {describe(SYNTHETIC)}"
    compare(group, name, lambda names: measure_epochs(pool, names, SYNTHETIC, settings, epochs=1))
