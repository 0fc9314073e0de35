"""Layers that bring the data to a common scale: Rescaling by given numbers, Normalization by those of the data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl import checks, config, ops
from minidl.backend import Array
from minidl.layers.base import Layer, Shape, batch_shape


class Rescaling(Layer):
    """outputs = inputs · scale + offset;  (B, …, U) -> (B, …, U).

    scale, offset: numbers, or arrays that broadcast over the inputs. A Python number is rounded to float32, as Keras
    rounds it, in float64 too; NumPy's are not.
    Errors: TypeError for anything that is not numbers; ValueError for an array that does not broadcast.
    """

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.offset = scale, offset
        self._scale, self._offset = (
            _as_tensor("Rescaling", name, value).astype(self.dtype)
            for name, value in (("scale", scale), ("offset", offset))
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        sample = tuple(size or 1 for size in input_shape)
        for name, array in (("scale", self._scale), ("offset", self._offset)):
            try:
                fits = np.broadcast_shapes(sample, array.shape) == sample
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(
                    f"{self.name}: {name} of shape {array.shape} does not broadcast over inputs of shape {input_shape}."
                )
        return input_shape

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs · scale + offset."""
        dtype = inputs.dtype
        return ops.rescale(inputs, self._scale.astype(dtype, copy=False), self._offset.astype(dtype, copy=False))

    def backward(self, d_outputs: Array) -> Array:
        """d_outputs · scale."""
        return ops.rescale_backward(d_outputs, self._scale.astype(d_outputs.dtype, copy=False))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": _serialized(self.scale), "offset": _serialized(self.offset)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Rescaling:
        return cls(**{name: _deserialized(value) for name, value in config.items()})


