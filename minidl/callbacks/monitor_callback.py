"""MonitorCallback: what EarlyStopping, ModelCheckpoint and ReduceLROnPlateau have in common."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import config
from minidl.callbacks.callback import Callback


class MonitorCallback(Callback):
    """Watches one of the logs. What is an improvement: a value better than the best by more than min_delta.

    mode: "min" and "max" say which is better; "auto" that less of "loss" and of metrics that are losses is better,
    more of the others. best: the best so far. Compared in floatx(), as Keras compares.
    Errors: ValueError at the end of an epoch for "auto" where neither is clear. An unknown mode warns, and is "auto".
    """

    def __init__(
        self, monitor: str = "val_loss", mode: str = "auto", baseline: float | None = None, min_delta: float = 0
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            warnings.warn(
                f"{type(self).__name__}: mode must be 'auto', 'min' or 'max'; {mode!r} is taken for 'auto'.",
                stacklevel=3,
            )
            mode = "auto"
        self.monitor = monitor
        self.mode = mode
        self.best = baseline
        self.min_delta = abs(min_delta)
        self.monitor_op: Callable[[Any, Any], Any] | None = None

    def resolve_mode(self) -> None:
        """Choose what is better, once the model's metrics are known."""
        if self.monitor_op is not None:
            return
        directions = {"min": np.less, "max": np.greater}
        found = directions.get(self.mode)
        if found is None:
            name = self.monitor.removeprefix("val_")
            found = np.less if name == "loss" else None
            for metric in getattr(self.model, "compiled_metrics", []):
                direction = getattr(metric, "_direction", None)
                if metric.name == name and direction is not None:
                    found = np.greater if direction == "up" else np.less
        if found is None:
            raise ValueError(
                f"{type(self).__name__}: whether more or less of monitor={self.monitor!r} is better is not known. "
                f"Pass mode='max' or mode='min'."
            )
        self.monitor_op = found
        if found is np.less:
            self.min_delta = -self.min_delta

    def is_improvement(self, value: Any, reference: Any) -> bool:
        """Whether value is better than reference by more than min_delta; anything is better than None."""
        if reference is None:
            return True
        assert self.monitor_op is not None
        number = np.dtype(config.floatx()).type
        return bool(self.monitor_op(number(value - self.min_delta), number(reference)))
