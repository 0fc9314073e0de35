"""oracle.check on live Keras: right in every mode and backend, without changing a bit; faults, misuse, Ctrl-C."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
import weakref
from pathlib import Path

import check_cases
import numpy as np
import pytest
from check_cases import BINARY, CASES, COMPILED, MODES, X
from helpers import printed_on

from minidl import config
from minidl.oracle import CannotCheck, assert_matches_reference, check, record, reproduce
from minidl.oracle.checking import _Run
from minidl.oracle.judge import Judge
from minidl.oracle.recorder import Recorder
from minidl.oracle.steps import BIT_EQUAL, DIVERGENT, NOT_OBSERVED, QUANTITIES, WITHIN_BOUND
from minidl.oracle.tracefile import TraceWriter, check_trace

pytestmark = pytest.mark.keras


@pytest.mark.parametrize(
    "name, mode", [(name, mode) for name in CASES for mode in MODES if mode != "xla" or name in COMPILED]
)
def test_keras_is_right_and_not_a_bit_is_changed(keras, name, mode):
    same, report = check_cases.checked_twice(keras, check, name, mode)
    assert same
    assert report.ok, report
    assert report.steps == 10 and report.about["mode"] == mode
    seen = {tally.quantity for tally in report.ordered() if tally.verdict != NOT_OBSERVED}
    assert seen >= ({"batch", "metric", "slot", "weight"} if mode == "xla" else set(QUANTITIES) - {"mask", "penalty"})
    for quantity in ("batch", "mask"):  # and the initial weights: predicted, not computed
        assert {t.verdict for t in report.cell(quantity)} <= {BIT_EQUAL, NOT_OBSERVED}
    assert all(tally.counts[BIT_EQUAL] for tally in report.cell("weight") if tally.name in ("kernel", "bias"))


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends(backend):
    said = [json.loads(line) for line in printed_on(backend, check_cases.__file__).splitlines()]
    unseen = [said.pop()] if backend == "jax" else []  # what is not what happened is dropped
    reversed_rows = said.pop()
    assert not reversed_rows["ok"] and reversed_rows["first"].startswith("batch x diverges in step 0")
    if backend == "torch":
        drawn_between = said.pop()
        assert drawn_between["first"].startswith("mask dropout/noise diverges in step 0"), drawn_between
        assert drawn_between["mask"]["generator"] == DIVERGENT
    refused = said.pop() if backend == "torch" else ""
    other = said.pop()
    assert other["ok"] and other["same"] and other["mode"] == ("eager" if backend == "jax" else "compile"), other
    assert set(other["seen"]) >= {"batch", "metric", "slot", "weight"} | ({"gradient"} if backend == "jax" else set())
    assert backend == "jax" or ("gradient" not in other["seen"] and "Dropout without a seed" in refused)
    for one in said:  # predicted from the state of the generator
        assert set(one["batch"]) >= {"x", "y"} and set(one["batch"].values()) == {BIT_EQUAL}, one
        assert set(one["mask"].values()) <= {BIT_EQUAL, WITHIN_BOUND, NOT_OBSERVED}, one
    assert backend == "jax" or next(one for one in said if one["name"] == "nested")["mask"] == {
        "noise": BIT_EQUAL,
        "generator": BIT_EQUAL,
    }
    assert [one["name"] for one in said] == list(COMPILED if backend == "jax" else CASES)
    assert all(set(one["seen"]) >= set(QUANTITIES) - {"mask", "penalty"} for one in said)
    assert all(not {"activation", "gradient"} & set(one["seen"]) and one["ok"] and one["same"] for one in unseen)
    assert all(one["same"] and one["ok"] for one in said), [one for one in said if not (one["same"] and one["ok"])]


def test_a_trained_model_goes_on(keras):
    """Slots and counts are taken as they are; where no seed is known the rows are looked for, each once."""
    model = check_cases.built(keras, "penalties_and_noise")
    model.fit(X, BINARY, epochs=2, verbose=0)
    report = check(model, X, BINARY, epochs=2)
    assert report.ok, report
    assert int(model.optimizer.iterations) == 2 * 3 + 2 * 3


def test_where_the_order_of_the_rows_is_not_predicted_the_report_says_why(keras, monkeypatch):
    monkeypatch.setattr(_Run, "_global_seed", lambda self: None)
    report = check(check_cases.built(keras, "scheduled"), X, check_cases.NUMBERS)
    why = "The order of the rows is not predicted: without keras.utils.set_random_seed TensorFlow draws it from"
    assert report.ok and why in str(report) and why in report.to_html()
    assert [(tally.name, tally.verdict) for tally in report.cell("batch")] == [
        ("rows", BIT_EQUAL), ("order", NOT_OBSERVED),
    ]  # fmt: skip


def test_what_keras_forgets_to_write_of_a_loss_is_known(keras, tmp_path):
    """Also in a trace, and where a step is trained anew."""
    keras.utils.clear_session(free_memory=False)
    model = _compiled(keras, keras.layers.Dense(2), loss=keras.losses.Huber(0.3))
    assert "delta" not in model.loss.get_config()
    y = 5 * check_cases.NUMBERS
    steps = []
    with TraceWriter(tmp_path / "t.npz", record(model, X, y, steps.append), (X, y)) as writer:
        for step in steps:
            writer.add(step)
    assert check_trace(tmp_path / "t.npz").ok
    report = check(model, X, y)
    assert report.ok, report
    case = reproduce.Case(report.about["model"], "graph", "float32", steps[0].before, steps[0].x, steps[0].y)
    assert case.model().loss._fn_kwargs == {"delta": 0.3} and case.check().ok


def test_what_keras_forgets_to_write_of_a_metric_is_known(keras):
    metric = keras.metrics.CosineSimilarity(axis=0)
    report = check(_compiled(keras, keras.layers.Dense(2), metrics=[metric]), X, check_cases.NUMBERS)
    assert report.about["model"]["compile_config"]["metrics"][0]["config"]["axis"] == 0
    assert report.ok


def test_float64(keras):
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        same, report = check_cases.checked_twice(keras, check, "normalized", "graph")
    finally:
        keras.config.set_floatx(before)
    assert same and report.ok and report.about["dtype"] == "float64", report
    assert config.floatx() == "float32"


def test_a_fault_is_named_and_the_model_is_left_as_after_fit(keras, monkeypatch):
    plain = keras.optimizers.Adam.update_step

    def update_step(self, gradient, variable, learning_rate):
        plain(self, gradient, variable, learning_rate * 1.0001)

    monkeypatch.setattr(keras.optimizers.Adam, "update_step", update_step)
    model = check_cases.built(keras, "penalties_and_noise")
    report = check(model, X, BINARY)
    first = report.first_divergence
    assert (first.quantity, first.step) == ("weight", 0) and not report.ok
    for owner in (model, model.optimizer, *model.layers):
        assert vars(owner).keys().isdisjoint({"call", "train_step", "compute_loss", "apply"})
    with pytest.raises(AssertionError, match=r"does not match minidl's reference.\nDivergent: the weight"):
        assert_matches_reference(model, X, BINARY)


def test_steps_progress_and_ctrl_c(keras):
    model, said = check_cases.built(keras, "scheduled"), []
    y = check_cases.NUMBERS
    report = check(model, X, y, batch_size=16, epochs=3, steps=4, progress=lambda *done: said.append(done))
    assert report.steps == 4 and said == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    model = check_cases.built(keras, "scheduled")
    report = check(model, X, y, batch_size=16, progress=interrupt)
    assert report.interrupted and report.steps == 2 and report.ok and "interrupted" in report.verdict
    assert "call" not in vars(model.layers[0])
    model.fit(X, y, verbose=0)


def test_ctrl_c_in_keras_and_errors_of_the_judge(keras, monkeypatch):
    """The judge is a step behind, in a thread: what Keras has done is in the report, and what it raises is raised."""
    model = check_cases.built(keras, "scheduled")
    plain = Recorder.state

    def interrupted(self):
        if getattr(self, "seen", None) and interrupted.left == 0:
            raise KeyboardInterrupt
        interrupted.left -= bool(self.seen)
        return plain(self)

    interrupted.left = 3
    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "state", interrupted)
        report = check(model, X, y=check_cases.NUMBERS, batch_size=16)
    assert report.interrupted and report.steps == 3 and report.ok
    judge = Judge.judge
    for failing in (1, 4):  # of five; the last is waited for

        def fails(self, step, failing=failing):
            if step.number == failing:
                raise ArithmeticError(f"step {step.number}")
            return judge(self, step)

        with monkeypatch.context() as patched:
            patched.setattr(Judge, "judge", fails)
            with pytest.raises(ArithmeticError, match=f"step {failing}"):
                check(model, X, check_cases.NUMBERS, batch_size=16)
        assert "call" not in vars(model.layers[0])


@pytest.mark.parametrize("mode", ["graph", "eager"])
@pytest.mark.parametrize("name", ["penalties_and_noise", "normalized", "accumulating"])
def test_what_a_step_hands_on_is_the_state_after_it_and_stays_as_it_was(keras, name, mode):
    """Its arrays are TensorFlow's memory: later steps must not write to it."""
    model, kept = check_cases.built(keras, name, mode), []

    def arrays_of(step):
        for state in (step.before, step.after):
            yield from (*state.weights.values(), *state.seeds.values())
            yield from (array for arrays in state.slots.values() for array in arrays.values())
        for seen in (step.noise, step.pre_activations, step.activations, step.gradients):
            yield from (seen or {}).values()
        yield from (step.x, step.y)

    def sink(step):
        kept.append((step, [array.copy() for array in arrays_of(step)]))
        now = {variable.path: variable.numpy() for variable in model.weights}
        assert [array.tobytes() for array in step.after.weights.values()] == [one.tobytes() for one in now.values()]
        slots = [array for arrays in step.after.slots.values() for array in arrays.values()]
        variables = model.optimizer.variables[-len(slots) :]
        assert sorted(array.tobytes() for array in slots) == sorted(one.numpy().tobytes() for one in variables)
        assert step.after.iterations == int(model.optimizer.iterations)
        assert step.after.learning_rate == float(model.optimizer.learning_rate)

    record(model, X, check_cases.CASES[name][1], sink, epochs=2, batch_size=16)
    assert len(kept) == 10
    for step, copies in kept:
        for array, copied in zip(arrays_of(step), copies, strict=True):
            assert array.tobytes() == copied.tobytes()


