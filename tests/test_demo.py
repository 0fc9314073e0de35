"""The demo, whole but small: its tables hold Keras's and minidl's numbers, its verdict is that of the checks."""

import csv
import dataclasses
import io
import re

import numpy as np
import pytest
from rich.console import Console

from minidl import demo, keras, study
from minidl.oracle import notebook
from minidl.utils import set_random_seed

pytest.importorskip("matplotlib")

NAMES = list(notebook.MODELS)


@dataclasses.dataclass
class Done:
    ok: bool
    text: str
    out: object
    comparisons: dict


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One run of the demo, into a log, with a seed of the study."""
    out, file, comparisons = tmp_path_factory.mktemp("demo"), io.StringIO(), {}
    plain_compare = demo.compare

    def compare(trace, build, *data, **options):
        name = next(name for name, other in notebook.MODELS.items() if other is build)
        comparisons[name] = plain_compare(trace, build, *data, **options)
        return comparisons[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "compare", compare)
        ok = demo.run(out, Console(file=file, width=150), seeds=1)
    return Done(ok, file.getvalue(), out, comparisons)


def rows(table):
    """A table's cells, row by row."""
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def spoilt(comparison):
    """The same comparison, but its first check failed."""
    check = dataclasses.replace(comparison.checks[0], ok=False, text="different (44 of 45)")
    return dataclasses.replace(comparison, checks=[check, *comparison.checks[1:]])


def log_of(function, *arguments, width=150, **options):
    console = Console(file=io.StringIO(), width=width)
    result = function(console, *arguments, **options)
    return result, console.file.getvalue()


# ------------------------------------------------------------------------------------------- as a whole


def test_the_demo_agrees_with_keras_and_says_so_last(done):
    assert done.ok is True
    *_, first, second = done.text.strip().splitlines()
    for line, name in zip((first, second), NAMES, strict=True):
        assert line.startswith(f"PASS  {name}: ")
    assert "FAIL" not in done.text


def test_it_writes_the_four_figures_and_the_differences_and_nothing_else(done):
    files = {path.name: path.read_bytes() for path in done.out.iterdir()}
    assert set(files) == {
        "learning-curves.png", "over-fitting.png", "l1-and-l2.png", "dropout.png",
        "differences-l1-and-l2.csv", "differences-l1-l2-and-dropout.csv",
    }  # fmt: skip
    for name, content in files.items():
        assert name in done.text
        assert name.endswith(".csv") or content.startswith(b"\x89PNG")


def test_a_log_has_no_progress_bar_and_no_colours_but_a_terminal_has_both(done):
    assert "\x1b" not in done.text
    assert demo._progress(Console(file=io.StringIO())).disable
    console = Console(file=io.StringIO(), force_terminal=True)
    with demo._progress(console) as progress:
        progress.add_task("over-fitting study", total=3)
    assert "over-fitting study" in console.file.getvalue()


def test_versions_settings_and_every_check_are_printed(done):
    for comparison in done.comparisons.values():
        versions = comparison.trace.versions
        assert f"Keras {versions['keras']} on TensorFlow {versions['tensorflow']}, recorded; seed " in done.text
        text = " ".join(done.text.split())
        for check in comparison.checks:
            assert f"PASS {check.name}: {check.text}" in text


def test_live_runs_keras_for_every_model_before_minidl_trains(monkeypatch, tmp_path):
    asked = []

    def record_live(name):
        asked.append(name)
        if len(asked) == 2:
            raise ImportError("stop here")
        return notebook.recorded(name)

    monkeypatch.setattr(notebook, "record_live", record_live)
    monkeypatch.setattr(demo, "compare", None)  # must not be reached
    with pytest.raises(ImportError, match="stop here"):
        demo.run(tmp_path, Console(file=io.StringIO()), live=True)
    assert asked == NAMES
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------- one model beside Keras


