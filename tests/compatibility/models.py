"""What is done with a model: its methods, callbacks, files, and the helpers around it."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from compatibility.engine import Entry, Of, Try
from compatibility.objects import NAME, WEIGHTS, X, Y, schedule

HOOKS = [
    f"on_{what}_{when}"
    for what in ("train", "test", "predict", "train_batch", "test_batch", "predict_batch", "epoch")
    for when in ("begin", "end")
]
VALIDATION = (X[::-1] * 0.9, 1.0 - Y)


def net(k: Any, *, dropout: bool = False) -> Any:
    layers = [k.Input(shape=(4,)), k.layers.Dense(5, activation="relu", kernel_regularizer="l2")]
    if dropout:
        layers.append(k.layers.Dropout(0.5, seed=3))
    return k.Sequential([*layers, k.layers.Dense(1, activation="sigmoid")])


def compiled(k: Any, **arguments: Any) -> Any:
    """A small classifier."""
    model = net(k)
    model.compile(
        **{
            "optimizer": k.optimizers.Adam(0.05),
            "loss": "binary_crossentropy",
            "metrics": ["accuracy"],
            "run_eagerly": True,
            **arguments,
        }
    )
    return model


def trained(k: Any) -> Any:
    """The same after two steps."""
    model = compiled(k)
    for _ in range(2):
        model.train_on_batch(X, Y)
    return model


def recorder(k: Any, events: list[Any]) -> Any:
    """A callback that notes every hook with its number and the names in its logs."""

    def hook(name: str) -> Callable[..., None]:
        def note(self: Any, *found: Any, logs: Any = None) -> None:
            *number, logs = (*found, logs) if logs is not None or not found else (*found[:-1], found[-1])
            if not isinstance(logs, dict):
                number, logs = [*number, logs], {}
            events.append([name, *[n for n in number if n is not None], sorted(logs)])

        return note

    return type("Recorder", (k.callbacks.Callback,), {name: hook(name) for name in HOOKS})()


def printed_lines(run: Callable[[], Any]) -> list[str]:
    """What it prints, line by line: of a bar that is drawn again and again, the last state."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        run()
    lines = [re.split(r"[\r\x08]", line.rstrip("\r\x08"))[-1] for line in text.getvalue().split("\n")]
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    return [re.sub(r" +", " ", line).strip() for line in lines]


def printed(run: Callable[[], Any]) -> list[Any]:
    """Whether it prints, and the figures of each line; the layout is each library's own."""
    lines = printed_lines(run)
    return [any(lines), *(re.findall(r"\w+: -?\d+\.\d+", line) for line in lines if ": " in line)]


# ------------------------------------------------------------------------------------- compile and fit


def fit(k: Any, model: Any, /, **arguments: Any) -> Any:
    """fit: the history, the hooks that were called, and the weights."""
    events: list[Any] = []
    arguments = {"verbose": 0, "batch_size": 3, **arguments}
    arguments["callbacks"] = [*arguments.get("callbacks", []), recorder(k, events)]
    history = model.fit(**arguments)
    found = {"history": history.history, "epochs": history.epoch, "weights": model.get_weights()}
    return {**found, "params": {n: v for n, v in history.params.items() if n != "verbose"}, "events": events}


def fit_prints(k: Any, model: Any, /, **arguments: Any) -> Any:
    return printed(lambda: model.fit(**{"batch_size": 3, "epochs": 2, **arguments}))


def without_batch_size(k: Any, model: Any, /, **arguments: Any) -> Any:
    return fit(k, model, batch_size=None, **{"epochs": 2, "steps_per_epoch": 2, **arguments})


def batches(k: Any) -> Any:
    """A generator without an end."""

    def generate() -> Any:
        while True:
            for i in (0, 3, 6):
                yield X[i : i + 3], Y[i : i + 3]

    return generate()


def dataset(k: Any, **arguments: Any) -> Any:
    class Batches(k.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]

    return Batches(**arguments)


def tensors(k: Any) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


STREAMS = [
    Try(Of(batches), drop=("y",), run=without_batch_size, label="a generator"),
    Try(Of(dataset), drop=("y",), run=without_batch_size, label="a PyDataset"),
]


