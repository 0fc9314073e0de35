"""How far a float32 result may lie from the true value: an error bound for each operation, with its derivation.

A Ball is a true value (in float64) with a radius: whoever computes the quantity in float32, in any order of
summation, with or without fused multiply-add, is within the radius. Each function takes the balls of its inputs
and returns the ball of its output; composed, they bound a whole training step. Nothing here was fitted to results.

minidl/oracle derives the same bounds, operation by operation: here they are those of whole formulas, as a second
opinion, and shared with it is nothing.

Notation: u = 2⁻²⁴, float32's unit roundoff: a correctly rounded operation has relative error at most u.
γₙ = n·u / (1 − n·u): the relative error of n roundings in a row. Source: Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed. 2002, lemma 3.1 and §3.1 (sums and products in any order), eq. 3.13 (matrix products).
η = 2⁻¹²⁶: the absolute error of a result below the smallest normal number, which TensorFlow flushes to 0.

float64's own rounding is not tracked: at 2⁻⁵³ it is 2²⁹ times smaller, and SLACK covers it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidl.backend import Array

U = 2.0**-24
ETA = 2.0**-126
SLACK = 1 + 2.0**-20

# Accuracy of the elementary functions as relative error: ULPs times 2u, since an ULP is at most 2u of a value. The
# ULPs are the worst, rounded up, of TensorFlow 2.21 (Eigen) and NumPy 2.4 against float64 over every third float32
# number of the domain used here: exp 1.3 and 2.5, log1p on [0, 1] 4.2 and 2.0, logistic 6.3, tanh 6.2 and 1.4.
# tests/test_second_bounds.py measures them again on the machine that it runs on.
EXP = 3 * 2 * U
LOG1P = 5 * 2 * U
LOGISTIC = 7 * 2 * U
TANH = 7 * 2 * U
POWER = 2 * 2 * U


def gamma(n: float) -> float:
    """γₙ = n·u / (1 − n·u). Errors: ValueError for n·u ≥ 1, where no bound holds."""
    if n * U >= 1:
        raise ValueError(f"gamma: {n} roundings in float32 have no error bound.")
    return n * U / (1 - n * U)


class Ball(NamedTuple):
    """All numbers within radius of value, elementwise: two float64 arrays of one shape."""

    value: Array
    radius: Array

    @property
    def magnitude(self) -> Array:
        """The largest absolute value in the ball."""
        return np.abs(self.value) + self.radius

    def holds(self, computed: Array) -> Array:
        """Whether each computed number lies in the ball (a NaN does not)."""
        return np.abs(np.asarray(computed, np.float64) - self.value) <= self.radius

    def fraction(self, computed: Array) -> Array:
        """|computed − value| / radius: at most 1 where it holds; infinite where a radius of 0 is missed and for NaN."""
        error = np.abs(np.asarray(computed, np.float64) - self.value)
        with np.errstate(divide="ignore", invalid="ignore"):
            fraction = np.where((error == 0) & (self.radius == 0), 0.0, error / self.radius)
        return np.where(np.isnan(fraction), np.inf, fraction)


def exact(value: Array) -> Ball:
    """Numbers that are given, not computed: radius 0."""
    value = np.asarray(value, np.float64)
    return Ball(value, np.zeros_like(value))


def _ball(value: Array, propagated: Array, rounding: Array) -> Ball:
    """propagated: what the inputs' radii come to; rounding: what this operation adds, 0 only where it is exact."""
    flushed = np.where((rounding > 0) | (value != 0), ETA, 0.0)  # a rounding below 10⁻³²⁴ underflows to 0 itself
    return Ball(value, (propagated + rounding + flushed) * SLACK)


def add(a: Ball, b: Ball) -> Ball:
    """a + b, rounded once: r = r_a + r_b + u|a + b|."""
    value = a.value + b.value
    spread = a.radius + b.radius
    return _ball(value, spread, U * (np.abs(value) + spread))


