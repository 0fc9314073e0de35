"""Learning rates that change: cosine decay after a warm-up, steps, and a callback's own rule."""

import keras
import numpy as np

keras.utils.set_random_seed(13)

rng = np.random.default_rng(13)
x = rng.normal(size=(96, 4))
y = x @ rng.normal(size=(4, 2))
cosine = keras.optimizers.schedules.CosineDecay(
    initial_learning_rate=0.0, decay_steps=12, alpha=0.1, warmup_target=0.02, warmup_steps=4
)
steps = keras.optimizers.schedules.PiecewiseConstantDecay([5, 10], [0.05, 0.02, 0.005])
exponential = keras.optimizers.schedules.ExponentialDecay(0.02, decay_steps=4, decay_rate=0.5, staircase=True)

result = {"weights": [], "rates": []}
for name, optimizer in (
    ("cosine", keras.optimizers.Adam(cosine)),
    ("steps", keras.optimizers.SGD(steps)),
    ("exponential", keras.optimizers.RMSprop(exponential)),
    ("callback", keras.optimizers.Adam(0.02)),
):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "softplus"), keras.layers.Dense(2)])
    model.compile(optimizer=optimizer, loss="mse")
    callbacks = []
    if name == "callback":
        callbacks = [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate if epoch < 1 else rate * 0.7)]
    history = model.fit(x, y, batch_size=16, epochs=3, callbacks=callbacks, verbose=0)
    result[name] = history.history
    result["weights"] += model.get_weights()
    result["rates"].append(float(model.optimizer.learning_rate))
result["history"] = result["cosine"]
result["schedule"] = [float(cosine(step)) for step in range(14)]
