"""A recorded training as one .npz file: what the oracle judges where there is no Keras, and what others may write.

The format is described in docs/oracle.md. The file is a zip of .npy files without pickles, and nothing in it is run:
a model is made from its configuration by minidl's own reader, of minidl's own classes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidl import checks, config, saving
from minidl.backend import Array
from minidl.oracle.judge import Judge
from minidl.oracle.report import Report, plain
from minidl.oracle.steps import State, Step
from minidl.saving.files import parsed_json

FORMAT = "minidl trace"
VERSION = 1
TENSORS = ("x", "y", "sample_weight", "data_loss", "loss")  # one array each
TABLES = ("noise", "pre_activations", "activations", "penalties", "gradients", "logs")  # name -> array
MOST_EXPANSION = 1100  # deflate makes at most 1,032 bytes of one
LARGEST = 2**31  # bytes of one tensor


class TraceError(ValueError):
    """The file is no trace that can be read: damaged, of another kind, or not of its own model."""


# ------------------------------------------------------------------------------------------- flat and back


def flat(step: Step) -> dict[str, Array]:
    """The tensors of a step by name: "x", "gradients/dense/kernel", "after/slots/m/dense/kernel", …; in order."""
    found: dict[str, Array] = {}
    for name in ("x", "y", "sample_weight", "noise", "pre_activations", "activations", "data_loss", "loss",
                 "penalties", "logs", "gradients"):  # fmt: skip
        value = getattr(step, name)
        if value is None:
            continue
        if name in TENSORS:
            found[name] = np.asarray(value)
        else:
            items = enumerate(value) if name == "penalties" else value.items()
            found |= {f"{name}/{key}": np.asarray(part) for key, part in items}
    return found | flat_state("after", step.after)


def flat_state(when: str, state: State) -> dict[str, Array]:
    """The tensors of a state by name: "before/weights/dense/kernel", …; in order."""
    found = {f"{when}/seeds/{layer}": np.asarray(seed) for layer, seed in state.seeds.items()}
    for slot, tensors in state.slots.items():
        found |= {f"{when}/slots/{slot}{'/' if name else ''}{name}": np.asarray(part) for name, part in tensors.items()}
    return found | {f"{when}/weights/{name}": np.asarray(part) for name, part in state.weights.items()}


def _same(a: State, b: State) -> bool:
    if (a.iterations, a.learning_rate) != (b.iterations, b.learning_rate):
        return False
    one, other = flat_state("", a), flat_state("", b)
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].tobytes() == other[name].tobytes() for name in one
    )


def _state(when: str, arrays: Mapping[str, Array], header: dict[str, Any]) -> State:
    state = State({}, {}, _number(header, when, "iterations", int), _number(header, when, "learning_rate", float))
    for key, array in arrays.items():
        kind, _, name = key.removeprefix(f"{when}/").partition("/")
        if not key.startswith(f"{when}/"):
            continue
        if kind == "weights":
            state.weights[name] = array
        elif kind == "seeds":
            state.seeds[name] = array
        elif kind == "slots":
            slot, _, weight = name.partition("/")
            state.slots.setdefault(slot, {})[weight] = array
    return state


def _number(header: dict[str, Any], when: str, name: str, kind: Any) -> Any:
    value = header.get(when, {}).get(name) if isinstance(header.get(when, {}), dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TraceError(f"the header of step {header.get('number')} lacks {when}/{name}, a number")
    return kind(value)


# ------------------------------------------------------------------------------------------------ writing


class TraceWriter:
    """Writes a trace step by step; `with` it: the file is there whole at the end, or not at all.

    about: as of Report, with the model's configuration (keras.saving.serialize_keras_object of it) under "model". data:
    (x, y, sample_weight) of the whole fit, or None; with it the order of the batches is judged too. A JSON file of the
    same name beside it says what was recorded, with the versions.
    """

    def __init__(self, path: str | Path, about: dict[str, Any], data: tuple[Any, ...] | None = None) -> None:
        self.path, self.about, self.data = Path(path), dict(about), data
        self.steps: list[dict[str, Any]] = []
        self._last: State | None = None

    def __enter__(self) -> TraceWriter:
        folder = self.path.resolve().parent
        descriptor, self._temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".tmp", dir=folder)
        self._file = os.fdopen(descriptor, "wb")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        for name, part in zip(("x", "y", "sample_weight"), self.data or (), strict=False):
            if part is not None:
                self._write(f"data/{name}", np.asarray(part))
        return self

    def add(self, step: Step) -> None:
        """Write one step; the next may differ in nothing but its numbers and what was observed."""
        place = f"step/{step.number}"
        if self._last is None or not _same(self._last, step.before):
            for name, array in flat_state("before", step.before).items():
                self._write(f"{place}/{name}", array)
        for name, array in flat(step).items():
            self._write(f"{place}/{name}", array)
        if step.shuffle_state is not None and step.batch == 0:
            self._write(f"{place}/shuffle_state", step.shuffle_state)
        if step.noise_states is not None:
            self._write(f"{place}/noise_states", step.noise_states)
        self.steps.append(
            {
                "number": step.number,
                "epoch": step.epoch,
                "batch": step.batch,
                "observed": [name for name in TABLES if getattr(step, name) is not None],
                **{
                    when: {"iterations": state.iterations, "learning_rate": float(state.learning_rate)}
                    for when, state in (("before", step.before), ("after", step.after))
                },
            }
        )
        self._last = step.after

    def _write(self, name: str, array: Array) -> None:
        if array.dtype.hasobject:
            raise TypeError(f"{name}: an array of objects cannot be written; its dtype is {array.dtype}.")
        with self._zip.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)

    def __exit__(self, kind: Any, *error: object) -> None:
        try:
            if kind is None:
                header = {"format": FORMAT, "version": VERSION, "about": plain(self.about), "steps": self.steps}
                self._write("header", np.array(json.dumps(header)))
            self._zip.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                summary = {"format": FORMAT, "version": VERSION, **plain(self.about), "steps": len(self.steps)}
                saving.files.write_atomically(self.path.with_suffix(".json"), json.dumps(summary, indent=1).encode())
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(self._temporary, 0o666 & ~umask)
                os.replace(self._temporary, self.path)
        finally:
            self._file.close()
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)


# ------------------------------------------------------------------------------------------------ reading


class Trace:
    """A trace, open for reading; `with` it.

    about; data: (x, y, sample_weight) or None; steps(): one Step after another, read as they are asked for.
    Errors: FileNotFoundError; TraceError, saying what is wrong with the file. Nothing in it is run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = open(self.path, "rb")  # noqa: SIM115 - closed in close()
        try:
            with self._reading():
                self._zip = zipfile.ZipFile(self._file)
                self._members = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}
                if len(self._members) != len(self._zip.infolist()):
                    raise TraceError("a tensor is there twice")
                self._header = self._read_header()
                self.about: dict[str, Any] = _typed(self._header, "about", dict)
                self.layers: list[str] = [str(name) for name in _typed(self.about, "layers", list, [])]
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except TraceError as error:
            raise TraceError(f"{self.path}: no trace that can be read: {error}.") from error
        except Exception as error:  # whatever zip, npy and JSON raise of damaged bytes
            what = f"{type(error).__name__}: {error}".rstrip(".: ")
            raise TraceError(f"{self.path}: the file is damaged, or no trace of minidl's ({what}).") from error

    def _read_header(self) -> dict[str, Any]:
        if "header" not in self._members:
            raise TraceError(f"it has no header; it holds {', '.join(sorted(self._members)[:5]) or 'nothing'}")
        text = self._read("header")
        raw = text.tobytes() if text.dtype == np.uint8 else str(text.item()).encode()
        header = parsed_json("the header", raw)
        if header.get("format") != FORMAT:
            raise TraceError(f"its header's format is {header.get('format')!r}, expected {FORMAT!r}")
        if header.get("version") != VERSION:
            raise TraceError(f"it has version {header.get('version')!r} of the format; this minidl reads {VERSION}")
        return header

    def _read(self, name: str) -> Array:
        """One array, checked before it is read: its kind, and the sizes that the zip and the array declare."""
        info = self._members[name]
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise TraceError(f"{name} is encrypted, or compressed by a method other than deflate")
        if info.file_size > min(LARGEST, MOST_EXPANSION * max(info.compress_size, 1)):
            raise TraceError(f"{name} declares {info.file_size:,} bytes, stored in {info.compress_size:,}")
        with self._zip.open(info) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(member, max_header_size=10_000)
            if dtype.hasobject or dtype.kind not in "biufU" or dtype.subdtype is not None:
                raise TraceError(f"{name} has the dtype {dtype}; numbers were expected")
            if math.prod(shape) * dtype.itemsize > info.file_size:
                raise TraceError(f"{name} has shape {shape}, more than its {info.file_size:,} bytes")
        with self._zip.open(info) as member:
            array: Array = np.lib.format.read_array(member, allow_pickle=False, max_header_size=10_000)
            if member.read(1):
                raise TraceError(f"{name} is followed by bytes that are not its own")
        return array

    @property
    def data(self) -> tuple[Array | None, ...] | None:
        """x, y and sample_weight of the whole fit, where they were recorded."""
        with self._reading():
            if not {"data/x", "data/y"} <= self._members.keys():
                return None
            return tuple(
                self._read(f"data/{name}") if f"data/{name}" in self._members else None
                for name in ("x", "y", "sample_weight")
            )

    def positive(self, name: str) -> int | None:
        """A count of about's, where it is known. Errors: TraceError for what is none."""
        with self._reading():
            found: int | None = _typed(self.about, name, int, None)
            if found is not None and found < 1:
                raise TraceError(f"its header's {name} is {found}, expected at least 1")
        return found

    @property
    def count(self) -> int:
        """How many steps there are."""
        with self._reading():
            return len(_typed(self._header, "steps", list))

    def steps(self) -> Iterator[Step]:
        """The steps, in order."""
        with self._reading():
            headers = _typed(self._header, "steps", list)
            names: dict[str, list[str]] = {}
            for name in self._members:
                if name.startswith("step/"):
                    names.setdefault(name.split("/")[1], []).append(name)
        last: State | None = None
        for at, header in enumerate(headers):
            with self._reading():
                step = self._step(at, header, names, last)
            yield step
            last = step.after

    def _step(self, at: int, header: Any, names: dict[str, list[str]], last: State | None) -> Step:
        if not isinstance(header, dict):
            raise TraceError(f"the header of step {at} is no dict")
        numbers = {}
        for name in ("number", "epoch", "batch"):
            numbers[name] = _typed(header, name, int, at if name == "number" else 0)
        place = f"step/{numbers['number']}"
        arrays = {name.removeprefix(f"{place}/"): self._read(name) for name in names.get(str(numbers["number"]), [])}
        if any(name.startswith("before/") for name in arrays) or last is None:
            before = _state("before", arrays, header)
        else:
            before = State(
                last.weights, last.slots, _number(header, "before", "iterations", int),
                _number(header, "before", "learning_rate", float), last.seeds,
            )  # fmt: skip
        step = Step(**numbers, before=before, after=_state("after", arrays, header))
        if not (step.before.weights and step.after.weights):
            raise TraceError(f"step {step.number} lacks the weights before or after it")
        for name in (*TENSORS, "shuffle_state", "noise_states"):
            setattr(step, name, arrays.get(name))
        observed = _typed(header, "observed", list, [])
        for name in TABLES:
            part = {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}
            if part or name in observed:
                setattr(step, name, [part[str(i)] for i in range(len(part))] if name == "penalties" else part)
        return step

    def model(self) -> Any:
        """The model that the trace is of, made by minidl. Errors: TraceError where minidl has no such model."""
        with self._reading():
            described = _typed(self.about, "model", dict)
            numbers = sum(info.file_size for info in self._members.values())
            _check_sizes(described, numbers)
        try:
            with checks.at_most_scalars(numbers):
                model = saving.objects.deserialize_model(described)
        except Exception as error:
            raise TraceError(f"{self.path}: minidl cannot make its model: {str(error).rstrip('.')}.") from error
        if not model.built or not model.compiled:
            raise TraceError(f"{self.path}: the configuration of its model lacks the input shape or compile_config.")
        model.jit_compile = self.about.get("mode") in ("xla", "jit")
        return model


