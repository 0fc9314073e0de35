"""fit_many: on the CPU it is fit, seed after seed; by kernels/train_step.cu, here run on the CPU, it is the same.

That the kernel is the readable training bit for bit, once the order of sums is the same, is checked in
cuda_host/checks.py. Here it is compared with fit as it is.
"""

import importlib.util
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import second_step
from cuda_host import checks, host
from gpu import test_many as on_gpu
from helpers import assert_close, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import batches, config, cuda, datasets, keras, losses, many, random, regularizers, utils
from minidl.oracle import notebook

needs_compiler = pytest.mark.skipif(
    host.compiler() is None or sys.platform == "win32", reason="executing the kernels needs g++ on a POSIX system"
)
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
BUILD = {name: lambda build=build: build(keras) for name, build in notebook.MODELS.items()}


def on_host(
    build, x, y, *, seeds, epochs=1, batch_size=None, validation_data=None, shuffle=True, check_finite=True, watch=None,
    **weights,
):  # fmt: skip
    """fit_many(device="gpu"), on this machine's CPU."""
    launch = checks.launcher(checks.Kernels("train_step", config.floatx(), None))
    return many.fit_in_one_launch(
        build, x, y, seeds=tuple(seeds), epochs=epochs, batch_size=batch_size, validation_data=validation_data,
        shuffle=shuffle, check_finite=check_finite, launch=launch, watch=watch, **weights,
    )  # fmt: skip


@pytest.mark.parametrize("name", BUILD)
def test_on_the_cpu_it_is_fit(name):
    (x, y), validation = notebook.data()
    before = np.random.get_state()[1].copy()
    found = many.fit_many(BUILD[name], x, y, seeds=[3, 812], epochs=3, validation_data=validation, device="cpu")
    assert_same(np.random.get_state()[1], before)
    assert found.seeds == (3, 812) and found.weights.shape == (2, 45)
    for i, seed in enumerate(found.seeds):
        utils.set_random_seed(seed)
        model = BUILD[name]()
        history = model.fit(x, y, epochs=3, validation_data=validation, verbose=0).history
        assert_same(found.weights[i], model.arena.theta)
        assert {key: list(values[i]) for key, values in found.history.items()} == history
        assert_same(found.models[i].predict(x), model.predict(x))


@needs_compiler
@pytest.mark.parametrize("name", BUILD)
def test_the_kernel_trains_as_fit(name):
    """63 steps, both running free in float64: to 1e-11, as fit against Keras in test_fit_against_keras.py; a wrong row,
    mask or moment shows in the second digit. Seeds are equal, accuracies the same fractions."""
    config.set_floatx("float64")
    (x, y), validation = notebook.data()
    settings = {"seeds": [2, 5, 812], "epochs": 7, "validation_data": validation}
    expected, found = many.fit_many(BUILD[name], x, y, device="cpu", **settings), on_host(BUILD[name], x, y, **settings)
    assert found.seeds == expected.seeds and list(found.history) == list(expected.history)
    for key, values in expected.history.items():
        np.testing.assert_allclose(found.history[key], values, rtol=0, atol=0 if "accuracy" in key else 1e-11)
    for ours, other in zip(found.models, expected.models, strict=True):
        state = other.get_state()
        for key, values in ours.get_state().items():
            np.testing.assert_allclose(values, state[key], rtol=0, atol=1e-11)
        assert ours.optimizer.iterations == 63 and ours.history.epoch == other.history.epoch
        for key, values in other.history.history.items():
            np.testing.assert_allclose(ours.history.history[key], values, rtol=0, atol=1e-11)
        np.testing.assert_allclose(ours.predict(x), other.predict(x), rtol=0, atol=1e-11)
        # and they go on together
        for model in (ours, other):
            utils.set_random_seed(1)
            model.fit(x, y, epochs=1, verbose=0)
        np.testing.assert_allclose(ours.arena.theta, other.arena.theta, rtol=0, atol=1e-11)


