"""Steps for the judge of live Keras: its own train_on_batch, in graph, eager or XLA mode, seen from inside."""

import judge_steps
import numpy as np

from minidl.oracle.steps import Step


class Watched:
    """A Keras model that notes what its training steps compute; shadow: the same model of minidl's, for its state.

    inside: whether to look into the step, which XLA does not allow.
    """

    def __init__(self, keras, tf, model, shadow, *, inside=True):
        self.keras, self.tf, self.model, self.shadow = keras, tf, model, shadow
        self.seen = {}
        self.inside = inside
        self.in_step = False
        if inside:
            for layer in model.layers:
                self._watch(layer)
            self._watch_model()

    def note(self, key, *tensors):
        if not self.in_step:
            return
        seen = self.seen

        def keep(*values):
            seen[key] = [np.array(value) for value in values]

        self.tf.numpy_function(keep, list(tensors), [])

    def _watch(self, layer):
        plain = layer.call

        def call(*args, **kwargs):
            outputs = plain(*args, **kwargs)
            self.note(("activation", layer.name), outputs)
            return outputs

        layer.call = call
        if type(layer).__name__ == "Dense":
            activation = layer.activation

            def activate(inputs):
                self.note(("pre_activation", layer.name), inputs)
                return activation(inputs)

            layer.activation = activate if activation is not None else None
            if activation is None or activation is self.keras.activations.linear:
                layer.activation = activation

    def _watch_model(self):
        model = self.model
        compute, apply, step = model._compile_loss.call, model.optimizer.apply_gradients, model.train_step

        def call(*args, **kwargs):
            loss = compute(*args, **kwargs)
            self.note("data_loss", loss)
            if model.losses:
                self.note("penalties", *model.losses)
            return loss

        def apply_gradients(pairs):
            pairs = list(pairs)
            self.note("gradients", *[gradient for gradient, _ in pairs])
            return apply(pairs)

        def train_step(data):
            self.in_step = True
            try:
                return step(data)
            finally:
                self.in_step = False

        model._compile_loss.call = call
        model.optimizer.apply_gradients = apply_gradients
        model.train_step = train_step

    def state(self):
        self.shadow.set_weights([np.array(weight) for weight in self.model.get_weights()])
        self.shadow.optimizer.build(self.shadow.arena)
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        self.shadow.optimizer.load_own_variables([variable.numpy() for variable in optimizer.variables])
        for layer, own in zip(self.model.layers, self.shadow.layers, strict=True):
            generator = getattr(layer, "seed_generator", None)
            if generator is not None and getattr(own, "seed_generator", None) is not None:
                own.seed_generator.state[...] = generator.state.numpy()
        return judge_steps.state_of(self.shadow)

    def step(self, x, y, sample_weight=None, *, number=0, batch=0):
        before = self.state()
        self.seen.clear()
        logs = self.model.train_on_batch(x, y, sample_weight=sample_weight, return_dict=True)
        step = Step(number, 0, batch, before, self.state(), x, y, sample_weight)
        step.logs = {name: np.array(value) for name, value in logs.items()}
        if self.inside:
            step.noise = {}
            step.activations = {key[1]: value[0] for key, value in self.seen.items() if key[0] == "activation"}
            step.pre_activations = {key[1]: value[0] for key, value in self.seen.items() if key[0] == "pre_activation"}
            for layer in self.shadow.layers:  # of a linear layer the outputs are the pre-activations
                if layer.name in step.activations and getattr(layer, "units", None) is not None:
                    step.pre_activations.setdefault(layer.name, step.activations[layer.name])
            step.data_loss = self.seen["data_loss"][0]
            step.penalties = self.seen.get("penalties", [])
            names = [f"{segment.layer}/{segment.name}" for segment in self.shadow.arena.segments]
            step.gradients = dict(zip(names, self.seen["gradients"], strict=True))
        return step
