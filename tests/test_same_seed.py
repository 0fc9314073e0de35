"""The same seed gives Keras's run: initial weights, masks and batches to the bit, weights to rounding."""

import io
from pathlib import Path

import numpy as np
import pytest
import second_step
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keras_cases import Inside, keras_on_tensorflow

import minidl.keras as minidl_keras
from minidl import config, naming, random, utils
from minidl.callbacks import LambdaCallback
from minidl.layers import Dense, Dropout
from minidl.masks import MaskBlocks
from minidl.oracle import notebook

VECTORS = np.load(Path(__file__).parent / "data" / "rng-vectors.npz")
STREAMS = {"tf_graph": "tensorflow", "tf_xla": "tensorflow-xla", "jax_jit": "jax", "torch_eager": "torch"}

# ------------------------------------------------------------------------- recorded runs on every backend


def run812_model(keras, model):
    """The recorded runs' models: A without dropout, B with unseeded, C with seeded dropout."""
    layers = keras.layers
    seeds = {"B": (None, None), "C": (7, 9)}.get(model)
    stack = [
        layers.Input((2,)),
        layers.Dense(4, activation="relu", kernel_regularizer="l1"),
        *([layers.Dropout(0.8, seed=seeds[0])] if seeds else []),
        layers.Dense(4, activation="relu", kernel_regularizer="l2"),
        *([layers.Dropout(0.5, seed=seeds[1])] if seeds else []),
        layers.Dense(1, activation="sigmoid"),
    ]
    found = keras.Sequential(stack)
    found.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    return found


@pytest.mark.parametrize("model", "ABC")
@pytest.mark.parametrize("run", STREAMS)
def test_recorded_runs_on_every_backend(run, model):
    """Seed 812, three epochs of steps of 32, 32, 32 and 4 rows: from the seed alone, what real Keras recorded.

    Weights and losses: 1e-6 is some 16 ULPs of a weight near 0.5, over 12 steps of SGD, whose rounding errors only
    add up; a mask shifted by one step ends 0.2 to 1.4 away.
    """
    wanted = {key.split("_")[-1] if "dense" not in key else key.split(f"model{model}_")[1]: VECTORS[key]
              for key in VECTORS.files if key.startswith(f"run812_{run}_model{model}_")}  # fmt: skip
    config.set_random_stream(STREAMS[run])
    utils.set_random_seed(812)
    mine = run812_model(minidl_keras, model)
    dense = [layer for layer in mine.layers if isinstance(layer, Dense)]
    dropouts = [layer for layer in mine.layers if isinstance(layer, Dropout)]
    assert [layer.kernel_initializer.seed for layer in dense] == wanted["dense_seeds"].tolist()
    for i, layer in enumerate(dense, start=1):
        np.testing.assert_array_equal(layer.kernel, wanted[f"init_dense{i}_kernel"])

    orders, masks, losses = watched_fit(mine, VECTORS["run812_X"], VECTORS["run812_y"], epochs=3, batch_size=32)
    np.testing.assert_array_equal(orders, wanted["order"])
    np.testing.assert_allclose(losses, wanted["losses"], rtol=0, atol=1e-6)
    for i, layer in enumerate(dense, start=1):
        np.testing.assert_allclose(layer.kernel, wanted[f"final_dense{i}_kernel"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(layer.bias, wanted[f"final_dense{i}_bias"], rtol=0, atol=1e-6)
    for i, layer in enumerate(dropouts, start=1):
        for step, recorded in enumerate(VECTORS[f"run812_{run}_model{model}_drop{i}_masks"]):
            rows = recorded[:, 0] != 255
            np.testing.assert_array_equal(masks[layer.name][step], recorded[rows] == 1)
    states = VECTORS.get(f"run812_{run}_model{model}_drop_states_end")
    if states is not None:
        np.testing.assert_array_equal([layer.seed_generator.state for layer in dropouts], states)


def watched_fit(model, x, y, **arguments):
    """fit; returns the orders of the epochs, the masks by layer, and the epochs' losses."""
    orders, masks = [], {}
    for layer in model.layers:
        if isinstance(layer, Dropout):
            masks[layer.name] = remember(layer)
    with pytest.MonkeyPatch.context() as patch:
        epoch_order = random.epoch_order
        patch.setattr(random, "epoch_order", lambda *a: orders.append(epoch_order(*a)) or orders[-1])
        history = model.fit(x, y, verbose=0, **arguments)
    return np.array(orders), masks, history.history["loss"]


def remember(layer):
    drawn, draw = [], layer.draw_mask
    layer.draw_mask = lambda shape: drawn.append(draw(shape)) or drawn[-1]
    return drawn


# -------------------------------------------------------------------------------- live Keras, random models


@st.composite
def recipes(draw):
    """A random model, its data and the way it is trained."""
    depth = draw(st.integers(0, 3))
    factors = st.sampled_from([0.0, 1e-3, 0.1])
    return {
        "features": draw(st.integers(1, 9)),
        "widths": [draw(st.integers(1, 12)) for _ in range(depth)],
        "activations": [draw(st.sampled_from(["relu", "tanh", "sigmoid"])) for _ in range(depth)],
        "rates": [draw(st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 0.8])) for _ in range(depth)],
        "seeds": [draw(st.none() | st.integers(0, 2**31 - 1)) for _ in range(depth)],
        "l1": [draw(factors) for _ in range(depth)],
        "l2": [draw(factors) for _ in range(depth)],
        "seed": draw(st.integers(0, 2**32 - 1)),
        "samples": draw(st.integers(20, 120)),
        "batch_size": draw(st.integers(7, 40)),
        "shuffle": draw(st.sampled_from([True, False, "batch"])),
        "validation": draw(st.booleans()),
    }


