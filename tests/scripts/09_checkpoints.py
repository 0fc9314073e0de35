"""The best model of each run kept in a file, and the run's numbers in a table."""

import csv
import os

import keras
import numpy as np

keras.utils.set_random_seed(9)

rng = np.random.default_rng(9)
x = rng.normal(size=(100, 5))
y = np.sin(x[:, 0]) + 0.1 * rng.normal(size=100)

model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(10, "relu"), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mae")
history = model.fit(
    x,
    y,
    epochs=5,
    validation_split=0.2,
    callbacks=[
        keras.callbacks.ModelCheckpoint("best.keras", monitor="val_loss", save_best_only=True),
        keras.callbacks.ModelCheckpoint("weights-{epoch:02d}.weights.h5", save_weights_only=True),
        keras.callbacks.CSVLogger("log.csv"),
    ],
    verbose=0,
)
best = keras.models.load_model("best.keras")
last = model.get_weights()
model.load_weights("weights-02.weights.h5")

with open("log.csv") as file:
    rows = list(csv.DictReader(file))

result = {
    "history": history.history,
    "files": sorted(os.listdir(".")),
    "best": best.get_weights(),
    "best loss": best.evaluate(x[80:], y[80:], verbose=0),
    "second epoch": model.get_weights(),
    "weights": last,
    "columns": list(rows[0]),
    "logged": [float(row["val_loss"]) for row in rows],
}
