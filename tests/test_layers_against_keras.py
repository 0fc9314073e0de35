"""Every layer against live Keras on TensorFlow: outputs, gradients, draws, configs, and models of them trained."""

import json

import numpy as np
import pytest
from helpers import assert_close, assert_same
from keras_cases import floatx, keras_on_tensorflow
from layer_cases import LAYERS, NOISE

import minidl.keras as minidl_keras
from minidl import config, layers

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:.*rms_scaling=True:UserWarning"),  # deprecated, in both
]


@pytest.fixture(scope="module")
def keras_tf():
    pytest.importorskip("tensorflow")
    return keras_on_tensorflow()


# Relative to the largest element. float64: as everywhere here. float32: a mean and a variance over at most 35 numbers
# round 2 · 35 times, the rest some 30 times, each by ε/2 of terms at most 4 times the largest result (x, μ and x̂ of
# numbers drawn from a normal distribution, γ and σ near 1); and Keras errs as much: (70 + 30) · 4 ε.
BUDGET = {"float64": 1e-12, "float32": 400 * float(np.finfo(np.float32).eps)}


def close(got, expected, dtype, what):
    expected = np.asarray(expected)
    assert_close(got, expected, atol=BUDGET[dtype] * max(np.abs(expected).max(initial=0), 1e-3), what=what)


