"""The update rules, what surrounds them, the constraints and the schedules of minidl in ball arithmetic.

From the weights and slots before a step and its gradients, flat as in the arena: the slots after it, and from these,
as recorded where they were, the weights. The values are those of minidl's ops.py; sources: keras/src/optimizers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minidl import config, constraints, optimizers, schedules
from minidl.arena import Arena
from minidl.backend import Array
from minidl.oracle import bounds
from minidl.oracle.bounds import CHUNK, Arithmetic, Ball, either, where


@dataclass
class Update:
    """A step of an optimizer in balls, in the order in which it is computed.

    recorded: slot -> what it was after the step, where that is known; what follows is computed from it.
    slots: slot -> its ball after the step.
    """

    optimizer: Any
    arena: Arena
    arithmetic: Arithmetic
    learning_rate: Ball
    number: int  # t, of the update, from 1
    batch: int  # counted from 0
    before: dict[str, Ball]
    recorded: dict[str, Ball]
    slots: dict[str, Ball] = field(default_factory=dict)

    def now(self, slot: str, ball: Ball) -> Ball:
        """Note a slot's ball; what to go on with."""
        self.slots[slot] = ball
        return self.recorded.get(slot, ball)

    def const(self, value: float) -> Ball:
        return self.arithmetic.const(value)

    def kept(self, value: float) -> Ball:
        """A constant that is rounded to float32 first, in float64 too."""
        return self.arithmetic.const(value, float32_first=True)

    def bias_correction(self, beta: float, t: int) -> Ball:
        """1 − βᵗ, of β rounded to float32 and to the narrow type, βᵗ to POWER's accuracy."""
        return 1 - self.power(beta, t)

    def power(self, beta: float, t: int) -> Ball:
        return bounds.power(self.arithmetic.given(np.float32(beta)), t)


def _on_torch(step: Update) -> bool:
    """Whether the update is that of keras/src/backend/torch/optimizers, whose forms are others."""
    return step.arithmetic.backend == "torch"


def _towards(old: Ball, target: Ball, keep: Ball | float, add: Ball | float) -> Ball:
    """q + (1 − β)(s − q), or the same as β q + (1 − β) s."""
    return either(old + (target - old) * add, old * keep + target * add)


def _sgd(step: Update, theta: Ball, g: Ball) -> Ball:
    optimizer, rate = step.optimizer, step.learning_rate
    if not optimizer.momentum:
        return theta - g * rate
    mu = step.kept(optimizer.momentum)
    m = step.now("momentums", step.before["momentums"] * mu - g * rate)
    if not optimizer.nesterov:
        return theta + m
    found = theta + (m * mu - g * rate)
    return either(found, theta - g * rate + m * mu) if _on_torch(step) else found


def _adam(step: Update, theta: Ball, g: Ball) -> Ball:
    optimizer, t = step.optimizer, step.number
    b1, b2 = optimizer.beta_1, optimizer.beta_2
    m = step.now("m", _towards(step.before["m"], g, step.const(b1), step.const(1.0 - b1)))
    v = step.now("v", _towards(step.before["v"], bounds.square(g), step.const(b2), step.const(1.0 - b2)))
    if optimizer.amsgrad:
        v = step.now("v_hat", bounds.maximum(step.before["v_hat"], v))
    alpha = step.learning_rate * bounds.sqrt(step.bias_correction(b2, t)) / step.bias_correction(b1, t)
    return theta - (m * alpha) / (bounds.sqrt(v) + step.const(optimizer.epsilon))


def _adamax(step: Update, theta: Ball, g: Ball) -> Ball:
    optimizer, b1 = step.optimizer, step.optimizer.beta_1
    m = step.now("m", _towards(step.before["m"], g, step.const(b1), step.const(1.0 - b1)))
    u = step.now("u", bounds.maximum(step.before["u"] * step.const(optimizer.beta_2), bounds.absolute(g)))
    return theta - (m * step.learning_rate) / (
        (u + step.const(optimizer.epsilon)) * step.bias_correction(b1, step.number)
    )


