"""The report: which divergence is the first, what is counted, what the terminal and the files show."""

import json
import math
import re
import sys
from html.parser import HTMLParser

import browser
import numpy as np
import pytest
from report_cases import FAULTS, STEPS, one_gradient_off, reported

from minidl.oracle import formulas
from minidl.oracle.report import Report
from minidl.oracle.steps import BIT_EQUAL, DIVERGENT, NOT_OBSERVED, WITHIN_BOUND, Check


def test_a_right_training():
    report = reported()
    assert report.ok and report.first_divergence is None and report.steps == STEPS
    assert report.counts[BIT_EQUAL] and report.counts[WITHIN_BOUND] and not report.counts[DIVERGENT]
    assert str(report).startswith("Right: ")
    assert report.layers == ["dense", "dropout", "dense_1", None]
    assert sum(report.counts.values()) == sum(sum(tally.counts.values()) for tally in report.cell(None))


def test_the_first_divergence_says_all_about_it():
    report = reported(one_gradient_off)
    first = report.first_divergence
    assert not report.ok
    assert (first.quantity, first.layer, first.name, first.step, first.place) == (
        "gradient",
        "dense",
        "kernel",
        2,
        (2, 1),
    )
    assert (first.epoch, first.batch) == (0, 2)
    assert math.isclose(first.got - first.truth, 1e-3, rel_tol=1e-2)
    assert 0 < first.bound < 1e-5 and first.share == pytest.approx(abs(first.got - first.truth) / first.bound)
    assert abs(first.expected - first.truth) <= first.bound
    assert first.recorded.number == 2
    for part in (
        "gradient dense/kernel",
        "step 2",
        "(2, 1)",
        f"{first.got:.9g}",
        f"{first.truth:.9g}",
        f"{first.bound:.3g}",
    ):
        assert part in first.explanation and part in str(report).replace("\n", " ")


def check(quantity, layer="dense", step=0, verdict=DIVERGENT, **rest):
    return Check(quantity, layer, "kernel", step, verdict, share=2.0 if verdict == DIVERGENT else 0.5, **rest)


def test_first_is_the_earliest_step_then_quantity_then_as_the_judge_lists_them():
    report = Report()
    report.add([check("gradient", step=3), check("activation", "b", step=3), check("activation", "a", step=3)])
    assert (report.first_divergence.quantity, report.first_divergence.layer) == ("activation", "b")
    report.add([check("weight", step=2)])
    assert report.first_divergence.quantity == "weight"
    report.add([check("batch", step=4)])
    assert report.first_divergence.step == 2


def test_nothing_judged_is_not_right():
    report = Report()
    assert not report.ok and "Nothing judged" in str(report)
    report.add([check("weight", verdict=NOT_OBSERVED)])
    assert not report.ok
    report.add([check("weight", verdict=BIT_EQUAL)])
    assert report.ok


def test_interrupted_is_said():
    report = reported()
    report.interrupted = True
    assert report.ok and "before it was interrupted" in report.verdict


def test_the_worst_check_is_the_gravest_then_the_largest_share():
    report = Report()
    report.add(
        [check("weight", verdict=WITHIN_BOUND), check("weight", step=5), check("weight", verdict=BIT_EQUAL, step=6)]
    )
    (tally,) = report.cell("weight", "dense")
    assert (tally.verdict, tally.worst.step) == (DIVERGENT, 5)
    assert tally.counts == {NOT_OBSERVED: 0, BIT_EQUAL: 1, WITHIN_BOUND: 1, DIVERGENT: 1}


def test_json_says_the_same_and_is_strict(tmp_path):
    report = reported(one_gradient_off)
    report.add([check("loss", step=9, ulps=math.inf, inputs={"x": np.array([1.0, np.nan])})])
    path = tmp_path / "report.json"
    text = report.to_json(path)
    assert path.read_text() == text + "\n"

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(text, parse_constant=refuse)
    assert found["ok"] is False and found["counts"] == report.counts
    first = found["first_divergence"]
    assert (first["layer"], first["place"], first["got"]) == ("dense", [2, 1], report.first_divergence.got)
    assert "Infinity" in [tensor["ulps"] for tensor in found["tensors"]]


# ------------------------------------------------------------------------------------------------ the page


@pytest.mark.parametrize("quantity", FAULTS)
def test_the_page_leads_to_the_fault(quantity, tmp_path):
    report = reported(FAULTS[quantity])
    first = report.first_divergence
    assert (first.quantity, first.step) == (quantity, 2)
    page = report.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == page
    text = re.sub(r"\s+", " ", visible(page))
    assert text.index("Divergent") < text.index("First divergence") < text.index("Layers and quantities")
    for part in (first.tensor, "step 2", first.explanation, f"{first.got:.9g}", f"{first.truth:.9g}"):
        assert part in text
    if first.formula:
        (listing, *_) = formulas.listings(first.formula)
        assert f"minidl/{listing.path.name}, line {listing.line}" in text
        assert listing.path.read_text().split("\n")[listing.line - 1].strip() in text
    if quantity not in ("mask", "loss", "metric"):
        assert "What it was computed from" in text


