"""The specification: every formula of minidl, one function each, forward and backward side by side.

Pure functions of arrays, on NumPy and on CuPy arrays alike. None keeps state. Results are new arrays, or are
written to `out` where that is given. Shapes: B batch, I inputs, U units; `...` any leading dimensions.
A gradient of the loss L with respect to a quantity q is called d_q = ∂L/∂q and has q's shape.

Arithmetic is done in the dtype of the arrays (float32 or float64). "Keras" below is Keras 3.15 on its
TensorFlow backend; the order of operations follows it wherever a different order would round differently.

Contents: dense · activations · dropout · binary cross-entropy · penalties · SGD and Adam · accuracy · means
"""

from __future__ import annotations

import math

import numpy as np

from minidl.backend import Array, array_module

# ------------------------------------------------------------------------------------------------ dense


def dense(inputs: Array, kernel: Array, bias: Array | None = None, *, out: Array | None = None) -> Array:
    """outputs = inputs @ kernel + bias;  (B, I) @ (I, U) + (U,) -> (B, U).

    The pre-activation of a Dense layer; its activation is a function of its own below.
    Errors: ValueError (NumPy's) if the shapes do not fit.
    Source: Goodfellow, Bengio & Courville 2016, eq. 6.2; keras.layers.Dense.call.
    """
    xp = array_module(inputs, kernel)
    outputs = xp.matmul(inputs, kernel, out=out)
    if bias is not None:
        outputs += bias
    return outputs


