"""Trace files: what is written is what is read and judged; damaged and malicious files are refused in clear words."""

import dataclasses
import io
import json
import random as python_random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from report_cases import FAULTS, STEPS, about, data, one_gradient_off, reported, steps

from minidl import config, random
from minidl.oracle.difference import diff
from minidl.oracle.steps import BIT_EQUAL, DIVERGENT, NOT_OBSERVED
from minidl.oracle.tracefile import Trace, TraceError, TraceWriter, check_trace, flat, flat_state


def write(path, fault=lambda step: step, order=3, **more):
    with TraceWriter(path, {**about(), **more}, data()) as writer:
        for step in steps(order):
            writer.add(fault(step) if step.number == 2 else step)
    return path


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return write(tmp_path_factory.mktemp("traces") / "right.npz")


def test_what_is_read_is_what_was_written(right):
    with Trace(right) as trace:
        assert trace.count == STEPS and trace.about == json.loads(json.dumps(about()))
        for got, wanted in zip(trace.data, data(), strict=False):
            np.testing.assert_array_equal(got, wanted)
        for got, wanted in zip(trace.steps(), steps(), strict=True):
            for mine, other in ((flat(got), flat(wanted)), *((flat_state("", s.before) for s in (got, wanted)),)):
                assert list(mine) == list(other) or sorted(mine) == sorted(other)
                for name, array in other.items():
                    assert mine[name].dtype == array.dtype and mine[name].tobytes() == array.tobytes(), name
            for when in ("before", "after"):
                assert getattr(got, when).iterations == getattr(wanted, when).iterations
                assert getattr(got, when).learning_rate == getattr(wanted, when).learning_rate
            assert (got.number, got.epoch, got.batch) == (wanted.number, wanted.epoch, wanted.batch)


def test_numpy_reads_it_too_without_pickles(right):
    with np.load(right, allow_pickle=False) as file:
        assert file["step/0/gradients/dense/kernel"].shape == (4, 6)
        assert json.loads(str(file["header"]))["format"] == "minidl trace"
    assert json.loads(right.with_suffix(".json").read_text())["versions"]["keras"] == "3.15.0"


def test_its_verdict_is_that_of_the_steps_themselves(right):
    report, direct = check_trace(right), reported()
    assert report.ok
    counts = {verdict: count for verdict, count in report.counts.items()}
    batches = sum(tally.times for tally in report.cell("batch"))
    start = sum(check.step < 0 or 0 for check in [])
    assert batches == 2 * STEPS and start == 0  # x and y of each batch, against the recorded data
    assert counts[DIVERGENT] == 0
    for tally in direct.ordered():
        (found,) = [one for one in report.cell(tally.quantity, tally.layer) if one.name == tally.name]
        assert found.ulps == tally.ulps


@pytest.mark.parametrize("quantity", FAULTS)
def test_a_fault_in_it_is_found(quantity, tmp_path):
    first = check_trace(write(tmp_path / "trace.npz", FAULTS[quantity])).first_divergence
    assert (first.quantity, first.step) == (quantity, 2)


def test_a_batch_of_other_rows_is_found(tmp_path):
    def fault(step):
        return dataclasses.replace(step, x=step.x[::-1].copy())

    first = check_trace(write(tmp_path / "trace.npz", fault)).first_divergence
    assert (first.quantity, first.name, first.step) == ("batch", "x", 2)


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("by_batch", [False, True])
def test_the_order_of_the_rows_follows_from_the_generators_state(tmp_path, backend, by_batch):
    """As written of a fit on JAX or torch, whose first step holds the state; one that it does not lead to is found."""
    generator = np.random.RandomState(5)
    generator.bytes(400)
    _, words, position, *_ = generator.get_state(legacy=True)
    (x, y), shuffle = data(), "batch" if by_batch else True
    with config.using_random_stream(backend):
        order = random.epoch_order(len(x), 8, shuffle, generator)
    assert sorted(order) == list(range(len(x))) and (order != np.arange(len(x))).any()

    def batches(state):
        settings = {**about(), "backend": backend, "shuffle": shuffle}
        settings["model"]["config"]["layers"][2]["config"]["seed"] = 3
        with TraceWriter(tmp_path / "t.npz", settings, (x, y)) as writer:
            for step in steps():
                rows = order[8 * step.number : 8 * step.number + 8]
                writer.add(dataclasses.replace(step, x=x[rows], y=y[rows], shuffle_state=state))
        tallies = check_trace(tmp_path / "t.npz").cell("batch")
        return {tally.name: (tally.verdict, tally.worst.reason) for tally in tallies}

    state = np.append(words, position).astype(np.uint32)
    found = batches(state)
    assert found == dict.fromkeys("xy", (BIT_EQUAL, "the rows that the generator's state predicts"))
    assert all(
        verdict == DIVERGENT for verdict, _ in batches(np.append(words, position - 1).astype(np.uint32)).values()
    )
    assert batches(None)["order"] == (
        NOT_OBSERVED,
        "not predicted: the state of the generator that draws it was not recorded",
    )


