"""Runs one experiment in live Keras and in minidl, and says what came of it.

An Entry is one public name of Keras: an experiment with it, and for each of its arguments settings other than the
default. The experiment is run twice in Keras, without and with the setting: the two must differ, or nothing would
show that an argument is ignored. Then it is run in minidl. What may come of it:

    supported   both ran, and their results agree
    refused     minidl raised an error that names the argument
    absent      minidl does not have the name

Anything else is a defect, and an error here.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minidl import config as minidl_config
from minidl import naming

SEED = 812

# All is in float64. A result is a sum of at most some hundred products, after at most eight steps of training whose
# Jacobian is below 10: 100 · 10 · u is 1e-13, and three roundings more in every term make 1e-12 a bound.
FLOAT64 = 1e-12
# Where float32 was asked for: the same with its u.
FLOAT32 = 1e-12 * 2.0**29

REFUSALS = (NotImplementedError, ValueError, TypeError)


class Of:
    """A value that is made of the library under test: Of(lambda k: k.regularizers.L2(0.1))."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make


@dataclass(frozen=True)
class Try:
    """One setting of an argument.

    given: other arguments that it needs to have an effect; without the setting they are given too.
    effect: whether it must change Keras's results; if not, `why` says why it cannot. None: it may.
    raises: Keras raises, and so must minidl. drop: required arguments that the setting takes the place of.
    label: how the page writes the value, where an argument has several settings. run: another experiment.
    """

    value: Any = None
    given: Mapping[str, Any] = field(default_factory=dict)
    effect: bool | None = True
    why: str = ""
    raises: bool = False
    drop: tuple[str, ...] = ()
    label: str = ""
    run: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Entry:
    """One public name: run(k, target, **arguments) -> what is compared; required: given in every run.

    arguments: name -> value, Of, Try, or a list of these. variadic: those that Keras takes by **kwargs.
    bound: of numbers. owner(k): the object of which the name is an attribute; run then takes it in the target's place.
    """

    path: str
    run: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    required: Mapping[str, Any] = field(default_factory=dict)
    variadic: tuple[str, ...] = ()
    owner: Callable[[Any], Any] | None = None
    bound: float = FLOAT64


@dataclass(frozen=True)
class Row:
    """What came of one setting. argument: None for the name itself. reason: of a refusal or a defect."""

    path: str
    argument: str | None
    label: str
    verdict: str
    reason: str = ""


class Missing(Exception):
    """minidl does not have the name."""


def settings(entry: Entry) -> list[tuple[str | None, Try]]:
    """(argument, setting) of all that is tried with a name; (None, …) is the name itself with its defaults."""
    found: list[tuple[str | None, Try]] = [(None, Try(effect=False))]
    for name, values in entry.arguments.items():
        for value in values if isinstance(values, list) else [values]:
            found.append((name, value if isinstance(value, Try) else Try(value)))
    return found


def resolve(k: Any, path: str) -> Any:
    """k.layers.Dense for "layers.Dense". Errors: Missing."""
    found = k
    for name in path.split("."):
        if not hasattr(found, name):
            raise Missing(path)
        found = getattr(found, name)
    return found


