"""RMSprop has its ε inside the root, unlike Adam and unlike PyTorch.

Report: tensorflow/tensorflow#58412, keras-team/keras#435, pytorch/pytorch#23796

Keras: divides by √(v + ε).

Oracle: right; and an RMSprop with √v + ε is named by it: weight, in the first step.
"""

from cases import keras, np, oracle, right, run, sequential, started


def built():
    started()
    model = sequential(keras.layers.Dense(1, kernel_initializer="ones"))
    model.compile(keras.optimizers.RMSprop(0.01, epsilon=1e-3), "mse")
    return model


def show():
    x = np.array([[1.0], [2.0]], "float32")
    right(built(), x, 0 * x)
    rmsprop, ops = keras.optimizers.RMSprop, keras.ops
    plain = rmsprop.update_step

    def outside(self, gradient, variable, learning_rate):
        v = self._velocities[self._get_variable_index(variable)]
        self.assign(v, self.rho * v + (1 - self.rho) * ops.square(gradient))
        self.assign_sub(variable, learning_rate * gradient / (ops.sqrt(v) + self.epsilon))

    rmsprop.update_step = outside
    try:
        first = oracle.check(built(), x, 0 * x, drift=False).first_divergence
    finally:
        rmsprop.update_step = plain
    assert (first.quantity, first.tensor, first.step) == ("weight", "dense/kernel", 0)
    return f"first divergence of the other: {first.quantity} {first.tensor}, step {first.step}"


if __name__ == "__main__":
    run(__file__)
