"""Layers that act in training alone, to regularize."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl import checks, config, ops, random, regularizers
from minidl.backend import Array
from minidl.layers.base import Layer
from minidl.masks import MaskBlocks


class _Drawing(Layer):
    """A layer that draws at every training step, from its seed and the number of draws before; none if not draws."""

    def __init__(self, seed: int | None, draws: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = random.SeedGenerator(seed) if draws else None
        self.built = True  # it has no parameters to wait for

    def skip_draw(self) -> None:
        """Leave out the next step's numbers: moves the seed's counter on by one, as drawing them would."""
        if self.seed_generator is not None:
            self.seed_generator.next()

    def _draw_normal(self, shape: tuple[int, ...], mean: float, stddev: float) -> Array:
        """The next step's normal numbers; moves the seed's counter on by one."""
        assert self.seed_generator is not None
        return random.step_normal(shape, mean, stddev, self.seed_generator.next(), self.dtype)


class Dropout(_Drawing):
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
        rate = _checked_rate("Dropout", rate)
        super().__init__(seed, rate > 0, **kwargs)
        self.rate = rate
        self.noise_shape = _checked_noise_shape("Dropout", noise_shape)
        self.mask: Array | None = None
        self._blocks = MaskBlocks()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed, "noise_shape": self.noise_shape}

    @property
    def draws_globally(self) -> bool:
        """Whether Keras on torch leaves its masks to torch's global generator: keras/src/backend/torch/random.py."""
        return self.seed is None and self.noise_shape is None

    def skip_draw(self) -> None:
        """Leave out the next step's mask."""
        self.skip_draws(1)

    def skip_draws(self, steps: int) -> None:
        """Leave out the masks of so many steps."""
        if self.rate < 1.0 and self.seed_generator is not None:  # with rate 1 none is drawn
            self.seed_generator.advance(steps)

    def draw_mask(self, shape: tuple[int, ...]) -> Array:
        """The next step's mask for inputs of this shape, True = kept; moves the seed's counter on by one."""
        if self.noise_shape is not None:
            shape = _mask_shape(self.name, self.noise_shape, shape)
        if self.rate == 1.0 or self.seed_generator is None:  # everything or nothing is dropped: nothing is drawn
            return np.full(shape, self.rate == 0.0)
        stream = config.random_stream()
        if stream == "torch" and self.draws_globally:
            return random.torch_unseeded_dropout_mask(shape, self.rate)
        return self._blocks.take(shape, self.rate, self.seed_generator.next(), self.dtype, stream)

    def coming_masks(self, shape: tuple[int, ...], *, skip: int, most: int) -> Array:
        """The masks that draw_mask gives after so many more, up to so many, (n, *shape); moves no counter.

        Not for a layer without a seed on the torch stream, whose masks are drawn in the order of the layers.
        """
        if self.rate == 1.0 or self.seed_generator is None:
            return np.full((most, *shape), self.rate == 0.0)
        seed, counter = self.seed_generator.advance(0)
        pair = seed, counter + skip
        return self._blocks.take_some(shape, self.rate, pair, self.dtype, config.random_stream(), most)

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


class AlphaDropout(_Drawing):
    """Dropout for SELUs: in training a dropped input is put to where a SELU saturates, and mean and variance are kept.

    rate in [0, 1): the fraction dropped. noise_shape, seed: as Dropout; so is the mask: Keras's, bit for bit.
    Errors: ValueError as Dropout; in training ZeroDivisionError for rate 1, as in Keras.
    Source: Klambauer et al. 2017; ops.alpha_dropout.
    """

    def __init__(
        self,
        rate: float,
        noise_shape: tuple[int | None, ...] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        rate = _checked_rate("AlphaDropout", rate)
        super().__init__(seed, rate > 0, **kwargs)
        self.rate = rate
        self.noise_shape = _checked_noise_shape("AlphaDropout", noise_shape)
        self.mask: Array | None = None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed, "noise_shape": self.noise_shape}

    def draw_mask(self, shape: tuple[int, ...]) -> Array:
        """The next step's mask for inputs of this shape, True = kept; moves the seed's counter on by one."""
        assert self.seed_generator is not None
        if self.noise_shape is not None:
            shape = _mask_shape(self.name, self.noise_shape, shape)
        # Keras draws it in the global float type, whatever the layer's is
        return random.alpha_dropout_mask(shape, self.rate, self.seed_generator.next(), config.floatx())

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """ops.alpha_dropout in training, else inputs;  (B, U) -> (B, U)."""
        if not training or self.rate == 0.0:
            self.mask = None
            return inputs
        _refuse_rate_1(self.name, self.rate)
        self.mask = self.draw_mask(inputs.shape)
        return ops.alpha_dropout(inputs, self.mask, rate=self.rate)

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs), with the forward's own mask;  (B, U) -> (B, U)."""
        return d_outputs if self.mask is None else ops.alpha_dropout_backward(d_outputs, self.mask, rate=self.rate)


