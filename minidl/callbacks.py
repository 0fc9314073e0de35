"""What is called as training goes on: the hooks of Callback, History, and the printing of progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import display
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
    """What fit returns: history, name -> a value for each epoch; epoch, the epochs' numbers. A notebook plots it."""

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self._epochs: dict[str, list[int]] = {}  # by name: validation may not come every epoch

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
            self._epochs.setdefault(name, []).append(epoch)

    def plot(self, *names: str) -> Any:
        """Learning curves, as a matplotlib Figure: a panel for each name, in training and in validation.

        names: "loss" or metrics; by default all that were recorded. Epochs are counted from 1.
        Errors: ImportError, naming the extra, without matplotlib; ValueError for an unknown name, or before an epoch.
        """
        known = self._quantities()
        if not known:
            raise ValueError("History.plot: no epoch was trained, so there is nothing to plot.")
        for name in names:
            if name not in known:
                raise ValueError(unknown_name("quantity in the history", name, known))
        return display.curves(self.history, self._numbers(), names or known)

    def __repr__(self) -> str:
        return f"<History of {len(self.epoch)} epochs: {', '.join(self.history)}>"

    def _quantities(self) -> list[str]:
        """The names without "val_": the loss first, the others in their order."""
        found = dict.fromkeys(name.removeprefix("val_") for name in self.history)
        return sorted(found, key="loss".__ne__)

    def _numbers(self) -> dict[str, list[int]]:
        """The epochs of each name's values, from 1."""
        recorded = {name: self._epochs.get(name, []) for name in self.history}
        return {
            name: [epoch + 1 for epoch in epochs]
            if len(epochs) == len(self.history[name])
            else list(range(1, len(self.history[name]) + 1))
            for name, epochs in recorded.items()
        }

    def _repr_png_(self) -> bytes | None:
        """The learning curves, where a notebook shows no HTML; None without matplotlib or before an epoch."""
        return display.png(self.plot()) if self.history and display.has_matplotlib() else None

    def _repr_html_(self) -> str | None:
        """The learning curves over a table of the values, where a notebook shows the history."""
        if not self.history:
            return None
        numbers = self._numbers()
        rows = []
        names = [name for found in self._quantities() for name in (found, f"val_{found}") if name in self.history]
        for name in names:
            values = self.history[name]
            means = [float(np.mean(value)) for value in values]
            low, high = int(np.argmin(means)), int(np.argmax(means))
            extremes = [f"{means[i]:.4f} (epoch {numbers[name][i]})" for i in (low, high)]
            rows.append([name, f"{means[-1]:.4f}", *extremes])
        table = display.html_table(["", "last", "lowest", "highest"], rows, numbers=3)
        if not display.has_matplotlib():
            return f"<div>{table}</div>"
        return f"<div>{display.image(self.plot(), text=', '.join(names) + ' by epoch')}{table}</div>"


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

        self.console = Console(highlight=False, soft_wrap=True, force_jupyter=False)  # plain lines in a notebook

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
