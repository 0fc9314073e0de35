"""What a user can get wrong: refused with a message that says what was expected, what came and what to do.

A model that refused something is as it was.
"""

import numpy as np
import pytest
from helpers import assert_same

import minidl
from minidl import callbacks, config, fused, initializers, losses, metrics, regularizers, training
from minidl.layers import Dense, Dropout, Input
from minidl.models import Model, Sequential
from minidl.optimizers import Adam

X = np.linspace(-1, 1, 24).reshape(6, 4)
Y = np.array([0, 1, 0, 1, 1, 0])


def with_value(array, place, value):
    array = np.array(array, float)
    array[place] = value
    return array


def new_model(units=1, **arguments):
    model = Sequential([Input((4,)), Dense(3, "relu"), Dropout(0.5), Dense(units, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", **arguments)
    return model


@pytest.fixture
def model():
    model = new_model(metrics=["accuracy"])
    model.fit(X, Y, verbose=0)  # so that the optimizer has a state to lose
    return model


@pytest.fixture(autouse=True)
def refused_without_a_trace(request):
    """Whatever a test does with the fixture `model`, its weights, optimizer and seeds stay as they were."""
    if "model" not in request.fixturenames or request.node.get_closest_marker("filterwarnings"):
        yield
        return
    model = request.getfixturevalue("model")

    def state():
        adam, seeds = model.optimizer, model.layers[1].seed_generator.state
        return [np.array(a) for a in (model.arena.theta, adam.m, adam.v, adam.iterations, seeds)]

    before = state()
    yield
    for got, expected in zip(state(), before, strict=True):
        assert_same(got, expected)


# x -------------------------------------------------------------------------------------------------------

BAD_X = {
    "width": (X[:, :3], ValueError, r"x: the model takes 4 features a sample; got shape \(6, 3\), 3 features"),
    "1-D": (X[0], ValueError, r"x: expected shape \(samples, features\); got \(4,\)\. A single sample is x\[None, :\]"),
    "3-D": (X[None], ValueError, r"x: expected shape \(samples, features\); got \(1, 6, 4\)"),
    "scalar": (3.0, ValueError, r"x: expected an array with a row for each sample; got the single value"),
    "None": (None, ValueError, r"x: the data are missing\. Pass an array with a row for each sample"),
    "no rows": (X[:0], ValueError, r"x: expected at least one sample; got an empty array of shape \(0, 4\)"),
    "no columns": (X[:, :0], ValueError, r"x: expected at least one sample; got an empty array of shape \(6, 0\)"),
    "empty list": ([], ValueError, r"x: expected at least one sample; got an empty array of shape \(0,\)"),
    "NaN": (
        with_value(X, (2, 1), np.nan),
        ValueError,
        r"x: expected finite numbers; x\[2, 1\] is nan \(1 such in all\)\. Clean the data, or pass check_finite=False",
    ),
    "infinity": (with_value(X, ([1, 4], [3, 0]), -np.inf), ValueError, r"x\[1, 3\] is -inf \(2 such in all\)"),
    "beyond float32": (
        with_value(X, (5, 0), 1e39),
        ValueError,
        r"x\[5, 0\] is 1e\+39, beyond the range of float32 \(1 such in all\)",
    ),
    "text": (X.astype(str), TypeError, r"x: expected real numbers .*; got dtype <U\d+\. Convert text"),
    "objects": (np.array([[None] * 4] * 6), TypeError, r"x: expected real numbers .*; got dtype object"),
    "complex": (X.astype(complex), TypeError, r"x: expected real numbers .*; got dtype complex128"),
    "dates": (np.zeros((6, 4), "datetime64[s]"), TypeError, r"x: expected real numbers .*; got dtype datetime64"),
    "ragged": (
        [[1, 2, 3, 4], [1, 2]],
        ValueError,
        r"x: expected an array of numbers with rows of one length; .*\(2,\)",
    ),
    "dict": (
        {"x": X},
        ValueError,
        r"x: expected an array, or a dict with the one input's name 'input_layer'",
    ),
    "list of two": ([X, X], ValueError, r"x: expected shape \(samples, features\); got \(2, 6, 4\)"),
}


@pytest.mark.parametrize("case", BAD_X)
@pytest.mark.parametrize(
    "method", ["fit", "evaluate", "train_on_batch", "test_on_batch", "predict", "predict_on_batch", "validation"]
)
def test_bad_x(model, method, case):
    x, error, message = BAD_X[case]
    if method == "validation":
        with pytest.raises(error, match=f"^validation_data: .*{message}"):
            model.fit(X, Y, validation_data=(x, Y), verbose=0)
    else:
        arguments = (x,) if method.startswith("predict") else (x, Y)
        with pytest.raises(error, match=message):
            getattr(model, method)(*arguments)


def test_bad_x_for_a_layer():
    layer = Dense(2)
    layer.build((None, 4))
    with pytest.raises(ValueError, match=r"dense: built for 4 features; got inputs of shape \(None, 3\)"):
        layer(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"A single sample is x\[None, :\]"):
        layer(np.ones(4))


# y -------------------------------------------------------------------------------------------------------

BAD_Y = {
    "None": (None, ValueError, r"y: the labels are missing\. Pass an array with one row a sample"),
    "length": (Y[:5], ValueError, r"x and y must have the same number of samples; x has 6, y has 5"),
    "row": (Y[None], ValueError, r"x and y must have the same number of samples; x has 6, y has 1"),
    "units": (np.ones((6, 2)), ValueError, r"y: the model has 1 outputs, so y must be \(6, 1\); got \(6, 2\)"),
    "3-D": (np.ones((6, 1, 2)), ValueError, r"y: the model has 1 outputs, so y must be \(6, 1\); got \(6, 1, 2\)"),
    "2": (
        Y + 1,
        ValueError,
        r"binary_crossentropy: labels must lie in \[0, 1\]; y\[1, 0\] is 2\.0 \(3 such in all\)\. Code two classes",
    ),
    "-1": (2 * Y - 1, ValueError, r"labels must lie in \[0, 1\]; y\[0, 0\] is -1\.0 \(3 such in all\)"),
    "NaN": (with_value(Y, 2, np.nan), ValueError, r"y: expected finite numbers; y\[2\] is nan \(1 such in all\)"),
    "infinity": (with_value(Y, 3, np.inf), ValueError, r"y: expected finite numbers; y\[3\] is inf"),
    "text": (Y.astype(str), TypeError, r"y: expected real numbers .*; got dtype <U"),
    "scalar": (1, ValueError, r"y: expected an array with a row for each sample; got the single value"),
    "empty": ([], ValueError, r"y: expected at least one sample; got an empty array of shape \(0,\)"),
}


@pytest.mark.parametrize("case", BAD_Y)
@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_bad_y(model, method, case):
    y, error, message = BAD_Y[case]
    with pytest.raises(error, match=message):
        getattr(model, method)(X, y)


def test_one_dimensional_y_of_a_model_with_several_outputs():
    with pytest.raises(ValueError, match=r"y: the model has 3 outputs, so y must be \(6, 3\); got \(6,\)"):
        new_model(units=3).fit(X, Y)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_check_finite_false_lets_everything_through(model):
    x = with_value(X, (2, 1), np.nan)
    with pytest.raises(ValueError, match="check_finite=False"):
        model.predict(x, verbose=0)
    assert np.isnan(model.predict(x, verbose=0, check_finite=False)).tolist() == [[i == 2] for i in range(6)]
    assert np.isnan(model.evaluate(x, Y, verbose=0, check_finite=False)[0])
    history = model.fit(X, with_value(Y, 2, np.nan), verbose=0, check_finite=False, class_weight={0: 2})
    assert np.isnan(history.history["loss"]).all()
    assert np.isnan(model.get_weights()[-1]).all()  # as Keras does


# Weights of samples and classes --------------------------------------------------------------------------

BAD_WEIGHTS = {
    "both": (
        {"sample_weight": np.ones(6), "class_weight": {0: 1}},
        ValueError,
        r"sample_weight and class_weight cannot be given at the same time; multiply them first",
    ),
    "length": (
        {"sample_weight": np.ones(5)},
        ValueError,
        r"sample_weight must have one weight a sample, shape \(6,\); got \(5,\)",
    ),
    "rank": ({"sample_weight": np.ones((6, 4))}, ValueError, r"sample_weight must have one weight .*got \(6, 4\)"),
    "NaN": ({"sample_weight": with_value(np.ones(6), 4, np.nan)}, ValueError, r"sample_weight\[4\] is nan"),
    "text": ({"sample_weight": ["a"] * 6}, TypeError, r"sample_weight: expected real numbers"),
    "scalar": ({"sample_weight": 2.0}, ValueError, r"sample_weight: expected an array with a row for each sample"),
    "list": ({"class_weight": [1, 2]}, TypeError, r"class_weight must be a dict of class: weight; got list"),
    "class": ({"class_weight": {"0": 1.0}}, ValueError, r"class_weight: a class must be an integer.*; got '0'"),
    "fraction": ({"class_weight": {0.5: 1.0}}, ValueError, r"class_weight: a class must be an integer.*; got 0\.5"),
    "infinite": ({"class_weight": {1: np.inf}}, ValueError, r"class_weight: 1 must be finite; got inf"),
    "text weight": ({"class_weight": {1: "2"}}, ValueError, r"class_weight: 1 must be a number; got '2' of type str"),
    "bool weight": (
        {"class_weight": {1: True}},
        ValueError,
        r"class_weight: 1 must be a number; got True of type bool",
    ),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
@pytest.mark.parametrize("method", ["fit", "train_on_batch"])
def test_bad_weights_of_samples_and_classes(model, method, case):
    arguments, error, message = BAD_WEIGHTS[case]
    with pytest.raises(error, match=message):
        getattr(model, method)(X, Y, **arguments)


# Arguments of fit and its like ---------------------------------------------------------------------------

NOT_POSITIVE = [0, -1, 2.0, True, "8", np.nan]
BAD_FIT = [
    *[({"batch_size": v}, ValueError, "fit: batch_size must be a positive integer; got ") for v in NOT_POSITIVE],
    *[({"validation_batch_size": v}, ValueError, "fit: validation_batch_size must be a positive") for v in (0, 1.5)],
    *[
        ({"epochs": v}, ValueError, "fit: epochs must be a non-negative integer; got ")
        for v in (-1, 1.5, True, False, "1", None)
    ],
    *[({"initial_epoch": v}, ValueError, "fit: initial_epoch must be a non-negative integer") for v in (-1, 0.5, True)],
    *[({"validation_freq": v}, ValueError, "fit: validation_freq must be an? .*integer") for v in (0, [1, "2"], (2,))],
    *[({"verbose": v}, ValueError, "verbose must be 'auto', 0, 1 or 2; got ") for v in (3, -1, "yes", None)],
    *[({"shuffle": v}, ValueError, "fit: shuffle must be True, False or 'batch'; got ") for v in ("epoch", None, 2)],
    *[
        ({"validation_split": v}, ValueError, r"validation_split must be in \[0, 1\); got ")
        for v in (1, 1.0, -0.1, 1.5)
    ],
    ({"validation_split": np.nan}, ValueError, "fit: validation_split must be finite; got nan"),
    ({"validation_split": "0.2"}, ValueError, "fit: validation_split must be a number; got '0.2' of type str"),
    ({"validation_split": True}, ValueError, "fit: validation_split must be a number; got True of type bool"),
    (
        {"validation_split": 0.99},
        ValueError,
        r"validation_split=0\.99 of 6 samples leaves no data to train on or none to validate on",
    ),
    *[
        (
            {"validation_data": v},
            ValueError,
            rf"validation_data must be \(x, y\) or \(x, y, sample_weight\); got {kind}",
        )
        for v, kind in ((X, "ndarray"), ((X,), "tuple"), ((X, Y, Y, Y), "tuple"), ({"x": X}, "dict"))
    ],
    ({"validation_data": (X, Y[:3])}, ValueError, "^validation_data: x and y must have the same number of samples"),
    (
        {"validation_data": (X, Y + 1)},
        ValueError,
        r"^validation_data: binary_crossentropy: labels must lie in \[0, 1\]",
    ),
    ({"validation_data": (X, Y, Y[:3])}, ValueError, "^validation_data: sample_weight must have one weight a sample"),
    *[
        ({"callbacks": v}, TypeError, "callbacks must be .*minidl.callbacks.Callback objects; got ")
        for v in (["stop"], [callbacks.History], 5, "stop", lambda: None)
    ],
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_FIT, ids=[f"{i}-{next(iter(a))}" for i, (a, *_) in enumerate(BAD_FIT)]
)
def test_bad_arguments_of_fit(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model.fit(X, Y, **{"verbose": 0, **arguments})


@pytest.mark.parametrize("method", ["evaluate", "predict"])
@pytest.mark.parametrize("value", NOT_POSITIVE)
def test_bad_batch_size(model, method, value):
    with pytest.raises(ValueError, match=f"{method}: batch_size must be a positive integer; got "):
        getattr(model, method)(X, **({"y": Y} if method == "evaluate" else {}), batch_size=value)


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_unknown_keyword(model, method):
    error = ValueError if method == "evaluate" else TypeError  # as Keras's, whose evaluate takes **kwargs
    with pytest.raises(error, match=r"(unexpected|unrecognized) keyword arguments?:? 'batchsize'"):
        getattr(model, method)(X, batchsize=3)


# What Keras takes and minidl does not --------------------------------------------------------------------

UNSUPPORTED = [
    ("Dense", lambda **a: Dense(3, **a), "lora_rank", 2),
    ("Dense", lambda **a: Dense(3, **a), "lora_alpha", 0.5),
    ("Dense", lambda **a: Dense(3, **a), "quantization_config", {"mode": "int8"}),
    ("Dense", lambda **a: Dense(3, **a), "autocast", False),
    ("Input", lambda **a: Input((4,), **a), "batch_size", 8),
    ("Input", lambda **a: Input((4,), **a), "sparse", True),
    ("Input", lambda **a: Input((4,), **a), "ragged", True),
    ("Input", lambda **a: Input((4,), **a), "tensor", np.ones(3)),
    ("Input", lambda **a: Input((4,), **a), "optional", True),
]


@pytest.mark.parametrize(
    ("where", "call", "name", "value"), UNSUPPORTED, ids=[f"{w}-{n}" for w, _, n, _ in UNSUPPORTED]
)
def test_unsupported_arguments_of_keras(where, call, name, value):
    message = rf"^{where}: {name}=.* is an argument of Keras that minidl does not support \(.+\); leave it at "
    with pytest.raises(NotImplementedError, match=message):
        call(**{name: value})


@pytest.mark.parametrize(
    ("where", "make"),
    [("Dense", lambda **a: Dense(3, **a)), ("Dropout", lambda **a: Dropout(0.5, **a)), ("Adam", Adam)],
)
def test_unknown_arguments(where, make):
    with pytest.raises(ValueError, match=f"^{where}: unrecognized keyword arguments: 'colour'"):
        make(colour="red")


def test_unknown_arguments_of_summary():
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'colour'"):
        new_model().summary(colour="red")


def test_trainable_that_is_no_bool():
    for make in (lambda: Dense(3, trainable="no"), lambda: Sequential(trainable=2)):
        with pytest.raises(ValueError, match="trainable must be True or False; got "):
            make()


def test_a_layer_called_on_a_layer():
    with pytest.raises(TypeError, match=r"dense: called on the layer 'dense_1' itself; call it on what that layer ret"):
        Dense(3)(Dense(2))


@pytest.mark.parametrize("what", ["inputs", "outputs"])
def test_a_model_of_several_inputs_or_outputs(what):
    x = Input((4,))
    good = {"inputs": x, "outputs": Dense(2)(x)}
    for bad in ([good[what]] * 2, {"a": good[what]}):
        with pytest.raises(NotImplementedError, match=f"Model: several {what}: minidl trains one chain of layers"):
            Model(**{**good, what: bad})


def test_bad_chains():
    x, layer = Input((4,)), Dense(4)
    for inputs, outputs in ((None, None), (x, np.ones((2, 4))), (layer, layer(x)), (x, layer)):
        with pytest.raises(TypeError, match="Model: inputs must be an Input, and outputs what a layer returned"):
            Model(inputs, outputs)
    with pytest.raises(ValueError, match="Model: outputs stem from the Input 'input_layer', not from 'input_layer_1'"):
        Model(Input((4,)), layer(x))
    with pytest.raises(ValueError, match=r"dense: built for 4 features; got inputs of shape \(None, 3\)"):
        layer(Input((3,)))
    with pytest.raises(NotImplementedError, match="a layer stands in it twice"):
        Model(x, layer(layer(x)))


def test_a_model_with_a_call_of_its_own():
    class Mine(Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(NotImplementedError, match=r"Mine: a model with a call\(\) of its own needs autograd"):
        Mine()


# Layers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [-0.1, 1.0001, 5, np.nan, np.inf, "0.5", None, True, False, [0.5]])
def test_bad_rate(rate):
    with pytest.raises(
        ValueError, match=r"Dropout: rate must be a number in \[0, 1\]; got .*fraction dropped, not kept"
    ):
        Dropout(rate)


@pytest.mark.parametrize("rate", [0, 1, 0.0, 1.0])
def test_rates_at_keras_s_limits_are_taken(rate):
    Dropout(rate)


@pytest.mark.parametrize("noise_shape", [4, "ab", (0, None), (1.5,), (True, 1)])
def test_bad_noise_shape(noise_shape):
    with pytest.raises(ValueError, match="Dropout: noise_shape must be "):
        Dropout(0.5, noise_shape=noise_shape)


@pytest.mark.parametrize("noise_shape", [(1,), (None, 1, 1), (3, None), (None, 2)])
def test_noise_shape_that_does_not_fit_the_inputs(noise_shape):
    layer = Dropout(0.5, noise_shape=noise_shape)
    with pytest.raises(
        ValueError, match=r"dropout: noise_shape=\(.*\) does not broadcast over inputs of shape \(6, 4\)"
    ):
        layer(X, training=True)


def test_bad_seed():
    with pytest.raises(ValueError, match="seed must be a Python int or None; got 'a'"):
        Dropout(0.5, seed="a")


@pytest.mark.parametrize("units", [0, -1, 2.0, "3", None, True])
def test_bad_units(units):
    with pytest.raises(ValueError, match="Dense: units must be a positive integer; got "):
        Dense(units)


@pytest.mark.parametrize("shape", [4, (), (0, 5), (0,), (-1,), (None,), ("4",), (2.5,), None, (True,)])
def test_bad_input_shape(shape):
    with pytest.raises(
        ValueError,
        match=r"Input: (the shape of a sample|the number of features|a size in the shape) must be ",
    ):
        Input(shape)


def test_bad_batch_shape():
    for arguments in ({"batch_shape": (8, 4)}, {"shape": (4,), "batch_shape": (None, 4)}):
        with pytest.raises(ValueError, match=r"Input: give shape, or batch_shape=\(None, features\)"):
            Input(**arguments)


@pytest.mark.parametrize("input_shape", [4, (4,), None, "ab"])
def test_bad_shape_to_build_for(input_shape):
    for thing in (Sequential([Dense(2)]), Dense(2)):
        with pytest.raises(
            ValueError, match=r"the shape of a batch must be \(None, features\), such as \(None, 4\); got "
        ):
            thing.build(input_shape)


def test_unknown_width_to_build_for():
    with pytest.raises(ValueError, match="the number of features must be a positive integer; got None"):
        Dense(2).build((None, None))


@pytest.mark.parametrize("name", ["a/b", 3])
def test_bad_layer_name(name):
    with pytest.raises(ValueError, match=r"Dense: name must be a string without '/'; got "):
        Dense(1, name=name)


@pytest.mark.parametrize("dtype", ["float16", "int32", "mixed_float16", "nonsense", 5])
def test_bad_dtype(dtype):
    with pytest.raises(ValueError, match=r"dtype must be one of float32, float64; got "):
        Dense(1, dtype=dtype)
    with pytest.raises(ValueError, match=r"dtype must be one of float32, float64; got "):
        config.set_floatx(dtype)


@pytest.mark.parametrize("value", [0, 0.5, -1e-7, np.nan])
def test_bad_epsilon(value):
    with pytest.raises(ValueError, match=r"set_epsilon: value must be in \(0, 0\.5\); got "):
        config.set_epsilon(value)


@pytest.mark.parametrize("what", ["kernel", "bias", "count_params", "set_weights"])
def test_unbuilt_layer(what):
    layer = Dense(3)
    with pytest.raises(
        ValueError, match=rf"{what}: layer 'dense' is not built, so it has no weights yet\. Give its input"
    ):
        layer.set_weights([]) if what == "set_weights" else getattr(
            layer, what
        )() if what == "count_params" else getattr(layer, what)


# Unknown names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(1, activation="reluu"), r"Unknown activation: 'reluu'\. Did you mean .*'relu'"),
        (lambda: Dense(1, kernel_regularizer="l3"), r"Unknown regularizer: 'l3'\. Did you mean .*'l[12]'"),
        (
            lambda: Dense(1, kernel_initializer="glorot_unifrm"),
            r"initializer: 'glorot_unifrm'\. Did you mean 'glorot_uniform'",
        ),
        (lambda: Dense(1, bias_initializer="zeroes"), r"Unknown initializer: 'zeroes'\. Did you mean .*'zeros'"),
        (
            lambda: new_model().compile("adm", "bce"),
            r"Unknown optimizer: 'adm'\. Did you mean .*'adam'.* Known: adadelta, adagrad, adam, adamax, adamw, nadam",
        ),
        (
            lambda: new_model().compile("adam", "binary_crosentropy"),
            r"loss: 'binary_crosentropy'\. Did you mean 'binary_cros",
        ),
        (lambda: new_model(metrics=["acuracy"]), r"Unknown metric: 'acuracy'\. Did you mean 'accuracy'"),
        (
            lambda: config.set_random_stream("tensorflw"),
            r"Unknown random stream: 'tensorflw'\. Did you mean 'tensorflow'",
        ),
        (lambda: regularizers.get(abs), r"Unknown regularizer: .*a bare function has no gradient that minidl knows"),
        (lambda: losses.get(3), r"Unknown loss: 3"),
        (lambda: minidl.optimizers.get(3), r"Unknown optimizer: 3"),
        (lambda: metrics.get(3), r"Unknown metric: 3"),
        (lambda: initializers.get(3), r"An initializer must be a name.*; got 3"),
    ],
)
def test_unknown_names(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Numbers -------------------------------------------------------------------------------------------------

FACTORS = [
    ("L1", "l1", regularizers.L1),
    ("L2", "l2", regularizers.L2),
    ("L1L2", "l1", regularizers.L1L2),
    ("L1L2", "l2", regularizers.L1L2),
]


@pytest.mark.parametrize(("where", "name", "make"), FACTORS)
@pytest.mark.parametrize("value", [-0.01, np.nan, np.inf])
def test_bad_penalty_factor(where, name, make, value):
    with pytest.raises(ValueError, match=f"^{where}: {name} must be finite and at least 0; got {value}"):
        make(**{name: value})


@pytest.mark.parametrize(("where", "name", "make"), FACTORS)
@pytest.mark.parametrize("value", ["0.1", True, [0.1]])
def test_penalty_factor_that_is_no_number(where, name, make, value):
    with pytest.raises(ValueError, match=f"^{where}: {name} must be a number; got .* of type {type(value).__name__}"):
        make(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": -1}, "learning_rate must be finite and at least 0; got -1"),
        ({"learning_rate": np.nan}, "learning_rate must be finite and at least 0; got nan"),
        ({"learning_rate": "0.1"}, "learning_rate must be a number; got '0.1' of type str"),
        ({"learning_rate": True}, "learning_rate must be a number; got True of type bool"),
        ({"learning_rate": lambda: 0.1}, "learning_rate must be a number; got .* of type function"),
        ({"beta_1": 1}, r"beta_1.* must be in \[0, 1\); got 1"),
        ({"beta_2": 1.5}, r"beta_2.* must be in \[0, 1\); got 1\.5"),
        ({"beta_2": 1 - 1e-9}, r"beta_2, rounded to float32, must be in \[0, 1\); got 0\.999999999"),
        ({"beta_1": -0.1}, "beta_1 must be finite and at least 0; got -0.1"),
        ({"beta_1": None}, "beta_1 must be a number; got None of type NoneType"),
        ({"epsilon": -1e-7}, "epsilon must be finite and at least 0; got -1e-07"),
        ({"epsilon": "small"}, "epsilon must be a number; got 'small' of type str"),
    ],
)
def test_bad_arguments_of_adam(arguments, message):
    with pytest.raises(ValueError, match="^Adam: " + message):
        Adam(**arguments)


@pytest.mark.parametrize("value", [-1.0, np.inf, "0.1", False])
def test_bad_learning_rate_to_set(model, value):
    with pytest.raises(ValueError, match="Adam: learning_rate must be "):
        model.optimizer.learning_rate = value
    assert model.optimizer.learning_rate == float(np.float32(0.001))


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, "0.1", True])
def test_bad_label_smoothing(value):
    with pytest.raises(ValueError, match="BinaryCrossentropy: label_smoothing must be "):
        losses.BinaryCrossentropy(label_smoothing=value)


@pytest.mark.parametrize("value", [0.0, 1.0, -1, np.nan])
def test_bad_threshold(value):
    with pytest.raises(ValueError, match="BinaryAccuracy: threshold must be strictly between 0 and 1; got "):
        metrics.BinaryAccuracy(threshold=value)


# Losses and metrics called directly ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda y, p: losses.BinaryCrossentropy()(y, p),
        lambda y, p: losses.binary_crossentropy(y, p),
        lambda y, p: metrics.BinaryAccuracy().update_state(y, p),
        lambda y, p: metrics.BinaryCrossentropy().update_state(y, p),
    ],
)
def test_labels_and_predictions_of_different_shapes(call):
    with pytest.raises(ValueError, match=r"y_true and y_pred must have one shape; got \(3, 1\) and \(2, 1\)"):
        call(np.ones((3, 1)), np.ones((2, 1)))


