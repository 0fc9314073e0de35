"""What a notebook shows: tables as HTML, and learning curves as a figure; and the style of all figures.

No pyplot, no display, no global settings: matplotlib is imported when the first figure is made. Figures have a white
ground of their own, and tables take the page's colours: both are legible on a light and on a dark page.
Colours: Okabe & Ito 2008, told apart by colour-blind eyes.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

DPI = 150
SCREEN_DPI = 96
BLUE, ORANGE, GREEN, GREY, LIGHT = "#0072B2", "#D55E00", "#009E73", "#666666", "#E8E8E8"

# ------------------------------------------------------------------------------------------ notebooks


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this program. IPython is looked up, never imported."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def show(*, html: str, text: str) -> None:
    """Show html in a notebook; text where the front end knows no HTML."""
    from IPython.display import display

    display({"text/html": html, "text/plain": text}, raw=True)


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int, caption: str = "") -> str:
    """A table as HTML, its texts escaped; the last so many columns are numbers, and stand on the right."""
    from html import escape  # slow to import, and seldom needed

    line = "border: 1px solid rgba(128, 128, 128, 0.5)"

    def cells(tag: str, row: Sequence[str]) -> str:
        right = len(row) - numbers
        return "".join(
            f'<{tag} style="{line}; padding: 0.3em 0.7em; text-align: {"left" if i < right else "right"}">'
            f"{escape(cell)}</{tag}>"
            for i, cell in enumerate(row)
        )

    heading = f'<caption style="caption-side: top; text-align: left">{escape(caption)}</caption>' if caption else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<table style="border-collapse: collapse; {line}; color: inherit">{heading}'
        f"<thead><tr>{cells('th', columns)}</tr></thead><tbody>{body}</tbody></table>"
    )


# -------------------------------------------------------------------------------------------- figures


def require_matplotlib() -> None:
    """Raise ImportError, naming the extra, if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the figures need matplotlib, which is not installed ({error}). Run: pip install 'minidl[plot]'"
        ) from error


def has_matplotlib() -> bool:
    """Whether figures can be drawn."""
    try:
        require_matplotlib()
    except ImportError:
        return False
    return True


def new_figure(width: float, height: float, title: str = "") -> Any:
    """An empty figure, sizes in inches; a notebook shows it."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title, fontsize=13, fontweight="bold")
    figure._repr_png_ = functools.partial(png, figure)
    return figure


def png(figure: Any, *, dpi: int = SCREEN_DPI) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def label(axes: Any, *, title: str = "", x: str = "", y: str = "") -> None:
    """Name a panel and its axes, and give it the common style."""
    axes.set_title(title, fontsize=10.5)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Any, axes: Any) -> None:
    """One legend for all panels, outside them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


# ------------------------------------------------------------------------------------ learning curves

PANELS_A_ROW = 3


def curves(history: Mapping[str, Sequence[Any]], epochs: Mapping[str, Sequence[int]], names: Sequence[str]) -> Any:
    """A panel for each of the names, by epoch: name in training, val_name in validation.

    history: name -> a value an epoch, a number or an array; epochs: name -> the numbers of these epochs.
    """
    columns = 2 if len(names) == 4 else min(len(names), PANELS_A_ROW)
    rows = -(-len(names) // columns)
    figure = new_figure(0.7 + 3.6 * columns, 0.6 + 2.9 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in list(panels)[len(names) :]:
        axes.remove()
    for axes, name in zip(figure.axes, names, strict=True):
        for key, colour, style, what in (
            (name, BLUE, "-", "training"),
            (f"val_{name}", ORANGE, "--", "validation"),
        ):
            if key in history:
                values = np.asarray(history[key], dtype=float)
                values = values.reshape(len(values), -1)
                marker = "o" if len(values) <= 10 else None
                lines = axes.plot(epochs[key], values, style, color=colour, marker=marker, markersize=3.5)
                lines[0].set_label(what)
        label(axes, x="epoch", y=name)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    legend_below(figure, figure.axes[0])
    return figure


def image(figure: Any, *, text: str) -> str:
    """A figure as HTML, with the text that stands for it."""
    import base64
    from html import escape  # slow to import, and seldom needed

    data = base64.b64encode(png(figure)).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(text)}" style="max-width: 100%">'
