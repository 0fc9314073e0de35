"""Activations as layers of their own."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np

from minidl import activations, checks, constraints, initializers, ops, regularizers
from minidl.backend import Array
from minidl.layers.base import Layer, Shape, batch_shape, serialized
from minidl.variables import Variable


class _Elementwise(Layer):
    """A layer that is an activation and nothing else: its inputs are the pre-activations."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.built = True  # it has no parameters to wait for

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs);  (B, …, U) -> (B, …, U)."""
        return self.activation_gradient(d_outputs)

    def backward_from_pre_activations(self, d_pre_activations: Array) -> Array:
        """Nothing is below the activation: the gradient of the inputs is that of the pre-activations."""
        return d_pre_activations

    def as_activation(self) -> activations.Activation:
        """This layer as the activation of another, Dense(4, ReLU(max_value=6)), written into configs as Keras does."""
        from minidl.layers import serialize

        config = serialize(self)
        if self.activation is not None:
            return dataclasses.replace(self.activation, config=config)
        return activations.Activation(self.name, self.forward, self._backward_of, needs_inputs=True, config=config)

    def _backward_of(self, d_outputs: Array, inputs: Array) -> Array:
        self.forward(inputs)  # another layer may have used this one since
        return self.activation_gradient(d_outputs)


def activation_of(where: str, identifier: Any) -> activations.Activation:
    """activations.for_layer, also for a layer that is an activation, or its config.

    Errors: as there; NotImplementedError for a layer that is none.
    """
    if isinstance(identifier, dict) and identifier.get("class_name") not in (None, "function"):
        from minidl.layers import deserialize

        identifier = deserialize(identifier)
    if isinstance(identifier, Layer) and not hasattr(identifier, "as_activation"):
        raise NotImplementedError(
            f"{where}: a {type(identifier).__name__} as the activation of another layer is not supported: it may have "
            f"weights or state of its own. Put it into the model, after that layer."
        )
    return activations.for_layer(where, identifier)


class Activation(_Elementwise):
    """outputs = activation(inputs);  (B, …, U) -> (B, …, U).

    activation: a name, a function of minidl.activations or of a framework, or None (linear).
    Errors: ValueError for an unknown name.
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation: activations.Activation = activation_of("Activation", activation)

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """activation(inputs)."""
        self.pre_activations = inputs
        self.outputs = self.activation.forward(inputs)
        return self.outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "activation": activations.serialize(self.activation)}


class ReLU(_Elementwise):
    """outputs = min(inputs, max_value) where inputs > threshold, else negative_slope · (inputs − threshold).

    max_value ≥ 0, or None for no limit; negative_slope ≥ 0; threshold ≥ 0.
    Errors: ValueError for others. Source: keras.layers.ReLU; ops.relu.
    """

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.max_value = None if max_value is None else _checked("ReLU", "max_value", max_value)
        self.negative_slope = _checked("ReLU", "negative_slope", negative_slope)
        self.threshold = _checked("ReLU", "threshold", threshold)

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """The function of each input."""
        self.pre_activations = inputs
        return ops.relu(inputs, **self._arguments())

    def activation_gradient(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs)."""
        return ops.relu_backward(d_outputs, self.pre_activations, **self._arguments())

    def _arguments(self) -> dict[str, Any]:
        return {"max_value": self.max_value, "negative_slope": self.negative_slope, "threshold": self.threshold}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._arguments()}


class LeakyReLU(_Elementwise):
    """outputs = inputs where inputs > 0, else negative_slope · inputs;  (B, …, U) -> (B, …, U).

    negative_slope ≥ 0; alpha: its old name.
    Errors: ValueError for another slope. Source: keras.layers.LeakyReLU; ops.leaky_relu.
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        if "alpha" in kwargs:
            negative_slope = kwargs.pop("alpha")
            warnings.warn("LeakyReLU: alpha is deprecated; use negative_slope.", stacklevel=2)
        super().__init__(**kwargs)
        self.negative_slope = _checked("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs where inputs > 0, else negative_slope · inputs."""
        self.pre_activations = inputs
        return ops.leaky_relu(inputs, negative_slope=self.negative_slope)

    def activation_gradient(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs)."""
        return ops.leaky_relu_backward(d_outputs, self.pre_activations, negative_slope=self.negative_slope)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "negative_slope": self.negative_slope}


class ELU(_Elementwise):
    """outputs = inputs where inputs > 0, else alpha (e^inputs − 1);  (B, …, U) -> (B, …, U).

    Errors: ValueError for an alpha that is not finite. Source: Clevert et al. 2016; keras.layers.ELU; ops.elu.
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = checks.finite_float("ELU", "alpha", alpha)

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs where inputs > 0, else alpha (e^inputs − 1)."""
        self.pre_activations = inputs
        return ops.elu(inputs, alpha=self.alpha)

    def activation_gradient(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs)."""
        return ops.elu_backward(d_outputs, self.pre_activations, alpha=self.alpha)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}


