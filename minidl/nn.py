"""Activation functions under TensorFlow's names, so that `import minidl as tf` serves `tf.nn.relu`."""

from minidl.activations import relu, sigmoid, softmax, tanh

__all__ = ["relu", "sigmoid", "softmax", "tanh"]
