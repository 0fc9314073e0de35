"""metrics.py: totals and counts over batches, in dtype."""

import numpy as np
import pytest
from helpers import assert_close, assert_same

from minidl import config, losses, metrics, ops
from minidl.layers import Dense, Input
from minidl.models import Sequential

F32 = np.float32


def test_mean_weighs_batches_by_their_counts():
    mean = metrics.Mean()
    assert mean.result() == 0
    mean.add(6.0, 3)
    mean.add(2.0, 1)
    assert_same(mean.result(), F32(2))
    mean.reset_state()
    assert (mean.total, mean.count, mean.result()) == (0, 0, 0)


def test_mean_update_state():
    mean = metrics.Mean()
    mean.update_state(5.0)
    assert_same(mean.result(), F32(5))
    mean.update_state([1, 3])
    assert_same(mean.result(), F32(3))
    mean.reset_state()
    mean.update_state([1, 3], sample_weight=[3, 1])
    assert_same(mean.result(), F32(1.5))
    mean.reset_state()
    mean.update_state([[1, 3], [5, 7]], sample_weight=2)  # over the units first: (2, 6)
    assert_same(mean.result(), F32(4))
    assert_same(mean.count, F32(2))  # a weight of no axis is that of the batch's mean, as in Keras


def test_a_mean_of_weights_that_sum_to_0_is_0_of_nan_too():
    """As keras.ops.divide_no_nan has it, by which Keras's Mean divides."""
    for dtype in ("float32", "float64"):
        mean = metrics.Mean(dtype=dtype)
        mean.update_state([np.nan, 3.0], [0.0, 0.0])
        assert np.isnan(mean.total)
        assert_same(mean.result(), np.dtype(dtype).type(0))
        mean.update_state([1.0], [1.0])
        assert np.isnan(mean.result())


def test_mean_adds_in_its_dtype():
    """2²⁴ + 1 is not a float32: what a float64 total would keep is lost, as in Keras."""
    mean = metrics.Mean()
    mean.add(2**24, 1)
    mean.add(1, 0)
    assert_same(mean.total, F32(2**24))
    mean = metrics.Mean(dtype="float64")
    mean.add(2**24, 1)
    mean.add(1, 0)
    assert_same(mean.total, np.float64(2**24 + 1))
    config.set_floatx("float64")
    assert metrics.Mean().result().dtype == np.float64


def test_binary_accuracy():
    accuracy = metrics.BinaryAccuracy()
    accuracy.update_state([[1], [0], [1], [0]], [[0.9], [0.5], [0.5], [0.6]])
    assert_same(accuracy.result(), F32(0.5))  # 0.5 counts as class 0
    accuracy.update_state([1], [0.6])  # one-dimensional
    assert_same(accuracy.result(), F32(3) / F32(5))
    accuracy.reset_state()
    accuracy.update_state([1, 1], [0.9, 0.1], sample_weight=[3, 1])
    assert_same(accuracy.result(), F32(0.75))


def test_binary_accuracy_means_over_the_units():
    accuracy = metrics.BinaryAccuracy()
    accuracy.update_state([[1, 0], [1, 1]], [[0.9, 0.1], [0.9, 0.1]])
    assert_same(accuracy.result(), F32(0.75))


def test_binary_accuracy_threshold():
    accuracy = metrics.BinaryAccuracy(threshold=0.8)
    accuracy.update_state([1, 1], [0.9, 0.7])
    assert_same(accuracy.result(), F32(0.5))


def test_binary_crossentropy_is_the_mean_of_the_loss(rng):
    y, p = rng.integers(0, 2, (6, 2)), rng.random((6, 2))
    for arguments in ({}, {"label_smoothing": 0.1}, {"from_logits": True}):
        metric = metrics.BinaryCrossentropy(**arguments)
        metric.update_state(y, p)
        each = losses.binary_crossentropy(y, p, **arguments).astype(F32)  # computed in p's float64
        assert_same(metric.result(), each.sum() / F32(6))
        metric.reset_state()
        metric.update_state(y, p, sample_weight=[1, 0, 0, 2, 0, 0])
        assert_same(metric.result(), (each * np.array([1, 0, 0, 2, 0, 0], F32)).sum() / F32(3))


