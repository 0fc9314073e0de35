"""Watch Keras train: its own compiled fit, step by step, on TensorFlow, JAX or torch, without changing a bit of it.

Between the steps a callback reads weights, slots and seeds. Inside them, where the backend lets one look, the layers'
and the model's own methods are wrapped, on the instances, so that each hands on what passes through it. With
jit_compile=True TensorFlow's programs of XLA cannot be looked into, and torch's kernels come apart where they are, and
round otherwise: the batch is seen on its way in and nothing more until the step is done. On JAX a step is a function of
the state, and is run twice: a copy that is looked into, then the plain one, which alone counts. Where the two differ in
a bit, what was seen inside is not what happened, and is dropped.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minidl import random
from minidl.backend import Array
from minidl.oracle.steps import State, Step
from minidl.schedules import LearningRateSchedule

BACKENDS = ("tensorflow", "jax", "torch")


class CannotCheck(Exception):
    """The model or its training is outside of what minidl computes; the message names the part and says why."""


def installed_keras(backend: str | None = None) -> Any:
    """The module keras. Errors: ImportError, naming the extra, if it is missing or runs on another backend."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", backend or "tensorflow")
    try:
        import keras
    except ImportError as error:
        raise ImportError(f"Live Keras is not installed ({error}). Run: pip install 'minidl[keras]'") from error
    if backend not in (None, keras.backend.backend()):
        raise ImportError(f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND={backend} before its import.")
    return keras


class Recorder:
    """Trains a compiled Keras model by its own fit and hands on each step.

    twin: minidl's model of the same configuration, which tells the names of weights and slots. watch: whether to look
    inside the steps, where the backend allows it; without, weights, slots, seeds and logs are seen all the same.
    """

    def __init__(self, keras: Any, model: Any, twin: Any, *, watch: bool = True) -> None:
        self.keras, self.model, self.twin = keras, model, twin
        self.backend: str = keras.backend.backend()
        self.inside = watch and not (self.backend in ("tensorflow", "torch") and model.jit_compile)
        by_name = {layer.name: layer for layer in model._flatten_layers(include_self=False)}
        self.layers = [by_name[layer.name] for layer in twin.flat_layers()]
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self.seen: dict[Any, list[Array]] = {}
        self._looking = self._in_step = False
        self._noted_state: dict[int, Array] = {}
        self._noted: list[tuple[Any, list[Any]]] = []
        self._undo: list[tuple[dict[str, Any], str, Any]] = []
        self._weights = list(zip(_weight_names(twin), model.weights, strict=True))
        seeds = [
            layer.seed_generator.state for layer in self.layers if getattr(layer, "seed_generator", None) is not None
        ]
        self._variables = [*model.optimizer.variables, *(variable for _, variable in self._weights), *seeds]

    @property
    def mode(self) -> str:
        """How the step is run: "graph", "eager", "xla" (TensorFlow) or "jit" (JAX), "compile" (torch)."""
        if self.backend == "torch":
            return "compile" if self.model.jit_compile else "eager"
        if self.model.run_eagerly:
            return "eager"
        compiled = "xla" if self.backend == "tensorflow" else "jit"
        return compiled if self.model.jit_compile else "graph" if self.backend == "tensorflow" else "eager"

    # ----------------------------------------------------------------------------------- between steps

    def state(self) -> State:
        """Weights, slots, seeds and counts as they are now; within a step's end, as the step has noted them."""
        optimizer = self.model.optimizer
        variables = [self._array(variable) for variable in optimizer.variables]
        every = self.twin.optimizer.gradient_accumulation_steps or 1
        return State(
            weights={name: self._array(variable) for name, variable in self._weights},
            slots=self._slots(variables),
            iterations=int(variables[0]) // every,
            learning_rate=float(self._array(optimizer.learning_rate)),
            seeds={
                layer.name: self._array(layer.seed_generator.state)
                for layer in self.layers
                if getattr(layer, "seed_generator", None) is not None and self._is_seeded(layer)
            },
        )

    @property
    def noise_is_seeded(self) -> bool:
        """Whether the seeds of the layers tell all that is drawn at random in a step."""
        return all(self._is_seeded(layer) for layer in self.layers if getattr(layer, "seed_generator", None))

    def _is_seeded(self, layer: Any) -> bool:
        """On torch a Dropout without a seed of its own draws from torch's global generator: Dropout.draws_globally."""
        own = layer.seed if type(layer).__name__ == "Dropout" and layer.noise_shape is None else 0
        return self.backend != "torch" or own is not None

    def _slots(self, variables: list[Array]) -> dict[str, dict[str, Array]]:
        optimizer = self.twin.optimizer
        names = [f"{segment.layer}/{segment.name}" for segment in self.twin.arena.segments]
        scheduled = isinstance(optimizer.learning_rate_argument, LearningRateSchedule)
        values = iter(variables[1 if scheduled else 2 :])
        slots: dict[str, dict[str, Array]] = {slot: {} for slot in optimizer.slots}
        for group in optimizer._all_groups:
            for name in names:
                for slot in group:
                    slots[slot][name] = next(values)
        return slots | {name: {"": next(values)} for name in optimizer.scalars}

    def _generator_state(self) -> Array | None:
        """See Step. Source of torch's layout: CPUGeneratorImplStateLegacy, in aten/src/ATen/CPUGeneratorImpl.cpp."""
        if self.backend == "jax":
            _, words, position, *_ = np.random.get_state(legacy=True)
        elif self.backend == "torch":
            import torch

            state = torch.get_rng_state().numpy()
            words = state[24 : 24 + 8 * 624].view(np.uint64)
            position = 625 - int(state[8:12].view(np.int32)[0])  # 625 less what is left: of a new seed, all are used up
        else:
            return None
        return np.append(words, position).astype(np.uint32)

    def _array(self, variable: Any) -> Array:
        """A variable's or a tensor's numbers, a copy; or of a variable, those that the step has noted."""
        if id(variable) in self._noted_state:
            return self._noted_state[id(variable)]
        handle = getattr(getattr(variable, "_value", None), "handle", None) if self.backend == "tensorflow" else None
        if handle is not None and handle.dtype == "resource":  # as Keras reads it, in a third of the time
            import tensorflow as tf

            read = tf.raw_ops.ReadVariableOp(resource=handle, dtype=variable._value.dtype)
            return np.asarray(read.numpy())
        copied: Array = self.keras.ops.convert_to_numpy(variable)
        return copied

    # ------------------------------------------------------------------------------------------ the fit

    def fit(
        self, x: Any, y: Any, sink: Callable[[Step], None], *, most_steps: int | None = None, **arguments: Any
    ) -> Any:
        """keras_model.fit(x, y, **arguments), each step handed to sink as soon as it is done; returns its History.

        The model is left as after a plain fit, also where sink or fit raises.
        """
        with self.watching():
            return self.model.fit(x, y, callbacks=[self._callback(sink, most_steps)], verbose=0, **arguments)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, each of the model's training steps leaves what passes through it in seen; after, all is as before."""
        plain = self.model.train_function
        try:
            self._wrap()
            yield
        finally:
            while self._undo:
                attributes, name, value = self._undo.pop()
                if value is _ABSENT:
                    attributes.pop(name, None)
                else:
                    attributes[name] = value
            self.model.train_function = plain

    def _callback(self, sink: Callable[[Step], None], most_steps: int | None) -> Any:
        recorder, model = self, self.model

        class Watching(self.keras.callbacks.Callback):  # type: ignore[name-defined]
            number = epoch = 0

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self.epoch, self.shuffle_state = epoch, recorder._generator_state()

            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                if self.number == 0:
                    self.before = recorder.state()
                recorder.seen.clear()

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if hasattr(model, "jax_state_sync"):
                    model.jax_state_sync()
                with recorder._state_at_hand():
                    after = recorder.state()
                step = recorder.step(self.number, self.epoch, batch, self.before, after, logs)
                step.shuffle_state = self.shuffle_state
                self.before = after
                self.number += 1
                sink(step)
                if most_steps is not None and self.number >= most_steps:
                    model.stop_training = True

        return Watching()

    def step(self, number: int, epoch: int, batch: int, before: State, after: State, logs: Any) -> Step:
        """What was seen of the step that led from one state to the next."""
        seen = self.seen
        step = Step(number, epoch, batch, before, after)
        step.logs = {name: value for name, value in (logs or {}).items()}
        step.x, step.y, step.sample_weight = ((seen.get(name) or [None])[0] for name in ("x", "y", "sample_weight"))
        if not self.inside:
            return step
        of = {kind: {key[1]: value[0] for key, value in seen.items() if key[0] == kind} for kind in _KINDS}
        step.noise, step.activations, step.pre_activations = (of[kind] for kind in _KINDS)
        for layer in self.twin.flat_layers():  # of a linear layer the outputs are the pre-activations
            linear = layer.activation is not None and layer.activation.name == "linear"
            if linear and layer.name in step.activations:
                step.pre_activations.setdefault(layer.name, step.activations[layer.name])
        for name in ("data_loss", "loss", "noise_states"):
            if name in seen:
                setattr(step, name, seen[name][0])
        step.penalties = seen.get("penalties", [] if "data_loss" in seen else None)  # None: the inside was not seen
        if "gradients" in seen:
            names = [f"{segment.layer}/{segment.name}" for segment in self.twin.arena.segments]
            step.gradients = dict(zip(names, seen["gradients"], strict=True))
        return step

    # ------------------------------------------------------------------------------------ inside a step

    def note(self, key: Any, tensors: list[Any]) -> None:
        """Have the step hand on the tensors' numbers each time that it runs; outside of training steps nothing."""
        if not self._in_step:
            return
        seen = self.seen

        def keep(*values: Any) -> None:
            seen[key] = [np.array(value) for value in values]

        if self.backend == "tensorflow":
            self._noted.append((key, tensors))
        elif self.backend == "jax" and self._looking:
            import jax

            jax.debug.callback(keep, *tensors)
        else:
            keep(*(self._array(tensor) for tensor in tensors))

    def _note_state(self) -> None:
        """On TensorFlow, note all variables as the step leaves them: quicker than to read them one by one after it."""
        if self.backend == "tensorflow":
            import tensorflow as tf

            self.note("state", [tf.convert_to_tensor(variable.value) for variable in self._variables])

    @contextlib.contextmanager
    def _state_at_hand(self) -> Iterator[None]:
        """Inside, a variable is what the step has noted of it, where it has."""
        if "state" in self.seen:
            self._noted_state = dict(zip(map(id, self._variables), self.seen["state"], strict=True))
        try:
            yield
        finally:
            self._noted_state = {}

    def _hand_on(self) -> None:
        """On TensorFlow, all that was noted in one call of Python, at the end of the step."""
        noted, self._noted, seen = self._noted, [], self.seen
        if not noted:
            return
        import tensorflow as tf

        def keep(*values: Any) -> None:
            arrays = (one if isinstance(one, np.ndarray) else np.array(one) for one in values)
            for key, tensors in noted:
                seen[key] = [next(arrays) for _ in tensors]  # of a graph, TensorFlow's memory, which stays theirs

        tf.numpy_function(keep, [tensor for _, tensors in noted for tensor in tensors], [])

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        attributes = vars(owner)  # past __setattr__, which would track it
        self._undo.append((attributes, name, attributes.get(name, _ABSENT)))
        attributes[name] = value

    def _wrap(self) -> None:
        if self.backend == "jax":  # of the plain step before anything is wrapped
            self.model.make_train_function(force=True)
        plain = self.model.train_function
        if self.inside:
            for layer in self.layers:
                self._wrap_layer(layer)
            self._wrap_model()
        if self.backend == "jax":
            self._wrap_jax(plain)
            return
        if not self.inside and self.backend == "tensorflow":
            self._wrap_tensorflow_data()
        self._looking = self.inside
        self.model.make_train_function(force=True)
        if not self.inside and self.backend == "torch":
            self._wrap_torch_data()

    def _wrap_layer(self, layer: Any) -> None:
        plain, recorder = layer.call, self
        activation: Any = getattr(layer, "activation", None)
        draws = getattr(layer, "seed_generator", None) is not None

        def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not recorder._in_step:
                return plain(inputs, *args, **kwargs)
            with recorder._noise_noted(layer, plain, inputs, args, kwargs) if draws else contextlib.nullcontext():
                outputs = plain(inputs, *args, **kwargs)
            recorder.note(("activation", layer.name), [outputs])
            return outputs

        self._replace(layer, "call", call)
        if type(layer).__name__ == "Dense" and self._shows_pre_activations(layer):

            def activate(inputs: Any) -> Any:
                recorder.note(("pre_activation", layer.name), [inputs])
                return activation(inputs)

            self._replace(layer, "activation", activate)

    def _shows_pre_activations(self, layer: Any) -> bool:
        """Whether a Dense layer's pre-activations are tensors that can be looked at without changing the numbers.

        In graphs TensorFlow makes one kernel of product, bias and some activations, whose rounding is another than that
        of the three; looking between them would take it apart. Not so where the loss is computed from the logits.
        Source: tensorflow/core/grappler/optimizers/remapper.cc.
        """
        name = getattr(layer.activation, "__name__", "linear")
        takes_logits = layer is self.layers[-1] and self.twin.loss.recovers_logits() and name == "sigmoid"
        return name != "linear" and not (self.mode == "graph" and name in _FUSED and not takes_logits)

    @contextlib.contextmanager
    def _noise_noted(self, layer: Any, plain: Any, inputs: Any, args: Any, kwargs: Any) -> Iterator[None]:
        """After the layer's own call, call it once more with the same seeds on numbers that show what it drew."""
        generator, ops = layer.seed_generator, self.keras.ops
        drawn: list[Any] = []
        plain_next = generator.next

        def next_seed(*a: Any, **k: Any) -> Any:
            drawn.append(plain_next(*a, **k))
            return drawn[-1]

        attributes = vars(generator)
        attributes["next"] = next_seed
        random_state = self._torch_state()
        try:
            yield
            if drawn or (self.backend == "torch" and not self._is_seeded(layer)):
                again = iter(drawn)
                attributes["next"] = lambda *a, **k: next(again)
                kind = type(layer).__name__
                probe = ops.zeros_like(inputs) if kind == "GaussianNoise" else ops.ones_like(inputs)
                with self._torch_state_kept(random_state):
                    found = plain(probe, *args, **kwargs)
                if kind == "Dropout":
                    found = found != 0
                elif kind == "AlphaDropout":
                    found = found > _alpha_dropout_shift(layer.rate)
                self.note(("noise", layer.name), [found])
        finally:
            del attributes["next"]

    @contextlib.contextmanager
    def _noise_states_noted(self) -> Iterator[None]:
        """Note torch's generator before and after the step, where masks of layers without a seed are predicted."""
        if self.noise_is_seeded or not _torch_draws_as_predicted():
            yield
            return
        before = self._generator_state()
        yield
        self.seen["noise_states"] = [np.array([before, self._generator_state()])]

    def _torch_state(self) -> Any:
        if self.backend != "torch":
            return None
        import torch

        return torch.get_rng_state()

    @contextlib.contextmanager
    def _torch_state_kept(self, before: Any) -> Iterator[None]:
        """Inside, torch's global generator is as it was before; after it, as it is now."""
        if before is None:
            yield
            return
        import torch

        now = torch.get_rng_state()
        torch.set_rng_state(before)
        try:
            yield
        finally:
            torch.set_rng_state(now)

    def _wrap_model(self) -> None:
        model, recorder = self.model, self
        step, compute, apply = model.train_step, model.compute_loss, model.optimizer.apply

        def train_step(*args: Any) -> Any:  # of the data, on JAX of the model's state and the data
            if not recorder._looking:
                return step(*args)
            recorder._in_step = True
            try:
                with recorder._noise_states_noted():
                    recorder._note_batch(args[-1])
                    logs = step(*args)
                    recorder._note_state()
                    recorder._hand_on()
                return logs
            finally:
                recorder._in_step = False

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            with recorder._data_loss_noted():
                loss = compute(*args, **kwargs)
            recorder.note("loss", [loss])
            if model.losses:
                recorder.note("penalties", list(model.losses))
            return loss

        def noting_apply(gradients: Any, *args: Any, **kwargs: Any) -> Any:
            gradients = list(gradients)
            recorder.note("gradients", gradients)
            return apply(gradients, *args, **kwargs)

        self._replace(model, "train_step", train_step)
        self._replace(model, "compute_loss", compute_loss)
        self._replace(model.optimizer, "apply", noting_apply)

    @contextlib.contextmanager
    def _data_loss_noted(self) -> Iterator[None]:
        """Inside, the loss of the data, without penalties, is noted."""
        losses = self.model._compile_loss
        plain = losses.call

        def call(*args: Any, **kwargs: Any) -> Any:
            loss = plain(*args, **kwargs)
            self.note("data_loss", [loss])
            return loss

        vars(losses)["call"] = call
        try:
            yield
        finally:
            del vars(losses)["call"]

    def _note_batch(self, data: Any) -> None:
        x, y, sample_weight = self.keras.utils.unpack_x_y_sample_weight(data)
        self.note("x", [x])
        self.note("y", [y])
        if sample_weight is not None:
            self.note("sample_weight", [sample_weight])

    def _wrap_tensorflow_data(self) -> None:
        """See the batch on its way into the compiled step."""
        model, recorder = self.model, self
        convert = model._autoconvert_optionals

        def noting(step: Any) -> Any:
            run = convert(step)

            def step_of(data: Any) -> Any:
                recorder._noting(data)
                return run(data)

            return step_of

        self._replace(model, "_autoconvert_optionals", noting)

    def _wrap_torch_data(self) -> None:
        """The same on torch."""
        step, recorder = self.model.train_function, self

        def step_of(data: Any) -> Any:
            recorder._noting(data[0])
            return step(data)

        self.model.train_function = step_of  # until the fit's end

    def _wrap_jax(self, plain: Any) -> None:
        """Each step runs on a copy of the state, looked into, and then plainly; both are functions without effects."""
        import jax

        model, recorder = self.model, self
        model.make_train_function(force=True)
        watched = model.train_function

        def train_function(state: Any, iterator: Any) -> Any:
            data = next(iterator)
            recorder._noting(data)
            if not recorder.inside:
                return plain(state, iter([data]))
            recorder._looking = True
            try:  # the state is given away to the step, so it takes a copy
                copied = watched(jax.tree.map(lambda array: array.copy(), state), iter([data]))
                jax.effects_barrier()
            finally:
                recorder._looking = False
            result = plain(state, iter([data]))
            if _bits(jax.tree.leaves(copied)) != _bits(jax.tree.leaves(result)):
                recorder.seen.clear()
                recorder._noting(data)
            return result

        self._replace(model, "train_function", train_function)

    def _noting(self, data: Any) -> None:
        self._in_step = True
        try:
            self._note_batch(data)
            self._hand_on()
        finally:
            self._in_step = False


@functools.cache
def _torch_draws_as_predicted() -> bool:
    """Whether a mask of Dropout without a seed is predicted on this processor: on Intel's MKL draws them."""
    import torch

    generator, kept = random.mt19937(1), torch.empty(64).bernoulli_(0.7, generator=torch.Generator().manual_seed(1))
    with random.using_torch_generator(generator):
        return bool((random.torch_unseeded_dropout_mask((64,), 1 - 0.7) == (kept.numpy() != 0)).all())


def _bits(arrays: list[Any]) -> list[bytes]:
    return [np.asarray(array).tobytes() for array in arrays]


_ABSENT = object()
_KINDS = ("noise", "activation", "pre_activation")
_FUSED = ("elu", "sigmoid", "tanh")


def _alpha_dropout_shift(rate: float) -> float:
    """b of ops.alpha_dropout, a·x + b: what a kept 1 is above, and a dropped one below."""
    saturated = -1.7580993408473766  # −αλ of a SELU
    a = 1 / math.sqrt((1 - rate) * (1 + rate * saturated**2))
    return -a * saturated * rate


def _weight_names(model: Any) -> list[str]:
    return [f"{layer.name}/{name}" for layer in model.flat_layers() for name in (*layer.parameters, *layer.state)]
