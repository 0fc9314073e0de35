"""The text of programs that show a divergence in Keras alone: a fit from a state, the rows of a fit, an initializer."""

from __future__ import annotations

import base64
import inspect
import json
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import config, saving
from minidl.backend import Array
from minidl.layers import GaussianDropout, GaussianNoise
from minidl.layers.regularization import AlphaDropout
from minidl.oracle.checking import settings_of, twin_of
from minidl.oracle.judge import Rows
from minidl.oracle.recorder import _alpha_dropout_shift, installed_keras
from minidl.oracle.report import Divergence, Report
from minidl.schedules import LearningRateSchedule

if TYPE_CHECKING:
    from minidl.oracle.reproduce import Case

PRINTED = 300  # numbers of an array that are written out; more are packed
MOST = 2_000_000  # numbers in a script

# ----------------------------------------------------------------------------------------------- some steps


def fit_script(case: Case, first: Divergence) -> str:
    """A program for Keras alone that trains the case and prints the element; exit status 1 where it diverges.

    first: the divergence of the case itself, from case.check(), in its last step. Of a mask, all of it is compared.
    Errors: ValueError where there is nothing to print.
    """
    if first.step != case.count - 1:
        raise ValueError(f"step {first.step} diverges, which is not the last of the case.")
    keras = installed_keras()
    twin = twin_of(keras, case.model())
    backend = keras.backend.backend()
    seeds = {layer.name: case.state.seeds[layer.name] for layer in twin.flat_layers() if layer.name in case.state.seeds}
    layer_of = _layer_expression(case.config)
    watch = _Watched.of(first, twin, layer_of, case.count)
    optimizer = case.optimizer(twin)
    batch = {"x": case.x, "y": case.y, "sample_weight": case.sample_weight}
    given = {name: value for name, value in batch.items() if value is not None}
    arrays = [*case.weights(twin), *optimizer, *given.values()]
    fit = [f"x, y, batch_size={case.rows_at_once}, shuffle=False, verbose=0"]
    fit += ["sample_weight=sample_weight"] if "sample_weight" in given else []
    fit += [f"epochs={case.epochs}"] if case.epochs > 1 else []
    fit += ["callbacks=[Stop()]"] if case.stops else []
    parts = [
        _heading(keras.__version__, backend, case.mode, first, case.count),
        *_imports(backend, arrays),
        f'keras.config.set_floatx("{case.dtype}")' if case.dtype != "float32" else "",
        _model_text(keras, case),
        f"model.run_eagerly, model.jit_compile = {case.mode == 'eager'}, {case.mode in ('xla', 'jit', 'compile')}",
        "model.optimizer.build(model.trainable_variables)",
        f"weights = {_list(case.weights(twin))}",
        "for variable, value in zip(model.weights, weights):\n    variable.assign(value)",
        f"state = {_list(optimizer)}  # {', '.join(variable.name for variable in case.model().optimizer.variables)}",
        "for variable, value in zip(model.optimizer.variables, state):\n    variable.assign(value)",
        *(f"{layer_of(name)}.seed_generator.state.assign({list(map(int, seed))})" for name, seed in seeds.items()),
        *(f"{name} = {_array(value)}" for name, value in given.items()),
        _stop(case.count) if case.stops else "",
        watch.text(backend),
        f"history = model.fit({', '.join(fit)}).history",
        "jax.effects_barrier()" if backend == "jax" and watch.method else "",
        _whole_mask(case, first, twin) or _one_element(first, watch.element),
    ]  # fmt: skip
    return _joined(parts, arrays)


def _one_element(first: Divergence, element: str) -> str:
    if first.truth is None or first.bound is None:
        raise ValueError(f"the {first.quantity} has no element to print: {first.reason}.")
    return (
        f"got = float({element})\n"
        f"truth, bound = {first.truth!r}, {first.bound!r}  # in float64; no order of rounding leads further from it\n"
        'print(f"got {got:.9g}, true value {truth:.9g}: off by {abs(got - truth):.3g}, bound {bound:.3g}")\n'
        "raise SystemExit(abs(got - truth) > bound or got != got)"
    )


