"""What is called as a model is trained, evaluated or asked for predictions: one callback a file."""

from minidl.callbacks.callback import Callback, Logs
from minidl.callbacks.callback_list import CallbackList
from minidl.callbacks.history import History
from minidl.callbacks.lambda_callback import LambdaCallback
from minidl.callbacks.progbar_logger import ProgbarLogger

__all__ = [
    "Callback",
    "CallbackList",
    "History",
    "LambdaCallback",
    "Logs",
    "ProgbarLogger",
]
