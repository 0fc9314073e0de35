"""minidl against a recorded Keras fit: the same numbers drawn, every step within its rounding bound, and the drift.

Two ways at once. In lock-step, each recorded step is taken again from Keras's own state, by minidl in float32 and in
float64 with bounds, as judge.py does: that is what the verdict rests on. Running free, minidl trains alone from the
seed; how far it drifts is shown, beside the drift that rounding alone explains (float32 against float64), not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import minidl.keras as minidl_keras
from minidl import utils
from minidl.backend import Array
from minidl.callbacks import LambdaCallback
from minidl.layers import Dropout
from minidl.models import Sequential
from minidl.oracle.judge import Judge
from minidl.oracle.steps import NOT_OBSERVED, State, Step
from minidl.oracle.trace import Trace

Data = tuple[Array, Array]


@dataclass
class Check:
    """One question, its answer, and the figures that it rests on."""

    name: str
    ok: bool
    text: str


@dataclass
class Comparison:
    """minidl beside a trace of Keras's. E epochs, T tensors.

    history: minidl's own. tensors: their names. drift_abs, drift_ulps: (E, T), the largest difference of the two
    free runs after each epoch. drift_of_rounding: (E, T), the largest difference of minidl's float32 run from its
    float64 run. masks: dropout layer -> minidl's mask at each step. worst_fraction: of its rounding bound, over all
    steps judged, for Keras's and for minidl's slots and weights.
    """

    trace: Trace
    model: Sequential
    history: dict[str, list[float]]
    checks: list[Check]
    tensors: list[str]
    drift_abs: Array
    drift_ulps: Array
    drift_of_rounding: Array
    masks: dict[str, list[Array]]
    worst_fraction: dict[str, float]

    @property
    def history_difference(self) -> float:
        """The largest difference of any figure of the two histories in any epoch."""
        pairs = ((self.history[name], values) for name, values in self.trace.history.items())
        return max(float(np.abs(np.subtract(own, recorded)).max()) for own, recorded in pairs)

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    @property
    def verdict(self) -> str:
        """The answer in a sentence."""
        failed = [check.name for check in self.checks if not check.ok]
        if failed:
            return f"minidl and Keras differ in: {', '.join(failed)}."
        return "minidl computes what Keras computes: the same random numbers, and every step judged within rounding."


def ulps(a: Array, b: Array) -> Array:
    """|a − b| in units in the last place of the larger of the two, elementwise, for float32 arrays."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    unit = np.spacing(np.maximum(np.abs(a), np.abs(b))).astype(np.float64)
    return np.abs(a.astype(np.float64) - b.astype(np.float64)) / unit