class Bench:
    """The two libraries, and the results in Keras that several settings share."""

    def __init__(self, keras: Any, minidl: Any) -> None:
        self.keras, self.minidl = keras, minidl
        self._plain: dict[Any, Any] = {}

    def row(self, entry: Entry, argument: str | None, trial: Try) -> Row:
        """Run one setting in both libraries."""

        def made(verdict: str, reason: str = "") -> Row:
            return Row(entry.path, argument, trial.label, verdict, reason)

        given = {**entry.required, **trial.given}
        kept = {name: value for name, value in given.items() if name not in trial.drop}
        arguments = kept if argument is None else {**kept, argument: trial.value}
        run = trial.run or entry.run
        expected = self.attempt(self.keras, entry, run, arguments)
        if isinstance(expected, Exception) != trial.raises:
            return made("defect", f"in Keras: {expected!r}")
        if argument is not None and not trial.raises:
            plain = self._without(entry, run, given)
            if isinstance(plain, Exception):
                return made("defect", f"in Keras, without it: {plain!r}")
            changed = difference(_results(plain), _results(expected)) is not None
            if trial.effect is not None and changed != trial.effect:
                return made("defect", "changes results in Keras" if changed else "changes nothing in Keras")
        got = self.attempt(self.minidl, entry, run, arguments)
        if isinstance(got, Missing):
            return made("absent")
        if isinstance(got, Exception):
            if trial.raises:
                return made("refused", "Keras refuses it too")
            if argument is None:
                refusal = isinstance(got, NotImplementedError) and str(got)
            else:
                named = re.search(rf"\b{argument}\b", str(got))
                refusal = isinstance(got, REFUSALS) and named and "unexpected keyword argument" not in str(got)
            if refusal:
                return made("refused", shortened(str(got)))
            return made("defect", f"{type(got).__name__}: {got}")
        if trial.raises:
            return made("defect", f"Keras raises {expected!r}, minidl does not")
        in_float32 = isinstance(trial.value, str) and trial.value == "float32"
        differs = difference(expected, got, bound=FLOAT32 if in_float32 else entry.bound)
        return made("supported", trial.why) if differs is None else made("defect", differs)

    def _without(self, entry: Entry, run: Callable[..., Any], given: dict[str, Any]) -> Any:
        key = (entry.path, run, tuple(sorted((name, id(value)) for name, value in given.items())))
        if key not in self._plain:
            self._plain[key] = self.attempt(self.keras, entry, run, given)
        return self._plain[key]

    def attempt(self, k: Any, entry: Entry, run: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """What the experiment returns in a fresh session, or the exception that it raised."""
        fresh(k, live=k is self.keras)
        printed = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            try:
                target = entry.owner(k) if entry.owner else resolve(k, entry.path)
                if entry.owner and not hasattr(target, entry.path.split(".")[-1]):
                    raise Missing(entry.path)
                values = {name: v.make(k) if isinstance(v, Of) else v for name, v in arguments.items()}
                with contextlib.chdir(folder):
                    return plain(run(k, target, **values))
            except Exception as error:
                return error


def fresh(k: Any, *, live: bool) -> None:
    """Names count anew, the global seed is SEED, floats have 64 bits."""
    if live:
        k.utils.clear_session(free_memory=False)
    else:
        naming.reset_names()
    k.config.set_floatx("float64")
    k.config.set_epsilon(1e-7)
    k.utils.set_random_seed(SEED)


@contextlib.contextmanager
def restored(keras: Any) -> Any:
    """Afterwards both libraries' settings are as before."""
    before, floatx = dict(vars(minidl_config)), keras.config.floatx()
    try:
        yield
    finally:
        vars(minidl_config).update(before)
        keras.config.set_floatx(floatx)
        keras.utils.clear_session(free_memory=False)
        naming.reset_names()


def plain(value: Any) -> Any:
    """Tensors and variables as NumPy arrays, tuples as lists, other objects as the name of their type."""
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return value
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return array if array.dtype != object else [plain(each) for each in array]
    if isinstance(value, Path):
        return value.as_posix()
    return type(value).__name__


def _results(outcome: Any) -> Any:
    """Without the config, which shows what was given, not what it does."""
    return {k: v for k, v in outcome.items() if k != "config"} if isinstance(outcome, dict) else outcome


def difference(expected: Any, got: Any, where: str = "", *, bound: float = FLOAT64) -> str | None:
    """Where two results differ, or None. Numbers may differ by rounding: see FLOAT64."""
    at = where or "the result"
    if isinstance(expected, np.ndarray) and isinstance(got, list) and "config" in where:
        got = np.asarray(got)  # a config is to be written as JSON
    numbers = (bool, int, float, np.ndarray)
    if any(
        isinstance(one, np.ndarray) and isinstance(other, numbers) for one, other in ((expected, got), (got, expected))
    ):
        a, b = np.asarray(expected), np.asarray(got)
        if a.shape != b.shape:
            return f"{at}: shape {a.shape} in Keras, {b.shape} here"
        if a.dtype != b.dtype and a.ndim:  # a single number may be Python's
            return f"{at}: {a.dtype} in Keras, {b.dtype} here"
        if a.dtype.kind != "f" or b.dtype.kind != "f":
            return None if np.array_equal(a, b) else f"{at}: {a} in Keras, {b} here"
        within = (FLOAT32 if a.dtype == np.float32 else bound) * max(1.0, np.abs(a[np.isfinite(a)]).max(initial=0.0))
        with np.errstate(invalid="ignore"):
            near = (np.abs(a - b) <= within) | (a == b) | (np.isnan(a) & np.isnan(b))
        return None if near.all() else f"{at}: {a.ravel()[:4]} in Keras, {b.ravel()[:4]} here, bound {within:.1g}"
    if where.endswith("['config']") and expected is None:
        return None  # Keras cannot write it
    if where.endswith("['config']") and isinstance(expected, dict) and isinstance(got, dict):
        # in any order, and with what Keras forgets to write, which it reads all the same
        got = {key: got[key] for key in expected if key in got}
        expected = {key: expected[key] for key in sorted(expected)}
        got = dict(sorted(got.items()))
    if isinstance(expected, dict) and isinstance(got, dict):
        if list(expected) != list(got):
            return f"{at}: keys {list(expected)} in Keras, {list(got)} here"
        found = (difference(expected[key], got[key], f"{where}[{key!r}]", bound=bound) for key in expected)
        return next((each for each in found if each), None)
    if isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            return f"{at}: {len(expected)} entries in Keras, {len(got)} here"
        pairs = enumerate(zip(expected, got, strict=True))
        return next((each for i, (a, b) in pairs if (each := difference(a, b, f"{where}[{i}]", bound=bound))), None)
    if _both_numbers(expected, got):
        return difference(np.float64(expected)[None], np.float64(got)[None], where, bound=bound)
    return None if type(expected) is type(got) and expected == got else f"{at}: {expected!r} in Keras, {got!r} here"


def _both_numbers(a: Any, b: Any) -> bool:
    return all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (a, b))


def shortened(message: str) -> str:
    """A refusal's reason in one line of a table."""
    text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(message.split()))
    text = re.sub(r"^.* is an argument of Keras that minidl does not support \((.*)\); leave it at .*$", r"\1", text)
    return text if len(text) <= 200 else text[:197] + "…"