@pytest.mark.parametrize(
    ("identifier", "cls", "name"),
    [
        ("accuracy", metrics.BinaryAccuracy, "accuracy"),
        ("acc", metrics.BinaryAccuracy, "acc"),
        ("binary_accuracy", metrics.BinaryAccuracy, "binary_accuracy"),
        (metrics.BinaryAccuracy, metrics.BinaryAccuracy, "binary_accuracy"),
        ("binary_crossentropy", metrics.BinaryCrossentropy, "binary_crossentropy"),
        ("bce", metrics.BinaryCrossentropy, "bce"),
    ],
)
def test_get(identifier, cls, name):
    found = metrics.get(identifier)
    assert type(found) is cls
    assert found.name == name


def test_get_makes_a_new_one_or_passes_an_instance_through():
    assert metrics.get("accuracy") is not metrics.get("accuracy")
    mine = metrics.Mean("mine")
    assert metrics.get(mine) is mine


@pytest.mark.parametrize(
    ("units", "labels", "cls"),
    [
        (1, (6,), metrics.BinaryAccuracy),
        (1, (6, 1), metrics.BinaryAccuracy),
        (3, (6,), metrics.SparseCategoricalAccuracy),
        (3, (6, 1), metrics.SparseCategoricalAccuracy),
        (3, (6, 3), metrics.CategoricalAccuracy),
        (3, None, metrics.CategoricalAccuracy),
    ],
)
@pytest.mark.parametrize("name", ["accuracy", "acc", "Accuracy", "ACC"])
def test_accuracy_is_the_one_that_fits_the_labels(units, labels, cls, name):
    found = metrics.get(name, units, labels)
    assert (type(found), found.name) == (cls, name)


# Counts, curves and scores -------------------------------------------------------------------------------

Y, P = np.array([0, 0, 1, 1]), np.array([0.0, 0.5, 0.3, 0.9])


def test_counts_at_thresholds_are_strict():
    found = {name: getattr(metrics, name)(thresholds=[0.3, 0.5]) for name in
             ("TruePositives", "FalsePositives", "TrueNegatives", "FalseNegatives")}  # fmt: skip
    for metric in found.values():
        metric.update_state(Y, P)
        metric.update_state(Y, P, [1, 2, 0.5, 0])
    expected = {"TruePositives": [1, 1], "FalsePositives": [1 + 2, 0], "TrueNegatives": [1 + 1, 2 + 3],
                "FalseNegatives": [1 + 0.5, 1 + 0.5]}  # fmt: skip
    for name, counts in expected.items():
        assert_same(found[name].result(), np.array(counts, F32))


def test_buckets_and_comparisons_count_the_same(rng):
    """Predictions between the thresholds i/4: one bucket each, or five comparisons."""
    y, p = rng.integers(0, 2, (9, 3)), (rng.integers(0, 4, (9, 3)) + 0.5) / 4
    weights = rng.integers(1, 5, (9, 3)).astype(float)
    expected = ops.confusion_counts(y, p, weights, thresholds=np.arange(5) / 4)
    found = ops.confusion_counts_evenly(y, p, weights, thresholds=5, all_above_first=False)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)
    for positives, total in ((0, (y != 0) * weights), (1, (y == 0) * weights)):
        assert_same(found[positives] + found[3 - positives], np.tile(total.sum(axis=0), (5, 1)))


def test_precision_and_recall():
    precision, recall = metrics.Precision(), metrics.Recall(0.2)
    assert precision.result() == recall.result() == 0
    assert_same(precision(Y, P), F32(1))  # above 0.5: the last
    assert_same(recall(Y, P), F32(1))
    assert (precision.name, metrics.Precision().name) == ("precision", "precision_1")
    best = metrics.Precision(top_k=1)
    assert_same(best([[0, 1, 0], [1, 0, 0]], [[0.1, 0.2, 0.2], [0.1, 0.9, 0.3]]), F32(0.5))
    third = metrics.Recall(class_id=2)
    assert_same(third([[0, 1, 1], [1, 0, 1]], [[0.1, 0.2, 0.2], [0.1, 0.9, 0.8]]), F32(0.5))