def recipe_model(keras, recipe, mode):
    layers = [keras.layers.Input(shape=(recipe["features"],))]
    for i, units in enumerate(recipe["widths"]):
        penalty = keras.regularizers.L1L2(recipe["l1"][i], recipe["l2"][i])
        layers.append(keras.layers.Dense(units, activation=recipe["activations"][i], kernel_regularizer=penalty))
        layers.append(keras.layers.Dropout(recipe["rates"][i], seed=recipe["seeds"][i]))
    model = keras.models.Sequential([*layers, keras.layers.Dense(1, activation="sigmoid")])
    modes = {"graph": {"jit_compile": False}, "eager": {"run_eagerly": True}, "xla": {"jit_compile": True}}
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], **modes[mode])
    return model


def recipe_fit(recipe):
    """x, y and the other arguments of fit: at least 50 steps in all."""
    rng = np.random.default_rng(recipe["seed"])
    samples = recipe["samples"]
    x = rng.normal(size=(samples, recipe["features"])).astype(np.float32)
    y = (x[:, :1] + rng.normal(size=(samples, 1)) > 0).astype(np.float32)
    steps = -(-samples // recipe["batch_size"])
    arguments = {"batch_size": recipe["batch_size"], "epochs": -(-50 // steps), "shuffle": recipe["shuffle"]}
    return x, y, arguments | ({"validation_data": (x[:9], y[:9])} if recipe["validation"] else {})


def keras_states(keras, model, fit, *callbacks):
    """Train Keras's model; weights, m and v before the first step and after each."""
    states = [([w.numpy() for w in model.trainable_variables],) * 3]
    states[0] = (states[0][0], *[[np.zeros_like(w) for w in states[0][0]] for _ in range(2)])

    def after_step(batch, logs):
        slots = model.optimizer.variables[2:]
        groups = (model.trainable_variables, slots[0::2], slots[1::2])
        states.append(tuple([variable.numpy() for variable in group] for group in groups))

    x, y, arguments = fit
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=after_step)
    model.fit(x, y, verbose=0, callbacks=[callback, *callbacks], **arguments)
    return states


@pytest.mark.keras
@pytest.mark.parametrize("mode", ["graph", "eager", "xla"])
@settings(
    max_examples=30,
    derandomize=True,
    phases=[Phase.generate],  # a failing model is not shrunk: each try costs seconds of Keras
    suppress_health_check=list(HealthCheck),
)
@given(recipe=recipes())
def test_random_models_from_the_seed_alone(mode, recipe):
    check_against_keras(mode, recipe["seed"], lambda keras: recipe_model(keras, recipe, mode), recipe_fit(recipe))


@pytest.mark.keras
@pytest.mark.parametrize("mode", ["graph", "eager", "xla"])
@pytest.mark.parametrize("name", notebook.MODELS)
def test_the_notebooks_models_from_the_seed_alone(mode, name):
    def build(keras):
        model = notebook.MODELS[name](keras)
        modes = {"graph": {"jit_compile": False}, "eager": {"run_eagerly": True}, "xla": {"jit_compile": True}}
        model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"], **modes[mode])
        return model

    (x, y), _ = notebook.data()
    check_against_keras(mode, 812, build, (x, y[:, None].astype(np.float32), {"batch_size": 32, "epochs": 6}))


def check_against_keras(mode, seed, build, fit):
    """Initial weights, batches and masks bit-equal; each of Keras's steps within the rounding of minidl's prediction.

    Keras is observed from outside in every mode: its weights and slots after each step. A step is taken again in
    float64 from these, with the batch and the masks that minidl draws from the seed; Keras's next state must lie within
    the derived bound. A wrong mask or batch is far outside. Batches are also recorded and compared to the bit, and in
    graph and eager mode masks.
    """
    keras, _ = keras_on_tensorflow()
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    theirs = build(keras)
    with Inside(keras, theirs) as inside:
        states = keras_states(keras, theirs, fit, inside.callback)

    naming.reset_names()
    utils.set_random_seed(seed)
    mine = build(minidl_keras)
    for own, keras_own in zip(mine.get_weights(), states[0][0], strict=True):
        np.testing.assert_array_equal(own, keras_own)
    x, y, arguments = fit
    orders, masks, _ = watched_fit(mine, x, y, **arguments)
    rows = [batch for order in orders for batch in batches(order, arguments["batch_size"])]
    assert len(rows) == len(states) - 1 >= 50
    compare_inside(inside, x, rows, {} if mode == "xla" else masks)
    for step, batch in enumerate(rows):
        (weights, m, v), after = states[step], states[step + 1]
        balls = second_step.training_step(
            mine, x[batch], y[batch], weights=weights, m=m, v=v, step=step + 1,
            masks={name: drawn[step] for name, drawn in masks.items() if drawn},
        )  # fmt: skip
        for what, wanted, found in zip(("weight", "m", "v"), (balls.theta, balls.m, balls.v), after, strict=True):
            for ball, array in zip(wanted, found, strict=True):
                fraction = ball.fraction(array).max()
                assert fraction <= 1, f"step {step}: Keras's {what} is off by {fraction:.2f} times the bound"


def batches(order, batch_size):
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def compare_inside(inside, x, rows, masks):
    """Every batch and every mask that Keras used, to the bit; under XLA masks are not seen."""
    for batch, seen in zip(rows, inside.batches, strict=True):
        np.testing.assert_array_equal(x[batch], seen)
    drawn = [masks for masks in masks.values() if masks]
    for mine, theirs in zip(drawn, inside.masks.values(), strict=True):
        for own, keras_own in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(own, keras_own)


@pytest.mark.keras
@pytest.mark.parametrize("steps_per_execution", [2, 3, 7])
def test_steps_per_execution_changes_nothing(steps_per_execution):
    """The same seed with several steps an execution: the same run, one mask a step. 1e-6 as in test_notebook.py."""
    keras, _ = keras_on_tensorflow()
    (x, y), _ = notebook.data()
    found = {}
    for name, namespace in (("keras", keras), ("minidl", minidl_keras)):
        namespace.utils.set_random_seed(5)
        model = notebook.build_with_dropout(namespace)
        model.compile(
            "adam", "binary_crossentropy", metrics=["accuracy"], steps_per_execution=steps_per_execution
        )  # fmt: skip
        batches = []
        namespace_callback = namespace.callbacks.LambdaCallback(
            on_train_batch_end=lambda b, logs, to=batches: to.append(b)
        )
        history = model.fit(x, y, epochs=3, verbose=0, callbacks=[namespace_callback])
        found[name] = (model.get_weights(), history.history["loss"], batches)
    for mine, theirs in zip(found["minidl"][0], found["keras"][0], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["minidl"][1], found["keras"][1], rtol=0, atol=1e-6)
    assert found["minidl"][2] == found["keras"][2]


@pytest.mark.keras
def test_a_second_fit_and_evaluate_in_between():
    """Repeated fits, evaluate and predict between them: masks go on, and the order starts again, as in Keras."""
    keras, _ = keras_on_tensorflow()
    (x, y), (x_test, y_test) = notebook.data()
    found = {}
    for name, namespace in (("keras", keras), ("minidl", minidl_keras)):
        namespace.utils.set_random_seed(6)
        model = notebook.build_with_dropout(namespace)
        for epochs in (2, 1):
            model.fit(x, y, epochs=epochs, batch_size=50, verbose=0, validation_split=0.1)
            model.evaluate(x_test, y_test, verbose=0)
            model.predict(x_test, verbose=0)
            model.train_on_batch(x[:20], y[:20])
        counters = [int(np.asarray(layer.seed_generator.state)[1]) for layer in model.layers if "dropout" in layer.name]
        found[name] = (model.get_weights(), counters)
    for mine, theirs in zip(found["minidl"][0], found["keras"][0], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)
    assert found["minidl"][1] == found["keras"][1] == [17, 17]


# ------------------------------------------------------------------------------------- state, and resuming


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), stops=st.lists(st.integers(0, 40), max_size=3), jit=st.booleans())
def test_resuming_at_any_step_is_bit_equal(seed, stops, jit):
    """Forty steps at a stretch, and the same with the state saved, and read by a fresh model, at random steps."""

    def fresh(other_seed):
        utils.set_random_seed(other_seed)
        model = notebook.build_with_dropout(minidl_keras)
        model.compile("adam", "binary_crossentropy", jit_compile=jit)
        return model

    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 33, 40)
    data = [(rng.normal(size=(n, 4)), rng.integers(0, 2, n)) for n in sizes]
    whole, broken = fresh(seed), fresh(seed)
    for step, (x, y) in enumerate(data):
        if step in stops:
            saved = io.BytesIO()
            np.savez(saved, **broken.get_state())
            saved.seek(0)
            broken = fresh(step)
            with np.load(saved) as state:
                broken.set_state(dict(state))
        whole.train_on_batch(x, y)
        broken.train_on_batch(x, y)
    for name, value in whole.get_state().items():
        np.testing.assert_array_equal(broken.get_state()[name], value, err_msg=name)


