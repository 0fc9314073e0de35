"""Keras's loss objects: arguments, labels, weights and the reduction; the formulas are in ops.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from minidl import config, ops, serialization
from minidl.backend import Array, array_module
from minidl.checks import finite_float
from minidl.naming import to_snake_case, unknown_name

REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None)


class Loss:
    """A loss: called, its value. The base class of minidl's losses, and of your own.

    A loss of your own defines call(y_true, y_pred), the loss of each sample or of each element, and
    gradient(y_true, y_pred), the derivative of the sum of these with respect to y_pred, of y_pred's shape, which Keras
    ignores. The loss of a sample must not depend on another sample's y_pred. Weights and reduction are done here.
    y_true may have any shape, a row for each sample; to a model with one output (B,) comes as (B, 1), where Keras hands
    it on as it is, for y_pred (B, 1) to broadcast to (B, B).

    reduction: what is made of the samples' losses ℓ_b with weights w_b: "sum_over_batch_size" and "mean" Σ w ℓ / B;
    "mean_with_sample_weight" Σ w ℓ / Σ w; "sum" Σ w ℓ; None and "none" w_b ℓ_b, a loss for each sample. A model
    trains with None on the sum, and reports the mean, as Keras does.
    Source: keras.losses.Loss, keras.src.losses.loss.reduce_weighted_values.
    """

    from_logits: bool = False
    sparse: ClassVar[bool] = False  # labels are class numbers, (B,) or (B, 1)
    any_labels: ClassVar[bool] = True  # labels may have another shape than y_pred
    config_names: ClassVar[tuple[str, ...]] = ()  # the arguments beside name, reduction and dtype
    axis: int = -1

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: str | None = None,
    ) -> None:
        if reduction not in REDUCTIONS:
            raise ValueError(
                f"{type(self).__name__}: reduction must be one of {', '.join(map(repr, REDUCTIONS))}; got "
                f"{reduction!r}."
            )
        self.name = name or to_snake_case(type(self).__name__)
        self.reduction = reduction
        self.dtype = config.standardize_dtype(dtype)

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Each sample's or element's loss, without weights and reduction."""
        raise NotImplementedError(f"{type(self).__name__} must define call(y_true, y_pred), the loss of each sample.")

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """∂Σ call(y_true, y_pred)/∂y_pred, of y_pred's shape."""
        raise NotImplementedError(
            f"{type(self).__name__} must define gradient(y_true, y_pred), the derivative of the sum of what call "
            f"returns with respect to y_pred: minidl does not differentiate for itself. Keras ignores such a method."
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this loss again, by Keras's names; dtype, which Keras forgets, if not floatx()."""
        found = {"name": self.name, "reduction": self.reduction}
        found |= {name: getattr(self, name) for name in self.config_names}
        return found if self.dtype == config.floatx() else {**found, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """The loss of a get_config(), Keras's too."""
        return cls(**config)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss of y_true and y_pred, reduced, weighted if so asked."""
        y_true, y_pred = np.asarray(y_true, self.dtype), np.asarray(y_pred, self.dtype)
        weight = None if sample_weight is None else np.asarray(sample_weight, self.dtype)
        return self.value(y_true, y_pred, from_logits=self.from_logits, sample_weight=weight)

    # What training calls.

    def check_labels(self, y_true: Array, classes: int | None = None) -> None:
        """Raise ValueError, naming the first one, if a label is not what the loss means."""

    def recovers_logits(self) -> bool:
        """Whether a model that ends in a sigmoid or softmax is to hand over its logits instead of its outputs."""
        return False

    def weights(self, y_true: Array, sample_weight: Array | None) -> Array | None:
        """The weights, without what is to be ignored."""
        return sample_weight

    def losses(self, y_true: Array, y_pred: Array, *, from_logits: bool) -> Array:
        """Each sample's or element's loss, in y_pred's dtype."""
        found = np.asarray(self.call(y_true, y_pred))
        return found.astype(y_pred.dtype, copy=False)

    def value(self, y_true: Array, y_pred: Array, *, from_logits: bool, sample_weight: Array | None) -> Any:
        """The loss of a batch, reduced: a scalar, or with reduction None (B,)."""
        losses = self.losses(y_true, y_pred, from_logits=from_logits)
        sample_weight = self.weights(y_true, sample_weight)
        if sample_weight is not None:
            losses, sample_weight = same_rank(losses, sample_weight)
        return ops.reduce_losses(losses, sample_weight, reduction=self.reduction)

    def value_gradient(self, y_true: Array, y_pred: Array, *, from_logits: bool, sample_weight: Array | None) -> Array:
        """dvalue/dy_pred, of y_pred's shape; with reduction None, of the sum of the value."""
        shape = np.shape(self.call(y_true, y_pred))
        gradient = np.asarray(self.gradient(y_true, y_pred))
        if gradient.shape != y_pred.shape:
            raise ValueError(
                f"{self.name}: gradient must have y_pred's shape {y_pred.shape}, one derivative for each output; got "
                f"{gradient.shape}."
            )
        counts = self.counts(shape, self.weights(y_true, sample_weight))
        counts = counts.reshape(shape + (1,) * (y_pred.ndim - len(shape)))
        return (gradient * counts.astype(y_pred.dtype)).astype(y_pred.dtype, copy=False)

    def counts(self, shape: tuple[int, ...], sample_weight: Array | None) -> Array:
        """dvalue/dlosses of losses of a shape;  -> shape, in float64."""
        fitted = shape
        if sample_weight is not None:
            losses, sample_weight = same_rank(np.empty(shape), sample_weight, expand_rank_1=False)
            fitted = losses.shape
        return ops.reduce_losses_backward(fitted, sample_weight, reduction=self.reduction).reshape(shape)


class LossFunctionWrapper(Loss):
    """A function fn(y_true, y_pred, **kwargs) -> (B,) or each element's loss, and its gradient, as a Loss.

    gradient(y_true, y_pred, **kwargs): ∂Σ fn/∂y_pred, of y_pred's shape; None: what the function carries as its
    attribute `gradient`. So a function with that attribute may be given as compile(loss=…) itself, in Keras too, which
    ignores it. name: the function's unless given. reduction, dtype: see Loss.
    Errors: ValueError without a gradient. Source: keras.src.losses.losses.LossFunctionWrapper.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
        *,
        gradient: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"LossFunctionWrapper: fn must be a function of y_true and y_pred; got {fn!r}.")
        gradient = getattr(fn, "gradient", None) if gradient is None else gradient
        called = name or getattr(fn, "__name__", "loss")
        if not callable(gradient):
            raise ValueError(
                f"{called}: a loss function needs its gradient: minidl does not differentiate for itself. Set "
                f"{called}.gradient = a function of y_true and y_pred that returns the derivative of the sum of the "
                f"losses with respect to y_pred, of y_pred's shape; Keras ignores it."
            )
        super().__init__(called, reduction, dtype)
        self.fn, self._gradient, self._fn_kwargs = fn, gradient, kwargs

    def call(self, y_true: Array, y_pred: Array) -> Array:
        found: Array = self.fn(*same_rank(y_true, y_pred), **self._fn_kwargs)
        return found

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        y_true, fitted = same_rank(y_true, y_pred)
        return np.asarray(self._gradient(y_true, fitted, **self._fn_kwargs)).reshape(y_pred.shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fn": serialization.serialize_function(self.fn), **self._fn_kwargs}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        if isinstance(config.get("fn"), dict):
            config = {**config, "fn": deserialize(config["fn"])}
        return cls(**config)


class _Formula(Loss):
    """A loss of Keras's: arguments and labels here, the formula and its derivative in ops.py.

    averages: ℓ_b is the mean of the elements along axis; else the formula sums itself.
    """

    averages: ClassVar[bool] = True
    any_labels = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "call" in cls.__dict__:
            raise TypeError(
                f"{cls.__name__}: {cls.__mro__[1].__name__} has a formula of its own, so call cannot be defined anew. "
                f"Make it a subclass of losses.Loss, with call and gradient."
            )

    # What a loss is made of: the formula on labels as it wants them, and its derivative.

    def forward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        """The formula of ops.py: of each element, or where not averages of each sample."""
        raise NotImplementedError

    def backward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        """∂(each element's or sample's own loss)/∂y_pred, of y_pred's shape."""
        raise NotImplementedError

    def targets(self, y_true: Array, y_pred: Array) -> Array:
        """The labels as the formula takes them: smoothed, or −1 and 1."""
        return y_true

    def outside(self, y_true: Array, classes: int | None) -> tuple[Array, str] | None:
        """Where y_true cannot be this loss's labels, and what they must be."""
        return None

    # What is made of it.

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss of y_true and y_pred, (B, U) each, or (B,) or (B, 1) of sparse labels, weighted if so asked."""
        y_true, y_pred = _arrays(self, y_true, y_pred, self.dtype)
        self.check_labels(y_true, y_pred.shape[self.axis])
        if sample_weight is not None and np.ndim(sample_weight) and len(sample_weight) != len(y_true):
            raise ValueError(
                f"{self.name}: sample_weight must have one weight a sample, shape {(len(y_true),)}; got "
                f"{np.shape(sample_weight)}."
            )
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Array:
        """Each sample's loss, without weights and reduction, in y_pred's float type;  (B, U), (B, U) -> (B,)."""
        y_pred = floats(y_pred)
        return self.losses(*_arrays(self, y_true, y_pred, y_pred.dtype.name), from_logits=self.from_logits)

    def gradient(self, y_true: Any, y_pred: Any) -> Array:
        """∂Σ call(y_true, y_pred)/∂y_pred, of y_pred's shape;  (B, U), (B, U) -> (B, U)."""
        y_pred = floats(y_pred)
        y_true, y_pred = _arrays(self, y_true, y_pred, y_pred.dtype.name)
        gradient = self.backward(self.targets(y_true, y_pred), y_pred, self.from_logits)
        return gradient / y_pred.shape[self.axis] if self.averages else gradient

    def check_labels(self, y_true: Array, classes: int | None = None) -> None:
        """Raise ValueError, naming the first one, if a label is not what the loss means."""
        found = self.outside(y_true, classes)
        if found is not None and found[0].any():
            outside, expected = found
            where = tuple(int(i) for i in array_module(y_true).argwhere(outside)[0])
            raise ValueError(
                f"{self.name}: labels must {expected.partition('. ')[0]}; y[{', '.join(map(str, where))}] is "
                f"{y_true[where]} ({int(outside.sum())} such in all). {expected.partition('. ')[2]}".rstrip()
            )

    def losses(self, y_true: Array, y_pred: Array, *, from_logits: bool) -> Array:
        """Each sample's loss: y_pred's shape without the axis."""
        found = self.forward(self.targets(y_true, y_pred), y_pred, from_logits)
        return found.mean(axis=self.axis) if self.averages else found

    def value_gradient(self, y_true: Array, y_pred: Array, *, from_logits: bool, sample_weight: Array | None) -> Array:
        """dvalue/dy_pred, (B, U); with reduction None, of the sum of the value."""
        gradient = self.backward(self.targets(y_true, y_pred), y_pred, from_logits)
        axis = self.axis % y_pred.ndim
        shape = y_pred.shape[:axis] + y_pred.shape[axis + 1 :]
        counts = self.counts(shape, self.weights(y_true, sample_weight))
        if self.averages:
            counts = counts / y_pred.shape[self.axis]
        return gradient * np.expand_dims(counts, self.axis).astype(y_pred.dtype)


def same_rank(first: Array, second: Array, *, expand_rank_1: bool = True) -> tuple[Array, Array]:
    """(…, 1) and (…): the last axis of 1 is taken off, or added to one of rank 1.

    Source: keras.src.losses.loss.squeeze_or_expand_to_same_rank.
    """
    if first.ndim == second.ndim + 1 and first.shape[-1] == 1:
        if second.ndim == 1 and expand_rank_1:
            return first, second[:, None]
        return first[..., 0], second
    if second.ndim == first.ndim + 1 and second.shape[-1] == 1:
        if first.ndim == 1 and expand_rank_1:
            return first[:, None], second
        return first, second[..., 0]
    return first, second


def floats(values: Any) -> Array:
    """values as they are if float32 or float64, else as floatx()."""
    array = np.asarray(values)
    known = hasattr(values, "dtype") and array.dtype.name in config.FLOAT_TYPES
    return array if known else array.astype(config.floatx())


def _arrays(loss: _Formula, y_true: Any, y_pred: Any, dtype: str) -> tuple[Array, Array]:
    """Both as arrays of dtype and of shapes that the loss takes. Errors: ValueError."""
    y_true, y_pred = np.asarray(y_true, dtype), np.asarray(y_pred, dtype)
    if y_pred.ndim == 0 or y_true.ndim == 0:
        raise ValueError(f"{loss.name}: y_true and y_pred must be arrays; got {y_true.shape} and {y_pred.shape}.")
    y_true, y_pred = same_rank(y_true, y_pred)
    if loss.sparse:
        y_true = y_true[..., 0] if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1 else y_true
        if y_true.shape != y_pred.shape[:-1]:
            raise ValueError(
                f"{loss.name}: sparse labels are one class number a sample: y_pred of {y_pred.shape} needs y_true of "
                f"{y_pred.shape[:-1]} or {(*y_pred.shape[:-1], 1)}; got {y_true.shape}."
            )
    elif y_true.shape != y_pred.shape:
        raise ValueError(f"{loss.name}: y_true and y_pred must have one shape; got {y_true.shape} and {y_pred.shape}.")
    return y_true, y_pred


def _outside_0_1(y_true: Array) -> Array:
    return (y_true < 0) | (y_true > 1)


# -------------------------------------------------------------------------------------- cross-entropies


def _smoothing(where: str, value: Any) -> float:
    smoothing = finite_float(where, "label_smoothing", value, at_least=0.0)
    if smoothing > 1.0:
        raise ValueError(f"{where}: label_smoothing must be in [0, 1]; got {value!r}.")
    return smoothing


def _axis(where: str, value: Any, name: str = "axis") -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{where}: {name} must be an integer; got {value!r}.")
    return int(value)


class BinaryCrossentropy(_Formula):
    """L = 1/B Σ_b w_b · 1/U Σ_u ℓ(y_bu, p_bu),  ℓ = −(y ln p + (1 − y) ln(1 − p)), in nats.

    from_logits: y_pred holds logits z, p = sigmoid(z). label_smoothing s in [0, 1]: y becomes y(1 − s) + s/2.
    axis: that of the mean over units. reduction: see Loss.
    Errors: ValueError for a label_smoothing outside [0, 1], labels outside [0, 1] or shapes that differ.
    Source: keras.losses.BinaryCrossentropy.
    """

    config_names: ClassVar[tuple[str, ...]] = ("from_logits", "label_smoothing", "axis")

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.from_logits = bool(from_logits)
        self.label_smoothing = _smoothing(type(self).__name__, label_smoothing)
        self.axis = _axis(type(self).__name__, axis)

    def outside(self, y_true: Array, classes: int | None) -> tuple[Array, str] | None:
        return _outside_0_1(y_true), "lie in [0, 1]. Code two classes as 0 and 1."

    def recovers_logits(self) -> bool:
        return True

    def targets(self, y_true: Array, y_pred: Array) -> Array:
        if self.label_smoothing == 0.0:
            return y_true
        return ops.smoothed_labels(y_true, label_smoothing=self.label_smoothing, classes=2)

    def forward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        if from_logits:
            return ops.binary_crossentropy_from_logits(y_true, y_pred)
        return ops.binary_crossentropy(y_true, y_pred, epsilon=config.epsilon())

    def backward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        if from_logits:
            return ops.binary_crossentropy_from_logits_backward(y_true, y_pred)
        return ops.binary_crossentropy_backward(y_true, y_pred, epsilon=config.epsilon())


class BinaryFocalCrossentropy(BinaryCrossentropy):
    """Binary cross-entropy, each element weighted by q^γ, q = y(1 − p) + (1 − y)p, the share by which p misses.

    gamma ≥ 0: γ. apply_class_balancing: weighted further by α (alpha in [0, 1]) where y = 1, 1 − α where y = 0.
    The others and the errors: as BinaryCrossentropy. Source: keras.losses.BinaryFocalCrossentropy.
    """

    config_names = (*BinaryCrossentropy.config_names, "apply_class_balancing", "alpha", "gamma")

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.apply_class_balancing = bool(apply_class_balancing)
        self.alpha = finite_float("BinaryFocalCrossentropy", "alpha", alpha, at_least=0.0)
        self.gamma = finite_float("BinaryFocalCrossentropy", "gamma", gamma, at_least=0.0)

    def recovers_logits(self) -> bool:
        """With from_logits=True Keras puts a sigmoid on the outputs before it looks for one: none is recovered."""
        return not self.from_logits

    def forward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        alpha = self.alpha if self.apply_class_balancing else None
        if from_logits:
            return ops.binary_focal_crossentropy_from_logits(y_true, y_pred, gamma=self.gamma, alpha=alpha)
        return ops.binary_focal_crossentropy(y_true, y_pred, gamma=self.gamma, alpha=alpha, epsilon=config.epsilon())

    def backward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        alpha = self.alpha if self.apply_class_balancing else None
        if from_logits:
            return ops.binary_focal_crossentropy_from_logits_backward(y_true, y_pred, gamma=self.gamma, alpha=alpha)
        return ops.binary_focal_crossentropy_backward(
            y_true, y_pred, gamma=self.gamma, alpha=alpha, epsilon=config.epsilon()
        )


class CategoricalCrossentropy(_Formula):
    """L = 1/B Σ_b w_b ℓ_b,  ℓ = −Σ_c y_c ln p_c, in nats: y_true and y_pred (B, C) hold a probability for each class.

    from_logits: y_pred holds logits z, p = softmax(z). label_smoothing s in [0, 1]: y becomes y(1 − s) + s/C.
    axis: that of the classes. reduction: see Loss. A model that ends in a softmax is trained from its logits.
    Errors: ValueError for a label_smoothing outside [0, 1], labels outside [0, 1] or that do not sum to 1.
    Source: keras.losses.CategoricalCrossentropy.
    """

    averages = False

    config_names: ClassVar[tuple[str, ...]] = ("from_logits", "label_smoothing", "axis")

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.from_logits = bool(from_logits)
        self.label_smoothing = _smoothing("CategoricalCrossentropy", label_smoothing)
        self.axis = _axis("CategoricalCrossentropy", axis)

    def outside(self, y_true: Array, classes: int | None) -> tuple[Array, str] | None:
        sums = y_true.sum(axis=self.axis, keepdims=True)
        expected = "be probabilities in [0, 1] that sum to 1 over the classes. For class numbers take the sparse loss."
        return _outside_0_1(y_true) | (np.abs(sums - 1) > 1e-3), expected

    def recovers_logits(self) -> bool:
        return True

    def targets(self, y_true: Array, y_pred: Array) -> Array:
        if self.label_smoothing == 0.0:
            return y_true
        return ops.smoothed_labels(y_true, label_smoothing=self.label_smoothing, classes=y_true.shape[-1])

    def forward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        y_true, y_pred = (np.moveaxis(a, self.axis, -1) for a in (y_true, y_pred))
        if from_logits:
            return ops.categorical_crossentropy_from_logits(y_true, y_pred)
        return ops.categorical_crossentropy(y_true, y_pred, epsilon=config.epsilon())

    def backward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        y_true, y_pred = (np.moveaxis(a, self.axis, -1) for a in (y_true, y_pred))
        if from_logits:
            gradient = ops.categorical_crossentropy_from_logits_backward(y_true, y_pred)
        else:
            gradient = ops.categorical_crossentropy_backward(y_true, y_pred, epsilon=config.epsilon())
        return np.moveaxis(gradient, -1, self.axis)


class SparseCategoricalCrossentropy(_Formula):
    """L = 1/B Σ_b w_b ℓ_b,  ℓ = −ln p_c, in nats: y_true (B,) or (B, 1) holds the class number c, y_pred (B, C).

    from_logits: y_pred holds logits. reduction: see Loss. axis: the last one, the only one that Keras on TensorFlow
    takes. ignore_class: a label, such as −1 or 255, whose samples do not count: their loss is 0, and means are over the
    others. With it a model that ends in a softmax is trained from its outputs, clipped, as Keras does. On the jax and
    torch streams outputs are divided by their sum first, as for CategoricalCrossentropy: so Keras's backends differ.
    Errors: ValueError for labels that are not whole numbers in [0, C) or ignore_class, or another axis.
    Source: keras.losses.SparseCategoricalCrossentropy.
    """

    sparse = True
    averages = False

    config_names = ("from_logits", "ignore_class")

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.from_logits = bool(from_logits)
        self.ignore_class = None if ignore_class is None else _axis(type(self).__name__, ignore_class, "ignore_class")
        self.axis = _axis(type(self).__name__, axis)

    def outside(self, y_true: Array, classes: int | None) -> tuple[Array, str] | None:
        wrong = (y_true < 0) | (y_true != np.floor(y_true))
        expected = "be class numbers 0, 1, 2, …. For a probability for each class take the categorical loss."
        if classes is not None:
            expected = f"be class numbers in [0, {classes}), one output for each class. Count the classes from 0."
            wrong = wrong | (y_true >= classes)
        return (wrong if self.ignore_class is None else wrong & (y_true != self.ignore_class)), expected

    def recovers_logits(self) -> bool:
        return self.ignore_class is None

    def targets(self, y_true: Array, y_pred: Array) -> Array:
        if self.axis not in (-1, y_pred.ndim - 1):
            raise ValueError(
                f"{self.name}: the classes must be along the last axis, -1 or {y_pred.ndim - 1}, as for Keras on "
                f"TensorFlow; got axis={self.axis}."
            )
        return y_true[..., 0] if y_true.ndim == y_pred.ndim else y_true

    def counted(self, y_true: Array, y_pred: Array) -> tuple[Array, Array, Array]:
        """Which samples count, and labels and outputs with a class and outputs that do for the others."""
        valid = y_true != self.ignore_class
        return valid, np.where(valid, y_true, 0), np.where(valid[..., None], y_pred, 0)

    def weights(self, y_true: Array, sample_weight: Array | None) -> Array | None:
        """The weights, 0 for what is ignored, and for a mean over all samples larger by all / counted for the others.

        Source: keras.src.losses.loss.apply_mask.
        """
        if self.ignore_class is None:
            return sample_weight
        mask = (y_true != self.ignore_class).astype(self.dtype)
        if self.reduction in ("mean", "sum_over_batch_size"):
            mask = mask * ops.divide_no_nan(mask.dtype.type(mask.size), mask.sum())
        if sample_weight is None:
            return mask
        mask, sample_weight = same_rank(mask, sample_weight)
        return sample_weight * mask

    def forward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        if self.ignore_class is not None:
            valid, y_true, y_pred = self.counted(y_true, y_pred)
        if from_logits:
            found = ops.sparse_categorical_crossentropy_from_logits(y_true, y_pred)
        elif not config.losses_are_tensorflows():  # keras/src/backend/{jax,torch}/nn.py
            found = ops.categorical_crossentropy(ops.one_hot(y_true, y_pred), y_pred, epsilon=config.epsilon())
        else:
            found = ops.sparse_categorical_crossentropy(y_true, y_pred, epsilon=config.epsilon())
        return found if self.ignore_class is None else np.where(valid, found, 0)

    def backward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        if self.ignore_class is not None:
            valid, y_true, y_pred = self.counted(y_true, y_pred)
        if from_logits:
            found = ops.sparse_categorical_crossentropy_from_logits_backward(y_true, y_pred)
        elif not config.losses_are_tensorflows():  # keras/src/backend/{jax,torch}/nn.py
            found = ops.categorical_crossentropy_backward(ops.one_hot(y_true, y_pred), y_pred, epsilon=config.epsilon())
        else:
            found = ops.sparse_categorical_crossentropy_backward(y_true, y_pred, epsilon=config.epsilon())
        return found if self.ignore_class is None else np.where(valid[..., None], found, 0)


class CategoricalFocalCrossentropy(CategoricalCrossentropy):
    """ℓ = −Σ_c α_c (1 − p_c)^γ y_c ln p_c: categorical cross-entropy in which easy samples count less.

    alpha: α, one number, or one a class, rounded to float32 as in Keras; gamma ≥ 0: γ. The others and the errors: as
    CategoricalCrossentropy; but a model that ends in a softmax is trained from its outputs, clipped to [ε, 1 − ε], as
    in Keras.
    Source: keras.losses.CategoricalFocalCrossentropy.
    """

    config_names = (*CategoricalCrossentropy.config_names, "alpha", "gamma")

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        where = "CategoricalFocalCrossentropy"
        several = isinstance(alpha, (list, tuple, np.ndarray))
        found = [finite_float(where, "alpha", value, at_least=0.0) for value in (alpha if several else [alpha])]
        self.alpha = found if several else found[0]
        self.gamma = finite_float(where, "gamma", gamma, at_least=0.0)

    def recovers_logits(self) -> bool:
        return False

    def forward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        y_true, y_pred = (np.moveaxis(a, self.axis, -1) for a in (y_true, y_pred))
        formula = ops.categorical_focal_crossentropy
        p = ops.softmax(y_pred) if from_logits else y_pred
        return formula(y_true, p, gamma=self.gamma, alpha=self._alpha(p), epsilon=config.epsilon())

    def backward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        y_true, y_pred = (np.moveaxis(a, self.axis, -1) for a in (y_true, y_pred))
        formula = ops.categorical_focal_crossentropy_backward
        p = ops.softmax(y_pred) if from_logits else y_pred
        gradient = formula(y_true, p, gamma=self.gamma, alpha=self._alpha(p), epsilon=config.epsilon())
        return np.moveaxis(ops.softmax_backward(gradient, p) if from_logits else gradient, -1, self.axis)

    def _alpha(self, y_pred: Array) -> Array:
        alpha = np.asarray(self.alpha, np.float64 if np.ndim(self.alpha) == 0 else np.float32).astype(y_pred.dtype)
        if alpha.ndim and alpha.shape != y_pred.shape[-1:]:
            raise ValueError(
                f"{self.name}: alpha must be one number or one for each of {y_pred.shape[-1]} classes; got "
                f"{len(alpha)}."
            )
        return alpha


# ------------------------------------------------------------------------- losses of one formula each


class _Plain(_Formula):
    """A loss without arguments of its own: the formula's name in ops.py, and whether it takes ε."""

    formula: ClassVar[str]
    fuzzy: ClassVar[bool] = False

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def arguments(self) -> dict[str, float]:
        """The formula's keyword arguments."""
        return {"epsilon": config.epsilon()} if self.fuzzy else {}

    def forward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        return getattr(ops, self.formula)(y_true, y_pred, **self.arguments())

    def backward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        return getattr(ops, f"{self.formula}_backward")(y_true, y_pred, **self.arguments())


class MeanSquaredError(_Plain):
    """ℓ = mean (y − p)² over the units. reduction: see Loss. Source: keras.losses.MeanSquaredError."""

    formula = "squared_error"


class MeanAbsoluteError(_Plain):
    """ℓ = mean |y − p| over the units. reduction: see Loss. Source: keras.losses.MeanAbsoluteError."""

    formula = "absolute_error"


class MeanAbsolutePercentageError(_Plain):
    """ℓ = 100 mean |y − p| / max(|y|, ε). reduction: see Loss. Source: keras.losses.MeanAbsolutePercentageError."""

    formula, fuzzy = "absolute_percentage_error", True


class MeanSquaredLogarithmicError(_Plain):
    """ℓ = mean (ln(1 + p) − ln(1 + y))², p and y at least ε. Errors: ValueError for labels below 0.

    reduction: see Loss. Source: keras.losses.MeanSquaredLogarithmicError.
    """

    formula, fuzzy = "squared_logarithmic_error", True

    def outside(self, y_true: Array, classes: int | None) -> tuple[Array, str] | None:
        return y_true < 0, "be at least 0. The logarithm of 1 + y is meant for amounts and counts."


class Huber(_Plain):
    """ℓ = mean of e²/2 where |e| ≤ δ, else δ|e| − δ²/2,  e = p − y, δ = delta > 0.

    reduction: see Loss. Source: keras.losses.Huber.
    """

    formula = "huber"

    config_names = ("delta",)  # which Keras forgets to write, and reads

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "huber_loss",
        dtype: str | None = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        self.delta = finite_float("Huber", "delta", delta, at_least=0.0)

    def arguments(self) -> dict[str, float]:
        return {"delta": self.delta}


class LogCosh(_Plain):
    """ℓ = mean ln cosh(p − y). reduction: see Loss. Source: keras.losses.LogCosh."""

    formula = "log_cosh"


class Hinge(_Plain):
    """ℓ = mean max(1 − y p, 0), y = −1 or 1; labels 0 and 1 are taken as −1 and 1.

    reduction: see Loss. Errors: ValueError for other labels. Source: keras.losses.Hinge.
    """

    formula = "hinge"

    def targets(self, y_true: Array, y_pred: Array) -> Array:
        return ops.hinge_labels(y_true)

    def outside(self, y_true: Array, classes: int | None) -> tuple[Array, str] | None:
        low = 0 if (y_true == 0).any() else -1
        return (y_true != low) & (y_true != 1), "all be -1 or 1, or all be 0 or 1. The sign is the class."


class SquaredHinge(Hinge):
    """ℓ = mean max(1 − y p, 0)², else as Hinge. Source: keras.losses.SquaredHinge."""

    formula = "squared_hinge"


class CategoricalHinge(_Plain):
    """ℓ = max(1 + max_c (1 − y_c) p_c − Σ_c y_c p_c, 0), y one-hot (or −1 and 1): the right class should lead by 1.

    reduction: see Loss. Source: keras.losses.CategoricalHinge.
    """

    formula, averages = "categorical_hinge", False


class CosineSimilarity(_Plain):
    """ℓ = −cos of the angle between y and p: −1 for one direction, 0 for right angles, 1 for opposite ones.

    axis: that of the vectors. reduction: see Loss. Source: keras.losses.CosineSimilarity.
    """

    formula, averages, fuzzy = "cosine_similarity", False, True
    config_names = ("axis",)  # which Keras forgets to write, and reads

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cosine_similarity",
        dtype: str | None = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        self.axis = _axis("CosineSimilarity", axis)

    def forward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        return -super().forward(np.moveaxis(y_true, self.axis, -1), np.moveaxis(y_pred, self.axis, -1), from_logits)

    def backward(self, y_true: Array, y_pred: Array, from_logits: bool) -> Array:
        moved = np.moveaxis(y_true, self.axis, -1), np.moveaxis(y_pred, self.axis, -1)
        return -np.moveaxis(super().backward(*moved, from_logits), -1, self.axis)


class KLDivergence(_Plain):
    """ℓ = Σ_c y_c ln(y_c / p_c), both clipped to [ε, 1]. Errors: ValueError for labels outside [0, 1].

    reduction: see Loss. Source: keras.losses.KLDivergence.
    """

    formula, fuzzy, averages = "kl_divergence", True, False

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "kl_divergence",
        dtype: str | None = None,
    ) -> None:
        super().__init__(reduction, name, dtype)

    def outside(self, y_true: Array, classes: int | None) -> tuple[Array, str] | None:
        return _outside_0_1(y_true), "lie in [0, 1]. They are the probabilities of the classes."


class Poisson(_Plain):
    """ℓ = mean p − y ln(p + ε), p a rate, y a count. Errors: ValueError for labels below 0.

    reduction: see Loss. Source: keras.losses.Poisson.
    """

    formula, fuzzy = "poisson", True

    def outside(self, y_true: Array, classes: int | None) -> tuple[Array, str] | None:
        return y_true < 0, "be at least 0. They are counts."


# ----------------------------------------------------------------- the functions: each sample's own loss


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,); see BinaryCrossentropy. Source: keras.losses of that name."""
    return BinaryCrossentropy(from_logits, label_smoothing, axis).call(y_true, y_pred)


def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,); see BinaryFocalCrossentropy. Source: keras.losses of that name."""
    loss = BinaryFocalCrossentropy(apply_class_balancing, alpha, gamma, from_logits, label_smoothing, axis)
    return loss.call(y_true, y_pred)


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Array:
    """Each sample's loss, (B, C), (B, C) -> (B,); see CategoricalCrossentropy. Source: keras.losses of that name."""
    return CategoricalCrossentropy(from_logits, label_smoothing, axis).call(y_true, y_pred)