def dense_backward(d_outputs: Array, kernel: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs @ kernelᵀ;  (B, U) @ (U, I) -> (B, I).

    What the layer below receives. Source: Goodfellow et al. 2016, algorithm 6.4.
    """
    return array_module(d_outputs, kernel).matmul(d_outputs, kernel.T, out=out)


def dense_gradients(
    d_outputs: Array,
    inputs: Array,
    *,
    out_kernel: Array | None = None,
    out_bias: Array | None = None,
) -> tuple[Array, Array]:
    """What the layer's own parameters receive: d_outputs (B, U), inputs (B, I) -> d_kernel (I, U), d_bias (U,).

        d_kernel = inputsᵀ @ d_outputs      (I, B) @ (B, U): a sum over the batch
        d_bias   = Σ_B d_outputs            the bias was broadcast over B, so sum over B

    Source: Goodfellow et al. 2016, algorithm 6.4.
    """
    xp = array_module(d_outputs, inputs)
    d_kernel = xp.matmul(inputs.T, d_outputs, out=out_kernel)
    d_bias = d_outputs.sum(axis=0, out=out_bias)
    return d_kernel, d_bias


# ------------------------------------------------------------------------------------------ activations
# Each backward needs only the outputs: these five derivatives are all functions of the function's own value.


def linear(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = inputs;  (...) -> (...). Source: keras.activations.linear."""
    if out is None:
        return inputs
    out[...] = inputs
    return out


def linear_backward(d_outputs: Array, outputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs;  (...) -> (...)."""
    return linear(d_outputs, out=out)


def relu(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = max(inputs, 0);  (...) -> (...). Source: Nair & Hinton 2010; keras.activations.relu."""
    return array_module(inputs).maximum(inputs, 0, out=out)


def relu_backward(d_outputs: Array, outputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs where outputs > 0, else 0;  (...), (...) -> (...).

    The derivative at 0, where there is none, is taken as 0, as TensorFlow's ReluGrad takes it.
    """
    return array_module(d_outputs).multiply(d_outputs, outputs > 0, out=out)


def sigmoid(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = 1 / (1 + e^(−inputs));  (...) -> (...), in [0, 1].

    Computed from t = e^(−|inputs|) ≤ 1, which cannot overflow: 1 / (1 + t) where inputs ≥ 0, else t / (1 + t).
    Source: keras.activations.sigmoid.
    """
    xp = array_module(inputs)
    t = xp.exp(-xp.abs(inputs))
    return xp.divide(xp.where(inputs >= 0, 1, t), 1 + t, out=out)


def sigmoid_backward(d_outputs: Array, outputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · outputs · (1 − outputs);  (...), (...) -> (...)."""
    return array_module(d_outputs).multiply(d_outputs, outputs * (1 - outputs), out=out)


def tanh(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = tanh(inputs);  (...) -> (...), in [−1, 1]. Source: keras.activations.tanh."""
    return array_module(inputs).tanh(inputs, out=out)


def tanh_backward(d_outputs: Array, outputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · (1 − outputs²);  (...), (...) -> (...)."""
    return array_module(d_outputs).multiply(d_outputs, 1 - outputs * outputs, out=out)


def softmax(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs_u = e^(inputs_u) / Σ_v e^(inputs_v) over the last axis;  (..., U) -> (..., U), rows sum to 1.

    The row's maximum is subtracted first: the quotient does not change and no exponential overflows.
    Source: Goodfellow et al. 2016, eq. 6.29; keras.activations.softmax.
    """
    xp = array_module(inputs)
    exponentials = xp.exp(inputs - inputs.max(axis=-1, keepdims=True))
    return xp.divide(exponentials, exponentials.sum(axis=-1, keepdims=True), out=out)


def softmax_backward(d_outputs: Array, outputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs_u = outputs_u · (d_outputs_u − Σ_v d_outputs_v · outputs_v);  (..., U), (..., U) -> (..., U)."""
    xp = array_module(d_outputs)
    mean_gradient = (d_outputs * outputs).sum(axis=-1, keepdims=True)
    return xp.multiply(outputs, d_outputs - mean_gradient, out=out)


# ---------------------------------------------------------------------------------------------- dropout


def dropout(inputs: Array, mask: Array, *, rate: float, out: Array | None = None) -> Array:
    """outputs = inputs / (1 − rate) where mask, else 0;  inputs (...), mask (...) of bool -> (...).

    rate is the fraction dropped; mask is True where a unit is kept. Scaling the kept units by 1/(1 − rate)
    leaves the expected output equal to the input, so that nothing is to be done at inference. The factor is
    computed in double precision, rounded once and multiplied; rate = 1 keeps nothing and gives zeros.
    Source: Srivastava et al. 2014, §10 ("inverted" form); tf.nn.experimental.stateless_dropout.
    """
    xp = array_module(inputs)
    if rate == 1.0:
        outputs = xp.empty_like(inputs) if out is None else out
        outputs[...] = 0
        return outputs
    outputs = xp.multiply(inputs, 1.0 / (1.0 - rate), out=out)
    xp.copyto(outputs, 0, where=~mask)
    return outputs


def dropout_backward(d_outputs: Array, mask: Array, *, rate: float, out: Array | None = None) -> Array:
    """d_inputs = d_outputs / (1 − rate) where mask, else 0;  the forward's own mask: (...), (...) -> (...)."""
    return dropout(d_outputs, mask, rate=rate, out=out)


# --------------------------------------------------------------------------------- binary cross-entropy


def binary_crossentropy(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """losses = −(y ln p + (1 − y) ln(1 − p)), p clipped to [ε, 1 − ε];  (...), (...) -> (...), nats.

    y = y_true in [0, 1], p = y_pred in [0, 1], ε = epsilon. The clip keeps ln finite, and hides what a
    saturated p did wrong: its loss is at most −ln ε ≈ 16.1 and its gradient is 0.
    Source: keras.src.backend.tensorflow.nn.binary_crossentropy, the branch from_logits=False.
    See binary_crossentropy_from_logits for what TensorFlow computes when p comes from a sigmoid.
    """
    xp = array_module(y_pred)
    p = xp.clip(y_pred, epsilon, 1.0 - epsilon)
    return -(y_true * xp.log(p) + (1 - y_true) * xp.log(1 - p))


def binary_crossentropy_backward(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """d_y_pred = (1 − y) / (1 − p) − y / p, and 0 where p was clipped;  (...), (...) -> (...).

    The derivative of each element's own loss; the mean over the batch is the caller's.
    """
    xp = array_module(y_pred)
    dtype = y_pred.dtype.type
    low, high = dtype(epsilon), dtype(1.0 - epsilon)
    p = xp.clip(y_pred, low, high)
    gradient = (1 - y_true) / (1 - p) - y_true / p
    gradient[(y_pred < low) | (y_pred > high)] = 0
    return gradient


def binary_crossentropy_from_logits(y_true: Array, logits: Array) -> Array:
    """losses = max(z, 0) − z·y + ln(1 + e^(−|z|));  (...), (...) -> (...), nats.

    y = y_true in [0, 1], z = logits. The same function as binary_crossentropy(y, sigmoid(z)) without the clip,
    rearranged so that nothing overflows and nothing cancels: exact to rounding at |z| = 10⁴ and beyond.

    This is also what Keras on TensorFlow trains with when the model ends in a sigmoid: it finds the sigmoid
    under the probabilities and goes back to its logits (keras.src.backend.tensorflow.nn._get_logits). So a
    saturated and wrong prediction has the loss |z|, not 16.1, and a gradient that is not 0.
    Source: tf.nn.sigmoid_cross_entropy_with_logits.
    """
    xp = array_module(logits)
    return xp.maximum(logits, 0) - logits * y_true + xp.log1p(xp.exp(-xp.abs(logits)))


def binary_crossentropy_from_logits_backward(y_true: Array, logits: Array) -> Array:
    """d_logits = sigmoid(z) − y;  (...), (...) -> (...).

    Computed from t = e^(−|z|) as (1 − y) − t/(1 + t) where z ≥ 0, else t/(1 + t) − y: for a confident right
    answer sigmoid(z) − y would be a difference of nearly equal numbers, and Adam makes a step of any gradient
    however small, so its relative error matters.
    """
    xp = array_module(logits)
    t = xp.exp(-xp.abs(logits))
    tail = t / (1 + t)  # sigmoid(−|z|), accurate to its last bits
    return xp.where(logits >= 0, (1 - y_true) - tail, tail - y_true)


# -------------------------------------------------------------------------------------------- penalties


def l1_penalty(weights: Array, *, l1: float) -> Array:
    """penalty = l1 · Σ|w|;  (...) -> (). Source: Tibshirani 1996; keras.regularizers.L1."""
    xp = array_module(weights)
    return weights.dtype.type(l1) * xp.abs(weights).sum()


def l1_gradient(weights: Array, *, l1: float, out: Array | None = None) -> Array:
    """d_weights = l1 · sign(w), with the subgradient 0 at w = 0, as tf.sign has it;  (...) -> (...).

    A pull towards 0 of the same size for every weight: small weights are held there, large ones barely notice.
    """
    xp = array_module(weights)
    return xp.multiply(xp.sign(weights), weights.dtype.type(l1), out=out)


def l2_penalty(weights: Array, *, l2: float) -> Array:
    """penalty = l2 · Σw²;  (...) -> (). There is no ½ in it, so the gradient has a 2.

    Source: Hoerl & Kennard 1970; keras.regularizers.L2.
    """
    xp = array_module(weights)
    return weights.dtype.type(l2) * xp.square(weights).sum()


def l2_gradient(weights: Array, *, l2: float, out: Array | None = None) -> Array:
    """d_weights = 2 · l2 · w;  (...) -> (...).

    A pull towards 0 in proportion to the weight: large weights shrink fast, none is driven to 0.
    """
    return array_module(weights).multiply(weights, weights.dtype.type(2 * l2), out=out)


# ------------------------------------------------------------------------------------------ update rules


def sgd_step(param: Array, grad: Array, *, learning_rate: float) -> None:
    """One step of gradient descent; writes param in place, only reads grad.

        θ ← θ − η g

    θ = param, g = grad, η = learning_rate. Shapes: equal. dtype: one float type.
    Source: Robbins & Monro 1951; keras.optimizers.SGD.update_step without momentum.
    """
    param -= grad * param.dtype.type(learning_rate)


def adam_alpha(dtype: type, *, step: int, learning_rate: float, beta_1: float, beta_2: float) -> float:
    """α = η √(1 − β₂ᵗ) / (1 − β₁ᵗ), Adam's step size with both bias corrections in it;  a scalar of dtype.

    η = learning_rate, t = step (1-based). Every operation rounds to dtype, as in Keras, where they are tensors.
    A power is computed in double and rounded once, of β rounded to float32: also for dtype float64, since
    keras.ops.cast of a Python float makes a float32 tensor first (measured: 1 − β₂ is off by 1.3e-5 of itself).
    Errors: ValueError if step < 1.
    """
    if step < 1:
        raise ValueError(f"adam: step counts from 1, got {step}. Pass iterations + 1.")
    power_1 = dtype(math.pow(np.float32(beta_1), step))
    power_2 = dtype(math.pow(np.float32(beta_2), step))
    one = dtype(1)
    return dtype(learning_rate) * dtype(math.sqrt(one - power_2)) / (one - power_1)


def adam_step(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> None:
    """One Adam update; writes param, m and v in place, only reads grad.

        m ← m + (1 − β₁)(g − m)
        v ← v + (1 − β₂)(g² − v)
        α = η √(1 − β₂ᵗ) / (1 − β₁ᵗ)
        θ ← θ − α m / (√v + ε̂)

    θ = param, g = grad, η = learning_rate, t = step (1-based, per batch), ε̂ = epsilon.
    Shapes: all equal. dtype: one float type, in which α is computed too, as Keras does.
    Units: η in those of param, v in those of grad², ε̂ in those of grad.
    Errors: ValueError if step < 1, or a shape or dtype differs.
    Source: Kingma & Ba 2015, the ε̂ form before §2.1 (not Algorithm 1's ε); keras.optimizers.Adam.update_step.
    """
    if not (param.shape == grad.shape == m.shape == v.shape and param.dtype == grad.dtype == m.dtype == v.dtype):
        described = ", ".join(f"{a.dtype}{a.shape}" for a in (param, grad, m, v))
        raise ValueError(f"adam_step: param, grad, m and v must have one shape and dtype; got {described}.")
    xp = array_module(param)
    dtype = param.dtype.type
    alpha = adam_alpha(dtype, step=step, learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2)
    m += (grad - m) * dtype(1.0 - beta_1)
    v += (xp.square(grad) - v) * dtype(1.0 - beta_2)
    param -= (m * alpha) / (xp.sqrt(v) + dtype(epsilon))


# -------------------------------------------------------------------------------- accuracy, and the means


def binary_accuracy(y_true: Array, y_pred: Array, *, threshold: float = 0.5) -> Array:
    """matches = 1 where y_true = [y_pred > threshold], else 0;  (...), (...) -> (...), of y_pred's dtype.

    The comparison is strict: a prediction of exactly 0.5 counts as class 0. A label that is neither 0 nor 1
    never matches. Source: keras.metrics.binary_accuracy.
    """
    dtype = y_pred.dtype
    return ((y_pred > dtype.type(threshold)).astype(dtype) == y_true).astype(dtype)


def weighted_mean_over_batch(losses: Array, sample_weight: Array | None = None) -> Array:
    """loss = Σ_b w_b ℓ_b / B;  losses (B,), sample_weight (B,) or None (all 1) -> ().

    Divided by the number of samples B, not by the sum of the weights: Keras's "sum_over_batch_size".
    Source: keras.src.losses.loss.reduce_weighted_values.
    """
    weighted = losses if sample_weight is None else losses * sample_weight
    return weighted.sum() / losses.dtype.type(losses.size)
