"""The objects that a model is made of: layers, activations, initializers, …, with an experiment for each kind."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from compatibility.engine import FLOAT32, Entry, Of, Try

_rng = np.random.default_rng(20)
X = _rng.normal(size=(8, 4))
X3 = _rng.normal(size=(8, 3, 4))
Y = (X[:, :1] + _rng.normal(size=(8, 1)) > 0).astype(float)
WEIGHTS = _rng.uniform(0.5, 2.0, size=8)

NAME = "other"


def config_of(found: Any) -> Any:
    """get_config(), where the object has one and can write it."""
    try:
        return found.get_config() if hasattr(found, "get_config") else None
    except NotImplementedError:
        return None


def train(
    k: Any, layers: list[Any], y: Any = Y, *, x: Any = X, optimizer: Any = None, loss: Any = "mse", steps: int = 2
):
    """Some steps on one batch: the losses, the weights afterwards, and the outputs with them."""
    model = k.Sequential(layers)
    model.compile(optimizer=optimizer or k.optimizers.SGD(0.05), loss=loss, run_eagerly=True)
    losses = [model.train_on_batch(x, y) for _ in range(steps)]
    return {"losses": losses, "weights": model.get_weights(), "outputs": model.predict_on_batch(x)}


# ------------------------------------------------------------------------------------------------ layers


def layer(k: Any, target: Any, /, *, shape: tuple[int, ...] = (4,), **arguments: Any) -> Any:
    """Between two Dense layers: two steps, then its weights, name and config."""
    made = target(**arguments)
    first = k.layers.Dense(shape[-1], activation="tanh")
    net = [k.Input(shape=shape), first, made, k.layers.Dense(1)]
    x = X if len(shape) == 1 else X3
    outputs = k.Sequential(net).predict_on_batch(x)
    y = np.broadcast_to(Y.reshape(8, *[1] * (outputs.ndim - 1)), outputs.shape)
    found = train(k, net, y, x=x)
    kept = [len(made.trainable_weights), len(made.non_trainable_weights)]
    return {**found, "counts": [*kept, made.trainable], "name": made.name, "config": config_of(made)}


layer3 = partial(layer, shape=(3, 4))


def called(k: Any, target: Any, /, **arguments: Any) -> Any:
    """Called on data by itself, at inference and in training."""
    made = target(**arguments)
    return [made(X), made(X, training=True), made.get_weights(), made.get_config()["dtype"]]


def first_layer(k: Any, target: Any, /, **arguments: Any) -> Any:
    """The first of a model without an Input: built at once or not."""
    model = k.Sequential([target(**arguments), k.layers.Dense(2)])
    built = model.built
    return {"built": built, "outputs": model(X), "weights": model.get_weights()}


def penalised(k: Any) -> Any:
    return k.regularizers.L2(0.1)


BASE = {
    "activity_regularizer": Of(penalised),
    "trainable": False,
    "dtype": Try("float32", run=called),
    "autocast": Try(False, effect=False, why="no effect on data of the layer's dtype"),
    "name": NAME,
    "input_shape": Try((4,), run=first_layer),
    "input_dim": Try(4, run=first_layer),
}


def a_layer(name: str, arguments: dict[str, Any] | None = None, *, run: Any = layer, **required: Any) -> Entry:
    return Entry(f"layers.{name}", run, {**(arguments or {}), **BASE}, required, variadic=tuple(BASE))


def drawn(seed: int, scale: float = 0.5) -> Of:
    return Of(lambda k: k.initializers.RandomUniform(-scale, scale, seed=seed))


def positive(seed: int) -> Of:
    return Of(lambda k: k.initializers.RandomUniform(0.5, 1.5, seed=seed))


def bounded(k: Any) -> Any:
    return k.constraints.MaxNorm(0.5)


NORM = {
    "axis": Try(1, run=layer3),
    "epsilon": 0.5,
    "center": False,
    "scale": False,
    "beta_initializer": drawn(3),
    "gamma_initializer": positive(4),
    "beta_regularizer": Try(Of(penalised), given={"beta_initializer": "ones"}),
    "gamma_regularizer": Of(penalised),
    "beta_constraint": Try(Of(bounded), given={"beta_initializer": "ones"}),
    "gamma_constraint": Of(bounded),
}


def adapted(k: Any, target: Any, /, **arguments: Any) -> Any:
    """Normalization: adapted to data where no mean is given, in a model."""
    made = target(**arguments)
    if "mean" not in arguments:
        made.adapt(X * [1.0, 2.0, 3.0, 4.0] + 1.0)
    model = k.Sequential([k.Input(shape=(4,)), made, k.layers.Dense(1)])
    return {"outputs": model.predict_on_batch(X), "direct": made(X), "name": made.name, "config": config_of(made)}


def adapted_by_column(k: Any, target: Any, /, **arguments: Any) -> Any:
    made = target(**arguments)
    made.adapt(X3)
    return made(X3)


def given_moments(k: Any, target: Any, /, *, mean: Any = None, variance: Any = None, **arguments: Any) -> Any:
    zeros, ones = np.zeros(4), np.ones(4)
    return target(mean=zeros if mean is None else mean, variance=ones if variance is None else variance, **arguments)(X)


def adapted_alone(k: Any, target: Any, /, **arguments: Any) -> Any:
    made = target(**arguments)
    made.adapt(X)
    return [made(X), made.get_config()["dtype"]]


def built_at_once(k: Any, target: Any, /, **arguments: Any) -> Any:
    made = target(mean=np.ones(4), variance=np.full(4, 4.0), **arguments)
    model = k.Sequential([made, k.layers.Dense(2)])
    built = model.built
    return {"built": built, "outputs": model(X)}


def the_input(k: Any, target: Any, /, **arguments: Any) -> Any:
    """In a model: its shapes and what it computes."""
    made = target(**arguments)
    model = k.Sequential([made, k.layers.Dense(2)])
    return {
        "inputs": model.input_shape,
        "outputs": model.predict_on_batch(X),
        "name": made.name if "name" in arguments else None,
    }


def input_kind(k: Any, target: Any, /, **arguments: Any) -> Any:
    made = target(**arguments)
    return [bool(getattr(made, name, False)) for name in ("sparse", "ragged", "optional")] + [str(made.dtype)]


def tensor(k: Any) -> Any:
    return k.Input(shape=(4,))


INPUT = {
    "batch_size": 8,
    "dtype": Try("float32", run=input_kind),
    "sparse": Try(True, run=input_kind),
    "ragged": Try(True, run=input_kind),
    "batch_shape": Try((8, 4), drop=("shape",)),
    "name": NAME,
    "optional": Try(True, run=input_kind, effect=None),
}


def mixed(k: Any, target: Any, /, **arguments: Any) -> Any:
    made = target(**arguments)
    return [np.asarray(made(X)).dtype.name, made.get_config()["dtype"]]


def lora(k: Any, target: Any, /, **arguments: Any) -> Any:
    made = target(**arguments)
    made.build((None, 4))
    return [len(made.trainable_weights), getattr(made, "lora_alpha", None)]


def quantized(k: Any, target: Any, /, **arguments: Any) -> Any:
    return target(**arguments).get_config().get("quantization_config") is None


def eight_bits(k: Any) -> Any:
    return k.quantizers.Int8QuantizationConfig() if hasattr(k, "quantizers") else "int8"


LAYERS = [
    a_layer(
        "Dense",
        {
            "units": 3,
            "activation": ["relu", Try(Of(lambda k: k.activations.softplus), label="a function")],
            "use_bias": False,
            "kernel_initializer": ["he_normal", Try(drawn(5), label="an object")],
            "bias_initializer": drawn(6),
            "kernel_regularizer": ["l2", Try(Of(penalised), label="an object")],
            "bias_regularizer": Try(Of(penalised), given={"bias_initializer": "ones"}),
            "kernel_constraint": Of(bounded),
            "bias_constraint": Try(Of(bounded), given={"bias_initializer": "ones"}),
            "lora_rank": Try(2, run=lora),
            "lora_alpha": Try(4, run=lora, effect=None),
            "quantization_config": Try(Of(eight_bits), run=quantized),
        },
        units=5,
    ),
    Entry(
        "layers.Dense",
        mixed,
        {"dtype": [Try(name, label=name) for name in ("bfloat16", "float16", "mixed_float16")]},
        {"units": 5},
    ),
    a_layer("Dropout", {"rate": 0.3, "noise_shape": Try((8, 1)), "seed": 4}, rate=0.5),
    a_layer("Activation", {"activation": "softplus"}, activation="tanh"),
    a_layer("ReLU", {"max_value": 0.2, "negative_slope": 0.1, "threshold": 0.1}),
    a_layer("LeakyReLU", {"negative_slope": 0.1}),
    a_layer("ELU", {"alpha": 0.5}),
    a_layer(
        "PReLU",
        {
            "alpha_initializer": drawn(7),
            "alpha_regularizer": Try(Of(penalised), given={"alpha_initializer": "ones"}),
            "alpha_constraint": Try(Of(bounded), given={"alpha_initializer": "ones"}),
            "shared_axes": Try([1], run=layer3),
        },
    ),
    a_layer("Softmax", {"axis": Try(1, run=layer3)}),
    a_layer("Flatten", {"data_format": Try("channels_first", run=layer3)}, run=layer3),
    a_layer("GaussianNoise", {"stddev": 0.3, "seed": 4}, stddev=0.5),
    a_layer("GaussianDropout", {"rate": 0.3, "seed": 4}, rate=0.5),
    a_layer("AlphaDropout", {"rate": 0.3, "noise_shape": Try((8, 1)), "seed": 4}, rate=0.5),
    Entry(
        "layers.ActivityRegularization",
        layer,
        {"l1": 0.1, "l2": 0.1, **BASE, "activity_regularizer": Try(Of(penalised), raises=True)},
        variadic=tuple(BASE),
    ),
    a_layer("Identity"),
    a_layer("Rescaling", {"scale": 0.25, "offset": 0.5}, scale=2.0),
    Entry(
        "layers.Normalization",
        adapted,
        {
            "axis": [
                Try(1, run=adapted_by_column, label="1"),
                Try(None, run=adapted_by_column, label="None"),
            ],
            "mean": Try([1.0, 2.0, 3.0, 4.0], given={"variance": [4.0] * 4}, run=given_moments),
            "variance": Try([1.0, 2.0, 3.0, 4.0], given={"mean": [1.0] * 4}, run=given_moments),
            "invert": True,
            **BASE,
            "activity_regularizer": Try(Of(penalised), effect=False, why="nothing is trained by it"),
            "trainable": Try(False, effect=False, why="nothing of it is trained"),
            "dtype": Try("float32", run=adapted_alone),
            "input_shape": Try((4,), run=built_at_once),
            "input_dim": Try(4, run=built_at_once),
        },
        variadic=tuple(BASE),
    ),
    a_layer(
        "BatchNormalization",
        {
            **NORM,
            "momentum": 0.5,
            "moving_mean_initializer": drawn(8),
            "moving_variance_initializer": positive(9),
            "renorm": True,
            "renorm_clipping": Try({"rmax": 1.1, "rmin": 0.9, "dmax": 0.1}, given={"renorm": True}),
            "renorm_momentum": Try(0.5, given={"renorm": True}),
            "synchronized": Try(True, effect=False, why="one replica"),
        },
    ),
    a_layer("LayerNormalization", NORM),
    a_layer("UnitNormalization", {"axis": Try(1, run=layer3)}),
    a_layer("GroupNormalization", {**NORM, "axis": Try(1, given={"groups": 1}, run=layer3), "groups": 1}, groups=2),
    a_layer("RMSNormalization", {"axis": Try([1, 2], run=layer3), "epsilon": 0.5}),
    Entry(
        "layers.Reshape",
        layer3,
        {
            "target_shape": Try((6, 2)),
            **BASE,
            "dtype": Try("float32", given={"target_shape": (2, 2)}, run=called),
            "input_shape": Try((4,), given={"target_shape": (4,)}, run=first_layer),
            "input_dim": Try(4, given={"target_shape": (4,)}, run=first_layer),
        },
        {"target_shape": (2, 6)},
        variadic=tuple(BASE),
    ),
    Entry(
        "layers.InputLayer",
        the_input,
        {**INPUT, "input_tensor": Try(Of(tensor), drop=("shape",), effect=None)},
        {"shape": (4,)},
    ),
    Entry(
        "layers.Input", the_input, {**INPUT, "tensor": Try(Of(tensor), drop=("shape",), effect=None)}, {"shape": (4,)}
    ),
    Entry("Input", the_input, {**INPUT, "tensor": Try(Of(tensor), drop=("shape",), effect=None)}, {"shape": (4,)}),
]


# ----------------------------------------------------------------------------------------- activations

GRID = np.linspace(-8.0, 8.0, 33).reshape(11, 3)  # with the kinks at 0, ±½, ±1, ±3 and 6


def activation(k: Any, target: Any, /, *, x: Any, **arguments: Any) -> Any:
    """Its values, and without further arguments its gradient: as a Dense layer's, by its name."""
    found = {"values": target(x, **arguments)}
    if not arguments:
        dense = k.layers.Dense(6, activation=target.__name__)
        found["steps"] = train(k, [k.Input(shape=(4,)), dense, k.layers.Dense(1)])
    return found


