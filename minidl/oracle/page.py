"""A report as one HTML page: no scripts, no fonts, no pictures from elsewhere; the figures are SVG inside it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from minidl.oracle.drift import Drift
from minidl.oracle.formulas import listings
from minidl.oracle.report import Divergence, Report, Tally, gravest, number, plain, share_text, ulps_text
from minidl.oracle.steps import BIT_EQUAL, DIVERGENT, NOT_OBSERVED, WITHIN_BOUND

TEMPLATES = Path(__file__).with_name("templates")
SHADES = (0, 1, 10, 100, 10_000)  # ULPs from which a cell is a shade darker
VALUES = 24  # numbers of an input that are shown
MARKS = {BIT_EQUAL: "=", WITHIN_BOUND: "≈", DIVERGENT: "✕", NOT_OBSERVED: "–"}


def html(report: Report) -> str:
    """The page. Errors: ImportError, naming the extra, without jinja2."""
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            f"the HTML report needs jinja2, which is not installed ({error}). Run: pip install 'minidl[report]'"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "ulps": ulps_text, "share": share_text, "shape_of_place": _place}
    first = report.first_divergence
    return environment.get_template("report.html").render(
        report=report,
        first=first,
        counts=report.counts,
        verdicts={name: name.replace(" ", "-") for name in (BIT_EQUAL, WITHIN_BOUND, DIVERGENT, NOT_OBSERVED)},
        marks=MARKS,
        columns=[quantity.replace("_", "-") for quantity in report.quantities],
        rows=[(layer, [_cell(report.cell(quantity, layer)) for quantity in report.quantities])
              for layer in report.layers],
        scale=_scale(first) if first is not None else None,
        inputs=_inputs(first) if first is not None else [],
        listings=[_listing(one) for one in listings(first.formula)] if first is not None else [],
        drifts=[figure for drift in report.drifts for figure in drift_figures(drift)],
        model=_model(report.about.get("model")),
    )  # fmt: skip


def _place(place: Sequence[int]) -> str:
    return "[" + ", ".join(map(str, place)) + "]" if len(place) else ""


# ------------------------------------------------------------------------------------------ the matrix


def _cell(tallies: list[Tally]) -> dict[str, Any]:
    """A cell of the matrix: its class, its text, and what it says when pointed at."""
    worst = gravest(tallies)
    if worst is None or worst.worst is None:
        return {"kind": "none", "text": "", "title": ""}
    ulps = max(tally.ulps for tally in tallies)
    if worst.verdict == NOT_OBSERVED:
        return {"kind": "not-observed", "text": "–", "title": f"not observed: {worst.worst.reason}"}
    title = "; ".join(
        f"{tally.name}: {tally.verdict}, {ulps_text(tally.ulps)} ULPs"
        + (f", {share_text(tally.worst.share)} of the bound" if tally.worst and tally.worst.share else "")
        for tally in tallies
    )
    if worst.verdict == DIVERGENT:
        return {"kind": "divergent", "text": f"✕ {ulps_text(ulps)}", "title": title}
    return {"kind": f"shade-{sum(ulps > limit for limit in SHADES)}", "text": ulps_text(ulps), "title": title}


# -------------------------------------------------------------------------------- the first divergence


def _scale(first: Divergence) -> str:
    """How far both results are from the true value, beside the bound, on a logarithmic axis, as SVG."""
    if first.got is None or first.truth is None or first.expected is None or not first.bound:
        return ""
    if not np.isfinite([first.got, first.bound, first.expected, first.truth]).all():
        return ""
    errors = {first.trainer: abs(first.got - first.truth), "minidl": abs(first.expected - first.truth)}
    shown = [math.log10(error) for error in (*errors.values(), first.bound) if error > 0]
    low, high = math.floor(min(shown)) - 0.5, math.ceil(max(shown)) + 0.5
    width, left, right, middle = 640, 20, 620, 54

    def x(error: float) -> float:
        return left + (right - left) * ((math.log10(error) if error > 0 else low) - low) / (high - low)

    every = max(1, math.ceil((high - low) / 8))
    limit = x(first.bound)
    ticks = range(math.ceil(low), math.floor(high) + 1, every)
    parts = [
        f'<rect class="inside" x="{left}" y="{middle - 16}" width="{limit - left:.1f}" height="32"/>',
        f'<line class="limit" x1="{limit:.1f}" y1="{middle - 24}" x2="{limit:.1f}" y2="{middle + 20}"/>',
        f'<text class="label" x="{limit:.1f}" y="{middle - 30}" text-anchor="middle">bound</text>',
        f'<line class="axis" x1="{left}" y1="{middle + 20}" x2="{right}" y2="{middle + 20}"/>',
    ]
    for tick in ticks:
        at = x(10.0**tick)
        parts.append(f'<line class="axis" x1="{at:.1f}" y1="{middle + 20}" x2="{at:.1f}" y2="{middle + 25}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{middle + 40}" text-anchor="middle">1e{tick}</text>')
    for name, kind in (("minidl", "own"), (first.trainer, "got")):
        at, error = x(errors[name]), errors[name]
        text = escape(name if error else f"{name}: exact")
        anchor = "start" if at < width / 2 else "end"
        across = at + 9 if anchor == "start" else at - 9
        parts.append(f'<circle class="{kind}" cx="{at:.1f}" cy="{middle}" r="6"/>')
        parts.append(f'<text class="label" x="{across:.1f}" y="{middle + 5}" text-anchor="{anchor}">{text}</text>')
    distances = ", ".join(f"{escape(name)} {error:.3g}" for name, error in errors.items())
    title = f"Distance from the true value: {distances}; bound {first.bound:.3g}"
    return f'<svg viewBox="0 0 {width} {middle + 48}" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def _inputs(first: Divergence) -> list[tuple[str, str, str]]:
    """Name, shape and numbers of what the worst element was computed from."""
    found = []
    for name, value in first.inputs.items():
        array = np.asarray(value)
        numbers = [number(float(one)) if array.dtype.kind in "fiub" else str(one) for one in array.reshape(-1)[:VALUES]]
        more = f" … {array.size - VALUES:,} more" if array.size > VALUES else ""
        found.append((name, str(array.shape) if array.ndim else "", ", ".join(numbers) + more))
    return found


def _listing(one: Any) -> dict[str, Any]:
    lines = one.source.split("\n")
    return {
        "name": one.name,
        "uri": one.path.resolve().as_uri(),
        "file": f"minidl/{one.path.name}",
        "line": one.line,
        "lines": list(enumerate(lines, one.line)),
    }


def _model(model: Any) -> str:
    return "" if model is None else json.dumps(plain(model), indent=2)


# --------------------------------------------------------------------------------------------- the drift


def drift_figures(drift: Drift) -> list[dict[str, str]]:
    """A figure for each tensor of a free run: how far it drifted, beside the drift of rounding alone, log over steps."""
    figures = []
    for i, tensor in enumerate(drift.tensors):
        curves = {"drift": drift.distance[:, i], "rounding": drift.rounding[:, i]}
        far, own = (_largest(curve) for curve in curves.values())
        title = f"{tensor}: Keras {far}, rounding {own}"
        figures.append({"title": title, "svg": _curves(title, drift.steps, curves)})
    return figures


def _largest(curve: Any) -> str:
    known = curve[np.isfinite(curve)]
    return f"{known.max():.1e}" if known.size and known.max() else "0"


def _curves(title: str, steps: Any, curves: dict[str, Any]) -> str:
    """Lines over the steps on a logarithmic axis; where a distance is 0 there is no line."""
    width, height, left, bottom = 320, 150, 44, 24
    positive = np.concatenate([curve[np.isfinite(curve) & (curve > 0)] for curve in curves.values()])
    low, high = (
        (math.floor(np.log10(positive.min())), math.ceil(np.log10(positive.max()))) if positive.size else (-8, -7)
    )
    high = max(high, low + 1)
    last = max(int(steps[-1]), 1) if len(steps) else 1

    def place(step: float, value: float) -> str:
        x = left + (width - left - 8) * step / last
        y = 8 + (height - bottom - 8) * (high - math.log10(value)) / (high - low)
        return f"{x:.1f},{y:.1f}"

    parts = []
    every = max(1, math.ceil((high - low) / 4))
    for tick in range(low, high + 1, every):
        y = 8 + (height - bottom - 8) * (high - tick) / (high - low)
        parts.append(f'<line class="axis" x1="{left}" y1="{y:.1f}" x2="{width - 8}" y2="{y:.1f}" opacity="0.35"/>')
        parts.append(f'<text class="tick" x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">1e{tick}</text>')
    for step, anchor in ((0, "start"), (last, "end")):
        x = left + (width - left - 8) * step / last
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="{anchor}">step {step}</text>')
    for kind, curve in curves.items():
        for run in _runs(np.isfinite(curve) & (curve > 0)):
            points = [place(float(steps[i]), float(curve[i])) for i in run]
            if len(points) == 1:
                at, level = points[0].split(",")
                parts.append(f'<circle class="{"got" if kind == "drift" else "own"}" cx="{at}" cy="{level}" r="2"/>')
            else:
                parts.append(f'<polyline class="{kind}" points="{" ".join(points)}"/>')
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _runs(known: Any) -> list[list[int]]:
    """The stretches of places that are known."""
    found: list[list[int]] = []
    for i in np.flatnonzero(known).tolist():
        if found and found[-1][-1] == i - 1:
            found[-1].append(i)
        else:
            found.append([i])
    return found
