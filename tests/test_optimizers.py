"""optimizers.py and schedules.py: arguments, state and one pass over the arena; see test_optimizer_rules.py too."""

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_close, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import config, ops, optimizers, utils
from minidl.arena import Arena
from minidl.callbacks import LambdaCallback
from minidl.layers import Dense, Dropout, Input
from minidl.models import Sequential
from minidl.optimizers import SGD, Adam, AdamW, RMSprop, schedules

F32 = np.float32


@pytest.fixture
def arena(rng):
    arena = Arena([("a", "kernel", (2, 3)), ("a", "bias", (3,))], "float32")
    arena.theta[:] = rng.normal(size=9)
    return arena


COMMON = {
    "weight_decay": None, "clipnorm": None, "global_clipnorm": None, "clipvalue": None, "use_ema": False,
    "ema_momentum": 0.99, "ema_overwrite_frequency": None, "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}  # fmt: skip
EMA = {"use_ema": True, "ema_momentum": 0.5}
OPTIMIZERS = [
    ("SGD", {"momentum": 0.9, "nesterov": True, "clipnorm": 0.1}),
    ("SGD", {"learning_rate": schedules.CosineDecay(0.5, 9, alpha=0.25), **EMA, "ema_overwrite_frequency": 3}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1, "global_clipnorm": 0.5}),
    ("Adam", {"gradient_accumulation_steps": 3, **EMA}),
    ("AdamW", {"clipvalue": 0.25}),
    ("Adamax", {"loss_scale_factor": 8.0}),
    ("Nadam", {"gradient_accumulation_steps": 2, "beta_1": 0.8}),
    ("RMSprop", {"momentum": 0.5, "centered": True, "rho": 0.8, **EMA}),
    ("Adagrad", {"initial_accumulator_value": 0.5}),
    ("Adadelta", {"rho": 0.9, "learning_rate": 1.0}),
]


def ids(cases):
    return [f"{name}-{'-'.join(options)}" for name, options in cases]


def test_defaults_are_keras_s():
    assert Adam().get_config() == {
        "name": "adam",
        "learning_rate": float(F32(0.001)),  # kept in floatx
        **COMMON,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-7,
        "amsgrad": False,
    }
    assert [Adam().name, Adam().name, AdamW().name, RMSprop().name] == ["adam_1", "adam_2", "adam_w", "rm_sprop"]


def test_apply_is_adam_step_over_the_whole_arena(arena, rng):
    adam = Adam(learning_rate=0.1, beta_1=0.7, beta_2=0.9, epsilon=0.01)
    theta, m, v = arena.theta.copy(), np.zeros(9, F32), np.zeros(9, F32)
    for step in (1, 2, 3):
        arena.grads[:] = rng.normal(size=9)
        adam.apply(arena)
        ops.adam_step(theta, arena.grads, m, v, step=step, learning_rate=0.1, beta_1=0.7, beta_2=0.9, epsilon=0.01)
        assert adam.iterations == step
        for got, expected in ((arena.theta, theta), (adam.m, m), (adam.v, v)):
            assert_same(got, expected)


def test_learning_rate_can_be_set_between_steps(arena):
    adam = Adam(0.1)
    arena.grads[:] = 1
    adam.apply(arena)
    before = arena.theta.copy()
    adam.learning_rate = 0
    adam.apply(arena)
    assert_same(arena.theta, before)
    assert (adam.learning_rate, adam.iterations) == (0, 2)


def test_learning_rate_is_rounded_to_floatx():
    assert Adam(0.1).learning_rate == float(F32(0.1))
    config.set_floatx("float64")
    assert Adam(0.1).learning_rate == 0.1


def test_variables_are_in_keras_s_order(arena):
    adam = Adam(0.5)
    assert not adam.built
    assert [v.tolist() for v in adam.variables] == [0, 0.5]
    arena.grads[:] = np.arange(9)
    adam.apply(arena)
    assert adam.built
    iteration, rate, m_kernel, v_kernel, m_bias, v_bias = adam.variables
    assert_same(iteration, np.int64(1))
    assert_same(rate, F32(0.5))
    assert_same(m_kernel, adam.m[:6].reshape(2, 3))
    assert_same(v_kernel, adam.v[:6].reshape(2, 3))
    assert_same(m_bias, adam.m[6:])
    assert_same(v_bias, adam.v[6:])
    assert np.shares_memory(m_kernel, adam.m)


