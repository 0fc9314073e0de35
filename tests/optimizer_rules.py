"""A second derivation of every update rule, of numbers with error bounds: the papers' forms, parameter by parameter.

A Ball of second_bounds.py holds the true value of the step from a given float32 state, and how far a float32
computation of it may lie from that. Its value alone is the rule in float64.
"""

from dataclasses import dataclass, field

import numpy as np
import second_bounds as bounds
from second_bounds import Ball, add, divide, exact, maximum, multiply, negative, square_root

ONE = exact(np.ones(()))


def rounded(number):
    """A Python number that a float32 computation has rounded."""
    number = np.asarray(float(number))
    return Ball(number, bounds.U * np.abs(number))


def as_float32(number):
    """A Python number that Keras rounds to float32 before anything else."""
    return exact(np.asarray(np.float64(np.float32(number))))


def power(base, exponent):
    """baseᵗ of a float32 number: its relative error is POWER."""
    value = np.asarray(float(base.value) ** exponent)
    return Ball(value, bounds.POWER * value)


def subtract(a, b):
    return add(a, negative(b))


def square(a):
    return multiply(a, a)


def mix(old, target, rate):
    """ρ·old + (1 − ρ)·target: bounds.adam_moment, for any of its two forms."""
    return bounds.adam_moment(old.value, target, rate)


def scaled(a, *factors):
    for factor in factors:
        a = multiply(a, factor)
    return a


@dataclass
class State:
    """One parameter's balls: θ, its gradient and its slots by Keras's names."""

    theta: Ball
    grad: Ball
    slots: dict[str, Ball] = field(default_factory=dict)


def sgd(state, lr, step, momentum=0.0, nesterov=False, **_):
    g = multiply(lr, state.grad)
    if not momentum:
        return {}, negative(g)
    mu = as_float32(momentum)
    m = subtract(multiply(mu, state.slots["momentum"]), g)
    return {"momentum": m}, subtract(multiply(mu, m), g) if nesterov else m


def adam(state, lr, step, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False, **_):
    m = mix(state.slots["momentum"], state.grad, beta_1)
    v = mix(state.slots["velocity"], square(state.grad), beta_2)
    b1, b2 = (power(as_float32(b), step) for b in (beta_1, beta_2))
    alpha = divide(multiply(lr, square_root(subtract(ONE, b2))), subtract(ONE, b1))
    new = {"momentum": m, "velocity": v}
    if amsgrad:
        v = new["velocity_hat"] = maximum(state.slots["velocity_hat"], v)
    return new, negative(divide(multiply(alpha, m), add(square_root(v), rounded(epsilon))))


def adamax(state, lr, step, beta_1=0.9, beta_2=0.999, epsilon=1e-7, **_):
    m = mix(state.slots["momentum"], state.grad, beta_1)
    size = Ball(np.abs(state.grad.value), state.grad.radius)
    u = maximum(multiply(rounded(beta_2), state.slots["norm"]), size)
    m_hat = divide(m, subtract(ONE, power(as_float32(beta_1), step)))
    return {"momentum": m, "norm": u}, negative(divide(multiply(lr, m_hat), add(u, rounded(epsilon)), roundings=4))


def nadam(state, lr, step, beta_1=0.9, beta_2=0.999, epsilon=1e-7, **_):
    b1, b2 = as_float32(beta_1), as_float32(beta_2)

    def mu(t):
        return multiply(b1, subtract(ONE, multiply(exact(np.asarray(0.5)), power(as_float32(0.96), t))))

    decay = np.asarray(0.96**step)  # U alone takes 0.96 and β₁ as they are: rounded in float32, exact in float64
    fading = Ball(decay, (bounds.gamma(step) + bounds.POWER) * decay)
    warm = subtract(ONE, multiply(exact(np.asarray(0.5)), fading))
    product = scaled(state.slots["variable"], rounded(beta_1), warm)
    m = mix(state.slots["momentum"], state.grad, float(b1.value))
    v = mix(state.slots["velocity"], square(state.grad), float(b2.value))
    ahead = divide(multiply(mu(step + 1), m), subtract(ONE, multiply(product, mu(step + 1))))
    here = divide(multiply(subtract(ONE, mu(step)), state.grad), subtract(ONE, product))
    v_hat = divide(v, subtract(ONE, power(b2, step)))
    change = divide(multiply(lr, add(ahead, here)), add(square_root(v_hat), rounded(epsilon)))
    return {"momentum": m, "velocity": v, "variable": product}, negative(change)


