"""An activity regularizer's penalty depends on the batch size, or not.

Report: keras-team/keras#22018

Keras: since 3.14 divides it by the batch's size, so that it weighs as much against the loss in batches of any size.

Oracle: right: the penalty of 8 rows is bit-equal to an eighth of their sum.
"""

from cases import keras, np, right, run, sequential, started


def show():
    found = []
    for rows in (1, 8):
        started()
        model = sequential(
            keras.layers.Dense(1, kernel_initializer="ones", activity_regularizer=keras.regularizers.L2(1.0))
        )
        model.compile("sgd", "mse")
        ones = np.ones((rows, 1))
        found.append(model.evaluate(ones, ones, verbose=0))
        right(model, ones, ones)
    assert found == [1.0, 1.0]
    return f"penalty {found[0]:g} for 1 row and {found[1]:g} for 8"


if __name__ == "__main__":
    run(__file__)
