"""optimizers.py: Adam's arguments, state and one pass over the arena. The formula is tested with ops.py."""

import numpy as np
import pytest
from helpers import assert_same

from minidl import config, ops, optimizers
from minidl.arena import Arena
from minidl.optimizers import Adam

F32 = np.float32


@pytest.fixture
def arena(rng):
    arena = Arena([("a", "kernel", (2, 3)), ("a", "bias", (3,))], "float32")
    arena.theta[:] = rng.normal(size=9)
    return arena


def test_defaults_are_keras_s():
    assert Adam().get_config() == {
        "name": "adam",
        "learning_rate": float(F32(0.001)),  # kept in floatx
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-7,
    }


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


@pytest.mark.parametrize("identifier", ["adam", "Adam", Adam])
def test_get(identifier):
    found = optimizers.get(identifier)
    assert type(found) is Adam
    assert found.get_config() == Adam().get_config()


def test_get_passes_an_instance_through():
    mine = Adam(0.5)
    assert optimizers.get(mine) is mine


def test_config_makes_it_again():
    adam = Adam(0.1, beta_1=0.5, beta_2=0.6, epsilon=0.01, name="mine")
    assert Adam(**adam.get_config()).get_config() == adam.get_config()
    assert adam.get_config()["beta_1"] == 0.5