def test_its_state_belongs_to_one_arena(arena):
    adam = Adam()
    adam.apply(arena)
    other = Arena([("b", "kernel", (1, 1))], "float32")
    with pytest.raises(ValueError, match=r"state of another model.* compile the model with a new optimizer"):
        adam.apply(other)
    assert (adam.iterations, other.theta[0]) == (1, 0)


@pytest.mark.parametrize("identifier", ["adam", "Adam", "ADAM", Adam, {"class_name": "Adam", "config": {}}])
def test_get(identifier):
    found = optimizers.get(identifier)
    assert type(found) is Adam
    assert found.get_config() == Adam(name=found.name).get_config()


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adamax", "Nadam", "RMSprop", "Adagrad", "Adadelta"])
def test_get_finds_each_by_name(name):
    assert type(optimizers.get(name.lower())) is type(optimizers.get(name)) is getattr(optimizers, name)


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("adamx", "Unknown optimizer: 'adamx'. Did you mean .*'adamax'"),
        (None, "Unknown optimizer: None"),
        ({"class_name": "adma", "config": {}}, "Unknown optimizer: 'adma'. Did you mean 'adam"),
        ({"name": "adam"}, "config has a class_name and a config; got"),
        (optimizers.Optimizer(), None),
    ],
)
def test_get_refuses(identifier, message):
    if message is None:
        assert optimizers.get(identifier) is identifier
        return
    with pytest.raises(ValueError, match=message):
        optimizers.get(identifier)


def test_get_passes_an_instance_through():
    mine = Adam(0.5)
    assert optimizers.get(mine) is mine


def test_config_makes_it_again():
    adam = Adam(0.1, beta_1=0.5, beta_2=0.6, epsilon=0.01, name="mine")
    assert Adam(**adam.get_config()).get_config() == adam.get_config()
    assert adam.get_config()["beta_1"] == 0.5


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=ids(OPTIMIZERS))
def test_a_config_makes_every_optimizer_again(name, options):
    mine = getattr(optimizers, name)(**options)
    again = optimizers.get(json.loads(json.dumps(optimizers.serialize(mine))))
    assert type(again) is type(mine)
    assert optimizers.serialize(again) == optimizers.serialize(mine)
    for argument, value in options.items():
        if argument != "learning_rate":
            assert getattr(again, argument) == value


# State and resuming --------------------------------------------------------------------------------------


def small_model(name, options, seed):
    utils.set_random_seed(seed)
    hidden = Dense(4, activation="tanh", kernel_regularizer="l1")
    model = Sequential([Input((3,)), hidden, Dropout(0.3), Dense(1, activation="sigmoid")])
    model.compile(getattr(optimizers, name)(**options), "binary_crossentropy")
    return model


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=ids(OPTIMIZERS))
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), stops=st.lists(st.integers(1, 20), min_size=1, max_size=3))
def test_resuming_at_any_step_is_bit_equal(name, options, seed, stops):
    """Twenty steps at a stretch, and the same with the state read by a fresh model, of other weights, in between."""
    rng = np.random.default_rng(seed)
    data = [(rng.normal(size=(5, 3)), rng.integers(0, 2, 5)) for _ in range(21)]
    whole, broken = small_model(name, options, seed), small_model(name, options, seed)
    for step, (x, y) in enumerate(data):
        if step in stops:
            state = broken.get_state()
            broken = small_model(name, options, 1)
            broken.set_state(state)
        whole.train_on_batch(x, y)
        broken.train_on_batch(x, y)
    assert whole.get_state().keys() == broken.get_state().keys()
    for what, value in whole.get_state().items():
        assert_same(broken.get_state()[what], value)
    assert any(value.any() for what, value in whole.get_state().items() if what not in ("theta", "seed/0"))


def test_a_state_of_another_optimizer_is_refused():
    state = small_model("Adam", {}, 1).get_state()
    model = small_model("Adam", {"amsgrad": True}, 1)
    with pytest.raises(ValueError, match=r"expected the entries .*'v_hat'"):
        model.set_state(state)


# What surrounds the rule ---------------------------------------------------------------------------------


