"""Callbacks against live Keras: the same calls with the same logs, and the same effect on training.

The models are made so that nothing rounds: one weight w with inputs 1 and labels 1 is (w + 1)/2 after a step of mean
squared error with a learning rate of 1/4, so the loss is a power of 4, and all figures are equal.
"""

import csv
import json
import warnings

import numpy as np
import pytest

import minidl
from minidl.callbacks.callback import HOOKS

pytestmark = pytest.mark.keras

X, Y = np.ones((8, 1), np.float32), np.ones((8, 1), np.float32)
VALIDATION = X[:4], np.full((4, 1), 0.75, np.float32)  # its loss over the epochs: 1/16, 0, 1/64, 9/256, …


def compiled(k, optimizer=None, **arguments):
    model = k.Sequential([k.layers.Input((1,)), k.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    given = {"metrics": ["mae"], "run_eagerly": True, **arguments}  # eager: tracing Keras's graphs takes longer
    model.compile(optimizer or k.optimizers.SGD(0.25), "mse", **given)
    return model


def fit(model, callbacks=None, **arguments):
    """batch_size 8 makes an epoch one step."""
    given = {"batch_size": 8, "epochs": 6, "verbose": 0, "validation_data": VALIDATION, **arguments}
    return model.fit(X, Y, callbacks=callbacks, **given)


def plain(logs):
    """In their order."""
    return [(name, np.asarray(value).tolist()) for name, value in (logs or {}).items()]


def recorder(k):
    """A callback that notes all its calls: (hook, number, logs)."""
    calls = []

    def noting(hook):
        if "batch" in hook or "epoch" in hook:
            return lambda self, number, logs=None: calls.append((hook, number, plain(logs)))
        return lambda self, logs=None: calls.append((hook, None, plain(logs)))

    hooks = [hook for hook in HOOKS if hook not in ("on_batch_begin", "on_batch_end")]
    return type("Recorder", (k.callbacks.Callback,), {hook: noting(hook) for hook in hooks})(), calls


def outcome(model, history):
    """What training was: epochs, logs, the weight, the learning rate, the steps."""
    return (
        history.epoch,
        list(history.history.items()),
        history.params,
        np.asarray(model.get_weights()[0]).tolist(),
        float(model.optimizer.learning_rate),
        int(model.optimizer.iterations),
    )


# ------------------------------------------------------------------------------------------- the calls


def calls_of_fit(k, _, **arguments):
    callback, calls = recorder(k)
    history = fit(compiled(k), [callback], **arguments)
    return calls, history.epoch, callback.params


def calls_without_validation(k, folder):
    return calls_of_fit(k, folder, validation_data=None, epochs=2, batch_size=2)


def calls_with_validation(k, folder):
    return calls_of_fit(k, folder, epochs=3, batch_size=4, validation_batch_size=2, validation_freq=2)


def calls_from_an_epoch(k, folder):
    return calls_of_fit(k, folder, epochs=4, initial_epoch=2)


def calls_of_no_epoch(k, folder):
    return calls_of_fit(k, folder, epochs=0)


def calls_of_evaluate_and_predict(k, _):
    model = compiled(k)
    callback, calls = recorder(k)
    model.evaluate(X, Y, batch_size=3, verbose=0, callbacks=[callback])
    found = dict(callback.params)
    model.predict(X, batch_size=3, verbose=0, callbacks=[callback])
    return calls, found, callback.params


def calls_an_execution(k, folder):
    """steps_per_execution=2 of three batches, in all three loops; an execution runs past the data's end."""
    model = compiled(k, steps_per_execution=2, run_eagerly=False, metrics=[k.metrics.MeanAbsoluteError("an_error")])
    callback, calls = recorder(k)
    fit(model, [callback], epochs=1, batch_size=3, validation_batch_size=2)
    model.evaluate(X, Y, batch_size=3, verbose=0, callbacks=[callback])
    model.predict(X, batch_size=3, verbose=0, callbacks=[callback])
    return calls


def calls_of_a_generator(k, folder):
    """How many steps an epoch has is not known before it has been run."""
    callback, calls = recorder(k)
    batches = ((X[:2], Y[:2]) for _ in range(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both say that the data ran out
        compiled(k).fit(batches, epochs=1, verbose=0, callbacks=[callback], shuffle=False)
    return calls, callback.params


def calls_of_a_callback_list(k, _):
    """One that is handed to fit and evaluate is used as it is, with its own params."""
    callback, calls = recorder(k)
    model = compiled(k)
    one = k.callbacks.CallbackList([callback], add_history=True, model=model, verbose=0, epochs=7, steps=3)
    history = fit(model, one, epochs=2)
    return calls, history.epoch, callback.params, model.history is history


def old_names(k, _):
    calls = []

    class Old(k.callbacks.Callback):
        def on_batch_begin(self, batch, logs=None):
            calls.append((batch, plain(logs)))

        def on_batch_end(self, batch, logs=None):
            calls.append((batch, plain(logs)))

    fit(compiled(k), [Old()], epochs=1, batch_size=4)
    return calls


def lambdas(k, _):
    calls = []
    hooks = {
        "on_epoch_begin": lambda epoch, logs: calls.append((epoch, plain(logs))),
        "on_epoch_end": lambda epoch, logs: calls.append((epoch, plain(logs))),
        "on_train_begin": lambda logs: calls.append(plain(logs)),
        "on_train_end": lambda logs: calls.append(plain(logs)),
        "on_train_batch_begin": lambda batch, logs: calls.append((batch, plain(logs))),
        "on_train_batch_end": lambda batch, logs: calls.append((batch, plain(logs))),
        "on_test_end": lambda logs: calls.append(plain(logs)),
    }
    fit(compiled(k), [k.callbacks.LambdaCallback(**hooks)], epochs=2, batch_size=4)
    return calls


def stop_within_an_epoch(k, _):
    class Stop(k.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    callback, calls = recorder(k)
    model = compiled(k)
    return outcome(model, fit(model, [Stop(), callback], batch_size=2)), calls


def stop_an_evaluation(k, _):
    class Stop(k.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            self.model.stop_evaluating = True

        def on_predict_batch_end(self, batch, logs=None):
            self.model.stop_predicting = True

    model = compiled(k)
    callback, calls = recorder(k)
    found = model.evaluate(X, Y, batch_size=2, verbose=0, callbacks=[Stop(), callback])
    outputs = model.predict(X, batch_size=2, verbose=0, callbacks=[Stop(), callback])
    return found, outputs.shape, calls


def what_is_added_to_the_logs(k, _):
    """Later callbacks and History see it, on_train_end does not."""

    class Add(k.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["added"] = epoch + 0.5

    callback, calls = recorder(k)
    model = compiled(k)
    return outcome(model, fit(model, [Add(), callback], epochs=2)), calls


def history_that_goes_on(k, _):
    own, model = k.callbacks.History(), compiled(k)
    assert fit(model, [own], epochs=2) is own
    fit(model, [own], epochs=4, initial_epoch=2)
    return own.epoch, own.history, model.history is own


# ---------------------------------------------------------------------------------------- what they do


def early_stopping(k, **arguments):
    callback, model = k.callbacks.EarlyStopping(**arguments), compiled(k)
    found = outcome(model, fit(model, [callback]))
    return found, callback.stopped_epoch, callback.best_epoch, callback.best, callback.wait


def early_stopping_at_once(k, _):
    return early_stopping(k)


def early_stopping_restores(k, _):
    return early_stopping(k, patience=2, restore_best_weights=True)


def early_stopping_restores_though_not_stopped(k, _):
    return early_stopping(k, patience=20, restore_best_weights=True)


def early_stopping_with_min_delta(k, _):
    return early_stopping(k, monitor="loss", min_delta=0.05, patience=1)


def early_stopping_with_baseline(k, _):
    return early_stopping(k, monitor="loss", baseline=1e-3, patience=3, restore_best_weights=True)


def early_stopping_from_an_epoch(k, _):
    return early_stopping(k, start_from_epoch=3, restore_best_weights=True)


def early_stopping_by_a_metric(k, _):
    return early_stopping(k, monitor="val_mae", patience=1)


def early_stopping_upwards(k, _):
    return early_stopping(k, monitor="val_loss", mode="max", patience=1)


def early_stopping_used_twice(k, _):
    callback, model = k.callbacks.EarlyStopping(monitor="val_loss", patience=1), compiled(k)
    fit(model, [callback])
    return outcome(model, fit(model, [callback])), callback.stopped_epoch


def early_stopping_without_its_monitor(k, _):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = early_stopping(k, monitor="val_nothing", mode="min")
    return found, any("val_nothing" in str(warning.message) for warning in caught)


def reduce_lr(k, *others, **arguments):
    callback = k.callbacks.ReduceLROnPlateau(**{"factor": 0.5, "patience": 1, **arguments})
    model = compiled(k)
    return outcome(model, fit(model, [callback, *others], epochs=7)), callback.best, callback.wait


def reduce_lr_on_plateau(k, _):
    return reduce_lr(k)


def reduce_lr_with_cooldown(k, _):
    return reduce_lr(k, cooldown=2)


def reduce_lr_down_to(k, _):
    return reduce_lr(k, min_lr=0.0625, patience=2)


def reduce_lr_with_min_delta(k, _):
    return reduce_lr(k, monitor="loss", min_delta=0.01)


def schedule_of_both(k, _):
    model = compiled(k)
    schedule = k.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch % 2 else rate)
    return outcome(model, fit(model, [schedule]))


def schedule_of_the_epoch(k, _):
    model = compiled(k)
    return outcome(model, fit(model, [k.callbacks.LearningRateScheduler(lambda epoch: 2.0 ** -(epoch + 2))]))


def schedule_into_csv(k, folder):
    """Both add to the logs, and the later CSVLogger writes it."""
    model, path = compiled(k), folder / "log.csv"
    schedule = k.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    fit(model, [schedule, k.callbacks.CSVLogger(path)], epochs=3)
    return path.read_text()


def csv_without_validation_at_first(k, folder):
    model, path = compiled(k), folder / "log.csv"
    logger = k.callbacks.CSVLogger(path, separator=";", append=True)
    fit(model, [logger], epochs=4, validation_freq=2)
    fit(model, [logger], epochs=2)
    return [list(row) for row in csv.reader(path.read_text().splitlines(), delimiter=";")]


def csv_of_lists(k, folder):
    path = folder / "log.csv"
    logger, model = k.callbacks.CSVLogger(str(path)), compiled(k)

    class Add(k.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs |= {"values": [1, 2.5], "text": "some", "number": np.array(3.0)}

    fit(model, [Add(), logger], epochs=1)
    return path.read_text()


def nan_at(k, **arguments):
    """Infinite after some steps of a learning rate that is too high."""
    callback, calls = recorder(k)
    model = compiled(k, k.optimizers.SGD(1e12))
    nan = k.callbacks.TerminateOnNaN(**arguments)
    with np.errstate(all="ignore"):
        history = fit(model, [nan, callback], epochs=5, batch_size=2, validation_data=None)
    return history.epoch, repr(history.history), repr(calls)


def terminate_on_nan(k, _):
    return nan_at(k)


def terminate_on_nan_with_an_error(k, _):
    with pytest.raises(RuntimeError):
        nan_at(k, raise_error=True)


def swap(k, *others, epochs=3, **arguments):
    model = compiled(k, k.optimizers.SGD(0.25, use_ema=True, ema_momentum=0.5))
    callback = k.callbacks.SwapEMAWeights(**arguments)
    weights = []
    seen = k.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(np.asarray(model.get_weights()[0]).tolist()),
    )
    found = outcome(model, fit(model, [callback, seen, *others], epochs=epochs))
    return found, weights, model.evaluate(*VALIDATION, verbose=0, callbacks=[callback])


def swap_ema_weights(k, _):
    return swap(k)


def swap_ema_weights_on_epoch(k, _):
    return swap(k, swap_on_epoch=True)


def swap_ema_weights_on_epoch_stopped(k, _):
    return swap(k, k.callbacks.EarlyStopping(monitor="val_loss"), swap_on_epoch=True, epochs=6)


def swap_ema_weights_without_averages(k, _):
    with pytest.raises(ValueError, match="use_ema"):
        fit(compiled(k), [k.callbacks.SwapEMAWeights()])


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def checkpoint(k, folder, name, **arguments):
    callback = k.callbacks.ModelCheckpoint(folder / name, **arguments)
    fit(compiled(k), [callback], epochs=5, batch_size=4)
    return names(folder), callback.best


def checkpoint_an_epoch(k, folder):
    return checkpoint(k, folder, "{epoch:02d}-{val_loss:.2f}-{mae:.3f}.keras")


def checkpoint_the_best(k, folder):
    return checkpoint(k, folder, "in/{epoch}.weights.h5", save_best_only=True, save_weights_only=True)


def checkpoint_the_best_of_a_threshold(k, folder):
    return checkpoint(k, folder, "{epoch}.keras", save_best_only=True, initial_value_threshold=0.03)


def checkpoint_the_worst(k, folder):
    return checkpoint(k, folder, "{epoch}.keras", save_best_only=True, monitor="loss", mode="max")


def checkpoint_steps(k, folder):
    return checkpoint(k, folder, "{epoch}-{batch}-{loss:.4f}.weights.h5", save_weights_only=True, save_freq=3)


def checkpoint_without_its_monitor(k, folder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = checkpoint(k, folder, "{epoch}.keras", save_best_only=True, monitor="val_nothing", mode="min")
    return found, any("val_nothing" in str(warning.message) for warning in caught)


def interrupted(k, folder, **arguments):
    """Stopped by an error in the fourth epoch, and again in the next fit; then to the end, and a fit after that."""
    model = compiled(k)
    callback, calls = recorder(k)

    class Interrupt(k.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == self.at:
                raise RuntimeError("interrupted")

    interrupt = Interrupt()
    found = []
    for interrupt.at in (3, 5):
        backup = k.callbacks.BackupAndRestore(str(folder / "backup"), **arguments)
        with pytest.raises(RuntimeError, match="interrupted"):
            fit(model, [backup, callback, interrupt], batch_size=4)
        found.append((names(folder), json.loads((folder / "backup/training_metadata.json").read_text())["epoch"]))
        model = compiled(k)
    backup = k.callbacks.BackupAndRestore(str(folder / "backup"), **arguments)
    return found, outcome(model, fit(model, [backup, callback], batch_size=4)), calls, names(folder)


def backup_and_restore(k, folder):
    return interrupted(k, folder)


def backup_twice_and_keep(k, folder):
    return interrupted(k, folder, double_checkpoint=True, delete_checkpoint=False)


def backup_steps(k, folder):
    return interrupted(k, folder, save_freq=3)


def directions(k, _):
    """Whether more or less is better, of every metric that both have."""
    found = {}
    for name in dir(minidl.metrics):
        metric = getattr(minidl.metrics, name)
        if isinstance(metric, type) and issubclass(metric, minidl.metrics.Metric) and hasattr(keras_metrics(), name):
            arguments = {"MeanMetricWrapper": [k.losses.mean_squared_error], "FBetaScore": ["micro"]}
            try:
                made = getattr(k.metrics, name)(*arguments.get(name, []))
            except TypeError:  # one that cannot be made without arguments
                continue
            found[name] = getattr(made, "_direction", None)
    return found


def keras_metrics():
    import keras

    return keras.metrics


CASES = [
    value
    for value in list(globals().values())
    if callable(value)
    and getattr(value, "__code__", None)
    and value.__code__.co_varnames[:2] in (("k", "_"), ("k", "folder"))
    and value.__code__.co_argcount == 2
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_as_in_keras(keras, case, tmp_path, capsys):
    found = []
    for k in (keras, minidl):
        folder = tmp_path / k.__name__
        folder.mkdir()
        found.append(case(k, folder))
    assert found[1] == found[0]
