"""A second thread: when there is one, and that what it does is the same to the bit."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minidl import callbacks, fused_update, threads, utils
from minidl.layers import Dense, Dropout
from minidl.models import Sequential


def trained(x, y, steps=6):
    utils.set_random_seed(1)
    model = Sequential(
        [Dense(70, "relu", kernel_regularizer="l1l2"), Dropout(0.3), Dense(60, "tanh"), Dense(1, "sigmoid")]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=16, epochs=steps // 2, verbose=0, callbacks=[callbacks.History()])
    return model.get_state(), history.history


def test_an_update_by_two_threads_has_the_same_bits(monkeypatch, rng):
    x, y = rng.normal(size=(32, 50)).astype("float32"), rng.integers(0, 2, 32)
    state, history = trained(x, y)
    idents, apply = set(), np.sqrt
    monkeypatch.setattr(fused_update, "LARGE", 1000)
    monkeypatch.setattr(threads, "is_spare", lambda: True)
    monkeypatch.setattr(
        np, "sqrt", lambda *args, **named: (idents.add(threading.get_ident()), apply(*args, **named))[1]
    )
    in_two, history_in_two = trained(x, y)
    assert len(idents) == 2 and history_in_two == history
    assert in_two.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(in_two[name], array)


def test_the_second_thread_has_the_callers_settings_and_its_errors_are_raised():
    done, number = [], np.float32(3e38)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        threads.in_two_threads([lambda: done.append("own")], [lambda: number * number, lambda: done.append("never")])
    with np.errstate(over="ignore"):
        threads.in_two_threads([], [lambda: number * number])
    with pytest.raises(ZeroDivisionError):  # of the caller's own: the other has come to its end all the same
        threads.in_two_threads([lambda: 1 / 0], [lambda: time.sleep(0.05), lambda: done.append("other")])
    assert done == ["own", "other"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_a_second_thread_of_its_own():
    script = """
import os
from minidl import threads
def step():
    found = []
    threads.in_two_threads([lambda: found.append(1)], [lambda: found.append(2)])
    assert sorted(found) == [1, 2]
step()
child = os.fork()
step()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(
    "before, given, found",
    [("", None, str(threads.SHORT)), ("import numpy", None, "None"), ("", "27", "27"), ("import numpy", "18", "18")],
)
def test_the_wait_of_openblas_is_short_where_minidl_comes_first(before, given, found):
    script = f"{before}\nimport minidl, os\nprint(os.environ.get('OPENBLAS_THREAD_TIMEOUT'))"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"}
    environment |= {} if given is None else {"OPENBLAS_THREAD_TIMEOUT": given}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == found


@pytest.mark.parametrize(
    "cores, blas, environment, spare",
    [
        (2, "scipy-openblas", {"OPENBLAS_THREAD_TIMEOUT": str(threads.SHORT)}, True),
        (8, "openblas", {"OPENBLAS_THREAD_TIMEOUT": "4", "OMP_NUM_THREADS": "2"}, True),
        (1, "openblas", {"OPENBLAS_THREAD_TIMEOUT": "20"}, False),
        (2, "openblas", {}, False),
        (2, "openblas", {"OPENBLAS_THREAD_TIMEOUT": "26"}, False),
        (2, "openblas", {"OPENBLAS_THREAD_TIMEOUT": "soon"}, False),
        (2, "accelerate", {"OPENBLAS_THREAD_TIMEOUT": "20"}, False),
        (2, "openblas", {"OPENBLAS_THREAD_TIMEOUT": "20", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}, False),
        (2, "openblas", {"OPENBLAS_THREAD_TIMEOUT": "20", "OMP_NUM_THREADS": "1"}, False),
    ],
)
def test_when_there_is_a_second_thread(monkeypatch, cores, blas, environment, spare):
    for name in ("OPENBLAS_THREAD_TIMEOUT", *threads.LIMITS):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(np, "show_config", lambda mode: {"Build Dependencies": {"blas": {"name": blas}}})
    assert threads.is_spare() is spare