def pair(keras, name):
    """The layer of both libraries, built, with the same weights, all of them random."""
    make, shape = LAYERS[name]
    theirs, ours = make(keras), make(minidl_keras)
    theirs.build((None, *shape)) if not theirs.built else None
    if not ours.built:
        ours.build((None, *shape))
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.5, 1.5, w.shape).astype(w.dtype) for w in ours.get_weights()]
    theirs.set_weights(weights)
    ours.set_weights(weights)
    if isinstance(ours, layers.Normalization):
        theirs.finalize_state()  # which Keras's set_weights leaves to the loading of a file
    return theirs, ours, rng.normal(size=(7, *shape)).astype(ours.dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_outputs_gradients_and_state(keras_tf, dtype):
    keras, tf = keras_tf
    with floatx(keras, dtype):
        for name in LAYERS:
            theirs, ours, x = pair(keras, name)
            for training in (False, True, True):
                what = f"{name}, training={training}"
                variables = theirs.trainable_variables
                with tf.GradientTape() as tape:
                    inputs = tf.constant(x)
                    tape.watch(inputs)
                    # only some of Keras's layers take the argument
                    takes = "training" in theirs._call_signature.parameters
                    outputs = theirs(inputs, training=training) if takes else theirs(inputs)
                    d_outputs = np.random.default_rng(2).normal(size=outputs.shape).astype(dtype)
                    loss = tf.reduce_sum(outputs * d_outputs)
                sources = [inputs, *[v.value for v in variables]]
                d_inputs, *d_parameters = tape.gradient(loss, sources, unconnected_gradients="zero")
                close(ours.forward(x, training=training), outputs.numpy(), dtype, f"{what}: outputs")
                close(ours.backward(d_outputs), d_inputs.numpy(), dtype, f"{what}: d_inputs")
                for (parameter, gradient), their in zip(ours.grads.items(), d_parameters, strict=ours.trainable):
                    close(gradient, their.numpy(), dtype, f"{what}: d_{parameter}")
                if training:
                    ours.finish_step()
                for weight, their in zip(ours.get_weights(), theirs.get_weights(), strict=True):
                    close(weight, their, dtype, f"{what}: weights")
                assert ours.compute_output_shape((None, *x.shape[1:])) == theirs.compute_output_shape(
                    (None, *x.shape[1:])
                )


def plain(config):
    """A config as JSON has it, without the name."""
    return json.loads(json.dumps({key: value for key, value in config.items() if key != "name"}))


def test_names_configs_and_serialized_forms(keras_tf):
    keras, _ = keras_tf
    with floatx(keras, "float32"):
        keras.utils.clear_session(free_memory=False)
        for name, (make, shape) in LAYERS.items():
            theirs, ours = make(keras), make(minidl_keras)
            assert ours.name == theirs.name, name
            assert plain(ours.get_config()) == plain(theirs.get_config()), name
            for layer in (theirs, ours):
                if not layer.built:
                    layer.build((None, *shape))
            ours_form, their_form = layers.serialize(ours), keras.layers.serialize(theirs)
            assert json.loads(json.dumps(ours_form)) == json.loads(json.dumps(their_form)), name
            for form in (ours_form, json.loads(json.dumps(their_form))):  # back again, from each other's
                again = layers.deserialize(form)
                assert plain(again.get_config()) == plain(ours.get_config()) and again.built, name
            assert plain(keras.layers.deserialize(json.loads(json.dumps(ours_form))).get_config()) == plain(
                theirs.get_config()
            ), name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_draws_are_keras_s(keras_tf, mode, dtype):
    keras, tf = keras_tf
    with floatx(keras, dtype):
        for name in NOISE:
            theirs, ours, x = pair(keras, name)
            call = {
                "eager": lambda x, layer=theirs: layer(x, training=True),
                "graph": tf.function(lambda x, layer=theirs: layer(x, training=True)),
                "xla": tf.function(lambda x, layer=theirs: layer(x, training=True), jit_compile=True),
            }[mode]
            for step in range(3):
                expected = call(tf.constant(x)).numpy()
                with config.using_random_stream("tensorflow-xla" if mode == "xla" else "tensorflow"):
                    got = ours.forward(x, training=True)
                if mode != "xla":
                    assert_same(got, expected)
                else:  # XLA may fuse x + z·stddev and the like: one rounding fewer of three; in float32 z is 2.4e-7 off
                    eps = np.finfo(dtype).eps
                    off = 3 * eps * 6 + (2.4e-7 * np.abs(x).max() if dtype == "float32" else 0)  # |outputs| < 6
                    assert np.abs(expected).max() < 6
                    assert_close(got, expected, atol=off, what=f"{name}, step {step}")
                assert ours.seed_generator.state.tolist() == theirs.seed_generator.state.numpy().tolist()


def models(k):
    """Stacks of all kinds: name -> (layers, the shape of a sample, loss, classes)."""
    la = k.layers
    return {
        "normalized": (
            [
                la.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0]),
                la.Dense(6, kernel_initializer=k.initializers.GlorotUniform(seed=1)),
                la.BatchNormalization(momentum=0.8, gamma_regularizer="l2"),
                la.ReLU(max_value=2.0, negative_slope=0.05),
                la.Dense(5, kernel_initializer=k.initializers.GlorotUniform(seed=2)),
                la.LayerNormalization(beta_constraint="non_neg", gamma_constraint="max_norm"),
                la.PReLU(alpha_initializer="ones", alpha_regularizer="l1", alpha_constraint="unit_norm"),
                la.Dense(3, kernel_initializer=k.initializers.GlorotUniform(seed=3)),
                la.Softmax(),
            ],
            (4,), "categorical_crossentropy", 3,
        ),
        "noisy": (
            [
                la.Rescaling(0.5, offset=0.1),
                la.GaussianNoise(0.2, seed=4),
                la.Dense(6, kernel_initializer=k.initializers.GlorotUniform(seed=1)),
                la.BatchNormalization(scale=False),
                la.Activation("tanh"),
                la.GaussianDropout(0.2, seed=5),
                la.ActivityRegularization(l1=0.01, l2=0.02),
                la.Dense(6, kernel_initializer=k.initializers.GlorotUniform(seed=2)),
                la.AlphaDropout(0.2, seed=6),
                la.ELU(0.9),
                la.UnitNormalization(),
                la.Dense(1, kernel_initializer=k.initializers.GlorotUniform(seed=3)),
                la.Activation("sigmoid"),
                la.Identity(),
                la.ActivityRegularization(l2=0.03),
            ],
            (4,), "binary_crossentropy", 1,
        ),
        "deep": (
            [
                la.BatchNormalization(axis=1),
                la.LeakyReLU(0.2),
                la.RMSNormalization(),
                la.Dense(4, kernel_initializer=k.initializers.GlorotUniform(seed=1)),
                la.BatchNormalization(trainable=False),
                la.Flatten(),
                la.Reshape((3, 4)),
                la.LayerNormalization(axis=[1, 2]),
                la.Flatten(),
                la.Dense(2, kernel_initializer=k.initializers.GlorotUniform(seed=2)),
            ],
            (3, 2), "mse", 2,
        ),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "xla"), [("normalized", False), ("noisy", False), ("noisy", True), ("deep", False)])