def test_accumulated_gradients_make_one_step_of_their_mean(arena):
    once, accumulated = SGD(0.5), SGD(0.5, gradient_accumulation_steps=3)
    other = Arena([("a", "kernel", (2, 3)), ("a", "bias", (3,))], "float32")
    other.theta[:] = arena.theta
    for value, updates in ((1.0, 0), (2.0, 0), (6.0, 1)):
        other.grads[:] = value
        before = other.theta.copy()
        accumulated.apply(other)
        assert accumulated.iterations == updates
        if not updates:
            assert_same(other.theta, before)
    arena.grads[:] = 3.0
    once.apply(arena)
    assert_same(other.theta, arena.theta)
    assert not accumulated.accumulated_gradients.any()
    assert accumulated.variables[0] == 3  # as in Keras, batches


@pytest.mark.parametrize("name", ["Adam", "Adamax", "Nadam"])
def test_bias_corrections_count_updates_and_not_batches(arena, rng, name):
    plain, accumulated = getattr(optimizers, name)(0.1), getattr(optimizers, name)(0.1, gradient_accumulation_steps=2)
    other = Arena([("a", "kernel", (2, 3)), ("a", "bias", (3,))], "float32")
    other.theta[:] = arena.theta
    for _ in range(3):
        arena.grads[:] = other.grads[:] = rng.normal(size=9)
        plain.apply(arena)
        accumulated.apply(other)
        accumulated.apply(other)  # (g + g)/2 = g without rounding
        assert_same(other.theta, arena.theta)


def test_fit_ends_with_the_averages_in_the_weights_place():
    x, y = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 2
    model, at_end = small_model("RMSprop", EMA, 3), []
    hook = LambdaCallback(on_train_end=lambda logs: at_end.append(model.arena.theta.copy()))
    model.fit(x, y, batch_size=3, epochs=2, verbose=0, callbacks=[hook])
    assert_same(model.arena.theta, model.optimizer.averages)
    assert_same(at_end[0], model.optimizer.averages)
    model.train_on_batch(x, y)
    assert (model.arena.theta != model.optimizer.averages).any()


