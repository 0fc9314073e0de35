"""Balls of metrics: they hold what is reported, are exact where counts are, and tell a wrong count or area."""

import collections
import dataclasses

import judge_steps
import numpy as np
import pytest
from judge_models import BINARY_METRICS, METRICS

import minidl.keras as k
from minidl import config, utils
from minidl.oracle import layer_bounds, metric_bounds
from minidl.oracle.bounds import Arithmetic, Ball
from minidl.oracle.judge import Judge
from minidl.oracle.steps import BIT_EQUAL, DIVERGENT, NOT_OBSERVED, WITHIN_BOUND

ALL = [
    *BINARY_METRICS, *METRICS,
    lambda m, name: m.AUC(multi_label=True, num_labels=3, label_weights=[0.2, 1.0, 0.7], name=name),
    lambda m, name: m.AUC(multi_label=True, num_labels=3, curve="PR", name=name),
    lambda m, name: m.AUC(from_logits=True, name=name), lambda m, name: m.F1Score(name=name),
    lambda m, name: m.Precision(top_k=2, name=name), lambda m, name: m.Recall(class_id=1, name=name),
    lambda m, name: m.R2Score(num_regressors=2, name=name), lambda m, name: m.PearsonCorrelation(name=name),
]  # fmt: skip


def built(dtype="float32", kinds=ALL, **compiled):
    config.set_floatx(dtype)
    utils.clear_session(free_memory=False)
    utils.set_random_seed(7)
    layers = [k.layers.Dense(8, "tanh"), k.layers.Dense(3, "sigmoid")]
    model = k.Sequential([k.layers.Input((5,)), *layers])
    plain = [make(k.metrics, f"plain_{i}") for i, make in enumerate(kinds)]
    weighted = [make(k.metrics, f"weighted_{i}") for i, make in enumerate(kinds)]
    model.compile(
        k.optimizers.SGD(0.5), "binary_crossentropy", **compiled or {"metrics": plain, "weighted_metrics": weighted}
    )
    return model


def steps(model):
    rng = np.random.default_rng(0)
    for number in range(4):
        rows = 17 - number
        x, y = rng.normal(size=(rows, 5)), (rng.uniform(size=(rows, 3)) > 0.4) * 1.0
        with judge_steps.other_order(number):
            yield judge_steps.step_of(model, x, y, rng.gamma(1.0, size=rows), number=number, batch=number)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seen", [True, False])
def test_every_metric_of_a_right_training_is_held(dtype, seen):
    judge, verdicts = Judge(built(dtype)), collections.Counter()
    for step in steps(built(dtype)):
        if not seen:
            step = dataclasses.replace(step, activations=None, pre_activations=None)
        for check in judge.judge(step):
            assert check.verdict != DIVERGENT and check.own_share <= 1, check
            verdicts[check.verdict] += check.quantity == "metric"
            if check.quantity == "metric" and check.verdict == NOT_OBSERVED:
                assert not seen and check.reason == "the outputs were not recorded"  # the k largest of balls
    assert set(+verdicts) - {NOT_OBSERVED} == ({BIT_EQUAL} if seen else {BIT_EQUAL, WITHIN_BOUND})


@pytest.mark.parametrize("i", range(len(ALL)))
def test_a_value_that_is_off_is_seen(i):
    """By 1 % of it, which is beyond what rounding does to any of them here."""
    kinds = [ALL[i]]
    judge = Judge(built(kinds=kinds))
    for step in steps(built(kinds=kinds)):
        if step.number == 3:
            step.logs = {name: value * 1.01 + 1e-6 for name, value in step.logs.items()}
        found = {check.name: check.verdict for check in judge.judge(step) if check.quantity == "metric"}
    unbounded = set()
    if isinstance(kinds[0](k.metrics, "m"), k.metrics.PearsonCorrelation):
        unbounded = {"plain_0", "weighted_0"}  # labels 1, 1, 1 do not vary
    assert {name for name, verdict in found.items() if verdict == DIVERGENT} == set(found) - unbounded


