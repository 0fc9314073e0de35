"""(a) One training step: forward, cross-entropy, backward, Adam; plain, and with the notebook's L1, L2 and dropout.

A peer whose steps are not those of verify.py fails. The rows that say fit are a whole fit's time by its steps.
"""

import pytest
from conftest import skip
from networks import CASES, describe
from peers import PEERS
from pool import check_steps, interleaved, step_task

SLOW = {"D", "E"}
PLAIN = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES]
NOTEBOOK = [pytest.param(name, marks=pytest.mark.slow if name != "A" else ()) for name in CASES]


def measure_steps(pool, names, case, settings, *, steps=3):
    """For each peer (samples, extra), or the error that it made."""
    found, tasks, extras = {}, {}, {}
    workers = pool.start(names)
    for name, worker in workers.items():
        worker.resume()
        try:
            extras[name] = {
                "worst_error_by_bound": check_steps(worker, case, steps=steps),
                "about": worker.about,
                "flop": case.flop,
                "parameters": case.parameters,
            }
            tasks[name] = worker, step_task(worker, case, round_seconds=settings["round_seconds"])
        except Exception as error:
            found[name] = error
        worker.pause()
    samples = interleaved(tasks, rounds=settings["rounds"], seconds=settings["seconds"])
    return found | {name: (samples[name], extras[name]) for name in tasks}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("case", PLAIN)
def test_step(compare, pool, settings, name, case):
    case = CASES[case]
    steps = 1 if case.name == "E" else 3  # a step of E takes a second in float64
    compare(describe(case), name, lambda names: measure_steps(pool, names, case, settings, steps=steps))


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("case", NOTEBOOK)
def test_step_of_the_notebook(request, compare, pool, settings, name, case):
    case = CASES[case].notebook()
    group = f"{describe(case)}, L1, L2, dropout"
    if not PEERS[name].penalties:
        skip(request, group, name, "has no L1 and no dropout")

    def measure(names):
        names = [name for name in names if PEERS[name].penalties]
        return measure_steps(pool, names, case, settings, steps=1 if case.name == "E" else 3)

    compare(group, name, measure)
