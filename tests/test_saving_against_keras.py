"""Files, JSON and configs, both ways between minidl and live Keras on TensorFlow."""

import io
import json
import warnings
import zipfile

import numpy as np
import pytest
from helpers import assert_same
from keras_cases import floatx, keras_on_tensorflow

import minidl.keras as minidl_keras

pytestmark = pytest.mark.keras
h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tensorflow")
    return keras_on_tensorflow()[0]


X = np.random.default_rng(1).normal(size=(24, 4))
Y = (X[:, :1] > 0).astype("float64")


def batches(model, steps):
    """Deterministic training, the same in both: a batch of eight a step."""
    for step in range(steps):
        part = slice(8 * (step % 3), 8 * (step % 3) + 8)
        model.train_on_batch(X[part], Y[part])


def rich(k, dropout=0.0):
    """A model with another in it, a frozen layer, one without bias, names of its own and penalties."""
    inner = k.Sequential([k.layers.Dense(3, "relu", kernel_regularizer="l2"), k.layers.Dropout(dropout)], name="inner")
    layers = [
        k.layers.Input(shape=(4,)),
        k.layers.Dense(5, "tanh", name="first", bias_regularizer=k.regularizers.L1L2(0.1, 0.2)),
        k.layers.Dropout(dropout, seed=3),
        inner,
        k.layers.Dense(4, "relu", trainable=False),
        k.layers.Dense(1, "sigmoid", use_bias=False),
    ]
    return k.Sequential(layers, name="rich")


def compiled(k, model, optimizer, **arguments):
    arguments = {"loss": "binary_crossentropy", "metrics": ["accuracy"], **arguments}
    model.compile(optimizer, **arguments)
    return model


def arrays_in(data):
    """(arrays, attributes) by path of an HDF5 file, without minidl's own group."""
    found, attributes = {}, {}

    def visit(path, item):
        if path.split("/")[0] != "minidl":
            attributes[path] = dict(item.attrs)
            if isinstance(item, h5py.Dataset):
                found[path] = item[()]

    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(visit)
    return found, attributes


def members(path):
    with zipfile.ZipFile(path) as archive:
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        return {name: archive.read(name) for name in archive.namelist()}


def without_what_varies(config):
    """Without the ids of shared objects, the shapes that layers were built for, initializers' axes that are None."""
    if isinstance(config, dict):
        return {
            key: without_what_varies(value)
            for key, value in config.items()
            if key not in ("shared_object_id", "build_config", "input_axes", "output_axes")
        }
    return [without_what_varies(value) for value in config] if isinstance(config, list) else config


def test_the_layout_is_keras_s(keras, tmp_path):
    """The same program in both writes the same members, JSON, paths, names, shapes and dtypes."""
    files = []
    for k in (keras, minidl_keras):
        k.utils.set_random_seed(0)
        k.utils.clear_session(free_memory=False)
        rate = k.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
        metrics = ["accuracy", k.metrics.AUC(), k.metrics.Precision(name="p")]
        model = compiled(k, rich(k, 0.5), k.optimizers.Adam(rate), metrics=metrics, weighted_metrics=["mae"])
        batches(model, 2)
        model.save(tmp_path / "m.keras")
        files.append(members(tmp_path / "m.keras"))
    theirs, ours = files
    assert list(ours) == list(theirs)
    meta = [json.loads(file["metadata.json"]) for file in files]
    assert list(meta[0]) == list(meta[1]) and meta[0]["keras_version"] == meta[1]["keras_version"]
    assert len(meta[0]["date_saved"]) == len(meta[1]["date_saved"])
    expected, got = (without_what_varies(json.loads(file["config.json"])) for file in files)
    assert got == expected
    (theirs, their_names), (ours, our_names) = (arrays_in(file["model.weights.h5"]) for file in files)
    assert our_names == their_names
    assert {path: (a.shape, a.dtype) for path, a in ours.items()} == {
        path: (a.shape, a.dtype) for path, a in theirs.items()
    }


EMA = {"use_ema": True, "ema_momentum": 0.9}
OPTIMIZERS = [
    ("SGD", {"momentum": 0.9, "nesterov": True, "gradient_accumulation_steps": 3, **EMA}),
    ("SGD", {"learning_rate": ("InverseTimeDecay", 0.1, 4, 0.5), "weight_decay": 0.3}),
    ("Adam", {"amsgrad": True, "loss_scale_factor": 3.0, **EMA, "ema_overwrite_frequency": 3}),
    (
        "Adam",
        {"gradient_accumulation_steps": 3, "learning_rate": ("PiecewiseConstantDecay", [2, 5], [0.1, 0.01, 0.05])},
    ),
    ("AdamW", {"clipnorm": 0.1}),
    ("Adamax", {"global_clipnorm": 0.1}),
    ("Nadam", {"gradient_accumulation_steps": 2, "weight_decay": 0.1, "beta_1": 0.8}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.3, "clipvalue": 0.1}),
    ("Adadelta", {"learning_rate": 1.0, "rho": 0.9}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=lambda value: value if isinstance(value, str) else "")
