"""evaluate reports another loss than one computes from predict.

Report: keras-team/keras#8242

Keras: adds the penalties to the loss that it reports, with any weights; predict knows nothing of them.

Oracle: right: the reported loss is the data's plus the penalties', each judged by itself.
"""

from cases import keras, np, right, run, sequential, started


def show():
    started()
    model = sequential(keras.layers.Dense(1, kernel_initializer="ones", kernel_regularizer="l2"))
    model.compile("sgd", "mse")
    x, y = np.array([[-1.0], [2.0], [3.0], [-4.0]]), np.zeros((4, 1))
    reported, computed = model.evaluate(x, y, verbose=0), float(np.mean(model.predict(x, verbose=0) ** 2))
    assert abs(reported - computed - 0.01) < 1e-6
    right(model, x, y)
    return f"evaluate {reported:.2f}, from predict {computed:.2f}, the penalty 0.01"


if __name__ == "__main__":
    run(__file__)
