"""Class numbers as labels, logits as outputs; a softmax put on top afterwards."""

import keras
import numpy as np

keras.utils.set_random_seed(3)

rng = np.random.default_rng(3)
y = rng.integers(0, 4, 128)
x = np.eye(4)[y] @ rng.normal(size=(4, 10)) + 0.5 * rng.normal(size=(128, 10))

model = keras.Sequential(
    [
        keras.layers.Dense(20, activation="elu"),
        keras.layers.Dense(4),
    ]
)
model.compile(
    optimizer="adam",
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=[keras.metrics.SparseCategoricalAccuracy(), "sparse_categorical_crossentropy"],
)
history = model.fit(x, y, epochs=4, batch_size=32, shuffle=True, verbose=0)

probability_model = keras.Sequential([model, keras.layers.Softmax()])

result = {
    "history": history.history,
    "weights": model.get_weights(),
    "probabilities": probability_model.predict(x[:5], verbose=0),
    "evaluated": model.evaluate(x, y, batch_size=50, verbose=0, return_dict=True),
}