def an_activation(name: str, *, x: Any = GRID, required: dict[str, Any] | None = None, **arguments: Any) -> Entry:
    return Entry(f"activations.{name}", activation, arguments, {"x": x, **(required or {})})


def apply(k: Any, target: Any, /, **arguments: Any) -> Any:
    return target(**arguments)


ACTIVATIONS = [
    an_activation("celu", alpha=0.5),
    an_activation("elu", alpha=0.5),
    an_activation("exponential"),
    an_activation("gelu", approximate=True),
    Entry("activations.glu", apply, {"axis": 0}, {"x": np.hstack([GRID, GRID[::-1] + 0.25])[:10]}),
    an_activation("hard_shrink", threshold=0.7),
    an_activation("hard_sigmoid"),
    an_activation("hard_silu"),
    an_activation("hard_swish"),
    an_activation("hard_tanh"),
    an_activation("leaky_relu", negative_slope=0.1),
    an_activation("linear"),
    an_activation("log_sigmoid"),
    an_activation("log_softmax", axis=0),
    an_activation("mish"),
    an_activation("relu", negative_slope=0.1, max_value=2.0, threshold=0.5),
    an_activation("relu6"),
    an_activation("selu"),
    an_activation("sigmoid"),
    an_activation("silu"),
    an_activation("soft_shrink", threshold=0.7),
    an_activation("softmax", axis=0),
    an_activation("softplus"),
    an_activation("softsign"),
    an_activation("sparse_plus"),
    an_activation("sparse_sigmoid"),
    an_activation("sparsemax", axis=0),
    an_activation("squareplus", b=2),
    an_activation("swish"),
    an_activation("tanh"),
    an_activation("tanh_shrink"),
    Entry("activations.threshold", apply, {}, {"x": GRID, "threshold": 0.5, "default_value": -1.0}),
    Entry(
        "activations.serialize",
        lambda k, t, /, activation: t(activation),
        {},
        {"activation": Of(lambda k: k.activations.elu)},
    ),
    Entry(
        "activations.deserialize",
        lambda k, t, /, config, **a: t(config, **a)(GRID),
        {"custom_objects": Try(Of(lambda k: {"elu": k.activations.tanh}))},
        {"config": "elu"},
    ),
    Entry(
        "activations.get",
        lambda k, t, /, identifier: t(identifier)(GRID),
        {
            "identifier": [
                Try(None, label="None"),
                Try(Of(lambda k: k.activations.tanh), label="a function"),
                Try(
                    {"class_name": "function", "config": "tanh", "module": "builtins", "registered_name": "function"},
                    label="a config",
                    effect=True,
                ),
            ]
        },
        {"identifier": "elu"},
    ),
]