@pytest.mark.parametrize("whole", [True, False, None])
def test_a_whole_fit_has_all_its_epochs(tmp_path, whole):
    more = {"epochs": 2} if whole is None else {"epochs": 2, "whole": whole}
    first = check_trace(write(tmp_path / "trace.npz", **more)).first_divergence
    assert (first is None) == (not whole)
    assert first is None or (first.quantity, first.name, first.step) == ("batch", "count", STEPS)


def test_it_needs_no_keras(right):
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['keras', 'tensorflow', 'jax', 'torch', 'jinja2']));"
        f"from minidl.oracle.tracefile import check_trace; print(check_trace({str(right)!r}).ok)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "True\n"


def test_as_others_may_write_it(tmp_path, right):
    """No observed lists, no inner tensors, np.savez: the least that the format asks for."""
    with Trace(right) as trace:
        header = {"format": "minidl trace", "version": 1, "about": {"model": trace.about["model"], "trainer": "Mine"}}
        arrays, header["steps"] = {}, []
        for step in trace.steps():
            states = (("before", step.before), ("after", step.after))
            numbers = {when: {"iterations": s.iterations, "learning_rate": s.learning_rate} for when, s in states}
            header["steps"].append({"number": step.number, "batch": step.batch, **numbers})
            for when, state in states:
                tensors = flat_state(when, state).items()
                arrays |= {f"step/{step.number}/{name}": part for name, part in tensors if "/seeds/" not in name}
            arrays |= {f"step/{step.number}/{name}": getattr(step, name) for name in ("x", "y")}
            arrays[f"step/{step.number}/noise/dropout"] = step.noise["dropout"]
    np.savez(tmp_path / "mine.npz", header=json.dumps(header), **arrays)
    report = check_trace(tmp_path / "mine.npz")
    assert report.ok and report.trainer == "Mine" and report.steps == STEPS
    weights = [tally for tally in report.cell("weight") if tally.layer == "dense"]
    assert weights and all(tally.counts["not observed"] == 0 for tally in weights)


def test_a_broken_off_recording_leaves_no_file(tmp_path):
    path = tmp_path / "trace.npz"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), TraceWriter(path, about()) as writer:
        writer.add(next(steps()))
        raise RuntimeError
    assert [file.name for file in tmp_path.iterdir()] == ["trace.npz"] and path.read_bytes() == b"old"


# ----------------------------------------------------------------------------------------- damaged files


