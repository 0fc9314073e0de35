"""Layers that normalize by mean and variance: of a batch, of a sample, or by its length alone."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from minidl import checks, constraints, initializers, ops, regularizers
from minidl.backend import Array
from minidl.layers.base import Layer, Shape, batch_shape, serialized
from minidl.variables import Variable


class _Scaled(Layer):
    """What the layers here share: parameters that some axes have, and that are broadcast along the others."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inputs: Array = None  # of the last forward, with the statistics that it used
        self.mean: Array = None
        self.variance: Array = None
        self._built_for: Shape = ()
        self._own_axes: tuple[int, ...] = ()

    def _note_axes(self, input_shape: Shape, axes: tuple[int, ...]) -> None:
        rank = len(input_shape)
        self._built_for = input_shape
        self._own_shape = tuple(_known_size(self.name, input_shape, axis) for axis in axes)
        self._own_axes = tuple(sorted(axis % rank for axis in axes))
        if len(set(self._own_axes)) < len(axes):
            raise ValueError(f"{self.name}: axis names a dimension twice in {list(axes)}, for inputs {input_shape}.")
        self._other_axes = tuple(axis for axis in range(rank) if axis not in self._own_axes)
        self._broadcast_shape = tuple((input_shape[i] or 1) if i in self._own_axes else 1 for i in range(rank))

    def _spread(self, name: str) -> Array | None:
        """A weight with the inputs' rank, or None if the layer has none of that name."""
        weight = self.parameters.get(name, self.state.get(name))
        return None if weight is None else weight.reshape(self._broadcast_shape)

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError for another rank, or another size along the axes of the parameters."""
        expected = self._built_for
        fits = len(input_shape) == len(expected)
        if not (fits and all(input_shape[axis] == expected[axis] for axis in self._own_axes)):
            raise ValueError(f"{self.name}: built for inputs of shape {expected}; got {input_shape}.")


class _Normalizing(_Scaled):
    """γ (gamma) and β (beta), each of which there may be."""

    def __init__(
        self,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        beta_regularizer: Any,
        gamma_regularizer: Any,
        beta_constraint: Any,
        gamma_constraint: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        where = type(self).__name__
        self.center, self.scale = center, scale
        self.has_gamma, self.has_beta = bool(scale), bool(center)
        self.beta_initializer = initializers.required(where, "beta_initializer", beta_initializer)
        self.gamma_initializer = initializers.required(where, "gamma_initializer", gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)

    def _add_gamma_and_beta(self, input_shape: Shape, axes: tuple[int, ...]) -> None:
        self._note_axes(input_shape, axes)
        shape = self._own_shape
        if self.has_gamma:
            self.new_weight("gamma", shape, self.gamma_initializer, self.gamma_regularizer, self.gamma_constraint)
        if self.has_beta:
            self.new_weight("beta", shape, self.beta_initializer, self.beta_regularizer, self.beta_constraint)

    def _write_gradients(self, d_outputs: Array, mean: Array, epsilon: float) -> None:
        """d_gamma and d_beta, where γ scales (inputs − mean) / √(σ² + ε)."""
        d_gamma, d_beta = ops.normalization_gradients(
            d_outputs, self.inputs, mean, self.variance, epsilon=epsilon, axes=self._other_axes
        )
        for name, gradient in (("gamma", d_gamma), ("beta", d_beta)):
            if name in self.grads:
                self.grads[name][...] = gradient.reshape(self._own_shape)

    @property
    def gamma(self) -> Variable | None:
        """The scale γ, or None without one. Errors: ValueError if not built."""
        self._require_built("gamma")
        return self.variable("gamma") if self.has_gamma else None

    @property
    def beta(self) -> Variable | None:
        """The offset β, or None without one. Errors: ValueError if not built."""
        self._require_built("beta")
        return self.variable("beta") if self.has_beta else None


class BatchNormalization(_Normalizing):
    """outputs = γ (inputs − μ) / √(σ² + ε) + β;  (B, …, U) -> (B, …, U), γ and β (U,).

    In training μ and σ² are the batch's, over all axes but one, and the moving averages that are kept of them go on:
    moving ← moving · momentum + batch's · (1 − momentum). At inference, and always while trainable is False, μ and σ²
    are these averages.

    axis: the one that keeps its own statistics. momentum, epsilon ε: numbers. center, scale: whether there is a β, a γ;
    each with an initializer, a regularizer and a constraint.
    renorm: normalize by moving statistics in training too, the corrections r and d being constants in backward; see
    ops.renormalization. renorm_clipping: a dict of "rmin", "rmax", "dmax"; renorm_momentum: of these statistics.
    Errors: ValueError for an axis that the inputs do not have or whose size is not known, or another renorm_clipping;
    NotImplementedError for synchronized=True (there is one device) and a mask.
    Source: Ioffe & Szegedy 2015; Ioffe 2017 (renorm); keras.layers.BatchNormalization.
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: dict[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        where = "BatchNormalization"
        checks.refuse_unsupported(where, synchronized=(synchronized, False))
        if not isinstance(axis, (int, np.integer)):
            raise TypeError(f"{where}: axis must be an integer; got {axis!r} of type {type(axis).__name__}.")
        super().__init__(
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
            **kwargs,
        )
        self.axis = int(axis)
        self.momentum = checks.finite_float(where, "momentum", momentum)
        self.epsilon = checks.finite_float(where, "epsilon", epsilon, at_least=0.0)
        self.moving_mean_initializer = initializers.required(where, "moving_mean_initializer", moving_mean_initializer)
        self.moving_variance_initializer = initializers.required(
            where, "moving_variance_initializer", moving_variance_initializer
        )
        self.renorm = renorm
        self.renorm_clipping = _checked_clipping(renorm_clipping) if renorm else renorm_clipping
        self.renorm_momentum = renorm_momentum
        self._scale: Array | None = None  # what scaled x̂ in the last forward
        self._of_batch = False  # whether the last forward used the batch's own statistics
        self._correction: tuple[Array, Array] | None = None  # its r and d, of renorm
        self._next: dict[str, Array] = {}  # the moving averages after it

    def build(self, input_shape: Shape) -> None:
        """Make γ and β (U,), and the moving mean and variance (U,)."""
        shape = batch_shape(self.name, input_shape)
        self._add_gamma_and_beta(shape, (self.axis,))
        self.new_weight("moving_mean", self._own_shape, self.moving_mean_initializer, trainable=False)
        self.new_weight("moving_variance", self._own_shape, self.moving_variance_initializer, trainable=False)
        if self.renorm:
            self.new_weight("moving_stddev", self._own_shape, self._first_deviation, trainable=False)
            self.new_weight("renorm_mean", self._own_shape, self.moving_mean_initializer, trainable=False)
            self.new_weight("renorm_stddev", self._own_shape, self._first_deviation, trainable=False)
        super().build(shape)

    def __call__(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        checks.refuse_unsupported(self.name, mask=(mask, None))
        return super().__call__(inputs, training)

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """γ (inputs − μ) / √(σ² + ε) + β, by the batch's statistics in training, else by the moving ones."""
        self.inputs, self._of_batch = inputs, training and self.trainable
        gamma, beta = self._spread("gamma"), self._spread("beta")
        self._next, self._correction = {}, None
        if self._of_batch:
            self.mean, self.variance = ops.moments(inputs, axes=self._other_axes)
            mean, variance = self.mean.reshape(self._own_shape), self.variance.reshape(self._own_shape)
            if self.renorm:
                gamma, beta = self._corrected(mean, variance, gamma, beta)
                self._next = self._renormalized(mean, ops.deviation(variance, epsilon=self.epsilon))
            else:
                self._next = self._averages(self.momentum, moving_mean=mean, moving_variance=variance)
        else:
            self.mean, self.variance = self._spread("moving_mean"), self._spread("moving_variance")
        self._scale = gamma
        return ops.normalization(inputs, self.mean, self.variance, gamma, beta, epsilon=self.epsilon)

    def _averages(self, momentum: float, **values: Array) -> dict[str, Array]:
        """The moving averages of these names after the batch's values."""
        return {name: ops.moving_average(self.state[name], value, momentum=momentum) for name, value in values.items()}

    def _corrected(self, mean: Array, variance: Array, gamma: Any, beta: Any) -> tuple[Array, Array]:
        """γ r and γ d + β, with which x̂ becomes (x̂ r + d) γ + β."""
        state, limits = self.state, self.renorm_clipping or {}
        found = ops.renormalization(
            mean, variance, state["renorm_mean"], state["renorm_stddev"], epsilon=self.epsilon, **limits
        )
        r, d = self._correction = tuple(one.reshape(self._broadcast_shape) for one in found)
        scale, shift = (r, d) if gamma is None else (r * gamma, d * gamma)
        return scale, shift if beta is None else shift + beta

    def _renormalized(self, mean: Array, deviation: Array) -> dict[str, Array]:
        found = self._averages(self.renorm_momentum, renorm_mean=mean, renorm_stddev=deviation)
        found |= self._averages(self.momentum, moving_mean=mean, moving_stddev=deviation)
        square = found["moving_stddev"] * found["moving_stddev"]
        return found | {"moving_variance": ops.relu(square - self.epsilon)}

    def _first_deviation(self, shape: tuple[int, ...], dtype: str | None = None) -> Array:
        return np.sqrt(self.moving_variance_initializer(shape, dtype=dtype))

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs), through the batch's statistics too; leaves d_gamma, d_beta in grads."""
        self._write_gradients(d_outputs, self.mean, self.epsilon)
        if self._correction is not None and self.has_gamma:  # γ scales x̂ r + d
            r, d = self._correction
            d_beta = d_outputs.sum(axis=self._other_axes)
            d_gamma = self.grads["gamma"] * r.reshape(self._own_shape) + d_beta * d.reshape(self._own_shape)
            self.grads["gamma"][...] = d_gamma
        if self._of_batch:
            return ops.normalization_backward(
                d_outputs,
                self.inputs,
                self.mean,
                self.variance,
                self._scale,
                epsilon=self.epsilon,
                axes=self._other_axes,
            )
        return ops.fixed_normalization_backward(d_outputs, self.variance, self._scale, epsilon=self.epsilon)

    def finish_step(self) -> None:
        for name, value in self._next.items():
            self.state[name][...] = value
        self._next = {}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": serialized(initializers, self.beta_initializer),
            "gamma_initializer": serialized(initializers, self.gamma_initializer),
            "moving_mean_initializer": serialized(initializers, self.moving_mean_initializer),
            "moving_variance_initializer": serialized(initializers, self.moving_variance_initializer),
            "beta_regularizer": serialized(regularizers, self.beta_regularizer),
            "gamma_regularizer": serialized(regularizers, self.gamma_regularizer),
            "beta_constraint": serialized(constraints, self.beta_constraint),
            "gamma_constraint": serialized(constraints, self.gamma_constraint),
            "synchronized": False,
            "renorm": self.renorm,
            "renorm_clipping": self.renorm_clipping,
            "renorm_momentum": self.renorm_momentum,
        }

    @property
    def moving_mean(self) -> Variable:
        """The moving mean, (U,); writing to it changes the layer. Errors: ValueError if not built."""
        self._require_built("moving_mean")
        return self.variable("moving_mean")

    @property
    def moving_variance(self) -> Variable:
        """The moving variance, (U,); writing to it changes the layer. Errors: ValueError if not built."""
        self._require_built("moving_variance")
        return self.variable("moving_variance")


