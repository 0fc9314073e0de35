"""ReduceLROnPlateau: a smaller learning rate when a value improves no more."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from minidl.callbacks.callback import Logs
from minidl.callbacks.monitor_callback import MonitorCallback
from minidl.checks import refuse_unknown


class ReduceLROnPlateau(MonitorCallback):
    """Multiply the learning rate by factor when monitor has not improved for patience epochs, down to min_lr.

    cooldown: so many epochs after that are not counted. mode, min_delta: see MonitorCallback. verbose=1: say so.
    The logs get "learning_rate", that of the epoch which ends. A monitor that is not in the logs warns.
    Errors: ValueError for a factor of 1 or more; for an unknown argument (Keras drops it).
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        **kwargs: Any,
    ) -> None:
        refuse_unknown("ReduceLROnPlateau", kwargs, ["monitor", "factor", "patience", "min_delta", "cooldown"])
        super().__init__(monitor, mode, min_delta=min_delta)
        if factor >= 1.0:
            raise ValueError(f"ReduceLROnPlateau: factor must be below 1; got {factor!r}.")
        self.factor = factor
        self.min_lr = min_lr
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.cooldown_counter = 0
        self.wait = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.best = None
        self.cooldown_counter = 0
        self.wait = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.resolve_mode()
        logs = {} if logs is None else logs
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(
                f"ReduceLROnPlateau: monitor={self.monitor!r} is not among the logs {list(logs)}; the learning rate "
                f"is not reduced.",
                stacklevel=2,
            )
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self.is_improvement(current, self.best):
            self.best = current
            self.wait = 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        rate = float(self.model.optimizer.learning_rate)
        if rate > np.float32(self.min_lr):
            rate = max(rate * self.factor, self.min_lr)
            self.model.optimizer.learning_rate = rate
            if self.verbose > 0:
                print(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {rate}.")
            self.cooldown_counter = self.cooldown
            self.wait = 0

    def in_cooldown(self) -> bool:
        """Whether epochs are not counted now."""
        return self.cooldown_counter > 0
