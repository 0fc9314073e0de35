"""Models and all they are made of as Keras's JSON, and back; the objects' own parts are in their modules."""

from __future__ import annotations

import datetime
import types
from collections.abc import Mapping
from typing import Any

from minidl import (
    activations,
    constraints,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
    schedules,
    serialization,
)
from minidl.layers import Layer
from minidl.saving.state import walk

KERAS_VERSION = "3.15.1"  # the one whose form is written
MODELS: dict[str, Any] = {}  # class name -> class: models.py, which imports this module, enters its own here
_MOST_LAYERS = 2_000
_MOST_THRESHOLDS = 1_000_000
_BY_MODULE: dict[str, Any] = {
    "keras.activations": activations,
    "keras.constraints": constraints,
    "keras.initializers": initializers,
    "keras.layers": layers,
    "keras.losses": losses,
    "keras.metrics": metrics,
    "keras.optimizers": optimizers,
    "keras.optimizers.schedules": schedules,
    "keras.regularizers": regularizers,
}
_BASES: tuple[tuple[type, Any], ...] = (
    (losses.Loss, losses),
    (metrics.Metric, metrics),
    (optimizers.Optimizer, optimizers),
    (schedules.LearningRateSchedule, schedules),
    (regularizers.Regularizer, regularizers),
    (constraints.Constraint, constraints),
    (initializers.Initializer, initializers),
    (activations.Activation, activations),
    (Layer, layers),
)


def metadata() -> dict[str, str]:
    """metadata.json: whose form the file has, and the time, as Keras writes them."""
    now = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    return {"keras_version": KERAS_VERSION, "date_saved": now}


def check_metadata(found: dict[str, Any]) -> None:
    """Raise ValueError for a file that is not of Keras 3."""
    version = found.get("keras_version")
    if not isinstance(version, str) or not version.startswith("3."):
        raise ValueError(f"written by Keras {version!r}; load it in Keras 3 and save it there")


# --------------------------------------------------------------------------------------------- models


def is_model(found: Any) -> bool:
    """Whether found is a model."""
    return isinstance(found, tuple(MODELS.values()))


def serialize_layer(layer: Layer) -> dict[str, Any]:
    """A layer, or a model within a model, as Keras's dict."""
    return serialize_model(layer) if is_model(layer) else layers.serialize(layer)


def serialize_model(model: Any) -> dict[str, Any]:
    """A model as Keras's dict: architecture, the shape that it is built for, what it was compiled with."""
    written = serialization.serialize(model, model.keras_module)
    if model.keras_module != "keras" and written["registered_name"] is None:
        written["registered_name"] = written["class_name"]  # as Keras writes what is not in its public namespace
    build_config = model.get_build_config()
    if build_config is not None:
        written["build_config"] = build_config
    written["compile_config"] = model.get_compile_config()
    return written


