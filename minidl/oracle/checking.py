"""check: is what a compiled Keras model computes in its own fit right; record: the same training as steps, to keep."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import inspect
import json
import platform
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minidl import checks, config, models
from minidl.backend import Array
from minidl.oracle.drift import FreeRun
from minidl.oracle.judge import Judge, judge_start
from minidl.oracle.recorder import CannotCheck, Recorder, installed_keras
from minidl.oracle.report import Report
from minidl.oracle.steps import Fit, Step

Progress = Callable[[int, int], None]  # steps done, steps in all


def check(
    keras_model: Any,
    x: Any,
    y: Any,
    *,
    epochs: int = 1,
    batch_size: int = 32,
    sample_weight: Any = None,
    class_weight: dict[int, float] | None = None,
    shuffle: bool | str = True,
    validation_data: Any = None,
    seed: int | None = None,
    initial_weights: bool = False,
    steps: int | None = None,
    drift: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Train a compiled Keras model by its own fit, and judge every step of it.

    The model is trained as by keras_model.fit with the same arguments. seed: of keras.utils.set_random_seed before it,
    which on TensorFlow predicts the order of the rows; None finds out. initial_weights: the weights are as the
    initializers drew them, and are checked too. steps: stop after so many. drift: also let minidl train alone, twice,
    and note how far the weights drift apart, shown and not judged (see drift.py); not where masks cannot be predicted,
    those of a Dropout without a seed on torch. progress: called after each step with how many are done, and of how
    many. Ctrl-C ends the training and gives the report of the steps so far, with report.interrupted.

    Errors: CannotCheck for a model that minidl does not compute, naming the part; ValueError or TypeError for data that
    do not fit the model; ImportError without Keras.
    """
    run = _Run(keras_model, x, y, sample_weight, class_weight, epochs, batch_size, shuffle, validation_data, seed)
    report = Report(run.about)
    report.fit = fit = Fit(run.arguments, run.data)
    with run.settings():
        if initial_weights:
            fit.initializers = run.initializers()
            report.add(judge_start(run.initial_twin(), run.recorder.state().weights))
        judge = run.judge()
        free = FreeRun(run.another_twin(), run.another_twin()) if drift and run.recorder.noise_is_seeded else None

        def judged(step: Step) -> None:
            fit.start = fit.start or step.before
            report.add(judge.judge(step), step)
            if free is not None and step.x is not None:
                free.step(step)

        try:
            with _beside(judged) if run.backend != "torch" else contextlib.nullcontext(judged) as sink:
                run.fit(sink, steps, progress)
            if steps is None:
                report.add(judge.end(run.epochs))
        except KeyboardInterrupt:
            report.interrupted = True
    if free is not None and report.steps:
        report.add_drift(free.drift())
    return report


def record(
    keras_model: Any,
    x: Any,
    y: Any,
    sink: Callable[[Step], None],
    *,
    epochs: int = 1,
    batch_size: int = 32,
    sample_weight: Any = None,
    class_weight: dict[int, float] | None = None,
    shuffle: bool | str = True,
    validation_data: Any = None,
    seed: int | None = None,
    steps: int | None = None,
    progress: Progress | None = None,
    begin: Callable[[dict[str, Any], tuple[Array | None, ...]], None] | None = None,
) -> dict[str, Any]:
    """Train as check does, and hand each step to sink in place of judging it; returns what was recorded, in words.

    begin: called once before the first step with that, as Report's about, and the data (x, y, sample_weight) of the
    fit with the weights of classes. Errors: as check's.
    """
    run = _Run(keras_model, x, y, sample_weight, class_weight, epochs, batch_size, shuffle, validation_data, seed)
    run.about["whole"] = steps is None
    if begin is not None:
        begin(run.about, run.data)
    with run.settings():
        run.fit(sink, steps, progress)
    return run.about


