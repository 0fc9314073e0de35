"""What surrounds a model: base classes and their methods, files, helpers, settings, random numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from compatibility.engine import Entry, Of, Try
from compatibility.models import calls, compiled, dataset, member, net, reads, shapes, trained
from compatibility.objects import NAME, WEIGHTS, X, Y, apply, config_of, penalised

# ------------------------------------------------------- serialize, deserialize and get of each module


def home(k: Any, module: str) -> Any:
    for name in module.split("."):
        k = getattr(k, name)
    return k


def keras_form(
    module: str, make: Callable[[Any], Any], use: Callable[[Any], Any], argument: str, config: str
) -> list[Entry]:
    """serialize, deserialize and get. make(k): an object. use(object): what it computes."""

    def serialized(k: Any, target: Any, /, **arguments: Any) -> Any:
        return target(**arguments)

    def deserialized(k: Any, target: Any, /, **arguments: Any) -> Any:
        found = json.loads(json.dumps(home(k, module).serialize(make(k))))
        if "custom_objects" in arguments:
            mine = type("Mine", (type(make(k)),), {"__module__": "somebody"})
            found.update(class_name="Mine", module=None, registered_name="Mine")
            arguments["custom_objects"] = {"Mine": mine}
        arguments[config] = found
        made = target(**arguments)
        return [type(made).__name__, use(made)]

    def got(k: Any, target: Any, /, *, identifier: Any) -> Any:
        return use(target(identifier))

    def as_config(k: Any) -> Any:
        return json.loads(json.dumps(home(k, module).serialize(make(k))))

    found = [
        Entry(f"{module}.serialize", serialized, {}, {argument: Of(make)}),
        Entry(f"{module}.deserialize", deserialized, {"custom_objects": Try({})}, {config: None}),
    ]
    if module not in ("optimizers.schedules", "layers"):
        forms = [Try(Of(make), label="an object", effect=None), Try(Of(as_config), label="a config", effect=None)]
        name = Of(lambda k: type(make(k)).__name__)
        found.append(Entry(f"{module}.get", got, {"identifier": forms}, {"identifier": name}))
    return found


FORMS = [
    *keras_form(
        "initializers",
        lambda k: k.initializers.RandomUniform(-0.05, 0.05, seed=3),
        lambda made: config_of(made)["maxval"],
        "initializer",
        "config",
    ),
    *keras_form("regularizers", lambda k: k.regularizers.L2(0.01), lambda made: made(X), "regularizer", "config"),
    *keras_form("constraints", lambda k: k.constraints.MaxNorm(2.0), lambda made: made(X), "constraint", "config"),
    *keras_form("losses", lambda k: k.losses.Huber(), lambda made: made(Y, X[:, :1]), "loss", "name"),
    *keras_form("metrics", lambda k: k.metrics.AUC(), lambda made: made.num_thresholds, "metric", "config"),
    *keras_form(
        "optimizers",
        lambda k: k.optimizers.Adam(),
        lambda made: float(np.asarray(made.learning_rate)),
        "optimizer",
        "config",
    ),
    *keras_form(
        "optimizers.schedules",
        lambda k: k.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5),
        lambda made: made(3),
        "learning_rate_schedule",
        "config",
    ),
    *keras_form("layers", lambda k: k.layers.Dense(3, name="it"), lambda made: made.units, "layer", "config"),
]

# -------------------------------------------------------------------------------------- base classes


def subclass(k: Any, target: Any, /, **arguments: Any) -> Any:
    """A class of one's own can be made of it."""
    mine = type("Mine", (target,), {})
    return issubclass(mine, target)


class_entries = [
    Entry(name, subclass)
    for name in (
        "initializers.Initializer", "Initializer", "regularizers.Regularizer", "Regularizer",
        "constraints.Constraint", "optimizers.schedules.LearningRateSchedule",
    )
]  # fmt: skip