def test_counts_without_weights_are_exact(rng):
    metric = k.metrics.TruePositives([0.2, 0.6])
    running = metric_bounds.running(metric, Arithmetic.of("float32"))
    for _ in range(3):
        y, p = rng.integers(0, 2, (9, 2)), rng.uniform(size=(9, 2)).astype("f")
        metric.update_state(y, p)
        running.add(y, running.arithmetic.given(p), None)
    found = running.result()
    assert not found.radius.any() and found.value.tolist() == metric.result().tolist()


def test_an_output_that_may_lie_on_either_side_of_a_threshold_counts_for_both():
    metric = k.metrics.Precision()
    running = metric_bounds.running(metric, Arithmetic.of("float32"))
    given = running.arithmetic.given(np.array([[0.5], [0.9], [0.1]], "f"))
    p = Ball(given.value, np.array([[1e-6], [0.0], [0.0]]), running.arithmetic)
    running.add(np.array([[1], [0], [1]]), p, None)
    found = running.result()
    assert found.share(np.array(0.0)) <= 1 and found.share(np.array(0.5)) <= 1 and found.share(np.array(0.8)) > 1


@pytest.mark.parametrize("curve", ["ROC", "PR", "PRGAIN"])
@pytest.mark.parametrize("method", ["interpolation", "minoring", "majoring"])
def test_an_area_holds_all_outputs_of_their_balls(curve, method):
    """Also where between two thresholds there is no output, but might be one."""
    labels, outputs = np.array([[0], [0], [1], [1], [0]]), np.array([[0.925], [0.75], [0.925], [0.95], [0.875]], "f")
    radius, rng = np.array([[1.0], [0.0], [0.0], [1.0], [1.0]]), np.random.default_rng(0)
    metric = k.metrics.AUC(4, curve, method)
    running = metric_bounds.running(metric, Arithmetic.of("float32"))
    with np.errstate(all="ignore"):
        running.add(labels, Ball(outputs.astype(float), radius, running.arithmetic), None)
        for _ in range(30):
            metric.reset_state()
            metric.update_state(labels, np.where(radius > 0, rng.uniform(size=(5, 1)), outputs))
            assert running.result().share(metric.result()) <= 1


@pytest.mark.parametrize("i", range(len(ALL)))
def test_a_nan_may_go_either_way_in_a_comparison(i):
    rng = np.random.default_rng(2)
    labels, outputs = (rng.uniform(size=(9, 3)) > 0.4) * 1.0, rng.uniform(size=(9, 3)).astype("f")
    nan = rng.uniform(size=outputs.shape) < 0.2
    metric = ALL[i](k.metrics, "m")
    running = metric_bounds.running(metric, Arithmetic.of("float32"))
    if running is None or isinstance(metric, k.metrics.R2Score):
        pytest.skip("no comparisons")
    outputs[nan] = np.nan
    try:
        running.add(labels, running.arithmetic.given(outputs), None)
    except metric_bounds.Unbounded:
        assert metric.top_k
        return
    with np.errstate(all="ignore"):
        ball = running.result()
        for taken in (0.0, 1.0, rng.uniform(size=nan.sum()), np.nan):
            metric.reset_state()
            outputs[nan] = taken
            metric.update_state(labels, outputs)
            assert (ball.share(metric.result()) <= 1).all()


def test_a_metric_of_your_own_is_compared_bit_for_bit_and_else_not_judged():
    class Largest(k.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(y_pred.max(axis=-1))

    judge, trained = Judge(built(metrics=[Largest(name="own")])), built(metrics=[Largest(name="own")])
    for step in steps(trained):
        step.logs["own"] += 1e-6 * (step.number == 1)
        (check,) = (check for check in judge.judge(step) if check.name == "own")
        assert check.verdict == (NOT_OBSERVED if step.number == 1 else BIT_EQUAL)


def test_a_norm_whose_squares_overflow_is_not_taken_for_0():
    """float32 makes ‖p‖² infinite and 1/‖p‖ 0, another way to compute it 10⁻²⁴: neither is 1/ε."""
    p = Arithmetic.of("float32").given(np.array([[1e24, 3e24], [3.0, 4.0]], "f"))
    with np.errstate(all="ignore"):
        found = layer_bounds.inverse_norm(p, -1, 1e-7)
    assert found.share(np.array([[0.0], [0.2]])).max() <= 1 and found.share(np.array([[3e-25], [0.2]])).max() <= 1
    assert found.share(np.array([[0.0], [0.3]])).max() > 1
