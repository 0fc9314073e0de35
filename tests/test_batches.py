"""batches.py: what yields batches, in which order, and what is refused; failures in the midst of them."""

import itertools
import signal
import warnings
from unittest import mock

import numpy as np
import pytest
from helpers import assert_same

from minidl import batches, callbacks, config, fused, initializers, losses, optimizers, training, utils
from minidl.batches import ArrayBatches, Epochs, OutOfData, StreamBatches
from minidl.layers import Dense, Input
from minidl.models import Sequential

X = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
Y = np.random.default_rng(1).random(10).astype(np.float32)


def model(**arguments):
    utils.set_random_seed(1)
    found = Sequential([Input((4,)), Dense(3, activation="tanh"), Dense(1)])
    found.compile(**{"optimizer": "adam", "loss": "mse"} | arguments)
    return found


def rows_of(epochs):
    """The batches of an epoch, with the steps at which they came."""
    found = []
    with epochs.until_data_end():
        for first, last, iterator in epochs:
            found.append((first, last, [np.asarray(batch).tolist() for batch in epochs.next_batches(iterator)]))
    return found


def arrays(batch_size=4, shuffle=False):
    return ArrayBatches((X, Y, None), batch_size, shuffle)


def test_an_epoch_is_a_pass_over_the_rows():
    epochs = Epochs(arrays())
    expected = [(0, 0, [[0, 1, 2, 3]]), (1, 1, [[4, 5, 6, 7]]), (2, 2, [[8, 9]])]
    assert rows_of(epochs) == rows_of(epochs) == expected


def test_steps_per_epoch_go_on_where_the_last_epoch_stopped():
    """Of three batches, two a time: 0 1, 2 and the end, 0 1: the third batch ends a pass, as in Keras."""
    epochs = Epochs(arrays(), steps_per_epoch=2)
    first = rows_of(epochs)
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        second = rows_of(epochs)
    third = rows_of(epochs)
    assert [batch[0][0] for _, _, batch in first + second + third] == [0, 4, 8, 0, 4]


def test_executions_of_several_steps():
    found = rows_of(Epochs(arrays(), steps_per_execution=2))
    assert found == [(0, 1, [[0, 1, 2, 3], [4, 5, 6, 7]]), (2, 3, [[8, 9]])]


def test_for_inference_the_rows_are_not_copied():
    data = ArrayBatches((X, Y, None), 4, None)
    for rows in data.one_pass():
        x, y, weight = data.take(rows)
        assert np.shares_memory(x, X) and np.shares_memory(y, Y) and weight is None


def test_a_source_without_end_ends_when_it_is_empty():
    def three():
        yield from ((X[i : i + 2], Y[i : i + 2]) for i in (0, 2, 4))

    data = batches.stream("fit", three(), lambda *batch: batch[:3])
    epochs = Epochs(data)
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        assert len([batch for _, _, found in rows_of_streams(epochs) for batch in found]) == 3
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        again = [batch for _, _, found in rows_of_streams(epochs) for batch in found]
    assert_same(np.concatenate([x for x, _ in again]), X[:4])  # the first two again, as in Keras


def rows_of_streams(epochs):
    found = []
    with epochs.until_data_end():
        for first, last, iterator in epochs:
            found.append((first, last, list(epochs.next_batches(iterator))))
    return found


def test_out_of_data_is_said_once_there_is_not_one_batch():
    epochs = Epochs(arrays(), steps_per_execution=2)
    assert len(list(epochs.next_batches(iter([1])))) == 1
    with pytest.raises(OutOfData):
        list(epochs.next_batches(iter([])))


