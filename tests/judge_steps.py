"""Steps for the judge: minidl's own training, recorded, also with every sum taken in another order."""

import contextlib
import copy

import numpy as np

from minidl import ops, training
from minidl.layers import Dropout
from minidl.layers.regularization import AlphaDropout
from minidl.oracle.steps import State, Step


def state_of(model):
    """The model's State, copied."""
    optimizer = model.optimizer
    names = [f"{segment.layer}/{segment.name}" for segment in model.arena.segments]
    slots = {
        slot: {name: view.copy() for name, view in zip(names, model.arena.views(getattr(optimizer, slot)), strict=True)}
        for slot in optimizer.slots
    } | {name: {"": np.array(getattr(optimizer, name))} for name in optimizer.scalars}
    weights, seeds = {}, {}
    for layer in model.flat_layers():
        for name, array in {**layer.parameters, **layer.state}.items():
            weights[f"{layer.name}/{name}"] = array.copy()
        if getattr(layer, "seed_generator", None) is not None:
            seeds[layer.name] = layer.seed_generator.state.copy()
    return State(weights, slots, int(optimizer.updates), float(optimizer.rate), seeds)


@contextlib.contextmanager
def noting(model, noise, pre_activations, activations):
    """While open, notes what the layers draw and compute."""
    undo = []

    def replace(owner, name, value):
        setattr(owner, name, value)
        undo.append((owner, name))

    def watched(layer):
        plain = layer.forward

        def forward(inputs, *, training=False):
            outputs = plain(inputs, training=training)
            if training:
                activations[layer.name] = np.array(outputs)
                if layer.activation is not None and layer.pre_activations is not inputs:
                    pre_activations[layer.name] = np.array(layer.pre_activations)
            return outputs

        replace(layer, "forward", forward)
        drawing = "draw_mask" if isinstance(layer, (Dropout, AlphaDropout)) else "_draw_normal"
        if getattr(layer, "seed_generator", None) is not None:
            draw = getattr(layer, drawing)

            def drawn(shape, *args):
                found = draw(shape, *args)
                noise[layer.name] = np.broadcast_to(found, activations_shape(shape, found)).copy()
                return found

            replace(layer, drawing, drawn)

    for layer in model.flat_layers():
        watched(layer)
    try:
        yield
    finally:
        for owner, name in undo:
            delattr(owner, name)


def activations_shape(shape, found):
    return np.broadcast_shapes(tuple(shape), found.shape)


def step_of(model, x, y, sample_weight=None, *, number=0, epoch=0, batch=0):
    """minidl's training step on a batch, as a Step; the model goes on."""
    x, y, weights = model._checked(x, y, sample_weight, None, check_finite=False)
    model.optimizer.build(model.arena)
    if batch == 0:
        model.reset_metrics()
    step = Step(number, epoch, batch, state_of(model), None, x.copy(), y.copy(), copy.copy(weights), {}, {}, {})
    apply = model.optimizer.apply

    def noting_apply(arena):
        names = [f"{segment.layer}/{segment.name}" for segment in arena.segments]
        step.gradients = {name: view.copy() for name, view in zip(names, arena.views(arena.grads), strict=True)}
        apply(arena)

    y_pred_loss = {}
    plain_total, plain_data, plain_penalties = training.total_loss, training.data_loss, training.penalties

    def total_loss(*args):
        y_pred_loss["data"] = plain_data(*args)
        y_pred_loss["penalties"] = plain_penalties(args[0])
        y_pred_loss["total"] = plain_total(*args)
        return y_pred_loss["total"]

    model.optimizer.apply = noting_apply
    training.total_loss = total_loss
    try:
        with noting(model, step.noise, step.pre_activations, step.activations), np.errstate(all="ignore"):
            training.train_step(model, x, y, weights, check_finite=False)
    finally:
        training.total_loss = plain_total
        del model.optimizer.apply
    step.data_loss, step.loss, step.penalties = (y_pred_loss[name] for name in ("data", "total", "penalties"))
    step.logs = training.metric_results(model)
    step.after = state_of(model)
    return step


@contextlib.contextmanager
def other_order(seed):
    """While open, products sum in a permuted order, from the end, one term at a time."""
    rng = np.random.default_rng(seed)
    plain = {name: getattr(ops, name) for name in ("dense", "dense_backward", "dense_gradients")}

    def product(a, b):
        order = rng.permutation(a.shape[-1])
        total = np.zeros((*a.shape[:-1], b.shape[-1]), a.dtype)
        for i in order:
            total += a[..., i, None] * b[i]
        return total

    def dense(inputs, kernel, bias=None, *, out=None):
        found = product(inputs, kernel)
        return found if bias is None else found + bias

    def gradients(d_outputs, inputs, *, out_kernel=None, out_bias=None):
        inputs, d_outputs = inputs.reshape(-1, inputs.shape[-1]), d_outputs.reshape(-1, d_outputs.shape[-1])
        found = product(inputs.T, d_outputs), product(np.ones((1, len(inputs)), inputs.dtype), d_outputs)[0]
        for out, one in zip((out_kernel, out_bias), found, strict=True):
            if out is not None:
                out[...] = one
        return found

    ops.dense, ops.dense_gradients = dense, gradients
    ops.dense_backward = lambda d, kernel, *, out=None: product(d, kernel.T)
    try:
        yield
    finally:
        for name, function in plain.items():
            setattr(ops, name, function)
