"""Two recorded trainings side by side: where their bits first part, and whether either is beyond its bound there.

Up to the first difference both computed on the same numbers, so the bounds of that step hold for both.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.oracle.report import number, plain, plain_text, share_text, ulps_text
from minidl.oracle.steps import DIVERGENT, NOT_OBSERVED, QUANTITIES, Check, Step
from minidl.oracle.tracefile import Trace, TraceError, flat, flat_state, judged, judging
from minidl.saving.files import write_atomically

_QUANTITY = {
    "x": "batch",
    "y": "batch",
    "sample_weight": "batch",
    "noise": "mask",
    "pre_activations": "pre_activation",
    "activations": "activation",
    "data_loss": "loss",
    "loss": "loss",
    "penalties": "penalty",
    "logs": "metric",
    "gradients": "gradient",
    "seeds": "mask",
    "slots": "slot",
    "weights": "weight",
}


@dataclass
class Parted:
    """The first tensor that differs. key: as in the trace; a, b: the values at the worst place; checks: of both."""

    quantity: str
    key: str
    step: int
    differing: int
    size: int
    place: tuple[int, ...]
    a: float
    b: float
    checks: tuple[Check | None, Check | None] = (None, None)


@dataclass
class Difference:
    """Two traces compared. first: None where every bit is equal. tensors: quantity -> (compared, differing).

    largest: quantity -> the largest |a − b| over the largest |a| of a tensor, over all steps. unlike: what could not be
    compared, such as a tensor that one has not. steps: compared. ok: whether all bits are equal, or neither is beyond
    its bound where they part.
    """

    about: tuple[dict[str, Any], dict[str, Any]]
    names: tuple[str, str]
    first: Parted | None = None
    steps: int = 0
    tensors: dict[str, tuple[int, int]] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    unlike: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether rounding explains the difference, and there was something to compare."""
        if self.first is None:
            return self.steps > 0 and not self.unlike
        checks = [check for check in self.first.checks if check is not None and check.verdict != NOT_OBSERVED]
        return bool(checks) and not any(check.verdict == DIVERGENT for check in checks)

    @property
    def verdict(self) -> str:
        """In one line."""
        steps = f"{self.steps:,} step{'s' * (self.steps != 1)}"
        if self.first is None and self.unlike:
            return f"Not comparable in all: what both have is equal to the bit in {steps}, but {self.unlike[0]}."
        if self.first is None:
            return f"Equal to the bit: all tensors of {steps}." if self.steps else "Nothing to compare: no steps."
        where = f"first at {self.first.quantity} {self.first.key}, step {self.first.step}"
        word = "which rounding explains" if self.ok else "which rounding does not explain"
        if not any(self.first.checks):
            word = "of which nothing is known but that"
        return f"Different: {where}, {word}."

    def __rich__(self) -> Any:
        """The verdict, the first difference, and a row for each quantity."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        lines: list[Any] = [Text(self.verdict, style="bold green" if self.ok else "bold red")]
        for name, about in zip(self.names, self.about, strict=True):
            versions = (about.get("versions") or {}).items()
            facts = [f"{key} {version}" for key, version in versions] + [str(about.get("mode", ""))]
            lines.append(Text(f"{name}: {' · '.join(fact for fact in facts if fact)}", style="dim"))
        if self.first is not None:
            lines.append(Text(self.explanation))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("quantity", no_wrap=True)
        for heading in ("compared", "different", "largest relative difference"):
            table.add_column(heading, justify="right")
        for quantity in (quantity for quantity in QUANTITIES if quantity in self.tensors):
            compared, differing = self.tensors[quantity]
            largest = f"{self.largest[quantity]:.2g}" if differing else "·"
            table.add_row(quantity, f"{compared:,}", f"{differing:,}" if differing else "·", largest)
        return Group(*lines, table, *(Text(f"Not compared: {what}.", style="dim") for what in self.unlike[:10]))

    def __str__(self) -> str:
        """The terminal's table, without colours."""
        return plain_text(self)

    @property
    def explanation(self) -> str:
        """The first difference in words."""
        first = self.first
        if first is None:
            return ""
        text = (
            f"{first.differing:,} of {first.size:,} numbers of {first.key} differ in step {first.step}; everything "
            f"before is equal to the bit. The farthest apart at {list(first.place)}: {number(first.a)} and "
            f"{number(first.b)}."
        )
        for name, check in zip(self.names, first.checks, strict=True):
            if check is None or check.verdict == NOT_OBSERVED:
                text += f" {name} could not be judged{'' if check is None else ': ' + check.reason}."
            else:
                share = f", {share_text(check.share)} of the bound" if np.isfinite(check.share) else ""
                text += f" {name}: {check.verdict}, {ulps_text(check.ulps)} ULPs{share}."
        return text

    def to_json(self, path: str | Path | None = None) -> str:
        """As JSON; path: a file to write it to, whole or not at all."""
        found = {**dataclasses.asdict(self), "ok": self.ok, "verdict": self.verdict, "explanation": self.explanation}
        text = json.dumps(plain(found), indent=1, allow_nan=False)
        if path is not None:
            write_atomically(path, text.encode() + b"\n")
        return text


