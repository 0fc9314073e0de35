"""History: what fit returns."""

from __future__ import annotations

from typing import Any

from minidl.callbacks.callback import Callback, Logs


class History(Callback):
    """What fit returns: history, name -> a value for each epoch; epoch, the epochs' numbers; params, fit's.

    One that is among fit's callbacks is used, and goes on where it was. model.history is the last one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
        self.model.history = self
