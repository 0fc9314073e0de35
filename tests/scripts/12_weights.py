"""Rare cases that should count more: weights by class, then weights by sample and metrics that see them."""

import keras
import numpy as np

keras.utils.set_random_seed(12)

rng = np.random.default_rng(12)
x = rng.normal(size=(200, 5))
y = (x[:, 0] + x[:, 1] + 0.5 * rng.normal(size=200) > 1.8).astype(int)
counts = np.bincount(y)
class_weight = {0: 1.0 / counts[0] * 100, 1: 1.0 / counts[1] * 100}
sample_weight = np.where(y == 1, 4.0, 1.0) * rng.uniform(0.5, 1.5, 200)


def make_model():
    bias = keras.initializers.Constant(np.log(counts[1] / counts[0]))
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid", bias_initializer=bias),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adamax(0.01),
        loss="binary_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy", keras.metrics.FalseNegatives(name="missed")],
    )
    return model


by_class = make_model()
first = by_class.fit(x, y, epochs=3, batch_size=50, class_weight=class_weight, validation_split=0.2, verbose=0)
by_sample = make_model()
second = by_sample.fit(
    x,
    y,
    epochs=3,
    batch_size=50,
    sample_weight=sample_weight,
    validation_data=(x[:60], y[:60], sample_weight[:60]),
    verbose=0,
)

result = {
    "history": first.history,
    "by sample": second.history,
    "weights": by_class.get_weights() + by_sample.get_weights(),
    "evaluated": by_sample.evaluate(x, y, sample_weight=sample_weight, verbose=0, return_dict=True),
}
