"""The cases of docs/cases.md hold, and the page says what they show."""

import re
import warnings
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


def test_the_report_s_script_prints_what_it_says(keras):
    script = PAGE.split("```python\n")[1].split("```")[0]
    said = []
    warnings.simplefilter("ignore")  # Keras: that the generator is not shuffled, and ran out; undone after the test
    exec(script, {"print": lambda *values: said.append(values)})
    assert said == [(5, 0.03125)]