def test_models_trained_by_compiled_steps(keras_tf, name, xla):
    """Five steps of SGD with momentum in float64, then evaluate and predict: to 1e-12. xla: with jit_compile=True."""
    keras, _ = keras_tf
    with floatx(keras, "float64"):
        trained = []
        stack, shape, loss, units = models(keras)[name]
        rng = np.random.default_rng(0)
        x = rng.normal(size=(40, *shape))
        y = np.eye(3)[rng.integers(3, size=40)] if units == 3 else rng.integers(2, size=(40, units)).astype(float)
        for k in (keras, minidl_keras):
            stack, shape, loss, _ = models(k)[name]
            model = k.Sequential([k.Input(shape), *stack])
            model.compile(k.optimizers.SGD(0.05, momentum=0.9), loss, jit_compile=xla)
            losses = [model.train_on_batch(x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)]
            evaluated = model.evaluate(x, y, batch_size=16, verbose=0)
            trained.append((losses, model.get_weights(), evaluated, model.predict(x, verbose=0)))
        (losses, weights, evaluated, predicted), ours = trained
        assert_close(np.array(ours[0]), np.array(losses, np.float64), rtol=1e-12, atol=0, what="losses")
        for i, (our, their) in enumerate(zip(ours[1], weights, strict=True)):
            # a bias below a normalization has a gradient of 0, in both only rounding: so at least 0.1, a weight's size
            assert_close(our, their, atol=1e-12 * max(np.abs(their).max(), 0.1), what=f"weight {i}")
        assert_close(np.array(ours[2]), np.array(evaluated, np.float64), rtol=1e-12, atol=0, what="evaluate")
        assert_close(ours[3], predicted, atol=1e-12 * np.abs(predicted).max(), what="predict")


def test_logits_are_found_where_keras_finds_them(keras_tf):
    """Under what passes a tensor on as it is, not under what makes a new one: of z = ±40 the loss tells which."""
    keras, _ = keras_tf
    x, y = np.array([[40.0, -40.0]], "float32"), np.array([[0.0, 1.0]], "float32")
    ends = {
        "identity": lambda k: [k.layers.Identity()],
        "regularization": lambda k: [k.layers.ActivityRegularization(l1=0.5)],
        "dropout": lambda k: [k.layers.Dropout(1e-7, seed=1)],
        "flatten": lambda k: [k.layers.Flatten()],
        "linear": lambda k: [k.layers.Activation("linear"), k.layers.GaussianNoise(0.0)],
    }
    with floatx(keras, "float32"):
        for name, end in ends.items():
            found = []
            for k in (keras, minidl_keras):
                model = k.Sequential([k.Input((2,)), k.layers.Activation("sigmoid"), *end(k)])
                model.compile("sgd", "binary_crossentropy", run_eagerly=False)
                found.append(model.evaluate(x, y, verbose=0))
            # 16.03 of clipped probabilities is −ln of a float32 next to 1: its rounding is relative to 1e-7, so 6 %
            assert abs(found[0] - found[1]) < 0.2, (name, found)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_adapt(keras_tf, dtype):
    keras, _ = keras_tf
    rng = np.random.default_rng(3)
    data = rng.normal(3, 2, size=(50, 4))
    kinds = {
        "float64": data,
        "float32": data.astype(np.float32),
        "integers": rng.integers(0, 255, size=(50, 4)),
        "batches": [data[:20], data[20:32], data[32:]],
        "tuples": [(data[:20], None), (data[20:], None)],
        "deep": rng.normal(size=(50, 3, 4)),
    }
    with floatx(keras, dtype):
        for axis in (-1, None, 1):
            for name, kind in kinds.items():
                found = []
                for k in (keras, minidl_keras):
                    layer = k.layers.Normalization(axis=axis)
                    layer.adapt(kind if name != "tuples" else iter(kind))
                    found.append(
                        [
                            *map(np.asarray, layer.get_weights()),
                            np.asarray(layer(data[:5] if name != "deep" else kind[:5])),
                        ]
                    )
                theirs, ours = found
                for our, their in zip(ours, theirs, strict=True):
                    assert our.dtype == their.dtype
                    assert_close(our, their, atol=BUDGET[dtype] * np.abs(their).max(), what=f"{name}, axis={axis}")


