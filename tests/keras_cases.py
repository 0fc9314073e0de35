"""Models of the same shape in minidl and in live Keras, trained in step: what the cross-check tests compare."""

import contextlib
from dataclasses import dataclass, field

import numpy as np
import second_step

import minidl.keras as minidl_keras
from minidl import ops, training, utils
from minidl.layers import Dense, Dropout
from minidl.oracle.checking import twin_of
from minidl.oracle.compare import replay
from minidl.oracle.recorder import Recorder, installed_keras

STEPS = 20


@dataclass(frozen=True)
class Case:
    """One model and its data. rates: of the Dropout after each hidden layer, 0 for none."""

    name: str
    features: int = 4
    widths: tuple[int, ...] = (4, 4)
    outputs: int = 1
    activations: tuple[str, ...] = ("relu", "relu")
    rates: tuple[float, ...] = (0.0, 0.0)
    l1: tuple[float, ...] = (0.0, 0.0)
    l2: tuple[float, ...] = (0.0, 0.0)
    batch: int = 32
    weighted: bool = False
    soft_labels: bool = False
    use_bias: bool = True
    scale: float = 1.0
    adam: dict[str, float] = field(default_factory=dict)

    def build(self, keras):
        layers = [keras.layers.Input(shape=(self.features,))]
        for i, units in enumerate(self.widths):
            layers.append(
                keras.layers.Dense(
                    units,
                    activation=self.activations[i],
                    use_bias=self.use_bias,
                    kernel_regularizer=self._regularizer(keras, i),
                    bias_regularizer=keras.regularizers.L2(0.05) if self.use_bias and i == 0 and self.l2[0] else None,
                )
            )
            if self.rates[i]:
                layers.append(keras.layers.Dropout(rate=self.rates[i]))
        layers.append(keras.layers.Dense(self.outputs, activation="sigmoid"))
        model = keras.models.Sequential(layers)
        adam = keras.optimizers.Adam(**self.adam)
        model.compile(optimizer=adam, loss="binary_crossentropy", metrics=["binary_accuracy"])
        return model

    def _regularizer(self, keras, i):
        if self.l1[i] and self.l2[i]:
            return keras.regularizers.L1L2(l1=self.l1[i], l2=self.l2[i])
        if self.l1[i]:
            return keras.regularizers.L1(self.l1[i])
        return keras.regularizers.L2(self.l2[i]) if self.l2[i] else None

    def data(self, dtype):
        """Twenty batches: x (20, B, I), y (20, B, U), weights (20, B) or None."""
        rng = np.random.default_rng(sum(map(ord, self.name)))
        x = (rng.normal(size=(STEPS, self.batch, self.features)) * self.scale).astype(dtype)
        chance = ops.sigmoid((x[..., :1] + 0.5 * x[..., 1:2]) / self.scale)
        y = rng.random((STEPS, self.batch, self.outputs))
        y = (y if self.soft_labels else y < chance).astype(dtype)
        weights = rng.gamma(2.0, size=(STEPS, self.batch)).astype(dtype) if self.weighted else None
        return x, y, weights