def on_compile(k: Any, model: Any, /, **arguments: Any) -> Any:
    """compile, two epochs of fit, evaluate."""
    model.compile(**{"optimizer": "sgd", "loss": "mse", "run_eagerly": True, **arguments})
    found = fit(k, model, x=X, y=Y, epochs=2, sample_weight=WEIGHTS)
    return {**found, "evaluate": model.evaluate(X, Y, verbose=0), "names": list(model.metrics_names)}


def in_graph(k: Any, model: Any, /, **arguments: Any) -> Any:
    """The same where Keras compiles the steps, on a model that drops units."""
    model = net(k, dropout=True)
    model.compile(**{"optimizer": "sgd", "loss": "mse", "jit_compile": False, **arguments})
    return fit(k, model, x=X, y=Y, epochs=2, batch_size=8)


def in_executions(k: Any, model: Any, /, **arguments: Any) -> Any:
    model.compile(**{"optimizer": "sgd", "loss": "mse", "jit_compile": False, **arguments})
    return fit(k, model, x=X, y=Y, epochs=1, batch_size=2)


def own_loss(y_true: Any, y_pred: Any) -> Any:
    return abs(y_true - y_pred) ** 2


FIT = {
    "x": STREAMS,
    "batch_size": 4,
    "epochs": 3,
    "verbose": [
        Try(1, run=lambda k, m, /, **a: fit_prints(k, m, **{"verbose": 0, **a}), label="1"),
        Try(2, run=lambda k, m, /, **a: fit_prints(k, m, **{"verbose": 0, **a}), label="2"),
    ],
    "callbacks": Try(Of(lambda k: [k.callbacks.LearningRateScheduler(lambda epoch, lr: lr / 2)])),
    "validation_split": 0.25,
    "validation_data": [
        Try(VALIDATION, label="(x, y)"),
        Try((*VALIDATION, WEIGHTS), label="(x, y, sample_weight)"),
        Try(Of(dataset), label="a PyDataset"),
    ],
    "shuffle": [Try(False, label="False"), Try("batch", label="'batch'")],
    "class_weight": Try({0: 1.0, 1: 3.0}),
    "sample_weight": WEIGHTS,
    "initial_epoch": Try(1, given={"epochs": 3}),
    "steps_per_epoch": 2,
    "validation_steps": Try(1, given={"validation_data": VALIDATION}),
    "validation_batch_size": Try(2, given={"validation_data": VALIDATION}),
    "validation_freq": [
        Try(2, given={"validation_data": VALIDATION, "epochs": 3}, label="2"),
        Try([1, 3], given={"validation_data": VALIDATION, "epochs": 3}, label="[1, 3]"),
    ],
}

COMPILE = {
    "optimizer": [Try("adam", label="a name"), Try(Of(lambda k: k.optimizers.Adam(schedule(k))), label="an object")],
    "loss": [
        Try("binary_crossentropy", label="a name"),
        Try(Of(lambda k: k.losses.Huber(0.1)), label="an object"),
        Try(Of(lambda k: k.losses.mean_absolute_error), label="a function"),
        Try(["mae"], label="a list"),
    ],
    "loss_weights": [Try(0.5, label="a number"), Try([0.5], label="a list")],
    "metrics": [
        Try(["accuracy", "mae"], label="names"),
        Try(Of(lambda k: [k.metrics.AUC(), k.losses.mean_absolute_error]), label="objects and functions"),
    ],
    "weighted_metrics": Try(["accuracy", "mae"]),
    "run_eagerly": Try(True, effect=False, run=in_graph, why="minidl has no graph"),
    "steps_per_execution": Try(2, run=in_executions),
    "jit_compile": Try(True, run=in_graph),
    "auto_scale_loss": Try(False, effect=False, why="scales for float16 alone"),
}


def evaluate(k: Any, model: Any, /, **arguments: Any) -> Any:
    events: list[Any] = []
    arguments = {"verbose": 0, "batch_size": 3, **arguments}
    found = model.evaluate(**{**arguments, "callbacks": [*arguments.get("callbacks", []), recorder(k, events)]})
    return {"result": found, "events": events}


def predict(k: Any, model: Any, /, **arguments: Any) -> Any:
    events: list[Any] = []
    arguments = {"verbose": 0, "batch_size": 3, **arguments}
    found = model.predict(**{**arguments, "callbacks": [*arguments.get("callbacks", []), recorder(k, events)]})
    return {"result": found, "events": events}


def evaluate_stream(k: Any, model: Any, /, **arguments: Any) -> Any:
    return evaluate(k, model, **{"batch_size": None, "steps": 2, **arguments})


