"""A sample of the planted faults and of the rewrites; all of them, each in its own process: make faults."""

import pytest
from faults.catalogue import FAULTS, X, build
from faults.rewrites import REWRITES
from faults.running import planted, tried

pytestmark = pytest.mark.keras

COUNTED = [fault for fault in FAULTS if "partial batch dropped" in fault.name or "too many" in fault.name]
SAMPLE = FAULTS[:: len(FAULTS) // 24]
SAMPLE += [fault for fault in COUNTED if fault not in SAMPLE]
SAME = [rewrite for rewrite in REWRITES if "XLA" not in rewrite.name][::4]


@pytest.fixture(scope="module")
def tf(keras):
    return pytest.importorskip("tensorflow")


def test_there_are_enough_and_their_names_differ():
    names = [fault.name for fault in [*FAULTS, *REWRITES]]
    assert len(FAULTS) >= 80 and len(REWRITES) >= 30 and len(set(names)) == len(names)


@pytest.mark.parametrize("fault", SAMPLE, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_and_named(keras, tf, fault):
    result = tried(keras, tf, fault)
    assert result.killed and result.localised, result


@pytest.mark.parametrize("rewrite", SAME, ids=lambda rewrite: rewrite.name)
def test_a_rewrite_is_not_flagged(keras, tf, rewrite):
    result = tried(keras, tf, rewrite)
    assert result.said == "right"


def test_nothing_of_a_fault_stays_behind(keras, tf):
    def trained():
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(1)
        model, y = build(keras)
        model.fit(X, y, epochs=2, verbose=0)
        return [weight.tobytes() for weight in model.get_weights()]

    before = trained()
    for fault in FAULTS:
        with planted(keras, tf, fault):
            pass
    assert trained() == before
