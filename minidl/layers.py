"""Layers: each owns its parameters, keeps what its backward needs, and leaves its gradients in `grads`."""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import activations, checks, config, initializers, ops, random, regularizers
from minidl.backend import Array
from minidl.masks import MaskBlocks
from minidl.naming import auto_name

Shape = tuple[int | None, ...]  # of a batch: (None, features)


class Layer:
    """The base of all layers.

    parameters: name -> array, in the order of get_weights(); once in a built model, views of its arena.
    grads: the same names -> dL/d(parameter), written by backward.
    regularizers: the parameters that carry a penalty -> their regularizer.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
        input_shape: tuple[int, ...] | None = None,
        input_dim: int | None = None,
        activity_regularizer: Any = None,
        autocast: bool = True,
        **kwargs: Any,
    ) -> None:
        where = type(self).__name__
        if kwargs:
            parameters = [name for cls in (type(self), Layer) for name in inspect.signature(cls).parameters]
            checks.refuse_unknown(where, kwargs, parameters)
        checks.refuse_unsupported(
            where,
            trainable=(trainable, True),
            activity_regularizer=(activity_regularizer, None),
            autocast=(autocast, True),
        )
        if name is not None and (not isinstance(name, str) or "/" in name):
            raise ValueError(f"{where}: name must be a string without '/'; got {name!r}.")
        self.name = auto_name(where) if name is None else name
        self.dtype = config.standardize_dtype(dtype)
        self.input_shape_argument = (input_dim,) if input_dim is not None else input_shape
        self.parameters: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.regularizers: dict[str, regularizers.Regularizer] = {}
        self.built = False
        self.output_shape: Shape | None = None  # once in a model that is built
        self._owner: weakref.ref[Any] | None = None

    def build(self, input_shape: Shape) -> None:
        """Make the parameters for inputs of this shape, (None, features)."""
        self.built = True
        self.output_shape = self.compute_output_shape(input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The shape of the outputs for inputs of this shape."""
        return input_shape

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs (B, I) -> outputs (B, U); keeps what backward needs."""
        raise NotImplementedError

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs), (B, U) -> dL/d(inputs), (B, I), of the last forward; writes grads."""
        raise NotImplementedError

    def __call__(self, inputs: Any, training: bool = False) -> Array:
        """forward on anything that numpy.asarray takes, building the layer first where needed."""
        if isinstance(inputs, Layer):
            raise NotImplementedError(
                f"{self.name}: calling a layer on an Input or another layer is Keras's functional API, which "
                f"minidl does not support; put the layers in a Sequential."
            )
        width = self._input_width()
        array = checks.features(inputs, self.dtype, None if width is None else (width,), check_finite=False)
        if not self.built:
            self.build((None, array.shape[1]))
        return self.forward(array, training=training)

    def _input_width(self) -> int | None:
        return None

    @property
    def trainable(self) -> bool:
        """Always True: freezing layers is not supported, and setting False raises."""
        return True

    @trainable.setter
    def trainable(self, value: bool) -> None:
        checks.refuse_unsupported(type(self).__name__, trainable=(value, True))

    @property
    def weights(self) -> list[Array]:
        """The parameters themselves, in order: writing to one changes the layer."""
        return list(self.parameters.values())

    @property
    def losses(self) -> list[Any]:
        """The penalties of this layer's regularizers at the present weights."""
        return [regularizer(self.parameters[name]) for name, regularizer in self.regularizers.items()]

    def get_weights(self) -> list[Array]:
        """Copies of the parameters, in order."""
        return [np.array(parameter) for parameter in self.parameters.values()]

    def set_weights(self, weights: list[Any]) -> None:
        """Write the parameters, in order. Errors: ValueError, and nothing written, if one does not fit."""
        self._require_built("set_weights")
        names = [f"{self.name}/{name}" for name in self.parameters]
        shapes = [parameter.shape for parameter in self.weights]
        arrays = checks.same_shapes("set_weights", names, shapes, self.dtype, weights)
        for parameter, array in zip(self.weights, arrays, strict=True):
            parameter[...] = array

    def count_params(self) -> int:
        """The number of scalars in the parameters. Errors: ValueError if the layer is not built."""
        self._require_built("count_params")
        return sum(math.prod(parameter.shape) for parameter in self.weights)

    def attach(self, model: Any) -> None:
        """Note the model that owns this layer. Errors: NotImplementedError if another one does."""
        owner = None if self._owner is None else self._owner()
        if owner is not None and owner is not model:
            raise NotImplementedError(
                f"{self.name}: this layer belongs to model {owner.name!r}, in whose arena its parameters lie; "
                f"minidl does not share layers between models. Make a new layer."
            )
        self._owner = weakref.ref(model)

    def detach(self) -> None:
        """Leave the model, with copies of the parameters that lay in its arena."""
        self._owner = None
        self.parameters = {name: np.array(parameter) for name, parameter in self.parameters.items()}
        self.grads = {name: np.zeros_like(parameter) for name, parameter in self.parameters.items()}

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError if a built layer cannot take inputs of this shape."""
        width = self._input_width()
        if width is not None and width != input_shape[-1]:
            raise ValueError(f"{self.name}: built for {width} features; got inputs of shape {input_shape}.")

    def _require_built(self, what: str) -> None:
        if not self.built:
            raise ValueError(
                f"{what}: layer {self.name!r} is not built, so it has no weights yet. Give its input shape "
                f"(Input(shape=…) or input_shape=…), call build(input_shape), or call it on data first."
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


class InputLayer(Layer):
    """The shape of one sample, (features,): states what the first layer takes, and computes nothing.

    Errors: ValueError for a shape that is not one positive width; NotImplementedError for Keras's arguments
    that minidl does not support.
    """

    def __init__(
        self,
        shape: tuple[int, ...] | None = None,
        batch_size: int | None = None,
        dtype: str | None = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        batch_shape: Shape | None = None,
        name: str | None = None,
        tensor: Any = None,
        optional: bool = False,
    ) -> None:
        checks.refuse_unsupported(
            "Input",
            batch_size=(batch_size, None),
            sparse=(sparse or None, None),
            ragged=(ragged or None, None),
            tensor=(tensor, None),
            optional=(optional, False),
        )
        super().__init__(name=name, dtype=dtype)
        if batch_shape is not None:
            if shape is not None or batch_shape[0] is not None:
                raise ValueError(f"Input: give shape, or batch_shape=(None, features); got {batch_shape!r}.")
            shape = batch_shape[1:]  # type: ignore[assignment]
        self.shape = sample_shape("Input", shape)
        self.build((None, *self.shape))


def Input(*args: Any, **kwargs: Any) -> InputLayer:
    """The input of a Sequential, as keras.Input; see InputLayer for the arguments."""
    return InputLayer(*args, **kwargs)


def sample_shape(where: str, shape: Any) -> tuple[int, ...]:
    """A sample's shape as a tuple of one width. Errors: ValueError for anything else."""
    if isinstance(shape, (int, np.integer)):
        raise ValueError(f"{where}: the shape of a sample must be a tuple, such as ({shape},); got {shape!r}.")
    try:
        (width,) = shape
    except (TypeError, ValueError):
        raise ValueError(f"{where}: the shape of a sample must be (features,), such as (4,); got {shape!r}.") from None
    return (checks.positive_int(where, "the number of features", width),)


