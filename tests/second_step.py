"""One training step in float64 with error bounds: what every quantity of the step is, and how far float32 may be off.

It starts from given weights, slots, batch and masks, so nothing compounds from step to step: the verdict on a step
does not depend on the steps before. The formulas are those of ops.py, composed of the balls of
second_bounds.py: a second derivation of what minidl/oracle/judge.py composes of layers, losses and update rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import second_bounds as bounds
from second_bounds import Ball

from minidl import activations, losses
from minidl.backend import Array
from minidl.layers import Dense, Dropout, Layer
from minidl.models import Sequential
from minidl.optimizers import Adam
from minidl.regularizers import L1, L1L2, L2, Regularizer

_FORWARD: dict[str, Callable[[Ball], Ball]] = {
    "linear": lambda inputs: inputs,
    "relu": bounds.relu,
    "sigmoid": bounds.sigmoid,
    "tanh": bounds.tanh,
}
_BACKWARD: dict[str, Callable[[Ball, Ball, Ball], Ball]] = {
    "linear": lambda d_outputs, inputs, outputs: d_outputs,
    "relu": lambda d_outputs, inputs, outputs: bounds.relu_backward(d_outputs, inputs),
    "sigmoid": lambda d_outputs, inputs, outputs: bounds.sigmoid_backward(d_outputs, outputs),
    "tanh": lambda d_outputs, inputs, outputs: bounds.tanh_backward(d_outputs, outputs),
}


@dataclass
class Step:
    """The balls of one step. Dictionaries by layer name; grads, m, v, theta in the order of get_weights()."""

    pre_activations: dict[str, Ball] = field(default_factory=dict)
    activations: dict[str, Ball] = field(default_factory=dict)
    penalties: dict[str, Ball] = field(default_factory=dict)
    data_loss: Ball | None = None
    loss: Ball | None = None
    grads: list[Ball] = field(default_factory=list)
    m: list[Ball] = field(default_factory=list)
    v: list[Ball] = field(default_factory=list)
    theta: list[Ball] = field(default_factory=list)


def training_step(
    model: Sequential,
    x: Array,
    y: Array,
    *,
    weights: list[Array],
    m: list[Array],
    v: list[Array],
    step: int,
    masks: dict[str, Array],
    sample_weight: Array | None = None,
) -> Step:
    """The step that leads from (weights, m, v) on the batch x (B, I), y (B, 1), by the model's own settings.

    step: 1-based. masks: dropout layer -> (B, U) of bool. All arrays hold exact float32 numbers.
    The model must end in Dense(activation="sigmoid") under binary cross-entropy, as the notebook's do.
    Errors: NotImplementedError for a model, activation or regularizer without a bound here.
    """
    last = model.layers[-1]
    loss = model.loss
    plain = type(loss) is losses.BinaryCrossentropy and loss.reduction in ("sum_over_batch_size", "mean")
    if not (isinstance(last, Dense) and last.activation is activations.sigmoid and plain):
        raise NotImplementedError("training_step: the model must end in a sigmoid under binary cross-entropy.")
    parameters = _by_layer(model, weights)
    found = Step()
    inputs = _forward(model, bounds.exact(x), parameters, masks, found)
    logits = found.pre_activations[last.name]
    weight = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    _losses(model, y, logits, weight, parameters, found)
    _backward(model, y, logits, weight, parameters, masks, inputs, found)
    _update(model, weights, m, v, step, found)
    return found


def _by_layer(model: Sequential, weights: list[Array]) -> dict[str, dict[str, Array]]:
    parameters: dict[str, dict[str, Array]] = {layer.name: {} for layer in model.layers}
    for segment, weight in zip(model.arena.segments, weights, strict=True):
        parameters[segment.layer][segment.name] = weight
    return parameters


def _forward(
    model: Sequential, x: Ball, parameters: dict[str, dict[str, Array]], masks: dict[str, Array], found: Step
) -> dict[str, Ball]:
    """Fill pre_activations and activations; return each layer's inputs."""
    inputs = {}
    for layer in model.layers:
        inputs[layer.name] = x
        if isinstance(layer, Dense):
            own = parameters[layer.name]
            bias = bounds.exact(own["bias"]) if "bias" in own else None
            z = bounds.dense(x, bounds.exact(own["kernel"]), bias)
            found.pre_activations[layer.name] = z
            x = _supported(_FORWARD, layer.activation.name)(z)
        elif isinstance(layer, Dropout):
            x = bounds.dropout(x, masks[layer.name], layer.rate) if layer.rate else x
        else:
            raise NotImplementedError(f"no error bound for a {type(layer).__name__} layer.")
        found.activations[layer.name] = x
    return inputs