def _whole_mask(case: Case, first: Divergence, twin: Any) -> str:
    """The end of the program that compares a mask; "" where the divergence is of something else."""
    layer = next((layer for layer in twin.flat_layers() if layer.name == first.layer), None)
    if first.quantity != "mask" or first.name != "noise" or isinstance(layer, (GaussianNoise, GaussianDropout)):
        return ""
    assert layer is not None and first.recorded is not None
    noise, before = (first.recorded.noise or {})[layer.name], first.recorded.before
    if layer.name not in before.seeds:
        raise ValueError(f"{layer.name} has no seed: its mask comes from torch's global generator, as the fit left it.")
    keras = installed_keras()
    stream = keras.backend.backend() + "-xla" * (case.mode == "xla")
    with settings_of(keras), config.using_random_stream(stream):
        before.write_to(twin)
        mask = np.broadcast_to(layer.draw_mask(np.shape(noise)), np.shape(noise))
    above = f" > {_alpha_dropout_shift(layer.rate)!r}" if isinstance(layer, AlphaDropout) else " != 0"
    seed = list(map(int, before.seeds[layer.name]))
    return (
        f'got = seen["it"]{above}\n'
        f"expected = {_array(mask)}  # what seed and counter, {seed}, lead to\n"
        "wrong = int((got != expected).sum()) if got.shape == expected.shape else expected.size\n"
        'print(f"got another mask than the seed leads to at {wrong} of {expected.size} places")\n'
        "raise SystemExit(wrong > 0)"
    )


def _stop(steps: int) -> str:
    return (
        "class Stop(keras.callbacks.Callback):\n    steps = 0\n"
        "    def on_train_batch_end(self, batch, logs=None):\n"
        f"        self.steps += 1\n        self.model.stop_training = self.steps == {steps}"
    )


def _heading(version: str, backend: str, mode: str, first: Divergence, steps: int) -> str:
    place = f" at {list(first.place)}" if first.place else ""
    what = "not what the seed leads to" if first.quantity == "mask" else "more than rounding"
    of = "One step of Keras's own fit, from the state before it" if steps == 1 else f"{steps} steps of Keras's own fit"
    return (
        f'"""Keras {version} on {backend}, {mode}: {first.quantity} {first.tensor}{place} is {what}.'
        f'\n\n{of}. Exit status 1: it diverges, 0: it does not.\nMade by minidl check.\n"""'
    )


def _imports(backend: str, arrays: list[Any]) -> list[str]:
    packs = any(np.size(value) > PRINTED for value in arrays)
    lines = ["import os", f'os.environ["KERAS_BACKEND"] = "{backend}"']
    return lines + ["import base64\nimport zlib"] * packs + ["import keras\nimport numpy as np"]


def _joined(parts: list[str], arrays: list[Any]) -> str:
    size = sum(np.size(value) for value in arrays)
    if size > MOST:
        raise ValueError(f"it would hold {size:,} numbers, more than {MOST:,}: with --minimise it may become smaller.")
    return "\n".join(part for part in parts if part) + "\n"


def _layer_expression(described: dict[str, Any]) -> Any:
    """The function of a layer's name that gives the expression of the layer."""
    config = described.get("config")
    layers = config.get("layers", []) if isinstance(config, dict) else []
    outer = {one["config"].get("name") for one in layers if isinstance(one.get("config"), dict)}

    def expression(name: Any) -> str:
        if name in outer:
            return f'model.get_layer("{name}")'
        return f'next(one for one in model._flatten_layers() if one.name == "{name}")'

    return expression


_LOOKS = {
    "tensorflow": (
        "import tensorflow as tf\nseen = {}\n"
        "def look(tensor):\n    tf.numpy_function(lambda value: seen.update(it=np.array(value)), [tensor], [])"
    ),
    "jax": (
        "import jax\nseen = {}\n"
        "def look(tensor):\n    jax.debug.callback(lambda value: seen.update(it=np.array(value)), tensor)"
    ),
    "torch": "seen = {}\ndef look(tensor):\n    seen['it'] = keras.ops.convert_to_numpy(tensor)",
}


