"""Trainer: what a compiled model can do. Arguments are checked here; the loops are in loops.py."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl import batches, checks, config, loops, on_device, random, training
from minidl import device as devices
from minidl import losses as losses_module
from minidl import metrics as metrics_module
from minidl import optimizers as optimizers_module
from minidl.arena import Arena
from minidl.backend import Array
from minidl.callbacks import History
from minidl.device import Device
from minidl.layers import Layer


class Trainer(Layer):
    """compile, fit, evaluate, predict and the steps on one batch: the half of a model that is not its layers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._optimizer: optimizers_module.Optimizer | None = None
        self.jit_compile, self.steps_per_execution = False, 1
        self.stop_training = self.stop_evaluating = self.stop_predicting = False  # set by callbacks, asked after a step
        self.history: Any = None  # of the last fit
        self.resumes_at_epoch: int | None = None  # set by a callback when fit begins: the epoch to go on with

    # What the other half provides.

    input_shape: Any

    @property
    def arena(self) -> Arena:
        """The flat buffers of all parameters that are trained, and their gradients."""
        raise NotImplementedError

    def _input_dtype(self) -> str:
        """The float type that the model takes its inputs in."""
        raise NotImplementedError

    def _input_name(self) -> str | None:
        """The name of the input, under which its data may come in a dict."""
        raise NotImplementedError

    def _output_name(self) -> str | None:
        """The name of the output, under which its loss may come in a dict."""
        raise NotImplementedError

    def gather_if_frozen_or_thawed(self) -> None:
        """Make the arena anew if other layers are trained now."""
        raise NotImplementedError

    def checked_features(self, x: Any, *, check_finite: bool) -> Array:
        """x as an array that fits the model; builds the model if this is its first data."""
        raise NotImplementedError

    # --------------------------------------------------------------------------------- compiling

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: list[Any] | None = None,
        weighted_metrics: list[Any] | None = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Set the optimizer, the loss and the metrics that fit and evaluate use.

        jit_compile=True: draw the dropout masks that Keras draws under XLA; "auto" means False, as for Keras where
        there is no GPU. steps_per_execution: the callbacks' batch hooks are called every so many steps. loss_weights: a
        factor of the data's loss, or a list of one. auto_scale_loss: means something for half floats alone.
        metrics do not see the samples' weights, weighted_metrics do. loss="crossentropy" or "ce", and the metrics
        "accuracy" and "acc", stand for what fits the labels. run_eagerly changes nothing: minidl has no graph.
        Compiled again, a model keeps the loss, and the metrics, where none are given, as in Keras.
        Errors: ValueError for unknown names; NotImplementedError for arguments that minidl does not support.
        Nothing is changed unless all arguments are right.
        """
        steps_per_execution = checks.positive_int("compile", "steps_per_execution", steps_per_execution)
        if jit_compile not in (True, False, "auto", None):
            raise ValueError(f"compile: jit_compile must be True, False or 'auto'; got {jit_compile!r}.")
        for name, value in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if value is not None and not isinstance(value, (list, tuple, dict)):
                raise ValueError(f"compile: {name} must be a list; got {value!r}. Write {name}=[{value!r}].")
        if run_eagerly and jit_compile is True:
            warnings.warn("compile: run_eagerly=True switches jit_compile=True off.", stacklevel=2)
            jit_compile = False
        output = self._output_name()
        loss, loss_weight = _of_one_output("loss", loss, output), _loss_weight(loss_weights, output)
        metrics, weighted_metrics = _flat(metrics), _flat(weighted_metrics)
        by_shape = losses_module.by_shape(loss)
        found = optimizers_module.get(optimizer), None if by_shape or loss is None else losses_module.get(loss)
        identifiers = [*(metrics or []), *(weighted_metrics or [])]
        resolved = [i if metrics_module.by_shape(i) else metrics_module.get(i) for i in identifiers]
        self.gather_if_frozen_or_thawed()
        first = not self.compiled
        self._optimizer = found[0]
        if first or loss is not None:
            self._loss, self._has_loss, self.loss_weight = found[1], loss is not None, loss_weight
        if first or metrics is not None or weighted_metrics is not None:
            self._metric_identifiers = resolved
            self._metrics: list[metrics_module.Metric] | None = None
            self._label_shape: tuple[int, ...] | None = None  # of the first data
            self.weighted_count = len(weighted_metrics or [])  # the last so many of compiled_metrics see the weights
        self.jit_compile = jit_compile is True
        self.steps_per_execution = steps_per_execution
        self.has_run = False  # since compile: see random.start_first_fit
        self.loss_tracker = metrics_module.Mean("loss")
        self._compile_arguments = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": bool(run_eagerly),
            "steps_per_execution": steps_per_execution,
        }

    @property
    def run_eagerly(self) -> bool:
        """What compile was given; it changes nothing."""
        return self.compiled and bool(self._compile_arguments["run_eagerly"])

    def get_compile_config(self) -> dict[str, Any]:
        """What compile was called with, as Keras's dict; {} before. The optimizer is as it is now, without its state.

        Errors: TypeError or ValueError for an object that cannot be written, such as a lambda.
        """
        if not self.compiled:
            return {}
        found = {"optimizer": optimizers_module.serialize(self.optimizer)}
        for name, value in self._compile_arguments.items():
            found[name] = _serialized_argument(value)
        return {**found, "jit_compile": self.jit_compile}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """compile with what get_compile_config returned, Keras's too. Errors: as compile's."""
        arguments = dict(config)
        if isinstance(arguments.get("optimizer"), dict):
            arguments["optimizer"] = optimizers_module.deserialize(arguments["optimizer"])
        if isinstance(arguments.get("loss"), dict):
            arguments["loss"] = losses_module.deserialize(arguments["loss"])
        for name in ("metrics", "weighted_metrics"):
            if isinstance(arguments.get(name), list):
                arguments[name] = [_metric_argument(entry) for entry in arguments[name]]
        self.compile(**arguments)
        if self.built:
            self.optimizer.build(self.arena)

    @property
    def compiled(self) -> bool:
        """Whether compile() was called."""
        return self._optimizer is not None

    @property
    def optimizer(self) -> optimizers_module.Optimizer:
        """The optimizer. Errors: ValueError before compile()."""
        self._require_compiled("optimizer")
        assert self._optimizer is not None
        return self._optimizer

    @property
    def loss(self) -> losses_module.Loss:
        """The loss. Errors: ValueError before compile(), or if it is "crossentropy" and there were no labels yet."""
        self._require_compiled("loss")
        if self._loss is None:
            raise ValueError("loss: 'crossentropy' stands for the one that fits the labels; fit the model first.")
        return self._loss

    def _require_loss(self) -> None:
        if not self._has_loss:
            raise ValueError(f"{self.name}: there is no loss to compute; compile the model with one, loss='mse'.")

    def resolve_loss(self, label_shape: tuple[int, ...]) -> None:
        """Choose the loss that "crossentropy" stands for, by the shape of the first labels."""
        self._label_shape = label_shape
        if self._loss is None:
            self._loss = losses_module.crossentropy_for(label_shape, self.output_shape[-1])

    @contextlib.contextmanager
    def loss_left_open_on_error(self) -> Iterator[None]:
        """Around what resolves the loss: if it fails, "crossentropy" stands for none yet."""
        before = (self._loss, self._label_shape) if self.compiled else None
        try:
            yield
        except BaseException:
            if before is not None:
                self._loss, self._label_shape = before
            raise

    @property
    def compiled_metrics(self) -> list[metrics_module.Metric]:
        """The metrics of compile(), the weighted ones last, once the number of outputs is known."""
        self._require_compiled("metrics")
        if self._metrics is None:
            units = self.output_shape[-1]
            shape: tuple[int, ...] = (0, 1) if self.loss.sparse else (0, units)
            if self.loss.any_labels and self._label_shape:
                shape = self._label_shape
            self._metrics = [metrics_module.get(i, units, shape) for i in self._metric_identifiers]
        return self._metrics

    @property
    def metrics_names(self) -> list[str]:
        """["loss", "compile_metrics"], as Keras counts them: the metrics of compile() are one. Their own names are
        those of `metrics`.
        """
        return ["loss", *(["compile_metrics"] if self._metric_identifiers else [])]

    def get_metrics_result(self) -> dict[str, Any]:
        """The loss and the metrics since they were reset, by name. Errors: ValueError before the first data."""
        self._require_compiled("get_metrics_result")
        if self._label_shape is None and self._metric_identifiers:
            raise ValueError("get_metrics_result: there are no metrics yet; fit or evaluate the model first.")
        return training.metric_results(self)

    @property
    def metrics(self) -> list[metrics_module.Metric]:
        """The running mean of the loss, then the metrics of compile(), which Keras wraps in one, CompileMetrics."""
        return [self.loss_tracker, *self.compiled_metrics]

    def reset_metrics(self) -> None:
        """Start all running means anew."""
        for metric in self.metrics:
            metric.reset_state()

    def _require_compiled(self, what: str) -> None:
        if self._optimizer is None:
            raise ValueError(
                f"{what}: model {self.name!r} is not compiled. Call compile(optimizer='adam', "
                f"loss='binary_crossentropy', metrics=['accuracy']) first."
            )

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
        *,
        check_finite: bool = True,
        device: Any = None,
    ) -> History:
        """Train: for each epoch, one step of the optimizer for each batch, in an order drawn anew by shuffle.

        x, y: (samples, …, features) and labels as the loss takes them, of NumPy, pandas, torch, JAX, lists, memory
        maps; or x alone: a generator of (x, y) or (x, y, sample_weight) batches, a PyDataset, a tf.data.Dataset, a
        torch DataLoader. batch_size: of arrays, 32 if None; the last batch of an epoch may be smaller.
        steps_per_epoch: an epoch is so many steps, and the next one goes on from there. verbose: see ProgbarLogger.
        validation_split: the share of the rows, cut off the end before any shuffling, to validate on; validation_data,
        (x, y), (x, y, sample_weight) or what yields batches, takes precedence. validation_freq: validate every so many
        epochs, or after those of a list. shuffle: True, False or "batch" (only within batches). class_weight: class ->
        weight; sample_weight: (samples,), or one for each loss: multiplies it. check_finite: refuse NaN and infinite
        data and stop when the loss becomes so; False lets them through, as Keras does.
        device: "cpu", "gpu", "auto"; None for config.device(), see config.set_device. On a GPU host arrays are copied
        there once, and a GPU's arrays (CuPy, torch, …, by DLPack) used where they are; the weights come back once an
        epoch, and all callbacks may look at its ends.

        Returns: History; history.history maps "loss", the metrics, and "val_" + each to a value an epoch.
        Errors: ValueError or TypeError for arguments and data that do not fit, before anything is changed;
        FloatingPointError if the loss becomes NaN or infinite; on a GPU NotImplementedError for what only the CPU
        does, ImportError or cuda.DeviceError if there is none, cuda.DeviceMemoryError.
        """
        self._require_compiled("fit")
        _one_of("fit", "shuffle", shuffle, (True, False, "batch"))
        _one_of("fit", "verbose", verbose, ("auto", 0, 1, 2))
        steps = _steps("fit", "steps_per_epoch", steps_per_epoch)
        if steps is not None and config.random_stream() == "torch":
            raise NotImplementedError(
                "fit: steps_per_epoch is not supported with torch's random stream, whose draws would come in another "
                "order than Keras's; leave it at None."
            )
        due = _validation_freq(validation_freq)
        counts = {"epochs": epochs, "initial_epoch": initial_epoch}
        counts = {name: checks.non_negative_int("fit", name, value) for name, value in counts.items()}
        size = batch_size
        if validation_batch_size is not None:
            size = checks.positive_int("fit", "validation_batch_size", validation_batch_size)

        def gathered(device: Device | None) -> tuple[batches.Batches, batches.Batches | None]:
            rows, held_out = self._of_one(x, y, sample_weight), None
            if validation_data is None and validation_split:
                if batches.yields_batches(x):
                    raise ValueError(f"fit: validation_split needs arrays to cut; got x of type {type(x).__name__}.")
                rows, held_out = batches.split_validation(_rows(device, *rows), validation_split)
            settings: tuple[Any, ...] = (class_weight, batch_size, steps, shuffle, check_finite)
            data, validation = self._batches("fit", *rows, *settings, device=device), None
            held_out = validation_data if held_out is None else held_out
            if held_out is not None:
                validation = self._validation(held_out, size, validation_steps, check_finite, device=device)
            return data, validation

        place, (data, validation) = self._on_chosen_device(
            "fit", device, gathered, training=True, scored=True, callbacks=callbacks
        )
        if not self.optimizer.built:
            self.gather_if_frozen_or_thawed()
        return loops.fit(
            self,
            data,
            validation,
            steps_per_epoch=steps,
            validation_steps=_steps("fit", "validation_steps", validation_steps),
            validation_freq=due,
            callbacks=callbacks,
            verbose=verbose,
            check_finite=check_finite,
            device=place,
            **counts,
        )

    def _on_chosen_device(self, where: str, device: Any, gathered: Any, **what: Any) -> tuple[Device | None, Any]:
        """The device to compute on, None for the CPU, and gathered(device), the data for it.

        Errors: NotImplementedError for what the CPU alone does, if it must be a GPU.
        """
        place, must = devices.chosen(where, device)
        found = gathered(place)
        if place is None:
            return None, found
        problem = on_device.problem(self, *found, **what)
        if problem is None:
            return place, found
        if must:
            raise devices.refuse(where, problem)
        arrays = [data.x for data in found if isinstance(data, batches.ArrayBatches)]
        return None, gathered(None) if arrays and on_device.on_device(place, *arrays) else found

    def _batches(
        self,
        where: str,
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Any,
        batch_size: int | None,
        steps: int | None,
        shuffle: Any,
        check_finite: bool,
        *,
        device: Device | None = None,
    ) -> batches.Batches:
        """The batches of arrays, checked as a whole, or of whatever else yields batches, each checked as it comes."""
        rows = self._of_one(x, y, sample_weight)
        if device is not None and on_device.on_device(device, *rows):
            if class_weight is not None:
                raise devices.refuse(where, "class_weight with labels in its memory")
            self._require_labels_and_loss(rows[1])
            with device.active():
                found = on_device.adopted_data(self, device, *rows, check_finite=check_finite)
            size = _batch_size(where, batch_size)
            return batches.ArrayBatches(
                found, math.ceil(len(found[0]) / steps) if steps and not batch_size else size, shuffle
            )

        def check(x: Any, y: Any, sample_weight: Any, class_weight: Any) -> batches.Batch:
            return self._checked(x, y, sample_weight, class_weight, check_finite=check_finite)

        if batches.yields_batches(x):
            data = batches.stream(
                where, x, check, shuffle=shuffle, class_weight=class_weight, y=y, sample_weight=sample_weight
            )
            _say_that_streams_have_batches(where, batch_size)
            data.check_first()
            return data
        x, y, sample_weight = self._of_one(x, y, sample_weight)
        if batch_size is None and steps is not None:
            size = max(1, math.ceil(len(x) / steps)) if hasattr(x, "__len__") else loops.DEFAULT_BATCH_SIZE
        else:
            size = _batch_size(where, batch_size)
        if isinstance(x, np.memmap) and (x.dtype != self._input_dtype() or not x.flags.c_contiguous):
            return self._mapped_batches(x, y, sample_weight, class_weight, size, shuffle, check)
        return batches.ArrayBatches(check(x, y, sample_weight, class_weight), size, shuffle)

    def _mapped_batches(
        self, x: Any, y: Any, sample_weight: Any, class_weight: Any, size: int, shuffle: Any, check: batches.Check
    ) -> batches.ArrayBatches:
        """Of a memory map in another dtype or order than the model's: its rows are converted and checked by batch."""
        labels, weight = (None if a is None else np.asarray(a) for a in (y, sample_weight))
        check(x[:1], None if labels is None else labels[:1], None if weight is None else weight[:1], None)
        for name, array in (("y", labels), ("sample_weight", weight)):
            if array is not None and len(array) != len(x):
                raise ValueError(f"x and {name} must have the same number of samples; got {len(x)} and {len(array)}.")

        def later(batch: batches.Batch) -> batches.Batch:
            x, y, sample_weight = batch
            return check(x, y, sample_weight, class_weight)

        return batches.ArrayBatches((x, labels, weight), size, shuffle, later)

    def _of_one(self, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """The three of the model's one input and output, each of which may come in a list of one, x in a dict too."""
        key = self._input_name()
        return checks.of_one("x", x, key), checks.of_one("y", y), checks.of_one("sample_weight", sample_weight)

    def _checked(self, x: Any, y: Any, sample_weight: Any, class_weight: Any, *, check_finite: bool) -> batches.Batch:
        """x, y and weights as arrays of the model's dtype that fit the model; builds it if this is its first data.

        Errors leave the loss that "crossentropy" stands for open.
        """
        with self.loss_left_open_on_error():
            return self._checked_and_resolved(x, y, sample_weight, class_weight, check_finite)

    def _checked_and_resolved(
        self, x: Any, y: Any, sample_weight: Any, class_weight: Any, check_finite: bool
    ) -> batches.Batch:
        x, y, sample_weight = self._of_one(x, y, sample_weight)
        array = self.checked_features(x, check_finite=check_finite)
        self._require_labels_and_loss(y)
        self.resolve_loss(np.shape(y))
        shape = self.compute_output_shape(array.shape)
        kind = {"sparse": self.loss.sparse, "any_shape": self.loss.any_labels}
        labels = checks.labels(y, self.dtype, shape, **kind, check_finite=check_finite)
        if check_finite:
            self.loss.check_labels(labels, shape[-1])
        weights = checks.weights_per_sample(
            labels, sample_weight, class_weight, self.dtype, shape, check_finite=check_finite
        )
        return array, labels, weights

    def _require_labels_and_loss(self, y: Any) -> None:
        if y is None:
            raise ValueError("y: the labels are missing. Pass an array with one row a sample.")
        self._require_loss()

    def _validation(
        self, data: Any, batch_size: Any, steps: Any, check_finite: bool, *, device: Device | None = None
    ) -> batches.Batches:
        """The batches to validate on. Errors: as fit's, with "validation_data" before."""
        steps = _steps("fit", "validation_steps", steps)
        if isinstance(data, (tuple, list)):
            if len(data) not in (2, 3):
                raise ValueError(
                    f"validation_data must be (x, y) or (x, y, sample_weight); got {type(data).__name__} of length "
                    f"{len(data)}."
                )
            x, y, sample_weight = (*data, None)[:3]
        elif batches.yields_batches(data):
            x, y, sample_weight = data, None, None
        else:
            raise ValueError(f"validation_data must be (x, y) or (x, y, sample_weight); got {type(data).__name__}.")
        try:
            settings = (None, batch_size, steps, None, check_finite)
            return self._batches("fit", x, y, sample_weight, *settings, device=device)
        except (TypeError, ValueError) as error:
            raise type(error)(f"validation_data: {error}") from None

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        *,
        check_finite: bool = True,
        device: Any = None,
        **kwargs: Any,
    ) -> Any:
        """The loss, penalties included, and the metrics at inference: [loss, metric, …], or a dict by name.

        A model without metrics returns the loss alone. steps: of so many batches. Arguments and errors: as fit's.
        """
        checks.refuse_unknown("evaluate", kwargs, ("batch_size", "callbacks", "return_dict", "sample_weight", "steps"))
        self._require_compiled("evaluate")
        _one_of("evaluate", "verbose", verbose, ("auto", 0, 1, 2))
        steps = _steps("evaluate", "steps", steps)

        def gathered(device: Device | None) -> tuple[batches.Batches]:
            settings = (None, batch_size, steps, None, check_finite)
            return (self._batches("evaluate", x, y, sample_weight, *settings, device=device),)

        place, (data,) = self._on_chosen_device("evaluate", device, gathered, scored=True, callbacks=callbacks)
        random.start_evaluation(first=not self.has_run)
        self.has_run = True
        epochs = batches.Epochs(data, steps, self.steps_per_execution)
        shown = {"verbose": verbose, "callbacks": callbacks}
        logs = loops.evaluate_on(place, self, epochs, **shown) if place else loops.evaluate(self, epochs, **shown)
        return training.by_name(logs) if return_dict else training.as_list(self, logs)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        *,
        check_finite: bool = True,
        device: Any = None,
    ) -> Array:
        """The outputs at inference, without dropout;  (samples, …, features) -> (samples, …, units).

        x: as fit's; labels and weights that come with batches are left aside. steps: of so many batches. device: as
        fit's; for an x of the GPU the outputs are one of its arrays.
        """
        _one_of("predict", "verbose", verbose, ("auto", 0, 1, 2))
        steps = _steps("predict", "steps", steps)

        def check(x: Any, y: Any, sample_weight: Any, class_weight: Any) -> batches.Batch:
            return self.checked_features(x, check_finite=check_finite), None, None

        x = checks.of_one("x", x, self._input_name())

        def gathered(device: Device | None) -> tuple[batches.Batches]:
            return (self._prediction_batches(x, batch_size, steps, check, check_finite, device),)

        place, (data,) = self._on_chosen_device("predict", device, gathered, callbacks=callbacks)
        random.start_evaluation(first=False)
        epochs = batches.Epochs(data, steps, self.steps_per_execution)
        shown = {"verbose": verbose, "callbacks": callbacks}
        return loops.predict_on(place, self, epochs, **shown) if place else loops.predict(self, epochs, **shown)

    def _prediction_batches(
        self,
        x: Any,
        batch_size: Any,
        steps: int | None,
        check: batches.Check,
        check_finite: bool,
        device: Device | None,
    ) -> batches.Batches:
        if batches.yields_batches(x):
            data = batches.stream("predict", x, check)
            _say_that_streams_have_batches("predict", batch_size)
            data.check_first()
            return data
        size = _batch_size("predict", batch_size)
        if isinstance(x, np.memmap) and (x.dtype != self._input_dtype() or not x.flags.c_contiguous):
            return batches.ArrayBatches((x, None, None), size, None, lambda batch: check(batch[0], None, None, None))
        if device is not None and on_device.on_device(device, x):
            with device.active():
                array = on_device.adopted_data(self, device, x, None, None, check_finite=check_finite)[0]
        else:
            array = self.checked_features(x, check_finite=check_finite)
        if batch_size is None and steps is not None:
            size = math.ceil(len(array) / steps)
        return batches.ArrayBatches((array, None, None), size, None)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
        *,
        check_finite: bool = True,
    ) -> Any:
        """One step on one batch; its loss and metrics before the update, as evaluate returns them."""
        devices.refuse_if_asked_for("train_on_batch")
        self._require_compiled("train_on_batch")
        data = self._checked(x, y, sample_weight, class_weight, check_finite=check_finite)
        if not self.optimizer.built:
            self.gather_if_frozen_or_thawed()
        self.reset_metrics()
        training.train_step(self, *data, check_finite=check_finite)
        logs = training.metric_results(self)
        return training.by_name(logs) if return_dict else training.as_list(self, logs)

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
        *,
        check_finite: bool = True,
    ) -> Any:
        """The loss and metrics of one batch at inference, as evaluate returns them."""
        devices.refuse_if_asked_for("test_on_batch")
        self._require_compiled("test_on_batch")
        data = self._checked(x, y, sample_weight, None, check_finite=check_finite)
        self.reset_metrics()
        training.test_step(self, *data)
        logs = training.metric_results(self)
        return training.by_name(logs) if return_dict else training.as_list(self, logs)

    def predict_on_batch(self, x: Any, *, check_finite: bool = True) -> Array:
        """The outputs of one batch at inference;  (B, …, features) -> (B, …, units)."""
        devices.refuse_if_asked_for("predict_on_batch")
        return self.forward(self.checked_features(x, check_finite=check_finite), training=False)

    def weights_on_device(self, device: Any = "gpu") -> list[Array]:
        """Copies of the weights as arrays of a GPU, in the order of get_weights(): CuPy's, which give DLPack out.

        Errors: ImportError or cuda.DeviceError if there is no GPU; cuda.DeviceMemoryError.
        """
        place, _ = devices.chosen("weights_on_device", device)
        if place is None:
            raise ValueError("weights_on_device: on the CPU these are model.get_weights(); pass device='gpu'.")
        with place.active():
            return [place.array(np.ascontiguousarray(weight)) for weight in self.get_weights()]


