"""ModelCheckpoint: the model in files as training goes on."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from minidl.callbacks.callback import Logs
from minidl.callbacks.monitor_callback import MonitorCallback
from minidl.checks import positive_int


class ModelCheckpoint(MonitorCallback):
    """Save the model after each epoch, or each save_freq steps, to filepath.format(epoch=, batch=, **logs).

    epoch and batch count from 1 in the name: "{epoch:02d}-{val_loss:.2f}.keras". save_weights_only: the weights and
    the optimizer's state, to a name in .weights.h5. save_best_only: only if monitor has improved, see
    MonitorCallback, first of all on initial_value_threshold; if it is not in the logs or no number, always, with a
    warning. verbose=1: say so. A file is replaced whole: at any moment the old one or the new one is there.
    Errors: ValueError for another ending, or another save_freq; KeyError for a name in filepath that the logs lack;
    OSError if it is a folder.
    """

    def __init__(
        self,
        filepath: Any,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: Any = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        if save_freq != "epoch":
            self.save_freq = positive_int("ModelCheckpoint", "save_freq, unless 'epoch',", save_freq)
        if save_weights_only and not self.filepath.endswith(".weights.h5"):
            raise ValueError(
                f"ModelCheckpoint: with save_weights_only=True filepath must end in .weights.h5; got {self.filepath!r}."
            )
        if not save_weights_only and self.filepath.endswith(".h5"):
            raise NotImplementedError(
                f"ModelCheckpoint: {self.filepath!r}: whole models in .h5 are Keras's legacy format, which minidl does "
                f"not write; end it in .keras."
            )
        if not save_weights_only and not self.filepath.endswith(".keras"):
            raise ValueError(f"ModelCheckpoint: filepath must end in .keras; got {self.filepath!r}.")
        self._counter = StepCounter(self.save_freq)
        self._epoch = 0

    @property
    def rests_in_epochs(self) -> bool:
        return bool(self.save_freq == "epoch")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self._counter.is_due(batch):
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.resolve_mode()
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: Logs) -> None:
        path = self._path(epoch, batch, logs)
        if not self._is_wanted(epoch, logs, path):
            return
        if os.path.isdir(path):
            raise IsADirectoryError(f"ModelCheckpoint: {path!r} is a folder; filepath must name a file.")
        if os.path.dirname(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: finished saving model to {path}")

    def _is_wanted(self, epoch: int, logs: Logs, path: str) -> bool:
        message = f"saving model to {path}"
        if self.save_best_only:
            current = logs.get(self.monitor)
            if current is None or np.ndim(current):
                found = "is not among them" if current is None else f"is {current!r}, not a number"
                warnings.warn(
                    f"ModelCheckpoint: save_best_only needs monitor={self.monitor!r}, which of the logs {list(logs)} "
                    f"{found}; the model is saved.",
                    stacklevel=2,
                )
                return True
            self.resolve_mode()
            before = "None" if self.best is None else f"{self.best:.5f}"
            if not self.is_improvement(current, self.best):
                if self.verbose > 0:
                    print(f"\nEpoch {epoch + 1}: {self.monitor} did not improve from {before}")
                return False
            self.best = current
            message = f"{self.monitor} improved from {before} to {current:.5f}, {message}"
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: {message}")
        return True

    def _path(self, epoch: int, batch: int | None, logs: Logs) -> str:
        numbers = {"epoch": epoch + 1} if batch is None else {"epoch": epoch + 1, "batch": batch + 1}
        try:
            return self.filepath.format(**numbers, **logs)
        except KeyError as error:
            raise KeyError(
                f"ModelCheckpoint: {error} in filepath={self.filepath!r} is not among {[*numbers, *logs]}."
            ) from None


class StepCounter:
    """Whether the steps since the last saving are save_freq or more; over epochs, and executions of many steps."""

    def __init__(self, save_freq: Any) -> None:
        self.save_freq = save_freq
        self.last = -1
        self.steps = 0

    def is_due(self, batch: int) -> bool:
        """Count the steps up to batch, the last of an execution; True if it is time to save."""
        if self.save_freq == "epoch":
            return False
        self.steps += batch - self.last if batch > self.last else batch + 1
        self.last = batch
        if self.steps < self.save_freq:
            return False
        self.steps = 0
        return True

    def start_epoch(self) -> None:
        """The next step is the first of an epoch."""
        self.last = -1