def test_auc_of_a_perfect_and_of_a_reversed_order(rng):
    for curve in ("ROC", "PR"):
        assert_close(metrics.AUC(curve=curve)([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]), F32(1), atol=1e-6)
    assert_same(metrics.AUC()([0, 0, 1, 1], [0.8, 0.9, 0.1, 0.2]), F32(0))
    y, p = rng.integers(0, 2, 400), rng.integers(0, 199, 400) / 199 + 0.5 / 199  # one for each bucket: no rounding
    pairs = p[y == 1][:, None] - p[y == 0]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()  # the chance that a 1 is predicted above a 0
    # 200 terms below 1, ten roundings each
    assert_close(metrics.AUC()(y, p), F32(expected), atol=200 * 10 * np.finfo(F32).eps / 100)
    methods = [metrics.AUC(summation_method=m)(y, p) for m in ("minoring", "interpolation", "majoring")]
    assert methods == sorted(methods) and methods[0] < methods[2]


def test_multi_label_auc_is_the_mean_of_each(rng):
    y, p = rng.integers(0, 2, (30, 2)), rng.random((30, 2))
    each = [metrics.AUC()(y[:, i], p[:, i]) for i in range(2)]
    assert_close(metrics.AUC(multi_label=True)(y, p), F32(np.mean(each)), atol=1e-6)
    weighted = metrics.AUC(multi_label=True, label_weights=[3, 1])(y, p)
    assert_close(weighted, F32((3 * each[0] + each[1]) / 4), atol=1e-6)


def test_f1_is_the_harmonic_mean():
    f1 = metrics.F1Score(threshold=0.5, average="micro")
    found = f1(Y[:, None], np.array([[0.0], [0.9], [0.3], [0.9]]))
    assert_close(found, F32(0.5), atol=1e-6)  # precision and recall ½, but for ε
    assert metrics.F1Score()(np.eye(3), np.eye(3)).shape == (3,)


def test_r2_score():
    r2 = metrics.R2Score()
    assert_same(r2([[1.0], [3.0]], [[1.0], [3.0]]), F32(1))
    r2.reset_state()
    assert_same(r2([[1.0], [3.0]], [[2.0], [2.0]]), F32(0))  # no better than the mean
    assert_same(metrics.R2Score(num_regressors=1)([[1.0], [3.0], [2.0]], [[2.0]] * 3), F32(-1))


def test_top_k_shares_places_and_knows_no_class_outside():
    p = np.array([[0.1, 0.4, 0.4, 0.1], [0.1, 0.2, 0.3, 0.4], [0.1, np.nan, 0.3, 0.4]])
    assert_same(ops.in_top_k(np.array([2, 2, 3]), p, k=1), np.array([1.0, 0, 0]))
    assert_same(ops.in_top_k(np.array([0, 4, -1]), p, k=4), np.array([1.0, 0, 0]))
    assert metrics.SparseTopKCategoricalAccuracy(2)([[1], [2]], p[:2]) == 1
    assert metrics.TopKCategoricalAccuracy(1)([[0, 0, 0, 1], [0, 0, 0, 1]], p[:2]) == 0.5


def test_accuracies():
    assert metrics.Accuracy()([[1], [2]], [[1], [3]]) == 0.5
    assert metrics.CategoricalAccuracy()([[0, 1], [1, 0]], [[0.4, 0.6], [0.4, 0.6]]) == 0.5
    assert metrics.SparseCategoricalAccuracy()([1, 0], [[0.4, 0.6], [0.4, 0.6]], [3, 1]) == 0.75


def test_root_mean_squared_error_and_sum():
    assert metrics.RootMeanSquaredError()([[0.0, 0.0]], [[3.0, 4.0]]) == np.sqrt(F32(12.5))
    assert metrics.Sum()([1, 2, 3], [1, 0, 2]) == 7


