"""The losses, their derivatives, their reduction, and the penalties of minidl in ball arithmetic.

y are the labels and p the predictions, or z the logits, as recorded. The forms are those of Keras's losses on its
backends, with the derivatives that TensorFlow's tape adds up; where they differ, the ball takes in all of them.
Sources: keras/src/losses/losses.py, keras/src/backend/tensorflow/nn.py; the values are those of minidl's ops.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import config, losses, regularizers
from minidl.backend import Array
from minidl.losses import Loss, same_rank
from minidl.oracle import bounds
from minidl.oracle.bounds import Arithmetic, Ball, either, select, where
from minidl.oracle.layer_bounds import Terms, chained, inverse_norm, softmax, unit_backward


def _moved(a: Any, axis: int) -> Any:
    return a.moved(lambda one: np.moveaxis(one, axis, -1)) if isinstance(a, Ball) else np.moveaxis(a, axis, -1)


def _back(a: Ball, axis: int) -> Ball:
    return a.moved(lambda one: np.moveaxis(one, -1, axis))


def _clip_limits(p: Ball) -> tuple[Ball, Ball]:
    return p.arithmetic.rounded(config.epsilon()), p.arithmetic.rounded(1.0 - config.epsilon())


def _unclipped(p: Ball, gradient: Ball, low: Ball, high: Ball) -> Ball:
    """The gradient where p was not clipped, 0 elsewhere, either at a limit."""
    zero = gradient * 0
    return select(p, high, zero, select(p, low, gradient, zero, tie="either"), tie="either")


# ------------------------------------------------------------------------------- binary cross-entropies


def _binary(y: Ball, p: Ball) -> Ball:
    """−(y ln p + (1 − y) ln(1 − p)) of the clipped p."""
    p = bounds.clip(p, *_clip_limits(p))
    return -(y * bounds.log(p) + (1 - y) * bounds.log(1 - p))


def _binary_backward(y: Ball, p: Ball) -> Terms:
    low, high = _clip_limits(p)
    clipped = bounds.clip(p, low, high)
    return tuple(_unclipped(p, term, low, high) for term in ((1 - y) / (1 - clipped), -(y / clipped)))


def _tail(z: Ball) -> tuple[Ball, Ball]:
    """t = e^(−|z|), and t / (1 + t)."""
    t = bounds.exp(-bounds.absolute(z))
    return t, t / (t + 1)


def _binary_logits(y: Ball, z: Ball) -> Ball:
    """max(z, 0) − z y + ln(1 + e^(−|z|)), or on JAX the two logarithms of sigmoids."""
    t, _ = _tail(z)
    stable = bounds.maximum(z, 0) - z * y + bounds.log1p(t)
    if z.arithmetic.backend == "tensorflow":
        return stable
    return either(stable, y * bounds.softplus(-z) + (1 - y) * bounds.softplus(z))


def _binary_logits_backward(y: Ball, z: Ball) -> list[Ball | Terms]:
    """σ(z) − y: as a difference, or the three terms [z ≥ 0], −y and ∓t/(1 + t) in any order; JAX and torch have a σ."""
    _, tail = _tail(z)
    positive = z.value >= 0
    ends = where(positive, (1 - y) - tail, tail - y)
    step = z.arithmetic.given(positive)
    signed = where(positive, -tail, tail)
    ways: list[Ball | Terms] = [ends, (step, -y, signed), (step, signed, -y)]
    return ways if z.arithmetic.backend == "tensorflow" else [*ways, bounds.sigmoid(z) - y]


def _focal_parts(loss: Any, y: Ball, p: Ball, q: Ball | None = None) -> tuple[Ball, Ball, Any]:
    """q = y(1 − p) + (1 − y)p, also as Keras's 1 − (y p + (1 − y)(1 − p)); its slope 1 − 2y; the balance a."""
    q = (1 - p) if q is None else q
    missed = either(y * q + (1 - y) * p, 1 - (y * p + (1 - y) * (1 - p)))
    balance: Any = 1.0
    if loss.apply_class_balancing:
        balance = y * loss.alpha + (1 - y) * (1 - loss.alpha)
    return missed, 1 - y * 2, balance


