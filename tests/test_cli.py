"""The command line: exit statuses, messages, and that bad input is refused before any work."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import minidl
from minidl import cli, demo

ROOT = Path(__file__).parents[1]


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def plain(text):
    """Text without typer's frame and line breaks."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture
def calls(monkeypatch):
    """Calls of the demo, which then does nothing and finds that all is well."""
    seen = []

    def run(out, console, **options):
        seen.append((out, options))
        return True

    monkeypatch.setattr(demo, "run", run)
    return seen


def test_version():
    result = invoke("--version")
    assert (result.exit_code, result.output) == (0, f"minidl {minidl.__version__}\n")


def test_module_and_command_are_the_same_program():
    run = subprocess.run([sys.executable, "-m", "minidl", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"minidl {minidl.__version__}\n", "")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"minidl": "minidl.cli:main"}
    assert "from minidl.cli import main" in (ROOT / "minidl" / "__main__.py").read_text(encoding="utf-8")


def test_without_a_command_it_shows_help():
    result = invoke()
    assert "demo" in result.output
    assert "--version" in result.output


def test_demo_passes_its_options_on(calls, tmp_path):
    out = tmp_path / "deep" / "figures"
    result = invoke("demo", "--out", out, "--live", "--seeds", 12, "--all-epochs")
    assert result.exit_code == 0, result.output
    assert calls == [(out, {"live": True, "seeds": 12, "all_epochs": True})]
    assert out.is_dir()
    assert list(out.iterdir()) == []


def test_demo_defaults(calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("demo").exit_code == 0
    assert calls == [(Path("demo-out"), {"live": False, "seeds": 10, "all_epochs": False})]


def test_exit_status_1_if_the_verdict_is_bad(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "run", lambda *args, **options: False)
    assert invoke("demo", "--out", tmp_path).exit_code == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["demo", "--seeds", "0"], "greater than or equal to 1"),
        (["demo", "--seeds", "1001"], "less than or equal to 1000"),
        (["demo", "--seeds", "two"], "--seeds"),
        (["demo", "--outt", "x"], "--outt"),
        (["demo", "--live=yes"], "--live"),
        (["demo", "more"], "more"),
        (["dmo"], "dmo"),
    ],
)
def test_wrong_arguments(calls, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in plain(result.output)
    assert calls == []
    assert list(tmp_path.iterdir()) == []


def test_out_that_is_a_file(calls, tmp_path):
    file = tmp_path / "figures"
    file.write_text("mine")
    result = invoke("demo", "--out", file)
    assert result.exit_code == 2
    assert "is a file; a directory is expected" in plain(result.output)
    assert calls == []
    assert file.read_text() == "mine"


def test_out_below_a_file(calls, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = invoke("demo", "--out", tmp_path / "file" / "figures")
    assert result.exit_code == 2
    assert "cannot write to" in plain(result.output)
    assert calls == []


def test_out_that_cannot_be_written_to(calls, tmp_path, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cli.tempfile, "TemporaryFile", refuse)  # modes do not bind every user
    result = invoke("demo", "--out", tmp_path)
    assert result.exit_code == 2
    assert "Permission denied" in plain(result.output)
    assert calls == []


def run_without(package, *arguments):
    """The program in a Python where the package cannot be imported."""
    program = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['minidl', *{[str(a) for a in arguments]!r}]; "
        f"from minidl.cli import main; main()"
    )
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "package, options, extra",
    [("keras", ["--live"], "keras"), ("tensorflow", ["--live"], "keras"), ("matplotlib", [], "plot")],
)
def test_a_missing_extra_is_named_before_any_training(package, options, extra, tmp_path):
    if package == "tensorflow":
        pytest.importorskip("keras", reason="without keras, tensorflow is not reached")
    run = run_without(package, "demo", "--out", tmp_path, *options)
    assert run.returncode == 2, run.stderr
    assert f"pip install 'minidl[{extra}]'" in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_hold_the_signs_gets_question_marks(tmp_path):
    program = (
        "import sys; from minidl import demo; "
        "demo.run = lambda out, console, **options: console.print('λ ± 1') or True; "
        f"sys.argv = ['minidl', 'demo', '--out', {str(tmp_path)!r}]; from minidl.cli import main; main()"
    )
    run = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", program],
        cwd=ROOT, capture_output=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""},
    )  # fmt: skip
    assert (run.returncode, run.stdout.splitlines()) == (0, [b"? ? 1"]), run.stderr
