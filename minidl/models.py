"""Models: stacks of layers, themselves layers. What a compiled model can do is in trainer.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from minidl import checks, config, saving
from minidl import device as devices
from minidl.arena import Arena
from minidl.backend import Array
from minidl.layers import Chain, InputLayer, Layer, Shape, batch_shape, sample_shape
from minidl.random import SeedGenerator
from minidl.saving import load_model, save_model
from minidl.saving.objects import (
    MODELS,
    custom_objects_of,
    deserialize_layer,
    deserialize_model,
    serialize_layer,
    serialize_model,
)
from minidl.trainer import Trainer
from minidl.training import forward
from minidl.variables import Variable

__all__ = ["Functional", "Model", "Sequential", "clone_model", "load_model", "model_from_json", "save_model"]


_OF_AUTOGRAD = ("call", "train_step", "test_step", "predict_step", "compute_loss", "compute_metrics")  # Keras's methods


class Model(Trainer):
    """Layers in a row, each taking the outputs of the one before; a model may itself be a layer of another.

    Model(inputs, outputs) makes a Functional; see also Sequential. Built, all parameters that are trained lie in one
    arena, and the layers' are views of it.
    Errors: NotImplementedError for a class of one's own derived from Model, with a call(): minidl has no autograd.
    """

    keras_module: ClassVar[str] = "keras"  # where Keras has the class

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is Model:
            return super().__new__(Functional)
        own = [name for name in _OF_AUTOGRAD if any(name in vars(base) for base in cls.__mro__[: -len(Model.__mro__)])]
        if own and issubclass(cls, (Sequential, Functional)):
            raise NotImplementedError(
                f"{cls.__name__}: a {own[0]}() of one's own would be ignored: minidl's steps are fixed, since it has "
                f"no autograd. Use callbacks, or losses, metrics and layers of your own."
            )
        if not issubclass(cls, (Sequential, Functional)):
            raise NotImplementedError(
                f"{cls.__name__}: a model with a call() of its own needs autograd, which minidl does not have; put "
                f"the layers in a Sequential, or chain them and pass Model(inputs, outputs)."
            )
        return super().__new__(cls)

    def __init__(self, *, name: str | None = None, trainable: bool = True) -> None:
        if name is not None and not isinstance(name, str):
            raise ValueError(f"{type(self).__name__}: name must be a string; got {name!r}.")
        self._layers: list[Layer] = []
        self._flat_layers: list[Layer] = []
        self._input: InputLayer | None = None
        self._arena: Arena | None = None
        # (layer, name, its view of θ, its view of the gradients), in the arena's order
        self._placed: list[tuple[Layer, str, Array, Array]] = []
        super().__init__(name=name, trainable=trainable)

    @property
    def layers(self) -> list[Layer]:
        """The layers in order, without the Input."""
        return list(self._layers)

    def flat_layers(self) -> list[Layer]:
        """The layers in order, those of a model within this one in its place."""
        return self._flat_layers

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of a name or at an index. Errors: ValueError if there is none, or not one of both is given."""
        if (name is None) == (index is None):
            raise ValueError("get_layer: give either a name or an index.")
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(f"get_layer: index {index} of a model with {len(layers)} layers.")
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        raise ValueError(f"get_layer: no layer named {name!r}; there are {[layer.name for layer in layers]}.")

    def _note_flat_layers(self) -> None:
        self._flat_layers = [inner for layer in self._layers for inner in layer.flat_layers()]

    def build(self, input_shape: Shape) -> None:
        """Build the layers for batches of shape (None, features) and gather their parameters in one arena.

        Errors: ValueError if there is no layer, the shape is not (None, …, features), it differs from the shape that
        the model was built for, or the layers' dtypes differ.
        """
        if not self._layers:
            raise ValueError(f"{self.name}: a model without layers cannot be built; add one first.")
        shape = batch_shape(self.name, input_shape)[1:]
        if self._input is not None and self._input.batch_shape[1:] != shape:
            raise ValueError(f"{self.name}: built for inputs of shape {self._input.batch_shape[1:]}; got {shape}.")
        dtypes = {layer.dtype for layer in self._layers}
        if len(dtypes) > 1:
            raise ValueError(f"{self.name}: all layers must have one dtype; got {[la.dtype for la in self._layers]}.")
        (self.dtype,) = dtypes
        if self._input is None:
            self._input = InputLayer(shape, dtype=self.dtype)
        chain: Chain = self._input
        for layer in self._layers:
            if not layer.built:
                layer.scope = f"{self.name}/"
            chain = chain.then(layer)
        self._ends = self._input, chain
        self.output_shape = chain.shape
        self._note_flat_layers()
        if len({id(layer) for layer in self._flat_layers}) < len(self._flat_layers):
            raise NotImplementedError(
                f"{self.name}: a layer stands in it twice, which minidl does not support; make a second layer."
            )
        self._gather_parameters()
        self.built = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        for layer in self._layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def check_input(self, input_shape: Shape) -> None:
        if self._layers:
            self._layers[0].check_input(input_shape)

    def forward(self, inputs: Array, *, training: bool = False) -> Array:
        """Each layer on the outputs of the one before;  (B, I) -> (B, U)."""
        return forward(self, inputs, training=training)

    def backward(self, d_outputs: Array) -> Array:
        """dL/d(outputs), (B, U) -> dL/d(inputs), (B, I), of the last forward."""
        for layer in reversed(self._flat_layers):
            d_outputs = layer.backward(d_outputs)
        return d_outputs

    def finish_step(self) -> None:
        for layer in self._flat_layers:
            layer.finish_step()

    # ---------------------------------------------------------------------------------- the arena

    def _gather_parameters(self) -> None:
        """Move every parameter that is trained into one arena; the layers keep views."""
        owners = [(layer, name) for layer in self._flat_layers if layer.trainable for name in layer.parameters]
        shapes = [(layer.name, name, layer.parameters[name].shape) for layer, name in owners]
        self._arena = Arena(shapes, self.dtype)
        views = self._arena.views(self._arena.theta), self._arena.views(self._arena.grads)
        self._placed = [(layer, name, *pair) for (layer, name), *pair in zip(owners, *views, strict=True)]
        self._take_back()

    def _take_back(self) -> None:
        """Point the layers at this model's arena, where another model that shares them has pointed them at its own."""
        for layer, name, parameter, gradient in self._placed:
            if layer.parameters[name] is not parameter:
                parameter[...] = layer.parameters[name]
                layer.parameters[name], layer.grads[name] = parameter, gradient

    def gather_if_frozen_or_thawed(self) -> None:
        """Gather anew if `trainable` was changed since; compile does it, and the first step of an optimizer."""
        trained = [layer for layer in self._flat_layers if layer.trainable and layer.parameters]
        if self.built and trained != list(dict.fromkeys(layer for layer, *_ in self._placed)):
            self._gather_parameters()

    @property
    def arena(self) -> Arena:
        """The flat buffers of all parameters and gradients. Errors: ValueError if the model is not built."""
        self._require_built("arena")
        assert self._arena is not None
        self._take_back()
        return self._arena

    def set_dtype(self, dtype: str) -> None:
        """Go on in another float type, with the same weights. Errors: ValueError unless built and not yet trained."""
        self._require_built("set_dtype")
        if self._optimizer is not None and self._optimizer.built:
            raise ValueError("set_dtype: the optimizer holds a state already; set the dtype before training.")
        self.dtype = config.standardize_dtype(dtype)
        for layer in self._flat_layers:
            layer.dtype = self.dtype
            for arrays in (layer.parameters, layer.grads, layer.state):
                floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}  # not a count
                arrays.update({name: array.astype(self.dtype) for name, array in floats.items()})
        self._gather_parameters()

    @property
    def input_shape(self) -> Shape:
        """(None, features). Errors: ValueError if the model is not built."""
        self._require_built("input_shape")
        assert self._input is not None
        return self._input.batch_shape

    @property
    def inputs(self) -> list[Chain]:
        """[input], as Keras lists them."""
        return [self.input]

    @property
    def outputs(self) -> list[Chain]:
        """[output], as Keras lists them."""
        return [self.output]

    @property
    def output_shape(self) -> Any:
        """(None, units). Errors: ValueError if the model is not built."""
        self._require_built("output_shape")
        return self._output_shape

    @output_shape.setter
    def output_shape(self, shape: Any) -> None:
        self._output_shape = shape

    def _require_built(self, what: str) -> None:
        if not self.built:
            raise ValueError(
                f"{what}: model {self.name!r} is not built, so it has no weights yet. Put Input(shape=(features,)) "
                f"first, give the first layer input_shape=(features,), call build((None, features)), or fit it."
            )

    # ------------------------------------------------------------------------------------ weights

    @property
    def trainable(self) -> bool:
        """Whether training updates the parameters; setting it sets it for all layers."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for layer in self._layers:
            layer.trainable = value

    @property
    def weights(self) -> list[Variable]:
        """The weights of all layers, in order: writing to one changes the model."""
        return [weight for layer in self._layers for weight in layer.weights]

    @property
    def trainable_weights(self) -> list[Variable]:
        """The parameters that training updates, in order."""
        if not self.trainable:
            return []
        return [weight for layer in self._layers for weight in layer.trainable_weights]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that training does not update, in order."""
        if not self.trainable:
            return self.weights
        return [weight for layer in self._layers for weight in layer.non_trainable_weights]

    @property
    def variables(self) -> list[Variable]:
        """The weights, and the states of the layers' random seeds."""
        return [variable for layer in self._layers for variable in layer.variables]

    def set_weights(self, weights: list[Any]) -> None:
        """Write all weights. Errors: ValueError, and not one written, if the number or a shape is wrong."""
        self._require_built("set_weights")
        names = [f"{layer.name}/{name}" for layer in self._flat_layers for name in (*layer.parameters, *layer.state)]
        shapes = [weight.shape for weight in self.weights]
        arrays = checks.same_shapes(f"set_weights of {self.name}", names, shapes, self.dtype, weights)
        for weight, array in zip(self.weights, arrays, strict=True):
            weight[...] = array

    def get_state(self) -> dict[str, Array]:
        """Copies of all that training goes on from: weights, optimizer and random seeds, by name.

        "theta", the parameters that are trained, flat in the arena's order; "layer/name" of each other weight; once
        compiled "iterations", "learning_rate" and the slots ("m", "v"), flat as theta; "seed/0", "seed/1", …: the
        [seed, counter] of each layer that draws. A model set to this state takes the same next steps.
        """
        self._require_built("get_state")
        state = {"theta": self.arena.theta.copy()}
        state |= {name: weight.copy() for name, weight in self._other_weights().items()}
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
        for name, weight in self._other_weights().items():
            weight[...] = values[name]
        if self._optimizer is not None:
            self._optimizer.set_state(values)
        for i, generator in enumerate(self._seed_generators()):
            generator.state[...] = values[f"seed/{i}"]

    def _other_weights(self) -> dict[str, Array]:
        """The weights outside the arena: of frozen layers, and what is kept but never trained."""
        placed = {(id(layer), name) for layer, name, *_ in self._placed}
        return {
            f"{layer.name}/{name}": weight
            for layer in self._flat_layers
            for name, weight in (layer.parameters | layer.state).items()
            if (id(layer), name) not in placed
        }

    def _seed_generators(self) -> list[SeedGenerator]:
        found = [getattr(layer, "seed_generator", None) for layer in self._flat_layers]
        return [generator for generator in found if generator is not None]

    def summary(
        self,
        line_length: int | None = None,
        positions: list[float] | None = None,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: list[str] | None = None,
    ) -> None:
        """Print the layers, their output shapes and parameter counts, in Keras's table; see summary.print_summary."""
        from minidl.summary import print_summary

        print_summary(
            self,
            line_length=line_length,
            positions=positions,
            print_fn=print_fn,
            expand_nested=expand_nested,
            show_trainable=show_trainable,
            layer_range=layer_range,
        )

    def _repr_html_(self) -> str:
        """The summary, where a notebook shows the model."""
        from minidl.summary import html_summary

        return html_summary(self)

    @property
    def losses(self) -> list[Any]:
        """The penalties of all regularizers at the present weights."""
        return [penalty for layer in self._flat_layers for penalty in layer.losses]

    def __call__(self, x: Any, training: bool = False) -> Any:
        """The outputs for x; with training=True, with dropout. Of an Input or a layer's outputs for one, as Layer's."""
        if isinstance(x, Chain):
            return x.then(self, training=training)
        devices.refuse_if_asked_for("model(x)")
        outputs = self.forward(self.checked_features(x, check_finite=False), training=bool(training))
        if training:
            self.finish_step()
        return outputs

    def _input_dtype(self) -> str:
        return self._layers[0].dtype if self._layers else self.dtype

    def _input_name(self) -> str | None:
        return None if self._input is None else self._input.name

    def _output_name(self) -> str | None:
        return self._layers[-1].name if self._layers else None

    def checked_features(self, x: Any, *, check_finite: bool) -> Array:
        """x as an array that fits the model; builds the model if this is its first data."""
        if not self._layers:
            raise ValueError(f"{self.name}: a model without layers has nothing to compute; add one first.")
        x = checks.of_one("x", x, self._input_name())
        shape = None if self._input is None else self._input.batch_shape[1:]
        array = checks.features(x, self._layers[0].dtype, shape, check_finite=check_finite)
        if not self.built:
            self.build((None, *array.shape[1:]))
        return array

    # -------------------------------------------------------------------------------- JSON and files

    def get_build_config(self) -> dict[str, Any] | None:
        """The shape that the model is built for, as Keras writes it."""
        return {"input_shape": list(self.input_shape)} if self.built else None

    def to_json(self, **kwargs: Any) -> str:
        """The architecture, and what compile was given, as JSON that Keras reads too; kwargs: json.dumps's.

        Errors: TypeError or ValueError for what cannot be written, such as a lambda.
        """
        return json.dumps(serialize_model(self), **kwargs)

    def save(self, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
        """Write the model to a .keras file; see saving.save_model."""
        saving.save_model(self, filepath, overwrite, zipped, **kwargs)

    def save_weights(self, filepath: Any, overwrite: bool = True, max_shard_size: Any = None) -> None:
        """Write the weights to a .weights.h5 or .safetensors file; see saving.save_weights."""
        saving.save_weights(self, filepath, overwrite, max_shard_size)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Take over the weights of a file; see saving.load_weights."""
        saving.load_weights(self, filepath, skip_mismatch, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the bytes of a file, and the classes and functions of the user's own, by reference."""
        return saving.from_bytes, (saving.to_bytes(self), custom_objects_of(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo[id(self)] = saving.from_bytes(saving.to_bytes(self), custom_objects_of(self))
        return copied

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, layers={len(self._layers)}, built={self.built}>"


class Sequential(Model):
    """A list of layers. With an Input first, or input_shape on the first layer, it is built at once.

    Otherwise it is built by build(), or by its first data.
    """

    def __init__(self, layers: list[Layer] | None = None, trainable: bool = True, name: str | None = None) -> None:
        if layers is not None and not isinstance(layers, (list, tuple)):
            raise TypeError(f"Sequential takes a list of layers; got {layers!r} of type {type(layers).__name__}.")
        super().__init__(name=name, trainable=trainable)
        for layer in layers or []:
            self._append(layer)
        self._build_if_known()
        if not trainable:
            self.trainable = False

    def get_config(self) -> dict[str, Any]:
        given = [] if self._input is None else [self._input]
        found = {**super().get_config(), "layers": [serialize_layer(layer) for layer in (*given, *self._layers)]}
        return {**found, "build_input_shape": list(self.input_shape)} if self.built else found

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The model of a get_config(), Keras's too, with weights drawn anew. Errors: ValueError."""
        if not isinstance(config.get("layers"), list) or "name" not in config:
            raise ValueError(f"The config of a Sequential has a name and layers; got the keys {sorted(config)}.")
        with saving.CustomObjectScope(custom_objects):
            found = cls([deserialize_layer(layer) for layer in config["layers"]], name=config["name"])
        shape = config.get("build_input_shape")
        if shape and not found.built:
            found.build(tuple(shape))
        return found

    def add(self, layer: Layer, rebuild: bool = True) -> None:
        """Put a layer on top. Errors: TypeError for anything else; ValueError for a name that is taken."""
        before = list(self._layers), self._input, self._arena, self.built
        try:
            self._append(layer)
            if rebuild:
                self._build_if_known()
        except Exception:
            self._layers, self._input, self._arena, self.built = before
            self._note_flat_layers()
            raise

    def pop(self, rebuild: bool = True) -> Layer:
        """Take the last layer off and return it. Errors: ValueError if there is none."""
        if not self._layers:
            raise ValueError(f"{self.name}: there is no layer to pop.")
        layer = self._layers.pop()
        for inner in layer.flat_layers():  # no longer views of this model's arena
            inner.parameters = {name: parameter.copy() for name, parameter in inner.parameters.items()}
            inner.grads = {name: np.zeros_like(parameter) for name, parameter in inner.parameters.items()}
        self._restacked()
        if rebuild:
            self._build_if_known()
        return layer

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
        if not self._layers and self._input is None:
            shape = layer.input_shape_argument
            if shape is not None:
                self._input = InputLayer(sample_shape(layer.name, shape), dtype=layer.dtype)
            elif isinstance(layer, Model) and layer._input is not None:
                self._input = InputLayer(layer._input.batch_shape[1:], dtype=layer.dtype)
        self._layers.append(layer)
        self._restacked()

    def _restacked(self) -> None:
        """Note that the layers are others now: what was built for the old ones is no more."""
        self._arena = None
        self.built = False
        self._note_flat_layers()

    def _build_if_known(self) -> None:
        if self._input is not None and self._layers and not self.built:
            self.build(self._input.batch_shape)


class Functional(Model):
    """Model(inputs, outputs): the chain of layers from an Input to outputs, outputs = last(…first(inputs)).

    inputs: an Input; outputs: what the last layer returned when called on the one before. A model with several inputs
    or outputs, or with branches, is refused.
    Errors: TypeError for other inputs and outputs; ValueError if outputs do not stem from inputs.
    """

    keras_module = "keras.src.models.functional"

    def __init__(
        self,
        inputs: Any = None,
        outputs: Any = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        for what, found in (("inputs", inputs), ("outputs", outputs)):
            if (isinstance(found, (list, tuple)) and len(found) > 1) or isinstance(found, dict):
                raise NotImplementedError(
                    f"Model: several {what}: minidl trains one chain of layers from one Input to one output."
                )
        (inputs,) = inputs if isinstance(inputs, (list, tuple)) else (inputs,)
        (outputs,) = outputs if isinstance(outputs, (list, tuple)) else (outputs,)
        if not isinstance(inputs, InputLayer) or not isinstance(outputs, Chain):
            raise TypeError(
                f"Model: inputs must be an Input, and outputs what a layer returned when called on it; got {inputs!r} "
                f"and {outputs!r}."
            )
        if outputs.source is not inputs:
            raise ValueError(f"Model: outputs stem from the Input {outputs.source.name!r}, not from {inputs.name!r}.")
        super().__init__(name=name, trainable=trainable)
        self._input, self._layers = inputs, list(outputs.layers)
        self.build(inputs.batch_shape)
        if not trainable:
            self.trainable = False

    @property
    def layers(self) -> list[Layer]:
        """The layers in order, the Input first."""
        assert self._input is not None
        return [self._input, *self._layers]

    def get_build_config(self) -> dict[str, Any] | None:
        return {"input_shape": None}

    def get_config(self) -> dict[str, Any]:
        """As Keras writes it: each layer with the tensor that it was called on."""
        written: list[dict[str, Any]] = []
        shape: Shape = ()
        for layer in self.layers:
            called_on = []
            if written:
                history = [written[-1]["name"], 0, 0]
                tensor = {"shape": list(shape), "dtype": self.dtype, "keras_history": history}
                called_on = [{"args": [{"class_name": "__keras_tensor__", "config": tensor}], "kwargs": {}}]
            written.append({**serialize_layer(layer), "name": layer.name, "inbound_nodes": called_on})
            shape = layer.output_shape
        return {
            "name": self.name,
            "trainable": self.trainable,
            "layers": written,
            "input_layers": [written[0]["name"], 0, 0],
            "output_layers": [written[-1]["name"], 0, 0],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The model of a get_config(), Keras's too, with weights drawn anew.

        Errors: ValueError for anything but a chain of layers, each called once on the one before.
        """
        layers = _chain(config)
        with saving.CustomObjectScope(custom_objects):
            first, *others = [deserialize_layer(layer) for layer in layers]
        outputs: Any = first
        for layer in others:
            outputs = layer(outputs)
        return cls(first, outputs, name=config["name"])


def _chain(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of a Functional's config from the first to the last. Errors: ValueError if they are no chain."""
    layers = config.get("layers")
    if not isinstance(layers, list) or not layers or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError("The config of a Model has a list of layers.")
    ends = [_only(config.get(key)) for key in ("input_layers", "output_layers")]
    after: dict[Any, dict[str, Any]] = {}
    for layer in layers:
        nodes = layer.get("inbound_nodes")
        source = None
        if nodes:
            if len(nodes) > 1 or len(nodes[0].get("args", [])) != 1 or any(nodes[0].get("kwargs", {}).values()):
                raise _no_chain(f"layer {layer.get('name')!r} is called more than once, or with more than its inputs")
            tensor = nodes[0]["args"][0]
            if not isinstance(tensor, dict) or tensor.get("class_name") != "__keras_tensor__":
                raise _no_chain(f"layer {layer.get('name')!r} is called on several inputs")
            source = tensor["config"]["keras_history"][0]
        if source in after:
            raise _no_chain(f"{source!r} goes into several layers" if source else "there are several Inputs")
        after[source] = layer
    found = [after.get(None, {})]
    while len(found) < len(layers) and found[-1].get("name") in after:
        found.append(after[found[-1]["name"]])
    if len(found) < len(layers) or [found[0].get("name"), found[-1].get("name")] != ends:
        raise _no_chain("its layers do not follow each other from its input to its output")
    return found


def _only(ends: Any) -> Any:
    """The name of the one input or output, which Keras writes as [name, 0, 0], or as a list of one such."""
    if isinstance(ends, list) and len(ends) == 1:
        (ends,) = ends
    if not isinstance(ends, list) or len(ends) != 3 or not isinstance(ends[0], str):
        raise _no_chain("it has several inputs or outputs")
    return ends[0]


def _no_chain(reason: str) -> ValueError:
    return ValueError(f"The model is no chain of layers, which is all that minidl trains: {reason}.")


def model_from_json(json_string: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model of a to_json(), Keras's too, with weights drawn anew; compiled, if it was.

    custom_objects: name -> class or function of your own. Errors: ValueError.
    """
    config = json.loads(json_string)
    if not isinstance(config, dict):
        raise ValueError(f"model_from_json: the JSON of a model is a dict; got {type(config).__name__}.")
    return deserialize_model(config, custom_objects)


def clone_model(
    model: Any,
    input_tensors: Any = None,
    clone_function: Callable[[Layer], Layer] | None = None,
    call_function: Any = None,
    recursive: bool = False,
    **kwargs: Any,
) -> Any:
    """A model of the same layers with weights drawn anew, compiled as this one is; objects without a seed draw one.

    clone_function: layer -> the layer to stand in its place; None makes one from its config. recursive: also for the
    layers of models within it. Errors: NotImplementedError for input_tensors and call_function.
    Source: keras.models.clone_model.
    """
    checks.refuse_unknown("clone_model", kwargs, ["clone_function", "recursive"])
    checks.refuse_unsupported("clone_model", input_tensors=(input_tensors, None), call_function=(call_function, None))
    if not isinstance(model, Model):
        raise ValueError(f"clone_model: expected a model; got {model!r}.")
    if clone_function is not None and not callable(clone_function):
        raise ValueError(f"clone_model: clone_function must be a function of a layer; got {clone_function!r}.")

    def cloned(layer: Layer) -> Layer:
        if recursive and isinstance(layer, Model):
            return clone_model(layer, clone_function=clone_function, recursive=True)
        return (clone_function or _from_own_config)(layer)

    given = [] if model._input is None else [_from_own_config(model._input)]
    with saving.CustomObjectScope(custom_objects_of(model)):
        layers = [cloned(layer) for layer in model._layers]
        if isinstance(model, Functional):
            outputs: Any = given[0]
            for layer in layers:
                outputs = layer(outputs)
            found: Any = Functional(given[0], outputs, name=model.name)
        else:
            found = Sequential([*given, *layers], name=model.name, trainable=model.trainable)
        if model.compiled:
            found.compile_from_config(model.get_compile_config())
    return found


def _from_own_config(layer: Layer) -> Layer:
    return type(layer).from_config(layer.get_config())


MODELS.update({"Sequential": Sequential, "Functional": Functional, "Model": Functional})
