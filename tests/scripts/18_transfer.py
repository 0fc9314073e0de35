"""Learn on one task, freeze what was learned, put a new head on it, then thaw and fine-tune."""

import keras
import numpy as np

keras.utils.set_random_seed(18)

rng = np.random.default_rng(18)
x = rng.normal(size=(100, 6))
y_first, y_second = x[:, 0] * x[:, 1], (x[:, 0] * x[:, 1] > 0).astype("float32")

base = keras.Sequential(
    [keras.Input((6,)), keras.layers.Dense(12, "relu", name="one"), keras.layers.Dense(6, "relu", name="two")],
    name="base",
)
model = keras.Sequential([base, keras.layers.Dense(1)])
model.compile(optimizer="adam", loss="mse")
first = model.fit(x, y_first, epochs=2, verbose=0)

base.trainable = False
new = keras.Sequential([base, keras.layers.Dense(1, activation="sigmoid", name="head")])
new.compile(optimizer=keras.optimizers.Adam(0.01), loss="binary_crossentropy", metrics=["accuracy"])
before = base.get_weights()
second = new.fit(x, y_second, epochs=2, verbose=0)
unchanged = all(np.array_equal(a, b) for a, b in zip(before, base.get_weights(), strict=True))
frozen = len(new.trainable_weights), len(new.non_trainable_weights)

base.trainable = True
base.get_layer("one").trainable = False
new.compile(optimizer=keras.optimizers.Adam(0.001), loss="binary_crossentropy", metrics=["accuracy"])
third = new.fit(x, y_second, epochs=2, verbose=0)

result = {
    "history": first.history,
    "second": second.history,
    "third": third.history,
    "unchanged": unchanged,
    "frozen": list(frozen),
    "thawed": [len(new.trainable_weights), len(new.non_trainable_weights)],
    "weights": new.get_weights() + base.get_layer("two").get_weights(),
}
