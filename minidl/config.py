"""The few global settings, as Keras names them: floatx, epsilon, and where random numbers come from."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

import numpy as np

from minidl import naming

FLOAT_TYPES = ("float32", "float64")

_floatx = "float32"
_epsilon = 1e-7


def floatx() -> str:
    """The float type that new layers, losses, metrics and optimizers compute in: "float32" or "float64"."""
    return _floatx


def set_floatx(value: str) -> None:
    """Set the default float type. Call it before building a model.

    Raises: ValueError if value is not "float32" or "float64" (Keras's half types are not supported).
    """
    global _floatx
    _floatx = standardize_dtype(value)


@contextlib.contextmanager
def using_floatx(value: str) -> Iterator[None]:
    """Inside, new objects compute in another float type. Raises: as set_floatx."""
    before = floatx()
    set_floatx(value)
    try:
        yield
    finally:
        set_floatx(before)


def standardize_dtype(dtype: object) -> str:
    """The name of a supported float type; None means floatx(). dtype may be Keras's dict of a DTypePolicy.

    Raises: ValueError if dtype is not one of "float32" and "float64".
    """
    if dtype is None:
        return _floatx
    if isinstance(dtype, dict) and dtype.get("class_name") == "DTypePolicy" and isinstance(dtype.get("config"), dict):
        dtype = dtype["config"].get("name")
    try:
        name = np.dtype(dtype).name  # type: ignore[call-overload]
    except TypeError:
        name = str(dtype)
    if name not in FLOAT_TYPES:
        raise ValueError(f"dtype must be one of {', '.join(FLOAT_TYPES)}; got {dtype!r}.")
    return name


def epsilon() -> float:
    """Keras's fuzz factor, 1e-7: probabilities are clipped to [epsilon, 1 - epsilon] before a logarithm."""
    return _epsilon


def set_epsilon(value: float) -> None:
    """Set the fuzz factor. Raises: ValueError unless 0 < value < 0.5."""
    global _epsilon
    if not 0.0 < value < 0.5:
        raise ValueError(f"set_epsilon: value must be in (0, 0.5); got {value!r}.")
    _epsilon = float(value)


RANDOM_STREAMS = ("tensorflow", "tensorflow-xla", "jax", "torch", "numpy")

_random_stream = "tensorflow"


def random_stream() -> str:
    """Whose random numbers a seed gives: one of RANDOM_STREAMS, "tensorflow" unless changed."""
    return _random_stream


def set_random_stream(name: str) -> None:
    """Choose whose random numbers a seed gives. Call it before building a model.

    "tensorflow": Keras on TensorFlow, eager or graph (Keras's default on a CPU).
    "tensorflow-xla": the same, but dropout masks as under `jit_compile=True`.
    "jax", "torch": Keras on those backends; the binary cross-entropy of a sigmoid then clips, as it does there.
    "numpy": a fast generator of NumPy's, not Keras's numbers.
    Raises: ValueError for another name.
    """
    global _random_stream
    if name not in RANDOM_STREAMS:
        raise ValueError(naming.unknown_name("random stream", name, RANDOM_STREAMS))
    _random_stream = name


@contextlib.contextmanager
def using_random_stream(name: str) -> Iterator[None]:
    """Inside, random numbers come from another stream. Raises: ValueError for an unknown name."""
    before = random_stream()
    set_random_stream(name)
    try:
        yield
    finally:
        set_random_stream(before)


_session: list[Callable[[], object]] = [naming.reset_names]


def forget_at_clear_session(forget: Callable[[], object]) -> None:
    """Have clear_session call forget() too."""
    _session.append(forget)


def clear_session(free_memory: bool = True) -> None:
    """Count names anew from dense, and drop the global SeedGenerator; the seed of set_random_seed stays.

    free_memory: collect garbage too. Source: keras.utils.clear_session.
    """
    for forget in _session:
        forget()
    if free_memory:
        gc.collect()