def own_loss(k: Any, target: Any, /, **arguments: Any) -> Any:
    """A subclass whose call is given: its value."""
    mine = type("Mine", (target,), {"call": lambda self, y_true, y_pred: (y_true - y_pred) ** 2})
    made = mine(**arguments)
    return [made.name, made(Y, X[:, :1]), made(Y, X[:, :1], sample_weight=WEIGHTS)]


def own_metric(k: Any, target: Any, /, **arguments: Any) -> Any:
    """A subclass that counts its batches."""

    def update_state(self: Any, *data: Any, sample_weight: Any = None) -> None:
        self.count = getattr(self, "count", 0) + 1

    mine = type("Mine", (target,), {"update_state": update_state, "result": lambda self: float(self.count)})
    made = mine(**arguments)
    made.update_state(Y, Y)
    return [made.result(), made.name, str(made.dtype)]


def own_layer(k: Any, target: Any, /, **arguments: Any) -> Any:
    """The base's own arguments, on a subclass that computes nothing."""
    body = {"call": lambda self, x: x, "forward": lambda self, x, *, training=False: x, "backward": lambda self, d: d}
    made = type("Mine", (target,), body)(**arguments)
    return [made.name, made.trainable, str(made.dtype), made.activity_regularizer is None]


def own_input(k: Any, target: Any, /, **arguments: Any) -> Any:
    body = {"call": lambda self, x: x, "forward": lambda self, x, *, training=False: x, "backward": lambda self, d: d}
    made = type("Mine", (target,), body)(**arguments)
    return k.Sequential([made, k.layers.Dense(2)]).built


LAYER_BASE = {
    "activity_regularizer": Of(penalised),
    "trainable": False,
    "dtype": "float32",
    "autocast": Try(False, effect=False),
    "name": NAME,
    "input_shape": Try((4,), run=own_input),
    "input_dim": Try(4, run=own_input),
}
BASES = [
    *class_entries,
    *[
        Entry(name, own_loss, {"name": NAME, "reduction": "sum", "dtype": "float32"})
        for name in ("losses.Loss", "Loss")
    ],
    *[Entry(name, own_metric, {"name": NAME, "dtype": "float32"}) for name in ("metrics.Metric", "Metric")],
    *[Entry(name, own_layer, LAYER_BASE, variadic=("input_shape", "input_dim")) for name in ("layers.Layer", "Layer")],
]


def unbuilt(k: Any) -> Any:
    return k.layers.Dense(2)


def dense(k: Any) -> Any:
    layer = k.layers.Dense(2, kernel_regularizer="l2", name="it")
    layer.build((None, 4))
    return layer


def layer_member(name: str, run: Any, arguments: Any = None, owner: Any = dense, /, **required: Any) -> Entry:
    return Entry(f"Layer.{name}", run, arguments or {}, required, owner=owner)


LAYER = [
    layer_member("build", lambda k, m, /, **a: [m.build(**a), shapes(m)], None, unbuilt, input_shape=(None, 4)),
    layer_member(
        "build_from_config",
        lambda k, m, /, **a: [m.build_from_config(**a), shapes(m)],
        None,
        unbuilt,
        config={"input_shape": (None, 4)},
    ),
    layer_member("compute_output_shape", calls("compute_output_shape", tuple), input_shape=(None, 4)),
    layer_member("count_params", calls("count_params")),
    layer_member(
        "from_config", lambda k, m, /, config: type(m).from_config(m.get_config()).get_config(), {}, config=None
    ),
    layer_member("get_build_config", calls("get_build_config")),
    layer_member("get_config", calls("get_config")),
    layer_member("get_weights", calls("get_weights")),
    layer_member(
        "set_weights",
        lambda k, m, /, **a: [m.set_weights(**a), m.get_weights()],
        {},
        weights=[np.ones((4, 2)), np.ones(2)],
    ),
    *[
        layer_member(name, reads(name))
        for name in (
            "weights",
            "variables",
            "trainable_weights",
            "non_trainable_weights",
            "trainable_variables",
            "non_trainable_variables",
            "losses",
            "trainable",
            "dtype",
            "compute_dtype",
            "variable_dtype",
            "input_dtype",
            "name",
            "built",
            "activity_regularizer",
        )
    ],
]


