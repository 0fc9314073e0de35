"""A model that is loaded repeats the dropout masks of its first steps.

Report: keras-team/keras#19796

Keras: does not save the state of a layer's seed generator: after load_model its counter is 0 again.

Oracle: right at every step, since each mask is what seed and counter lead to; what is lost is between the fits. minidl
keeps the counter in an entry of the file that Keras ignores.
"""

import pathlib
import tempfile

from cases import keras, np, right, run, sequential, started


def show():
    import minidl

    started()
    model = sequential(keras.layers.Dropout(0.5, seed=3), keras.layers.Dense(1), inputs=3)
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(64, 3))
    right(model, x, x[:, :1])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        before, after = (int(m.layers[0].seed_generator.state.numpy()[1]) for m in (model, loaded))
        right(loaded, x, x[:, :1])
        own = minidl.models.load_model(path)
        own.fit(x, x[:, :1], verbose=0)
        own.save(path)
        kept = int(minidl.models.load_model(path).layers[0].seed_generator.state[1])
    assert (before, after, kept) == (2, 0, 2)
    return f"counter {before} before saving, {after} after loading; minidl: {kept} and {kept}"


if __name__ == "__main__":
    run(__file__)
