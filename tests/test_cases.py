"""The cases of docs/cases.md hold, and the page says what they show."""

import re
from pathlib import Path

import pytest
from helpers import printed_on

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


def printed(backend, word):
    """What the page's script with this word prints on a backend."""
    (script,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if word in block]
    return printed_on(backend, "-c", script)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_norm_of_zeros_on_other_backends(backend):
    assert printed(backend, "UnitNormalization") == "[[nan nan]]\n[[nan nan]]\n"
    assert "it prints `[[nan nan]]` twice" in PAGE


def test_torch_compile_recomputes_from_what_has_changed():
    assert printed("torch", "torch.compile(loss)") == "1.0\n2.0\n"


def test_penalties_are_left_out_on_jax():
    assert int(printed("jax", "activity_regularizer")) > 1
