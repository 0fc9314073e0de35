"""Every optimizer with every option against live Keras on TensorFlow: twenty batches of a small model."""

import contextlib

import numpy as np
import pytest
from keras_cases import Inside, floatx
from optimizer_rules import State, batch
from second_bounds import Ball, U, exact
from test_against_keras import close, keras_tf  # noqa: F401  (a fixture)

import minidl.keras as minidl_keras
from minidl import naming
from minidl.optimizers import schedules

pytestmark = pytest.mark.keras

STEPS = 20
# schedules of which every operation is exact or rounded once, so that a free run can have the same rates
SLOW = ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 4, "decay_rate": 0.5})
DROP = ("PiecewiseConstantDecay", {"boundaries": [2, 7], "values": [0.1, 0.01, 0.05]})
EMA = {"use_ema": True, "ema_momentum": 0.9}
CASES = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "clipnorm": 0.05}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "gradient_accumulation_steps": 3}),
    ("SGD", {"learning_rate": SLOW, "weight_decay": 0.3}),
    ("Adam", {"amsgrad": True, "loss_scale_factor": 3.0}),
    ("Adam", {"weight_decay": 0.1, "exclude": {"var_names": ["bias", "dense_1"]}, "learning_rate": 0.1}),
    ("Adam", {"clipvalue": 0.01}),
    ("Adam", {"global_clipnorm": 0.1, **EMA, "ema_overwrite_frequency": 3}),
    ("Adam", {"gradient_accumulation_steps": 3, **EMA, "ema_overwrite_frequency": 2, "learning_rate": DROP}),
    ("AdamW", {"exclude": {"var_list": [0, 3]}, "learning_rate": 0.1}),
    ("Adamax", {"clipnorm": 0.1, **EMA}),
    ("Nadam", {}),
    ("Nadam", {"gradient_accumulation_steps": 2, "weight_decay": 0.1, "beta_1": 0.8}),
    ("RMSprop", {"global_clipnorm": 0.02}),
    ("RMSprop", {"rho": 0.8, "momentum": 0.7, "epsilon": 1e-3}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "loss_scale_factor": 64.0}),
    ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.3, "clipvalue": 0.1}),
    ("Adadelta", {"learning_rate": 1.0, "rho": 0.9}),
]
IDS = [f"{name}-{'-'.join(map(str, options))}" for name, options in CASES]

# minidl's slot -> what Keras calls it
KERAS_SLOTS = {
    "averages": "average", "accumulated_gradients": "gradient_accumulator", "m": "momentum", "v": "velocity",
    "v_hat": "velocity_hat", "u": "norm", "momentums": "momentum", "velocities": "velocity",
    "average_gradients": "average_gradient", "accumulators": "accumulator", "accumulated_grads": "accumulated_grad",
    "accumulated_deltas": "accumulated_delta_var",
}  # fmt: skip


def make_model(keras, name, options):
    options = dict(options)
    excluded = options.pop("exclude", {})
    if isinstance(options.get("learning_rate"), tuple):
        schedule, arguments = options["learning_rate"]
        options["learning_rate"] = getattr(keras.optimizers.schedules, schedule)(**arguments)
    layers = [
        keras.layers.Input(shape=(4,)),
        keras.layers.Dense(5, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.05)),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
    model = keras.models.Sequential(layers)
    optimizer = getattr(keras.optimizers, name)(**options)
    if excluded:
        weights = [weight for layer in model.layers for weight in (layer.kernel, layer.bias)]
        indices = excluded.get("var_list", [])
        optimizer.exclude_from_weight_decay(**{**excluded, "var_list": [weights[i] for i in indices]})
    model.compile(optimizer=optimizer, loss="binary_crossentropy")
    return model


def data(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS, 16, 4)).astype(dtype)
    return x, (x[..., :1] + rng.normal(size=(STEPS, 16, 1)) > 0).astype(dtype)


def twins(keras, name, options):
    """Keras's and minidl's model, with Keras's initial weights in both."""
    keras.utils.clear_session(free_memory=False)
    naming.reset_names()
    keras.utils.set_random_seed(3)
    theirs, ours = make_model(keras, name, options), make_model(minidl_keras, name, options)
    ours.set_weights([weight.numpy() for weight in theirs.trainable_variables])
    ours.optimizer.build(ours.arena)
    return theirs, ours


