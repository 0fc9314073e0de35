"""Sequential.summary: Keras's table, by rich."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.checks import positive_int

if TYPE_CHECKING:
    from minidl.layers import Layer
    from minidl.models import Model

COLUMN_ENDS = (0.45, 0.80, 1.0)  # of the line, as in Keras
LINE_LENGTH = 88


def print_summary(
    model: Model,
    *,
    line_length: int | None = None,
    positions: list[float] | None = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: list[str] | None = None,
) -> None:
    """Print the model's layers with output shapes and parameter counts, then the totals with their memory.

    positions: where the columns end, as shares of the line. print_fn receives the whole text; by default it goes to
    the terminal. expand_nested: with the layers of the models within this one. show_trainable: with a column that says
    which layers training updates. layer_range: names or patterns of the first and the last layer to print.
    Errors: ValueError for a line that is too narrow, or a layer_range that no layers match.
    Source: keras.src.utils.summary_utils.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    ends = list(COLUMN_ENDS if positions is None else positions)
    heads = [("Layer (type)", "left"), ("Output Shape", "left"), ("Param #", "right")]
    if show_trainable:
        ends = [end * 0.9 for end in ends] + [1.0]
        heads.append(("Trainable", "center"))
    if len(ends) != len(heads):
        raise ValueError(
            f"summary: positions must be {len(heads) - show_trainable} ends of columns; got {positions!r}."
        )
    if line_length is None:
        widest = LINE_LENGTH + (12 if show_trainable else 0)
        line_length = min(widest, shutil.get_terminal_size().columns - 4)
    width = positive_int("summary", "line_length", line_length)
    stops = [int(end * width) for end in ends]
    widths = [stop - start for start, stop in zip([0, *stops], stops, strict=False)]
    if min(widths) < 4:
        raise ValueError(f"summary: line_length={width} is too narrow for the table's {len(widths)} columns.")
    columns = [Column(head, width=w, justify=justify) for (head, justify), w in zip(heads, widths, strict=True)]  # type: ignore[arg-type]
    table = Table(*columns, width=width, show_lines=True)
    for layer, depth in _rows(_in_range(model.layers, layer_range), 0 if expand_nested else None):
        prefix = "   " * depth + "└ " if depth else ""
        shape = str(layer.output_shape) if layer.built and layer.output_shape else "?"
        count = f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"
        fields = [f"{escape(prefix + layer.name)} ({escape(type(layer).__name__)})", shape, count]
        if show_trainable:
            has_weights = layer.built and layer.weights
            fields.append(f"[bold]{'-' if not has_weights else 'Y' if layer.trainable else 'N'}[/]")
        table.add_row(*fields)

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


def _rows(layers: list[Layer], depth: int | None) -> Iterator[tuple[Layer, int]]:
    """Each layer with its depth; where depth is not None, after a model its own layers."""
    for layer in layers:
        yield layer, depth or 0
        if depth is not None:
            yield from _rows(getattr(layer, "layers", []), depth + 1)


def _in_range(layers: list[Layer], layer_range: list[str] | None) -> list[Layer]:
    """The layers from the first that the first pattern matches to the last that the second one matches."""
    if layer_range is None:
        return layers
    if len(layer_range) != 2 or not all(isinstance(pattern, str) for pattern in layer_range):
        raise ValueError(f"summary: layer_range must be two names of layers, or patterns; got {layer_range!r}.")
    first, last = ([i for i, layer in enumerate(layers) if re.match(one, layer.name)] for one in layer_range)
    if not first or not last:
        names = [layer.name for layer in layers]
        raise ValueError(f"summary: layer_range={layer_range!r} matches none of the layers {names}.")
    if min(first) > max(last):
        return layers[min(last) : max(first) + 1]
    return layers[min(first) : max(last) + 1]


def _totals(model: Model) -> list[str]:
    optimizer = model.optimizer.variables if model.compiled and model.optimizer.built else []
    kinds = [model.trainable_weights, model.non_trainable_weights, optimizer]
    counts = [sum(np.size(array) for array in arrays) for arrays in kinds]
    memory = [sum(np.asarray(array).nbytes for array in arrays) for arrays in kinds]
    lines = [
        _total("Total params", sum(counts), sum(memory)),
        _total("Trainable params", counts[0], memory[0]),
        _total("Non-trainable params", counts[1], memory[1]),
    ]
    return [*lines, _total("Optimizer params", counts[2], memory[2])] if optimizer else lines


def _total(name: str, count: int, memory: float) -> str:
    units = ["B", "KB", "MB", "GB", "TB", "PB"]
    while memory >= 1024 and len(units) > 1:
        memory /= 1024
        units.pop(0)
    return f"[bold] {name}: [/]{count:,} ({memory:.2f} {units[0]})"
