"""Initial values of weights, with Keras's names, arguments and numbers.

An initializer is called with a shape: `GlorotUniform(seed=3)((4, 2))`. One that was given no seed draws one
when it is constructed; it keeps it, so it returns the same numbers at every call (a SeedGenerator as seed
gives new ones). Verified with Keras 3.15.1: keras/src/initializers/.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minidl import config, naming, random, serialization

Array = npt.NDArray[Any]


class Initializer:
    """Base class: `__call__(shape, dtype=None)` makes an array, `get_config` gives the arguments back."""

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(shape, dtype=None).")

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Initializer:
        return cls(**config)

    def clone(self) -> Initializer:
        """A new one from the same arguments; if unseeded, with a new seed."""
        return self.from_config(self.get_config())


class Zeros(Initializer):
    """All 0."""

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        return np.zeros(tuple(shape), dtype=config.standardize_dtype(dtype))


class Ones(Initializer):
    """All 1."""

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        return np.ones(tuple(shape), dtype=config.standardize_dtype(dtype))


class Constant(Initializer):
    """All `value`, a scalar or something that broadcasts to the shape."""

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        return np.full(tuple(shape), self.value, dtype=config.standardize_dtype(dtype))

    def get_config(self) -> dict[str, Any]:
        if isinstance(self.value, np.ndarray):
            value = {"value": self.value.tolist(), "dtype": self.value.dtype.name}
            return {"value": {"class_name": "__numpy__", "config": value}}
        return {"value": self.value.item() if isinstance(self.value, np.generic) else self.value}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Initializer:
        value = config.get("value", 0.0)
        if isinstance(value, dict):
            value = np.array(value["config"]["value"], value["config"]["dtype"])
        return cls(value)


class Identity(Initializer):
    """gain on the main diagonal, 0 elsewhere; two axes only. Keras forgets the gain in get_config; here it is kept."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        if len(shape) != 2:
            raise ValueError(f"Identity: expected a shape of 2 axes; got {tuple(shape)}.")
        rows, columns = shape
        eye = np.eye(rows, columns, dtype=config.standardize_dtype(dtype))
        return eye * eye.dtype.type(self.gain)

    def get_config(self) -> dict[str, Any]:
        return {} if self.gain == 1.0 else {"gain": self.gain}


class RandomInitializer(Initializer):
    """Holds the seed: a Python int, a SeedGenerator, or None for one drawn now (`make_default_seed`)."""

    def __init__(self, seed: random.Seed | dict[str, Any] = None) -> None:
        if isinstance(seed, dict):
            seed = random.SeedGenerator.from_config(seed["config"])
        if seed is not None and not isinstance(seed, int | random.SeedGenerator):
            raise ValueError(
                f"{type(self).__name__}: seed must be a Python int, a SeedGenerator or None; "
                f"got {seed!r} of type {type(seed).__name__}."
            )
        self._init_seed = seed
        self.seed = random.make_default_seed() if seed is None else seed

    def get_config(self) -> dict[str, Any]:
        if isinstance(self._init_seed, random.SeedGenerator):
            return {"seed": serialization.serialize(self._init_seed, "keras.random")}
        return {"seed": self._init_seed}


class RandomUniform(RandomInitializer):
    """Uniform in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: random.Seed = None) -> None:
        self.minval, self.maxval = minval, maxval
        super().__init__(seed)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        return random.uniform(shape, self.minval, self.maxval, dtype=dtype, seed=self.seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "minval": self.minval, "maxval": self.maxval}


class RandomNormal(RandomInitializer):
    """Normal with this mean and standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: random.Seed = None) -> None:
        self.mean, self.stddev = mean, stddev
        super().__init__(seed)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        return random.normal(shape, self.mean, self.stddev, dtype=dtype, seed=self.seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "stddev": self.stddev}


