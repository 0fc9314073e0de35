"""The command `minidl`. Exit status: 0 all is well, 1 the verdict is bad, 2 the command could not be run."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import minidl

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

LOG_WIDTH = 150  # columns of tables where no terminal says how many there are


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"minidl {minidl.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """A small multilayer perceptron in plain NumPy, with Keras's names and Keras's numbers."""


def _make_writable(path: Path, option: str) -> None:
    """Make the directory where it is missing. Errors: BadParameter if no file can be written there."""
    if path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file; a directory is expected.", param_hint=option)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise typer.BadParameter(f"cannot write to {path}: {error.strerror}.", param_hint=option) from error


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else LOG_WIDTH)


@app.command()
def doctor() -> None:
    """What minidl runs on here, how fast that is, and what to set where it could be faster.

    Exit status 1 if there is something to mend.
    """
    from minidl.doctor import run

    raise typer.Exit(0 if run(_console()) else 1)


@app.command()
def bench(
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Epochs of each peer that are timed.")] = 5,
) -> None:
    """Time a training step in minidl and in those of its peers that are installed, each in its own process.

    Exit status 1 if a peer fails or computes something else.
    """
    from minidl.bench import run

    raise typer.Exit(0 if run(_console(), rounds=rounds) else 1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The directory for figures and tables.")] = Path("demo-out"),
    live: Annotated[bool, typer.Option("--live", help="Run Keras now, instead of its recorded training.")] = False,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each variant of the study.")] = 10,
    all_epochs: Annotated[bool, typer.Option("--all-epochs", help="Print a row for every epoch.")] = False,
) -> None:
    """Train the notebook's two models beside Keras, then study over-fitting; tables and figures.

    Exit status 1 if minidl and Keras disagree by more than rounding explains.
    """
    from minidl.demo import run

    _make_writable(out, "--out")
    try:
        ok = run(out, _console(), live=live, seeds=seeds, all_epochs=all_epochs)
    except ImportError as error:
        typer.echo(f"minidl demo: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(0 if ok else 1)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):  # a log that cannot hold ± or λ gets a question mark
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="minidl")