def _nadam(step: Update, theta: Ball, g: Ball) -> Ball:
    optimizer, t = step.optimizer, step.number
    b1, b2 = step.kept(optimizer.beta_1), step.kept(optimizer.beta_2)

    def mu(at: int, beta: Ball, decay: float) -> Ball:
        return beta * (1 - bounds.power(step.arithmetic.given(decay), at) * 0.5)

    decay = float(np.float32(0.96))
    now, following = mu(t, b1, decay), mu(t + 1, b1, decay)
    plain = float(np.dtype(step.arithmetic.dtype).type(0.96))
    product = step.now("u_product", step.before["u_product"] * mu(t, step.const(optimizer.beta_1), plain))
    m, v = _towards(step.before["m"], g, b1, 1 - b1), _towards(step.before["v"], bounds.square(g), b2, 1 - b2)
    if _on_torch(step):  # 1 − β of the doubles
        beta_1, beta_2 = optimizer.beta_1, optimizer.beta_2
        m = either(m, step.before["m"] * step.const(beta_1) + g * step.const(1.0 - beta_1))
        v = either(v, step.before["v"] * step.const(beta_2) + bounds.square(g) * step.const(1.0 - beta_2))
    m, v = step.now("m", m), step.now("v", v)
    m_hat = (m * following) / (1 - product * following) + (g * (1 - now)) / (1 - product)
    v_hat = v / step.bias_correction(optimizer.beta_2, t)
    return theta - (m_hat * step.learning_rate) / (bounds.sqrt(v_hat) + step.const(optimizer.epsilon))


def _rmsprop(step: Update, theta: Ball, g: Ball) -> Ball:
    optimizer = step.optimizer
    keep, add, epsilon = step.const(optimizer.rho), step.const(1.0 - optimizer.rho), step.const(optimizer.epsilon)
    v = step.now("velocities", _towards(step.before["velocities"], bounds.square(g), keep, add))
    denominator = v + epsilon
    if optimizer.centered:
        mean = step.now("average_gradients", _towards(step.before["average_gradients"], g, keep, add))
        denominator = v - bounds.square(mean) + epsilon
        if _on_torch(step):
            denominator = either(denominator, v + epsilon - bounds.square(mean))
    increment = g * step.learning_rate * bounds.rsqrt(denominator)
    if not optimizer.momentum:
        return theta - increment
    m = step.now("momentums", step.before["momentums"] * step.const(optimizer.momentum) + increment)
    return theta - m


def _adagrad(step: Update, theta: Ball, g: Ball) -> Ball:
    a = step.now("accumulators", step.before["accumulators"] + bounds.square(g))
    return theta - g * step.learning_rate * bounds.rsqrt(a + step.const(step.optimizer.epsilon))


def _adadelta(step: Update, theta: Ball, g: Ball) -> Ball:
    optimizer = step.optimizer
    keep, add, epsilon = step.const(optimizer.rho), step.const(1.0 - optimizer.rho), step.const(optimizer.epsilon)
    a = step.now("accumulated_grads", _towards(step.before["accumulated_grads"], bounds.square(g), keep, add))
    old = step.before["accumulated_deltas"]
    delta = -(bounds.sqrt(old + epsilon) * g * bounds.rsqrt(a + epsilon))
    step.now("accumulated_deltas", _towards(old, bounds.square(delta), keep, add))
    return theta + delta * step.learning_rate


_RULES: dict[type, Callable[[Update, Ball, Ball], Ball]] = {
    optimizers.SGD: _sgd,
    optimizers.Adam: _adam,
    optimizers.AdamW: _adam,
    optimizers.Adamax: _adamax,
    optimizers.Nadam: _nadam,
    optimizers.RMSprop: _rmsprop,
    optimizers.Adagrad: _adagrad,
    optimizers.Adadelta: _adadelta,
}