@needs_compiler
@pytest.mark.parametrize("name", BUILD)
def test_each_step_is_within_the_bounds_of_any_order_of_summation(name):
    """60 steps in float32, each from the state that the one before left, so that nothing compounds."""
    (x, y), _ = notebook.data()
    launch = checks.launcher(checks.Kernels("train_step", "float32", None))
    utils.set_random_seed(notebook.SEED)
    model = BUILD[name]()
    data = model._batches("fit", x, y, None, None, 32, None, True, True)
    plan = many.Plan.of(model)
    order = random.epoch_order(len(x), 32, True)
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    for step in range(60):
        start = step % 9 * 32
        rows = order[start : start + 32]
        before = model.get_state()
        masks = {
            layer.name: random.dropout_mask((len(rows), 4), layer.rate, tuple(layer.seed_generator.state.tolist()))
            for layer in dropouts
        }
        views = model.arena.views
        truth = second_step.training_step(
            model, data.x[rows], data.y[rows], weights=views(before["theta"]), m=views(before["m"]),
            v=views(before["v"]), step=step + 1, masks=masks,
        )  # fmt: skip
        batch = batches.ArrayBatches((data.x[rows], data.y[rows], None), len(rows), False)
        _, stopped = many.train(plan, [model], batch, [], np.arange(len(rows))[None], 1, launch, True)
        assert not stopped.any()
        for balls, found in (
            (truth.m, views(model.optimizer.m)),
            (truth.v, views(model.optimizer.v)),
            (truth.theta, model.get_weights()),
        ):
            for ball, array in zip(balls, found, strict=True):
                assert ball.holds(array).all(), (step, ball.fraction(array).max())


def build_with_tanh():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(7, "tanh", bias_regularizer="l1"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(5, "sigmoid"),
            keras.layers.Dense(2, "tanh", use_bias=False),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


@needs_compiler
def test_tanh_and_two_outputs_train_as_fit():
    """In float64 to 1e-11, as above; tanh is the one function whose bits are not the kernels' own."""
    config.set_floatx("float64")
    (x, y), _ = notebook.data()
    labels = np.stack([2 * y - 1, 1 - 2 * y], axis=1)
    settings = {"seeds": [1, 2], "epochs": 4, "batch_size": 50, "validation_data": (x[:70], labels[:70])}
    found = on_host(build_with_tanh, x, labels, **settings)
    expected = many.fit_many(build_with_tanh, x, labels, device="cpu", **settings)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=0, atol=1e-11)
    for key, values in expected.history.items():
        np.testing.assert_allclose(found.history[key], values, rtol=0, atol=1e-11)


@st.composite
def trainings(draw):
    """(build, data, settings): any model that the kernel knows, but for tanh, on a few samples."""
    activation = st.sampled_from(["linear", "relu", "sigmoid"])
    penalty = st.sampled_from([None, None, "l1", "l2", regularizers.L1L2(0.1, 0.2)])
    features, hidden = draw(st.integers(1, 6)), draw(st.lists(st.integers(1, 9), max_size=3))
    dense = [
        {
            "units": units,
            "activation": draw(activation),
            "use_bias": draw(st.booleans()),
            "kernel_regularizer": draw(penalty),
            "bias_regularizer": draw(penalty),
        }
        for units in hidden
    ]
    rates = [draw(st.sampled_from([None, None, 0.0, 0.4, 1.0])) for _ in range(len(hidden) + 1)]
    units = draw(st.integers(1, 3))
    end, loss = draw(
        st.sampled_from(
            [
                ("sigmoid", "binary_crossentropy"),
                ("linear", None),
                ("relu", "mse"),
                ("softmax", "categorical_crossentropy"),
                ("softmax", "sparse_categorical_crossentropy"),
                ("sigmoid", "mse"),
                ("linear", "mae"),
            ]
        )
    )
    accuracy = ["accuracy" if end == "softmax" else "binary_accuracy"] if draw(st.booleans()) else []
    units += end == "softmax"

    def labels(samples):
        if end != "softmax":
            return rng.integers(0, 2, (samples, units))
        numbers = rng.integers(0, units, samples)
        return numbers if loss.startswith("sparse") else np.eye(units)[numbers]

    jit = draw(st.booleans())
    clip = draw(st.sampled_from([None, None, 0.01]))
    decay, amsgrad, biases = draw(st.sampled_from([None, 0.0, 0.5])), draw(st.booleans()), draw(st.booleans())

    def build():
        layers = [keras.Input((features,))]
        for rate, arguments in zip(rates, [*dense, {"units": units, "activation": end}], strict=True):
            layers += [] if rate is None else [keras.layers.Dropout(rate)]
            layers.append(keras.layers.Dense(**arguments))
        model = keras.Sequential(layers)
        of_logits = losses.BinaryCrossentropy(from_logits=True)
        optimizer = keras.optimizers.Adam(0.02, amsgrad=amsgrad, weight_decay=decay, clipvalue=clip)
        if not biases:
            optimizer.exclude_from_weight_decay(var_names=["bias"])
        model.compile(optimizer, loss or of_logits, metrics=accuracy, jit_compile=jit)
        return model

    rng, samples = np.random.default_rng(draw(st.integers(0, 99))), draw(st.integers(1, 40))
    x, y = rng.normal(size=(samples, features)), labels(samples)
    settings = {"batch_size": draw(st.integers(1, 20)), "epochs": draw(st.integers(1, 3)), "seeds": [1, 2]}
    weights = draw(st.sampled_from([None, None, "samples", "held out", "both"]))
    if draw(st.booleans()):
        held_out = draw(st.integers(1, 30))
        settings["validation_data"] = rng.normal(size=(held_out, features)), labels(held_out)
        settings["validation_data"] += (rng.gamma(2, size=held_out),) if weights in ("held out", "both") else ()
    if weights in ("samples", "both"):
        settings["sample_weight"] = rng.gamma(2, size=samples)
    elif draw(st.booleans()):
        settings["class_weight"] = {0: 0.5, 1: 2.0}
    return build, (x, y), settings


