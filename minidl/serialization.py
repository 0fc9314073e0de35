"""Objects as Keras writes them into JSON, {"module", "class_name", "config", "registered_name"}, and back.

Only classes of minidl's own are made from such a dict, or those that the caller hands over: by custom_objects, in a
custom_object_scope or by register_keras_serializable. A name in a file imports nothing, and code in one never runs.
"""

from __future__ import annotations

import contextlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from minidl.naming import unknown_name

_registered: dict[str, Any] = {}  # by register_keras_serializable and get_custom_objects(): "package>Name" -> object
_registered_names: dict[Any, str] = {}
_scopes: list[Mapping[str, Any]] = []  # of the custom_object_scope's that are open, the innermost last
_shared: list[dict[Any, Any]] = []  # of the sharing()'s that are open: see there


# ------------------------------------------------------------------------------------ objects of the caller's own


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable[[Any], Any]:
    """A decorator: the class or function is known to files from now on, as "package>Name".

    name: None takes the object's own. Errors: ValueError for a class without get_config.
    Source: keras.saving.register_keras_serializable.
    """

    def register(found: Any) -> Any:
        if inspect.isclass(found) and not hasattr(found, "get_config"):
            raise ValueError(f"register_keras_serializable: class {found.__name__} needs a get_config() method.")
        key = f"{package}>{name if name is not None else found.__name__}"
        _registered[key] = found
        _registered_names[found] = key
        return found

    return register


def get_custom_objects() -> dict[str, Any]:
    """The global dict of name -> class or function; what is written into it is known to files."""
    return _registered


def get_registered_name(obj: Any) -> str:
    """The "package>Name" that an object was registered under, else its own name."""
    return _registered_names.get(obj, obj.__name__)


def get_registered_object(
    name: str, custom_objects: Mapping[str, Any] | None = None, module_objects: Mapping[str, Any] | None = None
) -> Any:
    """The object of a name, looked up in the open scopes, the registry, custom_objects, module_objects; or None."""
    for known in (*reversed(_scopes), _registered, custom_objects or {}, module_objects or {}):
        if name in known:
            return known[name]
    return None


class CustomObjectScope:
    """with CustomObjectScope({"Mine": Mine}): files may name these. Source: keras.saving.CustomObjectScope."""

    def __init__(self, custom_objects: Mapping[str, Any] | None) -> None:
        self.custom_objects = custom_objects or {}

    def __enter__(self) -> CustomObjectScope:
        _scopes.append(self.custom_objects)
        return self

    def __exit__(self, *exception: object) -> None:
        _scopes.pop()


custom_object_scope = CustomObjectScope


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Inside, an object that is written twice is read as one: both dicts get one "shared_object_id"."""
    _shared.append({})
    try:
        yield
    finally:
        _shared.pop()


# ------------------------------------------------------------------------------------------------ into JSON


def serialize(found: Any, module: str) -> dict[str, Any]:
    """An object with get_config() as Keras's dict. module: where Keras has its class, "keras.regularizers".

    A class that is not minidl's is written with the module that defines it, for the reader's eyes, and the name that it
    is to be handed over by. Errors: TypeError for an object without get_config().
    """
    cls = type(found)
    if not hasattr(found, "get_config"):
        raise TypeError(f"{found!r} of type {cls.__name__} cannot be written: its class has no get_config().")
    own = cls.__module__.split(".")[0] == "minidl" and cls not in _registered_names
    written: dict[str, Any] = {
        "module": module if own else (None if cls.__module__ == "__main__" else cls.__module__),
        "class_name": cls.__name__,
        "config": plain(found.get_config()),
        "registered_name": None if own else get_registered_name(cls),
    }
    if _shared:
        first = _shared[-1].setdefault(id(found), written)
        if first is not written:
            first["shared_object_id"] = written["shared_object_id"] = id(found)
        _shared[-1].setdefault("alive", []).append(found)  # so that no other object gets its id
    return written


def serialize_function(function: Any) -> dict[str, Any]:
    """A function as Keras writes it: by its name alone. Errors: ValueError for a lambda, which has none."""
    name = get_registered_name(function)
    if name == "<lambda>":
        raise ValueError(
            "A lambda cannot be written: a file holds no code, and a lambda has no name to be found by. Define it as a "
            "function with def, and hand it over in custom_objects when the file is read."
        )
    return function_config(name)


def function_config(name: str) -> dict[str, Any]:
    """Keras's dict of a function of this name."""
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}