def _power_slope(base: Ball, exponent: float) -> Ball:
    """γ b^(γ−1); of γ = 0 it is 0."""
    if exponent == 0:
        return base * 0
    if exponent < 1:  # unbounded towards 0
        with np.errstate(divide="ignore", invalid="ignore"):
            return exponent / bounds.power(base, 1 - exponent)
    return bounds.power(base, exponent - 1) * exponent


def _focal(loss: Any, y: Ball, p: Ball) -> Ball:
    missed, _, balance = _focal_parts(loss, y, p)
    return bounds.power(missed, loss.gamma) * _binary(y, p) * balance


def _focal_backward(loss: Any, y: Ball, p: Ball) -> Terms:
    missed, slope, balance = _focal_parts(loss, y, p)
    found = _power_slope(missed, loss.gamma) * slope * _binary(y, p)
    focused = bounds.power(missed, loss.gamma)
    return (found * balance, *(focused * term * balance for term in _binary_backward(y, p)))


def _focal_logits(loss: Any, y: Ball, z: Ball) -> Ball:
    missed, _, balance = _focal_parts(loss, y, bounds.sigmoid(z), bounds.sigmoid(-z))
    return bounds.power(missed, loss.gamma) * _binary_logits(y, z) * balance


def _focal_logits_backward(loss: Any, y: Ball, z: Ball) -> list[Terms]:
    p, q = bounds.sigmoid(z), bounds.sigmoid(-z)
    missed, slope, balance = _focal_parts(loss, y, p, q)
    d_p = either(p * q, p * (1 - p))
    found = _power_slope(missed, loss.gamma) * slope * d_p * _binary_logits(y, z)
    focused = bounds.power(missed, loss.gamma)
    ways = [way if isinstance(way, tuple) else (way,) for way in _binary_logits_backward(y, z)]
    return [(found * balance, *(focused * term * balance for term in way)) for way in ways]


# -------------------------------------------------------------------------- categorical cross-entropies


def _shares(p: Ball) -> tuple[Ball, Ball]:
    total = p.sum(-1, keepdims=True)
    return p / total, total


def _through_shares(gradient: Ball, p: Ball, total: Ball) -> Ball:
    """(g − Σ g p) / Σ, and as the tape divides; XLA and JAX by a product with Σ⁻², which may be infinite."""
    shares = p / total
    stable = (gradient - (gradient * shares).sum(-1, keepdims=True)) / total
    found = either(stable, gradient / total - (gradient * (shares / total)).sum(-1, keepdims=True))
    if p.arithmetic.keeps_nan:
        return found
    return either(found, gradient / total - (gradient * p).sum(-1, keepdims=True) * (1 / bounds.square(total)))


def _categorical(y: Ball, p: Ball) -> Ball:
    shares, _ = _shares(p)
    return -(y * bounds.log(bounds.clip(shares, *_clip_limits(p)))).sum(-1)


def _categorical_backward(y: Ball, p: Ball, d: Ball) -> Ball:
    shares, total = _shares(p)
    low, high = _clip_limits(p)
    gradient = _unclipped(shares, -(y / bounds.clip(shares, low, high)), low, high)
    return _through_shares(gradient * d, p, total)


def _log_sum(z: Ball) -> tuple[Ball, Ball, Ball, Array]:
    """z − max z; ln Σ e^(z − max), also as ln(1 + the others); the others' exponentials; where the maximum is."""
    shifted = z - z.max(-1, keepdims=True)
    top = np.arange(z.shape[-1]) == z.value.argmax(axis=-1)[..., None]
    exponentials = bounds.exp(shifted)
    others = where(top, 0, exponentials)
    rest = others.sum(-1, keepdims=True)
    total = either(bounds.log1p(rest), bounds.log(exponentials.sum(-1, keepdims=True)))
    return shifted, total, others, top