def test_a_function_of_one_s_own_is_a_metric():
    def bias(y_true, y_pred):
        return y_pred - y_true

    found = metrics.get(bias)
    assert (found.name, found(np.array([[1.0], [2.0]]), np.array([[2.0], [5.0]]))) == ("bias", 2)
    assert metrics.MeanMetricWrapper(bias, "b")(np.ones((2, 1)), np.full((2, 1), 2.0)) == 1
    assert type(metrics.get(losses.mean_squared_error)) is metrics.LossMetric
    assert metrics.get(losses.Huber(2.0)).name == "huber_loss"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.AUC(1), r"AUC: num_thresholds must be at least 2; got 1"),
        (lambda: metrics.AUC(curve="DET"), r"AUC: curve must be 'ROC', 'PR' or 'PRGAIN'; got 'DET'"),
        (lambda: metrics.AUC(summation_method="mean"), r"summation_method must be 'interpolation', 'minoring' or"),
        (lambda: metrics.AUC(num_labels=2), r"num_labels is needed only when multi_label is True"),
        (lambda: metrics.Precision(1.5), r"Precision: thresholds must lie in \[0, 1\]; got 1\.5"),
        (lambda: metrics.Recall([]), r"Recall: thresholds must not be empty"),
        (lambda: metrics.F1Score(average="mean"), r"F1Score: average must be None, 'micro', 'macro' or 'weighted'"),
        (lambda: metrics.F1Score(threshold=0.0), r"F1Score: threshold must be a float in \(0, 1\]"),
        (lambda: metrics.FBetaScore(beta=0.0), r"FBetaScore: beta must be a float greater than 0"),
        (
            lambda: metrics.F1Score()([1], [1]),
            r"f1_score: expected y_true and y_pred of one shape \(B, U\); got \(1,\)",
        ),
        (lambda: metrics.R2Score("mean"), r"R2Score: class_aggregation must be None, 'uniform_average'"),
        (lambda: metrics.R2Score(num_regressors=-1), r"R2Score: num_regressors must be at least 0; got -1"),
        (lambda: metrics.R2Score()([1], [1]), r"r2_score: expected y_true and y_pred of one shape"),
        (lambda: metrics.TopKCategoricalAccuracy(0), r"TopKCategoricalAccuracy: k must be a positive integer; got 0"),
        (
            lambda: metrics.SparseCategoricalAccuracy()([1, 2], np.ones((3, 2))),
            r"expected class numbers \(B,\) or \(B, 1\)",
        ),
        (lambda: metrics.get("crossentropy"), r"Unknown metric: 'crossentropy'\. Did you mean "),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_wrapper_without_a_function():
    with pytest.raises(TypeError, match="MeanMetricWrapper: fn must be a function of y_true and y_pred; got 3"):
        metrics.MeanMetricWrapper(3)


# In a model ----------------------------------------------------------------------------------------------


def test_weighted_metrics_and_names(rng):
    model = Sequential([Input((2,)), Dense(1)])
    model.compile("sgd", "mse", metrics=["mae", "mae"], weighted_metrics=["mae", "MSE"])
    x, y, weights = rng.normal(size=(4, 2)), rng.normal(size=4), np.array([1.0, 0, 0, 0])
    error = abs(model.predict(x, verbose=0)[:, 0] - y.astype(F32))
    logs = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    assert list(logs) == ["MSE", "loss", "mae", "mae_1", "weighted_mae"]
    close = {"mae": error.mean(), "mae_1": error.mean(), "weighted_mae": error[0], "MSE": error[0] ** 2}
    for name, value in close.items():
        assert logs[name] == pytest.approx(value, rel=1e-6)  # some ten roundings
    listed = model.evaluate(x, y, sample_weight=weights, verbose=0)
    assert listed == [logs[n] for n in ("loss", "mae", "mae", "mae", "MSE", "mae_1", "weighted_mae")]
    history = model.fit(x, y, verbose=0, validation_data=(x, y)).history
    assert list(history) == sorted(history)


def test_a_crossentropy_metric_takes_the_logits_as_the_loss_does():
    model = Sequential([Input((1,)), Dense(1, activation="sigmoid", use_bias=False)])
    model.compile("sgd", "bce", metrics=["bce"])
    model.set_weights([np.array([[50.0]])])
    assert model.evaluate(np.ones((1, 1)), [0.0], verbose=0) == [50.0, 50.0]  # not −ln ε = 16.1


