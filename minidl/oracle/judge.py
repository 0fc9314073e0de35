"""Lock-step: each operation of a recorded step is run again on the trainer's own inputs, and compared to its bound.

Nothing compounds: a layer is judged on the outputs that were recorded of the layer before it, a slot on the recorded
gradient, a weight on the recorded slots. What was not observed is said to be so, and what follows from it is judged by
the balls that the operations before it lead to: for a step of which only the weights and slots around it are known,
through the whole step.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import checks, config, initializers, metrics, ops, random, training
from minidl.arena import Segment
from minidl.backend import Array
from minidl.layers import Dense, Dropout, GaussianDropout, GaussianNoise, Layer
from minidl.layers.regularization import AlphaDropout
from minidl.oracle import bounds, layer_bounds, loss_bounds, metric_bounds, noise_bounds, optimizer_bounds
from minidl.oracle.bounds import CHUNK, Arithmetic, Ball, Product
from minidl.oracle.steps import (
    BIT_EQUAL,
    DIVERGENT,
    NOT_OBSERVED,
    QUANTITIES,
    WITHIN_BOUND,
    Check,
    Element,
    State,
    Step,
)
from minidl.schedules import LearningRateSchedule


class Judge:
    """Judges the steps of one fit of a model, in order.

    model: a compiled, built minidl model like the trainer's; it is written to. data: (x, y) or (x, y, sample_weight) of
    the whole fit, weights of classes included; with it the rows of each batch are checked, in the order that seed
    predicts on TensorFlow, and Step.shuffle_state on JAX and torch, or, where that is not known, that each comes once
    an epoch. The backend is that of config.random_stream().
    Errors: NotImplementedError, naming it, for a layer, loss, regularizer, constraint or optimizer without a bound.
    """

    def __init__(
        self,
        model: Any,
        *,
        data: tuple[Any, ...] | None = None,
        batch_size: int | None = None,
        shuffle: bool | str = True,
        seed: int | None = None,
    ) -> None:
        check_model(model)
        self.model, self.arithmetic = model, Arithmetic.of(model.dtype, compiled=bool(model.jit_compile))
        self.layers: list[Layer] = model.flat_layers()
        self.segments = [f"{segment.layer}/{segment.name}" for segment in model.arena.segments]
        self.rows = None if data is None else Rows(data, batch_size, shuffle, seed, self.layers)
        self.means = {name: _Mean(self.arithmetic) for name in self._mean_names()}
        self.running = [metric_bounds.running(metric, self.arithmetic) for metric in model.compiled_metrics]
        self.other: set[tuple[str, str | None, str]] = set()  # tensors that were not minidl's own in every bit
        self._steps = 0
        self._one_thread = _one_thread()
        _keep_freed_memory()

    def judge(self, step: Step) -> list[Check]:
        """All that there is to say of a step, in the order in which a step computes it."""
        with self._one_thread(), np.errstate(all="ignore"):  # what is not finite is for the bounds to report
            self._steps = step.number + 1
            checks = _StepJudge(self, step).run()
            self.other.update((c.quantity, c.layer, c.name) for c in checks if c.verdict in (WITHIN_BOUND, DIVERGENT))
            return checks

    def end(self, epochs: int | None = None) -> list[Check]:
        """What there is to say of a fit that came to its end: batches, of so many epochs, that never came."""
        missing = "" if self.rows is None or not self._steps else self.rows.missing(epochs)
        return [_miscounted(self._steps, missing)] if missing else []

    def _mean_names(self) -> list[str]:
        return ["loss", *(str(i) for i, _ in enumerate(self.model.compiled_metrics))]


def _one_thread() -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """A context in which NumPy's products take one thread, where threadpoolctl is installed; else one without effect.

    Beside the threads of Keras, which spin while they wait, several take many times as long as one.
    """
    try:
        import threadpoolctl
    except ImportError:
        return contextlib.nullcontext
    return functools.partial(threadpoolctl.ThreadpoolController().limit, limits=1, user_api="blas")


def _keep_freed_memory() -> None:
    """Have glibc's malloc keep freed arrays for the next ones, instead of faulting their pages in again each time.

    It does so up to the size of the largest block that was freed, 32 MiB at most. Source: mallopt(3), on
    M_MMAP_THRESHOLD. Elsewhere this is of no effect.
    """
    np.empty(2**25 - 2**13, np.uint8)  # freed at once


def check_model(model: Any) -> None:
    """Raise NotImplementedError, with the reason, for a model of which a part has no bound."""
    for layer in model.flat_layers():
        layer_bounds.check_layer(layer)
        if layer.dtype != model.dtype:
            raise NotImplementedError(f"no error bound for the layer {layer.name!r} of another dtype than the model's.")
        found = [*layer.regularizers.values(), layer.activity_regularizer]
        for regularizer in found:
            if regularizer is not None:
                loss_bounds.check_regularizer(regularizer)
        for constraint in layer.constraints.values():
            optimizer_bounds.check_constraint(constraint)
    names = [layer.name for layer in model.flat_layers()]
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise NotImplementedError(
            f"two layers are called {twice[0]!r}: what was recorded of them cannot be told apart."
        )
    loss_bounds.check_loss(model.loss)
    if model.loss.dtype != model.dtype:
        raise NotImplementedError(f"no error bound for the loss {model.loss.name!r} of another dtype than the model's.")
    optimizer_bounds.check_optimizer(model.optimizer)


def judge_start(model: Any, weights: dict[str, Array]) -> list[Check]:
    """The initial weights of a model that was made from the trainer's seed, against the trainer's: bit for bit.

    weights: "layer/name" -> array, as State.weights. Where a backend's normal numbers are not predicted in every bit,
    within their bound: see noise_bounds.
    """
    found = []
    for layer in model.flat_layers():
        for name, own in _weights_of(layer).items():
            got = weights.get(f"{layer.name}/{name}")
            if got is None:
                found.append(_not_observed("weight", layer.name, name, -1, "the trainer has no such weight"))
                continue
            drawn = _normals(layer, name, own)
            orthogonal = isinstance(getattr(layer, f"{name}_initializer", None), initializers.Orthogonal)
            if orthogonal and config.random_stream() in ("jax", "torch"):
                reason = f"an orthogonal matrix is not predicted on {config.random_stream()}"
                found.append(_not_observed("weight", layer.name, name, -1, reason))
            elif drawn is None:
                found.append(_exactly("weight", layer.name, name, -1, got, own, "the initializer, from its seed"))
            else:
                found.append(_compare("weight", layer.name, name, -1, got, own, drawn, "initializers"))
    return found


def _normals(layer: Layer, name: str, own: Array) -> Ball | None:
    """The ball of initial weights that are normal numbers; None of others, and where these are predicted exactly."""
    initializer = getattr(layer, f"{name}_initializer", None)
    mean, stddev = 0.0, None
    if isinstance(initializer, (initializers.RandomNormal, initializers.TruncatedNormal)):
        mean, stddev = initializer.mean, initializer.stddev
    elif isinstance(initializer, initializers.VarianceScaling) and initializer.distribution != "uniform":
        stddev = math.sqrt(initializer.variance(own.shape))
    if not stddev:
        return None
    return noise_bounds.normal(own, mean, stddev, config.random_stream(), Arithmetic.of(layer.dtype))


_SHOWN = 8  # elements of a divergent tensor that a check lists


def _weights_of(layer: Layer) -> dict[str, Array]:
    return {**layer.parameters, **layer.state}


# ---------------------------------------------------------------------------------------------- checks


def _not_observed(quantity: str, layer: str | None, name: str, step: int, reason: str) -> Check:
    return Check(quantity, layer, name, step, NOT_OBSERVED, reason=reason)


def _exactly(quantity: str, layer: str | None, name: str, step: int, got: Any, own: Any, what: str) -> Check:
    """Numbers that are predicted, not computed: equal in every bit, or divergent."""
    got, own = np.asarray(got), np.asarray(own)
    if got.shape != own.shape:
        reason = f"shape {got.shape}, expected {own.shape}: {what}"
        return Check(quantity, layer, name, step, DIVERGENT, np.inf, np.inf, reason=reason)
    differs = _differs(got, own)
    if not differs.any():
        return Check(quantity, layer, name, step, BIT_EQUAL, reason=what)
    place = tuple(int(i) for i in np.argwhere(differs)[0])
    reason = f"{int(differs.sum())} of {differs.size} differ from {what}"
    found = Check(quantity, layer, name, step, DIVERGENT, np.inf, np.inf, place=place, bound=0.0, reason=reason)
    found.got, found.expected, found.truth = float(got[place]), float(own[place]), float(own[place])
    for other in np.argwhere(differs)[:_SHOWN]:
        at = tuple(int(i) for i in other)
        found.elements.append(Element(at, float(got[at]), float(own[at]), float(own[at]), 0.0))
    return found


def _miscounted(step: int, reason: str) -> Check:
    return Check("batch", None, "count", step, DIVERGENT, np.inf, np.inf, reason=reason)


def _differs(got: Array, own: Array) -> Array:
    """Where the bits differ, but for those of a zero's sign or of a NaN."""
    differs = np.asarray(got != own)
    if got.dtype.kind == "f" and differs.any():
        differs &= ~(np.isnan(got) & np.isnan(own))
    return differs


