"""The notebook runs with only its import lines changed, and gives what it gives on TensorFlow."""

import re

import class_notebook
import numpy as np
import pytest
from keras_cases import keras_on_tensorflow

import minidl
from minidl import models, naming
from minidl.oracle import notebook as penguins
from minidl.oracle import notebook_record


@pytest.mark.parametrize("imports", ["minidl as tf", "minidl as keras"])
def test_the_notebook_runs(imports, capsys):
    found = class_notebook.run(class_notebook.IMPORTS[imports], penguins.data())
    for name in ("model", "dropout_model"):
        assert type(found[name]) is models.Sequential
        assert found[name].count_params() == 45
    assert list(found["history"].history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert found["dropout_history"].epoch == [0, 1, 2, 3, 4]
    assert found["predicted"].shape == (66, 1) and found["predicted"].dtype == np.float32
    assert found["evaluated"] == [found["history"].history[f"val_{name}"][-1] for name in ("loss", "accuracy")]
    assert "Total params" in capsys.readouterr().out


@pytest.mark.keras
def test_the_notebook_gives_what_it_gives_on_tensorflow(capsys):
    """From one seed, both libraries running free: the same history, figures and predictions, to float32's rounding.

    Adam makes a step of about 1e-3 of any gradient; five epochs are 45 steps. With each step off by at most its
    rounding bound of a few ULPs of the weight (see test_compare.py) the weights agree to 1e-6, and so do outputs.
    """
    keras, _ = keras_on_tensorflow()
    keras.utils.clear_session(free_memory=False)
    with pytest.warns(UserWarning, match="input_shape"):
        theirs = class_notebook.run(class_notebook.IMPORTS["TensorFlow"], penguins.data())
    their_summaries = summaries(capsys)
    naming.reset_names()
    ours = class_notebook.run(class_notebook.IMPORTS["minidl as tf"], penguins.data())
    assert summaries(capsys) == their_summaries
    for prefix in ("", "dropout_"):
        for name, values in theirs[f"{prefix}history"].history.items():
            np.testing.assert_allclose(ours[f"{prefix}history"].history[name], values, rtol=0, atol=1e-6)
        np.testing.assert_allclose(ours[f"{prefix}evaluated"], theirs[f"{prefix}evaluated"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(ours[f"{prefix}predicted"], theirs[f"{prefix}predicted"], rtol=0, atol=1e-6)
        model = f"{prefix}model"
        for mine, keras_own in zip(ours[model].get_weights(), theirs[model].get_weights(), strict=True):
            np.testing.assert_allclose(mine, keras_own, rtol=0, atol=1e-6)


def summaries(capsys):
    """The tables and totals that summary() printed."""
    return re.findall(r'^(?:Model: "|[┏┃┡│├└]| [A-Z][a-z-]+ params).*$', capsys.readouterr().out, flags=re.MULTILINE)


@pytest.mark.keras
def test_the_frameworks_own_functions_are_taken():
    keras, tf = keras_on_tensorflow()
    for function, name in ((tf.nn.relu, "relu"), (tf.nn.sigmoid, "sigmoid"), (tf.nn.tanh, "tanh"),
                           (tf.nn.softmax, "softmax"), (keras.activations.relu, "relu"),
                           (keras.activations.linear, "linear")):  # fmt: skip
        assert minidl.layers.Dense(1, activation=function).activation is getattr(minidl.activations, name)


@pytest.mark.keras
def test_a_live_recording_is_the_one_that_ships():
    """What the committed script records now, for two epochs, is what it recorded then.

    Another version of TensorFlow or another processor may sum in another order, so the weights are compared to the
    free run's tolerance of 1e-6 and the random numbers exactly.
    """
    name = "L1, L2 and dropout"
    (x, y), validation = penguins.data()
    live = notebook_record.record(
        penguins.MODELS[name], x, y, validation_data=validation, epochs=2, batch_size=32, seed=penguins.SEED,
        detailed_steps=18,
    )  # fmt: skip
    shipped = penguins.recorded(name)
    np.testing.assert_array_equal(live.theta_start, shipped.theta_start)
    np.testing.assert_array_equal(live.orders, shipped.orders[:2])
    for ours, theirs in zip(live.masks.values(), shipped.masks.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs[:18])
    np.testing.assert_allclose(live.step_theta, shipped.step_theta[:18], rtol=0, atol=1e-6)