def test_loss_called_with_bad_labels_or_weights():
    loss = losses.BinaryCrossentropy()
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 1\]; y\[1\] is 3\.0"):
        loss([0, 3], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"sample_weight must have one weight a sample, shape \(2,\); got \(3,\)"):
        loss([0, 1], [0.5, 0.5], [1, 2, 3])


# Models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [Dense(1), 3, "dense"])
def test_layers_that_are_no_list(layers):
    with pytest.raises(TypeError, match=r"Sequential takes a list of layers; got .* of type "):
        Sequential(layers)


@pytest.mark.parametrize("layer", [3, "dense", None, Dense, [Dense(1)]])
def test_what_is_no_layer(layer):
    with pytest.raises(TypeError, match=r"Sequential takes minidl layers; got .* of type "):
        Sequential([Input((4,)), layer])


def test_bad_model_name():
    with pytest.raises(ValueError, match="Sequential: name must be a string; got 3"):
        Sequential(name=3)


def test_input_not_first():
    for layers in ([Dense(1), Input((4,))], [Input((4,)), Input((4,)), Dense(1)]):
        with pytest.raises(ValueError, match="an Input can only come first, and once"):
            Sequential(layers)


def test_bad_input_shape_of_a_first_layer():
    with pytest.raises(ValueError, match=r"dense: the shape of a sample must be a tuple, such as \(4,\); got 4"):
        Sequential([Dense(1, input_shape=4)])