def diff(a: str | Path, b: str | Path) -> Difference:
    """Compare two traces of one model and data, step by step.

    Errors: FileNotFoundError; TraceError for a file that is no trace, and for traces of different models.
    """
    with Trace(a) as one, Trace(b) as other:
        names = str(a), str(b)
        difference = Difference((one.about, other.about), names)
        if _architecture(one) != _architecture(other):
            raise TraceError(f"{a} and {b} are traces of different models, so they cannot be compared.")
        if one.count != other.count:
            difference.unlike.append(f"{a} has {one.count} steps and {b} has {other.count}")
        for step, twin in zip(one.steps(), other.steps(), strict=False):
            difference.steps += 1
            _compare(difference, (one, other), step, twin)
        return difference


def _architecture(trace: Trace) -> Any:
    """The model's configuration but for what names versions, backends and modes."""
    loose = ("jit_compile", "run_eagerly", "steps_per_execution", "auto_scale_loss", "name", "build_config", "module")

    def stripped(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: stripped(value) for key, value in found.items() if key not in loose}
        return [stripped(one) for one in found] if isinstance(found, list) else found

    return stripped(trace.about.get("model"))


def _compare(difference: Difference, traces: tuple[Trace, Trace], step: Step, twin: Step) -> None:
    found, others = ({**flat_state("before", one.before), **flat(one)} for one in (step, twin))
    for key in [*found, *(key for key in others if key not in found)]:
        if key not in found or key not in others:
            name = difference.names[key in found]
            _note_once(difference.unlike, f"{name} has no {key} in step {step.number}")
    parted = []
    for key in found.keys() & others.keys():
        one, other = found[key], others[key]
        quantity = quantity_of(key)
        if one.shape != other.shape:
            raise TraceError(f"step {step.number}: {key} has the shapes {one.shape} and {other.shape}.")
        differs = _differs(one, other)
        compared, differing = difference.tensors.get(quantity, (0, 0))
        difference.tensors[quantity] = compared + 1, differing + bool(differs.any())
        if differs.any():
            distance = _distances(one, other)
            scale = float(np.abs(one.astype(np.float64)).max()) or 1.0
            largest = float(distance.max()) / scale
            difference.largest[quantity] = max(difference.largest.get(quantity, 0.0), largest)
            parted.append((_order(key), key, differs, distance))
    if parted and difference.first is None:
        order = {key: at for at, key in enumerate(found)}
        _, key, differs, distance = min(parted, key=lambda one: (one[0], order[one[1]] * _direction(one[1])))
        place = tuple(int(i) for i in np.unravel_index(np.argmax(distance), distance.shape))
        values = float(found[key][place]), float(others[key][place])
        first = Parted(quantity_of(key), key, step.number, int(differs.sum()), differs.size, place, *values)
        difference.first = first
        first.checks = tuple(_judged(traces[i], key, one) for i, one in enumerate((step, twin)))  # type: ignore[assignment]


def _note_once(found: list[str], what: str) -> None:
    kind = what.rpartition(" in step ")[0]
    if not any(one.startswith(kind) for one in found):
        found.append(what)


def _differs(one: Array, other: Array) -> Array:
    both_nan = np.isnan(one) & np.isnan(other) if one.dtype.kind == other.dtype.kind == "f" else False
    return np.asarray((one != other) & ~np.asarray(both_nan))


def _distances(one: Array, other: Array) -> Array:
    with np.errstate(invalid="ignore"):
        distance = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return np.where(np.isnan(distance), np.where(_differs(one, other), np.inf, 0), distance)


def quantity_of(key: str) -> str:
    """The quantity that a tensor of a trace belongs to."""
    kind, _, rest = key.partition("/")
    return _QUANTITY[rest.partition("/")[0] if kind in ("before", "after") else kind]


def _order(key: str) -> tuple[int, int]:
    """What comes first in a step: the state before it, then the quantities in order; the loss with its penalties."""
    if key.startswith("before/"):
        return 0, 0
    if key == "loss":
        return 1, 2 * QUANTITIES.index("penalty") + 1
    return 1, 2 * QUANTITIES.index(quantity_of(key))


def _direction(key: str) -> int:
    """Gradients come from the last layer to the first, all else from the first to the last."""
    return -1 if key.startswith("gradients/") else 1


def _judged(trace: Trace, key: str, step: Step) -> Check | None:
    """The check of one tensor of a step, by its trace's own judge; None where there is none."""
    if key.startswith("before/"):
        return None
    try:
        with judging(trace) as judge:
            for earlier in _until(trace, step):
                checks = judged(trace, judge, earlier)
    except (NotImplementedError, TraceError):
        return None
    penalties = [check for check in checks if check.quantity == "penalty"]
    if key.startswith("penalties/"):
        return penalties[int(key.partition("/")[2])]
    return next((check for check in checks if check.quantity != "penalty" and _key(check) == key), None)


def _until(trace: Trace, step: Step) -> Iterator[Step]:
    """The steps up to one: of the running metrics all since the epoch's first are needed."""
    for one in trace.steps():
        if one.epoch == step.epoch or one.number == step.number:
            yield one
        if one.number == step.number:
            return


def _key(check: Check) -> str:
    """What a trace calls the tensor of a check."""
    layer, name = check.layer, check.name
    if check.quantity == "slot" and layer is not None:
        slot, _, weight = name.partition("/")
        return f"after/slots/{slot}/{layer}/{weight}"
    return {
        "batch": name,
        "mask": f"after/seeds/{layer}" if name == "counter" else f"noise/{layer}",
        "pre_activation": f"pre_activations/{layer}",
        "activation": f"activations/{layer}",
        "loss": name,
        "metric": f"logs/{name}",
        "gradient": f"gradients/{layer}/{name}",
        "slot": f"after/slots/{name}",
        "weight": f"after/weights/{layer}/{name}",
    }[check.quantity]