def multiply(a: Ball, b: Ball, roundings: int = 1) -> Ball:
    """a · b: r = |a|r_b + |b|r_a + r_a r_b + γₖ|a||b|, k the number of roundings on the way."""
    value = a.value * b.value
    spread = np.abs(a.value) * b.radius + np.abs(b.value) * a.radius + a.radius * b.radius
    return _ball(value, spread, gamma(roundings) * a.magnitude * b.magnitude)


def divide(a: Ball, b: Ball, roundings: int = 2) -> Ball:
    """a / b for a b whose ball does not hold 0: the extremes are at the ends of both balls.

    roundings: 2, since a quotient by a constant may be computed as a product with its reciprocal.
    Errors: ValueError if b may be 0.
    """
    if not (np.abs(b.value) > b.radius).all():
        raise ValueError("divide: the divisor's ball holds 0, so the quotient has no bound.")
    value = a.value / b.value
    ends = np.array([(a.value + i * a.radius) / (b.value + j * b.radius) for i in (-1, 1) for j in (-1, 1)])
    return _ball(value, np.abs(ends - value).max(axis=0), gamma(roundings) * np.abs(ends).max(axis=0))


def square_root(a: Ball) -> Ball:
    """√a, monotone, so the ball's ends bound it; rounded once. What lies below 0 is no value of a root's argument."""
    value = np.sqrt(a.value)
    high, low = np.sqrt(a.value + a.radius), np.sqrt(np.maximum(a.value - a.radius, 0))
    return _ball(value, np.maximum(high - value, value - low), U * high)


def maximum(a: Ball, b: Ball) -> Ball:
    """max(a, b) is exact, and moves no further than its arguments: r = max(r_a, r_b)."""
    return Ball(np.maximum(a.value, b.value), np.maximum(a.radius, b.radius))


def product(a: Ball, b: Ball, extra: int = 0) -> Ball:
    """a @ b with inner dimension n: r = |a|r_b + r_a|b| + r_a r_b + γₙ |a||b| (Higham eq. 3.13), any order.

    extra: further roundings on the same sum, such as a bias that is added.
    """
    value = a.value @ b.value
    spread = np.abs(a.value) @ b.radius + a.radius @ b.magnitude
    return _ball(value, spread, gamma(a.value.shape[-1] + extra) * (a.magnitude @ b.magnitude))


def total(a: Ball, axis: int | None = None) -> Ball:
    """Σ a over an axis of n numbers, in any order: r = Σ r_a + γₙ₋₁ Σ|a|."""
    n = a.value.size if axis is None else a.value.shape[axis]
    return _ball(a.value.sum(axis=axis), a.radius.sum(axis=axis), gamma(max(n - 1, 1)) * a.magnitude.sum(axis=axis))


def dense(inputs: Ball, kernel: Ball, bias: Ball | None) -> Ball:
    """inputs @ kernel + bias: the bias is one more term of each sum."""
    outputs = product(inputs, kernel, extra=1)
    if bias is None:
        return outputs
    return _ball(
        outputs.value + bias.value,
        outputs.radius + bias.radius,
        gamma(inputs.value.shape[-1] + 1) * np.broadcast_to(bias.magnitude, outputs.value.shape),
    )


def relu(inputs: Ball) -> Ball:
    """max(x, 0) is exact, and no two of its values lie further apart than their arguments: r = r_x."""
    low, high = np.maximum(inputs.value - inputs.radius, 0), np.maximum(inputs.value + inputs.radius, 0)
    value = np.maximum(inputs.value, 0)
    return Ball(value, np.maximum(high - value, value - low))


def relu_backward(d_outputs: Ball, inputs: Ball) -> Ball:
    """d where x > 0, else 0; where the ball of x holds 0 and is not just 0, either is right: r = |d| + r_d."""
    open_question = (np.abs(inputs.value) <= inputs.radius) & (inputs.radius > 0)
    value = np.where(inputs.value > 0, d_outputs.value, 0.0)
    radius = np.where(inputs.value > 0, d_outputs.radius, 0.0)
    return Ball(value, np.where(open_question, d_outputs.magnitude, radius))