def mean(k: Any) -> Any:
    made = k.metrics.Mean(name="it")
    made.update_state(X)
    return made


def metric_member(name: str, run: Any, arguments: Any = None, owner: Any = mean, /, **required: Any) -> Entry:
    return Entry(f"Metric.{name}", run, arguments or {}, required, owner=owner)


METRIC = [
    metric_member(
        "update_state",
        lambda k, m, /, **a: [m.update_state(**a), float(np.asarray(m.result()))][1:],
        {"sample_weight": WEIGHTS},
        values=X[:, 0],
    ),
    metric_member("result", lambda k, m, /: float(np.asarray(m.result()))),
    metric_member("reset_state", lambda k, m, /: [m.reset_state(), float(np.asarray(m.result()))][1:]),
    metric_member("get_config", calls("get_config")),
    metric_member(
        "from_config", lambda k, m, /, **a: type(m).from_config(**a).name, config={"name": "it", "dtype": "float64"}
    ),
    metric_member("dtype", reads("dtype", str)),
    metric_member("variables", reads("variables", lambda found: [float(np.asarray(v)) for v in found])),
]


def adam(k: Any) -> Any:
    return trained(k).optimizer


def optimizer_member(name: str, run: Any, arguments: Any = None, owner: Any = adam, /, **required: Any) -> Entry:
    return Entry(f"Optimizer.{name}", run, arguments or {}, required, owner=owner)


def excluded(k: Any, _: Any, /, **arguments: Any) -> Any:
    model = net(k)
    made = k.optimizers.AdamW(0.1, weight_decay=0.5)
    if "var_list" in arguments:
        arguments["var_list"] = [model.layers[0].kernel]
    made.exclude_from_weight_decay(**arguments)
    model.compile(made, "mse", run_eagerly=True)
    return [model.train_on_batch(X, Y), model.get_weights()]


OPTIMIZER = [
    optimizer_member("exclude_from_weight_decay", excluded, {"var_list": Try([]), "var_names": Try(["kernel"])}),
    optimizer_member("learning_rate", reads("learning_rate", lambda found: float(np.asarray(found)))),
    optimizer_member("iterations", reads("iterations", lambda found: int(np.asarray(found)))),
    optimizer_member("variables", reads("variables", lambda found: [np.asarray(v).astype(float) for v in found])),
    optimizer_member("get_config", calls("get_config")),
    optimizer_member(
        "from_config",
        lambda k, m, /, **a: type(m).from_config(**a).get_config(),
        {"custom_objects": Try({}, effect=False)},
        config=Of(lambda k: adam(k).get_config()),
    ),
]


def huber(k: Any) -> Any:
    return k.losses.Huber(name="it")


LOSS = [
    Entry("Loss.call", lambda k, m, /, **a: m.call(**a), {}, {"y_true": Y, "y_pred": X[:, :1]}, owner=huber),
    Entry("Loss.dtype", reads("dtype", str), owner=huber),
    Entry("Loss.get_config", lambda k, made, /: {"config": made.get_config()}, owner=huber),
    Entry(
        "Loss.from_config",
        lambda k, m, /, **a: type(m).from_config(**a).name,
        {},
        {"config": {"name": "it"}},
        owner=huber,
    ),
]


def callback(k: Any) -> Any:
    made = k.callbacks.Callback()
    model = compiled(k)
    model.fit(X, Y, epochs=2, batch_size=4, verbose=0, callbacks=[made])
    return made


def hook(name: str) -> Entry:
    arguments = {"logs": {}}
    if "batch" in name:
        arguments["batch"] = 0
    if "epoch" in name:
        arguments["epoch"] = 0
    return Entry(f"Callback.{name}", calls(name), {}, arguments, owner=callback)


