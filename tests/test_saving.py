"""Files of models: round trips, what resumes, what is refused, a kill at any moment, and 2,000 damaged files."""

import copy
import io
import json
import os
import pickle
import random as python_random
import re
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same

import minidl as keras
from minidl import saving, serialization
from minidl.layers import Dense, Dropout
from minidl.saving import FileFormatError, files

h5py = pytest.importorskip("h5py")
safetensors = pytest.importorskip("safetensors")

ROOT = Path(__file__).parents[1]
X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")


def make_model(seed=1, name=None, **compiled):
    keras.utils.set_random_seed(seed)
    inner = keras.Sequential([Dense(3, "relu"), Dropout(0.3)], name="inner")
    layers = [keras.Input((4,)), Dense(5, kernel_regularizer="l2"), inner, Dropout(0.2, seed=7), Dense(1, "sigmoid")]
    model = keras.Sequential(layers, name=name)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
    arguments = {"optimizer": keras.optimizers.Adam(schedule), "loss": "binary_crossentropy", "metrics": ["accuracy"]}
    model.compile(**{**arguments, **compiled})
    return model


def train(model, epochs):
    return model.fit(X, Y, epochs=epochs, batch_size=16, shuffle=False, verbose=0).history


def assert_same_state(got, expected):
    got, expected = got.get_state(), expected.get_state()
    assert list(got) == list(expected)
    for name in expected:
        assert_same(got[name], expected[name])


# ------------------------------------------------------------------------------------------ round trips


RESUME = """
import sys
sys.path.insert(0, "tests")
from test_saving import keras, make_model, train
how, folder = sys.argv[1:]
if how == "weights":
    model = make_model(seed=9)  # other weights, and other seeds of the layers that have none given
    model.optimizer.build(model.arena)
    model.load_weights(f"{folder}/m.weights.h5")
else:
    model = keras.models.load_model(f"{folder}/m.keras")
train(model, 2)
model.save(f"{folder}/resumed.keras")
"""


@pytest.mark.parametrize("how", ["model", "weights"])
def test_a_resumed_training_is_the_same_to_the_bit(how, tmp_path):
    """3 epochs = 1 epoch, a file, and 2 in another process: weights, slots, schedule and dropout masks."""
    straight = make_model()
    train(straight, 3)
    model = make_model()
    train(model, 1)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    subprocess.run([sys.executable, "-c", RESUME, how, str(tmp_path)], cwd=ROOT, check=True)
    assert_same_state(keras.models.load_model(tmp_path / "resumed.keras"), straight)


def test_load_model_brings_everything_back(tmp_path):
    model = make_model(weighted_metrics=[keras.metrics.AUC(num_thresholds=10)], jit_compile=True)
    train(model, 1)
    model.save(tmp_path / "m.keras")
    other = keras.models.load_model(tmp_path / "m.keras")
    assert_same_state(other, model)
    assert other.get_config() == model.get_config()
    assert other.get_compile_config() == model.get_compile_config()
    assert type(other.optimizer.get_config()["learning_rate"]) is dict
    assert train(other, 1) == train(model, 1)
    assert not keras.models.load_model(tmp_path / "m.keras", compile=False).compiled


def test_bits_of_float64_nan_and_infinity(tmp_path):
    """What there is is what is written; loading brings NaN back, where set_weights would refuse it."""
    keras.config.set_floatx("float64")
    model = make_model()
    kernel = model.layers[0].kernel
    kernel[0, :3] = [np.nan, -np.inf, -0.0]
    for name in ("m.weights.h5", "m.safetensors", "m.keras"):
        (model.save if name == "m.keras" else model.save_weights)(tmp_path / name)
        other = make_model(2)
        other.load_weights(tmp_path / name)
        for got, expected in zip(other.get_weights(), model.get_weights(), strict=True):
            assert_same(got, expected)


def test_layers_that_are_shared_stay_shared():
    shared = Dense(4, name="shared")
    one, two = keras.Sequential([shared, Dense(4)]), keras.Sequential([shared])
    with serialization.sharing():
        configs = [keras.layers.serialize(layer) for layer in (one.layers[0], two.layers[0])]
        assert configs[0]["shared_object_id"] == configs[1]["shared_object_id"]
    with serialization.sharing():
        first, second = (keras.layers.deserialize(config) for config in configs)
        assert first is second


