"""History: what fit returns."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import display
from minidl.callbacks.callback import Callback, Logs
from minidl.naming import unknown_name


class History(Callback):
    """What fit returns: history, name -> a value for each epoch; epoch, the epochs' numbers; params, fit's.

    One that is among fit's callbacks is used, and goes on where it was. model.history is the last one.
    A notebook shows its learning curves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []
        self._epochs: dict[str, list[int]] = {}  # by name: validation may not come every epoch

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
            self._epochs.setdefault(name, []).append(epoch)
        self.model.history = self

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
