"""Initializers against arrays recorded from real Keras, against live Keras, and for what they refuse."""

import hashlib
import math
import random as python_random
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same

import minidl.keras as minidl_keras
from minidl import config, initializers, layers, random

VECTORS = dict(np.load(Path(__file__).parent / "data" / "rng-vectors.npz"))
STREAM = {"tf": "tensorflow", "jax": "jax", "torch": "torch"}
ARGUMENTS = {
    "RandomUniform": {"minval": -0.1, "maxval": 0.3},
    "RandomNormal": {"mean": 0.1, "stddev": 0.3},
    "TruncatedNormal": {"mean": 0.1, "stddev": 0.3},
    "VarianceScaling": {"scale": 0.7, "mode": "fan_out", "distribution": "untruncated_normal"},
    "Orthogonal": {"gain": 1.3},
}
RANDOM = [
    "GlorotUniform",
    "GlorotNormal",
    "HeUniform",
    "HeNormal",
    "LecunUniform",
    "LecunNormal",
    "RandomUniform",
    "RandomNormal",
    "TruncatedNormal",
    "VarianceScaling",
]


def make(name, seed):
    return getattr(initializers, name)(seed=seed, **ARGUMENTS.get(name, {}))


RECORDED = [
    m
    for m in (
        re.fullmatch(r"(tf|jax|torch)_init_([A-Za-z]+).*_seed(\d+)_shape(\d+)x(\d+)(_sha256)?", name)
        for name in VECTORS
    )
    if m
]


@pytest.mark.parametrize("match", RECORDED, ids=lambda m: m.string)
def test_recorded_initializers(match):
    framework, name, seed, rows, columns, digest = match.groups()
    name = name.removesuffix("fanoutuntruncated")
    config.set_random_stream(STREAM[framework])
    got, expected = make(name, int(seed))((int(rows), int(columns))), VECTORS[match.string]
    assert got.dtype == np.float32
    if digest:
        assert hashlib.sha256(got.tobytes()).digest() == expected.tobytes()
        return
    assert got.shape == expected.shape
    tolerance = 0.0
    if name == "Orthogonal":
        tolerance = 2e-6  # QR rounds differently in every library
    elif framework == "torch" and "Uniform" not in name:
        tolerance = 2e-6  # torch's vector instructions are approximate: 2.1e-6 at stddev 1
    elif framework == "jax" and "Uniform" not in name:
        tolerance = 3e-7  # XLA's log1p is not correctly rounded: 3 ulp of z
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


def test_recorded_torch_normals_below_16_numbers_are_equal():
    config.set_random_stream("torch")
    for seed in (3, 812):
        expected = VECTORS[f"torch_init_RandomNormal_seed{seed}_shape2x4"]
        np.testing.assert_array_equal(make("RandomNormal", seed)((2, 4)), expected)


def test_constants():
    config.set_floatx("float64")
    for initializer, expected in (
        (initializers.Zeros(), np.zeros((2, 3))),
        (initializers.Ones(), np.ones((2, 3))),
        (initializers.Constant(0.1), np.full((2, 3), 0.1)),
        (initializers.Identity(gain=2.0), 2 * np.eye(2, 3)),
    ):
        for dtype in ("float32", "float64", None):
            got = initializer((2, 3), dtype)
            assert got.dtype == (dtype or "float64")
            np.testing.assert_array_equal(got, expected.astype(got.dtype))
            assert got.flags.writeable


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (2, 3, 4)])
def test_orthogonal_is_orthogonal(shape):
    q = initializers.Orthogonal(gain=2.0, seed=5)(shape, "float64").reshape(-1, shape[-1])
    gram = q @ q.T if q.shape[0] < q.shape[1] else q.T @ q
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("GlorotUniform", 2 / 1000),
        ("GlorotNormal", 2 / 1000),
        ("HeUniform", 2 / 400),
        ("HeNormal", 2 / 400),
        ("LecunUniform", 1 / 400),
        ("LecunNormal", 1 / 400),
        ("VarianceScaling", 0.7 / 600),
    ],
)
def test_variance_is_the_promised_one(name, variance):
    w = make(name, 4)((400, 600))
    # the sample variance of 240 000 numbers has a relative standard error of at most √(2 / 240000) = 0.3 %
    assert abs(w.var(dtype=np.float64) / variance - 1) < 0.015
    assert abs(w.mean(dtype=np.float64)) < 5 * math.sqrt(variance / w.size)