def test_seeds_are_never_put_back(tmp_path):
    """Weights of an earlier time bring back no mask: a generator that has drawn stays, or goes on."""
    model = make_model()
    train(model, 1)
    model.save_weights(tmp_path / "m.weights.h5")
    before = [int(state[1]) for state in saving.state.seeds(model).values()]
    train(model, 1)
    model.load_weights(tmp_path / "m.weights.h5")
    assert [int(state[1]) for state in saving.state.seeds(model).values()] == [2 * count for count in before]


def test_skip_mismatch_leaves_what_does_not_fit(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Dense(5), Dense(1)])
    model.save_weights(tmp_path / "m.weights.h5")
    model.save_weights(tmp_path / "m.safetensors")
    for name in ("m.weights.h5", "m.safetensors"):
        other = keras.Sequential([keras.Input((4,)), Dense(5), Dense(2)])
        before = other.get_weights()
        with pytest.raises(FileFormatError, match=r"\(5, 2\)"):
            other.load_weights(tmp_path / name)
        assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), before, strict=True))
        with pytest.warns(UserWarning, match=r"left as they were: .*\(5, 2\)"):
            other.load_weights(tmp_path / name, skip_mismatch=True)
        assert_same(other.get_weights()[0], model.get_weights()[0])
        assert_same(other.get_weights()[2], before[2])


