"""Penalties and bounds on weights: a regularizer of one's own, Keras's, and constraints."""

import keras
import numpy as np

keras.utils.set_random_seed(14)


class SmoothL1(keras.regularizers.Regularizer):
    """factor · Σ √(w² + 0.01), round at 0."""

    def __init__(self, factor=0.01):
        self.factor = factor

    def __call__(self, weights):
        return self.factor * keras.ops.sum(keras.ops.sqrt(keras.ops.square(weights) + 0.01))

    def gradient(self, weights):  # for minidl; Keras differentiates for itself
        return self.factor * weights / np.sqrt(np.square(weights) + 0.01)

    def get_config(self):
        return {"factor": self.factor}


rng = np.random.default_rng(14)
x = rng.normal(size=(80, 6))
y = x[:, :1] - 2 * x[:, 1:2]

model = keras.Sequential(
    [
        keras.Input((6,)),
        keras.layers.Dense(8, "relu", kernel_regularizer=SmoothL1(0.02), kernel_constraint="unit_norm"),
        keras.layers.Dense(
            8,
            "relu",
            kernel_regularizer=keras.regularizers.L1L2(l1=1e-3, l2=1e-2),
            bias_regularizer="l2",
            activity_regularizer=keras.regularizers.L2(1e-3),
            kernel_constraint=keras.constraints.MaxNorm(1.5, axis=0),
        ),
        keras.layers.Dense(
            4, kernel_regularizer=keras.regularizers.OrthogonalRegularizer(0.02), bias_constraint="non_neg"
        ),
        keras.layers.Dense(1, kernel_constraint=keras.constraints.MinMaxNorm(0.2, 1.0, rate=0.9)),
    ]
)
model.compile(optimizer=keras.optimizers.SGD(0.02, momentum=0.8), loss="mse", metrics=["mse"])
history = model.fit(x, y, epochs=4, batch_size=20, verbose=0)

result = {
    "history": history.history,
    "weights": model.get_weights(),
    "penalty": float(model.layers[0].kernel_regularizer(model.layers[0].get_weights()[0])),
    "norms": np.linalg.norm(model.layers[0].get_weights()[0], axis=0),
}
