"""Where a formula is written down: from the name that a check gives it to functions of ops.py and their lines."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidl import ops

_PLACES = ("layers", "optimizers", "losses", "metrics", "regularizers", "schedules", "training")
_BACKWARD = re.compile("backward|gradient")


@dataclass(frozen=True)
class Listing:
    """A function or a class: its name, its file, the number of its first line, its source."""

    name: str
    path: Path
    line: int
    source: str


def listings(formula: str) -> list[Listing]:
    """What a formula such as "ops.dense", "Adam", "Dense.backward", "losses.MeanSquaredError" stands for.

    The functions of ops.py of that name, or that the class or the method calls; of a class that calls none, itself.
    Of anything else nothing.
    """
    name, *method = re.sub(f"^({'|'.join(('ops', *_PLACES))})[.]", "", formula).split(".")
    for one in (name, _snake(name), f"{_snake(name)}_step"):
        if not method and inspect.isfunction(getattr(ops, one, None)):
            return [_listing(getattr(ops, one))]
    owner = next((found for found in map(lambda place: _found(place, name), _PLACES) if inspect.isclass(found)), None)
    if owner is None:
        return []
    if method == ["backward"]:
        return [one for one in _called(owner, "backward") or _called(owner) if _BACKWARD.search(one.name)]
    return [one for one in _called(owner) if not _BACKWARD.search(one.name)] or [_listing(owner)]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _found(place: str, name: str) -> Any:
    return getattr(importlib.import_module(f"minidl.{place}"), name, None)


def _listing(function: Any) -> Listing:
    lines, first = inspect.getsourcelines(function)
    return Listing(function.__name__, Path(inspect.getfile(function)), first, "".join(lines).rstrip())


def _called(owner: type, method: str | None = None) -> list[Listing]:
    """The functions of ops.py that a class, or its method, calls; where it calls none, those of its bases."""
    for base in owner.__mro__:
        part = base if method is None else base.__dict__.get(method)
        if part is None or not base.__module__.startswith("minidl."):
            continue
        names = dict.fromkeys(re.findall(r"\bops\.(\w+)", inspect.getsource(part)))
        functions = [getattr(ops, name, None) for name in names]
        found = [_listing(one) for one in functions if inspect.isfunction(one) and one.__module__ == ops.__name__]
        if found:
            return found
    return []