class Normalization(Layer):
    """outputs = (inputs − mean) / max(√variance, ε), or with invert its inverse;  (B, …, U) -> (B, …, U).

    The mean and the variance are given, or found by adapt(data), before training. axis: the axis or axes with
    statistics of their own (−1: each feature), None for one mean of all. ε is config.epsilon().
    The state is mean, variance and count; count stays 0 and is there for Keras's files. Setting the state takes effect
    at once; in Keras only once a file is loaded.

    Errors: ValueError for one of mean and variance without the other, or of shapes that do not fit axis.
    Source: keras.layers.Normalization.
    """

    def __init__(
        self,
        axis: int | tuple[int, ...] | list[int] | None = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        axes = () if axis is None else (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
        self.axis = tuple(int(one) for one in axes)
        self.input_mean, self.input_variance, self.invert = mean, variance, invert
        if (mean is None) != (variance is None):
            raise ValueError(f"Normalization: give both mean and variance, or neither; got {mean!r}, {variance!r}.")
        self._given: tuple[Array, Array] | None = None
        if mean is not None:
            self._given = _as_tensor("Normalization", "mean", mean), _as_tensor("Normalization", "variance", variance)
            shape, other = (array.shape for array in self._given)
            if shape != other:
                raise ValueError(f"Normalization: mean and variance must have one shape; got {shape} and {other}.")
            if len(shape) > len(self.axis):
                raise ValueError(
                    f"Normalization: mean has {len(shape)} dimensions, more than the axes {self.axis} that have one."
                )
        self._kept: tuple[int, ...] = ()
        self._built_for: Shape = ()

    def build(self, input_shape: Shape) -> None:
        """Make mean and variance, 0 and 1 until adapt, or bring those that were given into shape."""
        shape = batch_shape(self.name, input_shape)
        rank = len(shape)
        if any(not -rank <= axis < rank for axis in self.axis):
            raise ValueError(f"{self.name}: axis must be in [-{rank}, {rank}) for inputs {shape}; got {self.axis}.")
        self._kept = tuple(sorted(axis % rank for axis in self.axis))
        for axis in self._kept:
            if shape[axis] is None:
                raise ValueError(
                    f"{self.name}: the inputs' size along axis {axis} must be known to have statistics of its own; "
                    f"their shape is {shape}."
                )
        self._built_for = shape
        self._broadcast_shape = tuple((shape[axis] or 1) if axis in self._kept else 1 for axis in range(rank))
        own = tuple(self._broadcast_shape[axis] for axis in self._kept)
        if self._given is None:
            self.state["mean"] = np.zeros(own, self.dtype)
            self.state["variance"] = np.ones(own, self.dtype)
            self.state["count"] = np.zeros((), np.int64)
        else:
            self._given = self._spread(self._given[0]), self._spread(self._given[1])
        super().build(shape)

    def _spread(self, array: Array) -> Array:
        """A given mean or variance, its last axes being the last of those that are kept."""
        shape = [1] * len(self._broadcast_shape)
        if array.ndim <= len(self._kept):
            for axis, size in zip(self._kept[len(self._kept) - array.ndim :], array.shape, strict=True):
                shape[axis] = size
            array = array.reshape(shape)
        try:
            return np.broadcast_to(array, self._broadcast_shape).astype(self.dtype)
        except ValueError:
            raise ValueError(
                f"{self.name}: mean and variance must fit {self._broadcast_shape}; got shape {array.shape}."
            ) from None

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError for another rank, or another size along the axes that have statistics of their own."""
        expected = self._built_for
        fits = len(input_shape) == len(expected) or not self._kept
        if not (fits and all(input_shape[axis] == expected[axis] for axis in self._kept)):
            raise ValueError(f"{self.name}: built for inputs of shape {expected}; got {input_shape}.")

    def adapt(self, data: Any) -> None:
        """Set mean and variance to those of the data.

        data: an array with a row for each sample, or an iterable of batches (arrays, or tuples of which the first is
        one), whose statistics are pooled one by one; also an object with len() and data[i]. Builds the layer.
        Errors: TypeError for other data; ValueError for none, another width, or a layer whose mean is given; then
        nothing is changed.
        """
        if self._given is not None:
            raise ValueError(f"{self.name}: adapt() finds mean and variance, and these were given to the layer.")
        if hasattr(data, "__array__") or hasattr(data, "__dlpack__"):
            array = self._samples(data)
            self._prepare(array.shape)
            reduced = self._reduced(array.ndim)
            mean, variance = array.mean(axis=reduced), array.var(axis=reduced)
        else:
            mean, variance = self._pooled(data)
        self.state["mean"][...], self.state["variance"][...] = mean, variance

    def _pooled(self, data: Any) -> tuple[Array, Array]:
        total: tuple[Array, Array] | None = None
        count = 0
        for batch in _batches(self.name, data):
            array = self._samples(batch[0] if isinstance(batch, tuple) else batch).astype(self.dtype)
            self._prepare(array.shape)
            reduced = self._reduced(array.ndim)
            mean, variance = array.mean(axis=reduced), array.var(axis=reduced)
            size = math.prod(array.shape[axis] for axis in reduced)
            count += size
            if total is None:
                total = np.zeros_like(mean), np.zeros_like(variance)
            total = ops.pooled_moments(*total, mean, variance, other_weight=size / count)
        if total is None:
            raise ValueError(f"{self.name}: adapt() needs at least one batch; the data held none.")
        return total

    def _samples(self, data: Any) -> Array:
        array = _adapt_array(self.name, data)
        return array[:, None] if array.ndim == 1 and not self.axis else array

    def _reduced(self, rank: int) -> tuple[int, ...]:
        return tuple(axis for axis in range(rank) if axis not in self._kept)

    def _prepare(self, shape: tuple[int, ...]) -> None:
        if self.built:
            self.check_input((None, *shape[1:]))
        else:
            self.build((None, *shape[1:]))

    def _statistics(self, dtype: Any) -> tuple[Array, Array]:
        if self._given is not None:
            return self._given[0].astype(dtype, copy=False), self._given[1].astype(dtype, copy=False)
        shape = self._broadcast_shape
        return self.state["mean"].reshape(shape), self.state["variance"].reshape(shape)

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """(inputs − mean) / max(√variance, ε), or with invert mean + inputs · max(√variance, ε)."""
        formula = ops.unstandardize if self.invert else ops.standardize
        return formula(inputs, *self._statistics(inputs.dtype), epsilon=config.epsilon())

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs); the mean and the variance are constants."""
        formula = ops.unstandardize_backward if self.invert else ops.standardize_backward
        return formula(d_outputs, self._statistics(d_outputs.dtype)[1], epsilon=config.epsilon())

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self.axis,
            "invert": self.invert,
            "mean": np.array(self.input_mean).tolist(),
            "variance": np.array(self.input_variance).tolist(),
        }

    @property
    def mean(self) -> Array:
        """The mean, with the inputs' rank. Errors: ValueError if not built."""
        self._require_built("mean")
        return self._statistics(self.dtype)[0]

    @property
    def variance(self) -> Array:
        """The variance, with the inputs' rank. Errors: ValueError if not built."""
        self._require_built("variance")
        return self._statistics(self.dtype)[1]


def _batches(name: str, data: Any) -> Any:
    if isinstance(data, (str, bytes, dict)):
        raise TypeError(f"{name}: adapt() takes an array or an iterable of batches; got {type(data).__name__}.")
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[i] for i in range(len(data)))
    if hasattr(data, "__iter__"):
        return iter(data)
    raise TypeError(f"{name}: adapt() takes an array or an iterable of batches; got {type(data).__name__}.")


def _adapt_array(name: str, data: Any) -> Array:
    if not (hasattr(data, "__array__") or hasattr(data, "__dlpack__")):
        raise TypeError(
            f"{name}: a batch for adapt() must be an array; got {type(data).__name__}. Of a list of rows, pass "
            f"numpy.array(rows)."
        )
    array = np.asarray(data) if hasattr(data, "__array__") else np.from_dlpack(data)
    return checks.numeric_array("data", array, array.dtype.name if array.dtype.kind in "fiu" else config.floatx())


def _as_tensor(where: str, name: str, value: Any) -> Array:
    """value as Keras on TensorFlow makes a tensor of it: Python's floats become float32, NumPy's keep their type.

    Errors: TypeError if it does not hold real numbers.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{where}: {name} must hold real numbers; got {value!r}.")
    of_numpy = isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array__")
    return array if of_numpy or array.dtype != np.float64 else array.astype(np.float32)


def _serialized(value: Any) -> Any:
    """A number or an array as Keras writes it into JSON."""
    if isinstance(value, np.ndarray) and value.ndim > 0:
        return {"class_name": "__numpy__", "config": {"value": value.tolist(), "dtype": value.dtype.name}}
    return value.item() if isinstance(value, (np.ndarray, np.generic)) else value


def _deserialized(value: Any) -> Any:
    if isinstance(value, dict) and value.get("class_name") == "__numpy__":
        return np.array(value["config"]["value"], value["config"]["dtype"])
    return value