def test_training_goes_on_as_it_would_have(name, options, keras, tmp_path):
    """Trained in one, loaded in the other: all variables the same bits, and the next steps those of the first.

    In float64 the two differ by rounding alone: a sum of at most 8·5 products of order 1 is wrong by 40·2⁻⁵³ = 4e-15,
    an update of at most η = 1 times m/√v, both of order 1, by a few of these: 1e-12 leaves a factor of 50.
    """
    with floatx(keras, "float64"):
        keras.utils.clear_session(free_memory=False)  # forgets float32's dtype policy
        for here, there in ((keras, minidl_keras), (minidl_keras, keras)):
            here.utils.set_random_seed(1)
            given = dict(options)
            if isinstance(given.get("learning_rate"), tuple):
                schedule, *arguments = given["learning_rate"]
                given["learning_rate"] = getattr(here.optimizers.schedules, schedule)(*arguments)
            loss = here.losses.BinaryCrossentropy(label_smoothing=0.1)
            model = compiled(here, rich(here), getattr(here.optimizers, name)(**given), loss=loss, run_eagerly=True)
            batches(model, 4)
            model.save(tmp_path / "m.keras")
            other = there.models.load_model(tmp_path / "m.keras")
            for got, expected in zip(variables(other), variables(model), strict=True):
                assert_same(got, expected)
            batches(model, 2)
            batches(other, 2)
            for got, expected in zip(variables(other), variables(model), strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def variables(model):
    found = [*model.weights, *model.optimizer.variables]
    return [np.asarray(variable) for variable in found]


def test_weights_travel_both_ways(keras, tmp_path):
    """.weights.h5 and load_weights of a .keras, with the optimizer's state; Keras ignores minidl's own group."""
    for here, there in ((keras, minidl_keras), (minidl_keras, keras)):
        here.utils.set_random_seed(1)
        model = compiled(here, rich(here, 0.5), here.optimizers.Adam(0.01))
        batches(model, 3)
        model.save(tmp_path / "m.keras")
        model.save_weights(tmp_path / "m.weights.h5")
        for file in ("m.keras", "m.weights.h5"):
            other = compiled(there, rich(there, 0.5), there.optimizers.Adam(0.02))
            batches(other, 1)
            other.load_weights(tmp_path / file)
            for got, expected in zip(variables(other), variables(model), strict=True):
                assert_same(got, expected)
        fresh = compiled(there, rich(there, 0.5), there.optimizers.Adam(0.02))
        with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
            fresh.load_weights(tmp_path / "m.weights.h5")
        assert float(fresh.optimizer.learning_rate) == np.float32(0.02)


def tabular(k):
    """Layers with state of their own, in Keras's order of variables, and all that have none."""
    scale = k.layers.Normalization()
    scale.adapt(X)
    layers = k.layers
    return k.Sequential(
        [
            layers.Input(shape=(4,)),
            scale,
            layers.Dense(6, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.PReLU(),
            layers.GaussianNoise(0.0, seed=1),
            layers.Dense(6, bias_regularizer=k.regularizers.L2(0.01)),
            layers.LayerNormalization(),
            layers.LeakyReLU(0.1),
            layers.ActivityRegularization(l2=0.01),
            layers.Rescaling(0.5, offset=0.1),
            layers.Activation("tanh"),
            layers.Flatten(),
            layers.BatchNormalization(trainable=False, center=False),
            layers.AlphaDropout(0.0),
            layers.Dense(1, "sigmoid"),
        ]
    )


def test_layers_with_state_travel_both_ways(keras, tmp_path):
    with floatx(keras, "float64"):
        keras.utils.clear_session(free_memory=False)
        for here, there in ((keras, minidl_keras), (minidl_keras, keras)):
            here.utils.set_random_seed(1)
            model = compiled(here, tabular(here), here.optimizers.SGD(0.1, momentum=0.9))
            batches(model, 3)
            model.save(tmp_path / "m.keras")
            model.save_weights(tmp_path / "m.weights.h5")
            other = there.models.load_model(tmp_path / "m.keras")
            for got, expected in zip(variables(other), variables(model), strict=True):
                assert_same(got, expected)
            np.testing.assert_allclose(other.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-12)
            again = there.models.clone_model(other)
            again.load_weights(tmp_path / "m.weights.h5")
            for got, expected in zip(again.get_weights(), model.get_weights(), strict=True):
                assert_same(np.asarray(got), np.asarray(expected))
            batches(model, 2)
            batches(other, 2)
            for got, expected in zip(variables(other), variables(model), strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_a_functional_chain_travels_both_ways(keras, tmp_path):
    for here, there in ((keras, minidl_keras), (minidl_keras, keras)):
        here.utils.set_random_seed(1)
        inputs = here.Input((4,))
        outputs = here.layers.Dense(3, "relu")(inputs)
        outputs = here.layers.BatchNormalization()(outputs)
        outputs = here.layers.Dropout(0.2)(outputs)
        inner = here.Sequential([here.layers.Dense(3), here.layers.ReLU()])
        model = here.Model(inputs, here.layers.Dense(1)(inner(outputs)))
        compiled(here, model, "nadam", loss="mse", metrics=None)
        batches(model, 2)
        model.save(tmp_path / "m.keras")
        other = there.models.load_model(tmp_path / "m.keras")
        assert type(other).__name__ == "Functional"
        for got, expected in zip(variables(other), variables(model), strict=True):
            assert_same(got, expected)
        np.testing.assert_allclose(other.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)


def test_a_model_with_branches_is_refused_by_name(keras, tmp_path):
    inputs = keras.Input((4,))
    outputs = keras.layers.Dropout(0.5)(inputs, training=True)
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    with pytest.raises(minidl_keras.saving.FileFormatError, match="with more than its inputs"):
        minidl_keras.models.load_model(tmp_path / "m.keras")
    branches = keras.layers.Dense(4)(inputs), keras.layers.Dense(4)(inputs)
    keras.Model(inputs, keras.layers.Add()(branches)).save(tmp_path / "m.keras")
    with pytest.raises(minidl_keras.saving.FileFormatError, match="no chain of layers"):
        minidl_keras.models.load_model(tmp_path / "m.keras")


def test_unbuilt_and_uncompiled_models(keras, tmp_path):
    for here, there in ((keras, minidl_keras), (minidl_keras, keras)):
        model = here.Sequential([here.layers.Dense(2), here.layers.Dense(1)])
        model.build((None, 3))
        model.save(tmp_path / "m.keras")
        other = there.models.load_model(tmp_path / "m.keras")
        assert [w.shape for w in other.get_weights()] == [(3, 2), (2,), (2, 1), (1,)] and not other.compiled
        model = here.Sequential([here.layers.Dense(2)])
        model.compile("sgd", "mse")
        with pytest.warns(UserWarning, match="built"):
            model.save(tmp_path / "m.keras")
        other = there.models.load_model(tmp_path / "m.keras")
        assert not other.built and other.optimizer.name == model.optimizer.name


def test_json_travels_both_ways(keras):
    for here, there in ((keras, minidl_keras), (minidl_keras, keras)):
        model = compiled(here, rich(here, 0.5), "adamw", weighted_metrics=[here.metrics.Recall(thresholds=0.3)])
        other = there.models.model_from_json(model.to_json())
        assert without_what_varies(json.loads(other.to_json())) == without_what_varies(json.loads(model.to_json()))


LOSSES = [
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1, "reduction": "sum", "name": "q"}),
    ("BinaryFocalCrossentropy", {"gamma": 3.0, "apply_class_balancing": True}),
    ("CategoricalCrossentropy", {"axis": 1}),
    ("SparseCategoricalCrossentropy", {"from_logits": True}),
    *[(name, {"reduction": "none"}) for name in (
        "MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredLogarithmicError",
        "LogCosh", "Hinge", "SquaredHinge", "KLDivergence", "Poisson", "Huber",
    )],
]  # fmt: skip
METRICS = [
    ("BinaryAccuracy", {"threshold": 0.3}), ("TopKCategoricalAccuracy", {"k": 3}), ("Mean", {}), ("Sum", {}),
    ("SparseTopKCategoricalAccuracy", {"k": 2}), ("BinaryCrossentropy", {"from_logits": True}),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}), ("SparseCategoricalCrossentropy", {}),
    ("TruePositives", {}), ("FalsePositives", {"thresholds": [0.2, 0.3]}), ("TrueNegatives", {}),
    ("FalseNegatives", {}), ("Precision", {"top_k": 2}), ("Recall", {"thresholds": 0.2, "class_id": 1}), ("AUC", {}),
    ("AUC", {"thresholds": [0.2, 0.7], "curve": "PR", "name": "pr"}), ("FBetaScore", {"beta": 2.0}), ("F1Score", {}),
    ("R2Score", {"num_regressors": 1}), ("RootMeanSquaredError", {}), ("LogCoshError", {"dtype": "float64"}),
    *[(name, {}) for name in (
        "Accuracy", "CategoricalAccuracy", "SparseCategoricalAccuracy", "KLDivergence", "Poisson", "Hinge",
        "SquaredHinge", "MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError",
        "MeanSquaredLogarithmicError",
    )],
]  # fmt: skip