def _categorical_logits(y: Ball, z: Ball) -> Ball:
    shifted, total, _, _ = _log_sum(z)
    return (y * (total - shifted)).sum(-1)


def _categorical_logits_backward(y: Ball, z: Ball) -> Ball:
    """softmax(z) − y; on torch of e^(ln softmax). Source of that: aten/src/ATen/native/cpu/LogSoftmaxKernelImpl.h."""
    shifted, total, others, top = _log_sum(z)
    rest = others.sum(-1, keepdims=True)
    ends = where(top, (1 - y) - rest / (rest + 1), others / (rest + 1) - y)
    if z.arithmetic.backend == "torch":
        return either(ends, softmax(z) - y, bounds.exp(shifted - total) - y)
    return either(ends, softmax(z) - y)


def _one_hot(labels: Array, z: Ball) -> Ball:
    return z.arithmetic.given(labels.astype(np.int64)[..., None] == np.arange(z.shape[-1]))


def _logs(p: Ball) -> tuple[Ball, Ball, Ball, Ball]:
    low, high = _clip_limits(p)
    clipped = bounds.clip(p, low, high)
    return bounds.log(clipped), clipped, low, high


def _categorical_focal(loss: Any, y: Ball, p: Ball) -> Ball:
    shares, _ = _shares(p)
    clipped = bounds.clip(shares, *_clip_limits(p))
    alpha = p.arithmetic.given(np.asarray(loss._alpha(p.value.astype(p.arithmetic.dtype))))
    return (bounds.power(1 - clipped, loss.gamma) * alpha * -(y * bounds.log(clipped))).sum(-1)


def _categorical_focal_backward(loss: Any, y: Ball, p: Ball, d: Ball) -> Ball:
    shares, total = _shares(p)
    low, high = _clip_limits(p)
    clipped = bounds.clip(shares, low, high)
    alpha = p.arithmetic.given(np.asarray(loss._alpha(p.value.astype(p.arithmetic.dtype))))
    powers = bounds.power(1 - clipped, loss.gamma)
    terms = _power_slope(1 - clipped, loss.gamma) * bounds.log(clipped), -(powers / clipped)
    gradient = chained(d, tuple(y * alpha * term for term in terms))
    return _through_shares(_unclipped(shares, gradient, low, high), p, total)


# -------------------------------------------------------------------------------------------- the others


def _sign(a: Ball) -> Ball:
    """The slope of |a|: at 0 it is 0, but on JAX 1. Source: abs in jax/_src/lax/lax.py."""
    one = a.arithmetic.given(np.ones(a.shape))
    at_zero = either(one * 0, one) if a.arithmetic.backend == "jax" else one * 0
    return select(a, 0, one, select(-a, 0, -one, at_zero))


def _percentage_scale(y: Ball) -> Ball:
    return bounds.maximum(bounds.absolute(y), y.arithmetic.rounded(config.epsilon()))


def _log_of(a: Ball) -> Ball:
    low = a.arithmetic.const(config.epsilon(), float32_first=True)
    return bounds.log(bounds.maximum(a, low) + 1)


def _logarithmic_backward(y: Ball, p: Ball) -> Ball:
    low = p.arithmetic.const(config.epsilon(), float32_first=True)
    gradient = (_log_of(p) - _log_of(y)) * 2 / (bounds.maximum(p, low) + 1)
    return select(p, low, gradient, gradient * 0, tie="either")


def _huber(loss: Any, y: Ball, p: Ball) -> Ball:
    size = bounds.absolute(p - y)
    delta = p.arithmetic.rounded(loss.delta)
    return select(size, delta, delta * size - bounds.square(delta) * 0.5, bounds.square(size) * 0.5)


def _huber_backward(loss: Any, y: Ball, p: Ball) -> Ball:
    error = p - y
    delta = p.arithmetic.rounded(loss.delta)
    return select(bounds.absolute(error), delta, _sign(error) * delta, error)


