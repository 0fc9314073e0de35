"""CallbackList: many callbacks called as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minidl.callbacks.callback import HOOKS, Callback, Logs, overrides
from minidl.callbacks.history import History
from minidl.callbacks.progbar_logger import ProgbarLogger

StepLogs = Logs | Callable[[], Logs] | None


class CallbackList(Callback):
    """Passes every hook on to each callback in turn: those given, then History, then the printing of progress.

    callbacks: a callback, or lists of them. add_history, add_progbar: add a History, a ProgbarLogger, unless there is
    one. model, params: handed to every callback. The step's hooks take, in place of logs, a function that returns
    them, asked only if some callback listens. `with` this list: an exception inside calls abort().
    Errors: TypeError for what is no callback.
    """

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        super().__init__()
        self.callbacks: list[Callback] = list(_flat(callbacks)) if callbacks else []
        histories = [callback for callback in self.callbacks if isinstance(callback, History)]
        self._history = histories[-1] if histories else None
        if add_history and self._history is None:
            self._history = History()
            self.callbacks.append(self._history)
        if add_progbar and not any(isinstance(callback, ProgbarLogger) for callback in self.callbacks):
            self.callbacks.append(ProgbarLogger())
        self._open = 0
        self.set_model(model)
        self.set_params(params)
        self._find_listeners()

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params
        if params:
            for callback in self.callbacks:
                callback.set_params(params)

    def set_model(self, model: Any) -> None:
        if model is None:
            return
        super().set_model(model)
        if self._history is not None:
            model.history = self._history
        for callback in self.callbacks:
            callback.set_model(model)

    @property
    def accepts_non_finite_loss(self) -> bool:  # type: ignore[override]
        """Whether one of the callbacks deals with a loss that is not finite."""
        return any(callback.accepts_non_finite_loss for callback in self.callbacks)

    def __enter__(self) -> CallbackList:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.abort()

    def abort(self) -> None:
        """Let every callback put back what is half done."""
        if self._open:
            self._open = 0
            for callback in reversed(self.callbacks):
                callback.abort()

    def _find_listeners(self) -> None:
        """The hooks of a step run thousands of times: leave out those that do nothing."""
        step_hooks = [hook for hook in HOOKS if "batch" in hook]
        self._listeners = {
            hook: [callback for callback in self.callbacks if overrides(callback, hook)] for hook in step_hooks
        }

    @property
    def listen_to_steps(self) -> bool:
        """Whether a callback other than a progress bar, which looks now and then, follows fit step by step."""
        followers = self._listeners["on_train_batch_begin"] + self._listeners["on_train_batch_end"]
        return any(not isinstance(callback, ProgbarLogger) for callback in followers)

    @property
    def step_followers(self) -> list[Callback]:
        """The callbacks other than progress bars that follow the steps of fit, evaluate or predict."""
        followers = dict.fromkeys(callback for listeners in self._listeners.values() for callback in listeners)
        return [one for one in followers if not (isinstance(one, ProgbarLogger) or one.rests_in_epochs)]

    def _begin(self, hook: str, logs: Logs | None) -> None:
        self._open += 1
        self._pass_on(hook, logs)
        self._find_listeners()

    def _end(self, hook: str, logs: Logs | None) -> None:
        if not self._open:
            raise ValueError(f"{hook} was called without {hook.replace('end', 'begin')} before it.")
        self._pass_on(hook, logs)
        self._open -= 1

    def _pass_on(self, hook: str, logs: Logs | None, *number: int) -> None:
        logs = plain(logs)
        for callback in self.callbacks:
            getattr(callback, hook)(*number, logs)

    def _pass_step_on(self, hook: str, batch: int, logs: StepLogs) -> None:
        listeners = self._listeners[hook]
        if listeners:
            listeners = [one for one in listeners if not isinstance(one, ProgbarLogger) or one.is_due(hook, batch)]
        if listeners:
            found = plain(logs() if callable(logs) else logs)
            for listener in listeners:
                getattr(listener, hook)(batch, logs=found)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._begin("on_train_begin", logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._end("on_train_end", logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._begin("on_test_begin", logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        self._end("on_test_end", logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._begin("on_predict_begin", logs)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._end("on_predict_end", logs)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._pass_on("on_epoch_begin", logs, epoch)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._pass_on("on_epoch_end", logs, epoch)

    def on_train_batch_begin(self, batch: int, logs: StepLogs = None) -> None:
        self._pass_step_on("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: StepLogs = None) -> None:
        self._pass_step_on("on_train_batch_end", batch, logs)

    def on_batch_begin(self, batch: int, logs: StepLogs = None) -> None:
        self._pass_step_on("on_batch_begin", batch, logs)

    def on_batch_end(self, batch: int, logs: StepLogs = None) -> None:
        self._pass_step_on("on_batch_end", batch, logs)

    def on_test_batch_begin(self, batch: int, logs: StepLogs = None) -> None:
        self._pass_step_on("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch: int, logs: StepLogs = None) -> None:
        self._pass_step_on("on_test_batch_end", batch, logs)

    def on_predict_batch_begin(self, batch: int, logs: StepLogs = None) -> None:
        self._pass_step_on("on_predict_batch_begin", batch, logs)

    def on_predict_batch_end(self, batch: int, logs: StepLogs = None) -> None:
        self._pass_step_on("on_predict_batch_end", batch, logs)


def plain(logs: Logs | None) -> Logs:
    """A copy of logs in the order of their names, numbers as Python's, dicts opened. Source: keras's pythonify_logs."""
    found: Logs = {}
    for name, value in sorted((logs or {}).items()):
        if isinstance(value, dict):
            found |= plain(value)
        else:
            found[name] = float(value) if np.ndim(value) == 0 and not isinstance(value, str) else value
    return found


def _flat(callbacks: Any) -> Iterator[Callback]:
    if isinstance(callbacks, Callback):
        yield callbacks
    elif isinstance(callbacks, (list, tuple)):
        for callback in callbacks:
            yield from _flat(callback)
    else:
        raise TypeError(f"callbacks must be a list of minidl.callbacks.Callback objects; got {callbacks!r}.")