def test_configs_of_losses_and_metrics_are_keras_s(keras):
    """serialize writes what Keras writes, and each reads the other's."""
    keras.utils.clear_session(free_memory=False)
    for kind, cases in (("losses", LOSSES), ("metrics", METRICS)):
        theirs, ours = getattr(keras, kind), getattr(minidl_keras, kind)
        for name, options in cases:
            expected = theirs.serialize(getattr(theirs, name)(**options))
            got = ours.serialize(getattr(ours, name)(**options))
            if name == "Huber":  # Keras forgets delta; it reads it
                assert got["config"].pop("delta") == 1.0
            assert got == expected
            assert ours.serialize(ours.deserialize(expected))["config"].items() >= expected["config"].items()
            assert theirs.serialize(theirs.deserialize(got)) == expected
    function = keras.losses.mean_squared_error
    assert minidl_keras.losses.serialize(minidl_keras.losses.mean_squared_error) == keras.losses.serialize(function)
    config = minidl_keras.losses.serialize(minidl_keras.losses.Huber(3.0))
    assert keras.losses.deserialize(config)._fn_kwargs == {"delta": 3.0}


def test_clone_model_draws_as_keras_draws(keras):
    found = []
    for k in (keras, minidl_keras):
        k.utils.set_random_seed(5)
        model = compiled(k, rich(k, 0.5), "adam")
        clone = k.models.clone_model(model)
        assert clone.name == "rich" and clone.optimizer.name.startswith("adam")
        found.append([np.asarray(weight) for weight in clone.get_weights()])
        assert not any(np.array_equal(a, b) for a, b in zip(found[-1][::2], model.get_weights()[::2], strict=False))
    for expected, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)  # as the initializers' own tests bound it