def _say_that_streams_have_batches(where: str, batch_size: Any) -> None:
    if batch_size is not None:
        warnings.warn(f"{where}: batch_size is ignored; x yields batches of its own size.", stacklevel=4)


def _of_one_output(name: str, value: Any, output: str | None) -> Any:
    """An argument for the model's one output, which may come in a list of one, or a dict by the output's name."""
    if isinstance(value, dict):
        if len(value) != 1 or output not in (None, *value):
            raise ValueError(
                f"compile: {name} must have the one output's name as its key, {output!r}; got {list(value)}."
            )
        return next(iter(value.values()))
    if isinstance(value, (list, tuple)):
        if len(value) != 1:
            raise ValueError(f"compile: {name} must be one for the model's one output; got {len(value)}.")
        return value[0]
    return value


def _loss_weight(value: Any, output: str | None) -> float | None:
    if isinstance(value, (int, np.integer)):
        raise ValueError(f"compile: loss_weights must be a float, or a list of one number; got {value!r}.")
    value = _of_one_output("loss_weights", value, output)
    return None if value is None else checks.finite_float("compile", "loss_weights", value)


def _flat(metrics: Any) -> Any:
    """metrics of the one output, which may come in a list of one list, or in a dict by outputs, whatever its keys."""
    if isinstance(metrics, dict):
        lists = (value if isinstance(value, (list, tuple)) else [value] for value in metrics.values())
        return [metric for found in lists for metric in found]
    return metrics[0] if metrics and len(metrics) == 1 and isinstance(metrics[0], (list, tuple)) else metrics


