"""Keras's `ops` for code of one's own, such as a metric: NumPy's functions under the names that both have.

Reached as minidl.ops.<name>, so that `keras.ops.mean(…)` runs with the import changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import config
from minidl.backend import Array

NUMPY_NAMES = frozenset(
    """
    abs absolute add all any arange argmax argmin argsort array_split ceil clip concatenate cos count_nonzero
    cumsum diag divide dot einsum equal exp expand_dims expm1 eye flip floor full full_like greater
    greater_equal isfinite isinf isnan less less_equal linspace log log10 log1p log2 logaddexp logical_and
    logical_not logical_or matmul max maximum mean median min minimum mod multiply negative not_equal ones
    ones_like outer power prod quantile ravel reciprocal repeat reshape round sign sin sort sqrt square squeeze
    stack std subtract sum tan tensordot tile trace transpose tril triu true_divide var where zeros zeros_like
    """.split()  # noqa: SIM905
)


def cast(x: Any, dtype: str) -> Array:
    """x as an array of dtype. Source: keras.ops.cast."""
    return np.asarray(x).astype(dtype)


def convert_to_tensor(x: Any, dtype: str | None = None) -> Array:
    """x as an array, of floatx() where it holds Python floats. Source: keras.ops.convert_to_tensor."""
    array = np.asarray(x)
    plain = array.dtype.kind == "f" and not hasattr(x, "dtype")
    return array.astype(dtype or (config.floatx() if plain else array.dtype))


def convert_to_numpy(x: Any) -> Array:
    """x as a NumPy array. Source: keras.ops.convert_to_numpy."""
    return np.asarray(x)


def shape(x: Any) -> tuple[int, ...]:
    """The sizes of x. Source: keras.ops.shape."""
    return np.shape(x)


_OWN: dict[str, Callable[..., Any]] = {f.__name__: f for f in (cast, convert_to_tensor, convert_to_numpy, shape)}
NAMES = NUMPY_NAMES | _OWN.keys()


def function(name: str) -> Callable[..., Any]:
    """The function of one of NAMES."""
    return _OWN[name] if name in _OWN else getattr(np, name)
