"""Activations and losses of the Keras that KERAS_BACKEND selects, on tens of thousands of numbers each, and the bounds.

Where a few outputs of a random model may miss the worst rounding, so many do not. As a program it prints what lies
outside of its bound and ends with an error if anything does.
"""

import sys

import numpy as np
from judge_models import ACTIVATIONS, LOSSES

import minidl.keras as minidl_keras
from minidl import activations, checks, config
from minidl.oracle import loss_bounds
from minidl.oracle.bounds import Arithmetic
from minidl.oracle.layer_bounds import activation_form


def value_and_gradient(keras, function, x, *labels):
    """How it is run -> (f(x), df/dx · 1) of each way in which the backend runs it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x, *labels)
            return y, tape.gradient(y, x)

        ways = {"eager": run, "graph": tf.function(run), "xla": tf.function(run, jit_compile=True)}
        found = {way: run(tf.constant(x)) for way, run in ways.items()}
    elif backend == "jax":
        import jax
        import jax.numpy as jnp

        def run(x):
            y, gradient = jax.vjp(lambda x: function(x, *labels), x)
            return y, gradient(jnp.ones_like(y))[0]

        found = {"eager": run(jnp.asarray(x)), "jit": jax.jit(run)(jnp.asarray(x))}
    else:
        import torch

        at = torch.tensor(x, requires_grad=True)
        y = function(at, *map(torch.tensor, labels))
        y.backward(torch.ones_like(y))
        found = {"eager": (y.detach(), at.grad)}
    return {way: [np.asarray(part) for part in parts] for way, parts in found.items()}


def arithmetic_of(way):
    return Arithmetic.of("float32", compiled=way in ("xla", "jit"))


def activation_shares(keras, name):
    """(how it is run, the largest share of the value's bound, and of the derivative's)."""
    rng = np.random.default_rng(8)
    normal = [rng.normal(size=(2500, 8)) * scale for scale in (1e-3, 1.0, 30.0)]
    x = np.concatenate([*normal, rng.uniform(-20, 3, size=(2500, 8))])
    x = np.minimum(x, 80).astype(np.float32)  # e^x stays finite
    form = activation_form(activations.get(name))
    for way, (y, d_x) in value_and_gradient(keras, keras.activations.get(name), x).items():
        given = arithmetic_of(way).given
        yield (
            way,
            form.value(given(x)).share(y).max(),
            form.backward(given(np.ones_like(x)), given(x), given(y)).share(d_x).max(),
        )


def outputs(rng, activation, shape):
    """Outputs of a last layer, from near 0 to saturated."""
    rows, units = shape
    z = np.concatenate([rng.normal(size=(rows // 4, units)) * scale for scale in (1e-3, 1.0, 8.0, 60.0)])
    return np.asarray(activations.get(activation)(z.astype(np.float32)))


def loss_shares(keras, name):
    """The same of a loss with respect to the outputs, of 4,000 samples with their labels."""
    make, activation, fewest, labels = LOSSES[name]
    for units in (fewest, 5) if fewest > 1 else (fewest,):
        rng = np.random.default_rng(3)
        p, y = outputs(rng, activation, (4000, units)), np.asarray(labels(rng, 4000, units))
        y = y if y.ndim == 1 else y.astype(np.float32)
        loss, own = make(keras), make(minidl_keras)
        logits = getattr(own, "from_logits", False)
        known = checks.labels(y, "float32", p.shape, sparse=own.sparse, check_finite=False)
        for way, (value, gradient) in value_and_gradient(keras, lambda p, y, loss=loss: loss(y, p), p, y).items():
            given = arithmetic_of(way).given(p)
            yield (
                way,
                loss_bounds.value(own, known, given, logits, None).share(value).max(),
                loss_bounds.gradient(own, known, given, logits, None).share(gradient).max(),
            )


def main():
    import keras

    wrong = 0
    with np.errstate(all="ignore"), config.using_random_stream(keras.backend.backend()):
        for names, shares in ((ACTIVATIONS, activation_shares), (LOSSES, loss_shares)):
            for name in names:
                for way, value, gradient in shares(keras, name):
                    if not (value <= 1 and gradient <= 1):
                        wrong += 1
                        print(f"{name}, {way}: {value:.3g} and {gradient:.3g} times the bound")
    return f"{wrong} outside of their bounds" if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