class TruncatedNormal(RandomInitializer):
    """Normal, with values beyond 2 stddev of the mean drawn again."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: random.Seed = None) -> None:
        self.mean, self.stddev = mean, stddev
        super().__init__(seed)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        return random.truncated_normal(shape, self.mean, self.stddev, dtype=dtype, seed=self.seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "stddev": self.stddev}


_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("uniform", "truncated_normal", "untruncated_normal")


class VarianceScaling(RandomInitializer):
    """Random weights of variance scale / n, so that a signal keeps its size from layer to layer.

        n = max(1, fan_in | fan_out | their average)                                (mode)
        uniform:              in [-limit, limit), limit = √(3 scale / n)
        untruncated_normal:   stddev = √(scale / n)
        truncated_normal:     stddev = √(scale / n) / 0.8796…, which truncation at 2 stddev makes √(scale / n)

    For a Dense kernel (I, U): fan_in = I, fan_out = U. input_axes and output_axes name other axes to count.
    Raises: ValueError if scale <= 0, or mode or distribution is unknown ("normal" means truncated_normal).
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: random.Seed = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        if scale <= 0.0:
            raise ValueError(f"{type(self).__name__}: scale must be positive; got {scale!r}.")
        if mode not in _MODES:
            raise ValueError(f"{type(self).__name__}: mode must be one of {', '.join(_MODES)}; got {mode!r}.")
        distribution = distribution.lower()
        if distribution == "normal":
            distribution = "truncated_normal"
        if distribution not in _DISTRIBUTIONS:
            raise ValueError(
                f"{type(self).__name__}: distribution must be one of {', '.join(_DISTRIBUTIONS)}; got {distribution!r}."
            )
        self.scale, self.mode, self.distribution = scale, mode, distribution
        self.input_axes, self.output_axes = input_axes, output_axes
        super().__init__(seed)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * self.variance(shape))
            return random.uniform(shape, -limit, limit, dtype=dtype, seed=self.seed)
        stddev = math.sqrt(self.variance(shape))
        if self.distribution == "untruncated_normal":
            return random.normal(shape, 0.0, stddev, dtype=dtype, seed=self.seed)
        # 0.8796…: the standard deviation of a standard normal truncated to (-2, 2)
        return random.truncated_normal(shape, 0.0, stddev / 0.87962566103423978, dtype=dtype, seed=self.seed)

    def variance(self, shape: Sequence[int]) -> float:
        """scale / n, the variance of weights of this shape."""
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2.0}[self.mode]
        return self.scale / max(1.0, n)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scale": self.scale,
            "mode": self.mode,
            "distribution": self.distribution,
            "input_axes": self.input_axes,
            "output_axes": self.output_axes,
        }


def compute_fans(
    shape: Sequence[int], input_axes: Sequence[int] | None = None, output_axes: Sequence[int] | None = None
) -> tuple[int, int]:
    """(fan_in, fan_out): how many inputs feed an output, and outputs an input.

    (I, U) -> I, U;  (n,) -> n, n;  () -> 1, 1;  (…, I, U), a convolution kernel -> I and U times the rest.
    With input_axes and output_axes: the products of those axes.
    """
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes)
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    *receptive_field, fan_in, fan_out = shape
    return fan_in * math.prod(receptive_field), fan_out * math.prod(receptive_field)


class _FixedScaling(VarianceScaling):
    """A VarianceScaling whose scale, mode and distribution are in its name."""

    _scaling: tuple[float, str, str]

    def __init__(
        self,
        seed: random.Seed = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(*self._scaling, seed=seed, input_axes=input_axes, output_axes=output_axes)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {name: config[name] for name in ("seed", "input_axes", "output_axes")}


class GlorotUniform(_FixedScaling):
    """Uniform, limit = √(6 / (fan_in + fan_out)). Glorot & Bengio 2010; Keras's default for kernels."""

    _scaling = (1.0, "fan_avg", "uniform")


class GlorotNormal(_FixedScaling):
    """Truncated normal, standard deviation √(2 / (fan_in + fan_out)). Glorot & Bengio 2010."""

    _scaling = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_FixedScaling):
    """Uniform, limit = √(6 / fan_in): for ReLU, which halves the variance. He et al. 2015."""

    _scaling = (2.0, "fan_in", "uniform")


class HeNormal(_FixedScaling):
    """Truncated normal, standard deviation √(2 / fan_in): for ReLU. He et al. 2015."""

    _scaling = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_FixedScaling):
    """Uniform, limit = √(3 / fan_in). LeCun et al. 1998; SELU: Klambauer et al. 2017."""

    _scaling = (1.0, "fan_in", "uniform")


class LecunNormal(_FixedScaling):
    """Truncated normal, standard deviation √(1 / fan_in). LeCun et al. 1998; SELU: Klambauer et al. 2017."""

    _scaling = (1.0, "fan_in", "truncated_normal")


