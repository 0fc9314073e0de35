"""Sequential.summary: Keras's table, by rich."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.checks import positive_int

if TYPE_CHECKING:
    from minidl.models import Model

COLUMN_ENDS = (0.45, 0.80, 1.0)  # of the line, as in Keras
LINE_LENGTH = 88


def print_summary(
    model: Model, *, line_length: int | None = None, print_fn: Callable[[str], Any] | None = None
) -> None:
    """Print the model's layers with output shapes and parameter counts, then the totals with their memory.

    print_fn receives the whole text; by default it goes to the terminal. Source: keras.src.utils.summary_utils.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    if line_length is None:
        line_length = min(LINE_LENGTH, shutil.get_terminal_size().columns - 4)
    width = positive_int("summary", "line_length", line_length)
    ends = [int(end * width) for end in COLUMN_ENDS]
    widths = [ends[0], ends[1] - ends[0], ends[2] - ends[1]]
    if min(widths) < 4:
        raise ValueError(f"summary: line_length={width} is too narrow for the table's three columns.")
    table = Table(
        Column("Layer (type)", width=widths[0]),
        Column("Output Shape", width=widths[1]),
        Column("Param #", width=widths[2], justify="right"),
        width=width,
        show_lines=True,
    )
    for layer in model.layers:
        shape = str(layer.output_shape) if layer.output_shape else "?"
        count = f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"
        table.add_row(f"{escape(layer.name)} ({type(layer).__name__})", shape, count, style=None)

    console = Console(highlight=False, force_terminal=False if print_fn else None)
    with console.capture() as captured:
        console.print(f'[bold]Model: "{escape(model.name)}"[/]')
        console.print(table)
        for line in _totals(model):
            console.print(line)
    if print_fn:
        print_fn(captured.get())
    else:
        print(captured.get(), end="")


def _totals(model: Model) -> list[str]:
    trainable = sum(weight.size for weight in model.weights)
    size = sum(weight.nbytes for weight in model.weights)
    optimizer = model.optimizer.variables if model.compiled and model.optimizer.built else []
    count = sum(variable.size for variable in optimizer)
    memory = sum(np.asarray(variable).nbytes for variable in optimizer)
    lines = [
        _total("Total params", trainable + count, size + memory),
        _total("Trainable params", trainable, size),
        _total("Non-trainable params", 0, 0),
    ]
    return [*lines, _total("Optimizer params", count, memory)] if optimizer else lines


def _total(name: str, count: int, memory: float) -> str:
    units = ["B", "KB", "MB", "GB", "TB", "PB"]
    while memory >= 1024 and len(units) > 1:
        memory /= 1024
        units.pop(0)
    return f"[bold] {name}: [/]{count:,} ({memory:.2f} {units[0]})"