@needs_compiler
@settings(max_examples=40)
@given(trainings(), st.sampled_from(checks.DTYPES), st.sampled_from([32, 64, 160]))
def test_any_model_trains_to_the_bits_of_fit_with_its_sums_in_the_kernels_order(case, dtype, block):
    """As check_train_step of cuda_host/checks.py, whose models these are not."""
    build, (x, y), how = case
    with checks.floatx(dtype):
        with checks.in_the_kernels_order():
            expected = many.fit_many(build, x, y, device="cpu", **how)
        with mock.patch.object(many.Plan, "threads", lambda *_: block):
            found = on_host(build, x, y, **how)
    for ours, other in zip(found.models, expected.models, strict=True):
        for name, value in other.get_state().items():
            assert_same(ours.get_state()[name], value)
    assert list(found.history) == list(expected.history)
    # sums of at most 120 elements and 6 penalties of up to 81, the means of an epoch, log1p; accuracies of thirds
    relative = 2 * (checks.gamma(250, dtype) + checks.LOG1P * checks.unit(dtype))
    for key, values in expected.history.items():
        assert_close(found.history[key], values, atol=0, rtol=relative, what=key)


@needs_compiler
def test_a_hundred_seeds_are_a_hundred_fits():
    """Each model of a launch is what a launch for it alone leaves."""
    (x, y), _ = notebook.data()
    build = BUILD["L1, L2 and dropout"]
    together = on_host(build, x[:70], y[:70], seeds=range(100), epochs=2)
    assert together.weights.shape == (100, 45) and together.history["loss"].shape == (100, 2)
    assert len({weights.tobytes() for weights in together.weights}) == 100
    for seed in (0, 57, 99):
        alone = on_host(build, x[:70], y[:70], seeds=[seed], epochs=2)
        assert_same(alone.weights[0], together.weights[seed])
        assert_same(alone.history["loss"][0], together.history["loss"][seed])


@needs_compiler
@pytest.mark.parametrize("shuffle", [False, "batch"])
def test_other_orders_of_the_rows(shuffle):
    (x, y), _ = notebook.data()
    settings = {"seeds": [1], "epochs": 2, "batch_size": 50, "shuffle": shuffle}
    found = on_host(BUILD["L1 and L2"], x, y, **settings)
    expected = many.fit_many(BUILD["L1 and L2"], x, y, device="cpu", **settings)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=0, atol=1e-6)  # as test_notebook.py's free run
    other = on_host(BUILD["L1 and L2"], x, y, **settings | {"shuffle": True})
    assert np.abs(found.weights - other.weights).max() > 1e-4


