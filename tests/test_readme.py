"""Every code block of the README runs, every command is a task of the Makefile, every name and link exists."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minidl import ops

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code for language, code in BLOCKS if language == "sh"]


def test_every_block_is_run_here():
    assert len(PYTHON) == 5 and len(SHELL) == 1 and len(BLOCKS) == 7


def test_the_notebook_block_trains(capsys):
    found = {}
    exec(PYTHON[0], found)
    loss = found["history"].history["loss"]
    assert len(loss) == 20 and loss[-1] < loss[0]
    assert np.isfinite(found["dropout_model"].get_weights()[0]).all()
    assert "Total params" in capsys.readouterr().out


def test_the_block_with_scikit_learn_finds_a_network(capsys):
    pytest.importorskip("sklearn")
    found = {}
    exec(PYTHON[1], found)
    assert found["search"].best_score_ > 0.8
    assert "mlpclassifier__l2" in capsys.readouterr().out


def test_the_block_on_a_gpu_trains_where_there_is_none_too():
    found = {}
    exec(PYTHON[2], found)
    assert found["network"].optimizer.iterations == 5 * 9


def test_the_block_on_files_reads_what_it_wrote(tmp_path, monkeypatch):
    pytest.importorskip("h5py")
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(PYTHON[3], found)
    assert found["model"].compiled and found["model"].count_params() == 49
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras", "model.safetensors", "model.weights.h5"]


def test_the_comparison_block_agrees(capsys):
    exec(PYTHON[4], {})
    printed = capsys.readouterr().out
    assert printed.count("minidl computes what Keras computes") == 2
    assert "bit-equal (213600 of 213600 draws)" in printed


@pytest.mark.parametrize("command", SHELL[0].split("\n")[:-1])
def test_every_command_is_a_task(command):
    dry = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr
    assert "-m minidl demo" in dry.stdout or "-m pytest" in dry.stdout


def test_the_commands_of_the_oracle_are_those_of_the_command_line():
    from typer.testing import CliRunner

    from minidl.cli import app

    (console,) = (code for language, code in BLOCKS if language == "console")
    for line in console.splitlines():
        for command, *arguments in re.findall(r"minidl (\w+)([^&\n]*)", line):
            text = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
            for option in re.findall(r"--[a-z-]+", " ".join(arguments)):
                assert option in text, (command, option)


def test_every_formula_of_the_table_is_in_ops():
    table = README.split("## Where each formula lives")[1].split("\n\n")[2]
    names = [name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z_0-9]+)`", row.split(" | ")[1])]
    public = [
        name
        for name, value in vars(ops).items()
        if callable(value) and getattr(value, "__module__", "") == "minidl.ops" and name[0] != "_"
    ]
    assert sorted(names) == sorted(public)


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
