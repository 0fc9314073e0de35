"""fit, evaluate and predict on a device, executed: the host's, which runs the kernels through the shim."""

import gc
import subprocess
import sys
import warnings
import weakref
from functools import partial

import device_cases
import hypothesis
import numpy as np
import pytest
from cuda_host import checks, host, training
from device_cases import notebook, penguins
from helpers import assert_close, assert_same
from hypothesis import strategies as st
from test_kernels import sanitizer_environment

from minidl import (
    activations,
    callbacks,
    config,
    constraints,
    cuda,
    losses,
    metrics,
    on_device,
    ops,
    optimizers,
    random,
    saving,
    schedules,
)
from minidl import device as devices
from minidl.device import Launch, Product
from minidl.layers import Activation, BatchNormalization, Dense, Dropout, Flatten, Input
from minidl.models import Sequential
from minidl.regularizers import L1, L1L2, L2

pytestmark = pytest.mark.skipif(
    host.compiler() is None or sys.platform == "win32", reason="executing the kernels needs g++ on a POSIX system"
)


@pytest.fixture
def device():
    return host.HostDevice()


# ------------------------------------------------------------------------------------------------ whole trainings


@pytest.mark.parametrize("case", device_cases.CASES)
def test_as_on_the_cpu(device, case):
    device_cases.assert_as_on_the_cpu(device, device_cases.CASES[case])


LOSSES = {
    "sigmoid": (losses.BinaryCrossentropy, lambda rng, rows, units: rng.integers(0, 2, (rows, units))),
    "softmax": (losses.CategoricalCrossentropy, lambda rng, rows, units: np.eye(units)[rng.integers(0, units, rows)]),
    "sparse": (losses.SparseCategoricalCrossentropy, lambda rng, rows, units: rng.integers(0, units, rows)),
}


@st.composite
def trainings(draw):
    """A case of device_cases: any model, optimizer, loss and weights that the kernels know, but for tanh."""
    activation = st.sampled_from(["linear", "relu", "sigmoid", "softmax"])
    penalty = st.sampled_from([None, L1(0.01), L2(0.02), L1L2(0.01, 0.03)])
    inputs, rows, kind = draw(st.integers(1, 8)), draw(st.integers(1, 70)), draw(st.sampled_from(list(LOSSES)))
    layers = []
    for _ in range(draw(st.integers(0, 3))):
        settings = {"kernel_regularizer": draw(penalty), "use_bias": draw(st.booleans())}
        layers.append(
            partial(Dense, draw(st.integers(1, 12)), draw(activation), bias_regularizer=draw(penalty), **settings)
        )
        layers += draw(st.sampled_from([[], [], [partial(Dropout, 0.3)], [partial(Dropout, 1.0)]]))
        layers += draw(st.sampled_from([[], [], [partial(Activation, "softmax")], [partial(Activation, "relu")]]))
    units = draw(st.integers(1, 4) if kind == "sigmoid" else st.integers(2, 40))
    last, end = draw(st.sampled_from(["activation", "layer", "logits"])), "sigmoid" if kind == "sigmoid" else "softmax"
    layers.append(partial(Dense, units, end if last == "activation" else None))
    layers += [partial(Activation, end)] if last == "layer" else []
    clip = draw(st.sampled_from([None, "clipnorm", "clipvalue", "global_clipnorm"]))
    rate = draw(st.sampled_from([0.02, schedules.PiecewiseConstantDecay([1, 4], [0.01, 0.05, 0.02])]))
    how = {"amsgrad": draw(st.booleans()), "weight_decay": draw(st.sampled_from([None, 0.1]))}
    how |= {} if clip is None else {clip: draw(st.sampled_from([0.01, 0.3]))}
    metric = ["binary_accuracy" if kind == "sigmoid" else "accuracy"]
    weighted, seed = draw(st.booleans()), draw(st.integers(0, 99))
    arguments = {"batch_size": draw(st.sampled_from([8, 32]))} | ({"validation_split": 0.3} if rows > 4 else {})

    def case():
        loss, labels = LOSSES[kind]
        rng = np.random.default_rng(seed)
        model = device_cases.stacked(
            *layers, inputs=inputs, loss=loss(from_logits=last == "logits"), metrics=() if weighted else metric,
            weighted_metrics=metric if weighted else None, optimizer=optimizers.Adam(rate, **how),
        )  # fmt: skip
        weights = {"sample_weight": rng.integers(1, 9, rows) / 8} if weighted else {}
        return model, (rng.normal(size=(rows, inputs)), labels(rng, rows, units)), arguments | weights

    return case


@hypothesis.settings(max_examples=30)
@hypothesis.given(trainings())
def test_any_model_as_on_the_cpu(case):
    device_cases.assert_as_on_the_cpu(host.HostDevice(), case)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_step_within_the_bounds_of_any_order(device, dropout, weighted):
    device_cases.assert_within_bounds(device, dropout, 30, weighted)


@pytest.mark.parametrize("dropout", [False, True])
def test_resumes_to_the_bit(device, dropout):
    device_cases.assert_resumes(device, dropout)


def test_repeats_to_the_bit_in_any_order_of_the_threads():
    x, y = penguins(70)
    models = []
    for settings in ({}, {"order": "reverse"}, {"order": "shuffled", "seed": 5}):
        models.append(notebook(True))
        models[-1].fit(x, y, epochs=2, verbose=0, device=host.HostDevice(**settings))
        device_cases.assert_same_state(models[-1], models[0])