def test_only_two_steps_are_kept_where_one_is_judged_beside_keras(keras, monkeypatch):
    """However slow the judge is."""
    model, alive, judge, made = check_cases.built(keras, "scheduled"), [], Judge.judge, Recorder.step

    def noted(self, *args):
        step = made(self, *args)
        alive.append(weakref.ref(step))
        assert sum(one() is not None for one in alive) <= 2
        return step

    def slow(self, step):
        time.sleep(0.03)
        return judge(self, step)

    monkeypatch.setattr(Recorder, "step", noted)
    monkeypatch.setattr(Judge, "judge", slow)
    assert check(model, X, check_cases.NUMBERS, epochs=3, batch_size=16).steps == len(alive) == 15


def test_only_one_step_is_kept(keras):
    """A step's tensors are let go before the next step's come."""
    model, alive = check_cases.built(keras, "scheduled"), []

    def sink(step):
        alive.append(weakref.ref(step))
        assert sum(one() is not None for one in alive) <= 2

    record(model, X, check_cases.NUMBERS, sink, epochs=3, batch_size=16)
    assert len(alive) == 15


def own_layer(keras):
    class Mine(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    return _compiled(keras, Mine(), keras.layers.Dense(1))


def _compiled(keras, *layers, shape=(6,), **arguments):
    model = keras.Sequential([keras.layers.Input(shape), *layers])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **arguments})
    return model


