"""The metrics of minidl in ball arithmetic: what is added up of each batch, and what is reported of the sums.

A metric that is a mean over samples has each sample's value here; the mean itself is the judge's. The others, of counts
and sums, are a Running: it takes batch after batch, and gives the ball of what is reported after them. The forms are
those of keras/src/metrics; the values are those of minidl's metrics.py and ops.py.

Whole numbers whose sum stays below 1/u are added up exactly in any order, so that counts without weights are exact.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import config, metrics
from minidl.backend import Array
from minidl.oracle import bounds
from minidl.oracle.bounds import Arithmetic, Ball, where
from minidl.oracle.layer_bounds import inverse_norm, moments


class Unbounded(Exception):
    """Why a metric has no bound on what it was given."""


# ----------------------------------------------------------------------------------- values of samples


def sample_values(metric: Any, y: Array, p: Ball) -> Ball | None:
    """Each sample's value of a metric that is the mean of a cosine or a correlation; None for another."""
    function = getattr(metric, "_fn", None)
    if function not in _VALUES:
        return None
    axis = metric._fn_kwargs.get("axis", -1)
    axes = (axis,) if np.ndim(axis) == 0 else tuple(axis)
    labels, predictions = _same_rank(y, p)

    def along_last(ball: Ball) -> Ball:
        moved = ball.moved(lambda a: np.moveaxis(a, axes, range(-len(axes), 0)))
        return moved.reshape(*moved.shape[: moved.ndim - len(axes)], -1)

    return _VALUES[function](along_last(labels), along_last(predictions))


def _same_rank(y: Array, p: Ball) -> tuple[Ball, Ball]:
    labels, _ = metrics.same_rank(np.asarray(y, p.arithmetic.dtype), np.asarray(p.value))
    return p.arithmetic.given(labels).reshape(p.shape), p


def _cosine(y: Ball, p: Ball) -> Ball:
    epsilon = config.epsilon()
    return (y * inverse_norm(y, -1, epsilon) * (p * inverse_norm(p, -1, epsilon))).sum(-1)


def _standardized(a: Ball) -> Ball:
    """(a − ā) / σ, of σ by the mean of squares of what is centred already."""
    _, variance = moments(a, (a.ndim - 1,))
    return (a - a.mean(-1, keepdims=True)) / bounds.sqrt(variance)


def _pearson(y: Ball, p: Ball) -> Ball:
    return (_standardized(y) * _standardized(p)).mean(-1)


def _concordance(y: Ball, p: Ball) -> Ball:
    (y_mean, y_variance), (p_mean, p_variance) = (moments(a, (a.ndim - 1,)) for a in (y, p))
    norm = y_variance + p_variance + bounds.square(y_mean - p_mean)
    return ((y - p_mean) * (p - p_mean) * 2 / (norm + config.epsilon())).mean(-1)


_VALUES: dict[Any, Callable[[Ball, Ball], Ball]] = {
    metrics._cosine: _cosine,
    metrics.pearson_correlation: _pearson,
    metrics.concordance_correlation: _concordance,
}


# ------------------------------------------------------------------------------------------ comparisons


def compared(p: Ball) -> Ball:
    """Outputs as comparisons and arguments of maxima take them: a NaN may be any number.

    Backends and modes part there. As the largest of a row JAX and torch take the NaN, TensorFlow in a graph and under
    XLA each another; of thresholds at equal distances a NaN cast to an integer lies below all or above the lowest; and
    TensorFlow's graph optimizer makes p ≤ t of ¬(p > t), so that a NaN is negative run eagerly and not in a graph.
    tests/cases/metrics_of_nan.py shows it.
    """
    nan = np.isnan(p.value)
    if not nan.any():
        return p
    return Ball(np.where(nan, 0, p.value), np.where(nan, np.inf, p.radius), p.arithmetic)


# ------------------------------------------------------------------------------------------------ sums


def _is_whole(ball: Ball) -> bool:
    return not ball.radius.any() and bool((ball.value == np.floor(ball.value)).all())