def predict_stream(k: Any, model: Any, /, **arguments: Any) -> Any:
    return predict(k, model, **{"batch_size": None, "steps": 2, **arguments})


def counting(k: Any) -> Any:
    """A callback that prints at every batch."""

    def show(self: Any, batch: int, logs: Any = None) -> None:
        print("batch", batch)

    names = ("on_test_batch_end", "on_predict_batch_end")
    return [type("Counting", (k.callbacks.Callback,), dict.fromkeys(names, show))()]


def shown(method: str) -> Callable[..., Any]:
    def run(k: Any, model: Any, /, **arguments: Any) -> Any:
        return printed(lambda: getattr(model, method)(**{"verbose": 0, "batch_size": 3, **arguments}))

    return run


def on_batch(method: str) -> Callable[..., Any]:
    """Three times: what it returns, and the weights."""

    def run(k: Any, model: Any, /, **arguments: Any) -> Any:
        found = [getattr(model, method)(**arguments) for _ in range(3)]
        return {"results": found, "weights": model.get_weights()}

    return run


def summary(k: Any, model: Any, /, **arguments: Any) -> Any:
    """The lines that are printed."""
    lines: list[str] = []
    print_fn = arguments.pop("print_fn", None)
    if print_fn is not None:
        model.summary(print_fn=lambda text, **_: lines.append(text), **arguments)
        return lines
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        model.summary(**arguments)
    return re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue()).split("\n")


def nested(k: Any) -> Any:
    inner = k.Sequential([k.Input(shape=(3,)), k.layers.Dense(2, name="within")], name="inner")
    return k.Sequential([k.Input(shape=(4,)), k.layers.Dense(3, name="first"), inner, k.layers.Dense(1, name="last")])


def nested_summary(k: Any, model: Any, /, **arguments: Any) -> Any:
    return summary(k, nested(k), **arguments)


def built(k: Any, model: Any, /, **arguments: Any) -> Any:
    model = k.Sequential([k.layers.Dense(2)])
    model.build(**arguments)
    return [model.input_shape, model.output_shape, model.get_weights()]


def same(value: Any) -> Any:
    return value


def shapes(model: Any) -> Any:
    return [tuple(np.shape(w)) for w in model.weights]


def reads(name: str, of: Callable[[Any], Any] = same) -> Callable[..., Any]:
    """A property, or what a function makes of it."""

    def run(k: Any, model: Any, /) -> Any:
        return of(getattr(model, name))

    return run


def calls(name: str, of: Callable[[Any], Any] = same) -> Callable[..., Any]:
    """A method's result."""

    def run(k: Any, model: Any, /, **arguments: Any) -> Any:
        return of(getattr(model, name)(**arguments))

    return run


def added(k: Any, model: Any, /, **arguments: Any) -> Any:
    model.add(**arguments)
    return [shapes(model), model.built, model.predict_on_batch(X)]


def popped(k: Any, model: Any, /, **arguments: Any) -> Any:
    layer = model.pop(**arguments)
    return [shapes(model), layer.name, model.built]


def set_trainable(k: Any, model: Any, /) -> Any:
    model.layers[0].trainable = False
    counts = [len(model.trainable_weights), len(model.non_trainable_weights), model.trainable]
    model.compile("sgd", "mse", metrics=["accuracy"], run_eagerly=True)
    return [counts, model.train_on_batch(X, Y), model.get_weights()]


def weights_back(k: Any, model: Any, /, **arguments: Any) -> Any:
    model.set_weights(**{"weights": [w * 0.5 for w in model.get_weights()], **arguments})
    return model.get_weights()


def again(k: Any, model: Any, /, **arguments: Any) -> Any:
    """from_config of get_config."""
    copy = type(model).from_config(model.get_config(), **arguments)
    return [copy.name, shapes(copy), copy.get_config()]


def renamed(k: Any, model: Any, /, **arguments: Any) -> Any:
    """from_config of a config that names a class which only custom_objects knows."""
    config = json.loads(json.dumps(model.get_config()))
    if arguments:
        for layer in config["layers"]:
            if layer["class_name"] == "Dense":
                layer.update(class_name="Mine", module=None, registered_name="Mine")
        mine = type("Mine", (k.layers.Dense,), {"get_config": lambda self: {**k.layers.Dense.get_config(self)}})
        arguments = {"custom_objects": {"Mine": mine}}
    copy = type(model).from_config(config, **arguments)
    return [type(layer).__name__ for layer in copy.layers]


