"""The loss of an epoch with a smaller last batch: the mean over samples or over batches?

Report: tensorflow/tensorflow#38596

Keras: weights each batch by its size, so that the epoch's loss is the mean over samples.

Oracle: right; and a Keras that averages the batches is named by it: metric loss, in the first partial batch.
"""

from cases import keras, np, oracle, right, run, sequential, started


def built():
    started()
    model = sequential(keras.layers.Dense(1, kernel_initializer="ones"))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def show():
    x, y = np.array([[1.0], [1.0], [4.0]], "float32"), np.zeros((3, 1), "float32")
    loss = built().fit(x, y, batch_size=2, shuffle=False, verbose=0).history["loss"][0]
    assert loss == 6.0
    right(built(), x, y, batch_size=2, shuffle=False)
    plain = keras.metrics.Mean.update_state

    def averaging(self, values, sample_weight=None):
        plain(self, values)

    keras.metrics.Mean.update_state = averaging
    try:
        first = oracle.check(built(), x, y, batch_size=2, shuffle=False, drift=False).first_divergence
    finally:
        keras.metrics.Mean.update_state = plain
    assert (first.quantity, first.name, first.step) == ("metric", "loss", 1)
    return f"loss {loss:g}, where the mean of the batches is 8.5"


if __name__ == "__main__":
    run(__file__)
