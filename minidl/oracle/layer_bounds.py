"""The layers and activations of minidl in ball arithmetic: what each computes, and how far rounding may lead from it.

Each activation is a pair: its value as a function of the inputs x, and what its backward makes of dL/d(outputs), x and
the outputs y. Each kind of layer is a pair as well. The forms are those of Keras's backends; where these differ, the
ball takes in all of them (bounds.either). Sources: keras/src/backend/tensorflow/nn.py and the gradients that TensorFlow
registers for its operations (tensorflow/python/ops/{nn_grad,math_grad}.py); the values are those of minidl's ops.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl import activations, config, layers
from minidl.backend import Array
from minidl.layers import Layer
from minidl.layers.normalization import BatchNormalization, GroupNormalization, LayerNormalization
from minidl.oracle import bounds
from minidl.oracle.bounds import Ball, either, select, where

Weights = dict[str, Ball]
Terms = tuple[Ball, ...]


def chained(d: Ball, slope: Ball | Terms, roundings: int = 1) -> Ball:
    """d · slope. Of a slope that is a sum of terms, also as the tape adds it up, d times each of them.

    Where d is NaN and the slope 0 or open, there is no bound: the trainer may select 0 instead of multiplying with it.
    """
    if isinstance(slope, Ball):
        total, found = slope, d.times(slope, roundings)
    else:
        total, found = slope[0], d.times(slope[0], roundings)
        for term in slope[1:]:
            total, found = total + term, found + d.times(term, roundings)
        found = either(d.times(total, roundings), found)
    if not np.isnan(d.value.max(initial=0)):
        return found
    is_open = np.isnan(d.value) & ((total.value == 0) | total.unbounded)
    return where(is_open, Ball(np.zeros(()), np.array(np.inf), d.arithmetic), found)


# ----------------------------------------------------------------------------------------- activations


def _kept(x: Ball, value: float) -> Ball:
    """A constant that is rounded to float32 first, in float64 too."""
    return x.arithmetic.const(value, float32_first=True)


def _one(x: Ball) -> Ball:
    return x.arithmetic.given(np.ones(x.shape))


def _zero(x: Ball) -> Ball:
    return x.arithmetic.given(np.zeros(x.shape))


def _relu(x: Ball, *, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Ball:
    if not threshold and max_value is None:
        return select(x, 0, x, x * _kept(x, negative_slope)) if negative_slope else bounds.maximum(x, 0)
    found = select(x, _kept(x, threshold), x, _zero(x)) if threshold else bounds.maximum(x, 0)
    if max_value is not None:
        found = bounds.clip(found, 0, _kept(x, max_value))
    return found - bounds.maximum(threshold - x, 0) * negative_slope if negative_slope else found


def _relu_backward(
    d: Ball, x: Ball, y: Ball, *, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Ball:
    if not threshold and max_value is None:
        return select(x, 0, d, d * _kept(x, negative_slope) if negative_slope else 0)
    one, zero, at = _one(x), _zero(x), _kept(x, threshold)
    found = select(x, at, one, zero)
    if max_value is not None:
        found = select(x, _kept(x, max_value), zero, found, tie="either")
        found = select(x, 0, found, zero, tie="either") if threshold < 0 else found
    return chained(d, found + select(x, at, zero, zero + x.arithmetic.const(negative_slope), tie="either"))


def _elu(x: Ball, *, alpha: float = 1.0) -> Ball:
    return select(x, 0, x, bounds.expm1(bounds.minimum(x, 0)) * alpha)


def _elu_slope(x: Ball, y: Ball, *, alpha: float = 1.0) -> Ball:
    """α(y + 1) of the outputs as rounded, or α e^x."""
    low = bounds.minimum(x, 0)
    below = (bounds.expm1(low) + 1) * alpha
    return select(x, 0, _one(x), either(below, bounds.exp(low) * alpha, y + 1) if alpha == 1 else below)


def _celu(x: Ball, *, alpha: float = 1.0) -> Ball:
    return bounds.maximum(x, 0) + bounds.expm1(bounds.minimum(x, 0) / alpha) * alpha


def _celu_slope(x: Ball, y: Ball, *, alpha: float = 1.0) -> Ball:
    """1 above 0, e^(x/α) below; at 0 TensorFlow's maximum and minimum both pass, which makes 2.

    JAX's derivative of expm1 is expm1 + 1, which cancels.
    """
    low = bounds.minimum(x, 0) / alpha
    below = bounds.exp(low)
    if x.arithmetic.backend == "jax":
        below = either(below, bounds.expm1(low) + 1)
    found = select(x, 0, _one(x), below)
    kink = np.abs(x.value) <= x.radius
    return Ball(found.value, np.where(kink, np.maximum(found.radius, 1), found.radius), x.arithmetic)


_ALPHA, _SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
_SCALE_ALPHA = 1.7580993408473768599175402208123


def _selu(x: Ball) -> Ball:
    return select(x, 0, x * _SCALE, bounds.expm1(bounds.minimum(x, 0)) * _SCALE_ALPHA)


def _selu_slope(x: Ball, y: Ball) -> Ball:
    """λα + y of the outputs, or λα e^x, on JAX λ(α (expm1 x + 1)); where y is 0 either side's.

    TensorFlow asks y for the side, and its y, of e^x − 1, is 0 from x = −2⁻²⁵ on.
    """
    low = bounds.minimum(x, 0)
    below = either(y + _SCALE_ALPHA, bounds.exp(low) * _SCALE_ALPHA)
    if x.arithmetic.backend == "jax":
        below = either(below, (bounds.expm1(low) + 1) * _ALPHA * _SCALE)
    return select(y, 0, _one(x) * x.arithmetic.const(_SCALE), below, tie="either")


def _softsign_slope(x: Ball, y: Ball) -> Ball:
    """1/s² with s = |x| + 1; on JAX and torch, by the rule of quotients, 1/s − |x|/s², which cancels."""
    s = bounds.absolute(x) + 1
    if x.arithmetic.backend == "tensorflow":
        return 1 / bounds.square(s)
    return either(1 / bounds.square(s), 1 / s - bounds.absolute(x) / s / s)


def _squareplus(x: Ball, *, b: float = 4) -> Ball:
    return (x + bounds.sqrt(bounds.square(x) + float(b))) * 0.5


def _squareplus_slope(x: Ball, y: Ball, *, b: float = 4) -> Terms:
    return _one(x) * 0.5, x * bounds.rsqrt(bounds.square(x) + float(b)) * 0.5


def _soft_shrink(x: Ball, *, threshold: float = 0.5) -> Ball:
    below = select(-x, threshold, x + threshold, _zero(x))
    return select(x, threshold, x - threshold, below)


def _beyond(x: Ball, y: Ball, *, threshold: float = 0.5) -> Ball:
    """1 where |x| > t, else 0."""
    return select(bounds.absolute(x), threshold, _one(x), _zero(x))


def _hard_shrink(x: Ball, *, threshold: float = 0.5) -> Ball:
    return select(bounds.absolute(x), threshold, x, _zero(x))


def _threshold(x: Ball, *, threshold: float, default_value: float) -> Ball:
    return select(x, threshold, x, _zero(x) + x.arithmetic.const(default_value))


def _threshold_slope(x: Ball, y: Ball, *, threshold: float, default_value: float) -> Ball:
    return select(x, threshold, _one(x), _zero(x))


def _sparse_plus(x: Ball) -> Ball:
    """The square is a product, or on TensorFlow tf.pow(x + 1, 2), which is rounded less well."""
    base = bounds.clip(x, -1, 1) + 1
    bend = either(bounds.square(base), bounds.power(base, 2)) * 0.25
    return select(x, 1, x, bend, tie="either")


def _tanh_shrink_slope(x: Ball, y: Ball) -> Terms:
    return _one(x), -(1 - bounds.square(bounds.tanh(x)))


def _silu_slope(x: Ball, y: Ball) -> Ball:
    s = bounds.sigmoid(x)
    return either(s * (x * bounds.sigmoid(-x) + 1), s * (x * (1 - s) + 1))


def _gelu_inner(x: Ball) -> tuple[Ball, Ball]:
    """u = √(2/π)(x + k x³) and its derivative."""
    cubic, factor = _kept(x, 0.044715), math.sqrt(2 / math.pi)
    cube = either(bounds.square(x) * x, Ball(x.value**3, np.zeros_like(x.value), x.arithmetic).times(1.0, 4))
    return (x + cubic * cube) * factor, (bounds.square(x) * cubic * 3 + 1) * factor


def _gelu(x: Ball, *, approximate: bool = False) -> Ball:
    """½ x erfc(−c x), or ½ x (1 + tanh u)."""
    if approximate:
        return x * 0.5 * (bounds.tanh(_gelu_inner(x)[0]) + 1)
    return x * 0.5 * _gelu_tail(x)


def _gelu_tail(x: Ball) -> Ball:
    """erfc(−x/√2), on torch as 1 + erf(x/√2). Source: GeluKernel in ATen/native/cpu/Activation.cpp."""
    scaled = x * _kept(x, math.sqrt(0.5))
    return bounds.erf_plus_1(scaled) if x.arithmetic.backend == "torch" else bounds.erfc(-scaled)


def _gelu_slope(x: Ball, y: Ball, *, approximate: bool = False) -> Terms:
    if approximate:
        inner, slope = _gelu_inner(x)
        t = bounds.tanh(inner)
        return (t + 1) * 0.5, x * 0.5 * (1 - bounds.square(t)) * slope
    c = _kept(x, math.sqrt(0.5))
    density = bounds.exp(-bounds.square(x * c)) * x.arithmetic.const(2 / math.sqrt(math.pi)) * c
    return _gelu_tail(x) * 0.5, x * 0.5 * density


def _mish_slope(x: Ball, y: Ball) -> Terms:
    t = bounds.tanh(bounds.softplus(x))
    return t, x * ((1 - bounds.square(t)) * bounds.sigmoid(x))


def _hard_sigmoid(x: Ball) -> Ball:
    return bounds.clip(x + 3, 0, 6) / 6.0


def _hard_sigmoid_slope(x: Ball, y: Ball) -> Ball:
    shifted, zero = x + 3, _zero(x)
    sixth = _one(x) / 6.0
    return select(shifted, 6, zero, select(shifted, 0, sixth, zero, tie="either"), tie="either")


def _between(low: float, high: float, slope: float = 1.0) -> Callable[..., Ball]:
    """A slope between two kinks, and 0 beyond; at the kinks either."""

    def function(x: Ball, y: Ball) -> Ball:
        zero = _zero(x)
        return select(x, high, zero, select(x, low, _one(x) * slope, zero, tie="either"), tie="either")

    return function


def _sigmoid_slope(x: Ball, y: Ball) -> Ball:
    return y * (1 - y)


def _square(x: Ball) -> Ball:
    return bounds.square(x)


def softmax(x: Ball, *, axis: Any = -1) -> Ball:
    """e^(x − max) / Σ."""
    exponentials = bounds.exp(x - x.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


def _softmax_backward(d: Ball, x: Ball, y: Ball, *, axis: Any = -1) -> Ball:
    """y (d − Σ d y), or y d − y Σ d y."""
    along = (d * y).sum(axis, keepdims=True)
    return either(y * (d - along), y * d - y * along)


def log_softmax(x: Ball, *, axis: Any = -1) -> Ball:
    """(x − max) − ln Σ e^(x − max)."""
    shifted = x - x.max(axis, keepdims=True)
    return shifted - bounds.log(bounds.exp(shifted).sum(axis, keepdims=True))


def _log_softmax_backward(d: Ball, x: Ball, y: Ball, *, axis: Any = -1) -> Ball:
    """d − Σ d · e^y of the outputs, or of a softmax."""
    total = d.sum(axis, keepdims=True)
    return either(d - total * bounds.exp(y), d - total * softmax(x, axis=axis))


def _sparsemax_parts(x: Ball, axis: int) -> tuple[Ball, Array, Array, Array]:
    """τ, the order, the support and its size; where a support is uncertain, an infinite radius."""
    order = np.argsort(-x.value, axis=axis, kind="stable")
    ordered = x.moved(lambda a: np.take_along_axis(a, order, axis=axis))
    n = x.shape[axis]
    ranks = np.arange(1, n + 1).reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
    gamma, size = x.arithmetic.gamma(n), np.cumsum(ordered.magnitude, axis=axis)
    sums = Ball(np.cumsum(ordered.value, axis=axis), np.cumsum(ordered.radius, axis=axis) + gamma * size, x.arithmetic)
    test = ordered - (sums - 1) / x.arithmetic.given(ranks)
    support = test.value > 0
    count = support.sum(axis=axis, keepdims=True)
    tau = (where(support, sums, 0).sum(axis, keepdims=True) - 1) / x.arithmetic.given(count)
    open_question = (np.abs(test.value) <= test.radius).any(axis=axis, keepdims=True)
    return Ball(tau.value, np.where(open_question, np.inf, tau.radius), x.arithmetic), order, support, count


def _sparsemax(x: Ball, *, axis: int = -1) -> Ball:
    return bounds.maximum(x - _sparsemax_parts(x, axis)[0], 0)


def _sparsemax_backward(d: Ball, x: Ball, y: Ball, *, axis: int = -1) -> Ball:
    tau, order, support, count = _sparsemax_parts(x, axis)
    passed = select(x - tau, 0, d, _zero(d), tie="either")
    shares = np.flip(np.cumsum(np.flip(support, axis), axis=axis), axis)
    back = np.argsort(order, axis=axis)
    slopes = x.arithmetic.given(np.take_along_axis(shares, back, axis=axis)) / x.arithmetic.given(count)
    return passed - passed.sum(axis, keepdims=True) * slopes


# name: value of x, slope of (x, y)
_SLOPES: dict[str, tuple[Callable[..., Ball], Callable[..., Ball | Terms]]] = {
    "celu": (_celu, _celu_slope),
    "elu": (_elu, _elu_slope),
    "exponential": (bounds.exp, lambda x, y: y),
    "gelu": (_gelu, _gelu_slope),
    "hard_shrink": (_hard_shrink, _beyond),
    "hard_sigmoid": (_hard_sigmoid, _hard_sigmoid_slope),
    "hard_silu": (lambda x: x * _hard_sigmoid(x), lambda x, y: (_hard_sigmoid(x), x * _hard_sigmoid_slope(x, y))),
    "hard_tanh": (lambda x: bounds.clip(x, -1, 1), _between(-1, 1)),
    "linear": (lambda x: x, lambda x, y: _one(x)),
    "log_sigmoid": (lambda x: -bounds.softplus(-x), lambda x, y: bounds.sigmoid(-x)),
    "mish": (lambda x: x * bounds.tanh(bounds.softplus(x)), _mish_slope),
    "relu6": (lambda x: bounds.clip(x, 0, 6), _between(0, 6)),
    "selu": (_selu, _selu_slope),
    "sigmoid": (bounds.sigmoid, _sigmoid_slope),
    "silu": (lambda x: x * bounds.sigmoid(x), _silu_slope),
    "soft_shrink": (_soft_shrink, _beyond),
    "softplus": (bounds.softplus, lambda x, y: bounds.sigmoid(x)),
    "softsign": (lambda x: x / (bounds.absolute(x) + 1), _softsign_slope),
    "sparse_plus": (_sparse_plus, lambda x, y: (bounds.clip(x, -1, 1) + 1) * 0.5),
    "sparse_sigmoid": (lambda x: (bounds.clip(x, -1, 1) + 1) * 0.5, _between(-1, 1, 0.5)),
    "squareplus": (_squareplus, _squareplus_slope),
    "tanh": (bounds.tanh, lambda x, y: 1 - bounds.square(y)),
    "tanh_shrink": (lambda x: x - bounds.tanh(x), _tanh_shrink_slope),
    "threshold": (_threshold, _threshold_slope),
}
# name: value of x, d_inputs of (d, x, y): those in which it is no product with a slope
_WHOLE: dict[str, tuple[Callable[..., Ball], Callable[..., Ball]]] = {
    "leaky_relu": (
        lambda x, *, negative_slope=0.2: _relu(x, negative_slope=negative_slope),
        lambda d, x, y, *, negative_slope=0.2: _relu_backward(d, x, y, negative_slope=negative_slope),
    ),
    "log_softmax": (log_softmax, _log_softmax_backward),
    "relu": (_relu, _relu_backward),
    "softmax": (softmax, _softmax_backward),
    "sparsemax": (_sparsemax, _sparsemax_backward),
}


_TIMES_X = ("gelu", "hard_silu", "mish", "silu")  # x · f(x): their slopes have a term x · f′(x)


def _in_range(found: Ball, d: Ball, x: Ball) -> Ball:
    """No bound where d x is beyond the largest number: a tape may come by it, and then multiply with a slope near 0."""
    beyond = d.magnitude * x.magnitude > x.arithmetic.largest
    if not beyond.any():
        return found
    return Ball(np.where(beyond, 0, found.value), np.where(beyond, np.inf, found.radius), x.arithmetic)


@dataclass(frozen=True)
class Form:
    """An activation in balls: value(x), and backward(d, x, y) -> d_inputs, x and y as recorded."""

    name: str
    value: Callable[[Ball], Ball]
    backward: Callable[[Ball, Ball, Ball], Ball]


def _form(name: str, arguments: dict[str, Any]) -> Form:
    if name in _SLOPES:
        function, slope = _SLOPES[name]
        if name == "linear":
            return Form(name, function, lambda d, x, y: d)

        def backward(d: Ball, x: Ball, y: Ball) -> Ball:
            found = chained(d, slope(x, y, **arguments))
            return _in_range(found, d, x) if name in _TIMES_X else found

        return Form(name, lambda x: function(x, **arguments), backward)
    if name in _WHOLE:
        function, backward = _WHOLE[name]
        return Form(name, lambda x: function(x, **arguments), lambda d, x, y: backward(d, x, y, **arguments))
    raise NotImplementedError(f"no error bound for the activation {name!r}.")


def activation_form(activation: activations.Activation) -> Form:
    """The form of an activation with its arguments. Errors: NotImplementedError for one of somebody's own."""
    forward: Any = activation.forward
    arguments: dict[str, Any] = {}
    if isinstance(forward, functools.partial):
        forward, arguments = forward.func, dict(forward.keywords)
    owner = getattr(forward, "__self__", None)
    if isinstance(owner, Layer):  # a layer such as ReLU(6) as another's activation
        return form_of(owner)
    if getattr(forward, "__module__", "") != "minidl.ops":
        raise NotImplementedError(f"no error bound for the activation {activation.name!r}, one of your own.")
    return _form(activation.name, arguments)


