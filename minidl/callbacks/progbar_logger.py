"""ProgbarLogger: what is printed of the progress."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from minidl.callbacks.callback import Callback, Logs


class ProgbarLogger(Callback):
    """Progress: a line for each epoch, evaluation and prediction; on a terminal a live bar over its steps before.

    By verbose of fit, evaluate, predict: 0 nothing; "auto" and 1 live where standard output is a terminal; 2 lines.
    Errors: ValueError for any other verbose.
    """

    UPDATES_PER_SECOND = 10  # and a bar is not shown for less time than that between two

    def __init__(self) -> None:
        super().__init__()
        self.bar: Any = None
        self.seen = 0
        self._in_fit = False

    def set_params(self, params: dict[str, Any]) -> None:
        verbose = params.get("verbose", 1)
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"verbose must be 'auto', 0, 1 or 2; got {verbose!r}.")
        super().set_params(params)
        self.epochs, self.target = params.get("epochs", 1), params.get("steps")
        self.verbose = 1 if verbose == "auto" else int(verbose)
        self._live = self.verbose == 1 and sys.stdout.isatty()
        # Lines alone need no steps, unless to count them.
        follows = bool(self.verbose) and (self._live or self.target is None)
        for hook, step in (
            ("on_train_batch_end", self._step),
            ("on_test_batch_end", self._test_step),
            ("on_predict_batch_end", self._step),
        ):
            vars(self).pop(hook, None)
            if follows:
                setattr(self, hook, step)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._in_fit = True  # its validation is silent

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._in_fit = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._start(f"Epoch {epoch + 1}/{self.epochs}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._finish(logs or {})

    def on_test_begin(self, logs: Logs | None = None) -> None:
        if not self._in_fit:
            self._start("")

    def on_test_end(self, logs: Logs | None = None) -> None:
        if not self._in_fit:
            self._finish(logs or {})

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._start("")

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._finish({})

    def _start(self, title: str) -> None:
        self._close_bar()
        self.title, self.seen = title, 0
        self.started = self.updated = time.perf_counter()

    def is_due(self, hook: str, batch: int) -> bool:
        """Count the step; whether it is time to show it, for which alone its logs are needed."""
        if self._in_fit and hook == "on_test_batch_end":  # the validation is silent
            return False
        self.seen = batch + 1
        return self._live and time.perf_counter() - self.updated > 1 / self.UPDATES_PER_SECOND

    def _step(self, batch: int, logs: Logs | None = None) -> None:
        if self.is_due("", batch):
            self.updated = time.perf_counter()
            if self.bar is None:
                self._open_bar()
            shown = {name: value for name, value in (logs or {}).items() if name != "outputs"}
            self.bar.update(self.task, completed=self.seen, figures=figures(shown))
            self.bar.refresh()

    def _test_step(self, batch: int, logs: Logs | None = None) -> None:
        if not self._in_fit:
            self._step(batch, logs)

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.bar = Progress(
            *([TextColumn(self.title)] if self.title else []),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(highlight=False, soft_wrap=True, force_jupyter=False),
            transient=True,
            auto_refresh=False,
        )
        self.bar.start()
        self.task = self.bar.add_task("", total=self.target, figures="")

    def _finish(self, logs: Logs) -> None:
        self._close_bar()
        if self.verbose:
            steps = self.seen if self.target is None else self.target
            seconds = time.perf_counter() - self.started
            parts = [self.title, f"{steps} steps", f"{seconds:.2f}s", figures(logs)]
            print(" - ".join(part for part in parts if part), flush=True)

    def abort(self) -> None:
        """Leave the terminal as it was."""
        self._in_fit = False
        self._close_bar()

    def _close_bar(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def figures(logs: Logs) -> str:
    """Metrics in one line: "accuracy: 0.8647 - loss: 0.3912"; of several values the mean."""
    return " - ".join(f"{name}: {np.mean(value):.4f}" for name, value in logs.items())
