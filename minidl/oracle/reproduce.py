"""A divergence on its own: one step's model, state and batch, as a fit that can be repeated and as a script for Keras.

A Case is trained by Keras's own fit, in one batch, from the state that the weights and the optimizer had before the
step. It can be checked again, made smaller (see minimise.py), and written as a program that needs nothing but Keras.
"""

from __future__ import annotations

import base64
import copy
import inspect
import json
import os
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.oracle.checking import check, twin_of
from minidl.oracle.recorder import CannotCheck, Recorder, installed_keras
from minidl.oracle.report import Divergence, Report
from minidl.oracle.steps import State
from minidl.schedules import LearningRateSchedule

PRINTED = 300  # numbers of an array that are written out; more are packed
TIMEOUT = 180  # seconds for a script: Keras's import and one step


@dataclass
class Case:
    """One step of a fit.

    config: keras.saving.serialize_keras_object of the model, with compile_config. mode, dtype: as Report's about.
    state: before the step. x, y, sample_weight: the batch, weights of classes included.
    """

    config: dict[str, Any]
    mode: str
    dtype: str
    state: State
    x: Array
    y: Array
    sample_weight: Array | None = None

    @classmethod
    def of(cls, report: Report) -> Case:
        """The step of a report's first divergence. Errors: ValueError where a step alone does not hold it."""
        first = report.first_divergence
        if first is None:
            raise ValueError("the report has no divergence.")
        step, about = first.recorded, report.about
        if first.quantity == "batch":
            raise ValueError("the order of the rows is a matter of the whole fit, not of one step.")
        if step is None or step.x is None or step.y is None:
            raise ValueError("the step was not recorded.")
        if "model" not in about:
            raise ValueError("the model's configuration was not recorded.")
        return cls(
            copy.deepcopy(about["model"]), str(about.get("mode", "graph")), str(about.get("dtype", "float32")),
            step.before, np.asarray(step.x), np.asarray(step.y), step.sample_weight,
        )  # fmt: skip

    def model(self) -> Any:
        """The Keras model, compiled, in the case's state. Errors: whatever Keras raises; CannotCheck."""
        keras = installed_keras()
        keras.utils.clear_session(free_memory=False)
        model = keras.saving.deserialize_keras_object(copy.deepcopy(self.config))
        model.run_eagerly, model.jit_compile = self.mode == "eager", self.mode in ("xla", "jit", "compile")
        if not model.built:
            model.build(np.shape(self.x))
        recorder = Recorder(keras, model, twin_of(keras, model))
        for (name, variable), value in zip(recorder._weights, self.weights(recorder.twin), strict=True):
            assert variable.shape == value.shape, name
            variable.assign(value)
        for variable, value in zip(model.optimizer.variables, self.optimizer(recorder.twin), strict=True):
            variable.assign(value)
        for layer in recorder.layers:
            if layer.name in self.state.seeds:
                layer.seed_generator.state.assign(self.state.seeds[layer.name])
        return model

    def weights(self, twin: Any) -> list[Array]:
        """In the order of model.weights."""
        names = (f"{layer.name}/{name}" for layer in twin.flat_layers() for name in (*layer.parameters, *layer.state))
        return [self.state.weights[name] for name in names]

    def optimizer(self, twin: Any) -> list[Any]:
        """In the order of model.optimizer.variables."""
        optimizer, state = twin.optimizer, self.state
        found: list[Any] = [state.iterations * (optimizer.gradient_accumulation_steps or 1)]
        if not isinstance(optimizer.learning_rate_argument, LearningRateSchedule):
            found.append(state.learning_rate)
        names = [f"{segment.layer}/{segment.name}" for segment in twin.arena.segments]
        optimizer.build(twin.arena)
        found += [state.slots[slot][name] for group in optimizer._all_groups for name in names for slot in group]
        return found + [state.slots[name][""] for name in optimizer.scalars]

    def check(self) -> Report:
        """What the oracle says of the step alone."""
        return check(
            self.model(), self.x, self.y, sample_weight=self.sample_weight, batch_size=len(self.x), shuffle=False,
            drift=False,
        )  # fmt: skip

    def rows(self, chosen: Any) -> Case:
        """The case with some of its rows."""
        weights = None if self.sample_weight is None else self.sample_weight[chosen]
        return replace(self, x=self.x[chosen], y=self.y[chosen], sample_weight=weights)


