"""Known reports about Keras, each a script that shows with the installed Keras what is so and what the oracle says of
it.

Run one: PYTHONPATH=tests python -m cases.saturated_sigmoid. Each has a docstring of a title and the parts Report,
Keras and Oracle, and a function show() that asserts all of it and returns the numbers for the page docs/cases.md,
which docs/cases.py writes. TensorFlow is the backend.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import importlib
import pkgutil
import re
import warnings

import keras
import numpy as np

from minidl import oracle

NAMES = [
    "saturated_sigmoid", "sigmoid_behind_a_layer", "masks_of_xla", "dropout_state_on_load", "weighted_loss_and_metric",
    "epoch_loss", "epsilon_hat", "boolean_labels", "activity_by_batch_size", "evaluate_and_predict",
    "class_weight_of_no_class", "short_lambda", "same_order_every_epoch", "update_without_a_batch", "short_betas",
    "fused_activations", "moving_variance", "epsilon_of_rmsprop", "shape_of_labels", "shared_initializer",
    "decay_of_biases", "all_zero_outputs", "orthogonal_in_float64", "orthogonal_under_xla",
    "metrics_of_nan",
]  # fmt: skip


def sequential(*layers, inputs=1):
    return keras.Sequential([keras.layers.Input((inputs,)), *layers])


def started(seed=1):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)


def right(model, x, y, **arguments):
    """The oracle's report of a training that it must find right."""
    report = oracle.check(model, np.asarray(x, "float32"), y, drift=False, **arguments)
    assert report.ok, report
    return report


def parts(name):
    """Title, report, Keras, Oracle of a case, from its docstring."""
    text = importlib.import_module(f"cases.{name}").__doc__
    title, *rest = re.split(r"\n\n(?:Report|Keras|Oracle): ", text.strip())
    return [" ".join(part.split()) for part in (title, *rest)]


def shown(name):
    """The numbers of a case. Errors: AssertionError where Keras, or the oracle, does otherwise than it says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"cases.{name}").show()


def run(file):
    """A case's own script: its numbers."""
    print(shown(os.path.basename(file).removesuffix(".py")))


assert sorted(NAMES) == sorted(module.name for module in pkgutil.iter_modules(__path__))