def test_history_table_is_minidls_own_training_beside_the_trace(done):
    name = NAMES[0]
    comparison = done.comparisons[name]
    (x, y), validation = notebook.data()
    set_random_seed(notebook.SEED)
    model = notebook.MODELS[name](keras)
    ours = model.fit(x, y, batch_size=notebook.BATCH_SIZE, epochs=3, validation_data=validation, verbose=0).history
    theirs = {metric: [value + 1 for value in values] for metric, values in notebook.recorded(name).history.items()}
    trace = dataclasses.replace(comparison.trace, history=theirs)  # so that the two can be told apart
    table = demo.history_table(dataclasses.replace(comparison, trace=trace), [0, 2])
    headings = [" ".join(str(column.header).replace("val_\n", "val_").split()) for column in table.columns]
    assert headings == ["epoch"] + [f"{m} {who}" for m in demo.HISTORY for who in ("minidl", "Keras")]
    for row, epoch in zip(rows(table), (0, 2), strict=True):
        assert row[0] == str(epoch + 1)
        for i, metric in enumerate(demo.HISTORY):
            digits = 4 if "accuracy" in metric else 6
            assert row[1 + 2 * i] == f"{ours[metric][epoch]:.{digits}f}"
            assert row[2 + 2 * i] == f"{theirs[metric][epoch]:.{digits}f}"


@pytest.mark.parametrize("name", NAMES)
def test_differences_in_the_file_are_those_of_the_weights(done, name):
    comparison = done.comparisons[name]
    with open(done.out / demo.differences_file(name), newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == ["epoch", "tensor", "ulp", "absolute", "float32_from_float64"]
    tensors = [tensor for tensor, _ in comparison.trace.tensors]
    assert [(int(line[0]), line[1]) for line in lines] == [
        (epoch, tensor) for epoch in range(1, notebook.EPOCHS + 1) for tensor in tensors
    ]
    # after the last epoch, from the weights themselves
    start = 0
    for (_, shape), line in zip(comparison.trace.tensors, lines[-len(tensors) :], strict=True):
        part = slice(start, start := start + int(np.prod(shape)))
        ours, theirs = comparison.model.arena.theta[part], comparison.trace.epoch_theta[-1, part]
        distance = np.abs(ours.astype(np.float64) - theirs)
        ulp = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(ours), np.abs(theirs)).astype(np.float64))) - 23)
        assert float(line[3]) == distance.max()
        assert float(line[2]) == (distance / ulp).max()


def test_differences_table_has_every_tensor_and_the_largest(done):
    comparison = done.comparisons[NAMES[1]]
    table = demo.differences_table(comparison, [0, 99])
    headings = [str(column.header).replace("\n", "") for column in table.columns]
    assert headings == ["epoch", *comparison.tensors, "largest"]
    for row, epoch in zip(rows(table), (0, 99), strict=True):
        ulps, absolute = comparison.drift_ulps[epoch], comparison.drift_abs[epoch]
        assert row[0] == str(epoch + 1)
        assert row[1:-1] == [demo.difference(u, a) for u, a in zip(ulps, absolute, strict=True)]
        assert row[-1] == demo.difference(max(ulps), max(absolute))


def test_worst_table_is_of_all_epochs(done):
    comparison = done.comparisons[NAMES[0]]
    drift = np.zeros_like(comparison.drift_abs)
    drift[41, 2] = 0.5
    comparison = dataclasses.replace(comparison, drift_abs=drift, drift_ulps=drift * 8, drift_of_rounding=drift / 4)
    found = rows(demo.worst_table(comparison))
    assert [row[0] for row in found] == comparison.tensors
    assert found[2][1:] == ["4 ulp 5.0e-01", "0", "1.2e-01"]
    assert found[1][1:] == ["0", "0", "0.0e+00"]


def test_all_epochs_prints_a_row_for_each(done):
    name = NAMES[0]
    _, some = log_of(demo.print_comparison, name, done.comparisons[name], live=False, all_epochs=False)
    _, every = log_of(demo.print_comparison, name, done.comparisons[name], live=True, all_epochs=True)
    assert len(re.findall(r"^ +\d+ ", every, re.M)) == 200
    assert len(re.findall(r"^ +\d+ ", some, re.M)) == 2 * demo.ROWS
    assert "--all-epochs" in some
    assert "--all-epochs" not in every
    assert "run now" in every


