"""The over-fitting study: one net that is too large for its data, plain and with L1, L2 and dropout, many seeds.

4 – 64 – 64 – 1 units, 4545 parameters, learn the sex of penguins from 60 birds. What each regularizer is worth
shows in the gap between the loss on these birds and the loss on birds that the net never saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import callbacks, datasets, keras, losses, many, metrics
from minidl.backend import Array
from minidl.utils import set_random_seed

UNITS = 64
TRAIN_BIRDS = 60  # the first of the 267, so few that the net learns them by heart; the others serve to choose λ
BATCH_SIZE = 32
EPOCHS = 300
NEAR_ZERO = 1e-2

# Each λ is the one of {0.001, 0.003, 0.01, 0.03, 0.1} with the lowest loss after the last epoch on the 207 training
# birds that the study does not train on (seeds 100–102). The validation birds had no part in the choice.
L1_FACTOR = 0.01
L2_FACTOR = 0.03
DROPOUT_RATE = 0.5


@dataclass(frozen=True)
class Variant:
    """One way to build the net: a penalty on each layer's kernel, or dropout after each hidden layer."""

    title: str
    kernel_regularizer: Any = None
    dropout_rate: float | None = None


VARIANTS = {
    "plain": Variant("plain"),
    "l1": Variant(f"L1, λ = {L1_FACTOR:g}", kernel_regularizer=keras.regularizers.L1(L1_FACTOR)),
    "l2": Variant(f"L2, λ = {L2_FACTOR:g}", kernel_regularizer=keras.regularizers.L2(L2_FACTOR)),
    "dropout": Variant(f"dropout, rate {DROPOUT_RATE:g}", dropout_rate=DROPOUT_RATE),
}

SETUP = (
    f"A net of 4 – {UNITS} – {UNITS} – 1 units, Adam, {EPOCHS} epochs in batches of {BATCH_SIZE}: trained on the "
    f"first {TRAIN_BIRDS} of the 267 training penguins, validated on the 66 test penguins. The penalties' λ were "
    f"chosen by the loss on the other 207 training penguins; the dropout rate was not tuned. A loss is the mean "
    f"binary cross-entropy at inference, in nats, without the penalty."
)


@dataclass(frozen=True)
class Split:
    """The birds to train on and those to validate on: x (birds, 4), standardized by the training birds; y (birds,)."""

    x_train: Array
    y_train: Array
    x_validation: Array
    y_validation: Array


@dataclass(frozen=True)
class Runs:
    """All runs of one variant, S seeds of E epochs.

    train_loss, validation_loss (nats), validation_accuracy: (S, E), at inference after each epoch, without penalty.
    kernels: (S, 4416), the trained weights of all Dense layers without the biases.
    """

    title: str
    train_loss: Array
    validation_loss: Array
    validation_accuracy: Array
    kernels: Array

    @property
    def gap(self) -> Array:
        """validation loss − train loss after the last epoch, (S,): how much the net over-fits."""
        return self.validation_loss[:, -1] - self.train_loss[:, -1]

    @property
    def best_epoch(self) -> Array:
        """The epoch, counted from 1, with the lowest validation loss, (S,)."""
        return self.validation_loss.argmin(axis=1) + 1

    @property
    def near_zero(self) -> Array:
        """How many weights lie strictly within ±NEAR_ZERO, (S,)."""
        return (np.abs(self.kernels) < NEAR_ZERO).sum(axis=1)

    @property
    def exact_zeros(self) -> Array:
        """How many weights are exactly 0, (S,)."""
        return (self.kernels == 0).sum(axis=1)


Study = dict[str, Runs]


def load_split() -> Split:
    """The study's birds. The test birds of the data set are those to validate on."""
    (x_train, y_train), (x_test, y_test) = datasets.penguins.load_data()
    x_train, y_train = x_train[:TRAIN_BIRDS], y_train[:TRAIN_BIRDS]
    x_train, x_test = datasets.standardize(x_train, x_test)
    return Split(x_train, y_train, x_test, y_test)