def _log_cosh(y: Ball, p: Ball) -> Ball:
    """Keras's e + softplus(−2e) − ln 2, this ln 2 being float32's; in float32 around the true ln cosh e."""
    error = p - y
    form = error + bounds.softplus(error * -2) - p.arithmetic.given(np.float32(math.log(2)))
    if p.arithmetic.dtype == "float64":
        return form
    size = np.abs(error.value)
    near = np.log1p(np.square(np.sinh(np.minimum(size, 1)))) / 2
    value = np.where(size < 1, near, size + np.log1p(np.exp(-2 * size)) - math.log(2))
    return either(Ball(value, np.zeros_like(value), p.arithmetic), form)


def _log_cosh_backward(y: Ball, p: Ball) -> list[Ball | Terms]:
    """tanh e, or the tape's 1 − 2 σ(−2e)."""
    error = p - y
    return [bounds.tanh(error), (p.arithmetic.given(np.ones(p.shape)), bounds.sigmoid(error * -2) * -2)]


def _hinge(y: Ball, p: Ball) -> Ball:
    return bounds.maximum(1 - y * p, 0)


def _hinge_backward(y: Ball, p: Ball) -> Ball:
    return select(1 - y * p, 0, -y, p * 0, tie="either")


def _lead(y: Ball, p: Ball) -> Ball:
    return ((1 - y) * p).max(-1) - (y * p).sum(-1)


def _categorical_hinge_backward(y: Ball, p: Ball) -> Terms:
    others = (1 - y) * p
    most = others.max(-1, keepdims=True)
    top = others.value == most.value
    share = (1 - y) * p.arithmetic.given(top) / p.arithmetic.given(top.sum(axis=-1, keepdims=True))
    unsure = (np.abs(others.value - most.value) <= others.radius + most.radius) & (others.radius + most.radius > 0)
    unsure &= unsure.sum(axis=-1, keepdims=True) > 1
    share = Ball(share.value, np.where(unsure, 1, share.radius), p.arithmetic)
    lead = (_lead(y, p) + 1)[..., None]
    return tuple(select(lead, 0, term, share * 0, tie="either") for term in (share, -y))


def _cosine(y: Ball, p: Ball) -> Ball:
    epsilon = config.epsilon()
    return -(y * inverse_norm(y, -1, epsilon) * (p * inverse_norm(p, -1, epsilon))).sum(-1)


def _cosine_backward(y: Ball, p: Ball, d: Ball) -> Ball:
    epsilon = config.epsilon()
    inverse = inverse_norm(p, -1, epsilon)
    return unit_backward(-(y * inverse_norm(y, -1, epsilon)) * d, p, inverse, -1, epsilon)


def _divergence_parts(y: Ball, p: Ball) -> tuple[Ball, Ball, Ball]:
    low = p.arithmetic.rounded(config.epsilon())
    return bounds.clip(y, low, 1), bounds.clip(p, low, 1), low


def _divergence(y: Ball, p: Ball) -> Ball:
    y, p, _ = _divergence_parts(y, p)
    return (y * bounds.log(y / p)).sum(-1)


def _divergence_backward(y: Ball, p: Ball) -> Ball:
    """−y / p, or as the tape has it y · 1/(y/p) · (−y/p)/p."""
    labels, clipped, low = _divergence_parts(y, p)
    ratio = labels / clipped
    gradient = either(-ratio, -(labels * (1 / ratio) * (ratio / clipped)))
    return _unclipped(p, gradient, low, p.arithmetic.given(np.ones(())))


def _poisson_rate(p: Ball) -> Ball:
    return p + p.arithmetic.rounded(config.epsilon())