def _losses(
    model: Sequential,
    y: Array,
    logits: Ball,
    weight: Array,
    parameters: dict[str, dict[str, Array]],
    found: Step,
) -> None:
    """Fill data_loss, penalties and loss: the mean over units and batch, then the sum with the penalties."""
    losses = bounds.binary_crossentropy_from_logits(y, logits)
    weighted = bounds.multiply(losses, bounds.exact(weight[:, None]))
    found.data_loss = loss = bounds.multiply(bounds.total(weighted), bounds.exact(1.0 / y.size), roundings=3)
    for layer in model.layers:
        for name, regularizer in layer.regularizers.items():
            penalty = _penalty(regularizer, parameters[layer.name][name])
            found.penalties[f"{layer.name}/{name}"] = penalty
            loss = bounds.add(loss, penalty)
    found.loss = loss


def _backward(
    model: Sequential,
    y: Array,
    logits: Ball,
    weight: Array,
    parameters: dict[str, dict[str, Array]],
    masks: dict[str, Array],
    inputs: dict[str, Ball],
    found: Step,
) -> None:
    """Fill grads, from the loss of the logits down to the first layer."""
    scale = bounds.exact(weight[:, None] / y.size)  # w / (B U): at most two quotients and two products
    gradient = bounds.multiply(bounds.binary_crossentropy_from_logits_backward(y, logits), scale, roundings=4)
    grads: dict[str, dict[str, Ball]] = {}
    for layer in reversed(model.layers):
        if isinstance(layer, Dropout):
            gradient = bounds.dropout(gradient, masks[layer.name], layer.rate) if layer.rate else gradient
            continue
        assert isinstance(layer, Dense)
        if layer is not model.layers[-1]:
            z, outputs = found.pre_activations[layer.name], found.activations[layer.name]
            gradient = _supported(_BACKWARD, layer.activation.name)(gradient, z, outputs)
        own = parameters[layer.name]
        grads[layer.name] = _parameter_gradients(layer, own, gradient, inputs[layer.name])
        gradient = bounds.product(gradient, bounds.exact(own["kernel"].T))
    found.grads = [grads[segment.layer][segment.name] for segment in model.arena.segments]


def _parameter_gradients(layer: Layer, own: dict[str, Array], d_outputs: Ball, inputs: Ball) -> dict[str, Ball]:
    """d_kernel = inputsᵀ @ d_outputs and d_bias = Σ_B d_outputs, each with its penalty's gradient."""
    transposed = Ball(inputs.value.T, inputs.radius.T)
    grads = {"kernel": bounds.product(transposed, d_outputs), "bias": bounds.total(d_outputs, axis=0)}
    for name, regularizer in layer.regularizers.items():
        for gradient in _penalty_gradients(regularizer, own[name]):
            grads[name] = bounds.add(grads[name], gradient)
    return grads


def _update(model: Sequential, weights: list[Array], m: list[Array], v: list[Array], step: int, found: Step) -> None:
    """Fill m, v and theta by Adam's formulas."""
    adam = adam_of(model)
    alpha = bounds.adam_alpha(step, adam.learning_rate, adam.beta_1, adam.beta_2)
    for weight, own_m, own_v, gradient in zip(weights, m, v, found.grads, strict=True):
        found.m.append(bounds.adam_moment(own_m, gradient, adam.beta_1))
        found.v.append(bounds.adam_moment(own_v, bounds.multiply(gradient, gradient), adam.beta_2))
        found.theta.append(bounds.adam_parameter(weight, found.m[-1], found.v[-1], alpha, adam.epsilon))


def adam_of(model: Sequential) -> Adam:
    """The model's optimizer. Errors: NotImplementedError if it is not Adam."""
    if not isinstance(model.optimizer, Adam):
        raise NotImplementedError(f"no error bound for the optimizer {type(model.optimizer).__name__}.")
    return model.optimizer


def _supported(functions: dict[str, Callable[..., Ball]], name: str) -> Callable[..., Ball]:
    if name not in functions:
        raise NotImplementedError(f"no error bound for the activation {name!r}.")
    return functions[name]


def _penalty(regularizer: Regularizer, weights: Array) -> Ball:
    l1, l2 = _factors(regularizer)
    return bounds.add(bounds.l1_penalty(weights, l1), bounds.l2_penalty(weights, l2))


def _penalty_gradients(regularizer: Regularizer, weights: Array) -> list[Ball]:
    l1, l2 = _factors(regularizer)
    return [bounds.l1_gradient(weights, l1), bounds.l2_gradient(weights, l2)]


def _factors(regularizer: Regularizer) -> tuple[float, float]:
    """(l1, l2). Errors: NotImplementedError for a regularizer without them."""
    if isinstance(regularizer, (L1, L2, L1L2)):
        return getattr(regularizer, "l1", 0.0), getattr(regularizer, "l2", 0.0)
    raise NotImplementedError(f"no error bound for the regularizer {type(regularizer).__name__}.")
