"""utils.py: helpers around data, and what a new session forgets; against live Keras where it does the same."""

import numpy as np
import pytest
from helpers import assert_close, assert_same

from minidl import array_functions, ops, random, utils
from minidl.layers import Dense


def test_to_categorical():
    expected = np.array([[1.0, 0, 0], [0, 0, 1]])
    for numbers in ([0, 2], np.array([[0], [2]], np.uint8), np.array([0.0, 2.0])):
        assert_same(utils.to_categorical(numbers), expected)
    assert_same(utils.to_categorical([1], num_classes=3), np.array([[0.0, 1, 0]]))
    assert utils.to_categorical(np.zeros((2, 3), int), 4).shape == (2, 3, 4)


@pytest.mark.parametrize("x", [[1.5], ["a"], [], [np.nan]])
def test_to_categorical_of_what_are_no_class_numbers(x):
    with pytest.raises(ValueError, match="to_categorical: expected class numbers 0, 1, 2, …; got"):
        utils.to_categorical(x)


@pytest.mark.parametrize(("x", "classes"), [([-1, 0], None), ([3], 3)])
def test_to_categorical_out_of_range(x, classes):
    with pytest.raises(ValueError, match=r"class numbers must lie in \[0, \d\); got"):
        utils.to_categorical(x, classes)


def test_normalize():
    x = np.array([[3.0, 4], [0, 0], [-5, 12]])
    assert_close(utils.normalize(x), np.array([[0.6, 0.8], [0, 0], [-5 / 13, 12 / 13]]), atol=1e-16)
    assert_close(utils.normalize(x, axis=0, order=1), np.array([[3 / 8, 1 / 4], [0, 0], [-5 / 8, 3 / 4]]), atol=1e-16)


def test_clear_session_counts_names_anew_and_keeps_the_seed():
    utils.set_random_seed(3)
    random.uniform((2,))
    assert (Dense(1).name, Dense(1).name) == ("dense", "dense_1")
    utils.clear_session()
    assert Dense(1).name == "dense"
    assert random.global_seed() == 3
    assert random._global_generator is None


@pytest.mark.keras
def test_as_keras(keras, rng):
    numbers, x = rng.integers(0, 5, (7, 1)), rng.normal(size=(4, 3))
    assert_same(utils.to_categorical(numbers, 6), keras.utils.to_categorical(numbers, 6))
    for order in (1, 2, np.inf):  # the same NumPy norm and one quotient
        assert_same(utils.normalize(x, order=order), keras.utils.normalize(x, order=order))


# keras.ops for code of one's own ---------------------------------------------------------------------------


def test_ops_has_numpy_s_functions_under_keras_s_names(rng):
    x = rng.normal(size=(3, 2)).astype(np.float32)
    assert_same(ops.sum(ops.square(x), axis=-1), (x * x).sum(axis=-1))
    assert_same(ops.cast(x, "float64"), x.astype(np.float64))
    assert_same(ops.convert_to_numpy(ops.convert_to_tensor([1.0, 2.0])), np.array([1.0, 2.0], np.float32))
    assert ops.shape(x) == (3, 2)
    with pytest.raises(AttributeError, match=r"minidl\.ops has no 'scan'"):
        ops.scan  # noqa: B018


@pytest.mark.keras
def test_every_such_name_is_one_of_keras_s(keras):
    assert [name for name in sorted(array_functions.NAMES) if not hasattr(keras.ops, name)] == []
