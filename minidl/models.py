"""Sequential: a stack of layers with Keras's methods. What the methods do to a batch is in training.py."""

from __future__ import annotations

from typing import Any

from minidl import checks, config, random, training
from minidl import losses as losses_module
from minidl import metrics as metrics_module
from minidl import optimizers as optimizers_module
from minidl.arena import Arena
from minidl.backend import Array
from minidl.callbacks import History
from minidl.layers import Dropout, InputLayer, Layer, Shape, batch_shape, sample_shape
from minidl.naming import auto_name
from minidl.random import SeedGenerator
from minidl.training import forward


class Sequential:
    """Layers in a row, each taking the outputs of the one before.

    With an Input first, or input_shape on the first layer, the model is built at once; otherwise by build() or by
    its first data. Built, all parameters lie in one arena, and the layers' are views of it.
    """

    def __init__(self, layers: list[Layer] | None = None, trainable: bool = True, name: str | None = None) -> None:
        checks.refuse_unsupported("Sequential", trainable=(trainable, True))
        if layers is not None and not isinstance(layers, (list, tuple)):
            raise TypeError(f"Sequential takes a list of layers; got {layers!r} of type {type(layers).__name__}.")
        if name is not None and not isinstance(name, str):
            raise ValueError(f"Sequential: name must be a string; got {name!r}.")
        self.name = auto_name("Sequential") if name is None else name
        self._layers: list[Layer] = []
        self._input: InputLayer | None = None
        self._arena: Arena | None = None
        self._optimizer: optimizers_module.Optimizer | None = None
        self.stop_training = False
        for layer in layers or []:
            self._append(layer)
        self._build_if_known()

    # ---------------------------------------------------------------------------------- the stack

    def add(self, layer: Layer) -> None:
        """Put a layer on top. Errors: TypeError for anything else; ValueError for a name that is taken."""
        before = list(self._layers), self._input, self._arena
        try:
            self._append(layer)
            self._build_if_known()
        except Exception:
            if layer in self._layers and layer not in before[0]:
                layer.detach()
            self._layers, self._input, self._arena = before
            raise

    def pop(self) -> Layer:
        """Take the last layer off and return it. Errors: ValueError if there is none."""
        if not self._layers:
            raise ValueError(f"{self.name}: there is no layer to pop.")
        layer = self._layers.pop()
        layer.detach()
        self._arena = None
        self._build_if_known()
        return layer

    @property
    def layers(self) -> list[Layer]:
        """The layers in order, without the Input."""
        return list(self._layers)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of a name or at an index. Errors: ValueError if there is none, or not one of both is given."""
        if (name is None) == (index is None):
            raise ValueError("get_layer: give either a name or an index.")
        if index is not None:
            if not -len(self._layers) <= index < len(self._layers):
                raise ValueError(f"get_layer: index {index} of a model with {len(self._layers)} layers.")
            return self._layers[index]
        for layer in self._layers:
            if layer.name == name:
                return layer
        raise ValueError(f"get_layer: no layer named {name!r}; there are {[layer.name for layer in self._layers]}.")

    def _append(self, layer: Layer) -> None:
        if not isinstance(layer, Layer):
            raise TypeError(f"Sequential takes minidl layers; got {layer!r} of type {type(layer).__name__}.")
        if isinstance(layer, InputLayer):
            if self._layers or self._input is not None:
                raise ValueError(f"{self.name}: an Input can only come first, and once.")
            self._input = layer
            return
        if layer.name in [other.name for other in self._layers]:
            raise ValueError(f"{self.name}: layer names must differ, and {layer.name!r} is taken; pass another name.")
        if not self._layers and self._input is None and layer.input_shape_argument is not None:
            shape = sample_shape(layer.name, layer.input_shape_argument)
            self._input = InputLayer(shape, dtype=layer.dtype)
        layer.attach(self)
        self._layers.append(layer)
        self._arena = None

    def _build_if_known(self) -> None:
        if self._input is not None and self._layers and self._arena is None:
            self.build((None, *self._input.shape))

    def build(self, input_shape: Shape) -> None:
        """Build the layers for batches of shape (None, features) and gather their parameters in one arena.

        Errors: ValueError if there is no layer, the shape is not (None, features), it differs from the shape that
        the model was built for, or the layers' dtypes differ.
        """
        if not self._layers:
            raise ValueError(f"{self.name}: a model without layers cannot be built; add one first.")
        shape = batch_shape(self.name, input_shape)[1:]
        if self._input is not None and self._input.shape != shape:
            raise ValueError(f"{self.name}: built for inputs of shape {self._input.shape}; got {shape}.")
        if len({layer.dtype for layer in self._layers}) > 1:
            raise ValueError(f"{self.name}: all layers must have one dtype; got {[la.dtype for la in self._layers]}.")
        if self._input is None:
            self._input = InputLayer(shape, dtype=self.dtype)
        outputs: Shape = (None, *shape)
        for layer in self._layers:
            if not layer.built:
                layer.build(outputs)
            layer.check_input(outputs)
            outputs = layer.output_shape = layer.compute_output_shape(outputs)
        self._gather_parameters()

    def _gather_parameters(self) -> None:
        """Move every layer's parameters into one arena; the layers keep views."""
        owners = [(layer, name) for layer in self._layers for name in layer.parameters]
        shapes = [(layer.name, name, layer.parameters[name].shape) for layer, name in owners]
        arena = Arena(shapes, self.dtype)
        views = zip(owners, arena.views(arena.theta), arena.views(arena.grads), strict=True)
        for (layer, name), parameter, gradient in views:
            parameter[...] = layer.parameters[name]
            layer.parameters[name], layer.grads[name] = parameter, gradient
        self._arena = arena

    @property
    def built(self) -> bool:
        """Whether the parameters exist."""
        return self._arena is not None

    @property
    def arena(self) -> Arena:
        """The flat buffers of all parameters and gradients. Errors: ValueError if the model is not built."""
        self._require_built("arena")
        assert self._arena is not None
        return self._arena

    @property
    def dtype(self) -> str:
        """The float type of all parameters and results."""
        return self._layers[0].dtype

    def set_dtype(self, dtype: str) -> None:
        """Go on in another float type, with the same weights. Errors: ValueError unless built and not yet trained."""
        self._require_built("set_dtype")
        if self._optimizer is not None and self._optimizer.built:
            raise ValueError("set_dtype: the optimizer holds a state already; set the dtype before training.")
        for layer in self._layers:
            layer.dtype = config.standardize_dtype(dtype)
        self._gather_parameters()

    @property
    def input_shape(self) -> Shape:
        """(None, features). Errors: ValueError if the model is not built."""
        self._require_built("input_shape")
        assert self._input is not None
        return (None, *self._input.shape)

    @property
    def output_shape(self) -> Any:
        """(None, units). Errors: ValueError if the model is not built."""
        self._require_built("output_shape")
        return self._layers[-1].output_shape

    def _require_built(self, what: str) -> None:
        if not self.built:
            raise ValueError(
                f"{what}: model {self.name!r} is not built, so it has no weights yet. Put Input(shape=(features,)) "
                f"first, give the first layer input_shape=(features,), call build((None, features)), or fit it."
            )

    # ------------------------------------------------------------------------------------ weights

    @property
    def weights(self) -> list[Array]:
        """The parameters of all layers, in order: writing to one changes the model."""
        return [weight for layer in self._layers for weight in layer.weights]

    trainable_weights = weights

    def get_weights(self) -> list[Array]:
        """Copies of the parameters, kernel then bias, layer by layer; empty while the model is not built."""
        return [weight for layer in self._layers for weight in layer.get_weights()]

    def set_weights(self, weights: list[Any]) -> None:
        """Write all parameters. Errors: ValueError, and not one written, if the number or a shape is wrong."""
        self._require_built("set_weights")
        names = [f"{s.layer}/{s.name}" for s in self.arena.segments]
        shapes = [s.shape for s in self.arena.segments]
        arrays = checks.same_shapes(f"set_weights of {self.name}", names, shapes, self.dtype, weights)
        for weight, array in zip(self.weights, arrays, strict=True):
            weight[...] = array

    def get_state(self) -> dict[str, Array]:
        """Copies of all that training goes on from: parameters, optimizer and dropout seeds, by name.

        "theta", and once compiled "iterations", "learning_rate" and the slots ("m", "v"), flat in the arena's order;
        "seed/0", "seed/1", …: the [seed, counter] of each Dropout. A model set to this state takes the same next steps.
        """
        self._require_built("get_state")
        state = {"theta": self.arena.theta.copy()}
        if self._optimizer is not None:
            self._optimizer.build(self.arena)
            state |= self._optimizer.get_state()
        return state | {f"seed/{i}": generator.state.copy() for i, generator in enumerate(self._seed_generators())}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what get_state of a model of the same layers and optimizer returned.

        Errors: ValueError, and nothing changed, if a name is missing or unknown, or a shape or a number is wrong.
        """
        values = checks.same_state(f"set_state of {self.name}", self.get_state(), state)
        self.arena.theta[...] = values["theta"]
        if self._optimizer is not None:
            self._optimizer.set_state(values)
        for i, generator in enumerate(self._seed_generators()):
            generator.state[...] = values[f"seed/{i}"]

    def _seed_generators(self) -> list[SeedGenerator]:
        found = [layer.seed_generator for layer in self._layers if isinstance(layer, Dropout)]
        return [generator for generator in found if generator is not None]

    def count_params(self) -> int:
        """The number of scalars in the parameters. Errors: ValueError if the model is not built."""
        self._require_built("count_params")
        return self.arena.size

    def summary(self, line_length: int | None = None, print_fn: Any = None, **kwargs: Any) -> None:
        """Print the layers, their output shapes and parameter counts, in Keras's table."""
        defaults = {"positions": None, "expand_nested": False, "show_trainable": False, "layer_range": None}
        checks.refuse_unknown("summary", {k: v for k, v in kwargs.items() if k not in defaults})
        checks.refuse_unsupported("summary", **{k: (v, defaults[k]) for k, v in kwargs.items()})
        from minidl.summary import print_summary

        print_summary(self, line_length=line_length, print_fn=print_fn)

    @property
    def losses(self) -> list[Any]:
        """The penalties of all regularizers at the present weights."""
        return [penalty for layer in self._layers for penalty in layer.losses]

    # ----------------------------------------------------------------------------------- training

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
        self._optimizer, self._loss = found
        self.jit_compile = jit_compile is True
        self.steps_per_execution = steps_per_execution
        self.has_run = False  # since compile: see random.start_first_fit
        self._metric_identifiers = resolved
        self._metrics: list[metrics_module.Metric] | None = None
        self.weighted_count = len(weighted_metrics or [])  # the last so many of compiled_metrics see the weights
        self.loss_tracker = metrics_module.Mean("loss")

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

    def checked_features(self, x: Any, *, check_finite: bool) -> Array:
        """x as an array that fits the model; builds the model if this is its first data."""
        if not self._layers:
            raise ValueError(f"{self.name}: a model without layers has nothing to compute; add one first.")
        width = None if self._input is None else self._input.shape
        array = checks.features(x, self.dtype, width, check_finite=check_finite)
        if not self.built:
            self.build((None, array.shape[1]))
        return array

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
        last batch of an epoch may be smaller. verbose: see callbacks.progress_logger. validation_split: the share of
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
        data = training.checked_data(self, x, y, sample_weight, class_weight, check_finite=check_finite)
        validation = None
        if validation_data is not None:
            validation = self._validation(validation_data, check_finite)
        elif validation_split:
            data, validation = training.split_validation(data, validation_split)
            if class_weight is not None:  # weighs what is trained on, not what is validated on, as in Keras
                validation = (*validation[:2], None)
        return training.fit(
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
            return training.checked_data(self, x, y, sample_weight, None, check_finite=check_finite)
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
        checks.refuse_unsupported("evaluate", steps=(steps, None), callbacks=(callbacks, None))
        size = _batch_size("evaluate", batch_size)
        data = training.checked_data(self, x, y, sample_weight, None, check_finite=check_finite)
        random.start_evaluation(first=not self.has_run)
        self.has_run = True
        logs = training.evaluate(self, data, batch_size=size, verbose=verbose)
        return logs if return_dict else training.as_list(self, logs)

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
        checks.refuse_unsupported("predict", steps=(steps, None), callbacks=(callbacks, None))
        size = _batch_size("predict", batch_size)
        array = self.checked_features(x, check_finite=check_finite)
        random.start_evaluation(first=False)
        return training.predict(self, array, batch_size=size, verbose=verbose)

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
        data = training.checked_data(self, x, y, sample_weight, class_weight, check_finite=check_finite)
        self.reset_metrics()
        training.train_step(self, *data, check_finite=check_finite)
        logs = training.metric_results(self)
        return logs if return_dict else training.as_list(self, logs)

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
        data = training.checked_data(self, x, y, sample_weight, None, check_finite=check_finite)
        self.reset_metrics()
        training.test_step(self, *data)
        logs = training.metric_results(self)
        return logs if return_dict else training.as_list(self, logs)

    def predict_on_batch(self, x: Any, *, check_finite: bool = True) -> Array:
        """The outputs of one batch at inference;  (B, features) -> (B, units)."""
        return training.forward(self, self.checked_features(x, check_finite=check_finite), training=False)

    def __call__(self, x: Any, training: bool = False) -> Array:
        """The outputs for x; with training=True, with dropout."""
        return forward(self, self.checked_features(x, check_finite=False), training=training)

    def __repr__(self) -> str:
        return f"<Sequential name={self.name}, layers={len(self._layers)}, built={self.built}>"


def _batch_size(where: str, value: int | None) -> int:
    return training.DEFAULT_BATCH_SIZE if value is None else checks.positive_int(where, "batch_size", value)