def test_two_layers_of_one_name():
    with pytest.raises(ValueError, match="layer names must differ, and 'a' is taken; pass another name"):
        Sequential([Dense(1, name="a"), Dense(1, name="a")])
    layer = Dense(4)
    with pytest.raises(ValueError, match="layer names must differ"):
        Sequential([layer, layer])


def test_layers_of_different_dtypes():
    with pytest.raises(ValueError, match=r"all layers must have one dtype; got \['float32', 'float64'\]"):
        Sequential([Input((4,)), Dense(1), Dense(1, dtype="float64")])


def test_a_width_that_was_built_differently(model):
    with pytest.raises(ValueError, match=r"built for inputs of shape \(4,\); got \(5,\)"):
        model.build((None, 5))


@pytest.mark.parametrize("what", ["arena", "input_shape", "output_shape", "count_params", "set_weights"])
def test_unbuilt_model(what):
    model = Sequential([Dense(1)])
    with pytest.raises(ValueError, match=rf"{what}: model 'sequential' is not built.*Put Input\(shape=\(features,\)\)"):
        value = getattr(model, what)
        value(*[[]] * (what == "set_weights"))


def test_a_model_without_layers():
    model = Sequential()
    for call in (
        lambda: model.build((None, 4)),
        lambda: model.predict(X),
        lambda: Sequential([Input((4,))]).predict(X),
    ):
        with pytest.raises(ValueError, match=r"a model without layers .*; add one first"):
            call()


