"""The layers beyond Dense and Dropout: derivatives, closed forms, state, draws, configs, misuse."""

import numpy as np
import pytest
from helpers import assert_close, assert_gradients_close, assert_same
from layer_cases import LAYERS, NOISE

import minidl.keras as minidl_keras
from minidl import Input, Sequential, config, layers, ops, optimizers, random
from minidl.layers import (
    ELU,
    Activation,
    ActivityRegularization,
    AlphaDropout,
    BatchNormalization,
    Dense,
    Flatten,
    GaussianDropout,
    GaussianNoise,
    LayerNormalization,
    LeakyReLU,
    Normalization,
    PReLU,
    ReLU,
    Rescaling,
    Reshape,
    RMSNormalization,
    Softmax,
    UnitNormalization,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*rms_scaling=True:UserWarning")  # deprecated

EPS = np.finfo(np.float64).eps
KINKS = {"relu": [0.0], "relu all": [0.0, 0.2, 1.3], "relu 6": [0.0, 6.0], "prelu": [0.0], "leaky relu": [0.0]}


def built(name, rng):
    """A layer of the cases in float64 with random weights, and inputs away from its corners."""
    make, shape = LAYERS[name]
    before = config.floatx()
    config.set_floatx("float64")
    layer = make(minidl_keras)
    config.set_floatx(before)
    if not layer.built:
        layer.build((None, *shape))
    layer.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(w.dtype) for w in layer.get_weights()])
    x = rng.normal(size=(7, *shape))
    for corner in KINKS.get(name, [0.0]):
        x[np.abs(x - corner) < 1e-3] += 0.01
    return layer, x


# derivatives --------------------------------------------------------------------------------------------


# in training a renormalization takes its corrections as constants, which they are not: its gradient is held to Keras's
DERIVATIVES = [(name, training) for name in LAYERS for training in (False, True) if not (training and "renorm" in name)]


@pytest.mark.parametrize(("name", "training"), DERIVATIVES)
def test_backward_is_the_derivative(rng, name, training):
    layer, x = built(name, rng)
    generator = getattr(layer, "seed_generator", None)
    outputs = layer.forward(x, training=False)
    d_outputs, largest = rng.normal(size=outputs.shape), np.abs(outputs).max()

    def f():
        if generator is not None:
            generator.state[1] = 0  # the same draw every time
        return (d_outputs * layer.forward(x, training=training)).sum()

    f()
    d_inputs = layer.backward(d_outputs)
    gradients = {parameter: gradient.copy() for parameter, gradient in layer.grads.items()}
    # A normalization is of degree 0 in x − μ: its third derivatives are polynomials of degree 3 in x̂, with coefficients
    # up to 15, over σ³. |x̂| ≤ √n for the n ≤ 35 numbers of a mean (of 7: 19, else 207), σ ≥ 0.5, γ ≤ 1.5, and Σ|g| over
    # one mean is at most 35·1: 15·207·8·1.5·35 < 1.5e6 at worst. All other layers' are far smaller. Rounded: 105 terms
    # below 4, or below twice the largest output (a variance of 0 makes it 1e7), in 100 operations. So 2.5e-5 of size 1.
    bounds = {"third_derivative": 1.5e6, "scale": 105 * 100 * max(4, 2 * largest)}
    assert_gradients_close(f, x, d_inputs, what="inputs", **bounds)
    for parameter, gradient in gradients.items():
        assert_gradients_close(f, layer.parameters[parameter], gradient, what=parameter, **bounds)


@pytest.mark.parametrize("name", LAYERS)
def test_results_are_new_arrays_of_the_layer_s_dtype_and_shape(rng, name):
    for dtype in ("float32", "float64"):
        config.set_floatx(dtype)
        make, shape = LAYERS[name]
        layer = make(minidl_keras)
        x = rng.normal(size=(7, *shape)).astype(dtype)
        before = x.copy()
        outputs = layer(x, training=True)
        assert outputs.dtype == dtype and outputs.shape == (7, *layer.compute_output_shape((None, *shape))[1:])
        assert layer.backward(np.ones_like(outputs)).dtype == dtype
        assert all(gradient.dtype == dtype for gradient in layer.grads.values())
        assert_same(x, before)