# A derivative: a ball, terms of a sum, or a list of such ways to compute it.
Derivative = Ball | Terms | list[Any]
Pair = tuple[Callable[..., Ball], Callable[..., Derivative]]
_PLAIN: dict[type[Loss], Pair] = {
    losses.MeanSquaredError: (lambda y, p: bounds.square(y - p), lambda y, p: (p - y) * 2),
    losses.MeanAbsoluteError: (lambda y, p: bounds.absolute(y - p), lambda y, p: _sign(p - y)),
    losses.MeanAbsolutePercentageError: (
        lambda y, p: bounds.absolute((y - p) / _percentage_scale(y)) * 100.0,
        lambda y, p: _sign(p - y) * 100.0 / _percentage_scale(y),
    ),
    losses.MeanSquaredLogarithmicError: (
        lambda y, p: bounds.square(_log_of(p) - _log_of(y)),
        _logarithmic_backward,
    ),
    losses.LogCosh: (_log_cosh, _log_cosh_backward),
    losses.Hinge: (_hinge, _hinge_backward),
    losses.SquaredHinge: (lambda y, p: bounds.square(_hinge(y, p)), lambda y, p: y * _hinge(y, p) * -2),
    losses.CategoricalHinge: (lambda y, p: bounds.maximum(_lead(y, p) + 1, 0), _categorical_hinge_backward),
    losses.CosineSimilarity: (_cosine, lambda y, p: p),
    losses.KLDivergence: (_divergence, _divergence_backward),
    losses.Poisson: (
        lambda y, p: p - y * bounds.log(_poisson_rate(p)),
        lambda y, p: (p.arithmetic.given(np.ones(p.shape)), -(y / _poisson_rate(p))),
    ),
}
_KNOWN = {
    *_PLAIN,
    losses.Huber,
    losses.BinaryCrossentropy,
    losses.BinaryFocalCrossentropy,
    losses.CategoricalCrossentropy,
    losses.CategoricalFocalCrossentropy,
    losses.SparseCategoricalCrossentropy,
}


def check_loss(loss: Loss) -> None:
    """Raise NotImplementedError, with the reason, for a loss that has no bound."""
    if type(loss) not in _KNOWN:
        raise NotImplementedError(f"no error bound for the loss {loss.name!r}, one of your own.")


def targets(loss: Any, y: Array, arithmetic: Arithmetic) -> Ball:
    """The labels as the formula takes them."""
    smoothing = getattr(loss, "label_smoothing", 0.0)
    labels = arithmetic.given(y)
    if not smoothing:
        return arithmetic.given(loss.targets(y, y)) if isinstance(loss, losses.Hinge) else labels
    classes = y.shape[loss.axis] if isinstance(loss, losses.CategoricalCrossentropy) else 2
    return labels * (1.0 - smoothing) + smoothing / classes


def _pair(loss: Any, from_logits: bool) -> Pair:
    """The loss's value(labels, p) and its derivative(labels, p), of labels as the formula takes them."""
    kind = type(loss)
    if kind is losses.BinaryCrossentropy:
        return (_binary_logits, _binary_logits_backward) if from_logits else (_binary, _binary_backward)
    if kind is losses.CategoricalCrossentropy or kind is losses.SparseCategoricalCrossentropy:
        return _categorical_logits, _categorical_logits_backward
    if kind is losses.BinaryFocalCrossentropy:
        found = (_focal_logits, _focal_logits_backward) if from_logits else (_focal, _focal_backward)
        return functools.partial(found[0], loss), functools.partial(found[1], loss)
    if kind is losses.Huber:
        return functools.partial(_huber, loss), functools.partial(_huber_backward, loss)
    return _PLAIN[kind]


