"""The faults: each a small patch of the installed Keras, and what the oracle should name for it.

A fault is planted by a function of (keras, tf, swap); swap(owner, name, make) puts make(plain) in the place of
owner.name until the fault is taken out again. Faults are planted before the model is built, on the TensorFlow backend;
on the others, where tf is None, those that do without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RNG = np.random.default_rng(3)
X = RNG.normal(size=(40, 6)).astype("float32")
Y = {
    "binary": RNG.integers(0, 2, (40, 1)).astype("float32"),
    "one_hot": np.eye(3, dtype="float32")[RNG.integers(0, 3, 40)],
    "classes": RNG.integers(0, 3, 40),
    "numbers": RNG.normal(size=(40, 2)).astype("float32"),
    "counts": RNG.poisson(2.0, (40, 2)).astype("float32"),
    "shares": RNG.uniform(0.05, 1.0, (40, 2)).astype("float32"),
}
WEIGHTS = RNG.uniform(0.5, 2.0, 40).astype("float32")
FIT = {"epochs": 2, "batch_size": 16}  # batches of 16, 16 and 8 rows


@dataclass(frozen=True)
class Fault:
    """plant: see above. quantity, layer: what should be named, layer None for what is of no layer; several of either
    where the fault is in several places at once. model: arguments of build; fit: of oracle.check.
    """

    name: str
    plant: Callable[[Any, Any, Any], None]
    quantity: str | tuple[str, ...]
    layer: str | tuple[str | None, ...] | None = None
    model: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)

    def is_named_by(self, divergence: Any) -> bool:
        """Whether a divergence is in the right quantity and layer."""
        quantities = (self.quantity,) if isinstance(self.quantity, str) else self.quantity
        layers = self.layer if isinstance(self.layer, tuple) else (self.layer,)
        return divergence.quantity in quantities and divergence.layer in layers


def build(
    keras: Any,
    *,
    hidden: tuple[Any, ...] = ("tanh", "relu"),
    between: Callable[[Any], list[Any]] = lambda la: [],
    last: Any = "sigmoid",
    units: int = 1,
    optimizer: Callable[[Any], Any] = lambda o: o.Adam(0.01),
    loss: Callable[[Any], Any] = lambda lo: lo.BinaryCrossentropy(),
    labels: str = "binary",
    metrics: tuple[Any, ...] = ("accuracy",),
    weighted_metrics: tuple[Any, ...] = (),
    first: dict[str, Any] | None = None,
    compiled: dict[str, Any] | None = None,
) -> tuple[Any, Any]:
    """Input(6) → dense_a(5) → between → dense_b(4) → dense_c(units), compiled; and its labels."""
    la = keras.layers
    layers = [la.Dense(5, hidden[0], name="dense_a", **(first or {})), *between(la)]
    layers += [la.Dense(4, hidden[1], name="dense_b"), la.Dense(units, last, name="dense_c")]
    model = keras.Sequential([la.Input((6,)), *layers])
    model.compile(
        optimizer(keras.optimizers), loss(keras.losses), metrics=list(metrics),
        weighted_metrics=list(weighted_metrics), **(compiled or {}),
    )  # fmt: skip
    return model, Y[labels]


REGRESSION = {
    "last": "linear",
    "units": 2,
    "labels": "numbers",
    "metrics": (),
    "loss": lambda lo: lo.MeanSquaredError(),
}
CLASSES = {"last": "softmax", "units": 3, "labels": "one_hot", "loss": lambda lo: lo.CategoricalCrossentropy()}
DROPOUT = {"between": lambda la: [la.Dropout(0.4, name="dropout")]}


def regression(**more: Any) -> dict[str, Any]:
    return {**REGRESSION, **more}


def with_optimizer(make: Callable[[Any], Any], **more: Any) -> dict[str, Any]:
    return regression(optimizer=make, **more)


def with_loss(make: Callable[[Any], Any], labels: str = "numbers", **more: Any) -> dict[str, Any]:
    return regression(loss=make, labels=labels, **more)


def layer(make: Callable[[Any], Any]) -> dict[str, Any]:
    return regression(between=lambda la: [make(la)])


# ----------------------------------------------------------------------------------- tools for planting


def after(change: Callable[..., Any]) -> Callable[[Any], Any]:
    """make: plain's result, changed by change(result, *arguments)."""
    return lambda plain: lambda *args, **kwargs: change(plain(*args, **kwargs), *args)


def instead(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """make: another function, which is given plain first."""
    return lambda plain: lambda *args, **kwargs: function(plain, *args, **kwargs)


def of_nn(name: str, make: Callable[[Any], Callable[[Any], Any]]) -> Callable[[Any, Any, Any], None]:
    """Plant in keras.src.backend.tensorflow.nn; make(tf) gives the replacement's maker."""
    return lambda k, tf, swap: swap(_backend().numpy if name == "tanh" else _backend().nn, name, make(tf))


def _backend() -> Any:
    return importlib.import_module(f"keras.src.backend.{importlib.import_module('keras').backend.backend()}")


def activation(name: str, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], None]:
    """An activation of nn computed by function(tf, x)."""
    return of_nn(name, lambda tf: lambda plain: lambda x, *a, **k: function(tf, x))


def derivative(name: str, function: Callable[[Any, Any, Any, Any], Any]) -> Callable[[Any, Any, Any], None]:
    """An activation of nn whose backward is function(tf, dy, x, y)."""

    def make(tf: Any) -> Any:
        def wrap(plain: Any) -> Any:
            def wrong(x: Any, *a: Any, **k: Any) -> Any:
                @tf.custom_gradient
                def run(x: Any) -> Any:
                    y = plain(x, *a, **k)
                    return y, lambda dy: function(tf, dy, x, y)

                return run(x)

            return wrong

        return wrap

    return of_nn(name, make)


def matmul(change: Callable[[Any, Any, Any, Any], Any]) -> Callable[[Any, Any, Any], None]:
    """ops.matmul as Dense calls it, change(tf, plain, a, b), without touching its backward's shape."""

    def plant(k: Any, tf: Any, swap: Any) -> None:
        import keras.src.ops as ops

        swap(ops, "matmul", lambda plain: lambda a, b: change(tf, plain, a, b))

    return plant


