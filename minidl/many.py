"""fit_many: one model trained from many seeds, on a GPU all at once.

    def build():
        model = minidl.Sequential([…])
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        return model

    found = many.fit_many(build, x, y, seeds=range(100), epochs=300)
    found.history["loss"]  # (100, 300)
    found.models[7].predict(x)

A seed's result is that of set_random_seed(seed), build() and fit. On the CPU it is just that, seed after seed. On a GPU
kernels/train_step.cu trains each seed's model in a block of its own, all epochs in one launch. That is for models that
fit the memory which a block has to itself, a few thousand parameters; Plan says what else they must be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import activations, checks, config, cuda, losses, metrics, ops, random, training
from minidl.backend import Array
from minidl.batches import ArrayBatches, yields_batches
from minidl.callbacks import Callback, History
from minidl.layers import Dense, Dropout
from minidl.on_device import ACTIVATIONS, SOFTMAX, of_layer, of_optimizer
from minidl.trainer import Trainer
from minidl.utils import random_seed_within

KERNEL = "train_epochs"
DEVICES = ("auto", "cpu", "gpu")
# As in kernels/train_step.cu.
DENSE, DROPOUT = 0, 1
BINARY_CROSSENTROPY, SQUARED_ERROR, CATEGORICAL_CROSSENTROPY, ABSOLUTE_ERROR = 0, 1, 2, 3
ERRORS = {losses.MeanSquaredError: SQUARED_ERROR, losses.MeanAbsoluteError: ABSOLUTE_ERROR}
MOST_STAGES = 16
STATIC_SHARED = 3072  # bytes, at most, beside what Plan.shared_bytes counts
MOST_THREADS = 256

# launch(kernel, grid, block, arguments, shared): runs a kernel on NumPy arrays, in whose memory its results are then.
Launch = Callable[[str, int, int, Sequence[Any], int], None]


class DoesNotFitError(ValueError):
    """A model that kernels/train_step.cu cannot train: what of it, and what would do."""


@dataclass(frozen=True)
class FittedMany:
    """What fit_many returns. seeds: (S,); models: each seed's, trained; history: name -> (S, epochs), as fit's."""

    seeds: tuple[int, ...]
    models: list[Any]
    history: dict[str, Array]

    @property
    def weights(self) -> Array:
        """All weights of each model, flat, (S, parameters): a copy, in the order of get_weights()."""
        return np.stack([model.arena.theta for model in self.models])


def fit_many(
    build: Callable[[], Any],
    x: Any,
    y: Any,
    *,
    seeds: Iterable[int],
    epochs: int = 1,
    batch_size: int | None = None,
    validation_data: Any = None,
    shuffle: bool | str = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    watch: dict[str, tuple[Any, Any]] | None = None,
    device: str = "auto",
    check_finite: bool = True,
) -> FittedMany:
    """Train a model from each of the seeds: what set_random_seed(seed), build() and its fit give, for all of them.

    build: makes and compiles a new model; called once a seed. The other arguments: as fit's; validation_data is (x, y)
    or (x, y, sample_weight).
    watch: data to look at after each epoch, name -> (x, y): the history has the loss of this data at inference without
    penalties as name_loss and, of binary cross-entropy, as name_accuracy the share of outputs on the right side of 0.5.
    device: "gpu" trains all models at once in one launch of kernels/train_step.cu, "cpu" one after the other by fit,
    "auto" on a GPU if one answers and the model is one that the kernel knows. The GPU's sums are taken in another order
    than NumPy's, so that the two agree to rounding, as two runs of Keras on two machines do; each repeats its own bits.
    The global seeds are afterwards as they were.

    Errors: ValueError or TypeError for arguments and data that do not fit, as fit; with "gpu" DoesNotFitError, which
    names what the kernel does not know or has no room for, and ImportError or cuda.DeviceError where there is no GPU;
    FloatingPointError, naming the seed, if a loss becomes NaN or infinite.
    """
    if device not in DEVICES:
        raise ValueError(f"fit_many: device must be one of {', '.join(map(repr, DEVICES))}; got {device!r}.")
    if not callable(build) or isinstance(build, Trainer):
        raise TypeError(f"fit_many: build must be a function that makes a compiled model; got {build!r}.")
    chosen = _checked_seeds(seeds)
    checks.non_negative_int("fit_many", "epochs", epochs)
    _check_watch(watch)
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "validation_data": validation_data,
        "shuffle": shuffle,
        "class_weight": class_weight,
        "sample_weight": sample_weight,
        "check_finite": check_finite,
    }
    if device == "gpu" or (device == "auto" and cuda.unavailable() is None):
        try:
            return fit_in_one_launch(build, x, y, seeds=chosen, launch=launch_on_device, watch=watch, **settings)
        except DoesNotFitError:
            if device == "gpu":
                raise
    models: list[Any] = []
    watched = []
    for seed in chosen:
        watched.append(_Watch(watch or {}, batch_size, check_finite))
        models.append(_fit(build, x, y, seed, settings | {"callbacks": [watched[-1]]}, models))
    records = [model.history.history | seen.history for model, seen in zip(models, watched, strict=True)]
    return FittedMany(chosen, models, {name: np.array([record[name] for record in records]) for name in records[0]})


class _Watch(Callback):
    """The losses and accuracies of fit_many's watch."""

    def __init__(self, watch: dict[str, tuple[Any, Any]], batch_size: int | None, check_finite: bool) -> None:
        super().__init__()
        self._watch, self._settings = watch, (batch_size, check_finite)
        self._data: dict[str, Any] = {}
        self.history: dict[str, list[float]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self._data = {name: _watched(self.model, *pair, *self._settings) for name, pair in self._watch.items()}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        model = self.model
        for name, data in self._data.items():
            outputs = training.forward(model, data.x, training=False)
            found = {f"{name}_loss": float(training.data_loss(model, data.y, outputs, None))}
            if type(model.loss) is losses.BinaryCrossentropy:
                found[f"{name}_accuracy"] = float(ops.binary_accuracy(data.y, outputs).mean())
            for key, value in found.items():
                self.history.setdefault(key, []).append(value)


def _watched(model: Any, x: Any, y: Any, batch_size: int | None, check_finite: bool) -> Any:
    """Data to watch, checked. Errors: as fit's."""
    return model._batches("fit", x, y, None, None, batch_size, None, None, check_finite)


def _check_watch(watch: Any) -> None:
    for name, pair in ({} if watch is None else dict(watch)).items():
        is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2 and not yields_batches(pair[0])
        if not isinstance(name, str) or name in ("", "val") or not is_pair:
            raise ValueError(
                f"fit_many: watch must map names to (x, y), arrays, as {{'train': (x, y)}}, and none is 'val', which "
                f"is validation_data's; got {name!r}: {type(pair).__name__}."
            )


def _checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    try:
        found = tuple(seeds)
    except TypeError:
        raise TypeError(f"fit_many: seeds must be integers, such as range(100); got {seeds!r}.") from None
    if not found:
        raise ValueError("fit_many: there must be at least one seed; got none.")
    return tuple(checks.non_negative_int("fit_many", "each seed", seed) for seed in found)


def _fit(build: Callable[[], Any], x: Any, y: Any, seed: int, settings: dict[str, Any], earlier: Sequence[Any]) -> Any:
    with random_seed_within(seed):
        model = _built(build, earlier)
        try:
            model.fit(x, y, verbose=0, **settings)
        except FloatingPointError as error:
            raise FloatingPointError(f"seed {seed}: {error}") from None
    return model


def _built(build: Callable[[], Any], earlier: Sequence[Any]) -> Any:
    model = build()
    if any(model is other for other in earlier):
        raise ValueError("fit_many: build must make a new model each time it is called; it returned one twice.")
    if not isinstance(model, Trainer) or not model.compiled:
        raise TypeError(f"fit_many: build must return a compiled model of minidl; got {model!r}.")
    return model


# ------------------------------------------------------------------------------------- what the kernel is told


@dataclass(frozen=True)
class Plan:
    """A model as kernels/train_step.cu has it: the arguments that are the same for every seed.

    numbers, settings: a row for each stage, see the kernel's header. units: of the last one. drawing: which of the
    model's seed states move on. rate: what the learning rates are made of, in words. clipvalue: 0 for none.
    """

    dtype: str
    features: int
    units: int
    numbers: tuple[tuple[int, ...], ...]
    settings: tuple[tuple[float, ...], ...]
    drawing: tuple[bool, ...]
    loss: int
    sparse: bool
    prediction: int
    accuracy: str | None
    threshold: float
    adam: tuple[float, ...]
    amsgrad: bool
    clipvalue: float
    rate: str
    xla: bool

    @classmethod
    def of(cls, model: Any) -> Plan:
        """The plan of a compiled and built model. Errors: DoesNotFitError, naming what the kernel does not know."""
        dropouts = _dropouts(model)
        layers = [layer for layer in model.flat_layers() if type(layer) is not Dropout or layer in dropouts]
        for layer in layers:
            softmax = (activations.softmax,) if layer is layers[-1] else ()  # computed with the loss
            unknown = of_layer(layer, (Dense, Dropout), (*ACTIVATIONS, *softmax))
            if unknown is not None:
                raise _unknown(unknown, "is not supported there")
        if not layers or type(layers[-1]) is not Dense:
            raise _unknown(f"model {model.name!r}", "must end in a Dense layer")
        if len({id(layer) for layer in layers}) < len(layers):
            raise _unknown(f"model {model.name!r}", "has a layer twice")
        if len(layers) > MOST_STAGES:
            raise _unknown(f"model {model.name!r}", f"has {len(layers)} layers, more than {MOST_STAGES}")
        if len(model.input_shape) != 2:
            raise _unknown(f"model {model.name!r}", f"has inputs of shape {model.input_shape}, not (None, features)")
        if model.dtype not in ("float32", "float64") or model.dtype != config.floatx():
            raise _unknown(f"model {model.name!r}", f"is of {model.dtype}, not of floatx(), {config.floatx()}")
        if not config.random_stream().startswith("tensorflow"):
            raise _unknown(f"the random stream {config.random_stream()!r}", "is not TensorFlow's")
        loss, prediction = _loss_of(model, layers[-1])
        accuracy, threshold = _accuracy_of(model, loss)
        unknown = of_optimizer(model.optimizer) or _norm_of(model.optimizer)
        if unknown is not None:
            raise _unknown(unknown, "is not supported there")
        if training.runs_own_code(model):
            raise _unknown(f"model {model.name!r}", "runs Python code of its own in a step")
        rows: list[tuple[int, ...]] = []
        for layer in layers:
            below = rows[-1][1] if rows else model.input_shape[-1]
            rows.append(_numbers(layer, below, logits=layer is layers[-1] and loss not in ERRORS.values()))
        optimizer = model.optimizer
        optimizer.build(model.arena)
        return cls(
            dtype=model.dtype,
            features=model.input_shape[-1],
            units=layers[-1].units,
            numbers=tuple(rows),
            settings=tuple(map(_settings, layers, _decays(optimizer, layers))),
            drawing=tuple(layer.rate < 1 for layer in dropouts),
            loss=loss,
            sparse=model.loss.sparse,
            prediction=prediction,
            accuracy=accuracy,
            threshold=threshold,
            adam=(1.0 - optimizer.beta_1, 1.0 - optimizer.beta_2, optimizer.epsilon),
            amsgrad=optimizer.amsgrad,
            clipvalue=optimizer.clipvalue or 0.0,
            rate=f"{optimizer.get_config()['learning_rate']} from step {optimizer.iterations} on",
            xla=model.jit_compile or config.random_stream() == "tensorflow-xla",
        )

    def labels(self, y: Array) -> Array:
        """y as the kernel takes it, (samples, U): of class numbers a 1 for each."""
        if self.sparse:
            return np.eye(self.units, dtype=self.dtype)[y.reshape(-1).astype(np.intp)]
        return np.ascontiguousarray(y)

    def shared_bytes(self, batch_size: int, *, weighted: bool = False) -> int:
        """What a block's own memory must hold: of each Dense layer θ, m and v, and a batch on its way through.

        weighted: whether the samples have weights.
        """
        inputs, elements = self.features, batch_size * (self.features + 2 * self.units + weighted)
        for kind, units, _, bias in self.numbers:
            elements += 2 * batch_size * units
            if kind == DENSE:
                elements += (inputs + bias) * ((units | 1) + (3 if self.amsgrad else 2) * units)
            inputs = units
        return elements * np.dtype(self.dtype).itemsize

    def threads(self, batch_size: int, parameters: int) -> int:
        """Of a block: one for each number of the widest step, in whole warps."""
        widest = max(parameters, batch_size * max(units for _, units, *_ in self.numbers))
        return min(MOST_THREADS, -(-widest // 32) * 32)


def _dropouts(model: Any) -> list[Any]:
    """The Dropout layers that drop something."""
    return [layer for layer in model.flat_layers() if type(layer) is Dropout and layer.rate > 0]


def _unknown(what: str, problem: str) -> DoesNotFitError:
    return DoesNotFitError(
        f"fit_many on the GPU: {what} {problem}. The kernel trains Dense layers and Dropout with Adam or AdamW on "
        f"binary or categorical cross-entropy or mse; device='cpu' trains any model."
    )


def _norm_of(optimizer: Any) -> str | None:
    """A norm that the optimizer clips by, which is known only when all gradients are: the kernel stores none."""
    for name in ("clipnorm", "global_clipnorm"):
        if getattr(optimizer, name) is not None:
            return f"{name}={getattr(optimizer, name)!r} of the optimizer {type(optimizer).__name__}"
    return None


def _numbers(layer: Any, below: int, *, logits: bool) -> tuple[int, ...]:
    """A stage's row of numbers, on that many units. logits: its activation is left to the loss."""
    if type(layer) is Dropout:
        return DROPOUT, below, 0, 0
    activation = activations.linear if logits else layer.activation
    return DENSE, layer.units, ACTIVATIONS[activation], int(layer.use_bias)


def _settings(layer: Any, decays: Sequence[float]) -> tuple[float, ...]:
    """A stage's row of settings: the factors as regularizers.py rounds them, and those of the decay."""
    if type(layer) is Dropout:
        return layer.rate, 0.0, 0.0, 0.0, 0.0, 0.0
    penalties = [layer.regularizers.get(name) for name in ("kernel", "bias")]
    factors = (float(np.float32(getattr(of, name, 0.0))) for of in penalties for name in ("l1", "l2"))
    return (*factors, *decays)


def _decays(optimizer: Any, layers: Sequence[Any]) -> list[tuple[float, ...]]:
    """Of each layer the weight decay of its kernel and of its bias, as ops.weight_decay_step rounds it; 0 for none."""
    decay = float(np.float32(optimizer.weight_decay or 0.0))
    decays = iter(optimizer.decays)  # in the arena's order
    return [
        tuple(decay if name in layer.parameters and next(decays) else 0.0 for name in ("kernel", "bias"))
        for layer in layers
    ]


def _loss_of(model: Any, last: Any) -> tuple[int, int]:
    """The kernel's loss, and the activation that makes predictions of the last stage's outputs."""
    loss, activation = model.loss, last.activation
    plain = loss.reduction in ("sum_over_batch_size", "mean") and loss.dtype == model.dtype
    if not plain or model.loss_weight is not None:
        raise _unknown(f"the loss {loss.name!r}", "has a reduction, a dtype or a weight of its own")
    if type(loss) in ERRORS and activation in ACTIVATIONS:
        return ERRORS[type(loss)], ACTIVATIONS[activations.linear]
    code, inner, prediction = {
        losses.BinaryCrossentropy: (BINARY_CROSSENTROPY, activations.sigmoid, ACTIVATIONS[activations.sigmoid]),
        losses.CategoricalCrossentropy: (CATEGORICAL_CROSSENTROPY, activations.softmax, SOFTMAX),
        losses.SparseCategoricalCrossentropy: (CATEGORICAL_CROSSENTROPY, activations.softmax, SOFTMAX),
    }.get(type(loss), (None, None, 0))
    if code is None:
        raise _unknown(f"the loss {loss.name!r}", f"on {activation.name} is not a cross-entropy, mse or mae")
    if getattr(loss, "label_smoothing", 0) or loss.axis != -1 or getattr(loss, "ignore_class", None) is not None:
        raise _unknown(f"the loss {loss.name!r}", "smooths labels, ignores a class or has an axis")
    if activation is inner and not loss.from_logits:
        return code, prediction
    if activation is activations.linear and loss.from_logits:
        return code, ACTIVATIONS[activations.linear]
    raise _unknown(
        f"the loss {loss.name!r}",
        f"with from_logits={loss.from_logits} is not computed from logits on top of {activation.name}",
    )


def _accuracy_of(model: Any, loss: int) -> tuple[str | None, float]:
    """The name and the threshold of the one metric that the kernel knows."""
    found = model.compiled_metrics
    if not found:
        return None, 0.5
    categorical = metrics.SparseCategoricalAccuracy if model.loss.sparse else metrics.CategoricalAccuracy
    kind = categorical if loss == CATEGORICAL_CROSSENTROPY else metrics.BinaryAccuracy
    if len(found) > 1 or type(found[0]) is not kind or model.weighted_count:
        raise _unknown(
            f"the metrics {', '.join(repr(metric.name) for metric in found)}",
            f"are not one {kind.__name__}, unweighted",
        )
    return found[0].name, getattr(found[0], "threshold", 0.5)


# ------------------------------------------------------------------------------------------- the launch


def fit_in_one_launch(
    build: Callable[[], Any],
    x: Any,
    y: Any,
    *,
    seeds: tuple[int, ...],
    epochs: int,
    batch_size: int | None,
    validation_data: Any,
    shuffle: bool | str,
    check_finite: bool,
    launch: Launch,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    watch: dict[str, tuple[Any, Any]] | None = None,
) -> FittedMany:
    """fit_many by kernels/train_step.cu, wherever launch runs it. Errors: as fit_many's."""
    models: list[Any] = []
    orders: list[Array] = []
    data: Any = None
    held_out: list[Any] = []
    plan: Plan | None = None
    for seed in seeds:
        with random_seed_within(seed):
            model = _built(build, models)
            # checks the data, builds the model
            data = model._batches("fit", x, y, sample_weight, class_weight, batch_size, None, shuffle, check_finite)
            if not isinstance(data, ArrayBatches) or data.later is not None:
                raise DoesNotFitError("fit_many on the GPU: x must be an array, not what yields batches.")
            held_out = (
                [] if validation_data is None else [model._validation(validation_data, batch_size, None, check_finite)]
            )
            held_out += [_watched(model, *pair, batch_size, check_finite) for pair in (watch or {}).values()]
            found = Plan.of(model)
            if plan not in (None, found):
                raise ValueError("fit_many: build must make models that differ in their random numbers alone.")
            if watch and found.threshold != 0.5:
                raise DoesNotFitError("fit_many on the GPU: with watch, accuracies are counted at a threshold of 0.5.")
            plan = found
            # TensorFlow's order, which is the same in every epoch
            orders.append(random.epoch_order(data.samples, data.batch_size, shuffle))
            models.append(model)
    assert plan is not None and data is not None
    history, stopped = train(plan, models, data, held_out, np.array(orders), epochs, launch, check_finite)
    names = ["loss", plan.accuracy]
    columns = {name: history[:, :, i] for i, name in enumerate(names) if name}
    if validation_data is not None:
        columns |= {f"val_{name}": history[:, :, 2 + i] for i, name in enumerate(names) if name}
    for i in np.flatnonzero(stopped).tolist():
        of_epochs = history[i, :, 0]
        loss = float(of_epochs[np.argmin(np.isfinite(of_epochs))])  # of the epoch in which it stopped
        raise FloatingPointError(f"seed {seeds[i]}: {training.diverged(models[i], loss)}")
    columns = dict(sorted(columns.items())) if epochs else {}
    for i, model in enumerate(models):
        record = History()
        record.set_model(model)
        record.on_train_begin()
        for epoch in range(epochs):
            record.on_epoch_end(epoch, {name: float(values[i, epoch]) for name, values in columns.items()})
        model.history, model.has_run = record, True
    first = 2 if validation_data is None else 5
    for k, name in enumerate(watch or {} if epochs else {}):
        columns[f"{name}_loss"] = history[:, :, first + 3 * k + 2]
        if plan.loss == BINARY_CROSSENTROPY:
            columns[f"{name}_accuracy"] = history[:, :, first + 3 * k + 1]
    return FittedMany(seeds, models, {name: values.astype(np.float64) for name, values in columns.items()})


def train(
    plan: Plan,
    models: Sequence[Any],
    data: Any,
    held_out: Sequence[Any],
    orders: Array,
    epochs: int,
    launch: Launch,
    check_finite: bool,
) -> tuple[Array, Array]:
    """Train the models, alike but for their numbers, in one launch, from the states that they are in.

    data, held_out: ArrayBatches, to train and to evaluate on. orders: (models, samples). Returns history and stopped,
    as the kernel leaves them; the models are then in the states that it leaves. Errors: those of launch; then nothing
    is changed.
    """
    for model in models:
        model.optimizer.build(model.arena)
    theta = np.stack([model.arena.theta for model in models])
    names = models[0].optimizer.slots
    slots = {name: np.stack([getattr(model.optimizer, name) for model in models]) for name in names}
    generators = [[layer.seed_generator for layer in _dropouts(model)] for model in models]
    seeds = np.array([[generator.state for generator in of_model] for of_model in generators], np.int64)
    steps = epochs * math.ceil(data.samples / data.batch_size)
    dtype, optimizer = np.dtype(plan.dtype), models[0].optimizer
    history, stopped = np.zeros((len(models), epochs, 2 + 3 * len(held_out)), dtype), np.zeros(len(models), np.int32)
    if steps == 0:
        return history, stopped
    size = min(data.batch_size, data.samples)
    held_out_size = max((min(of.batch_size, of.samples) for of in held_out), default=0)
    weighted = any(of.sample_weight is not None for of in (data, *held_out))
    weights = [_weights(of) for of in held_out] if weighted else []
    shared = plan.shared_bytes(max(size, held_out_size), weighted=weighted)
    launch(
        f"{KERNEL}_{plan.dtype}",
        len(models),
        plan.threads(size, theta.shape[1]),
        (
            np.ascontiguousarray(data.x),
            plan.labels(data.y),
            _weights(data) if weighted else None,
            np.concatenate([of.x for of in held_out]) if held_out else None,
            np.concatenate([plan.labels(of.y) for of in held_out]) if held_out else None,
            np.concatenate(weights) if weights else None,
            np.array([of.samples for of in held_out], np.int32) if held_out else None,
            orders.astype(np.int32),
            np.array(plan.numbers, np.int32),
            np.array(plan.settings, np.float64),
            optimizer.alphas(steps, dtype),
            np.array(optimizer.rates(steps), dtype),
            theta,
            slots["m"],
            slots["v"],
            slots.get("v_hat"),
            seeds if seeds.size else None,
            history,
            stopped,
            data.samples,
            len(held_out),
            plan.features,
            len(plan.numbers),
            len(plan.drawing),
            theta.shape[1],
            size,
            held_out_size,
            epochs,
            1,
            plan.loss,
            plan.prediction,
            plan.threshold,
            *plan.adam,
            plan.clipvalue,
            int(plan.xla),
            int(check_finite),
        ),
        shared,
    )
    for i, model in enumerate(models):
        model.arena.theta[...] = theta[i]
        for name, values in slots.items():
            getattr(model.optimizer, name)[...] = values[i]
        model.optimizer.iterations = int(model.optimizer.iterations) + (int(stopped[i]) - 1 if stopped[i] else steps)
        for generator, state, moved in zip(generators[i], seeds[i], plan.drawing, strict=True):
            if moved:
                generator.state[...] = state
    return history, stopped


def _weights(data: Any) -> Array:
    """The samples' weights, (samples,): 1 where none are given."""
    given = data.sample_weight
    return np.ones(data.samples, data.x.dtype) if given is None else np.ascontiguousarray(given.reshape(-1))


def launch_on_device(kernel: str, grid: int, block: int, arguments: Sequence[Any], shared: int) -> None:
    """Launch: on the current GPU. Errors: those of cuda.launch; DoesNotFitError if a block has too little memory."""
    cupy = cuda.ready_cupy()
    runtime = cupy.cuda.runtime
    most = runtime.deviceGetAttribute(runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin, runtime.getDevice())
    require_room(shared, most)
    with cuda.clear_memory_errors("copying the data of fit_many"):
        there = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
    cuda.launch(kernel, grid, block, *there, shared=shared)
    for parameter, here, device in zip(cuda.kernels()[kernel].parameters, arguments, there, strict=True):
        if parameter.pointer and not parameter.const and here is not None:
            here[...] = device.get()


def require_room(shared: int, most: int) -> None:
    """Raise DoesNotFitError unless a block that has `most` bytes to itself can hold so many and what it has besides."""
    if shared + STATIC_SHARED > most:
        needed = shared + STATIC_SHARED
        raise DoesNotFitError(
            f"fit_many on the GPU: the model and a batch need {needed / 1024:.1f} KiB of a block's own memory; this "
            f"GPU has {most / 1024:.1f} KiB. A smaller batch_size, narrower layers or float32 need less; "
            f"device='cpu' trains any model."
        )
