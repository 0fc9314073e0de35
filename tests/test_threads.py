"""A second thread: when there is one, and that what it does is the same to the bit."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minidl import callbacks, calls, fused_update, threads, utils
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
    caller, other_came, apply = threading.get_ident(), threading.Event(), np.sqrt

    def sqrt(*args, **named):
        """Adam's, with its array for the result, waits in the caller's thread until the other thread has done one."""
        if threading.get_ident() != caller:
            other_came.set()
        assert len(args) == 1 or other_came.wait(timeout=60)
        return apply(*args, **named)

    monkeypatch.setattr(calls, "PIECE", 500)
    monkeypatch.setattr(fused_update, "LARGE", 1000)
    monkeypatch.setattr(threads, "is_spare", lambda: True)
    monkeypatch.setattr(np, "sqrt", sqrt)
    in_two, history_in_two = trained(x, y)
    assert history_in_two == history
    assert in_two.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(in_two[name], array)


def test_the_second_thread_has_the_callers_settings_and_its_errors_are_raised():
    number, done = np.float32(3e38), []

    def square():
        return number * number

    def meet(then):
        barrier = threading.Barrier(2, timeout=60)
        own, other = [barrier.wait, then[0]], [barrier.wait, then[1]]
        threads.in_two_threads([(own, other), (own, other)])

    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        meet([lambda: done.append("own"), square])
    with np.errstate(over="ignore"):
        meet([int, square])
    with pytest.raises(ZeroDivisionError):  # of the caller's own: the other has come to its end all the same
        meet([lambda: 1 / 0, lambda: (time.sleep(0.05), done.append("other"))])
    assert done == ["own", "other"]


def test_each_piece_is_done_once_and_nobody_waits_with_pieces_left():
    """The caller's first piece takes until the other thread has done all the rest."""
    done, rest = [], threading.Event()

    def piece(number):
        def other():
            done.append(number)
            if len(done) >= 99:
                rest.set()

        def own():
            done.append(number)
            assert rest.wait(timeout=60)

        return [own], [other]

    threads.in_two_threads([piece(number) for number in range(100)])
    assert sorted(done) == list(range(100))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_a_second_thread_of_its_own():
    script = """
import os
from minidl import threads
def step():
    found = []
    own, other = [lambda: found.append(1)], [lambda: found.append(2)]
    threads.in_two_threads([(own, other)] * 9)
    assert len(found) == 9
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
