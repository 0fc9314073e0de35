"""The specification: every formula of minidl, one function each, forward and backward side by side.

Pure functions of arrays, on NumPy and on CuPy arrays alike. None keeps state. Results are new arrays, or are
written to `out` where that is given. Shapes: B batch, I inputs, U units; `...` any leading dimensions.
A gradient of the loss L with respect to a quantity q is called d_q = ∂L/∂q and has q's shape.

Arithmetic is done in the dtype of the arrays (float32 or float64). "Keras" below is Keras 3.15 on its
TensorFlow backend; the order of operations follows it wherever a different order would round differently.

Contents: dense · activations · dropout · binary cross-entropy · penalties · update rules · clipping,
decay and averages of weights · learning-rate schedules · accuracy · means
"""

from __future__ import annotations

import math

import numpy as np

from minidl import checks
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
# In float64 two kinds of constants differ: one that Keras passes through keras.ops.cast is rounded to float32 first,
# one that it multiplies a tensor by is not. np.float32(…) below marks the first kind; see adam_alpha.


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


def sgd_momentum_step(
    param: Array, grad: Array, m: Array, *, learning_rate: float, momentum: float, nesterov: bool = False
) -> None:
    """One step of gradient descent with momentum; writes param and m in place, only reads grad.

        m ← μ m − η g
        θ ← θ + m,  or with nesterov  θ ← θ + μ m − η g  (of the new m)

    θ = param, g = grad, η = learning_rate, μ = momentum. Shapes: all equal. dtype: one float type; μ is rounded
    to float32 even in float64, as in Keras. Units: m in those of param: it is a step, not a mean of gradients.
    Errors: ValueError if a shape or dtype differs.
    Source: Polyak 1964; nesterov: Sutskever et al. 2013, eq. 3–4 seen from the point θ + μ m;
    keras.optimizers.SGD.update_step.
    """
    checks.same_form("sgd_momentum_step", param=param, grad=grad, m=m)
    dtype = param.dtype.type
    rate, mu = dtype(learning_rate), dtype(np.float32(momentum))
    m[...] = m * mu - grad * rate
    param += m * mu - grad * rate if nesterov else m


