"""The cases of docs/cases.md hold, and the page says what they show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras")
cases = pytest.importorskip("cases", exc_type=ImportError)

pytestmark = pytest.mark.keras
PAGE = (Path(__file__).parents[1] / "docs" / "cases.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", cases.NAMES)
def test_a_case_holds_and_is_on_the_page(keras, name):
    (row,) = [line for line in PAGE.splitlines() if f"](../tests/cases/{name}.py)" in line]
    for text in (*cases.parts(name), cases.shown(name)):
        assert text in row.replace("\\|", "|")


def test_there_are_fifteen():
    assert len(cases.NAMES) >= 15 and len(re.findall(r"^\| \[", PAGE, re.M)) == len(cases.NAMES)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_norm_of_zeros_on_other_backends(backend):
    pytest.importorskip(backend)
    (script,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "UnitNormalization" in block]
    run = [sys.executable, "-c", script]
    done = subprocess.run(run, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, check=True)
    assert done.stdout == "[[nan nan]]\n[[nan nan]]\n" and "it prints `[[nan nan]]` twice" in PAGE
