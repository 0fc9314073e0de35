"""Activations by name, as Keras resolves them: a string, one of these functions, or a framework's own.

Each is called as in Keras, `activations.gelu(x, approximate=True)`. In a layer it has Keras's defaults, or the
arguments of `activations.gelu.with_arguments(approximate=True)`. One of your own is given with its derivative:

    cube = Activation("cube", lambda x: x**3, lambda d_outputs, x: d_outputs * 3 * x**2, needs_inputs=True)
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import config, ops, serialization
from minidl.backend import Array
from minidl.naming import unknown_name


@dataclass(frozen=True)
class Activation:
    """A function of arrays with its backward. Called, it is the function; a list or integers are made floats first.

    forward(inputs) -> outputs. backward(d_outputs, outputs) -> d_inputs, or with needs_inputs backward(d_outputs,
    inputs). Arguments are keywords of both, in Keras's order. renamed: other names of theirs, (new, old) pairs.
    has_logits: a cross-entropy takes the inputs in place of the outputs, see training.loss_inputs. config: what
    serialize returns, where that is not the name.
    """

    name: str
    forward: Callable[..., Array]
    backward: Callable[..., Array]
    needs_inputs: bool = False
    renamed: tuple[tuple[str, str], ...] = ()
    has_logits: bool = False
    config: Any = dataclasses.field(default=None, compare=False)

    def gradient(self, d_outputs: Array, inputs: Array, outputs: Array) -> Array:
        """dL/d(outputs) -> dL/d(inputs), for outputs = forward(inputs)."""
        return self.backward(d_outputs, inputs if self.needs_inputs else outputs)

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Array:
        array = x if hasattr(x, "dtype") else np.asarray(x, config.floatx())
        if array.dtype.kind in "biu":
            array = array.astype(config.floatx())
        return self.forward(array, **self._arguments(args, kwargs)) if args or kwargs else self.forward(array)

    def with_arguments(self, **arguments: Any) -> Activation:
        """This activation with other arguments than the defaults, for a layer.

        Errors: TypeError for an argument that it does not have. It cannot be written into a config, as in Keras.
        """
        arguments = self._arguments((), arguments)
        forward = functools.partial(self.forward, **arguments)
        return dataclasses.replace(self, forward=forward, backward=functools.partial(self.backward, **arguments))

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """args and kwargs by the names that forward knows. Errors: TypeError for one that it does not have."""
        signature = inspect.signature(self.forward).parameters.values()
        names = [p.name for p in signature if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "out"]
        renamed = dict(self.renamed)
        given = {renamed.get(name, name): value for name, value in kwargs.items()}
        known = [name for name in names if name not in renamed.values()] + list(renamed)
        for name in kwargs:
            if name not in known:
                raise TypeError(
                    f"{self.name}: unexpected argument {name!r}; it has {', '.join(known) or 'no arguments'}."
                )
        if len(args) > len(names) or set(names[: len(args)]) & set(given):
            raise TypeError(
                f"{self.name}: takes the inputs and {', '.join(known) or 'nothing'}; got too many arguments."
            )
        return {**dict(zip(names, args, strict=False)), **given}

    @property
    def __name__(self) -> str:
        return self.name


def _of_outputs(name: str) -> Activation:
    return Activation(name, getattr(ops, name), getattr(ops, f"{name}_backward"))


def _of_inputs(name: str) -> Activation:
    return Activation(name, getattr(ops, name), getattr(ops, f"{name}_backward"), needs_inputs=True)


celu = _of_inputs("celu")
elu = _of_inputs("elu")
exponential = _of_outputs("exponential")
gelu = _of_inputs("gelu")
glu = _of_inputs("glu")
hard_shrink = _of_inputs("hard_shrink")
hard_sigmoid = _of_inputs("hard_sigmoid")
hard_silu = hard_swish = _of_inputs("hard_silu")
hard_tanh = _of_inputs("hard_tanh")
leaky_relu = _of_inputs("leaky_relu")
linear = _of_outputs("linear")
log_sigmoid = _of_inputs("log_sigmoid")
log_softmax = _of_outputs("log_softmax")
mish = _of_inputs("mish")
relu = _of_inputs("relu")
relu6 = _of_outputs("relu6")
selu = _of_outputs("selu")
sigmoid = dataclasses.replace(_of_outputs("sigmoid"), has_logits=True)
silu = swish = _of_inputs("silu")
soft_shrink = _of_inputs("soft_shrink")
softmax = dataclasses.replace(_of_outputs("softmax"), has_logits=True)
softplus = _of_inputs("softplus")
softsign = _of_inputs("softsign")
sparse_plus = _of_inputs("sparse_plus")
sparse_sigmoid = _of_inputs("sparse_sigmoid")
sparsemax = _of_inputs("sparsemax")
squareplus = _of_inputs("squareplus")
tanh = _of_outputs("tanh")
tanh_shrink = _of_inputs("tanh_shrink")
threshold = _of_inputs("threshold")

_BY_NAME = {name: value for name, value in globals().items() if isinstance(value, Activation)}
_FRAMEWORKS = ("tensorflow", "keras", "jax", "torch", "minidl")
_OTHER_DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {  # of functions that elsewhere have the same name
    ("jax", "leaky_relu"): {"negative_slope": 0.01},
    ("torch", "leaky_relu"): {"negative_slope": 0.01},
    ("jax", "gelu"): {"approximate": True},
}


def serialize(activation: Activation) -> Any:
    """The activation as Keras writes it into JSON: its name, or for one of your own Keras's dict of a function.

    Errors: ValueError for one with arguments, which Keras writes no better.
    """
    if activation.config is not None:
        return activation.config
    if activation.name not in _BY_NAME:
        return serialization.function_config(activation.name)
    if activation.forward is not _BY_NAME[activation.name].forward:
        raise ValueError(
            f"The activation {activation.name!r} has other arguments or another forward than Keras's of that name, and "
            f"a config holds the name only. Use a layer for it, such as ReLU(max_value=6), or give your own another."
        )
    return activation.name


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Activation:
    """The activation of a serialize(), Keras's too; custom_objects: name -> Activation of your own ones."""
    own: dict[str, Any] = custom_objects or {}
    name = config.get("config") if isinstance(config, dict) and config.get("class_name") == "function" else config
    return get(own[name] if isinstance(name, str) and name in own else config)


