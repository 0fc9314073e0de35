"""callbacks.py: the order of the hooks, History, and what is printed."""

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_same

from minidl.callbacks import Callback, ProgbarLogger
from minidl.callbacks.progbar_logger import figures
from minidl.layers import Dense, Dropout, Input
from minidl.models import Sequential

X = np.linspace(-1, 1, 40).reshape(10, 4)
Y = (X[:, 0] > 0) * 1


@pytest.fixture
def model():
    model = Sequential([Input((4,)), Dense(3, activation="relu"), Dropout(0.2), Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


class Recorder(Callback):
    def __init__(self, events, name=""):
        self.events, self.name = events, name

    def record(self, hook, number, logs):
        self.events.append((self.name + hook, number, list(logs or {})))

    def on_train_begin(self, logs=None):
        self.record("train_begin", None, logs)

    def on_train_end(self, logs=None):
        self.record("train_end", None, logs)

    def on_epoch_begin(self, epoch, logs=None):
        self.record("epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.record("epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        self.record("batch_begin", batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self.record("batch_end", batch, logs)


def test_order_of_hooks(model):
    events = []
    model.fit(X, Y, batch_size=5, epochs=2, validation_data=(X, Y), verbose=0, callbacks=[Recorder(events)])
    step, epoch = ["accuracy", "loss"], ["accuracy", "loss", "val_accuracy", "val_loss"]

    def of_epoch(number):
        return [
            ("epoch_begin", number, []),
            *[event for b in (0, 1) for event in (("batch_begin", b, []), ("batch_end", b, step))],
            ("epoch_end", number, epoch),
        ]

    assert events == [("train_begin", None, []), *of_epoch(0), *of_epoch(1), ("train_end", None, epoch)]


def test_callbacks_run_in_the_order_given_with_params_and_model(model):
    events = []
    first, second = Recorder(events, "first "), Recorder(events, "second ")
    model.fit(X, Y, batch_size=4, epochs=1, verbose=0, callbacks=(first, second))
    assert [name for name, *_ in events[:2]] == ["first train_begin", "second train_begin"]
    assert first.params == {"verbose": 0, "epochs": 1, "steps": 3}
    assert first.model is second.model is model


def test_a_single_callback_needs_no_list(model):
    events = []
    model.fit(X, Y, verbose=0, callbacks=Recorder(events))
    assert events


def test_history_maps_names_in_keras_s_order_to_a_value_an_epoch(model):
    history = model.fit(X, Y, epochs=3, validation_data=(X, Y), verbose=0)
    assert list(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert history.epoch == [0, 1, 2]
    assert history.model is model
    for values in history.history.values():
        assert len(values) == 3
        assert all(type(value) is float and np.isfinite(value) for value in values)


class StopAt(Callback):
    def __init__(self, hook, number):
        setattr(self, hook, self.stop)
        self.number = number

    def stop(self, number, logs=None):
        if number == self.number:
            self.model.stop_training = True


def test_stop_after_an_epoch(model):
    history = model.fit(X, Y, epochs=9, verbose=0, callbacks=[StopAt("on_epoch_end", 1)])
    assert history.epoch == [0, 1]
    # and the next fit runs to its end
    assert model.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]


def test_stop_after_a_step_still_ends_its_epoch(model):
    class Stop(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.stop_training = True

    events = []
    history = model.fit(X, Y, batch_size=2, epochs=9, verbose=0, callbacks=[Stop(), Recorder(events)])
    assert model.optimizer.iterations == 2
    assert history.epoch == [0]
    assert [name for name, *_ in events[-3:]] == ["batch_end", "epoch_end", "train_end"]


def test_logs_of_a_step_are_the_means_so_far(model):
    seen = []

    class Logs(Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs["loss"])

    history = model.fit(X, Y, batch_size=3, verbose=0, callbacks=[Logs()])
    assert len(seen) == 4
    assert seen[-1] == history.history["loss"][0]
    assert len(set(seen)) == 4


@pytest.mark.parametrize(
    "hook", ["on_train_begin", "on_epoch_begin", "on_train_batch_end", "on_epoch_end", "on_train_end"]
)
def test_after_an_exception_in_a_callback_the_model_is_usable(model, hook, monkeypatch):
    def fail(*arguments, **logs):
        raise RuntimeError("from the callback")

    bar = ProgbarLogger()
    bar.UPDATES_PER_SECOND = np.inf
    callback = type("Fails", (Callback,), {hook: fail})()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(RuntimeError, match="from the callback"):
        model.fit(X, Y, verbose=1, callbacks=[bar, callback])
    assert bar.bar is None  # taken down, and the cursor is back
    steps = model.optimizer.iterations
    model.fit(X, Y, verbose=1)
    assert model.optimizer.iterations == steps + 1
    assert np.isfinite(model.predict(X, verbose=0)).all()


# What is printed -----------------------------------------------------------------------------------------

LINE = r"Epoch {}/2 - 2 steps - \d+\.\d\ds - accuracy: [01]\.\d{{4}} - loss: \d\.\d{{4}}"


def test_verbose_0_prints_nothing(model, capsys):
    model.fit(X, Y, verbose=0)
    model.evaluate(X, Y, verbose=0)
    model.predict(X, verbose=0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_into_a_log_one_plain_line_an_epoch(model, capsys, verbose):
    model.fit(X, Y, batch_size=5, epochs=2, verbose=verbose)
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.split("\n")
    assert len(lines) == 3 and lines[2] == ""
    for number, line in enumerate(lines[:2], 1):
        assert re.fullmatch(LINE.format(number), line), line


def test_validation_is_in_the_line(model, capsys):
    model.fit(X, Y, validation_data=(X, Y), verbose=1)
    figures_ = r"accuracy: \S+ - loss: \S+ - val_accuracy: \S+ - val_loss: \S+"
    assert re.search(rf"- {figures_}\n$", capsys.readouterr().out)


def test_evaluate_and_predict_print_a_line(model, capsys):
    model.evaluate(X, Y, batch_size=4, verbose=1)
    assert re.fullmatch(r"3 steps - \d+\.\d\ds - accuracy: \S+ - loss: \S+\n", capsys.readouterr().out)
    model.predict(X, batch_size=4, verbose=1)
    assert re.fullmatch(r"3 steps - \d+\.\d\ds\n", capsys.readouterr().out)


def test_figures():
    assert figures({"accuracy": 0.86471, "loss": 1 / 3}) == "accuracy: 0.8647 - loss: 0.3333"


PROGRAM = """
import time, numpy as np
from minidl import Sequential
from minidl.callbacks import Callback
from minidl.layers import Dense, Input

class Slow(Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.06)

model = Sequential([Input((4,)), Dense(1, activation="sigmoid")])
model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
model.fit(np.ones((10, 4)), np.ones(10), batch_size=1, epochs=2, verbose={verbose}, callbacks=[Slow()])
"""


def on_a_terminal(program):
    """What a program writes when its standard output is a (pseudo-)terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=theirs, stdin=theirs, env=environment) as process:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            parts.append(part)
    os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode()


def test_on_a_terminal_a_live_bar():
    text = on_a_terminal(PROGRAM.format(verbose=1))
    assert "\x1b[" in text and "━" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert re.search(r"Epoch 1/2 ━.* [2-9]/10 accuracy: \d\S* - loss: \d", plain)  # it was under way
    assert len(re.findall(r"Epoch \d/2 - 10 steps - \d\.\d\ds - accuracy: \S+ - loss: \S+\r\n", plain)) == 2
    assert text.count("\x1b[?25h") >= 2  # the cursor is shown again after each bar


def test_on_a_terminal_verbose_2_has_no_bar():
    text = on_a_terminal(PROGRAM.format(verbose=2))
    assert "━" not in text and "\x1b" not in text
    assert text.count("\r\n") == 2


def test_progress_leaves_the_numbers_alone(model, capsys):
    weights = model.get_weights()
    seed = model.layers[1].seed_generator.state.copy()
    results = []
    for verbose in (0, 1):
        model.set_weights(weights)
        model.layers[1].seed_generator.state[:] = seed
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        model.fit(X, Y, batch_size=3, shuffle=False, verbose=verbose)
        results.append(model.get_weights())
    for got, expected in zip(*results, strict=True):
        assert_same(got, expected)
