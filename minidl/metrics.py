"""Metrics as Keras keeps them: totals and counts that batches add to; the formulas are in ops.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from minidl import config, initializers, losses, ops, serialization
from minidl.backend import Array
from minidl.checks import finite_float, positive_int
from minidl.losses import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_hinge,
    cosine_similarity,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    same_rank,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from minidl.naming import auto_name, to_snake_case, unknown_name
from minidl.variables import Variable, variable

__all__ = [
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_hinge",
    "cosine_similarity",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "sparse_categorical_crossentropy",
    "squared_hinge",
]


class Metric:
    """update_state(…) adds a batch, result() is the value since reset_state(). The base class, also of your own.

    A metric of your own makes its state with add_variable in __init__, writes to it with assign, assign_add and
    assign_sub in update_state(y_true, y_pred, sample_weight=None), and returns a number, or a dict of numbers by name,
    from result(). dtype: floatx() unless given; name: precision, precision_1, … where Keras counts them.
    Source: keras.metrics.Metric.
    """

    _direction: str | None = None  # which values are better, for callbacks: "up", "down", or not known; Keras's name
    config_names: ClassVar[tuple[str, ...]] = ()  # the arguments beside name and dtype

    def __init__(self, dtype: str | None = None, name: str | None = None) -> None:
        self.name = name or auto_name(type(self).__name__)
        self.dtype = config.standardize_dtype(dtype)
        self._variables: list[Variable] = []

    def add_variable(
        self,
        shape: Any,
        initializer: Any,
        dtype: str | None = None,
        aggregation: str = "sum",
        name: str | None = None,
    ) -> Variable:
        """A piece of state of a shape: an array with assign(…), which reset_state() sets to 0.

        initializer: a name, an object or a function of shape and dtype. aggregation is for devices that share the work,
        of which minidl has one. Errors: RuntimeError before super().__init__().
        """
        if not hasattr(self, "_variables"):
            raise RuntimeError(
                f"{type(self).__name__}: call super().__init__(name=…) before the metric's variables are made."
            )
        made = initializers.get(initializer)
        if made is None:
            raise ValueError(f"{self.name}: a variable needs an initializer, such as 'zeros'; got {initializer!r}.")
        values = np.array(made(tuple(np.atleast_1d(shape).astype(int)) if np.size(shape) else (), dtype=dtype))
        found = variable(values.astype(config.standardize_dtype(dtype)), f"{self.name}/{name or 'variable'}")
        self._variables.append(found)
        return found

    def add_weight(
        self, shape: Any = (), initializer: Any = None, dtype: str | None = None, name: str | None = None
    ) -> Variable:
        """add_variable under its old name."""
        return self.add_variable(shape, initializer, dtype, name=name)

    @property
    def variables(self) -> list[Variable]:
        """The state: what add_variable made, then that of metrics that are attributes.

        Of Keras's own metrics these are copies, not to be written to.
        """
        found = list(self._variables)
        for name, values in self.state().items():
            copy = variable(np.array(values), f"{self.name}/{name}")
            copy.flags.writeable = False
            found.append(copy)
        return found + [variable for metric in self._parts() for variable in metric.variables]

    def state(self) -> dict[str, Array]:
        """The numbers that update_state adds to and reset_state sets to 0, beside variables of add_variable."""
        return {}

    def _parts(self) -> list[Metric]:
        return [value for value in vars(self).values() if isinstance(value, Metric)]

    def reset_state(self) -> None:
        """Forget all batches."""
        for found in self._variables:
            found[...] = 0
        for metric in self._parts():
            metric.reset_state()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch: y_true, y_pred (B, U), sample_weight (B,) or None (all 1)."""
        raise NotImplementedError(
            f"{type(self).__name__} must define update_state(y_true, y_pred, sample_weight=None)."
        )

    def result(self) -> Any:
        """The value of all batches so far."""
        raise NotImplementedError(f"{type(self).__name__} must define result(), the value of all batches so far.")

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this metric again, by Keras's names."""
        return {"name": self.name, "dtype": self.dtype, **{name: getattr(self, name) for name in self.config_names}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """The metric of a get_config(), Keras's too."""
        return cls(**config)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch and return the result."""
        self.update_state(*args, **kwargs)
        return self.result()


# ---------------------------------------------------------------------------------------- means and sums


def _samplewise(values: Any, sample_weight: Any, reduce: Callable[..., Any], dtype: str) -> tuple[Array, Array | None]:
    """One value a sample times its weight, and the weights, by Keras's rules for their shapes.

    Source: keras.src.metrics.reduction_metrics.reduce_to_samplewise_values.
    """
    values = np.asarray(values, dtype)
    weights = None
    if sample_weight is not None:
        values, weights = same_rank(values, np.asarray(sample_weight, dtype))
        rank = weights.ndim
        if values.ndim > rank:
            values = reduce(values, axis=tuple(range(rank, values.ndim)))
        weights = np.broadcast_to(weights, values.shape)
        values = values * weights
        if rank > 1:
            weights = reduce(weights, axis=tuple(range(1, rank)))
    if values.ndim > 1:
        values = reduce(values, axis=tuple(range(1, values.ndim)))
    return values, weights


class Sum(Metric):
    """Σ w·value of all values since reset_state(). Source: keras.metrics.Sum."""

    def __init__(self, name: str = "sum", dtype: str | None = None) -> None:
        super().__init__(dtype, name)
        Sum.reset_state(self)

    def state(self) -> dict[str, Array]:
        return {"total": self.total}

    def reset_state(self) -> None:
        self.total = np.dtype(self.dtype).type(0)

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Add values, a scalar or (B, …), with weights of the leading axes or None (all 1)."""
        weighted, _ = _samplewise(values, sample_weight, np.sum, self.dtype)
        self.total += weighted.sum()

    def result(self) -> Any:
        return self.total


class Mean(Metric):
    """The weighted mean of all values since reset_state(): Σ w·value / Σ w, and 0 before the first.

    total and count are kept in dtype (default floatx()), as Keras keeps them, and so round as Keras's do.
    Source: keras.metrics.Mean.
    """

    def __init__(self, name: str = "mean", dtype: str | None = None) -> None:
        super().__init__(dtype, name)
        Mean.reset_state(self)

    def state(self) -> dict[str, Array]:
        return {"total": self.total, "count": self.count}

    def reset_state(self) -> None:
        self.total = self.count = np.dtype(self.dtype).type(0)

    def add(self, total: Any, count: Any) -> None:
        """Add a batch's Σ w·value and Σ w."""
        scalar = np.dtype(self.dtype).type
        self.total += scalar(total)
        self.count += scalar(count)

    def add_each(self, totals: Array, count: int) -> None:
        """add(total, count) for each of the totals, one after the other."""
        for name, terms in (("total", totals), ("count", np.full(len(totals), count))):
            start = np.array([getattr(self, name)])
            setattr(self, name, np.add.accumulate(np.concatenate([start, terms.astype(start.dtype)]))[-1])

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Add values, a scalar or (B, …), with weights of the leading axes or None (all 1)."""
        weighted, weights = _samplewise(values, sample_weight, np.mean, self.dtype)
        self.add(weighted.sum(), weighted.size if weights is None else weights.sum())

    def result(self) -> Any:
        return self.total / self.count if self.count else self.total.dtype.type(0)  # also where the total is a NaN


class MeanMetricWrapper(Mean):
    """The weighted mean of fn(y_true, y_pred, **kwargs), a value a sample. Source: keras.metrics.MeanMetricWrapper."""

    def __init__(
        self, fn: Callable[..., Any], name: str | None = None, dtype: str | None = None, **kwargs: Any
    ) -> None:
        if not callable(fn):
            raise TypeError(f"MeanMetricWrapper: fn must be a function of y_true and y_pred; got {fn!r}.")
        super().__init__(name or auto_name(type(self).__name__), dtype)
        self._fn = fn
        self._fn_kwargs = kwargs
        if self._direction is None and any(fn is known for known in losses.FUNCTIONS.values()):
            self._direction = "down"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Add a batch: y_true, y_pred (B, U), sample_weight (B,) or None (all 1)."""
        super().update_state(self._fn(y_true, y_pred, **self._fn_kwargs), sample_weight)

    def get_config(self) -> dict[str, Any]:
        found = super().get_config()
        return found if type(self) is not MeanMetricWrapper else {**found, "fn": serialize(self._fn), **self._fn_kwargs}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """The metric of a get_config(), Keras's too, whose function is one of minidl's or handed over."""
        if "fn" in config:
            config = {**config, "fn": deserialize(config["fn"])}
        return cls(**config)


# ------------------------------------------------------------------------------------------- accuracies


def _labels_and_predictions(where: str, y_true: Any, y_pred: Any) -> tuple[Array, Array]:
    """Both as float arrays of one shape; a last axis of 1 is added or taken off. Errors: ValueError."""
    y_pred = losses.floats(y_pred)
    y_true, y_pred = same_rank(np.asarray(y_true, y_pred.dtype), y_pred)
    if y_true.shape != y_pred.shape:
        raise ValueError(f"{where}: y_true and y_pred must have one shape; got {y_true.shape} and {y_pred.shape}.")
    return y_true, y_pred


def _class_numbers(where: str, y_true: Any, y_pred: Any) -> tuple[Array, Array]:
    """Class numbers (B,) from (B,) or (B, 1), and predictions (B, C). Errors: ValueError."""
    y_pred = losses.floats(y_pred)
    numbers = np.asarray(y_true)
    if numbers.ndim == y_pred.ndim and numbers.shape[-1] == 1:
        numbers = numbers[..., 0]
    if y_pred.ndim < 2 or numbers.shape != y_pred.shape[:-1]:
        raise ValueError(
            f"{where}: expected class numbers (B,) or (B, 1) and predictions (B, C); got {np.shape(y_true)} and "
            f"{y_pred.shape}."
        )
    return numbers, y_pred


def accuracy(y_true: Any, y_pred: Any) -> Array:
    """1 where y_true = y_pred, else 0;  (B, U), (B, U) -> (B, U). Source: keras.metrics.Accuracy's function."""
    return ops.accuracy(*_labels_and_predictions("accuracy", y_true, y_pred))


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Array:
    """1 where y_true = [y_pred > threshold], else 0;  (B, U), (B, U) -> (B, U). Source: keras.metrics."""
    return ops.binary_accuracy(*_labels_and_predictions("binary_accuracy", y_true, y_pred), threshold=threshold)


def categorical_accuracy(y_true: Any, y_pred: Any) -> Array:
    """1 where the largest of both is of one class, else 0;  (B, C), (B, C) -> (B,). Source: keras.metrics."""
    return ops.categorical_accuracy(*_labels_and_predictions("categorical_accuracy", y_true, y_pred))


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Array:
    """1 where y_true is the class of the largest, else 0;  (B,), (B, C) -> (B,). Source: keras.metrics."""
    return ops.sparse_categorical_accuracy(*_class_numbers("sparse_categorical_accuracy", y_true, y_pred))


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Array:
    """1 where y_true's class is among the k largest, else 0;  (B, C), (B, C) -> (B,). Source: keras.metrics."""
    y_true, y_pred = _labels_and_predictions("top_k_categorical_accuracy", y_true, y_pred)
    return ops.in_top_k(y_true.argmax(axis=-1), y_pred, k=k).astype(config.floatx())


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False) -> Array:
    """1 where class y_true is among the k largest, else 0;  (B,), (B, C) -> (B,).

    from_sorted_ids: y_pred holds class numbers, the best first. Source: keras.metrics.
    """
    numbers, y_pred = _class_numbers("sparse_top_k_categorical_accuracy", y_true, y_pred)
    if from_sorted_ids:
        return (y_pred[..., :k] == numbers[..., None]).any(axis=-1).astype(config.floatx())
    return ops.in_top_k(numbers.astype(np.int64), y_pred, k=k).astype(config.floatx())