class Softmax(_Elementwise):
    """outputs = e^inputs / Σ e^inputs, the sum over axis;  (B, …, U) -> (B, …, U).

    axis: an int, or a list of ints: the sum is over all of them.
    Errors: ValueError for an axis that the inputs do not have; NotImplementedError for a mask.
    Source: keras.layers.Softmax; ops.softmax.
    """

    def __init__(self, axis: int | list[int] | tuple[int, ...] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        axes = tuple(axis) if isinstance(axis, (list, tuple)) else (axis,)
        if not axes or not all(isinstance(one, (int, np.integer)) for one in axes):
            raise TypeError(f"Softmax: axis must be an int or a list of ints; got {axis!r}.")
        self.axis, self._axes = axis, tuple(int(one) for one in axes)
        if len(axes) == 1:  # Keras finds no logits under a softmax over several axes
            self.activation = activations.softmax

    def __call__(  # type: ignore[override]  # Keras's order
        self, inputs: Any, mask: Any = None, training: bool = False
    ) -> Any:
        checks.refuse_unsupported(self.name, mask=(mask, None))
        return super().__call__(inputs, training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rank = len(input_shape)
        if not all(-rank <= axis < rank for axis in self._axes):
            raise ValueError(f"{self.name}: axis {self.axis} is out of bounds for inputs of shape {input_shape}.")
        return input_shape

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """e^inputs / Σ e^inputs."""
        self.compute_output_shape(inputs.shape)
        self.pre_activations = inputs
        self.outputs = ops.softmax(inputs, axis=self._axes)
        return self.outputs

    def as_activation(self) -> activations.Activation:
        """See _Elementwise; the logits under one over the last axis are found, as under "softmax"."""
        found = super().as_activation()
        return found if self._axes == (-1,) else found.with_arguments(axis=self._axes)

    def activation_gradient(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs)."""
        return ops.softmax_backward(d_outputs, self.outputs, axis=self._axes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


class PReLU(Layer):
    """outputs = inputs where inputs ≥ 0, else α inputs, α learned;  (B, …, U) -> (B, …, U), α (…, U).

    alpha_initializer, alpha_regularizer, alpha_constraint: of α. shared_axes: the axes, counted from 1 for the first
    after the batch's, along which there is one α only.
    Errors: ValueError for an axis that the inputs do not have, or a size that is not known.
    Source: He et al. 2015; keras.layers.PReLU.
    """

    def __init__(
        self,
        alpha_initializer: Any = "Zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: int | list[int] | tuple[int, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer = initializers.required("PReLU", "alpha_initializer", alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)
        self.shared_axes: list[int] | None = None
        if shared_axes is not None:
            axes = shared_axes if isinstance(shared_axes, (list, tuple)) else [shared_axes]
            self.shared_axes = [checks.positive_int("PReLU", "an axis in shared_axes", axis) for axis in axes]
        self.inputs: Array = None
        self._built_for: Shape = ()

    def build(self, input_shape: Shape) -> None:
        """Make α, of a sample's shape, with size 1 along the shared axes."""
        shape = batch_shape(self.name, input_shape)
        shared = self.shared_axes or []
        if any(axis >= len(shape) for axis in shared):
            raise ValueError(f"{self.name}: shared_axes={shared} is out of bounds for inputs of shape {shape}.")
        sizes = [1 if axis in shared else size for axis, size in enumerate(shape)][1:]
        if None in sizes:
            raise ValueError(f"{self.name}: the inputs' sizes must be known along the axes of α; they are {shape}.")
        own = tuple(size for size in sizes if size is not None)
        self._built_for = shape
        self._summed = (0, *sorted(set(shared)))
        self.new_weight("alpha", own, self.alpha_initializer, self.alpha_regularizer, self.alpha_constraint)
        super().build(shape)

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError for another shape, but for the sizes along the shared axes."""
        expected = self._built_for
        if len(input_shape) != len(expected) or any(
            input_shape[axis] != expected[axis] for axis in range(len(expected)) if axis not in self._summed
        ):
            raise ValueError(f"{self.name}: built for inputs of shape {expected}; got {input_shape}.")

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs where inputs ≥ 0, else α inputs."""
        self.inputs = inputs
        return ops.prelu(inputs, self.parameters["alpha"])

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs); leaves d_alpha in grads."""
        d_alpha = ops.prelu_gradient(d_outputs, self.inputs, axes=self._summed)
        self.grads["alpha"][...] = d_alpha[0]
        return ops.prelu_backward(d_outputs, self.inputs, self.parameters["alpha"])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha_initializer": serialized(initializers, self.alpha_initializer),
            "alpha_regularizer": serialized(regularizers, self.alpha_regularizer),
            "alpha_constraint": serialized(constraints, self.alpha_constraint),
            "shared_axes": self.shared_axes,
        }

    @property
    def alpha(self) -> Variable:
        """The slopes below 0. Errors: ValueError if not built."""
        self._require_built("alpha")
        return self.variable("alpha")


def _checked(where: str, name: str, value: Any) -> float:
    return checks.finite_float(where, name, value, at_least=0.0)