@needs_compiler
def test_the_net_of_the_overfitting_study_fits():
    """4 – 64 – 64 – 1 units, with dropout: within what a block of an A100 or H100 has, not of every GPU."""
    from minidl import study

    split = study.load_split()
    watch = {"train": (split.x_train, split.y_train), "held out": (split.x_validation, split.y_validation)}
    settings = {"seeds": [4], "epochs": 3, "batch_size": study.BATCH_SIZE, "watch": watch}
    for name in ("l2", "dropout"):
        config.set_floatx("float64")  # to 1e-11, as above

        def build(name=name):
            return study.build(study.VARIANTS[name])

        expected = many.fit_many(build, split.x_train, split.y_train, device="cpu", **settings)
        found = on_host(build, split.x_train, split.y_train, **settings)
        np.testing.assert_allclose(found.weights, expected.weights, rtol=0, atol=1e-11)
        assert list(found.history) == list(expected.history) == [
            "loss", "train_loss", "train_accuracy", "held out_loss", "held out_accuracy",
        ]  # fmt: skip
        for key, values in expected.history.items():
            np.testing.assert_allclose(found.history[key], values, rtol=0, atol=1e-11)
        config.set_floatx("float32")
        found = on_host(build, split.x_train, split.y_train, **settings)
    plan = many.Plan.of(found.models[0])
    needed = plan.shared_bytes(study.BATCH_SIZE)
    many.require_room(needed, 163 * 1024)  # of an A100; an H100 has 227 KiB
    with pytest.raises(many.DoesNotFitError, match=r"need \d+\.\d KiB .*; this GPU has 99\.0 KiB.*smaller batch_size"):
        many.require_room(needed, 99 * 1024)


def test_watched_data_are_checked_once_before_training(monkeypatch):
    (x, y), (x_test, y_test) = notebook.data()
    watch, calls = {"test": (x_test, y_test), "few": (x[:5], y[:5])}, []
    watched = many._watched
    monkeypatch.setattr(many, "_watched", lambda *arguments: calls.append(1) or watched(*arguments))
    settings = {"seeds": [1, 2], "epochs": 3, "device": "cpu"}
    found = many.fit_many(BUILD["L1 and L2"], x, y, **settings, watch=watch)
    assert len(calls) == 4 and found.history["few_loss"].shape == (2, 3)  # a model and a set

    def never(epoch, logs):
        raise AssertionError("trained")

    monkeypatch.setattr(many._Watch, "on_epoch_begin", never)
    with pytest.raises(ValueError, match="the model takes 4 features"):
        many.fit_many(BUILD["L1 and L2"], x, y, **settings, watch={"wide": (np.ones((3, 5)), np.ones(3))})


@needs_compiler
def test_weights_and_amsgrad_take_room_only_where_they_are():
    (x, y), _ = notebook.data()
    asked = []

    def launch(kernel, grid, block, arguments, shared):
        asked.append(shared)

    settings = {
        "seeds": (1,), "epochs": 1, "batch_size": 32, "validation_data": None, "shuffle": True, "check_finite": True,
        "launch": launch,
    }  # fmt: skip

    def with_amsgrad():
        model = BUILD["L1 and L2"]()
        model.compile(keras.optimizers.Adam(amsgrad=True), "binary_crossentropy")
        return model

    many.fit_in_one_launch(BUILD["L1 and L2"], x, y, **settings)
    many.fit_in_one_launch(BUILD["L1 and L2"], x, y, **settings, class_weight={0: 2.0})
    many.fit_in_one_launch(with_amsgrad, x, y, **settings)
    assert [shared - asked[0] for shared in asked] == [0, 4 * 32, 4 * 45]


@needs_compiler
def test_a_loss_that_is_not_finite_stops_its_model_and_is_named():
    (x, y), _ = notebook.data()

    def build():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
        model.compile(keras.optimizers.Adam(1e25), "mse")
        return model

    with pytest.raises(FloatingPointError, match=r"seed 7: .*the loss became inf at step 2"):
        on_host(build, x, y, seeds=[7, 8], epochs=3)
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match=r"seed 7: .*became inf at step 2"):
        many.fit_many(build, x, y, seeds=[7, 8], epochs=3, device="cpu")
    assert not np.isfinite(on_host(build, x, y, seeds=[7], epochs=2, check_finite=False).history["loss"]).any()


