"""Binary cross-entropy as Keras's loss object: arguments, shapes and the mean; the formulas are in ops.py."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from minidl import config, ops
from minidl.backend import Array, array_module
from minidl.checks import finite_float, refuse_unsupported, weights_per_sample
from minidl.naming import unknown_name


class Loss:
    """A loss: called, its value; gradient(…), the derivative of that value with respect to y_pred."""

    name: str
    dtype: str
    from_logits: bool = False

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        raise NotImplementedError

    def check_labels(self, y_true: Array) -> None:
        """Raise ValueError if y_true cannot be this loss's labels."""

    def recovers_logits(self) -> bool:
        """Whether a model that ends in a sigmoid is to hand over its logits instead of its probabilities."""
        return False

    def value(self, y_true: Array, y_pred: Array, *, from_logits: bool, sample_weight: Array | None) -> Any:
        """The loss of a batch, a scalar."""
        raise NotImplementedError

    def gradient(self, y_true: Array, y_pred: Array, *, from_logits: bool, sample_weight: Array | None) -> Array:
        """dvalue/dy_pred, (B, U)."""
        raise NotImplementedError


class BinaryCrossentropy(Loss):
    """L = 1/B Σ_b w_b · 1/U Σ_u ℓ(y_bu, p_bu),  ℓ = −(y ln p + (1 − y) ln(1 − p)), in nats.

    from_logits: y_pred holds logits z, p = sigmoid(z). label_smoothing s in [0, 1]: y becomes y(1 − s) + s/2.
    reduction: "sum_over_batch_size" (the mean above; "mean" is its other name).
    Other reductions and axes of Keras's are refused.
    Errors: ValueError for a label_smoothing outside [0, 1], labels outside [0, 1] or shapes that differ.
    Source: keras.losses.BinaryCrossentropy.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        dtype: str | None = None,
    ) -> None:
        if reduction != "mean":
            refuse_unsupported("BinaryCrossentropy", reduction=(reduction, "sum_over_batch_size"))
        refuse_unsupported("BinaryCrossentropy", axis=(axis, -1))
        smoothing = finite_float("BinaryCrossentropy", "label_smoothing", label_smoothing, at_least=0.0)
        if smoothing > 1.0:
            raise ValueError(f"BinaryCrossentropy: label_smoothing must be in [0, 1]; got {label_smoothing!r}.")
        self.from_logits = bool(from_logits)
        self.label_smoothing = smoothing
        self.name = name
        self.dtype = config.standardize_dtype(dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss of y_true and y_pred, (B, U) or (B,) each, weighted by sample_weight (B,) if given."""
        y_true, y_pred = (_two_dimensional(np.asarray(a, self.dtype)) for a in (y_true, y_pred))
        if y_true.shape != y_pred.shape:
            raise ValueError(
                f"{self.name}: y_true and y_pred must have one shape; got {y_true.shape} and {y_pred.shape}."
            )
        self.check_labels(y_true)
        weight = weights_per_sample(y_true, sample_weight, None, self.dtype, len(y_true), check_finite=False)
        return self.value(y_true, y_pred, from_logits=self.from_logits, sample_weight=weight)

    def check_labels(self, y_true: Array) -> None:
        """Raise ValueError, naming the first one, if a label lies outside [0, 1]."""
        outside = (y_true < 0) | (y_true > 1)
        if outside.any():
            where = tuple(int(i) for i in array_module(y_true).argwhere(outside)[0])
            raise ValueError(
                f"{self.name}: labels must lie in [0, 1]; y[{', '.join(map(str, where))}] is {y_true[where]} "
                f"({int(outside.sum())} such in all). Code two classes as 0 and 1."
            )

    def recovers_logits(self) -> bool:
        return True

    def value(self, y_true: Array, y_pred: Array, *, from_logits: bool, sample_weight: Array | None) -> Any:
        y = self._smoothed(y_true)
        if from_logits:
            losses = ops.binary_crossentropy_from_logits(y, y_pred)
        else:
            losses = ops.binary_crossentropy(y, y_pred, epsilon=config.epsilon())
        return ops.weighted_mean_over_batch(losses.mean(axis=-1), sample_weight)

    def gradient(self, y_true: Array, y_pred: Array, *, from_logits: bool, sample_weight: Array | None) -> Array:
        y = self._smoothed(y_true)
        if from_logits:
            gradient = ops.binary_crossentropy_from_logits_backward(y, y_pred)
        else:
            gradient = ops.binary_crossentropy_backward(y, y_pred, epsilon=config.epsilon())
        gradient *= 1.0 / y_pred.size  # the means over units and batch
        if sample_weight is not None:
            gradient *= sample_weight[:, None]
        return gradient

    def _smoothed(self, y_true: Array) -> Array:
        if self.label_smoothing == 0.0:
            return y_true
        return y_true * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing


def _two_dimensional(array: Array) -> Array:
    return array[:, None] if array.ndim == 1 else array


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,): the mean over the last axis.

    Source: keras.losses.binary_crossentropy.
    """
    refuse_unsupported("binary_crossentropy", axis=(axis, -1))
    y_pred = np.asarray(y_pred, config.floatx())
    y_true = np.asarray(y_true, y_pred.dtype)
    if y_true.shape != y_pred.shape:
        raise ValueError(
            f"binary_crossentropy: y_true and y_pred must have one shape; got {y_true.shape} and {y_pred.shape}."
        )
    y_true = y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing if label_smoothing else y_true
    if from_logits:
        return ops.binary_crossentropy_from_logits(y_true, y_pred).mean(axis=-1)
    return ops.binary_crossentropy(y_true, y_pred, epsilon=config.epsilon()).mean(axis=-1)


_BY_NAME = {
    "binary_crossentropy": BinaryCrossentropy,
    "BinaryCrossentropy": BinaryCrossentropy,
    "bce": BinaryCrossentropy,
}


def get(identifier: Any) -> Loss:
    """The loss for a name, a class, an instance, or the function binary_crossentropy (ours or Keras's).

    Errors: ValueError for None, an unknown name (with the nearest ones) or anything else.
    """
    if isinstance(identifier, Loss):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Loss):
        return identifier()
    library = (getattr(identifier, "__module__", None) or "").split(".")[0]
    if getattr(identifier, "__name__", "") == "binary_crossentropy" and library in ("keras", "minidl"):
        return BinaryCrossentropy()
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    raise ValueError(unknown_name("loss", identifier, _BY_NAME))
