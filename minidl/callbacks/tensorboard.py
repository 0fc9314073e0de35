"""TensorBoard: the logs, and what the weights look like, in event files."""

from __future__ import annotations

import itertools
import os
import struct
import time
import warnings
import zlib
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.callbacks.callback import Callback, Logs
from minidl.checks import non_negative_int, positive_int, refuse_unsupported

BUCKETS = 30  # TensorBoard's
_file_numbers = itertools.count()


class TensorBoard(Callback):
    """Write event files into log_dir/train and log_dir/validation, with the tags, steps and forms of Keras's.

    Each epoch "epoch_loss", … and in train "epoch_learning_rate"; each evaluation "evaluation_loss_vs_iterations", …
    update_freq: "epoch", "batch" or a number of steps, each of which writes "batch_loss", …, the means so far.
    histogram_freq: each so many epochs the weights' histograms, with write_images as pictures too. write_graph: the
    model's configuration. write_steps_per_second: that too.
    With update_freq > 1 Keras drops the figures of the epochs and evaluations whose last step is no multiple of it;
    here all are written.
    Errors: ImportError without tensorboardX or tensorboard; NotImplementedError for profile_batch (there is no
    profiler), embeddings_freq and embeddings_metadata (no Embedding layer).
    """

    def __init__(
        self,
        log_dir: Any = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: Any = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        super().__init__()
        refuse_unsupported(
            "TensorBoard",
            profile_batch=(profile_batch, 0),
            embeddings_freq=(embeddings_freq, 0),
            embeddings_metadata=(embeddings_metadata, None),
        )
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = non_negative_int("TensorBoard", "histogram_freq", histogram_freq)
        self.write_graph = write_graph
        self.write_images = write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = 1 if update_freq == "batch" else update_freq
        if self.update_freq != "epoch":
            positive_int("TensorBoard", "update_freq, unless 'epoch' or 'batch',", self.update_freq)
        self._protocol = _Protocol()
        self._writers: dict[str, Any] = {}
        self._step, self._in_fit = 0, False

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self.abort()
        if self.write_graph:
            self._write_graph()

    # ------------------------------------------------------------------------------------- the hooks

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._step, self._in_fit = 0, True

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.abort()

    @property
    def rests_in_epochs(self) -> bool:
        return bool(self.update_freq == "epoch")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._steps_before, self._epoch_started = int(self.model.optimizer.iterations), time.time()

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._step += 1
        self._step_started = time.time()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.update_freq == "epoch" or self._step % self.update_freq:
            return
        figures = dict(logs or {})
        if self.write_steps_per_second:
            figures = {"steps_per_second": 1 / (time.time() - self._step_started), **figures}
        self._write_scalars("train", figures, "batch_{}", self._step)

    def on_test_end(self, logs: Logs | None = None) -> None:
        step = int(self.model.optimizer.iterations)
        self._write_scalars("validation", logs or {}, "evaluation_{}_vs_iterations", step)
        if not self._in_fit:
            self.abort()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        of_training = {name: value for name, value in logs.items() if not name.startswith("val_")}
        of_validation = {name[4:]: value for name, value in logs.items() if name.startswith("val_")}
        of_training["learning_rate"] = float(self.model.optimizer.learning_rate)
        if self.write_steps_per_second:
            steps = int(self.model.optimizer.iterations) - self._steps_before
            of_training["steps_per_second"] = steps / (time.time() - self._epoch_started)
        self._write_scalars("train", of_training, "epoch_{}", epoch)
        if of_validation:
            self._write_scalars("validation", of_validation, "epoch_{}", epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_weights(epoch)
        for writer in self._writers.values():
            writer.flush()

    def abort(self) -> None:
        """Close the files."""
        self._in_fit = False
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    # ----------------------------------------------------------------------------------- what is written

    def _write_scalars(self, folder: str, figures: Logs, tag: str, step: int) -> None:
        for name, value in figures.items():
            self._write(folder, tag.format(name), "scalars", np.asarray(value, np.float32), step)

    def _write_weights(self, epoch: int) -> None:
        for layer in self.model.layers:
            for weight in layer.weights:
                array = np.asarray(weight, np.float64)
                self._write("train", f"{weight.path}/histogram", "histograms", histogram(array), epoch)
                array = array.squeeze()
                if self.write_images and array.ndim in (1, 2):
                    self._write("train", f"{weight.path}/image", "images", image(array), epoch)

    def _write_graph(self) -> None:
        try:
            text = self.model.to_json()
        except Exception as error:  # as in Keras: training is not stopped for it
            warnings.warn(f"TensorBoard: the model has no JSON form, so write_graph writes none: {error}", stacklevel=2)
            return
        self._write("train", "keras", "graph_keras_model", text.encode(), 0)

    def _write(self, folder: str, tag: str, plugin: str, value: Any, step: int) -> None:
        if folder not in self._writers:
            self._writers[folder] = self._protocol.open(os.path.join(self.log_dir, folder))
        self._protocol.add(self._writers[folder], self._protocol.event(tag, plugin, value, step))


class _Protocol:
    """The event files' format, from tensorboardX or, if it is not there, tensorboard: the same messages."""

    def __init__(self) -> None:
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2
        except ImportError:
            try:
                from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2
                from tensorboard.summary.writer.event_file_writer import EventFileWriter
            except ImportError as error:
                raise ImportError(
                    f"TensorBoard needs tensorboardX or tensorboard, and neither is installed ({error}). "
                    f"Run: pip install 'minidl[tensorboard]'"
                ) from error
            else:
                self._open, self.add, self.is_folder = EventFileWriter, EventFileWriter.add_event, True
        else:  # the writer that writes at once: the other one's flush() does not wait for what is to be written
            self._open, self.add, self.is_folder = EventsWriter, EventsWriter.write_event, False
        self.events, self.summaries, self.tensors, self.shapes = event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2

    def open(self, folder: str) -> Any:
        """A writer with flush() and close() to a new file, also where another was made in the same second."""
        os.makedirs(folder, exist_ok=True)
        suffix = f".{os.getpid()}.{next(_file_numbers)}.v2"
        path = folder if self.is_folder else os.path.join(folder, "events")
        return self._open(path, filename_suffix=suffix)

    def event(self, tag: str, plugin: str, value: Any, step: int) -> Any:
        """One value: an array of float32 or float64, bytes, or a list of bytes."""
        if isinstance(value, np.ndarray):
            kind = {"float32": 1, "float64": 2}[value.dtype.name]  # types.proto: DT_FLOAT, DT_DOUBLE
            tensor = self.tensors.TensorProto(
                dtype=kind, tensor_shape=self._shape(value.shape), tensor_content=value.tobytes()
            )
        else:
            texts = [value] if isinstance(value, bytes) else value
            shape = () if isinstance(value, bytes) else (len(texts),)
            tensor = self.tensors.TensorProto(dtype=7, tensor_shape=self._shape(shape), string_val=texts)  # DT_STRING
        content = b"1" if plugin == "graph_keras_model" else b""  # its version
        data = self.summaries.SummaryMetadata.PluginData(plugin_name=plugin, content=content)
        metadata = self.summaries.SummaryMetadata(plugin_data=data)
        entry = self.summaries.Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
        return self.events.Event(wall_time=time.time(), step=step, summary=self.summaries.Summary(value=[entry]))

    def _shape(self, sizes: tuple[int, ...]) -> Any:
        return self.shapes.TensorShapeProto(dim=[self.shapes.TensorShapeProto.Dim(size=size) for size in sizes])


def histogram(values: Array) -> Array:
    """The finite values in 30 buckets of one width: [left, right, count];  (...) -> (30, 3), float64.

    Of values that are all equal, the last bucket holds all. Source: tensorboard.plugins.histogram.summary_v2.
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return np.zeros((BUCKETS, 3))
    low, high = values.min(), values.max()
    edges = np.linspace(low, high, BUCKETS + 1)
    if low == high:
        counts = np.array([0] * (BUCKETS - 1) + [values.size])
    else:
        places = np.floor((values - low) / ((high - low) / BUCKETS)).astype(int)
        counts = np.bincount(np.minimum(places, BUCKETS - 1), minlength=BUCKETS)
    return np.stack([edges[:-1], edges[1:], counts], axis=1)


def image(weight: Array) -> list[bytes]:
    """Width, height and a grey PNG of weights: 0 and less is black, 1 and more white;  (n,) or (n, m), lying."""
    pixels = weight[:, None] if weight.ndim == 1 else weight.T if weight.shape[0] > weight.shape[1] else weight
    grey = np.clip(np.nan_to_num(pixels) * 255.5, 0, 255).astype(np.uint8)
    height, width = grey.shape
    return [str(width).encode(), str(height).encode(), png(grey)]


def png(grey: Array) -> bytes:
    """A grey picture, (height, width) of uint8, as PNG. Source: the PNG specification, W3C 2003."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = grey.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey)  # each row begins with its filter: none
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
