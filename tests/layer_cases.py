"""Layers of every kind, with their arguments, for minidl and for Keras alike."""

import numpy as np

# name: (how to make the layer of a module `k` of Keras's names, the shape of a sample)
LAYERS = {
    "activation": (lambda k: k.layers.Activation("tanh"), (5,)),
    "activation softmax": (lambda k: k.layers.Activation("softmax"), (5,)),
    "activation none": (lambda k: k.layers.Activation(None), (5,)),
    "relu": (lambda k: k.layers.ReLU(), (5,)),
    "relu all": (lambda k: k.layers.ReLU(max_value=1.3, negative_slope=0.1, threshold=0.2), (3, 5)),
    "relu 6": (lambda k: k.layers.ReLU(6.0), (5,)),
    "leaky relu": (lambda k: k.layers.LeakyReLU(), (5,)),
    "leaky relu 0.1": (lambda k: k.layers.LeakyReLU(negative_slope=0.1), (5,)),
    "elu": (lambda k: k.layers.ELU(), (5,)),
    "elu 0.7": (lambda k: k.layers.ELU(alpha=0.7), (5,)),
    "prelu": (lambda k: k.layers.PReLU(alpha_regularizer="l2"), (5,)),
    "prelu shared": (lambda k: k.layers.PReLU(alpha_initializer="ones", shared_axes=[1]), (3, 5)),
    "prelu all shared": (lambda k: k.layers.PReLU(shared_axes=[1, 2]), (3, 5)),
    "softmax": (lambda k: k.layers.Softmax(), (5,)),
    "softmax axis": (lambda k: k.layers.Softmax(axis=1), (3, 5)),
    "softmax axes": (lambda k: k.layers.Softmax(axis=[1, 2]), (3, 5)),
    "flatten": (lambda k: k.layers.Flatten(), (2, 3, 5)),
    "flatten channels first": (lambda k: k.layers.Flatten(data_format="channels_first"), (2, 3, 5)),
    "flatten flat": (lambda k: k.layers.Flatten(), (5,)),
    "reshape": (lambda k: k.layers.Reshape((3, 2)), (6,)),
    "reshape rest": (lambda k: k.layers.Reshape((-1, 2)), (2, 3)),
    "identity": (lambda k: k.layers.Identity(), (5,)),
    "rescaling": (lambda k: k.layers.Rescaling(0.1, offset=-0.3), (5,)),
    "rescaling arrays": (lambda k: k.layers.Rescaling(np.array([0.1, 2, 3]), offset=[1.1, 2, 3]), (3,)),
    "normalization": (lambda k: k.layers.Normalization(), (5,)),
    "normalization given": (lambda k: k.layers.Normalization(mean=0.1, variance=2.3), (5,)),
    "normalization list": (lambda k: k.layers.Normalization(mean=[0.1, 0.2], variance=[2.3, 0.0]), (3, 2)),
    "normalization array": (
        lambda k: k.layers.Normalization(axis=(1, 2), mean=np.full((3, 2), 0.1), variance=np.full((3, 2), 0.7)),
        (3, 2),
    ),
    "normalization inverted": (lambda k: k.layers.Normalization(axis=1, invert=True), (3, 2)),
    "normalization of all": (lambda k: k.layers.Normalization(axis=None), (3, 2)),
    "gaussian noise": (lambda k: k.layers.GaussianNoise(0.3, seed=5), (5,)),
    "gaussian noise 0": (lambda k: k.layers.GaussianNoise(0.0), (5,)),
    "gaussian dropout": (lambda k: k.layers.GaussianDropout(0.3, seed=5), (3, 5)),
    "alpha dropout": (lambda k: k.layers.AlphaDropout(0.3, seed=5), (5,)),
    "alpha dropout shared": (lambda k: k.layers.AlphaDropout(0.6, noise_shape=(None, 1, 5), seed=5), (3, 5)),
    "activity regularization": (lambda k: k.layers.ActivityRegularization(l1=0.1, l2=0.2), (5,)),
    "batch normalization": (lambda k: k.layers.BatchNormalization(), (5,)),
    "batch normalization options": (
        lambda k: k.layers.BatchNormalization(
            momentum=0.7, epsilon=0.1, gamma_regularizer="l1", beta_constraint="non_neg", beta_initializer="ones"
        ),
        (3, 5),
    ),
    "batch normalization axis": (lambda k: k.layers.BatchNormalization(axis=1, scale=False), (3, 5)),
    "batch normalization bare": (lambda k: k.layers.BatchNormalization(scale=False, center=False), (5,)),
    "batch normalization frozen": (lambda k: k.layers.BatchNormalization(trainable=False), (5,)),
    "batch normalization renorm": (
        lambda k: k.layers.BatchNormalization(
            renorm=True, renorm_clipping={"rmax": 1.05, "rmin": 0.8, "dmax": 0.5}, renorm_momentum=0.8
        ),
        (5,),
    ),
    "batch normalization renorm bare": (
        lambda k: k.layers.BatchNormalization(renorm=True, scale=False, center=False, momentum=0.8),
        (3, 5),
    ),
    "layer normalization": (lambda k: k.layers.LayerNormalization(), (5,)),
    "layer normalization axes": (lambda k: k.layers.LayerNormalization(axis=[1, 2], epsilon=0.1), (3, 5)),
    "layer normalization axis": (lambda k: k.layers.LayerNormalization(axis=1, center=False), (3, 5)),
    "layer normalization bare": (lambda k: k.layers.LayerNormalization(scale=False, center=False), (5,)),
    "layer normalization rms": (lambda k: k.layers.LayerNormalization(rms_scaling=True, axis=[1, 2]), (3, 5)),
    "group normalization": (lambda k: k.layers.GroupNormalization(groups=3), (6,)),
    "group normalization axis": (lambda k: k.layers.GroupNormalization(2, axis=1, epsilon=0.1, scale=False), (4, 3)),
    "group normalization of each": (lambda k: k.layers.GroupNormalization(-1, center=False), (4, 3)),
    "rms normalization": (lambda k: k.layers.RMSNormalization(), (5,)),
    "rms normalization axes": (lambda k: k.layers.RMSNormalization(axis=[1, 2], epsilon=0.1), (3, 5)),
    "unit normalization": (lambda k: k.layers.UnitNormalization(), (5,)),
    "unit normalization axes": (lambda k: k.layers.UnitNormalization(axis=(1, 2)), (3, 5)),
}  # fmt: skip

NOISE = ["gaussian noise", "gaussian dropout", "alpha dropout", "alpha dropout shared"]
