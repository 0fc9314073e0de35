"""Train, save, load, and train on as if nothing had happened."""

import keras
import numpy as np

keras.utils.set_random_seed(10)

rng = np.random.default_rng(10)
x = rng.normal(size=(64, 6))
y = rng.integers(0, 3, 64)

model = keras.Sequential(
    [
        keras.Input((6,)),
        keras.layers.Dense(12, activation="relu", kernel_regularizer="l2"),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(3, activation="softmax"),
    ]
)
model.compile(optimizer=keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
first = model.fit(x, y, epochs=2, batch_size=16, shuffle=False, verbose=0)
model.save("model.keras")

resumed = keras.models.load_model("model.keras")
second = resumed.fit(x, y, epochs=4, initial_epoch=2, batch_size=16, shuffle=False, verbose=0)
straight = model.fit(x, y, epochs=4, initial_epoch=2, batch_size=16, shuffle=False, verbose=0)

result = {
    "first": first.history,
    "second": second.history,
    "straight": straight.history,
    "epochs": second.epoch,
    "iterations": int(resumed.optimizer.iterations),
    "weights": resumed.get_weights(),
    "history": straight.history,
}
