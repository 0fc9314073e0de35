"""A key of class_weight that matches no class is ignored without a word.

Report: keras-team/keras#23220

Keras: weighs a sample whose class has no key by 1, and never asks whether a key was used.

Oracle: right: the weights of the batch are 1, to the bit.
"""

from cases import keras, np, right, run, sequential, started


def show():
    x, y = np.array([[-1.0], [2.0], [3.0], [-4.0]]), np.zeros((4, 1))
    losses = []
    for class_weight in (None, {7: 100.0}):
        started()
        model = sequential(keras.layers.Dense(1, kernel_initializer="ones"))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        losses.append(model.fit(x, y, class_weight=class_weight, verbose=0).history["loss"][0])
        right(model, x, y, class_weight=class_weight)
    assert losses[0] == losses[1] == 7.5
    return f"loss {losses[0]:g} with and without {{7: 100}}"


if __name__ == "__main__":
    run(__file__)