def get(identifier: Any) -> Activation:
    """The activation for None (linear), a name, an Activation, or a framework's function such as tf.nn.relu.

    Also for a layer that is one, such as ReLU(max_value=6), for Keras's dict of a function, and for a functools.partial
    of any of these with keywords. A function is known by its name, and only if a framework made it: somebody's own
    function called relu need not be one, and has no backward here: it carries its elementwise derivative as an
    attribute that Keras ignores, function.gradient = a function of the inputs.
    Errors: ValueError for an unknown name (with the nearest ones) or another function.
    """
    if identifier is None:
        return linear
    if isinstance(identifier, Activation):
        return identifier
    if isinstance(identifier, dict) and identifier.get("class_name") == "function":
        identifier = identifier.get("config")
    if isinstance(identifier, str):
        own = serialization.get_registered_object(identifier)
        if isinstance(own, Activation):
            return own
        if identifier not in _BY_NAME:
            raise ValueError(unknown_name("activation", identifier, _BY_NAME))
        return _BY_NAME[identifier]
    if hasattr(identifier, "as_activation"):
        found: Activation = identifier.as_activation()
        return found
    if isinstance(identifier, functools.partial) and not identifier.args:
        return get(identifier.func).with_arguments(**identifier.keywords)
    name = getattr(identifier, "__name__", type(identifier).__name__).removesuffix("_v2")
    library = (getattr(identifier, "__module__", None) or "").split(".")[0]
    if name in _BY_NAME and library in _FRAMEWORKS:
        arguments = _OTHER_DEFAULTS.get((library, name))
        return _BY_NAME[name].with_arguments(**arguments) if arguments else _BY_NAME[name]
    if callable(identifier) and callable(getattr(identifier, "gradient", None)):
        return _own(name, identifier)
    raise ValueError(
        f"Unknown activation: {identifier!r}. Pass one of the names {', '.join(_BY_NAME)}, or a framework's "
        f"function of that name, such as tf.nn.relu; a function of your own has no backward known here: give it one, "
        f"function.gradient = the elementwise derivative as a function of the inputs, or "
        f"minidl.activations.Activation(name, forward, backward)."
    )


def _own(name: str, function: Any) -> Activation:
    """The activation of a function of the inputs that carries its elementwise derivative."""

    def forward(inputs: Array) -> Array:
        return np.asarray(function(inputs)).astype(inputs.dtype, copy=False)

    def backward(d_outputs: Array, inputs: Array) -> Array:
        slope = np.asarray(function.gradient(inputs))
        if slope.shape != inputs.shape:
            raise ValueError(f"{name}: gradient must have the inputs' shape {inputs.shape}; got {slope.shape}.")
        return d_outputs * slope.astype(inputs.dtype, copy=False)

    return Activation(name, forward, backward, needs_inputs=True)


def for_layer(where: str, identifier: Any) -> Activation:
    """get, for the activation of a layer. where: the layer's class, for the errors.

    Errors: NotImplementedError for glu: it halves the width, and Keras's layers say that it stays, so that the next
    layer does not fit, in Keras either; ValueError for threshold without its arguments, which have no defaults.
    """
    found = get(identifier)
    if found.name == "glu":
        raise NotImplementedError(
            f"{where}: glu halves the width of its inputs, but Keras builds the next layer for all of it, and then "
            f"fails; it cannot be a layer's activation. Call activations.glu(x) on arrays."
        )
    if found is threshold:
        raise ValueError(
            f"{where}: threshold needs its arguments: activations.threshold.with_arguments(threshold=…, "
            f"default_value=…)."
        )
    return found
