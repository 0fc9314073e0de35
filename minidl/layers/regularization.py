"""Layers that act in training alone, to regularize."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import checks, config, ops, random
from minidl.backend import Array
from minidl.layers.base import Layer
from minidl.masks import MaskBlocks


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

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed, "noise_shape": self.noise_shape}

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