def total(ball: Ball, axis: Any = None) -> Ball:
    """Σ over an axis, exact where whole numbers are added up that leave no doubt."""
    found = ball.sum(axis)
    if _is_whole(ball) and np.abs(ball.value).sum() * ball.arithmetic.unit < 1:
        return Ball(found.value, np.zeros_like(found.value), ball.arithmetic)
    return found


def _added(old: Ball, new: Ball) -> Ball:
    found = old + new
    if _is_whole(old) and _is_whole(new) and (np.abs(found.value) * found.arithmetic.unit < 1).all():
        return Ball(found.value, np.zeros_like(found.value), found.arithmetic)
    return found


def _divide_no_nan(a: Ball, b: Ball) -> Ball:
    """a / b, and 0 where b is 0 for certain."""
    zero = (b.value == 0) & (b.radius == 0)
    return where(zero, 0, a / where(zero, 1, b))


def _share_of(hits: Ball, misses: Ball, floors: tuple[float, float]) -> Ball:
    """hits / (hits + misses), 0 of none: rises with hits and falls with misses, so that the balls' ends bound it.

    floors: what neither may lie below, −∞ if there is nothing known; where one of them may be negative, as a quotient
    of balls. Three roundings: the sum, and a quotient that may be a product.
    """
    general = _divide_no_nan(hits, hits + misses)
    most, least = hits.magnitude, np.maximum(hits.value - hits.radius, floors[0])
    others, fewest = misses.magnitude, np.maximum(misses.value - misses.radius, floors[1])
    bounded = (least >= 0) & (fewest >= 0)
    value = hits.value / np.where(hits.value > 0, hits.value + misses.value, 1)
    high, low = most / np.where(most > 0, most + fewest, 1), least / np.where(least > 0, least + others, 1)
    spread = np.maximum(high - value, value - low)
    radius = (spread + hits.arithmetic.gamma(3) * high) * hits.arithmetic.slack
    better = bounded & (radius < general.radius)
    return Ball(np.where(better, value, general.value), np.where(better, radius, general.radius), hits.arithmetic)


class Running:
    """Sums over the batches of an epoch, by name; a metric's own class makes of them what is reported."""

    def __init__(self, metric: Any, arithmetic: Arithmetic) -> None:
        self.metric, self.arithmetic = metric, arithmetic
        self.reset()

    def reset(self) -> None:
        """Before the first batch."""
        self.sums: dict[str, Ball] = {}

    def add(self, y: Array, p: Ball, weight: Array | None) -> None:
        """A batch: labels, outputs and weights. Errors: Unbounded."""
        for name, new in self.batch(y, p, weight).items():
            self.sums[name] = _added(self.sums[name], new) if name in self.sums else new

    def batch(self, y: Array, p: Ball, weight: Array | None) -> dict[str, Ball]:
        """What a batch adds."""
        raise NotImplementedError

    def result(self) -> Ball:
        """What is reported."""
        raise NotImplementedError


# ------------------------------------------------------------------------------------ counts at thresholds


