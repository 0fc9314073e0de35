"""regularizers.py: penalties with Keras's roundings, and what each identifier resolves to."""

import numpy as np
import pytest
from helpers import assert_gradients_close, assert_same

from minidl import regularizers
from minidl.regularizers import L1, L1L2, L2

F32 = np.float32
WEIGHTS = np.array([[0.3, -1.7], [0, 2.2]], F32)


def test_factors_are_rounded_to_float32_for_float64_weights_too():
    """l1 when it is made, l2 only when it is used: get_config tells."""
    rounded = float(F32(0.1))
    assert (L1(0.1).l1, L2(0.1).l2, L1L2(0.1, 0.1).l1, L1L2(0.1, 0.1).l2) == (rounded, 0.1, 0.1, 0.1)
    weights = np.array([1.0, -1.0])
    for made in (L1(0.1), L2(0.1), L1L2(l1=0.1), L1L2(l2=0.1)):
        assert_same(made(weights), np.float64(2 * rounded))
    for made in (L1(0.1), L1L2(l1=0.1)):
        assert_same(made.gradient(weights), rounded * weights)
    for made in (L2(0.1), L1L2(l2=0.1)):
        assert_same(made.gradient(weights), 2 * rounded * weights)


def test_penalties_and_gradients_in_closed_form():
    absolute, squared = np.abs(WEIGHTS).sum(), np.square(WEIGHTS).sum()
    sign = np.sign(WEIGHTS)
    assert_same(L1(0.1)(WEIGHTS), F32(0.1) * absolute)
    assert_same(L2(0.1)(WEIGHTS), F32(0.1) * squared)
    assert_same(L1L2(0.1, 0.3)(WEIGHTS), F32(0.1) * absolute + F32(0.3) * squared)
    assert_same(L1(0.1).gradient(WEIGHTS), sign * F32(0.1))
    assert_same(L2(0.1).gradient(WEIGHTS), WEIGHTS * F32(0.2))
    assert_same(L1L2(0.1, 0.3).gradient(WEIGHTS), sign * F32(0.1) + WEIGHTS * F32(0.6))


def test_defaults_are_keras_s():
    assert L1().get_config() == {"l1": float(F32(0.01))} == L1(None).get_config()
    assert L2().get_config() == {"l2": 0.01} == L2(None).get_config()
    assert L1L2().get_config() == {"l1": 0.0, "l2": 0.0} == L1L2(None, None).get_config()


@pytest.mark.parametrize("regularizer", [L1(0.2), L2(0.2), L1L2(0.2, 0.3)])
def test_gradient_is_that_of_the_penalty(regularizer, rng):
    weights = rng.normal(size=(3, 2))
    weights[np.abs(weights) < 0.01] = 0.5  # away from the corner of |w|
    # at most quadratic, so no truncation; 12 terms below 0.3·9 and about 15 roundings each
    assert_gradients_close(
        lambda: regularizer(weights), weights, regularizer.gradient(weights), third_derivative=0, scale=486, h=1e-3
    )


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [("l1", L1), ("L1", L1), (L1, L1), ("l2", L2), ("L2", L2), ("l1_l2", L1L2), ("L1L2", L1L2), ("l1l2", L1L2)],
)
def test_get(identifier, expected):
    found = regularizers.get(identifier)
    assert type(found) is expected
    assert found.get_config() == expected().get_config()


def test_get_passes_none_and_instances_through():
    assert regularizers.get(None) is None
    mine = L2(0.5)
    assert regularizers.get(mine) is mine


@pytest.mark.parametrize("regularizer", [L1(0.1), L2(0.1), L1L2(0.1, 0.2)])
def test_config_makes_it_again(regularizer):
    again = type(regularizer).from_config(regularizer.get_config())
    assert again.get_config() == regularizer.get_config()


def test_keras_s_lower_case_names():
    assert (regularizers.l1, regularizers.l2, regularizers.l1_l2) == (L1, L2, L1L2)


def test_a_subclass_must_define_both_halves():
    class Half(regularizers.Regularizer):
        pass

    with pytest.raises(NotImplementedError, match=r"Half must define __call__"):
        Half()(WEIGHTS)
    with pytest.raises(NotImplementedError, match=r"Half must define gradient"):
        Half().gradient(WEIGHTS)
