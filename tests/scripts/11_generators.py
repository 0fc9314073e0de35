"""Batches that are made while training: a generator with a number of steps, and a PyDataset."""

import math

import keras
import numpy as np

keras.utils.set_random_seed(11)

rng = np.random.default_rng(11)
x = rng.normal(size=(70, 4))
y = (x.sum(axis=1) > 0).astype("float32")[:, None]


def batches(size):
    while True:
        for start in range(0, len(x) - size + 1, size):
            yield x[start : start + size], y[start : start + size]


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, batch_size, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y, self.batch_size = x, y, batch_size

    def __len__(self):
        return math.ceil(len(self.x) / self.batch_size)

    def __getitem__(self, index):
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return self.x[rows], self.y[rows]


model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(1, "sigmoid")])
model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
from_generator = model.fit(
    batches(10),
    steps_per_epoch=5,
    epochs=3,
    shuffle=False,
    validation_data=batches(14),
    validation_steps=2,
    verbose=0,
)
from_dataset = model.fit(Batches(x, y, 16), epochs=2, shuffle=False, validation_data=Batches(x, y, 30), verbose=0)

result = {
    "history": from_generator.history,
    "from dataset": from_dataset.history,
    "weights": model.get_weights(),
    "evaluated": model.evaluate(Batches(x, y, 20), verbose=0),
    "predicted": model.predict(batches(10), steps=3, verbose=0),
}
