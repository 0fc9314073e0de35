"""Comparisons that fail on a wrong shape, a wrong dtype and anything that is not finite, and say where; processes."""

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def printed_on(backend, *arguments):
    """What python with these arguments prints, with Keras on a backend; skips the test where that is not installed."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(Path(__file__).parents[1])}
    found = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def assert_same(got, expected):
    """Equal shape, dtype and bits (so 0.0 is not −0.0)."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    assert got.dtype == expected.dtype, f"dtype {got.dtype}, expected {expected.dtype}"
    if got.tobytes() != expected.tobytes():
        differs = np.argwhere((got != expected) | (np.signbit(got) != np.signbit(expected)))
        place = tuple(int(i) for i in differs[0])
        raise AssertionError(
            f"{len(differs)} of {got.size} differ, first at {place}: {got[place]!r}, expected {expected[place]!r}"
        )


def assert_close(got, expected, *, atol, rtol=0.0, what="value"):
    """|got − expected| ≤ atol + rtol·|expected| elementwise; atol and rtol may be arrays."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    assert got.dtype == expected.dtype, f"{what}: dtype {got.dtype}, expected {expected.dtype}"
    assert np.isfinite(expected).all(), f"{what}: the expected values are not finite"
    budget = np.broadcast_to(atol + rtol * np.abs(expected), got.shape)
    error = np.abs(np.asarray(got, np.float64) - np.asarray(expected, np.float64))
    excess = np.where(np.isfinite(got), error - budget, np.inf)
    if not (excess <= 0).all():
        place = tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
        raise AssertionError(
            f"{what}: {int((~(excess <= 0)).sum())} of {got.size} beyond the budget; worst at {place}: "
            f"{got[place]!r}, expected {expected[place]!r}, error {error[place]:.3g}, budget {budget[place]:.3g}"
        )


def central_differences(f, x, h):
    """(f(x + h e_i) − f(x − h e_i)) / 2h for every element i of x, a float64 array; f() reads x, returns a scalar."""
    assert x.dtype == np.float64, "central differences need float64"
    found = np.empty_like(x)
    for place in itertools.product(*map(range, x.shape)):
        before = x[place]
        above, below = before + h, before - h  # as rounded: the step actually taken is above − below
        x[place] = above
        upper = f()
        x[place] = below
        lower = f()
        x[place] = before
        found[place] = (float(upper) - float(lower)) / (above - below)
    return found


def assert_gradients_close(f, x, gradient, *, third_derivative, scale, h=1e-5, what="gradient"):
    """gradient = ∂f/∂x by central differences, for f() that reads the float64 array x.

    The budget is that of the difference quotient, h² |f‴| / 6 for the truncation and ε |f| / h for the rounding:
    third_derivative bounds |f‴| along every axis, scale bounds the size of all rounding errors in f, in units of ε
    (the number of roundings times the size of what is rounded, thus also of terms that cancel in f).
    """
    budget = h**2 * third_derivative / 6 + np.finfo(np.float64).eps * scale / h
    assert_close(gradient, central_differences(f, x, h), atol=budget, what=what)
