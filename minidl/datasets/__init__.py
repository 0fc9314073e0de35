"""Real data that ships with minidl, loaded as keras.datasets loads its own, and its scaling."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.checks import numeric_array
from minidl.datasets import penguins

__all__ = ["penguins", "standardize"]


def standardize(train: Any, *others: Any) -> tuple[Array, ...]:
    """z = (x − μ) / σ for each column;  (B, I), (B', I), … -> the same shapes, as a tuple.

    μ = mean and σ = population standard deviation (divided by B) of the rows of train alone, so that nothing
    about the test data leaks into training. z has no unit.
    dtype: computed in float64; floats keep their dtype, integers become float32.
    Errors: ValueError if an array is empty, is not (samples, features) with train's number of features, or
    holds a NaN or an infinity (the first place is named), or if a column of train is constant; TypeError if
    an array does not hold real numbers.
    """
    names = ["train"] + [f"others[{i}]" for i in range(len(others))]
    arrays = [np.asarray(data) for data in (train, *others)]
    tables = [_finite_table(name, data) for name, data in zip(names, arrays, strict=True)]
    features = tables[0].shape[1]
    for name, table in zip(names, tables, strict=True):
        if table.shape[1] != features:
            raise ValueError(f"standardize: {name} must have train's {features} columns; got {table.shape}.")

    low, high = tables[0].min(axis=0), tables[0].max(axis=0)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # reported below
        mean, std = tables[0].mean(axis=0), tables[0].std(axis=0)
    std[low == high] = 0  # a constant's mean is rounded, so its computed σ need not be 0
    unusable = np.flatnonzero((std == 0) | ~np.isfinite(std))
    if unusable.size:
        column = unusable[0]
        raise ValueError(
            f"standardize: column {column} of train has values from {low[column]:g} to {high[column]:g} and "
            f"the standard deviation {std[column]:g}, by which nothing can be divided. Leave the column out."
        )
    return tuple(
        ((table - mean) / std).astype(data.dtype if data.dtype.kind == "f" else np.float32)
        for table, data in zip(tables, arrays, strict=True)
    )


def _finite_table(name: str, data: Array) -> Array:
    """data as (samples, features) in float64. Errors: as standardize."""
    table = numeric_array(f"standardize: {name}", data, "float64", check_finite=False)
    if table.ndim != 2:
        raise ValueError(f"standardize: {name} must be (samples, features); got shape {table.shape}.")
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise ValueError(
            f"standardize: {name} must hold finite numbers; row {row}, column {column} is "
            f"{table[row, column]}. Fill in or drop missing values first."
        )
    return table
