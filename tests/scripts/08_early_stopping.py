"""Stop when the validation loss no longer falls, and keep the best weights; slow down on plateaus."""

import keras
import numpy as np

keras.utils.set_random_seed(8)

rng = np.random.default_rng(8)
x = rng.normal(size=(60, 10))
y = (x[:, 0] + rng.normal(size=60) > 0).astype(float)

model = keras.Sequential(
    [
        keras.Input((10,)),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(optimizer=keras.optimizers.Adam(0.02), loss="binary_crossentropy", metrics=["accuracy"])
early = keras.callbacks.EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)
plateau = keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=1, min_lr=1e-4)
history = model.fit(
    x,
    y,
    epochs=12,
    batch_size=15,
    validation_split=0.33,
    callbacks=[early, plateau, keras.callbacks.TerminateOnNaN()],
    verbose=0,
)

result = {
    "history": history.history,
    "stopped": early.stopped_epoch,
    "best": early.best_epoch,
    "weights": model.get_weights(),
    "learning rate": float(model.optimizer.learning_rate),
    "evaluated": model.evaluate(x, y, verbose=0),
}