def remade(path, to, change):
    """The zip again, with change(members: name -> bytes) made to it."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    change(members)
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return to


def npy(array, **kwargs):
    file = io.BytesIO()
    np.save(file, array, **kwargs)
    return file.getvalue()


def edit_header(change):
    def edit(members):
        header = json.loads(str(np.load(io.BytesIO(members["header.npy"]))))
        change(header)
        members["header.npy"] = npy(np.array(json.dumps(header)))

    return edit


class Evil:
    def __reduce__(self):
        raise AssertionError("pickled")


def units(value):
    def change(header):
        header["about"]["model"]["config"]["layers"][1]["config"]["units"] = value

    return edit_header(change)


def put(name, content):
    return lambda members: members.__setitem__(name, content)


DAMAGED = {
    "pickle": (put("step/0/x.npy", npy(np.array([{"a": 1}], object), allow_pickle=True)), "dtype object"),
    "no header": (lambda members: members.pop("header.npy"), "no header"),
    "header of bytes": (put("header.npy", b"not an array"), "damaged"),
    "header no JSON": (put("header.npy", npy(np.array("{"))), "no JSON"),
    "deep JSON": (put("header.npy", npy(np.array("[" * 100_000))), "no JSON|damaged"),
    "header a list": (put("header.npy", npy(np.array("[]"))), "must hold a dict"),
    "another format": (edit_header(lambda h: h.update(format="onnx")), "format is 'onnx'"),
    "later version": (edit_header(lambda h: h.update(version=2)), "version 2"),
    "no about": (edit_header(lambda h: h.pop("about")), "lacks 'about', a dict"),
    "about a list": (edit_header(lambda h: h.update(about=[])), "lacks 'about', a dict"),
    "no model": (edit_header(lambda h: h["about"].pop("model")), "lacks 'model', a dict"),
    "a model of nothing": (edit_header(lambda h: h["about"].update(model={})), "cannot make its model"),
    "an unknown layer": (
        edit_header(lambda h: h["about"]["model"]["config"]["layers"][1].update(class_name="Conv2D")), "Conv2D"
    ),
    "a lambda": (
        edit_header(lambda h: h["about"]["model"]["config"]["layers"][1]["config"].update(
            activation={"class_name": "__lambda__", "config": {"value": "4wAAAAA="}})),
        "cannot make its model",
    ),
    "a million units": (units(10**12), "units"),
    "wide kernels": (units(30_000), "kernel of|units"),
    "no steps": (edit_header(lambda h: h.pop("steps")), "lacks 'steps', a list"),
    "steps of numbers": (edit_header(lambda h: h.update(steps=[1, 2])), "is no dict"),
    "a step without numbers": (edit_header(lambda h: h["steps"][1].pop("after")), "after/iterations"),
    "a step that is not there": (edit_header(lambda h: h["steps"][1].update(number=77)), "lacks the weights"),
    "a learning rate of text": (
        edit_header(lambda h: h["steps"][0]["before"].update(learning_rate="0.1")), "learning_rate"
    ),
    "an infinite learning rate": (
        edit_header(lambda h: h["steps"][0]["before"].update(learning_rate=float("inf"))), "learning_rate"
    ),
    "a weight missing": (lambda members: members.pop("step/0/before/weights/dense/kernel.npy"), "damaged"),
    "a weight of another shape": (
        put("step/0/before/weights/dense/kernel.npy", npy(np.zeros((5, 6), "f4"))), "damaged"
    ),
    "a slot missing": (lambda members: members.pop("step/1/after/slots/m/dense/kernel.npy"), "damaged"),
    "a batch of another width": (put("step/0/x.npy", npy(np.zeros((8, 5), "f4"))), "step 0 is not of its model"),
    "text for numbers": (put("step/0/x.npy", npy(np.array(["a"] * 8))), "damaged"),
    "dates": (put("step/0/x.npy", npy(np.zeros((8, 4), "M8[s]"))), "dtype datetime64"),
    "complex numbers": (put("step/0/x.npy", npy(np.zeros((8, 4), "c16"))), "dtype complex128"),
    "a bomb": (
        put("step/0/x.npy", npy(np.zeros((8, 4), "f4")).replace(b"(8, 4)", b"(8000000, 4)")), "damaged|more than"
    ),
    "bytes that follow": (put("step/0/x.npy", npy(np.zeros((8, 4), "f4")) + b"more"), "followed by bytes"),
    "a dtype of dtypes": (put("step/0/x.npy", npy(np.zeros(8, [("a", "f4"), ("b", "f4")]))), "dtype"),
    "of another dtype": (edit_header(lambda h: h["about"].update(dtype="float64")), "dtype is 'float64'"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_and_malicious_traces_are_refused(name, right, tmp_path):
    change, wanted = DAMAGED[name]
    path = remade(right, tmp_path / "trace.npz", change)
    with pytest.raises(TraceError, match=wanted) as error:
        check_trace(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_files_of_other_kinds(tmp_path):
    path = tmp_path / "trace.npz"
    for content in (b"", b"PK", b"hello", npy(np.zeros(3))):
        path.write_bytes(content)
        with pytest.raises(TraceError, match="damaged, or no trace"):
            check_trace(path)
    with pytest.raises(FileNotFoundError):
        check_trace(tmp_path / "missing.npz")
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(TraceError, match="no header; it holds weights"):
        check_trace(path)


def test_hundreds_of_damaged_files_give_clear_errors_or_the_verdict(right, tmp_path):
    """Bytes overwritten, cut off, repeated: a TraceError, or a report; never another error, a hang or a crash."""
    plain, path, refused = right.read_bytes(), tmp_path / "trace.npz", 0
    source = python_random.Random(11)
    for case in range(300):
        content = bytearray(plain)
        kind = case % 4
        if kind == 0:
            for _ in range(source.choice([1, 3, 20])):
                content[source.randrange(len(content))] ^= 1 << source.randrange(8)
        elif kind == 1:
            del content[source.randrange(len(content)) :]
        elif kind == 2:
            at = source.randrange(len(content))
            content[at : at + 50] = source.randbytes(50)
        else:  # the names and sizes at the end of a zip
            at = len(content) - source.randrange(1, 4000)
            content[at] = source.randrange(256)
        path.write_bytes(content)
        try:
            check_trace(path)
        except TraceError as error:
            refused += 1
            assert str(error).startswith(str(path))
    assert refused > 250  # a bit of a file's date, say, changes nothing


def test_hundreds_of_damaged_headers_give_clear_errors_or_the_verdict(right, tmp_path):
    """Any one value of the header replaced: by another kind, a huge number, nothing."""
    source = python_random.Random(3)
    values = [None, -1, 10**9, 1.5, "", "dense", [], {}, [[]], {"class_name": "Dense"}, True, float("nan"), "\x00" * 9]
    refused = 0
    with zipfile.ZipFile(right) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist() if "step/3" not in info.filename}
    plain = json.loads(str(np.load(io.BytesIO(members["header.npy"]))))
    plain["steps"].pop()
    for _ in range(200):
        header = json.loads(json.dumps(plain))
        places = []

        def walk(found):
            for key, value in found.items() if isinstance(found, dict) else enumerate(found):
                places.append((found, key))  # noqa: B023 - read at once
                if isinstance(value, (dict, list)):
                    walk(value)

        walk(header)
        found, key = source.choice(places)
        found[key] = source.choice(values)
        path = tmp_path / "trace.npz"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**members, "header.npy": npy(np.array(json.dumps(header)))}.items():
                archive.writestr(name, content)
        try:
            check_trace(path)
        except (TraceError, NotImplementedError):
            refused += 1
    assert refused > 50


# --------------------------------------------------------------------------------------- two of them


def test_equal_traces(right, tmp_path):
    other = write(tmp_path / "other.npz")
    found = diff(right, other)
    assert found.ok and found.first is None and found.verdict.startswith("Equal to the bit")
    assert found.steps == STEPS and all(differing == 0 for _, differing in found.tensors.values())


def test_sums_in_another_order_differ_first_in_a_product_within_its_bound(right, tmp_path):
    other = write(tmp_path / "other.npz", order=5)
    found = diff(right, other)
    assert found.ok and found.verdict.endswith("which rounding explains.")
    first = found.first
    assert (first.quantity, first.key, first.step) == ("pre_activation", "pre_activations/dense", 0)
    assert first.a != first.b and abs(first.a - first.b) < 1e-6
    with Trace(right) as one, Trace(other) as two:
        a, b = (next(iter(trace.steps())).pre_activations["dense"] for trace in (one, two))
    assert (first.differing, first.size) == ((a != b).sum(), a.size)
    assert all(check.verdict != DIVERGENT for check in first.checks)
    for part in ("pre_activations/dense", str(first.differing), f"{first.a:.9g}"):
        assert part in str(found)


@pytest.mark.parametrize("quantity", FAULTS)
def test_a_fault_is_where_they_part_and_whose_it_is_is_said(quantity, right, tmp_path):
    other = write(tmp_path / "other.npz", FAULTS[quantity])
    found = diff(right, other)
    assert not found.ok and found.verdict.endswith("which rounding does not explain.")
    assert (found.first.quantity, found.first.step) == (quantity, 2)
    good, bad = found.first.checks
    assert good.verdict != DIVERGENT and bad.verdict == DIVERGENT
    assert f"{other}: divergent" in str(found).replace("\n", " ") or f"{other}: divergent" in found.explanation
    assert json.loads(found.to_json())["first"]["step"] == 2


def test_other_models_cannot_be_compared(right, tmp_path):
    described = about()
    described["model"]["config"]["layers"][1]["config"]["units"] = 7
    other = write(tmp_path / "other.npz", **described)
    with pytest.raises(TraceError, match="different models"):
        diff(right, other)


def test_fewer_steps_are_said(right, tmp_path):
    path = tmp_path / "short.npz"
    with TraceWriter(path, about()) as writer:
        writer.add(next(steps()))
    found = diff(right, path)
    assert not found.ok and "has 4 steps" in found.verdict


def test_one_gradient_that_differs(right, tmp_path):
    found = diff(right, write(tmp_path / "other.npz", one_gradient_off))
    assert (found.first.key, found.first.place) == ("gradients/dense/kernel", (2, 1))
    assert found.tensors["gradient"] == (4 * STEPS, 1)
    assert found.first.checks[0].verdict == BIT_EQUAL or found.first.checks[0].share <= 1
