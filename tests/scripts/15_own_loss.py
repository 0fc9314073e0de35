"""A loss and a metric of one's own, as classes and as functions: prediction intervals by quantile regression."""

import keras
import numpy as np

keras.utils.set_random_seed(15)

ops = keras.ops


class PinballLoss(keras.losses.Loss):
    def __init__(self, quantile, name="pinball", **kwargs):
        super().__init__(name=name, **kwargs)
        self.quantile = quantile

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return ops.mean(ops.maximum(self.quantile * error, (self.quantile - 1) * error), axis=-1)

    def gradient(self, y_true, y_pred):  # for minidl; Keras differentiates for itself
        return np.where(y_true > y_pred, -self.quantile, 1 - self.quantile) / y_pred.shape[-1]


def quartic(y_true, y_pred):
    return ops.mean(ops.power(y_pred - y_true, 4), axis=-1)


quartic.gradient = lambda y_true, y_pred: 4 * (y_pred - y_true) ** 3 / y_pred.shape[-1]


class Coverage(keras.metrics.Metric):
    """The share of labels below the prediction."""

    def __init__(self, name="coverage", **kwargs):
        super().__init__(name=name, **kwargs)
        self.below = self.add_variable(shape=(), initializer="zeros", name="below")
        self.total = self.add_weight(name="total", shape=(), initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        below = ops.cast(ops.less(y_true, y_pred), self.dtype)
        self.below.assign(self.below + ops.sum(below))
        self.total.assign_add(ops.cast(ops.shape(y_true)[0], self.dtype))

    def result(self):
        return self.below / ops.maximum(self.total, 1.0)


def largest_error(y_true, y_pred):
    return ops.max(ops.abs(y_true - y_pred), axis=-1)


class GaussianLikelihood(keras.losses.Loss):
    """Of two outputs, a mean and the logarithm of a variance, for one label."""

    def call(self, y_true, y_pred):
        mean, log_variance = y_pred[:, :1], y_pred[:, 1:]
        return ops.mean(log_variance + ops.square(y_true - mean) * ops.exp(-log_variance), axis=-1)

    def gradient(self, y_true, y_pred):
        error, precision = y_pred[:, :1] - y_true, np.exp(-y_pred[:, 1:])
        return np.concatenate([2 * error * precision, 1 - error**2 * precision], axis=-1)


rng = np.random.default_rng(15)
x = rng.uniform(-1, 1, size=(120, 2))
y = (x[:, 0] ** 2 + 0.2 * rng.normal(size=120))[:, None]

result = {"weights": []}
for name, loss in (("upper", PinballLoss(0.9)), ("lower", PinballLoss(0.1, reduction="sum")), ("mean", quartic)):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss, metrics=[Coverage(), largest_error, "mae"])
    history = model.fit(x, y, epochs=3, batch_size=30, sample_weight=np.linspace(0.5, 1.5, 120), verbose=0)
    result[name] = history.history
    result["weights"] += model.get_weights()

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(2)])
model.compile(optimizer=keras.optimizers.Adam(0.01), loss=GaussianLikelihood())
result["likelihood"] = model.fit(x, y, epochs=3, batch_size=30, validation_split=0.2, verbose=0).history
result["weights"] += model.get_weights()
result["history"] = result["upper"]