_MISSING = object()


def _typed(header: Any, name: str, kind: type, default: Any = _MISSING) -> Any:
    value = header.get(name, default)
    if value is _MISSING or (value is not default and (not isinstance(value, kind) or isinstance(value, bool))):
        raise TraceError(f"its header lacks {name!r}, a {kind.__name__}")
    return value


def _check_sizes(described: Any, numbers: int) -> None:
    """Refuse a model with more weights than the trace could hold, before it is made."""
    waiting = [described]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            units = one.get("units")
            if isinstance(units, (int, float)) and not 0 < units <= numbers:
                raise TraceError(f"a layer of {units:,} units in a file of {numbers:,} bytes")
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    widths = _widths(described)
    for inputs, units in itertools.pairwise(widths):
        if inputs * units > numbers:
            raise TraceError(f"a kernel of {inputs:,} × {units:,} in a file of {numbers:,} bytes")


def _widths(described: Any) -> list[int]:
    """The widths of the input and of the Dense layers, in order."""
    found = []
    layers = described.get("config", {}).get("layers", []) if isinstance(described.get("config"), dict) else []
    for layer in layers if isinstance(layers, list) else []:
        inner = layer.get("config") if isinstance(layer, dict) else None
        if isinstance(inner, dict):
            shape = inner.get("batch_shape") or ()
            sizes = [size for size in shape if isinstance(size, int)] if isinstance(shape, list) else []
            found += [math.prod(sizes)] if sizes else []
            found += [int(inner["units"])] if isinstance(inner.get("units"), (int, float)) else []
    return found


