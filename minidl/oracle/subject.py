"""What to check: a Keras model from a file or from a function of the user's own, and data for it, given or made up."""

from __future__ import annotations

import contextlib
import importlib
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from minidl import losses
from minidl.backend import Array
from minidl.oracle.checking import check, record, twin_of
from minidl.oracle.recorder import CannotCheck, installed_keras
from minidl.oracle.report import Report
from minidl.oracle.tracefile import TraceWriter

Data = tuple[Array, Array, Array | None]  # x, y, sample_weight


class Training:
    """A fit to be watched, as the command line describes it.

    spec: see load. data: see read_data; None: synthetic rows are made up. seed: keras.utils.set_random_seed is called
    with it before the model is made. jit, eager: as compile's jit_compile and run_eagerly.
    Errors: as load's and read_data's; ImportError without Keras, or with another backend than backend.
    """

    def __init__(
        self,
        spec: str,
        *,
        data: str | Path | None = None,
        synthetic: int = 256,
        backend: str | None = None,
        jit: bool = False,
        eager: bool = False,
        seed: int = 0,
    ) -> None:
        if jit and eager:
            raise ValueError("a step is either compiled, --jit, or run eagerly, --eager.")
        given = None if data is None else read_data(data)
        self.keras = installed_keras(backend)
        self.keras.utils.set_random_seed(seed)
        self.seed = seed
        self.model = load(self.keras, spec)
        if jit or eager:
            self.model.jit_compile, self.model.run_eagerly = jit, eager
        self.data = given if given is not None else synthetic_data(twin_of(self.keras, self.model), synthetic, seed)

    def check(self, **arguments: Any) -> Report:
        """See checking.check."""
        x, y, sample_weight = self.data
        return check(self.model, x, y, sample_weight=sample_weight, seed=self.seed, **arguments)

    def record(self, path: str | Path, **arguments: Any) -> int:
        """Write the training to a trace, which appears whole or not at all; returns the number of steps."""
        x, y, sample_weight = self.data
        with contextlib.ExitStack() as stack:
            writer: TraceWriter

            def begin(about: dict[str, Any], data: tuple[Any, ...]) -> None:
                nonlocal writer
                writer = stack.enter_context(TraceWriter(path, about, data))

            record(
                self.model, x, y, lambda step: writer.add(step), begin=begin, seed=self.seed,
                sample_weight=sample_weight, **arguments,
            )  # fmt: skip
        return len(writer.steps)


def load(keras: Any, spec: str) -> Any:
    """The compiled Keras model that MODEL stands for: a .keras file, or module:function, called without arguments.

    Errors: FileNotFoundError; ValueError for what is neither, is no model or is not compiled; ImportError; whatever
    the user's function raises.
    """
    module, colon, function = spec.rpartition(":")
    if colon and not Path(spec).exists():
        model = _built_by(module, function)
    elif not Path(spec).is_file():
        raise FileNotFoundError(f"{spec}: no such file. MODEL is a .keras file, or module:function.")
    else:
        try:
            model = keras.models.load_model(spec)
        except Exception as error:  # keras.saving raises every kind for a damaged file
            raise ValueError(f"{spec}: Keras cannot load it: {_in_one_line(error)}") from error
    if not isinstance(model, keras.Model):
        raise ValueError(f"{spec}: expected a Keras model; got {type(model).__module__}.{type(model).__name__}.")
    if not model.compiled:
        raise ValueError(f"{spec}: the model is not compiled; call its compile(optimizer, loss) first.")
    return model


def _built_by(module: str, function: str) -> Any:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        build = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ImportError(f"{module}:{function}: {error}. MODEL is a .keras file, or module:function.") from error
    except AttributeError as error:
        raise ValueError(f"{module}:{function}: the module {module} has no {function}.") from error
    return build()


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def read_data(path: str | Path) -> Data:
    """x, y and sample_weight, if it is there, of an .npz file. Errors: FileNotFoundError; ValueError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file. Data are an .npz file with x, y and, if wanted, sample_weight.")
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            names = list(file.files)
            arrays = {name: file[name] for name in ("x", "y", "sample_weight") if name in names}
    except (ValueError, EOFError, OSError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not an .npz file of plain arrays: {_in_one_line(error)}") from error
    missing = [name for name in ("x", "y") if name not in arrays]
    if missing:
        raise ValueError(f"{path}: expected arrays x and y; it holds {', '.join(names) or 'nothing'}.")
    return arrays["x"], arrays["y"], arrays.get("sample_weight")


def synthetic_data(twin: Any, samples: int, seed: int = 0) -> Data:
    """Normal inputs, and labels that fit the outputs and the loss of a minidl model of the same configuration.

    Classes for a cross-entropy, counts for Poisson, shares for what takes a logarithm of them, else normal numbers.
    Errors: CannotCheck for a model whose input has an open size.
    """
    shape = twin.input_shape[1:]
    if None in shape:
        raise CannotCheck(f"the model's input {twin.input_shape} has an open size: pass data for it.")
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, *shape)).astype("float32")
    outputs = twin.compute_output_shape(x.shape)
    units, loss = outputs[-1], twin.loss
    if loss.sparse:
        return x, rng.integers(0, units, outputs[:-1]), None
    if isinstance(loss, (losses.CategoricalCrossentropy, losses.CategoricalFocalCrossentropy)):
        return x, np.eye(units, dtype="float32")[rng.integers(0, units, outputs[:-1])], None
    if isinstance(loss, (losses.BinaryCrossentropy, losses.BinaryFocalCrossentropy, losses.Hinge, losses.SquaredHinge)):
        return x, rng.integers(0, 2, outputs).astype("float32"), None
    if isinstance(loss, losses.Poisson):
        return x, rng.poisson(2.0, outputs).astype("float32"), None
    if isinstance(loss, (losses.KLDivergence, losses.MeanSquaredLogarithmicError)):
        return x, rng.uniform(0.05, 1.0, outputs).astype("float32"), None
    return x, rng.normal(size=outputs).astype("float32"), None