def elements(loss: Any, y: Array, p: Ball, from_logits: bool) -> Ball:
    """Each element's loss, or of a loss that sums itself each sample's."""
    if isinstance(loss, losses.SparseCategoricalCrossentropy):
        labels, valid, p = _classes(loss, y, p)
        one_hot = _one_hot(labels, p)
        if not from_logits and p.arithmetic.backend in ("jax", "torch"):
            return where(valid, _categorical(one_hot, p), 0)
        return where(valid, _categorical_logits(one_hot, p if from_logits else _logs(p)[0]), 0)
    labels, p = _moved(targets(loss, y, p.arithmetic), loss.axis), _moved(p, loss.axis)
    if isinstance(loss, losses.CategoricalFocalCrossentropy):
        found = _categorical_focal(loss, labels, softmax(p) if from_logits else p)
    elif isinstance(loss, losses.CategoricalCrossentropy) and not from_logits:
        found = _categorical(labels, p)
    else:
        found = _pair(loss, from_logits)[0](labels, p)
    return _back(found, loss.axis) if loss.averages else found


def derivative(loss: Any, y: Array, p: Ball, from_logits: bool, d: Ball) -> Ball:
    """d · the derivative of each element's loss with respect to p; d of p's shape, or broadcast to it."""
    if isinstance(loss, losses.SparseCategoricalCrossentropy):
        labels, valid, p = _classes(loss, y, p)
        one_hot = _one_hot(labels, p)
        if not from_logits and p.arithmetic.backend in ("jax", "torch"):
            return where(valid[..., None], _categorical_backward(one_hot, p, d), 0)
        logits = p if from_logits else _logs(p)[0]
        found = _every_way(d, _categorical_logits_backward(one_hot, logits))
        if not from_logits:
            _, clipped, low, high = _logs(p)
            found = _unclipped(p, found / clipped, low, high)
        return where(valid[..., None], found, 0)
    axis = loss.axis
    labels, p, d = _moved(targets(loss, y, p.arithmetic), axis), _moved(p, axis), _moved(d, axis)
    if isinstance(loss, losses.CategoricalFocalCrossentropy):
        shares = softmax(p) if from_logits else p
        found = _categorical_focal_backward(loss, labels, shares, d)
        if from_logits:
            found = shares * (found - (found * shares).sum(-1, keepdims=True))
    elif isinstance(loss, losses.CategoricalCrossentropy) and not from_logits:
        found = _categorical_backward(labels, p, d)
    elif isinstance(loss, losses.CosineSimilarity):
        found = _cosine_backward(labels, p, d)
    else:
        found = _every_way(d, _pair(loss, from_logits)[1](labels, p))
    return _back(found, axis)


def _every_way(d: Ball, ways: Derivative) -> Ball:
    return either(*(chained(d, way) for way in ways)) if isinstance(ways, list) else chained(d, ways)


def _classes(loss: Any, y: Array, p: Ball) -> tuple[Array, Array, Ball]:
    """Class numbers and outputs, and which samples count; numbers and outputs that do for the others."""
    labels = loss.targets(y, p.value)
    if loss.ignore_class is None:
        return labels, np.ones(labels.shape, bool), p
    valid = labels != loss.ignore_class
    return np.where(valid, labels, 0), valid, where(valid[..., None], p, 0)


def samples(loss: Any, y: Array, p: Ball, from_logits: bool) -> Ball:
    """Each sample's loss."""
    found = elements(loss, y, p, from_logits)
    return found.mean(loss.axis) if loss.averages else found


def _weights(loss: Any, y: Array, sample_weight: Array | None, arithmetic: Arithmetic) -> Ball | None:
    """The weights, of which those of a class that is ignored are made by a division."""
    found = loss.weights(y, sample_weight)
    if found is None:
        return None
    weights = arithmetic.given(found)
    if getattr(loss, "ignore_class", None) is None:
        return weights
    return Ball(weights.value, arithmetic.gamma(4) * np.abs(weights.value), arithmetic)


def value(loss: Any, y: Array, p: Ball, from_logits: bool, sample_weight: Array | None) -> Ball:
    """The loss of a batch, reduced: a scalar, or with reduction None one a sample."""
    found = samples(loss, y, p, from_logits)
    weights = _weights(loss, y, sample_weight, p.arithmetic)
    if weights is not None:
        found, weights = same_rank(found, weights)
        found = found * weights
    if loss.reduction in (None, "none") or found.ndim == 0:
        return found
    total = found.sum()
    if loss.reduction == "sum":
        return total
    if loss.reduction == "mean_with_sample_weight" and weights is not None:
        divisor = weights.sum()
        return total / divisor if divisor.value else divisor  # 0, also where the total is a NaN
    return total / float(found.value.size) if found.value.size else total


