"""Which ε is Adam's epsilon?

Report: keras-team/keras#17391

Keras: takes the ε̂ of the paper's remark before its section 2.1, added to √v before the bias is corrected, and not
the ε of its algorithm 1.

Oracle: right; an Adam by algorithm 1 is named by it: weight, in the first step.
"""

from cases import keras, np, oracle, right, run, sequential, started


def built():
    started()
    model = sequential(keras.layers.Dense(1), inputs=3)
    model.compile(keras.optimizers.Adam(0.01, epsilon=1e-3), "mse")
    return model


def show():
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    right(built(), x, x[:, :1])
    plain = keras.optimizers.Adam.update_step

    def algorithm_1(self, gradient, variable, learning_rate):
        epsilon, t = self.epsilon, keras.ops.cast(self.iterations + 1, variable.dtype)
        self.epsilon = epsilon * keras.ops.sqrt(1 - keras.ops.power(self.beta_2, t))
        plain(self, gradient, variable, learning_rate)
        self.epsilon = epsilon

    keras.optimizers.Adam.update_step = algorithm_1
    try:
        first = oracle.check(built(), x, x[:, :1], drift=False).first_divergence
    finally:
        keras.optimizers.Adam.update_step = plain
    assert (first.quantity, first.step) == ("weight", 0)
    return f"first divergence of the other: {first.quantity} {first.tensor}, step {first.step}"


if __name__ == "__main__":
    run(__file__)
