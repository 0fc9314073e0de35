"""A deep stack of SELU layers with LeCun's initial weights and alpha dropout."""

import keras
import numpy as np

keras.utils.set_random_seed(17)

rng = np.random.default_rng(17)
x = rng.normal(size=(128, 10))
y = (np.sin(x[:, 0] * 2) + x[:, 1] > 0).astype("float32")

model = keras.Sequential([keras.Input((10,))])
for _ in range(4):
    model.add(keras.layers.Dense(12, activation="selu", kernel_initializer="lecun_normal"))
model.add(keras.layers.AlphaDropout(0.1))
model.add(keras.layers.Dense(1))
model.compile(
    optimizer=keras.optimizers.Adadelta(1.0),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.BinaryAccuracy(threshold=0.5)],
)
history = model.fit(x, y, epochs=3, batch_size=32, verbose=0)

result = {
    "history": history.history,
    "weights": model.get_weights(),
    "predictions": keras.activations.sigmoid(model.predict(x[:9], verbose=0)),
}
result["predictions"] = np.asarray(result["predictions"])
