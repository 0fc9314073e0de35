"""Batch normalization's moving variance: over n or over n − 1?

Report: keras-team/keras#8982, #10443, tensorflow/tensorflow#55545

Keras: over n, in Keras 3; it was over n − 1 in Keras 2 and in fused kernels.

Oracle: right; and a Keras with n − 1 is named by it: weight moving_variance, in the first step.
"""

from cases import keras, np, oracle, right, run, sequential, started


def built():
    started()
    model = sequential(keras.layers.BatchNormalization(momentum=0.0))
    model.compile("sgd", "mse")
    return model


def show():
    x = np.array([[1.0], [2.0], [3.0], [4.0]], "float32")
    model = built()
    right(model, x, 2 * x)
    variance = float(model.layers[0].moving_variance.numpy()[0])
    assert variance == 1.25
    norm = keras.layers.BatchNormalization
    plain = norm.call

    def unbiased(self, inputs, training=None, mask=None):
        outputs = plain(self, inputs, training=training, mask=mask)
        if training:
            self.moving_variance.assign(self.moving_variance * 4 / 3)
        return outputs

    norm.call = unbiased
    try:
        first = oracle.check(built(), x, 2 * x, drift=False).first_divergence
    finally:
        norm.call = plain
    assert (first.quantity, first.name, first.step) == ("weight", "moving_variance", 0)
    return f"the variance of 1, 2, 3, 4 is {variance}, not 1.667"


if __name__ == "__main__":
    run(__file__)
