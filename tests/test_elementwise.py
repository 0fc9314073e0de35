"""elementwise.py: loops that leave the bits that ops.py's formulas leave, as Python and compiled; a fit with them."""

import importlib.util
import sys

import numpy as np
import pytest
from helpers import assert_same
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from minidl import calls, config, elementwise, fused_update, ops, random, threads, utils
from minidl.layers import Dense, Dropout, Input
from minidl.models import Sequential

DTYPES = ["float32", "float64"]
SPECIAL = [0.0, -0.0, 1e-42, -1e-42, 1e-7, 1.0, -1.0, 88.0, -104.0, 1e20, -1e20, np.inf, -np.inf, np.nan]


def arrays(count, dtype):
    """So many arrays of one length, of numbers of all sizes and of SPECIAL ones; some lengths fill whole vectors."""
    numbers = st.one_of(
        st.sampled_from(SPECIAL), st.floats(-1e3, 1e3, width=32), st.floats(-1, 1, width=32).map(lambda x: x * 1e-4)
    )
    shape = st.tuples(st.just(count), st.sampled_from([0, 1, 2, 7, 16, 33, 64, 100]))
    return shape.flatmap(lambda shape: st_numpy.arrays(dtype, shape, elements=numbers.map(np.dtype(dtype).type)))


@pytest.fixture
def used(monkeypatch):
    """The names of the loops that are compiled in a test."""
    names, compiled = set(), elementwise.compiled
    monkeypatch.setattr(elementwise, "compiled", lambda loop: (names.add(loop.__name__), compiled(loop))[1])
    return names


def versions_of(loop):
    """The loop as Python, and where Numba is installed compiled."""
    return [loop, elementwise.compiled(loop)] if importlib.util.find_spec("numba") else [loop]


def as_numba_and_as_python(loop, inputs, expected):
    """Run a loop on copies of these arrays, and compare each that is expected to be something with that.

    expected: {place: array}. A NaN has no sign: which of its operands' an operation hands on is the processor's choice.
    """
    for version in versions_of(loop):
        given = [np.array(array) for array in inputs]
        with np.errstate(all="ignore"):
            version(*given)
        for place, array in enumerate(given):
            right = expected.get(place, inputs[place])
            assert_same(np.isnan(array), np.isnan(right))
            assert_same(np.nan_to_num(array, nan=7.0), np.nan_to_num(right, nan=7.0))


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_adam_has_the_bits_of_the_formula(dtype, data):
    param, grad, m, v = data.draw(arrays(4, dtype))
    step = data.draw(st.integers(1, 3000))
    v = abs(v)
    right = [np.array(a) for a in (param, grad, m, v)]
    with np.errstate(all="ignore"):
        ops.adam_step(*right, step=step)
        alpha = ops.adam_alpha(np.dtype(dtype).type, step=step, learning_rate=0.001, beta_1=0.9, beta_2=0.999)
    rates = np.array([1 - 0.9, 1 - 0.999, 1e-7], dtype)
    inputs = [param, grad, m, v, np.array([alpha], dtype), rates]
    as_numba_and_as_python(elementwise.adam_step, inputs, {0: right[0], 2: right[2], 3: right[3]})


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_gradients_of_penalties(dtype, data):
    grad, param = data.draw(arrays(2, dtype))
    l1, l2 = 0.1, 0.03
    with np.errstate(all="ignore"):
        of_l1, of_l2 = ops.l1_gradient(param, l1=l1), ops.l2_gradient(param, l2=l2)
        right = grad + of_l1, grad + of_l2, grad + (of_l1 + of_l2)
    for loop, factors, sums in (
        (elementwise.add_l1_gradient, [l1], right[0]),
        (elementwise.add_l2_gradient, [2 * l2], right[1]),
        (elementwise.add_l1_l2_gradient, [l1, 2 * l2], right[2]),
    ):
        as_numba_and_as_python(loop, [grad, param, np.array(factors, dtype)], {0: sums})


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_activations(dtype, data):
    z, d = data.draw(arrays(2, dtype))
    with np.errstate(all="ignore"):
        outputs = {"relu": ops.relu(z), "sigmoid": ops.sigmoid(z), "tanh": ops.tanh(z)}
        backward = {
            "relu": ops.relu_backward(d, outputs["relu"]),
            "sigmoid": ops.sigmoid_backward(d, outputs["sigmoid"]),
            "tanh": ops.tanh_backward(d, outputs["tanh"]),
        }
    as_numba_and_as_python(elementwise.relu, [z], {0: outputs["relu"]})
    for name, right in backward.items():
        as_numba_and_as_python(getattr(elementwise, f"{name}_backward"), [outputs[name], d], {1: right})


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data(), st.sampled_from([0.0, 0.3, 0.8]))
def test_dropout(dtype, data, rate):
    (inputs,) = data.draw(arrays(1, dtype))
    mask = data.draw(st_numpy.arrays(bool, inputs.shape))
    words = -mask.astype(f"u{inputs.itemsize}")
    with np.errstate(all="ignore"):
        right = ops.dropout(inputs, mask, rate=rate)
    given = [inputs, words, np.empty_like(inputs), np.array([1 / (1 - rate)], dtype)]
    as_numba_and_as_python(elementwise.dropout, given, {2: right})


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_the_gradient_of_binary_crossentropy(dtype, data):
    z, y, counts = data.draw(arrays(3, dtype))
    y = np.clip(np.nan_to_num(y, nan=0.5), 0, 1)
    with np.errstate(all="ignore"):
        t = np.exp(-abs(z))
        right = ops.binary_crossentropy_from_logits_backward(y, z) * counts
    as_numba_and_as_python(elementwise.binary_crossentropy_backward, [z, t, y, counts, np.empty_like(z)], {4: right})