def batch_shape(where: str, shape: Any) -> tuple[None, int]:
    """A batch's shape as (None, features). Errors: ValueError for anything else."""
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise ValueError(f"{where}: the shape of a batch must be (None, features), such as (None, 4); got {shape!r}.")
    (width,) = sample_shape(where, shape[1:])
    return (None, width)


class Dense(Layer):
    """outputs = activation(inputs @ kernel + bias);  (B, I) @ (I, U) + (U,) -> (B, U).

    units: U. activation: a name, a function of minidl.activations or of a framework, or None (linear).
    kernel_regularizer, bias_regularizer: a penalty that is added to the loss. Defaults are Keras's.
    Keras's other arguments (constraints, activity_regularizer, lora, quantization) are refused.
    Errors: ValueError for units < 1 or unknown names.
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        quantization_config: Any = None,
        **kwargs: Any,
    ) -> None:
        checks.refuse_unsupported(
            "Dense",
            kernel_constraint=(kernel_constraint, None),
            bias_constraint=(bias_constraint, None),
            lora_rank=(lora_rank, None),
            lora_alpha=(lora_alpha, None),
            quantization_config=(quantization_config, None),
        )
        self.units = checks.positive_int("Dense", "units", units)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = _initializer("kernel_initializer", kernel_initializer)
        self.bias_initializer = _initializer("bias_initializer", bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)

    def build(self, input_shape: Shape) -> None:
        """Draw the kernel (I, U) and the bias (U,)."""
        _, inputs = batch_shape(self.name, input_shape)
        self.parameters = {"kernel": self._initial("kernel", self.kernel_initializer, (inputs, self.units))}
        if self.kernel_regularizer is not None:
            self.regularizers["kernel"] = self.kernel_regularizer
        if self.use_bias:
            self.parameters["bias"] = self._initial("bias", self.bias_initializer, (self.units,))
            if self.bias_regularizer is not None:
                self.regularizers["bias"] = self.bias_regularizer
        self.grads = {name: np.zeros_like(parameter) for name, parameter in self.parameters.items()}
        super().build(input_shape)

    def _initial(self, name: str, initializer: Callable[..., Array], shape: tuple[int, ...]) -> Array:
        """A parameter's first values. Errors: ValueError if they have another shape, or are not finite."""
        where = f"{self.name}: the {name} initializer"
        return checks.same_shapes(where, [name], [shape], self.dtype, [initializer(shape, dtype=self.dtype)])[0]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.units)

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """activation(inputs @ kernel + bias);  (B, I) -> (B, U)."""
        self.inputs = inputs
        self.pre_activations = ops.dense(inputs, self.parameters["kernel"], self.parameters.get("bias"))
        self.outputs = self.activation.forward(self.pre_activations)
        return self.outputs

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs), (B, U) -> dL/d(inputs), (B, I); leaves dL/d(kernel), dL/d(bias) in grads."""
        return self.backward_from_pre_activations(self.activation.backward(d_outputs, self.outputs))

    def backward_from_pre_activations(self, d_pre_activations: Array) -> Array:
        """The part of backward below the activation: where a loss of the logits enters."""
        ops.dense_gradients(
            d_pre_activations, self.inputs, out_kernel=self.grads["kernel"], out_bias=self.grads.get("bias")
        )
        return ops.dense_backward(d_pre_activations, self.parameters["kernel"])

    def _input_width(self) -> int | None:
        return self.parameters["kernel"].shape[0] if self.built else None

    @property
    def kernel(self) -> Array:
        """The weight matrix, (I, U); writing to it changes the layer. Errors: ValueError if not built."""
        self._require_built("kernel")
        return self.parameters["kernel"]

    @property
    def bias(self) -> Array | None:
        """The bias, (U,), or None with use_bias=False. Errors: ValueError if not built."""
        self._require_built("bias")
        return self.parameters.get("bias")


def _initializer(name: str, identifier: Any) -> Callable[..., Array]:
    found = initializers.get(identifier)
    if found is None:
        raise NotImplementedError(f"Dense: {name}=None is not supported; name the initializer, such as 'zeros'.")
    return found


class Dropout(Layer):
    """In training, outputs = inputs · mask / (1 − rate); at inference, outputs = inputs.

    rate in [0, 1]: the fraction dropped. The mask is drawn anew at every training step, from the layer's seed
    and the number of masks drawn before: Keras's mask, bit for bit. seed: an int, or None to draw one when the
    layer is made. noise_shape: the mask's shape, broadcast over the inputs; None takes the inputs' size.
    Errors: ValueError for a rate outside [0, 1] or a noise_shape that is not of positive ints or None.
    """

    def __init__(
        self,
        rate: float,
        noise_shape: tuple[int | None, ...] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
        if not number or not 0 <= rate <= 1:
            raise ValueError(
                f"Dropout: rate must be a number in [0, 1]; got {rate!r}. rate is the fraction dropped, not kept."
            )
        super().__init__(**kwargs)
        self.rate = float(rate)
        self.noise_shape = _checked_noise_shape(noise_shape)
        self.seed = seed
        self.seed_generator = random.SeedGenerator(seed) if rate > 0 else None
        self.mask: Array | None = None
        self._blocks = MaskBlocks()
        self.built = True  # it has no parameters to wait for

    def draw_mask(self, shape: tuple[int, ...]) -> Array:
        """The next step's mask for inputs of this shape, True = kept; moves the seed's counter on by one."""
        if self.noise_shape is not None:
            shape = self._mask_shape(shape)
        if self.rate == 1.0 or self.seed_generator is None:  # everything or nothing is dropped: nothing is drawn
            return np.full(shape, self.rate == 0.0)
        stream = config.random_stream()
        if stream == "torch" and self.seed is None:  # Keras on torch leaves these to torch's own global generator
            return random.torch_unseeded_dropout_mask(shape, self.rate)
        return self._blocks.take(shape, self.rate, self.seed_generator.next(), self.dtype, stream)

    def _mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        assert self.noise_shape is not None
        if len(self.noise_shape) == len(shape):
            mask_shape = tuple(own or size for own, size in zip(self.noise_shape, shape, strict=True))
            if all(own in (1, size) for own, size in zip(mask_shape, shape, strict=True)):
                return mask_shape
        raise ValueError(
            f"{self.name}: noise_shape={self.noise_shape} does not broadcast over inputs of shape {shape}; each of "
            f"its entries must be None, 1 or the inputs' size."
        )

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs · mask / (1 − rate) in training, else inputs;  (B, U) -> (B, U)."""
        if not training or self.rate == 0.0:
            self.mask = None
            return inputs
        self.mask = self.draw_mask(inputs.shape)
        return ops.dropout(inputs, self.mask, rate=self.rate)

    def backward(self, d_outputs: Array) -> Array:
        """d_outputs · mask / (1 − rate), with the forward's own mask;  (B, U) -> (B, U)."""
        if self.mask is None:
            return d_outputs
        return ops.dropout_backward(d_outputs, self.mask, rate=self.rate)


def _checked_noise_shape(noise_shape: Any) -> tuple[int | None, ...] | None:
    if noise_shape is None:
        return None
    if isinstance(noise_shape, str) or not hasattr(noise_shape, "__iter__"):
        raise ValueError(f"Dropout: noise_shape must be a tuple of positive integers or None; got {noise_shape!r}.")
    return tuple(None if d is None else checks.positive_int("Dropout", "noise_shape", d) for d in noise_shape)