class Accuracy(MeanMetricWrapper):
    """The fraction of y_pred that equals y_true exactly: of class numbers. Source: keras.metrics.Accuracy."""

    _direction = "up"

    def __init__(self, name: str = "accuracy", dtype: str | None = None) -> None:
        super().__init__(accuracy, name, dtype)


class BinaryAccuracy(MeanMetricWrapper):
    """The fraction of outputs whose class is right: y_true = [y_pred > threshold], strictly greater.

    Source: keras.metrics.BinaryAccuracy.
    """

    _direction = "up"
    config_names = ("threshold",)

    def __init__(self, name: str = "binary_accuracy", dtype: str | None = None, threshold: float = 0.5) -> None:
        if not 0.0 < threshold < 1.0:
            raise ValueError(f"BinaryAccuracy: threshold must be strictly between 0 and 1; got {threshold!r}.")
        self.threshold = threshold
        super().__init__(binary_accuracy, name, dtype, threshold=threshold)


class CategoricalAccuracy(MeanMetricWrapper):
    """The fraction of samples whose largest output is of the label's class. Source: keras.metrics of that name."""

    _direction = "up"

    def __init__(self, name: str = "categorical_accuracy", dtype: str | None = None) -> None:
        super().__init__(categorical_accuracy, name, dtype)