def _compare(
    quantity: str,
    layer: str | None,
    name: str,
    step: int,
    got: Any,
    own: Any,
    ball: Ball,
    formula: str,
    inputs: dict[str, Any] | None = None,
    own_ball: Ball | None = None,
    at: Array | None = None,
) -> Check:
    """A computed tensor against its ball. inputs: name -> array of the tensor's shape, or a function of the place.

    own: minidl's; None where it was not computed, being known to be another: the true value, rounded, stands for it.
    own_ball: where minidl's own result is of other numbers than what was recorded, its ball. at: the flat places that
    the balls are of; at all others the recorded and minidl's own are known to be equal.
    """
    arithmetic = ball.arithmetic
    got, own = np.asarray(got, arithmetic.dtype), None if own is None else np.asarray(own, arithmetic.dtype)
    shape = ball.shape if at is None or own is None else own.shape
    if got.shape != shape:
        reason = f"shape {got.shape}, expected {shape}"
        return Check(quantity, layer, name, step, DIVERGENT, np.inf, np.inf, formula=formula, reason=reason)
    if not math.prod(ball.shape):
        return Check(quantity, layer, name, step, BIT_EQUAL, formula=formula)
    flat, own_flat = got.reshape(-1), None if own is None else own.reshape(-1)
    if at is not None and own_flat is not None and at.size < flat.size:
        flat, own_flat = flat[at], own_flat[at]

    def place_of(index: Any) -> tuple[int, ...]:
        index = int(index if at is None else at[index])
        return tuple(int(i) for i in np.unravel_index(index, shape)) if len(shape) > 1 else (index,) * len(shape)

    found = _within_floor(got, own, ball) if isinstance(ball, Product) and own_ball is None else None
    if found is None:
        own_ball = None if own_ball is None or own_ball is ball else own_ball.reshape(-1)
        ball = ball.reshape(-1)
        found = _worst(flat, own_flat, ball, own_ball)
    verdict = BIT_EQUAL if found.same else WITHIN_BOUND if found.share <= 1 else DIVERGENT
    reason = f"{found.beyond} of {got.size} beyond the bound" if verdict == DIVERGENT else ""
    if own_flat is None and verdict == DIVERGENT:
        reason += "; minidl's own were not computed in this step, the true values stand for them"
    if found.unbounded:
        verdict = DIVERGENT if verdict == DIVERGENT else NOT_OBSERVED
        what = f"{found.unbounded} of {got.size} have no bound: beyond {arithmetic.dtype}, or over 0"
        reason = f"{reason}; {what}" if reason else f"{what}; the others are within theirs"
    worst, place, truth = found.index, place_of(found.index), found.truth
    unit = np.spacing(flat.dtype.type(max(abs(truth), arithmetic.smallest)))
    wide = arithmetic.wide(flat[worst])
    elements = []
    if verdict == DIVERGENT:
        own_flat = ball.value.astype(flat.dtype) if own_flat is None else own_flat
        share = _share(flat, ball, _differs(flat, own_flat))
        for i in np.argsort(-share, kind="stable")[:_SHOWN]:
            if share[i] > 1:
                numbers = (flat[i], own_flat[i], ball.value[i], ball.radius[i])
                elements.append(Element(place_of(i), *(float(number) for number in numbers)))
    named = (inputs or {}).items()
    given = {key: np.asarray(value(place) if callable(value) else value[place]) for key, value in named}
    return Check(
        quantity,
        layer,
        name,
        step,
        verdict,
        ulps=_ulps(wide, truth, unit),
        share=found.share,
        own_share=found.own_share,
        place=place,
        got=float(wide),
        expected=float(flat.dtype.type(truth) if own_flat is None else own_flat[worst]),
        truth=float(truth),
        bound=float(found.bound),
        inputs=given,
        formula=formula,
        reason=reason,
        elements=elements,
    )


def _ulps(got: Any, truth: Any, unit: Any) -> float:
    if math.isfinite(got) and math.isfinite(truth):
        return float(abs(got - truth) / unit)
    return 0.0 if got == truth or (math.isnan(got) and math.isnan(truth)) else np.inf


@dataclass
class _Worst:
    """Of a tensor: whether it is minidl's own in every bit, its worst element, and how many have which fault."""

    same: bool = True
    index: int = 0
    truth: Any = 0.0  # of the worst element
    bound: Any = 0.0
    share: float = -1.0
    own_share: float = 0.0
    beyond: int = 0
    unbounded: int = 0