class GaussianNoise(_Drawing):
    """In training, outputs = inputs + noise, normal with mean 0; at inference, outputs = inputs.

    stddev in [0, 1]: the noise's. seed: an int, or None to draw one when the layer is made. The noise is Keras's on
    TensorFlow, bit for bit; under jit_compile=True as random.step_normal says, on other streams as random.normal.
    Errors: ValueError for another stddev.
    """

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        if not _in_unit_interval(stddev):
            raise ValueError(f"GaussianNoise: stddev must be a number in [0, 1]; got {stddev!r}.")
        super().__init__(seed, stddev > 0, **kwargs)
        self.stddev = float(stddev)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stddev": self.stddev, "seed": self.seed}

    @property
    def moments(self) -> tuple[float, float]:
        """The noise's mean and standard deviation."""
        return 0.0, self.stddev

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs + noise in training, else inputs;  (B, U) -> (B, U)."""
        if not training or self.stddev == 0.0:
            return inputs
        return ops.gaussian_noise(inputs, self._draw_normal(inputs.shape, *self.moments))

    def backward(self, d_outputs: Array) -> Array:
        """d_outputs;  (B, U) -> (B, U)."""
        return d_outputs


class GaussianDropout(_Drawing):
    """In training, outputs = inputs · noise, normal with mean 1 and variance rate / (1 − rate); else outputs = inputs.

    rate in [0, 1): of the Dropout that has this variance. seed, and whose numbers: as GaussianNoise.
    Errors: ValueError for a rate outside [0, 1]; in training ZeroDivisionError for rate 1, as in Keras.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        rate = _checked_rate("GaussianDropout", rate)
        super().__init__(seed, rate > 0, **kwargs)
        self.rate = rate
        self.noise: Array | None = None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}

    @property
    def moments(self) -> tuple[float, float]:
        """The noise's mean and standard deviation."""
        return 1.0, math.sqrt(self.rate / (1.0 - self.rate))

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs · noise in training, else inputs;  (B, U) -> (B, U)."""
        if not training or self.rate == 0.0:
            self.noise = None
            return inputs
        _refuse_rate_1(self.name, self.rate)
        self.noise = self._draw_normal(inputs.shape, *self.moments)
        return ops.gaussian_dropout(inputs, self.noise)

    def backward(self, d_outputs: Array) -> Array:
        """d_outputs · noise, the forward's own;  (B, U) -> (B, U)."""
        return d_outputs if self.noise is None else ops.gaussian_dropout_backward(d_outputs, self.noise)


class ActivityRegularization(Layer):
    """outputs = inputs, with the penalty l1 Σ|inputs| + l2 Σ inputs², over the batch's size, added to the loss.

    Errors: ValueError for a factor that is negative or not finite.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(activity_regularizer=regularizers.L1L2(l1=l1, l2=l2), **kwargs)
        self.l1, self.l2 = l1, l2
        self.built = True

    def get_config(self) -> dict[str, Any]:
        found = super().get_config()
        del found["activity_regularizer"]
        return {**found, "l1": self.l1, "l2": self.l2}

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs;  (B, …, U) -> (B, …, U)."""
        return inputs

    def backward(self, d_outputs: Array) -> Array:
        """d_outputs;  (B, …, U) -> (B, …, U). The penalty's own gradient is added in training.backward."""
        return d_outputs


def _in_unit_interval(value: Any) -> bool:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return number and bool(0 <= value <= 1)


def _checked_rate(where: str, rate: Any) -> float:
    if not _in_unit_interval(rate):
        raise ValueError(
            f"{where}: rate must be a number in [0, 1]; got {rate!r}. rate is the fraction dropped, not kept."
        )
    return float(rate)


def _refuse_rate_1(name: str, rate: float) -> None:
    if rate == 1.0:
        raise ZeroDivisionError(f"{name}: rate 1 leaves nothing whose variance could be kept; set a rate below 1.")


def _checked_noise_shape(where: str, noise_shape: Any) -> tuple[int | None, ...] | None:
    if noise_shape is None:
        return None
    if isinstance(noise_shape, str) or not hasattr(noise_shape, "__iter__"):
        raise ValueError(f"{where}: noise_shape must be a tuple of positive integers or None; got {noise_shape!r}.")
    return tuple(None if d is None else checks.positive_int(where, "noise_shape", d) for d in noise_shape)


def _mask_shape(name: str, noise_shape: tuple[int | None, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(noise_shape) == len(shape):
        mask_shape = tuple(own or size for own, size in zip(noise_shape, shape, strict=True))
        if all(own in (1, size) for own, size in zip(mask_shape, shape, strict=True)):
            return mask_shape
    raise ValueError(
        f"{name}: noise_shape={noise_shape} does not broadcast over inputs of shape {shape}; each of "
        f"its entries must be None, 1 or the inputs' size."
    )