class SparseCategoricalAccuracy(MeanMetricWrapper):
    """CategoricalAccuracy for labels that are class numbers. Source: keras.metrics.SparseCategoricalAccuracy."""

    _direction = "up"

    def __init__(self, name: str = "sparse_categorical_accuracy", dtype: str | None = None) -> None:
        super().__init__(sparse_categorical_accuracy, name, dtype)


class TopKCategoricalAccuracy(MeanMetricWrapper):
    """The fraction of samples whose class is among the k largest outputs. Source: keras.metrics of that name."""

    _direction = "up"
    config_names = ("k",)

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy", dtype: str | None = None) -> None:
        self.k = positive_int("TopKCategoricalAccuracy", "k", k)
        super().__init__(top_k_categorical_accuracy, name, dtype, k=self.k)


class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """TopKCategoricalAccuracy for labels that are class numbers. Source: keras.metrics of that name.

    from_sorted_ids: y_pred holds class numbers, the best first.
    """

    _direction = "up"
    config_names = ("k",)

    def __init__(
        self,
        k: int = 5,
        name: str = "sparse_top_k_categorical_accuracy",
        dtype: str | None = None,
        from_sorted_ids: bool = False,
    ) -> None:
        self.k = positive_int("SparseTopKCategoricalAccuracy", "k", k)
        self.from_sorted_ids = bool(from_sorted_ids)
        super().__init__(sparse_top_k_categorical_accuracy, name, dtype, k=self.k, from_sorted_ids=self.from_sorted_ids)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | ({"from_sorted_ids": True} if self.from_sorted_ids else {})  # as Keras writes it


# ------------------------------------------------------------------------------------- losses as metrics


class LossMetric(MeanMetricWrapper):
    """The weighted mean of a loss over all samples, without penalties and reduction.

    reduced: the mean of the batches' reduced losses instead, which is what Keras makes of a loss object.
    Of a model that ends in a sigmoid or softmax, a cross-entropy is computed from the logits, as the loss is.
    """

    _direction = "down"

    def __init__(
        self, loss: losses.Loss, name: str | None = None, dtype: str | None = None, *, reduced: bool = False
    ) -> None:
        self.loss = loss
        self.reduced = reduced
        super().__init__(loss if reduced else loss.call, name or loss.name, dtype)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self.loss, name) for name in self.config_names}
        return {"name": self.name, "dtype": self.dtype, **own}

    def add_batch(self, y_true: Array, y_pred: Array, from_logits: bool, sample_weight: Array | None) -> None:
        """Add a batch, y_pred being logits or not whatever the loss was told."""
        if self.reduced:
            values = self.loss.value(y_true, y_pred, from_logits=from_logits, sample_weight=None)
        else:
            values = self.loss.losses(y_true, y_pred, from_logits=from_logits)
        Mean.update_state(self, values, sample_weight)


