"""An output that is NaN is a false negative, or is none.

Report: none known; found by the oracle in a random model

Keras: counts, here of ∞ · 0 = NaN and of 1, what is not above the threshold. TensorFlow's graph optimizer makes p ≤ t
of ¬(p > t), which NaN makes another: run eagerly and under XLA such an output is a false negative, in a graph it is
counted nowhere.

Oracle: right in all three: comparisons with a NaN are allowed to go either way, and the loss, NaN, is what is wrong.
"""

from cases import keras, np, right, run, sequential, started


def show():
    found = []
    x = np.array([[1000.0], [0.0]])
    for mode in ({}, {"run_eagerly": True}, {"jit_compile": True}):
        started()
        infinite = keras.layers.Dense(1, "exponential", kernel_initializer="ones")
        model = sequential(infinite, keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer="ones"))
        model.compile("sgd", "mse", metrics=[keras.metrics.FalseNegatives()], **mode)
        found.append(model.evaluate(x, np.ones((2, 1)), verbose=0)[1])
        right(model, x, np.ones((2, 1)))
    assert found == [0, 1, 1]
    return "false negatives {:.0f} in a graph, {:.0f} eagerly, {:.0f} under XLA".format(*found)


if __name__ == "__main__":
    run(__file__)