def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: Any = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Array:
    """Each sample's loss, (B, C), (B, C) -> (B,); see CategoricalFocalCrossentropy. Source: keras.losses."""
    return CategoricalFocalCrossentropy(alpha, gamma, from_logits, label_smoothing, axis).call(y_true, y_pred)


def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Array:
    """Each sample's loss, (B,), (B, C) -> (B,); see SparseCategoricalCrossentropy. Source: keras.losses."""
    return SparseCategoricalCrossentropy(from_logits, ignore_class, axis=axis).call(y_true, y_pred)


def mean_squared_error(y_true: Any, y_pred: Any) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,); see MeanSquaredError. Source: keras.losses of that name."""
    return MeanSquaredError().call(y_true, y_pred)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,); see MeanAbsoluteError. Source: keras.losses of that name."""
    return MeanAbsoluteError().call(y_true, y_pred)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,); see MeanAbsolutePercentageError. Source: keras.losses."""
    return MeanAbsolutePercentageError().call(y_true, y_pred)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,); see MeanSquaredLogarithmicError. Source: keras.losses."""
    return MeanSquaredLogarithmicError().call(y_true, y_pred)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,); see Huber. Source: keras.losses of that name."""
    return Huber(delta).call(y_true, y_pred)


def log_cosh(y_true: Any, y_pred: Any) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,); see LogCosh. Source: keras.losses of that name."""
    return LogCosh().call(y_true, y_pred)


