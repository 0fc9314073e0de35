"""The judge on live Keras: random models trained by its train_on_batch, in graph, eager and XLA mode, are right."""

import dataclasses
import os
import warnings

import judge_functions
import numpy as np
import pytest
from check_cases import EPSILON_IN_THE_ROOT
from helpers import printed_on
from judge_models import ACTIVATIONS, LOSSES, RandomModel, no_false_alarm

import minidl.keras as minidl_keras
from minidl import activations, config, utils
from minidl.oracle.bounds import Arithmetic
from minidl.oracle.judge import Judge, judge_start
from minidl.oracle.layer_bounds import activation_form
from minidl.oracle.recorder import Recorder
from minidl.oracle.steps import BIT_EQUAL, DIVERGENT, NOT_OBSERVED

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def tf(keras):
    return pytest.importorskip("tensorflow")


def judged(keras, tf, case, mode, dtype):
    """All checks of Keras's training of a case, and of its initial weights."""

    def own():
        utils.clear_session(free_memory=False)
        utils.set_random_seed(7)
        model = case.build(minidl_keras)
        model.jit_compile = mode == "xla"
        return model

    before = keras.config.floatx()
    keras.config.set_floatx(dtype)
    config.set_floatx(dtype)
    try:
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(7)
        model = case.build(keras)
        model.run_eagerly, model.jit_compile = mode == "eager", mode == "xla"
        recorder, judge = Recorder(keras, model, own()), Judge(own())
        found = judge_start(own(), recorder.state().weights)
        with recorder.watching():
            for number, (x, y, weight) in enumerate(case.data):
                x, state = x.astype(dtype), recorder.state()
                recorder.seen.clear()
                logs = model.train_on_batch(x, y, sample_weight=weight, return_dict=True)
                logs = {name: np.array(value) for name, value in logs.items()}
                step = recorder.step(number, 0, 0, state, recorder.state(), logs)
                found += judge.judge(dataclasses.replace(step, x=x, y=y, sample_weight=weight))
    finally:
        keras.config.set_floatx(before)
        keras.utils.clear_session(free_memory=False)
    return found


# The widest nets that one second builds: a sample of what a sweep over hundreds of seeds has shown to hold.
CASES = [("graph", "float32", seed) for seed in (1, 2, 7, 8, 70)]
CASES += [("eager", "float32", 12), ("graph", "float64", 1), ("graph", "float64", 8), ("xla", "float32", 203)]


@pytest.mark.parametrize("mode, dtype, seed", CASES)
def test_keras_is_right(keras, tf, mode, dtype, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checks = judged(keras, tf, RandomModel(seed), mode, dtype)
    wrong = [check for check in checks if check.verdict == DIVERGENT or check.own_share > 1]
    assert not wrong, wrong[:3]
    assert {check.verdict for check in checks if check.step == -1} == {BIT_EQUAL}
    gradients = {check.verdict for check in checks if check.quantity == "gradient"}
    assert (gradients == {NOT_OBSERVED}) == (mode == "xla")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_derivative_are_within_bounds(keras, name):
    for way, value, derivative in judge_functions.activation_shares(keras, name):
        assert value <= 1 and derivative <= 1, way


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradient_are_within_bounds(keras, name):
    with np.errstate(all="ignore"):
        for way, value, gradient in judge_functions.loss_shares(keras, name):
            assert value <= 1 and gradient <= 1, way


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_activations_and_losses_of_other_backends_are_within_bounds(backend):
    assert printed_on(backend, judge_functions.__file__) == ""


@pytest.mark.parametrize("name", sorted({*ACTIVATIONS} - {"softmax", "log_softmax", "sparsemax"}))
def test_an_activation_in_one_kernel_with_its_product_is_within_bounds(keras, tf, name):
    """As in training, with the gradient. Also where it underflows, which oneDNN's exponential does before others."""
    rng = np.random.default_rng(8)
    x = np.concatenate([np.linspace(-90, -80, 4000), rng.normal(size=4000), np.linspace(80, 87, 1000)])[:, None]
    layer = keras.layers.Dense(1, name, kernel_initializer="ones")
    layer.build(x.shape)

    @tf.function
    def value(x):
        with tf.GradientTape() as tape:
            y = layer(x)
        return y, tape.gradient(y, layer.trainable_variables)

    computed = value(tf.constant(x, tf.float32))[0].numpy()
    ball = activation_form(activations.get(name)).value(Arithmetic.of("float32").given(x.astype(np.float32)))
    assert ball.share(computed).max() <= 1


def test_penalties_of_a_step_that_was_not_seen_inside_are_not_missing(keras):
    case = RandomModel(11, optimizer="adam", loss="mse", layer=None, activation="tanh", regularizer="l2")
    recorder = Recorder(keras, case.build(keras), case.build(minidl_keras))
    state = recorder.state()
    assert recorder.step(0, 0, 0, state, state, {}).penalties is None
    recorder.seen["data_loss"] = [np.float32(1.0)]
    assert recorder.step(0, 0, 0, state, state, {}).penalties == []


def test_a_fault_in_keras_is_named(keras, tf, monkeypatch):
    """Keras's Adam with ε in the root: its slots are right, its weights are not."""
    monkeypatch.setattr(keras.optimizers.Adam, "update_step", keras.optimizers.Adam.update_step)
    exec(EPSILON_IN_THE_ROOT, {})
    case = RandomModel(11, optimizer="adam", loss="mse", scale=1.0, rows=7, layer=None, activation="tanh")
    checks = judged(keras, tf, case, "graph", "float32")
    wrong = [check for check in checks if check.verdict == DIVERGENT]
    assert {check.quantity for check in wrong} == {"weight"}
    assert np.isfinite([check.share for check in wrong]).all()


def test_no_false_alarm_in_random_models(keras):
    """Some of as many as one likes: python tests/judge_models.py 1000."""
    no_false_alarm(keras, int(os.environ.get("MINIDL_RANDOM_MODELS", "4")))
