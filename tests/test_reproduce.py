"""A divergence on its own: its step as a script for Keras alone, made and run; made smaller by delta debugging."""

import importlib.util
import os

import numpy as np
import pytest
from check_cases import EPSILON_IN_THE_ROOT
from faults.scripts import in_processes

from minidl.oracle import check, minimise, reproduce, scripts
from minidl.oracle.report import Report

pytestmark = pytest.mark.keras

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")


def built(keras):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(6, "relu"), keras.layers.Dropout(0.25), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], run_eagerly=True)  # no time for tracing
    return model


@pytest.fixture
def diverging(keras, monkeypatch):
    monkeypatch.setattr(keras.optimizers.Adam, "update_step", keras.optimizers.Adam.update_step)
    exec(EPSILON_IN_THE_ROOT, {})
    return check(built(keras), X, Y, batch_size=8, steps=2)


def test_the_script_shows_it_in_keras_alone_and_the_smallest_too(diverging, tmp_path, monkeypatch):
    first = diverging.first_divergence
    assert first.quantity == "weight"
    (tmp_path / "sitecustomize.py").write_text(EPSILON_IN_THE_ROOT)  # the same fault in the script's own process
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    smaller = minimise.Minimiser(reproduce.Case.of(diverging), "weight")
    case = smaller.run()
    assert case.x.shape == (1, 1) and sum(weight.size for weight in case.state.weights.values()) == 2
    assert smaller.attempts < 60

    text = reproduce.reproduce(diverging, case)
    assert first.script == text and "minidl" not in text.replace("Made by minidl check", "")
    assert "keras.layers.Dense(" in text and "Dropout" not in text
    assert "It diverges in Keras alone." in first.script_result
    assert text.splitlines()[-1] in diverging.to_html().replace("&gt;", ">").replace("&#39;", "'")