def gradient_of(at: int, change: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], None]:
    """The at-th gradient that the tape returns (kernel and bias of dense_a, then of dense_b, …), change(tf, g)."""

    def plant(k: Any, tf: Any, swap: Any) -> None:
        def wrong(plain: Any) -> Any:
            def gradient(self: Any, *args: Any, **kwargs: Any) -> Any:
                found = list(plain(self, *args, **kwargs))
                found[at] = change(tf, found[at])
                return found

            return gradient

        swap(tf.GradientTape, "gradient", wrong)

    return plant


def update_step(cls: str, rule: Callable[..., None]) -> Callable[[Any, Any, Any], None]:
    """An optimizer's rule, rule(self, ops, g, variable, lr, *slots of the variable)."""

    def plant(k: Any, tf: Any, swap: Any) -> None:
        owner = getattr(k.optimizers, cls)

        def wrong(plain: Any) -> Any:
            def step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
                lr, g = k.ops.cast(learning_rate, variable.dtype), k.ops.cast(gradient, variable.dtype)
                rule(self, k.ops, g, variable, lr)

            return step

        swap(owner, "update_step", wrong)

    return plant


def adam(
    m: Callable[..., Any] = lambda ops, m, g, b: m + (g - m) * (1 - b),
    v: Callable[..., Any] = lambda ops, v, g, b: v + (ops.square(g) - v) * (1 - b),
    alpha: Callable[..., Any] = lambda ops, lr, b1, b2, t: lr * ops.sqrt(1 - ops.power(b2, t)) / (1 - ops.power(b1, t)),
    step: Callable[..., Any] = lambda ops, m, v, a, e: m * a / (ops.sqrt(v) + e),
    v_hat: Callable[..., Any] = lambda ops, v_hat, v: ops.maximum(v_hat, v),
    betas: tuple[float, float] | None = None,
) -> Callable[[Any, Any, Any], None]:
    """Adam with one of its lines another."""

    def rule(self: Any, ops: Any, g: Any, variable: Any, lr: Any) -> None:
        at = self._get_variable_index(variable)
        one, two = betas or (self.beta_1, self.beta_2)
        t = ops.cast(self.iterations + 1, variable.dtype)
        b1, b2 = ops.cast(one, variable.dtype), ops.cast(two, variable.dtype)
        a = alpha(ops, lr, b1, b2, t)
        m_new, v_new = m(ops, self._momentums[at], g, one), v(ops, self._velocities[at], g, two)
        self.assign(self._momentums[at], m_new)
        self.assign(self._velocities[at], v_new)
        second = self._velocities[at]
        if self.amsgrad:
            self.assign(self._velocity_hats[at], v_hat(ops, self._velocity_hats[at], v_new))
            second = self._velocity_hats[at]
        self.assign_sub(variable, step(ops, self._momentums[at], second, a, self.epsilon))

    return update_step("Adam", rule)


def method(owner: Callable[[Any], Any], name: str, make: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], None]:
    """A method or function of owner(keras), made by make(keras, tf) into the replacement's maker."""
    return lambda k, tf, swap: swap(owner(k), name, make(k, tf))


def module(name: str) -> Callable[[Any], Any]:
    return lambda k: importlib.import_module(f"keras.src.{name}")


LOSSES, LOSS, ACCURACY = (module(n) for n in ("losses.losses", "losses.loss", "metrics.accuracy_metrics"))
PENALIZED = {"first": {"kernel_regularizer": "l1"}}
SQUARED = {"first": {"kernel_regularizer": "l2"}}
EVERY_DENSE = ("dense_a", "dense_b", "dense_c")


def loss_function(name: str, function: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], None]:
    """A loss of keras.losses computed by function(ops, y_true, y_pred) -> values by sample."""
    return method(LOSSES, name, lambda k, tf: lambda plain: lambda t, p, *a, **b: function(k.ops, t, p))


def bfloat(tf: Any, x: Any) -> Any:
    return tf.cast(tf.cast(x, tf.bfloat16), x.dtype)


def half(tf: Any, x: Any) -> Any:
    return tf.cast(tf.cast(x, tf.float16), x.dtype)


def first_element(tf: Any, x: Any, factor: float) -> Any:
    """x with its first element times factor."""
    flat = tf.reshape(x, [-1])
    return tf.reshape(tf.concat([flat[:1] * factor, flat[1:]], 0), tf.shape(x))


def regularizer(name: str, function: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], None]:
    return method(
        lambda k: getattr(k.regularizers, name),
        "__call__",
        lambda k, tf: lambda plain: lambda self, x: function(k.ops, self, x),
    )


def keras_dropout(make: Callable[[Any, Any, Any, Any, Any], Any]) -> Callable[[Any, Any, Any], None]:
    """backend.random.dropout, make(tf, plain, inputs, rate, seed)."""
    return method(
        lambda k: _backend().random, "dropout",
        lambda k, tf: lambda plain: lambda inputs, rate, noise_shape=None, seed=None: make(
            tf, plain, inputs, rate, seed
        ),
    )  # fmt: skip


def next_seed(change: Callable[[Any, Any], None]) -> Callable[[Any, Any, Any], None]:
    """SeedGenerator.next with its counter set by change(self, plain)."""
    return method(
        lambda k: k.random.SeedGenerator,
        "next",
        lambda k, tf: lambda plain: lambda self, ordered=True: change(self, plain),
    )


def data(change: Callable[..., Any]) -> Callable[[Any, Any, Any], None]:
    """The arrays that the fit's adapter takes: x, y, sample_weight, class_weight = change(the same four)."""

    def plant(k: Any, tf: Any, swap: Any) -> None:
        import keras.src.trainers.data_adapters.array_data_adapter as adapter

        def wrong(plain: Any) -> Any:
            def init(
                self: Any, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, **more: Any
            ) -> None:
                x, y, sample_weight, class_weight = change(x, y, sample_weight, class_weight)
                plain(self, x, y, sample_weight=sample_weight, class_weight=class_weight, **more)

            return init

        swap(adapter.ArrayDataAdapter, "__init__", wrong)

    return plant