def amsgrad_step(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    v_hat: Array,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> None:
    """One AMSGrad update; writes param, m, v and v_hat in place, only reads grad.

        m ← m + (1 − β₁)(g − m)
        v ← v + (1 − β₂)(g² − v)
        v̂ ← max(v̂, v)
        θ ← θ − α m / (√v̂ + ε̂)      α as Adam's

    Symbols, shapes, units and errors: as adam_step's; v̂ = v_hat, in the units of v. The paper's v̂ has no bias
    correction and its m neither; Keras keeps Adam's, in α.
    Source: Reddi, Kale & Kumar 2018, algorithm 2; keras.optimizers.Adam.update_step with amsgrad.
    """
    checks.same_form("amsgrad_step", param=param, grad=grad, m=m, v=v, v_hat=v_hat)
    xp = array_module(param)
    dtype = param.dtype.type
    alpha = adam_alpha(dtype, step=step, learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2)
    m += (grad - m) * dtype(1.0 - beta_1)
    v += (xp.square(grad) - v) * dtype(1.0 - beta_2)
    xp.maximum(v_hat, v, out=v_hat)
    param -= (m * alpha) / (xp.sqrt(v_hat) + dtype(epsilon))


def adamax_step(
    param: Array,
    grad: Array,
    m: Array,
    u: Array,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> None:
    """One Adamax update; writes param, m and u in place, only reads grad.

        m ← m + (1 − β₁)(g − m)
        u ← max(β₂ u, |g|)
        θ ← θ − η m / ((1 − β₁ᵗ)(u + ε))

    θ = param, g = grad, η = learning_rate, t = step (1-based), ε = epsilon, which the paper has not: u may be 0.
    Shapes: all equal. dtype: one float type. Units: η in those of param; m, u and ε in those of grad.
    Errors: ValueError if step < 1, or a shape or dtype differs.
    Source: Kingma & Ba 2015, algorithm 2; keras.optimizers.Adamax.update_step.
    """
    checks.same_form("adamax_step", param=param, grad=grad, m=m, u=u)
    checks.positive_int("adamax_step", "step", step)
    xp = array_module(param)
    dtype = param.dtype.type
    correction = dtype(1) - dtype(math.pow(np.float32(beta_1), step))
    m += (grad - m) * dtype(1.0 - beta_1)
    u[...] = xp.maximum(u * dtype(beta_2), xp.abs(grad))
    param -= (m * dtype(learning_rate)) / ((u + dtype(epsilon)) * correction)


def nadam_step(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    u_product: Array,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> None:
    """One Nadam update; writes param, m, v and u_product in place, only reads grad.

        μₜ = β₁ (1 − ½ · 0.96ᵗ)
        U ← U μₜ                                                   so U = μ₁ μ₂ … μₜ
        m ← m + (1 − β₁)(g − m)
        v ← v + (1 − β₂)(g² − v)
        m̂ = μₜ₊₁ m / (1 − U μₜ₊₁) + (1 − μₜ) g / (1 − U)
        θ ← θ − η m̂ / (√(v / (1 − β₂ᵗ)) + ε)

    θ = param, g = grad, U = u_product of shape (), 1 before the first step, η = learning_rate, t = step (1-based),
    ε = epsilon. Shapes: the others all equal. dtype: one float type. Units: as adam_step's. In float64 Keras has β₁
    and 0.96 rounded to float32 everywhere but in U.
    Errors: ValueError if step < 1, or a shape or dtype differs.
    Source: Dozat 2016, with a momentum that warms up; keras.optimizers.Nadam.update_step.
    """
    checks.same_form("nadam_step", param=param, grad=grad, m=m, v=v)
    checks.positive_int("nadam_step", "step", step)
    xp = array_module(param)
    dtype = param.dtype.type
    one, half, decay, beta = dtype(1), dtype(0.5), dtype(np.float32(0.96)), dtype(np.float32(beta_1))
    mu = beta * (one - half * dtype(math.pow(decay, step)))
    mu_next = beta * (one - half * dtype(math.pow(decay, step + 1)))
    u_product[...] = u_product * dtype(beta_1) * (one - half * dtype(math.pow(dtype(0.96), step)))
    product = dtype(u_product)
    beta_v = dtype(np.float32(beta_2))
    m += (grad - m) * (one - beta)
    v += (xp.square(grad) - v) * (one - beta_v)
    m_hat = (m * mu_next) / (one - product * mu_next) + (grad * (one - mu)) / (one - product)
    v_hat = v / (one - dtype(math.pow(beta_v, step)))
    param -= (m_hat * dtype(learning_rate)) / (xp.sqrt(v_hat) + dtype(epsilon))


def rmsprop_step(
    param: Array,
    grad: Array,
    v: Array,
    m: Array | None = None,
    mean: Array | None = None,
    *,
    learning_rate: float = 0.001,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
) -> None:
    """One RMSprop update; writes param, v and, where given, m and mean in place, only reads grad.

        v ← ρ v + (1 − ρ) g²
        d = v + ε,  or with mean (centered):  ḡ ← ρ ḡ + (1 − ρ) g,  d = v − ḡ² + ε
        θ ← θ − η g / √d,  or with m (momentum):  m ← μ m + η g / √d,  θ ← θ − m

    θ = param, g = grad, ḡ = mean, η = learning_rate, ρ = rho, μ = momentum, ε = epsilon, inside the root.
    Shapes: all equal. dtype: one float type. Units: η and m in those of param, v and ε in those of grad².
    Errors: ValueError if a shape or dtype differs.
    Source: Tieleman & Hinton 2012, lecture 6.5; centered and momentum: Graves 2013, eq. 38–41;
    keras.optimizers.RMSprop.update_step.
    """
    given = {"m": m, "mean": mean}
    checks.same_form("rmsprop_step", param=param, grad=grad, v=v, **{k: a for k, a in given.items() if a is not None})
    xp = array_module(param)
    dtype = param.dtype.type
    keep, add, eps = dtype(rho), dtype(1.0 - rho), dtype(epsilon)
    v[...] = v * keep + xp.square(grad) * add
    if mean is None:
        denominator = v + eps
    else:
        mean[...] = mean * keep + grad * add
        denominator = v - xp.square(mean) + eps
    increment = (grad * dtype(learning_rate)) / xp.sqrt(denominator)
    if m is None:
        param -= increment
    else:
        m[...] = m * dtype(momentum) + increment
        param -= m


def adagrad_step(
    param: Array, grad: Array, accumulator: Array, *, learning_rate: float = 0.001, epsilon: float = 1e-7
) -> None:
    """One Adagrad update; writes param and accumulator in place, only reads grad.

        a ← a + g²
        θ ← θ − η g / √(a + ε)

    θ = param, g = grad, a = accumulator, η = learning_rate, ε = epsilon, inside the root.
    Shapes: all equal. dtype: one float type. Units: η in those of param, a and ε in those of grad².
    Errors: ValueError if a shape or dtype differs.
    Source: Duchi, Hazan & Singer 2011, the diagonal form; keras.optimizers.Adagrad.update_step.
    """
    checks.same_form("adagrad_step", param=param, grad=grad, accumulator=accumulator)
    xp = array_module(param)
    dtype = param.dtype.type
    accumulator += xp.square(grad)
    param -= (grad * dtype(learning_rate)) / xp.sqrt(accumulator + dtype(epsilon))


def adadelta_step(
    param: Array,
    grad: Array,
    accumulated_grad: Array,
    accumulated_delta: Array,
    *,
    learning_rate: float = 0.001,
    rho: float = 0.95,
    epsilon: float = 1e-7,
) -> None:
    """One Adadelta update; writes param and both accumulators in place, only reads grad.

        a ← ρ a + (1 − ρ) g²
        Δ = −√(d + ε) g / √(a + ε)
        d ← ρ d + (1 − ρ) Δ²
        θ ← θ + η Δ

    θ = param, g = grad, a = accumulated_grad, d = accumulated_delta, η = learning_rate (1 in the paper), ρ = rho,
    ε = epsilon. Shapes: all equal. dtype: one float type. Units: a in those of grad², d in those of param², η none;
    ε is added to both.
    Errors: ValueError if a shape or dtype differs.
    Source: Zeiler 2012, algorithm 1; keras.optimizers.Adadelta.update_step.
    """
    checks.same_form(
        "adadelta_step", param=param, grad=grad, accumulated_grad=accumulated_grad, accumulated_delta=accumulated_delta
    )
    xp = array_module(param)
    dtype = param.dtype.type
    keep, add, eps = dtype(rho), dtype(1.0 - rho), dtype(epsilon)
    accumulated_grad[...] = accumulated_grad * keep + xp.square(grad) * add
    delta = -(xp.sqrt(accumulated_delta + eps) * grad) / xp.sqrt(accumulated_grad + eps)
    accumulated_delta[...] = accumulated_delta * keep + xp.square(delta) * add
    param += delta * dtype(learning_rate)


# ------------------------------------------------------------- around the rules: clipping, decay, averages


def clip_by_value(grad: Array, *, clipvalue: float) -> Array:
    """g' = min(max(g, −c), c), c = clipvalue > 0 in the units of grad;  (...) -> (...).

    Changes the direction of the gradient. Source: Mikolov 2012; tf.clip_by_value.
    """
    c = grad.dtype.type(clipvalue)
    return array_module(grad).clip(grad, -c, c)


def clip_by_norm(grad: Array, *, clipnorm: float) -> Array:
    """g' = g c / max(‖g‖, c), c = clipnorm > 0 in the units of grad, ‖g‖² = Σ g² over all elements;  (...) -> (...).

    For the gradient of one parameter. Multiplies and divides by c also where ‖g‖ < c, as TensorFlow does.
    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1; tf.clip_by_norm.
    """
    xp = array_module(grad)
    c = grad.dtype.type(clipnorm)
    return (grad * c) / xp.maximum(xp.sqrt(xp.square(grad).sum()), c)


def clip_by_global_norm(grads: Array, *, global_clipnorm: float) -> Array:
    """g' = g · c min(1/‖g‖, 1/c), ‖g‖² = Σ g² over the gradients of all parameters, flat;  (n,) -> (n,).

    c = global_clipnorm > 0 in the units of grads. Keeps the direction. A norm of 0 scales by 1; one that is not
    finite makes everything NaN, so that it does not pass unseen.
    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1; keras.src.optimizers.base_optimizer.clip_by_global_norm.
    """
    xp = array_module(grads)
    dtype = grads.dtype.type
    norm = xp.sqrt(xp.square(grads).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = dtype(global_clipnorm) * xp.minimum(dtype(1) / norm, dtype(1.0 / global_clipnorm)) + (norm - norm)
    return grads * scale


def mean_gradient(grad: Array, accumulated: Array, *, steps: int) -> Array:
    """ḡ = (g + a) / n: the mean over n = steps batches, a = the sum of the first n − 1;  (...), (...) -> (...).

    Source: keras.src.optimizers.base_optimizer, gradient_accumulation_steps.
    """
    return (grad + accumulated) / grad.dtype.type(steps)


def weight_decay_step(param: Array, *, weight_decay: float, learning_rate: float) -> None:
    """Pull the weights towards 0, before the update rule; writes param in place:  θ ← θ − η λ θ;  (...).

    η = learning_rate, λ = weight_decay, rounded to float32 also in float64, as in Keras. Decoupled: λ does not pass
    through the gradient, and so not through Adam's scaling, as an L2 penalty does.
    Source: Loshchilov & Hutter 2019, algorithm 2; keras.src.backend.tensorflow.optimizer._apply_weight_decay.
    """
    dtype = param.dtype.type
    param -= param * dtype(np.float32(weight_decay)) * dtype(learning_rate)


def moving_average_step(average: Array, param: Array, *, momentum: float) -> None:
    """a ← μ a + (1 − μ) θ, an exponential moving average of the weights; writes average in place;  (...), (...).

    a = average, θ = param, μ = momentum in [0, 1]; μ = 0 makes it a copy of θ.
    Source: Polyak & Juditsky 1992 (averaging); keras.src.optimizers.base_optimizer, use_ema.
    """
    mu = average.dtype.type(momentum)
    average[...] = average * mu + param * (average.dtype.type(1) - mu)


# --------------------------------------------------------------------------------- learning-rate schedules
# η of a step, counted from 0, over batches. All in float32, also for float64 models, since Keras's schedules make
# float32 tensors of their arguments. Powers, logarithms and cosines are computed in double and rounded once.


def exponential_decay(
    step: int, *, initial_learning_rate: float, decay_steps: float, decay_rate: float, staircase: bool = False
) -> np.float32:
    """η = η₀ r^(t/T), or with staircase η₀ r^⌊t/T⌋;  a float32.

    t = step, η₀ = initial_learning_rate, T = decay_steps > 0, r = decay_rate.
    Source: keras.optimizers.schedules.ExponentialDecay.
    """
    p = np.float32(step) / np.float32(decay_steps)
    if staircase:
        p = np.floor(p)
    with np.errstate(over="ignore"):
        return np.float32(initial_learning_rate) * np.float32(np.power(np.float64(np.float32(decay_rate)), p))


def inverse_time_decay(
    step: int, *, initial_learning_rate: float, decay_steps: float, decay_rate: float, staircase: bool = False
) -> np.float32:
    """η = η₀ / (1 + r t/T), or with staircase η₀ / (1 + r ⌊t/T⌋);  a float32.

    t = step, η₀ = initial_learning_rate, T = decay_steps > 0, r = decay_rate.
    Source: keras.optimizers.schedules.InverseTimeDecay.
    """
    p = np.float32(step) / np.float32(decay_steps)
    if staircase:
        p = np.floor(p)
    return np.float32(initial_learning_rate) / (np.float32(1) + np.float32(decay_rate) * p)


def piecewise_constant_decay(step: int, *, boundaries: list[float], values: list[float]) -> np.float32:
    """η = values[i], i the number of boundaries below step: a step on a boundary has the value before it;  a float32.

    boundaries: ascending; fractions are cut off. values: one more than boundaries.
    Source: keras.optimizers.schedules.PiecewiseConstantDecay.
    """
    return np.float32(values[sum(step > int(boundary) for boundary in boundaries)])


def polynomial_decay(
    step: int,
    *,
    initial_learning_rate: float,
    decay_steps: float,
    end_learning_rate: float = 0.0001,
    power: float = 1.0,
    cycle: bool = False,
) -> np.float32:
    """η = (η₀ − η₁)(1 − t/T)^p + η₁, t at most T; with cycle, T is instead its first multiple ≥ t;  a float32.

    t = step, η₀ = initial_learning_rate, η₁ = end_learning_rate, T = decay_steps > 0, p = power.
    Source: keras.optimizers.schedules.PolynomialDecay.
    """
    t, period = np.float32(step), np.float32(decay_steps)
    if cycle:
        period = period * (np.float32(1) if step == 0 else np.ceil(t / period))
    else:
        t = min(t, period)
    end = np.float32(end_learning_rate)
    left = np.float32(np.power(np.float64(np.float32(1) - t / period), np.float32(power)))
    return (np.float32(initial_learning_rate) - end) * left + end


def cosine_decay(
    step: int,
    *,
    initial_learning_rate: float,
    decay_steps: float,
    alpha: float = 0.0,
    warmup_target: float | None = None,
    warmup_steps: float = 0,
) -> np.float32:
    """η = η₀ ((1 − α) ½ (1 + cos(π t/T)) + α), t at most T;  a float32.

    t = step, η₀ = initial_learning_rate, T = decay_steps > 0, α = alpha: what is left in the end, as a share of η₀.
    With warmup_target ηw, the first W = warmup_steps go in a straight line from η₀ to ηw, and the cosine starts
    from ηw after them: with ηw for η₀ and t − W for t.
    Source: Loshchilov & Hutter 2017, eq. 5 without restarts; keras.optimizers.schedules.CosineDecay.
    """
    t, period, start = np.float32(step), np.float32(decay_steps), np.float32(initial_learning_rate)
    if warmup_target is not None:
        warmup, target = np.float32(warmup_steps), np.float32(warmup_target)
        t = min(t, period + warmup)
        if t < warmup:
            return (target - start) * (t / warmup) + start
        t, start = t - warmup, target
    else:
        t = min(t, period)
    cosine = np.float32(math.cos(np.float32(math.pi) * (t / period)))
    return start * (np.float32(1.0 - alpha) * (np.float32(0.5) * (np.float32(1) + cosine)) + np.float32(alpha))


def cosine_decay_restarts(
    step: int,
    *,
    initial_learning_rate: float,
    first_decay_steps: float,
    t_mul: float = 2.0,
    m_mul: float = 1.0,
    alpha: float = 0.0,
) -> np.float32:
    """η = η₀ ((1 − α) ½ Mⁱ (1 + cos(π f)) + α): a cosine that starts anew, period i being K times as long;  a float32.

        x = t/T
        i = ⌊ln(1 − x (1 − K)) / ln K⌋,  f = (x − (1 − Kⁱ)/(1 − K)) / Kⁱ;  for K = 1: i = ⌊x⌋, f = x − i

    t = step, η₀ = initial_learning_rate, T = first_decay_steps > 0, K = t_mul, M = m_mul, α = alpha.
    Source: Loshchilov & Hutter 2017, eq. 5; keras.optimizers.schedules.CosineDecayRestarts.
    """
    one, growth = np.float32(1), np.float32(t_mul)
    x = np.float32(step) / np.float32(first_decay_steps)
    if growth == one:
        restart = np.floor(x)
        fraction = x - restart
    else:
        restart = np.floor(np.float32(math.log(one - x * (one - growth))) / np.float32(math.log(growth)))
        factor = np.float32(math.pow(growth, restart))
        fraction = (x - (one - factor) / (one - growth)) / factor
    peak = np.float32(0.5) * np.float32(math.pow(np.float32(m_mul), restart))
    cosine = np.float32(math.cos(np.float32(math.pi) * fraction))
    share = np.float32(alpha)
    return np.float32(initial_learning_rate) * ((one - share) * (peak * (one + cosine)) + share)


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
