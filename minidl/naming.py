"""Names as Keras makes them (dense, dense_1, …), and the nearest names for an unknown one."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable

_uses: collections.Counter[str] = collections.Counter()


def to_snake_case(name: str) -> str:
    """BinaryCrossentropy -> binary_crossentropy, L1L2 -> l1l2, as keras.src.utils.naming.to_snake_case."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def auto_name(class_name: str) -> str:
    """The name of the next object of a class: dense, dense_1, dense_2, … until reset_names()."""
    name = to_snake_case(class_name)
    count = _uses[name]
    _uses[name] += 1
    return name if count == 0 else f"{name}_{count}"


def reset_names() -> None:
    """Start counting anew, as keras.utils.clear_session does."""
    _uses.clear()


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """The message for an unknown name: what was expected, what came, and the nearest of the known names."""
    import difflib  # slow to import, and seldom needed

    known = sorted(known)
    nearest = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    listed = f" Known: {', '.join(known)}." if known else ""
    return f"Unknown {what}: {name!r}.{hint}{listed}"
