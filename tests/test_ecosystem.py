"""What comes in from other libraries and goes out to them: pandas, DLPack (torch), sparse matrices."""

import numpy as np
import pytest

import minidl as keras
from minidl import checks


def make_model(units=1, features=3):
    model = keras.Sequential([keras.layers.Input((features,)), keras.layers.Dense(units, activation="sigmoid")])
    model.compile(loss="binary_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture
def data(rng):
    x = rng.normal(size=(20, 3))
    return x, (x[:, 0] > 0).astype("float64"), rng.uniform(0.5, 2, size=20)


def trained(x, y, weights, validation=None):
    """The history and the weights of a model trained on the data, whatever holds them, and what it then says."""
    keras.utils.set_random_seed(0)
    model = make_model()
    history = model.fit(x, y, sample_weight=weights, epochs=2, batch_size=8, verbose=0, validation_data=validation)
    return [
        list(history.history.values()),
        *model.get_weights(),
        model.evaluate(x, y, sample_weight=weights, verbose=0),
        model.predict(x, verbose=0),
    ]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# -------------------------------------------------------------------------------------------- pandas


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


@pytest.mark.parametrize("as_label", ["series", "frame", "bool", "Int64", "boolean"])
def test_frames_and_series_train_as_their_arrays_do(pandas, data, as_label):
    x, y, weights = data
    frame = pandas.DataFrame(x, columns=["a", "b", "c"], index=np.arange(20)[::-1])  # the index means nothing
    labels = {
        "series": lambda: pandas.Series(y, name="label"),
        "frame": lambda: pandas.DataFrame({"label": y}),
        "bool": lambda: pandas.Series(y == 1),
        "Int64": lambda: pandas.Series(y.astype(int), dtype="Int64"),
        "boolean": lambda: pandas.Series(y == 1, dtype="boolean"),
    }[as_label]()
    found = trained(frame, labels, pandas.Series(weights), (frame, labels))
    assert_equal(found, trained(x, y, weights, (x, y)))


def test_columns_of_several_dtypes(pandas):
    frame = pandas.DataFrame(
        {
            "int": [1, 2],
            "bool": [True, False],
            "Int64": pandas.array([3, 4], dtype="Int64"),
            "boolean": pandas.array([False, True], dtype="boolean"),
            "Float32": pandas.array([0.5, 0.25], dtype="Float32"),
            "uint8": np.array([7, 8], "uint8"),
        }
    )
    array = checks.numeric_array("x", frame, "float32")
    assert array.dtype == "float32" and array.flags.c_contiguous
    np.testing.assert_array_equal(array, np.array([[1, 1, 3, 0, 0.5, 7], [2, 0, 4, 1, 0.25, 8]], "float32"))


def test_columns_without_numbers_are_named(pandas):
    frame = pandas.DataFrame(
        {"size": [1.0, 2.0], "island": ["Dream", "Biscoe"], "day": pandas.to_datetime(["2020-01-01", "2020-01-02"])}
    )
    frame["species"] = pandas.Categorical(["Adelie", "Gentoo"])
    model = make_model(features=4)
    with pytest.raises(TypeError, match=r"^x: .*'island' \(.*\), 'day' \(datetime.*\), 'species' \(category\)\."):
        model.fit(frame, [0, 1], verbose=0)
    with pytest.raises(TypeError, match=r"^y: expected columns of numbers; these are not: 'island'"):
        model.fit(np.ones((2, 4)), frame["island"], verbose=0)


def test_missing_values_are_refused_with_their_place(pandas):
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": pandas.array([1, None], dtype="Int64"), "c": [0.0, 0.0]})
    with pytest.raises(ValueError, match=r"x\[1, 1\] is nan \(1 such in all\)"):
        make_model().predict(frame, verbose=0)


# -------------------------------------------------------------------------------------------- DLPack


class Elsewhere:
    """Stands in for a tensor on a GPU: says where it is, and gives nothing out."""

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **options):
        if options.get("dl_device") != (1, 0):
            raise AssertionError("asked for memory that the CPU cannot read")
        raise BufferError("this library copies nothing")


class Exported:
    """Memory that can be had by DLPack only."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


def test_memory_comes_in_by_dlpack_without_a_copy(rng):
    array = rng.normal(size=(5, 3)).astype("float32")
    found = checks.numeric_array("x", Exported(array), "float32")
    assert np.shares_memory(found, array)
    np.testing.assert_array_equal(found, array)
    converted = checks.numeric_array("x", Exported(array), "float64")
    np.testing.assert_array_equal(converted, array.astype("float64"))


class OnAGpu(Elsewhere):
    """Stands in for CuPy's arrays, whose get() copies them."""

    def __init__(self, array):
        self.array = array

    def get(self):
        return self.array.copy()


def test_memory_of_a_gpu_is_copied(data):
    assert_equal(trained(*map(OnAGpu, data)), trained(*data))
    model = make_model()
    kernel, bias = model.get_weights()
    model.set_weights([OnAGpu(kernel + 1), OnAGpu(bias)])
    assert_equal(model.get_weights(), [kernel + 1, bias])


def test_memory_of_a_gpu_that_is_not_copied_is_refused():
    model = make_model()
    for call in (lambda: model.predict(Elsewhere(), verbose=0), lambda: model.set_weights([Elsewhere(), np.ones(1)])):
        before = model.get_weights()
        with pytest.raises(TypeError, match=r"not in the CPU's memory \(DLPack device type 2\).*copies nothing. Copy"):
            call()
        assert_equal(model.get_weights(), before)


def test_weights_go_out_by_dlpack_without_a_copy():
    kernel = make_model().layers[0].kernel
    seen = np.from_dlpack(kernel)
    assert np.shares_memory(seen, kernel)


def test_torch_trains_as_its_arrays_do(data):
    torch = pytest.importorskip("torch")
    x, y, weights = data
    found = trained(torch.tensor(x), torch.tensor(y == 1), torch.tensor(weights))
    assert_equal(found, trained(x, y, weights))


def test_torch_tensors_that_cannot_be_shared_say_why():
    torch = pytest.importorskip("torch")
    model = make_model()
    with pytest.raises(TypeError, match=r"x: torch.Tensor does not give its numbers out: .*detach"):
        model.predict(torch.ones(2, 3, requires_grad=True), verbose=0)
    with pytest.raises(TypeError, match=r"x: torch.Tensor does not give its numbers out: .*BFloat16"):
        model.predict(torch.ones(2, 3, dtype=torch.bfloat16), verbose=0)


def test_torch_writes_to_a_model_s_weights(data):
    torch = pytest.importorskip("torch")
    x, *_ = data
    model = make_model()
    kernel = torch.from_dlpack(model.layers[0].kernel)
    kernel[:] = torch.tensor([[1.0], [2.0], [3.0]])
    np.testing.assert_array_equal(model.get_weights()[0], [[1.0], [2.0], [3.0]])
    logits = x.astype("float32") @ np.float32([[1], [2], [3]])
    # float32, three products: a few ulp of a number below 1
    np.testing.assert_allclose(model.predict(x, verbose=0), 1 / (1 + np.exp(-logits)), atol=1e-6)
    model.fit(x, x[:, 0] > 0, verbose=0)  # and sees what training writes
    np.testing.assert_array_equal(kernel.numpy(), model.layers[0].kernel)


# ------------------------------------------------------------------------------------ sparse matrices


def test_sparse_matrices_are_refused():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"x: sparse matrices are not supported; got scipy.csr_matrix. Pass x.toarray"):
        make_model().predict(sparse.csr_matrix(np.eye(3)), verbose=0)