def as_json(k: Any, model: Any, /, **arguments: Any) -> Any:
    arguments = {name: value for name, value in arguments.items() if name != "kwargs"} | arguments.get("kwargs", {})
    text = model.to_json(**arguments)
    found = json.loads(text)
    found.pop("keras_version", None)
    return {"lines": text.count("\n"), "config": found}


def recompiled(k: Any, model: Any, /, **arguments: Any) -> Any:
    other = net(k)
    other.compile_from_config(model.get_compile_config())
    return [other.optimizer.get_config(), other.train_on_batch(X, Y)]


def states(k: Any, model: Any, /) -> Any:
    """reset_metrics and get_metrics_result around a step."""
    model.test_on_batch(X, Y)
    found = model.get_metrics_result()
    model.reset_metrics()
    return [found, model.get_metrics_result()]


def member(name: str, run: Any, arguments: Any = None, owner: Any = trained, /, **required: Any) -> Entry:
    return Entry(f"Sequential.{name}", run, arguments or {}, required, owner=owner)


DATA = {"x": X, "y": Y}


def two_layers(k: Any) -> Any:
    return [k.Input(shape=(4,)), k.layers.Dense(2)]


def sequence(k: Any, target: Any, /, **arguments: Any) -> Any:
    model = target(**arguments)
    return [model.name, len(model.layers), shapes(model), len(model.trainable_weights), model.trainable]


SEQUENTIAL = [
    *[
        Entry(
            path,
            sequence,
            {
                "layers": Try(Of(two_layers)),
                "trainable": Try(False, given={"layers": Of(two_layers)}),
                "name": NAME,
            },
        )
        for path in ("Sequential", "models.Sequential")
    ],
    member(
        "add",
        added,
        {"rebuild": Try(False, effect=None, run=lambda k, m, /, **a: [m.add(**a), len(m.layers)])},
        net,
        layer=Of(lambda k: k.layers.Dense(2, name="added")),
    ),
    member(
        "pop",
        popped,
        {"rebuild": Try(False, effect=None, run=lambda k, m, /, **a: [m.pop(**a).name, len(m.layers)])},
        net,
    ),
    member("build", built, {}, input_shape=(None, 4)),
    member("compile", on_compile, COMPILE, net),
    member("fit", fit, FIT, compiled, **DATA),
    member(
        "evaluate",
        evaluate,
        {
            "x": [Try(t.value, drop=("y",), run=evaluate_stream, label=t.label, effect=None) for t in STREAMS],
            "batch_size": 4,
            "verbose": [Try(v, run=shown("evaluate"), label=str(v)) for v in (1, 2)],
            "sample_weight": WEIGHTS,
            "steps": 1,
            "callbacks": Try(Of(counting), run=shown("evaluate")),
            "return_dict": True,
        },
        **DATA,
    ),
    member(
        "predict",
        predict,
        {
            "x": [Try(t.value, run=predict_stream, label=t.label, effect=None) for t in STREAMS],
            "batch_size": 4,
            "verbose": [Try(v, run=shown("predict"), label=str(v)) for v in (1, 2)],
            "steps": 1,
            "callbacks": Try(Of(counting), run=shown("predict")),
        },
        x=X,
    ),
    member(
        "train_on_batch",
        on_batch("train_on_batch"),
        {
            "sample_weight": WEIGHTS,
            "class_weight": Try({0: 1.0, 1: 3.0}),
            "return_dict": True,
        },
        compiled,
        **DATA,
    ),
    member("test_on_batch", on_batch("test_on_batch"), {"sample_weight": WEIGHTS, "return_dict": True}, **DATA),
    member("predict_on_batch", on_batch("predict_on_batch"), x=X),
    member(
        "summary",
        summary,
        {
            "line_length": 60,
            "positions": Try([0.3, 0.6, 1.0]),
            "print_fn": Try(print, run=lambda k, m, /, **a: summary(k, m, **a)),
            "expand_nested": Try(True, run=nested_summary),
            "show_trainable": True,
            "layer_range": Try(["first", "inner"], run=nested_summary),
        },
    ),
    member("get_config", calls("get_config")),
    member(
        "from_config",
        lambda k, m, /, config=None, **a: again(k, m, **a),
        {"custom_objects": Try({}, run=lambda k, m, /, config=None, **a: renamed(k, m, **a))},
        net,
        config=None,
    ),
    member("to_json", as_json, {"kwargs": Try({"indent": 1})}),
    member("get_compile_config", calls("get_compile_config")),
    member("compile_from_config", lambda k, m, /, config=None: recompiled(k, m), config=None),
    member("get_build_config", calls("get_build_config")),
    member(
        "build_from_config",
        lambda k, m, /, config: (m.build_from_config(config), m.built, shapes(m))[1:],
        None,
        lambda k: k.Sequential([k.layers.Dense(2)]),
        config={"input_shape": (None, 4)},
    ),
    member(
        "get_layer",
        lambda k, m, /, **a: m.get_layer(**a).name,
        {"name": Try("dense_1", drop=("index",)), "index": 1},
        index=0,
    ),
    member("get_weights", calls("get_weights")),
    member("set_weights", weights_back, weights=Of(lambda k: [w * 0.5 for w in trained(k).get_weights()])),
    member("count_params", calls("count_params")),
    member("layers", reads("layers", lambda found: [layer.name for layer in found])),
    member("weights", reads("weights")),
    member(
        "variables",
        reads("variables", lambda found: [tuple(np.shape(v)) for v in found]),
        None,
        partial(net, dropout=True),
    ),
    member("trainable", set_trainable),
    member("trainable_weights", reads("trainable_weights")),
    member("non_trainable_weights", reads("non_trainable_weights")),
    member("trainable_variables", reads("trainable_variables")),
    member("non_trainable_variables", reads("non_trainable_variables", len), None, partial(net, dropout=True)),
    member("losses", reads("losses")),
    member("metrics", reads("metrics", lambda found: [m.name for m in found][:1])),
    member("metrics_names", reads("metrics_names")),
    member("reset_metrics", states),
    member("get_metrics_result", states),
    member("input_shape", reads("input_shape")),
    member("output_shape", reads("output_shape")),
    member("compute_output_shape", calls("compute_output_shape", tuple), input_shape=(None, 4)),
    member("name", reads("name")),
    member("built", reads("built")),
    member("compiled", reads("compiled")),
    member("optimizer", reads("optimizer", lambda found: type(found).__name__)),
    member("stop_training", reads("stop_training")),
    member("dtype", reads("dtype")),
    member("compute_dtype", reads("compute_dtype")),
    member("variable_dtype", reads("variable_dtype")),
    member("input_dtype", reads("input_dtype")),
    member("jit_compile", reads("jit_compile", bool)),
    member("run_eagerly", reads("run_eagerly")),
    member("steps_per_execution", reads("steps_per_execution")),
    member("activity_regularizer", reads("activity_regularizer")),
]