class BinaryCrossentropy(LossMetric):
    """The mean binary cross-entropy. Arguments: as losses.BinaryCrossentropy. Source: keras.metrics."""

    config_names = ("from_logits", "label_smoothing")

    def __init__(
        self,
        name: str = "binary_crossentropy",
        dtype: str | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(losses.BinaryCrossentropy(from_logits, label_smoothing), name, dtype)


class CategoricalCrossentropy(LossMetric):
    """The mean categorical cross-entropy. Arguments: as losses.CategoricalCrossentropy. Source: keras.metrics."""

    config_names = ("from_logits", "label_smoothing", "axis")

    def __init__(
        self,
        name: str = "categorical_crossentropy",
        dtype: str | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ) -> None:
        super().__init__(losses.CategoricalCrossentropy(from_logits, label_smoothing, axis), name, dtype)


class SparseCategoricalCrossentropy(LossMetric):
    """The mean cross-entropy of class numbers. Arguments: as the loss of that name. Source: keras.metrics."""

    config_names = ("from_logits", "ignore_class", "axis")

    def __init__(
        self,
        name: str = "sparse_categorical_crossentropy",
        dtype: str | None = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(losses.SparseCategoricalCrossentropy(from_logits, ignore_class, axis=axis), name, dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Add a batch. What ignore_class ignores counts in the mean as 0, unless there are weights, as in Keras."""
        ignored = self.loss.ignore_class  # type: ignore[attr-defined]
        if sample_weight is not None and ignored is not None:
            numbers = np.asarray(y_true)
            numbers = numbers[..., 0] if numbers.ndim == np.ndim(y_pred) else numbers
            weights, counted = same_rank(np.asarray(sample_weight, self.dtype), numbers != ignored)
            sample_weight = weights * counted
        super().update_state(y_true, y_pred, sample_weight)


class _PlainLossMetric(LossMetric):
    """A loss without arguments as a metric."""

    loss_class: ClassVar[type[losses.Loss]]

    def __init__(self, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(self.loss_class(), name, dtype)


class KLDivergence(_PlainLossMetric):
    """The mean Kullback-Leibler divergence. Source: keras.metrics.KLDivergence."""

    loss_class = losses.KLDivergence


class Poisson(_PlainLossMetric):
    """The mean Poisson loss. Source: keras.metrics.Poisson."""

    loss_class = losses.Poisson


class Hinge(_PlainLossMetric):
    """The mean hinge loss. Source: keras.metrics.Hinge."""

    loss_class = losses.Hinge


class SquaredHinge(_PlainLossMetric):
    """The mean squared hinge loss. Source: keras.metrics.SquaredHinge."""

    loss_class = losses.SquaredHinge


class CategoricalHinge(_PlainLossMetric):
    """The mean categorical hinge loss. Source: keras.metrics.CategoricalHinge."""

    loss_class = losses.CategoricalHinge


class MeanSquaredError(_PlainLossMetric):
    """The mean of (y − p)². Source: keras.metrics.MeanSquaredError."""

    loss_class = losses.MeanSquaredError


class MeanAbsoluteError(_PlainLossMetric):
    """The mean of |y − p|. Source: keras.metrics.MeanAbsoluteError."""

    loss_class = losses.MeanAbsoluteError


class MeanAbsolutePercentageError(_PlainLossMetric):
    """The mean of 100 |y − p| / |y|. Source: keras.metrics.MeanAbsolutePercentageError."""

    loss_class = losses.MeanAbsolutePercentageError


class MeanSquaredLogarithmicError(_PlainLossMetric):
    """The mean of (ln(1 + p) − ln(1 + y))². Source: keras.metrics.MeanSquaredLogarithmicError."""

    loss_class = losses.MeanSquaredLogarithmicError


class LogCoshError(LossMetric):
    """The mean of ln cosh(p − y). Source: keras.metrics.LogCoshError."""

    def __init__(self, name: str = "logcosh", dtype: str | None = None) -> None:
        super().__init__(losses.LogCosh(), name, dtype)


class RootMeanSquaredError(Mean):
    """√(Σ w(y − p)² / Σ w) over samples and units. Source: keras.metrics.RootMeanSquaredError."""

    _direction = "down"

    def __init__(self, name: str = "root_mean_squared_error", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Add a batch: y_true, y_pred (B, U), sample_weight (B,) or None (all 1)."""
        y_true, y_pred = _labels_and_predictions(self.name, y_true, np.asarray(y_pred, self.dtype))
        super().update_state(ops.squared_error(y_true, y_pred), sample_weight)

    def result(self) -> Any:
        return np.sqrt(super().result())


# -------------------------------------------------------------------------------- angles and correlations


def _along_last(where: str, axis: Any, y_true: Any, y_pred: Any) -> tuple[Array, ...]:
    """Both with the axis or axes last, as one. Errors: ValueError for other shapes."""
    axes = (axis,) if np.ndim(axis) == 0 else tuple(axis)
    arrays = _labels_and_predictions(where, y_true, y_pred)
    moved = [np.moveaxis(a, axes, range(-len(axes), 0)) for a in arrays]
    return tuple(a.reshape(*a.shape[: a.ndim - len(axes)], -1) for a in moved)


def _cosine(y_true: Any, y_pred: Any, axis: int = -1) -> Array:
    return ops.cosine_similarity(*_along_last("cosine_similarity", axis, y_true, y_pred), epsilon=config.epsilon())


def pearson_correlation(y_true: Any, y_pred: Any, axis: Any = -1) -> Array:
    """The correlation of y_true and y_pred along an axis or axes;  (B, U), (B, U) -> (B,). Source: keras.metrics."""
    return ops.pearson_correlation(*_along_last("pearson_correlation", axis, y_true, y_pred))


def concordance_correlation(y_true: Any, y_pred: Any, axis: Any = -1) -> Array:
    """Lin's concordance of both along an axis or axes;  (B, U), (B, U) -> (B,). Source: keras.metrics."""
    arrays = _along_last("concordance_correlation", axis, y_true, y_pred)
    return ops.concordance_correlation(*arrays, epsilon=config.epsilon())


class CosineSimilarity(MeanMetricWrapper):
    """The mean cosine of the angle between y and p, of which the loss is the negative. Source: keras.metrics."""

    _direction = "up"
    config_names = ("axis",)  # which Keras forgets to write, and reads

    def __init__(self, name: str = "cosine_similarity", dtype: str | None = None, axis: int = -1) -> None:
        self.axis = axis
        super().__init__(_cosine, name, dtype, axis=axis)


class PearsonCorrelation(MeanMetricWrapper):
    """The mean correlation of y and p, along an axis or several. Source: keras.metrics.PearsonCorrelation."""

    _direction = "up"
    config_names = ("axis",)

    def __init__(self, name: str = "pearson_correlation", dtype: str | None = None, axis: Any = -1) -> None:
        self.axis = axis
        super().__init__(pearson_correlation, name, dtype, axis=axis)


class ConcordanceCorrelation(MeanMetricWrapper):
    """The mean concordance of y and p, along an axis or several. Source: keras.metrics.ConcordanceCorrelation."""

    _direction = "up"
    config_names = ("axis",)

    def __init__(self, name: str = "concordance_correlation", dtype: str | None = None, axis: Any = -1) -> None:
        self.axis = axis
        super().__init__(concordance_correlation, name, dtype, axis=axis)


# ------------------------------------------------------------------------------------ counts at thresholds

COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")


def _thresholds(where: str, thresholds: Any, default: float) -> list[float]:
    found = [default] if thresholds is None else list(thresholds) if np.ndim(thresholds) else [thresholds]
    for threshold in found if thresholds is not None else []:
        if not 0.0 <= finite_float(where, "thresholds", threshold) <= 1.0:
            raise ValueError(f"{where}: thresholds must lie in [0, 1]; got {threshold!r}.")
    if not found:
        raise ValueError(f"{where}: thresholds must not be empty.")
    return found


def _evenly_spaced(thresholds: Iterable[float]) -> bool:
    """Whether these are i / (T − 1), of at least three. Source: keras metrics_utils of a similar name."""
    found = np.asarray(list(thresholds))
    even = np.arange(len(found), dtype=np.float32) / max(len(found) - 1, 1)
    return len(found) >= 3 and np.allclose(found, even, atol=config.epsilon())


class _Counts(Metric):
    """Weighted counts of true and false positives and negatives at each threshold, kept in floatx() as in Keras.

    top_k: only the k largest outputs of a sample can be positive. class_id: only this output is looked at.
    multi_label: each output has counts of its own. label_weights: of each output, for counts of all outputs.
    """

    def __init__(
        self,
        thresholds: Iterable[float],
        evenly: bool,
        name: str | None,
        dtype: str | None,
        *,
        top_k: int | None = None,
        class_id: int | None = None,
        multi_label: bool = False,
        label_weights: Any = None,
    ) -> None:
        self._kept_in = config.floatx()
        self._thresholds = np.asarray(list(thresholds))
        self._evenly = evenly
        self.top_k = None if top_k is None else positive_int(type(self).__name__, "top_k", top_k)
        self.class_id = class_id
        self.multi_label = multi_label
        self.label_weights = None if label_weights is None else np.asarray(label_weights, self._kept_in)
        super().__init__(dtype, name)
        _Counts.reset_state(self)

    def state(self) -> dict[str, Array]:
        return self.counts

    @property
    def thresholds(self) -> list[float]:
        """The thresholds, as Python floats."""
        return [float(threshold) for threshold in self._thresholds]

    def reset_state(self) -> None:
        self.counts: dict[str, Array] = {name: np.zeros(len(self._thresholds), self._kept_in) for name in COUNTS}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = np.asarray(y_pred, self._kept_in)
        y_true, y_pred = _labels_and_predictions(self.name, y_true, y_pred)
        if y_pred.ndim == 1:
            y_true, y_pred = y_true[:, None], y_pred[:, None]
        if self.top_k is not None:
            y_pred = ops.only_top_k(y_pred, k=self.top_k)
        if self.class_id is not None:
            y_true, y_pred = (a[:, self.class_id, None] for a in (y_true, y_pred))
        weights = np.ones_like(y_pred)
        if sample_weight is not None:
            weights = weights * np.asarray(sample_weight, self._kept_in).reshape(-1, 1)
        if self.label_weights is not None and not self.multi_label:
            weights = weights * self.label_weights
        if not self.multi_label:
            y_true, y_pred, weights = (a.reshape(-1, 1) for a in (y_true, y_pred, weights))
        for name, count in zip(COUNTS, self._count(y_true, y_pred, weights), strict=True):
            count = count.astype(self._kept_in)
            self.counts[name] = self.counts[name] + (count if self.multi_label else count[:, 0])

    def _count(self, y_true: Array, y_pred: Array, weights: Array) -> tuple[Array, ...]:
        if self.multi_label and self.counts["true_positives"].ndim == 1:
            shape = (len(self._thresholds), y_pred.shape[1])
            self.counts = {name: np.zeros(shape, self._kept_in) for name in COUNTS}
        if self._evenly:
            beyond = bool(self._thresholds[0] < 0.0 or self._thresholds[-1] > 1.0)
            return ops.confusion_counts_evenly(
                y_true, y_pred, weights, thresholds=len(self._thresholds), all_above_first=beyond
            )
        return ops.confusion_counts(y_true, y_pred, weights, thresholds=self._thresholds.astype(self._kept_in))

    def _one_or_all(self, values: Array) -> Any:
        return values[0] if len(self._thresholds) == 1 else values


class _OneCount(_Counts):
    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: str | None = None) -> None:
        found = _thresholds(type(self).__name__, thresholds, 0.5)
        self.init_thresholds = thresholds
        super().__init__(found, _evenly_spaced(found), name, dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "thresholds": self.init_thresholds}

    def result(self) -> Any:
        return self._one_or_all(self.counts[to_snake_case(type(self).__name__)])


class TruePositives(_OneCount):
    """Σ w of labels 1 predicted above the threshold (0.5, or several). Source: keras.metrics.TruePositives."""


class FalsePositives(_OneCount):
    """Σ w of labels 0 predicted above the threshold (0.5, or several). Source: keras.metrics.FalsePositives."""


class TrueNegatives(_OneCount):
    """Σ w of labels 0 predicted at most the threshold (0.5, or several). Source: keras.metrics.TrueNegatives."""


class FalseNegatives(_OneCount):
    """Σ w of labels 1 predicted at most the threshold (0.5, or several). Source: keras.metrics.FalseNegatives."""


class _Ratio(_Counts):
    """tp / (tp + another count), 0 where both are 0."""

    _direction = "up"

    other: ClassVar[str]

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        self.init_thresholds = thresholds
        found = _thresholds(type(self).__name__, thresholds, 0.5 if top_k is None else -1e10)
        super().__init__(found, _evenly_spaced(found), name, dtype, top_k=top_k, class_id=class_id)

    def get_config(self) -> dict[str, Any]:
        own = {"thresholds": self.init_thresholds, "top_k": self.top_k, "class_id": self.class_id}
        return {**super().get_config(), **own}

    def result(self) -> Any:
        tp = self.counts["true_positives"]
        return self._one_or_all(ops.divide_no_nan(tp, tp + self.counts[self.other]))


class Precision(_Ratio):
    """tp / (tp + fp): of those predicted positive, the share that is. Source: keras.metrics.Precision.

    thresholds: 0.5, or one or several in [0, 1]. top_k: only a sample's k largest outputs count as positive.
    class_id: only this output is looked at.
    """

    other = "false_positives"


class Recall(_Ratio):
    """tp / (tp + fn): of the positives, the share that is found. Arguments: as Precision's. Source: keras.metrics."""

    other = "false_negatives"


class AUC(_Counts):
    """The area under the ROC curve (recall over false positive rate) or the PR curve (precision over recall).

    num_thresholds: 200, evenly spaced over [0, 1], or thresholds: of one's own beside 0 and 1. curve: "ROC", "PR" or
    "PRGAIN". summation_method: "interpolation", "minoring" or "majoring"; see ops.area_under_curve. multi_label: the
    mean of the areas of each output, weighted by label_weights. from_logits: y_pred holds logits.
    Errors: ValueError for fewer than two thresholds, an unknown curve or method. Source: keras.metrics.AUC.
    """

    _direction = "up"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: str | None = None,
        thresholds: Any = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        if str(curve).upper() not in ("ROC", "PR", "PRGAIN"):
            raise ValueError(f"AUC: curve must be 'ROC', 'PR' or 'PRGAIN'; got {curve!r}.")
        if str(summation_method).lower() not in ("interpolation", "minoring", "majoring"):
            raise ValueError(
                f"AUC: summation_method must be 'interpolation', 'minoring' or 'majoring'; got {summation_method!r}."
            )
        if num_labels and not multi_label:
            raise ValueError("AUC: num_labels is needed only when multi_label is True.")
        if thresholds is None:
            if positive_int("AUC", "num_thresholds", num_thresholds) < 2:
                raise ValueError(f"AUC: num_thresholds must be at least 2; got {num_thresholds!r}.")
            inner = [(i + 1) / (num_thresholds - 1) for i in range(num_thresholds - 2)]
            evenly = True
        else:
            inner = sorted(_thresholds("AUC", thresholds, 0.5))
            evenly = _evenly_spaced([0.0, *inner, 1.0])
        ends = [0.0 - config.epsilon(), *inner, 1.0 + config.epsilon()]
        self.num_thresholds = len(ends)
        self.curve, self.summation_method = str(curve).upper(), str(summation_method).lower()
        self.from_logits = bool(from_logits)
        self.num_labels = num_labels
        self._own_thresholds = thresholds is not None
        super().__init__(ends, evenly, name, dtype, multi_label=multi_label, label_weights=label_weights)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = losses.floats(y_pred)
        super().update_state(y_true, ops.sigmoid(y_pred) if self.from_logits else y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        weights = None if self.label_weights is None else [float(weight) for weight in self.label_weights]
        own = {
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": self.summation_method,
            "multi_label": self.multi_label,
            "num_labels": self.num_labels,
            "label_weights": weights,
            "from_logits": self.from_logits,
        }
        if self._own_thresholds:
            own["thresholds"] = self.thresholds[1:-1]
        return {**super().get_config(), **own}

    def result(self) -> Any:
        tp, fp, tn, fn = (self.counts[name] for name in COUNTS)
        if self.curve == "PR" and self.summation_method == "interpolation":
            area = ops.precision_recall_area(tp, fp, fn)
        else:
            if self.curve == "ROC":
                x, y = ops.divide_no_nan(fp, fp + tn), ops.divide_no_nan(tp, tp + fn)
            elif self.curve == "PR":
                x, y = ops.divide_no_nan(tp, tp + fn), ops.divide_no_nan(tp, tp + fp)
            else:
                x, y = ops.gain_curve(tp, fp, tn, fn)
            area = ops.area_under_curve(x, y, method=self.summation_method)
        if not self.multi_label:
            return area
        if self.label_weights is None:
            return area.mean()
        return ops.divide_no_nan((area * self.label_weights).sum(), self.label_weights.sum())[()]


class _BestAtConstraint(_Counts):
    """The best of one rate over num_thresholds thresholds in [0, 1] at which another is at least a value; 0 if none.

    num_thresholds: evenly spaced, or for 1 that at 0.5. class_id: only this output is looked at.
    Errors: ValueError for a value outside [0, 1].
    """

    constraint: ClassVar[str]  # the argument's name, which is that of the rate that it limits
    rate: ClassVar[str]
    config_names: ClassVar[tuple[str, ...]] = ("num_thresholds", "class_id")

    def __init__(
        self, value: float, num_thresholds: int, class_id: int | None, name: str | None, dtype: str | None
    ) -> None:
        where = type(self).__name__
        if not 0.0 <= finite_float(where, self.constraint, value) <= 1.0:
            raise ValueError(f"{where}: {self.constraint} must lie in [0, 1]; got {value!r}.")
        self.num_thresholds = positive_int(where, "num_thresholds", num_thresholds)
        setattr(self, self.constraint, value)
        inner = [(i + 1) / (num_thresholds - 1) for i in range(num_thresholds - 2)]
        thresholds = [0.5] if num_thresholds == 1 else [0.0, *inner, 1.0]
        super().__init__(thresholds, num_thresholds > 1, name, dtype, class_id=class_id)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), self.constraint: getattr(self, self.constraint)}

    def rates(self, name: str) -> Array:
        """Sensitivity (which is recall), specificity or precision at each threshold."""
        tp, fp, tn, fn = (self.counts[count] for count in COUNTS)
        hits, misses = {"specificity": (tn, fp), "precision": (tp, fp)}.get(name, (tp, fn))
        return ops.divide_no_nan(hits, hits + misses)

    def result(self) -> Any:
        limit = float(np.float32(getattr(self, self.constraint)))  # as Keras compares, in float64 too
        return ops.best_under_constraint(self.rates(self.constraint), self.rates(self.rate), at_least=limit)


class SensitivityAtSpecificity(_BestAtConstraint):
    """The best sensitivity at a specificity of at least specificity. num_thresholds, class_id: see Keras's.

    Source: keras.metrics.SensitivityAtSpecificity.
    """

    constraint, rate = "specificity", "sensitivity"

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(specificity, num_thresholds, class_id, name, dtype)


class SpecificityAtSensitivity(_BestAtConstraint):
    """The best specificity at a sensitivity of at least sensitivity. num_thresholds, class_id: see Keras's.

    Source: keras.metrics.SpecificityAtSensitivity.
    """

    constraint, rate = "sensitivity", "specificity"

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)


