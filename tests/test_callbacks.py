"""callbacks.py: the order of the hooks, History, and what is printed."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import assert_same

from minidl import losses, metrics, ops
from minidl.callbacks import (
    BackupAndRestore,
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ProgbarLogger,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TerminateOnNaN,
)
from minidl.callbacks.monitor_callback import MonitorCallback
from minidl.callbacks.progbar_logger import figures
from minidl.interrupts import uncut
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


# What is called -----------------------------------------------------------------------------------------


def test_logs_of_a_step_are_asked_for_only_if_somebody_listens():
    asked = []
    quiet = CallbackList([Callback(), EarlyStopping(), LambdaCallback(on_epoch_end=print)], add_history=True)
    quiet.on_train_batch_end(0, lambda: asked.append(0))
    assert not asked
    for listening in (TerminateOnNaN(), LambdaCallback(on_train_batch_end=lambda batch, logs: None)):
        CallbackList([listening]).on_train_batch_end(0, lambda: asked.append(1) or {"loss": 1.0})
    assert asked == [1, 1]


def test_a_hook_that_is_set_as_training_begins_is_called(model):
    class Late(Callback):
        def on_train_begin(self, logs=None):
            self.on_train_batch_end = lambda batch, logs: steps.append(batch)

    steps = []
    model.fit(X, Y, batch_size=5, verbose=0, callbacks=[Late()])
    assert steps == [0, 1]


def test_a_list_used_by_hand():
    calls = []
    hooks = {
        hook: lambda *a, hook=hook, **logs: calls.append((hook, a, logs)) for hook in ("on_batch_end", "on_epoch_end")
    }
    both = CallbackList([[LambdaCallback(**hooks)], (Callback(),)], epochs=2)
    both.on_train_batch_end(1, {"b": np.float32(0.5), "a": {"inner": 2}})
    both.on_epoch_end(0)
    assert calls == [("on_batch_end", (1,), {"logs": {"inner": 2.0, "b": 0.5}}), ("on_epoch_end", (0, {}), {})]
    assert both.callbacks[1].params == {"epochs": 2}
    with pytest.raises(ValueError, match="on_train_end was called without on_train_begin"):
        both.on_train_end()


def test_a_callback_without_init_of_its_parent(model):
    class Own(Callback):
        def __init__(self):
            self.seen = self.model, self.params

    own = Own()
    assert own.seen == (None, None)
    model.fit(X, Y, verbose=0, callbacks=[own])
    assert own.model is model


def test_an_unknown_hook_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="on_epoch_end"):
        LambdaCallback(on_epoch_ends=print)


# Interrupts ---------------------------------------------------------------------------------------------


def test_ctrl_c_within_a_step_waits_for_its_end(model):
    """The optimizer is half through as the signal comes: the step is whole afterwards, and none is begun."""
    after_two = None

    def run(at):
        apply, seen = model.optimizer.apply, []

        def interrupted(arena):
            seen.append(0)
            if len(seen) == at:
                signal.raise_signal(signal.SIGINT)
            apply(arena)

        model.optimizer.apply = interrupted
        try:
            model.fit(X, Y, batch_size=3, shuffle=False, verbose=0)
        finally:
            del model.optimizer.apply

    state = model.get_state()
    with pytest.raises(KeyboardInterrupt):
        run(at=2)
    assert model.optimizer.iterations == 2
    after_two = model.get_state()
    model.set_state(state)
    stop = LambdaCallback(on_train_batch_end=lambda b, logs: setattr(model, "stop_training", b == 1))
    model.fit(X, Y, batch_size=3, shuffle=False, verbose=0, callbacks=[stop])
    expected = model.get_state()
    for name in expected:
        assert_same(after_two[name], expected[name])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_between_steps_is_at_once_and_the_bar_is_taken_down(model, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    bar = ProgbarLogger()
    bar.UPDATES_PER_SECOND = np.inf

    def interrupt(batch, logs):
        if batch == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=2, verbose=1, callbacks=[bar, LambdaCallback(on_train_batch_begin=interrupt)])
    assert model.optimizer.iterations == 1
    assert bar.bar is None
    model.fit(X, Y, verbose=0)


def test_the_users_own_handler_is_called_and_kept():
    calls = []
    before = signal.signal(signal.SIGINT, lambda *arguments: calls.append(0))
    try:
        with uncut() as whole:
            with whole:
                signal.raise_signal(signal.SIGINT)
                assert not calls
            assert calls == [0]
            mine = lambda *arguments: None  # noqa: E731
            signal.signal(signal.SIGINT, mine)
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_fit_in_another_thread(model):
    thread = threading.Thread(target=lambda: model.fit(X, Y, verbose=0))
    thread.start()
    thread.join()
    assert model.optimizer.iterations == 1


# What the callbacks do, beyond test_callbacks_against_keras.py ---------------------------------------------


@pytest.mark.parametrize(
    ("monitor", "better"),
    [
        ("loss", np.less),
        ("val_loss", np.less),
        ("val_accuracy", np.greater),
        ("accuracy", np.greater),
        ("mse", np.less),
    ],
)
def test_what_is_better_is_known_by_name(model, monitor, better):
    model.compile("adam", "binary_crossentropy", metrics=["accuracy", metrics.MeanSquaredError("mse")])
    callback = EarlyStopping(monitor, patience=9)
    model.fit(X, Y, validation_data=(X, Y), verbose=0, callbacks=[callback])
    assert callback.monitor_op is better


@pytest.mark.parametrize("monitor", ["val_false_positives", "val_nothing"])
def test_what_is_better_is_not_known(model, monitor):
    model.compile("adam", "binary_crossentropy", metrics=[metrics.FalsePositives(name="false_positives")])
    with pytest.raises(ValueError, match=rf"EarlyStopping: .*monitor='{monitor}'.*mode='max'"):
        model.fit(X, Y, validation_data=(X, Y), verbose=0, callbacks=[EarlyStopping(monitor)])


def test_an_unknown_mode_is_auto_with_a_warning():
    with pytest.warns(UserWarning, match="'up' is taken for 'auto'"):
        assert EarlyStopping(mode="up").mode == "auto"


def test_improvements_are_compared_in_floatx():
    callback = MonitorCallback("loss")
    callback.resolve_mode()
    assert not callback.is_improvement(1 - 1e-9, 1.0)  # equal in float32
    assert callback.is_improvement(1 - 1e-7, 1.0)


@pytest.mark.parametrize("schedule", [lambda epoch: 1, lambda epoch, rate: "fast"])
def test_a_schedule_must_return_a_float(model, schedule):
    with pytest.raises(ValueError, match="must return a float"):
        model.fit(X, Y, verbose=0, callbacks=[LearningRateScheduler(schedule)])


def test_what_callbacks_say(model, capsys):
    model.compile("sgd", "binary_crossentropy")
    told = [
        LearningRateScheduler(lambda epoch: 0.5, verbose=1),
        ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=9, verbose=1),
        EarlyStopping("loss", min_delta=9, patience=1, restore_best_weights=True, verbose=1),
    ]
    model.fit(X, Y, epochs=3, verbose=0, callbacks=told)
    assert capsys.readouterr().out.split("\n") == [
        "",
        "Epoch 1: LearningRateScheduler setting learning rate to 0.5.",
        "",
        "Epoch 2: LearningRateScheduler setting learning rate to 0.5.",
        "",
        "Epoch 2: ReduceLROnPlateau reducing learning rate to 0.25.",
        "Epoch 2: early stopping",
        "Restoring model weights from the end of the best epoch: 1.",
        "",
    ]


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: ReduceLROnPlateau(factor=1.0), ValueError, "factor must be below 1; got 1.0"),
        (lambda: ReduceLROnPlateau(epsilon=1e-4), ValueError, "'epsilon'"),
        (lambda: ModelCheckpoint("model"), ValueError, r"must end in \.keras; got 'model'"),
        (lambda: ModelCheckpoint("model.h5"), NotImplementedError, "legacy"),
        (lambda: ModelCheckpoint("m.keras", save_weights_only=True), ValueError, r"must end in \.weights\.h5"),
        (lambda: ModelCheckpoint("m.keras", save_freq="batch"), ValueError, "save_freq"),
        (lambda: BackupAndRestore(""), ValueError, "backup_dir"),
        (lambda: BackupAndRestore("folder", save_freq=False), ValueError, "save_freq"),
    ],
)
def test_arguments_that_are_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_checkpoints_that_cannot_be_written(model, tmp_path):
    (tmp_path / "1.keras").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        model.fit(X, Y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "{epoch}.keras")])
    with pytest.raises(KeyError, match=r"'val_loss' in filepath=.*'epoch', 'accuracy', 'loss'"):
        model.fit(X, Y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "{val_loss}.keras")])


def test_the_best_of_steps_is_saved_before_the_first_epoch_ends(model, tmp_path):
    """Keras fails here: it finds out what is better only at an epoch's end."""
    best = ModelCheckpoint(tmp_path / "best.keras", "loss", save_best_only=True, save_freq=1)
    model.fit(X, Y, batch_size=5, verbose=0, callbacks=[best])
    assert (tmp_path / "best.keras").exists()


