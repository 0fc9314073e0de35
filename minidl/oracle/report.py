"""What the oracle says of a training: the verdict, the worst of each quantity and layer, and the first divergence.

Steps are added as they come and let go: a report keeps one Check for each tensor, the worst, and of the steps only the
one in which the first divergence lies.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from minidl.oracle.steps import BIT_EQUAL, DIVERGENT, NOT_OBSERVED, QUANTITIES, WITHIN_BOUND, Check, Element, Fit, Step
from minidl.saving.files import write_atomically

# From the mildest to the gravest: of several checks the gravest counts.
VERDICTS = (NOT_OBSERVED, BIT_EQUAL, WITHIN_BOUND, DIVERGENT)
FORMAT = 1  # of the JSON file
_FACTS = ("backend", "mode", "dtype", "epochs", "batch_size", "samples", "seed")
_WIDTH = 120  # columns of str(report)
WHAT = {
    "batch": "the rows of a batch",
    "mask": "a dropout mask or noise",
    "pre_activation": "a layer's pre-activations",
    "activation": "a layer's outputs",
    "loss": "the loss",
    "penalty": "a penalty",
    "metric": "a reported metric",
    "gradient": "a gradient",
    "slot": "an optimizer's slot",
    "weight": "a weight",
}


@dataclass
class Tally:
    """All checks of one tensor, over all steps: how many came to which verdict, and the worst of them.

    worst: the Check that is gravest, then of the largest share of its bound. ulps: the largest of any check.
    """

    quantity: str
    layer: str | None
    name: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    worst: Check | None = None
    ulps: float = 0.0

    @property
    def tensor(self) -> str:
        """The tensor's name with its layer's."""
        return self.name if self.layer is None else f"{self.layer}/{self.name}"

    @property
    def times(self) -> int:
        """How many checks there were."""
        return sum(self.counts.values())

    @property
    def verdict(self) -> str:
        """The gravest of all."""
        return next(verdict for verdict in reversed(VERDICTS) if self.counts[verdict] or verdict == NOT_OBSERVED)

    def add(self, check: Check) -> None:
        """Count a check."""
        self.counts[check.verdict] += 1
        self.ulps = max(self.ulps, check.ulps)
        if self.worst is None or _gravity(check) > _gravity(self.worst):
            self.worst = check


def _gravity(check: Check) -> tuple[int, float]:
    return VERDICTS.index(check.verdict), check.share


def gravest(tallies: Iterable[Tally]) -> Tally | None:
    """The tally whose worst check is the gravest; None of none."""
    return max(
        (tally for tally in tallies if tally.worst is not None),
        key=lambda tally: _gravity(tally.worst) if tally.worst is not None else (0, 0.0),
        default=None,
    )


@dataclass
class Divergence:
    """The first quantity that no order of rounding explains.

    quantity: of steps.QUANTITIES; layer: its name or None; name: of the tensor; step, epoch, batch: counted from 0,
    step −1 before the first; place: index of the worst element. got: what was computed there; expected: minidl's own;
    truth: the value in a wider type; bound: how far from it any order of rounding may lead; ulps: how far got is, in
    units in the last place; share: the same as a share of the bound. Of what is predicted, not computed, the bound
    is 0. inputs: what the element was computed from, as far as it was recorded. formula: the function of ops.py.
    elements: the worst of the tensor. recorded: the whole step. script: a program that shows it in the trainer alone,
    where one was made, and script_result, what came of running it.
    """

    quantity: str
    layer: str | None
    name: str
    step: int
    place: tuple[int, ...]
    expected: float | None
    got: float | None
    truth: float | None
    bound: float | None
    ulps: float
    share: float
    inputs: dict[str, Any]
    formula: str
    reason: str
    elements: list[Element]
    trainer: str = "Keras"
    recorded: Step | None = None
    script: str | None = None
    script_result: str = ""

    @classmethod
    def of(cls, check: Check, step: Step | None, layers: Sequence[str] = (), trainer: str = "Keras") -> Divergence:
        """From the check of a step. layers: the names in order, which tell what a layer's inputs were."""
        return cls(
            check.quantity, check.layer, check.name, check.step, check.place, check.expected, check.got, check.truth,
            check.bound, check.ulps, check.share, _inputs(check, step, layers), check.formula, check.reason,
            check.elements, trainer, step,
        )  # fmt: skip

    @property
    def epoch(self) -> int | None:
        """The epoch, counted from 0, where the step is known."""
        return None if self.recorded is None else self.recorded.epoch

    @property
    def batch(self) -> int | None:
        """The batch of the epoch, counted from 0, where the step is known."""
        return None if self.recorded is None else self.recorded.batch

    @property
    def tensor(self) -> str:
        """The tensor's name with its layer's: "dense/kernel"."""
        return self.name if self.layer is None else f"{self.layer}/{self.name}"

    @property
    def where(self) -> str:
        """The step in words."""
        if self.step < 0:
            return "before the first step"
        if self.recorded is None:
            return f"in step {self.step}"
        return f"in step {self.step} (epoch {self.recorded.epoch}, batch {self.recorded.batch})"

    @property
    def explanation(self) -> str:
        """What is wrong, in sentences."""
        place = f" at {self.place}" if self.place else ""
        text = f"{self.quantity} {self.tensor} diverges {self.where}: {self.reason}." if self.reason else ""
        text = text or f"{self.quantity} {self.tensor} diverges {self.where}."
        if self.got is None:
            return text
        if not self.bound:
            got, expected = number(self.got), number(self.expected)
            return f"{text} The first{place}: {self.trainer} {got}, expected {expected} to the bit."
        assert self.truth is not None
        return (
            f"{text} The worst{place}: {self.trainer} {number(self.got)}, minidl {number(self.expected)}, "
            f"true value {number(self.truth)}. Any order of rounding stays within {self.bound:.3g} of the true "
            f"value; this is {abs(self.got - self.truth):.3g} away, {self.share:,.3g} times the bound "
            f"({ulps_text(self.ulps)} ULPs). What it was computed from is right: it was judged on the recorded inputs."
        )