def batches(sized: Callable[[int], int], dataset: Callable[[Any], Any]) -> Callable[[Any, Any, Any], None]:
    """So many batches of an epoch: sized(their number), dataset(the pass over them)."""

    def plant(k: Any, tf: Any, swap: Any) -> None:
        import keras.src.trainers.data_adapters.array_data_adapter as adapter

        owner = adapter.ArrayDataAdapter
        swap(owner, "num_batches", lambda plain: property(lambda self: sized(plain.fget(self))))
        swap(owner, "get_tf_dataset", lambda plain: lambda self: dataset(plain(self)))

    return plant


def _frozen_counter(self: Any, plain: Any) -> Any:
    return self.state.value * 1


def _twice(self: Any, plain: Any) -> Any:
    plain(self)
    return plain(self)


def _seed_dropped(self: Any, plain: Any) -> Any:
    return plain(self) * np.array([0, 1], "int64")


def _other_mask_in_backward(tf: Any, plain: Any, inputs: Any, rate: Any, seed: Any) -> Any:
    @tf.custom_gradient
    def run(x: Any) -> Any:
        def backward(dy: Any) -> Any:
            other = tf.random.stateless_uniform(tf.shape(dy), [1, 2]) >= rate
            return tf.where(other, dy / (1 - rate), 0.0)

        return plain(x, rate, seed=seed), backward

    return run(inputs)


def _unscaled_in_backward(tf: Any, plain: Any, inputs: Any, rate: Any, seed: Any) -> Any:
    @tf.custom_gradient
    def run(x: Any) -> Any:
        y = plain(x, rate, seed=seed)
        return y, lambda dy: tf.where(y != 0, dy, 0.0)

    return run(inputs)


def _mean_update(k: Any, tf: Any) -> Any:
    def wrong(plain: Any) -> Any:
        def update_state(self: Any, values: Any, sample_weight: Any = None) -> None:
            self.total.assign_add(k.ops.mean(k.ops.cast(values, self.dtype)))
            self.count.assign_add(1.0)

        return update_state

    return wrong


def _moments(change: Callable[[Any, Any, Any, Any], Any]) -> Callable[[Any, Any, Any], None]:
    def make(k: Any, tf: Any) -> Any:
        return lambda plain: lambda self, inputs, mask: change(k.ops, *plain(self, inputs, mask), inputs)

    return method(lambda k: k.layers.BatchNormalization, "_moments", make)


def _normalized(change: Callable[..., Any]) -> Callable[[Any, Any, Any], None]:
    """ops.batch_normalization, change(ops, x, mean, variance, offset, scale, epsilon)."""

    def plant(k: Any, tf: Any, swap: Any) -> None:
        import keras.src.ops as ops

        def wrong(plain: Any) -> Any:
            def run(
                x: Any,
                mean: Any,
                variance: Any,
                axis: Any,
                offset: Any = None,
                scale: Any = None,
                epsilon: float = 1e-3,
            ) -> Any:
                return change(k.ops, x, mean, variance, offset, scale, epsilon)

            return run

        swap(ops, "batch_normalization", wrong)

    return plant


def _assigned(name: str, value: Callable[..., Any]) -> Callable[[Any, Any, Any], None]:
    """BatchNormalization whose moving statistic is assigned value(plain assigned, before)."""

    def plant(k: Any, tf: Any, swap: Any) -> None:
        def wrong(plain: Any) -> Any:
            def call(self: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
                variable = getattr(self, name)
                before = variable.value + 0.0
                outputs = plain(self, inputs, training=training, mask=mask)
                if training:
                    variable.assign(value(variable.value, before))
                return outputs

            return call

        swap(k.layers.BatchNormalization, "call", wrong)

    return plant


BATCH_NORM = layer(lambda la: la.BatchNormalization(name="norm"))
LAYER_NORM = layer(lambda la: la.LayerNormalization(name="norm"))


def _clipped(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], None]:
    return method(
        lambda k: k.optimizers.Optimizer, "_clip_gradients",
        lambda k, tf: lambda plain: lambda self, grads: [function(k.ops, g) for g in grads],
    )  # fmt: skip


def _sgd(rule: Callable[..., Any]) -> Callable[[Any, Any, Any], None]:
    """SGD with momentum: rule(ops, m, g, lr, mu, nesterov) -> (m, what is added to the weights)."""

    def step(self: Any, ops: Any, g: Any, variable: Any, lr: Any) -> None:
        m = self.momentums[self._get_variable_index(variable)]
        new, add = rule(ops, m, g, lr, self.momentum, self.nesterov)
        self.assign(m, new)
        self.assign_add(variable, add)

    return update_step("SGD", step)


def _rmsprop(v: Callable[..., Any], root: Callable[..., Any]) -> Callable[[Any, Any, Any], None]:
    def step(self: Any, ops: Any, g: Any, variable: Any, lr: Any) -> None:
        slot = self._velocities[self._get_variable_index(variable)]
        self.assign(slot, v(ops, slot, g, self.rho))
        self.assign_sub(variable, lr * g / root(ops, slot, self.epsilon))

    return update_step("RMSprop", step)


def _ema(momentum: Callable[[Any], Any]) -> Callable[[Any, Any, Any], None]:
    def make(k: Any, tf: Any) -> Any:
        def wrong(plain: Any) -> Any:
            def update(self: Any, variables: Any) -> None:
                for variable, average in zip(variables, self._model_variables_moving_average, strict=True):
                    m = k.ops.cast(k.ops.not_equal(self.iterations, 0), variable.dtype) * momentum(self.ema_momentum)
                    average.assign(m * average + (1 - m) * variable)

            return update

        return wrong

    return method(lambda k: k.optimizers.Optimizer, "_update_model_variables_moving_average", make)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