def test_a_state_holds_the_seeds_and_is_a_copy():
    utils.set_random_seed(1)
    model = notebook.build_with_dropout(minidl_keras)
    state = model.get_state()
    assert list(state) == ["theta", "iterations", "learning_rate", "m", "v", "seed/0", "seed/1"]
    model.train_on_batch(np.ones((3, 4)), np.ones(3))
    assert state["iterations"] == 0 and state["seed/0"][1] == 0 and not state["m"].any()
    assert model.get_state()["seed/0"].tolist() == [int(state["seed/0"][0]), 1]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("m"), "expected the entries .*'m'"),
        (lambda s: s.update(extra=1), "got .*'extra'"),
        (lambda s: s.update(theta=s["theta"][:-1]), r"theta must be finite, of shape \(45,\); got shape \(44,\)"),
        (lambda s: s.update(v=s["v"] * np.nan), "v must be finite.* with a NaN"),
        (lambda s: s.update(iterations=np.float64(1.5)), "iterations must be int64; got float64"),
        (lambda s: s.update({"seed/0": np.array(["a", "b"])}), "seed/0 must be int64"),
    ],
)
def test_a_wrong_state_changes_nothing(change, message):
    utils.set_random_seed(1)
    model = notebook.build_with_dropout(minidl_keras)
    model.train_on_batch(np.ones((3, 4)), np.ones(3))
    before, wrong = model.get_state(), model.get_state()
    change(wrong)
    with pytest.raises(ValueError, match=message):
        model.set_state(wrong)
    for name, value in model.get_state().items():
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(TypeError, match="expected a dict"):
        model.set_state([1])