# ------------------------------------------------------------------------------------------------ the script


def script(case: Case, first: Divergence) -> str:
    """A program for Keras alone that trains the step and prints the element; exit status 1 where it diverges.

    first: the divergence of the case itself, from case.check(). Errors: ValueError where it has no element to print.
    """
    if first.got is None or first.truth is None or first.bound is None:
        raise ValueError(f"the {first.quantity} has no element to print: {first.reason}.")
    keras = installed_keras()
    twin = twin_of(keras, case.model())
    backend = keras.backend.backend()
    seeds = {layer.name: case.state.seeds[layer.name] for layer in twin.flat_layers() if layer.name in case.state.seeds}
    tell, look = _looking(first, twin, backend)
    optimizer = case.optimizer(twin)
    batch = {"x": case.x, "y": case.y, "sample_weight": case.sample_weight}
    given = {name: value for name, value in batch.items() if value is not None}
    parts = [
        _heading(keras.__version__, backend, case.mode, first),
        "import os",
        f'os.environ["KERAS_BACKEND"] = "{backend}"',
        "\n".join(["import base64", "import zlib"] * _packs([*case.weights(twin), *optimizer, *given.values()])),
        "import keras\nimport numpy as np",
        f'keras.config.set_floatx("{case.dtype}")' if case.dtype != "float32" else "",
        _model_text(keras, case),
        f"model.run_eagerly, model.jit_compile = {case.mode == 'eager'}, {case.mode in ('xla', 'jit', 'compile')}",
        "model.optimizer.build(model.trainable_variables)",
        f"weights = {_list(case.weights(twin))}",
        "for variable, value in zip(model.weights, weights):\n    variable.assign(value)",
        f"state = {_list(optimizer)}  # {', '.join(variable.name for variable in case.model().optimizer.variables)}",
        "for variable, value in zip(model.optimizer.variables, state):\n    variable.assign(value)",
        *(f'model.get_layer("{name}").seed_generator.state.assign({list(map(int, seed))})'
          for name, seed in seeds.items()),
        *(f"{name} = {_array(value)}" for name, value in given.items()),
        look,
        f"history = model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0"
        f"{', sample_weight=sample_weight' if 'sample_weight' in given else ''}).history",
        f"got = float({tell})",
        f"truth, bound = {first.truth!r}, {first.bound!r}  # in float64; no order of rounding leads further from it",
        'print(f"got {got:.9g}, true value {truth:.9g}: off by {abs(got - truth):.3g}, bound {bound:.3g}")',
        "raise SystemExit(abs(got - truth) > bound or got != got)",
    ]  # fmt: skip
    return "\n".join(part for part in parts if part) + "\n"


def _heading(version: str, backend: str, mode: str, first: Divergence) -> str:
    place = f" at {list(first.place)}" if first.place else ""
    return (
        f'"""Keras {version} on {backend}, {mode}: {first.quantity} {first.tensor}{place} is more than rounding.'
        "\n\nOne step of Keras's own fit, from the state before it. Exit status 1: it diverges, 0: it does not."
        '\nMade by minidl check.\n"""'
    )


