"""The few global settings, as Keras names them: floatx, epsilon, where random numbers come from, and the device."""

from __future__ import annotations

import contextlib
import gc
import importlib
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


def losses_are_tensorflows() -> bool:
    """Whether losses have the forms of Keras on TensorFlow; on the "jax" and "torch" streams they have those there."""
    return _random_stream not in ("jax", "torch")


def set_random_stream(name: str) -> None:
    """Choose whose random numbers a seed gives. Call it before building a model.

    "tensorflow": Keras on TensorFlow, eager or graph (Keras's default on a CPU).
    "tensorflow-xla": the same, but dropout masks as under `jit_compile=True`.
    "jax", "torch": Keras on those backends; losses then have the forms of these: see losses_are_tensorflows.
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


DEVICES = ("cpu", "gpu", "auto")

_device = "cpu"


def device() -> str:
    """Where fit, evaluate and predict compute unless told otherwise: one of DEVICES."""
    return _device


def set_device(name: str) -> None:
    """Choose where fit, evaluate and predict compute: "cpu", "gpu", or "auto".

    "gpu": on a GPU; what is not supported there is refused, and so is everything if there is no GPU. "auto": on a GPU
    if one answers and all that is asked for is supported there, else on the CPU.
    Errors: ValueError for another name.
    """
    global _device
    if name not in DEVICES:
        raise ValueError(naming.unknown_name("device", name, DEVICES))
    _device = name


_tensor_float_32 = False


def tensor_float_32_execution_enabled() -> bool:
    """Whether cuBLAS may round the operands of float32 products to 11 bits. TensorFlow's name; False unless enabled."""
    return _tensor_float_32


def enable_tensor_float_32_execution(enabled: bool) -> None:
    """Let cuBLAS use tensor cores in float32 products, of operands rounded to 11 bits (TF32), or not.

    Off unless enabled, as the numbers are to be Keras's on a CPU; TensorFlow has it on.
    Source: tf.config.experimental.enable_tensor_float_32_execution. Errors: TypeError unless it is a bool.
    """
    global _tensor_float_32
    if not isinstance(enabled, (bool, np.bool_)):
        raise TypeError(f"enable_tensor_float_32_execution: expected True or False; got {enabled!r}.")
    _tensor_float_32 = bool(enabled)


MATMULS = ("cublas", "kernels")

_matmul = "cublas"


def matmul() -> str:
    """What computes matrix products on a GPU: one of MATMULS."""
    return _matmul


def set_matmul(name: str) -> None:
    """Choose what computes matrix products on a GPU: "cublas", NVIDIA's library, or "kernels", kernels/matmul.cu.

    The kernels add in one order, so that their bits are the same on every GPU. Errors: ValueError for another name.
    """
    global _matmul
    if name not in MATMULS:
        raise ValueError(naming.unknown_name("matmul", name, MATMULS))
    _matmul = name


ELEMENTWISE = ("numpy", "numba")

_elementwise = "numpy"


def elementwise() -> str:
    """What computes operations on elements on a CPU: one of ELEMENTWISE."""
    return _elementwise


def set_elementwise(name: str) -> None:
    """Choose what computes operations on elements on a CPU: "numpy", or "numba", loops that it compiles.

    These are elementwise.py's: one pass over memory instead of several, the same bits. They take part in fit's step of
    the models that have a fused one, and in Philox's random words; all else is NumPy's. Numba compiles at first use, in
    about a second, and keeps what it compiled on the disk.
    Errors: ValueError for another name; ImportError, naming the extra, where Numba is missing or does not load.
    """
    global _elementwise
    if name not in ELEMENTWISE:
        raise ValueError(naming.unknown_name("elementwise", name, ELEMENTWISE))
    if name == "numba":
        try:
            importlib.import_module("numba")
        except ImportError as error:
            raise ImportError(
                f"set_elementwise: Numba is not installed, or does not load ({error}). Run: pip install 'minidl[numba]'"
            ) from error
    _elementwise = name


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