def _within_floor(got: Array, own: Array | None, product: Product) -> _Worst | None:
    """Of arrays whose errors all lie within a floor of the radius, which then is computed for a few elements alone.

    None where one does not. Some rows at a time, so that what is made of them stays in a cache; the worst element is
    sought among those with the largest error in each of these blocks, and there alone minidl's own are looked at. In
    the narrow type: see _Bounds.left.
    """
    sums, (height, width), left = product.bounds, product.shape, product.bounds.left
    gamma, tried = product.arithmetic.gamma(sums.n), []
    found = _Worst(same=own is not None and bool((got == own).all()))
    rows = min(height, max(1, 2 * CHUNK // width))
    wide, (narrow, buffer) = np.empty((rows, width), product.arithmetic.wide), np.empty((2, rows, width), got.dtype)
    for start in range(0, height, rows):
        at, count = slice(start, start + rows), min(rows, height - start)
        truth, error = narrow[:count], buffer[:count]
        truth[...] = product.truth(at, wide[:count])
        floor = sums.floor(at)
        np.subtract(got[at], truth, out=error)
        np.abs(error, out=error)
        if not (error <= floor).all():
            held = error <= np.maximum(floor, left * gamma * np.abs(truth))  # Σ|a||b| is at least |Σ a b|, too
            if not held.all():
                row, column = divmod(np.flatnonzero(~held), width)
                if len(row) > _FEW:
                    return None
                if not (error[row, column] <= left * product.at(start + row, column).radius).all():
                    return None
        tried.append(start * width + int(error.argmax()))
    ball = product.at(*divmod(np.array(tried), width))
    share = ball.share(got.reshape(-1)[tried])
    worst = int(share.argmax())
    found.index, found.share = tried[worst], float(share[worst])
    found.own_share = 0.0 if own is None else float(ball.share(own.reshape(-1)[tried]).max())
    found.truth, found.bound = ball.value[worst], ball.radius[worst]
    return found


_FEW = CHUNK // 32  # elements beyond a floor whose radius is computed one by one


def _worst(got: Array, own: Array | None, ball: Ball, own_ball: Ball | None) -> _Worst:
    """Of flat arrays, a cache's worth of elements at a time."""
    found = _Worst()
    for start in range(0, got.size, CHUNK):
        at = slice(start, start + CHUNK)
        part, held = (got[at], ball[at]) if got.size > CHUNK else (got, ball)
        own_part = None if own is None else own[at]
        differs = np.ones(part.shape, bool) if own_part is None else _differs(part, own_part)
        same = not differs.any()
        share = _share(part, held, differs)
        index = int(share.argmax())
        worst = float(share[index])
        if worst > found.share:
            found.share, found.index = worst, start + index
        if worst > 1:
            found.beyond += int((share > 1).sum())
        if not same:
            found.same = False
            if held.radius.max() == np.inf:
                found.unbounded += int((held.unbounded & differs).sum())
        if own_part is None:
            continue
        if not same or own_ball is not None:
            share = _share(own_part, held if own_ball is None else own_ball[at], differs)
            worst = float(share.max())
        found.own_share = max(found.own_share, worst)
    found.truth, found.bound = ball.value[found.index], ball.radius[found.index]
    return found


def _share(numbers: Array, ball: Ball, differs: Array) -> Array:
    """ball.share(numbers), but 0 where the recorded and minidl's are the same infinity or NaN."""
    share: Array = numbers - ball.value
    np.abs(share, out=share)
    if ball.is_plainly_exact and not share.any():
        return share
    share /= np.maximum(ball.radius, _LEAST)
    if share.max() < _MOST:  # of no element a NaN, nor a radius of 0 missed
        return share
    return np.where(~differs & ~np.isfinite(numbers), 0, ball.share(numbers))


# a radius of 0 as a divisor, which makes 0 of an exact result, of any other more than that
_LEAST, _MOST = 1e-300, 1e30


# ------------------------------------------------------------------------------------------------ batch


class Rows:
    """The rows of the data, and the order in which they should come.

    order: the rows' numbers in this epoch; what they are, in words. None where they are not predicted, why: the reason.
    """

    def __init__(
        self, data: tuple[Any, ...], batch_size: int | None, shuffle: bool | str, seed: int | None, layers: list[Layer]
    ) -> None:
        self.arrays = [None if part is None else np.asarray(part) for part in (*data, None)[:3]]
        assert self.arrays[0] is not None
        self.samples = len(self.arrays[0])
        self.batch_size = batch_size or 32
        self.batches = -(-self.samples // self.batch_size)
        self.order: Array | None = None
        self.why = "the state of the generator that draws it was not recorded"
        self.what = "the rows that the seed predicts"
        self._shuffle, self._last = shuffle, (0, -1)
        stream, self._drawn = config.random_stream(), False
        if not shuffle:
            self.order, self.what = np.arange(self.samples), "the rows as they stand"
        elif stream.startswith("tensorflow"):
            self.why = "without keras.utils.set_random_seed TensorFlow draws it from the operating system's entropy"
            if seed is not None and shuffle == "batch":
                self.order = random.batch_shuffle_orders(self.samples, self.batch_size, seed)
            elif seed is not None:
                self.order = random.shuffle_order(self.samples, seed)
        elif stream == "torch" and shuffle == "batch" and any(_is_unseeded(layer) for layer in layers):
            self.why = "between the batches the masks of Dropout layers without a seed come from the same generator"
        else:
            self._drawn, self.what = stream in ("jax", "torch"), "the rows that the generator's state predicts"
        self._left: collections.Counter[bytes] = collections.Counter()

    def expected(self, step: Step) -> list[Array | None] | None:
        """x, y and the weights of a batch, where the order is known."""
        if self._drawn and step.batch == 0:
            self.order = None
            if step.shuffle_state is not None:
                generator = random.mt19937_in(step.shuffle_state)
                self.order = random.epoch_order(self.samples, self.batch_size, self._shuffle, generator)
        if self.order is None:
            return None
        rows = self.order[step.batch * self.batch_size : (step.batch + 1) * self.batch_size]
        return [None if part is None else part[rows] for part in self.arrays]

    def miscounted(self, step: Step) -> str:
        """What is wrong with the number of batches, now that a step has come; "" for nothing."""
        last, self._last = self._last, (step.epoch, step.batch)
        if step.batch >= self.batches:
            return f"batch {step.batch} of epoch {step.epoch} came, counted from 0, {self._wanted}"
        return self._cut_short(last) if step.epoch != last[0] and last[1] >= 0 else ""

    def missing(self, epochs: int | None) -> str:
        """What is missing at the end of a fit of so many epochs; "" for nothing."""
        short = self._cut_short(self._last)
        if not short and epochs is not None and self._last[0] + 1 < epochs:
            short = f"the fit ended after {self._last[0] + 1} of {epochs} epochs"
        return short

    def _cut_short(self, last: tuple[int, int]) -> str:
        epoch, batch = last
        return f"epoch {epoch} ended after {batch + 1} batches, {self._wanted}" if batch + 1 < self.batches else ""

    @property
    def _wanted(self) -> str:
        return f"where {self.samples} rows make {self.batches} of {self.batch_size}"

    def strangers(self, step: Step, dtype: str) -> int:
        """How many rows of the batch are none of those that the epoch has left."""
        parts = [part for part in self.arrays if part is not None]
        if step.batch == 0:
            self._left = collections.Counter(_row_keys(parts, self.samples, dtype))
        batch = [part for part, known in zip((step.x, step.y, step.sample_weight), self.arrays, strict=True)
                 if known is not None and part is not None]  # fmt: skip
        if len(batch) != len(parts):
            return 0
        unknown = 0
        for key in _row_keys(batch, len(batch[0]), dtype):
            unknown += not self._left[key]
            self._left[key] -= 1
        return unknown


def _is_unseeded(layer: Layer) -> bool:
    return isinstance(layer, Dropout) and layer.draws_globally


def _row_keys(parts: list[Array], rows: int, dtype: str) -> list[bytes]:
    cast = [np.ascontiguousarray(np.asarray(part, dtype)).reshape(rows, -1) for part in parts]
    return [b"".join(part[i].tobytes() for part in cast) for i in range(rows)]


# ---------------------------------------------------------------------------------------------- metrics


class _Mean:
    """A running mean as Keras keeps it, total and count in the narrow type, known from what was reported of it.

    own: minidl's own total, which does not go on from what was reported.
    """

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic
        self.reset()

    def reset(self) -> None:
        self.total = self.own = self.count = self.arithmetic.given(0.0)

    def add(self, total: Ball, count: Ball) -> tuple[Ball, Ball]:
        """The mean after a batch's Σ w·value and Σ w, and minidl's own."""
        self.total, self.own, self.count = self.total + total, self.own + total, self.count + count
        if self.count.value == 0:  # 0, also where the total is a NaN
            return self.count, self.count
        return self.total / self.count, self.own / self.count

    def reported(self, value: Any) -> None:
        """Go on from a reported mean: the total is within u of it times the count, which the product rounds again."""
        found = self.arithmetic.given(value).times(self.count, 2)
        if np.isfinite(found.value) and found.radius < self.total.radius:
            self.total = found


# ----------------------------------------------------------------------------------------------- a step


# elements of the update that are looked at also where all are minidl's in every bit: of more, in every so many-th step
_SAMPLE, _SAMPLED = 2**11, 8


@dataclass
class _Places:
    """Elements of a trained weight: at, where they are among all that were picked; within, counted from its start."""

    segment: Segment
    name: str
    at: slice
    within: Array

    def of(self, flat: Any) -> Any:
        """These elements of all of the weight's."""
        return flat[self.within] if self.within.size < self.segment.stop - self.segment.start else flat


class _StepJudge:
    """One step, from the top: what each part left for the next."""

    def __init__(self, judge: Judge, step: Step) -> None:
        self.judge, self.step = judge, step
        self.model, self.layers, self.arithmetic = judge.model, judge.layers, judge.arithmetic
        self.checks: list[Check] = []
        self.noise: dict[str, Array] = {}
        self.noise_balls: dict[
            str, Ball
        ] = {}  # of noise that was not recorded, where the seed does not predict its bits
        self.passed: dict[str, layer_bounds.Passed] = {}
        self.weights: dict[str, layer_bounds.Weights] = {}
        self.gradients: dict[str, Any] = {}  # as recorded, or where they were not the balls
        self.outputs_observed = self.own_gradients = True  # the latter: whether minidl's own were computed

    def run(self) -> list[Check]:
        self._set_state(self.step.before)
        batch = self._batch()
        if batch is None:
            return [*self.checks, *self._nothing_to_run()]
        x, self.y, self.sample_weight = batch
        self._predict_noise(x.shape)
        self._forward(x)
        self._losses()
        self._metrics()
        self._gradients()
        self._update()
        return self.checks

    def _note(self, quantity: str, layer: str | None, name: str, *args: Any, **kwargs: Any) -> None:
        self.checks.append(_compare(quantity, layer, name, self.step.number, *args, **kwargs))

    def _unseen(self, quantity: str, layer: str | None, name: str, reason: str = "not recorded") -> None:
        self.checks.append(_not_observed(quantity, layer, name, self.step.number, reason))

    def _exactly(self, quantity: str, layer: str | None, name: str, got: Any, own: Any, what: str) -> None:
        self.checks.append(_exactly(quantity, layer, name, self.step.number, got, own, what))

    # ------------------------------------------------------------------------------ state and batch

    def _set_state(self, state: State) -> None:
        """Write the recorded weights, slots and seeds into the model."""
        state.write_to(self.model)
        self.model.optimizer._batches = self.batches
        for layer in self.layers:
            self.weights[layer.name] = {name: self.arithmetic.given(own) for name, own in _weights_of(layer).items()}

    @property
    def batches(self) -> int:
        """Batches before this one: with accumulated gradients, counted from a fit that starts between two updates."""
        every = self.model.optimizer.gradient_accumulation_steps or 1
        return int(self.step.before.iterations) * every + self.step.number % every

    def _batch(self) -> tuple[Array, Array, Array | None] | None:
        """The batch as minidl takes it, after a look at its rows; None if it is not known."""
        step, rows = self.step, self.judge.rows
        expected = None if rows is None else rows.expected(step)
        recorded = [step.x, step.y, step.sample_weight]
        miscounted = "" if rows is None else rows.miscounted(step)
        if miscounted:
            self.checks.append(_miscounted(step.number, miscounted))
        if rows is not None and step.batch >= rows.batches:
            rows = expected = None  # there are no rows for it
        if rows is not None and step.x is not None and (step.sample_weight is None) != (rows.arrays[2] is None):
            reason = "none came, where there should be some" if step.sample_weight is None else "there should be none"
            found = Check("batch", None, "sample_weight", step.number, DIVERGENT, np.inf, np.inf, reason=reason)
            self.checks.append(found)
        if rows is not None and expected is not None:
            for name, got, own in zip(("x", "y", "sample_weight"), recorded, expected, strict=True):
                if own is not None and got is not None:
                    own = np.asarray(own, self.model.dtype).reshape(-1)
                    got = np.asarray(got, self.model.dtype).reshape(-1)
                    self._exactly("batch", None, name, got, own, rows.what)
                elif own is not None:
                    self._unseen("batch", None, name)
        elif rows is not None and step.x is not None:
            strangers = rows.strangers(step, self.model.dtype)
            verdict = DIVERGENT if strangers else BIT_EQUAL
            reason = f"{strangers} rows are not among those that the epoch has left" if strangers else "each row once"
            worst = np.inf if strangers else 0.0
            self.checks.append(Check("batch", None, "rows", step.number, verdict, worst, worst, reason=reason))
            self._unseen("batch", None, "order", f"not predicted: {rows.why}")
        if step.x is None:
            if expected is None:
                self._unseen("batch", None, "x")
                return None
            recorded = list(expected)
        x, y, sample_weight = recorded
        x = np.asarray(x, self.model.dtype)
        x = x[:, None] if x.ndim == 1 else x
        shape = self.model.compute_output_shape(x.shape)
        loss = self.model.loss
        labels = checks.labels(
            y, self.model.dtype, shape, sparse=loss.sparse, any_shape=loss.any_labels, check_finite=False
        )
        weights = checks.weights_per_sample(labels, sample_weight, None, self.model.dtype, shape, check_finite=False)
        return x, labels, weights

    def _nothing_to_run(self) -> Iterator[Check]:
        number = self.step.number
        for quantity in QUANTITIES[1:]:
            yield _not_observed(quantity, None, quantity, number, "the batch is not known")

    # ---------------------------------------------------------------------------------------- noise

    def _predict_noise(self, shape: Any) -> None:
        """The masks and noises that the seeds predict, against the recorded; the counter one on."""
        states = self.step.noise_states
        if states is None:
            self._predict_noise_of_seeds(shape)
            return
        generator = random.mt19937_in(states[0])
        with random.using_torch_generator(generator):
            self._predict_noise_of_seeds(shape)
        self._exactly("mask", None, "generator", states[1], random.mt19937_state(generator), "as many numbers on")

    def _predict_noise_of_seeds(self, shape: Any) -> None:
        step = self.step
        recorded = step.noise or {}
        for layer in self.layers:
            generator = getattr(layer, "seed_generator", None)
            if generator is None:
                shape = layer.compute_output_shape(shape)
                continue
            own = self._draw(layer, shape)
            got = recorded.get(layer.name)
            if isinstance(layer, (GaussianNoise, GaussianDropout)) and own is not None:
                ball = noise_bounds.normal(own, *layer.moments, self._stream, self.arithmetic)
                if ball is not None:
                    self.noise_balls[layer.name] = ball
            known = layer.name in step.before.seeds or (step.noise_states is not None and _is_unseeded(layer))
            if known and own is not None:
                if got is None:
                    self._unseen("mask", layer.name, "noise")
                elif layer.name in self.noise_balls:
                    self._note(
                        "mask", layer.name, "noise", got, own, self.noise_balls[layer.name], "random.step_normal"
                    )
                else:
                    self._exactly("mask", layer.name, "noise", got, own, "what the seed predicts")
                after = step.after.seeds.get(layer.name)
                if after is not None:
                    wanted = np.asarray(generator.state)
                    self._exactly("mask", layer.name, "counter", np.asarray(after, np.int64), wanted, "one on")
            self.noise[layer.name] = own if got is None else np.asarray(got)
            if got is not None:
                self.noise_balls.pop(layer.name, None)
            if got is not None and self._stream == "jax" and isinstance(layer, (GaussianNoise, GaussianDropout)):
                # XLA makes one kernel of z · stddev + mean and of the layer's own operation, and may round once (FMA)
                # where the noise that was seen is rounded: it is off by its own rounding
                value = np.asarray(got, self.arithmetic.wide)
                self.noise_balls[layer.name] = Ball(value, self.arithmetic.unit * np.abs(value), self.arithmetic)

    @property
    def _stream(self) -> str:
        """Whose random numbers a training step draws."""
        stream = config.random_stream()
        return "tensorflow-xla" if self.model.jit_compile and stream == "tensorflow" else stream

    def _draw(self, layer: Any, shape: tuple[int, ...]) -> Any:
        with config.using_random_stream(self._stream):
            if isinstance(layer, (Dropout, AlphaDropout)):
                return np.broadcast_to(layer.draw_mask(shape), shape)
            held: dict[str, Array] = {}
            draw = layer._draw_normal

            def keep(*args: Any) -> Array:
                held["noise"] = draw(*args)
                return held["noise"]

            with _replaced(layer, "_draw_normal", keep):
                layer.forward(np.zeros(shape, layer.dtype), training=True)
            return held.get("noise")

    @contextlib.contextmanager
    def _replaying(self, layer: Any) -> Iterator[None]:
        """While open, the layer takes the recorded noise instead of drawing its own."""
        noise = self.noise.get(layer.name)
        if noise is None:
            yield
            return
        name = "draw_mask" if isinstance(layer, (Dropout, AlphaDropout)) else "_draw_normal"
        with _replaced(layer, name, lambda *args: noise):
            yield

    # -------------------------------------------------------------------------------------- forward

    def _forward(self, x: Array) -> None:
        """Each layer on what was recorded of the one before it."""
        ball = self.arithmetic.given(x)
        for layer in self.layers:
            x, ball = self._layer(layer, x, ball)
        self.y_pred, self.y_pred_ball = x, ball

    def _is_other(self, quantity: str, layer: str, *names: str) -> bool:
        """Whether minidl's own of a large model's tensors is known to be another, so that it tells nothing new.

        It is computed all the same in every so many-th step.
        """
        known = all((quantity, layer, name) in self.judge.other for name in names)
        return known and self.model.arena.size >= 2 * _SAMPLE and self.step.number % _SAMPLED > 0

    def _layer(self, layer: Any, x: Array, ball: Ball) -> tuple[Array, Ball]:
        step, name, given = self.step, layer.name, self.arithmetic.given
        noise = self.noise_balls.get(name, self.noise.get(name))
        passed = layer_bounds.forward(layer, ball, self.weights[name], noise)
        passed.lowest = layer is self.layers[0]
        pre = (step.pre_activations or {}).get(name)
        if pre is not None and self._is_other("pre_activation", name, "outputs"):
            layer.inputs, layer.pre_activations, own = x, None, None
        else:
            with self._replaying(layer):
                own = layer.forward(x, training=True)
        formula = type(layer).__name__
        if layer_bounds.ends_in_activation(layer):
            form = layer_bounds.form_of(layer)
            formula = f"ops.{form.name}"
            if layer.pre_activations is not x:  # a layer that is an activation and no more has its inputs for them
                if pre is None:
                    self._unseen("pre_activation", name, "outputs")
                else:
                    assert passed.pre_activations is not None
                    inputs: dict[str, Any] = {"inputs": lambda place: x[place[:-1]]}
                    self._note(
                        "pre_activation", name, "outputs", pre, layer.pre_activations, passed.pre_activations,
                        "ops.dense", inputs,
                    )  # fmt: skip
                    pre = np.asarray(pre, layer.dtype)
                    passed.pre_activations = given(pre)
                    layer.pre_activations, own = pre, layer.activation.forward(pre)
            assert passed.pre_activations is not None
            passed.outputs = form.value(passed.pre_activations)
        got = (step.activations or {}).get(name)
        if got is None:
            self._unseen("activation", name, "outputs")
            outputs, found = own, passed.outputs
            self.outputs_observed = False
        else:
            got = np.asarray(got, layer.dtype)
            before: Any = getattr(layer, "pre_activations", None)
            inputs = {"inputs": before} if np.shape(before) == got.shape else {}
            self._note("activation", name, "outputs", got, own, passed.outputs, formula, inputs)
            passes_on = own is x and not _differs(got, own).any()
            outputs, found = (x, ball) if passes_on else (got, given(got))
            self.outputs_observed = True
        passed.outputs = found
        if layer.outputs is not None:
            layer.outputs = outputs
        if layer.activity_regularizer is not None:
            layer.activity = outputs
        self.passed[name] = passed
        return outputs, found

    # ------------------------------------------------------------------------------- loss, penalties

    def _loss_inputs(self, loss: Any) -> tuple[Ball, Array, bool]:
        """What a loss is computed from, in balls and in numbers, and whether these are logits."""
        predictions, from_logits = training.loss_inputs(self.model, loss, self.y_pred)
        if predictions is self.y_pred:
            return self.y_pred_ball, predictions, from_logits
        source = training.logits_layer(self.model, self.y_pred)
        assert source is not None
        found = self.passed[source.name].pre_activations
        assert found is not None
        return found, predictions, from_logits

    def _losses(self) -> None:
        model, step = self.model, self.step
        p, _, from_logits = self._loss_inputs(model.loss)
        ball = loss_bounds.value(model.loss, self.y, p, from_logits, self.sample_weight)
        if model.loss_weight is not None:
            ball = ball * float(model.loss_weight)
        ball = ball.mean() if ball.ndim else ball
        own = training.data_loss(model, self.y, self.y_pred, self.sample_weight)
        if step.data_loss is None:
            self._unseen("loss", None, "data_loss")
        else:
            got = np.asarray(step.data_loss, model.dtype)
            got = got.mean() if got.ndim else got
            self._note("loss", None, "data_loss", got, own, ball, f"losses.{type(model.loss).__name__}")
            ball, own = self.arithmetic.given(got), got
        penalties = self._penalties()
        parts = [ball, *(found for found, _ in penalties)]
        numbers = [own, *(number for _, number in penalties)]
        self.total = bounds.concatenate([part.reshape(1) for part in parts]).sum() if penalties else ball
        self.own_total = sum(numbers[1:], numbers[0])
        if step.loss is None:
            self._unseen("loss", None, "loss")
        else:
            got = np.asarray(step.loss, model.dtype)
            got = got.mean() if got.ndim else got
            self._note("loss", None, "loss", got, self.own_total, self.total, "data + penalties")
            self.total, self.own_total = self.arithmetic.given(got), got

    def _penalties(self) -> list[tuple[Ball, Any]]:
        """Each penalty's ball and number, as recorded where it was."""
        found: list[tuple[str, str, Ball, Any]] = []
        for layer in self.layers:
            if layer.activity_regularizer is not None:
                outputs = self.passed[layer.name].outputs
                penalty = loss_bounds.penalty(layer.activity_regularizer, outputs)
                ball = penalty / float(len(outputs.value))
                found.append((layer.name, "activity", ball, layer.activity_regularizer))
        for layer in self.layers:
            for name, regularizer in layer.regularizers.items():
                if layer.trainable:
                    ball = loss_bounds.penalty(regularizer, self.weights[layer.name][name])
                    found.append((layer.name, name, ball, regularizer))
        own = training.penalties(self.model)
        recorded = self.step.penalties
        kept = []
        for i, (layer_name, name, ball, regularizer) in enumerate(found):
            if recorded is None or len(recorded) != len(found):
                reason = "not recorded" if recorded is None else f"{len(recorded)} penalties instead of {len(found)}"
                self._unseen("penalty", layer_name, name, reason)
                if recorded is not None:
                    self.checks[-1].verdict = DIVERGENT
                kept.append((ball, own[i]))
                continue
            self._note(
                "penalty", layer_name, name, recorded[i], own[i], ball, f"regularizers.{type(regularizer).__name__}"
            )
            number = np.asarray(recorded[i], self.model.dtype)
            kept.append((self.arithmetic.given(number), number))
        return kept

    # -------------------------------------------------------------------------------------- metrics

    def _metrics(self) -> None:
        """The reported running values, from those reported before this step and this step's outputs."""
        model, step, logs = self.model, self.step, self.step.logs
        if step.batch == 0:
            model.reset_metrics()
            for mean in (*self.judge.means.values(), *self.judge.running):
                if mean is not None:
                    mean.reset()
        training.update_metrics(model, self.own_total, self.y, self.y_pred, self.sample_weight)
        own = training.metric_results(model)
        size = float(len(self.y))
        count = self.arithmetic.given(size)
        self._mean("loss", "loss", self.total * size, count, own)
        weighted = len(model.compiled_metrics) - model.weighted_count
        names = [name for name in own if name != "loss"]
        for i, metric in enumerate(model.compiled_metrics):
            name = names[i] if len(names) == len(model.compiled_metrics) else metric.name
            weight = self.sample_weight if i >= weighted else None
            same_type = metric.dtype == model.dtype
            found = self._batch_mean(metric, weight) if same_type else None
            if found is not None:
                self._mean(name, str(i), *found, own, rooted=isinstance(metric, metrics.RootMeanSquaredError))
                continue
            ball, reason = None, f"a metric in {metric.dtype}, the model in {model.dtype}"
            if same_type:
                ball, reason = self._running(self.judge.running[i], weight)
            formula = f"metrics.{type(metric).__name__}"
            if logs is None or name not in logs:
                self._unseen("metric", None, name)
            elif ball is not None:
                self._note("metric", None, name, logs[name], own[name], ball, formula)
            elif not self.outputs_observed:
                self._unseen("metric", None, name, "the outputs were not recorded")
            elif not _differs(np.asarray(logs[name]), np.asarray(own[name])).any():
                self._exactly("metric", None, name, logs[name], own[name], formula)
            else:
                self._unseen("metric", None, name, f"not bit-equal, and no error bound: {reason}")

    def _mean(
        self, name: str, key: str, total: Ball, count: Ball, own: dict[str, Any], *, rooted: bool = False
    ) -> None:
        """A running mean, or the root of one."""
        mean, logs = self.judge.means[key], self.step.logs
        ball, own_ball = mean.add(total, count)
        if logs is None or name not in logs:
            self._unseen("metric", None, name)
            return
        if rooted:
            ball, own_ball = bounds.sqrt(ball), bounds.sqrt(own_ball)
        self._note("metric", None, name, logs[name], own[name], ball, "metrics.Mean", own_ball=own_ball)
        if not rooted:
            mean.reported(logs[name])

    def _batch_mean(self, metric: Any, weight: Array | None) -> tuple[Ball, Ball] | None:
        """Σ w·value and Σ w of a metric that is a mean; None for another."""
        if isinstance(metric, metrics.LossMetric):
            loss = metric.loss
            try:
                loss_bounds.check_loss(loss)
            except NotImplementedError:
                return None
            p, predictions, from_logits = (
                self._loss_inputs(loss) if loss.recovers_logits() else (self.y_pred_ball, self.y_pred, loss.from_logits)
            )
            y = checks.labels(self.y, self.model.dtype, predictions.shape, sparse=loss.sparse, check_finite=False)
            if metric.reduced:
                values = loss_bounds.value(loss, y, p, from_logits, None)
            else:
                values = loss_bounds.samples(loss, y, p, from_logits)
        elif isinstance(metric, metrics.RootMeanSquaredError):
            y = checks.labels(self.y, self.model.dtype, self.y_pred.shape, sparse=False, check_finite=False)
            values = bounds.square(self.y_pred_ball - y)
        elif getattr(metric, "_fn", None) in _ACCURACIES:
            own = metric._fn(self.y, self.y_pred, **metric._fn_kwargs)
            values = Ball(self.arithmetic.given(own).value, self._unsure(metric) + np.zeros(own.shape), self.arithmetic)
        else:
            found = metric_bounds.sample_values(metric, self.y, self.y_pred_ball)
            if found is None:
                return None
            values = found
        return self._samplewise(values, weight)

    def _unsure(self, metric: Any) -> Any:
        """1 where the balls of the outputs leave open whether an accuracy counts a match, else 0."""
        p = metric_bounds.compared(self.y_pred_ball)
        if not p.radius.any():
            return 0.0
        function, arguments = metric._fn, metric._fn_kwargs
        if function in (metrics.accuracy, metrics.binary_accuracy):
            at = self.y if function is metrics.accuracy else arguments.get("threshold", 0.5)
            return (np.abs(p.value - at) <= p.radius).astype(float)
        if arguments.get("from_sorted_ids"):
            return 1.0
        numbers = self.y.argmax(axis=-1) if function in _CATEGORICAL else self.y.reshape(p.shape[:-1])
        labels = numbers.astype(np.int64)
        k = arguments.get("k", 5 if "top_k" in function.__name__ else 1)
        low, high = p.value - p.radius, p.value + p.radius
        own_low, own_high = (np.take_along_axis(end, labels[..., None], axis=-1) for end in (low, high))
        might = (high >= own_low).sum(axis=-1) - 1  # that others might be higher; its own end is
        must = (low > own_high).sum(axis=-1)
        return ((might >= k) & (must < k)).astype(float)

    def _samplewise(self, values: Ball, weight: Array | None) -> tuple[Ball, Ball]:
        """metrics._samplewise and its sums in balls."""
        if weight is None or values.ndim == 0:
            if values.ndim > 1:
                values = values.mean(tuple(range(1, values.ndim)))
            if values.ndim == 0:
                return values, self.arithmetic.given(1.0)
            return values.sum(), self.arithmetic.given(float(values.value.size))
        values, weight = metrics.same_rank(values, np.asarray(weight, self.model.dtype))
        rank = weight.ndim
        if values.ndim > rank:
            values = values.mean(tuple(range(rank, values.ndim)))
        weights = self.arithmetic.given(np.broadcast_to(weight, values.shape))
        values = values * weights
        if rank > 1:
            axes = tuple(range(1, rank))
            values, weights = values.mean(axes), weights.mean(axes)
        return values.sum(), weights.sum()

    def _running(self, running: Any, weight: Array | None) -> tuple[Ball | None, str]:
        """What a metric of counts or sums reports after this batch; None, and why."""
        if running is None:
            return None, "a metric of your own"
        try:
            running.add(self.y, self.y_pred_ball, weight)
            return running.result(), ""
        except metric_bounds.Unbounded as error:
            return None, str(error)

    # ------------------------------------------------------------------------------------ gradients

    def _gradients_are_other(self) -> bool:
        """Whether minidl's own gradients are not wanted: see _is_other; and all of the recorded are numbers."""
        recorded = self.step.gradients
        if recorded is None:
            return False
        named = [(layer.name, list(layer.parameters)) for layer in self.layers if layer.trainable and layer.parameters]
        return all(self._is_other("gradient", layer, *names) for layer, names in named) and all(
            bool(np.isfinite(gradient.sum())) for gradient in recorded.values()
        )

    def _gradients(self) -> None:
        """From the loss down to the first layer: see training.backward."""
        model = self.model
        self.own_gradients = not self._gradients_are_other()
        if self.own_gradients:
            with _without_gradient_of_inputs(self.layers[0]):
                training.backward(model, self.y, self.y_pred, self.sample_weight)
            training.add_penalty_gradients(model)
        p, predictions, from_logits = self._loss_inputs(model.loss)
        d = loss_bounds.gradient(model.loss, self.y, p, from_logits, self.sample_weight)
        d = self._scaled(d if model.loss_weight is None else d * float(model.loss_weight))
        layers = self.layers
        if predictions is not self.y_pred:
            source = training.logits_layer(model, self.y_pred)
            assert source is not None
            at = layers.index(source)
            penalized = [layer for layer in layers[at:] if layer.activity_regularizer is not None]
            for layer in penalized:
                passed = self.passed[source.name]
                assert passed.pre_activations is not None
                form = layer_bounds.form_of(source)
                d = d + form.backward(self._activity_gradient(layer), passed.pre_activations, passed.outputs)
            d = self._backward(source, d, layer_bounds.backward_from_pre_activations)
            layers = layers[:at]
        for layer in reversed(layers):
            if layer.activity_regularizer is not None:
                d = d + self._activity_gradient(layer)
            d = self._backward(layer, d, layer_bounds.backward)

    def _scaled(self, d: Ball) -> Ball:
        factor = self.model.optimizer.loss_scale_factor
        return d if factor is None else d * float(factor)

    def _activity_gradient(self, layer: Layer) -> Ball:
        outputs = self.passed[layer.name].outputs
        gradient = loss_bounds.penalty_gradient(layer.activity_regularizer, outputs)
        return self._scaled(gradient / float(len(outputs.value)))

    def _backward(self, layer: Layer, d: Ball, backward: Any) -> Ball:
        """One layer's gradients, with their penalties', checked; what the layer below receives."""
        d_inputs, found = backward(layer, d, self.passed[layer.name], self.weights[layer.name])
        if not layer.trainable:
            return d_inputs
        recorded = self.step.gradients
        for name in reversed(layer.parameters):
            ball = found[name]
            if name in layer.regularizers:
                penalty = loss_bounds.penalty_gradient(layer.regularizers[name], self.weights[layer.name][name])
                ball = ball + self._scaled(penalty)
            key = f"{layer.name}/{name}"
            got = None if recorded is None else recorded.get(key)
            if got is None:
                self._unseen("gradient", layer.name, name)
                self.gradients[key] = ball
                continue
            own = layer.grads[name] if self.own_gradients else None
            self._note("gradient", layer.name, name, got, own, ball, f"{type(layer).__name__}.backward")
            layer.grads[name][...] = got
            self.gradients[key] = layer.grads[name]
        return d_inputs

    # ------------------------------------------------------------------------------- slots, weights

    def _update(self) -> None:
        """The optimizer's step, the constraints, the layers' state; see optimizer_bounds.update.

        What minidl makes of the recorded gradients and slots is one of the results that the balls hold. So they are
        made for the elements in which the trainer's differ from it, and beside these now and then for a few others.
        """
        model, optimizer, step = self.model, self.model.optimizer, self.step
        rate = self.arithmetic.given(self._learning_rate())
        optimizer.apply(model.arena)
        training.apply_constraints(model)
        at, chain_differs = self._places()
        places = list(self._in_segments(at))
        theta = self._picked(step.before.weights, places)
        before, after = (
            {slot: self._picked(state.slots[slot], places) for slot in optimizer.slots}
            | {name: self.arithmetic.given(state.slots[name][""]) for name in optimizer.scalars}
            for state in (step.before, step.after)
        )
        number = self.batches // (optimizer.gradient_accumulation_steps or 1) + 1
        arguments = optimizer, model.arena, self.arithmetic, rate, number, self.batches, before
        gradients = self._picked(self.gradients, places)
        found = chained = optimizer_bounds.Update(*arguments, after)
        ball = own_ball = optimizer_bounds.update(found, theta, gradients, at) if at.size else theta
        if chain_differs:
            chained = optimizer_bounds.Update(*arguments, {})
            own_ball = optimizer_bounds.update(chained, theta, gradients, at)
        for slot in optimizer.slots:
            self._slot(slot, found.slots.get(slot, before[slot]), chained.slots.get(slot, before[slot]), places)
        for name in optimizer.scalars:
            kept, chain = (one.slots.get(name, before[name]) for one in (found, chained))
            got, own, rule = step.after.slots[name][""], getattr(optimizer, name), type(optimizer).__name__
            self._note("slot", None, name, got, own, kept, rule, None, chain)
        what = "one more update where one is due"
        self._exactly("slot", None, "iterations", int(step.after.iterations), optimizer.updates, what)
        self._weights(ball, own_ball, places)

    def _places(self) -> tuple[Array, bool]:
        """The places in the arena that the balls are made for, ascending; whether any slot differs from minidl's."""
        optimizer, arena, after = self.model.optimizer, self.model.arena, self.step.after
        every, (turn, left) = max(1, arena.size // _SAMPLE), divmod(self.step.number, _SAMPLED)
        chosen = np.zeros(arena.size, bool)
        if every == 1 or not left or optimizer.scalars:
            chosen[turn % every :: every] = True
        if optimizer.clipnorm is not None or optimizer.global_clipnorm is not None:
            chosen[:] = True  # each depends on all
        chain_differs = any(_differs(after.slots[name][""], getattr(optimizer, name)) for name in optimizer.scalars)
        buffers = {slot: arena.views(getattr(optimizer, slot)) for slot in optimizer.slots}
        constraints = {layer.name: layer.constraints for layer in self.layers}
        for i, (segment, view) in enumerate(zip(arena.segments, arena.views(arena.theta), strict=True)):
            name, part = self.judge.segments[i], chosen[segment.start : segment.stop].reshape(segment.shape)
            for slot, views in buffers.items():
                differs = views[i] != after.slots[slot][name]
                if differs.any():
                    chain_differs = True
                    part |= differs
            if name in after.weights:
                part |= view != after.weights[name]
            if segment.name in constraints[segment.layer]:
                part[...] = True
        return np.flatnonzero(chosen), chain_differs

    def _picked(self, arrays: dict[str, Any], places: list[_Places]) -> Ball:
        """Of arrays or balls by the names of weights, the elements at these places."""
        parts = [one.of(arrays[one.name].reshape(-1)) for one in places]
        if any(isinstance(part, Ball) for part in parts):
            return bounds.concatenate(
                [part if isinstance(part, Ball) else self.arithmetic.given(part) for part in parts]
            )
        return self.arithmetic.given(np.concatenate([np.zeros(0, self.model.dtype), *parts]))

    def _in_segments(self, at: Array) -> Iterator[_Places]:
        """Of places in the arena, those in each weight."""
        for segment, name in zip(self.model.arena.segments, self.judge.segments, strict=True):
            first, last = np.searchsorted(at, (segment.start, segment.stop))
            yield _Places(segment, name, slice(int(first), int(last)), at[first:last] - segment.start)

    def _learning_rate(self) -> Any:
        optimizer, recorded = self.model.optimizer, self.step.before.learning_rate
        schedule = optimizer.learning_rate_argument
        if isinstance(schedule, LearningRateSchedule):
            ball = optimizer_bounds.learning_rate(schedule, self.batches)
            if ball is None:
                reason = f"no error bound for the schedule {type(schedule).__name__}"
                self._unseen("slot", None, "learning_rate", reason)
            else:
                self._note("slot", None, "learning_rate", recorded, optimizer.rate, ball, "schedules")
        return np.asarray(recorded, self.model.dtype)

    def _is_own(self, quantity: str, one: _Places, name: str) -> bool:
        """Note that a tensor is minidl's in every bit, where no element of it was picked."""
        if one.within.size:
            return False
        rule = type(self.model.optimizer).__name__
        self.checks.append(Check(quantity, one.segment.layer, name, self.step.number, BIT_EQUAL, formula=rule))
        return True

    def _slot(self, slot: str, ball: Ball, own_ball: Ball, places: list[_Places]) -> None:
        views, rule = self.model.arena.views(getattr(self.model.optimizer, slot)), type(self.model.optimizer).__name__
        for one, view in zip(places, views, strict=True):
            got, name = self.step.after.slots[slot][one.name], f"{slot}/{one.segment.name}"
            if self._is_own("slot", one, name):
                continue
            part = ball[one.at]
            own = part if own_ball is ball else own_ball[one.at]
            self._note("slot", one.segment.layer, name, got, view, part, rule, own_ball=own, at=one.within)

    def _weights(self, theta: Ball, own_theta: Ball, places: list[_Places]) -> None:
        """Trained weights after the constraints; the state of a layer; what must not change."""
        step = self.step
        both = (theta, own_theta) if own_theta is not theta else (theta,)
        parts = {one.name: one for one in places}
        training.finish_step(self.model)
        for layer in self.layers:
            for name, own in _weights_of(layer).items():
                key = f"{layer.name}/{name}"
                got = step.after.weights.get(key)
                if got is None:
                    self._unseen("weight", layer.name, name)
                elif key in parts:
                    if self._is_own("weight", parts[key], name):
                        continue
                    found, within = [ball[parts[key].at] for ball in both], parts[key].within
                    if name in layer.constraints:
                        constraint = layer.constraints[name]
                        whole = [ball.reshape(own.shape) for ball in found]
                        found = [optimizer_bounds.constrained(constraint, ball).reshape(-1) for ball in whole]
                    rule = type(self.model.optimizer).__name__
                    inputs = {"before": np.asarray(step.before.weights[key])}
                    self._note("weight", layer.name, name, got, own, found[0], rule, inputs, found[-1], within)
                elif name in self.passed[layer.name].state:
                    ball = self.passed[layer.name].state[name]
                    self._note("weight", layer.name, name, got, own, ball, "ops.moving_average")
                else:
                    self._exactly("weight", layer.name, name, got, step.before.weights[key], "what it was: not trained")


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of one object, for the time being."""
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)


@contextlib.contextmanager
def _without_gradient_of_inputs(lowest: Layer) -> Iterator[None]:
    """While open, the lowest layer, if it is a Dense, leaves out dL/d(inputs), which nobody wants."""
    if type(lowest) is not Dense:
        yield
        return

    def backward(d: Array) -> Array:
        ops.dense_gradients(d, lowest.inputs, out_kernel=lowest.grads["kernel"], out_bias=lowest.grads.get("bias"))
        return d

    with _replaced(lowest, "backward_from_pre_activations", backward):
        yield


_CATEGORICAL = (metrics.categorical_accuracy, metrics.top_k_categorical_accuracy)
_SPARSE = (metrics.sparse_categorical_accuracy, metrics.sparse_top_k_categorical_accuracy)
_ACCURACIES = (metrics.accuracy, metrics.binary_accuracy, *_CATEGORICAL, *_SPARSE)
