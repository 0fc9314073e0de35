"""Adam's bias correction of a float64 model uses float32 betas.

Report: none known; found by comparing float64 models to 1e-12

Keras: as with λ, ops.cast(self.beta_2, "float64") goes by way of float32: 1 − β₂ is off by 1.3e-5 of itself.

Oracle: right, since minidl's Adam rounds the betas of its powers so as well.
"""

from cases import keras, np, right, run, sequential, started


def show():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        started()
        beta = float(keras.ops.cast(0.999, "float64"))
        model = sequential(keras.layers.Dense(1))
        model.compile("adam", "mse")
        x = np.random.default_rng(0).normal(size=(8, 1))
        right(model, x, x)
    finally:
        keras.config.set_floatx(before)
    off = abs((1 - beta) / (1 - 0.999) - 1)
    assert beta == float(np.float32(0.999)) and 1e-5 < off < 2e-5
    return f"0.999 becomes {beta:.12f}, 1 − β₂ off by {off:.1e}"


if __name__ == "__main__":
    run(__file__)
