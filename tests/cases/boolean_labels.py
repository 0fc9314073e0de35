"""Accuracy on boolean labels.

Report: keras-team/keras#20178

Keras: failed on TensorFlow and was wrong on JAX; since its pull request 20956 booleans, integers and floats give the
same.

Oracle: right for boolean labels too.
"""

from cases import keras, np, right, run, sequential, started


def show():
    x, y, found = np.array([[-1.0], [2.0], [3.0], [-4.0]]), np.array([[False], [True], [True], [True]]), []
    for labels in (y, y.astype("int32"), y.astype("float32")):
        started()
        model = sequential(keras.layers.Dense(1, "sigmoid", kernel_initializer="ones"))
        model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
        found.append(model.evaluate(x, labels, verbose=0)[1])
        right(model, x, labels)
    assert found == [0.75, 0.75, 0.75]
    return f"accuracy {found[0]:g} for all three"


if __name__ == "__main__":
    run(__file__)