class PrecisionAtRecall(_BestAtConstraint):
    """The best precision at a recall of at least recall. num_thresholds, class_id: see Keras's.

    Source: keras.metrics.PrecisionAtRecall.
    """

    constraint, rate = "recall", "precision"

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(recall, num_thresholds, class_id, name, dtype)


class RecallAtPrecision(_BestAtConstraint):
    """The best recall at a precision of at least precision. num_thresholds, class_id: see Keras's.

    Source: keras.metrics.RecallAtPrecision.
    """

    constraint, rate = "precision", "recall"

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(precision, num_thresholds, class_id, name, dtype)


# --------------------------------------------------------------------------------------------- scores


class FBetaScore(Metric):
    """(1 + β²) P R / (β² P + R) of precision P and recall R: recall counts β times as much as precision.

    y_true, y_pred (B, U). threshold: positive above it; None: each sample's largest output. average: None gives a
    score for each output, "macro" their mean, "weighted" that weighted by the outputs' positives, "micro" the score
    of all outputs together. beta > 0.
    Errors: ValueError for another average, beta or threshold. Source: keras.metrics.FBetaScore.
    """

    _direction = "up"
    config_names: ClassVar[tuple[str, ...]] = ("average", "beta", "threshold")

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str = "fbeta_score",
        dtype: str | None = None,
    ) -> None:
        where = type(self).__name__
        if average not in (None, "micro", "macro", "weighted"):
            raise ValueError(f"{where}: average must be None, 'micro', 'macro' or 'weighted'; got {average!r}.")
        if not isinstance(beta, float) or not beta > 0.0:
            raise ValueError(f"{where}: beta must be a float greater than 0; got {beta!r}.")
        if threshold is not None and not (isinstance(threshold, float) and 0.0 < threshold <= 1.0):
            raise ValueError(f"{where}: threshold must be a float in (0, 1], or None; got {threshold!r}.")
        self.average, self.beta, self.threshold = average, beta, threshold
        super().__init__(dtype, name)
        FBetaScore.reset_state(self)

    def state(self) -> dict[str, Array]:
        names = ("true_positives", "false_positives", "false_negatives", "positives")
        return {name: getattr(self, name) for name in names}

    def reset_state(self) -> None:
        zero = np.zeros(np.shape(getattr(self, "true_positives", 0)), self.dtype)  # once updated, of the outputs' shape
        self.true_positives = self.false_positives = self.false_negatives = self.positives = zero

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = (np.asarray(a, self.dtype) for a in (y_true, y_pred))
        if y_true.ndim != 2 or y_true.shape != y_pred.shape:
            raise ValueError(
                f"{self.name}: expected y_true and y_pred of one shape (B, U); got {y_true.shape} and {y_pred.shape}."
            )
        if self.threshold is None:
            positive = (y_pred >= y_pred.max(axis=-1, keepdims=True)) & (np.abs(y_pred) > 1e-9)
        else:
            positive = y_pred > y_pred.dtype.type(self.threshold)
        predicted = positive.astype(self.dtype)
        weights = np.ones(1, self.dtype) if sample_weight is None else np.asarray(sample_weight, self.dtype)
        axis = None if self.average == "micro" else 0

        def total(values: Array) -> Array:
            return (values * weights.reshape(-1, 1)).sum(axis=axis)

        self.true_positives = self.true_positives + total(predicted * y_true)
        self.false_positives = self.false_positives + total(predicted * (1 - y_true))
        self.false_negatives = self.false_negatives + total((1 - predicted) * y_true)
        self.positives = self.positives + total(y_true)

    def result(self) -> Any:
        counts = self.true_positives, self.false_positives, self.false_negatives
        score = ops.fbeta_score(*counts, beta=self.beta, epsilon=config.epsilon())
        if self.average == "weighted":
            return (score * (self.positives / (self.positives.sum() + config.epsilon()))).sum()
        return score if self.average is None else np.mean(score)