@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_uncompiled(method):
    model = Sequential([Input((4,)), Dense(1)])
    with pytest.raises(
        ValueError, match=rf"{method}: model 'sequential' is not compiled\. Call compile\(optimizer='adam'"
    ):
        getattr(model, method)(X, Y)


@pytest.mark.parametrize("what", ["optimizer", "loss", "metrics", "compiled_metrics"])
def test_uncompiled_properties(what):
    with pytest.raises((ValueError, AttributeError), match=r"not compiled|no attribute"):
        getattr(Sequential([Input((4,)), Dense(1)]), what)


@pytest.mark.parametrize("value", ["accuracy", metrics.Mean()])
def test_metrics_that_are_no_list(value):
    with pytest.raises(ValueError, match=r"compile: metrics must be a list; got .*Write metrics="):
        new_model(metrics=value)


def test_an_optimizer_for_two_models(model):
    other = Sequential([Input((4,)), Dense(1, activation="sigmoid")])
    other.compile(model.optimizer, "bce")
    with pytest.raises(ValueError, match=r"holds the state of another model.*compile the model with a new optimizer"):
        other.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "positive integer; got 0"),
        ("80", "positive integer; got '80'"),
        (True, "got True"),
        (12, "line_length=12 is too"),
    ],
)
def test_bad_line_length(value, message):
    with pytest.raises(ValueError, match=message):
        new_model().summary(line_length=value)