# batch normalization ------------------------------------------------------------------------------------


def test_batch_normalization_by_hand():
    layer = BatchNormalization(momentum=0.75, epsilon=0.0, dtype="float64")
    x = np.array([[1.0, 10.0], [3.0, 30.0]])
    assert_same(layer(x, training=True), np.array([[-1.0, -1.0], [1.0, 1.0]]))  # means 2, 20; deviations 1, 10
    assert_same(np.asarray(layer.moving_mean), np.array([0.5, 5.0]))
    assert_same(np.asarray(layer.moving_variance), np.array([1.0, 25.75]))  # 0.75 + 0.25 · 1, 0.75 + 0.25 · 100
    # (3 − 0.5)/1, (5 − 5)/√25.75: by the moving statistics
    assert_close(layer(np.array([[3.0, 5.0]])), np.array([[2.5, 0.0]]), atol=10 * EPS * 10)


def test_forward_changes_the_moving_statistics_only_when_the_step_is_finished(rng):
    layer, x = built("batch normalization", rng)
    before = layer.get_weights()
    layer.forward(x, training=True)
    for weight, was in zip(layer.get_weights(), before, strict=True):
        assert_same(weight, was)
    layer.forward(x)  # at inference: nothing is left to take over
    layer.finish_step()
    assert_same(layer.get_weights()[2], before[2])
    layer.forward(x, training=True)
    layer.finish_step()
    assert np.abs(layer.get_weights()[2] - before[2]).max() > 1e-3


def test_a_frozen_batch_normalization_runs_at_inference(rng):
    layer, x = built("batch normalization", rng)
    expected, before = layer.forward(x), layer.get_weights()
    layer.trainable = False
    assert_same(layer(x, training=True), expected)
    for weight, was in zip(layer.get_weights(), before, strict=True):
        assert_same(weight, was)


def test_a_step_that_fails_changes_no_state(rng):
    model = Sequential([Input((3,)), Dense(4), BatchNormalization(), Dense(1)])
    model.compile("sgd", "mse")
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
    model.train_on_batch(x, y)
    before = model.get_weights()
    y[0] = 1e30  # its square is beyond float32
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match="loss became inf"):
        model.fit(x, y, verbose=0)
    for weight, was in zip(model.get_weights(), before, strict=True):
        assert_same(weight, was)


def test_state_goes_through_get_state_and_weights(rng):
    def new():
        model = Sequential([Input((3,)), BatchNormalization(name="normalization"), Dense(1)])
        model.compile("sgd", "mse")
        return model

    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
    first, second = new(), new()
    first.fit(x, y, verbose=0)
    second.set_state(first.get_state())
    assert_same(second.predict(x, verbose=0), first.predict(x, verbose=0))
    assert [w.shape for w in first.get_weights()] == [(3,)] * 4 + [(3, 1), (1,)]
    assert len(first.trainable_weights) == 4 and len(first.non_trainable_weights) == 2


# what each normalization does ---------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [-1, [1, 2]])
def test_layer_normalization_gives_each_sample_mean_0_and_variance_1(rng, axis):
    layer = LayerNormalization(axis=axis, epsilon=0.0, dtype="float64")
    outputs = layer(rng.normal(3, 2, size=(5, 4, 6)))
    over = (2,) if axis == -1 else (1, 2)
    # sums of 24 numbers below 20, each rounded a few times
    assert_close(outputs.mean(axis=over), np.zeros_like(outputs.mean(axis=over)), atol=24 * 20 * EPS)
    assert_close(outputs.var(axis=over), np.ones_like(outputs.var(axis=over)), atol=24 * 20 * EPS)


