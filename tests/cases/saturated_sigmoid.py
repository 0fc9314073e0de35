"""The loss of a saturated sigmoid is another than that computed from the predictions.

Report: tensorflow/tensorflow#118313, #33936

Keras: on TensorFlow finds the logits under a sigmoid and computes the loss from them, in graph and eager mode alike;
from the predictions themselves, which are 1, it would be clipped at −log(ε). On JAX and torch it is.

Oracle: right: the loss is that of the logits, to the bit, in both modes.
"""

from cases import keras, np, right, run, sequential, started


def show():
    x, y, found = np.full((4, 1), 40.0, "float32"), np.zeros((4, 1), "float32"), {}
    for mode in ("graph", "eager"):
        started()
        model = sequential(keras.layers.Dense(1, "sigmoid", kernel_initializer="ones"))
        model.compile("sgd", "binary_crossentropy", run_eagerly=mode == "eager")
        found[mode] = model.evaluate(x, y, verbose=0)
        predicted = float(keras.losses.binary_crossentropy(y, model.predict(x, verbose=0)).numpy().mean())
        report = right(model, x, y)
        assert all(tally.verdict == "bit-equal" for tally in report.cell("loss"))
    assert found == {"graph": 40.0, "eager": 40.0} and abs(predicted - 15.94) < 0.01
    return (
        f"loss of fit {found['graph']:g} (graph) and {found['eager']:g} (eager), from the predictions {predicted:.2f}"
    )


if __name__ == "__main__":
    run(__file__)