def variable_names(optimizer, arena):
    """Keras's names of minidl's optimizer.variables."""
    scheduled = isinstance(optimizer._learning_rate, schedules.LearningRateSchedule)
    names = ["iteration"] if scheduled else ["iteration", "learning_rate"]
    for group in optimizer._all_groups:
        for segment in arena.segments:
            names += [f"sequential_{segment.layer}_{segment.name}_{KERAS_SLOTS[slot]}" for slot in group]
    return names + ["variable" for _ in optimizer.scalars]


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_float64_agrees_to_1e_12(keras_tf, name, options):  # noqa: F811
    """Running free for twenty batches; the weights, and the optimizer's variables in Keras's order."""
    keras = keras_tf[0]
    with floatx(keras, "float64"):
        theirs, ours = twins(keras, name, options)
        assert ours.optimizer.get_config() == theirs.optimizer.get_config()
        x, y = data("float64")
        for step in range(STEPS):
            theirs.train_on_batch(x[step], y[step])
            ours.train_on_batch(x[step], y[step])
            names = [variable.name for variable in theirs.optimizer.variables]
            assert variable_names(ours.optimizer, ours.arena) == names
            for what, mine, other in (
                ("weight", ours.get_weights(), theirs.get_weights()),
                ("slot", ours.optimizer.variables[1:], [v.numpy() for v in theirs.optimizer.variables[1:]]),
            ):
                for i, (a, b) in enumerate(zip(mine, other, strict=True)):
                    close(f"step {step}, {what} {i}", a, b)
            iteration = ours.optimizer.variables[0]
            assert iteration.dtype == np.int64 and iteration == theirs.optimizer.variables[0].numpy() == step + 1
            assert ours.optimizer.iterations == int(theirs.optimizer.iterations)
        rate = np.float64(theirs.optimizer.learning_rate)
        assert abs(ours.optimizer.learning_rate - rate) <= 4 * 2.0**-23 * rate


def slot_of(name):
    """The slot's own name within a Keras variable's: "…_kernel_momentum" -> "momentum"."""
    return name if name == "variable" else name.split("_kernel_")[-1].split("_bias_")[-1]


def set_to(optimizer, theta, slots, arena, weights, values):
    for view, value in zip(arena.views(theta), weights, strict=True):
        view[...] = value
    optimizer._batches = int(values[0])
    for own, value in zip(optimizer.variables[-slots:] if slots else [], values[-slots:], strict=False):
        own[...] = value


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_float32_is_within_the_rounding_bound(keras_tf, name, options):  # noqa: F811
    """In lock-step: from Keras's own weights, slots and gradient, both lie within the bound around the true step."""
    keras, _ = keras_tf
    with floatx(keras, "float32"), contextlib.ExitStack() as stack:
        theirs, ours = twins(keras, name, options)
        x, y = data("float32")
        theirs.optimizer.build(theirs.trainable_variables)
        inside = stack.enter_context(Inside(keras, theirs))
        scheduled = isinstance(options.get("learning_rate"), tuple)
        names = [slot_of(v.name) for v in theirs.optimizer.variables]
        first = 1 if scheduled else 2
        for step in range(STEPS):
            weights, values = theirs.get_weights(), [v.numpy() for v in theirs.optimizer.variables]
            theirs.train_on_batch(x[step], y[step])
            inside.take()
            arena, optimizer = ours.arena, ours.optimizer
            set_to(optimizer, arena.theta, len(values) - first, arena, weights, values)
            for view, gradient in zip(arena.views(arena.grads), inside.gradients[step], strict=True):
                view[...] = gradient
            rate = optimizer.learning_rate
            lr = Ball(np.asarray(rate), np.zeros(()))
            excluded = excluded_of(ours, options)
            states = states_of(weights, inside.gradients[step], names[first:], values[first:])
            plain = {k: v for k, v in options.items() if k not in ("learning_rate", "exclude")}
            expected = batch(name, states, lr, step, excluded, **plain)
            optimizer.apply(arena)
            after = [v.numpy() for v in theirs.optimizer.variables][first:]
            for who, new, slots in (
                ("Keras", theirs.get_weights(), after),
                ("minidl", ours.get_weights(), optimizer.variables[first:]),
            ):
                found = states_of(new, new, names[first:], slots)
                for i, (state, (theta, balls)) in enumerate(zip(found, expected, strict=True)):
                    assert state.slots.keys() == balls.keys()
                    for what, ball in {"weight": theta, **balls}.items():
                        computed = new[i] if what == "weight" else state.slots[what].value
                        fraction = ball.fraction(computed).max()
                        assert fraction <= 1, f"step {step}, {who}'s {what} {i}: {fraction:.2f} times its bound"