def form_of(layer: Layer) -> Form:
    """The form of a layer that is an activation, or ends in one."""
    if isinstance(layer, layers.ReLU):
        return _form("relu", layer._arguments())
    if isinstance(layer, layers.LeakyReLU):
        return _form("leaky_relu", {"negative_slope": layer.negative_slope})
    if isinstance(layer, layers.ELU):
        return _form("elu", {"alpha": layer.alpha})
    if isinstance(layer, layers.Softmax):
        return _form("softmax", {"axis": layer._axes})
    assert layer.activation is not None
    return activation_form(layer.activation)


# ---------------------------------------------------------------------------------------------- layers


@dataclass
class Passed:
    """A layer's forward in balls, and what its backward needs of it.

    noise: the mask, factor or summand; None: none. lowest: that no layer below wants dL/d(inputs), which is then left
    out where it takes a product.
    """

    inputs: Ball
    outputs: Ball
    pre_activations: Ball | None = None
    noise: Array | None = None
    lowest: bool = False
    state: Weights = field(default_factory=dict)  # the new moving averages
    kept: dict[str, Any] = field(default_factory=dict)


Forward = Callable[[Any, Ball, Weights, Any], Passed]
Backward = Callable[[Any, Ball, Passed, Weights], "tuple[Ball, Weights]"]