def deserialize_layer(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Layer:
    """The layer, or the model, of a serialize_layer(), not compiled. Errors: ValueError."""
    if isinstance(config, dict) and config.get("class_name") in MODELS:
        found = serialization.deserialize("model", config, MODELS, custom_objects)
    else:
        found = layers.deserialize(config, dict(custom_objects or {}))
    if not isinstance(found, Layer):
        raise ValueError(f"expected a layer; {config.get('class_name')!r} is {type(found).__name__}")
    return found


def deserialize_model(
    config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None, *, compile: bool = True
) -> Any:
    """The model of a serialize_model(), Keras's too. Errors: ValueError for anything but a model."""
    check_sizes(config)
    with serialization.sharing(), serialization.CustomObjectScope(custom_objects):
        found: Any = deserialize_layer(config)
        if not is_model(found):
            raise ValueError(f"this is the config of {config.get('class_name')!r}, not of a model")
        compile_config = config.get("compile_config")
        if compile and compile_config:
            _compile(found, compile_config)
    return found


def _compile(model: Any, config: Any) -> None:
    try:
        model.compile_from_config(config)
    except Exception as error:
        raise ValueError(
            f"what the model was compiled with cannot be made again: {str(error).rstrip('.')}. With compile=False the "
            f"model is loaded without it"
        ) from error


def check_sizes(config: Any) -> None:
    """Raise ValueError for more layers, or thresholds of a metric, than anyone means."""
    waiting, count = [config], 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            many = value.get("num_thresholds")
            if isinstance(many, (int, float)) and many > _MOST_THRESHOLDS:
                raise ValueError(f"num_thresholds={many!r} is more than {_MOST_THRESHOLDS:,}")
            if isinstance(value.get("layers"), list):
                count += len(value["layers"])
            if count > _MOST_LAYERS:
                raise ValueError(f"more than {_MOST_LAYERS:,} layers")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def custom_objects_of(model: Any) -> dict[str, Any]:
    """All classes and functions in a model that are not minidl's, by the names that a file has for them."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    waiting: list[Any] = [model]
    for _, layer in walk(model):
        waiting.append(layer)
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (types.FunctionType, type)):
            if value.__module__.split(".")[0] != "minidl":
                found[serialization.get_registered_name(value)] = value
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, activations.Activation):
            if serialization.is_function(activations.serialize(value)):
                found[value.name] = value
        elif isinstance(value, tuple(base for base, _ in _BASES)):
            waiting += [type(value), *vars(value).values()]
    return found


# ---------------------------------------------------------------------------------------- any object


def serialize_keras_object(obj: Any) -> Any:
    """Any of minidl's objects as Keras's dict; numbers, strings, lists and dicts as they are, arrays as theirs.

    Errors: TypeError or ValueError for what cannot be written. Source: keras.saving.serialize_keras_object.
    """
    if is_model(obj):
        return serialize_model(obj)
    for base, module in _BASES:
        if isinstance(obj, base):
            return module.serialize(obj)
    if isinstance(obj, (list, tuple)):
        return [serialize_keras_object(entry) for entry in obj]
    if isinstance(obj, dict):
        return {key: serialize_keras_object(value) for key, value in obj.items()}
    if hasattr(obj, "get_config"):
        return serialization.serialize(obj, type(obj).__module__)
    return serialization.plain(obj)


def deserialize_keras_object(
    config: Any, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True
) -> Any:
    """What serialize_keras_object, or Keras's, wrote.

    custom_objects: name -> class or function of your own. safe_mode: True; code in a file is never run.
    Errors: ValueError for an unknown class, or code; NotImplementedError for safe_mode=False.
    """
    refuse_unsafe("deserialize_keras_object", safe_mode)
    return _deserialized(config, custom_objects)


def _deserialized(config: Any, custom_objects: Mapping[str, Any] | None) -> Any:
    if isinstance(config, (list, tuple)):
        return [_deserialized(entry, custom_objects) for entry in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") in ("__numpy__", "__tensor__"):
        return serialization.arrays(config)
    if "class_name" not in config or "config" not in config:
        return {key: _deserialized(value, custom_objects) for key, value in config.items()}
    if config["class_name"] in MODELS:
        return deserialize_model(config, custom_objects)
    if serialization.is_function(config):
        known = {**losses.FUNCTIONS, **metrics.FUNCTIONS}
        return serialization.deserialize_function("function", config, known, custom_objects)
    module = _BY_MODULE.get(str(config.get("module")))
    if module is not None:
        with serialization.CustomObjectScope(custom_objects):
            return module.deserialize(config)
    return serialization.deserialize("object", config, {}, custom_objects)


def refuse_unsafe(where: str, safe_mode: Any) -> None:
    """Raise NotImplementedError for safe_mode=False."""
    if not safe_mode:
        raise NotImplementedError(
            f"{where}: safe_mode=False asks to run code from the file, which minidl never does. Hand your own classes "
            f"and functions over in custom_objects."
        )
