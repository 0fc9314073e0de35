"""What every test has: random numbers with a fixed seed, and minidl's settings back as they were."""

import numpy as np
import pytest

from minidl import config, naming


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def fresh_settings():
    """Undo what a test sets (floatx, epsilon, …). Names count anew from dense, as in a new program."""
    before = dict(vars(config))
    naming.reset_names()
    yield
    vars(config).update(before)