# ------------------------------------------------------------------------------------------------ judging


@contextlib.contextmanager
def judging(trace: Trace) -> Iterator[Judge]:
    """A Judge for the steps of a trace. Errors: TraceError; NotImplementedError for what has no bound."""
    about = trace.about
    stream = about.get("random_stream", about.get("backend", "tensorflow"))
    if stream not in config.RANDOM_STREAMS:
        stream = "numpy"  # of another framework: no mask is predicted
    dtype = about.get("dtype", "float32")
    with config.using_random_stream(stream):
        model = trace.model()
        if model.dtype != dtype:
            raise TraceError(f"{trace.path}: its dtype is {dtype!r}, that of its model {model.dtype!r}.")
        yield Judge(
            model,
            data=trace.data,
            batch_size=trace.positive("batch_size"),
            shuffle=about.get("shuffle", True),
            seed=about.get("seed"),
        )


def check_trace(path: str | Path, progress: Any = None) -> Report:
    """Judge a recorded training. progress: called with (done, all) after each step.

    Errors: FileNotFoundError; TraceError for a file that is no whole trace; NotImplementedError, naming it, for a
    part of the model without a bound.
    """
    with Trace(path) as trace, judging(trace) as judge:
        report = Report({**trace.about, "layers": [layer.name for layer in judge.layers]})
        try:
            for step in trace.steps():
                report.add(judged(trace, judge, step), step)
                if progress is not None:
                    progress(report.steps, trace.count)
            if trace.about.get("whole"):
                report.add(judge.end(trace.positive("epochs")))
        except KeyboardInterrupt:
            report.interrupted = True
        return report


def judged(trace: Trace, judge: Judge, step: Step) -> list[Any]:
    """The checks of a step. Errors: TraceError where its tensors are not of the model."""
    try:
        return judge.judge(step)
    except NotImplementedError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}".rstrip(".: ")
        raise TraceError(f"{trace.path}: step {step.number} is not of its model, or damaged ({what}).") from error