_COUNT_ROUNDINGS = 8  # of w / N / U: two quotients as products, the product with w; our own, 3


def gradient(loss: Any, y: Array, p: Ball, from_logits: bool, sample_weight: Array | None) -> Ball:
    """dvalue/dp; with reduction None, of the sum of the value."""
    axis = loss.axis % p.ndim
    shape = p.shape[:axis] + p.shape[axis + 1 :]
    counts = loss.counts(shape, loss.weights(y, sample_weight))
    counts = np.expand_dims(counts / p.shape[axis] if loss.averages else counts, axis)
    d = p.arithmetic.given(counts).times(np.ones(counts.shape), _COUNT_ROUNDINGS)
    return derivative(loss, y, p, from_logits, d)


# ------------------------------------------------------------------------------------------- penalties


def _factors(regularizer: regularizers.Regularizer) -> tuple[float, float]:
    return getattr(regularizer, "l1", 0.0), getattr(regularizer, "l2", 0.0)


def check_regularizer(regularizer: Any) -> None:
    """Raise NotImplementedError for a penalty that has no bound."""
    kinds = (regularizers.L1, regularizers.L2, regularizers.L1L2, regularizers.OrthogonalRegularizer)
    if type(regularizer) not in kinds:
        raise NotImplementedError(f"no error bound for the regularizer {type(regularizer).__name__}, one of your own.")


def penalty(regularizer: Any, weights: Ball) -> Ball:
    """l1 Σ|w| + l2 Σw², or the mean cosine of rows or columns; factors rounded to float32."""
    if isinstance(regularizer, regularizers.OrthogonalRegularizer):
        unit, _, pairs, factor = _unit_rows(regularizer, weights)
        others = bounds.absolute(unit @ unit.T) * (1 - np.eye(unit.shape[0]))
        return others.sum() * (factor * 0.5) / float(pairs)
    l1, l2 = _factors(regularizer)
    found = bounds.absolute(weights).sum() * weights.arithmetic.const(l1, float32_first=True)
    return found + bounds.square(weights).sum() * weights.arithmetic.const(l2, float32_first=True)


def penalty_gradient(regularizer: Any, weights: Ball) -> Ball:
    """l1 sign(w) + 2 l2 w."""
    if isinstance(regularizer, regularizers.OrthogonalRegularizer):
        return _orthogonal_gradient(regularizer, weights)
    l1, l2 = _factors(regularizer)
    found = _sign(weights) * weights.arithmetic.const(l1, float32_first=True)
    return found + weights * weights.arithmetic.const(2 * float(np.float32(l2)))


def _unit_rows(regularizer: Any, weights: Ball) -> tuple[Ball, Ball, float, Ball]:
    rows = weights if regularizer.mode == "rows" else weights.T
    inverse = inverse_norm(rows, 1, 1e-12)
    n = rows.shape[0]
    return rows * inverse, inverse, n * (n - 1) / 2, weights.arithmetic.const(regularizer.factor)


def _orthogonal_gradient(regularizer: Any, weights: Ball) -> Ball:
    """As ops.orthogonal_gradient; the tape reaches n_i once as a row and once as a column, which doubles and halves."""
    rows = weights if regularizer.mode == "rows" else weights.T
    unit, inverse, pairs, factor = _unit_rows(regularizer, weights)
    signs = _sign(unit @ unit.T) * (1 - np.eye(unit.shape[0]))
    d_unit = (signs @ unit) * factor / float(pairs)
    found = unit_backward(d_unit, rows, inverse, 1, 1e-12)
    return found if regularizer.mode == "rows" else found.T
