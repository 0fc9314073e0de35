"""The estimators under scikit-learn's own checks and tools, and the seeds that they leave alone."""

import pickle
import random as python_random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import minidl as keras
from minidl import config, random

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.datasets import make_classification, make_regression  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from minidl.sklearn import (  # noqa: E402
    MLPClassifier,
    MLPRegressor,
    SKLearnClassifier,
    SKLearnRegressor,
    SKLearnTransformer,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def penguins():
    (x, y), (x_test, y_test) = keras.datasets.penguins.load_data()
    return x, np.where(y == 1, "male", "female"), x_test, np.where(y_test == 1, "male", "female")


class SeededModel:
    """Keras's own model for these checks; seeded, so that the checks that fit twice see one result."""

    def __call__(self, X, y, loss, out_activation_function="softmax", layers=(10,)):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((X.shape[1],))])
        for units in layers:
            model.add(keras.layers.Dense(units, activation="relu"))
        model.add(keras.layers.Dense(y.shape[1], activation=out_activation_function))
        model.compile(loss=loss, optimizer="rmsprop")
        return model

    def __repr__(self):  # part of the tests' names, which must be the same in every process
        return "seeded_model"


seeded_model = SeededModel()

WRAPPED = {
    SKLearnClassifier: {
        "model_kwargs": {"loss": "categorical_crossentropy", "layers": [20, 20, 20]},
        "fit_kwargs": {"epochs": 5, "verbose": 0},
    },
    SKLearnRegressor: {
        "model_kwargs": {"loss": "mse", "out_activation_function": None},
        "fit_kwargs": {"verbose": 0},
    },
    SKLearnTransformer: {"model_kwargs": {"loss": "mse"}, "fit_kwargs": {"verbose": 0}},
}


# ---------------------------------------------------------------------------- scikit-learn's own checks


@parametrize_with_checks(
    [MLPClassifier(), MLPRegressor(), MLPClassifier((8,), batch_size=512, epochs=80, learning_rate=0.01, l2=1e-4)]
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


# decision_function gives one column a class, where the checks want one column of two classes: Keras's own failures
KERAS_S_OWN = {
    "check_classifiers_classes": "decision_function has two columns for two classes",
    "check_classifiers_train": "decision_function has two columns for two classes",
}


@parametrize_with_checks(
    [cls(seeded_model, **arguments) for cls, arguments in WRAPPED.items()],
    expected_failed_checks=lambda estimator: KERAS_S_OWN if isinstance(estimator, SKLearnClassifier) else {},
)
def test_checks_of_scikit_learn_on_keras_s_wrappers(estimator, check):
    check(estimator)


# ------------------------------------------------------------------------------- scikit-learn's own tools


def test_pipeline_of_labels_that_are_text(penguins):
    x, y, x_test, y_test = penguins
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(learning_rate=0.01, random_state=0)).fit(x, y)
    network = pipeline[-1]
    assert network.classes_.tolist() == ["female", "male"] and network.n_features_in_ == 4
    assert pipeline.score(x_test, y_test) > 0.8
    probabilities = pipeline.predict_proba(x_test)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=2**-22)  # float32: 1 − p rounds once
    np.testing.assert_array_equal(network.classes_[probabilities.argmax(axis=1)], pipeline.predict(x_test))


def test_grid_search_finds_the_network_that_can_learn(penguins):
    x, y, *_ = penguins
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((4,), random_state=0, epochs=20, learning_rate=0.05))
    search = GridSearchCV(pipeline, {"mlpclassifier__l1": [0.0, 10.0]}, cv=3).fit(x, y)
    assert search.best_params_ == {"mlpclassifier__l1": 0.0}
    assert search.best_score_ > 0.8
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_cross_validation_of_three_classes():
    x, y = make_classification(300, n_informative=6, n_classes=3, class_sep=2.0, random_state=0)
    scores = cross_val_score(MLPClassifier(learning_rate=0.01, epochs=30, random_state=0), x, y, cv=3)
    assert scores.shape == (3,) and scores.min() > 0.75