def _inputs(check: Check, step: Step | None, layers: Sequence[str]) -> dict[str, Any]:
    """What the worst element was computed from: what the check says, and what the step holds of it."""
    found = dict(check.inputs)
    if step is None or not (check.place or check.quantity in ("loss", "metric")):
        return found
    place, key = check.place, f"{check.layer}/{check.name.rpartition('/')[2]}"
    weights, gradients = step.before.weights, step.gradients or {}

    def note(name: str, values: Any, at: Any) -> None:
        if values is not None and (at is None or np.ndim(values) == len(at)):
            found.setdefault(name, np.asarray(values) if at is None else np.asarray(values)[at])

    if check.quantity == "pre_activation":
        note("kernel", weights.get(f"{check.layer}/kernel"), (slice(None), place[-1]))
        note("bias", weights.get(f"{check.layer}/bias"), (place[-1],))
    elif check.quantity == "activation":
        note("noise", (step.noise or {}).get(str(check.layer)), place)
    elif check.quantity in ("loss", "metric"):
        outputs = (step.activations or {}).get(layers[-1]) if layers else None
        for name, values in (("y", step.y), ("outputs", outputs), ("sample_weight", step.sample_weight)):
            note(name, values, None)
    elif check.quantity in ("gradient", "slot", "weight"):
        note("weight before", weights.get(key), place)
        if check.quantity == "gradient":
            at = list(layers).index(check.layer or "") if check.layer in layers else -1
            inputs = step.x if at == 0 else (step.activations or {}).get(layers[at - 1]) if at > 0 else None
            if check.name == "kernel":
                note("inputs", inputs, (slice(None), place[0]))
            return found
        note("gradient", gradients.get(key), place)
        for slot, tensors in step.before.slots.items():
            note(f"{slot} before", tensors.get(key), place)
        if check.quantity == "weight":
            for slot, tensors in step.after.slots.items():
                note(f"{slot} after", tensors.get(key), place)
        found |= {"learning rate": step.before.learning_rate, "iterations before": step.before.iterations}
    return found


def number(value: float | None) -> str:
    """With as many digits as tell float32 numbers apart."""
    return "–" if value is None else f"{value:.9g}"


def ulps_text(ulps: float) -> str:
    """Short: 0, 0.50, 12, 3.4e+05, ∞."""
    if math.isinf(ulps) or math.isnan(ulps):
        return "∞"
    return f"{ulps:.2f}" if 0 < ulps < 10 else f"{ulps:,.0f}" if ulps < 10_000 else f"{ulps:.1e}"