class Orthogonal(RandomInitializer):
    """gain · Q with orthonormal columns (or rows, whichever are fewer). Saxe et al. 2014.

    Q R = A with A standard normal, and each column of Q times the sign of R's diagonal: then Q is uniformly
    distributed. More than two axes: all but the last count as one. QR rounds differently from library to
    library, so this agrees with Keras to about 1e-6 in float32, not to the last bit.
    Raises: ValueError for fewer than two axes.
    """

    def __init__(self, gain: float = 1.0, seed: random.Seed = None) -> None:
        self.gain = gain
        super().__init__(seed)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal: expected a shape of at least 2 axes; got {tuple(shape)}.")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        a = random.normal((max(rows, columns), min(rows, columns)), dtype=dtype, seed=self.seed)
        q, r = np.linalg.qr(a)
        q = q * np.sign(np.diagonal(r))
        if rows < columns:
            q = q.T
        return q.dtype.type(self.gain) * q.reshape(tuple(shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gain": self.gain}


zeros = Zeros
ones = Ones
constant = Constant
identity = IdentityInitializer = Identity
random_uniform = RandomUniform
random_normal = RandomNormal
truncated_normal = TruncatedNormal
variance_scaling = VarianceScaling
glorot_uniform = GlorotUniform
glorot_normal = GlorotNormal
he_uniform = HeUniform
he_normal = HeNormal
lecun_uniform = LecunUniform
lecun_normal = LecunNormal
orthogonal = OrthogonalInitializer = Orthogonal

_CLASSES: dict[str, type[Initializer]] = {
    name: value
    for name, value in globals().items()
    if isinstance(value, type) and issubclass(value, Initializer) and not name.startswith("_")
    if value not in (Initializer, RandomInitializer)
}
_CLASSES.update(uniform=RandomUniform, normal=RandomNormal, zero=Zeros, one=Ones)


def _class(name: str) -> type[Initializer]:
    if name in ("STFT", "STFTInitializer", "stft"):
        raise NotImplementedError(
            f"{name}: Keras's initializer of a short-time Fourier transform makes kernels of three axes, for its "
            f"STFTSpectrogram; no layer of minidl has any."
        )
    if name not in _CLASSES:
        raise ValueError(naming.unknown_name("initializer", name, _CLASSES))
    return _CLASSES[name]


def serialize(initializer: Initializer | types.FunctionType) -> dict[str, Any]:
    """The initializer as Keras's dict, a function of your own by its name; `deserialize` and `get` read it back."""
    if isinstance(initializer, types.FunctionType):
        return serialization.serialize_function(initializer)
    return serialization.serialize(initializer, "keras.initializers")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Initializer:
    """The initializer of a serialize(), Keras's too; custom_objects: name -> class or function of your own.

    Raises: ValueError for another dict or an unknown name.
    """
    if serialization.is_function(config):
        return serialization.deserialize_function("initializer", config, {}, custom_objects)
    found: Initializer = serialization.deserialize("initializer", config, _CLASSES, custom_objects)
    return found


def get(identifier: Any) -> Callable[..., Array] | None:
    """The initializer that identifier stands for.

    A name ("glorot_uniform" or "GlorotUniform"), a class or a {"class_name", "config"} dict gives a new
    instance (which draws a seed if it needs one); None gives None; an array or a tensor gives its values, for its own
    shape only; an instance or another callable f(shape, dtype=None) is returned as it is.
    Raises: ValueError for an unknown name, naming the nearest and all, or for something else.
    """
    if identifier is None:
        return None
    if isinstance(identifier, str):
        return _class(identifier)()
    if isinstance(identifier, dict):
        identifier = deserialize(identifier)
    if isinstance(identifier, type):
        identifier = identifier()
    if callable(identifier):
        return identifier
    if hasattr(identifier, "__array__"):
        return _Values(np.asarray(identifier))
    raise ValueError(
        f"An initializer must be a name, a class, an instance, a config dict, an array or a callable; "
        f"got {identifier!r}."
    )


def required(where: str, name: str, identifier: Any) -> Callable[..., Array]:
    """get, for an argument that must not be None. Errors: NotImplementedError for None, which Keras takes."""
    found = get(identifier)
    if found is None:
        raise NotImplementedError(f"{where}: {name}=None is not supported; name the initializer, such as 'zeros'.")
    return found


class _Values:
    """An array's values as an initializer; written into no config, as in Keras."""

    def __init__(self, values: Array) -> None:
        self._values = values

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        if tuple(shape) != self._values.shape:
            raise ValueError(f"The array given as initializer has shape {self._values.shape}; expected {tuple(shape)}.")
        return self._values.astype(config.standardize_dtype(dtype))
