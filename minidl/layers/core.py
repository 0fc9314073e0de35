"""The layers that every network has: the input's shape, and Dense."""

from __future__ import annotations

from typing import Any

from minidl import activations, checks, constraints, initializers, ops, regularizers
from minidl.backend import Array
from minidl.layers.activation import activation_of
from minidl.layers.base import Chain, Layer, Shape, batch_shape, sample_shape, serialized
from minidl.variables import Variable


class InputLayer(Layer, Chain):
    """Where a model begins: states the shape of the batches, (None, features), and computes nothing.

    shape: of one sample. A layer called on it returns a Chain: see models.Functional.

    Errors: ValueError for a shape that is not one positive width; NotImplementedError for Keras's arguments
    that minidl does not support.
    """

    def __init__(
        self,
        shape: Shape | None = None,
        batch_size: int | None = None,
        dtype: str | None = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        batch_shape: Shape | None = None,
        name: str | None = None,
        tensor: Any = None,
        optional: bool = False,
        input_tensor: Any = None,
    ) -> None:
        checks.refuse_unsupported(
            "Input",
            batch_size=(batch_size, None),
            sparse=(sparse or None, None),
            ragged=(ragged or None, None),
            tensor=(tensor, None),
            input_tensor=(input_tensor, None),
            optional=(optional, False),
        )
        Layer.__init__(self, name=name, dtype=dtype)
        if batch_shape is not None:
            if shape is not None or batch_shape[0] is not None:
                raise ValueError(f"Input: give shape, or batch_shape=(None, features); got {batch_shape!r}.")
            shape = batch_shape[1:]
        self.batch_shape: Shape = (None, *sample_shape("Input", shape))
        Chain.__init__(self, self, (), self.batch_shape)
        self.build(self.batch_shape)

    def get_build_config(self) -> dict[str, Any] | None:
        """None: its shape is among its arguments."""
        return None

    def get_config(self) -> dict[str, Any]:
        return {
            "batch_shape": self.batch_shape,
            "dtype": self.dtype,
            "sparse": False,
            "ragged": False,
            "name": self.name,
            "optional": False,
        }


def Input(*args: Any, **kwargs: Any) -> InputLayer:
    """The input of a model, as keras.Input; see InputLayer for the arguments."""
    return InputLayer(*args, **kwargs)


class Dense(Layer):
    """outputs = activation(inputs @ kernel + bias);  (B, I) @ (I, U) + (U,) -> (B, U).

    units: U. activation: a name, a function of minidl.activations or of a framework, a layer such as ReLU(), or None
    (linear).
    kernel_regularizer, bias_regularizer: a penalty that is added to the loss; activity_regularizer: see Layer.
    kernel_constraint, bias_constraint: applied after each update. Defaults are Keras's.
    Inputs may have any leading dimensions, (B, …, I). Keras's other arguments (lora, quantization) are refused.
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
            lora_rank=(lora_rank, None),
            lora_alpha=(lora_alpha, None),
            quantization_config=(quantization_config, None),
        )
        self.units = checks.positive_int("Dense", "units", units)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.activation: activations.Activation = activation_of("Dense", activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.required("Dense", "kernel_initializer", kernel_initializer)
        self.bias_initializer = initializers.required("Dense", "bias_initializer", bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def build(self, input_shape: Shape) -> None:
        """Draw the kernel (I, U) and the bias (U,)."""
        *_, inputs = batch_shape(self.name, input_shape)
        assert inputs is not None
        self.new_weight(
            "kernel", (inputs, self.units), self.kernel_initializer, self.kernel_regularizer, self.kernel_constraint
        )
        if self.use_bias:
            self.new_weight("bias", (self.units,), self.bias_initializer, self.bias_regularizer, self.bias_constraint)
        super().build(input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": serialized(initializers, self.kernel_initializer),
            "bias_initializer": serialized(initializers, self.bias_initializer),
            "kernel_regularizer": serialized(regularizers, self.kernel_regularizer),
            "bias_regularizer": serialized(regularizers, self.bias_regularizer),
            "kernel_constraint": serialized(constraints, self.kernel_constraint),
            "bias_constraint": serialized(constraints, self.bias_constraint),
            "quantization_config": None,
        }

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """activation(inputs @ kernel + bias);  (B, …, I) -> (B, …, U)."""
        self.inputs = inputs
        self.pre_activations = ops.dense(inputs, self.parameters["kernel"], self.parameters.get("bias"))
        self.outputs = self.activation.forward(self.pre_activations)
        return self.outputs

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs), (B, U) -> dL/d(inputs), (B, I); leaves dL/d(kernel), dL/d(bias) in grads."""
        return self.backward_from_pre_activations(self.activation_gradient(d_outputs))

    def backward_from_pre_activations(self, d_pre_activations: Array) -> Array:
        """The part of backward below the activation: where a loss of the logits enters."""
        ops.dense_gradients(
            d_pre_activations, self.inputs, out_kernel=self.grads["kernel"], out_bias=self.grads.get("bias")
        )
        return ops.dense_backward(d_pre_activations, self.parameters["kernel"])

    def _input_width(self) -> int | None:
        return self.parameters["kernel"].shape[0] if self.built else None

    @property
    def kernel(self) -> Variable:
        """The weight matrix, (I, U); writing to it changes the layer. Errors: ValueError if not built."""
        self._require_built("kernel")
        return self.variable("kernel")

    @property
    def bias(self) -> Variable | None:
        """The bias, (U,), or None with use_bias=False. Errors: ValueError if not built."""
        self._require_built("bias")
        return self.variable("bias") if self.use_bias else None
