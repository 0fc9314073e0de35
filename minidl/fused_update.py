"""The end of a fused step: the gradients of penalties and the optimizer's update, as calls; see calls.py.

Adam's operations are those of ops.adam_step in its order, by pieces of the arena that stay in a core's cache, so the
same bits; of a large model each half of the arena is a thread's. Every other optimizer takes its own step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import calls, config, elementwise, threads
from minidl.arena import Arena, Segment, aligned
from minidl.backend import Array
from minidl.calls import Call, Calls, constant, pieces
from minidl.optimizers import Adam, AdamW
from minidl.regularizers import L1, L1L2, L2

if TYPE_CHECKING:
    from minidl.trainer import Trainer


def parts(starts: list[int], size: int) -> list[slice]:
    """The arena from its end to its beginning in whole layers, as many a part as make a PIECE; starts: of layers."""
    found, stop = [], size
    for start in starts:
        if start == 0 or stop - start >= calls.PIECE:
            found.append(slice(start, stop))
            stop = start
    return found


@dataclass
class Penalty:
    """A regularizer of one parameter, and where in the arena that lies."""

    regularizer: Any
    weights: Array
    gradient: Array
    segment: Segment

    def factors(self) -> tuple[float, ...]:
        """(λ of L1, λ of L2), as read from the regularizer now; () of one of another kind."""
        kind, regularizer = type(self.regularizer), self.regularizer
        if kind not in (L1, L2, L1L2) or not vars(regularizer).keys() <= {"l1", "l2"}:
            return ()
        return getattr(regularizer, "l1", 0.0), getattr(regularizer, "l2", 0.0)

    def value(self) -> Call:
        """A call for the penalty itself."""
        return partial(self.regularizer, self.weights)

    def add_gradient(self, optimizer: Any) -> None:
        """training.add_penalty_gradients of this one."""
        self.gradient += optimizer.scale_loss(self.regularizer.gradient(self.weights))

    def piece(self, piece: slice, theta: Array, grads: Array, work: Array) -> Calls:
        """The same, of L1, L2 and L1L2, for the part that lies in this piece of the arena; work: two such pieces."""
        part = slice(max(self.segment.start, piece.start), min(self.segment.stop, piece.stop))
        if part.start >= part.stop:
            return []
        w, g, (first, second) = theta[part], grads[part], work[:, : part.stop - part.start]
        l1, l2 = (float(np.float32(factor)) for factor in self.factors())
        if config.elementwise() == "numba":
            loop, factors = {
                L1: (elementwise.add_l1_gradient, [l1]),
                L2: (elementwise.add_l2_gradient, [2 * l2]),
                L1L2: (elementwise.add_l1_l2_gradient, [l1, 2 * l2]),
            }[type(self.regularizer)]
            return [elementwise.bound(loop, g, w, np.array(factors, w.dtype))]
        of_l1 = [partial(np.sign, w, first), partial(np.multiply, first, constant(l1, w.dtype), first)]
        if type(self.regularizer) is L1:
            return [*of_l1, partial(np.add, g, first, g)]
        of_l2 = partial(np.multiply, w, constant(2 * l2, w.dtype), second)
        if type(self.regularizer) is L2:
            return [of_l2, partial(np.add, g, second, g)]
        return [*of_l1, of_l2, partial(np.add, first, second, first), partial(np.add, g, first, g)]


def penalties_of(model: Trainer) -> list[Penalty]:
    """All penalties on parameters, in training.penalties' order."""
    layers = model.flat_layers()
    owners = [(layer, name) for layer in layers for name in layer.parameters]
    place = dict(zip(owners, model.arena.segments, strict=True))
    return [
        Penalty(regularizer, layer.parameters[name], layer.grads[name], place[layer, name])
        for layer in layers
        for name, regularizer in layer.regularizers.items()
    ]


class Update:
    """The penalties' gradients and the optimizer's own step, of so many batches.

    starts: where in the arena the layers begin, from the last to the first.
    """

    def __init__(self, optimizer: Any, arena: Arena, penalties: list[Penalty], starts: list[int], batches: int) -> None:
        self._optimizer = optimizer
        gradients: Calls = [partial(penalty.add_gradient, optimizer) for penalty in penalties]
        self._calls: dict[int, list[Calls]] = {starts[-1]: [[*gradients, partial(optimizer.apply, arena)]] * batches}

    def after(self, start: int, k: int) -> Calls:
        """The calls of the k-th batch once the layer that begins there and all above it have their gradients."""
        return self._calls[start][k] if start in self._calls else []

    def still_fits(self, optimizer: Any) -> bool:
        """Whether this is the update that the model's optimizer, which a callback may change, makes now."""
        return optimizer is self._optimizer and not AdamUpdate.fits(optimizer)

    def prepare(self) -> None:
        """Called before the calls of every batch."""


