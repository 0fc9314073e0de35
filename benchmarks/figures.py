"""The figures, drawn from the results files by report.py: the time of a step, and how it grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from report import growths, slopes

from minidl.display import GREY, label, new_figure
from minidl.plots import save

# Okabe & Ito 2008; of each library one colour, minidl's the strongest.
COLOURS = {
    "minidl": "#D55E00",
    "JAX": "#0072B2",
    "TensorFlow": "#E69F00",
    "torch": "#009E73",
    "scikit-learn": "#CC79A7",
}
THROUGH_FIT = {
    "minidl fit": "minidl",
    "minidl with Numba, fit": "minidl",
    "Keras on JAX, fit": "JAX",
    "Keras on TensorFlow, fit": "TensorFlow",
    "Keras on torch, fit": "torch",
    "scikit-learn, fit": "scikit-learn",
}
STEP_BY_STEP = {
    "minidl, fit's step": "minidl",
    "minidl with Numba, fit's step": "minidl",
    "JAX, lax.scan": "JAX",
    "JAX, jit a step": "JAX",
    "TensorFlow, XLA": "TensorFlow",
    "TensorFlow, tf.function": "TensorFlow",
    "torch, eager": "torch",
    "torch.compile": "torch",
    "scikit-learn, partial_fit": "scikit-learn",
}
DOTTED = {  # compiled, the others' as a whole
    "minidl with Numba, fit",
    "minidl with Numba, fit's step",
    "JAX, lax.scan",
    "TensorFlow, XLA",
    "torch.compile",
}
MARKERS = "os^Dv"


def draw_all(results: dict[str, dict[str, Any]], folder: Path) -> None:
    """Draw what there are results for."""
    folder.mkdir(exist_ok=True)
    if "step" in results:
        save(steps(results["step"]), folder / "step.png")
    if "growth" in results:
        save(growth(results["growth"]), folder / "growth.png")


def steps(results: dict[str, Any]) -> Any:
    """Microseconds of a step over its operations, both logarithmic: through fit, and step by step."""
    rows = [row for row in results["benchmarks"] if "L1" not in row["group"]]
    by_name: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append((row["flop"], row["median"] * 1e6, row["group"].split()[0]))
    figure = new_figure(11, 6, "One training step: the nearer to the dashed line, the better")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, title, names in zip(panels, ("through fit", "step by step"), (THROUGH_FIT, STEP_BY_STEP), strict=True):
        floor = next((sorted(points) for name, points in by_name.items() if name.startswith("NumPy")), [])
        if floor:
            axes.plot(*coordinates(floor), "--", color=GREY, linewidth=1.5, label="matrix products alone")
        for number, (name, library) in enumerate(names.items()):
            if name not in by_name:
                continue
            axes.plot(
                *coordinates(sorted(by_name[name])),
                ":" if name in DOTTED else "-",
                marker=MARKERS[number % len(MARKERS)],
                markersize=5,
                color=COLOURS[library],
                linewidth=2.8 if library == "minidl" else 1.4,
                zorder=3 if library == "minidl" else 2,
                label=name.removesuffix("'s step").removesuffix(" fit").removesuffix(","),
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        label(axes, title=title, x="operations of the step's matrix products (flop)", y="time of a step (µs)")
        axes.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
        named = {name: flop for points in by_name.values() for flop, _, name in points}
        top = axes.secondary_xaxis("top")
        top.set_xticks(list(named.values()), list(named))
        top.tick_params(length=0, labelsize=9, pad=1)
        top.minorticks_off()
        top.spines["top"].set_visible(False)
        axes.set_title(title, fontsize=10.5, pad=20)
    panels[1].set_ylabel("")
    return figure


def coordinates(points: list[tuple[float, float, str]]) -> tuple[list[float], list[float]]:
    """x and y of (x, y, …)."""
    return [point[0] for point in points], [point[1] for point in points]


def growth(results: dict[str, Any]) -> Any:
    """Time over width, batch and depth, all logarithmic, with the fitted slopes beside those of the operations."""
    found = growths(results)
    figure = new_figure(max(6.0, 3.9 * len(found)), 4.8, "A training step as the network and the batch grow")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    titles = {
        "width": "width W: W-W-W-W-1, 128 rows",
        "batch": "batch B: 256-256-256-256-1",
        "depth": "depth D: 64 wide",
    }
    for axes, (axis, by_name) in zip(panels, found.items(), strict=True):
        for number, (name, rows) in enumerate(by_name.items()):
            floor = name.startswith("NumPy")
            library = next((library for library in COLOURS if name.startswith(library)), None)
            pair = slopes(rows)
            title = "matrix products alone" if floor else name
            axes.plot(
                [row["size"] for row in rows],
                [row["median"] * 1e6 for row in rows],
                "--" if floor else "-",
                marker=None if floor else MARKERS[number],
                markersize=4.5,
                color=GREY if floor else COLOURS.get(library or "", GREY),
                linewidth=2.6 if library == "minidl" else 1.4,
                label=title + (f": slope {pair[0]:.2f}, operations {pair[1]:.2f}" if pair else ""),
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        label(axes, title=titles[axis], x=axis, y="time of a step (µs)" if axes is panels[0] else "")
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return figure
