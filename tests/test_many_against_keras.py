"""kernels/train_step.cu, run on the CPU, against live Keras: the notebook's models for 63 steps, dropout's masks."""

import sys

import numpy as np
import pytest
from cuda_host import checks, host
from test_many import on_host

from minidl import batches, config, many, utils
from minidl import keras as own
from minidl.oracle import notebook

pytestmark = [
    pytest.mark.keras,
    pytest.mark.skipif(
        host.compiler() is None or sys.platform == "win32", reason="executing the kernels needs g++ on a POSIX system"
    ),
]
SEEDS = (2, 812)


@pytest.mark.parametrize("dtype", checks.DTYPES)
@pytest.mark.parametrize("name", notebook.MODELS)
def test_the_kernel_trains_as_keras(keras, name, dtype):
    """Both running free from one seed: float64 to 1e-11 (see test_fit_against_keras.py), float32 to 1e-6 (see
    test_notebook.py). In either a flipped flag or another row shows in the second digit. Seeds and counters are equal,
    accuracies the same numbers of birds."""
    atol = {"float32": 1e-6, "float64": 1e-11}[dtype]
    config.set_floatx(dtype)
    keras.config.set_floatx(dtype)
    (x, y), validation = notebook.data()
    settings = {"epochs": 7, "validation_data": validation}
    try:
        found = on_host(lambda: notebook.MODELS[name](own), x, y, seeds=SEEDS, **settings)
        for i, seed in enumerate(SEEDS):
            keras.utils.clear_session(free_memory=False)
            keras.utils.set_random_seed(seed)
            model = notebook.MODELS[name](keras)
            history = model.fit(x, y, verbose=0, **settings).history
            assert list(found.history) == list(history)
            for key, values in history.items():
                np.testing.assert_allclose(found.history[key][i], values, rtol=0, atol=atol)
            ours = found.models[i]
            for mine, theirs in zip(ours.get_weights(), model.get_weights(), strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)
            for mine, theirs in zip(ours.optimizer.variables, model.optimizer.variables, strict=True):
                np.testing.assert_allclose(mine, keras.ops.convert_to_numpy(theirs), rtol=0, atol=atol)
            states = [
                [np.array(layer.seed_generator.state).tolist() for layer in ours.layers if "drop" in layer.name],
                [layer.seed_generator.state.numpy().tolist() for layer in model.layers if "drop" in layer.name],
            ]
            assert states[0] == states[1] and all(state[1] == 63 for state in states[0])
    finally:
        keras.config.set_floatx("float32")
        keras.utils.clear_session(free_memory=False)


def test_weights_and_the_optimizer_s_arguments_as_keras(keras):
    """AdamW with amsgrad, a schedule, clipping, decay of the kernels alone, weights in training and validation: 36
    steps in float64 to 1e-11, as above. The schedule is one without powers, which in float32 differ by an ulp from
    those of TensorFlow. (Weights of classes are made weights of samples before either is asked.)
    """
    config.set_floatx("float64")
    keras.config.set_floatx("float64")
    (x, y), (x_val, y_val) = notebook.data()
    rng = np.random.default_rng(3)
    settings = {"epochs": 4, "sample_weight": rng.gamma(2, size=len(x))}
    settings["validation_data"] = x_val, y_val, rng.gamma(2, size=len(x_val))

    def build(library):
        model = notebook.MODELS["L1, L2 and dropout"](library)
        rate = library.optimizers.schedules.PiecewiseConstantDecay([4, 20], [0.02, 0.005, 0.03])
        optimizer = library.optimizers.AdamW(rate, 0.3, amsgrad=True, clipvalue=0.02)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
        return model

    try:
        found = on_host(lambda: build(own), x, y, seeds=[5], **settings)
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(5)
        model = build(keras)
        history = model.fit(x, y, verbose=0, **settings).history
        assert list(found.history) == list(history)
        for key, values in history.items():
            np.testing.assert_allclose(found.history[key][0], values, rtol=0, atol=1e-11)
        ours = found.models[0]
        for mine, theirs in zip(ours.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-11)
        for mine, theirs in zip(ours.optimizer.variables, model.optimizer.variables, strict=True):
            np.testing.assert_allclose(mine, keras.ops.convert_to_numpy(theirs), rtol=0, atol=1e-11)
    finally:
        keras.config.set_floatx("float32")
        keras.utils.clear_session(free_memory=False)


@pytest.mark.parametrize("dtype", checks.DTYPES)
def test_the_kernels_masks_are_keras_s(keras, dtype):
    """One sample a step through Dropout, then Dense(1): m of a weight is 0 just where its input was dropped."""
    config.set_floatx(dtype)
    launch = checks.launcher(checks.Kernels("train_step", dtype, None))
    units, rate, seed = 61, 0.4, 91
    utils.set_random_seed(0)
    model = own.Sequential([own.Input((units,)), own.layers.Dropout(rate, seed=seed), own.layers.Dense(1)])
    model.compile("adam", "mse")
    ones, label = np.ones((1, units), dtype), np.full((1, 1), 100, dtype)
    theirs = keras.layers.Dropout(rate, seed=seed, dtype=dtype)
    model.fit(ones, label, epochs=0, verbose=0)  # builds it
    model.optimizer.build(model.arena)
    plan, batch = many.Plan.of(model), batches.ArrayBatches((ones, label, None), 1, False)
    for step in range(40):
        model.optimizer.m[...] = 0
        many.train(plan, [model], batch, [], np.zeros((1, 1)), 1, launch, True)
        expected = theirs(keras.ops.convert_to_tensor(ones), training=True).numpy()[0] != 0
        np.testing.assert_array_equal(model.optimizer.m[:units] != 0, expected, err_msg=f"step {step}")
