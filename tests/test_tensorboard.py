"""callbacks.TensorBoard: the event files, read back as records."""

import builtins
import struct
import zlib

import numpy as np
import pytest

from minidl import callbacks
from minidl.callbacks.tensorboard import histogram, image, png
from minidl.layers import Dense, Input
from minidl.models import Sequential

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
X, Y = np.linspace(-1, 1, 40).reshape(10, 4), np.arange(10) % 2


@pytest.fixture
def model():
    model = Sequential([Input((4,)), Dense(3, name="first"), Dense(1, activation="sigmoid", name="last")], name="net")
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def events(folder):
    """(tag, step) -> (plugin, value) of all event files in a folder. A record: length, its CRC, the event, its CRC."""
    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16
            for value in event.summary.value:
                tensor = value.tensor
                kind = {1: np.float32, 2: np.float64}.get(tensor.dtype)
                array = list(tensor.string_val) if kind is None else np.frombuffer(tensor.tensor_content, kind)
                if kind is not None:
                    array = array.reshape([dim.size for dim in tensor.tensor_shape.dim])
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = value.metadata.plugin_data.plugin_name, array
    return found


def test_epochs_and_evaluations(model, tmp_path):
    board = callbacks.TensorBoard(tmp_path, write_graph=False)
    history = model.fit(
        X, Y, batch_size=3, epochs=2, verbose=0, validation_data=(X, Y), callbacks=[board]
    ).history  # fmt: skip
    train, validation = events(tmp_path / "train"), events(tmp_path / "validation")
    assert list(train) == [
        (f"epoch_{name}", epoch) for epoch in (0, 1) for name in ("accuracy", "loss", "learning_rate")
    ]  # Keras's tags, steps and order
    assert list(validation) == [
        pair
        for epoch in (0, 1)
        for pair in (
            ("evaluation_accuracy_vs_iterations", 4 * epoch + 4),
            ("evaluation_loss_vs_iterations", 4 * epoch + 4),
            ("epoch_accuracy", epoch),
            ("epoch_loss", epoch),
        )
    ]
    assert {plugin for plugin, _ in (train | validation).values()} == {"scalars"}
    for epoch in (0, 1):
        assert train["epoch_loss", epoch][1] == np.float32(history["loss"][epoch])
        assert train["epoch_learning_rate", epoch][1] == np.float32(0.001)
        assert validation["epoch_loss", epoch][1] == np.float32(history["val_loss"][epoch])
        assert validation["evaluation_loss_vs_iterations", 4 * epoch + 4][1] == np.float32(history["val_loss"][epoch])


@pytest.mark.parametrize(("freq", "steps"), [("batch", range(1, 9)), (1, range(1, 9)), (3, [3, 6])])
def test_steps(model, tmp_path, freq, steps):
    board = callbacks.TensorBoard(str(tmp_path), update_freq=freq, write_graph=False, write_steps_per_second=True)
    seen = []
    keep = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    model.fit(X, Y, batch_size=3, epochs=2, verbose=0, callbacks=[board, keep])
    found = events(tmp_path / "train")
    assert [step for tag, step in found if tag == "batch_loss"] == list(steps)
    assert [step for tag, step in found if tag == "epoch_loss"] == [0, 1]
    for step in steps:
        assert found["batch_loss", step][1] == np.float32(seen[step - 1])
        assert found["batch_steps_per_second", step][1] > 0
    assert found["epoch_steps_per_second", 1][1] > 0


def test_evaluate_writes_at_once(model, tmp_path):
    board = callbacks.TensorBoard(tmp_path, write_graph=False)
    loss, _ = model.evaluate(X, Y, verbose=0, callbacks=[board])
    found = events(tmp_path / "validation")
    assert found["evaluation_loss_vs_iterations", 0][1] == np.float32(loss)


def test_weights_and_graph(model, tmp_path):
    board = callbacks.TensorBoard(tmp_path, histogram_freq=2, write_images=True)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[board])
    found = events(tmp_path / "train")
    assert found["keras", 0] == ("graph_keras_model", [model.to_json().encode()])
    names = ["net/first/kernel", "net/first/bias", "net/last/kernel", "net/last/bias"]
    assert [pair for pair in found if pair[0].endswith("histogram")] == [
        (f"{name}/histogram", epoch) for epoch in (0, 2) for name in names
    ]
    plugin, buckets = found["net/first/kernel/histogram", 2]
    assert plugin == "histograms" and buckets.shape == (30, 3) and buckets[:, 2].sum() == 12
    # a bias of one number has no picture, as in Keras
    assert [tag for tag, epoch in found if tag.endswith("image") and not epoch] == [f"{n}/image" for n in names[:3]]
    assert found["net/first/kernel/image", 0][1][:2] == [b"4", b"3"]


def test_histogram():
    found = histogram(np.array([0.0, 0.1, 3.0, 2.95, np.nan]))
    assert found[0].tolist() == [0.0, 0.1, 1.0] and found[1, 2] == 1 and found[-1, 2] == 2
    np.testing.assert_array_equal(found[1:, 0], found[:-1, 1])
    same = histogram(np.full((2, 2), 0.5))
    assert same[:, 2].tolist() == [0] * 29 + [4] and (same[:, :2] == 0.5).all()
    assert not histogram(np.array([np.inf])).any()


def test_images_are_grey_png():
    width, height, data = image(np.array([[-1.0, 0.0], [0.5, 1.0], [2.0, np.nan]]))
    assert (width, height) == (b"3", b"2")  # it lies
    assert image(np.zeros(5))[:2] == [b"1", b"5"]
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    pixels = zlib.decompress(data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8])
    assert list(pixels) == [0, 0, 127, 255, 0, 0, 255, 0]  # each row after its filter's number


def test_a_reader_of_pictures_agrees():
    pil = pytest.importorskip("PIL.Image")
    import io

    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(np.asarray(pil.open(io.BytesIO(png(grey)))), grey)


def test_an_exception_closes_the_files(model, tmp_path):
    board = callbacks.TensorBoard(tmp_path, write_graph=False)

    def fail(epoch, logs):
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        model.fit(X, Y, verbose=0, callbacks=[board, callbacks.LambdaCallback(on_epoch_end=fail)])
    assert ("epoch_loss", 0) in events(tmp_path / "train")


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"profile_batch": 2}, NotImplementedError, "profile_batch=2"),
        ({"embeddings_freq": 1}, NotImplementedError, "embeddings_freq=1"),
        ({"embeddings_metadata": "file"}, NotImplementedError, "embeddings_metadata='file'"),
        ({"update_freq": 0}, ValueError, "update_freq"),
        ({"update_freq": "step"}, ValueError, "update_freq"),
        ({"histogram_freq": -1}, ValueError, "histogram_freq"),
    ],
)
def test_what_is_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        callbacks.TensorBoard(**arguments)


def test_without_a_writer(monkeypatch):
    before = builtins.__import__

    def without(name, *arguments, **others):
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return before(name, *arguments, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'minidl\[tensorboard\]'"):
        callbacks.TensorBoard()