CANNOT = {
    "a convolution": (
        lambda k: _compiled(k, k.layers.Conv1D(2, 3), k.layers.Flatten(), k.layers.Dense(1), shape=(6, 1)), "Conv1D"
    ),
    "a layer of one's own": (own_layer, "Mine"),
    "several steps at a time": (
        lambda k: _compiled(k, k.layers.Dense(1), steps_per_execution=2), "steps_per_execution=2"
    ),
    "a loss of one's own": (lambda k: _compiled(k, k.layers.Dense(1), loss=lambda a, b: (a - b) ** 2), "lambda|loss"),
    "another optimizer": (lambda k: _compiled(k, k.layers.Dense(1), optimizer="ftrl"), "(?i)ftrl"),
}  # fmt: skip


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_checked_is_named(keras, name):
    build, message = CANNOT[name]
    model = build(keras)
    before = model.get_weights()
    with pytest.raises(CannotCheck, match=message):
        check(model, X[..., None] if name == "a convolution" else X, BINARY)
    for got, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_keras_own_limits_of_a_fit(keras):
    """Fewer epochs are all that is waited for; epochs cut short are refused."""
    model = check_cases.built(keras, "scheduled")
    try:
        keras.config.set_max_epochs(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras says that it does
            report = check(model, X, check_cases.NUMBERS, epochs=3)
        assert report.ok and report.steps == 3 and report.about["epochs"] == 1
        keras.config.set_max_steps_per_epoch(2)
        with pytest.raises(CannotCheck, match="max_steps_per_epoch"):
            check(model, X, check_cases.NUMBERS)
    finally:
        keras.config.set_max_epochs(None)
        keras.config.set_max_steps_per_epoch(None)


MISUSE = {
    "no model": (lambda k, m: check(3, X, BINARY), TypeError, "expected a Keras model; got builtins.int"),
    "not compiled": (
        lambda k, m: check(k.Sequential([k.layers.Dense(1)]), X, BINARY), ValueError, "is not compiled"
    ),
    "another width": (lambda k, m: check(m, X[:, :4], BINARY), ValueError, "6 features"),
    "other lengths": (lambda k, m: check(m, X, BINARY[:5]), ValueError, "same number of samples"),
    "nan": (lambda k, m: check(m, np.full_like(X, np.nan), BINARY), ValueError, "x: expected finite numbers"),
    "nothing": (lambda k, m: check(m, X[:0], BINARY[:0]), ValueError, "at least one sample"),
    "a generator": (lambda k, m: check(m, ((X, BINARY) for _ in "ab"), None), TypeError, "x: "),
    "epochs": (lambda k, m: check(m, X, BINARY, epochs=0), ValueError, "epochs must be a positive integer"),
    "batch_size": (lambda k, m: check(m, X, BINARY, batch_size=0.5), ValueError, "batch_size must be"),
    "shuffle": (lambda k, m: check(m, X, BINARY, shuffle="all"), ValueError, "shuffle must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISUSE)
def test_misuse(keras, name):
    call, error, message = MISUSE[name]
    model = check_cases.built(keras, "penalties_and_noise")
    with pytest.raises(error, match=message):
        call(keras, model)
    assert model.optimizer.iterations == 0


def test_nothing_is_watched_that_xla_has_compiled(keras):
    model = check_cases.built(keras, "scheduled", "xla")
    from minidl.oracle.checking import twin_of

    assert not Recorder(keras, model, twin_of(keras, model)).inside


# ------------------------------------------------------------------------------------------- command line

MODULE = """
import keras
def notebook():
    la, r = keras.layers, keras.regularizers
    model = keras.Sequential([la.Input((4,)), la.Dense(4, "relu", kernel_regularizer=r.L1(0.1)), la.Dropout(0.8),
                              la.Dense(4, "relu", kernel_regularizer=r.L2(0.1)), la.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model
def wrong():
    adam = keras.optimizers.Adam
    plain = adam.update_step
    def update_step(self, gradient, variable, rate):
        plain(self, gradient, variable, 2 * rate)
    adam.update_step = update_step
    return notebook()
def uncompiled():
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
def number():
    return 3
def fails():
    raise RuntimeError("of the user's own")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, keras):
    path = tmp_path_factory.mktemp("user")
    (path / "mine.py").write_text(MODULE)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(X[:, :4], BINARY, verbose=0)
    model.save(path / "model.keras")
    (path / "damaged.keras").write_bytes((path / "model.keras").read_bytes()[:500])
    np.savez(path / "data.npz", x=X[:, :4], y=BINARY)
    np.savez(path / "other.npz", a=X)
    return path


@pytest.fixture
def command(folder, monkeypatch, capsys):
    from typer.testing import CliRunner

    from minidl.cli import app

    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("mine", None)

    def run(*arguments):
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        return result.exit_code, " ".join(result.output.split())

    return run


def test_command_check(command, folder):
    code, said = command(
        "check", "mine:notebook", "--initial-weights", "--report", "out/r.html", "--json", "out/r.json"
    )
    assert code == 0 and said.startswith("Right: all") and "pre_activation" in said
    assert json.loads((folder / "out/r.json").read_text())["ok"] is True
    assert (folder / "out/r.html").read_text().startswith("<!doctype html>")
    code, said = command("check", "model.keras", "--data", "data.npz", "--epochs", "2", "--batch-size", "16", "--eager")
    assert code == 0 and "epochs 2 · batch size 16 · samples 70" in said and "mode eager" in said


def test_command_check_of_a_fault(command, keras, monkeypatch):
    monkeypatch.setattr(keras.optimizers.Adam, "update_step", keras.optimizers.Adam.update_step)
    code, said = command("check", "mine:wrong")
    assert code == 1 and said.startswith("Divergent: the weight")


REFUSED = {
    "a missing file": (["check", "gone.keras"], "gone.keras: no such file"),
    "a damaged file": (["check", "damaged.keras"], "damaged.keras: Keras cannot load it"),
    "a missing module": (["check", "gone:model"], "No module named 'gone'"),
    "a missing function": (["check", "mine:gone"], "has no gone"),
    "no model": (["check", "mine:number"], "expected a Keras model; got builtins.int"),
    "not compiled": (["check", "mine:uncompiled"], "is not compiled"),
    "a failing function": (["check", "mine:fails"], "RuntimeError: of the user's own"),
    "no data": (["check", "mine:notebook", "--data", "gone.npz"], "gone.npz: no such file"),
    "other data": (["check", "mine:notebook", "--data", "other.npz"], "expected arrays x and y; it holds a"),
    "data of another kind": (["check", "mine:notebook", "--data", "mine.py"], "not an .npz file"),
    "both modes": (["check", "mine:notebook", "--jit", "--eager"], "either compiled, --jit, or run eagerly"),
    "another backend": (["check", "mine:notebook", "--backend", "jax"], "Keras runs on tensorflow"),
    "nothing": (["check"], "give either a MODEL or a --trace"),
    "a trace that is none": (["check", "--trace", "data.npz"], "data.npz"),
    "diff of nothing": (["diff", "gone.npz", "gone.npz"], "gone.npz"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_command_cannot_check(command, name):
    arguments, message = REFUSED[name]
    code, said = command(*arguments)
    assert code == 2 and message in said, said


def test_commands_record_check_and_diff(command, folder, keras):
    for trace, more in (("a.npz", []), ("b.npz", ["--eager"])):
        keras.utils.clear_session(free_memory=False)  # as in a new process: the layers' names begin anew
        code, said = command("record", "mine:notebook", trace, "--synthetic", "64", *more)
        assert code == 0 and said.startswith(f"2 steps recorded: {trace}")
    code, said = command("check", "--trace", "a.npz")
    assert code == 0 and said.startswith("Right: all")
    code, said = command("diff", "a.npz", "b.npz", "--json", "d.json")
    assert code == 0 and "a.npz" in said
    assert json.loads((folder / "d.json").read_text())
    assert sorted(path.name for path in Path(folder).glob("*.tmp")) == []


def test_the_plugin_gives_the_fixture(folder):
    (folder / "test_mine.py").write_text(
        "import numpy as np\n"
        "import mine\n"
        "def test_mine(assert_matches_reference):\n"
        "    x = np.ones((8, 4), 'float32')\n"
        "    assert assert_matches_reference(mine.notebook(), x, x[:, :1]).steps == 1\n"
    )
    installed = any(found.name == "minidl" for found in importlib.metadata.entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "minidl.pytest_plugin"]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "test_mine.py"],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
