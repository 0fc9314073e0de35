"""The notebook's two models on the penguins: the case that the demo, the tests and the recorded traces share."""

from __future__ import annotations

from typing import Any

from minidl import datasets
from minidl.backend import Array
from minidl.oracle.trace import Trace, load

EPOCHS = 100
BATCH_SIZE = 32
SEED = 2  # with most seeds, penalties of 0.1 drive the first model to a constant prediction; with this one it learns


def build_without_dropout(keras: Any) -> Any:
    """The first model: L1 on the first hidden layer, L2 on the second. keras: minidl.keras or the real one."""
    return _compiled(
        keras,
        keras.layers.Dense(4, activation="relu", kernel_regularizer=keras.regularizers.l1(l1=0.1)),
        keras.layers.Dense(4, activation="relu", kernel_regularizer=keras.regularizers.l2(l2=0.1)),
        keras.layers.Dense(1, activation="sigmoid"),
    )


def build_with_dropout(keras: Any) -> Any:
    """The second model: the first with dropout after each hidden layer. keras: minidl.keras or the real one."""
    return _compiled(
        keras,
        keras.layers.Dense(4, activation="relu", kernel_regularizer=keras.regularizers.l1(l1=0.1)),
        keras.layers.Dropout(rate=0.8),
        keras.layers.Dense(4, activation="relu", kernel_regularizer=keras.regularizers.l2(l2=0.1)),
        keras.layers.Dropout(rate=0.5),
        keras.layers.Dense(1, activation="sigmoid"),
    )


def _compiled(keras: Any, *layers: Any) -> Any:
    model = keras.models.Sequential([keras.layers.Input(shape=(4,)), *layers])
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


MODELS = {"L1 and L2": build_without_dropout, "L1, L2 and dropout": build_with_dropout}
FILES = {"L1 and L2": "keras-trace-l1-l2.npz", "L1, L2 and dropout": "keras-trace-l1-l2-dropout.npz"}


def data() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(x_train, y_train), (x_test, y_test): the penguins, standardized by the training birds."""
    (x_train, y_train), (x_test, y_test) = datasets.penguins.load_data()
    x_train, x_test = datasets.standardize(x_train, x_test)
    return (x_train, y_train), (x_test, y_test)


def recorded(name: str) -> Trace:
    """The trace of a model of MODELS that ships with minidl."""
    from importlib.resources import as_file, files

    with as_file(files("minidl") / "data" / FILES[name]) as path:
        return load(path)


def record_live(name: str) -> Trace:
    """The trace of a model of MODELS, made now. Errors: ImportError, naming the extra, without Keras."""
    from minidl.oracle.notebook_record import record

    (x, y), validation = data()
    return record(MODELS[name], x, y, validation_data=validation, epochs=EPOCHS, batch_size=BATCH_SIZE, seed=SEED)
