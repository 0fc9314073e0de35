"""The same seed drops other units under jit_compile=True than without.

Report: tensorflow/tensorflow#117644, #121243

Keras: draws dropout masks by TensorFlow's stateless generator, whose kernel keys it in one way and whose XLA form in
another.

Oracle: right in both: each mode's masks are predicted from the seed, in their own way; under XLA, where they cannot
be seen, by the weights that they lead to.
"""

from cases import keras, np, right, run, sequential, started


def show():
    import tensorflow as tf

    kept = []
    for compiled in (False, True):
        started()
        layer = keras.layers.Dropout(0.5, seed=3)
        draw = tf.function(lambda x, layer=layer: layer(x, training=True), jit_compile=compiled)
        kept.append(draw(np.ones((100, 10), "float32")).numpy() != 0)
        model = sequential(
            keras.layers.Dense(4, "relu"), keras.layers.Dropout(0.5, seed=3), keras.layers.Dense(1), inputs=3
        )
        model.compile("adam", "mse", jit_compile=compiled)
        x = np.random.default_rng(0).normal(size=(64, 3))
        right(model, x, x[:, :1], epochs=2)
    differing = int((kept[0] != kept[1]).sum())
    assert 400 < differing < 600  # of 1,000, as two masks drawn independently differ
    return f"{differing} of 1,000 units of one mask differ"


if __name__ == "__main__":
    run(__file__)