# -------------------------------------------------------------------------------------------- callbacks


def called_back(k: Any, target: Any, /, *, rate: float = 1.5, **arguments: Any) -> Any:
    """Six epochs with the callback: the history, the weights, what it wrote and printed.

    At this rate the loss falls all the time, and that of the validation rises.
    """
    model = compiled(k, optimizer=k.optimizers.SGD(rate))
    made = target(**arguments)
    events: list[Any] = []
    held: list[Any] = []
    options = {"epochs": 6, "batch_size": 8, "verbose": 0, "validation_data": VALIDATION}
    lines = printed_lines(lambda: held.append(model.fit(X, Y, callbacks=[made, recorder(k, events)], **options)))
    names = sorted(path.relative_to(".").as_posix() for path in Path().rglob("*") if path.is_file())
    found = {"history": held[0].history, "weights": model.get_weights(), "files": names, "epochs": held[0].epoch}
    texts = [path.read_text() for path in sorted(Path().glob("*.csv"))]
    return {**found, "texts": numbers(texts), "printed": numbers(lines), "hooks": len(events)}


gently = partial(called_back, rate=0.01)
wildly = partial(called_back, rate=5.0)  # the loss falls once, then rises


def numbers(lines: list[str]) -> list[Any]:
    """Text with its numbers as numbers, which may differ by rounding."""
    pattern = re.compile(r"-?\d+\.\d+(?:[eE][-+]?\d+)?")
    return [[pattern.sub("#", line), [float(n) for n in pattern.findall(line)]] for line in lines]


