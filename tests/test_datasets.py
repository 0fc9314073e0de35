"""The penguins against the file itself and published means; standardize against its definition."""

import csv
import hashlib
import importlib.resources
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minidl.datasets import penguins, standardize

DATA = Path(penguins.__file__).parents[1] / "data"


def groups_of_complete_birds():
    """(four measurements, sex) -> (species, sex), of the file's rows without an NA; no two are alike."""
    with open(DATA / "penguins.csv", newline="") as file:
        rows = [row for row in csv.reader(file) if "NA" not in row][1:]
    groups = {(*np.float32(row[2:6]).tolist(), row[6] == "male"): (row[0], row[6]) for row in rows}
    assert len(groups) == len(rows) == 333
    return groups


def keys(x, y):
    return [(*row.tolist(), bool(label)) for row, label in zip(x, y, strict=True)]


def test_penguins_shapes_dtypes_and_published_means():
    (x_train, y_train), (x_test, y_test) = penguins.load_data()
    assert (x_train.shape, y_train.shape, x_test.shape, y_test.shape) == ((267, 4), (267,), (66, 4), (66,))
    assert {x_train.dtype, x_test.dtype} == {np.dtype("float32")}
    assert {y_train.dtype, y_test.dtype} == {np.dtype("int64")}
    x = np.concatenate([x_train, x_test]).astype("float64")
    # means of the 333 complete birds, as widely published: known to half of their last digit
    assert np.abs(x.mean(axis=0) - [43.99, 17.16, 200.97, 4207.06]).max() <= 0.005
    assert sum(y_train) + sum(y_test) == 168  # males; 165 females


def test_penguins_are_each_complete_bird_once():
    train, test = (keys(*part) for part in penguins.load_data())
    assert sorted(train + test) == sorted(groups_of_complete_birds())


def test_penguins_split_takes_a_fifth_of_each_group():
    groups = groups_of_complete_birds()
    _, test = penguins.load_data()
    tested = Counter(groups[key] for key in keys(*test))
    for group, size in Counter(groups.values()).items():
        assert abs(tested[group] - size / 5) < 1, group


@pytest.mark.parametrize("part", [0, 1], ids=["train", "test"])
def test_penguins_stretches_hold_the_same_mix(part):
    groups = groups_of_complete_birds()
    order = [groups[key] for key in keys(*penguins.load_data()[part])]
    shares = {group: count / len(order) for group, count in Counter(order).items()}
    for length in range(1, len(order)):  # the last rows, those that validation_split takes
        tail = Counter(order[-length:])
        for group, share in shares.items():
            # evenly placed, but where test birds were taken out: off by at most one bird at each end
            assert abs(tail[group] - length * share) <= 2, (length, group)


def test_penguins_first_birds_are_fixed():
    (x_train, y_train), (x_test, y_test) = penguins.load_data()
    assert np.array_equal(x_train[:2], np.float32([[39.5, 17.4, 186, 3800], [39.1, 18.7, 181, 3750]]))
    assert np.array_equal(x_test[:2], np.float32([[46.1, 13.2, 211, 4500], [39.3, 20.6, 190, 3650]]))
    assert y_train[:8].tolist() == [0, 1, 1, 0, 1, 0, 1, 0]
    assert y_test[:8].tolist() == [0, 1, 1, 0, 1, 0, 0, 1]


def test_penguins_data_is_the_file_that_its_readme_describes():
    assert hashlib.sha256((DATA / "penguins.csv").read_bytes()).hexdigest() == penguins.SHA256
    assert penguins.SHA256 in (DATA / "README.md").read_text(encoding="utf-8")


def test_penguins_with_windows_line_ends(monkeypatch, tmp_path):
    expected = penguins.load_data()
    (tmp_path / "data").mkdir()
    content = (DATA / "penguins.csv").read_bytes()
    (tmp_path / "data" / "penguins.csv").write_bytes(content.replace(b"\n", b"\r\n"))
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    for got_part, expected_part in zip(penguins.load_data(), expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(got_part, expected_part, strict=True))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content.replace(b"39.1", b"93.1"),
        lambda content: b"\xff",
    ],
    ids=["cut", "changed", "not text"],
)
def test_penguins_from_a_damaged_file(monkeypatch, tmp_path, damage):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "penguins.csv").write_bytes(damage((DATA / "penguins.csv").read_bytes()))
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"penguins\.csv is damaged: expected SHA-256 f204.*Install"):
        penguins.load_data()


def test_standardize_by_hand():
    train, test = np.float32([[1, 10], [3, 50]]), np.float32([[5, 30]])  # means 2, 30; deviations 1, 20
    z_train, z_test = standardize(train, test)
    assert np.array_equal(z_train, [[-1, -1], [1, 1]])
    assert np.array_equal(z_test, [[3, 0]])
    assert np.array_equal(train, [[1, 10], [3, 50]])


@pytest.mark.parametrize(("given", "expected"), [("float32", "float32"), ("float64", "float64"), ("int64", "float32")])
def test_standardize_dtypes(given, expected):
    train = np.array([[1, 2], [3, 5]], given)
    assert [z.dtype for z in standardize(train, train[:1])] == [np.dtype(expected)] * 2


def test_standardize_computes_in_float64():
    x = np.tile(8e6 + np.arange(4), 2500)[:, None].astype("float32")  # exact: float32's spacing is ½ here
    (z,) = standardize(x)
    expected = np.tile((np.arange(4) - 1.5) / np.sqrt(1.25), 2500)[:, None]
    # μ: a pairwise sum, about log₂(10⁴) roundings of 8e6 · 2⁻⁵³, 1.2e-8; z: one to float32, 1.4 · 2⁻²⁴ = 8e-8
    assert np.abs(z - expected).max() <= 1e-7


GOOD = np.float32([[1, 2], [3, 4]])
TENTHS = np.column_stack([np.arange(1000), np.full(1000, 0.1)])  # the rounded mean makes column 1's σ 1e-15


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        (
            [TENTHS],
            ValueError,
            r"column 1 of train has values from 0\.1 to 0\.1 and the standard deviation 0",
        ),
        ([GOOD[:1]], ValueError, r"column 0 of train has values from 1 to 1 and the standard deviation 0"),
        ([[[1e300], [-1e300]]], ValueError, r"column 0 of train .* standard deviation inf"),
        ([[[1, 2], [3, np.nan]]], ValueError, r"train must hold finite numbers; row 1, column 1 is nan"),
        ([GOOD, GOOD, [[-np.inf, 0]]], ValueError, r"others\[1\] must hold .*; row 0, column 0 is -inf"),
        ([GOOD, GOOD[:, :1]], ValueError, r"others\[0\] must have train's 2 columns; got \(2, 1\)"),
        ([GOOD[:0]], ValueError, r"train: expected .* one sample; got an empty array of shape \(0, 2\)"),
        ([GOOD, GOOD[:0]], ValueError, r"others\[0\]: expected at least one sample"),
        ([GOOD[0]], ValueError, r"train must be \(samples, features\); got shape \(2,\)"),
        ([[["a", "b"]]], TypeError, r"train: expected real numbers"),
    ],
)
def test_standardize_errors(arrays, error, message):
    with pytest.raises(error, match=message):
        standardize(*arrays)