def hinge(y_true: Any, y_pred: Any) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,); see Hinge. Source: keras.losses of that name."""
    return Hinge().call(y_true, y_pred)


def squared_hinge(y_true: Any, y_pred: Any) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,); see SquaredHinge. Source: keras.losses of that name."""
    return SquaredHinge().call(y_true, y_pred)


def categorical_hinge(y_true: Any, y_pred: Any) -> Array:
    """Each sample's loss, (B, C), (B, C) -> (B,); see CategoricalHinge. Source: keras.losses of that name."""
    return CategoricalHinge().call(y_true, y_pred)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Array:
    """Each sample's loss, minus the cosine, (B, U), (B, U) -> (B,); see CosineSimilarity. Source: keras.losses."""
    return CosineSimilarity(axis).call(y_true, y_pred)


def kl_divergence(y_true: Any, y_pred: Any) -> Array:
    """Each sample's loss, (B, C), (B, C) -> (B,); see KLDivergence. Source: keras.losses of that name."""
    return KLDivergence().call(y_true, y_pred)


def poisson(y_true: Any, y_pred: Any) -> Array:
    """Each sample's loss, (B, U), (B, U) -> (B,); see Poisson. Source: keras.losses of that name."""
    return Poisson().call(y_true, y_pred)


# ------------------------------------------------------------------------------------------- by name