class _Watched:
    """Where an element is seen.

    element: the expression of it after the fit. before: what is to be run before the fit. Or the object and its method
    in which the tensor passes, the arguments, what to call in its place, and what to do before and after that.
    """

    def __init__(
        self, element: str, before: str = "", owner: str = "", method: str = "", arguments: str = "*rest, **more",
        called: str = "", at_start: str = "", at_end: str = "",
    ) -> None:  # fmt: skip
        self.element, self.before, self.owner, self.method = element, before, owner, method
        self.arguments, self.called, self.at_start, self.at_end = arguments, called or arguments, at_start, at_end

    def text(self, backend: str) -> str:
        """What stands before the fit."""
        if not self.method:
            return self.before
        lines = [_LOOKS[backend], f"owner = {self.owner}", f"plain = owner.{self.method}"]
        lines += [f"def watched({self.arguments}):"]
        lines += [f"    {self.at_start}"] if self.at_start else []
        lines += [f"    result = plain({self.called})"]
        lines += [f"    {self.at_end}"] if self.at_end else []
        return "\n".join([*lines, "    return result", f'vars(owner)["{self.method}"] = watched'])

    @classmethod
    def of(cls, first: Divergence, twin: Any, layer_of: Any, steps: int) -> _Watched:
        """How to see the element of a divergence in the last of so many steps. Errors: ValueError."""
        at = f"[{', '.join(map(str, first.place))}]" if first.place else ""
        to_numpy, quantity, seen = "keras.ops.convert_to_numpy", first.quantity, f'seen["it"]{at}'
        names = [f"{layer.name}/{name}" for layer in twin.flat_layers() for name in (*layer.parameters, *layer.state)]
        trained = [f"{segment.layer}/{segment.name}" for segment in twin.arena.segments]
        layer = layer_of(first.layer)
        if quantity == "weight":
            return cls(f"{to_numpy}(model.weights[{names.index(first.tensor)}]){at}")
        if quantity == "metric":
            return cls(f'history["{first.name}"][-1]')
        if quantity == "slot" and first.name == "learning_rate":
            if steps > 1:
                raise ValueError("a schedule's learning rate is seen of one step alone.")
            return cls("rate", f"rate = {to_numpy}(model.optimizer.learning_rate)")
        if quantity == "slot":
            return cls(f"{to_numpy}(model.optimizer.variables[{_slot_index(first, twin, trained)}]){at}")
        if quantity == "mask" and first.name == "counter":
            return cls(f"{to_numpy}({layer}.seed_generator.state){at}")
        if quantity == "mask":  # of ones a mask is left, and the factors of GaussianDropout; of zeros GaussianNoise's
            kind = next(type(one) for one in twin.flat_layers() if one.name == first.layer)
            probe = f"keras.ops.{'zeros' if kind is GaussianNoise else 'ones'}_like(inputs), *rest, **more"
            return cls(seen, "", layer, "call", "inputs, *rest, **more", probe, "", "look(result)")
        if quantity == "gradient":
            look = f"gradients = list(gradients)\n    look(gradients[{trained.index(first.tensor)}])"
            return cls(seen, "", "model.optimizer", "apply", "gradients, *rest, **more", "", look)
        if quantity == "activation":
            return cls(seen, "", layer, "call", at_end="look(result)")
        if quantity == "pre_activation":
            return cls(seen, "", layer, "activation", "inputs", "", "look(inputs)")
        if quantity == "penalty":
            number = _penalties(twin).index((first.layer, first.name))
            return cls(seen, "", "model", "compute_loss", at_end=f"look(model.losses[{number}])")
        if first.name == "loss":
            return cls(seen, "", "model", "compute_loss", at_end="look(result)")
        return cls(seen, "", "model._compile_loss", "call", at_end="look(result)")


def _penalties(twin: Any) -> list[tuple[str | None, str]]:
    """Layer and name of each, as the judge calls them, in the order of model.losses."""
    layers = twin.flat_layers()
    found = [(layer.name, "activity") for layer in layers if layer.activity_regularizer is not None]
    return found + [(layer.name, name) for layer in layers if layer.trainable for name in layer.regularizers]