def test_regression_of_one_target_and_of_two():
    x, y = make_regression(200, n_features=5, n_targets=2, random_state=0)
    y = y / y.std(axis=0)
    network = MLPRegressor(learning_rate=0.01, epochs=60, random_state=0)
    assert network.fit(x, y).score(x, y) > 0.95
    assert network.predict(x).shape == (200, 2)
    assert network.fit(x, y[:, 0]).score(x, y[:, 0]) > 0.95
    assert network.predict(x).shape == (200,)


def test_frames_keep_their_column_names(penguins):
    pandas = pytest.importorskip("pandas")
    x, y, *_ = penguins
    frame = pandas.DataFrame(x, columns=["bill", "depth", "flipper", "mass"])
    network = MLPClassifier(epochs=1).fit(frame, y)
    assert network.feature_names_in_.tolist() == ["bill", "depth", "flipper", "mass"]
    with pytest.raises(ValueError, match="feature names"):
        network.predict(frame.rename(columns={"bill": "beak"}))


# ----------------------------------------------------------------------------------- what is computed


def test_a_seed_gives_the_network_that_it_gives_elsewhere(penguins):
    x, y, *_ = penguins
    found = MLPClassifier((5, 3), dropout=0.25, l1=1e-3, l2=1e-2, batch_size=16, epochs=3, random_state=7).fit(x, y)
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.layers.Input((4,))])
    for units in (5, 3):
        model.add(
            keras.layers.Dense(units, activation="relu", kernel_regularizer=keras.regularizers.L1L2(l1=1e-3, l2=1e-2))
        )
        model.add(keras.layers.Dropout(0.25))
    model.add(keras.layers.Dense(1, activation="sigmoid", kernel_regularizer=keras.regularizers.L1L2(l1=1e-3, l2=1e-2)))
    model.compile(optimizer="adam", loss="binary_crossentropy")
    history = model.fit(x, y == "male", batch_size=16, epochs=3, verbose=0)
    assert found.history_ == history.history
    assert found.n_iter_ == 3
    for a, b in zip(found.model_.get_weights(), model.get_weights(), strict=True):
        assert a.dtype == "float32"
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_precision_is_that_of_x(dtype):
    x, y = make_classification(40, random_state=0)
    network = MLPClassifier(epochs=1).fit((10 * x).astype(dtype), y)
    expected = dtype if dtype.startswith("float") else "float64"
    assert network.predict_proba((10 * x).astype(dtype)).dtype == network.model_.get_weights()[0].dtype == expected


def test_weights_of_samples_stand_for_rows():
    x, y = make_classification(40, random_state=0)
    weights = np.random.default_rng(0).integers(0, 4, size=40)
    weighted = MLPClassifier(epochs=20, random_state=0).fit(x, y, sample_weight=weights)
    repeated = MLPClassifier(epochs=20, random_state=0).fit(x.repeat(weights, axis=0), y.repeat(weights))
    # one batch in both: the same sums in another order, in float64, 20 times
    np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), rtol=1e-12)
    unweighted = MLPClassifier(epochs=20, random_state=0).fit(x, y)
    assert np.abs(weighted.predict_proba(x) - unweighted.predict_proba(x)).max() > 1e-3


def test_arguments_are_left_as_they_are():
    optimizer = keras.optimizers.SGD(learning_rate=0.5, momentum=0.9)
    x, y = make_classification(40, random_state=0)
    network = MLPClassifier(3, optimizer=optimizer, learning_rate=0.125, epochs=1, activation="tanh").fit(x, y)
    assert network.optimizer is optimizer and optimizer.learning_rate == 0.5 and not optimizer.built
    assert network.model_.optimizer.learning_rate == 0.125 and network.model_.optimizer.momentum == 0.9
    assert config.floatx() == "float32"
    assert [layer.name for layer in network.model_.layers] == ["hidden_0", "output"]
    assert keras.layers.Dense(1).name == "dense"  # and no name is counted up