def test_repeats_a_hundred_steps(device):
    device_cases.assert_repeats(device, 100)


@pytest.mark.parametrize("stream", ["jax", "torch", "numpy", "tensorflow-xla"])
def test_other_random_streams(device, stream):
    """Their orders of rows; of jax and torch the loss that clips; masks are those of TensorFlow alone."""
    config.set_random_stream(stream)
    device_cases.assert_as_on_the_cpu(device, lambda: (notebook(stream == "tensorflow-xla"), penguins(70), {}))


def test_a_model_trained_there_is_the_cpus_too(device, tmp_path):
    pytest.importorskip("h5py")
    x, y = penguins(70)
    model = notebook(True)
    model.fit(x, y, epochs=2, verbose=0, device=device)
    model.save(tmp_path / "model.keras")
    loaded = saving.load_model(tmp_path / "model.keras")
    device_cases.assert_same_state(loaded, model)
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    for one in (loaded, model):  # and goes on on the other
        one.fit(x, y, epochs=1, verbose=0, device=device)
    device_cases.assert_same_state(loaded, model)


def test_the_cpu_goes_on_where_the_device_stopped(device):
    x, y = penguins(70)
    mixed = notebook(True)
    with device_cases.in_the_kernels_order():
        expected = notebook(True)
        expected.fit(x, y, epochs=3, verbose=0)
    mixed.fit(x, y, epochs=1, verbose=0, device=device)
    with device_cases.in_the_kernels_order():
        mixed.fit(x, y, epochs=1, verbose=0)
    mixed.fit(x, y, epochs=1, verbose=0, device=device)
    device_cases.assert_same_state(mixed, expected)


def test_evaluate_and_predict_some_steps(device):
    x, y = penguins(50)
    model = notebook(False)
    for steps, rows in ((2, 40), (3, 50)):
        got = model.evaluate(x, y, batch_size=20, steps=steps, verbose=0, device=device)
        expected = model.evaluate(x[:rows], y[:rows], verbose=0, device=device)
        assert_close(np.array(got), np.array(expected), atol=0, rtol=1e-6)  # means of batches of other sizes
        assert len(model.predict(x, batch_size=20, steps=steps, verbose=0, device=device)) == rows
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.evaluate(x, y, batch_size=20, steps=4, verbose=0, device=device)
    assert "ran out of data" in str(caught[0].message)


def test_outputs_of_a_model_that_is_not_compiled(device):
    model = Sequential([Input((4,)), Dense(3, "tanh")])
    x, _ = penguins(40)
    got = model.predict(x, verbose=0, device=device)
    with device_cases.in_the_kernels_order():
        assert_same(got, model.predict(x, verbose=0))


@pytest.mark.parametrize("sanitize", ["address", "thread"])
def test_trainings_are_clean_under_the_sanitizers(sanitize):
    environment = sanitizer_environment(sanitize)
    for source in cuda.sources():  # here, where the compiler runs without the preloaded runtime
        host.build(source, sanitize)
    command = [sys.executable, training.__file__, sanitize]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"after: {result.stdout[-300:]}\n{result.stderr[-6000:]}"
    assert result.stdout.splitlines() == training.CASES[sanitize]


# ------------------------------------------------------------------------------------- what happens in an epoch


def test_an_epoch_is_a_replay_a_batch_and_nothing_else():
    class Watched(host.HostDevice):
        def __init__(self):
            super().__init__()
            self.log = []

        def write(self, target, values):
            self.log.append("send")
            super().write(target, values)

        def host(self, array):
            self.log.append("wait")
            return super().host(array)

        def empty(self, shape, dtype):
            self.log.append("allocate")
            return super().empty(shape, dtype)

        def synchronize(self):
            self.log.append("wait")

        def capture(self, operations):
            self.log.append("capture")
            replay = super().capture(operations)
            return lambda: self.log.append("step") or replay()

    device = Watched()
    x, y = penguins(70)
    notebook(True).fit(x, y, epochs=3, verbose=0, device=device)
    log = device.log
    steps = [i for i, event in enumerate(log) if event == "step"]
    assert len(steps) == 9 and log.count("capture") == 2  # 32, 32 and 6 rows, three times
    for first in range(0, 9, 3):
        assert steps[first + 2] == steps[first] + 2, "something between the steps of an epoch"
    assert "allocate" not in log[steps[0] :] and "capture" not in log[steps[0] :]
    between = log[steps[2] + 1 : steps[3]]
    assert between.count("send") == 4  # order, learning rates, counters, sums
    assert between.count("wait") == 5  # whether it diverged, sums, state, step, seeds


def test_a_step_that_depends_on_a_value_of_the_host_is_caught(device, monkeypatch):
    """As planted: the counter of the masks as it was when the step was captured, in a buffer that nothing moves on."""
    from minidl import on_device

    def pair(self, i):
        return self._device.array(np.array([33636388, 0]))

    monkeypatch.setattr(on_device.Counters, "pair", pair)
    with pytest.raises(AssertionError):
        device_cases.assert_as_on_the_cpu(device, device_cases.CASES["notebook, dropout"])


def test_progress_is_shown(device, capsys):
    x, y = penguins(70)
    notebook(False).fit(x, y, epochs=2, verbose=2, validation_split=0.3, device=device)
    printed = capsys.readouterr().out
    assert "Epoch 1/2 - 2 steps" in printed and printed.count("val_loss") == 2