# ---------------------------------------------------------------------------------------- initializers


def initializer(k: Any, target: Any, /, *, shape: tuple[int, ...] = (4, 3), **arguments: Any) -> Any:
    """Two arrays, the second of a new shape, and the config."""
    made = target(**arguments)
    return {
        "first": made(shape),
        "second": made((*shape[:-1], shape[-1] + 1), dtype="float32"),
        "config": config_of(made),
    }


def initializer3(k: Any, target: Any, /, **arguments: Any) -> Any:
    made = target(**arguments)
    return {"array": made((4, 3, 2)), "config": config_of(made)}


def with_alias(module: str, names: list[str], run: Any, arguments: dict[str, Any], **required: Any) -> list[Entry]:
    """The same object under each of its names."""
    return [Entry(f"{module}.{name}", run, arguments, required) for name in names]


FANS = {
    "seed": 4,
    "input_axes": Try((0,), run=initializer3, given={"output_axes": (2,)}),
    "output_axes": Try((2,), run=initializer3, given={"input_axes": (0,)}),
}
INITIALIZERS = [
    *with_alias("initializers", ["Constant", "constant"], initializer, {"value": 0.5}),
    *with_alias("initializers", ["GlorotNormal", "glorot_normal"], initializer, FANS),
    *with_alias("initializers", ["GlorotUniform", "glorot_uniform"], initializer, FANS),
    *with_alias("initializers", ["HeNormal", "he_normal"], initializer, FANS),
    *with_alias("initializers", ["HeUniform", "he_uniform"], initializer, FANS),
    *with_alias("initializers", ["LecunNormal", "lecun_normal"], initializer, FANS),
    *with_alias("initializers", ["LecunUniform", "lecun_uniform"], initializer, FANS),
    *with_alias("initializers", ["Identity", "IdentityInitializer", "identity"], initializer, {"gain": 0.5}),
    *with_alias("initializers", ["Ones", "ones"], initializer, {}),
    *with_alias("initializers", ["Zeros", "zeros"], initializer, {}),
    *with_alias(
        "initializers", ["Orthogonal", "OrthogonalInitializer", "orthogonal"], initializer, {"gain": 0.5, "seed": 4}
    ),
    *with_alias(
        "initializers", ["RandomNormal", "random_normal"], initializer, {"mean": 0.5, "stddev": 0.5, "seed": 4}
    ),
    *with_alias(
        "initializers", ["RandomUniform", "random_uniform"], initializer, {"minval": -0.5, "maxval": 0.5, "seed": 4}
    ),
    *with_alias(
        "initializers", ["TruncatedNormal", "truncated_normal"], initializer, {"mean": 0.5, "stddev": 0.5, "seed": 4}
    ),
    *with_alias(
        "initializers",
        ["VarianceScaling", "variance_scaling"],
        initializer,
        {
            "scale": 2.0,
            "mode": [Try("fan_out", label="fan_out"), Try("fan_avg", label="fan_avg")],
            "distribution": [Try("uniform", label="uniform"), Try("untruncated_normal", label="untruncated_normal")],
            **FANS,
        },
    ),
]

