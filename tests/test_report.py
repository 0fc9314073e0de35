"""The report: which divergence is the first, what is counted, what the terminal and the files show."""

import dataclasses
import json
import math

import judge_steps
import numpy as np
import pytest

import minidl.keras as k
from minidl import utils
from minidl.oracle.judge import Judge, judge_start
from minidl.oracle.report import Report
from minidl.oracle.steps import BIT_EQUAL, DIVERGENT, NOT_OBSERVED, WITHIN_BOUND, Check

STEPS = 4


def built():
    utils.clear_session(free_memory=False)
    utils.set_random_seed(7)
    layers = [k.layers.Dense(6, "relu"), k.layers.Dropout(0.2), k.layers.Dense(1, "sigmoid")]
    model = k.Sequential([k.layers.Input((4,)), *layers])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.arena)
    return model


def reported(fault=lambda step: step, order=3):
    """A report on minidl's own training with sums in another order; fault: changes a step before it is judged."""
    rng, model, judge = np.random.default_rng(1), built(), Judge(built())
    report = Report({"backend": "tensorflow", "mode": "graph", "layers": [layer.name for layer in model.layers]})
    report.add(judge_start(built(), judge_steps.state_of(model).weights))
    for number in range(STEPS):
        x, y = rng.normal(size=(8, 4)).astype("float32"), rng.integers(0, 2, (8, 1)).astype("float32")
        with judge_steps.other_order(order):
            step = judge_steps.step_of(model, x, y, number=number, batch=number)
        step = fault(step) if number == 2 else step
        report.add(judge.judge(step), step)
    return report


def one_gradient_off(step):
    gradients = {name: gradient.copy() for name, gradient in step.gradients.items()}
    gradients["dense/kernel"][2, 1] += 1e-3
    return dataclasses.replace(step, gradients=gradients)


def test_a_right_training():
    report = reported()
    assert report.ok and report.first_divergence is None and report.steps == STEPS
    assert report.counts[BIT_EQUAL] and report.counts[WITHIN_BOUND] and not report.counts[DIVERGENT]
    assert str(report).startswith("Right: ")
    assert report.layers == ["dense", "dropout", "dense_1", None]
    assert sum(report.counts.values()) == sum(sum(tally.counts.values()) for tally in report.cell(None))


def test_the_first_divergence_says_all_about_it():
    report = reported(one_gradient_off)
    first = report.first_divergence
    assert not report.ok
    assert (first.quantity, first.layer, first.name, first.step, first.place) == (
        "gradient",
        "dense",
        "kernel",
        2,
        (2, 1),
    )
    assert (first.epoch, first.batch) == (0, 2)
    assert math.isclose(first.got - first.truth, 1e-3, rel_tol=1e-2)
    assert 0 < first.bound < 1e-5 and first.share == pytest.approx(abs(first.got - first.truth) / first.bound)
    assert abs(first.expected - first.truth) <= first.bound
    assert first.recorded.number == 2
    for part in (
        "gradient dense/kernel",
        "step 2",
        "(2, 1)",
        f"{first.got:.9g}",
        f"{first.truth:.9g}",
        f"{first.bound:.3g}",
    ):
        assert part in first.explanation and part in str(report).replace("\n", " ")


def check(quantity, layer="dense", step=0, verdict=DIVERGENT, **rest):
    return Check(quantity, layer, "kernel", step, verdict, share=2.0 if verdict == DIVERGENT else 0.5, **rest)


def test_first_is_the_earliest_step_then_quantity_then_as_the_judge_lists_them():
    report = Report()
    report.add([check("gradient", step=3), check("activation", "b", step=3), check("activation", "a", step=3)])
    assert (report.first_divergence.quantity, report.first_divergence.layer) == ("activation", "b")
    report.add([check("weight", step=2)])
    assert report.first_divergence.quantity == "weight"
    report.add([check("batch", step=4)])
    assert report.first_divergence.step == 2


def test_nothing_judged_is_not_right():
    report = Report()
    assert not report.ok and "Nothing was judged" in str(report)
    report.add([check("weight", verdict=NOT_OBSERVED)])
    assert not report.ok
    report.add([check("weight", verdict=BIT_EQUAL)])
    assert report.ok


def test_interrupted_is_said():
    report = reported()
    report.interrupted = True
    assert report.ok and "before it was interrupted" in report.verdict


def test_the_worst_check_is_the_gravest_then_the_largest_share():
    report = Report()
    report.add(
        [check("weight", verdict=WITHIN_BOUND), check("weight", step=5), check("weight", verdict=BIT_EQUAL, step=6)]
    )
    (tally,) = report.cell("weight", "dense")
    assert (tally.verdict, tally.worst.step) == (DIVERGENT, 5)
    assert tally.counts == {NOT_OBSERVED: 0, BIT_EQUAL: 1, WITHIN_BOUND: 1, DIVERGENT: 1}


def test_json_says_the_same_and_is_strict(tmp_path):
    report = reported(one_gradient_off)
    report.add([check("loss", step=9, ulps=math.inf, inputs={"x": np.array([1.0, np.nan])})])
    path = tmp_path / "report.json"
    text = report.to_json(path)
    assert path.read_text() == text + "\n"

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(text, parse_constant=refuse)
    assert found["ok"] is False and found["counts"] == report.counts
    first = found["first_divergence"]
    assert (first["layer"], first["place"], first["got"]) == ("dense", [2, 1], report.first_divergence.got)
    assert "Infinity" in [tensor["ulps"] for tensor in found["tensors"]]