def test_tables_lose_nothing_on_a_terminal_of_80_columns(done):
    name = NAMES[1]
    for function, arguments, options in (
        (demo.print_comparison, (name, done.comparisons[name]), {"live": False, "all_epochs": False}),
        (demo.print_study, (study.run([0, 1], epochs=2),), {}),
    ):
        _, text = log_of(function, *arguments, width=80, **options)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    "epochs, expected",
    [
        (1, [0]),
        (12, list(range(12))),
        (100, [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]),
    ],
)
def test_some_epochs_have_the_first_and_the_last(epochs, expected):
    assert demo.some_epochs(epochs, 12) == expected


@pytest.mark.parametrize(
    "ulps, absolute, text",
    [
        (0.0, 0.0, "0"),
        (3.0, 2.4e-7, "3 ulp 2.4e-07"),
        (57856.0, 1e-8, "57856 ulp 1.0e-08"),
        (2e6, 8.9e-8, "2e+06 ulp 8.9e-08"),
        (np.nan, np.nan, "nan ulp nan"),
    ],
)
def test_difference_in_a_table(ulps, absolute, text):
    assert demo.difference(ulps, absolute) == text


# ----------------------------------------------------------------------------------------- the verdict


def test_a_failed_check_fails_the_verdict_and_is_red(done):
    comparisons = dict(done.comparisons)
    comparisons[NAMES[1]] = spoilt(comparisons[NAMES[1]])
    ok, text = log_of(demo.print_verdict, comparisons)
    assert ok is False
    assert f"PASS  {NAMES[0]}: " in text
    assert f"FAIL  {NAMES[1]}: {comparisons[NAMES[1]].verdict}" in text
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", highlight=False)
    demo.print_comparison(console, NAMES[1], comparisons[NAMES[1]], live=False, all_epochs=False)
    assert re.search(r"\x1b\[1;31m  FAIL  initial weights: different \(44 of 45\)", console.file.getvalue())
    assert "\x1b[32m  PASS  batch order" in console.file.getvalue()


# ------------------------------------------------------------------------------------------- the study


def test_study_table_is_mean_and_standard_deviation_over_the_seeds(rng):
    runs = {
        name: study.Runs(name, *rng.uniform(size=(3, 5, 7)), kernels=rng.normal(scale=0.01, size=(5, 40)))
        for name in ("one", "two")
    }
    table = demo.study_table(runs)
    assert [column.header for column in table.columns] == ["", "one", "two"]
    found = {row[0]: row[1:] for row in rows(table)}
    last = [(r.train_loss[:, -1], r.validation_loss[:, -1], r.validation_accuracy[:, -1]) for r in runs.values()]
    for column, (train, validation, accuracy) in enumerate(last):
        for label, values in (
            ("train loss", train),
            ("validation loss", validation),
            ("gap", validation - train),
            ("validation accuracy", accuracy),
        ):
            mean = sum(values) / 5
            deviation = (sum((v - mean) ** 2 for v in values) / 4) ** 0.5
            assert found[label][column] == f"{mean:.3f} ± {deviation:.3f}"
    assert found["exact zeros"] == ["0 ± 0", "0 ± 0"]
    near_zero = (np.abs(runs["two"].kernels) < study.NEAR_ZERO).sum(axis=1)
    assert found["near zero, of 40"][1] == f"{near_zero.mean():.0f} ± {near_zero.std(ddof=1):.0f}"
    best = [1 + list(row).index(min(row)) for row in runs["one"].validation_loss]
    assert found["best epoch"][0] == f"{np.mean(best):.0f} ± {np.std(best, ddof=1):.0f}"


def test_one_seed_has_no_deviation():
    assert demo.mean_and_spread(np.array([0.25]), 3) == "0.250"
    assert demo.mean_and_spread(np.array([1.0, 3.0]), 1) == "2.0 ± 1.4"