class _Counts(Running):
    """True and false positives and negatives at each threshold, (T,) or (T, L).

    Of N numbers: in buckets, whose sums are added up along T thresholds, γ_(N + T) of what lies above the threshold;
    weights may be a product, once rounded. Negatives are also a difference from the sum of all, γ of which they share.
    Where an output's ball holds a threshold, its weight may be on either side. doubtful: the thresholds where one does.
    """

    def reset(self) -> None:
        super().reset()
        self.whole = self.positive = True
        self.doubtful: Array = np.zeros(1, bool)

    def batch(self, y: Array, p: Ball, weight: Array | None) -> dict[str, Ball]:
        metric = self.metric
        if getattr(metric, "from_logits", False):
            p = bounds.sigmoid(p)
        p = compared(p)
        exact = not p.radius.any()
        if metric.top_k is not None and not exact:
            raise Unbounded("of outputs that are known to a bound only, the k largest are not known")
        dtype = np.dtype(self.arithmetic.dtype)
        at = self._counted(y, p.value.astype(dtype), weight)
        sizes = at["sizes"]
        if exact:
            doubt = np.zeros_like(sizes[0]), np.zeros_like(sizes[1])
        else:
            ends = [
                np.nextafter((p.value + sign * p.radius).astype(dtype), dtype.type(sign * np.inf)) for sign in (-1, 1)
            ]
            low, high = (self._counted(y, end, weight)["sizes"] for end in ends)
            doubt = high[0] - low[0], high[1] - low[1]
            self.doubtful = self.doubtful | (doubt[0] > 0) | (doubt[1] > 0)
        gamma = self.arithmetic.gamma(at["numbers"] + len(metric._thresholds) + 4)
        whole = at["whole"] and at["all"].sum() * self.arithmetic.unit < 1
        self.whole, self.positive = self.whole and whole, self.positive and at["positive"]
        found = {}
        for i, name in enumerate(metrics.COUNTS):
            label = (0, 1, 1, 0)[i]  # of true positives and false negatives the labels are true
            size = sizes[label] if i < 2 else np.broadcast_to(at["all"][label], sizes[label].shape)
            rounding = 0.0 if whole else gamma * size
            value = np.asarray(at["counts"][i], self.arithmetic.wide)
            found[name] = Ball(value, np.asarray(rounding + doubt[label] + np.zeros_like(value)), self.arithmetic)
        return found

    def _counted(self, y: Array, p: Array, weight: Array | None) -> dict[str, Any]:
        """The counts of outputs p, and their sizes: (T, L) of |weights| above each threshold, true and false."""
        scratch = copy.copy(self.metric)
        scratch.reset_state()
        plain = scratch._count
        held: dict[str, Any] = {}

        def count(y_true: Array, y_pred: Array, weights: Array) -> tuple[Array, ...]:
            found = plain(y_true, y_pred, weights)
            size = np.abs(weights)
            above_true, above_false, below_false, below_true = plain(y_true, y_pred, size)
            several = self.metric.multi_label
            held["counts"] = [one if several else one[:, 0] for one in found]
            held["sizes"] = [one if several else one[:, 0] for one in (above_true, above_false)]
            everything = above_true + below_true, above_false + below_false
            held["all"] = np.array([one if several else one[:, 0] for one in everything])
            held["whole"] = bool((weights == np.floor(weights)).all())
            held["positive"] = bool((weights >= 0).all())
            held["numbers"] = len(weights)
            return found

        scratch._count = count
        metrics._Counts.update_state(scratch, y, p, weight)
        return held

    def result(self) -> Ball:
        tp, fp, tn, fn = (self.sums[name] for name in metrics.COUNTS)
        metric = self.metric
        if isinstance(metric, metrics._OneCount):
            return self._one_or_all(self.sums[metrics.to_snake_case(type(metric).__name__)])
        if isinstance(metric, metrics._Ratio):
            return self._one_or_all(self._share("true_positives", metric.other))
        if isinstance(metric, metrics._BestAtConstraint):
            return self._best()
        return self._area(tp, fp, tn, fn)

    def _one_or_all(self, found: Ball) -> Ball:
        return found[0] if len(self.metric._thresholds) == 1 else found

    def _share(self, hits: str, misses: str) -> Ball:
        """One count's share of it and another. Sums of weights are not negative, differences of them may be."""

        def floor(name: str) -> float:
            return 0.0 if self.positive and (self.whole or name.endswith("_positives")) else -np.inf

        return _share_of(self.sums[hits], self.sums[misses], (floor(hits), floor(misses)))

    def _rate(self, name: str) -> Ball:
        named = {
            "specificity": ("true_negatives", "false_positives"),
            "precision": ("true_positives", "false_positives"),
        }
        return self._share(*named.get(name, ("true_positives", "false_negatives")))

    def _best(self) -> Ball:
        """The largest of one rate where the other may, and where it must, reach the limit."""
        metric, a = self.metric, self.arithmetic
        limit = float(np.float32(getattr(metric, metric.constraint)))
        other, rate = self._rate(metric.constraint), self._rate(metric.rate)
        may, must = other.value + other.radius >= limit, other.value - other.radius >= limit
        value = np.where(other.value >= limit, rate.value, 0).max(initial=0)
        high = np.where(may, rate.value + rate.radius, 0).max(initial=0)
        low = np.where(must, rate.value - rate.radius, 0).max(initial=0)
        return Ball(np.asarray(value), np.asarray(max(high - value, value - low)), a)

    def _area(self, tp: Ball, fp: Ball, tn: Ball, fn: Ball) -> Ball:
        """The area under a curve. Between two thresholds with no output between them nothing changes, bit for bit."""
        metric = self.metric
        still = (tp.value[:-1] == tp.value[1:]) & (fp.value[:-1] == fp.value[1:])
        if self.doubtful.any():
            still &= ~(self.doubtful[:-1] | self.doubtful[1:])
        if metric.curve == "PR" and metric.summation_method == "interpolation":
            area = where(still, 0, self._precision_recall(tp, fp, fn, still)).sum(0)
        else:
            area = self._trapezoids(*self._curve(tp, fp, tn, fn), still)
        if not metric.multi_label:
            return area
        if metric.label_weights is None:
            return area.mean()
        weights = self.arithmetic.given(metric.label_weights)
        return _divide_no_nan((area * weights).sum(), total(weights))

    def _curve(self, tp: Ball, fp: Ball, tn: Ball, fn: Ball) -> tuple[Ball, Ball]:
        if self.metric.curve == "ROC":
            return self._share("false_positives", "true_negatives"), self._rate("recall")
        if self.metric.curve == "PR":
            return self._rate("recall"), self._rate("precision")
        scaling = _divide_no_nan(tp + fn, tn + fp)
        none = (tp.value == 0) & (tp.radius == 0)
        gains = (1 - scaling * _divide_no_nan(misses, tp) for misses in (fn, fp))
        recall, precision = (where(none, at, gain) for at, gain in zip((0.0, 1.0), gains, strict=True))
        return bounds.maximum(recall, 0), precision

    def _trapezoids(self, x: Ball, y: Ball, still: Array) -> Ball:
        """Σ_t (x_t − x_(t+1)) h_t.

        What x is off by, at most r, enters by parts: |Σ (δ_t − δ_(t+1)) h_t| ≤ r (|h_0| + |h_last| + Σ |h_t − h_(t−1)|)
        of however many thresholds. Its roundings of second order are covered by γ₄ₜ of that. Where few terms are left,
        each with its own radius, the sum of these may be less.
        """
        first, second = y[:-1], y[1:]
        heights = {
            "interpolation": lambda: (first + second) * 0.5,
            "minoring": lambda: bounds.minimum(first, second),
            "majoring": lambda: bounds.maximum(first, second),
        }
        h = heights[self.metric.summation_method]()
        at = Ball(x.value, np.zeros_like(x.radius), self.arithmetic)
        area = where(still, 0, (at[:-1] - at[1:]) * h).sum(0)
        ends = np.abs(h.value[0]) + np.abs(h.value[-1])
        variation = ends + np.abs(np.diff(h.value, axis=0)).sum(axis=0) + 2 * h.radius.sum(axis=0)
        off = x.radius.max(axis=0)
        spread = np.where(off > 0, off * variation * (1 + self.arithmetic.gamma(4 * len(x.value))), 0)
        direct = where(still, 0, (x[:-1] - x[1:]) * h).sum(0)
        return Ball(area.value, np.fmin(area.radius + spread, direct.radius), self.arithmetic)

    def _precision_recall(self, tp: Ball, fp: Ball, fn: Ball, still: Array) -> Ball:
        """ops.precision_recall_area's terms."""
        p = tp + fp
        d_tp = where(tp.value[:-1] == tp.value[1:], 0, tp[:-1] - tp[1:])
        d_p = where(still, 0, bounds.maximum(p[:-1] - p[1:], 0))
        slope = _divide_no_nan(d_tp, d_p)
        intercept = tp[1:] - slope * p[1:]
        both = (p.value[:-1] > 0) & (p.value[1:] > 0)
        ratio = where(both, _divide_no_nan(p[:-1], p[1:]), 1)
        return _divide_no_nan(slope * (d_tp + intercept * bounds.log(ratio)), tp[1:] + fn[1:])