class _Text(HTMLParser):
    """What a reader sees, and what would be loaded from elsewhere."""

    def __init__(self):
        super().__init__()
        self.parts, self.hidden, self.loaded = [], False, []

    def handle_starttag(self, tag, attributes):
        self.hidden = tag in ("style", "script")
        for name, value in attributes:
            if name in ("src", "srcset", "data") or (name == "href" and tag != "a"):
                self.loaded.append(value)

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data)


def visible(page):
    parser = _Text()
    parser.feed(page)
    assert all(address.startswith("data:") for address in parser.loaded)
    assert "url(" not in page and "@import" not in page and "<script" not in page
    return " ".join(parser.parts)


def test_what_a_model_is_called_cannot_become_markup():
    report = Report({"layers": ["<script>alert(1)</script>"], "versions": {"<b>": "&"}})
    report.add(
        [check("weight", "<script>alert(1)</script>", reason="<i>", got=1.0, expected=2.0, truth=2.0, bound=0.5)]
    )
    page = report.to_html()
    assert "<script" not in page and "<b>" not in re.sub("<b>[0-9A-Z]", "", page) and "<i>" not in page


def test_an_interrupted_report_and_an_empty_one_have_pages():
    report = Report()
    report.interrupted = True
    assert "Nothing judged (interrupted)" in report.to_html()


def test_without_jinja2_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"pip install 'minidl\[report\]'"):
        reported().to_html()


def test_every_formula_that_the_judge_names_is_found():
    for tally in reported().tallies.values():
        if tally.worst.formula and "+" not in tally.worst.formula:
            assert formulas.listings(tally.worst.formula), tally.worst


# contrast: WCAG 2.1's ratio of each text to what is behind it; wide: what sticks out of the window, unless it scrolls
LOOK = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1)
    return [...canvas.getImageData(0, 0, 1, 1).data].map((v, i) => i < 3 ? v : v / 255)
  }
  const over = (top, below) => below.map((v, i) => i < 3 ? top[i] * top[3] + v * (1 - top[3]) : 1)
  const behind = node => {
    if (!node) return rgba(getComputedStyle(document.documentElement).colorScheme ? 'Canvas' : 'white')
    return over(rgba(getComputedStyle(node).backgroundColor), behind(node.parentElement))
  }
  const light = colour => {
    const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const texts = [...document.querySelectorAll('body *')].filter(node =>
    [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim()) && !node.closest('script'))
  const contrast = texts.map(node => {
    const style = getComputedStyle(node)
    const ground = behind(node)
    const ink = over(rgba(node.closest('svg') ? style.fill : style.color), ground)
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x)
    return [(a + 0.05) / (b + 0.05), node.outerHTML.slice(0, 80)]
  })
  const wide = [...document.querySelectorAll('body *')].filter(node =>
    node.getBoundingClientRect().right > innerWidth + 1 && !node.closest('.scroll, pre'))
  return {
    contrast: contrast.sort((x, y) => x[0] - y[0])[0],
    wide: wide.map(node => node.outerHTML.slice(0, 80)),
    scrolls: document.documentElement.scrollWidth > innerWidth,
    ground: light(rgba(getComputedStyle(document.body).backgroundColor)),
    loaded: performance.getEntriesByType('resource').map(entry => entry.name),
    smallest: Math.min(...texts.map(node => parseFloat(getComputedStyle(node).fontSize))),
    verdict: document.querySelector('h1').getBoundingClientRect().bottom,
  }
}"""


@pytest.mark.skipif(browser.found() is None, reason="no browser here: install chromium to look at the page")
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(scheme, width, tmp_path):
    page = tmp_path / "report.html"
    reported(one_gradient_off).to_html(page)
    seen = browser.measure(page, LOOK, width=width, scheme=scheme)
    assert seen["contrast"][0] >= 4.5, seen["contrast"]  # WCAG 2.1, 1.4.3
    assert not seen["wide"] and not seen["scrolls"]
    assert (seen["ground"] < 0.05) if scheme == "dark" else (seen["ground"] > 0.9)
    assert seen["loaded"] == []
    assert seen["smallest"] >= 11
    assert seen["verdict"] < 200  # it is what one sees first


@pytest.mark.skipif(browser.found() is None, reason="no browser here: install chromium to look at the page")
def test_the_picture_of_the_page_is_red_where_it_diverges(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    def share_of_red(report):
        report.to_html(tmp_path / "report.html")
        browser.screenshot(tmp_path / "report.html", tmp_path / "report.png", height=2400)
        red, green, blue = np.moveaxis(imread(tmp_path / "report.png")[..., :3], -1, 0)
        return ((red > 0.65) & (green < 0.35) & (blue < 0.2)).mean()

    legend = share_of_red(reported())
    assert share_of_red(reported(one_gradient_off)) > 10 * legend > 0