def excluded_of(model, options):
    excluded = options.get("exclude", {})
    names = [f"{segment.layer}/{segment.name}" for segment in model.arena.segments]
    by_name = [any(part in name for part in excluded.get("var_names", [])) for name in names]
    return [found or i in excluded.get("var_list", []) for i, found in enumerate(by_name)]


def states_of(weights, gradients, names, values):
    """Each parameter's balls, from Keras's list of variables; the slots of one name come in the parameters' order."""
    states = [State(exact(w), exact(g)) for w, g in zip(weights, gradients, strict=True)]
    for slot in dict.fromkeys(names):
        of_slot = [value for name, value in zip(names, values, strict=True) if name == slot]
        for state, value in zip(
            states, of_slot * len(states) if slot == "variable" else of_slot, strict=slot != "variable"
        ):
            state.slots[slot] = exact(value)
    return states


def test_fit_ends_with_the_average_of_the_weights(keras_tf):  # noqa: F811
    keras = keras_tf[0]
    with floatx(keras, "float64"):
        theirs, ours = twins(keras, "RMSprop", EMA)
        x, y = (array.reshape(STEPS * 16, -1)[:100] for array in data("float64"))
        for model in (theirs, ours):
            model.fit(x, y, epochs=2, shuffle=False, verbose=0)
        for i, (a, b) in enumerate(zip(ours.get_weights(), theirs.get_weights(), strict=True)):
            close(f"weight {i}", a, b)
        np.testing.assert_array_equal(ours.arena.theta, ours.optimizer.averages)


SCHEDULES = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.6}),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.6, "staircase": True}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 3, "decay_rate": 0.7}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 3, "decay_rate": 0.7, "staircase": True}),
    ("PiecewiseConstantDecay", {"boundaries": [2, 7.9, 20], "values": [0.1, 0.01, 0.05, 0.0]}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 9}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 9, "power": 2.5, "cycle": True}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 30}),
    ("CosineDecay", {"initial_learning_rate": 0.01, "decay_steps": 20, "alpha": 0.1, "warmup_target": 0.3,
                     "warmup_steps": 9}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 3}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 4, "t_mul": 1.5, "m_mul": 0.9,
                             "alpha": 0.05}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 5, "t_mul": 1.0, "m_mul": 0.8}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), SCHEDULES, ids=[f"{n}-{len(a)}" for n, a in SCHEDULES])
def test_schedules_are_keras_s(keras_tf, name, arguments):  # noqa: F811
    """Every step is the same float32 operation; only powers, cosines and logarithms may differ in their last bits.

    Keras's and ours are within 2 ULPs each, 4 u, of the true power or cosine, of which nothing but 1 + cos is taken
    with a cancellation: 8 u of the largest rate bounds the difference. Without these functions there is none.
    """
    keras, tf = keras_tf
    theirs = getattr(keras.optimizers.schedules, name)(**arguments)
    compiled = tf.function(theirs)  # as within a training step: may compute x / T as x · (1/T)
    ours = getattr(schedules, name)(**arguments)
    assert schedules.serialize(ours) == keras.optimizers.schedules.serialize(theirs)
    largest = max(arguments.get("values", [arguments.get("warmup_target", arguments.get("initial_learning_rate"))]))
    plain = name in ("InverseTimeDecay", "PiecewiseConstantDecay")
    for step in [*range(60), 97, 1000, 12345]:
        mine, other, third = (
            ours(step),
            np.asarray(theirs(np.int64(step))),
            compiled(tf.constant(step, tf.int64)).numpy(),
        )
        assert mine.dtype == other.dtype == third.dtype == np.float32
        assert abs(float(mine) - float(other)) <= (0 if plain else 8 * U * largest), step
        assert abs(float(mine) - float(third)) <= 8 * U * largest, step