# ---------------------------------------------------------------------------------------------- scores


class _FBeta(Running):
    def batch(self, y: Array, p: Ball, weight: Array | None) -> dict[str, Ball]:
        metric, given = self.metric, self.arithmetic.given
        labels = given(np.asarray(y, self.arithmetic.dtype))
        positive, doubt = self._positive(p)
        weights = None if weight is None else given(np.asarray(weight).reshape(-1, 1))

        def summed(values: Ball, of: Array | None) -> Ball:
            if of is not None:
                values = Ball(
                    np.where(of, values.value, 0),
                    np.where(of, values.radius, 0) + np.where(doubt, values.magnitude, 0),
                    values.arithmetic,
                )
            values = values if weights is None else values * weights
            return total(values, None if metric.average == "micro" else 0)

        return {
            "tp": summed(labels, positive),
            "fp": summed(1 - labels, positive),
            "fn": summed(labels, ~positive),
            "positives": summed(labels, None),
        }

    def _positive(self, p: Ball) -> tuple[Array, Array]:
        """What is predicted positive, and where that is in doubt."""
        p = compared(p)
        value, radius, low, high = p.value, p.radius, p.value - p.radius, p.value + p.radius
        if self.metric.threshold is not None:
            at = float(np.dtype(self.arithmetic.dtype).type(self.metric.threshold))
            return value > at, (np.abs(value - at) <= radius) & (radius > 0)
        at_least = value >= value.max(axis=-1, keepdims=True)
        order = np.sort(high, axis=-1)
        others = np.where(high == order[..., -1:], order[..., -2:-1], order[..., -1:]) if order.shape[-1] > 1 else low
        may, must = high >= low.max(axis=-1, keepdims=True), low >= others
        doubt = (may & ~must) | (np.abs(np.abs(value) - 1e-9) <= radius)
        return at_least & (np.abs(value) > 1e-9), doubt & (radius > 0).any(axis=-1, keepdims=True)

    def result(self) -> Ball:
        metric, epsilon, square = self.metric, config.epsilon(), self.metric.beta**2
        tp, fp, fn, positives = (self.sums[name] for name in ("tp", "fp", "fn", "positives"))
        precision, recall = tp / (tp + fp + epsilon), tp / (tp + fn + epsilon)
        score = precision * recall / (precision * square + recall + epsilon) * (1 + square)
        if metric.average == "weighted":
            return (score * (positives / (total(positives) + epsilon))).sum()
        return score if metric.average is None else score.mean()


