"""minidl against live Keras on TensorFlow: every quantity of twenty training steps, on a grid of models.

The same weights in, the same batches, Keras's own dropout masks. Keras runs its own compiled train_on_batch.
"""

import numpy as np
import pytest
from keras_cases import (
    CASES,
    STEPS,
    Inside,
    dense_layers,
    floatx,
    keras_on_tensorflow,
    minidl_model,
    own_step,
    reference_step,
    run_keras,
)

from minidl.metrics import Mean

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def keras_tf():
    pytest.importorskip("tensorflow")
    return keras_on_tensorflow()


def close(name, ours, theirs, scale=None, relative=1e-12):
    """Equal to 1e-12 of scale, by default the tensor's largest element: float32's rounding is 60,000 times that."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.dtype == theirs.dtype == np.float64, f"{name}: {ours.dtype}, {theirs.dtype}"
    assert ours.shape == theirs.shape, f"{name}: {ours.shape}, {theirs.shape}"
    assert np.isfinite(ours).all() and np.isfinite(theirs).all(), name
    error, scale = np.abs(ours - theirs), np.abs(theirs).max() if scale is None else scale
    worst = np.unravel_index(error.argmax(), error.shape)
    assert error.max() <= relative * scale, f"{name}{worst}: {ours[worst]!r} against Keras's {theirs[worst]!r}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float64_agrees_to_1e_12(keras_tf, case):
    """Running free: each library goes on from its own weights and slots for twenty steps."""
    with floatx(keras_tf[0], "float64"):
        run = run_keras(keras_tf[0], case, "float64")
        model = minidl_model(case)
        model.set_weights(run.theta[0])
        for step in range(STEPS):
            penalties = own_step(model, case, run, step, "float64", from_keras=False)
            compare_step(model, case, run, step, penalties)
            assert model.optimizer.iterations == step + 1


def last_gradient(model, case, step):
    """∂L/∂z of the last layer, from which the gradients of all parameters stem."""
    _, y, weights = case.data("float64")
    weight = np.ones(case.batch) if weights is None else weights[step]
    return (dense_layers(model)[-1].outputs - y[step]) * weight[:, None] / y[step].size


def compare_step(model, case, run, step, penalties):
    inside = run.inside
    for layer, outputs in zip(dense_layers(model), inside.activations.values(), strict=True):
        close(f"step {step}, {layer.name} outputs", layer.outputs, outputs[step])
    close(f"step {step}, loss", model.loss_tracker.result(), inside.losses[step])
    for i, (ours, theirs) in enumerate(zip(penalties, inside.penalties[step], strict=True)):
        close(f"step {step}, penalty {i}", ours, theirs)
    arena, adam = model.arena, model.optimizer
    recorded = {"gradient": (arena.grads, inside.gradients[step]), "m": (adam.m, run.m[step + 1]),
                "v": (adam.v, run.v[step + 1]), "weight": (arena.theta, run.theta[step + 1])}  # fmt: skip
    # A gradient is a sum over the batch that can cancel to any smallness; its error is relative to what was summed.
    # For the last bias that is Σ|∂L/∂z| ≤ 1 (times the largest weight), and every other gradient stems from it.
    summed = np.abs(last_gradient(model, case, step)).sum()
    scales = {"gradient": summed, "m": summed, "v": summed**2, "weight": 0.0}
    for what, (flat, theirs) in recorded.items():
        scale = max(scales[what], *(np.abs(their).max() for their in theirs))
        for segment, ours, their in zip(arena.segments, arena.views(flat), theirs, strict=True):
            close(f"step {step}, {what} of {segment.layer}/{segment.name}", ours, their, scale)
    logs = {metric.name: float(metric.result()) for metric in model.metrics}
    assert logs.keys() == run.logs[step].keys()
    for name, value in logs.items():
        close(f"step {step}, {name}", value, np.float64(run.logs[step][name]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float32_is_within_the_rounding_bound(keras_tf, case):
    """In lock-step, from Keras's own state: both libraries lie within the bound around the float64 truth.

    The bound is derived per operation in second_bounds.py and propagated through the step.
    """
    with floatx(keras_tf[0], "float32"):
        run = run_keras(keras_tf[0], case, "float32")
        model = minidl_model(case)
        np.testing.assert_array_equal(np.concatenate([w.ravel() for w in run.theta[0]]), model.arena.theta)
        for step in range(STEPS):
            balls = reference_step(model, case, run, step, "float32")
            penalties = own_step(model, case, run, step, "float32", from_keras=True)
            arena, adam = model.arena, model.optimizer
            theirs = {
                "outputs": [outputs[step] for outputs in run.inside.activations.values()],
                "penalty": run.inside.penalties[step],
                "loss": [run.inside.losses[step]],
                "gradient": run.inside.gradients[step],
                "m": run.m[step + 1],
                "v": run.v[step + 1],
                "weight": run.theta[step + 1],
            }
            ours = {
                "outputs": [layer.outputs for layer in dense_layers(model)],
                "penalty": penalties,
                "loss": [model.loss_tracker.result()],
                "gradient": arena.views(arena.grads),
                "m": arena.views(adam.m),
                "v": arena.views(adam.v),
                "weight": arena.views(arena.theta),
            }
            expected = {
                "outputs": [balls.activations[layer.name] for layer in dense_layers(model)],
                "penalty": list(balls.penalties.values()),
                "loss": [balls.loss],
                "gradient": balls.grads,
                "m": balls.m,
                "v": balls.v,
                "weight": balls.theta,
            }
            for what, wanted in expected.items():
                within(f"step {step}, Keras's {what}", theirs[what], wanted)
                within(f"step {step}, minidl's {what}", ours[what], wanted)


def within(name, values, balls):
    for i, (value, ball) in enumerate(zip(values, balls, strict=True)):
        value = np.asarray(value)
        assert value.dtype == np.float32 and value.shape == np.shape(ball.value), f"{name} {i}"
        fraction = np.atleast_1d(ball.fraction(value))
        assert (fraction <= 1).all(), f"{name} {i}: off by {fraction.max():.2f} times its bound"


def test_history_is_the_mean_over_samples(keras_tf):
    """Keras's epoch loss is what minidl's Mean makes of Keras's own batch losses, bit for bit."""
    keras, _ = keras_tf
    case = CASES[1]
    x, y, _ = case.data("float32")
    x, y = x.reshape(-1, 4)[:100], y.reshape(-1, 1)[:100]  # batches of 32, 32, 32 and 4
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    model = case.build(keras)
    with Inside(keras, model) as inside:
        history = model.fit(x, y, epochs=3, verbose=0, callbacks=[inside.callback]).history
    for epoch in range(3):
        mean = Mean()
        for batch, loss in zip(inside.batches[4 * epoch :], inside.losses[4 * epoch : 4 * epoch + 4], strict=False):
            mean.add(loss * len(batch), len(batch))
        assert float(mean.result()) == history["loss"][epoch]