# Weights -------------------------------------------------------------------------------------------------


def changed(place, value):
    """The weights of `model`, one of them another."""
    weights = [np.ones((4, 3)), np.ones(3), np.ones((3, 1)), np.ones(1)]
    weights[place] = value
    return weights


BAD_SET_WEIGHTS = [
    (
        changed(3, np.ones(2)),
        ValueError,
        r"set_weights of sequential: dense_1/bias has shape \(1,\); got \(2,\)\. No weight was",
    ),
    (
        changed(2, np.ones((1, 3))),
        ValueError,
        r"dense_1/kernel has shape \(3, 1\); got \(1, 3\)\. No weight was changed",
    ),
    (changed(3, [np.nan]), ValueError, r"dense_1/bias holds a NaN or an infinity.*No weight was changed"),
    (changed(3, [1e39]), ValueError, r"dense_1/bias holds a NaN or an infinity in float32\. No weight was changed"),
    (changed(3, ["1"]), TypeError, r"dense_1/bias must hold real numbers; got dtype <U1"),
    (changed(3, [1j]), TypeError, r"dense_1/bias must hold real numbers; got dtype complex128"),
    (changed(3, [None]), TypeError, r"dense_1/bias must hold real numbers; got dtype object"),
    (
        changed(0, 0)[:3],
        ValueError,
        r"expected 4 arrays \(dense/kernel, dense/bias, dense_1/kernel, .*\); got 3",
    ),
    ([], ValueError, r"expected 4 arrays .*; got 0"),
    (None, TypeError, r"set_weights of sequential: expected a list of arrays; got None of type NoneType"),
    (5, TypeError, r"set_weights of sequential: expected a list of arrays; got 5 of type int"),
]


