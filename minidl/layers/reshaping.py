"""Layers that pass on the numbers they get, as they are or in another shape."""

from __future__ import annotations

import math
from typing import Any

from minidl import checks
from minidl.backend import Array
from minidl.layers.base import Layer, Shape


class Identity(Layer):
    """outputs = inputs;  (B, …, U) -> (B, …, U)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.built = True

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs."""
        return inputs

    def backward(self, d_outputs: Array) -> Array:
        """d_outputs."""
        return d_outputs


class Flatten(Layer):
    """Each sample's numbers in one row;  (B, d₁, …, dₙ) -> (B, d₁ ⋯ dₙ).

    data_format: "channels_last" or None takes them in C order; "channels_first", with d₁ the channels, moves these to
    the end before.
    Errors: ValueError for another data_format.
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = "channels_last" if data_format is None else str(data_format).lower()
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(f"Flatten: data_format must be 'channels_last' or 'channels_first'; got {data_format!r}.")
        self._moved_shape: tuple[int, ...] = ()

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], _product(input_shape[1:]))

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """(B, d₁, …, dₙ) -> (B, d₁ ⋯ dₙ)."""
        if self.data_format == "channels_first":
            inputs = inputs.transpose(0, *range(2, inputs.ndim), 1)
        self._moved_shape = inputs.shape
        return inputs.reshape(len(inputs), -1)

    def backward(self, d_outputs: Array) -> Array:
        """(B, d₁ ⋯ dₙ) -> (B, d₁, …, dₙ)."""
        d_inputs = d_outputs.reshape(self._moved_shape)
        if self.data_format == "channels_first":
            d_inputs = d_inputs.transpose(0, d_inputs.ndim - 1, *range(1, d_inputs.ndim - 1))
        return d_inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


class Reshape(Layer):
    """Each sample's numbers in another shape, in C order;  (B, …) -> (B, *target_shape).

    target_shape: of a sample; one size may be −1, and is then what is left.
    Errors: ValueError for another target_shape, or one of another number of elements than the inputs.
    """

    def __init__(self, target_shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        sizes = tuple(target_shape)
        if sizes.count(-1) > 1:
            raise ValueError(f"Reshape: target_shape may have one unknown size, −1, at most; got {sizes}.")
        self.target_shape = tuple(
            -1 if size == -1 else checks.positive_int("Reshape", "a size in target_shape", size) for size in sizes
        )
        if not sizes:
            raise ValueError("Reshape: target_shape must have at least one size, such as (4,); got ().")
        self._input_shape: tuple[int, ...] = ()
        self.built = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        size, known = _product(input_shape[1:]), math.prod(abs(one) for one in self.target_shape)
        if size is None:
            return (input_shape[0], *(None if one == -1 else one for one in self.target_shape))
        if size % known if -1 in self.target_shape else size != known:
            raise ValueError(
                f"{self.name}: inputs of shape {input_shape} have {size} numbers a sample, which do not make "
                f"{self.target_shape}."
            )
        return (input_shape[0], *(size // known if one == -1 else one for one in self.target_shape))

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """(B, …) -> (B, *target_shape)."""
        self._input_shape = inputs.shape
        return inputs.reshape(self.compute_output_shape(inputs.shape))

    def backward(self, d_outputs: Array) -> Array:
        """(B, *target_shape) -> (B, …)."""
        return d_outputs.reshape(self._input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "target_shape": self.target_shape}


def _product(sizes: Shape) -> int | None:
    return None if None in sizes else math.prod(size for size in sizes if size is not None)