def sigmoid(inputs: Ball) -> Ball:
    """σ is monotone, so the ball's ends bound it; LOGISTIC is the function's own relative error."""
    value = _sigmoid(inputs.value)
    high, low = _sigmoid(inputs.value + inputs.radius), _sigmoid(inputs.value - inputs.radius)
    return _ball(value, np.maximum(high - value, value - low), LOGISTIC * high)


def tanh(inputs: Ball) -> Ball:
    """tanh is monotone, so the ball's ends bound it; TANH is the function's own relative error."""
    value = np.tanh(inputs.value)
    high, low = np.tanh(inputs.value + inputs.radius), np.tanh(inputs.value - inputs.radius)
    return _ball(value, np.maximum(high - value, value - low), TANH * np.maximum(np.abs(high), np.abs(low)))


def sigmoid_backward(d_outputs: Ball, outputs: Ball) -> Ball:
    """d · y · (1 − y)."""
    return multiply(multiply(d_outputs, outputs), add(exact(np.ones(())), negative(outputs)))


def tanh_backward(d_outputs: Ball, outputs: Ball) -> Ball:
    """d · (1 − y²)."""
    return multiply(d_outputs, add(exact(np.ones(())), negative(multiply(outputs, outputs))))


def negative(a: Ball) -> Ball:
    """−a: exact."""
    return Ball(-a.value, a.radius)


def dropout(inputs: Ball, mask: Array, rate: float) -> Ball:
    """x / (1 − rate) where kept: the factor is rounded once or twice (1 − rate, its reciprocal), the product once."""
    scaled = multiply(inputs, exact(np.asarray(0.0 if rate == 1.0 else 1.0 / (1.0 - rate))), roundings=3)
    return Ball(np.where(mask, scaled.value, 0.0), np.where(mask, scaled.radius, 0.0))


def binary_crossentropy_from_logits(y: Array, logits: Ball) -> Ball:
    """ℓ = max(z, 0) − z·y + ln(1 + e^(−|z|)).

    dℓ/dz = σ(z) − y lies in [−1, 1], so the logit's radius passes at most unchanged. Rounding: z·y once, the first
    two terms' sum once, the logarithm LOG1P after an exponential EXP (t/(1+t) ≤ ln(1+t) passes it at most
    unchanged), the last sum once: every one of them on at most max(z,0) + |z|y + ln(1 + e^(−|z|)).
    """
    y, z = np.asarray(y, np.float64), logits.value
    tail = np.log1p(np.exp(-np.abs(z)))
    value = np.maximum(z, 0) - z * y + tail
    size = np.maximum(z, 0) + np.abs(z) * y + logits.radius
    return _ball(value, logits.radius, gamma(3) * (size + tail) + (LOG1P + EXP) * tail)


def binary_crossentropy_from_logits_backward(y: Array, logits: Ball) -> Ball:
    """σ(z) − y, as TensorFlow's own derivative adds it up: three terms, [z ≥ 0], −y and ∓t/(1 + t), t = e^(−|z|).

    σ' ≤ σ(z − r)…σ(z + r) is monotone in z, so the ball's ends bound what the logit's radius does. Rounding: two
    sums of the three terms in any order, γ₂ on their sizes; t by EXP; 1 + t and the quotient by γ₂.
    """
    y, z = np.asarray(y, np.float64), logits.value
    value = _sigmoid(z) - y
    spread = np.maximum(_sigmoid(z + logits.radius) - _sigmoid(z), _sigmoid(z) - _sigmoid(z - logits.radius))
    tail = _sigmoid(-np.abs(z))
    return _ball(value, spread, gamma(2) * ((z >= -logits.radius) + y + tail) + (EXP + gamma(2)) * tail)


