"""Keras models for tests of the oracle: varied layers, losses and optimizers; build(keras) -> model; data."""

import numpy as np

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 6)).astype("float32")
BINARY, CLASSES, NUMBERS = (X[:, :1] > 0).astype("float32"), RNG.integers(0, 3, 70), (X[:, :2] * 2).astype("float32")
WEIGHTS = RNG.uniform(0.5, 2, 70).astype("float32")


# Adam with ε inside the root: its slots are right, its weights are not.
EPSILON_IN_THE_ROOT = """
import keras
from keras import ops

def update_step(self, gradient, variable, learning_rate):
    lr, t = ops.cast(learning_rate, variable.dtype), ops.cast(self.iterations + 1, variable.dtype)
    m, v = (slots[self._get_variable_index(variable)] for slots in (self._momentums, self._velocities))
    alpha = lr * ops.sqrt(1 - ops.power(0.999, t)) / (1 - ops.power(0.9, t))
    self.assign_add(m, ops.multiply(ops.subtract(gradient, m), 1 - self.beta_1))
    self.assign_add(v, ops.multiply(ops.subtract(ops.square(gradient), v), 1 - self.beta_2))
    self.assign_sub(variable, alpha * m / ops.sqrt(v + self.epsilon))

keras.optimizers.Adam.update_step = update_step
"""


def _stack(keras, *layers):
    return keras.Sequential([keras.layers.Input((6,)), *layers])


def penalties_and_noise(keras):
    la, r = keras.layers, keras.regularizers
    model = _stack(
        keras,
        la.Dense(8, "tanh", kernel_regularizer=r.L1L2(1e-3, 1e-3), activity_regularizer=r.L2(1e-3)),
        la.GaussianNoise(0.1), la.Dense(7, "gelu"), la.Activation("elu"),
        la.Dropout(0.3, noise_shape=(None, 1)), la.LayerNormalization(), la.Dense(1, "sigmoid"),
    )  # fmt: skip
    model.compile("adam", "binary_crossentropy", metrics=["accuracy", "auc"])
    return model


def classes(keras):
    la = keras.layers
    model = _stack(
        keras,
        la.Dense(8, "relu", kernel_constraint="max_norm"), la.AlphaDropout(0.2), la.Dense(5, "selu"),
        la.GaussianDropout(0.2), la.Dense(3, "softmax"),
    )  # fmt: skip
    model.compile(
        keras.optimizers.SGD(0.1, 0.9, nesterov=True), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def normalized(keras):
    la = keras.layers
    model = _stack(keras, la.Dense(16, "leaky_relu"), la.BatchNormalization(), la.PReLU(), la.Dense(2))
    model.compile(keras.optimizers.AdamW(0.01, clipnorm=1.0), "huber", metrics=["mae"])
    return model


def nested(keras):
    la = keras.layers
    inner = keras.Sequential([la.Dense(4, "swish"), la.Dropout(0.5)])
    model = _stack(keras, inner, la.Dense(2))
    model.compile(
        keras.optimizers.RMSprop(0.01, use_ema=True, ema_overwrite_frequency=2), "mse", weighted_metrics=["mse"]
    )
    return model


def scheduled(keras):
    model = _stack(keras, keras.layers.Dense(4, "softplus"), keras.layers.Dense(2))
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 3, 0.5)
    model.compile(keras.optimizers.Nadam(schedule), "mae")
    return model


def accumulating(keras):
    model = _stack(keras, keras.layers.Dense(4, "sigmoid"), keras.layers.Dense(2))
    model.compile(keras.optimizers.Adam(0.01, gradient_accumulation_steps=2, amsgrad=True), "log_cosh")
    return model


CASES = {
    "penalties_and_noise": (penalties_and_noise, BINARY, {}),
    "classes": (classes, CLASSES, {"class_weight": {0: 2.0, 2: 0.5}}),
    "normalized": (normalized, NUMBERS, {"sample_weight": WEIGHTS}),
    "nested": (nested, NUMBERS, {"sample_weight": WEIGHTS, "validation_data": (X[:9], NUMBERS[:9])}),
    "scheduled": (scheduled, NUMBERS, {"shuffle": False}),
    "accumulating": (accumulating, NUMBERS, {"shuffle": "batch"}),
}
COMPILED = ("penalties_and_noise", "classes", "nested")  # XLA takes its time
MODES = {"graph": {}, "eager": {"run_eagerly": True}, "xla": {"jit_compile": True}}


def state_of(keras, model):
    """All that the next step depends on, as bytes."""
    variables = [*model.variables, *model.optimizer.variables]
    return [np.asarray(keras.ops.convert_to_numpy(variable)).tobytes() for variable in variables]


def built(keras, name, mode="graph", seed=5):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    model = CASES[name][0](keras)
    model.run_eagerly = mode == "eager"
    if mode != "native":
        model.jit_compile = mode in ("xla", "compile")
    return model


def checked_twice(keras, check, name, mode):
    """A plain fit and one that is checked, of the same seed: (whether they end in the same bits, the report)."""
    _, y, more = CASES[name]
    arguments = {"epochs": 2, "batch_size": 16, **more}
    plain = built(keras, name, mode)
    history = plain.fit(X, y, verbose=0, **arguments).history
    watched = built(keras, name, mode)
    report = check(watched, X, y, seed=5, initial_weights=True, **arguments)
    same = state_of(keras, plain) == state_of(keras, watched) and watched.history.history == history
    return same, report


def main():
    """For a backend of its own process: a line of JSON for each case."""
    import json

    import keras

    from minidl import oracle
    from minidl.oracle import recorder
    from minidl.oracle.steps import NOT_OBSERVED

    def say(name, mode="native"):
        same, report = checked_twice(keras, oracle.check, name, mode)
        first = report.first_divergence
        seen = sorted({tally.quantity for tally in report.ordered() if tally.verdict != NOT_OBSERVED})
        said = {"name": name, "same": same, "ok": report.ok, "mode": report.about["mode"], "seen": seen}
        for quantity in ("batch", "mask"):
            said[quantity] = {tally.name: tally.verdict for tally in report.cell(quantity)}
        print(json.dumps({**said, "first": first and first.explanation}), flush=True)

    def say_of_reversed_rows():
        """As if the adapter took each order backwards."""
        if jax:
            owner, method, plain = np.random, "permutation", np.random.permutation
            wrong = lambda rows: plain(rows)[::-1]  # noqa: E731
        else:
            import torch

            owner, method = torch.utils.data.RandomSampler, "__iter__"
            plain = owner.__iter__
            wrong = lambda self: reversed(list(plain(self)))  # noqa: E731
        setattr(owner, method, wrong)
        say("classes")
        setattr(owner, method, plain)

    def say_of_one_number_drawn_between():
        import torch

        plain = torch.nn.functional.dropout
        torch.nn.functional.dropout = lambda *args, **more: (torch.rand(1), plain(*args, **more))[1]
        say("nested")
        torch.nn.functional.dropout = plain

    jax = keras.backend.backend() == "jax"
    for name in COMPILED if jax else CASES:
        say(name)
    say("scheduled", "eager" if jax else "compile")  # as the backend does not do it by itself
    if not jax:
        try:
            oracle.check(built(keras, "nested", "compile"), X, NUMBERS)
        except oracle.CannotCheck as error:
            print(json.dumps(str(error)))
        say_of_one_number_drawn_between()
    say_of_reversed_rows()
    if jax:  # as if looking into a step had changed it
        recorder._bits = lambda arrays: object()
        say("accumulating")


if __name__ == "__main__":
    main()