ADAM_W = with_optimizer(lambda o: o.AdamW(0.01, weight_decay=0.1))
MOMENTUM = with_optimizer(lambda o: o.SGD(0.05, momentum=0.9))
NESTEROV = with_optimizer(lambda o: o.SGD(0.05, momentum=0.9, nesterov=True))
PLAIN_SGD = with_optimizer(lambda o: o.SGD(0.05))
RMSPROP = with_optimizer(lambda o: o.RMSprop(0.01))
AMSGRAD = with_optimizer(lambda o: o.Adam(0.01, amsgrad=True))
ACCUMULATING = with_optimizer(lambda o: o.Adam(0.01, gradient_accumulation_steps=2))
AVERAGED = with_optimizer(lambda o: o.SGD(0.05, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=2))
SCHEDULED = with_optimizer(lambda o: o.SGD(o.schedules.ExponentialDecay(0.1, 2, 0.5)))
CLIPPED = with_optimizer(lambda o: o.SGD(0.05, momentum=0.9, clipnorm=0.1))
WEIGHTED = {"sample_weight": WEIGHTS}
CLASS_WEIGHTED = {"class_weight": {0: 0.5, 1: 3.0}}
CONSTRAINED = regression(first={"kernel_constraint": "max_norm"}, optimizer=lambda o: o.SGD(5.0))
NON_NEGATIVE = regression(first={"kernel_constraint": "non_neg"})

