"""OrthogonalRegularizer makes NaN of a column of zeros under XLA.

Report: none known; found by the oracle in a random model

Keras: divides each column by its norm, at least ε; the derivative at 0 is 0 / 0, which is 0 run eagerly and in a graph
and NaN with jit_compile=True. A NonNeg constraint makes such columns.

Oracle: right run eagerly and in a graph; with XLA the kernel is the first to be wrong, in the first step.
"""

from cases import keras, np, oracle, right, run, sequential, started


def show():
    found = []
    for mode in ({}, {"run_eagerly": True}, {"jit_compile": True}):
        started()
        column = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.OrthogonalRegularizer(0.1, "columns"))
        model = sequential(column)
        model.set_weights([np.array([[0.0, 1.0]]), np.zeros(2)])
        model.compile(keras.optimizers.SGD(0.1), "mse", **mode)
        x, y = np.ones((2, 1), "float32"), np.ones((2, 2), "float32")
        if "jit_compile" in mode:
            first = oracle.check(model, x, y, drift=False).first_divergence
            assert (first.quantity, first.layer, first.name, first.step) == ("weight", column.name, "kernel", 0)
        else:
            right(model, x, y)
        found.append(model.get_weights()[0].ravel().tolist())
    graph, eager, compiled = found
    assert graph == eager and np.isfinite(graph).all() and np.isnan(compiled[0])
    return f"kernel after a step {graph[0]:.3g}, {graph[1]:.3g}; under XLA {compiled[0]:.3g}, {compiled[1]:.3g}"


if __name__ == "__main__":
    run(__file__)