def check_optimizer(optimizer: Any) -> None:
    """Raise NotImplementedError for an optimizer that has no bound."""
    if type(optimizer) not in _RULES:
        raise NotImplementedError(f"no error bound for the optimizer {type(optimizer).__name__}, one of your own.")


def clipped(optimizer: Any, arena: Arena, g: Ball) -> Ball:
    """The gradients as clipnorm, global_clipnorm or clipvalue leave them."""
    if optimizer.clipnorm is not None:
        c = g.arithmetic.const(optimizer.clipnorm)
        parts = []
        for segment in arena.segments:
            part = g[segment.start : segment.stop]
            parts.append((part * c) / bounds.maximum(bounds.sqrt(bounds.square(part).sum()), c))
        return bounds.concatenate(parts)
    if optimizer.global_clipnorm is not None:
        c, inverse = g.arithmetic.const(optimizer.global_clipnorm), g.arithmetic.const(1.0 / optimizer.global_clipnorm)
        squares = bounds.square(g).sum()
        zero = (squares.value == 0) & ~squares.unbounded
        found = bounds.minimum(bounds.rsqrt(where(zero, 1, squares)), inverse)
        return g * (where(zero, inverse, found) * c)
    if optimizer.clipvalue is not None:
        c = g.arithmetic.rounded(optimizer.clipvalue)
        return bounds.clip(g, -c, c)
    return g


def update(step: Update, theta: Ball, g: Ball, at: Array) -> Ball:
    """The weights after a batch's step, before constraints, and all slots into step.slots.

    In Keras's order: unscale, accumulate, clip, decay the weights, the update rule, average the weights. at: the places
    in the arena that theta, g and the step's slots are of, all of them where gradients are clipped by their norm.
    """
    optimizer = step.optimizer
    decayed = np.zeros(step.arena.size, bool)
    for part in optimizer._decayed if optimizer.weight_decay is not None else ():
        decayed[part] = True
    decayed = decayed[at]
    together = optimizer.clipnorm is not None or optimizer.global_clipnorm is not None
    if together or at.size <= CHUNK:
        return _batch(step, theta, g, decayed)

    def part_of(start: int) -> tuple[Ball, dict[str, Ball]]:
        places = slice(start, start + CHUNK)
        before, recorded = (
            {name: ball if ball.ndim == 0 else ball[places] for name, ball in balls_of.items()}
            for balls_of in (step.before, step.recorded)
        )
        part = replace(step, before=before, recorded=recorded, slots={})
        return _batch(part, theta[places], g[places], decayed[places]), part.slots

    parts = [part_of(start) for start in range(0, at.size, CHUNK)]
    for name, ball in parts[0][1].items():
        step.slots[name] = ball if ball.ndim == 0 else bounds.concatenate([slots[name] for _, slots in parts])
    return bounds.concatenate([found for found, _ in parts])


def _batch(step: Update, theta: Ball, g: Ball, decayed: Array) -> Ball:
    optimizer, batch = step.optimizer, step.batch
    if optimizer.loss_scale_factor is not None:
        g = g / float(optimizer.loss_scale_factor)
    every = optimizer.gradient_accumulation_steps
    if every is None:
        theta = _stepped(step, theta, g, decayed)
    elif (batch + 1) % every == 0:
        theta = _stepped(step, theta, (g + step.before["accumulated_gradients"]) / float(every), decayed)
        step.slots["accumulated_gradients"] = step.arithmetic.given(np.zeros(g.shape))  # set, also where it was a NaN
    else:
        for slot in (*optimizer.slots, *optimizer.scalars):
            step.slots[slot] = step.before[slot]
        step.slots["accumulated_gradients"] = step.before["accumulated_gradients"] + g
    if optimizer.use_ema:
        updates = batch // (every or 1)
        mu = step.const(optimizer.ema_momentum if updates else 0.0)
        average = step.now("averages", step.before["averages"] * mu + theta * (1 - mu))
        frequency = optimizer.ema_overwrite_frequency
        if frequency is not None and (updates + 1) % frequency == 0:
            return average
    return theta


