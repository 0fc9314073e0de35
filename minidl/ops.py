"""The specification: every formula of minidl, one function each, forward and backward side by side.

Pure functions of arrays, on NumPy and on CuPy arrays alike. None keeps state. Results are new arrays, or are
written to `out` where that is given. Shapes: B batch, I inputs, U units; `...` any leading dimensions.
A gradient of the loss L with respect to a quantity q is called d_q = ∂L/∂q and has q's shape.

Arithmetic is done in the dtype of the arrays (float32 or float64). "Keras" below is Keras 3.15 on its
TensorFlow backend; the order of operations follows it wherever a different order would round differently.

Contents: dense · activations · dropout · noise · normalization · rescaling · binary cross-entropy · categorical
cross-entropy · regression losses · hinge losses · angles and correlations · divergences · penalties · constraints ·
update rules · clipping, decay and averages of weights · learning-rate schedules · accuracy · counts, curves and
scores · means
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import array_functions, checks
from minidl.backend import Array, array_module

Axis = int | tuple[int, ...] | None

# ------------------------------------------------------------------------------------------------ dense


def dense(inputs: Array, kernel: Array, bias: Array | None = None, *, out: Array | None = None) -> Array:
    """outputs = inputs @ kernel + bias;  (..., I) @ (I, U) + (U,) -> (..., U).

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
    """d_inputs = d_outputs @ kernelᵀ;  (..., U) @ (U, I) -> (..., I).

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

    Of more leading dimensions, (B, …, I), all count as the batch.
    Source: Goodfellow et al. 2016, algorithm 6.4.
    """
    xp = array_module(d_outputs, inputs)
    if inputs.ndim != 2:
        inputs, d_outputs = inputs.reshape(-1, inputs.shape[-1]), d_outputs.reshape(-1, d_outputs.shape[-1])
    d_kernel = xp.matmul(inputs.T, d_outputs, out=out_kernel)
    d_bias = d_outputs.sum(axis=0, out=out_bias)
    return d_kernel, d_bias


# ------------------------------------------------------------------------------------------ activations
# backward takes the outputs where the derivative is a function of the function's own value, else the inputs.


