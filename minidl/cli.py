"""The command `minidl`. Exit status: 0 all is well, 1 the verdict is bad, 2 the command could not be run."""

from __future__ import annotations

import contextlib
import enum
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Epochs of each peer that are timed, at most.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, help="What the whole may take, about.")] = 60,
) -> None:
    """Time a training step in minidl and in those of its peers that are installed, each in its own process.

    Exit status 1 if a peer fails or computes something else.
    """
    from minidl.bench import run

    raise typer.Exit(0 if run(_console(), rounds=rounds, seconds=seconds) else 1)


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


class Backend(enum.StrEnum):
    """Keras's."""

    tensorflow = "tensorflow"
    jax = "jax"
    torch = "torch"


MODEL = Annotated[
    str | None,
    typer.Argument(help="A .keras file, or module:function that returns a compiled model.", show_default=False),
]
DATA = Annotated[Path | None, typer.Option(help="An .npz file with x, y and, if wanted, sample_weight.")]
SYNTHETIC = Annotated[int, typer.Option(min=1, help="Without --data: so many rows made up.")]
BACKEND = Annotated[Backend | None, typer.Option(help="Keras's backend; KERAS_BACKEND, or tensorflow, if not given.")]
JIT = Annotated[bool, typer.Option("--jit", help="Compile with XLA: jit_compile=True.")]
EAGER = Annotated[bool, typer.Option("--eager", help="Run eagerly: run_eagerly=True.")]
EPOCHS = Annotated[int, typer.Option(min=1, help="Of the fit.")]
BATCH_SIZE = Annotated[int, typer.Option(min=1, help="Of the fit.")]
SEED = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="For keras.utils.set_random_seed.")]


@app.command()
def check(
    model: MODEL = None,
    trace: Annotated[Path | None, typer.Option(help="Judge a recorded training; needs no Keras.")] = None,
    data: DATA = None,
    synthetic: SYNTHETIC = 256,
    backend: BACKEND = None,
    jit: JIT = False,
    eager: EAGER = False,
    epochs: EPOCHS = 1,
    batch_size: BATCH_SIZE = 32,
    seed: SEED = 0,
    initial_weights: Annotated[
        bool, typer.Option("--initial-weights", help="The weights are as the initializers drew them: check these too.")
    ] = False,
    drift: Annotated[
        bool | None, typer.Option(help="Let minidl train alone too, and draw the drift; done where --report is given.")
    ] = None,
    minimise: Annotated[
        bool, typer.Option("--minimise", help="Of a divergence, print the smallest script that still has it.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write the report as an HTML page.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
) -> None:
    """Is what Keras computes in its own fit of MODEL right, and if not, where does it first go wrong?

    Exit status 0: right, 1: divergent, 2: could not be checked.
    """
    for option, path in (("--report", report), ("--json", json)):
        if path is not None:
            _make_writable(path.parent, option)
    if (model is None) == (trace is None):
        raise typer.BadParameter("give either a MODEL or a --trace.")
    with _told("check"), _progress("checking") as progress:
        if trace is not None:
            from minidl.oracle.tracefile import check_trace

            found = check_trace(trace, progress)
        else:
            found = _training(str(model), data, synthetic, backend, jit, eager, seed).check(
                epochs=epochs,
                batch_size=batch_size,
                initial_weights=initial_weights,
                progress=progress,
                drift=report is not None if drift is None else drift,
            )
            if found.first_divergence is not None and (minimise or report is not None):
                _reproduce(found, minimise)
        if json is not None:
            found.to_json(json)
        if report is not None:
            found.to_html(report)
    _console().print(found)
    if minimise and found.first_divergence is not None:
        typer.echo(f"{found.first_divergence.script_result}\n{found.first_divergence.script or ''}")
    for path in (report, json):
        if path is not None:
            typer.echo(f"written: {path}")
    raise typer.Exit(0 if found.ok else 1 if found.first_divergence else 2)


@app.command()
def record(
    model: MODEL,
    out: Annotated[Path, typer.Argument(help="The trace, an .npz file.")] = Path("trace.npz"),
    data: DATA = None,
    synthetic: SYNTHETIC = 256,
    backend: BACKEND = None,
    jit: JIT = False,
    eager: EAGER = False,
    epochs: EPOCHS = 1,
    batch_size: BATCH_SIZE = 32,
    seed: SEED = 0,
) -> None:
    """Record what Keras computes in its own fit of MODEL, for `minidl check --trace` and `minidl diff`."""
    _make_writable(out.parent, "OUT")
    with _told("record"), _progress("recording") as progress:
        training = _training(str(model), data, synthetic, backend, jit, eager, seed)
        steps = training.record(out, epochs=epochs, batch_size=batch_size, progress=progress)
    typer.echo(f"{steps} steps recorded: {out}, {out.with_suffix('.json')}")


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A trace of `minidl record`.")],
    b: Annotated[Path, typer.Argument(help="Another, of the same model and data.")],
    json: Annotated[Path | None, typer.Option(help="Write the comparison as JSON.")] = None,
) -> None:
    """Where do two recorded trainings part: of two versions of Keras, two backends, two machines?

    Exit status 0: equal, or apart by what rounding explains; 1: not so; 2: could not be compared.
    """
    if json is not None:
        _make_writable(json.parent, "--json")
    with _told("diff"):
        from minidl.oracle.difference import diff as compare

        found = compare(a, b)
        if json is not None:
            found.to_json(json)
    _console().print(found)
    raise typer.Exit(0 if found.ok else 1)


def _reproduce(report: Any, minimise: bool) -> None:
    """Give the report's first divergence a script for Keras alone, of the smallest case that has it if so wished."""
    from minidl.oracle import minimise as minimising
    from minidl.oracle import reproduce

    case = None
    if minimise:
        with contextlib.suppress(ValueError), _progress("minimising") as progress:
            whole, own = reproduce.diverging(report)
            case = minimising.Minimiser(whole, own.quantity, progress=progress).run()
    reproduce.reproduce(report, case)


def _training(
    spec: str, data: Path | None, synthetic: int, backend: Backend | None, jit: bool, eager: bool, seed: int
) -> Any:
    from minidl.oracle.subject import Training

    return Training(
        spec, data=data, synthetic=synthetic, backend=backend and backend.value, jit=jit, eager=eager, seed=seed
    )


@contextlib.contextmanager
def _told(command: str) -> Iterator[None]:
    """Inside, what keeps the command from being run is said in one paragraph, with exit status 2."""
    try:
        yield
    except Exception as error:
        from minidl.oracle.recorder import CannotCheck

        expected = (CannotCheck, ImportError, NotImplementedError, OSError, TypeError, ValueError)
        said = str(error) if isinstance(error, expected) else f"{type(error).__name__}: {error}"
        typer.echo(f"minidl {command}: {said}", err=True)
        raise typer.Exit(2) from None


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal's error stream, where there is one; yields a function of the steps done and in all."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield progress


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):  # a log that cannot hold ± or λ gets a question mark
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="minidl")
