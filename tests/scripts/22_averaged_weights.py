"""Large batches in small pieces: gradients summed over steps, weights averaged and swapped in to be validated."""

import keras
import numpy as np

keras.utils.set_random_seed(22)

rng = np.random.default_rng(22)
x = rng.normal(size=(96, 4))
y = np.exp(0.5 * x[:, 0])

model = keras.Sequential(
    [
        keras.layers.Dense(8, activation="mish"),
        keras.layers.GaussianDropout(0.1),
        keras.layers.Dense(1, activation="softplus"),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(
        0.02, amsgrad=True, clipvalue=0.5, gradient_accumulation_steps=2, use_ema=True, ema_momentum=0.9
    ),
    loss="poisson",
    metrics=["mape"],
    steps_per_execution=2,
)
history = model.fit(
    x,
    y,
    batch_size=12,
    epochs=4,
    validation_data=(x[:24], y[:24]),
    validation_freq=2,
    validation_batch_size=10,
    callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
    verbose=0,
)

result = {
    "history": history.history,
    "weights": model.get_weights(),
    "rate": model.predict(x[:5], batch_size=2, verbose=0),
}