def test_a_metric_of_several_values_is_logged_as_an_array(capsys):
    model = Sequential([Input((2,)), Dense(3, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=["F1Score"])
    history = model.fit(np.ones((3, 2)), np.eye(3), verbose=2).history
    assert history["F1Score"][0].shape == (3,)
    assert "F1Score: " in capsys.readouterr().out


# Metrics of one's own ------------------------------------------------------------------------------------


class TruePositivesOfMine(metrics.Metric):
    """Keras's example of a metric."""

    def __init__(self, name="mine", **kwargs):
        super().__init__(name=name, **kwargs)
        self.found = self.add_variable(shape=(), initializer="zeros", name="found")
        self.batches = self.add_weight(name="batches", shape=(2,), initializer="zeros")
        self.mean = metrics.Mean()

    def update_state(self, y_true, y_pred, sample_weight=None):
        values = ops.cast(ops.logical_and(ops.equal(y_true, 1), ops.greater(y_pred, 0.5)), self.dtype)
        if sample_weight is not None:
            values = values * np.reshape(sample_weight, (-1, 1))
        self.found.assign(self.found + ops.sum(values))
        self.batches.assign_add([1, 2])
        self.mean.update_state(y_pred)

    def result(self):
        return self.found


def test_one_s_own_metric_keeps_its_state_in_variables():
    metric = TruePositivesOfMine()
    metric.update_state(np.array([[1.0], [1.0], [0.0]]), np.array([[0.9], [0.1], [0.9]]), [3.0, 1.0, 1.0])
    metric.update_state(np.array([[1.0]]), np.array([[0.9]]))
    assert float(metric.result()) == 4 and metric.batches.numpy().tolist() == [2, 4]
    assert [v.name for v in metric.variables] == ["found", "batches", "total", "count"]
    assert metric.found.path == "mine/found" and metric.found.dtype == metric.dtype == "float32"
    metric.reset_state()
    assert float(metric.result()) == 0 and not metric.batches.any() and metric.mean.result() == 0
    assert_same(metric.variables[3].numpy(), np.zeros((), F32))


def test_one_s_own_metrics_in_a_model(rng):
    """A number, weighted and not; a dict of numbers; a function."""

    class Both(metrics.Metric):
        def __init__(self):
            super().__init__(name="both")
            self.sums = self.add_variable((2,), "zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.sums.assign_add([y_true.sum(), y_pred.sum()])

        def result(self):
            return {"true": self.sums[0], "predicted": self.sums[1]}

    def offset(y_true, y_pred):
        return ops.mean(y_pred - y_true, axis=-1)

    model = Sequential([Input((3,)), Dense(1, "sigmoid")])
    model.compile("sgd", "mse", metrics=[TruePositivesOfMine(), Both(), offset],
                  weighted_metrics=[TruePositivesOfMine()])  # fmt: skip
    x, y, weight = rng.normal(size=(9, 3)), rng.integers(0, 2, (9, 1)).astype(F32), rng.integers(1, 4, 9).astype(F32)
    logs = model.evaluate(x, y, batch_size=4, verbose=0, sample_weight=weight, return_dict=True)
    p = model.predict(x, verbose=0)
    right = (y == 1) & (p > 0.5)
    assert logs["mine"] == right.sum() and logs["weighted_mine"] == (right[:, 0] * weight).sum()
    assert logs["true"] == y.sum()
    # sums and means of 9 terms below 1
    assert abs(logs["predicted"] - p.sum()) <= 9 * 9 * np.finfo(F32).eps
    assert abs(logs["offset"] - (p - y).mean()) <= 9 * np.finfo(F32).eps


def test_variables_need_super_and_an_initializer():
    class Hasty(metrics.Metric):
        def __init__(self):
            self.sum = self.add_variable((), "zeros")

    with pytest.raises(RuntimeError, match="super"):
        Hasty()
    with pytest.raises(ValueError, match="needs an initializer"):
        metrics.Metric().add_weight()


def test_variables_of_keras_s_metrics_are_copies():
    mean = metrics.Mean()
    mean.update_state([1.0, 2.0])
    assert [(v.path, float(v)) for v in mean.variables] == [("mean/total", 3.0), ("mean/count", 2.0)]
    with pytest.raises(ValueError, match="read-only"):
        mean.variables[0].assign(1.0)
    assert [v.shape for v in metrics.AUC(num_thresholds=5).variables] == [(5,)] * 4
    assert len(metrics.F1Score().variables) == 4 and len(metrics.R2Score().variables) == 5


def test_best_rate_at_a_limit():
    y, p = [0, 0, 0, 1, 1], [0, 0.3, 0.8, 0.3, 0.8]  # Keras's example
    assert metrics.SensitivityAtSpecificity(0.5)(y, p) == 0.5
    assert metrics.PrecisionAtRecall(0.8)(y, p) == 0.5
    assert metrics.RecallAtPrecision(1.0)(y, p) == 0
    with pytest.raises(ValueError, match="specificity must lie in"):
        metrics.SensitivityAtSpecificity(1.5)