def test_averages_replace_the_weights_as_often_as_asked(arena):
    optimizer = SGD(1.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    arena.theta[:] = 8
    arena.grads[:] = 4
    optimizer.apply(arena)
    assert_same(optimizer.averages, np.full(9, 4, F32))  # of the first step: the weights themselves
    optimizer.apply(arena)  # 0, and the average of 4 and 0 takes its place
    assert_same(arena.theta, np.full(9, 2, F32))
    optimizer.apply(arena)
    assert_same(arena.theta, np.full(9, -2, F32))
    optimizer.finalize_variable_values()
    assert_same(arena.theta, np.zeros(9, F32))


def test_nothing_is_finalized_before_the_first_step(arena):
    optimizer = SGD(1.0, use_ema=True)
    optimizer.build(arena)
    before = arena.theta.copy()
    optimizer.finalize_variable_values()
    assert_same(arena.theta, before)


def test_clipnorm_is_per_parameter_and_global_clipnorm_is_not(arena):
    arena.grads[:6], arena.grads[6:] = 0, [3, 0, 4]
    arena.grads[0] = 12
    start = arena.theta.copy()
    expected = {"clipnorm": ([1], [0.6, 0, 0.8]), "global_clipnorm": ([12 / 13], [3 / 13, 0, 4 / 13])}
    for argument, (kernel, bias) in expected.items():
        arena.theta[:] = 0
        SGD(1.0, **{argument: 1.0}).apply(arena)
        wanted = -np.array([*kernel, 0, 0, 0, 0, 0, *bias], F32)
        assert_close(arena.theta, wanted, atol=4 * 2.0**-24)  # norm, product, quotient: of numbers of at most 1
    arena.theta[:] = start


@pytest.mark.parametrize(
    ("exclude", "decayed"),
    [
        (lambda layers: {}, [1, 1, 1, 1]),
        (lambda layers: {"var_names": ["bias"]}, [1, 0, 1, 0]),
        (lambda layers: {"var_names": ["dense_1/", "nothing"]}, [1, 1, 0, 0]),
        (lambda layers: {"var_list": [layers[0].kernel]}, [0, 1, 1, 1]),
        (lambda layers: {"var_list": [layers[2].bias], "var_names": ["dense/kernel"]}, [0, 1, 1, 0]),
    ],
)
def test_parameters_can_be_left_out_of_weight_decay(exclude, decayed):
    model = small_model("SGD", {"learning_rate": 0.5, "weight_decay": 0.5}, 1)
    model.optimizer.exclude_from_weight_decay(**exclude(model.layers))
    model.arena.theta[:], model.arena.grads[:] = 1, 0
    model.optimizer.apply(model.arena)
    assert [float(w.min()) for w in model.get_weights()] == [0.75 if d else 1.0 for d in decayed]
    assert [float(w.max()) for w in model.get_weights()] == [0.75 if d else 1.0 for d in decayed]
    with pytest.raises(ValueError, match="call it before the optimizer's first step"):
        model.optimizer.exclude_from_weight_decay(var_names=["bias"])


def test_only_the_model_s_own_parameters_can_be_left_out(arena):
    optimizer = AdamW()
    optimizer.exclude_from_weight_decay(var_list=[np.ones((2, 3))])
    with pytest.raises(ValueError, match=r"a parameter of shape \(2, 3\) in var_list is not one of this model's"):
        optimizer.apply(arena)
    assert not optimizer.built
    with pytest.raises(ValueError, match="var_names must be a list; got 'bias'"):
        optimizer.exclude_from_weight_decay(var_names="bias")


def test_a_loss_scale_that_is_a_power_of_two_changes_nothing():
    x, y = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 2
    plain, scaled = small_model("Adam", {}, 3), small_model("Adam", {"loss_scale_factor": 1024.0}, 3)
    assert plain.fit(x, y, epochs=3, verbose=0).history == scaled.fit(x, y, epochs=3, verbose=0).history
    assert_same(scaled.arena.theta, plain.arena.theta)
    assert np.abs(scaled.arena.grads).max() == 1024 * np.abs(plain.arena.grads).max()


# Learning rates ------------------------------------------------------------------------------------------


def test_a_schedule_is_called_with_the_batches_so_far(arena):
    class Count(schedules.LearningRateSchedule):
        def __call__(self, step):
            return 10.0 + step

    sgd = SGD(Count(), gradient_accumulation_steps=2)
    arena.theta[:], arena.grads[:] = 0, 1
    sgd.apply(arena)
    assert sgd.learning_rate == 11.0 and len(sgd.variables) == 1 + 2
    sgd.apply(arena)
    assert_same(arena.theta, np.full(9, -11, F32))
    with pytest.raises(NotImplementedError, match="Count must define get_config"):
        sgd.get_config()


def test_a_schedule_cannot_be_overwritten_by_a_number():
    adam = Adam(schedules.ExponentialDecay(0.5, 10, 0.5))
    with pytest.raises(TypeError, match=r"^Adam: the learning rate is the schedule ExponentialDecay, so"):
        adam.learning_rate = 0.1
    assert adam.learning_rate == 0.5
    adam.learning_rate = schedules.InverseTimeDecay(0.25, 10, 0.5)
    assert adam.learning_rate == 0.25
    number = Adam(0.5)
    number.learning_rate = adam._learning_rate
    assert number.learning_rate == 0.25 and len(number.variables) == 1


# Errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("SGD", {"clipnorm": 1.0, "clipvalue": 1.0}, "give one of clipnorm, clipvalue, global_clipnorm at most; got"),
        ("Adam", {"clipnorm": 0.0}, "clipnorm must be above 0; got 0.0"),
        ("Adam", {"global_clipnorm": -1}, "global_clipnorm must be above 0; got -1"),
        ("Adam", {"clipvalue": "1"}, "clipvalue must be a number; got '1' of type str"),
        ("Adam", {"weight_decay": -0.1}, "weight_decay must be finite and at least 0; got -0.1"),
        ("AdamW", {"weight_decay": None}, "weight_decay must be a number; got None"),
        ("Adam", {"use_ema": True, "ema_momentum": 1.5}, r"ema_momentum must be in \[0, 1\]; got 1.5"),
        ("Adam", {"use_ema": True, "ema_momentum": -0.5}, "ema_momentum must be finite and at least 0; got -0.5"),
        ("Adam", {"use_ema": True, "ema_overwrite_frequency": 1.5}, "ema_overwrite_frequency must be a positive int"),
        ("Adam", {"loss_scale_factor": 0}, "loss_scale_factor must be above 0; got 0"),
        ("Nadam", {"gradient_accumulation_steps": 1}, "gradient_accumulation_steps must be an integer >= 2 or None"),
        ("Nadam", {"gradient_accumulation_steps": 2.0}, "gradient_accumulation_steps must be a positive integer"),
        ("SGD", {"momentum": 1.5}, r"momentum must be in \[0, 1\]; got 1.5"),
        ("RMSprop", {"momentum": -0.1}, "momentum must be finite and at least 0; got -0.1"),
        ("RMSprop", {"rho": 1.0}, r"rho, rounded to float32, must be in \[0, 1\); got 1.0"),
        ("Adadelta", {"rho": -0.1}, "rho must be finite and at least 0; got -0.1"),
        ("Adagrad", {"initial_accumulator_value": -1}, "initial_accumulator_value must be finite and at least 0"),
        ("Adamax", {"beta_2": 1}, r"beta_2, rounded to float32, must be in \[0, 1\); got 1"),
        ("SGD", {"decay": 0.1}, "unrecognized keyword arguments: 'decay'"),
        ("Adagrad", {"learning_rate": "fast"}, "learning_rate must be a number; got 'fast' of type str"),
    ],
)
def test_bad_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        getattr(optimizers, name)(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.ExponentialDecay(0.1, 0, 0.5), "ExponentialDecay: decay_steps must be above 0; got 0"),
        (lambda: schedules.PolynomialDecay("0.1", 5), "PolynomialDecay: initial_learning_rate must be a number"),
        (
            lambda: schedules.PiecewiseConstantDecay([1], [1.0]),
            "values must be one more than boundaries, of",
        ),
        (lambda: schedules.PiecewiseConstantDecay([], [1.0]), "of which there must be one at least"),
        (lambda: schedules.PiecewiseConstantDecay([3, 1], [1.0, 2.0, 3.0]), "boundaries must ascend"),
        (lambda: schedules.CosineDecay(0.1, 5, warmup_steps=-1), "warmup_steps must be a non-negative integer; got -1"),
        (lambda: schedules.CosineDecayRestarts(0.1, 5, t_mul=0.5), "t_mul must be finite and at least 1; got 0.5"),
        (lambda: schedules.deserialize({"class_name": "Cosine", "config": {}}), "Unknown learning-rate schedule"),
        (lambda: schedules.deserialize(3), "config has a class_name and a config; got 3"),
    ],
)
def test_bad_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_schedules_by_hand():
    assert schedules.ExponentialDecay(0.5, 10, 0.25)(5) == 0.25
    assert schedules.ExponentialDecay(0.5, 10, 0.25, staircase=True)(19) == 0.125
    assert schedules.InverseTimeDecay(0.5, 2, 0.5)(4) == 0.25
    piecewise = schedules.PiecewiseConstantDecay([2, 4], [1.0, 0.5, 0.25])
    assert [float(piecewise(step)) for step in range(6)] == [1, 1, 1, 0.5, 0.5, 0.25]
    assert schedules.PolynomialDecay(1.0, 4, 0.5, power=2.0)(2) == 0.625
    assert schedules.PolynomialDecay(1.0, 4, 0.5)(9) == 0.5
    assert schedules.PolynomialDecay(1.0, 4, 0.0, cycle=True)(6) == 0.25
    cosine = schedules.CosineDecay(1.0, 4, alpha=0.5)
    assert [round(float(cosine(step)), 6) for step in (0, 2, 4, 9)] == [1, 0.75, 0.5, 0.5]
    warm = schedules.CosineDecay(0.0, 4, warmup_target=1.0, warmup_steps=2)
    assert [round(float(warm(step)), 6) for step in (0, 1, 2, 4, 6)] == [0, 0.5, 1, 0.5, 0]
    restarts = schedules.CosineDecayRestarts(1.0, 2, t_mul=2.0, m_mul=0.5)
    assert [round(float(restarts(step)), 6) for step in (0, 1, 2, 4, 6)] == [1, 0.5, 0.5, 0.25, 0.25]
    assert isinstance(cosine(0), np.float32)


def test_schedules_are_found_under_keras_s_names():
    code = "from minidl.optimizers.schedules import CosineDecay as a; from minidl.keras.optimizers.schedules import "
    subprocess.run([sys.executable, "-c", code + "CosineDecay as b; assert a is b"], check=True)
