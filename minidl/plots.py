"""The demo's four figures, as matplotlib Figure objects: no pyplot, no display, no global settings.

matplotlib is imported when the first figure is made. The common style is display.py's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import ops
from minidl.backend import Array
from minidl.display import BLUE, DPI, GREEN, GREY, LIGHT, ORANGE, label, legend_below, new_figure
from minidl.layers import Dropout

if TYPE_CHECKING:
    from minidl.study import Runs, Study

History = Mapping[str, Sequence[float]]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, renamed to path at the end: the file appears whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(figure: Any, path: Path) -> None:
    """Write a figure as a PNG file; it appears whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


# ------------------------------------------------------------------------------------ learning curves


def learning_curves(models: Mapping[str, tuple[History, History]], *, keras_label: str) -> Any:
    """Loss and accuracy by epoch: name of the model -> (minidl's history, Keras's history)."""
    figure = new_figure(10, 7, "Learning curves: minidl and Keras, the same seed")
    panels = figure.subplots(2, len(models), sharex="col", sharey="row", squeeze=False)
    for column, (name, histories) in zip(panels.T, models.items(), strict=True):
        for axes, metric in zip(column, ("loss", "accuracy"), strict=True):
            _history_lines(axes, metric, histories, keras_label)
        label(column[0], title=name)
        label(column[1], x="epoch")
    panels[0, 0].set_ylabel("loss (nats), penalties included")
    panels[1, 0].set_ylabel("accuracy (fraction of birds)")
    legend_below(figure, panels[0, 0])
    return figure


def _history_lines(axes: Any, metric: str, histories: tuple[History, History], keras_label: str) -> None:
    """minidl as lines and Keras as dots over them, about twenty along the run, train and validation."""
    ours, keras = histories
    for key, colour, what in ((metric, BLUE, "train"), (f"val_{metric}", ORANGE, "validation")):
        epochs = np.arange(1, len(ours[key]) + 1)
        dots = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), 20)).astype(int))
        axes.plot(epochs, ours[key], color=colour, linewidth=1.6, label=f"minidl, {what}")
        axes.plot(
            epochs[dots], np.asarray(keras[key])[dots], "o", color=colour, markerfacecolor="white", markersize=4.5,
            label=f"{keras_label}, {what}",
        )  # fmt: skip


# --------------------------------------------------------------------------------------- over-fitting


def over_fitting(study: Study) -> Any:
    """Train and validation loss by epoch, a panel a variant: the mean over the seeds and their range."""
    seeds = len(next(iter(study.values())).train_loss)
    figure = new_figure(10, 7.5, f"Over-fitting: mean and range of {seeds} seeds")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, runs in zip(panels.flat, study.values(), strict=True):
        for losses, colour, what in (
            (runs.train_loss, BLUE, "train"),
            (runs.validation_loss, ORANGE, "validation"),
        ):
            epochs = np.arange(1, losses.shape[1] + 1)
            axes.fill_between(epochs, losses.min(axis=0), losses.max(axis=0), color=colour, alpha=0.25, linewidth=0)
            axes.plot(epochs, losses.mean(axis=0), color=colour, linewidth=1.8, label=f"{what} loss")
        label(axes, title=f"{runs.title}: gap after the last epoch {runs.gap.mean():.2f} nats")
        axes.set_ylim(bottom=0)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    for axes in panels[:, 0]:
        axes.set_ylabel("loss (nats), without penalty")
    legend_below(figure, panels[0, 0])
    return figure


# ------------------------------------------------------------------------------------- L1 against L2


def l1_and_l2(study: Study, *, near_zero: float) -> Any:
    """The penalties, their gradients, and what they leave of the study's weights."""
    figure = new_figure(10.5, 8, "L1 against L2")
    curves, histograms = figure.subfigures(2, 1)
    penalties, gradients = curves.subplots(1, 2)
    _penalty_curves(penalties, gradients)
    shown = {name: study[name] for name in ("plain", "l1", "l2")}
    largest = max(np.abs(runs.kernels).max() for runs in shown.values())
    bars = int(np.ceil(largest / (2 * near_zero)))  # on each side of the middle one
    edges = (np.arange(-bars, bars + 2) - 0.5) * 2 * near_zero
    panels = histograms.subplots(1, 3, sharex=True, sharey=True)
    for axes, runs in zip(panels, shown.values(), strict=True):
        _weight_histogram(axes, runs, edges, near_zero)
    panels[0].set_ylabel("weights per net (logarithmic)")
    histograms.supxlabel(
        f"Trained kernel weights of the over-fitting study. The middle bar holds all |w| < {near_zero:g}.\n"
        f"Adam with L1 makes weights small, not exactly zero: it steps back and forth across 0.",
        fontsize=9.5,
    )
    return figure


def _penalty_curves(penalties: Any, gradients: Any) -> None:
    """Penalty and gradient of one weight, in units of λ, by minidl's own formulas."""
    w = np.linspace(-2, 2, 401)
    l1 = [ops.l1_penalty(w[i : i + 1], l1=1.0) for i in range(len(w))]
    l2 = [ops.l2_penalty(w[i : i + 1], l2=1.0) for i in range(len(w))]
    penalties.plot(w, l1, color=BLUE, linewidth=2, label="L1: λ|w|")
    penalties.plot(w, l2, color=ORANGE, linewidth=2, linestyle="--", label="L2: λw²")
    label(penalties, title="The penalty of one weight", x="weight w", y="penalty / λ")
    at_zero = len(w) // 2
    step = ops.l1_gradient(w, l1=1.0)
    for side in (slice(None, at_zero), slice(at_zero + 1, None)):  # the sign jumps at 0: no line across
        gradients.plot(
            w[side],
            step[side],
            color=BLUE,
            linewidth=2,
            label="L1: λ sign(w)" if side.start is None else None,
        )
    gradients.plot(w, ops.l2_gradient(w, l2=1.0), color=ORANGE, linewidth=2, linestyle="--", label="L2: 2λw")
    label(gradients, title="Its gradient: L1's pull does not fade near 0", x="weight w", y="gradient / λ")
    for axes in (penalties, gradients):
        axes.legend(frameon=False)


