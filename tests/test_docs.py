"""Every Python block of the pages in docs/ runs, prints what the page says it prints, and every link leads somewhere.

The blocks of a page run in order in one namespace. What a block prints must be the text block right after it; a
Python block without one must print nothing. Those that need torch are run by test_cases.py.
"""

import contextlib
import importlib.util
import io
import json
import random as python_random
import re
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest

from minidl import plots, random

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
RANDOMNESS = (ROOT / "docs" / "randomness.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```\n(?:(?P=indent)```text\n(?P<output>.*?)^(?P=indent)```$)?",
    flags=re.MULTILINE | re.DOTALL,
)


@pytest.fixture(autouse=True)
def generators_as_before():
    names = ("_global_seed", "_global_generator", "_torch_generator")
    before, python_state, numpy_state = (
        {name: getattr(random, name) for name in names},
        python_random.getstate(),
        np.random.get_state(),
    )
    yield
    vars(random).update(before)
    python_random.setstate(python_state)
    np.random.set_state(numpy_state)


def blocks(page):
    """(line number, code, what the page says it prints) of each Python block."""
    for match in BLOCK.finditer(page):
        line = page[: match.start("code")].count("\n")
        yield line, textwrap.dedent(match["code"]), textwrap.dedent(match["output"] or "")


def check_blocks(page, name):
    namespace = {}
    for line, code, expected in blocks(page):
        if "import torch" in code:
            continue  # test_cases.py runs it in a process of its own, where torch is installed
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + code, name, "exec"), namespace)
        assert printed.getvalue() == expected, f"{name}, line {line + 1}: the block prints\n{printed.getvalue()}"


def load(path):
    """A script that is in no package, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_script", ROOT / path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_blocks_print_what_the_page_says(path):
    page = path.read_text(encoding="utf-8")
    assert page.count("```python\n") == len(list(blocks(page)))
    if path.name == "cases.md":
        pytest.importorskip("keras")
        warnings.filterwarnings("ignore", "Your input ran out of data")  # which is the case in question
    check_blocks(page, path.name)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_file_that_a_page_links_to_exists(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_a_wrong_number_is_seen():
    for right, wrong in (("8150606 >=", "8150607 >="), ("[7 6]", "[7 5]"), ("  76 True", "  67 True")):
        assert RANDOMNESS.count(right) == 1
        with pytest.raises(AssertionError, match="the block prints"):
            check_blocks(RANDOMNESS.replace(right, wrong), "randomness.md")


def test_the_worked_example_is_the_mask_that_keras_drew():
    recorded = np.load(ROOT / "tests" / "data" / "rng-vectors.npz")["tf_mask_seed7_counter3_rate0.8_float32_shape5x3"]
    assert f"```text\n{recorded.astype(int)}\n```" in RANDOMNESS


def test_the_table_of_what_is_equal_is_that_of_the_module():
    table = random.__doc__.split("TensorFlow      JAX")[1].split("\n\n")[0]
    for row in table.splitlines()[1:]:
        cells = re.split(r" {2,}", row.strip())
        assert f"| {' | '.join(cells)} |" in RANDOMNESS
    versions = re.search(r"Keras ([\d.]+) \(on TensorFlow ([\d.]+), JAX ([\d.]+), PyTorch ([\d.]+);", random.__doc__)
    assert "Keras {}, TensorFlow {}, JAX {} and PyTorch {},".format(*versions.groups()) in RANDOMNESS


def test_the_figure_is_drawn_from_these_numbers(monkeypatch):
    pytest.importorskip("matplotlib")
    script = load("docs/randomness.py")
    saved = {}
    monkeypatch.setattr(plots, "save", lambda figure, path: saved.update({path: figure}))
    script.main()
    (figure,) = saved.values()
    assert next(iter(saved)) == ROOT / "docs" / "randomness-mask.png"
    shown = "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
    for number in ("20d089cb", "9ec90a01", "1d84527b", "a4a23ea6", "5c7c5e4e", "8150606", "6710887"):
        assert number in shown and number in RANDOMNESS


def test_the_benchmark_tables_are_those_of_the_results(tmp_path):
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    copy = tmp_path / "README.md"
    copy.write_text(page, encoding="utf-8")
    load("benchmarks/report.py").write_readme(copy, ROOT / "benchmarks" / "results")
    assert copy.read_text(encoding="utf-8") == page


def test_benchmark_results_name_the_processor_and_nobody():
    stats = {"median": 0.004, "q1": 0.003, "q3": 0.005, "min": 0.002, "rounds": 9}
    raw = {
        "machine_info": {
            "node": "SECRET", "release": "SECRET", "python_version": "3.11.9", "cpu": {"brand_raw": "A processor"},
        },
        "commit_info": {"id": "0123456789abcdef", "dirty": True, "branch": "SECRET", "project": "SECRET"},
        "datetime": "2026-01-02T03:04:05+00:00",
        "benchmarks": [
            {"fullname": "/SECRET/benchmarks/test_random.py::test_words[a]", "name": "test_words[a]",
             "group": "words", "params": {"name": name}, "extra_info": {"results_a_call": results}, "stats": stats}
            for name, results in (("NumPy", 1), ("a", 4))
        ],
    }  # fmt: skip
    report = load("benchmarks/report.py")
    ((name, kept),) = report.summary(raw).items()
    assert name == "random" and "SECRET" not in str(kept)
    assert kept["about"]["cpu"] == "A processor" and kept["about"]["commit"] == "0123456789ab with changes"
    assert "| a | 0.25 | 1 ms | 750 µs – 1.25 ms | 9 |" in report.tables(name, kept)
    for file in (ROOT / "benchmarks" / "results").glob("*.json"):
        about = json.loads(file.read_text(encoding="utf-8"))["about"]
        assert set(about) == set(kept["about"])