def _looking(first: Divergence, twin: Any, backend: str) -> tuple[str, str]:
    """The expression of the element, after the fit, and what has to be done before the fit to see it."""
    at = f"[{', '.join(map(str, first.place))}]" if first.place else ""
    to_numpy, quantity = "keras.ops.convert_to_numpy", first.quantity
    names = [f"{layer.name}/{name}" for layer in twin.flat_layers() for name in (*layer.parameters, *layer.state)]
    trained = [f"{segment.layer}/{segment.name}" for segment in twin.arena.segments]
    if quantity == "weight":
        return f"{to_numpy}(model.weights[{names.index(first.tensor)}]){at}", ""
    if quantity == "metric":
        return f'history["{first.name}"][-1]', ""
    if quantity == "slot":
        return f"{to_numpy}(model.optimizer.variables[{_slot_index(first, twin, trained)}]){at}", ""
    if quantity == "penalty" and sum(len(layer.regularizers) + (layer.activity_regularizer is not None)
                                     for layer in twin.flat_layers()) > 1:  # fmt: skip
        raise ValueError("the model has several penalties: with --minimise one is left.")
    if quantity == "mask":
        raise ValueError("a mask is drawn, not computed: compare the seeds.")
    if backend == "tensorflow":
        look = (
            "import tensorflow as tf\nseen = {}\n"
            "def look(tensor):\n"
            "    tf.numpy_function(lambda value: seen.update(it=np.array(value)), [tensor], [])"
        )
    elif backend == "jax":
        look = (
            "import jax\nseen = {}\n"
            "def look(tensor):\n    jax.debug.callback(lambda value: seen.update(it=np.array(value)), tensor)"
        )
    else:
        look = f"seen = {{}}\ndef look(tensor):\n    seen['it'] = {to_numpy}(tensor)"
    owner, method, arguments, at_start, at_end = _watched(first, trained)
    lines = [look, f"owner = {owner}", f"plain = owner.{method}", f"def watched({arguments}):"]
    lines += [f"    {at_start}"] if at_start else []
    lines += [f"    result = plain({arguments})"]
    lines += [f"    {at_end}"] if at_end else []
    lines += ["    return result", f'vars(owner)["{method}"] = watched']
    return f'seen["it"]{at}', "\n".join(lines)


def _watched(first: Divergence, trained: list[str]) -> tuple[str, str, str, str, str]:
    """The object and its method in which the tensor passes; its arguments; what to do before and after its call."""
    anything, layer = "*rest, **more", f'model.get_layer("{first.layer}")'
    if first.quantity == "gradient":
        at = trained.index(first.tensor)
        look = f"gradients = list(gradients)\n    look(gradients[{at}])"
        return "model.optimizer", "apply", f"gradients, {anything}", look, ""
    if first.quantity == "activation":
        return layer, "call", anything, "", "look(result)"
    if first.quantity == "pre_activation":
        return layer, "activation", "inputs", "look(inputs)", ""
    if first.quantity == "penalty":
        return "model", "compute_loss", anything, "", "look(sum(model.losses))"
    if first.name == "loss":
        return "model", "compute_loss", anything, "", "look(result)"
    return "model._compile_loss", "call", anything, "", "look(result)"


def _slot_index(first: Divergence, twin: Any, trained: list[str]) -> int:
    """The place of a slot in model.optimizer.variables."""
    optimizer = twin.optimizer
    if first.name == "iterations":
        return 0
    if first.name == "learning_rate":
        raise ValueError("a schedule's learning rate is no variable.")
    start = 1 if isinstance(optimizer.learning_rate_argument, LearningRateSchedule) else 2
    order = [(slot, name) for group in optimizer._all_groups for name in trained for slot in group]
    if first.layer is None:
        return start + len(order) + list(optimizer.scalars).index(first.name)
    slot, _, name = first.name.partition("/")
    return start + order.index((slot, f"{first.layer}/{name}"))


# ---------------------------------------------------------------------------------- Python's text of things


def _packs(values: list[Any]) -> bool:
    return any(np.size(value) > PRINTED for value in values)


def _list(values: list[Any]) -> str:
    return "[\n" + "".join(f"    {_array(value)},\n" for value in values) + "]"


def _array(value: Any) -> str:
    """Text that gives the very bits back."""
    array = np.asarray(value)
    if array.ndim == 0 and isinstance(value, (int, float)):
        return repr(value)
    if array.size > PRINTED:
        text = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()
        packed = f'zlib.decompress(base64.b64decode("{text}"))'
        return f'np.frombuffer({packed}, "{array.dtype.str}").reshape({array.shape})'
    if not array.any() and not np.signbit(array.astype(float)).any():
        return f'np.zeros({array.shape}, "{array.dtype}")'
    numbers = json.dumps(_nested(array)).replace('"', "")
    return f'np.array({numbers}, "{array.dtype}")'


def _nested(array: Array) -> Any:
    if array.ndim:
        return [_nested(part) for part in array]
    value = array.item()
    if array.dtype.kind != "f":
        return value if array.dtype.kind != "b" else int(value)
    if not np.isfinite(value):
        return f"float({str(value)!r})"
    short = float(str(array[()]))
    return short if array.dtype.type(short) == array and np.signbit(short) == np.signbit(value) else value