def test_early_stopping_keeps_the_best_weights_on_rows_held_out(rng):
    x, y = rng.normal(size=(60, 20)), np.arange(60) % 2  # nothing to learn: the loss on others only rises
    network = MLPClassifier(
        (64,), early_stopping=True, patience=3, epochs=500, learning_rate=0.02, random_state=0, validation_fraction=0.2
    ).fit(x, y)
    losses = network.history_["val_loss"]
    best = int(np.argmin(losses)) + 1
    assert network.n_iter_ == len(losses) == best + 3
    stopped = clone(network).set_params(epochs=best).fit(x, y)  # ends at the best epoch by itself
    np.testing.assert_array_equal(network.predict_proba(x), stopped.predict_proba(x))
    weighted = MLPClassifier(early_stopping=True, epochs=2).fit(x, y, sample_weight=rng.uniform(1, 2, size=60))
    assert len(weighted.history_["val_loss"]) == 2


# ------------------------------------------------------------------------------------------- the seeds


def drawn():
    """The next numbers of every global generator."""
    return [
        python_random.random(),
        float(np.random.uniform()),
        random.global_seed(),
        float(random.uniform((1,))[0]),
        int(random.torch_global_generator().randint(2**31)),
    ]


@pytest.mark.parametrize("stream", config.RANDOM_STREAMS)
def test_the_global_generators_are_left_as_they_were(stream):
    config.set_random_stream(stream)
    x, y = make_classification(40, random_state=0)
    network = MLPClassifier(epochs=2, dropout=0.5, random_state=3)
    keras.utils.set_random_seed(5)
    random.uniform((1,))
    expected = drawn()
    keras.utils.set_random_seed(5)
    random.uniform((1,))
    network.fit(x, y).predict(x)
    with pytest.raises(ValueError, match="Unknown optimizer"):
        clone(network).set_params(optimizer="adom").fit(x, y)
    assert drawn() == expected


@pytest.mark.parametrize("make", [lambda: 4, lambda: np.int64(4), lambda: np.random.RandomState(4)])
def test_a_random_state_gives_one_result(make):
    x, y = make_classification(40, random_state=0)
    first, second = (MLPClassifier(epochs=2, random_state=make()).fit(x, y).predict_proba(x) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = MLPClassifier(epochs=2, random_state=5).fit(x, y).predict_proba(x)
    assert (other != first).any()


def test_without_a_random_state_the_seed_comes_from_numpy():
    x, y = make_classification(40, random_state=0)
    np.random.seed(0)
    first = MLPClassifier(epochs=1).fit(x, y).predict_proba(x)
    second = MLPClassifier(epochs=1).fit(x, y).predict_proba(x)
    np.random.seed(0)
    np.testing.assert_array_equal(MLPClassifier(epochs=1).fit(x, y).predict_proba(x), first)
    assert (first != second).any()


def test_threads_do_not_mix_their_seeds():
    x, y = make_classification(40, random_state=0)
    expected = [MLPClassifier(epochs=3, random_state=seed).fit(x, y).predict_proba(x) for seed in range(6)]
    found = [MLPClassifier(epochs=3, random_state=seed) for seed in range(6)]
    threads = [threading.Thread(target=network.fit, args=(x, y)) for network in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for network, probabilities in zip(found, expected, strict=True):
        np.testing.assert_array_equal(network.predict_proba(x), probabilities)


# --------------------------------------------------------------------------------------------- misuse


def test_what_cannot_be_learned_from_is_refused():
    sparse = pytest.importorskip("scipy.sparse")
    x, y = make_classification(40, n_features=5, random_state=0)
    network = MLPClassifier(epochs=1)
    with pytest.raises(ValueError, match="NaN"):
        network.fit(np.where(x > 2, np.nan, x), y)
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        network.fit(sparse.csr_matrix(x), y)
    with pytest.raises(ValueError, match="the data have one class"):
        network.fit(x, np.full(40, "only"))
    with pytest.raises(ValueError, match="one class"):
        network.fit(x, y, sample_weight=y)
    for weights in (-np.ones(40), np.zeros(40), np.ones(39), np.ones((40, 1))):
        with pytest.raises(ValueError, match="sample_weight"):
            network.fit(x, y, sample_weight=weights)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        network.fit(x, x[:, 0])
    assert not hasattr(network, "model_")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"hidden_layer_sizes": (3, 0)}, "a size in hidden_layer_sizes"),
        ({"dropout": 1.5}, "rate must be"),
        ({"l1": -1.0}, "l1"),
        ({"activation": "rleu"}, "Did you mean 'relu'"),
        ({"optimizer": "adom"}, "Did you mean 'adam'"),
        ({"learning_rate": -1.0}, "learning_rate must be"),
        ({"random_state": -1}, "Seed must be"),
        ({"early_stopping": True, "validation_fraction": 0}, "validation_fraction must be"),
    ],
)
def test_bad_arguments_are_refused_by_fit(arguments, message):
    x, y = make_classification(40, random_state=0)
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**arguments).fit(x, y)