@pytest.mark.parametrize(("weights", "error", "message"), BAD_SET_WEIGHTS)
def test_bad_weights_change_no_layer(model, weights, error, message):
    with pytest.raises(error, match=message):
        model.set_weights(weights)  # the fixture sees to it that no layer has changed


def test_bad_weights_of_a_layer(model):
    with pytest.raises(ValueError, match=r"set_weights: dense/bias has shape \(3,\); got \(4,\)"):
        model.layers[0].set_weights([np.ones((4, 3)), np.ones(4)])


# A loss that is not finite -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_leaves_the_weights_before_that_step(model, monkeypatch, value):
    before = {}
    plain = training.total_loss

    def total_loss(model, *rest):
        if model.optimizer.iterations < 3:
            return plain(model, *rest)
        adam = model.optimizer
        before.update(theta=model.arena.theta.copy(), m=adam.m.copy(), v=adam.v.copy())
        return np.float32(value)

    start = [np.array(a) for a in (model.arena.theta, model.optimizer.m, model.optimizer.v)]
    seeds = model.layers[1].seed_generator.state.copy()
    monkeypatch.setattr(training, "total_loss", total_loss)
    monkeypatch.setattr(fused, "fits", lambda model: False)
    message = rf"sequential: the loss became {value} at step 4\. The weights are those before this step\. Usual causes"
    with pytest.raises(FloatingPointError, match=message):
        model.fit(X, Y, batch_size=1, verbose=0)
    adam = model.optimizer
    assert adam.iterations == 3
    for got, name in ((model.arena.theta, "theta"), (adam.m, "m"), (adam.v, "v")):
        assert_same(got, before[name])
    assert not np.array_equal(model.arena.theta, start[0])
    # back to the start, for the fixture that compares
    model.arena.theta[:], adam.m[:], adam.v[:] = start
    adam.iterations = 1
    model.layers[1].seed_generator.state[:] = seeds


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_training_that_diverges_is_stopped(model):
    model.compile(Adam(1e30), "bce")
    with pytest.raises(FloatingPointError, match=r"learning rate that is too high \(now 1e\+30\).*check_finite=False"):
        model.fit(X, Y, epochs=50, verbose=0)
    assert np.isfinite(model.arena.theta).all()
    model.fit(X, Y, epochs=5, verbose=0, check_finite=False)  # trains on


