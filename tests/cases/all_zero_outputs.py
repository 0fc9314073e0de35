"""Categorical cross-entropy divides the outputs by their sum: NaN where all are 0.

Report: keras-team/keras#17102, keras-team/tf-keras#409

Keras: makes the loss of such outputs, which those of a ReLU may be, NaN.

Oracle: right: 0/0 is what the formula says, and minidl's loss is NaN too.
"""

from cases import keras, np, right, run, sequential, started


def show():
    started()
    model = sequential(keras.layers.Dense(3, "relu", kernel_initializer="zeros"))
    model.compile("sgd", "categorical_crossentropy")
    x, y = np.ones((3, 1), "float32"), np.eye(3, dtype="float32")
    right(model, x, y)
    loss = float(model.evaluate(x, y, verbose=0))
    assert np.isnan(loss)
    return f"loss {loss}"


if __name__ == "__main__":
    run(__file__)
