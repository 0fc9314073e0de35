"""The one place that chooses the array library: NumPy on a CPU, CuPy on a GPU.

Also Keras's `backend` namespace: floatx, set_floatx, epsilon, set_epsilon, clear_session.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from minidl.config import clear_session, epsilon, floatx, set_epsilon, set_floatx

__all__ = ["Array", "array_module", "clear_session", "epsilon", "floatx", "set_epsilon", "set_floatx"]

# An array of either library: CuPy is optional, and its arrays have NumPy's interface.
Array = Any


def array_module(*arrays: Array) -> ModuleType:
    """The library that made the arrays: cupy if any of them is a CuPy array, else numpy.

    CuPy is looked up, never imported: an array of CuPy's cannot exist before someone imported it.
    """
    cupy = sys.modules.get("cupy")
    if cupy is not None and any(isinstance(array, cupy.ndarray) for array in arrays):
        return cupy
    return np
