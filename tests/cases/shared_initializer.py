"""Layers that share an initializer without a seed start from the same weights.

Report: keras-team/keras#15586, keras-team/keras-hub#352

Keras: draws an initializer's seed once, when it is made, so that each call gives the same numbers.

Oracle: right: the initial weights are those of the seed, to the bit, twice the same.
"""

from cases import keras, np, right, run, sequential, started


def show():
    started()
    shared = keras.initializers.GlorotUniform()
    model = sequential(*(keras.layers.Dense(3, kernel_initializer=shared) for _ in range(2)), inputs=3)
    model.compile("sgd", "mse")
    same = bool(np.array_equal(*(layer.kernel.numpy() for layer in model.layers)))
    right(model, np.eye(3), np.eye(3), initial_weights=True)
    assert same
    return "the kernels of two layers are equal"


if __name__ == "__main__":
    run(__file__)