# ----------------------------------------------------------------------------- regularizers, constraints


def regularizer(k: Any, target: Any, /, **arguments: Any) -> Any:
    """Its value; and its gradient, as a kernel's in two steps."""
    made = target(**arguments)
    dense = k.layers.Dense(4, kernel_regularizer=made)
    steps = train(k, [k.Input(shape=(4,)), dense, k.layers.Dense(1)])
    return {
        "value": float(np.asarray(made(k.ops.convert_to_tensor(X[:4].astype(k.config.floatx()))))),
        "steps": steps,
        "config": config_of(made),
    }


def regularizer_in_float32(k: Any, target: Any, /, **arguments: Any) -> Any:
    """The same, as Keras's own rounds to float32 and then cannot go on in float64."""
    k.config.set_floatx("float32")
    return regularizer(k, target, **arguments)


REGULARIZERS = [
    *with_alias("regularizers", ["L1", "l1"], regularizer, {"l1": 0.1}),
    *with_alias("regularizers", ["L2", "l2"], regularizer, {"l2": 0.1}),
    *with_alias("regularizers", ["L1L2", "l1_l2"], regularizer, {"l1": 0.1, "l2": 0.1}),
    *[
        Entry(f"regularizers.{name}", regularizer_in_float32, {"factor": 0.1, "mode": "columns"}, bound=FLOAT32)
        for name in ("OrthogonalRegularizer", "orthogonal_regularizer")
    ],
]


