"""What is called as training goes on: the hooks of Callback, History, and the printing of progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.naming import unknown_name

Logs = dict[str, float]


class Callback:
    """Override what you need. self.model is the model, self.params {"verbose", "epochs", "steps"}.

    logs are the metrics so far, name -> float. Set self.model.stop_training = True to stop after the step.
    """

    model: Any = None
    params: dict[str, Any]

    def set_params(self, params: dict[str, Any]) -> None:
        """Called before training begins."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Called before training begins."""
        self.model = model

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Called once, before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Called once, after the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Called before each epoch (counted from 0)."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Called after each epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each step of an epoch (counted from 0)."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each step of an epoch."""


class History(Callback):
    """What fit returns: history, name -> a value for each epoch; epoch, the epochs' numbers."""

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class LambdaCallback(Callback):
    """A callback made of functions: LambdaCallback(on_epoch_end=lambda epoch, logs: …), any hook by its name.

    Errors: ValueError for a hook that Callback does not have.
    """

    def __init__(self, **hooks: Callable[..., None]) -> None:
        known = [name for name in vars(Callback) if name.startswith("on_")]
        for name, function in hooks.items():
            if name not in known:
                raise ValueError(unknown_name("hook", name, known))
            setattr(self, name, function)


class ProgbarLogger(Callback):
    """Progress, one line an epoch: what fit prints into a log, and everywhere with verbose=2."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, soft_wrap=True)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        seconds = time.perf_counter() - self.started
        self.console.print(
            f"Epoch {epoch + 1}/{self.params['epochs']} - {self.params['steps']} steps - {seconds:.2f}s - "
            f"{figures(logs or {})}"
        )

    def close(self) -> None:
        """Leave the terminal as it was, whatever happened."""


class LiveProgbarLogger(ProgbarLogger):
    """Progress on a terminal: a live bar over the steps of the epoch, then the epoch's line."""

    UPDATES_PER_SECOND = 10
    bar: Any = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        super().on_epoch_begin(epoch)
        self.updated = self.started
        self.bar = Progress(
            TextColumn(f"Epoch {epoch + 1}/{self.params['epochs']}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=True,
            auto_refresh=False,
        )
        self.bar.start()
        self.task = self.bar.add_task("", total=self.params["steps"], figures="")

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        now = time.perf_counter()
        if now - self.updated > 1 / self.UPDATES_PER_SECOND:
            self.updated = now
            self.bar.update(self.task, completed=batch + 1, figures=figures(logs or {}))
            self.bar.refresh()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.close()
        super().on_epoch_end(epoch, logs)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def progress_logger(verbose: Any) -> list[ProgbarLogger]:
    """The logger for fit's verbose: none for 0; "auto" and 1 live on a terminal; 2 a line an epoch.

    Errors: ValueError for any other value.
    """
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose must be 'auto', 0, 1 or 2; got {verbose!r}.")
    if not verbose:
        return []
    live = verbose != 2 and sys.stdout.isatty()
    return [LiveProgbarLogger() if live else ProgbarLogger()]


def figures(logs: Logs) -> str:
    """Metrics in one line: "accuracy: 0.8647 - loss: 0.3912"; of several values the mean."""
    return " - ".join(f"{name}: {np.mean(value):.4f}" for name, value in logs.items())


class CallbackList:
    """Passes every hook on to each callback in turn: the printing of progress, the user's, then History."""

    def __init__(self, callbacks: Any, *, model: Any, history: History, verbose: Any, epochs: int, steps: int) -> None:
        given = [callbacks] if isinstance(callbacks, Callback) else callbacks or []
        if not isinstance(given, (list, tuple)):
            raise TypeError(f"callbacks must be a list of minidl.callbacks.Callback objects; got {callbacks!r}.")
        for callback in given:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks must be minidl.callbacks.Callback objects; got {callback!r}.")
        self.loggers = progress_logger(verbose)
        self.callbacks: list[Callback] = [*self.loggers, *given, history]
        for callback in self.callbacks:
            callback.set_params({"verbose": verbose, "epochs": epochs, "steps": steps})
            callback.set_model(model)
        # The hooks of a step run thousands of times: leave out those that do nothing.
        self._step_begin = [c for c in self.callbacks if _overrides(c, "on_train_batch_begin")]
        self._step_end = [c for c in self.callbacks if _overrides(c, "on_train_batch_end")]

    def train_begin(self) -> None:
        """Pass on_train_begin on."""
        for callback in self.callbacks:
            callback.on_train_begin()

    def train_end(self, logs: Logs) -> None:
        """Pass on_train_end on."""
        for callback in self.callbacks:
            callback.on_train_end(logs)

    def epoch_begin(self, epoch: int) -> None:
        """Pass on_epoch_begin on."""
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch)

    def epoch_end(self, epoch: int, logs: Logs) -> None:
        """Pass on_epoch_end on."""
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, logs)

    def step_begin(self, step: int) -> None:
        """Pass on_train_batch_begin on."""
        for callback in self._step_begin:
            callback.on_train_batch_begin(step)

    def step_end(self, step: int, logs: Callable[[], Logs]) -> None:
        """Pass on_train_batch_end on; logs() is asked for only if somebody listens."""
        if self._step_end:
            found = logs()
            for callback in self._step_end:
                callback.on_train_batch_end(step, found)

    def close(self) -> None:
        """Give the terminal back, also after an exception."""
        for logger in self.loggers:
            logger.close()


def _overrides(callback: Callback, hook: str) -> bool:
    own = getattr(callback, hook)
    return getattr(own, "__func__", own) is not getattr(Callback, hook)