def test_rms_and_unit_normalization_by_hand():
    x = np.array([[3.0, 4.0], [0.0, 0.0]])
    assert_close(UnitNormalization(dtype="float64")(x), np.array([[0.6, 0.8], [0.0, 0.0]]), atol=2 * EPS)
    rms = np.sqrt(12.5)
    got = RMSNormalization(epsilon=0.0, dtype="float64").__call__(x[:1])
    assert_close(got, np.array([[3 / rms, 4 / rms]]), atol=4 * EPS)


def test_alpha_dropout_keeps_mean_and_variance():
    x = np.random.default_rng(1).normal(size=(400, 500))
    outputs = AlphaDropout(0.3, seed=1, dtype="float64")(x, training=True)
    # of 2e5 samples: a mean's standard error is 1/√2e5 = 0.0022, a variance's ≤ √(κ − 1)/√2e5 < 0.005; five of each
    assert abs(outputs.mean()) < 0.012 and abs(outputs.var() - 1) < 0.025


def test_activity_regularization_adds_the_penalty_over_the_batch(rng):
    config.set_floatx("float64")
    model = Sequential([Input((3,)), ActivityRegularization(l1=0.5, l2=0.25)])
    model.compile("sgd", "mse")
    x = rng.normal(size=(8, 3))
    penalty = (0.5 * np.abs(x).sum() + 0.25 * (x * x).sum()) / 8
    assert abs(model.evaluate(x, x, verbose=0) - penalty) < 1e-12 * penalty


@pytest.mark.parametrize("penalized", [1, 2])
def test_penalties_on_outputs_that_are_passed_on_reach_the_weights(rng, penalized):
    """The loss enters below the sigmoid; the penalties of the layers after it, which pass its outputs on, above it."""
    config.set_floatx("float64")
    tops = [ActivityRegularization(l1=0.3, l2=0.2) for _ in range(penalized)]
    model = Sequential([Input((3,)), Dense(1, activation="sigmoid"), *tops])
    model.compile(optimizers.SGD(1.0), "binary_crossentropy")
    x, y = rng.normal(size=(8, 3)), rng.integers(2, size=8).astype(float)
    before = model.get_weights()[0]
    model.train_on_batch(x, y)
    gradient = before - model.get_weights()[0]
    model.set_weights([before, np.zeros(1)])
    # |f‴|: a sigmoid's third derivative and its square's are below 1, |x| below 3, of two penalties; 24 roundings of 10
    bounds = {"third_derivative": 4 * 27, "scale": 24 * 10}
    kernel = model.layers[0].parameters["kernel"]
    assert_gradients_close(lambda: model.test_on_batch(x, y), kernel, gradient, **bounds)


# Normalization ------------------------------------------------------------------------------------------


def test_adapt_standardizes(rng):
    data = rng.normal(3, 2, size=(60, 4))
    layer = Normalization(dtype="float64")
    layer.adapt(data)
    assert_close(np.asarray(layer(data)), (data - data.mean(axis=0)) / data.std(axis=0), atol=20 * EPS * 4)
    back = Normalization(invert=True, dtype="float64")
    back.adapt(data)
    assert_close(back(layer(data)), data, atol=20 * EPS * np.abs(data).max())


def test_adapt_of_batches_is_that_of_the_whole(rng):
    data = rng.normal(3, 2, size=(60, 4))

    class Batches:  # as a PyDataset
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return data[i * 20 : (i + 1) * 20], None

    whole = Normalization(dtype="float64")
    whole.adapt(data)
    for batches in ([data[:7], data[7:50], data[50:]], iter([data[:31], data[31:]]), Batches()):
        layer = Normalization(dtype="float64")
        layer.adapt(batches)
        for ours, all_of_it in zip(layer.get_weights(), whole.get_weights(), strict=True):
            assert_close(ours, all_of_it, atol=60 * EPS * 25)  # sums of 60 squares below 25 a sample