class F1Score(FBetaScore):
    """2 P R / (P + R): FBetaScore with β = 1. Source: keras.metrics.F1Score."""

    config_names: ClassVar[tuple[str, ...]] = ("average", "threshold")

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str = "f1_score",
        dtype: str | None = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)


class R2Score(Metric):
    """1 − Σ w(y − p)² / Σ w(y − ȳ)²: the share of the labels' variance that is explained.

    y_true, y_pred (B, U). class_aggregation: "uniform_average" of the outputs' scores, "variance_weighted_average"
    or None, a score for each output. num_regressors p > 0: the adjusted 1 − (1 − R²)(n − 1)/(n − p − 1).
    Sums are kept in floatx(), as in Keras. Errors: ValueError for another aggregation or p < 0.
    Source: keras.metrics.R2Score.
    """

    _direction = "up"
    config_names = ("class_aggregation", "num_regressors")

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str = "r2_score",
        dtype: str | None = None,
    ) -> None:
        if class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            raise ValueError(
                f"R2Score: class_aggregation must be None, 'uniform_average' or 'variance_weighted_average'; got "
                f"{class_aggregation!r}."
            )
        if num_regressors < 0:
            raise ValueError(f"R2Score: num_regressors must be at least 0; got {num_regressors!r}.")
        self.class_aggregation, self.num_regressors = class_aggregation, num_regressors
        self._kept_in = config.floatx()
        super().__init__(dtype, name)
        R2Score.reset_state(self)

    def state(self) -> dict[str, Array]:
        return {name: getattr(self, name) for name in ("sum", "squared_sum", "total_mse", "count", "num_samples")}

    def reset_state(self) -> None:
        zero = np.zeros(np.shape(getattr(self, "sum", 0)), self._kept_in)  # once updated, of the outputs' shape
        self.sum = self.squared_sum = self.total_mse = self.count = zero
        self.num_samples = 0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = same_rank(np.asarray(y_true, self.dtype), np.asarray(y_pred, self.dtype))
        if y_true.ndim != 2 or y_true.shape != y_pred.shape:
            raise ValueError(
                f"{self.name}: expected y_true and y_pred of one shape (B, U); got {y_true.shape} and {y_pred.shape}."
            )
        weights = np.asarray(1 if sample_weight is None else sample_weight, self.dtype)
        weights = np.broadcast_to(weights.reshape(-1, 1) if weights.ndim == 1 else weights, y_true.shape)
        weighted = y_true * weights
        for name, values in (
            ("sum", weighted),
            ("squared_sum", y_true * weighted),
            ("total_mse", ops.squared_error(y_true, y_pred) * weights),
            ("count", weights),
        ):
            setattr(self, name, getattr(self, name) + values.sum(axis=0).astype(self._kept_in))
        self.num_samples += y_true.size

    def result(self) -> Any:
        scores, variation = ops.r2_score(self.sum, self.squared_sum, self.total_mse, self.count)
        score: Any = scores
        if self.class_aggregation == "uniform_average":
            score = scores.mean()
        elif self.class_aggregation == "variance_weighted_average":
            with np.errstate(invalid="ignore", divide="ignore"):  # NaN where no output's labels vary, as in Keras
                score = (variation * scores).sum() / variation.sum()
        spare = self.num_samples - self.num_regressors - 1
        if self.num_regressors and spare > 0:
            return 1 - (1 - score) * (self.num_samples - 1) / spare
        return score