def _stepped(step: Update, theta: Ball, g: Ball, decayed: Array) -> Ball:
    optimizer = step.optimizer
    g = clipped(optimizer, step.arena, g)
    if optimizer.weight_decay is not None:
        decay = step.kept(optimizer.weight_decay)
        smaller = theta - theta * decay * step.learning_rate
        if _on_torch(step):
            smaller = either(smaller, theta * (1 - decay * step.learning_rate))
        theta = where(decayed, smaller, theta)
    return _RULES[type(optimizer)](step, theta, g)


# ----------------------------------------------------------------------------------------- constraints


def check_constraint(constraint: Any) -> None:
    """Raise NotImplementedError for a constraint that has no bound."""
    kinds = (constraints.MaxNorm, constraints.NonNeg, constraints.UnitNorm, constraints.MinMaxNorm)
    if type(constraint) not in (*kinds, constraints.Constraint):
        raise NotImplementedError(f"no error bound for the constraint {type(constraint).__name__}, one of your own.")


def constrained(constraint: Any, weights: Ball) -> Ball:
    """The weights as they may be."""
    if type(constraint) is constraints.Constraint:
        return weights
    if isinstance(constraint, constraints.NonNeg):
        return bounds.maximum(weights, 0)
    axis = tuple(constraint.axis) if isinstance(constraint.axis, list) else constraint.axis
    norms = bounds.sqrt(bounds.square(weights).sum(axis, keepdims=True))
    bottom = norms + weights.arithmetic.const(config.epsilon())
    if isinstance(constraint, constraints.UnitNorm):
        return weights / bottom
    const = weights.arithmetic.const
    if isinstance(constraint, constraints.MaxNorm):
        desired = bounds.clip(norms, 0, const(constraint.max_value))
    else:
        desired = bounds.clip(norms, const(constraint.min_value), const(constraint.max_value))
        desired = desired * const(constraint.rate) + norms * const(1 - constraint.rate)
    return weights * (desired / bottom)


# ------------------------------------------------------------------------------------------- schedules


def learning_rate(schedule: Any, batch: int) -> Ball | None:
    """η of a batch counted from 0, in float32 whatever the model's type; None for a schedule of somebody's own.

    Powers, logarithms and cosines to POWER's accuracy. Of periods, see _restarts; where another count that is rounded
    down may be either of two, there is no bound, and the radius is infinite.
    """
    kind = _SCHEDULES.get(type(schedule))
    return None if kind is None else kind(Arithmetic.of("float32"), schedule, batch)


def _ratio(a: Arithmetic, t: float, period: float) -> Ball:
    return a.rounded(t) / a.rounded(period)


def _floor(p: Ball) -> Ball:
    low, high = np.floor(p.value - p.radius), np.floor(p.value + p.radius)
    exact = np.floor(p.value)
    return Ball(exact, np.maximum(high - exact, exact - low), p.arithmetic)


def _raised(base: float, p: Ball) -> Ball:
    """base^p, by its exponent's ends."""
    if base == 0:
        return Ball(np.where(p.value == 0, 1.0, 0.0), np.zeros(()), p.arithmetic)
    logarithm = math.log(base)
    exponent = Ball(p.value * logarithm, p.radius * abs(logarithm), p.arithmetic)
    size = exponent.magnitude + bounds.ULPS["power"]  # as in bounds.power
    return bounds._of_ends(exponent, np.exp, 2 * p.arithmetic.unit * size)


def _exponential(a: Arithmetic, schedule: Any, batch: int) -> Ball:
    p = _ratio(a, batch, schedule.decay_steps)
    p = _floor(p) if schedule.staircase else p
    return _raised(float(np.float32(schedule.decay_rate)), p) * a.rounded(schedule.initial_learning_rate)