def rmsprop(state, lr, step, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False, **_):
    v = mix(state.slots["velocity"], square(state.grad), rho)
    new, variance = {"velocity": v}, v
    if centered:
        mean = new["average_gradient"] = mix(state.slots["average_gradient"], state.grad, rho)
        variance = subtract(v, square(mean))
    change = divide(multiply(lr, state.grad), square_root(add(variance, rounded(epsilon))))
    if momentum:
        change = new["momentum"] = add(multiply(rounded(momentum), state.slots["momentum"]), change)
    return new, negative(change)


def adagrad(state, lr, step, epsilon=1e-7, **_):
    a = add(state.slots["accumulator"], square(state.grad))
    return {"accumulator": a}, negative(divide(multiply(lr, state.grad), square_root(add(a, rounded(epsilon)))))


def adadelta(state, lr, step, rho=0.95, epsilon=1e-7, **_):
    a = mix(state.slots["accumulated_grad"], square(state.grad), rho)
    before = square_root(add(state.slots["accumulated_delta_var"], rounded(epsilon)))
    delta = divide(multiply(before, state.grad), square_root(add(a, rounded(epsilon))))
    d = mix(state.slots["accumulated_delta_var"], square(delta), rho)
    return {"accumulated_grad": a, "accumulated_delta_var": d}, negative(multiply(lr, delta))


RULES = {
    "SGD": sgd,
    "Adam": adam,
    "AdamW": adam,
    "Adamax": adamax,
    "Nadam": nadam,
    "RMSprop": rmsprop,
    "Adagrad": adagrad,
    "Adadelta": adadelta,
}


def norm(grads):
    """√Σg² over all elements of all parameters."""
    flat = Ball(*(np.concatenate([np.ravel(part) for part in parts]) for parts in zip(*grads, strict=True)))
    return square_root(bounds.total(square(flat)))


def clip(grads, clipnorm=None, clipvalue=None, global_clipnorm=None, **_):
    """The gradients of all parameters, clipped."""
    if clipnorm:
        c = rounded(clipnorm)
        return [divide(multiply(g, c), maximum(norm([g]), c)) for g in grads]
    if global_clipnorm:
        c = rounded(global_clipnorm)
        return [divide(multiply(g, c), maximum(norm(grads), c), roundings=4) for g in grads]
    if clipvalue:
        c = clipvalue
        cut = [np.where(np.abs(g.value) + g.radius > c * (1 - bounds.U), bounds.U * c, 0) for g in grads]
        return [Ball(np.clip(g.value, -c, c), np.maximum(g.radius, r)) for g, r in zip(grads, cut, strict=True)]
    return grads


def batch(name, states, lr, batches, excluded, gradient_accumulation_steps=None, loss_scale_factor=None,
          weight_decay=None, use_ema=False, ema_momentum=0.99, ema_overwrite_frequency=None, **settings):  # fmt: skip
    """All of an optimizer's work on one batch: states of all parameters in, (new θ, new slots) of each out.

    batches: how many came before. excluded: for each parameter, whether it is left out of weight decay.
    """
    n = gradient_accumulation_steps or 1
    grads = [state.grad for state in states]
    if loss_scale_factor:
        grads = [divide(g, rounded(loss_scale_factor)) for g in grads]
    new = [(state.theta, dict(state.slots)) for state in states]
    if n > 1:
        grads = [add(g, state.slots["gradient_accumulator"]) for g, state in zip(grads, states, strict=True)]
    if (batches + 1) % n:
        for (_, slots), g in zip(new, grads, strict=True):
            slots["gradient_accumulator"] = g
    else:
        if n > 1:
            grads = [divide(g, exact(np.asarray(float(n)))) for g in grads]
        weight_decay = 0.004 if name == "AdamW" and weight_decay is None else weight_decay
        for i, g in enumerate(clip(grads, **settings)):
            theta = states[i].theta
            if weight_decay and not excluded[i]:
                theta = subtract(theta, scaled(theta, as_float32(weight_decay), lr))
            slots, change = RULES[name](State(theta, g, states[i].slots), lr, batches // n + 1, **settings)
            if n > 1:
                slots["gradient_accumulator"] = exact(np.zeros_like(theta.value))
            new[i] = add(theta, change), {**states[i].slots, **slots}
    if use_ema:
        iterations = batches // n
        mu = rounded(ema_momentum if iterations else 0.0)
        for i, (theta, slots) in enumerate(new):
            average = add(multiply(mu, states[i].slots["average"]), multiply(subtract(ONE, mu), theta))
            slots["average"] = average
            if ema_overwrite_frequency and (iterations + 1) % ema_overwrite_frequency == 0:
                new[i] = average, slots
    return new