def test_nothing_to_do():
    (x, y), _ = notebook.data()
    found = many.fit_many(BUILD["L1 and L2"], x, y, seeds=[1], epochs=0, device="cpu")
    assert found.history == {} and found.weights.shape == (1, 45)


class OnDevice:
    """An array of the device's stand-in."""

    def __init__(self, array):
        self.array = host.array(array)

    def get(self):
        return self.array.copy()


@pytest.fixture
def stand_in(monkeypatch):
    """CuPy and a device with blocks of 99 KiB, and cuda.launch onto the host's build."""
    runtime = types.SimpleNamespace(
        getDevice=lambda: 0,
        cudaDevAttrMaxSharedMemoryPerBlockOptin=97,
        deviceGetAttribute=lambda attribute, device: {(97, 0): 99 * 1024}[attribute, device],
    )
    cupy = types.SimpleNamespace(asarray=OnDevice, cuda=types.SimpleNamespace(runtime=runtime))

    def launch(kernel, grid, block, *arguments, shared):
        given = [a.array if isinstance(a, OnDevice) else a for a in arguments]
        assert not any(isinstance(a, np.ndarray) for a in arguments), "a host array given to a device kernel"
        host.build(cuda.kernels()[kernel].path).launch(kernel, given, grid=grid, block=block, shared=shared)

    monkeypatch.setattr(cuda, "ready_cupy", lambda: cupy)
    monkeypatch.setattr(cuda, "unavailable", lambda: None)
    monkeypatch.setattr(cuda, "launch", launch)


@needs_compiler
@pytest.mark.parametrize("device", ["gpu", "auto"])
def test_on_a_device(stand_in, device):
    (x, y), validation = notebook.data()
    settings = {"seeds": range(4), "epochs": 2, "validation_data": validation}
    build = BUILD["L1, L2 and dropout"]
    found, expected = many.fit_many(build, x, y, device=device, **settings), on_host(build, x, y, **settings)
    assert_same(found.weights, expected.weights)
    for key, values in expected.history.items():
        assert_same(found.history[key], values)


@needs_compiler
def test_auto_takes_the_cpu_for_what_the_kernel_does_not_know(stand_in):
    (x, y), _ = notebook.data()
    build = model_of(dense(), optimizer="sgd")
    found = many.fit_many(build, x, y, seeds=[1])
    assert_same(found.weights, many.fit_many(build, x, y, seeds=[1], device="cpu").weights)
    wide = model_of(dense(100, "relu"), dense(100, "relu"), dense())
    for broken, message in ((build, "the optimizer SGD"), (wide, r"need \d+\.\d KiB .*this GPU has 99\.0 KiB")):
        with pytest.raises(many.DoesNotFitError, match=message):
            many.fit_many(broken, x, y, seeds=[1], device="gpu")


@needs_compiler
def test_the_tests_for_a_gpu_pass_on_its_stand_in(stand_in, monkeypatch):
    """So that a mistake in them does not wait for a GPU."""
    on_gpu.use_the_device(monkeypatch, checks.Kernels)
    for name in notebook.MODELS:
        on_gpu.test_the_kernel_trains_as_fit(name)
        config.set_floatx("float32")
        on_gpu.test_each_step_is_within_the_bounds_of_any_order_of_summation(name)
    on_gpu.test_a_hundred_seeds_are_a_hundred_fits()
    for shuffle in (False, "batch"):
        on_gpu.test_other_orders_of_the_rows(shuffle)
    on_gpu.test_a_loss_that_is_not_finite_stops_its_model_and_is_named()
    on_gpu.test_a_thousand_steps_repeat_their_bits(2)
    on_gpu.test_a_model_that_does_not_fit_is_refused_and_leaves_the_device_usable()


