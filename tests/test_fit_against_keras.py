"""fit, evaluate and predict against live Keras: every argument, and every kind of data, in float64.

Both libraries start from one seed, so they take the same rows in the same order. Histories and weights agree to 1e-11
of the largest number: a hundred steps of some tens of roundings of 1e-16 each, with three digits to spare; a row
taken twice, a weight left out or a batch of another size shows in the second digit.
"""

import warnings

import numpy as np
import pytest

import minidl
from minidl import config

pytestmark = pytest.mark.keras

rng = np.random.default_rng(0)
X, Y, W = rng.normal(size=(22, 4)), rng.random(22), rng.gamma(2, size=22)
ONE_HOT = np.eye(3)[rng.integers(0, 3, 22)]
VALIDATION = (rng.normal(size=(7, 4)), rng.random(7), rng.random(7))


def generator(n):
    for i in range(n):
        yield X[i : i + 5], Y[i : i + 5], W[i : i + 5]


def dataset(k, batches=3, weights=False, changes=True):
    class Data(k.utils.PyDataset):
        ended = 0

        def __len__(self):
            return batches

        def __getitem__(self, i):
            i = i + self.ended * changes  # each epoch's data are others
            batch = X[i : i + 4], Y[i : i + 4]
            return (*batch, W[i : i + 4]) if weights else batch

        def on_epoch_end(self):
            self.ended += 1

    return Data()