def compare(
    trace: Trace,
    build: Callable[[Any], Sequential],
    data: Data,
    validation: Data,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Train build(minidl.keras) on data from the trace's seed and compare it with the trace.

    progress is told what is being done. Errors: ValueError if the trace is not of this model and data.
    """
    tell = progress or (lambda what: None)
    tell("training")
    model, history, thetas, masks = _run_free(trace, build, data, validation)
    tensors = [name for name, _ in trace.tensors]
    own = [(f"{s.layer}/{s.name}".split("/")[-1], s.shape) for s in model.arena.segments]
    if own != [(name.split("/")[-1], shape) for name, shape in trace.tensors]:
        raise ValueError(f"the trace is of a model with parameters {trace.tensors}, not of this one.")

    tell("training in float64")
    exact_thetas = _run_in_float64(trace, build, data, masks)
    tell("judging the steps")
    fractions, judged = _lock_step(trace, build, data)

    checks = [
        _same_start(trace, thetas[0]),
        _same_orders(trace, len(data[0])),
        *([_same_masks(trace, masks)] if trace.masks else []),
        Check(
            "steps",
            max(fractions.values()) <= 1,
            f"each of the {judged} steps recorded in full, taken again from Keras's own state, is within its rounding "
            f"bound; "
            f"largest share of the bound: Keras {_worst(fractions, 'keras'):.2f}, "
            f"minidl {_worst(fractions, 'minidl'):.2f}",
        ),
    ]
    per_epoch = thetas[1:]
    return Comparison(
        trace=trace,
        model=model,
        history=history,
        checks=checks,
        tensors=tensors,
        drift_abs=_per_tensor(model, np.abs(per_epoch.astype(np.float64) - trace.epoch_theta)),
        drift_ulps=_per_tensor(model, ulps(per_epoch, trace.epoch_theta)),
        drift_of_rounding=_per_tensor(model, np.abs(per_epoch - exact_thetas)),
        masks=masks,
        worst_fraction=fractions,
    )


def _worst(fractions: dict[str, float], who: str) -> float:
    return max(value for name, value in fractions.items() if name.startswith(who))


def _per_tensor(model: Sequential, differences: Array) -> Array:
    """(E, P) -> (E, T): the largest of each parameter's segment."""
    return np.stack([differences[:, s.start : s.stop].max(axis=1) for s in model.arena.segments], axis=1)


# ------------------------------------------------------------------------------------------ free runs


def _run_free(
    trace: Trace, build: Callable[[Any], Sequential], data: Data, validation: Data
) -> tuple[Sequential, dict[str, list[float]], Array, dict[str, list[Array]]]:
    """minidl alone, from the seed: the model, its history, θ at the start and after each epoch, its masks."""
    utils.set_random_seed(trace.settings["seed"])
    model = build(minidl_keras)
    thetas = [model.arena.theta.copy()]
    masks: dict[str, list[Array]] = {}
    for layer in model.layers:
        if isinstance(layer, Dropout):
            masks[layer.name] = _remember_masks(layer)
    history = model.fit(
        *data,
        batch_size=trace.settings["batch_size"],
        epochs=trace.settings["epochs"],
        validation_data=validation,
        verbose=0,
        callbacks=[LambdaCallback(on_epoch_end=lambda epoch, logs: thetas.append(model.arena.theta.copy()))],
    )
    return model, history.history, np.array(thetas), masks


def _remember_masks(layer: Dropout) -> list[Array]:
    """From now on, note every mask that the layer draws."""
    drawn: list[Array] = []
    draw = layer.draw_mask

    def draw_mask(shape: tuple[int, ...]) -> Array:
        drawn.append(draw(shape))
        return drawn[-1]

    layer.draw_mask = draw_mask  # type: ignore[method-assign]
    return drawn


def _run_in_float64(
    trace: Trace, build: Callable[[Any], Sequential], data: Data, masks: dict[str, list[Array]]
) -> Array:
    """The same run in float64, from the same float32 weights and with the same masks: θ after each epoch."""
    utils.set_random_seed(trace.settings["seed"])
    model = build(minidl_keras)
    model.set_dtype("float64")
    for layer, drawn in zip(_dropouts(model), masks.values(), strict=True):
        replay(layer, iter(drawn))
    thetas: list[Array] = []
    model.fit(
        *data,
        batch_size=trace.settings["batch_size"],
        epochs=trace.settings["epochs"],
        verbose=0,
        callbacks=[LambdaCallback(on_epoch_end=lambda epoch, logs: thetas.append(model.arena.theta.copy()))],
    )
    return np.array(thetas)


def _dropouts(model: Sequential) -> list[Dropout]:
    return [layer for layer in model.layers if isinstance(layer, Dropout)]


def replay(layer: Dropout, masks: Iterator[Array]) -> None:
    """From now on, the layer takes these masks instead of drawing its own."""
    layer.draw_mask = lambda shape: next(masks)  # type: ignore[method-assign]


# ------------------------------------------------------------------------------------------ lock-step


def _lock_step(trace: Trace, build: Callable[[Any], Sequential], data: Data) -> tuple[dict[str, float], int]:
    """Judge every fully recorded step; the largest share of its bound that each quantity used, and the count."""
    x, y = np.asarray(data[0], np.float32), np.asarray(data[1], np.float32)[:, None]
    batch_size, samples = trace.settings["batch_size"], trace.settings["samples"]
    steps_per_epoch = -(-samples // batch_size)
    model = build(minidl_keras)
    judge = Judge(model)
    names = [f"{segment.layer}/{segment.name}" for segment in model.arena.segments]

    def state(theta: Array, m: Array, v: Array, iterations: int) -> State:
        weights, *slots = (dict(zip(names, model.arena.views(flat), strict=True)) for flat in (theta, m, v))
        return State(weights, dict(zip("mv", slots, strict=True)), iterations, model.optimizer.learning_rate)

    zeros = np.zeros_like(trace.theta_start)
    before = state(trace.theta_start, zeros, zeros, 0)
    worst: dict[str, float] = {}
    for number, recorded in enumerate(zip(trace.step_theta, trace.step_m, trace.step_v, strict=True)):
        epoch, batch = divmod(number, steps_per_epoch)
        rows = trace.orders[epoch, batch * batch_size : (batch + 1) * batch_size]
        masks = (mask[number, : len(rows)] == 1 for mask in trace.masks.values())
        noise = {layer.name: mask for layer, mask in zip(_dropouts(model), masks, strict=True)}
        after = state(*recorded, number + 1)
        for check in judge.judge(Step(number, epoch, batch, before, after, x[rows], y[rows], noise=noise)):
            if check.quantity in ("slot", "weight"):
                unjudged = check.verdict == NOT_OBSERVED
                for who, share in (("keras", check.share), ("minidl", check.own_share)):
                    key = f"{who} {check.name}"
                    worst[key] = max(worst.get(key, 0.0), np.inf if unjudged else share)
        before = after
    return worst, len(trace.step_theta)


# ------------------------------------------------------------------------------------------ random numbers


def _same_start(trace: Trace, theta: Array) -> Check:
    equal = int((theta == trace.theta_start).sum())
    return Check(
        "initial weights",
        equal == theta.size,
        f"{'bit-equal' if equal == theta.size else 'different'} ({equal} of {theta.size})",
    )


def _same_orders(trace: Trace, samples: int) -> Check:
    from minidl import random

    utils.set_random_seed(trace.settings["seed"])
    epochs = len(trace.orders)
    own = [random.epoch_order(samples, trace.settings["batch_size"], True) for _ in range(epochs)]
    equal = sum(np.array_equal(a, b) for a, b in zip(own, trace.orders, strict=True))
    return Check("batch order", equal == epochs, f"equal in {equal} of {epochs} epochs of {samples} rows")


def _same_masks(trace: Trace, masks: dict[str, list[Array]]) -> Check:
    draws = equal = 0
    for own, recorded in zip(masks.values(), trace.masks.values(), strict=True):
        for mask, row in zip(own, recorded, strict=True):
            kept = row[: len(mask)] == 1
            draws += mask.size
            equal += int((mask == kept).sum())
    same = "bit-equal" if draws == equal else "different"
    return Check("dropout masks", draws == equal, f"{same} ({equal} of {draws} draws)")
