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


CURVES = 12  # tensors of which the drift is drawn: those farthest beyond what rounding makes


def drift_figures(drift: Drift) -> list[dict[str, str]]:
    """A figure for each tensor of a free run: how far it drifted, beside the drift of rounding alone; in ULPs."""
    times = np.nan_to_num(np.asarray(drift.times), nan=np.inf, posinf=np.inf)
    chosen = sorted(np.argsort(-times, kind="stable")[:CURVES])
    return [
        {
            "title": f"{drift.tensors[i]}: {_times(float(times[i]))}",
            "svg": _curves(drift.steps, drift.distance_ulps[:, i], drift.rounding_ulps[:, i], drift.tensors[i]),
        }
        for i in chosen
    ]


def _times(times: float) -> str:
    if times == 0:
        return "no drift"
    return f"{times:.2g} × that of rounding" if math.isfinite(times) else "rounding alone makes none"


def _curves(steps: Any, distance: Any, rounding: Any, name: str) -> str:
    """Two curves over the steps on a logarithmic axis; what is 0 lies on the floor, what is not finite is left out."""
    width, height, left, right, top, bottom = 320, 170, 52, 310, 12, 140
    finite = [float(one) for one in (*distance, *rounding) if np.isfinite(one) and one > 0]
    low = math.floor(math.log10(min(finite))) - 0.5 if finite else 0.0
    high = max(math.ceil(math.log10(max(finite))), low + 1.5) if finite else 1.0
    first, last = float(steps[0]), max(float(steps[-1]), float(steps[0]) + 1)

    def point(step: Any, value: Any) -> str:
        level = max(math.log10(value), low) if value > 0 else low
        x = left + (right - left) * (float(step) - first) / (last - first)
        return f"{x:.1f},{bottom - (bottom - top) * (level - low) / (high - low):.1f}"

    parts = []
    every = max(1, math.ceil((high - low) / 5))
    for tick in range(math.ceil(low), math.floor(high) + 1, every):
        y = float(point(first, 10.0**tick).split(",")[1])
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        label = f"{10.0**tick:g}" if -3 < tick < 5 else f"1e{tick}"
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    parts.append(f'<text class="tick" x="{left}" y="{bottom + 18}">step {steps[0]}</text>')
    parts.append(f'<text class="tick" x="{right}" y="{bottom + 18}" text-anchor="end">{steps[-1]}</text>')
    for kind, values in (("rounding", rounding), ("drift", distance)):
        seen = [point(step, value) for step, value in zip(steps, values, strict=True) if np.isfinite(value)]
        parts.append(f'<polyline class="{kind}" points="{" ".join(seen)}"/>')
    label = escape(f"Drift of {name} in ULPs by step")
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