FITS = {
    "plain": lambda k: {"x": X, "y": Y, "epochs": 3, "batch_size": 5},
    "no shuffle": lambda k: {"x": X, "y": Y, "epochs": 2, "shuffle": False},
    "shuffled batches": lambda k: {"x": X, "y": Y, "epochs": 2, "shuffle": "batch", "batch_size": 5},
    "lists of arrays": lambda k: {"x": X, "y": Y[:, None], "sample_weight": W[:, None], "epochs": 2},
    "sample_weight": lambda k: {"x": X, "y": Y, "sample_weight": W, "epochs": 2, "batch_size": 5},
    "class_weight": lambda k: {"x": X, "y": Y, "class_weight": {0: 0.5, 1: 3.0}, "batch_size": 5},
    "validation_split": lambda k: {"x": X, "y": Y, "sample_weight": W, "validation_split": 0.3, "epochs": 2},
    "validation_data": lambda k: {
        "x": X, "y": Y, "validation_data": VALIDATION, "validation_batch_size": 3, "epochs": 2,
    },
    "validation_freq": lambda k: {"x": X, "y": Y, "validation_data": VALIDATION[:2], "validation_freq": 2, "epochs": 5},
    "validation epochs": lambda k: {"x": X, "y": Y, "validation_split": 0.2, "validation_freq": [1, 4], "epochs": 4},
    "validation_steps": lambda k: {
        "x": X, "y": Y, "validation_data": VALIDATION, "validation_steps": 2, "batch_size": 3, "epochs": 2,
    },
    "steps_per_epoch": lambda k: {"x": X, "y": Y, "steps_per_epoch": 2, "batch_size": 5, "epochs": 5},
    "steps without batch_size": lambda k: {"x": X, "y": Y, "steps_per_epoch": 3, "epochs": 2},
    "more steps than data": lambda k: {"x": X, "y": Y, "steps_per_epoch": 7, "batch_size": 5, "epochs": 2},
    "initial_epoch": lambda k: {"x": X, "y": Y, "initial_epoch": 2, "epochs": 4},
    "no epochs": lambda k: {"x": X, "y": Y, "epochs": 0},
    "lists of one": lambda k: {"x": [X], "y": [Y], "sample_weight": [W], "epochs": 2},
    "a dict of one": lambda k: {"x": {"features": X}, "y": Y[:, None, None], "epochs": 2},
    "generator": lambda k: {"x": generator(3), "shuffle": False, "epochs": 2},
    "generator in steps": lambda k: {"x": generator(9), "shuffle": False, "steps_per_epoch": 2, "epochs": 3},
    "dataset": lambda k: {"x": dataset(k), "epochs": 3},
    "dataset as it comes": lambda k: {"x": dataset(k, weights=True), "shuffle": False, "epochs": 2},
    "dataset in steps": lambda k: {
        "x": dataset(k, changes=False),  # Keras fetches the next batches ahead, before the epoch's end
        "steps_per_epoch": 2, "shuffle": False, "epochs": 3,
    },
    "dataset and class_weight": lambda k: {"x": dataset(k), "class_weight": {1: 4.0}, "epochs": 2},
    "validation on a dataset": lambda k: {"x": X, "y": Y, "validation_data": dataset(k), "epochs": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def float64(request):
    keras = pytest.importorskip("keras")
    keras.config.set_floatx("float64")
    keras.utils.clear_session(free_memory=False)
    yield keras
    keras.config.set_floatx("float32")
    keras.utils.clear_session(free_memory=False)


@pytest.fixture(autouse=True)
def ours_too():
    config.set_floatx("float64")


def build(k, rate=0.3, **arguments):
    k.utils.set_random_seed(5)
    la = k.layers
    model = k.Sequential(
        [la.Input((4,), name="features"), la.Dense(5, activation="tanh"), la.Dropout(rate), la.Dense(1)]
    )
    compiled = {"optimizer": "adam", "loss": "mse", "metrics": ["mae"], "weighted_metrics": ["mse"]} | arguments
    if callable(compiled["optimizer"]):
        compiled["optimizer"] = compiled["optimizer"](k)
    model.compile(**compiled)
    return model


def close(name, ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{name}: {ours.shape}, {theirs.shape}"
    assert np.isfinite(ours).all(), name
    if ours.size:
        worst = np.abs(ours - theirs).max()
        assert worst <= 1e-11 * np.abs(theirs).max(), f"{name}: off by {worst:.2g}"


def same_fit(keras, make, **compiled):
    histories, models = [], []
    for k in (keras, minidl):
        models.append(build(k, **compiled))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            histories.append(models[-1].fit(**make(k), verbose=0).history)
        for said in ("ran out of data", "`shuffle=True` was passed, but will be ignored"):
            histories[-1][said] = [sum(said in str(w.message) for w in caught)]
    theirs, ours = histories
    assert list(ours) == list(theirs)
    for name in theirs:
        close(name, ours[name], theirs[name])
    for weight, their in zip(models[1].weights, models[0].weights, strict=True):
        close(weight.path, weight, their.numpy())
    return models


@pytest.mark.parametrize("name", FITS)
def test_fit(float64, name):
    same_fit(float64, FITS[name])


OUT_OF_DATA = {
    "adam": {},
    "eager": {"run_eagerly": True},
    "two steps an execution": {"steps_per_execution": 2},
    "rate 1": {"rate": 1.0},
    "adamw": {"optimizer": lambda k: k.optimizers.AdamW(0.1, weight_decay=0.2)},
    "nadam": {"optimizer": lambda k: k.optimizers.Nadam(0.1)},
    "schedule": {"optimizer": lambda k: k.optimizers.SGD(k.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5))},
    "average": {
        "optimizer": lambda k: k.optimizers.SGD(
            0.1, 0.5, weight_decay=0.2, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
        )
    },
    "sgd accumulates": {
        "optimizer": lambda k: k.optimizers.SGD(0.1, 0.5, weight_decay=0.2, gradient_accumulation_steps=2)
    },
    "adam accumulates": {
        "optimizer": lambda k: k.optimizers.Adam(0.1, weight_decay=0.2, gradient_accumulation_steps=2)
    },
    "nadam accumulates": {
        "optimizer": lambda k: k.optimizers.Nadam(0.1, weight_decay=0.2, gradient_accumulation_steps=3)
    },
}


@pytest.mark.parametrize("name", OUT_OF_DATA)
def test_the_step_that_finds_no_batch(float64, name):
    for batches in (2, 3) if "accumulates" in name else (3,):
        # Keras on TensorFlow has begun that step: seeds, weight decay and the count have moved on
        models = same_fit(float64, lambda k, n=batches: {"x": generator(n), "epochs": 4}, **OUT_OF_DATA[name])
        assert int(models[1].optimizer.iterations) == int(models[0].optimizer.iterations)
        theirs, ours = (model.layers[1].seed_generator.state for model in models)
        assert ours.tolist() == theirs.numpy().tolist()


def test_compiled_again_a_model_keeps_what_is_not_given(float64):
    histories = []
    for k in (float64, minidl):
        model = build(k)
        model.fit(X, Y, verbose=0)
        model.compile("sgd")
        histories.append(model.fit(X, Y, verbose=0).history)
    assert list(histories[1]) == list(histories[0])
    for name in histories[0]:
        close(name, histories[1][name], histories[0][name])


@pytest.mark.parametrize(
    "compiled",
    [
        {"steps_per_execution": 3},
        {"loss_weights": 0.3},
        {"loss_weights": [2.5], "loss": ["mae"]},
        {"metrics": [["mae"]], "auto_scale_loss": False},
        {"run_eagerly": True},
        {"metrics": {"a": "mae", "b": ["mse", "mae"]}, "weighted_metrics": {"a": "mse"}},
    ],
    ids=str,
)
def test_compile(float64, compiled):
    same_fit(float64, lambda k: {"x": X, "y": Y, "batch_size": 5, "epochs": 2}, **compiled)


def test_evaluate_and_predict(float64):
    theirs, ours = same_fit(float64, FITS["plain"])
    for arguments in (
        {"x": X, "y": Y, "batch_size": 5},
        {"x": X, "y": Y, "sample_weight": W, "batch_size": 4, "steps": 3},
        {"x": X, "y": Y, "return_dict": True},
        {"x": X, "y": Y, "steps": 4},
    ):
        found, expected = (model.evaluate(**arguments, verbose=0) for model in (ours, theirs))
        if isinstance(expected, dict):
            assert list(found) == list(expected)
            found, expected = list(found.values()), list(expected.values())
        close(str(arguments.keys()), found, expected)
    for k, model in ((float64, theirs), (minidl, ours)):
        assert len(model.predict(X, batch_size=5, steps=2, verbose=0)) == 10, k
        assert len(model.predict(dataset(k), verbose=0)) == 12, k
    close("predict", ours.predict(X, verbose=0), theirs.predict(X, verbose=0))
    close("dataset", ours.evaluate(dataset(minidl), verbose=0), theirs.evaluate(dataset(float64), verbose=0))
    for name in ("train_on_batch", "test_on_batch"):
        found, expected = (getattr(model, name)(X, Y, sample_weight=W, return_dict=True) for model in (ours, theirs))
        assert list(found) == list(expected)
        close(name, list(found.values()), [float(v) for v in expected.values()])
    assert ours.metrics_names == theirs.metrics_names
    result = theirs.get_metrics_result()
    assert list(ours.get_metrics_result()) == list(result)


@pytest.mark.parametrize("shape", [(5, 1), (5, 3), (5, 3, 1)])
def test_weights_of_outputs_with_more_axes(float64, shape):
    inputs, labels = X[:15].reshape(5, 3, 4), ONE_HOT[:15].reshape(5, 3, 3)
    weights = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    found = []
    for k in (float64, minidl):
        k.utils.set_random_seed(5)
        model = k.Sequential([k.layers.Input((3, 4)), k.layers.Dense(3)])
        model.compile("adam", "mse", weighted_metrics=["mae"])
        found.append([model.train_on_batch(inputs, labels, sample_weight=weights) for _ in range(2)])
    close("losses", found[1], found[0])


def test_losses_by_the_output_s_name(float64):
    found = []
    for k in (float64, minidl):
        k.utils.set_random_seed(5)
        inputs = k.Input((4,))
        model = k.Model(inputs, k.layers.Dense(1, name="out")(inputs))
        with pytest.raises(ValueError, match="out"):
            model.compile("adam", {"other": "mse"})
            model.train_on_batch(X, Y)
        model.compile("adam", {"out": "mse"}, loss_weights={"out": 0.5})
        found.append(model.train_on_batch(X, Y))
    close("losses", found[1], found[0])


def test_class_weights_of_one_hot_and_sparse_labels(float64):
    for labels, loss in ((ONE_HOT, "categorical_crossentropy"), (ONE_HOT.argmax(1), "sparse_categorical_crossentropy")):
        histories = []
        for k in (float64, minidl):
            k.utils.set_random_seed(5)
            model = k.Sequential([k.layers.Input((4,)), k.layers.Dense(3, activation="softmax")])
            model.compile("adam", loss, metrics=["accuracy"])
            fitted = model.fit(X, labels, class_weight={0: 2.0, 2: 0.25}, batch_size=5, epochs=2, verbose=0)
            histories.append(fitted.history)
        for name in histories[0]:
            close(name, histories[1][name], histories[0][name])


def no_loss(k):
    model = k.Sequential([k.layers.Input((4,)), k.layers.Dense(1)])
    model.compile("adam")
    assert model.predict(X, verbose=0).shape == (22, 1)
    return model


REFUSED = {
    "y with a generator": (lambda k, m: m.fit(generator(3), Y, verbose=0), ValueError),
    "weights with a dataset": (lambda k, m: m.fit(dataset(k), sample_weight=W, verbose=0), ValueError),
    "class weights with a generator": (lambda k, m: m.fit(generator(3), class_weight={0: 1.0}, verbose=0), ValueError),
    "both weights": (lambda k, m: m.fit(X, Y, sample_weight=W, class_weight={0: 1.0}, verbose=0), ValueError),
    "an empty generator": (lambda k, m: m.fit(generator(0), verbose=0), ValueError),
    "a generator of arrays": (lambda k, m: m.fit((X for _ in range(3)), verbose=0), ValueError),
    "a split of a generator": (lambda k, m: m.fit(generator(3), validation_split=0.5, verbose=0), ValueError),
    "a split that leaves nothing": (lambda k, m: m.fit(X, Y, validation_split=0.99, verbose=0), ValueError),
    "other lengths": (lambda k, m: m.fit(X, Y[:5], verbose=0), ValueError),
    "no loss": (lambda k, m: no_loss(k).fit(X, Y, verbose=0), ValueError),
    "validation epochs in a tuple": (
        lambda k, m: m.fit(X, Y, validation_data=(X, Y), validation_freq=(2,), verbose=0), ValueError
    ),
    "an integer loss weight": (lambda k, m: m.compile("adam", "mse", loss_weights=2), ValueError),
    "a dict by another name": (lambda k, m: m.predict({"other": X}, verbose=0), ValueError),
    "metrics that are no list": (lambda k, m: m.compile("adam", "mse", metrics="mae"), ValueError),
    "results before data": (lambda k, m: m.get_metrics_result(), ValueError),
    "an unknown argument": (lambda k, m: m.evaluate(X, Y, foo=1), ValueError),
    "weights of another shape": (lambda k, m: m.train_on_batch(X, Y, sample_weight=np.ones((22, 2))), ValueError),
    "not compiled": (lambda k, m: k.Sequential([k.layers.Dense(1)]).fit(X, Y, verbose=0), ValueError),
    "class and batch weights": (
        lambda k, m: m.fit(dataset(k, weights=True), class_weight={0: 1.0}, verbose=0), ValueError
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_the_same_is_refused(float64, name):
    call, error = REFUSED[name]
    for k in (float64, minidl):
        model = build(k)
        before = [np.array(w) for w in model.get_weights()]
        with pytest.raises(error), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras: that a generator is not shuffled
            call(k, model)
        if k is minidl:  # Keras finds some of it only after an epoch
            for got, expected in zip(model.get_weights(), before, strict=True):
                np.testing.assert_array_equal(got, expected)