def constraint(k: Any, target: Any, /, **arguments: Any) -> Any:
    """Its value; and as a kernel's in two steps."""
    made = target(**arguments)
    dense = k.layers.Dense(4, kernel_constraint=made)
    steps = train(k, [k.Input(shape=(4,)), dense, k.layers.Dense(1)])
    return {"value": made(X), "steps": steps, "config": config_of(made)}


CONSTRAINTS = [
    *with_alias("constraints", ["MaxNorm", "max_norm"], constraint, {"max_value": 0.5, "axis": 1}),
    *with_alias("constraints", ["NonNeg", "non_neg"], constraint, {}),
    *with_alias("constraints", ["UnitNorm", "unit_norm"], constraint, {"axis": 1}),
    *with_alias(
        "constraints",
        ["MinMaxNorm", "min_max_norm"],
        constraint,
        {"min_value": 0.9, "max_value": 0.5, "rate": 0.5, "axis": 1},
    ),
]

# ------------------------------------------------------------------------------------- losses, metrics

LOGITS = _rng.normal(size=(8, 3))
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
CLASSES = _rng.integers(0, 3, size=8)
ONE_HOT = np.eye(3)[CLASSES]
BINARY = (_rng.uniform(size=(8, 3)) > 0.5).astype(float)
REAL = _rng.normal(size=(8, 3))
POSITIVE = _rng.uniform(0.5, 2.0, size=(8, 3))
# name of the kind -> (labels, predictions, the activation that makes such)
DATA = {
    "binary": (BINARY, PROBABILITIES, "sigmoid"),
    "categorical": (ONE_HOT, PROBABILITIES, "softmax"),
    "sparse": (CLASSES, PROBABILITIES, "softmax"),
    "real": (REAL, LOGITS, "linear"),
    "signs": (2 * BINARY - 1, LOGITS, "tanh"),
    "positive": (POSITIVE, PROBABILITIES + 0.5, "exponential"),
    "distributions": (POSITIVE / POSITIVE.sum(axis=1, keepdims=True), PROBABILITIES, "softmax"),
}
# TensorFlow's in_top_k takes float32 alone
DATA |= {
    f"{kind} in float32": (DATA[kind][0], PROBABILITIES.astype("float32"), "softmax")
    for kind in ("categorical", "sparse")
}
DATA |= {f"{kind} of logits": (DATA[kind][0], LOGITS, "linear") for kind in ("binary", "categorical", "sparse")}


def loss(k: Any, target: Any, /, *, kind: str, **arguments: Any) -> Any:
    """Its value, without and with weights; where the reduction gives one number, its gradient, in two steps."""
    y, p, activation = DATA[kind]
    made = target(**arguments)
    found = {"value": made(y, p), "weighted": made(y, p, sample_weight=WEIGHTS), "name": made.name}
    if arguments.get("reduction", "sum") not in (None, "none"):
        net = [k.Input(shape=(4,)), k.layers.Dense(3, activation=activation)]
        found["steps"] = train(k, net, y, loss=target(**arguments))
    return {**found, "config": config_of(made)}


def loss_value(k: Any, target: Any, /, *, kind: str, **arguments: Any) -> Any:
    """Its values along the first axis: the data lie that way."""
    y, p, _ = DATA[kind]
    made = target(**arguments, reduction=None)
    return {"values": made(y.T, p.T), "config": config_of(made)}


def along_columns(kind: str) -> Try:
    return Try(0, run=partial(loss_value, kind=kind))


REDUCTIONS = [
    Try("sum", label="sum"),
    Try("mean", label="mean", effect=False, why="another name of the default"),
    Try("mean_with_sample_weight", label="mean_with_sample_weight"),
    Try("none", label="none"),
    Try(None, label="None"),
]
SMOOTH = {"label_smoothing": 0.1}


def logits_of(kind: str) -> Try:
    return Try(True, run=partial(loss, kind=f"{kind} of logits"))


def a_loss(name: str, kind: str, arguments: dict[str, Any] | None = None, **required: Any) -> Entry:
    common = {"reduction": REDUCTIONS, "name": NAME, "dtype": "float32"}
    return Entry(f"losses.{name}", partial(loss, kind=kind), {**(arguments or {}), **common}, required)


def a_function(
    name: str, kind: str, arguments: dict[str, Any] | None = None, module: str = "losses", **required: Any
) -> Entry:
    y, p, _ = DATA[kind]
    return Entry(f"{module}.{name}", apply, arguments or {}, {"y_true": y, "y_pred": p, **required})


FOCAL = {"alpha": 0.4, "gamma": 1.0}
AXIS = {"axis": 0}
SPARSE = {"from_logits": logits_of("sparse"), "ignore_class": 1}