class Told(utils.PyDataset):
    """Writes down what it is told and asked."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __len__(self):
        return 3

    def __getitem__(self, i):
        self.seen.append(i)
        return X[i : i + 2], Y[i : i + 2]

    def on_epoch_begin(self):
        self.seen.append("begin")

    def on_epoch_end(self):
        self.seen.append("end")


def test_a_dataset_is_told_of_epochs():
    data = Told()
    model().fit(data, epochs=2, shuffle=False, verbose=0)
    assert data.seen == [0, 1, "end", *["begin", 0, 1, 2, "end"] * 2]  # two batches are looked at before, as by Keras


def test_a_dataset_s_batches_are_shuffled_by_python_s_generator():
    data = Told()
    built = model()
    utils.set_random_seed(4)
    built.fit(data, epochs=2, verbose=0)
    orders = [[i for i in data.seen if isinstance(i, int)][at : at + 3] for at in (2, 5)]
    utils.set_random_seed(4)
    import random as python_random

    for order in orders:
        expected = [0, 1, 2]
        python_random.shuffle(expected)
        assert order == expected


@pytest.mark.parametrize("arguments", [{"workers": 2}, {"use_multiprocessing": True}])
def test_workers_are_refused(arguments):
    with pytest.raises(NotImplementedError, match=r"PyDataset: .* is an argument of Keras that minidl does not"):
        utils.PyDataset(**arguments)


def test_what_a_dataset_must_define():
    with pytest.raises(NotImplementedError, match="must define num_batches or __len__"):
        utils.PyDataset().num_batches  # noqa: B018
    with pytest.raises(NotImplementedError, match=r"must define __getitem__\(index\)"):
        utils.PyDataset()[0]


def test_the_same_numbers_from_every_kind_of_data(tmp_path):
    """Lists and a memory map train to the bits of arrays; batches that come one by one, to the readable step's."""

    class Data:  # shaped like a PyDataset
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4]

    pairs = [Data()[i] for i in range(3)]
    X.astype(np.float64).tofile(tmp_path / "x")
    X.tofile(tmp_path / "x32")
    kinds = {
        "arrays": (X, Y),
        "lists": (X.tolist(), Y.tolist()),
        "dataset": (Data(),),
        "generator": (pair for pair in pairs),
        "iterable": (Again(pairs),),
        "memory map": (np.memmap(tmp_path / "x32", np.float32, "r", shape=X.shape), Y),
        "memory map of another dtype": (np.memmap(tmp_path / "x", np.float64, "r", shape=X.shape), Y),
    }
    kinds["generator"] = (kinds["generator"],)

    def trained(*data):
        found = model()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the generator ran out of data
            history = found.fit(*data, batch_size=4 if len(data) == 2 else None, shuffle=False, verbose=0).history
        return found, history

    whole = trained(X, Y)
    with mock.patch.object(fused, "fits", lambda model: False):
        one_by_one = trained(X, Y)
    for name, data in kinds.items():
        expected, expected_history = whole if name in ("arrays", "lists", "memory map") else one_by_one
        found, history = trained(*data)
        assert history == expected_history, name
        for got, wanted in zip(found.get_weights(), expected.get_weights(), strict=True):
            assert_same(got, wanted)
        if name.startswith(("dataset", "memory", "iterable")):
            rows = 32 if len(data) == 2 else 4
            predicted = expected.predict(X, batch_size=rows, verbose=0)
            assert_same(found.predict(data[0], batch_size=None, verbose=0), predicted)


