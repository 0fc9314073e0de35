"""Reports to look at: on minidl's own training with sums in another order, right and with planted faults."""

import dataclasses

import judge_steps
import numpy as np

import minidl.keras as k
from minidl import saving, utils
from minidl.oracle.judge import Judge, judge_start
from minidl.oracle.report import Report

STEPS = 4
ABOUT = {
    "versions": {"keras": "3.15.0", "tensorflow": "2.21.0", "numpy": "2.4.0"},
    "backend": "tensorflow",
    "mode": "graph",
    "dtype": "float32",
    "epochs": 1,
    "batch_size": 8,
    "samples": 8 * STEPS,
    "seed": 7,
    "shuffle": False,
}


def built():
    utils.clear_session(free_memory=False)
    utils.set_random_seed(7)
    layers = [k.layers.Dense(6, "relu", kernel_regularizer="l2"), k.layers.Dropout(0.2), k.layers.Dense(1, "sigmoid")]
    model = k.Sequential([k.layers.Input((4,)), *layers])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.arena)
    return model


def about():
    model = built()
    layers = [layer.name for layer in model.layers]
    return {**ABOUT, "layers": layers, "model": saving.objects.serialize_model(model)}


def data(rows=8 * STEPS):
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 4)).astype("float32"), rng.integers(0, 2, (rows, 1)).astype("float32")


def steps(order=3):
    """The steps of one fit, batches in the order of the rows."""
    model, (x, y) = built(), data()
    for number in range(STEPS):
        rows = slice(8 * number, 8 * number + 8)
        with judge_steps.other_order(order):
            yield judge_steps.step_of(model, x[rows], y[rows], number=number, batch=number)


def reported(fault=lambda step: step, order=3):
    """fault: changes the third step before it is judged."""
    report, judge = Report(about()), Judge(built())
    report.add(judge_start(built(), judge_steps.state_of(built()).weights))
    for step in steps(order):
        step = fault(step) if step.number == 2 else step
        report.add(judge.judge(step), step)
    return report


def changed(step, part, name, place, by):
    """The step with one element of one of its tensors off."""
    tensors = {key: value.copy() for key, value in getattr(step, part).items()}
    if isinstance(by, bool):
        tensors[name][place] ^= by
    else:
        tensors[name][place] += by
    return dataclasses.replace(step, **{part: tensors})


def one_gradient_off(step):
    return changed(step, "gradients", "dense/kernel", (2, 1), 1e-3)


def one_weight_off(step):
    after = changed(step.after, "weights", "dense_1/kernel", (3, 0), 1e-4)
    return dataclasses.replace(step, after=after)


FAULTS = {
    "mask": lambda step: changed(step, "noise", "dropout", (1, 2), True),
    "pre_activation": lambda step: changed(step, "pre_activations", "dense", (5, 4), 1e-4),
    "activation": lambda step: changed(step, "activations", "dense_1", (7, 0), -1e-3),
    "penalty": lambda step: dataclasses.replace(
        step, penalties=[step.penalties[0] * np.float32(2)], loss=step.loss + step.penalties[0]
    ),
    "loss": lambda step: dataclasses.replace(step, data_loss=step.data_loss * np.float32(1.001)),
    "metric": lambda step: dataclasses.replace(step, logs={**step.logs, "accuracy": step.logs["accuracy"] + 0.01}),
    "gradient": one_gradient_off,
    "slot": lambda step: dataclasses.replace(
        step, after=dataclasses.replace(step.after, slots={
            **step.after.slots, "v": changed_dict(step.after.slots["v"], "dense/bias", (3,), 1e-3)
        })
    ),
    "weight": one_weight_off,
}  # fmt: skip


def changed_dict(tensors, name, place, by):
    found = {key: value.copy() for key, value in tensors.items()}
    found[name][place] += by
    return found