# --------------------------------------------------------------------------------------- masks in blocks


@settings(max_examples=60)
@given(
    stream=st.sampled_from(config.RANDOM_STREAMS),
    dtype=st.sampled_from(["float32", "float64"]),
    rate=st.sampled_from([0.1, 0.5, 0.8]),
    width=st.integers(1, 9),
    takes=st.lists(st.tuples(st.integers(1, 12), st.sampled_from([0, 0, 0, 0, 1, -3])), min_size=1, max_size=40),
)
def test_masks_taken_from_blocks_are_the_masks_one_by_one(stream, dtype, rate, width, takes):
    """Steps in a row, jumps forth and back, batches that shrink and grow."""
    blocks, counter = MaskBlocks(), 0
    for rows, jump in takes:
        counter = max(0, counter + jump)
        mask = blocks.take((rows, width), rate, (77, counter), dtype, stream)
        with config.using_random_stream(stream):
            np.testing.assert_array_equal(mask, random.dropout_mask((rows, width), rate, (77, counter), dtype))
        counter += 1


def test_one_step_draws_one_mask_and_many_steps_ever_more(monkeypatch):
    drawn, draw = [], random.dropout_masks
    monkeypatch.setattr(random, "dropout_masks", lambda *a: drawn.append(a[3]) or draw(*a))
    blocks = MaskBlocks()
    for counter in range(100):
        blocks.take((32, 4), 0.5, (1, counter), "float32", "tensorflow")
    assert drawn == [1, 2, 4, 8, 16, 32, 64]
    blocks.take((4096, 64), 0.5, (1, 100), "float32", "tensorflow")
    blocks.take((4096, 64), 0.5, (1, 101), "float32", "tensorflow")
    assert drawn[7:] == [1, 1]  # a block of such masks would be too large


