"""Layer, the base of all layers: parameters, gradients, building, calling; and the shapes that layers pass on."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from minidl import checks, config, regularizers
from minidl.activations import Activation
from minidl.backend import Array
from minidl.constraints import Constraint
from minidl.naming import auto_name
from minidl.variables import Variable, variable

Shape = tuple[int | None, ...]  # of a batch: (None, features)


class Layer:
    """The base of all layers.

    parameters: name -> array that is trained, in the order of get_weights(); in a built model a view of its arena.
    grads: the same names -> dL/d(parameter), written by backward.
    state: name -> array that is kept but never trained, such as a moving mean; after the parameters in get_weights().
    regularizers, constraints: the parameters that carry one -> their penalty, their constraint.
    trainable=False: the parameters are not updated and their penalties not added; gradients still flow through.
    activity_regularizer: a penalty on the outputs, divided by the batch's size, added to the loss.
    """

    # Of a layer that ends in an activation: a loss of logits is computed below it. See training.loss_inputs.
    activation: Activation | None = None
    pre_activations: Array
    outputs: Any = None  # of the last forward

    activity: Array  # the outputs of the last forward, where activity_regularizer is set

    def __init__(
        self,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        input_shape: tuple[int, ...] | None = None,
        input_dim: int | None = None,
        activity_regularizer: Any = None,
        autocast: bool = True,
        **kwargs: Any,
    ) -> None:
        where = type(self).__name__
        if kwargs:
            parameters = [name for cls in (type(self), Layer) for name in inspect.signature(cls).parameters]
            checks.refuse_unknown(where, kwargs, parameters)
        checks.refuse_unsupported(where, autocast=(autocast, True))
        if name is not None and (not isinstance(name, str) or "/" in name):
            raise ValueError(f"{where}: name must be a string without '/'; got {name!r}.")
        if not isinstance(trainable, (bool, np.bool_)):
            raise ValueError(f"{where}: trainable must be True or False; got {trainable!r}.")
        self.name = auto_name(where) if name is None else name
        self.dtype = config.standardize_dtype(dtype)
        self.input_shape_argument = (input_dim,) if input_dim is not None else input_shape
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self.parameters: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.state: dict[str, Array] = {}
        self.regularizers: dict[str, regularizers.Regularizer] = {}
        self.constraints: dict[str, Constraint] = {}
        self._variables: dict[str, Variable] = {}
        self._trainable = bool(trainable)
        self.built = False
        self._build_shape: Shape | None = None
        self.scope = ""
        self.output_shape: Any = None  # once in a model that is built
        self._ends: tuple[Chain, Chain] | None = None

    # ------------------------------------------------------------------- what a layer of its own defines

    def build(self, input_shape: Shape) -> None:
        """Make the parameters, their grads and the state for inputs of this shape, (None, …, features)."""
        self.output_shape = self.compute_output_shape(input_shape)
        self._build_shape = input_shape
        self.built = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The shape of the outputs for inputs of this shape."""
        return input_shape

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """inputs (B, …, I) -> outputs (B, …, U); keeps what backward needs."""
        raise NotImplementedError

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs), of the last forward; writes grads."""
        raise NotImplementedError

    def backward_from_pre_activations(self, d_pre_activations: Array) -> Array:
        """The part of backward below the activation, for a layer that has one."""
        raise NotImplementedError

    def activation_gradient(self, d_outputs: Array) -> Array:
        """The part of backward above: dL/d(outputs) -> dL/d(pre_activations)."""
        assert self.activation is not None
        return self.activation.gradient(d_outputs, self.pre_activations, self.outputs)

    def finish_step(self) -> None:
        """Take over the state that the last training forward computed, such as new moving means.

        Apart from forward, so that a step that fails changes nothing.
        """

    def skip_draw(self) -> None:
        """Move on as if the random numbers of one training forward had been drawn: nothing, unless the layer draws."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again, by Keras's names; without the weights."""
        found: dict[str, Any] = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": {
                "module": "keras",
                "class_name": "DTypePolicy",
                "config": {"name": self.dtype},
                "registered_name": None,
            },
        }
        if self.activity_regularizer is not None:
            found["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        return found

    def get_build_config(self) -> dict[str, Any] | None:
        """The shape that the layer was built for, {"input_shape": (None, 4)}; None if it was not, or need not be."""
        return None if self._build_shape is None else {"input_shape": self._build_shape}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Build for the shape of a get_build_config()."""
        if config.get("input_shape") is not None:
            self.build(tuple(config["input_shape"]))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """The layer of a get_config(), Keras's too."""
        return cls(**config)

    def new_weight(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: Callable[..., Array],
        regularizer: regularizers.Regularizer | None = None,
        constraint: Constraint | None = None,
        *,
        trainable: bool = True,
    ) -> Array:
        """Make a parameter, or where not trainable an array of the state, with its first values; for build().

        Errors: ValueError if the initializer gives another shape, or values that are not finite.
        """
        checks.take_scalars(f"{self.name}/{name}", shape)
        where = f"{self.name}: the {name} initializer"
        (array,) = checks.same_shapes(where, [name], [shape], self.dtype, [initializer(shape, dtype=self.dtype)])
        if trainable:
            self.parameters[name], self.grads[name] = array, np.zeros_like(array)
        else:
            self.state[name] = array
        if regularizer is not None:
            self.regularizers[name] = regularizer
        if constraint is not None:
            self.constraints[name] = constraint
        return array

    # ------------------------------------------------------------------------------------ calling

    def __call__(self, inputs: Any, training: bool = False) -> Any:
        """forward on anything that numpy.asarray takes, building the layer first where needed.

        Of an Input, or of what a layer returned for one, the Chain that ends in this layer: see models.Functional.
        """
        if isinstance(inputs, Chain):
            return inputs.then(self, training=training)
        if isinstance(inputs, Layer):
            raise TypeError(
                f"{self.name}: called on the layer {inputs.name!r} itself; call it on what that layer returned."
            )
        array = checks.features(inputs, self.dtype, None, check_finite=False)
        shape = (None, *array.shape[1:])
        if not self.built:
            self.build(shape)
        self.check_input(shape)
        outputs = self.forward(array, training=bool(training))
        if training:
            self.finish_step()
        return outputs

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError if a built layer cannot take inputs of this shape."""
        width = self._input_width()
        if width is not None and width != input_shape[-1]:
            raise ValueError(f"{self.name}: built for {width} features; got inputs of shape {input_shape}.")

    def _input_width(self) -> int | None:
        return None

    def flat_layers(self) -> list[Layer]:
        """This layer; of a model within a model, its layers, in the order of their weights."""
        return [self]

    @property
    def input(self) -> Chain:
        """What the layer was last put on: of the first layer the Input. Errors: ValueError if it was put on nothing."""
        return self._end("input", 0)

    @property
    def output(self) -> Chain:
        """The chain that ends in this layer, as outputs of a Model. Errors: ValueError if it was put on nothing."""
        return self._end("output", 1)

    def _end(self, what: str, which: int) -> Chain:
        if self._ends is None:
            raise ValueError(
                f"{self.name}: a layer has an {what} once it is in a built model, or was called on an Input."
            )
        return self._ends[which]

    # ------------------------------------------------------------------------------------ weights

    @property
    def compute_dtype(self) -> str:
        """What the layer computes in: its dtype, as are input_dtype and variable_dtype."""
        return self.dtype

    input_dtype = variable_dtype = compute_dtype

    @property
    def trainable(self) -> bool:
        """Whether training updates the parameters. A change counts for a model when it is compiled next."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)

    def variable(self, name: str) -> Variable:
        """A weight by its name, without a copy. Errors: KeyError for a name that there is not."""
        trained = name in self.parameters
        array = self.parameters[name] if trained else self.state[name]
        if name not in self._variables or self._variables[name].base is not array:
            self._variables[name] = variable(array, f"{self.path}/{name}")
        self._variables[name].trainable = trained and self.trainable
        return self._variables[name]

    @property
    def path(self) -> str:
        """Where the layer stands, its name in the model that built it: "sequential/dense"."""
        return f"{self.scope}{self.name}"

    @property
    def weights(self) -> list[Variable]:
        """The parameters and the state themselves, in order: writing to one changes the layer."""
        return [self.variable(name) for name in (*self.parameters, *self.state)]

    @property
    def trainable_weights(self) -> list[Variable]:
        """The parameters that training updates."""
        return [weight for weight in self.weights if weight.trainable]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that training does not update."""
        return [weight for weight in self.weights if not weight.trainable]

    @property
    def variables(self) -> list[Variable]:
        """The weights, and the state of the layer's random seed if it has one."""
        generator = getattr(self, "seed_generator", None)
        if generator is None:
            return self.weights
        state = variable(generator.state, "seed_generator/seed_generator_state")
        state.trainable = False
        return [*self.weights, state]

    @property
    def trainable_variables(self) -> list[Variable]:
        """The same as trainable_weights."""
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """The variables that training does not update."""
        return [found for found in self.variables if not found.trainable]

    @property
    def losses(self) -> list[Any]:
        """The penalties of this layer's regularizers at the present weights; none while it is not trainable."""
        if not self.trainable:
            return []
        return [
            self.regularizers[name](parameter)
            for name, parameter in self.parameters.items()
            if name in self.regularizers
        ]

    def get_weights(self) -> list[Array]:
        """Copies of the weights, in order."""
        return [np.array(weight) for weight in self.weights]

    def set_weights(self, weights: list[Any]) -> None:
        """Write the weights, in order. Errors: ValueError, and nothing written, if one does not fit."""
        self._require_built("set_weights")
        names = [f"{self.name}/{name}" for name in (*self.parameters, *self.state)]
        shapes = [weight.shape for weight in self.weights]
        arrays = checks.same_shapes("set_weights", names, shapes, self.dtype, weights)
        for weight, array in zip(self.weights, arrays, strict=True):
            weight[...] = array

    def count_params(self) -> int:
        """The number of scalars in the weights. Errors: ValueError if the layer is not built."""
        self._require_built("count_params")
        return sum(math.prod(weight.shape) for weight in self.weights)

    def _require_built(self, what: str) -> None:
        if not self.built:
            raise ValueError(
                f"{what}: layer {self.name!r} is not built, so it has no weights yet. Give its input shape "
                f"(Input(shape=…) or input_shape=…), call build(input_shape), or call it on data first."
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


class Chain:
    """Layers called one on the other, from an Input on: what stands for their outputs until a Model is made of it."""

    def __init__(self, source: Any, layers: tuple[Layer, ...], shape: Shape) -> None:
        self.source, self.layers, self.shape = source, layers, shape

    def then(self, layer: Layer, *, training: bool = False) -> Chain:
        """The chain with one more layer, which is built for it, and knows its input and output from now on.

        training: False; fit and predict set it, in Keras too, whatever a layer was called with.
        Errors: NotImplementedError for training=True.
        """
        checks.refuse_unsupported(layer.name, training=(training or False, False))
        if not layer.built:
            layer.build(self.shape)
        layer.check_input(self.shape)
        layer.output_shape = layer.compute_output_shape(self.shape)
        layer._ends = self, Chain(self.source, (*self.layers, layer), layer.output_shape)
        return layer.output

    def __repr__(self) -> str:
        return f"<Chain of {[layer.name for layer in self.layers]}, shape={self.shape}>"


def serialized(module: ModuleType, found: Any) -> Any:
    """module.serialize(found), for get_config; None stays None."""
    return None if found is None else module.serialize(found)


def sample_shape(where: str, shape: Any) -> tuple[int | None, ...]:
    """A sample's shape as a tuple of positive ints, (features,) or (…, features); None where a size may vary.

    Errors: ValueError for anything else.
    """
    if isinstance(shape, (int, np.integer)):
        raise ValueError(f"{where}: the shape of a sample must be a tuple, such as ({shape},); got {shape!r}.")
    if shape is None or isinstance(shape, str) or not hasattr(shape, "__iter__") or not list(shape):
        raise ValueError(f"{where}: the shape of a sample must be (features,), such as (4,); got {shape!r}.")
    *inner, width = shape
    sizes = [None if size is None else checks.positive_int(where, "a size in the shape", size) for size in inner]
    return (*sizes, checks.positive_int(where, "the number of features", width))


def batch_shape(where: str, shape: Any) -> tuple[int | None, ...]:
    """A batch's shape as (None, …, features). Errors: ValueError for anything else."""
    if not isinstance(shape, (tuple, list)) or len(shape) < 2:
        raise ValueError(f"{where}: the shape of a batch must be (None, features), such as (None, 4); got {shape!r}.")
    return (None, *sample_shape(where, shape[1:]))