@needs_compiler
def test_the_benchmark_of_whole_training_measures_and_checks(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("whole_training", BENCHMARKS / "whole_training.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    launch = checks.launcher(checks.Kernels("train_step", "float32", None))

    def timed(kernel, grid, block, arguments, shared):
        """A minute to start, and two seconds a step of each model."""
        launch(kernel, grid, block, arguments, shared)
        names = [parameter.name for parameter in cuda.kernels()[kernel].parameters]
        return 60.0 + 2.0 * 9 * arguments[names.index("epochs")] * grid

    found = bench.rows(timed, models=(1, 2), short=1, long=3, rounds=2)
    assert found == [(name, n, [2.0 * n, 2.0 * n]) for name in notebook.MODELS for n in (1, 2)]
    assert bench.table([("one", 1000, [5e-6, 1.0, 4e-6])]).endswith("| one | 1,000 | 5.00 | 0.005 |")

    def wrong(kernel, grid, block, arguments, shared):
        launch(kernel, grid, block, arguments, shared)
        names = [parameter.name for parameter in cuda.kernels()[kernel].parameters]
        arguments[names.index("theta")][...] += 1e-5
        return 1.0

    with pytest.raises(AssertionError, match="the kernel's weights after an epoch are not those of fit"):
        bench.step_seconds("L1 and L2", 1, wrong, short=1, long=2)
    monkeypatch.setattr(cuda, "unavailable", lambda: "no driver")
    assert bench.main() == 1 and capsys.readouterr().out == "There is no GPU to measure on: no driver\n"


# ---------------------------------------------------------------------------------------------- bad input


def model_of(*layers, optimizer="adam", loss="binary_crossentropy", **compiled):
    def build():
        model = keras.Sequential([keras.Input((4,)), *(layer() for layer in layers)])
        model.compile(optimizer() if callable(optimizer) else optimizer, loss, **compiled)
        return model

    return build


def dense(units=1, activation="sigmoid", **arguments):
    return lambda: keras.layers.Dense(units, activation, **arguments)


UNKNOWN = {
    "the layer 'batch_normalization', a BatchNormalization, is not supported there": model_of(
        keras.layers.BatchNormalization, dense()
    ),
    "the activation 'gelu' of 'dense'": model_of(dense(3, "gelu"), dense()),
    "kernel_constraint of 'dense'": model_of(dense(kernel_constraint="non_neg")),
    "activity_regularizer of 'dense'": model_of(dense(activity_regularizer="l2")),
    "kernel_regularizer of 'dense', a OrthogonalRegularizer, is not": model_of(
        dense(kernel_regularizer="orthogonal_regularizer")
    ),
    "the activation 'softmax' of 'dense'": model_of(dense(3, "softmax"), dense()),
    "a frozen layer, 'dense' with trainable=False, is not": model_of(dense(3, trainable=False), dense()),
    "noise_shape of 'dropout'": model_of(lambda: keras.layers.Dropout(0.5, noise_shape=(None, 1)), dense()),
    "must end in a Dense layer": model_of(dense(), lambda: keras.layers.Dropout(0.5)),
    "has 17 layers, more than 16": model_of(*[dense()] * 17),
    "the loss 'huber_loss' on sigmoid is not a cross-entropy, mse or mae": model_of(dense(), loss="huber"),
    "the loss 'binary_crossentropy' smooths": model_of(dense(), loss=keras.losses.BinaryCrossentropy(False, 0.1)),
    "has a reduction": model_of(dense(), loss=keras.losses.MeanSquaredError(reduction="sum")),
    "is not computed from logits on top of relu": model_of(dense(activation="relu")),
    "the loss 'mean_squared_error' on softmax is not": model_of(dense(3, "softmax"), loss="mse"),
    "the metrics 'binary_accuracy' are not one CategoricalAccuracy": model_of(
        dense(3, "softmax"), loss="categorical_crossentropy", metrics=["binary_accuracy"]
    ),
    "the metrics 'auc' are not one BinaryAccuracy": model_of(dense(), metrics=[keras.metrics.AUC()]),
    "the optimizer SGD is not supported there": model_of(dense(), optimizer="sgd"),
    "use_ema=True of the optimizer Adam": model_of(dense(), optimizer=lambda: keras.optimizers.Adam(use_ema=True)),
    "global_clipnorm=1.0 of the optimizer AdamW": model_of(
        dense(), optimizer=lambda: keras.optimizers.AdamW(global_clipnorm=1.0)
    ),
    "clipnorm=1.0 of the optimizer Adam": model_of(dense(), optimizer=lambda: keras.optimizers.Adam(clipnorm=1.0)),
}


@pytest.mark.parametrize("message", UNKNOWN)
def test_what_the_kernel_does_not_know_is_named(message):
    (x, y), _ = notebook.data()

    def never(*_):
        raise AssertionError("launched")

    labels = np.eye(3)[y] if "on softmax" in message or "Categorical" in message else y
    with pytest.raises(many.DoesNotFitError, match=message) as caught:
        many.fit_in_one_launch(
            UNKNOWN[message], x, labels, seeds=(1,), epochs=1, batch_size=None, validation_data=None, shuffle=True,
            check_finite=True, launch=never,
        )  # fmt: skip
    assert "fit_many on the GPU" in str(caught.value) and "device='cpu'" in str(caught.value)


def test_bad_arguments():
    (x, y), _ = notebook.data()
    build = BUILD["L1 and L2"]
    for arguments, error, message in [
        ({"device": "tpu"}, ValueError, "device must be one of 'auto', 'cpu', 'gpu'; got 'tpu'"),
        ({"seeds": []}, ValueError, "at least one seed"),
        ({"seeds": 5}, TypeError, r"seeds must be integers, such as range\(100\); got 5"),
        ({"seeds": [-1]}, ValueError, "each seed must be"),
        ({"seeds": [0.5]}, ValueError, "each seed must be"),
        ({"epochs": -1}, ValueError, "epochs must be"),
        ({"watch": {"val": (x, y)}}, ValueError, "watch must map names to .* none is 'val'"),
        ({"watch": {"few": x}}, ValueError, r"watch must map names to \(x, y\)"),
        ({"build": build()}, TypeError, "build must be a function that makes a compiled model"),
        ({"build": lambda: 3}, TypeError, "build must return a compiled model of minidl; got 3"),
        ({"build": lambda: keras.Sequential([keras.layers.Dense(1)])}, TypeError, "must return a compiled model"),
        ({"x": x[:, :3], "build": model_of(dense())}, ValueError, "the model takes 4 features"),
    ]:
        with pytest.raises(error, match=message):
            many.fit_many(**{"build": build, "x": x, "y": y, "seeds": [1], "device": "cpu"} | arguments)

    model = build()
    with pytest.raises(ValueError, match="build must make a new model each time it is called"):
        many.fit_many(lambda: model, x, y, seeds=[1, 2], device="cpu")


@needs_compiler
def test_bad_arguments_of_the_kernel():
    (x, y), _ = notebook.data()
    build = BUILD["L1 and L2"]
    with pytest.raises(many.DoesNotFitError, match="x must be an array"):
        on_host(build, ((x[:5], y[:5]) for _ in range(3)), None, seeds=[1], shuffle=False)
    coarse = model_of(dense(), metrics=[keras.metrics.BinaryAccuracy(threshold=0.3)])
    with pytest.raises(many.DoesNotFitError, match=r"with watch, accuracies are counted at a threshold of 0\.5"):
        on_host(coarse, x, y, seeds=[1], watch={"few": (x[:3], y[:3])})
    rates = iter([0.1, 0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match="differ in their random numbers alone"):
        on_host(lambda: model_of(lambda: keras.layers.Dropout(next(rates)), dense())(), x, y, seeds=[1, 2])
    with pytest.raises(ValueError, match="differ in their random numbers alone"):
        on_host(lambda: model_of(dense(), optimizer=keras.optimizers.Adam(next(rates)))(), x, y, seeds=[1, 2])
    config.set_random_stream("jax")
    with pytest.raises(many.DoesNotFitError, match="the random stream 'jax' is not TensorFlow's"):
        on_host(build, x, y, seeds=[1])


@pytest.mark.skipif(cuda.unavailable() is None, reason="there is a GPU here")
def test_without_a_gpu():
    (x, y), _ = notebook.data()
    with pytest.raises((ImportError, cuda.DeviceError), match=r"minidl\[gpu12\]|no CUDA device answers"):
        many.fit_many(BUILD["L1 and L2"], x, y, seeds=[1], device="gpu")
    auto = many.fit_many(BUILD["L1 and L2"], x, y, seeds=[1])
    assert_same(auto.weights, many.fit_many(BUILD["L1 and L2"], x, y, seeds=[1], device="cpu").weights)


def test_a_data_set_of_minidl_s_own():
    (x, y), (x_test, y_test) = datasets.penguins.load_data()
    x, x_test = datasets.standardize(x, x_test)
    found = many.fit_many(BUILD["L1 and L2"], x, y, seeds=range(3), validation_data=(x_test, y_test), device="cpu")
    assert list(found.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