_BY_FUNCTION: dict[str, type[Loss]] = {
    "binary_crossentropy": BinaryCrossentropy,
    "binary_focal_crossentropy": BinaryFocalCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "categorical_focal_crossentropy": CategoricalFocalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mean_absolute_percentage_error": MeanAbsolutePercentageError,
    "mean_squared_logarithmic_error": MeanSquaredLogarithmicError,
    "huber": Huber,
    "log_cosh": LogCosh,
    "hinge": Hinge,
    "squared_hinge": SquaredHinge,
    "categorical_hinge": CategoricalHinge,
    "cosine_similarity": CosineSimilarity,
    "kl_divergence": KLDivergence,
    "poisson": Poisson,
}
_ALIASES = {
    "bce": BinaryCrossentropy,
    "kld": KLDivergence,
    "mae": MeanAbsoluteError,
    "mse": MeanSquaredError,
    "mape": MeanAbsolutePercentageError,
    "msle": MeanSquaredLogarithmicError,
}
_BY_NAME = {
    **_BY_FUNCTION,
    **{cls.__name__: cls for cls in _BY_FUNCTION.values()},
    **_ALIASES,
    **{name.upper(): cls for name, cls in _ALIASES.items()},
}
_CLASSES: dict[str, Any] = {
    **{cls.__name__: cls for cls in _BY_FUNCTION.values()},
    "LossFunctionWrapper": LossFunctionWrapper,
}
FUNCTIONS = {
    **{name: globals()[name] for name in _BY_FUNCTION},
    **{alias: globals()[to_snake_case(cls.__name__)] for alias, cls in _ALIASES.items()},
    **{alias.upper(): globals()[to_snake_case(cls.__name__)] for alias, cls in _ALIASES.items()},
}
_ELSEWHERE = ("CategoricalGeneralizedCrossEntropy", "Circle", "CTC", "Dice", "Tversky")  # of other kinds of networks
BY_SHAPE = ("crossentropy", "ce")  # the cross-entropy that fits the labels' shape


