"""TerminateOnNaN: the end of training when the loss is NaN or infinite."""

from __future__ import annotations

import math

from minidl.callbacks.callback import Callback, Logs


class TerminateOnNaN(Callback):
    """Stop fit after a step with which the loss is NaN or infinite; raise_error: with a RuntimeError.

    With this callback fit does not raise its own FloatingPointError before that step, as it does by default: as in
    Keras the step is taken, so the weights may be NaN, and the epoch ends with its logs. Data that is not finite is
    refused as ever, unless check_finite=False.
    Errors: RuntimeError if raise_error.
    """

    accepts_non_finite_loss = True

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise RuntimeError(f"TerminateOnNaN: the loss became {loss} at batch {batch}.")
        print(f"Batch {batch}: Invalid loss, terminating training")
        self.model.stop_training = True
