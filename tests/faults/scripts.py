"""The scripts of planted faults: made under the fault, run under it and without it, in another process.

python -m faults.scripts make NAME … > FILE writes them, python -m faults.scripts run < FILE says what came of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from faults.catalogue import FAULTS, Fault
from faults.running import checked, planted

ROOT = Path(__file__).parents[2]


def made(keras: Any, tf: Any, fault: Fault) -> tuple[list[str], str]:
    """The programs with which the oracle tries to show a fault in Keras alone, and the quantity that diverges."""
    from minidl.oracle import reproduce

    with planted(keras, tf, fault):
        report = checked(keras, fault)
        first = report.first_divergence
        return ([], "") if first is None else (list(reproduce.texts(report)), first.quantity)


def run(keras: Any, text: str) -> tuple[int | None, str]:
    """A script's exit status and what it prints; None and the error where it fails."""
    keras.utils.clear_session(free_memory=False)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            exec(compile(text, "script.py", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        return int(end.code or 0), said.getvalue().strip()
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    return None, "no exit status"


def in_processes(names: list[str], backend: str = "tensorflow") -> dict[str, dict[str, Any]]:
    """Fault -> quantity, planted, plain: exit status and output of the script that shows it, or of the last one."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    said = None
    for what in (["make", *names], ["run"]):
        done = subprocess.run(
            [sys.executable, "-m", "faults.scripts", *what], input=said, capture_output=True, text=True, env=environment
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        said = done.stdout.splitlines()[-1]
    assert said is not None
    found: dict[str, dict[str, Any]] = json.loads(said)
    return found


def main(what: str, names: list[str]) -> None:
    import keras

    tf = __import__("tensorflow") if keras.backend.backend() == "tensorflow" else None
    faults = {fault.name: fault for fault in FAULTS}
    if what == "make":
        texts = {name: made(keras, tf, faults[name]) for name in names or faults}
        print(json.dumps(texts))
        return
    found = {}
    for name, (texts, quantity) in json.load(sys.stdin).items():
        status, said, text = None, "it is not found", ""
        for text in texts:
            with planted(keras, tf, faults[name]):
                status, said = run(keras, text)
            if status == 1:
                break
        found[name] = {"quantity": quantity, "planted": (status, said), "plain": run(keras, text), "text": text}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
