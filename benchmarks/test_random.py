"""How long random numbers take, beside NumPy's fastest generator, SFC64.

Nothing is asserted about time. Each result is compared with plain Python arithmetic on a few of its entries, those
around the end, so that what is timed is right. The yardstick of a group is its row whose name begins with "NumPy".
"""

import math

import numpy as np
import pytest

from minidl import config, random

MILLION = 10**6
SEED, COUNTER = PAIR = 7, 3
RATE = 0.5
TOP = range(MILLION // 4 - 3, MILLION // 4)  # the last three blocks of four words


def group(name):
    return pytest.mark.benchmark(group=name, min_rounds=20, disable_gc=True)


def sfc64():
    return np.random.Generator(np.random.SFC64(PAIR))


def philox_block(index, key):
    """Four words in Python integers."""
    k0, k1, c2, c3 = key
    return random._philox_rounds(index, 0, c2, c3, k0, k1)


def python_words(blocks, key=None):
    key = key or random.tensorflow_key_counter(SEED, COUNTER)
    return [word for index in blocks for word in philox_block(index, key)]


# A million words ---------------------------------------------------------------------------------------------


def readable_philox():
    k0, k1, c2, c3 = random.tensorflow_key_counter(SEED, COUNTER)
    counters = np.zeros((MILLION // 4, 4), dtype=np.uint64)
    counters[:, 0], counters[:, 2], counters[:, 3] = np.arange(MILLION // 4), c2, c3
    return random.philox4x32(counters, (k0, k1)).ravel()


def jax_words_readable(positions):
    return [np.bitwise_xor.reduce(random.threefry2x32((0, i), PAIR)) for i in positions]


WORDS = {
    "NumPy SFC64": lambda: np.random.SFC64(PAIR).random_raw(MILLION // 2).view(np.uint32),
    "Philox": lambda: random.tensorflow_words(PAIR, MILLION)[0],
    "Philox, readable": readable_philox,
    "threefry": lambda: random.jax_words(PAIR, MILLION)[0],
    "MT19937": lambda: random.mt19937_words(random.mt19937(5489), MILLION),
}


@pytest.mark.parametrize("name", WORDS)
@group("a million words")
def test_words(benchmark, name):
    words = benchmark(WORDS[name])
    assert words.shape == (MILLION,) and words.dtype == np.uint32
    if "Philox" in name:
        assert words[-12:].tolist() == python_words(TOP)
    elif name == "threefry":
        assert words[-12:].tolist() == jax_words_readable(range(MILLION - 12, MILLION))
    elif name == "MT19937":
        assert words[9999] == 4123659995  # the C++ standard, [rand.predef]: the 10,000th word of seed 5489


# A million keep flags ----------------------------------------------------------------------------------------


def keep(stream):
    config.set_random_stream(stream)
    return random.dropout_mask((MILLION,), RATE, PAIR)


@pytest.mark.parametrize("name", ["NumPy SFC64, random() >= rate", *config.RANDOM_STREAMS])
@group("a million keep flags")
def test_keep_flags(benchmark, name):
    if name not in config.RANDOM_STREAMS:
        flags = benchmark(lambda: sfc64().random(MILLION, dtype=np.float32) >= np.float32(RATE))
    else:
        flags = benchmark(keep, name)
    assert flags.shape == (MILLION,) and flags.dtype == np.bool_
    assert abs(flags.mean() - (1 - RATE)) < 5 * math.sqrt(RATE * (1 - RATE) / MILLION)  # five standard deviations
    last = range(MILLION - 12, MILLION)
    if name == "tensorflow":
        assert flags[-12:].tolist() == [word % 2**23 / 2**23 >= RATE for word in python_words(TOP)]
    elif name == "tensorflow-xla":
        assert flags[-12:].tolist() == [(word >> 9) / 2**23 >= RATE for word in python_words(TOP)]
    elif name == "jax":
        assert flags[-12:].tolist() == [(int(word) >> 9) / 2**23 < 1 - RATE for word in jax_words_readable(last)]
    elif name == "torch":
        words = random.mt19937_words(random.mt19937(SEED + COUNTER), MILLION)[-12:].tolist()
        assert flags[-12:].tolist() == [word % 2**24 / 2**24 < 1 - RATE for word in words]


# Masks of (32, 4) --------------------------------------------------------------------------------------------

STEPS = 1000
SMALL_MASKS = {
    "NumPy SFC64, random() >= rate": lambda generator: generator.random((32, 4), dtype=np.float32) >= np.float32(RATE),
    "one by one": lambda _: random.dropout_mask((32, 4), RATE, PAIR),
    f"{STEPS} steps at a time": lambda _: random.dropout_masks((32, 4), RATE, PAIR, STEPS),
}


@pytest.mark.parametrize("name", SMALL_MASKS)
@group("a mask of (32, 4)")
def test_small_mask(benchmark, name):
    masks = benchmark(SMALL_MASKS[name], sfc64())
    masks = masks.reshape(-1, 32, 4)
    benchmark.extra_info["results_a_call"] = len(masks)
    if not name.startswith("NumPy"):
        for step in (0, len(masks) - 1):
            words = python_words(range(32), random.tensorflow_key_counter(SEED, COUNTER + step))
            assert masks[step].ravel().tolist() == [word % 2**23 / 2**23 >= RATE for word in words]


# A million numbers -------------------------------------------------------------------------------------------


def python_normals(index):
    """Box and Muller on one block, in float64."""
    b0, b1, b2, b3 = philox_block(index, random.tensorflow_key_counter(SEED, 0))
    for x0, x1 in ((b0, b1), (b2, b3)):
        radius = math.sqrt(-2 * math.log(max(x0 % 2**23 / 2**23, 1e-7)))
        angle = 2 * math.pi * (x1 % 2**23) / 2**23
        yield from (radius * math.sin(angle), radius * math.cos(angle))


def python_truncated(place):
    """Four numbers have their own blocks, from 256 times their place on."""
    kept, index = [], 256 * place
    while len(kept) < 4:
        kept += [z for z in python_normals(index) if abs(z) < 2]
        index += 1
    return kept[:4]


NUMBERS = {
    "uniform": {
        "NumPy SFC64": lambda: sfc64().random(MILLION, dtype=np.float32),
        "minidl": lambda: random.uniform((MILLION,), -1.0, 1.0, seed=SEED),
    },
    "normal": {
        "NumPy SFC64": lambda: sfc64().standard_normal(MILLION, dtype=np.float32),
        "minidl": lambda: random.normal((MILLION,), seed=SEED),
        "minidl, truncated": lambda: random.truncated_normal((MILLION,), seed=SEED),
    },
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NUMBERS.items() for name in names])
@group("set below")
def test_numbers(benchmark, kind, name):
    benchmark.group = f"a million {kind} numbers"
    numbers = benchmark(NUMBERS[kind][name])
    assert numbers.shape == (MILLION,) and numbers.dtype == np.float32
    if name.startswith("NumPy"):
        return
    if kind == "uniform":
        words = python_words(TOP, random.tensorflow_key_counter(SEED, 0))
        assert numbers[-12:].tolist() == [word % 2**23 / 2**23 * 2 - 1 for word in words]  # exact in float32 too
        return
    expected = [z for index in TOP for z in (python_truncated if "truncated" in name else python_normals)(index)]
    # the angle is rounded to float32: by 2π·2⁻²⁴ at most, times a radius below 5.7; sin, cos and r add less
    np.testing.assert_allclose(numbers[-12:], expected, rtol=1e-6, atol=4e-6)


# The order of 60,000 rows ------------------------------------------------------------------------------------

ROWS = 60_000
ORDERS = {
    "NumPy SFC64, permutation()": lambda: sfc64().permutation(ROWS),
    "minidl": lambda: random.shuffle_order(ROWS, SEED),
}


@pytest.mark.parametrize("name", ORDERS)
@group("the order of 60,000 rows")
def test_row_order(benchmark, name):
    order = benchmark(ORDERS[name])
    assert np.array_equal(np.sort(order), np.arange(ROWS))
    if name == "minidl":  # a row's place is settled by the swap of its own number
        expected = list(range(ROWS))
        for i, word in enumerate(python_words(range(3), (SEED, 0, 0, 0))):
            j = i + word % (ROWS - i)
            expected[i], expected[j] = expected[j], expected[i]
        assert order[:12].tolist() == expected[:12]