def test_terminate_on_nan_lets_a_loss_through_that_fit_would_raise_for(model, capsys):
    model.arena.theta[:] = np.inf
    with pytest.raises(FloatingPointError), np.errstate(all="ignore"):
        model.fit(X, Y, verbose=0)
    with np.errstate(all="ignore"):
        history = model.fit(X, Y, epochs=3, batch_size=5, verbose=0, callbacks=[TerminateOnNaN()])
    assert history.epoch == [0] and np.isnan(history.history["loss"][0])
    assert capsys.readouterr().out == "Batch 0: Invalid loss, terminating training\n"
    with pytest.raises(ValueError, match="expected finite numbers"):  # data is checked as ever
        model.fit(X * np.nan, Y, verbose=0, callbacks=[TerminateOnNaN()])


def test_swap_by_sums():
    a, b = np.array([1.5, -2.0, 1.0]), np.array([0.25, 4.0, 2.0**-54])
    ops.swap_by_sums(a, b)
    assert_same(a, np.array([0.25, 4.0, 0.0]))  # 1 + 2⁻⁵⁴ and 1 − 2⁻⁵⁴ are rounded to 1
    assert_same(b, np.array([1.5, -2.0, 1.0]))


def test_an_exception_puts_the_trained_weights_back(model):
    model.compile("adam", losses.BinaryCrossentropy())
    model.optimizer.use_ema = True

    def fail(batch, logs):
        raise RuntimeError("in the validation")

    swap = SwapEMAWeights()
    model.fit(X, Y, verbose=0)
    weights, averages = model.get_weights(), model.optimizer.averages.copy()
    with pytest.raises(RuntimeError, match="in the validation"):
        model.evaluate(X, Y, verbose=0, callbacks=[swap, LambdaCallback(on_test_batch_begin=fail)])
    for got, expected in zip(model.get_weights(), weights, strict=True):
        # two swaps round six times, each sums of two numbers below 2: each by 2⁻²⁴ of at most 4
        np.testing.assert_allclose(got, expected, rtol=0, atol=6 * 4 * 2.0**-24)
    np.testing.assert_allclose(model.optimizer.averages, averages, rtol=0, atol=6 * 4 * 2.0**-24)