def test_other_optimizer_s_state_is_left_with_a_warning(tmp_path):
    model = make_model()
    train(model, 1)
    model.save_weights(tmp_path / "m.weights.h5")
    other = make_model(optimizer="sgd")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer 'sgd'"):
        other.load_weights(tmp_path / "m.weights.h5")
    assert other.optimizer.iterations == 0
    assert_same(other.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_whole_and_apart(how):
    model = make_model(metrics=["accuracy", keras.metrics.Recall(), double])
    train(model, 1)
    other = how(model)
    assert_same_state(other, model)
    assert train(other, 1) == train(model, 1)
    other.layers[0].kernel[...] = 0
    assert np.any(model.layers[0].kernel)


def double(y_true, y_pred):
    return 2.0 * np.mean(np.abs(y_true - y_pred), axis=-1)


def test_a_pickle_needs_no_h5py():
    program = (
        "import sys, pickle; sys.modules['h5py'] = None\n"
        "import minidl as keras\n"
        "model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])\n"
        "print(pickle.loads(pickle.dumps(model)).get_weights()[0].shape)\n"
        "try: model.save('m.keras')\n"
        "except ImportError as error: print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "(2, 1)" in found.stdout and "pip install 'minidl[h5]'" in found.stdout


# --------------------------------------------------------------------------------- JSON and own classes


class Mine(Dense):
    def __init__(self, units, extra=1, **kwargs):
        super().__init__(units, **kwargs)
        self.extra = extra

    def get_config(self):
        return {**super().get_config(), "extra": self.extra}


class Cube(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return np.abs(y_true - y_pred) ** 3

    def gradient(self, y_true, y_pred):
        return 3 * np.sign(y_pred - y_true) * (y_true - y_pred) ** 2


def test_own_classes_are_handed_over(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Mine(3, extra=5), Dense(1)])
    model.compile("sgd", Cube(reduction="sum"), metrics=[double])
    train(model, 1)
    model.save(tmp_path / "m.keras")
    with pytest.raises(FileFormatError, match=r"Unknown layer 'Mine' .*imports nothing.*custom_objects=\{'Mine'"):
        keras.models.load_model(tmp_path / "m.keras")
    own = {"Mine": Mine, "Cube": Cube, "double": double}
    found = [keras.models.load_model(tmp_path / "m.keras", custom_objects=own)]
    with saving.custom_object_scope(own):
        found.append(keras.models.load_model(tmp_path / "m.keras"))
        with pytest.raises(FileFormatError, match="'nothing'"):
            json_model = model.to_json().replace('"double"', '"nothing"')
            with files.reading("the JSON"):
                keras.models.model_from_json(json_model)
    found += [keras.models.clone_model(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for other in found:
        assert type(other.layers[0]) is Mine and other.layers[0].extra == 5
        assert type(other.loss) is Cube and other.loss.reduction == "sum"
    for other in (*found[:2], *found[3:]):
        assert_same_state(other, model)


def test_registered_objects_carry_their_package():
    @saving.register_keras_serializable("pkg", "Other")
    class Registered(Dense):
        pass

    try:
        config = keras.layers.serialize(Registered(2))
        assert config["registered_name"] == "pkg>Other" and config["class_name"] == "Registered"
        assert type(keras.layers.deserialize(config)) is Registered
        assert saving.get_registered_name(Registered) == "pkg>Other"
        assert saving.get_registered_object("pkg>Other") is Registered
    finally:
        saving.get_custom_objects().pop("pkg>Other")
    with pytest.raises(ValueError, match="custom_objects"):
        keras.layers.deserialize(config)
    with pytest.raises(ValueError, match="needs a get_config"):
        saving.register_keras_serializable()(type("Bare", (), {}))


@pytest.mark.parametrize(
    "found",
    [
        keras.losses.Huber(2.0),
        keras.losses.BinaryCrossentropy(label_smoothing=0.1, dtype="float64"),
        keras.metrics.AUC(thresholds=[0.2, 0.4], label_weights=[0.5, 1.0], multi_label=True),
        keras.metrics.MeanMetricWrapper(keras.metrics.binary_accuracy, name="mean", threshold=0.3),
        keras.optimizers.RMSprop(keras.optimizers.schedules.CosineDecay(0.1, 5), momentum=0.5),
        keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.2]),
        keras.regularizers.L1L2(0.1, 0.2),
        keras.initializers.RandomNormal(0.5, seed=3),
        keras.layers.Dense(3, "relu", bias_regularizer="l1"),
    ],
    ids=lambda found: type(found).__name__,
)
def test_any_object_comes_back(found):
    config = json.loads(json.dumps(saving.serialize_keras_object(found)))
    again = saving.deserialize_keras_object(config)
    assert type(again) is type(found) and saving.serialize_keras_object(again) == config


def test_functions_by_name():
    assert keras.losses.deserialize("mse") is keras.losses.mean_squared_error
    config = keras.losses.serialize(keras.losses.mean_squared_error)
    assert keras.losses.deserialize(config) is keras.losses.mean_squared_error
    assert keras.metrics.deserialize(keras.metrics.serialize(double), {"double": double}) is double
    with pytest.raises(ValueError, match="A lambda cannot be written"):
        keras.metrics.serialize(lambda y_true, y_pred: 0.0)


def test_clone_model_has_weights_of_its_own():
    model = make_model()
    train(model, 1)
    clone = keras.models.clone_model(model, clone_function=lambda layer: type(layer).from_config(layer.get_config()))
    assert clone.optimizer.iterations == 0 and [layer.name for layer in clone.layers] == [
        la.name for la in model.layers
    ]
    assert not np.array_equal(clone.get_weights()[0], model.get_weights()[0])
    seen = []
    keras.models.clone_model(model, clone_function=lambda layer: seen.append(layer.name) or layer, recursive=True)
    assert seen[1:3] == [layer.name for layer in model.layers[1].layers]
    with pytest.raises(NotImplementedError, match="call_function"):
        keras.models.clone_model(model, call_function=print)


# ----------------------------------------------------------------------------------- writing atomically


def test_overwrite_asks_as_keras_asks(tmp_path, monkeypatch):
    model, path = make_model(), tmp_path / "m.keras"
    path.write_bytes(b"old")
    answers = iter(["what", "n", "Y"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    model.save(path, overwrite=False)
    assert path.read_bytes() == b"old"
    model.save(path, overwrite=False)
    assert path.read_bytes() != b"old"

    def nobody(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        model.save(path, overwrite=False)


CALLS = ["tempfile.mkstemp", "os.fdopen", "os.fsync", "os.chmod", "os.replace"]


@pytest.mark.parametrize("call", CALLS)
def test_a_failure_at_any_call_leaves_the_old_file_and_no_other(call, tmp_path, monkeypatch):
    path = tmp_path / "m.weights.h5"
    model = make_model()
    model.save_weights(path)
    before = path.read_bytes()

    def failing(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, failing)
    with pytest.raises(OSError, match="No space left"):
        model.save_weights(path)
    monkeypatch.undo()
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_links_are_followed_and_permissions_kept(tmp_path):
    (tmp_path / "inner").mkdir()
    target, link = tmp_path / "inner" / "real.keras", tmp_path / "m.keras"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    make_model().save(link)
    assert link.is_symlink() and target.read_bytes() != b"old" and target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["real.keras"]


WRITER = """
import sys
import numpy as np
from minidl.saving import files
path = sys.argv[1]
for i in range(10**6):
    files.write_atomically(path, bytes([i % 251]) * 300_000)
    if i == 0:
        print("ready", flush=True)
"""


def test_killed_at_any_moment_one_file_is_whole(tmp_path):
    path = tmp_path / "file"
    rng = python_random.Random(0)
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.02))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        data = path.read_bytes()
        assert len(data) == 300_000 and len(set(data)) == 1


# --------------------------------------------------------------------------------------- what is refused


@pytest.fixture
def saved(tmp_path):
    """(the path of a whole model, its members)."""
    path = tmp_path / "m.keras"
    make_model().save(path)
    return path, files.unzipped(path.read_bytes())


def refused(path, match, **arguments):
    with pytest.raises(FileFormatError, match=match) as found:
        keras.models.load_model(path, **arguments)
    assert str(found.value).startswith(str(path)), "the file is named"


def test_names_of_files(tmp_path):
    model = make_model()
    for call, match in (
        (lambda: model.save(tmp_path / "m.h5"), "legacy format, which minidl does not write; save as .keras"),
        (lambda: model.save(tmp_path / "m.keras", zipped=False), "zipped=False"),
        (lambda: model.save(tmp_path / "m.keras", include_optimizer=False), "include_optimizer"),
        (lambda: model.save_weights(tmp_path / "m.weights.h5", max_shard_size=1), "max_shard_size"),
        (lambda: keras.models.load_model(tmp_path / "m.keras", safe_mode=False), "never does"),
        (lambda: model.load_weights(tmp_path / "m.weights.h5", objects_to_skip=[1]), "objects_to_skip"),
    ):
        with pytest.raises(NotImplementedError, match=match):
            call()
    for call, match in (
        (lambda: model.save(tmp_path / "m"), r"must end in \.keras"),
        (lambda: model.save_weights(tmp_path / "m.h5"), r"must end in \.weights\.h5 or \.safetensors"),
        (lambda: model.load_weights(tmp_path / "m.npz"), r"must end in \.weights\.h5"),
        (lambda: model.load_weights(tmp_path / "m.h5"), "legacy format, which minidl does not read. Load it in Keras"),
        (lambda: model.load_weights(tmp_path / "m.keras", by_name=True), "by_name is for legacy"),
        (lambda: model.load_weights(tmp_path / "m.keras", skip_missmatch=True), "Did you mean 'skip_mismatch'"),
        (lambda: keras.models.load_model(tmp_path / "m.h5"), "legacy format"),
        (lambda: keras.models.load_model(tmp_path), "is a folder.*SavedModel.*save it there as"),
        (lambda: keras.Sequential([Dense(1)]).save_weights(tmp_path / "m.weights.h5"), "is not built"),
        (lambda: keras.Sequential([Dense(1)]).load_weights(tmp_path / "m.weights.h5"), "is not built"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    with pytest.raises(FileNotFoundError):
        keras.models.load_model(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("hello")
    refused(tmp_path / "text.keras", "no zip")
    assert {path.name for path in tmp_path.iterdir()} == {"text.keras"}


def with_zip(path, members, **attributes):
    """A zip of (name, data) pairs, with attributes set on the last entry."""
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for i, (name, data) in enumerate(members):
            entry = zipfile.ZipInfo(name)
            if i == len(members) - 1:
                for key, value in attributes.items():
                    setattr(entry, key, value)
            archive.writestr(entry, data)


def test_tricks_with_the_zip(saved):
    path, members = saved
    every = list(members.items())
    for extra in ("../evil", "/etc/passwd", "assets/x", "config.json", "model.weights.npz", "a\\..\\b"):
        with_zip(path, [*every, (extra, b"x")])
        refused(path, "expected the members")
    with_zip(path, every[:2])
    refused(path, "expected the members")
    with_zip(path, every, external_attr=(0o120777 << 16))
    refused(path, "symbolic link")
    with_zip(path, every, compress_type=zipfile.ZIP_BZIP2)
    refused(path, "other than deflate")
    with_zip(path, [*every[:2], ("model.weights.h5", bytes(50_000_000))], compress_type=zipfile.ZIP_DEFLATED)
    refused(path, "more than 100 times")
    data = bytearray(files.zipped(members))
    for start in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
        data[start] |= 1
    path.write_bytes(data)
    refused(path, "encrypted")
    with_zip(path, every, compress_type=zipfile.ZIP_DEFLATED)  # repacked by a user: nothing wrong with it
    keras.models.load_model(path)


def set_in(config, *keys, value):
    for key in keys[:-1]:
        config = config[key]
    config[keys[-1]] = value


def an_object(module, name, registered=None, **config):
    return {"module": module, "class_name": name, "config": config, "registered_name": registered}


FIRST = ("config", "layers", 1)
EVAL = {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "function"}
EVIL = [
    ((*FIRST, "config", "activation"), an_object(None, "__lambda__", value="4wE="), "__lambda__|function"),
    ((*FIRST, "config", "kernel_regularizer"), an_object(None, "__lambda__", value="4wE="), "holds code"),
    ((*FIRST, "class_name"), "Lambda", "Lambda: the file holds code"),
    (FIRST, an_object("os", "system", "system", command="id"), "imports nothing"),
    (("compile_config", "loss"), EVAL, "Unknown loss: 'eval'"),
    (("compile_config", "optimizer"), an_object("subprocess", "Popen", args="id"), "'Popen' of module 'subprocess'"),
    ((*FIRST, "config", "kernel_initializer"), an_object("builtins", "__pickle__"), "__pickle__"),
    ((*FIRST, "config", "units"), 10**12, "larger than what the file holds"),
    (("config", "layers", 0, "config", "batch_shape"), [None, 10**12], "do not fit|larger than|shape"),
    (("compile_config", "metrics"), [an_object("keras.metrics", "AUC", num_thresholds=10**10)], "num_thresholds"),
    (("config", "layers"), [an_object("keras.layers", "Dropout", rate=0.1)] * 3000, "more than 2,000 layers"),
    ((*FIRST, "class_name"), "Densse", "Unknown layer: 'Densse'. Did you mean 'Dense'"),
    (("config", "layers"), 3, "has a name and layers"),
    (("class_name",), "Dense", "units"),
    (("class_name",), "InputLayer", "unexpected|not of a model"),
]


@pytest.mark.parametrize(("where", "value", "match"), EVIL)
def test_evil_configs(where, value, match, saved):
    path, members = saved
    config = json.loads(members["config.json"])
    set_in(config, *where, value=value)
    with_zip(path, [*{**members, "config.json": json.dumps(config)}.items()])
    refused(path, match)


def test_json_that_is_none(saved):
    path, members = saved
    for text, match in (
        ("[" * 100_000, "no JSON|JSON"),
        ("[]", "must hold a dict"),
        ("{", "no JSON"),
        ("{}", "config"),
    ):
        with_zip(path, [*{**members, "config.json": text}.items()])
        refused(path, match)
    for version in ("2.15.0", None, 3):
        with_zip(path, [*{**members, "metadata.json": json.dumps({"keras_version": version})}.items()])
        refused(path, "written by Keras")


def test_tricks_with_hdf5(tmp_path):
    model = make_model()
    path = tmp_path / "m.weights.h5"

    def edited(edit):
        model.save_weights(path)
        with h5py.File(path, "a") as file:
            del file["minidl"]
            edit(file)
        before = model.get_state()
        with pytest.raises(FileFormatError) as found:
            model.load_weights(path)
        assert all(np.array_equal(value, before[name]) for name, value in model.get_state().items())
        return str(found.value)

    def put(make):
        def edit(file):
            del file["layers/dense/vars/0"]
            make(file)

        return edit

    place = "layers/dense/vars/0"
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.zeros((4, 5), "float32")
    (tmp_path / "raw").write_bytes(bytes(80))
    layout = h5py.VirtualLayout((4, 5), "float32")
    layout[...] = h5py.VirtualSource(str(other), "x", (4, 5))
    raw = [(str(tmp_path / "raw"), 0, 80)]
    for make, expected in (
        (lambda f: f.__setitem__(place, h5py.ExternalLink(str(other), "x")), "is a ExternalLink: links are refused"),
        (lambda f: f.__setitem__(place, h5py.SoftLink("/layers/dense/vars/1")), "is a SoftLink"),
        (lambda f: f.create_virtual_dataset(place, layout), "is a view of other arrays"),
        (lambda f: f.create_dataset(place, (4, 5), "float32", external=raw), "lies in another file"),
        (lambda f: f.create_dataset(place, (4, 5), "float32", compression="gzip"), "h5repack"),
        (lambda f: f.create_dataset(place, (10**6, 10**6), "float32", chunks=(1, 10)), "does not hold"),
        (lambda f: f.create_dataset(place, (2,), h5py.ref_dtype), "holds no numbers"),
        (lambda f: f.create_dataset(place, data="text"), "holds no numbers"),
        (lambda f: f.create_dataset(place, data=h5py.Empty("f")), "holds no numbers"),
        (lambda f: f.__setitem__("layers/dense/loop", f["layers"]), "within itself"),
        (lambda f: f.__setitem__(place, np.dtype("float32")), "neither a group nor an array"),
        (lambda f: f.__setitem__(place, np.zeros((5, 4))), r"\(5, 4\)"),
        (lambda f: f.create_group(place), "expected variables 0, 1"),
    ):
        assert re.search(expected, edited(put(make)))
    assert "are not those that were written" not in edited(put(lambda f: None))


def test_a_changed_bit_is_found(tmp_path):
    """HDF5 has no checksum of plain arrays, so minidl's files have one, and safetensors'."""
    model = make_model()
    for name in ("m.weights.h5", "m.safetensors"):
        path = tmp_path / name
        model.save_weights(path)
        data = bytearray(path.read_bytes())
        data[data.index(model.layers[0].kernel.tobytes())] ^= 1
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match="SHA-256 differs"):
            model.load_weights(path)


def test_safetensors_of_others(tmp_path):
    """Read by the library alone: names, shapes and types as written; files without minidl's header load too."""
    from safetensors.numpy import load_file, save_file

    model = keras.Sequential([keras.Input((2,)), Dense(3), Dense(1)])
    path = tmp_path / "m.safetensors"
    model.save_weights(path)
    found = load_file(path)
    assert sorted(found) == [f"layers/{layer}/{name}" for layer in ("dense", "dense_1") for name in ("bias", "kernel")]
    assert_same(found["layers/dense/kernel"], np.asarray(model.layers[0].kernel))
    save_file({name: np.zeros_like(array) for name, array in found.items()}, path)
    model.load_weights(path)
    assert not any(weight.any() for weight in model.get_weights())
    save_file({**found, "more": np.zeros(2)}, path)
    with pytest.raises(FileFormatError, match="the model has no more"):
        model.load_weights(path)


def test_optimizer_s_variables_are_checked(tmp_path):
    model = make_model(optimizer="adam")
    train(model, 1)
    path = tmp_path / "m.weights.h5"
    for place, value, match in (
        ("optimizer/vars/0", np.int64(-1), "non-negative"),
        ("optimizer/vars/0", np.float32(1), "non-negative integer"),
        ("optimizer/vars/1", np.float32("nan"), "finite"),
        ("optimizer/vars/2", np.zeros(3), "shapes"),
        ("minidl/seeds/layers/dropout", np.zeros(3, "int64"), "SHA-256|two integers"),
    ):
        model.save_weights(path)
        with h5py.File(path, "a") as file:
            if not place.startswith("minidl"):
                del file["minidl"]
            del file[place]
            file[place] = value
        before = model.get_state()
        with pytest.raises(FileFormatError, match=match):
            model.load_weights(path)
        assert all(np.array_equal(value, before[name]) for name, value in model.get_state().items())


@pytest.mark.skipif(os.name != "posix", reason="bounds its memory with setrlimit")
def test_2016_damaged_files(tmp_path):
    """See saving_fuzz.py. In a process of its own: HDF5 is a C library, and memory is bounded."""
    program = [sys.executable, "tests/saving_fuzz.py", str(tmp_path), "2016"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    at_work = (tmp_path / "seed").read_text()
    assert found.returncode == 0, f"seed {at_work}: {found.returncode}\n{found.stderr}"
    outcomes = json.loads(found.stdout)
    assert sum(sum(outcome.values()) for outcome in outcomes.values()) == 2016
    assert all(outcome["refused"] > 100 for outcome in outcomes.values()), outcomes


def test_bytes_of_a_pickle_are_checked():
    data = saving.to_bytes(make_model())
    with pytest.raises(FileFormatError, match="the pickled model"):
        saving.from_bytes(data[:-30])
    members = files.unzipped(data, ("metadata.json", "config.json", "weights.npz"))
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([{}], dtype=object))
    evil = files.zipped({**members, "weights.npz": buffer.getvalue()})
    with pytest.raises(FileFormatError, match="allow_pickle=False"):
        saving.from_bytes(evil)