NOTEBOOK = {"l1": (0.1, 0.0), "l2": (0.0, 0.1)}
CASES = [
    Case("notebook", **NOTEBOOK),
    Case("notebook with dropout", rates=(0.8, 0.5), **NOTEBOOK),
    Case("no penalty"),
    Case("widths 1-1", widths=(1, 1), features=1 + 1),
    Case("widths 64-64", widths=(64, 64), **NOTEBOOK),
    Case("30-64-64 with dropout", features=30, widths=(64, 64), rates=(0.5, 0.2), l2=(1e-3, 1e-3)),
    Case("wide", features=200, widths=(128, 16), rates=(0.1, 0.0), l1=(1e-4, 0.0)),
    Case("one hidden layer", widths=(8,), activations=("relu",), rates=(0.3,), l1=(0.01,), l2=(0.02,)),
    Case("logistic regression", widths=(), activations=(), rates=(), l1=(), l2=()),
    Case("batch of 1", batch=1, rates=(0.5, 0.5), **NOTEBOOK),
    Case("batch of 5", batch=5, rates=(0.2, 0.9), **NOTEBOOK),
    Case("batch of 257", batch=257, rates=(0.5, 0.5), **NOTEBOOK),
    Case("weights", weighted=True, **NOTEBOOK),
    Case("weights and dropout", weighted=True, rates=(0.8, 0.5), l1=(0.0, 0.3), l2=(0.2, 0.0)),
    Case("soft labels", soft_labels=True, l1=(0.01, 0.01), l2=(0.01, 0.01)),
    Case("tanh", activations=("tanh", "tanh"), widths=(8, 8), rates=(0.25, 0.0), **NOTEBOOK),
    Case("sigmoid", activations=("sigmoid", "sigmoid"), widths=(8, 8), **NOTEBOOK),
    Case("linear and tanh", activations=("linear", "tanh"), widths=(3, 9)),
    Case("three outputs", outputs=3, weighted=True, rates=(0.5, 0.0), **NOTEBOOK),
    Case("no bias", use_bias=False, rates=(0.5, 0.0), **NOTEBOOK),
    Case("saturated", scale=300.0, l2=(1e-4, 1e-4)),
    Case("large penalties", l1=(10.0, 1.0), l2=(3.0, 5.0)),
    Case("small penalties", l1=(1e-6, 0.0), l2=(0.0, 1e-6)),
    Case("fast Adam", adam={"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}, rates=(0.5, 0.0)),
    Case("four layers", widths=(16, 8, 8, 4), activations=("relu", "tanh", "relu", "sigmoid"),
         rates=(0.5, 0.0, 0.2, 0.0), l1=(0.01, 0.0, 0.0, 0.0), l2=(0.0, 0.01, 0.0, 0.1)),
]  # fmt: skip


def keras_on_tensorflow():
    """The modules keras and tensorflow."""
    import tensorflow as tf

    return installed_keras("tensorflow"), tf


class Inside:
    """While open, sees the inside of every training step of a Keras model, as far as its mode allows.

    Lists with one entry a step: batches (x), losses, penalties (of each regularizer), gradients (of each weight);
    masks: dropout layer -> the masks (True = kept); activations: dense layer -> the outputs. take: after each step of
    train_on_batch; callback: for fit, which takes them.
    """

    def __init__(self, keras, model):
        self.recorder, inside = Recorder(keras, model, twin_of(keras, model)), self
        self.batches, self.losses, self.penalties, self.gradients = [], [], [], []
        self.masks, self.activations = {}, {}

        class Taking(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                inside.take()

        self.callback = Taking()

    def __enter__(self):
        self._watching = self.recorder.watching()
        self._watching.__enter__()
        return self

    def __exit__(self, *error):
        self._watching.__exit__(*error)

    def take(self):
        """Note the step that is done."""
        seen = self.recorder.seen
        self.batches.append(seen["x"][0])
        if "loss" in seen:
            self.losses.append(seen["loss"][0])
            self.penalties.append(seen.get("penalties", []))
            self.gradients.append(seen["gradients"])
        for layer in self.recorder.twin.flat_layers():
            for kind, noted in (("noise", self.masks), ("activation", self.activations)):
                if (kind, layer.name) in seen and (kind == "noise" or isinstance(layer, Dense)):
                    noted.setdefault(layer.name, []).append(seen[kind, layer.name][0])
        seen.clear()


@dataclass
class KerasRun:
    """What Keras did in twenty train_on_batch calls; each list has an entry a step, states one more at the start."""

    inside: Inside
    logs: list[dict[str, float]]
    theta: list[list[np.ndarray]]
    m: list[list[np.ndarray]]
    v: list[list[np.ndarray]]


@contextlib.contextmanager
def floatx(keras, dtype):
    """Both libraries' default float type for the time being."""
    before = keras.config.floatx(), minidl_keras.config.floatx()
    keras.config.set_floatx(dtype)
    keras.utils.clear_session(free_memory=False)  # forgets the dtype policy made of another float type
    minidl_keras.config.set_floatx(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.utils.clear_session(free_memory=False)
        minidl_keras.config.set_floatx(before[1])


def run_keras(keras, case, dtype):
    """Train Keras's model of a case, from seed 7, and record every quantity of every step."""
    x, y, weights = case.data(dtype)
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    model = case.build(keras)
    start = [variable.numpy() for variable in model.trainable_variables]
    zeros = [np.zeros_like(weight) for weight in start]
    with Inside(keras, model) as inside:
        run = KerasRun(inside, [], [start], [zeros], [zeros])
        for step in range(STEPS):
            weight = None if weights is None else weights[step]
            run.logs.append(model.train_on_batch(x[step], y[step], sample_weight=weight, return_dict=True))
            inside.take()
            slots = model.optimizer.variables[2:]
            run.theta.append([variable.numpy() for variable in model.trainable_variables])
            run.m.append([variable.numpy() for variable in slots[0::2]])
            run.v.append([variable.numpy() for variable in slots[1::2]])
    return run


def minidl_model(case):
    """minidl's model of a case, from seed 7, with Adam's slots made."""
    utils.set_random_seed(7)
    model = case.build(minidl_keras)
    model.optimizer.build(model.arena)
    return model


def masks_of_step(model, run, step):
    """minidl's dropout layers' names -> Keras's own masks of a step."""
    layers = [layer for layer in model.layers if isinstance(layer, Dropout)]
    return {layer.name: masks[step] for layer, masks in zip(layers, run.inside.masks.values(), strict=True)}


def own_step(model, case, run, step, dtype, *, from_keras):
    """minidl's training step with Keras's masks, from Keras's own state if from_keras; returns the penalties."""
    x, y, weights = case.data(dtype)
    if from_keras:
        model.set_weights(run.theta[step])
        for own, recorded in ((model.optimizer.m, run.m[step]), (model.optimizer.v, run.v[step])):
            for view, value in zip(model.arena.views(own), recorded, strict=True):
                view[...] = value
        model.optimizer.iterations = step
    for layer in model.layers:
        if isinstance(layer, Dropout):
            replay(layer, iter([masks_of_step(model, run, step)[layer.name]]))
    penalties = model.losses
    model.reset_metrics()
    training.train_step(model, x[step], y[step], None if weights is None else weights[step], check_finite=True)
    return penalties


def dense_layers(model):
    return [layer for layer in model.layers if isinstance(layer, Dense)]


def reference_step(model, case, run, step, dtype):
    """The balls of a step from Keras's own state."""
    x, y, weights = case.data(dtype)
    return second_step.training_step(
        model,
        x[step],
        y[step],
        weights=run.theta[step],
        m=run.m[step],
        v=run.v[step],
        step=step + 1,
        masks=masks_of_step(model, run, step),
        sample_weight=None if weights is None else weights[step],
    )
