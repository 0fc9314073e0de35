"""Record what Keras does in its own fit: python -m minidl.oracle.notebook_record writes the shipped traces.

Two runs from one seed. The first is plain: callbacks read the weights and Adam's slots between the steps, which
changes nothing. The second also looks inside the steps, at each batch and each dropout mask; that it is the same
run is checked, not assumed: its weights must equal the first run's bit for bit, after every step.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.oracle.trace import Trace, save

DETAILED_STEPS = 180  # steps whose weights and slots are kept: twenty epochs of the penguins


def keras_on_tensorflow() -> tuple[Any, Any]:
    """The modules keras and tensorflow. Errors: ImportError, naming the extra, if one is missing."""
    import os

    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import keras
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(f"Live Keras is not installed ({error}). Run: pip install 'minidl[keras]'") from error
    if keras.backend.backend() != "tensorflow":
        raise ImportError(f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow.")
    return keras, tf


def record(
    build: Callable[[Any], Any],
    x: Array,
    y: Array,
    *,
    validation_data: tuple[Array, Array] | None,
    epochs: int,
    batch_size: int,
    seed: int,
    detailed_steps: int = DETAILED_STEPS,
) -> Trace:
    """Train build(keras) twice and record it. The rows of x must differ, so that a batch tells its rows.

    Errors: ImportError without Keras; ValueError for equal rows; RuntimeError if the two runs differ in a bit.
    """
    keras, tf = keras_on_tensorflow()
    if len(np.unique(x, axis=0)) != len(x):
        raise ValueError("record: the rows of x must differ from each other, so that a batch tells its rows.")

    def run(inside: Inside | None) -> tuple[_States, Any]:
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(seed)
        model = build(keras)
        states = _States(keras, model)
        if inside is not None:
            inside.watch(model)
        history = model.fit(
            x, y, batch_size=batch_size, epochs=epochs, validation_data=validation_data, verbose=0,
            callbacks=[states.callback],
        )  # fmt: skip
        states.tensors = _tensor_names(model)
        return states, history.history

    states, history = run(None)
    with Inside(keras, tf) as inside:
        watched, _ = run(inside)
    if not np.array_equal(states.theta, watched.theta):
        raise RuntimeError("record: the run that was looked into differs from the plain run; nothing is recorded.")

    steps_per_epoch = -(-len(x) // batch_size)
    ends = np.arange(1, epochs + 1) * steps_per_epoch  # states.theta[0] is before the first step
    detailed = slice(1, 1 + detailed_steps)
    return Trace(
        versions={
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        settings={"seed": seed, "epochs": epochs, "batch_size": batch_size, "samples": len(x)},
        tensors=states.tensors,
        history={name: [float(v) for v in values] for name, values in history.items()},
        orders=_orders(x, inside.batches, epochs),
        masks={name: _stacked(masks, batch_size) for name, masks in inside.masks.items()},
        theta_start=states.theta[0],
        step_theta=states.theta[detailed],
        step_m=states.m[detailed],
        step_v=states.v[detailed],
        epoch_theta=states.theta[ends],
        epoch_m=states.m[ends],
        epoch_v=states.v[ends],
    )


class _States:
    """The weights and slots of a Keras model before the first step and after each, flat."""

    def __init__(self, keras: Any, model: Any) -> None:
        self._theta = [_flat(model.trainable_variables)]
        self._m = [np.zeros_like(self._theta[0])]
        self._v = [np.zeros_like(self._theta[0])]
        self.tensors: list[tuple[str, tuple[int, ...]]] = []

        def after_step(batch: int, logs: Any) -> None:
            slots = model.optimizer.variables[2:]  # after the iteration and the learning rate: m, v, m, v, …
            self._theta.append(_flat(model.trainable_variables))
            self._m.append(_flat(slots[0::2]))
            self._v.append(_flat(slots[1::2]))

        self.callback = keras.callbacks.LambdaCallback(on_train_batch_end=after_step)

    @property
    def theta(self) -> Array:
        return np.array(self._theta)

    @property
    def m(self) -> Array:
        return np.array(self._m)

    @property
    def v(self) -> Array:
        return np.array(self._v)


class Inside:
    """While open, sees the inside of every training step of the models that it watches, in graph or eager mode.

    Lists with one entry a step: batches (x), losses, penalties (of each regularizer), gradients (of each weight);
    masks: dropout layer -> the masks (True = kept); activations: dense layer -> the outputs.
    """

    def __init__(self, keras: Any, tf: Any) -> None:
        self.keras, self.tf = keras, tf
        self.batches: list[Array] = []
        self.losses: list[Array] = []
        self.penalties: list[list[Array]] = []
        self.gradients: list[list[Array]] = []
        self.masks: dict[str, list[Array]] = {}
        self.activations: dict[str, list[Array]] = {}
        self.in_training_step = False

    def __enter__(self) -> Inside:
        self.plain_calls = {layer: layer.call for layer in (self.keras.layers.Dropout, self.keras.layers.Dense)}
        self.keras.layers.Dropout.call = self._dropout_call(self.keras.layers.Dropout.call)
        self.keras.layers.Dense.call = self._dense_call(self.keras.layers.Dense.call)
        return self

    def __exit__(self, *exception: object) -> None:
        for layer, call in self.plain_calls.items():
            layer.call = call

    def note(self, function: Callable[..., None], *tensors: Any) -> None:
        """Have the compiled step call function with the tensors' values each time that it runs."""
        self.tf.numpy_function(function, list(tensors), [])

    def watch(self, model: Any) -> None:
        """Note what passes through the model's own methods: batch, loss, penalties and gradients."""
        plain_step, plain_loss, plain_update = model.train_step, model.compute_loss, model.optimizer.apply_gradients

        def train_step(data: Any) -> Any:
            self.note(lambda x: self.batches.append(np.array(x)), data[0])
            self.in_training_step = True
            try:
                return plain_step(data)
            finally:
                self.in_training_step = False

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            loss = plain_loss(*args, **kwargs)
            if self.in_training_step:
                self.note(lambda value: self.losses.append(value), loss)
                self.note(lambda *values: self.penalties.append(list(values)), *model.losses)
            return loss

        def apply_gradients(gradients_and_variables: Any) -> Any:
            pairs = list(gradients_and_variables)
            self.note(lambda *values: self.gradients.append([np.array(v) for v in values]), *[g for g, _ in pairs])
            return plain_update(pairs)

        model.train_step, model.compute_loss = train_step, compute_loss
        model.optimizer.apply_gradients = apply_gradients

    def _dense_call(self, plain_call: Callable[..., Any]) -> Callable[..., Any]:
        inside = self

        def call(layer: Any, inputs: Any, training: Any = None) -> Any:
            outputs = plain_call(layer, inputs, training=training)
            if inside.in_training_step:
                seen = inside.activations.setdefault(layer.name, [])
                inside.note(lambda value: seen.append(np.array(value)), outputs)
            return outputs

        return call

    def _dropout_call(self, plain_call: Callable[..., Any]) -> Callable[..., Any]:
        """Dropout.call that also draws the mask again, from the seed state that the call is about to use."""
        tf, inside = self.tf, self

        def call(layer: Any, inputs: Any, training: bool = False) -> Any:
            if not (training and inside.in_training_step and layer.rate > 0):
                return plain_call(layer, inputs, training=training)
            seed = tf.cast(tf.math.floormod(tf.identity(layer.seed_generator.state), tf.int32.max - 1), tf.int32)
            outputs = plain_call(layer, inputs, training=training)
            kept = tf.nn.experimental.stateless_dropout(tf.ones_like(inputs), layer.rate, seed=seed)
            again = tf.nn.experimental.stateless_dropout(inputs, layer.rate, seed=seed)
            seen = inside.masks.setdefault(layer.name, [])

            def note(kept: Array, outputs: Array, again: Array) -> None:
                if not np.array_equal(outputs, again):
                    raise RuntimeError(f"record: the mask of {layer.name} could not be drawn again.")
                seen.append(kept != 0)

            inside.note(note, kept, outputs, again)
            return outputs

        return call


