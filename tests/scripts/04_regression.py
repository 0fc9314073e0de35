"""A number from raw measurements: a Normalization layer learns their means and variances first."""

import keras
import numpy as np

keras.utils.set_random_seed(4)

rng = np.random.default_rng(4)
features = np.stack([rng.normal(3000, 800, 200), rng.normal(100, 30, 200), rng.normal(15, 3, 200)], axis=1)
target = 45 - 0.005 * features[:, 0] - 0.05 * features[:, 1] + 0.2 * features[:, 2] + rng.normal(size=200)
train, test = slice(0, 160), slice(160, 200)

normalizer = keras.layers.Normalization(axis=-1)
normalizer.adapt(features[train])

model = keras.Sequential(
    [
        normalizer,
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile(
    loss=keras.losses.Huber(delta=2.0),
    optimizer=keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    metrics=["mae", "mse", keras.metrics.RootMeanSquaredError(), keras.metrics.R2Score()],
)
history = model.fit(features[train], target[train], epochs=4, validation_split=0.25, verbose=0)

result = {
    "history": history.history,
    "weights": model.get_weights(),
    "mean": np.asarray(normalizer.mean),
    "test": model.evaluate(features[test], target[test], verbose=0),
    "predictions": model.predict(features[test], verbose=0).flatten(),
}