def a_callback(
    name: str,
    arguments: dict[str, Any] | None = None,
    *,
    variadic: tuple[str, ...] = (),
    run: Any = called_back,
    **required: Any,
) -> Entry:
    return Entry(f"callbacks.{name}", run, arguments or {}, required, variadic=variadic)


def training_metric(**given: Any) -> Any:
    return {"monitor": "loss", **given}


def keeps(k: Any, target: Any, /, **arguments: Any) -> Any:
    """ModelCheckpoint: which files, and the weights in the last."""
    found = called_back(k, target, **arguments)
    return {"files": found["files"], "printed": found["printed"], "weights": found["weights"]}


def noted(seen: list[Any], name: str, *found: Any, logs: Any = None) -> None:
    seen.append([name, *[number for number in found if isinstance(number, int)]])


def hooks_of(k: Any, target: Any, /, **arguments: Any) -> Any:
    """LambdaCallback: fit, evaluate and predict with one function at one hook."""
    seen: list[Any] = []
    made = target(**{name: partial(noted, seen, name) for name in arguments})
    model = compiled(k)
    model.fit(X, Y, epochs=2, batch_size=4, verbose=0, callbacks=[made])
    model.evaluate(X, Y, verbose=0, callbacks=[made])
    model.predict(X, verbose=0, callbacks=[made])
    return seen


def nan_met(k: Any, target: Any, /, **arguments: Any) -> Any:
    model = compiled(k, loss="mse", optimizer=k.optimizers.SGD(1e300))
    x = X.copy()
    x[0, 0] = 1e308
    extra = {"check_finite": False} if k.__name__.startswith("minidl") else {}
    try:
        history = model.fit(x, Y, epochs=3, verbose=0, callbacks=[target(**arguments)], **extra)
    except RuntimeError as error:
        return type(error).__name__
    return history.epoch


def backed_up(k: Any, target: Any, /, **arguments: Any) -> Any:
    """Interrupted in the fourth of six epochs, then begun anew: which epochs were run, with what weights."""
    model = compiled(k)
    made = target(**arguments)

    class Stop(k.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 7:
                raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        model.fit(X, Y, epochs=6, batch_size=4, verbose=0, callbacks=[made, Stop()])
    left = sorted(path.relative_to(".").as_posix() for path in Path().rglob("*") if path.is_file())
    model = compiled(k)
    history = model.fit(X, Y, epochs=6, batch_size=4, verbose=0, callbacks=[target(**arguments)])
    after = sorted(path.relative_to(".").as_posix() for path in Path().rglob("*") if path.is_file())
    return {"epochs": history.epoch, "files": [left, after], "weights": model.get_weights()}


def averaged(k: Any, target: Any, /, **arguments: Any) -> Any:
    """SwapEMAWeights: the weights that a later callback sees at the end of each epoch, and those that are left."""
    model = compiled(k, optimizer=k.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5))
    seen: list[Any] = []

    def look(self: Any, epoch: int, logs: Any = None) -> None:
        seen.append(self.model.get_weights())

    callbacks = [target(**arguments), type("Look", (k.callbacks.Callback,), {"on_epoch_end": look})()]
    history = model.fit(X, Y, epochs=2, batch_size=4, verbose=0, validation_data=VALIDATION, callbacks=callbacks)
    return {"history": history.history, "seen": seen, "weights": model.get_weights()}


def logged(k: Any, target: Any, /, **arguments: Any) -> Any:
    """TensorBoard: each tag of each run, with its steps and numbers, as TensorFlow reads them back."""
    import tensorflow as tf

    def as_written(name: str, data: Any, step: Any, **_: Any) -> Any:
        return tf.summary.write(tag=name, tensor=tf.convert_to_tensor(data), step=step)

    model = compiled(k)
    with contextlib.ExitStack() as stack:
        for kind in ("scalar", "histogram", "image", "text"):  # which tensorboard would bring
            stack.enter_context(mock.patch.object(tf.summary, kind, as_written))
        model.fit(X, Y, epochs=2, batch_size=4, verbose=0, validation_data=VALIDATION, callbacks=[target(**arguments)])
    found: dict[str, Any] = {}
    for path in sorted(Path("logs").rglob("*tfevents*")):
        for raw in tf.data.TFRecordDataset([str(path)]):
            event = tf.compat.v1.Event.FromString(raw.numpy())
            for value in event.summary.value:
                number: Any = "not a scalar"
                if value.HasField("simple_value"):
                    number = float(value.simple_value)
                elif value.HasField("tensor") and (array := tf.make_ndarray(value.tensor)).ndim == 0:
                    number = float(array) if array.dtype.kind == "f" else number
                if "steps_per_second" in value.tag:
                    number = "a rate"
                found.setdefault(f"{path.parent.as_posix()} {value.tag}", []).append([event.step, number])
    return dict(sorted(found.items()))


