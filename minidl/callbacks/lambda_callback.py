"""LambdaCallback: a callback made of functions."""

from __future__ import annotations

from collections.abc import Callable

from minidl.callbacks.callback import HOOKS, Callback
from minidl.naming import unknown_name

Hook = Callable[..., object] | None


class LambdaCallback(Callback):
    """LambdaCallback(on_epoch_end=lambda epoch, logs: …): any hook of Callback by its name.

    A step's hook is called as function(batch, logs=logs), the others with arguments by position.
    Errors: ValueError for a hook that Callback does not have (Keras takes it and never calls it).
    """

    def __init__(
        self,
        on_epoch_begin: Hook = None,
        on_epoch_end: Hook = None,
        on_train_begin: Hook = None,
        on_train_end: Hook = None,
        on_train_batch_begin: Hook = None,
        on_train_batch_end: Hook = None,
        **kwargs: Hook,
    ) -> None:
        super().__init__()
        hooks = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        for name, function in hooks.items():
            if name not in HOOKS:
                raise ValueError(unknown_name("hook", name, HOOKS))
            if function is not None:
                setattr(self, name, function)
