"""AdamW's weight decay takes in the biases, and is multiplied with the learning rate.

Report: keras-team/keras#16201, #16274

Keras: lets every weight decay by λη, unless exclude_from_weight_decay names it.

Oracle: right; a Keras whose biases do not decay is named by it: weight dense/bias, in the first step.
"""

from cases import keras, np, oracle, right, run, sequential, started


def built():
    started()
    model = sequential(keras.layers.Dense(1, kernel_initializer="ones", bias_initializer="ones"))
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), "mse")
    return model


def show():
    x = np.array([[1.0], [2.0]], "float32")
    right(built(), x, 0 * x)
    adamw = keras.optimizers.AdamW
    adamw._use_weight_decay = lambda self, variable: len(variable.shape) > 1
    try:
        first = oracle.check(built(), x, 0 * x, drift=False).first_divergence
    finally:
        del adamw._use_weight_decay
    assert (first.quantity, first.tensor, first.step) == ("weight", "dense/bias", 0)
    return f"first divergence of the other: {first.quantity} {first.tensor}, step {first.step}"


if __name__ == "__main__":
    run(__file__)
