"""Random numbers against published known answers, arrays recorded from real Keras, and live Keras.

tests/data/rng-vectors.npz holds outputs of Keras 3.15.1 on TensorFlow 2.21.0, JAX 0.10.2 and PyTorch 2.13.0
(CPU builds). Names there: <framework>_<what>_<arguments>; "tf_xla" is TensorFlow under jit_compile=True.
"""

import hashlib
import math
import random as python_random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import config, initializers, random, utils
from minidl.layers import Dropout

VECTORS = dict(np.load(Path(__file__).parent / "data" / "rng-vectors.npz"))
STREAM = {"tf": "tensorflow", "tf_xla": "tensorflow-xla", "jax": "jax", "torch": "torch"}
RUN_STREAM = {"tf_graph": "tensorflow", "tf_xla": "tensorflow-xla", "jax_jit": "jax", "torch_eager": "torch"}


def assert_same(got, expected):
    """Equal shape, dtype and bits."""
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    wrong = np.argwhere(got != expected)
    assert not wrong.size, f"{len(wrong)} of {got.size} differ, first at {wrong[0]}"


def words(text):
    return np.array([int(word, 16) for word in text.split()], dtype=np.uint32)


# Generators ----------------------------------------------------------------------------------------------

# kat_vectors of Random123 1.14.0: generator, counter and key, output
PHILOX_KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
THREEFRY_KNOWN = [
    ("00000000 00000000", "00000000 00000000", "6b200159 99ba4efe"),
    ("ffffffff ffffffff", "ffffffff ffffffff", "1cb996fc bb002be7"),
    ("243f6a88 85a308d3", "13198a2e 03707344", "c4923a9c 483df7a0"),
]


@pytest.mark.parametrize(("counter", "key", "expected"), PHILOX_KNOWN)
def test_philox_known_answers(counter, key, expected):
    assert_same(random.philox4x32(words(counter), words(key)), words(expected))


@pytest.mark.parametrize(("counter", "key", "expected"), THREEFRY_KNOWN)
def test_threefry_known_answers(counter, key, expected):
    assert_same(random.threefry2x32(words(counter), words(key)), words(expected))


def test_generators_broadcast_counters_against_keys():
    counters, keys = (np.array([words(known[i]) for known in PHILOX_KNOWN]) for i in (0, 1))
    table = random.philox4x32(counters[:, None], keys)
    assert table.shape == (3, 3, 4)
    for i in range(3):
        for j in range(3):
            assert_same(table[i, j], random.philox4x32(counters[i], keys[j]))
    counters, keys = (np.array([words(known[i]) for known in THREEFRY_KNOWN]) for i in (0, 1))
    table = random.threefry2x32(counters[:, None], keys)
    assert_same(table[2, 1], random.threefry2x32(counters[2], keys[1]))


def test_mt19937_known_answer():
    # C++ standard, [rand.predef]: the 10000th output after the default seed 5489
    assert random.mt19937_words(random.mt19937(5489), 10000)[-1] == 4123659995


