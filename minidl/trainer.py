"""Trainer: what a compiled model can do. Arguments are checked here; the loops are in loops.py."""

from __future__ import annotations

from typing import Any

from minidl import checks, loops, random, training
from minidl import losses as losses_module
from minidl import metrics as metrics_module
from minidl import optimizers as optimizers_module
from minidl.arena import Arena
from minidl.backend import Array
from minidl.callbacks import History
from minidl.layers import Layer


class Trainer(Layer):
    """compile, fit, evaluate, predict and the steps on one batch: the half of a model that is not its layers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._optimizer: optimizers_module.Optimizer | None = None
        self.jit_compile = False
        self.stop_training = self.stop_evaluating = self.stop_predicting = False  # set by callbacks, asked after a step
        self.history: Any = None  # of the last fit
        self.resumes_at_epoch: int | None = None  # set by a callback when fit begins: the epoch to go on with

    # What the other half provides.

    input_shape: Any

    @property
    def arena(self) -> Arena:
        """The flat buffers of all parameters that are trained, and their gradients."""
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
        there is no GPU. steps_per_execution: the callbacks' batch hooks are called every so many steps.
        metrics do not see the samples' weights, weighted_metrics do. loss="crossentropy" or "ce", and the metrics
        "accuracy" and "acc", stand for what fits the labels. run_eagerly changes nothing: minidl has no graph.
        Errors: ValueError for unknown names; NotImplementedError for arguments that minidl does not support.
        Nothing is changed unless all arguments are right.
        """
        checks.refuse_unsupported(
            "compile",
            loss_weights=(loss_weights, None),
            auto_scale_loss=(auto_scale_loss, True),
        )
        steps_per_execution = checks.positive_int("compile", "steps_per_execution", steps_per_execution)
        if jit_compile not in (True, False, "auto", None):
            raise ValueError(f"compile: jit_compile must be True, False or 'auto'; got {jit_compile!r}.")
        for name, value in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if value is not None and not isinstance(value, (list, tuple)):
                raise ValueError(f"compile: {name} must be a list; got {value!r}. Write {name}=[{value!r}].")
        by_shape = losses_module.by_shape(loss)
        found = optimizers_module.get(optimizer), None if by_shape else losses_module.get(loss)
        identifiers = [*(metrics or []), *(weighted_metrics or [])]
        resolved = [i if metrics_module.by_shape(i) else metrics_module.get(i) for i in identifiers]
        self.gather_if_frozen_or_thawed()
        self._optimizer, self._loss = found
        self.jit_compile = jit_compile is True
        self.steps_per_execution = steps_per_execution
        self.has_run = False  # since compile: see random.start_first_fit
        self._metric_identifiers = resolved
        self._metrics: list[metrics_module.Metric] | None = None
        self.weighted_count = len(weighted_metrics or [])  # the last so many of compiled_metrics see the weights
        self.loss_tracker = metrics_module.Mean("loss")
        self._compile_arguments = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": bool(run_eagerly),
            "steps_per_execution": steps_per_execution,
        }

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

    def resolve_loss(self, label_shape: tuple[int, ...]) -> None:
        """Choose the loss that "crossentropy" stands for, by the shape of the first labels."""
        if self._loss is None:
            self._loss = losses_module.crossentropy_for(label_shape, self.output_shape[-1])

    @property
    def compiled_metrics(self) -> list[metrics_module.Metric]:
        """The metrics of compile(), the weighted ones last, once the number of outputs is known."""
        self._require_compiled("metrics")
        if self._metrics is None:
            units = self.output_shape[-1]
            shape = (0, 1) if self.loss.sparse else (0, units)
            self._metrics = [metrics_module.get(i, units, shape) for i in self._metric_identifiers]
        return self._metrics

    @property
    def metrics(self) -> list[metrics_module.Metric]:
        """The running mean of the loss, then the metrics of compile()."""
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
        validation_data: tuple[Any, ...] | None = None,
        shuffle: bool | str = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        *,
        check_finite: bool = True,
    ) -> History:
        """Train: for each epoch, one step of the optimizer for each batch, in an order drawn anew by shuffle.

        x: (samples, features). y: (samples,) or (samples, units), as the loss takes them. batch_size: 32 if None; the
        last batch of an epoch may be smaller. verbose: see callbacks.ProgbarLogger. validation_split: the share of
        the rows, cut off the end before any shuffling, to validate on; validation_data, (x, y) or (x, y,
        sample_weight), takes precedence. shuffle: True, False or "batch" (only within batches). class_weight: class ->
        weight; sample_weight: (samples,): each multiplies the samples' losses. check_finite: refuse NaN and infinite
        data and stop when the loss becomes so; False lets them through, as Keras does.

        Returns: History; history.history maps "loss", the metrics, and "val_" + each to a value an epoch.
        Errors: ValueError or TypeError for arguments and data that do not fit, before anything is changed;
        FloatingPointError if the loss becomes NaN or infinite.
        """
        self._require_compiled("fit")
        checks.refuse_unsupported(
            "fit", steps_per_epoch=(steps_per_epoch, None), validation_steps=(validation_steps, None)
        )
        if shuffle not in (True, False, "batch"):
            raise ValueError(f"fit: shuffle must be True, False or 'batch'; got {shuffle!r}.")
        size = _batch_size("fit", batch_size)
        data = loops.checked_data(self, x, y, sample_weight, class_weight, check_finite=check_finite)
        validation = None
        if validation_data is not None:
            validation = self._validation(validation_data, check_finite)
        elif validation_split:
            data, validation = loops.split_validation(data, validation_split)
            if class_weight is not None:  # weighs what is trained on, not what is validated on, as in Keras
                validation = (*validation[:2], None)
        return loops.fit(
            self,
            data,
            validation,
            batch_size=size,
            validation_batch_size=size if validation_batch_size is None else _batch_size("fit", validation_batch_size),
            validation_freq=checks.positive_int("fit", "validation_freq", validation_freq),
            epochs=checks.non_negative_int("fit", "epochs", epochs),
            initial_epoch=checks.non_negative_int("fit", "initial_epoch", initial_epoch),
            shuffle=shuffle,
            callbacks=callbacks,
            verbose=verbose,
            check_finite=check_finite,
        )

    def _validation(self, data: Any, check_finite: bool) -> tuple[Array, Array, Array | None]:
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise ValueError(f"validation_data must be (x, y) or (x, y, sample_weight); got {type(data).__name__}.")
        x, y, sample_weight = (*data, None)[:3]
        try:
            return loops.checked_data(self, x, y, sample_weight, None, check_finite=check_finite)
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
    ) -> Any:
        """The loss, penalties included, and the metrics at inference: [loss, metric, …], or a dict by name.

        A model without metrics returns the loss alone. Arguments and errors: as fit's.
        """
        self._require_compiled("evaluate")
        checks.refuse_unsupported("evaluate", steps=(steps, None))
        size = _batch_size("evaluate", batch_size)
        data = loops.checked_data(self, x, y, sample_weight, None, check_finite=check_finite)
        random.start_evaluation(first=not self.has_run)
        self.has_run = True
        logs = loops.evaluate(self, data, batch_size=size, verbose=verbose, callbacks=callbacks)
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
    ) -> Array:
        """The outputs at inference, without dropout;  (samples, features) -> (samples, units)."""
        checks.refuse_unsupported("predict", steps=(steps, None))
        size = _batch_size("predict", batch_size)
        array = self.checked_features(x, check_finite=check_finite)
        random.start_evaluation(first=False)
        return loops.predict(self, array, batch_size=size, verbose=verbose, callbacks=callbacks)

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
        self._require_compiled("train_on_batch")
        data = loops.checked_data(self, x, y, sample_weight, class_weight, check_finite=check_finite)
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
        self._require_compiled("test_on_batch")
        data = loops.checked_data(self, x, y, sample_weight, None, check_finite=check_finite)
        self.reset_metrics()
        training.test_step(self, *data)
        logs = training.metric_results(self)
        return training.by_name(logs) if return_dict else training.as_list(self, logs)

    def predict_on_batch(self, x: Any, *, check_finite: bool = True) -> Array:
        """The outputs of one batch at inference;  (B, features) -> (B, units)."""
        return self.forward(self.checked_features(x, check_finite=check_finite), training=False)


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
