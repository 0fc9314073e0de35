"""For test suites of people's own: assert that what Keras computes is right."""

from __future__ import annotations

from typing import Any

from minidl.oracle.checking import check
from minidl.oracle.report import Report


def assert_matches_reference(model: Any, x: Any, y: Any, **arguments: Any) -> Report:
    """Fail, with the first divergence and the table, unless all that Keras computes in model.fit(x, y) is right.

    arguments: those of oracle.check. Returns the report. Errors: AssertionError; as check's.
    """
    __tracebackhide__ = True  # pytest then shows the caller's line
    report = check(model, x, y, **arguments)
    if not report.ok:
        raise AssertionError(f"{model.name} does not match minidl's reference.\n{report}")
    return report