def test_an_exception_closes_the_csv_file(model, tmp_path):
    logger = CSVLogger(tmp_path / "log.csv")
    with pytest.raises(RuntimeError):
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[logger, LambdaCallback(on_epoch_begin=failing_at(1))])
    assert logger.csv_file.closed
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2


def failing_at(number):
    def fail(epoch, logs=None):
        if epoch == number:
            raise RuntimeError("interrupted")

    return fail


# BackupAndRestore -----------------------------------------------------------------------------------------

ARGUMENTS = {"batch_size": 3, "epochs": 5, "shuffle": False, "verbose": 0}


def new_model():
    """As a new program makes it: other weights, and other masks to come."""
    model = Sequential([Input((4,)), Dense(3, activation="relu"), Dropout(0.2), Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def interrupted_at(epoch, model, folder, **arguments):
    callbacks = [BackupAndRestore(folder, **arguments), LambdaCallback(on_epoch_begin=failing_at(epoch))]
    with pytest.raises(RuntimeError, match="interrupted"):
        model.fit(X, Y, callbacks=callbacks, **ARGUMENTS)


def test_resumed_is_as_never_interrupted(model, tmp_path):
    """Weights, Adam's slots and the dropout masks: to the bit."""
    pytest.importorskip("h5py")
    start = model.get_state()
    model.fit(X, Y, **ARGUMENTS)
    expected = model.get_state()
    other = new_model()
    other.set_state(start)
    interrupted_at(3, other, tmp_path / "backup")
    resumed = new_model()
    history = resumed.fit(X, Y, callbacks=[BackupAndRestore(tmp_path / "backup")], **ARGUMENTS)
    assert history.epoch == [3, 4]
    for name, got in resumed.get_state().items():
        assert_same(got, expected[name])
    assert not (tmp_path / "backup").exists()
    assert resumed.fit(X, Y, **ARGUMENTS).epoch == [0, 1, 2, 3, 4]  # in Keras it would start at 3 again


@pytest.mark.parametrize(("at", "epoch"), [("weights", 2), ("metadata", 3)])
def test_killed_between_the_two_files(model, tmp_path, monkeypatch, at, epoch):
    """As the state of three epochs is saved: the weights and the epoch belong together whichever file was replaced."""
    pytest.importorskip("h5py")
    folder = tmp_path / "backup"
    replace = os.replace

    def killed(source, target):
        if model.optimizer.iterations == 12 and str(target).endswith(f"{at}.json" if at == "metadata" else f"{at}.h5"):
            raise SystemExit
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(SystemExit):
        model.fit(X, Y, callbacks=[BackupAndRestore(folder)], **ARGUMENTS)
    monkeypatch.undo()
    resumed = new_model()
    history = resumed.fit(X, Y, callbacks=[BackupAndRestore(folder)], **ARGUMENTS)
    assert history.epoch == list(range(epoch, 5))
    assert resumed.optimizer.iterations == 20


@pytest.mark.parametrize("double", [True, False])
def test_a_damaged_backup(model, tmp_path, double):
    pytest.importorskip("h5py")
    folder = tmp_path / "backup"
    interrupted_at(3, model, folder, double_checkpoint=double)
    (folder / "latest.weights.h5").write_bytes(b"no weights")
    again = BackupAndRestore(folder, double_checkpoint=double)
    if double:
        assert new_model().fit(X, Y, callbacks=[again], **ARGUMENTS).epoch == [2, 3, 4]
    else:
        with pytest.raises(ValueError, match=r"latest\.weights\.h5"):
            new_model().fit(X, Y, callbacks=[again], **ARGUMENTS)


def test_backups_within_an_epoch_start_it_anew(model, tmp_path):
    """Also in a fit that is itself resumed, where Keras writes epoch 0."""
    pytest.importorskip("h5py")
    folder = tmp_path / "backup"
    interrupted_at(2, model, folder, save_freq=3)

    def fail(batch, logs):
        if batch == 3:
            raise RuntimeError("interrupted")

    for _ in range(2):
        callbacks = [BackupAndRestore(folder, save_freq=1), LambdaCallback(on_train_batch_begin=fail)]
        with pytest.raises(RuntimeError, match="interrupted"):
            new_model().fit(X, Y, callbacks=callbacks, **ARGUMENTS)
    assert new_model().fit(X, Y, callbacks=[BackupAndRestore(folder)], **ARGUMENTS).epoch[0] == 1


def test_a_backup_needs_a_model_that_is_built(tmp_path):
    model = Sequential([Dense(1)])
    model.compile("adam", "mse")
    callback = BackupAndRestore(tmp_path / "backup")
    callback.set_model(model)
    with pytest.raises(ValueError, match="is not built"):
        callback.on_train_begin()