def halved(epoch: int, rate: float) -> float:
    return rate / 2


EARLY = {"monitor": "loss", "patience": 0}
PLATEAU = {"monitor": "val_loss", "patience": 1, "factor": 0.5}
CALLBACKS = [
    a_callback("Callback"),
    a_callback("History"),
    a_callback(
        "EarlyStopping",
        {
            "monitor": "loss",
            "min_delta": Try(0.5, given={"monitor": "loss"}),
            "patience": 3,
            "verbose": 1,
            "mode": [Try("max", label="max"), Try("min", effect=False, why="what auto finds", label="min")],
            "baseline": Try(0.01, given={"monitor": "loss", "patience": 2}, run=wildly),
            "restore_best_weights": True,
            "start_from_epoch": 4,
        },
    ),
    a_callback(
        "ModelCheckpoint",
        {
            "monitor": Try("loss", given={"filepath": "{epoch}.keras", "save_best_only": True}),
            "verbose": 1,
            "save_best_only": Try(True, given={"filepath": "{epoch}.keras"}),
            "save_weights_only": Try(
                True, given={"filepath": "{epoch}.weights.h5"}, effect=False, why="the name says so too"
            ),
            "mode": Try("max", given={"filepath": "{epoch}.keras", "save_best_only": True}),
            "save_freq": Try(
                3,
                given={"filepath": "{epoch}-{batch}.keras"},
                run=lambda k, t, /, **a: keeps(
                    k, t, **{**a, "filepath": "{epoch}.keras" if "save_freq" not in a else "{epoch}-{batch}.keras"}
                ),
            ),
            "initial_value_threshold": Try(0.01, given={"filepath": "{epoch}.keras", "save_best_only": True}),
        },
        run=keeps,
        filepath="kept.keras",
    ),
    a_callback(
        "CSVLogger",
        {
            "separator": ";",
            "append": Try(True, run=lambda k, t, /, **a: [called_back(k, t, **a), called_back(k, t, **a)]),
        },
        filename="log.csv",
    ),
    a_callback("LearningRateScheduler", {"verbose": 1}, schedule=halved),
    a_callback(
        "ReduceLROnPlateau",
        {
            "monitor": Try("accuracy", given={"patience": 1}),
            "factor": Try(0.5, given={"patience": 1}),
            "patience": 1,
            "verbose": Try(1, given={"patience": 1}),
            "mode": Try("max", given={"patience": 1}),
            "min_delta": Try(0.5, given={"patience": 1, "monitor": "loss"}, run=gently),
            "cooldown": Try(2, given={"patience": 1}),
            "min_lr": Try(1.0, given={"patience": 1}),
        },
        variadic=("kwargs",),
    ),
    Entry(
        "callbacks.LambdaCallback",
        hooks_of,
        {name: True for name in HOOKS if not name.startswith("on_epoch")}
        | {"on_epoch_begin": True, "on_epoch_end": True},
        variadic=tuple(n for n in HOOKS if "test" in n or "predict" in n),
    ),
    Entry("callbacks.TerminateOnNaN", nan_met, {"raise_error": True}),
    Entry(
        "callbacks.BackupAndRestore",
        backed_up,
        {"save_freq": 1, "double_checkpoint": True, "delete_checkpoint": False},
        {"backup_dir": "backup"},
    ),
    Entry(
        "callbacks.TensorBoard",
        logged,
        {
            "histogram_freq": 1,
            "write_graph": Try(False),
            "write_images": Try(True, given={"histogram_freq": 1}),
            "write_steps_per_second": True,
            "update_freq": [Try("batch", label="batch"), Try(2, label="2")],
            "profile_batch": Try(2, effect=None),
            "embeddings_freq": Try(1, effect=None),
            "embeddings_metadata": Try("labels.tsv", effect=None),
        },
        {"log_dir": "logs"},
    ),
    Entry("callbacks.SwapEMAWeights", averaged, {"swap_on_epoch": True}),
    a_callback("ProgbarLogger"),
]