class _R2(Running):
    def reset(self) -> None:
        super().reset()
        self.samples = 0

    def batch(self, y: Array, p: Ball, weight: Array | None) -> dict[str, Ball]:
        labels, p = _same_rank(y, p)
        self.samples += labels.value.size
        weights = np.asarray(1.0 if weight is None else weight, self.arithmetic.dtype)
        weights = np.broadcast_to(weights.reshape(-1, 1) if weights.ndim == 1 else weights, labels.shape)
        given = self.arithmetic.given(weights)
        weighted = labels if weight is None else labels * given
        residual = bounds.square(labels - p)
        return {
            "sum": total(weighted, 0),
            "squares": (labels * weighted).sum(0),
            "residual": (residual if weight is None else residual * given).sum(0),
            "count": total(given, 0),
        }

    def result(self) -> Ball:
        metric = self.metric
        sums, squares, residual, count = (self.sums[name] for name in ("sum", "squares", "residual", "count"))
        variation = squares - sums * (sums / count)
        score = 1 - residual / variation
        if metric.class_aggregation == "uniform_average":
            score = score.mean()
        elif metric.class_aggregation == "variance_weighted_average":
            score = (variation * score).sum() / variation.sum()
        spare = self.samples - metric.num_regressors - 1
        if metric.num_regressors and spare > 0:
            return 1 - (1 - score) * float(self.samples - 1) / float(spare)
        return score


_RUNNING: tuple[tuple[type[metrics.Metric], type[Running]], ...] = (
    (metrics._Counts, _Counts),
    (metrics.FBetaScore, _FBeta),
    (metrics.R2Score, _R2),
)


def running(metric: Any, arithmetic: Arithmetic) -> Running | None:
    """The sums of a metric of minidl's that is none of samples' values; None for a mean, and for one of your own."""
    if not type(metric).__module__.startswith("minidl."):
        return None
    for kind, found in _RUNNING:
        if isinstance(metric, kind):
            return found(metric, arithmetic)
    return None