@pytest.mark.parametrize(
    ("shape", "axes", "fans"),
    [
        ((), {}, (1, 1)),
        ((5,), {}, (5, 5)),
        ((3, 7), {}, (3, 7)),
        ((2, 5, 3, 7), {}, (30, 70)),
        ((2, 5, 3, 7), {"input_axes": [0, 1], "output_axes": [3]}, (10, 7)),
        ((3, 7), {"input_axes": [1]}, (3, 7)),  # both are needed
    ],
)
def test_fans(shape, axes, fans):
    assert initializers.compute_fans(shape, **axes) == fans


def test_seeded_repeats_and_a_seed_generator_moves_on():
    fixed = initializers.GlorotUniform(seed=3)
    np.testing.assert_array_equal(fixed((3, 4)), fixed((3, 4)))
    moving = initializers.GlorotUniform(seed=random.SeedGenerator(3))
    np.testing.assert_array_equal(moving((3, 4)), fixed((3, 4)))
    assert (moving((3, 4)) != fixed((3, 4))).all()


def test_unseeded_draws_its_seed_when_constructed():
    state = python_random.getstate()
    try:
        python_random.seed(812)
        built = [initializers.get(what) for what in ("glorot_uniform", initializers.HeNormal, "zeros")]
        assert [built[0].seed, built[1].seed] == VECTORS["py_seed812_randint_first16"][:2].tolist()
        assert built[0].get_config()["seed"] is None
        assert built[0].clone().seed == VECTORS["py_seed812_randint_first16"][2]
        np.testing.assert_array_equal(built[0]((2, 3)), built[0]((2, 3)))
    finally:
        python_random.setstate(state)


@pytest.mark.parametrize("name", [*RANDOM, "Orthogonal"])
def test_config_round_trip(name):
    original = make(name, 11)
    for copy in (
        initializers.get(initializers.serialize(original)),
        initializers.deserialize(initializers.serialize(original)),
        original.clone(),
    ):
        assert type(copy) is type(original)
        assert copy.get_config() == original.get_config()
        np.testing.assert_array_equal(copy((4, 3)), original((4, 3)))


def test_config_of_a_seed_generator():
    config_dict = initializers.HeNormal(seed=random.SeedGenerator(3, name="mine")).get_config()
    assert config_dict["seed"] == {
        "module": "keras.random",
        "class_name": "SeedGenerator",
        "config": {"seed": 3, "name": "mine"},
        "registered_name": None,
    }
    copy = initializers.HeNormal.from_config(config_dict)
    assert copy.seed.next() == (3, 0)


@pytest.mark.parametrize("name", ["Zeros", "Ones", "Constant", "Identity", "Orthogonal", *RANDOM])
def test_names(name):
    cls = getattr(initializers, name)
    snake_case = re.sub("(?<!^)([A-Z])", r"_\1", name).lower()
    assert getattr(initializers, snake_case) is cls
    for identifier in (name, snake_case, cls, {"class_name": name, "config": {}}):
        assert type(initializers.get(identifier)) is cls


def test_aliases_and_what_get_returns_as_it_is():
    aliases = {"uniform": "RandomUniform", "normal": "RandomNormal", "zero": "Zeros", "one": "Ones"}
    aliases |= {"OrthogonalInitializer": "Orthogonal", "IdentityInitializer": "Identity"}
    for alias, name in aliases.items():
        assert type(initializers.get(alias)).__name__ == name
    assert initializers.get(None) is None
    instance = initializers.Ones()
    assert initializers.get(instance) is instance
    assert initializers.get(np.zeros) is np.zeros