def linear(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = inputs;  (...) -> (...). Source: keras.activations.linear."""
    if out is None:
        return inputs
    out[...] = inputs
    return out


def linear_backward(d_outputs: Array, outputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs;  (...) -> (...)."""
    return linear(d_outputs, out=out)


def _result(values: Array, out: Array | None) -> Array:
    """values, written to out where that is given."""
    if out is None:
        return values
    out[...] = values
    return out


def _scalar(value: float, like: Array) -> Any:
    """value in the dtype of an array: to compare with its elements."""
    return like.dtype.type(value)


def _float32(value: float) -> float:
    """value as TensorFlow takes an operation's attribute: rounded to float32."""
    return float(np.float32(value))


def relu(
    inputs: Array,
    *,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
    out: Array | None = None,
) -> Array:
    """outputs = max(inputs, 0), or with arguments f(x) of x = inputs;  (...) -> (...).

        f(x) = min(x, m) where x > t, s (x − t) where x ≤ t

    s = negative_slope ≥ 0, m = max_value ≥ 0 or None (no limit), t = threshold. Where x > t but x < 0 < m, it is cut
    to 0. m and the t that is compared are rounded to float32 first, as keras.ops.cast does, also for float64 inputs.
    Source: Nair & Hinton 2010; keras.activations.relu.
    """
    xp = array_module(inputs)
    if not negative_slope and max_value is None and not threshold:
        return xp.maximum(inputs, 0, out=out)
    if max_value is None and not threshold:
        return leaky_relu(inputs, negative_slope=negative_slope, out=out)
    above = xp.where(inputs > _scalar(_float32(threshold), inputs), inputs, 0) if threshold else xp.maximum(inputs, 0)
    if max_value is not None:
        above = xp.clip(above, 0, _scalar(_float32(max_value), inputs))
    if negative_slope:
        above = above - negative_slope * xp.maximum(threshold - inputs, 0)
    return _result(above, out)


def relu_backward(
    d_outputs: Array,
    inputs: Array,
    *,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
    out: Array | None = None,
) -> Array:
    """d_inputs = d_outputs where inputs > 0, else 0; with arguments d_outputs · f′(x);  (...), (...) -> (...).

        f′(x) = 1 where x > t, up to x = m, s where x < t, else 0

    The outputs do for the inputs where no argument is given. The derivative at 0, where there is none, is taken as 0,
    as TensorFlow's ReluGrad takes it. At x = m it is 1, as its clip has it, but for m = 6 and t = 0 it is 0, as its
    ReLU6 has it; at x = t the slope is that of neither side, 0, but s for m = None and t = 0.
    """
    xp = array_module(d_outputs)
    if not negative_slope and max_value is None and not threshold:
        return xp.multiply(d_outputs, inputs > 0, out=out)
    if max_value is None and not threshold:
        return leaky_relu_backward(d_outputs, inputs, negative_slope=negative_slope, out=out)
    through = inputs > _scalar(_float32(threshold), inputs)
    if max_value is not None:
        limit = _scalar(_float32(max_value), inputs)
        through &= (inputs < limit) if max_value == 6 and not threshold else (inputs >= 0) & (inputs <= limit)
    gradient = xp.where(through, d_outputs, 0)
    if negative_slope:
        gradient = gradient + xp.where(threshold - inputs > 0, negative_slope * d_outputs, 0)
    return _result(gradient, out)


def leaky_relu(inputs: Array, *, negative_slope: float = 0.2, out: Array | None = None) -> Array:
    """outputs = inputs where inputs > 0, else s · inputs;  (...) -> (...).

    s = negative_slope, rounded to float32 first, also for float64 inputs, as TensorFlow's operation takes it.
    Source: Maas, Hannun & Ng 2013; keras.activations.leaky_relu.
    """
    xp = array_module(inputs)
    return _result(xp.where(inputs > 0, inputs, inputs * _float32(negative_slope)), out)


def leaky_relu_backward(
    d_outputs: Array, inputs: Array, *, negative_slope: float = 0.2, out: Array | None = None
) -> Array:
    """d_inputs = d_outputs where inputs > 0, else s · d_outputs;  (...), (...) -> (...). At 0 it is s."""
    xp = array_module(d_outputs)
    return _result(xp.where(inputs > 0, d_outputs, d_outputs * _float32(negative_slope)), out)


def elu(inputs: Array, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """outputs = inputs where inputs > 0, else α (e^inputs − 1);  (...) -> (...). Source: Clevert et al. 2016."""
    xp = array_module(inputs)
    return _result(xp.where(inputs > 0, inputs, alpha * xp.expm1(xp.minimum(inputs, 0))), out)


def elu_backward(d_outputs: Array, inputs: Array, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """d_inputs = d_outputs where inputs > 0, else d_outputs · α ((e^inputs − 1) + 1);  (...), (...) -> (...).

    The 1 is added to the rounded e^x − 1, as TensorFlow's EluGrad does from the outputs: the derivative is 0 where
    these have become −1, below x = −17 in float32, and −37 in float64. At 0 it is α.
    """
    xp = array_module(d_outputs)
    slope = alpha * (xp.expm1(xp.minimum(inputs, 0)) + 1)
    return _result(xp.where(inputs > 0, d_outputs, d_outputs * slope), out)


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


def softmax(inputs: Array, *, axis: Axis = -1, out: Array | None = None) -> Array:
    """outputs_u = e^(inputs_u) / Σ_v e^(inputs_v) over an axis;  (..., U) -> (..., U), rows sum to 1.

    axis: the axis, several as a tuple, or None for all.
    The row's maximum is subtracted first: the quotient does not change and no exponential overflows.
    Source: Goodfellow et al. 2016, eq. 6.29; keras.activations.softmax.
    """
    xp = array_module(inputs)
    exponentials = xp.exp(inputs - inputs.max(axis=axis, keepdims=True))
    return xp.divide(exponentials, exponentials.sum(axis=axis, keepdims=True), out=out)


def softmax_backward(d_outputs: Array, outputs: Array, *, axis: Axis = -1, out: Array | None = None) -> Array:
    """d_inputs_u = outputs_u · (d_outputs_u − Σ_v d_outputs_v · outputs_v);  (..., U), (..., U) -> (..., U)."""
    xp = array_module(d_outputs)
    mean_gradient = (d_outputs * outputs).sum(axis=axis, keepdims=True)
    return xp.multiply(outputs, d_outputs - mean_gradient, out=out)


def prelu(inputs: Array, alpha: Array) -> Array:
    """outputs = max(inputs, 0) − α max(−inputs, 0);  (...), α = alpha broadcast over it -> (...).

    A ReLU with a learned slope below 0. Source: He et al. 2015, eq. 1; keras.layers.PReLU.call.
    """
    return relu(inputs) - alpha * relu(-inputs)


def prelu_backward(d_outputs: Array, inputs: Array, alpha: Array) -> Array:
    """d_inputs = d_outputs where inputs > 0, α d_outputs where inputs < 0, 0 at 0;  (...) -> (...)."""
    return d_outputs * (inputs > 0) + alpha * d_outputs * (inputs < 0)


def prelu_gradient(d_outputs: Array, inputs: Array, *, axes: tuple[int, ...]) -> Array:
    """d_alpha = −Σ d_outputs · max(−inputs, 0) over axes, along which α is shared; these keep size 1."""
    return -(d_outputs * relu(-inputs)).sum(axis=axes, keepdims=True)


def log_softmax(inputs: Array, *, axis: Axis = -1, out: Array | None = None) -> Array:
    """outputs_u = inputs_u − ln Σ_v e^(inputs_v) over an axis;  (..., U) -> (..., U), ≤ 0.

    The row's maximum is subtracted first, as in softmax. Source: keras.activations.log_softmax.
    """
    xp = array_module(inputs)
    shifted = inputs - inputs.max(axis=axis, keepdims=True)
    return xp.subtract(shifted, xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True)), out=out)


def log_softmax_backward(d_outputs: Array, outputs: Array, *, axis: Axis = -1, out: Array | None = None) -> Array:
    """d_inputs_u = d_outputs_u − e^(outputs_u) Σ_v d_outputs_v;  (..., U), (..., U) -> (..., U)."""
    xp = array_module(d_outputs)
    return xp.subtract(d_outputs, d_outputs.sum(axis=axis, keepdims=True) * xp.exp(outputs), out=out)


def sparsemax(inputs: Array, *, axis: int = -1, out: Array | None = None) -> Array:
    """outputs = max(z − τ, 0) of z = inputs along an axis;  (..., U) -> (..., U).

        S_j = z_(1) + … + z_(j),  support: the j with z_(j) > (S_j − 1) / j, k of them
        τ = (Σ_(j in support) S_j − 1) / k

    z_(1) ≥ z_(2) ≥ …: z sorted. This is Keras's τ. The paper's is (S_k − 1) / k, with which the outputs sum to 1; the
    two are the same for k = 1 only, so Keras's outputs are too small where several classes share, and so are these.
    Source: keras.activations.sparsemax; Martins & Astudillo 2016, algorithm 1.
    """
    xp = array_module(inputs)
    threshold, *_ = _sparsemax_threshold(inputs, axis)
    return xp.maximum(inputs - threshold, 0, out=out)


def sparsemax_backward(d_outputs: Array, inputs: Array, *, axis: int = -1, out: Array | None = None) -> Array:
    """d_inputs = g − Σ g · ∂τ/∂z,  g = d_outputs where z ≥ τ, else 0;  (..., U), (..., U) -> (..., U).

    ∂τ/∂z_(i) = (number of j ≥ i in the support) / k.
    """
    xp = array_module(inputs)
    threshold, order, support, count = _sparsemax_threshold(inputs, axis)
    passed = xp.where(inputs - threshold >= 0, d_outputs, 0)
    shares = xp.flip(xp.cumsum(xp.flip(support, axis), axis=axis), axis).astype(inputs.dtype) / count
    slopes = xp.take_along_axis(shares, xp.argsort(order, axis=axis), axis=axis)  # back in the inputs' order
    return xp.subtract(passed, passed.sum(axis=axis, keepdims=True) * slopes, out=out)


def _sparsemax_threshold(inputs: Array, axis: int) -> tuple[Array, Array, Array, Array]:
    """τ, the places of the sorted inputs, whether each of these is in the support, and how many are."""
    xp = array_module(inputs)
    order = xp.argsort(-inputs, axis=axis, kind="stable")
    ordered = xp.take_along_axis(inputs, order, axis=axis)
    sums = xp.cumsum(ordered, axis=axis)
    ranks = xp.arange(1, inputs.shape[axis] + 1, dtype=inputs.dtype)
    ranks = ranks.reshape([-1 if i == axis % inputs.ndim else 1 for i in range(inputs.ndim)])
    support = ordered - (sums - 1) / ranks > 0
    count = support.sum(axis=axis, keepdims=True).astype(inputs.dtype)
    return (xp.where(support, sums, 0).sum(axis=axis, keepdims=True) - 1) / count, order, support, count


def relu6(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = min(max(inputs, 0), 6);  (...) -> (...). Source: Krizhevsky 2010; keras.activations.relu6."""
    return array_module(inputs).clip(inputs, 0, 6, out=out)


def relu6_backward(d_outputs: Array, outputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs where 0 < outputs < 6, else 0;  (...), (...) -> (...). At 0 and at 6 it is 0."""
    return array_module(d_outputs).multiply(d_outputs, (outputs > 0) & (outputs < 6), out=out)


def celu(inputs: Array, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """outputs = max(x, 0) + α (e^(min(x, 0)/α) − 1);  (...) -> (...), x = inputs. Source: Barron 2017."""
    xp = array_module(inputs)
    return xp.add(xp.maximum(inputs, 0), alpha * xp.expm1(xp.minimum(inputs, 0) / alpha), out=out)


def celu_backward(d_outputs: Array, inputs: Array, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · ([x ≥ 0] + [x ≤ 0] e^(x/α));  (...), (...) -> (...), x = inputs.

    At 0 it is 2, where the true derivative is 1: TensorFlow's maximum and minimum both pass it on there.
    """
    xp = array_module(d_outputs)
    below = xp.where(inputs <= 0, xp.exp(xp.minimum(inputs, 0) / alpha), 0)
    return xp.multiply(d_outputs, below + (inputs >= 0), out=out)


_SELU_SCALE, _SELU_SCALE_ALPHA = 1.0507009873554804934193349852946, 1.7580993408473768599402175208123


def selu(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = λ inputs where inputs > 0, else λα (e^inputs − 1);  (...) -> (...).

    λ = 1.0507…, λα = 1.7580…: with them a mean of 0 and a variance of 1 stay from layer to layer.
    Source: Klambauer et al. 2017; keras.activations.selu.
    """
    xp = array_module(inputs)
    below = _SELU_SCALE_ALPHA * xp.expm1(xp.minimum(inputs, 0))
    return _result(xp.where(inputs > 0, _SELU_SCALE * inputs, below), out)


def selu_backward(d_outputs: Array, outputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · λ where outputs ≥ 0, else d_outputs · (outputs + λα);  (...), (...) -> (...)."""
    xp = array_module(d_outputs)
    slope = xp.where(outputs < 0, outputs + _scalar(_SELU_SCALE_ALPHA, outputs), _scalar(_SELU_SCALE, outputs))
    return xp.multiply(d_outputs, slope, out=out)


def softplus(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = ln(1 + e^inputs) = max(inputs, 0) + ln(1 + e^(−|inputs|));  (...) -> (...).

    Source: Dugas et al. 2001; keras.activations.softplus.
    """
    xp = array_module(inputs)
    return xp.add(xp.maximum(inputs, 0), xp.log1p(xp.exp(-xp.abs(inputs))), out=out)


def softplus_backward(d_outputs: Array, inputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · sigmoid(inputs);  (...), (...) -> (...)."""
    return array_module(d_outputs).multiply(d_outputs, sigmoid(inputs), out=out)


def log_sigmoid(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = ln sigmoid(inputs) = −softplus(−inputs);  (...) -> (...). Source: keras.activations.log_sigmoid."""
    return array_module(inputs).negative(softplus(-inputs), out=out)


def log_sigmoid_backward(d_outputs: Array, inputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · sigmoid(−inputs);  (...), (...) -> (...)."""
    return array_module(d_outputs).multiply(d_outputs, sigmoid(-inputs), out=out)


def softsign(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = inputs / (1 + |inputs|);  (...) -> (...). Source: Bergstra et al. 2009; keras.activations.softsign."""
    xp = array_module(inputs)
    return xp.divide(inputs, 1 + xp.abs(inputs), out=out)


def softsign_backward(d_outputs: Array, inputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs / (1 + |inputs|)²;  (...), (...) -> (...)."""
    xp = array_module(d_outputs)
    denominator = 1 + xp.abs(inputs)
    return xp.divide(d_outputs / denominator, denominator, out=out)


def squareplus(inputs: Array, *, b: float = 4, out: Array | None = None) -> Array:
    """outputs = (x + √(x² + b)) / 2;  (...) -> (...), x = inputs, b ≥ 0.

    Where x < 0 it is computed as b / (√(x² + b) − x) / 2, which does not cancel.
    Source: Barron 2021; keras.activations.squareplus.
    """
    xp = array_module(inputs)
    root = xp.hypot(inputs, _scalar(b**0.5, inputs))
    denominator = xp.where(inputs < 0, root - inputs, 1)
    return _result(xp.where(inputs < 0, b / denominator, inputs + root) / 2, out)


def squareplus_backward(d_outputs: Array, inputs: Array, *, b: float = 4, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · squareplus(x) / √(x² + b);  (...), (...) -> (...). The same as (1 + x/√(x² + b)) / 2."""
    xp = array_module(d_outputs)
    slope = squareplus(inputs, b=b) / xp.hypot(inputs, _scalar(b**0.5, inputs))
    return xp.multiply(d_outputs, slope, out=out)


def soft_shrink(inputs: Array, *, threshold: float = 0.5, out: Array | None = None) -> Array:
    """outputs = x − t where x > t, x + t where x < −t, else 0;  (...) -> (...), x = inputs, t = threshold.

    Source: Donoho 1995; keras.activations.soft_shrink.
    """
    xp = array_module(inputs)
    t = _scalar(threshold, inputs)
    below = xp.where(inputs < -t, inputs + t, 0)
    return _result(xp.where(inputs > t, inputs - t, below), out)


def soft_shrink_backward(d_outputs: Array, inputs: Array, *, threshold: float = 0.5, out: Array | None = None) -> Array:
    """d_inputs = d_outputs where x > t or x < −t, else 0;  (...), (...) -> (...)."""
    t = _scalar(threshold, inputs)
    return array_module(d_outputs).multiply(d_outputs, (inputs > t) | (inputs < -t), out=out)


def hard_shrink(inputs: Array, *, threshold: float = 0.5, out: Array | None = None) -> Array:
    """outputs = x where |x| > t, else 0;  (...) -> (...), x = inputs, t = threshold.

    Source: Donoho & Johnstone 1994; keras.activations.hard_shrink.
    """
    xp = array_module(inputs)
    return _result(xp.where(xp.abs(inputs) > _scalar(threshold, inputs), inputs, 0), out)


def hard_shrink_backward(d_outputs: Array, inputs: Array, *, threshold: float = 0.5, out: Array | None = None) -> Array:
    """d_inputs = d_outputs where |x| > t, else 0;  (...), (...) -> (...)."""
    xp = array_module(d_outputs)
    return xp.multiply(d_outputs, xp.abs(inputs) > _scalar(threshold, inputs), out=out)


def tanh_shrink(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = inputs − tanh(inputs);  (...) -> (...). Source: keras.activations.tanh_shrink."""
    xp = array_module(inputs)
    return xp.subtract(inputs, xp.tanh(inputs), out=out)


def tanh_shrink_backward(d_outputs: Array, inputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · tanh²(inputs);  (...), (...) -> (...)."""
    xp = array_module(d_outputs)
    return xp.multiply(d_outputs, xp.square(xp.tanh(inputs)), out=out)


def threshold(inputs: Array, *, threshold: float, default_value: float, out: Array | None = None) -> Array:
    """outputs = inputs where inputs > threshold, else default_value;  (...) -> (...).

    Source: keras.activations.threshold.
    """
    xp = array_module(inputs)
    return _result(xp.where(inputs > _scalar(threshold, inputs), inputs, _scalar(default_value, inputs)), out)


def threshold_backward(
    d_outputs: Array, inputs: Array, *, threshold: float, default_value: float, out: Array | None = None
) -> Array:
    """d_inputs = d_outputs where inputs > threshold, else 0;  (...), (...) -> (...)."""
    return array_module(d_outputs).multiply(d_outputs, inputs > _scalar(threshold, inputs), out=out)


def sparse_plus(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = 0 where x ≤ −1, (x + 1)² / 4 where −1 < x < 1, x where x ≥ 1;  (...) -> (...), x = inputs.

    Source: Blondel, Martins & Niculae 2019; keras.activations.sparse_plus.
    """
    xp = array_module(inputs)
    bend = xp.square(xp.clip(inputs, -1, 1) + 1) / 4
    return _result(xp.where(inputs < 1, bend, inputs), out)


def sparse_plus_backward(d_outputs: Array, inputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · (x + 1) / 2, x cut to [−1, 1];  (...), (...) -> (...)."""
    xp = array_module(d_outputs)
    return xp.multiply(d_outputs, (xp.clip(inputs, -1, 1) + 1) / 2, out=out)


def sparse_sigmoid(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = (x + 1) / 2, x = inputs cut to [−1, 1];  (...) -> (...), in [0, 1].

    Source: Blondel, Martins & Niculae 2019; keras.activations.sparse_sigmoid.
    """
    xp = array_module(inputs)
    return xp.multiply(xp.clip(inputs, -1, 1) + 1, 0.5, out=out)


def sparse_sigmoid_backward(d_outputs: Array, inputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs / 2 where −1 < inputs < 1, else 0;  (...), (...) -> (...)."""
    return array_module(d_outputs).multiply(d_outputs / 2, (inputs > -1) & (inputs < 1), out=out)


def silu(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = inputs · sigmoid(inputs);  (...) -> (...). Source: Elfwing et al. 2018; keras.activations.silu."""
    return array_module(inputs).multiply(inputs, sigmoid(inputs), out=out)


def silu_backward(d_outputs: Array, inputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · σ (1 + x (1 − σ)),  σ = sigmoid(x), x = inputs;  (...), (...) -> (...)."""
    return array_module(d_outputs).multiply(d_outputs, sigmoid(inputs) * (1 + inputs * sigmoid(-inputs)), out=out)


_GELU_FACTOR, _GELU_CUBIC, _GELU_ROOT = math.sqrt(2 / math.pi), _float32(0.044715), _float32(math.sqrt(0.5))
_FAR = 40.0


def gelu(inputs: Array, *, approximate: bool = False, out: Array | None = None) -> Array:
    """outputs = x Φ(x), Φ the normal distribution function;  (...) -> (...), x = inputs.

        Φ(x) = ½ erfc(−c x);  approximate: ½ (1 + tanh u) = sigmoid(2u),  u = √(2/π) (x + k x³)

    c = 1/√2 and k = 0.044715, rounded to float32 for float64 inputs too, as TensorFlow casts them.
    Source: Hendrycks & Gimpel 2016; keras.activations.gelu.
    """
    return array_module(inputs).multiply(inputs, _normal_share(inputs, approximate), out=out)


def gelu_backward(d_outputs: Array, inputs: Array, *, approximate: bool = False, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · (Φ(x) + x Φ′(x));  (...), (...) -> (...).

    Φ′(x) = c e^(−(c x)²) / √π;  approximate: Φ(x) Φ(−x) 2u′,  u′ = √(2/π) (1 + 3 k x²)
    """
    xp = array_module(d_outputs)
    near = xp.clip(inputs, -_FAR, _FAR)  # beyond, Φ′ is 0 in float64 too
    share = _normal_share(inputs, approximate)
    if approximate:
        inner = _GELU_FACTOR * (1 + 3 * _GELU_CUBIC * near * near)
        density = share * _normal_share(-inputs, True) * (2 * inner)
    else:
        density = xp.exp(-xp.square(_GELU_ROOT * near)) * (_GELU_ROOT / math.sqrt(math.pi))
    return xp.multiply(d_outputs, share + near * density, out=out)


def _normal_share(x: Array, approximate: bool) -> Array:
    """Φ(x), or what gelu takes for it: without a difference that could cancel."""
    xp = array_module(x)
    if approximate:
        near = xp.clip(x, -_FAR, _FAR)
        return sigmoid(2 * _GELU_FACTOR * (near + _GELU_CUBIC * near * near * near))
    half = x.astype(np.float64) * -_GELU_ROOT
    if xp is np:  # NumPy has none of its own
        tail = np.fromiter(map(math.erfc, half.ravel().tolist()), np.float64, half.size).reshape(half.shape)
    else:
        tail = importlib.import_module("cupyx.scipy.special").erfc(half)
    return (tail / 2).astype(x.dtype)


def mish(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = x tanh(softplus(x));  (...) -> (...), x = inputs. Source: Misra 2019; keras.activations.mish."""
    xp = array_module(inputs)
    return xp.multiply(inputs, xp.tanh(softplus(inputs)), out=out)


def mish_backward(d_outputs: Array, inputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · (t + x (1 − t²) σ(x)),  t = tanh(softplus(x)), x = inputs;  (...), (...) -> (...)."""
    xp = array_module(d_outputs)
    t = xp.tanh(softplus(inputs))
    return xp.multiply(d_outputs, t + inputs * ((1 - t * t) * sigmoid(inputs)), out=out)


def glu(inputs: Array, *, axis: int = -1, out: Array | None = None) -> Array:
    """outputs = a · sigmoid(b) of the halves a and b of the inputs along an axis;  (..., 2U) -> (..., U).

    Errors: ValueError for an odd size. Source: Dauphin et al. 2017; keras.activations.glu.
    """
    xp = array_module(inputs)
    if inputs.shape[axis] % 2:
        raise ValueError(f"glu: the size along axis {axis} must be even, to be halved; got shape {inputs.shape}.")
    a, b = xp.split(inputs, 2, axis=axis)
    return xp.multiply(a, sigmoid(b), out=out)


def glu_backward(d_outputs: Array, inputs: Array, *, axis: int = -1, out: Array | None = None) -> Array:
    """d_a = d_outputs · σ, d_b = d_outputs · a σ (1 − σ),  σ = sigmoid(b);  (..., U), (..., 2U) -> (..., 2U)."""
    xp = array_module(d_outputs)
    a, b = xp.split(inputs, 2, axis=axis)
    gate = sigmoid(b)
    return xp.concatenate([d_outputs * gate, d_outputs * a * (gate * sigmoid(-b))], axis=axis, out=out)


def exponential(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = e^inputs, infinite beyond the dtype's range;  (...) -> (...). Source: keras.activations.exponential."""
    with np.errstate(over="ignore"):
        return array_module(inputs).exp(inputs, out=out)


def exponential_backward(d_outputs: Array, outputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · outputs;  (...), (...) -> (...)."""
    return array_module(d_outputs).multiply(d_outputs, outputs, out=out)


def hard_sigmoid(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = min(max(inputs + 3, 0), 6) / 6;  (...) -> (...), in [0, 1].

    Source: Courbariaux, Bengio & David 2015, with other constants; keras.activations.hard_sigmoid.
    """
    xp = array_module(inputs)
    return xp.divide(xp.clip(inputs + 3, 0, 6), 6, out=out)


def hard_sigmoid_backward(d_outputs: Array, inputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs / 6 where 0 < inputs + 3 < 6, else 0;  (...), (...) -> (...)."""
    shifted = inputs + 3
    return array_module(d_outputs).multiply(d_outputs / 6, (shifted > 0) & (shifted < 6), out=out)


def hard_silu(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = inputs · hard_sigmoid(inputs);  (...) -> (...). Source: Howard et al. 2019."""
    return array_module(inputs).multiply(inputs, hard_sigmoid(inputs), out=out)


def hard_silu_backward(d_outputs: Array, inputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs · (h + x h′),  h = hard_sigmoid(x), x = inputs;  (...), (...) -> (...)."""
    xp = array_module(d_outputs)
    slope = hard_sigmoid(inputs) + hard_sigmoid_backward(inputs, inputs)
    return xp.multiply(d_outputs, slope, out=out)


def hard_tanh(inputs: Array, *, out: Array | None = None) -> Array:
    """outputs = min(max(inputs, −1), 1);  (...) -> (...). Source: Collobert 2004; keras.activations.hard_tanh."""
    return array_module(inputs).clip(inputs, -1, 1, out=out)


def hard_tanh_backward(d_outputs: Array, inputs: Array, *, out: Array | None = None) -> Array:
    """d_inputs = d_outputs where −1 ≤ inputs ≤ 1, else 0;  (...), (...) -> (...)."""
    return array_module(d_outputs).multiply(d_outputs, (inputs >= -1) & (inputs <= 1), out=out)


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


def alpha_dropout(inputs: Array, mask: Array, *, rate: float) -> Array:
    """outputs = a (inputs where mask, else α′) + b;  inputs (...), mask (...) of bool or broadcast to it -> (...).

        α′ = −1.7580993…                       the value at which a SELU saturates: −scale · alpha
        a = ((1 − rate)(1 + rate α′²))^(−1/2),  b = −a α′ rate

    a and b give the outputs the inputs' mean and variance, where these are 0 and 1: what a SELU keeps.
    Errors: ZeroDivisionError for rate 1, as in Keras.
    Source: Klambauer et al. 2017, §"New dropout technique"; keras.layers.AlphaDropout.call.
    """
    if rate == 1.0:
        raise ZeroDivisionError("AlphaDropout: rate 1 keeps nothing, and no scale gives that a variance; take less.")
    kept = mask.astype(inputs.dtype)
    a = _alpha_dropout_scale(rate)
    b = -a * _SELU_SATURATION * rate
    return a * (inputs * kept + _SELU_SATURATION * (1 - kept)) + b


def alpha_dropout_backward(d_outputs: Array, mask: Array, *, rate: float) -> Array:
    """d_inputs = a d_outputs where mask, else 0;  the forward's own mask: (...), (...) -> (...)."""
    return d_outputs * _alpha_dropout_scale(rate) * mask


_SELU_SATURATION = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946


def _alpha_dropout_scale(rate: float) -> float:
    return float(((1 - rate) * (1 + rate * _SELU_SATURATION**2)) ** -0.5)


# ------------------------------------------------------------------------------------------------ noise


def gaussian_noise(inputs: Array, noise: Array) -> Array:
    """outputs = inputs + noise, noise normal with mean 0;  (...), (...) -> (...). Its d_inputs are the d_outputs.

    Source: Bishop 1995, "Training with noise is equivalent to Tikhonov regularization"; keras.layers.GaussianNoise.
    """
    return inputs + noise


def gaussian_dropout(inputs: Array, noise: Array) -> Array:
    """outputs = inputs · noise, noise normal with mean 1 and variance rate / (1 − rate);  (...), (...) -> (...).

    Source: Srivastava et al. 2014, §10; keras.layers.GaussianDropout.
    """
    return inputs * noise


def gaussian_dropout_backward(d_outputs: Array, noise: Array) -> Array:
    """d_inputs = d_outputs · noise, the forward's own;  (...), (...) -> (...)."""
    return d_outputs * noise


# ---------------------------------------------------------------------------------------- normalization
# axes: those that the statistics are taken over: of a batch normalization all but the features', of a layer
# normalization the features'. Statistics and parameters have the inputs' rank, with size 1 where they are shared.


def moments(inputs: Array, *, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """mean = Σ inputs / n and variance = Σ (inputs − mean)² / n over axes, which keep size 1.

    The variance of the n values themselves, not an estimate of another's. Source: tf.nn.moments.
    """
    mean = inputs.mean(axis=axes, keepdims=True)
    return mean, ((inputs - mean) ** 2).mean(axis=axes, keepdims=True)


def normalization(
    inputs: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    epsilon: float,
) -> Array:
    """outputs = γ (inputs − μ) / √(σ² + ε) + β, computed as inputs · s + (β − μ s) with s = γ / √(σ² + ε).

    μ = mean, σ² = variance, γ = gamma or 1, β = beta or 0, each broadcast over the inputs; ε = epsilon.
    Source: Ioffe & Szegedy 2015, algorithm 1 (of a batch); Ba et al. 2016, eq. 4 (of a layer);
    tf.nn.batch_normalization and keras.ops.layer_normalization, for the order of the operations.
    """
    scale = _inverse_deviation(variance, epsilon)
    if gamma is not None:
        scale = scale * gamma
    shift = -mean * scale
    if beta is not None:
        shift = shift + beta
    return inputs * scale + shift


def normalization_backward(
    d_outputs: Array,
    inputs: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    *,
    epsilon: float,
    axes: tuple[int, ...],
) -> Array:
    """d_inputs = (g − ḡ − x̂ · mean(g x̂)) / √(σ² + ε),  g = γ d_outputs, x̂ = (inputs − μ) / √(σ² + ε).

    ḡ and mean(…) are taken over axes: the inputs also act through μ and σ², which are moments(inputs, axes=axes).
    Source: Ioffe & Szegedy 2015, §3.
    """
    inverse = _inverse_deviation(variance, epsilon)
    normalized = (inputs - mean) * inverse
    g = d_outputs if gamma is None else d_outputs * gamma
    through_variance = normalized * (g * normalized).mean(axis=axes, keepdims=True)
    return inverse * (g - g.mean(axis=axes, keepdims=True) - through_variance)


def fixed_normalization_backward(
    d_outputs: Array, variance: Array, gamma: Array | None = None, *, epsilon: float
) -> Array:
    """d_inputs = γ d_outputs / √(σ² + ε): of a normalization by statistics that are given, as at inference."""
    scale = _inverse_deviation(variance, epsilon)
    return d_outputs * (scale if gamma is None else scale * gamma)


def normalization_gradients(
    d_outputs: Array, inputs: Array, mean: Array, variance: Array, *, epsilon: float, axes: tuple[int, ...]
) -> tuple[Array, Array]:
    """d_gamma = Σ d_outputs · x̂ and d_beta = Σ d_outputs over axes, along which γ and β are shared.

    x̂ = (inputs − μ) / √(σ² + ε). Here axes are those of the parameters: what γ and β do not have is summed away.
    """
    normalized = (inputs - mean) * _inverse_deviation(variance, epsilon)
    return (d_outputs * normalized).sum(axis=axes), d_outputs.sum(axis=axes)


def moving_average(average: Array, value: Array, *, momentum: float) -> Array:
    """average · momentum + value · (1 − momentum): the moving mean or variance after a batch's;  (...), (...) -> (...).

    Source: keras.layers.BatchNormalization.call.
    """
    return average * momentum + value * (1.0 - momentum)


def renormalization(
    mean: Array,
    variance: Array,
    moving_mean: Array,
    moving_deviation: Array,
    *,
    epsilon: float,
    rmin: float | None = None,
    rmax: float | None = None,
    dmax: float | None = None,
) -> tuple[Array, Array]:
    """r = σ / σ′ in [rmin, rmax] and d = (μ − μ′) / σ′ in [−dmax, dmax]: x̂ r + d is by moving statistics;  all (U,).

    μ = mean and σ = √(variance + ε) of the batch; μ′ = moving_mean, σ′ = max(moving_deviation, √ε).
    Both are taken as constants in backward.
    Source: Ioffe 2017, algorithm 1; keras.layers.BatchNormalization with renorm=True.
    """
    xp = array_module(variance)
    moving = xp.maximum(moving_deviation, xp.sqrt(_scalar(_float32(epsilon), variance)))
    r = deviation(variance, epsilon=epsilon) / moving
    d = (mean - moving_mean) / moving
    r = r if rmin is None else xp.maximum(r, rmin)
    r = r if rmax is None else xp.minimum(r, rmax)
    return r, d if dmax is None else xp.clip(d, -dmax, dmax)


def deviation(variance: Array, *, epsilon: float) -> Array:
    """σ = √(variance + ε);  (...) -> (...)."""
    return array_module(variance).sqrt(variance + epsilon)


def _inverse_deviation(variance: Array, epsilon: float) -> Array:
    return 1 / deviation(variance, epsilon=epsilon)


def mean_square(inputs: Array, *, axes: tuple[int, ...]) -> Array:
    """Σ inputs² / n over axes, which keep size 1."""
    return (inputs * inputs).mean(axis=axes, keepdims=True)


def rms_normalization(inputs: Array, square: Array, gamma: Array | None = None, *, epsilon: float) -> Array:
    """outputs = inputs / √(q + ε) · γ,  q = square: mean_square(inputs);  (...) -> (...), γ broadcast over it.

    Source: Zhang & Sennrich 2019, eq. 4; keras.ops.rms_normalization.
    """
    outputs = inputs * _inverse_deviation(square, epsilon)
    return outputs if gamma is None else outputs * gamma


def rms_normalization_backward(
    d_outputs: Array,
    inputs: Array,
    square: Array,
    gamma: Array | None = None,
    *,
    epsilon: float,
    axes: tuple[int, ...],
    center: Array | float = 0.0,
) -> Array:
    """d_inputs = (g − x̂ · mean(g x̂)) / √(q + ε),  g = γ d_outputs, x̂ = inputs / √(q + ε), the mean over axes.

    center: where q is a variance, its mean μ; the x̂ before the mean(…) is then that of inputs − μ.
    """
    inverse = _inverse_deviation(square, epsilon)
    g = d_outputs if gamma is None else d_outputs * gamma
    along = (g * (inputs * inverse)).mean(axis=axes, keepdims=True)
    return inverse * (g - (inputs - center) * inverse * along)


def unit_normalization(inputs: Array, *, axes: tuple[int, ...], epsilon: float = 1e-12) -> Array:
    """outputs = inputs · min(1 / ‖inputs‖, 1 / ε), the norm over axes;  (...) -> (...): of length 1, or 0.

    Source: keras.ops.normalize.
    """
    return inputs * _inverse_norm(inputs, axes, epsilon)


def unit_normalization_backward(
    d_outputs: Array, inputs: Array, *, axes: tuple[int, ...], epsilon: float = 1e-12
) -> Array:
    """d_inputs = r (d_outputs − u Σ d_outputs u),  r = 1 / ‖inputs‖, u = inputs r;  below ε it is d_outputs / ε."""
    xp = array_module(inputs)
    inverse = _inverse_norm(inputs, axes, epsilon)
    unit = inputs * inverse
    along = unit * (d_outputs * unit).sum(axis=axes, keepdims=True)
    return inverse * xp.where(inverse < 1.0 / epsilon, d_outputs - along, d_outputs)


def _inverse_norm(inputs: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    xp = array_module(inputs)
    square = (inputs * inputs).sum(axis=axes, keepdims=True)
    with np.errstate(divide="ignore"):
        return xp.minimum(1 / xp.sqrt(square), 1.0 / epsilon)


# ------------------------------------------------------------------------------------------- rescaling


def rescale(inputs: Array, scale: Array, offset: Array) -> Array:
    """outputs = inputs · scale + offset, both broadcast over the inputs;  (...) -> (...)."""
    return inputs * scale + offset


def rescale_backward(d_outputs: Array, scale: Array) -> Array:
    """d_inputs = d_outputs · scale;  (...) -> (...)."""
    return d_outputs * scale


def standardize(inputs: Array, mean: Array, variance: Array, *, epsilon: float = 1e-7) -> Array:
    """outputs = (inputs − μ) / max(√σ², ε),  μ = mean, σ² = variance, broadcast over the inputs;  (...) -> (...).

    Source: keras.layers.Normalization.call.
    """
    return (inputs - mean) / _deviation(variance, epsilon)


def standardize_backward(d_outputs: Array, variance: Array, *, epsilon: float = 1e-7) -> Array:
    """d_inputs = d_outputs / max(√σ², ε);  (...) -> (...)."""
    return d_outputs / _deviation(variance, epsilon)


def unstandardize(inputs: Array, mean: Array, variance: Array, *, epsilon: float = 1e-7) -> Array:
    """outputs = μ + inputs · max(√σ², ε): the inverse of standardize;  (...) -> (...).

    Source: keras.layers.Normalization.call with invert=True.
    """
    return mean + inputs * _deviation(variance, epsilon)


def unstandardize_backward(d_outputs: Array, variance: Array, *, epsilon: float = 1e-7) -> Array:
    """d_inputs = d_outputs · max(√σ², ε);  (...) -> (...)."""
    return d_outputs * _deviation(variance, epsilon)


def _deviation(variance: Array, epsilon: float) -> Array:
    xp = array_module(variance)
    return xp.maximum(xp.sqrt(variance), epsilon)


def pooled_moments(
    mean: Array, variance: Array, other_mean: Array, other_variance: Array, *, other_weight: float
) -> tuple[Array, Array]:
    """The mean and variance of two sets of values together, from those of each;  four of (...) -> (...), (...).

    other_weight: the second set's share of all values, w:

        μ ← μ (1 − w) + μ′ w
        σ² ← (σ² + (μ_before − μ)²)(1 − w) + (σ′² + (μ′ − μ)²) w

    Source: keras.layers.Normalization.adapt, batch by batch.
    """
    weight = 1.0 - other_weight
    pooled = mean * weight + other_mean * other_weight
    within = (variance + (mean - pooled) ** 2) * weight
    return pooled, within + (other_variance + (other_mean - pooled) ** 2) * other_weight


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


def binary_focal_crossentropy(
    y_true: Array, y_pred: Array, *, gamma: float, alpha: float | None, epsilon: float = 1e-7
) -> Array:
    """losses = a q^γ ℓ,  q = y(1 − p) + (1 − y)p;  (...), (...) -> (...), nats.

    y = y_true in [0, 1], p = y_pred in [0, 1], ℓ = binary_crossentropy(y, p), γ = gamma ≥ 0, q the share by which
    the prediction misses: the larger γ, the less easy samples count. a = yα + (1 − y)(1 − α), or 1 for alpha None.
    Source: Lin et al. 2017, eq. 5; keras.losses.binary_focal_crossentropy.
    """
    losses = binary_crossentropy(y_true, y_pred, epsilon=epsilon)
    missed = y_true * (1 - y_pred) + (1 - y_true) * y_pred
    return _class_balance(y_true, alpha) * missed**gamma * losses


def binary_focal_crossentropy_backward(
    y_true: Array, y_pred: Array, *, gamma: float, alpha: float | None, epsilon: float = 1e-7
) -> Array:
    """d_y_pred = a (γ q^(γ−1) (1 − 2y) ℓ + q^γ ∂ℓ/∂p);  (...), (...) -> (...), ∂ℓ/∂p = 0 where p was clipped."""
    losses = binary_crossentropy(y_true, y_pred, epsilon=epsilon)
    d_losses = binary_crossentropy_backward(y_true, y_pred, epsilon=epsilon)
    missed = y_true * (1 - y_pred) + (1 - y_true) * y_pred
    focused = _power_derivative(missed, gamma) * (1 - 2 * y_true) * losses + missed**gamma * d_losses
    return _class_balance(y_true, alpha) * focused


def binary_focal_crossentropy_from_logits(y_true: Array, logits: Array, *, gamma: float, alpha: float | None) -> Array:
    """binary_focal_crossentropy(y, sigmoid(z)) without the clip;  (...), (...) -> (...), nats.

    Also what Keras on TensorFlow trains with when the model ends in a sigmoid. 1 − p is sigmoid(−z), so that
    nothing cancels.
    """
    missed = y_true * sigmoid(-logits) + (1 - y_true) * sigmoid(logits)
    return _class_balance(y_true, alpha) * missed**gamma * binary_crossentropy_from_logits(y_true, logits)


def binary_focal_crossentropy_from_logits_backward(
    y_true: Array, logits: Array, *, gamma: float, alpha: float | None
) -> Array:
    """d_logits = a (γ q^(γ−1) (1 − 2y) p(1 − p) ℓ + q^γ (p − y)),  p = sigmoid(z);  (...), (...) -> (...)."""
    p, missing = sigmoid(logits), sigmoid(-logits)
    missed = y_true * missing + (1 - y_true) * p
    losses = binary_crossentropy_from_logits(y_true, logits)
    slope = _power_derivative(missed, gamma) * (1 - 2 * y_true) * (p * missing)
    d_losses = binary_crossentropy_from_logits_backward(y_true, logits)
    return _class_balance(y_true, alpha) * (slope * losses + missed**gamma * d_losses)


def _class_balance(y_true: Array, alpha: float | None) -> Any:
    return 1 if alpha is None else y_true * alpha + (1 - y_true) * (1 - alpha)


def _power_derivative(base: Array, exponent: float) -> Any:
    """∂base^exponent/∂base: 0 for exponent 0, also at base 0."""
    return exponent * base ** (exponent - 1) if exponent else 0


def smoothed_labels(y_true: Array, *, label_smoothing: float, classes: int) -> Array:
    """y(1 − s) + s / C: labels pulled towards the C classes' common share;  (...) -> (...).

    s = label_smoothing in [0, 1]; C = 2 for a binary label. Source: Szegedy et al. 2016, §7.
    """
    return y_true * (1.0 - label_smoothing) + label_smoothing / classes


# ---------------------------------------------------------------------------- categorical cross-entropy
# Over the last axis, of C classes. y_true holds a probability for each class, or (sparse) the number of the class.


def categorical_crossentropy(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """losses = −Σ_c y_c ln p_c,  p = y_pred / Σ y_pred, clipped to [ε, 1 − ε];  (..., C), (..., C) -> (...), nats.

    Source: keras.src.backend.tensorflow.nn.categorical_crossentropy, the branch from_logits=False.
    """
    xp = array_module(y_pred)
    p = xp.clip(y_pred / y_pred.sum(axis=-1, keepdims=True), epsilon, 1.0 - epsilon)
    return -(y_true * xp.log(p)).sum(axis=-1)


def categorical_crossentropy_backward(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """d_y_pred_c = (g_c − Σ_v g_v p_v) / Σ y_pred,  g = −y / p, and 0 where p was clipped;  -> (..., C).

    p = y_pred / Σ y_pred: the division's own derivative is what the sum takes off.
    """
    total = y_pred.sum(axis=-1, keepdims=True)
    p = y_pred / total
    gradient = _of_clipped(-y_true, p, epsilon)
    return (gradient - (gradient * p).sum(axis=-1, keepdims=True)) / total


def categorical_crossentropy_from_logits(y_true: Array, logits: Array) -> Array:
    """losses = Σ_c y_c (ln Σ_v e^(z_v) − z_c);  (..., C), (..., C) -> (...), nats.

    y = y_true, rows sum to 1; z = logits. The row's maximum is subtracted first and its 1 is kept out of the sum, so
    that nothing overflows and a confident right answer keeps its small loss: ln(1 + Σ of the others).
    This is also what Keras on TensorFlow trains with when the model ends in a softmax: it goes back to the logits
    (keras.src.backend.tensorflow.nn._get_logits). Source: tf.nn.softmax_cross_entropy_with_logits.
    """
    shifted, _, others = _shifted_exponentials(logits)
    return (y_true * (array_module(logits).log1p(others.sum(axis=-1, keepdims=True)) - shifted)).sum(axis=-1)


def categorical_crossentropy_from_logits_backward(y_true: Array, logits: Array) -> Array:
    """d_logits = softmax(z) − y;  (..., C), (..., C) -> (..., C).

    TensorFlow's derivative, which takes for granted that y sums to 1. At the row's maximum it is computed as
    (1 − y) − (Σ of the other exponentials) / (Σ of all), which does not cancel for a confident right answer.
    """
    _, top, others = _shifted_exponentials(logits)
    tail = others.sum(axis=-1, keepdims=True)
    return array_module(logits).where(top, (1 - y_true) - tail / (1 + tail), others / (1 + tail) - y_true)


def sparse_categorical_crossentropy(labels: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """losses = ln Σ_v p_v − ln p_c,  p = y_pred clipped to [ε, 1 − ε], c = labels;  (...), (..., C) -> (...), nats.

    labels: whole numbers in [0, C), of any type. Not divided by Σ y_pred before the clip, unlike
    categorical_crossentropy: Keras hands ln p to a softmax instead.
    Errors: ValueError for a label outside [0, C).
    Source: keras.src.backend.tensorflow.nn.sparse_categorical_crossentropy, the branch from_logits=False.
    """
    xp = array_module(y_pred)
    return sparse_categorical_crossentropy_from_logits(labels, xp.log(xp.clip(y_pred, epsilon, 1.0 - epsilon)))


def sparse_categorical_crossentropy_backward(labels: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """d_y_pred_v = 1 / Σ p − [v = c] / p_c, and 0 where p was clipped;  (...), (..., C) -> (..., C)."""
    xp = array_module(y_pred)
    logits = xp.log(xp.clip(y_pred, epsilon, 1.0 - epsilon))
    return _of_clipped(sparse_categorical_crossentropy_from_logits_backward(labels, logits), y_pred, epsilon)


def sparse_categorical_crossentropy_from_logits(labels: Array, logits: Array) -> Array:
    """losses = ln Σ_v e^(z_v) − z_c,  c = labels;  (...), (..., C) -> (...), nats.

    Errors: ValueError for a label outside [0, C). Source: tf.nn.sparse_softmax_cross_entropy_with_logits.
    """
    xp = array_module(logits)
    shifted, _, others = _shifted_exponentials(logits)
    picked = xp.take_along_axis(shifted, _class_numbers(labels, logits.shape[-1])[..., None], axis=-1)[..., 0]
    return xp.log1p(others.sum(axis=-1)) - picked


def sparse_categorical_crossentropy_from_logits_backward(labels: Array, logits: Array) -> Array:
    """d_logits = softmax(z) − onehot(c);  (...), (..., C) -> (..., C)."""
    return categorical_crossentropy_from_logits_backward(one_hot(labels, logits), logits)


def one_hot(labels: Array, like: Array) -> Array:
    """[v = c], c = labels;  (...) -> (..., C), of like's shape and dtype. Errors: ValueError for another label."""
    classes = like.shape[-1]
    return (_class_numbers(labels, classes)[..., None] == array_module(like).arange(classes)).astype(like.dtype)


def categorical_focal_crossentropy(
    y_true: Array, y_pred: Array, *, gamma: float, alpha: Any, epsilon: float = 1e-7
) -> Array:
    """losses = −Σ_c α_c (1 − p_c)^γ y_c ln p_c,  p as in categorical_crossentropy;  (..., C), (..., C) -> (...), nats.

    γ = gamma ≥ 0: the larger, the less easy samples count. α = alpha, one number or (C,).
    Source: Lin et al. 2017, eq. 5, for several classes; keras.losses.categorical_focal_crossentropy.
    """
    xp = array_module(y_pred)
    p = xp.clip(y_pred / y_pred.sum(axis=-1, keepdims=True), epsilon, 1.0 - epsilon)
    return ((1 - p) ** gamma * alpha * (-y_true * xp.log(p))).sum(axis=-1)


def categorical_focal_crossentropy_backward(
    y_true: Array, y_pred: Array, *, gamma: float, alpha: Any, epsilon: float = 1e-7
) -> Array:
    """d_y_pred_c = (g_c − Σ_v g_v p_v) / Σ y_pred,  g = α y (γ (1 − p)^(γ−1) ln p − (1 − p)^γ / p);  -> (..., C).

    g is 0 where p was clipped. p = y_pred / Σ y_pred: the sum is the division's own derivative.
    """
    xp = array_module(y_pred)
    total = y_pred.sum(axis=-1, keepdims=True)
    p = y_pred / total
    clipped = xp.clip(p, epsilon, 1.0 - epsilon)
    slope = _power_derivative(1 - clipped, gamma) * xp.log(clipped) * clipped
    gradient = _of_clipped(alpha * y_true * (slope - (1 - clipped) ** gamma), p, epsilon)
    return (gradient - (gradient * p).sum(axis=-1, keepdims=True)) / total


def _shifted_exponentials(logits: Array) -> tuple[Array, Array, Array]:
    """z − max z, whether each is the (first) maximum, and e^(z − max z) with a 0 in place of the maximum's 1."""
    xp = array_module(logits)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    top = xp.arange(logits.shape[-1]) == logits.argmax(axis=-1)[..., None]
    return shifted, top, xp.where(top, 0, xp.exp(shifted))


def _of_clipped(numerator: Array, p: Array, epsilon: float) -> Array:
    """numerator / p where ε ≤ p ≤ 1 − ε, and 0 where p was clipped."""
    xp = array_module(p)
    low, high = p.dtype.type(epsilon), p.dtype.type(1.0 - epsilon)
    return xp.where((p < low) | (p > high), 0, numerator / xp.clip(p, low, high))


def _class_numbers(labels: Array, classes: int) -> Array:
    numbers = labels.astype(np.int64)
    if ((numbers < 0) | (numbers >= classes)).any():
        raise ValueError(
            f"sparse labels must be class numbers in [0, {classes}); got {numbers.min()} to {numbers.max()}."
        )
    return numbers


# ------------------------------------------------------------------------------------ regression losses
# Elementwise, y = y_true, p = y_pred, (...), (...) -> (...): the mean over the last axis is the caller's. Each
# backward is the derivative of each element's own loss; at a kink it is TensorFlow's.


def squared_error(y_true: Array, y_pred: Array) -> Array:
    """losses = (y − p)²;  in units of y². Source: Legendre 1805; keras.losses.mean_squared_error."""
    return array_module(y_pred).square(y_true - y_pred)


def squared_error_backward(y_true: Array, y_pred: Array) -> Array:
    """d_y_pred = 2 (p − y)."""
    return 2 * (y_pred - y_true)


def absolute_error(y_true: Array, y_pred: Array) -> Array:
    """losses = |y − p|;  in units of y. Source: keras.losses.mean_absolute_error."""
    return array_module(y_pred).abs(y_true - y_pred)


def absolute_error_backward(y_true: Array, y_pred: Array) -> Array:
    """d_y_pred = sign(p − y), and 0 at p = y."""
    return array_module(y_pred).sign(y_pred - y_true)


def absolute_percentage_error(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """losses = 100 |y − p| / max(|y|, ε);  in per cent. Source: keras.losses.mean_absolute_percentage_error."""
    xp = array_module(y_pred)
    return 100 * xp.abs((y_true - y_pred) / xp.maximum(xp.abs(y_true), y_pred.dtype.type(epsilon)))


def absolute_percentage_error_backward(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """d_y_pred = 100 sign(p − y) / max(|y|, ε), and 0 at p = y."""
    xp = array_module(y_pred)
    return 100 * xp.sign(y_pred - y_true) / xp.maximum(xp.abs(y_true), y_pred.dtype.type(epsilon))


def squared_logarithmic_error(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """losses = (ln(1 + max(p, ε)) − ln(1 + max(y, ε)))²;  for y, p ≥ 0.

    Below ε all predictions are alike. ε is rounded to float32, in float64 too, as in Keras.
    Source: keras.losses.mean_squared_logarithmic_error.
    """
    return array_module(y_pred).square(_logarithmic_difference(y_true, y_pred, epsilon))


def squared_logarithmic_error_backward(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """d_y_pred = 2 (ln(1 + p) − ln(1 + max(y, ε))) / (1 + p) where p ≥ ε, else 0."""
    xp = array_module(y_pred)
    low = y_pred.dtype.type(np.float32(epsilon))
    gradient = 2 * _logarithmic_difference(y_true, y_pred, epsilon) / (xp.maximum(y_pred, low) + 1)
    return xp.where(y_pred >= low, gradient, 0)


def _logarithmic_difference(y_true: Array, y_pred: Array, epsilon: float) -> Array:
    xp = array_module(y_pred)
    low = y_pred.dtype.type(np.float32(epsilon))
    return xp.log(xp.maximum(y_pred, low) + 1) - xp.log(xp.maximum(y_true, low) + 1)


def huber(y_true: Array, y_pred: Array, *, delta: float = 1.0) -> Array:
    """losses = e²/2 where |e| ≤ δ, else δ|e| − δ²/2,  e = p − y, δ = delta;  in units of y².

    Quadratic for small errors, linear for outliers. Source: Huber 1964; keras.losses.huber.
    """
    xp = array_module(y_pred)
    limit = y_pred.dtype.type(delta)
    size = xp.abs(y_pred - y_true)
    return xp.where(size <= limit, size * size / 2, limit * size - limit * limit / 2)


def huber_backward(y_true: Array, y_pred: Array, *, delta: float = 1.0) -> Array:
    """d_y_pred = e where |e| ≤ δ, else δ sign(e)."""
    xp = array_module(y_pred)
    limit = y_pred.dtype.type(delta)
    error = y_pred - y_true
    return xp.where(xp.abs(error) <= limit, error, limit * xp.sign(error))


def log_cosh(y_true: Array, y_pred: Array) -> Array:
    """losses = ln cosh e,  e = p − y: e²/2 for small errors, |e| − ln 2 for large ones.

    Computed as ln(1 + sinh²e)/2 where |e| < 1 and |e| + ln(1 + e^(−2|e|)) − ln 2 elsewhere: nothing overflows, and
    small errors keep their digits, which Keras's e + softplus(−2e) − ln 2 loses in float32. In float64 Keras's ln 2
    is float32's, so that all its losses are 1.9e-9 too small; so are these. Source: keras.losses.log_cosh.
    """
    xp = array_module(y_pred)
    size = xp.abs(y_pred - y_true)
    near = xp.log1p(xp.square(xp.sinh(xp.minimum(size, 1)))) / 2
    losses = xp.where(size < 1, near, size + xp.log1p(xp.exp(-2 * size)) - y_pred.dtype.type(math.log(2)))
    return losses - (float(np.float32(math.log(2))) - math.log(2)) if losses.dtype == np.float64 else losses


def log_cosh_backward(y_true: Array, y_pred: Array) -> Array:
    """d_y_pred = tanh(p − y)."""
    return array_module(y_pred).tanh(y_pred - y_true)


# ----------------------------------------------------------------------------------------- hinge losses


def hinge_labels(y_true: Array) -> Array:
    """2y − 1 if all of y_true are 0 or 1, else y_true: hinge losses want −1 and 1;  (...) -> (...).

    Decided for the batch as a whole. Source: keras.src.losses.losses.convert_binary_labels_to_hinge.
    """
    return 2 * y_true - 1 if ((y_true == 0) | (y_true == 1)).all() else y_true


def hinge(y_true: Array, y_pred: Array) -> Array:
    """losses = max(1 − y p, 0),  y = −1 or 1;  (...), (...) -> (...).

    Source: Cortes & Vapnik 1995; keras.losses.hinge, after hinge_labels.
    """
    return array_module(y_pred).maximum(1 - y_true * y_pred, 0)


def hinge_backward(y_true: Array, y_pred: Array) -> Array:
    """d_y_pred = −y where y p ≤ 1, else 0;  (...), (...) -> (...).

    At the kink y p = 1 it is −y, as tf.maximum hands the gradient to its first argument where both are equal.
    """
    return array_module(y_pred).where(1 - y_true * y_pred >= 0, -y_true, 0)


def squared_hinge(y_true: Array, y_pred: Array) -> Array:
    """losses = max(1 − y p, 0)²,  y = −1 or 1;  (...), (...) -> (...). Source: keras.losses.squared_hinge."""
    return array_module(y_pred).square(hinge(y_true, y_pred))


def squared_hinge_backward(y_true: Array, y_pred: Array) -> Array:
    """d_y_pred = −2 y max(1 − y p, 0);  (...), (...) -> (...)."""
    return -2 * y_true * hinge(y_true, y_pred)


def categorical_hinge(y_true: Array, y_pred: Array) -> Array:
    """losses = max(n − s + 1, 0),  n = max_c (1 − y_c) p_c,  s = Σ_c y_c p_c;  (..., C), (..., C) -> (...).

    y one-hot, or −1 and 1. Source: Crammer & Singer 2001; keras.losses.categorical_hinge.
    """
    return array_module(y_pred).maximum(_lead_of_the_others(y_true, y_pred) + 1, 0)


def categorical_hinge_backward(y_true: Array, y_pred: Array) -> Array:
    """d_y_pred = (1 − y) [at the maximum] − y where n − s + 1 ≥ 0, else 0;  (..., C), (..., C) -> (..., C).

    Several maxima share the derivative, as in TensorFlow.
    """
    xp = array_module(y_pred)
    others = (1 - y_true) * y_pred
    top = others == others.max(axis=-1, keepdims=True)
    share = (1 - y_true) * top / top.sum(axis=-1, keepdims=True).astype(y_pred.dtype)
    active = _lead_of_the_others(y_true, y_pred) + 1 >= 0
    return xp.where(active[..., None], share - y_true, 0)


def _lead_of_the_others(y_true: Array, y_pred: Array) -> Array:
    return ((1 - y_true) * y_pred).max(axis=-1) - (y_true * y_pred).sum(axis=-1)


# ---------------------------------------------------------------------------------- angles and correlations


def cosine_similarity(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """cosines = Σ_u ŷ_u p̂_u,  ŷ = y / max(‖y‖₂, ε), p̂ likewise;  (..., U), (..., U) -> (...), in [−1, 1].

    The loss is its negative. Source: keras.losses.cosine_similarity, keras.ops.normalize.
    """
    return (y_true * _inverse_norm(y_true, (-1,), epsilon) * (y_pred * _inverse_norm(y_pred, (-1,), epsilon))).sum(
        axis=-1
    )


def cosine_similarity_backward(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """d_y_pred = (ŷ − cos · p̂) / ‖p‖₂, and ŷ / ε where ‖p‖₂ < ε;  (..., U), (..., U) -> (..., U)."""
    xp = array_module(y_pred)
    inverse = _inverse_norm(y_pred, (-1,), epsilon)
    y, p = y_true * _inverse_norm(y_true, (-1,), epsilon), y_pred * inverse
    along = (y * p).sum(axis=-1, keepdims=True) * p
    return (y - xp.where(inverse < y_pred.dtype.type(1.0 / epsilon), along, 0)) * inverse


def pearson_correlation(y_true: Array, y_pred: Array) -> Array:
    """r = mean of (y − ȳ) / σ_y · (p − p̄) / σ_p over the last axis;  (..., U), (..., U) -> (...), in [−1, 1].

    NaN where y or p does not vary. Source: Pearson 1895; keras.metrics.pearson_correlation.
    """
    y, p = (a - a.mean(axis=-1, keepdims=True) for a in (y_true, y_pred))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (y / y.std(axis=-1, keepdims=True) * (p / p.std(axis=-1, keepdims=True))).mean(axis=-1)


def concordance_correlation(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """ρ = 2 cov(y, p) / (σ_y² + σ_p² + (ȳ − p̄)² + ε) over the last axis;  (..., U), (..., U) -> (...), in [−1, 1].

    1 only for p = y, unlike r. The covariance is the mean of (y − p̄)(p − p̄), as Keras has it, which is the same.
    Source: Lin 1989; keras.metrics.concordance_correlation.
    """
    y_mean, p_mean = (a.mean(axis=-1, keepdims=True) for a in (y_true, y_pred))
    y_var, p_var = ((a - m).var(axis=-1, keepdims=True) for a, m in ((y_true, y_mean), (y_pred, p_mean)))
    covariance = (y_true - p_mean) * (y_pred - p_mean)
    norm = y_var + p_var + (y_mean - p_mean) ** 2
    return (2 * covariance / (norm + y_pred.dtype.type(epsilon))).mean(axis=-1)


# ------------------------------------------------------------------------------------------ divergences


def kl_divergence(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """losses = Σ_c y_c ln(y_c / p_c), both clipped to [ε, 1];  (..., C), (..., C) -> (...), nats.

    Source: Kullback & Leibler 1951; keras.losses.kl_divergence.
    """
    xp = array_module(y_pred)
    y, p = xp.clip(y_true, epsilon, 1), xp.clip(y_pred, epsilon, 1)
    return (y * xp.log(y / p)).sum(axis=-1)


def kl_divergence_backward(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """d_y_pred = −y / p, and 0 where p was clipped;  (..., C), (..., C) -> (..., C)."""
    xp = array_module(y_pred)
    low = y_pred.dtype.type(epsilon)
    gradient = -xp.clip(y_true, low, 1) / xp.clip(y_pred, low, 1)
    return xp.where((y_pred < low) | (y_pred > 1), 0, gradient)


def poisson(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """losses = p − y ln(p + ε);  (...), (...) -> (...), nats, up to a constant of y.

    p = y_pred > 0 the rate, y = y_true ≥ 0 the count. Source: keras.losses.poisson.
    """
    return y_pred - y_true * array_module(y_pred).log(y_pred + y_pred.dtype.type(epsilon))


def poisson_backward(y_true: Array, y_pred: Array, *, epsilon: float = 1e-7) -> Array:
    """d_y_pred = 1 − y / (p + ε);  (...), (...) -> (...)."""
    return 1 - y_true / (y_pred + y_pred.dtype.type(epsilon))


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


def orthogonal_penalty(weights: Array, *, factor: float, mode: str = "rows") -> Array:
    """penalty = factor · ½ Σ_(i≠j) |n_i · n_j| / (N (N − 1) / 2),  n_i = w_i / ‖w_i‖;  (I, U) -> ().

    w_i: the N rows (mode "rows") or columns ("columns") of the weights. A mean over the pairs: 0 where all are at right
    angles, factor where all are parallel. A norm below 10⁻¹² counts as 10⁻¹².
    Errors: ValueError unless there are two axes, and two rows or columns.
    Source: keras.regularizers.OrthogonalRegularizer.
    """
    unit, _, pairs = _unit_rows(weights, mode)
    products = unit @ unit.T
    xp = array_module(weights)
    others = products * (1 - xp.eye(len(products), dtype=products.dtype))
    return weights.dtype.type(factor * 0.5) * xp.abs(others).sum() / weights.dtype.type(pairs)


def orthogonal_gradient(weights: Array, *, factor: float, mode: str = "rows", out: Array | None = None) -> Array:
    """d_w_i = (d_i − (d_i · n_i) n_i) / ‖w_i‖,  d_i = factor Σ_(j≠i) sign(n_i · n_j) n_j / pairs;  (I, U) -> (I, U).

    d_i is the gradient of the unit vector n_i; what of it points along n_i does not turn w_i. sign(0) = 0.
    """
    unit, inverse, pairs = _unit_rows(weights, mode)
    xp = array_module(weights)
    signs = xp.sign(unit @ unit.T) * (1 - xp.eye(len(unit), dtype=unit.dtype))
    d_unit = (signs @ unit) * weights.dtype.type(factor / pairs)
    free = inverse < 1e12  # a norm that is held at 1e-12 does not change with the weights
    along = (d_unit * unit).sum(axis=1, keepdims=True)
    gradient = (d_unit - xp.where(free, along * unit, 0)) * inverse
    return _result(gradient if mode == "rows" else gradient.T, out)


def _unit_rows(weights: Array, mode: str) -> tuple[Array, Array, float]:
    """The rows, or columns as rows, of norm 1; one over their norms; and how many pairs they make."""
    if weights.ndim != 2:
        raise ValueError(f"orthogonal_penalty: expected weights of two axes; got shape {weights.shape}.")
    rows = weights if mode == "rows" else weights.T
    if len(rows) < 2:
        raise ValueError(
            f"orthogonal_penalty: mode {mode!r} needs at least two {mode}, to be at right angles; got shape "
            f"{weights.shape}. (Keras divides by the number of pairs, and returns a NaN.)"
        )
    xp = array_module(weights)
    squares = xp.square(rows).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        inverse = xp.minimum(1 / xp.sqrt(squares), weights.dtype.type(1e12))
    return rows * inverse, inverse, len(rows) * (len(rows) - 1) / 2


# ------------------------------------------------------------------------------------------ constraints


def max_norm(weights: Array, *, max_value: float, axis: Axis = 0, epsilon: float = 1e-7) -> Array:
    """w · min(n, max_value) / (ε + n),  n = √Σw² along axis;  (...) -> (...). Norms of at most max_value.

    The ε shrinks a norm within the bound too, by one part in n / ε. Source: Srebro & Shraibman 2005;
    keras.constraints.MaxNorm.
    """
    xp = array_module(weights)
    norms = _norms(weights, axis)
    return weights * (xp.clip(norms, 0, weights.dtype.type(max_value)) / (weights.dtype.type(epsilon) + norms))


def non_negative(weights: Array) -> Array:
    """max(w, 0);  (...) -> (...). Source: keras.constraints.NonNeg."""
    return array_module(weights).maximum(weights, 0)


def unit_norm(weights: Array, *, axis: Axis = 0, epsilon: float = 1e-7) -> Array:
    """w / (ε + n),  n = √Σw² along axis;  (...) -> (...). Norms of 1; 0 stays 0. Source: keras.constraints.UnitNorm."""
    return weights / (weights.dtype.type(epsilon) + _norms(weights, axis))


def min_max_norm(
    weights: Array,
    *,
    min_value: float = 0.0,
    max_value: float = 1.0,
    rate: float = 1.0,
    axis: Axis = 0,
    epsilon: float = 1e-7,
) -> Array:
    """w · (r c + (1 − r) n) / (ε + n),  n = √Σw² along axis, c = n cut to [min_value, max_value];  (...) -> (...).

    r = rate in [0, 1]: the share of the way to c that each call goes. Source: keras.constraints.MinMaxNorm.
    """
    xp = array_module(weights)
    norms = _norms(weights, axis)
    kind = weights.dtype.type
    desired = kind(rate) * xp.clip(norms, kind(min_value), kind(max_value)) + kind(1 - rate) * norms
    return weights * (desired / (kind(epsilon) + norms))


def _norms(weights: Array, axis: Axis) -> Array:
    xp = array_module(weights)
    return xp.sqrt(xp.square(weights).sum(axis=axis, keepdims=True))


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
    return adam_alphas(dtype, steps=(step,), learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2)[0]


def adam_alphas(dtype: type, *, steps: Sequence[int], learning_rate: Any, beta_1: float, beta_2: float) -> Array:
    """adam_alpha of each of the steps;  (steps,). learning_rate: one, or one a step."""
    if min(steps) < 1:
        raise ValueError(f"adam: step counts from 1, got {min(steps)}. Pass iterations + 1.")
    one = dtype(1)
    power_1, power_2 = (  # type: ignore[var-annotated]
        np.array([math.pow(beta, step) for step in steps], dtype)
        for beta in (float(np.float32(beta_1)), float(np.float32(beta_2)))
    )
    root = np.sqrt(one - power_2, dtype=np.float64).astype(dtype)
    return np.asarray(learning_rate, dtype) * root / (one - power_1)


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
    work: Sequence[Array] | None = None,
) -> None:
    """One Adam update; writes param, m and v in place, only reads grad.

        m ← m + (1 − β₁)(g − m)
        v ← v + (1 − β₂)(g² − v)
        α = η √(1 − β₂ᵗ) / (1 − β₁ᵗ)
        θ ← θ − α m / (√v + ε̂)

    θ = param, g = grad, η = learning_rate, t = step (1-based, per batch), ε̂ = epsilon.
    Shapes: all equal. dtype: one float type, in which α is computed too, as Keras does.
    Units: η in those of param, v in those of grad², ε̂ in those of grad. work: two arrays like param, overwritten.
    Errors: ValueError if step < 1, or a shape or dtype differs.
    Source: Kingma & Ba 2015, the ε̂ form before §2.1 (not Algorithm 1's ε); keras.optimizers.Adam.update_step.
    """
    if not (param.shape == grad.shape == m.shape == v.shape and param.dtype == grad.dtype == m.dtype == v.dtype):
        described = ", ".join(f"{a.dtype}{a.shape}" for a in (param, grad, m, v))
        raise ValueError(f"adam_step: param, grad, m and v must have one shape and dtype; got {described}.")
    xp = array_module(param)
    dtype = param.dtype.type
    alpha = adam_alpha(dtype, step=step, learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2)
    change, root = work or (xp.empty_like(param), xp.empty_like(param))
    xp.subtract(grad, m, out=change)
    change *= dtype(1.0 - beta_1)
    m += change
    xp.square(grad, out=change)
    change -= v
    change *= dtype(1.0 - beta_2)
    v += change
    xp.sqrt(v, out=root)
    root += dtype(epsilon)
    xp.multiply(m, alpha, out=change)
    change /= root
    param -= change


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
    nadam_product_step(u_product, step=step, beta_1=beta_1)
    product = dtype(u_product)
    beta_v = dtype(np.float32(beta_2))
    m += (grad - m) * (one - beta)
    v += (xp.square(grad) - v) * (one - beta_v)
    m_hat = (m * mu_next) / (one - product * mu_next) + (grad * (one - mu)) / (one - product)
    v_hat = v / (one - dtype(math.pow(beta_v, step)))
    param -= (m_hat * dtype(learning_rate)) / (xp.sqrt(v_hat) + dtype(epsilon))


def nadam_product_step(u_product: Array, *, step: int, beta_1: float = 0.9) -> None:
    """The first line of nadam_step, U ← U μₜ, of which only U is kept; writes u_product, of shape (), in place.

    dtype: a float type. Source: keras.optimizers.Nadam._backend_update_step.
    """
    dtype = u_product.dtype.type
    u_product[...] = u_product * dtype(beta_1) * (dtype(1) - dtype(0.5) * dtype(math.pow(dtype(0.96), step)))


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


def swap_by_sums(a: Array, b: Array) -> None:
    """a, b ← b, a by a ← a + b; b ← a − b; a ← a − b; writes both in place;  (...), (...).

    Each of the three rounds, so a swap and another back leave a, b off by up to the rounding of a + b.
    Source: keras.callbacks.SwapEMAWeights on TensorFlow, which so makes no third variable.
    """
    a += b
    array_module(a, b).subtract(a, b, out=b)
    a -= b


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


def accuracy(y_true: Array, y_pred: Array) -> Array:
    """matches = 1 where y_true = y_pred, else 0;  (...), (...) -> (...), of y_pred's dtype.

    Of class numbers, not of probabilities. Source: keras.metrics.Accuracy.
    """
    return (y_true == y_pred).astype(y_pred.dtype)


def sparse_categorical_accuracy(labels: Array, y_pred: Array) -> Array:
    """matches = 1 where labels = argmax_c y_pred, the first of equals, else 0;  (...), (..., C) -> (...).

    Source: keras.metrics.sparse_categorical_accuracy.
    """
    return (labels == y_pred.argmax(axis=-1)).astype(y_pred.dtype)


def categorical_accuracy(y_true: Array, y_pred: Array) -> Array:
    """matches = 1 where argmax_c y_true = argmax_c y_pred, else 0;  (..., C), (..., C) -> (...).

    Source: keras.metrics.categorical_accuracy.
    """
    return sparse_categorical_accuracy(y_true.argmax(axis=-1), y_pred)


def in_top_k(labels: Array, y_pred: Array, *, k: int) -> Array:
    """matches = 1 where fewer than k classes are predicted higher than the label's, else 0;  (B,), (B, C) -> (B,).

    Equals share the higher place. A label outside [0, C) or a row that is not finite never matches.
    Source: tf.math.in_top_k; keras.metrics.top_k_categorical_accuracy.
    """
    xp = array_module(y_pred)
    known = (labels >= 0) & (labels < y_pred.shape[-1]) & xp.isfinite(y_pred).all(axis=-1)
    own = xp.take_along_axis(y_pred, xp.where(known, labels, 0).astype(np.int64)[:, None], axis=-1)
    return (known & ((y_pred > own).sum(axis=-1) < k)).astype(y_pred.dtype)


# ------------------------------------------------------------------------- counts, curves and scores


def divide_no_nan(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator, and 0 where the denominator is 0;  (...), (...) -> (...). Source: tf.math.divide_no_nan.

    Precision tp / (tp + fp), recall tp / (tp + fn) and the false positive rate fp / (fp + tn) are this.
    """
    xp = array_module(numerator, denominator)
    zero = denominator == 0
    return xp.where(zero, 0, numerator / xp.where(zero, 1, denominator)).astype(numerator.dtype)


def confusion_counts(
    y_true: Array, y_pred: Array, weights: Array, *, thresholds: Array
) -> tuple[Array, Array, Array, Array]:
    """Σ of weights of true and false positives, true and false negatives, at each threshold: four of (T, L).

    y_true (N, L): positive where not 0. y_pred (N, L): predicted positive where > the threshold, strictly.
    weights (N, L). thresholds (T,). The sums are made in float64.
    Source: keras.src.metrics.metrics_utils.update_confusion_matrix_variables.
    """
    positive = y_pred[None] > thresholds[:, None, None]
    true, false = (np.where(y_true != 0, weights, 0), np.where(y_true == 0, weights, 0))
    tp, fp = ((positive * labelled).sum(axis=1, dtype=np.float64) for labelled in (true, false))
    return tp, fp, false.sum(axis=0, dtype=np.float64) - fp, true.sum(axis=0, dtype=np.float64) - tp


def confusion_counts_evenly(
    y_true: Array, y_pred: Array, weights: Array, *, thresholds: int, all_above_first: bool
) -> tuple[Array, Array, Array, Array]:
    """confusion_counts for T thresholds i / (T − 1), each prediction put in the bucket ⌈p (T − 1)⌉ − 1 once.

    T = thresholds; p is clipped to [0, 1]. all_above_first: the first threshold lies below 0, so that p = 0 is above
    it. The product is rounded to y_pred's dtype, as in Keras: a prediction within rounding of a threshold can land
    on its other side. Source: keras.src.metrics.metrics_utils._update_confusion_matrix_variables_optimized.
    """
    p = np.clip(y_pred, 0, 1)
    bucket = np.ceil(p * p.dtype.type(thresholds - 1)).astype(np.int64) - 1
    bucket = np.maximum(bucket, 0) if all_above_first else bucket
    buckets = np.arange(thresholds)[:, None, None]
    labelled = [np.where(y_true != 0, weights, 0), np.where(y_true == 0, weights, 0)]
    tp, fp = (np.where(bucket[None] >= buckets, one, 0).sum(axis=1, dtype=np.float64) for one in labelled)
    true, false = (one.sum(axis=0, dtype=np.float64) for one in labelled)
    return tp, fp, false - fp, true - tp


def only_top_k(y_pred: Array, *, k: int) -> Array:
    """y_pred where it is among its row's k highest, −10¹⁰ elsewhere;  (..., C) -> (..., C).

    Of equals the first is the higher. Source: keras.src.metrics.metrics_utils._filter_top_k.
    """
    xp = array_module(y_pred)
    rank = xp.argsort(xp.argsort(-y_pred, axis=-1, kind="stable"), axis=-1, kind="stable")
    return xp.where(rank < k, y_pred, y_pred.dtype.type(-1e10))


def area_under_curve(x: Array, y: Array, *, method: str) -> Array:
    """area = Σ_t (x_t − x_(t+1)) h_t,  x falling with t;  (T, ...), (T, ...) -> (...).

    h_t of y_t and y_(t+1): their mean (method "interpolation", the trapezoids), minimum ("minoring") or maximum
    ("majoring"). Source: keras.metrics.AUC.result.
    """
    xp = array_module(x)
    heights = {"interpolation": lambda a, b: (a + b) / 2, "minoring": xp.minimum, "majoring": xp.maximum}
    return ((x[:-1] - x[1:]) * heights[method](y[:-1], y[1:])).sum(axis=0)


def precision_recall_area(tp: Array, fp: Array, fn: Array) -> Array:
    """The area under precision over recall, interpolated between counts;  (T, ...) each -> (...).

        s = Δtp / Δp,  p = tp + fp,  area = Σ_t s (Δtp + (tp − s p) ln(p_t / p_(t+1))) / (tp + fn)

    Between two thresholds tp grows linearly with p, and precision tp / p does not. Counts at t + 1 where no index is
    given. Source: Davis & Goadrich 2006; keras.metrics.AUC.interpolate_pr_auc.
    """
    xp = array_module(tp)
    p = tp + fp
    d_tp, d_p = tp[:-1] - tp[1:], xp.maximum(p[:-1] - p[1:], 0)
    slope = divide_no_nan(d_tp, d_p)
    intercept = tp[1:] - slope * p[1:]
    both = (p[:-1] > 0) & (p[1:] > 0)
    ratio = xp.where(both, divide_no_nan(p[:-1], p[1:]), 1).astype(tp.dtype)
    return divide_no_nan(slope * (d_tp + intercept * xp.log(ratio)), tp[1:] + fn[1:]).sum(axis=0)


def gain_curve(tp: Array, fp: Array, tn: Array, fn: Array) -> tuple[Array, Array]:
    """Recall gain and precision gain, 1 − r·fn/tp and 1 − r·fp/tp,  r = (tp + fn) / (tn + fp);  (T, ...) each.

    Without true positives they are 0 and 1; a negative recall gain is made 0.
    Source: Flach & Kull 2015; keras.metrics.AUC with curve="PRGAIN".
    """
    xp = array_module(tp)
    ratio = divide_no_nan(tp + fn, tn + fp)
    recall_gain = xp.where(tp == 0, 0, 1 - ratio * divide_no_nan(fn, tp))
    return xp.maximum(recall_gain, 0), xp.where(tp == 0, 1, 1 - ratio * divide_no_nan(fp, tp))


def best_under_constraint(constrained: Array, dependent: Array, *, at_least: float) -> Any:
    """The largest of dependent where constrained ≥ at_least, and 0 if that is nowhere;  (T,), (T,) -> ().

    Both at the same T thresholds. Source: keras.metrics.SensitivityAtSpecificity.
    """
    xp = array_module(dependent)
    return xp.where(constrained >= at_least, dependent, 0).max(initial=0)


def fbeta_score(tp: Array, fp: Array, fn: Array, *, beta: float, epsilon: float = 1e-7) -> Array:
    """score = (1 + β²) P R / (β² P + R + ε),  P = tp / (tp + fp + ε), R = tp / (tp + fn + ε);  (...) each -> (...).

    Source: van Rijsbergen 1979; keras.metrics.FBetaScore.
    """
    precision, recall = tp / (tp + fp + epsilon), tp / (tp + fn + epsilon)
    return precision * recall / (beta**2 * precision + recall + epsilon) * (1 + beta**2)


def r2_score(total: Array, squares: Array, residual: Array, count: Array) -> tuple[Array, Array]:
    """scores = 1 − Σ w(y − p)² / V, and V = Σ wy² − (Σ wy)² / Σ w;  (U,) each -> (U,), (U,).

    total Σ wy, squares Σ wy², residual Σ w(y − p)², count Σ w. An infinite score (V = 0) is made 0; 0/0 is NaN.
    Source: keras.metrics.R2Score.
    """
    xp = array_module(total)
    with np.errstate(divide="ignore", invalid="ignore"):
        variation = squares - total * (total / count)
        scores = 1 - residual / variation
    return xp.where(xp.isinf(scores), 0, scores), variation


# ------------------------------------------------------------------------------------ reductions of losses


def reduce_losses(losses: Array, sample_weight: Array | None = None, *, reduction: str | None) -> Array:
    """loss = Σ w ℓ / N of each sample's loss ℓ;  losses (...), sample_weight that broadcasts or None (all 1) -> ().

    N: the number of losses ("sum_over_batch_size", "mean"), Σ w if weights are given ("mean_with_sample_weight"), or
    1 ("sum"). None and "none": w ℓ itself, not summed; so also for a single loss of shape (). N = 0 gives 0.
    Source: keras.src.losses.loss.reduce_weighted_values.
    """
    weighted = losses if sample_weight is None else losses * sample_weight
    if reduction in (None, "none") or weighted.ndim == 0:
        return weighted
    if reduction == "sum":
        return weighted.sum()
    if reduction == "mean_with_sample_weight" and sample_weight is not None:
        return divide_no_nan(weighted.sum(), sample_weight.sum())[()]
    return weighted_mean_over_batch(weighted)


def reduce_losses_backward(
    shape: tuple[int, ...], sample_weight: Array | None = None, *, reduction: str | None
) -> Array:
    """d_losses = w / N: what each of the losses of that shape counts;  -> shape, in float64.

    For None and "none" it is the derivative of the sum, as TensorFlow's tape has it.
    """
    ones = np.ones(shape)
    weights = ones if sample_weight is None else ones * sample_weight
    if weights.ndim and reduction not in (None, "none", "sum"):
        total = weights.size
        if reduction == "mean_with_sample_weight" and sample_weight is not None:
            total = np.asarray(sample_weight, np.float64).sum()
        weights = weights / total if total else weights * 0
    weights = weights.sum(axis=tuple(range(weights.ndim - len(shape))))
    widened = tuple(i for i, (n, m) in enumerate(zip(weights.shape, shape, strict=True)) if n != m)
    return weights.sum(axis=widened, keepdims=True) if widened else weights


def weighted_mean_over_batch(losses: Array, sample_weight: Array | None = None) -> Array:
    """loss = Σ_b w_b ℓ_b / B;  losses (B,), sample_weight (B,) or None (all 1) -> ().

    Divided by the number of samples B, not by the sum of the weights: Keras's "sum_over_batch_size".
    Source: keras.src.losses.loss.reduce_weighted_values.
    """
    weighted = losses if sample_weight is None else losses * sample_weight
    return weighted.sum() / losses.dtype.type(losses.size)


def __getattr__(name: str) -> Any:
    """Keras's `ops` for a metric, a regularizer or a loss of one's own: see array_functions.py."""
    if name in array_functions.NAMES:
        return array_functions.function(name)
    raise AttributeError(
        f"minidl.ops has no {name!r}. It has the formulas of a multilayer perceptron, and of Keras's ops those that "
        f"NumPy has too."
    )
