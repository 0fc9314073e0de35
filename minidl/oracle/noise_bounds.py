"""How far a backend's normal numbers may lie from minidl's, which are made of the same uniform ones.

TensorFlow's, outside of XLA, are minidl's in every bit. The others evaluate the logarithm, sine, cosine and polynomials
of their formulas by instructions of their own, so that their rounding is not predicted, only bounded; u is the unit
roundoff. minidl's own are off by as much, so that all bounds count twice.
"""

from __future__ import annotations

import math

import numpy as np

from minidl.backend import Array
from minidl.oracle import bounds
from minidl.oracle.bounds import Arithmetic, Ball


def normal(numbers: Array, mean: float, stddev: float, stream: str, arithmetic: Arithmetic) -> Ball | None:
    """The ball of z · stddev + mean around minidl's; None where these are predicted in every bit."""
    single = Arithmetic.of("float32")
    own = arithmetic.given(numbers)
    if stream == "torch":
        error = _box_muller(arithmetic, 2.0**-24 if arithmetic.dtype == "float32" else 2.0**-53)
    elif stream == "tensorflow-xla" and arithmetic.dtype == "float32":
        error = _box_muller(arithmetic, 1e-7)
    elif stream == "jax":  # drawn in float32, whatever the model's type
        arithmetic = single
        error = _inverse_erf(arithmetic) * np.abs((own.value - mean) / stddev)
    else:
        return None
    radius = 2 * (stddev * error + 2 * arithmetic.unit * (np.abs(own.value) + abs(mean)))
    return Ball(own.value, radius + np.zeros_like(own.value), own.arithmetic)


def _box_muller(arithmetic: Arithmetic, least: float) -> float:
    """The absolute error of z = r cos v, r = √(−2 ln u₁), v = 2π u₂, with u₁ ≥ least.

    v < 2π is rounded twice, 2π as a constant and the product, which moves the cosine by 4π u at most; the cosine itself
    is off by 2u (Cephes, cosf: peak absolute error 1.2e-7 in ±4096). r by half of the logarithm's ULPS, of 2u each, and
    the root's u; the product by u. Source of the formula: minidl.random.
    """
    largest = math.sqrt(-2 * math.log(least))
    return largest * (4 * math.pi + 2 + bounds.ULPS["log"] + 1 + 1) * arithmetic.unit


def _inverse_erf(arithmetic: Arithmetic) -> float:
    """The relative error of z = √2 u P(w), w = −ln(1 − u²): Giles' polynomials of degree 8, with or without FMA.

    d ln z / d ln w lies below 0.6, so of log1p's ULPS, of 2u each, as much enters. Horner's rule of degree 8 rounds
    γ₁₆ Σ|c| |w|ⁱ, which is at most 1.8 P(w) for the coefficients of either branch and its range of w; the root and the
    difference that lead to w − 2.5 and √w − 3 come to 3u, the factors u and √2 to 3u.
    """
    return 0.6 * 2 * bounds.ULPS["log1p"] * arithmetic.unit + 1.8 * arithmetic.gamma(16) + 6 * arithmetic.unit
