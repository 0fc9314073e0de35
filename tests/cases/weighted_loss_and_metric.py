"""A loss and the metric of the same name differ under sample weights.

Report: keras-team/keras#19740

Keras: divides the weighted sum of a loss by the number of samples, that of a weighted metric by the sum of the weights.

Oracle: right: each is bit-equal to its own rule.
"""

from cases import keras, np, right, run, sequential, started


def show():
    started()
    model = sequential(keras.layers.Dense(1, kernel_initializer="ones"))
    model.compile("sgd", "mse", weighted_metrics=["mse"])
    x, y, w = np.array([[-1.0], [2.0], [3.0], [-4.0]]), np.zeros((4, 1)), np.array([1.0, 2.0, 3.0, 4.0])
    found = model.evaluate(x, y, sample_weight=w, verbose=0, return_dict=True)
    squares = x[:, 0] ** 2
    assert found["loss"] == (squares * w).sum() / 4 and found["mse"] == (squares * w).sum() / w.sum()
    right(model, x, y, sample_weight=w)
    return f"loss {found['loss']:g}, mse {found['mse']:g}"


if __name__ == "__main__":
    run(__file__)
