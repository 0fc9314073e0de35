"""An activation, an initializer and a constraint of one's own."""

import keras
import numpy as np

keras.utils.set_random_seed(23)

ops = keras.ops


def squared_relu(x):
    return ops.square(ops.maximum(x, 0.0))


squared_relu.gradient = lambda x: 2 * np.maximum(x, 0)  # for minidl; Keras differentiates for itself


class Diagonal(keras.initializers.Initializer):
    """Ones on the diagonal, and a little noise."""

    def __init__(self, stddev):
        self.stddev = stddev

    def __call__(self, shape, dtype=None):
        noise = keras.random.normal(shape, stddev=self.stddev, dtype=dtype, seed=4)
        return ops.eye(*shape, dtype=dtype) + noise


class ColumnsSumToOne(keras.constraints.Constraint):
    def __call__(self, w):
        w = ops.abs(w)
        return w / ops.sum(w, axis=0, keepdims=True)


rng = np.random.default_rng(23)
x = rng.normal(size=(80, 5))
y = np.abs(x).sum(axis=1, keepdims=True)

model = keras.Sequential(
    [
        keras.Input((5,)),
        keras.layers.Dense(8, activation=squared_relu, kernel_initializer=Diagonal(0.1)),
        keras.layers.Dense(6, kernel_constraint=ColumnsSumToOne()),
        keras.layers.Activation(squared_relu),
        keras.layers.Dense(1, bias_initializer=lambda shape, dtype: np.full(shape, 0.5)),
    ]
)
model.compile(optimizer=keras.optimizers.RMSprop(0.003, centered=True), loss="log_cosh", metrics=["msle"])
history = model.fit(x, y, batch_size=16, epochs=3, validation_split=0.2, verbose=0)

result = {
    "history": history.history,
    "weights": model.get_weights(),
    "sums": model.layers[1].get_weights()[0].sum(axis=0),
}