class LayerNormalization(_Normalizing):
    """outputs = γ (inputs − μ) / √(σ² + ε) + β, μ and σ² of each sample;  (B, …, U) -> (B, …, U).

    axis: the axis or axes over which μ and σ² are taken, and which γ and β have. epsilon ε: a number. center, scale:
    whether there is a β, a γ; each with an initializer, a regularizer and a constraint.
    Errors: ValueError for an axis that the inputs do not have or whose size is not known; TypeError for an axis that is
    no int or list of ints. rms_scaling=True, which Keras deprecates: γ inputs / √(σ² + ε); see RMSNormalization.
    Source: Ba, Kiros & Hinton 2016; keras.layers.LayerNormalization.
    """

    def __init__(
        self,
        axis: int | list[int] | tuple[int, ...] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        *,
        rms_scaling: bool = False,
        **kwargs: Any,
    ) -> None:
        if rms_scaling:
            warnings.warn(
                "LayerNormalization: rms_scaling=True is deprecated: it scales by the variance, not the mean square. "
                "Use RMSNormalization.",
                stacklevel=2,
            )
        super().__init__(
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
            **kwargs,
        )
        self.axis, self.rms_scaling = checked_axis("LayerNormalization", axis), bool(rms_scaling)
        if rms_scaling:
            self.has_gamma, self.has_beta = True, False
        self.epsilon = checks.finite_float("LayerNormalization", "epsilon", epsilon, at_least=0.0)

    def build(self, input_shape: Shape) -> None:
        """Make γ and β, with the axes' sizes."""
        shape = batch_shape(self.name, input_shape)
        self.axis = _sorted_axes(self.axis)
        self._add_gamma_and_beta(shape, tuple(self.axis))
        super().build(shape)

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """γ (inputs − μ) / √(σ² + ε) + β, in training and at inference alike."""
        self.inputs = inputs
        self.mean, self.variance = ops.moments(inputs, axes=self._own_axes)
        gamma, beta = self._spread("gamma"), self._spread("beta")
        if self.rms_scaling:
            return ops.rms_normalization(inputs, self.variance, gamma, epsilon=self.epsilon)
        return ops.normalization(inputs, self.mean, self.variance, gamma, beta, epsilon=self.epsilon)

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs), through μ and σ² too; leaves d_gamma and d_beta in grads."""
        gamma, mean, axes = self._spread("gamma"), self.mean, self._own_axes
        if self.rms_scaling:
            self._write_gradients(d_outputs, np.zeros_like(mean), self.epsilon)
            return ops.rms_normalization_backward(
                d_outputs, self.inputs, self.variance, gamma, epsilon=self.epsilon, axes=axes, center=mean
            )
        self._write_gradients(d_outputs, mean, self.epsilon)
        return ops.normalization_backward(
            d_outputs, self.inputs, mean, self.variance, gamma, epsilon=self.epsilon, axes=axes
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "rms_scaling": self.rms_scaling,
            "beta_initializer": serialized(initializers, self.beta_initializer),
            "gamma_initializer": serialized(initializers, self.gamma_initializer),
            "beta_regularizer": serialized(regularizers, self.beta_regularizer),
            "gamma_regularizer": serialized(regularizers, self.gamma_regularizer),
            "beta_constraint": serialized(constraints, self.beta_constraint),
            "gamma_constraint": serialized(constraints, self.gamma_constraint),
        }


class GroupNormalization(_Normalizing):
    """outputs = γ (inputs − μ) / √(σ² + ε) + β, μ and σ² of each sample's group of features;  (B, …, U) -> (B, …, U).

    groups: into so many the sizes along axis are divided, in order; −1 makes each a group of its own. γ and β (U,).
    epsilon ε: a number. center, scale: whether there is a β, a γ; each with initializer, regularizer and constraint.
    Errors: ValueError for groups that do not divide the size, an axis that the inputs do not have, or of unknown size.
    Source: Wu & He 2018; keras.layers.GroupNormalization.
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
            **kwargs,
        )
        self.groups = -1 if groups == -1 else checks.positive_int("GroupNormalization", "groups", groups)
        self.axis = checked_axis("GroupNormalization", axis)
        if not isinstance(self.axis, int):
            raise TypeError(f"GroupNormalization: axis must be an int; got {axis!r}.")
        self.epsilon = checks.finite_float("GroupNormalization", "epsilon", epsilon, at_least=0.0)

    def build(self, input_shape: Shape) -> None:
        """Make γ and β, with the axis's size."""
        shape = batch_shape(self.name, input_shape)
        size, at, rank = _known_size(self.name, shape, self.axis), self.axis % len(shape), len(shape)
        groups = size if self.groups == -1 else self.groups
        if size % groups:
            raise ValueError(
                f"{self.name}: groups must divide the inputs' size along axis {self.axis}, {size}; got {groups}."
            )
        self.groups = groups
        self._add_gamma_and_beta(shape, (self.axis,))
        # the inputs are normalized in the shape (B, …, groups, size / groups, …), groups standing at the axis
        self._group_axis, self._sizes = at, (groups, size // groups)
        self._reduced_axes = tuple(i for i in range(1, rank + 1) if i != at)
        self._other_axes = tuple(i for i in range(rank + 1) if i not in (at, at + 1))
        self._broadcast_shape = (*(1,) * at, *self._sizes, *(1,) * (rank - at - 1))
        super().build(shape)

    def _grouped(self, array: Array) -> Array:
        return array.reshape(*array.shape[: self._group_axis], *self._sizes, *array.shape[self._group_axis + 1 :])

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """γ (inputs − μ) / √(σ² + ε) + β, in training and at inference alike."""
        self.inputs = self._grouped(inputs)
        self.mean, self.variance = ops.moments(self.inputs, axes=self._reduced_axes)
        gamma, beta = self._spread("gamma"), self._spread("beta")
        outputs = ops.normalization(self.inputs, self.mean, self.variance, gamma, beta, epsilon=self.epsilon)
        return outputs.reshape(inputs.shape)

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs), through μ and σ² too; leaves d_gamma and d_beta in grads."""
        grouped, gamma = self._grouped(d_outputs), self._spread("gamma")
        self._write_gradients(grouped, self.mean, self.epsilon)
        d_inputs = ops.normalization_backward(
            grouped, self.inputs, self.mean, self.variance, gamma, epsilon=self.epsilon, axes=self._reduced_axes
        )
        return d_inputs.reshape(d_outputs.shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "groups": self.groups,
            "axis": self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": serialized(initializers, self.beta_initializer),
            "gamma_initializer": serialized(initializers, self.gamma_initializer),
            "beta_regularizer": serialized(regularizers, self.beta_regularizer),
            "gamma_regularizer": serialized(regularizers, self.gamma_regularizer),
            "beta_constraint": serialized(constraints, self.beta_constraint),
            "gamma_constraint": serialized(constraints, self.gamma_constraint),
        }


class RMSNormalization(_Scaled):
    """outputs = inputs / √(q + ε) · scale, q the mean of inputs²;  (B, …, U) -> (B, …, U), scale (U,), ones at first.

    axis: the axis or axes over which q is taken, and which scale has. epsilon ε: a number.
    Errors: as LayerNormalization. Source: Zhang & Sennrich 2019; keras.layers.RMSNormalization.
    """

    def __init__(self, axis: int | list[int] | tuple[int, ...] = -1, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = checked_axis("RMSNormalization", axis)
        self.epsilon = checks.finite_float("RMSNormalization", "epsilon", epsilon, at_least=0.0)

    def build(self, input_shape: Shape) -> None:
        """Make scale, with the axes' sizes."""
        shape = batch_shape(self.name, input_shape)
        self.axis = _sorted_axes(self.axis)
        self._note_axes(shape, tuple(self.axis))
        self.new_weight("scale", self._own_shape, initializers.Ones())
        super().build(shape)

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs / √(q + ε) · scale, in training and at inference alike."""
        self.inputs, self.variance = inputs, ops.mean_square(inputs, axes=self._own_axes)
        return ops.rms_normalization(inputs, self.variance, self._spread("scale"), epsilon=self.epsilon)

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs), through q too; leaves d_scale in grads."""
        d_scale, _ = ops.normalization_gradients(
            d_outputs, self.inputs, np.zeros_like(self.variance), self.variance, epsilon=self.epsilon,
            axes=self._other_axes,
        )  # fmt: skip
        self.grads["scale"][...] = d_scale.reshape(self._own_shape)
        scale = self._spread("scale")
        return ops.rms_normalization_backward(
            d_outputs, self.inputs, self.variance, scale, epsilon=self.epsilon, axes=self._own_axes
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}

    @property
    def scale(self) -> Variable:
        """The scale, with the axes' sizes. Errors: ValueError if not built."""
        self._require_built("scale")
        return self.variable("scale")


