"""OrthogonalRegularizer cannot be used in float64.

Report: none known; found by running the regularizers in float64

Keras: keeps factor as a float32 tensor, which TensorFlow does not multiply with float64; L1 and L2 cast theirs.

Oracle: nothing, since the training does not start; minidl's own penalty is the formula's.
"""

import tensorflow as tf

from cases import keras, np, run
from minidl import config, regularizers


def show():
    error, before = "", config.floatx()
    keras.config.set_floatx("float64")
    config.set_floatx("float64")
    try:
        own = float(regularizers.OrthogonalRegularizer(0.1)(np.ones((2, 2))))
        keras.regularizers.OrthogonalRegularizer(0.1)(keras.ops.ones((2, 2)))
    except tf.errors.InvalidArgumentError as raised:
        error = type(raised).__name__
    finally:
        keras.config.set_floatx("float32")
        config.set_floatx(before)
    assert error and abs(own - 0.1) < 1e-7
    return f"{error}; minidl {own:.6g}"


if __name__ == "__main__":
    run(__file__)
