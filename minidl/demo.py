"""`minidl demo`: the notebook's two models beside Keras, then the over-fitting study; tables, figures, a verdict."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from minidl import display, plots, study
from minidl.backend import Array
from minidl.layers import Dropout
from minidl.oracle import notebook
from minidl.oracle.compare import Comparison, compare

ROWS = 12  # epochs that a table on the screen shows, unless all are asked for
HISTORY = ("loss", "accuracy", "val_loss", "val_accuracy")
MODEL_SHARE = 10  # of the progress bar: comparing a model takes about as long as ten runs of the study
FIGURES = ("learning-curves.png", "over-fitting.png", "l1-and-l2.png", "dropout.png")


def run(out: Path, console: Console, *, live: bool = False, seeds: int = 10, all_epochs: bool = False) -> bool:
    """The whole demo: prints to console, writes into the directory out; whether minidl and Keras agree.

    live: run Keras instead of reading its recorded traces. seeds: runs of each variant of the study.
    Errors: ImportError, naming the extra, without matplotlib, or with live without Keras; before minidl trains.
    """
    display.require_matplotlib()
    models = list(notebook.MODELS)
    with _progress(console) as progress:
        task = progress.add_task("", total=MODEL_SHARE * len(models) + len(study.VARIANTS) * seeds + 1)

        def tell(what: str) -> None:
            progress.update(task, description=what)

        tell("running Keras" if live else "reading what Keras computed")
        traces = {name: notebook.record_live(name) if live else notebook.recorded(name) for name in models}
        comparisons = {}
        for name, trace in traces.items():
            tell(name)
            comparisons[name] = compare(trace, notebook.MODELS[name], *notebook.data(), progress=tell)
            print_comparison(console, name, comparisons[name], live=live, all_epochs=all_epochs)
            write_differences(out / differences_file(name), comparisons[name])
            progress.advance(task, MODEL_SHARE)

        tell("over-fitting study")
        runs = study.run(range(seeds), progress=lambda: progress.advance(task))
        print_study(console, runs)
        tell("figures")
        write_figures(out, comparisons, runs, live=live)
    console.print(f"\nWritten to {out}:", style="bold", markup=False)
    console.print(", ".join([*FIGURES, *map(differences_file, models)]))
    return print_verdict(console, comparisons)


def _progress(console: Console) -> Progress:
    """A bar on a terminal, gone at the end; nothing in a log."""
    return Progress(
        SpinnerColumn(),
        BarColumn(bar_width=30),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _headline(console: Console, text: str) -> None:
    console.print()
    console.rule(text, align="left")


# ------------------------------------------------------------------------- one model beside Keras


def print_comparison(console: Console, name: str, comparison: Comparison, *, live: bool, all_epochs: bool) -> None:
    """Everything about one model: its history beside Keras's, the differences, the checks and the verdict."""
    trace = comparison.trace
    versions = trace.versions
    _headline(console, f"The notebook's model with {name}")
    console.print(
        f"Keras {versions['keras']} on TensorFlow {versions['tensorflow']}, {'run now' if live else 'recorded'}; "
        f"seed {trace.settings['seed']}, {trace.settings['epochs']} epochs in batches of "
        f"{trace.settings['batch_size']}.",
        markup=False,
    )
    epochs = range(trace.settings["epochs"]) if all_epochs else some_epochs(trace.settings["epochs"], ROWS)
    console.print(history_table(comparison, epochs))
    console.print(differences_table(comparison, epochs))
    if len(epochs) < trace.settings["epochs"]:
        console.print(f"Every epoch: {differences_file(name)}, or --all-epochs.\n", style="dim", markup=False)
    console.print(worst_table(comparison))
    console.print(
        "These differences are shown, not judged: both train alone from the seed, and each step passes the rounding of "
        "the ones before on. A weight near 0 has small ULPs, so a small difference can be many of them. What is judged "
        "is the random numbers, and every step by itself, taken again from Keras's own weights:\n"
    )
    for check in comparison.checks:
        console.print(
            f"  {'PASS' if check.ok else 'FAIL'}  {check.name}: {check.text}",
            style="green" if check.ok else "bold red",
            markup=False,
        )
    difference = f"{comparison.history_difference:.1e}"
    console.print(f"  shown history: difference ≤ {difference} in every figure of every epoch", markup=False)


def some_epochs(epochs: int, rows: int) -> Sequence[int]:
    """At most rows epochs, counted from 0, evenly spread: the first and the last among them."""
    return np.unique(np.linspace(0, epochs - 1, min(rows, epochs)).round().astype(int)).tolist()


def history_table(comparison: Comparison, epochs: Sequence[int]) -> Table:
    """Loss and accuracy, in training and validation, beside those of Keras."""
    table = _table("Loss (nats, penalties included) and accuracy after the epoch")
    table.padding = 0  # fits 80 columns
    table.add_column("epoch", justify="right")
    for metric in HISTORY:
        for who in ("minidl", "Keras"):
            heading = metric.replace("val_acc", "val_\nacc")
            table.add_column(f"{heading}\n{who}", justify="right")
    ours, keras = comparison.history, comparison.trace.history
    for epoch in epochs:
        values = [
            f"{history[metric][epoch]:.{4 if 'accuracy' in metric else 6}f}"
            for metric in HISTORY
            for history in (ours, keras)
        ]
        table.add_row(str(epoch + 1), *values)
    return table


