"""The free run: minidl trains alone from where Keras started, and how far the two drift apart is measured.

Two right trainings part: each sum rounds in its own order, and training enlarges the difference; Adam makes of a
gradient of ±10⁻¹² a step of ±α. So the distance is no verdict: it is shown beside the distance that rounding alone
makes, that of minidl from itself with its sums in another order. Right and wrong are judged in lock-step: see judge.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import ops, training
from minidl.backend import Array
from minidl.oracle.steps import Step
from minidl.schedules import LearningRateSchedule

POINTS = 512  # of a curve, at most: when there are as many, every other is dropped


@dataclass
class Drift:
    """Distances of trainings from one start, after each of S steps, for each of T weights.

    tensors: (T,) "layer/name". steps: (S,) their numbers, from 0, ascending; of a long run every second, fourth, …, and
    the last. distance: (S, T) the largest |Keras − minidl|. rounding: (S, T) the largest |minidl with its sums in
    another order − minidl|. distance_ulps, rounding_ulps: the same in units in the last place of the tensor's largest
    element in minidl. NaN where one of the two is not finite and the other is not the same.
    """

    tensors: list[str]
    steps: Array
    distance: Array
    rounding: Array
    distance_ulps: Array
    rounding_ulps: Array

    @property
    def times(self) -> Array:
        """(T,) The largest distance of the run as a multiple of the largest that rounding made; 0 where there is none.

        Infinite where Keras drifted and rounding did not.
        """
        far, own = (np.max(one, axis=0, initial=0.0) for one in (self.distance, self.rounding))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(far == 0, 0.0, far / own)


class FreeRun:
    """Follows a fit step by step: minidl trains on the same batches, twice, from the first step's state.

    model, other: two compiled, built minidl models like the trainer's; they are trained. seed: of the order of sums of
    the other. Masks are those that the layers' seeds predict, not the recorded. A learning rate that was set during the
    fit is followed. What it keeps does not grow with the steps.
    """

    def __init__(self, model: Any, other: Any, *, seed: int = 0) -> None:
        self.model, self.other = model, other
        self._rng = np.random.default_rng(seed)
        self._names = list(_weights(model))
        self._rows: list[tuple[int, Array]] = []
        self._last: tuple[int, Array] | None = None
        self._stride, self._seen = 1, 0

    def step(self, step: Step) -> None:
        """Train on the batch of the step, and note the distances after it. Errors: ValueError if it has no batch."""
        if step.x is None:
            raise ValueError("FreeRun: the step has no batch to train on.")
        for model, order in ((self.model, contextlib.nullcontext()), (self.other, summed_in_another_order(self._rng))):
            if self._last is None:
                step.before.write_to(model)
                model.reset_metrics()
            if not isinstance(model.optimizer.learning_rate_argument, LearningRateSchedule):
                model.optimizer.learning_rate = float(step.before.learning_rate)
            batch = model._checked(step.x, step.y, step.sample_weight, None, check_finite=False)
            with order, np.errstate(all="ignore"):
                training.train_step(model, *batch, check_finite=False)
        self._last = step.number, self._distances(step.after.weights)
        if self._seen % self._stride == 0:
            self._rows.append(self._last)
        self._seen += 1
        if len(self._rows) > POINTS:
            self._rows, self._stride = self._rows[::2], 2 * self._stride

    def drift(self) -> Drift:
        """What was seen so far."""
        rows = list(self._rows)
        if self._last is not None and rows[-1][0] != self._last[0]:
            rows.append(self._last)
        shape = (len(rows), 4, len(self._names))
        curves = np.array([row for _, row in rows]).reshape(shape)
        return Drift(self._names, np.array([number for number, _ in rows], int), *np.moveaxis(curves, 1, 0))

    def _distances(self, keras: dict[str, Array]) -> Array:
        """(4, T) distance, rounding, and both in ULPs."""
        own, other = _weights(self.model), _weights(self.other)
        found = np.zeros((4, len(self._names)))
        for i, name in enumerate(self._names):
            unit = float(np.spacing(np.max(np.abs(own[name]), initial=np.finfo(own[name].dtype).tiny)))
            found[:2, i] = _distance(keras[name], own[name]), _distance(other[name], own[name])
            found[2:, i] = found[:2, i] / unit
        return found


def _weights(model: Any) -> dict[str, Array]:
    layers = model.flat_layers()
    return {f"{layer.name}/{name}": a for layer in layers for name, a in {**layer.parameters, **layer.state}.items()}


def _distance(a: Array, b: Array) -> float:
    """The largest |a − b|, of the same infinities and NaNs 0."""
    a = np.asarray(a, b.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        found = float(np.max(np.abs(a - b), initial=0))
        if not np.isfinite(found):
            found = float(np.max(np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b)), initial=0))
    return found


@contextlib.contextmanager
def summed_in_another_order(rng: np.random.Generator) -> Iterator[None]:
    """While open, the products of ops, for whoever calls them, add up their terms in an order that rng draws.

    Any order is as right as another, γₙ off at most: what differs in the results is rounding alone.
    """
    plain = {name: getattr(ops, name) for name in ("dense", "dense_backward", "dense_gradients")}

    def dense(inputs: Array, kernel: Array, bias: Array | None = None, *, out: Array | None = None) -> Array:
        order = rng.permutation(len(kernel))
        return plain["dense"](inputs[..., order], kernel[order], bias, out=out)

    def dense_backward(d_outputs: Array, kernel: Array, *, out: Array | None = None) -> Array:
        order = rng.permutation(kernel.shape[1])
        return plain["dense_backward"](d_outputs[..., order], kernel[:, order], out=out)

    def dense_gradients(d_outputs: Array, inputs: Array, **out: Any) -> Any:
        flat, d_flat = (one.reshape(-1, one.shape[-1]) for one in (inputs, d_outputs))
        order = rng.permutation(len(flat))
        return plain["dense_gradients"](d_flat[order], flat[order], **out)

    for function in (dense, dense_backward, dense_gradients):
        setattr(ops, function.__name__, function)
    try:
        yield
    finally:
        for name, one in plain.items():
            setattr(ops, name, one)
