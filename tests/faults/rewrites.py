"""Rewrites of Keras that are as right as Keras: other orders of summation, other roundings on the way; no faults."""

from __future__ import annotations

from typing import Any

from faults.catalogue import (
    ACCUMULATING,
    AMSGRAD,
    BATCH_NORM,
    CLASSES,
    DROPOUT,
    LAYER_NORM,
    MOMENTUM,
    NESTEROV,
    PENALIZED,
    PLAIN_SGD,
    RMSPROP,
    SQUARED,
    WEIGHTED,
    Fault,
    _rmsprop,
    _sgd,
    activation,
    adam,
    gradient_of,
    keras_dropout,
    loss_function,
    matmul,
    method,
    module,
    regression,
    regularizer,
    update_step,
)

RELU = regression(hidden=("relu", "relu"))


def rewrite(name: str, plant: Any, model: dict[str, Any] | None = None, fit: dict[str, Any] | None = None) -> Fault:
    return Fault(name, plant, (), (), model if model is not None else RELU, fit or {})


def _nothing(k: Any, tf: Any, swap: Any) -> None:
    """The rewrite is in the settings."""


def _wide(tf: Any, plain: Any, a: Any, b: Any) -> Any:
    return tf.cast(tf.matmul(tf.cast(a, tf.float64), tf.cast(b, tf.float64)), a.dtype)


def _by_halves(tf: Any, plain: Any, a: Any, b: Any) -> Any:
    half = b.shape[0] // 2
    return plain(a[:, :half], b[:half]) + plain(a[:, half:], b[half:])


def _by_outer_products(tf: Any, plain: Any, a: Any, b: Any) -> Any:
    total = 0.0
    for i in reversed(range(b.shape[0])):
        total = total + a[:, i : i + 1] * b[i : i + 1]
    return total


def _by_columns(tf: Any, plain: Any, a: Any, b: Any) -> Any:
    return tf.concat([plain(a, b[:, i : i + 1]) for i in range(b.shape[1])], 1)