# Every generator's counter stays where it is from its fourth draw on.
STOPPING = """
import keras
plain = keras.random.SeedGenerator.next
def next(self, ordered=True):
    self.draws = getattr(self, "draws", 0) + 1
    seed = plain(self, ordered)
    if self.draws > 3:
        self.state.assign(seed)
    return seed
keras.random.SeedGenerator.next = next
"""
# It does from its fifth number on, unless that is the first that is drawn.
STOPPING_LATER = STOPPING.replace("self.draws > 3", "self.draws > 1 and int(seed[1]) >= 4")
# Adam's bias is corrected as of the step before, from the third update on.
LATE = """
import keras
plain = keras.optimizers.Adam.update_step
def update_step(self, gradient, variable, rate):
    t = int(self.iterations) + 1
    factor = (1 - 0.999 ** (t - 1)) ** 0.5 / (1 - 0.9 ** (t - 1)) if t > 2 else (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
    plain(self, gradient, variable, rate * factor * (1 - 0.9**t) / (1 - 0.999**t) ** 0.5)
keras.optimizers.Adam.update_step = update_step
"""
# What passes relu is halved.
HALVED = """
import keras
import keras.src.backend.tensorflow.nn as nn
plain = nn.relu
nn.relu = lambda x: plain(x) * 0.5
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", [STOPPING, STOPPING_LATER, LATE, HALVED], ids=["stopping", "later", "late", "halved"])
def test_a_case_has_the_steps_and_layers_that_it_takes(keras, monkeypatch, tmp_path, fault):
    import keras.src.backend.tensorflow.nn as nn

    for owner, name in ((keras.random.SeedGenerator, "next"), (keras.optimizers.Adam, "update_step"), (nn, "relu")):
        monkeypatch.setattr(owner, name, vars(owner)[name])
    exec(fault, {})
    (tmp_path / "sitecustomize.py").write_text(fault)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    report = check(built(keras), X, Y, batch_size=4, epochs=2)
    first = report.first_divergence
    quantity, step, steps, kinds = {
        STOPPING: ("mask", 3, 4, ["Dropout", "Dense"]),
        STOPPING_LATER: ("mask", 4, 2, ["Dropout", "Dense"]),
        LATE: ("weight", 2, 1, ["Dense"]),
        HALVED: ("activation", 0, 1, ["Dense", "Dense"]),
    }[fault]
    assert (first.quantity, first.step) == (quantity, step)
    smaller = minimise.Minimiser(reproduce.diverging(report)[0], quantity)
    case = smaller.run()
    layers = [layer["class_name"] for layer in case.config["config"]["layers"] if layer["class_name"] != "InputLayer"]
    assert (case.count, len(case.x), case.x.shape[1], layers) == (steps, steps, 1, kinds)
    assert fault is not HALVED or case.config["config"]["layers"][1]["config"]["activation"] == "relu"
    if steps > 1:
        assert f"{steps} steps of Keras's own fit" in reproduce.reproduce(report, case)
        assert "It diverges in Keras alone." in first.script_result


def test_a_case_of_several_epochs(keras, monkeypatch):
    """Metrics that are not reset show in a second epoch: one batch of one row in each is left."""
    monkeypatch.setattr(keras.metrics.Mean, "reset_state", lambda self: None)
    report = check(built(keras), X, Y, batch_size=10, epochs=3)
    assert (report.first_divergence.quantity, report.first_divergence.step) == ("metric", 3)
    whole = reproduce.diverging(report)[0]
    assert (whole.epochs, whole.count, whole.stops) == (2, 4, True)
    case = minimise.Minimiser(whole, "metric").run()
    assert (case.epochs, case.count, len(case.x), case.stops) == (2, 2, 1, False)
    assert "epochs=2" in scripts.fit_script(case, case.check().first_divergence)


def test_what_lies_in_this_process_alone_is_said(diverging, monkeypatch):
    monkeypatch.setattr(reproduce, "run", lambda text, timeout: (0, "got 1, true value 1"))
    assert reproduce.reproduce(diverging) is not None
    assert "it does not diverge" in diverging.first_divergence.script_result


def test_the_step_alone_is_the_step_of_the_fit(keras):
    """From the state before it, on its batch: the same checks come out, also in the midst of a fit."""
    seen = []

    class Watching(Report):
        def add(self, checks, step=None):
            super().add(checks, step)
            seen.append((list(checks), step))

    import minidl.oracle.checking as checking

    plain, checking.Report = checking.Report, Watching
    try:
        report = check(built(keras), X, Y, batch_size=8, epochs=2, seed=3)
    finally:
        checking.Report = plain
    checks, step = seen[4]
    assert report.ok and step.number == 4
    case = reproduce.Case(report.about["model"], "eager", "float32", step.before, step.x, step.y)
    again = case.check()
    assert again.ok
    for one in (one for one in checks if one.quantity in ("mask", "activation", "gradient", "slot", "weight")):
        (tally,) = [tally for tally in again.cell(one.quantity, one.layer) if tally.name == one.name]
        assert (tally.verdict, tally.ulps) == (one.verdict, one.ulps), one


def test_arrays_come_back_to_the_bit():
    extremes = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4028235e38, 1 / 3], "float32")
    long = RNG.normal(size=(20, 30)).astype("float32")
    for array in (extremes, extremes.astype("float64"), X, long, RNG.integers(0, 9, 5), np.zeros((3, 2)), X > 0):
        import base64
        import zlib

        found = eval(scripts._array(array), {"np": np, "zlib": zlib, "base64": base64, "NaN": np.nan})
        assert found.dtype == array.dtype and found.shape == array.shape
        assert np.array(found).tobytes() == array.tobytes()


def test_what_has_no_script_says_why(diverging):
    first = diverging.first_divergence
    first.quantity = "batch"
    diverging.about["seed"] = None
    assert reproduce.reproduce(diverging) is None
    assert first.script_result.startswith("There is no script: the order of the rows is not predicted: without keras")
    assert "The order of the rows is not predicted" in diverging.to_html().replace("There is no script: t", "T")


SHOWN = {
    "tensorflow": {
        "class weights ignored": "batch", "the last partial batch dropped": "batch", "counter advanced twice": "mask",
        "product in float16": "pre_activation", "dropout without its scale": "activation",
        "a sum in place of the mean": "loss", "L2 halved": "penalty", "metrics not reset": "metric",
        "gamma squared": "gradient", "the schedule one step late": "slot", "moving mean not kept": "weight",
        "glorot of the wrong fan": "weight",
    },
    "jax": {
        "labels one row off": "batch", "counter advanced twice": "mask", "loss derived twice as steep": "gradient",
        "epsilon in the root": "weight",
    },
    "torch": {
        "labels one row off": "batch", "noise of the variance": "mask", "the last input left out": "pre_activation",
        "gelu by tanh": "activation", "mean squared error halved": "loss", "L1 doubled": "penalty",
        "metrics not reset": "metric", "loss derived twice as steep": "gradient", "not clipped": "slot",
        "constraint not applied": "weight",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("backend", SHOWN)
def test_scripts_show_planted_faults_of_each_quantity_in_a_process_of_their_own(backend):
    """Keras alone, with the fault in it: exit status 1; without: 0."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    for name, found in in_processes(list(SHOWN[backend]), backend).items():
        assert found["quantity"] == SHOWN[backend][name]
        assert found["planted"][0] == 1 and found["planted"][1].startswith("got "), (name, found)
        assert found["plain"][0] == 0, (name, found)
        assert "minidl" not in found["text"].replace("Made by minidl check", "")