def doubled(shape, dtype=None):
    return np.full(shape, 2, dtype)


def halved(weights):
    return weights * 0.5


def test_initializers_and_constraints_that_are_functions_travel_both_ways(keras, tmp_path):
    own = {"doubled": doubled, "halved": halved}
    arguments = {"kernel_initializer": doubled, "kernel_constraint": halved}
    path = tmp_path / "model.keras"
    for ours, theirs in ((minidl_keras, keras), (keras, minidl_keras)):
        model = ours.Sequential([ours.Input((2,)), ours.layers.Dense(3, **arguments)])
        model.save(path)
        with pytest.raises((TypeError, ValueError), match="doubled"):
            theirs.models.load_model(path)
        layer = theirs.models.load_model(path, custom_objects=own).layers[-1]
        assert (layer.kernel_initializer, layer.kernel_constraint) == (doubled, halved)
        assert layer.get_config()["kernel_constraint"] == model.layers[-1].get_config()["kernel_constraint"]


def test_custom_objects_are_written_as_keras_writes_them(keras):
    found = []
    for k in (keras, minidl_keras):

        @k.saving.register_keras_serializable("pkg")
        class Mine(k.layers.Dense):
            pass

        class Other(k.layers.Dense):
            pass

        try:
            for cls in (Mine, Other):
                config = k.layers.serialize(cls(2, name="d"))
                found.append([config[key] for key in ("module", "class_name", "registered_name")])
                model = k.Sequential([k.layers.Input(shape=(3,)), cls(2)])
                if cls is Other:
                    with pytest.raises((TypeError, ValueError), match="Other"):
                        k.models.model_from_json(model.to_json())
                again = k.models.model_from_json(model.to_json(), custom_objects={"Other": Other})
                assert type(again.layers[0]) is cls
        finally:
            k.saving.get_custom_objects().pop("pkg>Mine")
    assert found[2:] == found[:2]


def test_lambdas_are_refused(keras, tmp_path):
    layer = keras.layers.Lambda(lambda x: x * 2)
    model = keras.Sequential([keras.layers.Input(shape=(3,)), layer, keras.layers.Dense(1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "m.keras")
    with pytest.raises(minidl_keras.saving.FileFormatError, match="Lambda: the file holds code"):
        minidl_keras.models.load_model(tmp_path / "m.keras")