LARGE = 2**20  # parameters: so many are updated by two threads, where there is a second core for one; see threads.py


class AdamUpdate(Update):
    """The gradients of penalties and ops.adam_step over the arena, by pieces that stay in the cache."""

    def __init__(self, optimizer: Any, arena: Arena, penalties: list[Penalty], starts: list[int], batches: int) -> None:
        self._optimizer, self._penalties = optimizer, penalties
        self._constants = self._constants_of(optimizer)
        optimizer.build(arena)
        self._alphas = np.empty(batches, arena.dtype)
        gradients: Calls = [partial(p.add_gradient, optimizer) for p in penalties if not p.factors()]
        self._calls = {}
        in_two = arena.size >= LARGE and threads.is_spare()
        works = [aligned((2, min(arena.size, calls.PIECE)), arena.dtype) for _ in range(2 if in_two else 1)]
        for part in [slice(0, arena.size)] if gradients or in_two else parts(starts, arena.size):
            by_pieces = [[self._bind(arena, piece, work) for work in works] for piece in pieces(part.stop, part.start)]
            self._calls[part.start] = []
            for k in range(batches):
                alpha = self._alphas[k : k + 1]
                bound = [[calls_with(alpha) for calls_with in piece] for piece in by_pieces]
                in_turn: Calls = [call for piece in bound for call in piece[0]]
                update: Calls = [partial(threads.in_two_threads, bound)] if in_two else in_turn
                count: Calls = [] if part.start else [optimizer.count_batch]
                self._calls[part.start].append([*gradients, *update, *count])

    def _constants_of(self, optimizer: Any) -> tuple[Any, ...]:
        factors = [penalty.factors() for penalty in self._penalties]
        return optimizer.beta_1, optimizer.beta_2, optimizer.epsilon, factors

    @staticmethod
    def fits(optimizer: Any) -> bool:
        """Whether the optimizer does nothing but Adam's update."""
        around = (
            optimizer.weight_decay,
            optimizer.clipnorm,
            optimizer.clipvalue,
            optimizer.global_clipnorm,
            optimizer.loss_scale_factor,
            optimizer.gradient_accumulation_steps,
        )
        return (
            type(optimizer) in (Adam, AdamW)
            and vars(optimizer).keys().isdisjoint(("apply", "update"))
            and not optimizer.amsgrad
            and not optimizer.use_ema
            and all(argument is None for argument in around)
        )

    def still_fits(self, optimizer: Any) -> bool:
        return (
            optimizer is self._optimizer
            and self._constants == self._constants_of(optimizer)
            and AdamUpdate.fits(optimizer)
        )

    def prepare(self) -> None:
        self._alphas[...] = self._optimizer.alphas(len(self._alphas), self._alphas.dtype)

    def _bind(self, arena: Arena, piece: slice, work: Array) -> Callable[[Array], Calls]:
        """The update of this piece of the arena, given α, (1,); what is without it is bound once. work: two pieces."""
        optimizer = self._optimizer
        constants = np.array([1.0 - optimizer.beta_1, 1.0 - optimizer.beta_2, optimizer.epsilon], arena.dtype)
        rate_1, rate_2, epsilon = (constants[i, ...] for i in range(3))
        param, grad, m, v = (array[piece] for array in (arena.theta, arena.grads, optimizer.m, optimizer.v))
        penalties = [p.piece(piece, arena.theta, arena.grads, work) for p in self._penalties if p.factors()]
        before: Calls = [call for of_one in penalties for call in of_one]
        if config.elementwise() == "numba":
            arrays = param, grad, m, v
            return lambda alpha: [*before, elementwise.bound(elementwise.adam_step, *arrays, alpha, constants)]
        change, root = work[:, : param.size]
        before += [
            partial(np.subtract, grad, m, change),
            partial(np.multiply, change, rate_1, change),
            partial(np.add, m, change, m),
            partial(np.multiply, grad, grad, change),
            partial(np.subtract, change, v, change),
            partial(np.multiply, change, rate_2, change),
            partial(np.add, v, change, v),
            partial(np.sqrt, v, root),
            partial(np.add, root, epsilon, root),
        ]
        after: Calls = [partial(np.divide, change, root, change), partial(np.subtract, param, change, param)]
        return lambda alpha: [*before, partial(np.multiply, m, alpha[0, ...], change), *after]