def by_shape(identifier: Any) -> bool:
    """Whether the identifier is "crossentropy" or "ce", in any case: which one that is, the labels decide."""
    return str(identifier).lower() in BY_SHAPE


def crossentropy_for(label_shape: tuple[int, ...], units: int) -> Loss:
    """The cross-entropy for labels of a shape: binary for one output, sparse for (B,) or (B, 1), else categorical.

    Source: keras.src.trainers.compile_utils.get_loss.
    """
    if units == 1:
        return BinaryCrossentropy()
    if len(label_shape) == 1 or label_shape[-1] == 1:
        return SparseCategoricalCrossentropy()
    return CategoricalCrossentropy()


def function_name(identifier: Any) -> str | None:
    """The name of a loss function of Keras's or minidl's; None for anything else, a user's own function too."""
    library = (getattr(identifier, "__module__", None) or "").split(".")[0]
    name = getattr(identifier, "__name__", "")
    return name if name in _BY_FUNCTION and library in ("keras", "minidl") else None


def serialize(loss: Any) -> dict[str, Any]:
    """A loss, or a loss function, as Keras's dict; `deserialize` and `get` read it back.

    Errors: TypeError for a loss without get_config; ValueError for a lambda.
    """
    return (
        serialization.serialize_function(loss)
        if inspect.isfunction(loss)
        else serialization.serialize(loss, "keras.losses")
    )


