"""A model written down and made again: summary, config, JSON, clone; the copy trains alike."""

import json

import keras
import numpy as np

keras.utils.set_random_seed(20)

rng = np.random.default_rng(20)
x = rng.normal(size=(60, 3))
y = rng.integers(0, 2, 60)

model = keras.Sequential(
    [
        keras.Input((3,)),
        keras.layers.Dense(5, activation="tanh", kernel_initializer=keras.initializers.HeUniform(seed=3)),
        keras.layers.Dropout(0.25, seed=5),
        keras.layers.Dense(2, activation="softmax", kernel_regularizer=keras.regularizers.L2(0.01)),
    ],
    name="written",
)
lines = []
model.summary(print_fn=lambda line, **_: lines.append(line))
copy = keras.Sequential.from_config(model.get_config())
copy.set_weights(model.get_weights())
again = keras.models.model_from_json(model.to_json())
clone = keras.models.clone_model(model)

result = {"weights": []}
for name, each in (("model", model), ("copy", copy), ("clone", clone)):
    each.compile(optimizer="sgd", loss="crossentropy", metrics=["acc"])
    history = each.fit(x, y, epochs=2, batch_size=12, shuffle=False, verbose=0)
    result[name] = history.history
    result["weights"] += each.get_weights()
result["history"] = result["model"]
result["summary"] = "".join(lines)
result["config"] = json.loads(json.dumps(model.get_config()["layers"][1]["config"]["kernel_initializer"]))
result["names"] = [layer.name for layer in again.layers]
result["classes"] = [type(layer).__name__ for layer in again.layers]