# ------------------------------------------------------------------------------------------- by name

_CLASSES: tuple[type[Metric], ...] = (
    Mean, Sum, MeanMetricWrapper, Accuracy, BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy,
    TopKCategoricalAccuracy, SparseTopKCategoricalAccuracy, BinaryCrossentropy, CategoricalCrossentropy,
    SparseCategoricalCrossentropy, KLDivergence, Poisson, Hinge, SquaredHinge, MeanSquaredError, MeanAbsoluteError,
    MeanAbsolutePercentageError, MeanSquaredLogarithmicError, LogCoshError, RootMeanSquaredError, TruePositives,
    FalsePositives, TrueNegatives, FalseNegatives, Precision, Recall, AUC, FBetaScore, F1Score, R2Score,
    CategoricalHinge, CosineSimilarity, PearsonCorrelation, ConcordanceCorrelation, SensitivityAtSpecificity,
    SpecificityAtSensitivity, PrecisionAtRecall, RecallAtPrecision,
)  # fmt: skip
_BY_CLASS_NAME = {cls.__name__: cls for cls in _CLASSES}
_ALIASES: dict[str, type[Metric]] = {
    "bce": BinaryCrossentropy,
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "msle": MeanSquaredLogarithmicError,
}
_WITHOUT_NAME = (  # need values, a function or a limit
    "Mean", "Sum", "MeanMetricWrapper", "SensitivityAtSpecificity", "SpecificityAtSensitivity", "PrecisionAtRecall",
    "RecallAtPrecision",
)  # fmt: skip
_BY_NAME: dict[str, type[Metric]] = {
    **{cls.__name__: cls for cls in _CLASSES if cls.__name__ not in _WITHOUT_NAME},
    **{to_snake_case(cls.__name__): cls for cls in _CLASSES if cls.__name__ not in _WITHOUT_NAME},
    **_ALIASES,
    **{name.upper(): cls for name, cls in _ALIASES.items()},
}
FUNCTIONS: dict[str, Callable[..., Array]] = {
    function.__name__: function
    for function in (
        binary_accuracy,
        categorical_accuracy,
        sparse_categorical_accuracy,
        top_k_categorical_accuracy,
        sparse_top_k_categorical_accuracy,
        pearson_correlation,
        concordance_correlation,
    )
}
_ELSEWHERE = ("BinaryIoU", "IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU")  # of images
BY_SHAPE = ("accuracy", "acc")  # the accuracy that fits the labels' shape