def l1_penalty(weights: Array, l1: float) -> Ball:
    """l1 · Σ|w|: n − 1 sums, one product, and the rounding of l1 itself."""
    value = l1 * np.abs(np.asarray(weights, np.float64)).sum()
    return _ball(value, np.zeros(()), gamma(np.size(weights) + 1) * value)


def l2_penalty(weights: Array, l2: float) -> Ball:
    """l2 · Σw²: n squares and n − 1 sums, one product, and the rounding of l2 itself."""
    value = l2 * np.square(np.asarray(weights, np.float64)).sum()
    return _ball(value, np.zeros(()), gamma(np.size(weights) + 2) * value)


def l1_gradient(weights: Array, l1: float) -> Ball:
    """l1 · sign(w): the rounding of l1."""
    value = l1 * np.sign(np.asarray(weights, np.float64))
    return _ball(value, np.zeros_like(value), gamma(1) * np.abs(value))


def l2_gradient(weights: Array, l2: float) -> Ball:
    """2 · l2 · w: the rounding of l2, and two products."""
    value = 2 * l2 * np.asarray(weights, np.float64)
    return _ball(value, np.zeros_like(value), gamma(3) * np.abs(value))


def adam_moment(moment: Array, target: Ball, beta: float) -> Ball:
    """q ← q + (1 − β)(s − q), or the same as βq + (1 − β)s: at most four roundings on each of its two parts.

    The four: of 1 − β as a float32, of the difference, of the product, of the sum.
    """
    old = np.asarray(moment, np.float64)
    value = old + (1 - beta) * (target.value - old)
    rounding = gamma(4) * (np.abs(old) + (1 - beta) * (target.magnitude + np.abs(old)))
    return _ball(value, (1 - beta) * target.radius, rounding)


def adam_alpha(step: int, learning_rate: float, beta_1: float, beta_2: float) -> Ball:
    """α = η √(1 − β₂ᵗ) / (1 − β₁ᵗ), with the betas as float32 numbers, as Keras has them when it takes powers.

    p = βᵗ has relative error POWER, so 1 − p has (POWER·p + u(1 − p)) / (1 − p): large while p is near 1. A root
    halves a relative error; root, product and quotient add u each, η's own rounding u.
    """
    b1, b2 = float(np.float32(beta_1)), float(np.float32(beta_2))
    p1, p2 = b1**step, b2**step
    value = learning_rate * np.sqrt(1 - p2) / (1 - p1)
    relative_1 = POWER * p1 / (1 - p1) + U
    relative_2 = POWER * p2 / (1 - p2) + U
    relative = (1 + relative_2) * (1 + gamma(4)) / (1 - relative_1) - 1  # √(1 + x) ≤ 1 + x/2 ≤ 1 + x
    return Ball(np.asarray(value), np.asarray(value * relative * SLACK))


def adam_parameter(parameter: Array, m: Ball, v: Ball, alpha: Ball, epsilon: float) -> Ball:
    """θ − α m / (√v + ε̂): interval arithmetic on the quotient, whose denominator is at least ε̂.

    Rounding of the step: root, sum, product and quotient and the rounding of ε̂, γ₅; of the difference: u|θ|.
    """
    old = np.asarray(parameter, np.float64)
    step = alpha.value * m.value / (np.sqrt(v.value) + epsilon)
    lowest = np.sqrt(np.maximum(v.value - v.radius, 0)) + epsilon
    highest = np.sqrt(v.value + v.radius) + epsilon
    ends = [
        a * b / c
        for a in (alpha.value - alpha.radius, alpha.value + alpha.radius)
        for b in (m.value - m.radius, m.value + m.radius)
        for c in (lowest, highest)
    ]
    spread = np.max(np.abs(np.array(ends) - step), axis=0)
    rounding = gamma(5) * (np.abs(step) + spread) + U * (np.abs(old) + np.abs(step) + spread)
    return _ball(old - step, spread, rounding)


def _sigmoid(x: Array) -> Array:
    t = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, t) / (1.0 + t)