# ---------------------------------------------------------------------------------------- kept from call to call


def test_what_a_call_made_is_kept_for_the_next_like_it(device):
    device_cases.assert_kept_between_calls(device)


def every_call(model, device, x, y):
    """fit, evaluate and predict; their results."""
    history = model.fit(x, y, epochs=2, verbose=0, validation_split=0.2, device=device).history
    return history, model.evaluate(x, y, verbose=0, device=device), model.predict(x, verbose=0, device=device)


def test_nothing_is_made_for_a_second_call(device):
    model, (x, y) = notebook(True), penguins(70)
    every_call(model, device, x, y)
    used, captured = device.used, len(device.captured)
    every_call(model, device, x[::-1], y[::-1])
    assert (device.used, len(device.captured)) == (used, captured)


def compiled_anew(model):
    model.compile(optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])


def with_another_seed(model):
    model.layers[1].seed_generator = random.SeedGenerator(77)


# Captured are a whole and a last batch of fit, evaluate and predict, and a batch of fit's validation.
EVERY, SCORED, STEPS = 7, 5, 2
# name -> (change of the model or of a setting, how much is captured anew)
CHANGES = {
    "weights": (lambda model: model.set_weights([weight + 1 for weight in model.get_weights()]), 0),
    "seed": (lambda model: model.layers[1].seed_generator.state.__setitem__(slice(None), (5, 9)), 0),
    "another generator": (with_another_seed, EVERY),
    "learning rate": (lambda model: setattr(model.optimizer, "learning_rate", 0.5), 0),
    "a setting of the optimizer": (lambda model: setattr(model.optimizer, "clipvalue", 0.001), STEPS),
    "another optimizer": (compiled_anew, SCORED),
    "rate": (lambda model: setattr(model.layers[1], "rate", 0.25), EVERY),
    "factor of a regularizer": (lambda model: setattr(model.layers[0].regularizers["kernel"], "l1", 0.5), EVERY),
    "activation": (lambda model: setattr(model.layers[0], "activation", activations.sigmoid), EVERY),
    "random stream": (lambda model: config.set_random_stream("tensorflow-xla"), EVERY),
    "epsilon": (lambda model: config.set_epsilon(0.01), SCORED),
    "products": (lambda model: config.set_matmul("kernels"), EVERY),
    "threshold": (lambda model: setattr(model.metrics[1], "threshold", 0.75), SCORED),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_between_calls(device, what):
    """As if nothing had been kept."""
    change, captured_anew = CHANGES[what]
    ours, theirs = notebook(True), notebook(True)
    x, y = penguins(70)
    for model in (ours, theirs):
        every_call(model, device, x, y)
    captured = len(device.captured)
    change(ours)
    found = every_call(ours, device, x, y)
    assert len(device.captured) - captured == captured_anew
    if what not in ("random stream", "epsilon", "products"):
        change(theirs)
    on_device._kept.clear()
    expected = every_call(theirs, device, x, y)
    assert found[:2] == expected[:2]
    assert_same(found[2], expected[2])
    device_cases.assert_same_state(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [({"batch_size": 20}, 70), ({}, 60), ({"class_weight": {0: 2.0}}, 70), ({"validation_split": 0.3}, 70)],
)
def test_data_of_another_shape(device, arguments, rows):
    x, y = penguins(rows)
    ours, theirs = notebook(True), notebook(True)
    for model in (ours, theirs):
        model.fit(*penguins(70), epochs=1, verbose=0, device=device)
        if model is theirs:
            on_device._kept.clear()
        model.fit(x, y, epochs=1, verbose=0, device=device, **arguments)
    device_cases.assert_same_state(ours, theirs)


def test_what_a_callback_changes_of_the_model(device):
    """A rate, a penalty, the optimizer: from the next epoch on, as on the CPU."""

    class Changes(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            model = self.model
            if epoch == 0:
                model.layers[1].rate = 0.25
                model.layers[0].regularizers["kernel"].l1 = 0.5
            if epoch == 1:
                model.compile(optimizers.Adam(0.1, amsgrad=True), "binary_crossentropy", metrics=["accuracy"])

    device_cases.assert_as_on_the_cpu(device, lambda: (notebook(True), penguins(70), {"callbacks": [Changes()]}))


def test_memory_goes_with_the_model_and_data_with_the_call(device):
    x, y = penguins(70)
    seen = [weakref.ref(x), weakref.ref(y)]
    model = notebook(True)
    every_call(model, device, x, y)
    del x, y
    gc.collect()
    assert [one() for one in seen] == [None, None], "host data outlive their call"
    assert device.used > 0
    device.captured.clear()
    del model
    gc.collect()
    assert device.used == 0


def test_a_call_that_failed_keeps_nothing(device):
    x, y = penguins(70)
    model = notebook(True)
    model.fit(x, y, verbose=0, device=device)
    device.fails_after = device.launches + 30
    with pytest.raises(cuda.DeviceError):
        model.fit(x, y, verbose=0, device=device)
    device.captured.clear()
    gc.collect()
    assert device.used == 0


def test_arrays_of_the_device_are_not_kept(device):
    """Nor taken for what was kept of host arrays of the same shapes."""
    (x, y), model, expected = penguins(140), notebook(True), notebook(True)
    for one in (model, expected):
        every_call(one, device, x[:70], y[:70])
    theirs = every_call(expected, device, x[70:], y[70:])
    x, y = (device.array(a[70:]) for a in (x, y))
    ours = every_call(model, device, x, y)
    assert ours[:2] == theirs[:2]
    assert_same(device.host(ours[2]), theirs[2])
    device_cases.assert_same_state(model, expected)
    device.captured.clear()
    del ours, expected, one
    gc.collect()
    assert device.used == x.values.nbytes + y.values.nbytes


def test_what_is_kept_makes_room_for_another_model(device):
    x, y = penguins(70)
    model, other = notebook(True), notebook(True)
    every_call(model, device, x, y)
    device.captured.clear()
    device.memory = device.used + 2**10
    other.fit(x, y, verbose=0, device=device)
    device.captured.clear()
    device.memory = 2**10
    with pytest.raises(cuda.DeviceMemoryError, match="weights are those before the fit"):
        notebook(True).fit(x, y, verbose=0, device=device)


# ------------------------------------------------------------------------------------------------- callbacks


def assert_with_callbacks(device, make, epochs=4, **arguments):
    """fit with callbacks on the device and on the CPU: the same bits. Returns the device's history."""

    def case():
        return notebook(True), penguins(70), {"callbacks": make(), **arguments}

    device_cases.assert_as_on_the_cpu(device, case, epochs=epochs)


def test_a_learning_rate_that_changes_with_the_epoch(device):
    assert_with_callbacks(device, lambda: [callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))])
    assert len(device.captured) == 6, "whole and last batches of fit, evaluate and predict, and no more"


