"""JAX: a jitted step, called once a step or scanned over the batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from networks import BETA_1, BETA_2, EPSILON, LEARNING_RATE


class Peer:
    outer_epsilon = False

    def __init__(self, scan):
        self.scan = scan

    def load(self, case):
        self.case, self.chunk, self.done = case, case.batches if self.scan else 1, 0
        x, y = case.data()
        parts = [(x[case.rows(i)], y[case.rows(i)]) for i in range(case.batches)]
        self.x, self.y = (
            jax.device_put(np.stack([x for x, _ in parts])),
            jax.device_put(np.stack([y for _, y in parts])),
        )
        self.parts = [(jax.device_put(x), jax.device_put(y)) for x, y in parts]
        weights = [jax.device_put(w) for w in case.weights()]
        zeros = lambda: [jnp.zeros_like(w) for w in weights]  # noqa: E731
        self.state = weights, zeros(), zeros(), jnp.float32(0), jax.random.key(0)
        self._step = jax.jit(functools.partial(step, case), donate_argnums=0)
        self._scan = jax.jit(functools.partial(scan, case), static_argnums=1, donate_argnums=0)
        self._predict = jax.jit(lambda weights, x: jax.nn.sigmoid(logits(case, weights, x, None)))

    def run(self, steps):
        batches = self.case.batches
        if self.scan:
            whole, rest = divmod(steps, batches)
            for length in [batches] * whole + [1] * rest:
                self.state = self._scan(self.state, length, self.done % batches, self.x, self.y)
                self.done += length
        else:
            for i in range(self.done, self.done + steps):
                self.state = self._step(self.state, *self.parts[i % batches])
            self.done += steps
        jax.block_until_ready(self.state)

    def weights(self):
        return [np.asarray(w) for w in self.state[0]]

    def predict(self, x):
        return np.asarray(self._predict(self.state[0], x))


def logits(case, weights, x, key):
    for i in range(len(case.layers)):
        x = x @ weights[2 * i] + weights[2 * i + 1]
        if i < len(case.layers) - 1:
            x = jax.nn.relu(x)
        if key is not None and case.rate(i) > 0:
            keep = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - case.rate(i), x.shape)
            x = jnp.where(keep, x / (1 - case.rate(i)), 0.0)
    return x


def loss(weights, case, x, y, key):
    z = logits(case, weights, x, key)
    value = jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))
    for i in range(len(case.layers)):
        l1, l2 = case.penalties(i)
        if l1:
            value += l1 * jnp.sum(jnp.abs(weights[2 * i]))
        if l2:
            value += l2 * jnp.sum(jnp.square(weights[2 * i]))
    return value


def step(case, state, x, y):
    weights, m, v, t, key = state
    key, drawn = jax.random.split(key) if any(case.rates) else (key, None)
    # the loss is computed, as the others do, and carried along so that it is not left out
    _value, gradients = jax.value_and_grad(loss)(weights, case, x, y, drawn)
    t = t + 1
    alpha = LEARNING_RATE * jnp.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
    m = [a + (1 - BETA_1) * (g - a) for a, g in zip(m, gradients, strict=True)]
    v = [a + (1 - BETA_2) * (g * g - a) for a, g in zip(v, gradients, strict=True)]
    weights = [w - alpha * a / (jnp.sqrt(b) + EPSILON) for w, a, b in zip(weights, m, v, strict=True)]
    return weights, m, v, t, key


def scan(case, state, length, start, x, y):
    def body(state, i):
        at = (start + i) % case.batches
        return step(case, state, x[at], y[at]), None

    return jax.lax.scan(body, state, jnp.arange(length))[0]