class UnitNormalization(Layer):
    """outputs = inputs / ‖inputs‖, the norm of each sample over axis;  (B, …, U) -> (B, …, U).

    axis: an axis or several. A sample of zeros stays so.
    Errors: TypeError for an axis that is no int or list of ints; ValueError for one that the inputs do not have.
    Source: keras.layers.UnitNormalization.
    """

    def __init__(self, axis: int | list[int] | tuple[int, ...] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = checked_axis("UnitNormalization", axis)
        self.inputs: Array = None
        self.built = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        self._axes(len(input_shape))
        return input_shape

    def _axes(self, rank: int) -> tuple[int, ...]:
        axes = tuple(self.axis) if isinstance(self.axis, list) else (self.axis,)
        for axis in axes:
            if not -rank <= axis < rank:
                raise ValueError(f"{self.name}: axis {axis} is out of bounds for inputs of {rank} dimensions.")
        return axes

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs / ‖inputs‖;  (B, …, U) -> (B, …, U)."""
        self.inputs = inputs
        return ops.unit_normalization(inputs, axes=self._axes(inputs.ndim))

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs), through the norm too."""
        return ops.unit_normalization_backward(d_outputs, self.inputs, axes=self._axes(d_outputs.ndim))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


def _checked_clipping(clipping: Any) -> dict[str, float]:
    limits = dict(clipping or {})
    if set(limits) - {"rmin", "rmax", "dmax"}:
        raise ValueError(f"BatchNormalization: renorm_clipping takes 'rmin', 'rmax' and 'dmax'; got {limits}.")
    rmin, rmax, dmax = (limits.get(name) for name in ("rmin", "rmax", "dmax"))
    if (rmin is not None and rmax is not None and rmax < rmin) or (dmax is not None and dmax < 0):
        raise ValueError(f"BatchNormalization: renorm_clipping needs rmin ≤ rmax and dmax ≥ 0; got {limits}.")
    return limits


def checked_axis(where: str, axis: Any) -> Any:
    """An axis as an int, or several as a list of ints. Errors: TypeError for anything else."""
    if isinstance(axis, (list, tuple)) and all(isinstance(one, (int, np.integer)) for one in axis):
        return [int(one) for one in axis]
    if isinstance(axis, (int, np.integer)) and not isinstance(axis, bool):
        return int(axis)
    raise TypeError(f"{where}: axis must be an int or a list of ints; got {axis!r}.")


def _sorted_axes(axis: Any) -> list[int]:
    """As Keras keeps them once it is built, and writes them into its config."""
    return sorted(axis) if isinstance(axis, list) else [axis]


def _known_size(name: str, input_shape: Shape, axis: int) -> int:
    rank = len(input_shape)
    if not -rank <= axis < rank:
        raise ValueError(f"{name}: axis {axis} is out of bounds for inputs of shape {input_shape}.")
    size = input_shape[axis]
    if size is None:
        raise ValueError(f"{name}: the inputs' size along axis {axis} must be known; their shape is {input_shape}.")
    return size