def _rows(device: Device | None, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """The three as arrays whose rows can be cut."""
    if device is not None and on_device.on_device(device, x, y, sample_weight):
        x, y, sample_weight = (None if array is None else device.adopted(array) for array in (x, y, sample_weight))
        return x, y, sample_weight
    return (
        checks.as_array("x", x),
        None if y is None else checks.as_array("y", y),
        None if sample_weight is None else checks.as_array("sample_weight", sample_weight),
    )


def _one_of(where: str, name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not isinstance(value, (bool, int, str)) or value not in allowed:
        *most, last = (repr(one) for one in allowed)
        raise ValueError(f"{where}: {name} must be {', '.join(most)} or {last}; got {value!r}.")


def _steps(where: str, name: str, value: Any) -> int | None:
    return None if value is None else checks.positive_int(where, name, value)


def _validation_freq(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(epoch, int) for epoch in value):
        return value
    if isinstance(value, (tuple, set, list)):
        raise ValueError(f"fit: validation_freq must be an integer or a list of integers; got {value!r}.")
    return checks.positive_int("fit", "validation_freq", value)


def _serialized_argument(value: Any) -> Any:
    """An argument of compile as Keras writes it; a class stands for an instance of its defaults."""
    if isinstance(value, (list, tuple)):
        return [_serialized_argument(entry) for entry in value]
    if isinstance(value, type):
        value = value()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return (losses_module if isinstance(value, losses_module.Loss) else metrics_module).serialize(value)


def _metric_argument(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    if config.get("module") == "keras.losses":
        return losses_module.deserialize(config)
    return metrics_module.deserialize(config)


def _batch_size(where: str, value: int | None) -> int:
    return loops.DEFAULT_BATCH_SIZE if value is None else checks.positive_int(where, "batch_size", value)
