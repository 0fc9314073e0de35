"""BackupAndRestore: training that goes on after it was interrupted."""

from __future__ import annotations

import json
import os
from typing import Any

from minidl.callbacks.callback import Callback, Logs
from minidl.callbacks.model_checkpoint import StepCounter
from minidl.checks import positive_int


class BackupAndRestore(Callback):
    """Save the state of training after each epoch, or each save_freq steps, and go on from it when fit begins.

    backup_dir: a folder for this alone, with Keras's files: latest.weights.h5 (weights, optimizer, and the random
    seeds, which Keras forgets) and training_metadata.json (the epoch to go on with; one that was interrupted starts
    anew). double_checkpoint: keep the state before it too (.bkp), for when the last one cannot be read.
    delete_checkpoint: delete the folder when fit ends. Only the fit that is restored starts at that epoch (in Keras
    all later fits of the model do). Killed at any moment, the files of one saving or the next are there whole.
    Errors: ValueError without a backup_dir, for another save_freq (False, for a way of saving that Keras has no more,
    saves there after each step), or if the model is not built; what load_weights raises.
    """

    def __init__(
        self,
        backup_dir: Any,
        save_freq: Any = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if not backup_dir:
            raise ValueError("BackupAndRestore: backup_dir must name a folder; got an empty one.")
        self.backup_dir = os.fspath(backup_dir)
        if save_freq != "epoch":
            save_freq = positive_int("BackupAndRestore", "save_freq, unless 'epoch',", save_freq)
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self._counter = StepCounter(save_freq)
        self._epoch = 0
        self._weights = os.path.join(self.backup_dir, "latest.weights.h5")
        self._metadata = os.path.join(self.backup_dir, "training_metadata.json")

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if not self.model.built:
            raise ValueError(
                f"BackupAndRestore: model {self.model.name!r} is not built, so nothing can be restored into it. Put "
                f"Input(shape=(features,)) first, or call build((None, features)) before fit."
            )
        try:
            self._restore()
        except (OSError, ValueError):
            if not os.path.exists(f"{self._weights}.bkp"):
                raise
            for path in (self._weights, self._metadata):
                if os.path.exists(f"{path}.bkp"):
                    _copy(f"{path}.bkp", path)
            self._restore()

    def _restore(self) -> None:
        if os.path.exists(self._weights):
            self.model.optimizer.build(self.model.arena)
            self.model.load_weights(self._weights)
            self.model.resumes_at_epoch = self._read_metadata().get("epoch")

    def _read_metadata(self) -> dict[str, Any]:
        """Those that were written with these weights: killed between the two files, the new ones are in .next."""
        for path in (f"{self._metadata}.next", self._metadata):
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    found: dict[str, Any] = json.load(file)
                if found.get("iterations", self.model.optimizer.iterations) == self.model.optimizer.iterations:
                    return found
        return {}

    @property
    def rests_in_epochs(self) -> bool:
        return bool(self.save_freq == "epoch")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch
        self._counter.start_epoch()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch + 1
        if self.save_freq == "epoch":
            self._save(batch=0)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self._counter.is_due(batch):
            self._save(batch=batch)

    def _save(self, batch: int) -> None:
        os.makedirs(self.backup_dir, exist_ok=True)
        if self.double_checkpoint:
            for path in (self._weights, self._metadata):
                if os.path.exists(path):
                    _copy(path, f"{path}.bkp")
        entries = {"epoch": self._epoch, "batch": batch, "iterations": int(self.model.optimizer.iterations)}
        with open(f"{self._metadata}.tmp", "w", encoding="utf-8") as file:
            json.dump(entries, file)
        os.replace(f"{self._metadata}.tmp", f"{self._metadata}.next")
        self.model.save_weights(self._weights, overwrite=True)
        os.replace(f"{self._metadata}.next", self._metadata)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.delete_checkpoint and os.path.exists(self.backup_dir):
            import shutil  # slow to import, and seldom needed

            shutil.rmtree(self.backup_dir)


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as original, open(f"{target}.tmp", "wb") as copy:
        copy.write(original.read())
    os.replace(f"{target}.tmp", target)