def functions(module: str) -> list[Entry]:
    """The losses as functions, of which keras.metrics has some too."""
    logits = Try(True)
    return [
        a_function("binary_crossentropy", "binary", {"from_logits": logits, **SMOOTH, **AXIS}, module),
        a_function(
            "binary_focal_crossentropy",
            "binary",
            {
                "apply_class_balancing": True,
                "alpha": Try(0.4, given={"apply_class_balancing": True}),
                "gamma": 1.0,
                "from_logits": logits,
                **SMOOTH,
                **AXIS,
            },
            module,
        ),
        a_function("categorical_crossentropy", "categorical", {"from_logits": logits, **SMOOTH, **AXIS}, module),
        a_function(
            "categorical_focal_crossentropy", "categorical", {**FOCAL, "from_logits": logits, **SMOOTH, **AXIS}, module
        ),
        a_function(
            "sparse_categorical_crossentropy",
            "sparse",
            {
                "from_logits": logits,
                "ignore_class": 1,
                "axis": Try(1, effect=False, why="the last, counted from the front"),
            },
            module,
        ),
        a_function("categorical_hinge", "categorical", {}, module),
        a_function("hinge", "signs", {}, module),
        a_function("squared_hinge", "signs", {}, module),
        a_function("huber", "real", {"delta": 0.5}, module),
        a_function("kl_divergence", "distributions", {}, module),
        a_function("log_cosh", "real", {}, module),
        a_function("mean_absolute_error", "real", {}, module),
        a_function("mean_absolute_percentage_error", "real", {}, module),
        a_function("mean_squared_error", "real", {}, module),
        a_function("mean_squared_logarithmic_error", "positive", {}, module),
        a_function("poisson", "positive", {}, module),
    ]


LOSSES = [
    a_loss(
        "BinaryCrossentropy", "binary", {"from_logits": logits_of("binary"), **SMOOTH, "axis": along_columns("binary")}
    ),
    a_loss(
        "BinaryFocalCrossentropy",
        "binary",
        {
            "apply_class_balancing": True,
            "alpha": Try(0.4, given={"apply_class_balancing": True}),
            "gamma": 1.0,
            "from_logits": logits_of("binary"),
            **SMOOTH,
            "axis": along_columns("binary"),
        },
    ),
    a_loss(
        "CategoricalCrossentropy",
        "categorical",
        {"from_logits": logits_of("categorical"), **SMOOTH, "axis": along_columns("categorical")},
    ),
    a_loss(
        "CategoricalFocalCrossentropy",
        "categorical",
        {**FOCAL, "from_logits": logits_of("categorical"), **SMOOTH, "axis": along_columns("categorical")},
    ),
    a_loss("SparseCategoricalCrossentropy", "sparse", {**SPARSE, "axis": Try(1, effect=False, why="the last")}),
    a_loss("CategoricalHinge", "categorical"),
    a_loss("CosineSimilarity", "real", {"axis": along_columns("real")}),
    a_loss("Hinge", "signs"),
    a_loss("SquaredHinge", "signs"),
    a_loss("Huber", "real", {"delta": 0.5}),
    a_loss("KLDivergence", "distributions"),
    a_loss("LogCosh", "real"),
    a_loss("MeanAbsoluteError", "real"),
    a_loss("MeanAbsolutePercentageError", "real"),
    a_loss("MeanSquaredError", "real"),
    a_loss("MeanSquaredLogarithmicError", "positive"),
    a_loss("Poisson", "positive"),
    *functions("losses"),
    a_function("cosine_similarity", "real", AXIS),
]


def metric(k: Any, target: Any, /, *, kind: str, **arguments: Any) -> Any:
    """Two batches, the second with weights; then the result, the name and the config."""
    y, p, _ = DATA[kind]
    made = target(**arguments)
    made.update_state(y[:5], p[:5])
    made.update_state(y[5:], p[5:], sample_weight=WEIGHTS[5:])
    result = np.array(made.result(), float)  # a copy: Keras's may be the variable itself
    made.reset_state()
    empty = np.array(made.result(), float)
    return {"result": result, "name": made.name, "dtype": str(made.dtype), "empty": empty, "config": config_of(made)}


def a_metric(
    name: str, kind: str, arguments: dict[str, Any] | None = None, *, run: Any = metric, **required: Any
) -> Entry:
    common = {"name": NAME, "dtype": "float32"}
    return Entry(f"metrics.{name}", partial(run, kind=kind), {**(arguments or {}), **common}, required)


def of_values(k: Any, target: Any, /, **arguments: Any) -> Any:
    made = target(**arguments)
    made.update_state(X)
    made.update_state(X + 1.0, sample_weight=WEIGHTS)
    return {
        "result": np.array(made.result(), float),
        "name": made.name,
        "dtype": str(made.dtype),
        "config": config_of(made),
    }


def metric_logits(kind: str) -> Try:
    return Try(True, run=partial(metric, kind=f"{kind} of logits"))