def test_an_array_is_its_own_initializer():
    values = np.arange(6.0).reshape(2, 3)
    got = initializers.get(values)((2, 3), "float32")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, values)
    got[0, 0] = 9
    assert values[0, 0] == 0
    with pytest.raises(ValueError, match=r"has shape \(2, 3\); expected \(3, 2\)"):
        initializers.get(values)((3, 2))


def test_an_unknown_name_gets_the_nearest_and_all():
    with pytest.raises(ValueError, match=r"'glorot_unifrm'.*'glorot_uniform'") as error:
        initializers.get("glorot_unifrm")
    assert "Orthogonal" in str(error.value)
    for identifier in (3, {"config": {}}, {"class_name": "Initializer"}):
        with pytest.raises(ValueError, match=r"got|Unknown"):
            initializers.get(identifier)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: initializers.VarianceScaling(scale=0.0), "scale must be positive; got 0.0"),
        (lambda: initializers.VarianceScaling(scale=-1), "scale must be positive; got -1"),
        (lambda: initializers.VarianceScaling(mode="fan"), "fan_in, fan_out, fan_avg; got 'fan'"),
        (lambda: initializers.VarianceScaling(distribution="beta"), "untruncated_normal; got 'beta'"),
        (lambda: initializers.GlorotUniform(seed=np.int64(3)), "GlorotUniform: seed must be a Python int"),
        (lambda: initializers.Orthogonal()((3,)), r"at least 2 axes; got \(3,\)"),
        (lambda: initializers.Identity()((3,)), r"2 axes; got \(3,\)"),
        (lambda: initializers.Zeros()((3,), "float16"), "float32, float64; got 'float16'"),
        (lambda: initializers.GlorotUniform(seed=1)((3,), "int32"), "float32, float64; got 'int32'"),
    ],
)
def test_refusals(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_normal_means_truncated_normal():
    assert initializers.VarianceScaling(distribution="Normal").distribution == "truncated_normal"


def test_base_class_must_be_implemented():
    with pytest.raises(NotImplementedError, match="Mine must implement __call__"):
        type("Mine", (initializers.Initializer,), {})()((2,))


@pytest.mark.keras
@pytest.mark.parametrize("name", [*RANDOM, "Orthogonal"])
def test_live_random_initializers(keras, name):
    for seed in (5, 2**31 + 5):
        for shape in ((3, 4), (2, 3, 4), (50, 33)):
            for dtype in ("float32", "float64"):
                got = make(name, seed)(shape, dtype)
                expected = getattr(keras.initializers, name)(seed=seed, **ARGUMENTS.get(name, {}))(shape, dtype)
                expected = np.asarray(expected)
                assert got.dtype == expected.dtype
                # QR rounds differently in LAPACK and Eigen; everything else is equal to the last bit
                atol = {"float32": 2e-6, "float64": 1e-14}[dtype] if name == "Orthogonal" else 0
                np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


@pytest.mark.keras
def test_live_constants_and_names(keras):
    for name, arguments in (("Zeros", ()), ("Ones", ()), ("Constant", (0.1,)), ("Identity", (1.3,))):
        got = getattr(initializers, name)(*arguments)((3, 4), "float32")
        expected = np.asarray(getattr(keras.initializers, name)(*arguments)((3, 4), "float32"))
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    for name, cls in initializers._CLASSES.items():
        if cls is not initializers.Constant:  # which Keras cannot get by name alone
            assert type(keras.initializers.get(name)).__name__ == cls.__name__


@pytest.mark.keras
@pytest.mark.parametrize("name", [*RANDOM, "Orthogonal"])
def test_live_configs(keras, name):
    for seed in (None, 3, "generator"):
        theirs, ours = (
            getattr(library.initializers, name)(
                seed=library.random.SeedGenerator(3, name="mine") if seed == "generator" else seed,
                **ARGUMENTS.get(name, {}),
            )
            for library in (keras, minidl_keras)
        )
        expected = keras.initializers.serialize(theirs)
        assert initializers.serialize(ours) == expected
        assert initializers.serialize(initializers.get(expected)) == expected
        assert keras.initializers.serialize(keras.initializers.get(initializers.serialize(ours))) == expected


@pytest.mark.keras
def test_live_configs_of_constants(keras):
    for name, arguments in (("Zeros", ()), ("Ones", ()), ("Constant", (0.1,)), ("Constant", ([1.0, 2.0],)),
                            ("Constant", (np.arange(3.0, dtype="float32"),)), ("Identity", ())):  # fmt: skip
        ours = getattr(initializers, name)(*arguments)
        expected = keras.initializers.serialize(getattr(keras.initializers, name)(*arguments))
        assert initializers.serialize(ours) == expected
        shape = (3, 3) if name == "Identity" else np.shape(arguments[0] if arguments else 0)
        assert_same(initializers.get(expected)(shape), ours(shape))
    # Keras's Identity forgets its gain; with ours it makes the same again
    made = keras.initializers.get(initializers.serialize(initializers.Identity(1.5)))
    np.testing.assert_array_equal(np.asarray(made((2, 3))), initializers.Identity(1.5)((2, 3)))


@pytest.mark.keras
def test_the_list_is_keras_s(keras):
    import keras.src.initializers as theirs

    elsewhere = {"Initializer", "initializer", "STFT", "STFTInitializer", "stft"}
    assert set(theirs.ALL_OBJECTS_DICT) - elsewhere <= set(initializers._CLASSES)
    for name in set(dir(keras.initializers)) - elsewhere:
        assert name[0] == "_" or hasattr(initializers, name), name


@pytest.mark.keras
def test_a_tensor_is_its_own_initializer(keras):
    values = np.arange(6.0, dtype="float32").reshape(2, 3)
    assert_same(initializers.get(keras.ops.convert_to_tensor(values))((2, 3)), values)


# One's own -----------------------------------------------------------------------------------------------


class Filled(initializers.Initializer):
    def __init__(self, value=2.0):
        self.value = value

    def __call__(self, shape, dtype=None):
        return np.full(shape, self.value, dtype)

    def get_config(self):
        return {"value": self.value}


def test_one_s_own():
    for given in (Filled, Filled(2.0), lambda shape, dtype=None: np.full(shape, 2, dtype)):
        dense = layers.Dense(3, kernel_initializer=given)
        dense.build((None, 2))
        assert_same(dense.get_weights()[0], np.full((2, 3), 2, np.float32))
    again = initializers.deserialize(initializers.serialize(Filled(3.0)), {"Filled": Filled})
    assert isinstance(again, Filled) and again.value == 3.0


def twos(shape, dtype=None):
    return np.full(shape, 2, dtype)


def test_a_function_of_one_s_own_is_written_by_its_name():
    written = layers.Dense(3, kernel_initializer=twos).get_config()["kernel_initializer"]
    assert written == {"module": "builtins", "class_name": "function", "config": "twos", "registered_name": "function"}
    assert initializers.deserialize(written, {"twos": twos}) is twos
    with pytest.raises(ValueError, match=r"Unknown initializer: 'twos'. If it is your own, hand it over"):
        initializers.get(written)
    with pytest.raises(ValueError, match="A lambda cannot be written"):
        initializers.serialize(lambda shape, dtype=None: np.ones(shape, dtype))
    with pytest.raises(TypeError, match="cannot be written"):
        initializers.serialize(initializers.get(np.ones((2, 3))))


@pytest.mark.parametrize("name", ["STFT", "stft", "STFTInitializer"])
def test_stft_is_not_for_a_dense_layer(name):
    with pytest.raises(NotImplementedError, match=f"{name}: .*three axes"):
        layers.Dense(3, kernel_initializer=name)