def _slot_index(first: Divergence, twin: Any, trained: list[str]) -> int:
    """The place of a slot in model.optimizer.variables."""
    optimizer = twin.optimizer
    if first.name == "iterations":
        return 0
    start = 1 if isinstance(optimizer.learning_rate_argument, LearningRateSchedule) else 2
    order = [(slot, name) for group in optimizer._all_groups for name in trained for slot in group]
    if first.layer is None:
        return start + len(order) + list(optimizer.scalars).index(first.name)
    slot, _, name = first.name.partition("/")
    return start + order.index((slot, f"{first.layer}/{name}"))


# ------------------------------------------------------------------------------------- the rows of a fit


def rows_script(report: Report, *, numbered: bool) -> str:
    """A program for Keras alone that compares the rows of a batch with those that should come, or counts the batches.

    numbered: the rows are their own numbers, else the data of the fit. Errors: ValueError where the order of the rows
    is not predicted, and where it takes the data to see a row that is none of them.
    """
    first, fit, about = report.first_divergence, report.fit, report.about
    assert first is not None and fit is not None and fit.data[0] is not None
    counts, keras, order = first.name == "count", installed_keras(), None
    backend, size, samples = keras.backend.backend(), about["batch_size"], len(fit.data[0])
    state = first.recorded.shuffle_state if first.recorded is not None and not counts and about["shuffle"] else None
    if not counts and first.recorded is not None:
        with settings_of(keras):
            layers = saving.objects.deserialize_model(about["model"]).flat_layers()
            rows_of = Rows(fit.data, size, about["shuffle"], about["seed"], layers)
            rows_of.expected(replace(first.recorded, batch=0))
        if rows_of.order is None:
            raise ValueError(f"the order of the rows is not predicted: {rows_of.why}.")
        order = rows_of.order
    epoch = about["epochs"] - 1 if first.recorded is None else first.recorded.epoch
    batch = 0 if first.recorded is None else first.recorded.batch
    arrays: dict[str, Any] = {}
    if not numbered:
        arrays = {name: np.asarray(fit.arguments[name]) for name in ("x", "y", "sample_weight")
                  if fit.arguments[name] is not None}  # fmt: skip
    data = [f"{name} = {_array(value)}" for name, value in arrays.items()]
    data = data or [f'x = y = np.arange({samples}, dtype="float32").reshape(-1, 1)  # the numbers of the rows']
    given = [name for name in ("sample_weight",) if name in arrays]
    more = "".join(f", {name}={name}" for name in given)
    if not numbered and fit.arguments["class_weight"] is not None:
        more += f", class_weight={fit.arguments['class_weight']!r}"
    part = ("x", "y", "sample_weight").index(first.name) if first.name in ("y", "sample_weight") and not numbered else 0
    epochs = epoch + 1 if state is None else 1
    number = batch if state is not None else epoch * -(-samples // size) + batch
    start = _rows_start(backend, state)
    if counts:
        wanted = epochs * -(-samples // size)
        end = (
            f'print(f"got {{len(batches)}} batches of {samples} rows in {epochs} epochs, expected {wanted}")\n'
            f"raise SystemExit(len(batches) != {wanted})"
        )
    else:
        assert order is not None
        rows = order[batch * size : (batch + 1) * size]
        wanted_data = fit.data[part] if not numbered else np.arange(samples, dtype="float32")
        if wanted_data is None:
            raise ValueError("the batch has weights, where none were given.")
        expected = wanted_data[rows] if numbered or part == 2 else None
        text = f"{('x', 'y')[part]}[rows]" if expected is None else _array(expected)
        arrays["expected"] = () if expected is None else expected
        dtype = about["dtype"]
        end = (
            (f"rows = {rows.tolist()}\n" if expected is None else "")
            + f'expected = np.asarray({text}, "{dtype}").ravel()  # batch {batch} of epoch {epoch}\n'
            f'got = np.asarray(batches[{number}], "{dtype}").ravel() if len(batches) > {number} else np.zeros(0)\n'
            "wrong = int((got != expected).sum()) if got.shape == expected.shape else expected.size\n"
            'print(f"got other rows than the seed leads to: {wrong} of {expected.size} numbers")\n'
            "raise SystemExit(wrong > 0)"
        )
    seed = about.get("seed")
    packed = list(arrays.values()) + [np.zeros(625)] * (state is not None)
    parts = [
        f'"""Keras {keras.__version__} on {backend}: {"the number of batches" if counts else "the rows of a batch"}.'
        f"\n\n{first.reason or 'They are others than expected'}."
        ' Exit status 1: so it is, 0: it is not.\nMade by minidl check.\n"""',
        *_imports(backend, packed),
        f'keras.config.set_floatx("{about["dtype"]}")' if about["dtype"] != "float32" else "",
        *data,
        "model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten(), keras.layers.Dense(1)])",
        'model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)',
        _ROWS_LOOKS[backend],
        _ROWS_WATCHED.replace("PART", str(part)),
        start,
        f"keras.utils.set_random_seed({seed})" if seed is not None and state is None else "",
        f"model.fit(x, y, batch_size={size}, epochs={epochs}, shuffle={about['shuffle']!r}, verbose=0{more}"
        f"{', callbacks=[Start()]' if start else ''})",
        "jax.effects_barrier()" if backend == "jax" else "",
        end,
    ]
    return _joined(parts, packed)


_ROWS_LOOKS = {
    "tensorflow": (
        "import tensorflow as tf\nbatches = []\n"
        "def look(tensor):\n    tf.numpy_function(lambda value: batches.append(np.array(value)), [tensor], [])"
    ),
    "jax": (
        "import jax\nbatches = []\ndef look(tensor):\n"
        "    jax.debug.callback(lambda value: batches.append(np.array(value)), tensor, ordered=True)"
    ),
    "torch": "batches = []\ndef look(tensor):\n    batches.append(keras.ops.convert_to_numpy(tensor))",
}
_ROWS_WATCHED = """plain = model.train_step
def watched(*data):
    part = keras.utils.unpack_x_y_sample_weight(data[-1])[PART]
    if part is not None:
        look(part)
    return plain(*data)
vars(model)["train_step"] = watched"""


def _rows_start(backend: str, state: Array | None) -> str:
    """A callback that gives the generator of the order its state at each epoch's begin."""
    if state is None:
        return ""
    words, position = _array(state[:-1]), int(state[-1])
    lines = [
        f"words = {words}",
        "class Start(keras.callbacks.Callback):",
        "    def on_epoch_begin(self, epoch, logs=None):",
    ]
    if backend == "jax":
        lines += [f'        np.random.set_state(("MT19937", words, {position}))']
    else:
        lines += [
            "        state = torch.get_rng_state().numpy()  # what is left of 624 words, where the next is, the words",
            f'        state[8:12].view("int32")[0], state[16:24].view("uint64")[0] = {625 - position}, {position}',
            '        state[24 : 24 + 8 * 624].view("uint64")[...] = words',
            "        torch.set_rng_state(torch.from_numpy(state))",
        ]
        lines.insert(0, "import torch")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------- initial weights


def start_script(report: Report) -> str:
    """A program for Keras alone that draws the initial weight and prints its worst element. Errors: ValueError."""
    first, fit, about = report.first_divergence, report.fit, report.about
    assert first is not None and fit is not None
    keras = installed_keras()
    initializer, shape = fit.initializers.get(first.tensor, (None, ()))
    if initializer is None:
        raise ValueError(f"no initializer is known that draws {first.tensor}.")
    backend = keras.backend.backend()
    text = _expression(keras, initializer, about["dtype"])
    at = f"[{', '.join(map(str, first.place))}]" if first.place else ""
    parts = [
        f'"""Keras {keras.__version__} on {backend}: the initial {first.tensor}. {first.reason or ""}.'
        '\n\nExit status 1: it is not what the seed leads to, 0: it is.\nMade by minidl check.\n"""',
        *_imports(backend, []),
        f"initializer = {text}",
        f'weight = keras.ops.convert_to_numpy(initializer({shape}, "{about["dtype"]}"))',
        _one_element(first, f"weight{at}"),
    ]
    return _joined(parts, [])


# ---------------------------------------------------------------------------------- Python's text of things


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