def differences_table(comparison: Comparison, epochs: Sequence[int]) -> Table:
    """The largest difference of each tensor after each epoch, in ULPs and absolute."""
    table = _table("The largest difference of each tensor after the epoch: in ULPs, and absolute")
    table.add_column("epoch", justify="right")
    for tensor in comparison.tensors:
        table.add_column(tensor.replace("/", "/\n"), justify="right", overflow="fold")
    table.add_column("largest", justify="right", overflow="fold", style="bold")
    for epoch in epochs:
        ulps, absolute = comparison.drift_ulps[epoch], comparison.drift_abs[epoch]
        cells = [*map(difference, ulps, absolute), difference(ulps.max(), absolute.max())]
        table.add_row(str(epoch + 1), *cells)
    return table


def worst_table(comparison: Comparison) -> Table:
    """Each tensor's worst difference of all epochs and that after the last one, and what rounding alone does."""
    table = _table("Of all epochs")
    for heading in ("tensor", "worst", "after the last epoch", "minidl's float32 from its own float64, worst"):
        table.add_column(heading, justify="left" if heading == "tensor" else "right")
    for tensor, ulps, absolute, rounding in zip(
        comparison.tensors,
        comparison.drift_ulps.T,
        comparison.drift_abs.T,
        comparison.drift_of_rounding.T,
        strict=True,
    ):
        worst, last = difference(ulps.max(), absolute.max()), difference(ulps[-1], absolute[-1])
        table.add_row(tensor, worst, last, f"{rounding.max():.1e}")
    return table


def difference(ulps: float, absolute: float) -> str:
    """A difference for a table: "3 ulp 2.4e-07", or "0"."""
    if absolute == 0:
        return "0"
    return f"{ulps:.0f} ulp {absolute:.1e}" if ulps < 1e5 else f"{ulps:.0e} ulp {absolute:.1e}"


def differences_file(name: str) -> str:
    """The name of the file for a model's differences: "L1 and L2" -> differences-l1-and-l2.csv."""
    return f"differences-{re.sub(r'[^a-z0-9]+', '-', name.lower())}.csv"


def write_differences(path: Path, comparison: Comparison) -> None:
    """A row for every epoch and tensor; the file appears whole or not at all."""
    with plots.replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "tensor", "ulp", "absolute", "float32_from_float64"])
        for epoch in range(len(comparison.drift_abs)):
            for i, tensor in enumerate(comparison.tensors):
                figures = (comparison.drift_ulps, comparison.drift_abs, comparison.drift_of_rounding)
                writer.writerow([epoch + 1, tensor, *(float(figure[epoch, i]) for figure in figures)])


def print_verdict(console: Console, comparisons: dict[str, Comparison]) -> bool:
    """One sentence a model, green or red; whether all are well."""
    _headline(console, "Verdict")
    for name, comparison in comparisons.items():
        console.print(
            f"{'PASS' if comparison.ok else 'FAIL'}  {name}: {comparison.verdict}",
            style="bold green" if comparison.ok else "bold red",
            markup=False,
        )
    return all(comparison.ok for comparison in comparisons.values())


# --------------------------------------------------------------------------- the over-fitting study


def print_study(console: Console, runs: study.Study) -> None:
    """The set-up and the table of the study."""
    _headline(console, "Over-fitting")
    console.print(study.SETUP, markup=False)
    console.print(study_table(runs))
    console.print(
        "Losses and accuracy are those after the last epoch; the gap is validation loss − train loss; the best epoch "
        f"has the lowest validation loss. Near zero is |w| < {study.NEAR_ZERO:g}. Adam steps back and forth across "
        "0, so L1 leaves weights that are small, not exactly zero.",
        markup=False,
    )


def study_table(runs: study.Study) -> Table:
    """A column for each variant: losses, gap, best epoch, accuracy and small weights, mean ± standard deviation."""
    seeds, weights = next(iter(runs.values())).kernels.shape
    table = _table(f"{seeds} seeds: mean ± standard deviation" if seeds > 1 else "1 seed")
    table.add_column("")
    for variant in runs.values():
        table.add_column(variant.title, justify="right")
    rows: dict[str, Callable[[study.Runs], tuple[Array, int]]] = {
        "train loss": lambda r: (r.train_loss[:, -1], 3),
        "validation loss": lambda r: (r.validation_loss[:, -1], 3),
        "gap": lambda r: (r.gap, 3),
        "best epoch": lambda r: (r.best_epoch, 0),
        "validation accuracy": lambda r: (r.validation_accuracy[:, -1], 3),
        f"near zero, of {weights}": lambda r: (r.near_zero, 0),
        "exact zeros": lambda r: (r.exact_zeros, 0),
    }
    for label, quantity in rows.items():
        table.add_row(label, *(mean_and_spread(*quantity(variant)) for variant in runs.values()))
    return table


def mean_and_spread(values: Array, digits: int) -> str:
    """The mean and the sample standard deviation, "0.872 ± 0.091"; of one value, only itself."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


# --------------------------------------------------------------------------------------- the figures


def write_figures(out: Path, comparisons: dict[str, Comparison], runs: study.Study, *, live: bool) -> None:
    """The four figures as PNG files in out."""
    histories = {name: (c.history, c.trace.history) for name, c in comparisons.items()}
    # of the model with the most dropout layers; (rate, masks) by layer
    dropped = max(comparisons.values(), key=lambda c: len(c.masks))
    rates = {layer.name: layer.rate for layer in dropped.model.layers if isinstance(layer, Dropout)}
    masks = {layer: (rates[layer], drawn) for layer, drawn in dropped.masks.items()}
    figures = (
        plots.learning_curves(histories, keras_label="Keras, live" if live else "Keras, recorded"),
        plots.over_fitting(runs),
        plots.l1_and_l2(runs, near_zero=study.NEAR_ZERO),
        plots.dropout(masks),
    )
    for name, figure in zip(FIGURES, figures, strict=True):
        plots.save(figure, out / name)