def serialize(metric: Any) -> dict[str, Any]:
    """A metric, or a function of y_true and y_pred, as Keras's dict; `deserialize` and `get` read it back.

    Errors: TypeError for a metric without get_config; ValueError for a lambda.
    """
    if inspect.isfunction(metric):
        return serialization.serialize_function(metric)
    return serialization.serialize(metric, "keras.metrics")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """The metric, or the function, of a serialize(), Keras's too, or of a name.

    custom_objects: name -> class or function of your own. Errors: ValueError for an unknown name, with the nearest.
    """
    if isinstance(config, str) or serialization.is_function(config):
        known = {**losses.FUNCTIONS, **FUNCTIONS}
        return serialization.deserialize_function("metric", config, known, custom_objects)
    return serialization.deserialize("metric", config, _BY_CLASS_NAME, custom_objects)


def by_shape(identifier: Any) -> bool:
    """Whether the identifier is "accuracy" or "acc", in any case: which one that is, the labels decide."""
    return isinstance(identifier, str) and identifier.lower() in BY_SHAPE


def get(identifier: Any, units: int = 1, label_shape: tuple[int, ...] | None = None) -> Metric:
    """The metric for a name, a class, an instance, a dict of serialize() or a function of y_true and y_pred.

    A name is also the metric's own.

    "accuracy" and "acc" mean BinaryAccuracy for a model with one output, SparseCategoricalAccuracy where the labels
    are (B,) or (B, 1), else CategoricalAccuracy, under that name, as in Keras. label_shape None: as the outputs'.

    Errors: ValueError for an unknown name (with the nearest ones) or anything else; NotImplementedError for Keras's of
    images. Source: keras.src.trainers.compile_utils.get_metric.
    """
    if isinstance(identifier, dict):
        identifier = deserialize(identifier)
    if isinstance(identifier, Metric):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Metric):
        return identifier()
    if isinstance(identifier, losses.Loss):
        return LossMetric(identifier, reduced=True)
    if by_shape(identifier):
        return _accuracy_for((0, units) if label_shape is None else label_shape, units, identifier)
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier](name=identifier)
    name = losses.function_name(identifier)
    if name is not None:
        return LossMetric(losses.get(identifier), name=name)
    name = getattr(identifier, "__name__", "")
    if name in FUNCTIONS and (getattr(identifier, "__module__", None) or "").startswith("keras."):
        return MeanMetricWrapper(FUNCTIONS[name], name=name)
    if inspect.isfunction(identifier):
        return MeanMetricWrapper(identifier, name=name)
    if isinstance(identifier, str) and identifier.replace("_", "").lower() in map(str.lower, _ELSEWHERE):
        raise NotImplementedError(
            f"{identifier!r} is a metric of Keras that minidl does not support: it is meant for images. A metric of "
            f"your own is a subclass of metrics.Metric, or a function of y_true and y_pred."
        )
    raise ValueError(unknown_name("metric", identifier, [*_BY_NAME, *BY_SHAPE]))


def _accuracy_for(label_shape: tuple[int, ...], units: int, name: str) -> Metric:
    if units == 1:
        return BinaryAccuracy(name=name)
    if len(label_shape) == 1 or label_shape[-1] == 1:
        return SparseCategoricalAccuracy(name=name)
    return CategoricalAccuracy(name=name)
