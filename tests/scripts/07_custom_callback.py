"""A callback of one's own: what it is told, in which order, and a target that stops training."""

import keras
import numpy as np

keras.utils.set_random_seed(7)


class StopAt(keras.callbacks.Callback):
    def __init__(self, target):
        super().__init__()
        self.target = target
        self.calls = []
        self.batch_losses = []

    def on_train_begin(self, logs=None):
        self.calls.append(f"train begin {sorted(self.params)}")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch} begins")

    def on_train_batch_end(self, batch, logs=None):
        self.batch_losses.append(logs["loss"])

    def on_test_begin(self, logs=None):
        self.calls.append("test begin")

    def on_test_batch_end(self, batch, logs=None):
        self.calls.append(f"test batch {batch}: {sorted(logs)}")

    def on_predict_end(self, logs=None):
        self.calls.append("predict end")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch} ends: {list(logs)}")
        if logs["val_loss"] < self.target:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.calls.append("train end")


rng = np.random.default_rng(7)
x = rng.uniform(-1, 1, size=(90, 3))
y = np.prod(x, axis=1)

model = keras.Sequential([keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adagrad(0.05), loss="mean_squared_error")
stopper = StopAt(target=0.05)
losses = []
printer = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(logs["loss"]))
history = model.fit(x, y, batch_size=20, epochs=6, validation_split=0.3, callbacks=[stopper, printer], verbose=0)
model.evaluate(x, y, batch_size=45, callbacks=[stopper], verbose=0)
model.predict(x, callbacks=[stopper], verbose=0)

result = {
    "history": history.history,
    "epochs": history.epoch,
    "weights": model.get_weights(),
    "calls": stopper.calls,
    "batch losses": stopper.batch_losses,
    "losses": losses,
}
