"""Callback: what may be called as a model is trained, evaluated or asked for predictions."""

from __future__ import annotations

from typing import Any

Logs = dict[str, Any]


class Callback:
    """Override what you need. self.model is the model, self.params {"verbose", "epochs", "steps"}.

    logs map names to values: the metrics so far at the end of a step, of an epoch those of its validation too, as
    "val_" + name; of predict {"outputs": the batch's}. At the beginning of anything they are empty. A step's hooks are
    called once an execution, see compile's steps_per_execution.
    Set self.model.stop_training = True to stop fit after the step (stop_evaluating, stop_predicting the others).
    An exception leaves fit at once, with the weights of the last finished step.
    """

    params: dict[str, Any] | None = None
    _model: Any = None

    # Whether this callback deals itself with a loss that is NaN or infinite, so that fit lets it through.
    accepts_non_finite_loss = False

    @property
    def rests_in_epochs(self) -> bool:
        """Whether the step's hooks do nothing now, though there are some."""
        return False

    def __init__(self) -> None:
        self.params = None
        self._model = None

    def set_params(self, params: dict[str, Any]) -> None:
        """Called first of all."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Called first of all."""
        self._model = model

    @property
    def model(self) -> Any:
        """The model that this callback was last used with."""
        return self._model

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Called by fit, before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Called by fit, after the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Called before each epoch (counted from 0)."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Called after each epoch and its validation. What is added to logs, the later callbacks and History see."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each step of an epoch (counted from 0)."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each step of an epoch."""
        self.on_batch_end(batch, logs=logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """The old name of on_train_batch_begin."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """The old name of on_train_batch_end."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Called before an evaluation: by evaluate, and in fit for the validation."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Called after an evaluation."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each step of an evaluation."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each step of an evaluation."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Called by predict, before the first step."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Called by predict, after the last step."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each step of predict."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each step of predict."""

    def abort(self) -> None:
        """Put back what is half done: an exception leaves fit, evaluate or predict, and no hook is called any more."""


HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


def overrides(callback: Callback, hook: str) -> bool:
    """Whether a callback does anything in a hook."""
    own = getattr(callback, hook)
    if getattr(own, "__func__", own) is not getattr(Callback, hook):
        return True
    return hook.startswith("on_train_batch") and overrides(callback, hook.replace("train_", ""))