def _inverse_time(a: Arithmetic, schedule: Any, batch: int) -> Ball:
    p = _ratio(a, batch, schedule.decay_steps)
    p = _floor(p) if schedule.staircase else p
    return a.rounded(schedule.initial_learning_rate) / (p * a.rounded(schedule.decay_rate) + 1)


def _piecewise(a: Arithmetic, schedule: Any, batch: int) -> Ball:
    return a.rounded(schedule(batch))


def _polynomial(a: Arithmetic, schedule: Any, batch: int) -> Ball:
    period = float(np.float32(schedule.decay_steps))
    t = float(batch)
    if schedule.cycle:
        period *= 1 if batch == 0 else math.ceil(t / period)
    end = a.rounded(schedule.end_learning_rate)
    left = 1 - _ratio(a, t if schedule.cycle else min(t, period), period)
    return (a.rounded(schedule.initial_learning_rate) - end) * bounds.power(left, float(schedule.power)) + end


def _cosine_of(p: Ball) -> Ball:
    """cos(π p): its slope is at most π; π's own rounding u of the argument; the result to POWER's accuracy."""
    value = np.cos(math.pi * p.value)
    spread = math.pi * (p.radius + 2 * p.arithmetic.unit * np.abs(p.value))
    return Ball(value, spread + 2 * bounds.ULPS["power"] * p.arithmetic.unit, p.arithmetic)


def _cosine(a: Arithmetic, schedule: Any, batch: int) -> Ball:
    t, period, start = float(batch), float(schedule.decay_steps), a.rounded(schedule.initial_learning_rate)
    if schedule.warmup_target is not None:
        warmup, target = float(schedule.warmup_steps), a.rounded(schedule.warmup_target)
        t = min(t, period + warmup)
        if t < warmup:
            return (target - start) * _ratio(a, t, warmup) + start
        t, start = t - warmup, target
    else:
        t = min(t, period)
    share = a.const(schedule.alpha)
    decayed = (_cosine_of(_ratio(a, t, period)) + 1) * 0.5
    return start * ((1 - share) * decayed + share)


def _restarts(a: Arithmetic, schedule: Any, batch: int) -> Ball:
    """Of the period that the step lies in; at its end, where rounding tells, of either."""
    x, growth = _ratio(a, batch, schedule.first_decay_steps), float(np.float32(schedule.t_mul))
    place = x if growth == 1 else bounds.log(1 - x * (1 - a.given(growth))) / bounds.log(a.given(growth))
    first, last = (int(np.floor(place.value + sign * place.radius)) for sign in (-1, 1))
    middle = int(np.floor(place.value))
    periods = [middle, *(i for i in range(max(first, 0), last + 1) if i != middle)]
    return either(*(_restarted(a, schedule, x, growth, i) for i in periods))


def _restarted(a: Arithmetic, schedule: Any, x: Ball, growth: float, i: int) -> Ball:
    """η₀ ((1 − α) ½ Mⁱ (1 + cos(π f)) + α), of the share f of period i."""
    if growth == 1:
        fraction = x - i
    else:
        length = bounds.power(a.given(growth), i)
        fraction = (x - (1 - length) / (1 - a.given(growth))) / length
    peak = float(np.float32(schedule.m_mul))
    factor = bounds.power(a.given(abs(peak)), i) * (-1.0 if peak < 0 and i % 2 else 1.0)
    share = a.const(schedule.alpha)
    decayed = factor * 0.5 * (_cosine_of(fraction) + 1)
    return a.rounded(schedule.initial_learning_rate) * ((1 - share) * decayed + share)


_SCHEDULES: dict[type, Callable[[Arithmetic, Any, int], Ball]] = {
    schedules.ExponentialDecay: _exponential,
    schedules.InverseTimeDecay: _inverse_time,
    schedules.PiecewiseConstantDecay: _piecewise,
    schedules.PolynomialDecay: _polynomial,
    schedules.CosineDecay: _cosine,
    schedules.CosineDecayRestarts: _restarts,
}
