"""A layer after the sigmoid changes the loss.

Report: tensorflow/tensorflow#31930

Keras: finds the logits only where the model ends in the sigmoid. A Reshape behind it hides them, and the loss is
clipped.

Oracle: right in both: the two models are judged by the two formulas, losses 40 and 15.94 for the same predictions.
"""

from cases import keras, np, right, run, sequential, started


def show():
    x, y, losses = np.full((4, 1), 40.0, "float32"), np.zeros((4, 1), "float32"), []
    for behind in ([], [keras.layers.Reshape((1,))]):
        started()
        model = sequential(keras.layers.Dense(1, "sigmoid", kernel_initializer="ones"), *behind)
        model.compile("sgd", "binary_crossentropy")
        losses.append(model.evaluate(x, y, verbose=0))
        right(model, x, y)
    assert losses[0] == 40.0 and abs(losses[1] - 15.94) < 0.01
    return f"loss {losses[0]:g} without, {losses[1]:.2f} with the Reshape"


if __name__ == "__main__":
    run(__file__)