class Report:
    """The verdict on one training.

    about: versions (dict), backend, mode ("graph", "eager", "xla" or "jit"), dtype, epochs, batch_size, seed, samples,
    model (its config), layers (names in order); what is missing is not shown.
    ok: whether something was judged and nothing diverges. interrupted: whether the training was broken off. fit: what
    was trained, where it can be begun anew.
    """

    def __init__(self, about: dict[str, Any] | None = None) -> None:
        self.about = dict(about or {})
        self.tallies: dict[tuple[str, str | None, str], Tally] = {}
        self.steps = 0
        self.interrupted = False
        self.drifts: list[Any] = []
        self.first_divergence: Divergence | None = None
        self.fit: Fit | None = None
        self._first: tuple[int, int, int] | None = None

    # --------------------------------------------------------------------------------------- filling

    def add(self, checks: Iterable[Check], step: Step | None = None) -> None:
        """Take in the checks of one step, in the judge's order: forward from the first layer, gradients from the last.

        step: the step, kept if the first divergence lies in it; None for what was judged before training.
        """
        self.steps += step is not None
        for number, check in enumerate(checks):
            key = check.quantity, check.layer, check.name
            tally = self.tallies.get(key)
            if tally is None:
                tally = self.tallies[key] = Tally(*key)
            tally.add(check)
            if check.verdict == DIVERGENT:
                place = check.step, QUANTITIES.index(check.quantity), number
                if self._first is None or place < self._first:
                    self._first, self.first_divergence = (
                        place,
                        Divergence.of(check, step, self.about.get("layers") or (), self.trainer),
                    )

    def add_drift(self, drift: Any) -> None:
        """Take in the drift of a free run."""
        self.drifts.append(drift)

    # --------------------------------------------------------------------------------------- reading

    @property
    def counts(self) -> dict[str, int]:
        """Checks by verdict."""
        return {verdict: sum(tally.counts[verdict] for tally in self.tallies.values()) for verdict in VERDICTS}

    @property
    def ok(self) -> bool:
        """Whether something was judged and nothing diverges."""
        counts = self.counts
        return not counts[DIVERGENT] and counts[BIT_EQUAL] + counts[WITHIN_BOUND] > 0

    @property
    def layers(self) -> list[str | None]:
        """The layers' names in order, None last for what belongs to none."""
        found = list(self.about.get("layers") or [])
        named = {layer for _, layer, _ in self.tallies}
        known: list[str | None] = [layer for layer in found if layer in named]
        known += [
            layer for layer in dict.fromkeys(layer for _, layer, _ in self.tallies) if layer not in {*found, None}
        ]
        return [*known, None] if None in named else known

    @property
    def quantities(self) -> list[str]:
        """The quantities that occur, in order."""
        found = {quantity for quantity, _, _ in self.tallies}
        return [quantity for quantity in QUANTITIES if quantity in found]

    def cell(self, quantity: str | None, layer: Any = ...) -> list[Tally]:
        """The tallies of a quantity, of one layer; of all quantities if None, of all layers if left out."""
        return [
            tally
            for tally in self.tallies.values()
            if quantity in (None, tally.quantity) and (layer is ... or layer == tally.layer)
        ]

    def ordered(self) -> list[Tally]:
        """All tallies, in the order of quantities and layers."""
        return [one for quantity in self.quantities for layer in self.layers for one in self.cell(quantity, layer)]

    @property
    def trainer(self) -> str:
        """Whose training it is: Keras, unless about says otherwise."""
        return str(self.about.get("trainer", "Keras"))

    @property
    def sentence(self) -> str:
        """Why the verdict is what it is."""
        counts, first = self.counts, self.first_divergence
        steps = f"{self.steps:,} step{'s' * (self.steps != 1)}{' before it was interrupted' * self.interrupted}"
        if first is not None:
            return f"The {first.quantity} {first.tensor} {first.where} is not what any order of rounding leads to."
        if not self.ok:
            return f"No tensor was observed in {steps}."
        if not counts[WITHIN_BOUND]:
            return f"All {counts[BIT_EQUAL]:,} tensors of {steps} are, bit for bit, what minidl computes."
        observed = counts[BIT_EQUAL] + counts[WITHIN_BOUND]
        return (
            f"All {observed:,} tensors of {steps} are what rounding explains: "
            f"{counts[BIT_EQUAL]:,} bit-equal, {counts[WITHIN_BOUND]:,} within their bounds."
        )

    @property
    def verdict(self) -> str:
        """In one line."""
        word = "Right" if self.ok else "Divergent" if self.first_divergence else "Nothing judged"
        return f"{word}: {self.sentence[0].lower()}{self.sentence[1:]}"

    # ---------------------------------------------------------------------------------------- terminal

    def __rich__(self) -> Any:
        """The verdict and a row for each quantity, for rich's console."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("quantity", no_wrap=True)
        for heading in ("bit-equal", "in bound", "divergent", "not seen", "ULPs", "of bound"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("worst tensor", overflow="fold")
        table.add_column("step", justify="right", no_wrap=True)
        for quantity in self.quantities:
            tallies = self.cell(quantity)
            counts = {verdict: sum(tally.counts[verdict] for tally in tallies) for verdict in VERDICTS}
            worst = gravest(tallies)
            assert worst is not None and worst.worst is not None
            observed = worst.verdict != NOT_OBSERVED
            check = worst.worst
            table.add_row(
                quantity,
                *(f"{counts[v]:,}" if counts[v] else "·" for v in (BIT_EQUAL, WITHIN_BOUND, DIVERGENT, NOT_OBSERVED)),
                ulps_text(max(tally.ulps for tally in tallies)) if observed else "",
                share_text(check.share) if observed else "",
                (_tensor(check) if check.share else "") if observed else check.reason,
                str(check.step) if observed and check.share else "",
                style="red" if worst.verdict == DIVERGENT else "dim" if not observed else "",
            )
        colour = "bold green" if self.ok else "bold red"
        lines: list[Any] = [Text(self.verdict, style=colour), Text(" · ".join(self.facts), style="dim"), table]
        lines += [Text(remark, style="dim") for remark in self.remarks]
        if self.first_divergence is not None:
            lines.append(Text(self.first_divergence.explanation))
        return Group(*lines)

    def __str__(self) -> str:
        """The terminal's table, without colours."""
        return plain_text(self)

    def __repr__(self) -> str:
        return f"<Report: {self.verdict}>"

    @property
    def facts(self) -> list[str]:
        """What was checked, in short."""
        about = self.about
        found = [f"{name} {version}" for name, version in (about.get("versions") or {}).items()]
        found += [f"{name.replace('_', ' ')} {about[name]}" for name in _FACTS if about.get(name) is not None]
        return found

    @property
    def remarks(self) -> list[str]:
        """What was not predicted, and why."""
        orders = [tally.worst for tally in self.cell("batch") if tally.name == "order"]
        return [f"The order of the rows is {check.reason}." for check in orders if check is not None]

    @property
    def minidl_version(self) -> str:
        """That which judged."""
        return minidl.__version__

    # -------------------------------------------------------------------------------------------- files

    def to_dict(self) -> dict[str, Any]:
        """All that the report holds but the tensors, as JSON knows it: what is not finite as "NaN", "Infinity"."""
        first = self.first_divergence
        return plain(
            {
                "format": FORMAT,
                "ok": self.ok,
                "verdict": self.verdict,
                "interrupted": self.interrupted,
                "steps": self.steps,
                "counts": self.counts,
                "about": self.about,
                "first_divergence": None if first is None else _divergence_dict(first),
                "tensors": [_tally_dict(tally) for tally in self.tallies.values()],
            }
        )

    def to_json(self, path: str | Path | None = None) -> str:
        """The report as JSON; path: a file to write it to, whole or not at all."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        if path is not None:
            write_atomically(path, text.encode() + b"\n")
        return text

    def to_html(self, path: str | Path | None = None) -> str:
        """The report as one HTML page that needs nothing else; path: a file to write it to, whole or not at all.

        Errors: ImportError, naming the extra, without jinja2.
        """
        from minidl.oracle.page import html

        text = html(self)
        if path is not None:
            write_atomically(path, text.encode())
        return text


def plain_text(shown: Any) -> str:
    """What rich shows, as text without colours."""
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=_WIDTH, color_system=None, highlight=False).print(shown)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _tensor(check: Check) -> str:
    return check.name if check.layer is None else f"{check.layer}/{check.name}"


def share_text(share: float) -> str:
    """A share of a bound: 12 %, 0.3 %; beyond it as a multiple."""
    if not math.isfinite(share):
        return "∞"
    if share > 1:
        return f"{share:,.1f} ×" if share < 1e5 else f"{share:.1e} ×"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _divergence_dict(first: Divergence) -> dict[str, Any]:
    names = ("quantity", "layer", "name", "step", "epoch", "batch", "place", "expected", "got", "truth", "bound",
             "ulps", "share", "inputs", "formula", "reason", "explanation")  # fmt: skip
    return {name: getattr(first, name) for name in names}


def _tally_dict(tally: Tally) -> dict[str, Any]:
    worst = tally.worst
    return {
        "quantity": tally.quantity,
        "layer": tally.layer,
        "name": tally.name,
        "verdict": tally.verdict,
        "counts": tally.counts,
        "ulps": tally.ulps,
        "share": 0.0 if worst is None else worst.share,
        "own_share": 0.0 if worst is None else worst.own_share,
        "worst_step": None if worst is None else worst.step,
        "reason": "" if worst is None else worst.reason,
    }


def plain(value: Any) -> Any:
    """As JSON knows it: arrays as lists, numbers of NumPy as Python's, what is not finite as a string."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
