"""What one training step consists of, whoever recorded it, and what is said of each part of it.

A recorder (recorder.py) fills a Step while Keras trains; a judge (judge.py) makes Checks of it; a Report (report.py)
keeps the worst of them. A step is judged as it comes and then let go, so that memory holds one step's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minidl.backend import Array
from minidl.schedules import LearningRateSchedule

# In the order in which a step computes them: of two divergences in one step, the earlier quantity is named.
QUANTITIES = (
    "batch",
    "mask",
    "pre_activation",
    "activation",
    "loss",
    "penalty",
    "metric",
    "gradient",
    "slot",
    "weight",
)  # fmt: skip

BIT_EQUAL, WITHIN_BOUND, DIVERGENT, NOT_OBSERVED = "bit-equal", "within bound", "divergent", "not observed"


@dataclass
class State:
    """What a model carries from step to step.

    weights: "layer/name" -> array, of all layers in order, trained or not. slots: slot name ("m", "v", …) ->
    "layer/name" of a trained weight -> array; a slot that is one number, such as Nadam's u_product, under the name "".
    seeds: layer name -> [seed, counter]. iterations: updates so far; learning_rate: that of the next one.
    """

    weights: dict[str, Array]
    slots: dict[str, dict[str, Array]]
    iterations: int
    learning_rate: float
    seeds: dict[str, Array] = field(default_factory=dict)

    def write_to(self, model: Any) -> None:
        """Put a compiled, built minidl model into this state: weights, seeds, slots, learning rate and updates.

        Its optimizer's count of batches is that of a fit between two updates.
        """
        for layer in model.flat_layers():
            for name, own in {**layer.parameters, **layer.state}.items():
                own[...] = self.weights[f"{layer.name}/{name}"]
            generator = getattr(layer, "seed_generator", None)
            if generator is not None and layer.name in self.seeds:
                generator.state[...] = self.seeds[layer.name]
        optimizer, arena = model.optimizer, model.arena
        optimizer.build(arena)
        for slot in optimizer.slots:
            for segment, view in zip(arena.segments, arena.views(getattr(optimizer, slot)), strict=True):
                view[...] = self.slots[slot][f"{segment.layer}/{segment.name}"]
        for name in optimizer.scalars:
            getattr(optimizer, name)[...] = self.slots[name][""]
        optimizer._batches = int(self.iterations) * (optimizer.gradient_accumulation_steps or 1)
        if not isinstance(optimizer.learning_rate_argument, LearningRateSchedule):
            optimizer.learning_rate = float(self.learning_rate)


@dataclass
class Step:
    """One step of a fit, in the trainer's own numbers; None where it was not observed.

    number: counted from 0 over the whole fit; epoch; batch: of the epoch. before, after: the state around the step.
    x, y, sample_weight: the batch as trained on, class weights included; sample_weight None also where there is none.
    noise: layer name -> the mask (bool, True = kept) of a Dropout or AlphaDropout, the factor or summand of a Gaussian.
    pre_activations: of each layer that ends in an activation; activations: the outputs of every layer.
    data_loss: without penalties; loss: with them. penalties: in the order of model.losses.
    gradients: "layer/name" of each trained weight -> dL/d(weight), as handed to the optimizer. logs: what is reported.
    shuffle_state: on JAX and torch, the state of the generator, MT19937, from which the order of the epoch's rows was
    drawn: 624 words and the position. noise_states: on torch, where Dropout without a seed draws from its global
    generator, the states of that before and after the step.
    """

    number: int
    epoch: int
    batch: int
    before: State
    after: State
    x: Array | None = None
    y: Array | None = None
    sample_weight: Array | None = None
    noise: dict[str, Array] | None = None
    pre_activations: dict[str, Array] | None = None
    activations: dict[str, Array] | None = None
    data_loss: Any = None
    loss: Any = None
    penalties: list[Any] | None = None
    gradients: dict[str, Array] | None = None
    logs: dict[str, float] | None = None
    shuffle_state: Array | None = None
    noise_states: Array | None = None


@dataclass
class Fit:
    """A recorded fit, so that it can be begun anew.

    arguments: Keras's fit's. data: x, y and the weights of the samples, those of the classes included. start: the state
    before the first step. initializers: "layer/name" of a weight -> configuration, with its seed, and shape.
    """

    arguments: dict[str, Any]
    data: tuple[Array | None, ...]
    start: State | None = None
    initializers: dict[str, tuple[Any, tuple[int, ...]]] = field(default_factory=dict)


@dataclass
class Element:
    """One element of a divergent tensor: where, what was recorded, minidl's own, the true value, its bound."""

    place: tuple[int, ...]
    got: float
    expected: float
    truth: float
    bound: float


@dataclass
class Check:
    """One tensor of a step, judged.

    quantity: of QUANTITIES; layer: its name or None; name: of the tensor ("kernel", "m/kernel", "accuracy", …).
    verdict: BIT_EQUAL (to minidl's own result), WITHIN_BOUND, DIVERGENT or NOT_OBSERVED, with a reason.
    ulps: the distance of the worst element from the true value, in units of its last place. share: that distance
    as a share of the bound, own_share: the same of minidl's own float32 result; above 1 diverges.
    place: index of the worst element; got: there, what was recorded; expected: minidl's own; truth: the value in
    float64; bound: how far from it any order of rounding may lead. Of a large product of which all lies within the
    bound, the worst is sought among those with the largest error in each block of rows; own_share is of these alone.
    inputs: what it was computed from, named, as far as one element tells. formula: the function of ops.py. reason: in
    words, for a reader. elements: where it diverges, the worst first, a few of them.
    """

    quantity: str
    layer: str | None
    name: str
    step: int
    verdict: str
    ulps: float = 0.0
    share: float = 0.0
    own_share: float = 0.0
    place: tuple[int, ...] = ()
    got: float | None = None
    expected: float | None = None
    truth: float | None = None
    bound: float | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    formula: str = ""
    reason: str = ""
    elements: list[Element] = field(default_factory=list)
