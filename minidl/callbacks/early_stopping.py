"""EarlyStopping: the end of training when a value improves no more."""

from __future__ import annotations

import warnings
from typing import Any

from minidl.callbacks.callback import Logs
from minidl.callbacks.monitor_callback import MonitorCallback


class EarlyStopping(MonitorCallback):
    """Stop fit when monitor has not improved for patience epochs.

    min_delta: a smaller improvement is none. mode: see MonitorCallback. baseline: patience starts anew only with a
    value that is better than it too. restore_best_weights: at the end go back to the weights of the best epoch.
    start_from_epoch: the epochs before it do not count. verbose=1: say so. After fit: stopped_epoch (0: it was not
    stopped), best_epoch, best. A monitor that is not in the logs warns.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self._start()

    def _start(self) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best = None
        self.best_weights: list[Any] | None = None
        self.best_epoch = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._start()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.resolve_mode()
        current = self.get_monitor_value(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self._keep_weights(epoch)
        self.wait += 1
        if self.is_improvement(current, self.best):
            self.best = current
            self.best_epoch = epoch
            if self.restore_best_weights:
                self._keep_weights(epoch)
            if self.baseline is None or self.is_improvement(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _keep_weights(self, epoch: int) -> None:
        self.best_weights = self.model.get_weights()
        self.best_epoch = epoch

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch > 0 and self.verbose > 0:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose > 0:
                print(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")
            for weight, best in zip(self.model.weights, self.best_weights, strict=True):
                weight[...] = best  # also NaN, after a training that accepts it

    def get_monitor_value(self, logs: Logs | None) -> Any:
        """The monitored value, or None with a warning."""
        value = (logs or {}).get(self.monitor)
        if value is None:
            warnings.warn(
                f"EarlyStopping: monitor={self.monitor!r} is not among the logs {list(logs or {})}; "
                f"training is not stopped.",
                stacklevel=2,
            )
        return value
