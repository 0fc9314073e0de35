"""docs/compatibility.md is what running every name and argument of Keras in both libraries gives, row by row."""

import pytest
from compatibility import engine, page, territory

import minidl

pytestmark = [pytest.mark.keras, pytest.mark.slow]


@pytest.fixture(scope="module")
def bench(keras):
    with engine.restored(keras):
        yield engine.Bench(keras, minidl)


@pytest.fixture(scope="module")
def committed():
    return page.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("section", territory.SECTIONS)
def test_the_page_says_what_happens(bench, committed, section):
    rows = page.rows_of(bench, section)
    assert page.defects(rows) == []
    expected = page.section_text(section, rows)
    heading = expected.splitlines()[0]
    found = committed[committed.index(heading + "\n") :]
    found = found[: found.index("\n## ", 1) + 1] if "\n## " in found[1:] else found
    assert found.strip().splitlines() == expected.strip().splitlines(), "run make docs"


@pytest.mark.parametrize("section", territory.SECTIONS)
def test_no_name_or_argument_of_keras_is_left_untried(keras, section):
    assert territory.uncovered(keras, section) == []


def test_no_module_of_keras_is_left_out_unsaid(keras):
    tried = {section.split(".")[0] for section in territory.SECTIONS if section[0].islower()} - {"keras"}
    assert territory.modules_of(keras) - tried - territory.MODULES_OUTSIDE == set()


def test_the_beginning_and_the_end_of_the_page(keras, committed):
    first = committed.index("\n## ") + 1
    last = committed.index(page.outside_text())
    assert committed[:first].strip() == page.summary_text(keras, committed[first:last]).strip()
    assert committed[last:].strip() == page.outside_text().strip()


# The engine can fail ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (lambda x, factor=1.0: x * factor, "supported"),
        (lambda x, factor=1.0: x, "defect"),  # ignored
        (lambda x, factor=1.0: x * factor * (1 + 1e-9), "defect"),  # another number
        (lambda x: x, "defect"),  # unexpected keyword argument
    ],
)
def test_an_ignored_argument_is_a_defect(bench, ours, verdict):
    class Library:
        def __init__(self, like, scaled):
            self.config, self.utils, self.scaled = like.config, like.utils, scaled

    pair = engine.Bench(Library(bench.keras, lambda x, factor=1.0: x * factor), Library(minidl, ours))
    entry = engine.Entry("scaled", lambda k, target, /, **a: target(3.0, **a), {"factor": 2.0})
    assert pair.row(entry, "factor", engine.Try(2.0)).verdict == verdict


def test_refusing_must_name_the_argument(bench):
    def refuse(message):
        def scaled(x, factor=1.0):
            raise NotImplementedError(message)

        return scaled

    class Library:
        def __init__(self, like, scaled):
            self.config, self.utils, self.scaled = like.config, like.utils, scaled

    entry = engine.Entry("scaled", lambda k, target, /, **a: target(3.0, **a), {"factor": 2.0})
    for message, verdict in (("factor=2.0 is not supported", "refused"), ("not supported", "defect")):
        pair = engine.Bench(Library(bench.keras, lambda x, factor=1.0: x * factor), Library(minidl, refuse(message)))
        assert pair.row(entry, "factor", engine.Try(2.0)).verdict == verdict