@contextlib.contextmanager
def _beside(function: Callable[[Step], None]) -> Iterator[Callable[[Step], None]]:
    """Yields function as one that is called in a thread, in turn, and does not wait but for its call before.

    So a step is judged while Keras trains the next, and no more than these two are held. At the end the last call is
    waited for, after an error or Ctrl-C too; what a call raised, the next one raises, or the end. Not for torch: the
    judge has NumPy's products take one thread, and where torch's are of that library, so would they, in another order.
    """
    with concurrent.futures.ThreadPoolExecutor(1, "minidl judge") as thread:
        running: collections.deque[concurrent.futures.Future[None]] = collections.deque()

        def wait(left: int) -> None:
            while len(running) > left:
                running.popleft().result()

        def call(step: Step) -> None:
            running.append(thread.submit(function, step))
            wait(1)

        yield call
        wait(0)


class _Run:
    """One fit that is to be watched: its checked data, and minidl's model of the same configuration."""

    def __init__(
        self,
        model: Any,
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Any,
        epochs: int,
        batch_size: int,
        shuffle: bool | str,
        validation_data: Any,
        seed: int | None,
    ) -> None:
        self.keras = keras = installed_keras()
        if not isinstance(model, keras.Model):
            raise TypeError(f"check: expected a Keras model; got {type(model).__module__}.{type(model).__name__}.")
        if not model.compiled:
            raise ValueError(
                f"check: the model {model.name!r} is not compiled; call its compile(optimizer, loss) first."
            )
        self.epochs = checks.positive_int("check", "epochs", epochs)
        self.batch_size = checks.positive_int("check", "batch_size", batch_size)
        if shuffle not in (True, False, "batch"):
            raise ValueError(f"check: shuffle must be True, False or 'batch'; got {shuffle!r}.")
        if model.steps_per_execution != 1:
            raise CannotCheck(
                f"steps_per_execution={model.steps_per_execution}: steps are seen one by one; compile with 1."
            )
        if keras.config.max_steps_per_epoch():
            raise CannotCheck("keras.config.max_steps_per_epoch() cuts each epoch short: set it to None.")
        self.epochs = min(self.epochs, keras.config.max_epochs() or self.epochs)
        self.model, self.shuffle = model, shuffle
        self.backend: str = keras.backend.backend()
        self.dtype = keras.config.floatx()
        with self.settings():
            if not model.built:
                model.build(np.shape(x))
            self.twin = _made_again(self.keras, model)
            data = self.twin._checked(x, y, sample_weight, class_weight, check_finite=True)
        self.data: tuple[Array | None, ...] = data
        self.recorder = Recorder(keras, model, self.twin)
        if not self.recorder.inside and not self.recorder.noise_is_seeded:
            raise CannotCheck(
                "jit_compile=True on torch with a Dropout without a seed: its masks can neither be seen nor predicted. "
                "Give it a seed, or compile with jit_compile=False."
            )
        self.arguments = {
            "x": x, "y": y, "epochs": epochs, "batch_size": batch_size, "sample_weight": sample_weight,
            "class_weight": class_weight, "shuffle": shuffle, "validation_data": validation_data,
        }  # fmt: skip
        self.seed = self._global_seed() if seed is None else seed
        self.about = self._about()

    @contextlib.contextmanager
    def settings(self) -> Iterator[None]:
        """Inside, minidl has Keras's float type and the random numbers of its backend."""
        with settings_of(self.keras):
            yield

    def another_twin(self) -> Any:
        """A model of minidl's like the twin; its weights are others."""
        return _made_again(self.keras, self.model)

    def judge(self) -> Judge:
        """A judge of the fit. Errors: CannotCheck, naming it, for a part of the model that has no bound."""
        try:
            return Judge(self.twin, data=self.data, batch_size=self.batch_size, shuffle=self.shuffle, seed=self.seed)
        except NotImplementedError as error:
            raise CannotCheck(str(error)) from error

    def initial_twin(self) -> Any:
        """The twin with the weights that minidl draws from the seeds of the Keras model's initializers."""
        twin = self.another_twin()
        for layer, own in zip(self.recorder.layers, twin.flat_layers(), strict=True):
            for name, weight in own.parameters.items():
                theirs: Any = getattr(layer, f"{name}_initializer", None)
                initializer: Any = getattr(own, f"{name}_initializer", None)
                if initializer is None:
                    continue
                if hasattr(initializer, "seed"):
                    initializer.seed = theirs.seed
                weight[...] = initializer(weight.shape, weight.dtype.name)
        return twin

    def initializers(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """See Fit."""
        found = {}
        for layer, own in zip(self.recorder.layers, self.twin.flat_layers(), strict=True):
            for name, weight in own.parameters.items():
                theirs: Any = getattr(layer, f"{name}_initializer", None)
                described = self.keras.saving.serialize_keras_object(theirs)
                if theirs is not None and isinstance(described, dict):
                    if hasattr(theirs, "seed"):
                        described["config"]["seed"] = theirs.seed
                    found[f"{layer.name}/{name}"] = described, weight.shape
        return found

    def _global_seed(self) -> int | None:
        """The seed that TensorFlow was given, which the order of the rows depends on."""
        if self.backend != "tensorflow":
            return None
        from tensorflow.python.eager import context

        found = context.global_seed()
        return None if found is None else int(found)

    def _about(self) -> dict[str, Any]:
        versions = {"keras": self.keras.__version__}
        module = __import__(self.backend)
        versions |= {self.backend: module.__version__, "numpy": np.__version__, "python": platform.python_version()}
        assert self.data[0] is not None
        return {
            "versions": versions,
            "backend": self.backend,
            "mode": self.recorder.mode,
            "dtype": self.dtype,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "samples": len(self.data[0]),
            "model": described(self.model),
            "layers": [layer.name for layer in self.twin.flat_layers()],
        }

    def fit(self, sink: Callable[[Step], None], most_steps: int | None, progress: Progress | None) -> None:
        """Keras's fit, each step to sink."""
        assert self.data[0] is not None
        total = self.epochs * -(-len(self.data[0]) // self.batch_size)
        total = total if most_steps is None else min(total, most_steps)

        def noting(step: Step) -> None:
            sink(step)
            if progress is not None:
                progress(step.number + 1, total)

        self.recorder.fit(sink=noting, most_steps=most_steps, **self.arguments)


@contextlib.contextmanager
def settings_of(keras: Any) -> Iterator[None]:
    """Inside, minidl has the float type, the epsilon and the random numbers of a Keras."""
    before = config.floatx(), config.epsilon()
    config.set_floatx(keras.config.floatx())
    config.set_epsilon(keras.config.epsilon())
    try:
        with config.using_random_stream(keras.backend.backend()):
            yield
    finally:
        config.set_floatx(before[0])
        config.set_epsilon(before[1])


def twin_of(keras: Any, model: Any) -> Any:
    """minidl's model of a Keras model's configuration, compiled; its weights are others.

    Errors: CannotCheck, with the reason, for what minidl does not have.
    """
    with settings_of(keras):
        return _made_again(keras, model)


def _made_again(keras: Any, model: Any) -> Any:
    try:
        twin = models.model_from_json(json.dumps(described(model)))
        if not twin.built:
            twin.build(model.input_shape)
    except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
        raise CannotCheck(" ".join(str(error).split())) from error
    if not twin.compiled:
        raise CannotCheck("what the model was compiled with is not written in its configuration.")
    twin.jit_compile = keras.backend.backend() == "tensorflow" and bool(model.jit_compile)
    return twin


def described(model: Any) -> dict[str, Any]:
    """A Keras model's configuration, as keras.saving.serialize_keras_object writes it, with what Keras forgets.

    Of some losses and metrics it leaves out arguments, such as Huber's delta: these are taken from the living object.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a lambda Keras warns that it cannot be read again: its reader will say so
        found: dict[str, Any] = json.loads(model.to_json())
    _complete(found.get("compile_config"), model._compile_config.config)
    return found


def _complete(written: Any, living: Any) -> None:
    """Add to a configuration the arguments of a living loss or metric that are no defaults and are not written."""
    told = getattr(living, "_fn_kwargs", None)
    if isinstance(written, dict) and isinstance(written.get("config"), dict) and told is not None:
        for name, argument in inspect.signature(type(living).__init__).parameters.items():
            if name in told and name not in written["config"] and told[name] != argument.default:
                written["config"][name] = told[name]
    elif isinstance(written, dict) and isinstance(living, dict):
        for name in written.keys() & living.keys():
            _complete(written[name], living[name])
    elif isinstance(written, list) and isinstance(living, (list, tuple)):
        for one, other in zip(written, living, strict=True):
            _complete(one, other)
