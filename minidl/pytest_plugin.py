"""A plugin for pytest: the fixture assert_matches_reference, wherever minidl is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def assert_matches_reference() -> Callable[..., Any]:
    """oracle.assert_matches_reference(model, x, y, **arguments of oracle.check)."""
    from minidl.oracle.testing import assert_matches_reference

    return assert_matches_reference