def test_normalization_first_in_a_model_that_learns(rng):
    x = rng.normal(100, 30, size=(200, 3))
    layer = Normalization()
    layer.adapt(x)
    model = Sequential([Input((3,)), layer, Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    y = (x[:, 0] > 100).astype(float)
    losses = model.fit(x, y, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0] < 5
    assert model.count_params() == 3 + 3 + 1 + 4  # mean, variance and count too


def test_one_column_is_adapted_with_axis_none(rng):
    layer = Normalization(axis=None, input_shape=(1,))
    layer.adapt(rng.normal(size=30))
    assert Sequential([layer, Dense(1)]).predict(rng.normal(size=(5, 1)), verbose=0).shape == (5, 1)


def test_adapt_changes_nothing_when_the_data_are_wrong(rng):
    layer = Normalization()
    layer.adapt(rng.normal(size=(9, 4)))
    before = layer.get_weights()
    for data, error in (
        (rng.normal(size=(9, 3)), ValueError),
        ([], ValueError),
        ([[1.0, 2.0]], TypeError),
        (3, TypeError),
        ("data", TypeError),
        ([rng.normal(size=(9, 4)), rng.normal(size=(9, 3))], ValueError),
        (np.full((9, 4), np.nan), ValueError),
    ):
        with pytest.raises(error, match=r"normalization|data"):
            layer.adapt(data)
        for weight, was in zip(layer.get_weights(), before, strict=True):
            assert_same(weight, was)
    with pytest.raises(ValueError, match="were given"):
        Normalization(mean=0.0, variance=1.0).adapt(rng.normal(size=(9, 4)))


# draws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOISE)
def test_the_counter_moves_by_one_in_training_alone(rng, name):
    layer, x = built(name, rng)
    assert_same(layer(x), x)
    assert layer.seed_generator.state.tolist() == [5, 0]
    first, second = layer(x, training=True), layer(x, training=True)
    assert layer.seed_generator.state.tolist() == [5, 2]
    assert np.abs(first - second).max() > 0.01


def test_nothing_is_drawn_at_rate_0(rng):
    for layer in (GaussianNoise(0.0), GaussianDropout(0.0), AlphaDropout(0)):
        assert layer.seed_generator is None
        x = rng.normal(size=(3, 2)).astype(np.float32)
        assert_same(layer(x, training=True), x)


@pytest.mark.parametrize("stream", config.RANDOM_STREAMS)
@pytest.mark.parametrize("name", NOISE)
def test_every_stream_gives_noise(rng, name, stream):
    with config.using_random_stream(stream):
        layer, x = built(name, rng)
        assert np.isfinite(layer(x, training=True)).all()


# of TensorFlow 2.21.0: tf.random.stateless_normal(shape, [7, 3]) within jit_compile=True
XLA_NORMALS = {
    ((2, 3), "float64"): [0.2783987036660357, 0.4910295615610586, -1.4838006162101516, 1.2326989301010227,
                          -0.4128730608304537, -0.03208195399426414],
    ((3, 2), "float64"): [-1.1629190122633024, 0.49464316571815736, 0.3269524910793076, 1.4476862881904873,
                          -1.4266369097361633, -0.030845990495391745],
    ((3, 3), "float64"): [0.2783987036660357, 0.4910295615610586, -1.4838006162101516, 1.2326989301010227,
                          -0.4128730608304537, -0.03208195399426414, 0.9472538646696497, 1.1690986534186856,
                          -0.8131684493232474],
    ((3, 2), "float32"): [0.5655450224876404, -1.7402561902999878, -1.3821699619293213, 0.5879009962081909,
                          0.166540265083313, -0.09488612413406372],
}  # fmt: skip


@pytest.mark.parametrize(("shape", "dtype"), XLA_NORMALS)
def test_xla_s_normals(shape, dtype):
    with config.using_random_stream("tensorflow-xla"):
        got = random.step_normal(shape, 0.0, 1.0, (7, 3), dtype)
    expected = np.array(XLA_NORMALS[shape, dtype], dtype).reshape(shape)
    assert_close(got, expected, atol=2.4e-7 if dtype == "float32" else 0)


def test_xla_s_normals_are_normal_whatever_the_shape():
    for shape in ((), (1,), (7, 5), (5, 6), (300, 301)):
        with config.using_random_stream("tensorflow-xla"):
            z = random.step_normal(shape, 1.0, 2.0, (3, 0), "float32")
        assert z.shape == shape and z.dtype == np.float32
    # of 90,300 numbers the mean's standard error is 2/300, the deviation's 2/425; five of each
    assert abs(z.mean() - 1) < 0.034 and abs(z.std() - 2) < 0.024


def test_rate_1_fails_before_it_draws(rng):
    for layer in (GaussianDropout(1.0, seed=1), AlphaDropout(1.0, seed=1)):
        with pytest.raises(ZeroDivisionError, match="rate 1"):
            layer(rng.normal(size=(3, 2)), training=True)
        assert layer.seed_generator.state.tolist() == [1, 0]
        layer(rng.normal(size=(3, 2)))


# configs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_a_config_makes_the_layer_again(rng, name):
    layer, x = built(name, rng)
    again = layers.deserialize(layers.serialize(layer))
    assert again.get_config() == layer.get_config() and again.built
    again.set_weights(layer.get_weights())
    if name != "normalization array":  # an array is a list in the config, and rounded to float32, as in Keras
        assert_same(again.forward(x, training=True), layer.forward(x, training=True))


def test_a_layer_of_one_s_own_needs_custom_objects():
    class Mine(layers.Identity):
        pass

    form = layers.serialize(Mine())
    assert form["class_name"] == form["registered_name"] == "Mine"
    with pytest.raises(ValueError, match="Unknown layer 'Mine' of module"):
        layers.deserialize(form)
    assert isinstance(layers.deserialize(form, {"Mine": Mine}), Mine)


# misuse -------------------------------------------------------------------------------------------------

X = np.ones((2, 4))
MISUSE = {
    "a relu's slope": (lambda: ReLU(negative_slope=-1.0), ValueError, "negative_slope"),
    "a relu's limit": (lambda: ReLU(-1.0), ValueError, "max_value"),
    "a relu's threshold": (lambda: ReLU(threshold=None), ValueError, "threshold"),
    "a leaky slope": (lambda: LeakyReLU(None), ValueError, "negative_slope"),
    "alpha of elu": (lambda: ELU(None), ValueError, "alpha"),
    "unknown activation": (lambda: Activation("rellu"), ValueError, "relu"),
    "softmax axis": (lambda: Softmax(axis=4)(X), ValueError, "out of bounds"),
    "softmax axis of text": (lambda: Softmax(axis="a"), TypeError, "axis"),
    "softmax mask": (lambda: Softmax()(X, mask=X > 0), NotImplementedError, "mask"),
    "shared axes": (lambda: PReLU(shared_axes=[3])(X), ValueError, "out of bounds"),
    "shared axis 0": (lambda: PReLU(shared_axes=0), ValueError, "shared_axes"),
    "data format": (lambda: Flatten("x"), ValueError, "data_format"),
    "two unknown sizes": (lambda: Reshape((-1, -1)), ValueError, "one unknown"),
    "another size": (lambda: Reshape((3,))(X), ValueError, "do not make"),
    "scale of text": (lambda: Rescaling("a"), TypeError, "scale"),
    "scale of another width": (lambda: Sequential([Input((4,)), Rescaling([1.0, 2.0])]), ValueError, "broadcast"),
    "mean alone": (lambda: Normalization(mean=1.0), ValueError, "both"),
    "mean of another shape": (lambda: Normalization(mean=[1.0], variance=1.0), ValueError, "one shape"),
    "mean of more axes": (lambda: Normalization(mean=[[1.0]], variance=[[1.0]]), ValueError, "dimensions"),
    "mean of another width": (lambda: Normalization(mean=[1.0, 2], variance=[1.0, 2])(X), ValueError, "fit"),
    "normalization axis": (lambda: Normalization(axis=3)(X), ValueError, "axis"),
    "normalization of the batch": (lambda: Normalization(axis=0)(X), ValueError, "must be known"),
    "batch axis": (lambda: BatchNormalization(axis=3)(X), ValueError, "out of bounds"),
    "batch axes": (lambda: BatchNormalization(axis=[1]), TypeError, "axis"),
    "synchronized": (lambda: BatchNormalization(synchronized=True), NotImplementedError, "synchronized"),
    "renorm": (lambda: BatchNormalization(renorm=True, renorm_clipping={"max": 1}), ValueError, "renorm_clipping"),
    "renorm limits": (lambda: BatchNormalization(renorm=True, renorm_clipping={"dmax": -1}), ValueError, "dmax"),
    "batch mask": (lambda: BatchNormalization()(X, mask=X > 0), NotImplementedError, "mask"),
    "groups": (lambda: layers.GroupNormalization(3)(X), ValueError, "must divide"),
    "no groups": (lambda: layers.GroupNormalization(0), ValueError, "groups"),
    "group axes": (lambda: layers.GroupNormalization(2, axis=[1]), TypeError, "axis"),
    "layer axis": (lambda: LayerNormalization(axis=3)(X), ValueError, "out of bounds"),
    "layer axis of text": (lambda: LayerNormalization(axis="a"), TypeError, "axis"),
    "an axis twice": (lambda: LayerNormalization(axis=[1, -1])(X), ValueError, "twice"),
    "unit axis": (lambda: UnitNormalization(axis=4)(X), ValueError, "out of bounds"),
    "stddev": (lambda: GaussianNoise(2.0), ValueError, "stddev"),
    "rate": (lambda: GaussianDropout(1.5), ValueError, "rate"),
    "alpha rate": (lambda: AlphaDropout(-0.5), ValueError, "rate"),
    "noise shape": (lambda: AlphaDropout(0.5, noise_shape=(3, 4))(X, training=True), ValueError, "noise_shape"),
    "penalty": (lambda: ActivityRegularization(l1=-1.0), ValueError, "l1"),
    "unknown argument": (lambda: GaussianNoise(0.1, sed=3), ValueError, "Did you mean 'seed'"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISUSE)
def test_misuse(case):
    call, error, message = MISUSE[case]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "name", ["prelu", "batch normalization", "layer normalization", "rms normalization", "normalization"]
)
def test_another_width_than_it_was_built_for(rng, name):
    layer, _ = built(name, rng)
    for shape in ((2, 4), (2, 3, 5)):
        with pytest.raises(ValueError, match="built for inputs"):
            layer(np.ones(shape))


def test_rms_scaling_is_deprecated():
    with pytest.warns(UserWarning, match="Use RMSNormalization"):
        LayerNormalization(rms_scaling=True)


def test_alpha_is_the_old_name_of_the_slope():
    with pytest.warns(UserWarning, match="negative_slope"):
        assert LeakyReLU(alpha=0.1).negative_slope == 0.1


def test_set_dtype_leaves_the_count_an_integer():
    model = Sequential([Input((2,)), Normalization(), BatchNormalization()])
    model.set_dtype("float64")
    assert [str(w.dtype) for w in model.get_weights()] == ["float64", "float64", "int64"] + ["float64"] * 4


def test_softmax_of_several_axes_is_no_end_with_logits(rng):
    assert Softmax(axis=[1]).activation is not None and Softmax(axis=[1, 2]).activation is None
    x = rng.normal(size=(2, 3, 4))
    assert_same(Softmax(axis=[1, 2], dtype="float64")(x), ops.softmax(x, axis=(1, 2)))
