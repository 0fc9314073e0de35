"""Keras's table of a model's layers: as text by rich, as HTML for notebooks. Source: keras.src.utils.summary_utils."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import display
from minidl.checks import positive_int
from minidl.layers import Layer

if TYPE_CHECKING:
    from minidl.models import Model

COLUMNS = ("Layer (type)", "Output Shape", "Param #")
COLUMN_ENDS = (0.45, 0.80, 1.0)  # of the line, as in Keras
LINE_LENGTH = 88
TRAINABLE_LENGTH = 12  # more for the column "Trainable"


def print_summary(
    model: Model,
    *,
    line_length: int | None = None,
    positions: Sequence[float] | None = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> None:
    """Print the model's layers with output shapes and parameter counts, then the totals with their memory.

    line_length: in characters; positions: where each column ends, as fractions of it. print_fn receives the whole
    text; by default it goes to the terminal, and in a notebook a table of HTML. expand_nested: the layers of models
    within the model too. show_trainable: Y or N for each layer with weights. layer_range: the names, or regular
    expressions, of the first and the last layer to show.
    Errors: ValueError for a line too narrow for its columns, and for names that no layer has.
    """
    rows = list(_rows(model, expand_nested, show_trainable, layer_range))
    length = LINE_LENGTH + TRAINABLE_LENGTH * show_trainable
    ends = COLUMN_ENDS if positions is None else tuple(positions)
    if len(ends) != len(COLUMN_ENDS):
        raise ValueError(f"summary: positions must have one end for each of {COLUMNS}; got {positions!r}.")
    if show_trainable:
        ends = (*(0.9 * end for end in ends), 1.0)
    if line_length is None:
        import shutil  # slow to import, and seldom needed

        line_length = min(length, shutil.get_terminal_size().columns - 4)
    width = positive_int("summary", "line_length", line_length)
    widths = list(np.diff([0, *(int(end * width) for end in ends)]))
    if min(widths) < 4:
        raise ValueError(f"summary: line_length={width} is too narrow for the table's {len(ends)} columns.")
    text = _text(model, rows, widths, width, plain=print_fn is not None)
    if print_fn:
        print_fn(text)
    elif display.in_notebook():
        display.show(html=_html(model, rows), text=text)
    else:
        print(text, end="")


def html_summary(model: Model) -> str:
    """The table as HTML, names escaped."""
    return _html(model, list(_rows(model, False, False, None)))


def _rows(model: Any, expand: bool, show_trainable: bool, layer_range: Any, level: int = 0) -> Iterator[list[str]]:
    """The cells of each line: name and type, output shape, number of parameters, and whether they are trained."""
    for layer in model.layers[_between(model.layers, layer_range)]:
        name = f"{'   ' * level + '└ ' if level else ''}{layer.name} ({type(layer).__name__})"
        count = f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"
        row = [name, str(layer.output_shape) if layer.built and layer.output_shape else "?", count]
        if show_trainable:
            row.append(("Y" if layer.trainable else "N") if layer.built and layer.weights else "-")
        yield row
        if expand and hasattr(layer, "layers"):
            yield from _rows(layer, expand, show_trainable, None, level + 1)


def _between(layers: list[Layer], layer_range: Any) -> slice:
    if layer_range is None:
        return slice(None)
    if not isinstance(layer_range, (list, tuple)) or [type(name) for name in layer_range] != [str, str]:
        raise ValueError(
            f"summary: layer_range must be two names, of the first and the last layer; got {layer_range!r}."
        )
    found = [[i for i, layer in enumerate(layers) if re.match(name, layer.name)] for name in layer_range]
    if not all(found):
        raise ValueError(
            f"summary: layer_range={layer_range!r} matches no layer; there are {[layer.name for layer in layers]}."
        )
    first, last = found
    if min(first) > max(last):
        first, last = last, first
    return slice(min(first), max(last) + 1)


def _text(model: Model, rows: list[list[str]], widths: list[int], width: int, *, plain: bool) -> str:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    columns = [Column(name, width=size) for name, size in zip((*COLUMNS, "Trainable"), widths, strict=False)]
    columns[2].justify = "right"
    for column in columns[3:]:
        column.justify = "center"
    table = Table(*columns, width=width, show_lines=True)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(highlight=False, force_terminal=False if plain else None, force_jupyter=False)
    with console.capture() as captured:
        console.print(f'[bold]Model: "{escape(model.name)}"[/]')
        console.print(table)
        for name, value in _totals(model):
            console.print(f"[bold] {name}: [/]{value}")
    return captured.get()


def _html(model: Model, rows: list[list[str]]) -> str:
    columns = (*COLUMNS, "Trainable")[: len(rows[0]) if rows else len(COLUMNS)]
    totals = "<br>".join(f"<b>{name}:</b> {value}" for name, value in _totals(model))
    table = display.html_table(columns, rows, numbers=len(columns) - 2, caption=f'Model: "{model.name}"')
    return f"<div>{table}<p>{totals}</p></div>"


def _totals(model: Model) -> list[tuple[str, str]]:
    """What is counted -> how many, and their memory; the optimizer's where it has state."""
    trainable, frozen = (_size(weights) for weights in (model.trainable_weights, model.non_trainable_weights))
    optimizer = _size(model.optimizer.variables if model.compiled and model.optimizer.built else [])
    found = [
        ("Total params", np.sum([trainable, frozen, optimizer], axis=0)),
        ("Trainable params", trainable),
        ("Non-trainable params", frozen),
        *([("Optimizer params", optimizer)] if optimizer[0] else []),
    ]
    return [(name, f"{count:,} ({_memory(size)})") for name, (count, size) in found]


def _size(arrays: list[Any]) -> tuple[int, int]:
    """How many numbers, and how many bytes."""
    return sum(math.prod(np.shape(array)) for array in arrays), sum(np.asarray(array).nbytes for array in arrays)


def _memory(size: float) -> str:
    units = ["B", "KB", "MB", "GB", "TB", "PB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.2f} {units[0]}"