def deserialize(name: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """The loss, or the loss function, of a serialize(), Keras's too, or of a name.

    custom_objects: name -> class or function of your own. Errors: ValueError for an unknown name, with the nearest.
    """
    if isinstance(name, str) or serialization.is_function(name):
        return serialization.deserialize_function("loss", name, FUNCTIONS, custom_objects)
    return serialization.deserialize("loss", name, _CLASSES, custom_objects)


def get(identifier: Any) -> Loss:
    """The loss for a name, a class, an instance, a dict of serialize(), or a function of such a name (ours or Keras's).

    A function of your own needs its gradient: see LossFunctionWrapper. A list may hold the one loss.
    Errors: ValueError for None, an unknown name (with the nearest ones), a function without gradient or anything else;
    NotImplementedError for losses of several outputs and Keras's of images and sequences.
    """
    if isinstance(identifier, (list, tuple)) and len(identifier) == 1:
        identifier = identifier[0]
    if isinstance(identifier, dict):
        if "class_name" not in identifier:
            raise NotImplementedError(
                f"loss: a dict names a loss for each of several outputs, and a model of minidl has one output; pass "
                f"the loss itself, got {identifier!r}."
            )
        identifier = deserialize(identifier)
    if isinstance(identifier, Loss):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Loss):
        return identifier()
    function = function_name(identifier)
    if function is not None:
        return _BY_FUNCTION[function]()
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    if callable(identifier) and not inspect.isclass(identifier):
        return LossFunctionWrapper(identifier)
    if str(identifier).replace("_", "").lower() in map(str.lower, _ELSEWHERE):
        raise NotImplementedError(
            f"{identifier!r} is a loss of Keras that minidl does not support: it is meant for images, sequences or "
            f"embeddings. A loss of your own with its gradient is a subclass of losses.Loss."
        )
    raise ValueError(unknown_name("loss", identifier, [*_BY_NAME, *BY_SHAPE]))
