"""Plant a fault, check a new model, take the fault out again."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults.catalogue import FAULTS, FIT, Fault, X, build
from faults.rewrites import REWRITES

SEED = 4


@dataclass
class Result:
    """What the oracle said of one fault or rewrite. killed: something diverged; localised: first where it should."""

    name: str
    killed: bool
    localised: bool
    said: str


@contextlib.contextmanager
def planted(keras: Any, tf: Any, fault: Fault) -> Iterator[None]:
    """Inside, the fault is in Keras."""
    undo: list[tuple[Any, str, bool, Any]] = []

    def swap(owner: Any, name: str, make: Any) -> None:
        own = name in vars(owner)
        undo.append((owner, name, own, vars(owner).get(name)))
        setattr(owner, name, make(getattr(owner, name)))

    fault.plant(keras, tf, swap)
    try:
        yield
    finally:
        for owner, name, own, plain in reversed(undo):
            if own:
                setattr(owner, name, plain)
            else:
                delattr(owner, name)


def checked(keras: Any, fault: Fault) -> Any:
    """The report of a new model, with whatever is planted."""
    from minidl import oracle

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(SEED)
    model, y = build(keras, **fault.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return oracle.check(model, X, y, seed=SEED, initial_weights=True, **{**FIT, **fault.fit})


def tried(keras: Any, tf: Any, fault: Fault) -> Result:
    with planted(keras, tf, fault):
        report = checked(keras, fault)
    first = report.first_divergence
    if first is None:
        return Result(fault.name, False, False, "right" if report.ok else "nothing was observed")
    return Result(fault.name, True, fault.is_named_by(first), f"{first.quantity} {first.tensor}, step {first.step}")


def in_processes(names: list[str], settings: dict[str, str] | None = None, at_once: int = 1) -> Iterator[Result]:
    """Each in a process of its own, so many at once; an error in one is its result."""
    running: list[tuple[str, subprocess.Popen[str]]] = []
    waiting = list(names)
    while waiting or running:
        while waiting and len(running) < at_once:
            name = waiting.pop(0)
            root = Path(__file__).parents[2]
            environment = {**os.environ, **(settings or {}), "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
            command = [sys.executable, "-m", "faults.running", name]
            running.append(
                (
                    name,
                    subprocess.Popen(
                        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
                    ),
                )
            )
        name, process = running.pop(0)
        out, err = process.communicate()
        lines = [line for line in out.splitlines() if line.startswith("{")]
        if process.returncode == 0 and lines:
            yield Result(**json.loads(lines[-1]))
        else:
            yield Result(name, False, False, f"failed: {(err.strip().splitlines() or ['no output'])[-1]}")


def main(names: list[str]) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    by_name = {fault.name: fault for fault in [*FAULTS, *REWRITES]}
    for name in names or by_name:
        try:
            found = tried(keras, tf, by_name[name])
        except Exception as error:
            if len(names) == 1:
                raise
            found = Result(name, False, False, f"failed: {type(error).__name__}: {' '.join(str(error).split())[:150]}")
        print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