CALLBACK = [
    *[
        hook(f"on_{what}_{when}")
        for what in ("batch", "epoch", "train", "train_batch", "test", "test_batch", "predict", "predict_batch")
        for when in ("begin", "end")
    ],
    Entry(
        "Callback.set_model",
        lambda k, m, /, model: [m.set_model(model), m.model is model],
        {},
        {"model": Of(net)},
        owner=callback,
    ),
    Entry(
        "Callback.set_params",
        lambda k, m, /, params: [m.set_params(params), m.params],
        {},
        {"params": {"epochs": 3}},
        owner=callback,
    ),
    Entry("Callback.model", reads("model", lambda found: type(found).__name__), owner=callback),
]

# ------------------------------------------------------------------------------------------- files


def resumed(k: Any, model: Any) -> Any:
    """What a loaded model gives and, if it is compiled, goes on with."""
    found = {"outputs": model.predict_on_batch(X), "compiled": model.compiled}
    if model.compiled:
        found["next"] = [model.train_on_batch(X, Y), model.get_weights()]
    return found


def files() -> list[str]:
    return sorted(path.as_posix() for path in Path().rglob("*") if path.is_file())


def saved(k: Any, save: Any, **arguments: Any) -> Any:
    """Saved and loaded again."""
    save(**arguments)
    path = str(arguments["filepath"])
    return {"files": files(), "loaded": resumed(k, k.models.load_model(path)) if path.endswith(".keras") else None}


def save_function(k: Any, target: Any, /, **arguments: Any) -> Any:
    return saved(k, target, **arguments)