def test_without_scikit_learn_the_extra_is_named():
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from minidl import keras\n"
        "for load in ('import minidl.sklearn', 'keras.wrappers.SKLearnClassifier'):\n"
        "    try: exec(load)\n"
        "    except ImportError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.count("pip install 'minidl[sklearn]'") == 2, run.stdout + run.stderr


# -------------------------------------------------------------------------------------- Keras's wrappers


def test_wrappers_are_found_under_keras_s_names():
    from minidl.keras.wrappers import SKLearnClassifier as other

    assert keras.wrappers.SKLearnClassifier is keras.keras.wrappers.SKLearnClassifier is other is SKLearnClassifier
    assert dir(keras.wrappers) == ["SKLearnClassifier", "SKLearnRegressor", "SKLearnTransformer"]
    with pytest.raises(AttributeError, match="SKLearnCluster"):
        keras.wrappers.SKLearnCluster  # noqa: B018


def compiled_model():
    model = keras.Sequential([keras.layers.Input((20,)), keras.layers.Dense(2, activation="softmax")])
    model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.SGD(0.1))
    return model


def test_a_model_is_cloned_unless_warm():
    x, y = make_classification(60, random_state=0)
    model = compiled_model()
    before = model.get_weights()
    fitted = SKLearnClassifier(model, fit_kwargs={"verbose": 0}).fit(x, y, epochs=2)
    assert fitted.model_ is not model and fitted.epoch_ == 2
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    warm = SKLearnClassifier(model, warm_start=True, fit_kwargs={"verbose": 0}).fit(x, y)
    assert warm.model_ is model
    after = model.get_weights()
    assert (after[0] != before[0]).any()
    warm.fit(x, y)
    assert (model.get_weights()[0] != after[0]).any()


def test_a_function_is_called_once_when_warm():
    x, y = make_classification(60, random_state=0)
    calls = []

    def build(X, y):
        calls.append((X.shape, y.shape))
        return compiled_model()

    warm = SKLearnClassifier(build, warm_start=True, fit_kwargs={"verbose": 0}).fit(x, y).fit(x, y)
    assert calls == [((60, 20), (60, 2))]
    assert SKLearnClassifier(build, fit_kwargs={"verbose": 0}).fit(x, y).fit(x, y).model_ is not warm.model_
    assert len(calls) == 3


def test_clones_keep_all_arguments():
    wrapper = SKLearnClassifier(compiled_model(), True, {"a": 1}, {"epochs": 3})
    copied = clone(wrapper)
    assert copied.get_params() | {"model": None} == wrapper.get_params() | {"model": None}
    assert copied.model is not wrapper.model
    np.testing.assert_array_equal(copied.model.get_weights()[0], wrapper.model.get_weights()[0])