@given(
    st.integers(1, 5).flatmap(lambda s: st_numpy.arrays("u8", (4, s), elements=st.integers(0, 2**32 - 1))),
    st.sampled_from([0, 1, 3, 40, 1500]),
    st.sampled_from([0, 7, 2**32 - 2000]),
)
def test_words_of_philox(streams, blocks, start):
    counters = np.zeros((streams.shape[1], blocks, 4), "u8")
    counters[..., 0] = start + np.arange(blocks)
    counters[..., 2:] = streams[2:].T[:, None]
    right = random.philox4x32(counters, streams[:2].T[:, None])
    for version in versions_of(elementwise.philox_words)[blocks > 40 :]:  # Python's takes a while
        words = np.zeros(right.shape, "u4")
        version(words, start, *streams, np.array([0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85], "u8"))
        assert_same(words, right)


@pytest.mark.parametrize("stream", ["tensorflow", "tensorflow-xla"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_numbers_are_the_same(used, stream, dtype):
    pytest.importorskip("numba")
    found = []
    for elementwise_ in config.ELEMENTWISE:
        config.set_elementwise(elementwise_)
        with config.using_random_stream(stream):
            masks = [random.dropout_masks(shape, 0.3, (7, 5), steps, dtype) for shape, steps in MASKS]
            found.append([*masks, random.normal((30, 7), seed=3, dtype=dtype), random.uniform((999,), seed=4)])
    for numpys, numbas in zip(*found, strict=True):
        assert_same(numbas, numpys)
    assert used == {"philox_words"}


MASKS = [((3,), 1), ((32, 4), 70), ((300, 301), 2)]


def trained(x, y, elementwise):
    config.set_elementwise(elementwise)
    utils.set_random_seed(1)
    layers = [
        Dense(70, "relu", kernel_regularizer="l1l2"),
        Dropout(0.3),
        Dense(60, "tanh", kernel_regularizer="l1"),
        Dropout(0.5),
        Dense(20, "sigmoid", bias_regularizer="l2"),
        Dense(1, "sigmoid"),
    ]
    model = Sequential([Input((x.shape[1],)), *layers])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=16, epochs=3, verbose=0)
    return model.get_state(), history.history


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_two", [False, True])
@pytest.mark.parametrize("features", [50, 90])  # with the column of ones, and without
def test_a_fit_has_the_same_bits(monkeypatch, used, rng, dtype, in_two, features):
    pytest.importorskip("numba")
    if in_two:
        monkeypatch.setattr(calls, "PIECE", 500)
        monkeypatch.setattr(fused_update, "LARGE", 1000)
        monkeypatch.setattr(threads, "is_spare", lambda: True)
    x, y = rng.normal(size=(40, features)).astype(dtype), rng.integers(0, 2, 40)
    with config.using_floatx(dtype):
        state, history = trained(x, y, "numpy")
        same, same_history = trained(x, y, "numba")
    own = [
        name for name, value in vars(elementwise).items() if getattr(value, "__module__", "") == elementwise.__name__
    ]
    assert used == set(own) - {"bound", "compiled"}
    assert same_history == history and same.keys() == state.keys()
    for name, array in state.items():
        assert_same(same[name], array)


def test_another_name_is_refused():
    with pytest.raises(ValueError, match=r"Unknown elementwise: 'numbo'\. Did you mean 'numba'"):
        config.set_elementwise("numbo")
    assert config.elementwise() == "numpy"


def test_without_numba_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ImportError, match=r"Run: pip install 'minidl\[numba\]'"):
        config.set_elementwise("numba")
    assert config.elementwise() == "numpy"


def test_what_cannot_be_kept_on_the_disk_is_compiled_all_the_same():
    pytest.importorskip("numba")
    names = {}
    exec("def double(array):\n    for i in range(array.size):\n        array[i] *= 2", names)  # of no file
    array = np.arange(3.0)
    elementwise.compiled(names["double"])(array)
    assert_same(array, np.array([0.0, 2.0, 4.0]))
