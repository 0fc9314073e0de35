"""The squared error that Keras reports is not the one computed from predict.

Report: keras-team/keras#14627, tensorflow/tensorflow#37770

Keras: gives labels of shape (N,) the outputs' shape (N, 1); it is NumPy's difference of the two that is a matrix
(N, N).

Oracle: right for labels of either shape, which end in the same bits.
"""

from cases import keras, np, right, run, sequential, started


def show():
    x, y = np.array([[1.0], [2.0], [3.0]], "float32"), np.array([[0.0], [2.0], [4.0]], "float32")
    ends = []
    for labels in (y, y[:, 0]):
        started()
        model = sequential(keras.layers.Dense(1, kernel_initializer="ones"))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        right(model, x, labels)
        ends.append(float(model.evaluate(x, labels, verbose=0)))
    p = model.predict(x, verbose=0)
    crossed = float(np.square(y[:, 0] - p).mean())
    assert ends[0] == ends[1] == float(np.square(y - p).mean()) and abs(crossed - 10 / 3) < 1e-5
    return f"evaluate {ends[0]:.4g} for both; NumPy's (N,) − (N, 1) gives {crossed:.4g}"


if __name__ == "__main__":
    run(__file__)
