"""A float64 model is regularized with a float32 λ.

Report: none known; found by comparing float64 models to 1e-12

Keras: keras.ops.cast of a Python float makes a float32 tensor of it first, so that L1(0.1) and L2(0.1) multiply by
0.10000000149 in float64 too.

Oracle: right, since minidl's L1 and L2 round λ so as well; without it no float64 penalty would be in its bound.
"""

from cases import keras, np, right, run, sequential, started


def show():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        started()
        found = float(keras.regularizers.L1(0.1)(keras.ops.ones((3,), "float64")))
        model = sequential(keras.layers.Dense(1, kernel_regularizer="l1"))
        model.compile("sgd", "mse")
        x = np.random.default_rng(0).normal(size=(8, 1))
        right(model, x, x)
    finally:
        keras.config.set_floatx(before)
    assert found == 3 * float(np.float32(0.1)) != 3 * 0.1
    return f"0.1 · 3 = {found:.12f}"


if __name__ == "__main__":
    run(__file__)