def _model_text(keras: Any, case: Case) -> str:
    """The model as one would write it, where it is a Sequential of Keras's own; else from its configuration."""
    config = case.config
    try:
        if config["class_name"] != "Sequential":
            raise ValueError
        layers = []
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "InputLayer":
                layers.append(f"keras.Input({tuple(layer['config']['batch_shape'][1:])})")
            else:
                layers.append(_expression(keras, layer, case.dtype))
        if not layers[0].startswith("keras.Input"):
            layers.insert(0, f"keras.Input({case.x.shape[1:]})")
        stack = "".join(f"    {layer},\n" for layer in layers)
        compiled = config["compile_config"]
        arguments = [
            f"{name}={_expression(keras, value, case.dtype)}"
            for name, value in compiled.items()
            if value and name in ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics")
        ]
        return f"model = keras.Sequential([\n{stack}])\nmodel.compile({', '.join(arguments)})"
    except (KeyError, TypeError, ValueError):
        return (
            f"import json\nmodel = keras.saving.deserialize_keras_object(json.loads({json.dumps(config)!r}))\n"
            f"model.build({(None, *case.x.shape[1:])})"
        )


_ATTRIBUTES = ("trainable", "dtype", "quantization_config", "build_config", "axis_is_list")


def _expression(keras: Any, value: Any, dtype: str) -> str:
    """A configuration as the expression that makes it, without what is a default. Errors: ValueError."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_expression(keras, one, dtype) for one in value) + "]"
    if not isinstance(value, dict):
        return repr(value)
    if "class_name" not in value:
        return "{" + ", ".join(f"{key!r}: {_expression(keras, one, dtype)}" for key, one in value.items()) + "}"
    module, name, config = str(value.get("module")), value["class_name"], value.get("config")
    if module == "builtins":
        if name == "function":
            return repr(config)
        raise ValueError(name)
    if not module.startswith("keras") or value.get("registered_name") or not isinstance(config, dict):
        raise ValueError(module)
    owner: Any = keras
    for part in module.split(".")[1:]:
        owner = getattr(owner, part)
    defaults = {key: one.default for key, one in inspect.signature(getattr(owner, name).__init__).parameters.items()}
    arguments = []
    for key, one in config.items():
        if key.endswith("_initializer") or key in _ATTRIBUTES:
            continue
        if key == "name" and not module.startswith("keras.layers"):
            continue
        if key in defaults and _same(one, defaults[key]):
            continue
        if key not in defaults and one in (None, False):
            continue
        arguments.append(f"{key}={_expression(keras, one, dtype)}")
    return f"{module}.{name}({', '.join(arguments)})"


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, float) and isinstance(default, float):
        return np.float32(value) == np.float32(default)
    if isinstance(value, dict):
        return False
    return bool(value == default) or (value == "linear" and default is None)


# --------------------------------------------------------------------------------------------------- run it


def run(text: str, timeout: float = TIMEOUT) -> tuple[int | None, str]:
    """A script's exit status and what it prints; None where it takes longer than timeout seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reproduce.py"
        path.write_text(text)
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        try:
            done = subprocess.run(
                [sys.executable, str(path)], capture_output=True, text=True, timeout=timeout, env=environment
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None, f"it took longer than {timeout:.0f} s"
    said = done.stdout.strip() or (done.stderr.strip().splitlines() or [""])[-1]
    return done.returncode, said


def reproduce(report: Report, case: Case | None = None, *, timeout: float = TIMEOUT) -> str | None:
    """Give a report's first divergence its script, run; returns the script. None, with the reason, where there is none.

    case: a smaller one of the same divergence; else the step itself.
    """
    first = report.first_divergence
    if first is None:
        return None
    try:
        case = case or Case.of(report)
        own = case.check().first_divergence
        if own is None or own.quantity != first.quantity:
            raise ValueError("the step alone, from its state, does not diverge: it takes what came before.")
        first.script = script(case, own)
    except (ValueError, CannotCheck) as error:
        first.script_result = f"There is no script: {error}"
        return None
    status, said = run(first.script, timeout)
    first.script_result = (
        f"Run: {said}. It diverges in Keras alone."
        if status == 1 and said.startswith("got ")
        else f"Run in a process of its own it does not diverge ({said}): what is wrong lies in this process."
    )
    return first.script