PR = {"thresholds": Try([0.3, 0.6]), "top_k": 1, "class_id": 1}
AT = {"num_thresholds": Try(5, effect=None), "class_id": 1}
METRICS = [
    *[Entry(f"metrics.{name}", of_values, {"name": NAME, "dtype": "float32"}) for name in ("Mean", "Sum")],
    a_metric(
        "MeanMetricWrapper",
        "real",
        {
            "fn": Try(Of(lambda k: k.losses.mean_absolute_error)),
            "kwargs": Try(
                0.5,
                run=lambda k, t, /, *, fn, kwargs=None: metric(
                    k, t, kind="real", fn=k.losses.huber, **({} if kwargs is None else {"delta": kwargs})
                ),
            ),
        },
        fn=Of(lambda k: k.losses.mean_squared_error),
    ),
    a_metric("Accuracy", "sparse", run=lambda k, t, /, kind, **a: _accuracy(k, t, **a)),
    a_metric("BinaryAccuracy", "binary", {"threshold": 0.3}),
    a_metric("CategoricalAccuracy", "categorical"),
    a_metric("SparseCategoricalAccuracy", "sparse"),
    a_metric("TopKCategoricalAccuracy", "categorical in float32", {"k": 2}),
    a_metric(
        "SparseTopKCategoricalAccuracy",
        "sparse in float32",
        {"k": 2, "from_sorted_ids": Try(True, run=lambda k, t, /, kind="", **a: _sorted_ids(k, t, **a))},
    ),
    a_metric("BinaryCrossentropy", "binary", {"from_logits": metric_logits("binary"), **SMOOTH}),
    a_metric(
        "CategoricalCrossentropy",
        "categorical",
        {"from_logits": metric_logits("categorical"), **SMOOTH, "axis": Try(1, effect=False, why="the last")},
    ),
    a_metric(
        "SparseCategoricalCrossentropy",
        "sparse",
        {"from_logits": metric_logits("sparse"), "ignore_class": 1, "axis": Try(1, effect=False, why="the last")},
    ),
    a_metric("CategoricalHinge", "categorical"),
    a_metric("Hinge", "signs"),
    a_metric("SquaredHinge", "signs"),
    a_metric("KLDivergence", "distributions"),
    a_metric("Poisson", "positive"),
    a_metric("LogCoshError", "real"),
    a_metric("MeanAbsoluteError", "real"),
    a_metric("MeanAbsolutePercentageError", "real"),
    a_metric("MeanSquaredError", "real"),
    a_metric("MeanSquaredLogarithmicError", "positive"),
    a_metric("RootMeanSquaredError", "real"),
    a_metric("CosineSimilarity", "real", {"axis": 0}),
    a_metric("ConcordanceCorrelation", "real", {"axis": 0}),
    a_metric("PearsonCorrelation", "real", {"axis": 0}),
    a_metric(
        "R2Score",
        "real",
        {
            "class_aggregation": [
                Try(None, label="None"),
                Try("variance_weighted_average", label="variance_weighted_average"),
            ],
            "num_regressors": 2,
        },
    ),
    *[
        a_metric(name, "binary", {"thresholds": Try([0.3, 0.6])})
        for name in ("TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives")
    ],
    *[a_metric(name, "binary", PR) for name in ("Precision", "Recall")],
    a_metric(
        "AUC",
        "binary",
        {
            "num_thresholds": 5,
            "curve": "PR",
            "summation_method": [
                Try("majoring", given={"num_thresholds": 5}, label="majoring"),
                Try("minoring", given={"num_thresholds": 5}, label="minoring"),
            ],
            "thresholds": Try([0.3, 0.6]),
            "multi_label": True,
            "num_labels": Try(3, given={"multi_label": True}, effect=False, why="as the data say"),
            "label_weights": Try([0.2, 0.3, 0.5], given={"multi_label": True}),
            "from_logits": metric_logits("binary"),
        },
    ),
    a_metric("PrecisionAtRecall", "binary", AT, recall=0.5),
    a_metric("RecallAtPrecision", "binary", AT, precision=0.5),
    a_metric("SensitivityAtSpecificity", "binary", AT, specificity=0.5),
    a_metric("SpecificityAtSensitivity", "binary", AT, sensitivity=0.5),
    a_metric(
        "F1Score",
        "categorical",
        {"average": [Try(a, label=a) for a in ("micro", "macro", "weighted")], "threshold": 0.3},
    ),
    a_metric(
        "FBetaScore",
        "categorical",
        {"average": [Try(a, label=a) for a in ("micro", "macro", "weighted")], "beta": 2.0, "threshold": 0.3},
    ),
    *functions("metrics"),
    a_function("binary_accuracy", "binary", {"threshold": 0.3}, "metrics"),
    a_function("categorical_accuracy", "categorical", {}, "metrics"),
    a_function("sparse_categorical_accuracy", "sparse", {}, "metrics"),
    a_function("top_k_categorical_accuracy", "categorical in float32", {"k": 1}, "metrics"),
    a_function(
        "sparse_top_k_categorical_accuracy",
        "sparse in float32",
        {
            "k": 1,
            "from_sorted_ids": Try(
                True,
                run=lambda k, t, /, y_true, y_pred, **a: t(y_true, np.argsort(-y_pred, axis=1).astype("float32"), **a),
                given={"k": 1},
            ),
        },
        "metrics",
    ),
    a_function("concordance_correlation", "real", {"axis": 0}, "metrics"),
    a_function("pearson_correlation", "real", {"axis": 0}, "metrics"),
]