class Again:
    """An iterable that starts anew, of unknown length."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)

    def __len__(self):
        return len(self.items)


def test_torch_s_tensors_and_loaders(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(fused, "fits", lambda model: False)  # the same order of sums for all
    plain, tensors, loaded = model(), model(), model()
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    for built, data in ((plain, (X, Y)), (tensors, (x, y)), (loaded, (loader,))):
        built.fit(*data, batch_size=4 if len(data) == 2 else None, shuffle=False, epochs=2, verbose=0)
    for other in (tensors, loaded):
        for got, expected in zip(other.get_weights(), plain.get_weights(), strict=True):
            assert_same(got, expected)
    with pytest.raises(ValueError, match="class_weight does not go with a torch DataLoader"):
        model().fit(loader, class_weight={0: 1.0}, verbose=0)


def test_a_memory_map_is_never_copied_whole(tmp_path):
    import tracemalloc

    big = np.memmap(tmp_path / "big", np.float64, "w+", shape=(40_000, 50))  # 16 MB
    built = Sequential([Input((50,)), Dense(1)])
    built.compile("sgd", "mse")
    labels = np.zeros(len(big), np.float32)
    built.fit(big[:64], labels[:64], verbose=0)
    tracemalloc.start()
    built.fit(big, labels, batch_size=64, shuffle=False, verbose=0)
    built.predict(big, batch_size=64, verbose=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6  # a copy in float32 alone would be 8 MB
    big[3, 7] = np.nan
    with pytest.raises(ValueError, match=r"x: expected finite numbers; x\[3, 7\] is nan"):
        built.fit(big, labels, batch_size=64, shuffle=False, verbose=0)


BAD = {
    "a batch of four": ([(X, Y, Y, Y)], ValueError, "a batch must be x, .*; got a tuple of 4"),
    "a batch of another width": ([(X[:, :3], Y)], ValueError, r"x: the model takes 4 features a sample; got shape"),
    "a batch without labels": ([X], ValueError, "y: the labels are missing"),
    "a batch of text": ([(X.astype(str), Y)], TypeError, "x: expected real numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_batch_leaves_the_weights_of_the_step_before(name):
    good = X[:4], Y[:4]
    expected = model()
    expected.train_on_batch(*good)
    bad, error, message = BAD[name]
    found = model()
    with pytest.raises(error, match=message):
        found.fit(Again([good, *bad]), shuffle=False, verbose=0)
    for got, wanted in zip(found.get_weights(), expected.get_weights(), strict=True):
        assert_same(got, wanted)
    assert found.optimizer.iterations == 1
    found.fit(X, Y, verbose=0)


def test_a_first_batch_that_does_not_fit_is_refused_before_anything_is_begun():
    begun = []
    told = callbacks.LambdaCallback(on_train_begin=lambda logs: begun.append(1))
    for data in (((x, Y) for x in (X[:, :3], X)), (pair for pair in [(X, Y[:3])])):
        built = model()
        with pytest.raises(ValueError, match=r"features|same number"):
            built.fit(data, shuffle=False, callbacks=[told], verbose=0)
        assert not begun and not built.has_run and built.optimizer.iterations == 0


def test_a_refused_fit_leaves_open_which_crossentropy_is_meant():
    built = Sequential([Input((4,)), Dense(3, activation="softmax")])
    built.compile("adam", "crossentropy")
    with pytest.raises(ValueError, match="class"):
        built.fit(X, np.full(10, 7), verbose=0)
    one_hot = np.eye(3)[np.arange(10) % 3]
    assert np.isfinite(built.fit(X, one_hot, verbose=0).history["loss"]).all()
    assert isinstance(built.loss, losses.CategoricalCrossentropy)


def test_what_a_stream_does_not_heed_is_said():
    pairs = [(X, Y)]
    with pytest.warns(UserWarning, match="fit: batch_size is ignored; x yields batches"):
        model().fit(Again(pairs), batch_size=3, shuffle=False, verbose=0)
    with pytest.warns(UserWarning, match="fit: `shuffle=True` was passed, but will be ignored .* provided as a Again"):
        model().fit(Again(pairs), verbose=0)


def test_no_batches():
    class Empty(Told):
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match="the Empty has no batches"):
        model().fit(Empty(), verbose=0)


# Whatever fails, the weights are those of the last finished step ------------------------------------------


def failing_callback(built, monkeypatch):
    def fail(batch, logs):
        if batch == 1:
            raise RuntimeError("planted")

    return {"callbacks": [callbacks.LambdaCallback(on_train_batch_end=fail)]}, 2


def interrupting_callback(built, monkeypatch):
    """Ctrl-C while the second step is under way: it is done to its end first."""
    plain, calls = training.update_metrics, itertools.count(1)

    def update_metrics(*arguments):
        if next(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        plain(*arguments)

    monkeypatch.setattr(training, "update_metrics", update_metrics)
    return {}, 2


def failing_optimizer(built, monkeypatch):
    plain, calls = built.optimizer.apply, itertools.count(1)

    def apply(arena):
        if next(calls) == 3:
            raise RuntimeError("planted")
        plain(arena)

    monkeypatch.setattr(built.optimizer, "apply", apply)
    return {}, 2


def failing_loss(built, monkeypatch):
    plain, calls = losses.MeanSquaredError.losses, itertools.count(1)

    def losses_of(self, *arguments, **settings):
        if next(calls) == 2:
            raise RuntimeError("planted")
        return plain(self, *arguments, **settings)

    monkeypatch.setattr(losses.MeanSquaredError, "losses", losses_of)
    return {}, 1


@pytest.mark.parametrize(
    "plant",
    [failing_callback, interrupting_callback, failing_optimizer, failing_loss],
    ids=lambda plant: plant.__name__,
)
def test_a_failure_leaves_the_weights_of_the_last_finished_step(plant, monkeypatch):
    expected = model()
    found = model()
    arguments, steps = plant(found, monkeypatch)
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        found.fit(X, Y, batch_size=2, shuffle=False, verbose=0, **arguments)
    monkeypatch.undo()
    for i in range(steps):
        expected.train_on_batch(X[2 * i : 2 * i + 2], Y[2 * i : 2 * i + 2])
    for got, wanted in zip(found.get_weights(), expected.get_weights(), strict=True):
        assert_same(got, wanted)
    assert found.optimizer.iterations == steps
    found.fit(X, Y, verbose=0)
    assert np.isfinite(found.evaluate(X, Y, verbose=0))


class FailsIn(optimizers.SGD):
    """At the third step, with the weights half changed."""

    def update(self, arena, grads):
        super().update(arena, grads)
        if self.updates == 2:
            raise RuntimeError("planted")


class FailsAt(optimizers.schedules.LearningRateSchedule):
    """At the third step, asked the second time: after the weight decay."""

    def __init__(self):
        self.asked = itertools.count()

    def __call__(self, step):
        if step == 2 and next(self.asked) == 1:
            raise RuntimeError("planted")
        return 0.01


def fails_thirdly(result):
    calls = itertools.count(1)

    def constraint(weights):
        return result(weights) if next(calls) == 3 else weights

    return constraint


def planted(weights):
    raise RuntimeError("planted")


OWN_CODE = {
    "optimizer": (lambda: FailsIn(0.01, momentum=0.5, weight_decay=0.1), None, RuntimeError),
    "schedule": (lambda: optimizers.SGD(FailsAt(), momentum=0.5, weight_decay=0.1), None, RuntimeError),
    "constraint": (lambda: optimizers.Adam(), lambda: fails_thirdly(planted), RuntimeError),
    "constraint's shape": (lambda: optimizers.Adam(), lambda: fails_thirdly(np.ravel), ValueError),
}


@pytest.mark.parametrize("name", OWN_CODE)
def test_an_update_in_which_one_s_own_code_fails_is_undone(name):
    optimizer, constraint, error = OWN_CODE[name]
    init = {"kernel_initializer": initializers.GlorotUniform(seed=1)}
    built = Sequential([Input((4,)), Dense(3, **init), Dense(1, **init, kernel_constraint=constraint and constraint())])
    built.compile(optimizer(), "mse")
    states = []
    told = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: states.append(built.get_state()))
    with pytest.raises(error):
        built.fit(X, Y, batch_size=2, shuffle=False, callbacks=[told], verbose=0)
    assert len(states) == 2
    for key, value in built.get_state().items():
        assert_same(value, states[-1][key])


def test_a_stream_says_what_it_cannot_use():
    for name, value in (("y", Y), ("sample_weight", Y)):
        with pytest.raises(ValueError, match=f"fit: {name} comes with arrays; a Told yields it itself"):
            model().fit(Told(), **{name: value}, verbose=0)


def test_steps_of_one_s_own_are_refused():
    for name in ("train_step", "call", "compute_loss"):
        kind = type("Mine", (Sequential,), {name: lambda self, *arguments: None})
        with pytest.raises(NotImplementedError, match=rf"Mine: a {name}\(\) of one's own would be ignored"):
            kind([Dense(1)])


def test_stream_batches_tell_no_one_where_there_is_no_one():
    data = StreamBatches(lambda *batch: batch[:3], lambda: iter([]), 0)
    data.on_epoch_begin()
    data.on_epoch_end()


def test_steps_per_epoch_with_torch_s_random_stream_is_refused():
    built, message = model(), "steps_per_epoch is not supported with torch's random stream"
    with config.using_random_stream("torch"), pytest.raises(NotImplementedError, match=message):
        built.fit(X, Y, steps_per_epoch=2, verbose=0)