def test_generators_refuse_wrong_shapes():
    with pytest.raises(ValueError, match=r"counter \(\.\.\., 4\)"):
        random.philox4x32([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match=r"key \(\.\.\., 2\)"):
        random.threefry2x32([1, 2], [1, 2, 3])


@pytest.mark.parametrize("blocks", [0, 1, 5, 16384, 16385, 40000])
def test_fast_philox_is_the_readable_one(blocks):
    index = np.zeros((blocks, 4), dtype=np.uint32)
    index[:, 0], index[:, 2], index[:, 3] = np.arange(blocks), 0xFFFFFFFF, 3
    expected = random.philox4x32(index, [0xDEADBEEF, 0xFFFFFFFF]).reshape(1, 4 * blocks)
    assert_same(random.philox_words(0xDEADBEEF, 0xFFFFFFFF, 0xFFFFFFFF, 3, blocks), expected)


@pytest.mark.parametrize(("streams", "blocks"), [(3, 5), (600, 32), (2, 20000)])
def test_fast_philox_of_many_streams(streams, blocks, rng):
    k0, k1, c2, c3 = rng.integers(0, 2**32, size=(4, streams), dtype=np.uint64)
    got = random.philox_words(k0, k1, c2, c3, blocks)
    assert got.shape == (streams, 4 * blocks)
    for s in (0, streams // 2, streams - 1):
        one = random.philox_words(int(k0[s]), int(k1[s]), int(c2[s]), int(c3[s]), blocks)
        assert_same(got[s], one[0])


# Recorded arrays -----------------------------------------------------------------------------------------


def matching(pattern):
    found = [m for m in (re.fullmatch(pattern, name) for name in VECTORS) if m]
    assert found, pattern
    return [pytest.param(*m.groups(), VECTORS[m.string], id=m.string) for m in found]


@pytest.mark.parametrize(
    ("framework", "seed", "counter", "rate", "dtype", "rows", "columns", "digest", "expected"),
    matching(
        r"(tf|tf_xla|jax|torch)_mask_seed(m?\d+)_counter(\d+)_rate([\d.]+)_(b?float\d+)_shape(\d+)x(\d+)"
        r"(_sha256|_kept)?"
    ),
)
def test_recorded_masks(framework, seed, counter, rate, dtype, rows, columns, digest, expected):
    config.set_random_stream(STREAM[framework])
    rate = 1 / 3 if rate == "0.333333" else float(rate)
    pair = (int(seed.replace("m", "-")), int(counter))
    mask = random.dropout_mask((int(rows), int(columns)), rate, pair, dtype)
    if digest == "_sha256":
        assert hashlib.sha256(mask.astype(np.uint8).tobytes()).digest() == expected.tobytes()
    elif digest == "_kept":
        assert mask.sum() == expected
    else:
        assert_same(mask, expected)


@pytest.mark.parametrize(
    ("framework", "dtype", "expected"), matching(r"(tf|tf_xla)_uniform01_seed7_counter3_(b?float\d+)_n37")
)
def test_recorded_tensorflow_uniforms(framework, dtype, expected):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    got = random.tensorflow_uniform01((7, 3), 37, dtype, xla=framework == "tf_xla")
    assert got.dtype.name == dtype
    assert_same(got.astype(expected.dtype), expected)


def test_recorded_jax_words_and_uniforms():
    assert_same(random.jax_words((7, 3), 37)[0], VECTORS["jax_bits32_key7_3_n37"])
    config.set_random_stream("jax")
    generator = random.SeedGenerator(7)
    generator.state[1] = 3
    assert_same(random.uniform((37,), seed=generator), VECTORS["jax_uniform01_key7_3_n37"])


def test_recorded_torch_uniforms_and_permutation():
    config.set_random_stream("torch")
    assert_same(random.uniform((37,), seed=10), VECTORS["torch_rand_seed10_float32_n37"])
    order = random.fisher_yates(37, random.mt19937_words(random.mt19937(10), 36))
    assert_same(order, VECTORS["torch_randperm_seed10_n37"])


def test_recorded_torch_fast_path():
    utils.set_random_seed(812)
    got = np.stack([random.torch_unseeded_dropout_mask((5, 3), 0.8) for _ in range(2)])
    assert_same(got, VECTORS["torch_fastpath_masks_set_random_seed812_rate0.8_2calls_shape5x3"])


def test_on_torch_a_mask_that_is_shared_comes_from_the_layers_own_seed():
    """Only without a noise_shape is a Dropout without a seed left to torch's global generator."""
    config.set_random_stream("torch")
    utils.set_random_seed(812)
    layer = Dropout(0.6, noise_shape=(None, 1))
    before = random.mt19937_state(random.torch_global_generator())
    pair = int(layer.seed_generator.state[0]), 0
    assert_same(layer.draw_mask((40, 3)), random.dropout_mask((40, 1), 0.6, pair, "float32"))
    assert_same(random.mt19937_state(random.torch_global_generator()), before)


def test_a_generators_state_comes_back():
    generator = random.mt19937(5)
    random.mt19937_words(generator, 7)
    other = random.mt19937_in(random.mt19937_state(generator))
    assert_same(random.mt19937_words(other, 1000), random.mt19937_words(generator, 1000))


def test_recorded_python_seeds():
    python_random.seed(812)
    assert [random.make_default_seed() for _ in range(16)] == VECTORS["py_seed812_randint_first16"].tolist()


@pytest.mark.parametrize(
    ("framework", "seed", "n", "batch_size", "epochs", "kind", "expected"),
    matching(
        r"(tf|jax|torch)_order_seed(\d+)_n(\d+)_bs(\d+)_epochs(\d+)(_batchshuffle|_valsplit0\.2)?",
    ),
)
def test_recorded_orders(framework, seed, n, batch_size, epochs, kind, expected):
    config.set_random_stream(STREAM[framework])
    utils.set_random_seed(int(seed))
    trained_on = expected.shape[1]  # validation_split takes the last rows away
    shuffle = "batch" if kind == "_batchshuffle" else True
    random.start_first_fit(trained_on, int(batch_size), shuffle)
    for epoch in range(int(epochs)):
        order = random.epoch_order(trained_on, int(batch_size), shuffle)
        random.finish_epoch(evaluated=kind == "_valsplit0.2")
        np.testing.assert_array_equal(order, expected[epoch])


@pytest.mark.parametrize(("run", "model"), [(run, model) for run in RUN_STREAM for model in "ABC"], ids=lambda v: v)
def test_recorded_runs_from_one_seed(run, model):
    """All random numbers of three epochs of a model: seeds, kernels, orders, masks of the steps 0 to 7.

    Model A has no Dropout, B two unseeded ones (0.8 and 0.5), C the same with the seeds 7 and 9.
    """
    config.set_random_stream(RUN_STREAM[run])
    expected = {
        name.removeprefix(prefix): array
        for prefix in [f"run812_{run}_model{model}_"]
        for name, array in VECTORS.items()
        if name.startswith(prefix)
    }
    utils.set_random_seed(812)
    dense, dropouts = [initializers.GlorotUniform()], []
    for seed in {"A": (), "B": (None, None), "C": (7, 9)}[model]:
        dropouts.append(random.SeedGenerator(seed))
        dense.append(initializers.GlorotUniform())
    dense += [initializers.GlorotUniform() for _ in range(3 - len(dense))]
    assert [layer.seed for layer in dense] == expected["dense_seeds"].tolist()
    for number, shape in enumerate([(2, 4), (4, 4), (4, 1)]):
        assert_same(dense[number](shape), expected[f"init_dense{number + 1}_kernel"])

    random.start_first_fit(100, 32, True)
    step = 0
    for epoch in range(3):
        np.testing.assert_array_equal(random.epoch_order(100, 32, True), expected["order"][epoch])
        for rows in (32, 32, 32, 4):
            for number, generator in enumerate(dropouts):
                rate, pair = (0.8, 0.5)[number], generator.next()
                if run == "torch_eager" and model == "B":
                    mask = random.torch_unseeded_dropout_mask((rows, 4), rate)
                else:
                    mask = random.dropout_mask((rows, 4), rate, pair)
                if step < 8:
                    recorded = expected[f"drop{number + 1}_masks"][step]
                    np.testing.assert_array_equal(mask, recorded[:rows])
                    assert (recorded[rows:] == 255).all()
            step += 1
        random.finish_epoch()
    # an unseeded Dropout on torch leaves its state where it was
    if dropouts and not (run == "torch_eager" and model == "B"):
        assert [generator.state.tolist() for generator in dropouts] == expected["drop_states_end"].tolist()


# Normal numbers ------------------------------------------------------------------------------------------


def test_float32_functions_are_correct_to_an_ulp():
    """The C library's functions are within 1 ulp of the truth: here, over every 97th possible input."""
    u = (np.arange(1, 2**23, 97) * 2.0**-23).astype(np.float32)
    v = (2 * math.pi * u.astype(np.float64)).astype(np.float32)
    sin, cos = random.sincosf(v)
    for got, exact in (
        (random.logf(u), np.log(u.astype(np.float64))),
        (sin, np.sin(v.astype(np.float64))),
        (cos, np.cos(v.astype(np.float64))),
    ):
        assert got.dtype == np.float32
        ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
        assert (np.abs(got - exact) <= ulp).all()


def test_box_muller_of_zero_words_takes_1e_7_for_0():
    """u1 = max(0, 1e-7), v = 0: (0, √(-2 ln 1e-7)); without the maximum it would be infinite."""
    zero = np.zeros((1,), np.uint32)
    expected = [[0.0, math.sqrt(-2 * math.log(1e-7))]]
    np.testing.assert_allclose(random._box_muller_float32(zero, zero), expected, rtol=1e-7)
    np.testing.assert_allclose(random._box_muller_float64(np.zeros(4, np.uint32)), expected, rtol=1e-15)


@pytest.mark.parametrize("stream", config.RANDOM_STREAMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments(stream, dtype):
    """Mean and spread of 200 000 numbers within 5 standard errors; all inside their range."""
    config.set_random_stream(stream)
    n = 200_000
    for draw, mean, spread in (
        (random.uniform((n,), -1, 3, dtype, 5), 1.0, 4 / math.sqrt(12)),
        (random.normal((n,), 1, 2, dtype, 5), 1.0, 2.0),
        (random.truncated_normal((n,), 1, 2, dtype, 5), 1.0, 2 * 0.87962566103423978),
    ):
        assert draw.dtype == dtype
        assert draw.shape == (n,)
        assert abs(draw.mean(dtype=np.float64) - mean) < 5 * spread / math.sqrt(n)
        assert abs(draw.std(dtype=np.float64) / spread - 1) < 5 / math.sqrt(2 * n)
    uniform = random.uniform((n,), dtype=dtype, seed=6)
    assert 0 <= uniform.min() < 1e-4
    assert 1 - 1e-4 < uniform.max() < 1
    # torch lets about 4 in a million out; none among these
    assert np.abs(random.truncated_normal((n,), dtype=dtype, seed=6)).max() < 2


@pytest.mark.parametrize("stream", config.RANDOM_STREAMS)
def test_shapes(stream):
    config.set_random_stream(stream)
    for draw in (random.uniform, random.normal, random.truncated_normal):
        for shape in [(), (0, 3), (1,), (5,), (2, 3, 5)]:
            got = draw(shape, seed=1)
            assert got.shape == shape
            assert got.dtype == np.float32


def test_dtype_defaults_to_floatx():
    config.set_floatx("float64")
    assert random.uniform((3,), seed=1).dtype == np.float64
    with pytest.raises(ValueError, match="float16"):
        random.normal((3,), dtype="float16", seed=1)


def test_longer_uniforms_start_as_the_shorter():
    for stream in ("tensorflow", "jax", "torch"):
        config.set_random_stream(stream)
        assert_same(random.uniform((1000, 7), seed=3).ravel()[:37], random.uniform((37,), seed=3))


def test_jax_stream_refuses_seeds_that_jax_refuses():
    config.set_random_stream("jax")
    with pytest.raises(OverflowError, match=r"\[0, 2\*\*32\); got -1"):
        random.uniform((3,), seed=-1)


def test_torch_stream_adds_seed_and_counter():
    config.set_random_stream("torch")
    a, b = (random.dropout_mask((9, 9), 0.5, pair) for pair in ((7, 3), (8, 2)))
    assert_same(a, b)
    generator = random.SeedGenerator(7)
    generator.advance(3)
    assert_same(random.uniform((9,), seed=generator), random.uniform((9,), seed=10))


def test_torch_global_generator_moves_by_two_words_a_number():
    config.set_random_stream("torch")
    utils.set_random_seed(5)
    random.start_first_fit(9, 4, True)  # 2 numbers
    random.epoch_order(9, 4, True)  # 2
    random.finish_epoch(evaluated=True)  # 3
    random.start_first_fit(9, 4, False)  # 1
    random.epoch_order(9, 4, False)  # 1
    random.finish_epoch()  # 1
    (next_word,) = random.mt19937_words(random.torch_global_generator(), 1)
    assert next_word == random.mt19937_words(random.mt19937(5), 2 * 10 + 1)[-1]


# Dropout masks -------------------------------------------------------------------------------------------

masks = {
    "stream": st.sampled_from(config.RANDOM_STREAMS),
    "rate": st.sampled_from([0.0, 1e-3, 0.1, 1 / 3, 0.5, 0.8, 0.999, 1.0]),
    "seed": st.integers(0, 2**32 - 1),
    "counter": st.integers(0, 2**31),
}


@settings(max_examples=60)
@given(
    **masks,
    shape=st.sampled_from([(), (1,), (5,), (32, 4), (3, 0), (7, 3, 2)]),
    steps=st.integers(1, 9),
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
)
def test_masks_of_many_steps_are_the_masks_one_by_one(stream, rate, seed, counter, shape, steps, dtype):
    config.set_random_stream(stream)
    many = random.dropout_masks(shape, rate, (seed, counter), steps, dtype)
    assert many.shape == (steps, *shape)
    for t in range(steps):
        assert_same(many[t], random.dropout_mask(shape, rate, (seed, counter + t), dtype))


@settings(max_examples=40)
@given(**masks, rows=st.integers(1, 200), dtype=st.sampled_from(["float16", "bfloat16", "float32"]))
def test_a_mask_of_fewer_rows_is_the_start_of_the_larger(stream, rate, seed, counter, rows, dtype):
    config.set_random_stream(stream)
    large = random.dropout_mask((200, 3), rate, (seed, counter), dtype)
    assert_same(random.dropout_mask((rows, 3), rate, (seed, counter), dtype), large[:rows])


@settings(max_examples=60)
@given(**masks, dtype=st.sampled_from(["float16", "float32", "float64"]), xla=st.booleans())
def test_integer_thresholds_decide_as_the_floats_do(stream, rate, seed, counter, dtype, xla):
    """keep = u >= dtype(rate), with u as floating-point numbers."""
    config.set_random_stream("tensorflow-xla" if xla else "tensorflow")
    u = random.tensorflow_uniform01((seed, counter), 400, dtype, xla=xla)
    assert_same(random.dropout_mask((400,), rate, (seed, counter), dtype), u >= u.dtype.type(rate))


@pytest.mark.parametrize("stream", ["tensorflow", "tensorflow-xla", "jax", "torch"])
def test_a_number_on_the_threshold(stream):
    """TensorFlow keeps u = rate; JAX and torch drop u = 1 - rate."""
    pair = (7, 0)
    config.set_random_stream(stream)
    if stream.startswith("tensorflow"):
        u = random.tensorflow_uniform01(pair, 50, "float32", xla=stream == "tensorflow-xla").tolist()
    else:
        u = random.uniform((50,), seed=pair[0]).tolist()
    for i in range(50):
        rate = u[i] if stream.startswith("tensorflow") else 1 - u[i]
        assert random.dropout_mask((50,), rate, pair)[i] == stream.startswith("tensorflow")


@pytest.mark.parametrize("xla", [False, True])
def test_bfloat16_thresholds_decide_as_the_floats_do(xla):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    config.set_random_stream("tensorflow-xla" if xla else "tensorflow")
    u = random.tensorflow_uniform01((7, 3), 4000, "bfloat16", xla=xla)
    for rate in (0.1, 1 / 3, 0.5, 0.8, 0.9):
        assert_same(random.dropout_mask((4000,), rate, (7, 3), "bfloat16"), u >= bfloat16(rate))


@pytest.mark.parametrize("stream", config.RANDOM_STREAMS)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_fraction_kept(stream, rate):
    config.set_random_stream(stream)
    n = 1_000_000
    kept = random.dropout_mask((n,), rate, (11, 0)).mean()
    assert abs(kept - (1 - rate)) < 5 * math.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize("stream", config.RANDOM_STREAMS)
def test_masks_of_different_pairs_are_unrelated(stream):
    config.set_random_stream(stream)
    n = 100_000
    a, b, c = (random.dropout_mask((n,), 0.5, pair) for pair in ((11, 0), (11, 1), (13, 0)))
    for x, y in ((a, b), (a, c)):
        assert abs((x == y).mean() - 0.5) < 5 * 0.5 / math.sqrt(n)


def test_noise_shape_repeats_the_mask():
    full = random.dropout_mask((4, 3, 2), 0.5, (3, 0), noise_shape=(None, 1, None))
    assert full.flags.writeable
    drawn = random.dropout_mask((4, 1, 2), 0.5, (3, 0))
    assert_same(full, np.repeat(drawn, 3, axis=1))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_masks_refuse_a_rate_outside_0_to_1(rate):
    with pytest.raises(ValueError, match="rate is the fraction dropped, not kept"):
        random.dropout_mask((3,), rate, (1, 0))
    with pytest.raises(ValueError, match="rate is the fraction dropped, not kept"):
        random.torch_unseeded_dropout_mask((3,), rate)


def test_masks_refuse_other_dtypes_and_no_steps():
    with pytest.raises(ValueError, match="bfloat16, float32, float64; got 'int8'"):
        random.dropout_mask((3,), 0.5, (1, 0), "int8")
    with pytest.raises(ValueError, match="at least 1; got 0"):
        random.dropout_masks((3,), 0.5, (1, 0), 0)


def test_dropout_scales_what_it_keeps(rng):
    """By rules that differ in the last bit at this rate."""
    x, rate, one = rng.normal(size=(50, 4)).astype(np.float32), 0.45, np.float32(1)
    keep_probability = np.float32(1 - rate)
    scaled = {
        "tensorflow": x * np.float32(1 / (1 - rate)),
        "jax": x * (one / keep_probability),
        "torch": x / keep_probability,
    }
    assert all((a != b).any() for a in scaled.values() for b in scaled.values() if a is not b)
    for stream, expected in scaled.items():
        config.set_random_stream(stream)
        keep = random.dropout_mask((50, 4), rate, (3, 0))
        assert_same(random.dropout(x, rate, seed=3), np.where(keep, expected, np.float32(0)))


def test_dropout_of_nothing_or_everything_draws_no_seed():
    generator, x = random.SeedGenerator(3), np.ones((3, 2), np.float32)
    assert random.dropout(x, 0.0, seed=generator) is x
    assert_same(random.dropout(x, 1.0, seed=generator), np.zeros((3, 2), np.float32))
    assert generator.state.tolist() == [3, 0]
    random.dropout(x, 0.5, seed=generator)
    assert generator.state.tolist() == [3, 1]


# Seeds ---------------------------------------------------------------------------------------------------


def test_seed_generator_counts():
    generator = random.SeedGenerator(7)
    assert [generator.next(), generator.next()] == [(7, 0), (7, 1)]
    assert generator.advance(5) == (7, 2)
    assert generator.next() == (7, 7)
    assert generator.state.dtype == np.int64
    assert generator.get_config() == {"seed": 7, "name": "seed_generator"}
    assert random.SeedGenerator.from_config(generator.get_config()).next() == (7, 0)


def test_unseeded_generator_draws_one_default_seed():
    python_random.seed(812)
    first, second = python_random.randint(1, 10**9), python_random.randint(1, 10**9)
    python_random.seed(812)
    generator = random.SeedGenerator()
    assert generator.next() == (first, 0)
    assert generator.get_config()["seed"] is None
    assert random.make_default_seed() == second


@pytest.mark.parametrize("seed", [np.int64(3), 1.5, "3"])
def test_seeds_must_be_python_ints(seed):
    with pytest.raises(ValueError, match=rf"Python int or None; got .* of type {type(seed).__name__}"):
        random.SeedGenerator(seed)
    with pytest.raises(ValueError, match=rf"got .* of type {type(seed).__name__}"):
        random.uniform((2,), seed=seed)
    with pytest.raises(ValueError, match=rf"got .* of type {type(seed).__name__}"):
        utils.set_random_seed(seed)


def test_seed_generator_refuses_more_than_64_bits():
    with pytest.raises(ValueError, match="64 bits"):
        random.SeedGenerator(2**63)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_set_random_seed_refuses_what_numpy_refuses(seed):
    with pytest.raises(ValueError, match=rf"\[0, 2\*\*32\).*got {seed}"):
        utils.set_random_seed(seed)


def test_set_random_seed_sets_every_generator():
    def draws():
        utils.set_random_seed(5)
        return python_random.random(), np.random.random(), random.normal((2,)).tolist(), random.global_seed()

    first = draws()
    assert first == draws()
    assert first[3] == 5
    assert random.normal((2,)).tolist() != first[2]  # the global generator moves on


def test_unknown_stream_names_the_nearest():
    with pytest.raises(ValueError, match=r"'tensorflow'.*tensorflow-xla") as error:
        config.set_random_stream("tensorflo")
    assert all(name in str(error.value) for name in config.RANDOM_STREAMS)
    assert config.random_stream() == "tensorflow"


def test_importing_random_loads_no_optional_package():
    code = "import sys, minidl.random; print([m for m in ('scipy', 'ml_dtypes', 'keras') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# Row orders ----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    stream=st.sampled_from(config.RANDOM_STREAMS),
    n=st.integers(0, 70),
    batch_size=st.integers(1, 80),
    shuffle=st.sampled_from([True, False, "batch"]),
    seed=st.one_of(st.none(), st.integers(0, 2**32 - 1)),
)
def test_orders_are_permutations(stream, n, batch_size, shuffle, seed):
    config.set_random_stream(stream)
    if seed is None:
        random._global_seed = None
    else:
        utils.set_random_seed(seed)
    order = random.epoch_order(n, batch_size, shuffle)
    assert order.dtype.kind == "i"
    assert sorted(order) == list(range(n))
    if shuffle is False:
        assert_same(order, np.arange(n))
    if shuffle == "batch":
        for start in range(0, n, batch_size):
            batch = order[start : start + batch_size]
            assert sorted(batch) == list(range(start, start + len(batch)))


def test_tensorflow_repeats_its_order_only_after_a_seed():
    utils.set_random_seed(3)
    first = random.epoch_order(50, 8, True)
    first[:] = 0  # the caller may write into it
    assert_same(random.epoch_order(50, 8, True), random.shuffle_order(50, 3))
    random._global_seed = None
    python_random.seed(1)
    np.random.seed(1)
    assert (random.epoch_order(50, 8, True) != random.epoch_order(50, 8, True)).any()
    before = np.random.get_state()[2]
    random.epoch_order(50, 8, "batch")
    assert np.random.get_state()[2] == before  # the operating system's entropy, not NumPy's generator


def test_tensorflow_order_of_a_seed_that_is_0_modulo_its_prime():
    assert_same(random.shuffle_order(20, 2**31 - 1), random.shuffle_order(20, 0))
    assert (random.shuffle_order(20, 1) != random.shuffle_order(20, 0)).any()


def test_all_orders_of_four_rows_are_equally_frequent():
    """6000 seeds, 24 orders, 250 expected of each: χ² with 23 degrees of freedom is below 55 (p = 2e-4)."""
    counts = {}
    for seed in range(1, 6001):
        order = tuple(random.shuffle_order(4, seed).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((count - 250) ** 2 / 250 for count in counts.values()) < 55


@pytest.mark.parametrize(("n", "batch_size", "shuffle"), [(-1, 1, True), (3, 0, True), (3, 1, "batches")])
def test_orders_refuse_bad_arguments(n, batch_size, shuffle):
    with pytest.raises(ValueError, match="got"):
        random.epoch_order(n, batch_size, shuffle)


# randint -------------------------------------------------------------------------------------------------


def test_randint_range_and_refusals():
    for stream in ("tensorflow", "numpy"):
        config.set_random_stream(stream)
        for dtype in ("int32", "int64"):
            got = random.randint((1000,), -3, 4, dtype, seed=1)
            assert got.dtype == dtype
            assert set(got.tolist()) == set(range(-3, 4))
    with pytest.raises(ValueError, match="minval < maxval; got minval=4, maxval=4"):
        random.randint((2,), 4, 4)
    with pytest.raises(ValueError, match="'int32' or 'int64'; got 'uint8'"):
        random.randint((2,), 0, 4, "uint8")
    config.set_random_stream("jax")
    with pytest.raises(NotImplementedError, match="jax"):
        random.randint((2,), 0, 4, seed=1)


# Live Keras on TensorFlow --------------------------------------------------------------------------------

SEEDS = [3, 2**31 + 5, -5]
SHAPES = [(), (1,), (33, 7), (0, 3), (2, 3, 5)]


@pytest.mark.keras
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["uniform", "normal", "truncated_normal"])
def test_live_numbers(keras, name, dtype):
    for seed in SEEDS:
        for shape in SHAPES:
            got = getattr(random, name)(shape, -0.1, 0.3, dtype=dtype, seed=seed)
            assert_same(got, getattr(keras.random, name)(shape, -0.1, 0.3, dtype=dtype, seed=seed))


@pytest.mark.keras
def test_live_large_normals(keras):
    for name in ("normal", "truncated_normal"):
        got = getattr(random, name)((400, 1000), seed=9)
        assert_same(got, getattr(keras.random, name)((400, 1000), seed=9))


@pytest.mark.keras
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_live_randint(keras, dtype):
    for seed in SEEDS:
        for low, high in ((0, 10), (-7, 100_000), (-(2**31), 2**31 - 1)):
            got = random.randint((33,), low, high, dtype, seed)
            assert_same(got, keras.random.randint((33,), low, high, dtype=dtype, seed=seed))


@pytest.mark.keras
def test_live_dropout(keras, rng):
    for seed in SEEDS:
        for rate in (0.0, 0.1, 1 / 3, 0.8, 1.0):
            for dtype in ("float32", "float64", "float16"):
                x = rng.normal(size=(33, 7)).astype(dtype)
                assert_same(random.dropout(x, rate, seed=seed), keras.random.dropout(x, rate, seed=seed))
    x = np.ones((4, 3, 2), np.float32)
    for noise_shape in ((4, 1, 2), (None, 1, None)):
        expected = keras.random.dropout(x, 0.5, noise_shape=noise_shape, seed=3)
        assert_same(random.dropout(x, 0.5, noise_shape, 3), expected)


@pytest.mark.keras
@pytest.mark.parametrize("jit_compile", [False, True])
def test_live_masks_step_by_step(keras, jit_compile):
    """Dropout in training uses the pairs (seed, 0), (seed, 1), …; XLA takes other bits of the words."""
    tf = pytest.importorskip("tensorflow")
    config.set_random_stream("tensorflow-xla" if jit_compile else "tensorflow")
    layer = keras.layers.Dropout(0.3, seed=812)
    step = tf.function(lambda x: layer(x, training=True), jit_compile=jit_compile)
    expected = np.stack([step(tf.ones((32, 4))).numpy() != 0 for _ in range(4)])
    assert_same(random.dropout_masks((32, 4), 0.3, (812, 0), 4), expected)


@pytest.mark.keras
def test_live_global_generator(keras):
    keras.utils.set_random_seed(5)
    expected = [np.asarray(keras.random.normal((3,))) for _ in range(3)]
    utils.set_random_seed(5)
    for array in expected:
        assert_same(random.normal((3,)), array)


@pytest.mark.keras
@pytest.mark.parametrize(("seed", "n", "batch_size", "shuffle"), [(3, 50, 8, True), (2**32 - 1, 23, 5, "batch")])
def test_live_fit_orders(keras, seed, n, batch_size, shuffle):
    keras.utils.set_random_seed(seed)
    seen = []

    class Recorder(keras.layers.Layer):
        def call(self, x):
            seen.append(np.asarray(x)[:, 0])
            return x

    model = keras.Sequential([keras.Input((1,)), Recorder(), keras.layers.Dense(1)])
    seen.clear()
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.arange(n, dtype=np.float32)[:, None]
    model.fit(x, x, batch_size=batch_size, epochs=2, shuffle=shuffle, verbose=0)
    utils.set_random_seed(seed)
    for got in np.concatenate(seen).reshape(2, n):
        np.testing.assert_array_equal(random.epoch_order(n, batch_size, shuffle), got)