REWRITES = [
    rewrite("product in float64", matmul(_wide)),
    rewrite("product in two halves", matmul(_by_halves)),
    rewrite("product summed from the end", matmul(_by_outer_products)),
    rewrite("product column by column", matmul(_by_columns)),
    rewrite(
        "product transposed", matmul(lambda tf, plain, a, b: tf.transpose(plain(tf.transpose(b), tf.transpose(a))))
    ),
    rewrite("product by einsum", matmul(lambda tf, plain, a, b: tf.einsum("bi,io->bo", a, b))),
    rewrite("product by a sum of products", matmul(lambda tf, plain, a, b: tf.reduce_sum(a[:, :, None] * b[None], 1))),
    rewrite("product of permuted inputs", matmul(lambda tf, plain, a, b: plain(a[:, ::-1], b[::-1]))),
    rewrite(
        "product of padded inputs",
        matmul(lambda tf, plain, a, b: plain(tf.pad(a, [[0, 0], [0, 3]]), tf.pad(b, [[0, 3], [0, 0]]))),
    ),
    rewrite("relu by where", activation("relu", lambda tf, x: tf.where(x > 0, x, 0.0))),
    rewrite("relu by maximum", activation("relu", lambda tf, x: tf.maximum(x, 0.0))),
    rewrite(
        "leaky relu by maximum",
        activation("leaky_relu", lambda tf, x: tf.maximum(x, 0.2 * x)),
        regression(hidden=("leaky_relu", "relu")),
    ),
    rewrite(
        "elu by expm1",
        activation("elu", lambda tf, x: tf.where(x > 0, x, tf.math.expm1(tf.minimum(x, 0.0)))),
        regression(hidden=("elu", "relu")),
    ),
    rewrite(
        "softmax shifted by hand",
        lambda k, tf, swap: swap(
            __import__("keras.src.backend.tensorflow", fromlist=["nn"]).nn,
            "softmax",
            lambda plain: lambda x, axis=-1: plain(x - tf.reduce_max(x, axis, keepdims=True), axis),
        ),
        regression(hidden=("relu", "softmax")),
    ),
    rewrite(
        "dropout by a product",
        keras_dropout(
            lambda tf, plain, x, rate, seed: (
                x * tf.cast(plain(tf.ones_like(x), rate, seed=seed) != 0, x.dtype) / (1 - rate)
            )
        ),
        DROPOUT,
    ),
    rewrite(
        "squared error by products",
        loss_function("mean_squared_error", lambda ops, t, p: ops.mean((p - t) * (p - t), axis=-1)),
        regression(),
    ),
    rewrite(
        "squared error summed, then divided",
        loss_function("mean_squared_error", lambda ops, t, p: ops.sum(ops.square(t - p), axis=-1) / 2),
        regression(),
    ),
    rewrite(
        "the mean by a product",
        method(
            module("losses.loss"),
            "reduce_values",
            lambda k, tf: lambda plain: lambda v, sample_weight=None, reduction="": k.ops.mean(v),
        ),
        regression(),
        WEIGHTED,
    ),
    rewrite(
        "the batch summed from its end",
        method(
            module("losses.loss"),
            "reduce_values",
            lambda k, tf: (
                lambda plain: lambda v, sample_weight=None, reduction="": plain(v[::-1], None, "sum_over_batch_size")
            ),
        ),
        regression(),
    ),
    rewrite("L1 by signs", regularizer("L1", lambda ops, self, x: ops.sum(x * ops.sign(x)) * self.l1), PENALIZED),
    rewrite(
        "L1 of the scaled weights",
        regularizer("L1", lambda ops, self, x: ops.sum(ops.absolute(x) * self.l1)),
        PENALIZED,
    ),
    rewrite("L2 by a product", regularizer("L2", lambda ops, self, x: self.l2 * ops.sum(x * x)), SQUARED),
    rewrite(
        "L2 by rows", regularizer("L2", lambda ops, self, x: self.l2 * ops.sum(ops.sum(ops.square(x), 1))), SQUARED
    ),
    rewrite("adam's m as a weighted sum", adam(m=lambda ops, m, g, b: b * m + (1 - b) * g), regression()),
    rewrite("adam's v as a weighted sum", adam(v=lambda ops, v, g, b: b * v + (1 - b) * g * g), AMSGRAD),
    rewrite("adam's step divided first", adam(step=lambda ops, m, v, a, e: m / (ops.sqrt(v) + e) * a), regression()),
    rewrite(
        "adam's alpha in another order",
        adam(alpha=lambda ops, lr, b1, b2, t: lr / (1 - ops.power(b1, t)) * ops.sqrt(1 - ops.power(b2, t))),
        ACCUMULATING,
    ),
    rewrite("momentum as a difference", _sgd(lambda ops, m, g, lr, mu, n: (-(lr * g - mu * m),) * 2), MOMENTUM),
    rewrite(
        "nesterov in another order",
        _sgd(lambda ops, m, g, lr, mu, n: (mu * m - lr * g, -lr * g + mu * (mu * m - lr * g))),
        NESTEROV,
    ),
    rewrite(
        "descent by a negative step",
        update_step("SGD", lambda self, ops, g, v, lr: self.assign_add(v, -(lr * g))),
        PLAIN_SGD,
    ),
    rewrite(
        "rmsprop as a difference",
        _rmsprop(lambda ops, v, g, rho: v + (1 - rho) * (ops.square(g) - v), lambda ops, v, e: ops.sqrt(v + e)),
        RMSPROP,
    ),
    rewrite("a gradient by way of float64", gradient_of(0, lambda tf, g: tf.cast(tf.cast(g, tf.float64), g.dtype))),
    rewrite("XLA", _nothing, {**RELU, "compiled": {"jit_compile": True}}),
    rewrite("XLA with dropout", _nothing, {**DROPOUT, "compiled": {"jit_compile": True}}),
    rewrite("XLA of a softmax", _nothing, {**CLASSES, "compiled": {"jit_compile": True}}),
    rewrite("eagerly", _nothing, {**BATCH_NORM, "compiled": {"run_eagerly": True}}),
    rewrite("eagerly, layers normalized", _nothing, {**LAYER_NORM, "compiled": {"run_eagerly": True}}),
]

# What is set before TensorFlow is imported, with some of the models above, each in a process of its own.
SETTINGS = {
    "oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "one thread": {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"},
    "four threads": {"TF_NUM_INTRAOP_THREADS": "4", "OMP_NUM_THREADS": "4"},
    "no grappler": {"TF_DISABLE_REMAPPER": "1", "TF_CPP_MAX_VLOG_LEVEL": "0"},
}