def _flat(variables: Any) -> Array:
    return np.concatenate([variable.numpy().ravel() for variable in variables])


def _tensor_names(model: Any) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (f"{layer.name}/{variable.name}", tuple(variable.shape))
        for layer in model.layers
        for variable in layer.trainable_variables
    ]


def _orders(x: Array, batches: list[Array], epochs: int) -> Array:
    """The row numbers of the batches, (epochs, samples)."""
    row_of = {row.tobytes(): number for number, row in enumerate(x)}
    rows = [row_of[row.tobytes()] for batch in batches for row in batch]
    return np.array(rows, np.int16 if len(x) < 2**15 else np.int64).reshape(epochs, len(x))


def _stacked(masks: list[Array], batch_size: int) -> Array:
    """Masks as one array of uint8, 255 in the rows that a partial batch does not have."""
    stacked = np.full((len(masks), batch_size, masks[0].shape[1]), 255, np.uint8)
    for step, mask in enumerate(masks):
        stacked[step, : len(mask)] = mask
    return stacked


def main() -> None:
    """Record the notebook's two models into minidl/data."""
    from minidl.oracle import notebook

    for name, file in notebook.FILES.items():
        trace = notebook.record_live(name)
        path = Path(__file__).parents[1] / "data" / file
        save(trace, path)
        print(f"{name}: {path.name}, {path.stat().st_size / 1024:.0f} KiB, made with {trace.versions}")


if __name__ == "__main__":
    main()
