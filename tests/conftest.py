"""What every test has: random numbers with a fixed seed, and minidl's settings back as they were."""

import os
import random as python_random
import signal

import numpy as np
import pytest
from hypothesis import settings

from minidl import config, naming, random

# No deadline: a busy machine is not a fault. In continuous integration always the same examples; elsewhere new ones.
settings.register_profile("minidl", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("minidl")

# A shell starts what it runs in the background deaf to Ctrl-C, which some tests press.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(autouse=True)
def fresh_generators():
    """The same seeds for unseeded layers in every run; afterwards the global generators as they were."""
    names = ("_global_seed", "_global_generator", "_torch_generator")
    before = {name: getattr(random, name) for name in names}
    python_state, numpy_state = python_random.getstate(), np.random.get_state()
    python_random.seed(0)
    yield
    vars(random).update(before)
    python_random.setstate(python_state)
    np.random.set_state(numpy_state)


@pytest.fixture(scope="session")
def keras():
    """Live Keras on TensorFlow."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    return pytest.importorskip("keras")
