"""Two classes from eight measurements, with a validation set."""

import keras
import numpy as np

keras.utils.set_random_seed(1)

rng = np.random.default_rng(1)
x = rng.normal(size=(160, 8))
y = (x[:, 0] + 0.5 * x[:, 1] ** 2 + 0.3 * rng.normal(size=160) > 0.4).astype("int32")
x_train, y_train, x_val, y_val = x[:120], y[:120], x[120:], y[120:]

model = keras.Sequential(
    [
        keras.Input(shape=(8,)),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(learning_rate=0.01),
    loss="binary_crossentropy",
    metrics=["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.Precision(), keras.metrics.Recall()],
)
history = model.fit(x_train, y_train, batch_size=32, epochs=4, validation_data=(x_val, y_val), verbose=0)
loss, accuracy, *_ = model.evaluate(x_val, y_val, verbose=0)

result = {
    "history": history.history,
    "weights": model.get_weights(),
    "loss": loss,
    "accuracy": accuracy,
    "predictions": model.predict(x_val, verbose=0),
    "parameters": model.count_params(),
}
