"""Metrics as Keras keeps them: a total and a count that batches add to; the formulas are in ops.py."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from minidl import config, losses, ops
from minidl.backend import Array
from minidl.checks import refuse_unsupported
from minidl.naming import unknown_name


class Mean:
    """The weighted mean of all values since reset_state(): Σ w·value / Σ w, and 0 before the first.

    total and count are kept in dtype (default floatx()), as Keras keeps them, and so round as Keras's do.
    """

    def __init__(self, name: str = "mean", dtype: str | None = None) -> None:
        self.name = name
        self.dtype = config.standardize_dtype(dtype)
        self.reset_state()

    def reset_state(self) -> None:
        """Forget all batches."""
        self.total = self.count = np.dtype(self.dtype).type(0)

    def add(self, total: Any, count: Any) -> None:
        """Add a batch's Σ w·value and Σ w."""
        scalar = np.dtype(self.dtype).type
        self.total += scalar(total)
        self.count += scalar(count)

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Add values, a scalar or (B, …), with weights that broadcast to their first axis or None (all 1)."""
        values = np.atleast_1d(np.asarray(values, self.dtype))
        values = values.reshape(len(values), -1).mean(axis=-1)
        if sample_weight is None:
            self.add(values.sum(), len(values))
        else:
            weights = np.broadcast_to(np.asarray(sample_weight, self.dtype).ravel(), values.shape)
            self.add((values * weights).sum(), weights.sum())

    def result(self) -> Any:
        """The mean so far."""
        return self.total / self.count if self.count else self.total


class BinaryAccuracy(Mean):
    """The fraction of outputs whose class is right: y_true = [y_pred > threshold], strictly greater.

    Source: keras.metrics.BinaryAccuracy.
    """

    def __init__(self, name: str = "binary_accuracy", dtype: str | None = None, threshold: float = 0.5) -> None:
        if not 0.0 < threshold < 1.0:
            raise ValueError(f"BinaryAccuracy: threshold must be strictly between 0 and 1; got {threshold!r}.")
        self.threshold = threshold
        super().__init__(name, dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Add a batch: y_true, y_pred (B, U), sample_weight (B,) or None."""
        matches = ops.binary_accuracy(*_same_rank(y_true, y_pred, self.dtype), threshold=self.threshold)
        super().update_state(matches, sample_weight)


class BinaryCrossentropy(Mean):
    """The mean binary cross-entropy of all samples, without penalties. Source: keras.metrics.BinaryCrossentropy."""

    def __init__(
        self,
        name: str = "binary_crossentropy",
        dtype: str | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ) -> None:
        refuse_unsupported("BinaryCrossentropy", axis=(axis, -1))
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        super().__init__(name, dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Add a batch: y_true, y_pred (B, U), sample_weight (B,) or None."""
        y_true, y_pred = _same_rank(y_true, y_pred, self.dtype)
        values = losses.binary_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing)
        super().update_state(values, sample_weight)


def _same_rank(y_true: Any, y_pred: Any, dtype: str) -> tuple[Array, Array]:
    """Both as (B, U) arrays of dtype; (B,) is taken as (B, 1)."""
    arrays = [np.asarray(a, dtype) for a in (y_true, y_pred)]
    y_true, y_pred = (a[:, None] if a.ndim == 1 else a for a in arrays)
    if y_true.shape != y_pred.shape:
        raise ValueError(f"y_true and y_pred must have one shape; got {y_true.shape} and {y_pred.shape}.")
    return y_true, y_pred


_CLASSES = {
    "BinaryAccuracy": BinaryAccuracy,
    "BinaryCrossentropy": BinaryCrossentropy,
    "binary_accuracy": BinaryAccuracy,
    "binary_crossentropy": BinaryCrossentropy,
    "bce": BinaryCrossentropy,
}


def get(identifier: Any, units: int = 1) -> Mean:
    """The metric for a name, a class or an instance. "accuracy" and "acc" of a model with one output unit mean
    BinaryAccuracy under that name, as in Keras; with more units they mean a categorical accuracy, which is refused.

    Errors: ValueError for an unknown name (with the nearest ones) or anything else.
    """
    if isinstance(identifier, Mean):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Mean):
        return identifier()
    if identifier in ("accuracy", "acc"):
        if units != 1:
            raise NotImplementedError(
                f"metrics: {identifier!r} of a model with {units} outputs is Keras's categorical accuracy, which "
                f"minidl does not support; for independent yes/no outputs pass 'binary_accuracy'."
            )
        return BinaryAccuracy(name=identifier)
    if isinstance(identifier, str) and identifier in _CLASSES:
        return _CLASSES[identifier](name=identifier)
    raise ValueError(unknown_name("metric", identifier, [*_CLASSES, "accuracy", "acc"]))