def load(k: Any, target: Any, /, **arguments: Any) -> Any:
    model = trained(k)
    if "custom_objects" in arguments:
        mine = type("Mine", (k.layers.Dense,), {"__module__": "somebody"})
        model = k.Sequential([k.Input(shape=(4,)), mine(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        arguments["custom_objects"] = {"Mine": mine}
    model.save(arguments["filepath"])
    found = target(**arguments)
    return {**resumed(k, found), "classes": [type(layer).__name__ for layer in found.layers]}


def cloned(k: Any, target: Any, /, **arguments: Any) -> Any:
    copy = target(**arguments)
    return [copy.name, shapes(copy), [layer.name for layer in copy.layers], copy.get_weights()]


def renamed_layer(k: Any) -> Any:
    def copy(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "name": f"copy_of_{layer.name}"})

    return copy


def from_json(k: Any, target: Any, /, **arguments: Any) -> Any:
    if "custom_objects" in arguments:
        mine = type("Mine", (k.layers.Dense,), {"__module__": "somebody"})
        arguments = {
            "json_string": k.Sequential([k.Input(shape=(4,)), mine(1)]).to_json(),
            "custom_objects": {"Mine": mine},
        }
    model = target(**arguments)
    return [model.name, shapes(model), [type(layer).__name__ for layer in model.layers], model.get_weights()]


def weights_kept(k: Any, model: Any, /, **arguments: Any) -> Any:
    model.save_weights(**arguments)
    other = compiled(k)
    other.load_weights(arguments["filepath"])
    return [files(), other.get_weights()]


def weights_loaded(k: Any, model: Any, /, *, skip_mismatch: Any = None, **arguments: Any) -> Any:
    model.save_weights(arguments["filepath"])
    if skip_mismatch is None:
        other = compiled(k)
    else:
        other = k.Sequential([k.Input(shape=(4,)), k.layers.Dense(5), k.layers.Dense(2)])
        arguments["skip_mismatch"] = skip_mismatch
    other.load_weights(**arguments)
    return other.get_weights()


SAVE = {
    "overwrite": Try(False, effect=False, why="asks only where the file exists"),
    "zipped": [
        Try(True, effect=False, why="the default", label="True"),
        Try(False, label="False", run=lambda k, t, /, **a: save_folder(k, t, **a)),
    ],
}


def save_folder(k: Any, target: Any, /, **arguments: Any) -> Any:
    if "zipped" in arguments:
        arguments["filepath"] = "folder"
    target(**arguments)
    return [Path(arguments["filepath"]).is_dir()]


def model_save(k: Any, model: Any, /, **arguments: Any) -> Any:
    return saved(k, model.save, **arguments)


LOAD = {
    "custom_objects": Try({}),
    "compile": False,
    "safe_mode": Try(False, effect=False, why="no code is ever run"),
}
FILES = [
    member(
        "save",
        model_save,
        {
            **SAVE,
            "zipped": [
                SAVE["zipped"][0],
                Try(False, label="False", run=lambda k, m, /, **a: save_folder(k, m.save, **a)),
            ],
            "include_optimizer": Try(False, effect=None),
        },
        filepath="m.keras",
    ),
    member(
        "save_weights",
        weights_kept,
        {
            "overwrite": Try(False, effect=False, why="asks only where the file exists"),
            "max_shard_size": Try(1.0, run=lambda k, m, /, **a: [m.save_weights(**a), None][1:], effect=None),
        },
        filepath="m.weights.h5",
    ),
    member("load_weights", weights_loaded, {"skip_mismatch": True}, filepath="m.weights.h5"),
    *[
        Entry(
            f"{module}.save_model",
            save_function,
            {**SAVE, "include_optimizer": Try(False, effect=None)},
            {"model": Of(trained), "filepath": "m.keras"},
        )
        for module in ("models", "saving")
    ],
    *[Entry(f"{module}.load_model", load, LOAD, {"filepath": "m.keras"}) for module in ("models", "saving")],
    Entry(
        "saving.save_weights",
        lambda k, t, /, **a: [t(**a), files()],
        {"overwrite": Try(False, effect=False), "max_shard_size": Try(1.0, effect=None)},
        {"model": Of(trained), "filepath": "m.weights.h5"},
    ),
    Entry(
        "saving.load_weights",
        lambda k, t, /, **a: [trained(k).save_weights(a["filepath"]), t(**a), a["model"].get_weights()],
        {"skip_mismatch": Try(True, effect=False, why="nothing to skip")},
        {"model": Of(compiled), "filepath": "m.weights.h5"},
    ),
    Entry(
        "models.clone_model",
        cloned,
        {
            "input_tensors": Try(Of(lambda k: [k.Input(shape=(4,))]), effect=None),
            "clone_function": Of(renamed_layer),
            "call_function": Try(lambda layer, *a, **o: layer(*a, **o), raises=True),
            "recursive": Try(True, effect=False, why="no model within"),
        },
        {"model": Of(trained)},
    ),
    Entry(
        "models.model_from_json",
        from_json,
        {"custom_objects": Try({})},
        {"json_string": Of(lambda k: trained(k).to_json())},
    ),
]


def chain(k: Any, target: Any, /, **arguments: Any) -> Any:
    """A functional model that is a chain."""
    inputs = k.Input(shape=(4,))
    outputs = k.layers.Dense(2)(k.layers.Dense(3, activation="relu")(inputs))
    model = target(inputs=inputs, outputs=outputs, **arguments)
    return [model.predict_on_batch(X), model.name, model.trainable]


FILES += [
    Entry(name, chain, {"name": NAME, "trainable": False}, variadic=("inputs", "outputs", "name", "trainable"))
    for name in ("Model", "models.Model")
]

# ----------------------------------------------------------------------------------------- helpers


def global_draws(k: Any, target: Any, /, **arguments: Any) -> Any:
    target(**arguments)
    return [k.initializers.GlorotUniform()((2, 3)), np.random.rand()]


def names_anew(k: Any, target: Any, /, **arguments: Any) -> Any:
    k.layers.Dense(1)
    target(**arguments)
    return k.layers.Dense(1).name


def a_dataset(k: Any, target: Any, /, **arguments: Any) -> Any:
    made = dataset(k, **arguments)
    model = compiled(k)
    history = model.fit(made, epochs=2, verbose=0, shuffle=False)
    return {"history": history.history, "settings": [made.workers, made.use_multiprocessing, made.max_queue_size]}


def scope(k: Any, target: Any, /, *, custom_objects: Any) -> Any:
    mine = type("Mine", (k.layers.Dense,), {"__module__": "somebody"})
    model = k.Sequential([k.Input(shape=(4,)), mine(1)])
    with target({"Mine": mine}):
        copy = k.models.model_from_json(model.to_json())
    return [type(layer).__name__ for layer in copy.layers]


def registered(k: Any, target: Any, /, **arguments: Any) -> Any:
    class Mine(k.layers.Dense):
        pass

    mine = target(**arguments)(Mine)
    model = k.Sequential([k.Input(shape=(4,)), mine(1)])
    copy = k.models.model_from_json(model.to_json())
    found = json.loads(model.to_json())["config"]["layers"][-1]["registered_name"]
    return [type(layer).__name__ for layer in copy.layers] + [found]


def custom_known(k: Any, target: Any, /) -> Any:
    return type(target()).__name__


def object_form(k: Any, target: Any, /, **arguments: Any) -> Any:
    return target(**arguments)


def object_back(k: Any, target: Any, /, *, config: Any, **arguments: Any) -> Any:
    if "custom_objects" in arguments:
        mine = type("Mine", (k.regularizers.L2,), {"__module__": "somebody"})
        config = {**config, "class_name": "Mine", "module": None, "registered_name": "Mine"}
        arguments["custom_objects"] = {"Mine": mine}
    made = target(config, **arguments)
    return [type(made).__name__, made(X)]


def l2_config(k: Any) -> Any:
    return {"module": "keras.regularizers", "class_name": "L2", "config": {"l2": 0.1}, "registered_name": None}


def settings_entry(module: str, setter: str, getter: str, argument: str, value: Any) -> Entry:
    """A setting: set, read, and set back."""

    def run(k: Any, target: Any, /, **arguments: Any) -> Any:
        read = getattr(home(k, module), getter)
        before = read()
        try:
            target(**arguments)
            return [before, read()]
        finally:
            target(before)

    return Entry(f"{module}.{setter}", run, {}, {argument: value})


def getter_entry(path: str) -> Entry:
    return Entry(path, lambda k, t, /: t())


OBJECTS = {"custom_objects": Try({}), "safe_mode": Try(False, effect=False)}
UTILS = [
    Entry("utils.set_random_seed", global_draws, {}, {"seed": 5}),
    Entry("utils.to_categorical", apply, {"num_classes": 5}, {"x": [0, 2, 1, 2]}),
    Entry("utils.normalize", apply, {"axis": Try(1, effect=False, why="the last"), "order": 1}, {"x": X}),
    *[Entry(f"{m}.clear_session", names_anew, {"free_memory": Try(False, effect=False)}) for m in ("utils", "backend")],
    *[
        Entry(
            f"utils.{name}",
            a_dataset,
            {
                "workers": 2,
                "use_multiprocessing": Try(True, run=lambda k, t, /, **a: dataset(k, **a).use_multiprocessing),
                "max_queue_size": 3,
            },
        )
        for name in ("PyDataset", "Sequence")
    ],
    *[
        Entry(f"{m}.{name}", scope, {}, {"custom_objects": None})
        for m in ("utils", "saving")
        for name in ("custom_object_scope", "CustomObjectScope")
    ],
    *[Entry(f"{m}.get_custom_objects", custom_known) for m in ("utils", "saving")],
    *[
        Entry(f"{m}.get_registered_name", lambda k, t, /, obj: t(obj), {}, {"obj": Of(lambda k: k.layers.Dense)})
        for m in ("utils", "saving")
    ],
    *[
        Entry(
            f"{m}.get_registered_object",
            lambda k, t, /, **a: getattr(t(**a), "__name__", None),
            {"custom_objects": Try({"it": np.ndarray}), "module_objects": Try({"it": np.ndarray})},
            {"name": "it"},
        )
        for m in ("utils", "saving")
    ],
    *[
        Entry(f"{m}.register_keras_serializable", registered, {"package": "Ours", "name": "It"})
        for m in ("utils", "saving")
    ],
    *[Entry(f"{m}.serialize_keras_object", object_form, {}, {"obj": Of(penalised)}) for m in ("utils", "saving")],
    *[
        Entry(f"{m}.deserialize_keras_object", object_back, OBJECTS, {"config": Of(l2_config)})
        for m in ("utils", "saving")
    ],
]

CONFIG = [
    *[getter_entry(f"{m}.{name}") for m in ("config", "backend") for name in ("epsilon", "floatx")],
    *[settings_entry(m, "set_floatx", "floatx", "value", "float32") for m in ("config", "backend")],
    *[settings_entry(m, "set_epsilon", "epsilon", "value", 1e-5) for m in ("config", "backend")],
]

DRAW = {"dtype": "float32", "seed": 5}
RANDOM = [
    Entry(
        "random.normal",
        apply,
        {"mean": 1.0, "stddev": 2.0, "dtype": Try("float32", given={"seed": 3}, effect=True), "seed": 5},
        {"shape": (3, 4)},
    ),
    Entry("random.truncated_normal", apply, {"mean": 1.0, "stddev": 2.0, **DRAW}, {"shape": (3, 4)}),
    Entry("random.uniform", apply, {"minval": -1.0, "maxval": 2.0, **DRAW}, {"shape": (3, 4)}),
    Entry("random.randint", apply, {"dtype": Try("int64"), "seed": 5}, {"shape": (3, 4), "minval": 0, "maxval": 9}),
    Entry("random.dropout", apply, {"noise_shape": Try((8, 1)), "seed": 5}, {"inputs": X, "rate": 0.5}),
    Entry(
        "random.SeedGenerator",
        lambda k, t, /, **a: [np.asarray((g := t(**a)).next()), np.asarray(g.next()), g.get_config()["seed"]],
        {"seed": 5, "name": Try(NAME, effect=False, why="names a variable")},
    ),
]


def estimated(k: Any, target: Any, /, **arguments: Any) -> Any:
    """Fitted: what its model predicts, or of a transformer what it makes of the data."""
    made = target(**arguments)
    made.fit(X, np.arange(8) % 2 if "Classifier" in target.__name__ else X[:, 1])
    if hasattr(made, "transform"):
        return made.transform(X)
    return made.model_.predict(X, verbose=0)


def estimator(k: Any) -> Any:
    def build(X: Any, y: Any, *, units: int = 5) -> Any:
        k.utils.set_random_seed(3)
        model = k.Sequential([k.Input(shape=(4,)), k.layers.Dense(units), k.layers.Dense(y.shape[1])])
        model.compile("sgd", "mse", run_eagerly=True)
        return model

    return build


WRAPPERS = [
    Entry(
        f"wrappers.{name}",
        estimated,
        {
            "warm_start": Try(True, effect=False, why="in Keras it changes no fit; here a second one goes on"),
            "model_kwargs": Try({"units": 3}),
            "fit_kwargs": Try({"epochs": 3, "verbose": 0}),
        },
        {"model": Of(estimator), "fit_kwargs": {"verbose": 0}},
    )
    for name in ("SKLearnClassifier", "SKLearnRegressor", "SKLearnTransformer")
]
SEEDS = [
    Entry(
        "SeedGenerator.next",
        lambda k, m, /, **a: [np.asarray(m.next(**a)), np.asarray(m.next())],
        {"ordered": Try(False, effect=None)},
        owner=lambda k: k.random.SeedGenerator(4),
    ),
    Entry("SeedGenerator.get_config", calls("get_config"), owner=lambda k: k.random.SeedGenerator(4)),
    Entry(
        "SeedGenerator.from_config",
        lambda k, m, /, **a: np.asarray(type(m).from_config(**a).next()),
        {},
        {"config": {"seed": 4}},
        owner=lambda k: k.random.SeedGenerator(4),
    ),
]
