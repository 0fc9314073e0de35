"""The process of one peer: python worker.py MODULE OPTIONS, then commands as pickles on stdin, answers on stdout.

A command is a tuple: its name, its arguments, its options. An answer is ("ok", result) or ("error", text). What the
frameworks print goes to stderr.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pickle
import sys
import time
import traceback
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
# Of each distribution the module that shows that it was loaded.
DISTRIBUTIONS = {
    "numpy": "numpy",
    "numba": "numba",
    "keras": "keras",
    "tensorflow": "tensorflow",
    "tensorflow-cpu": "tensorflow",
    "jax": "jax",
    "jaxlib": "jaxlib",
    "torch": "torch",
    "scikit-learn": "sklearn",
    "cupy-cuda12x": "cupy",
    "cupy-cuda13x": "cupy",
}


def main(module: str, options: str) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    commands = sys.stdin.buffer
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    try:
        # the framework first: it may set up its BLAS before NumPy is loaded
        peer = importlib.import_module(f"peers.{module}").Peer(**json.loads(options))
        answer = ("ok", about())
    except BaseException:
        answer = ("error", traceback.format_exc())
    while True:
        pickle.dump(answer, answers)
        answers.flush()
        try:
            name, arguments, options = pickle.load(commands)
        except EOFError:
            return
        try:
            answer = ("ok", time_of(peer, *arguments, **options) if name == "time" else asked(peer, name, *arguments))
        except BaseException:
            answer = ("error", traceback.format_exc())


def asked(peer, name, *arguments):
    """An attribute of the peer, or what its method returns."""
    value = getattr(peer, name, None)
    return value(*arguments) if callable(value) else value


def time_of(peer, method: str, first: tuple, *arguments, repeats: int = 1) -> float:
    """Seconds that a method takes, after the same with the arguments `first` (none: nothing), which is not timed."""
    run = getattr(peer, method)
    if first:
        run(*first)
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    for _ in range(repeats):
        run(*arguments)
    taken = time.perf_counter() - start
    gc.enable()
    return taken / repeats


def about() -> dict:
    """Versions, and the libraries of matrix products with their threads and core type."""
    import numpy  # noqa: F401 - which minidl loads at its first use
    from threadpoolctl import threadpool_info

    versions = {}
    for name, module in DISTRIBUTIONS.items():
        if module in sys.modules:
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[name] = metadata.version(name)
    blas = [
        " ".join(str(info[key]) for key in ("internal_api", "version", "architecture") if info.get(key))
        + f", {info['num_threads']} threads"
        for info in threadpool_info()
        if info["user_api"] == "blas"
    ]
    return {"versions": versions, "blas": "; ".join(sorted(set(blas)))}


if __name__ == "__main__":
    main(*sys.argv[1:])