SUMMARIES = [
    {},
    {"show_trainable": True},
    {"expand_nested": True},
    {"expand_nested": True, "show_trainable": True, "line_length": 96},
    {"positions": [0.5, 0.8, 1.0]},
    {"layer_range": ["inner", "norm.*"]},
]


@pytest.mark.parametrize("arguments", SUMMARIES, ids=str)
def test_the_summary_is_keras_s(keras_tf, arguments, monkeypatch):
    """Built, frozen in part, nested, and fitted: the whole text."""
    keras, _ = keras_tf
    monkeypatch.setenv("COLUMNS", "120")
    with floatx(keras, "float32"):
        keras.utils.clear_session(free_memory=False)
        texts = []
        for k in (keras, minidl_keras):
            la = k.layers
            inner = k.Sequential([k.Input((4,)), la.Dense(3), la.BatchNormalization()], name="inner")
            frozen = la.Dense(6, name="frozen", trainable=False)
            stack = [frozen, la.Dense(4, name="first"), inner, la.LayerNormalization(name="norm"), la.Dropout(0.5)]
            model = k.Sequential([k.Input((5,)), *stack, la.Dense(1, name="last")], name="outer")
            model.compile("adam", "mse")
            found = []
            model.summary(print_fn=found.append, **arguments)
            if not arguments:
                model.train_on_batch(np.ones((2, 5)), np.ones((2, 1)))
                model.summary(print_fn=found.append)
            unbuilt = k.Sequential([la.Flatten(), la.BatchNormalization(), la.Activation("relu")], name="unbuilt")
            if "layer_range" not in arguments:
                unbuilt.summary(print_fn=found.append, **arguments)
            texts.append("\n".join(found))
        assert texts[1] == texts[0]


def test_files_of_every_layer_travel_both_ways(keras_tf, tmp_path):
    """For each shape of a sample one model of all the layers that keep it: weights to the bit, and configs."""
    keras, _ = keras_tf
    with floatx(keras, "float32"):
        for shape in [(5,), (3, 5), (3, 2), (4, 3), (6,)]:
            for writer, reader in ((keras, minidl_keras), (minidl_keras, keras)):
                stack = [make(writer) for make, own in LAYERS.values() if own == shape]
                stack = [layer for layer in stack if tuple(layer.compute_output_shape((None, *shape)))[1:] == shape]
                model = writer.Sequential([writer.Input(shape), *stack])
                rng = np.random.default_rng(1)
                model.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(w.dtype) for w in model.get_weights()])
                model.save(tmp_path / "model.keras")
                read = reader.models.load_model(tmp_path / "model.keras")
                for got, expected in zip(read.get_weights(), model.get_weights(), strict=True):
                    assert_same(got, expected)
                for ours, theirs in zip(read.layers, model.layers, strict=True):
                    assert plain(ours.get_config()) == plain(theirs.get_config())