def test_jit_compile_selects_xlas_masks_in_training_alone():
    """XLA's masks in train_on_batch; TensorFlow's where Keras calls the model outside the compiled step."""
    x = np.ones((8, 4), np.float32)
    drawn = {}
    for jit in (True, False):
        utils.set_random_seed(3)
        model = notebook.build_with_dropout(minidl_keras)
        model.compile("adam", "binary_crossentropy", jit_compile=jit)
        masks = remember(model.layers[1])
        model.train_on_batch(x, np.ones(8))
        model(x, training=True)
        drawn[jit] = masks
    pair = (int(model.layers[1].seed_generator.state[0]), 0)
    with config.using_random_stream("tensorflow-xla"):
        np.testing.assert_array_equal(drawn[True][0], random.dropout_mask((8, 4), 0.8, pair))
    np.testing.assert_array_equal(drawn[False][0], random.dropout_mask((8, 4), 0.8, pair))
    assert (drawn[True][0] != drawn[False][0]).any()
    np.testing.assert_array_equal(drawn[True][1], drawn[False][1])


def test_sgd_takes_the_gradient_times_the_rate_off():
    model = minidl_keras.Sequential([minidl_keras.Input((3,)), minidl_keras.layers.Dense(1, activation="sigmoid")])
    model.compile(minidl_keras.optimizers.SGD(0.25), "binary_crossentropy")
    before = model.arena.theta.copy()
    seen = LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    model.fit(np.eye(3), np.array([0, 1, 1]), verbose=0, callbacks=[seen])
    np.testing.assert_array_equal(model.arena.theta, before - np.float32(0.25) * model.arena.grads)
    assert model.optimizer.iterations == 1 and len(model.optimizer.variables) == 2