FAULTS = [
    # ------------------------------------------------------------------------------------------- batch
    Fault("a row twice, another dropped", data(lambda x, y, w, c: (np.r_[x[1:2], x[1:]], y, w, c)), "batch"),
    Fault("labels one row off", data(lambda x, y, w, c: (x, np.roll(y, 1, 0), w, c)), "batch", None, regression()),
    Fault("inputs in float16", data(lambda x, y, w, c: (x.astype("float16").astype("float32"), y, w, c)), "batch"),
    Fault("class weights ignored", data(lambda x, y, w, c: (x, y, w, None)), "batch", fit=CLASS_WEIGHTED),
    Fault(
        "class weights swapped",
        data(lambda x, y, w, c: (x, y, w, {0: c[1], 1: c[0]} if c else c)),
        "batch",
        fit=CLASS_WEIGHTED,
    ),
    Fault(
        "sample weights squared",
        data(lambda x, y, w, c: (x, y, None if w is None else w * w, c)),
        "batch",
        fit=WEIGHTED,
    ),
    Fault(
        "sample weights normalized",
        data(lambda x, y, w, c: (x, y, None if w is None else w / w.mean(), c)),
        "batch",
        fit=WEIGHTED,
    ),
    Fault(
        "rows not shuffled",
        method(lambda k: __import__("tensorflow").random, "shuffle", lambda k, tf: lambda plain: lambda x, *a, **b: x),
        "batch",
    ),
    Fault("the last partial batch dropped", batches(lambda n: n - 1, lambda d: d), "batch"),
    Fault(
        "the last partial batch dropped in the last epoch",
        batches(lambda n: n - 1, lambda d: d),
        "batch",
        fit={"epochs": 1},
    ),
    Fault("a batch too many", batches(lambda n: n + 1, lambda d: d.concatenate(d.take(1))), "batch"),
    # -------------------------------------------------------------------------------------------- mask
    Fault("counter not advanced", next_seed(_frozen_counter), "mask", "dropout", DROPOUT),
    Fault("counter advanced twice", next_seed(_twice), "mask", "dropout", DROPOUT),
    Fault("seed ignored", next_seed(_seed_dropped), "mask", "dropout", DROPOUT),
    Fault(
        "rate off by a hundredth",
        keras_dropout(lambda tf, plain, x, rate, seed: plain(x, rate + 0.01, seed=seed)),
        ("mask", "activation"),
        "dropout",
        DROPOUT,
    ),
    Fault(
        "mask the other way round",
        keras_dropout(
            lambda tf, plain, x, rate, seed: tf.where(plain(tf.ones_like(x), rate, seed=seed) == 0, x / (1 - rate), 0.0)
        ),
        "mask",
        "dropout",
        DROPOUT,
    ),
    Fault(
        "one mask for all rows",
        keras_dropout(
            lambda tf, plain, x, rate, seed: (
                x * tf.cast(plain(tf.ones_like(x), rate, seed=seed)[:1] != 0, x.dtype) / (1 - rate)
            )
        ),
        "mask",
        "dropout",
        DROPOUT,
    ),
    Fault(
        "noise of the variance",
        method(
            lambda k: _backend().random,
            "normal",
            lambda k, tf: (
                lambda plain: (
                    lambda shape, mean=0.0, stddev=1.0, dtype=None, seed=None: plain(
                        shape, mean, stddev**2, dtype, seed
                    )
                )
            ),
        ),
        ("mask", "weight"),
        ("noise",),
        layer(lambda la: la.GaussianNoise(0.3, name="noise")),
    ),
    # ----------------------------------------------------------------------- pre-activation, activation
    Fault(
        "product in float16",
        matmul(lambda tf, plain, a, b: plain(half(tf, a), half(tf, b))),
        "pre_activation",
        "dense_a",
        regression(hidden=("relu", "relu")),
    ),
    Fault(
        "product in bfloat16",
        matmul(lambda tf, plain, a, b: plain(bfloat(tf, a), bfloat(tf, b))),
        "pre_activation",
        "dense_a",
        regression(hidden=("relu", "relu")),
    ),
    Fault(
        "one element of a product 1e-5 off",
        matmul(lambda tf, plain, a, b: first_element(tf, plain(a, b), 1 + 1e-5)),
        "pre_activation",
        "dense_a",
        regression(hidden=("relu", "relu")),
    ),
    Fault(
        "the last input left out",
        matmul(lambda tf, plain, a, b: plain(a[:, :-1], b[:-1])),
        "pre_activation",
        "dense_a",
        regression(hidden=("relu", "relu")),
    ),
    Fault(
        "the last row zero in a partial batch",
        matmul(
            lambda tf, plain, a, b: (
                plain(a, b) * tf.cast((tf.range(tf.shape(a)[0]) < 7) | (tf.shape(a)[0] > 8), a.dtype)[:, None]
            )
        ),
        "pre_activation",
        "dense_a",
        regression(hidden=("relu", "relu")),
    ),
    Fault("relu leaks", activation("relu", lambda tf, x: tf.maximum(x, 0.001 * x)), "activation", "dense_b"),
    Fault(
        "relu stops at one",
        activation("relu", lambda tf, x: tf.clip_by_value(x, 0.0, 1.0)),
        "activation",
        "dense_a",
        regression(hidden=("relu", "relu"), first={"kernel_initializer": "ones"}),
    ),
    Fault(
        "tanh by a rational function",
        activation("tanh", lambda tf, x: x * (27 + x * x) / (27 + 9 * x * x)),
        "activation",
        "dense_a",
    ),
    Fault(
        "sigmoid 1e-5 off",
        activation("sigmoid", lambda tf, x: tf.nn.sigmoid(x) * (1 + 1e-5)),
        "activation",
        "dense_a",
        regression(hidden=("sigmoid", "relu")),
    ),
    Fault(
        "gelu by tanh",
        of_nn("gelu", lambda tf: lambda plain: lambda x, approximate=True: plain(x, True)),
        "activation",
        "dense_a",
        regression(hidden=("gelu", "relu")),
    ),
    Fault(
        "selu with short constants",
        activation("selu", lambda tf, x: 1.0507 * tf.where(x > 0, x, 1.6733 * tf.math.expm1(x))),
        "activation",
        "dense_a",
        regression(hidden=("selu", "relu")),
    ),
    Fault(
        "elu twice as deep",
        activation("elu", lambda tf, x: tf.where(x > 0, x, 2 * tf.math.expm1(x))),
        "activation",
        "dense_a",
        regression(hidden=("elu", "relu")),
    ),
    Fault(
        "leaky relu with the other slope",
        of_nn("leaky_relu", lambda tf: lambda plain: lambda x, negative_slope=0.2: plain(x, 0.3)),
        "activation",
        "dense_a",
        regression(hidden=("leaky_relu", "relu")),
    ),
    Fault(
        "swish with a slope",
        activation("silu", lambda tf, x: x * tf.nn.sigmoid(1.001 * x)),
        "activation",
        "dense_a",
        regression(hidden=("swish", "relu")),
    ),
    Fault(
        "softplus linear from 2 on",
        activation("softplus", lambda tf, x: tf.where(x > 2, x, tf.math.softplus(x))),
        "activation",
        "dense_a",
        regression(hidden=("softplus", "relu"), first={"kernel_initializer": "ones"}),
    ),
    Fault(
        "softmax over the batch",
        of_nn("softmax", lambda tf: lambda plain: lambda x, axis=-1: plain(x, 0)),
        "activation",
        "dense_b",
        regression(hidden=("relu", "softmax")),
    ),
    Fault(
        "dropout without its scale",
        keras_dropout(lambda tf, plain, x, rate, seed: plain(x, rate, seed=seed) * (1 - rate)),
        "activation",
        "dropout",
        DROPOUT,
    ),
    Fault(
        "dropout scaled the other way",
        keras_dropout(lambda tf, plain, x, rate, seed: plain(x, rate, seed=seed) * (1 - rate) ** 2),
        "activation",
        "dropout",
        DROPOUT,
    ),
    Fault(
        "batch variance over n - 1",
        _moments(lambda ops, mean, variance, x: (mean, variance * 16 / 15)),
        "activation",
        "norm",
        BATCH_NORM,
    ),
    Fault(
        "epsilon outside of the root",
        _normalized(lambda ops, x, mean, variance, b, g, e: (x - mean) / (ops.sqrt(variance) + e) * g + b),
        "activation",
        "norm",
        BATCH_NORM,
    ),
    Fault(
        "gamma squared",
        _normalized(lambda ops, x, mean, variance, b, g, e: (x - mean) / ops.sqrt(variance + e) * g * g + b),
        "gradient",
        "norm",
        BATCH_NORM,
    ),
    # -------------------------------------------------------------------------------------------- loss
    Fault(
        "cross-entropy forgets the zeros",
        of_nn(
            "binary_crossentropy", lambda tf: lambda plain: lambda t, o, from_logits=False: plain(t, o, from_logits) * t
        ),
        "loss",
    ),
    Fault(
        "cross-entropy clipped at 1e-3",
        of_nn(
            "binary_crossentropy",
            lambda tf: (
                lambda plain: lambda t, o, from_logits=False: plain(t, tf.clip_by_value(o, 0.3, 0.7), from_logits)
            ),
        ),
        "loss",
        None,
        regression(
            last="sigmoid",
            units=1,
            labels="binary",
            hidden=("relu", "relu"),
            between=lambda la: [],
            loss=lambda lo: lo.BinaryFocalCrossentropy(),
        ),
    ),
    Fault(
        "labels smoothed twice as much",
        method(
            LOSSES,
            "binary_crossentropy",
            lambda k, tf: (
                lambda plain: (
                    lambda t, p, from_logits=False, label_smoothing=0.0, axis=-1: plain(
                        t, p, from_logits, 2 * label_smoothing, axis
                    )
                )
            ),
        ),
        "loss",
        None,
        {"loss": lambda lo: lo.BinaryCrossentropy(label_smoothing=0.1)},
    ),
    Fault(
        "a sum in place of the mean",
        method(
            LOSS, "reduce_values", lambda k, tf: lambda plain: lambda v, sample_weight=None, reduction="": k.ops.sum(v)
        ),
        "loss",
    ),
    Fault(
        "the mean over a whole batch's size",
        method(
            LOSS,
            "reduce_values",
            lambda k, tf: lambda plain: lambda v, sample_weight=None, reduction="": k.ops.sum(v) / 16,
        ),
        "loss",
    ),
    Fault(
        "divided by the sum of the weights",
        method(
            LOSS,
            "reduce_values",
            lambda k, tf: (
                lambda plain: (
                    lambda v, sample_weight=None, reduction="": (
                        k.ops.sum(v) / k.ops.sum(sample_weight)
                        if sample_weight is not None
                        else plain(v, None, reduction)
                    )
                )
            ),
        ),
        "loss",
        fit=WEIGHTED,
    ),
    Fault(
        "mean squared error halved",
        loss_function("mean_squared_error", lambda ops, t, p: ops.mean(ops.square(p - t), axis=-1) / 2),
        "loss",
        None,
        regression(),
    ),
    Fault(
        "mean absolute error rooted",
        loss_function("mean_absolute_error", lambda ops, t, p: ops.mean(ops.sqrt(ops.square(p - t) + 1e-6), axis=-1)),
        "loss",
        None,
        with_loss(lambda lo: lo.MeanAbsoluteError()),
    ),
    Fault(
        "huber with a larger delta",
        method(LOSSES, "huber", lambda k, tf: lambda plain: lambda t, p, delta=1.0: plain(t, p, 1.01 * delta)),
        "loss",
        None,
        with_loss(lambda lo: lo.Huber()),
    ),
    Fault(
        "log-cosh without its constant",
        loss_function("log_cosh", lambda ops, t, p: ops.mean((p - t) + ops.softplus(-2 * (p - t)) - 0.6931, axis=-1)),
        "loss",
        None,
        with_loss(lambda lo: lo.LogCosh()),
    ),
    Fault(
        "hinge on labels of zero and one",
        method(LOSSES, "convert_binary_labels_to_hinge", lambda k, tf: lambda plain: lambda t: t),
        "loss",
        None,
        {"loss": lambda lo: lo.Hinge(), "last": "tanh", "metrics": ()},
    ),
    Fault(
        "poisson with another epsilon",
        loss_function("poisson", lambda ops, t, p: ops.mean(p - t * ops.log(p + 1e-3), axis=-1)),
        "loss",
        None,
        with_loss(lambda lo: lo.Poisson(), "counts", last="softplus"),
    ),
    Fault(
        "divergence without clipping the labels",
        loss_function("kl_divergence", lambda ops, t, p: ops.sum(t * ops.log(t / (p + 1e-3)), axis=-1)),
        "loss",
        None,
        with_loss(lambda lo: lo.KLDivergence(), "shares", last="sigmoid"),
    ),
    Fault(
        "squared logarithms to base two",
        loss_function(
            "mean_squared_logarithmic_error",
            lambda ops, t, p: ops.mean(ops.square(ops.log2(p + 1) - ops.log2(t + 1)), axis=-1),
        ),
        "loss",
        None,
        with_loss(lambda lo: lo.MeanSquaredLogarithmicError(), "shares", last="sigmoid"),
    ),
    Fault(
        "classes one off",
        of_nn(
            "sparse_categorical_crossentropy",
            lambda tf: (
                lambda plain: (
                    lambda t, o, from_logits=False, axis=-1: plain(
                        tf.math.floormod(tf.cast(t, "int32") + 1, 3), o, from_logits, axis
                    )
                )
            ),
        ),
        "loss",
        None,
        {**CLASSES, "labels": "classes", "loss": lambda lo: lo.SparseCategoricalCrossentropy()},
    ),
    Fault(
        "focal loss without its focus",
        method(
            LOSSES,
            "binary_focal_crossentropy",
            lambda k, tf: lambda plain: lambda *a, gamma=2.0, **b: plain(*a, gamma=0.0, **b),
        ),
        "loss",
        None,
        {"loss": lambda lo: lo.BinaryFocalCrossentropy()},
    ),
    Fault(
        "loss in float16",
        method(LOSSES, "mean_squared_error", lambda k, tf: lambda plain: lambda t, p: half(tf, plain(t, p))),
        "loss",
        None,
        regression(),
    ),
    # ----------------------------------------------------------------------------------------- penalty
    Fault(
        "L1 doubled",
        regularizer("L1", lambda ops, self, x: 2 * self.l1 * ops.sum(ops.absolute(x))),
        "penalty",
        "dense_a",
        PENALIZED,
    ),
    Fault(
        "L1 without absolute values",
        regularizer("L1", lambda ops, self, x: self.l1 * ops.sum(x)),
        "penalty",
        "dense_a",
        PENALIZED,
    ),
    Fault(
        "L1 of the mean",
        regularizer("L1", lambda ops, self, x: self.l1 * ops.mean(ops.absolute(x))),
        "penalty",
        "dense_a",
        PENALIZED,
    ),
    Fault(
        "L2 halved",
        regularizer("L2", lambda ops, self, x: self.l2 * ops.sum(ops.square(x)) / 2),
        "penalty",
        "dense_a",
        SQUARED,
    ),
    Fault(
        "L2 rooted",
        regularizer("L2", lambda ops, self, x: self.l2 * ops.sqrt(ops.sum(ops.square(x)))),
        "penalty",
        "dense_a",
        SQUARED,
    ),
    Fault(
        "factor in bfloat16",
        regularizer(
            "L2", lambda ops, self, x: ops.cast(ops.cast(self.l2, "bfloat16"), x.dtype) * ops.sum(ops.square(x))
        ),
        "penalty",
        "dense_a",
        SQUARED,
    ),
    Fault(
        "L2 of the first row",
        regularizer("L2", lambda ops, self, x: self.l2 * ops.sum(ops.square(x[0]))),
        "penalty",
        "dense_a",
        SQUARED,
    ),
    Fault(
        "activity not divided by the batch's size",
        regularizer("L2", lambda ops, self, x: self.l2 * ops.sum(ops.square(x)) * ops.cast(ops.shape(x)[0], x.dtype)),
        "penalty",
        "dense_a",
        {"first": {"activity_regularizer": "l2"}},
    ),
    # ------------------------------------------------------------------------------------------ metric
    Fault(
        "a threshold of 0.6",
        method(ACCURACY, "binary_accuracy", lambda k, tf: lambda plain: lambda t, p, threshold=0.5: plain(t, p, 0.55)),
        "metric",
    ),
    Fault("batches averaged", method(lambda k: k.metrics.Mean, "update_state", _mean_update), "metric"),
    Fault(
        "metrics not reset",
        method(lambda k: k.metrics.Mean, "reset_state", lambda k, tf: lambda plain: _nothing),
        "metric",
    ),
    Fault(
        "the second class counts too",
        method(
            ACCURACY,
            "categorical_accuracy",
            lambda k, tf: lambda plain: lambda t, p: k.ops.cast(k.ops.in_top_k(k.ops.argmax(t, -1), p, 2), "float32"),
        ),
        "metric",
        None,
        CLASSES,
    ),
    Fault(
        "a weighted metric without its weights",
        method(
            lambda k: k.metrics.MeanMetricWrapper,
            "update_state",
            lambda k, tf: lambda plain: lambda self, t, p, sample_weight=None: plain(self, t, p),
        ),
        "metric",
        None,
        regression(weighted_metrics=("mae",)),
        WEIGHTED,
    ),
    # ---------------------------------------------------------------------------------------- gradient
    Fault(
        "one element of a gradient zero", gradient_of(2, lambda tf, g: first_element(tf, g, 0.0)), "gradient", "dense_b"
    ),
    Fault(
        "a gradient 1e-5 off",
        gradient_of(0, lambda tf, g: g * (1 + 1e-5)),
        "gradient",
        "dense_a",
        regression(first={"kernel_initializer": "ones"}),
    ),
    Fault("a gradient 1e-3 off", gradient_of(0, lambda tf, g: g * (1 + 1e-3)), "gradient", "dense_a"),
    Fault("a bias gradient averaged", gradient_of(3, lambda tf, g: g / 16), "gradient", "dense_b"),
    Fault("a gradient of the other sign", gradient_of(4, lambda tf, g: -g), "gradient", "dense_c"),
    Fault("a gradient in float16", gradient_of(2, half), "gradient", "dense_b"),
    Fault("a gradient of a row left out", gradient_of(0, lambda tf, g: g * 15 / 16), "gradient", "dense_a"),
    Fault(
        "tanh derived at its input", derivative("tanh", lambda tf, dy, x, y: dy * (1 - x * x)), "gradient", "dense_a"
    ),
    Fault(
        "sigmoid's derivative short",
        derivative("sigmoid", lambda tf, dy, x, y: dy * y * (1 - y) * 0.999),
        "gradient",
        "dense_a",
        regression(hidden=("sigmoid", "relu")),
    ),
    Fault("relu's derivative everywhere one", derivative("relu", lambda tf, dy, x, y: dy), "gradient", "dense_b"),
    Fault(
        "elu's derivative without its one",
        derivative("elu", lambda tf, dy, x, y: dy * tf.where(x > 0, 1.0, y)),
        "gradient",
        "dense_a",
        regression(hidden=("elu", "relu")),
    ),
    Fault(
        "gelu derived by its sigmoid",
        derivative("gelu", lambda tf, dy, x, y: dy * tf.nn.sigmoid(1.702 * x)),
        "gradient",
        "dense_a",
        regression(hidden=("gelu", "relu")),
    ),
    Fault(
        "penalty without a gradient",
        method(
            lambda k: k.regularizers.L2, "__call__", lambda k, tf: after(lambda found, *a: k.ops.stop_gradient(found))
        ),
        "gradient",
        "dense_a",
        SQUARED,
    ),
    Fault("another mask in the backward pass", keras_dropout(_other_mask_in_backward), "gradient", "dense_a", DROPOUT),
    Fault("dropout's backward pass unscaled", keras_dropout(_unscaled_in_backward), "gradient", "dense_a", DROPOUT),
    Fault(
        "batch statistics taken for constants",
        method(
            lambda k: k.layers.BatchNormalization,
            "_moments",
            lambda k, tf: after(lambda found, *a: tuple(tf.stop_gradient(one) for one in found)),
        ),
        "gradient",
        "dense_a",
        BATCH_NORM,
    ),
    Fault(
        "loss derived twice as steep",
        method(
            LOSSES,
            "mean_squared_error",
            lambda k, tf: lambda plain: lambda t, p: 2 * plain(t, p) - k.ops.stop_gradient(plain(t, p)),
        ),
        "gradient",
        "dense_c",
        regression(),
    ),
    # -------------------------------------------------------------------------------------------- slot
    Fault("m without its factor", adam(m=lambda ops, m, g, b: b * m + g), "slot", EVERY_DENSE, regression()),
    Fault(
        "v of absolute values",
        adam(v=lambda ops, v, g, b: v + (ops.absolute(g) - v) * (1 - b)),
        "slot",
        EVERY_DENSE,
        regression(),
    ),
    Fault("beta_2 of 0.99", adam(betas=(0.9, 0.99)), "slot", EVERY_DENSE, regression()),
    Fault("amsgrad without the maximum", adam(v_hat=lambda ops, v_hat, v: v), "slot", EVERY_DENSE, AMSGRAD),
    Fault(
        "momentum dampened",
        _sgd(lambda ops, m, g, lr, mu, n: (mu * m - (1 - mu) * lr * g,) * 2),
        "slot",
        EVERY_DENSE,
        MOMENTUM,
    ),
    Fault(
        "decay in the gradient",
        method(
            lambda k: k.optimizers.Adam,
            "update_step",
            lambda k, tf: lambda plain: lambda self, g, v, lr: plain(self, g + 0.1 * v, v, lr),
        ),
        "slot",
        EVERY_DENSE,
        ADAM_W,
    ),
    Fault(
        "rho the other way round",
        _rmsprop(lambda ops, v, g, rho: (1 - rho) * v + rho * ops.square(g), lambda ops, v, e: ops.sqrt(v + e)),
        "slot",
        EVERY_DENSE,
        RMSPROP,
    ),
    Fault("clipped element by element", _clipped(lambda ops, g: ops.clip(g, -0.1, 0.1)), "slot", EVERY_DENSE, CLIPPED),
    Fault("not clipped", _clipped(lambda ops, g: g), "slot", EVERY_DENSE, CLIPPED),
    Fault(
        "accumulated gradients not dropped",
        method(
            lambda k: k.optimizers.Optimizer,
            "_backend_reset_gradient_accumulators",
            lambda k, tf: lambda plain: _nothing,
        ),
        "slot",
        EVERY_DENSE,
        ACCUMULATING,
    ),
    Fault("averages the other way round", _ema(lambda m: 1 - m), "slot", EVERY_DENSE, AVERAGED),
    Fault(
        "adagrad from zero",
        method(
            lambda k: k.optimizers.Adagrad,
            "update_step",
            lambda k, tf: lambda plain: lambda self, g, v, lr: plain(self, g * 0.99, v, lr),
        ),
        "slot",
        EVERY_DENSE,
        with_optimizer(lambda o: o.Adagrad(0.05)),
    ),
    Fault(
        "adamax without its maximum",
        method(
            lambda k: k.optimizers.Adamax,
            "update_step",
            lambda k, tf: lambda plain: lambda self, g, v, lr: plain(self, k.ops.absolute(g), v, lr),
        ),
        "slot",
        EVERY_DENSE,
        with_optimizer(lambda o: o.Adamax(0.01)),
    ),
    # ------------------------------------------------------------------------------------------ weight
    Fault(
        "epsilon in the root",
        adam(step=lambda ops, m, v, a, e: m * a / ops.sqrt(v + e)),
        "weight",
        EVERY_DENSE,
        regression(),
    ),
    Fault(
        "epsilon forgotten",
        adam(step=lambda ops, m, v, a, e: m * a / ops.sqrt(v)),
        "weight",
        EVERY_DENSE,
        with_optimizer(lambda o: o.Adam(0.01, epsilon=1e-3)),
    ),
    Fault(
        "epsilon added before the correction",
        adam(step=lambda ops, m, v, a, e: m * a / (ops.sqrt(v) + e / 31.6)),
        "weight",
        EVERY_DENSE,
        with_optimizer(lambda o: o.Adam(0.01, epsilon=1e-3)),
    ),
    Fault(
        "bias corrected one step late",
        adam(alpha=lambda ops, lr, b1, b2, t: lr * ops.sqrt(1 - ops.power(b2, t + 1)) / (1 - ops.power(b1, t + 1))),
        "weight",
        EVERY_DENSE,
        regression(),
    ),
    Fault("bias not corrected", adam(alpha=lambda ops, lr, b1, b2, t: lr), "weight", EVERY_DENSE, regression()),
    Fault(
        "only m corrected",
        adam(alpha=lambda ops, lr, b1, b2, t: lr / (1 - ops.power(b1, t))),
        "weight",
        EVERY_DENSE,
        regression(),
    ),
    Fault(
        "learning rate in bfloat16",
        adam(
            alpha=lambda ops, lr, b1, b2, t: (
                ops.cast(ops.cast(lr, "bfloat16"), "float32") * ops.sqrt(1 - ops.power(b2, t)) / (1 - ops.power(b1, t))
            )
        ),
        "weight",
        EVERY_DENSE,
        regression(),
    ),
    Fault(
        "update in bfloat16",
        adam(step=lambda ops, m, v, a, e: ops.cast(ops.cast(m * a / (ops.sqrt(v) + e), "bfloat16"), "float32")),
        "weight",
        EVERY_DENSE,
        regression(),
    ),
    Fault(
        "decay not scaled by the learning rate",
        method(
            lambda k: k.optimizers.Optimizer,
            "_apply_weight_decay",
            lambda k, tf: lambda plain: lambda self, variables: [v.assign(v - 0.1 * v) for v in variables] and None,
        ),
        "weight",
        EVERY_DENSE,
        ADAM_W,
    ),
    Fault(
        "no decay",
        method(lambda k: k.optimizers.Optimizer, "_apply_weight_decay", lambda k, tf: lambda plain: _nothing),
        "weight",
        EVERY_DENSE,
        ADAM_W,
    ),
    Fault(
        "nesterov left out", _sgd(lambda ops, m, g, lr, mu, n: (mu * m - lr * g,) * 2), "weight", EVERY_DENSE, NESTEROV
    ),
    Fault(
        "nesterov where it is not asked for",
        _sgd(lambda ops, m, g, lr, mu, n: (mu * m - lr * g, mu * (mu * m - lr * g) - lr * g)),
        "weight",
        EVERY_DENSE,
        MOMENTUM,
    ),
    Fault(
        "epsilon outside of rmsprop's root",
        _rmsprop(lambda ops, v, g, rho: rho * v + (1 - rho) * ops.square(g), lambda ops, v, e: ops.sqrt(v) + e),
        "weight",
        EVERY_DENSE,
        with_optimizer(lambda o: o.RMSprop(0.01, epsilon=1e-3)),
    ),
    Fault(
        "the learning rate a tenth of a percent off",
        update_step("SGD", lambda self, ops, g, v, lr: self.assign_sub(v, g * lr * 1.001)),
        "weight",
        EVERY_DENSE,
        PLAIN_SGD,
    ),
    Fault(
        "uphill",
        update_step("SGD", lambda self, ops, g, v, lr: self.assign_add(v, g * lr)),
        "weight",
        EVERY_DENSE,
        PLAIN_SGD,
    ),
    Fault(
        "the schedule one step late",
        method(
            lambda k: k.optimizers.schedules.ExponentialDecay,
            "__call__",
            lambda k, tf: lambda plain: lambda self, step: plain(self, step - 1),
        ),
        ("weight", "slot"),
        (*EVERY_DENSE, None),
        SCHEDULED,
    ),
    Fault(
        "constraint not applied",
        method(lambda k: k.constraints.MaxNorm, "__call__", lambda k, tf: lambda plain: lambda self, w: w),
        "weight",
        "dense_a",
        CONSTRAINED,
    ),
    Fault(
        "negative weights turned round",
        method(
            lambda k: k.constraints.NonNeg, "__call__", lambda k, tf: lambda plain: lambda self, w: k.ops.absolute(w)
        ),
        "weight",
        "dense_a",
        NON_NEGATIVE,
    ),
    Fault(
        "moving mean's momentum the other way round",
        _assigned("moving_mean", lambda new, old: old * 0.01 + (new - 0.99 * old) / 0.01 * 0.99),
        "weight",
        "norm",
        BATCH_NORM,
    ),
    Fault(
        "moving variance over n - 1",
        _assigned("moving_variance", lambda new, old: 0.99 * old + (new - 0.99 * old) * 16 / 15),
        "weight",
        "norm",
        BATCH_NORM,
    ),
    Fault("moving mean not kept", _assigned("moving_mean", lambda new, old: old), "weight", "norm", BATCH_NORM),
    Fault(
        "glorot of the wrong fan",
        method(
            module("initializers.random_initializers"),
            "compute_fans",
            lambda k, tf: lambda plain: lambda shape, *a, **b: (shape[0] * 2, shape[1]),
        ),
        "weight",
        EVERY_DENSE,
        regression(),
    ),
    Fault(
        "normal in place of uniform weights",
        method(
            lambda k: _backend().random,
            "uniform",
            lambda k, tf: (
                lambda plain: (
                    lambda shape, minval=0.0, maxval=1.0, dtype=None, seed=None: plain(
                        shape, minval, maxval * 0.999, dtype, seed
                    )
                )
            ),
        ),
        "weight",
        EVERY_DENSE,
        regression(),
    ),
]