def test_settings_of_the_optimizer_that_change_with_the_epoch(device):
    class Changes(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            optimizer = self.model.optimizer
            optimizer.clipnorm, optimizer.weight_decay, optimizer.beta_1 = 0.1 * (epoch + 1), 0.2 * epoch, 0.8

    assert_with_callbacks(device, lambda: [Changes()])


def test_a_schedule_of_ones_own(device):
    """It is asked on the host, before an epoch, for each of its steps; where it fails the epoch is not begun."""

    class Falling(schedules.LearningRateSchedule):
        fails_at = 99

        def __call__(self, step):
            if step == self.fails_at:
                raise RuntimeError("no rate")
            return 0.1 / (int(step) + 1)

    device_cases.assert_as_on_the_cpu(
        device, lambda: (device_cases.updated(optimizers.Adam(Falling())), penguins(70), {})
    )
    model, expected = (device_cases.updated(optimizers.Adam(Falling())) for _ in range(2))
    Falling.fails_at = 4
    with pytest.raises(RuntimeError, match="no rate"):
        model.fit(*penguins(70), epochs=3, verbose=0, device=device)
    Falling.fails_at = 99
    expected.fit(*penguins(70), epochs=1, verbose=0, device=device)
    device_cases.assert_same_state(model, expected)


def test_a_learning_rate_that_falls_on_a_plateau(device):
    def make():
        return [callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=0, min_delta=10.0)]

    assert_with_callbacks(device, make)


def test_early_stopping_puts_the_best_weights_back(device):
    def make():
        return [callbacks.EarlyStopping("loss", patience=1, min_delta=10.0, restore_best_weights=True)]

    assert_with_callbacks(device, make)


def test_weights_and_seeds_that_a_callback_writes(device):
    class Writes(callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.layers[0].kernel[...] += 0.25
            self.model.optimizer.build(self.model.arena)

        def on_epoch_begin(self, epoch, logs=None):
            self.model.layers[0].kernel[...] *= 1.5
            self.model.optimizer.m[...] = 0
            self.model.layers[1].seed_generator.state[1] += 5

        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[2].bias[...] += 0.125

    assert_with_callbacks(device, lambda: [Writes()])


def test_callbacks_see_the_weights_of_each_epoch(device, tmp_path):
    pytest.importorskip("h5py")
    x, y = penguins(70)
    seen = []
    keep = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(model.get_weights()))
    checkpoint = callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    model = notebook(True)
    model.fit(x, y, epochs=3, verbose=0, device=device, callbacks=[keep, checkpoint])
    for epoch in range(1, 4):
        other = notebook(True)
        other.fit(x, y, epochs=epoch, verbose=0, device=device)
        loaded = notebook(True)
        loaded.optimizer.build(loaded.arena)
        loaded.load_weights(tmp_path / f"{epoch}.weights.h5")
        for a, b, c in zip(seen[epoch - 1], other.get_weights(), loaded.get_weights(), strict=True):
            assert_same(a, b)
            assert_same(c, b)


def test_an_interrupted_training_resumes_from_its_backup(device, tmp_path):
    pytest.importorskip("h5py")
    x, y = penguins(70)
    whole = notebook(True)
    whole.fit(x, y, epochs=4, verbose=0, device=device)

    def stop(epoch, logs):
        if epoch == 2:
            raise RuntimeError("the power failed")

    settings = {"epochs": 4, "verbose": 0, "device": device}
    with pytest.raises(RuntimeError, match="the power failed"):
        breaks = [callbacks.BackupAndRestore(tmp_path), callbacks.LambdaCallback(on_epoch_begin=stop)]
        notebook(True).fit(x, y, callbacks=breaks, **settings)
    resumed = notebook(True)
    resumed.fit(x, y, callbacks=[callbacks.BackupAndRestore(tmp_path)], **settings)
    device_cases.assert_same_state(resumed, whole)


