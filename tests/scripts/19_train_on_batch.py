"""A training loop written by hand, with decoupled weight decay, clipped gradients and averaged weights."""

import keras
import numpy as np

keras.utils.set_random_seed(19)

rng = np.random.default_rng(19)
x = rng.normal(size=(96, 5))
y = np.stack([x[:, 0] - x[:, 1], np.abs(x[:, 2])], axis=1)

model = keras.Sequential(
    [keras.Input((5,)), keras.layers.Dense(10, "relu"), keras.layers.Dropout(0.1), keras.layers.Dense(2)]
)
optimizer = keras.optimizers.AdamW(
    learning_rate=0.01, weight_decay=0.02, global_clipnorm=0.5, use_ema=True, ema_momentum=0.8
)
optimizer.exclude_from_weight_decay(var_names=["bias"])
model.compile(optimizer=optimizer, loss="mse", metrics=["mae"])

logs = []
for _ in range(3):
    order = np.random.permutation(len(x))
    model.reset_metrics()
    for start in range(0, len(x), 32):
        rows = order[start : start + 32]
        logs.append(model.train_on_batch(x[rows], y[rows], return_dict=True))
    logs.append(model.test_on_batch(x, y, return_dict=True))

raw = model.get_weights()
optimizer.finalize_variable_values(model.trainable_variables)

result = {
    "history": {name: [log[name] for log in logs] for name in logs[0]},
    "raw": raw,
    "weights": model.get_weights(),
    "iterations": int(optimizer.iterations),
    "outputs": np.asarray(model.predict_on_batch(x[:4])),
}
