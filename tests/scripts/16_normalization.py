"""Normalized layers: of batches before a leaky ReLU, and of samples after a GELU."""

import keras
import numpy as np

keras.utils.set_random_seed(16)

rng = np.random.default_rng(16)
x = rng.normal(2.0, 3.0, size=(150, 7))
y = rng.integers(0, 3, 150)

batch_model = keras.Sequential([keras.Input((7,))])
for units in (16, 8):
    batch_model.add(keras.layers.Dense(units, use_bias=False))
    batch_model.add(keras.layers.BatchNormalization(momentum=0.9))
    batch_model.add(keras.layers.LeakyReLU(negative_slope=0.1))
    batch_model.add(keras.layers.Dropout(0.3))
batch_model.add(keras.layers.Dense(3, activation="softmax"))

layer_model = keras.Sequential(
    [
        keras.Input((7,)),
        keras.layers.Dense(16, activation="gelu"),
        keras.layers.LayerNormalization(),
        keras.layers.Dense(8),
        keras.layers.PReLU(),
        keras.layers.Dense(3, activation="softmax"),
    ]
)

result = {"weights": []}
for name, model in (("batch", batch_model), ("layer", layer_model)):
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, epochs=3, batch_size=40, validation_split=0.2, verbose=0)
    result[name] = history.history
    result["weights"] += model.get_weights()
    result[name + " in training"] = np.asarray(model(x[:8], training=False))
result["history"] = result["batch"]
result["trainable"] = [len(batch_model.trainable_weights), len(batch_model.non_trainable_weights)]