def plain(value: Any) -> Any:
    """value with arrays, NumPy's scalars and tuples as JSON has them: Keras's {"class_name": "__numpy__", …}, lists.

    Errors: TypeError for anything that JSON has no form for.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"class_name": "__numpy__", "config": {"value": value.tolist(), "dtype": value.dtype.name}}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, types.FunctionType):
        return serialize_function(value)
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written into JSON; give it a get_config().")


# ------------------------------------------------------------------------------------------------- and back


def is_function(config: Any) -> bool:
    """Whether config is the dict of a serialize_function()."""
    return isinstance(config, dict) and config.get("class_name") == "function"


def deserialize_function(
    what: str, config: Any, functions: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """The function of a serialize_function(): the caller's of that name, else that of functions, minidl's own.

    Errors: ValueError for a name that is neither.
    """
    name = config["config"] if isinstance(config, dict) else config
    if not isinstance(name, str):
        raise ValueError(f"The config of a function ({what}) is its name; got {name!r}.")
    found = get_registered_object(name, custom_objects, functions)
    if found is None:
        raise ValueError(f"{unknown_name(what, name, functions)} {_hand_over(name)}")
    return found


def deserialize(
    what: str, config: Any, classes: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """The object of a serialize(), Keras's too. what: "regularizer", …, for the errors.

    classes: name -> class with from_config, minidl's own. custom_objects: further ones of the caller's.
    Errors: ValueError for another form of config, code, or an unknown class, with the nearest names.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        raise ValueError(f"The {what}'s config has a class_name and a config; got {config!r}.")
    shared = config.get("shared_object_id")
    if _shared and isinstance(shared, int) and ("read", what, shared) in _shared[-1]:
        return _shared[-1]["read", what, shared]
    cls = _class_of(what, config, classes, custom_objects)
    arguments = config.get("config") or {}
    if not isinstance(arguments, dict):
        raise ValueError(f"{what} {config['class_name']}: config must be a dict of arguments; got {arguments!r}.")
    with CustomObjectScope(custom_objects):
        found = cls.from_config(arrays(arguments))
    if _shared and isinstance(shared, int):
        _shared[-1]["read", what, shared] = found
    return found


def _class_of(
    what: str, config: dict[str, Any], classes: Mapping[str, Any], custom_objects: Mapping[str, Any] | None
) -> Any:
    name, module = config["class_name"], config.get("module")
    if not isinstance(name, str):
        raise ValueError(f"The class_name of {what} must be a string; got {name!r}.")
    refuse_code(config)
    keras = module is None or (isinstance(module, str) and module.split(".")[0] == "keras")
    registered = config.get("registered_name") or (None if keras and name in classes else name)
    if isinstance(registered, str):
        for key in (registered, name):
            found = get_registered_object(key, custom_objects)
            if found is not None:
                if not hasattr(found, "from_config"):
                    raise ValueError(f"{what} {name}: the object handed over, {found!r}, has no from_config().")
                return found
    if keras and name in classes:
        return classes[name]
    if keras and not config.get("registered_name"):
        raise ValueError(f"{unknown_name(what, name, classes)} {_hand_over(name)}")
    raise ValueError(f"Unknown {what} {name!r} of module {module!r}: a file imports nothing. {_hand_over(name)}")


def _hand_over(name: str) -> str:
    return f"If it is your own, hand it over: custom_objects={{{name!r}: …}}."


def refuse_code(config: Mapping[str, Any]) -> None:
    """Raise ValueError if a dict holds code: Keras's Lambda layers and its dumped lambdas."""
    if config.get("class_name") in ("__lambda__", "Lambda"):
        raise ValueError(
            f"{config['class_name']}: the file holds code, and code in a file is never run, whatever safe_mode says. "
            f"Write it as a layer or a function of your own, and hand that over in custom_objects."
        )


def arrays(value: Any) -> Any:
    """The inverse of plain() for arrays, at any depth: {"class_name": "__numpy__" or "__tensor__", …} -> an array."""
    if isinstance(value, dict):
        if value.get("class_name") in ("__numpy__", "__tensor__"):
            inner = value.get("config")
            if not isinstance(inner, dict) or "value" not in inner:
                raise ValueError(f"An array in a config is {{'value': …, 'dtype': …}}; got {inner!r}.")
            found = np.array(inner["value"])
            if found.dtype.kind not in "fiub":
                raise ValueError(f"An array in a config must hold numbers; got dtype {found.dtype}.")
            dtype = inner.get("dtype", found.dtype.name)
            if dtype not in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"):
                raise ValueError(f"An array in a config has an unknown dtype {dtype!r}.")
            return found.astype(dtype)
        refuse_code(value)
        return {key: arrays(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [arrays(entry) for entry in value]
    return value