def _weight_histogram(axes: Any, runs: Runs, edges: Array, near_zero: float) -> None:
    """Weights per net by size; the middle bar, in its own colour, holds the small ones."""
    kernels = runs.kernels
    counts, _ = np.histogram(kernels, edges)
    colours = [GREY] * len(counts)
    colours[len(counts) // 2] = GREEN
    axes.bar(edges[:-1], counts / len(kernels), width=np.diff(edges), align="edge", color=colours)
    axes.set_yscale("log")
    axes.set_ylim(0.05, 1.2e5)
    share = 100 * runs.near_zero.sum() / kernels.size
    axes.text(
        0.03, 0.97,
        f"|w| < {near_zero:g}: {runs.near_zero.mean():.0f} of {kernels.shape[1]} ({share:.0f} %)\n"
        f"exactly 0: {runs.exact_zeros.mean():g}\nlargest |w|: {np.abs(kernels).max():.2f}",
        transform=axes.transAxes, va="top", fontsize=9, linespacing=1.4,
    )  # fmt: skip
    label(axes, title=runs.title, x="weight w")


# -------------------------------------------------------------------------------------------- dropout


def dropout(masks: Mapping[str, tuple[float, Sequence[Array]]], *, steps: int = 60) -> Any:
    """Which units a run kept, and why the kept are scaled: name of the layer -> (rate, masks (B, U) by step)."""
    figure = new_figure(10.5, 3.2 + 1.7 * len(masks), "Dropout: which units were kept, step by step")
    grid = figure.add_gridspec(len(masks) + 1, 2, height_ratios=[1] * len(masks) + [2])
    running = figure.add_subplot(grid[-1, 0])
    for row, ((name, (rate, drawn)), colour) in enumerate(zip(masks.items(), (BLUE, ORANGE), strict=False)):
        _mask_raster(figure.add_subplot(grid[row, :]), name, rate, drawn[:steps], drawn, colour)
        _running_mean(running, name, rate, drawn, colour)
    running.set_ylim(0, 2)
    running.legend(frameon=False, fontsize=8.5)
    label(running, title="Mean output of inputs of 1, this run", x="training step", y="mean so far")
    _scaling(figure.add_subplot(grid[-1, 1]))
    return figure


def _mask_raster(
    axes: Any, name: str, rate: float, shown: Sequence[Array], drawn: Sequence[Array], colour: str
) -> None:
    """Units by steps for the first bird of each batch; the kept fraction is that of all birds and steps."""
    from matplotlib.colors import ListedColormap

    first = np.array([mask[0] for mask in shown]).T
    axes.pcolormesh(
        np.arange(first.shape[1] + 1) + 0.5, np.arange(len(first) + 1) + 0.5, first,
        cmap=ListedColormap([LIGHT, colour]), vmin=0, vmax=1, edgecolors="white", linewidth=1,
    )  # fmt: skip
    axes.set_yticks(range(1, len(first) + 1))
    kept, total = sum(int(np.sum(m)) for m in drawn), sum(np.size(m) for m in drawn)
    label(
        axes,
        title=f"{name}, rate {rate:g}: the first bird of each batch (coloured = kept). "
        f"All birds and steps: {100 * kept / total:.1f} % of {total:,} kept",
        x="training step",
        y="unit",
    )
    axes.grid(False)


def _running_mean(axes: Any, name: str, rate: float, drawn: Sequence[Array], colour: str) -> None:
    """The mean of mask, and of mask / (1 − rate), over the steps so far."""
    kept = np.cumsum([int(np.sum(mask)) for mask in drawn]) / np.cumsum([np.size(mask) for mask in drawn])
    steps = np.arange(1, len(kept) + 1)
    axes.plot(steps, kept / (1 - rate), color=colour, label=f"{name}: scaled by {1 / (1 - rate):g}")
    axes.plot(steps, kept, color=colour, linestyle=":", label=f"{name}: not scaled")
    axes.set_xscale("log")


def _scaling(axes: Any) -> None:
    """Mean outputs measured against the rate, with the scaling and without."""
    rates = np.linspace(0, 0.9, 10)
    plain, scaled = mean_outputs(rates, masks=4000)
    axes.plot(rates, np.ones_like(rates), color=LIGHT, linewidth=4)
    axes.plot(rates, 1 - rates, color=LIGHT, linewidth=4)
    axes.plot(rates, scaled, "o", color=GREEN, label="scaled by 1/(1 − rate)")
    axes.plot(rates, plain, "s", color=GREY, label="not scaled")
    axes.set_ylim(0, 2)
    axes.legend(frameon=False, fontsize=8.5)
    label(axes, title="At any rate: measured (marks) and expected (lines)", x="rate", y="mean output")


def mean_outputs(rates: Array, *, masks: int, units: int = 4, seed: int = 0) -> tuple[Array, Array]:
    """The mean output for inputs of 1 over many masks, without and with the scaling, one value a rate.

    Without, it is the kept fraction, about 1 − rate; with, about 1: what the layer above will get at inference.
    """
    plain, scaled = [], []
    for rate in rates:
        layer = Dropout(float(rate), seed=seed)
        outputs = layer.forward(np.ones((masks, units), np.float32), training=True)
        scaled.append(outputs.mean(dtype=np.float64))
        plain.append(np.mean(outputs != 0))
    return np.array(plain), np.array(scaled)
