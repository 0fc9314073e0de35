"""Compiled by XLA: the same program, other dropout masks."""

import keras
import numpy as np

keras.utils.set_random_seed(21)

rng = np.random.default_rng(21)
x = rng.normal(size=(64, 4))
y = rng.integers(0, 2, 64)

model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu", kernel_regularizer="l1"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"], jit_compile=True)
history = model.fit(x, y, epochs=3, batch_size=32, verbose=0)

result = {"history": history.history, "weights": model.get_weights()}