def _accuracy(k: Any, target: Any, /, **arguments: Any) -> Any:
    made = target(**arguments)
    made.update_state(CLASSES, (CLASSES + np.arange(8) // 5) % 3)
    return {
        "result": np.array(made.result(), float),
        "name": made.name,
        "dtype": str(made.dtype),
        "config": config_of(made),
    }


def _sorted_ids(k: Any, target: Any, /, **arguments: Any) -> Any:
    made = target(k=1, **arguments)
    made.update_state(CLASSES, np.argsort(-LOGITS, axis=1).astype("float32"))
    return np.array(made.result(), float)


# --------------------------------------------------------------------------------- optimizers, schedules


def optimizer(k: Any, target: Any, /, **arguments: Any) -> Any:
    """Four steps of a net; the weights, the learning rate, the iterations, the name and the config."""
    made = target(**arguments)
    net = [k.Input(shape=(4,)), k.layers.Dense(4, activation="tanh"), k.layers.Dense(1)]
    found = train(k, net, optimizer=made, steps=4)
    state = {"iterations": int(np.asarray(made.iterations)), "learning_rate": float(np.asarray(made.learning_rate))}
    return {**found, **state, "name": made.name, "config": config_of(made)}


def optimizer_in_fit(k: Any, target: Any, /, **arguments: Any) -> Any:
    """Two epochs of fit, after each of which an average of the weights may take their place."""
    net = [k.Input(shape=(4,)), k.layers.Dense(4, activation="tanh"), k.layers.Dense(1)]
    model = k.Sequential(net)
    model.compile(optimizer=target(**arguments), loss="mse", run_eagerly=True)
    history = model.fit(X, Y, epochs=2, batch_size=4, verbose=0).history
    return {"history": history, "weights": model.get_weights()}


def schedule(k: Any) -> Any:
    return k.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)


EMA = {"use_ema": True, "ema_overwrite_frequency": 2}
OPTIMIZER = {
    "learning_rate": [Try(0.05, label="a number"), Try(Of(schedule), label="a schedule")],
    "weight_decay": 0.1,
    "clipnorm": 0.01,
    "clipvalue": 0.01,
    "global_clipnorm": 0.01,
    "use_ema": Try(True, run=optimizer_in_fit),
    "ema_momentum": Try(0.5, given=EMA),
    "ema_overwrite_frequency": Try(2, given={"use_ema": True}),
    "loss_scale_factor": Try(8.0, effect=False, why="a power of 2 scales without rounding"),
    "gradient_accumulation_steps": 2,
    "name": NAME,
}
BETAS = {"beta_1": 0.5, "beta_2": 0.5, "epsilon": 0.1}


def an_optimizer(name: str, arguments: dict[str, Any], **required: Any) -> Entry:
    return Entry(f"optimizers.{name}", optimizer, {**OPTIMIZER, **arguments}, required)


OPTIMIZERS = [
    an_optimizer("SGD", {"momentum": 0.5, "nesterov": Try(True, given={"momentum": 0.5})}),
    an_optimizer("Adam", {**BETAS, "amsgrad": Try(True, given={"learning_rate": 0.5, "beta_2": 0.5})}),
    an_optimizer("AdamW", {**BETAS, "amsgrad": Try(True, given={"learning_rate": 0.5, "beta_2": 0.5})}),
    an_optimizer("Adamax", BETAS),
    an_optimizer("Nadam", BETAS),
    an_optimizer("RMSprop", {"rho": 0.5, "momentum": 0.5, "epsilon": 0.1, "centered": True}),
    an_optimizer("Adagrad", {"initial_accumulator_value": 0.5, "epsilon": 0.1}),
    an_optimizer("Adadelta", {"rho": 0.5, "epsilon": 0.1}),
]


def rates(k: Any, target: Any, /, **arguments: Any) -> Any:
    """The rate at some steps, the name and the config."""
    made = target(**arguments)
    return {
        "rates": [made(step) for step in (0, 1, 2, 3, 5, 8, 13, 50)],
        "name": getattr(made, "name", None),
        "config": config_of(made),
    }


DECAY = {"initial_learning_rate": 0.1, "decay_steps": 4}
SCHEDULES = [
    Entry(
        "optimizers.schedules.CosineDecay",
        rates,
        {
            "alpha": 0.1,
            "name": NAME,
            "warmup_target": Try(0.3, given={"warmup_steps": 2}),
            "warmup_steps": Try(2, given={"warmup_target": 0.3}),
        },
        DECAY,
    ),
    Entry(
        "optimizers.schedules.CosineDecayRestarts",
        rates,
        {"t_mul": 3.0, "m_mul": 0.5, "alpha": 0.1, "name": NAME},
        {"initial_learning_rate": 0.1, "first_decay_steps": 4},
    ),
    Entry(
        "optimizers.schedules.ExponentialDecay", rates, {"staircase": True, "name": NAME}, {**DECAY, "decay_rate": 0.5}
    ),
    Entry(
        "optimizers.schedules.InverseTimeDecay", rates, {"staircase": True, "name": NAME}, {**DECAY, "decay_rate": 0.5}
    ),
    Entry(
        "optimizers.schedules.PolynomialDecay",
        rates,
        {"end_learning_rate": 0.05, "power": 2.0, "cycle": True, "name": NAME},
        DECAY,
    ),
    Entry(
        "optimizers.schedules.PiecewiseConstantDecay",
        rates,
        {"name": NAME},
        {"boundaries": [2, 5], "values": [0.1, 0.2, 0.3]},
    ),
]