def _dense(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    z = x.matmul(weights["kernel"], plus=weights.get("bias"))
    return Passed(x, z, z)


def _dense_backward(layer: Any, d_z: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    """From dL/d(pre-activations)."""
    x, flat = passed.inputs, d_z
    if x.ndim != 2:
        x, flat = x.reshape(-1, x.shape[-1]), flat.reshape(-1, flat.shape[-1])
    gradients = {"kernel": x.T @ flat}
    if "bias" in weights:
        gradients["bias"] = flat.sum(0)
    return (d_z if passed.lowest else d_z @ weights["kernel"].T), gradients


def _elementwise(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    return Passed(x, x, x)


def _elementwise_backward(layer: Any, d_z: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    return d_z, {}


def _prelu(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    return Passed(x, bounds.maximum(x, 0) - weights["alpha"] * bounds.maximum(-x, 0))


def _prelu_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    x, alpha, zero = passed.inputs, weights["alpha"], _zero(d)
    d_x = select(x, 0, d, zero) + select(-x, 0, alpha * d, zero)
    d_alpha = -(d * bounds.maximum(-x, 0)).sum(layer._summed, keepdims=True)
    return d_x, {"alpha": d_alpha[0]}


def _dropout(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    """x · mask / (1 − rate): a factor rounded once, as a double, or twice (1 − rate, its reciprocal), or a quotient."""
    if noise is None:
        return Passed(x, x)
    return Passed(x, _dropped(x, noise, layer.rate), noise=noise)


def _dropped(x: Ball, mask: Array, rate: float) -> Ball:
    if rate == 1:
        return _zero(x)
    factor = x.arithmetic.given(np.asarray(1.0) / (1.0 - rate))
    return where(np.broadcast_to(mask, x.shape), x.times(factor, 3), 0)


def _dropout_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    return (d if passed.noise is None else _dropped(d, passed.noise, layer.rate)), {}


_SATURATION = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946


def _alpha_dropout(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    if noise is None:
        return Passed(x, x)
    scale = ((1 - layer.rate) * (1 + layer.rate * _SATURATION**2)) ** -0.5
    kept = np.broadcast_to(noise, x.shape)
    chosen = where(kept, x, x.arithmetic.const(_SATURATION))
    return Passed(x, chosen * scale + (-scale * _SATURATION * layer.rate), noise=noise, kept={"scale": scale})


def _alpha_dropout_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    if passed.noise is None:
        return d, {}
    return where(np.broadcast_to(passed.noise, d.shape), d * passed.kept["scale"], 0), {}


def _gaussian_noise(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    return Passed(x, x if noise is None else x + noise, noise=noise)


def _gaussian_dropout(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    return Passed(x, x if noise is None else x * noise, noise=noise)


def _gaussian_dropout_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    return (d if passed.noise is None else d * passed.noise), {}


def _unchanged(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    return Passed(x, x)


def _unchanged_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    return d, {}


def _moved(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    """A layer that only moves elements: its own forward, of both arrays."""
    return Passed(x, x.moved(layer.forward))


def _moved_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    return d.moved(layer.backward), {}


def _rescaling(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    scale, offset = x.arithmetic.given(layer._scale), x.arithmetic.given(layer._offset)
    return Passed(x, x * scale + offset)


def _rescaling_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    return d * d.arithmetic.given(layer._scale), {}


def _normalization(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    mean, variance = (x.arithmetic.given(one) for one in layer._statistics(x.arithmetic.dtype))
    deviation = bounds.maximum(bounds.sqrt(variance), config.epsilon())
    outputs = x * deviation + mean if layer.invert else (x - mean) / deviation
    return Passed(x, outputs, kept={"deviation": deviation})


def _normalization_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    deviation = passed.kept["deviation"]
    return (d * deviation if layer.invert else d / deviation), {}


# ------------------------------------------------------------------------ normalization by own statistics


def moments(x: Ball, axes: tuple[int, ...]) -> tuple[Ball, Ball]:
    """μ and σ² = Σ (x − μ)² / n.

    Of a computed mean that is off by δ, the mean of the squares is σ² + δ² exactly, since Σ (x − μ) = 0: the mean's
    radius enters squared. Rounding: the difference once, the square once more on its double, the mean γₙ₊₁, on σ² + δ².
    On torch Keras takes Σ x² / n − μ², which cancels. Source: keras/src/backend/torch/nn.py.
    """
    mean = x.mean(axes, keepdims=True)
    centered = x.value - mean.value
    variance = (centered * centered).mean(axis=axes, keepdims=True)
    off = mean.radius
    if x.radius.any():
        off = mean.radius + x.radius.max(axis=axes, keepdims=True)
        spread = (2 * np.abs(centered) * off + off * off).mean(axis=axes, keepdims=True)
    else:
        spread = off * off
    n = x.value.size // variance.size
    gamma = x.arithmetic.gamma(n + 4)
    found = x._made(variance, spread + gamma * (variance + spread), gamma=gamma / n)  # the sum is n σ²
    if x.arithmetic.backend == "torch":
        found = either(found, bounds.square(x).mean(axes, keepdims=True) - bounds.square(mean))
    return mean, found


def normalize(x: Ball, mean: Ball, variance: Ball, gamma: Ball | None, beta: Ball | None, epsilon: float) -> Ball:
    """x s + (β − μ s) with s = γ / √(σ² + ε), or (x − μ) s + β, as torch's own kernel has it."""
    scale = bounds.rsqrt(variance + epsilon)
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale
    other = (x - mean) * scale
    if beta is not None:
        shift, other = shift + beta, other + beta
    return either(other, x * scale + shift)


def _over_cube(a: Ball, inverse: Ball) -> Ball:
    """a r³, of r = 1 / √v; on JAX and torch and under XLA r³ by itself, which is flushed where v is above 10²⁵."""
    square = bounds.square(inverse)
    return either(a * inverse * square, a * (inverse * square))


def normalize_backward(
    d: Ball, x: Ball, mean: Ball, variance: Ball, gamma: Ball | None, epsilon: float, axes: tuple[int, ...]
) -> Ball:
    """s (d − d̄) − x̂ …: as ops.normalization_backward, and as TensorFlow's tape adds it up.

    The tape: d_s = Σ d x − μ Σ d,  d_σ² = −½ γ d_s / √(σ² + ε)³,  d_x = s d − s Σ d / n + 2 (x − μ) d_σ² / n; the
    first difference cancels where |μ| is larger than σ.
    """
    inverse = bounds.rsqrt(variance + epsilon)
    g = d if gamma is None else d * gamma
    normalized = (x - mean) * inverse
    stable = inverse * (g - g.mean(axes, keepdims=True) - normalized * (g * normalized).mean(axes, keepdims=True))
    n = float(x.value.size // mean.value.size)
    scaled_after = gamma is not None and gamma.shape == mean.shape
    source = d if scaled_after else g
    summed, d_scale = source.sum(axes, keepdims=True), (source * x).sum(axes, keepdims=True)
    d_scale = d_scale - mean * summed
    if gamma is not None and scaled_after:
        d_scale, summed = d_scale * gamma, summed * gamma
    d_variance = _over_cube(d_scale, inverse) * -0.5
    tape = g * inverse - inverse * summed / n + (x - mean) * 2 * d_variance / n
    return either(stable, tape)


def _parameter_gradients(
    layer: Any, d: Ball, x: Ball, mean: Ball | None, variance: Ball, epsilon: float, weights: Weights
) -> Weights:
    """d_gamma = Σ d x̂, also as (Σ d x − μ Σ d)/√(σ² + ε) summed in another order, and d_beta = Σ d."""
    axes = layer._other_axes
    inverse = bounds.rsqrt(variance + epsilon)
    centered = x if mean is None else x - mean
    d_gamma = (d * (centered * inverse)).sum(axes)
    if mean is not None:
        d_gamma = either(d_gamma, (d * (x * inverse)).sum(axes) - (d * (mean * inverse)).sum(axes))
    found = {"gamma": d_gamma, "scale": d_gamma, "beta": d.sum(axes)}
    return {name: found[name].reshape(layer._own_shape) for name in found if name in weights}


def _spread(layer: Any, weights: Weights, name: str) -> Ball | None:
    return weights[name].reshape(layer._broadcast_shape) if name in weights else None


def _batch_normalization(layer: BatchNormalization, x: Ball, weights: Weights, noise: Any) -> Passed:
    gamma, beta = _spread(layer, weights, "gamma"), _spread(layer, weights, "beta")
    passed = Passed(x, x)
    if layer.trainable:
        mean, variance = moments(x, layer._other_axes)
        if layer.renorm:
            gamma, beta = _renormalization(layer, passed, mean, variance, gamma, beta, weights)
        else:
            passed.state = _averages(layer.momentum, weights, moving_mean=mean, moving_variance=variance)
    else:
        mean, variance = (weights[name].reshape(layer._broadcast_shape) for name in ("moving_mean", "moving_variance"))
    passed.kept |= {"mean": mean, "variance": variance, "gamma": gamma}
    passed.outputs = normalize(x, mean, variance, gamma, beta, layer.epsilon)
    return passed


def _averages(momentum: float, weights: Weights, **values: Ball) -> Weights:
    """α a + (1 − α) v of each moving average a."""
    return {
        name: weights[name] * momentum + value.reshape(weights[name].shape) * (1.0 - momentum)
        for name, value in values.items()
    }


def _renormalization(
    layer: BatchNormalization,
    passed: Passed,
    mean: Ball,
    variance: Ball,
    gamma: Ball | None,
    beta: Ball | None,
    weights: Weights,
) -> tuple[Ball, Ball]:
    """γ r and γ d + β of ops.renormalization, and the moving averages: σ² is that of the averaged σ."""
    limits, arithmetic = layer.renorm_clipping or {}, mean.arithmetic
    held_mean, held_deviation = (weights[name].reshape(mean.shape) for name in ("renorm_mean", "renorm_stddev"))
    moving = bounds.maximum(held_deviation, bounds.sqrt(_kept(mean, layer.epsilon)))
    deviation = bounds.sqrt(variance + layer.epsilon)
    r, d = deviation / moving, (mean - held_mean) / moving
    if limits.get("rmin") is not None:
        r = bounds.maximum(r, arithmetic.rounded(limits["rmin"]))
    if limits.get("rmax") is not None:
        r = bounds.minimum(r, arithmetic.rounded(limits["rmax"]))
    if limits.get("dmax") is not None:
        dmax = arithmetic.rounded(limits["dmax"])
        d = bounds.clip(d, -dmax, dmax)
    passed.kept["correction"] = r, d
    found = _averages(layer.renorm_momentum, weights, renorm_mean=mean, renorm_stddev=deviation)
    found |= _averages(layer.momentum, weights, moving_mean=mean, moving_stddev=deviation)
    square = bounds.square(found["moving_stddev"])
    passed.state = found | {"moving_variance": bounds.maximum(square - layer.epsilon, 0)}
    scale, shift = (r, d) if gamma is None else (r * gamma, d * gamma)
    return scale, shift if beta is None else shift + beta


def _batch_normalization_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    mean, variance, gamma = (passed.kept[name] for name in ("mean", "variance", "gamma"))
    gradients = _parameter_gradients(layer, d, passed.inputs, mean, variance, layer.epsilon, weights)
    if "correction" in passed.kept and "gamma" in gradients:  # γ scales x̂ r + d
        r, shift = (one.reshape(layer._own_shape) for one in passed.kept["correction"])
        gradients["gamma"] = gradients["gamma"] * r + d.sum(layer._other_axes).reshape(layer._own_shape) * shift
    if layer.trainable:
        d_x = normalize_backward(d, passed.inputs, mean, variance, gamma, layer.epsilon, layer._other_axes)
    else:
        scale = bounds.rsqrt(variance + layer.epsilon)
        d_x = d * (scale if gamma is None else scale * gamma)
    return d_x, gradients


def _layer_normalization(layer: LayerNormalization, x: Ball, weights: Weights, noise: Any) -> Passed:
    mean, variance = moments(x, layer._own_axes)
    gamma, beta = _spread(layer, weights, "gamma"), _spread(layer, weights, "beta")
    if layer.rms_scaling:
        outputs = x * bounds.rsqrt(variance + layer.epsilon)
        outputs = outputs if gamma is None else outputs * gamma
    else:
        outputs = normalize(x, mean, variance, gamma, beta, layer.epsilon)
    return Passed(x, outputs, kept={"mean": mean, "variance": variance, "gamma": gamma})


def _layer_normalization_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    x, axes = passed.inputs, layer._own_axes
    mean, variance, gamma = (passed.kept[name] for name in ("mean", "variance", "gamma"))
    if layer.rms_scaling:
        gradients = _parameter_gradients(layer, d, x, None, variance, layer.epsilon, weights)
        return _rms_backward(d, x, variance, gamma, layer.epsilon, axes, mean), gradients
    gradients = _parameter_gradients(layer, d, x, mean, variance, layer.epsilon, weights)
    return normalize_backward(d, x, mean, variance, gamma, layer.epsilon, axes), gradients


def _rms_backward(
    d: Ball,
    x: Ball,
    square: Ball,
    gamma: Ball | None,
    epsilon: float,
    axes: tuple[int, ...],
    center: Ball | None = None,
) -> Ball:
    """As ops.rms_normalization_backward, and as the tape has it: r g − x' (Σ g x) r³ / n."""
    inverse = bounds.rsqrt(square + epsilon)
    g = d if gamma is None else d * gamma
    centered = x if center is None else x - center
    stable = inverse * (g - centered * inverse * (g * (x * inverse)).mean(axes, keepdims=True))
    n = float(x.value.size // square.value.size)
    along = _over_cube((g * x).sum(axes, keepdims=True), inverse) / n
    return either(stable, g * inverse - centered * along)


def _rms_normalization(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    square = bounds.square(x).mean(layer._own_axes, keepdims=True)
    scale = _spread(layer, weights, "scale")
    outputs = x * bounds.rsqrt(square + layer.epsilon)
    return Passed(x, outputs if scale is None else outputs * scale, kept={"square": square, "scale": scale})


def _rms_normalization_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    square, scale = passed.kept["square"], passed.kept["scale"]
    gradients = _parameter_gradients(layer, d, passed.inputs, None, square, layer.epsilon, weights)
    return _rms_backward(d, passed.inputs, square, scale, layer.epsilon, layer._own_axes), gradients


def _group_normalization(layer: GroupNormalization, x: Ball, weights: Weights, noise: Any) -> Passed:
    grouped = x.moved(layer._grouped)
    mean, variance = moments(grouped, layer._reduced_axes)
    gamma, beta = _spread(layer, weights, "gamma"), _spread(layer, weights, "beta")
    outputs = normalize(grouped, mean, variance, gamma, beta, layer.epsilon).reshape(x.shape)
    return Passed(x, outputs, kept={"grouped": grouped, "mean": mean, "variance": variance, "gamma": gamma})


def _group_normalization_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    mean, variance, gamma = (passed.kept[name] for name in ("mean", "variance", "gamma"))
    grouped, x = d.moved(layer._grouped), passed.kept["grouped"]
    gradients = _parameter_gradients(layer, grouped, x, mean, variance, layer.epsilon, weights)
    d_x = normalize_backward(grouped, x, mean, variance, gamma, layer.epsilon, layer._reduced_axes)
    return d_x.reshape(d.shape), gradients


def inverse_norm(x: Ball, axes: Any, epsilon: float) -> Ball:
    """min(1/‖x‖, 1/ε); of a norm of 0, 1/ε exactly."""
    squares = bounds.square(x).sum(axes, keepdims=True)
    zero = (squares.value == 0) & ~squares.unbounded
    found = bounds.rsqrt(where(zero, 1, squares))
    limit = x.arithmetic.const(1.0 / epsilon)
    found = where(zero, limit, bounds.minimum(found, limit))
    return Ball(found.value, np.where(np.isfinite(found.radius), found.radius, limit.value), x.arithmetic)


def _unit_normalization(layer: Any, x: Ball, weights: Weights, noise: Any) -> Passed:
    inverse = inverse_norm(x, layer._axes(x.ndim), 1e-12)
    return Passed(x, x * inverse, kept={"inverse": inverse})


def _unit_normalization_backward(layer: Any, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    axes = layer._axes(d.ndim)
    return unit_backward(d, passed.inputs, passed.kept["inverse"], axes, 1e-12), {}


def unit_backward(d: Ball, x: Ball, inverse: Ball, axes: Any, epsilon: float) -> Ball:
    """r (d − u Σ d u), or as the tape has it r d − x (Σ d x) r³; where the norm is held at ε, d / ε."""
    unit = x * inverse
    stable = inverse * (d - unit * (d * unit).sum(axes, keepdims=True))
    tape = d * inverse - x * _over_cube((d * x).sum(axes, keepdims=True), inverse)
    held = x.arithmetic.const(1.0 / epsilon)
    return select(inverse - held, 0, d * inverse, select(inverse - held, 0, d * inverse, either(stable, tape), "above"))


_LAYERS: dict[type[Layer], tuple[Forward, Backward]] = {
    layers.Dense: (_dense, _dense_backward),
    layers.Activation: (_elementwise, _elementwise_backward),
    layers.ReLU: (_elementwise, _elementwise_backward),
    layers.LeakyReLU: (_elementwise, _elementwise_backward),
    layers.ELU: (_elementwise, _elementwise_backward),
    layers.Softmax: (_elementwise, _elementwise_backward),
    layers.PReLU: (_prelu, _prelu_backward),
    layers.Dropout: (_dropout, _dropout_backward),
    layers.AlphaDropout: (_alpha_dropout, _alpha_dropout_backward),
    layers.GaussianNoise: (_gaussian_noise, _unchanged_backward),
    layers.GaussianDropout: (_gaussian_dropout, _gaussian_dropout_backward),
    layers.ActivityRegularization: (_unchanged, _unchanged_backward),
    layers.Identity: (_unchanged, _unchanged_backward),
    layers.Flatten: (_moved, _moved_backward),
    layers.Reshape: (_moved, _moved_backward),
    layers.Rescaling: (_rescaling, _rescaling_backward),
    layers.Normalization: (_normalization, _normalization_backward),
    layers.BatchNormalization: (_batch_normalization, _batch_normalization_backward),
    layers.LayerNormalization: (_layer_normalization, _layer_normalization_backward),
    layers.GroupNormalization: (_group_normalization, _group_normalization_backward),
    layers.RMSNormalization: (_rms_normalization, _rms_normalization_backward),
    layers.UnitNormalization: (_unit_normalization, _unit_normalization_backward),
}


def ends_in_activation(layer: Layer) -> bool:
    """Whether what it computes is an activation of its pre-activations."""
    return type(layer) in _LAYERS and _LAYERS[type(layer)][0] in (_dense, _elementwise)


def check_layer(layer: Layer) -> None:
    """Raise NotImplementedError, with the reason, for a layer that has no bound."""
    if type(layer) not in _LAYERS:
        raise NotImplementedError(f"no error bound for the layer {layer.name!r}, a {type(layer).__name__}.")
    if ends_in_activation(layer):
        form_of(layer)


def forward(layer: Layer, x: Ball, weights: Weights, noise: Array | None) -> Passed:
    """What the layer makes of x in training, before its activation if it ends in one."""
    return _LAYERS[type(layer)][0](layer, x, weights, noise)


def backward(layer: Layer, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    """dL/d(outputs) -> dL/d(inputs), and that of each trained weight, of the forward passed."""
    if ends_in_activation(layer):
        assert passed.pre_activations is not None
        d = form_of(layer).backward(d, passed.pre_activations, passed.outputs)
    return backward_from_pre_activations(layer, d, passed, weights)


def backward_from_pre_activations(layer: Layer, d: Ball, passed: Passed, weights: Weights) -> tuple[Ball, Weights]:
    """The part of backward below the activation."""
    return _LAYERS[type(layer)][1](layer, d, passed, weights)