def test_a_model_that_is_not_compiled_is_refused():
    x, y = make_classification(60, random_state=0)
    with pytest.raises(RuntimeError, match="needs to be compiled"):
        SKLearnClassifier(lambda X, y: keras.Sequential([keras.layers.Dense(2)])).fit(x, y)


def test_metadata_routing_passes_what_was_asked_for():
    x, y = make_classification(60, random_state=0)
    wrapper = SKLearnClassifier(seeded_model, **WRAPPED[SKLearnClassifier])
    with pytest.raises(RuntimeError, match="enable_metadata_routing"):
        wrapper.set_fit_request(epochs=True)
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(wrapper.set_fit_request(epochs=True), {"warm_start": [False]}, cv=2)
        assert search.fit(x, y, epochs=3).best_estimator_.epoch_ == 3


@pytest.mark.keras
@pytest.mark.parametrize("name", ["SKLearnClassifier", "SKLearnRegressor", "SKLearnTransformer"])
def test_wrappers_compute_what_keras_s_compute(keras, name):
    import minidl

    x, y = make_classification(50, n_features=6, n_classes=2, random_state=0)
    found = []
    for library in (keras, minidl.keras):

        def build(X, y, loss, library=library):
            library.utils.set_random_seed(1)
            model = library.Sequential([library.layers.Input((6,)), library.layers.Dense(y.shape[1])])
            model.compile(library.optimizers.SGD(0.01), loss)
            return model

        before = library.config.floatx()
        library.config.set_floatx("float64")
        library.utils.clear_session(free_memory=False)  # forgets the dtype policy made of another float type
        try:
            wrapper = getattr(library.wrappers, name)(build, model_kwargs={"loss": "mse"}, fit_kwargs={"verbose": 0})
            wrapper.fit(x, y, epochs=3)
            outputs = wrapper.transform(x) if name == "SKLearnTransformer" else wrapper.predict(x)
        finally:
            library.config.set_floatx(before)
            library.utils.clear_session(free_memory=False)
        found.append((outputs, wrapper.history_.history["loss"]))
    (expected, expected_losses), (outputs, losses) = found
    assert outputs.shape == expected.shape and outputs.dtype == expected.dtype
    np.testing.assert_allclose(outputs, expected, rtol=1e-12, atol=1e-12)  # float64, six steps on numbers near 1
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-12)


# ----------------------------------------------------------------------------------- files and processes


@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_fitted_estimators_come_back_from_files(how, tmp_path):
    joblib = pytest.importorskip("joblib")
    x, y = make_classification(40, random_state=0)
    for network in (
        MLPClassifier(epochs=2, dropout=0.5, random_state=0).fit(x, y),
        MLPRegressor(epochs=2, random_state=0).fit(x, y),
        SKLearnClassifier(seeded_model, **WRAPPED[SKLearnClassifier]).fit(x, y),
    ):
        if how == "pickle":
            back = pickle.loads(pickle.dumps(network))
        else:
            joblib.dump(network, tmp_path / "network.joblib")
            back = joblib.load(tmp_path / "network.joblib")
        np.testing.assert_array_equal(back.predict(x), network.predict(x))
        back.model_.fit(x, y if back.model_.output_shape[-1] == 1 else np.eye(2)[y], verbose=0)  # and can go on


def test_processes_find_what_one_process_finds(penguins):
    x, y, *_ = penguins
    network = MLPClassifier(epochs=2, random_state=0)
    alone = cross_val_score(network, x, y, cv=4)
    np.testing.assert_array_equal(cross_val_score(network, x, y, cv=4, n_jobs=2), alone)
    search = GridSearchCV(network, {"l2": [0.0, 0.1]}, cv=2, n_jobs=2).fit(x, y)  # sends nothing fitted back
    assert search.best_estimator_.history_ == clone(search.best_estimator_).fit(x, y).history_