def build(variant: Variant) -> keras.Sequential:
    """The compiled net of a variant."""
    layers: list[Any] = [keras.Input(shape=(4,))]
    for _ in range(2):
        layers.append(keras.layers.Dense(UNITS, activation="relu", kernel_regularizer=variant.kernel_regularizer))
        if variant.dropout_rate is not None:
            layers.append(keras.layers.Dropout(variant.dropout_rate))
    layers.append(keras.layers.Dense(1, activation="sigmoid", kernel_regularizer=variant.kernel_regularizer))
    model = keras.Sequential(layers)
    model.compile(optimizer="adam", loss="binary_crossentropy")
    return model


class Curves(callbacks.Callback):
    """Both losses without penalties, and the accuracy, at inference after each epoch."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.train_loss: list[float] = []
        self.validation_loss: list[float] = []
        self.validation_accuracy: list[float] = []

    def on_epoch_end(self, epoch: int, logs: callbacks.Logs | None = None) -> None:
        cross_entropy = losses.BinaryCrossentropy()
        accuracy = metrics.BinaryAccuracy()
        outputs = self.model.predict_on_batch(self.split.x_validation)
        accuracy.update_state(self.split.y_validation, outputs)
        self.train_loss.append(cross_entropy(self.split.y_train, self.model.predict_on_batch(self.split.x_train)))
        self.validation_loss.append(cross_entropy(self.split.y_validation, outputs))
        self.validation_accuracy.append(accuracy.result())


def train(variant: Variant, split: Split, *, seed: int, epochs: int) -> tuple[keras.Sequential, Curves]:
    """One run: everything random in it follows from the seed."""
    set_random_seed(seed)
    model, curves = build(variant), Curves(split)
    model.fit(split.x_train, split.y_train, batch_size=BATCH_SIZE, epochs=epochs, verbose=0, callbacks=[curves])
    return model, curves


def run(
    seeds: Sequence[int],
    *,
    epochs: int = EPOCHS,
    progress: Callable[[], None] = lambda: None,
    device: str = "cpu",
) -> Study:
    """Every variant with every seed; progress is called for each run, after it. On the CPU sets the global seeds.

    device: "gpu" trains all seeds of a variant in one launch, "auto" where there is a GPU: see many.fit_many. Losses
    are then taken from the logits, and agree to rounding. Errors: those of fit_many.
    """
    split = load_split()
    study: Study = {}
    for name, variant in VARIANTS.items():
        if device == "cpu":
            study[name] = _one_by_one(variant, split, seeds, epochs, progress)
        else:
            study[name] = _at_once(variant, split, seeds, epochs, device)
            for _ in seeds:
                progress()
    return study


def _one_by_one(
    variant: Variant, split: Split, seeds: Sequence[int], epochs: int, progress: Callable[[], None]
) -> Runs:
    curves, kernels = [], []
    for seed in seeds:
        model, curve = train(variant, split, seed=seed, epochs=epochs)
        curves.append(curve)
        kernels.append(kernel_weights(model))
        progress()
    return Runs(
        title=variant.title,
        train_loss=np.array([c.train_loss for c in curves]),
        validation_loss=np.array([c.validation_loss for c in curves]),
        validation_accuracy=np.array([c.validation_accuracy for c in curves]),
        kernels=np.array(kernels),
    )


def _at_once(variant: Variant, split: Split, seeds: Sequence[int], epochs: int, device: str) -> Runs:
    found = many.fit_many(
        lambda: build(variant),
        split.x_train,
        split.y_train,
        seeds=seeds,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        watch={"train": (split.x_train, split.y_train), "validation": (split.x_validation, split.y_validation)},
        device=device,
    )
    return Runs(
        title=variant.title,
        train_loss=found.history["train_loss"],
        validation_loss=found.history["validation_loss"],
        validation_accuracy=found.history["validation_accuracy"],
        kernels=np.array([kernel_weights(model) for model in found.models]),
    )


def kernel_weights(model: keras.Sequential) -> Array:
    """The weights of all kernels of a model in one flat copy."""
    return np.concatenate([layer.kernel.ravel() for layer in model.layers if hasattr(layer, "kernel")])