def test_a_callback_that_makes_the_model_one_for_the_cpu_alone(device):
    def freeze(epoch, logs):
        model.layers[0].trainable = False

    x, y = penguins(70)
    model = notebook(False)
    with pytest.raises(
        cuda.DeviceError, match=r"changed the model: a frozen layer.*weights are those at the end of epo"
    ):
        model.fit(x, y, epochs=3, verbose=0, device=device, callbacks=[callbacks.LambdaCallback(on_epoch_end=freeze)])


# ------------------------------------------------------------------------------------------------- DLPack


class OfAnotherLibrary:
    """What gives a device's memory out by DLPack, as torch and JAX do."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **settings):
        return self.array.__dlpack__()


@pytest.mark.parametrize("wrap", [lambda array: array, OfAnotherLibrary])
def test_arrays_of_the_device_are_used_where_they_are(device, wrap):
    def send(values):
        return wrap(device.array(values))

    device_cases.assert_device_arrays_are_used_where_they_are(device, send)


def test_nothing_is_copied_of_arrays_of_the_device(device):
    x, y = (device.array(a) for a in penguins(70))
    notebook(False).fit(x, y, epochs=1, verbose=0, device=device)
    taken = [op.args[0] for op in device.captured[0] if isinstance(op, Launch) and op.kernel.startswith("take_rows")]
    assert [np.shares_memory(a.values, b.values) for a, b in zip(taken, (x, y), strict=True)] == [True, True]


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "crossentropy"])
def test_class_numbers_of_the_device(device, loss):
    x, numbers = device_cases.of_classes(3, one_hot=False)
    y = numbers.astype(np.float32)

    def model():
        return device_cases.stacked(lambda: Dense(3, "softmax"), inputs=6, loss=loss)

    for labels in (y, y[:, None]):
        ours, theirs = model(), model()
        found = ours.fit(device.array(x), device.array(labels), epochs=2, verbose=0, device=device).history
        assert found == theirs.fit(x, numbers, epochs=2, verbose=0, device=device).history
        device_cases.assert_same_state(ours, theirs)
    for wrong, error, message in (
        (y[:74], ValueError, r"y: the loss takes class numbers, so y must be \(75, 1\); got \(74,\)"),
        (y + 1, ValueError, r"labels must be class numbers in \[0, 3\)"),
        (numbers, TypeError, "y: expected float32"),
    ):
        ours = model()
        with pytest.raises(error, match=message):
            ours.fit(device.array(x), device.array(wrong), verbose=0, device=device)
        assert (ours._loss is None) == (loss == "crossentropy")


def test_a_model_is_built_by_its_first_data_there(device):
    x, y = (device.array(a) for a in penguins(40))
    model = Sequential([Dense(3, "relu"), Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy")
    model.fit(x, y, verbose=0, device=device)
    assert model.input_shape == (None, 4)


# ------------------------------------------------------------------------------------------------- bad input


def test_host_and_device_arrays_together(device):
    x, y = penguins(40)
    model, before = notebook(False), notebook(False)
    for given in ((device.array(x), y), (x, device.array(y))):
        with pytest.raises(TypeError, match=r"host arrays given with device arrays: .*got 1 of 2 there, and a ndarray"):
            model.fit(*given, verbose=0, device=device)
    with pytest.raises(TypeError, match=r"host arrays given with device arrays: .*got 2 of 3 there"):
        model.evaluate(device.array(x), device.array(y), sample_weight=np.ones(40), verbose=0, device=device)
    device_cases.assert_same_state(model, before)


def test_a_host_array_never_reaches_a_kernel(device):
    with pytest.raises(AssertionError, match="a host array given to a device kernel"):
        device.capture([Launch("penalty_total_float32", 1, 32, (np.ones(3, np.float32), None, 3))])()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: (x.astype("float64"), y), TypeError, r"x: expected float32.* got float64. Pass x\.astype\('flo"),
        (lambda x, y: (x, y.astype("int64")), TypeError, "y: expected float32"),
        (lambda x, y: (x[:, :3].copy(), y), ValueError, r"x: expected shape \(samples, 4\); got \(40, 3\)"),
        (lambda x, y: (x[:, 0].copy(), y), ValueError, r"x: expected shape \(samples, 4\); got \(40,\)"),
        (lambda x, y: (x[:, ::-1], y), ValueError, "x: expected a C-contiguous array"),
        (lambda x, y: (x, y[:39]), ValueError, r"y: the model has 1 outputs, so y must be \(40, 1\); got \(39, 1\)"),
        (lambda x, y: (x, y + 2), ValueError, r"labels must lie in \[0, 1\]"),
        (lambda x, y: (x * np.float32("nan"), y), ValueError, "x: expected finite numbers"),
        (lambda x, y: (x[:0], y[:0]), ValueError, "at least one row"),
    ],
)
def test_device_arrays_that_do_not_fit(device, change, error, message):
    model, before = notebook(False), notebook(False)
    x, y = (host.HostArray(a) for a in change(*penguins(40)))
    with pytest.raises(error, match=message):
        model.fit(x, y, verbose=0, device=device)
    device_cases.assert_same_state(model, before)


def test_labels_and_weights_of_the_device_that_are_wrong(device):
    x, y = (device.array(a) for a in penguins(40))
    model = notebook(False)
    with pytest.raises(ValueError, match="y: the labels are missing"):
        model.fit(x, verbose=0, device=device)
    with pytest.raises(ValueError, match=r"sample_weight must be of shape \(40,\); got \(39,\)"):
        model.fit(x, y, sample_weight=device.array(np.ones(39, np.float32)), verbose=0, device=device)
    with pytest.raises(NotImplementedError, match=r"fit: class_weight with labels in its memory is not supported on a"):
        model.fit(x, y, class_weight={0: 1.0, 1: 2.0}, verbose=0, device=device)


def test_device_arrays_to_a_model_on_the_cpu():
    """They are copied where their library does so, as Keras copies them; else it is said."""
    x, y = penguins(40)
    ours, theirs = notebook(False), notebook(False)
    ours.fit(host.HostArray(x), host.HostArray(y), verbose=0, device="cpu")
    theirs.fit(x, y, verbose=0)
    device_cases.assert_same_state(ours, theirs)

    class GivesNothing(OfAnotherLibrary):
        def __dlpack__(self, **settings):
            raise BufferError("this library copies nothing")

    message = r"not in the CPU's memory \(DLPack device type 2\), where the model computes.*Copy it first.*device='gpu'"
    with pytest.raises(TypeError, match=message):
        ours.fit(GivesNothing(host.HostArray(x)), y, verbose=0)


@pytest.mark.parametrize("weights", ["as they were", "of epoch 1"])
def test_out_of_device_memory(weights):
    x, y = penguins(70)
    expected = notebook(True)
    if weights == "as they were":
        model, device = notebook(True), host.HostDevice(memory=2**12)
        with pytest.raises(cuda.DeviceMemoryError, match="weights are those before the fit"):
            model.fit(x, y, epochs=2, verbose=0, device=device)
    else:
        model, device = notebook(True), host.HostDevice()

        def full(epoch, logs):
            device.memory = device.used
            model.optimizer.beta_1 = 0.5  # for which a step is captured anew

        stops = callbacks.LambdaCallback(on_epoch_end=full)
        with pytest.raises(
            cuda.DeviceMemoryError, match=r"out of device memory: .*weights are those at the end of epo"
        ):
            model.fit(x, y, epochs=2, verbose=0, device=device, callbacks=[stops])
        expected.fit(x, y, epochs=1, verbose=0, device=host.HostDevice())
        expected.optimizer.beta_1 = 0.5
    device_cases.assert_same_state(model, expected)
    for one in (model, expected):  # whole and usable
        one.fit(x, y, epochs=1, verbose=0, device=host.HostDevice())
    device_cases.assert_same_state(model, expected)


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_device_that_breaks_in_an_epoch(device, epochs):
    x, y = penguins(70)
    model, expected = notebook(True), notebook(True)
    counting = host.HostDevice()
    for _ in range(epochs):
        expected.fit(x, y, epochs=1, verbose=0, device=counting)
    device.fails_after = counting.launches + 30  # in the second step of the next
    where = f"at the end of epoch {epochs}" if epochs else "before the fit"
    with pytest.raises(cuda.DeviceError, match=f"illegal memory access. The model's weights are those {where}"):
        model.fit(x, y, epochs=4, verbose=0, device=device)
    if not epochs:
        expected.optimizer.build(expected.arena)
    device_cases.assert_same_state(model, expected)


def test_a_device_that_breaks_in_the_validation(device):
    x, y = penguins(70)
    model, expected = notebook(True), notebook(True)
    counting = host.HostDevice()
    expected.fit(x, y, epochs=1, verbose=0, device=counting)
    device.fails_after = counting.launches + 3
    with pytest.raises(
        cuda.DeviceError, match=r"illegal memory access\. The model.s weights are those at the end of ep"
    ):
        model.fit(x, y, epochs=4, verbose=0, validation_data=(x, y), device=device)
    device_cases.assert_same_state(model, expected)


def test_a_loss_that_is_not_finite(device):
    """Of finite data: an L2 penalty beyond float32, after an epoch with a learning rate of 10²⁵."""
    x, y = penguins(70)
    model, expected = notebook(False), notebook(False)
    expected.fit(x, y, epochs=1, verbose=0, device=device)

    def too_fast(epoch, rate):
        return rate if epoch == 0 else 1e25

    faster = callbacks.LearningRateScheduler(too_fast)
    with pytest.raises(
        FloatingPointError, match=r"not finite at step 5\. The weights are those at the end of epoch 1, "
    ):
        model.fit(x, y, epochs=3, verbose=0, device=device, callbacks=[faster])
    expected.optimizer.learning_rate = 1e25
    device_cases.assert_same_state(model, expected)
    history = model.fit(x, y, epochs=1, verbose=0, device=device, check_finite=False).history
    assert not np.isfinite(history["loss"][0]) and not np.isfinite(model.get_weights()[0]).all()


def test_ctrl_c_leaves_whole_steps(device):
    x, y = penguins(70)
    model = notebook(True)

    def capture(operations):
        replay = host.HostDevice.capture(device, operations)

        def step():
            replay()
            if device.replays == 5:
                raise KeyboardInterrupt

        return step

    device.capture = capture
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=4, verbose=0, device=device)
    expected = notebook(True)
    expected.fit(x, y, epochs=1, verbose=0, device=host.HostDevice())
    expected.fit(x, y, epochs=1, steps_per_epoch=2, batch_size=32, verbose=0, device=host.HostDevice())
    device_cases.assert_same_state(model, expected)


# ------------------------------------------------------------------------------------------------- the territory


def model_of(*layers, **arguments):
    model = Sequential([Input((4,)), *layers])
    model.compile(**{"optimizer": "adam", "loss": "binary_crossentropy", **arguments})
    return model


def ends(**arguments):
    return model_of(Dense(1, "sigmoid"), **arguments)


def with_a_forward_of_its_own():
    model = ends()
    layer = model.layers[0]
    layer.forward = layer.forward
    return model


def with_an_update_of_its_own():
    model = ends()
    model.optimizer.update = model.optimizer.update
    return model


REFUSED = {
    "the layer 'flatten', a Flatten,": lambda: model_of(Flatten(), Dense(1)),
    "the layer 'batch_normalization', a BatchNormalization,": lambda: model_of(
        Dense(2), BatchNormalization(), Dense(1)
    ),
    "a forward or backward of its own of 'dense'": with_a_forward_of_its_own,
    "the activation 'gelu' of 'activation'": lambda: model_of(Activation("gelu"), Dense(1)),
    "noise_shape of 'dropout'": lambda: model_of(Dropout(0.5, noise_shape=(None, 1)), Dense(1)),
    "a frozen layer, 'dense' with trainable=False,": lambda: model_of(Dense(2, trainable=False), Dense(1)),
    "activity_regularizer of 'dense'": lambda: model_of(Dense(1, activity_regularizer="l2")),
    "kernel_constraint of 'dense'": lambda: model_of(Dense(1, kernel_constraint=constraints.NonNeg())),
    "kernel_regularizer of 'dense', a OrthogonalRegularizer,": lambda: model_of(
        Dense(2, kernel_regularizer="orthogonal_regularizer"), Dense(1)
    ),
    "the loss 'huber_loss'": lambda: ends(loss="huber"),
    "reduction='sum' of the loss 'mean_squared_error'": lambda: ends(loss=losses.MeanSquaredError("sum")),
    "the metric 'msle', a MeanSquaredLogarithmicError,": lambda: ends(loss="mse", metrics=["msle"]),
    "label_smoothing=0.1 of the loss 'binary_crossentropy'": lambda: ends(
        loss=losses.BinaryCrossentropy(label_smoothing=0.1)
    ),
    "reduction='sum' of the loss": lambda: ends(loss=losses.BinaryCrossentropy(reduction="sum")),
    "from_logits=True of the loss 'binary_crossentropy' on the outputs of a sigmoid": lambda: ends(
        loss=losses.BinaryCrossentropy(from_logits=True)
    ),
    "ignore_class=-1 of the loss": lambda: model_of(
        Dense(3, "softmax"), loss=losses.SparseCategoricalCrossentropy(ignore_class=-1)
    ),
    "the loss 'sparse_categorical_crossentropy' of probabilities": lambda: model_of(
        Dense(3, "softmax"), Dropout(0.1), loss="sparse_categorical_crossentropy"
    ),
    "the metric 'top_2', a SparseTopKCategoricalAccuracy,": lambda: model_of(
        Dense(3, "softmax"),
        loss="sparse_categorical_crossentropy",
        metrics=[metrics.SparseTopKCategoricalAccuracy(2, "top_2")],
    ),
    "loss_weights": lambda: ends(loss_weights=0.5),
    "the metric 'auc', a AUC,": lambda: ends(metrics=[metrics.AUC()]),
    "the metric 'binary_accuracy', a BinaryAccuracy of float64": lambda: ends(
        metrics=[metrics.BinaryAccuracy(dtype="float64")]
    ),
    "the optimizer SGD": lambda: ends(optimizer="sgd"),
    "the optimizer Nadam": lambda: ends(optimizer="nadam"),
    "loss_scale_factor=2.0 of the optimizer AdamW": lambda: ends(optimizer=optimizers.AdamW(loss_scale_factor=2)),
    "use_ema=True of the optimizer Adam": lambda: ends(optimizer=optimizers.Adam(use_ema=True)),
    "gradient_accumulation_steps=2 of": lambda: ends(optimizer=optimizers.Adam(gradient_accumulation_steps=2)),
    "the optimizer Adam with an update of its own": with_an_update_of_its_own,
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_only_the_cpu_does_is_refused_by_its_name(device, monkeypatch, what):
    x, y = penguins(40)
    model = REFUSED[what]()
    before = model.get_state()
    with pytest.raises(NotImplementedError) as raised:
        model.fit(x, y, verbose=0, device=device)
    assert str(raised.value).startswith(f"fit: {what}") and "the CPU does it: device='cpu'" in str(raised.value)
    for name, value in before.items():
        assert_same(model.get_state()[name], value)
    monkeypatch.setattr(devices, "gpu", lambda: device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from_logits of a sigmoid: the CPU's own
        model.fit(x, y, verbose=0, device="auto")  # where the CPU does it
    assert device.replays == 0 and model.optimizer.iterations > 0


def test_layers_that_are_thawed_without_compiling(device):
    """As in Keras they are trained when the model is compiled again: until then they are not in the arena."""
    x, y = penguins(40)
    model = model_of(Dense(3, "relu", trainable=False), Dense(1, "sigmoid"))
    model.fit(x, y, verbose=0)
    model.layers[0].trainable = True
    for call in (lambda: model.fit(x, y, verbose=0, device=device), lambda: model.predict(x, verbose=0, device=device)):
        with pytest.raises(NotImplementedError, match="a model of which layers were frozen or thawed since compile"):
            call()
    model.compile("adam", "binary_crossentropy")
    model.fit(x, y, verbose=0, device=device)


def test_data_and_callbacks_that_only_the_cpu_does(device, monkeypatch, tmp_path):
    x, y = penguins(64)
    monkeypatch.setattr(devices, "gpu", lambda: device)

    class Batches:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return x[32 * i : 32 * i + 32], y[32 * i : 32 * i + 32]

    mapped = np.memmap(tmp_path / "x", np.float64, "w+", shape=x.shape)
    mapped[...] = x
    follows = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    every_step = callbacks.ModelCheckpoint(tmp_path / "x.keras", save_freq=1000)
    for arguments, what in (
        ({"x": Batches()}, "data that come batch by batch"),
        ({"x": mapped, "y": y}, "a memory map in another dtype"),
        ({"x": x, "y": y, "callbacks": [follows]}, "the callback LambdaCallback, which follows the steps,"),
        ({"x": x, "y": y, "callbacks": [callbacks.TerminateOnNaN()]}, "the callback TerminateOnNaN"),
        ({"x": x, "y": y, "callbacks": [every_step]}, "the callback ModelCheckpoint, which follows the steps,"),
    ):
        for device_name in ("gpu", "auto"):
            model = notebook(False)
            if device_name == "auto":
                model.fit(**arguments, verbose=0, shuffle=False, device="auto")
                assert device.replays == 0 and model.optimizer.iterations >= 2
                continue
            with pytest.raises(NotImplementedError, match=f"fit: {what}"):
                model.fit(**arguments, verbose=0, shuffle=False, device="gpu")


def test_masks_of_other_streams_are_refused(device):
    config.set_random_stream("torch")
    x, y = penguins(40)
    with pytest.raises(NotImplementedError, match="fit: the random stream 'torch' of the layer 'dropout'"):
        notebook(True).fit(x, y, verbose=0, device=device)


def test_what_is_asked_of_the_gpu_for_all(device, monkeypatch):
    """set_device("gpu"): fit, evaluate and predict go there, and the steps on one batch are refused."""
    monkeypatch.setattr(devices, "gpu", lambda: device)
    config.set_device("gpu")
    x, y = penguins(40)
    model = notebook(False)
    for call in (lambda: model.fit(x, y, verbose=0), lambda: model.evaluate(x, y, verbose=0), lambda: model.predict(x)):
        before = device.replays
        call()
        assert device.replays == before + 2
    for name, call in (
        ("train_on_batch", lambda: model.train_on_batch(x, y)),
        ("test_on_batch", lambda: model.test_on_batch(x, y)),
        ("predict_on_batch", lambda: model.predict_on_batch(x)),
        ("model(x)", lambda: model(x)),
    ):
        with pytest.raises(NotImplementedError) as raised:
            call()
        assert str(raised.value).startswith(f"{name}: ")
    model.fit(x, y, verbose=0, device="cpu")
    config.set_device("auto")
    model.train_on_batch(x, y)
    model.fit(x, y, verbose=0)
    assert device.replays == before + 4


def test_auto_copies_arrays_of_the_gpu_that_only_the_cpu_can_train_on(device, monkeypatch):
    monkeypatch.setattr(devices, "gpu", lambda: device)
    x, y = penguins(40)
    ours, theirs = ends(optimizer="sgd"), ends(optimizer="sgd")
    theirs.set_weights(ours.get_weights())
    ours.fit(device.array(x), device.array(y), shuffle=False, verbose=0, device="auto")
    theirs.fit(x, y, shuffle=False, verbose=0)
    assert_same(ours.get_weights()[0], theirs.get_weights()[0])


# ------------------------------------------------------------------------------------------------- products


@pytest.mark.parametrize("library", [None, "cublas"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products(rng, library, dtype):
    device = host.HostDevice(cublas=None if library is None else host.cublas())
    for m, n, k in [(3, 5, 7), (1, 1, 1), (16, 20, 9), (70, 65, 17), (2, 33, 40)]:
        for transposed in ((False, False), (True, False), (False, True), (True, True)):
            a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
            there = [
                device.array(np.ascontiguousarray(x.T if t else x)) for x, t in zip((a, b), transposed, strict=True)
            ]
            out = device.empty((m, n), dtype)
            device.capture([Product(*there, out, *transposed)])()
            assert_same(device.host(out), checks.product_in_order(a, b))


def test_every_product_kernel_is_taken_where_its_tiles_are_filled():
    def kernel(m, n):
        a, b = np.empty((m, 3), np.float32), np.empty((3, n), np.float32)
        return Product(a, b, np.empty((m, n), np.float32)).as_launch().kernel

    assert [kernel(*s) for s in ((15, 99), (99, 15), (16, 16), (63, 64), (64, 64))] == [
        f"matmul_{name}_float32" for name in ("naive", "naive", "tiled", "tiled", "blocked")
    ]


def test_a_training_by_cublas():
    """The stand-in adds in the order of the kernels, so that even the bits are theirs."""
    device = host.HostDevice(cublas=host.cublas())
    device_cases.assert_as_on_the_cpu(device, device_cases.CASES["notebook, dropout"])
    device_cases.assert_as_on_the_cpu(device, device_cases.CASES["three labels, tiled products"])


def test_ops_are_what_they_were():
    """in_the_kernels_order leaves nothing behind."""
    before = ops.dense, np.exp
    with device_cases.in_the_kernels_order():
        assert ops.dense is not before[0] and np.exp is not before[1]
    assert (ops.dense, np.exp) == before
