"""Objects as Keras writes them into JSON, {"module", "class_name", "config", "registered_name"}, and back.

Only classes of minidl's own are made from such a dict, or those that the caller hands over: a name in a file never
imports anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minidl.naming import unknown_name


def serialize(found: Any, module: str) -> dict[str, Any]:
    """An object with get_config() as Keras's dict. module: where Keras has its class, "keras.regularizers"."""
    return {
        "module": module,
        "class_name": type(found).__name__,
        "config": found.get_config(),
        "registered_name": None,
    }


def deserialize(
    what: str, config: Any, classes: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """The object of a serialize(), Keras's too. what: "regularizer", …, for the errors.

    classes: name -> class with from_config, minidl's own. custom_objects: further ones of the caller's.
    Errors: ValueError for another form of config or an unknown class, with the nearest names.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        raise ValueError(f"The config of {what} is a dict with a class_name and a config; got {config!r}.")
    name = str(config["class_name"])
    known = {**classes, **(custom_objects or {})}
    if name not in known:
        raise ValueError(unknown_name(what, name, known))
    arguments = config.get("config") or {}
    if not isinstance(arguments, dict):
        raise ValueError(f"{what} {name}: config must be a dict of arguments; got {arguments!r}.")
    return known[name].from_config(arguments)