def test_a_model_that_refused_its_data_learns_from_the_next():
    model = new_model()
    with pytest.raises(ValueError, match="x and y must have the same number"):
        model.fit(X, Y[:3], verbose=0)
    model.fit(X, Y, verbose=0)
    assert model.optimizer.iterations == 1


def test_an_initializer_that_makes_another_shape():
    with pytest.raises(ValueError, match=r"the kernel initializer: kernel has shape \(4, 2\); got \(2, 4\)"):
        Sequential([Input((4,)), Dense(2, kernel_initializer=lambda shape, dtype: np.ones(shape[::-1], dtype))])


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_a_bad_verbose_is_noticed_before_the_work(method):
    model = Sequential([Input((4,)), Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    x = np.ones((2, 4))
    arguments = (x, np.ones(2)) if method == "evaluate" else (x,)
    with pytest.raises(ValueError, match="verbose must be 'auto', 0, 1 or 2; got 3"):
        getattr(model, method)(*arguments, verbose=3)


def test_a_misspelt_argument_is_told_the_nearest():
    with pytest.raises(ValueError, match=r"'kernel_regulariser'\. Did you mean 'kernel_regularizer'\?"):
        Dense(3, kernel_regulariser="l2")
    with pytest.raises(ValueError, match=r"'nmae'\. Did you mean 'name'\?"):
        Dropout(0.5, nmae="x")
